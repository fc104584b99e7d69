//! Overlay mounts, detached: no other process sees them.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use gantry_sys::mount;
use gantry_sys::process::{CLONE_NEWNS, Clone3, clone3, wait_pidfd};
use rustix::fs::{Mode, OFlags};

use crate::channel::{Channel, Message};
use crate::error::Error;
use crate::options::Overlay;

/// Longest text that fsconfig takes, without its NUL.
const FSCONFIG_BYTES_MAX: usize = 255;

/// The features that would make layers depend on each other's inodes: off, whatever the module's defaults are.
const OFF: [&str; 3] = ["index", "redirect_dir", "metacopy"];

/// Mounts an overlay and returns the detached mount.
pub(crate) fn mount(overlay: &Overlay, state: &Path) -> Result<OwnedFd, Error> {
    if overlay.lowers.is_empty() {
        return Err(Error::invalid("overlay without a lower directory"));
    }
    let context = mount::fsopen("overlay")
        .map_err(|error| Error::stage("open the file system", "overlay", error))?;
    match configure(context.as_fd(), overlay) {
        Ok(mount) => Ok(mount),
        // Before Linux 6.5 there is no `lowerdir+`.
        Err(error) if mount::errno_of(&error) == libc::EINVAL => {
            classic(overlay, state).map_err(|second| {
                // Where the classic call fails in the same way, the first error has the file system's words.
                if second.errno() == libc::EINVAL {
                    failed(overlay, mount::explain(context.as_fd(), error))
                } else {
                    second
                }
            })
        }
        Err(error) => Err(failed(overlay, mount::explain(context.as_fd(), error))),
    }
}

fn failed(overlay: &Overlay, error: io::Error) -> Error {
    Error::stage("mount the overlay of", overlay.upper.display(), error)
}

fn configure(context: BorrowedFd<'_>, overlay: &Overlay) -> io::Result<OwnedFd> {
    // Held until the superblock is made: long paths are given by way of them.
    let mut held = Vec::new();
    mount::fsconfig_set_string(context, "source", "overlay")?;
    for lower in &overlay.lowers {
        set_path(context, "lowerdir+", lower, &mut held)?;
    }
    set_path(context, "upperdir", &overlay.upper, &mut held)?;
    set_path(context, "workdir", &overlay.work, &mut held)?;
    for option in OFF {
        mount::fsconfig_set_string(context, option, "off")?;
    }
    if overlay.userxattr {
        mount::fsconfig_set_flag(context, "userxattr")?;
    }
    if overlay.volatile {
        mount::fsconfig_set_flag(context, "volatile")?;
    }
    mount::fsconfig_create(context)?;
    mount::fsmount(context, 0)
}

fn set_path(
    context: BorrowedFd<'_>,
    key: &str,
    path: &Path,
    held: &mut Vec<OwnedFd>,
) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    // Upper and work directory are still taken apart at commas and backslashes' meaning, `lowerdir+` is not.
    let special = path
        .as_os_str()
        .as_bytes()
        .iter()
        .any(|byte| b"\\,:".contains(byte));
    if path.as_os_str().len() <= FSCONFIG_BYTES_MAX && !special {
        return mount::fsconfig_set_string(context, key, path);
    }
    let directory = rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    mount::fsconfig_set_string(context, key, through(directory.as_fd()).as_str())?;
    held.push(directory);
    Ok(())
}

/// A short path for what a descriptor refers to.
fn through(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Mounts with mount(2) in a mount namespace of a child's own and takes the mount out of it.
pub(crate) fn classic(overlay: &Overlay, state: &Path) -> Result<OwnedFd, Error> {
    let (caller, child) =
        Channel::pair().map_err(|error| Error::stage("open", "a socket pair", error))?;
    let target = CString::new(state.as_os_str().as_encoded_bytes())
        .map_err(|_| Error::invalid("state root"))?;
    let helper = clone3(
        &Clone3 {
            flags: CLONE_NEWNS,
            cgroup: None,
        },
        || match classic_in_child(overlay, &target) {
            Ok(tree) => i32::from(child.send_console(tree.as_fd()).is_err()),
            Err(error) => {
                child.send_error(failed(overlay, error));
                1
            }
        },
    )
    .map_err(|error| Error::stage("clone", "a helper", error))?;
    drop(child);
    let answer = caller.receive();
    let reaped = wait_pidfd(helper.pidfd.as_fd(), true);
    let failed = |error| Error::stage("wait for", "the overlay's helper", error);
    reaped.map_err(failed)?;
    match answer.map_err(failed)? {
        Message::Console(tree) => Ok(tree),
        Message::Failed(error) => Err(error),
        _ => Err(Error::Ended),
    }
}

fn classic_in_child(overlay: &Overlay, target: &CString) -> io::Result<OwnedFd> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let private = mount::MountAttributes {
        propagation: Some(mount::Propagation::Private),
        ..Default::default()
    };
    if mount::mount_setattr(root.as_fd(), true, &private).is_err() {
        mount::mount(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, c"")?;
    }
    let open =
        |path: &Path| rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
    let mut held = Vec::new();
    let mut lowerdir = Vec::new();
    for lower in &overlay.lowers {
        let fd = open(lower)?;
        lowerdir.push(through(fd.as_fd()));
        held.push(fd);
    }
    let (upper, work) = (open(&overlay.upper)?, open(&overlay.work)?);
    let mut data = format!(
        "lowerdir={},upperdir={},workdir={}",
        lowerdir.join(":"),
        through(upper.as_fd()),
        through(work.as_fd())
    );
    for option in OFF {
        data.push_str(&format!(",{option}=off"));
    }
    for (wanted, option) in [
        (overlay.userxattr, ",userxattr"),
        (overlay.volatile, ",volatile"),
    ] {
        if wanted {
            data.push_str(option);
        }
    }
    mount::mount(c"overlay", target, c"overlay", 0, &CString::new(data)?)?;
    mount::open_tree(rustix::fs::CWD, target.as_c_str(), false)
}
