//! The plain data of networks and endpoints: what callers hand in, what they get and what they keep in their records.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use gantry_api::port::{PortReserver, Protocol};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::BridgeConfig;

/// Takes one line of warning for the operator.
pub type Warn = Arc<dyn Fn(&str) + Send + Sync>;

/// Takes word of what was mended.
pub type OnRepair = Arc<dyn Fn(Repair) + Send + Sync>;

/// Gives the network namespace of a container that runs; `None` where it does not.
pub type NetnsOf = Arc<dyn Fn(&str) -> Option<OwnedFd> + Send + Sync>;

/// Says how an engine's networks are run.
#[derive(Clone)]
pub struct StackConfig {
    /// The engine's random id (hexadecimal). Table, aliases and state files carry its first 12 characters.
    pub engine_id: String,
    /// Holds `network/`, the little state that must survive the daemon but not a boot.
    pub exec_root: PathBuf,
    /// The default network; `None` leaves the engine without one (`--bridge none`).
    pub bridge: Option<BridgeConfig>,
    /// Pools from which networks without a subnet take theirs, in order. A family without a pool has the default ones:
    /// Docker's for IPv4, cut smaller for user-defined networks, and a ULA prefix of the engine's own for IPv6.
    pub address_pools: Vec<AddressPool>,
    /// Whether firewall rules are kept (`--iptables`). Without them published ports are carried by the reserver alone.
    pub firewall: bool,
    /// Whether forwarding is switched on where it is off (`--ip-forward`).
    pub ip_forward: bool,
    /// Whether switching it on leaves other interfaces' traffic alone (`--ip-forward-no-drop`).
    pub ip_forward_no_drop: bool,
    /// Whether published ports are reached by the containers' own addresses as well (`--allow-direct-routing`).
    pub allow_direct_routing: bool,
    /// Whether published ports of all networks pass the host's own input rules.
    pub obey_host_firewall: bool,
    /// Watch for a flushed ruleset and deleted interfaces and bring them back at once, in a thread of the stack's.
    pub watch: bool,
    pub reserver: Arc<dyn PortReserver>,
    pub warn: Warn,
    pub on_repair: OnRepair,
    pub netns_of: NetnsOf,
}

/// A range of addresses cut into subnets of `size` prefix bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPool {
    pub base: IpNet,
    /// Prefix length of the subnets, not shorter than the base's.
    pub size: u8,
}

/// One family's addresses of a network as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetInfo<N, A> {
    pub subnet: N,
    /// `None` where nobody is the containers' gateway (gateway mode `isolated`).
    pub gateway: Option<A>,
    pub ip_range: Option<N>,
}

/// Describes a network as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInfo {
    pub id: String,
    /// The bridge, or the parent of macvlan interfaces.
    pub interface: String,
    pub ipv4: Option<SubnetInfo<Ipv4Net, Ipv4Addr>>,
    pub ipv6: Option<SubnetInfo<Ipv6Net, Ipv6Addr>>,
    pub mtu: u32,
    pub internal: bool,
    pub icc: bool,
    pub ip_masquerade: bool,
    pub host_binding: Option<IpAddr>,
}

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0u8; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            *byte = parts
                .next()
                .filter(|part| part.len() == 2)
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(|| format!("invalid MAC address: {text}"))?;
        }
        if parts.next().is_some() {
            return Err(format!("invalid MAC address: {text}"));
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for MacAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

/// Asks for an endpoint: a container's place on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointRequest {
    pub container_id: String,
    /// The network's id; `None` means the default bridge.
    pub network: Option<String>,
    pub mac: Option<MacAddress>,
    /// A fixed address; refused where it lies outside the subnet or is taken.
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    /// Further addresses of the interface, beside those of the subnets.
    pub link_local: Vec<IpAddr>,
    /// Kernel settings of the interface by their dotted names, in which `IFNAME` stands for the interface.
    pub sysctls: Vec<(String, String)>,
    /// The interface's name in the container; `None` means `eth0`.
    pub container_interface: Option<String>,
}

/// A container's place on a network. Put it into the record before `connect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hexadecimal digits.
    pub id: String,
    pub container_id: String,
    /// The network's id.
    pub network: String,
    /// The veth's end on the bridge. On a macvlan network the name under which nothing is found.
    pub host_interface: String,
    /// The interface's name in the container.
    pub container_interface: String,
    pub mac: MacAddress,
    pub ipv4: Option<Ipv4Addr>,
    pub prefix_len: u8,
    /// `None` on an internal network: no default route.
    pub gateway: Option<Ipv4Addr>,
    #[serde(default)]
    pub ipv6: Option<Ipv6Addr>,
    #[serde(default)]
    pub prefix_len_v6: u8,
    #[serde(default)]
    pub gateway_v6: Option<Ipv6Addr>,
    #[serde(default)]
    pub link_local: Vec<IpNet>,
    #[serde(default)]
    pub sysctls: Vec<(String, String)>,
    pub mtu: u32,
    /// The address was in use shortly before: neighbours must be told the new hardware address.
    #[serde(default)]
    pub address_reused: bool,
}

impl Endpoint {
    /// Gives the addresses of the network's subnets, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let ipv4 = self.ipv4.map(IpAddr::V4);
        ipv4.into_iter().chain(self.ipv6.map(IpAddr::V6))
    }
}

/// Which of an endpoint's gateways a container's default routes lead to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DefaultRoutes {
    pub ipv4: bool,
    pub ipv6: bool,
}

impl DefaultRoutes {
    /// Both: the container has no other network.
    pub const BOTH: Self = Self {
        ipv4: true,
        ipv6: true,
    };
}

/// A range of host ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl PortRange {
    /// Gives the range of one port.
    pub const fn single(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }
}

/// Asks for a container's port to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The host's address; `None` means the network's default, usually 0.0.0.0 and [::].
    pub ip: Option<IpAddr>,
    /// The first free one of the range is taken; `None` means any of `ip_local_port_range`.
    pub host_port: Option<PortRange>,
    pub container_port: u16,
    pub protocol: Protocol,
}

impl PortMapping {
    /// Gives the one host port that is asked for, if it is one.
    pub fn single_port(&self) -> Option<u16> {
        let range = self.host_port?;
        (range.first == range.last).then_some(range.first)
    }
}

/// A published port, as `NetworkSettings.Ports` shows it; two of them for one mapping without an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    pub ip: IpAddr,
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}

/// What a reconciliation changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Objects made again, for example `chain forward`.
    pub restored: Vec<String>,
    /// Objects removed because nothing live owns them.
    pub removed: Vec<String>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// Which of the restored objects belong to a network or a container.
    pub repairs: Vec<Repair>,
}

impl Report {
    /// Says whether kernel and records agreed already.
    pub fn is_clean(&self) -> bool {
        self.restored.is_empty() && self.removed.is_empty()
    }

    /// Notes an object that was made again.
    pub(crate) fn repaired(
        &mut self,
        network: Option<&str>,
        container: Option<&str>,
        text: String,
    ) {
        self.restored.push(text.clone());
        self.repairs.push(Repair {
            network: network.map(str::to_owned),
            container: container.map(str::to_owned),
            text,
        });
    }
}

/// Tells what was mended without anybody asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// The network's id.
    pub network: Option<String>,
    /// The container's id.
    pub container: Option<String>,
    pub text: String,
}
