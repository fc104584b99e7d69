//! Blobs: there or not, and as a stream that goes on where a connection broke.

use crate::answer;
use crate::call::Call;
use crate::client::Repository;
use crate::endpoint::Purpose;
use crate::manifest::digest_as;
use crate::retry::Failure;
use crate::session::{Reading, Reply};
use crate::wire::next_piece;
use crate::{Error, Result};
use bytes::Bytes;
use gantry_api::digest::Digest;
use gantry_api::oci::image::Descriptor;
use reqwest::header::{ACCEPT_ENCODING, HeaderValue, RANGE};
use reqwest::{Method, Response, Url};

/// Streams a blob from an offset to its end; goes on by Range where a connection breaks.
pub struct BlobReader {
    repository: Repository,
    digest: Digest,
    size: u64,
    /// The place of the next byte.
    position: u64,
    /// The connection, and how many bytes it gives before `position` because the server knows no ranges.
    open: Option<(Response, u64)>,
    /// The mirrors that gave some of it, by their first bases.
    mirrors: Vec<Url>,
    /// Tries since the last byte came.
    tried: u32,
}

impl Repository {
    /// Opens a blob from `offset` on. `size` is the descriptor's; more or fewer bytes are [`crate::Error::Corrupt`].
    /// The digest is the caller's to check, who may have the first `offset` bytes already; see [`BlobReader::blame`].
    pub async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobReader> {
        if offset > descriptor.size {
            return Err(Error::Invalid(format!(
                "read blob {} from {offset}: it has {} bytes",
                descriptor.digest, descriptor.size
            )));
        }
        let mut reader = BlobReader {
            repository: self.clone(),
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            position: offset,
            open: None,
            mirrors: Vec::new(),
            tried: 0,
        };
        if offset < descriptor.size {
            reader.open().await?;
        }
        Ok(reader)
    }

    /// Fetches a blob into memory and checks its digest; what a mirror gave wrong is fetched again from the next host.
    /// The caller has seen to it that its size is none that hurts.
    pub async fn whole_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let Descriptor { digest, .. } = descriptor;
        loop {
            let mut reader = self.blob(descriptor, 0).await?;
            let error = match reader.rest().await {
                Ok(bytes) => {
                    let computed = digest_as(digest, &bytes).ok_or_else(|| {
                        Error::Invalid(format!("blob {digest}: unsupported digest algorithm"))
                    })?;
                    if computed == *digest {
                        return Ok(bytes);
                    }
                    Error::Corrupt(format!("blob {digest}: the bytes are those of {computed}"))
                }
                Err(error @ Error::Corrupt(_)) => error,
                Err(error) => return Err(error),
            };
            if !reader.blame() {
                return Err(error);
            }
        }
    }

    /// Asks for a blob's size where pushes go, `None` where it is not there.
    pub async fn head_blob(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = format!("{}/blobs/{digest}", self.path);
        let call = Call::new(Method::HEAD, path, self.scopes(Purpose::Pull))
            .accepting(&[404])
            .untold();
        // Whoever asks wants to know what is where pushes go, and no mirror's word for it.
        let reply = self.session.change(&call).await?;
        if reply.status.as_u16() == 404 {
            return Ok(None);
        }
        let length = reply.header("content-length");
        let size = length.parse().map_err(|_| {
            Error::Corrupt(format!("size of blob {digest}: `{length}` is no length"))
        })?;
        Ok(Some(size))
    }
}

impl BlobReader {
    /// Gives the next piece, `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let stall = self.repository.session.state.config.stall_timeout;
        loop {
            let Some((response, skip)) = &mut self.open else {
                if self.position == self.size {
                    return Ok(None);
                }
                self.open().await?;
                continue;
            };
            let cause = match next_piece(response, stall).await {
                Ok(Some(mut piece)) => {
                    let skipped = (*skip).min(piece.len() as u64);
                    *skip -= skipped;
                    // It fits: it is no longer than a piece.
                    let _ = piece.split_to(usize::try_from(skipped).unwrap_or(usize::MAX));
                    if piece.is_empty() {
                        continue;
                    }
                    if self.position + piece.len() as u64 > self.size {
                        return Err(self.corrupt("it is longer"));
                    }
                    self.position += piece.len() as u64;
                    self.tried = 0;
                    return Ok(Some(piece));
                }
                Ok(None) if self.position == self.size => {
                    self.open = None;
                    return Ok(None);
                }
                Ok(None) => "unexpected EOF".to_owned(),
                // All is there; how the connection ended does not matter.
                Err(_) if self.position == self.size => {
                    self.open = None;
                    return Ok(None);
                }
                Err(cause) => cause,
            };
            self.open = None;
            self.tried += 1;
            let text = format!(
                "blob {} broke off at byte {} of {}: {cause}",
                self.digest, self.position, self.size
            );
            let failure = Failure::passing(Error::Network(text));
            self.repository.session.rest(self.tried, failure).await?;
        }
    }

    /// Says that the bytes were not the right ones. The mirrors that gave some of them are not asked for this blob again
    /// for a while; tells whether there were any, so that another try from the first byte on goes elsewhere.
    pub fn blame(&self) -> bool {
        let state = &self.repository.session.state;
        for mirror in &self.mirrors {
            tracing::warn!(%mirror, digest = %self.digest, "mirror gave wrong bytes");
            state.distrust(mirror, &self.digest);
        }
        !self.mirrors.is_empty()
    }

    async fn rest(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.next().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// Connects for what is missing, at the next host where a mirror has it in another length.
    async fn open(&mut self) -> Result<()> {
        loop {
            let reply = self.request().await?;
            let mirror = reply.mirror.clone();
            match (self.begun(reply), mirror) {
                (Ok(open), mirror) => {
                    self.open = Some(open);
                    self.mirrors.extend(mirror);
                    return Ok(());
                }
                (Err(error), Some(mirror)) => {
                    tracing::warn!(%mirror, %error, "mirror passed over");
                    let state = &self.repository.session.state;
                    state.distrust(&mirror, &self.digest);
                }
                (Err(error), None) => return Err(error),
            }
        }
    }

    async fn request(&self) -> Result<Reply> {
        let repository = &self.repository;
        let path = format!("{}/blobs/{}", repository.path, self.digest);
        let mut call = Call::new(Method::GET, path, repository.scopes(Purpose::Pull))
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
            .of_blob(&self.digest)
            .accepting(&[416]);
        if self.position > 0 {
            let range = format!("bytes={}-", self.position);
            let range = HeaderValue::try_from(range)
                .map_err(|error| Error::Invalid(format!("range of a blob: {error}")))?;
            call = call.header(RANGE, range);
        }
        repository
            .session
            .fetch(Purpose::Pull, &call, Reading::Stream)
            .await
            .map_err(|error| {
                let shown = repository.shown(self.digest.as_str());
                answer::as_pull(error, &repository.familiar_name, &shown)
            })
    }

    /// Takes an answer's stream, if it can be the one that is wanted; tells how much of it is to be skipped.
    fn begun(&self, reply: Reply) -> Result<(Response, u64)> {
        let start = self.start_of(&reply)?;
        let response = reply
            .stream
            .ok_or_else(|| Error::Network(format!("`{}` gave no stream", reply.url)))?;
        if let Some(length) = response.content_length()
            && length != self.size - start
        {
            return Err(self.corrupt(&format!(
                "the registry has {}",
                start.saturating_add(length)
            )));
        }
        Ok((response, self.position - start))
    }

    /// Tells at which byte an answer begins: where it was asked to, or at the first one.
    fn start_of(&self, reply: &Reply) -> Result<u64> {
        match reply.status.as_u16() {
            206 => {
                let told = reply.header("content-range");
                match content_range(told) {
                    Some((start, total))
                        if start == self.position
                            && total.is_none_or(|total| total == self.size) =>
                    {
                        Ok(start)
                    }
                    _ => Err(Error::Corrupt(format!(
                        "blob {}: asked for the bytes from {} of {} on, the registry gave `{told}`",
                        self.digest, self.position, self.size
                    ))),
                }
            }
            416 => Err(self.corrupt("the registry has fewer")),
            _ => Ok(0),
        }
    }

    fn corrupt(&self, how: &str) -> Error {
        Error::Corrupt(format!(
            "blob {} has not the {} bytes of its descriptor: {how}",
            self.digest, self.size
        ))
    }
}

/// Reads `bytes 5-9/10`: the first byte and, unless it is `*`, the whole size.
fn content_range(header: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = header.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.trim().split_once('-')?;
    let total = match total.trim() {
        "*" => None,
        number => Some(number.parse().ok()?),
    };
    Some((start.trim().parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(content_range("bytes */10"), None);
        assert_eq!(content_range(""), None);
    }
}
