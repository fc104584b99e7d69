//! Opens what the child needs of the host, before the child exists: the sources of binds, the root, namespaces to join,
//! the cgroups. Afterwards the child asks the host's file system for nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use gantry_api::oci::runtime::LinuxIdMapping;
use gantry_sys::cgroup::{Cgroup, Layout, Version};
use gantry_sys::mount::{self, ATTR_IDMAP, ATTR_RDONLY, MountAttributes, Propagation};
use gantry_sys::process::{
    CLONE_NEWNS, CLONE_NEWUSER, Clone3, clone3, pidfd_send_signal, wait_pidfd,
};
use rustix::fs::{FileType, Mode, OFlags};

use crate::channel::Channel;
use crate::error::Error;
use crate::options::Rootfs;
use crate::plan::Plan;
use crate::plan::devices::{DevicePlan, NodeKind};
use crate::plan::mounts::{IdMap, Kind, MountPlan};
use crate::rootfs::{mounts, overlay};

/// Where a mount comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A detached copy, its attributes set.
    Tree(OwnedFd),
    /// One detached copy per hierarchy of version 1.
    Cgroups(Vec<CgroupBind>),
    /// A new file system, which belongs to the child's namespaces.
    InChild,
}

/// The container's cgroup in one hierarchy.
#[derive(Debug)]
pub(crate) struct CgroupBind {
    pub name: String,
    /// Other names of it: the controllers of a hierarchy that has several.
    pub links: Vec<String>,
    pub tree: OwnedFd,
}

/// All that is opened.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub root: OwnedFd,
    pub sources: Vec<Source>,
    /// Parallel to the plan's devices; empty unless there is a user namespace.
    pub device_binds: Vec<Option<OwnedFd>>,
    /// The host's null device, for masked paths.
    pub null: Option<OwnedFd>,
    /// Namespaces to join, by flag.
    pub joins: Vec<(u64, OwnedFd)>,
}

/// Opens everything.
pub(crate) fn prepare(
    plan: &Plan,
    rootfs: Rootfs,
    netns: Option<OwnedFd>,
    state: &Path,
    cgroup: &Cgroup,
) -> Result<Prepared, Error> {
    let root = match rootfs {
        Rootfs::Path => tree_of_root(plan)?,
        Rootfs::Overlay(overlay) => overlay::mount(&overlay, state)?,
        Rootfs::Mount(mount) => mount,
    };
    let sources = plan
        .mounts
        .iter()
        .map(|mount| source(mount, cgroup))
        .collect::<Result<_, _>>()?;
    let in_user_namespace = plan.namespaces.contains(CLONE_NEWUSER);
    let device_binds = if in_user_namespace {
        device_binds(&plan.devices)?
    } else {
        Vec::new()
    };
    let null = if plan.masked_paths.is_empty() {
        None
    } else {
        Some(null()?)
    };
    let mut joins = Vec::with_capacity(plan.namespaces.join.len() + 1);
    for (flag, path) in &plan.namespaces.join {
        let fd = open(path, OFlags::RDONLY)
            .map_err(|error| Error::stage("open the namespace", path.display(), error))?;
        joins.push((*flag, fd));
    }
    if let Some(netns) = netns {
        joins.retain(|(flag, _)| *flag != gantry_sys::process::CLONE_NEWNET);
        joins.push((gantry_sys::process::CLONE_NEWNET, netns));
    }
    Ok(Prepared {
        root,
        sources,
        device_binds,
        null,
        joins,
    })
}

fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn tree_of_root(plan: &Plan) -> Result<OwnedFd, Error> {
    let failed = |error: io::Error| Error::stage("open the root", plan.root.display(), error);
    let directory = open(&plan.root, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
    let tree = mount::open_tree(directory.as_fd(), c"", true).map_err(failed)?;
    let attributes = MountAttributes {
        propagation: Some(plan.host_propagation),
        ..Default::default()
    };
    mount::mount_setattr(tree.as_fd(), true, &attributes).map_err(failed)?;
    // pivot_root(2) wants a root that is not shared with anybody.
    let attributes = MountAttributes {
        propagation: Some(Propagation::Private),
        ..Default::default()
    };
    mount::mount_setattr(tree.as_fd(), false, &attributes).map_err(failed)?;
    Ok(tree)
}

fn source(plan: &MountPlan, cgroup: &Cgroup) -> Result<Source, Error> {
    let failed = |source: io::Error| Error::Mount {
        mount_source: plan.source_name(),
        destination: plan.destination.display().to_string(),
        source,
    };
    match &plan.kind {
        Kind::New { .. } => Ok(Source::InChild),
        Kind::Bind { source, recursive } => {
            let place = open(source, OFlags::PATH).map_err(failed)?;
            let tree = mount::open_tree(place.as_fd(), c"", *recursive).map_err(failed)?;
            if let Some(map) = &plan.id_map {
                id_map(tree.as_fd(), map)?;
            }
            mounts::change(tree.as_fd(), plan, true).map_err(failed)?;
            Ok(Source::Tree(tree))
        }
        Kind::Cgroup if cgroup.layout().version() == Version::V2 => Ok(Source::InChild),
        Kind::Cgroup => Ok(Source::Cgroups(cgroup_binds(plan, cgroup).map_err(failed)?)),
    }
}

fn cgroup_binds(plan: &MountPlan, cgroup: &Cgroup) -> io::Result<Vec<CgroupBind>> {
    cgroup
        .directories()
        .map(|(path, controllers)| {
            let name = hierarchy_name(cgroup.layout(), path);
            let tree = mount::open_tree(rustix::fs::CWD, path, false)?;
            let set = MountAttributes {
                set: plan.set,
                clear: plan.clear,
                propagation: Some(Propagation::Private),
                ..Default::default()
            };
            mount::mount_setattr(tree.as_fd(), false, &set)?;
            let links = if name == "unified" {
                Vec::new()
            } else {
                controllers
                    .iter()
                    .filter(|controller| **controller != name)
                    .cloned()
                    .collect()
            };
            Ok(CgroupBind { name, links, tree })
        })
        .collect()
}

/// The name that a hierarchy's mount point has on the host, which programs in the container look for as well.
fn hierarchy_name(layout: &Layout, path: &Path) -> String {
    layout
        .hierarchies
        .iter()
        .map(|hierarchy| hierarchy.mount_point.as_path())
        .filter(|point| path.starts_with(point))
        .max_by_key(|point| point.as_os_str().len())
        .and_then(Path::file_name)
        .map_or_else(
            || "unified".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
}

/// A detached copy of the host's null device.
fn null() -> Result<OwnedFd, Error> {
    let open = || -> io::Result<OwnedFd> {
        let null = open(Path::new("/dev/null"), OFlags::PATH | OFlags::NOFOLLOW)?;
        if !mounts::is_device(null.as_fd(), 1, 3)? {
            return Err(io::Error::other("not the null device"));
        }
        let tree = mount::open_tree(null.as_fd(), c"", false)?;
        // Its times are nobody's business, and a masked file is not written to.
        let attributes = MountAttributes {
            set: ATTR_RDONLY,
            propagation: Some(Propagation::Private),
            ..Default::default()
        };
        mount::mount_setattr(tree.as_fd(), false, &attributes)?;
        Ok(tree)
    };
    open().map_err(|error| Error::stage("open", "/dev/null", error))
}

fn device_binds(devices: &[DevicePlan]) -> Result<Vec<Option<OwnedFd>>, Error> {
    devices
        .iter()
        .map(|device| {
            if device.kind == NodeKind::Fifo {
                return Ok(None);
            }
            let bind = || -> io::Result<OwnedFd> {
                let node = open(&device.path, OFlags::PATH)?;
                let stat = rustix::fs::fstat(&node)?;
                let kind = match device.kind {
                    NodeKind::Block => FileType::BlockDevice,
                    NodeKind::Character | NodeKind::Fifo => FileType::CharacterDevice,
                };
                if FileType::from_raw_mode(stat.st_mode) != kind
                    || stat.st_rdev != rustix::fs::makedev(device.major, device.minor)
                {
                    return Err(io::Error::other(
                        "the host's node of this path is another device",
                    ));
                }
                mount::open_tree(node.as_fd(), c"", false)
            };
            bind()
                .map(Some)
                .map_err(|error| Error::stage("open device", device.path.display(), error))
        })
        .collect()
}

/// Maps the ids of a detached mount by way of a user namespace made for it.
fn id_map(tree: BorrowedFd<'_>, map: &IdMap) -> Result<(), Error> {
    let failed = |error: io::Error| Error::stage("map the ids of", "a mount", error);
    let userns = user_namespace(&map.uids, &map.gids).map_err(failed)?;
    let attributes = MountAttributes {
        set: ATTR_IDMAP,
        userns: Some(userns.as_fd()),
        ..Default::default()
    };
    mount::mount_setattr(tree, map.recursive, &attributes).map_err(failed)
}

fn user_namespace(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> io::Result<OwnedFd> {
    let (caller, child) = Channel::pair()?;
    // The mount namespace of its own keeps the helper from being a way into the host's.
    let helper = clone3(
        &Clone3 {
            flags: CLONE_NEWUSER | CLONE_NEWNS,
            cgroup: None,
        },
        || i32::from(!child.wait()),
    )?;
    let outcome = write_maps(helper.pid, uids, gids).and_then(|()| {
        open(
            Path::new(&format!("/proc/{}/ns/user", helper.pid)),
            OFlags::RDONLY,
        )
    });
    pidfd_send_signal(helper.pidfd.as_fd(), libc::SIGKILL)?;
    wait_pidfd(helper.pidfd.as_fd(), true)?;
    drop(caller);
    outcome
}

/// Writes the id maps of a process in a new user namespace.
pub(crate) fn write_maps(
    pid: i32,
    uids: &[LinuxIdMapping],
    gids: &[LinuxIdMapping],
) -> io::Result<()> {
    let lines = |maps: &[LinuxIdMapping]| {
        maps.iter()
            .map(|map| format!("{} {} {}\n", map.container_id, map.host_id, map.size))
            .collect::<String>()
    };
    std::fs::write(format!("/proc/{pid}/uid_map"), lines(uids))?;
    std::fs::write(format!("/proc/{pid}/gid_map"), lines(gids))
}
