//! The loop: requests of the daemon, connections and datagrams to be carried, all on one thread.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use gantry_api::port::{Protocol, Reservation};
use gantry_sys::epoll::{Epoll, EventFlags};
use gantry_sys::netlink::Socket;
use gantry_sys::{nft, unix};

use crate::guard::{self, Guard};
use crate::names::Names;
use crate::names::connection::Connection;
use crate::names::upstream::Pending;
use crate::protocol::{self, Envelope, FEATURES, Reply, Request, Status};
use crate::slab::{Key, Slab};
use crate::tcp::{After, PENDING_BYTES_MAX, Pair};
use crate::{socket, state, udp};

/// How many daemons may be connected; more than one only while one takes over from another.
const CONNECTIONS_MAX: usize = 16;
/// How many descriptors of a daemon may wait for the rest of their frames.
const FDS_MAX: usize = 256;

mod forward;
mod lookup;
mod names;

/// A daemon's connection.
#[derive(Debug)]
struct Daemon {
    stream: UnixStream,
    input: Vec<u8>,
    /// Descriptors that came with the input and whose frame is not complete.
    fds: VecDeque<OwnedFd>,
    output: Vec<u8>,
}

/// What a slot holds.
#[derive(Debug)]
enum Thing {
    Listener(UnixListener),
    Daemon(Daemon),
    Tcp {
        fd: OwnedFd,
        target: SocketAddr,
    },
    Udp(udp::Port),
    /// A port that is kept and carries nothing (SCTP).
    Kept {
        _fd: OwnedFd,
    },
    Pair(Box<Pair>),
    Flow(udp::Flow),
    /// Hears of changes of the ruleset.
    Ruleset(Socket),
    /// Where a container asks for names; the shim holds another descriptor of the same socket.
    NameUdp(OwnedFd, Rc<str>),
    NameTcp(OwnedFd, Rc<str>),
    /// A pidfd: with the shim ends the container's asking.
    Shim(OwnedFd, Rc<str>),
    NameConnection(Box<Connection>),
    /// A question that another server was asked.
    Upstream(Box<Pending>),
    /// Hears of changes of the host's resolv.conf.
    HostFiles,
}

/// What an owner holds.
#[derive(Debug, Default)]
struct Holding {
    reservations: Vec<Reservation>,
    sockets: Vec<Key>,
}

/// The whole of netd.
pub struct Server {
    epoll: Epoll,
    slab: Slab<Thing>,
    owners: HashMap<String, Holding>,
    directory: PathBuf,
    buffer: Box<[u8]>,
    daemons: usize,
    forwards: usize,
    flows: usize,
    forwards_total: u64,
    forwards_refused: u64,
    names: Names,
    guard: Guard,
    /// Asks whether the table stands; opened with the first guard.
    nfnl: Option<Socket>,
    /// Given up when descriptors run out, so that the connection in the queue can be taken and closed.
    spare: Option<File>,
    next_sweep: Option<Instant>,
    ending: bool,
}

impl Server {
    /// Takes the listening socket and reserves again what the files in `directory` name.
    pub fn new(listener: UnixListener, directory: PathBuf) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let mut server = Self {
            epoll: Epoll::new()?,
            slab: Slab::default(),
            owners: HashMap::new(),
            buffer: vec![0; PENDING_BYTES_MAX].into_boxed_slice(),
            daemons: 0,
            forwards: 0,
            flows: 0,
            forwards_total: 0,
            forwards_refused: 0,
            names: Names::load(&directory)?,
            guard: Guard::load(&directory),
            nfnl: None,
            spare: File::open("/dev/null").ok(),
            next_sweep: None,
            ending: false,
            directory,
        };
        let key = server.slab.reserve();
        server
            .epoll
            .add(listener.as_fd(), key.token(0), EventFlags::IN)?;
        server.slab.put(key, Thing::Listener(listener));
        if let Some(events) = server.names.host_files.events() {
            let key = server.slab.reserve();
            server
                .epoll
                .add(events.as_fd(), key.token(0), EventFlags::IN)?;
            server.slab.put(key, Thing::HostFiles);
        }
        for (owner, reservations) in state::load(&server.directory)? {
            for reservation in reservations {
                // What somebody else has taken meanwhile stays lost; the firewall still leads it to the container.
                let _ = server.reserve(&owner, &[reservation]);
            }
        }
        if !server.guard.interfaces.is_empty() {
            server.watch_ruleset()?;
        }
        Ok(server)
    }

    /// Begins to hear of changes of the ruleset, and looks whether the table is gone already.
    fn watch_ruleset(&mut self) -> io::Result<()> {
        if self.nfnl.is_none() {
            let (events, nfnl) = guard::open()?;
            let key = self.slab.reserve();
            if let Err(error) = self.epoll.add(events.as_fd(), key.token(0), EventFlags::IN) {
                self.slab.remove(key);
                return Err(error);
            }
            self.slab.put(key, Thing::Ruleset(events));
            self.nfnl = Some(nfnl);
        }
        if let Some(nfnl) = &self.nfnl {
            self.guard.enforce(nfnl);
        }
        Ok(())
    }

    /// Takes one notice of a changed ruleset.
    fn ruleset_changed(&mut self, events: &Socket) {
        let lost = match events.receive(&mut self.buffer) {
            Ok(length) => nft::deleted_tables(&self.buffer[..length]).contains(&self.guard.table),
            // Notices were lost, perhaps this one.
            Err(_) => true,
        };
        if lost && let Some(nfnl) = &self.nfnl {
            self.guard.enforce(nfnl);
        }
    }

    fn set_guard(&mut self, guard: Guard) -> Reply {
        if !guard.is_valid() {
            return Reply::Error {
                message: "invalid interface name".to_owned(),
            };
        }
        if let Err(error) = guard.save(&self.directory) {
            return Reply::Error {
                message: format!("save guard: {error}"),
            };
        }
        self.guard = guard;
        if !self.guard.interfaces.is_empty()
            && let Err(error) = self.watch_ruleset()
        {
            return Reply::Error {
                message: format!("watch ruleset: {error}"),
            };
        }
        Reply::Ok
    }

    /// Works until a daemon asks for the end.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::new();
        while !self.ending {
            let due = self
                .next_sweep
                .into_iter()
                .chain(self.names.next_deadline());
            let timeout = due
                .min()
                .map(|due| due.saturating_duration_since(Instant::now()));
            events.clear();
            self.epoll
                .wait(timeout, |token, flags| events.push((token, flags)))?;
            for &(token, flags) in &events {
                let (key, side) = Key::from_token(token);
                if let Some(thing) = self.slab.take(key) {
                    self.handle(key, side, flags, thing);
                }
            }
            let now = Instant::now();
            if self.next_sweep.is_some_and(|due| due <= now) {
                self.sweep();
            }
            self.name_deadlines(now);
        }
        Ok(())
    }

    fn handle(&mut self, key: Key, side: u8, flags: EventFlags, mut thing: Thing) {
        let mut ended = None;
        let keep = match &mut thing {
            Thing::Listener(listener) => {
                self.accept_daemon(listener);
                true
            }
            Thing::Daemon(daemon) => self.serve(key, daemon, flags),
            Thing::Tcp { fd, target } => {
                self.accept_client(key, fd, *target);
                true
            }
            Thing::Udp(port) => {
                self.take_datagrams(key, port);
                true
            }
            Thing::Kept { .. } => true,
            Thing::Ruleset(events) => {
                self.ruleset_changed(events);
                true
            }
            Thing::NameUdp(socket, container) => {
                self.take_questions(key, socket, container);
                true
            }
            Thing::NameTcp(listener, container) => {
                self.accept_questions(listener, container);
                true
            }
            Thing::Shim(_, container) => {
                ended = Some(container.clone());
                true
            }
            Thing::NameConnection(connection) => self.serve_questions(key, connection, flags),
            Thing::Upstream(pending) => self.upstream_event(key, pending),
            Thing::HostFiles => {
                self.names.host_files.changed();
                true
            }
            Thing::Pair(pair) => {
                pair.step(&self.epoll, key, side, flags, &mut self.buffer) == After::Goes
            }
            Thing::Flow(flow) => {
                self.return_answers(flow);
                true
            }
        };
        self.slab.put(key, thing);
        if !keep {
            self.close(key);
        }
        if let Some(container) = ended {
            self.shim_ended(&container);
        }
    }

    /// Empties a slot and counts.
    fn close(&mut self, key: Key) {
        match self.slab.remove(key) {
            Some(Thing::Daemon(_)) => self.daemons -= 1,
            Some(Thing::Pair(_)) => self.forwards -= 1,
            Some(Thing::Flow(flow)) => {
                self.forwards -= 1;
                self.flows -= 1;
                if let Some(Thing::Udp(port)) = self.slab.get_mut(flow.port) {
                    port.clients.remove(&flow.client);
                }
            }
            Some(Thing::NameUdp(fd, _) | Thing::NameTcp(fd, _) | Thing::Shim(fd, _)) => {
                // Closing alone does not end the watch: others hold the same socket.
                let _ = self.epoll.delete(fd.as_fd());
            }
            Some(Thing::NameConnection(connection)) => {
                if let Some(resolver) = self.names.resolvers.get_mut(&connection.container) {
                    resolver.connections -= 1;
                }
            }
            Some(Thing::Upstream(pending)) => {
                self.names.pending -= 1;
                if let Some(resolver) = self.names.resolvers.get_mut(&pending.container) {
                    resolver.pending -= 1;
                }
            }
            _ => {}
        }
    }

    fn accept_daemon(&mut self, listener: &UnixListener) {
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
    fn serve(&mut self, key: Key, daemon: &mut Daemon, flags: EventFlags) -> bool {
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
            Request::Release { owner } => self.release(&owner),
            Request::Owners => {
                let mut owners: Vec<String> = self.owners.keys().cloned().collect();
                owners.sort();
                Reply::Owners { owners }
            }
            Request::Guard { table, interfaces } => self.set_guard(Guard { table, interfaces }),
            Request::Names { network, endpoints } => self.replace_names(&network, endpoints),
            Request::PutNames { endpoint } => self.put_names(endpoint),
            Request::DropNames { network, endpoint } => self.drop_names(&network, &endpoint),
            Request::Resolver(resolver) => self.set_resolver(&resolver, fds),
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
                self.ending = true;
                Reply::Ok
            }
        }
    }

    fn reserve_all(&mut self, owner: &str, reservations: &[Reservation]) -> Reply {
        if !state::is_valid_owner(owner) {
            return Reply::Error {
                message: format!("invalid owner `{owner}`"),
            };
        }
        let held = self
            .owners
            .get(owner)
            .map(|holding| holding.reservations.as_slice())
            .unwrap_or_default();
        let held: std::collections::HashSet<Reservation> = held.iter().copied().collect();
        let new: Vec<Reservation> = reservations
            .iter()
            .filter(|reservation| !held.contains(reservation))
            .copied()
            .collect();
        let before = self
            .owners
            .get(owner)
            .map_or(0, |holding| holding.sockets.len());
        if let Err((reservation, error)) = self.reserve(owner, &new) {
            return Reply::Refused {
                protocol: reservation.protocol,
                address: reservation.address,
                port: reservation.port,
                errno: error.raw_os_error().unwrap_or(libc::EIO),
            };
        }
        let all = self
            .owners
            .get(owner)
            .map(|holding| holding.reservations.clone())
            .unwrap_or_default();
        if let Err(error) = state::save(&self.directory, owner, all) {
            self.forget(owner, before, &new);
            return Reply::Error {
                message: format!("save reservations of `{owner}`: {error}"),
            };
        }
        Reply::Ok
    }

    /// Opens the sockets of all reservations or none.
    fn reserve(
        &mut self,
        owner: &str,
        reservations: &[Reservation],
    ) -> Result<(), (Reservation, io::Error)> {
        let before = self
            .owners
            .get(owner)
            .map_or(0, |holding| holding.sockets.len());
        let mut keys = Vec::new();
        for plan in socket::plan(reservations) {
            let opened = socket::open(&plan).and_then(|sockets| {
                for socket in sockets {
                    let key = self
                        .keep(&plan, socket)
                        .map_err(|error| (plan.reservations[0], error))?;
                    keys.push(key);
                }
                Ok(())
            });
            if let Err(refused) = opened {
                for key in keys {
                    self.close(key);
                }
                debug_assert_eq!(
                    before,
                    self.owners
                        .get(owner)
                        .map_or(0, |holding| holding.sockets.len())
                );
                return Err(refused);
            }
        }
        if !reservations.is_empty() {
            let holding = self.owners.entry(owner.to_owned()).or_default();
            holding.reservations.extend_from_slice(reservations);
            holding.sockets.extend(keys);
        }
        Ok(())
    }

    /// Enters a host-port socket into the loop.
    fn keep(&mut self, plan: &socket::Plan, fd: OwnedFd) -> io::Result<Key> {
        let key = self.slab.reserve();
        if plan.protocol != Protocol::Sctp
            && let Err(error) = self.epoll.add(fd.as_fd(), key.token(0), EventFlags::IN)
        {
            self.slab.remove(key);
            return Err(error);
        }
        let thing = match plan.protocol {
            Protocol::Tcp => Thing::Tcp {
                fd,
                target: plan.target,
            },
            Protocol::Udp => Thing::Udp(udp::Port {
                fd,
                target: plan.target,
                clients: HashMap::new(),
            }),
            Protocol::Sctp => Thing::Kept { _fd: fd },
        };
        self.slab.put(key, thing);
        Ok(key)
    }

    /// Takes back the newest part of what an owner holds.
    fn forget(&mut self, owner: &str, sockets_before: usize, reservations: &[Reservation]) {
        let Some(holding) = self.owners.get_mut(owner) else {
            return;
        };
        holding
            .reservations
            .retain(|held| !reservations.contains(held));
        let gone = holding.sockets.split_off(sockets_before);
        if holding.reservations.is_empty() {
            self.owners.remove(owner);
        }
        self.close_ports(&gone);
    }

    fn release(&mut self, owner: &str) -> Reply {
        if !state::is_valid_owner(owner) {
            return Reply::Error {
                message: format!("invalid owner `{owner}`"),
            };
        }
        if let Err(error) = state::remove(&self.directory, owner) {
            return Reply::Error {
                message: format!("remove reservations of `{owner}`: {error}"),
            };
        }
        if let Some(holding) = self.owners.remove(owner) {
            self.close_ports(&holding.sockets);
        }
        Reply::Ok
    }

    /// Closes ports and what is carried by them.
    fn close_ports(&mut self, ports: &[Key]) {
        if ports.is_empty() {
            return;
        }
        if self.forwards > 0 {
            let ports: std::collections::HashSet<Key> = ports.iter().copied().collect();
            let carried = self.slab.keys(|thing| match thing {
                Thing::Pair(pair) => ports.contains(&pair.port),
                Thing::Flow(flow) => ports.contains(&flow.port),
                _ => false,
            });
            for key in carried {
                if let Some(Thing::Pair(pair)) = self.slab.get_mut(key) {
                    pair.abort();
                }
                self.close(key);
            }
        }
        for &port in ports {
            self.close(port);
        }
    }
}
