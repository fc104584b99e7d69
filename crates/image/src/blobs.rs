//! What is remembered of layers' forms at registries, and of manifests.

use crate::error::Result;
use crate::index::Change;
use crate::record::{BlobRecord, LayerRecord, ManifestRecord};
use crate::store::{Images, Lease};
use gantry_api::digest::Digest;
use gantry_api::id::ImageId;
use gantry_api::oci::image::Manifest;
use gantry_api::time::Timestamp;
use gantry_snapshot::Ingest;

impl Images {
    /// Gives an unpacked layer its place before an image names it; it stays until `until` or for good, if one does.
    pub(crate) fn keep_layer(
        &self,
        record: LayerRecord,
        ingest: Ingest,
        blob: BlobRecord,
        until: Timestamp,
        lease: &Lease,
    ) -> Result<()> {
        let mut mirror = self.lock();
        let mut change = Change {
            blobs: vec![blob.clone().with(mirror.blobs.get(&blob.digest))],
            ..Change::default()
        };
        let diff_id = record.diff_id.clone();
        // Another transfer, or a load, may have brought it meanwhile.
        let is_new = !mirror.layers.contains_key(&diff_id);
        if is_new {
            change.layers.push(LayerRecord {
                kept_until: Some(until),
                ..record
            });
        }
        self.write(&change, &mut mirror)?;
        lease.add(&mut mirror, &diff_id);
        if blob.kept {
            // Its bytes come after this record.
            lease.add(&mut mirror, &blob.digest);
        }
        if is_new {
            ingest.commit()?;
        }
        Ok(())
    }

    /// Lets go of layers that no image names, so that they need not wait for their time.
    pub(crate) fn let_go(&self, diff_ids: &[Digest]) -> Result<()> {
        let mut mirror = self.lock();
        let layers = diff_ids
            .iter()
            .filter_map(|diff_id| mirror.layers.get(diff_id));
        let layers = layers.filter(|layer| layer.kept_until.is_some());
        let change = Change {
            layers: layers
                .map(|layer| LayerRecord {
                    kept_until: None,
                    ..layer.clone()
                })
                .collect(),
            ..Change::default()
        };
        if change.is_empty() {
            return Ok(());
        }
        self.write(&change, &mut mirror)?;
        self.collect(&mut mirror, Change::default())
    }

    /// Writes what was learnt of blobs and manifests.
    pub(crate) fn learn(
        &self,
        blobs: Vec<BlobRecord>,
        manifests: Vec<(ManifestRecord, Vec<u8>)>,
    ) -> Result<()> {
        self.commit(crate::store::Staged {
            blobs,
            manifests,
            ..Default::default()
        })
    }

    /// Gives the forms that a layer is known to have, those that were checked here first.
    pub(crate) fn blobs_of(&self, diff_id: &Digest) -> Vec<BlobRecord> {
        let mut blobs: Vec<BlobRecord> = self.lock().blobs_of(diff_id).cloned().collect();
        blobs.sort_by_key(|blob| !blob.verified);
        blobs
    }

    /// Tells whether a manifest's blobs have been seen to be this image's. Whoever names an image's configuration beside
    /// layers of his own has a manifest of the same id, and a pull that finds the layers here never looks at his.
    pub(crate) fn is_proven(&self, manifest: &Manifest, id: &ImageId, diff_ids: &[Digest]) -> bool {
        let mirror = self.lock();
        manifest.config.digest == Digest::from(id)
            && manifest.layers.len() == diff_ids.len()
            && manifest
                .layers
                .iter()
                .zip(diff_ids)
                .all(|(layer, diff_id)| {
                    let blob = mirror.blobs.get(&layer.digest);
                    blob.is_some_and(|blob| blob.verified && blob.diff_id.as_ref() == Some(diff_id))
                })
    }

    /// Gives the record of a manifest.
    pub(crate) fn manifest_record(&self, digest: &Digest) -> Option<ManifestRecord> {
        self.lock().manifests.get(digest).cloned()
    }

    /// Gives the manifests, or indexes, that an image is known to have.
    pub(crate) fn manifests_of(&self, id: &ImageId) -> Vec<ManifestRecord> {
        let mirror = self.lock();
        let manifests = mirror.manifests.values();
        let own = manifests.filter(|manifest| manifest.image.as_ref() == Some(id));
        own.cloned().collect()
    }

    /// Notes that an image is used now; written with the next change.
    pub fn touch(&self, id: &ImageId) {
        let mut mirror = self.lock();
        if mirror.images.contains_key(id) {
            mirror.used.insert(id.clone(), crate::store::now());
        }
    }

    /// Writes the uses that were noted.
    pub fn write_uses(&self) -> Result<()> {
        let mut mirror = self.lock();
        if mirror.used.is_empty() {
            return Ok(());
        }
        self.write(&Change::default(), &mut mirror)
    }
}
