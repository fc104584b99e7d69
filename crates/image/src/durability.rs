//! Layers and the disk: a load does not wait for it, and a loss of power is found at the next open.

use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::index::{Change, Index, Mirror};
use crate::record::LayerRecord;
use crate::store::Images;
use gantry_api::digest::Digest;
use gantry_snapshot::Snapshots;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

impl Images {
    /// Waits in a thread until the layers' files are on the disk, and then says so in their records.
    ///
    /// Waiting at once would make every load as slow as the disk. What a loss of power damages before, the next open
    /// finds.
    pub(crate) fn sync_later(&self, layers: Vec<Digest>) {
        let (index, mirror) = (Arc::clone(&self.0.index), Arc::clone(&self.0.mirror));
        let Ok(directory) = std::fs::File::open(self.0.snapshots.path()) else {
            return;
        };
        let thread = std::thread::Builder::new()
            .name("layer-sync".into())
            .spawn(move || {
                if gantry_snapshot::sync(&directory).is_err() {
                    return;
                }
                let mut mirror = mirror.lock().unwrap_or_else(PoisonError::into_inner);
                let records = layers
                    .iter()
                    .filter_map(|diff_id| mirror.layers.get(diff_id));
                let records = records
                    .map(|layer| LayerRecord {
                        synced: true,
                        ..layer.clone()
                    })
                    .collect();
                // On failure the layers are checked once more than needed.
                let _ = index.apply(
                    &Change {
                        layers: records,
                        ..Change::default()
                    },
                    &mut mirror,
                    &|| false,
                );
            });
        let mut syncing = self
            .0
            .syncing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        syncing.retain(|thread| !thread.is_finished());
        syncing.extend(thread);
    }
}

/// Checks the layers that were not known to be on the disk; sets aside damaged ones and drops the records of what
/// needs them, because an image that runs with empty files is worse than one that must be loaded again.
pub(crate) fn drop_damaged(
    index: &Index,
    mirror: &mut Mirror,
    snapshots: &Snapshots,
) -> Result<Vec<PathBuf>> {
    let mut set_aside = Vec::new();
    let mut change = Change::default();
    for layer in mirror.layers.values().filter(|layer| !layer.synced) {
        let mut hasher = Hasher::default();
        let rebuilt = snapshots
            .open_snapshot(layer.snapshot)
            .and_then(|snapshot| gantry_snapshot::recipe::rebuild(snapshot, &mut hasher));
        if rebuilt.is_ok() && hasher.finish() == layer.diff_id {
            change.layers.push(LayerRecord {
                synced: true,
                ..layer.clone()
            });
            continue;
        }
        change.removed_layers.push(layer.diff_id.clone());
        set_aside.extend(snapshots.quarantine_layer(layer.snapshot)?);
    }
    for image in mirror.images.values() {
        if image
            .diff_ids
            .iter()
            .any(|diff_id| change.removed_layers.contains(diff_id))
        {
            change.removed_images.push(image.id.clone());
            change
                .removed_references
                .extend(mirror.references_of(&image.id));
        }
    }
    if !change.is_empty() {
        if !change.layers.is_empty() {
            let root = snapshots.open_root()?;
            gantry_snapshot::sync(&root).map_err(|error| Error::io("sync the layers", error))?;
        }
        index.apply(&change, mirror, &|| snapshots.make_space())?;
        let finished = set_aside
            .iter()
            .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
            .collect();
        index.apply(
            &Change {
                finished,
                ..Change::default()
            },
            mirror,
            &|| snapshots.make_space(),
        )?;
    }
    Ok(set_aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImportOptions;
    use gantry_api::id::ImageId;
    use gantry_snapshot::tar::{Kind, NewEntry, Writer};

    fn import(images: &Images, name: &str) -> ImageId {
        let mut writer = Writer::new(Vec::new());
        writer
            .file(
                &NewEntry::new(name.as_bytes(), Kind::File, 0o644, 0, (1, 0)),
                b"content",
            )
            .unwrap();
        let options = ImportOptions {
            reference: Some(name.parse().unwrap()),
            message: String::new(),
            changes: Vec::new(),
            platform: None,
        };
        images
            .import(writer.finish().unwrap().as_slice(), &options)
            .unwrap()
    }

    fn unsync(images: &Images) {
        let mut mirror = images.lock();
        let layers = mirror
            .layers
            .values()
            .map(|layer| LayerRecord {
                synced: false,
                ..layer.clone()
            })
            .collect();
        images
            .write(
                &Change {
                    layers,
                    ..Change::default()
                },
                &mut mirror,
            )
            .unwrap();
    }

    #[test]
    fn a_layer_that_a_loss_of_power_damaged_is_set_aside_with_its_image() {
        let root = tempfile::tempdir().unwrap();
        let images = Images::open(root.path()).unwrap();
        import(&images, "good");
        import(&images, "bad");
        drop(images);
        let images = Images::open(root.path()).unwrap();
        assert!(images.lock().layers.values().all(|layer| layer.synced));
        unsync(&images);
        let bad = images.get("bad").unwrap().layers[0].path.join("bad");
        // As ext4 leaves a file whose blocks were not allocated yet.
        std::fs::File::create(&bad).unwrap();
        drop(images);
        let images = Images::open(root.path()).unwrap();
        assert!(images.get("good").is_ok());
        assert!(images.get("bad").is_err());
        assert!(
            images
                .set_aside()
                .iter()
                .any(|path| path.join("fs/bad").exists()),
            "{:?}",
            images.set_aside()
        );
        assert!(images.lock().layers.values().all(|layer| layer.synced));
        // It can be loaded again.
        import(&images, "bad");
        assert_eq!(
            std::fs::read(images.get("bad").unwrap().layers[0].path.join("bad")).unwrap(),
            b"content"
        );
    }
}
