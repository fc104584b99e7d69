//! From a reference to the manifest of one platform.

use super::inspect::{parse, small_blob};
use super::layer::blocking;
use super::lines::Lines;
use crate::error::{Error, Result};
use crate::record::ManifestRecord;
use crate::store::{Images, now};
use gantry_api::digest::Digest;
use gantry_api::oci::image::{Descriptor, Index, Manifest, media_type};
use gantry_api::platform::Platform;
use gantry_distribution::{FetchedManifest, Repository};
use std::collections::BTreeSet;

/// Indexes may list indexes; deeper ones are loops.
const DEPTH_MAX: usize = 4;

/// Is what a reference stands for at a registry.
pub(crate) struct Resolved {
    /// What was asked for: an index, or the manifest itself.
    pub top: FetchedManifest,
    /// The way from there to the manifest: indexes and the manifest, with their bytes, each once.
    pub path: Vec<(ManifestRecord, Vec<u8>)>,
    pub manifest: Manifest,
}

/// Chooses the manifest of a platform beneath what was fetched.
pub(crate) async fn choose(
    repository: &Repository,
    images: &Images,
    source: &str,
    top: FetchedManifest,
    platform: Option<&Platform>,
) -> Result<Resolved> {
    let mut path = Vec::new();
    let mut current = top.clone();
    for _ in 0..DEPTH_MAX {
        let kind = current.descriptor.media_type.as_str();
        if !media_type::is_index(kind) {
            let manifest: Manifest = parse("manifest", &current.bytes)?;
            let mut record = record(&current, source);
            record.subject = subject(&manifest);
            let parts = std::iter::once(&manifest.config).chain(&manifest.layers);
            record.blobs = parts.map(|part| part.digest.clone()).collect();
            path.push((record, current.bytes.to_vec()));
            return Ok(Resolved {
                top,
                path,
                manifest,
            });
        }
        let index: Index = parse("index", &current.bytes)?;
        let best = best(&index, platform)?;
        let mut record = record(&current, source);
        record.manifests.push(best.digest.clone());
        path.push((record, current.bytes.to_vec()));
        current = by_digest(repository, images, &best.digest).await?;
    }
    Err(Error::invalid(format!(
        "the indexes of `{source}` are nested too deeply"
    )))
}

/// Finds the manifest that serves a platform best.
fn best<'a>(index: &'a Index, platform: Option<&Platform>) -> Result<&'a Descriptor> {
    let wanted = platform.cloned().unwrap_or_else(Platform::host);
    let candidates = index.manifests.iter();
    let candidates = candidates.filter_map(|descriptor| {
        // A manifest that does not say what it is for is for everybody, but the last choice.
        let rank = match &descriptor.platform {
            Some(platform) => wanted.rank(platform)?,
            None if is_runnable(descriptor) => u32::MAX,
            None => return None,
        };
        Some((rank, descriptor))
    });
    let best = candidates.min_by_key(|(rank, _)| *rank);
    best.map(|(_, descriptor)| descriptor).ok_or_else(|| {
        Error::NotFound(format!(
            "no matching manifest for {} in the manifest list entries",
            wanted
        ))
    })
}

fn is_runnable(descriptor: &Descriptor) -> bool {
    let kind = &descriptor.media_type;
    (media_type::is_manifest(kind) || media_type::is_index(kind))
        && !descriptor.extra.contains_key("artifactType")
}

/// Makes the record of something that was fetched.
pub(crate) fn record(fetched: &FetchedManifest, source: &str) -> ManifestRecord {
    let Descriptor {
        media_type,
        digest,
        size,
        ..
    } = &fetched.descriptor;
    ManifestRecord {
        digest: digest.clone(),
        media_type: media_type.clone(),
        size_bytes: *size,
        image: None,
        repositories: BTreeSet::from([source.to_owned()]),
        subject: None,
        manifests: Vec::new(),
        blobs: Vec::new(),
        stored: Some(now()),
        extra: serde_json::Map::new(),
    }
}

pub(crate) fn subject(manifest: &Manifest) -> Option<Digest> {
    manifest.extra.get("subject")?["digest"]
        .as_str()?
        .parse()
        .ok()
}

/// Refuses what is no image, in Docker's words.
pub(crate) fn check_is_image(manifest: &Manifest) -> Result<()> {
    let kind = manifest.config.media_type.as_str();
    let is_layer = |descriptor: &Descriptor| {
        let kind = &descriptor.media_type;
        kind.contains(".tar") || kind.contains("rootfs.diff") || kind == "application/octet-stream"
    };
    let class = match kind {
        "application/vnd.docker.plugin.v1+json" => "plugin",
        _ if (media_type::is_config(kind) || kind == "application/octet-stream")
            && manifest.layers.iter().all(is_layer) =>
        {
            return Ok(());
        }
        kind if media_type::is_config(kind) => {
            let odd = manifest.layers.iter().find(|layer| !is_layer(layer));
            return Err(Error::invalid(format!(
                "the manifest has a layer of type {:?}, which is no file system layer",
                odd.map_or("", |layer| layer.media_type.as_str())
            )));
        }
        _ => "unknown",
    };
    Err(Error::invalid(format!(
        "encountered remote {kind:?}({class}) when fetching"
    )))
}

/// Gives a manifest or index from the store, if it is there and, where that matters, known to be in a repository.
pub(crate) async fn local(
    images: &Images,
    digest: &Digest,
    repository: Option<&str>,
) -> Option<FetchedManifest> {
    let (images, digest) = (images.clone(), digest.clone());
    let found = blocking(move || {
        let record = images.manifest_record(&digest);
        Ok((record, images.0.content.get(&digest)?))
    });
    let (record, bytes) = found.await.ok()?;
    let record = record?;
    if repository.is_some_and(|repository| !record.repositories.contains(repository)) {
        return None;
    }
    Some(FetchedManifest {
        descriptor: Descriptor::new(&record.media_type, record.digest, record.size_bytes),
        bytes: bytes.into(),
        rate_limit: None,
        host: String::new(),
    })
}

/// Gives a manifest or index from the store, else from the repository.
pub(crate) async fn by_digest(
    repository: &Repository,
    images: &Images,
    digest: &Digest,
) -> Result<FetchedManifest> {
    match local(images, digest, None).await {
        Some(here) => Ok(here),
        None => Ok(repository.manifest(digest.as_str()).await?),
    }
}

/// Fetches a configuration, telling nobody.
pub(crate) async fn config(repository: &Repository, manifest: &Manifest) -> Result<Vec<u8>> {
    small_blob(repository, &manifest.config).await
}

/// Tells what the registry said of its limits, if it did.
pub(crate) async fn tell_limit(lines: &Lines, top: &FetchedManifest) -> Result<()> {
    let Some(limit) = top.rate_limit else {
        return Ok(());
    };
    lines.status("", format!("Rate limit: {limit}")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(text: &str) -> Index {
        serde_json::from_str(text).unwrap()
    }

    fn hex(digit: &str) -> String {
        format!("sha256:{}", digit.repeat(64))
    }

    #[test]
    fn the_best_platform_is_chosen_and_attestations_are_not() {
        let index = index(&format!(
            r#"{{"schemaVersion":2,"manifests":[
            {{"mediaType":"{m}","digest":"{a}","size":1,"platform":{{"os":"unknown","architecture":"unknown"}}}},
            {{"mediaType":"{m}","digest":"{b}","size":1,"platform":{{"os":"linux","architecture":"arm","variant":"v6"}}}},
            {{"mediaType":"{m}","digest":"{c}","size":1,"platform":{{"os":"linux","architecture":"arm","variant":"v7"}}}}
            ]}}"#,
            m = media_type::MANIFEST,
            a = hex("a"),
            b = hex("b"),
            c = hex("c")
        ));
        let wanted: Platform = "linux/arm/v7".parse().unwrap();
        assert_eq!(
            best(&index, Some(&wanted)).unwrap().digest.as_str(),
            hex("c")
        );
        let wanted: Platform = "linux/arm/v6".parse().unwrap();
        assert_eq!(
            best(&index, Some(&wanted)).unwrap().digest.as_str(),
            hex("b")
        );
        let wanted: Platform = "linux/s390x".parse().unwrap();
        assert_eq!(
            best(&index, Some(&wanted)).unwrap_err().to_string(),
            "no matching manifest for linux/s390x in the manifest list entries"
        );
    }

    #[test]
    fn what_is_no_image_is_refused_by_its_type() {
        let manifest = |config: &str, layer: &str| -> Manifest {
            let text = format!(
                r#"{{"schemaVersion":2,"config":{{"mediaType":"{config}","digest":"{d}","size":2}},
                "layers":[{{"mediaType":"{layer}","digest":"{d}","size":2}}]}}"#,
                d = hex("a")
            );
            serde_json::from_str(&text).unwrap()
        };
        assert!(check_is_image(&manifest(media_type::CONFIG, media_type::LAYER_ZSTD)).is_ok());
        let plugin = manifest("application/vnd.docker.plugin.v1+json", media_type::LAYER);
        assert_eq!(
            check_is_image(&plugin).unwrap_err().to_string(),
            r#"encountered remote "application/vnd.docker.plugin.v1+json"(plugin) when fetching"#
        );
        let chart = manifest("application/vnd.cncf.helm.config.v1+json", "text/plain");
        assert!(check_is_image(&chart).is_err());
        let odd = manifest(media_type::CONFIG, "application/vnd.in-toto+json");
        assert!(check_is_image(&odd).is_err());
    }
}
