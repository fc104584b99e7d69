//! `context`: named daemons.

use crate::cli::{Cli, digest};
use crate::failure::{Failure, Outcome};
use crate::format::{Format, Row, WRONG_TEMPLATE, WRONG_TEMPLATE_CODE};
use crate::grammar::Matches;
use crate::order::natural;
use crate::output;
use gantry_client::config::{self, ConfigFile};
use gantry_client::context::{self, Context, ContextEndpoint};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const HEADINGS: [(&str, &str); 5] = [
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("DockerEndpoint", "DOCKER ENDPOINT"),
    ("Current", "CURRENT"),
    ("Error", "ERROR"),
];

/// Runs one of the verbs.
pub fn dispatch(cli: &Cli, path: &str, matches: &Matches) -> Outcome {
    match path {
        "context show" => {
            output::line(&current(cli)?);
            Ok(())
        }
        "context use" => use_context(
            cli,
            matches.arguments.first().map_or("default", String::as_str),
        ),
        "context ls" => list(cli, matches),
        "context inspect" => inspect(cli, matches),
        "context create" => create(cli, matches),
        "context update" => update(cli, matches),
        "context rm" => remove(cli, matches),
        path => Err(Failure::new(format!(
            "{}: '{} {path}' is not supported yet",
            cli.program, cli.program
        ))),
    }
}

fn current(cli: &Cli) -> Outcome<String> {
    if let Some(context) = cli.global.get("context") {
        return Ok(context.to_owned());
    }
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if cli.global.given("host") || environment("DOCKER_HOST").is_some() {
        return Ok("default".to_owned());
    }
    let configured =
        || Some(cli.config().current_context.clone()).filter(|context| !context.is_empty());
    Ok(environment("DOCKER_CONTEXT")
        .or_else(configured)
        .unwrap_or_else(|| "default".to_owned()))
}

fn default_host() -> String {
    match std::env::var("DOCKER_HOST") {
        Ok(host) if !host.is_empty() => host,
        _ => format!("unix://{}", crate::cli::own_socket().display()),
    }
}

fn default_context() -> Context {
    let endpoint = ContextEndpoint {
        host: default_host(),
        skip_tls_verify: false,
    };
    Context {
        name: "default".to_owned(),
        metadata: serde_json::Map::new(),
        endpoints: BTreeMap::from([("docker".to_owned(), endpoint)]),
    }
}

fn load(cli: &Cli, name: &str) -> Outcome<Context> {
    if name == "default" {
        return Ok(default_context());
    }
    Ok(context::load(&cli.directory, name, &digest(name))?)
}

fn use_context(cli: &Cli, name: &str) -> Outcome {
    check_name(name, true)?;
    load(cli, name)?;
    set_current(cli, if name == "default" { "" } else { name })?;
    output::line(name);
    output::error_line(&format!("Current context is now \"{name}\""));
    if name != "default" && environment_overrides() {
        output::error_line(OVERRIDDEN);
    }
    Ok(())
}

fn set_current(cli: &Cli, name: &str) -> Outcome {
    let change = |config: &mut ConfigFile| {
        config.current_context = name.to_owned();
        true
    };
    config::update(&cli.directory, change).map_err(Failure::new)
}

fn check_name(name: &str, default_allowed: bool) -> Outcome {
    if name.is_empty() {
        return Err(Failure::new("context name cannot be empty"));
    }
    if name == "default" && !default_allowed {
        return Err(Failure::new("\"default\" is a reserved context name"));
    }
    let right = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.len() > 1
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.+-".contains(c));
    if right || name == "default" {
        return Ok(());
    }
    Err(Failure::new(format!(
        "context name \"{name}\" is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
    )))
}

fn list(cli: &Cli, matches: &Matches) -> Outcome {
    let default = match matches.on("quiet") {
        true => "{{.Name}}",
        false => {
            "table {{.Name}}{{if .Current}} *{{end}}\\t{{.Description}}\\t{{.DockerEndpoint}}\\t{{.Error}}"
        }
    };
    let format = Format::new(
        matches.get("format").unwrap_or_default(),
        default,
        &HEADINGS,
    )?;
    let mut contexts = context::list(&cli.directory)?;
    contexts.push(default_context());
    contexts.sort_by(|left, right| natural(&left.name, &right.name));
    let current = current(cli)?;
    let rows = contexts
        .iter()
        .map(|context| {
            let description = match context.name.as_str() {
                "default" => "Current DOCKER_HOST based configuration",
                _ => context.description(),
            };
            Row::new("*formatter.clientContextContext")
                .text("Name", &context.name)
                .text("Description", description)
                .text("DockerEndpoint", context.host())
                .value(
                    "Current",
                    crate::template::Value::Bool(context.name == current),
                )
                .text("Error", "")
        })
        .collect();
    let mut text = format.render(rows)?;
    if format.is_table() {
        // The heading of the marked column is only its name.
        text = text.replacen("NAME *", "NAME  ", 1);
    }
    output::out(&text);
    if environment_overrides() {
        output::error_line(OVERRIDDEN);
    }
    Ok(())
}

const OVERRIDDEN: &str = "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable.";

fn environment_overrides() -> bool {
    std::env::var("DOCKER_HOST").is_ok_and(|host| !host.is_empty())
}

fn inspect(cli: &Cli, matches: &Matches) -> Outcome {
    let names = match matches.arguments.is_empty() {
        true => vec![current(cli)?],
        false => matches.arguments.clone(),
    };
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for name in &names {
        match load(cli, name) {
            Ok(context) => found.push(view(cli, &context)),
            Err(failure) => errors.push(failure.text),
        }
    }
    match matches.get("format").unwrap_or_default() {
        // Go escapes these for HTML here, and only here.
        "" => output::line(
            &crate::command::inspect::indent(json!(found).to_string().as_bytes())
                .replace('<', "\\u003c")
                .replace('>', "\\u003e")
                .replace('&', "\\u0026"),
        ),
        text => {
            let text = if text == "json" { "{{json .}}" } else { text };
            let template = crate::template::Template::parse(text).map_err(|error| Failure {
                text: format!("{WRONG_TEMPLATE}: {error}"),
                code: WRONG_TEMPLATE_CODE,
            })?;
            for context in &found {
                output::line(&crate::format::inspect(&template, context)?);
            }
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(errors.join("\n")))
    }
}

fn view(cli: &Cli, context: &Context) -> Value {
    let digest = digest(&context.name);
    let (metadata, tls) = match context.name.as_str() {
        "default" => ("<IN MEMORY>".to_owned(), "<IN MEMORY>".to_owned()),
        _ => (
            cli.directory
                .join("contexts/meta")
                .join(&digest)
                .to_string_lossy()
                .into_owned(),
            context::tls_path(&cli.directory, &digest)
                .to_string_lossy()
                .into_owned(),
        ),
    };
    json!({
        "Name": context.name,
        "Metadata": context.metadata,
        "Endpoints": context.endpoints,
        "TLSMaterial": {},
        "Storage": {"MetadataPath": metadata, "TLSPath": tls},
    })
}

/// Parses `--docker host=...,skip-tls-verify=...` or `from=NAME`.
fn endpoint(cli: &Cli, matches: &Matches) -> Outcome<Option<ContextEndpoint>> {
    let pairs = matches.all_split("docker");
    if pairs.is_empty() {
        return Ok(None);
    }
    let mut endpoint = ContextEndpoint::default();
    for pair in pairs {
        let (key, value) = pair.split_once('=').unwrap_or((pair.as_str(), ""));
        match key {
            "from" => {
                endpoint = load(cli, value)?
                    .endpoints
                    .remove("docker")
                    .unwrap_or_default()
            }
            "host" => {
                gantry_client::Endpoint::parse(value).map_err(|error| {
                    Failure::new(format!("unable to parse docker host: {error}"))
                })?;
                endpoint.host = value.to_owned();
            }
            "skip-tls-verify" => endpoint.skip_tls_verify = value == "true",
            "ca" | "cert" | "key" => {
                return Err(Failure::new(format!(
                    "{key}: TLS connections to a daemon are not supported yet"
                )));
            }
            _ => return Err(Failure::new(format!("unrecognized config key: {key}"))),
        }
    }
    Ok(Some(endpoint))
}

fn create(cli: &Cli, matches: &Matches) -> Outcome {
    let name = &matches.arguments[0];
    check_name(name, false)?;
    if context::meta_path(&cli.directory, &digest(name)).exists() {
        return Err(Failure::new(format!("context \"{name}\" already exists")));
    }
    let mut made = match matches.get("from").filter(|from| !from.is_empty()) {
        Some(from) => Context {
            name: name.clone(),
            ..load(cli, from)?
        },
        None => {
            let endpoint = endpoint(cli, matches)?
                .ok_or_else(|| Failure::new("docker endpoint configuration is required"))?;
            let endpoints = BTreeMap::from([("docker".to_owned(), endpoint)]);
            Context {
                name: name.clone(),
                metadata: serde_json::Map::new(),
                endpoints,
            }
        }
    };
    if matches.given("description") {
        made.metadata
            .insert("Description".to_owned(), json!(matches.text("description")));
    }
    context::save(&cli.directory, &digest(name), &made)?;
    output::line(name);
    output::error_line(&format!("Successfully created context \"{name}\""));
    Ok(())
}

fn update(cli: &Cli, matches: &Matches) -> Outcome {
    let name = &matches.arguments[0];
    check_name(name, false)?;
    let mut context = load(cli, name)?;
    if matches.given("description") {
        context
            .metadata
            .insert("Description".to_owned(), json!(matches.text("description")));
    }
    if let Some(endpoint) = endpoint(cli, matches)? {
        context.endpoints.insert("docker".to_owned(), endpoint);
    }
    context::save(&cli.directory, &digest(name), &context)?;
    output::line(name);
    output::error_line(&format!("Successfully updated context \"{name}\""));
    Ok(())
}

fn remove(cli: &Cli, matches: &Matches) -> Outcome {
    let force = matches.on("force");
    let current = current(cli)?;
    let mut errors = Vec::new();
    for name in &matches.arguments {
        let outcome = (|| {
            if name == "default" {
                return Err(Failure::new("context \"default\" cannot be removed"));
            }
            if !context::meta_path(&cli.directory, &digest(name)).exists() {
                return if force {
                    Ok(())
                } else {
                    Err(Failure::new(format!("context \"{name}\" does not exist")))
                };
            }
            if *name == current {
                if !force {
                    return Err(Failure::new(format!(
                        "context \"{name}\" is in use, set -f flag to force remove"
                    )));
                }
                set_current(cli, "")?;
            }
            Ok(context::remove(&cli.directory, &digest(name))?)
        })();
        match outcome {
            Ok(()) => output::line(name),
            Err(failure) => errors.push(failure.text),
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(errors.join("\n")))
    }
}
