//! `events`.

use crate::cli::Cli;
use crate::failure::{Failure, Outcome};
use crate::format;
use crate::grammar::Matches;
use crate::template::Template;
use crate::{filter, output, stamp};
use gantry_client::{Query, Request};
use serde_json::Value;

/// Runs `events`.
pub async fn events(cli: &Cli, matches: &Matches) -> Outcome {
    let template = match matches.get("format").unwrap_or_default() {
        "" => None,
        "json" => Some(Template::parse("{{json .}}").map_err(Failure::new)?),
        text => Some(Template::parse(text).map_err(|error| Failure {
            text: format!("Error parsing format: {error}"),
            code: 64,
        })?),
    };
    let filters = filter::collect(&matches.all("filter"));
    let (since, until) = (
        stamp::since(&matches.text("since"))?,
        stamp::since(&matches.text("until"))?,
    );
    let query = Query::new()
        .when(!filters.is_empty(), "filters", filters.to_json())
        .when(!since.is_empty(), "since", since.clone())
        .when(!until.is_empty(), "until", until.clone());
    let mut response = cli
        .client()?
        .send(Request::get("/events").query(query))
        .await?;
    while let Some(event) = response.next_json::<Value>().await? {
        match &template {
            None => output::line(&line(&event)),
            Some(template) => output::line(&format::inspect(template, &event)?),
        }
    }
    Ok(())
}

/// Formats an event: time, type, action, id and its attributes in parentheses.
pub fn line(event: &Value) -> String {
    let mut out = String::new();
    let text = |field: &str| event[field].as_str().unwrap_or_default();
    match (event["timeNano"].as_i64(), event["time"].as_i64()) {
        (Some(nanos), _) if nanos != 0 => out.push_str(&stamp::local_nanos(nanos)),
        (_, Some(seconds)) if seconds != 0 => {
            out.push_str(&stamp::local_nanos(seconds * 1_000_000_000))
        }
        _ => {}
    }
    let actor = &event["Actor"];
    out.push_str(&format!(
        " {} {} {}",
        text("Type"),
        text("Action"),
        actor["ID"].as_str().unwrap_or_default()
    ));
    let attributes = format::label_pairs(&actor["Attributes"]);
    if !attributes.is_empty() {
        let pairs: Vec<_> = attributes
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        out.push_str(&format!(" ({})", pairs.join(", ")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_have_sorted_attributes() {
        let event = json!({"Type": "container", "Action": "die", "Actor": {"ID": "abc", "Attributes": {"name": "x", "exitCode": "0"}}, "timeNano": 1_500_000_000});
        assert!(
            line(&event).ends_with(" container die abc (exitCode=0, name=x)"),
            "{}",
            line(&event)
        );
    }
}
