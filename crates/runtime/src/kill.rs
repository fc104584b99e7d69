//! Signals, freezing, and who is in a container.

use std::os::fd::AsFd;

use gantry_sys::process::pidfd_send_signal;

use crate::error::Error;
use crate::state::{State, Status};

/// Sends a signal to the init, or to every process of the container.
///
/// # Errors
/// [`Error::State`] when the container has ended.
pub fn kill(state: &State, signal: i32, all: bool) -> Result<(), Error> {
    let failed = |error| Error::stage("signal", &state.id, error);
    if all {
        let cgroup = match state.cgroup() {
            Ok(cgroup) => cgroup,
            Err(error) if error.errno() == libc::ENOENT || state.status() == Status::Stopped => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if signal == libc::SIGKILL {
            return cgroup.kill().map_err(failed);
        }
        for pid in cgroup.pids().map_err(failed)? {
            // A process may end between the list and the signal.
            if let Ok(pidfd) = gantry_sys::process::pidfd_open(pid) {
                match pidfd_send_signal(pidfd.as_fd(), signal) {
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    other => other.map_err(failed)?,
                }
            }
        }
        return Ok(());
    }
    let pidfd = state.pidfd()?;
    pidfd_send_signal(pidfd.as_fd(), signal).map_err(|error| match error.raw_os_error() {
        Some(libc::ESRCH) => Error::state("container not running"),
        _ => failed(error),
    })
}

/// Stops all processes of a container where they are.
pub fn pause(state: &State) -> Result<(), Error> {
    match state.status() {
        Status::Running | Status::Created => {}
        status => {
            return Err(Error::state(format!(
                "container not running or created: {}",
                status.as_str()
            )));
        }
    }
    state
        .cgroup()?
        .freeze()
        .map_err(|error| Error::stage("freeze", &state.id, error))
}

/// Lets them go on.
pub fn resume(state: &State) -> Result<(), Error> {
    if state.status() != Status::Paused {
        return Err(Error::state("container not paused"));
    }
    state
        .cgroup()?
        .thaw()
        .map_err(|error| Error::stage("thaw", &state.id, error))
}

/// The processes of a container, as the caller numbers them.
pub fn processes(state: &State) -> Result<Vec<i32>, Error> {
    state
        .cgroup()?
        .pids()
        .map_err(|error| Error::stage("list processes of", &state.id, error))
}
