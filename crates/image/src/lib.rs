//! Images: content, references, layers; load, save, import, tag, remove, list.
//!
//! [`Images`] is the store of one data root. It is synchronous; callers with an async runtime call it from a blocking
//! pool. It owns `content/`, `index.redb` and, through [`gantry_snapshot`], `snapshots/`.
//!
//! An image's id is the SHA-256 of its configuration's bytes as they came, so those bytes are kept as they are. Layers
//! are kept by diffID, unpacked once whatever images and bases they belong to: a layer's directory does not depend on
//! what lies below it. Not known here: registries, containers (callers say which images they use), HTTP.

mod archive;
mod blobs;
mod changes;
mod check;
mod commit;
mod container;
pub mod content;
mod decompress;
mod durability;
mod encode;
mod error;
mod garbage;
mod gc;
mod glob;
mod hash;
mod history;
mod import;
mod index;
mod list;
mod load;
mod pipe;
mod prune;
mod record;
mod remove;
mod resolve;
mod save;
mod store;
mod transfer;
mod unpack;
mod usage;

pub use check::CheckReport;
pub use commit::CommitOptions;
pub use encode::Compression;
pub use error::{Error, Result};
pub use gantry_distribution as distribution;
pub use gantry_snapshot as snapshot;
pub use gc::{GcItem, GcPolicy, GcReport};
pub use history::HistoryEntry;
pub use import::ImportOptions;
pub use list::{ListOptions, Listed};
pub use load::{LoadEvent, LoadOptions, Loaded};
pub use prune::{PruneOptions, Pruned};
pub use remove::{InUse, InUseBy, RemoveOptions, Removed};
pub use store::{Image, Images, Layer};
pub use transfer::{Concurrency, Done, Events, PullOptions, PushOptions, TransferEvent, Transfers};
pub use usage::DiskUsage;
