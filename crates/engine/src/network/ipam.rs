//! What can be wrong with the addresses that a user wants for a network, in Docker's words and order. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use gantry_api::error::ErrorKind;
use gantry_network::{default_gateway, is_of_the_subnet};
use ipnet::{IpNet, Ipv6Net};

use super::record::{Ipam, IpamConfig};
use super::settings::joined;
use crate::{Error, Result};

/// The addresses that every interface with IPv6 has one of.
const LINK_LOCAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64);

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// Checks the ranges of a network.
///
/// # Errors
/// All that is wrong, in one text.
pub(super) fn check(ipam: &Ipam) -> Result<()> {
    let faults: Vec<String> = ipam.configs.iter().flat_map(faults).collect();
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "invalid network config:\n{}",
        joined(&faults)
    )))
}

/// Checks that each address that is wanted can be had, IPv4 first, and that no two want the same. To be asked after
/// [`check`]. `gateways` says of a family whether the network has one where none is named.
///
/// # Errors
/// Docker's text for the first that cannot be had.
pub(super) fn check_uses(ipam: &Ipam, gateways: impl Fn(Family) -> bool) -> Result<()> {
    let subnets = ipam.configs.iter().filter_map(|config| {
        let subnet = config.subnet.parse::<IpNet>().ok()?;
        Some((config, subnet))
    });
    let (ipv4, ipv6): (Vec<_>, Vec<_>) = subnets.partition(|(_, subnet)| subnet.addr().is_ipv4());
    for (config, subnet) in ipv4 {
        check_uses_of(config, subnet, gateways(Family::V4))?;
    }
    for (config, subnet) in ipv6 {
        if subnet.prefix_len() == 0 {
            return Err(Error::invalid("ipv6 pool is empty"));
        }
        if subnet.addr() != subnet.addr().to_canonical() {
            return Err(Error::new(
                ErrorKind::Forbidden,
                "invalid pool request: Pool overlaps with other one on this address space",
            ));
        }
        check_uses_of(config, subnet, gateways(Family::V6))?;
    }
    Ok(())
}

fn check_uses_of(config: &IpamConfig, subnet: IpNet, has_gateway: bool) -> Result<()> {
    let taken = |what: String| {
        Err(Error::system(format!(
            "failed to allocate {what}: Address already in use"
        )))
    };
    let mut used = BTreeSet::new();
    let gateway = gateway(config, subnet);
    if !config.gateway.is_empty() {
        if gateway.is_some_and(|gateway| is_of_the_subnet(gateway, subnet)) {
            return taken(format!("gateway ({})", config.gateway));
        }
        used.extend(gateway);
    } else if has_gateway {
        if gateway.is_none() {
            return Err(Error::system(
                "failed to allocate gateway (): no available addresses on this pool",
            ));
        }
        used.extend(gateway);
    }
    for (name, text) in &config.aux_addresses {
        let Ok(address) = text.parse::<IpAddr>() else {
            continue;
        };
        if is_of_the_subnet(address, subnet) || !used.insert(address) {
            return taken(format!("secondary ip address ({name}:{text})"));
        }
    }
    Ok(())
}

/// Checks that a bridge can have the gateways' IPv6 addresses. To be asked after [`check_uses`].
///
/// # Errors
/// Docker's text.
pub(super) fn check_bridge(ipam: &Ipam) -> Result<()> {
    for config in &ipam.configs {
        let Ok(IpNet::V6(subnet)) = config.subnet.parse::<IpNet>() else {
            continue;
        };
        let Some(gateway) = gateway(config, subnet.into()) else {
            continue;
        };
        let shown = format!("{gateway}/{}", subnet.prefix_len());
        if subnet.addr().is_multicast() {
            return Err(Error::invalid(format!(
                "multicast subnet '{shown}' is not allowed"
            )));
        }
        if subnet != LINK_LOCAL && (subnet.contains(&LINK_LOCAL) || LINK_LOCAL.contains(&subnet)) {
            return Err(Error::invalid(format!(
                "'{shown}' clashes with the Link-Local prefix '{LINK_LOCAL}'"
            )));
        }
        if gateway.is_loopback() {
            return Err(Error::system(format!(
                "failed to add IPv6 address {shown} to bridge: cannot assign requested address"
            )));
        }
    }
    Ok(())
}

/// Gives the gateway that is named, or else the one that the network will have.
fn gateway(config: &IpamConfig, subnet: IpNet) -> Option<IpAddr> {
    match config.gateway.as_str() {
        "" => default_gateway(subnet, config.ip_range.parse().ok()),
        text => text.parse().ok(),
    }
}

fn faults(config: &IpamConfig) -> Vec<String> {
    let Ok(subnet) = config.subnet.parse::<IpNet>() else {
        return vec![format!(
            "invalid subnet {}: invalid CIDR block notation",
            config.subnet
        )];
    };
    let mut faults = Vec::new();
    if subnet != subnet.trunc() {
        faults.push(format!(
            "invalid subnet {subnet}: it should be {}",
            subnet.trunc()
        ));
    }
    let family = if subnet.addr().is_ipv4() {
        "IPv4"
    } else {
        "IPv6"
    };
    if !config.ip_range.is_empty() {
        faults.extend(
            range_faults(&config.ip_range, subnet, family)
                .into_iter()
                .map(|fault| format!("invalid ip-range {}: {fault}", config.ip_range)),
        );
    }
    if !config.gateway.is_empty()
        && let Some(fault) = address_fault(&config.gateway, subnet, family)
    {
        faults.push(format!("invalid gateway {}: {fault}", config.gateway));
    }
    for (name, address) in &config.aux_addresses {
        if let Some(fault) = address_fault(address, subnet, family) {
            faults.push(format!("invalid auxiliary address {name}: {fault}"));
        }
    }
    faults
}

fn range_faults(text: &str, subnet: IpNet, family: &str) -> Vec<String> {
    let Ok(range) = text.parse::<IpNet>() else {
        return vec!["invalid CIDR block notation".to_owned()];
    };
    if range.addr().is_ipv4() != subnet.addr().is_ipv4() {
        return vec![format!("parent subnet is an {family} block")];
    }
    let mut faults = Vec::new();
    if range.prefix_len() < subnet.prefix_len() {
        faults.push(format!(
            "CIDR block is bigger than its parent subnet {subnet}"
        ));
    } else if !subnet.contains(&range.addr()) {
        faults.push(format!("parent subnet {subnet} doesn't contain ip-range"));
    }
    if range != range.trunc() {
        faults.push(format!("it should be {}", range.trunc()));
    }
    faults
}

fn address_fault(text: &str, subnet: IpNet, family: &str) -> Option<String> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return Some("invalid address".to_owned());
    };
    if address.is_ipv4() != subnet.addr().is_ipv4() {
        return Some(format!("parent subnet is an {family} block"));
    }
    (!subnet.contains(&address))
        .then(|| format!("parent subnet {subnet} doesn't contain this address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what is said of one range of a bridge.
    fn told(subnet: &str, ip_range: &str, gateway: &str, aux: &[&str]) -> String {
        let names = ["a", "b"].into_iter().map(str::to_owned);
        let config = IpamConfig {
            subnet: subnet.to_owned(),
            ip_range: ip_range.to_owned(),
            gateway: gateway.to_owned(),
            aux_addresses: names.zip(aux.iter().map(|&one| one.to_owned())).collect(),
        };
        let ipam = Ipam {
            configs: vec![config],
            ..Ipam::default()
        };
        check(&ipam)
            .and_then(|()| check_uses(&ipam, |_| true))
            .and_then(|()| check_bridge(&ipam))
            .map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn an_address_has_one_use() {
        // Asked of Docker 28.5.
        for (subnet, range, gateway, aux, text) in [
            ("10.1.0.0/24", "", "10.1.0.1", &["10.1.0.2"][..], ""),
            ("10.1.0.0/24", "", "10.1.0.0", &[], "gateway (10.1.0.0)"),
            ("10.1.0.0/24", "", "10.1.0.255", &[], "gateway (10.1.0.255)"),
            (
                "10.1.0.0/24",
                "",
                "10.1.0.7",
                &["10.1.0.7"],
                "secondary ip address (a:10.1.0.7)",
            ),
            (
                "10.1.0.0/24",
                "",
                "",
                &["10.1.0.1"],
                "secondary ip address (a:10.1.0.1)",
            ),
            (
                "10.1.0.0/24",
                "",
                "",
                &["10.1.0.5", "10.1.0.5"],
                "secondary ip address (b:10.1.0.5)",
            ),
            (
                "10.1.0.0/24",
                "",
                "",
                &["10.1.0.255"],
                "secondary ip address (a:10.1.0.255)",
            ),
            (
                "10.1.0.0/24",
                "10.1.0.16/28",
                "",
                &["10.1.0.16"],
                "secondary ip address (a:10.1.0.16)",
            ),
            ("10.1.0.0/24", "10.1.0.16/28", "", &["10.1.0.1"], ""),
            ("10.1.0.0/31", "", "10.1.0.0", &[], ""),
            ("10.1.0.0/31", "", "10.1.0.1", &[], ""),
            ("10.1.0.0/32", "", "10.1.0.0", &[], ""),
            ("fd00::/64", "", "fd00::", &[], "gateway (fd00::)"),
            ("fd00::/127", "", "fd00::", &[], "gateway (fd00::)"),
            ("fd00::/128", "", "fd00::", &[], "gateway (fd00::)"),
            ("fd00::/64", "", "fd00::ffff:ffff:ffff:ffff", &[], ""),
            (
                "fd00::/64",
                "",
                "",
                &["fd00::"],
                "secondary ip address (a:fd00::)",
            ),
            (
                "fd00::/64",
                "",
                "",
                &["fd00::1"],
                "secondary ip address (a:fd00::1)",
            ),
        ] {
            let want = match text {
                "" => String::new(),
                text => format!("failed to allocate {text}: Address already in use"),
            };
            assert_eq!(told(subnet, range, gateway, aux), want);
        }
    }

    #[test]
    fn subnets_that_a_bridge_cannot_have_are_told_in_dockers_words() {
        let nothing_left = "failed to allocate gateway (): no available addresses on this pool";
        for (subnet, range, text) in [
            ("10.1.0.0/24", "10.1.0.0/32", nothing_left),
            ("10.1.0.0/24", "10.1.0.4/32", ""),
            ("10.1.0.0/32", "", ""),
            ("fd00::/128", "", nothing_left),
            ("fd00::/127", "", ""),
            ("fd00::/64", "fd00::/128", nothing_left),
            ("::1/128", "", nothing_left),
            ("::/0", "", "ipv6 pool is empty"),
            (
                "::/64",
                "",
                "failed to add IPv6 address ::1/64 to bridge: cannot assign requested address",
            ),
            (
                "::ffff:10.1.0.0/120",
                "",
                "invalid pool request: Pool overlaps with other one on this address space",
            ),
            ("fe80::/64", "", ""),
            (
                "fe80::/10",
                "",
                "'fe80::1/10' clashes with the Link-Local prefix 'fe80::/64'",
            ),
            (
                "fe80::/80",
                "",
                "'fe80::1/80' clashes with the Link-Local prefix 'fe80::/64'",
            ),
            (
                "ff02::/64",
                "",
                "multicast subnet 'ff02::1/64' is not allowed",
            ),
        ] {
            assert_eq!(told(subnet, range, "", &[]), text, "{subnet} {range}");
        }
    }

    #[test]
    fn every_fault_is_told_in_dockers_words() {
        // (subnet, range, gateway, auxiliary address) -> text after the first line, recorded from Docker 28.5.
        for (subnet, ip_range, gateway, aux, text) in [
            ("10.231.2.0/24", "", "10.231.2.1", "10.231.2.9", ""),
            (
                "nonsense",
                "",
                "",
                "",
                "invalid subnet nonsense: invalid CIDR block notation",
            ),
            (
                "10.231.2.5/24",
                "",
                "",
                "",
                "invalid subnet 10.231.2.5/24: it should be 10.231.2.0/24",
            ),
            (
                "",
                "",
                "10.231.3.1",
                "",
                "invalid subnet : invalid CIDR block notation",
            ),
            (
                "10.231.2.0/24",
                "10.231.2.0/20",
                "",
                "",
                "* invalid ip-range 10.231.2.0/20: CIDR block is bigger than its parent subnet 10.231.2.0/24\n\
                 * invalid ip-range 10.231.2.0/20: it should be 10.231.0.0/20",
            ),
            (
                "10.231.2.0/24",
                "10.231.3.0/25",
                "10.231.3.1",
                "10.231.3.3",
                "* invalid ip-range 10.231.3.0/25: parent subnet 10.231.2.0/24 doesn't contain ip-range\n\
                 * invalid gateway 10.231.3.1: parent subnet 10.231.2.0/24 doesn't contain this address\n\
                 * invalid auxiliary address a: parent subnet 10.231.2.0/24 doesn't contain this address",
            ),
            (
                "10.231.2.0/24",
                "bad",
                "bad",
                "bad",
                "* invalid ip-range bad: invalid CIDR block notation\n* invalid gateway bad: invalid address\n\
                 * invalid auxiliary address a: invalid address",
            ),
            (
                "fd31:4::/64",
                "fd31:5::/80",
                "10.0.0.1",
                "",
                "* invalid ip-range fd31:5::/80: parent subnet fd31:4::/64 doesn't contain ip-range\n\
                 * invalid gateway 10.0.0.1: parent subnet is an IPv6 block",
            ),
        ] {
            let mut config = IpamConfig {
                subnet: subnet.to_owned(),
                ip_range: ip_range.to_owned(),
                gateway: gateway.to_owned(),
                ..IpamConfig::default()
            };
            if !aux.is_empty() {
                config.aux_addresses.insert("a".to_owned(), aux.to_owned());
            }
            let ipam = Ipam {
                configs: vec![config],
                ..Ipam::default()
            };
            let told = check(&ipam).err().map(|error| error.to_string());
            let want = (!text.is_empty()).then(|| format!("invalid network config:\n{text}"));
            assert_eq!(told, want);
        }
    }
}
