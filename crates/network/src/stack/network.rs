//! Networks as a whole: made, described, removed, and what the firewall must know of them.

use std::collections::{HashMap, HashSet};

use gantry_sys::nft::{Family, Transaction};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::bridge::Choice;
use super::macvlan::Parent;
use super::subnets::{self, Addressing, Landscape};
use super::sysctl::Protocol;
use super::{Network, Shared, Stack, lock};
use crate::firewall::{self, Addition, Bridge, Subnet};
use crate::{BridgeConfig, Error, MacvlanConfig, NetworkConfig, NetworkInfo, Report};

/// Gives what the firewall must know of a network; nothing of one without a bridge.
pub(super) fn rules(network: &Network) -> Option<Bridge> {
    let config = network.bridge()?;
    let info = &network.info;
    Some(bridge_rules(
        config,
        &info.interface,
        info.ipv4.map(|ipv4| ipv4.subnet),
        info.ipv6.map(|ipv6| ipv6.subnet),
    ))
}

/// The same of a bridge with these subnets.
pub(super) fn bridge_rules(
    config: &BridgeConfig,
    interface: &str,
    ipv4: Option<Ipv4Net>,
    ipv6: Option<Ipv6Net>,
) -> Bridge {
    let ipv4 = ipv4.map(|net| Subnet {
        net: IpNet::V4(net),
        mode: config.gateway_mode_ipv4,
        masquerade: config.ip_masquerade,
        host: config.host_ipv4.map(Into::into),
    });
    let ipv6 = ipv6.map(|net| Subnet {
        net: IpNet::V6(net),
        mode: config.gateway_mode_ipv6,
        masquerade: config.ip_masquerade,
        host: config.host_ipv6.map(Into::into),
    });
    Bridge {
        interface: interface.to_owned(),
        subnets: ipv4.into_iter().chain(ipv6).collect(),
        icc: config.icc,
        internal: config.internal,
        trusted: config.trusted_host_interfaces.clone(),
    }
}

/// What a network is going to be, found out without making anything.
enum Plan {
    Bridge(BridgeConfig, Choice, Addressing),
    Macvlan(MacvlanConfig, Parent, Addressing),
}

impl Stack {
    /// Describes the default bridge.
    pub fn bridge(&self) -> Option<NetworkInfo> {
        let id = &self.shared.config.bridge.as_ref()?.id;
        self.network(id).ok()
    }

    /// Describes a network.
    pub fn network(&self, id: &str) -> Result<NetworkInfo, Error> {
        lock(&self.shared.state)
            .networks
            .get(id)
            .map(|network| network.info.clone())
            .ok_or_else(|| Error::NetworkNotFound(id.to_owned()))
    }

    /// Says whether a network could be made: all that `create_network` checks, without making anything.
    pub fn check_network(&self, config: &NetworkConfig) -> Result<(), Error> {
        let landscape = self.shared.landscape()?;
        let kept = self.shared.kept_for_down(config)?;
        self.shared.plan(config, &landscape, &kept).map(drop)
    }

    /// Makes a user-defined network. Keep the answer's subnets and gateways in the record.
    pub fn create_network(&self, config: &NetworkConfig) -> Result<NetworkInfo, Error> {
        let kept = self.shared.kept_for_down(config)?;
        let info = self.shared.add_network(config, &kept)?;
        let applied = self.shared.add_bridge_rules(config.id());
        let applied = applied.and_then(|()| self.shared.enable_forwarding(Protocol::V6).map(drop));
        if let Err(error) = applied {
            // The caller sees the first error. Where the rules can be removed as little, nobody is to hold the name for
            // good: the comparisons see to what is left.
            if self.remove_network(config.id()).is_err() {
                let _ = self.shared.delete_own_link(&info.interface);
                lock(&self.shared.state).networks.remove(config.id());
            }
            return Err(error);
        }
        Ok(info)
    }

    /// Removes a user-defined network without endpoints; one that is gone is no error.
    pub fn remove_network(&self, id: &str) -> Result<(), Error> {
        let _alone = lock(&self.shared.making);
        if self.shared.remove_down(id)? {
            return Ok(());
        }
        let (addition, interface, kept) = {
            let mut state = lock(&self.shared.state);
            let options = state.options;
            let Some(network) = state.networks.get_mut(id) else {
                return Ok(());
            };
            if !network.endpoints.is_empty() {
                return Err(Error::Conflict(format!(
                    "network {id} has active endpoints"
                )));
            }
            // From here on it has no rules and takes no endpoints, but id, name and subnets stay taken.
            network.leaving = true;
            let addition = rules(network).map(|bridge| firewall::addition(&bridge, &options));
            let interface = network.info.interface.clone();
            let adopted = network.adopted;
            let shared = state
                .networks
                .values()
                .any(|other| other.config.id() != id && other.info.interface == interface);
            (addition, interface, adopted || shared)
        };
        let removed =
            self.shared
                .remove_bridge_rules(addition.as_ref())
                .and_then(|()| match kept {
                    true => Ok(()),
                    false => self.shared.delete_own_link(&interface),
                });
        {
            let mut state = lock(&self.shared.state);
            match &removed {
                Ok(()) => drop(state.networks.remove(id)),
                Err(_) => {
                    if let Some(network) = state.networks.get_mut(id) {
                        network.leaving = false;
                    }
                }
            }
        }
        if removed.is_err() {
            // It stays, to be used or removed again, so its rules stand. The caller sees the first error.
            let _ = self.shared.apply_firewall(&mut Report::default());
        }
        removed
    }
}

impl Shared {
    fn plan(
        &self,
        config: &NetworkConfig,
        landscape: &Landscape,
        reserved: &[IpNet],
    ) -> Result<Plan, Error> {
        if lock(&self.state).networks.contains_key(config.id()) {
            return Err(Error::Conflict(format!(
                "network {} exists already",
                config.id()
            )));
        }
        match config {
            NetworkConfig::Bridge(bridge) => {
                let bridge = self.completed(bridge);
                let choice = self.choose_bridge(&bridge, landscape)?;
                let config = NetworkConfig::Bridge(bridge.clone());
                subnets::check(&config)?;
                let addressing = self.address(&config, landscape, choice.standing(), reserved)?;
                Ok(Plan::Bridge(bridge, choice, addressing))
            }
            NetworkConfig::Macvlan(macvlan) => {
                subnets::check(config)?;
                let parent = self.choose_parent(macvlan, landscape)?;
                let addressing = self.address(config, landscape, None, reserved)?;
                Ok(Plan::Macvlan(macvlan.clone(), parent, addressing))
            }
        }
    }

    /// Gives the default network what its configuration may say in a loose way: `--bip` names an address.
    fn completed(&self, bridge: &BridgeConfig) -> BridgeConfig {
        let mut bridge = bridge.clone();
        if bridge.is_default {
            bridge.subnet = bridge.subnet.map(|subnet| subnet.trunc());
            bridge.ip_range = bridge.ip_range.map(|range| range.trunc());
        }
        bridge
    }

    /// Makes or finds a network's interface and enters it into the state. `reserved` are subnets of networks to come.
    pub(super) fn add_network(
        &self,
        config: &NetworkConfig,
        reserved: &[IpNet],
    ) -> Result<NetworkInfo, Error> {
        let _alone = lock(&self.making);
        self.add_network_alone(config, reserved, &mut None)
    }

    /// The same with `making` held. `seen` is what the kernel has: looked up where it is not known, and forgotten where
    /// that changes in a way that is not known either.
    pub(super) fn add_network_alone(
        &self,
        config: &NetworkConfig,
        reserved: &[IpNet],
        seen: &mut Option<Landscape>,
    ) -> Result<NetworkInfo, Error> {
        let mut landscape = match seen.take() {
            Some(landscape) => landscape,
            None => self.landscape()?,
        };
        let (network, stood) = match self.plan(config, &landscape, reserved)? {
            Plan::Bridge(config, choice, addressing) => (
                self.make_bridge(config, &choice, addressing, &landscape)?,
                choice.standing().is_some(),
            ),
            Plan::Macvlan(config, parent, addressing) => (
                self.make_macvlan(config, &parent, addressing, &landscape)?,
                matches!(parent, Parent::Standing(_)),
            ),
        };
        match network.bridge() {
            _ if stood => *seen = Some(landscape),
            Some(config) => {
                landscape.add_bridge(&network, config, self.network_alias(&config.id));
                *seen = Some(landscape);
            }
            // A parent may bring others along.
            None => {}
        }
        let info = network.info.clone();
        lock(&self.state)
            .networks
            .insert(config.id().to_owned(), network);
        Ok(info)
    }

    fn make_macvlan(
        &self,
        config: MacvlanConfig,
        parent: &Parent,
        addressing: Addressing,
        landscape: &Landscape,
    ) -> Result<Network, Error> {
        let (index, mtu) = self.ensure_parent(&config, parent)?;
        let info = NetworkInfo {
            id: config.id.clone(),
            interface: parent.name().to_owned(),
            ipv4: addressing.ipv4,
            ipv6: addressing.ipv6,
            mtu: config.mtu.unwrap_or(mtu),
            internal: config.internal || config.parent.is_none(),
            icc: true,
            ip_masquerade: false,
            host_binding: None,
        };
        // What carries the engine's mark was made for this network, or for another one that shares it.
        let mark = self.alias_prefix();
        let ours = landscape.links.iter().any(|link| {
            let alias = link.alias.as_deref();
            link.index == index && alias.is_some_and(|alias| alias.starts_with(&mark))
        });
        let adopted = matches!(parent, Parent::Standing(_)) && !ours;
        let config = NetworkConfig::Macvlan(config);
        Ok(entry(info, config, index, adopted, addressing))
    }

    fn make_bridge(
        &self,
        config: BridgeConfig,
        choice: &Choice,
        addressing: Addressing,
        landscape: &Landscape,
    ) -> Result<Network, Error> {
        let adopted = matches!(choice, Choice::Adopt(..));
        let info = NetworkInfo {
            id: config.id.clone(),
            interface: choice.name().to_owned(),
            ipv4: addressing.ipv4,
            ipv6: addressing.ipv6,
            mtu: Self::bridge_mtu(&config, landscape),
            internal: config.internal,
            icc: config.icc,
            ip_masquerade: config.ip_masquerade,
            host_binding: config.host_binding,
        };
        let missing = choice.standing().is_none();
        let index = self.ensure_bridge(&config, &info, missing, adopted, &landscape.addresses)?;
        Ok(entry(
            info,
            NetworkConfig::Bridge(config),
            index,
            adopted,
            addressing,
        ))
    }

    /// Adds the chains of one more bridge: a single transaction, however large the table is. Where the kernel differs
    /// from what the state says, the whole table is compared instead.
    fn add_bridge_rules(&self, id: &str) -> Result<(), Error> {
        if !self.config.firewall {
            return Ok(());
        }
        let (addition, options) = {
            let state = lock(&self.state);
            let bridge = state.networks.get(id).and_then(rules);
            (bridge, state.options)
        };
        let Some(bridge) = addition else {
            return Ok(());
        };
        let addition = firewall::addition(&bridge, &options);
        let mut transaction = Transaction::new();
        for chain in &addition.chains {
            transaction.add_new_chain(Family::Inet, &self.table, &chain.name);
            for rule in &chain.rules {
                let comment = rule.comment();
                transaction.add_rule(
                    Family::Inet,
                    &self.table,
                    &chain.name,
                    &rule.expressions(),
                    &comment,
                );
            }
        }
        for (set, elements) in addition.elements.iter() {
            transaction.add_elements(Family::Inet, &self.table, set.name, elements);
        }
        let answer = transaction.commit(&lock(&self.nfnl));
        match answer {
            Err(error) if matches!(error.errno(), libc::ENOENT | libc::EEXIST) => {
                self.apply_firewall(&mut Report::default())
            }
            answer => {
                answer.map_err(|error| {
                    Error::kernel("add rules to table", &*self.table)(error.into())
                })?;
                self.apply_foreign(&mut Report::default())
            }
        }
    }

    fn remove_bridge_rules(&self, addition: Option<&Addition>) -> Result<(), Error> {
        let Some(addition) = addition.filter(|_| self.config.firewall) else {
            return Ok(());
        };
        let mut transaction = Transaction::new();
        for (set, elements) in addition.elements.iter() {
            transaction.delete_elements(Family::Inet, &self.table, set.name, elements);
        }
        for chain in &addition.chains {
            transaction.flush_chain(Family::Inet, &self.table, &chain.name);
            transaction.delete_chain(Family::Inet, &self.table, &chain.name);
        }
        let answer = transaction.commit(&lock(&self.nfnl));
        match answer {
            // Somebody flushed the ruleset: the comparison removes exactly what is left.
            Err(error) if matches!(error.errno(), libc::ENOENT | libc::EBUSY) => {
                self.apply_firewall(&mut Report::default())
            }
            answer => {
                answer.map_err(|error| {
                    Error::kernel("remove rules from table", &*self.table)(error.into())
                })?;
                self.apply_foreign(&mut Report::default())
            }
        }
    }
}

fn entry(
    info: NetworkInfo,
    config: NetworkConfig,
    index: u32,
    adopted: bool,
    addressing: Addressing,
) -> Network {
    Network {
        info,
        config,
        index,
        adopted,
        pool4: addressing.pool4,
        pool6: addressing.pool6,
        endpoints: HashMap::new(),
        connected: HashSet::new(),
        loopback_ports: 0,
        leaving: false,
    }
}
