//! Saves images as an archive that Docker, podman and skopeo load: Docker's `manifest.json` and an OCI layout at once.
//!
//! ```text
//! blobs/sha256/HEX   configurations, manifests, layers (uncompressed, rebuilt from recipes), each once
//! index.json, manifest.json, oci-layout, repositories
//! ```
//! Times are those of the images, so that saving twice gives the same bytes.

use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::record::LayerRecord;
use crate::resolve::resolve;
use crate::store::{Image, Images, Lease, missing_layer, no_such_image};
use gantry_api::digest::Digest;
use gantry_api::oci::image::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, Index, Manifest, media_type,
};
use gantry_api::platform::Platform;
use gantry_api::reference::{AnyReference, Reference, parse_any};
use gantry_snapshot::tar::{Kind, NewEntry, Writer};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;

/// Is an image to save and the names to save it under.
struct Chosen {
    image: Arc<Image>,
    references: Vec<Reference>,
}

impl Images {
    /// Writes the named images as one archive. A repository's name without a tag means all its tags; an id saves the
    /// image without a name.
    ///
    /// # Errors
    /// Fails before the first byte where an image is missing or is not of the platform.
    pub fn save(
        &self,
        names: &[String],
        platform: Option<&Platform>,
        output: impl Write,
    ) -> Result<()> {
        // The lease keeps the layers although the images may be removed meanwhile.
        let lease = self.open_lease();
        let chosen = self.choose(names, platform, &lease)?;
        let mut writer = Writer::new(output);
        let failed = |error: io::Error| Error::io("write archive", error);
        let newest = chosen
            .iter()
            .filter_map(|chosen| chosen.image.created)
            .max();
        let time = newest.map_or((0, 0), |time| (time.unix_seconds(), 0));
        for directory in ["blobs/", "blobs/sha256/"] {
            let entry = NewEntry::new(directory.as_bytes(), Kind::Directory, 0o755, 0, time);
            writer.entry(&entry).map_err(failed)?;
        }
        let mut written = BTreeSet::new();
        let mut docker = Vec::new();
        let mut manifests = Vec::new();
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for Chosen { image, references } in &chosen {
            let mut layers = Vec::new();
            let mut sources = Map::new();
            for layer in &image.layers {
                let record = self.lock().layers.get(&layer.diff_id).cloned();
                let record = record.ok_or_else(|| missing_layer(&layer.diff_id))?;
                layers.push(Descriptor::new(
                    media_type::LAYER,
                    layer.diff_id.clone(),
                    record.archive_bytes,
                ));
                let source = json!({
                    "mediaType": media_type::LAYER, "size": record.archive_bytes, "digest": layer.diff_id,
                });
                sources.insert(layer.diff_id.to_string(), source);
                if written.insert(layer.diff_id.clone()) {
                    self.save_layer(&record, time, &mut writer)?;
                }
            }
            let config = Digest::from(&image.id);
            let manifest = Manifest {
                schema_version: 2,
                media_type: media_type::MANIFEST.to_owned(),
                artifact_type: String::new(),
                config: Descriptor::new(
                    media_type::CONFIG,
                    config.clone(),
                    image.raw_config().len() as u64,
                ),
                layers,
                annotations: BTreeMap::new(),
                extra: Map::new(),
            };
            let manifest = to_json(&manifest)?;
            let digest = sha256(&manifest);
            for (digest, bytes) in [(&config, image.raw_config()), (&digest, &manifest)] {
                if written.insert(digest.clone()) {
                    let name = blob_name(digest);
                    let entry = NewEntry::new(name.as_bytes(), Kind::File, 0o644, 0, time);
                    writer.file(&entry, bytes).map_err(failed)?;
                }
            }
            let descriptor = Descriptor::new(media_type::MANIFEST, digest, manifest.len() as u64);
            if references.is_empty() {
                manifests.push(descriptor.clone());
            }
            for reference in references {
                let tag = reference.tag().unwrap_or_default();
                let annotations = BTreeMap::from([
                    (ANNOTATION_IMAGE_NAME.to_owned(), reference.canonical()),
                    (ANNOTATION_REF_NAME.to_owned(), tag.to_owned()),
                ]);
                manifests.push(Descriptor {
                    annotations,
                    ..descriptor.clone()
                });
                if let Some(top) = image.layers.last() {
                    let tags = repositories.entry(reference.familiar_name()).or_default();
                    tags.insert(tag.to_owned(), top.diff_id.hex().to_owned());
                }
            }
            let tags: Value = match references.is_empty() {
                true => Value::Null,
                false => references.iter().map(ToString::to_string).collect(),
            };
            let layers: Vec<String> = image
                .layers
                .iter()
                .map(|layer| blob_name(&layer.diff_id))
                .collect();
            docker.push(json!({
                "Config": blob_name(&config), "RepoTags": tags, "Layers": layers, "LayerSources": sources,
            }));
        }
        let index = Index {
            schema_version: 2,
            media_type: media_type::INDEX.to_owned(),
            manifests,
            annotations: BTreeMap::new(),
            extra: Map::new(),
        };
        let mut files = vec![
            ("index.json", to_json(&index)?),
            ("manifest.json", to_json(&docker)?),
            ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ];
        if !repositories.is_empty() {
            files.push(("repositories", to_json(&repositories)?));
        }
        for (name, bytes) in files {
            let entry = NewEntry::new(name.as_bytes(), Kind::File, 0o644, 0, time);
            writer.file(&entry, &bytes).map_err(failed)?;
        }
        writer.finish().map_err(failed)?;
        Ok(())
    }

    /// Rebuilds a layer's archive into the output.
    fn save_layer(
        &self,
        record: &LayerRecord,
        time: (i64, u32),
        writer: &mut Writer<impl Write>,
    ) -> Result<()> {
        let name = blob_name(&record.diff_id);
        let entry = NewEntry::new(
            name.as_bytes(),
            Kind::File,
            0o644,
            record.archive_bytes,
            time,
        );
        writer
            .entry(&entry)
            .map_err(|error| Error::io("write archive", error))?;
        let snapshot = self.0.snapshots.open_snapshot(record.snapshot)?;
        gantry_snapshot::recipe::rebuild(snapshot, &mut Data(writer))?;
        Ok(())
    }

    /// Writes the uncompressed archive of a layer, byte for byte as it came.
    pub fn layer_archive(&self, diff_id: &Digest, output: &mut dyn Write) -> Result<()> {
        let lease = self.open_lease();
        if !self.lease(diff_id, &lease) {
            return Err(missing_layer(diff_id));
        }
        let snapshot = self.lock().layers.get(diff_id).map(|layer| layer.snapshot);
        let snapshot = snapshot.ok_or_else(|| missing_layer(diff_id))?;
        gantry_snapshot::recipe::rebuild(self.0.snapshots.open_snapshot(snapshot)?, output)?;
        Ok(())
    }

    fn choose(
        &self,
        names: &[String],
        platform: Option<&Platform>,
        lease: &Lease,
    ) -> Result<Vec<Chosen>> {
        let mut chosen: Vec<Chosen> = Vec::new();
        let mut add = |image: Arc<Image>, reference: Option<Reference>| {
            let position = chosen.iter().position(|chosen| chosen.image.id == image.id);
            let position = position.unwrap_or_else(|| {
                chosen.push(Chosen {
                    image,
                    references: Vec::new(),
                });
                chosen.len() - 1
            });
            let references = &mut chosen[position].references;
            if let Some(reference) = reference.filter(|reference| !references.contains(reference)) {
                references.push(reference);
            }
        };
        for name in names {
            let all_tags = match parse_any(name) {
                Ok(AnyReference::Named(reference)) if reference.is_name_only() => {
                    self.tags_of(&reference)
                }
                _ => Vec::new(),
            };
            if !all_tags.is_empty() {
                for reference in all_tags {
                    add(self.get(&reference.to_string())?, Some(reference));
                }
                continue;
            }
            let (id, reference) = {
                let mirror = self.lock();
                let id = resolve(&mirror, name).map_err(|error| unknown(name, error))?;
                let reference = name
                    .parse::<Reference>()
                    .ok()
                    .filter(|reference| reference.tag().is_some());
                let reference = reference
                    .filter(|reference| mirror.references.contains_key(&reference.canonical()));
                (id, reference)
            };
            add(self.get_by_id(&id)?, reference);
        }
        for Chosen { image, .. } in &chosen {
            if let Some(platform) = platform
                && !platform.matches(&image.config().platform())
            {
                let shown = image
                    .references
                    .first()
                    .map_or_else(|| image.id.short().to_owned(), ToString::to_string);
                return Err(Error::NotFound(format!(
                    "image with reference {shown} was found but its platform ({}) does not match the specified \
                     platform ({platform})",
                    image.config().platform()
                )));
            }
            for layer in &image.layers {
                if !self.lease(&layer.diff_id, lease) {
                    return Err(missing_layer(&layer.diff_id));
                }
            }
        }
        Ok(chosen)
    }

    /// Gives all tags of a repository that are here.
    pub(crate) fn tags_of(&self, repository: &Reference) -> Vec<Reference> {
        let mirror = self.lock();
        let prefix = format!("{}:", repository.name());
        let tags = mirror
            .references
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&prefix));
        tags.map(|(_, (reference, _))| reference.clone())
            .filter(|reference| reference.digest().is_none())
            .collect()
    }
}

struct Data<'a, W>(&'a mut Writer<W>);

impl<W: Write> Write for Data<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.data(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Words the failure of a save as Docker does: a tag that is not there is named otherwise than an image.
fn unknown(name: &str, error: Error) -> Error {
    match (parse_any(name), error) {
        (Ok(AnyReference::Named(reference)), Error::NotFound(_)) => {
            if reference.is_name_only() {
                no_such_image(name)
            } else {
                Error::NotFound("reference does not exist".to_owned())
            }
        }
        (_, error) => error,
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::io("write archive", io::Error::from(error)))
}
