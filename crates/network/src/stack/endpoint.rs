//! A container's way onto a network and off it.
//!
//! Deleting a veth costs 12 to 20 ms, so nobody waits for it: it goes with its namespace. What must be true at once is
//! that the address may be given to the next container. So `release` makes the old bridge port deaf and mute (a state,
//! without a grace period): the old namespace, which lives on for a moment, answers no ARP any more. The new container
//! has another hardware address; neighbours that remember the old one are told by a gratuitous ARP, which costs a
//! frame per port of the bridge and is therefore sent only for addresses that were in use before.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use gantry_sys::net;
use gantry_sys::netlink::{Batch, route};

use ipnet::IpNet;

use super::bridge::INTERFACE_NAME_BYTES_MAX;
use super::inside::Kind;
use super::{Network, Shared, Stack, announce, inside, lock, macvlan, random, random_mac};
use crate::ipam::{Pool, Refused};
use crate::{
    DefaultRoutes, Endpoint, EndpointRequest, Error, MacAddress, Netns, NetworkConfig, NetworkInfo,
    PublishedPort, Report,
};

/// The sizes of the networks of link-local addresses (RFC 3927, RFC 4291).
const LINK_LOCAL_PREFIX: u8 = 16;
const LINK_LOCAL_PREFIX_V6: u8 = 64;
/// EXFULL: the bridge has no port number left.
const NO_PORT_LEFT: i32 = libc::EXFULL;

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Stack {
    /// Chooses addresses, names and hardware address. Touches no kernel object.
    pub fn allocate(&self, request: &EndpointRequest) -> Result<Endpoint, Error> {
        let EndpointRequest {
            container_id,
            network,
            mac,
            ipv4,
            ipv6,
            link_local,
            sysctls,
            container_interface,
        } = request;
        let failed = || Error::kernel("read", "random bytes");
        let container_interface = container_interface.as_deref().unwrap_or("eth0");
        if container_interface.is_empty()
            || container_interface.len() > INTERFACE_NAME_BYTES_MAX
            || container_interface.contains(['/', ' '])
        {
            return Err(Error::Invalid(format!(
                "invalid interface name: {container_interface}"
            )));
        }
        for (name, _) in sysctls {
            if inside::setting_path(name, container_interface).is_none() {
                return Err(Error::Invalid(format!("invalid endpoint sysctl: {name}")));
            }
        }
        let random_address = random_mac().map_err(failed())?;
        let id = match (network, &self.shared.config.bridge) {
            (Some(id), _) => id.clone(),
            (None, Some(bridge)) => bridge.id.clone(),
            (None, None) => return Err(Error::NetworkNotFound("bridge".to_owned())),
        };
        if lock(&self.shared.state).down.contains_key(&id) {
            // Whatever stood in its way may be gone since the last attempt.
            let mut report = Report::default();
            let tried = self.shared.retry(&id, &mut report);
            // The containers that are on it already lack what the bridge had.
            if tried.is_ok()
                && let Err(error) = self.shared.mend_interfaces(&mut report)
            {
                report.warnings.push(error.whole());
            }
            for repair in report.repairs {
                self.shared.tell(repair);
            }
            for warning in report.warnings {
                (self.shared.config.warn)(&warning);
            }
            tried?;
        }
        let mut state = lock(&self.shared.state);
        let endpoint_id = loop {
            let endpoint_id = hexadecimal(&random::<32>().map_err(failed())?);
            // The interface's name is made of the first seven digits and has to be unique.
            let taken = state.networks.values().any(|network| {
                network
                    .endpoints
                    .keys()
                    .any(|other| other[..7] == endpoint_id[..7])
            });
            if !taken {
                break endpoint_id;
            }
        };
        let Some(network) = state.networks.get_mut(&id).filter(|one| !one.leaving) else {
            return Err(Error::NetworkNotFound(id));
        };
        let (address4, address6, address_reused) = network.take_addresses(*ipv4, *ipv6)?;
        let info = &network.info;
        let gateway = |wanted: bool| wanted && !info.internal;
        let endpoint = Endpoint {
            host_interface: format!("veth{}", &endpoint_id[..7]),
            id: endpoint_id,
            container_id: container_id.clone(),
            network: id,
            container_interface: container_interface.to_owned(),
            mac: mac.unwrap_or(MacAddress(random_address)),
            ipv4: address4,
            prefix_len: info.ipv4.map_or(0, |info| info.subnet.prefix_len()),
            gateway: info
                .ipv4
                .and_then(|info| info.gateway)
                .filter(|_| gateway(address4.is_some())),
            ipv6: address6,
            prefix_len_v6: info.ipv6.map_or(0, |info| info.subnet.prefix_len()),
            gateway_v6: info
                .ipv6
                .and_then(|info| info.gateway)
                .filter(|_| gateway(address6.is_some())),
            link_local: link_local
                .iter()
                .map(|&address| {
                    let prefix_len = if address.is_ipv4() {
                        LINK_LOCAL_PREFIX
                    } else {
                        LINK_LOCAL_PREFIX_V6
                    };
                    IpNet::new_assert(address, prefix_len)
                })
                .collect(),
            sysctls: sysctls.clone(),
            mtu: info.mtu,
            address_reused,
        };
        network
            .endpoints
            .insert(endpoint.id.clone(), endpoint.clone());
        Ok(endpoint)
    }

    /// Makes the interface, addresses and routes of `endpoint` in `netns`. `routes`: which of its gateways the
    /// container's default routes lead to.
    pub fn connect(
        &self,
        endpoint: &Endpoint,
        netns: &Netns,
        routes: DefaultRoutes,
    ) -> Result<(), Error> {
        self.shared.make_room_for_neighbours();
        self.shared.attach(endpoint, netns, routes)?;
        if let Some(network) = lock(&self.shared.state).networks.get_mut(&endpoint.network) {
            network.connected.insert(endpoint.host_interface.clone());
        }
        Ok(())
    }

    /// Gives back everything of `endpoint`: ports, rules, address. May be called at any stage and again.
    pub fn release(&self, endpoint: &Endpoint, ports: &[PublishedPort]) -> Result<(), Error> {
        self.shared.unpublish(endpoint, ports)?;
        self.shared.silence(endpoint)?;
        let mut state = lock(&self.shared.state);
        state
            .waiting
            .retain(|waiting| waiting.endpoint.id != endpoint.id);
        if let Some(network) = state.networks.get_mut(&endpoint.network)
            && network.endpoints.remove(&endpoint.id).is_some()
        {
            network.connected.remove(&endpoint.host_interface);
            network.free_addresses(endpoint);
        }
        drop(state);
        self.shared.start_reaper();
        Ok(())
    }
}

impl Network {
    /// Takes the addresses that were asked for, or the next free ones; both families or none. The last value says
    /// whether one was in use before.
    fn take_addresses(
        &mut self,
        ipv4: Option<Ipv4Addr>,
        ipv6: Option<Ipv6Addr>,
    ) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>, bool), Error> {
        let name = self.config.name().to_owned();
        let id = self.config.id().to_owned();
        let take = |pool: &mut Option<Pool>, wanted: Option<IpAddr>, family: &'static str| {
            let taken = match (pool.as_mut(), wanted) {
                (None, None) => return Ok(None),
                (None, Some(_)) => Err(Refused::Outside),
                (Some(pool), Some(address)) => {
                    pool.take_this(address).map(|reused| (address, reused))
                }
                (Some(pool), None) => pool.take(),
            };
            taken.map(Some).map_err(|refused| match (refused, wanted) {
                (Refused::Taken, Some(address)) => Error::AddressInUse { address },
                (Refused::Outside, Some(address)) => Error::Invalid(format!(
                    "invalid config for network {name}: invalid endpoint settings:\nno configured subnet or ip-range \
                     contain the IP address {address}"
                )),
                _ => Error::AddressesExhausted {
                    family,
                    name: name.clone(),
                    id: id.clone(),
                },
            })
        };
        let four = take(&mut self.pool4, ipv4.map(IpAddr::V4), "IPv4")?;
        let six = match take(&mut self.pool6, ipv6.map(IpAddr::V6), "IPv6") {
            Ok(six) => six,
            Err(error) => {
                if let (Some(pool), Some((address, _))) = (&mut self.pool4, four) {
                    pool.free(address);
                }
                return Err(error);
            }
        };
        let reused = [four, six].iter().flatten().any(|(_, reused)| *reused);
        let address4 = match four {
            Some((IpAddr::V4(address), _)) => Some(address),
            _ => None,
        };
        let address6 = match six {
            Some((IpAddr::V6(address), _)) => Some(address),
            _ => None,
        };
        Ok((address4, address6, reused))
    }

    fn pool_of(&mut self, address: IpAddr) -> Option<&mut Pool> {
        match address {
            IpAddr::V4(_) => self.pool4.as_mut(),
            IpAddr::V6(_) => self.pool6.as_mut(),
        }
    }

    pub(super) fn free_addresses(&mut self, endpoint: &Endpoint) {
        for address in endpoint.addresses() {
            if let Some(pool) = self.pool_of(address) {
                pool.free(address);
            }
        }
    }

    /// Takes the addresses of an endpoint that lives already. Gives those that were refused.
    pub(super) fn adopt_addresses(&mut self, endpoint: &Endpoint) -> Vec<IpAddr> {
        let mut refused = Vec::new();
        for address in endpoint.addresses() {
            let taken = self
                .pool_of(address)
                .is_some_and(|pool| pool.take_this(address).is_ok());
            if !taken {
                refused.push(address);
            }
        }
        refused
    }
}

impl Shared {
    /// Makes an endpoint's interface and both its ends.
    pub(super) fn attach(
        &self,
        endpoint: &Endpoint,
        netns: &Netns,
        routes: DefaultRoutes,
    ) -> Result<(), Error> {
        let (index, info, config) = {
            let state = lock(&self.state);
            let network = state
                .networks
                .get(&endpoint.network)
                .ok_or_else(|| Error::NetworkNotFound(endpoint.network.clone()))?;
            (network.index, network.info.clone(), network.config.clone())
        };
        if index == 0 {
            // The kernel takes it for no bridge at all.
            let missing = io::ErrorKind::NotFound.into();
            return Err(Error::kernel("find bridge", &*info.interface)(missing));
        }
        let routed = macvlan::is_routed(&config);
        if let NetworkConfig::Macvlan(config) = config {
            self.add_stacked(config.kind, &info, index, endpoint, netns)?;
            let kind = if routed { Kind::Routed } else { Kind::Stacked };
            return inside::set_up(endpoint, netns, routes, kind);
        }
        self.add_veth(endpoint, netns, index, &info.interface)?;
        let done = inside::set_up(endpoint, netns, routes, Kind::Veth)
            .and_then(|()| self.finish_host_side(endpoint, index, &info));
        if done.is_err() {
            // The caller sees the first error; what is left here is found by `release` and by reconciliation.
            let _ = self.delete_veth(&endpoint.host_interface);
        }
        done
    }

    fn veth_alias(&self, endpoint: &Endpoint) -> String {
        format!("{}{}", self.alias_prefix(), endpoint.container_id)
    }

    fn add_veth(
        &self,
        endpoint: &Endpoint,
        netns: &Netns,
        bridge: u32,
        interface: &str,
    ) -> Result<(), Error> {
        let name = endpoint.host_interface.as_str();
        let pair = route::VethPair {
            host_name: name,
            bridge,
            mtu: endpoint.mtu,
            peer_name: &endpoint.container_interface,
            peer_address: endpoint.mac.0,
            peer_netns: netns.fd.as_fd(),
        };
        let attempt = || {
            let mut batch = Batch::new();
            route::add_veth(&mut batch, &pair);
            route::set_alias(
                &mut batch,
                name,
                &self.veth_alias(endpoint),
                self.has_ipv6(endpoint.mtu),
            );
            route::set_up_by_name(&mut batch, name);
            lock(&self.rtnl).execute(&mut batch)
        };
        let mut answer = attempt();
        if let Err(error) = &answer
            && error.index == 0
            && error.errno() == libc::EEXIST
            && self.delete_veth(name)?
        {
            // An earlier attempt for the same container got this far.
            answer = attempt();
        }
        answer.map_err(|error| match error.errno() {
            NO_PORT_LEFT => Error::BridgeFull {
                interface: interface.to_owned(),
            },
            _ => Error::kernel("make veth pair", name)(error.into()),
        })
    }

    /// Lets the bridge port work at once and tells the neighbours.
    fn finish_host_side(
        &self,
        endpoint: &Endpoint,
        bridge: u32,
        info: &NetworkInfo,
    ) -> Result<(), Error> {
        let name = endpoint.host_interface.as_str();
        let failed = || Error::kernel("set up interface", name);
        // The port first: by its carrier the bridge may have got its own.
        for interface in [name, info.interface.as_str()] {
            net::ethtool_glink(self.control.as_fd(), interface).map_err(failed())?;
        }
        let mut batch = Batch::new();
        let rtnl = lock(&self.rtnl);
        if !info.icc {
            let link = route::link_by_name(&rtnl, name)
                .map_err(failed())?
                .ok_or_else(|| failed()(io::ErrorKind::NotFound.into()))?;
            route::isolate_port(&mut batch, link.index, true);
        }
        for address in endpoint.addresses() {
            route::add_neighbour(&mut batch, bridge, address, endpoint.mac.0);
        }
        rtnl.execute(&mut batch)
            .map_err(|error| failed()(error.into()))?;
        drop(rtnl);
        if endpoint.address_reused {
            self.announce(endpoint, bridge);
        }
        Ok(())
    }

    /// Floods an announcement of the addresses through the bridge. Best effort: without it neighbours find out after a
    /// few seconds by themselves.
    fn announce(&self, endpoint: &Endpoint, bridge: u32) {
        let mut packets = lock(&self.packets);
        if packets.is_none() {
            // Kept open: closing a packet socket waits for an RCU grace period.
            *packets = net::packet_socket().ok();
        }
        if let Some(socket) = packets.as_ref() {
            for address in endpoint.addresses() {
                let frame = announce::frame(endpoint.mac.0, address);
                let _ = net::send_frame(socket.as_fd(), bridge, &frame);
            }
        }
    }

    /// Deletes a veth of this engine by the name of its host's end. Says whether there was one.
    pub(super) fn delete_veth(&self, name: &str) -> Result<bool, Error> {
        let failed = || Error::kernel("delete interface", name);
        let rtnl = lock(&self.rtnl);
        let Some(link) = route::link_by_name(&rtnl, name).map_err(failed())? else {
            return Ok(false);
        };
        let ours = match &link.alias {
            Some(alias) => alias.starts_with(&self.alias_prefix()),
            // It was made and not yet marked when the daemon died; nobody else makes such names on our bridges.
            None => link.master.is_some_and(|master| {
                lock(&self.state)
                    .networks
                    .values()
                    .any(|network| network.index == master)
            }),
        };
        if !ours {
            return Ok(false);
        }
        let mut batch = Batch::new();
        route::delete_link(&mut batch, link.index);
        match rtnl.execute(&mut batch) {
            Err(error) if error.errno() == libc::ENODEV => Ok(false),
            answer => answer
                .map(|()| true)
                .map_err(|error| failed()(error.into())),
        }
    }

    /// Makes what is left of an endpoint's interface harmless and leaves its end to the namespace, or to the reaper.
    fn silence(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let name = endpoint.host_interface.as_str();
        let failed = || Error::kernel("release interface", name);
        let bridge = lock(&self.state)
            .networks
            .get(&endpoint.network)
            .map(|network: &Network| network.index);
        let rtnl = lock(&self.rtnl);
        if let Some(link) = route::link_by_name(&rtnl, name).map_err(failed())?
            && link.alias.as_deref() == Some(self.veth_alias(endpoint).as_str())
        {
            let mut batch = Batch::new();
            route::disable_port(&mut batch, link.index);
            match rtnl.execute(&mut batch) {
                // Gone meanwhile, or off the bridge.
                Err(error)
                    if matches!(
                        error.errno(),
                        libc::ENODEV | libc::EINVAL | libc::EOPNOTSUPP
                    ) => {}
                answer => answer.map_err(|error| failed()(error.into()))?,
            }
            self.reap_later(name);
        }
        if let Some(bridge) = bridge {
            for address in endpoint.addresses() {
                let mut batch = Batch::new();
                route::delete_neighbour(&mut batch, bridge, address);
                // There is none if nobody talked to it; a bridge that is gone took it along.
                let _ = rtnl.execute(&mut batch);
            }
        }
        Ok(())
    }
}
