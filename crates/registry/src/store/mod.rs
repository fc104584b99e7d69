//! What the registry keeps: content once, and small files that say which repository may give what.
//!
//! ```text
//! ROOT/lock                                            held by the process that serves or collects
//! ROOT/content/…                                       blobs and manifests by digest (gantry_image::content)
//! ROOT/uploads/ID                                      whose upload `content/partial/ID` is
//! ROOT/tmp/N                                           files on their way to their name; swept at open
//! ROOT/repositories/NAME/_blobs/ALGORITHM-HEX          empty: the repository has the blob
//! ROOT/repositories/NAME/_manifests/ALGORITHM-HEX      the manifest's media type
//! ROOT/repositories/NAME/_tags/TAG                     the digest that the tag stands for
//! ROOT/repositories/NAME/_referrers/SUBJECT/REFERRER   the descriptor of a manifest that refers to SUBJECT
//! ```
//! No component of a repository's name begins with an underscore, so repositories nest without clashes. Files are the
//! truth and nothing of them is kept in memory but what manifests refer to, which never changes.
//!
//! **Crashes.** A file gets its name when its bytes are on the disk, and its directory is synced before a client is told.
//! A manifest is written in the order content, referrer, manifest, tag, and removed in the reverse one, so that whatever
//! is found points at something: a referrer without its manifest is not listed.
//!
//! **Locks**, taken in this order and none below while a higher one is wanted:
//! 1. the lock of one repository: shared by who links or writes a manifest, exclusive for who deletes a manifest and for
//!    the collector while it looks at this repository;
//! 2. the gate, a short mutex, never held over a sync: content that is about to be linked is *pinned*, and the collector
//!    removes content only while it is neither linked nor pinned nor was pinned since it began.

mod blobs;
mod catalog;
mod collect;
mod manifests;
mod parse;
mod referrers;
mod upload;

pub use blobs::Adopt;
pub use collect::{Collected, Policy};
pub use manifests::{PutManifest, StoredManifest};
use parse::Parsed;
pub use upload::Upload;

use crate::error::{Code, Error, Result};
use crate::name::Name;
use gantry_api::digest::Digest;
use gantry_image::content::Content;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime};

/// Keeps everything of one registry; synchronous, for a blocking pool.
pub struct Store {
    root: PathBuf,
    content: Content,
    /// The data root of the engine beside, whose blobs may be taken over.
    engine: Option<PathBuf>,
    gate: Mutex<Gate>,
    repositories: Mutex<HashMap<Name, Weak<RwLock<()>>>>,
    /// What a manifest refers to, by its digest: asked for at every collection, and never different.
    references: Mutex<HashMap<Digest, Arc<[Digest]>>>,
    uploads: upload::Sessions,
    counter: AtomicU64,
    /// One process at a time.
    _lock: File,
}

/// What must not be removed though no link is seen.
#[derive(Default)]
struct Gate {
    pinned: HashMap<Digest, usize>,
    /// Pinned at some time since the running collection began.
    recent: Option<HashSet<Digest>>,
}

/// Keeps content from being collected until its link is there.
struct Pin<'a> {
    store: &'a Store,
    digest: Digest,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut gate = self.store.gate();
        if let Some(count) = gate.pinned.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                gate.pinned.remove(&self.digest);
            }
        }
    }
}

/// The directories of a repository.
#[derive(Clone, Copy)]
enum Kind {
    Blobs,
    Manifests,
    Tags,
    Referrers,
}

impl Kind {
    const fn directory(self) -> &'static str {
        match self {
            Self::Blobs => "_blobs",
            Self::Manifests => "_manifests",
            Self::Tags => "_tags",
            Self::Referrers => "_referrers",
        }
    }
}

impl Store {
    /// Opens or makes the store at a root.
    ///
    /// # Errors
    /// [`Code::Busy`] where another process has it; fails where the directories cannot be made.
    pub fn open(root: &Path, engine: Option<PathBuf>) -> Result<Self> {
        for below in ["", "uploads", "tmp", "repositories"] {
            let path = root.join(below);
            // Rights on repositories are worth nothing if everybody on the machine reads the files.
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|error| Error::io(format!("create `{}`", path.display()), &error))?;
        }
        let path = root.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| Error::io(format!("open `{}`", path.display()), &error))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
            |_| Error {
                code: Code::Busy,
                detail: serde_json::Value::Null,
                cause: Some(format!("`{}` is in use by another process", root.display()).into()),
            },
        )?;
        let temporary = root.join("tmp");
        for entry in list(&temporary)? {
            let _ = fs::remove_file(temporary.join(entry));
        }
        sync_directory(root)?;
        let content = Content::open(root)?;
        if let Some(engine) = &engine {
            check_same_file_system(engine, root)?;
        }
        Ok(Self {
            content,
            root: root.to_owned(),
            engine,
            gate: Mutex::default(),
            repositories: Mutex::default(),
            references: Mutex::default(),
            uploads: upload::Sessions::default(),
            counter: AtomicU64::new(0),
            _lock: lock,
        })
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pin(&self, digest: &Digest) -> Pin<'_> {
        let mut gate = self.gate();
        *gate.pinned.entry(digest.clone()).or_default() += 1;
        if let Some(recent) = &mut gate.recent {
            recent.insert(digest.clone());
        }
        drop(gate);
        Pin {
            store: self,
            digest: digest.clone(),
        }
    }

    /// Gives the lock of a repository.
    fn repository(&self, name: &Name) -> Arc<RwLock<()>> {
        let mut locks = self
            .repositories
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(name).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(RwLock::new(()));
        locks.insert(name.clone(), Arc::downgrade(&lock));
        lock
    }

    fn directory(&self, name: &Name, kind: Kind) -> PathBuf {
        self.root
            .join("repositories")
            .join(name.as_str())
            .join(kind.directory())
    }

    fn link(&self, name: &Name, kind: Kind, digest: &Digest) -> PathBuf {
        self.directory(name, kind).join(file_name(digest))
    }

    /// Writes a small file so that it is whole and on the disk, whatever was there before.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let failed = |error: io::Error| Error::io(format!("write `{}`", path.display()), &error);
        let directory = path.parent().unwrap_or(&self.root);
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let temporary = self.root.join("tmp").join(number.to_string());
        let written = (|| {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            if !bytes.is_empty() {
                file.sync_all()?;
            }
            // The collector removes empty directories, so one that was there may be gone again.
            const TRIES: usize = 5;
            for attempt in 1.. {
                match make_directories(&self.root, directory)
                    .and_then(|()| fs::rename(&temporary, path))
                {
                    Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < TRIES => {}
                    result => return result,
                }
            }
            Ok(())
        })();
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(failed(error));
        }
        sync_directory(directory)
    }

    /// Removes a small file and makes that last; tells whether it was there.
    fn erase(&self, path: &Path) -> Result<bool> {
        match fs::remove_file(path) {
            Ok(()) => {
                sync_directory(path.parent().unwrap_or(&self.root))?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io(format!("remove `{}`", path.display()), &error)),
        }
    }
}

/// Refuses an engine whose content cannot be linked.
fn check_same_file_system(engine: &Path, root: &Path) -> Result<()> {
    let device = |root: &Path| {
        let path = root.join("content");
        fs::metadata(&path)
            .map(|metadata| metadata.dev())
            .map_err(|error| Error::io(format!("stat `{}`", path.display()), &error))
    };
    if device(engine)? == device(root)? {
        return Ok(());
    }
    let (engine, root) = (engine.display(), root.display());
    Err(Error {
        code: Code::Unsupported,
        detail: serde_json::Value::Null,
        cause: Some(format!("`{engine}` and `{root}` are on different file systems").into()),
    })
}

/// Makes directories below `root`, and syncs the one above each new one.
fn make_directories(root: &Path, directory: &Path) -> io::Result<()> {
    if directory == root || directory.is_dir() {
        return Ok(());
    }
    let above = directory.parent().unwrap_or(root);
    make_directories(root, above)?;
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(above)?.sync_all()
}

fn sync_directory(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| Error::io(format!("sync `{}`", path.display()), &error))
}

/// Gives a digest's name as a file, without a colon.
fn file_name(digest: &Digest) -> String {
    digest.as_str().replacen(':', "-", 1)
}

fn digest_of_file(name: &str) -> Option<Digest> {
    name.replacen('-', ":", 1).parse().ok()
}

/// Lists the names in a directory, in no order; a missing one has none.
fn list(path: &Path) -> Result<Vec<String>> {
    let failed = |error: io::Error| Error::io(format!("list `{}`", path.display()), &error);
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}

/// Reads a small file, `None` where there is none.
fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("read `{}`", path.display()), &error)),
    }
}

/// Gives when a file was last written or renewed, `None` where there is none.
fn modified(path: &Path) -> Result<Option<SystemTime>> {
    match fs::metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(time) => Ok(Some(time)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("stat `{}`", path.display()), &error)),
    }
}

/// How old a link's time may be before it is renewed: graces and orders of use count in larger steps.
const RENEW_AFTER: Duration = Duration::from_secs(60);

/// Renews a file's time if it is old.
fn renew_old(path: &Path, time: SystemTime) -> Result<()> {
    match SystemTime::now().duration_since(time) {
        Ok(age) if age > RENEW_AFTER => renew(path),
        _ => Ok(()),
    }
}

/// Gives a file the time of now; a missing one is no error.
fn renew(path: &Path) -> Result<()> {
    let renewed = File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.set_modified(SystemTime::now()));
    match renewed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("renew `{}`", path.display()), &error))
        }
        _ => Ok(()),
    }
}
