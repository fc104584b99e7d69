//! Copies images between registries: whole indexes, all platforms, every byte as it is. Content comes before what names
//! it, so that a destination never has a part of an image under its tag.

use super::{asked, failure, reference};
use crate::cli::Cli;
use crate::command::manifest::remote::Remote;
use crate::failure::{Failure, Outcome};
use crate::grammar::Matches;
use crate::output;
use gantry_api::digest::Digest;
use gantry_api::oci::image::{Descriptor, Index, media_type};
use gantry_api::reference::Reference;
use gantry_distribution::{BlobUpload, FetchedManifest, Mounted, Repository};
use serde_json::Value;
use std::collections::HashSet;
use std::pin::Pin;

/// One copy: from where to where, and what is done already.
struct Copy {
    source: Repository,
    destination: Repository,
    /// The source's path, if both are of one registry: blobs are mounted from there.
    mount_from: Option<String>,
    with_referrers: bool,
    done: HashSet<Digest>,
    bytes: u64,
}

/// Runs the command.
pub async fn mirror(cli: &Cli, matches: &Matches) -> Outcome {
    let (from, to) = (
        reference(&matches.arguments[0])?,
        reference(&matches.arguments[1])?,
    );
    let all_tags = matches.on("all-tags");
    if all_tags && !(from.is_name_only() && to.is_name_only()) {
        return Err(Failure::new(
            "tag can't be used with --all-tags/-a".to_owned(),
        ));
    }
    let remote = Remote::new(&[&from, &to], matches.on("insecure"))?;
    let mut copy = Copy {
        source: remote.repository(cli, &from),
        destination: remote.repository(cli, &to),
        mount_from: (from.domain() == to.domain() && from.path() != to.path())
            .then(|| from.path().to_owned()),
        with_referrers: matches.on("referrers"),
        done: HashSet::new(),
        bytes: 0,
    };
    let names: Vec<(String, String)> = if all_tags {
        let tags = copy.source.tags().await.map_err(failure)?;
        tags.into_iter().map(|tag| (tag.clone(), tag)).collect()
    } else {
        let from = from.or_latest();
        vec![(asked(&from), target(&from, &to))]
    };
    for (source, target) in names {
        let fetched = copy.source.manifest(&source).await.map_err(failure)?;
        copy.manifest(&fetched, &target).await?;
        if !matches.on("quiet") {
            let separator = if target.contains(':') { '@' } else { ':' };
            output::line(&format!(
                "{}{separator}{target}: digest: {} size: {}",
                to.clone().name_only(),
                fetched.descriptor.digest,
                fetched.descriptor.size
            ));
        }
    }
    if !matches.on("quiet") {
        output::line(&format!("Copied {} bytes of blobs", copy.bytes));
    }
    Ok(())
}

/// Says what an image is called at its destination: as the user says, or as at its source.
fn target(from: &Reference, to: &Reference) -> String {
    let of = if to.is_name_only() { from } else { to };
    match (of.tag(), of.digest()) {
        (Some(tag), _) => tag.to_owned(),
        (None, Some(digest)) => digest.to_string(),
        (None, None) => gantry_api::reference::DEFAULT_TAG.to_owned(),
    }
}

impl Copy {
    /// Copies a manifest after all that it names, and puts it under a tag or its digest.
    fn manifest<'a>(
        &'a mut self,
        fetched: &'a FetchedManifest,
        target: &'a str,
    ) -> Pin<Box<dyn Future<Output = Outcome> + 'a>> {
        // Indexes nest, so this calls itself.
        Box::pin(async move {
            let descriptor = &fetched.descriptor;
            if self.done.insert(descriptor.digest.clone()) {
                if media_type::is_index(&descriptor.media_type) {
                    let index: Index = read(descriptor, &fetched.bytes)?;
                    for entry in index.manifests {
                        let digest = entry.digest.to_string();
                        let child = self.source.manifest(&digest).await.map_err(failure)?;
                        self.manifest(&child, &digest).await?;
                    }
                } else {
                    for blob in blobs(&read(descriptor, &fetched.bytes)?) {
                        self.blob(&blob).await?;
                    }
                }
            }
            self.destination
                .put_manifest(target, &descriptor.media_type, fetched.bytes.clone())
                .await
                .map_err(failure)?;
            if self.with_referrers {
                self.referrers(&descriptor.digest).await?;
            }
            Ok(())
        })
    }

    async fn referrers(&mut self, subject: &Digest) -> Outcome {
        let index = self
            .source
            .referrers(subject, None)
            .await
            .map_err(failure)?;
        for entry in index.manifests {
            if self.done.contains(&entry.digest) {
                continue;
            }
            let digest = entry.digest.to_string();
            let fetched = self.source.manifest(&digest).await.map_err(failure)?;
            self.manifest(&fetched, &digest).await?;
        }
        Ok(())
    }

    async fn blob(&mut self, blob: &Descriptor) -> Outcome {
        if !self.done.insert(blob.digest.clone()) {
            return Ok(());
        }
        let has = self.destination.head_blob(&blob.digest).await;
        if has.map_err(failure)?.is_some() {
            return Ok(());
        }
        let upload = match &self.mount_from {
            Some(from) => match self.destination.mount(&blob.digest, from).await {
                Ok(Mounted::Mounted) => return Ok(()),
                Ok(Mounted::Upload(upload)) => upload,
                Err(error) => return Err(failure(error)),
            },
            None => self.destination.upload().await.map_err(failure)?,
        };
        self.send(blob, upload).await
    }

    async fn send(&mut self, blob: &Descriptor, mut upload: BlobUpload) -> Outcome {
        let mut reader = self.source.blob(blob, 0).await.map_err(failure)?;
        while let Some(piece) = reader.next().await.map_err(failure)? {
            self.bytes += piece.len() as u64;
            upload.send(piece).await.map_err(failure)?;
        }
        // The destination compares the digest.
        upload.commit(&blob.digest).await.map_err(failure)
    }
}

fn read<T: serde::de::DeserializeOwned>(descriptor: &Descriptor, bytes: &[u8]) -> Outcome<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Failure::new(format!("read manifest {}: {error}", descriptor.digest)))
}

/// Gives the blobs that a manifest of any kind names and a registry keeps: not those that lie elsewhere.
fn blobs(manifest: &Value) -> Vec<Descriptor> {
    let listed = ["layers", "blobs"]
        .into_iter()
        .filter_map(|key| manifest[key].as_array())
        .flatten();
    std::iter::once(&manifest["config"])
        .chain(listed)
        .filter_map(|value| serde_json::from_value::<Descriptor>(value.clone()).ok())
        .filter(|blob| {
            let urls = blob.extra.get("urls").and_then(Value::as_array);
            urls.is_none_or(Vec::is_empty)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_keeps_its_name_unless_it_is_given_one() {
        let hex = "a".repeat(64);
        let digest = format!("q.io/x@sha256:{hex}");
        for (from, to, want) in [
            ("q.io/x:a", "r.io/y", "a"),
            ("q.io/x:a", "r.io/y:b", "b"),
            ("q.io/x", "r.io/y", "latest"),
            (&digest, "r.io/y", &format!("sha256:{hex}")),
            (&digest, "r.io/y:b", "b"),
        ] {
            let (from, to) = (reference(from).unwrap().or_latest(), reference(to).unwrap());
            assert_eq!(target(&from, &to), want);
        }
    }

    #[test]
    fn blobs_that_lie_elsewhere_are_left_there() {
        let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
        let manifest = serde_json::json!({
            "config": {"digest": digest("a"), "size": 2},
            "layers": [{"digest": digest("b"), "size": 1}, {"digest": digest("c"), "size": 1, "urls": ["https://x.y"]}],
        });
        let found: Vec<String> = blobs(&manifest)
            .iter()
            .map(|blob| blob.digest.to_string())
            .collect();
        assert_eq!(found, [digest("a"), digest("b")]);
        assert!(blobs(&serde_json::json!({})).is_empty());
    }
}
