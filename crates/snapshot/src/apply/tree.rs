//! Directories beneath a target, resolved once and kept open.

use gantry_sys::fs as sys;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

const OPEN_MAX: usize = 256;

/// Is an open directory and the path at which it really is, links resolved.
pub(crate) struct Directory {
    pub fd: OwnedFd,
    pub real: Vec<u8>,
}

impl Directory {
    /// Gives the path of an entry of this directory.
    pub fn join(&self, name: &[u8]) -> Vec<u8> {
        if self.real.is_empty() {
            name.to_vec()
        } else {
            [self.real.as_slice(), b"/", name].concat()
        }
    }
}

pub(crate) struct Tree<'a> {
    root: BorrowedFd<'a>,
    root_path: Vec<u8>,
    open: HashMap<Vec<u8>, Rc<Directory>>,
}

impl<'a> Tree<'a> {
    pub fn new(root: BorrowedFd<'a>) -> crate::error::Result<Self> {
        let root_path =
            own_path(root).map_err(|error| crate::error::Error::io("read /proc/self/fd", error))?;
        Ok(Self {
            root,
            root_path,
            open: HashMap::new(),
        })
    }

    pub fn root(&self) -> BorrowedFd<'a> {
        self.root
    }

    /// Forgets what was resolved: a directory or link was replaced.
    pub fn forget(&mut self) {
        self.open.clear();
    }

    /// Opens a directory, made with its parents where it is missing.
    pub fn directory(&mut self, path: &[u8]) -> io::Result<Rc<Directory>> {
        match self.existing(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let Some((parent, name)) = split(path) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let parent = self.directory(parent)?;
        rustix::fs::mkdirat(&parent.fd, name, Mode::from_raw_mode(0o755))?;
        let fd = sys::open_directory(&parent.fd, name)?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))?;
        let real = parent.join(name);
        Ok(self.keep(path, Directory { fd, real }))
    }

    /// Opens a directory that exists; links on the way are resolved with the target as `/`.
    pub fn existing(&mut self, path: &[u8]) -> io::Result<Rc<Directory>> {
        if let Some(open) = self.open.get(path) {
            return Ok(Rc::clone(open));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let name = if path.is_empty() {
            b".".as_slice()
        } else {
            path
        };
        let directory = match sys::openat2_no_symlinks(self.root, name, flags, Mode::empty()) {
            Ok(fd) => Directory {
                fd,
                real: path.to_vec(),
            },
            Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {
                let fd = sys::openat2_in_root(self.root, name, flags, Mode::empty())?;
                let place = own_path(fd.as_fd())?;
                // The kernel resolved beneath the root, so its path begins with the root's.
                let below = place
                    .strip_prefix(self.root_path.as_slice())
                    .ok_or(io::ErrorKind::InvalidData)?;
                Directory {
                    fd,
                    real: below.strip_prefix(b"/").unwrap_or(below).to_vec(),
                }
            }
            Err(error) => return Err(error),
        };
        Ok(self.keep(path, directory))
    }

    fn keep(&mut self, path: &[u8], directory: Directory) -> Rc<Directory> {
        if self.open.len() >= OPEN_MAX {
            self.open.clear();
        }
        let directory = Rc::new(directory);
        self.open.insert(path.to_vec(), Rc::clone(&directory));
        directory
    }
}

fn own_path(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    Ok(path.as_os_str().as_bytes().to_vec())
}

/// Gives a name's components as a path without `.`, `..` and slashes at the ends, rooted at the target.
pub(crate) fn rooted(path: &[u8]) -> Vec<u8> {
    let mut clean: Vec<u8> = Vec::with_capacity(path.len());
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => clean.truncate(clean.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
            _ => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(part);
            }
        }
    }
    clean
}

/// Tells whether `..` in a path leads above where it begins.
pub(crate) fn leaves_its_root(path: &[u8]) -> bool {
    let mut depth = 0_usize;
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

/// Splits a path into its parent's and its last component; `None` for the root.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_rooted() {
        for (path, clean) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("/a/../b", "b"),
            ("../../etc/passwd", "etc/passwd"),
            ("a/b/../../..", ""),
            (".", ""),
            ("a/..b", "a/..b"),
        ] {
            assert_eq!(rooted(path.as_bytes()), clean.as_bytes(), "{path}");
            let leaves = path.starts_with("../") || path.ends_with("../..");
            assert_eq!(leaves_its_root(path.as_bytes()), leaves, "{path}");
        }
        assert_eq!(split(b"a/b/c"), Some((b"a/b".as_slice(), b"c".as_slice())));
        assert_eq!(split(b"c"), Some((b"".as_slice(), b"c".as_slice())));
        assert_eq!(split(b""), None);
    }
}
