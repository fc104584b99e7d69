//! Bridges: made, found again, or taken over from whoever made them before.

use std::net::Ipv4Addr;

use gantry_sys::netlink::{Batch, route};
use ipnet::Ipv4Net;

use super::{Network, Shared, lock, random_mac};
use crate::firewall::short_id;
use crate::ipam::{self, Pool};
use crate::{BridgeConfig, BridgeInfo, Error};

/// Without a default route there is nothing to take the MTU from.
const DEFAULT_MTU: u32 = 1500;
const INTERFACE_NAME_BYTES_MAX: usize = 15;

/// What the kernel has at the moment.
pub(super) struct Landscape {
    pub links: Vec<route::Link>,
    pub addresses: Vec<route::Address>,
    pub routes: Vec<route::Route>,
}

impl Landscape {
    /// Gives the subnets that the host uses by interfaces other than `except`.
    fn subnets(&self, except: Option<u32>) -> Vec<Ipv4Net> {
        let routes = self
            .routes
            .iter()
            .filter(|route| route.prefix_len > 0 && (except.is_none() || route.link != except))
            .filter_map(|route| Ipv4Net::new(route.destination, route.prefix_len).ok());
        let addresses = self
            .addresses
            .iter()
            .filter(|address| Some(address.link) != except)
            .filter_map(|address| Ipv4Net::new(address.address, address.prefix_len).ok());
        routes.chain(addresses).map(|net| net.trunc()).collect()
    }

    /// Gives the MTU of the default route's device.
    fn mtu(&self) -> Option<u32> {
        let best = self
            .routes
            .iter()
            .filter(|route| route.prefix_len == 0)
            .min_by_key(|route| route.metric)?;
        self.links
            .iter()
            .find(|link| Some(link.index) == best.link)
            .map(|link| link.mtu)
    }
}

/// Which interface a network uses.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// It stands already and is ours.
    Ours(u32, String),
    /// It was made by somebody for this use.
    Adopt(u32, String),
    Make(String),
}

/// Decides which interface a network uses. `default`: the name is Docker's and may be taken by a real Docker Engine.
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
    if name == "docker0" {
        // Two engines on one bridge would give one address twice.
        let free = (0..).map(|number| format!("gantry{number}"));
        let name = free
            .into_iter()
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
            "interface `{name}` exists and is not a bridge"
        )));
    }
    Ok(Choice::Adopt(link.index, name.clone()))
}

impl Shared {
    pub(super) fn landscape(&self) -> Result<Landscape, Error> {
        let rtnl = lock(&self.rtnl);
        Ok(Landscape {
            links: route::links(&rtnl).map_err(Error::kernel("list", "interfaces"))?,
            addresses: route::addresses(&rtnl).map_err(Error::kernel("list", "addresses"))?,
            routes: route::routes(&rtnl).map_err(Error::kernel("list", "routes"))?,
        })
    }

    fn bridge_alias(&self, network: &str) -> String {
        format!("{}network:{}", self.alias_prefix(), short_id(network))
    }

    /// Makes or finds a network's bridge and enters it into the state. `reserved` are subnets of networks to come.
    pub(super) fn add_network(
        &self,
        config: &BridgeConfig,
        reserved: &[Ipv4Net],
    ) -> Result<BridgeInfo, Error> {
        if lock(&self.state).networks.contains_key(&config.id) {
            return Err(Error::Conflict(format!(
                "network {} exists already",
                config.id
            )));
        }
        let name = &config.interface;
        if name.is_empty()
            || name.len() > INTERFACE_NAME_BYTES_MAX
            || name.contains(['/', ':', ' ', '"'])
        {
            return Err(Error::Invalid(format!(
                "invalid bridge interface name: `{name}`"
            )));
        }
        let landscape = self.landscape()?;
        let choice = choose(&landscape.links, config, &self.bridge_alias(&config.id))?;
        let standing = match &choice {
            Choice::Ours(index, _) | Choice::Adopt(index, _) => Some(*index),
            Choice::Make(_) => None,
        };
        let subnet = self.choose_subnet(config, &landscape, standing, reserved)?;
        let gateway = match config.gateway {
            Some(gateway) if subnet.contains(&gateway) => gateway,
            Some(gateway) => {
                return Err(Error::Invalid(format!(
                    "no matching subnet for gateway {gateway}"
                )));
            }
            None => standing
                .and_then(|index| {
                    landscape
                        .addresses
                        .iter()
                        .find(|address| address.link == index && subnet.contains(&address.address))
                })
                .map_or_else(|| first_address(subnet), |address| address.address),
        };
        if let Some(range) = config.ip_range
            && !(subnet.contains(&range.network()) && subnet.contains(&range.broadcast()))
        {
            return Err(Error::Invalid(format!(
                "no matching subnet for range {range}"
            )));
        }
        let adopted = matches!(choice, Choice::Adopt(..));
        let interface = match choice {
            Choice::Ours(_, name) | Choice::Adopt(_, name) | Choice::Make(name) => name,
        };
        let mtu = config
            .mtu
            .or_else(|| landscape.mtu())
            .unwrap_or(DEFAULT_MTU);
        let info = BridgeInfo {
            id: config.id.clone(),
            interface,
            subnet,
            gateway,
            ip_range: config.ip_range,
            mtu,
            icc: config.icc,
            ip_masquerade: config.ip_masquerade,
            internal: config.internal,
            host_binding: config.host_binding,
        };
        let index = self.ensure_bridge(&info, standing.is_none(), adopted)?;
        lock(&self.state).networks.insert(
            config.id.clone(),
            Network {
                pool: Pool::new(subnet, config.ip_range, gateway),
                info: info.clone(),
                config: config.clone(),
                index,
                adopted,
                endpoints: Default::default(),
            },
        );
        Ok(info)
    }

    fn choose_subnet(
        &self,
        config: &BridgeConfig,
        landscape: &Landscape,
        standing: Option<u32>,
        reserved: &[Ipv4Net],
    ) -> Result<Ipv4Net, Error> {
        let own: Vec<Ipv4Net> = {
            let state = lock(&self.state);
            state
                .networks
                .values()
                .map(|network| network.info.subnet)
                .collect()
        };
        if let Some(subnet) = config.subnet {
            let subnet = subnet.trunc();
            if own.iter().any(|&other| ipam::overlap(other, subnet)) {
                return Err(Error::Conflict(
                    "invalid pool request: Pool overlaps with other one on this address space"
                        .to_owned(),
                ));
            }
            return Ok(subnet);
        }
        if let Some(address) = landscape
            .addresses
            .iter()
            .find(|address| Some(address.link) == standing)
            && let Ok(subnet) = Ipv4Net::new(address.address, address.prefix_len)
        {
            return Ok(subnet.trunc());
        }
        let mut taken = landscape.subnets(standing);
        taken.extend(own);
        taken.extend(reserved);
        ipam::choose_subnet(&self.pools(), &taken).ok_or(Error::PoolsExhausted)
    }

    /// Makes the bridge where `missing` and gives it what it lacks. Gives its index.
    pub(super) fn ensure_bridge(
        &self,
        info: &BridgeInfo,
        missing: bool,
        adopted: bool,
    ) -> Result<u32, Error> {
        let name = info.interface.as_str();
        let failed = || Error::kernel("set up bridge", name);
        let rtnl = lock(&self.rtnl);
        if missing {
            let mut batch = Batch::new();
            route::add_bridge(&mut batch, name, info.mtu, random_mac().map_err(failed())?);
            route::set_alias(&mut batch, name, &self.bridge_alias(&info.id));
            rtnl.execute(&mut batch)
                .map_err(|error| failed()(error.into()))?;
        }
        let link = route::link_by_name(&rtnl, name)
            .map_err(failed())?
            .ok_or_else(|| failed()(std::io::ErrorKind::NotFound.into()))?;
        let addresses = route::addresses(&rtnl).map_err(failed())?;
        let mut batch = Batch::new();
        let stands = |address: &route::Address| {
            address.link == link.index
                && address.address == info.gateway
                && address.prefix_len == info.subnet.prefix_len()
        };
        if !addresses.iter().any(stands) {
            route::add_address(
                &mut batch,
                link.index,
                info.gateway,
                info.subnet.prefix_len(),
            );
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

    pub(super) fn delete_bridge(&self, name: &str) -> Result<(), Error> {
        let failed = || Error::kernel("delete bridge", name);
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

fn first_address(subnet: Ipv4Net) -> Ipv4Addr {
    if subnet.prefix_len() >= 31 {
        return subnet.network();
    }
    (u32::from(subnet.network()) + 1).into()
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
