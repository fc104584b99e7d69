//! A connection that was taken out of HTTP: raw bytes both ways, with half close.
//!
//! It is handed out as a blocking descriptor: the attach loops copy hundreds of megabytes, and a plain `read` into a
//! large buffer beats any reactor there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A raw connection after an upgrade.
pub struct Hijacked {
    /// The connection in blocking mode.
    pub stream: OwnedFd,
    /// Bytes that came with the response head; they precede everything that `stream` will give.
    pub early: Vec<u8>,
    /// The Content-Type of the answer: `application/vnd.docker.multiplexed-stream` or `raw-stream`.
    pub media_type: String,
}

impl Hijacked {
    /// Closes the sending direction, which is end-of-file for the process's stdin.
    pub fn close_write(stream: BorrowedFd<'_>) {
        // A peer that is gone needs no end-of-file.
        let _ = shutdown_write(stream);
    }
}

impl AsFd for Hijacked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn shutdown_write(stream: BorrowedFd<'_>) -> std::io::Result<()> {
    let socket = std::os::unix::net::UnixStream::from(stream.try_clone_to_owned()?);
    socket.shutdown(std::net::Shutdown::Write)
}
