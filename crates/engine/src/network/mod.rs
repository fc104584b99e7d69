//! Networks: their records, one file per verb, and the glue to the network's stack and to netd.
//!
//! `bridge`, `host` and `none` exist always and are in no file; their ids are derived from the engine's, so they are the
//! same after every start.

mod connect;
mod create;
mod disconnect;
mod inspect;
mod ipam;
mod list;
mod names;
mod netd;
mod options;
mod prune;
mod record;
mod remove;
mod settings;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, Weak};

use gantry_network::{
    Endpoint, NetworkConfig, NetworkInfo, PublishedPort, Repair, Stack, StackConfig,
};

pub use create::{CreatedNetwork, NetworkCreate};
pub use inspect::{Member, Network};
pub use record::{Ipam, IpamConfig, NetworkRecord};
pub use settings::{EndpointIpam, EndpointSettings};

pub(crate) use names::dns_names;
pub(crate) use netd::Netd;
pub(crate) use record::Networks;
pub(crate) use settings::{faults, joined};

use crate::container::{Record, State};
use crate::{Engine, EngineConfig, Error, Result};

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

/// What the stack asks of the engine, which is there only after the stack.
#[derive(Clone, Default)]
pub(crate) struct Backward {
    engine: Arc<OnceLock<Weak<crate::Inner>>>,
    /// Where containers are, as their records said at the start: until there is an engine.
    states: Arc<HashMap<String, State>>,
}

impl Backward {
    pub(crate) fn new(records: &[Record]) -> Backward {
        let running = records.iter().filter(|record| record.state.pid != 0);
        Backward {
            engine: Arc::default(),
            states: Arc::new(
                running
                    .map(|record| (record.id.clone(), record.state.clone()))
                    .collect(),
            ),
        }
    }

    /// From now on the engine is asked.
    pub(crate) fn lead_to(&self, engine: &Engine) {
        let _ = self.engine.set(Arc::downgrade(&engine.inner));
    }

    fn engine(&self) -> Option<Engine> {
        let inner = self.engine.get()?.upgrade()?;
        Some(Engine { inner })
    }

    /// Opens the network namespace of a container that runs.
    fn netns_of(&self, container: &str) -> Option<OwnedFd> {
        let state = match self.engine() {
            Some(engine) => engine.container(container).ok()?.record().state.clone(),
            None => self.states.get(container)?.clone(),
        };
        crate::container::open_namespace(&state, "net").ok()?
    }

    /// Tells what was mended: the operator reads it in `events`.
    fn repaired(&self, repair: &Repair) {
        let Some(engine) = self.engine() else { return };
        let network = repair.network.as_deref().unwrap_or_default();
        let record = engine.inner.networks.by_id(network);
        let mut attributes = BTreeMap::from([("what".to_owned(), repair.text.clone())]);
        if let Some(record) = &record {
            attributes.insert("name".to_owned(), record.name.clone());
            attributes.insert("type".to_owned(), record.driver.clone());
        }
        if let Some(container) = &repair.container {
            attributes.insert("container".to_owned(), container.clone());
        }
        let events = &engine.inner.events;
        events.emit("network", "repair", network, attributes);
    }
}

/// Opens the engine's networks.
pub(crate) fn open(
    config: &EngineConfig,
    id: &str,
    netd: Arc<Netd>,
    networks: &[NetworkRecord],
    live: &[(Endpoint, Vec<PublishedPort>)],
    backward: &Backward,
) -> Result<Stack> {
    let mut bridge = config.bridge.clone();
    if let Some(bridge) = &mut bridge {
        bridge.id = derived_id(id, "bridge");
        bridge.host_binding = bridge.host_binding.or(config.host_binding_ip);
    }
    let (repairs, namespaces) = (backward.clone(), backward.clone());
    let stack = StackConfig {
        engine_id: id.to_owned(),
        exec_root: config.exec_root.clone(),
        bridge,
        address_pools: config.address_pools.clone(),
        firewall: config.firewall,
        ip_forward: config.ip_forward,
        ip_forward_no_drop: config.ip_forward_no_drop,
        allow_direct_routing: config.allow_direct_routing,
        obey_host_firewall: config.obey_host_firewall,
        watch: true,
        reserver: netd,
        warn: Arc::new(|text| tracing::warn!("{text}")),
        on_repair: Arc::new(move |repair| repairs.repaired(&repair)),
        netns_of: Arc::new(move |container| namespaces.netns_of(container)),
    };
    let networks: Vec<NetworkConfig> = networks
        .iter()
        .filter_map(|network| network.config.clone())
        .collect();
    Stack::open(stack, &networks, live).map_err(|cause| {
        let told = error(cause);
        Error::new(told.kind(), format!("open the networks: {told}")).caused_by(told)
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

/// Gives an error of the network's stack its text with all causes.
pub(crate) fn error(error: gantry_network::Error) -> Error {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Error::new(error.kind(), text).caused_by(error)
}

/// Returns the records of the networks that every engine has.
pub(crate) fn predefined(
    engine_id: &str,
    bridge: Option<NetworkInfo>,
    opened_ns: i64,
) -> Vec<NetworkRecord> {
    let one = |name: &str, driver: &str| NetworkRecord {
        id: derived_id(engine_id, name),
        name: name.to_owned(),
        created_ns: opened_ns,
        driver: driver.to_owned(),
        scope: "local".to_owned(),
        enable_ipv4: true,
        ipam: Ipam {
            driver: "default".to_owned(),
            ..Ipam::default()
        },
        ..NetworkRecord::default()
    };
    let mut all = vec![one("host", "host"), one("none", "null")];
    if let Some(info) = bridge {
        let mut record = one("bridge", "bridge");
        let ipv4 = info.ipv4.map(|ipv4| {
            let text = ipv4.ip_range.map(|range| range.to_string());
            range(ipv4.subnet, ipv4.gateway, text)
        });
        let ipv6 = info.ipv6.map(|ipv6| {
            let text = ipv6.ip_range.map(|range| range.to_string());
            range(ipv6.subnet, ipv6.gateway, text)
        });
        record.enable_ipv4 = ipv4.is_some();
        record.enable_ipv6 = ipv6.is_some();
        record.ipam.configs.extend(ipv4.into_iter().chain(ipv6));
        all.push(record);
    }
    all
}

fn range(
    subnet: impl ToString,
    gateway: Option<impl ToString>,
    ip_range: Option<String>,
) -> IpamConfig {
    IpamConfig {
        subnet: subnet.to_string(),
        ip_range: ip_range.unwrap_or_default(),
        gateway: gateway
            .map(|gateway| gateway.to_string())
            .unwrap_or_default(),
        aux_addresses: BTreeMap::new(),
    }
}

impl Engine {
    /// Tells something of a network.
    pub(super) fn tell_network(
        &self,
        action: &str,
        network: &NetworkRecord,
        more: &[(&str, &str)],
        at_ns: i64,
    ) {
        let own = [
            ("name", network.name.as_str()),
            ("type", network.driver.as_str()),
        ];
        let attributes = own
            .iter()
            .chain(more)
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        self.inner
            .events
            .emit_at("network", action, &network.id, attributes, at_ns);
    }

    /// Tells that a container's run begins or ends to use its networks; one that joins another container's has none.
    /// The time is that of the begin or the end.
    pub(crate) fn network_event(&self, action: &str, record: &Record, at_ns: i64) {
        for name in record.networks.keys() {
            if let Ok(network) = self.inner.networks.find(name) {
                self.tell_network(action, &network, &[("container", &record.id)], at_ns);
            }
        }
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
