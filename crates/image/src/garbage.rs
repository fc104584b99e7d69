//! Decides what a change makes superfluous: layers, manifests, blobs and their content.
//!
//! ```text
//! image ──▶ layers
//!   ▲
//! manifest, index (record names the image) ──▶ further manifests, blobs
//! layer ◀── blob records
//! ```
//! What hangs on nothing goes. Layers also hang on containers, on leases, and for a time on the pull that brought them.

use crate::index::{Change, Mirror};
use crate::record::ManifestRecord;
use gantry_api::digest::Digest;
use gantry_api::id::ImageId;
use gantry_api::time::Timestamp;
use std::collections::{HashMap, HashSet};

/// Adds to a change the removal of what it makes superfluous; gives the numbers of the layers' snapshots.
pub(crate) fn find(
    mirror: &Mirror,
    change: &mut Change,
    in_use: &HashSet<u64>,
    now: Timestamp,
) -> Vec<u64> {
    let mut leaving: HashMap<&Digest, u32> = HashMap::new();
    for id in &change.removed_images {
        let image = mirror.images.get(id);
        let diff_ids = image.map(|image| image.diff_ids.iter().collect::<HashSet<_>>());
        for diff_id in diff_ids.into_iter().flatten() {
            *leaving.entry(diff_id).or_default() += 1;
        }
        change.dropped.push(Digest::from(id));
    }
    let unused = mirror.layers.values().filter(|layer| {
        let users = mirror.layer_users.get(&layer.diff_id).copied();
        let leaving = leaving.get(&layer.diff_id).copied();
        users.unwrap_or(0) <= leaving.unwrap_or(0)
            && !mirror.leases.contains_key(&layer.diff_id)
            && !in_use.contains(&layer.snapshot)
            && layer.kept_until.is_none_or(|until| until < now)
    });
    let (diff_ids, numbers): (Vec<Digest>, Vec<u64>) = unused
        .map(|layer| (layer.diff_id.clone(), layer.snapshot))
        .unzip();
    change.removed_layers.extend(diff_ids);
    find_records(mirror, change);
    numbers
}

/// Finds manifests without an image, and blobs that neither a manifest nor a layer needs.
fn find_records(mirror: &Mirror, change: &mut Change) {
    let removed_images: HashSet<&ImageId> = change.removed_images.iter().collect();
    let lives = |id: &ImageId| mirror.images.contains_key(id) && !removed_images.contains(id);
    let mut reached: HashSet<&Digest> = HashSet::new();
    let mut needed: HashSet<&Digest> = HashSet::new();
    let roots = mirror.manifests.values();
    let mut open: Vec<&ManifestRecord> = roots
        .filter(|manifest| manifest.image.as_ref().is_some_and(lives))
        .collect();
    while let Some(manifest) = open.pop() {
        if reached.insert(&manifest.digest) {
            needed.extend(&manifest.blobs);
            let below = manifest.manifests.iter();
            open.extend(below.filter_map(|digest| mirror.manifests.get(digest)));
        }
    }
    let removed_layers: HashSet<&Digest> = change.removed_layers.iter().collect();
    let has_layer =
        |diff_id: &Digest| mirror.layers.contains_key(diff_id) && !removed_layers.contains(diff_id);
    let manifests = mirror.manifests.keys();
    let manifests: Vec<Digest> = manifests
        .filter(|digest| !reached.contains(digest))
        .cloned()
        .collect();
    let mut blobs = Vec::new();
    let mut content = manifests.clone();
    for blob in mirror.blobs.values() {
        if needed.contains(&blob.digest)
            || mirror.leases.contains_key(&blob.digest)
            || blob.diff_id.as_ref().is_some_and(has_layer)
        {
            continue;
        }
        blobs.push(blob.digest.clone());
        if blob.kept {
            content.push(blob.digest.clone());
        }
    }
    content.append(&mut change.dropped);
    // One file may be content for several reasons: a configuration is an image's and a kept index's.
    content.retain(|digest| {
        let is_kept = mirror.blobs.get(digest).is_some_and(|blob| blob.kept);
        let id = digest.hex().parse::<ImageId>();
        !(reached.contains(digest)
            || is_kept && !blobs.contains(digest)
            || digest.algorithm() == "sha256" && id.is_ok_and(|id| lives(&id)))
    });
    change.removed_manifests.extend(manifests);
    change.removed_blobs.extend(blobs);
    change.dropped = content;
}
