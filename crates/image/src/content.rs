//! Content by digest: configurations and manifests.
//!
//! ```text
//! content/sha256/HEX      complete and verified
//! content/ingest/N        being written; swept at open
//! content/quarantine/HEX  without a record; kept until a person decides
//! ```
//! Content is synced before it gets its name, so a name means the whole content, also after a loss of power.

use crate::error::{Error, Result};
use crate::hash::sha256;
use gantry_api::digest::Digest;
use gantry_snapshot::Snapshots;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) struct Content {
    path: PathBuf,
    counter: AtomicU64,
}

impl Content {
    /// Opens the store and removes what an interrupted write left.
    pub fn open(data_root: &Path) -> Result<Self> {
        let path = data_root.join("content");
        for below in ["sha256", "ingest", "quarantine"] {
            let path = path.join(below);
            fs::create_dir_all(&path)
                .map_err(|error| Error::io(format!("create `{}`", path.display()), error))?;
        }
        let failed = |error| Error::io("sweep `content/ingest`", error);
        for entry in fs::read_dir(path.join("ingest")).map_err(failed)? {
            fs::remove_file(entry.map_err(failed)?.path()).map_err(failed)?;
        }
        Ok(Self {
            path,
            counter: AtomicU64::new(0),
        })
    }

    /// Stores bytes under their digest; what is there already is not written again.
    pub fn put(&self, bytes: &[u8], snapshots: &Snapshots) -> Result<Digest> {
        let digest = sha256(bytes);
        let target = self.file(&digest);
        if target.exists() {
            return Ok(digest);
        }
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let temporary = self.path.join("ingest").join(number.to_string());
        loop {
            let written = (|| -> io::Result<()> {
                let mut file = File::create(&temporary)?;
                file.write_all(bytes)?;
                file.sync_all()?;
                fs::rename(&temporary, &target)?;
                File::open(self.path.join("sha256"))?.sync_all()
            })();
            match written {
                Ok(()) => return Ok(digest),
                Err(error) => {
                    let _ = fs::remove_file(&temporary);
                    if !(gantry_snapshot::is_no_space(&error) && snapshots.make_space()) {
                        return Err(Error::io(format!("write content `{digest}`"), error));
                    }
                }
            }
        }
    }

    /// Reads content.
    pub fn get(&self, digest: &Digest) -> Result<Vec<u8>> {
        fs::read(self.file(digest)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NotFound(format!("content {digest} not found")),
            _ => Error::io(format!("read content `{digest}`"), error),
        })
    }

    /// Removes content; a missing one is no error.
    pub fn remove(&self, digest: &Digest) -> Result<()> {
        match fs::remove_file(self.file(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove content `{digest}`"), error))
            }
            _ => Ok(()),
        }
    }

    /// Sets aside what `is_known` does not know.
    pub fn quarantine_unknown(&self, is_known: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
        let failed = |error| Error::io("list `content/sha256`", error);
        let mut set_aside = Vec::new();
        for entry in fs::read_dir(self.path.join("sha256")).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if name.to_str().is_some_and(&is_known) {
                continue;
            }
            let target = self.path.join("quarantine").join(&name);
            fs::rename(entry.path(), &target)
                .map_err(|error| Error::io("set content aside", error))?;
            set_aside.push(target);
        }
        Ok(set_aside)
    }

    fn file(&self, digest: &Digest) -> PathBuf {
        self.path.join(digest.algorithm()).join(digest.hex())
    }
}
