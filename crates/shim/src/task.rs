//! One process that the shim has started, the container's init or an exec: its pid, its streams, its end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

use crate::log::Stream;
use crate::queue::Queue;

/// The container's own task; execs count from 1.
pub const CONTAINER: u64 = 0;
/// The size that output pipes are given if the kernel allows it: a process that writes much is woken less often.
const PIPE_BYTES: usize = 1 << 20;

/// One output stream.
#[derive(Debug, Default)]
pub struct Output {
    pub fd: Option<OwnedFd>,
    pub registered: bool,
}

/// The write end of a process's input.
#[derive(Debug)]
pub struct Input {
    pub fd: OwnedFd,
    pub queue: Queue,
    /// Close it once the queue is empty.
    pub closing: bool,
    pub registered: bool,
}

#[derive(Debug)]
pub struct Task {
    pub id: u64,
    /// The exec's name; `None` for the container.
    pub exec: Option<String>,
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub tty: bool,
    /// The first client's end of input closes stdin.
    pub stdin_once: bool,
    pub stdin: Option<Input>,
    pub stdout: Output,
    pub stderr: Output,
    /// For the window's size.
    pub console: Option<OwnedFd>,
    /// When and how the process ended.
    pub exit_code: Option<i32>,
    pub exited_at_ns: i64,
    /// Output is awaited until then, after the process has ended.
    pub drain_until: Option<Instant>,
    /// The end was told; what others still write is thrown away.
    pub finished: bool,
}

impl Task {
    pub fn output(&mut self, stream: Stream) -> &mut Output {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    pub fn outputs_open(&self) -> bool {
        self.stdout.fd.is_some() || self.stderr.fd.is_some()
    }
}

/// Our ends of a task's streams.
#[derive(Debug, Default)]
pub struct Ours {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// The process's ends.
#[derive(Debug)]
pub struct Theirs {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Makes three pipes, or two and /dev/null for a process without input. Our ends do not block.
pub fn pipes(open_stdin: bool) -> io::Result<(Ours, Theirs)> {
    let (stdout, their_stdout) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, their_stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (their_stdin, stdin) = if open_stdin {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        (reader, Some(writer))
    } else {
        (
            rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?,
            None,
        )
    };
    for fd in [&stdout, &stderr] {
        rustix::io::ioctl_fionbio(fd, true)?;
        // Refused beyond the user's allowance: then the usual 64 KiB do.
        let _ = rustix::pipe::fcntl_setpipe_size(fd.as_fd(), PIPE_BYTES);
    }
    Ok((
        Ours {
            stdin,
            stdout: Some(stdout),
            stderr: Some(stderr),
        },
        Theirs {
            stdin: their_stdin,
            stdout: their_stdout,
            stderr: their_stderr,
        },
    ))
}

/// Takes a terminal's master: it is stdin and stdout in one.
pub fn terminal(master: &OwnedFd, open_stdin: bool) -> io::Result<Ours> {
    rustix::io::ioctl_fionbio(master, true)?;
    Ok(Ours {
        stdin: if open_stdin {
            Some(master.try_clone()?)
        } else {
            None
        },
        stdout: Some(master.try_clone()?),
        stderr: None,
    })
}
