//! `inspect`: a network as the API shows it.

use std::collections::BTreeMap;
use std::sync::Arc;

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
        Ok(self.network_view_of(&record))
    }

    pub(super) fn network_view_of(&self, record: &Arc<NetworkRecord>) -> Network {
        let containers = self
            .inner
            .containers
            .all()
            .iter()
            .map(|container| container.record())
            .filter(|container| container.state.status.has_process())
            .filter_map(|container| member(&container, record))
            .collect();
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

/// Describes a container's place on the network; `None` if it has none.
fn member(container: &crate::container::Record, network: &NetworkRecord) -> Option<Member> {
    let mut member = Member {
        container_id: container.id.clone(),
        name: container.name.clone(),
        ..Member::default()
    };
    let endpoint = container
        .acquired
        .endpoints
        .iter()
        .find(|endpoint| endpoint.network == network.id);
    if let Some(endpoint) = endpoint {
        member.endpoint_id = endpoint.id.clone();
        member.mac = endpoint.mac.to_string();
        member.ipv4 = format!("{}/{}", endpoint.ipv4, endpoint.prefix_len);
        return Some(member);
    }
    // On `host` and `none` there is nothing but the wish.
    let without_endpoints = matches!(network.driver.as_str(), "host" | "null");
    (without_endpoints && container.networks.contains_key(&network.name)).then_some(member)
}

impl NetworkRecord {
    /// Returns the ranges as they are shown: the user's, then what was chosen for a family without.
    pub(crate) fn shown_ipam(&self) -> Ipam {
        let mut ipam = self.ipam.clone();
        let Some(config) = &self.config else {
            return ipam;
        };
        let has = |ipam: &Ipam, v6: bool| {
            let mut subnets = ipam
                .configs
                .iter()
                .map(|config| config.subnet.contains(':'));
            subnets.any(|is_v6| is_v6 == v6)
        };
        if let Some(subnet) = config.subnet.filter(|_| !has(&ipam, false)) {
            ipam.configs.push(IpamConfig {
                subnet: subnet.to_string(),
                ip_range: config
                    .ip_range
                    .map(|range| range.to_string())
                    .unwrap_or_default(),
                gateway: config
                    .gateway
                    .map(|gateway| gateway.to_string())
                    .unwrap_or_default(),
                aux_addresses: BTreeMap::new(),
            });
        }
        ipam
    }
}
