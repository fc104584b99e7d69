//! Other firewalls: an accept in our table does not overrule a drop in another.
//!
//! Where another table's forward chain drops by policy (dockerd's `ip filter FORWARD`, ufw, a hand-written
//! nftables.conf) or at its end (firewalld), two accept rules per bridge, marked with the engine's id, are put before
//! its rules: into `DOCKER-USER` where that exists, because dockerd leaves it alone. Our own table still filters those
//! packets. They are taken away with the bridge. Where that cannot be done (a table that belongs to a program, the old
//! iptables), the operator is told the command that does it.

use std::io;

use gantry_sys::netlink::Socket;
use gantry_sys::nft::{
    self, ChainInfo, Cmp, Expression, Family, MetaKey, Transaction, Verdict, register,
};
use gantry_sys::xtables::{self, Policies, Policy};

use super::interface_key;

const HOOK_INPUT: u32 = 1;
const HOOK_FORWARD: u32 = 2;
const POLICY_DROP: u32 = 0;

/// A chain of somebody else's into which accept rules go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub family: Family,
    pub table: String,
    pub chain: String,
}

/// firewalld's chains accept by policy and reject at their end. Only the table is asked for: a reload makes it anew.
fn is_firewalld(chain: &ChainInfo) -> bool {
    chain.table == "firewalld" && matches!(chain.name.as_str(), "filter_FORWARD" | "filter_INPUT")
}

/// Finds where accept rules are needed.
pub fn places(chains: &[ChainInfo], own_table: &str) -> Vec<Place> {
    let mut places: Vec<Place> = chains
        .iter()
        .filter(|chain| {
            chain.hook == Some(HOOK_FORWARD)
                && (chain.policy == Some(POLICY_DROP) || is_firewalld(chain))
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

/// What a reconciliation with other firewalls came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// A line for each change.
    pub changes: Vec<String>,
    /// What could not be done, with the command that does it.
    pub refused: Vec<String>,
}

/// Puts in the missing accept rules of `bridges`, each given with whether it has IPv6, and takes away those of bridges
/// that are gone.
pub fn reconcile(
    socket: &Socket,
    chains: &[ChainInfo],
    own_table: &str,
    engine_id: &str,
    bridges: &[(String, bool)],
) -> io::Result<Outcome> {
    let wanted = places(chains, own_table);
    let mut tables: Vec<(Family, String)> = chains
        .iter()
        .filter(|chain| chain.hook == Some(HOOK_FORWARD) && chain.table != own_table)
        .map(|chain| (chain.family, chain.table.clone()))
        .collect();
    tables.sort();
    tables.dedup();
    let mut outcome = Outcome::default();
    for (family, table) in tables {
        let rules = nft::rules(socket, family, &table)?;
        let places: Vec<&Place> = wanted
            .iter()
            .filter(|place| place.family == family && place.table == table)
            .collect();
        let interfaces: Vec<&str> = bridges
            .iter()
            .filter(|(_, ipv6)| family != Family::Ipv6 || *ipv6)
            .map(|(name, _)| name.as_str())
            .collect();
        let mut changes = Vec::new();
        let transaction = plan(
            &rules,
            &places,
            engine_id,
            &interfaces,
            &mut changes,
            (family, &table),
        );
        if transaction.is_empty() {
            continue;
        }
        match transaction.commit(socket) {
            Ok(()) => outcome.changes.extend(changes),
            // The table belongs to a program that lets nobody else write (firewalld with NftablesTableOwner).
            Err(error) if error.errno() == libc::EPERM => {
                outcome.refused.extend(interfaces.iter().map(|interface| {
                    format!(
                        "{} {table} belongs to another program and may drop the traffic of {interface}: run \
                         `firewall-cmd --permanent --zone=trusted --add-interface={interface} && firewall-cmd --reload`",
                        family.as_str()
                    )
                }));
            }
            // It was made anew meanwhile; that is a change by which the watch looks again.
            Err(error) if error.errno() == libc::ENOENT => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(outcome)
}

/// Makes the transaction that leaves a table with two accept rules per place and interface.
fn plan(
    rules: &[nft::RuleInfo],
    places: &[&Place],
    engine_id: &str,
    interfaces: &[&str],
    changes: &mut Vec<String>,
    (family, table): (Family, &str),
) -> Transaction {
    let prefix = mark(engine_id, "");
    let mut transaction = Transaction::new();
    for rule in rules
        .iter()
        .filter(|rule| rule.comment.starts_with(&prefix))
    {
        let interface = &rule.comment[prefix.len()..];
        let place_stands = places.iter().any(|place| place.chain == rule.chain);
        if !place_stands || !interfaces.contains(&interface) {
            transaction.delete_rule(family, table, &rule.chain, rule.handle);
            changes.push(format!(
                "removed accept of {interface} from {} {table} {}",
                family.as_str(),
                rule.chain
            ));
        }
    }
    for place in places {
        for interface in interfaces {
            let comment = mark(engine_id, interface);
            let standing = || {
                rules
                    .iter()
                    .filter(|rule| rule.chain == place.chain && rule.comment == comment)
            };
            if standing().count() >= 2 {
                continue;
            }
            for rule in standing() {
                transaction.delete_rule(family, table, &place.chain, rule.handle);
            }
            for key in [MetaKey::OifName, MetaKey::IifName] {
                let expressions = accept(key, interface);
                transaction.insert_rule(family, table, &place.chain, &expressions, &comment);
            }
            changes.push(format!(
                "accept of {interface} in {} {table} {}",
                family.as_str(),
                place.chain
            ));
        }
    }
    transaction
}

/// The policies of the old iptables, by family, where it is in use.
#[derive(Debug, Default, Clone, Copy)]
pub struct Legacy {
    pub ipv4: Option<Policies>,
    pub ipv6: Option<Policies>,
}

/// Reads the policies of the old iptables. Looks first whether it is in use: to ask for a table makes it.
pub fn legacy_policies() -> Legacy {
    let in_use = |path: &str| {
        std::fs::read_to_string(path)
            .is_ok_and(|text| text.split_ascii_whitespace().any(|table| table == "filter"))
    };
    Legacy {
        ipv4: in_use("/proc/thread-self/net/ip_tables_names")
            .then(xtables::policies)
            .and_then(Result::ok),
        ipv6: in_use("/proc/thread-self/net/ip6_tables_names")
            .then(xtables::policies_v6)
            .and_then(Result::ok),
    }
}

/// Says which bridges the old iptables cuts off, with the commands that let them through.
pub fn legacy_warnings(legacy: &Legacy, bridges: &[(String, bool)]) -> Vec<String> {
    let drops = |policies: Option<Policies>| {
        policies.is_some_and(|policies| policies.forward == Policy::Drop)
    };
    let mut found = Vec::new();
    for (interface, ipv6) in bridges {
        for (program, wanted) in [
            ("iptables-legacy", drops(legacy.ipv4)),
            ("ip6tables-legacy", *ipv6 && drops(legacy.ipv6)),
        ] {
            if wanted {
                found.push(format!(
                    "the FORWARD chain of {program} drops what no rule accepts, which cuts {interface} off: run \
                     `{program} -I FORWARD -o {interface} -j ACCEPT && {program} -I FORWARD -i {interface} -j ACCEPT`"
                ));
            }
        }
    }
    found
}

/// Names the chain that keeps away from the host's own ports what no rule accepts, if there is one.
pub fn denying(chains: &[ChainInfo], legacy: &Legacy, own_table: &str) -> Option<String> {
    let chain = chains.iter().find(|chain| {
        chain.hook == Some(HOOK_INPUT)
            && chain.table != own_table
            && (chain.policy == Some(POLICY_DROP) || is_firewalld(chain))
    });
    if let Some(chain) = chain {
        return Some(format!(
            "{} {} {}",
            chain.family.as_str(),
            chain.table,
            chain.name
        ));
    }
    let drops = |policies: Option<Policies>| {
        policies.is_some_and(|policies| policies.input == Policy::Drop)
    };
    (drops(legacy.ipv4) || drops(legacy.ipv6)).then(|| "iptables-legacy filter INPUT".to_owned())
}

/// Says that published ports do not pass the host's own rules, and how they would.
pub fn bypass_warning(chain: &str) -> String {
    format!(
        "published ports are reached from outside although {chain} drops what it does not accept: they are led to the \
         container before it; to have them pass it, start the daemon with --obey-host-firewall or make the network \
         with -o com.gantry.bridge.obey_host_firewall=true"
    )
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
            chain(
                Family::Inet,
                "firewalld",
                "filter_FORWARD",
                Some(2),
                Some(1),
            ),
            chain(
                Family::Inet,
                "firewalld",
                "mangle_FORWARD",
                Some(2),
                Some(1),
            ),
        ];
        let found: Vec<String> = places(&chains, "gantry-1")
            .iter()
            .map(|place| format!("{} {} {}", place.family.as_str(), place.table, place.chain))
            .collect();
        assert_eq!(
            found,
            [
                "inet filter forward",
                "inet firewalld filter_FORWARD",
                "ip filter DOCKER-USER",
                "ip6 filter FORWARD"
            ]
        );
    }

    #[test]
    fn the_old_iptables_is_reported_with_the_way_out() {
        let bridges = [("docker0".to_owned(), false), ("br-6".to_owned(), true)];
        let drop = Policies {
            input: Policy::Accept,
            forward: Policy::Drop,
        };
        let mut legacy = Legacy {
            ipv4: Some(drop),
            ipv6: Some(drop),
        };
        let found = legacy_warnings(&legacy, &bridges);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("iptables-legacy -I FORWARD -o docker0"));
        assert!(found[2].contains("ip6tables-legacy -I FORWARD -i br-6"));
        legacy.ipv4 = None;
        assert_eq!(
            legacy_warnings(&legacy, &bridges[..1]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_chain_that_keeps_others_out_is_named() {
        let accepting = chain(Family::Inet, "filter", "input", Some(1), Some(1));
        let dropping = chain(Family::Ipv4, "filter", "INPUT", Some(1), Some(0));
        let firewalld = chain(Family::Inet, "firewalld", "filter_INPUT", Some(1), Some(1));
        let none = Legacy::default();
        let check = |chains: &[ChainInfo], legacy: &Legacy| denying(chains, legacy, "gantry-1");
        assert_eq!(check(std::slice::from_ref(&accepting), &none), None);
        assert_eq!(
            check(&[accepting.clone(), dropping], &none).as_deref(),
            Some("ip filter INPUT")
        );
        assert_eq!(
            check(&[firewalld], &none).as_deref(),
            Some("inet firewalld filter_INPUT")
        );
        let legacy = Legacy {
            ipv4: Some(Policies {
                input: Policy::Drop,
                forward: Policy::Accept,
            }),
            ipv6: None,
        };
        assert_eq!(
            check(&[accepting], &legacy).as_deref(),
            Some("iptables-legacy filter INPUT")
        );
    }
}
