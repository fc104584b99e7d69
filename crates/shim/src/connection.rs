//! The daemons' connections: frames in, frames out, and who may speak.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use gantry_sys::epoll::EventFlags;
use gantry_sys::unix;
use rustix::net::SocketFlags;

use crate::protocol::{Decoder, Event, FromShim, Incoming, Outbox, Reply, Request, VERSION};
use crate::supervisor::{Kind, Phase, Supervisor};

/// A daemon for which this much waits does not read: its connection is cut.
const OUTBOX_BYTES_MAX: usize = 1 << 20;
/// Connections that may exist at once.
const CONNECTIONS_MAX: usize = 16;

pub struct Connection {
    pub id: u64,
    fd: OwnedFd,
    decoder: Decoder,
    outbox: Outbox,
    broken: bool,
    /// It has said hello: it gets events, and its end is a daemon's end.
    pub greeted: bool,
    registered: Option<EventFlags>,
}

impl Connection {
    /// Queues a frame.
    pub fn push(&mut self, id: u64, message: &FromShim, fds: Vec<OwnedFd>) {
        if self.outbox.push(id, message, fds).is_err() || self.outbox.bytes() > OUTBOX_BYTES_MAX {
            self.broken = true;
        }
    }

    pub fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Gives memory back.
    pub fn rest(&mut self) {
        if self.outbox.is_empty() {
            self.outbox = Outbox::default();
        }
    }
}

impl Supervisor {
    pub fn add_connection(&mut self, fd: OwnedFd) -> io::Result<()> {
        let id = self.id();
        self.epoll
            .add(fd.as_fd(), Kind::Connection.token(id), EventFlags::IN)?;
        self.connections.push(Connection {
            id,
            fd,
            decoder: Decoder::default(),
            outbox: Outbox::default(),
            broken: false,
            greeted: false,
            registered: Some(EventFlags::IN),
        });
        Ok(())
    }

    /// Takes a daemon that connects to the listener; only our own user may.
    pub fn accept(&mut self) {
        loop {
            let Some(listener) = &self.listener else {
                return;
            };
            let Ok(fd) =
                rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
            else {
                return;
            };
            let own = rustix::process::geteuid().as_raw();
            if unix::peer_uid(fd.as_fd()).is_ok_and(|uid| uid == own)
                && self.connections.len() < CONNECTIONS_MAX
            {
                let _ = self.add_connection(fd);
            }
        }
    }

    pub fn connection_event(&mut self, id: u64, flags: EventFlags) {
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.read_connection(id);
        }
    }

    fn read_connection(&mut self, id: u64) {
        let mut buffer = [0; 8 << 10];
        loop {
            let Some(connection) = self
                .connections
                .iter_mut()
                .find(|connection| connection.id == id)
            else {
                return;
            };
            if connection.broken {
                return;
            }
            let mut fds = Vec::new();
            match unix::recv_with_fds(connection.fd.as_fd(), &mut buffer, &mut fds) {
                Ok(count) if count > 0 => connection.decoder.push(&buffer[..count], fds),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => {
                    connection.broken = true;
                    return;
                }
            }
            self.read_frames(id);
        }
    }

    fn read_frames(&mut self, id: u64) {
        loop {
            let Some(connection) = self
                .connections
                .iter_mut()
                .find(|connection| connection.id == id)
            else {
                return;
            };
            let (request_id, reply, fds) = match connection.decoder.next::<Request>() {
                Ok(None) => return,
                Err(_) => {
                    connection.broken = true;
                    return;
                }
                Ok(Some(Incoming::Unknown { id, .. })) => (id, Reply::Unknown, Vec::new()),
                Ok(Some(Incoming::Invalid { id, verb, message })) => (
                    id,
                    Reply::Error {
                        message: format!("request `{verb}`: {message}"),
                    },
                    Vec::new(),
                ),
                Ok(Some(Incoming::Frame {
                    id: request_id,
                    body,
                    fds,
                })) => {
                    if matches!(body, Request::Hello { .. }) {
                        self.hello(id, request_id);
                        continue;
                    }
                    let (reply, reply_fds) = self.request(body, fds);
                    (request_id, reply, reply_fds)
                }
            };
            if let Some(connection) = self
                .connections
                .iter_mut()
                .find(|connection| connection.id == id)
            {
                connection.push(request_id, &FromShim::Reply(reply), fds);
            }
        }
    }

    /// The newest daemon wins: the others are cut off. An end that it may have missed is told again.
    fn hello(&mut self, id: u64, request_id: u64) {
        let features = crate::protocol::FEATURES
            .iter()
            .map(|&feature| feature.to_owned())
            .collect();
        let ended = match &self.phase {
            Phase::Ended(Some(record)) => Some(record.clone()),
            _ => None,
        };
        // What an earlier daemon has left is unknown to this one.
        let left = self.waits.drain(..).map(|(fd, _)| fd);
        self.orphans.extend(left);
        for connection in &mut self.connections {
            if connection.id != id {
                connection.broken = true;
                continue;
            }
            connection.greeted = true;
            connection.push(
                request_id,
                &FromShim::Reply(Reply::Hello {
                    version: VERSION,
                    features: Vec::clone(&features),
                }),
                Vec::new(),
            );
            if let Some(record) = &ended {
                connection.push(
                    0,
                    &FromShim::Event(Event::Exited(record.clone())),
                    Vec::new(),
                );
            }
        }
    }

    /// Sends what waits and drops connections that are broken.
    pub fn flush_connections(&mut self) {
        for connection in &mut self.connections {
            if !connection.broken && !connection.outbox.is_empty() {
                match connection.outbox.flush(connection.fd.as_fd()) {
                    Ok(_) => {}
                    Err(_) => connection.broken = true,
                }
            }
            let wanted = if connection.outbox.is_empty() {
                EventFlags::IN
            } else {
                EventFlags::IN | EventFlags::OUT
            };
            let wanted = (!connection.broken).then_some(wanted);
            Self::watch(
                &self.epoll,
                connection.fd.as_fd(),
                Kind::Connection.token(connection.id),
                &mut connection.registered,
                wanted,
            );
        }
        self.connections.retain(|connection| !connection.broken);
    }
}
