//! A client of the Docker Engine API: where the daemon is, which API version it speaks, requests, JSON streams and
//! hijacked connections.
//!
//! It serves Docker's daemon as well as Gantry's: everything it sends is what Docker's own client sends. It prints
//! nothing and keeps no state between processes. It runs on a current-thread tokio runtime and starts no thread: a
//! process that only asks one question must stay at about a millisecond.

pub mod config;
pub mod connection;
pub mod context;
pub mod credentials;
pub mod endpoint;
pub mod error;
pub mod hijack;
pub mod request;
pub mod resolve;
pub mod version;

pub use connection::{Client, Options};
pub use endpoint::Endpoint;
pub use error::Error;
pub use hijack::Hijacked;
pub use request::{Body, Query, Request, Response};
pub use version::Version;

/// The client's result.
pub type Result<T> = std::result::Result<T, Error>;
