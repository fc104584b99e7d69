//! The exit record: how the container ended, on disk before anyone is told.

use std::fs;
use std::io;
use std::path::Path;

use rustix::time::ClockId;

use crate::protocol::ExitRecord;

/// Returns Unix time in nanoseconds.
pub fn realtime_ns() -> i64 {
    nanoseconds(ClockId::Realtime)
}

/// Returns the time since boot, suspension included.
pub fn boottime_ns() -> i64 {
    nanoseconds(ClockId::Boottime)
}

fn nanoseconds(clock: ClockId) -> i64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec)
}

/// Writes the record under a temporary name and renames it.
pub fn write(path: &Path, record: &ExitRecord) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let json = serde_json::to_vec(record)?;
    fs::write(&temporary, json)?;
    fs::rename(&temporary, path)
}

/// Reads a record; `None` if there is none.
pub fn read(path: &Path) -> io::Result<Option<ExitRecord>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
