//! The index: which images, references and layers there are.
//!
//! ```text
//! index.redb
//!   layers      hex of diffID       → LayerRecord (JSON)
//!   images      hex of id           → ImageRecord (JSON)
//!   references  canonical reference → hex of image id
//!   manifests   digest              → ManifestRecord (JSON); its bytes are content
//!   blobs       digest              → BlobRecord (JSON): what is known of a layer's form at registries
//!   removing    snapshot number     → nothing; its directory is on its way to the trash
//!   dropping    digest              → nothing; its content is on its way out
//!   meta        "version"           → 2
//! ```
//! Version 1 had no manifests and blobs; nothing else differs, so opening adds the tables. Fields of records that are
//! not known here are kept and written again.
//!
//! The file is read whole at open and mirrored in memory, which answers every question; each change is one
//! transaction first and the mirror's change after. A record of a newer version stops the open: an older engine must
//! not guess.

use crate::error::{Error, Result};
use crate::record::{BlobRecord, ImageRecord, LayerRecord, ManifestRecord};
use gantry_api::digest::Digest;
use gantry_api::id::ImageId;
use gantry_api::reference::Reference;
use gantry_api::time::Timestamp;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const LAYERS: TableDefinition<&str, &[u8]> = TableDefinition::new("layers");
const IMAGES: TableDefinition<&str, &[u8]> = TableDefinition::new("images");
const REFERENCES: TableDefinition<&str, &str> = TableDefinition::new("references");
const REMOVING: TableDefinition<u64, ()> = TableDefinition::new("removing");
const MANIFESTS: TableDefinition<&str, &[u8]> = TableDefinition::new("manifests");
const BLOBS: TableDefinition<&str, &[u8]> = TableDefinition::new("blobs");
const DROPPING: TableDefinition<&str, ()> = TableDefinition::new("dropping");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const VERSION: u64 = 2;
/// Everything is mirrored, so redb's own cache only serves the writes.
const CACHE_BYTES: usize = 4 << 20;

/// Is the mirror in memory.
#[derive(Default)]
pub(crate) struct Mirror {
    pub layers: HashMap<Digest, LayerRecord>,
    pub images: BTreeMap<ImageId, ImageRecord>,
    pub references: BTreeMap<String, (Reference, ImageId)>,
    pub by_image: HashMap<ImageId, BTreeSet<Reference>>,
    /// How many images use a layer.
    pub layer_users: HashMap<Digest, u32>,
    /// How many running operations rely on a layer.
    pub leases: HashMap<Digest, u32>,
    pub manifests: BTreeMap<Digest, ManifestRecord>,
    pub blobs: BTreeMap<Digest, BlobRecord>,
    /// The blobs of a layer.
    pub by_layer: HashMap<Digest, BTreeSet<Digest>>,
    /// Uses that no transaction has written yet: each change takes them along, since one of their own would cost every
    /// start of a container a wait for the disk.
    pub used: HashMap<ImageId, Timestamp>,
}

/// Is a change to write: plain data, made by the verbs and carried out by [`Index::apply`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    pub layers: Vec<LayerRecord>,
    pub images: Vec<ImageRecord>,
    pub references: Vec<(Reference, ImageId)>,
    pub removed_references: Vec<Reference>,
    pub removed_images: Vec<ImageId>,
    pub removed_layers: Vec<Digest>,
    /// Snapshots whose directories are gone.
    pub finished: Vec<u64>,
    pub manifests: Vec<ManifestRecord>,
    pub blobs: Vec<BlobRecord>,
    pub removed_manifests: Vec<Digest>,
    pub removed_blobs: Vec<Digest>,
    /// Content to be removed after this change.
    pub dropped: Vec<Digest>,
    /// Content that is gone.
    pub gone: Vec<Digest>,
}

/// Is what a removal had begun when the last process ended.
#[derive(Debug, Default)]
pub(crate) struct Unfinished {
    pub snapshots: Vec<u64>,
    pub content: Vec<Digest>,
}

pub(crate) struct Index {
    path: PathBuf,
    /// `None` only while it is being reopened, or after that failed.
    database: Mutex<Option<Database>>,
}

impl Index {
    /// Opens the index and reads it.
    pub fn open(data_root: &Path) -> Result<(Self, Mirror, Unfinished)> {
        let failed = "open `index.redb`";
        let path = data_root.join("index.redb");
        let database = create(&path)?;
        let write = database.begin_write().map_err(Error::index(failed))?;
        {
            let mut meta = write.open_table(META).map_err(Error::index(failed))?;
            let version = meta
                .get("version")
                .map_err(Error::index(failed))?
                .map(|value| value.value());
            match version {
                Some(version) if version > VERSION => {
                    return Err(Error::Unsupported(format!(
                        "`index.redb` has version {version}, this engine knows up to {VERSION}"
                    )));
                }
                // Of version 1 only the tables that follow are missing.
                None | Some(1) => {
                    meta.insert("version", VERSION)
                        .map_err(Error::index(failed))?;
                }
                Some(_) => {}
            }
            write.open_table(MANIFESTS).map_err(Error::index(failed))?;
            write.open_table(BLOBS).map_err(Error::index(failed))?;
            write.open_table(DROPPING).map_err(Error::index(failed))?;
            write.open_table(LAYERS).map_err(Error::index(failed))?;
            write.open_table(IMAGES).map_err(Error::index(failed))?;
            write.open_table(REFERENCES).map_err(Error::index(failed))?;
            write.open_table(REMOVING).map_err(Error::index(failed))?;
        }
        write.commit().map_err(Error::index(failed))?;
        let (mirror, removing) = read(&database)?;
        Ok((
            Self {
                path,
                database: Mutex::new(Some(database)),
            },
            mirror,
            removing,
        ))
    }

    /// Gives the place of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a change and brings the mirror in line. On an error neither is changed.
    ///
    /// `make_space` is asked once after a failure: redb wants to be reopened after any failed write, so that is done
    /// as well, and a disk that was full for a moment does not make the store read-only.
    pub fn apply(
        &self,
        change: &Change,
        mirror: &mut Mirror,
        make_space: &dyn Fn() -> bool,
    ) -> Result<()> {
        let change = &with_uses(change, mirror);
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match &*database {
            Some(open) => write(open, change, mirror),
            None => Err(Error::io(
                "write `index.redb`",
                std::io::Error::other("it could not be reopened"),
            )),
        };
        if let Err(error) = written {
            *database = None;
            let space = make_space();
            let open = database.insert(create(&self.path)?);
            if !space {
                return Err(error);
            }
            write(open, change, mirror)?;
        }
        drop(database);
        mirror.used.clear();
        for layer in &change.layers {
            mirror.layers.insert(layer.diff_id.clone(), layer.clone());
        }
        for image in &change.images {
            if let Some(old) = mirror.images.insert(image.id.clone(), image.clone()) {
                mirror.count(&old, false);
            }
            mirror.count(image, true);
        }
        for (reference, id) in &change.references {
            mirror.drop_reference(reference);
            mirror
                .references
                .insert(reference.canonical(), (reference.clone(), id.clone()));
            mirror
                .by_image
                .entry(id.clone())
                .or_default()
                .insert(reference.clone());
        }
        for reference in &change.removed_references {
            mirror.drop_reference(reference);
        }
        for id in &change.removed_images {
            if let Some(old) = mirror.images.remove(id) {
                mirror.count(&old, false);
            }
        }
        for diff_id in &change.removed_layers {
            mirror.layers.remove(diff_id);
        }
        for manifest in &change.manifests {
            mirror
                .manifests
                .insert(manifest.digest.clone(), manifest.clone());
        }
        for blob in &change.blobs {
            mirror.drop_blob(&blob.digest);
            mirror.add_blob(blob.clone());
        }
        for digest in &change.removed_manifests {
            mirror.manifests.remove(digest);
        }
        for digest in &change.removed_blobs {
            mirror.drop_blob(digest);
        }
        Ok(())
    }
}

impl Mirror {
    /// Gives the references of an image, sorted.
    pub fn references_of(&self, id: &ImageId) -> Vec<Reference> {
        self.by_image
            .get(id)
            .map(|set| set.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Gives the images that were made from this one.
    pub fn children(&self, id: &ImageId) -> Vec<&ImageRecord> {
        self.images
            .values()
            .filter(|image| image.parent.as_ref() == Some(id))
            .collect()
    }

    /// Gives the blobs that a layer is known as.
    pub fn blobs_of(&self, diff_id: &Digest) -> impl Iterator<Item = &BlobRecord> {
        let digests = self.by_layer.get(diff_id).into_iter().flatten();
        digests.filter_map(|digest| self.blobs.get(digest))
    }

    fn add_blob(&mut self, blob: BlobRecord) {
        if let Some(diff_id) = &blob.diff_id {
            self.by_layer
                .entry(diff_id.clone())
                .or_default()
                .insert(blob.digest.clone());
        }
        self.blobs.insert(blob.digest.clone(), blob);
    }

    fn drop_blob(&mut self, digest: &Digest) {
        if let Some(diff_id) = self.blobs.remove(digest).and_then(|blob| blob.diff_id)
            && let Some(set) = self.by_layer.get_mut(&diff_id)
        {
            set.remove(digest);
            if set.is_empty() {
                self.by_layer.remove(&diff_id);
            }
        }
    }

    fn count(&mut self, image: &ImageRecord, used: bool) {
        for diff_id in image.diff_ids.iter().collect::<BTreeSet<_>>() {
            let users = self.layer_users.entry(diff_id.clone()).or_default();
            *users = if used {
                *users + 1
            } else {
                users.saturating_sub(1)
            };
            if *users == 0 {
                self.layer_users.remove(diff_id);
            }
        }
    }

    fn drop_reference(&mut self, reference: &Reference) {
        if let Some((_, id)) = self.references.remove(&reference.canonical())
            && let Some(set) = self.by_image.get_mut(&id)
        {
            set.remove(reference);
            if set.is_empty() {
                self.by_image.remove(&id);
            }
        }
    }
}

/// Adds the uses that wait to be written.
fn with_uses(change: &Change, mirror: &Mirror) -> Change {
    let mut change = change.clone();
    for (id, time) in &mirror.used {
        match change.images.iter_mut().find(|image| image.id == *id) {
            Some(image) => image.last_used = image.last_used.max(Some(*time)),
            None if change.removed_images.contains(id) => {}
            None => change
                .images
                .extend(mirror.images.get(id).map(|image| ImageRecord {
                    last_used: Some(*time),
                    ..image.clone()
                })),
        }
    }
    change
}

fn create(path: &Path) -> Result<Database> {
    Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create(path)
        .map_err(Error::index("open `index.redb`"))
}

fn write(database: &Database, change: &Change, mirror: &Mirror) -> Result<()> {
    let failed = "write `index.redb`";
    let json = |error: serde_json::Error| Error::io(failed, std::io::Error::from(error));
    let write = database.begin_write().map_err(Error::index(failed))?;
    {
        let mut layers = write.open_table(LAYERS).map_err(Error::index(failed))?;
        let mut images = write.open_table(IMAGES).map_err(Error::index(failed))?;
        let mut references = write.open_table(REFERENCES).map_err(Error::index(failed))?;
        let mut removing = write.open_table(REMOVING).map_err(Error::index(failed))?;
        let mut manifests = write.open_table(MANIFESTS).map_err(Error::index(failed))?;
        let mut blobs = write.open_table(BLOBS).map_err(Error::index(failed))?;
        let mut dropping = write.open_table(DROPPING).map_err(Error::index(failed))?;
        for layer in &change.layers {
            let value = serde_json::to_vec(layer).map_err(json)?;
            layers
                .insert(layer.diff_id.hex(), value.as_slice())
                .map_err(Error::index(failed))?;
        }
        for image in &change.images {
            let value = serde_json::to_vec(image).map_err(json)?;
            images
                .insert(image.id.as_str(), value.as_slice())
                .map_err(Error::index(failed))?;
        }
        for (reference, id) in &change.references {
            references
                .insert(reference.canonical().as_str(), id.as_str())
                .map_err(Error::index(failed))?;
        }
        for reference in &change.removed_references {
            references
                .remove(reference.canonical().as_str())
                .map_err(Error::index(failed))?;
        }
        for id in &change.removed_images {
            images.remove(id.as_str()).map_err(Error::index(failed))?;
        }
        for diff_id in &change.removed_layers {
            layers.remove(diff_id.hex()).map_err(Error::index(failed))?;
            if let Some(layer) = mirror.layers.get(diff_id) {
                removing
                    .insert(layer.snapshot, ())
                    .map_err(Error::index(failed))?;
            }
        }
        for number in &change.finished {
            removing.remove(number).map_err(Error::index(failed))?;
        }
        for manifest in &change.manifests {
            let value = serde_json::to_vec(manifest).map_err(json)?;
            manifests
                .insert(manifest.digest.as_str(), value.as_slice())
                .map_err(Error::index(failed))?;
        }
        for blob in &change.blobs {
            let value = serde_json::to_vec(blob).map_err(json)?;
            blobs
                .insert(blob.digest.as_str(), value.as_slice())
                .map_err(Error::index(failed))?;
        }
        for digest in &change.removed_manifests {
            let removed = manifests.remove(digest.as_str());
            removed.map_err(Error::index(failed))?;
        }
        for digest in &change.removed_blobs {
            let removed = blobs.remove(digest.as_str());
            removed.map_err(Error::index(failed))?;
        }
        for digest in &change.dropped {
            let inserted = dropping.insert(digest.as_str(), ());
            inserted.map_err(Error::index(failed))?;
        }
        for digest in &change.gone {
            let removed = dropping.remove(digest.as_str());
            removed.map_err(Error::index(failed))?;
        }
    }
    write.commit().map_err(Error::index(failed))
}

fn read(database: &Database) -> Result<(Mirror, Unfinished)> {
    let failed = "read `index.redb`";
    let json = |error: serde_json::Error| Error::io(failed, std::io::Error::from(error));
    let damaged = || {
        Error::io(
            failed,
            std::io::Error::from(std::io::ErrorKind::InvalidData),
        )
    };
    let read = database.begin_read().map_err(Error::index(failed))?;
    let mut mirror = Mirror::default();
    let table = read.open_table(LAYERS).map_err(Error::index(failed))?;
    for row in table.iter().map_err(Error::index(failed))? {
        let (_, value) = row.map_err(Error::index(failed))?;
        let layer: LayerRecord = serde_json::from_slice(value.value()).map_err(json)?;
        mirror.layers.insert(layer.diff_id.clone(), layer);
    }
    let table = read.open_table(IMAGES).map_err(Error::index(failed))?;
    for row in table.iter().map_err(Error::index(failed))? {
        let (_, value) = row.map_err(Error::index(failed))?;
        let image: ImageRecord = serde_json::from_slice(value.value()).map_err(json)?;
        mirror.count(&image, true);
        mirror.images.insert(image.id.clone(), image);
    }
    let table = read.open_table(REFERENCES).map_err(Error::index(failed))?;
    for row in table.iter().map_err(Error::index(failed))? {
        let (key, value) = row.map_err(Error::index(failed))?;
        let reference: Reference = key.value().parse().map_err(|_| damaged())?;
        let id: ImageId = value.value().parse().map_err(|_| damaged())?;
        mirror
            .by_image
            .entry(id.clone())
            .or_default()
            .insert(reference.clone());
        mirror
            .references
            .insert(key.value().to_owned(), (reference, id));
    }
    let table = read.open_table(MANIFESTS).map_err(Error::index(failed))?;
    for row in table.iter().map_err(Error::index(failed))? {
        let (_, value) = row.map_err(Error::index(failed))?;
        let manifest: ManifestRecord = serde_json::from_slice(value.value()).map_err(json)?;
        mirror.manifests.insert(manifest.digest.clone(), manifest);
    }
    let table = read.open_table(BLOBS).map_err(Error::index(failed))?;
    for row in table.iter().map_err(Error::index(failed))? {
        let (_, value) = row.map_err(Error::index(failed))?;
        mirror.add_blob(serde_json::from_slice(value.value()).map_err(json)?);
    }
    let mut unfinished = Unfinished::default();
    let table = read.open_table(REMOVING).map_err(Error::index(failed))?;
    for row in table.iter().map_err(Error::index(failed))? {
        let number = row.map_err(Error::index(failed))?.0.value();
        unfinished.snapshots.push(number);
    }
    let table = read.open_table(DROPPING).map_err(Error::index(failed))?;
    for row in table.iter().map_err(Error::index(failed))? {
        let (key, _) = row.map_err(Error::index(failed))?;
        let digest = key.value().parse().map_err(|_| damaged())?;
        unfinished.content.push(digest);
    }
    Ok((mirror, unfinished))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by the engine that had version 1: table, key, value.
    const VERSION_1: &str = include_str!("../tests/data/index-version-1.tsv");

    #[test]
    fn version_1_is_taken_over_and_unknown_fields_stay() {
        let root = tempfile::tempdir().unwrap();
        let database = create(&root.path().join("index.redb")).unwrap();
        let write = database.begin_write().unwrap();
        for line in VERSION_1.lines() {
            let mut columns = line.split('\t');
            let mut column = || columns.next().unwrap();
            let (table, key, value) = (column(), column(), column());
            match table {
                "references" => {
                    let mut table = write.open_table(REFERENCES).unwrap();
                    table.insert(key, value).unwrap();
                }
                "meta" => {
                    let mut table = write.open_table(META).unwrap();
                    table.insert(key, value.parse::<u64>().unwrap()).unwrap();
                }
                table => {
                    let definition: TableDefinition<&str, &[u8]> = TableDefinition::new(table);
                    let value = value.replacen('{', r#"{"of_the_future":7,"#, 1);
                    let mut table = write.open_table(definition).unwrap();
                    table.insert(key, value.as_bytes()).unwrap();
                }
            }
        }
        write.open_table(REMOVING).unwrap();
        write.commit().unwrap();
        drop(database);
        let (index, mut mirror, _) = Index::open(root.path()).unwrap();
        assert_eq!((mirror.layers.len(), mirror.images.len()), (1, 1));
        assert_eq!(mirror.references.len(), 2);
        let change = Change {
            layers: mirror.layers.values().cloned().collect(),
            images: mirror.images.values().cloned().collect(),
            ..Change::default()
        };
        index.apply(&change, &mut mirror, &|| false).unwrap();
        drop(index);
        let (_, mirror, _) = Index::open(root.path()).unwrap();
        let layer = mirror.layers.values().next().unwrap();
        let image = mirror.images.values().next().unwrap();
        assert_eq!(layer.extra["of_the_future"], 7);
        assert_eq!(image.extra["of_the_future"], 7);
        assert!(layer.kept_until.is_none() && image.last_used.is_none());
    }

    #[test]
    fn a_newer_version_is_refused() {
        let root = tempfile::tempdir().unwrap();
        drop(Index::open(root.path()).unwrap());
        let database = create(&root.path().join("index.redb")).unwrap();
        let write = database.begin_write().unwrap();
        let mut meta = write.open_table(META).unwrap();
        meta.insert("version", VERSION + 1).unwrap();
        drop(meta);
        write.commit().unwrap();
        drop(database);
        assert!(matches!(
            Index::open(root.path()),
            Err(Error::Unsupported(_))
        ));
    }

    #[test]
    fn a_use_is_written_with_the_next_change() {
        let root = tempfile::tempdir().unwrap();
        let (index, mut mirror, _) = Index::open(root.path()).unwrap();
        let id: ImageId = "ab".repeat(32).parse().unwrap();
        let record = ImageRecord {
            id: id.clone(),
            created: None,
            loaded: Timestamp::ZERO,
            last_tagged: Timestamp::ZERO,
            diff_ids: Vec::new(),
            size_bytes: 0,
            parent: None,
            last_used: None,
            extra: serde_json::Map::new(),
        };
        let change = Change {
            images: vec![record],
            ..Change::default()
        };
        index.apply(&change, &mut mirror, &|| false).unwrap();
        let time = Timestamp::from_unix_nanos(5);
        mirror.used.insert(id.clone(), time);
        let change = Change {
            finished: vec![1],
            ..Change::default()
        };
        index.apply(&change, &mut mirror, &|| false).unwrap();
        assert!(mirror.used.is_empty());
        drop(index);
        let (_, mirror, _) = Index::open(root.path()).unwrap();
        assert_eq!(mirror.images[&id].last_used, Some(time));
    }
}
