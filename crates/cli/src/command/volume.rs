//! The verbs on volumes.

use crate::cli::Cli;
use crate::command::{each, get, text};
use crate::failure::{Failure, Outcome};
use crate::format::{Format, Row};
use crate::grammar::Matches;
use crate::order::natural;
use crate::run::options::pairs_to_map;
use crate::{filter, output};
use gantry_client::request::Path;
use gantry_client::{Query, Request};
use serde_json::{Map, Value, json};

const HEADINGS: [(&str, &str); 10] = [
    ("Name", "VOLUME NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Size", "SIZE"),
    ("Availability", "AVAILABILITY"),
    ("Group", "GROUP"),
    ("Status", "STATUS"),
];

/// Runs one of the verbs.
pub async fn dispatch(cli: &Cli, path: &str, matches: &Matches) -> Outcome {
    match path {
        "volume create" => create(cli, matches).await,
        "volume rm" => {
            let client = cli.client()?;
            let query = Query::new().when(matches.on("force"), "force", "1");
            each(&matches.arguments, |name| {
                let path = Path::object("volume", name, "");
                let request = Request::delete(path).query(query.clone());
                async move {
                    client.call(request).await?;
                    Ok(Some(name.to_owned()))
                }
            })
            .await
        }
        _ => list(cli, matches).await,
    }
}

async fn create(cli: &Cli, matches: &Matches) -> Outcome {
    for flag in [
        "availability",
        "group",
        "limit-bytes",
        "required-bytes",
        "scope",
        "secret",
        "sharing",
        "topology-preferred",
        "topology-required",
        "type",
    ] {
        if matches.given(flag) {
            return Err(Failure::new(format!(
                "--{flag} is for cluster volumes, which are not supported"
            )));
        }
    }
    let mut body = Map::new();
    body.insert(
        "Driver".to_owned(),
        json!(matches.get("driver").unwrap_or("local")),
    );
    let options = pairs_to_map(&matches.all("opt"));
    if !options.is_empty() {
        body.insert("DriverOpts".to_owned(), Value::Object(options));
    }
    let labels = pairs_to_map(&matches.all("label"));
    if !labels.is_empty() {
        body.insert("Labels".to_owned(), Value::Object(labels));
    }
    if let Some(name) = matches.arguments.first().filter(|name| !name.is_empty()) {
        body.insert("Name".to_owned(), json!(name));
    }
    let answer: Value = cli
        .client()?
        .send(Request::post("/volumes/create").json(&body)?)
        .await?
        .json()
        .await?;
    output::line(text(&answer, "Name"));
    Ok(())
}

/// Makes a row of one volume.
pub fn row(volume: &Value) -> Row {
    let usage = &volume["UsageData"];
    let size = match usage["Size"].as_f64() {
        Some(size) if size >= 0.0 => crate::units::size(size, 4),
        _ => "N/A".to_owned(),
    };
    let links = usage["RefCount"]
        .as_i64()
        .map_or("N/A".to_owned(), |count| count.to_string());
    Row::new("*formatter.volumeContext")
        .text("Name", text(volume, "Name"))
        .text("Driver", text(volume, "Driver"))
        .text("Scope", text(volume, "Scope"))
        .text("Mountpoint", text(volume, "Mountpoint"))
        .text("Links", links)
        .text("Size", size)
        .text("Availability", "N/A")
        .text("Group", "N/A")
        .text("Status", "N/A")
        .labels(&volume["Labels"])
}

async fn list(cli: &Cli, matches: &Matches) -> Outcome {
    let cluster = matches.on("cluster");
    let quiet = matches.on("quiet");
    let filters = filter::collect(&matches.all("filter"));
    let query = Query::new().when(!filters.is_empty(), "filters", filters.to_json());
    let given = match matches.get("format") {
        Some(format) => format.to_owned(),
        None if !quiet => cli.config().volumes_format.clone(),
        None => String::new(),
    };
    let default = match (quiet, cluster) {
        (true, _) => "{{.Name}}",
        (_, true) => "table {{.Name}}\\t{{.Group}}\\t{{.Driver}}\\t{{.Availability}}\\t{{.Status}}",
        _ => "table {{.Driver}}\\t{{.Name}}",
    };
    let chosen = match given.as_str() {
        "raw" if quiet => "name: {{.Name}}",
        "raw" => "name: {{.Name}}\ndriver: {{.Driver}}\n",
        other => other,
    };
    let format = Format::new(chosen, default, &HEADINGS)?;
    let answer = get(cli.client()?, "/volumes", query).await?;
    let mut volumes: Vec<&Value> = answer["Volumes"].as_array().into_iter().flatten().collect();
    volumes.retain(|volume| !cluster || volume["ClusterVolume"].is_object());
    volumes.sort_by(|left, right| natural(text(left, "Name"), text(right, "Name")));
    let rows = volumes.into_iter().map(row).collect();
    output::out(&format.render(rows)?);
    Ok(())
}
