//! One client's byte stream, unix or TCP, and the half close that hyper would take for a client that is gone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// The most that is read from a client that sends further requests while one is being answered.
const EARLY_BYTES_MAX: usize = 256 << 10;

/// A client's connection.
#[derive(Debug)]
pub enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    /// Takes the descriptor out of tokio; it is nonblocking.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        match self {
            Self::Unix(stream) => Ok(stream.into_std()?.into()),
            Self::Tcp(stream) => Ok(stream.into_std()?.into()),
        }
    }

    /// Reads without waiting; `Ok(None)` says that nothing is there now.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let read = match self {
            Self::Unix(stream) => stream.try_read(buffer),
            Self::Tcp(stream) => stream.try_read(buffer),
        };
        match read {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.readable().await,
            Self::Tcp(stream) => stream.readable().await,
        }
    }

    /// Returns when the client is gone; what it sends before is kept in `early`, up to a limit.
    ///
    /// A client that closed only its own direction still waits for its answer: then this never returns.
    pub async fn closed_by_client(&self, early: &mut Vec<u8>) {
        let mut buffer = [0; 4096];
        while early.len() < EARLY_BYTES_MAX {
            if self.readable().await.is_err() {
                return;
            }
            match self.try_read(&mut buffer) {
                Ok(Some(0)) if !self.is_hung_up() => break,
                Ok(Some(0)) | Err(_) => return,
                Ok(Some(count)) => early.extend_from_slice(&buffer[..count]),
                Ok(None) => {}
            }
        }
        std::future::pending().await
    }

    /// Tells whether the peer has closed both directions of a unix stream; a half close leaves POLLHUP unset, see
    /// unix(7) and poll(2). TCP cannot tell them apart, so there every close counts.
    fn is_hung_up(&self) -> bool {
        let Self::Unix(stream) = self else {
            return true;
        };
        let mut fds = [rustix::event::PollFd::new(
            stream,
            rustix::event::PollFlags::IN,
        )];
        let timeout = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) => fds[0]
                .revents()
                .intersects(rustix::event::PollFlags::HUP | rustix::event::PollFlags::ERR),
            Err(_) => true,
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(
            rustix::net::shutdown(self.as_fd(), rustix::net::Shutdown::Write)
                .map_err(io::Error::from),
        )
    }
}

/// Tells whether a request is being answered on a connection, and wakes its reader when that is over.
#[derive(Debug, Default)]
pub struct Answering(Mutex<(bool, Option<Waker>)>);

impl Answering {
    /// Notes that a request has come.
    pub fn begin(&self) {
        self.lock().0 = true;
    }

    /// Notes that its answer is finished or given up.
    pub fn end(&self) {
        let waker = {
            let mut state = self.lock();
            state.0 = false;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Registers the reader if a request is being answered; `false` if none is.
    fn wait(&self, cx: &Context<'_>) -> bool {
        let mut state = self.lock();
        if state.0 {
            state.1 = Some(cx.waker().clone());
        }
        state.0
    }

    fn lock(&self) -> MutexGuard<'_, (bool, Option<Waker>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stream as hyper reads it: bytes that were read before come first, and a half close while a request is being
/// answered is not passed on, because hyper would drop the answer.
#[derive(Debug)]
pub struct HyperStream {
    pub stream: Stream,
    pub prefix: Bytes,
    pub answering: Arc<Answering>,
}

impl AsyncRead for HyperStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.prefix.is_empty() {
            let take = this.prefix.len().min(buffer.remaining());
            buffer.put_slice(&this.prefix.split_to(take));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let ended = buffer.filled().len() == before && buffer.remaining() > 0;
        // Nothing tells of the other half's close while the answer lasts: the next write finds it.
        if ended && !this.stream.is_hung_up() && this.answering.wait(cx) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HyperStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
