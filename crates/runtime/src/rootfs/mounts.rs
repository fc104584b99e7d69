//! The mounts of the specification, carried out in the child.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use gantry_sys::mount::{self, ATTR_RDONLY, MountAttributes};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::{beneath, copy_up};
use crate::error::Error;
use crate::plan::mounts::{Kind, MountPlan};
use crate::prepare::{CgroupBind, Source};

/// What later steps need of the mounts.
#[derive(Debug, Default)]
pub(crate) struct Mounted {
    /// The container's `/proc`, by the descriptor it was made with.
    pub proc: Option<OwnedFd>,
    /// File systems that become read-only when all is made in them.
    pub late_readonly: Vec<OwnedFd>,
}

/// Makes all mounts in their order.
pub(crate) fn apply(
    plans: &[MountPlan],
    sources: &[Source],
    root: BorrowedFd<'_>,
) -> Result<Mounted, Error> {
    let mut mounted = Mounted::default();
    for (plan, source) in plans.iter().zip(sources) {
        one(plan, source, root, &mut mounted).map_err(|source| Error::Mount {
            mount_source: plan.source_name(),
            destination: plan.destination.display().to_string(),
            source,
        })?;
    }
    Ok(mounted)
}

fn one(
    plan: &MountPlan,
    source: &Source,
    root: BorrowedFd<'_>,
    mounted: &mut Mounted,
) -> io::Result<()> {
    match (&plan.kind, source) {
        (_, Source::Tree(tree)) => {
            let place = if beneath::is_directory(tree.as_fd())? {
                beneath::directory(root, &plan.destination, 0o755)?
            } else {
                beneath::file(root, &plan.destination)?
            };
            // The kernel says EINVAL to a file on a directory; what is wrong is that one of them is none.
            if beneath::is_directory(tree.as_fd())? != beneath::is_directory(place.as_fd())? {
                return Err(rustix::io::Errno::NOTDIR.into());
            }
            mount::move_mount(tree.as_fd(), place.as_fd())
        }
        (_, Source::Cgroups(binds)) => cgroups(plan, binds, root, mounted),
        (
            Kind::New {
                filesystem,
                source,
                options,
            },
            _,
        ) => new(plan, filesystem, source, options, root, mounted),
        (Kind::Cgroup, _) => new(plan, "cgroup2", "cgroup", &[], root, mounted),
        (Kind::Bind { .. }, Source::InChild) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn new(
    plan: &MountPlan,
    filesystem: &str,
    source: &str,
    options: &[(String, Option<String>)],
    root: BorrowedFd<'_>,
    mounted: &mut Mounted,
) -> io::Result<()> {
    let place = if filesystem == "proc" || filesystem == "sysfs" {
        ordinary_directory(root, &plan.destination, filesystem)?
    } else {
        beneath::directory(root, &plan.destination, 0o755)?
    };
    // Other mounts and the standard devices may have to be made in it first.
    let late = filesystem == "tmpfs" && plan.set & ATTR_RDONLY != 0;
    let attributes = if late {
        plan.set & !ATTR_RDONLY
    } else {
        plan.set
    };
    let source = Some(source)
        .filter(|source| !source.is_empty())
        .unwrap_or(filesystem);
    let made = mount::new_filesystem(filesystem, Some(source), options, attributes)?;
    if plan.copy_up {
        copy_up::copy(place.as_fd(), made.as_fd())?;
    }
    change(
        made.as_fd(),
        &MountPlan {
            set: attributes,
            ..plan.clone()
        },
        false,
    )?;
    mount::move_mount(made.as_fd(), place.as_fd())?;
    if late {
        mounted.late_readonly.push(made);
    } else if filesystem == "proc" && mounted.proc.is_none() {
        mounted.proc = Some(made);
    }
    Ok(())
}

/// `/proc` and `/sys` must be where they are said to be: a link there would let the image choose what is masked.
fn ordinary_directory(root: BorrowedFd<'_>, path: &Path, filesystem: &str) -> io::Result<OwnedFd> {
    match beneath::place_nofollow(root, path) {
        Ok(place) if beneath::is_directory(place.as_fd())? => Ok(place),
        Ok(_) => Err(io::Error::other(format!(
            "filesystem \"{filesystem}\" must be mounted on ordinary directory"
        ))),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            beneath::directory(root, path, 0o755)
        }
        Err(error) => Err(error),
    }
}

/// Sets attributes and propagation of a detached mount; `own` says whether its plain attributes are still to be set.
pub(crate) fn change(tree: BorrowedFd<'_>, plan: &MountPlan, own: bool) -> io::Result<()> {
    if own && plan.set | plan.clear != 0 {
        let attributes = MountAttributes {
            set: plan.set,
            clear: plan.clear,
            ..Default::default()
        };
        mount::mount_setattr(tree, false, &attributes)?;
    }
    if plan.recursive_set | plan.recursive_clear != 0 {
        let attributes = MountAttributes {
            set: plan.recursive_set,
            clear: plan.recursive_clear,
            ..Default::default()
        };
        mount::mount_setattr(tree, true, &attributes)?;
    }
    if let Some((propagation, recursive)) = plan.propagation {
        let attributes = MountAttributes {
            propagation: Some(propagation),
            ..Default::default()
        };
        mount::mount_setattr(tree, recursive, &attributes)?;
    }
    Ok(())
}

/// Version 1 and hybrids: a tmpfs with the container's own cgroup of each hierarchy.
fn cgroups(
    plan: &MountPlan,
    binds: &[CgroupBind],
    root: BorrowedFd<'_>,
    mounted: &mut Mounted,
) -> io::Result<()> {
    let place = beneath::directory(root, &plan.destination, 0o755)?;
    let options = [
        ("mode".to_owned(), Some("755".to_owned())),
        ("size".to_owned(), Some("64k".to_owned())),
    ];
    let tmpfs = mount::new_filesystem("tmpfs", Some("tmpfs"), &options, plan.set & !ATTR_RDONLY)?;
    for bind in binds {
        rustix::fs::mkdirat(&tmpfs, bind.name.as_str(), Mode::from_raw_mode(0o755))?;
        for link in &bind.links {
            rustix::fs::symlinkat(bind.name.as_str(), &tmpfs, link.as_str())?;
        }
    }
    mount::move_mount(tmpfs.as_fd(), place.as_fd())?;
    for bind in binds {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = rustix::fs::openat(&tmpfs, bind.name.as_str(), flags, Mode::empty())?;
        mount::move_mount(bind.tree.as_fd(), place.as_fd())?;
    }
    if plan.set & ATTR_RDONLY != 0 {
        mounted.late_readonly.push(tmpfs);
    }
    Ok(())
}

/// Binds a file or device of the host's onto a place of the root.
pub(crate) fn bind_file(tree: BorrowedFd<'_>, root: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let place = beneath::file(root, path)?;
    mount::move_mount(tree, place.as_fd())
}

/// Says whether a descriptor is the character device of those numbers.
pub(crate) fn is_device(fd: BorrowedFd<'_>, major: u32, minor: u32) -> io::Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == rustix::fs::makedev(major, minor),
    )
}

/// Makes a symbolic link; one that is there already stays.
pub(crate) fn link(
    text: &str,
    directory: BorrowedFd<'_>,
    name: &str,
    replace: bool,
) -> io::Result<()> {
    match rustix::fs::symlinkat(text, directory, name) {
        Err(rustix::io::Errno::EXIST) if replace => {
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
            Ok(rustix::fs::symlinkat(text, directory, name)?)
        }
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
