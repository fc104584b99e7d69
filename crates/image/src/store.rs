//! The store itself: opening, finding images, tagging, and the commit of new images.
//!
//! One lock guards the mirror of the index and is held over each change's transaction, so a change sees and leaves a
//! whole state. A *lease* keeps a layer while an operation relies on it and no image names it yet.

use crate::content::{self, Content};
use crate::durability::drop_damaged;
use crate::error::{Error, Result};
use crate::hash::chain_ids;
use crate::index::{Change, Index, Mirror};
use crate::record::{BlobRecord, ImageRecord, LayerRecord, ManifestRecord};
use crate::resolve::{resolve, tag_target};
use gantry_api::digest::Digest;
use gantry_api::id::ImageId;
use gantry_api::oci::image::ImageConfig;
use gantry_api::reference::Reference;
use gantry_api::time::Timestamp;
use gantry_snapshot::{Ingest, Snapshots};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

/// How many parsed images are kept.
const CACHED_MAX: usize = 512;

/// Owns the images of one data root; clones share it.
#[derive(Clone)]
pub struct Images(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub snapshots: Snapshots,
    pub content: Content,
    pub index: Arc<Index>,
    pub mirror: Arc<Mutex<Mirror>>,
    /// Threads that wait for layers to reach the disk.
    pub syncing: Mutex<Vec<JoinHandle<()>>>,
    /// What layers occupy, by the numbers of their snapshots; it never changes.
    pub occupied: Mutex<HashMap<u64, u64>>,
    cache: Mutex<HashMap<ImageId, Arc<Parsed>>>,
    set_aside: Vec<PathBuf>,
}

/// Is what of an image never changes.
pub(crate) struct Parsed {
    pub config: ImageConfig,
    pub raw: Vec<u8>,
}

/// Is an image as it was when it was asked for.
#[derive(Clone)]
pub struct Image {
    pub id: ImageId,
    /// Tags, sorted.
    pub references: Vec<Reference>,
    /// References with a digest, sorted.
    pub digests: Vec<Reference>,
    /// The sum of the layers' sizes.
    pub size_bytes: u64,
    pub parent: Option<ImageId>,
    pub created: Option<Timestamp>,
    pub loaded: Timestamp,
    /// Go's zero time if it never was tagged here.
    pub last_tagged: Timestamp,
    /// Bottom first.
    pub layers: Vec<Layer>,
    parsed: Arc<Parsed>,
}

/// Is one layer of an image.
#[derive(Clone, Debug)]
pub struct Layer {
    pub diff_id: Digest,
    pub chain_id: Digest,
    pub size_bytes: u64,
    /// The directory of the layer's tree.
    pub path: PathBuf,
}

impl Image {
    /// Gives the configuration.
    pub fn config(&self) -> &ImageConfig {
        &self.parsed.config
    }

    /// Gives the configuration's bytes, whose digest is the id.
    pub fn raw_config(&self) -> &[u8] {
        &self.parsed.raw
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("id", &self.id)
            .field("references", &self.references)
            .finish_non_exhaustive()
    }
}

impl Images {
    /// Opens the store beneath a data root, made where it is missing.
    ///
    /// What a crash left is finished or swept: half-written content and layers go, recorded ones are completed, removals
    /// go on. Layers whose files may not have reached the disk before a loss of power are checked against their diffID;
    /// a damaged one is reported by [`Images::set_aside`] and its images are no longer listed.
    ///
    /// # Errors
    /// Fails where the file system cannot hold layers, or another process has the store open.
    pub fn open(data_root: &Path) -> Result<Self> {
        std::fs::create_dir_all(data_root)
            .map_err(|error| Error::io(format!("create `{}`", data_root.display()), error))?;
        let snapshots = Snapshots::open(data_root)?;
        let (index, mut mirror, unfinished) = Index::open(data_root)?;
        let content = Content::open(data_root)?;
        for number in &unfinished.snapshots {
            snapshots.remove(*number)?;
        }
        for digest in &unfinished.content {
            // It may have come again since.
            if !mirror.knows_content(digest) {
                content.remove(digest)?;
            }
        }
        if !unfinished.snapshots.is_empty() || !unfinished.content.is_empty() {
            index.apply(
                &Change {
                    finished: unfinished.snapshots,
                    gone: unfinished.content,
                    ..Change::default()
                },
                &mut mirror,
                &|| snapshots.make_space(),
            )?;
        }
        let known: HashSet<u64> = mirror.layers.values().map(|layer| layer.snapshot).collect();
        let mut set_aside = snapshots.recover(&|number| known.contains(&number))?;
        set_aside.extend(drop_damaged(&index, &mut mirror, &snapshots)?);
        content.recover(|digest| mirror.knows_content(digest))?;
        set_aside.extend(content.quarantine_unknown(|digest| mirror.knows_content(digest))?);
        let inner = Inner {
            snapshots,
            content,
            index: Arc::new(index),
            mirror: Arc::new(Mutex::new(mirror)),
            syncing: Mutex::default(),
            occupied: Mutex::default(),
            cache: Mutex::default(),
            set_aside,
        };
        let images = Self(Arc::new(inner));
        images.collect_unused()?;
        Ok(images)
    }

    /// Gives the paths that were set aside at open because no record names them.
    pub fn set_aside(&self) -> &[PathBuf] {
        &self.0.set_aside
    }

    /// Gives the directories of layers and containers.
    pub fn snapshots(&self) -> &Snapshots {
        &self.0.snapshots
    }

    /// Gives configurations, manifests and kept blobs.
    pub fn content(&self) -> &Content {
        &self.0.content
    }

    /// Finds an image by name, full id or unique prefix of one.
    ///
    /// # Errors
    /// Gives Docker's texts: `invalid reference format`, `No such image: x`.
    pub fn get(&self, name: &str) -> Result<Arc<Image>> {
        let mirror = self.lock();
        let id = resolve(&mirror, name)?;
        self.image(&mirror, &id)
    }

    /// Finds an image by its id.
    pub fn get_by_id(&self, id: &ImageId) -> Result<Arc<Image>> {
        self.image(&self.lock(), id)
    }

    /// Gives a name to an image; it leaves the image that had it.
    pub fn tag(&self, source: &str, target: &str) -> Result<ImageId> {
        let target = tag_target(target)?;
        let mut mirror = self.lock();
        let id = resolve(&mirror, source)?;
        let mut record = mirror
            .images
            .get(&id)
            .cloned()
            .ok_or_else(|| no_such_image(source))?;
        record.last_tagged = now();
        let change = Change {
            images: vec![record],
            references: vec![(target, id.clone())],
            ..Change::default()
        };
        self.write(&change, &mut mirror)?;
        Ok(id)
    }

    pub(crate) fn write(&self, change: &Change, mirror: &mut Mirror) -> Result<()> {
        self.0
            .index
            .apply(change, mirror, &|| self.0.snapshots.make_space())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Mirror> {
        self.0.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Builds the view of an image.
    pub(crate) fn image(&self, mirror: &Mirror, id: &ImageId) -> Result<Arc<Image>> {
        let record = mirror
            .images
            .get(id)
            .ok_or_else(|| no_such_image(&id.to_digest()))?;
        let parsed = self.parsed(id)?;
        let (digests, references) = mirror
            .references_of(id)
            .into_iter()
            .partition(|reference| reference.digest().is_some());
        let mut layers = Vec::with_capacity(record.diff_ids.len());
        for (diff_id, chain_id) in record.diff_ids.iter().zip(chain_ids(&record.diff_ids)) {
            let layer = mirror
                .layers
                .get(diff_id)
                .ok_or_else(|| missing_layer(diff_id))?;
            layers.push(Layer {
                diff_id: diff_id.clone(),
                chain_id,
                size_bytes: layer.size_bytes,
                path: self.0.snapshots.layer_path(layer.snapshot),
            });
        }
        Ok(Arc::new(Image {
            id: id.clone(),
            references,
            digests,
            size_bytes: record.size_bytes,
            parent: record.parent.clone(),
            created: record.created,
            loaded: record.loaded,
            last_tagged: record.last_tagged,
            layers,
            parsed,
        }))
    }

    /// Reads and parses a configuration, once.
    pub(crate) fn parsed(&self, id: &ImageId) -> Result<Arc<Parsed>> {
        let mut cache = self.0.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parsed) = cache.get(id) {
            return Ok(Arc::clone(parsed));
        }
        let raw = self.0.content.get(&Digest::from(id))?;
        let config = parse_config(&raw)?;
        if cache.len() >= CACHED_MAX {
            cache.clear();
        }
        let parsed = Arc::new(Parsed { config, raw });
        cache.insert(id.clone(), Arc::clone(&parsed));
        Ok(parsed)
    }

    pub(crate) fn forget(&self, id: &ImageId) {
        self.0
            .cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }

    /// Tells whether a layer is in the store and, if so, keeps it as long as the lease lives.
    pub(crate) fn lease(&self, diff_id: &Digest, lease: &Lease) -> bool {
        let mut mirror = self.lock();
        if !mirror.layers.contains_key(diff_id) {
            return false;
        }
        lease.add(&mut mirror, diff_id);
        true
    }

    /// Opens a lease that keeps nothing yet.
    pub(crate) fn open_lease(&self) -> Lease {
        Lease {
            images: self.clone(),
            held: Mutex::default(),
        }
    }

    /// Removes layers that neither an image, nor a container, nor a lease needs.
    pub(crate) fn collect_unused(&self) -> Result<()> {
        let mut mirror = self.lock();
        self.collect(&mut mirror, Change::default())
    }

    /// Carries out a change together with the removal of the layers, manifests and blobs that it makes superfluous.
    pub(crate) fn collect(&self, mirror: &mut Mirror, mut change: Change) -> Result<()> {
        let in_use = self.0.snapshots.layers_in_use();
        let numbers = crate::garbage::find(mirror, &mut change, &in_use, now());
        if change.is_empty() {
            return Ok(());
        }
        self.carry_out(mirror, change, numbers)
    }

    /// Writes a change, then removes the content and the snapshots that it lets go of. In this order a crash at any point
    /// is finished by the next open.
    pub(crate) fn carry_out(
        &self,
        mirror: &mut Mirror,
        change: Change,
        numbers: Vec<u64>,
    ) -> Result<()> {
        self.write(&change, mirror)?;
        for id in &change.removed_images {
            self.forget(id);
        }
        for digest in &change.dropped {
            // One file may be content for several reasons.
            if !mirror.knows_content(digest) {
                self.0.content.remove(digest)?;
            }
        }
        for number in &numbers {
            self.0.snapshots.remove(*number)?;
        }
        if !numbers.is_empty() || !change.dropped.is_empty() {
            self.write(
                &Change {
                    finished: numbers,
                    gone: change.dropped,
                    ..Change::default()
                },
                mirror,
            )?;
        }
        Ok(())
    }

    /// Writes new images with their layers and references in one transaction, then gives the layers their places.
    pub(crate) fn commit(&self, staged: Staged) -> Result<()> {
        let Staged {
            images,
            layers,
            references,
            manifests,
            blobs,
            tagging,
        } = staged;
        let mut change = Change {
            references,
            ..Change::default()
        };
        let mut places: Vec<Ingest> = Vec::new();
        let make_space = || self.0.snapshots.make_space();
        let configs = images
            .iter()
            .map(|(record, raw)| (Digest::from(&record.id), raw));
        let content: Vec<(Digest, &Vec<u8>)> = configs
            .chain(
                manifests
                    .iter()
                    .map(|(record, raw)| (record.digest.clone(), raw)),
            )
            .collect();
        let is_missing = |digest: &Digest| Ok::<_, Error>(self.0.content.size(digest)?.is_none());
        let mut staged: HashMap<Digest, content::Staged> = HashMap::new();
        let stage = |staged: &mut HashMap<_, _>| {
            for (digest, raw) in &content {
                if is_missing(digest)? && !staged.contains_key(digest) {
                    let new = self.0.content.stage(digest, raw, &make_space)?;
                    staged.insert(digest.clone(), new);
                }
            }
            Ok::<_, Error>(())
        };
        stage(&mut staged)?;
        let mut mirror = self.lock();
        // What was there a removal may have taken since; from here on none can.
        stage(&mut staged)?;
        for (record, ingest) in layers {
            // Another load may have brought the same layer meanwhile.
            if !mirror.layers.contains_key(&record.diff_id) {
                change.layers.push(record);
                places.push(ingest);
            }
        }
        let stamp = now();
        for (record, _) in manifests {
            let old = mirror.manifests.get(&record.digest);
            change.manifests.push(record.with(old));
        }
        for record in blobs {
            let old = mirror.blobs.get(&record.digest);
            change.blobs.push(record.with(old));
        }
        for (mut record, _) in images {
            record.last_used = Some(stamp);
            if let Some(old) = mirror.images.get(&record.id) {
                record.loaded = old.loaded;
                record.last_tagged = old.last_tagged;
                record.parent = record.parent.or_else(|| old.parent.clone());
            }
            if tagging && change.references.iter().any(|(_, id)| *id == record.id) {
                record.last_tagged = stamp;
            }
            let new = change
                .layers
                .iter()
                .map(|layer| (&layer.diff_id, layer.size_bytes))
                .collect::<HashMap<_, _>>();
            let mut size = 0;
            for diff_id in &record.diff_ids {
                let known = mirror.layers.get(diff_id).map(|layer| layer.size_bytes);
                size += known
                    .or_else(|| new.get(diff_id).copied())
                    .ok_or_else(|| missing_layer(diff_id))?;
            }
            record.size_bytes = size;
            for diff_id in &record.diff_ids {
                // From here on the image keeps it.
                let kept = mirror.layers.get(diff_id);
                if let Some(layer) = kept.filter(|layer| layer.kept_until.is_some())
                    && !change.layers.iter().any(|other| other.diff_id == *diff_id)
                {
                    let kept_until = None;
                    change.layers.push(LayerRecord {
                        kept_until,
                        ..layer.clone()
                    });
                }
            }
            change.images.push(record);
        }
        // In this order a crash at any point is finished, or undone, by the next open.
        self.write(&change, &mut mirror)?;
        // All is recorded now: one failure must not take their places from the others.
        let placed: Vec<_> = staged.into_values().map(content::Staged::place).collect();
        let committed: Vec<_> = places.into_iter().map(Ingest::commit).collect();
        placed.into_iter().collect::<Result<()>>()?;
        for result in committed {
            result?;
        }
        let unsynced = change.layers.iter().filter(|layer| !layer.synced);
        let unsynced: Vec<Digest> = unsynced.map(|layer| layer.diff_id.clone()).collect();
        drop(mirror);
        if !unsynced.is_empty() {
            self.sync_later(unsynced);
        }
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The threads hold the index open, which another handle may want next.
        for thread in self
            .syncing
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            let _ = thread.join();
        }
    }
}

/// Is what [`Images::commit`] writes.
pub(crate) struct Staged {
    /// Records and configurations; the sizes are filled in at the commit.
    pub images: Vec<(ImageRecord, Vec<u8>)>,
    pub layers: Vec<(LayerRecord, Ingest)>,
    pub references: Vec<(Reference, ImageId)>,
    pub manifests: Vec<(ManifestRecord, Vec<u8>)>,
    pub blobs: Vec<BlobRecord>,
    /// Whether this counts as giving the images their names; a pull does not.
    pub tagging: bool,
}

impl Default for Staged {
    fn default() -> Self {
        Self {
            images: Vec::new(),
            layers: Vec::new(),
            references: Vec::new(),
            manifests: Vec::new(),
            blobs: Vec::new(),
            tagging: true,
        }
    }
}

impl Mirror {
    /// Gives when an image was last used, named or brought.
    pub fn last_use_of(&self, image: &ImageRecord) -> Timestamp {
        let noted = self.used.get(&image.id).copied();
        let used = noted.max(image.last_used).unwrap_or_default();
        used.max(image.loaded).max(image.last_tagged)
    }

    /// Tells whether a record needs this content.
    pub fn knows_content(&self, digest: &Digest) -> bool {
        let is_image = || {
            let id = digest.hex().parse::<ImageId>();
            digest.algorithm() == "sha256" && id.is_ok_and(|id| self.images.contains_key(&id))
        };
        self.manifests.contains_key(digest)
            || self.blobs.get(digest).is_some_and(|blob| blob.kept)
            || is_image()
    }
}

impl Change {
    pub(crate) fn is_empty(&self) -> bool {
        let Self {
            layers,
            images,
            references,
            removed_references,
            removed_images,
            removed_layers,
            finished,
            manifests,
            blobs,
            removed_manifests,
            removed_blobs,
            dropped,
            gone,
        } = self;
        layers.is_empty()
            && images.is_empty()
            && references.is_empty()
            && removed_references.is_empty()
            && removed_images.is_empty()
            && removed_layers.is_empty()
            && finished.is_empty()
            && manifests.is_empty()
            && blobs.is_empty()
            && removed_manifests.is_empty()
            && removed_blobs.is_empty()
            && dropped.is_empty()
            && gone.is_empty()
    }
}

/// Keeps layers; dropping it lets go of them and removes those that nothing else needs.
pub(crate) struct Lease {
    images: Images,
    held: Mutex<Vec<Digest>>,
}

impl Lease {
    pub(crate) fn add(&self, mirror: &mut Mirror, diff_id: &Digest) {
        *mirror.leases.entry(diff_id.clone()).or_default() += 1;
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(diff_id.clone());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let held = std::mem::take(self.held.get_mut().unwrap_or_else(PoisonError::into_inner));
        if held.is_empty() {
            return;
        }
        let images = &self.images;
        let end = || end_lease(images, held);
        // A cancelled transfer drops its leases wherever it stands. The disk may be written here: the runtime gets
        // another thread for what else this one had to do.
        let is_worker = tokio::runtime::Handle::try_current().is_ok_and(|runtime| {
            runtime.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread
        });
        if is_worker {
            tokio::task::block_in_place(end);
        } else {
            end();
        }
    }
}

fn end_lease(images: &Images, held: Vec<Digest>) {
    let mut mirror = images.lock();
    for diff_id in held {
        if let Some(count) = mirror.leases.get_mut(&diff_id) {
            *count -= 1;
            if *count == 0 {
                mirror.leases.remove(&diff_id);
            }
        }
    }
    // A layer that cannot be removed now is removed at the next open.
    let _ = images.collect(&mut mirror, Change::default());
}

/// Parses an image's configuration.
pub(crate) fn parse_config(raw: &[u8]) -> Result<ImageConfig> {
    serde_json::from_slice(raw)
        .map_err(|error| Error::invalid(format!("invalid image configuration: {error}")))
}

pub(crate) fn no_such_image(name: &str) -> Error {
    Error::NotFound(format!("No such image: {name}"))
}

pub(crate) fn missing_layer(diff_id: &Digest) -> Error {
    Error::NotFound(format!("layer {diff_id} does not exist"))
}

pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_waits_for_the_disk_holds_no_other_task_up() {
        let root = tempfile::tempdir().unwrap();
        let images = Images::open(root.path()).unwrap();
        let lease = images.open_lease();
        lease.add(&mut images.lock(), &crate::hash::sha256(b"layer"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        // Somebody writes the index.
        let writing = images.lock();
        let (dropping, started) = std::sync::mpsc::channel();
        let dropped = runtime.spawn(async move {
            dropping.send(()).unwrap();
            drop(lease);
        });
        started.recv().unwrap();
        let (done, other) = std::sync::mpsc::channel();
        runtime.spawn(async move { done.send(()).unwrap() });
        let other = other.recv_timeout(std::time::Duration::from_secs(10));
        drop(writing);
        runtime.block_on(dropped).unwrap();
        other.unwrap();
        assert!(images.lock().leases.is_empty());
    }
}
