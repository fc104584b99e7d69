//! `inspect` of anything.

use crate::cli::Cli;
use crate::failure::{Failure, Outcome};
use crate::format::{self, WRONG_TEMPLATE, WRONG_TEMPLATE_CODE};
use crate::grammar::Matches;
use crate::output;
use crate::template::Template;
use gantry_client::request::Path;
use gantry_client::{Client, Error, Query, Request};

/// The kinds of objects, in the order in which they are tried.
const KINDS: [&str; 10] = [
    "container",
    "image",
    "network",
    "volume",
    "service",
    "task",
    "node",
    "plugin",
    "secret",
    "config",
];

/// Runs `inspect`, `container inspect` and the like.
pub async fn inspect(cli: &Cli, path: &str, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let wanted = match path.split_once(' ') {
        Some((kind, _)) => kind.to_owned(),
        None => {
            if matches.given("type") && matches.text("type").is_empty() {
                return Err(Failure::new(
                    "type is empty: must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\"",
                ));
            }
            matches.text("type")
        }
    };
    let any = wanted.is_empty();
    if !any && !KINDS.contains(&wanted.as_str()) {
        return Err(Failure::new(format!(
            "unknown type: {}: must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\"",
            crate::grammar::values::quote(&wanted)
        )));
    }
    let format = matches.get("format").unwrap_or_default();
    let template = match format {
        "" | "json" => None,
        text => Some(Template::parse(text).map_err(|error| Failure {
            text: format!("{WRONG_TEMPLATE}: {error}"),
            code: WRONG_TEMPLATE_CODE,
        })?),
    };
    let size = matches.on("size");
    let verbose = matches.on("verbose");
    let platform = matches.text("platform");
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    let mut rendered = String::new();
    for name in &matches.arguments {
        let answer = if any {
            search(client, name, size).await
        } else {
            lookup(client, &wanted, name, size, verbose, &platform)
                .await
                .map_err(Failure::from)
        };
        match answer {
            Ok(bytes) => match &template {
                None => found.push(bytes),
                Some(template) => {
                    let json = serde_json::from_slice(&bytes).map_err(|error| {
                        Failure::new(format!("unable to read inspect data: {error}"))
                    })?;
                    match format::inspect(template, &json) {
                        Ok(text) => {
                            rendered.push_str(&text);
                            rendered.push('\n');
                        }
                        Err(failure) => {
                            errors.push(failure.text);
                            break;
                        }
                    }
                }
            },
            Err(failure) => errors.push(failure.text),
        }
    }
    match (&template, format) {
        (Some(_), _) if rendered.is_empty() => output::out("\n"),
        (Some(_), _) => output::out(&rendered),
        (None, "json") => {
            let items: Vec<_> = found
                .iter()
                .map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned())
                .collect();
            output::line(&format!("[{}]", items.join(",")));
        }
        (None, _) => {
            let mut array = b"[".to_vec();
            array.extend(
                found
                    .iter()
                    .map(|bytes| bytes.trim_ascii())
                    .collect::<Vec<_>>()
                    .join(&b","[..]),
            );
            array.push(b']');
            output::line(&indent(&array));
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(errors.join("\n")))
    }
}

async fn lookup(
    client: &Client,
    kind: &str,
    name: &str,
    size: bool,
    verbose: bool,
    platform: &str,
) -> Result<Vec<u8>, Error> {
    let path = match kind {
        "image" if name.is_empty() => {
            return Err(Error::Invalid("Error: No such image: ".to_owned()));
        }
        "image" => super::image::image_path(name, "/json").into(),
        "container" | "plugin" => Path::object(kind, name, "/json"),
        kind => Path::object(kind, name, ""),
    };
    let query = match kind {
        "container" => Query::new().when(size, "size", "1"),
        "image" if !platform.is_empty() => Query::new().with(
            "platform",
            super::image::platform_json(platform).unwrap_or_default(),
        ),
        "network" => Query::new().when(verbose, "verbose", "true"),
        _ => Query::new(),
    };
    let answer = client.call(Request::get(path).query(query)).await?;
    // Of a name like `/` the path is that of the list.
    match (answer.first(), kind) {
        (Some(b'['), "network") => Err(array_for("network.Inspect")),
        (Some(b'['), "image") => Err(array_for("image.InspectResponse")),
        (Some(b'['), _) => Err(array_for("container.InspectResponse")),
        _ => Ok(answer),
    }
}

/// Says that a list is no object, in the words of Go's decoder.
fn array_for(type_name: &str) -> Error {
    Error::Decode(format!(
        "json: cannot unmarshal array into Go value of type {type_name}"
    ))
}

/// Tries all kinds in turn. A daemon that is no swarm manager refuses the swarm's kinds: that is "not found" too.
async fn search(client: &Client, name: &str, size: bool) -> Outcome<Vec<u8>> {
    for kind in KINDS {
        match lookup(client, kind, name, size, false, "").await {
            Ok(bytes) => return Ok(bytes),
            Err(error) if matches!(error.status(), Some(404 | 503 | 406 | 501)) => {}
            Err(error)
                if error
                    .to_string()
                    .contains("This node is not a swarm manager") => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::new(format!("Error: No such object: {name}")))
}

/// Indents JSON by four spaces a level and changes nothing else: numbers and escapes stay as the daemon wrote them.
pub fn indent(json: &[u8]) -> String {
    let mut out = Vec::with_capacity(json.len() * 2);
    let mut depth = 0usize;
    let (mut quoted, mut escaped, mut fresh) = (false, false, false);
    let newline = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', depth * 4));
    };
    for &byte in json {
        if quoted {
            out.push(byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        if byte.is_ascii_whitespace() {
            continue;
        }
        // An empty object or array stays on its line.
        if fresh && !matches!(byte, b'}' | b']') {
            depth += 1;
            newline(&mut out, depth);
        }
        match byte {
            b'"' => {
                quoted = true;
                out.push(byte);
            }
            b'{' | b'[' => out.push(byte),
            b',' => {
                out.push(byte);
                newline(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b'}' | b']' => {
                if !fresh {
                    depth = depth.saturating_sub(1);
                    newline(&mut out, depth);
                }
                out.push(byte);
            }
            other => out.push(other),
        }
        fresh = matches!(byte, b'{' | b'[');
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_and_otherwise_kept() {
        assert_eq!(
            indent(br#"[{"a":1.0e3,"b":[],"c":{},"d":["x \" {"]}]"#),
            "[\n    {\n        \"a\": 1.0e3,\n        \"b\": [],\n        \"c\": {},\n        \"d\": [\n            \"x \\\" {\"\n        ]\n    }\n]"
        );
        assert_eq!(indent(b"[]"), "[]");
    }
}
