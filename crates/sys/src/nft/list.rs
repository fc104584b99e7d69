//! What stands in the kernel: tables, chains, rules, sets and elements read back, and notices of what was deleted.

use std::io;

use super::*;
use crate::netlink::{Attributes, Message, NLM_F_DUMP, be32_of, str_of};

/// Repeats a dump that a transaction disturbed.
fn dump<T>(
    socket: &Socket,
    kind: u16,
    family: Option<Family>,
    names: &[(u16, &str)],
    mut parse: impl FnMut(Family, Attributes<'_>) -> Vec<T>,
) -> io::Result<Vec<T>> {
    for _ in 0..50 {
        let mut batch = Batch::new();
        let number = family.map_or(0, |family| family as u8);
        batch.message(SUBSYSTEM << 8 | kind, NLM_F_DUMP, &header(number, 0));
        for (kind, name) in names {
            batch.attribute_str(*kind, name);
        }
        let mut found = Vec::new();
        let answer = socket.query(&mut batch, |message: &Message<'_>| {
            if let Some((header, attributes)) = message.split(4)
                && let Some(family) = Family::from_number(header[0])
            {
                found.extend(parse(family, attributes));
            }
        });
        match answer {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(found),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::Interrupted,
        "the ruleset changed during each dump",
    ))
}

/// Lists the tables of the families inet, ip and ip6.
pub fn tables(socket: &Socket) -> io::Result<Vec<(Family, String)>> {
    dump(socket, GETTABLE, None, &[], |family, attributes| {
        attributes
            .find(NFTA_TABLE_NAME)
            .map(|name| (family, str_of(name)))
            .into_iter()
            .collect()
    })
}

/// Lists the chains of all tables.
pub fn chains(socket: &Socket) -> io::Result<Vec<ChainInfo>> {
    dump(socket, GETCHAIN, None, &[], |family, attributes| {
        let (Some(table), Some(name)) = (
            attributes.find(NFTA_CHAIN_TABLE),
            attributes.find(NFTA_CHAIN_NAME),
        ) else {
            return Vec::new();
        };
        vec![ChainInfo {
            family,
            table: str_of(table),
            name: str_of(name),
            hook: attributes
                .path(&[NFTA_CHAIN_HOOK, NFTA_HOOK_HOOKNUM])
                .and_then(be32_of),
            policy: attributes.find(NFTA_CHAIN_POLICY).and_then(be32_of),
        }]
    })
}

/// Lists the rules of a table in the order of their chains; a table that is not there has none.
pub fn rules(socket: &Socket, family: Family, table: &str) -> io::Result<Vec<RuleInfo>> {
    let found = dump(
        socket,
        GETRULE,
        Some(family),
        &[(NFTA_RULE_TABLE, table)],
        |found, attributes| {
            let (Some(owner), Some(chain), Some(handle)) = (
                attributes.find(NFTA_RULE_TABLE),
                attributes.find(NFTA_RULE_CHAIN),
                attributes
                    .find(NFTA_RULE_HANDLE)
                    .and_then(|value| value.first_chunk::<8>()),
            ) else {
                return Vec::new();
            };
            if found != family || str_of(owner) != table {
                return Vec::new();
            }
            vec![RuleInfo {
                chain: str_of(chain),
                handle: u64::from_be_bytes(*handle),
                comment: attributes
                    .find(NFTA_RULE_USERDATA)
                    .and_then(comment_of)
                    .unwrap_or_default(),
            }]
        },
    );
    match found {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        found => found,
    }
}

fn comment_of(data: &[u8]) -> Option<String> {
    let mut rest = data;
    while let [kind, length, ..] = *rest {
        let value = rest.get(2..2 + usize::from(length))?;
        if kind == UDATA_COMMENT {
            return Some(str_of(value));
        }
        rest = &rest[2 + usize::from(length)..];
    }
    None
}

/// Lists the names of a table's sets and maps.
pub fn sets(socket: &Socket, family: Family, table: &str) -> io::Result<Vec<String>> {
    let found = dump(
        socket,
        GETSET,
        Some(family),
        &[(NFTA_SET_TABLE, table)],
        |found, attributes| {
            let matches = found == family
                && attributes.find(NFTA_SET_TABLE).map(str_of).as_deref() == Some(table);
            attributes
                .find(NFTA_SET_NAME)
                .filter(|_| matches)
                .map(str_of)
                .into_iter()
                .collect()
        },
    );
    match found {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        found => found,
    }
}

/// Lists the elements of a set or map; one that is not there has none.
pub fn elements(
    socket: &Socket,
    family: Family,
    table: &str,
    set: &str,
) -> io::Result<Vec<Element>> {
    let names = [
        (NFTA_SET_ELEM_LIST_TABLE, table),
        (NFTA_SET_ELEM_LIST_SET, set),
    ];
    let found = dump(socket, GETSETELEM, Some(family), &names, |_, attributes| {
        let Some(list) = attributes.find(NFTA_SET_ELEM_LIST_ELEMENTS) else {
            return Vec::new();
        };
        Attributes(list)
            .filter_map(|(_, item)| {
                let item = Attributes(item);
                let key = item.path(&[NFTA_SET_ELEM_KEY, NFTA_DATA_VALUE])?.to_vec();
                let value = if let Some(value) = item.path(&[NFTA_SET_ELEM_DATA, NFTA_DATA_VALUE]) {
                    ElementValue::Data(value.to_vec())
                } else if let Some(verdict) = item.path(&[NFTA_SET_ELEM_DATA, NFTA_DATA_VERDICT]) {
                    ElementValue::Verdict(Verdict::decode(Attributes(verdict))?)
                } else {
                    ElementValue::None
                };
                Some(Element { key, value })
            })
            .collect()
    });
    match found {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        found => found,
    }
}

/// Tells from a datagram of the multicast group which tables were deleted.
pub fn deleted_tables(datagram: &[u8]) -> Vec<String> {
    crate::netlink::Messages(datagram)
        .filter(|message| message.kind == SUBSYSTEM << 8 | DELTABLE)
        .filter_map(|message| {
            message
                .split(4)
                .and_then(|(_, attributes)| attributes.find(NFTA_TABLE_NAME).map(str_of))
        })
        .collect()
}

/// Tells from a datagram of the multicast group which thread changed the ruleset, where a change ended in it.
pub fn changed_by(datagram: &[u8]) -> Option<u32> {
    crate::netlink::Messages(datagram)
        .filter(|message| message.kind == SUBSYSTEM << 8 | NEWGEN)
        .filter_map(|message| {
            let (_, attributes) = message.split(4)?;
            attributes.find(NFTA_GEN_PROC_PID).and_then(be32_of)
        })
        .last()
}

/// Tells from a datagram of the multicast group to which tables the objects belong that were changed.
pub fn changed_tables(datagram: &[u8]) -> Vec<String> {
    crate::netlink::Messages(datagram)
        .filter(|message| message.kind >> 8 == SUBSYSTEM && message.kind & 0xff != NEWGEN)
        // Whatever kind of object it is, its first attribute is its table's name.
        .filter_map(|message| {
            message
                .split(4)
                .and_then(|(_, attributes)| attributes.find(NFTA_TABLE_NAME).map(str_of))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_found_among_other_user_data() {
        assert_eq!(
            comment_of(&[3, 1, 9, 0, 4, b'a', b'b', b'c', 0]).as_deref(),
            Some("abc")
        );
        assert_eq!(comment_of(&[0, 9, b'a']), None);
        assert_eq!(comment_of(&[]), None);
    }
}
