//! A question that others are asked: one server after the other, each by a socket of its own with a port and a number
//! that nobody can foretell.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use gantry_sys::epoll::EventFlags;
use gantry_sys::net::{self, Transport};
use gantry_sys::unix;

use super::message::{self, Query, Verdict};
use super::random::Random;
use crate::slab::Key;

/// How long a server may take (Docker's figure).
pub const SERVER_TIME: Duration = Duration::from_secs(4);
/// How many questions of one container may wait for servers (Docker's figure).
pub const PENDING_PER_CONTAINER_MAX: usize = 1024;
/// How many in all.
pub const PENDING_MAX: usize = 4096;
/// How many a container may have in any case: once half of all are taken, nobody gets more.
pub const PENDING_SHARE: usize = 128;

/// Who asked.
#[derive(Debug, Clone, Copy)]
pub enum Client {
    Udp { socket: Key, address: SocketAddr },
    Tcp { connection: Key },
}

/// Where sockets to servers are made.
#[derive(Debug, Clone)]
pub enum Place {
    Host,
    /// The container's network namespace.
    Container(Rc<OwnedFd>),
}

#[derive(Debug)]
enum Stage {
    Udp,
    /// So much of the question is sent, with its length before it.
    Sending(usize),
    Receiving(Vec<u8>),
}

/// What to do after an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Wait,
    /// Wait for the socket to be readable, and no longer writable.
    Listen,
    /// The answer is in the buffer, so long.
    Answered(usize),
    /// The next server's turn.
    Failed,
}

#[derive(Debug)]
pub struct Pending {
    pub client: Client,
    pub container: Rc<str>,
    /// The client's message.
    pub message: Vec<u8>,
    pub place: Place,
    pub deadline: Instant,
    servers: Rc<[SocketAddr]>,
    next: usize,
    id: u16,
    /// What is sent: the message with our number, for TCP after its length.
    sent: Vec<u8>,
    fd: Option<OwnedFd>,
    stage: Stage,
}

impl Pending {
    pub fn new(
        client: Client,
        container: Rc<str>,
        message: Vec<u8>,
        servers: Rc<[SocketAddr]>,
        place: Place,
    ) -> Self {
        Self {
            client,
            container,
            message,
            place,
            deadline: Instant::now(),
            servers,
            next: 0,
            id: 0,
            sent: Vec::new(),
            fd: None,
            stage: Stage::Udp,
        }
    }

    /// Begins with the next server; `None`: all have failed. To be called where the socket is to be made.
    pub fn ask_next(&mut self, random: &mut Random) -> Option<EventFlags> {
        self.fd = None;
        while let Some(&server) = self.servers.get(self.next) {
            self.next += 1;
            if let Ok(flags) = self.ask(server, random) {
                self.deadline = Instant::now() + SERVER_TIME;
                return Some(flags);
            }
        }
        None
    }

    fn ask(&mut self, server: SocketAddr, random: &mut Random) -> io::Result<EventFlags> {
        self.id = random.u16();
        self.sent.clear();
        let is_tcp = matches!(self.client, Client::Tcp { .. });
        if is_tcp {
            let length = (self.message.len() as u16).to_be_bytes();
            self.sent.extend_from_slice(&length);
        }
        self.sent.extend_from_slice(&self.id.to_be_bytes());
        self.sent.extend_from_slice(&self.message[2..]);
        let transport = if is_tcp {
            Transport::Tcp
        } else {
            Transport::Udp
        };
        let fd = net::socket(server.ip(), transport, false)?;
        // Connected: the kernel picks a random port and takes answers from this server alone.
        net::connect(fd.as_fd(), server)?;
        let flags = if is_tcp {
            self.stage = Stage::Sending(0);
            EventFlags::OUT
        } else {
            unix::send(fd.as_fd(), &self.sent)?;
            self.stage = Stage::Udp;
            EventFlags::IN
        };
        self.fd = Some(fd);
        Ok(flags)
    }

    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Goes on after an event.
    pub fn step(&mut self, query: &Query<'_>, buffer: &mut [u8]) -> Step {
        match self.try_step(query, buffer) {
            Ok(step) => step,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Step::Wait,
            Err(_) => Step::Failed,
        }
    }

    fn try_step(&mut self, query: &Query<'_>, buffer: &mut [u8]) -> io::Result<Step> {
        let Some(fd) = &self.fd else {
            return Ok(Step::Failed);
        };
        match &mut self.stage {
            // All that has arrived is read: a forged answer must not keep the right one waiting.
            Stage::Udp => loop {
                let length = unix::recv(fd.as_fd(), buffer)?;
                match message::judge(&buffer[..length], self.id, query.question()) {
                    Verdict::NotOurs => {}
                    Verdict::Answer => return Ok(Step::Answered(length)),
                    Verdict::Failed => return Ok(Step::Failed),
                }
            },
            Stage::Sending(sent) => {
                if let Some(error) = net::take_error(fd.as_fd())? {
                    return Err(error);
                }
                *sent += unix::send(fd.as_fd(), &self.sent[*sent..])?;
                if *sent < self.sent.len() {
                    return Ok(Step::Wait);
                }
                self.stage = Stage::Receiving(Vec::new());
                Ok(Step::Listen)
            }
            Stage::Receiving(received) => loop {
                let length = unix::recv(fd.as_fd(), buffer)?;
                if length == 0 {
                    return Ok(Step::Failed);
                }
                received.extend_from_slice(&buffer[..length]);
                let Some(head) = received.first_chunk::<2>() else {
                    continue;
                };
                let length = usize::from(u16::from_be_bytes(*head));
                let Some(answer) = received.get(2..2 + length) else {
                    continue;
                };
                // A stream has one answer to one question: what is not ours here is a broken server's.
                if message::judge(answer, self.id, query.question()) != Verdict::Answer {
                    return Ok(Step::Failed);
                }
                buffer[..length].copy_from_slice(answer);
                return Ok(Step::Answered(length));
            },
        }
    }
}
