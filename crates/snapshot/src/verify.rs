//! Compares a snapshot's files with the archive that they rebuild: what somebody added, made longer or gave to another owner
//! is no part of the archive, so its digest does not tell of it.

use crate::apply::tree::{self, Tree};
use crate::error::{Error, Result, show};
use crate::recipe;
use crate::tar::{Entry, Kind, Reader};
use gantry_sys::fs as sys;
use rustix::fs::{AtFlags, Dir, FileType, Stat};
use std::collections::HashMap;
use std::io::{self, BufReader, PipeWriter, Write};
use std::os::fd::{AsFd, OwnedFd};

/// More differences than this are counted, not named.
const NAMED_MAX: usize = 5;
/// A pipe of the default size would wake both sides for each 64 KiB.
const BUFFER_BYTES: usize = 256 << 10;

/// Is what the archive says of a name.
struct Expected {
    /// Unknown of hard links: they are what they lead to.
    kind: Option<FileType>,
    /// Known of files, but for those that are named by a link first.
    size: Option<u64>,
    /// Mode, owner and group; unknown of directories that the archive does not list, and of hard links.
    attributes: Option<(u32, u32, u32)>,
}

/// Rebuilds the archive of the snapshot whose directory is given into `archive`, and tells where its `fs` has something else
/// than that archive says: names, kinds, sizes, modes and owners. Empty if all is as it was.
///
/// # Errors
/// As [`recipe::rebuild`]; a directory that cannot be read.
pub fn verify(snapshot: impl AsFd, archive: &mut (dyn Write + Send)) -> Result<Vec<String>> {
    let snapshot = snapshot.as_fd();
    let fs = sys::open_directory(snapshot, "fs").map_err(|error| Error::io("open `fs`", error))?;
    let (reader, writer) =
        io::pipe().map_err(|error| Error::io("make a pipe for the archive", error))?;
    let expected = std::thread::scope(|scope| {
        let rebuilding = scope.spawn(move || {
            let mut tee = Both { archive, writer };
            recipe::rebuild(snapshot, &mut tee)
        });
        let expected = entries(BufReader::with_capacity(BUFFER_BYTES, reader), &fs);
        let rebuilt = rebuilding.join().unwrap_or_else(|_| {
            let error = io::Error::other("a thread panicked");
            Err(Error::io("rebuild an archive", error))
        });
        // Where the archive ends too early, the reason is with who writes it.
        rebuilt.and(expected)
    })?;
    let mut differences = Differences::default();
    compare(&fs, b"", &expected, &mut differences)?;
    Ok(differences.into_lines())
}

/// Writes to the caller's output and to the pipe. A reader that has given up does not end the first.
struct Both<'a> {
    archive: &'a mut (dyn Write + Send),
    writer: PipeWriter,
}

impl Write for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.archive.write_all(bytes)?;
        match self.writer.write_all(bytes) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.archive.flush()
    }
}

/// Reads what the archive says of each name, later entries over earlier ones.
fn entries(archive: impl io::BufRead, fs: &OwnedFd) -> Result<HashMap<Vec<u8>, Expected>> {
    let mut tree = Tree::new(fs.as_fd())?;
    let mut expected = HashMap::new();
    let mut reader = Reader::new(archive, ());
    while let Some(entry) = reader.next_entry()? {
        let path = tree::rooted(&entry.path);
        let Some((parent, name)) = tree::split(&path) else {
            continue;
        };
        // Links on the way lead where they led when the archive was applied; a parent that was replaced has no names left.
        let Ok(parent) = tree.existing(parent) else {
            continue;
        };
        for (end, _) in parent
            .real
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
        {
            implied(&mut expected, &parent.real[..end]);
        }
        if !parent.real.is_empty() {
            implied(&mut expected, &parent.real);
        }
        match name.strip_prefix(b".wh.") {
            None => {
                expected.insert(parent.join(name), of(&entry));
            }
            Some(hidden) if hidden.starts_with(b".wh.") => {}
            Some(hidden) => {
                let whiteout = Expected {
                    kind: Some(FileType::CharacterDevice),
                    size: None,
                    attributes: None,
                };
                expected.entry(parent.join(hidden)).or_insert(whiteout);
            }
        }
    }
    Ok(expected)
}

/// Adds a directory that the archive needs and may not list.
fn implied(expected: &mut HashMap<Vec<u8>, Expected>, path: &[u8]) {
    if !expected.contains_key(path) {
        let directory = Expected {
            kind: Some(FileType::Directory),
            size: None,
            attributes: None,
        };
        expected.insert(path.to_vec(), directory);
    }
}

fn of(entry: &Entry) -> Expected {
    let kind = match entry.kind {
        Kind::HardLink => None,
        Kind::File => Some(FileType::RegularFile),
        Kind::SymbolicLink => Some(FileType::Symlink),
        Kind::CharacterDevice => Some(FileType::CharacterDevice),
        Kind::BlockDevice => Some(FileType::BlockDevice),
        Kind::Directory => Some(FileType::Directory),
        Kind::Fifo => Some(FileType::Fifo),
    };
    Expected {
        kind,
        size: (entry.kind == Kind::File).then_some(entry.size),
        attributes: (entry.kind != Kind::HardLink).then_some((
            entry.mode & 0o7777,
            entry.uid,
            entry.gid,
        )),
    }
}

#[derive(Default)]
struct Differences {
    named: Vec<String>,
    count: usize,
}

impl Differences {
    fn add(&mut self, path: &[u8], what: &str) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(format!("`{}` {what}", show(path)));
        }
    }

    fn into_lines(mut self) -> Vec<String> {
        let more = self.count - self.named.len();
        if more > 0 {
            self.named.push(format!("and {more} more"));
        }
        self.named
    }
}

/// Walks a directory. What is missing is not looked for: a rebuild reads every file, and names alone are in the archive.
fn compare(
    directory: &OwnedFd,
    path: &[u8],
    expected: &HashMap<Vec<u8>, Expected>,
    differences: &mut Differences,
) -> Result<()> {
    let failed = |error: rustix::io::Errno| {
        Error::io(format!("read `{}`", show(path)), io::Error::from(error))
    };
    for entry in Dir::read_from(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let here = if path.is_empty() {
            name.to_vec()
        } else {
            [path, b"/", name].concat()
        };
        let stat =
            rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        // Archives have no sockets: what ran in the container may have left one.
        if kind == FileType::Socket {
            continue;
        }
        match expected.get(&here) {
            None => differences.add(&here, "is not in the archive"),
            Some(known) => {
                if let Some(what) = difference(known, &stat) {
                    differences.add(&here, what);
                }
                if kind == FileType::Directory {
                    let below = sys::open_directory(directory, name);
                    let below = below
                        .map_err(|error| Error::io(format!("open `{}`", show(&here)), error))?;
                    compare(&below, &here, expected, differences)?;
                }
            }
        }
    }
    Ok(())
}

fn difference(known: &Expected, stat: &Stat) -> Option<&'static str> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    // What has another name as well bears what the last entry of any of its names said.
    let is_shared = kind != FileType::Directory && stat.st_nlink > 1;
    let attributes = known.attributes.filter(|_| !is_shared);
    let size = known.size.filter(|_| !is_shared);
    if known.kind.is_some_and(|known| known != kind) {
        return Some("is something else than in the archive");
    }
    if size.is_some_and(|size| size != stat.st_size as u64) {
        return Some("has another size than in the archive");
    }
    let (mode, uid, gid) = attributes?;
    if (uid, gid) != (stat.st_uid, stat.st_gid) {
        return Some("has another owner than in the archive");
    }
    (kind != FileType::Symlink && mode != stat.st_mode & 0o7777)
        .then_some("has another mode than in the archive")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::{Form, Options, apply_recorded};
    use crate::tar::{NewEntry, Writer};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    /// Applies an archive with a bit of everything and gives the snapshot's directory.
    fn snapshot() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("fs")).unwrap();
        let mut archive = Writer::new(Vec::new());
        let entry = |path, kind, mode, size| NewEntry::new(path, kind, mode, size, (1, 0));
        let mut add = |new: &NewEntry<'_>| archive.entry(new).unwrap();
        add(&entry(b"bin", Kind::Directory, 0o755, 0));
        add(&NewEntry {
            link: b"bin",
            ..entry(b"sbin", Kind::SymbolicLink, 0o777, 0)
        });
        add(&entry(b"deep/down/pipe", Kind::Fifo, 0o600, 0));
        add(&entry(b"deep/.wh.gone", Kind::File, 0, 0));
        archive
            .file(&entry(b"sbin/tool", Kind::File, 0o4755, 4), b"tool")
            .unwrap();
        archive
            .entry(&NewEntry {
                link: b"bin/tool",
                ..entry(b"bin/alias", Kind::HardLink, 0o4755, 0)
            })
            .unwrap();
        archive
            .file(&entry(b"note", Kind::File, 0o644, 5), b"first")
            .unwrap();
        archive
            .file(&entry(b"note", Kind::File, 0o600, 6), b"second")
            .unwrap();
        let archive = archive.finish().unwrap();
        let options = Options {
            form: Form::Layer,
            make_space: &|| false,
        };
        let opened = std::fs::File::open(directory.path()).unwrap();
        apply_recorded(archive.as_slice(), &opened, options).unwrap();
        let mut rebuilt = Vec::new();
        assert_eq!(verify(&opened, &mut rebuilt).unwrap(), [""; 0]);
        assert!(rebuilt == archive);
        directory
    }

    fn differences(directory: &Path) -> Vec<String> {
        let opened = std::fs::File::open(directory).unwrap();
        verify(&opened, &mut io::sink()).unwrap()
    }

    #[test]
    fn what_the_digest_does_not_tell_of_is_found() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 6] = [
            ("`bin/more` is not in the archive", |fs| {
                std::fs::write(fs.join("bin/more"), "").unwrap();
            }),
            ("`deep/new` is not in the archive", |fs| {
                std::fs::create_dir_all(fs.join("deep/new/below")).unwrap();
            }),
            ("`note` has another size than in the archive", |fs| {
                let note = std::fs::OpenOptions::new()
                    .append(true)
                    .open(fs.join("note"));
                note.unwrap().write_all(b"!").unwrap();
            }),
            ("`note` has another mode than in the archive", |fs| {
                let mode = std::fs::Permissions::from_mode(0o4600);
                std::fs::set_permissions(fs.join("note"), mode).unwrap();
            }),
            ("`note` has another owner than in the archive", |fs| {
                std::os::unix::fs::chown(fs.join("note"), Some(1), None).unwrap();
            }),
            ("`sbin` is something else than in the archive", |fs| {
                std::fs::remove_file(fs.join("sbin")).unwrap();
                std::fs::write(fs.join("sbin"), "").unwrap();
            }),
        ];
        for (want, change) in changes {
            let directory = snapshot();
            change(&directory.path().join("fs"));
            let found = differences(directory.path());
            assert!(found.iter().any(|one| one == want), "{want}: {found:?}");
        }
    }

    #[test]
    fn many_differences_are_counted() {
        let directory = snapshot();
        for number in 0..20 {
            std::fs::write(directory.path().join(format!("fs/{number}")), "").unwrap();
        }
        let found = differences(directory.path());
        assert_eq!(found.len(), NAMED_MAX + 1);
        assert_eq!(found[NAMED_MAX], "and 15 more");
    }
}
