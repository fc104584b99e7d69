//! Streams between threads: shared pieces through a bounded queue.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Is the size of a piece.
pub(crate) const PIECE_BYTES: usize = 256 << 10;
/// Is how many pieces wait in one queue: 4 MiB.
const PIECES_MAX: usize = 16;

/// Is what travels: shared, because the one who hashes and the one who unpacks read the same bytes.
pub(crate) type Piece = Arc<Vec<u8>>;

enum Message {
    Piece(Piece),
    End,
    Failed(io::ErrorKind, String),
}

/// Writes to a queue.
pub(crate) struct Sender(SyncSender<Message>);

/// Reads from a queue. A sender that goes without a word is an error, not the end.
pub(crate) struct PipeReader {
    receiver: Receiver<Message>,
    current: Piece,
    position: usize,
    ended: bool,
}

/// Makes a queue.
pub(crate) fn pipe() -> (Sender, PipeReader) {
    let (sender, receiver) = sync_channel(PIECES_MAX);
    (
        Sender(sender),
        PipeReader {
            receiver,
            current: Arc::default(),
            position: 0,
            ended: false,
        },
    )
}

impl Sender {
    /// Sends a piece; tells whether anybody still reads.
    pub fn send(&self, piece: &Piece) -> bool {
        self.0.send(Message::Piece(Arc::clone(piece))).is_ok()
    }

    /// Ends the stream.
    pub fn end(self) {
        let _ = self.0.send(Message::End);
    }

    /// Ends the stream with an error.
    pub fn fail(self, error: &io::Error) {
        let _ = self
            .0
            .send(Message::Failed(error.kind(), error.to_string()));
    }
}

impl PipeReader {
    /// Takes the next piece whole; `None` is the end.
    pub fn piece(&mut self) -> io::Result<Option<Piece>> {
        if self.ended {
            return Ok(None);
        }
        match self.receiver.recv() {
            Ok(Message::Piece(piece)) => Ok(Some(piece)),
            Ok(Message::End) => {
                self.ended = true;
                Ok(None)
            }
            Ok(Message::Failed(kind, text)) => Err(io::Error::new(kind, text)),
            Err(_) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    }
}

impl BufRead for PipeReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.position == self.current.len() {
            match self.piece()? {
                Some(piece) => {
                    self.current = piece;
                    self.position = 0;
                }
                None => return Ok(&[]),
            }
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, length: usize) {
        self.position += length;
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}
