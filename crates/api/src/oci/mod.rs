//! Types of the OCI specifications; fields that we do not know survive a round trip.

pub mod image;
pub mod runtime;
pub mod sysctl;
