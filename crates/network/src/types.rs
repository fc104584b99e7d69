//! The plain data of networks and endpoints: what callers hand in, what they get and what they keep in their records.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use gantry_api::port::{PortReserver, Protocol};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Takes one line of warning for the operator.
pub type Warn = Arc<dyn Fn(&str) + Send + Sync>;

/// Says how an engine's networks are run.
#[derive(Clone)]
pub struct StackConfig {
    /// The engine's random id (hexadecimal). Table, aliases and state files carry its first 12 characters.
    pub engine_id: String,
    /// Holds `network/`, the little state that must survive the daemon but not a boot.
    pub exec_root: PathBuf,
    /// The default network; `None` leaves the engine without one (`--bridge none`).
    pub bridge: Option<BridgeConfig>,
    /// Pools from which networks without a subnet take theirs, in order; empty means Docker's.
    pub address_pools: Vec<AddressPool>,
    /// Whether firewall rules are kept (`--iptables`). Without them published ports are carried by the reserver alone.
    pub firewall: bool,
    /// Whether `net.ipv4.ip_forward` is switched on where it is off (`--ip-forward`).
    pub ip_forward: bool,
    /// Whether switching it on leaves other interfaces' traffic alone (`--ip-forward-no-drop`).
    pub ip_forward_no_drop: bool,
    /// Watch for a flushed ruleset and bring it back at once, in a thread of the stack's.
    pub watch: bool,
    pub reserver: Arc<dyn PortReserver>,
    pub warn: Warn,
}

/// Describes a bridge network as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeConfig {
    /// The network's id (64 hexadecimal digits).
    pub id: String,
    /// The network's name, for messages.
    pub name: String,
    /// The bridge interface's name, at most 15 bytes.
    pub interface: String,
    /// `None` takes the next free one of the address pools.
    #[serde(default)]
    pub subnet: Option<Ipv4Net>,
    /// `None` takes the subnet's first address.
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    /// Restricts the addresses given to containers (`--fixed-cidr`, `--ip-range`).
    #[serde(default)]
    pub ip_range: Option<Ipv4Net>,
    /// `None` takes the MTU of the default route's device, or 1500.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Whether containers of this network may talk to each other (`--icc`).
    #[serde(default = "yes")]
    pub icc: bool,
    /// Whether traffic that leaves by another interface takes the host's address (`--ip-masq`).
    #[serde(default = "yes")]
    pub ip_masquerade: bool,
    /// Whether the network has no way in or out.
    #[serde(default)]
    pub internal: bool,
    /// The host's address on which ports are published when a mapping names none; `None` means 0.0.0.0 and [::].
    #[serde(default)]
    pub host_binding: Option<IpAddr>,
}

const fn yes() -> bool {
    true
}

impl BridgeConfig {
    /// Gives Docker's default network: `docker0`, everything on.
    pub fn default_bridge(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            name: "bridge".to_owned(),
            interface: "docker0".to_owned(),
            subnet: None,
            gateway: None,
            ip_range: None,
            mtu: None,
            icc: true,
            ip_masquerade: true,
            internal: false,
            host_binding: None,
        }
    }
}

/// A range of addresses cut into subnets of `size` prefix bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPool {
    pub base: Ipv4Net,
    /// Prefix length of the subnets, not shorter than the base's.
    pub size: u8,
}

/// Describes a bridge network as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeInfo {
    pub id: String,
    pub interface: String,
    pub subnet: Ipv4Net,
    pub gateway: Ipv4Addr,
    pub ip_range: Option<Ipv4Net>,
    pub mtu: u32,
    pub icc: bool,
    pub ip_masquerade: bool,
    pub internal: bool,
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
    /// The veth's end on the bridge.
    pub host_interface: String,
    /// The veth's end in the container.
    pub container_interface: String,
    pub mac: MacAddress,
    pub ipv4: Ipv4Addr,
    pub prefix_len: u8,
    /// `None` on an internal network: no default route.
    pub gateway: Option<Ipv4Addr>,
    pub mtu: u32,
    /// The address was in use shortly before: neighbours must be told the new hardware address.
    #[serde(default)]
    pub address_reused: bool,
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
}

impl Report {
    /// Says whether kernel and records agreed already.
    pub fn is_clean(&self) -> bool {
        self.restored.is_empty() && self.removed.is_empty()
    }
}
