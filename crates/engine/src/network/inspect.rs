//! `inspect`: a network as the API shows it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use gantry_network::NetworkConfig;

use super::record::{Ipam, IpamConfig, NetworkRecord};
use crate::{Engine, Result};

/// A network as the API shows it.
#[derive(Clone, Debug, Default)]
pub struct Network {
    pub id: String,
    pub name: String,
    /// `bridge`, `macvlan`, `ipvlan`, `host` or `null`.
    pub driver: String,
    pub scope: String,
    pub created_ns: i64,
    pub internal: bool,
    pub attachable: bool,
    pub config_only: bool,
    pub config_from: String,
    pub enable_ipv4: bool,
    pub enable_ipv6: bool,
    /// What the user gave, and what was chosen where nothing was given.
    pub ipam: Ipam,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Containers on it that run.
    pub containers: Vec<Member>,
}

/// A container on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    pub container_id: String,
    pub name: String,
    pub endpoint_id: String,
    pub mac: String,
    /// With the length of its prefix; empty for none.
    pub ipv4: String,
    pub ipv6: String,
}

impl Engine {
    /// Returns the network of this name, id or unique beginning of an id.
    ///
    /// # Errors
    /// Not found; more than one (invalid).
    pub async fn network(&self, name: &str) -> Result<Network> {
        let record = self.inner.networks.find(name)?;
        let members = self.members().take(&record);
        Ok(self.network_view_of(&record, members))
    }

    /// Finds who is on which network, by one look at all containers.
    pub(super) fn members(&self) -> Members {
        let mut members = Members::default();
        for container in self.inner.containers.all() {
            let container = container.record();
            if container.state.status.has_process() {
                members.add(&container);
            }
        }
        members
    }

    /// Describes a network with its members.
    pub(super) fn network_view_of(
        &self,
        record: &Arc<NetworkRecord>,
        containers: Vec<Member>,
    ) -> Network {
        let mut options = record.options.clone();
        if record.name == "bridge" {
            options.extend(self.default_bridge_options());
        }
        Network {
            id: record.id.clone(),
            name: record.name.clone(),
            driver: record.driver.clone(),
            scope: record.scope.clone(),
            created_ns: record.created_ns,
            internal: record.internal,
            attachable: record.attachable,
            config_only: record.config_only,
            config_from: record.config_from.clone(),
            enable_ipv4: record.enable_ipv4,
            enable_ipv6: record.enable_ipv6,
            ipam: record.shown_ipam(),
            options,
            labels: record.labels.clone(),
            containers,
        }
    }

    /// Returns the options that the default bridge shows, which are the daemon's.
    fn default_bridge_options(&self) -> Vec<(String, String)> {
        let Some(bridge) = self.inner.network.bridge() else {
            return Vec::new();
        };
        let host_binding = bridge
            .host_binding
            .map_or("0.0.0.0".to_owned(), |address| address.to_string());
        let flag = |value: bool| value.to_string();
        [
            ("bridge.default_bridge", flag(true)),
            ("bridge.enable_icc", flag(bridge.icc)),
            ("bridge.enable_ip_masquerade", flag(bridge.ip_masquerade)),
            ("bridge.host_binding_ipv4", host_binding),
            ("bridge.name", bridge.interface),
            ("driver.mtu", bridge.mtu.to_string()),
        ]
        .into_iter()
        .map(|(key, value)| (format!("com.docker.network.{key}"), value))
        .collect()
    }
}

/// The members of all networks, in the order of the containers.
#[derive(Debug, Default)]
pub(super) struct Members {
    by_network_id: HashMap<String, Vec<Member>>,
    /// On `host` and `none` there is nothing but the wish.
    without_endpoint: HashMap<String, Vec<Member>>,
}

impl Members {
    fn add(&mut self, container: &crate::container::Record) {
        let member = || Member {
            container_id: container.id.clone(),
            name: container.name.clone(),
            ..Member::default()
        };
        let with_length = |address: Option<IpAddr>, length: u8| {
            address
                .map(|address| format!("{address}/{length}"))
                .unwrap_or_default()
        };
        for endpoint in &container.acquired.endpoints {
            let member = Member {
                endpoint_id: endpoint.id.clone(),
                mac: endpoint.mac.to_string(),
                ipv4: with_length(endpoint.ipv4.map(IpAddr::V4), endpoint.prefix_len),
                ipv6: with_length(endpoint.ipv6.map(IpAddr::V6), endpoint.prefix_len_v6),
                ..member()
            };
            let members = self.by_network_id.entry(endpoint.network.clone());
            members.or_default().push(member);
        }
        for name in ["host", "none"] {
            if container.networks.contains_key(name) {
                let members = self.without_endpoint.entry(name.to_owned());
                members.or_default().push(member());
            }
        }
    }

    /// Gives those of one network, once.
    pub(super) fn take(&mut self, network: &NetworkRecord) -> Vec<Member> {
        let found = match network.driver.as_str() {
            "host" | "null" => self.without_endpoint.remove(&network.name),
            _ => self.by_network_id.remove(&network.id),
        };
        found.unwrap_or_default()
    }
}

impl NetworkRecord {
    /// Returns the ranges as they are shown: the user's, then what was chosen for a family without.
    pub(crate) fn shown_ipam(&self) -> Ipam {
        let mut ipam = self.ipam.clone();
        let Some(config) = &self.config else {
            return ipam;
        };
        let (ipv4, ipv6) = match config {
            NetworkConfig::Bridge(config) => {
                let ipv4 = (config.subnet, config.gateway, config.ip_range);
                (ipv4, config.ipv6)
            }
            NetworkConfig::Macvlan(config) => {
                let ipv4 = (config.subnet, config.gateway, config.ip_range);
                (ipv4, config.ipv6)
            }
        };
        let ipv6 = ipv6.map_or((None, None, None), |ipv6| {
            (ipv6.subnet, ipv6.gateway, ipv6.ip_range)
        });
        let given = |v6: bool| {
            let mut configs = self.ipam.configs.iter();
            configs.any(|config| config.subnet.contains(':') == v6)
        };
        if !given(false) {
            ipam.configs.extend(chosen(ipv4));
        }
        if !given(true) {
            ipam.configs.extend(chosen(ipv6));
        }
        ipam
    }
}

/// Writes a range that the engine chose: subnet, gateway, part for containers.
fn chosen<N: ToString, A: ToString>(
    (subnet, gateway, ip_range): (Option<N>, Option<A>, Option<N>),
) -> Option<IpamConfig> {
    let text = |range: Option<N>| range.map(|range| range.to_string()).unwrap_or_default();
    Some(IpamConfig {
        subnet: subnet?.to_string(),
        ip_range: text(ip_range),
        gateway: gateway
            .map(|gateway| gateway.to_string())
            .unwrap_or_default(),
        aux_addresses: BTreeMap::new(),
    })
}
