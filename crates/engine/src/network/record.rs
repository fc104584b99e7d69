//! The record of one network, `records/network/ID.json`, and its place in memory.
//!
//! A network's objects in the kernel bear the engine's mark. What stands there and is in no record goes at the next start
//! of a daemon, so the record is written last: one write, which survives a loss of power.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use gantry_network::NetworkConfig;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Names that no user's network can have.
pub(crate) const PREDEFINED: &[&str] = &["bridge", "host", "none", "default"];

/// Everything known of a network.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkRecord {
    /// 64 hexadecimal digits.
    pub id: String,
    pub name: String,
    pub created_ns: i64,
    /// `bridge`, `macvlan`, `ipvlan`, `host` or `null`.
    pub driver: String,
    pub scope: String,
    pub internal: bool,
    pub attachable: bool,
    pub config_only: bool,
    /// Name of the network whose configuration this one has.
    pub config_from: String,
    pub enable_ipv4: bool,
    pub enable_ipv6: bool,
    /// As the user gave it.
    pub ipam: Ipam,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// What is made of it, with the addresses that it was given; `None` where nothing is.
    pub config: Option<NetworkConfig>,
}

/// How a network gives addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ipam {
    pub driver: String,
    /// `None` shows as `null`.
    pub options: Option<BTreeMap<String, String>>,
    pub configs: Vec<IpamConfig>,
}

/// One range of addresses, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpamConfig {
    pub subnet: String,
    pub ip_range: String,
    pub gateway: String,
    pub aux_addresses: BTreeMap<String, String>,
}

impl NetworkRecord {
    /// Tells whether a user made it.
    pub(crate) fn is_user_defined(&self) -> bool {
        !PREDEFINED.contains(&self.name.as_str())
    }

    /// Tells whether names are answered on it.
    pub(crate) fn has_names(&self) -> bool {
        self.is_user_defined() && !self.config_only
    }
}

/// The networks of one engine, by id and by name.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    table: RwLock<Table>,
    /// Names that are about to be taken.
    making: Arc<Mutex<HashSet<String>>>,
    /// Held while a network is removed: of two who remove the same one the second finds nothing.
    removing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Table {
    by_id: BTreeMap<String, Arc<NetworkRecord>>,
    by_name: HashMap<String, String>,
}

/// A name that is about to be taken; dropping it lets go.
#[derive(Debug)]
pub(crate) struct HeldName {
    name: String,
    making: Arc<Mutex<HashSet<String>>>,
}

impl Drop for HeldName {
    fn drop(&mut self) {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        making.remove(&self.name);
    }
}

impl Networks {
    pub(crate) fn insert(&self, record: NetworkRecord) -> Arc<NetworkRecord> {
        let record = Arc::new(record);
        let mut table = self.table.write().expect("no holder panics");
        table.by_name.insert(record.name.clone(), record.id.clone());
        table.by_id.insert(record.id.clone(), record.clone());
        record
    }

    /// Waits until nobody else removes a network, and looks whether this one is still there. Its name stays taken until it
    /// is forgotten.
    ///
    /// # Errors
    /// Somebody else has removed it (not found).
    pub(crate) fn remove_alone(&self, record: &NetworkRecord) -> Result<MutexGuard<'_, ()>> {
        let alone = self.removing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.by_id(&record.id) {
            Some(_) => Ok(alone),
            None => Err(Error::not_found(format!(
                "network {} not found",
                record.name
            ))),
        }
    }

    pub(crate) fn forget(&self, record: &NetworkRecord) {
        let mut table = self.table.write().expect("no holder panics");
        table.by_id.remove(&record.id);
        if table.by_name.get(&record.name) == Some(&record.id) {
            table.by_name.remove(&record.name);
        }
    }

    /// Returns all networks by name.
    pub(crate) fn all(&self) -> Vec<Arc<NetworkRecord>> {
        let table = self.table.read().expect("no holder panics");
        let mut all: Vec<_> = table.by_id.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<Arc<NetworkRecord>> {
        let table = self.table.read().expect("no holder panics");
        table.by_id.get(id).cloned()
    }

    /// Finds a network by full id, by name or by the unique beginning of an id.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<NetworkRecord>> {
        let missing = || Error::not_found(format!("network {name} not found"));
        if name.is_empty() {
            return Err(missing());
        }
        let table = self.table.read().expect("no holder panics");
        if let Some(record) = table.by_id.get(name) {
            return Ok(record.clone());
        }
        if let Some(record) = table.by_name.get(name).and_then(|id| table.by_id.get(id)) {
            return Ok(record.clone());
        }
        let mut matching = table
            .by_id
            .range(name.to_owned()..)
            .take_while(|(id, _)| id.starts_with(name));
        match (matching.next(), matching.count()) {
            (Some((_, record)), 0) => Ok(record.clone()),
            (Some(_), others) => Err(Error::invalid(format!(
                "network {name} is ambiguous ({} matches found based on ID prefix)",
                others + 1
            ))),
            (None, _) => Err(missing()),
        }
    }

    /// Holds a name for a network in the making.
    ///
    /// # Errors
    /// A network has it, or is about to (conflict).
    pub(crate) fn hold_name(&self, name: &str) -> Result<HeldName> {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.table.read().expect("no holder panics");
        if table.by_name.contains_key(name) || !making.insert(name.to_owned()) {
            return Err(Error::conflict(format!(
                "network with name {name} already exists"
            )));
        }
        Ok(HeldName {
            name: name.to_owned(),
            making: self.making.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn network(id: &str, name: &str) -> NetworkRecord {
        NetworkRecord {
            id: id.to_owned(),
            name: name.to_owned(),
            ..NetworkRecord::default()
        }
    }

    #[test]
    fn a_network_is_found_by_id_then_name_then_beginning() {
        let all = Networks::default();
        all.insert(network("aa11", "aa22"));
        all.insert(network("aa22", "x"));
        all.insert(network("bb33", "aa"));
        let found = |name: &str| {
            all.find(name)
                .map(|record| record.id.clone())
                .map_err(|error| error.to_string())
        };
        // An id comes before a name, a name before the beginning of an id.
        assert_eq!(found("aa22"), Ok("aa22".to_owned()));
        assert_eq!(found("aa"), Ok("bb33".to_owned()));
        assert_eq!(found("b"), Ok("bb33".to_owned()));
        assert_eq!(
            found("a"),
            Err("network a is ambiguous (2 matches found based on ID prefix)".to_owned())
        );
        for missing in ["", "c"] {
            assert_eq!(
                found(missing),
                Err(format!("network {missing} not found")),
                "{missing}"
            );
        }
    }

    #[test]
    fn a_name_is_held_until_it_is_taken_or_let_go() {
        let all = Networks::default();
        let held = all.hold_name("web").unwrap();
        assert!(all.hold_name("web").is_err());
        drop(held);
        let held = all.hold_name("web").unwrap();
        let record = all.insert(network("aa11", "web"));
        drop(held);
        assert_eq!(
            all.hold_name("web").unwrap_err().to_string(),
            "network with name web already exists"
        );
        all.forget(&record);
        all.hold_name("web").unwrap();
    }

    #[test]
    fn of_two_who_remove_a_network_the_second_finds_nothing() {
        let all = Networks::default();
        let record = all.insert(network("aa11", "web"));
        let removed = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let Ok(_alone) = all.remove_alone(&record) else {
                        return;
                    };
                    std::thread::yield_now();
                    all.forget(&record);
                    removed.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(removed.into_inner(), 1);
        assert_eq!(
            all.remove_alone(&record).unwrap_err().to_string(),
            "network web not found"
        );
    }
}
