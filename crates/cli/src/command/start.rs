//! `start`, also attached.

use crate::attach::{Copy, Ended, Streams};
use crate::cli::Cli;
use crate::command::{container_path, inspect_container, signals, text};
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::run::{attach_query, check_terminal, status, wait};
use crate::{output, terminal};
use gantry_client::Request;

/// Runs `start`.
pub async fn start(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let names = &matches.arguments;
    if matches.given("checkpoint") || matches.given("checkpoint-dir") {
        return Err(Failure::new("checkpoints are not supported"));
    }
    if matches.on("attach") || matches.on("interactive") {
        if names.len() > 1 {
            return Err(Failure::new(
                "you cannot start and attach multiple containers at once",
            ));
        }
        return attached(cli, matches, &names[0]).await;
    }
    let mut failed = Vec::new();
    for name in names {
        match client
            .call(Request::post(container_path(name, "/start")))
            .await
        {
            Ok(_) => output::line(name),
            Err(error) => {
                output::error_line(&error.to_string());
                failed.push(name.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "Error: failed to start containers: {}",
        failed.join(", ")
    )))
}

async fn attached(cli: &Cli, matches: &Matches, name: &str) -> Outcome {
    let client = cli.client()?;
    let container = inspect_container(client, name).await?;
    let id = text(&container, "Id").to_owned();
    let tty = container["Config"]["Tty"].as_bool().unwrap_or(false);
    let stdin =
        matches.on("interactive") && container["Config"]["OpenStdin"].as_bool().unwrap_or(false);
    check_terminal(stdin, tty)?;
    let detach_keys = cli.detach_keys(matches);
    let work = async {
        let request = Request::post(container_path(&id, "/attach"))
            .query(attach_query(stdin, true, true, &detach_keys))
            .header("content-type", "text/plain");
        let connection = client.hijack(request).await?;
        let condition = if container["HostConfig"]["AutoRemove"]
            .as_bool()
            .unwrap_or(false)
        {
            "removed"
        } else {
            "next-exit"
        };
        let wait = wait(client, &id, condition).await?;
        let raw = (tty && stdin).then(terminal::Raw::enter).flatten();
        client
            .call(Request::post(container_path(&id, "/start")))
            .await?;
        let keys = detach_keys.clone();
        let mut copy = Copy::start(
            connection,
            Streams {
                stdin,
                stdout: true,
                stderr: true,
                tty,
                detach_keys: keys,
            },
        )?;
        let path = container_path(&id, "/resize");
        let ended = signals::resizing(
            client,
            &path,
            tty && terminal::output_is_terminal(),
            copy.ended(),
        )
        .await;
        drop(raw);
        match ended {
            Ended::Detached => Ok(0),
            Ended::Failed(text) => Err(Failure::new(text)),
            Ended::Output => status(wait).await,
        }
    };
    match signals::forwarding(client, &id, !tty, work).await? {
        0 => Ok(()),
        code => Err(Failure::code(code)),
    }
}
