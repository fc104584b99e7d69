//! The engine's firewall table as data: what must stand in the kernel, in words and in instructions.
//!
//! One `inet` table per engine, named after its id. Chains are made once per bridge; a published port is one element
//! of an exact-match hash map, so that the ten thousandth costs what the first did (interval maps are cloned at each
//! commit). A container without published ports needs no element at all. [`desired`] gives the whole table, `text`
//! prints it with the reason of each rule, `diff` compares it with the kernel.

use std::net::{IpAddr, Ipv4Addr};

use gantry_api::port::Protocol;
use gantry_sys::nft::{
    BaseChain, Element, ElementValue, Hook, IFNAME, INET_PROTO, INET_SERVICE, IPV4_ADDR, Policy,
    Set, Value, Verdict,
};
use ipnet::Ipv4Net;

use crate::PublishedPort;

pub mod diff;
pub mod foreign;
pub mod rule;
mod text;

pub use rule::{Action, Match, Rule, interface_key};

/// How many characters of the engine's id names carry.
pub const ID_CHARS: usize = 12;

pub const PUBLISHED: Set = Set {
    name: "published",
    key: &[INET_PROTO, INET_SERVICE],
    value: Some(Value::Data(&[IPV4_ADDR, INET_SERVICE])),
};
pub const PUBLISHED_AT: Set = Set {
    name: "published-at",
    key: &[IPV4_ADDR, INET_PROTO, INET_SERVICE],
    value: Some(Value::Data(&[IPV4_ADDR, INET_SERVICE])),
};
pub const FORWARD_TO: Set = Set {
    name: "forward-to",
    key: &[IFNAME],
    value: Some(Value::Verdict),
};
pub const FORWARD_FROM: Set = Set {
    name: "forward-from",
    key: &[IFNAME],
    value: Some(Value::Verdict),
};
pub const SOURCE_TO: Set = Set {
    name: "source-to",
    key: &[IFNAME],
    value: Some(Value::Verdict),
};
pub const SOURCE_FROM: Set = Set {
    name: "source-from",
    key: &[IFNAME],
    value: Some(Value::Verdict),
};

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

/// What the firewall must know of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    pub interface: String,
    pub subnet: Ipv4Net,
    pub icc: bool,
    pub masquerade: bool,
    pub internal: bool,
}

/// A published port and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publication {
    pub port: PublishedPort,
    pub container: Ipv4Addr,
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

/// Gives the map element of a published port; `None` for IPv6, which netd carries.
pub fn element(publication: &Publication) -> Option<(Set, Element)> {
    let port = &publication.port;
    let IpAddr::V4(address) = port.ip else {
        return None;
    };
    let set = if address.is_unspecified() {
        PUBLISHED
    } else {
        PUBLISHED_AT
    };
    let mut key = Vec::with_capacity(12);
    if !address.is_unspecified() {
        key.extend_from_slice(&address.octets());
    }
    key.extend_from_slice(&[port.protocol.number(), 0, 0, 0]);
    key.extend_from_slice(&padded_port(port.host_port));
    let mut value = publication.container.octets().to_vec();
    value.extend_from_slice(&padded_port(port.container_port));
    Some((
        set,
        Element {
            key,
            value: ElementValue::Data(value),
        },
    ))
}

/// Says whether a published port is to be reached by the host's IPv4 loopback through the firewall.
pub fn needs_loopback(port: &PublishedPort) -> bool {
    match port.ip {
        IpAddr::V4(address) => {
            (address.is_unspecified() || address.is_loopback())
                && matches!(
                    port.protocol,
                    Protocol::Tcp | Protocol::Udp | Protocol::Sctp
                )
        }
        IpAddr::V6(_) => false,
    }
}

fn base(kind: &'static str, hook: Hook, priority: i32) -> Option<BaseChain> {
    Some(BaseChain {
        kind,
        hook,
        priority,
        policy: Policy::Accept,
    })
}

fn rule(matches: &[Match], action: Action, label: &'static str, why: &'static str) -> Rule {
    Rule {
        matches: matches.to_vec(),
        action,
        label,
        why,
    }
}

const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);

/// Gives the table that must stand. `guard_forwarding`: this engine switched `ip_forward` on, so the machine must not
/// become a router between its other interfaces.
pub fn desired(
    table: &str,
    bridges: &[Bridge],
    publications: &[Publication],
    guard_forwarding: bool,
) -> Ruleset {
    let mut chains = static_chains(bridges, guard_forwarding);
    let (mut forward_to, mut forward_from) = (Vec::new(), Vec::new());
    let (mut source_to, mut source_from) = (Vec::new(), Vec::new());
    for bridge in bridges {
        let mut add = |prefix: &str, elements: &mut Vec<Element>, rules: Vec<Rule>| {
            if rules.is_empty() {
                return;
            }
            let name = format!("{prefix}-{}", bridge.interface);
            elements.push(Element {
                key: interface_key(&bridge.interface),
                value: ElementValue::Verdict(Verdict::Jump(name.clone())),
            });
            chains.push(Chain {
                name,
                base: None,
                rules,
            });
        };
        add("forward-to", &mut forward_to, forward_to_rules(bridge));
        add(
            "forward-from",
            &mut forward_from,
            forward_from_rules(bridge),
        );
        add("source-to", &mut source_to, source_to_rules(bridge));
        add("source-from", &mut source_from, source_from_rules(bridge));
    }
    let (mut published, mut published_at) = (Vec::new(), Vec::new());
    for (set, element) in publications.iter().filter_map(element) {
        if set == PUBLISHED {
            &mut published
        } else {
            &mut published_at
        }
        .push(element);
    }
    let sets = [
        (PUBLISHED, published),
        (PUBLISHED_AT, published_at),
        (FORWARD_TO, forward_to),
        (FORWARD_FROM, forward_from),
        (SOURCE_TO, source_to),
        (SOURCE_FROM, source_from),
    ]
    .into_iter()
    .map(|(set, mut elements)| {
        elements.sort();
        elements.dedup_by(|one, other| one.key == other.key);
        FilledSet { set, elements }
    })
    .collect();
    Ruleset {
        table: table.to_owned(),
        sets,
        chains,
    }
}

fn static_chains(bridges: &[Bridge], guard_forwarding: bool) -> Vec<Chain> {
    let to_published = || {
        rule(
            &[Match::Ipv4, Match::DestinationIsLocal],
            Action::Jump("published-ports".to_owned()),
            "to this host",
            "A new connection to one of the host's own addresses may be for a published port.",
        )
    };
    let mut prerouting: Vec<Rule> = bridges
        .iter()
        .filter(|bridge| !bridge.icc && !bridge.internal)
        .map(|bridge| {
            rule(
                &[Match::Input(bridge.interface.clone())],
                Action::Return,
                "without icc",
                "Containers that may not talk to each other use published ports through netd, as everybody does with \
                 Docker's proxy: their bridge ports are isolated, and with br_netfilter that would hold a rewritten \
                 packet up as well.",
            )
        })
        .collect();
    prerouting.push(to_published());
    let mut forward = vec![
        rule(
            &[],
            Action::InputInterfaceMap(FORWARD_FROM.name),
            "out of a bridge",
            "First what may not leave: an accept further down would end the search.",
        ),
        rule(
            &[],
            Action::OutputInterfaceMap(FORWARD_TO.name),
            "into a bridge",
            "Packets that leave by one of the engine's bridges: one look-up however many bridges there are.",
        ),
    ];
    if guard_forwarding {
        forward.push(rule(
            &[Match::InputIsNoBridge, Match::OutputIsNoBridge],
            Action::Drop,
            "no router",
            "The engine switched forwarding on for its bridges; between other interfaces the host stays what it was. \
             Bridges of others are spared.",
        ));
    }
    vec![
        Chain {
            name: "guard".to_owned(),
            base: base("filter", Hook::Prerouting, -300),
            rules: vec![
                rule(
                    &[
                        Match::InputIsNot("lo".to_owned()),
                        Match::Destination(LOOPBACK),
                    ],
                    Action::Drop,
                    "loopback destination",
                    "Nobody but the host itself may reach its loopback addresses, although route_localnet lets the \
                     kernel route them on bridges with published ports (CVE-2020-8558).",
                ),
                rule(
                    &[Match::InputIsNot("lo".to_owned()), Match::Source(LOOPBACK)],
                    Action::Drop,
                    "loopback source",
                    "Nor may anybody else pretend to be a loopback address.",
                ),
            ],
        },
        Chain {
            name: "prerouting".to_owned(),
            base: base("nat", Hook::Prerouting, -100),
            rules: prerouting,
        },
        Chain {
            name: "output".to_owned(),
            base: base("nat", Hook::Output, -100),
            rules: vec![to_published()],
        },
        Chain {
            name: "published-ports".to_owned(),
            base: None,
            rules: vec![
                rule(
                    &[],
                    Action::DestinationNatAt(PUBLISHED_AT.name),
                    "published on one address",
                    "Ports published on one address of the host, its IPv4 loopback included.",
                ),
                rule(
                    &[],
                    Action::DestinationNat(PUBLISHED.name),
                    "published on all addresses",
                    "Ports published on every address.",
                ),
            ],
        },
        Chain {
            name: "forward".to_owned(),
            base: base("filter", Hook::Forward, 0),
            rules: forward,
        },
        Chain {
            name: "postrouting".to_owned(),
            base: base("nat", Hook::Postrouting, 100),
            rules: vec![
                rule(
                    &[Match::Ipv4],
                    Action::OutputInterfaceMap(SOURCE_TO.name),
                    "into a bridge",
                    "New connections into a bridge: some need the bridge's own address as their source.",
                ),
                rule(
                    &[Match::Ipv4],
                    Action::InputInterfaceMap(SOURCE_FROM.name),
                    "out of a bridge",
                    "New connections out of a bridge.",
                ),
            ],
        },
    ]
}

fn forward_to_rules(bridge: &Bridge) -> Vec<Rule> {
    let name = &bridge.interface;
    let from_itself = rule(
        &[Match::Input(name.clone())],
        Action::Accept,
        "between containers",
        "Containers of one network talk freely; such packets come here only where br_netfilter is on or where they \
         went by a published port.",
    );
    let drop = rule(
        &[],
        Action::CountedDrop,
        "not published",
        "Everything else: ports that are not published are not reached from outside, even by the container's address.",
    );
    if bridge.internal {
        return vec![from_itself, drop];
    }
    let mut rules = vec![rule(
        &[Match::Established],
        Action::Accept,
        "answers",
        "Answers to what containers asked for.",
    )];
    if bridge.icc {
        rules.push(from_itself);
    }
    rules.push(rule(
        &[Match::DestinationTranslated],
        Action::Accept,
        "published",
        "Connections that came by a published port; nothing else has its destination rewritten.",
    ));
    rules.push(drop);
    rules
}

fn forward_from_rules(bridge: &Bridge) -> Vec<Rule> {
    if !bridge.internal {
        return Vec::new();
    }
    vec![rule(
        &[Match::OutputIsNot(bridge.interface.clone())],
        Action::Drop,
        "internal",
        "An internal network has no way out.",
    )]
}

fn source_to_rules(bridge: &Bridge) -> Vec<Rule> {
    if bridge.internal {
        return Vec::new();
    }
    vec![
        rule(
            &[Match::Source(bridge.subnet), Match::DestinationTranslated],
            Action::Masquerade,
            "hairpin",
            "A container that reached a published port of its own network by the host's address: the answer must come \
             back through the host, or the asker would not know it.",
        ),
        rule(
            &[Match::Source(LOOPBACK)],
            Action::Masquerade,
            "from the host's loopback",
            "A loopback address means nothing outside the host.",
        ),
    ]
}

fn source_from_rules(bridge: &Bridge) -> Vec<Rule> {
    if bridge.internal || !bridge.masquerade {
        return Vec::new();
    }
    vec![rule(
        &[
            Match::Source(bridge.subnet),
            Match::OutputIsNot(bridge.interface.clone()),
        ],
        Action::Masquerade,
        "masquerade",
        "The world does not know the containers' addresses.",
    )]
}
