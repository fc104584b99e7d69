//! A carried TCP connection: two sockets and what could not be written yet.
//!
//! Bytes are copied through one buffer that all connections share; only what the other side does not take at once is
//! kept, at most [`PENDING_BYTES_MAX`] per direction, and until it is gone nothing more is read. An end of file on one
//! side closes the other side's writing half and nothing else; a reset is passed on as one.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use gantry_sys::epoll::{Epoll, EventFlags};
use gantry_sys::net::{self, Transport};
use rustix::net::{SendFlags, Shutdown, sockopt};

use crate::slab::Key;

/// The shared buffer's size: what one read takes at most.
pub const PENDING_BYTES_MAX: usize = 64 * 1024;
/// How often one connection reads before others get their turn.
const ROUNDS_MAX: usize = 16;

#[derive(Debug)]
struct End {
    fd: OwnedFd,
    /// Bytes for this end that it has not taken yet.
    pending: Vec<u8>,
    /// Nothing more comes from this end.
    eof: bool,
    /// Nothing more goes to this end.
    shut: bool,
    interest: Option<EventFlags>,
}

impl End {
    fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            pending: Vec::new(),
            eof: false,
            shut: false,
            interest: None,
        }
    }
}

/// A client's connection and the one to the container.
#[derive(Debug)]
pub struct Pair {
    /// The port it came in by.
    pub port: Key,
    ends: [End; 2],
    connecting: bool,
}

/// What becomes of a connection after a step.
#[derive(Debug, PartialEq, Eq)]
pub enum After {
    Goes,
    Ends,
}

enum Flow {
    /// This direction waits for something.
    Waits,
    /// The rounds are used up; epoll reports again at once.
    More,
}

impl Pair {
    /// Starts the connection to the container.
    pub fn start(port: Key, client: OwnedFd, target: SocketAddr) -> io::Result<Self> {
        let server = net::socket(target.ip(), Transport::Tcp, false)?;
        for fd in [&client, &server] {
            sockopt::set_tcp_nodelay(fd, true)?;
            sockopt::set_socket_keepalive(fd, true)?;
        }
        net::connect(server.as_fd(), target)?;
        Ok(Self {
            port,
            ends: [End::new(client), End::new(server)],
            connecting: true,
        })
    }

    /// Works on what an event of one side made possible.
    pub fn step(
        &mut self,
        epoll: &Epoll,
        key: Key,
        side: u8,
        flags: EventFlags,
        buffer: &mut [u8],
    ) -> After {
        match self.try_step(epoll, key, side, flags, buffer) {
            Ok(after) => after,
            Err(_) => {
                self.abort();
                After::Ends
            }
        }
    }

    fn try_step(
        &mut self,
        epoll: &Epoll,
        key: Key,
        side: u8,
        flags: EventFlags,
        buffer: &mut [u8],
    ) -> io::Result<After> {
        if flags.intersects(EventFlags::ERR | EventFlags::HUP)
            && let Some(error) = net::take_error(self.ends[usize::from(side)].fd.as_fd())?
        {
            return Err(error);
        }
        if self.connecting {
            if side == 1 && flags.intersects(EventFlags::OUT | EventFlags::HUP) {
                self.connecting = false;
            } else {
                self.update_interest(epoll, key)?;
                return Ok(After::Goes);
            }
        }
        for from in [0, 1] {
            // Level-triggered epoll comes back by itself where there is more.
            let (Flow::Waits | Flow::More) = self.carry(from, buffer)?;
        }
        if self.ends.iter().all(|end| end.eof && end.shut) {
            return Ok(After::Ends);
        }
        self.update_interest(epoll, key)?;
        Ok(After::Goes)
    }

    /// Carries bytes in one direction as far as it goes.
    fn carry(&mut self, from: usize, buffer: &mut [u8]) -> io::Result<Flow> {
        let [first, second] = &mut self.ends;
        let (source, sink) = if from == 0 {
            (first, second)
        } else {
            (second, first)
        };
        let mut rounds = 0;
        loop {
            while !sink.pending.is_empty() {
                match rustix::net::send(&sink.fd, &sink.pending, SendFlags::NOSIGNAL) {
                    Ok(sent) => drop(sink.pending.drain(..sent)),
                    Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Flow::Waits),
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if sink.pending.capacity() > 0 {
                sink.pending = Vec::new();
            }
            if source.eof {
                if !sink.shut {
                    sink.shut = true;
                    match rustix::net::shutdown(&sink.fd, Shutdown::Write) {
                        // The other side is gone already.
                        Err(rustix::io::Errno::NOTCONN) => {}
                        answer => answer?,
                    }
                }
                return Ok(Flow::Waits);
            }
            // Only here, where epoll still waits for the source: whoever stopped between an end of file and passing it
            // on would never be woken again.
            if rounds == ROUNDS_MAX {
                return Ok(Flow::More);
            }
            rounds += 1;
            let length = match rustix::io::read(&source.fd, &mut *buffer) {
                Ok(0) => {
                    source.eof = true;
                    continue;
                }
                Ok(length) => length,
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Flow::Waits),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let mut sent = 0;
            while sent < length {
                match rustix::net::send(&sink.fd, &buffer[sent..length], SendFlags::NOSIGNAL) {
                    Ok(more) => sent += more,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(rustix::io::Errno::WOULDBLOCK) => {
                        sink.pending.extend_from_slice(&buffer[sent..length]);
                        return Ok(Flow::Waits);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    /// Tells epoll what each side waits for; a side that waits for nothing is taken out, or its hang-up would be
    /// reported without end.
    pub fn update_interest(&mut self, epoll: &Epoll, key: Key) -> io::Result<()> {
        for side in [0, 1] {
            let blocked = !self.ends[1 - side].pending.is_empty();
            let end = &mut self.ends[side];
            let mut wanted = EventFlags::empty();
            if self.connecting {
                // The client's bytes wait in its socket; its reset is seen by the error that epoll always reports.
                wanted |= if side == 1 {
                    EventFlags::OUT
                } else {
                    EventFlags::ERR
                };
            } else {
                if !end.eof && !blocked {
                    wanted |= EventFlags::IN;
                }
                if !end.pending.is_empty() {
                    wanted |= EventFlags::OUT;
                }
            }
            let wanted = (!wanted.is_empty()).then_some(wanted);
            if wanted == end.interest {
                continue;
            }
            let token = key.token(side as u8);
            match (end.interest, wanted) {
                (None, Some(flags)) => epoll.add(end.fd.as_fd(), token, flags)?,
                (Some(_), Some(flags)) => epoll.modify(end.fd.as_fd(), token, flags)?,
                (Some(_), None) => epoll.delete(end.fd.as_fd())?,
                (None, None) => {}
            }
            end.interest = wanted;
        }
        Ok(())
    }

    /// Makes closing reset both connections: one side failed, and the other must not take it for an end of file.
    pub fn abort(&self) {
        for end in &self.ends {
            // If it fails, closing sends an end of file after all.
            let _ = net::set_abort_on_close(end.fd.as_fd());
        }
    }
}
