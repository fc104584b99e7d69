//! Copy-up: an empty volume gets what the image has at its place, at create and never again.
//!
//! The image is seen through a detached overlay mount of its layers, which no path leads to; everything is opened
//! beneath descriptors, so a symbolic link of the image cannot lead out of it or of the volume.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_sys::fs as sys;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timestamps};

use crate::container::{MountPoint, Record};
use crate::{Engine, Error, Result};

impl Engine {
    /// Tells whether the image has something other than a directory at `place`.
    pub(crate) fn image_has_file(&self, record: &Record, place: &str) -> Result<bool> {
        let overlay = self.overlay(record)?;
        has_file(&overlay.lowers, place)
            .map_err(|error| Error::io(format_args!("look for the image's {place}"), error))
    }

    /// Fills a new volume from the image. A volume with any entry, or a place that is no directory, is left alone.
    pub(crate) fn copy_up(&self, record: &Record, point: &MountPoint) -> Result<()> {
        let overlay = self.overlay(record)?;
        let Some(volume) = self.inner.volumes.get(&point.name) else {
            return Ok(());
        };
        let relative = point.destination.trim_start_matches('/');
        if !overlay.lowers.iter().any(|layer| may_have(layer, relative)) {
            // Most volumes have no place in the image: that costs a look into each layer, no mount.
            return Ok(());
        }
        if volume.has_device() && !has_place(&overlay.lowers, &point.destination) {
            return Ok(());
        }
        // Not the record's user: the container has acquired nothing yet.
        let holder = format!("create {}", record.id);
        self.inner.volumes.hold(&volume, &holder).map_err(|error| {
            Error::new(error.kind(), format!("failed to populate volume: {error}")).caused_by(error)
        })?;
        let copied = copy_up(&overlay.lowers, &point.destination, &volume.mountpoint);
        if let Err(error) = self.inner.volumes.release(&volume.name, &holder) {
            tracing::error!(volume = volume.name, %error, "unmount a volume after its copy-up");
        }
        copied.map_err(|error| {
            Error::io(
                format_args!(
                    "copy the image's {} into volume {}",
                    point.destination, point.name
                ),
                error,
            )
        })
    }
}

/// Copies `place` of the layers (topmost first) into the directory `volume`.
pub(crate) fn copy_up(layers: &[PathBuf], place: &str, volume: &Path) -> io::Result<()> {
    if layers.is_empty() || std::fs::read_dir(volume)?.next().is_some() {
        return Ok(());
    }
    let root = mount(layers)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let source = match sys::openat2_in_root(&root, place, flags, Mode::empty()) {
        Ok(source) => source,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let target = sys::open_directory(rustix::fs::CWD, volume)?;
    let mut links = HashMap::new();
    copy_directory(&source, &target, &mut links)?;
    copy_attributes(&source, &target)
}

/// Tells whether the layers (topmost first) have anything at `place`.
fn has_place(layers: &[PathBuf], place: &str) -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    mount(layers)
        .and_then(|root| sys::openat2_in_root(&root, place, flags, Mode::empty()))
        .is_ok()
}

/// Tells whether the layers (topmost first) have something other than a directory at `place`.
fn has_file(layers: &[PathBuf], place: &str) -> io::Result<bool> {
    let relative = place.trim_start_matches('/');
    if relative.is_empty() || !layers.iter().any(|layer| may_have(layer, relative)) {
        return Ok(false);
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match sys::openat2_in_root(&mount(layers)?, place, flags, Mode::empty()) {
        Ok(found) => {
            let mode = rustix::fs::fstat(&found)?.st_mode;
            Ok(FileType::from_raw_mode(mode) != FileType::Directory)
        }
        // The rest is for the start to tell: a loop of links, a file among the parents.
        Err(_) => Ok(false),
    }
}

/// Tells whether a layer could have the path: only the first part is looked at, since links may lead on.
fn may_have(layer: &Path, relative: &str) -> bool {
    let first = relative.split('/').next().unwrap_or("");
    std::fs::symlink_metadata(layer.join(first)).is_ok()
}

fn mount(layers: &[PathBuf]) -> io::Result<OwnedFd> {
    if let [only] = layers {
        return sys::open_directory(rustix::fs::CWD, only.as_path());
    }
    let options: Vec<(String, Option<String>)> = layers
        .iter()
        .map(|layer| {
            (
                "lowerdir+".to_owned(),
                Some(layer.to_string_lossy().into_owned()),
            )
        })
        .chain(
            [
                ("index", "off"),
                ("redirect_dir", "off"),
                ("metacopy", "off"),
            ]
            .map(|(key, value)| (key.to_owned(), Some(value.to_owned()))),
        )
        .collect();
    gantry_sys::mount::new_filesystem("overlay", None, &options, 0)
}

type Links = HashMap<(u64, u64), (OwnedFd, CString)>;

fn copy_directory(source: &OwnedFd, target: &OwnedFd, links: &mut Links) -> io::Result<()> {
    for entry in sys::entries(source)? {
        copy_entry(source, target, &entry.name, links)?;
    }
    Ok(())
}

fn copy_entry(
    source: &OwnedFd,
    target: &OwnedFd,
    name: &CStr,
    links: &mut Links,
) -> io::Result<()> {
    let stat = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let key = (stat.st_dev, stat.st_ino);
    if kind != FileType::Directory && stat.st_nlink > 1 {
        if let Some((directory, first)) = links.get(&key) {
            rustix::fs::linkat(directory, first.as_c_str(), target, name, AtFlags::empty())?;
            return Ok(());
        }
        links.insert(key, (target.try_clone()?, name.to_owned()));
    }
    let mode = Mode::from_raw_mode(stat.st_mode);
    match kind {
        FileType::Directory => {
            rustix::fs::mkdirat(target, name, Mode::RWXU)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let from = rustix::fs::openat(source, name, flags, Mode::empty())?;
            let to = rustix::fs::openat(target, name, flags, Mode::empty())?;
            copy_directory(&from, &to, links)?;
            copy_attributes(&from, &to)
        }
        FileType::RegularFile => {
            let from = rustix::fs::openat(
                source,
                name,
                OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let to = rustix::fs::openat(target, name, flags, Mode::RUSR | Mode::WUSR)?;
            io::copy(
                &mut File::from(from.try_clone()?),
                &mut File::from(to.try_clone()?),
            )?;
            copy_attributes(&from, &to)
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(source, name, Vec::new())?;
            rustix::fs::symlinkat(link.as_c_str(), target, name)?;
            own_and_date(target, name, &stat)
        }
        _ => {
            rustix::fs::mknodat(target, name, kind, mode, stat.st_rdev)?;
            own_and_date(target, name, &stat)?;
            rustix::fs::chmodat(target, name, mode, AtFlags::empty())?;
            Ok(())
        }
    }
}

fn times(stat: &rustix::fs::Stat) -> Timestamps {
    Timestamps {
        last_access: rustix::fs::Timespec {
            tv_sec: stat.st_atime as _,
            tv_nsec: stat.st_atime_nsec as _,
        },
        last_modification: rustix::fs::Timespec {
            tv_sec: stat.st_mtime as _,
            tv_nsec: stat.st_mtime_nsec as _,
        },
    }
}

fn own_and_date(directory: &OwnedFd, name: &CStr, stat: &rustix::fs::Stat) -> io::Result<()> {
    let (uid, gid) = (
        rustix::fs::Uid::from_raw(stat.st_uid),
        rustix::fs::Gid::from_raw(stat.st_gid),
    );
    rustix::fs::chownat(
        directory,
        name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    rustix::fs::utimensat(directory, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Copies owner, mode, extended attributes and times, in the order in which none undoes another.
fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    let (uid, gid) = (
        rustix::fs::Uid::from_raw(stat.st_uid),
        rustix::fs::Gid::from_raw(stat.st_gid),
    );
    rustix::fs::fchown(to, Some(uid), Some(gid))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    for name in sys::flistxattr(from.as_fd())? {
        // Overlay's own attributes mean nothing in a volume.
        if name.to_bytes().starts_with(b"trusted.overlay.")
            || name.to_bytes().starts_with(b"user.overlay.")
        {
            continue;
        }
        if let Some(value) = sys::fgetxattr(from.as_fd(), &name)? {
            sys::fsetxattr(to.as_fd(), &name, &value)?;
        }
    }
    rustix::fs::futimens(to, &times(&stat))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_file_at_a_place_is_told_from_a_directory_and_from_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (lower, upper) = (root.path().join("1"), root.path().join("2"));
        std::fs::create_dir_all(lower.join("etc/d")).unwrap();
        std::fs::create_dir_all(upper.join("etc")).unwrap();
        std::fs::write(lower.join("etc/passwd"), "").unwrap();
        symlink("/etc/passwd", upper.join("link")).unwrap();
        let layers = [upper, lower];
        for (place, expected) in [
            ("/", false),
            ("/etc", false),
            ("/etc/d", false),
            ("/etc/passwd", true),
            ("/link", true),
            ("/etc/passwd/x", false),
            ("/none", false),
        ] {
            assert_eq!(has_file(&layers, place).unwrap(), expected, "{place}");
        }
    }

    #[test]
    fn an_empty_volume_gets_the_merged_content_with_its_attributes() {
        let root = tempfile::tempdir().unwrap();
        let (lower, upper, volume) = (
            root.path().join("1"),
            root.path().join("2"),
            root.path().join("v"),
        );
        for directory in [&lower, &upper] {
            std::fs::create_dir_all(directory.join("data/sub")).unwrap();
        }
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(lower.join("data/a"), "old").unwrap();
        std::fs::write(upper.join("data/a"), "new").unwrap();
        std::fs::write(lower.join("data/sub/b"), "b").unwrap();
        std::fs::hard_link(lower.join("data/sub/b"), lower.join("data/c")).unwrap();
        symlink("/etc/passwd", lower.join("data/link")).unwrap();
        std::fs::set_permissions(upper.join("data"), std::fs::Permissions::from_mode(0o1777))
            .unwrap();
        std::os::unix::fs::chown(upper.join("data"), Some(7), Some(8)).unwrap();
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let with_capability = std::fs::File::open(upper.join("data/a")).unwrap();
        sys::fsetxattr(&with_capability, c"security.capability", &capability).unwrap();
        let noted = std::fs::File::open(upper.join("data")).unwrap();
        sys::fsetxattr(&noted, c"user.note", b"x").unwrap();
        copy_up(&[upper.clone(), lower], "/data", &volume).unwrap();
        assert_eq!(std::fs::read_to_string(volume.join("a")).unwrap(), "new");
        let attribute = |path: &Path, name: &CStr| {
            sys::fgetxattr(std::fs::File::open(path).unwrap(), name).unwrap()
        };
        assert_eq!(
            attribute(&volume.join("a"), c"security.capability").unwrap(),
            capability
        );
        assert_eq!(attribute(&volume, c"user.note").unwrap(), b"x");
        assert_eq!(
            std::fs::read_link(volume.join("link")).unwrap(),
            Path::new("/etc/passwd")
        );
        let own = std::fs::metadata(&volume).unwrap();
        assert_eq!((own.mode() & 0o7777, own.uid(), own.gid()), (0o1777, 7, 8));
        let inode = |name: &str| std::fs::metadata(volume.join(name)).unwrap().ino();
        assert_eq!(inode("c"), inode("sub/b"));
        // A second time there is something in it, so nothing happens.
        std::fs::write(upper.join("data/later"), "x").unwrap();
        copy_up(&[upper], "/data", &volume).unwrap();
        assert!(!volume.join("later").exists());
    }

    #[test]
    fn a_link_of_the_image_does_not_lead_out_of_it() {
        let root = tempfile::tempdir().unwrap();
        let (layer, volume, secret) = (
            root.path().join("1"),
            root.path().join("v"),
            root.path().join("secret"),
        );
        for directory in [&layer, &volume, &secret] {
            std::fs::create_dir(directory).unwrap();
        }
        std::fs::write(secret.join("key"), "k").unwrap();
        symlink(&secret, layer.join("data")).unwrap();
        copy_up(&[layer], "/data", &volume).unwrap();
        assert!(std::fs::read_dir(&volume).unwrap().next().is_none());
    }
}
