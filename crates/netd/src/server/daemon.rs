//! The daemons' connections: requests in, answers out.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use gantry_sys::epoll::EventFlags;
use gantry_sys::unix;

use super::{Server, Thing};
use crate::guard::{self, Guard};
use crate::protocol::{self, Envelope, FEATURES, Reply, Request, Status};
use crate::slab::Key;

/// How many daemons may be connected; more than one only while one takes over from another.
const CONNECTIONS_MAX: usize = 16;
/// How many descriptors of a daemon may wait for the rest of their frames.
const FDS_MAX: usize = 256;

/// A daemon's connection.
#[derive(Debug)]
pub(super) struct Daemon {
    stream: UnixStream,
    input: Vec<u8>,
    /// Descriptors that came with the input and whose frame is not complete.
    fds: VecDeque<OwnedFd>,
    output: Vec<u8>,
}

impl Server {
    pub(super) fn accept_daemon(&mut self, listener: &UnixListener) {
        while let Ok((stream, _)) = listener.accept() {
            if self.daemons >= CONNECTIONS_MAX || stream.set_nonblocking(true).is_err() {
                continue;
            }
            let key = self.slab.reserve();
            if self
                .epoll
                .add(stream.as_fd(), key.token(0), EventFlags::IN)
                .is_err()
            {
                self.slab.remove(key);
                continue;
            }
            self.daemons += 1;
            let daemon = Daemon {
                stream,
                input: Vec::new(),
                fds: VecDeque::new(),
                output: Vec::new(),
            };
            self.slab.put(key, Thing::Daemon(daemon));
        }
    }

    /// Reads requests and writes answers; false ends the connection.
    pub(super) fn serve(&mut self, key: Key, daemon: &mut Daemon, flags: EventFlags) -> bool {
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            loop {
                let mut fds = Vec::new();
                let stream = daemon.stream.as_fd();
                match unix::recv_with_fds(stream, &mut self.buffer, &mut fds) {
                    Ok(0) => return false,
                    Ok(length) => {
                        daemon.fds.extend(fds);
                        if daemon.fds.len() > FDS_MAX {
                            return false;
                        }
                        daemon.input.extend_from_slice(&self.buffer[..length]);
                        if daemon.input.len() > protocol::FRAME_BYTES_MAX as usize + 4 {
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => return false,
                }
            }
            loop {
                match protocol::take_frame(&mut daemon.input) {
                    Ok(Some(frame)) => {
                        let Some(answer) = self.answer(&frame, &mut daemon.fds) else {
                            return false;
                        };
                        daemon.output.extend_from_slice(&answer);
                    }
                    Ok(None) => break,
                    Err(_) => return false,
                }
            }
            if daemon.input.is_empty() {
                daemon.input = Vec::new();
            }
        }
        while !daemon.output.is_empty() {
            match daemon.stream.write(&daemon.output) {
                Ok(length) => drop(daemon.output.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        let wanted = if daemon.output.is_empty() {
            EventFlags::IN
        } else {
            EventFlags::IN | EventFlags::OUT
        };
        self.epoll
            .modify(daemon.stream.as_fd(), key.token(0), wanted)
            .is_ok()
    }

    /// Answers one frame; `None` where it is no envelope at all.
    fn answer(&mut self, frame: &[u8], arrived: &mut VecDeque<OwnedFd>) -> Option<Vec<u8>> {
        #[derive(serde::Deserialize)]
        struct Numbered {
            id: u64,
            #[serde(default)]
            fds: u32,
        }
        let Numbered { id, fds } = serde_json::from_slice(frame).ok()?;
        if fds as usize > arrived.len() {
            return None;
        }
        let fds = arrived.drain(..fds as usize).collect();
        let body = match serde_json::from_slice::<Envelope<Request>>(frame) {
            Ok(request) => self.execute(request.body, fds),
            Err(_) => Reply::Unknown,
        };
        protocol::encode(&Envelope { id, fds: 0, body }).ok()
    }

    fn execute(&mut self, request: Request, fds: Vec<OwnedFd>) -> Reply {
        match request {
            Request::Hello { version: _ } => Reply::Hello {
                version: protocol::VERSION,
                features: FEATURES.iter().map(|&feature| feature.to_owned()).collect(),
            },
            Request::Reserve {
                owner,
                reservations,
            } => self.reserve_all(&owner, &reservations),
            Request::Transfer {
                from,
                to,
                reservations,
            } => self.transfer(&from, &to, &reservations),
            Request::Release { owner } => self.release(&owner),
            Request::Owners => {
                let mut owners: Vec<String> = self.owners.keys().cloned().collect();
                owners.sort();
                Reply::Owners { owners }
            }
            Request::Ports { owner } => self.ports(owner.as_deref()),
            Request::AdoptPorts { owner, sockets } => self.adopt_ports(&owner, &sockets, fds),
            Request::Guard { table, interfaces } => self.set_guard(Guard { table, interfaces }),
            Request::Names { network, endpoints } => self.replace_names(&network, endpoints),
            Request::PutNames { endpoint } => self.put_names(endpoint),
            Request::DropNames { network, endpoint } => self.drop_names(&network, &endpoint),
            Request::Resolver(resolver) => self.set_resolver(&resolver, fds),
            Request::Sockets { container } => self.set_sockets(&container, fds),
            Request::DropResolver { container } => self.drop_resolver(&container),
            Request::Resolvers => Reply::Resolvers {
                containers: self.resolvers_without_sockets(),
            },
            Request::Status => Reply::Status(Status {
                pid: std::process::id(),
                owners: self.owners.len(),
                sockets: self
                    .owners
                    .values()
                    .map(|holding| holding.sockets.len())
                    .sum(),
                forwards: self.forwards,
                forwards_total: self.forwards_total,
                forwards_refused: self.forwards_refused,
                resolvers: self.names.resolvers.len(),
                lookups: self.names.lookups,
                lookups_pending: self.names.pending,
                lookups_refused: self.names.refused,
            }),
            Request::Shutdown => {
                for owner in self.owners.keys().cloned().collect::<Vec<_>>() {
                    self.release(&owner);
                }
                self.drop_all_names();
                if let Some(nfnl) = &self.nfnl {
                    let _ = guard::lower(nfnl, &self.guard.table);
                }
                self.ending = true;
                Reply::Ok
            }
        }
    }
}
