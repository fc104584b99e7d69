//! Execution of the running program from a copy that nobody can write to.
//!
//! A container that reaches `/proc/PID/exe` of a process of ours must not be able to change the binary on disk
//! (CVE-2019-5736). The copy is a detached, read-only clone of the mount that the binary lies on, which costs nothing;
//! where the kernel refuses that, it is a sealed memory file. Children execute `/proc/self/exe` and so the same copy.
//! Afterwards `/proc/self/exe` reads as `/`: who wants to know the installed path asks before.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Seek as _};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, MemfdFlags, SealFlags};

use crate::mount::{ATTR_NODEV, ATTR_RDONLY, MountAttributes, mount_setattr, open_tree};
use crate::process::{StringList, fexecve};

const SELF: &CStr = c"/proc/self/exe";

/// Opens a read-only clone of the mount of the running binary; open_tree(2), mount_setattr(2).
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `ENOSYS` before Linux 5.12.
pub fn clone_read_only() -> io::Result<OwnedFd> {
    let tree = open_tree(CWD, SELF, false)?;
    let attributes = MountAttributes {
        set: ATTR_RDONLY | ATTR_NODEV,
        ..MountAttributes::default()
    };
    mount_setattr(tree.as_fd(), false, &attributes)?;
    Ok(tree)
}

/// Copies the running binary into a memory file and seals it; memfd_create(2), F_ADD_SEALS in fcntl(2).
pub fn copy_sealed() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // MFD_EXEC is unknown before Linux 6.3, where a memory file is executable in any case.
    let memory = rustix::fs::memfd_create(c"gantry", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create(c"gantry", flags))?;
    let mut memory = File::from(memory);
    io::copy(&mut File::open("/proc/self/exe")?, &mut memory)?;
    memory.rewind()?;
    rustix::fs::fcntl_add_seals(
        &memory,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(memory.into())
}

/// Executes the running binary anew from a protected copy; returns only an error.
pub fn reexec(arguments: &StringList, environment: &StringList) -> io::Error {
    let program = match clone_read_only().or_else(|_| copy_sealed()) {
        Ok(program) => program,
        Err(error) => return error,
    };
    fexecve(program.as_fd(), arguments, environment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    fn refuses_writers(program: &OwnedFd) {
        let path = format!("/proc/self/fd/{}", program.as_raw_fd());
        assert!(File::open(&path).is_ok());
        match std::fs::OpenOptions::new().write(true).open(&path) {
            Err(_) => {}
            Ok(mut file) => assert!(io::Write::write(&mut file, b"x").is_err()),
        }
    }

    #[test]
    fn nobody_writes_to_the_clone_or_the_copy() {
        refuses_writers(&clone_read_only().unwrap());
        refuses_writers(&copy_sealed().unwrap());
    }
}
