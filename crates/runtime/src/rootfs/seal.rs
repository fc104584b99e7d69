//! The last changes of the file system: masked and read-only paths, read-only mounts, the root's propagation.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_sys::mount::{self, ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, MountAttributes};

use super::beneath;
use crate::error::Error;

/// Hides paths: files beneath the null device, directories beneath an empty read-only tmpfs. A path that is not there
/// needs no hiding. `null` is a detached copy of the host's, checked by its numbers: the image's own `/dev/null` is not
/// asked (CVE-2025-31133).
pub(crate) fn mask(
    paths: &[PathBuf],
    null: Option<&OwnedFd>,
    root: BorrowedFd<'_>,
) -> Result<(), Error> {
    let mut masks = Masks {
        null,
        null_placed: false,
        empty: None,
    };
    for path in paths {
        let failed = |error: io::Error| Error::stage("mask path", path.display(), error);
        let Some(place) = existing(root, path).map_err(failed)? else {
            continue;
        };
        masks.cover(place.as_fd()).map_err(failed)?;
    }
    Ok(())
}

/// The two covers: each is mounted once and copied from there on, which is cheaper than making it anew.
struct Masks<'a> {
    null: Option<&'a OwnedFd>,
    null_placed: bool,
    empty: Option<OwnedFd>,
}

impl Masks<'_> {
    fn cover(&mut self, place: BorrowedFd<'_>) -> io::Result<()> {
        if beneath::is_directory(place)? {
            if let Some(empty) = &self.empty {
                let copy = mount::open_tree(empty.as_fd(), c"", false)?;
                return mount::move_mount(copy.as_fd(), place);
            }
            let options = [
                ("nr_blocks".to_owned(), Some("1".to_owned())),
                ("nr_inodes".to_owned(), Some("1".to_owned())),
                ("mode".to_owned(), Some("755".to_owned())),
            ];
            let attributes = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC;
            let empty = mount::new_filesystem("tmpfs", Some("tmpfs"), &options, attributes)?;
            mount::move_mount(empty.as_fd(), place)?;
            self.empty = Some(empty);
            return Ok(());
        }
        let null = self.null.ok_or(io::ErrorKind::NotFound)?;
        if self.null_placed {
            let copy = mount::open_tree(null.as_fd(), c"", false)?;
            return mount::move_mount(copy.as_fd(), place);
        }
        mount::move_mount(null.as_fd(), place)?;
        self.null_placed = true;
        Ok(())
    }
}

/// Makes paths read-only, with everything mounted beneath them.
pub(crate) fn readonly(paths: &[PathBuf], root: BorrowedFd<'_>) -> Result<(), Error> {
    for path in paths {
        let failed = |error: io::Error| Error::stage("make read-only path", path.display(), error);
        let Some(place) = existing(root, path).map_err(failed)? else {
            continue;
        };
        (|| {
            let tree = mount::open_tree(place.as_fd(), c"", true)?;
            mount::mount_setattr(
                tree.as_fd(),
                true,
                &MountAttributes {
                    set: ATTR_RDONLY,
                    ..Default::default()
                },
            )?;
            mount::move_mount(tree.as_fd(), place.as_fd())
        })()
        .map_err(failed)?;
    }
    Ok(())
}

/// Makes mounts read-only, each by its descriptor.
pub(crate) fn readonly_mounts(mounts: &[OwnedFd]) -> Result<(), Error> {
    for one in mounts {
        readonly_mount(one.as_fd())
            .map_err(|error| Error::stage("make read-only", "a mount", error))?;
    }
    Ok(())
}

/// Makes one mount read-only, not what is beneath it.
pub(crate) fn readonly_mount(one: BorrowedFd<'_>) -> io::Result<()> {
    mount::mount_setattr(
        one,
        false,
        &MountAttributes {
            set: ATTR_RDONLY,
            ..Default::default()
        },
    )
}

fn existing(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<OwnedFd>> {
    match beneath::place(root, path) {
        Ok(place) => Ok(Some(place)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
