//! Where the runtime finds the content of a container's volumes: mounted, and their subpaths held fast.
//!
//! A container that can write a volume may change it at any moment. So a part of a volume is opened beneath the volume's
//! descriptor, and what was opened is mounted in the container's directory: the runtime gets that place, which no
//! container can reach, instead of a name that may mean something else by then. It is unmounted once the container has
//! started, or by the teardown.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_api::error::errno_text;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;

use super::mounts::shows_data_root;
use super::record::{MountPoint, Record};
use super::{Container, MountKind};
use crate::volume::Volume;
use crate::{Engine, Error, Result};

impl Engine {
    /// Names the volumes with a file system of their own that a run of the container keeps mounted.
    pub(crate) fn volumes_to_mount(&self, record: &Record) -> Vec<String> {
        let mut names: Vec<String> = volume_points(record)
            .filter_map(|point| self.inner.volumes.get(&point.name))
            .filter(|volume| volume.has_device())
            .map(|volume| volume.name.clone())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Mounts what the record names already: the volumes, then the parts of volumes.
    pub(crate) fn mount_sources(&self, record: &Record) -> Result<()> {
        for name in &record.acquired.volumes {
            self.inner
                .volumes
                .hold(&*self.volume_of(name)?, &record.id)?;
        }
        for (number, point) in subpaths(record) {
            let volume = self.volume_of(&point.name)?;
            let place = self.subpath_place(&record.id, number);
            hold_subpath(&volume, &point.subpath, &place)?;
        }
        Ok(())
    }

    /// Returns the user's mounts, parents before children, with the places that [`Engine::mount_sources`] has made.
    pub(crate) fn start_mounts(&self, record: &Record) -> Result<Vec<MountPoint>> {
        let mut mounts = record.mounts.clone();
        for (number, point) in mounts.iter_mut().enumerate() {
            if point.kind == MountKind::Bind {
                check_propagation(point, &self.inner.config.data_root)?;
            }
            if point.kind != MountKind::Volume {
                continue;
            }
            let source = if point.subpath.is_empty() {
                self.volume_of(&point.name)?.mountpoint.clone()
            } else {
                self.subpath_place(&record.id, number)
            };
            point.source = source.to_string_lossy().into_owned();
        }
        mounts.sort_by_key(|point| point.destination.matches('/').count());
        Ok(mounts)
    }

    /// Unmounts the parts of volumes; those that are not mounted are no error.
    pub(crate) fn unmount_subpaths(&self, record: &Record) -> io::Result<()> {
        let mut first = Ok(());
        for (number, _) in subpaths(record) {
            let place = self.subpath_place(&record.id, number);
            first = first.and(super::teardown::unmount_if_there(&place));
        }
        first
    }

    /// As [`Engine::unmount_subpaths`] from a task, for a container that has started: a failure is left to its teardown.
    pub(crate) async fn subpaths_are_taken(&self, container: &Container) -> bool {
        let record = container.record();
        if !record.acquired.subpaths {
            return true;
        }
        let engine = self.clone();
        let unmounted = crate::blocking::run(move || engine.unmount_subpaths(&record)).await;
        match unmounted {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(container = container.id, %error, "unmount a part of a volume");
                false
            }
            Err(_) => false,
        }
    }

    fn volume_of(&self, name: &str) -> Result<std::sync::Arc<Volume>> {
        self.inner
            .volumes
            .get(name)
            .ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))
    }

    fn subpath_place(&self, id: &str, number: usize) -> PathBuf {
        self.directory(id)
            .join("mounts")
            .join(format!("subpath-{number}"))
    }
}

fn volume_points(record: &Record) -> impl Iterator<Item = &MountPoint> {
    record
        .mounts
        .iter()
        .filter(|point| point.kind == MountKind::Volume)
}

fn subpaths(record: &Record) -> impl Iterator<Item = (usize, &MountPoint)> {
    let numbered = record.mounts.iter().enumerate();
    numbered.filter(|(_, point)| point.kind == MountKind::Volume && !point.subpath.is_empty())
}

/// Tells whether a part of a volume is among the container's mounts.
pub(crate) fn has_subpaths(record: &Record) -> bool {
    subpaths(record).next().is_some()
}

/// Mounts the part of the volume on `place`.
fn hold_subpath(volume: &Volume, subpath: &str, place: &Path) -> Result<()> {
    // By name first, as Docker does: `link/../x` is `x`.
    let part = open_subpath(&volume.mountpoint, &super::mounts::clean(subpath))?;
    mount_part(&part, place).map_err(|error| {
        Error::io(
            format_args!(
                "mount {subpath} of volume {} for its container",
                volume.name
            ),
            error,
        )
    })
}

/// Opens a path beneath the volume; a symbolic link that leads out of it is refused.
fn open_subpath(volume: &Path, subpath: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::open(volume, flags | OFlags::DIRECTORY, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|root| gantry_sys::fs::openat2_beneath(&root, subpath, flags, Mode::empty()));
    opened.map_err(|error| {
        let text = match Errno::from_io_error(&error) {
            Some(Errno::XDEV) => format!(
                "path concatenation escapes the base directory, base: {}, subpath: {subpath}",
                volume.display()
            ),
            Some(Errno::NOENT) => format!(
                "cannot access path {}: lstat {}: no such file or directory",
                volume.join(subpath).display(),
                first_missing(volume, subpath).display()
            ),
            _ => format!(
                "error while resolving symlinks in combined path \"{}\": {}",
                volume.join(subpath).display(),
                errno_text(&error)
            ),
        };
        Error::not_found(text).caused_by(error)
    })
}

/// Refuses a propagation that the mount behind a bind does not have. One that the engine itself has chosen to protect its
/// data gives way instead.
fn check_propagation(point: &mut MountPoint, data_root: &Path) -> Result<()> {
    let (slave_will_do, missing) = match point.propagation.as_str() {
        "shared" | "rshared" => (false, "a shared"),
        "slave" | "rslave" => (true, "a shared or slave"),
        _ => return Ok(()),
    };
    let source = Path::new(&point.source);
    let mount = source
        .canonicalize()
        .and_then(|source| gantry_sys::mount::mount_over(&source))
        .map_err(|error| {
            Error::io(
                format_args!("look for the mount behind {}", point.source),
                error,
            )
        })?;
    if mount.is_shared || slave_will_do && mount.is_slave {
        return Ok(());
    }
    if !point.propagation_given && slave_will_do && shows_data_root(source, data_root) {
        point.propagation = "rprivate".into();
        return Ok(());
    }
    Err(Error::system(format!(
        "path {} is mounted on {} but it is not {missing} mount",
        point.source,
        mount.point.display()
    )))
}

/// Guesses, for the text alone, which part of the path is not there.
fn first_missing(volume: &Path, subpath: &str) -> PathBuf {
    let mut known = volume.to_path_buf();
    for part in Path::new(subpath).components() {
        let next = known.join(part);
        match next.canonicalize() {
            Ok(real) => known = real,
            Err(_) => {
                return match std::fs::read_link(&next) {
                    Ok(target) => known.join(target),
                    Err(_) => next,
                };
            }
        }
    }
    known
}

fn mount_part(part: &OwnedFd, place: &Path) -> io::Result<()> {
    super::teardown::unmount_if_there(place)?;
    if let Some(parent) = place.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let kind = FileType::from_raw_mode(rustix::fs::fstat(part)?.st_mode);
    let _ = std::fs::remove_file(place);
    let _ = std::fs::remove_dir(place);
    if kind == FileType::Directory {
        std::fs::create_dir(place)?;
    } else {
        std::fs::File::create_new(place)?;
    }
    let tree = gantry_sys::mount::open_tree(part.as_fd(), c"", true)?;
    gantry_sys::mount::move_mount_onto(tree.as_fd(), place)?;
    // The copy of a shared mount is its peer: unmounting it would unmount what is beneath the original.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change(place, private)?)
}
