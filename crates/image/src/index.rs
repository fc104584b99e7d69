//! The index: which images, references and layers there are.
//!
//! ```text
//! index.redb
//!   layers      hex of diffID       → LayerRecord (JSON)
//!   images      hex of id           → ImageRecord (JSON)
//!   references  canonical reference → hex of image id
//!   removing    snapshot number     → nothing; its directory is on its way to the trash
//!   meta        "version"           → 1
//! ```
//! The file is read whole at open and mirrored in memory, which answers every question; each change is one
//! transaction first and the mirror's change after. A record of a newer version stops the open: an older engine must
//! not guess.

use crate::error::{Error, Result};
use gantry_api::digest::Digest;
use gantry_api::id::ImageId;
use gantry_api::reference::Reference;
use gantry_api::time::Timestamp;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const LAYERS: TableDefinition<&str, &[u8]> = TableDefinition::new("layers");
const IMAGES: TableDefinition<&str, &[u8]> = TableDefinition::new("images");
const REFERENCES: TableDefinition<&str, &str> = TableDefinition::new("references");
const REMOVING: TableDefinition<u64, ()> = TableDefinition::new("removing");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const VERSION: u64 = 1;
/// Everything is mirrored, so redb's own cache only serves the writes.
const CACHE_BYTES: usize = 4 << 20;

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
}

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
}

pub(crate) struct Index {
    path: PathBuf,
    /// `None` only while it is being reopened, or after that failed.
    database: Mutex<Option<Database>>,
}

impl Index {
    /// Opens the index and reads it. The second list holds snapshots that are to be removed.
    pub fn open(data_root: &Path) -> Result<(Self, Mirror, Vec<u64>)> {
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
                None => {
                    meta.insert("version", VERSION)
                        .map_err(Error::index(failed))?;
                }
                Some(version) if version > VERSION => {
                    return Err(Error::Unsupported(format!(
                        "`index.redb` has version {version}, this engine knows up to {VERSION}"
                    )));
                }
                Some(_) => {}
            }
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
    }
    write.commit().map_err(Error::index(failed))
}

fn read(database: &Database) -> Result<(Mirror, Vec<u64>)> {
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
    let table = read.open_table(REMOVING).map_err(Error::index(failed))?;
    let mut removing = Vec::new();
    for row in table.iter().map_err(Error::index(failed))? {
        removing.push(row.map_err(Error::index(failed))?.0.value());
    }
    Ok((mirror, removing))
}
