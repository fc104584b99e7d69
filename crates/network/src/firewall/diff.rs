//! Desired table minus the kernel's: one transaction that makes them equal and touches nothing that is right.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use gantry_sys::netlink::Socket;
use gantry_sys::nft::{self, Element, ElementValue, Family, Transaction};

use super::Ruleset;
use crate::Report;

/// The table as it stands in the kernel.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Standing {
    pub exists: bool,
    /// Each chain with its rules' comments and handles in order.
    pub chains: BTreeMap<String, Vec<(String, u64)>>,
    pub sets: BTreeMap<String, Vec<Element>>,
}

/// Reads a table from the kernel.
pub fn read(socket: &Socket, table: &str) -> io::Result<Standing> {
    let family = Family::Inet;
    if !nft::tables(socket)?.contains(&(family, table.to_owned())) {
        return Ok(Standing::default());
    }
    let mut standing = Standing {
        exists: true,
        ..Standing::default()
    };
    for chain in nft::chains(socket)? {
        if chain.family == family && chain.table == table {
            standing.chains.insert(chain.name, Vec::new());
        }
    }
    for rule in nft::rules(socket, family, table)? {
        standing
            .chains
            .entry(rule.chain)
            .or_default()
            .push((rule.comment, rule.handle));
    }
    for set in nft::sets(socket, family, table)? {
        let elements = nft::elements(socket, family, table, &set)?;
        standing.sets.insert(set, elements);
    }
    Ok(standing)
}

/// Makes the transaction from `standing` to `desired` and notes in the report what it does.
pub fn plan(desired: &Ruleset, standing: &Standing, report: &mut Report) -> Transaction {
    let family = Family::Inet;
    let table = desired.table.as_str();
    let mut transaction = Transaction::new();
    if !standing.exists {
        transaction.add_table(family, table);
        report.restored.push(format!("table {table}"));
    }
    for filled in &desired.sets {
        if !standing.sets.contains_key(filled.set.name) {
            transaction.add_set(family, table, &filled.set);
            if standing.exists {
                report.restored.push(format!("map {}", filled.set.name));
            }
        }
    }
    for chain in &desired.chains {
        if !standing.chains.contains_key(&chain.name) {
            transaction.add_chain(family, table, &chain.name, chain.base.as_ref());
        }
    }
    for chain in &desired.chains {
        let wanted: Vec<String> = chain.rules.iter().map(super::Rule::comment).collect();
        let found = standing.chains.get(&chain.name);
        if found.is_some_and(|rules| rules.iter().map(|(comment, _)| comment).eq(&wanted)) {
            continue;
        }
        if standing.exists {
            report.restored.push(format!("chain {}", chain.name));
        }
        if found.is_some_and(|rules| !rules.is_empty()) {
            transaction.flush_chain(family, table, &chain.name);
        }
        for (rule, comment) in chain.rules.iter().zip(&wanted) {
            transaction.add_rule(family, table, &chain.name, &rule.expressions(), comment);
        }
    }
    for filled in &desired.sets {
        plan_elements(&mut transaction, table, filled, standing, report);
    }
    let wanted: BTreeSet<&str> = desired
        .chains
        .iter()
        .map(|chain| chain.name.as_str())
        .collect();
    let extra: Vec<&String> = standing
        .chains
        .keys()
        .filter(|name| !wanted.contains(name.as_str()))
        .collect();
    for name in &extra {
        transaction.flush_chain(family, table, name);
    }
    for name in extra {
        transaction.delete_chain(family, table, name);
        report.removed.push(format!("chain {name}"));
    }
    for name in standing.sets.keys() {
        if !desired.sets.iter().any(|filled| filled.set.name == name) {
            transaction.delete_set(family, table, name);
            report.removed.push(format!("map {name}"));
        }
    }
    transaction
}

fn plan_elements(
    transaction: &mut Transaction,
    table: &str,
    filled: &super::FilledSet,
    standing: &Standing,
    report: &mut Report,
) {
    let name = filled.set.name;
    let found: HashMap<&[u8], &ElementValue> = standing
        .sets
        .get(name)
        .into_iter()
        .flatten()
        .map(|element| (element.key.as_slice(), &element.value))
        .collect();
    let wanted: HashMap<&[u8], &ElementValue> = filled
        .elements
        .iter()
        .map(|element| (element.key.as_slice(), &element.value))
        .collect();
    let stale: Vec<Element> = standing
        .sets
        .get(name)
        .into_iter()
        .flatten()
        .filter(|element| wanted.get(element.key.as_slice()) != Some(&&element.value))
        .cloned()
        .collect();
    let missing: Vec<Element> = filled
        .elements
        .iter()
        .filter(|element| found.get(element.key.as_slice()) != Some(&&element.value))
        .cloned()
        .collect();
    if !stale.is_empty() {
        report
            .removed
            .push(format!("{} elements of {name}", stale.len()));
        transaction.delete_elements(Family::Inet, table, name, &stale);
    }
    if !missing.is_empty() {
        if standing.exists {
            report
                .restored
                .push(format!("{} elements of {name}", missing.len()));
        }
        transaction.add_elements(Family::Inet, table, name, &missing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::{Bridge, Options, Publication, Way, desired};
    use crate::{Protocol, PublishedPort};

    fn example(ports: &[u16]) -> Ruleset {
        let bridge = Bridge {
            interface: "docker0".to_owned(),
            subnets: Vec::new(),
            icc: true,
            internal: false,
            trusted: Vec::new(),
        };
        let publications: Vec<Publication> = ports
            .iter()
            .map(|&host_port| Publication {
                port: PublishedPort {
                    ip: "0.0.0.0".parse().unwrap(),
                    host_port,
                    container_port: 80,
                    protocol: Protocol::Tcp,
                },
                container: "172.17.0.2".parse().unwrap(),
                way: Way::Rewritten,
                direct: false,
            })
            .collect();
        desired("gantry-1", &[bridge], &publications, &Options::default())
    }

    fn standing(ruleset: &Ruleset) -> Standing {
        Standing {
            exists: true,
            chains: ruleset
                .chains
                .iter()
                .map(|chain| {
                    let rules = chain
                        .rules
                        .iter()
                        .zip(1..)
                        .map(|(rule, handle)| (rule.comment(), handle));
                    (chain.name.clone(), rules.collect())
                })
                .collect(),
            sets: ruleset
                .sets
                .iter()
                .map(|filled| (filled.set.name.to_owned(), filled.elements.clone()))
                .collect(),
        }
    }

    #[test]
    fn nothing_is_done_where_all_is_right() {
        let wanted = example(&[8080, 9090]);
        let mut report = Report::default();
        assert!(plan(&wanted, &standing(&wanted), &mut report).is_empty());
        assert!(report.is_clean());
    }

    #[test]
    fn only_what_differs_is_touched() {
        let wanted = example(&[8080]);
        let mut found = standing(&example(&[9090]));
        found.chains.get_mut("forward").unwrap().pop();
        found
            .chains
            .insert("forward-to-gone".to_owned(), Vec::new());
        let mut report = Report::default();
        assert!(!plan(&wanted, &found, &mut report).is_empty());
        assert_eq!(
            report.restored,
            ["chain forward", "1 elements of published"]
        );
        assert_eq!(
            report.removed,
            ["1 elements of published", "chain forward-to-gone"]
        );
    }

    #[test]
    fn a_flushed_table_comes_back_whole() {
        let mut report = Report::default();
        assert!(!plan(&example(&[8080]), &Standing::default(), &mut report).is_empty());
        assert_eq!(report.restored, ["table gantry-1"]);
    }
}
