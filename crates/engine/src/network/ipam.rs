//! What can be wrong with the addresses that a user wants for a network, in Docker's words and order. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use super::record::{Ipam, IpamConfig};
use super::settings::joined;
use crate::{Error, Result};

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

/// Checks that no address is wanted twice, or for what has it by its nature. To be asked after [`check`].
///
/// # Errors
/// The first such address (forbidden).
pub(super) fn check_uses(ipam: &Ipam) -> Result<()> {
    let taken = |what: String| {
        Err(Error::new(
            gantry_api::error::ErrorKind::Forbidden,
            format!("failed to allocate {what}: Address already in use"),
        ))
    };
    for config in &ipam.configs {
        let Ok(IpNet::V4(subnet)) = config.subnet.parse::<IpNet>() else {
            continue;
        };
        let of_nature = |text: &str| {
            subnet.prefix_len() < 31
                && text.parse().is_ok_and(|address: std::net::Ipv4Addr| {
                    address == subnet.network() || address == subnet.broadcast()
                })
        };
        if of_nature(&config.gateway) {
            return taken(format!("gateway ({})", config.gateway));
        }
        for (name, address) in &config.aux_addresses {
            if of_nature(address) || *address == config.gateway {
                return taken(format!("secondary ip address ({name}:{address})"));
            }
        }
    }
    Ok(())
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

    #[test]
    fn an_address_has_one_use() {
        for (gateway, aux, text) in [
            ("10.1.0.1", "10.1.0.2", ""),
            ("10.1.0.0", "10.1.0.2", "gateway (10.1.0.0)"),
            ("10.1.0.255", "10.1.0.2", "gateway (10.1.0.255)"),
            ("10.1.0.1", "10.1.0.1", "secondary ip address (a:10.1.0.1)"),
        ] {
            let config = IpamConfig {
                subnet: "10.1.0.0/24".to_owned(),
                gateway: gateway.to_owned(),
                aux_addresses: [("a".to_owned(), aux.to_owned())].into(),
                ..IpamConfig::default()
            };
            let ipam = Ipam {
                configs: vec![config],
                ..Ipam::default()
            };
            let told = check_uses(&ipam).err().map(|error| error.to_string());
            let want = (!text.is_empty())
                .then(|| format!("failed to allocate {text}: Address already in use"));
            assert_eq!(told, want);
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
