//! Lists, in pages: repositories, tags, referrers.

use super::{Body, Call, blocking, json, set};
use crate::error::{Code, Error, Result};
use crate::name::Name;
use gantry_api::digest::Digest;
use gantry_api::oci::image::media_type;
use hyper::header::{CONTENT_TYPE, LINK};
use hyper::{Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json as value};
use std::sync::Arc;

/// How many names a page has at most.
const PAGE_MAX: usize = 1000;
/// How many repositories a page has if the client does not say.
const CATALOG_PAGE: usize = 100;
/// How many bytes of descriptors a page of referrers has: clients take no larger manifest.
const REFERRERS_BYTES: usize = 3 << 20;

/// GET of all repositories that the client may pull from.
pub async fn catalog(call: &Call) -> Result<Response<Body>> {
    if !call.registry.auth.may_catalog(&call.caller) {
        return Err(Code::Unauthorized.into());
    }
    let store = Arc::clone(&call.registry.store);
    let names = blocking(move || store.catalog()).await?;
    let names = names
        .iter()
        .filter(|name| call.registry.auth.may_list(&call.caller, name))
        .map(|name| name.as_str().to_owned())
        .collect();
    let (page, next) = page(call, names, Some(CATALOG_PAGE), "/v2/_catalog")?;
    let mut response = json(StatusCode::OK, &value!({ "repositories": page }));
    if let Some(next) = next {
        set(&mut response, LINK, &next);
    }
    Ok(response)
}

/// GET of a repository's tags.
pub async fn tags(call: &Call, name: &Name, is_cached: bool) -> Result<Response<Body>> {
    let registry = &call.registry;
    let tags = match (&registry.cache, is_cached) {
        (Some(cache), true) => cache.tags(registry, name).await?,
        _ => {
            let (store, name) = (Arc::clone(&registry.store), name.clone());
            blocking(move || store.tags(&name)).await?
        }
    };
    let (page, next) = page(call, tags, None, &format!("/v2/{name}/tags/list"))?;
    let mut response = json(
        StatusCode::OK,
        &value!({ "name": name.as_str(), "tags": page }),
    );
    if let Some(next) = next {
        set(&mut response, LINK, &next);
    }
    Ok(response)
}

/// Cuts a sorted list to the page that the client wants; gives the link to the next one.
fn page(
    call: &Call,
    mut names: Vec<String>,
    default: Option<usize>,
    path: &str,
) -> Result<(Vec<String>, Option<String>)> {
    let count = match call.query.get("n") {
        None | Some("") => default,
        Some(text) => Some(
            text.parse::<usize>()
                .map_err(|_| Error::new(Code::PageInvalid, value!({ "n": text })))?
                .min(PAGE_MAX),
        ),
    };
    if let Some(last) = call.query.get("last").filter(|last| !last.is_empty()) {
        names.retain(|name| name.as_str() > last);
    }
    let Some(count) = count.filter(|count| *count < names.len()) else {
        return Ok((names, None));
    };
    names.truncate(count);
    let next = names.last().map(|last| {
        let last = utf8_percent_encode(last, NON_ALPHANUMERIC);
        format!("<{path}?last={last}&n={count}>; rel=\"next\"")
    });
    Ok((names, next))
}

/// GET of what refers to a manifest.
pub async fn referrers(
    call: &Call,
    name: &Name,
    subject: &Digest,
    is_cached: bool,
) -> Result<Response<Body>> {
    let registry = &call.registry;
    let mut manifests = match (&registry.cache, is_cached) {
        (Some(cache), true) => cache.referrers(registry, name, subject).await?,
        _ => {
            let (store, name, subject) =
                (Arc::clone(&registry.store), name.clone(), subject.clone());
            blocking(move || store.referrers(&name, &subject)).await?
        }
    };
    let wanted = call
        .query
        .get("artifactType")
        .filter(|text| !text.is_empty());
    if let Some(wanted) = wanted {
        manifests.retain(|descriptor| descriptor["artifactType"] == *wanted);
    }
    if let Some(last) = call.query.get("last") {
        manifests.retain(|descriptor| {
            descriptor["digest"]
                .as_str()
                .is_some_and(|digest| digest > last)
        });
    }
    let mut bytes = 0;
    let fitting = manifests
        .iter()
        .take_while(|descriptor| {
            bytes += descriptor.to_string().len();
            bytes <= REFERRERS_BYTES
        })
        .count()
        .max(1);
    let next = (fitting < manifests.len()).then(|| {
        manifests.truncate(fitting);
        let last = manifests
            .last()
            .and_then(|descriptor| descriptor["digest"].as_str())
            .unwrap_or_default();
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let filter = wanted
            .map(|wanted| format!("&artifactType={}", encode(wanted)))
            .unwrap_or_default();
        format!(
            "</v2/{name}/referrers/{subject}?last={}{filter}>; rel=\"next\"",
            encode(last)
        )
    });
    let index = value!({
        "schemaVersion": 2,
        "mediaType": media_type::INDEX,
        "manifests": Value::Array(manifests),
    });
    let mut response = json(StatusCode::OK, &index);
    set(&mut response, CONTENT_TYPE, media_type::INDEX);
    if wanted.is_some() {
        set(&mut response, "oci-filters-applied", "artifactType");
    }
    if let Some(next) = next {
        set(&mut response, LINK, &next);
    }
    Ok(response)
}
