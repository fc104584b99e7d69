//! Checks the whole store against its digests: content, layers' files, records against directories and back.
//!
//! A layer is sound if its files and recipe give the archive of its diffID, and its files are what that archive lists. A repair removes what is damaged, with the
//! images that need it, so that it can be pulled or loaded again; what containers stand on is never taken from them.

use crate::error::Result;
use crate::hash::{AnyHasher, Hasher};
use crate::index::Change;
use crate::pipe::PIECE_BYTES;
use crate::record::{BlobRecord, LayerRecord};
use crate::store::{Images, now, parse_config};
use gantry_api::digest::Digest;
use gantry_api::id::ImageId;
use gantry_api::time::Timestamp;
use std::collections::HashSet;
use std::io::Read;
use std::time::{Duration, SystemTime};

/// Content is there a moment before its record is: what is younger is not judged.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// Is what a check of the store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    pub blobs: u64,
    pub layers: u64,
    pub images: u64,
    /// How many bytes were hashed.
    pub bytes: u64,
    /// What is wrong; empty if the store is sound.
    pub problems: Vec<String>,
    /// What was done about it.
    pub repaired: Vec<String>,
    /// What is still wrong after a repair; empty without one.
    pub remaining: Vec<String>,
}

/// Is what a check goes by.
struct Check<'a> {
    images: &'a Images,
    report: CheckReport,
    /// Content that is damaged or missing.
    bad_content: HashSet<Digest>,
    bad_layers: HashSet<Digest>,
}

impl Images {
    /// Checks everything; with `repair` removes what is damaged. `kept_for` is how long the sound layers of an image that
    /// is removed for a damaged one wait for its next pull.
    pub fn check(&self, repair: bool, kept_for: Duration) -> Result<CheckReport> {
        let mut check = Check::new(self);
        let found = check.find()?;
        if repair && !check.report.problems.is_empty() {
            check.remove_damaged(found.images, kept_for)?;
            check.set_aside(found.content, found.directories)?;
            // What a repair could not reach is not guessed from what it did.
            let mut again = Check::new(self);
            again.find()?;
            check.report.remaining = again.report.problems;
        }
        Ok(check.report)
    }
}

/// Is what a repair removes or sets aside.
struct Found {
    /// Images that lack something.
    images: Vec<ImageId>,
    /// Content without a record.
    content: Vec<Digest>,
    /// Directories of layers without a record.
    directories: Vec<u64>,
}

impl<'a> Check<'a> {
    fn new(images: &'a Images) -> Check<'a> {
        Check {
            images,
            report: CheckReport::default(),
            bad_content: HashSet::new(),
            bad_layers: HashSet::new(),
        }
    }

    /// Looks at everything and changes nothing.
    fn find(&mut self) -> Result<Found> {
        let content = self.content()?;
        self.layers()?;
        Ok(Found {
            images: self.images()?,
            content,
            directories: self.directories()?,
        })
    }

    /// Hashes all content; gives what no record knows.
    fn content(&mut self) -> Result<Vec<Digest>> {
        let content = &self.images.0.content;
        let mut unknown = Vec::new();
        for stored in content.list()? {
            let digest = stored.digest;
            let mut hasher = AnyHasher::new(digest.algorithm());
            let Ok(mut file) = content.read(&digest) else {
                continue;
            };
            let mut buffer = vec![0; PIECE_BYTES];
            let read = loop {
                match file.read(&mut buffer) {
                    Ok(0) => break Ok(()),
                    Ok(length) => {
                        hasher.update(&buffer[..length]);
                        self.report.bytes += length as u64;
                    }
                    Err(error) => break Err(error),
                }
            };
            self.report.blobs += 1;
            let got = hasher.finish();
            if let Err(error) = read {
                self.problem(format!("content {digest} cannot be read: {error}"));
                self.bad_content.insert(digest);
            } else if got != digest {
                self.problem(format!("content {digest} has digest {got}"));
                self.bad_content.insert(digest);
            } else if !self.images.lock().knows_content(&digest) && is_settled(stored.modified) {
                self.problem(format!("content {digest} has no record"));
                unknown.push(digest);
            }
        }
        Ok(unknown)
    }

    /// Rebuilds each layer's archive, hashes it, and compares it with the files.
    fn layers(&mut self) -> Result<()> {
        let layers: Vec<LayerRecord> = self.images.lock().layers.values().cloned().collect();
        for layer in layers {
            let lease = self.images.open_lease();
            if !self.images.lease(&layer.diff_id, &lease) {
                continue;
            }
            let mut hasher = Hasher::default();
            let snapshots = &self.images.0.snapshots;
            let verified = snapshots
                .open_snapshot(layer.snapshot)
                .and_then(|snapshot| gantry_snapshot::verify::verify(snapshot, &mut hasher));
            self.report.layers += 1;
            self.report.bytes += layer.archive_bytes;
            let problem = match verified {
                Err(error) => error.to_string(),
                Ok(differences) => {
                    let got = hasher.finish();
                    if got != layer.diff_id {
                        format!("its files give {got}")
                    } else if differences.is_empty() {
                        continue;
                    } else {
                        differences.join(", ")
                    }
                }
            };
            self.problem(format!(
                "layer {} in `snapshots/{}`: {problem}",
                layer.diff_id, layer.snapshot
            ));
            self.bad_layers.insert(layer.diff_id);
        }
        Ok(())
    }

    /// Compares images with what they need; gives those that lack something.
    fn images(&mut self) -> Result<Vec<ImageId>> {
        let images: Vec<_> = self.images.lock().images.values().cloned().collect();
        let mut bad = Vec::new();
        for image in images {
            self.report.images += 1;
            let digest = Digest::from(&image.id);
            let config = self.images.0.content.get(&digest);
            let mut problems = Vec::new();
            match config.and_then(|raw| parse_config(&raw)) {
                Ok(config) if config.rootfs.diff_ids != image.diff_ids => {
                    problems.push("its record has other layers than its configuration".to_owned());
                }
                Ok(_) => {}
                Err(error) => problems.push(error.to_string()),
            }
            let lacks = {
                let mirror = self.images.lock();
                if !mirror.images.contains_key(&image.id) {
                    // Removed meanwhile, with all it had.
                    continue;
                }
                let lacks = image.diff_ids.iter();
                let lacks = lacks.filter(|diff_id| !mirror.layers.contains_key(diff_id));
                lacks.cloned().collect::<Vec<_>>()
            };
            problems.extend(
                lacks
                    .iter()
                    .map(|diff_id| format!("layer {diff_id} is missing")),
            );
            let is_damaged = self.bad_content.contains(&digest)
                || image.diff_ids.iter().any(|id| self.bad_layers.contains(id));
            if is_damaged || !problems.is_empty() {
                bad.push(image.id.clone());
            }
            for problem in problems {
                self.problem(format!("image {}: {problem}", image.id.short()));
            }
        }
        let (manifests, kept): (Vec<Digest>, Vec<Digest>) = {
            let mirror = self.images.lock();
            // A transfer writes the record before the bytes, and holds the blob until they are there.
            let kept = mirror.blobs.values().filter(|blob| blob.kept);
            let kept = kept.filter(|blob| !mirror.leases.contains_key(&blob.digest));
            (
                mirror.manifests.keys().cloned().collect(),
                kept.map(|blob| blob.digest.clone()).collect(),
            )
        };
        for (kind, digests) in [("manifest", manifests), ("blob", kept)] {
            for digest in digests {
                if self.images.0.content.size(&digest)?.is_some() {
                    continue;
                }
                let is_settled = {
                    let mirror = self.images.lock();
                    mirror.knows_content(&digest) && !mirror.leases.contains_key(&digest)
                };
                if is_settled {
                    self.problem(format!("{kind} {digest} has a record and no content"));
                    self.bad_content.insert(digest);
                }
            }
        }
        Ok(bad)
    }

    /// Compares the directories of layers with the records; gives those without one.
    fn directories(&mut self) -> Result<Vec<u64>> {
        let mut astray = Vec::new();
        for (number, is_container) in self.images.0.snapshots.list()? {
            let is_known = |mirror: &crate::index::Mirror| {
                let mut layers = mirror.layers.values();
                layers.any(|layer| layer.snapshot == number)
            };
            // A layer's record is written, and its directory renamed, under this lock.
            if !is_container
                && !is_known(&self.images.lock())
                && !self.images.0.snapshots.is_active(number)
                && self.images.0.snapshots.layer_path(number).exists()
            {
                self.problem(format!("`snapshots/{number}` has no record"));
                astray.push(number);
            }
        }
        Ok(astray)
    }

    /// Removes what is damaged, with the images that need it.
    fn remove_damaged(&mut self, bad_images: Vec<ImageId>, kept_for: Duration) -> Result<()> {
        let images = self.images;
        let in_use = images.0.snapshots.layers_in_use();
        let mut mirror = images.lock();
        let used: HashSet<Digest> = {
            let layers = mirror.layers.values();
            let used = layers.filter(|layer| in_use.contains(&layer.snapshot));
            used.map(|layer| layer.diff_id.clone()).collect()
        };
        let mut change = Change::default();
        let until = now().unix_nanos() + kept_for.as_nanos() as i128;
        for id in bad_images {
            let Some(image) = mirror.images.get(&id) else {
                continue;
            };
            let is_used = image
                .diff_ids
                .iter()
                .any(|diff_id| self.bad_layers.contains(diff_id) && used.contains(diff_id));
            if is_used {
                self.report.repaired.push(format!(
                    "image {} is left as it is: remove its containers first",
                    id.short()
                ));
                continue;
            }
            for diff_id in &image.diff_ids {
                let layer = mirror.layers.get(diff_id);
                if let Some(layer) = layer.filter(|_| !self.bad_layers.contains(diff_id)) {
                    change.layers.push(LayerRecord {
                        kept_until: Some(Timestamp::from_unix_nanos(until)),
                        ..layer.clone()
                    });
                }
            }
            change.removed_references.extend(mirror.references_of(&id));
            change.removed_images.push(id.clone());
            self.report.repaired.push(format!(
                "image {} is removed: pull or load it again",
                id.short()
            ));
        }
        let leased = &mirror.leases;
        self.bad_content
            .retain(|digest| !leased.contains_key(digest));
        for digest in &self.bad_content {
            let blob = mirror.blobs.get(digest).filter(|blob| blob.kept);
            change.blobs.extend(blob.map(|blob| BlobRecord {
                kept: false,
                ..blob.clone()
            }));
            if mirror.manifests.contains_key(digest) {
                change.removed_manifests.push(digest.clone());
            }
        }
        for diff_id in &self.bad_layers {
            let layer = mirror.layers.get(diff_id);
            // What only a broken-off pull keeps goes at once.
            if let Some(layer) = layer.filter(|layer| layer.kept_until.is_some()) {
                change.layers.push(LayerRecord {
                    kept_until: None,
                    ..layer.clone()
                });
            }
        }
        let kept = Change {
            layers: std::mem::take(&mut change.layers),
            ..Change::default()
        };
        if !kept.is_empty() {
            images.write(&kept, &mut mirror)?;
        }
        let manifests = change.removed_manifests.clone();
        images.collect(&mut mirror, change)?;
        for digest in &self.bad_content {
            if !mirror.knows_content(digest) {
                images.0.content.remove(digest)?;
                self.report
                    .repaired
                    .push(format!("content {digest} is removed"));
            }
        }
        for digest in manifests {
            self.report
                .repaired
                .push(format!("manifest {digest} is forgotten"));
        }
        for diff_id in &self.bad_layers {
            if !mirror.layers.contains_key(diff_id) {
                self.report
                    .repaired
                    .push(format!("layer {diff_id} is removed"));
            }
        }
        Ok(())
    }

    /// Sets aside what no record knows.
    fn set_aside(&mut self, unknown: Vec<Digest>, astray: Vec<u64>) -> Result<()> {
        let mirror = self.images.lock();
        let is_astray = |digest: &Digest| unknown.contains(digest) && !mirror.knows_content(digest);
        let content = &self.images.0.content;
        for path in content.quarantine_unknown(|digest| !is_astray(digest))? {
            let text = format!("content is set aside in `{}`", path.display());
            self.report.repaired.push(text);
        }
        for number in astray {
            if let Some(path) = self.images.0.snapshots.quarantine_layer(number)? {
                let text = format!("`snapshots/{number}` is set aside in `{}`", path.display());
                self.report.repaired.push(text);
            }
        }
        Ok(())
    }

    fn problem(&mut self, text: String) {
        self.report.problems.push(text);
    }
}

fn is_settled(modified: SystemTime) -> bool {
    modified.elapsed().is_ok_and(|age| age >= SETTLED_AFTER)
}
