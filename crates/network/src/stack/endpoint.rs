//! A container's way onto a network and off it.
//!
//! Deleting a veth costs 12 to 20 ms, so nobody waits for it: it goes with its namespace. What must be true at once is
//! that the address may be given to the next container. So `release` makes the old bridge port deaf and mute (a state,
//! without a grace period): the old namespace, which lives on for a moment, answers no ARP any more. The new container
//! has another hardware address; neighbours that remember the old one are told by a gratuitous ARP, which costs a
//! frame per port of the bridge and is therefore sent only for addresses that were in use before.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use gantry_sys::net;
use gantry_sys::netlink::{Batch, route};

use super::{Network, Shared, Stack, lock, random, random_mac};
use crate::ipam::Refused;
use crate::{Endpoint, EndpointRequest, Error, MacAddress, Netns, PublishedPort, netns};

const INTERFACE_NAME_BYTES_MAX: usize = 15;
/// EXFULL: the bridge has no port number left.
const NO_PORT_LEFT: i32 = libc::EXFULL;

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Builds the frame by which an address's new owner makes itself known (RFC 5227 section 3, an ARP announcement).
fn announcement(hardware: [u8; 6], address: Ipv4Addr) -> [u8; 42] {
    let mut frame = [0; 42];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&hardware);
    // EtherType ARP; Ethernet, IPv4, lengths 6 and 4, request.
    frame[12..22].copy_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&hardware);
    frame[28..32].copy_from_slice(&address.octets());
    frame[38..42].copy_from_slice(&address.octets());
    frame
}

impl Stack {
    /// Chooses address, names and hardware address. Touches no kernel object.
    pub fn allocate(&self, request: &EndpointRequest) -> Result<Endpoint, Error> {
        let EndpointRequest {
            container_id,
            network,
            mac,
            ipv4,
            container_interface,
        } = request;
        let failed = || Error::kernel("read", "random bytes");
        let container_interface = container_interface.as_deref().unwrap_or("eth0");
        if container_interface.is_empty() || container_interface.len() > INTERFACE_NAME_BYTES_MAX {
            return Err(Error::Invalid(format!(
                "invalid interface name: {container_interface}"
            )));
        }
        let random_address = random_mac().map_err(failed())?;
        let mut state = lock(&self.shared.state);
        let id = match (network, &self.shared.config.bridge) {
            (Some(id), _) => id.clone(),
            (None, Some(bridge)) => bridge.id.clone(),
            (None, None) => return Err(Error::NetworkNotFound("bridge".to_owned())),
        };
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
        let Some(network) = state.networks.get_mut(&id) else {
            return Err(Error::NetworkNotFound(id));
        };
        let taken = match ipv4 {
            Some(address) => network
                .pool
                .take_this(*address)
                .map(|reused| (*address, reused)),
            None => network.pool.take(),
        };
        let (address, address_reused) = taken.map_err(|refused| match refused {
            Refused::Taken => Error::AddressInUse {
                address: ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED),
            },
            Refused::Outside => Error::Invalid(format!(
                "invalid config for network {}: invalid endpoint settings:\nno configured subnet or ip-range contain the IP \
                 address {}",
                network.config.name,
                ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED)
            )),
            Refused::Exhausted => Error::AddressesExhausted {
                name: network.config.name.clone(),
                id: id.clone(),
            },
        })?;
        let endpoint = Endpoint {
            host_interface: format!("veth{}", &endpoint_id[..7]),
            id: endpoint_id,
            container_id: container_id.clone(),
            network: id,
            container_interface: container_interface.to_owned(),
            mac: mac.unwrap_or(MacAddress(random_address)),
            ipv4: address,
            prefix_len: network.info.subnet.prefix_len(),
            gateway: (!network.info.internal).then_some(network.info.gateway),
            mtu: network.info.mtu,
            address_reused,
        };
        network
            .endpoints
            .insert(endpoint.id.clone(), endpoint.clone());
        Ok(endpoint)
    }

    /// Makes the veth pair, addresses and routes of `endpoint` in `netns`.
    pub fn connect(&self, endpoint: &Endpoint, netns: &Netns) -> Result<(), Error> {
        let shared = &self.shared;
        let (index, icc, interface) = {
            let state = lock(&shared.state);
            let network = state
                .networks
                .get(&endpoint.network)
                .ok_or_else(|| Error::NetworkNotFound(endpoint.network.clone()))?;
            (
                network.index,
                network.info.icc,
                network.info.interface.clone(),
            )
        };
        shared.make_room_for_neighbours();
        shared.add_veth(endpoint, netns, index, &interface)?;
        let done = connect_inside(endpoint, netns)
            .and_then(|()| shared.finish_host_side(endpoint, index, icc));
        if done.is_err() {
            // The caller sees the first error; what is left here is found by `release` and by reconciliation.
            let _ = shared.delete_veth(&endpoint.host_interface);
        }
        done
    }

    /// Gives back everything of `endpoint`: ports, rules, address. May be called at any stage and again.
    pub fn release(&self, endpoint: &Endpoint, ports: &[PublishedPort]) -> Result<(), Error> {
        self.shared.unpublish(endpoint, ports)?;
        self.shared.silence(endpoint)?;
        let mut state = lock(&self.shared.state);
        if let Some(network) = state.networks.get_mut(&endpoint.network)
            && network.endpoints.remove(&endpoint.id).is_some()
        {
            network.pool.free(endpoint.ipv4);
        }
        drop(state);
        self.shared.start_reaper();
        Ok(())
    }
}

/// Sets up what the container sees, all of it in one sendmsg(2) through the socket inside the namespace.
fn connect_inside(endpoint: &Endpoint, netns: &Netns) -> Result<(), Error> {
    let name = endpoint.container_interface.as_str();
    let failed = || Error::kernel("set up interface", name);
    let socket = netns.socket().map_err(failed())?;
    let link = route::link_by_name(&socket, name)
        .map_err(failed())?
        .ok_or_else(|| failed()(io::ErrorKind::NotFound.into()))?;
    let mut batch = Batch::new();
    netns::add_loopback_up(&mut batch);
    route::add_address(&mut batch, link.index, endpoint.ipv4, endpoint.prefix_len);
    route::set_up(&mut batch, link.index);
    if let Some(gateway) = endpoint.gateway {
        route::add_default_route(&mut batch, link.index, gateway);
    }
    socket
        .execute(&mut batch)
        .map_err(|error| failed()(error.into()))
}

impl Shared {
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
            route::set_alias(&mut batch, name, &self.veth_alias(endpoint));
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
    fn finish_host_side(&self, endpoint: &Endpoint, bridge: u32, icc: bool) -> Result<(), Error> {
        let name = endpoint.host_interface.as_str();
        let failed = || Error::kernel("set up interface", name);
        net::ethtool_glink(self.control.as_fd(), name).map_err(failed())?;
        let mut batch = Batch::new();
        let rtnl = lock(&self.rtnl);
        if !icc {
            let link = route::link_by_name(&rtnl, name)
                .map_err(failed())?
                .ok_or_else(|| failed()(io::ErrorKind::NotFound.into()))?;
            route::isolate_port(&mut batch, link.index, true);
        }
        route::add_neighbour(&mut batch, bridge, endpoint.ipv4, endpoint.mac.0);
        rtnl.execute(&mut batch)
            .map_err(|error| failed()(error.into()))?;
        drop(rtnl);
        if endpoint.address_reused {
            self.announce(endpoint, bridge);
        }
        Ok(())
    }

    /// Floods an announcement of the address through the bridge. Best effort: without it neighbours find out after a
    /// few seconds by themselves.
    fn announce(&self, endpoint: &Endpoint, bridge: u32) {
        let frame = announcement(endpoint.mac.0, endpoint.ipv4);
        let mut packets = lock(&self.packets);
        if packets.is_none() {
            // Kept open: closing a packet socket waits for an RCU grace period.
            *packets = net::packet_socket().ok();
        }
        if let Some(socket) = packets.as_ref() {
            let _ = net::send_frame(socket.as_fd(), bridge, &frame);
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
            let mut batch = Batch::new();
            route::delete_neighbour(&mut batch, bridge, endpoint.ipv4);
            // There is none if nobody talked to it; a bridge that is gone took it along.
            let _ = rtnl.execute(&mut batch);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_announcement_is_an_arp_request_for_ones_own_address() {
        let frame = announcement([2, 0, 0, 0, 0, 9], Ipv4Addr::new(172, 17, 0, 2));
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(frame[6..12], frame[22..28]);
        assert_eq!(frame[12..14], [8, 6]);
        assert_eq!(frame[28..32], [172, 17, 0, 2]);
        assert_eq!(frame[28..32], frame[38..42]);
        assert_eq!(frame[32..38], [0; 6]);
    }
}
