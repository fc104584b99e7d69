//! epoll and signalfd: what a single-threaded loop waits on.

#![expect(unsafe_code, reason = "signal masks and signalfd are not in rustix")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
pub use rustix::event::epoll::EventFlags;
use rustix::event::epoll::{self, EventData};

/// How many events one wait returns at most.
const EVENTS_MAX: usize = 32;

/// An epoll instance whose entries are told apart by a number. An entry must be deleted before its descriptor is closed
/// if a dup of the descriptor lives on.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
}

impl Epoll {
    /// Creates an instance, close-on-exec.
    pub fn new() -> io::Result<Self> {
        Ok(Epoll {
            fd: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        })
    }

    /// Adds a descriptor, level-triggered unless `flags` say otherwise.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.fd, fd, EventData::new_u64(token), flags)?)
    }

    /// Changes what is waited for.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(
            &self.fd,
            fd,
            EventData::new_u64(token),
            flags,
        )?)
    }

    /// Removes a descriptor.
    pub fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.fd, fd)?)
    }

    /// Waits and hands each event to `found`; returns how many there were (0 after `timeout` or an interruption).
    pub fn wait(
        &self,
        timeout: Option<Duration>,
        mut found: impl FnMut(u64, EventFlags),
    ) -> io::Result<usize> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); EVENTS_MAX];
        let (ready, _) = match epoll::wait(&self.fd, &mut events, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(0),
            other => other?,
        };
        for event in ready.iter() {
            // The fields are unaligned in the kernel's structure: copy first.
            let (data, flags) = (event.data, event.flags);
            found(data.u64(), flags);
        }
        Ok(ready.len())
    }
}

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset writes the whole set that it is given.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = empty_set();
    for &signal in signals {
        // SAFETY: the set is initialised; a number that is no signal is refused by an error that changes nothing.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

/// Blocks the signals in this thread.
pub fn block_signals(signals: &[i32]) -> io::Result<()> {
    mask(libc::SIG_BLOCK, &set_of(signals))
}

/// Blocks every signal in this thread except those that a fault of its own raises.
pub fn block_all_signals() -> io::Result<()> {
    let mut set = empty_set();
    // SAFETY: the set is initialised.
    unsafe { libc::sigfillset(&raw mut set) };
    for signal in [
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGABRT,
        libc::SIGTRAP,
        libc::SIGSYS,
    ] {
        // SAFETY: the set is initialised and the numbers are signals.
        unsafe { libc::sigdelset(&raw mut set, signal) };
    }
    mask(libc::SIG_SETMASK, &set)
}

/// Unblocks every signal in this thread.
pub fn unblock_all_signals() -> io::Result<()> {
    mask(libc::SIG_SETMASK, &empty_set())
}

fn mask(how: i32, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is initialised, and no old set is asked for.
    let error = unsafe { libc::pthread_sigmask(how, set, std::ptr::null_mut()) };
    if error == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(error))
    }
}

/// Takes the next blocked signal that comes; returns its number.
pub fn wait_for_signal() -> io::Result<i32> {
    let mut set = empty_set();
    // SAFETY: the set is initialised.
    unsafe { libc::sigfillset(&raw mut set) };
    loop {
        // SAFETY: the set is initialised; no information about the signal is asked for.
        let signal = unsafe { libc::sigwaitinfo(&set, std::ptr::null_mut()) };
        if signal > 0 {
            return Ok(signal);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Blocks the signals and returns a descriptor that is readable while one is pending; close-on-exec, nonblocking.
pub fn signalfd(signals: &[i32]) -> io::Result<OwnedFd> {
    block_signals(signals)?;
    // SAFETY: the set is initialised; -1 asks for a new descriptor.
    let fd =
        unsafe { libc::signalfd(-1, &set_of(signals), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes all pending signals from a signalfd; returns whether there was one.
pub fn drain_signals(fd: impl AsFd) -> bool {
    let mut any = false;
    let mut buffer = [0; size_of::<libc::signalfd_siginfo>() * 4];
    while rustix::io::read(fd.as_fd(), &mut buffer).is_ok_and(|count| count > 0) {
        any = true;
    }
    any
}

/// Bounds what the C library's allocator keeps for itself: one arena, large blocks mapped and unmapped on their own.
pub fn keep_heap_small() {
    // SAFETY: mallopt takes two integers and changes only the allocator's parameters.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 32 << 10);
        libc::mallopt(libc::M_TOP_PAD, 0);
    }
}

/// Gives free memory back to the kernel.
pub fn trim_heap() {
    // SAFETY: malloc_trim releases only pages that hold no live allocation.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_bear_their_token_and_a_timeout_bears_none() {
        let epoll = Epoll::new().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        epoll.add(reader.as_fd(), 1 << 40, EventFlags::IN).unwrap();
        let mut found = Vec::new();
        assert_eq!(
            epoll
                .wait(Some(Duration::from_millis(1)), |_, _| ())
                .unwrap(),
            0
        );
        rustix::io::write(&writer, b"x").unwrap();
        epoll
            .wait(None, |token, flags| found.push((token, flags)))
            .unwrap();
        drop(writer);
        epoll
            .wait(None, |token, flags| found.push((token, flags)))
            .unwrap();
        assert_eq!(
            found,
            [
                (1 << 40, EventFlags::IN),
                (1 << 40, EventFlags::IN | EventFlags::HUP)
            ]
        );
        epoll.delete(reader.as_fd()).unwrap();
        assert_eq!(epoll.wait(Some(Duration::ZERO), |_, _| ()).unwrap(), 0);
    }

    #[test]
    fn a_signalfd_gives_what_is_blocked() {
        std::thread::spawn(|| {
            let fd = signalfd(&[libc::SIGUSR2]).unwrap();
            assert!(!drain_signals(&fd));
            let thread = rustix::thread::gettid();
            // SAFETY: the signal is blocked in this very thread, which is where it is sent.
            let sent = unsafe {
                libc::syscall(
                    libc::SYS_tgkill,
                    rustix::process::getpid().as_raw_nonzero().get(),
                    thread.as_raw_nonzero().get(),
                    libc::SIGUSR2,
                )
            };
            assert_eq!(sent, 0);
            assert!(drain_signals(&fd));
        })
        .join()
        .unwrap();
    }
}
