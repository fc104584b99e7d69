//! What a killed predecessor has left: taken over before anything else is done, and kept for a successor in its turn.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use gantry_api::port::{Protocol, Reservation};
use gantry_sys::epoll::EventFlags;
use gantry_sys::process::{self, Child};
use rustix::net::{SocketType, sockopt};

use super::forward::FORWARDS_MAX;
use super::{Server, Thing};
use crate::keeper::{Inheritance, Predecessor};
use crate::ledger::Entry;
use crate::slab::Key;
use crate::socket::Targets;
use crate::state;
use crate::tcp::{After, Found, Pair};

/// A keeper that has lived so long is replaced at once, another one after as long.
const KEEPER_LIVED: Duration = Duration::from_millis(100);
/// How long it takes until a keeper that could not be started is tried again.
const KEEPER_PAUSE: Duration = Duration::from_secs(10);

/// Says whether a keeper has ended, and reaps it.
pub(super) fn has_ended(keeper: &Child) -> bool {
    !matches!(process::wait_pidfd(keeper.pidfd.as_fd(), false), Ok(None))
}

/// What the files say is owned, and by whom.
struct Wanted {
    owners: Vec<(String, Vec<Reservation>)>,
    /// The owner's place and the reservation, by protocol and port.
    by_port: HashMap<(Protocol, u16), Vec<(usize, Reservation)>>,
    adopted: HashSet<(usize, Reservation)>,
}

impl Wanted {
    fn new(owners: Vec<(String, Vec<Reservation>)>) -> Self {
        let mut by_port: HashMap<_, Vec<_>> = HashMap::new();
        for (place, (_, reservations)) in owners.iter().enumerate() {
            for reservation in reservations {
                by_port
                    .entry((reservation.protocol, reservation.port))
                    .or_default()
                    .push((place, *reservation));
            }
        }
        Self {
            owners,
            by_port,
            adopted: HashSet::new(),
        }
    }

    /// Picks the reservations that a socket stands for: one owner's.
    fn stands_for(
        &self,
        protocol: Protocol,
        local: SocketAddr,
        is_dual: bool,
    ) -> Option<(usize, Vec<Reservation>)> {
        let fits = |reservation: &Reservation| {
            reservation.address == local.ip()
                || (is_dual && local.ip().is_unspecified() && reservation.address.is_unspecified())
        };
        let all = self.by_port.get(&(protocol, local.port()))?;
        let (place, _) = all.iter().find(|(_, reservation)| fits(reservation))?;
        let reservations = all
            .iter()
            .filter(|(other, reservation)| other == place && fits(reservation));
        Some((*place, reservations.map(|(_, found)| *found).collect()))
    }
}

/// The TCP ports that were taken over, by the address that a client has connected to.
#[derive(Default)]
struct Ports(HashMap<SocketAddr, (Key, Targets)>);

impl Ports {
    /// Enters a port and its targets.
    fn insert(&mut self, local: SocketAddr, is_dual: bool, key: Key, targets: Targets) {
        let mut enter = |ip: IpAddr| {
            self.0
                .insert(SocketAddr::new(ip, local.port()), (key, targets));
        };
        enter(local.ip());
        if is_dual && local.ip().is_unspecified() {
            enter(Ipv4Addr::UNSPECIFIED.into());
        }
    }

    /// Finds the port that an accepted connection came in by, and its targets.
    fn of(&self, client: &OwnedFd) -> Option<(Key, Targets)> {
        let local = SocketAddr::try_from(rustix::net::getsockname(client).ok()?).ok()?;
        let ip = local.ip().to_canonical();
        let any = if ip.is_ipv4() {
            IpAddr::from(Ipv4Addr::UNSPECIFIED)
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        [ip, any]
            .iter()
            .find_map(|&ip| self.0.get(&SocketAddr::new(ip, local.port())))
            .copied()
    }
}

impl Server {
    /// Takes over what a killed predecessor has left, starts a keeper, and reserves the rest of what the files name.
    ///
    /// Until the new keeper is named nothing is changed that a successor would miss, should this netd be killed as well.
    pub(super) fn inherit(&mut self) -> io::Result<()> {
        let mut wanted = Wanted::new(state::load(&self.directory)?);
        let keeping = self.keeping.as_ref();
        let predecessor = keeping.and_then(|keeping| keeping.predecessor());
        let left: Inheritance = predecessor
            .as_ref()
            .and_then(|predecessor| predecessor.inherit().ok())
            .unwrap_or_default();
        let mut ports = Ports::default();
        for fd in left.ports {
            // A socket that cannot be taken over is closed, and its port is reserved anew.
            let _ = self.inherit_port(&mut wanted, &mut ports, fd);
        }
        let mut pairs = Vec::new();
        for found in left.pairs {
            pairs.extend(self.inherit_pair(&ports, found));
        }
        self.start_keeper(predecessor.as_ref());
        if let Some(predecessor) = predecessor {
            predecessor.end();
        }
        let Wanted {
            owners, adopted, ..
        } = wanted;
        for (place, (owner, mut reservations)) in owners.into_iter().enumerate() {
            reservations.retain(|reservation| !adopted.contains(&(place, *reservation)));
            self.reserve_again(&owner, reservations);
        }
        for (key, entry) in pairs {
            self.resume(key, &entry);
        }
        for client in left.clients {
            // One whose port is nobody's any more has met its end.
            if let Some((port, targets)) = ports.of(&client)
                && (self.forwards >= FORWARDS_MAX
                    || self.start_pair(port, client, targets).is_err())
            {
                self.forwards_refused += 1;
            }
        }
        Ok(())
    }

    fn inherit_port(
        &mut self,
        wanted: &mut Wanted,
        ports: &mut Ports,
        fd: OwnedFd,
    ) -> io::Result<()> {
        let protocol = match sockopt::socket_type(&fd)? {
            SocketType::STREAM => Protocol::Tcp,
            _ => Protocol::Udp,
        };
        let local = SocketAddr::try_from(rustix::net::getsockname(&fd)?)?;
        let is_dual = local.is_ipv6() && !sockopt::ipv6_v6only(&fd)?;
        let Some((place, reservations)) = wanted.stands_for(protocol, local, is_dual) else {
            return Ok(());
        };
        let targets = Targets::new(&reservations);
        let key = self.keep(protocol, targets, fd)?;
        if protocol == Protocol::Tcp {
            ports.insert(local, is_dual, key, targets);
        }
        let holding = self
            .owners
            .entry(wanted.owners[place].0.clone())
            .or_default();
        holding.reservations.extend_from_slice(&reservations);
        holding.sockets.push(key);
        let adopted = reservations
            .into_iter()
            .map(|reservation| (place, reservation));
        wanted.adopted.extend(adopted);
        Ok(())
    }

    fn inherit_pair(&mut self, ports: &Ports, found: Found) -> Option<(Key, Entry)> {
        let Some((port, _)) = ports.of(&found.client) else {
            // Its port was given back.
            found.abort();
            return None;
        };
        let entry = found.entry.clone();
        let pair = Pair::adopt(&mut self.carrier, port, found).ok()?;
        let key = self.slab.reserve();
        self.slab.put(key, Thing::Pair(Box::new(pair)));
        self.forwards += 1;
        self.forwards_total += 1;
        Some((key, entry))
    }

    fn resume(&mut self, key: Key, entry: &Entry) {
        if let Some(Thing::Pair(pair)) = self.slab.get_mut(key)
            && pair.resume(&self.carrier, &self.epoll, key, entry) == After::Ends
        {
            self.close(key);
        }
    }

    /// Starts a keeper, in the place of the predecessor's. Where there can be none, what is carried ends with this netd.
    pub(super) fn start_keeper(&mut self, before: Option<&Predecessor>) {
        let now = Instant::now();
        self.next_keeper = None;
        self.keeper_since = now;
        let Some(keeping) = &self.keeping else { return };
        let Ok(keeper) = keeping.start(self.carrier.ledger.fd(), before) else {
            self.next_keeper = Some(now + KEEPER_PAUSE);
            return;
        };
        let key = self.slab.reserve();
        let watched = self
            .epoll
            .add(keeper.pidfd.as_fd(), key.token(0), EventFlags::IN);
        // One that is not watched keeps as well.
        drop(watched);
        self.slab.put(key, Thing::Keeper(keeper));
        self.keeper = Some(key);
    }

    /// Has the keeper replaced that somebody has ended.
    pub(super) fn keeper_lost(&mut self) {
        self.keeper = None;
        let now = Instant::now();
        let pause = if now - self.keeper_since < KEEPER_LIVED {
            KEEPER_LIVED
        } else {
            Duration::ZERO
        };
        self.next_keeper = Some(now + pause);
    }

    /// Ends the keeper: nothing is to outlive this netd.
    pub(crate) fn end_keeper(&mut self) -> io::Result<()> {
        let keeper = self.keeper.take().and_then(|key| self.slab.remove(key));
        match (keeper, &self.keeping) {
            (Some(Thing::Keeper(child)), Some(keeping)) => keeping.end(&child),
            _ => Ok(()),
        }
    }
}
