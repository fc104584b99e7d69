//! Host ports: reserved for an owner, all or none, and given back.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use gantry_api::port::{Protocol, Reservation};
use gantry_sys::epoll::EventFlags;

use super::{Server, Thing};
use crate::protocol::{PortSocket, Reply};
use crate::slab::Key;
use crate::socket::Targets;
use crate::{socket, state, udp};

impl Server {
    pub(super) fn reserve_all(&mut self, owner: &str, reservations: &[Reservation]) -> Reply {
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
        let held: HashSet<Reservation> = held.iter().copied().collect();
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
            .map(|holding| [holding.reservations.as_slice(), &holding.lacking].concat())
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
    pub(super) fn reserve(
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
                        .keep(plan.protocol, Targets::new(&plan.reservations), socket)
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
            // What a restarted netd could not have, it has now.
            if !holding.lacking.is_empty() {
                let had: HashSet<&Reservation> = reservations.iter().collect();
                holding.lacking.retain(|one| !had.contains(one));
            }
            holding.reservations.extend_from_slice(reservations);
            holding.sockets.extend(keys);
        }
        Ok(())
    }

    /// Reserves what a file of an earlier netd names. What cannot be had is remembered.
    pub(super) fn reserve_again(&mut self, owner: &str, reservations: Vec<Reservation>) {
        // As a whole first: reservations of both families share a socket.
        if self.reserve(owner, &reservations).is_ok() {
            return;
        }
        for reservation in reservations {
            if self.reserve(owner, &[reservation]).is_err() {
                let holding = self.owners.entry(owner.to_owned()).or_default();
                holding.lacking.push(reservation);
            }
        }
    }

    /// Enters a host-port socket into the loop.
    pub(super) fn keep(
        &mut self,
        protocol: Protocol,
        targets: Targets,
        fd: OwnedFd,
    ) -> io::Result<Key> {
        let key = self.slab.reserve();
        if protocol != Protocol::Sctp
            && let Err(error) = self.epoll.add(fd.as_fd(), key.token(0), EventFlags::IN)
        {
            self.slab.remove(key);
            return Err(error);
        }
        let thing = match protocol {
            Protocol::Tcp => Thing::Tcp { fd, targets },
            Protocol::Udp => Thing::Udp(udp::Port {
                fd,
                targets,
                clients: HashMap::new(),
            }),
            Protocol::Sctp => Thing::Kept { fd },
        };
        self.slab.put(key, thing);
        Ok(key)
    }

    /// Tells the sockets that keep ports, of one owner or of all.
    pub(super) fn ports(&mut self, owner: Option<&str>) -> Reply {
        let wanted = |name: &String| owner.is_none_or(|owner| owner == name);
        let mut sockets = Vec::new();
        for (owner, holding) in self.owners.iter().filter(|(name, _)| wanted(name)) {
            for &key in &holding.sockets {
                let (protocol, fd, targets) = match self.slab.get_mut(key) {
                    Some(Thing::Tcp { fd, targets }) => (Protocol::Tcp, fd, targets),
                    Some(Thing::Udp(udp::Port { fd, targets, .. })) => (Protocol::Udp, fd, targets),
                    // One that carries nothing is as well made anew.
                    _ => continue,
                };
                let Some(target) = targets.any() else {
                    continue;
                };
                sockets.push(PortSocket {
                    owner: owner.clone(),
                    protocol,
                    target,
                    fd: fd.as_raw_fd(),
                });
            }
        }
        Reply::Ports {
            pid: std::process::id(),
            sockets,
        }
    }

    /// Takes sockets over for ports that are lacking; others are closed.
    pub(super) fn adopt_ports(
        &mut self,
        owner: &str,
        sockets: &[PortSocket],
        fds: Vec<OwnedFd>,
    ) -> Reply {
        if sockets.len() != fds.len() {
            let message = format!("{} sockets with {} descriptors", sockets.len(), fds.len());
            return Reply::Error { message };
        }
        for (kept, fd) in sockets.iter().zip(fds) {
            if let Err(error) = self.adopt_port(owner, kept, fd) {
                let message = format!("adopt a port of `{owner}`: {error}");
                return Reply::Error { message };
            }
        }
        Reply::Ok
    }

    fn adopt_port(&mut self, owner: &str, kept: &PortSocket, fd: OwnedFd) -> io::Result<()> {
        let (port, addresses) = socket::kept(fd.as_fd())?;
        let is_of = |reservation: &Reservation| {
            reservation.protocol == kept.protocol
                && reservation.port == port
                && addresses.contains(&reservation.address)
        };
        let Some(holding) = self.owners.get_mut(owner) else {
            return Ok(());
        };
        let found: Vec<Reservation> = holding.lacking.extract_if(.., |one| is_of(one)).collect();
        if found.is_empty() {
            return Ok(());
        }
        let kept = self.keep(kept.protocol, Targets::new(&found), fd);
        let holding = self.owners.entry(owner.to_owned()).or_default();
        match kept {
            Ok(key) => {
                holding.reservations.extend(found);
                holding.sockets.push(key);
            }
            Err(error) => {
                holding.lacking.extend(found);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes back the newest part of what an owner holds.
    pub(super) fn forget(
        &mut self,
        owner: &str,
        sockets_before: usize,
        reservations: &[Reservation],
    ) {
        let Some(holding) = self.owners.get_mut(owner) else {
            return;
        };
        let gone: HashSet<&Reservation> = reservations.iter().collect();
        holding.reservations.retain(|held| !gone.contains(held));
        let gone = holding.sockets.split_off(sockets_before);
        if holding.reservations.is_empty() && holding.lacking.is_empty() {
            self.owners.remove(owner);
        }
        self.close_ports(&gone);
    }

    pub(super) fn release(&mut self, owner: &str) -> Reply {
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
    pub(super) fn close_ports(&mut self, ports: &[Key]) {
        self.cut_off(ports);
        for &port in ports {
            self.close(port);
        }
    }

    /// Ends what is carried by these ports.
    pub(super) fn cut_off(&mut self, ports: &[Key]) {
        if self.forwards == 0 || ports.is_empty() {
            return;
        }
        let ports: HashSet<Key> = ports.iter().copied().collect();
        let carried = self.slab.keys(|thing| match thing {
            Thing::Pair(pair) => ports.contains(&pair.port),
            Thing::Flow(flow) => ports.contains(&flow.port),
            _ => false,
        });
        for key in carried {
            if let Some(Thing::Pair(pair)) = self.slab.get_mut(key) {
                pair.abort(&self.carrier);
            }
            self.close(key);
        }
    }
}
