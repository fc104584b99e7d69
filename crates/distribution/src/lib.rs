//! The OCI distribution protocol as a client: resolve, pull, push, delete; tokens, mirrors, certificates, proxies, resume.
//!
//! ```text
//! Registries ── one per process: configuration, connections, tokens
//!   └─ Repository ── one name at one registry (and its mirrors), for one user
//!        ├─ manifest / tags / referrers     small answers, whole
//!        ├─ blob ──▶ BlobReader             a stream that goes on where a connection broke
//!        └─ upload ◀── BlobUpload           pieces in, one digest at the end
//! ```
//! ```text
//! manifest · list · blob · upload · login · search      what is asked, and what the answers mean
//! session ─▶ endpoint (hosts, dns) · authorize (token, challenge) · wire (tls, proxy, network) · retry · answer (limit)
//! ```
//! Requests that may be repeated are repeated with back-off; what is told meanwhile goes to an [`Observer`]. Digests
//! and lengths of what is read are checked here, so a caller sees a right blob or an error.
//! Not known here: where content is kept, what an image is, the engine's API.
//! Sources: OCI distribution-spec 1.1; Docker's token authentication specification.

mod answer;
mod authorize;
mod blob;
mod call;
mod challenge;
mod client;
mod config;
mod credentials;
mod dns;
mod download;
mod endpoint;
mod error;
mod hosts;
mod limit;
mod list;
mod login;
mod manifest;
mod network;
mod proxy;
mod retry;
mod search;
mod session;
pub mod signature;
mod state;
mod tls;
mod token;
mod upload;
mod wire;

pub use blob::BlobReader;
pub use client::{FetchedManifest, Observer, Registries, Repository, SearchResult};
pub use config::{Config, Insecure, Proxies};
pub use credentials::{Credentials, Login};
pub use download::Download;
pub use error::{Error, ErrorCode, Result};
pub use limit::RateLimit;
pub use signature::SignaturePolicy;
pub use upload::{BlobUpload, Mounted};
