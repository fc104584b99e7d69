//! Receiving blobs: in one request, in two, in pieces, or from another repository.
//!
//! A body is read here and written and hashed by one thread of the pool, with a short queue between them; a client that
//! goes away leaves what came.

use super::blob::{digest_parameter, location};
use super::pace::Pace;
use super::route::{Part, content_range};
use super::{Body, Call, blocking, set};
use crate::auth::access::Action;
use crate::error::{Code, Error, Result};
use crate::hash::Algorithm;
use crate::metrics::Gauge;
use crate::name::{self, Name};
use crate::store::Store;
use bytes::Bytes;
use gantry_api::digest::Digest;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_RANGE, HeaderName, LOCATION, RANGE};
use hyper::{Response, StatusCode};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

/// How many pieces of a body wait for the disk.
const QUEUE: usize = 8;

/// Is what a request does with an upload once its body is there.
#[derive(Clone)]
enum Then {
    Pause,
    Commit(Digest),
}

/// Is a piece of a body, or its good end: a queue that closes without it was cut.
enum Piece {
    Data(Bytes),
    End,
}

/// POST: a mount, a whole blob, or the begin of an upload.
pub async fn begin(call: &Call, name: &Name, body: &mut Incoming) -> Result<Response<Body>> {
    let registry = &call.registry;
    if let Some(text) = call.query.get("mount") {
        let digest = name::digest(text)?;
        if mount(call, name, &digest).await? {
            return Ok(created(name, &digest));
        }
    }
    let digest = match call.query.get("digest") {
        Some(_) => Some(digest_parameter(call)?),
        None => None,
    };
    let algorithm = match (&digest, call.query.get("digest-algorithm")) {
        (Some(digest), _) => Algorithm::by_name(digest.algorithm()),
        (None, None) => Some(Algorithm::Sha256),
        (None, Some(name)) => Algorithm::by_name(name),
    };
    let algorithm = algorithm.ok_or_else(|| {
        let detail = json!({ "reason": "the digest's algorithm is not supported" });
        Error::new(Code::DigestInvalid, detail)
    })?;
    let (store, repository) = (Arc::clone(&registry.store), name.clone());
    let uploads_open = registry.options.limits.uploads_open;
    let id = blocking(move || {
        if store.uploads()? >= uploads_open {
            return Err(Error::from(Code::TooManyRequests));
        }
        store.begin_upload(&repository, algorithm)
    })
    .await?;
    let Some(digest) = digest else {
        return Ok(accepted(StatusCode::ACCEPTED, name, &id, 0));
    };
    let received = receive(call, name, &id, None, body, Then::Commit(digest.clone())).await;
    if let Err(error) = received {
        // The client does not know the upload's address, so nobody would go on with it.
        let (store, name) = (Arc::clone(&registry.store), name.clone());
        let _ = blocking(move || store.open_upload(&name, &id)?.discard()).await;
        return Err(error);
    }
    Ok(created(name, &digest))
}

async fn mount(call: &Call, name: &Name, digest: &Digest) -> Result<bool> {
    let registry = Arc::clone(&call.registry);
    let said = match call.query.get("from").filter(|from| !from.is_empty()) {
        Some(from) => Some(Name::parse(from)?),
        None => None,
    };
    if let Some(from) = &said
        && !call.may(from, Action::Pull)
    {
        // Nor from anywhere else: what he named is not his to have.
        return Ok(false);
    }
    let (caller, adopt) = (call.caller.clone(), call.adopt(name));
    let (name, digest) = (name.clone(), digest.clone());
    blocking(move || {
        let store = &registry.store;
        let from = match said {
            Some(from) => Some(from),
            None => store.holder(&digest, |from| {
                registry.auth.may(&caller, from, Action::Pull)
            })?,
        };
        if let Some(from) = from
            && store.mount(&name, &digest, &from)?
        {
            return Ok(true);
        }
        // What the engine beside has needs no upload either.
        match store.blob_size(&name, &digest, adopt) {
            Ok(_) => Ok(true),
            Err(error) if error.code == Code::BlobUnknown => Ok(false),
            Err(error) => Err(error),
        }
    })
    .await
}

/// GET: how far an upload is.
pub async fn status(call: &Call, name: &Name, id: &str) -> Result<Response<Body>> {
    let (store, repository, upload) = (
        Arc::clone(&call.registry.store),
        name.clone(),
        id.to_owned(),
    );
    let status = blocking(move || store.upload_status(&repository, &upload)).await?;
    Ok(accepted(StatusCode::NO_CONTENT, name, id, status.bytes))
}

/// PATCH: a piece.
pub async fn patch(
    call: &Call,
    name: &Name,
    id: &str,
    body: &mut Incoming,
) -> Result<Response<Body>> {
    let range = piece_range(call, body)?;
    let bytes = receive(call, name, id, range, body, Then::Pause).await?;
    Ok(accepted(StatusCode::ACCEPTED, name, id, bytes))
}

/// PUT: the last piece, or none, and the digest of all.
pub async fn put(
    call: &Call,
    name: &Name,
    id: &str,
    body: &mut Incoming,
) -> Result<Response<Body>> {
    let digest = digest_parameter(call)?;
    let range = piece_range(call, body)?;
    receive(call, name, id, range, body, Then::Commit(digest.clone())).await?;
    Ok(created(name, &digest))
}

/// DELETE: gives an upload up.
pub async fn cancel(call: &Call, name: &Name, id: &str) -> Result<Response<Body>> {
    let (store, name, id) = (
        Arc::clone(&call.registry.store),
        name.clone(),
        id.to_owned(),
    );
    blocking(move || store.open_upload(&name, &id)?.discard()).await?;
    Ok(super::status(StatusCode::NO_CONTENT))
}

/// Reads the `Content-Range` of a piece and compares it with the body's length.
fn piece_range(call: &Call, body: &Incoming) -> Result<Option<Part>> {
    let Some(header) = call.header(CONTENT_RANGE) else {
        return Ok(None);
    };
    let length = body.size_hint().exact();
    // Clients send one with an empty last piece too; it has no range then.
    if length == Some(0) {
        return Ok(None);
    }
    let part = content_range(header)?;
    if length.is_some_and(|length| length != part.length) {
        let detail = json!({ "range": header, "length": length });
        return Err(Error::new(Code::SizeInvalid, detail));
    }
    Ok(Some(part))
}

/// Receives a body into an upload; gives how many bytes it has now.
async fn receive(
    call: &Call,
    name: &Name,
    id: &str,
    range: Option<Part>,
    body: &mut Incoming,
    then: Then,
) -> Result<u64> {
    let registry = &call.registry;
    let _place = registry
        .receiving
        .try_acquire()
        .map_err(|_| Error::from(Code::TooManyRequests))?;
    let _gauge = Gauge::hold(&registry.metrics.receiving);
    call.is_body_read.store(true, Ordering::Relaxed);
    let limits = registry.options.limits;
    let (pieces, queue) = mpsc::channel(QUEUE);
    let writing = {
        let (store, name, id) = (Arc::clone(&registry.store), name.clone(), id.to_owned());
        tokio::task::spawn_blocking(move || {
            write(&store, &name, &id, range, limits.blob_bytes, queue, then)
        })
    };
    let cut = forward(body, pieces, Pace::new(&limits), registry).await;
    let written = match writing.await {
        Ok(written) => written,
        Err(error) => Err(Error {
            cause: Some(Box::new(error)),
            ..Code::Internal.into()
        }),
    };
    match (written, cut) {
        // Why the body ended is more than that it did.
        (Err(error), Some(cause)) if error.code == Code::Interrupted => Err(Error {
            cause: Some(cause.into()),
            ..error
        }),
        (written, _) => written,
    }
}

/// Sends a body's pieces to the thread that writes; gives the cause if the body is cut.
async fn forward(
    body: &mut Incoming,
    pieces: mpsc::Sender<Piece>,
    mut pace: Pace,
    registry: &crate::Registry,
) -> Option<String> {
    loop {
        let data = match pace.next(body).await {
            Err(error) => return Some(error.to_string()),
            Ok(None) => {
                // A failed send means that the writer gave up, and says why.
                let _ = pieces.send(Piece::End).await;
                return None;
            }
            Ok(Some(data)) => data,
        };
        registry
            .metrics
            .bytes_received
            .fetch_add(data.len() as u64, Ordering::Relaxed);
        if pieces.send(Piece::Data(data)).await.is_err() {
            return None;
        }
    }
}

/// Writes and hashes pieces until the body's end, and then does what the request is for.
fn write(
    store: &Store,
    name: &Name,
    id: &str,
    range: Option<Part>,
    bytes_max: Option<u64>,
    mut queue: mpsc::Receiver<Piece>,
    then: Then,
) -> Result<u64> {
    let mut upload = store.open_upload(name, id)?;
    if let Some(range) = range
        && range.from != upload.bytes()
    {
        let detail = json!({ "location": upload_location(name, id), "bytes": upload.bytes() });
        return Err(Error::new(Code::RangeInvalid, detail));
    }
    loop {
        match queue.blocking_recv() {
            Some(Piece::Data(bytes)) => {
                let total = upload.bytes() + bytes.len() as u64;
                if bytes_max.is_some_and(|max| total > max) {
                    upload.discard()?;
                    return Err(Error::new(Code::TooLarge, json!({ "limit": bytes_max })));
                }
                upload.append(&bytes)?;
            }
            Some(Piece::End) => break,
            None => return Err(Code::Interrupted.into()),
        }
    }
    let bytes = upload.bytes();
    match then {
        Then::Pause => {}
        Then::Commit(digest) => upload.commit(&digest)?,
    }
    Ok(bytes)
}

fn upload_location(name: &Name, id: &str) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

/// Writes what an upload has as a range; nothing at all is written as one byte is, for lack of another form.
fn received(bytes: u64) -> String {
    format!("0-{}", bytes.saturating_sub(1))
}

fn accepted(code: StatusCode, name: &Name, id: &str, bytes: u64) -> Response<Body> {
    let mut response = super::status(code);
    set(&mut response, LOCATION, &upload_location(name, id));
    set(&mut response, RANGE, &received(bytes));
    set(&mut response, "docker-upload-uuid", id);
    if code != StatusCode::NO_CONTENT {
        set(&mut response, "content-length", "0");
    }
    response
}

fn created(name: &Name, digest: &Digest) -> Response<Body> {
    let mut response = super::status(StatusCode::CREATED);
    set(&mut response, LOCATION, &location(name, digest));
    set(&mut response, "docker-content-digest", digest.as_str());
    set(&mut response, "content-length", "0");
    response
}

/// Gives the headers of a refused piece: where to go on, and from which byte.
pub fn headers_of(error: &Error) -> Vec<(HeaderName, String)> {
    match (&error.detail["location"], &error.detail["bytes"]) {
        (serde_json::Value::String(location), bytes) if error.code == Code::RangeInvalid => vec![
            (LOCATION, location.clone()),
            (RANGE, received(bytes.as_u64().unwrap_or(0))),
        ],
        _ => Vec::new(),
    }
}
