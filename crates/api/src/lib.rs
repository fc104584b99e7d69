//! Types seen by every crate: the Docker Engine API's wire types, the OCI image and runtime types, identifiers,
//! references, digests, platforms, stream framing and error kinds. No input or output happens here.

pub mod container;
pub mod digest;
pub mod error;
pub mod event;
pub mod exec;
pub mod filters;
pub mod fold;
pub mod id;
pub mod image;
pub mod network;
pub mod oci;
pub mod path;
pub mod platform;
pub mod port;
pub mod progress;
pub mod reference;
pub mod stream;
pub mod system;
pub mod time;
pub mod upkeep;
pub mod volume;
pub mod wire;
