//! Questions of containers: taken, answered, passed on to other servers and brought back.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use gantry_sys::datagrams::{BATCH_MAX, LeftBehind};
use gantry_sys::epoll::EventFlags;
use gantry_sys::net;

use super::{Server, Thing};
use crate::names::asker::{Known, Upstreams};
use crate::names::connection::{self, Connection, Input};
use crate::names::message::{self, Fault, Rcode, Record, TCP_BYTES_MAX};
use crate::names::upstream::{self, Client, Pending, Place, Step};
use crate::names::{Names, host_file};
use crate::slab::Key;

/// Questions that are passed on are kept until they are answered, thousands of them: none has a reason to be larger (EDNS
/// suggests 1232 bytes for a whole answer).
const FORWARDED_BYTES_MAX: usize = 4096;
/// How many connections of one socket, or batches of questions, are taken before others get their turn.
const CONNECTIONS_MAX: usize = 64;
const BATCHES_MAX: usize = 2;

impl Server {
    /// Takes questions by datagrams. A batch is marked as done after its answers are sent: a netd that is killed in
    /// between leaves it to the next.
    pub(super) fn take_questions(&mut self, key: Key, socket: &OwnedFd, container: &Rc<str>) {
        for _ in 0..BATCHES_MAX {
            let count = match self.questions.receive(socket.as_fd(), container) {
                Ok(count) => count,
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
                Err(_) => return,
            };
            for index in 0..count {
                let Some(question) = self.questions.get(index) else {
                    continue;
                };
                let (length, sender, is_cut) =
                    (question.bytes.len(), question.sender, question.is_cut);
                self.buffer[..length].copy_from_slice(question.bytes);
                self.take_question(key, container, sender, length, is_cut);
            }
            self.answers.send(socket);
            self.questions.done();
            if count < BATCH_MAX {
                return;
            }
        }
    }

    /// Looks up the question in the buffer and puts its answer to those that are to be sent.
    fn take_question(
        &mut self,
        key: Key,
        container: &Rc<str>,
        sender: SocketAddr,
        length: usize,
        is_cut: bool,
    ) {
        if is_cut {
            // An answer is never answered.
            if matches!(message::parse(&self.buffer[..length]), Err(Fault::Ignored)) {
                return;
            }
            self.names.refused += 1;
            let answer = &mut self.names.answer;
            message::refuse(&self.buffer[..length], Rcode::Refused, answer);
            self.answers.push(answer, sender);
            return;
        }
        let client = Client::Udp {
            socket: key,
            address: sender,
        };
        if self.look_up(container, client, length) {
            self.answers.push(&self.names.answer, sender);
        }
    }

    /// Answers what an earlier netd had taken from a container and not answered.
    pub(super) fn take_left_behind(&mut self, key: Key, container: &Rc<str>) {
        let theirs = |left: &mut LeftBehind| *left.owner == **container;
        let Some(left) = self.left_behind.take_if(theirs) else {
            return;
        };
        for (sender, question) in left.datagrams {
            self.buffer[..question.len()].copy_from_slice(&question);
            self.take_question(key, container, sender, question.len(), false);
        }
        if let Some(Thing::NameUdp(socket, _)) = self.slab.get_mut(key) {
            self.answers.send(&*socket);
        }
    }

    pub(super) fn accept_questions(&mut self, listener: &OwnedFd, container: &Rc<str>) {
        for _ in 0..CONNECTIONS_MAX {
            let fd = match net::accept(listener.as_fd()) {
                Ok(fd) => fd,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE) => {
                        if self.refuse(listener) {
                            continue;
                        }
                        return;
                    }
                    Some(libc::ECONNABORTED | libc::EINTR) => continue,
                    _ => return,
                },
            };
            let Some(resolver) = self.names.resolvers.get_mut(container) else {
                return;
            };
            if resolver.connections >= connection::CONNECTIONS_MAX {
                self.names.refused += 1;
                continue;
            }
            let connection = Connection::new(fd, container.clone());
            let due = connection.deadline();
            if let Ok(key) = self.watch(Thing::NameConnection(Box::new(connection))) {
                self.names.connection_deadlines.push_back((due, key));
                if let Some(resolver) = self.names.resolvers.get_mut(container) {
                    resolver.connections += 1;
                }
            }
        }
    }

    /// Serves a connection after an event; false ends it.
    pub(super) fn serve_questions(
        &mut self,
        key: Key,
        connection: &mut Connection,
        flags: EventFlags,
    ) -> bool {
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            match connection.read(&mut self.buffer) {
                // Half closed: what was asked is still answered. More than that epoll does not tell.
                Ok(Input::End) if flags.intersects(EventFlags::HUP | EventFlags::ERR) => {
                    return false;
                }
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        self.answer_questions(key, connection)
    }

    /// Answers what a connection has sent, as far as its limits go.
    fn answer_questions(&mut self, key: Key, connection: &mut Connection) -> bool {
        let container = connection.container.clone();
        while connection.pending < connection::PENDING_MAX {
            let Some(question) = connection.take() else {
                break;
            };
            self.buffer[..question.len()].copy_from_slice(&question);
            let pending = self.names.pending;
            let client = Client::Tcp { connection: key };
            if self.look_up(&container, client, question.len()) {
                if !connection.push(&self.names.answer) {
                    return false;
                }
            } else if self.names.pending > pending {
                connection.pending += 1;
            } else {
                // Not a query at all.
                return false;
            }
        }
        if connection.flush().is_err() {
            return false;
        }
        match connection.interest() {
            Some(flags) => self
                .epoll
                .modify(connection.fd().as_fd(), key.token(0), flags)
                .is_ok(),
            None => false,
        }
    }

    /// Looks up the question in the buffer. True: the answer is written and to be sent; false: it comes later or never.
    fn look_up(&mut self, container: &Rc<str>, client: Client, length: usize) -> bool {
        let names = &mut self.names;
        names.lookups += 1;
        let query = match message::parse(&self.buffer[..length]) {
            Ok(query) => query,
            Err(Fault::Ignored) => return false,
            Err(Fault::Refused(rcode)) => {
                message::refuse(&self.buffer[..length], rcode, &mut names.answer);
                return true;
            }
        };
        let Some(resolver) = names.resolvers.get(container) else {
            return false;
        };
        let bytes_max = match client {
            Client::Udp { .. } => query.udp_bytes_max(),
            Client::Tcp { .. } => TCP_BYTES_MAX,
        };
        names.found.clear();
        let known = resolver
            .asker
            .look_up(&names.zones, &query.name, query.kind, &mut names.found);
        let answer = &mut names.answer;
        match known {
            Known::Addresses => {
                names.random.shuffle(&mut names.found);
                let records = names.found.iter().map(|&address| Record::from(address));
                query.answer(Rcode::NoError, records, bytes_max, answer);
            }
            Known::Pointer(name) => {
                let records = std::iter::once(Record::Ptr(&name));
                query.answer(Rcode::NoError, records, bytes_max, answer);
            }
            Known::Nothing => {
                query.answer(Rcode::NoError, std::iter::empty(), bytes_max, answer);
            }
            Known::Unknown if length > FORWARDED_BYTES_MAX => {
                names.refused += 1;
                query.answer(Rcode::Refused, std::iter::empty(), bytes_max, answer);
            }
            Known::Unknown => {
                let message = query.message.to_vec();
                let Err((rcode, message)) = self.forward(container, client, message) else {
                    return false;
                };
                self.write_failure(&message, rcode);
            }
        }
        true
    }

    /// Writes an answer that holds nothing but a code.
    fn write_failure(&mut self, message: &[u8], rcode: Rcode) {
        if let Ok(query) = message::parse(message) {
            let none = std::iter::empty();
            query.answer(rcode, none, TCP_BYTES_MAX, &mut self.names.answer);
        }
    }

    /// Passes a question on; gives it back with a code if that cannot be done.
    fn forward(
        &mut self,
        container: &Rc<str>,
        client: Client,
        message: Vec<u8>,
    ) -> Result<(), (Rcode, Vec<u8>)> {
        let names = &mut self.names;
        let Some(resolver) = names.resolvers.get(container) else {
            return Err((Rcode::ServerFailure, message));
        };
        let share = if names.pending < upstream::PENDING_MAX / 2 {
            upstream::PENDING_PER_CONTAINER_MAX
        } else {
            upstream::PENDING_SHARE
        };
        if resolver.pending >= share || names.pending >= upstream::PENDING_MAX {
            names.refused += 1;
            return Err((Rcode::Refused, message));
        }
        let Some(open) = &resolver.open else {
            return Err((Rcode::ServerFailure, message));
        };
        let inside = Place::Container(open.netns.clone());
        let (servers, place) = match &resolver.asker.upstreams {
            Upstreams::Container(servers) => (servers.clone(), inside),
            // Nothing of an internal network's leaves by the host.
            Upstreams::Host(_) if !resolver.asker.forwards => {
                return Err((Rcode::ServerFailure, message));
            }
            Upstreams::Host(path) => {
                let servers = names.host_files.servers(path);
                if servers.is_empty() {
                    (host_file::with_port(&host_file::DEFAULT_SERVERS), inside)
                } else {
                    (servers, Place::Host)
                }
            }
        };
        let mut pending = Pending::new(client, container.clone(), message, servers, place);
        let key = self.slab.reserve();
        if !self.ask_next(key, &mut pending) {
            self.slab.remove(key);
            return Err((Rcode::ServerFailure, pending.message));
        }
        self.names.pending += 1;
        if let Some(resolver) = self.names.resolvers.get_mut(container) {
            resolver.pending += 1;
        }
        self.slab.put(key, Thing::Upstream(Box::new(pending)));
        Ok(())
    }

    /// Asks the next server; false: there is none that can be asked.
    fn ask_next(&mut self, key: Key, pending: &mut Pending) -> bool {
        loop {
            let names = &mut self.names;
            let place = pending.place.clone();
            let random = &mut names.random;
            let asked = Names::at(&names.host_netns, &place, || pending.ask_next(random));
            let (Some(flags), Some(fd)) = (asked, pending.fd()) else {
                return false;
            };
            // The socket before it has left the loop with its close: nobody else holds it.
            if self.epoll.add(fd, key.token(0), flags).is_ok() {
                self.names
                    .upstream_deadlines
                    .push_back((pending.deadline, key));
                return true;
            }
        }
    }

    /// Goes on with a question that others were asked; false ends it.
    pub(super) fn upstream_event(&mut self, key: Key, pending: &mut Pending) -> bool {
        let question = std::mem::take(&mut pending.message);
        let Ok(query) = message::parse(&question) else {
            return false;
        };
        let step = pending.step(&query, &mut self.buffer);
        match step {
            Step::Wait => {}
            Step::Listen => {
                let token = key.token(0);
                let listens = pending
                    .fd()
                    .is_some_and(|fd| self.epoll.modify(fd, token, EventFlags::IN).is_ok());
                if !listens {
                    pending.message = question;
                    return self.next_server(key, pending);
                }
            }
            Step::Answered(length) => {
                let reply = &mut self.buffer[..length];
                let bytes_max = match pending.client {
                    Client::Udp { .. } => query.udp_bytes_max(),
                    Client::Tcp { .. } => TCP_BYTES_MAX,
                };
                message::adopt(reply, &query);
                let answer = &mut self.names.answer;
                if length > bytes_max {
                    message::cut(reply, &query, answer);
                } else {
                    answer.clear();
                    answer.extend_from_slice(reply);
                }
                self.deliver(pending.client);
                return false;
            }
            Step::Failed => {
                pending.message = question;
                return self.next_server(key, pending);
            }
        }
        pending.message = question;
        true
    }

    /// Asks the next server, or tells the client that there is none left; false ends the question.
    fn next_server(&mut self, key: Key, pending: &mut Pending) -> bool {
        if self.ask_next(key, pending) {
            return true;
        }
        self.write_failure(&pending.message, Rcode::ServerFailure);
        self.deliver(pending.client);
        false
    }

    /// Sends the answer that is written to whoever has asked, if he is still there.
    fn deliver(&mut self, client: Client) {
        match client {
            Client::Udp { socket, address } => {
                if let Some(Thing::NameUdp(fd, _)) = self.slab.get_mut(socket) {
                    let _ = net::send_datagram(fd.as_fd(), &self.names.answer, address, None);
                }
            }
            Client::Tcp { connection: key } => {
                let Some(mut thing) = self.slab.take(key) else {
                    return;
                };
                let mut keep = true;
                if let Thing::NameConnection(connection) = &mut thing {
                    connection.pending -= 1;
                    keep = connection.push(&self.names.answer)
                        && self.answer_questions(key, connection);
                }
                self.slab.put(key, thing);
                if !keep {
                    self.close(key);
                }
            }
        }
    }

    /// Looks at what has waited for its time: servers that do not answer, connections that are silent.
    pub(super) fn name_deadlines(&mut self, now: Instant) {
        while let Some(&(due, key)) = self.names.upstream_deadlines.front()
            && due <= now
        {
            self.names.upstream_deadlines.pop_front();
            let Some(mut thing) = self.slab.take(key) else {
                continue;
            };
            let keep = match &mut thing {
                // One whose deadline is later has asked another server meanwhile and stands further behind as well.
                Thing::Upstream(pending) if pending.deadline <= now => {
                    self.next_server(key, pending)
                }
                _ => true,
            };
            self.slab.put(key, thing);
            if !keep {
                self.close(key);
            }
        }
        while let Some(&(due, key)) = self.names.connection_deadlines.front()
            && due <= now
        {
            self.names.connection_deadlines.pop_front();
            let Some(Thing::NameConnection(connection)) = self.slab.get_mut(key) else {
                continue;
            };
            if connection.pending == 0 && connection.deadline() <= now {
                self.close(key);
            } else {
                let again = (now + connection::IDLE, key);
                self.names.connection_deadlines.push_back(again);
            }
        }
    }
}
