//! `pull`, and the pull of a missing image by `run` and `create`.

use crate::cli::Cli;
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::{output, progress};
use gantry_api::reference::{self, AnyReference, Reference};
use gantry_client::{Client, Query, Request};

/// Runs `pull`.
pub async fn command(cli: &Cli, matches: &Matches) -> Outcome {
    cli.refuse_content_trust(matches)?;
    let name = &matches.arguments[0];
    let reference = parsed(name)?;
    let all = matches.on("all-tags");
    if all && !reference.is_name_only() {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    let quiet = matches.on("quiet");
    if !all && reference.is_name_only() && !quiet {
        output::line("Using default tag: latest");
    }
    let platform = matches
        .get("platform")
        .map(str::to_owned)
        .or_else(|| std::env::var("DOCKER_DEFAULT_PLATFORM").ok())
        .filter(|platform| !platform.is_empty());
    let reference = if all {
        reference
    } else {
        reference.or_latest()
    };
    request(cli.client()?, &reference, platform.as_deref(), quiet, false).await?;
    let tag = reference
        .tag()
        .map(|tag| format!(":{tag}"))
        .unwrap_or_default();
    let digest = reference
        .digest()
        .map(|digest| format!("@{}", digest.as_str()))
        .unwrap_or_default();
    output::line(&format!("{}{tag}{digest}", reference.name()));
    Ok(())
}

/// Pulls an image that a command needs; progress goes to standard error if asked for.
pub async fn pull(
    client: &Client,
    name: &str,
    platform: Option<&str>,
    quiet: bool,
    to_error: bool,
) -> Outcome {
    request(
        client,
        &parsed(name)?.or_latest(),
        platform,
        quiet,
        to_error,
    )
    .await
}

fn parsed(name: &str) -> Outcome<Reference> {
    match reference::parse_any(name) {
        Ok(AnyReference::Named(reference)) => Ok(reference),
        Ok(_) => Err(Failure::new(format!(
            "invalid reference format: {name} is an image ID"
        ))),
        Err(error) => Err(Failure::new(error.to_string())),
    }
}

async fn request(
    client: &Client,
    reference: &Reference,
    platform: Option<&str>,
    quiet: bool,
    to_error: bool,
) -> Outcome {
    let tag = reference
        .digest()
        .map(|digest| digest.as_str())
        .or(reference.tag());
    let query = Query::new()
        .with("fromImage", reference.name())
        .when(
            platform.is_some(),
            "platform",
            platform.unwrap_or_default().to_lowercase(),
        )
        .when(tag.is_some(), "tag", tag.unwrap_or_default());
    // `e30=` is the empty object: no credentials.
    let request = Request::post("/images/create")
        .query(query)
        .header("x-registry-auth", "e30=");
    let response = client.send(request).await?;
    if quiet {
        progress::drain(response).await
    } else {
        progress::show(response, to_error).await
    }
}
