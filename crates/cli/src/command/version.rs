//! `version`.

mod record;

use crate::cli::Cli;
use crate::command::text;
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::template::Template;
use crate::{DOCKER_VERSION, GANTRY_VERSION, output, stamp};
use gantry_client::{Client, Request, Version};
use serde_json::{Map, Value, json};

/// Runs `version`.
pub async fn version(cli: &Cli, matches: &Matches) -> Outcome {
    let given = matches.get("format").unwrap_or_default();
    let template = match given {
        "" => None,
        "json" => Some(Template::parse("{{json .}}").map_err(Failure::new)?),
        text => Some(Template::parse(text).map_err(|error| Failure {
            text: format!("template parsing error: {}", named(&error)),
            code: 64,
        })?),
    };
    let client = cli.client()?;
    let answer: Result<Value, gantry_client::Error> = async {
        client.version().await?;
        client.send(Request::get("/version")).await?.json().await
    }
    .await;
    let ours = client_part(client, &cli.target()?.context);
    let server = answer.as_ref().ok();
    match &template {
        None => output::out(&text_form(&ours, server)),
        Some(template) => {
            let server = server.map(with_details);
            match template.execute(&record::whole(&ours, server.as_ref())) {
                Ok(text) => output::line(&text),
                Err(error) => {
                    // The line is ended even if it could not be finished.
                    output::line("");
                    // That no server answered says more.
                    answer?;
                    return Err(Failure::new(named(&error)));
                }
            }
        }
    }
    answer.map(drop).map_err(Failure::from)
}

/// Gives the template in an error the name that Docker's has.
fn named(error: &str) -> String {
    error
        .replacen("template: :", "template: version:", 1)
        .replacen("executing \"\" at", "executing \"version\" at", 1)
        .replacen("evaluating interface {}.", "evaluating *types.Version.", 1)
}

fn client_part(client: &Client, context: &str) -> Value {
    let api = client.version_if_known().to_string();
    json!({
        "Platform": {"Name": format!("Gantry {GANTRY_VERSION}")},
        "Version": DOCKER_VERSION,
        "ApiVersion": api,
        "DefaultAPIVersion": Version::NEWEST.to_string(),
        "GitCommit": format!("gantry-{GANTRY_VERSION}"),
        "GoVersion": "",
        "Os": std::env::consts::OS,
        "Arch": architecture(),
        "BuildTime": "",
        "Context": context,
    })
}

/// Returns this machine's architecture as Go names it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// Puts the old top-level fields into a component where a server sends none.
fn with_details(server: &Value) -> Value {
    let mut server = server.clone();
    if server["Components"].as_array().is_none_or(Vec::is_empty) {
        let mut details = Map::new();
        for (key, field) in [
            ("ApiVersion", "ApiVersion"),
            ("MinAPIVersion", "MinAPIVersion"),
            ("GitCommit", "GitCommit"),
            ("GoVersion", "GoVersion"),
            ("Os", "Os"),
            ("Arch", "Arch"),
            ("BuildTime", "BuildTime"),
        ] {
            details.insert(key.to_owned(), json!(text(&server, field)));
        }
        details.insert(
            "Experimental".to_owned(),
            json!(
                server["Experimental"]
                    .as_bool()
                    .unwrap_or(false)
                    .to_string()
            ),
        );
        server["Components"] =
            json!([{"Name": "Engine", "Version": text(&server, "Version"), "Details": details}]);
    }
    for component in server["Components"].as_array_mut().into_iter().flatten() {
        if let Some(built) = component.pointer_mut("/Details/BuildTime")
            && let Some(text) = built.as_str()
            && text.contains('T')
            && text.starts_with(|first: char| first.is_ascii_digit())
        {
            *built = json!(stamp::ansi_c(text));
        }
    }
    server
}

fn text_form(ours: &Value, server: Option<&Value>) -> String {
    let mut out = String::new();
    let mut field = |indent: usize, name: &str, value: &str| {
        let width = 20 - indent;
        out.push_str(&format!(
            "{:indent$}{:<width$}{value}\n",
            "",
            format!("{name}:")
        ));
    };
    field(
        0,
        &format!("Client: {}", text(&ours["Platform"], "Name")).replacen("Client: ", "Client: ", 1),
        "",
    );
    let shown = text(ours, "ApiVersion").to_owned();
    let default = text(ours, "DefaultAPIVersion");
    let api = if shown == default {
        shown
    } else {
        format!("{shown} (downgraded from {default})")
    };
    field(1, "Version", text(ours, "Version"));
    field(1, "API version", &api);
    field(1, "Git commit", text(ours, "GitCommit"));
    field(
        1,
        "OS/Arch",
        &format!("{}/{}", text(ours, "Os"), text(ours, "Arch")),
    );
    field(1, "Context", text(ours, "Context"));
    // The first line has no colon after the platform.
    let mut out = match out.split_once('\n') {
        Some((first, rest)) => format!("{}\n{rest}", first.trim_end().trim_end_matches(':')),
        None => out,
    };
    let Some(server) = server.map(with_details) else {
        return out;
    };
    let platform = text(&server["Platform"], "Name");
    out.push_str(&match platform {
        "" => "\nServer:\n".to_owned(),
        name => format!("\nServer: {name}\n"),
    });
    for component in server["Components"].as_array().into_iter().flatten() {
        out.push_str(&format!(" {}:\n", text(component, "Name")));
        let mut line = |name: &str, value: &str| {
            out.push_str(&format!("  {:<18}{value}\n", format!("{name}:")))
        };
        line("Version", text(component, "Version"));
        let details = &component["Details"];
        if text(component, "Name") == "Engine" {
            line(
                "API version",
                &format!(
                    "{} (minimum version {})",
                    text(details, "ApiVersion"),
                    text(details, "MinAPIVersion")
                ),
            );
            line("Go version", text(details, "GoVersion"));
            line("Git commit", text(details, "GitCommit"));
            line("Built", text(details, "BuildTime"));
            line(
                "OS/Arch",
                &format!("{}/{}", text(details, "Os"), text(details, "Arch")),
            );
            line("Experimental", text(details, "Experimental"));
            continue;
        }
        for (name, value) in details.as_object().into_iter().flatten() {
            line(name, value.as_str().unwrap_or_default());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_dockers_columns() {
        let ours = json!({"Platform": {"Name": "Gantry 1"}, "Version": "28", "ApiVersion": "1.50", "DefaultAPIVersion": "1.51", "GitCommit": "x", "Os": "linux", "Arch": "amd64", "Context": "default"});
        let server = json!({"Platform": {"Name": ""}, "Components": [{"Name": "Engine", "Version": "28.5.2", "Details": {"ApiVersion": "1.51", "MinAPIVersion": "1.24", "BuildTime": "2026-09-15T11:02:57.000000000+00:00", "Os": "linux", "Arch": "amd64", "Experimental": "false", "GitCommit": "g", "GoVersion": "go1"}}, {"Name": "runc", "Version": "1", "Details": {"GitCommit": ""}}]});
        let expected = "Client: Gantry 1\n Version:           28\n API version:       1.50 (downgraded from 1.51)\n Git commit:        x\n OS/Arch:           linux/amd64\n Context:           default\n\nServer:\n Engine:\n  Version:          28.5.2\n  API version:      1.51 (minimum version 1.24)\n  Go version:       go1\n  Git commit:       g\n  Built:            Tue Sep 15 11:02:57 2026\n  OS/Arch:          linux/amd64\n  Experimental:     false\n runc:\n  Version:          1\n  GitCommit:        \n";
        assert_eq!(text_form(&ours, Some(&server)), expected);
    }
}
