//! Networks.

use std::collections::BTreeMap;

use gantry_api::network::{ConfigReference, EndpointResource, Ipam, IpamConfig, NetworkInspect};
use gantry_engine::network::Network;

use super::instant;

/// Writes what may be missing; nothing for nothing.
fn shown(value: Option<impl std::fmt::Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Writes a network as list and inspect show it.
pub fn network(network: &Network) -> NetworkInspect {
    let mut options = BTreeMap::new();
    let mut config = None;
    if let Some(bridge) = &network.bridge {
        let host_binding = bridge
            .host_binding
            .map_or("0.0.0.0".to_owned(), |address| address.to_string());
        for (key, value) in [
            (
                "com.docker.network.bridge.default_bridge",
                (network.name == "bridge").to_string(),
            ),
            (
                "com.docker.network.bridge.enable_icc",
                bridge.icc.to_string(),
            ),
            (
                "com.docker.network.bridge.enable_ip_masquerade",
                bridge.ip_masquerade.to_string(),
            ),
            ("com.docker.network.bridge.host_binding_ipv4", host_binding),
            ("com.docker.network.bridge.name", bridge.interface.clone()),
            ("com.docker.network.driver.mtu", bridge.mtu.to_string()),
        ] {
            options.insert(key.to_owned(), value);
        }
        config = Some(vec![IpamConfig {
            subnet: shown(bridge.ipv4.map(|ipv4| ipv4.subnet)),
            ip_range: shown(bridge.ipv4.and_then(|ipv4| ipv4.ip_range)),
            gateway: shown(bridge.ipv4.and_then(|ipv4| ipv4.gateway)),
            aux_addresses: None,
        }]);
    }
    NetworkInspect {
        name: network.name.to_owned(),
        id: network.id.clone(),
        created: instant(network.created_ns),
        scope: "local".to_owned(),
        driver: network.driver.to_owned(),
        enable_ipv4: true,
        enable_ipv6: false,
        ipam: Ipam {
            driver: "default".to_owned(),
            options: None,
            config,
        },
        internal: false,
        attachable: false,
        ingress: false,
        config_from: ConfigReference::default(),
        config_only: false,
        containers: Some(
            network
                .containers
                .iter()
                .map(|member| {
                    let endpoint = member.endpoint.as_ref();
                    let shown = EndpointResource {
                        name: member.name.clone(),
                        endpoint_id: endpoint
                            .map(|endpoint| endpoint.id.clone())
                            .unwrap_or_default(),
                        mac_address: endpoint
                            .map(|endpoint| endpoint.mac.to_string())
                            .unwrap_or_default(),
                        ipv4_address: endpoint
                            .and_then(|endpoint| {
                                Some(format!("{}/{}", endpoint.ipv4?, endpoint.prefix_len))
                            })
                            .unwrap_or_default(),
                        ipv6_address: String::new(),
                    };
                    (member.container_id.clone(), shown)
                })
                .collect(),
        ),
        options: Some(options),
        labels: Some(network.labels.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_none_is_dockers() {
        let ours = Network {
            id: "1f92".to_owned(),
            name: "none",
            driver: "null",
            created_ns: 1_795_470_326_582_449_002,
            bridge: None,
            containers: Vec::new(),
            labels: BTreeMap::new(),
        };
        assert_eq!(
            serde_json::to_string(&network(&ours)).unwrap(),
            r#"{"Name":"none","Id":"1f92","Created":"2026-11-23T21:45:26.582449002Z","Scope":"local","Driver":"null","EnableIPv4":true,"EnableIPv6":false,"IPAM":{"Driver":"default","Options":null,"Config":null},"Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{},"Options":{},"Labels":{}}"#
        );
    }
}
