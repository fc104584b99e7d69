//! Networks.

use gantry_api::network::{
    ConfigReference, EndpointResource, Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect,
};
use gantry_engine::network::{Network, NetworkCreate};

use super::instant;

/// Writes a network as list and inspect show it.
pub fn network(network: &Network) -> NetworkInspect {
    let configs = network.ipam.configs.iter().map(|config| IpamConfig {
        subnet: config.subnet.clone(),
        ip_range: config.ip_range.clone(),
        gateway: config.gateway.clone(),
        aux_addresses: Some(config.aux_addresses.clone()).filter(|map| !map.is_empty()),
    });
    let containers = network.containers.iter().map(|member| {
        let shown = EndpointResource {
            name: member.name.clone(),
            endpoint_id: member.endpoint_id.clone(),
            mac_address: member.mac.clone(),
            ipv4_address: member.ipv4.clone(),
            ipv6_address: member.ipv6.clone(),
        };
        (member.container_id.clone(), shown)
    });
    NetworkInspect {
        name: network.name.clone(),
        id: network.id.clone(),
        created: instant(network.created_ns),
        scope: network.scope.clone(),
        driver: network.driver.clone(),
        enable_ipv4: network.enable_ipv4,
        enable_ipv6: network.enable_ipv6,
        ipam: Ipam {
            driver: network.ipam.driver.clone(),
            options: network.ipam.options.clone(),
            config: Some(configs.collect()).filter(|all: &Vec<_>| !all.is_empty()),
        },
        internal: network.internal,
        attachable: network.attachable,
        ingress: false,
        config_from: ConfigReference {
            network: network.config_from.clone(),
        },
        config_only: network.config_only,
        containers: Some(containers.collect()),
        options: Some(network.options.clone()),
        labels: Some(network.labels.clone()),
    }
}

/// Reads the body of `POST /networks/create`.
pub fn create(body: NetworkCreateRequest) -> NetworkCreate {
    let NetworkCreateRequest {
        name,
        // Names are unique in any case.
        check_duplicate: _,
        driver,
        scope,
        enable_ipv4,
        enable_ipv6,
        ipam,
        internal,
        attachable,
        ingress,
        config_only,
        config_from,
        options,
        labels,
    } = body;
    let ipam = ipam.unwrap_or_default();
    let configs = ipam.config.unwrap_or_default().into_iter();
    NetworkCreate {
        name,
        driver,
        internal,
        attachable,
        ingress,
        config_only,
        config_from: config_from.unwrap_or_default().network,
        scope,
        enable_ipv4,
        enable_ipv6,
        ipam: gantry_engine::network::Ipam {
            driver: ipam.driver,
            options: ipam.options,
            configs: configs
                .map(|config| gantry_engine::network::IpamConfig {
                    subnet: config.subnet,
                    ip_range: config.ip_range,
                    gateway: config.gateway,
                    aux_addresses: config.aux_addresses.unwrap_or_default(),
                })
                .collect(),
        },
        options: options.unwrap_or_default(),
        labels: labels.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_none_is_dockers() {
        let ours = Network {
            id: "1f92".to_owned(),
            name: "none".to_owned(),
            driver: "null".to_owned(),
            scope: "local".to_owned(),
            created_ns: 1_795_470_326_582_449_002,
            enable_ipv4: true,
            ipam: gantry_engine::network::Ipam {
                driver: "default".to_owned(),
                ..Default::default()
            },
            ..Network::default()
        };
        assert_eq!(
            serde_json::to_string(&network(&ours)).unwrap(),
            r#"{"Name":"none","Id":"1f92","Created":"2026-11-23T21:45:26.582449002Z","Scope":"local","Driver":"null","EnableIPv4":true,"EnableIPv6":false,"IPAM":{"Driver":"default","Options":null,"Config":null},"Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{},"Options":{},"Labels":{}}"#
        );
    }
}
