//! The instructions of nf_tables' little machine: each loads, compares or acts on 32-bit registers.

use super::Family;
use crate::netlink::{Attributes, Batch, be32_of, str_of};

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFT_REG32_00: u32 = 8;
const NFT_REG_VERDICT: u32 = 0;

/// Gives the number of the n-th 32-bit register (0 to 15).
pub const fn register(index: u32) -> u32 {
    NFT_REG32_00 + index
}

/// What to do with a packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    Drop,
    Accept,
    Return,
    Jump(String),
    Goto(String),
}

impl Verdict {
    pub(super) fn encode(&self, batch: &mut Batch) {
        let (code, chain) = match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Return => (-5, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
        };
        let nest = batch.nest(super::NFTA_DATA_VERDICT);
        batch.attribute_be32(super::NFTA_VERDICT_CODE, i32::cast_unsigned(code));
        if let Some(chain) = chain {
            batch.attribute_str(super::NFTA_VERDICT_CHAIN, chain);
        }
        batch.end(nest);
    }

    pub(super) fn decode(attributes: Attributes<'_>) -> Option<Self> {
        let chain = || attributes.find(super::NFTA_VERDICT_CHAIN).map(str_of);
        match attributes
            .find(super::NFTA_VERDICT_CODE)
            .and_then(be32_of)?
            .cast_signed()
        {
            0 => Some(Self::Drop),
            1 => Some(Self::Accept),
            -5 => Some(Self::Return),
            -3 => Some(Self::Jump(chain()?)),
            -4 => Some(Self::Goto(chain()?)),
            _ => None,
        }
    }
}

/// What `meta` reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MetaKey {
    IifName = 6,
    OifName = 7,
    NfProto = 15,
    L4Proto = 16,
    IifKind = 26,
    OifKind = 27,
}

/// What `ct` reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CtKey {
    State = 0,
    Status = 2,
}

/// Which header `payload` counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Base {
    Network = 1,
    Transport = 2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Cmp {
    Equal = 0,
    NotEqual = 1,
}

/// A set to look into and where its key begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub set: String,
    pub register: u32,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    Meta {
        key: MetaKey,
        to: u32,
    },
    Ct {
        key: CtKey,
        to: u32,
    },
    Payload {
        base: Base,
        offset: u32,
        length: u32,
        to: u32,
    },
    /// The kind of the destination address (`fib daddr type`), an RTN_ number.
    FibDestinationType {
        to: u32,
    },
    Cmp {
        register: u32,
        operator: Cmp,
        value: Vec<u8>,
    },
    /// Keeps the bits of `mask`.
    And {
        register: u32,
        mask: Vec<u8>,
    },
    /// Ends the rule unless the set holds the key; `to` takes a map's data.
    Lookup {
        key: Key,
        to: Option<u32>,
    },
    /// Takes the verdict that the map holds for the key.
    VerdictMap(Key),
    Counter,
    Verdict(Verdict),
    /// Rewrites the destination to the address and port that begin in two registers.
    DestinationNat {
        family: Family,
        address: u32,
        port: u32,
    },
    /// Rewrites the source to the address that begins in a register.
    SourceNat {
        family: Family,
        address: u32,
    },
    Masquerade,
    /// Puts a value into a register.
    Immediate {
        to: u32,
        value: Vec<u8>,
    },
}

impl Expression {
    pub(super) fn encode(&self, batch: &mut Batch) {
        let name = match self {
            Self::Meta { .. } => "meta",
            Self::Ct { .. } => "ct",
            Self::Payload { .. } => "payload",
            Self::FibDestinationType { .. } => "fib",
            Self::Cmp { .. } => "cmp",
            Self::And { .. } => "bitwise",
            Self::Lookup { .. } | Self::VerdictMap(_) => "lookup",
            Self::Counter => "counter",
            Self::Verdict(_) | Self::Immediate { .. } => "immediate",
            Self::DestinationNat { .. } | Self::SourceNat { .. } => "nat",
            Self::Masquerade => "masq",
        };
        batch.attribute_str(NFTA_EXPR_NAME, name);
        let data = batch.nest(NFTA_EXPR_DATA);
        match self {
            Self::Meta { key, to } => {
                batch.attribute_be32(2, *key as u32);
                batch.attribute_be32(1, *to);
            }
            Self::Ct { key, to } => {
                batch.attribute_be32(2, *key as u32);
                batch.attribute_be32(1, *to);
            }
            Self::Payload {
                base,
                offset,
                length,
                to,
            } => {
                batch.attribute_be32(1, *to);
                batch.attribute_be32(2, *base as u32);
                batch.attribute_be32(3, *offset);
                batch.attribute_be32(4, *length);
            }
            Self::FibDestinationType { to } => {
                const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
                const NFTA_FIB_F_DADDR: u32 = 2;
                batch.attribute_be32(1, *to);
                batch.attribute_be32(2, NFT_FIB_RESULT_ADDRTYPE);
                batch.attribute_be32(3, NFTA_FIB_F_DADDR);
            }
            Self::Cmp {
                register,
                operator,
                value,
            } => {
                batch.attribute_be32(1, *register);
                batch.attribute_be32(2, *operator as u32);
                data_value(batch, 3, value);
            }
            Self::And { register, mask } => {
                batch.attribute_be32(1, *register);
                batch.attribute_be32(2, *register);
                batch.attribute_be32(3, mask.len() as u32);
                data_value(batch, 4, mask);
                data_value(batch, 5, &vec![0; mask.len()]);
            }
            Self::Lookup { key, to } => {
                batch.attribute_str(1, &key.set);
                batch.attribute_be32(2, key.register);
                if let Some(to) = to {
                    batch.attribute_be32(3, *to);
                }
            }
            Self::VerdictMap(key) => {
                batch.attribute_str(1, &key.set);
                batch.attribute_be32(2, key.register);
                batch.attribute_be32(3, NFT_REG_VERDICT);
            }
            Self::Counter => {
                batch.attribute(1, &0u64.to_be_bytes());
                batch.attribute(2, &0u64.to_be_bytes());
            }
            Self::Verdict(verdict) => {
                batch.attribute_be32(1, NFT_REG_VERDICT);
                let nest = batch.nest(2);
                verdict.encode(batch);
                batch.end(nest);
            }
            Self::DestinationNat {
                family,
                address,
                port,
            } => {
                const NFT_NAT_DNAT: u32 = 1;
                batch.attribute_be32(1, NFT_NAT_DNAT);
                batch.attribute_be32(2, *family as u32);
                batch.attribute_be32(3, *address);
                batch.attribute_be32(5, *port);
            }
            Self::SourceNat { family, address } => {
                const NFT_NAT_SNAT: u32 = 0;
                batch.attribute_be32(1, NFT_NAT_SNAT);
                batch.attribute_be32(2, *family as u32);
                batch.attribute_be32(3, *address);
            }
            Self::Immediate { to, value } => {
                batch.attribute_be32(1, *to);
                data_value(batch, 2, value);
            }
            Self::Masquerade => {}
        }
        batch.end(data);
    }
}

fn data_value(batch: &mut Batch, kind: u16, value: &[u8]) {
    let nest = batch.nest(kind);
    batch.attribute(super::NFTA_DATA_VALUE, value);
    batch.end(nest);
}
