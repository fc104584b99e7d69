//! Reading and writing the small files of a cgroup beneath its directory.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::failure;

/// Opens a directory to reach files beneath it.
pub(super) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| failure("open cgroup", path, error))
}

/// Opens a directory as bpf(2) wants it: it refuses O_PATH.
pub(super) fn open_directory_for_reading(path: &Path) -> io::Result<OwnedFd> {
    rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| failure("open cgroup", path, error))
}

pub(super) fn open(directory: BorrowedFd<'_>, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(
        directory,
        name,
        flags | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
    )
}

/// Writes `value` in one piece, as cgroup files want it.
pub(super) fn write(directory: BorrowedFd<'_>, name: &str, value: &str) -> Result<(), Errno> {
    let descriptor = open(directory, name, OFlags::WRONLY)?;
    write_to(std::os::fd::AsFd::as_fd(&descriptor), value)
}

pub(super) fn write_to(descriptor: BorrowedFd<'_>, value: &str) -> Result<(), Errno> {
    // An empty value would be no write at all.
    let value = if value.is_empty() { "\n" } else { value };
    rustix::io::retry_on_intr(|| rustix::io::write(descriptor, value.as_bytes())).map(drop)
}

/// Reads a whole file.
pub(super) fn read(directory: BorrowedFd<'_>, name: &str) -> Result<String, Errno> {
    let descriptor = open(directory, name, OFlags::RDONLY)?;
    let mut buffer = vec![0; 4096];
    let mut length = 0;
    loop {
        if length == buffer.len() {
            buffer.resize(length * 2, 0);
        }
        match rustix::io::retry_on_intr(|| rustix::io::read(&descriptor, &mut buffer[length..]))? {
            0 => break,
            count => length += count,
        }
    }
    buffer.truncate(length);
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}
