//! From Docker's port wishes to the network's mappings. Pure.

use std::collections::HashMap;
use std::net::IpAddr;

use gantry_api::port::Protocol;
use gantry_network::{PortMapping, PortRange, PublishedPort};

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

/// Asks for the numbers that are held already where the wish leaves the number open.
pub(crate) fn keeping(mappings: &[PortMapping], held: &[PublishedPort]) -> Vec<PortMapping> {
    let fits = |mapping: &PortMapping, port: &PublishedPort| {
        let within = |range: PortRange| (range.first..=range.last).contains(&port.host_port);
        port.container_port == mapping.container_port
            && port.protocol == mapping.protocol
            && mapping.ip.is_none_or(|ip| ip == port.ip)
            && mapping.host_port.is_none_or(within)
    };
    // Those asked for by number belong to who asks for them, and a port without a number is none of the host's.
    let mut open: Vec<&PublishedPort> = held
        .iter()
        .filter(|port| port.host_port != 0)
        .filter(|port| {
            let mut numbered = mappings.iter().filter(|one| one.single_port().is_some());
            !numbered.any(|one| fits(one, port))
        })
        .collect();
    let mut kept = mappings.to_vec();
    for mapping in kept.iter_mut().filter(|one| one.single_port().is_none()) {
        let Some(found) = open.iter().find(|port| fits(mapping, port)) else {
            continue;
        };
        let number = found.host_port;
        // The addresses of one mapping share its number.
        open.retain(|port| port.host_port != number || !fits(mapping, port));
        mapping.host_port = Some(PortRange::single(number));
    }
    kept
}

/// Tells whether one container's port is to have the same port of the host twice. Docker takes such a port once and
/// fails to listen at it a second time, where other ports of the container are told that it is allocated.
pub(crate) fn listens_twice(mappings: &[PortMapping]) -> bool {
    let any = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
    let meet = |one: Option<IpAddr>, other: Option<IpAddr>| match (one, other) {
        (Some(one), Some(other)) if one.is_ipv4() != other.is_ipv4() => false,
        _ => one == other || any(one) || any(other),
    };
    // There may be tens of thousands, and few for any one port.
    let mut asked: HashMap<(u16, u16), Vec<Option<IpAddr>>> = HashMap::new();
    let tcp = mappings.iter().filter(|one| one.protocol == Protocol::Tcp);
    for one in tcp {
        let Some(port) = one.single_port() else {
            continue;
        };
        let others = asked.entry((one.container_port, port)).or_default();
        if others.iter().any(|&other| meet(one.ip, other)) {
            return true;
        }
        others.push(one.ip);
    }
    false
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
    fn the_same_port_twice_is_seen() {
        let one = |port: u16, ip: &str, host_port: u16, protocol| PortMapping {
            ip: ip.parse().ok(),
            host_port: Some(PortRange::single(host_port)),
            container_port: port,
            protocol,
        };
        let tcp = |ip: &str| one(80, ip, 8080, Protocol::Tcp);
        for (ip, other, twice) in [
            ("", "", true),
            ("", "127.0.0.1", true),
            ("", "::1", true),
            ("0.0.0.0", "127.0.0.1", true),
            ("0.0.0.0", "::1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("127.0.0.1", "::1", false),
        ] {
            for pair in [[tcp(ip), tcp(other)], [tcp(other), tcp(ip)]] {
                assert_eq!(listens_twice(&pair), twice, "{ip} {other}");
            }
        }
        for other in [
            one(81, "", 8080, Protocol::Tcp),
            one(80, "", 8081, Protocol::Tcp),
            one(80, "", 8080, Protocol::Udp),
        ] {
            assert!(!listens_twice(&[tcp(""), other]));
        }
        let open = PortMapping {
            host_port: None,
            ..tcp("")
        };
        assert!(!listens_twice(&[open, open]));
    }

    #[test]
    fn every_port_at_once_is_looked_through_in_no_time() {
        let all: Vec<PortMapping> = (1..=u16::MAX)
            .map(|port| PortMapping {
                ip: None,
                host_port: Some(PortRange::single(port)),
                container_port: port,
                protocol: Protocol::Tcp,
            })
            .collect();
        let start = std::time::Instant::now();
        assert!(!listens_twice(&all));
        // Each one compared with each other, it would be two thousand million comparisons.
        assert!(start.elapsed() < std::time::Duration::from_secs(2));
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

    #[test]
    fn numbers_that_are_held_are_asked_for_again_where_any_would_do() {
        let config = Config::default();
        let mut host = host("80", "", "");
        let bindings = [("", "8080"), ("", ""), ("", "9000-9009"), ("::1", "")];
        host.port_bindings = [(
            "80".parse().unwrap(),
            bindings
                .map(|(ip, port)| PortBinding {
                    host_ip: ip.into(),
                    host_port: port.into(),
                })
                .into(),
        )]
        .into();
        let held = |ip: &str, host_port: u16| PublishedPort {
            ip: ip.parse().unwrap(),
            host_port,
            container_port: 80,
            protocol: "80".parse::<PortSpec>().unwrap().protocol,
        };
        let wishes = plan(&config, &host).unwrap();
        let numbers = |held: &[PublishedPort]| {
            let kept = keeping(&wishes, held);
            kept.iter()
                .map(|one| one.host_port.map(|range| (range.first, range.last)))
                .collect::<Vec<_>>()
        };
        let (fixed, any) = (Some((8080, 8080)), Some((9000, 9009)));
        assert_eq!(
            numbers(&[
                held("0.0.0.0", 8080),
                held("0.0.0.0", 32_768),
                held("::", 32_768),
                held("0.0.0.0", 9_001),
                held("::1", 32_769),
            ]),
            [
                fixed,
                Some((32_768, 32_768)),
                Some((9_001, 9_001)),
                Some((32_769, 32_769))
            ]
        );
        // Where the container was reached by its own address there was no number.
        assert_eq!(numbers(&[held("0.0.0.0", 0)]), [fixed, None, any, None]);
    }
}
