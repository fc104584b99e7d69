//! Pushes an index that was kept, with everything beneath it.

use super::push::{Push, Ready};
use super::upload::{Blob, Form, Uploads};
use crate::error::{Error, Result};
use crate::record::ManifestRecord;
use crate::store::Image;
use crate::transfer::inspect::parse;
use crate::transfer::layer::blocking;
use gantry_api::digest::Digest;
use gantry_api::id::ImageId;
use gantry_api::oci::image::{Descriptor, Manifest, media_type};
use std::collections::HashSet;
use std::sync::Arc;

/// Is a manifest or index with its bytes.
type Part = (ManifestRecord, Vec<u8>);

impl Push {
    /// Sends everything beneath the index that an image came with; the index itself is what is left to put.
    pub(super) async fn whole(&self, image: &Image, uploads: &Arc<Uploads>) -> Result<Ready> {
        let (images, id) = (self.transfers.0.images.clone(), image.id.clone());
        let target = self.target.clone();
        let found = blocking(move || {
            let mut indexes = images.manifests_of(&id);
            indexes.retain(|record| media_type::is_index(&record.media_type));
            indexes.sort_by_key(|record| {
                std::cmp::Reverse((record.repositories.contains(&target), record.stored))
            });
            for index in indexes {
                if let Some(parts) = images.beneath(&index)?
                    && images.is_proven_whole(&parts, &id)?
                {
                    return Ok(Some(parts));
                }
            }
            Ok(None)
        })
        .await?;
        let Some(mut parts) = found else {
            return Err(Error::NotFound(format!(
                "image {} was not pulled with all its platforms: no whole index is here",
                self.options.reference
            )));
        };
        let Some((index, index_bytes)) = parts.pop() else {
            return Err(Error::Cancelled);
        };
        let mut sent: HashSet<Digest> = HashSet::new();
        for (record, bytes) in parts {
            if media_type::is_index(&record.media_type) {
                self.put_part(&record, bytes).await?;
                continue;
            }
            let manifest: Manifest = parse("manifest", &bytes)?;
            let parts = std::iter::once(&manifest.config).chain(&manifest.layers);
            let new = parts.filter(|part| sent.insert(part.digest.clone()));
            let new: Vec<Descriptor> = new.cloned().collect();
            let images = self.transfers.0.images.clone();
            let blobs = blocking(move || {
                let mirror = images.lock();
                let blobs = new.into_iter().map(|descriptor| Blob {
                    id: descriptor.digest.short().to_owned(),
                    total: descriptor.size,
                    diff_id: mirror
                        .blobs
                        .get(&descriptor.digest)
                        .and_then(|known| known.diff_id.clone()),
                    form: Form::Exactly(Box::new(descriptor)),
                });
                Ok(blobs.collect())
            });
            uploads.send(blobs.await?).await?;
            self.put_part(&record, bytes).await?;
        }
        Ok(Ready {
            media_type: index.media_type.clone(),
            bytes: index_bytes,
            record: index,
        })
    }

    async fn put_part(&self, record: &ManifestRecord, bytes: Vec<u8>) -> Result<()> {
        let put =
            self.repository
                .put_manifest(record.digest.as_str(), &record.media_type, bytes.into());
        put.await?;
        Ok(())
    }
}

impl crate::store::Images {
    /// Tells whether an index holds an image's manifest, each of whose layers was seen to be the image's.
    fn is_proven_whole(&self, parts: &[Part], id: &ImageId) -> Result<bool> {
        let diff_ids = match self.lock().images.get(id) {
            Some(image) => image.diff_ids.clone(),
            None => return Ok(false),
        };
        let config = Digest::from(id);
        let mut is_proven = false;
        for (record, bytes) in parts {
            if media_type::is_manifest(&record.media_type) {
                let manifest: Manifest = parse("manifest", bytes)?;
                if manifest.config.digest == config {
                    if !self.is_proven(&manifest, id, &diff_ids) {
                        return Ok(false);
                    }
                    is_proven = true;
                }
            }
        }
        Ok(is_proven)
    }

    /// Gives everything beneath an index and at last itself, each behind what it names; nothing, if a part is not here.
    fn beneath(&self, index: &ManifestRecord) -> Result<Option<Vec<Part>>> {
        let mut order: Vec<ManifestRecord> = Vec::new();
        let mut open = vec![index.clone()];
        while let Some(record) = open.pop() {
            let bytes = self.0.content.get(&record.digest)?;
            if media_type::is_index(&record.media_type) {
                let listed: gantry_api::oci::image::Index = parse("index", &bytes)?;
                for below in listed.manifests {
                    match self.manifest_record(&below.digest) {
                        Some(record) => open.push(record),
                        None => return Ok(None),
                    }
                }
            }
            order.retain(|other| other.digest != record.digest);
            order.push(record);
        }
        order.reverse();
        let mut parts = Vec::new();
        for record in order {
            let bytes = self.0.content.get(&record.digest)?;
            parts.push((record, bytes));
        }
        Ok(Some(parts))
    }
}
