//! What a user asks of a container's place on one network, and what can be wrong with it. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::record::NetworkRecord;
use crate::{Error, Result};

/// A container's wishes on one network, as they were given: `None` and an empty list are told apart, since `inspect`
/// shows them so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSettings {
    pub ipam: Option<EndpointIpam>,
    /// `container[:alias]`: names that this container alone knows.
    pub links: Option<Vec<String>>,
    pub aliases: Option<Vec<String>>,
    /// The hardware address; empty for a random one.
    pub mac: String,
    pub driver_opts: Option<BTreeMap<String, String>>,
    pub gw_priority: i64,
    /// The network's id, once the container has run on it.
    pub network_id: String,
    /// The network was looked up, so it is known whether there are names to show.
    pub known: bool,
}

/// Addresses that a user asks for, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointIpam {
    pub ipv4: String,
    pub ipv6: String,
    pub link_local: Option<Vec<String>>,
}

/// Name of the interface in the container.
const IFNAME: &str = "com.docker.network.endpoint.ifname";
/// Kernel settings of the interface, separated by commas.
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

impl EndpointSettings {
    /// Returns the aliases, none if there are none.
    pub fn aliases(&self) -> &[String] {
        self.aliases.as_deref().unwrap_or_default()
    }

    /// Returns the IPv4 address that is asked for.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.ipam.as_ref()?.ipv4.parse().ok()
    }

    /// Returns the IPv6 address that is asked for.
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        self.ipam.as_ref()?.ipv6.parse().ok()
    }

    /// Returns the link-local addresses that are asked for.
    pub fn link_local(&self) -> Vec<IpAddr> {
        let list = self.ipam.as_ref().and_then(|ipam| ipam.link_local.as_ref());
        list.into_iter()
            .flatten()
            .filter_map(|text| text.parse().ok())
            .collect()
    }

    /// Returns the name of the interface that is asked for.
    pub fn interface(&self) -> Option<&str> {
        self.driver_opts
            .as_ref()?
            .get(IFNAME)
            .map(String::as_str)
            .filter(|name| !name.is_empty())
    }

    /// Returns the kernel settings of the interface, in which `IFNAME` stands for its name.
    ///
    /// # Errors
    /// Docker's text for one without a value or of another interface.
    pub fn sysctls(&self) -> Result<Vec<(String, String)>> {
        let options = self.driver_opts.as_ref();
        let Some(text) = options.and_then(|options| options.get(SYSCTLS)) else {
            return Ok(Vec::new());
        };
        text.split(',').map(one_sysctl).collect()
    }

    /// Splits `container[:alias]` of each link into the alias and what it stands for.
    pub fn links(&self) -> impl Iterator<Item = (&str, &str)> {
        self.links.iter().flatten().map(|text| {
            let (name, alias) = text.split_once(':').unwrap_or((text, text));
            (alias, name.trim_start_matches('/'))
        })
    }
}

/// Reads `net.ipv4.conf.IFNAME.log_martians=1`.
fn one_sysctl(text: &str) -> Result<(String, String)> {
    let text = text.trim();
    let Some((name, value)) = text.split_once('=') else {
        return Err(unknown_sysctl(text));
    };
    let words: Vec<&str> = name.splitn(5, '.').collect();
    match words.as_slice() {
        // Docker's client writes it small in the long form of `--network`.
        ["net", family @ ("ipv4" | "ipv6" | "mpls"), kind, word, rest]
            if word.eq_ignore_ascii_case("IFNAME") =>
        {
            Ok((
                format!("net.{family}.{kind}.IFNAME.{rest}"),
                value.to_owned(),
            ))
        }
        _ => Err(unknown_sysctl(text)),
    }
}

fn unknown_sysctl(text: &str) -> Error {
    Error::invalid(format!(
        "unrecognised network interface sysctl '{text}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must \
         be 'ipv4', 'ipv6' or 'mpls'"
    ))
}

/// Lists what is wrong with wishes on a network, in Docker's words and order. `network` is `None` for one that is not
/// there yet: then only texts can be wrong.
pub(crate) fn faults(settings: &EndpointSettings, network: Option<&NetworkRecord>) -> Vec<String> {
    let mut faults = Vec::new();
    let ipam = settings.ipam.clone().unwrap_or_default();
    let given = !ipam.ipv4.is_empty() || !ipam.ipv6.is_empty();
    let user_defined = network.is_none_or(NetworkRecord::is_user_defined);
    if given && !user_defined {
        faults.push("user specified IP address is supported on user defined networks only".into());
    }
    if !settings.aliases().is_empty() && !user_defined {
        faults.push(
            "network-scoped alias is supported only for containers in user defined networks".into(),
        );
    }
    let ipv4 = |text: &str| {
        text.parse::<Ipv4Addr>()
            .ok()
            .filter(|ip| !ip.is_unspecified())
    };
    let ipv6 = |text: &str| {
        let address = text.parse::<Ipv6Addr>().ok()?;
        (!address.is_unspecified() && address.to_ipv4_mapped().is_none()).then_some(address)
    };
    if !ipam.ipv4.is_empty() && ipv4(&ipam.ipv4).is_none() {
        faults.push(format!("invalid IPv4 address: {}", ipam.ipv4));
    }
    if !ipam.ipv6.is_empty() && ipv6(&ipam.ipv6).is_none() {
        faults.push(format!("invalid IPv6 address: {}", ipam.ipv6));
    }
    for address in ipam.link_local.iter().flatten() {
        let parsed = address.parse::<IpAddr>();
        if parsed.map_or(true, |address| address.is_unspecified()) {
            faults.push(format!("invalid link-local IP address: {address}"));
        }
    }
    if let Some(network) = network {
        for (address, family) in [(&ipam.ipv4, Family::V4), (&ipam.ipv6, Family::V6)] {
            if !address.is_empty() {
                faults.extend(outside(address, network, family));
            }
        }
    }
    if let Err(error) = settings.sysctls() {
        faults.push(error.to_string());
    }
    faults
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// Says why an address cannot be had on a network.
fn outside(address: &str, network: &NetworkRecord, family: Family) -> Option<String> {
    let ranges: Vec<IpNet> = network
        .shown_ipam()
        .configs
        .iter()
        .filter_map(|config| config.subnet.parse::<IpNet>().ok())
        .filter(|subnet| matches!(subnet, IpNet::V4(_)) == (family == Family::V4))
        .collect();
    let configured = network.is_user_defined()
        && network.ipam.configs.iter().any(|config| {
            config
                .subnet
                .parse::<IpNet>()
                .is_ok_and(|subnet| matches!(subnet, IpNet::V4(_)) == (family == Family::V4))
        });
    // The daemon's own network has the daemon's subnet.
    let of_daemon = !network.is_user_defined() && !ranges.is_empty();
    if !configured && !of_daemon {
        return Some(
            "user specified IP address is supported only when connecting to networks with user configured subnets"
                .into(),
        );
    }
    let inside = address
        .parse::<IpAddr>()
        .is_ok_and(|address| ranges.iter().any(|range| range.contains(&address)));
    (!inside).then(|| format!("no configured subnet or ip-range contain the IP address {address}"))
}

/// Joins faults as Docker does: one alone, several as a list.
pub(crate) fn joined(faults: &[String]) -> String {
    match faults {
        [only] => only.clone(),
        all => format!("* {}", all.join("\n* ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Ipam, IpamConfig};
    use super::*;

    fn network(name: &str, subnets: &[&str]) -> NetworkRecord {
        let one = |subnet: &&str| IpamConfig {
            subnet: (*subnet).to_owned(),
            ..IpamConfig::default()
        };
        NetworkRecord {
            name: name.to_owned(),
            ipam: Ipam {
                configs: subnets.iter().map(one).collect(),
                ..Ipam::default()
            },
            ..NetworkRecord::default()
        }
    }

    fn wishes(ipv4: &str, ipv6: &str, aliases: &[&str]) -> EndpointSettings {
        EndpointSettings {
            ipam: Some(EndpointIpam {
                ipv4: ipv4.to_owned(),
                ipv6: ipv6.to_owned(),
                link_local: None,
            }),
            aliases: Some(aliases.iter().map(|alias| (*alias).to_owned()).collect()),
            ..EndpointSettings::default()
        }
    }

    #[test]
    fn every_fault_is_told_in_dockers_words() {
        let bridge = network("bridge", &["172.17.0.0/16"]);
        let web = network("web", &["10.1.0.0/24"]);
        let auto = network("auto", &[]);
        let told = |wishes: &EndpointSettings, network| joined(&faults(wishes, Some(network)));
        assert_eq!(
            told(&wishes("10.231.1.44", "", &["zz"]), &bridge),
            "* user specified IP address is supported on user defined networks only\n\
             * network-scoped alias is supported only for containers in user defined networks\n\
             * no configured subnet or ip-range contain the IP address 10.231.1.44"
        );
        assert_eq!(
            told(&wishes("172.17.0.77", "", &[]), &bridge),
            "user specified IP address is supported on user defined networks only"
        );
        assert_eq!(
            told(&wishes("10.1.0.300", "", &["zz"]), &web),
            "* invalid IPv4 address: 10.1.0.300\n\
             * no configured subnet or ip-range contain the IP address 10.1.0.300"
        );
        let unconfigured = "user specified IP address is supported only when connecting to networks with user configured subnets";
        assert_eq!(told(&wishes("10.1.0.3", "", &[]), &auto), unconfigured);
        assert_eq!(told(&wishes("", "fd00::3", &[]), &web), unconfigured);
        assert!(faults(&wishes("10.1.0.3", "", &["db"]), Some(&web)).is_empty());
        // Of a network that is not there yet only the texts can be wrong.
        assert!(faults(&wishes("10.1.0.3", "fd00::3", &["db"]), None).is_empty());
        assert_eq!(
            joined(&faults(&wishes("x", "", &[]), None)),
            "invalid IPv4 address: x"
        );
    }

    #[test]
    fn kernel_settings_are_of_the_interface() {
        let settings = |text: &str| EndpointSettings {
            driver_opts: Some([(SYSCTLS.to_owned(), text.to_owned())].into()),
            ..EndpointSettings::default()
        };
        assert_eq!(
            settings("net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.forwarding=0")
                .sysctls()
                .unwrap(),
            [
                ("net.ipv4.conf.IFNAME.log_martians", "1"),
                ("net.ipv6.conf.IFNAME.forwarding", "0")
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        for bad in [
            "bogus",
            "net.ipv4.conf.eth0.log_martians=1",
            "kernel.x.y.IFNAME.z=1",
        ] {
            assert!(settings(bad).sysctls().is_err(), "{bad}");
        }
        assert!(EndpointSettings::default().sysctls().unwrap().is_empty());
    }
}
