//! Joining the namespaces of another container.
//!
//! A record knows a process by its number, which another process may bear by now. So a namespace is opened first, and then
//! the process that still has the number must have started when the record says: a number comes back only with a later
//! time. What goes to the runtime is the descriptor, which stays that namespace whatever becomes of the process.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use super::record::Record;
use super::start_failure::StartExit;
use super::{State, Status};
use crate::{Engine, Error, Result};

/// A namespace to join, by the OCI specification's name of its kind.
pub(super) type Joined = (&'static str, OwnedFd);

impl Engine {
    /// Opens the namespaces that a container joins; the host's need none.
    pub(super) fn joined_namespaces(&self, record: &Record) -> Result<Vec<Joined>> {
        let host = &record.host;
        let mut joined = Vec::new();
        for (kind, file, what, mode) in [
            ("network", "net", "network", &host.network_mode),
            ("pid", "pid", "PID", &host.pid_mode),
            ("ipc", "ipc", "IPC", &host.ipc_mode),
        ] {
            let Some(name) = mode.strip_prefix("container:") else {
                continue;
            };
            let other = self.container(name)?.record();
            let gone = || match kind {
                "network" => unfit_network(&other),
                _ => Error::conflict(format!(
                    "failed to join {what} namespace: container {} is not running",
                    other.id
                )),
            };
            if !matches!(other.state.status, Status::Running | Status::Paused) {
                return Err(gone());
            }
            let namespace = open_namespace(&other.state, file).map_err(|error| {
                Error::io(
                    format_args!("join the {what} namespace of container {}", other.id),
                    error,
                )
            })?;
            joined.push((kind, namespace.ok_or_else(gone)?));
        }
        Ok(joined)
    }

    /// Refuses a container whose network cannot be joined, before anything is made.
    pub(super) fn check_network(&self, record: &Record) -> Result<()> {
        let mode = record.host.network_mode.as_str();
        let Some(name) = mode.strip_prefix("container:") else {
            return Ok(());
        };
        let other = match self.container(name) {
            Ok(other) => other.record(),
            Err(error) => {
                return Err(Error::system(format!(
                    "joining network namespace of container: {error}"
                ))
                .caused_by(StartExit(128)));
            }
        };
        match other.state.status {
            Status::Running | Status::Paused => Ok(()),
            _ => Err(unfit_network(&other)),
        }
    }
}

fn unfit_network(other: &Record) -> Error {
    let text = match other.state.status {
        Status::Restarting => format!(
            "container {} is restarting, wait until the container is running",
            other.id
        ),
        // It ended while we looked, and its record does not say so yet.
        Status::Running | Status::Paused => format!(
            "cannot join network namespace of a non running container: container {} is exited",
            other.name
        ),
        status => format!(
            "cannot join network namespace of a non running container: container {} is {}",
            other.name,
            status.as_str()
        ),
    };
    Error::conflict(text).caused_by(StartExit(128))
}

/// Opens a namespace of the process that the state tells of; `None` if that is gone, whoever has its number now.
pub(crate) fn open_namespace(state: &State, file: &str) -> io::Result<Option<OwnedFd>> {
    let namespace = match File::open(format!("/proc/{}/ns/{file}", state.pid)) {
        Ok(namespace) => namespace,
        // A process that has ended and was not waited for has no namespaces any more.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let started = gantry_shim::start_time_ticks(state.pid);
    Ok((started != 0 && started == state.pid_start_ticks).then(|| namespace.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn state(pid: i32, pid_start_ticks: u64) -> State {
        State {
            pid,
            pid_start_ticks,
            ..State::default()
        }
    }

    #[test]
    fn a_namespace_is_that_of_the_process_which_the_record_means() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let ticks = gantry_shim::start_time_ticks(pid);
        let found = open_namespace(&state(pid, ticks), "uts").unwrap().unwrap();
        let expected = std::fs::metadata(format!("/proc/{pid}/ns/uts")).unwrap();
        assert_eq!(File::from(found).metadata().unwrap().ino(), expected.ino());
        // The number lives on with another process.
        for other in [ticks - 1, ticks + 1, 0] {
            assert!(open_namespace(&state(pid, other), "uts").unwrap().is_none());
        }
        child.kill().unwrap();
        // Dead and not waited for.
        rustix::process::waitid(
            rustix::process::WaitId::Pid(rustix::process::Pid::from_child(&child)),
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
        )
        .unwrap();
        assert!(open_namespace(&state(pid, ticks), "uts").unwrap().is_none());
        child.wait().unwrap();
        assert!(open_namespace(&state(pid, ticks), "uts").unwrap().is_none());
    }
}
