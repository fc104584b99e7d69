//! Execution of a program by posix_spawn, which copies no memory and takes no lock: 1.4 ms from a process of 400 MB,
//! where fork takes 27.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use super::{Child, StringList, dup_above, pidfd_open};

/// The running executable by the kernel's own name: it is this binary whatever became of its path.
pub const SELF: &CStr = c"/proc/self/exe";

/// What [`spawn`] executes.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// Absolute path; [`SELF`] for another role of this binary.
    pub program: &'a CStr,
    /// With argument 0.
    pub arguments: &'a StringList,
    pub environment: &'a StringList,
    /// Descriptors and the numbers that they have in the child. 0, 1 and 2 are inherited unless given here, everything
    /// else above the highest number is closed.
    pub fds: &'a [(BorrowedFd<'a>, RawFd)],
    /// Makes the child the leader of a new session.
    pub session: bool,
    /// Directory that the child starts in.
    pub directory: Option<&'a CStr>,
}

/// Executes a program with signals at their defaults, none blocked. Safe in a process with threads. The child is to be
/// reaped by the caller.
///
/// # Errors
/// Those of `execve(2)` too: the program runs when this returns `Ok`.
pub fn spawn(options: &Spawn<'_>) -> io::Result<Child> {
    let highest = options
        .fds
        .iter()
        .map(|(_, target)| *target)
        .max()
        .unwrap_or(2)
        .max(2);
    // A source whose number is some target's would be overwritten before its turn: those are moved above all targets.
    let mut moved: Vec<OwnedFd> = Vec::new();
    let mut sources: Vec<RawFd> = Vec::with_capacity(options.fds.len());
    for (fd, _) in options.fds {
        if fd.as_raw_fd() <= highest {
            let copy = dup_above(fd.as_fd(), highest + 1)?;
            sources.push(copy.as_raw_fd());
            moved.push(copy);
        } else {
            sources.push(fd.as_raw_fd());
        }
    }
    let mut actions = Actions::new()?;
    for (source, (_, target)) in sources.iter().zip(options.fds) {
        actions.dup2(*source, *target)?;
    }
    actions.close_from(highest + 1)?;
    if let Some(directory) = options.directory {
        actions.chdir(directory)?;
    }
    let attributes = Attributes::new(options.session)?;
    let mut pid: libc::pid_t = 0;
    // SAFETY: actions and attributes are initialised and live on; both lists end with NULL.
    let result = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            options.program.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            options.arguments.as_mut_pointers(),
            options.environment.as_mut_pointers(),
        )
    };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    // The child is not reaped before the caller does it, so the number is still its own.
    Ok(Child {
        pid,
        pidfd: pidfd_open(pid)?,
    })
}

/// The environment of the calling process, as [`spawn`] takes it.
pub fn environment() -> StringList {
    use std::os::unix::ffi::OsStrExt;
    StringList::new(
        std::env::vars_os()
            .filter_map(|(key, value)| {
                CString::new([key.as_bytes(), b"=", value.as_bytes()].concat()).ok()
            })
            .collect(),
    )
}

impl StringList {
    /// The list as C's prototype wants it; posix_spawn writes to none of it.
    fn as_mut_pointers(&self) -> *const *mut libc::c_char {
        self.addresses().as_ptr().cast()
    }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: the call initialises what it is given.
        unsafe {
            spawn_check(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
            Ok(Self(actions.assume_init()))
        }
    }

    fn dup2(&mut self, source: RawFd, target: RawFd) -> io::Result<()> {
        // SAFETY: initialised; the numbers are checked in the child.
        spawn_check(unsafe {
            libc::posix_spawn_file_actions_adddup2(&raw mut self.0, source, target)
        })
    }

    fn close_from(&mut self, first: RawFd) -> io::Result<()> {
        // SAFETY: initialised.
        spawn_check(unsafe {
            libc::posix_spawn_file_actions_addclosefrom_np(&raw mut self.0, first)
        })
    }

    fn chdir(&mut self, path: &CStr) -> io::Result<()> {
        // SAFETY: initialised; the path is copied.
        spawn_check(unsafe {
            libc::posix_spawn_file_actions_addchdir_np(&raw mut self.0, path.as_ptr())
        })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised and not used again.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new(session: bool) -> io::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the first call initialises; a zeroed signal set is an empty one, then filled; all outlive their calls.
        unsafe {
            spawn_check(libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
            let mut this = Self(attributes.assume_init());
            let mut flags = libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK;
            if session {
                flags |= libc::POSIX_SPAWN_SETSID as libc::c_int;
            }
            spawn_check(libc::posix_spawnattr_setflags(
                &raw mut this.0,
                flags as libc::c_short,
            ))?;
            let mut set: libc::sigset_t = std::mem::zeroed();
            spawn_check(libc::posix_spawnattr_setsigmask(
                &raw mut this.0,
                ptr::from_ref(&set),
            ))?;
            libc::sigfillset(&raw mut set);
            spawn_check(libc::posix_spawnattr_setsigdefault(
                &raw mut this.0,
                ptr::from_ref(&set),
            ))?;
            Ok(this)
        }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised and not used again.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

fn spawn_check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(result))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::super::{Exit, wait_pidfd};
    use super::*;

    fn list(strings: &[&CStr]) -> StringList {
        StringList::new(strings.iter().map(|string| (*string).to_owned()).collect())
    }

    #[test]
    fn descriptors_get_their_numbers_even_when_they_cross() {
        let (mut first_read, first_write) = std::io::pipe().expect("pipe");
        let (mut second_read, second_write) = std::io::pipe().expect("pipe");
        let crossed = dup_above(first_write.as_fd(), 3).expect("dup");
        let child = spawn(&Spawn {
            program: c"/bin/sh",
            arguments: &list(&[
                c"sh",
                c"-c",
                c"echo one >&4; echo two >&3; ls /proc/self/fd >&4; kill -9 $$",
            ]),
            environment: &environment(),
            fds: &[(crossed.as_fd(), 4), (second_write.as_fd(), 3)],
            session: true,
            directory: Some(c"/"),
        })
        .expect("spawn");
        drop((first_write, second_write, crossed));
        let (mut first, mut second) = (String::new(), String::new());
        first_read.read_to_string(&mut first).expect("read");
        second_read.read_to_string(&mut second).expect("read");
        assert_eq!(first.lines().next(), Some("one"));
        assert_eq!(second, "two\n");
        // 0 to 4, and the directory that `ls` reads.
        assert_eq!(first.lines().count(), 7, "{first}");
        let exit = wait_pidfd(child.pidfd.as_fd(), true).expect("wait");
        assert_eq!(exit, Some(Exit::Signal(9)));
    }

    #[test]
    fn a_missing_program_is_an_error_of_spawn() {
        std::io::stdout().flush().expect("flush");
        let error = spawn(&Spawn {
            program: c"/nonexistent",
            arguments: &list(&[c"x"]),
            environment: &list(&[]),
            fds: &[],
            session: false,
            directory: None,
        })
        .expect_err("nothing there");
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
}
