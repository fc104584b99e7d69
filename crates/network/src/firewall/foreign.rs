//! Other firewalls: an accept in our table does not overrule a drop in another.
//!
//! Where another table's forward chain drops by policy (dockerd's `ip filter FORWARD`, a hand-written nftables.conf),
//! two accept rules per bridge, marked with the engine's id, are put before its rules: into `DOCKER-USER` where that
//! exists, because dockerd leaves it alone. Our own table still filters those packets. They are taken away at the last
//! teardown. firewalld and iptables-legacy are told apart and reported, since they cannot be served this way.

use std::io;

use gantry_sys::netlink::Socket;
use gantry_sys::nft::{
    self, ChainInfo, Cmp, Expression, Family, MetaKey, Transaction, Verdict, register,
};

use super::interface_key;

const HOOK_FORWARD: u32 = 2;
const POLICY_DROP: u32 = 0;

/// A chain of somebody else's into which accept rules go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub family: Family,
    pub table: String,
    pub chain: String,
}

/// Finds where accept rules are needed.
pub fn places(chains: &[ChainInfo], own_table: &str) -> Vec<Place> {
    let mut places: Vec<Place> = chains
        .iter()
        .filter(|chain| {
            chain.hook == Some(HOOK_FORWARD)
                && chain.policy == Some(POLICY_DROP)
                && chain.family != Family::Ipv6
                && chain.table != own_table
        })
        .map(|chain| {
            let user_chain = chains.iter().any(|other| {
                other.family == chain.family
                    && other.table == chain.table
                    && other.name == "DOCKER-USER"
            });
            Place {
                family: chain.family,
                table: chain.table.clone(),
                chain: if user_chain {
                    "DOCKER-USER".to_owned()
                } else {
                    chain.name.clone()
                },
            }
        })
        .collect();
    places.sort();
    places.dedup();
    places
}

/// Gives the comment that marks a rule as ours.
pub fn mark(engine_id: &str, interface: &str) -> String {
    format!("gantry:{}:{interface}", super::short_id(engine_id))
}

fn accept(key: MetaKey, interface: &str) -> Vec<Expression> {
    vec![
        Expression::Meta {
            key,
            to: register(0),
        },
        Expression::Cmp {
            register: register(0),
            operator: Cmp::Equal,
            value: interface_key(interface),
        },
        // iptables-nft shows only rules that count.
        Expression::Counter,
        Expression::Verdict(Verdict::Accept),
    ]
}

/// Tells whether another firewall has rules for what is forwarded, so that somebody else relies on forwarding. An empty
/// chain, as distributions ship it, is nobody.
pub fn others_forward(socket: &Socket, own_table: &str) -> io::Result<bool> {
    for chain in nft::chains(socket)? {
        if chain.hook != Some(HOOK_FORWARD) || chain.table == own_table {
            continue;
        }
        let rules = nft::rules(socket, chain.family, &chain.table)?;
        if rules.iter().any(|rule| rule.chain == chain.name) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Puts in the missing accept rules of `interfaces` and takes away those of bridges that are gone. Gives a line for
/// each change.
pub fn reconcile(
    socket: &Socket,
    own_table: &str,
    engine_id: &str,
    interfaces: &[String],
) -> io::Result<Vec<String>> {
    let chains = nft::chains(socket)?;
    let wanted = places(&chains, own_table);
    let prefix = mark(engine_id, "");
    let mut tables: Vec<(Family, String)> = chains
        .iter()
        .filter(|chain| chain.hook == Some(HOOK_FORWARD) && chain.table != own_table)
        .map(|chain| (chain.family, chain.table.clone()))
        .collect();
    tables.sort();
    tables.dedup();
    let mut changes = Vec::new();
    for (family, table) in tables {
        let rules = nft::rules(socket, family, &table)?;
        let mut transaction = Transaction::new();
        for rule in rules
            .iter()
            .filter(|rule| rule.comment.starts_with(&prefix))
        {
            let interface = &rule.comment[prefix.len()..];
            let place_stands = wanted.iter().any(|place| {
                place.family == family && place.table == table && place.chain == rule.chain
            });
            if !place_stands || !interfaces.iter().any(|wanted| wanted == interface) {
                transaction.delete_rule(family, &table, &rule.chain, rule.handle);
                changes.push(format!(
                    "removed accept of {interface} from {} {table} {}",
                    family.as_str(),
                    rule.chain
                ));
            }
        }
        for place in wanted
            .iter()
            .filter(|place| place.family == family && place.table == table)
        {
            for interface in interfaces {
                let comment = mark(engine_id, interface);
                let standing = rules
                    .iter()
                    .filter(|rule| rule.chain == place.chain && rule.comment == comment)
                    .count();
                if standing >= 2 {
                    continue;
                }
                for rule in rules
                    .iter()
                    .filter(|rule| rule.chain == place.chain && rule.comment == comment)
                {
                    transaction.delete_rule(family, &table, &place.chain, rule.handle);
                }
                for key in [MetaKey::OifName, MetaKey::IifName] {
                    transaction.insert_rule(
                        family,
                        &table,
                        &place.chain,
                        &accept(key, interface),
                        &comment,
                    );
                }
                changes.push(format!(
                    "accept of {interface} in {} {table} {}",
                    family.as_str(),
                    place.chain
                ));
            }
        }
        if !transaction.is_empty() {
            transaction.commit(socket)?;
        }
    }
    Ok(changes)
}

/// Gives warnings about firewalls that cannot be served by a rule. `legacy_tables` is the text of
/// /proc/net/ip_tables_names, empty where the legacy back end is not in use.
pub fn warnings(chains: &[ChainInfo], legacy_tables: &str, interfaces: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    if chains.iter().any(|chain| chain.table == "firewalld") {
        for interface in interfaces {
            found.push(format!(
                "firewalld is running and may drop the traffic of {interface}: \
                 run `firewall-cmd --permanent --zone=trusted --add-interface={interface} && firewall-cmd --reload`"
            ));
        }
    }
    if legacy_tables
        .split_ascii_whitespace()
        .any(|table| table == "filter")
    {
        for interface in interfaces {
            found.push(format!(
                "the legacy iptables filter table is in use; if its FORWARD policy is DROP, run \
                 `iptables-legacy -I FORWARD -o {interface} -j ACCEPT && \
                 iptables-legacy -I FORWARD -i {interface} -j ACCEPT`"
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(
        family: Family,
        table: &str,
        name: &str,
        hook: Option<u32>,
        policy: Option<u32>,
    ) -> ChainInfo {
        ChainInfo {
            family,
            table: table.to_owned(),
            name: name.to_owned(),
            hook,
            policy,
        }
    }

    #[test]
    fn accept_goes_where_a_forward_chain_drops() {
        let chains = [
            chain(Family::Ipv4, "filter", "FORWARD", Some(2), Some(0)),
            chain(Family::Ipv4, "filter", "DOCKER-USER", None, None),
            chain(Family::Ipv6, "filter", "FORWARD", Some(2), Some(0)),
            chain(Family::Inet, "filter", "forward", Some(2), Some(0)),
            chain(Family::Inet, "open", "forward", Some(2), Some(1)),
            chain(Family::Inet, "filter", "input", Some(1), Some(0)),
            chain(Family::Inet, "gantry-1", "forward", Some(2), Some(0)),
        ];
        let found: Vec<String> = places(&chains, "gantry-1")
            .iter()
            .map(|place| format!("{} {} {}", place.family.as_str(), place.table, place.chain))
            .collect();
        assert_eq!(found, ["inet filter forward", "ip filter DOCKER-USER"]);
    }

    #[test]
    fn other_firewalls_are_named_with_the_way_out() {
        let firewalld = [chain(
            Family::Inet,
            "firewalld",
            "filter_FORWARD",
            Some(2),
            Some(1),
        )];
        let interfaces = ["docker0".to_owned()];
        assert!(warnings(&firewalld, "", &interfaces)[0].contains("--add-interface=docker0"));
        assert!(
            warnings(&[], "nat\nfilter\n", &interfaces)[0]
                .contains("iptables-legacy -I FORWARD -o docker0")
        );
        assert_eq!(warnings(&[], "nat\n", &interfaces), Vec::<String>::new());
    }
}
