//! `stats`: the samples of the API as percentages and sizes, once or as a table that redraws itself.

use crate::cli::Cli;
use crate::command::{container_path, get, text};
use crate::failure::{Failure, Outcome};
use crate::format::{Format, Row};
use crate::grammar::Matches;
use crate::{output, units};
use gantry_client::{Client, Error, Query, Request};
use serde_json::Value;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

const HEADINGS: [(&str, &str); 9] = [
    ("Container", "CONTAINER"),
    ("Name", "NAME"),
    ("ID", "CONTAINER ID"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];
const TABLE: &str = "table {{.ID}}\\t{{.Name}}\\t{{.CPUPerc}}\\t{{.MemUsage}}\\t{{.MemPerc}}\\t{{.NetIO}}\\t{{.BlockIO}}\\t{{.PIDs}}";

/// The latest sample of one container; `None` before the first.
struct Watched {
    container: String,
    sample: Option<Value>,
    gone: bool,
}

type Board = Rc<RefCell<Vec<Watched>>>;
type Work<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// Runs `stats`.
pub async fn stats(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let given = match matches.get("format") {
        Some(format) => format.to_owned(),
        None => cli.config().stats_format.clone(),
    };
    let format = Format::new(&given, TABLE, &HEADINGS)?;
    let truncate = !matches.on("no-trunc");
    let all = matches.arguments.is_empty();
    let names = match all {
        false => matches.arguments.clone(),
        true => running(client, matches.on("all")).await?,
    };
    if matches.on("no-stream") {
        return once(client, &names, all, &format, truncate).await;
    }
    let board: Board = Rc::new(RefCell::new(Vec::new()));
    let mut work: Vec<Work<'_>> = names
        .iter()
        .map(|name| watch(client, board.clone(), name.clone()))
        .collect();
    let arrivals = Rc::new(RefCell::new(Vec::new()));
    if all {
        work.push(Box::pin(arrive(
            client,
            arrivals.clone(),
            matches.on("all"),
        )));
    }
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    ticks.tick().await;
    loop {
        let tick = ticks.tick();
        let mut tick = std::pin::pin!(tick);
        let mut failed = None;
        std::future::poll_fn(|context| {
            let mut at = 0;
            while at < work.len() {
                match work[at].as_mut().poll(context) {
                    Poll::Pending => at += 1,
                    Poll::Ready(outcome) => {
                        if let Err(failure) = outcome {
                            failed = Some(failure);
                        }
                        drop(work.swap_remove(at));
                    }
                }
            }
            if failed.is_some() {
                Poll::Ready(())
            } else {
                tick.as_mut().poll(context).map(drop)
            }
        })
        .await;
        if let Some(failure) = failed.filter(|_| !all) {
            return Err(failure);
        }
        for name in arrivals.borrow_mut().drain(..) {
            if !board
                .borrow()
                .iter()
                .any(|watched| watched.container == name && !watched.gone)
            {
                work.push(watch(client, board.clone(), name));
            }
        }
        board.borrow_mut().retain(|watched| !watched.gone);
        let rows = board
            .borrow()
            .iter()
            .map(|watched| row(&watched.container, watched.sample.as_ref(), truncate))
            .collect();
        let body = format.render(rows)?;
        if format.is_table() {
            // Home, each line cleared to its end, the rest below cleared.
            output::out(&format!("\x1b[H{}\x1b[J", body.replace('\n', "\x1b[K\n")));
        } else {
            output::out(&body);
        }
        if work.is_empty() {
            return Ok(());
        }
    }
}

async fn running(client: &Client, stopped: bool) -> Outcome<Vec<String>> {
    let list = get(
        client,
        "/containers/json",
        Query::new().when(stopped, "all", "1"),
    )
    .await?;
    Ok(list
        .as_array()
        .into_iter()
        .flatten()
        .map(|container| text(container, "Id").to_owned())
        .collect())
}

async fn once(
    client: &Client,
    names: &[String],
    all: bool,
    format: &Format,
    truncate: bool,
) -> Outcome {
    let samples: RefCell<Vec<Option<Result<Value, Error>>>> =
        RefCell::new(names.iter().map(|_| None).collect());
    let work: Vec<String> = (0..names.len()).map(|at| at.to_string()).collect();
    crate::command::each(&work, |at| {
        let (samples, at) = (&samples, at.parse::<usize>().unwrap_or(0));
        async move {
            let query = Query::new().with("stream", "0");
            let sample = get(client, container_path(&names[at], "/stats"), query).await;
            samples.borrow_mut()[at] = Some(sample);
            Ok(None)
        }
    })
    .await?;
    let mut rows = Vec::new();
    let mut errors = Vec::new();
    for (name, sample) in names.iter().zip(samples.into_inner()) {
        match sample {
            Some(Ok(sample)) => rows.push(row(name, Some(&sample), truncate)),
            Some(Err(error)) => errors.push(error.to_string()),
            None => {}
        }
    }
    // One that was asked for by name and is not there leaves no table; of all of them one may have gone meanwhile.
    if !errors.is_empty() && (!all || rows.is_empty()) {
        return Err(Failure::new(errors.join("\n")));
    }
    output::out(&format.render(rows)?);
    Ok(())
}

fn watch<'a>(client: &'a Client, board: Board, name: String) -> Work<'a> {
    board.borrow_mut().push(Watched {
        container: name.clone(),
        sample: None,
        gone: false,
    });
    Box::pin(async move {
        let set = |change: &dyn Fn(&mut Watched)| {
            if let Some(watched) = board
                .borrow_mut()
                .iter_mut()
                .find(|watched| watched.container == name)
            {
                change(watched);
            }
        };
        let query = Query::new().with("stream", "1");
        let outcome = async {
            let request = Request::get(container_path(&name, "/stats")).query(query);
            let mut response = client.send(request).await?;
            while let Some(sample) = response.next_json::<Value>().await? {
                set(&|watched| watched.sample = Some(sample.clone()));
            }
            Ok::<(), Error>(())
        }
        .await;
        set(&|watched| watched.gone = true);
        outcome.map_err(Failure::from)
    })
}

/// Collects the containers that start or are created while the table is shown.
async fn arrive(client: &Client, arrivals: Rc<RefCell<Vec<String>>>, stopped: bool) -> Outcome {
    let query = Query::new().with("filters", r#"{"type":{"container":true}}"#);
    let mut response = client.send(Request::get("/events").query(query)).await?;
    while let Some(event) = response.next_json::<Value>().await? {
        let action = text(&event, "Action");
        if action == "start" || (action == "create" && stopped) {
            arrivals
                .borrow_mut()
                .push(event["Actor"]["ID"].as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(())
}

fn row(container: &str, sample: Option<&Value>, truncate: bool) -> Row {
    let row = Row::new("*formatter.statsContext");
    let Some(sample) = sample else {
        let shown = if truncate {
            units::short_id(container)
        } else {
            container
        };
        return row
            .text("Container", shown)
            .text("Name", "--")
            .text("ID", shown)
            .text("CPUPerc", "--")
            .text("MemUsage", "-- / --")
            .text("MemPerc", "--")
            .text("NetIO", "--")
            .text("BlockIO", "--")
            .text("PIDs", "--");
    };
    let id = text(sample, "id");
    let name = text(sample, "name");
    let used = memory_used(&sample["memory_stats"]);
    let limit = sample["memory_stats"]["limit"].as_f64().unwrap_or(0.0);
    let percent = if limit > 0.0 {
        used / limit * 100.0
    } else {
        0.0
    };
    let (received, sent) = network(&sample["networks"]);
    let (read, written) = block(&sample["blkio_stats"]);
    row.text("Container", container)
        .text("Name", name.strip_prefix('/').unwrap_or(name))
        .text("ID", if truncate { units::short_id(id) } else { id })
        .text("CPUPerc", format!("{:.2}%", processor(sample)))
        .text(
            "MemUsage",
            format!(
                "{} / {}",
                units::binary_size(used),
                units::binary_size(limit)
            ),
        )
        .text("MemPerc", format!("{percent:.2}%"))
        .text(
            "NetIO",
            format!("{} / {}", units::size(received, 3), units::size(sent, 3)),
        )
        .text(
            "BlockIO",
            format!("{} / {}", units::size(read, 3), units::size(written, 3)),
        )
        .text(
            "PIDs",
            sample["pids_stats"]["current"]
                .as_u64()
                .unwrap_or(0)
                .to_string(),
        )
}

fn processor(sample: &Value) -> f64 {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let (now, before) = (&sample["cpu_stats"], &sample["precpu_stats"]);
    let used =
        number(&now["cpu_usage"]["total_usage"]) - number(&before["cpu_usage"]["total_usage"]);
    let total = number(&now["system_cpu_usage"]) - number(&before["system_cpu_usage"]);
    let mut processors = number(&now["online_cpus"]);
    if processors == 0.0 {
        processors = now["cpu_usage"]["percpu_usage"]
            .as_array()
            .map_or(0.0, |list| list.len() as f64);
    }
    if total > 0.0 && used > 0.0 {
        used / total * processors * 100.0
    } else {
        0.0
    }
}

/// Returns the memory in use without the page cache that can be dropped at once.
fn memory_used(memory: &Value) -> f64 {
    let usage = memory["usage"].as_f64().unwrap_or(0.0);
    for field in ["total_inactive_file", "inactive_file"] {
        if let Some(cache) = memory["stats"][field]
            .as_f64()
            .filter(|cache| *cache < usage)
        {
            return usage - cache;
        }
    }
    usage
}

fn network(networks: &Value) -> (f64, f64) {
    let sum = |field: &str| -> f64 {
        networks
            .as_object()
            .into_iter()
            .flatten()
            .map(|(_, link)| link[field].as_f64().unwrap_or(0.0))
            .sum()
    };
    (sum("rx_bytes"), sum("tx_bytes"))
}

fn block(stats: &Value) -> (f64, f64) {
    let sum = |first: char| -> f64 {
        stats["io_service_bytes_recursive"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|entry| text(entry, "op").to_lowercase().starts_with(first))
            .map(|entry| entry["value"].as_f64().unwrap_or(0.0))
            .sum()
    };
    (sum('r'), sum('w'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_come_from_differences() {
        let sample = json!({
            "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
            "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
        });
        assert!((processor(&sample) - 40.0).abs() < 1e-9);
        assert!(
            (memory_used(&json!({"usage": 100, "stats": {"inactive_file": 30}})) - 70.0).abs()
                < 1e-9
        );
        let entries = json!({"io_service_bytes_recursive": [{"op": "Read", "value": 5}, {"op": "write", "value": 7}]});
        assert_eq!(block(&entries), (5.0, 7.0));
    }
}
