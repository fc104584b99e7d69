//! A rule in words: what it matches and does, lowered to nf_tables' instructions or printed as nft prints it.

use std::fmt;
use std::net::IpAddr;

use gantry_sys::nft::{Base, Cmp, CtKey, Expression, Family, Key, MetaKey, Verdict, register};
use ipnet::IpNet;

/// A condition on a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    Ipv4,
    Ipv6,
    /// The messages of the family's control protocol.
    Icmp,
    Icmp6,
    DestinationIsLocal,
    /// Destination address, protocol and port stand in a set.
    DestinationIn(&'static str),
    Destination6In(&'static str),
    /// Protocol and destination port stand in a set.
    PortIn(&'static str),
    Input(String),
    /// The input interface stands in a set.
    InputIn(&'static str),
    InputIsNot(String),
    OutputIsNot(String),
    InputIsNoBridge,
    OutputIsNoBridge,
    Source(IpNet),
    Destination(IpNet),
    Established,
    DestinationTranslated,
}

/// What happens to a packet that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Accept,
    Drop,
    CountedDrop,
    Return,
    Jump(String),
    Masquerade,
    /// The verdict comes from a map of output interfaces.
    OutputInterfaceMap(&'static str),
    /// The verdict comes from a map of input interfaces.
    InputInterfaceMap(&'static str),
    /// New destination from a map by protocol and port.
    DestinationNat(&'static str),
    /// New destination from a map by address, protocol and port.
    DestinationNatAt(&'static str),
    /// The same for IPv6.
    DestinationNat6(&'static str),
    DestinationNat6At(&'static str),
    SourceNat(IpAddr),
}

/// A rule and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub matches: Vec<Match>,
    pub action: Action,
    /// A few words that stand in the kernel as the rule's comment.
    pub label: &'static str,
    /// The reason, for the documentation.
    pub why: &'static str,
}

const IPV4: u8 = 2;
const IPV6: u8 = 10;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const RTN_LOCAL: u32 = 2;
const CT_ESTABLISHED: u32 = 2;
const CT_RELATED: u32 = 4;
const IPS_DST_NAT: u32 = 1 << 5;
const R0: u32 = register(0);

/// Gives an interface's name as a 16-byte key.
pub fn interface_key(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(16, 0);
    key
}

fn compare(operator: Cmp, value: Vec<u8>) -> Expression {
    Expression::Cmp {
        register: R0,
        operator,
        value,
    }
}

fn meta(key: MetaKey, operator: Cmp, value: Vec<u8>) -> [Expression; 2] {
    [Expression::Meta { key, to: R0 }, compare(operator, value)]
}

/// An end of a packet's way, and where in the header its address stands.
#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

/// Loads the family's address of an end, after making sure that the packet is of this family: an inet chain sees both.
fn load_address(family: Family, end: End, length: usize) -> [Expression; 3] {
    let (number, offset) = match (family, end) {
        (Family::Ipv6, End::Source) => (IPV6, 8),
        (Family::Ipv6, End::Destination) => (IPV6, 24),
        (_, End::Source) => (IPV4, 12),
        (_, End::Destination) => (IPV4, 16),
    };
    let [load, check] = meta(MetaKey::NfProto, Cmp::Equal, vec![number]);
    let payload = Expression::Payload {
        base: Base::Network,
        offset,
        length: length as u32,
        to: R0,
    };
    [load, check, payload]
}

fn network(end: End, net: IpNet) -> Vec<Expression> {
    let (family, address, mask) = match net.trunc() {
        IpNet::V4(net) => (
            Family::Ipv4,
            net.addr().octets().to_vec(),
            net.netmask().octets().to_vec(),
        ),
        IpNet::V6(net) => (
            Family::Ipv6,
            net.addr().octets().to_vec(),
            net.netmask().octets().to_vec(),
        ),
    };
    let octets = usize::from(net.prefix_len() / 8);
    let whole = net.prefix_len().is_multiple_of(8) && octets > 0;
    // A mask of whole bytes is a shorter load, as nft does it.
    let length = if whole { octets } else { address.len() };
    let mut expressions = load_address(family, end, length).to_vec();
    if !whole {
        expressions.push(Expression::And { register: R0, mask });
    }
    expressions.push(compare(Cmp::Equal, address[..length].to_vec()));
    expressions
}

/// Says how many registers an address fills.
fn registers(family: Family) -> u32 {
    if family == Family::Ipv6 { 4 } else { 1 }
}

/// Loads protocol and destination port behind `before` registers of key.
fn load_port(before: u32) -> [Expression; 2] {
    [
        Expression::Meta {
            key: MetaKey::L4Proto,
            to: register(before),
        },
        Expression::Payload {
            base: Base::Transport,
            offset: 2,
            length: 2,
            to: register(before + 1),
        },
    ]
}

fn lookup(set: &str, to: Option<u32>) -> Expression {
    Expression::Lookup {
        key: Key {
            set: set.to_owned(),
            register: R0,
        },
        to,
    }
}

fn destination_in(family: Family, set: &str, into: &mut Vec<Expression>) {
    let length = registers(family) * 4;
    into.extend(load_address(family, End::Destination, length as usize));
    into.extend(load_port(registers(family)));
    into.push(lookup(set, None));
}

/// Looks protocol and destination port up, `at` the destination address or at any, and rewrites the destination.
fn destination_nat(family: Family, set: &str, at: bool, into: &mut Vec<Expression>) {
    let mut before = 0;
    if at {
        before = registers(family);
        into.extend(load_address(family, End::Destination, before as usize * 4));
    }
    into.extend(load_port(before));
    into.push(lookup(set, Some(R0)));
    into.push(Expression::DestinationNat {
        family,
        address: R0,
        port: register(registers(family)),
    });
}

fn bits(key: CtKey, mask: u32) -> Vec<Expression> {
    vec![
        Expression::Ct { key, to: R0 },
        Expression::And {
            register: R0,
            mask: mask.to_ne_bytes().to_vec(),
        },
        compare(Cmp::NotEqual, vec![0; 4]),
    ]
}

impl Match {
    fn lower(&self, into: &mut Vec<Expression>) {
        match self {
            Self::Ipv4 => into.extend(meta(MetaKey::NfProto, Cmp::Equal, vec![IPV4])),
            Self::Ipv6 => into.extend(meta(MetaKey::NfProto, Cmp::Equal, vec![IPV6])),
            Self::Icmp => into.extend(meta(MetaKey::L4Proto, Cmp::Equal, vec![ICMP])),
            Self::Icmp6 => into.extend(meta(MetaKey::L4Proto, Cmp::Equal, vec![ICMP6])),
            Self::DestinationIn(set) => destination_in(Family::Ipv4, set, into),
            Self::Destination6In(set) => destination_in(Family::Ipv6, set, into),
            Self::PortIn(set) => {
                into.extend(load_port(0));
                into.push(lookup(set, None));
            }
            Self::InputIn(set) => {
                into.push(Expression::Meta {
                    key: MetaKey::IifName,
                    to: R0,
                });
                into.push(lookup(set, None));
            }
            Self::DestinationIsLocal => {
                into.push(Expression::FibDestinationType { to: R0 });
                into.push(compare(Cmp::Equal, RTN_LOCAL.to_ne_bytes().to_vec()));
            }
            Self::Input(name) => {
                into.extend(meta(MetaKey::IifName, Cmp::Equal, interface_key(name)))
            }
            Self::InputIsNot(name) => {
                into.extend(meta(MetaKey::IifName, Cmp::NotEqual, interface_key(name)))
            }
            Self::OutputIsNot(name) => {
                into.extend(meta(MetaKey::OifName, Cmp::NotEqual, interface_key(name)))
            }
            Self::InputIsNoBridge => into.extend(meta(
                MetaKey::IifKind,
                Cmp::NotEqual,
                interface_key("bridge"),
            )),
            Self::OutputIsNoBridge => into.extend(meta(
                MetaKey::OifKind,
                Cmp::NotEqual,
                interface_key("bridge"),
            )),
            Self::Source(net) => into.extend(network(End::Source, *net)),
            Self::Destination(net) => into.extend(network(End::Destination, *net)),
            Self::Established => into.extend(bits(CtKey::State, CT_ESTABLISHED | CT_RELATED)),
            Self::DestinationTranslated => into.extend(bits(CtKey::Status, IPS_DST_NAT)),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4 => f.write_str("meta nfproto ipv4"),
            Self::Ipv6 => f.write_str("meta nfproto ipv6"),
            Self::Icmp => f.write_str("meta l4proto icmp"),
            Self::Icmp6 => f.write_str("meta l4proto ipv6-icmp"),
            Self::DestinationIn(set) => write!(f, "ip daddr . meta l4proto . th dport @{set}"),
            Self::Destination6In(set) => write!(f, "ip6 daddr . meta l4proto . th dport @{set}"),
            Self::PortIn(set) => write!(f, "meta l4proto . th dport @{set}"),
            Self::InputIn(set) => write!(f, "iifname @{set}"),
            Self::DestinationIsLocal => f.write_str("fib daddr type local"),
            Self::Input(name) => write!(f, "iifname \"{name}\""),
            Self::InputIsNot(name) => write!(f, "iifname != \"{name}\""),
            Self::OutputIsNot(name) => write!(f, "oifname != \"{name}\""),
            Self::InputIsNoBridge => f.write_str("meta iifkind != \"bridge\""),
            Self::OutputIsNoBridge => f.write_str("meta oifkind != \"bridge\""),
            Self::Source(net) => write_network(f, "saddr", *net),
            Self::Destination(net) => write_network(f, "daddr", *net),
            Self::Established => f.write_str("ct state established,related"),
            Self::DestinationTranslated => f.write_str("ct status dnat"),
        }
    }
}

impl Action {
    fn lower(&self, into: &mut Vec<Expression>) {
        let verdict = |verdict| Expression::Verdict(verdict);
        match self {
            Self::Accept => into.push(verdict(Verdict::Accept)),
            Self::Drop => into.push(verdict(Verdict::Drop)),
            Self::CountedDrop => into.extend([Expression::Counter, verdict(Verdict::Drop)]),
            Self::Return => into.push(verdict(Verdict::Return)),
            Self::Jump(chain) => into.push(verdict(Verdict::Jump(chain.clone()))),
            Self::Masquerade => into.push(Expression::Masquerade),
            Self::OutputInterfaceMap(set) => into.extend(interface_map(MetaKey::OifName, set)),
            Self::InputInterfaceMap(set) => into.extend(interface_map(MetaKey::IifName, set)),
            Self::DestinationNat(set) => destination_nat(Family::Ipv4, set, false, into),
            Self::DestinationNatAt(set) => destination_nat(Family::Ipv4, set, true, into),
            Self::DestinationNat6(set) => destination_nat(Family::Ipv6, set, false, into),
            Self::DestinationNat6At(set) => destination_nat(Family::Ipv6, set, true, into),
            Self::SourceNat(address) => {
                let (family, value) = match address {
                    IpAddr::V4(address) => (Family::Ipv4, address.octets().to_vec()),
                    IpAddr::V6(address) => (Family::Ipv6, address.octets().to_vec()),
                };
                into.push(Expression::Immediate { to: R0, value });
                into.push(Expression::SourceNat {
                    family,
                    address: R0,
                });
            }
        }
    }
}

fn write_network(f: &mut fmt::Formatter<'_>, word: &str, net: IpNet) -> fmt::Result {
    let family = if net.addr().is_ipv4() { "ip" } else { "ip6" };
    write!(f, "{family} {word} ")?;
    // nft writes a single address without its length.
    if net.prefix_len() == net.max_prefix_len() {
        write!(f, "{}", net.addr())
    } else {
        write!(f, "{net}")
    }
}

fn interface_map(key: MetaKey, set: &str) -> [Expression; 2] {
    [
        Expression::Meta { key, to: R0 },
        Expression::VerdictMap(Key {
            set: set.to_owned(),
            register: R0,
        }),
    ]
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::CountedDrop => f.write_str("counter drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::OutputInterfaceMap(set) => write!(f, "oifname vmap @{set}"),
            Self::InputInterfaceMap(set) => write!(f, "iifname vmap @{set}"),
            Self::DestinationNat(set) => write!(f, "dnat ip to meta l4proto . th dport map @{set}"),
            Self::DestinationNatAt(set) => write!(
                f,
                "dnat ip to ip daddr . meta l4proto . th dport map @{set}"
            ),
            Self::DestinationNat6(set) => {
                write!(f, "dnat ip6 to meta l4proto . th dport map @{set}")
            }
            Self::DestinationNat6At(set) => write!(
                f,
                "dnat ip6 to ip6 daddr . meta l4proto . th dport map @{set}"
            ),
            Self::SourceNat(address) => {
                let family = if address.is_ipv4() { "ip" } else { "ip6" };
                write!(f, "snat {family} to {address}")
            }
        }
    }
}

impl Rule {
    /// Gives the instructions.
    pub fn expressions(&self) -> Vec<Expression> {
        let mut into = Vec::new();
        for condition in &self.matches {
            condition.lower(&mut into);
        }
        self.action.lower(&mut into);
        into
    }

    /// Gives the comment that stands in the kernel: the label and a check sum of the rule, by which a reconciliation
    /// knows a rule of another version.
    pub fn comment(&self) -> String {
        // FNV-1a; it tells versions apart and keeps nobody out.
        let sum = self.to_string().bytes().fold(0x811c_9dc5_u32, |sum, byte| {
            (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        format!("{} {sum:08x}", self.label)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.matches {
            write!(f, "{condition} ")?;
        }
        write!(f, "{}", self.action)
    }
}
