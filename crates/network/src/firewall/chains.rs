//! The rules themselves: the chains that every table has, and those of each bridge.

use std::net::Ipv4Addr;

use gantry_sys::nft::{BaseChain, Hook, Policy};
use ipnet::{IpNet, Ipv4Net};

use super::{
    Action, BRIDGES, Bridge, CARRIED, CARRIED_AT, CARRIED6, CARRIED6_AT, Chain, DIRECT, DIRECT6,
    FORWARD_FROM, FORWARD_TO, INTERNAL, IPV6_LINK_LOCAL, IPV6_LOOPBACK, Match, Options, PUBLISHED,
    PUBLISHED_AT, PUBLISHED6, PUBLISHED6_AT, Rule, SOURCE_FROM, SOURCE_TO, Subnet, WITHOUT_ICC,
};
use crate::GatewayMode;

const LOOPBACK: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8));

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

/// Gives the chains that stand whatever networks there are.
pub(super) fn common(options: &Options) -> Vec<Chain> {
    let chain = |name: &str, base, rules| Chain {
        name: name.to_owned(),
        base,
        rules,
    };
    let mut prerouting = vec![rule(
        &[Match::InputIn(WITHOUT_ICC.name)],
        Action::Return,
        "without icc",
        "Containers that may not talk to each other use published ports through netd, as everybody does with Docker's \
         proxy: their bridge ports are isolated, and with br_netfilter that would hold a rewritten packet up as well.",
    )];
    prerouting.extend(to_this_host());
    vec![
        chain("guard", base("filter", Hook::Prerouting, -300), guard()),
        chain(
            "prerouting",
            base("nat", Hook::Prerouting, -100),
            prerouting,
        ),
        chain("output", base("nat", Hook::Output, -100), to_this_host()),
        chain("input", base("filter", Hook::Input, 0), input()),
        chain("carried-ports", None, carried_ports()),
        chain("published-ports", None, published_ports()),
        chain("published-ports6", None, published_ports6()),
        chain(
            "forward",
            base("filter", Hook::Forward, 0),
            forward(options),
        ),
        chain(
            "postrouting",
            base("nat", Hook::Postrouting, 100),
            vec![
                rule(
                    &[],
                    Action::OutputInterfaceMap(SOURCE_TO.name),
                    "into a bridge",
                    "New connections into a bridge: some need the bridge's own address as their source.",
                ),
                rule(
                    &[],
                    Action::InputInterfaceMap(SOURCE_FROM.name),
                    "out of a bridge",
                    "New connections out of a bridge.",
                ),
            ],
        ),
    ]
}

fn to_this_host() -> Vec<Rule> {
    [
        (Match::Ipv4, "published-ports"),
        (Match::Ipv6, "published-ports6"),
    ]
    .into_iter()
    .map(|(family, chain)| {
        rule(
            &[family, Match::DestinationIsLocal],
            Action::Jump(chain.to_owned()),
            "to this host",
            "A new connection to one of the host's own addresses may be for a published port.",
        )
    })
    .collect()
}

fn guard() -> Vec<Rule> {
    vec![
        rule(
            &[
                Match::InputIsNot("lo".to_owned()),
                Match::Destination(LOOPBACK),
            ],
            Action::Drop,
            "loopback destination",
            "Nobody but the host itself may reach its loopback addresses, although route_localnet lets the kernel \
             route them on bridges with published ports (CVE-2020-8558).",
        ),
        rule(
            &[Match::InputIsNot("lo".to_owned()), Match::Source(LOOPBACK)],
            Action::Drop,
            "loopback source",
            "Nor may anybody else pretend to be a loopback address.",
        ),
    ]
}

fn input() -> Vec<Rule> {
    vec![rule(
        &[Match::InputIn(INTERNAL.name)],
        Action::Jump("carried-ports".to_owned()),
        "out of an internal network",
        "An internal network reaches the host itself and no other network, so also none by netd.",
    )]
}

fn carried_ports() -> Vec<Rule> {
    let why = "netd would carry this to a container of another network.";
    [
        vec![Match::DestinationIn(CARRIED_AT.name)],
        vec![Match::Destination6In(CARRIED6_AT.name)],
        vec![Match::Ipv4, Match::PortIn(CARRIED.name)],
        vec![Match::Ipv6, Match::PortIn(CARRIED6.name)],
    ]
    .into_iter()
    .map(|matches| rule(&matches, Action::CountedDrop, "carried by netd", why))
    .collect()
}

fn published_ports() -> Vec<Rule> {
    vec![
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
    ]
}

fn published_ports6() -> Vec<Rule> {
    vec![
        rule(
            &[Match::Destination(IPV6_LOOPBACK.into())],
            Action::Return,
            "to ::1",
            "What comes from ::1 cannot leave the host; netd carries it.",
        ),
        rule(
            &[Match::Destination(IPV6_LINK_LOCAL.into())],
            Action::Return,
            "to a link-local address",
            "What comes from a link-local address is not forwarded; netd carries it.",
        ),
        rule(
            &[],
            Action::DestinationNat6At(PUBLISHED6_AT.name),
            "published on one address",
            "Ports published on one IPv6 address of the host.",
        ),
        rule(
            &[],
            Action::DestinationNat6(PUBLISHED6.name),
            "published on all addresses",
            "Ports published on every IPv6 address.",
        ),
    ]
}

fn forward(options: &Options) -> Vec<Rule> {
    let mut rules = vec![
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
    for (family, wanted) in [
        (Match::Ipv4, options.guard_ipv4),
        (Match::Ipv6, options.guard_ipv6),
    ] {
        if wanted {
            rules.push(rule(
                &[family, Match::InputIsNoBridge, Match::OutputIsNoBridge],
                Action::Drop,
                "no router",
                "The engine switched forwarding on for its bridges; between other interfaces the host stays what it \
                 was. Bridges of others are spared.",
            ));
        }
    }
    rules
}

pub(super) fn forward_to(bridge: &Bridge, options: &Options) -> Vec<Rule> {
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
        let mut rules = Vec::new();
        if bridge.icc {
            rules.push(from_itself);
        }
        rules.push(drop);
        return rules;
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
    for subnet in &bridge.subnets {
        direct(&mut rules, subnet, bridge, options);
    }
    rules.push(drop);
    rules
}

/// Adds what may be reached by the containers' own addresses.
fn direct(rules: &mut Vec<Rule>, subnet: &Subnet, bridge: &Bridge, options: &Options) {
    let (family, ping, set) = match subnet.net {
        IpNet::V4(_) => (Match::Ipv4, Match::Icmp, DIRECT.name),
        IpNet::V6(_) => (Match::Ipv6, Match::Icmp6, DIRECT6.name),
    };
    let published = match subnet.net {
        IpNet::V4(_) => Match::DestinationIn(set),
        IpNet::V6(_) => Match::Destination6In(set),
    };
    match subnet.mode {
        GatewayMode::NatUnprotected => {
            rules.push(rule(
                &[family.clone(), Match::InputIn(BRIDGES.name)],
                Action::CountedDrop,
                "apart",
                "The engine's bridges stay apart nonetheless, and containers that may not talk to each other have no \
                 way by the host either.",
            ));
            rules.push(rule(
                &[family],
                Action::Accept,
                "unprotected",
                "This network was asked to have every port reached by the containers' own addresses.",
            ));
        }
        GatewayMode::Routed => {
            rules.push(rule(
                std::slice::from_ref(&published),
                Action::Accept,
                "routed",
                "The containers' own addresses are known outside; published ports are reached by them.",
            ));
            rules.push(rule(
                &[ping],
                Action::Accept,
                "routed messages",
                "Without these a routed path cannot be traced and its packet size not found out.",
            ));
        }
        GatewayMode::Nat if options.direct_routing => rules.push(rule(
            &[published],
            Action::Accept,
            "direct routing",
            "The engine was told to let published ports be reached by the containers' own addresses.",
        )),
        GatewayMode::Nat => {
            for interface in &bridge.trusted {
                rules.push(rule(
                    &[Match::Input(interface.clone()), published.clone()],
                    Action::Accept,
                    "trusted interface",
                    "Behind this interface the containers' own addresses may be used, for published ports.",
                ));
            }
        }
        GatewayMode::Isolated => {}
    }
}

pub(super) fn forward_from(bridge: &Bridge) -> Vec<Rule> {
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

pub(super) fn source_to(bridge: &Bridge) -> Vec<Rule> {
    if bridge.internal {
        return Vec::new();
    }
    let nat = || bridge.subnets.iter().filter(|subnet| subnet.mode.is_nat());
    let mut rules: Vec<Rule> = nat()
        .map(|subnet| {
            rule(
                &[Match::Source(subnet.net), Match::DestinationTranslated],
                Action::Masquerade,
                "hairpin",
                "A container that reached a published port of its own network by the host's address: the answer must \
                 come back through the host, or the asker would not know it.",
            )
        })
        .collect();
    if nat().any(|subnet| matches!(subnet.net, IpNet::V4(_))) {
        rules.push(rule(
            &[Match::Source(LOOPBACK)],
            Action::Masquerade,
            "from the host's loopback",
            "A loopback address means nothing outside the host.",
        ));
    }
    rules
}

pub(super) fn source_from(bridge: &Bridge) -> Vec<Rule> {
    if bridge.internal {
        return Vec::new();
    }
    bridge
        .subnets
        .iter()
        .filter(|subnet| subnet.mode.is_nat() && subnet.masquerade)
        .map(|subnet| {
            let (action, why) = match subnet.host {
                Some(host) => (
                    Action::SourceNat(host),
                    "The world does not know the containers' addresses; this network was given one of the host's.",
                ),
                None => (
                    Action::Masquerade,
                    "The world does not know the containers' addresses.",
                ),
            };
            rule(
                &[
                    Match::Source(subnet.net),
                    Match::OutputIsNot(bridge.interface.clone()),
                ],
                action,
                "masquerade",
                why,
            )
        })
        .collect()
}
