//! Published ports: chosen, reserved, led to the container, taken back.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use gantry_api::error::errno_text;
use gantry_api::port::{Protocol, Reservation, ReserveError};
use gantry_sys::netlink::{Batch, conntrack, route};
use gantry_sys::nft::{Element, Family, Transaction};

use super::{Shared, Stack, lock};
use crate::firewall::{self, Publication};
use crate::ports::{self, FALLBACK_RANGE};
use crate::{Endpoint, Error, PortMapping, PortRange, PublishedPort, Report};

/// How many ports of a range are tried before it counts as taken by others.
const ATTEMPTS_MAX: usize = 4096;

fn reservation(endpoint: &Endpoint, port: &PublishedPort) -> Reservation {
    Reservation {
        protocol: port.protocol,
        address: port.ip,
        port: port.host_port,
        target: SocketAddr::from((endpoint.ipv4, port.container_port)),
    }
}

fn refused(endpoint: &Endpoint, ports: &[PublishedPort], error: ReserveError) -> Error {
    let container = |address: IpAddr, port: u16, protocol: Protocol| {
        let found = ports
            .iter()
            .find(|one| one.ip == address && one.host_port == port && one.protocol == protocol);
        SocketAddr::from((endpoint.ipv4, found.map_or(0, |one| one.container_port)))
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

    /// Leads reserved ports to the container.
    pub fn publish(&self, endpoint: &Endpoint, ports: &[PublishedPort]) -> Result<(), Error> {
        if ports.is_empty() {
            return Ok(());
        }
        let shared = &self.shared;
        let publications = publications(endpoint, ports);
        lock(&shared.state)
            .published
            .insert(endpoint.id.clone(), publications.clone());
        if !shared.config.firewall {
            return Ok(());
        }
        shared.add_elements(&publications)?;
        shared.apply_loopback_routing()?;
        shared.allow_hairpin(&endpoint.host_interface)?;
        shared.forget_connections(endpoint, ports)
    }
}

pub(super) fn publications(endpoint: &Endpoint, ports: &[PublishedPort]) -> Vec<Publication> {
    ports
        .iter()
        .map(|&port| Publication {
            port,
            container: endpoint.ipv4,
        })
        .collect()
}

/// Sorts elements by their map.
fn elements(publications: &[Publication]) -> Vec<(&'static str, Vec<Element>)> {
    let mut sorted = vec![
        (firewall::PUBLISHED.name, Vec::new()),
        (firewall::PUBLISHED_AT.name, Vec::new()),
    ];
    for (set, element) in publications.iter().filter_map(firewall::element) {
        for (name, elements) in &mut sorted {
            if *name == set.name {
                elements.push(element.clone());
            }
        }
    }
    sorted.retain(|(_, elements)| !elements.is_empty());
    sorted
}

impl Shared {
    fn reserve_all(
        &self,
        endpoint: &Endpoint,
        mappings: &[PortMapping],
        held: &mut Vec<PublishedPort>,
    ) -> Result<(), Error> {
        let host_binding = lock(&self.state)
            .networks
            .get(&endpoint.network)
            .ok_or_else(|| Error::NetworkNotFound(endpoint.network.clone()))?
            .info
            .host_binding;
        let single =
            |mapping: &PortMapping| mapping.host_port.filter(|range| range.first == range.last);
        // Ports asked for by number go first and together; then those that are free to be elsewhere.
        for mapping in mappings {
            let Some(range) = single(mapping) else {
                continue;
            };
            let addresses = ports::addresses(mapping, host_binding, self.ipv6);
            let mut state = lock(&self.state);
            if let Some(address) = state
                .ports
                .conflict(mapping.protocol, range.first, &addresses)
            {
                return Err(Error::PortAllocated {
                    address,
                    port: range.first,
                    protocol: mapping.protocol,
                });
            }
            state
                .ports
                .take(&endpoint.id, mapping.protocol, range.first, &addresses);
            drop(state);
            held.extend(ports::published(mapping, &addresses, range.first));
        }
        if !held.is_empty() {
            let reservations: Vec<Reservation> = held
                .iter()
                .map(|port| reservation(endpoint, port))
                .collect();
            self.config
                .reserver
                .reserve(&endpoint.id, &reservations)
                .map_err(|error| refused(endpoint, held, error))?;
        }
        for mapping in mappings {
            if single(mapping).is_none() {
                let addresses = ports::addresses(mapping, host_binding, self.ipv6);
                self.reserve_one_of(endpoint, mapping, &addresses, held)?;
            }
        }
        Ok(())
    }

    /// Reserves the first port of a range that nobody has.
    fn reserve_one_of(
        &self,
        endpoint: &Endpoint,
        mapping: &PortMapping,
        addresses: &[IpAddr],
        held: &mut Vec<PublishedPort>,
    ) -> Result<(), Error> {
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
            let reservations: Vec<Reservation> = published
                .iter()
                .map(|port| reservation(endpoint, port))
                .collect();
            match self.config.reserver.reserve(&endpoint.id, &reservations) {
                Ok(()) => {
                    held.extend(published);
                    return Ok(());
                }
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
        if fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables")
            .is_ok_and(|text| text.trim() == "1")
        {
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
        for (set, elements) in elements(publications) {
            transaction.add_elements(Family::Inet, &self.table, set, &elements);
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
        let known = lock(&self.state).published.remove(&endpoint.id);
        if ports.is_empty() && known.is_none() {
            return Ok(());
        }
        let gone = known.unwrap_or_else(|| publications(endpoint, ports));
        let ports: Vec<PublishedPort> = gone.iter().map(|publication| publication.port).collect();
        if self.config.firewall {
            self.apply_loopback_routing()?;
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
        for (set, elements) in elements(publications) {
            transaction.delete_elements(Family::Inet, &self.table, set, &elements);
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
    fn forget_connections(
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
        let failed = || Error::kernel("forget connections of", endpoint.ipv4.to_string());
        let local: Vec<Ipv4Addr> = {
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
                    && (port.ip == IpAddr::V4(to)
                        || port.ip.is_unspecified()
                            && (translated || to.is_loopback() || local.contains(&to)))
            });
            let to_container = translated && entry.reply.source == endpoint.ipv4;
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
