//! `rm`: the network's objects in the kernel go, then its record.

use std::sync::Arc;

use gantry_api::error::ErrorKind;

use super::record::NetworkRecord;
use crate::failpoint::around;
use crate::{Engine, Error, Result};

impl Engine {
    /// Removes a network that no running container is on.
    ///
    /// # Errors
    /// Not found; pre-defined, in use (forbidden, with Docker's texts).
    pub async fn remove_network(&self, name: &str) -> Result<()> {
        let record = self.inner.networks.find(name)?;
        if !record.is_user_defined() {
            return Err(Error::new(
                ErrorKind::Forbidden,
                format!(
                    "{} is a pre-defined network and cannot be removed",
                    record.name
                ),
            ));
        }
        let engine = self.clone();
        let task = tokio::spawn(crate::blocking::run(move || {
            engine.remove_network_blocking(&record)
        }));
        task.await
            .map_err(|error| Error::system("an engine task died").caused_by(error))??
    }

    fn remove_network_blocking(&self, record: &Arc<NetworkRecord>) -> Result<()> {
        let refused = |why: String| {
            Error::new(
                ErrorKind::Forbidden,
                format!("error while removing network: {why}"),
            )
        };
        let _alone = self.inner.networks.remove_alone(record)?;
        let all = self.inner.networks.all();
        if record.config_only && all.iter().any(|other| other.config_from == record.name) {
            return Err(refused(format!(
                "configuration network {:?} is in use",
                record.name
            )));
        }
        let members = self.active_endpoints(record);
        if !members.is_empty() {
            let named = members.iter().map(|(name, endpoint)| {
                let short = endpoint.get(..12).unwrap_or(endpoint);
                format!("name:{name:?} id:{short:?}")
            });
            return Err(refused(format!(
                "network {} has active endpoints ({})",
                record.name,
                named.collect::<Vec<_>>().join(", ")
            )));
        }
        // Whoever gets an endpoint before this wins; afterwards there is no such network.
        around("network.remove", || {
            self.inner.network.remove_network(&record.id)
        })
        .map_err(super::error)?;
        around("network.forget", || {
            self.inner.network_records.delete(&record.id)
        })
        .map_err(|error| {
            Error::io(
                format_args!("delete the record of network {}", record.name),
                error,
            )
        })?;
        self.inner.networks.forget(record);
        self.tell_network("destroy", record, &[], crate::now_ns());
        Ok(())
    }

    /// Returns the names of the containers on the network and the ids of their endpoints, sorted.
    pub(super) fn active_endpoints(&self, record: &NetworkRecord) -> Vec<(String, String)> {
        let all = self.inner.containers.all();
        let own = all.iter().filter_map(|container| {
            let container = container.record();
            let mut endpoints = container.acquired.endpoints.iter();
            let endpoint = endpoints.find(|endpoint| endpoint.network == record.id)?;
            Some((container.name.clone(), endpoint.id.clone()))
        });
        let mut members: Vec<_> = own.collect();
        members.sort_unstable();
        members
    }
}
