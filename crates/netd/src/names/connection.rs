//! A container's TCP connection: questions in, answers out, each after its length in two bytes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use gantry_sys::epoll::EventFlags;
use gantry_sys::unix;

/// How long a connection may be silent (that of miekg/dns).
pub const IDLE: Duration = Duration::from_secs(8);
/// How many connections a container may have.
pub const CONNECTIONS_MAX: usize = 64;
/// How many of a connection's questions may wait for other servers.
pub const PENDING_MAX: usize = 32;
/// Answers that the client does not take.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// What became of a read.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    Some,
    /// Nothing more for now.
    None,
    /// The client sends nothing more.
    End,
}

#[derive(Debug)]
pub struct Connection {
    fd: OwnedFd,
    pub container: Rc<str>,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Questions that others were asked.
    pub pending: usize,
    last: Instant,
    has_ended: bool,
}

impl Connection {
    pub fn new(fd: OwnedFd, container: Rc<str>) -> Self {
        Self {
            fd,
            container,
            input: Vec::new(),
            output: Vec::new(),
            pending: 0,
            last: Instant::now(),
            has_ended: false,
        }
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Tells when the connection has been silent for too long.
    pub fn deadline(&self) -> Instant {
        self.last + IDLE
    }

    /// Reads once.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Input> {
        match unix::recv(self.fd.as_fd(), buffer) {
            Ok(0) => {
                self.has_ended = true;
                Ok(Input::End)
            }
            Ok(length) => {
                self.last = Instant::now();
                self.input.extend_from_slice(&buffer[..length]);
                Ok(Input::Some)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Input::None),
            Err(error) => Err(error),
        }
    }

    /// Takes the next whole message.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let length = usize::from(u16::from_be_bytes(*self.input.first_chunk::<2>()?));
        let message = self.input.get(2..2 + length)?.to_vec();
        self.input.drain(..2 + length);
        Some(message)
    }

    /// Queues an answer. False: the client takes none, and the connection is over.
    pub fn push(&mut self, message: &[u8]) -> bool {
        let Ok(length) = u16::try_from(message.len()) else {
            return false;
        };
        self.output.extend_from_slice(&length.to_be_bytes());
        self.output.extend_from_slice(message);
        self.output.len() <= OUTPUT_BYTES_MAX
    }

    /// Writes what the client takes.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match unix::send(self.fd.as_fd(), &self.output) {
                Ok(length) => {
                    self.last = Instant::now();
                    self.output.drain(..length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells what is waited for; `None`: the connection has served its purpose.
    pub fn interest(&self) -> Option<EventFlags> {
        let mut flags = EventFlags::empty();
        if !self.has_ended && self.pending < PENDING_MAX {
            flags |= EventFlags::IN;
        }
        if !self.output.is_empty() {
            flags |= EventFlags::OUT;
        }
        (!flags.is_empty() || self.pending > 0).then_some(flags)
    }
}
