//! A network's options as the stack's configuration: which keys there are and what their values may be. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use gantry_network::{
    BadBridgeName, BridgeConfig, GatewayMode, Ipv6Config, MacvlanConfig, MacvlanKind,
    check_bridge_name,
};
use ipnet::IpNet;

use super::record::{Ipam, NetworkRecord};
use crate::{Error, Result};

pub(super) const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
pub(super) const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";
const MTU: &str = "com.docker.network.driver.mtu";
const PREFIX: &str = "com.docker.network.container_iface_prefix";
const OBEY_HOST_FIREWALL: &str = "com.gantry.bridge.obey_host_firewall";

/// The options of a network, each read under its key.
struct Options<'a>(&'a BTreeMap<String, String>);

impl Options<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        flag(self.0, key).map(|value| value.unwrap_or(default))
    }

    /// Reads an address, which nothing stands for none.
    fn address<A: FromStr>(&self, key: &str) -> Result<Option<A>> {
        match self.text(key) {
            None | Some("") => Ok(None),
            Some(text) => match text.parse() {
                Ok(address) => Ok(Some(address)),
                Err(_) => Err(unreadable(key, text, "nil ip")),
            },
        }
    }

    fn mtu(&self) -> Result<Option<u32>> {
        let Some(text) = self.text(MTU) else {
            return Ok(None);
        };
        let number: i64 = text.parse().map_err(|_| {
            let why = format!("strconv.Atoi: parsing {text:?}: invalid syntax");
            unreadable(MTU, text, &why)
        })?;
        match u32::try_from(number) {
            Ok(0) => Ok(None),
            Ok(mtu @ 68..=65_535) => Ok(Some(mtu)),
            Ok(_) => Err(Error::system("invalid argument")),
            Err(_) if number < 0 => Err(Error::invalid(format!("invalid MTU number: {number}"))),
            Err(_) => Err(Error::system("invalid argument")),
        }
    }

    fn gateway_mode(&self, key: &str, internal: bool) -> Result<GatewayMode> {
        let text = self.text(key).unwrap_or_default();
        let mode = text
            .parse()
            .map_err(|why: String| unreadable(key, text, &why))?;
        if mode == GatewayMode::Isolated && !internal {
            return Err(Error::system(
                "gateway mode 'isolated' can only be used for an internal network",
            ));
        }
        Ok(mode)
    }
}

/// Reads a true or false of a network's options.
pub(super) fn flag(options: &BTreeMap<String, String>, key: &str) -> Result<Option<bool>> {
    let Some(text) = options.get(key) else {
        return Ok(None);
    };
    crate::flag(text).map(Some).ok_or_else(|| {
        let why = format!("strconv.ParseBool: parsing {text:?}: invalid syntax");
        unreadable(key, text, &why)
    })
}

fn unreadable(key: &str, value: &str, why: &str) -> Error {
    Error::invalid(format!("failed to parse {key} value: {value} ({why})"))
}

/// The addresses of a network, by family.
#[derive(Default)]
struct Addressing {
    ipv4: Family<ipnet::Ipv4Net, Ipv4Addr>,
    ipv6: Family<ipnet::Ipv6Net, Ipv6Addr>,
    aux: Vec<IpAddr>,
}

/// One family's addresses as asked for.
struct Family<N, A> {
    subnet: Option<N>,
    ip_range: Option<N>,
    gateway: Option<A>,
}

impl<N, A> Default for Family<N, A> {
    fn default() -> Self {
        Self {
            subnet: None,
            ip_range: None,
            gateway: None,
        }
    }
}

/// Reads what [`super::ipam::check`] has found to be in order.
fn addressing(ipam: &Ipam, driver: &str) -> Result<Addressing> {
    let mut all = Addressing::default();
    let subnets: Vec<IpNet> = ipam
        .configs
        .iter()
        .filter_map(|config| config.subnet.parse().ok())
        .collect();
    for (index, one) in subnets.iter().enumerate() {
        if subnets[..index].iter().any(|other| overlap(one, other)) {
            return Err(Error::new(
                gantry_api::error::ErrorKind::Forbidden,
                "invalid pool request: Pool overlaps with other one on this address space",
            ));
        }
    }
    for config in &ipam.configs {
        match config.subnet.parse::<IpNet>() {
            Ok(IpNet::V4(subnet)) => {
                one_only(all.ipv4.subnet.is_none(), driver)?;
                all.ipv4 = Family {
                    subnet: Some(subnet),
                    ip_range: config.ip_range.parse().ok(),
                    gateway: config.gateway.parse().ok(),
                };
            }
            Ok(IpNet::V6(subnet)) => {
                one_only(all.ipv6.subnet.is_none(), driver)?;
                all.ipv6 = Family {
                    subnet: Some(subnet),
                    ip_range: config.ip_range.parse().ok(),
                    gateway: config.gateway.parse().ok(),
                };
            }
            Err(_) => {}
        }
        let aux = config.aux_addresses.values();
        all.aux
            .extend(aux.filter_map(|text| text.parse::<IpAddr>().ok()));
    }
    Ok(all)
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

fn one_only(first: bool, driver: &str) -> Result<()> {
    if first {
        return Ok(());
    }
    Err(Error::new(
        gantry_api::error::ErrorKind::Forbidden,
        format!("{driver} driver doesn't support multiple subnets"),
    ))
}

fn ipv6(record: &NetworkRecord, addressing: &Addressing) -> Option<Ipv6Config> {
    record.enable_ipv6.then_some(Ipv6Config {
        subnet: addressing.ipv6.subnet,
        gateway: addressing.ipv6.gateway,
        ip_range: addressing.ipv6.ip_range,
    })
}

/// Works out a bridge network.
///
/// # Errors
/// Docker's text for a value that cannot be.
pub(super) fn bridge(record: &NetworkRecord) -> Result<BridgeConfig> {
    let options = Options(&record.options);
    let key = |name: &str| format!("com.docker.network.bridge.{name}");
    let addressing = addressing(&record.ipam, "bridge")?;
    let interface = match options.text(&key("name")) {
        None | Some("") => format!("br-{}", &record.id[..12]),
        Some(name) => match check_bridge_name(name) {
            Ok(()) => name.to_owned(),
            Err(BadBridgeName::TooLong) => {
                return Err(Error::system("numerical result out of range"));
            }
            Err(BadBridgeName::Unusable) => return Err(Error::system("invalid argument")),
        },
    };
    let trusted = options.text(&key("trusted_host_interfaces"));
    Ok(BridgeConfig {
        ipv4: record.enable_ipv4,
        subnet: addressing.ipv4.subnet,
        gateway: addressing.ipv4.gateway,
        ip_range: addressing.ipv4.ip_range,
        ipv6: ipv6(record, &addressing),
        aux_addresses: addressing.aux,
        mtu: options.mtu()?,
        icc: options.flag(&key("enable_icc"), true)?,
        ip_masquerade: options.flag(&key("enable_ip_masquerade"), true)?,
        gateway_mode_ipv4: options.gateway_mode(&key("gateway_mode_ipv4"), record.internal)?,
        gateway_mode_ipv6: options.gateway_mode(&key("gateway_mode_ipv6"), record.internal)?,
        inhibit_ipv4: options.flag(&key("inhibit_ipv4"), false)?,
        host_ipv4: options.address("com.docker.network.host_ipv4")?,
        host_ipv6: options.address("com.docker.network.host_ipv6")?,
        trusted_host_interfaces: trusted
            .unwrap_or_default()
            .split(':')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
        obey_host_firewall: options.flag(OBEY_HOST_FIREWALL, false)?,
        internal: record.internal,
        host_binding: options.address(&key("host_binding_ipv4"))?,
        container_interface_prefix: options.text(PREFIX).map(str::to_owned),
        ..BridgeConfig::new(&record.id, &record.name, interface)
    })
}

/// Works out a macvlan or ipvlan network.
///
/// # Errors
/// Docker's text for a value that cannot be.
pub(super) fn macvlan(record: &NetworkRecord) -> Result<MacvlanConfig> {
    let options = Options(&record.options);
    let addressing = addressing(&record.ipam, &record.driver)?;
    let kind = if record.driver == "ipvlan" {
        let mode = word(&options, "ipvlan_mode")?;
        MacvlanKind::Ipvlan(mode, word(&options, "ipvlan_flag")?)
    } else {
        MacvlanKind::Macvlan(word(&options, "macvlan_mode")?)
    };
    let parent = options.text("parent").filter(|parent| !parent.is_empty());
    Ok(MacvlanConfig {
        ipv4: record.enable_ipv4,
        subnet: addressing.ipv4.subnet,
        gateway: addressing.ipv4.gateway,
        ip_range: addressing.ipv4.ip_range,
        ipv6: ipv6(record, &addressing),
        aux_addresses: addressing.aux,
        mtu: options.mtu()?,
        internal: record.internal,
        container_interface_prefix: options.text(PREFIX).map(str::to_owned),
        ..MacvlanConfig::new(&record.id, &record.name, parent.map(str::to_owned), kind)
    })
}

fn word<W: FromStr<Err = String>>(options: &Options<'_>, key: &str) -> Result<W> {
    let text = options.text(key).unwrap_or_default();
    text.parse().map_err(Error::system)
}

#[cfg(test)]
mod tests {
    use super::super::record::IpamConfig;
    use super::*;

    fn record(driver: &str, options: &[(&str, &str)], subnets: &[&str]) -> NetworkRecord {
        let one = |subnet: &&str| IpamConfig {
            subnet: (*subnet).to_owned(),
            ..IpamConfig::default()
        };
        NetworkRecord {
            id: "0123456789abcdef".to_owned(),
            name: "web".to_owned(),
            driver: driver.to_owned(),
            enable_ipv4: true,
            enable_ipv6: true,
            ipam: Ipam {
                configs: subnets.iter().map(one).collect(),
                ..Ipam::default()
            },
            options: options
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..NetworkRecord::default()
        }
    }

    #[test]
    fn options_become_a_bridge() {
        let plain = bridge(&record("bridge", &[], &["fd00:1::/64", "10.1.0.0/24"])).unwrap();
        assert_eq!(plain.interface, "br-0123456789ab");
        assert_eq!(plain.subnet, Some("10.1.0.0/24".parse().unwrap()));
        assert_eq!(
            plain.ipv6.unwrap().subnet,
            Some("fd00:1::/64".parse().unwrap())
        );
        assert!(plain.icc && plain.ip_masquerade && plain.mtu.is_none());
        let all = bridge(&record(
            "bridge",
            &[
                ("com.docker.network.bridge.name", "br-web"),
                ("com.docker.network.bridge.enable_icc", "false"),
                ("com.docker.network.bridge.enable_ip_masquerade", "0"),
                ("com.docker.network.bridge.host_binding_ipv4", "127.0.0.1"),
                ("com.docker.network.bridge.gateway_mode_ipv6", "routed"),
                ("com.docker.network.bridge.inhibit_ipv4", "true"),
                (
                    "com.docker.network.bridge.trusted_host_interfaces",
                    "eth0:eth1",
                ),
                ("com.docker.network.driver.mtu", "1400"),
                ("com.docker.network.host_ipv4", "192.0.2.1"),
                ("com.docker.network.container_iface_prefix", "net"),
                ("com.gantry.bridge.obey_host_firewall", "true"),
                ("unknown", "kept"),
            ],
            &[],
        ))
        .unwrap();
        assert_eq!(
            (all.interface.as_str(), all.icc, all.ip_masquerade, all.mtu),
            ("br-web", false, false, Some(1400))
        );
        assert_eq!(all.host_binding, Some("127.0.0.1".parse().unwrap()));
        assert_eq!(all.gateway_mode_ipv6, GatewayMode::Routed);
        assert_eq!(all.trusted_host_interfaces, ["eth0", "eth1"]);
        assert_eq!(all.container_interface_prefix.as_deref(), Some("net"));
        assert!(all.inhibit_ipv4 && all.obey_host_firewall && all.host_ipv4.is_some());
    }

    #[test]
    fn what_cannot_be_is_told_in_dockers_words() {
        for (driver, key, value, text) in [
            (
                "bridge",
                "com.docker.network.bridge.enable_icc",
                "maybe",
                "failed to parse com.docker.network.bridge.enable_icc value: maybe (strconv.ParseBool: parsing \"maybe\": \
                 invalid syntax)",
            ),
            (
                "bridge",
                "com.docker.network.driver.mtu",
                "x",
                "failed to parse com.docker.network.driver.mtu value: x (strconv.Atoi: parsing \"x\": invalid syntax)",
            ),
            (
                "bridge",
                "com.docker.network.driver.mtu",
                "-1",
                "invalid MTU number: -1",
            ),
            (
                "bridge",
                "com.docker.network.bridge.host_binding_ipv4",
                "x",
                "failed to parse com.docker.network.bridge.host_binding_ipv4 value: x (nil ip)",
            ),
            (
                "bridge",
                "com.docker.network.bridge.name",
                "sixteen-bytes-xx",
                "numerical result out of range",
            ),
            (
                "bridge",
                "com.docker.network.bridge.name",
                "a:b",
                "invalid argument",
            ),
            (
                "bridge",
                "com.docker.network.bridge.name",
                "a%d",
                "invalid argument",
            ),
            (
                "bridge",
                "com.docker.network.driver.mtu",
                "67",
                "invalid argument",
            ),
            (
                "bridge",
                "com.docker.network.driver.mtu",
                "65536",
                "invalid argument",
            ),
            (
                "bridge",
                "com.docker.network.bridge.gateway_mode_ipv4",
                "x",
                "failed to parse com.docker.network.bridge.gateway_mode_ipv4 value: x (unknown gateway mode x)",
            ),
            (
                "bridge",
                "com.docker.network.bridge.gateway_mode_ipv4",
                "isolated",
                "gateway mode 'isolated' can only be used for an internal network",
            ),
            (
                "macvlan",
                "macvlan_mode",
                "weird",
                "requested macvlan mode 'weird' is not valid, 'bridge' mode is the macvlan driver default",
            ),
            (
                "ipvlan",
                "ipvlan_flag",
                "x",
                "requested ipvlan flag 'x' is not valid, 'bridge' is the ipvlan driver default",
            ),
        ] {
            let record = record(driver, &[(key, value)], &[]);
            let told = match driver {
                "bridge" => bridge(&record).map(drop),
                _ => macvlan(&record).map(drop),
            };
            assert_eq!(told.unwrap_err().to_string(), text, "{key}={value}");
        }
        let two = record("bridge", &[], &["10.1.0.0/24", "10.2.0.0/24"]);
        assert_eq!(
            bridge(&two).unwrap_err().to_string(),
            "bridge driver doesn't support multiple subnets"
        );
    }
}
