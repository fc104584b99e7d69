//! `create`: a network from the user's wishes.
//!
//! The network is made in the kernel first, where its objects bear the engine's mark, and then written down. A daemon that
//! dies in between leaves what the next one removes, and a user who was not told of a network.

use std::collections::BTreeMap;

use gantry_api::error::ErrorKind;
use gantry_network::{NetworkConfig, NetworkInfo};

use super::ipam::Family;
use super::record::{Ipam, NetworkRecord, PREDEFINED};
use super::{ipam, options};
use crate::failpoint::around;
use crate::store::Durability;
use crate::{Engine, Error, Result};

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct NetworkCreate {
    pub name: String,
    /// Empty for `bridge`.
    pub driver: String,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub config_only: bool,
    /// Name of the network whose configuration is taken; empty for none.
    pub config_from: String,
    /// Empty for `local`.
    pub scope: String,
    /// `None` leaves it to the daemon's defaults.
    pub enable_ipv4: Option<bool>,
    pub enable_ipv6: Option<bool>,
    pub ipam: Ipam,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// A network that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedNetwork {
    pub id: String,
    pub warning: String,
}

fn forbidden(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Forbidden, text)
}

impl Engine {
    /// Creates a network.
    ///
    /// # Errors
    /// Docker's texts: a name in use (conflict), wishes that make no sense (invalid), addresses that are taken and what
    /// needs a swarm (forbidden), a driver that is not there (not found).
    pub async fn create_network(&self, create: NetworkCreate) -> Result<CreatedNetwork> {
        let engine = self.clone();
        // Not cancelled by a client that goes away: a network without a record would stay until the next start.
        let task = tokio::spawn(crate::blocking::run(move || {
            engine.create_network_blocking(create)
        }));
        task.await
            .map_err(|error| Error::system("an engine task died").caused_by(error))??
    }

    fn create_network_blocking(&self, create: NetworkCreate) -> Result<CreatedNetwork> {
        if create.name.trim().is_empty() {
            return Err(Error::invalid("invalid name: name is empty"));
        }
        if PREDEFINED.contains(&create.name.as_str()) {
            // The space at the end is Docker's.
            return Err(forbidden(format!(
                "operation is not permitted on predefined {} network ",
                create.name
            )));
        }
        let held = self.inner.networks.hold_name(&create.name)?;
        let mut record = self.network_record(create)?;
        ipam::check(&record.ipam)?;
        if !record.config_only {
            ipam::check_uses(&record.ipam, |family| has_gateway(&record, family))?;
            let config = configuration(&record)?;
            if matches!(config, NetworkConfig::Bridge(_)) {
                ipam::check_bridge(&record.ipam)?;
            }
            record.config = Some(config);
        }
        if let Some(config) = &mut record.config {
            let info = around("network.create", || {
                self.inner.network.create_network(config)
            })
            .map_err(super::error)?;
            settle(config, &info);
        }
        let written = around("network.record", || {
            self.inner
                .network_records
                .save(&record.id, &record, Durability::Synced)
        });
        if let Err(error) = written {
            if let Err(error) = self.inner.network.remove_network(&record.id) {
                tracing::error!(network = record.name, %error, "remove a network that could not be written down");
            }
            return Err(Error::io(
                format_args!("write the record of network {}", record.name),
                error,
            ));
        }
        let record = self.inner.networks.insert(record);
        drop(held);
        self.tell_network("create", &record, &[], record.created_ns);
        Ok(CreatedNetwork {
            id: record.id.clone(),
            warning: String::new(),
        })
    }

    /// Makes the record of a network from what is asked for, the daemon's defaults and the network that it is taken from.
    fn network_record(&self, create: NetworkCreate) -> Result<NetworkRecord> {
        let NetworkCreate {
            name,
            driver,
            internal,
            attachable,
            ingress,
            config_only,
            config_from,
            scope,
            enable_ipv4,
            enable_ipv6,
            ipam,
            options,
            labels,
        } = create;
        if scope == "swarm" {
            return Err(forbidden(
                "cannot create a swarm scoped network when swarm is not active",
            ));
        }
        if ingress {
            return Err(forbidden(
                "Ingress network can only be global scope network",
            ));
        }
        if config_only && (internal || attachable || !scope.is_empty()) {
            return Err(forbidden(
                "configuration network can only contain network specific fields. Network operator fields like [ ingress | \
                 internal | attachable | scope ] are not supported.",
            ));
        }
        let driver = if driver.is_empty() {
            "bridge".to_owned()
        } else {
            driver
        };
        match driver.as_str() {
            _ if config_only => {}
            "bridge" | "macvlan" | "ipvlan" => {}
            "host" | "null" => {
                return Err(forbidden(format!(
                    "only one instance of {driver:?} network is allowed"
                )));
            }
            "overlay" => {
                return Err(forbidden(
                    "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this \
                     node to swarm and try again.",
                ));
            }
            _ => return Err(Error::not_found(format!("plugin {driver:?} not found"))),
        }
        let mut record = NetworkRecord {
            id: crate::random_id(),
            name,
            created_ns: crate::now_ns(),
            driver: if config_only {
                "null".to_owned()
            } else {
                driver
            },
            scope: "local".to_owned(),
            internal,
            attachable,
            config_only,
            config_from,
            enable_ipv4: enable_ipv4.unwrap_or(true),
            enable_ipv6: enable_ipv6.unwrap_or(false),
            ipam,
            options,
            labels,
            config: None,
        };
        if record.config_from.is_empty() {
            self.fill_network(&mut record, enable_ipv4.is_some(), enable_ipv6.is_some())?;
        } else {
            self.take_configuration(&mut record)?;
        }
        match record.ipam.driver.as_str() {
            "" => record.ipam.driver = "default".to_owned(),
            "default" => {}
            "null" => return Err(Error::invalid("ipv4 pool is empty")),
            other => return Err(Error::not_found(format!("plugin {other:?} not found"))),
        }
        if !record.enable_ipv4 && !record.enable_ipv6 {
            return Err(Error::invalid("IPv4 or IPv6 must be enabled"));
        }
        Ok(record)
    }

    /// Fills in the daemon's defaults.
    fn fill_network(
        &self,
        record: &mut NetworkRecord,
        ipv4_given: bool,
        ipv6_given: bool,
    ) -> Result<()> {
        let defaults = &self.inner.config.default_network_options;
        for (key, value) in defaults.get(&record.driver).into_iter().flatten() {
            let entry = record.options.entry(key.clone());
            entry.or_insert_with(|| value.clone());
        }
        if let Some(value) = options::flag(&record.options, options::ENABLE_IPV4)?
            && !ipv4_given
        {
            record.enable_ipv4 = value;
        }
        if let Some(value) = options::flag(&record.options, options::ENABLE_IPV6)?
            && !ipv6_given
        {
            record.enable_ipv6 = value;
        }
        Ok(())
    }

    /// Takes the configuration of another network, which exists for that alone.
    fn take_configuration(&self, record: &mut NetworkRecord) -> Result<()> {
        if record.config_only {
            return Err(forbidden(
                "a configuration network cannot depend on another configuration network",
            ));
        }
        let own_ipam = !record.ipam.configs.is_empty()
            || !matches!(record.ipam.driver.as_str(), "" | "default")
            || record
                .ipam
                .options
                .as_ref()
                .is_some_and(|map| !map.is_empty());
        if own_ipam || !record.enable_ipv4 || record.enable_ipv6 || !record.labels.is_empty() {
            return Err(forbidden(
                "user specified configurations are not supported if the network depends on a configuration network",
            ));
        }
        if !record.options.is_empty() {
            return Err(forbidden(
                "network driver options are not supported if the network depends on a configuration network",
            ));
        }
        let missing = || {
            Error::not_found(format!(
                "configuration network {:?} does not exist",
                record.config_from
            ))
        };
        let from = self
            .inner
            .networks
            .find(&record.config_from)
            .ok()
            .filter(|from| from.config_only)
            .ok_or_else(missing)?;
        record.config_from.clone_from(&from.name);
        record.enable_ipv4 = from.enable_ipv4;
        record.enable_ipv6 = from.enable_ipv6;
        record.ipam.clone_from(&from.ipam);
        record.options.clone_from(&from.options);
        record.labels.clone_from(&from.labels);
        Ok(())
    }
}

/// Says whether a network has a gateway of a family where none is named.
fn has_gateway(record: &NetworkRecord, family: Family) -> bool {
    let key = match family {
        Family::V4 => "com.docker.network.bridge.gateway_mode_ipv4",
        Family::V6 => "com.docker.network.bridge.gateway_mode_ipv6",
    };
    record.driver != "bridge"
        || record
            .options
            .get(key)
            .is_none_or(|mode| mode != "isolated")
}

/// Works out what the stack is to make.
fn configuration(record: &NetworkRecord) -> Result<NetworkConfig> {
    Ok(match record.driver.as_str() {
        "bridge" => options::bridge(record)?.into(),
        _ => options::macvlan(record)?.into(),
    })
}

/// Keeps what was chosen: the next daemon makes the same network.
fn settle(config: &mut NetworkConfig, info: &NetworkInfo) {
    let (subnet, gateway, ipv6) = match config {
        NetworkConfig::Bridge(config) => {
            (&mut config.subnet, &mut config.gateway, &mut config.ipv6)
        }
        NetworkConfig::Macvlan(config) => {
            (&mut config.subnet, &mut config.gateway, &mut config.ipv6)
        }
    };
    if let Some(ipv4) = &info.ipv4 {
        *subnet = Some(ipv4.subnet);
        *gateway = ipv4.gateway.or(*gateway);
    }
    if let (Some(config), Some(ipv6)) = (ipv6, &info.ipv6) {
        config.subnet = Some(ipv6.subnet);
        config.gateway = ipv6.gateway.or(config.gateway);
    }
}
