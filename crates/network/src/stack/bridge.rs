//! Bridges: made, found again, or taken over from whoever made them before.

use std::net::{IpAddr, Ipv6Addr};

use gantry_sys::netlink::{Batch, route};

use super::subnets::Landscape;
use super::{Shared, lock, random_mac};
use crate::firewall::short_id;
use crate::{BridgeConfig, Error, NetworkInfo};

/// Without a default route there is nothing to take the MTU from.
const DEFAULT_MTU: u32 = 1500;
pub(super) const INTERFACE_NAME_BYTES_MAX: usize = 15;
/// The bridge's address by which IPv6 neighbours know each other; as good on every link as on any other.
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// What is wrong with a bridge's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadBridgeName {
    /// It has more bytes than the kernel keeps of an interface's name.
    TooLong,
    /// It is empty, or the kernel or the firewall's rules cannot have it.
    Unusable,
}

/// Says whether a bridge may have a name (`dev_valid_name` in the kernel's net/core/dev.c, and more).
///
/// # Errors
/// What is wrong with it.
pub fn check_bridge_name(name: &str) -> Result<(), BadBridgeName> {
    if name.len() > INTERFACE_NAME_BYTES_MAX {
        return Err(BadBridgeName::TooLong);
    }
    // The kernel takes `%` for a place where it puts a number, and a quotation mark would end a text of the rules.
    let unusable = name.is_empty()
        || matches!(name, "." | "..")
        || name.contains(['/', ':', '%', '"', '\0'])
        || name.contains(char::is_whitespace);
    if unusable {
        return Err(BadBridgeName::Unusable);
    }
    Ok(())
}

/// Which interface a network uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// It stands already and is ours.
    Ours(u32, String),
    /// It was made by somebody for this use.
    Adopt(u32, String),
    Make(String),
}

impl Choice {
    pub(super) fn standing(&self) -> Option<u32> {
        match self {
            Self::Ours(index, _) | Self::Adopt(index, _) => Some(*index),
            Self::Make(_) => None,
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Ours(_, name) | Self::Adopt(_, name) | Self::Make(name) => name,
        }
    }
}

/// Decides which interface a network uses. The default network's name is Docker's and may be taken by a real Docker
/// Engine.
fn choose(links: &[route::Link], config: &BridgeConfig, alias: &str) -> Result<Choice, Error> {
    if let Some(link) = links
        .iter()
        .find(|link| link.alias.as_deref() == Some(alias))
    {
        return Ok(Choice::Ours(link.index, link.name.clone()));
    }
    let name = &config.interface;
    let Some(link) = links.iter().find(|link| link.name == *name) else {
        return Ok(Choice::Make(name.clone()));
    };
    if config.is_default && name == "docker0" {
        // Two engines on one bridge would give one address twice.
        let name = (0..)
            .map(|number| format!("gantry{number}"))
            .find(|name| !links.iter().any(|link| link.name == *name));
        return name
            .map(Choice::Make)
            .ok_or_else(|| Error::Conflict("no interface name is free".to_owned()));
    }
    if link
        .alias
        .as_deref()
        .is_some_and(|alias| alias.starts_with("gantry:"))
    {
        return Err(Error::Conflict(format!(
            "bridge `{name}` belongs to another engine"
        )));
    }
    if link.kind.as_deref() != Some("bridge") {
        return Err(Error::Conflict(format!(
            "existing interface {name} is not a bridge"
        )));
    }
    Ok(Choice::Adopt(link.index, name.clone()))
}

/// Gives the addresses that a bridge has: the gateways of its containers, unless those are somebody else's.
pub(super) fn own_addresses(config: &BridgeConfig, info: &NetworkInfo) -> Vec<(IpAddr, u8)> {
    let mut addresses = Vec::new();
    if let Some(ipv4) = &info.ipv4
        && let Some(gateway) = ipv4.gateway
        && !config.inhibit_ipv4
        && config.gateway_mode_ipv4 != crate::GatewayMode::Isolated
    {
        addresses.push((gateway.into(), ipv4.subnet.prefix_len()));
    }
    if let Some(ipv6) = &info.ipv6
        && let Some(gateway) = ipv6.gateway
        && config.gateway_mode_ipv6 != crate::GatewayMode::Isolated
    {
        addresses.push((gateway.into(), ipv6.subnet.prefix_len()));
        addresses.push((LINK_LOCAL.into(), 64));
    }
    addresses
}

/// Says what a bridge that stands lacks, for the operator; `None` if nothing. `standing`: the addresses of all interfaces.
pub(super) fn damage(
    link: &route::Link,
    config: &BridgeConfig,
    info: &NetworkInfo,
    standing: &[route::Address],
) -> Option<String> {
    let name = &info.interface;
    if !link.up {
        return Some(format!("bridge {name}, which was down"));
    }
    let lacking = lacking(link.index, config, info, standing);
    let first = lacking.first();
    first.map(|(address, _)| format!("address {address} of bridge {name}"))
}

/// Gives the addresses that a bridge is to have and has not, or not with their prefix.
fn lacking(
    index: u32,
    config: &BridgeConfig,
    info: &NetworkInfo,
    standing: &[route::Address],
) -> Vec<(IpAddr, u8)> {
    let mut own = own_addresses(config, info);
    own.retain(|&(address, prefix_len)| {
        !standing.iter().any(|found| {
            (found.link, found.address, found.prefix_len) == (index, address, prefix_len)
        })
    });
    own
}

impl Shared {
    pub(super) fn network_alias(&self, network: &str) -> String {
        format!("{}network:{}", self.alias_prefix(), short_id(network))
    }

    /// Decides which bridge a network uses and what it looks like. Makes nothing.
    pub(super) fn choose_bridge(
        &self,
        config: &BridgeConfig,
        landscape: &Landscape,
    ) -> Result<Choice, Error> {
        let name = &config.interface;
        if check_bridge_name(name).is_err() {
            return Err(Error::Invalid(format!(
                "invalid bridge interface name: `{name}`"
            )));
        }
        let state = lock(&self.state);
        let other = state.networks.values().find(|network| {
            network.info.interface == *name && network.bridge().is_some() && !config.is_default
        });
        if let Some(other) = other {
            return Err(Error::Conflict(format!(
                "cannot create network {} ({name}): conflicts with network {} ({name}): networks have same bridge name",
                config.id,
                other.config.id()
            )));
        }
        drop(state);
        choose(&landscape.links, config, &self.network_alias(&config.id))
    }

    /// Gives a bridge's MTU.
    pub(super) fn bridge_mtu(config: &BridgeConfig, landscape: &Landscape) -> u32 {
        config
            .mtu
            .or_else(|| landscape.mtu())
            .unwrap_or(DEFAULT_MTU)
    }

    /// Makes the bridge where `missing` and gives it what it lacks. Gives its index. A bridge that was made here and
    /// cannot be completed goes again. `standing`: the addresses that interfaces have.
    pub(super) fn ensure_bridge(
        &self,
        config: &BridgeConfig,
        info: &NetworkInfo,
        missing: bool,
        adopted: bool,
        standing: &[route::Address],
    ) -> Result<u32, Error> {
        let mut made = false;
        let answer = self.complete_bridge(config, info, missing, adopted, standing, &mut made);
        if answer.is_err() && made {
            let mut batch = Batch::new();
            let rtnl = lock(&self.rtnl);
            // The caller sees the first error.
            if let Ok(Some(link)) = route::link_by_name(&rtnl, &info.interface) {
                route::delete_link(&mut batch, link.index);
                let _ = rtnl.execute(&mut batch);
            }
        }
        answer
    }

    /// Does the work of `ensure_bridge`; `made` tells whether the bridge was not there before.
    fn complete_bridge(
        &self,
        config: &BridgeConfig,
        info: &NetworkInfo,
        missing: bool,
        adopted: bool,
        standing: &[route::Address],
        made: &mut bool,
    ) -> Result<u32, Error> {
        let name = info.interface.as_str();
        let failed = || Error::kernel("set up bridge", name);
        let rtnl = lock(&self.rtnl);
        if missing {
            let mut batch = Batch::new();
            route::add_bridge(&mut batch, name, info.mtu, random_mac().map_err(failed())?);
            let alias = self.network_alias(&info.id);
            route::set_alias(&mut batch, name, &alias, self.has_ipv6(info.mtu));
            let answer = rtnl.execute(&mut batch);
            // The first message of the batch makes it.
            *made = answer
                .as_ref()
                .map_or_else(|error| error.index > 0, |()| true);
            answer.map_err(|error| failed()(error.into()))?;
        }
        let link = route::link_by_name(&rtnl, name)
            .map_err(failed())?
            .ok_or_else(|| failed()(std::io::ErrorKind::NotFound.into()))?;
        if !adopted {
            self.tame_ipv6(name, info.ipv6.is_some())?;
        }
        let mut batch = Batch::new();
        for (address, prefix_len) in lacking(link.index, config, info, standing) {
            let other = standing
                .iter()
                .find(|found| (found.link, found.address) == (link.index, address));
            if let Some(other) = other.filter(|_| !adopted) {
                // Of IPv6 the kernel has no address twice, and keeps the prefix that it has.
                route::delete_address(&mut batch, link.index, address, other.prefix_len);
            }
            route::add_address(&mut batch, link.index, address, prefix_len);
        }
        if !link.up {
            route::set_up(&mut batch, link.index);
        }
        if !adopted && link.mtu != info.mtu {
            route::set_mtu(&mut batch, link.index, info.mtu);
        }
        rtnl.execute(&mut batch)
            .map_err(|error| failed()(error.into()))?;
        Ok(link.index)
    }

    /// Deletes an interface of a network's own.
    pub(super) fn delete_own_link(&self, name: &str) -> Result<(), Error> {
        let failed = || Error::kernel("delete interface", name);
        let rtnl = lock(&self.rtnl);
        let Some(link) = route::link_by_name(&rtnl, name).map_err(failed())? else {
            return Ok(());
        };
        if !link
            .alias
            .is_some_and(|alias| alias.starts_with(&self.alias_prefix()))
        {
            return Ok(());
        }
        let mut batch = Batch::new();
        route::delete_link(&mut batch, link.index);
        match rtnl.execute(&mut batch) {
            Err(error) if error.errno() == libc::ENODEV => Ok(()),
            answer => answer.map_err(|error| failed()(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: &str, alias: Option<&str>) -> route::Link {
        route::Link {
            index,
            name: name.to_owned(),
            kind: Some(kind.to_owned()),
            alias: alias.map(str::to_owned),
            ..route::Link::default()
        }
    }

    #[test]
    fn an_address_with_another_prefix_is_damage() {
        let config = BridgeConfig::default_bridge("n1");
        let info = NetworkInfo {
            id: "n1".to_owned(),
            interface: "docker0".to_owned(),
            ipv4: Some(crate::SubnetInfo {
                subnet: "172.17.0.0/16".parse().unwrap(),
                gateway: "172.17.0.1".parse().ok(),
                ip_range: None,
            }),
            ipv6: None,
            mtu: DEFAULT_MTU,
            internal: false,
            icc: true,
            ip_masquerade: true,
            host_binding: None,
        };
        let link = route::Link {
            up: true,
            ..link(3, "docker0", "bridge", None)
        };
        let address = |link: u32, prefix_len: u8| route::Address {
            link,
            address: "172.17.0.1".parse().unwrap(),
            prefix_len,
            tentative: false,
        };
        let check = |standing: &[route::Address]| damage(&link, &config, &info, standing);
        assert_eq!(check(&[address(3, 16)]), None);
        for standing in [address(3, 24), address(4, 16)] {
            let found = check(&[standing]);
            assert_eq!(
                found.as_deref(),
                Some("address 172.17.0.1 of bridge docker0")
            );
        }
    }

    #[test]
    fn names_that_the_kernel_or_the_rules_cannot_have_are_refused() {
        assert_eq!(check_bridge_name("br-0_a.b"), Ok(()));
        assert_eq!(check_bridge_name("exactly15bytes_"), Ok(()));
        assert_eq!(
            check_bridge_name("exactly16bytes__"),
            Err(BadBridgeName::TooLong)
        );
        for name in [
            "", ".", "..", "a/b", "a:b", "a%d", "a\"b", "a\0", "a b", "a\t",
        ] {
            assert_eq!(
                check_bridge_name(name),
                Err(BadBridgeName::Unusable),
                "{name}"
            );
        }
    }

    #[test]
    fn a_bridge_is_made_found_adopted_or_refused() {
        let alias = "gantry:e1:network:n1";
        let mut config = BridgeConfig::default_bridge("n1");
        let check = |links: &[route::Link], config: &BridgeConfig| {
            choose(links, config, alias).map_err(|e| e.to_string())
        };
        assert_eq!(check(&[], &config), Ok(Choice::Make("docker0".to_owned())));
        let ours = link(3, "gantry0", "bridge", Some(alias));
        assert_eq!(
            check(&[ours], &config),
            Ok(Choice::Ours(3, "gantry0".to_owned()))
        );
        let dockers = link(4, "docker0", "bridge", None);
        let other = link(5, "gantry0", "bridge", Some("gantry:e2:network:n1"));
        assert_eq!(
            check(&[dockers, other.clone()], &config),
            Ok(Choice::Make("gantry1".to_owned()))
        );
        config.interface = "br0".to_owned();
        assert_eq!(
            check(&[link(6, "br0", "bridge", None)], &config),
            Ok(Choice::Adopt(6, "br0".to_owned()))
        );
        assert!(check(&[link(7, "br0", "dummy", None)], &config).is_err());
        config.interface = "gantry0".to_owned();
        assert!(check(&[other], &config).is_err());
    }
}
