//! The verbs on images: load, save, import, rm, tag, history.

use crate::cli::Cli;
use crate::command::container::Download;
use crate::command::{get, text};
use crate::failure::{Failure, Outcome, open_error};
use crate::format::{Format, Row};
use crate::grammar::Matches;
use crate::{output, progress, stamp, terminal, units};
use bytes::Bytes;
use gantry_api::platform::{Platform, PlatformError};
use gantry_api::reference::{self, AnyReference};
use gantry_client::{Body, Client, Query, Request};
use serde_json::{Value, json};
use std::io::{self, Read};
use tokio::sync::mpsc;

/// Runs one of the verbs.
pub async fn dispatch(cli: &Cli, path: &str, matches: &Matches) -> Outcome {
    match path {
        "image load" => load(cli, matches).await,
        "image save" => save(cli, matches).await,
        "image import" => import(cli, matches).await,
        "image rm" => remove(cli.client()?, matches).await,
        "image tag" => tag(cli.client()?, &matches.arguments[0], &matches.arguments[1]).await,
        _ => history(cli, matches).await,
    }
}

/// Sends what a reader gives as a request's body, read by a thread of its own.
fn body_of(mut reader: impl Read + Send + 'static) -> Body {
    let (sender, chunks) = mpsc::channel(4);
    std::thread::spawn(move || {
        loop {
            let mut buffer = vec![0u8; 256 * 1024];
            let item = match reader.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    buffer.truncate(length);
                    Ok(Bytes::from(buffer))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = item.is_err();
            if sender.blocking_send(item).is_err() || failed {
                return;
            }
        }
    });
    Body::Stream {
        content_type: "application/x-tar",
        chunks,
    }
}

/// Makes a path under `/images/NAME`. Docker's client checks no name here.
pub fn image_path(name: &str, rest: &str) -> String {
    format!("/images/{name}{rest}")
}

/// Turns `os/arch[/variant]` into the JSON that image requests take.
pub fn platform_json(platform: &str) -> Outcome<String> {
    let mut parts = platform.split('/');
    let wrong = || {
        Failure::new(format!(
            "invalid platform: \"{platform}\": cannot parse platform specifier: invalid argument"
        ))
    };
    let (os, architecture, variant) =
        (parts.next().unwrap_or_default(), parts.next(), parts.next());
    if parts.next().is_some() || os.is_empty() {
        return Err(wrong());
    }
    let mut out = json!({"architecture": architecture.unwrap_or("amd64"), "os": os});
    if architecture.is_none() {
        out = json!({"architecture": os, "os": "linux"});
    }
    if let Some(variant) = variant {
        out["variant"] = json!(variant);
    }
    Ok(out.to_string())
}

/// Checks `--platform` of `run` and `create`.
pub fn check_platform(platform: &str) -> Outcome {
    let right = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| {
                c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '(' | ')' | '+')
            })
    };
    if platform.split('/').count() > 3 {
        return Err(Failure::new(format!(
            "error parsing specified platform: \"{platform}\": cannot parse platform specifier: invalid argument"
        )));
    }
    match platform.split('/').find(|part| !right(part)) {
        None => Ok(()),
        Some(part) => Err(Failure::new(format!(
            "error parsing specified platform: \"{part}\" is an invalid component of \"{platform}\": platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument"
        ))),
    }
}

fn platforms(matches: &Matches, mut query: Query) -> Outcome<Query> {
    for platform in matches.all_split("platform") {
        query = query.with("platform", platform_json(&platform)?);
    }
    Ok(query)
}

async fn load(cli: &Cli, matches: &Matches) -> Outcome {
    let input = matches.text("input");
    let body = match input.as_str() {
        "" | "-" if input.is_empty() => {
            if terminal::input_is_terminal() {
                return Err(Failure::new(
                    "requested load from stdin, but stdin is empty",
                ));
            }
            body_of(io::stdin())
        }
        path => {
            let file = std::fs::File::open(path)
                .map_err(|error| Failure::new(open_error(path, &error)))?;
            body_of(file)
        }
    };
    let quiet = matches.on("quiet") || !terminal::output_is_terminal();
    let query = platforms(
        matches,
        Query::new().with("quiet", if quiet { "1" } else { "0" }),
    )?;
    let mut request = Request::post("/images/load").query(query);
    request.body = body;
    let response = cli.client()?.send(request).await?;
    if response.header("content-type") == Some("application/json") {
        return progress::show(response, false).await;
    }
    let mut response = response;
    while let Some(chunk) = response.chunk().await? {
        output::out_bytes(&chunk);
    }
    Ok(())
}

async fn save(cli: &Cli, matches: &Matches) -> Outcome {
    let mut sink = Download::open(matches.get("output").unwrap_or_default(), "save")?;
    let mut query = Query::new();
    for name in &matches.arguments {
        query = query.with("names", name);
    }
    let query = platforms(matches, query)?;
    let mut response = cli
        .client()?
        .send(Request::get("/images/get").query(query))
        .await?;
    while let Some(chunk) = response.chunk().await? {
        sink.write(&chunk)?;
    }
    sink.finish()
}

async fn import(cli: &Cli, matches: &Matches) -> Outcome {
    let source = &matches.arguments[0];
    let reference = matches
        .arguments
        .get(1)
        .map(String::as_str)
        .unwrap_or_default();
    if !reference.is_empty() {
        reference::parse_any(reference).map_err(|error| Failure::new(error.to_string()))?;
    }
    let remote = source.starts_with("http://") || source.starts_with("https://");
    let body = match source.as_str() {
        "-" => body_of(io::stdin()),
        _ if remote => Body::Empty,
        path => {
            let file = std::fs::File::open(path)
                .map_err(|error| Failure::new(open_error(path, &error)))?;
            body_of(file)
        }
    };
    let mut query = Query::new()
        .with("fromSrc", if remote { source } else { "-" })
        .with("repo", reference);
    for change in matches.all("change") {
        query = query.with("changes", change);
    }
    let message = matches.text("message");
    let platform = matches.text("platform");
    let query = query
        .when(!message.is_empty(), "message", message.clone())
        .when(!platform.is_empty(), "platform", platform.to_lowercase());
    let mut request = Request::post("/images/create").query(query);
    request.body = body;
    progress::show(cli.client()?.send(request).await?, false).await
}

async fn remove(client: &Client, matches: &Matches) -> Outcome {
    let force = matches.on("force");
    let mut query =
        Query::new()
            .when(force, "force", "1")
            .when(matches.on("no-prune"), "noprune", "1");
    for platform in matches.all_split("platform") {
        let parsed: Result<Platform, PlatformError> = platform.parse();
        parsed.map_err(|error| Failure::new(error.to_string()))?;
        query = query.with("platforms", platform_json(&platform)?);
    }
    let (mut errors, mut fatal, mut out) = (Vec::new(), false, String::new());
    for name in &matches.arguments {
        match client
            .send(Request::delete(image_path(name, "")).query(query.clone()))
            .await
        {
            Err(error) => {
                if !error.is_not_found() {
                    fatal = true;
                }
                errors.push(error.to_string());
            }
            Ok(answer) => {
                let items: Value = answer.json().await?;
                for item in items.as_array().into_iter().flatten() {
                    match item["Deleted"].as_str() {
                        Some(id) if !id.is_empty() => out.push_str(&format!("Deleted: {id}\n")),
                        _ => out.push_str(&format!("Untagged: {}\n", text(item, "Untagged"))),
                    }
                }
            }
        }
    }
    output::out(&out);
    if errors.is_empty() {
        return Ok(());
    }
    let message = errors.join("\n");
    if force && !fatal {
        output::error_line(&message);
        return Ok(());
    }
    Err(Failure::new(message))
}

async fn tag(client: &Client, source: &str, target: &str) -> Outcome {
    let invalid = |name: &str, error: &dyn std::fmt::Display| {
        let name = crate::grammar::values::quote(name);
        Failure::new(format!(
            "Error parsing reference: {name} is not a valid repository/tag: {error}"
        ))
    };
    if let Err(error) = reference::parse_any(source) {
        return Err(invalid(source, &error));
    }
    let reference = match reference::parse_any(target) {
        Ok(AnyReference::Named(reference)) if reference.digest().is_none() => reference.or_latest(),
        Ok(_) => {
            return Err(Failure::new(
                "refusing to create a tag with a digest reference",
            ));
        }
        Err(error) => return Err(invalid(target, &error)),
    };
    let query = Query::new()
        .with("repo", reference.name())
        .with("tag", reference.tag().unwrap_or_default());
    client
        .call(Request::post(image_path(source, "/tag")).query(query))
        .await?;
    Ok(())
}

const HISTORY: [(&str, &str); 6] = [
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

async fn history(cli: &Cli, matches: &Matches) -> Outcome {
    let human = matches.on_unless_false("human");
    let truncate = !matches.on("no-trunc");
    let quiet = matches.on("quiet");
    let query = match matches
        .get("platform")
        .filter(|platform| !platform.is_empty())
    {
        Some(platform) => Query::new().with("platform", platform_json(platform)?),
        None => Query::new(),
    };
    let default = match (quiet, human) {
        (true, _) => "{{.ID}}",
        (false, true) => {
            "table {{.ID}}\\t{{.CreatedSince}}\\t{{.CreatedBy}}\\t{{.Size}}\\t{{.Comment}}"
        }
        (false, false) => {
            "table {{.ID}}\\t{{.CreatedAt}}\\t{{.CreatedBy}}\\t{{.Size}}\\t{{.Comment}}"
        }
    };
    let format = Format::new(matches.get("format").unwrap_or_default(), default, &HISTORY)?;
    let layers = get(
        cli.client()?,
        image_path(&matches.arguments[0], "/history"),
        query,
    )
    .await?;
    let rows = layers
        .as_array()
        .into_iter()
        .flatten()
        .map(|layer| {
            let id = text(layer, "Id");
            let created = layer["Created"].as_i64().unwrap_or(0);
            let by = text(layer, "CreatedBy").replace('\t', " ");
            let size = layer["Size"].as_f64().unwrap_or(0.0);
            let since = match created {
                created if created <= -62_135_596_800 => "N/A".to_owned(),
                created if human => format!("{} ago", units::duration(stamp::age(created))),
                created => stamp::local_seconds(created),
            };
            Row::new("*history.historyContext")
                .text("ID", if truncate { units::short_id(id) } else { id })
                .text("CreatedSince", since)
                .text("CreatedAt", stamp::local_seconds(created))
                .text(
                    "CreatedBy",
                    if truncate {
                        units::ellipsis(&by, 45)
                    } else {
                        by
                    },
                )
                .text(
                    "Size",
                    if human {
                        units::size(size, 3)
                    } else {
                        format!("{size}")
                    },
                )
                .text("Comment", text(layer, "Comment"))
        })
        .collect();
    output::out(&format.render(rows)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_checked() {
        assert_eq!(
            platform_json("linux/arm64/v8").ok().as_deref(),
            Some(r#"{"architecture":"arm64","os":"linux","variant":"v8"}"#)
        );
        assert_eq!(
            check_platform("foo/bar/baz/x")
                .err()
                .map(|failure| failure.text)
                .as_deref(),
            Some(
                "error parsing specified platform: \"foo/bar/baz/x\": cannot parse platform specifier: invalid argument"
            )
        );
        assert!(check_platform("linux/amd64").is_ok());
    }
}
