//! rtnetlink(7): links, addresses, routes and neighbours of both families, each message added to a [`Batch`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{
    Attributes, Batch, Message, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, Socket,
    str_of, u32_of,
};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWNETCONF: u16 = 80;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_FLAGS: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const BR_STATE_DISABLED: u8 = 0;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_TENTATIVE: u32 = 0x40;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_TABLE: u16 = 15;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTPROT_RA: u8 = 9;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_NOWHERE: u8 = 255;
const RTN_UNICAST: u8 = 1;

const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_IFINDEX_ALL: i32 = -1;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_STALE: u16 = 0x04;

const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;

/// A network interface as the kernel lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub up: bool,
    pub mtu: u32,
    pub master: Option<u32>,
    pub alias: Option<String>,
    /// `bridge`, `veth`; `None` for hardware.
    pub kind: Option<String>,
    pub address: Option<[u8; 6]>,
}

/// The multicast groups whose datagrams [`losses`] reads: `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV6_IFADDR`,
/// `RTNLGRP_IPV4_NETCONF` and `RTNLGRP_IPV6_NETCONF`.
pub const LOSS_GROUPS: [u32; 5] = [1, 5, 9, 24, 25];

/// Something of the network that is gone or was switched off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// The interface of this name was deleted, set down or taken out of its bridge.
    Link(String),
    /// The interface of this index has lost an address.
    Address { link: u32, address: IpAddr },
    /// Packets of a family are forwarded no more, on no interface.
    Forwarding { ipv6: bool },
}

/// An interface's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub link: u32,
    pub address: IpAddr,
    pub prefix_len: u8,
    /// It cannot be used yet (IPv6): the kernel looks for others that have it, or has not come to it.
    pub tentative: bool,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub destination: IpAddr,
    pub prefix_len: u8,
    pub link: Option<u32>,
    pub gateway: Option<IpAddr>,
    pub metric: u32,
    /// A router announced it (IPv6 router advertisement).
    pub advertised: bool,
}

impl Route {
    /// Says whether the route is for everything that no other route is for.
    pub fn is_default(&self) -> bool {
        self.prefix_len == 0
    }
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

fn attribute_address(batch: &mut Batch, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => batch.attribute(kind, &address.octets()),
        IpAddr::V6(address) => batch.attribute(kind, &address.octets()),
    };
}

pub(super) fn address_of(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(Ipv4Addr::from(*value.first_chunk::<4>()?).into()),
        16 => Some(Ipv6Addr::from(*value.first_chunk::<16>()?).into()),
        _ => None,
    }
}

/// A veth pair: one end on a bridge in the socket's namespace, the other in a container.
#[derive(Debug, Clone)]
pub struct VethPair<'a> {
    pub host_name: &'a str,
    pub bridge: u32,
    pub mtu: u32,
    pub peer_name: &'a str,
    pub peer_address: [u8; 6],
    pub peer_netns: BorrowedFd<'a>,
}

fn link_header(family: u8, index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// Makes a bridge and sets it up.
pub fn add_bridge(batch: &mut Batch, name: &str, mtu: u32, address: [u8; 6]) {
    batch.message(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        &link_header(0, 0, IFF_UP, IFF_UP),
    );
    batch.attribute_str(IFLA_IFNAME, name);
    batch.attribute_u32(IFLA_MTU, mtu);
    batch.attribute(IFLA_ADDRESS, &address);
    let info = batch.nest(IFLA_LINKINFO);
    batch.attribute(IFLA_INFO_KIND, b"bridge");
    batch.end(info);
}

/// Makes a veth pair: the host's end on the bridge, the peer in its namespace, both down. The peer cannot be up yet:
/// opening it before its other end is registered gives ENOTCONN. The host's end is set up by [`set_up_by_name`] after
/// [`set_alias`], which also keeps IPv6 from giving it an address.
pub fn add_veth(batch: &mut Batch, pair: &VethPair<'_>) {
    batch.message(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        &link_header(0, 0, 0, 0),
    );
    batch.attribute_str(IFLA_IFNAME, pair.host_name);
    batch.attribute_u32(IFLA_MTU, pair.mtu);
    batch.attribute_u32(IFLA_MASTER, pair.bridge);
    // Without these the kernel makes a queue per processor.
    batch.attribute_u32(IFLA_NUM_TX_QUEUES, 1);
    batch.attribute_u32(IFLA_NUM_RX_QUEUES, 1);
    let info = batch.nest(IFLA_LINKINFO);
    batch.attribute(IFLA_INFO_KIND, b"veth");
    let data = batch.nest(IFLA_INFO_DATA);
    let peer = batch.nest(VETH_INFO_PEER);
    batch.raw(&link_header(0, 0, 0, 0));
    batch.attribute_str(IFLA_IFNAME, pair.peer_name);
    batch.attribute_u32(IFLA_MTU, pair.mtu);
    batch.attribute(IFLA_ADDRESS, &pair.peer_address);
    batch.attribute_u32(IFLA_NUM_TX_QUEUES, 1);
    batch.attribute_u32(IFLA_NUM_RX_QUEUES, 1);
    batch.attribute_u32(IFLA_NET_NS_FD, pair.peer_netns.as_raw_fd().cast_unsigned());
    batch.end(peer);
    batch.end(data);
    batch.end(info);
}

/// Which stacked interface is made in a container, on top of one of the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stacked {
    /// `MACVLAN_MODE_*`: 1 private, 2 vepa, 4 bridge, 8 passthru.
    Macvlan { mode: u32 },
    /// `IPVLAN_MODE_*` (0 l2, 1 l3, 2 l3s) and `IPVLAN_F_*` (1 private, 2 vepa).
    Ipvlan { mode: u16, flags: u16 },
}

/// Makes an interface on top of `parent`, which lies in the socket's namespace, straight in the namespace `netns`.
pub fn add_stacked(
    batch: &mut Batch,
    parent: u32,
    kind: Stacked,
    name: &str,
    mtu: u32,
    address: [u8; 6],
    netns: BorrowedFd<'_>,
) {
    batch.message(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        &link_header(0, 0, 0, 0),
    );
    batch.attribute_str(IFLA_IFNAME, name);
    batch.attribute_u32(IFLA_LINK, parent);
    batch.attribute_u32(IFLA_MTU, mtu);
    batch.attribute_u32(IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
    // An ipvlan interface has its parent's address.
    if matches!(kind, Stacked::Macvlan { .. }) {
        batch.attribute(IFLA_ADDRESS, &address);
    }
    let info = batch.nest(IFLA_LINKINFO);
    match kind {
        Stacked::Macvlan { mode } => {
            batch.attribute(IFLA_INFO_KIND, b"macvlan");
            let data = batch.nest(IFLA_INFO_DATA);
            batch.attribute_u32(IFLA_MACVLAN_MODE, mode);
            batch.end(data);
        }
        Stacked::Ipvlan { mode, flags } => {
            batch.attribute(IFLA_INFO_KIND, b"ipvlan");
            let data = batch.nest(IFLA_INFO_DATA);
            batch.attribute(IFLA_IPVLAN_MODE, &mode.to_ne_bytes());
            batch.attribute(IFLA_IPVLAN_FLAGS, &flags.to_ne_bytes());
            batch.end(data);
        }
    }
    batch.end(info);
}

/// Makes a VLAN on top of an interface, down.
pub fn add_vlan(batch: &mut Batch, name: &str, parent: u32, id: u16) {
    batch.message(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        &link_header(0, 0, 0, 0),
    );
    batch.attribute_str(IFLA_IFNAME, name);
    batch.attribute_u32(IFLA_LINK, parent);
    let info = batch.nest(IFLA_LINKINFO);
    batch.attribute(IFLA_INFO_KIND, b"vlan");
    let data = batch.nest(IFLA_INFO_DATA);
    batch.attribute(IFLA_VLAN_ID, &id.to_ne_bytes());
    batch.end(data);
    batch.end(info);
}

/// Makes an interface that leads nowhere, down.
pub fn add_dummy(batch: &mut Batch, name: &str) {
    batch.message(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        &link_header(0, 0, 0, 0),
    );
    batch.attribute_str(IFLA_IFNAME, name);
    let info = batch.nest(IFLA_LINKINFO);
    batch.attribute(IFLA_INFO_KIND, b"dummy");
    batch.end(info);
}

/// The least MTU with which an interface has IPv6 (RFC 8200, section 5).
pub const IPV6_MTU_MIN: u32 = 1280;

/// Sets an interface's alias, by its name, and keeps IPv6, where the interface `has_ipv6`, from giving it a link-local address
/// of itself. Said of one that has none it is refused (EAFNOSUPPORT).
pub fn set_alias(batch: &mut Batch, name: &str, alias: &str, has_ipv6: bool) {
    batch.message(RTM_NEWLINK, 0, &link_header(0, 0, 0, 0));
    batch.attribute_str(IFLA_IFNAME, name);
    batch.attribute(IFLA_IFALIAS, alias.as_bytes());
    if !has_ipv6 {
        return;
    }
    let families = batch.nest(IFLA_AF_SPEC);
    let ipv6 = batch.nest(AF_INET6.into());
    batch.attribute_u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    batch.end(ipv6);
    batch.end(families);
}

/// Sets an interface up.
pub fn set_up(batch: &mut Batch, index: u32) {
    batch.message(RTM_NEWLINK, 0, &link_header(0, index, IFF_UP, IFF_UP));
}

/// Sets an interface up, by its name.
pub fn set_up_by_name(batch: &mut Batch, name: &str) {
    batch.message(RTM_NEWLINK, 0, &link_header(0, 0, IFF_UP, IFF_UP));
    batch.attribute_str(IFLA_IFNAME, name);
}

/// Sets an interface's hardware address, by its name.
pub fn set_address(batch: &mut Batch, name: &str, address: [u8; 6]) {
    batch.message(RTM_NEWLINK, 0, &link_header(0, 0, 0, 0));
    batch.attribute_str(IFLA_IFNAME, name);
    batch.attribute(IFLA_ADDRESS, &address);
}

/// Sets an interface's MTU.
pub fn set_mtu(batch: &mut Batch, index: u32, mtu: u32) {
    batch.message(RTM_NEWLINK, 0, &link_header(0, index, 0, 0));
    batch.attribute_u32(IFLA_MTU, mtu);
}

/// Puts an interface onto a bridge.
pub fn set_master(batch: &mut Batch, index: u32, master: u32) {
    batch.message(RTM_NEWLINK, 0, &link_header(0, index, 0, 0));
    batch.attribute_u32(IFLA_MASTER, master);
}

/// Keeps a bridge port from talking to other isolated ports; the bridge itself stays reachable.
pub fn isolate_port(batch: &mut Batch, index: u32, isolated: bool) {
    batch.message(RTM_SETLINK, 0, &link_header(AF_BRIDGE, index, 0, 0));
    let port = batch.nest(IFLA_PROTINFO);
    batch.attribute_u8(IFLA_BRPORT_ISOLATED, isolated.into());
    batch.end(port);
}

/// Lets a bridge send a frame back out of the port it came in by.
pub fn set_hairpin(batch: &mut Batch, index: u32, hairpin: bool) {
    batch.message(RTM_SETLINK, 0, &link_header(AF_BRIDGE, index, 0, 0));
    let port = batch.nest(IFLA_PROTINFO);
    batch.attribute_u8(IFLA_BRPORT_MODE, hairpin.into());
    batch.end(port);
}

/// Makes a bridge port deaf and mute. Unlike taking the interface down or off the bridge this needs no RCU grace
/// period.
pub fn disable_port(batch: &mut Batch, index: u32) {
    batch.message(RTM_SETLINK, 0, &link_header(AF_BRIDGE, index, 0, 0));
    let port = batch.nest(IFLA_PROTINFO);
    batch.attribute_u8(IFLA_BRPORT_STATE, BR_STATE_DISABLED);
    batch.end(port);
}

/// Deletes an interface; a veth takes its peer along.
pub fn delete_link(batch: &mut Batch, index: u32) {
    batch.message(RTM_DELLINK, 0, &link_header(0, index, 0, 0));
}

fn address_header(address: IpAddr, index: u32, prefix_len: u8) -> [u8; 8] {
    let mut header = [0; 8];
    header[0] = family(address);
    header[1] = prefix_len;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

/// Takes an address from an interface; EADDRNOTAVAIL if it has none such.
pub fn delete_address(batch: &mut Batch, index: u32, address: IpAddr, prefix_len: u8) {
    batch.message(RTM_DELADDR, 0, &address_header(address, index, prefix_len));
    attribute_address(batch, IFA_LOCAL, address);
}

/// Adds an address with its subnet's route and, in IPv4, broadcast address. An IPv6 address is used at once, without
/// asking around for another owner (DAD): whoever gives it knows that there is none.
pub fn add_address(batch: &mut Batch, index: u32, address: impl Into<IpAddr>, prefix_len: u8) {
    let address = address.into();
    batch.message(
        RTM_NEWADDR,
        NLM_F_CREATE | NLM_F_REPLACE,
        &address_header(address, index, prefix_len),
    );
    attribute_address(batch, IFA_LOCAL, address);
    attribute_address(batch, IFA_ADDRESS, address);
    match address {
        IpAddr::V4(address) if prefix_len < 31 => {
            let broadcast =
                u32::from(address) | u32::MAX.checked_shr(prefix_len.into()).unwrap_or(0);
            batch.attribute(IFA_BROADCAST, &broadcast.to_be_bytes());
        }
        IpAddr::V4(_) => {}
        IpAddr::V6(_) => {
            batch.attribute_u32(IFA_FLAGS, IFA_F_NODAD);
        }
    }
}

fn route_header(family: u8, scope: u8) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = family;
    header[4] = RT_TABLE_MAIN;
    header[5] = RTPROT_BOOT;
    header[6] = scope;
    header[7] = RTN_UNICAST;
    header
}

/// Adds the default route of the gateway's family, in place of one with the same metric.
pub fn add_default_route(batch: &mut Batch, index: u32, gateway: impl Into<IpAddr>) {
    let gateway = gateway.into();
    batch.message(
        RTM_NEWROUTE,
        NLM_F_CREATE | NLM_F_REPLACE,
        &route_header(family(gateway), RT_SCOPE_UNIVERSE),
    );
    attribute_address(batch, RTA_GATEWAY, gateway);
    batch.attribute_u32(RTA_OIF, index);
}

/// Adds a default route that leads out of an interface without a gateway.
pub fn add_default_link_route(batch: &mut Batch, index: u32, ipv6: bool) {
    let family = if ipv6 { AF_INET6 } else { AF_INET };
    batch.message(
        RTM_NEWROUTE,
        NLM_F_CREATE | NLM_F_REPLACE,
        &route_header(family, RT_SCOPE_LINK),
    );
    batch.attribute_u32(RTA_OIF, index);
}

/// Removes a default route that was listed.
pub fn delete_default_route(batch: &mut Batch, route: &Route) {
    let header = route_header(family(route.destination), RT_SCOPE_NOWHERE);
    batch.message(RTM_DELROUTE, 0, &header);
    if let Some(gateway) = route.gateway {
        attribute_address(batch, RTA_GATEWAY, gateway);
    }
    if let Some(link) = route.link {
        batch.attribute_u32(RTA_OIF, link);
    }
    batch.attribute_u32(RTA_PRIORITY, route.metric);
}

fn neighbour_header(address: IpAddr, index: u32, state: u16) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = family(address);
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header
}

/// Tells the neighbour table a hardware address. The entry is stale: used at once, checked on use, aged out.
pub fn add_neighbour(batch: &mut Batch, index: u32, address: IpAddr, hardware: [u8; 6]) {
    batch.message(
        RTM_NEWNEIGH,
        NLM_F_CREATE | NLM_F_REPLACE,
        &neighbour_header(address, index, NUD_STALE),
    );
    attribute_address(batch, NDA_DST, address);
    batch.attribute(NDA_LLADDR, &hardware);
}

/// Forgets a neighbour; ENOENT if there is none.
pub fn delete_neighbour(batch: &mut Batch, index: u32, address: IpAddr) {
    batch.message(RTM_DELNEIGH, 0, &neighbour_header(address, index, 0));
    attribute_address(batch, NDA_DST, address);
}

/// Tells from a datagram of [`LOSS_GROUPS`] what was lost.
pub fn losses(datagram: &[u8]) -> Vec<Loss> {
    super::Messages(datagram)
        .filter_map(|message| loss(&message))
        .collect()
}

fn loss(message: &Message<'_>) -> Option<Loss> {
    match message.kind {
        // Of the family of bridges where it is a port that left its bridge.
        RTM_DELLINK => Some(Loss::Link(parse_link(message)?.name)),
        RTM_NEWLINK => {
            let (header, _) = message.split(16)?;
            let (flags, changed) = (u32_of(&header[8..12])?, u32_of(&header[12..16])?);
            // All ones: it is new, and not up yet.
            let went_down = changed != u32::MAX && changed & IFF_UP != 0 && flags & IFF_UP == 0;
            went_down
                .then(|| parse_link(message))?
                .map(|link| Loss::Link(link.name))
        }
        RTM_DELADDR => {
            let Address { link, address, .. } = parse_address(message)?;
            Some(Loss::Address { link, address })
        }
        RTM_NEWNETCONF => {
            // A family and three bytes of padding.
            let (header, attributes) = message.split(4)?;
            let number = |kind| {
                let value: Option<[u8; 4]> = attributes.find(kind)?.try_into().ok();
                value.map(i32::from_ne_bytes)
            };
            let is_off = number(NETCONFA_IFINDEX)? == NETCONFA_IFINDEX_ALL
                && number(NETCONFA_FORWARDING)? == 0;
            is_off.then_some(Loss::Forwarding {
                ipv6: header[0] == AF_INET6,
            })
        }
        _ => None,
    }
}

fn parse_link(message: &Message<'_>) -> Option<Link> {
    let (header, attributes) = message.split(16)?;
    let mut link = Link {
        index: u32_of(&header[4..8])?,
        up: u32_of(&header[8..12])? & IFF_UP != 0,
        ..Link::default()
    };
    for (kind, value) in attributes {
        match kind {
            IFLA_IFNAME => link.name = str_of(value),
            IFLA_MTU => link.mtu = u32_of(value)?,
            IFLA_MASTER => link.master = u32_of(value),
            IFLA_IFALIAS => link.alias = Some(str_of(value)),
            IFLA_LINKINFO => link.kind = Attributes(value).find(IFLA_INFO_KIND).map(str_of),
            IFLA_ADDRESS => link.address = value.try_into().ok(),
            _ => {}
        }
    }
    Some(link)
}

/// Finds an interface by its name; `None` if there is none.
pub fn link_by_name(socket: &Socket, name: &str) -> io::Result<Option<Link>> {
    let mut batch = Batch::new();
    batch.message(RTM_GETLINK, 0, &link_header(0, 0, 0, 0));
    batch.attribute_str(IFLA_IFNAME, name);
    let mut found = None;
    match socket.query(&mut batch, |message| {
        found = found.take().or_else(|| parse_link(message))
    }) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
        Ok(()) => Ok(found),
    }
}

/// Repeats a dump that a change disturbed.
fn dump<T>(
    socket: &Socket,
    kind: u16,
    header: &[u8],
    mut parse: impl FnMut(&Message<'_>) -> Option<T>,
) -> io::Result<Vec<T>> {
    for _ in 0..20 {
        let mut batch = Batch::new();
        batch.message(kind, NLM_F_DUMP, header);
        let mut found = Vec::new();
        match socket.query(&mut batch, |message| found.extend(parse(message))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(found),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::Interrupted,
        "the table changed during each dump",
    ))
}

/// Lists all interfaces of the socket's namespace.
pub fn links(socket: &Socket) -> io::Result<Vec<Link>> {
    dump(socket, RTM_GETLINK, &link_header(0, 0, 0, 0), parse_link)
}

/// Lists all addresses of both families.
pub fn addresses(socket: &Socket) -> io::Result<Vec<Address>> {
    dump(socket, RTM_GETADDR, &[0; 8], parse_address)
}

fn parse_address(message: &Message<'_>) -> Option<Address> {
    let (header, attributes) = message.split(8)?;
    Some(Address {
        link: u32_of(&header[4..8])?,
        address: attributes
            .find(IFA_LOCAL)
            .or_else(|| attributes.find(IFA_ADDRESS))
            .and_then(address_of)?,
        prefix_len: header[1],
        tentative: header[0] == AF_INET6 && u32::from(header[2]) & IFA_F_TENTATIVE != 0,
    })
}

/// Lists the unicast routes of the main table, of both families.
pub fn routes(socket: &Socket) -> io::Result<Vec<Route>> {
    dump(socket, RTM_GETROUTE, &[0; 12], |message| {
        let (header, attributes) = message.split(12)?;
        let table = attributes
            .find(RTA_TABLE)
            .and_then(u32_of)
            .unwrap_or(header[4].into());
        if table != u32::from(RT_TABLE_MAIN) || header[7] != RTN_UNICAST {
            return None;
        }
        let nowhere = match header[0] {
            AF_INET => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            AF_INET6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        Some(Route {
            destination: attributes
                .find(RTA_DST)
                .and_then(address_of)
                .unwrap_or(nowhere),
            prefix_len: header[1],
            link: attributes.find(RTA_OIF).and_then(u32_of),
            gateway: attributes.find(RTA_GATEWAY).and_then(address_of),
            metric: attributes.find(RTA_PRIORITY).and_then(u32_of).unwrap_or(0),
            advertised: header[5] == RTPROT_RA,
        })
    })
}
