//! The mount API of Linux 5.2 and later, and the classic calls that it does not replace.
//!
//! Mounts are descriptors until [`move_mount`] gives them a place: nothing here takes a path inside a file system that
//! somebody else controls. Every descriptor is close-on-exec. What a kernel lacks is reported as `ENOSYS` or `EINVAL`;
//! falling back is the caller's decision.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount as sys;

/// Read-only (`MOUNT_ATTR_RDONLY`).
pub const ATTR_RDONLY: u64 = 0x01;
/// No set-user-id (`MOUNT_ATTR_NOSUID`).
pub const ATTR_NOSUID: u64 = 0x02;
/// No device nodes (`MOUNT_ATTR_NODEV`).
pub const ATTR_NODEV: u64 = 0x04;
/// No execution (`MOUNT_ATTR_NOEXEC`).
pub const ATTR_NOEXEC: u64 = 0x08;
/// Mask of the access time modes (`MOUNT_ATTR__ATIME`); zero in it is `relatime`.
pub const ATTR_ATIME: u64 = 0x70;
/// No access times (`MOUNT_ATTR_NOATIME`).
pub const ATTR_NOATIME: u64 = 0x10;
/// Access times always (`MOUNT_ATTR_STRICTATIME`).
pub const ATTR_STRICTATIME: u64 = 0x20;
/// No access times of directories (`MOUNT_ATTR_NODIRATIME`).
pub const ATTR_NODIRATIME: u64 = 0x80;
/// Ids are mapped by a user namespace (`MOUNT_ATTR_IDMAP`).
pub const ATTR_IDMAP: u64 = 0x0010_0000;
/// Symbolic links are not followed (`MOUNT_ATTR_NOSYMFOLLOW`).
pub const ATTR_NOSYMFOLLOW: u64 = 0x0020_0000;

/// How mounts and unmounts travel to and from copies of a mount (`mount_namespaces(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Private,
    Slave,
    Shared,
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Self::Private => libc::MS_PRIVATE,
            Self::Slave => libc::MS_SLAVE,
            Self::Shared => libc::MS_SHARED,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// Opens a context for a new file system of type `name` (`fsopen(2)`).
pub fn fsopen(name: &str) -> io::Result<OwnedFd> {
    Ok(sys::fsopen(name, sys::FsOpenFlags::FSOPEN_CLOEXEC)?)
}

/// Sets an option without a value.
pub fn fsconfig_set_flag(context: BorrowedFd<'_>, key: &str) -> io::Result<()> {
    Ok(sys::fsconfig_set_flag(context, key)?)
}

/// Sets an option to a text; overlayfs takes `lowerdir+` this way from Linux 6.5 on.
pub fn fsconfig_set_string(
    context: BorrowedFd<'_>,
    key: &str,
    value: impl rustix::path::Arg,
) -> io::Result<()> {
    Ok(sys::fsconfig_set_string(context, key, value)?)
}

/// Sets an option to a descriptor; overlayfs takes its directories this way from Linux 6.13 on.
pub fn fsconfig_set_fd(
    context: BorrowedFd<'_>,
    key: &str,
    value: BorrowedFd<'_>,
) -> io::Result<()> {
    Ok(sys::fsconfig_set_fd(context, key, value)?)
}

/// Makes the file system's superblock.
pub fn fsconfig_create(context: BorrowedFd<'_>) -> io::Result<()> {
    Ok(sys::fsconfig_create(context)?)
}

/// Returns what the file system said about the last failures, one message after the other, without the level letter.
pub fn context_log(context: BorrowedFd<'_>) -> String {
    let mut text = String::new();
    let mut line = [0_u8; 1024];
    while let Ok(length) = rustix::io::read(context, &mut line) {
        if length == 0 {
            break;
        }
        let message = String::from_utf8_lossy(&line[..length]);
        let message = message.trim_end();
        let message = message.split_once(' ').map_or(message, |(_, rest)| rest);
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(message);
    }
    text
}

/// Makes a detached mount of a superblock with `attributes` (`ATTR_*`).
pub fn fsmount(context: BorrowedFd<'_>, attributes: u64) -> io::Result<OwnedFd> {
    let attributes = sys::MountAttrFlags::from_bits_retain(attributes as libc::c_uint);
    Ok(sys::fsmount(
        context,
        sys::FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// Puts a detached mount onto the place that `to` refers to.
pub fn move_mount(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let flags =
        sys::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | sys::MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(sys::move_mount(from, c"", to, c"", flags)?)
}

/// Puts a detached mount onto a path of the caller's own file system.
pub fn move_mount_onto(from: BorrowedFd<'_>, path: impl rustix::path::Arg) -> io::Result<()> {
    let flags = sys::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(sys::move_mount(from, c"", rustix::fs::CWD, path, flags)?)
}

/// Makes a detached copy of the mount at `path`, with everything mounted beneath it if `recursive`. An empty path
/// stands for `directory` itself, which may then be a file.
pub fn open_tree(
    directory: BorrowedFd<'_>,
    path: impl rustix::path::Arg,
    recursive: bool,
) -> io::Result<OwnedFd> {
    let mut flags = sys::OpenTreeFlags::OPEN_TREE_CLOEXEC
        | sys::OpenTreeFlags::OPEN_TREE_CLONE
        | sys::OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= sys::OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(sys::open_tree(directory, path, flags)?)
}

/// What [`mount_setattr`] changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct MountAttributes<'a> {
    /// `ATTR_*` to set.
    pub set: u64,
    /// `ATTR_*` to clear; a change of the access time mode has to clear [`ATTR_ATIME`].
    pub clear: u64,
    pub propagation: Option<Propagation>,
    /// The user namespace of [`ATTR_IDMAP`].
    pub userns: Option<BorrowedFd<'a>>,
}

/// Changes the mount that `mount` refers to, and all beneath it if `recursive`; Linux 5.12.
///
/// # Errors
/// `ENOSYS` on older kernels.
pub fn mount_setattr(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: &MountAttributes<'_>,
) -> io::Result<()> {
    let raw = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation.map_or(0, Propagation::bits),
        userns_fd: attributes.userns.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= 0x8000; // AT_RECURSIVE
    }
    // SAFETY: the path and the structure outlive the call, the size is the structure's own, and the kernel only reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const raw,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The classic `mount(2)`, for file systems and kernels that the descriptors do not serve.
pub fn mount(
    source: &CStr,
    target: &CStr,
    kind: &CStr,
    flags: libc::c_ulong,
    data: &CStr,
) -> io::Result<()> {
    // SAFETY: all four are NUL-terminated and outlive the call; file systems read `data` as a string.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Takes the mount at `path` away even while it is used (`MNT_DETACH`), without following a symbolic link.
pub fn umount_detach(path: impl rustix::path::Arg) -> io::Result<()> {
    Ok(sys::unmount(
        path,
        sys::UnmountFlags::DETACH | sys::UnmountFlags::NOFOLLOW,
    )?)
}

/// The places at and beneath `directory` where something is mounted in this process's mount namespace, in the order of
/// their mounting (proc_pid_mountinfo(5)). A place with several mounts on top of each other is there several times.
pub fn mount_points(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(points_at_or_beneath(&table, directory))
}

fn points_at_or_beneath(table: &[u8], directory: &Path) -> Vec<PathBuf> {
    table
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b' ').nth(4))
        .map(|point| PathBuf::from(OsString::from_vec(unescape(point))))
        .filter(|point| point.starts_with(directory))
        .collect()
}

/// A mount as other mounts see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOver {
    pub point: PathBuf,
    /// What is mounted beneath it travels to its peers.
    pub is_shared: bool,
    /// What is mounted beneath its master travels to it.
    pub is_slave: bool,
}

/// Finds the mount that a path without symbolic links is on (proc_pid_mountinfo(5)).
///
/// # Errors
/// `ENOENT` for a path that no mount of this namespace leads to.
pub fn mount_over(path: &Path) -> io::Result<MountOver> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    over(&table, path).ok_or_else(|| rustix::io::Errno::NOENT.into())
}

fn over(table: &[u8], path: &Path) -> Option<MountOver> {
    let mut best: Option<MountOver> = None;
    for line in table.split(|&byte| byte == b'\n') {
        let mut fields = line.split(|&byte| byte == b' ').skip(4);
        let Some(point) = fields.next() else { continue };
        let point = PathBuf::from(OsString::from_vec(unescape(point)));
        // The deepest one is meant; of several at one place the last is on top.
        let deeper = |best: &MountOver| point.as_os_str().len() >= best.point.as_os_str().len();
        if !path.starts_with(&point) || !best.as_ref().is_none_or(deeper) {
            continue;
        }
        let tags: Vec<&[u8]> = fields.skip(1).take_while(|field| *field != b"-").collect();
        let has = |name: &[u8]| tags.iter().any(|tag| tag.starts_with(name));
        best = Some(MountOver {
            is_shared: has(b"shared:"),
            is_slave: has(b"master:"),
            point,
        });
    }
    best
}

/// Resolves mountinfo's octal escapes for blanks and backslashes (proc_pid_mountinfo(5)).
pub(crate) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let [
            b'\\',
            a @ b'0'..=b'3',
            b @ b'0'..=b'7',
            c @ b'0'..=b'7',
            tail @ ..,
        ] = rest
        {
            plain.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = tail;
        } else {
            plain.push(*first);
            rest = tail;
        }
    }
    plain
}

/// Makes `new_root` the root of the mount namespace and puts the old one at `put_old` (`pivot_root(2)`).
pub fn pivot_root(
    new_root: impl rustix::path::Arg,
    put_old: impl rustix::path::Arg,
) -> io::Result<()> {
    Ok(rustix::process::pivot_root(new_root, put_old)?)
}

/// Makes a detached mount of a new file system from `key=value` options; a value of `None` is a flag.
///
/// # Errors
/// The system's error with the file system's own message.
pub fn new_filesystem(
    kind: &str,
    source: Option<&str>,
    options: &[(String, Option<String>)],
    attributes: u64,
) -> io::Result<OwnedFd> {
    let context = fsopen(kind)?;
    let outcome = (|| {
        if let Some(source) = source {
            fsconfig_set_string(context.as_fd(), "source", source)?;
        }
        for (key, value) in options {
            match value {
                Some(value) => fsconfig_set_string(context.as_fd(), key, value.as_str())?,
                None => fsconfig_set_flag(context.as_fd(), key)?,
            }
        }
        fsconfig_create(context.as_fd())?;
        fsmount(context.as_fd(), attributes)
    })();
    outcome.map_err(|error| explain(context.as_fd(), error))
}

/// Adds a file system's message to an error, whose number it keeps as its source.
pub fn explain(context: BorrowedFd<'_>, error: io::Error) -> io::Error {
    let log = context_log(context);
    if log.is_empty() {
        return error;
    }
    io::Error::new(error.kind(), Explained { log, source: error })
}

/// An error with the file system's words.
#[derive(Debug)]
struct Explained {
    log: String,
    source: io::Error,
}

impl std::fmt::Display for Explained {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} ({})", self.source, self.log)
    }
}

impl std::error::Error for Explained {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The number of the system's error beneath `error`, also of an explained one; 0 if there is none.
pub fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_else(|| {
        error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Explained>())
            .and_then(|explained| explained.source.raw_os_error())
            .unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_by_whole_parts_and_without_their_escapes() {
        let table = b"29 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n\
            40 29 0:30 / /data/v rw - tmpfs a rw\n\
            41 40 0:31 / /data/v/a\\040b\\134 rw - tmpfs b rw\n\
            42 40 0:31 / /data/v rw - tmpfs b rw\n\
            43 29 0:32 / /data/vw rw - tmpfs c rw\n";
        let found = points_at_or_beneath(table, Path::new("/data/v"));
        assert_eq!(
            found,
            ["/data/v", "/data/v/a b\\", "/data/v"].map(PathBuf::from)
        );
    }

    #[test]
    fn the_mount_over_a_path_is_the_deepest_and_topmost() {
        let table = b"29 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n\
            40 29 0:30 / /data/v rw shared:7 master:1 - tmpfs a rw\n\
            41 29 0:31 / /data/v rw master:2 - tmpfs b rw\n\
            42 29 0:31 / /other rw - tmpfs shared:9 rw\n";
        let find = |path: &str| {
            let found = over(table, Path::new(path)).unwrap();
            (
                found.point.display().to_string(),
                found.is_shared,
                found.is_slave,
            )
        };
        assert_eq!(find("/data/v/x"), ("/data/v".to_owned(), false, true));
        assert_eq!(find("/data/vw"), ("/".to_owned(), true, false));
        assert_eq!(find("/other"), ("/other".to_owned(), false, false));
    }
}
