//! Loads archives: Docker's format, old and new, and OCI layouts.

use crate::archive::{Part, Parts, read};
use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::record::{ImageRecord, LayerRecord};
use crate::store::{Images, Lease, Staged, no_such_image, now, parse_config};
use crate::unpack::Unpacked;
use gantry_api::digest::Digest;
use gantry_api::id::ImageId;
use gantry_api::oci::image::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, ImageConfig, Index, Manifest,
    media_type,
};
use gantry_api::platform::Platform;
use gantry_api::reference::Reference;
use gantry_api::time::Timestamp;
use serde::Deserialize;
use serde_json::Map;
use std::collections::HashMap;
use std::io::Read;

/// Says what to load.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Of an archive with several platforms, this one; else the best for this machine.
    pub platform: Option<Platform>,
    /// Leaves out the events of progress.
    pub quiet: bool,
}

/// Is an image that was loaded, once for each of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub id: ImageId,
    pub reference: Option<Reference>,
}

/// Is what a load tells while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadEvent {
    /// A layer has come so far; the id is the short diffID.
    Layer {
        id: String,
        current: u64,
        total: u64,
    },
    /// A name left another image, which may have none now.
    Renamed {
        reference: Reference,
        old: ImageId,
    },
    Loaded(Loaded),
}

impl LoadEvent {
    /// Gives Docker's line for the event; progress has none.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Layer { .. } => None,
            Self::Renamed { reference, old } => Some(format!(
                "The image {reference} already exists, renaming the old one with ID {} to empty string\n",
                old.to_digest()
            )),
            Self::Loaded(Loaded {
                reference: Some(reference),
                ..
            }) => Some(format!("Loaded image: {reference}\n")),
            Self::Loaded(Loaded {
                id,
                reference: None,
            }) => Some(format!("Loaded image ID: {}\n", id.to_digest())),
        }
    }
}

/// Is one image of an archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
    #[serde(default)]
    parent: Option<String>,
}

/// Is one image of an archive, whatever the archive's format.
struct Wanted {
    raw_config: Vec<u8>,
    /// Names within the archive, bottom first.
    layers: Vec<String>,
    references: Vec<Reference>,
    parent: Option<ImageId>,
    /// The digests that the layers' blobs must have, if the format names them.
    blobs: Option<Vec<Digest>>,
}

impl Images {
    /// Loads the images of an archive from a stream that need not be seekable.
    ///
    /// Either all of them are stored or none. The events come in the order of Docker's progress lines.
    ///
    /// # Errors
    /// A malformed archive is [`Error::Invalid`]; a full disk leaves nothing behind.
    pub fn load(
        &self,
        input: impl Read + Send,
        options: &LoadOptions,
        events: &mut dyn FnMut(LoadEvent),
    ) -> Result<Vec<Loaded>> {
        let lease = self.open_lease();
        let quiet = options.quiet;
        let mut parts = read(
            input,
            &self.0.snapshots,
            &|digest| self.lease(digest, &lease),
            &mut |digest, current, total| {
                if let (Some(digest), false) = (digest, quiet) {
                    events(LoadEvent::Layer {
                        id: digest.short().to_owned(),
                        current,
                        total,
                    });
                }
            },
        )?;
        let wanted = if let Some(manifest) = parts.small("manifest.json") {
            docker_images(manifest, &parts, options)?
        } else if let Some(index) = parts.small("index.json") {
            oci_images(index, &parts, options)?
        } else {
            return Err(Error::invalid(
                "invalid archive: does not contain a manifest.json",
            ));
        };
        let mut staged = Staged::default();
        let mut new_layers: HashMap<Digest, ()> = HashMap::new();
        for image in &wanted {
            self.stage(image, &mut parts, &lease, &mut staged, &mut new_layers)?;
        }
        self.announce(wanted, staged, events)
    }

    /// Checks one image against the archive and takes its layers.
    fn stage(
        &self,
        image: &Wanted,
        parts: &mut Parts,
        lease: &Lease,
        staged: &mut Staged,
        new_layers: &mut HashMap<Digest, ()>,
    ) -> Result<()> {
        let config = parse_config(&image.raw_config)?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != image.layers.len() {
            return Err(Error::invalid(format!(
                "invalid manifest, layers length mismatch: expected {}, got {}",
                diff_ids.len(),
                image.layers.len()
            )));
        }
        for (number, (name, expected)) in image.layers.iter().zip(diff_ids).enumerate() {
            if new_layers.contains_key(expected) {
                continue;
            }
            let place = parts.layer_name(name);
            let part = place.as_deref().and_then(|place| parts.layer(place));
            let got = match part {
                Some(Part::Unpacked(unpacked)) => {
                    if let (Some(blobs), Some(blob)) = (&image.blobs, &unpacked.blob)
                        && *blob != blobs[number]
                    {
                        return Err(Error::invalid(format!(
                            "layer {number} has digest {blob}, expected {}",
                            blobs[number]
                        )));
                    }
                    unpacked.diff_id.clone()
                }
                Some(Part::Known(digest)) => digest.clone(),
                // Docker, too, asks for no content of what it has.
                _ if self.lease(expected, lease) => continue,
                Some(Part::Failed(_)) => {
                    let failed = place.and_then(|place| parts.take_layer(&place));
                    return Err(match failed {
                        Some(Part::Failed(error)) => error,
                        _ => no_layer(name),
                    });
                }
                _ if parts.small(name).is_some() => {
                    return Err(Error::invalid(format!(
                        "layer `{name}` of the archive is no tar archive"
                    )));
                }
                _ => return Err(no_layer(name)),
            };
            if got != *expected {
                return Err(Error::invalid(format!(
                    "invalid diffID for layer {number}: expected {:?}, got {:?}",
                    expected.as_str(),
                    got.as_str()
                )));
            }
            if let Some(Part::Unpacked(unpacked)) = place.and_then(|place| parts.take_layer(&place))
            {
                new_layers.insert(expected.clone(), ());
                staged.layers.push(layer_record(*unpacked));
            }
        }
        staged.images.push((
            image_record(&image.raw_config, &config, image.parent.clone())?,
            image.raw_config.clone(),
        ));
        Ok(())
    }

    /// Commits and tells.
    fn announce(
        &self,
        wanted: Vec<Wanted>,
        mut staged: Staged,
        events: &mut dyn FnMut(LoadEvent),
    ) -> Result<Vec<Loaded>> {
        let mut told = Vec::new();
        let ids: Vec<ImageId> = staged
            .images
            .iter()
            .map(|(record, _)| record.id.clone())
            .collect();
        for (record, _) in &mut staged.images {
            // A parent that is not here links to nothing.
            let here =
                |parent: &ImageId| ids.contains(parent) || self.lock().images.contains_key(parent);
            if record
                .parent
                .as_ref()
                .is_some_and(|parent| !here(parent) || *parent == record.id)
            {
                record.parent = None;
            }
        }
        for (image, id) in wanted.into_iter().zip(&ids) {
            if image.references.is_empty() {
                told.push(LoadEvent::Loaded(Loaded {
                    id: id.clone(),
                    reference: None,
                }));
            }
            for reference in image.references {
                let old = self
                    .lock()
                    .references
                    .get(&reference.canonical())
                    .map(|(_, old)| old.clone());
                if let Some(old) = old.filter(|old| old != id) {
                    told.push(LoadEvent::Renamed {
                        reference: reference.clone(),
                        old,
                    });
                }
                staged.references.push((reference.clone(), id.clone()));
                told.push(LoadEvent::Loaded(Loaded {
                    id: id.clone(),
                    reference: Some(reference),
                }));
            }
        }
        self.commit(staged)?;
        let mut loaded = Vec::new();
        for event in told {
            if let LoadEvent::Loaded(image) = &event {
                loaded.push(image.clone());
            }
            events(event);
        }
        Ok(loaded)
    }
}

/// Makes the record of an unpacked layer.
pub(crate) fn layer_record(unpacked: Unpacked) -> (LayerRecord, gantry_snapshot::Ingest) {
    let Unpacked {
        diff_id,
        blob: _,
        ingest,
        applied,
        recorded,
    } = unpacked;
    let record = LayerRecord {
        diff_id,
        snapshot: ingest.number(),
        size_bytes: applied.size_bytes,
        archive_bytes: recorded.archive_bytes,
        recipe_bytes: recorded.recipe_bytes,
        root: applied.root,
        synced: false,
        kept_until: None,
        extra: Map::new(),
    };
    (record, ingest)
}

/// Makes the record of an image; its size is filled in at the commit.
pub(crate) fn image_record(
    raw: &[u8],
    config: &ImageConfig,
    parent: Option<ImageId>,
) -> Result<ImageRecord> {
    let digest = sha256(raw);
    let id = digest
        .hex()
        .parse()
        .map_err(|_| no_such_image(digest.as_str()))?;
    Ok(ImageRecord {
        id,
        created: config.created,
        loaded: now(),
        last_tagged: Timestamp::ZERO,
        diff_ids: config.rootfs.diff_ids.clone(),
        size_bytes: 0,
        parent,
        last_used: None,
        extra: Map::new(),
    })
}

fn docker_images(manifest: &[u8], parts: &Parts, options: &LoadOptions) -> Result<Vec<Wanted>> {
    let list: Vec<DockerImage> = serde_json::from_slice(manifest)
        .map_err(|error| Error::invalid(format!("invalid manifest.json: {error}")))?;
    let mut wanted = Vec::new();
    for image in list {
        let raw_config = parts
            .small(&image.config)
            .ok_or_else(|| {
                Error::invalid(format!(
                    "invalid archive: `{}` does not exist",
                    image.config
                ))
            })?
            .to_vec();
        let config = parse_config(&raw_config)?;
        if let Some(platform) = &options.platform
            && !platform.matches(&config.platform())
        {
            continue;
        }
        if !config.os.is_empty() && config.os != "linux" {
            return Err(Error::invalid(format!(
                "cannot load {} image on linux",
                config.os
            )));
        }
        let mut references = Vec::new();
        for tag in image.repo_tags.unwrap_or_default() {
            let reference: Reference = tag
                .parse()
                .map_err(|error| Error::invalid(format!("{error}")))?;
            if reference.tag().is_none() {
                return Err(Error::invalid(format!("invalid tag {tag:?}")));
            }
            references.push(reference);
        }
        let parent = image.parent.and_then(|parent| {
            parent
                .strip_prefix("sha256:")
                .unwrap_or(&parent)
                .parse()
                .ok()
        });
        wanted.push(Wanted {
            raw_config,
            layers: image.layers.unwrap_or_default(),
            references,
            parent,
            blobs: None,
        });
    }
    found(wanted, options)
}

fn oci_images(index: &[u8], parts: &Parts, options: &LoadOptions) -> Result<Vec<Wanted>> {
    let index: Index = json("index.json", index)?;
    let mut wanted = Vec::new();
    for descriptor in &index.manifests {
        let references = names(descriptor);
        let Some(manifest) = choose(descriptor, parts, options, 0)? else {
            continue;
        };
        let raw_config = blob(parts, &manifest.config.digest)?.to_vec();
        let config = parse_config(&raw_config)?;
        if options
            .platform
            .as_ref()
            .is_some_and(|platform| !platform.matches(&config.platform()))
        {
            continue;
        }
        wanted.push(Wanted {
            raw_config,
            layers: manifest
                .layers
                .iter()
                .map(|layer| blob_name(&layer.digest))
                .collect(),
            references,
            parent: None,
            blobs: Some(
                manifest
                    .layers
                    .iter()
                    .map(|layer| layer.digest.clone())
                    .collect(),
            ),
        });
    }
    // One image under several names is listed several times.
    let mut merged: Vec<Wanted> = Vec::new();
    for image in wanted {
        match merged
            .iter_mut()
            .find(|other| other.raw_config == image.raw_config)
        {
            Some(other) => {
                for reference in image.references {
                    if !other.references.contains(&reference) {
                        other.references.push(reference);
                    }
                }
            }
            None => merged.push(image),
        }
    }
    found(merged, options)
}

/// Finds the manifest that a descriptor leads to, through indexes of platforms if need be.
fn choose(
    descriptor: &Descriptor,
    parts: &Parts,
    options: &LoadOptions,
    depth: u32,
) -> Result<Option<Manifest>> {
    if depth > 8 || is_attestation(descriptor) {
        return Ok(None);
    }
    if media_type::is_index(&descriptor.media_type) {
        let index: Index = json("an image index", blob(parts, &descriptor.digest)?)?;
        let host = Platform::host();
        let rank = |inner: &Descriptor| match (&options.platform, &inner.platform) {
            (Some(wanted), Some(platform)) => wanted.matches(platform).then_some(0),
            (None, Some(platform)) => host.rank(platform),
            // Without a platform only the configuration can tell.
            (_, None) => Some(1_000),
        };
        let mut inner: Vec<(u32, &Descriptor)> = index
            .manifests
            .iter()
            .filter(|inner| !is_attestation(inner))
            .filter_map(|inner| Some((rank(inner)?, inner)))
            .collect();
        inner.sort_by_key(|(rank, _)| *rank);
        for (_, inner) in inner {
            // An archive of one platform may keep the index of all.
            if parts.small(&blob_name(&inner.digest)).is_some()
                && let Some(manifest) = choose(inner, parts, options, depth + 1)?
            {
                return Ok(Some(manifest));
            }
        }
        return Ok(None);
    }
    if !descriptor.media_type.is_empty() && !media_type::is_manifest(&descriptor.media_type) {
        return Ok(None);
    }
    let manifest: Manifest = json("an image manifest", blob(parts, &descriptor.digest)?)?;
    // An artifact is no image.
    Ok(media_type::is_config(&manifest.config.media_type).then_some(manifest))
}

fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor
        .annotations
        .contains_key("vnd.docker.reference.type")
        || descriptor
            .platform
            .as_ref()
            .is_some_and(|platform| platform.os == "unknown")
}

/// Reads the names that a descriptor's annotations give; a bare tag names no repository.
fn names(descriptor: &Descriptor) -> Vec<Reference> {
    let annotation = |key: &str| descriptor.annotations.get(key);
    let text = match annotation(ANNOTATION_IMAGE_NAME) {
        Some(name) => Some(name),
        None => annotation(ANNOTATION_REF_NAME).filter(|name| name.contains(['/', ':'])),
    };
    let reference = text
        .and_then(|text| text.parse::<Reference>().ok())
        .map(Reference::or_latest);
    reference
        .filter(|reference| reference.digest().is_none())
        .into_iter()
        .collect()
}

fn blob<'a>(parts: &'a Parts, digest: &Digest) -> Result<&'a [u8]> {
    let bytes = parts.small(&blob_name(digest)).ok_or_else(|| {
        Error::invalid(format!(
            "invalid archive: `{}` does not exist",
            blob_name(digest)
        ))
    })?;
    if digest.algorithm() == "sha256" && sha256(bytes) != *digest {
        return Err(Error::invalid(format!(
            "content of `{}` has digest {}",
            blob_name(digest),
            sha256(bytes)
        )));
    }
    Ok(bytes)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn json<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::invalid(format!("invalid {what}: {error}")))
}

fn no_layer(name: &str) -> Error {
    Error::invalid(format!("invalid archive: layer `{name}` does not exist"))
}

fn found(wanted: Vec<Wanted>, options: &LoadOptions) -> Result<Vec<Wanted>> {
    match (&options.platform, wanted.is_empty()) {
        (Some(platform), true) => Err(Error::NotFound(format!(
            "requested platform ({platform}) not found in the archive"
        ))),
        (None, true) => Err(Error::invalid(
            "invalid archive: does not contain an image for this machine",
        )),
        _ => Ok(wanted),
    }
}
