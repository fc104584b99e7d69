//! A carried TCP connection: two sockets, and a pipe where bytes are on their way.
//!
//! Bytes go from socket to pipe to socket by splice(2). What the receiver does not take at once stays in the pipe, at
//! most [`pipe::BYTES_MAX`] per direction, and until it is gone nothing more is read. An idle connection has no pipe. An
//! end of file on one side closes the other side's writing half and nothing else; a reset is passed on as one.
//!
//! What belongs together is in the ledger before anything is done with it. So whoever takes the descriptors of a killed
//! netd over goes on where it was: sockets and pipes hold every byte, an end of file is read again, and a second shutdown
//! is as good as the first. Two things splice(2) cannot do, and then bytes are copied: pass over urgent data, and go on
//! without a descriptor for a pipe. Meanwhile the ledger says so, and a successor resets such a connection.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use gantry_sys::epoll::{Epoll, EventFlags};
use gantry_sys::net::{self, TcpState, Transport};
use rustix::net::{SendFlags, Shutdown, sockopt};

use crate::ledger::{self, COPIES, FAILED, Ledger, SHUT, Slot};
use crate::pipe::{Pipe, Pool};
use crate::slab::Key;

/// How often one connection reads before others get their turn.
const ROUNDS_MAX: usize = 16;

/// So many netds in a row may die at the first thing that they do for a connection. Then it is taken for the cause and
/// is reset. More than one, because a kill from elsewhere may meet that moment as well.
const TRIES_MAX: u64 = 4;

/// What all connections share.
#[derive(Debug)]
pub struct Carrier {
    pub ledger: Ledger,
    pool: Pool,
}

impl Carrier {
    /// Makes room for so many connections.
    pub fn new(connections_max: usize) -> io::Result<Self> {
        Ok(Self {
            ledger: Ledger::new(connections_max)?,
            pool: Pool::default(),
        })
    }
}

#[derive(Debug)]
struct End {
    fd: OwnedFd,
    /// Bytes for this end that it has not taken yet.
    pipe: Option<Pipe>,
    /// The same, where they had to be copied.
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
            pipe: None,
            pending: Vec::new(),
            eof: false,
            shut: false,
            interest: None,
        }
    }

    /// Something waits until this end takes it.
    fn is_blocked(&self) -> bool {
        !self.pending.is_empty() || self.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty())
    }
}

/// A client's connection and the one to the container.
#[derive(Debug)]
pub struct Pair {
    /// The port it came in by.
    pub port: Key,
    slot: Slot,
    ends: [End; 2],
    connecting: bool,
    /// How many netds in a row have died at it, and whether this one has done something for it and lives.
    tries: u64,
    is_proved: bool,
}

/// What was found of a connection that a predecessor carried.
#[derive(Debug)]
pub struct Found {
    pub client: OwnedFd,
    pub server: OwnedFd,
    /// Bytes for the client and for the server.
    pub pipes: [Option<Pipe>; 2],
    pub entry: ledger::Entry,
}

impl Found {
    /// Resets both sides as soon as nobody holds them any more.
    pub fn abort(self) {
        for fd in [&self.client, &self.server] {
            let _ = net::set_abort_on_close(fd.as_fd());
        }
    }
}

/// What becomes of a connection after a step.
#[derive(Debug, PartialEq, Eq)]
pub enum After {
    Goes,
    Ends,
}

impl Pair {
    /// Starts the connection to the container; where that fails the client is reset.
    pub fn start(
        carrier: &mut Carrier,
        port: Key,
        client: OwnedFd,
        target: SocketAddr,
    ) -> io::Result<Self> {
        let (server, slot) = match Self::prepare(carrier, &client, target) {
            Ok(prepared) => prepared,
            Err(error) => {
                let _ = net::set_abort_on_close(client.as_fd());
                return Err(error);
            }
        };
        let pair = Self {
            port,
            slot,
            ends: [End::new(client), End::new(server)],
            connecting: true,
            tries: 0,
            is_proved: false,
        };
        if let Err(error) = net::connect(pair.ends[1].fd.as_fd(), target) {
            pair.abort(carrier);
            pair.erase(carrier);
            return Err(error);
        }
        Ok(pair)
    }

    /// Makes the socket towards the container, and writes both down.
    fn prepare(
        carrier: &mut Carrier,
        client: &OwnedFd,
        target: SocketAddr,
    ) -> io::Result<(OwnedFd, Slot)> {
        let server = net::socket(target.ip(), Transport::Tcp, false)?;
        for fd in [client, &server] {
            sockopt::set_tcp_nodelay(fd, true)?;
            sockopt::set_socket_keepalive(fd, true)?;
        }
        let slot = carrier
            .ledger
            .record(client.as_fd(), server.as_fd(), target)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        Ok((server, slot))
    }

    /// Enters a connection that a predecessor carried into the ledger. Nothing happens to it before [`Pair::resume`].
    pub fn adopt(carrier: &mut Carrier, port: Key, found: Found) -> io::Result<Self> {
        let Found {
            client,
            server,
            pipes,
            entry,
        } = found;
        let ledger = &mut carrier.ledger;
        let slot = ledger
            .record(client.as_fd(), server.as_fd(), entry.target)
            .ok_or_else(|| {
                for fd in [&client, &server] {
                    let _ = net::set_abort_on_close(fd.as_fd());
                }
                io::ErrorKind::OutOfMemory
            })?;
        ledger.set_flag(slot, entry.flags, true);
        ledger.set_tries(slot, entry.tries);
        let mut ends = [End::new(client), End::new(server)];
        for (side, pipe) in pipes.into_iter().enumerate() {
            let Some(pipe) = pipe.filter(|pipe| !pipe.is_empty()) else {
                continue;
            };
            ledger.set_pipe(slot, side, Some(pipe.ends()));
            ends[side].pipe = Some(pipe);
        }
        Ok(Self {
            port,
            slot,
            ends,
            connecting: true,
            tries: entry.tries,
            is_proved: false,
        })
    }

    /// Goes on with an adopted connection where its predecessor was, whatever it was about to do.
    pub fn resume(
        &mut self,
        carrier: &Carrier,
        epoll: &Epoll,
        key: Key,
        entry: &ledger::Entry,
    ) -> After {
        self.try_once(carrier);
        match self.try_resume(epoll, key, entry) {
            Ok(()) => {
                // Nothing is carried yet.
                carrier.ledger.set_tries(self.slot, self.tries);
                After::Goes
            }
            Err(_) => {
                self.abort(carrier);
                After::Ends
            }
        }
    }

    fn try_resume(&mut self, epoll: &Epoll, key: Key, entry: &ledger::Entry) -> io::Result<()> {
        if entry.flags & (FAILED | COPIES) != 0 || entry.tries >= TRIES_MAX {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let is_shut = |side: usize| entry.flags & (SHUT << side) != 0;
        let [client, server] = &self.ends;
        // A predecessor may have taken the error of a reset and not have come to write it down. What is closed and was not
        // shut is such a one.
        if net::tcp_state(client.fd.as_fd())? == TcpState::Closed && !is_shut(0) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        match net::tcp_state(server.fd.as_fd())? {
            TcpState::Connecting => {}
            TcpState::Connected => self.connecting = false,
            TcpState::Closed if is_shut(1) => self.connecting = false,
            // Not begun, or it has failed, which this says as well.
            TcpState::Closed => net::connect(server.fd.as_fd(), entry.target)?,
        }
        self.update_interest(epoll, key)
    }

    /// Notes that netd may be about to die at this connection, until it is [proved](Self::prove) that it has not.
    fn try_once(&self, carrier: &Carrier) {
        if !self.is_proved {
            carrier.ledger.set_tries(self.slot, self.tries + 1);
        }
    }

    /// Notes that something was done for this connection and netd lives.
    fn prove(&mut self, carrier: &Carrier) {
        if !self.is_proved {
            self.is_proved = true;
            self.tries = 0;
            carrier.ledger.set_tries(self.slot, 0);
        }
    }

    /// Works on what an event of one side made possible.
    pub fn step(
        &mut self,
        carrier: &mut Carrier,
        epoll: &Epoll,
        key: Key,
        side: u8,
        flags: EventFlags,
        buffer: &mut [u8],
    ) -> After {
        self.try_once(carrier);
        match self.try_step(carrier, epoll, key, side, flags, buffer) {
            Ok(after) => {
                self.prove(carrier);
                after
            }
            Err(_) => {
                self.abort(carrier);
                After::Ends
            }
        }
    }

    fn try_step(
        &mut self,
        carrier: &mut Carrier,
        epoll: &Epoll,
        key: Key,
        side: u8,
        flags: EventFlags,
        buffer: &mut [u8],
    ) -> io::Result<After> {
        let has_failed = flags.contains(EventFlags::ERR);
        if has_failed {
            // The error is there once: it is written down before it is taken.
            carrier.ledger.set_flag(self.slot, FAILED, true);
        }
        if flags.intersects(EventFlags::ERR | EventFlags::HUP)
            && let Some(error) = net::take_error(self.ends[usize::from(side)].fd.as_fd())?
        {
            return Err(error);
        }
        if has_failed {
            carrier.ledger.set_flag(self.slot, FAILED, false);
        }
        let was_connecting = self.connecting;
        if self.connecting {
            if side == 1 && flags.intersects(EventFlags::OUT | EventFlags::HUP) {
                self.connecting = false;
            } else {
                self.update_interest(epoll, key)?;
                return Ok(After::Goes);
            }
        }
        for from in [0, 1] {
            let is_readable = side == from && flags.intersects(EventFlags::IN | EventFlags::HUP);
            let is_writable = side != from && flags.intersects(EventFlags::OUT | EventFlags::HUP);
            if is_readable || is_writable || was_connecting {
                self.carry(carrier, usize::from(from), is_readable, buffer)?;
            }
        }
        if self.ends.iter().all(|end| end.eof && end.shut) {
            return Ok(After::Ends);
        }
        self.update_interest(epoll, key)?;
        Ok(After::Goes)
    }

    /// Carries bytes in one direction as far as it goes, or until others get their turn: level-triggered epoll comes back
    /// by itself where there is more. `is_readable`: epoll has said that there is something.
    fn carry(
        &mut self,
        carrier: &mut Carrier,
        from: usize,
        is_readable: bool,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        let to = 1 - from;
        let mut rounds = 0;
        while self.flush(carrier, to)? {
            let [first, second] = &mut self.ends;
            let (source, sink) = if from == 0 {
                (first, second)
            } else {
                (second, first)
            };
            if source.eof {
                if !sink.shut {
                    sink.shut = true;
                    // Before it is done: afterwards a closed socket is no sign of a reset any more.
                    carrier.ledger.set_flag(self.slot, SHUT << to, true);
                    match rustix::net::shutdown(&sink.fd, Shutdown::Write) {
                        // The other side is gone already.
                        Err(rustix::io::Errno::NOTCONN) => {}
                        answer => answer?,
                    }
                }
                break;
            }
            // Only here, where epoll still waits for the source: whoever stopped between an end of file and passing it
            // on would never be woken again.
            if rounds == ROUNDS_MAX {
                break;
            }
            rounds += 1;
            if sink.pipe.is_none()
                && let Ok(pipe) = carrier.pool.take()
            {
                carrier.ledger.set_pipe(self.slot, to, Some(pipe.ends()));
                sink.pipe = Some(pipe);
            }
            let filled = match &mut sink.pipe {
                Some(pipe) => pipe.fill(source.fd.as_fd()),
                None => Err(rustix::io::Errno::WOULDBLOCK),
            };
            let is_copied = match filled {
                // Once the end has come as well, urgent data looks like it: bytes may follow.
                Ok(0) if net::is_at_mark(source.fd.as_fd())? => true,
                Ok(0) => {
                    source.eof = true;
                    continue;
                }
                Ok(_) => {
                    self.prove(carrier);
                    continue;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let is_contradiction = is_readable && rounds == 1;
                    sink.pipe.is_none() || (is_contradiction && net::is_at_mark(source.fd.as_fd())?)
                }
                Err(error) => return Err(error.into()),
            };
            if !is_copied || !self.copy(carrier, from, buffer)? {
                break;
            }
        }
        self.give_pipe_back(carrier, to);
        Ok(())
    }

    /// Gives one end what waits for it; true if all is gone.
    fn flush(&mut self, carrier: &Carrier, to: usize) -> io::Result<bool> {
        let sink = &mut self.ends[to];
        if let Some(pipe) = &mut sink.pipe {
            match pipe.drain(sink.fd.as_fd()) {
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
                drained => drained?,
            }
        }
        if sink.pending.capacity() == 0 {
            return Ok(true);
        }
        while !sink.pending.is_empty() {
            match rustix::net::send(&sink.fd, &sink.pending, SendFlags::NOSIGNAL) {
                Ok(sent) => drop(sink.pending.drain(..sent)),
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        sink.pending = Vec::new();
        if self.ends.iter().all(|end| end.pending.is_empty()) {
            carrier.ledger.set_flag(self.slot, COPIES, false);
        }
        Ok(true)
    }

    /// Copies once what splice(2) does not carry, after which [`Pair::flush`] passes it on; false: there is nothing.
    fn copy(&mut self, carrier: &Carrier, from: usize, buffer: &mut [u8]) -> io::Result<bool> {
        carrier.ledger.set_flag(self.slot, COPIES, true);
        let length =
            rustix::io::retry_on_intr(|| rustix::io::read(&self.ends[from].fd, &mut *buffer));
        match length {
            Ok(0) => self.ends[from].eof = true,
            Ok(length) => {
                let pending = &mut self.ends[1 - from].pending;
                pending.extend_from_slice(&buffer[..length]);
                return Ok(true);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(error.into()),
        }
        if self.ends.iter().all(|end| end.pending.is_empty()) {
            carrier.ledger.set_flag(self.slot, COPIES, false);
        }
        Ok(self.ends[from].eof)
    }

    fn give_pipe_back(&mut self, carrier: &mut Carrier, to: usize) {
        if let Some(pipe) = self.ends[to].pipe.take_if(|pipe| pipe.is_empty()) {
            carrier.ledger.set_pipe(self.slot, to, None);
            carrier.pool.give_back(pipe);
        }
    }

    /// Tells epoll what each side waits for; a side that waits for nothing is taken out, or its hang-up would be
    /// reported without end.
    pub fn update_interest(&mut self, epoll: &Epoll, key: Key) -> io::Result<()> {
        for side in [0, 1] {
            let blocked = self.ends[1 - side].is_blocked();
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
                if end.is_blocked() {
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

    /// Resets both connections: one side failed, and the other must not take it for an end of file.
    pub fn abort(&self, carrier: &Carrier) {
        carrier.ledger.set_flag(self.slot, FAILED, true);
        for end in &self.ends {
            // If it fails, closing sends an end of file after all.
            let _ = net::set_abort_on_close(end.fd.as_fd());
            // At once: a predecessor's keeper may be slow to end, and closing one of two descriptors sends nothing.
            let _ = rustix::net::connect_unspec(&end.fd);
        }
    }

    /// Closes both sockets and forgets them.
    pub fn close(mut self, carrier: &mut Carrier, epoll: &Epoll) {
        for end in &mut self.ends {
            // Closing alone does not end the watch while somebody else has the socket, as a keeper that is slow to end.
            if end.interest.take().is_some() {
                let _ = epoll.delete(end.fd.as_fd());
            }
        }
        self.erase(carrier);
    }

    /// Closes sockets that nobody watches, and then forgets them: what is open and not in the ledger would be taken for
    /// new.
    fn erase(self, carrier: &mut Carrier) {
        let [first, second] = self.ends;
        drop((first.fd, second.fd));
        carrier.ledger.erase(self.slot);
        for pipe in [first.pipe, second.pipe].into_iter().flatten() {
            carrier.pool.give_back(pipe);
        }
    }
}
