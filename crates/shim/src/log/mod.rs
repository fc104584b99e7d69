//! The container's log on disk: its writer (in the shim) and its reader (in the engine).
//!
//! ```text
//! PATH        the current file, written by one shim
//! PATH.1      the newest rotated file          PATH.1.gz   the same, compressed
//! PATH.2 ...  older ones, up to max_files - 1  PATH.gz-tmp-PID compression under way
//! ```
//! A line is on disk before any attached client sees it. Rotation renames and creates, so that a reader keeps its file
//! by its descriptor. A file's identity (its [`Position::generation`]) is made of its inode and birth time and travels
//! in the header of the compressed file.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxFlags};
use serde::{Deserialize, Serialize};

pub mod compress;
mod json;
mod local;
pub mod reader;
mod time;
pub mod writer;

/// The longest piece of a line that one record holds; a longer line is cut into pieces, as Docker does.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// A place between two lines of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The file's identity, which survives rotation and compression; 0: before the oldest line.
    pub generation: u64,
    /// Bytes from the start of the (uncompressed) file.
    pub offset: u64,
}

/// Which of the two output streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// Returns the stream's number in a multiplexed frame.
    pub fn number(self) -> u8 {
        match self {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        }
    }

    fn index(self) -> usize {
        usize::from(self.number()) - 1
    }
}

/// Returns `PATH.N`, or `PATH.N.gz`.
fn rotated(path: &Path, index: u32, compressed: bool) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{index}{}", if compressed { ".gz" } else { "" }));
    name.into()
}

/// Returns the identity of an uncompressed log file.
fn generation(file: &File) -> io::Result<u64> {
    let found = rustix::fs::statx(
        file.as_fd(),
        "",
        AtFlags::EMPTY_PATH,
        StatxFlags::INO | StatxFlags::BTIME,
    )?;
    // An inode number is used again as soon as a file is gone; the birth time tells the two apart.
    let birth = (found.stx_btime.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(u64::from(found.stx_btime.tv_nsec));
    let mixed = (found.stx_ino ^ birth.rotate_left(24)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Ok((mixed ^ (mixed >> 29)).max(1))
}
