//! The names of all networks.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use crate::protocol::NamedEndpoint;

/// Names and addresses, by network.
#[derive(Debug, Default)]
pub struct Zones {
    networks: HashMap<Box<str>, Zone>,
}

#[derive(Debug, Default)]
struct Zone {
    endpoints: HashMap<Rc<str>, NamedEndpoint>,
    /// In lower case; each with all endpoints that bear it.
    names: HashMap<Box<[u8]>, Vec<Rc<str>>>,
    addresses: HashMap<IpAddr, Rc<str>>,
}

fn folded(name: &str) -> Box<[u8]> {
    name.trim_end_matches('.')
        .to_ascii_lowercase()
        .into_bytes()
        .into_boxed_slice()
}

impl Zone {
    fn put(&mut self, endpoint: NamedEndpoint) {
        self.take(&endpoint.endpoint);
        let id: Rc<str> = endpoint.endpoint.as_str().into();
        for name in &endpoint.names {
            let bearers = self.names.entry(folded(name)).or_default();
            if !bearers.contains(&id) {
                bearers.push(id.clone());
            }
        }
        for address in &endpoint.addresses {
            self.addresses.insert(*address, id.clone());
        }
        self.endpoints.insert(id, endpoint);
    }

    fn take(&mut self, id: &str) -> Option<NamedEndpoint> {
        let endpoint = self.endpoints.remove(id)?;
        for name in &endpoint.names {
            let name = folded(name);
            if let Some(bearers) = self.names.get_mut(&name) {
                bearers.retain(|bearer| **bearer != *id);
                if bearers.is_empty() {
                    self.names.remove(&name);
                }
            }
        }
        for address in &endpoint.addresses {
            // An address may have passed on to another endpoint already.
            if self
                .addresses
                .get(address)
                .is_some_and(|bearer| **bearer == *id)
            {
                self.addresses.remove(address);
            }
        }
        Some(endpoint)
    }
}

impl Zones {
    /// Sets the names of one endpoint.
    pub fn put(&mut self, endpoint: NamedEndpoint) {
        self.networks
            .entry(endpoint.network.as_str().into())
            .or_default()
            .put(endpoint);
    }

    /// Takes one endpoint's names away.
    pub fn take(&mut self, network: &str, endpoint: &str) {
        if let Some(zone) = self.networks.get_mut(network) {
            zone.take(endpoint);
            if zone.endpoints.is_empty() {
                self.networks.remove(network);
            }
        }
    }

    /// Returns one endpoint as it was put.
    pub fn get(&self, network: &str, endpoint: &str) -> Option<&NamedEndpoint> {
        self.networks.get(network)?.endpoints.get(endpoint)
    }

    /// Lists the endpoints of a network.
    pub fn endpoints(&self, network: &str) -> Vec<String> {
        let zone = self.networks.get(network);
        zone.map(|zone| zone.endpoints.keys().map(|id| (**id).to_owned()).collect())
            .unwrap_or_default()
    }

    /// Lists the networks that have names.
    pub fn networks(&self) -> Vec<String> {
        self.networks.keys().map(|id| (**id).to_owned()).collect()
    }

    /// Appends the addresses of a name, or of an endpoint's id, that `wanted` picks. False: nobody bears the name.
    pub fn find(
        &self,
        network: &str,
        name: &[u8],
        wanted: impl Fn(&IpAddr) -> bool,
        found: &mut Vec<IpAddr>,
    ) -> bool {
        let Some(zone) = self.networks.get(network) else {
            return false;
        };
        let mut append = |endpoint: &NamedEndpoint| {
            found.extend(endpoint.addresses.iter().filter(|address| wanted(address)));
        };
        if let Some(bearers) = zone.names.get(name) {
            bearers
                .iter()
                .filter_map(|id| zone.endpoints.get(id))
                .for_each(append);
            return true;
        }
        let by_id = std::str::from_utf8(name)
            .ok()
            .and_then(|id| zone.endpoints.get(id));
        by_id.map(&mut append).is_some()
    }

    /// Returns the name that an address leads back to.
    pub fn reverse(&self, network: &str, address: IpAddr) -> Option<&str> {
        let zone = self.networks.get(network)?;
        let endpoint = zone.endpoints.get(zone.addresses.get(&address)?)?;
        (!endpoint.primary.is_empty()).then_some(endpoint.primary.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(id: &str, names: &[&str], addresses: &[&str]) -> NamedEndpoint {
        NamedEndpoint {
            network: "net".to_owned(),
            endpoint: id.to_owned(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            primary: names[0].to_owned(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn find(zones: &Zones, name: &str) -> Option<Vec<String>> {
        let mut found = Vec::new();
        zones
            .find("net", name.as_bytes(), |_| true, &mut found)
            .then(|| found.iter().map(IpAddr::to_string).collect())
    }

    #[test]
    fn a_shared_alias_has_all_addresses_and_outlives_one_bearer() {
        let mut zones = Zones::default();
        zones.put(endpoint("e1", &["One", "web"], &["10.0.0.2", "fd00::2"]));
        zones.put(endpoint("e2", &["two", "web"], &["10.0.0.3"]));
        assert_eq!(find(&zones, "web").unwrap().len(), 3);
        assert_eq!(find(&zones, "one").unwrap(), ["10.0.0.2", "fd00::2"]);
        assert_eq!(find(&zones, "e2").unwrap(), ["10.0.0.3"]);
        assert_eq!(find(&zones, "three"), None);
        zones.take("net", "e1");
        assert_eq!(find(&zones, "web").unwrap(), ["10.0.0.3"]);
        assert_eq!(find(&zones, "one"), None);
        zones.take("net", "e2");
        assert!(zones.networks.is_empty());
    }

    #[test]
    fn an_address_that_passed_on_leads_to_its_new_bearer() {
        let mut zones = Zones::default();
        let address = "10.0.0.2".parse().unwrap();
        zones.put(endpoint("e1", &["one"], &["10.0.0.2"]));
        zones.put(endpoint("e2", &["two"], &["10.0.0.2"]));
        zones.take("net", "e1");
        assert_eq!(zones.reverse("net", address), Some("two"));
        zones.put(endpoint("e2", &["two"], &["10.0.0.9"]));
        assert_eq!(zones.reverse("net", address), None);
    }
}
