//! A second process on the caller's descriptor table, which keeps the table over the caller's death.
//!
//! `clone(CLONE_FILES)` copies the memory and shares the descriptors. So whatever the caller has open is open as long as
//! either of the two lives, from the very moment in which the kernel has given it its number, and it costs nothing twice.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, RawDir};

use super::clone::clone3_sharing;
use super::{Child, Clone3, close_range, reset_signals, set_name, setsid};

const CLONE_FILES: u64 = libc::CLONE_FILES as u64;

/// How a keeper behaves. The functions run in the copy of a process: they must not allocate, wait or take a lock.
#[derive(Debug)]
pub struct Keep<'a, W, K> {
    /// What `ps` shows, at most 15 bytes.
    pub name: &'a CStr,
    /// A pidfd of the caller.
    pub caller: BorrowedFd<'a>,
    /// How long the descriptors are kept after the caller's death.
    pub patience: Duration,
    /// Asked after the caller's death: whether anybody will come for the descriptors.
    pub is_wanted: W,
    /// Which descriptors are kept; all others are closed at the caller's death.
    pub keeps: K,
}

/// Starts a keeper. It waits for the caller's death, closes what it is not to keep, keeps the rest for a while and ends;
/// who wants the descriptors takes them by pidfd_getfd(2) and kills it.
///
/// # Errors
/// Those of [`clone3`](super::clone3).
pub fn keep_descriptors<W, K>(options: &Keep<'_, W, K>) -> io::Result<Child>
where
    W: Fn() -> bool,
    K: Fn(BorrowedFd<'_>) -> bool,
{
    let how = Clone3 {
        flags: CLONE_FILES,
        cgroup: None,
    };
    // The name is that of the copy from its first moment, or somebody would take it for the caller.
    let own_name = rustix::thread::name()?;
    set_name(options.name)?;
    let child = || {
        // Failures here cost the freedom from signals that others send to the group.
        let _ = setsid();
        let _ = reset_signals();
        let keeps = wait(options.caller, None).is_ok() && (options.is_wanted)();
        if keeps && close_all_but(&options.keeps).is_ok() {
            // Whatever ends it.
            let _ = pause(options.patience);
        }
        0
    };
    // SAFETY: no memory is shared. The table is; but the closure borrows all that it uses, and those are `Fn`, so nothing
    // that owns a descriptor of the caller's is dropped; a panic unwinds no further than the closure, and the copy ends by
    // `_exit`. What it closes on purpose it closes when the caller is dead.
    let copied = unsafe { clone3_sharing(&how, child) };
    set_name(&own_name)?;
    copied
}

/// Waits until a descriptor is readable.
fn wait(fd: BorrowedFd<'_>, timeout: Option<&Timespec>) -> io::Result<()> {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut fds, timeout))?;
    Ok(())
}

fn pause(time: Duration) -> io::Result<()> {
    let time = Timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: time.subsec_nanos().into(),
    };
    poll(&mut [], Some(&time))?;
    Ok(())
}

/// Closes every descriptor of the table but those that `keeps` picks. For a process that alone is left on its table.
fn close_all_but(keeps: impl Fn(BorrowedFd<'_>) -> bool) -> io::Result<()> {
    let directory = rustix::fs::open(
        c"/proc/self/fd",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let directory = match directory {
        // The table is full: the first number is free as soon as what has it is closed.
        Err(rustix::io::Errno::MFILE) => {
            close_range(0, 0, false)?;
            rustix::fs::openat(CWD, c"/proc/self/fd", OFlags::RDONLY, Mode::empty())?
        }
        opened => opened?,
    };
    let own = directory.as_raw_fd();
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(&directory, &mut space);
    while let Some(entry) = entries.next() {
        let Some(number) = entry
            .as_ref()
            .ok()
            .and_then(|entry| parse(entry.file_name()))
        else {
            entry?;
            continue;
        };
        // SAFETY: the number is open, nothing but this loop closes any, and it is borrowed for this call alone.
        let is_kept = number == own || keeps(unsafe { BorrowedFd::borrow_raw(number) });
        if !is_kept {
            close_range(number.cast_unsigned(), number.cast_unsigned(), false)?;
        }
    }
    Ok(())
}

fn parse(name: &CStr) -> Option<RawFd> {
    name.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_directory_of_descriptors_are_numbers() {
        assert_eq!(parse(c"0"), Some(0));
        assert_eq!(parse(c"1023"), Some(1023));
        assert_eq!(parse(c".."), None);
    }
}
