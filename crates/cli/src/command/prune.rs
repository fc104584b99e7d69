//! `prune` of containers, images, volumes, networks and of everything.

use crate::cli::Cli;
use crate::command::confirmed;
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::{filter, output, units};
use gantry_api::filters::Filters;
use gantry_client::{Client, Query, Request};
use serde_json::Value;

/// Runs one of the prunes.
pub async fn prune(cli: &Cli, path: &str, matches: &Matches) -> Outcome {
    let all = matches.on("all");
    let mut values = cli.config().prune_filters.clone();
    values.extend(matches.all("filter"));
    let filters = filter::collect(&values);
    let force = matches.on("force");
    let kind = path.split(' ').next().unwrap_or_default();
    if kind == "system" {
        return system(cli, all, matches.on("volumes"), force, filters, &values).await;
    }
    let warning = match kind {
        "container" => "This will remove all stopped containers.",
        "image" if all => {
            "This will remove all images without at least one container associated to them."
        }
        "image" => "This will remove all dangling images.",
        "volume" if all => "This will remove all local volumes not used by at least one container.",
        "volume" => "This will remove anonymous local volumes not used by at least one container.",
        _ => "This will remove all custom networks not used by at least one container.",
    };
    if kind == "volume" && all && filters.contains("all") {
        return Err(Failure::new(
            "conflicting options: cannot specify both --all and --filter all=1",
        ));
    }
    if !force
        && !confirmed(&format!(
            "WARNING! {warning}\nAre you sure you want to continue?"
        ))
        .await?
    {
        // Docker's client ends in silence and with success.
        return Ok(());
    }
    let report = one(cli.client()?, kind, all, filters).await?;
    output::out(&report.text);
    if kind != "network" {
        output::line(&format!(
            "Total reclaimed space: {}",
            units::size(report.bytes, 4)
        ));
    }
    Ok(())
}

#[derive(Default)]
struct Report {
    text: String,
    bytes: f64,
}

async fn one(client: &Client, kind: &str, all: bool, mut filters: Filters) -> Outcome<Report> {
    let path = match kind {
        "container" => "/containers/prune",
        "image" => {
            filters.add("dangling", if all { "false" } else { "true" });
            "/images/prune"
        }
        "volume" => {
            if all {
                filters.add("all", "true");
            }
            "/volumes/prune"
        }
        _ => "/networks/prune",
    };
    let query = Query::new().when(!filters.is_empty(), "filters", filters.to_json());
    let answer: Value = client
        .send(Request::post(path).query(query))
        .await?
        .json()
        .await?;
    let mut report = Report {
        text: String::new(),
        bytes: answer["SpaceReclaimed"].as_f64().unwrap_or(0.0),
    };
    let (title, field) = match kind {
        "container" => ("Deleted Containers:", "ContainersDeleted"),
        "image" => ("Deleted Images:", "ImagesDeleted"),
        "volume" => ("Deleted Volumes:", "VolumesDeleted"),
        _ => ("Deleted Networks:", "NetworksDeleted"),
    };
    let items = answer[field].as_array().cloned().unwrap_or_default();
    if items.is_empty() {
        return Ok(report);
    }
    report.text.push_str(&format!("{title}\n"));
    for item in &items {
        let line = match (
            item.as_str(),
            item["Untagged"].as_str(),
            item["Deleted"].as_str(),
        ) {
            (Some(name), _, _) => name.to_owned(),
            (_, Some(name), _) if !name.is_empty() => format!("untagged: {name}"),
            (_, _, Some(id)) => format!("deleted: {id}"),
            _ => continue,
        };
        report.text.push_str(&line);
        report.text.push('\n');
    }
    report.text.push('\n');
    Ok(report)
}

async fn system(
    cli: &Cli,
    all: bool,
    volumes: bool,
    force: bool,
    filters: Filters,
    given: &[String],
) -> Outcome {
    if volumes && filters.contains("until") {
        return Err(Failure::new(
            "ERROR: The \"until\" filter is not supported with \"--volumes\"",
        ));
    }
    let client = cli.client()?;
    let builder = client.ping().await?.builder_version;
    let cache = !builder.is_empty();
    if !force {
        let mut text = "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n".to_owned();
        if volumes {
            text.push_str("  - all anonymous volumes not used by at least one container\n");
        }
        text.push_str(match all {
            true => "  - all images without at least one container associated to them\n",
            false => "  - all dangling images\n",
        });
        if cache {
            text.push_str(if all {
                "  - all build cache\n"
            } else {
                "  - unused build cache\n"
            });
        }
        if !given.is_empty() {
            text.push_str("\n  Items to be pruned will be filtered with:\n");
            for filter in given {
                text.push_str(&format!("  - {filter}\n"));
            }
        }
        if !confirmed(&format!("{text}\nAre you sure you want to continue?")).await? {
            return Ok(());
        }
    }
    let mut bytes = 0.0;
    let mut kinds = vec!["container", "network"];
    if volumes {
        kinds.push("volume");
    }
    kinds.push("image");
    for kind in kinds {
        // --all is about images here; of volumes only the anonymous ones go.
        let report = one(client, kind, all && kind == "image", filters.clone()).await?;
        bytes += report.bytes;
        output::out(&report.text);
    }
    if cache {
        let query = Query::new().when(all, "all", "1").with(
            "filters",
            if filters.is_empty() {
                String::new()
            } else {
                filters.to_json()
            },
        );
        bytes += cache_pruned(client, query).await?;
    }
    output::line(&format!("Total reclaimed space: {}", units::size(bytes, 4)));
    Ok(())
}

/// Runs `builder prune`.
pub async fn build_cache(cli: &Cli, matches: &Matches) -> Outcome {
    let all = matches.on("all");
    let mut values = cli.config().prune_filters.clone();
    values.extend(matches.all("filter"));
    let filters = filter::collect(&values);
    let what = if all { "all" } else { "all dangling" };
    if !matches.on("force")
        && !confirmed(&format!(
            "WARNING! This will remove {what} build cache. Are you sure you want to continue?"
        ))
        .await?
    {
        return Ok(());
    }
    let kept = matches.bytes("keep-storage").unwrap_or(0);
    let query = Query::new()
        .when(all, "all", "1")
        .when(!filters.is_empty(), "filters", filters.to_json())
        .when(kept > 0, "keep-storage", kept.to_string());
    let bytes = cache_pruned(cli.client()?, query).await?;
    output::line(&format!("Total reclaimed space: {}", units::size(bytes, 4)));
    Ok(())
}

/// Prunes the build cache, tells what went, and returns its bytes.
async fn cache_pruned(client: &Client, query: Query) -> Outcome<f64> {
    let request = Request::post("/build/prune").query(query);
    let answer: Value = match client.send(request).await {
        Ok(answer) => answer.json().await?,
        // A daemon without a builder has no cache to prune.
        Err(error) if matches!(error.status(), Some(404 | 501)) => return Ok(0.0),
        Err(error) => return Err(error.into()),
    };
    let caches = answer["CachesDeleted"].as_array().into_iter().flatten();
    let ids: Vec<&str> = caches.filter_map(Value::as_str).collect();
    if !ids.is_empty() {
        output::line(&format!(
            "Deleted build cache objects:\n{}\n",
            ids.join("\n")
        ));
    }
    Ok(answer["SpaceReclaimed"].as_f64().unwrap_or(0.0))
}
