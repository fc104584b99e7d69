//! The engine's firewall table as data: what must stand in the kernel, in words and in instructions.
//!
//! One `inet` table per engine, named after its id. Chains are made once per bridge; a published port is one element
//! of an exact-match hash map, so that the ten thousandth costs what the first did (interval maps are cloned at each
//! commit). A container without published ports needs no element at all. [`desired`] gives the whole table and
//! [`addition`] what one more bridge adds to it; `chains` holds the rules, `text` prints them with the reason of each,
//! `diff` compares them with the kernel.

use std::net::{IpAddr, Ipv6Addr};

use gantry_sys::nft::{
    BaseChain, Element, ElementValue, IFNAME, INET_PROTO, INET_SERVICE, IPV4_ADDR, IPV6_ADDR, Set,
    Value, Verdict,
};
use ipnet::{IpNet, Ipv6Net};

use crate::{GatewayMode, PublishedPort};

mod chains;
pub mod diff;
pub mod foreign;
pub mod rule;
mod text;

pub use rule::{Action, Match, Rule, interface_key};

/// How many characters of the engine's id names carry.
pub const ID_CHARS: usize = 12;

const fn map(
    name: &'static str,
    key: &'static [gantry_sys::nft::Type],
    value: &'static [gantry_sys::nft::Type],
) -> Set {
    Set {
        name,
        key,
        value: Some(Value::Data(value)),
    }
}

const fn verdicts(name: &'static str) -> Set {
    Set {
        name,
        key: &[IFNAME],
        value: Some(Value::Verdict),
    }
}

/// Ports published on every address, and on one, of each family.
pub const PUBLISHED: Set = map(
    "published",
    &[INET_PROTO, INET_SERVICE],
    &[IPV4_ADDR, INET_SERVICE],
);
pub const PUBLISHED_AT: Set = map(
    "published-at",
    &[IPV4_ADDR, INET_PROTO, INET_SERVICE],
    &[IPV4_ADDR, INET_SERVICE],
);
pub const PUBLISHED6: Set = map(
    "published6",
    &[INET_PROTO, INET_SERVICE],
    &[IPV6_ADDR, INET_SERVICE],
);
pub const PUBLISHED6_AT: Set = map(
    "published6-at",
    &[IPV6_ADDR, INET_PROTO, INET_SERVICE],
    &[IPV6_ADDR, INET_SERVICE],
);
/// Containers' own addresses and ports that may be reached without a rewritten destination.
pub const DIRECT: Set = Set {
    name: "direct",
    key: &[IPV4_ADDR, INET_PROTO, INET_SERVICE],
    value: None,
};
pub const DIRECT6: Set = Set {
    name: "direct6",
    key: &[IPV6_ADDR, INET_PROTO, INET_SERVICE],
    value: None,
};
/// Ports of the host's that netd answers, on every address and on one, of each family.
pub const CARRIED: Set = Set {
    name: "carried",
    key: &[INET_PROTO, INET_SERVICE],
    value: None,
};
pub const CARRIED_AT: Set = Set {
    name: "carried-at",
    key: &[IPV4_ADDR, INET_PROTO, INET_SERVICE],
    value: None,
};
pub const CARRIED6: Set = Set {
    name: "carried6",
    ..CARRIED
};
pub const CARRIED6_AT: Set = Set {
    name: "carried6-at",
    key: &[IPV6_ADDR, INET_PROTO, INET_SERVICE],
    value: None,
};
/// All bridges of the engine's.
pub const BRIDGES: Set = Set {
    name: "bridges",
    key: &[IFNAME],
    value: None,
};
/// Bridges whose containers may not talk to each other.
pub const WITHOUT_ICC: Set = Set {
    name: "without-icc",
    key: &[IFNAME],
    value: None,
};
/// Bridges of internal networks.
pub const INTERNAL: Set = Set {
    name: "internal",
    ..WITHOUT_ICC
};
pub const FORWARD_TO: Set = verdicts("forward-to");
pub const FORWARD_FROM: Set = verdicts("forward-from");
pub const SOURCE_TO: Set = verdicts("source-to");
pub const SOURCE_FROM: Set = verdicts("source-from");

/// All sets, in the order in which they are printed.
const SETS: [Set; 17] = [
    PUBLISHED,
    PUBLISHED_AT,
    PUBLISHED6,
    PUBLISHED6_AT,
    DIRECT,
    DIRECT6,
    CARRIED,
    CARRIED_AT,
    CARRIED6,
    CARRIED6_AT,
    BRIDGES,
    WITHOUT_ICC,
    INTERNAL,
    FORWARD_TO,
    FORWARD_FROM,
    SOURCE_TO,
    SOURCE_FROM,
];

/// A chain and its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    pub base: Option<BaseChain>,
    pub rules: Vec<Rule>,
}

/// A set and its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilledSet {
    pub set: Set,
    pub elements: Vec<Element>,
}

/// A whole table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    pub table: String,
    pub sets: Vec<FilledSet>,
    /// In an order in which each chain comes after those that jump to it.
    pub chains: Vec<Chain>,
}

/// What the firewall must know of one family's addresses on a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    pub net: IpNet,
    pub mode: GatewayMode,
    pub masquerade: bool,
    /// The source address of what leaves; `None` takes the address of the interface it leaves by.
    pub host: Option<IpAddr>,
}

/// What the firewall must know of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    pub interface: String,
    pub subnets: Vec<Subnet>,
    pub icc: bool,
    pub internal: bool,
    /// Interfaces by which published ports are reached at the containers' own addresses.
    pub trusted: Vec<String>,
}

/// What concerns the whole table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// This engine switched forwarding on, so the machine must not become a router between its other interfaces.
    pub guard_ipv4: bool,
    pub guard_ipv6: bool,
    /// Published ports are reached at the containers' own addresses from everywhere.
    pub direct_routing: bool,
}

/// Who leads a published port to its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The firewall rewrites the destination.
    Rewritten,
    /// netd alone, so that the host's own input rules see the connection.
    Carried,
}

/// A published port and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publication {
    pub port: PublishedPort,
    pub container: IpAddr,
    pub way: Way,
    /// The container's own address and port are let through as well.
    pub direct: bool,
}

/// Gives the table's name.
pub fn table_name(engine_id: &str) -> String {
    format!("gantry-{}", short_id(engine_id))
}

/// Gives as much of an id as names carry.
pub fn short_id(id: &str) -> &str {
    id.get(..ID_CHARS).unwrap_or(id)
}

fn padded_port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// Writes an address, a protocol and a port, each padded, as the keys of sets have them.
fn key(address: Option<IpAddr>, publication: &Publication, port: u16) -> Vec<u8> {
    let mut key = octets(address);
    key.extend_from_slice(&[publication.port.protocol.number(), 0, 0, 0]);
    key.extend_from_slice(&padded_port(port));
    key
}

fn octets(address: Option<IpAddr>) -> Vec<u8> {
    match address {
        Some(IpAddr::V4(address)) => address.octets().to_vec(),
        Some(IpAddr::V6(address)) => address.octets().to_vec(),
        None => Vec::new(),
    }
}

/// Says whether the firewall rewrites a port's destination. Between the families it cannot, and what comes from `::1`
/// does not leave the host: netd carries both.
fn is_rewritten(publication: &Publication) -> bool {
    let address = publication.port.ip;
    publication.way == Way::Rewritten
        && publication.port.host_port != 0
        && address.is_ipv4() == publication.container.is_ipv4()
        && address != IpAddr::V6(Ipv6Addr::LOCALHOST)
}

/// Says whether netd answers for a port what comes from a bridge. Nobody there reaches the host's loopback; what goes to
/// a link-local address is netd's whatever the maps say.
fn is_answered_by_netd(publication: &Publication) -> bool {
    let link_local = match publication.port.ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unspecified() || address.is_unicast_link_local(),
    };
    publication.port.host_port != 0
        && !publication.port.ip.is_loopback()
        && (link_local || !is_rewritten(publication))
}

/// Gives the elements of a published port: where its destination is rewritten to, what may be reached directly, and
/// what netd answers.
pub fn elements(publication: &Publication) -> Vec<(Set, Element)> {
    let port = &publication.port;
    let mut found = Vec::new();
    let at = Some(port.ip).filter(|address| !address.is_unspecified());
    if is_rewritten(publication) {
        let set = match (port.ip, at) {
            (IpAddr::V4(_), None) => PUBLISHED,
            (IpAddr::V4(_), Some(_)) => PUBLISHED_AT,
            (IpAddr::V6(_), None) => PUBLISHED6,
            (IpAddr::V6(_), Some(_)) => PUBLISHED6_AT,
        };
        let mut value = octets(Some(publication.container));
        value.extend_from_slice(&padded_port(port.container_port));
        let element = Element {
            key: key(at, publication, port.host_port),
            value: ElementValue::Data(value),
        };
        found.push((set, element));
    }
    if is_answered_by_netd(publication) {
        let set = match (port.ip, at) {
            (IpAddr::V4(_), None) => CARRIED,
            (IpAddr::V4(_), Some(_)) => CARRIED_AT,
            (IpAddr::V6(_), None) => CARRIED6,
            (IpAddr::V6(_), Some(_)) => CARRIED6_AT,
        };
        let element = Element {
            key: key(at, publication, port.host_port),
            value: ElementValue::None,
        };
        found.push((set, element));
    }
    if publication.direct {
        let set = match publication.container {
            IpAddr::V4(_) => DIRECT,
            IpAddr::V6(_) => DIRECT6,
        };
        let element = Element {
            key: key(
                Some(publication.container),
                publication,
                port.container_port,
            ),
            value: ElementValue::None,
        };
        found.push((set, element));
    }
    found
}

/// Says whether a published port is to be reached by the host's IPv4 loopback through the firewall.
pub fn needs_loopback(publication: &Publication) -> bool {
    let address = publication.port.ip;
    address.is_ipv4()
        && (address.is_unspecified() || address.is_loopback())
        && is_rewritten(publication)
}

/// Elements sorted by their set, each once.
#[derive(Debug, Default)]
pub struct Sorted(Vec<(Set, Vec<Element>)>);

impl Sorted {
    fn push(&mut self, set: Set, element: Element) {
        match self.0.iter_mut().find(|(other, _)| *other == set) {
            Some((_, elements)) => elements.push(element),
            None => self.0.push((set, vec![element])),
        }
    }

    /// Sorts the elements of published ports.
    pub fn of(publications: &[Publication]) -> Self {
        let mut sorted = Self::default();
        for (set, element) in publications.iter().flat_map(elements) {
            sorted.push(set, element);
        }
        sorted.settle();
        sorted
    }

    fn settle(&mut self) {
        for (_, elements) in &mut self.0 {
            elements.sort();
            elements.dedup_by(|one, other| one.key == other.key);
        }
    }

    /// Gives each set that has elements.
    pub fn iter(&self) -> impl Iterator<Item = (&Set, &[Element])> {
        self.0
            .iter()
            .map(|(set, elements)| (set, elements.as_slice()))
    }

    fn take(&mut self, set: Set) -> Vec<Element> {
        let position = self.0.iter().position(|(other, _)| *other == set);
        position.map_or_else(Vec::new, |position| self.0.swap_remove(position).1)
    }
}

/// Chains and elements that one bridge adds to the table.
#[derive(Debug, Default)]
pub struct Addition {
    pub chains: Vec<Chain>,
    pub elements: Sorted,
}

/// Gives what a bridge adds to the table.
pub fn addition(bridge: &Bridge, options: &Options) -> Addition {
    let mut addition = Addition::default();
    for (set, rules) in [
        (FORWARD_TO, chains::forward_to(bridge, options)),
        (FORWARD_FROM, chains::forward_from(bridge)),
        (SOURCE_TO, chains::source_to(bridge)),
        (SOURCE_FROM, chains::source_from(bridge)),
    ] {
        if rules.is_empty() {
            continue;
        }
        let name = format!("{}-{}", set.name, bridge.interface);
        let element = Element {
            key: interface_key(&bridge.interface),
            value: ElementValue::Verdict(Verdict::Jump(name.clone())),
        };
        addition.elements.push(set, element);
        addition.chains.push(Chain {
            name,
            base: None,
            rules,
        });
    }
    for (set, belongs) in [
        (BRIDGES, true),
        (WITHOUT_ICC, !bridge.icc && !bridge.internal),
        (INTERNAL, bridge.internal),
    ] {
        if belongs {
            let element = Element {
                key: interface_key(&bridge.interface),
                value: ElementValue::None,
            };
            addition.elements.push(set, element);
        }
    }
    addition
}

/// Gives the table that must stand.
pub fn desired(
    table: &str,
    bridges: &[Bridge],
    publications: &[Publication],
    options: &Options,
) -> Ruleset {
    let mut chains = chains::common(options);
    let mut elements = Sorted::of(publications);
    for bridge in bridges {
        let addition = addition(bridge, options);
        chains.extend(addition.chains);
        for (set, found) in addition.elements.0 {
            for element in found {
                elements.push(set, element);
            }
        }
    }
    elements.settle();
    let sets = SETS
        .into_iter()
        .map(|set| FilledSet {
            set,
            elements: elements.take(set),
        })
        .collect();
    Ruleset {
        table: table.to_owned(),
        sets,
        chains,
    }
}

const IPV6_LOOPBACK: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
const IPV6_LINK_LOCAL: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
