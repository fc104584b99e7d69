//! Which subnets a network gets: what was asked for, checked; else what the pools have left.

use std::net::IpAddr;

use gantry_sys::netlink::route;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::bridge;
use super::{Shared, lock};
use crate::ipam::{self, Pool};
use crate::{
    AddressPool, BridgeConfig, Error, GatewayMode, MacvlanConfig, NetworkConfig, SubnetInfo,
};

/// Docker's words for a subnet that another network has.
pub(super) const OVERLAPS: &str =
    "invalid pool request: Pool overlaps with other one on this address space";

/// What the kernel has at the moment.
pub(super) struct Landscape {
    pub links: Vec<route::Link>,
    pub addresses: Vec<route::Address>,
    pub routes: Vec<route::Route>,
}

impl Landscape {
    /// Gives the subnets that the host uses by interfaces other than `except`.
    fn subnets(&self, except: Option<u32>) -> Vec<IpNet> {
        let routes = self
            .routes
            .iter()
            .filter(|route| !route.is_default() && (except.is_none() || route.link != except))
            .filter_map(|route| IpNet::new(route.destination, route.prefix_len).ok());
        let addresses = self
            .addresses
            .iter()
            .filter(|address| Some(address.link) != except)
            .filter_map(|address| IpNet::new(address.address, address.prefix_len).ok());
        routes.chain(addresses).map(|net| net.trunc()).collect()
    }

    /// Gives the address of `link` that satisfies a condition.
    fn address_of(
        &self,
        link: Option<u32>,
        wanted: impl Fn(IpAddr) -> bool,
    ) -> Option<&route::Address> {
        self.addresses
            .iter()
            .find(|address| Some(address.link) == link && wanted(address.address))
    }

    /// Adds a bridge that was just made.
    pub(super) fn add_bridge(
        &mut self,
        network: &super::Network,
        config: &BridgeConfig,
        alias: String,
    ) {
        let info = &network.info;
        self.links.push(route::Link {
            index: network.index,
            name: info.interface.clone(),
            up: true,
            mtu: info.mtu,
            alias: Some(alias),
            kind: Some("bridge".to_owned()),
            ..route::Link::default()
        });
        for (address, prefix_len) in bridge::own_addresses(config, info) {
            self.addresses.push(route::Address {
                link: network.index,
                address,
                prefix_len,
                tentative: false,
            });
        }
    }

    /// Gives the MTU of the default route's device.
    pub(super) fn mtu(&self) -> Option<u32> {
        let best = self
            .routes
            .iter()
            .filter(|route| route.is_default() && route.destination.is_ipv4())
            .min_by_key(|route| route.metric)?;
        self.links
            .iter()
            .find(|link| Some(link.index) == best.link)
            .map(|link| link.mtu)
    }
}

/// What one family is asked for.
#[derive(Debug, Clone, Copy)]
struct Wish {
    ipv6: bool,
    subnet: Option<IpNet>,
    gateway: Option<IpAddr>,
    range: Option<IpNet>,
    /// Nobody is the containers' gateway unless one is named.
    isolated: bool,
}

/// What one family gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Given {
    subnet: IpNet,
    gateway: Option<IpAddr>,
    range: Option<IpNet>,
}

/// The addresses of a network: what is told of them and the pools they come from.
#[derive(Debug)]
pub(super) struct Addressing {
    pub ipv4: Option<SubnetInfo<Ipv4Net, std::net::Ipv4Addr>>,
    pub ipv6: Option<SubnetInfo<Ipv6Net, std::net::Ipv6Addr>>,
    pub pool4: Option<Pool>,
    pub pool6: Option<Pool>,
}

fn wishes(config: &NetworkConfig) -> (Vec<Wish>, &[IpAddr]) {
    let (ipv4, subnet, gateway, range, ipv6, aux) = match config {
        NetworkConfig::Bridge(BridgeConfig {
            ipv4,
            subnet,
            gateway,
            ip_range,
            ipv6,
            aux_addresses,
            ..
        })
        | NetworkConfig::Macvlan(MacvlanConfig {
            ipv4,
            subnet,
            gateway,
            ip_range,
            ipv6,
            aux_addresses,
            ..
        }) => (*ipv4, *subnet, *gateway, *ip_range, *ipv6, aux_addresses),
    };
    let isolated = |ipv6: bool| match config {
        NetworkConfig::Bridge(config) if ipv6 => config.gateway_mode_ipv6 == GatewayMode::Isolated,
        NetworkConfig::Bridge(config) => config.gateway_mode_ipv4 == GatewayMode::Isolated,
        NetworkConfig::Macvlan(_) => false,
    };
    let mut wishes = Vec::new();
    if ipv4 {
        wishes.push(Wish {
            ipv6: false,
            subnet: subnet.map(IpNet::V4),
            gateway: gateway.map(IpAddr::V4),
            range: range.map(IpNet::V4),
            isolated: isolated(false),
        });
    }
    if let Some(ipv6) = ipv6 {
        wishes.push(Wish {
            ipv6: true,
            subnet: ipv6.subnet.map(IpNet::V6),
            gateway: ipv6.gateway.map(IpAddr::V6),
            range: ipv6.ip_range.map(IpNet::V6),
            isolated: isolated(true),
        });
    }
    (wishes, aux)
}

/// Finds what is wrong with a family's wish, in Docker's words.
fn faults(wish: &Wish, aux: &[IpAddr], into: &mut Vec<String>) {
    let Some(subnet) = wish.subnet else { return };
    if subnet.trunc() != subnet {
        into.push(format!(
            "invalid subnet {subnet}: it should be {}",
            subnet.trunc()
        ));
    }
    if let Some(range) = wish.range {
        if range.prefix_len() < subnet.prefix_len() {
            into.push(format!(
                "invalid ip-range {range}: CIDR block is bigger than its parent subnet {subnet}"
            ));
        } else if !subnet.contains(&range.network()) {
            into.push(format!(
                "invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"
            ));
        } else if range.trunc() != range {
            into.push(format!(
                "invalid ip-range {range}: it should be {}",
                range.trunc()
            ));
        }
    }
    let mut check = |what: &str, address: IpAddr| {
        if !subnet.contains(&address) {
            into.push(format!(
                "invalid {what} {address}: parent subnet {subnet} doesn't contain this address"
            ));
        }
    };
    if let Some(gateway) = wish.gateway {
        check("gateway", gateway);
    }
    for address in aux.iter().filter(|address| address.is_ipv6() == wish.ipv6) {
        check("auxiliary address", *address);
    }
}

/// Refuses what contradicts itself, all faults in one answer.
pub(super) fn check(config: &NetworkConfig) -> Result<(), Error> {
    let (wishes, aux) = wishes(config);
    if wishes.is_empty() {
        return Err(Error::Invalid("IPv4 or IPv6 must be enabled".to_owned()));
    }
    if let NetworkConfig::Bridge(config) = config {
        for mode in [config.gateway_mode_ipv4, config.gateway_mode_ipv6] {
            if mode == GatewayMode::Isolated && !config.internal {
                return Err(Error::Invalid(
                    "gateway mode 'isolated' can only be used for an internal network".to_owned(),
                ));
            }
        }
    }
    let mut found = Vec::new();
    for wish in &wishes {
        faults(wish, aux, &mut found);
    }
    match found.as_slice() {
        [] => Ok(()),
        [single] => Err(Error::Invalid(format!("invalid network config:\n{single}"))),
        several => Err(Error::Invalid(format!(
            "invalid network config:\n* {}",
            several.join("\n* ")
        ))),
    }
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

    /// Gives a network its subnets, gateways and pools. `standing`: the interface that it has already. `reserved`:
    /// subnets of networks to come.
    pub(super) fn address(
        &self,
        config: &NetworkConfig,
        landscape: &Landscape,
        standing: Option<u32>,
        reserved: &[IpNet],
    ) -> Result<Addressing, Error> {
        let (wishes, aux) = wishes(config);
        let default = matches!(config, NetworkConfig::Bridge(config) if config.is_default);
        let mut addressing = Addressing {
            ipv4: None,
            ipv6: None,
            pool4: None,
            pool6: None,
        };
        for wish in wishes {
            let given = self.give(&wish, default, landscape, standing, reserved)?;
            if given.gateway.is_some_and(|gateway| aux.contains(&gateway)) {
                return Err(Error::Conflict("Address already in use".to_owned()));
            }
            let kept = given.gateway.into_iter().chain(aux.iter().copied());
            let pool = Some(Pool::new(given.subnet, given.range, kept));
            match given.subnet {
                IpNet::V4(subnet) => {
                    addressing.pool4 = pool;
                    addressing.ipv4 = Some(SubnetInfo {
                        subnet,
                        gateway: given.gateway.and_then(v4),
                        ip_range: given.range.and_then(net4),
                    });
                }
                IpNet::V6(subnet) => {
                    addressing.pool6 = pool;
                    addressing.ipv6 = Some(SubnetInfo {
                        subnet,
                        gateway: given.gateway.and_then(v6),
                        ip_range: given.range.and_then(net6),
                    });
                }
            }
        }
        Ok(addressing)
    }

    fn give(
        &self,
        wish: &Wish,
        default: bool,
        landscape: &Landscape,
        standing: Option<u32>,
        reserved: &[IpNet],
    ) -> Result<Given, Error> {
        let subnet = self.choose_subnet(wish, default, landscape, standing, reserved)?;
        let gateway = match wish.gateway {
            Some(gateway) => Some(gateway),
            None if wish.isolated => None,
            None => {
                let own = landscape.address_of(standing, |address| subnet.contains(&address));
                // The default network's range is a part of what its bridge has.
                let range = wish.range.filter(|_| !default);
                own.map(|found| found.address)
                    .or_else(|| ipam::default_gateway(subnet, range))
            }
        };
        Ok(Given {
            subnet,
            gateway,
            range: wish.range.map(|range| range.trunc()),
        })
    }

    fn choose_subnet(
        &self,
        wish: &Wish,
        default: bool,
        landscape: &Landscape,
        standing: Option<u32>,
        reserved: &[IpNet],
    ) -> Result<IpNet, Error> {
        let own: Vec<IpNet> = {
            let state = lock(&self.state);
            let networks = state.networks.values();
            networks
                .flat_map(|network| {
                    let ipv4 = network.info.ipv4.map(|info| IpNet::V4(info.subnet));
                    ipv4.into_iter()
                        .chain(network.info.ipv6.map(|info| IpNet::V6(info.subnet)))
                })
                .collect()
        };
        if let Some(subnet) = wish.subnet {
            let subnet = subnet.trunc();
            if own.iter().any(|&other| ipam::overlap(other, subnet)) {
                return Err(Error::Conflict(OVERLAPS.to_owned()));
            }
            return Ok(subnet);
        }
        // A bridge that stands keeps what it has.
        let usable = |address: IpAddr| match address {
            IpAddr::V4(_) => !wish.ipv6,
            IpAddr::V6(address) => wish.ipv6 && !address.is_unicast_link_local(),
        };
        if let Some(found) = landscape.address_of(standing, usable)
            && let Ok(subnet) = IpNet::new(found.address, found.prefix_len)
        {
            return Ok(subnet.trunc());
        }
        let mut taken = landscape.subnets(standing);
        taken.extend(own);
        taken.extend(reserved);
        ipam::choose_subnet(&self.pools(wish.ipv6, default), &taken).ok_or(Error::PoolsExhausted)
    }

    fn pools(&self, ipv6: bool, default: bool) -> Vec<AddressPool> {
        let given: Vec<AddressPool> = self
            .config
            .address_pools
            .iter()
            .filter(|pool| pool.base.addr().is_ipv6() == ipv6)
            .copied()
            .collect();
        match (given.is_empty(), ipv6) {
            (false, _) => given,
            (true, true) => ipam::default_pools_v6(&self.config.engine_id),
            (true, false) => ipam::default_pools_v4(default),
        }
    }
}

/// Gives the subnets that a network names.
pub(super) fn named(config: &NetworkConfig) -> impl Iterator<Item = IpNet> {
    let (wishes, _) = wishes(config);
    wishes.into_iter().filter_map(|wish| wish.subnet)
}

fn v4(address: IpAddr) -> Option<std::net::Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn v6(address: IpAddr) -> Option<std::net::Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

fn net4(net: IpNet) -> Option<Ipv4Net> {
    match net {
        IpNet::V4(net) => Some(net),
        IpNet::V6(_) => None,
    }
}

fn net6(net: IpNet) -> Option<Ipv6Net> {
    match net {
        IpNet::V6(net) => Some(net),
        IpNet::V4(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ipv6Config;

    fn text(change: impl FnOnce(&mut BridgeConfig)) -> String {
        let mut config = BridgeConfig::new("n1", "one", "br-1");
        change(&mut config);
        match check(&config.into()) {
            Ok(()) => "fine".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn faults_are_told_as_docker_tells_them() {
        assert_eq!(text(|_| {}), "fine");
        assert_eq!(text(|c| c.ipv4 = false), "IPv4 or IPv6 must be enabled");
        let with = |subnet: &str, range: &str, gateway: &str, aux: &str| {
            text(|config| {
                config.subnet = subnet.parse().ok();
                config.ip_range = range.parse().ok();
                config.gateway = gateway.parse().ok();
                config.aux_addresses = aux.parse().into_iter().collect();
            })
        };
        assert_eq!(
            with(
                "10.231.0.0/24",
                "10.231.0.128/25",
                "10.231.0.9",
                "10.231.0.7"
            ),
            "fine"
        );
        assert_eq!(
            with("10.231.0.0/24", "", "10.232.0.1", ""),
            "invalid network config:\ninvalid gateway 10.232.0.1: parent subnet 10.231.0.0/24 doesn't contain this \
             address"
        );
        assert_eq!(
            with("10.231.0.0/24", "10.231.0.0/16", "", ""),
            "invalid network config:\ninvalid ip-range 10.231.0.0/16: CIDR block is bigger than its parent subnet \
             10.231.0.0/24"
        );
        assert_eq!(
            with("10.221.0.0/24", "10.221.0.1/25", "", ""),
            "invalid network config:\ninvalid ip-range 10.221.0.1/25: it should be 10.221.0.0/25"
        );
        assert_eq!(
            with("10.231.0.5/24", "10.232.0.0/25", "10.232.0.1", ""),
            "invalid network config:\n\
             * invalid subnet 10.231.0.5/24: it should be 10.231.0.0/24\n\
             * invalid ip-range 10.232.0.0/25: parent subnet 10.231.0.5/24 doesn't contain ip-range\n\
             * invalid gateway 10.232.0.1: parent subnet 10.231.0.5/24 doesn't contain this address"
        );
        assert_eq!(
            text(|config| config.ipv6 = Some(Ipv6Config {
                subnet: "fd0a::/64".parse().ok(),
                gateway: "fd0b::1".parse().ok(),
                ip_range: None,
            })),
            "invalid network config:\ninvalid gateway fd0b::1: parent subnet fd0a::/64 doesn't contain this address"
        );
        assert_eq!(
            text(|config| config.gateway_mode_ipv4 = GatewayMode::Isolated),
            "gateway mode 'isolated' can only be used for an internal network"
        );
    }
}
