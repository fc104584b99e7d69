//! Attributes of the calling process: identity, limits, signals, descriptors, name.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

fn check(result: libc::c_long) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the options used here take numbers; the unused ones must be zero.
    check(unsafe { libc::prctl(option, argument, 0, 0, 0) }.into())
}

/// Sets the name that `ps` and `/proc/PID/comm` show, cut to 15 bytes (`PR_SET_NAME`).
pub fn set_name(name: &CStr) -> io::Result<()> {
    Ok(rustix::thread::set_name(name)?)
}

/// Says whether others of the same user may trace the process or read its `/proc` (`PR_SET_DUMPABLE`).
pub fn set_dumpable(dumpable: bool) -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, dumpable.into())
}

/// Forbids gaining privileges by execve, for good (`PR_SET_NO_NEW_PRIVS`).
pub fn set_no_new_privs() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Keeps permitted capabilities over a change of user (`PR_SET_KEEPCAPS`).
pub fn set_keep_capabilities(keep: bool) -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into())
}

/// Adopts orphaned descendants (`PR_SET_CHILD_SUBREAPER`).
pub fn set_child_subreaper() -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// Asks for a signal when the parent thread ends (`PR_SET_PDEATHSIG`); 0 for none.
pub fn set_parent_death_signal(signal: i32) -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong)
}

/// Makes every descriptor from `first` on to `last` close-on-exec, or closes it at once.
pub fn close_range(first: u32, last: u32, at_exec: bool) -> io::Result<()> {
    let flags: libc::c_uint = if at_exec { 4 } else { 0 }; // CLOSE_RANGE_CLOEXEC
    // SAFETY: with CLOEXEC nothing is closed now. Without, the callers are children about to execute a program, processes
    // at their start that own nothing yet, and keepers alone on a dead process's table: whoever owned one of these
    // descriptors is never dropped (the process ends by exec or `_exit`), or is not there.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) })
}

/// Closes every descriptor from `first` on except those of `keep`.
pub fn close_except(first: u32, keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .filter(|fd| *fd >= first)
        .collect();
    keep.sort_unstable();
    keep.dedup();
    let mut next = first;
    for fd in keep {
        if fd > next {
            close_range(next, fd - 1, false)?;
        }
        next = fd + 1;
    }
    close_range(next, u32::MAX, false)
}

/// Duplicates `fd` onto the number `target`, which stays open over exec.
pub fn dup_onto(fd: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    if fd.as_raw_fd() == target {
        // SAFETY: the number is an open descriptor, borrowed; only its flag changes.
        return check(unsafe { libc::fcntl(target, libc::F_SETFD, 0) }.into());
    }
    // SAFETY: the callers are children about to execute a program: whoever owned `target` in their copy is gone.
    if unsafe { libc::dup2(fd.as_raw_fd(), target) } == target {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Duplicates `fd` onto a free number that is at least `least`, close-on-exec.
pub fn dup_above(fd: BorrowedFd<'_>, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the kernel returns a new descriptor that nobody else knows.
    unsafe {
        let new = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least);
        if new < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(OwnedFd::from_raw_fd(new))
        }
    }
}

/// Takes over a descriptor that the process was given at start under a fixed number.
///
/// # Errors
/// `EBADF` if it is not open.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: asks for the flags of a number that may be closed.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by the role's contract passed to this process to own.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Sets real, effective and saved user ids (`setresuid(2)`), of this thread alone.
pub fn setresuid(uid: u32) -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })
}

/// Sets real, effective and saved group ids (`setresgid(2)`), of this thread alone.
pub fn setresgid(gid: u32) -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })
}

/// Sets the supplementary groups (`setgroups(2)`), of this thread alone.
pub fn setgroups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length are of one slice.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
}

/// Sets the mode bits that new files lack, and returns the former ones.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: takes a number and cannot fail.
    unsafe { libc::umask(mask) }
}

/// Sets one resource limit of a process (0: the caller); `resource` is a number of `RLIMIT_*`.
pub fn prlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: the new limit outlives the call and the old one is not asked for.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            &raw const limit,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    })
}

/// Sets the execution domain (`personality(2)`).
pub fn personality(persona: u64) -> io::Result<()> {
    // SAFETY: takes a number; the old persona is not an error.
    if unsafe { libc::personality(persona as libc::c_ulong) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Becomes the leader of a new session (`setsid(2)`).
pub fn setsid() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Makes a terminal the controlling one of the caller's session (`TIOCSCTTY`).
pub fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}

/// Gives every signal its default action and blocks none, as a program expects at its start.
pub fn reset_signals() -> io::Result<()> {
    // SAFETY: default actions need no handler; the structures are zeroed, which is an empty mask, and outlive the calls.
    // SIGKILL, SIGSTOP and the C library's own refuse, which is as it should be.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        for signal in 1..=64 {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
        let mask: libc::sigset_t = std::mem::zeroed();
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut()).into())
    }
}

/// Joins a new session keyring of that name (`KEYCTL_JOIN_SESSION_KEYRING`).
pub fn join_session_keyring(name: &CStr) -> io::Result<()> {
    // SAFETY: the name outlives the call.
    if unsafe { libc::syscall(libc::SYS_keyctl, 1, name.as_ptr()) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Arguments or environment as execve takes them: strings and a NULL-terminated list of their addresses.
#[derive(Debug)]
pub struct StringList {
    strings: Vec<CString>,
    addresses: Vec<*const libc::c_char>,
}

impl StringList {
    /// Makes the list; the addresses stay right when it moves, because the strings are on the heap.
    pub fn new(strings: Vec<CString>) -> Self {
        let addresses = strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([std::ptr::null()])
            .collect();
        Self { strings, addresses }
    }

    pub(super) fn addresses(&self) -> &[*const libc::c_char] {
        &self.addresses
    }

    /// The strings.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }

    /// Puts a string before all others.
    pub fn prepend(self, first: Vec<CString>) -> Self {
        let mut strings = first;
        strings.extend(self.strings);
        Self::new(strings)
    }

    /// Adds a string at the end.
    pub fn push(&mut self, string: CString) {
        self.addresses.pop();
        self.addresses.push(string.as_ptr());
        self.addresses.push(std::ptr::null());
        self.strings.push(string);
    }
}

/// Executes a program (`execve(2)`); returns only an error.
pub fn execve(path: &CStr, arguments: &StringList, environment: &StringList) -> io::Error {
    // SAFETY: both lists end with NULL and their strings live in them.
    unsafe {
        libc::execve(
            path.as_ptr(),
            arguments.addresses.as_ptr(),
            environment.addresses.as_ptr(),
        );
    }
    io::Error::last_os_error()
}

/// Executes the program that a descriptor refers to (`execveat(2)`); returns only an error.
pub fn fexecve(
    program: BorrowedFd<'_>,
    arguments: &StringList,
    environment: &StringList,
) -> io::Error {
    // SAFETY: both lists end with NULL and their strings live in them; the path is empty.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.addresses.as_ptr(),
            environment.addresses.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// CPU scheduling as `sched_setattr(2)` takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulingAttributes {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Sets the scheduling policy of the caller (`sched_setattr(2)`).
pub fn sched_setattr(attributes: &SchedulingAttributes) -> io::Result<()> {
    #[repr(C)]
    struct Raw {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let raw = Raw {
        size: size_of::<Raw>() as u32,
        policy: attributes.policy,
        flags: attributes.flags,
        nice: attributes.nice,
        priority: attributes.priority,
        runtime: attributes.runtime,
        deadline: attributes.deadline,
        period: attributes.period,
    };
    // SAFETY: the structure has the kernel's first layout (48 bytes), says its size, and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const raw, 0) })
}

/// Sets the I/O class (1 real-time, 2 best effort, 3 idle) and level of the caller (`ioprio_set(2)`).
pub fn ioprio_set(class: u32, level: u32) -> io::Result<()> {
    // SAFETY: takes numbers: IOPRIO_WHO_PROCESS, the caller.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, (class << 13) | level) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_list_ends_with_null_after_each_change() {
        let mut list = StringList::new(vec![c"b".to_owned()]);
        list.push(c"c".to_owned());
        let list = list.prepend(vec![c"a".to_owned()]);
        assert_eq!(
            list.strings(),
            [c"a".to_owned(), c"b".to_owned(), c"c".to_owned()]
        );
        assert_eq!(list.addresses.len(), 4);
        assert!(list.addresses[3].is_null());
        assert!(
            list.addresses[..3]
                .iter()
                .zip(&list.strings)
                .all(|(address, string)| *address == string.as_ptr())
        );
    }
}
