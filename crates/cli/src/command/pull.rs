//! `pull`, and the pull of a missing image by `run` and `create`.

use crate::cli::Cli;
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::{output, progress};
use gantry_api::reference::Reference;
use gantry_client::{Query, Request, credentials};

/// What to pull.
struct Pull<'a> {
    /// A name alone means all its tags.
    reference: &'a Reference,
    platform: Option<&'a str>,
    all_platforms: bool,
    quiet: bool,
    /// Whether progress goes to standard error.
    to_error: bool,
}

/// Runs `pull`.
pub async fn command(cli: &Cli, matches: &Matches) -> Outcome {
    cli.refuse_content_trust(matches)?;
    let quiet = matches.on("quiet");
    let reference = named(&matches.arguments[0], matches.on("all-tags"), quiet)?;
    let platform = matches
        .get("platform")
        .map(str::to_owned)
        .or_else(|| std::env::var("DOCKER_DEFAULT_PLATFORM").ok())
        .filter(|platform| !platform.is_empty());
    let pull = Pull {
        reference: &reference,
        platform: platform.as_deref(),
        all_platforms: matches.on("all-platforms"),
        quiet,
        to_error: false,
    };
    request(cli, pull).await?;
    output::line(&reference.canonical());
    Ok(())
}

/// Pulls an image that a command needs; its progress goes to standard error.
pub async fn pull(cli: &Cli, name: &str, platform: Option<&str>, quiet: bool) -> Outcome {
    let reference = parsed(name)?.or_latest();
    let pull = Pull {
        reference: &reference,
        platform,
        all_platforms: false,
        quiet,
        to_error: true,
    };
    request(cli, pull).await
}

/// Reads the name of a pull or a push. Without a tag and `--all-tags` it means `latest`, and that is said.
pub fn named(name: &str, all_tags: bool, quiet: bool) -> Outcome<Reference> {
    let reference = parsed(name)?;
    match (all_tags, reference.is_name_only()) {
        (true, false) => Err(Failure::new("tag can't be used with --all-tags/-a")),
        (true, true) => Ok(reference),
        (false, true) => {
            if !quiet {
                output::line("Using default tag: latest");
            }
            Ok(reference.or_latest())
        }
        (false, false) => Ok(reference),
    }
}

fn parsed(name: &str) -> Outcome<Reference> {
    name.parse()
        .map_err(|error: gantry_api::reference::ReferenceError| Failure::new(error.to_string()))
}

async fn request(cli: &Cli, pull: Pull<'_>) -> Outcome {
    let Pull {
        reference,
        platform,
        all_platforms,
        quiet,
        to_error,
    } = pull;
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
        .when(tag.is_some(), "tag", tag.unwrap_or_default())
        .when(all_platforms, "allPlatforms", "1");
    let server = credentials::server_key(reference.domain());
    let request = Request::post("/images/create")
        .query(query)
        .header("x-registry-auth", cli.registry_auth(server));
    let response = cli.client()?.send(request).await?;
    if quiet {
        progress::drain(response).await
    } else {
        progress::show(response, to_error).await
    }
}
