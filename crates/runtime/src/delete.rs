//! `delete`: nothing of a container is left.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use gantry_sys::cgroup::{Cgroup, Layout};
use gantry_sys::process::pidfd_send_signal;
use gantry_sys::unix::wait_readable;

use crate::error::Error;
use crate::hooks;
use crate::plan::check_id;
use crate::state::{State, Status};

/// How long the kernel may take to end a killed init.
const END: Duration = Duration::from_secs(10);

/// What is deleted, and how.
#[derive(Clone, Copy, Debug)]
pub struct DeleteOptions<'a> {
    pub state_root: &'a Path,
    pub id: &'a str,
    /// Kills a running container, and does not mind one that is not there.
    pub force: bool,
}

/// Deletes a container: its processes, cgroups and record. Poststop hooks run at the end; their failures are returned
/// when everything else is done.
///
/// # Errors
/// [`Error::NotFound`] and [`Error::State`] unless forced.
pub fn delete(options: DeleteOptions<'_>) -> Result<(), Error> {
    let DeleteOptions {
        state_root,
        id,
        force,
    } = options;
    let state = match State::load(state_root, id) {
        Ok(state) => state,
        // A directory without a record is what a killed `create` leaves behind.
        Err(Error::NotFound { .. }) if force => return remove_remains(state_root, id),
        Err(error) => return Err(error),
    };
    match state.status() {
        Status::Stopped => {}
        // It runs nothing of the user's yet.
        Status::Created => {}
        Status::Running | Status::Paused if force => {}
        status => {
            return Err(Error::state(format!(
                "cannot delete container {id} that is not stopped: {}",
                status.as_str()
            )));
        }
    }
    let failed = |operation: &str, error: std::io::Error| Error::stage(operation, id, error);
    let layout = Layout::detect().map_err(|error| failed("find cgroups of", error))?;
    let cgroup = match Cgroup::open(&layout, &state.cgroup) {
        Ok(cgroup) => Some(cgroup),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("open cgroup of", error)),
    };
    if let Ok(pidfd) = state.pidfd() {
        let _ = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        // A frozen process is killed when it thaws.
        if let Some(cgroup) = &cgroup {
            cgroup.kill().map_err(|error| failed("kill", error))?;
        }
        wait_readable(pidfd.as_fd(), END).map_err(|error| failed("wait for the end of", error))?;
    }
    if let Some(cgroup) = &cgroup {
        cgroup.kill().map_err(|error| failed("kill", error))?;
        cgroup
            .remove()
            .map_err(|error| failed("remove cgroup of", error))?;
    }
    state.remove()?;
    match hooks::run_all(
        "poststop",
        &state.hooks.poststop,
        &state.public(Status::Stopped),
    )
    .into_iter()
    .next()
    {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn remove_remains(state_root: &Path, id: &str) -> Result<(), Error> {
    check_id(id)?;
    match std::fs::remove_dir_all(state_root.join(id)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::stage("remove state of", id, error))
        }
        _ => Ok(()),
    }
}
