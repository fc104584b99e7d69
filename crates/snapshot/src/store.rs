//! The directories of layers and containers.
//!
//! ```text
//! snapshots/next            numbers below it may be in use; N is never given twice
//! snapshots/N/fs            a layer's tree, or what a container wrote (upperdir)
//! snapshots/N/work          overlay's workdir; containers only
//! snapshots/N/parents       a link that lists the layers below as `TOPMOST/.../BOTTOM/.`; containers only
//! snapshots/N/recipe        see `recipe`; layers only
//! snapshots/ingest/N        a layer being unpacked
//! snapshots/trash/N         being deleted in the background
//! snapshots/quarantine/N    without an owner's record; kept until a person decides
//! ```
//! ```text
//! ingest ──commit──▶ layer ──remove──▶ trash        prepare ──▶ active ──remove──▶ trash
//!    └──drop / sweep──▶ trash                                     └──no record──▶ quarantine
//! ```
//! Every change is one rename, so a killed process leaves one state or the other. A layer's owner writes its record
//! *before* [`Ingest::commit`] renames; [`Snapshots::recover`] finishes what was recorded and discards the rest.
//! Nothing is synced here: `prepare` is on the path of every container start.

use crate::apply::{Applied, Form, Options, apply_recorded};
use crate::diff::Change;
use crate::error::{Error, Result};
use crate::reaper::Reaper;
use crate::recipe::Recorded;
use gantry_sys::fs::{self as sys, Usage};
use rustix::fs::{AtFlags, Gid, Mode, Uid};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many numbers are reserved by one write of `next`.
const NUMBERS_PER_WRITE: u64 = 1024;

/// Is an overlay mount as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Topmost first.
    pub lowers: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
}

/// Is mode, owner and group of a merged root, which overlay takes from the upper directory alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootMetadata {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Owns the snapshots of one data root; clones share it.
#[derive(Clone)]
pub struct Snapshots(Arc<Inner>);

struct Inner {
    path: PathBuf,
    directory: OwnedFd,
    ingest: OwnedFd,
    numbers: Mutex<Numbers>,
    /// Containers' snapshots and the layers below each.
    active: Mutex<HashMap<u64, Vec<u64>>>,
    reaper: Reaper,
}

struct Numbers {
    next: u64,
    reserved: u64,
}

impl Snapshots {
    /// Opens `snapshots` beneath the data root, made where it is missing, and checks by a real mount that overlay
    /// works there. The thread that deletes the trash starts.
    ///
    /// # Errors
    /// [`Error::Unsupported`] gives the reason why the file system cannot serve.
    pub fn open(data_root: &Path) -> Result<Self> {
        let path = data_root.join("snapshots");
        for below in ["", "ingest", "trash", "quarantine"] {
            let path = path.join(below);
            match std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o710)
                .create(&path)
            {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(Error::io(format!("create `{}`", path.display()), error));
                }
                _ => {}
            }
        }
        let open = |path: &Path| {
            sys::open_directory(rustix::fs::CWD, path)
                .map_err(|error| Error::io(format!("open `{}`", path.display()), error))
        };
        let directory = open(&path)?;
        crate::probe::overlay(&directory)?;
        let mut active = HashMap::new();
        let mut highest = 0;
        for number in numbers(&directory)? {
            highest = highest.max(number);
            if let Some(parents) = read_parents(&directory, number)? {
                active.insert(number, parents);
            }
        }
        for below in ["ingest", "trash", "quarantine"] {
            highest = numbers(&open(&path.join(below))?)?
                .into_iter()
                .fold(highest, u64::max);
        }
        let stored = match std::fs::read_to_string(path.join("next")) {
            Ok(text) => text.trim().parse().unwrap_or(0),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(Error::io("read `snapshots/next`", error)),
        };
        let next = (highest + 1).max(stored);
        let ingest = open(&path.join("ingest"))?;
        let reaper = Reaper::start(open(&path.join("trash"))?)?;
        Ok(Self(Arc::new(Inner {
            path,
            directory,
            ingest,
            numbers: Mutex::new(Numbers {
                next,
                reserved: next,
            }),
            active: Mutex::new(active),
            reaper,
        })))
    }

    /// Brings the directories in line with the owner's records after a crash: an unpacked layer with a record is
    /// committed, one without is discarded; a layer directory without a record is set aside and returned.
    pub fn recover(&self, is_layer: &dyn Fn(u64) -> bool) -> Result<Vec<PathBuf>> {
        for number in numbers(&self.0.ingest)? {
            if is_layer(number) {
                self.rename_ingest(number)?;
            } else {
                self.trash_ingest(number)?;
            }
        }
        let mut set_aside = Vec::new();
        for number in numbers(&self.0.directory)? {
            if lock(&self.0.active).contains_key(&number) || is_layer(number) {
                continue;
            }
            // An empty one was begun by a daemon that died before its first entry: it holds nothing of anybody's.
            match rustix::fs::unlinkat(&self.0.directory, number.to_string(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(_) => set_aside.push(self.quarantine(number)?),
            }
        }
        Ok(set_aside)
    }

    /// Reserves a number that was never used and never will be by another.
    pub fn allocate(&self) -> Result<u64> {
        let mut numbers = lock(&self.0.numbers);
        if numbers.next >= numbers.reserved {
            let reserved = numbers.next + NUMBERS_PER_WRITE;
            let failed = |error| Error::io("write `snapshots/next`", error);
            let temporary = self.0.path.join(".next");
            std::fs::write(&temporary, format!("{reserved}\n")).map_err(failed)?;
            std::fs::rename(&temporary, self.0.path.join("next")).map_err(failed)?;
            numbers.reserved = reserved;
        }
        numbers.next += 1;
        Ok(numbers.next - 1)
    }

    /// Makes the writable snapshot `number` over layers, topmost first.
    pub fn prepare(&self, number: u64, layers: &[u64], root: Option<RootMetadata>) -> Result<()> {
        let name = number.to_string();
        let failed = |error: std::io::Error| Error::io(format!("prepare snapshot {number}"), error);
        let made = (|| -> std::io::Result<()> {
            let directory = &self.0.directory;
            self.retry(|| {
                Ok(rustix::fs::mkdirat(
                    directory,
                    name.as_str(),
                    Mode::from_raw_mode(0o710),
                )?)
            })?;
            let own = sys::open_directory(directory, name.as_str())?;
            // Before `fs`, so that no writable tree ever stands without the mark that says so. A link's target comes
            // with the link in one step, unlike a file's content, and costs a quarter of the calls.
            let mut text = String::with_capacity(layers.len() * 6);
            for layer in layers {
                text.push_str(&layer.to_string());
                text.push('/');
            }
            text.push('.');
            self.retry(|| Ok(rustix::fs::symlinkat(text.as_str(), &own, "parents")?))?;
            self.retry(|| {
                Ok(rustix::fs::mkdirat(
                    &own,
                    "work",
                    Mode::from_raw_mode(0o700),
                )?)
            })?;
            self.retry(|| Ok(rustix::fs::mkdirat(&own, "fs", Mode::from_raw_mode(0o755))?))?;
            let root = root.unwrap_or(RootMetadata {
                mode: 0o755,
                uid: 0,
                gid: 0,
            });
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            if root.uid != 0 || root.gid != 0 {
                let (uid, gid) = (Uid::from_raw(root.uid), Gid::from_raw(root.gid));
                rustix::fs::chownat(&own, "fs", Some(uid), Some(gid), flags)?;
            }
            // Always: the umask took bits away.
            rustix::fs::chmodat(
                &own,
                "fs",
                Mode::from_raw_mode(root.mode & 0o7777),
                AtFlags::empty(),
            )?;
            Ok(())
        })();
        match made {
            Ok(()) => {
                lock(&self.0.active).insert(number, layers.to_vec());
                Ok(())
            }
            Err(error) => {
                if error.kind() != std::io::ErrorKind::AlreadyExists {
                    let _ = self.remove(number);
                }
                Err(failed(error))
            }
        }
    }

    /// Gives the mount of a writable snapshot.
    pub fn overlay(&self, number: u64) -> Result<Overlay> {
        let layers = lock(&self.0.active)
            .get(&number)
            .cloned()
            .ok_or(Error::NotFound(number))?;
        let own = self.snapshot_path(number);
        Ok(Overlay {
            lowers: layers.iter().map(|layer| self.layer_path(*layer)).collect(),
            upper: own.join("fs"),
            work: own.join("work"),
        })
    }

    /// Gives the tree of a layer or the upper directory of a container.
    pub fn layer_path(&self, number: u64) -> PathBuf {
        self.snapshot_path(number).join("fs")
    }

    /// Opens the directory that holds `fs`.
    pub fn open_snapshot(&self, number: u64) -> Result<OwnedFd> {
        match sys::open_directory(&self.0.directory, number.to_string()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::NotFound(number))
            }
            other => other.map_err(|error| Error::io(format!("open snapshot {number}"), error)),
        }
    }

    /// Gives the directory that holds all snapshots.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Opens the directory that holds all snapshots.
    pub fn open_root(&self) -> Result<OwnedFd> {
        self.0
            .directory
            .try_clone()
            .map_err(|error| Error::io("open `snapshots`", error))
    }

    /// Sets a damaged layer aside; gives its new place, or nothing where it is gone.
    pub fn quarantine_layer(&self, number: u64) -> Result<Option<PathBuf>> {
        if self.snapshot_path(number).exists() {
            self.quarantine(number).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Tells whether a number is a container's writable snapshot.
    pub fn is_active(&self, number: u64) -> bool {
        lock(&self.0.active).contains_key(&number)
    }

    /// Gives the layers that containers' snapshots stand on.
    pub fn layers_in_use(&self) -> HashSet<u64> {
        lock(&self.0.active).values().flatten().copied().collect()
    }

    /// Removes a snapshot: it is moved to the trash and deleted in the background. A missing one is no error.
    pub fn remove(&self, number: u64) -> Result<()> {
        let name = number.to_string();
        match rustix::fs::renameat(
            &self.0.directory,
            name.as_str(),
            self.0.reaper.trash(),
            name.as_str(),
        ) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(Error::io(format!("remove snapshot {number}"), error)),
        }
        lock(&self.0.active).remove(&number);
        self.0.reaper.wake();
        Ok(())
    }

    /// Sets aside the writable snapshots that are not in `owned`; nothing of a user's is deleted for lack of a record.
    pub fn quarantine_unowned(&self, owned: &HashSet<u64>) -> Result<Vec<PathBuf>> {
        let unowned: Vec<u64> = lock(&self.0.active)
            .keys()
            .filter(|number| !owned.contains(number))
            .copied()
            .collect();
        unowned
            .into_iter()
            .map(|number| self.quarantine(number))
            .collect()
    }

    /// Starts to unpack a layer.
    pub fn ingest(&self) -> Result<Ingest> {
        let number = self.allocate()?;
        let name = number.to_string();
        let failed = |error: std::io::Error| Error::io("create a directory for a layer", error);
        let ingest = &self.0.ingest;
        self.retry(|| {
            Ok(rustix::fs::mkdirat(
                ingest,
                name.as_str(),
                Mode::from_raw_mode(0o710),
            )?)
        })
        .map_err(failed)?;
        let mut started = Ingest {
            snapshots: self.clone(),
            number,
            directory: None,
        };
        let directory = sys::open_directory(ingest, name.as_str()).map_err(failed)?;
        self.retry(|| {
            Ok(rustix::fs::mkdirat(
                &directory,
                "fs",
                Mode::from_raw_mode(0o755),
            )?)
        })
        .map_err(failed)?;
        rustix::fs::chmodat(
            &directory,
            "fs",
            Mode::from_raw_mode(0o755),
            AtFlags::empty(),
        )
        .map_err(|error| failed(error.into()))?;
        started.directory = Some(directory);
        Ok(started)
    }

    /// Counts what a snapshot's own tree occupies.
    pub fn usage(&self, number: u64) -> Result<Usage> {
        let failed = |error| Error::io(format!("count snapshot {number}"), error);
        let fs = sys::open_directory(&self.open_snapshot(number)?, "fs").map_err(failed)?;
        sys::usage(fs).map_err(failed)
    }

    /// Counts what a layer occupies with its recipe.
    pub fn layer_usage(&self, number: u64) -> Result<Usage> {
        let failed = |error| Error::io(format!("count layer {number}"), error);
        sys::usage(self.open_snapshot(number)?).map_err(failed)
    }

    /// Counts what is neither a layer nor a container's: layers being unpacked, and what was set aside.
    pub fn other_usage(&self) -> Result<Usage> {
        let failed = |error| Error::io("count `snapshots`", error);
        let mut usage = sys::usage(&self.0.ingest).map_err(failed)?;
        let aside = sys::open_directory(&self.0.directory, "quarantine").map_err(failed)?;
        usage.bytes += sys::usage(aside).map_err(failed)?.bytes;
        Ok(usage)
    }

    /// Gives how many bytes of the file system are used, and how many there are, as df(1) does.
    pub fn disk(&self) -> Result<(u64, u64)> {
        let stat = rustix::fs::fstatvfs(&self.0.directory)
            .map_err(|error| Error::io("ask for the space of `snapshots`", error))?;
        let used = stat.f_blocks.saturating_sub(stat.f_bfree) * stat.f_frsize;
        // What is set apart for root counts as used up, since a daemon is not to eat it.
        Ok((used, used + stat.f_bavail * stat.f_frsize))
    }

    /// Lists the directories of layers and containers, those of containers with `true`.
    pub fn list(&self) -> Result<Vec<(u64, bool)>> {
        let all = numbers(&self.0.directory)?;
        let active = lock(&self.0.active);
        let all = all.into_iter();
        Ok(all
            .map(|number| (number, active.contains_key(&number)))
            .collect())
    }

    /// Tells what a container changed, by path.
    pub fn diff(&self, number: u64) -> Result<Vec<Change>> {
        let overlay = self.overlay(number)?;
        crate::diff::changes(&overlay.upper, &overlay.lowers)
            .map_err(|error| Error::io(format!("compare snapshot {number} with its layers"), error))
    }

    /// Counts what waits to be deleted.
    pub fn trash_usage(&self) -> Result<Usage> {
        sys::usage(self.0.reaper.trash())
            .map_err(|error| Error::io("count `snapshots/trash`", error))
    }

    /// Waits until the trash is deleted; tells whether that freed anything. For callers that met a full disk.
    pub fn make_space(&self) -> bool {
        self.0.reaper.drain()
    }

    fn retry<T>(&self, mut action: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
        loop {
            match action() {
                Err(error) if crate::is_no_space(&error) && self.make_space() => {}
                other => return other,
            }
        }
    }

    fn snapshot_path(&self, number: u64) -> PathBuf {
        self.0.path.join(number.to_string())
    }

    fn quarantine(&self, number: u64) -> Result<PathBuf> {
        let target = self.0.path.join("quarantine").join(number.to_string());
        std::fs::rename(self.snapshot_path(number), &target)
            .map_err(|error| Error::io(format!("set snapshot {number} aside"), error))?;
        lock(&self.0.active).remove(&number);
        Ok(target)
    }

    fn rename_ingest(&self, number: u64) -> Result<()> {
        let name = number.to_string();
        sys::rename_no_replace(
            &self.0.ingest,
            name.as_str(),
            &self.0.directory,
            name.as_str(),
        )
        .map_err(|error| Error::io(format!("commit layer {number}"), error))
    }

    fn trash_ingest(&self, number: u64) -> Result<()> {
        let name = number.to_string();
        match rustix::fs::renameat(
            &self.0.ingest,
            name.as_str(),
            self.0.reaper.trash(),
            name.as_str(),
        ) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(Error::io(format!("discard layer {number}"), error)),
        }
        self.0.reaper.wake();
        Ok(())
    }
}

/// Is a layer being unpacked; dropped without [`Ingest::commit`], it is discarded.
pub struct Ingest {
    snapshots: Snapshots,
    number: u64,
    /// `None` once committed.
    directory: Option<OwnedFd>,
}

impl Ingest {
    /// Gives the number that the layer will bear.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Applies the layer's archive, uncompressed, and records its recipe.
    pub fn apply(&self, archive: impl BufRead) -> Result<(Applied, Recorded)> {
        let make_space = || self.snapshots.make_space();
        apply_recorded(
            archive,
            self.directory()?,
            Options {
                form: Form::Layer,
                make_space: &make_space,
            },
        )
    }

    /// Rebuilds the archive from what was unpacked.
    pub fn rebuild(&self, output: &mut dyn Write) -> Result<()> {
        crate::recipe::rebuild(self.directory()?, output)
    }

    /// Gives the layer its place. The record must have been written before: see [`Snapshots::recover`].
    ///
    /// # Errors
    /// Fails where the directory cannot be renamed. It stays for `recover` then, for a record names it.
    pub fn commit(mut self) -> Result<u64> {
        self.directory = None;
        self.snapshots.rename_ingest(self.number)?;
        Ok(self.number)
    }

    fn directory(&self) -> Result<&OwnedFd> {
        self.directory.as_ref().ok_or(Error::NotFound(self.number))
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if self.directory.is_some() {
            // A failure is made good by `recover` at the next start.
            let _ = self.snapshots.trash_ingest(self.number);
        }
    }
}

fn numbers(directory: &OwnedFd) -> Result<Vec<u64>> {
    let entries = sys::entries(directory).map_err(|error| Error::io("list snapshots", error))?;
    Ok(entries
        .iter()
        .filter_map(|entry| entry.name.to_str().ok()?.parse().ok())
        .collect())
}

fn read_parents(directory: &OwnedFd, number: u64) -> Result<Option<Vec<u64>>> {
    let failed =
        |error: std::io::Error| Error::io(format!("read the layers of snapshot {number}"), error);
    let target = match rustix::fs::readlinkat(directory, format!("{number}/parents"), Vec::new()) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.map_err(|error| failed(error.into()))?,
    };
    let damaged = || failed(std::io::Error::from(std::io::ErrorKind::InvalidData));
    let list = target
        .to_str()
        .ok()
        .and_then(|text| text.strip_suffix('.'))
        .ok_or_else(damaged)?;
    let numbers = list
        .split_terminator('/')
        .map(str::parse)
        .collect::<Result<_, std::num::ParseIntError>>();
    numbers.map(Some).map_err(|_| damaged())
}

/// Waits until everything written to the file system of an open directory is on the disk (syncfs(2)).
pub fn sync(directory: impl std::os::fd::AsFd) -> std::io::Result<()> {
    Ok(rustix::fs::syncfs(directory)?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
