//! What goes to registries and comes from them: pull, push, search, login, and what a registry says of an image.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use gantry_api::digest::Digest;
use gantry_api::error::{ApiError, ErrorKind};
use gantry_api::fold;
use gantry_api::image::{AuthConfig, AuthResponse, DistributionInspect, JsonMessage};
use gantry_api::reference::{AnyReference, Reference, parse_any};
use gantry_engine::image::{
    Compression, Credentials, PullOptions, PushOptions, SearchResult, TransferEvent,
};
use hyper::HeaderMap;
use tokio::sync::mpsc;

use super::archive;
use super::image::{json_platform, text_platform};
use crate::convert;
use crate::server::body::Body;
use crate::server::query::quoted;
use crate::server::request::Request;
use crate::server::respond::{self, LINE_END, Reply};

/// The filters of a search.
const SEARCH_FILTERS: &[&str] = &["is-automated", "is-official", "stars"];
/// How many hits a registry is asked for when nobody says so, and at most.
const SEARCH_LIMIT: i64 = 25;
const SEARCH_LIMIT_MAX: i64 = 100;
/// The longest body of a login.
const AUTH_BYTES_MAX: usize = 1 << 20;

/// Pulls an image, or makes one of an archive.
pub async fn create(request: Request) -> Reply {
    if request.query.text("fromImage").is_empty() {
        return archive::import(request).await;
    }
    let platform = text_platform(&request)?;
    let query = &request.query;
    // Old clients name a repository with a colon to mean all its tags.
    let name = query.text("fromImage").trim_end_matches(':');
    let options = PullOptions {
        reference: named(name, query.text("tag"))?,
        platform,
        all_platforms: query.flag("allPlatforms"),
        credentials: credentials(&request.headers),
        headers: for_registry(&request.headers),
    };
    events(request.daemon.engine.pull(options).await?)
}

pub async fn push(request: Request, name: &str) -> Reply {
    let query = &request.query;
    let compression = match query.text("compression") {
        "" | "gzip" => Compression::Gzip,
        "zstd" => Compression::Zstd,
        "none" => Compression::None,
        other => {
            return Err(ApiError::invalid(format!("unknown compression {}", quoted(other))).into());
        }
    };
    let options = PushOptions {
        reference: named(name, query.text("tag"))?,
        platform: json_platform(&request)?,
        all_platforms: query.flag("allPlatforms"),
        compression,
        credentials: credentials(&request.headers),
        headers: for_registry(&request.headers),
    };
    events(request.daemon.engine.push(options).await?)
}

pub async fn search(request: Request) -> Reply {
    let limit = request.query.integer("limit").map_err(|error| {
        ApiError::invalid(format!("invalid limit specified: {}", error.message))
    })?;
    let filters = request.filters(SEARCH_FILTERS)?;
    // Nobody tells any more which images are automated; none is.
    let is_automated = filters.bool_or("is-automated", false)?;
    let is_official = filters.bool_or("is-official", false)?;
    let mut stars_min = 0;
    for stars in filters.get("stars") {
        let stars = stars.parse::<i64>().map_err(|_| {
            ApiError::invalid(format!(
                "invalid filter 'stars={stars}': strconv.Atoi: parsing {}: invalid syntax",
                quoted(stars)
            ))
        })?;
        stars_min = stars_min.max(stars);
    }
    if is_automated {
        return respond::ok::<[(); 0]>(&[]);
    }
    let limit = match limit {
        None | Some(0) => SEARCH_LIMIT,
        Some(limit @ 1..=SEARCH_LIMIT_MAX) => limit,
        Some(limit) => {
            return Err(ApiError::invalid(format!(
                "limit {limit} is outside the range of [1, {SEARCH_LIMIT_MAX}]"
            ))
            .into());
        }
    };
    let term = request.query.text("term");
    let engine = &request.daemon.engine;
    let limit = u32::try_from(limit).unwrap_or_default();
    let found = engine
        .search(
            term,
            limit,
            credentials(&request.headers),
            &for_registry(&request.headers),
        )
        .await?;
    let passes = |one: &SearchResult| {
        (!filters.contains("is-official") || one.is_official == is_official)
            && (!filters.contains("stars") || one.star_count >= stars_min)
    };
    let shown: Vec<_> = found
        .into_iter()
        .filter(passes)
        .map(convert::transfer::search_result)
        .collect();
    respond::ok(&shown)
}

/// Checks the credentials in the body.
pub async fn login(mut request: Request) -> Reply {
    let body = request.bytes(AUTH_BYTES_MAX).await?;
    // Docker reads this body by itself, so that what is wrong with it is the server's fault.
    let wrong = |text: String| ApiError::new(ErrorKind::System, text);
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(wrong("EOF".to_owned()).into());
    }
    let auth: AuthConfig = fold::from_slice(&body).map_err(|error| wrong(error.to_string()))?;
    let server = auth.serveraddress.clone();
    let engine = &request.daemon.engine;
    let login = engine
        .login(&server, convert::transfer::credentials(auth))
        .await?;
    respond::ok(&AuthResponse {
        identity_token: login.identity_token,
        status: login.status,
    })
}

pub async fn distribution(request: Request, name: &str) -> Reply {
    let reference = match parse_any(name) {
        Ok(AnyReference::Named(reference)) => reference.or_latest(),
        Ok(AnyReference::Id(_)) => {
            let text = "no manifest found for full image ID";
            return Err(ApiError::new(ErrorKind::System, text).into());
        }
        Err(error) => return Err(ApiError::invalid(error.to_string()).into()),
    };
    let engine = &request.daemon.engine;
    let (descriptor, platforms) = engine
        .distribution_inspect(&reference, credentials(&request.headers))
        .await?;
    respond::ok(&DistributionInspect {
        descriptor: Some(descriptor),
        platforms: Some(platforms),
    })
}

/// Reads a name and a tag, which may be a digest.
fn named(name: &str, tag: &str) -> Result<Reference, ApiError> {
    let reference: Reference =
        name.parse()
            .map_err(|error: gantry_api::reference::ReferenceError| {
                ApiError::invalid(error.to_string())
            })?;
    if tag.is_empty() {
        return Ok(reference);
    }
    if let Ok(digest) = tag.parse::<Digest>() {
        return Ok(reference.with_digest(digest));
    }
    reference
        .with_tag(tag)
        .map_err(|_| ApiError::invalid("invalid tag format"))
}

/// Reads the header with the user's credentials. A bad one is no credentials, as for Docker: what needs them says so.
fn credentials(headers: &HeaderMap) -> Credentials {
    headers
        .get("x-registry-auth")
        .and_then(|value| URL_SAFE.decode(value.as_bytes()).ok())
        .and_then(|json| fold::from_slice(&json).ok())
        .map(convert::transfer::credentials)
        .unwrap_or_default()
}

/// Collects the headers that a pull, a push or a search passes on to the registry.
fn for_registry(headers: &HeaderMap) -> Vec<(String, String)> {
    let own = headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-meta-"));
    own.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect()
}

/// Answers with the events of a transfer; the connection's end drops them, which cancels.
fn events(mut events: mpsc::Receiver<gantry_engine::Result<TransferEvent>>) -> Reply {
    let body = Body::stream(move |cx| {
        events.poll_recv(cx).map(|event| {
            let message = match event? {
                Ok(event) => convert::transfer::message(event),
                Err(error) => JsonMessage::from_error(&error.to_string()),
            };
            Some(Ok(respond::json_line(&message, LINE_END)))
        })
    });
    respond::stream("application/json", body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, tag: &str) -> String {
        named(name, tag).map_or_else(|error| error.message, |reference| reference.canonical())
    }

    #[test]
    fn names_and_tags() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(check("busybox", ""), "docker.io/library/busybox");
        assert_eq!(check("r.example/a", "1"), "r.example/a:1");
        assert_eq!(check("r.example/a:1", "2"), "r.example/a:2");
        assert_eq!(
            check("r.example/a", &digest),
            format!("r.example/a@{digest}")
        );
        assert_eq!(check("r.example/a", "-x"), "invalid tag format");
        assert_eq!(
            check("UPPER", "1"),
            "invalid reference format: repository name (library/UPPER) must be lowercase"
        );
    }

    #[test]
    fn bad_credentials_are_none() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-registry-auth", value.parse().unwrap());
            credentials(&headers)
        };
        assert_eq!(of("!!!"), Credentials::default());
        assert_eq!(of("e30="), Credentials::default());
        let alice = of("eyJ1c2VybmFtZSI6ImFsaWNlIiwicGFzc3dvcmQiOiJwIn0=");
        assert_eq!(
            (alice.username.as_str(), alice.password.as_str()),
            ("alice", "p")
        );
    }
}
