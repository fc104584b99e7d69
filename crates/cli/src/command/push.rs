//! `push`.

use crate::cli::Cli;
use crate::command::image::{image_path, platform_json};
use crate::command::pull::named;
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::{note, output, progress, terminal};
use gantry_api::platform::{Platform, PlatformError};
use gantry_client::{Query, Request, credentials};

const PLATFORM_NOTE: [&str; 4] = [
    "Using `--platform` pushes only the specified platform manifest of a multi-platform image index.",
    "Other components, like attestations, will not be included.",
    "To push the complete multi-platform image, remove the `--platform` flag.",
    "",
];

/// Runs `push`.
pub async fn push(cli: &Cli, matches: &Matches) -> Outcome {
    cli.refuse_content_trust(matches)?;
    let platform = match matches.text("platform") {
        text if text.is_empty() => None,
        text => {
            let parsed: Result<Platform, PlatformError> = text.parse();
            parsed.map_err(|error| Failure::new(format!("Invalid platform {text}{error}")))?;
            output::out(&note::info(&PLATFORM_NOTE, terminal::output_is_terminal()));
            Some(platform_json(&text)?)
        }
    };
    let (all, quiet) = (matches.on("all-tags"), matches.on("quiet"));
    let reference = named(&matches.arguments[0], all, quiet)?;
    if reference.digest().is_some() {
        return Err(Failure::new("cannot push a digest reference"));
    }
    let compression = matches.text("compression");
    let query = Query::new()
        .when(!all, "tag", reference.tag().unwrap_or_default())
        .when(platform.is_some(), "platform", platform.unwrap_or_default())
        .when(matches.on("all-platforms"), "allPlatforms", "1")
        .when(!compression.is_empty(), "compression", compression);
    let server = credentials::server_key(reference.domain());
    let request = Request::post(image_path(&reference.name(), "/push"))
        .query(query)
        .header("x-registry-auth", cli.registry_auth(server));
    let response = cli.client()?.send(request).await?;
    if !quiet {
        return progress::show(response, false).await;
    }
    progress::drain(response).await?;
    output::line(&reference.canonical());
    Ok(())
}
