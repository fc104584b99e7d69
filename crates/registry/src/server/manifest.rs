//! Reading, writing and deleting manifests and tags.

use super::pace::Pace;
use super::{Body, Call, blocking, set, status};
use crate::error::{Code, Error, Result};
use crate::name::{self, Name, Reference};
use crate::store::{PutManifest, StoredManifest};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, WARNING};
use hyper::{Method, Response, StatusCode};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// GET and HEAD of a manifest.
pub async fn get(
    call: &Call,
    name: &Name,
    reference: &Reference,
    is_cached: bool,
) -> Result<Response<Body>> {
    let registry = &call.registry;
    let (stored, warning): (StoredManifest, Option<String>) = match (&registry.cache, is_cached) {
        (Some(cache), true) => cache.manifest(registry, name, reference).await?,
        _ => {
            let store = Arc::clone(&registry.store);
            let (name, reference) = (name.clone(), reference.clone());
            (
                blocking(move || store.manifest(&name, &reference)).await?,
                None,
            )
        }
    };
    let etag = format!("\"{}\"", stored.digest);
    let is_known = call
        .header(IF_NONE_MATCH)
        .is_some_and(|known| known.contains(&etag));
    let mut response = if is_known && call.method == Method::GET {
        status(StatusCode::NOT_MODIFIED)
    } else {
        let mut response = Response::new(Body::whole(stored.bytes));
        set(&mut response, CONTENT_TYPE, &stored.media_type);
        response
    };
    set(
        &mut response,
        "docker-content-digest",
        stored.digest.as_str(),
    );
    set(&mut response, ETAG, &etag);
    if let Some(warning) = warning {
        set(&mut response, WARNING, &format!("299 - \"{warning}\""));
    }
    Ok(response)
}

/// PUT of a manifest under a tag, or under its digest with any number of tags.
pub async fn put(
    call: &Call,
    name: &Name,
    reference: &Reference,
    body: &mut Incoming,
) -> Result<Response<Body>> {
    let limits = call.registry.options.limits;
    let tags = call
        .query
        .all("tag")
        .map(name::tag)
        .collect::<Result<Vec<_>>>()?;
    let bytes = collect(call, body, limits.manifest_bytes).await?;
    let put = PutManifest {
        reference: reference.clone(),
        content_type: call.header(CONTENT_TYPE).map(str::to_owned),
        tags: tags.clone(),
        bytes,
        is_checked: !call.registry.options.is_sparse,
        adopt: call.adopt(name),
    };
    let (store, repository) = (Arc::clone(&call.registry.store), name.clone());
    let written = blocking(move || store.put_manifest(&repository, &put)).await?;
    let mut response = status(StatusCode::CREATED);
    let location = format!("/v2/{name}/manifests/{}", written.digest);
    set(&mut response, LOCATION, &location);
    set(
        &mut response,
        "docker-content-digest",
        written.digest.as_str(),
    );
    if let Some(subject) = &written.subject {
        set(&mut response, "oci-subject", subject.as_str());
    }
    if !tags.is_empty() {
        set(&mut response, "oci-tag", &tags.join(", "));
    }
    set(&mut response, "content-length", "0");
    Ok(response)
}

/// DELETE of a tag, or of a manifest with all its tags.
pub async fn delete(call: &Call, name: &Name, reference: &Reference) -> Result<Response<Body>> {
    let store = Arc::clone(&call.registry.store);
    let (name, reference) = (name.clone(), reference.clone());
    blocking(move || store.delete_manifest(&name, &reference)).await?;
    let mut response = status(StatusCode::ACCEPTED);
    set(&mut response, "content-length", "0");
    Ok(response)
}

/// Takes a small body whole.
pub async fn collect(call: &Call, body: &mut Incoming, bytes_max: usize) -> Result<Vec<u8>> {
    let mut pace = Pace::new(&call.registry.options.limits);
    call.is_body_read.store(true, Ordering::Relaxed);
    let mut bytes = Vec::new();
    while let Some(data) = pace.next(body).await? {
        if bytes.len() + data.len() > bytes_max {
            let detail = serde_json::json!({ "limit": bytes_max });
            return Err(Error::new(Code::TooLarge, detail));
        }
        call.registry
            .metrics
            .bytes_received
            .fetch_add(data.len() as u64, Ordering::Relaxed);
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}
