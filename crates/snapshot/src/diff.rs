//! What a container changed: its upper directory compared with the layers below.

use gantry_sys::fs as sys;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Is how a path differs from the image. The numbers are those of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Modified = 0,
    Added = 1,
    Deleted = 2,
}

/// Is one difference; the path begins with `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    pub path: PathBuf,
}

/// Lists differences by path; a directory in which something came or went counts as modified.
pub(crate) fn changes(upper: &Path, lowers: &[PathBuf]) -> io::Result<Vec<Change>> {
    let open = |path: &Path| sys::open_directory(rustix::fs::CWD, path);
    let upper = open(upper)?;
    let lowers = lowers
        .iter()
        .map(|path| open(path))
        .collect::<io::Result<Vec<_>>>()?;
    let mut found: BTreeMap<Vec<u8>, ChangeKind> = BTreeMap::new();
    let mut pending: Vec<(Vec<u8>, bool)> = vec![(Vec::new(), false)];
    while let Some((path, replaced)) = pending.pop() {
        let name = if path.is_empty() {
            b".".as_slice()
        } else {
            &path
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = match sys::openat2_no_symlinks(&upper, name, flags, Mode::empty()) {
            // A running container goes on meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        // Behind an opaque mark nothing of the lower layers is left to compare with.
        let replaced = replaced || is_opaque(&directory)?;
        for entry in sys::entries(&directory)? {
            let stat = match rustix::fs::statat(
                &directory,
                entry.name.as_c_str(),
                AtFlags::SYMLINK_NOFOLLOW,
            ) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            let mut below = path.clone();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend_from_slice(entry.name.to_bytes());
            let file_type = FileType::from_raw_mode(stat.st_mode);
            let old = if replaced {
                None
            } else {
                lookup(&lowers, &below)?
            };
            let kind = if is_whiteout(&stat) {
                if old.is_none() {
                    continue;
                }
                ChangeKind::Deleted
            } else if let Some(old) = old {
                if file_type == FileType::Directory {
                    pending.push((below.clone(), false));
                    if same_directory(&stat, &old) {
                        continue;
                    }
                }
                ChangeKind::Modified
            } else {
                if file_type == FileType::Directory {
                    pending.push((below.clone(), true));
                }
                ChangeKind::Added
            };
            if kind != ChangeKind::Modified && !path.is_empty() {
                found.entry(path.clone()).or_insert(ChangeKind::Modified);
            }
            found.insert(below, kind);
        }
    }
    Ok(found
        .into_iter()
        .map(|(path, kind)| {
            let mut text = vec![b'/'];
            text.extend_from_slice(&path);
            Change {
                kind,
                path: PathBuf::from(OsString::from_vec(text)),
            }
        })
        .collect())
}

/// Finds what the merged layers show at a path, topmost first.
fn lookup(lowers: &[OwnedFd], path: &[u8]) -> io::Result<Option<Stat>> {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    'layers: for layer in lowers {
        let mut hides_lower = false;
        for end in 1..=parts.len() {
            let prefix = parts[..end].join(&b'/');
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            let open =
                match sys::openat2_no_symlinks(layer, prefix.as_slice(), flags, Mode::empty()) {
                    Ok(open) => open,
                    Err(error) => match Errno::from_io_error(&error) {
                        Some(Errno::NOENT) if hides_lower => return Ok(None),
                        Some(Errno::NOENT) => continue 'layers,
                        // The last component is a link: NO_SYMLINKS refuses to name it, its directory does not.
                        Some(Errno::LOOP) if end == parts.len() => return stat_link(layer, &parts),
                        Some(Errno::LOOP | Errno::NOTDIR) => return Ok(None),
                        _ => return Err(error),
                    },
                };
            let stat = rustix::fs::fstat(&open)?;
            if is_whiteout(&stat) {
                return Ok(None);
            }
            if end == parts.len() {
                return Ok(Some(stat));
            }
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Ok(None);
            }
            hides_lower |= is_opaque(&sys::open_directory(&open, ".")?)?;
        }
    }
    Ok(None)
}

fn stat_link(layer: &OwnedFd, parts: &[&[u8]]) -> io::Result<Option<Stat>> {
    let Some((name, parents)) = parts.split_last() else {
        return Ok(None);
    };
    let parent = if parents.is_empty() {
        b".".to_vec()
    } else {
        parents.join(&b'/')
    };
    let open = sys::openat2_no_symlinks(
        layer,
        parent.as_slice(),
        OFlags::PATH | OFlags::DIRECTORY,
        Mode::empty(),
    )?;
    Ok(Some(rustix::fs::statat(
        &open,
        *name,
        AtFlags::SYMLINK_NOFOLLOW,
    )?))
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_opaque(directory: &OwnedFd) -> io::Result<bool> {
    Ok(sys::fgetxattr(directory, c"trusted.overlay.opaque")?.is_some_and(|value| value == b"y"))
}

/// Tells whether a directory was only copied up because something below it changed.
fn same_directory(new: &Stat, old: &Stat) -> bool {
    FileType::from_raw_mode(old.st_mode) == FileType::Directory
        && (new.st_mode, new.st_uid, new.st_gid) == (old.st_mode, old.st_uid, old.st_gid)
        && (new.st_mtime, new.st_mtime_nsec) == (old.st_mtime, old.st_mtime_nsec)
}
