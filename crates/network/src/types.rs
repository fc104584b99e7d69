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
    /// `None` takes the subnet's first address.
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
    /// `None` takes the subnet's first address.
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

impl FromStr for MacvlanMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" | "bridge" => Ok(Self::Bridge),
            "private" => Ok(Self::Private),
            "vepa" => Ok(Self::Vepa),
            "passthru" => Ok(Self::Passthru),
            _ => Err(format!(
                "requested macvlan mode '{text}' is not valid, 'bridge' mode is the macvlan driver default"
            )),
        }
    }
}

impl FromStr for IpvlanMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" | "l2" => Ok(Self::L2),
            "l3" => Ok(Self::L3),
            "l3s" => Ok(Self::L3s),
            _ => Err(format!(
                "requested ipvlan mode '{text}' is not valid, 'l2' mode is the ipvlan driver default"
            )),
        }
    }
}

impl FromStr for IpvlanFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" | "bridge" => Ok(Self::Bridge),
            "private" => Ok(Self::Private),
            "vepa" => Ok(Self::Vepa),
            _ => Err(format!(
                "requested ipvlan flag '{text}' is not valid, 'bridge' is the ipvlan driver default"
            )),
        }
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
