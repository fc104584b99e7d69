//! The addresses that users asked for, by network: a start looks at those of its network, not at every container.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::network::EndpointSettings;

/// The addresses of one container on its networks, by name.
type Networks = BTreeMap<String, EndpointSettings>;

/// All of them, as the records in memory have them.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    /// By the network's name, then by the container's id.
    addresses: Mutex<HashMap<String, HashMap<String, Vec<IpAddr>>>>,
}

fn addresses(settings: &EndpointSettings) -> Vec<IpAddr> {
    let ipv4 = settings.ipv4().map(IpAddr::V4);
    let ipv6 = settings.ipv6().map(IpAddr::V6);
    ipv4.into_iter().chain(ipv6).collect()
}

impl Wishes {
    /// Notes what a container asks for now, and what it asked for before.
    pub(crate) fn replace(&self, container: &str, before: &Networks, after: &Networks) {
        let of = |networks: &Networks| -> Vec<(String, Vec<IpAddr>)> {
            let all = networks
                .iter()
                .map(|(name, settings)| (name.clone(), addresses(settings)));
            all.filter(|(_, addresses)| !addresses.is_empty()).collect()
        };
        let (before, after) = (of(before), of(after));
        if before == after {
            return;
        }
        let mut table = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (network, _) in before {
            if let Some(wished) = table.get_mut(&network) {
                wished.remove(container);
                if wished.is_empty() {
                    table.remove(&network);
                }
            }
        }
        for (network, addresses) in after {
            let wished = table.entry(network).or_default();
            wished.insert(container.to_owned(), addresses);
        }
    }

    /// Gives the addresses of a network that other containers have asked for.
    pub(crate) fn of_others(&self, network: &str, container: &str) -> HashSet<IpAddr> {
        let table = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let others = table.get(network).into_iter().flatten();
        others
            .filter(|(id, _)| *id != container)
            .flat_map(|(_, addresses)| addresses)
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::EndpointIpam;

    #[test]
    fn wishes_follow_the_records() {
        let wishes = Wishes::default();
        let networks = |all: &[(&str, &str, &str)]| -> Networks {
            let one = |&(name, ipv4, ipv6): &(&str, &str, &str)| {
                let ipam = EndpointIpam {
                    ipv4: ipv4.to_owned(),
                    ipv6: ipv6.to_owned(),
                    link_local: None,
                };
                let settings = EndpointSettings {
                    ipam: Some(ipam),
                    ..EndpointSettings::default()
                };
                (name.to_owned(), settings)
            };
            all.iter().map(one).collect()
        };
        let nothing = Networks::new();
        let first = networks(&[("a", "10.0.0.5", "fd00::5"), ("b", "", "")]);
        wishes.replace("one", &nothing, &first);
        wishes.replace("two", &nothing, &networks(&[("a", "10.0.0.6", "")]));
        let of = |network: &str, container: &str| {
            let mut all: Vec<String> = wishes
                .of_others(network, container)
                .iter()
                .map(IpAddr::to_string)
                .collect();
            all.sort();
            all
        };
        assert_eq!(of("a", "three"), ["10.0.0.5", "10.0.0.6", "fd00::5"]);
        assert_eq!(of("a", "one"), ["10.0.0.6"]);
        assert_eq!(of("b", "three"), [""; 0]);
        let second = networks(&[("b", "10.0.1.5", "")]);
        wishes.replace("one", &first, &second);
        assert_eq!(of("a", "three"), ["10.0.0.6"]);
        assert_eq!(of("b", "three"), ["10.0.1.5"]);
        wishes.replace("one", &second, &nothing);
        assert_eq!(of("b", "three"), [""; 0]);
    }
}
