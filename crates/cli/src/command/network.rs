//! The verbs on networks.

use crate::cli::Cli;
use crate::command::{get, text};
use crate::failure::{Failure, Outcome};
use crate::format::{Format, Row};
use crate::grammar::Matches;
use crate::order::natural;
use crate::run::network::{empty_endpoint, ipam_config};
use crate::run::options::pairs_to_map;
use crate::{filter, output, units};
use gantry_client::request::{Path, trimmed};
use gantry_client::{Client, Query, Request};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

const HEADINGS: [(&str, &str); 9] = [
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];

/// Runs one of the verbs.
pub async fn dispatch(cli: &Cli, path: &str, matches: &Matches) -> Outcome {
    match path {
        "network create" => create(cli, matches).await,
        "network ls" => list(cli, matches).await,
        "network rm" => remove(cli.client()?, matches).await,
        "network connect" => connect(cli.client()?, matches).await,
        _ => {
            let (path, container) = both(matches, "disconnect")?;
            let body = json!({"Container": container, "Force": matches.on("force")});
            cli.client()?.call(Request::post(path).json(&body)?).await?;
            Ok(())
        }
    }
}

async fn remove(client: &Client, matches: &Matches) -> Outcome {
    let force = matches.on("force");
    let mut failed = false;
    // One after the other, and each is told of in its turn: names and errors stand in the order of the arguments.
    for name in &matches.arguments {
        let path = Path::object("network", name, "");
        match client.call(Request::delete(path)).await {
            Ok(_) => output::line(name),
            Err(error) if force && error.is_not_found() => {}
            Err(error) => {
                output::error_line(&Failure::from(error).text);
                failed = true;
            }
        }
    }
    // Docker's client ends with its exit status in words here.
    if failed {
        return Err(Failure::new("exit status 1"));
    }
    Ok(())
}

/// Reads a network's and a container's name and makes the path of a verb on the former.
fn both<'a>(matches: &'a Matches, verb: &str) -> Outcome<(Path, &'a str)> {
    let [network, container] = [("network", 0), ("container", 1)]
        .map(|(kind, at)| trimmed(kind, &matches.arguments[at]).map_err(Failure::new));
    let path = format!("/networks/{}/{verb}", network?);
    Ok((path.into(), container?))
}

async fn connect(client: &Client, matches: &Matches) -> Outcome {
    let mut endpoint = empty_endpoint();
    endpoint["IPAMConfig"] = Value::Object(ipam_config(
        &matches.text("ip"),
        &matches.text("ip6"),
        &matches.all("link-local-ip"),
    ));
    let links = matches.all("link");
    if !links.is_empty() {
        endpoint["Links"] = json!(links);
    }
    endpoint["Aliases"] = json!(matches.all("alias"));
    endpoint["DriverOpts"] = Value::Object(driver_options(&matches.all("driver-opt"))?);
    endpoint["GwPriority"] = json!(matches.integer("gw-priority").unwrap_or(0));
    let (path, container) = both(matches, "connect")?;
    let body = json!({"Container": container, "EndpointConfig": endpoint});
    client.call(Request::post(path).json(&body)?).await?;
    Ok(())
}

/// Reads options of the driver; spaces around are not part of them.
fn driver_options(options: &[String]) -> Outcome<Map<String, Value>> {
    let mut trimmed = Vec::new();
    for option in options {
        match option.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                trimmed.push(format!("{}={}", key.trim(), value.trim()));
            }
            _ => {
                return Err(Failure::new(
                    "invalid key/value pair format in driver options",
                ));
            }
        }
    }
    Ok(pairs_to_map(&trimmed))
}

/// A subnet in CIDR notation.
struct Subnet {
    address: IpAddr,
    bits: u8,
}

impl Subnet {
    fn parse(text: &str) -> Option<Subnet> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        (bits <= most).then_some(Subnet { address, bits })
    }

    fn contains(&self, other: IpAddr) -> bool {
        let number = |address: IpAddr| match address {
            IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
            IpAddr::V6(address) => u128::from(address),
        };
        let mask = if self.bits == 0 {
            0
        } else {
            u128::MAX << (128 - u32::from(self.bits))
        };
        self.address.is_ipv4() == other.is_ipv4()
            && number(self.address) & mask == number(other) & mask
    }
}

/// Tells whether a subnet holds an address, or the address of another subnet.
fn contains(subnet: &str, other: &str) -> Result<bool, String> {
    let parse =
        |text: &str| Subnet::parse(text).ok_or_else(|| format!("invalid CIDR address: {text}"));
    let subnet = parse(subnet).map_err(|error| format!("invalid subnet: {error}"))?;
    let address = if other.contains('/') {
        Some(parse(other)?.address)
    } else {
        other.parse().ok()
    };
    Ok(address.is_some_and(|address| subnet.contains(address)))
}

/// Puts the addresses of the flags with the subnets that they belong to.
fn ipam_pools(matches: &Matches) -> Result<Vec<Value>, String> {
    let (subnets, ranges, gateways) = (
        matches.all_split("subnet"),
        matches.all_split("ip-range"),
        matches.all_split("gateway"),
    );
    if subnets.len() < ranges.len() || subnets.len() < gateways.len() {
        return Err("every ip-range or gateway must have a corresponding subnet".to_owned());
    }
    // A subnet is looked at where something is to be found in it; one that stands alone is left to the daemon.
    for (at, subnet) in subnets.iter().enumerate() {
        for other in &subnets[..at] {
            if contains(subnet, other)? || contains(other, subnet)? {
                return Err("multiple overlapping subnet configuration is not supported".to_owned());
            }
        }
    }
    let mut pools: Vec<Map<String, Value>> = subnets
        .iter()
        .map(|subnet| Map::from_iter([("Subnet".to_owned(), json!(subnet))]))
        .collect();
    let place = |address: &str, what: &str| -> Result<usize, String> {
        for (at, subnet) in subnets.iter().enumerate() {
            if contains(subnet, address)? {
                return Ok(at);
            }
        }
        Err(format!("no matching subnet for {what} {address}"))
    };
    for range in &ranges {
        let at = place(range, "range")?;
        if pools[at]
            .insert("IPRange".to_owned(), json!(range))
            .is_some()
        {
            return Err(format!(
                "cannot configure multiple ranges ({range}) on the same subnet ({})",
                subnets[at]
            ));
        }
    }
    for gateway in &gateways {
        let at = place(gateway, "gateway")?;
        if pools[at]
            .insert("Gateway".to_owned(), json!(gateway))
            .is_some()
        {
            return Err(format!(
                "cannot configure multiple gateways ({gateway}) for the same subnet ({})",
                subnets[at]
            ));
        }
    }
    for (name, address) in pairs_to_map(&matches.all("aux-address")) {
        let text = address.as_str().unwrap_or_default();
        let at = place(text, "aux-address")?;
        let known = pools[at]
            .entry("AuxiliaryAddresses")
            .or_insert_with(|| json!({}));
        known[&name] = address.clone();
    }
    Ok(pools.into_iter().map(Value::Object).collect())
}

async fn create(cli: &Cli, matches: &Matches) -> Outcome {
    let mut options = pairs_to_map(&matches.all("opt"));
    let pools = ipam_pools(matches).map_err(Failure::new)?;
    let config_from = matches.text("config-from");
    let mut body = Map::new();
    let mut put = |key: &str, value: Value| {
        body.insert(key.to_owned(), value);
    };
    put("Driver", json!(matches.get("driver").unwrap_or("bridge")));
    put("Scope", json!(matches.text("scope")));
    for (flag, key) in [("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")] {
        if matches.given(flag) {
            put(key, json!(matches.on(flag)));
        }
    }
    let ipam = json!({
        "Driver": matches.get("ipam-driver").unwrap_or("default"),
        "Options": pairs_to_map(&matches.all("ipam-opt")),
        "Config": pools,
    });
    put("IPAM", ipam);
    put("Internal", json!(matches.on("internal")));
    put("Attachable", json!(matches.on("attachable")));
    put("Ingress", json!(matches.on("ingress")));
    put("ConfigOnly", json!(matches.on("config-only")));
    put(
        "ConfigFrom",
        if config_from.is_empty() {
            Value::Null
        } else {
            json!({"Network": config_from})
        },
    );
    put("Options", Value::Object(std::mem::take(&mut options)));
    put("Labels", Value::Object(pairs_to_map(&matches.all("label"))));
    put("Name", json!(matches.arguments[0]));
    let answer: Value = cli
        .client()?
        .send(Request::post("/networks/create").json(&body)?)
        .await?
        .json()
        .await?;
    if !text(&answer, "Warning").is_empty() {
        output::error_line(&format!("WARNING: {}", text(&answer, "Warning")));
    }
    output::line(text(&answer, "Id"));
    Ok(())
}

async fn list(cli: &Cli, matches: &Matches) -> Outcome {
    let quiet = matches.on("quiet");
    let truncate = !matches.on("no-trunc");
    let filters = filter::collect(&matches.all("filter"));
    let query = Query::new().when(!filters.is_empty(), "filters", filters.to_json());
    let given = match matches.get("format") {
        Some(format) => format.to_owned(),
        None if !quiet => cli.config().networks_format.clone(),
        None => String::new(),
    };
    let default = if quiet {
        "{{.ID}}"
    } else {
        "table {{.ID}}\\t{{.Name}}\\t{{.Driver}}\\t{{.Scope}}"
    };
    let chosen = match given.as_str() {
        "raw" if quiet => "network_id: {{.ID}}",
        "raw" => "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n",
        other => other,
    };
    let format = Format::new(chosen, default, &HEADINGS)?;
    let answer = get(cli.client()?, "/networks", query).await?;
    let mut networks: Vec<&Value> = answer.as_array().into_iter().flatten().collect();
    networks.sort_by(|left, right| natural(text(left, "Name"), text(right, "Name")));
    let rows = networks
        .into_iter()
        .map(|network| {
            let id = text(network, "Id");
            let flag = |field: &str| network[field].as_bool().unwrap_or(false).to_string();
            Row::new("*network.networkContext")
                .text("ID", if truncate { units::short_id(id) } else { id })
                .text("Name", text(network, "Name"))
                .text("Driver", text(network, "Driver"))
                .text("Scope", text(network, "Scope"))
                .text("IPv4", flag("EnableIPv4"))
                .text("IPv6", flag("EnableIPv6"))
                .text("Internal", flag("Internal"))
                .text("CreatedAt", created(text(network, "Created")))
                .labels(&network["Labels"])
        })
        .collect();
    output::out(&format.render(rows)?);
    Ok(())
}

/// Formats a time of the API as Go's `Time.String`, which keeps its nanoseconds.
fn created(time: &str) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(instant) => {
            let zoned = instant.to_zoned_datetime(jiff::tz::TimeZone::UTC);
            let nanos = format!("{:09}", instant.subsec_nanosecond());
            let fraction = match nanos.trim_end_matches('0') {
                "" => String::new(),
                digits => format!(".{digits}"),
            };
            format!(
                "{}{fraction} +0000 UTC",
                zoned.strftime("%Y-%m-%d %H:%M:%S")
            )
        }
        Err(_) => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::{Found, find};

    fn pools(line: &str) -> String {
        let words: Vec<String> = format!("network create {line} n")
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        match find("docker", &words) {
            Found::Run { matches, .. } => ipam_pools(&matches)
                .map_or_else(|error| error, |pools| Value::Array(pools).to_string()),
            _ => "no command".to_owned(),
        }
    }

    #[test]
    fn addresses_find_their_subnet() {
        assert_eq!(
            pools("--subnet 10.9.0.0/24"),
            r#"[{"Subnet":"10.9.0.0/24"}]"#
        );
        assert_eq!(
            pools(
                "--subnet 10.9.0.0/24 --subnet fd00::/64 --gateway fd00::1 --ip-range 10.9.0.128/25"
            ),
            r#"[{"Subnet":"10.9.0.0/24","IPRange":"10.9.0.128/25"},{"Subnet":"fd00::/64","Gateway":"fd00::1"}]"#
        );
        assert_eq!(
            pools("--gateway 1.2.3.4"),
            "every ip-range or gateway must have a corresponding subnet"
        );
        assert_eq!(
            pools("--subnet 10.9.0.0/24 --gateway 1.2.3.4"),
            "no matching subnet for gateway 1.2.3.4"
        );
        assert_eq!(pools("--subnet x"), r#"[{"Subnet":"x"}]"#);
        for line in ["--subnet x --gateway 1.2.3.4", "--subnet y --subnet x"] {
            assert_eq!(pools(line), "invalid subnet: invalid CIDR address: x");
        }
        assert_eq!(
            pools("--subnet 10.9.0.0/24 --ip-range x/y"),
            "invalid CIDR address: x/y"
        );
    }

    #[test]
    fn options_of_the_driver_are_pairs() {
        let options = |text: &str| driver_options(&[text.to_owned()]).map(|map| map["A"].clone());
        assert_eq!(options(" A = b=C "), Ok(json!("b=C")));
        for text in ["x", "=x", " =x"] {
            let refused = options(text).map_err(|failure| failure.text);
            assert_eq!(
                refused,
                Err("invalid key/value pair format in driver options".to_owned())
            );
        }
    }

    #[test]
    fn times_keep_their_fraction() {
        assert_eq!(
            created("2026-01-02T03:04:05.120Z"),
            "2026-01-02 03:04:05.12 +0000 UTC"
        );
    }
}
