//! The loop: requests of the daemon, connections and datagrams to be carried, all on one thread.

use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use gantry_api::port::Reservation;
use gantry_sys::datagrams::{Inbox, LeftBehind, Outbox};
use gantry_sys::epoll::{Epoll, EventFlags};
use gantry_sys::netlink::Socket;
use gantry_sys::nft;
use gantry_sys::process::Child;

use crate::guard::{self, Guard};
use crate::keeper::Keeping;
use crate::names::Names;
use crate::names::connection::Connection;
use crate::names::upstream::Pending;
use crate::protocol::Reply;
use crate::slab::{Key, Slab};
use crate::socket::Targets;
use crate::tcp::{After, Carrier, Pair};
use crate::udp;

mod daemon;
mod forward;
mod inherit;
mod lookup;
mod names;
mod reserve;
mod transfer;

use daemon::Daemon;
use forward::FORWARDS_MAX;
use inherit::has_ended;

/// What one read takes at most.
const BUFFER_BYTES: usize = 64 * 1024;

/// What a slot holds.
#[derive(Debug)]
enum Thing {
    Listener(UnixListener),
    Daemon(Daemon),
    Tcp {
        fd: OwnedFd,
        targets: Targets,
    },
    Udp(udp::Port),
    /// A port that is kept and carries nothing (SCTP).
    Kept {
        fd: OwnedFd,
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
    /// Keeps the descriptors when this process is killed.
    Keeper(Child),
}

/// What an owner holds.
#[derive(Debug, Default)]
struct Holding {
    reservations: Vec<Reservation>,
    sockets: Vec<Key>,
    /// What a restarted netd could not reserve: a daemon may hold its sockets and hand them over, or somebody took it.
    lacking: Vec<Reservation>,
}

/// Opens the file of the questions that are being answered, where the next netd finds them. Where there is no room for
/// a file they lie in memory and end with this netd. The file is root's alone to read: what containers ask for is nobody
/// else's business, and others may enter its directory.
fn inbox(path: &Path) -> io::Result<Inbox> {
    let kept = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .and_then(|file| {
            // One of an earlier version.
            file.set_permissions(Permissions::from_mode(0o600))?;
            Inbox::open(&file)
        });
    kept.or_else(|_| {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let memory = rustix::fs::memfd_create(c"questions", flags)?;
        Inbox::open(&File::from(memory))
    })
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
    /// Questions that came by datagrams and are being answered.
    questions: Inbox,
    answers: Outbox,
    /// Questions that an earlier netd had taken, until their container's sockets are here.
    left_behind: Option<LeftBehind>,
    guard: Guard,
    /// Asks whether the table stands; opened with the first guard.
    nfnl: Option<Socket>,
    /// Given up when descriptors run out, so that the connection in the queue can be taken and closed.
    spare: Option<File>,
    next_sweep: Option<Instant>,
    carrier: Carrier,
    /// `None` where there can be no keeper.
    keeping: Option<Keeping>,
    keeper: Option<Key>,
    keeper_since: Instant,
    /// When a keeper is to be started again.
    next_keeper: Option<Instant>,
    ending: bool,
}

impl Server {
    /// Takes the listening socket, what a killed predecessor has left, and reserves again what the files in `directory`
    /// name. Questions that are being answered lie in the file `questions`.
    pub fn new(listener: UnixListener, directory: PathBuf, questions: &Path) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let mut questions = inbox(questions)?;
        let left_behind = questions.left_behind();
        // They are tried once more and not again: one that netd should die of must not kill the next for ever.
        questions.done();
        let mut server = Self {
            epoll: Epoll::new()?,
            slab: Slab::default(),
            owners: HashMap::new(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            daemons: 0,
            forwards: 0,
            flows: 0,
            forwards_total: 0,
            forwards_refused: 0,
            names: Names::load(&directory)?,
            questions,
            answers: Outbox::default(),
            left_behind,
            guard: Guard::load(&directory),
            nfnl: None,
            spare: File::open("/dev/null").ok(),
            next_sweep: None,
            carrier: Carrier::new(FORWARDS_MAX)?,
            keeping: Keeping::open(&directory).ok(),
            keeper: None,
            keeper_since: Instant::now(),
            next_keeper: None,
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
        server.inherit()?;
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
            // Where the kernel has no such tables the rule of the engine's must do.
            let _ = guard::raise(nfnl, &self.guard.table);
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
        let before = std::mem::replace(&mut self.guard, guard);
        if (self.guard.interfaces.is_empty() || self.guard.table != before.table)
            && let Some(nfnl) = &self.nfnl
        {
            let _ = guard::lower(nfnl, &before.table);
        }
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
                .chain(self.next_keeper)
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
            if self.next_keeper.is_some_and(|due| due <= now) {
                self.start_keeper(None);
            }
            self.name_deadlines(now);
        }
        Ok(())
    }

    fn handle(&mut self, key: Key, side: u8, flags: EventFlags, mut thing: Thing) {
        let mut ended = None;
        let mut lost_keeper = false;
        let keep = match &mut thing {
            Thing::Listener(listener) => {
                self.accept_daemon(listener);
                true
            }
            Thing::Daemon(daemon) => self.serve(key, daemon, flags),
            Thing::Tcp { fd, targets } => {
                self.accept_client(key, fd, *targets);
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
                let carrier = &mut self.carrier;
                pair.step(carrier, &self.epoll, key, side, flags, &mut self.buffer) == After::Goes
            }
            Thing::Flow(flow) => {
                self.return_answers(flow);
                true
            }
            Thing::Keeper(child) => {
                lost_keeper = has_ended(child);
                !lost_keeper
            }
        };
        self.slab.put(key, thing);
        if !keep {
            self.close(key);
        }
        if let Some(container) = ended {
            self.shim_ended(&container);
        }
        if lost_keeper {
            self.keeper_lost();
        }
    }

    /// Empties a slot and counts.
    fn close(&mut self, key: Key) {
        match self.slab.remove(key) {
            Some(Thing::Daemon(_)) => self.daemons -= 1,
            Some(Thing::Pair(pair)) => {
                self.forwards -= 1;
                pair.close(&mut self.carrier, &self.epoll);
            }
            Some(Thing::Flow(flow)) => {
                self.forwards -= 1;
                self.flows -= 1;
                if let Some(Thing::Udp(port)) = self.slab.get_mut(flow.port) {
                    port.clients.remove(&flow.client);
                }
            }
            Some(
                Thing::Tcp { fd, .. }
                | Thing::Udp(udp::Port { fd, .. })
                | Thing::NameUdp(fd, _)
                | Thing::NameTcp(fd, _)
                | Thing::Shim(fd, _),
            ) => {
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
}
