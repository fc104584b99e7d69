//! `logs`.

use crate::attach::{Ended, Sink};
use crate::cli::Cli;
use crate::command::{container_path, inspect_container};
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::stamp;
use gantry_client::{Query, Request};

/// Runs `logs`.
pub async fn logs(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let name = &matches.arguments[0];
    let parse = |flag: &str| {
        let value = matches.text(flag);
        stamp::since(&value).map_err(|error| {
            Failure::new(format!(
                "invalid value for {}: {error}",
                crate::grammar::values::quote(flag)
            ))
        })
    };
    let (since, until) = (parse("since")?, parse("until")?);
    let tail = matches.get("tail").unwrap_or("all").to_owned();
    let query = Query::new()
        .when(matches.on("details"), "details", "1")
        .when(matches.on("follow"), "follow", "1")
        .when(!since.is_empty(), "since", since.clone())
        .with("stderr", "1")
        .with("stdout", "1")
        .with("tail", tail)
        .when(matches.on("timestamps"), "timestamps", "1")
        .when(!until.is_empty(), "until", until.clone());
    let mut response = client
        .send(Request::get(container_path(name, "/logs")).query(query))
        .await?;
    // Since API 1.42 the answer says whether it is framed; older daemons have to be asked about the terminal.
    let raw = match response.header("content-type") {
        Some("application/vnd.docker.multiplexed-stream") => false,
        Some("application/vnd.docker.raw-stream") if client.version_if_known().minor >= 42 => true,
        _ => inspect_container(client, name).await?["Config"]["Tty"]
            .as_bool()
            .unwrap_or(false),
    };
    let mut sink = Sink::new(raw);
    while let Some(chunk) = response.chunk().await? {
        match sink.take(&chunk) {
            Ok(()) => {}
            Err(Ended::Failed(text)) => return Err(Failure::new(text)),
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}
