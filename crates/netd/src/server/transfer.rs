//! Host ports that pass from one owner to another without being free in between.
//!
//! The sockets stay open and carry elsewhere from then on. The new owner's file is written before the old one's goes: a
//! netd that is killed in between leaves two files that name one port, its successor gives it to one of the two, and the
//! request, which is sent again, finds it with either.

use std::net::IpAddr;
use std::os::fd::AsFd;

use gantry_api::port::{Protocol, Reservation};

use super::{Holding, Server, Thing};
use crate::protocol::Reply;
use crate::slab::Key;
use crate::socket::{self, Targets};
use crate::{state, udp};

/// Says whether two reservations are of one port of the host.
fn is_same_port(one: &Reservation, other: &Reservation) -> bool {
    (one.protocol, one.address, one.port) == (other.protocol, other.address, other.port)
}

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
        let mut lacking = leaving.map_or_else(Vec::new, |holding| holding.lacking.clone());
        lacking.retain(|one| wanted.iter().any(|wanted| is_same_port(one, wanted)));
        let mut going = Vec::new();
        for key in keys {
            let reservations = self.served_by(key, wanted);
            if !reservations.is_empty() {
                going.push(Going { key, reservations });
            }
        }
        let comes = |one: &Reservation| {
            going.iter().any(|going| going.reservations.contains(one))
                || lacking.iter().any(|lacking| is_same_port(lacking, one))
        };
        let standing = |holding: &Holding, one: &Reservation| {
            holding.reservations.contains(one) || holding.lacking.contains(one)
        };
        let new: Vec<Reservation> = wanted
            .iter()
            .filter(|one| !comes(one))
            .filter(|one| !self.owners.get(to).is_some_and(|to| standing(to, one)))
            .copied()
            .collect();
        let (arriving, late): (Vec<Reservation>, Vec<Reservation>) = wanted
            .iter()
            .filter(|one| comes(one))
            .partition(|one| going.iter().any(|going| going.reservations.contains(one)));
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
        rest.retain(|key| !going.iter().any(|going| going.key == *key));
        self.close_ports(&rest);
        let keys: Vec<Key> = going.iter().map(|going| going.key).collect();
        // What was carried went to where the port no longer leads.
        self.cut_off(&keys);
        for Going { key, reservations } in going {
            self.lead(key, Targets::new(&reservations));
        }
        if !wanted.is_empty() {
            let to = self.owners.entry(to.to_owned()).or_default();
            to.lacking
                .retain(|one| !arriving.iter().any(|arriving| is_same_port(arriving, one)));
            to.reservations.extend(arriving);
            to.lacking.extend(late);
            to.sockets.extend(keys);
        }
        Reply::Ok
    }

    /// Gives those of the wanted reservations that a socket can stand for.
    fn served_by(&mut self, key: Key, wanted: &[Reservation]) -> Vec<Reservation> {
        let (protocol, fd) = match self.slab.get_mut(key) {
            Some(Thing::Tcp { fd, .. }) => (Protocol::Tcp, fd),
            Some(Thing::Udp(udp::Port { fd, .. })) => (Protocol::Udp, fd),
            Some(Thing::Kept { fd }) => (Protocol::Sctp, fd),
            _ => return Vec::new(),
        };
        let Ok((port, addresses)) = socket::kept(fd.as_fd()) else {
            return Vec::new();
        };
        let keeps = |protocol_wanted: Protocol, address: &IpAddr, number: u16| {
            (protocol_wanted, number) == (protocol, port) && addresses.contains(address)
        };
        let served = wanted
            .iter()
            .filter(|one| keeps(one.protocol, &one.address, one.port));
        served.copied().collect()
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
