//! Places the root in the mount namespace and makes it `/`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use gantry_sys::mount::{self, MountAttributes, Propagation};
use rustix::fs::{Mode, OFlags};

use crate::error::Error;

/// Changes the propagation of all mounts of the host's that the new namespace has copies of.
pub(crate) fn detach_from_host(propagation: Propagation) -> Result<(), Error> {
    let failed = |error: io::Error| Error::stage("change the propagation of", "/", error);
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed(error.into()))?;
    let attributes = MountAttributes {
        propagation: Some(propagation),
        ..Default::default()
    };
    mount::mount_setattr(root.as_fd(), true, &attributes).map_err(failed)
}

/// Gives the detached root a place: at `path`, where hooks look for it, else over `/`, which every namespace has and
/// every user may reach.
pub(crate) fn attach(root: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
    if path != Path::new("/") && mount::move_mount_onto(root, path).is_ok() {
        return Ok(());
    }
    mount::move_mount_onto(root, "/")
        .map_err(|error| Error::stage("attach the root over", "/", error))
}

/// Makes the attached root `/` and lets go of the old one.
pub(crate) fn pivot(root: BorrowedFd<'_>, no_pivot: bool) -> Result<(), Error> {
    let failed = |operation: &str, error: io::Error| Error::stage(operation, "/", error);
    if no_pivot {
        rustix::process::fchdir(root)
            .map_err(|error| failed("change directory to the new", error.into()))?;
        mount::mount(c".", c"/", c"", libc::MS_MOVE, c"")
            .map_err(|error| failed("move the root to", error))?;
        rustix::process::chroot(".").map_err(|error| failed("chroot to the new", error.into()))?;
    } else {
        let old: OwnedFd = rustix::fs::open(
            "/",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| failed("open the old", error.into()))?;
        rustix::process::fchdir(root)
            .map_err(|error| failed("change directory to the new", error.into()))?;
        // Old and new root on one place: the old one lies on top and is taken off, without a directory for it
        // (pivot_root(2), "pivot_root(".", ".")").
        mount::pivot_root(".", ".").map_err(|error| failed("pivot to the new", error))?;
        rustix::process::fchdir(&old)
            .map_err(|error| failed("change directory to the old", error.into()))?;
        // The unmount must not travel to the host through a mount that is still shared.
        let slave = MountAttributes {
            propagation: Some(Propagation::Slave),
            ..Default::default()
        };
        mount::mount_setattr(old.as_fd(), true, &slave)
            .map_err(|error| failed("change the propagation of the old", error))?;
        mount::umount_detach(".").map_err(|error| failed("unmount the old", error))?;
    }
    rustix::process::chdir("/").map_err(|error| failed("change directory to", error.into()))
}
