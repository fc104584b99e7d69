//! Containers' writable snapshots over images.

use crate::error::Result;
use crate::store::{Images, missing_layer};
use gantry_api::id::ImageId;
use gantry_snapshot::{Change, Overlay, RootMetadata, Usage};
use std::collections::HashSet;
use std::path::PathBuf;

impl Images {
    /// Reserves the number of a container's snapshot, to be written into its record before [`Images::prepare`].
    pub fn allocate_snapshot(&self) -> Result<u64> {
        Ok(self.0.snapshots.allocate()?)
    }

    /// Makes the writable snapshot `number` over an image's layers; nothing is copied and nothing synced.
    pub fn prepare(&self, number: u64, image: &ImageId) -> Result<()> {
        // Under the lock, so that no removal of the image comes between the look-up and the snapshot's mark.
        let mut mirror = self.lock();
        mirror.used.insert(image.clone(), crate::store::now());
        let record = mirror
            .images
            .get(image)
            .ok_or_else(|| crate::store::no_such_image(&image.to_digest()))?;
        let mut layers = Vec::with_capacity(record.diff_ids.len());
        let mut root = None;
        for diff_id in record.diff_ids.iter().rev() {
            let layer = mirror
                .layers
                .get(diff_id)
                .ok_or_else(|| missing_layer(diff_id))?;
            layers.push(layer.snapshot);
            if let (None, Some((mode, uid, gid))) = (root, layer.root) {
                root = Some(RootMetadata { mode, uid, gid });
            }
        }
        Ok(self.0.snapshots.prepare(number, &layers, root)?)
    }

    /// Gives the mount of a container's snapshot.
    pub fn overlay(&self, number: u64) -> Result<Overlay> {
        Ok(self.0.snapshots.overlay(number)?)
    }

    /// Removes a container's snapshot; its files are deleted in the background. A missing one is no error.
    pub fn release(&self, number: u64) -> Result<()> {
        self.0.snapshots.remove(number)?;
        // The container may have been the last that needed the layers of a removed image. Where every layer has an
        // image, as nearly always, there is nothing to look for.
        let mut mirror = self.lock();
        if mirror.layers.len() == mirror.layer_users.len() {
            return Ok(());
        }
        self.collect(&mut mirror, crate::index::Change::default())
    }

    /// Counts what a container wrote.
    pub fn usage(&self, number: u64) -> Result<Usage> {
        Ok(self.0.snapshots.usage(number)?)
    }

    /// Tells what a container changed.
    pub fn diff(&self, number: u64) -> Result<Vec<Change>> {
        Ok(self.0.snapshots.diff(number)?)
    }

    /// Sets aside the containers' snapshots that are not in `owned`, at the engine's start.
    pub fn quarantine_unowned(&self, owned: &HashSet<u64>) -> Result<Vec<PathBuf>> {
        Ok(self.0.snapshots.quarantine_unowned(owned)?)
    }
}
