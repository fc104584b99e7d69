//! Records on disk: `records/KIND/ID.json`, each `{kind, version, revision, data}`.
//!
//! A record is written whole to a temporary name beside it and takes the place of the old one in one step, so a reader
//! (this daemon after a SIGKILL) sees the old or the new one, never a part. Losing power may undo what a container did
//! last; it may not lose the container: a synced version keeps a second name, `ID.synced`, and is read where the newest
//! one did not reach the disk. A file that cannot be read is moved to `records/quarantine/` and reported; nothing is
//! deleted for lack of a valid record. Not known here: what a record means.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::CWD;
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// The format of every record written by this version.
pub const VERSION: u32 = 1;

/// Whether a write must survive a loss of power before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Survives the death of every process. After a loss of power the last synced version may be found instead, or none.
    ///
    /// The files trade places, because a rename over a file makes ext4 allocate the new one's blocks at once
    /// (`auto_da_alloc`), which takes ten times as long.
    Exchanged,
    /// Survives a loss of power as well: fsync of the file and of its directory.
    Synced,
}

/// The ending of a record's name, and of the second name of its last synced version.
const ENDING: &str = "json";
const SYNCED_ENDING: &str = "synced";

/// The records of one kind.
#[derive(Debug)]
pub struct Store {
    kind: &'static str,
    directory: PathBuf,
    quarantine: PathBuf,
    counter: AtomicU64,
}

#[derive(serde::Deserialize)]
struct Read<'a> {
    kind: String,
    version: u32,
    /// Understood only once the version is known.
    #[serde(borrow)]
    data: &'a RawValue,
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
        crate::blocking::assert_may_block();
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
            match durability {
                Durability::Exchanged => self.exchange(&temporary, &self.path(id, ENDING)),
                Durability::Synced => {
                    file.sync_all()?;
                    self.link_over(&temporary, &self.path(id, SYNCED_ENDING))?;
                    fs::rename(&temporary, self.path(id, ENDING))?;
                    File::open(&self.directory)?.sync_all()
                }
            }
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Gives the file at `file` the name `name` as well, which at no moment is nobody's.
    fn link_over(&self, file: &Path, name: &Path) -> io::Result<()> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let passing = self.directory.join(format!(".link.{number}"));
        fs::hard_link(file, &passing)?;
        fs::rename(&passing, name)
    }

    /// Puts the file at `new` in the place of the one at `path`, which goes.
    fn exchange(&self, new: &Path, path: &Path) -> io::Result<()> {
        match gantry_sys::fs::rename_exchange(CWD, new, CWD, path) {
            // What is left under the temporary name is the old version; the next open sweeps it if it stays.
            Ok(()) => remove_if_there(new),
            // There is none yet, or the file system (9p, some of FUSE) cannot.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) =>
            {
                fs::rename(new, path)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes the record `id`; a missing one is no error.
    pub fn delete(&self, id: &str) -> io::Result<()> {
        crate::blocking::assert_may_block();
        // The second name first: the other one says until the end what is to be removed.
        remove_if_there(&self.path(id, SYNCED_ENDING))?;
        remove_if_there(&self.path(id, ENDING))
    }

    /// Reads all records; what cannot be understood is set aside and returned as such.
    ///
    /// # Errors
    /// A record of a newer version is an error that names the file: an older daemon must not guess.
    pub fn load_all<T: DeserializeOwned>(&self) -> io::Result<(Vec<T>, Vec<Quarantined>)> {
        let (mut records, mut set_aside) = (Vec::new(), Vec::new());
        // All names first: what is mended below would come up again.
        let paths: Vec<PathBuf> = fs::read_dir(&self.directory)?
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<_>>()?;
        for path in paths {
            if path.extension().is_some_and(|ending| ending == ENDING) {
                match self.read(&path)? {
                    Ok(record) => records.push(record),
                    Err(reason) => {
                        set_aside.push(self.set_aside(&path, reason)?);
                        let second = path.with_extension(SYNCED_ENDING);
                        if !second.exists() {
                            fs::remove_file(&path)?;
                            continue;
                        }
                        self.link_over(&second, &path)?;
                        match self.read(&path)? {
                            Ok(record) => records.push(record),
                            Err(reason) => {
                                set_aside.push(self.set_aside(&path, reason)?);
                                remove_if_there(&second)?;
                                fs::remove_file(&path)?;
                            }
                        }
                    }
                }
            } else if path
                .extension()
                .is_some_and(|ending| ending == SYNCED_ENDING)
                && !path.with_extension(ENDING).exists()
            {
                // The daemon died between the two names of a first version: nobody was told of it.
                fs::remove_file(&path)?;
            }
        }
        Ok((records, set_aside))
    }

    /// Reads one record; the inner error says why it cannot be understood.
    fn read<T: DeserializeOwned>(&self, path: &Path) -> io::Result<Result<T, String>> {
        let text = fs::read(path)?;
        let record: Read = match serde_json::from_slice(&text) {
            Ok(record) => record,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if record.version > VERSION {
            return Err(io::Error::other(format!(
                "record `{}` has version {}, this daemon knows up to {VERSION}",
                path.display(),
                record.version
            )));
        }
        if record.kind != self.kind {
            return Ok(Err(format!("it is of kind `{}`", record.kind)));
        }
        Ok(serde_json::from_str(record.data.get()).map_err(|error| error.to_string()))
    }

    fn path(&self, id: &str, ending: &str) -> PathBuf {
        self.directory.join(format!("{id}.{ending}"))
    }

    /// Keeps a record that cannot be understood; the caller puts something in its place or removes it.
    fn set_aside(&self, path: &Path, reason: String) -> io::Result<Quarantined> {
        fs::create_dir_all(&self.quarantine)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let plain = self.quarantine.join(format!("{}-{name}", self.kind));
        let mut target = plain.clone();
        for number in 1.. {
            match fs::hard_link(path, &target) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    target = plain.with_extension(format!("{number}"));
                }
                linked => {
                    linked?;
                    break;
                }
            }
        }
        Ok(Quarantined {
            path: target,
            reason,
        })
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
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
            .save("a", &"first", Durability::Exchanged)
            .unwrap();
        store(root.path())
            .save("a", &"second", Durability::Synced)
            .unwrap();
        let (records, set_aside) = store(root.path()).load_all::<String>().unwrap();
        assert_eq!(records, ["second"]);
        assert!(set_aside.is_empty());
    }

    #[test]
    fn a_version_that_a_loss_of_power_damaged_gives_way_to_the_synced_one() {
        let root = tempfile::tempdir().unwrap();
        let records = store(root.path());
        records.save("a", &"created", Durability::Synced).unwrap();
        records
            .save("a", &"running", Durability::Exchanged)
            .unwrap();
        records
            .save("b", &"passing", Durability::Exchanged)
            .unwrap();
        assert_eq!(records.load_all::<String>().unwrap().0.len(), 2);
        for id in ["a", "b"] {
            // As ext4 leaves a file whose blocks were not allocated yet.
            fs::write(root.path().join(format!("records/thing/{id}.json")), b"").unwrap();
        }
        let (read, set_aside) = records.load_all::<String>().unwrap();
        assert_eq!(read, ["created"]);
        assert_eq!(set_aside.len(), 2);
        // And again: what was found is a whole record.
        assert_eq!(records.load_all::<String>().unwrap().0, ["created"]);
    }

    #[test]
    fn nothing_of_a_deleted_record_stays() {
        let root = tempfile::tempdir().unwrap();
        let records = store(root.path());
        for durability in [
            Durability::Synced,
            Durability::Exchanged,
            Durability::Synced,
        ] {
            records.save("a", &"x", durability).unwrap();
        }
        let count = || {
            fs::read_dir(root.path().join("records/thing"))
                .unwrap()
                .count()
        };
        assert_eq!(count(), 2);
        // As a first version leaves it that was cut off between its two names.
        fs::remove_file(root.path().join("records/thing/a.json")).unwrap();
        assert!(records.load_all::<String>().unwrap().0.is_empty());
        assert_eq!(count(), 0);
        records.save("a", &"x", Durability::Synced).unwrap();
        records.delete("a").unwrap();
        records.delete("a").unwrap();
        assert_eq!(count(), 0);
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
