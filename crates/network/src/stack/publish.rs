//! Published ports: chosen, reserved, led to the container, taken back.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use gantry_api::error::errno_text;
use gantry_api::port::{Protocol, Reservation, ReserveError};
use gantry_sys::netlink::{Batch, conntrack, route};
use gantry_sys::nft::{Family, Transaction};

use super::{Shared, Stack, State, lock};
use crate::firewall::{self, Publication, Sorted, Way};
use crate::ports::{self, FALLBACK_RANGE};
use crate::{
    Endpoint, Error, GatewayMode, NetworkConfig, PortMapping, PortRange, PublishedPort, Report,
};

/// How many ports of a range are tried before it counts as taken by others.
const ATTEMPTS_MAX: usize = 4096;

/// Gives the container's address that a port of the host leads to: of the same family where it has one. netd carries
/// what changes the family.
fn target(endpoint: &Endpoint, host: IpAddr) -> Option<IpAddr> {
    let ipv4 = endpoint.ipv4.map(IpAddr::V4);
    let ipv6 = endpoint.ipv6.map(IpAddr::V6);
    match host {
        IpAddr::V4(_) => ipv4,
        IpAddr::V6(_) => ipv6.or(ipv4),
    }
}

/// Gives what is to be reserved for ports: nothing for those that are reached by the container's own address alone, and one
/// socket for a UDP port that is asked for twice or at all addresses and at one of them.
pub(super) fn reservations(endpoint: &Endpoint, ports: &[PublishedPort]) -> Vec<Reservation> {
    let mut known = HashSet::new();
    let everywhere: HashSet<(u16, u16, bool)> = ports
        .iter()
        .filter(|port| port.protocol == Protocol::Udp && port.ip.is_unspecified())
        .map(|port| (port.host_port, port.container_port, port.ip.is_ipv4()))
        .collect();
    let is_within_another = |port: &PublishedPort| {
        port.protocol == Protocol::Udp
            && !port.ip.is_unspecified()
            && everywhere.contains(&(port.host_port, port.container_port, port.ip.is_ipv4()))
    };
    ports
        .iter()
        .filter(|port| known.insert(**port) && !is_within_another(port))
        .filter(|port| port.host_port != 0)
        .filter_map(|port| {
            Some(Reservation {
                protocol: port.protocol,
                address: port.ip,
                port: port.host_port,
                target: SocketAddr::new(target(endpoint, port.ip)?, port.container_port),
            })
        })
        .collect()
}

pub(super) fn refused(endpoint: &Endpoint, ports: &[PublishedPort], error: ReserveError) -> Error {
    let container = |address: IpAddr, port: u16, protocol: Protocol| {
        let found = ports
            .iter()
            .find(|one| one.ip == address && one.host_port == port && one.protocol == protocol);
        let target = target(endpoint, address).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        SocketAddr::new(target, found.map_or(0, |one| one.container_port))
    };
    match error {
        ReserveError::InUse {
            address,
            port,
            protocol,
        } => Error::PortInUse {
            host: SocketAddr::new(address, port),
            container: container(address, port, protocol),
            protocol,
        },
        ReserveError::NoSuchAddress {
            address,
            port,
            protocol,
        } => Error::PortRefused {
            host: SocketAddr::new(address, port),
            container: container(address, port, protocol),
            protocol,
            reason: "cannot assign requested address".to_owned(),
        },
        // As Docker has it, whose proxy is the first to ask for such a socket.
        ReserveError::Refused {
            address,
            port,
            protocol: Protocol::Sctp,
            source,
        } if matches!(
            source.raw_os_error(),
            Some(libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT)
        ) =>
        {
            Error::ProtocolUnknown {
                host: SocketAddr::new(address, port),
                reason: errno_text(&source),
            }
        }
        ReserveError::Refused {
            address,
            port,
            protocol,
            source,
        } => Error::PortRefused {
            host: SocketAddr::new(address, port),
            container: container(address, port, protocol),
            protocol,
            reason: errno_text(&source),
        },
        unavailable @ ReserveError::Unavailable(_) => Error::Reserver(unavailable),
    }
}

impl Stack {
    /// Chooses and reserves host ports: all or none. Put the answer into the record before `publish`.
    pub fn reserve_ports(
        &self,
        endpoint: &Endpoint,
        mappings: &[PortMapping],
    ) -> Result<Vec<PublishedPort>, Error> {
        let mut held = Vec::new();
        match self.shared.reserve_all(endpoint, mappings, &mut held) {
            Ok(()) => Ok(held),
            Err(error) => {
                self.shared.free_ports(endpoint, &held);
                // The first error is what the caller must know.
                let _ = self.shared.config.reserver.release(&endpoint.id);
                Err(error)
            }
        }
    }

    /// Takes ports back from an endpoint that stays.
    pub fn unpublish(&self, endpoint: &Endpoint, ports: &[PublishedPort]) -> Result<(), Error> {
        self.shared.unpublish(endpoint, ports)
    }

    /// Leads reserved ports to the container.
    pub fn publish(&self, endpoint: &Endpoint, ports: &[PublishedPort]) -> Result<(), Error> {
        if ports.is_empty() {
            return Ok(());
        }
        let shared = &self.shared;
        let (publications, turned) = {
            let mut state = lock(&shared.state);
            let publications = shared.publications(&state, endpoint, ports);
            let turned = state.set_published(endpoint, publications.clone());
            (publications, turned)
        };
        if !shared.config.firewall {
            return Ok(());
        }
        shared.add_elements(&publications)?;
        if turned {
            shared.apply_loopback_routing(Some(&endpoint.network))?;
        }
        shared.allow_hairpin(&endpoint.host_interface)?;
        shared.forget_connections(endpoint, ports)?;
        shared.warn_of_bypass(&publications);
        Ok(())
    }
}

impl State {
    /// Takes the host ports that an endpoint has already.
    pub(super) fn take_ports(&mut self, endpoint: &Endpoint, ports: &[PublishedPort]) {
        for port in ports.iter().filter(|port| port.host_port != 0) {
            self.ports
                .take(&endpoint.id, port.protocol, port.host_port, &[port.ip]);
        }
    }

    /// Notes an endpoint's published ports. Says whether its network now has the first or no longer has any port that
    /// is reached by the host's loopback.
    pub(super) fn set_published(
        &mut self,
        endpoint: &Endpoint,
        publications: Vec<Publication>,
    ) -> bool {
        let count = |publications: &[Publication]| {
            publications
                .iter()
                .filter(|publication| firewall::needs_loopback(publication))
                .count()
        };
        let now = count(&publications);
        let old = if publications.is_empty() {
            self.published.remove(&endpoint.id)
        } else {
            self.published.insert(endpoint.id.clone(), publications)
        };
        let before = old.map_or(0, |publications| count(&publications));
        let Some(network) = self.networks.get_mut(&endpoint.network) else {
            return false;
        };
        let standing = network.loopback_ports;
        network.loopback_ports = (standing + now).saturating_sub(before);
        (standing == 0) != (network.loopback_ports == 0)
    }
}

/// The host's addresses that a mapping is published on, and whether the container's own are let through instead.
pub(super) struct Places {
    pub bound: Vec<IpAddr>,
    pub routed: Vec<IpAddr>,
}

impl Places {
    /// Gives the published ports of a mapping whose number on the host is `number`, IPv4 first.
    pub(super) fn published(&self, mapping: &PortMapping, number: u16) -> Vec<PublishedPort> {
        let mut all = ports::published(mapping, &self.routed, 0);
        all.extend(ports::published(mapping, &self.bound, number));
        all.sort_by_key(|port| port.ip.is_ipv6());
        all
    }
}

impl Shared {
    /// Says how ports are led to an endpoint.
    pub(super) fn publications(
        &self,
        state: &State,
        endpoint: &Endpoint,
        ports: &[PublishedPort],
    ) -> Vec<Publication> {
        let standing = state.networks.get(&endpoint.network);
        let config = match standing.map(|network| &network.config) {
            None => state.down.get(&endpoint.network),
            known => known,
        };
        let Some(NetworkConfig::Bridge(config)) = config else {
            return Vec::new();
        };
        let carried = config.obey_host_firewall || self.config.obey_host_firewall;
        let is_direct = |container: IpAddr| {
            let mode = match container {
                IpAddr::V4(_) => config.gateway_mode_ipv4,
                IpAddr::V6(_) => config.gateway_mode_ipv6,
            };
            mode == GatewayMode::Routed
                || mode == GatewayMode::Nat
                    && (self.config.allow_direct_routing
                        || !config.trusted_host_interfaces.is_empty())
        };
        let mut known = HashSet::new();
        ports
            .iter()
            .filter(|port| known.insert(**port))
            .filter_map(|&port| {
                let container = target(endpoint, port.ip)?;
                Some(Publication {
                    port,
                    container,
                    way: if carried {
                        Way::Carried
                    } else {
                        Way::Rewritten
                    },
                    direct: container.is_ipv4() == port.ip.is_ipv4() && is_direct(container),
                })
            })
            .collect()
    }

    /// Says where a mapping of an endpoint is published.
    pub(super) fn places(
        &self,
        endpoint: &Endpoint,
        mapping: &PortMapping,
    ) -> Result<Places, Error> {
        let state = lock(&self.state);
        let network = state
            .networks
            .get(&endpoint.network)
            .ok_or_else(|| Error::NetworkNotFound(endpoint.network.clone()))?;
        let mut places = Places {
            bound: Vec::new(),
            routed: Vec::new(),
        };
        // Nobody comes into an internal network, and a container on the host's own link needs no port of the host's.
        let Some(config) = network.bridge().filter(|config| !config.internal) else {
            return Ok(places);
        };
        for address in ports::addresses(mapping, config.host_binding, self.ipv6) {
            let mode = match address {
                IpAddr::V4(_) => config.gateway_mode_ipv4,
                // Also where it is carried to the IPv4 address: the family of the host's address decides, as with Docker.
                IpAddr::V6(_) => config.gateway_mode_ipv6,
            };
            if target(endpoint, address).is_none() {
                continue;
            }
            if mode == GatewayMode::Routed {
                places.routed.push(match address {
                    IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                });
            } else {
                places.bound.push(address);
            }
        }
        Ok(places)
    }

    fn reserve_all(
        &self,
        endpoint: &Endpoint,
        mappings: &[PortMapping],
        held: &mut Vec<PublishedPort>,
    ) -> Result<(), Error> {
        // Ports asked for by number go first and together; then those that are free to be elsewhere.
        for mapping in mappings {
            let Some(number) = mapping.single_port() else {
                continue;
            };
            let places = self.places(endpoint, mapping)?;
            let addresses = &places.bound;
            let mut state = lock(&self.state);
            let conflict =
                state
                    .ports
                    .conflict_beside(mapping, number, addresses, &endpoint.id, held, None);
            if let Some(address) = conflict {
                return Err(Error::PortAllocated {
                    address,
                    port: number,
                    protocol: mapping.protocol,
                });
            }
            state
                .ports
                .take(&endpoint.id, mapping.protocol, number, addresses);
            drop(state);
            held.extend(places.published(mapping, number));
        }
        let reservations = reservations(endpoint, held);
        if !reservations.is_empty() {
            self.config
                .reserver
                .reserve(&endpoint.id, &reservations)
                .map_err(|error| refused(endpoint, held, error))?;
        }
        for mapping in mappings {
            if mapping.single_port().is_none() {
                let places = self.places(endpoint, mapping)?;
                let number = self.reserve_one_of(endpoint, mapping, &places.bound)?;
                held.extend(places.published(mapping, number));
            }
        }
        Ok(())
    }

    /// Reserves the first port of a range that nobody has on these addresses; without addresses it is 0.
    pub(super) fn reserve_one_of(
        &self,
        endpoint: &Endpoint,
        mapping: &PortMapping,
        addresses: &[IpAddr],
    ) -> Result<u16, Error> {
        if addresses.is_empty() {
            return Ok(0);
        }
        let dynamic = mapping.host_port.is_none();
        let range = mapping.host_port.unwrap_or_else(local_port_range);
        if range.first == 0 || range.first > range.last {
            return Err(Error::Invalid(format!(
                "invalid port range: {}-{}",
                range.first, range.last
            )));
        }
        let mut refused_ports = Vec::new();
        while refused_ports.len() < ATTEMPTS_MAX {
            let found = {
                let mut state = lock(&self.state);
                let found =
                    state
                        .ports
                        .find(mapping.protocol, range, dynamic, addresses, &refused_ports);
                if let Some(port) = found {
                    state
                        .ports
                        .take(&endpoint.id, mapping.protocol, port, addresses);
                }
                found
            };
            let Some(port) = found else { break };
            let published = ports::published(mapping, addresses, port);
            let reservations = reservations(endpoint, &published);
            match self.config.reserver.reserve(&endpoint.id, &reservations) {
                Ok(()) => return Ok(port),
                Err(error) => {
                    self.free_ports(endpoint, &published);
                    if !matches!(error, ReserveError::InUse { .. }) {
                        return Err(refused(endpoint, &published, error));
                    }
                    refused_ports.push(port);
                }
            }
        }
        Err(Error::PortsExhausted)
    }

    /// Lets a container reach its own published port where br_netfilter is on: the bridge then rewrites the packet
    /// itself and would have to send it back out of the port it came in by. Without br_netfilter the packet goes
    /// through the host and nothing is needed.
    pub(super) fn allow_hairpin(&self, interface: &str) -> Result<(), Error> {
        let filtered = ["iptables", "ip6tables"].into_iter().any(|program| {
            fs::read_to_string(format!("/proc/sys/net/bridge/bridge-nf-call-{program}"))
                .is_ok_and(|text| text.trim() == "1")
        });
        if filtered {
            let failed = || Error::kernel("set up interface", interface);
            let rtnl = lock(&self.rtnl);
            let Some(link) = route::link_by_name(&rtnl, interface).map_err(failed())? else {
                return Ok(());
            };
            let mut batch = Batch::new();
            route::set_hairpin(&mut batch, link.index, true);
            match rtnl.execute(&mut batch) {
                // The container died meanwhile, or its interface is off the bridge.
                Err(error)
                    if matches!(
                        error.errno(),
                        libc::ENODEV | libc::EINVAL | libc::EOPNOTSUPP
                    ) => {}
                answer => answer.map_err(|error| failed()(error.into()))?,
            }
        }
        Ok(())
    }

    pub(super) fn free_ports(&self, endpoint: &Endpoint, ports: &[PublishedPort]) {
        let mut state = lock(&self.state);
        for port in ports {
            state
                .ports
                .free(&endpoint.id, port.protocol, port.host_port, port.ip);
        }
    }

    /// Adds map elements by one transaction. Where the kernel differs from what the state says (a flushed ruleset, a
    /// stale element), the whole table is compared instead.
    fn add_elements(&self, publications: &[Publication]) -> Result<(), Error> {
        let mut transaction = Transaction::new();
        for (set, elements) in Sorted::of(publications).iter() {
            transaction.add_elements(Family::Inet, &self.table, set.name, elements);
        }
        let answer = transaction.commit(&lock(&self.nfnl));
        match answer {
            Err(error) if matches!(error.errno(), libc::ENOENT | libc::EEXIST) => {
                self.apply_firewall(&mut Report::default())
            }
            answer => answer.map_err(|error| {
                Error::kernel("publish ports in table", &*self.table)(error.into())
            }),
        }
    }

    /// Takes back what `publish` and `reserve_ports` did.
    pub(super) fn unpublish(
        &self,
        endpoint: &Endpoint,
        ports: &[PublishedPort],
    ) -> Result<(), Error> {
        let (gone, turned) = {
            let mut state = lock(&self.state);
            let known = state.published.get(&endpoint.id).cloned();
            if ports.is_empty() && known.is_none() {
                return Ok(());
            }
            for waiting in &mut state.waiting {
                if waiting.endpoint.id == endpoint.id {
                    waiting.ports.clear();
                }
            }
            let gone = known.unwrap_or_else(|| self.publications(&state, endpoint, ports));
            (gone, state.set_published(endpoint, Vec::new()))
        };
        let ports: Vec<PublishedPort> = match gone.is_empty() {
            // Of a network that nothing is known of the ports are given back all the same.
            true => ports.to_vec(),
            false => gone.iter().map(|publication| publication.port).collect(),
        };
        if self.config.firewall {
            if turned {
                self.apply_loopback_routing(Some(&endpoint.network))?;
            }
            self.delete_elements(&gone)?;
        }
        self.config
            .reserver
            .release(&endpoint.id)
            .map_err(Error::Reserver)?;
        self.free_ports(endpoint, &ports);
        if self.config.firewall {
            self.forget_connections(endpoint, &ports)?;
        }
        Ok(())
    }

    fn delete_elements(&self, publications: &[Publication]) -> Result<(), Error> {
        let mut transaction = Transaction::new();
        for (set, elements) in Sorted::of(publications).iter() {
            transaction.delete_elements(Family::Inet, &self.table, set.name, elements);
        }
        let answer = transaction.commit(&lock(&self.nfnl));
        match answer {
            // Some were never added or the ruleset was flushed: the comparison removes exactly what is left.
            Err(error) if error.errno() == libc::ENOENT => {
                self.apply_firewall(&mut Report::default())
            }
            answer => answer.map_err(|error| {
                Error::kernel("unpublish ports in table", &*self.table)(error.into())
            }),
        }
    }

    /// Deletes the tracked UDP flows that go by the ports' old way: to whoever had the port, or to the host itself.
    pub(super) fn forget_connections(
        &self,
        endpoint: &Endpoint,
        ports: &[PublishedPort],
    ) -> Result<(), Error> {
        let ports: Vec<&PublishedPort> = ports
            .iter()
            .filter(|port| port.protocol == Protocol::Udp)
            .collect();
        if ports.is_empty() {
            return Ok(());
        }
        let failed = || Error::kernel("forget connections of", endpoint.container_id.as_str());
        let local: Vec<IpAddr> = {
            let rtnl = lock(&self.rtnl);
            let addresses = route::addresses(&rtnl).map_err(failed())?;
            addresses
                .into_iter()
                .map(|address| address.address)
                .collect()
        };
        let nfnl = lock(&self.nfnl);
        for entry in conntrack::entries(&nfnl, Protocol::Udp.number()).map_err(failed())? {
            let to = entry.original.destination;
            let translated = entry.reply.source != to;
            let by_port = ports.iter().any(|port| {
                port.host_port == entry.original.destination_port
                    && (port.ip == to
                        || port.ip.is_unspecified()
                            && port.ip.is_ipv4() == to.is_ipv4()
                            && (translated || to.is_loopback() || local.contains(&to)))
            });
            let to_container = translated
                && endpoint
                    .addresses()
                    .any(|address| address == entry.reply.source);
            if by_port || to_container {
                conntrack::delete(&nfnl, &entry).map_err(failed())?;
            }
        }
        Ok(())
    }
}

fn local_port_range() -> PortRange {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| ports::parse_port_range(&text))
        .unwrap_or(FALLBACK_RANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_go_prints_them() {
        let text = |errno| errno_text(&std::io::Error::from_raw_os_error(errno));
        assert_eq!(text(libc::EACCES), "permission denied");
        assert_eq!(text(libc::EMFILE), "too many open files");
    }
}
