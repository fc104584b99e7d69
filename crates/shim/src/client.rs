//! One attached connection: what waits for it, what it sends, and how it ends.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gantry_sys::epoll::EventFlags;
use gantry_sys::unix;

use crate::detach::Matcher;
use crate::log::Stream;
use crate::log::reader::{Progress, Reader};
use crate::log::writer::Writer;
use crate::protocol::Attach;
use crate::queue::Queue;

/// A client for which this much waits stalls the process's pipe.
pub const LAG_BYTES_MAX: usize = 1 << 20;
/// How much of the log is read at once for a client that catches up.
const REPLAY_BYTES: usize = 256 << 10;

/// How an attachment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The process has ended, or the client's input has.
    Finished,
    Detached,
}

pub struct Client {
    pub id: u64,
    pub task: u64,
    pub fd: OwnedFd,
    /// Forward its input. A client without is read all the same, to notice its end.
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub multiplexed: bool,
    pub keys: Matcher,
    pub out: Queue,
    /// It may still send.
    pub reading: bool,
    /// It is gone; only its input may still be worth something.
    pub gone: bool,
    pub ending: Option<Ending>,
    /// The log that comes before the live output.
    replay: Option<Box<Reader>>,
    /// What epoll waits for at present; `None`: not registered.
    pub registered: Option<EventFlags>,
}

impl Client {
    /// Wraps a handed over connection. `keys` is empty for a task without terminal.
    pub fn new(
        id: u64,
        task: u64,
        fd: OwnedFd,
        attach: &Attach,
        keys: Vec<u8>,
        replay: Option<Reader>,
    ) -> Self {
        Client {
            id,
            task,
            fd,
            stdin: attach.stdin,
            stdout: attach.stdout,
            stderr: attach.stderr,
            multiplexed: attach.multiplexed,
            keys: Matcher::new(keys),
            out: Queue::default(),
            reading: true,
            gone: false,
            ending: None,
            replay: replay.map(Box::new),
            registered: None,
        }
    }

    pub fn borrow(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn wants(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }

    /// Tells whether the client is so far behind that the process must wait.
    pub fn lags(&self, stream: Stream) -> bool {
        self.wants(stream) && self.live() && self.out.len() >= LAG_BYTES_MAX
    }

    /// Tells whether live output goes to this client.
    fn live(&self) -> bool {
        !self.gone && self.ending.is_none() && self.replay.is_none()
    }

    /// Sends live output, or queues what the socket does not take.
    pub fn deliver(&mut self, stream: Stream, bytes: &[u8]) {
        if self.live() && self.wants(stream) {
            self.send(stream, bytes);
        }
    }

    fn send(&mut self, stream: Stream, bytes: &[u8]) {
        let mut header = [0; 8];
        let header: &[u8] = if self.multiplexed {
            header[0] = stream.number();
            header[4..].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
            &header
        } else {
            &[]
        };
        let mut sent = 0;
        if self.out.is_empty() {
            match unix::send_parts(
                self.fd.as_fd(),
                &[IoSlice::new(header), IoSlice::new(bytes)],
            ) {
                Ok(count) => sent = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    self.lost();
                    return;
                }
            }
        }
        if sent < header.len() {
            self.out.push(&header[sent..]);
            sent = header.len();
        }
        if sent < header.len() + bytes.len() {
            self.out.push(&bytes[sent - header.len()..]);
        }
    }

    /// Notes that nothing can be sent any more.
    fn lost(&mut self) {
        self.gone = true;
        self.out.clear();
        self.replay = None;
    }

    /// Sends what waits, the log first.
    pub fn flush(&mut self, log: &Writer) {
        loop {
            while !self.out.is_empty() {
                match unix::send(self.fd.as_fd(), self.out.waiting()) {
                    Ok(count) => self.out.consume(count),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                    Err(_) => return self.lost(),
                }
            }
            let Some(reader) = &mut self.replay else {
                return;
            };
            let mut bytes = Vec::new();
            let progress = reader.read(&mut bytes, REPLAY_BYTES);
            self.out.push(&bytes);
            if !matches!(progress, Ok(Progress::More)) {
                // The log holds whole lines; what is read of the next ones comes from the writer.
                self.replay = None;
                for stream in [Stream::Stdout, Stream::Stderr] {
                    let unfinished = log.unfinished(stream);
                    if self.wants(stream) && !unfinished.is_empty() {
                        self.send(stream, unfinished);
                    }
                }
            }
        }
    }

    /// Tells whether everything is sent.
    pub fn is_flushed(&self) -> bool {
        self.gone || (self.out.is_empty() && self.replay.is_none())
    }

    /// Closes the sending half and takes what the client still sent: on a unix socket unread input would turn the end
    /// of the stream into ECONNRESET.
    pub fn close(self) {
        let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Write);
        let mut buffer = [0; 4096];
        // Bounded: a client that sends on and on is not worth waiting for.
        for _ in 0..64 {
            if !unix::recv(self.fd.as_fd(), &mut buffer).is_ok_and(|count| count > 0) {
                break;
            }
        }
    }
}
