//! Streams a tree as an archive: a container's changes as a layer, or a whole root as it stands.

use crate::apply::Form;
use crate::error::{Error, Result, show};
use crate::tar::{Kind, NewEntry, Writer};
use gantry_sys::fs as sys;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

/// Writes the tree beneath an open directory, names sorted, so that equal trees give equal archives.
///
/// With [`Form::Layer`] the directory is an overlay's upper one: its whiteouts and opaque marks become `.wh.` entries
/// and the attributes that overlayfs keeps for itself are left out. Sockets are left out as in every archive.
pub fn write_tree(root: impl AsFd, form: Form, output: impl Write) -> Result<()> {
    let mut export = Export {
        root: root.as_fd(),
        form,
        writer: Writer::new(output),
        linked: HashMap::new(),
    };
    export.directory(b"")?;
    export
        .writer
        .finish()
        .map_err(|error| Error::io("write archive", error))?;
    Ok(())
}

struct Export<'a, W> {
    root: BorrowedFd<'a>,
    form: Form,
    writer: Writer<W>,
    /// The first name of each file with several.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Export<'_, W> {
    fn directory(&mut self, path: &[u8]) -> Result<()> {
        // An explicit list instead of recursion: trees can be deeper than the stack and the descriptor table.
        let mut pending = vec![path.to_vec()];
        while let Some(path) = pending.pop() {
            let failed =
                |error: std::io::Error| Error::io(format!("read `{}`", show(&path)), error);
            let name = if path.is_empty() {
                b".".as_slice()
            } else {
                &path
            };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let open = match sys::openat2_no_symlinks(self.root, name, flags, Mode::empty()) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.map_err(failed)?,
            };
            if !path.is_empty() {
                let stat = rustix::fs::fstat(&open).map_err(|error| failed(error.into()))?;
                let xattrs = self.attributes(&sys::flistxattr(&open).map_err(failed)?, |name| {
                    sys::fgetxattr(&open, name)
                });
                let label = [path.as_slice(), b"/"].concat();
                let entry = NewEntry {
                    xattrs: &xattrs.map_err(failed)?,
                    ..entry(&label, Kind::Directory, &stat)
                };
                self.write(&entry)?;
            }
            if self.form == Form::Layer
                && sys::fgetxattr(&open, c"trusted.overlay.opaque")
                    .map_err(failed)?
                    .is_some_and(|value| value == b"y")
            {
                let label = join(&path, b".wh..wh..opq");
                self.write(&NewEntry::new(&label, Kind::File, 0, 0, (0, 0)))?;
            }
            let mut entries = sys::entries(&open).map_err(failed)?;
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            let mut below = Vec::new();
            for found in &entries {
                if found.file_type == FileType::Directory {
                    below.push(join(&path, found.name.to_bytes()));
                } else {
                    self.leaf(open.as_fd(), found.name.to_bytes(), &path)?;
                }
            }
            pending.extend(below.into_iter().rev());
        }
        Ok(())
    }

    fn leaf(&mut self, directory: BorrowedFd<'_>, name: &[u8], parent: &[u8]) -> Result<()> {
        let path = join(parent, name);
        let failed = |error: std::io::Error| Error::io(format!("read `{}`", show(&path)), error);
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(|error| failed(error.into()))?,
        };
        let file_type = FileType::from_raw_mode(stat.st_mode);
        if self.form == Form::Layer && file_type == FileType::CharacterDevice && stat.st_rdev == 0 {
            let label = join(parent, &[b".wh.", name].concat());
            return self.write(&NewEntry::new(&label, Kind::File, 0, 0, (0, 0)));
        }
        let kind = match file_type {
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::SymbolicLink,
            FileType::CharacterDevice => Kind::CharacterDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            _ => return Ok(()),
        };
        if stat.st_nlink > 1 {
            if let Some(first) = self.linked.get(&(stat.st_dev, stat.st_ino)) {
                let first = first.clone();
                return self.write(&NewEntry {
                    link: &first,
                    ..entry(&path, Kind::HardLink, &stat)
                });
            }
            self.linked.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        let names = sys::listxattrat(directory, name).map_err(failed)?;
        let xattrs = self
            .attributes(&names, |attribute| {
                sys::getxattrat(directory, name, attribute)
            })
            .map_err(failed)?;
        let new = NewEntry {
            xattrs: &xattrs,
            ..entry(&path, kind, &stat)
        };
        match kind {
            Kind::SymbolicLink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())
                    .map_err(|error| failed(error.into()))?;
                self.write(&NewEntry {
                    link: target.as_bytes(),
                    ..new
                })
            }
            Kind::CharacterDevice | Kind::BlockDevice => {
                let device = (
                    rustix::fs::major(stat.st_rdev),
                    rustix::fs::minor(stat.st_rdev),
                );
                self.write(&NewEntry { device, ..new })
            }
            Kind::File => self.file(
                directory,
                name,
                &path,
                NewEntry {
                    size: stat.st_size as u64,
                    ..new
                },
            ),
            _ => self.write(&new),
        }
    }

    fn file(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        entry: NewEntry<'_>,
    ) -> Result<()> {
        let failed = |error: Errno| Error::io(format!("read `{}`", show(path)), error);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(failed)?;
        self.write(&entry)?;
        let mut buffer = vec![0; 256 << 10];
        let mut left = entry.size;
        while left > 0 {
            let want = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let mut read = rustix::io::read(&file, &mut buffer[..want]).map_err(failed)?;
            if read == 0 {
                // The file shrank under a running container: zeros keep the archive in step with its header.
                buffer[..want].fill(0);
                read = want;
            }
            self.writer
                .data(&buffer[..read])
                .map_err(|error| Error::io("write archive", error))?;
            left -= read as u64;
        }
        Ok(())
    }

    fn attributes(
        &self,
        names: &[std::ffi::CString],
        read: impl Fn(&std::ffi::CStr) -> std::io::Result<Option<Vec<u8>>>,
    ) -> std::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut list = Vec::new();
        for name in names {
            let bytes = name.to_bytes();
            if bytes.starts_with(b"trusted.overlay.") || bytes.starts_with(b"user.overlay.") {
                continue;
            }
            if let Some(value) = read(name)? {
                list.push((bytes.to_vec(), value));
            }
        }
        list.sort();
        Ok(list)
    }

    fn write(&mut self, entry: &NewEntry<'_>) -> Result<()> {
        self.writer
            .entry(entry)
            .map_err(|error| Error::io("write archive", error))
    }
}

fn entry<'a>(path: &'a [u8], kind: Kind, stat: &Stat) -> NewEntry<'a> {
    NewEntry {
        path,
        link: b"",
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
        device: (0, 0),
        size: 0,
        xattrs: &[],
    }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        name.to_vec()
    } else {
        [parent, b"/", name].concat()
    }
}
