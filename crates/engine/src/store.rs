//! Records on disk: `records/KIND/ID.json`, each `{kind, version, revision, data}`.
//!
//! A record is written whole to a temporary name beside it and renamed, so a reader (this daemon after a SIGKILL)
//! sees the old or the new one, never a part. It is synced only when asked: losing power may undo what a container
//! did last, it may not lose a volume that was acknowledged. A file that cannot be read is moved to
//! `records/quarantine/` and reported; nothing is deleted for lack of a valid record. Not known here: what a record
//! means.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The format of every record written by this version.
pub const VERSION: u32 = 1;

/// Whether a write must survive a loss of power before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Survives the death of every process.
    Renamed,
    /// Survives a loss of power as well: fsync of the file and of its directory.
    Synced,
}

/// The records of one kind.
#[derive(Debug)]
pub struct Store {
    kind: &'static str,
    directory: PathBuf,
    quarantine: PathBuf,
    counter: AtomicU64,
}

#[derive(serde::Deserialize)]
struct Read<T> {
    kind: String,
    version: u32,
    data: T,
}

#[derive(Serialize)]
struct Written<'a, T> {
    kind: &'a str,
    version: u32,
    revision: u64,
    data: &'a T,
}

/// A record file that was set aside.
#[derive(Debug)]
pub struct Quarantined {
    pub path: PathBuf,
    pub reason: String,
}

impl Store {
    /// Opens the records of `kind` under `data_root`, removing what an interrupted write left behind.
    pub fn open(data_root: &Path, kind: &'static str) -> io::Result<Store> {
        let directory = data_root.join("records").join(kind);
        fs::create_dir_all(&directory)?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Store {
            kind,
            directory,
            quarantine: data_root.join("records/quarantine"),
            counter: AtomicU64::new(1),
        })
    }

    /// Writes the record `id`.
    pub fn save<T: Serialize>(&self, id: &str, data: &T, durability: Durability) -> io::Result<()> {
        let revision = self.counter.fetch_add(1, Ordering::Relaxed);
        let text = serde_json::to_vec(&Written {
            kind: self.kind,
            version: VERSION,
            revision,
            data,
        })?;
        let temporary = self.directory.join(format!(".{id}.{revision}"));
        let written = (|| {
            let mut file = File::create(&temporary)?;
            file.write_all(&text)?;
            if durability == Durability::Synced {
                file.sync_all()?;
            }
            fs::rename(&temporary, self.path(id))?;
            if durability == Durability::Synced {
                File::open(&self.directory)?.sync_all()?;
            }
            Ok(())
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Deletes the record `id`; a missing one is no error.
    pub fn delete(&self, id: &str) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads all records; what cannot be understood is set aside and returned as such.
    ///
    /// # Errors
    /// A record of a newer version is an error that names the file: an older daemon must not guess.
    pub fn load_all<T: DeserializeOwned>(&self) -> io::Result<(Vec<T>, Vec<Quarantined>)> {
        let mut records = Vec::new();
        let mut set_aside = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let text = fs::read(&path)?;
            match serde_json::from_slice::<Read<serde_json::Value>>(&text) {
                Ok(record) if record.version > VERSION => {
                    return Err(io::Error::other(format!(
                        "record `{}` has version {}, this daemon knows up to {VERSION}",
                        path.display(),
                        record.version
                    )));
                }
                Ok(record) if record.kind == self.kind => match serde_json::from_value(record.data)
                {
                    Ok(data) => records.push(data),
                    Err(error) => set_aside.push(self.set_aside(&path, error.to_string())?),
                },
                Ok(record) => set_aside
                    .push(self.set_aside(&path, format!("it is of kind `{}`", record.kind))?),
                Err(error) => set_aside.push(self.set_aside(&path, error.to_string())?),
            }
        }
        Ok((records, set_aside))
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    fn set_aside(&self, path: &Path, reason: String) -> io::Result<Quarantined> {
        fs::create_dir_all(&self.quarantine)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let target = self.quarantine.join(format!("{}-{name}", self.kind));
        fs::rename(path, &target)?;
        Ok(Quarantined {
            path: target,
            reason,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(root: &Path) -> Store {
        Store::open(root, "thing").unwrap()
    }

    #[test]
    fn a_record_reads_back_as_it_was_saved() {
        let root = tempfile::tempdir().unwrap();
        store(root.path())
            .save("a", &"first", Durability::Renamed)
            .unwrap();
        store(root.path())
            .save("a", &"second", Durability::Synced)
            .unwrap();
        let (records, set_aside) = store(root.path()).load_all::<String>().unwrap();
        assert_eq!(records, ["second"]);
        assert!(set_aside.is_empty());
    }

    #[test]
    fn a_torn_record_is_set_aside_and_not_deleted() {
        let root = tempfile::tempdir().unwrap();
        let records = store(root.path());
        fs::write(root.path().join("records/thing/x.json"), b"{\"kind\":\"thi").unwrap();
        let (read, set_aside) = records.load_all::<String>().unwrap();
        assert!(read.is_empty());
        assert_eq!(fs::read(&set_aside[0].path).unwrap(), b"{\"kind\":\"thi");
    }

    #[test]
    fn a_newer_record_stops_the_daemon_and_is_named() {
        let root = tempfile::tempdir().unwrap();
        let records = store(root.path());
        fs::write(
            root.path().join("records/thing/x.json"),
            br#"{"kind":"thing","version":99,"revision":1,"data":"a"}"#,
        )
        .unwrap();
        let error = records.load_all::<String>().unwrap_err().to_string();
        assert!(error.contains("x.json") && error.contains("99"), "{error}");
    }

    #[test]
    fn an_interrupted_write_is_swept() {
        let root = tempfile::tempdir().unwrap();
        store(root.path());
        let left = root.path().join("records/thing/.a.7");
        fs::write(&left, b"half").unwrap();
        store(root.path());
        assert!(!left.exists());
    }
}
