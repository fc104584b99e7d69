//! Checks by a real, detached overlay mount that the data root's file system can hold layers.
//!
//! The kernel refuses or, worse, half-serves some file systems: no whiteouts, no `trusted.*` attributes, no d_type.
//! Each is tried, because documentation lags behind kernels.

use crate::error::{Error, Result};
use gantry_sys::fs as sys;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::os::fd::{AsRawFd, OwnedFd};

const NAME: &str = ".probe";

/// Mounts an overlay over two directories made beneath `directory` and looks through it.
pub(crate) fn overlay(directory: &OwnedFd) -> Result<()> {
    let clean = || {
        sys::remove_tree(directory, NAME, &mut || Ok(()))
            .map_err(|error| Error::io("remove the probe's files", error))
    };
    clean()?;
    let result = probe(directory);
    clean()?;
    result
}

fn probe(directory: &OwnedFd) -> Result<()> {
    let failed = |operation: &'static str| move |error: Errno| Error::io(operation, error);
    let mode = Mode::from_raw_mode(0o700);
    let make = |parent: &OwnedFd, name: &str| -> Result<OwnedFd> {
        rustix::fs::mkdirat(parent, name, mode)
            .map_err(failed("create a directory to probe overlay"))?;
        sys::open_directory(parent, name)
            .map_err(|error| Error::io("open a directory to probe overlay", error))
    };
    let own = make(directory, NAME)?;
    let (lower, upper, work) = (
        make(&own, "lower")?,
        make(&own, "upper")?,
        make(&own, "work")?,
    );
    for name in ["hidden", "shown"] {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&lower, name, flags, mode)
            .map_err(failed("create a file to probe overlay"))?;
    }
    let below = make(&lower, "opaque")?;
    make(&below, "hidden")?;
    let opaque = make(&upper, "opaque")?;

    let entries = sys::entries(&lower)
        .map_err(|error| Error::io("list a directory to probe overlay", error))?;
    if entries
        .iter()
        .any(|entry| entry.file_type == FileType::Unknown)
    {
        return Err(unsupported(
            "its directories do not tell the types of files (d_type)",
        ));
    }
    rustix::fs::mknodat(
        &upper,
        "hidden",
        FileType::CharacterDevice,
        Mode::empty(),
        0,
    )
    .map_err(|error| {
        unsupported(&format!(
            "whiteouts (0:0 character devices) cannot be made: {error}"
        ))
    })?;
    sys::fsetxattr(&opaque, c"trusted.overlay.opaque", b"y").map_err(|error| {
        unsupported(&format!(
            "trusted extended attributes cannot be set: {error}"
        ))
    })?;

    let root = mount(&lower, &upper, &work)
        .map_err(|error| unsupported(&format!("overlay cannot be mounted over it: {error}")))?;
    let exists = |path: &str| rustix::fs::statat(&root, path, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    if !exists("shown") || exists("hidden") || exists("opaque/hidden") || !exists("opaque") {
        return Err(unsupported(
            "an overlay over it does not honour whiteouts and opaque directories",
        ));
    }
    Ok(())
}

fn mount(lower: &OwnedFd, upper: &OwnedFd, work: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    // Named through /proc, because a colon in the data root's path would split the option.
    let path = |directory: &OwnedFd| format!("/proc/self/fd/{}", directory.as_raw_fd());
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [
        ("source", "overlay".to_owned()),
        ("lowerdir", path(lower)),
        ("upperdir", path(upper)),
        ("workdir", path(work)),
        ("index", "off".to_owned()),
        ("redirect_dir", "off".to_owned()),
        ("metacopy", "off".to_owned()),
    ] {
        rustix::mount::fsconfig_set_string(&context, key, value)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
}

fn unsupported(reason: &str) -> Error {
    Error::Unsupported(format!(
        "the data root's file system cannot hold layers: {reason}"
    ))
}
