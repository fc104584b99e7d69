//! Networks of the records that could not be brought up: kept as they are and tried again, while their containers run.
//!
//! Nothing of a container that lives is swept, given to others or opened because its network has trouble: interfaces,
//! addresses, host ports and rules stay until the network is up or the endpoint is released.

use std::collections::HashSet;

use ipnet::IpNet;

use super::sysctl::Protocol;
use super::{Shared, State, lock, network, subnets};
use crate::firewall::{self, Bridge};
use crate::{BridgeConfig, Endpoint, Error, NetworkConfig, PublishedPort, Report, ipam};

/// An endpoint of a living container whose network is not up.
pub(super) struct Waiting {
    pub endpoint: Endpoint,
    pub ports: Vec<PublishedPort>,
}

impl State {
    /// Gives the bridges of networks that are down; none whose interface another network has.
    fn down_bridges(&self) -> impl Iterator<Item = &BridgeConfig> {
        self.down.values().filter_map(|config| match config {
            NetworkConfig::Bridge(config) => {
                let used = |network: &super::Network| network.info.interface == config.interface;
                (!self.networks.values().any(used)).then_some(config)
            }
            NetworkConfig::Macvlan(_) => None,
        })
    }

    /// Gives what the firewall knows of networks that are down.
    pub(super) fn down_rules(&self) -> Vec<Bridge> {
        self.down_bridges()
            .map(|config| {
                let ipv6 = config.ipv6.and_then(|ipv6| ipv6.subnet);
                let ipv4 = config.subnet.filter(|_| config.ipv4);
                network::bridge_rules(config, &config.interface, ipv4, ipv6)
            })
            .collect()
    }

    /// Gives the names of bridges that are down, with whether they have IPv6 and whether a port of theirs is to be
    /// reached by the loopback.
    pub(super) fn down_interfaces(&self) -> Vec<(String, bool, bool)> {
        self.down_bridges()
            .map(|config| {
                let loopback = self.waiting.iter().any(|waiting| {
                    let published = self.published.get(&waiting.endpoint.id);
                    waiting.endpoint.network == config.id
                        && published.is_some_and(|all| all.iter().any(firewall::needs_loopback))
                });
                (config.interface.clone(), config.ipv6.is_some(), loopback)
            })
            .collect()
    }
}

impl Shared {
    /// Notes a living container's endpoint whose network is not up. Its ports stay its own.
    pub(super) fn wait_for_network(
        &self,
        state: &mut State,
        endpoint: &Endpoint,
        ports: &[PublishedPort],
    ) {
        let known = |waiting: &Waiting| waiting.endpoint.id == endpoint.id;
        if state.waiting.iter().any(known) {
            return;
        }
        state.take_ports(endpoint, ports);
        let publications = self.publications(state, endpoint, ports);
        state.set_published(endpoint, publications);
        state.waiting.push(Waiting {
            endpoint: endpoint.clone(),
            ports: ports.to_vec(),
        });
    }

    /// Tries the networks again that are down, and gives their containers back to those that come up.
    pub(super) fn retry_down(&self, report: &mut Report) {
        let down: Vec<String> = lock(&self.state).down.keys().cloned().collect();
        for id in down {
            // What kept the interface away was told at the first attempt; that its rules are missing is told by whoever
            // compares them.
            let _ = self.retry(&id, report);
        }
    }

    /// Tries one network again, if it is down.
    ///
    /// # Errors
    /// Why it stays down.
    pub(super) fn retry(&self, id: &str, report: &mut Report) -> Result<(), Error> {
        // Until the rules stand: nobody connects to a bridge that has none. Whoever starts a container on it comes here
        // as long as it is among those that are down.
        let _alone = lock(&self.making);
        let Some(config) = lock(&self.state).down.get(id).cloned() else {
            return Ok(());
        };
        self.add_network_alone(&config, &[], &mut None)?;
        let live = {
            // In one step: an endpoint that is released meanwhile must not come back.
            let mut state = lock(&self.state);
            let (back, waiting) = std::mem::take(&mut state.waiting)
                .into_iter()
                .partition::<Vec<_>, _>(|one| one.endpoint.network == id);
            state.waiting = waiting;
            let live: Vec<_> = back
                .into_iter()
                .map(|one| (one.endpoint, one.ports))
                .collect();
            for (endpoint, _) in &live {
                // Counted anew, with the network.
                state.published.remove(&endpoint.id);
            }
            self.adopt(&mut state, &live, report);
            live
        };
        let applied = self.apply_firewall(report);
        let applied = applied.and_then(|()| self.enable_forwarding(Protocol::V6).map(drop));
        if let Err(error) = applied {
            self.put_down_again(id, live);
            return Err(error);
        }
        lock(&self.state).down.remove(id);
        report.restored.push(format!("network {}", config.name()));
        Ok(())
    }

    /// Takes back what `retry` entered into the state. Its bridge stays, with nobody new on it.
    fn put_down_again(&self, id: &str, live: Vec<(Endpoint, Vec<PublishedPort>)>) {
        let mut state = lock(&self.state);
        let Some(network) = state.networks.remove(id) else {
            return;
        };
        for (endpoint, mut ports) in live {
            // Released or unpublished meanwhile, it stays so.
            if !network.endpoints.contains_key(&endpoint.id) {
                continue;
            }
            if state.published.remove(&endpoint.id).is_none() {
                ports.clear();
            }
            self.wait_for_network(&mut state, &endpoint, &ports);
        }
    }

    /// Deletes the interfaces of networks that did not stand before.
    pub(super) fn take_down_all_but(&self, stood: &HashSet<u32>) {
        let made: Vec<String> = {
            let state = lock(&self.state);
            let networks = state.networks.values();
            let made = networks.filter(|one| !one.adopted && !stood.contains(&one.index));
            made.map(|network| network.info.interface.clone()).collect()
        };
        for interface in made {
            if let Err(error) = self.delete_own_link(&interface) {
                (self.config.warn)(&error.whole());
            }
        }
    }

    /// Gives the subnets of networks that are down, and refuses what asks for one of them.
    pub(super) fn kept_for_down(&self, config: &NetworkConfig) -> Result<Vec<IpNet>, Error> {
        let state = lock(&self.state);
        let kept: Vec<IpNet> = state.down.values().flat_map(subnets::named).collect();
        if subnets::named(config).any(|wanted| kept.iter().any(|&net| ipam::overlap(net, wanted))) {
            return Err(Error::Conflict(subnets::OVERLAPS.to_owned()));
        }
        Ok(kept)
    }

    /// Removes a network that is down, with `making` held. Says whether it was one.
    pub(super) fn remove_down(&self, id: &str) -> Result<bool, Error> {
        {
            let state = lock(&self.state);
            if !state.down.contains_key(id) {
                return Ok(false);
            }
            if state.waiting.iter().any(|one| one.endpoint.network == id) {
                return Err(Error::Conflict(format!(
                    "network {id} has active endpoints"
                )));
            }
        }
        let alias = self.network_alias(id);
        for link in self.landscape()?.links {
            if link.alias.as_deref() == Some(alias.as_str()) {
                self.delete_own_link(&link.name)?;
            }
        }
        lock(&self.state).down.remove(id);
        self.apply_firewall(&mut Report::default())?;
        Ok(true)
    }
}
