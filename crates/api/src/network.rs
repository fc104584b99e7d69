//! Wire types of networks and endpoints.

use crate::time::Timestamp;
use crate::wire::wire;
use std::collections::BTreeMap;

wire! {
    /// Is a container's place on one network: what was asked for, then what it got.
    pub struct EndpointSettings {
        #[serde(rename = "IPAMConfig")]
        ipam_config: Option<EndpointIpamConfig>,
        links: Option<Vec<String>>,
        aliases: Option<Vec<String>>,
        mac_address: String,
        driver_opts: Option<BTreeMap<String, String>>,
        gw_priority: i64,
        #[serde(rename = "NetworkID")]
        network_id: String,
        #[serde(rename = "EndpointID")]
        endpoint_id: String,
        gateway: String,
        #[serde(rename = "IPAddress")]
        ip_address: String,
        #[serde(rename = "IPPrefixLen")]
        ip_prefix_len: i64,
        #[serde(rename = "IPv6Gateway")]
        ipv6_gateway: String,
        #[serde(rename = "GlobalIPv6Address")]
        global_ipv6_address: String,
        #[serde(rename = "GlobalIPv6PrefixLen")]
        global_ipv6_prefix_len: i64,
        #[serde(rename = "DNSNames")]
        dns_names: Option<Vec<String>>,
    }

    /// Asks for addresses.
    pub struct EndpointIpamConfig {
        #[serde(rename = "IPv4Address")]
        ipv4_address: String = omitempty,
        #[serde(rename = "IPv6Address")]
        ipv6_address: String = omitempty,
        #[serde(rename = "LinkLocalIPs")]
        link_local_ips: Option<Vec<String>> = omitempty,
    }

    /// Is the network part of a create request.
    pub struct NetworkingConfig {
        endpoints_config: Option<BTreeMap<String, Option<EndpointSettings>>>,
    }

    /// Answers list and inspect.
    pub struct NetworkInspect {
        name: String,
        id: String,
        created: Timestamp,
        scope: String,
        driver: String,
        #[serde(rename = "EnableIPv4")]
        enable_ipv4: bool,
        #[serde(rename = "EnableIPv6")]
        enable_ipv6: bool,
        #[serde(rename = "IPAM")]
        ipam: Ipam,
        internal: bool,
        attachable: bool,
        ingress: bool,
        config_from: ConfigReference,
        config_only: bool,
        containers: Option<BTreeMap<String, EndpointResource>>,
        options: Option<BTreeMap<String, String>>,
        labels: Option<BTreeMap<String, String>>,
    }

    /// Names the network whose configuration is taken.
    pub struct ConfigReference {
        network: String,
    }

    /// Is a network's address management.
    pub struct Ipam {
        driver: String,
        options: Option<BTreeMap<String, String>>,
        config: Option<Vec<IpamConfig>>,
    }

    /// Is one range of addresses.
    pub struct IpamConfig {
        subnet: String = omitempty,
        #[serde(rename = "IPRange")]
        ip_range: String = omitempty,
        gateway: String = omitempty,
        #[serde(rename = "AuxiliaryAddresses")]
        aux_addresses: Option<BTreeMap<String, String>> = omitempty,
    }

    /// Is one container in a network's inspect.
    pub struct EndpointResource {
        name: String,
        #[serde(rename = "EndpointID")]
        endpoint_id: String,
        mac_address: String,
        #[serde(rename = "IPv4Address")]
        ipv4_address: String,
        #[serde(rename = "IPv6Address")]
        ipv6_address: String,
    }

    /// Is the body of `POST /networks/create`.
    pub struct NetworkCreateRequest {
        name: String,
        check_duplicate: Option<bool> = omitempty,
        driver: String,
        scope: String,
        #[serde(rename = "EnableIPv4")]
        enable_ipv4: Option<bool> = omitempty,
        #[serde(rename = "EnableIPv6")]
        enable_ipv6: Option<bool> = omitempty,
        #[serde(rename = "IPAM")]
        ipam: Option<Ipam>,
        internal: bool,
        attachable: bool,
        ingress: bool,
        config_only: bool,
        config_from: Option<ConfigReference>,
        options: Option<BTreeMap<String, String>>,
        labels: Option<BTreeMap<String, String>>,
    }

    /// Answers network create.
    pub struct NetworkCreateResponse {
        id: String,
        warning: String,
    }

    /// Is the body of connect.
    pub struct NetworkConnectRequest {
        container: String,
        endpoint_config: Option<EndpointSettings> = omitempty,
    }

    /// Is the body of disconnect.
    pub struct NetworkDisconnectRequest {
        container: String,
        force: bool,
    }

    /// Answers prune.
    pub struct NetworksPruneReport {
        networks_deleted: Option<Vec<String>>,
    }
}
