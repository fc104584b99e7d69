//! Host ports: reserved for an owner, all or none, and given back.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use gantry_api::port::{Protocol, Reservation};
use gantry_sys::epoll::EventFlags;

use super::{Server, Thing};
use crate::protocol::Reply;
use crate::slab::Key;
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
