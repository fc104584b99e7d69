//! What a registry is told when it starts.

use std::path::PathBuf;
use std::time::Duration;

/// Configures one registry.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is kept.
    pub root: PathBuf,
    /// The data root of an engine on the same file system, whose blobs are taken over by links.
    pub engine_root: Option<PathBuf>,
    pub htpasswd: Option<PathBuf>,
    pub access: Option<PathBuf>,
    pub tokens: Tokens,
    pub is_read_only: bool,
    /// Whether images may be pushed whose blobs are not there. The manifests of an index never need to be.
    pub is_sparse: bool,
    /// How clients reach this registry, if a proxy stands before it.
    pub public_url: Option<String>,
    pub limits: Limits,
    pub upstreams: Vec<Upstream>,
    /// Certificates of upstreams: `DIR/HOST[:PORT]/ca.crt`, and `client.cert` with `client.key`.
    pub upstream_certs: Option<PathBuf>,
    /// The upstream whose repositories are asked for by their plain names.
    pub mirror: Option<String>,
    /// How long a tag of an upstream is given out without asking there.
    pub tag_ttl: Duration,
    /// How often garbage is collected; `None` is never.
    pub collect_interval: Option<Duration>,
    pub policy: crate::store::Policy,
}

/// Says how tokens are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// Basic, or nothing.
    None,
    /// This registry signs them itself, at `/token`.
    BuiltIn { service: String },
    /// Another server signs them.
    Outside {
        realm: String,
        service: String,
        issuer: String,
        /// Its public key in PEM.
        key: PathBuf,
    },
}

/// Bounds what clients can make the registry do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub manifest_bytes: usize,
    /// Of blobs that are pushed or fetched; `None` is without limit.
    pub blob_bytes: Option<u64>,
    /// Bodies of blobs that are received at the same time.
    pub uploads_at_once: usize,
    /// Uploads that were begun and are not ended.
    pub uploads_open: usize,
    pub connections: usize,
    /// How long a client may send nothing in the middle of a body.
    pub silence: Duration,
    /// What it must send each second, taken over as long as it might have been silent.
    pub bytes_per_second_min: u64,
    /// Blobs that are fetched from upstreams at the same time.
    pub fetches_at_once: usize,
    /// How long a fetch goes on that nobody waits for.
    pub fetch_unwanted: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes: 8 << 20,
            blob_bytes: None,
            uploads_at_once: 64,
            uploads_open: 10_000,
            connections: 4096,
            silence: Duration::from_secs(60),
            bytes_per_second_min: 1024,
            fetches_at_once: 32,
            fetch_unwanted: Duration::from_secs(60),
        }
    }
}

/// Is a registry whose content is cached.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream {
    /// What its repositories are below here, and what mirrors ask for by `?ns=`; for example `docker.io`.
    pub name: String,
    /// `https://HOST[:PORT]` or `http://HOST[:PORT]`.
    pub url: String,
    pub username: String,
    pub password: String,
}

// Secrets stay out of logs.
impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.name, self.url)
    }
}
