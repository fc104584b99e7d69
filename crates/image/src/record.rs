//! The records of the index: layers, images, manifests, blobs.

use gantry_api::digest::Digest;
use gantry_api::id::ImageId;
use gantry_api::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Is an unpacked layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub diff_id: Digest,
    pub snapshot: u64,
    /// What Docker calls the layer's size: the sum of its files.
    pub size_bytes: u64,
    /// The size of the uncompressed archive that the recipe rebuilds.
    pub archive_bytes: u64,
    pub recipe_bytes: u64,
    /// Mode, owner and group of the root, if the layer has an entry for it.
    pub root: Option<(u32, u32, u32)>,
    /// Whether the files have reached the disk; see `Images::open`.
    #[serde(default)]
    pub synced: bool,
    /// Until when it stays although nothing names it: an interrupted pull has brought it and may go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_until: Option<Timestamp>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Is an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub id: ImageId,
    pub created: Option<Timestamp>,
    pub loaded: Timestamp,
    pub last_tagged: Timestamp,
    /// Bottom first.
    pub diff_ids: Vec<Digest>,
    pub size_bytes: u64,
    pub parent: Option<ImageId>,
    /// When a container was last made of it, or it came or was named; see [`Mirror::used`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Is a manifest or an index that an image came with or went with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ManifestRecord {
    pub digest: Digest,
    pub media_type: String,
    pub size_bytes: u64,
    /// The image that it describes, or of which it is the index; it stays as long as that.
    pub image: Option<ImageId>,
    /// Where it is known to be, by whole names (`docker.io/library/busybox`).
    #[serde(default)]
    pub repositories: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
    /// Of an index, the manifests that are here with it.
    #[serde(default)]
    pub manifests: Vec<Digest>,
    /// Of a manifest, its configuration and layers.
    #[serde(default)]
    pub blobs: Vec<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<Timestamp>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Is one form of a layer at registries, or another blob of a manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BlobRecord {
    pub digest: Digest,
    /// The layer that it unpacks to; none for what is no layer of this machine.
    pub diff_id: Option<Digest>,
    pub size_bytes: u64,
    pub media_type: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Where it is known to be, by whole names.
    #[serde(default)]
    pub sources: BTreeSet<String>,
    /// Whether its bytes were unpacked, or made, here: the manifest of another may claim what it likes.
    #[serde(default)]
    pub verified: bool,
    /// The encoder that gives the very same bytes from the layer again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<String>,
    /// Whether its bytes are content.
    #[serde(default)]
    pub kept: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ManifestRecord {
    /// Adds what an older record of the same manifest knows.
    pub fn with(mut self, old: Option<&Self>) -> Self {
        if let Some(old) = old {
            self.repositories.extend(old.repositories.iter().cloned());
            self.image = self.image.or_else(|| old.image.clone());
            for digest in &old.manifests {
                if !self.manifests.contains(digest) {
                    self.manifests.push(digest.clone());
                }
            }
            self.stored = old.stored.or(self.stored);
            self.extra = old.extra.clone();
        }
        self
    }
}

impl BlobRecord {
    /// Adds what an older record of the same blob knows.
    pub fn with(mut self, old: Option<&Self>) -> Self {
        if let Some(old) = old {
            self.sources.extend(old.sources.iter().cloned());
            // What was unpacked here counts more than what a manifest claims.
            if old.verified && !self.verified {
                self.diff_id.clone_from(&old.diff_id);
            }
            self.diff_id = self.diff_id.or_else(|| old.diff_id.clone());
            self.verified |= old.verified;
            self.kept |= old.kept;
            self.made_by = self.made_by.or_else(|| old.made_by.clone());
            self.last_used = self.last_used.max(old.last_used);
            self.extra = old.extra.clone();
        }
        self
    }
}
