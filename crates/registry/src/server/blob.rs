//! Reading and deleting blobs.

use super::route::range;
use super::{Body, Call, blocking, set, status};
use crate::cache::{Coming, Want};
use crate::error::{Code, Error, Result};
use crate::name::Name;
use gantry_api::digest::Digest;
use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RANGE,
};
use hyper::{Method, Response, StatusCode};
use std::fs::File;
use std::sync::Arc;

/// GET and HEAD of a blob.
pub async fn get(
    call: &Call,
    name: &Name,
    digest: &Digest,
    is_cached: bool,
) -> Result<Response<Body>> {
    let registry = &call.registry;
    let etag = format!("\"{digest}\"");
    let source = match (&registry.cache, is_cached) {
        (Some(cache), true) => {
            let want = match call.method {
                Method::HEAD => Want::Head,
                _ => Want::Body,
            };
            cache.blob(registry, name, digest, want).await?
        }
        _ => {
            let adopt = call.adopt(name);
            let (store, name, digest) = (Arc::clone(&registry.store), name.clone(), digest.clone());
            let is_head = call.method == Method::HEAD;
            blocking(move || {
                if is_head {
                    let size = store.blob_size(&name, &digest, adopt)?;
                    return Ok::<_, Error>(Source::size(size));
                }
                let (file, size) = store.open_blob(&name, &digest)?;
                Ok(Source::file(file, size))
            })
            .await?
        }
    };
    if call
        .header(IF_NONE_MATCH)
        .is_some_and(|known| known.contains(&etag))
    {
        let mut response = status(StatusCode::NOT_MODIFIED);
        set(&mut response, ETAG, &etag);
        return Ok(response);
    }
    let size = source.size;
    let part = match call.header(RANGE) {
        Some(header) if call.method == Method::GET => match range(header, size) {
            Ok(part) => part,
            Err(error) => {
                let error = Error::new(error.code, serde_json::json!({ "size": size }));
                return Ok(unsatisfiable(&error, size));
            }
        },
        _ => None,
    };
    let (from, length) = part.map_or((0, size), |part| (part.from, part.length));
    let body = match (source.file, source.coming) {
        (Some(file), _) => Body::file(file, from, length),
        (None, Some(coming)) => coming.body(from, length),
        // HEAD: only the length is told.
        (None, None) => Body::length_only(length),
    };
    let mut response = Response::new(body);
    if part.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let text = format!("bytes {from}-{}/{size}", from + length - 1);
        set(&mut response, CONTENT_RANGE, &text);
    }
    set(&mut response, CONTENT_TYPE, "application/octet-stream");
    set(&mut response, ACCEPT_RANGES, "bytes");
    set(&mut response, "docker-content-digest", digest.as_str());
    set(&mut response, ETAG, &etag);
    // What a digest stands for never changes.
    set(&mut response, CACHE_CONTROL, "max-age=31536000");
    Ok(response)
}

/// Is where a blob's bytes come from: nowhere for HEAD.
pub struct Source {
    size: u64,
    file: Option<File>,
    coming: Option<Coming>,
}

impl Source {
    /// Has the size alone.
    pub const fn size(size: u64) -> Self {
        Self {
            size,
            file: None,
            coming: None,
        }
    }

    /// Has a whole file.
    pub const fn file(file: File, size: u64) -> Self {
        Self {
            size,
            file: Some(file),
            coming: None,
        }
    }

    /// Has a file that grows.
    pub fn coming(coming: Coming) -> Self {
        Self {
            size: coming.size,
            file: None,
            coming: Some(coming),
        }
    }
}

fn unsatisfiable(error: &Error, size: u64) -> Response<Body> {
    let mut response = super::json(StatusCode::RANGE_NOT_SATISFIABLE, &error.body());
    set(&mut response, CONTENT_RANGE, &format!("bytes */{size}"));
    response
}

/// DELETE of a blob.
pub async fn delete(call: &Call, name: &Name, digest: &Digest) -> Result<Response<Body>> {
    let store = Arc::clone(&call.registry.store);
    let (name, digest) = (name.clone(), digest.clone());
    blocking(move || store.delete_blob(&name, &digest)).await?;
    let mut response = status(StatusCode::ACCEPTED);
    set(&mut response, "content-length", "0");
    Ok(response)
}

/// Gives the address of a blob.
pub fn location(name: &Name, digest: &Digest) -> String {
    format!("/v2/{name}/blobs/{digest}")
}

/// Refuses a digest that is not said.
pub fn digest_parameter(call: &Call) -> Result<Digest> {
    let text = call.query.get("digest").ok_or(Code::DigestInvalid)?;
    crate::name::digest(text)
}
