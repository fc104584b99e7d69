//! Host ports that pass from one owner to another without being free in between.
//!
//! The sockets stay open and carry elsewhere from then on. The new owner's file is written before the old one's goes: a
//! netd that is killed in between leaves two files that name one port, its successor gives it to one of the two, and the
//! request, which is sent again, finds it with either.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;

use gantry_api::port::{Protocol, Reservation};

use super::{Server, Thing};
use crate::protocol::Reply;
use crate::slab::Key;
use crate::socket::{self, HostPort, Targets};
use crate::{state, udp};

/// What is wanted, by the port of the host.
type ByPort = HashMap<HostPort, Vec<Reservation>>;

/// A socket that goes over, with what it stands for from then on.
struct Going {
    key: Key,
    reservations: Vec<Reservation>,
}

impl Server {
    /// Gives `to` these reservations, by the sockets of `from` where it has them, and closes what else `from` holds.
    pub(super) fn transfer(&mut self, from: &str, to: &str, wanted: &[Reservation]) -> Reply {
        if !state::is_valid_owner(from) || !state::is_valid_owner(to) || from == to {
            return Reply::Error {
                message: format!("invalid owners `{from}`, `{to}`"),
            };
        }
        let leaving = self.owners.get(from);
        let keys = leaving.map_or_else(Vec::new, |holding| holding.sockets.clone());
        // What a restarted netd could not open stays so: a daemon may hold the socket and hand it over.
        let lacking = leaving.map_or_else(Vec::new, |holding| holding.lacking.clone());
        // Thousands of ports may go over, and everybody waits meanwhile: nothing is looked for by comparing all.
        let mut by_port = ByPort::new();
        for one in wanted {
            by_port
                .entry(socket::host_port(one))
                .or_default()
                .push(*one);
        }
        let late: HashSet<HostPort> = lacking
            .iter()
            .map(socket::host_port)
            .filter(|port| by_port.contains_key(port))
            .collect();
        let mut going = Vec::new();
        for key in keys {
            let reservations = self.served_by(key, &by_port);
            if !reservations.is_empty() {
                going.push(Going { key, reservations });
            }
        }
        let brought: HashSet<Reservation> = going
            .iter()
            .flat_map(|going| going.reservations.iter().copied())
            .collect();
        let comes =
            |one: &Reservation| brought.contains(one) || late.contains(&socket::host_port(one));
        let standing: HashSet<Reservation> = self
            .owners
            .get(to)
            .into_iter()
            .flat_map(|to| to.reservations.iter().chain(&to.lacking).copied())
            .collect();
        let new: Vec<Reservation> = wanted
            .iter()
            .filter(|one| !comes(one) && !standing.contains(one))
            .copied()
            .collect();
        let (arriving, late): (Vec<Reservation>, Vec<Reservation>) = wanted
            .iter()
            .filter(|one| comes(one))
            .partition(|one| brought.contains(one));
        let before = self.owners.get(to).map_or(0, |to| to.sockets.len());
        if let Err((reservation, error)) = self.reserve(to, &new) {
            return Reply::Refused {
                protocol: reservation.protocol,
                address: reservation.address,
                port: reservation.port,
                errno: error.raw_os_error().unwrap_or(libc::EIO),
            };
        }
        let mut all = arriving.clone();
        all.extend(&late);
        if let Some(to) = self.owners.get(to) {
            let others = to.reservations.iter().chain(&to.lacking);
            all.extend(others.filter(|one| !comes(one)));
        }
        let saved = state::save(&self.directory, to, all);
        let saved = saved.and_then(|()| state::remove(&self.directory, from));
        if let Err(error) = saved {
            self.forget(to, before, &new);
            let before = self.owners.get(to).map(|to| {
                let all = to.reservations.iter().chain(&to.lacking);
                all.copied().collect::<Vec<_>>()
            });
            // The first error is what the daemon must know.
            let _ = match before {
                Some(before) => state::save(&self.directory, to, before),
                None => state::remove(&self.directory, to),
            };
            return Reply::Error {
                message: format!("save reservations of `{to}`: {error}"),
            };
        }
        let mut rest = self.owners.remove(from).unwrap_or_default().sockets;
        let keys: Vec<Key> = going.iter().map(|going| going.key).collect();
        let stay: HashSet<Key> = keys.iter().copied().collect();
        rest.retain(|key| !stay.contains(key));
        self.close_ports(&rest);
        // What was carried went to where the port no longer leads.
        self.cut_off(&keys);
        for Going { key, reservations } in going {
            self.lead(key, Targets::new(&reservations));
        }
        if !wanted.is_empty() {
            let to = self.owners.entry(to.to_owned()).or_default();
            let arrived: HashSet<HostPort> = arriving.iter().map(socket::host_port).collect();
            to.lacking
                .retain(|one| !arrived.contains(&socket::host_port(one)));
            to.reservations.extend(arriving);
            to.lacking.extend(late);
            to.sockets.extend(keys);
        }
        Reply::Ok
    }

    /// Gives those of the wanted reservations that a socket can stand for.
    fn served_by(&mut self, key: Key, wanted: &ByPort) -> Vec<Reservation> {
        let (protocol, fd) = match self.slab.get_mut(key) {
            Some(Thing::Tcp { fd, .. }) => (Protocol::Tcp, fd),
            Some(Thing::Udp(udp::Port { fd, .. })) => (Protocol::Udp, fd),
            Some(Thing::Kept { fd }) => (Protocol::Sctp, fd),
            _ => return Vec::new(),
        };
        let Ok((port, addresses)) = socket::kept(fd.as_fd()) else {
            return Vec::new();
        };
        let served = addresses
            .iter()
            .filter_map(|&address| wanted.get(&(protocol, address, port)));
        served.flatten().copied().collect()
    }

    /// Lets a socket carry elsewhere.
    fn lead(&mut self, key: Key, to: Targets) {
        if let Some(Thing::Tcp { targets, .. } | Thing::Udp(udp::Port { targets, .. })) =
            self.slab.get_mut(key)
        {
            *targets = to;
        }
    }
}
