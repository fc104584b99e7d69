//! A rule in words: what it matches and does, lowered to nf_tables' instructions or printed as nft prints it.

use std::fmt;

use gantry_sys::nft::{Base, Cmp, CtKey, Expression, Family, Key, MetaKey, Verdict, register};
use ipnet::Ipv4Net;

/// A condition on a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    Ipv4,
    DestinationIsLocal,
    Input(String),
    InputIsNot(String),
    OutputIsNot(String),
    InputIsNoBridge,
    OutputIsNoBridge,
    Source(Ipv4Net),
    Destination(Ipv4Net),
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

fn network(offset: u32, net: Ipv4Net) -> Vec<Expression> {
    let octets = usize::from(net.prefix_len() / 8);
    let whole = net.prefix_len().is_multiple_of(8) && octets > 0;
    // A mask of whole bytes is a shorter load, as nft does it.
    let length = if whole { octets } else { 4 };
    let mut expressions = vec![
        // An inet chain sees IPv6 as well.
        Expression::Meta {
            key: MetaKey::NfProto,
            to: R0,
        },
        compare(Cmp::Equal, vec![IPV4]),
        Expression::Payload {
            base: Base::Network,
            offset,
            length: length as u32,
            to: R0,
        },
    ];
    if !whole {
        expressions.push(Expression::And {
            register: R0,
            mask: net.netmask().octets().to_vec(),
        });
    }
    expressions.push(compare(
        Cmp::Equal,
        net.network().octets()[..length].to_vec(),
    ));
    expressions
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
            Self::Source(net) => into.extend(network(12, *net)),
            Self::Destination(net) => into.extend(network(16, *net)),
            Self::Established => into.extend(bits(CtKey::State, CT_ESTABLISHED | CT_RELATED)),
            Self::DestinationTranslated => into.extend(bits(CtKey::Status, IPS_DST_NAT)),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4 => f.write_str("meta nfproto ipv4"),
            Self::DestinationIsLocal => f.write_str("fib daddr type local"),
            Self::Input(name) => write!(f, "iifname \"{name}\""),
            Self::InputIsNot(name) => write!(f, "iifname != \"{name}\""),
            Self::OutputIsNot(name) => write!(f, "oifname != \"{name}\""),
            Self::InputIsNoBridge => f.write_str("meta iifkind != \"bridge\""),
            Self::OutputIsNoBridge => f.write_str("meta oifkind != \"bridge\""),
            Self::Source(net) => write!(f, "ip saddr {net}"),
            Self::Destination(net) => write!(f, "ip daddr {net}"),
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
            Self::DestinationNat(set) => into.extend(destination_nat(set, 0)),
            Self::DestinationNatAt(set) => {
                // nft prints this load as part of `ip daddr`.
                into.extend(meta(MetaKey::NfProto, Cmp::Equal, vec![IPV4]));
                into.push(Expression::Payload {
                    base: Base::Network,
                    offset: 16,
                    length: 4,
                    to: R0,
                });
                into.extend(destination_nat(set, 1));
            }
        }
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

/// Looks protocol and destination port up, after `before` registers of key that are loaded already.
fn destination_nat(set: &str, before: u32) -> [Expression; 4] {
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
        Expression::Lookup {
            key: Key {
                set: set.to_owned(),
                register: R0,
            },
            to: Some(R0),
        },
        Expression::DestinationNat {
            family: Family::Ipv4,
            address: R0,
            port: register(1),
        },
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
