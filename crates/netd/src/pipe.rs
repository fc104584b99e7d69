//! What carried bytes pass through: splice(2) moves them from a socket into a pipe and on into the other socket, so that
//! none is ever in this process's memory, where it would be lost with it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

/// What is in a pipe at most.
pub const BYTES_MAX: usize = 64 * 1024;
/// How many idle pipes are kept. Their number grows with the connections whose receivers are slow, and falls with them.
const IDLE_MAX: usize = 64;

/// A pipe and how much is in it.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    filled: usize,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        // Of the size that the kernel gives: larger ones are counted against what all of the user's processes share, those
        // of containers among them (pipe(7), pipe-user-pages-soft).
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self {
            reader,
            writer,
            filled: 0,
        })
    }

    /// Takes over a predecessor's, with what is in it.
    pub fn adopt(reader: OwnedFd, writer: OwnedFd) -> io::Result<Self> {
        let filled = usize::try_from(rustix::io::ioctl_fionread(&reader)?).unwrap_or(usize::MAX);
        Ok(Self {
            reader,
            writer,
            filled,
        })
    }

    pub fn ends(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.reader.as_fd(), self.writer.as_fd())
    }

    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Moves bytes of a socket into the empty pipe; 0 is the end of the stream, or urgent data in a stream whose end is
    /// in the socket already.
    ///
    /// # Errors
    /// `WouldBlock` where there is nothing yet, or nothing but urgent data.
    pub fn fill(&mut self, source: BorrowedFd<'_>) -> rustix::io::Result<usize> {
        debug_assert!(self.is_empty());
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        self.filled = rustix::io::retry_on_intr(|| {
            splice(source, None, &self.writer, None, BYTES_MAX, flags)
        })?;
        Ok(self.filled)
    }

    /// Moves bytes on into a socket.
    ///
    /// # Errors
    /// `WouldBlock` where it takes none.
    pub fn drain(&mut self, sink: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        while self.filled > 0 {
            // Of the very length that is there: what follows a shorter one would be waited for (MSG_MORE).
            let moved = rustix::io::retry_on_intr(|| {
                splice(&self.reader, None, sink, None, self.filled, flags)
            })?;
            if moved == 0 {
                return Err(rustix::io::Errno::IO);
            }
            self.filled -= moved;
        }
        Ok(())
    }
}

/// Pipes that wait to be used.
#[derive(Debug, Default)]
pub struct Pool {
    idle: Vec<Pipe>,
}

impl Pool {
    /// Gives an empty pipe.
    ///
    /// # Errors
    /// Where there is none and no descriptor for another.
    pub fn take(&mut self) -> io::Result<Pipe> {
        self.idle.pop().map_or_else(Pipe::new, Ok)
    }

    /// Takes a pipe back; one with bytes in it is closed.
    pub fn give_back(&mut self, pipe: Pipe) {
        if pipe.is_empty() && self.idle.len() < IDLE_MAX {
            self.idle.push(pipe);
        }
    }
}
