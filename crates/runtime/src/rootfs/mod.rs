//! The container's file system, built in the child.
//!
//! Every destination is resolved beneath a descriptor of the root ([`beneath`]), so that links in a hostile image lead
//! only to places of that image; every source is a descriptor opened before the image had a say.
//!
//! Order: [`attach`] (the root gets a place in the new mount namespace) → [`mounts`] → [`devices`] → hooks → [`pivot`] →
//! [`seal`] (masked and read-only paths, read-only root).

pub(crate) mod beneath;
pub(crate) mod copy_up;
pub(crate) mod devices;
pub(crate) mod mounts;
pub(crate) mod overlay;
pub(crate) mod pivot;
pub(crate) mod seal;
