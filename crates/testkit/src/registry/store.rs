//! What the registry keeps.

use std::collections::{BTreeMap, HashMap};

use serde_json::json;
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// `sha256:` and the hash of some bytes.
pub fn digest_of(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The digests of a stored image.
#[derive(Clone, Debug)]
pub struct Image {
    pub manifest: String,
    pub config: String,
    pub layers: Vec<String>,
}

#[derive(Default)]
pub(crate) struct Store {
    blobs: HashMap<String, Vec<u8>>,
    /// Media type and bytes, by repository and digest.
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    /// Digests, by repository and tag.
    tags: BTreeMap<(String, String), String>,
    uploads: HashMap<String, Vec<u8>>,
    uploads_opened: usize,
}

impl Store {
    pub(crate) fn add_blob(&mut self, bytes: &[u8]) -> String {
        let digest = digest_of(bytes);
        self.blobs.insert(digest.clone(), bytes.to_vec());
        digest
    }

    pub(crate) fn add_manifest(
        &mut self,
        repository: &str,
        reference: &str,
        kind: &str,
        bytes: &[u8],
    ) -> String {
        let digest = digest_of(bytes);
        let key = (repository.to_owned(), digest.clone());
        self.manifests
            .insert(key, (kind.to_owned(), bytes.to_vec()));
        if !reference.contains(':') {
            let key = (repository.to_owned(), reference.to_owned());
            self.tags.insert(key, digest.clone());
        }
        digest
    }

    pub(crate) fn add_image(&mut self, repository: &str, tag: &str, layers: &[&[u8]]) -> Image {
        let digests: Vec<String> = layers.iter().map(|layer| self.add_blob(layer)).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": digests},
        })
        .to_string();
        let config_digest = self.add_blob(config.as_bytes());
        let described: Vec<_> = digests
            .iter()
            .zip(layers)
            .map(|(digest, layer)| json!({"mediaType": LAYER, "digest": digest, "size": layer.len()}))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": config_digest, "size": config.len()},
            "layers": described,
        })
        .to_string();
        Image {
            manifest: self.add_manifest(repository, tag, MANIFEST, manifest.as_bytes()),
            config: config_digest,
            layers: digests,
        }
    }

    pub(crate) fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        self.blobs.get(digest).cloned()
    }

    fn find(&self, repository: &str, reference: &str) -> Option<(&str, &(String, Vec<u8>))> {
        let key = |reference: &str| (repository.to_owned(), reference.to_owned());
        let digest = match self.tags.get(&key(reference)) {
            Some(digest) => digest.as_str(),
            None => reference,
        };
        let ((_, digest), found) = self.manifests.get_key_value(&key(digest))?;
        Some((digest, found))
    }

    pub(crate) fn manifest(&self, repository: &str, reference: &str) -> Option<Vec<u8>> {
        Some(self.find(repository, reference)?.1.1.clone())
    }

    /// Digest, media type and bytes.
    pub(crate) fn described(
        &self,
        repository: &str,
        reference: &str,
    ) -> Option<(String, String, Vec<u8>)> {
        let (digest, (kind, bytes)) = self.find(repository, reference)?;
        Some((digest.to_owned(), kind.clone(), bytes.clone()))
    }

    /// Removes a tag, or a manifest with all its tags.
    pub(crate) fn remove_manifest(&mut self, repository: &str, reference: &str) -> bool {
        let key = (repository.to_owned(), reference.to_owned());
        if self.tags.remove(&key).is_some() {
            return true;
        }
        self.tags
            .retain(|(name, _), digest| name != repository || digest != reference);
        self.manifests.remove(&key).is_some()
    }

    pub(crate) fn remove_blob(&mut self, digest: &str) -> bool {
        self.blobs.remove(digest).is_some()
    }

    pub(crate) fn tags(&self, repository: &str) -> Vec<String> {
        let keys = self.tags.keys();
        keys.filter(|(name, _)| name == repository)
            .map(|(_, tag)| tag.clone())
            .collect()
    }

    pub(crate) fn repositories(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .manifests
            .keys()
            .map(|(name, _)| name.clone())
            .collect();
        names.dedup();
        names
    }

    /// Manifests of a repository that name `digest` as their subject, as descriptors.
    pub(crate) fn referrers(&self, repository: &str, digest: &str) -> Vec<serde_json::Value> {
        self.manifests
            .iter()
            .filter(|((name, _), _)| name == repository)
            .filter_map(|((_, own), (kind, bytes))| {
                let manifest: serde_json::Value = serde_json::from_slice(bytes).ok()?;
                (manifest["subject"]["digest"] == digest).then(|| {
                    json!({
                        "mediaType": kind, "digest": own, "size": bytes.len(),
                        "artifactType": manifest["artifactType"].as_str().or(manifest["config"]["mediaType"].as_str()),
                        "annotations": manifest["annotations"],
                    })
                })
            })
            .collect()
    }

    pub(crate) fn open_upload(&mut self) -> String {
        self.uploads_opened += 1;
        let id = format!("upload-{}", self.uploads_opened);
        self.uploads.insert(id.clone(), Vec::new());
        id
    }

    pub(crate) fn upload(&mut self, id: &str) -> Option<&mut Vec<u8>> {
        self.uploads.get_mut(id)
    }

    pub(crate) fn close_upload(&mut self, id: &str) -> Option<Vec<u8>> {
        self.uploads.remove(id)
    }
}
