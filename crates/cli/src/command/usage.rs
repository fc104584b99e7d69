//! `system df`.

use crate::cli::Cli;
use crate::command::{get, images, list, text, volume};
use crate::failure::{Failure, Outcome};
use crate::format::{Format, Row};
use crate::grammar::Matches;
use crate::template::Object;
use crate::{output, stamp, table, units};
use gantry_api::reference::{self, AnyReference};
use gantry_client::Query;
use serde_json::Value;

const HEADINGS: [(&str, &str); 5] = [
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

/// Runs `system df`.
pub async fn usage(cli: &Cli, matches: &Matches) -> Outcome {
    let verbose = matches.on("verbose");
    let given = matches.get("format").unwrap_or_default();
    let usage = get(cli.client()?, "/system/df", Query::new()).await?;
    if verbose {
        if !matches!(given, "" | "table" | "json") {
            return Err(Failure::new(
                "the verbose usage has no template; use the formats \"table\" and \"json\"",
            ));
        }
        let text = if given == "json" {
            details_as_json(&usage)
        } else {
            details(&usage)
        };
        output::out(&text);
        return Ok(());
    }
    let default = "table {{.Type}}\\t{{.TotalCount}}\\t{{.Active}}\\t{{.Size}}\\t{{.Reclaimable}}";
    let format = Format::new(given, default, &HEADINGS)?;
    output::out(&format.render(vec![
        image_total(&usage),
        containers(&usage),
        volumes(&usage),
        cache(&usage),
    ])?);
    Ok(())
}

fn items<'a>(usage: &'a Value, field: &str) -> Vec<&'a Value> {
    usage[field].as_array().into_iter().flatten().collect()
}

fn number(value: &Value, field: &str) -> f64 {
    value[field].as_f64().unwrap_or(0.0)
}

fn row(kind: &str, total: usize, active: usize, size: f64, reclaimable: f64, percent: bool) -> Row {
    let share = if percent && size > 0.0 {
        format!(" ({:.0}%)", (reclaimable * 100.0 / size).floor())
    } else {
        String::new()
    };
    Row::new("*formatter.diskUsageContext")
        .text("Type", kind)
        .text("TotalCount", total.to_string())
        .text("Active", active.to_string())
        .text("Size", units::size(size, 4))
        .text(
            "Reclaimable",
            format!("{}{share}", units::size(reclaimable, 4)),
        )
}

fn image_total(usage: &Value) -> Row {
    let images = items(usage, "Images");
    let active = images
        .iter()
        .filter(|image| number(image, "Containers") > 0.0)
        .count();
    let total = number(usage, "LayersSize");
    let used: f64 = images
        .iter()
        .filter(|image| number(image, "Containers") > 0.0)
        .filter(|image| number(image, "Size") >= 0.0 && number(image, "SharedSize") >= 0.0)
        .map(|image| number(image, "Size") - number(image, "SharedSize"))
        .sum();
    row("Images", images.len(), active, total, total - used, true)
}

fn containers(usage: &Value) -> Row {
    let containers = items(usage, "Containers");
    let active = |container: &&&Value| {
        ["running", "paused", "restarting"]
            .iter()
            .any(|state| text(container, "State").contains(state))
    };
    let size: f64 = containers
        .iter()
        .map(|container| number(container, "SizeRw"))
        .sum();
    let free: f64 = containers
        .iter()
        .filter(|c| !active(c))
        .map(|container| number(container, "SizeRw"))
        .sum();
    row(
        "Containers",
        containers.len(),
        containers.iter().filter(active).count(),
        size,
        free,
        true,
    )
}

fn volumes(usage: &Value) -> Row {
    let volumes = items(usage, "Volumes");
    let used = |volume: &&&Value| number(&volume["UsageData"], "RefCount") > 0.0;
    let size = |volume: &&Value| number(&volume["UsageData"], "Size").max(0.0);
    let total: f64 = volumes.iter().map(size).sum();
    let free: f64 = volumes
        .iter()
        .filter(|volume| !used(volume))
        .map(size)
        .sum();
    row(
        "Local Volumes",
        volumes.len(),
        volumes.iter().filter(used).count(),
        total,
        free,
        true,
    )
}

fn cache(usage: &Value) -> Row {
    let records = items(usage, "BuildCache");
    let flag = |record: &Value, field: &str| record[field].as_bool().unwrap_or(false);
    let sum = |keep: &dyn Fn(&Value) -> bool| -> f64 {
        records
            .iter()
            .filter(|record| keep(record))
            .map(|record| number(record, "Size"))
            .sum()
    };
    let total = sum(&|record| !flag(record, "Shared"));
    let free = sum(&|record| !flag(record, "Shared") && !flag(record, "InUse"));
    let active = records
        .iter()
        .filter(|record| flag(record, "InUse"))
        .count();
    row("Build Cache", records.len(), active, total, free, false)
}

/// The repository and tag that an image is shown with.
fn shown_name(image: &Value) -> (String, String) {
    let first = image["RepoTags"].get(0).and_then(Value::as_str);
    match first.map(reference::parse_any) {
        Some(Ok(AnyReference::Named(reference))) => (
            reference.familiar_name(),
            reference.tag().unwrap_or("<none>").to_owned(),
        ),
        _ => ("<none>".to_owned(), "<none>".to_owned()),
    }
}

/// Writes the rows of all four tables; the members are in Docker's order and no line end follows.
fn details_as_json(usage: &Value) -> String {
    let rows = |rows: Vec<Row>| Value::from_iter(rows.iter().map(Object::json));
    let images = items(usage, "Images").into_iter().map(|image| {
        let (repository, tag) = shown_name(image);
        images::row(image, &repository, &tag, "", false)
    });
    let containers = items(usage, "Containers").into_iter().map(|container| {
        // What the images take is in a table of its own.
        let mut container = container.clone();
        container["SizeRootFs"] = Value::from(0);
        list::row(&container, false)
    });
    let volumes = items(usage, "Volumes").into_iter().map(volume::row);
    format!(
        "{{\"Images\":{},\"Containers\":{},\"Volumes\":{},\"BuildCache\":{}}}",
        rows(images.collect()),
        rows(containers.collect()),
        rows(volumes.collect()),
        Value::from_iter(items(usage, "BuildCache").into_iter().cloned())
    )
}

fn details(usage: &Value) -> String {
    let mut out = String::from("Images space usage:\n\n");
    let mut lines =
        "REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE\tSHARED SIZE\tUNIQUE SIZE\tCONTAINERS\n"
            .to_owned();
    for image in items(usage, "Images") {
        let (repository, tag) = shown_name(image);
        let (size, shared) = (number(image, "Size"), number(image, "SharedSize"));
        lines.push_str(&format!(
            "{repository}\t{tag}\t{}\t{}\t{}\t{}\t{}\t{}\n",
            units::short_id(text(image, "Id")),
            ago(image["Created"].as_i64().unwrap_or(0)),
            units::size(size, 3),
            units::size(shared.max(0.0), 4),
            units::size(size - shared.max(0.0), 4),
            number(image, "Containers").max(0.0)
        ));
    }
    out.push_str(&table::layout(&lines));
    out.push_str("\nContainers space usage:\n\n");
    let mut lines =
        "CONTAINER ID\tIMAGE\tCOMMAND\tLOCAL VOLUMES\tSIZE\tCREATED\tSTATUS\tNAMES\n".to_owned();
    for container in items(usage, "Containers") {
        let volumes = items(container, "Mounts")
            .iter()
            .filter(|mount| text(mount, "Driver") == "local")
            .count();
        lines.push_str(&format!(
            "{}\t{}\t{}\t{volumes}\t{}\t{}\t{}\t{}\n",
            units::short_id(text(container, "Id")),
            text(container, "Image"),
            crate::grammar::values::quote(&units::ellipsis(text(container, "Command"), 20)),
            units::size(number(container, "SizeRw"), 3),
            ago(container["Created"].as_i64().unwrap_or(0)),
            text(container, "Status"),
            list::names(container, true)
        ));
    }
    out.push_str(&table::layout(&lines));
    out.push_str("\nLocal Volumes space usage:\n\n");
    let mut lines = "VOLUME NAME\tLINKS\tSIZE\n".to_owned();
    for volume in items(usage, "Volumes") {
        let data = &volume["UsageData"];
        let size = number(data, "Size");
        lines.push_str(&format!(
            "{}\t{}\t{}\n",
            text(volume, "Name"),
            number(data, "RefCount"),
            if size < 0.0 {
                "N/A".to_owned()
            } else {
                units::size(size, 4)
            }
        ));
    }
    out.push_str(&table::layout(&lines));
    let total: f64 = items(usage, "BuildCache")
        .iter()
        .filter(|record| !record["Shared"].as_bool().unwrap_or(false))
        .map(|record| number(record, "Size"))
        .sum();
    out.push_str(&format!(
        "\nBuild cache usage: {}\n\n",
        units::size(total, 4)
    ));
    let mut lines = "CACHE ID\tCACHE TYPE\tSIZE\tCREATED\tLAST USED\tUSAGE\tSHARED\n".to_owned();
    let when = |record: &Value, field: &str| match text(record, field).parse::<jiff::Timestamp>() {
        Ok(instant) => ago(instant.as_second()),
        Err(_) => String::new(),
    };
    for record in items(usage, "BuildCache") {
        let mut id = text(record, "ID")
            .get(..12)
            .unwrap_or(text(record, "ID"))
            .to_owned();
        if record["InUse"].as_bool().unwrap_or(false) {
            id.push('*');
        }
        lines.push_str(&format!(
            "{id}\t{}\t{}\t{}\t{}\t{}\t{}\n",
            text(record, "Type"),
            units::size(number(record, "Size"), 3),
            when(record, "CreatedAt"),
            when(record, "LastUsedAt"),
            number(record, "UsageCount"),
            record["Shared"].as_bool().unwrap_or(false)
        ));
    }
    out.push_str(&table::layout(&lines));
    out
}

fn ago(unix_seconds: i64) -> String {
    format!("{} ago", units::duration(stamp::age(unix_seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shares_are_counted() {
        let usage = json!({
            "LayersSize": 1000,
            "Images": [{"Size": 600, "SharedSize": 100, "Containers": 1}, {"Size": 400, "SharedSize": 0, "Containers": 0}],
            "Containers": [{"SizeRw": 10, "State": "exited"}, {"SizeRw": 30, "State": "running"}],
        });
        assert_eq!(image_total(&usage).json()["Reclaimable"], "500B (50%)");
        assert_eq!(containers(&usage).json()["Reclaimable"], "10B (25%)");
        assert_eq!(volumes(&usage).json()["Reclaimable"], "0B");
    }
}
