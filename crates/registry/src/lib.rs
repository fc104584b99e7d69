//! A registry: the OCI distribution specification served over the content store.
//!
//! ```text
//! serve(listener) ──▶ server   connections, routes, answers       knows HTTP
//!                       ├─ auth     who asks, and what he may      knows no repository's content
//!                       ├─ cache    fetches from upstreams         knows `distribution`
//!                       └─ store    content, links, garbage        knows no HTTP; synchronous
//! ```
//! The store is called through the blocking pool. Sockets, signals and the command line belong to the caller; see
//! [`Options`] and [`serve`].
//! Sources: OCI distribution-spec 1.1 and what its development branch adds (`digest-algorithm`, tags of a manifest pushed by
//! digest, cancelled uploads); Docker's token authentication specification.

pub mod auth;
mod cache;
mod error;
mod hash;
mod maintenance;
mod metrics;
mod name;
mod options;
mod registry;
mod server;
mod store;
mod tls;

pub use error::{Code, Error, Result};
pub use maintenance::collect_offline;
pub use options::{Limits, Options, Tokens, Upstream};
pub use registry::Registry;
pub use server::{serve, serve_metrics};
pub use store::{Collected, Policy};
pub use tls::Tls;

/// Fills a buffer with random bytes of the kernel's.
fn random(bytes: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let count =
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
                .map_err(|error| Error::io("read random bytes", &error.into()))?;
        filled += count;
    }
    Ok(())
}
