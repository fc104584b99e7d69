//! Networks as the API shows them.
//!
//! Three networks exist: `bridge`, `host` and `none`. Their ids are derived from the engine's, so they are the same
//! after every start.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_network::{Endpoint, NetworkInfo, PublishedPort, Stack, StackConfig};

use crate::container::Record;
use crate::{Engine, EngineConfig, Error, Filters, Result};

mod netd;

pub(crate) use netd::Netd;

impl Engine {
    /// Takes back what the machine's network knows of this engine, netd last. The next start makes it again.
    pub(crate) fn withdraw_network(&self) {
        if let Err(error) = self.inner.network.teardown() {
            tracing::error!(%error, "take the networks down");
        }
        if let Err(error) = self.inner.netd.end() {
            tracing::error!(%error, "end netd");
        }
    }
}

/// Opens the engine's networks.
pub(crate) fn open(
    config: &EngineConfig,
    id: &str,
    netd: Arc<Netd>,
    live: &[(Endpoint, Vec<PublishedPort>)],
) -> Result<Stack> {
    let mut bridge = config.bridge.clone();
    if let Some(bridge) = &mut bridge {
        bridge.id = derived_id(id, "bridge");
        bridge.host_binding = bridge.host_binding.or(config.host_binding_ip);
    }
    let stack = StackConfig {
        engine_id: id.to_owned(),
        exec_root: config.exec_root.clone(),
        bridge,
        address_pools: Vec::new(),
        firewall: config.firewall,
        ip_forward: config.ip_forward,
        ip_forward_no_drop: config.ip_forward_no_drop,
        allow_direct_routing: false,
        obey_host_firewall: false,
        watch: true,
        reserver: netd,
        warn: Arc::new(|text| tracing::warn!("{text}")),
        // The stack tells the operator of each repair itself.
        on_repair: Arc::new(|_| {}),
        // Without a container's namespace its interface is not made again.
        netns_of: Arc::new(|_| None),
    };
    Stack::open(stack, &[], live).map_err(|error| {
        let mut text = error.to_string();
        if let Some(cause) = std::error::Error::source(&error) {
            text = format!("{text}: {cause}");
        }
        Error::system(format!("open the networks: {text}")).caused_by(error)
    })
}

/// Derives a stable id of 64 hexadecimal digits.
fn derived_id(engine_id: &str, name: &str) -> String {
    use std::hash::{Hash, Hasher};
    let mut text = String::new();
    for part in 0..4 {
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        (engine_id, name, part).hash(&mut hasher);
        text.push_str(&format!("{:016x}", hasher.finish()));
    }
    text
}

/// A network as the API shows it.
#[derive(Clone, Debug)]
pub struct Network {
    pub id: String,
    pub name: &'static str,
    /// `bridge`, `host` or `null`.
    pub driver: &'static str,
    pub created_ns: i64,
    pub bridge: Option<NetworkInfo>,
    /// Containers on it that run.
    pub containers: Vec<Member>,
    pub labels: BTreeMap<String, String>,
}

/// A container on a network.
#[derive(Clone, Debug)]
pub struct Member {
    pub container_id: String,
    pub name: String,
    pub endpoint: Option<Endpoint>,
}

const NETWORKS: &[(&str, &str)] = &[("bridge", "bridge"), ("host", "host"), ("none", "null")];

impl Engine {
    pub(crate) fn network_id(&self, name: &str) -> String {
        match name {
            "bridge" | "host" | "none" => derived_id(&self.inner.id, name),
            _ => String::new(),
        }
    }

    /// Lists networks by name.
    pub async fn networks(&self, filters: &Filters) -> Result<Vec<Network>> {
        crate::check_filter_keys(
            filters,
            &["dangling", "driver", "id", "label", "name", "scope", "type"],
        )?;
        let dangling = crate::filter_flag(filters, "dangling")?;
        if let Some(kind) = filters
            .get("type")
            .into_iter()
            .flatten()
            .find(|kind| !matches!(kind.as_str(), "builtin" | "custom"))
        {
            return Err(Error::invalid(format!("invalid filter 'type={kind}'")));
        }
        let all = NETWORKS
            .iter()
            .filter_map(|(name, driver)| self.view(name, driver));
        Ok(all
            .filter(|network| {
                let any = |key: &str, test: &dyn Fn(&str) -> bool| {
                    filters.get(key).is_none_or(|values| values.iter().any(|value| test(value)))
                };
                any("driver", &|value| value == network.driver)
                    && any("id", &|value| crate::pattern_matches(&network.id, value))
                    && any("name", &|value| crate::pattern_matches(network.name, value))
                    && any("scope", &|value| value == "local")
                    && any("type", &|value| value == "builtin")
                    && filters.get("label").is_none_or(|wanted| crate::labels_match(&network.labels, wanted))
                    // The three built-in ones are never dangling.
                    && dangling != Some(true)
            })
            .collect())
    }

    /// Returns the network of this name, id or unique prefix of an id.
    pub async fn network(&self, name: &str) -> Result<Network> {
        let all: Vec<Network> = NETWORKS
            .iter()
            .filter_map(|(name, driver)| self.view(name, driver))
            .collect();
        let by_name = all
            .iter()
            .position(|network| network.name == name || network.id == name);
        let found = by_name.or_else(|| {
            let mut matching = all
                .iter()
                .enumerate()
                .filter(|(_, network)| network.id.starts_with(name));
            match (matching.next(), matching.next()) {
                (Some((index, _)), None) if !name.is_empty() => Some(index),
                _ => None,
            }
        });
        match found {
            Some(index) => Ok(all[index].clone()),
            None => Err(Error::not_found(format!("network {name} not found"))),
        }
    }

    fn view(&self, name: &'static str, driver: &'static str) -> Option<Network> {
        let bridge = if name == "bridge" {
            Some(self.inner.network.bridge()?)
        } else {
            None
        };
        let mut containers: Vec<Member> = Vec::new();
        for container in self.inner.containers.all() {
            let record = container.record();
            if record.state.status.has_process() && record.host.network_mode == name {
                containers.push(Member {
                    container_id: record.id.clone(),
                    name: record.name.clone(),
                    endpoint: record.acquired.endpoint.clone(),
                });
            }
        }
        Some(Network {
            id: self.network_id(name),
            name,
            driver,
            created_ns: self.inner.opened_ns,
            bridge,
            containers,
            labels: BTreeMap::new(),
        })
    }

    /// Tells that a container's run begins or ends to use its network; one that joins another container's has none.
    /// The time is that of the begin or the end.
    pub(crate) fn network_event(&self, action: &str, record: &Record, at_ns: i64) {
        let name = record.host.network_mode.as_str();
        let Some((_, driver)) = NETWORKS.iter().find(|(network, _)| *network == name) else {
            return;
        };
        let attributes = [
            ("container", record.id.as_str()),
            ("name", name),
            ("type", driver),
        ];
        let attributes = attributes
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        self.inner
            .events
            .emit_at("network", action, &self.network_id(name), attributes, at_ns);
    }
}

/// Reads a hardware address of six bytes in the forms that Docker takes: `02:42:ac:11:00:02`, `02-42-ac-11-00-02`,
/// `0242.ac11.0002`.
pub(crate) fn parse_mac(text: &str) -> Option<gantry_network::MacAddress> {
    let (separator, digits) = match text.as_bytes().get(2)? {
        b':' => (':', 2),
        b'-' => ('-', 2),
        _ => ('.', 4),
    };
    let mut bytes = Vec::with_capacity(6);
    for group in text.split(separator) {
        if group.len() != digits || !group.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for pair in group.as_bytes().chunks(2) {
            let pair = std::str::from_utf8(pair).ok()?;
            bytes.push(u8::from_str_radix(pair, 16).ok()?);
        }
    }
    bytes.try_into().ok().map(gantry_network::MacAddress)
}

#[cfg(test)]
mod tests {
    use super::parse_mac;

    #[test]
    fn hardware_addresses_have_three_forms() {
        let want = [0x02, 0x42, 0xac, 0x11, 0, 0x99];
        for text in ["02:42:ac:11:00:99", "02-42-AC-11-00-99", "0242.ac11.0099"] {
            assert_eq!(parse_mac(text).unwrap().0, want, "{text}");
        }
        for bad in [
            "",
            "zz",
            "02:42:ac:11:00",
            "02:42:ac:11:00:9",
            "02:42-ac:11:00:99",
            "02:42:ac:11:00:99:01",
            "+2:42:ac:11:00:99",
        ] {
            assert!(parse_mac(bad).is_none(), "{bad}");
        }
    }
}
