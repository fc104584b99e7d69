//! Counts the space that the store takes, as du(1) does: allocated blocks, each hard-linked file once.

use crate::error::{Error, Result};
use crate::store::Images;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::sync::PoisonError;

/// Is the space that images take on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// All layers, each once, with their recipes.
    pub layers_bytes: u64,
    /// Configurations, manifests, kept blobs, and content that was set aside.
    pub content_bytes: u64,
    /// Downloads that broke off, or go on.
    pub partial_bytes: u64,
    /// The index's file.
    pub index_bytes: u64,
    /// Layers that are being unpacked, and what was set aside.
    pub other_bytes: u64,
    /// What was removed and waits to be deleted.
    pub trash_bytes: u64,
}

impl DiskUsage {
    /// Gives the sum.
    pub fn total_bytes(&self) -> u64 {
        let Self {
            layers_bytes,
            content_bytes,
            partial_bytes,
            index_bytes,
            other_bytes,
            trash_bytes,
        } = self;
        layers_bytes + content_bytes + partial_bytes + index_bytes + other_bytes + trash_bytes
    }
}

impl Images {
    /// Counts the space that images take. Layers are walked once and then known.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let snapshots = &self.0.snapshots;
        let (content_bytes, partial_bytes) = self.0.content.occupied()?;
        let index = std::fs::metadata(self.0.index.path())
            .map_err(|error| Error::io("count `index.redb`", error))?;
        Ok(DiskUsage {
            layers_bytes: self.occupied_by_layers()?.values().sum(),
            content_bytes,
            partial_bytes,
            index_bytes: index.blocks() * 512,
            other_bytes: snapshots.other_usage()?.bytes,
            trash_bytes: snapshots.trash_usage()?.bytes,
        })
    }

    /// Gives what each layer occupies, by its snapshot's number.
    pub(crate) fn occupied_by_layers(&self) -> Result<HashMap<u64, u64>> {
        let numbers: Vec<u64> = {
            let mirror = self.lock();
            mirror.layers.values().map(|layer| layer.snapshot).collect()
        };
        let mut counted = HashMap::with_capacity(numbers.len());
        for number in numbers {
            let known = self.occupied().get(&number).copied();
            let bytes = match known {
                Some(bytes) => bytes,
                None => match self.0.snapshots.layer_usage(number) {
                    Ok(usage) => usage.bytes,
                    // Removed meanwhile.
                    Err(gantry_snapshot::Error::NotFound(_)) => continue,
                    Err(error) => return Err(error.into()),
                },
            };
            counted.insert(number, bytes);
        }
        // What is gone is forgotten.
        self.occupied().clone_from(&counted);
        Ok(counted)
    }

    fn occupied(&self) -> std::sync::MutexGuard<'_, HashMap<u64, u64>> {
        self.0
            .occupied
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
