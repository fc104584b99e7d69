//! Overlay snapshots: one directory per layer or container, and the archives they come from and go to.
//!
//! [`Snapshots`] owns `snapshots/` beneath the data root; [`apply`] writes an archive into a directory; [`recipe`]
//! rebuilds it byte for byte; [`tar`] is the format. Mounts are *returned* as data ([`Overlay`]), never made here
//! (save for the probe at open). Not known here: images, references, names of layers.

mod diff;
mod error;
mod probe;
mod reaper;
mod store;

pub mod apply;
pub mod export;
pub mod recipe;
pub mod tar;
pub mod verify;

pub use diff::{Change, ChangeKind};
pub use error::{Error, Result, is_no_space};
pub use gantry_sys::fs::Usage;
pub use store::{Ingest, Overlay, RootMetadata, Snapshots, sync};
