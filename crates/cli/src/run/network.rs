//! The `--network` flag and the endpoint settings that it and its companions give.

use crate::grammar::values::{parse_csv, parse_integer};
use serde_json::{Map, Value, json};

/// One `--network` value.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub target: String,
    pub aliases: Vec<String>,
    pub driver_options: Vec<(String, String)>,
    pub links: Vec<String>,
    pub ipv4: String,
    pub ipv6: String,
    pub link_local: Vec<String>,
    pub mac: String,
    pub gateway_priority: i64,
}

/// Parses one `--network` value: a mode or name, or `name=...,alias=...`.
pub fn parse(value: &str) -> Result<Attachment, String> {
    let mut attachment = Attachment::default();
    if !is_long(value) {
        attachment.target = value.to_owned();
        return Ok(attachment);
    }
    for field in parse_csv(value)? {
        let (key, text) = match field.split_once('=') {
            Some((key, text)) if !key.is_empty() => {
                (key.trim().to_lowercase(), text.trim().to_lowercase())
            }
            _ => return Err(format!("invalid field {field}")),
        };
        match key.as_str() {
            "name" => attachment.target = text,
            "alias" => attachment.aliases.push(text),
            "ip" => attachment.ipv4 = text,
            "ip6" => attachment.ipv6 = text,
            "mac-address" => attachment.mac = text,
            "link-local-ip" => attachment.link_local.push(text),
            "driver-opt" => {
                let (key, value) = text
                    .split_once('=')
                    .filter(|(key, _)| !key.is_empty())
                    .ok_or("invalid key value pair format in driver options")?;
                attachment
                    .driver_options
                    .push((key.trim().to_owned(), value.trim().to_owned()));
            }
            "gw-priority" => {
                attachment.gateway_priority = parse_integer(&text).map_err(|error| {
                    let why = error.rsplit(": ").next().unwrap_or_default();
                    format!("invalid gw-priority ({text}): {why}")
                })?;
            }
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    if attachment.target.is_empty() {
        return Err("network name/id is not specified".to_owned());
    }
    Ok(attachment)
}

/// Says whether the value has the form `word=word`.
fn is_long(value: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    value.match_indices('=').any(|(at, _)| {
        value[..at].chars().next_back().is_some_and(word)
            && value[at + 1..].chars().next().is_some_and(word)
    })
}

/// Says whether a network mode names a network that a user made.
pub fn is_user_defined(mode: &str) -> bool {
    !matches!(mode, "default" | "bridge" | "host" | "none")
        && !mode.starts_with("container:")
        && mode != "container"
}

/// The older flags that apply to the first network.
#[derive(Default)]
pub struct Companions {
    pub aliases: Vec<String>,
    pub links: Vec<String>,
    pub ipv4: String,
    pub ipv6: String,
    pub link_local: Vec<String>,
    pub mac: String,
}

/// Makes the EndpointsConfig object of a create request.
pub fn endpoints(
    networks: &[Attachment],
    companions: &Companions,
) -> Result<Map<String, Value>, String> {
    let mut endpoints = Map::new();
    if networks.is_empty() {
        let mut attachment = Attachment {
            target: "default".to_owned(),
            ..Attachment::default()
        };
        apply(&mut attachment, companions)?;
        endpoints.insert("default".to_owned(), endpoint(&attachment)?);
    }
    let (mut user_defined, mut built_in) = (false, false);
    for (index, attachment) in networks.iter().enumerate() {
        let mut attachment = attachment.clone();
        if is_user_defined(&attachment.target) {
            user_defined = true;
        } else {
            built_in = true;
        }
        if index == 0 {
            apply(&mut attachment, companions)?;
        }
        let settings = endpoint(&attachment)?;
        if endpoints.contains_key(&attachment.target) {
            return Err(format!(
                "network \"{}\" is specified multiple times",
                attachment.target
            ));
        }
        // A single network without options is left to the network mode.
        if networks.len() == 1 && settings == empty_endpoint() {
            continue;
        }
        endpoints.insert(attachment.target, settings);
    }
    if user_defined && built_in {
        return Err("conflicting options: cannot attach both user-defined and non-user-defined network-modes".to_owned());
    }
    Ok(endpoints)
}

fn apply(attachment: &mut Attachment, companions: &Companions) -> Result<(), String> {
    let conflict = |flag: &str, what: &str| {
        Err(format!(
            "conflicting options: cannot specify both {flag} and per-network {what}"
        ))
    };
    if !attachment.aliases.is_empty() && !companions.aliases.is_empty() {
        return conflict("--network-alias", "alias");
    }
    if !attachment.links.is_empty() && !companions.links.is_empty() {
        return conflict("--link", "links");
    }
    if !attachment.ipv4.is_empty() && !companions.ipv4.is_empty() {
        return conflict("--ip", "IPv4 address");
    }
    if !attachment.ipv6.is_empty() && !companions.ipv6.is_empty() {
        return conflict("--ip6", "IPv6 address");
    }
    if !attachment.mac.is_empty() && !companions.mac.is_empty() {
        return conflict("--mac-address", "MAC address");
    }
    if !attachment.link_local.is_empty() && !companions.link_local.is_empty() {
        return conflict("--link-local-ip", "link-local IP addresses");
    }
    if !companions.aliases.is_empty() {
        attachment.aliases.clone_from(&companions.aliases);
    }
    if is_user_defined(&attachment.target) && !companions.links.is_empty() {
        attachment.links.clone_from(&companions.links);
    }
    if !companions.ipv4.is_empty() {
        attachment.ipv4.clone_from(&companions.ipv4);
    }
    if !companions.ipv6.is_empty() {
        attachment.ipv6.clone_from(&companions.ipv6);
    }
    if !companions.mac.is_empty() {
        attachment.mac.clone_from(&companions.mac);
    }
    if !companions.link_local.is_empty() {
        attachment.link_local.clone_from(&companions.link_local);
    }
    Ok(())
}

fn endpoint(attachment: &Attachment) -> Result<Value, String> {
    if attachment.target.trim().is_empty() {
        return Err("no name set for network".to_owned());
    }
    if !is_user_defined(&attachment.target) {
        if !attachment.aliases.is_empty() {
            return Err(
                "network-scoped aliases are only supported for user-defined networks".to_owned(),
            );
        }
        if !attachment.links.is_empty() {
            return Err("links are only supported for user-defined networks".to_owned());
        }
    }
    if !attachment.mac.is_empty() && !is_mac(&attachment.mac) {
        return Err(format!("{} is not a valid mac address", attachment.mac));
    }
    let mut settings = empty_endpoint();
    if !attachment.aliases.is_empty() {
        settings["Aliases"] = json!(attachment.aliases);
    }
    if !attachment.links.is_empty() {
        settings["Links"] = json!(attachment.links);
    }
    if !attachment.driver_options.is_empty() {
        let options: Map<_, _> = attachment
            .driver_options
            .iter()
            .map(|(k, v)| (k.clone(), json!(v)))
            .collect();
        settings["DriverOpts"] = Value::Object(options);
    }
    let ipam = ipam_config(&attachment.ipv4, &attachment.ipv6, &attachment.link_local);
    if !ipam.is_empty() {
        settings["IPAMConfig"] = Value::Object(ipam);
    }
    settings["MacAddress"] = json!(attachment.mac);
    settings["GwPriority"] = json!(attachment.gateway_priority);
    Ok(settings)
}

/// Makes an IPAMConfig object with the addresses that are set.
pub fn ipam_config(ipv4: &str, ipv6: &str, link_local: &[String]) -> Map<String, Value> {
    let mut ipam = Map::new();
    if !ipv4.is_empty() {
        ipam.insert("IPv4Address".to_owned(), json!(ipv4));
    }
    if !ipv6.is_empty() {
        ipam.insert("IPv6Address".to_owned(), json!(ipv6));
    }
    if !link_local.is_empty() {
        ipam.insert("LinkLocalIPs".to_owned(), json!(link_local));
    }
    ipam
}

/// Makes endpoint settings with nothing set, as Go writes them.
pub fn empty_endpoint() -> Value {
    json!({
        "IPAMConfig": null, "Links": null, "Aliases": null, "MacAddress": "", "DriverOpts": null, "GwPriority": 0,
        "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "",
        "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": null,
    })
}

/// Says whether a text is a MAC address of 6, 8 or 20 bytes with `:` or `-`, or of groups with dots.
pub fn is_mac(text: &str) -> bool {
    let text = text.trim();
    let groups = |separator: char, digits: usize, counts: &[usize]| {
        let parts: Vec<_> = text.split(separator).collect();
        counts.contains(&parts.len())
            && parts
                .iter()
                .all(|part| part.len() == digits && part.chars().all(|c| c.is_ascii_hexdigit()))
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_short_forms() {
        assert_eq!(parse("host").map(|a| a.target), Ok("host".to_owned()));
        let long = parse("name=n,alias=a,alias=b,ip=1.2.3.4,gw-priority=5,driver-opt=k=v")
            .expect("network");
        assert_eq!(
            (
                long.target.as_str(),
                long.aliases.len(),
                long.gateway_priority
            ),
            ("n", 2, 5)
        );
        assert_eq!(long.driver_options, [("k".to_owned(), "v".to_owned())]);
        assert_eq!(parse("a=b,c=d"), Err("invalid field key a".to_owned()));
        // Not of the form word=word: taken as a name.
        assert_eq!(parse("name=").map(|a| a.target), Ok("name=".to_owned()));
    }

    #[test]
    fn endpoints_follow_the_network_count() {
        let named = |name: &str| Attachment {
            target: name.to_owned(),
            ..Attachment::default()
        };
        let none = Companions::default();
        assert!(
            endpoints(&[named("host")], &none)
                .expect("endpoints")
                .is_empty()
        );
        assert_eq!(
            endpoints(&[named("a"), named("b")], &none)
                .expect("endpoints")
                .len(),
            2
        );
        assert_eq!(
            endpoints(&[named("a"), named("host")], &none),
            Err("conflicting options: cannot attach both user-defined and non-user-defined network-modes".to_owned())
        );
        let alias = Companions {
            aliases: vec!["x".to_owned()],
            ..Companions::default()
        };
        assert_eq!(
            endpoints(&[named("host")], &alias),
            Err("network-scoped aliases are only supported for user-defined networks".to_owned())
        );
        let settings = endpoints(&[named("a")], &alias).expect("endpoints");
        assert_eq!(settings["a"]["Aliases"], json!(["x"]));
    }
}
