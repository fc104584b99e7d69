//! Images that are here: list, inspect, history, tag, remove, prune.

use gantry_api::error::ApiError;
use gantry_api::image::ImagesPruneReport;
use gantry_api::platform::Platform;
use gantry_engine::image::{Image, RemoveOptions};
use hyper::StatusCode;

use crate::convert;
use crate::server::request::Request;
use crate::server::respond::{self, Failure, Reply};

const LIST_FILTERS: &[&str] = &["before", "dangling", "label", "reference", "since", "until"];
const PRUNE_FILTERS: &[&str] = &["dangling", "label", "label!", "until"];

pub async fn list(request: Request) -> Reply {
    let filters = convert::filters(&request.filters(LIST_FILTERS)?);
    let engine = &request.daemon.engine;
    // What is shared can be asked for since 1.42.
    let shared_size = request.query.flag("shared-size") && !request.version.is_before(42);
    let images = engine
        .images(&filters, request.query.flag("all"), shared_size)
        .await?;
    let counts = (!request.version.is_before(51)).then(|| engine.containers_of_images());
    let images: Vec<_> = images
        .iter()
        .map(|one| convert::image::summary(one, counts.as_ref(), request.version))
        .collect();
    respond::ok(&images)
}

pub async fn inspect(request: Request, name: &str) -> Reply {
    let image = of_platform(&request, name).await?;
    respond::ok(&convert::image::inspect(&image, request.version))
}

pub async fn history(request: Request, name: &str) -> Reply {
    of_platform(&request, name).await?;
    let history = request.daemon.engine.history(name).await?;
    respond::ok(
        &history
            .iter()
            .map(convert::image::history)
            .collect::<Vec<_>>(),
    )
}

pub async fn tag(request: Request, name: &str) -> Reply {
    let (repository, tag) = (request.query.text("repo"), request.query.text("tag"));
    let target = if tag.is_empty() {
        repository.to_owned()
    } else {
        format!("{repository}:{tag}")
    };
    request.daemon.engine.tag(name, &target).await?;
    respond::status(StatusCode::CREATED)
}

pub async fn remove(request: Request, name: &str) -> Reply {
    if name.trim().is_empty() {
        return Err(ApiError::invalid("image name cannot be blank").into());
    }
    if !request.version.is_before(50) {
        // There is one platform here, and it goes with the image.
        let mut platforms = request.query.all("platforms");
        if let Some(text) = platforms.next() {
            if platforms.next().is_some() {
                return Err(ApiError::invalid("multiple platforms are not supported").into());
            }
            let wanted = parse_platform(text)?;
            must_match(&*request.daemon.engine.image(name).await?, name, &wanted)?;
        }
    }
    let options = RemoveOptions {
        force: request.query.flag("force"),
        no_prune: request.query.flag("noprune"),
    };
    let removed = request.daemon.engine.remove_image(name, options).await?;
    respond::ok(
        &removed
            .iter()
            .map(convert::image::removed)
            .collect::<Vec<_>>(),
    )
}

pub async fn prune(request: Request) -> Reply {
    let filters = convert::filters(&request.filters(PRUNE_FILTERS)?);
    let pruned = request.daemon.engine.prune_images(&filters).await?;
    let deleted: Vec<_> = pruned.removed.iter().map(convert::image::removed).collect();
    respond::ok(&ImagesPruneReport {
        images_deleted: (!deleted.is_empty()).then_some(deleted),
        space_reclaimed: pruned.reclaimed_bytes,
    })
}

/// Finds an image, which must be of the parameter `platform` if that is given.
async fn of_platform(request: &Request, name: &str) -> Result<std::sync::Arc<Image>, Failure> {
    let image = request.daemon.engine.image(name).await?;
    if let Some(wanted) = json_platform(request)? {
        must_match(&image, name, &wanted)?;
    }
    Ok(image)
}

fn must_match(image: &Image, name: &str, wanted: &Platform) -> Result<(), ApiError> {
    let own = image.config().platform();
    if wanted.matches(&own) {
        return Ok(());
    }
    Err(ApiError::not_found(format!(
        "image with reference {name} was found but its platform ({own}) does not match the specified platform ({wanted})"
    )))
}

/// Reads the parameter `platform` where it is a JSON object; the first counts.
pub fn json_platform(request: &Request) -> Result<Option<Platform>, ApiError> {
    let platform = request.query.non_empty("platform");
    platform.map(parse_platform).transpose()
}

/// As [`json_platform`]; several of them are refused.
pub fn only_platform(request: &Request) -> Result<Option<Platform>, ApiError> {
    let platforms = request.query.all("platform");
    if platforms.filter(|text| !text.is_empty()).count() > 1 {
        return Err(ApiError::invalid(
            "multiple platform parameters not supported",
        ));
    }
    json_platform(request)
}

fn parse_platform(json: &str) -> Result<Platform, ApiError> {
    serde_json::from_str(json)
        .map_err(|error| ApiError::invalid(format!("failed to parse platform: {error}")))
}

/// Reads the parameter `platform` where it is a text.
pub fn text_platform(request: &Request) -> Result<Option<Platform>, ApiError> {
    request
        .query
        .non_empty("platform")
        .map(|text| {
            text.parse::<Platform>()
                .map_err(|error| ApiError::invalid(error.to_string()))
        })
        .transpose()
}
