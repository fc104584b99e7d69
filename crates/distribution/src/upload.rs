//! Uploads: pieces in, chunks out, one of them in flight while the next fills.
//!
//! ```text
//! POST ─▶ open ─ send: fill a chunk ─▶ PATCH it (kept until acknowledged) ─ … ─▶ PUT ?digest= ─▶ there
//!            └─ commit before the first chunk is full ─▶ PUT ?digest= with all of it
//! ```
//! After a broken chunk the registry is asked how far it came, and gets the rest again. Where it has forgotten the upload, a
//! new one begins as long as all bytes so far are at hand: in the one request, and in the first chunk.

use crate::call::{Call, Target};
use crate::client::Repository;
use crate::endpoint::{Endpoint, Purpose};
use crate::retry::{Again, Failure};
use crate::session::{ANY, Reply, Session};
use crate::wire::location_of;
use crate::{Error, Result};
use bytes::{Bytes, BytesMut};
use gantry_api::digest::Digest;
use reqwest::header::{CONTENT_RANGE, HeaderValue};
use reqwest::{Method, Url};
use std::sync::Arc;
use tokio::task::JoinHandle;

const CHUNK: usize = 8 << 20;
/// A registry that wants larger chunks than this is refused: each is kept in memory, twice.
const CHUNK_MAX: usize = 64 << 20;
const OCTETS: &str = "application/octet-stream";

/// Is the answer to a mount.
pub enum Mounted {
    /// The repository has the blob now.
    Mounted,
    /// The registry has it not and opened an upload instead.
    Upload(BlobUpload),
}

/// Takes a blob in pieces.
pub struct BlobUpload {
    wire: Box<Wire>,
    chunk_size: usize,
    /// What is not on its way yet.
    filling: BytesMut,
    /// How many bytes were handed over before.
    sent: u64,
    in_flight: Option<JoinHandle<Result<Url>>>,
}

/// What a chunk needs to get to the registry.
#[derive(Clone)]
struct Wire {
    session: Session,
    endpoint: Arc<Endpoint>,
    /// The repository.
    path: String,
    scopes: Vec<String>,
    location: Url,
}

impl Repository {
    /// Opens an upload.
    pub async fn upload(&self) -> Result<BlobUpload> {
        let path = format!("{}/blobs/uploads/", self.path);
        let scopes = self.scopes(Purpose::Push);
        let call = Call::new(Method::POST, path, scopes.clone()).untold();
        let reply = self.session.change(&call).await?;
        self.opened(&reply, scopes).await
    }

    /// Asks the registry to take a blob from another of its repositories; `from` is a path.
    pub async fn mount(&self, digest: &Digest, from: &str) -> Result<Mounted> {
        let path = format!("{}/blobs/uploads/?from={from}&mount={digest}", self.path);
        let mut scopes = self.scopes(Purpose::Push);
        if from != self.path {
            scopes.push(format!("repository:{from}:pull"));
        }
        let call = Call::new(Method::POST, path, scopes.clone());
        let reply = self.session.change(&call).await?;
        if reply.status.as_u16() == 201 {
            return Ok(Mounted::Mounted);
        }
        self.opened(&reply, scopes).await.map(Mounted::Upload)
    }

    async fn opened(&self, reply: &Reply, scopes: Vec<String>) -> Result<BlobUpload> {
        let endpoint = Arc::clone(self.session.target().await?);
        let wanted = reply.header("oci-chunk-min-length").parse().unwrap_or(0);
        if wanted > CHUNK_MAX {
            return Err(Error::Invalid(format!(
                "`{}` wants chunks of {wanted} bytes; at most {CHUNK_MAX} are sent",
                endpoint.host
            )));
        }
        let location = next_location(reply, None)?;
        Ok(BlobUpload {
            wire: Box::new(Wire {
                session: self.session.clone(),
                endpoint,
                path: self.path.clone(),
                scopes,
                location,
            }),
            chunk_size: CHUNK.max(wanted),
            filling: BytesMut::new(),
            sent: 0,
            in_flight: None,
        })
    }
}

impl BlobUpload {
    /// Takes a piece of any size. Waits while a chunk is full and the one before it still on its way.
    pub async fn send(&mut self, mut piece: Bytes) -> Result<()> {
        while !piece.is_empty() {
            let room = self.chunk_size - self.filling.len();
            let taken = piece.split_to(room.min(piece.len()));
            self.filling.extend_from_slice(&taken);
            if self.filling.len() == self.chunk_size {
                self.launch().await?;
            }
        }
        Ok(())
    }

    /// Ends the blob under its digest.
    pub async fn commit(mut self, digest: &Digest) -> Result<()> {
        if self.sent == 0 {
            // The whole blob in one request, which can simply be made again.
            let body = self.filling.split().freeze();
            return self.wire.clone().put(digest, Some(body)).await;
        }
        if !self.filling.is_empty() {
            self.launch().await?;
        }
        self.land().await?;
        self.wire.clone().put(digest, None).await
    }

    /// Gives up; the registry is told if it can be.
    pub async fn cancel(mut self) {
        if let Some(task) = self.in_flight.take() {
            task.abort();
        }
        let call = self.wire.call(Method::DELETE, self.wire.location.clone());
        // Nothing depends on it: registries throw abandoned uploads away.
        let _ = self
            .wire
            .session
            .once(&self.wire.endpoint, &call, ANY)
            .await;
    }

    /// Sends what has filled, once the chunk before it has arrived.
    async fn launch(&mut self) -> Result<()> {
        self.land().await?;
        let chunk = self.filling.split().freeze();
        self.filling.reserve(self.chunk_size);
        let (wire, start) = (self.wire.clone(), self.sent);
        self.sent += chunk.len() as u64;
        self.in_flight = Some(tokio::spawn(async move { wire.patch(chunk, start).await }));
        Ok(())
    }

    /// Waits for the chunk on its way.
    async fn land(&mut self) -> Result<()> {
        if let Some(task) = &mut self.in_flight {
            let landed = task.await;
            self.in_flight = None;
            self.wire.location = landed
                .map_err(|error| Error::Network(format!("send a chunk of a blob: {error}")))??;
        }
        Ok(())
    }
}

impl Drop for BlobUpload {
    fn drop(&mut self) {
        if let Some(task) = &self.in_flight {
            task.abort();
        }
    }
}

impl Wire {
    fn call(&self, method: Method, location: Url) -> Call {
        Call::to(method, Target::Url(location), self.scopes.clone()).untold()
    }

    /// Sends a chunk whose first byte is the blob's byte `start`, until all of it has arrived. Gives the next address.
    async fn patch(mut self, chunk: Bytes, start: u64) -> Result<Url> {
        let mut arrived = 0;
        let mut tried = 0;
        loop {
            let rest = chunk.slice(arrived..);
            let first = start + arrived as u64;
            let range = format!("{first}-{}", first + rest.len() as u64 - 1);
            let range = HeaderValue::try_from(range)
                .map_err(|error| Error::Invalid(format!("range of a chunk: {error}")))?;
            let call = self
                .call(Method::PATCH, self.location.clone())
                .header(CONTENT_RANGE, range)
                .body(OCTETS, rest);
            let failure = match self.session.once(&self.endpoint, &call, ANY).await {
                Ok(reply) => {
                    self.location = next_location(&reply, Some(&self.location))?;
                    let end = acknowledged(reply.header("range"), start + chunk.len() as u64);
                    if end == start + chunk.len() as u64 {
                        return Ok(self.location);
                    }
                    let got = format!("the registry took a chunk only up to byte {end}");
                    arrived = within(end, start, chunk.len())?;
                    Failure::passing(Error::Network(got))
                }
                Err(failure) => failure,
            };
            // A chunk that is out of order may be one that arrived although its acknowledgement did not.
            let is_out_of_order =
                matches!(&failure.error, Error::Registry { status: 416, .. }) && tried == 0;
            let is_renewable = start == 0;
            tried += 1;
            if is_renewable && is_forgotten(&failure.error) && tried < self.session.attempts_max {
                self.renew().await?;
                arrived = 0;
                continue;
            }
            if is_out_of_order {
                tracing::debug!(error = %failure.error, "chunk out of order");
            } else {
                self.session.rest(tried, failure).await?;
            }
            let before = arrived;
            let end = match self.status().await {
                Ok(Some(end)) => end,
                Ok(None) => continue,
                Err(error) if is_renewable && is_forgotten(&error) => {
                    self.renew().await?;
                    0
                }
                Err(error) => return Err(error),
            };
            arrived = within(end, start, chunk.len())?;
            if arrived == chunk.len() {
                return Ok(self.location);
            }
            if arrived > before {
                tried = 0;
            }
        }
    }

    /// Asks how many bytes the registry has; `None` where it does not say.
    async fn status(&mut self) -> Result<Option<u64>> {
        let call = self.call(Method::GET, self.location.clone());
        let reply = self.session.persist(&self.endpoint, &call, ANY).await?;
        self.location = next_location(&reply, Some(&self.location))?;
        Ok(range_end(reply.header("range")))
    }

    /// Begins a new upload in the place of one that the registry has forgotten.
    async fn renew(&mut self) -> Result<()> {
        let path = format!("{}/blobs/uploads/", self.path);
        let call = Call::new(Method::POST, path, self.scopes.clone()).untold();
        let reply = self.session.persist(&self.endpoint, &call, ANY).await?;
        self.location = next_location(&reply, None)?;
        Ok(())
    }

    /// Ends the upload, with the whole blob as body if nothing was sent before.
    async fn put(mut self, digest: &Digest, whole: Option<Bytes>) -> Result<()> {
        let body = whole.clone().unwrap_or_default();
        let mut tried = 0;
        loop {
            let mut url = self.location.clone();
            url.query_pairs_mut().append_pair("digest", digest.as_str());
            let call = self
                .call(Method::PUT, url)
                .body(OCTETS, body.clone())
                .patient();
            let failure = match self.session.once(&self.endpoint, &call, ANY).await {
                Ok(_) => return Ok(()),
                Err(failure) => failure,
            };
            // What was cut may have been done all the same; then the upload is gone and the blob there.
            if tried > 0 && failure.again == Again::Never && self.has(digest).await {
                return Ok(());
            }
            tried += 1;
            if whole.is_some() && is_forgotten(&failure.error) && tried < self.session.attempts_max
            {
                self.renew().await?;
                continue;
            }
            self.session.rest(tried, failure).await?;
            if self.has(digest).await {
                return Ok(());
            }
            if body.is_empty() {
                continue;
            }
            // Half of the body may be there already, which would come to stand before the whole one.
            match self.status().await {
                Ok(Some(end)) if end > 1 => return self.rest_of(digest, body).await,
                Ok(_) => {}
                Err(error) if is_forgotten(&error) => self.renew().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends the missing part of a body that broke off, and ends the upload.
    async fn rest_of(mut self, digest: &Digest, body: Bytes) -> Result<()> {
        let end = self.status().await?.unwrap_or(0);
        let arrived = within(end, 0, body.len())?;
        if arrived < body.len() {
            let rest = body.slice(arrived..);
            self.location = self.clone().patch(rest, arrived as u64).await?;
        }
        Box::pin(self.put(digest, None)).await
    }

    async fn has(&self, digest: &Digest) -> bool {
        let path = format!("{}/blobs/{digest}", self.path);
        let call = Call::new(Method::HEAD, path, self.scopes.clone()).accepting(&[404]);
        let reply = self.session.once(&self.endpoint, &call, ANY).await;
        reply.is_ok_and(|reply| reply.status.is_success())
    }
}

/// Tells whether the registry knows nothing of an upload any more.
fn is_forgotten(error: &Error) -> bool {
    matches!(error, Error::Registry { status: 404, .. })
}

/// Gives where an upload goes on: the answer's `Location`, or where it was before if that is left out.
fn next_location(reply: &Reply, before: Option<&Url>) -> Result<Url> {
    match (reply.header("location"), before) {
        ("", Some(before)) => Ok(before.clone()),
        ("", None) => Err(Error::Corrupt(format!(
            "`{}` opened an upload without saying where",
            reply.url
        ))),
        (location, _) => location_of(&reply.url, location).map_err(Error::Corrupt),
    }
}

/// Gives how far the registry came by a chunk's answer; one that does not say has all.
fn acknowledged(range: &str, all: u64) -> u64 {
    range_end(range).unwrap_or(all)
}

/// Reads `0-9`, with or without `bytes=` before it, as 10. `0-0`, which registries send for no bytes too, is none.
fn range_end(header: &str) -> Option<u64> {
    let range = header.trim();
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let (_, end) = range.split_once('-')?;
    match end.trim().parse::<u64>().ok()? {
        0 => Some(0),
        end => end.checked_add(1),
    }
}

/// Gives how much of a chunk at `start` has arrived when the registry has `end` bytes.
fn within(end: u64, start: u64, length: usize) -> Result<usize> {
    end.checked_sub(start)
        .and_then(|arrived| usize::try_from(arrived).ok())
        .filter(|arrived| *arrived <= length)
        .ok_or_else(|| {
            Error::Corrupt(format!(
                "the registry has {end} bytes of an upload, not between {start} and {}",
                start + length as u64
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_tell_how_much_arrived() {
        assert_eq!(range_end("0-9"), Some(10));
        assert_eq!(range_end("bytes=0-9"), Some(10));
        assert_eq!(range_end("0-0"), Some(0));
        assert_eq!(range_end(""), None);
        assert_eq!(acknowledged("", 7), 7);
        assert_eq!(within(10, 4, 8).expect("within"), 6);
        assert!(within(3, 4, 8).is_err() && within(13, 4, 8).is_err());
    }
}
