//! What the daemon is told of networks: the default bridge, what new networks get that give nothing of their own, the
//! firewall, and how containers find names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gantry_engine::{AddressPool, BridgeConfig, Ipv6Config};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::Value as Json;

use super::parse::{Value, Values};
use super::{Invalid, flag, integer, list, text};

/// Options of new networks, by driver.
pub type NetworkOptions = BTreeMap<String, BTreeMap<String, String>>;

/// Networks, with defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// The default bridge; `None` with `--bridge none`.
    pub bridge: Option<BridgeConfig>,
    pub firewall: bool,
    pub ip_forward: bool,
    pub ip_forward_no_drop: bool,
    pub allow_direct_routing: bool,
    pub obey_host_firewall: bool,
    pub host_binding: Option<IpAddr>,
    /// What `host-gateway` stands for: at most one address of each family.
    pub host_gateway_ips: Vec<IpAddr>,
    pub address_pools: Vec<AddressPool>,
    pub default_options: NetworkOptions,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
}

/// Reads what the options say.
pub fn settings(values: &Values) -> Result<Network, Invalid> {
    let firewall = flag(values, "iptables").unwrap_or(true);
    if firewall && flag(values, "ip6tables") == Some(false) {
        return invalid(
            "--ip6tables=false is not supported without --iptables=false: one table has the rules of both families",
        );
    }
    let icc = flag(values, "icc").unwrap_or(true);
    if !firewall && !icc {
        return invalid(
            "You specified --iptables=false with --icc=false. ICC=false uses iptables to function. Please set --icc or --iptables to true",
        );
    }
    let host_binding = match text(values, "ip") {
        None => None,
        Some(address) => match address.parse::<IpAddr>() {
            Ok(address) => Some(address),
            Err(_) => {
                return invalid(format!(
                    "invalid argument \"{address}\" for \"--ip\" flag: {address} is not an ip address"
                ));
            }
        },
    };
    let dns = list(values, "dns");
    if let Some(server) = dns.iter().find(|server| server.parse::<IpAddr>().is_err()) {
        return invalid(format!("bad DNS server: {server} is not an ip address"));
    }
    Ok(Network {
        bridge: bridge(values, icc, host_binding)?,
        firewall,
        ip_forward: flag(values, "ip-forward").unwrap_or(true),
        ip_forward_no_drop: flag(values, "ip-forward-no-drop").unwrap_or(false),
        allow_direct_routing: flag(values, "allow-direct-routing").unwrap_or(false),
        obey_host_firewall: flag(values, "obey-host-firewall").unwrap_or(false),
        host_binding,
        host_gateway_ips: host_gateway_ips(values)?,
        address_pools: match values.get("default-address-pool") {
            Some(Value::Pools(pools)) => pools.clone(),
            _ => Vec::new(),
        },
        default_options: match values.get("default-network-opt") {
            Some(Value::NetworkOptions(options)) => options.clone(),
            _ => NetworkOptions::new(),
        },
        dns,
        dns_search: list(values, "dns-search"),
        dns_options: list(values, "dns-opt"),
    })
}

/// Reads the default bridge; `None` if there shall be none.
fn bridge(
    values: &Values,
    icc: bool,
    host_binding: Option<IpAddr>,
) -> Result<Option<BridgeConfig>, Invalid> {
    let name = text(values, "bridge");
    for address in ["bip", "bip6"] {
        if name.is_some_and(|name| name != "none") && values.contains_key(address) {
            return invalid(format!(
                "You specified -b & --{address}, mutually exclusive options. Please specify only one"
            ));
        }
    }
    if let Some(name) = name.filter(|name| name.len() > 15 || name.is_empty()) {
        return invalid(format!("invalid bridge name: \"{name}\""));
    }
    let mtu = match integer(values, "mtu") {
        None | Some(0) => None,
        Some(mtu) => match u32::try_from(mtu) {
            Ok(mtu) if (68..=65535).contains(&mtu) => Some(mtu),
            _ => return invalid(format!("invalid default MTU value: {mtu}")),
        },
    };
    // The engine fills the id in.
    let mut bridge = BridgeConfig::default_bridge("");
    if let Some(name) = name {
        bridge.interface = name.to_owned();
    }
    if let Some(address) = cidr::<Ipv4Net>(values, "bip")? {
        bridge.gateway = Some(address.addr());
        bridge.subnet = Some(address.trunc());
    }
    bridge.ip_range = cidr::<Ipv4Net>(values, "fixed-cidr")?.map(|range| range.trunc());
    bridge.ipv6 = ipv6(values)?;
    let own_v6 = bridge.ipv6.as_ref().and_then(|ipv6| ipv6.gateway);
    own_gateway(values, "default-gateway", bridge.gateway.map(Into::into))?;
    own_gateway(values, "default-gateway-v6", own_v6.map(Into::into))?;
    bridge.mtu = mtu;
    bridge.icc = icc;
    bridge.ip_masquerade = flag(values, "ip-masq").unwrap_or(true);
    bridge.host_binding = host_binding;
    Ok((name != Some("none")).then_some(bridge))
}

/// Reads the default bridge's IPv6; options that say something of it need it.
fn ipv6(values: &Values) -> Result<Option<Ipv6Config>, Invalid> {
    let own = cidr::<Ipv6Net>(values, "bip6")?;
    let range = cidr::<Ipv6Net>(values, "fixed-cidr-v6")?;
    if flag(values, "ipv6") != Some(true) {
        return match ["bip6", "fixed-cidr-v6"]
            .iter()
            .find(|name| values.contains_key(**name))
        {
            Some(name) => invalid(format!("--{name} is of no use without --ipv6")),
            None => Ok(None),
        };
    }
    // A range without an address of the bridge is the network itself.
    Ok(Some(Ipv6Config {
        subnet: own.or(range).map(|subnet| subnet.trunc()),
        gateway: own.map(|address| address.addr()),
        ip_range: range.filter(|_| own.is_some()).map(|range| range.trunc()),
    }))
}

/// Refuses a gateway of the default bridge's containers that is not the bridge.
fn own_gateway(values: &Values, option: &str, bridge: Option<IpAddr>) -> Result<(), Invalid> {
    let Some(address) = text(values, option) else {
        return Ok(());
    };
    let Ok(gateway) = address.parse::<IpAddr>() else {
        return invalid(format!(
            "invalid argument \"{address}\" for \"--{option}\" flag: failed to parse IP: \"{address}\""
        ));
    };
    if bridge == Some(gateway) {
        return Ok(());
    }
    let own = if option.ends_with("v6") {
        "bip6"
    } else {
        "bip"
    };
    invalid(format!(
        "--{option} is not supported with another address than the bridge's, --{own}"
    ))
}

fn host_gateway_ips(values: &Values) -> Result<Vec<IpAddr>, Invalid> {
    let addresses = list(values, "host-gateway-ip")
        .iter()
        .map(|address| {
            address.parse::<IpAddr>().map_err(|_| {
                Invalid(format!(
                    "invalid argument \"{address}\" for \"--host-gateway-ip\" flag: ParseAddr(\"{address}\"): unable to parse IP"
                ))
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    for (family, is_v4) in [("IPv4", true), ("IPv6", false)] {
        let of_family = addresses.iter().filter(|ip| ip.is_ipv4() == is_v4);
        if of_family.count() > 1 {
            return invalid(format!(
                "only one {family} host gateway IP address can be specified"
            ));
        }
    }
    Ok(addresses)
}

/// Reads an address with the length of its prefix.
fn cidr<Net: std::str::FromStr>(values: &Values, option: &str) -> Result<Option<Net>, Invalid> {
    text(values, option)
        .map(|text| {
            text.parse()
                .map_err(|_| Invalid(format!("invalid --{option}: invalid CIDR address: {text}")))
        })
        .transpose()
}

fn invalid<T>(text: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(text.into()))
}

/// Reads `base=10.0.0.0/8,size=24`.
pub fn pool_of_flag(text: &str) -> Result<AddressPool, String> {
    let (mut base, mut size) = (None, None);
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        match key {
            "base" => base = Some(value.to_owned()),
            "size" => {
                let number = value.parse().map_err(|_| {
                    format!("invalid size value: \"{text}\" (must be integer): strconv.Atoi: parsing \"{value}\": invalid syntax")
                })?;
                size = Some(number);
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    pool(&base.unwrap_or_default(), size)
}

/// Reads the list of `{"base": …, "size": …}` of the file.
pub fn pools_of_file(json: &Json) -> Option<Vec<AddressPool>> {
    let one = |json: &Json| {
        let members = json.as_object()?;
        let known = members
            .keys()
            .all(|key| matches!(key.as_str(), "base" | "size"));
        let size = json["size"].as_i64();
        pool(json["base"].as_str()?, size).ok().filter(|_| known)
    };
    json.as_array()?.iter().map(one).collect()
}

/// Puts a pool together; its subnets must fit into it.
fn pool(base: &str, size: Option<i64>) -> Result<AddressPool, String> {
    let net: IpNet = base.parse().map_err(|_| {
        format!("invalid base prefix \"{base}\": no address and length of a prefix")
    })?;
    let (first, last) = (net.prefix_len(), net.max_prefix_len());
    match size.and_then(|size| u8::try_from(size).ok()) {
        Some(size) if (first..=last).contains(&size) => Ok(AddressPool {
            base: net.trunc(),
            size,
        }),
        _ => Err(format!(
            "the size of subnets of {base} must be {first} to {last}"
        )),
    }
}

/// Reads `bridge=com.docker.network.driver.mtu=1400`: driver, key and value.
pub fn option_of_flag(text: &str) -> Result<(String, String, String), String> {
    let parts: Vec<&str> = text.splitn(3, '=').collect();
    match parts.as_slice() {
        [driver, key, value] => Ok(((*driver).into(), (*key).into(), (*value).into())),
        _ => Err(format!(
            "invalid value \"{text}\" for map option, should be root-key=key=value"
        )),
    }
}

/// Reads the object of objects of the file.
pub fn options_of_file(json: &Json) -> Option<NetworkOptions> {
    let inner = |json: &Json| -> Option<BTreeMap<String, String>> {
        let members = json.as_object()?.iter();
        members
            .map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    };
    let drivers = json.as_object()?.iter();
    drivers
        .map(|(driver, options)| Some((driver.clone(), inner(options)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::parse::{self, CommandLine};
    use super::*;

    fn check(line: &str) -> Result<Network, String> {
        let args: Vec<std::ffi::OsString> = line.split_whitespace().map(Into::into).collect();
        match parse::command_line(&args).map_err(|error| error.0)? {
            CommandLine::Run(values) => settings(&values).map_err(|error| error.0),
            other => panic!("{other:?}"),
        }
    }

    fn file(text: &str) -> Result<Network, String> {
        let values = parse::file(text).map_err(|error| error.0)?;
        settings(&values).map_err(|error| error.0)
    }

    #[test]
    fn the_default_bridge_is_dockers() {
        let network = check("").unwrap();
        assert!(network.firewall && network.ip_forward && network.address_pools.is_empty());
        assert_eq!(network.bridge, Some(BridgeConfig::default_bridge("")));
        assert_eq!(check("--bridge none").unwrap().bridge, None);
    }

    #[test]
    fn addresses_of_the_default_bridge() {
        let line = "--bip 10.1.2.3/16 --fixed-cidr 10.1.9.7/24 --default-gateway 10.1.2.3 --ipv6 --bip6 fd00::5/64 \
                    --fixed-cidr-v6 fd00::8:0:0/112 --default-gateway-v6 fd00::5";
        let bridge = check(line).unwrap().bridge.unwrap();
        assert_eq!(bridge.gateway, Some(Ipv4Addr::new(10, 1, 2, 3)));
        assert_eq!(bridge.subnet.unwrap().to_string(), "10.1.0.0/16");
        assert_eq!(bridge.ip_range.unwrap().to_string(), "10.1.9.0/24");
        let ipv6 = bridge.ipv6.unwrap();
        assert_eq!(ipv6.subnet.unwrap().to_string(), "fd00::/64");
        assert_eq!(ipv6.gateway.unwrap().to_string(), "fd00::5");
        assert_eq!(ipv6.ip_range.unwrap().to_string(), "fd00::8:0:0/112");
        // Without an address of the bridge the range is the subnet.
        let bridge = check("--ipv6 --fixed-cidr-v6 fd07::/64").unwrap().bridge;
        let ipv6 = bridge.unwrap().ipv6.unwrap();
        assert_eq!(ipv6.subnet.unwrap().to_string(), "fd07::/64");
        assert_eq!((ipv6.gateway, ipv6.ip_range), (None, None));
        let bridge = check("--ipv6").unwrap().bridge;
        assert!(bridge.unwrap().ipv6.is_some());
    }

    #[test]
    fn what_new_networks_get() {
        let by_flags = check(
            "--default-address-pool base=10.0.0.0/8,size=24 --default-address-pool base=fd00::/40,size=64 \
             --default-network-opt bridge=a=b=c --default-network-opt bridge=d=e --default-network-opt macvlan=f=",
        )
        .unwrap();
        let by_file = file(
            r#"{"default-address-pools":[{"base":"10.0.0.0/8","size":24},{"base":"fd00::/40","size":64}],
                "default-network-opts":{"bridge":{"a":"b=c","d":"e"},"macvlan":{"f":""}}}"#,
        )
        .unwrap();
        assert_eq!(by_flags, by_file);
        assert_eq!(by_flags.address_pools[0].base.to_string(), "10.0.0.0/8");
        assert_eq!(by_flags.address_pools[1].size, 64);
        assert_eq!(by_flags.default_options["bridge"]["a"], "b=c");
    }

    #[test]
    fn choices_of_the_whole() {
        let network = check("--allow-direct-routing --obey-host-firewall --iptables=false --ip6tables=false --host-gateway-ip 1.2.3.4 --host-gateway-ip fd00::1").unwrap();
        assert!(network.allow_direct_routing && network.obey_host_firewall && !network.firewall);
        assert_eq!(network.host_gateway_ips.len(), 2);
        assert_eq!(check("--ip6tables"), check(""));
        let one = file(r#"{"host-gateway-ip":"1.2.3.4"}"#).unwrap();
        assert_eq!(one, file(r#"{"host-gateway-ips":["1.2.3.4"]}"#).unwrap());
        assert_eq!(one.host_gateway_ips.len(), 1);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (line, want) in [
            ("-b br0 --bip 10.0.0.1/24", "You specified -b & --bip, "),
            ("-b br0 --bip6 fd00::1/64", "You specified -b & --bip6, "),
            (
                "--bip 10.0.0.1",
                "invalid --bip: invalid CIDR address: 10.0.0.1",
            ),
            ("--ipv6 --bip6 x", "invalid --bip6: invalid CIDR address: x"),
            ("--bip6 fd00::1/64", "--bip6 is of no use without --ipv6"),
            (
                "--fixed-cidr-v6 fd00::/64",
                "--fixed-cidr-v6 is of no use without --ipv6",
            ),
            (
                "--default-gateway 10.0.0.9 --bip 10.0.0.1/24",
                "--default-gateway is not supported with another address than the bridge's, --bip",
            ),
            (
                "--default-gateway x",
                "invalid argument \"x\" for \"--default-gateway\" flag: failed to parse IP: \"x\"",
            ),
            (
                "--default-gateway-v6 fd00::9",
                "--default-gateway-v6 is not supported with another address",
            ),
            (
                "--ip6tables=false",
                "--ip6tables=false is not supported without --iptables=false",
            ),
            (
                "--host-gateway-ip x",
                "invalid argument \"x\" for \"--host-gateway-ip\" flag: ParseAddr(\"x\"): unable to parse IP",
            ),
            (
                "--host-gateway-ip 1.2.3.4 --host-gateway-ip 1.2.3.5",
                "only one IPv4 host gateway IP address can be specified",
            ),
            (
                "--default-address-pool x",
                "invalid argument \"x\" for \"--default-address-pool\" flag: invalid field 'x' must be a key=value pair",
            ),
            (
                "--default-address-pool foo=1",
                "invalid argument \"foo=1\" for \"--default-address-pool\" flag: unexpected key 'foo' in 'foo=1'",
            ),
            (
                "--default-address-pool base=x,size=24",
                "invalid argument \"base=x,size=24\" for \"--default-address-pool\" flag: invalid base prefix \"x\": ",
            ),
            (
                "--default-address-pool base=10.0.0.0/8,size=4",
                "invalid argument \"base=10.0.0.0/8,size=4\" for \"--default-address-pool\" flag: the size of subnets of 10.0.0.0/8 must be 8 to 32",
            ),
            (
                "--default-address-pool base=10.0.0.0/8",
                "invalid argument \"base=10.0.0.0/8\" for \"--default-address-pool\" flag: the size of subnets",
            ),
            (
                "--default-network-opt bridge=x",
                "invalid argument \"bridge=x\" for \"--default-network-opt\" flag: invalid value \"bridge=x\" for map option, should be root-key=key=value",
            ),
        ] {
            let error = check(line).unwrap_err();
            assert!(error.starts_with(want), "{line}: {error}");
        }
        for text in [
            r#"{"default-address-pools":["x"]}"#,
            r#"{"default-address-pools":[{"base":"10.0.0.0/8","size":24,"more":1}]}"#,
            r#"{"default-network-opts":{"bridge":"x"}}"#,
        ] {
            let error = file(text).unwrap_err();
            assert!(error.contains("has a value of the wrong kind"), "{error}");
        }
    }
}
