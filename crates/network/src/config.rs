//! What a network is asked to be. Callers keep these in their records.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Describes a network as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "driver", rename_all = "lowercase")]
pub enum NetworkConfig {
    Bridge(BridgeConfig),
    Macvlan(MacvlanConfig),
}

impl NetworkConfig {
    /// Gives the network's id.
    pub fn id(&self) -> &str {
        match self {
            Self::Bridge(config) => &config.id,
            Self::Macvlan(config) => &config.id,
        }
    }

    /// Gives the network's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Bridge(config) => &config.name,
            Self::Macvlan(config) => &config.name,
        }
    }
}

impl From<BridgeConfig> for NetworkConfig {
    fn from(config: BridgeConfig) -> Self {
        Self::Bridge(config)
    }
}

impl From<MacvlanConfig> for NetworkConfig {
    fn from(config: MacvlanConfig) -> Self {
        Self::Macvlan(config)
    }
}

/// How containers of a network are reached from beyond the host, by family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// Behind the host's address; by published ports alone.
    #[default]
    Nat,
    /// Behind the host's address on the way out; by their own addresses and every port on the way in.
    NatUnprotected,
    /// By their own addresses, in both directions, on published ports alone.
    Routed,
    /// Not at all: the bridge has no address. For internal networks.
    Isolated,
}

impl GatewayMode {
    /// Says whether packets out of the network take the host's address.
    pub const fn is_nat(self) -> bool {
        matches!(self, Self::Nat | Self::NatUnprotected)
    }
}

impl FromStr for GatewayMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" | "nat" => Ok(Self::Nat),
            "nat-unprotected" => Ok(Self::NatUnprotected),
            "routed" => Ok(Self::Routed),
            "isolated" => Ok(Self::Isolated),
            _ => Err(format!("unknown gateway mode {text}")),
        }
    }
}

/// What an IPv6 network asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Config {
    /// `None` takes the next free one of the address pools.
    #[serde(default)]
    pub subnet: Option<Ipv6Net>,
    /// `None` takes the first address of `ip_range`, or else of the subnet.
    #[serde(default)]
    pub gateway: Option<Ipv6Addr>,
    /// Restricts the addresses given to containers.
    #[serde(default)]
    pub ip_range: Option<Ipv6Net>,
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
    /// Whether this is the engine's default network: its name may be taken by a real Docker Engine and then is another,
    /// and it takes a whole pool as its subnet.
    #[serde(default)]
    pub is_default: bool,
    /// Whether containers have IPv4 addresses.
    #[serde(default = "yes")]
    pub ipv4: bool,
    /// `None` takes the next free one of the address pools.
    #[serde(default)]
    pub subnet: Option<Ipv4Net>,
    /// `None` takes the first address of `ip_range`, or else of the subnet.
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    /// Restricts the addresses given to containers (`--fixed-cidr`, `--ip-range`).
    #[serde(default)]
    pub ip_range: Option<Ipv4Net>,
    /// Whether containers have IPv6 addresses, and which.
    #[serde(default)]
    pub ipv6: Option<Ipv6Config>,
    /// Addresses of either family that are never given to a container (`--aux-address`).
    #[serde(default)]
    pub aux_addresses: Vec<IpAddr>,
    /// `None` takes the MTU of the default route's device, or 1500.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Whether containers of this network may talk to each other (`--icc`).
    #[serde(default = "yes")]
    pub icc: bool,
    /// Whether traffic that leaves by another interface takes the host's address (`--ip-masq`).
    #[serde(default = "yes")]
    pub ip_masquerade: bool,
    #[serde(default)]
    pub gateway_mode_ipv4: GatewayMode,
    #[serde(default)]
    pub gateway_mode_ipv6: GatewayMode,
    /// Whether the bridge is left without its IPv4 address: the containers' gateway is somebody else's.
    #[serde(default)]
    pub inhibit_ipv4: bool,
    /// The source address of what leaves, where it is not to be that of the interface it leaves by.
    #[serde(default)]
    pub host_ipv4: Option<Ipv4Addr>,
    #[serde(default)]
    pub host_ipv6: Option<Ipv6Addr>,
    /// Interfaces by which published ports are reached at the containers' own addresses.
    #[serde(default)]
    pub trusted_host_interfaces: Vec<String>,
    /// Whether published ports pass the host's own input rules.
    #[serde(default)]
    pub obey_host_firewall: bool,
    /// Whether the network has no way in or out.
    #[serde(default)]
    pub internal: bool,
    /// The host's address on which ports are published when a mapping names none; `None` means 0.0.0.0 and [::].
    #[serde(default)]
    pub host_binding: Option<IpAddr>,
    /// What names of interfaces in containers begin with; `None` means `eth`. The engine numbers them.
    #[serde(default)]
    pub container_interface_prefix: Option<String>,
}

const fn yes() -> bool {
    true
}

impl BridgeConfig {
    /// Gives Docker's default network: `docker0`, everything on.
    pub fn default_bridge(id: impl Into<String>) -> Self {
        Self {
            is_default: true,
            ..Self::new(id, "bridge", "docker0")
        }
    }

    /// Gives a user-defined network as Docker makes it when nothing is asked for.
    pub fn new(
        id: impl Into<String>,
        name: impl Into<String>,
        interface: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            interface: interface.into(),
            is_default: false,
            ipv4: true,
            subnet: None,
            gateway: None,
            ip_range: None,
            ipv6: None,
            aux_addresses: Vec::new(),
            mtu: None,
            icc: true,
            ip_masquerade: true,
            gateway_mode_ipv4: GatewayMode::Nat,
            gateway_mode_ipv6: GatewayMode::Nat,
            inhibit_ipv4: false,
            host_ipv4: None,
            host_ipv6: None,
            trusted_host_interfaces: Vec::new(),
            obey_host_firewall: false,
            internal: false,
            host_binding: None,
            container_interface_prefix: None,
        }
    }
}

/// Which kind of interface a container gets on top of the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanKind {
    Macvlan(MacvlanMode),
    Ipvlan(IpvlanMode, IpvlanFlag),
}

/// How macvlan interfaces of one parent see each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    #[default]
    Bridge,
    Private,
    Vepa,
    Passthru,
}

/// At which layer an ipvlan interface works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanMode {
    #[default]
    L2,
    L3,
    L3s,
}

/// How ipvlan interfaces of one parent see each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanFlag {
    #[default]
    Bridge,
    Private,
    Vepa,
}

/// Reads a driver's word. An empty one is the first, which is the default.
fn word<T: Copy>(what: &str, default: &str, text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let mut known = words.iter();
    known
        .find(|(word, _)| text.is_empty() || *word == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| format!("requested {what} '{text}' is not valid, {default} driver default"))
}

impl FromStr for MacvlanMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = [
            ("bridge", Self::Bridge),
            ("private", Self::Private),
            ("vepa", Self::Vepa),
            ("passthru", Self::Passthru),
        ];
        word("macvlan mode", "'bridge' mode is the macvlan", text, &words)
    }
}

impl FromStr for IpvlanMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = [("l2", Self::L2), ("l3", Self::L3), ("l3s", Self::L3s)];
        word("ipvlan mode", "'l2' mode is the ipvlan", text, &words)
    }
}

impl FromStr for IpvlanFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = [
            ("bridge", Self::Bridge),
            ("private", Self::Private),
            ("vepa", Self::Vepa),
        ];
        word("ipvlan flag", "'bridge' is the ipvlan", text, &words)
    }
}

/// Describes a network whose containers sit directly on an interface of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MacvlanConfig {
    /// The network's id (64 hexadecimal digits).
    pub id: String,
    /// The network's name, for messages.
    pub name: String,
    /// The host's interface; one that does not exist and is written `eth0.10` is made as a VLAN of `eth0`. `None` takes
    /// an interface of the network's own that leads nowhere.
    #[serde(default)]
    pub parent: Option<String>,
    pub kind: MacvlanKind,
    #[serde(default = "yes")]
    pub ipv4: bool,
    #[serde(default)]
    pub subnet: Option<Ipv4Net>,
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    #[serde(default)]
    pub ip_range: Option<Ipv4Net>,
    #[serde(default)]
    pub ipv6: Option<Ipv6Config>,
    #[serde(default)]
    pub aux_addresses: Vec<IpAddr>,
    /// `None` takes the parent's.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Whether containers have no default route.
    #[serde(default)]
    pub internal: bool,
    /// What names of interfaces in containers begin with; `None` means `eth`. The engine numbers them.
    #[serde(default)]
    pub container_interface_prefix: Option<String>,
}

impl MacvlanConfig {
    /// Gives a network on `parent` as Docker makes it when nothing else is asked for.
    pub fn new(
        id: impl Into<String>,
        name: impl Into<String>,
        parent: Option<String>,
        kind: MacvlanKind,
    ) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            parent,
            kind,
            ipv4: true,
            subnet: None,
            gateway: None,
            ip_range: None,
            ipv6: None,
            aux_addresses: Vec::new(),
            mtu: None,
            internal: false,
            container_interface_prefix: None,
        }
    }
}
