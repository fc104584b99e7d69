//! Bodies of answers: whole, a part of a file, or what a cache's fetch has so far.

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::fs::File;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How much of a file is read at once. Large, because each piece costs a way to the pool and back.
const PIECE: u64 = 256 << 10;

/// Is an answer's body.
pub struct Body {
    source: Source,
    /// Told how many bytes went out.
    count: Option<Arc<std::sync::atomic::AtomicU64>>,
}

enum Source {
    Whole(Option<Bytes>),
    File(FilePart),
    Channel {
        pieces: mpsc::Receiver<io::Result<Bytes>>,
        left: u64,
    },
}

/// Reads a part of a file, one piece ahead of what the client takes; no thread waits for a slow client.
struct FilePart {
    file: Arc<File>,
    at: u64,
    left: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Body {
    /// Makes a body that is there already.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::of(Source::Whole((!bytes.is_empty()).then_some(bytes)))
    }

    /// Makes an empty body.
    pub fn empty() -> Self {
        Self::of(Source::Whole(None))
    }

    /// Makes a body of a part of a file.
    pub fn file(file: File, at: u64, length: u64) -> Self {
        Self::of(Source::File(FilePart {
            file: Arc::new(file),
            at,
            left: length,
            reading: None,
        }))
    }

    /// Makes the body of an answer to HEAD, of which only the length is told.
    pub fn length_only(length: u64) -> Self {
        let (_, pieces) = mpsc::channel(1);
        Self::channel(pieces, length)
    }

    /// Makes a body of `length` bytes that come in pieces; an error cuts the connection.
    pub fn channel(pieces: mpsc::Receiver<io::Result<Bytes>>, length: u64) -> Self {
        Self::of(Source::Channel {
            pieces,
            left: length,
        })
    }

    const fn of(source: Source) -> Self {
        Self {
            source,
            count: None,
        }
    }

    /// Has the bytes that go out counted.
    #[must_use]
    pub fn counted(mut self, count: Arc<std::sync::atomic::AtomicU64>) -> Self {
        self.count = Some(count);
        self
    }

    /// Gives how many bytes are still to come.
    pub fn length(&self) -> u64 {
        match &self.source {
            Source::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Source::File(part) => part.left,
            Source::Channel { left, .. } => *left,
        }
    }
}

impl FilePart {
    fn read_on(&mut self) {
        if self.reading.is_some() || self.left == 0 {
            return;
        }
        let (file, at, length) = (Arc::clone(&self.file), self.at, self.left.min(PIECE));
        self.reading = Some(tokio::task::spawn_blocking(move || {
            read_piece(&file, at, length)
        }));
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.read_on();
        let Some(reading) = &mut self.reading else {
            return Poll::Ready(None);
        };
        let read = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        let piece = match read {
            Ok(Ok(piece)) => piece,
            Ok(Err(error)) => return Poll::Ready(Some(Err(error))),
            Err(error) => return Poll::Ready(Some(Err(io::Error::other(error)))),
        };
        self.at += piece.len() as u64;
        self.left -= (piece.len() as u64).min(self.left);
        self.read_on();
        Poll::Ready(Some(Ok(piece)))
    }
}

/// Reads a part of a file whole.
pub fn read_piece(file: &File, at: u64, length: u64) -> io::Result<Bytes> {
    let mut piece: Vec<u8> = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    while (piece.len() as u64) < length {
        let from = at + piece.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut piece), from) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(piece.into())
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let piece = match &mut this.source {
            Source::Whole(bytes) => bytes.take().map(Ok),
            Source::File(part) => ready!(part.poll(context)),
            Source::Channel { pieces, left } => match ready!(pieces.poll_recv(context)) {
                Some(Ok(piece)) => {
                    *left -= (piece.len() as u64).min(*left);
                    Some(Ok(piece))
                }
                None if *left > 0 => Some(Err(io::ErrorKind::UnexpectedEof.into())),
                other => other,
            },
        };
        if let (Some(Ok(piece)), Some(count)) = (&piece, &this.count) {
            count.fetch_add(piece.len() as u64, std::sync::atomic::Ordering::Relaxed);
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.length() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length())
    }
}
