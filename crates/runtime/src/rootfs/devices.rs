//! Nodes and links in `/dev`, and the terminal.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_sys::mount;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;

use super::{beneath, mounts};
use crate::error::Error;
use crate::plan::devices::{DevicePlan, NodeKind};

/// File system type of devpts (statfs(2)).
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Makes the nodes and the standard links. Where nodes cannot be made, in a user namespace, `binds` has copies of the
/// host's.
pub(crate) fn apply(
    devices: &[DevicePlan],
    binds: &[Option<OwnedFd>],
    root: BorrowedFd<'_>,
) -> Result<(), Error> {
    let mut directory: Option<(PathBuf, OwnedFd)> = None;
    for (index, device) in devices.iter().enumerate() {
        let failed = |error: io::Error| Error::stage("create device", device.path.display(), error);
        if let Some(tree) = binds.get(index).and_then(Option::as_ref) {
            mounts::bind_file(tree.as_fd(), root, &device.path).map_err(failed)?;
            continue;
        }
        let parent = device.path.parent().unwrap_or(Path::new("/"));
        if directory.as_ref().is_none_or(|(path, _)| path != parent) {
            directory = Some((
                parent.to_path_buf(),
                beneath::directory(root, parent, 0o755).map_err(failed)?,
            ));
        }
        if let Some((_, directory)) = &directory {
            node(device, directory.as_fd()).map_err(failed)?;
        }
    }
    let failed = |error: io::Error| Error::stage("create links in", "/dev", error);
    let dev = beneath::directory(root, Path::new("/dev"), 0o755).map_err(failed)?;
    let dev = dev.as_fd();
    (|| {
        mounts::link("/proc/self/fd", dev, "fd", false)?;
        mounts::link("/proc/self/fd/0", dev, "stdin", false)?;
        mounts::link("/proc/self/fd/1", dev, "stdout", false)?;
        mounts::link("/proc/self/fd/2", dev, "stderr", false)?;
        if Path::new("/proc/kcore").exists() {
            mounts::link("/proc/kcore", dev, "core", false)?;
        }
        mounts::link("pts/ptmx", dev, "ptmx", true)
    })()
    .map_err(failed)
}

fn node(device: &DevicePlan, directory: BorrowedFd<'_>) -> io::Result<()> {
    let name = device.path.file_name().ok_or(Errno::INVAL)?;
    let kind = match device.kind {
        NodeKind::Character => FileType::CharacterDevice,
        NodeKind::Block => FileType::BlockDevice,
        NodeKind::Fifo => FileType::Fifo,
    };
    let number = rustix::fs::makedev(device.major, device.minor);
    match rustix::fs::mknodat(
        directory,
        name,
        kind,
        Mode::from_raw_mode(device.mode),
        number,
    ) {
        Ok(()) => {}
        // Part of the image, or of a /dev that is the caller's: it is what was asked for or an error.
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != kind
                || (kind != FileType::Fifo && stat.st_rdev != number)
            {
                rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
                rustix::fs::mknodat(
                    directory,
                    name,
                    kind,
                    Mode::from_raw_mode(device.mode),
                    number,
                )?;
            }
        }
        Err(error) => return Err(error.into()),
    }
    if device.uid != 0 || device.gid != 0 {
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        rustix::fs::chownat(
            directory,
            name,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
    }
    Ok(())
}

/// A terminal of the container's own devpts.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Opens a terminal. Both ends are checked to be what they are said to be, and the slave is reached by way of the
/// master: nothing that the image or the container put into `/dev/pts` is taken for it (CVE-2025-52565).
pub(crate) fn terminal(root: BorrowedFd<'_>, size: Option<(u16, u16)>) -> Result<Terminal, Error> {
    let open = || -> io::Result<Terminal> {
        let master = beneath::open(
            root,
            Path::new("/dev/pts/ptmx"),
            OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW,
        )?;
        let stat = rustix::fs::fstatfs(&master)?;
        if stat.f_type != DEVPTS_SUPER_MAGIC || !mounts::is_device(master.as_fd(), 5, 2)? {
            return Err(io::Error::other("not a terminal multiplexer"));
        }
        rustix::pty::unlockpt(&master)?;
        let slave = rustix::pty::ioctl_tiocgptpeer(
            &master,
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        )?;
        if let Some((rows, columns)) = size {
            let size = rustix::termios::Winsize {
                ws_row: rows,
                ws_col: columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            rustix::termios::tcsetwinsize(&master, size)?;
        }
        Ok(Terminal { master, slave })
    };
    open().map_err(|error| Error::stage("open a terminal of", "/dev/pts/ptmx", error))
}

/// Binds the slave onto `/dev/console`.
pub(crate) fn console(slave: BorrowedFd<'_>, root: BorrowedFd<'_>) -> Result<(), Error> {
    let bind = || -> io::Result<()> {
        let tree = mount::open_tree(slave, c"", false)?;
        mounts::bind_file(tree.as_fd(), root, Path::new("/dev/console"))
    };
    bind().map_err(|error| Error::stage("mount the terminal onto", "/dev/console", error))
}
