//! (interface; bodies follow)
#![allow(clippy::unimplemented, unused_variables, clippy::unused_async)]

use crate::{Config, Credentials, Login, Result};
use bytes::Bytes;
use gantry_api::digest::Digest;
use gantry_api::oci::image::{Descriptor, Index};
use gantry_api::reference::Reference;
use std::sync::Arc;
use std::time::Duration;

/// Is told what happens while a request goes on.
pub type Observer = Arc<dyn Fn(Duration, &str) + Send + Sync>;

/// Knows all registries of a process; clones share it.
#[derive(Clone)]
pub struct Registries {}

/// Is one repository at one registry for one user.
#[derive(Clone)]
pub struct Repository {}

/// Is a manifest, or an index, as the registry gave it; the digest is checked.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    pub bytes: Bytes,
    pub rate_limit: Option<RateLimit>,
    /// The host that answered: the registry itself or a mirror.
    pub host: String,
}

/// Is what Docker Hub tells of its limit (`ratelimit-limit`, `ratelimit-remaining`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub limit: u64,
    pub remaining: u64,
    /// Seconds of the window.
    pub window_seconds: u64,
}

/// Is the answer to a mount.
pub enum Mounted {
    Mounted,
    /// The registry has it not and opened an upload instead.
    Upload(BlobUpload),
}

/// Streams a blob from an offset to its end; goes on by Range where a connection breaks.
pub struct BlobReader {}

/// Takes a blob in pieces.
pub struct BlobUpload {}

/// Is one repository that a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchResult {
    pub name: String,
    pub description: String,
    pub star_count: i64,
    pub is_official: bool,
    pub is_automated: bool,
}

impl Registries {
    /// Makes the client; reads no file and opens no connection yet.
    pub fn new(config: Config) -> Result<Self> {
        unimplemented!()
    }

    /// Takes a new configuration; running requests keep the old one.
    pub fn reload(&self, config: Config) -> Result<()> {
        unimplemented!()
    }

    /// Gives a repository. The reference's tag and digest do not matter.
    pub fn repository(&self, reference: &Reference, credentials: Credentials) -> Repository {
        unimplemented!()
    }

    /// Checks credentials at a registry (`host[:port]`; empty or Docker's index address is Docker Hub).
    pub async fn login(&self, server: &str, credentials: &Credentials) -> Result<Login> {
        unimplemented!()
    }

    /// Searches by the old index protocol (`/v1/search`). `term` may begin with a host.
    pub async fn search(
        &self,
        term: &str,
        limit: u32,
        credentials: &Credentials,
    ) -> Result<Vec<SearchResult>> {
        unimplemented!()
    }

    /// Lists the repositories of a registry (`/v2/_catalog`), all pages.
    pub async fn catalog(&self, host: &str, credentials: &Credentials) -> Result<Vec<String>> {
        unimplemented!()
    }
}

impl Repository {
    /// Has retries told: the wait before the next try, and the cause.
    #[must_use]
    pub fn observed(self, observer: Observer) -> Self {
        unimplemented!()
    }

    /// Asks for what a tag or digest stands for, without its bytes (HEAD, or GET where HEAD does not serve).
    pub async fn head_manifest(&self, tag_or_digest: &str) -> Result<Option<Descriptor>> {
        unimplemented!()
    }

    /// Fetches a manifest or an index by tag or digest.
    pub async fn manifest(&self, tag_or_digest: &str) -> Result<FetchedManifest> {
        unimplemented!()
    }

    /// Opens a blob from `offset` on. `size` is the descriptor's; more or fewer bytes are [`crate::Error::Corrupt`].
    /// The digest is the caller's to check, who may have the first `offset` bytes already.
    pub async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobReader> {
        unimplemented!()
    }

    /// Asks for a blob's size, `None` where it is not there.
    pub async fn head_blob(&self, digest: &Digest) -> Result<Option<u64>> {
        unimplemented!()
    }

    /// Asks the registry to take a blob from another of its repositories; `from` is a path.
    pub async fn mount(&self, digest: &Digest, from: &str) -> Result<Mounted> {
        unimplemented!()
    }

    /// Opens an upload.
    pub async fn upload(&self) -> Result<BlobUpload> {
        unimplemented!()
    }

    /// Writes a manifest under a tag or its digest; gives the digest that the registry computed.
    pub async fn put_manifest(
        &self,
        tag_or_digest: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest> {
        unimplemented!()
    }

    /// Lists the tags, all pages.
    pub async fn tags(&self) -> Result<Vec<String>> {
        unimplemented!()
    }

    /// Lists what refers to a manifest; falls back to the tag `sha256-HEX` at old registries.
    pub async fn referrers(&self, digest: &Digest, artifact_type: Option<&str>) -> Result<Index> {
        unimplemented!()
    }

    pub async fn delete_manifest(&self, tag_or_digest: &str) -> Result<()> {
        unimplemented!()
    }

    pub async fn delete_blob(&self, digest: &Digest) -> Result<()> {
        unimplemented!()
    }
}

impl BlobReader {
    /// Gives the next piece, `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        unimplemented!()
    }
}

impl BlobUpload {
    /// Sends a piece; pieces of any size, streamed within one request where the registry allows it.
    pub async fn send(&mut self, piece: Bytes) -> Result<()> {
        unimplemented!()
    }

    /// Ends the blob under its digest.
    pub async fn commit(self, digest: &Digest) -> Result<()> {
        unimplemented!()
    }

    /// Gives up; the registry is told if it can be.
    pub async fn cancel(self) {
        unimplemented!()
    }
}
