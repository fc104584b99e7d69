//! `search`.

use crate::cli::Cli;
use crate::command::text;
use crate::failure::Outcome;
use crate::format::{Format, Row};
use crate::grammar::Matches;
use crate::{filter, output, units};
use gantry_client::{Query, Request, credentials};
use serde_json::Value;

const HEADINGS: [(&str, &str); 4] = [
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
];
const TABLE: &str = "table {{.Name}}\\t{{.Description}}\\t{{.StarCount}}\\t{{.IsOfficial}}";
/// The columns of a description that is cut.
const DESCRIPTION_COLUMNS: usize = 45;

/// Runs `search`.
pub async fn search(cli: &Cli, matches: &Matches) -> Outcome {
    let term = &matches.arguments[0];
    let filters = filter::collect(&matches.all("filter"));
    if filters
        .get("is-automated")
        .any(|value| matches!(value, "1" | "true"))
    {
        output::error_line(
            "WARNING: the \"is-automated\" filter is deprecated, and searching for \"is-automated=true\" will not yield any results in future.",
        );
    }
    let limit = matches.integer("limit").unwrap_or(0);
    let query = Query::new()
        .with("term", term)
        .when(limit > 0, "limit", limit.to_string())
        .when(!filters.is_empty(), "filters", filters.to_json());
    let given = matches.get("format").unwrap_or_default();
    let format = Format::new(given, TABLE, &HEADINGS)?;
    let request = Request::get("/images/search")
        .query(query)
        .header("x-registry-auth", cli.registry_auth(server_of(term)));
    let hits: Value = cli.client()?.send(request).await?.json().await?;
    let as_json = matches!(given, "json" | "{{json .}}");
    let truncate = !matches.on("no-trunc");
    let rows = hits
        .as_array()
        .into_iter()
        .flatten()
        .map(|hit| row(hit, truncate, as_json))
        .collect();
    output::out(&format.render(rows)?);
    Ok(())
}

/// Returns the key of the registry that a term begins with, else Docker Hub's.
fn server_of(term: &str) -> &str {
    match term.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => {
            credentials::server_key(host)
        }
        _ => credentials::INDEX_SERVER,
    }
}

fn row(hit: &Value, truncate: bool, as_json: bool) -> Row {
    let description = text(hit, "description").replace(['\n', '\r'], " ");
    let official = hit["is_official"].as_bool().unwrap_or(false);
    Row::new("*registry.searchContext")
        .text("Name", text(hit, "name"))
        .text(
            "Description",
            match truncate {
                true => units::ellipsis(&description, DESCRIPTION_COLUMNS),
                false => description,
            },
        )
        .text("StarCount", hit["star_count"].to_string())
        .text(
            "IsOfficial",
            match (as_json, official) {
                (true, official) => official.to_string(),
                (false, true) => "[OK]".to_owned(),
                (false, false) => String::new(),
            },
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_name_a_registry_or_none() {
        assert_eq!(server_of("busybox"), credentials::INDEX_SERVER);
        assert_eq!(server_of("user/image"), credentials::INDEX_SERVER);
        assert_eq!(server_of("r.example:5000/x"), "r.example:5000");
        assert_eq!(server_of("docker.io/x"), credentials::INDEX_SERVER);
    }
}
