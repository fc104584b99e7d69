//! A container's places on networks: what clients wish for, and what inspect and list show of them.

use std::collections::BTreeMap;

use gantry_api::container as wire;
use gantry_api::error::ApiError;
use gantry_api::network::{EndpointIpamConfig, EndpointSettings};
use gantry_engine::container::{EndpointView, NetworkView, Record};
use gantry_engine::network::EndpointIpam;
pub use gantry_engine::network::EndpointSettings as Settings;

use crate::server::version::ApiVersion;

/// Reads what a client wishes for. What stands beside the wishes is the engine's own answer, which clients send back.
pub fn settings(wished: EndpointSettings, version: ApiVersion) -> Settings {
    let EndpointSettings {
        ipam_config,
        links,
        aliases,
        mac_address,
        driver_opts,
        gw_priority,
        network_id: _,
        endpoint_id: _,
        gateway: _,
        ip_address: _,
        ip_prefix_len: _,
        ipv6_gateway: _,
        global_ipv6_address: _,
        global_ipv6_prefix_len: _,
        dns_names: _,
    } = wished;
    Settings {
        ipam: ipam_config.map(
            |EndpointIpamConfig {
                 ipv4_address,
                 ipv6_address,
                 link_local_ips,
             }| EndpointIpam {
                ipv4: ipv4_address,
                ipv6: ipv6_address,
                link_local: link_local_ips,
            },
        ),
        links,
        aliases,
        mac: mac_address,
        driver_opts,
        // Older clients know of none.
        gw_priority: if version.is_before(48) {
            0
        } else {
            gw_priority
        },
        ..Settings::default()
    }
}

/// Writes all that inspect shows of a container's networks.
pub fn network_settings(
    record: &Record,
    view: &NetworkView,
    version: ApiVersion,
) -> wire::NetworkSettings {
    let own_network =
        record.state.status.has_process() && !record.host.network_mode.starts_with("container:");
    let mut settings = wire::NetworkSettings {
        networks: Some(networks(view)),
        ..wire::NetworkSettings::default()
    };
    if own_network {
        // The sandbox is the container's own: whoever enters the namespace does so by this path.
        settings.sandbox_id = record.id.clone();
        settings.sandbox_key = format!("/proc/{}/ns/net", record.state.pid);
        settings.ports = ports(record, view);
    }
    settings.bridge.clone_from(&view.bridge_interface);
    if version.is_before(45) && is_user_defined(&record.host.network_mode) {
        // Names that all have stood among the aliases.
        let own = [
            record.id.get(..12).unwrap_or_default(),
            &record.config.hostname,
        ];
        for shown in settings
            .networks
            .iter_mut()
            .flat_map(BTreeMap::values_mut)
            .flatten()
        {
            let aliases = shown.aliases.get_or_insert_default();
            for name in own {
                if !aliases.iter().any(|known| known == name) {
                    aliases.push(name.to_owned());
                }
            }
        }
    }
    // Of old: what the container has on the default bridge.
    if let Some(bridge) = view.networks.get("bridge") {
        let shown = endpoint_settings(bridge);
        settings.endpoint_id = shown.endpoint_id;
        settings.gateway = shown.gateway;
        settings.ip_address = shown.ip_address;
        settings.ip_prefix_len = shown.ip_prefix_len;
        settings.ipv6_gateway = shown.ipv6_gateway;
        settings.global_ipv6_address = shown.global_ipv6_address;
        settings.global_ipv6_prefix_len = shown.global_ipv6_prefix_len;
        settings.mac_address = if bridge.place.is_some() {
            shown.mac_address
        } else {
            String::new()
        };
    }
    settings
}

/// Writes the container's place on each network.
pub fn networks(view: &NetworkView) -> BTreeMap<String, Option<EndpointSettings>> {
    let all = view.networks.iter();
    all.map(|(name, view)| (name.clone(), Some(endpoint_settings(view))))
        .collect()
}

/// Writes what was wished for on a network and what the container has there.
fn endpoint_settings(view: &EndpointView) -> EndpointSettings {
    let wished = &view.settings;
    let mut shown = EndpointSettings {
        ipam_config: wished.ipam.as_ref().map(|ipam| EndpointIpamConfig {
            ipv4_address: ipam.ipv4.clone(),
            ipv6_address: ipam.ipv6.clone(),
            link_local_ips: ipam.link_local.clone(),
        }),
        links: wished.links.clone(),
        aliases: wished.aliases.clone(),
        mac_address: wished.mac.clone(),
        driver_opts: wished.driver_opts.clone(),
        gw_priority: wished.gw_priority,
        network_id: view.network_id.clone(),
        dns_names: Some(view.dns_names.clone()).filter(|names| !names.is_empty()),
        ..EndpointSettings::default()
    };
    if let Some(place) = &view.place {
        let text = |address: Option<std::net::IpAddr>| {
            address
                .map(|address| address.to_string())
                .unwrap_or_default()
        };
        shown.mac_address.clone_from(&place.mac);
        shown.endpoint_id.clone_from(&place.endpoint_id);
        shown.gateway = text(place.gateway.map(Into::into));
        shown.ip_address = text(place.ipv4.map(Into::into));
        shown.ip_prefix_len = place.prefix_len.into();
        shown.ipv6_gateway = text(place.gateway_v6.map(Into::into));
        shown.global_ipv6_address = text(place.ipv6.map(Into::into));
        shown.global_ipv6_prefix_len = place.prefix_len_v6.into();
    }
    shown
}

/// Writes the ports of a running container: published ones with their bindings, exposed ones as `null`.
fn ports(record: &Record, view: &NetworkView) -> wire::PortMap {
    let mut ports: wire::PortMap = BTreeMap::new();
    let mut networks = view.networks.values();
    if networks.all(|one| one.place.is_none() || one.is_internal) {
        return ports;
    }
    for port in &record.config.exposed_ports {
        ports.insert(port.to_string(), None);
    }
    for published in &view.ports {
        let key = format!(
            "{}/{}",
            published.container_port,
            published.protocol.as_str()
        );
        ports
            .entry(key)
            .or_default()
            .get_or_insert_default()
            .push(wire::PortBinding {
                host_ip: published.ip.to_string(),
                host_port: match published.host_port {
                    // Reached by the container's own address.
                    0 => String::new(),
                    port => port.to_string(),
                },
            });
    }
    ports
}

/// Writes the ports as the list shows them.
pub fn port_summaries(record: &Record, view: &NetworkView) -> Vec<wire::PortSummary> {
    let mut all = Vec::new();
    for (key, bindings) in ports(record, view) {
        let (port, kind) = key.split_once('/').unwrap_or((&key, "tcp"));
        let private = wire::PortSummary {
            private_port: port.parse().unwrap_or(0),
            kind: kind.to_owned(),
            ..wire::PortSummary::default()
        };
        match bindings {
            None => all.push(private),
            Some(bindings) => all.extend(bindings.into_iter().map(|binding| wire::PortSummary {
                ip: binding.host_ip,
                public_port: binding.host_port.parse().unwrap_or(0),
                ..private.clone()
            })),
        }
    }
    all
}

/// Tells whether a network mode names a network that a user made.
fn is_user_defined(mode: &str) -> bool {
    !matches!(mode, "" | "default" | "bridge" | "host" | "none") && !mode.starts_with("container:")
}

/// Where kernel settings of one interface belong.
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

/// Moves kernel settings of the interface `eth0`, which older clients give for the whole container, to the endpoint of
/// its network. Returns the warnings.
pub fn move_sysctls(
    body: &mut wire::ContainerCreateRequest,
    version: ApiVersion,
) -> Result<Vec<String>, ApiError> {
    let mut warnings = Vec::new();
    let Some(host) = &mut body.host_config else {
        return Ok(warnings);
    };
    let mode = host.network_mode.clone();
    if mode == "host" || mode.starts_with("container:") {
        return Ok(warnings);
    }
    let mut moved = Vec::new();
    for (name, value) in host.sysctls.iter().flatten() {
        let words: Vec<&str> = name.splitn(5, '.').collect();
        let ["net", first, second, interface, rest] = words.as_slice() else {
            continue;
        };
        if !interface.starts_with("eth") {
            continue;
        }
        if !version.is_before(48) {
            return Err(ApiError::invalid(format!(
                "interface specific sysctl setting \"{name}\" must be supplied using driver option '{SYSCTLS}'"
            )));
        }
        if *interface != "eth0" {
            return Err(ApiError::invalid(format!(
                "unable to determine network endpoint for sysctl {name}, use driver option '{SYSCTLS}' to set per-interface sysctls"
            )));
        }
        let setting = format!("net.{first}.{second}.IFNAME.{rest}={value}");
        warnings.push(format!(
            "Migrated sysctl \"{name}\" to DriverOpts{{\"{SYSCTLS}\":\"{setting}\"}}."
        ));
        moved.push((name.clone(), setting));
    }
    if moved.is_empty() {
        return Ok(warnings);
    }
    if let Some(sysctls) = &mut host.sysctls {
        sysctls.retain(|name, _| moved.iter().all(|(known, _)| known != name));
    }
    let networking = body.networking_config.get_or_insert_default();
    let endpoints = networking.endpoints_config.get_or_insert_default();
    let is_default = |name: &str| matches!(name, "" | "default" | "bridge");
    let of_mode = endpoints
        .keys()
        .find(|name| **name == mode || is_default(name) && is_default(&mode))
        .cloned();
    let key = of_mode.unwrap_or(if is_default(&mode) {
        "bridge".to_owned()
    } else {
        mode
    });
    let endpoint = endpoints.entry(key).or_default().get_or_insert_default();
    let options = endpoint.driver_opts.get_or_insert_default();
    let before = options.remove(SYSCTLS).filter(|text| !text.is_empty());
    let settings = before
        .into_iter()
        .chain(moved.into_iter().map(|(_, setting)| setting));
    options.insert(SYSCTLS.to_owned(), settings.collect::<Vec<_>>().join(","));
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(host: &str, minor: u8) -> Result<(wire::ContainerCreateRequest, Vec<String>), String> {
        let text = format!(r#"{{"Image":"i","HostConfig":{host}}}"#);
        let mut body = serde_json::from_str(&text).unwrap();
        let warnings = move_sysctls(&mut body, ApiVersion::minor(minor));
        warnings
            .map(|warnings| (body, warnings))
            .map_err(|error| error.message)
    }

    #[test]
    fn settings_of_an_interface_go_to_its_endpoint() {
        let eth0 =
            r#"{"Sysctls":{"net.ipv4.conf.eth0.log_martians":"1","net.ipv4.ip_forward":"1"}}"#;
        let (body, warnings) = moved(eth0, 47).unwrap();
        assert_eq!(
            warnings,
            [
                "Migrated sysctl \"net.ipv4.conf.eth0.log_martians\" to DriverOpts{\"com.docker.network.endpoint.sysctls\":\"net.ipv4.conf.IFNAME.log_martians=1\"}."
            ]
        );
        assert_eq!(body.host_config.unwrap().sysctls.unwrap().len(), 1);
        let endpoints = body.networking_config.unwrap().endpoints_config.unwrap();
        let options = endpoints["bridge"].clone().unwrap().driver_opts.unwrap();
        assert_eq!(options[SYSCTLS], "net.ipv4.conf.IFNAME.log_martians=1");
        assert!(moved(eth0, 48).unwrap_err().starts_with(
            "interface specific sysctl setting \"net.ipv4.conf.eth0.log_martians\" must be supplied"
        ));
        let eth1 = eth0.replace("eth0", "eth1");
        assert!(moved(&eth1, 47).unwrap_err().starts_with(
            "unable to determine network endpoint for sysctl net.ipv4.conf.eth1.log_martians, "
        ));
        let of_host = eth0.replace("{\"Sysctls", "{\"NetworkMode\":\"host\",\"Sysctls");
        assert_eq!(moved(&of_host, 48).unwrap().1.len(), 0);
    }

    #[test]
    fn older_clients_know_of_no_priority() {
        let wished = EndpointSettings {
            gw_priority: 7,
            ..EndpointSettings::default()
        };
        assert_eq!(
            settings(wished.clone(), ApiVersion::minor(47)).gw_priority,
            0
        );
        assert_eq!(settings(wished, ApiVersion::minor(48)).gw_priority, 7);
    }
}
