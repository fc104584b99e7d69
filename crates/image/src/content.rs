//! Content by digest: configurations, manifests, and the compressed layers that are kept.
//!
//! ```text
//! content/ALGORITHM/HEX   complete and verified
//! content/ingest/N        being written in one go; swept at open
//! content/ingest/DIGEST.N complete, waiting for its record; placed or swept by `recover`
//! content/partial/NAME    being written by pieces; kept over restarts, so that a download or an upload goes on
//! content/quarantine/HEX  without a record; kept until a person decides
//! ```
//! Content is synced before it gets its name, so a name means the whole content, also after a loss of power. A partial
//! is not synced: what a loss of power takes of it, hashing it finds.

use crate::error::{Error, Result};
use crate::hash::{digest_of, sha256};
use gantry_api::digest::Digest;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// The algorithms that have a directory.
const ALGORITHMS: [&str; 2] = ["sha256", "sha512"];

/// Tries to make room on a full disk; tells whether another try is worth it.
pub type MakeSpace<'a> = &'a dyn Fn() -> bool;

/// Keeps content beneath one directory; clones share it.
#[derive(Clone)]
pub struct Content(Arc<Inner>);

struct Inner {
    path: PathBuf,
    counter: AtomicU64,
    /// Names of partials that somebody writes.
    open: Mutex<HashSet<String>>,
}

/// Is one complete piece of content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub digest: Digest,
    pub bytes: u64,
    pub modified: SystemTime,
}

/// Is complete content that waits for its record to be written. Dropped, it is removed.
pub(crate) struct Staged {
    content: Content,
    digest: Digest,
    /// `None` once it has its place.
    path: Option<PathBuf>,
}

/// Is content that is being written by pieces. Dropped, it stays on the disk and can be opened again.
pub struct Partial {
    content: Content,
    name: String,
    file: File,
    bytes: u64,
}

impl Content {
    /// Opens the store beneath a root and removes what an interrupted write left.
    ///
    /// # Errors
    /// Fails where the directories cannot be made or read.
    pub fn open(root: &Path) -> Result<Self> {
        let path = root.join("content");
        for below in ALGORITHMS
            .iter()
            .chain(&["ingest", "partial", "quarantine"])
        {
            let path = path.join(below);
            fs::create_dir_all(&path)
                .map_err(|error| Error::io(format!("create `{}`", path.display()), error))?;
        }
        let failed = |error| Error::io("sweep `content/ingest`", error);
        for entry in fs::read_dir(path.join("ingest")).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if staged_digest(&entry.file_name()).is_none() {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(Self(Arc::new(Inner {
            path,
            counter: AtomicU64::new(0),
            open: Mutex::default(),
        })))
    }

    /// Stores bytes under their SHA-256; what is there already is not written again.
    ///
    /// # Errors
    /// Fails where the disk does; nothing is left then.
    pub fn put(&self, bytes: &[u8], make_space: MakeSpace<'_>) -> Result<Digest> {
        let digest = sha256(bytes);
        self.place(&digest, bytes, make_space)?;
        Ok(digest)
    }

    /// Stores bytes under a digest, which is computed here again: whoever brings them may have been misled.
    ///
    /// # Errors
    /// As [`Content::put`]; bytes with another digest are [`Error::Invalid`].
    pub fn put_as(&self, digest: &Digest, bytes: &[u8], make_space: MakeSpace<'_>) -> Result<()> {
        verify(digest, bytes)?;
        self.place(digest, bytes, make_space)
    }

    fn place(&self, digest: &Digest, bytes: &[u8], make_space: MakeSpace<'_>) -> Result<()> {
        let target = self.file(digest);
        if target.exists() {
            return Ok(());
        }
        let number = self.0.counter.fetch_add(1, Ordering::Relaxed);
        self.write(&number.to_string(), bytes, make_space, |path| {
            self.name(path, &target)
        })
        .map(drop)
        .map_err(|error| Error::io(format!("write content `{digest}`"), error))
    }

    /// Writes bytes whose record is written next: [`Staged::place`] gives them their name after it. A crash in between
    /// is made good by [`Content::recover`]. The digest is computed again, as in [`Content::put_as`].
    pub(crate) fn stage(
        &self,
        digest: &Digest,
        bytes: &[u8],
        make_space: MakeSpace<'_>,
    ) -> Result<Staged> {
        verify(digest, bytes)?;
        let number = self.0.counter.fetch_add(1, Ordering::Relaxed);
        let path = self
            .write(&format!("{digest}.{number}"), bytes, make_space, |_| {
                File::open(self.0.path.join("ingest"))?.sync_all()
            })
            .map_err(|error| Error::io(format!("write content `{digest}`"), error))?;
        Ok(Staged {
            content: self.clone(),
            digest: digest.clone(),
            path: Some(path),
        })
    }

    /// Writes and syncs a file in `ingest`, then does the rest; on an error nothing is left.
    fn write(
        &self,
        name: &str,
        bytes: &[u8],
        make_space: MakeSpace<'_>,
        finish: impl Fn(&Path) -> io::Result<()>,
    ) -> io::Result<PathBuf> {
        let path = self.0.path.join("ingest").join(name);
        loop {
            let written = (|| -> io::Result<()> {
                let mut file = File::create(&path)?;
                file.write_all(bytes)?;
                file.sync_all()?;
                finish(&path)
            })();
            match written {
                Ok(()) => return Ok(path),
                Err(error) => {
                    let _ = fs::remove_file(&path);
                    if !(gantry_snapshot::is_no_space(&error) && make_space()) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Brings what was staged in line with the records after a crash: what `is_known` knows gets its name, the rest goes.
    pub(crate) fn recover(&self, is_known: impl Fn(&Digest) -> bool) -> Result<()> {
        let failed = |error| Error::io("recover `content/ingest`", error);
        for entry in fs::read_dir(self.0.path.join("ingest")).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(digest) = staged_digest(&entry.file_name()) else {
                continue;
            };
            let target = self.file(&digest);
            if is_known(&digest) && !target.exists() {
                self.name(&entry.path(), &target).map_err(failed)?;
            } else {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Reads content whole.
    ///
    /// # Errors
    /// Missing content is [`Error::NotFound`].
    pub fn get(&self, digest: &Digest) -> Result<Vec<u8>> {
        fs::read(self.file(digest)).map_err(|error| missing(digest, error))
    }

    /// Opens content for reading.
    ///
    /// # Errors
    /// Missing content is [`Error::NotFound`].
    pub fn read(&self, digest: &Digest) -> Result<File> {
        File::open(self.file(digest)).map_err(|error| missing(digest, error))
    }

    /// Gives the size of content, `None` where it is not there.
    ///
    /// # Errors
    /// Fails where the file system does.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        match fs::metadata(self.file(digest)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(missing(digest, error)),
        }
    }

    /// Takes content over from another store on the same file system, by a link: no byte is copied. Tells whether the
    /// other store had it.
    ///
    /// # Errors
    /// Fails where the link cannot be made, for example across file systems.
    pub fn adopt(&self, other: &Path, digest: &Digest) -> Result<bool> {
        let source = other
            .join("content")
            .join(digest.algorithm())
            .join(digest.hex());
        match fs::hard_link(source, self.file(digest)) {
            Ok(()) => Ok(true),
            Err(error) => match error.kind() {
                io::ErrorKind::AlreadyExists => Ok(true),
                io::ErrorKind::NotFound => Ok(false),
                _ => Err(Error::io(format!("link content `{digest}`"), error)),
            },
        }
    }

    /// Removes content; a missing one is no error.
    ///
    /// # Errors
    /// Fails where the file system does.
    pub fn remove(&self, digest: &Digest) -> Result<()> {
        match fs::remove_file(self.file(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove content `{digest}`"), error))
            }
            _ => Ok(()),
        }
    }

    /// Lists what is complete, in no order.
    ///
    /// # Errors
    /// Fails where a directory cannot be read.
    pub fn list(&self) -> Result<Vec<Stored>> {
        let failed = |error| Error::io("list `content`", error);
        let mut stored = Vec::new();
        for algorithm in ALGORITHMS {
            for entry in fs::read_dir(self.0.path.join(algorithm)).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name();
                let Some(digest) = name
                    .to_str()
                    .and_then(|hex| format!("{algorithm}:{hex}").parse().ok())
                else {
                    continue;
                };
                // Removed meanwhile: not there.
                let Ok(metadata) = entry.metadata() else {
                    continue;
                };
                stored.push(Stored {
                    digest,
                    bytes: metadata.len(),
                    modified: metadata.modified().map_err(failed)?,
                });
            }
        }
        Ok(stored)
    }

    /// Opens the partial of a name, made where it is missing; writing goes on at its end.
    ///
    /// # Errors
    /// [`Error::Conflict`] where somebody else writes it now.
    pub fn partial(&self, name: &str) -> Result<Partial> {
        if !self.opened().insert(name.to_owned()) {
            return Err(Error::Conflict(format!(
                "`{name}` is being written already"
            )));
        }
        let path = self.0.path.join("partial").join(name);
        let opened = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((bytes, file)) => Ok(Partial {
                content: self.clone(),
                name: name.to_owned(),
                file,
                bytes,
            }),
            Err(error) => {
                self.opened().remove(name);
                Err(Error::io(format!("open `{}`", path.display()), error))
            }
        }
    }

    /// Lists the partials that nobody writes: name, bytes, last change.
    ///
    /// # Errors
    /// Fails where the directory cannot be read.
    pub fn idle_partials(&self) -> Result<Vec<(String, u64, SystemTime)>> {
        let failed = |error| Error::io("list `content/partial`", error);
        let mut idle = Vec::new();
        for entry in fs::read_dir(self.0.path.join("partial")).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if !self.opened().contains(&name) {
                idle.push((name, metadata.len(), metadata.modified().map_err(failed)?));
            }
        }
        Ok(idle)
    }

    /// Removes a partial that nobody writes; tells whether there was one.
    ///
    /// # Errors
    /// [`Error::Conflict`] where somebody writes it.
    pub fn remove_partial(&self, name: &str) -> Result<bool> {
        // Held over the removal, so that nobody opens it in between.
        let opened = self.opened();
        if opened.contains(name) {
            return Err(Error::Conflict(format!("`{name}` is being written")));
        }
        match fs::remove_file(self.0.path.join("partial").join(name)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io(format!("remove partial `{name}`"), error)),
        }
    }

    /// Counts what everything occupies: complete content with what was set aside, and partials with what is being written.
    ///
    /// # Errors
    /// Fails where a directory cannot be read.
    pub fn occupied(&self) -> Result<(u64, u64)> {
        let failed = |error| Error::io("count `content`", error);
        let sum = |below: &[&str]| -> Result<u64> {
            let mut bytes = 0;
            for below in below {
                let directory = self.0.path.join(below);
                bytes += fs::metadata(&directory).map_err(failed)?.blocks() * 512;
                for entry in fs::read_dir(&directory).map_err(failed)? {
                    // Removed meanwhile: not there.
                    if let Ok(metadata) = entry.map_err(failed)?.metadata() {
                        bytes += metadata.blocks() * 512;
                    }
                }
            }
            Ok(bytes)
        };
        let own = fs::metadata(&self.0.path).map_err(failed)?.blocks() * 512;
        Ok((
            own + sum(&[ALGORITHMS[0], ALGORITHMS[1], "quarantine"])?,
            sum(&["partial", "ingest"])?,
        ))
    }

    /// Sets aside what `is_known` does not know.
    ///
    /// # Errors
    /// Fails where the file system does.
    pub fn quarantine_unknown(&self, is_known: impl Fn(&Digest) -> bool) -> Result<Vec<PathBuf>> {
        let mut set_aside = Vec::new();
        for Stored { digest, .. } in self.list()? {
            if is_known(&digest) {
                continue;
            }
            let target = self.0.path.join("quarantine").join(digest.hex());
            fs::rename(self.file(&digest), &target)
                .map_err(|error| Error::io("set content aside", error))?;
            set_aside.push(target);
        }
        Ok(set_aside)
    }

    /// Gives a complete file its name and makes that last.
    fn name(&self, from: &Path, target: &Path) -> io::Result<()> {
        fs::rename(from, target)?;
        let directory = target.parent().unwrap_or(&self.0.path);
        File::open(directory)?.sync_all()
    }

    fn file(&self, digest: &Digest) -> PathBuf {
        self.0.path.join(digest.algorithm()).join(digest.hex())
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Partial {
    /// Gives how many bytes there are.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Opens what there is for reading from the beginning.
    ///
    /// # Errors
    /// Fails where the file cannot be opened.
    pub fn reader(&self) -> Result<File> {
        File::open(self.path())
            .map_err(|error| Error::io(format!("read partial `{}`", self.name), error))
    }

    /// Adds bytes at the end. On an error some of them may be there; [`Partial::truncate`] takes them away.
    ///
    /// # Errors
    /// Fails where the disk does; a full one is asked to make space first.
    pub fn append(&mut self, mut bytes: &[u8], make_space: MakeSpace<'_>) -> Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(written) => {
                    self.bytes += written as u64;
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if gantry_snapshot::is_no_space(&error) && make_space() => {}
                Err(error) => {
                    return Err(Error::io(format!("write partial `{}`", self.name), error));
                }
            }
        }
        Ok(())
    }

    /// Cuts to a length.
    ///
    /// # Errors
    /// Fails where the file system does.
    pub fn truncate(&mut self, bytes: u64) -> Result<()> {
        self.file
            .set_len(bytes)
            .map_err(|error| Error::io(format!("cut partial `{}`", self.name), error))?;
        self.bytes = bytes;
        Ok(())
    }

    /// Makes it content under a digest that the caller has checked over all its bytes.
    ///
    /// # Errors
    /// Fails where the disk does; the partial stays then.
    pub fn commit(self, digest: &Digest) -> Result<()> {
        let target = self.content.file(digest);
        self.file
            .sync_all()
            .and_then(|()| self.content.name(&self.path(), &target))
            .map_err(|error| Error::io(format!("write content `{digest}`"), error))
    }

    /// Removes it.
    ///
    /// # Errors
    /// Fails where the file system does.
    pub fn discard(self) -> Result<()> {
        fs::remove_file(self.path())
            .map_err(|error| Error::io(format!("remove partial `{}`", self.name), error))
    }

    fn path(&self) -> PathBuf {
        self.content.0.path.join("partial").join(&self.name)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.content.opened().remove(&self.name);
    }
}

impl Staged {
    /// Gives the content its name. Its record must have been written before.
    pub fn place(mut self) -> Result<()> {
        if let Some(path) = self.path.take() {
            let target = self.content.file(&self.digest);
            self.content
                .name(&path, &target)
                .map_err(|error| Error::io(format!("write content `{}`", self.digest), error))?;
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // A failure is made good by `recover`.
            let _ = fs::remove_file(path);
        }
    }
}

/// Refuses bytes that are not what their digest says, whoever has checked them before: what is stored is trusted.
fn verify(digest: &Digest, bytes: &[u8]) -> Result<()> {
    let computed = digest_of(digest.algorithm(), bytes);
    if computed == *digest {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "content `{digest}` has the bytes of `{computed}`"
    )))
}

/// Reads the digest out of the name of something staged.
fn staged_digest(name: &OsStr) -> Option<Digest> {
    name.to_str()?.rsplit_once('.')?.0.parse().ok()
}

fn missing(digest: &Digest, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound(format!("content {digest} not found")),
        _ => Error::io(format!("read content `{digest}`"), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_not_stored_under_another_digest() {
        let directory = tempfile::tempdir().unwrap();
        let content = Content::open(directory.path()).unwrap();
        let digest = sha256(b"right");
        let refused = |error: Error| assert!(matches!(error, Error::Invalid(_)), "{error}");
        refused(content.put_as(&digest, b"wrong", &|| false).unwrap_err());
        refused(
            content
                .stage(&digest, b"wrong", &|| false)
                .map(drop)
                .unwrap_err(),
        );
        assert_eq!(content.size(&digest).unwrap(), None);
        content.put_as(&digest, b"right", &|| false).unwrap();
        let sha512 = digest_of("sha512", b"right");
        content.put_as(&sha512, b"right", &|| false).unwrap();
        refused(
            content
                .put_as(&digest_of("sha512", b"other"), b"right", &|| false)
                .unwrap_err(),
        );
    }

    #[test]
    fn a_partial_goes_on_after_a_restart_and_becomes_content() {
        let root = tempfile::tempdir().unwrap();
        let content = Content::open(root.path()).unwrap();
        let mut partial = content.partial("layer").unwrap();
        partial.append(b"hello ", &|| false).unwrap();
        assert!(matches!(content.partial("layer"), Err(Error::Conflict(_))));
        assert!(content.idle_partials().unwrap().is_empty());
        drop(partial);
        drop(content);
        let content = Content::open(root.path()).unwrap();
        assert_eq!(content.idle_partials().unwrap()[0].1, 6);
        let mut partial = content.partial("layer").unwrap();
        assert_eq!(partial.bytes(), 6);
        partial.append(b"world!", &|| false).unwrap();
        partial.truncate(11).unwrap();
        let digest = sha256(b"hello world");
        partial.commit(&digest).unwrap();
        assert_eq!(content.get(&digest).unwrap(), b"hello world");
        assert_eq!(content.size(&digest).unwrap(), Some(11));
        assert!(content.idle_partials().unwrap().is_empty());
        assert_eq!(content.list().unwrap()[0].digest, digest);
    }

    #[test]
    fn bytes_of_another_digest_are_never_stored() {
        let root = tempfile::tempdir().unwrap();
        let content = Content::open(root.path()).unwrap();
        let digest = sha256(b"right");
        assert!(content.put_as(&digest, b"wrong", &|| false).is_err());
        assert!(content.stage(&digest, b"wrong", &|| false).is_err());
        assert_eq!(content.size(&digest).unwrap(), None);
        let ingest = root.path().join("content/ingest");
        assert_eq!(fs::read_dir(ingest).unwrap().count(), 0);
        let long = crate::hash::digest_of("sha512", b"right");
        content.put_as(&long, b"right", &|| false).unwrap();
        assert_eq!(content.get(&long).unwrap(), b"right");
    }

    #[test]
    fn what_was_staged_is_placed_if_a_record_names_it() {
        let root = tempfile::tempdir().unwrap();
        let content = Content::open(root.path()).unwrap();
        let [kept, lost, dropped, placed] = [b"kept", b"lost", b"drop", b"here"];
        for bytes in [kept, lost] {
            // As a crash leaves it.
            std::mem::forget(content.stage(&sha256(bytes), bytes, &|| false).unwrap());
        }
        drop(content.stage(&sha256(dropped), dropped, &|| false).unwrap());
        content
            .stage(&sha256(placed), placed, &|| false)
            .unwrap()
            .place()
            .unwrap();
        drop(content);
        let content = Content::open(root.path()).unwrap();
        content.recover(|digest| *digest == sha256(kept)).unwrap();
        assert_eq!(content.get(&sha256(kept)).unwrap(), kept);
        assert_eq!(content.get(&sha256(placed)).unwrap(), placed);
        assert_eq!(content.list().unwrap().len(), 2);
        let ingest = fs::read_dir(root.path().join("content/ingest")).unwrap();
        assert_eq!(ingest.count(), 0);
    }

    #[test]
    fn content_is_adopted_by_a_link() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from, to) = (
            Content::open(one.path()).unwrap(),
            Content::open(two.path()).unwrap(),
        );
        let digest = from.put(b"x", &|| false).unwrap();
        assert!(to.adopt(one.path(), &digest).unwrap());
        assert!(to.adopt(one.path(), &digest).unwrap());
        from.remove(&digest).unwrap();
        assert_eq!(to.get(&digest).unwrap(), b"x");
        assert!(!to.adopt(one.path(), &sha256(b"y")).unwrap());
    }
}
