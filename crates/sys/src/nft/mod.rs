//! nf_tables: transactions built as data, sent as one batch, and the tables read back.
//!
//! A [`Transaction`] is atomic: the kernel takes all of it or nothing, and packets see either the old rules or the new.
//! Names and numbers are those of `linux/netfilter/nf_tables.h`. No program is executed.

use crate::netlink::{Batch, BatchError, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, Socket};

mod expression;
mod list;

pub use expression::{Base, Cmp, CtKey, Expression, Key, MetaKey, Verdict, register};
pub use list::{chains, changed_by, changed_tables, deleted_tables, elements, rules, sets, tables};

/// The multicast group that tells of changes (`NFNLGRP_NFTABLES`).
pub const GROUP: u32 = 7;

const SUBSYSTEM: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;

const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const GETSET: u16 = 10;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;
const NEWGEN: u16 = 15;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFTA_GEN_PROC_PID: u16 = 2;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_ID: u16 = 10;
const NFTA_SET_USERDATA: u16 = 13;
const UDATA_SET_KEY_BYTE_ORDER: u8 = 0;
const BYTE_ORDER_HOST: u8 = 1;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFT_SET_MAP: u32 = 8;
const NFT_DATA_VERDICT: u32 = 0xffff_ff00;
/// The comment's type in a rule's user data, as libnftnl writes it.
const UDATA_COMMENT: u8 = 0;
/// So many elements fit well into one attribute of 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 500;

/// The family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Family {
    Inet = 1,
    Ipv4 = 2,
    Ipv6 = 10,
}

impl Family {
    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Inet),
            2 => Some(Self::Ipv4),
            10 => Some(Self::Ipv6),
            _ => None,
        }
    }

    /// Gives nft's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ip6",
        }
    }
}

/// Where in a packet's way a base chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What happens to a packet at the end of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Drop,
    Accept,
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// `filter` or `nat`.
    pub kind: &'static str,
    pub hook: Hook,
    pub priority: i32,
    pub policy: Policy,
}

/// A base chain or rule's chain as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainInfo {
    pub family: Family,
    pub table: String,
    pub name: String,
    /// Hook number and policy (0 drop, 1 accept) of a base chain.
    pub hook: Option<u32>,
    pub policy: Option<u32>,
}

/// A rule as the kernel lists it: where it is and its comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    pub chain: String,
    pub handle: u64,
    pub comment: String,
}

/// A component of a key or value, with nft's type number and its size in bytes before padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type {
    pub number: u32,
    pub size: u32,
    pub name: &'static str,
}

pub const IPV4_ADDR: Type = Type {
    number: 7,
    size: 4,
    name: "ipv4_addr",
};
pub const IPV6_ADDR: Type = Type {
    number: 8,
    size: 16,
    name: "ipv6_addr",
};
pub const INET_PROTO: Type = Type {
    number: 12,
    size: 1,
    name: "inet_proto",
};
pub const INET_SERVICE: Type = Type {
    number: 13,
    size: 2,
    name: "inet_service",
};
pub const IFNAME: Type = Type {
    number: 41,
    size: 16,
    name: "ifname",
};

/// What a map gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    Verdict,
    Data(&'static [Type]),
}

/// A set or, with a value, a map: a hash table with exact matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    pub name: &'static str,
    pub key: &'static [Type],
    pub value: Option<Value>,
}

/// What an element of a map leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ElementValue {
    None,
    Data(Vec<u8>),
    Verdict(Verdict),
}

/// An element of a set or map; key and data are concatenations whose parts are padded to 4 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Element {
    pub key: Vec<u8>,
    pub value: ElementValue,
}

fn type_number(parts: &[Type]) -> u32 {
    parts
        .iter()
        .fold(0, |number, part| number << 6 | part.number)
}

fn type_size(parts: &[Type]) -> u32 {
    match parts {
        // A lone component is not padded.
        [single] => single.size,
        parts => parts.iter().map(|part| part.size.next_multiple_of(4)).sum(),
    }
}

fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// Changes that happen together.
#[derive(Debug, Clone)]
pub struct Transaction {
    batch: Batch,
    next_set_id: u32,
}

impl Default for Transaction {
    fn default() -> Self {
        Self::new()
    }
}

impl Transaction {
    pub fn new() -> Self {
        let mut batch = Batch::new();
        batch.message(NFNL_MSG_BATCH_BEGIN, 0, &header(0, SUBSYSTEM));
        Self {
            batch,
            next_set_id: 1,
        }
    }

    /// Says whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.batch.len() == 1
    }

    fn message(&mut self, kind: u16, flags: u16, family: Family) -> &mut Batch {
        self.batch
            .message(SUBSYSTEM << 8 | kind, flags, &header(family as u8, 0))
    }

    /// Makes a table; one that exists is no error.
    pub fn add_table(&mut self, family: Family, name: &str) {
        self.message(NEWTABLE, NLM_F_CREATE, family)
            .attribute_str(NFTA_TABLE_NAME, name);
    }

    /// Makes a table that belongs to the socket by which the transaction is committed: others cannot change it, and a flush of
    /// the ruleset passes it by (Linux 5.12). With `persists` it outlives the socket, and one whose owner has gone is taken over
    /// (Linux 6.9).
    pub fn add_owned_table(&mut self, family: Family, name: &str, persists: bool) {
        const NFT_TABLE_F_OWNER: u32 = 2;
        const NFT_TABLE_F_PERSIST: u32 = 4;
        let flags = NFT_TABLE_F_OWNER | if persists { NFT_TABLE_F_PERSIST } else { 0 };
        self.message(NEWTABLE, NLM_F_CREATE, family)
            .attribute_str(NFTA_TABLE_NAME, name)
            .attribute_be32(NFTA_TABLE_FLAGS, flags);
    }

    /// Removes a table with all that is in it.
    pub fn delete_table(&mut self, family: Family, name: &str) {
        self.message(DELTABLE, 0, family)
            .attribute_str(NFTA_TABLE_NAME, name);
    }

    /// Makes a chain; one that exists with the same hook is no error.
    pub fn add_chain(&mut self, family: Family, table: &str, name: &str, base: Option<&BaseChain>) {
        let batch = self.message(NEWCHAIN, NLM_F_CREATE, family);
        batch.attribute_str(NFTA_CHAIN_TABLE, table);
        batch.attribute_str(NFTA_CHAIN_NAME, name);
        if let Some(base) = base {
            let hook = batch.nest(NFTA_CHAIN_HOOK);
            batch.attribute_be32(NFTA_HOOK_HOOKNUM, base.hook as u32);
            batch.attribute_be32(NFTA_HOOK_PRIORITY, base.priority.cast_unsigned());
            batch.end(hook);
            batch.attribute_be32(NFTA_CHAIN_POLICY, u32::from(base.policy == Policy::Accept));
            batch.attribute_str(NFTA_CHAIN_TYPE, base.kind);
        }
    }

    /// Makes a chain, which must be new (EEXIST).
    pub fn add_new_chain(&mut self, family: Family, table: &str, name: &str) {
        self.message(NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL, family)
            .attribute_str(NFTA_CHAIN_TABLE, table)
            .attribute_str(NFTA_CHAIN_NAME, name);
    }

    /// Removes an empty chain that nothing jumps to.
    pub fn delete_chain(&mut self, family: Family, table: &str, name: &str) {
        self.message(DELCHAIN, 0, family)
            .attribute_str(NFTA_CHAIN_TABLE, table)
            .attribute_str(NFTA_CHAIN_NAME, name);
    }

    /// Removes all rules of a chain.
    pub fn flush_chain(&mut self, family: Family, table: &str, name: &str) {
        self.message(DELRULE, 0, family)
            .attribute_str(NFTA_RULE_TABLE, table)
            .attribute_str(NFTA_RULE_CHAIN, name);
    }

    /// Adds a rule at the chain's end.
    pub fn add_rule(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
        expressions: &[Expression],
        comment: &str,
    ) {
        self.rule(
            NLM_F_CREATE | NLM_F_APPEND,
            family,
            table,
            chain,
            expressions,
            comment,
        );
    }

    /// Puts a rule before all others of the chain.
    pub fn insert_rule(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
        expressions: &[Expression],
        comment: &str,
    ) {
        self.rule(NLM_F_CREATE, family, table, chain, expressions, comment);
    }

    fn rule(
        &mut self,
        flags: u16,
        family: Family,
        table: &str,
        chain: &str,
        expressions: &[Expression],
        comment: &str,
    ) {
        let batch = self.message(NEWRULE, flags, family);
        batch.attribute_str(NFTA_RULE_TABLE, table);
        batch.attribute_str(NFTA_RULE_CHAIN, chain);
        let list = batch.nest(NFTA_RULE_EXPRESSIONS);
        for expression in expressions {
            let element = batch.nest(NFTA_LIST_ELEM);
            expression.encode(batch);
            batch.end(element);
        }
        batch.end(list);
        if !comment.is_empty() {
            // The length field is one byte and counts the terminating zero.
            let comment = &comment.as_bytes()[..comment.len().min(127)];
            let mut data = vec![UDATA_COMMENT, comment.len() as u8 + 1];
            data.extend_from_slice(comment);
            data.push(0);
            batch.attribute(NFTA_RULE_USERDATA, &data);
        }
    }

    /// Removes one rule by its handle.
    pub fn delete_rule(&mut self, family: Family, table: &str, chain: &str, handle: u64) {
        self.message(DELRULE, 0, family)
            .attribute_str(NFTA_RULE_TABLE, table)
            .attribute_str(NFTA_RULE_CHAIN, chain)
            .attribute(NFTA_RULE_HANDLE, &handle.to_be_bytes());
    }

    /// Makes a set or map; one that exists with the same types is no error.
    pub fn add_set(&mut self, family: Family, table: &str, set: &Set) {
        let id = self.next_set_id;
        self.next_set_id += 1;
        let batch = self.message(NEWSET, NLM_F_CREATE, family);
        batch.attribute_str(NFTA_SET_TABLE, table);
        batch.attribute_str(NFTA_SET_NAME, set.name);
        batch.attribute_be32(
            NFTA_SET_FLAGS,
            if set.value.is_some() { NFT_SET_MAP } else { 0 },
        );
        batch.attribute_be32(NFTA_SET_KEY_TYPE, type_number(set.key));
        batch.attribute_be32(NFTA_SET_KEY_LEN, type_size(set.key));
        match set.value {
            None => {}
            Some(Value::Verdict) => {
                batch.attribute_be32(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT);
            }
            Some(Value::Data(parts)) => {
                batch.attribute_be32(NFTA_SET_DATA_TYPE, type_number(parts));
                batch.attribute_be32(NFTA_SET_DATA_LEN, type_size(parts));
            }
        }
        batch.attribute_be32(NFTA_SET_ID, id);
        if set.key == [IFNAME] {
            // Tells nft(8) in which order to print the bytes; the kernel does not care.
            batch.attribute(
                NFTA_SET_USERDATA,
                &[UDATA_SET_KEY_BYTE_ORDER, 4, BYTE_ORDER_HOST, 0, 0, 0],
            );
        }
    }

    /// Removes a set that no rule refers to.
    pub fn delete_set(&mut self, family: Family, table: &str, name: &str) {
        self.message(DELSET, 0, family)
            .attribute_str(NFTA_SET_TABLE, table)
            .attribute_str(NFTA_SET_NAME, name);
    }

    /// Adds elements. One that exists with the same value is no error, with another value it is (EEXIST).
    pub fn add_elements(&mut self, family: Family, table: &str, set: &str, elements: &[Element]) {
        self.elements(NEWSETELEM, NLM_F_CREATE, family, table, set, elements);
    }

    /// Adds elements, each of which must be new.
    pub fn add_new_elements(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
        elements: &[Element],
    ) {
        self.elements(
            NEWSETELEM,
            NLM_F_CREATE | NLM_F_EXCL,
            family,
            table,
            set,
            elements,
        );
    }

    /// Removes elements; a missing one fails (ENOENT).
    pub fn delete_elements(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
        elements: &[Element],
    ) {
        self.elements(DELSETELEM, 0, family, table, set, elements);
    }

    fn elements(
        &mut self,
        kind: u16,
        flags: u16,
        family: Family,
        table: &str,
        set: &str,
        elements: &[Element],
    ) {
        for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let batch = self.message(kind, flags, family);
            batch.attribute_str(NFTA_SET_ELEM_LIST_TABLE, table);
            batch.attribute_str(NFTA_SET_ELEM_LIST_SET, set);
            let list = batch.nest(NFTA_SET_ELEM_LIST_ELEMENTS);
            for element in chunk {
                let item = batch.nest(NFTA_LIST_ELEM);
                let key = batch.nest(NFTA_SET_ELEM_KEY);
                batch.attribute(NFTA_DATA_VALUE, &element.key);
                batch.end(key);
                if kind == NEWSETELEM {
                    match &element.value {
                        ElementValue::None => {}
                        ElementValue::Data(value) => {
                            let data = batch.nest(NFTA_SET_ELEM_DATA);
                            batch.attribute(NFTA_DATA_VALUE, value);
                            batch.end(data);
                        }
                        ElementValue::Verdict(verdict) => {
                            let data = batch.nest(NFTA_SET_ELEM_DATA);
                            verdict.encode(batch);
                            batch.end(data);
                        }
                    }
                }
                batch.end(item);
            }
            batch.end(list);
        }
    }

    /// Hands the changes to the kernel: all or nothing. The error's index counts the changes from 0.
    pub fn commit(mut self, socket: &Socket) -> Result<(), BatchError> {
        if self.is_empty() {
            return Ok(());
        }
        self.batch
            .message(NFNL_MSG_BATCH_END, 0, &header(0, SUBSYSTEM));
        let last = self.batch.len() - 2;
        self.batch.acknowledge(last);
        socket.exchange(&mut self.batch, last).map_err(|mut error| {
            error.index = error.index.saturating_sub(1);
            error
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concatenated_types_are_numbered_and_padded_as_nft_does() {
        assert_eq!(type_number(&[INET_PROTO, INET_SERVICE]), 12 << 6 | 13);
        assert_eq!(type_size(&[INET_PROTO, INET_SERVICE]), 8);
        assert_eq!(type_size(&[IPV4_ADDR, INET_PROTO, INET_SERVICE]), 12);
        assert_eq!(type_size(&[IFNAME]), 16);
    }
}
