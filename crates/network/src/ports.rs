//! Host ports: which container of this engine has which, and which is the next to try. Pure; the sockets are netd's.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gantry_api::port::Protocol;

use crate::{PortMapping, PortRange, PublishedPort};

/// The kernel's default for `net.ipv4.ip_local_port_range` is 32768 to 60999; without it Docker takes these.
pub const FALLBACK_RANGE: PortRange = PortRange {
    first: 49153,
    last: 65535,
};

/// Reads the text of /proc/sys/net/ipv4/ip_local_port_range.
pub fn parse_port_range(text: &str) -> Option<PortRange> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse::<u16>);
    let (first, last) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (first != 0 && first <= last).then_some(PortRange { first, last })
}

/// Gives the host addresses on which a mapping is published: all of them share one port.
pub fn addresses(mapping: &PortMapping, host_binding: Option<IpAddr>, ipv6: bool) -> Vec<IpAddr> {
    match mapping.ip.or(host_binding) {
        Some(address) => vec![address],
        None if ipv6 => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        None => vec![Ipv4Addr::UNSPECIFIED.into()],
    }
}

/// Says whether two host addresses cannot have one port each: they are the same, or one stands for all of the family.
pub fn collide(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
        && (one == other || one.is_unspecified() || other.is_unspecified())
}

/// All host ports of the engine.
#[derive(Debug, Default)]
pub struct Table {
    taken: HashMap<(Protocol, u16), Vec<(IpAddr, String)>>,
    /// Where the search for a free port goes on, so that a freed port is not given again at once.
    next: HashMap<Protocol, u16>,
}

impl Table {
    /// Finds who stands in the way of a port on these addresses.
    pub fn conflict(&self, protocol: Protocol, port: u16, addresses: &[IpAddr]) -> Option<IpAddr> {
        self.conflict_besides(&[], protocol, port, addresses)
    }

    /// Finds who stands in the way of a mapping whose number on the host is `port`, where `owner` has taken `held` before
    /// it and what `spared` has is in nobody's way. Docker listens for nobody at a UDP port, so it minds as little when
    /// one port of a container is to be there twice, or at all addresses and at one of them.
    pub fn conflict_beside(
        &self,
        mapping: &PortMapping,
        port: u16,
        addresses: &[IpAddr],
        owner: &str,
        held: &[PublishedPort],
        spared: Option<&str>,
    ) -> Option<IpAddr> {
        let is_the_same = |held: &PublishedPort| {
            mapping.protocol == Protocol::Udp && held.container_port == mapping.container_port
        };
        let mut own = held
            .iter()
            .filter(|held| held.protocol == mapping.protocol && held.host_port == port)
            .filter(|held| !is_the_same(held))
            .map(|held| held.ip);
        let in_the_way = |taken: &IpAddr| addresses.iter().any(|&one| collide(*taken, one));
        own.find(in_the_way).or_else(|| {
            let besides: Vec<&str> = spared.into_iter().chain([owner]).collect();
            self.conflict_besides(&besides, mapping.protocol, port, addresses)
        })
    }

    fn conflict_besides(
        &self,
        spared: &[&str],
        protocol: Protocol,
        port: u16,
        addresses: &[IpAddr],
    ) -> Option<IpAddr> {
        let taken = self.taken.get(&(protocol, port))?;
        let others = || {
            let others = taken.iter();
            others
                .filter(|(_, owner)| !spared.contains(&owner.as_str()))
                .map(|(taken, _)| *taken)
        };
        // Docker names the very address that was asked for, if somebody has it.
        let same = others().find(|taken| addresses.contains(taken));
        same.or_else(|| others().find(|taken| addresses.iter().any(|&one| collide(*taken, one))))
    }

    /// Notes that `owner` has a port on these addresses.
    pub fn take(&mut self, owner: &str, protocol: Protocol, port: u16, addresses: &[IpAddr]) {
        if addresses.is_empty() {
            return;
        }
        let entry = self.taken.entry((protocol, port)).or_default();
        for &address in addresses {
            let new = (address, owner.to_owned());
            if !entry.contains(&new) {
                entry.push(new);
            }
        }
    }

    /// Says whether `owner` has a port on this address.
    pub fn has(&self, owner: &str, protocol: Protocol, port: u16, address: IpAddr) -> bool {
        let taken = self.taken.get(&(protocol, port));
        taken.is_some_and(|all| {
            all.iter()
                .any(|(taken, by)| *taken == address && by == owner)
        })
    }

    /// Frees a port on one address.
    pub fn free(&mut self, owner: &str, protocol: Protocol, port: u16, address: IpAddr) {
        if let Some(entry) = self.taken.get_mut(&(protocol, port)) {
            entry.retain(|(taken, by)| *taken != address || by != owner);
            if entry.is_empty() {
                self.taken.remove(&(protocol, port));
            }
        }
    }

    /// Finds a free port of `range` that is not in `refused`. A range asked for is searched from its start, the
    /// dynamic one from where the last search ended.
    pub fn find(
        &mut self,
        protocol: Protocol,
        range: PortRange,
        dynamic: bool,
        addresses: &[IpAddr],
        refused: &[u16],
    ) -> Option<u16> {
        let start = self
            .next
            .get(&protocol)
            .copied()
            .filter(|next| dynamic && (range.first..=range.last).contains(next))
            .unwrap_or(range.first);
        let found = (start..=range.last)
            .chain(range.first..start)
            .find(|port| {
                !refused.contains(port) && self.conflict(protocol, *port, addresses).is_none()
            })?;
        if dynamic {
            self.next
                .insert(protocol, found.checked_add(1).unwrap_or(range.first));
        }
        Some(found)
    }
}

/// Makes the published ports of one mapping.
pub fn published(
    mapping: &PortMapping,
    addresses: &[IpAddr],
    host_port: u16,
) -> Vec<PublishedPort> {
    addresses
        .iter()
        .map(|&ip| PublishedPort {
            ip,
            host_port,
            container_port: mapping.container_port,
            protocol: mapping.protocol,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn conflicts_are_by_protocol_family_and_address() {
        let mut table = Table::default();
        table.take("a", Protocol::Tcp, 80, &[ip("0.0.0.0"), ip("::")]);
        let check = |table: &Table, protocol, port, address: &str| {
            table.conflict(protocol, port, &[ip(address)])
        };
        assert_eq!(
            check(&table, Protocol::Tcp, 80, "127.0.0.1"),
            Some(ip("0.0.0.0"))
        );
        assert_eq!(check(&table, Protocol::Tcp, 80, "::1"), Some(ip("::")));
        assert_eq!(check(&table, Protocol::Udp, 80, "127.0.0.1"), None);
        assert_eq!(check(&table, Protocol::Tcp, 81, "127.0.0.1"), None);
        table.free("b", Protocol::Tcp, 80, ip("::"));
        assert_eq!(check(&table, Protocol::Tcp, 80, "::1"), Some(ip("::")));
        table.free("a", Protocol::Tcp, 80, ip("::"));
        assert_eq!(check(&table, Protocol::Tcp, 80, "::1"), None);
        table.take("c", Protocol::Tcp, 90, &[ip("127.0.0.1")]);
        assert_eq!(check(&table, Protocol::Tcp, 90, "127.0.0.2"), None);
        assert_eq!(
            check(&table, Protocol::Tcp, 90, "0.0.0.0"),
            Some(ip("127.0.0.1"))
        );
    }

    #[test]
    fn dynamic_ports_go_on_and_ranges_start_anew() {
        let mut table = Table::default();
        let range = PortRange {
            first: 32768,
            last: 32770,
        };
        let any = [ip("0.0.0.0")];
        let mut find =
            |dynamic, refused: &[u16]| table.find(Protocol::Tcp, range, dynamic, &any, refused);
        assert_eq!(find(true, &[]), Some(32768));
        assert_eq!(find(true, &[]), Some(32769));
        assert_eq!(find(true, &[32770]), Some(32768));
        assert_eq!(find(false, &[]), Some(32768));
        assert_eq!(find(false, &[32768, 32769, 32770]), None);
    }

    #[test]
    fn a_mapping_without_address_is_published_on_both_families() {
        let mapping = PortMapping {
            ip: None,
            host_port: None,
            container_port: 80,
            protocol: Protocol::Tcp,
        };
        assert_eq!(addresses(&mapping, None, true), [ip("0.0.0.0"), ip("::")]);
        assert_eq!(addresses(&mapping, None, false), [ip("0.0.0.0")]);
        assert_eq!(
            addresses(&mapping, Some(ip("127.0.0.1")), true),
            [ip("127.0.0.1")]
        );
        let ports = published(&mapping, &[ip("0.0.0.0"), ip("::")], 9);
        assert_eq!(ports.len(), 2);
        assert_eq!(
            (ports[1].ip, ports[1].host_port, ports[1].container_port),
            (ip("::"), 9, 80)
        );
    }

    #[test]
    fn the_kernels_range_is_read() {
        let check = |text| parse_port_range(text).map(|range| (range.first, range.last));
        assert_eq!(check("32768\t60999\n"), Some((32768, 60999)));
        assert_eq!(check("9 1"), None);
        assert_eq!(check(""), None);
    }
}
