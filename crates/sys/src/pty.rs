//! Terminals: the window's size, and a child that owns the terminal.

#![expect(
    unsafe_code,
    reason = "fork, and what a child does before it executes another program"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::termios::Winsize;

/// Sets the window's size (TIOCSWINSZ); the foreground group gets SIGWINCH if it changed.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Starts a program as the leader of a process group of its own, in the foreground if standard input is the session's
/// terminal, with every signal unblocked. The program is looked up in PATH. Returns its process id, or the error of its
/// execution.
///
/// The caller has one thread: the child allocates nothing, but a second thread could hold the C library's locks.
pub fn spawn_foreground(argv: &[CString]) -> io::Result<i32> {
    let mut pointers: Vec<*const libc::c_char> =
        argv.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(std::ptr::null());
    if argv.is_empty() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (reader_number, writer_number) = (reader.as_raw_fd(), writer.as_raw_fd());
    // SAFETY: this process has one thread, so the child may call what it likes; it ends in execvp or _exit.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: plain system calls on descriptors that the child has inherited; `pointers` ends with a null and
            // its strings outlive the call.
            unsafe {
                libc::close(reader_number);
                libc::setpgid(0, 0);
                // A process of a background group that takes the terminal gets SIGTTOU, which stops it by default.
                libc::signal(libc::SIGTTOU, libc::SIG_IGN);
                libc::tcsetpgrp(0, libc::getpid());
                libc::signal(libc::SIGTTOU, libc::SIG_DFL);
                libc::signal(libc::SIGTTIN, libc::SIG_DFL);
                libc::signal(libc::SIGPIPE, libc::SIG_DFL);
                let mut none = std::mem::zeroed::<libc::sigset_t>();
                libc::sigemptyset(&raw mut none);
                libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
                libc::execvp(pointers[0], pointers.as_ptr());
                let error = (*libc::__errno_location()).to_ne_bytes();
                libc::write(writer_number, error.as_ptr().cast(), error.len());
                libc::_exit(127)
            }
        }
        pid => {
            drop(writer);
            let mut error = [0; 4];
            let count = rustix::io::retry_on_intr(|| rustix::io::read(&reader, &mut error))?;
            if count == error.len() {
                let _ = rustix::process::waitpid(
                    rustix::process::Pid::from_raw(pid),
                    rustix::process::WaitOptions::empty(),
                );
                return Err(io::Error::from_raw_os_error(i32::from_ne_bytes(error)));
            }
            Ok(pid)
        }
    }
}

/// Sends a signal by its number, real-time signals included.
pub fn kill_realtime(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes two integers.
    if unsafe { libc::kill(pid, signal) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_size_is_set_and_read_back() {
        let master =
            rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY)
                .unwrap();
        set_size(master.as_fd(), 33, 77).unwrap();
        let size = rustix::termios::tcgetwinsize(&master).unwrap();
        assert_eq!((size.ws_row, size.ws_col), (33, 77));
    }
}
