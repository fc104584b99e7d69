//! `attach`.

use crate::attach::{Copy, Ended, Streams};
use crate::cli::Cli;
use crate::command::{container_path, inspect_container, signals};
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::run::{attach_query, check_terminal, status, wait};
use crate::terminal;
use gantry_client::Request;

/// Runs `attach`.
pub async fn attach(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let name = &matches.arguments[0];
    // Asked first, so that an exit between the other requests is not missed.
    let wait = wait(client, name, "").await?;
    let container = inspect_container(client, name).await?;
    let state = &container["State"];
    if !state["Running"].as_bool().unwrap_or(false) {
        return Err(Failure::new(
            "You cannot attach to a stopped container, start it first",
        ));
    }
    if state["Paused"].as_bool().unwrap_or(false) {
        return Err(Failure::new(
            "You cannot attach to a paused container, unpause it first",
        ));
    }
    if state["Restarting"].as_bool().unwrap_or(false) {
        return Err(Failure::new(
            "You cannot attach to a restarting container, wait until it is running",
        ));
    }
    let tty = container["Config"]["Tty"].as_bool().unwrap_or(false);
    let stdin =
        !matches.on("no-stdin") && container["Config"]["OpenStdin"].as_bool().unwrap_or(false);
    check_terminal(stdin, tty)?;
    let detach_keys = cli.detach_keys(matches);
    let proxy = matches.on_unless_false("sig-proxy") && !tty;
    let work = async {
        let request = Request::post(container_path(name, "/attach"))
            .query(attach_query(stdin, true, true, &detach_keys))
            .header("content-type", "text/plain");
        let connection = client.hijack(request).await?;
        let raw = (tty && stdin).then(terminal::Raw::enter).flatten();
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
        let path = container_path(name, "/resize");
        if tty && terminal::output_is_terminal() {
            signals::nudge(client, &path).await;
        }
        let ended = signals::resizing(
            client,
            &path,
            tty && terminal::output_is_terminal(),
            copy.ended(),
        )
        .await;
        drop(raw);
        match ended {
            Ended::Detached => Err(Failure::new("read escape sequence")),
            Ended::Failed(text) => Err(Failure::new(text)),
            Ended::Output => status(wait).await,
        }
    };
    match signals::forwarding(client, name, proxy, work).await? {
        0 => Ok(()),
        code => Err(Failure::code(code)),
    }
}
