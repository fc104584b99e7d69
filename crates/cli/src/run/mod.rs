//! `run` and `create`: create, attach, wait, start, resize, and the exit code.

pub mod check;
pub mod devices;
pub mod environment;
pub mod health;
pub mod limits;
pub mod mount;
pub mod network;
pub mod options;
pub mod ports;
pub mod security;
pub mod volume;

use crate::attach::{Copy, Ended, Streams};
use crate::cli::Cli;
use crate::command::{container_path, signals};
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::{output, terminal};
use gantry_api::reference::{self, AnyReference};
use gantry_client::{Client, Error, Query, Request, Response};
use options::Request as Create;
use serde_json::{Value, json};
use std::io::Write;

/// Runs `create`.
pub async fn create(cli: &Cli, matches: &Matches) -> Outcome {
    let request = prepare(cli, matches).map_err(|error| with_help(cli, &error, 125))?;
    let id = create_container(cli, matches, request.body, &request.image).await?;
    output::line(&id);
    Ok(())
}

/// Runs `run`.
pub async fn run(cli: &Cli, matches: &Matches) -> Outcome {
    let mut request = prepare(cli, matches).map_err(|error| with_help(cli, &error, 125))?;
    let detach = matches.on("detach");
    if detach {
        if matches.given("attach") {
            return Err(Failure::new(
                "conflicting options: cannot specify both --attach and --detach",
            ));
        }
        request.attach_stdin = false;
        request.attach_stdout = false;
        request.attach_stderr = false;
        for key in ["AttachStdin", "AttachStdout", "AttachStderr", "StdinOnce"] {
            request.body[key] = json!(false);
        }
    } else {
        check_terminal(request.attach_stdin, request.tty)?;
    }
    let id = create_container(
        cli,
        matches,
        std::mem::take(&mut request.body),
        &request.image,
    )
    .await
    .map_err(|failure| start_failure(cli, &failure.text))?;
    let client = cli.client()?;
    let shows_output = request.attach_stdout || request.attach_stderr;
    if !shows_output && !request.attach_stdin {
        output::line(&id);
        // Nobody waits for the exit of a detached container: no wait is asked for.
        return start(client, &id)
            .await
            .map_err(|error| start_failure(cli, &error.to_string()));
    }
    if !shows_output {
        output::line(&id);
    }
    let proxy = matches.on_unless_false("sig-proxy");
    signals::forwarding(client, &id, proxy, attached(cli, matches, &request, &id)).await
}

async fn attached(cli: &Cli, matches: &Matches, request: &Create, id: &str) -> Outcome {
    let client = cli.client()?;
    let detach_keys = cli.detach_keys(matches);
    let query = attach_query(
        request.attach_stdin,
        request.attach_stdout,
        request.attach_stderr,
        &detach_keys,
    );
    let hijack = Request::post(format!("/containers/{id}/attach"))
        .query(query)
        .header("content-type", "text/plain");
    // A container whose attach is refused stays, also with `--rm`: it never ran.
    let connection = client.hijack(hijack).await?;
    let condition = if request.auto_remove {
        "removed"
    } else {
        "next-exit"
    };
    let wait = wait(client, id, condition)
        .await
        .map_err(|error| start_failure(cli, &error.to_string()))?;
    let raw = (request.tty && request.attach_stdin)
        .then(terminal::Raw::enter)
        .flatten();
    if let Err(error) = start(client, id).await {
        drop(raw);
        if request.auto_remove {
            // The daemon removes it; leave no trace behind the prompt.
            let _ = status(wait).await;
        }
        return Err(start_failure(cli, &error.to_string()));
    }
    let streams = Streams {
        stdin: request.attach_stdin,
        stdout: request.attach_stdout,
        stderr: request.attach_stderr,
        tty: request.tty,
        detach_keys,
    };
    let copy = Copy::start(connection, streams)?;
    let watch = request.tty && terminal::output_is_terminal();
    let path = format!("/containers/{id}/resize").into();
    let outcome = signals::resizing(client, &path, watch, finish(copy, wait, request)).await;
    drop(raw);
    match outcome? {
        0 => Ok(()),
        code => Err(Failure::code(code)),
    }
}

/// Waits for the end of the streams and the exit code.
async fn finish(mut copy: Copy, wait: Response, request: &Create) -> Outcome<u8> {
    let mut exit = std::pin::pin!(status(wait));
    tokio::select! {
        ended = copy.ended() => match ended {
            Ended::Detached => Ok(0),
            Ended::Failed(text) => Err(Failure::new(text)),
            Ended::Output => exit.await,
        },
        code = &mut exit => {
            if request.attach_stdout || request.attach_stderr {
                // The container is gone; the rest of its output is not.
                copy.ended().await;
            }
            code
        }
    }
}

/// Asks to wait for a container; returns once the daemon has taken note of it.
pub async fn wait(client: &Client, id: &str, condition: &str) -> Result<Response, Error> {
    let query = Query::new().when(!condition.is_empty(), "condition", condition);
    client
        .send(Request::post(container_path(id, "/wait")).query(query))
        .await
}

/// Reads the exit code of a wait.
pub async fn status(wait: Response) -> Outcome<u8> {
    let answer: Value = match wait.json().await {
        Ok(answer) => answer,
        Err(error) => {
            output::error_line(&format!("error waiting for container: {error}"));
            return Ok(125);
        }
    };
    if let Some(message) = answer["Error"]["Message"]
        .as_str()
        .filter(|text| !text.is_empty())
    {
        output::error_line(&format!("Error waiting for container: {message}"));
        return Ok(125);
    }
    Ok(answer["StatusCode"].as_i64().unwrap_or(125) as u8)
}

/// Starts a container.
pub async fn start(client: &Client, id: &str) -> Result<(), Error> {
    client
        .call(Request::post(format!("/containers/{id}/start")))
        .await
        .map(drop)
}

/// Makes the query of an attach request.
pub fn attach_query(stdin: bool, stdout: bool, stderr: bool, detach_keys: &str) -> Query {
    Query::new()
        .when(!detach_keys.is_empty(), "detachKeys", detach_keys)
        .when(stderr, "stderr", "1")
        .when(stdin, "stdin", "1")
        .when(stdout, "stdout", "1")
        .with("stream", "1")
}

/// Refuses a terminal on standard input that is none.
pub fn check_terminal(attach_stdin: bool, tty: bool) -> Outcome {
    if attach_stdin && tty && !terminal::input_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    Ok(())
}

fn prepare(cli: &Cli, matches: &Matches) -> Result<Create, String> {
    let pull = matches.get("pull").unwrap_or("missing");
    if !matches!(pull, "always" | "missing" | "never" | "") {
        return Err(format!(
            "invalid pull option: '{pull}': must be one of \"always\", \"missing\" or \"never\""
        ));
    }
    let proxies = &cli.config().proxies;
    let proxy = if proxies.is_empty() {
        None
    } else {
        let host = cli
            .client()
            .map_err(|failure| failure.text)?
            .endpoint()
            .to_string();
        proxies.get(&host).or_else(|| proxies.get("default"))
    };
    options::parse(matches, proxy)
}

/// Appends the way to the help, as `run` and `create` do with every error of theirs.
fn with_help(cli: &Cli, error: &str, code: u8) -> Failure {
    let command = cli.words.rsplit(' ').next().unwrap_or_default();
    let program = &cli.program;
    Failure {
        text: format!(
            "{program}: {error}\n\nRun '{program} {command} --help' for more information"
        ),
        code,
    }
}

/// Chooses the exit code for an error before the container ran, by its text, as Docker's client does.
pub fn start_failure(cli: &Cli, error: &str) -> Failure {
    let has = |text: &str| error.contains(text);
    let code = if has("executable file not found")
        || has("no such file or directory")
        || has("system cannot find the file specified")
    {
        127
    } else if has("permission denied") || has("is a directory") {
        126
    } else {
        125
    };
    with_help(cli, error, code)
}

/// The file of `--cidfile`: made before the container, removed if there will be none.
struct IdFile {
    path: String,
    file: Option<std::fs::File>,
    written: bool,
}

impl IdFile {
    fn create(path: &str) -> Outcome<IdFile> {
        if path.is_empty() {
            return Ok(IdFile {
                path: String::new(),
                file: None,
                written: false,
            });
        }
        if std::path::Path::new(path).exists() {
            return Err(Failure::new(format!(
                "container ID file found, make sure the other container isn't running or delete {path}"
            )));
        }
        let file = std::fs::File::create(path).map_err(|error| {
            Failure::new(format!(
                "failed to create the container ID file: {}",
                crate::failure::open_error(path, &error)
            ))
        })?;
        Ok(IdFile {
            path: path.to_owned(),
            file: Some(file),
            written: false,
        })
    }

    fn write(&mut self, id: &str) -> Outcome {
        if let Some(file) = &mut self.file {
            file.write_all(id.as_bytes()).map_err(|error| {
                Failure::new(format!(
                    "failed to write the container ID to the file: {}",
                    crate::failure::reason(&error)
                ))
            })?;
            self.written = true;
        }
        Ok(())
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if self.file.is_some() && !self.written {
            // It may have been removed by somebody else.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

async fn create_container(
    cli: &Cli,
    matches: &Matches,
    mut body: Value,
    image: &str,
) -> Outcome<String> {
    let host = &body["HostConfig"];
    let local = |value: &&Value| {
        value
            .as_str()
            .is_some_and(|ip| ip.starts_with("127.") || ip == "::1")
    };
    if let Some(server) = host["Dns"]
        .as_array()
        .and_then(|list| list.iter().find(local))
    {
        output::error_line(&format!(
            "WARNING: Localhost DNS setting (--dns={}) may fail in containers.",
            server.as_str().unwrap_or_default()
        ));
    }
    cli.refuse_content_trust(matches)?;
    let mut id_file = IdFile::create(matches.get("cidfile").unwrap_or_default())?;
    let familiar = match reference::parse_any(image) {
        Ok(AnyReference::Named(reference)) => {
            let reference = reference.or_latest();
            let tag = reference
                .tag()
                .map(|tag| format!(":{tag}"))
                .unwrap_or_default();
            let digest = reference
                .digest()
                .map(|digest| format!("@{}", digest.as_str()))
                .unwrap_or_default();
            Some(format!("{}{tag}{digest}", reference.familiar_name()))
        }
        Ok(_) => None,
        Err(error) => return Err(Failure::new(error.to_string())),
    };
    let platform = matches
        .get("platform")
        .map(str::to_owned)
        .or_else(|| std::env::var("DOCKER_DEFAULT_PLATFORM").ok())
        .filter(|platform| !platform.is_empty());
    if let Some(platform) = &platform {
        crate::command::image::check_platform(platform)?;
    }
    let client = cli.client()?;
    let quiet = matches.on("quiet");
    let policy = matches.get("pull").unwrap_or("missing");
    if policy == "always" {
        crate::command::pull::pull(cli, image, platform.as_deref(), quiet).await?;
    }
    let (rows, columns) = terminal::size();
    body["HostConfig"]["ConsoleSize"] = json!([rows, columns]);
    let query = Query::new()
        .when(
            platform.is_some(),
            "platform",
            platform.clone().unwrap_or_default(),
        )
        .when(
            matches.given("name") && !matches.text("name").is_empty(),
            "name",
            matches.text("name"),
        );
    // Since API 1.44 the address belongs to the endpoint, and the container-wide one brings a warning.
    if client.version().await?.minor >= 44
        && let Some(fields) = body.as_object_mut()
    {
        fields.shift_remove("MacAddress");
    }
    let post = || {
        Request::post("/containers/create")
            .query(query.clone())
            .json(&body)
    };
    let answer = match client.send(post()?).await {
        Err(error)
            if error.is_not_found() && familiar.is_some() && matches!(policy, "missing" | "") =>
        {
            if !quiet {
                output::error_line(&format!(
                    "Unable to find image '{}' locally",
                    familiar.unwrap_or_default()
                ));
            }
            crate::command::pull::pull(cli, image, platform.as_deref(), quiet).await?;
            client.send(post()?).await
        }
        answer => answer,
    };
    let answer: Value = answer?.json().await?;
    for warning in answer["Warnings"].as_array().into_iter().flatten() {
        output::error_line(&format!(
            "WARNING: {}",
            warning.as_str().unwrap_or_default()
        ));
    }
    let id = answer["Id"].as_str().unwrap_or_default().to_owned();
    id_file.write(&id)?;
    Ok(id)
}
