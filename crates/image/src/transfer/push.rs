//! Pushes an image: its blobs, each by the cheapest way there is, and then its manifest.
//!
//! An image that came with a manifest goes with it, byte for byte, as long as each of its blobs can be had: see
//! [`super::upload`]. Else a manifest is made, as Docker makes it: schema 2 for gzip, OCI for what that does not know.

use super::Done;
use super::lines::Lines;
use super::upload::{Blob, Form, Sent, Uploads, Way};
use super::{Events, LINES_MAX, PushOptions, Setup, Transfers};
use crate::encode::Compression;
use crate::error::{Error, Result};
use crate::record::{BlobRecord, ManifestRecord};
use crate::store::{Image, Staged, missing_layer, now};
use crate::transfer::inspect::parse;
use crate::transfer::layer::blocking;
use gantry_api::digest::Digest;
use gantry_api::oci::image::{Descriptor, Manifest, media_type};
use gantry_api::reference::Reference;
use gantry_distribution::Repository;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Is the push of one repository.
#[derive(Clone)]
pub(crate) struct Push {
    pub transfers: Transfers,
    pub setup: Setup,
    pub repository: Repository,
    pub options: PushOptions,
    pub lines: Lines,
    /// The repository's whole name.
    pub target: String,
}

/// Is a manifest to put, with what must be there before.
pub(crate) struct Ready {
    pub media_type: String,
    pub bytes: Vec<u8>,
    pub record: ManifestRecord,
}

impl Transfers {
    /// Pushes an image, or all tags of a repository. Dropping what it gives cancels.
    ///
    /// # Errors
    /// What is known before the first line is an error of the call; all else is the last item.
    pub async fn push(&self, options: PushOptions, done: Done) -> Result<Events> {
        let reference = options.reference.clone();
        if reference.digest().is_some() {
            return Err(Error::invalid("cannot push a digest reference"));
        }
        let setup = self.setup()?;
        let repository = setup.registries.repository_told(
            &reference,
            options.credentials.clone(),
            &options.headers,
        );
        let (sender, receiver) = mpsc::channel(LINES_MAX);
        let push = Push {
            transfers: self.clone(),
            setup,
            repository,
            lines: Lines::new(sender),
            target: reference.name(),
            options,
        };
        push.check_platform().await?;
        let lines = push.lines.clone();
        super::spawn(lines, async move { push.run().await }, reference, done);
        Ok(receiver)
    }
}

impl Push {
    /// Refuses a platform that the image has not.
    async fn check_platform(&self) -> Result<()> {
        let (Some(wanted), Some(_)) = (&self.options.platform, self.options.reference.tag()) else {
            return Ok(());
        };
        let reference = self.options.reference.to_string();
        let (images, name) = (self.transfers.0.images.clone(), reference.clone());
        let Ok(image) = blocking(move || images.get(&name)).await else {
            return Ok(());
        };
        let own = image.config().platform();
        if wanted.matches(&own) {
            return Ok(());
        }
        Err(Error::NotFound(format!(
            "image with reference {reference} was found but its platform ({own}) does not match the specified platform \
             ({wanted})"
        )))
    }

    async fn run(&self) -> Result<()> {
        self.lines
            .status(
                "",
                format!("The push refers to repository [{}]", self.target),
            )
            .await?;
        let references = {
            let push = self.clone();
            blocking(move || Ok(push.references())).await?
        };
        if references.is_empty() {
            let reference = &self.options.reference;
            let of_repository = reference.clone().name_only();
            let images = self.transfers.0.images.clone();
            let is_known = blocking(move || Ok(!images.tags_of(&of_repository).is_empty())).await?;
            return Err(Error::NotFound(match is_known {
                true => format!("tag does not exist: {reference}"),
                false => format!(
                    "An image does not exist locally with the tag: {}",
                    reference.familiar_name()
                ),
            }));
        }
        for reference in references {
            self.one(&reference).await?;
        }
        Ok(())
    }

    /// Gives the references to push: the one that was named, if it is here, or all of the repository.
    fn references(&self) -> Vec<Reference> {
        let images = &self.transfers.0.images;
        let reference = &self.options.reference;
        if reference.is_name_only() {
            return images.tags_of(reference);
        }
        let mirror = images.lock();
        let named = mirror.references.get(&reference.canonical());
        named
            .map(|(reference, _)| reference.clone())
            .into_iter()
            .collect()
    }

    async fn one(&self, reference: &Reference) -> Result<()> {
        let images = self.transfers.0.images.clone();
        let name = reference.to_string();
        let (image, lease) = blocking(move || {
            let image = images.get(&name)?;
            let lease = images.open_lease();
            for layer in &image.layers {
                if !images.lease(&layer.diff_id, &lease) {
                    return Err(missing_layer(&layer.diff_id));
                }
            }
            Ok((image, lease))
        })
        .await?;
        let uploads = Arc::new(Uploads::new(self, lease));
        let ready = if self.options.all_platforms {
            self.whole(&image, &uploads).await?
        } else {
            match self.as_it_came(&image, &uploads).await? {
                Some(ready) => ready,
                None => self.anew(&image, &uploads).await?,
            }
        };
        self.put(reference, &image, ready).await?;
        // Leases are let go of where waiting for the disk is allowed.
        blocking(move || {
            drop(uploads);
            Ok(())
        })
        .await
    }

    /// Sends what the image came with, if its manifest is here and each blob can be had as it was.
    async fn as_it_came(&self, image: &Image, uploads: &Arc<Uploads>) -> Result<Option<Ready>> {
        let Some((record, manifest, bytes)) = self.best_manifest(image).await else {
            return Ok(None);
        };
        if !self.is_as_asked(&manifest) {
            return Ok(None);
        }
        let parts = manifest.layers.iter().zip(&image.layers);
        let blobs = parts.map(|(descriptor, layer)| Blob {
            id: layer.diff_id.short().to_owned(),
            total: layer.size_bytes,
            diff_id: Some(layer.diff_id.clone()),
            form: Form::Exactly(Box::new(descriptor.clone())),
        });
        match uploads.send(blobs.collect()).await {
            Ok(_) => {}
            Err(Error::NotFound(text)) => {
                let text = format!("{text}: the manifest changes");
                self.lines.status("", text).await?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        uploads
            .small(&manifest.config, image.raw_config().to_vec())
            .await?;
        Ok(Some(Ready {
            media_type: record.media_type.clone(),
            bytes,
            record,
        }))
    }

    /// Chooses among the manifests that an image is known by: one of the target, then of its registry, then the newest.
    /// A manifest that only claims to be of this image, because its layers were here already, is none of them.
    async fn best_manifest(&self, image: &Image) -> Option<(ManifestRecord, Manifest, Vec<u8>)> {
        let (images, id) = (self.transfers.0.images.clone(), image.id.clone());
        let diff_ids = image.layers.iter().map(|layer| layer.diff_id.clone());
        let diff_ids: Vec<Digest> = diff_ids.collect();
        let domain = format!("{}/", self.options.reference.domain());
        let target = self.target.clone();
        let found = blocking(move || {
            let mut manifests = images.manifests_of(&id);
            manifests.retain(|record| media_type::is_manifest(&record.media_type));
            manifests.sort_by_key(|record| {
                let mut repositories = record.repositories.iter();
                std::cmp::Reverse((
                    record.repositories.contains(&target),
                    repositories.any(|name| name.starts_with(&domain)),
                    record.stored,
                ))
            });
            Ok(manifests.into_iter().find_map(|record| {
                let bytes = images.0.content.get(&record.digest).ok()?;
                let manifest: Manifest = parse("manifest", &bytes).ok()?;
                let is_proven = images.is_proven(&manifest, &id, &diff_ids);
                is_proven.then_some((record, manifest, bytes))
            }))
        });
        found.await.ok().flatten()
    }

    /// Tells whether a manifest's layers are compressed as was asked for; gzip, the default, asks for nothing.
    fn is_as_asked(&self, manifest: &Manifest) -> bool {
        let asked = self.options.compression;
        asked == Compression::default()
            || manifest
                .layers
                .iter()
                .all(|layer| asked.is_of(&layer.media_type))
    }

    /// Makes a manifest, and the layers that no registry has.
    async fn anew(&self, image: &Image, uploads: &Arc<Uploads>) -> Result<Ready> {
        let compression = self.options.compression;
        let blobs = image.layers.iter().map(|layer| Blob {
            id: layer.diff_id.short().to_owned(),
            total: layer.size_bytes,
            diff_id: Some(layer.diff_id.clone()),
            form: Form::Any(compression),
        });
        let sent = uploads.send(blobs.collect()).await?;
        let is_docker = sent
            .iter()
            .all(|sent| is_docker_layer(&sent.descriptor.media_type))
            && compression == Compression::Gzip;
        let (kind, config_kind) = if is_docker {
            (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG)
        } else {
            (media_type::MANIFEST, media_type::CONFIG)
        };
        let raw = image.raw_config().to_vec();
        let config = Descriptor::new(config_kind, Digest::from(&image.id), raw.len() as u64);
        uploads.small(&config, raw).await?;
        let layers: Vec<Descriptor> = sent
            .iter()
            .map(|sent| in_style(&sent.descriptor, is_docker))
            .collect();
        let mut blobs = vec![config.digest.clone()];
        blobs.extend(layers.iter().map(|layer| layer.digest.clone()));
        let bytes = manifest_bytes(kind, &config, &layers)?;
        let record = ManifestRecord {
            digest: crate::hash::sha256(&bytes),
            media_type: kind.to_owned(),
            size_bytes: bytes.len() as u64,
            image: None,
            repositories: BTreeSet::new(),
            subject: None,
            manifests: Vec::new(),
            blobs,
            stored: Some(now()),
            extra: serde_json::Map::new(),
        };
        Ok(Ready {
            media_type: kind.to_owned(),
            bytes,
            record,
        })
    }

    /// Puts the manifest, remembers where it is now, and tells.
    async fn put(&self, reference: &Reference, image: &Image, ready: Ready) -> Result<()> {
        let tag = reference.tag().unwrap_or("latest").to_owned();
        let Ready {
            media_type,
            bytes,
            mut record,
        } = ready;
        let put = self
            .repository
            .put_manifest(&tag, &media_type, bytes.clone().into());
        let digest = put.await?;
        // A registry names what it stored by an algorithm of its own, whatever the image was pulled by.
        if digest != crate::hash::digest_of(digest.algorithm(), &bytes) {
            return Err(Error::Registry(gantry_distribution::Error::Corrupt(
                format!(
                    "the registry stored {digest} where {} was pushed",
                    record.digest
                ),
            )));
        }
        let size = bytes.len();
        record.digest = digest.clone();
        record.image = Some(image.id.clone());
        record.repositories.insert(self.target.clone());
        let by_digest = reference.clone().name_only().with_digest(digest.clone());
        let (images, id) = (self.transfers.0.images.clone(), image.id.clone());
        blocking(move || {
            // The image may have been removed meanwhile; its push has succeeded all the same.
            if images.get_by_id(&id).is_err() {
                return Ok(());
            }
            images.touch(&id);
            images.commit(Staged {
                references: vec![(by_digest, id)],
                manifests: vec![(record, bytes)],
                tagging: false,
                ..Staged::default()
            })
        })
        .await?;
        self.lines
            .status("", format!("{tag}: digest: {digest} size: {size}"))
            .await?;
        self.lines
            .aux(json!({"Tag": tag, "Digest": digest, "Size": size}))
            .await
    }

    /// Notes where a blob is now.
    pub(crate) async fn learn(&self, blob: &Blob, sent: &Sent) -> Result<()> {
        let record = BlobRecord {
            digest: sent.descriptor.digest.clone(),
            diff_id: blob.diff_id.clone(),
            size_bytes: sent.descriptor.size,
            media_type: sent.descriptor.media_type.clone(),
            annotations: sent.descriptor.annotations.clone(),
            sources: BTreeSet::from([self.target.clone()]),
            verified: sent.way == Way::Made,
            made_by: sent.made_by.clone(),
            kept: false,
            last_used: Some(now()),
            extra: serde_json::Map::new(),
        };
        let images = self.transfers.0.images.clone();
        blocking(move || {
            let is_known = {
                let mirror = images.lock();
                let old = mirror.blobs.get(&record.digest);
                old.is_some_and(|old| {
                    old.sources.is_superset(&record.sources)
                        && (old.verified || !record.verified)
                        && (old.made_by.is_some() || record.made_by.is_none())
                })
            };
            if is_known {
                return Ok(());
            }
            images.learn(vec![record], Vec::new())
        })
        .await
    }
}

fn is_docker_layer(kind: &str) -> bool {
    kind == media_type::DOCKER_LAYER_GZIP || kind == media_type::LAYER_GZIP
}

/// Gives a layer's descriptor with the media type of the manifest's own kind, and nothing else of where it came from.
fn in_style(descriptor: &Descriptor, is_docker: bool) -> Descriptor {
    let kind = match (is_docker, descriptor.media_type.as_str()) {
        (true, _) => media_type::DOCKER_LAYER_GZIP,
        (false, media_type::DOCKER_LAYER_GZIP) => media_type::LAYER_GZIP,
        (false, media_type::DOCKER_LAYER) => media_type::LAYER,
        (false, kind) => kind,
    };
    Descriptor::new(kind, descriptor.digest.clone(), descriptor.size)
}

/// Writes a manifest as Docker's client of registries does: three spaces for each level.
fn manifest_bytes(kind: &str, config: &Descriptor, layers: &[Descriptor]) -> Result<Vec<u8>> {
    use serde::Serialize;
    let part = |descriptor: &Descriptor| json!({"mediaType": descriptor.media_type, "size": descriptor.size, "digest": descriptor.digest});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": kind,
        "config": part(config),
        "layers": layers.iter().map(part).collect::<Vec<_>>(),
    });
    let mut bytes = Vec::new();
    let style = serde_json::ser::PrettyFormatter::with_indent(b"   ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, style);
    manifest
        .serialize(&mut serializer)
        .map_err(|error| Error::io("write a manifest", std::io::Error::from(error)))?;
    Ok(bytes)
}
