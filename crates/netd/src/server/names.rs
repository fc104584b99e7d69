//! What the daemon says about names.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use gantry_sys::epoll::EventFlags;

use super::{Server, Thing};
use crate::names::asker::Asker;
use crate::names::{Open, Resolver};
use crate::protocol::{self, NamedEndpoint, Reply};
use crate::slab::Key;

/// Words an outcome as an answer.
fn outcome(what: &str, done: io::Result<()>) -> Reply {
    match done {
        Ok(()) => Reply::Ok,
        Err(error) => Reply::Error {
            message: format!("{what}: {error}"),
        },
    }
}

impl Server {
    pub(super) fn put_names(&mut self, endpoint: NamedEndpoint) -> Reply {
        let what = format!("put names of endpoint `{}`", endpoint.endpoint);
        outcome(&what, self.try_put_names(endpoint))
    }

    fn try_put_names(&mut self, endpoint: NamedEndpoint) -> io::Result<()> {
        let names = &mut self.names;
        if names.zones.get(&endpoint.network, &endpoint.endpoint) != Some(&endpoint) {
            names.files.put_names(&endpoint)?;
            names.zones.put(endpoint);
        }
        Ok(())
    }

    pub(super) fn drop_names(&mut self, network: &str, endpoint: &str) -> Reply {
        let dropped = self.names.files.drop_names(network, endpoint);
        if dropped.is_ok() {
            self.names.zones.take(network, endpoint);
        }
        outcome(&format!("drop names of endpoint `{endpoint}`"), dropped)
    }

    pub(super) fn replace_names(&mut self, network: &str, endpoints: Vec<NamedEndpoint>) -> Reply {
        if let Some(stranger) = endpoints
            .iter()
            .find(|endpoint| endpoint.network != network)
        {
            let message = format!(
                "endpoint `{}` is not on network `{network}`",
                stranger.endpoint
            );
            return Reply::Error { message };
        }
        let stay: HashSet<&str> = endpoints
            .iter()
            .map(|endpoint| endpoint.endpoint.as_str())
            .collect();
        let mut gone = self.names.zones.endpoints(network);
        gone.retain(|id| !stay.contains(id.as_str()));
        for id in gone {
            match self.drop_names(network, &id) {
                Reply::Ok => {}
                refused => return refused,
            }
        }
        for endpoint in endpoints {
            match self.put_names(endpoint) {
                Reply::Ok => {}
                refused => return refused,
            }
        }
        Reply::Ok
    }

    pub(super) fn set_resolver(
        &mut self,
        resolver: &protocol::Resolver,
        fds: Vec<OwnedFd>,
    ) -> Reply {
        let what = format!("set resolver of `{}`", resolver.container);
        outcome(&what, self.try_set_resolver(resolver, fds))
    }

    fn try_set_resolver(
        &mut self,
        resolver: &protocol::Resolver,
        fds: Vec<OwnedFd>,
    ) -> io::Result<()> {
        self.names.files.put_resolver(resolver)?;
        let container: Rc<str> = resolver.container.as_str().into();
        let asker = Asker::from(resolver);
        match self.names.resolvers.get_mut(&container) {
            Some(known) => known.asker = asker,
            None => {
                let new = Resolver::new(asker);
                self.names.resolvers.insert(container.clone(), new);
            }
        }
        if fds.is_empty() {
            return Ok(());
        }
        self.try_set_sockets(&container, fds)
    }

    pub(super) fn set_sockets(&mut self, container: &str, fds: Vec<OwnedFd>) -> Reply {
        let what = format!("set sockets of `{container}`");
        outcome(&what, self.try_set_sockets(&container.into(), fds))
    }

    fn try_set_sockets(&mut self, container: &Rc<str>, fds: Vec<OwnedFd>) -> io::Result<()> {
        if !self.names.resolvers.contains_key(container) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such resolver"));
        }
        self.close_names(container);
        let open = self.open_names(container, fds)?;
        let udp = open.udp;
        if let Some(known) = self.names.resolvers.get_mut(container) {
            known.open = Some(open);
        }
        self.take_left_behind(udp, container);
        Ok(())
    }

    /// Takes a container's sockets into the loop.
    fn open_names(&mut self, container: &Rc<str>, fds: Vec<OwnedFd>) -> io::Result<Open> {
        let count = fds.len();
        let mut fds = fds.into_iter();
        let (Some(udp), Some(tcp), Some(netns), shim, None) =
            (fds.next(), fds.next(), fds.next(), fds.next(), fds.next())
        else {
            let message = format!("{count} descriptors came, 3 or 4 are needed");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        for socket in [&udp, &tcp] {
            rustix::io::ioctl_fionbio(socket, true)?;
        }
        let container = || container.clone();
        let mut keys = Vec::new();
        let things = [
            Some(Thing::NameUdp(udp, container())),
            Some(Thing::NameTcp(tcp, container())),
            shim.map(|shim| Thing::Shim(shim, container())),
        ];
        for thing in things.into_iter().flatten() {
            match self.watch(thing) {
                Ok(key) => keys.push(key),
                Err(error) => {
                    keys.into_iter().for_each(|key| self.close(key));
                    return Err(error);
                }
            }
        }
        Ok(Open {
            udp: keys[0],
            tcp: keys[1],
            netns: Rc::new(netns),
            shim: keys.get(2).copied(),
        })
    }

    /// Puts a thing into the loop that waits to be readable.
    pub(super) fn watch(&mut self, thing: Thing) -> io::Result<Key> {
        let key = self.slab.reserve();
        let fd = match &thing {
            Thing::NameUdp(fd, _) | Thing::NameTcp(fd, _) | Thing::Shim(fd, _) => fd.as_fd(),
            Thing::NameConnection(connection) => connection.fd().as_fd(),
            _ => unreachable!("only what has to do with names is watched here"),
        };
        match self.epoll.add(fd, key.token(0), EventFlags::IN) {
            Ok(()) => {
                self.slab.put(key, thing);
                Ok(key)
            }
            Err(error) => {
                self.slab.remove(key);
                Err(error)
            }
        }
    }

    /// Closes a container's sockets and all that has come in by them.
    pub(super) fn close_names(&mut self, container: &Rc<str>) {
        let Some(resolver) = self.names.resolvers.get_mut(container) else {
            return;
        };
        let is_busy = resolver.connections + resolver.pending > 0;
        let open = resolver.open.take();
        if is_busy {
            let theirs = self.slab.keys(|thing| match thing {
                Thing::NameConnection(connection) => connection.container == *container,
                Thing::Upstream(pending) => pending.container == *container,
                _ => false,
            });
            theirs.into_iter().for_each(|key| self.close(key));
        }
        if let Some(open) = open {
            [Some(open.udp), Some(open.tcp), open.shim]
                .into_iter()
                .flatten()
                .for_each(|key| self.close(key));
        }
    }

    pub(super) fn drop_resolver(&mut self, container: &str) -> Reply {
        let dropped = self.names.files.drop_resolver(container);
        if dropped.is_ok() {
            let container: Rc<str> = container.into();
            self.close_names(&container);
            self.names.resolvers.remove(&container);
        }
        outcome(&format!("drop resolver of `{container}`"), dropped)
    }

    /// The container is gone, perhaps while no daemon lives that would say so.
    pub(super) fn shim_ended(&mut self, container: &Rc<str>) {
        // A file that stays is removed by the next daemon.
        let _ = self.names.files.drop_resolver(container);
        self.close_names(container);
        self.names.resolvers.remove(container);
    }

    /// Lists the containers that ask and whose sockets are not here.
    pub(super) fn resolvers_without_sockets(&self) -> Vec<String> {
        let resolvers = self.names.resolvers.iter();
        let mut lacking: Vec<String> = resolvers
            .filter(|(_, resolver)| resolver.open.is_none())
            .map(|(container, _)| (**container).to_owned())
            .collect();
        lacking.sort();
        lacking
    }

    /// Forgets all names and everybody who asks.
    pub(super) fn drop_all_names(&mut self) {
        for container in self.names.resolvers.keys().cloned().collect::<Vec<_>>() {
            self.drop_resolver(&container);
        }
        for network in self.names.zones.networks() {
            self.replace_names(&network, Vec::new());
        }
    }
}
