//! Applies an archive to a directory: a layer in overlay's form, or any tree as it stands.
//!
//! Invariants, whatever the archive says:
//! * Nothing outside the target is read, written or linked. Names are taken as rooted at the target, so `..` and a
//!   leading slash lead nowhere else; parents are resolved with the target as `/`; the last component is never
//!   followed.
//! * A layer's own `trusted.overlay.*` and `user.overlay.*` attributes are dropped: they would steer the kernel.
//! * A layer is independent of those below it. A whiteout becomes a 0:0 character device, an opaque mark the
//!   attribute of its directory; both hide lower layers only, never what the same archive brings.
//!
//! Modes and times of directories are set last, so that work inside them changes neither. A parent that the archive
//! does not bring is made with mode 0755. With a recorder each file that is not kept where its name says is recorded
//! whole or moved aside, so that the archive can be rebuilt.

pub(crate) mod tree;

use crate::error::{Error, Result, is_no_space, show};
use crate::recipe::Recorder;
use crate::tar::{Entry, Kind, Reader, Tee};
use gantry_sys::fs as sys;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use std::ffi::CString;
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd};
use tree::{Directory, Tree};

/// Is what the target is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A layer of an overlay mount: whiteouts are translated.
    Layer,
    /// A plain tree: names that begin with `.wh.` are names like others.
    Plain,
}

/// Is called on a full disk; tells whether another try is worth it.
pub type MakeSpace<'a> = &'a (dyn Fn() -> bool + Sync);

/// Says how to apply an archive.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    pub form: Form,
    pub make_space: MakeSpace<'a>,
}

/// Tells what was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The sum of the sizes of files and links, hard links once: what Docker calls a layer's size.
    pub size_bytes: u64,
    pub entries: u64,
    /// Mode, owner and group of the root, if the archive has an entry for it.
    pub root: Option<(u32, u32, u32)>,
}

/// Applies an archive to an open directory.
///
/// # Errors
/// Stops at the first malformed or refused entry and at the first failed operation; what was written stays for the
/// caller to remove.
pub fn apply(archive: impl BufRead, target: impl AsFd, options: Options<'_>) -> Result<Applied> {
    let mut applier = Applier::new(target.as_fd(), None, options)?;
    applier.run(&mut Reader::new(archive, ()))
}

/// Applies a layer's archive to `fs` beneath the snapshot's open directory and records how to rebuild it.
pub fn apply_recorded(
    archive: impl BufRead,
    snapshot: impl AsFd,
    options: Options<'_>,
) -> Result<(Applied, crate::recipe::Recorded)> {
    let snapshot = snapshot.as_fd();
    let fs = sys::open_directory(snapshot, "fs").map_err(|error| Error::io("open `fs`", error))?;
    let mut reader = Reader::new(archive, Recorder::create(snapshot)?);
    let applied = Applier::new(fs.as_fd(), Some(snapshot), options)?.run(&mut reader)?;
    let recorded = reader.into_tee().finish()?;
    Ok((applied, recorded))
}

/// Is a [`Tee`] that may keep a recipe.
trait Record: Tee {
    fn recorder(&mut self) -> Option<&mut Recorder>;
}

impl Record for () {
    fn recorder(&mut self) -> Option<&mut Recorder> {
        None
    }
}

impl Record for Recorder {
    fn recorder(&mut self) -> Option<&mut Recorder> {
        Some(self)
    }
}

struct Applier<'a> {
    tree: Tree<'a>,
    snapshot: Option<BorrowedFd<'a>>,
    options: Options<'a>,
    directories: Vec<Metadata>,
    applied: Applied,
    umask: u32,
    always_chown: bool,
}

/// Is a directory's metadata, kept until everything else is done.
struct Metadata {
    path: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, u32),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Is what stood at a name before an entry took it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Directory,
    Whiteout,
}

impl<'a> Applier<'a> {
    fn new(
        target: BorrowedFd<'a>,
        snapshot: Option<BorrowedFd<'a>>,
        options: Options<'a>,
    ) -> Result<Self> {
        let stat =
            rustix::fs::fstat(target).map_err(|error| Error::io("stat the target", error))?;
        // Files made in a set-group-id directory, or by a daemon with another group, do not belong to 0:0 by themselves.
        let plain_owner = stat.st_mode & 0o2000 == 0
            && rustix::process::geteuid().is_root()
            && rustix::process::getegid().is_root();
        Ok(Self {
            tree: Tree::new(target)?,
            snapshot,
            options,
            directories: Vec::new(),
            applied: Applied::default(),
            umask: umask(),
            always_chown: !plain_owner,
        })
    }

    fn run<R: BufRead, T: Record>(&mut self, reader: &mut Reader<R, T>) -> Result<Applied> {
        while let Some(entry) = reader.next_entry()? {
            self.applied.entries += 1;
            self.entry(&entry, reader)?;
        }
        self.finish_directories()?;
        Ok(self.applied)
    }

    fn entry<R: BufRead, T: Record>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<R, T>,
    ) -> Result<()> {
        if !entry.path.starts_with(b"/") && tree::leaves_its_root(&entry.path) {
            return Err(Error::archive(format!(
                "invalid entry name {:?}",
                show(&entry.path)
            )));
        }
        let path = tree::rooted(&entry.path);
        let Some((parent_path, name)) = tree::split(&path) else {
            return self.root(entry);
        };
        if self.options.form == Form::Layer
            && let Some(hidden) = name.strip_prefix(b".wh.")
        {
            return self.whiteout(parent_path, hidden, entry);
        }
        let space = self.options.make_space;
        let parent = retry(space, || self.tree.directory(parent_path))
            .map_err(|error| operation("create the parent of", &entry.path, error))?;
        let real = parent.join(name);
        let before = if entry.kind == Kind::HardLink && self.link_to_itself(entry, &real)? {
            return Ok(());
        } else {
            self.clear(&parent, name, &real, entry, reader.tee())?
        };
        let failed = |error: std::io::Error| operation("create", &entry.path, error);
        match entry.kind {
            Kind::Directory => return self.directory(entry, &parent, name, real, before),
            Kind::File => return self.file(entry, &parent, name, &real, reader),
            Kind::HardLink => return self.hard_link(entry, &parent, name),
            Kind::SymbolicLink => {
                if entry.link.is_empty() {
                    return Err(Error::archive(format!(
                        "symbolic link `{}` has no target",
                        show(&entry.path)
                    )));
                }
                retry(space, || {
                    Ok(rustix::fs::symlinkat(
                        entry.link.as_slice(),
                        &parent.fd,
                        name,
                    )?)
                })
                .map_err(failed)?;
                self.applied.size_bytes += entry.link.len() as u64;
            }
            Kind::CharacterDevice | Kind::BlockDevice | Kind::Fifo => {
                let file_type = match entry.kind {
                    Kind::CharacterDevice => FileType::CharacterDevice,
                    Kind::BlockDevice => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = rustix::fs::makedev(entry.device.0, entry.device.1);
                let mode = Mode::from_raw_mode(entry.mode & 0o777);
                retry(space, || {
                    Ok(rustix::fs::mknodat(
                        &parent.fd, name, file_type, mode, device,
                    )?)
                })
                .map_err(failed)?;
            }
        }
        self.named_metadata(entry, &parent, name)
    }

    /// Keeps the metadata of the target itself, whose entry is `./`.
    fn root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(Error::archive(format!(
                "`{}` would replace the root",
                show(&entry.path)
            )));
        }
        self.applied.root = Some((entry.mode, entry.uid, entry.gid));
        self.keep_metadata(entry, Vec::new());
        Ok(())
    }

    fn keep_metadata(&mut self, entry: &Entry, path: Vec<u8>) {
        self.directories.push(Metadata {
            path,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs: entry.xattrs.clone(),
        });
    }

    fn directory(
        &mut self,
        entry: &Entry,
        parent: &Directory,
        name: &[u8],
        real: Vec<u8>,
        before: Before,
    ) -> Result<()> {
        if before != Before::Directory {
            let failed = |error: std::io::Error| operation("create", &entry.path, error);
            let mode = Mode::from_raw_mode(0o755);
            retry(self.options.make_space, || {
                Ok(rustix::fs::mkdirat(&parent.fd, name, mode)?)
            })
            .map_err(failed)?;
            if before == Before::Whiteout {
                let open = sys::open_directory(&parent.fd, name).map_err(failed)?;
                set_opaque(&open).map_err(failed)?;
            }
        }
        self.keep_metadata(entry, real);
        Ok(())
    }

    fn file<R: BufRead, T: Record>(
        &mut self,
        entry: &Entry,
        parent: &Directory,
        name: &[u8],
        real: &[u8],
        reader: &mut Reader<R, T>,
    ) -> Result<()> {
        let space = self.options.make_space;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let file = retry(space, || {
            Ok(rustix::fs::openat(&parent.fd, name, flags, mode)?)
        })
        .map_err(|error| operation("create", &entry.path, error))?;
        let whole = [(0, entry.stored_size)];
        let ranges = entry.sparse.as_deref().unwrap_or(&whole);
        if entry.stored_size > 0
            && let Some(recorder) = reader.tee().recorder()
        {
            recorder.file(real, ranges)?;
        }
        let failed = |error: std::io::Error| operation("write", &entry.path, error);
        if entry.sparse.is_some() {
            let mut ranges = ranges.iter().copied().filter(|(_, length)| *length > 0);
            let (mut offset, mut left) = ranges.next().unwrap_or((0, 0));
            reader.content(&mut |mut bytes| {
                while !bytes.is_empty() {
                    if left == 0 {
                        (offset, left) = ranges
                            .next()
                            .ok_or_else(|| Error::archive("unexpected EOF"))?;
                    }
                    let length = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let written = retry(space, || {
                        Ok(rustix::io::pwrite(&file, &bytes[..length], offset)?)
                    });
                    let written = written.map_err(failed)?;
                    bytes = &bytes[written..];
                    offset += written as u64;
                    left -= written as u64;
                }
                Ok(())
            })?;
            rustix::fs::ftruncate(&file, entry.size).map_err(|error| failed(error.into()))?;
        } else {
            reader.content(&mut |mut bytes| {
                while !bytes.is_empty() {
                    let written =
                        retry(space, || Ok(rustix::io::write(&file, bytes)?)).map_err(failed)?;
                    bytes = &bytes[written..];
                }
                Ok(())
            })?;
        }
        self.applied.size_bytes += entry.size;
        let failed = |error: std::io::Error| operation("set the attributes of", &entry.path, error);
        let chown = self.always_chown || entry.uid != 0 || entry.gid != 0;
        if chown {
            rustix::fs::fchown(
                &file,
                Some(Uid::from_raw(entry.uid)),
                Some(Gid::from_raw(entry.gid)),
            )
            .map_err(|error| failed(error.into()))?;
        }
        // Behind chown, which clears the set-user-id bits.
        if entry.mode & (0o7000 | self.umask) != 0 {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode & 0o7777))
                .map_err(|e| failed(e.into()))?;
        }
        for (attribute, value) in kept(&entry.xattrs) {
            retry(space, || sys::fsetxattr(&file, &attribute, value))
                .map_err(|e| no_attribute(entry, &attribute, e))?;
        }
        rustix::fs::futimens(&file, &times(entry.mtime)).map_err(|error| failed(error.into()))
    }

    /// Tells whether a hard link names the very file that stands there, which is no reason to replace it.
    fn link_to_itself(&mut self, entry: &Entry, real: &[u8]) -> Result<bool> {
        let target = tree::rooted(&entry.link);
        let Some((parent_path, name)) = tree::split(&target) else {
            return Ok(false);
        };
        match self.tree.existing(parent_path) {
            Ok(parent) => Ok(parent.join(name) == real && self.stat(&parent, name)?.is_some()),
            Err(_) => Ok(false),
        }
    }

    fn hard_link(&mut self, entry: &Entry, parent: &Directory, name: &[u8]) -> Result<()> {
        if tree::leaves_its_root(&entry.link) {
            return Err(Error::archive(format!(
                "invalid hardlink target {:?}",
                show(&entry.link)
            )));
        }
        let target = tree::rooted(&entry.link);
        let failed = |error: std::io::Error| {
            Error::io(
                format!("linkat {} {}", show(&target), show(&parent.join(name))),
                error,
            )
        };
        let (target_parent, target_name) =
            tree::split(&target).ok_or_else(|| failed(rustix::io::Errno::PERM.into()))?;
        let from = self.tree.existing(target_parent).map_err(failed)?;
        let link = || {
            Ok(rustix::fs::linkat(
                &from.fd,
                target_name,
                &parent.fd,
                name,
                AtFlags::empty(),
            )?)
        };
        retry(self.options.make_space, link).map_err(failed)
    }

    /// Sets owner, mode, attributes and time of what cannot be opened: links, devices, fifos.
    fn named_metadata(&mut self, entry: &Entry, parent: &Directory, name: &[u8]) -> Result<()> {
        let failed = |error: rustix::io::Errno| {
            operation("set the attributes of", &entry.path, error.into())
        };
        if self.always_chown || entry.uid != 0 || entry.gid != 0 {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            rustix::fs::chownat(
                &parent.fd,
                name,
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(failed)?;
        }
        if entry.kind != Kind::SymbolicLink && entry.mode & (0o7000 | self.umask) != 0 {
            // What was just made at this name is no link, so following is not possible.
            rustix::fs::chmodat(
                &parent.fd,
                name,
                Mode::from_raw_mode(entry.mode & 0o7777),
                AtFlags::empty(),
            )
            .map_err(failed)?;
        }
        for (attribute, value) in kept(&entry.xattrs) {
            sys::setxattrat(&parent.fd, name, &attribute, value)
                .map_err(|e| no_attribute(entry, &attribute, e))?;
        }
        rustix::fs::utimensat(
            &parent.fd,
            name,
            &times(entry.mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(failed)
    }

    fn whiteout(&mut self, parent_path: &[u8], hidden: &[u8], entry: &Entry) -> Result<()> {
        let failed = |error: std::io::Error| operation("create", &entry.path, error);
        let space = self.options.make_space;
        if hidden == b".wh..opq" {
            let parent = retry(space, || self.tree.directory(parent_path)).map_err(failed)?;
            let open = sys::open_directory(&parent.fd, ".").map_err(failed)?;
            return set_opaque(&open).map_err(failed);
        }
        if hidden.starts_with(b".wh.") {
            // AUFS kept notes of its own under such names; they are no part of the tree.
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Error::archive(format!(
                "invalid whiteout entry {:?}",
                show(&entry.path)
            )));
        }
        let parent = retry(space, || self.tree.directory(parent_path)).map_err(failed)?;
        match self.stat(&parent, hidden)? {
            None => {
                let make = || {
                    let mode = Mode::empty();
                    Ok(rustix::fs::mknodat(
                        &parent.fd,
                        hidden,
                        FileType::CharacterDevice,
                        mode,
                        0,
                    )?)
                };
                retry(space, make).map_err(failed)
            }
            // The archive brings this directory itself: its lower namesake is to be hidden, not merged.
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let open = sys::open_directory(&parent.fd, hidden).map_err(failed)?;
                set_opaque(&open).map_err(failed)
            }
            Some(_) => Ok(()),
        }
    }

    fn stat(&self, parent: &Directory, name: &[u8]) -> Result<Option<rustix::fs::Stat>> {
        match rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(operation("stat", &parent.join(name), error.into())),
        }
    }

    /// Makes room for an entry: what stands at its name goes, except a directory for a directory.
    fn clear<T: Record>(
        &mut self,
        parent: &Directory,
        name: &[u8],
        real: &[u8],
        entry: &Entry,
        tee: &mut T,
    ) -> Result<Before> {
        let failed = |error: std::io::Error| operation("replace", &entry.path, error);
        let Some(stat) = self.stat(parent, name)? else {
            return Ok(Before::Nothing);
        };
        let file_type = FileType::from_raw_mode(stat.st_mode);
        if file_type == FileType::Directory && entry.kind == Kind::Directory {
            return Ok(Before::Directory);
        }
        match file_type {
            FileType::RegularFile | FileType::Directory => {
                if file_type == FileType::Directory {
                    self.tree.forget();
                    let open = sys::open_directory(&parent.fd, name).map_err(failed)?;
                    let gone = sys::usage(&open).map_err(failed)?.apparent_bytes;
                    self.applied.size_bytes = self.applied.size_bytes.saturating_sub(gone);
                } else if stat.st_nlink == 1 {
                    self.applied.size_bytes =
                        self.applied.size_bytes.saturating_sub(stat.st_size as u64);
                }
                match (tee.recorder(), self.snapshot) {
                    (Some(recorder), Some(snapshot)) => {
                        let aside = crate::recipe::replaced_directory(snapshot)?;
                        let place = recorder.moved(real).to_string();
                        let moved = || {
                            Ok(rustix::fs::renameat(
                                &parent.fd,
                                name,
                                &aside,
                                place.as_str(),
                            )?)
                        };
                        retry(self.options.make_space, moved).map_err(failed)?;
                    }
                    _ => sys::remove_tree(&parent.fd, name, &mut || Ok(())).map_err(failed)?,
                }
                Ok(Before::Nothing)
            }
            _ => {
                if file_type == FileType::Symlink {
                    self.tree.forget();
                    self.applied.size_bytes =
                        self.applied.size_bytes.saturating_sub(stat.st_size as u64);
                }
                rustix::fs::unlinkat(&parent.fd, name, AtFlags::empty())
                    .map_err(|error| failed(error.into()))?;
                let whiteout = self.options.form == Form::Layer
                    && file_type == FileType::CharacterDevice
                    && stat.st_rdev == 0;
                Ok(if whiteout {
                    Before::Whiteout
                } else {
                    Before::Nothing
                })
            }
        }
    }

    /// Sets what was kept of directories; one that a later entry replaced is passed over.
    fn finish_directories(&mut self) -> Result<()> {
        for directory in &self.directories {
            let failed =
                |error: std::io::Error| operation("set the attributes of", &directory.path, error);
            let path = if directory.path.is_empty() {
                b".".as_slice()
            } else {
                &directory.path
            };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let open = match sys::openat2_no_symlinks(self.tree.root(), path, flags, Mode::empty())
            {
                Ok(open) => open,
                Err(error)
                    if matches!(
                        rustix::io::Errno::from_io_error(&error),
                        Some(
                            rustix::io::Errno::NOENT
                                | rustix::io::Errno::NOTDIR
                                | rustix::io::Errno::LOOP
                        )
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            if self.always_chown || directory.uid != 0 || directory.gid != 0 {
                let (uid, gid) = (Uid::from_raw(directory.uid), Gid::from_raw(directory.gid));
                rustix::fs::fchown(&open, Some(uid), Some(gid))
                    .map_err(|error| failed(error.into()))?;
            }
            let mode = Mode::from_raw_mode(directory.mode & 0o7777);
            rustix::fs::fchmod(&open, mode).map_err(|error| failed(error.into()))?;
            for (attribute, value) in kept(&directory.xattrs) {
                retry(self.options.make_space, || {
                    sys::fsetxattr(&open, &attribute, value)
                })
                .map_err(failed)?;
            }
            rustix::fs::futimens(&open, &times(directory.mtime))
                .map_err(|error| failed(error.into()))?;
        }
        Ok(())
    }
}

/// Marks a directory as hiding its lower namesakes (overlayfs, "whiteouts and opaque directories").
fn set_opaque(directory: impl AsFd) -> std::io::Result<()> {
    sys::fsetxattr(directory, c"trusted.overlay.opaque", b"y")
}

/// Passes over the attributes that steer overlayfs itself.
fn kept(xattrs: &[(Vec<u8>, Vec<u8>)]) -> impl Iterator<Item = (CString, &[u8])> {
    xattrs.iter().filter_map(|(name, value)| {
        let steers = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
        if steers {
            None
        } else {
            Some((CString::new(name.as_slice()).ok()?, value.as_slice()))
        }
    })
}

fn no_attribute(entry: &Entry, attribute: &CString, error: std::io::Error) -> Error {
    Error::io(
        format!(
            "set attribute `{}` of `{}`",
            attribute.to_string_lossy(),
            show(&entry.path)
        ),
        error,
    )
}

fn operation(verb: &str, path: &[u8], error: std::io::Error) -> Error {
    Error::io(format!("{verb} `{}`", show(path)), error)
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: i64::from(nanos),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Tries again as long as space can be made.
fn retry<T>(
    make_space: MakeSpace<'_>,
    mut action: impl FnMut() -> std::io::Result<T>,
) -> std::io::Result<T> {
    loop {
        match action() {
            Err(error) if is_no_space(&error) && make_space() => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Reads the process's umask without changing it: umask(2) can only do both, and other threads create files too.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    // Where it cannot be read, chmod everything.
    line.and_then(|digits| u32::from_str_radix(digits.trim(), 8).ok())
        .unwrap_or(0o777)
}

#[cfg(test)]
mod tests;
