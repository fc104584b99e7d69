//! The small verbs on containers: stop, restart, kill, pause, unpause, rm, wait, rename, port, top, diff, export,
//! commit.

use crate::cli::Cli;
use crate::command::list::joined;
use crate::command::{container_path, each, get, inspect_container, text};
use crate::failure::{Failure, Outcome, open_error};
use crate::grammar::Matches;
use crate::grammar::values::parse_unsigned_decimal;
use crate::order::natural;
use crate::{output, table, terminal};
use gantry_api::reference::{self, AnyReference};
use gantry_client::{Client, Query, Request};
use serde_json::Value;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;

/// Runs one of the verbs.
pub async fn dispatch(cli: &Cli, path: &str, matches: &Matches) -> Outcome {
    let names = &matches.arguments;
    let client = cli.client()?;
    match path {
        "container stop" | "container restart" => {
            if matches.given("time") && matches.given("timeout") {
                return Err(Failure::new(
                    "conflicting options: cannot specify both --timeout and --time",
                ));
            }
            let verb = if path == "container stop" {
                "/stop"
            } else {
                "/restart"
            };
            let timeout = matches
                .integer("timeout")
                .or_else(|| matches.integer("time"));
            let signal = matches.text("signal");
            let query = Query::new()
                .when(!signal.is_empty(), "signal", signal.clone())
                .when(timeout.is_some(), "t", timeout.unwrap_or(0).to_string());
            each(names, |name| post(client, name, verb, query.clone())).await
        }
        "container kill" => {
            let signal = matches.text("signal");
            let query = Query::new().when(!signal.is_empty(), "signal", signal.clone());
            each(names, |name| post(client, name, "/kill", query.clone())).await
        }
        "container pause" => each(names, |name| post(client, name, "/pause", Query::new())).await,
        "container unpause" => {
            each(names, |name| post(client, name, "/unpause", Query::new())).await
        }
        "container rm" => remove(client, matches).await,
        "container wait" => each(names, |name| wait(client, name)).await,
        "container rename" => rename(client, &names[0], &names[1]).await,
        "container port" => port(client, &names[0], names.get(1).map(String::as_str)).await,
        "container top" => top(client, &names[0], &names[1..]).await,
        "container diff" => diff(client, &names[0]).await,
        "container export" => {
            export(client, &names[0], matches.get("output").unwrap_or_default()).await
        }
        _ => commit(client, matches).await,
    }
}

async fn post(client: &Client, name: &str, verb: &str, query: Query) -> Outcome<Option<String>> {
    client
        .call(Request::post(container_path(name, verb)).query(query))
        .await?;
    Ok(Some(name.to_owned()))
}

async fn remove(client: &Client, matches: &Matches) -> Outcome {
    let force = matches.on("force");
    let query = Query::new()
        .when(force, "force", "1")
        .when(matches.on("link"), "link", "1")
        .when(matches.on("volumes"), "v", "1");
    each(&matches.arguments, |name| {
        let query = query.clone();
        async move {
            let trimmed = name.trim_matches('/');
            if trimmed.is_empty() {
                return Err(Failure::new("container name cannot be empty"));
            }
            match client
                .call(Request::delete(container_path(trimmed, "")).query(query))
                .await
            {
                Err(error) if force && error.is_not_found() => {
                    output::error_line(&error.to_string());
                    Ok(None)
                }
                Err(error) => Err(error.into()),
                Ok(_) => Ok(Some(name.to_owned())),
            }
        }
    })
    .await
}

async fn wait(client: &Client, name: &str) -> Outcome<Option<String>> {
    let answer: Value = client
        .send(Request::post(container_path(name, "/wait")))
        .await?
        .json()
        .await?;
    if let Some(message) = answer["Error"]["Message"]
        .as_str()
        .filter(|text| !text.is_empty())
    {
        return Err(Failure::new(message));
    }
    Ok(Some(answer["StatusCode"].as_i64().unwrap_or(0).to_string()))
}

async fn rename(client: &Client, old: &str, new: &str) -> Outcome {
    let (old, new) = (old.trim(), new.trim());
    if old.is_empty() || new.is_empty() {
        return Err(Failure::new(
            "Error: Neither old nor new names may be empty",
        ));
    }
    client
        .call(Request::post(container_path(old, "/rename")).query(Query::new().with("name", new)))
        .await
        .map_err(|error| {
            if error.is_connection() {
                return error.into();
            }
            Failure::new(format!(
                "{error}\nError: failed to rename container named {old}"
            ))
        })?;
    Ok(())
}

async fn port(client: &Client, name: &str, wanted: Option<&str>) -> Outcome {
    let container = inspect_container(client, name).await?;
    let ports = container["NetworkSettings"]["Ports"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let mut lines = Vec::new();
    let bindings = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .map(|binding| joined(text(binding, "HostIp"), text(binding, "HostPort")))
            .collect()
    };
    // An empty port is none: all are shown.
    if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) {
        let published = port_key(wanted)
            .map_err(Failure::new)
            .map(|key| ports.get(&key).map(bindings).unwrap_or_default())?;
        if published.is_empty() {
            return Err(Failure::new(format!(
                "Error: No public port '{wanted}' published for {name}"
            )));
        }
        lines.extend(published);
    } else {
        for (port, value) in &ports {
            lines.extend(
                bindings(value)
                    .into_iter()
                    .map(|binding| format!("{port} -> {binding}")),
            );
        }
    }
    lines.sort_by(|left, right| natural(left, right));
    if !lines.is_empty() {
        output::line(&lines.join("\n"));
    }
    Ok(())
}

/// Returns the key `PORT/PROTOCOL` of a port as the user wrote it. The number is checked but not normalised: `080` is
/// no other way to write `80`.
fn port_key(wanted: &str) -> Result<String, String> {
    let (port, protocol) = match wanted.split_once('/') {
        None | Some((_, "")) => (wanted.trim_end_matches('/'), "tcp"),
        Some(parts) => parts,
    };
    parse_unsigned_decimal(port, u16::MAX.into())
        .map_err(|error| format!("Error: invalid port ({port}): {error}"))?;
    Ok(format!("{port}/{protocol}"))
}

async fn top(client: &Client, name: &str, arguments: &[String]) -> Outcome {
    let query = Query::new().when(!arguments.is_empty(), "ps_args", arguments.join(" "));
    let answer = get(client, container_path(name, "/top"), query).await?;
    let cells = |row: &Value| -> String {
        row.as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join("\t")
    };
    let mut text = format!("{}\n", cells(&answer["Titles"]));
    for process in answer["Processes"].as_array().into_iter().flatten() {
        text.push_str(&cells(process));
        text.push('\n');
    }
    output::out(&table::layout_with(&text, 20, 3));
    Ok(())
}

async fn diff(client: &Client, name: &str) -> Outcome {
    if name.is_empty() {
        return Err(Failure::new("Container name cannot be empty"));
    }
    let changes = get(client, container_path(name, "/changes"), Query::new()).await?;
    let mut out = String::new();
    for change in changes.as_array().into_iter().flatten() {
        let kind = match change["Kind"].as_u64() {
            Some(1) => 'A',
            Some(2) => 'D',
            _ => 'C',
        };
        out.push_str(&format!("{kind} {}\n", text(change, "Path")));
    }
    output::out(&out);
    Ok(())
}

async fn export(client: &Client, name: &str, path: &str) -> Outcome {
    let mut sink = Download::open(path, "export")?;
    let mut response = client
        .send(Request::get(container_path(name, "/export")))
        .await?;
    while let Some(chunk) = response.chunk().await? {
        sink.write(&chunk)?;
    }
    sink.finish()
}

/// Where a tar stream goes: a file that appears when it is complete, or standard output if that is no terminal.
pub struct Download {
    path: String,
    fresh: String,
    file: Option<std::fs::File>,
}

impl Download {
    /// Opens the destination; an empty path is standard output.
    pub fn open(path: &str, verb: &str) -> Outcome<Download> {
        if path.is_empty() {
            if terminal::output_is_terminal() {
                return Err(Failure::new(
                    "cowardly refusing to save to a terminal. Use the -o flag or redirect",
                ));
            }
            return Ok(Download {
                path: String::new(),
                fresh: String::new(),
                file: None,
            });
        }
        check_output(path, verb)?;
        // A symbolic link stays one: the file that it leads to is replaced.
        let path = std::fs::canonicalize(path).map_or_else(
            |_| path.to_owned(),
            |real| real.to_string_lossy().into_owned(),
        );
        let fresh = format!("{path}.tmp-{}", std::process::id());
        // For its owner alone: an image or a container may hold secrets.
        let file = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(|error| Failure::new(open_error(&path, &error)))?;
        Ok(Download {
            path,
            fresh,
            file: Some(file),
        })
    }

    /// Writes a piece.
    pub fn write(&mut self, bytes: &[u8]) -> Outcome {
        match &mut self.file {
            Some(file) => file.write_all(bytes).map_err(|error| {
                Failure::new(format!(
                    "write {}: {}",
                    self.path,
                    crate::failure::reason(&error)
                ))
            }),
            None => {
                output::out_bytes(bytes);
                Ok(())
            }
        }
    }

    /// Puts the complete file in its place.
    pub fn finish(mut self) -> Outcome {
        if self.file.take().is_some() {
            std::fs::rename(&self.fresh, &self.path)?;
        }
        Ok(())
    }
}

/// Refuses an output path that is no place for a regular file. A complete file is renamed over the path at the end:
/// over /dev/null that would take the device away.
fn check_output(path: &str, verb: &str) -> Outcome {
    let what = if verb == "save" { "image" } else { "container" };
    let fail = |text: String| Err(Failure::new(format!("failed to {verb} {what}: {text}")));
    let target = std::path::Path::new(path);
    if let Some(parent) = target
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        && let Err(error) = std::fs::metadata(parent)
    {
        return fail(format!(
            "invalid output path: stat {}: {}",
            parent.display(),
            crate::failure::reason(&error)
        ));
    }
    // Links are followed: what would be written is what they lead to.
    match std::fs::metadata(target)
        .ok()
        .and_then(|found| special(found.file_type()))
    {
        Some(kind) => fail(format!("cannot write to a {kind}")),
        None => Ok(()),
    }
}

/// Names a kind of file that is not regular.
fn special(kind: std::fs::FileType) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        _ if kind.is_dir() => Some("directory"),
        _ if kind.is_char_device() => Some("character device file"),
        _ if kind.is_block_device() => Some("block device file"),
        _ if kind.is_fifo() => Some("named pipe (FIFO)"),
        _ if kind.is_socket() => Some("socket"),
        _ => None,
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if self.file.is_some() {
            // An incomplete file is worse than none.
            let _ = std::fs::remove_file(&self.fresh);
        }
    }
}

async fn commit(client: &Client, matches: &Matches) -> Outcome {
    let container = &matches.arguments[0];
    let (mut repository, mut tag) = (String::new(), String::new());
    if let Some(name) = matches.arguments.get(1).filter(|name| !name.is_empty()) {
        match reference::parse_any(name) {
            Ok(AnyReference::Named(reference)) => {
                if reference.digest().is_some() {
                    return Err(Failure::new(
                        "refusing to create a tag with a digest reference",
                    ));
                }
                let reference = reference.or_latest();
                repository = reference.name();
                tag = reference.tag().unwrap_or_default().to_owned();
            }
            Ok(_) => {
                return Err(Failure::new(
                    "refusing to create a tag with a digest reference",
                ));
            }
            Err(error) => return Err(Failure::new(error.to_string())),
        }
    }
    let mut query = Query::new()
        .with("container", container)
        .with("repo", repository)
        .with("tag", tag)
        .with("comment", matches.text("message"))
        .with("author", matches.text("author"));
    for change in matches.all("change") {
        query = query.with("changes", change);
    }
    let query = query.when(!matches.on_unless_false("pause"), "pause", "0");
    let answer: Value = client
        .send(Request::post("/commit").query(query))
        .await?
        .json()
        .await?;
    output::line(text(&answer, "Id"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_directories_are_no_output() {
        let refused = |path: &str| {
            check_output(path, "export")
                .err()
                .map(|failure| failure.text)
        };
        assert_eq!(
            refused("/dev/null").as_deref(),
            Some("failed to export container: cannot write to a character device file")
        );
        assert_eq!(
            refused("/").as_deref(),
            Some("failed to export container: cannot write to a directory")
        );
        let directory = tempfile::tempdir().expect("a temporary directory");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).expect("a link");
        assert!(refused(&link.to_string_lossy()).is_some());
        assert_eq!(
            refused(&directory.path().join("file").to_string_lossy()),
            None
        );
    }

    #[test]
    fn ports_are_checked_as_docker_does() {
        let check = |wanted: &str, expected: Result<&str, &str>| {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(port_key(wanted), expected, "{wanted}");
        };
        check("80", Ok("80/tcp"));
        check("80/", Ok("80/tcp"));
        check("080", Ok("080/tcp"));
        check("80/TCP", Ok("80/TCP"));
        check("80/tcp/x", Ok("80/tcp/x"));
        check(
            "x/y",
            Err("Error: invalid port (x): strconv.ParseUint: parsing \"x\": invalid syntax"),
        );
        check(
            "/tcp",
            Err("Error: invalid port (): strconv.ParseUint: parsing \"\": invalid syntax"),
        );
        check(
            "70000",
            Err(
                "Error: invalid port (70000): strconv.ParseUint: parsing \"70000\": value out of range",
            ),
        );
    }
}
