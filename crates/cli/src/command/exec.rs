//! `exec`: create, start with an upgraded connection, copy, ask for the exit code.
//!
//! Docker's client first inspects the container; the create request fails with the same text, so that round trip is
//! left out.

use crate::attach::{Copy, Ended, Streams};
use crate::cli::Cli;
use crate::command::{container_path, signals};
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::interrupt::{self, Course};
use crate::run::{check_terminal, environment};
use crate::terminal;
use gantry_client::{Client, Request};
use serde_json::{Map, Value, json};

/// Runs `exec`.
pub async fn exec(cli: &Cli, matches: &Matches) -> Outcome {
    let detach = matches.on("detach");
    let tty = matches.on("tty");
    let stdin = matches.on("interactive") && !detach;
    let variables = environment::read(&matches.all("env-file"), &given_variables(matches), true)?;
    if !detach {
        check_terminal(stdin, tty)?;
    }
    let container = matches
        .arguments
        .first()
        .map(String::as_str)
        .unwrap_or_default();
    let detach_keys = cli.detach_keys(matches);
    let _within = interrupt::within(Course::Leave);
    let client = cli.client()?;
    let (rows, columns) = if tty && !detach {
        terminal::size()
    } else {
        (0, 0)
    };
    let sized = rows != 0 || columns != 0;
    let mut body = Map::new();
    let mut put = |key: &str, value: Value| {
        body.insert(key.to_owned(), value);
    };
    put("User", json!(matches.text("user")));
    put("Privileged", json!(matches.on("privileged")));
    put("Tty", json!(tty));
    if sized {
        put("ConsoleSize", json!([rows, columns]));
    }
    put("AttachStdin", json!(stdin));
    put("AttachStderr", json!(!detach));
    put("AttachStdout", json!(!detach));
    put("Detach", json!(detach));
    put("DetachKeys", json!(detach_keys));
    put(
        "Env",
        if variables.is_empty() {
            Value::Null
        } else {
            json!(variables)
        },
    );
    put("WorkingDir", json!(matches.text("workdir")));
    put("Cmd", json!(matches.arguments.get(1..).unwrap_or_default()));
    let request = Request::post(container_path(container, "/exec")).json(&body)?;
    let answer: Value = client.send(request).await?.json().await?;
    let id = answer["Id"]
        .as_str()
        .filter(|id| !id.is_empty())
        .ok_or_else(|| Failure::new("exec ID empty"))?;
    let mut start = json!({"Detach": detach, "Tty": tty});
    if sized {
        start["ConsoleSize"] = json!([rows, columns]);
    }
    let request = Request::post(format!("/exec/{id}/start")).json(&start)?;
    if detach {
        client.call(request).await?;
        return Ok(());
    }
    let connection = client.hijack(request).await?;
    let raw = (tty && stdin).then(terminal::Raw::enter).flatten();
    let mut copy = Copy::start(
        connection,
        Streams {
            stdin,
            stdout: true,
            stderr: true,
            tty,
            detach_keys,
        },
    )?;
    let watch = tty && terminal::output_is_terminal();
    let ended = signals::resizing(
        client,
        &format!("/exec/{id}/resize").into(),
        watch,
        copy.ended(),
    )
    .await;
    drop(raw);
    match ended {
        Ended::Detached => Err(Failure::new("read escape sequence")),
        Ended::Failed(text) => Err(Failure::new(text)),
        Ended::Output => exit_code(client, id).await,
    }
}

fn given_variables(matches: &Matches) -> Vec<String> {
    matches
        .all("env")
        .into_iter()
        .map(|variable| match std::env::var(&variable) {
            Ok(value) if !variable.contains('=') => format!("{variable}={value}"),
            _ => variable,
        })
        .collect()
}

async fn exit_code(client: &Client, id: &str) -> Outcome {
    let state: Value = match client.send(Request::get(format!("/exec/{id}/json"))).await {
        Ok(answer) => answer.json().await?,
        // The daemon went away between the end of the output and this question.
        Err(error) if error.is_connection() => return Err(Failure::code(255)),
        Err(error) => return Err(error.into()),
    };
    match state["ExitCode"].as_i64().unwrap_or(0) {
        0 => Ok(()),
        code => Err(Failure::code(code as u8)),
    }
}
