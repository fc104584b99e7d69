//! `STATE_ROOT/ID/state.json`: what another process needs to find the container again, and its status, which is the
//! kernel's word and not the file's.
//!
//! ```text
//! STATE_ROOT/ID/
//!   state.json   written to a temporary name and renamed; absent while the container is being created
//!   exec.fifo    there until the container is started, if another process starts it
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_api::oci::runtime::{self as oci, Hooks, Spec};
use gantry_sys::cgroup::{Cgroup, Layout};
use gantry_sys::process::pidfd_open;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::plan::check_id;

/// Name of the fifo that a start goes through.
pub(crate) const FIFO: &str = "exec.fifo";
const FILE: &str = "state.json";

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    /// The specification's word; `paused` is runc's.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// The record of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub version: u32,
    pub id: String,
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`, in clock ticks since boot.
    pub start_time: u64,
    pub boot_id: String,
    pub bundle: PathBuf,
    pub root: PathBuf,
    /// RFC 3339.
    pub created: String,
    pub cgroup: String,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub oci_version: String,
    /// Hooks that come later: poststart, poststop.
    #[serde(default)]
    pub hooks: Hooks,
    /// The specification, if an `exec` of another process may need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Spec>,
    #[serde(skip)]
    pub(crate) directory: PathBuf,
}

impl State {
    /// Reads the record of one container.
    ///
    /// # Errors
    /// [`Error::NotFound`] without one.
    pub fn load(state_root: &Path, id: &str) -> Result<Self, Error> {
        check_id(id)?;
        let directory = state_root.join(id);
        let bytes = match fs::read(directory.join(FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound { id: id.to_owned() });
            }
            Err(error) => return Err(Error::stage("read state of", id, error)),
        };
        let mut state: Self = serde_json::from_slice(&bytes)
            .map_err(|error| Error::stage("parse state of", id, error))?;
        state.directory = directory;
        Ok(state)
    }

    pub(crate) fn save(&self) -> Result<(), Error> {
        let failed = |error: io::Error| Error::stage("write state of", &self.id, error);
        let bytes = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        let temporary = self.directory.join("state.json.new");
        fs::write(&temporary, bytes).map_err(failed)?;
        fs::rename(&temporary, self.directory.join(FILE)).map_err(failed)
    }

    /// The file that a start of another process reads.
    pub(crate) fn fifo(&self) -> PathBuf {
        self.directory.join(FIFO)
    }

    /// Asks the kernel how the container is.
    pub fn status(&self) -> Status {
        if !self.is_alive() {
            Status::Stopped
        } else if self.fifo().exists() {
            Status::Created
        } else if self
            .cgroup()
            .is_ok_and(|cgroup| cgroup.is_frozen().unwrap_or(false))
        {
            Status::Paused
        } else {
            Status::Running
        }
    }

    /// Says whether the init runs: the same process as recorded, not a later one of its number, and no zombie.
    pub fn is_alive(&self) -> bool {
        self.boot_id == boot_id().unwrap_or_default()
            && stat(self.pid).is_ok_and(|stat| stat.start_time == self.start_time && stat.runs())
    }

    /// Opens the init.
    ///
    /// # Errors
    /// [`Error::State`] when it has ended.
    pub fn pidfd(&self) -> Result<OwnedFd, Error> {
        let ended = || Error::state("container not running");
        let pidfd = pidfd_open(self.pid).map_err(|_| ended())?;
        // Asked after opening: from here on the descriptor cannot become another process.
        if self.is_alive() {
            Ok(pidfd)
        } else {
            Err(ended())
        }
    }

    /// Opens the container's cgroup.
    pub fn cgroup(&self) -> Result<Cgroup, Error> {
        let failed = |error| Error::stage("open cgroup", &self.cgroup, error);
        let layout = Layout::detect().map_err(failed)?;
        Cgroup::open(&layout, &self.cgroup).map_err(failed)
    }

    /// The form that hooks and `state` show.
    pub fn public(&self, status: Status) -> oci::State {
        oci::State {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            status: status.as_str().to_owned(),
            pid: if status == Status::Stopped {
                0
            } else {
                self.pid
            },
            bundle: self.bundle.clone(),
            annotations: self.annotations.clone(),
        }
    }

    /// Takes the record away.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::stage("remove state of", &self.id, error))
            }
            _ => Ok(()),
        }
    }
}

/// Reads the records of all containers, in the order of their ids; what is just being made or removed is left out.
pub fn list(state_root: &Path) -> Result<Vec<State>, Error> {
    let entries = match fs::read_dir(state_root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::stage("read", state_root.display(), error)),
    };
    let mut states = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::stage("read", state_root.display(), error))?;
        match State::load(state_root, &entry.file_name().to_string_lossy()) {
            Ok(state) => states.push(state),
            Err(Error::NotFound { .. } | Error::Invalid { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    states.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(states)
}

/// What is used of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    state: char,
    pub start_time: u64,
}

impl Stat {
    fn runs(self) -> bool {
        self.state != 'Z' && self.state != 'X'
    }
}

pub(crate) fn stat(pid: i32) -> io::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The name in parentheses may have spaces and parentheses itself: what counts comes after the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start_time })
}

/// The kernel's name of the time since the last boot.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Opens the directory for a fifo as a place, for a process that will have no path to it.
pub(crate) fn make_fifo(directory: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let directory = rustix::fs::open(
        directory,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // The user of the container, whoever that is, writes to it, by way of a descriptor only: nobody else gets into the
    // directory.
    rustix::fs::mknodat(
        &directory,
        FIFO,
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o622),
        0,
    )?;
    let fifo = rustix::fs::openat(
        directory.as_fd(),
        FIFO,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::fs::chmodat(
        &directory,
        FIFO,
        Mode::from_raw_mode(0o622),
        rustix::fs::AtFlags::empty(),
    )?;
    Ok(fifo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_with_odd_names() {
        let line = "7 (a ) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 0 0";
        assert_eq!(
            parse_stat(line),
            Some(Stat {
                state: 'S',
                start_time: 98765
            })
        );
        assert_eq!(parse_stat("7 (x"), None);
        assert!(stat(std::process::id() as i32).expect("self").runs());
    }
}
