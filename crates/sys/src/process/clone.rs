//! clone3, pidfds and namespaces.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// New mount namespace.
pub const CLONE_NEWNS: u64 = libc::CLONE_NEWNS as u64;
/// New cgroup namespace.
pub const CLONE_NEWCGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
/// New UTS namespace.
pub const CLONE_NEWUTS: u64 = libc::CLONE_NEWUTS as u64;
/// New IPC namespace.
pub const CLONE_NEWIPC: u64 = libc::CLONE_NEWIPC as u64;
/// New user namespace.
pub const CLONE_NEWUSER: u64 = libc::CLONE_NEWUSER as u64;
/// New PID namespace.
pub const CLONE_NEWPID: u64 = libc::CLONE_NEWPID as u64;
/// New network namespace.
pub const CLONE_NEWNET: u64 = libc::CLONE_NEWNET as u64;
/// New time namespace, Linux 5.6.
pub const CLONE_NEWTIME: u64 = 0x80;
/// The child has the caller's parent.
pub const CLONE_PARENT: u64 = libc::CLONE_PARENT as u64;

/// Every kind of namespace.
const NAMESPACES: u64 = CLONE_NEWNS
    | CLONE_NEWCGROUP
    | CLONE_NEWUTS
    | CLONE_NEWIPC
    | CLONE_NEWUSER
    | CLONE_NEWPID
    | CLONE_NEWNET
    | CLONE_NEWTIME;

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What [`clone3`] makes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clone3<'a> {
    /// `CLONE_NEW*` and [`CLONE_PARENT`].
    pub flags: u64,
    /// Directory of the version 2 cgroup that the child starts in, which costs nothing, unlike a later move.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// A child by number and by descriptor.
#[derive(Debug)]
pub struct Child {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// Copies the calling process and runs `child` in the copy, which exits with its result.
///
/// Caught signals have their default action in the child. A panic ends the child with 101 and never reaches the
/// caller's frames. The parent is told of the end by SIGCHLD (with [`CLONE_PARENT`]: as it is of the caller's).
///
/// # Errors
/// `InvalidInput` if the caller has several threads, since a lock that another one holds would stay locked in the copy,
/// and for flags that share something of the caller's with the copy; else the system's (`clone3(2)`).
pub fn clone3(options: &Clone3<'_>, child: impl FnOnce() -> i32) -> io::Result<Child> {
    if options.flags & !(NAMESPACES | CLONE_PARENT) != 0 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: none of these flags shares memory or descriptors.
    unsafe { clone3_sharing(options, child) }
}

/// As [`clone3`], with any flags.
///
/// # Safety
/// The flags share no memory (CLONE_VM, CLONE_THREAD). With CLONE_FILES, `child` closes no descriptor that the caller
/// had, as long as the caller lives: it takes nothing that owns one, drops nothing of the caller's, and does not unwind
/// over such a thing. Whoever owns it in the caller would close, or use, what somebody else has got under its number.
pub(super) unsafe fn clone3_sharing(
    options: &Clone3<'_>,
    child: impl FnOnce() -> i32,
) -> io::Result<Child> {
    if !is_single_threaded() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a process with several threads cannot be copied",
        ));
    }
    let mut pidfd: libc::c_int = -1;
    let mut arguments = libc::clone_args {
        flags: options.flags | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: if options.flags & CLONE_PARENT == 0 {
            libc::SIGCHLD as u64
        } else {
            0
        },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    if let Some(cgroup) = options.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM (the contract) and without a stack this is fork: the child runs on a copy of the memory. The
    // caller has one thread (checked above), so no lock of the allocator is held by a thread that the copy lacks. What
    // CLONE_FILES shares is the contract's.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut arguments,
            size_of::<libc::clone_args>(),
        )
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            exit_now(outcome.unwrap_or(101))
        }
        pid => Ok(Child {
            pid: pid as i32,
            // SAFETY: the kernel has just put a new descriptor there, which nobody else knows.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

/// Ends the process without running anything of its own.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` touches no memory of the process.
    unsafe { libc::_exit(code) }
}

/// Says whether the calling process has one thread: unsharing the thread group is then a no-op that the kernel allows.
pub fn is_single_threaded() -> bool {
    // SAFETY: CLONE_THREAD changes nothing where it succeeds (`unshare(2)`).
    unsafe { libc::unshare(libc::CLONE_THREAD) == 0 }
}

/// Opens a process by number (`pidfd_open(2)`).
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(rustix::process::pidfd_open(
        pid,
        rustix::process::PidfdFlags::empty(),
    )?)
}

/// Sends a signal, of any number, to a process (`pidfd_send_signal(2)`); 0 only asks whether it is there.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo is allowed, and nothing else is pointed to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// The shell's convention: the code, or 128 and the signal's number.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Waits for the end of a child and reaps it (`waitid(2)` with `P_PIDFD`); `None` if it still runs and `block` is false.
pub fn wait_pidfd(pidfd: BorrowedFd<'_>, block: bool) -> io::Result<Option<Exit>> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let mut options = WaitIdOptions::EXITED;
    if !block {
        options |= WaitIdOptions::NOHANG;
    }
    let status = rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd), options))?;
    Ok(status.map(|status| {
        status.exit_status().map_or_else(
            || Exit::Signal(status.terminating_signal().unwrap_or(libc::SIGKILL)),
            Exit::Code,
        )
    }))
}

/// Enters one namespace (a descriptor of `/proc/PID/ns/*`) or several of a process (a pidfd); `setns(2)`.
pub fn setns(fd: BorrowedFd<'_>, flags: u64) -> io::Result<()> {
    // SAFETY: the call takes two numbers. That a change of the user, mount or time namespace needs one thread is the
    // kernel's own check.
    let result = unsafe { libc::setns(fd.as_raw_fd(), flags as libc::c_int) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Leaves namespaces for new ones (`unshare(2)`).
pub fn unshare(flags: u64) -> io::Result<()> {
    if flags & !NAMESPACES != 0 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: only namespaces change; the descriptor table, which others might rely on, stays shared.
    let result = unsafe { libc::unshare(flags as libc::c_int) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_several_threads_is_not_copied() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || receiver.recv());
        assert!(!is_single_threaded());
        let error = clone3(&Clone3::default(), || 0).expect_err("two threads");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        drop(sender);
        thread.join().expect("join").expect_err("closed");
    }

    #[test]
    fn nothing_of_the_callers_is_shared_with_a_copy() {
        for flag in [
            libc::CLONE_FILES,
            libc::CLONE_VM,
            libc::CLONE_FS,
            libc::CLONE_THREAD,
        ] {
            let options = Clone3 {
                flags: CLONE_NEWUTS | flag as u64,
                cgroup: None,
            };
            let error = clone3(&options, || 0).expect_err("it shares something");
            // The other reason there may be: tests run in threads.
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.get_ref().is_none(), "{error}");
        }
    }

    #[test]
    fn unshare_takes_namespaces_only() {
        let error = unshare(libc::CLONE_FILES as u64).expect_err("not a namespace");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
