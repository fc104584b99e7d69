//! From Docker's port wishes to the network's mappings. Pure.

use std::net::IpAddr;

use gantry_network::{PortMapping, PortRange};

use super::config::{Config, HostConfig, PortBinding, PortSpec};
use crate::{Error, Result};

/// Plans the mappings of a container on a bridge.
pub(crate) fn plan(config: &Config, host: &HostConfig) -> Result<Vec<PortMapping>> {
    let mut mappings = Vec::new();
    for (spec, bindings) in &host.port_bindings {
        // A binding list that is empty or null asks for any port.
        let any = [PortBinding::default()];
        let bindings = if bindings.is_empty() {
            &any[..]
        } else {
            bindings
        };
        for binding in bindings {
            mappings.push(mapping(spec, binding)?);
        }
    }
    if host.publish_all_ports {
        for spec in &config.exposed_ports {
            if !host.port_bindings.contains_key(spec) {
                mappings.push(mapping(spec, &PortBinding::default())?);
            }
        }
    }
    Ok(mappings)
}

fn mapping(spec: &PortSpec, binding: &PortBinding) -> Result<PortMapping> {
    let ip = match binding.host_ip.as_str() {
        "" => None,
        text => Some(
            text.trim_matches(['[', ']'])
                .parse::<IpAddr>()
                .map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?,
        ),
    };
    let invalid = || {
        Error::invalid(format!(
            "invalid port specification: \"{}\"",
            binding.host_port
        ))
    };
    let host_port = match binding.host_port.as_str() {
        "" | "0" => None,
        text => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (
                first.parse().map_err(|_| invalid())?,
                last.parse().map_err(|_| invalid())?,
            );
            if first == 0 || first > last {
                return Err(invalid());
            }
            Some(PortRange { first, last })
        }
    };
    Ok(PortMapping {
        ip,
        host_port,
        container_port: spec.port,
        protocol: spec.protocol,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(port: &str, ip: &str, host_port: &str) -> HostConfig {
        let binding = PortBinding {
            host_ip: ip.into(),
            host_port: host_port.into(),
        };
        HostConfig {
            port_bindings: [(port.parse().unwrap(), vec![binding])].into(),
            ..HostConfig::default()
        }
    }

    #[test]
    fn wishes_become_mappings() {
        let one = plan(&Config::default(), &host("80", "::1", "8000-8010")).unwrap();
        assert_eq!(one[0].ip, Some("::1".parse().unwrap()));
        assert_eq!(
            one[0].host_port,
            Some(PortRange {
                first: 8000,
                last: 8010
            })
        );
        assert_eq!(
            plan(&Config::default(), &host("53/udp", "", "")).unwrap()[0].host_port,
            None
        );
        for (ip, port) in [("300.1.1.1", "80"), ("", "x"), ("", "9-8"), ("", "99999")] {
            assert!(
                plan(&Config::default(), &host("80", ip, port)).is_err(),
                "{ip} {port}"
            );
        }
    }

    #[test]
    fn publish_all_takes_what_is_exposed_and_not_yet_mapped() {
        let config = Config {
            exposed_ports: ["80/tcp", "81/tcp"]
                .map(|text| text.parse().unwrap())
                .into(),
            ..Config::default()
        };
        let host = HostConfig {
            publish_all_ports: true,
            ..host("80", "", "8080")
        };
        let ports: Vec<_> = plan(&config, &host)
            .unwrap()
            .iter()
            .map(|mapping| (mapping.container_port, mapping.host_port.is_some()))
            .collect();
        assert_eq!(ports, [(80, true), (81, false)]);
    }
}
