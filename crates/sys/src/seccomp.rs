//! Loading of seccomp filters. What is in a filter is the caller's.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Size of `struct sock_filter`.
const INSTRUCTION_BYTES: usize = 8;
/// BPF_MAXINSNS.
const INSTRUCTIONS_MAX: usize = 4096;

/// SECCOMP_FILTER_FLAG_TSYNC: all threads of the process.
pub const TSYNC: u32 = 1;
/// SECCOMP_FILTER_FLAG_LOG: log refused calls.
pub const LOG: u32 = 2;
/// SECCOMP_FILTER_FLAG_SPEC_ALLOW: no barrier against speculative store bypass.
pub const SPEC_ALLOW: u32 = 4;
/// SECCOMP_FILTER_FLAG_NEW_LISTENER: the result is a descriptor that answers for the calls.
pub const NEW_LISTENER: u32 = 8;
/// SECCOMP_FILTER_FLAG_TSYNC_ESRCH: a thread that cannot follow is an error, not a thread id.
pub const TSYNC_ESRCH: u32 = 16;

/// Loads a filter into the calling thread, or with [`TSYNC`] into all threads of its process: seccomp(2),
/// SECCOMP_SET_MODE_FILTER. Async-signal-safe: it allocates nothing. With [`NEW_LISTENER`] the result is the listener,
/// close-on-exec.
///
/// A filter cannot be taken back, and holds for what is executed and made later.
///
/// # Errors
/// `InvalidInput` when `program` is no array of `struct sock_filter`; `EACCES` without CAP_SYS_ADMIN or no-new-privileges,
/// `EINVAL` for a program that the kernel does not take, `ESRCH` when a thread could not follow.
pub fn load(program: &[u8], flags: u32) -> io::Result<Option<OwnedFd>> {
    let count = program.len() / INSTRUCTION_BYTES;
    if program.is_empty()
        || !program.len().is_multiple_of(INSTRUCTION_BYTES)
        || count > INSTRUCTIONS_MAX
    {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let filter = libc::sock_fprog {
        len: u16::try_from(count).unwrap_or(u16::MAX),
        // The kernel copies byte by byte from user memory, so the alignment of `program` does not matter.
        filter: program.as_ptr().cast_mut().cast(),
    };
    let flags = libc::c_ulong::from(if flags & TSYNC == 0 {
        flags
    } else {
        flags | TSYNC_ESRCH
    });
    let mode = libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER);
    // SAFETY: `filter` names exactly the instructions of `program`, both live through the call, and the kernel only reads.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const filter) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::c_ulong::from(NEW_LISTENER) == 0 {
        return Ok(None);
    }
    let descriptor =
        RawFd::try_from(result).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(descriptor) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u16, jump_true: u8, jump_false: u8, value: u32) -> Vec<u8> {
        [
            &code.to_ne_bytes()[..],
            &[jump_true, jump_false],
            &value.to_ne_bytes(),
        ]
        .concat()
    }

    #[test]
    fn a_loaded_filter_refuses() {
        let program = [
            instruction(0x20, 0, 0, 0),
            instruction(0x15, 0, 1, u32::try_from(libc::SYS_getppid).unwrap()),
            instruction(0x06, 0, 0, 0x0005_0000 | 77),
            instruction(0x06, 0, 0, 0x7fff_0000),
        ]
        .concat();
        // SAFETY: the child only makes system calls and ends by `_exit`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let loaded = load(&program, SPEC_ALLOW).is_ok();
            // SAFETY: no arguments; errno is this thread's.
            let refused = unsafe {
                libc::syscall(libc::SYS_getppid) == -1 && *libc::__errno_location() == 77
            };
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(i32::from(!(loaded && refused))) };
        }
        let mut status = 0;
        // SAFETY: our own child, and a live status.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert_eq!(status, 0);
    }

    #[test]
    fn odd_lengths_are_no_programs() {
        for program in [&[][..], &[0; 7], &[0; 12]] {
            assert_eq!(
                load(program, 0).unwrap_err().kind(),
                io::ErrorKind::InvalidInput
            );
        }
    }
}
