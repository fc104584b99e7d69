//! `inspect`: everything known of one container.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use gantry_network::{Endpoint, PublishedPort};

use super::record::Record;
use crate::network::EndpointSettings;
use crate::{Engine, Result};

/// A container in full.
#[derive(Clone, Debug)]
pub struct Inspect {
    pub record: Arc<Record>,
    /// Bytes of the writable layer and of the whole root, when asked for.
    pub sizes: Option<(u64, u64)>,
    pub network: NetworkView,
    pub exec_ids: Vec<String>,
    /// Links of old as Docker shows them, `/name:/container/alias`.
    pub links: Vec<String>,
    pub hostname_path: PathBuf,
    pub hosts_path: PathBuf,
    pub resolv_conf_path: PathBuf,
    /// Layer directories of the root: lower ones topmost first, upper, work.
    pub layers: Option<(Vec<PathBuf>, PathBuf, PathBuf)>,
}

/// A container's places on its networks.
#[derive(Clone, Debug, Default)]
pub struct NetworkView {
    /// By name of the network; names that no network has may be among them.
    pub networks: BTreeMap<String, EndpointView>,
    /// The default bridge's interface, if the container is on it alone by its mode; else empty.
    pub bridge_interface: String,
    pub ports: Vec<PublishedPort>,
}

/// A container's place on one network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointView {
    /// What was wished for.
    pub settings: EndpointSettings,
    /// Empty until the container has run on the network.
    pub network_id: String,
    /// `None` while the container does not run, and on networks without addresses.
    pub place: Option<Place>,
    /// Nobody comes in by it: no port of the container is published there, nor shown as one that could be.
    pub is_internal: bool,
    /// Names that it answers to; empty on networks without names.
    pub dns_names: Vec<String>,
}

/// What a running container has on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub endpoint_id: String,
    pub mac: String,
    pub ipv4: Option<Ipv4Addr>,
    pub prefix_len: u8,
    pub gateway: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    pub prefix_len_v6: u8,
    pub gateway_v6: Option<Ipv6Addr>,
}

impl From<&Endpoint> for Place {
    fn from(endpoint: &Endpoint) -> Place {
        Place {
            endpoint_id: endpoint.id.clone(),
            mac: endpoint.mac.to_string(),
            ipv4: endpoint.ipv4,
            prefix_len: endpoint.prefix_len,
            gateway: endpoint.gateway,
            ipv6: endpoint.ipv6,
            prefix_len_v6: endpoint.prefix_len_v6,
            gateway_v6: endpoint.gateway_v6,
        }
    }
}

impl Engine {
    /// Inspects a container; `size` measures its files.
    pub async fn inspect(&self, name: &str, size: bool) -> Result<Inspect> {
        let container = self.container(name)?;
        let record = container.record();
        let sizes = if size {
            Some(self.sizes(&record).await?)
        } else {
            None
        };
        let directory = match record.host.network_mode.strip_prefix("container:") {
            Some(other) => self.directory(other),
            None => self.directory(&record.id),
        };
        Ok(Inspect {
            network: self.network_view(&record),
            exec_ids: self.exec_ids(&record.id),
            links: self.shown_links(&record),
            hostname_path: directory.join("hostname"),
            hosts_path: directory.join("hosts"),
            resolv_conf_path: directory.join("resolv.conf"),
            layers: self
                .overlay(&record)
                .ok()
                .map(|overlay| (overlay.lowers, overlay.upper, overlay.work)),
            record,
            sizes,
        })
    }

    pub(crate) fn network_view(&self, record: &Record) -> NetworkView {
        let running = record.state.status.has_process();
        let networks = record
            .networks
            .iter()
            .map(|(name, settings)| (name.clone(), self.endpoint_view(record, name, settings)))
            .collect();
        let bridge = (record.host.network_mode == "bridge" && running)
            .then(|| self.inner.network.bridge())
            .flatten();
        NetworkView {
            networks,
            bridge_interface: bridge.map(|bridge| bridge.interface).unwrap_or_default(),
            ports: if running {
                record.acquired.ports.clone()
            } else {
                Vec::new()
            },
        }
    }

    fn endpoint_view(
        &self,
        record: &Record,
        name: &str,
        settings: &EndpointSettings,
    ) -> EndpointView {
        let network = self.inner.networks.find(name).ok();
        let running = record.state.status.has_process();
        // One that a user removed and made again meanwhile is another.
        let id = match &network {
            Some(network) if running => network.id.clone(),
            _ => settings.network_id.clone(),
        };
        let is_internal = network.as_ref().is_some_and(|network| network.internal);
        let has_names =
            (running || settings.known) && network.is_some_and(|network| network.has_names());
        let endpoint = record
            .acquired
            .endpoints
            .iter()
            .find(|endpoint| endpoint.network == id)
            .filter(|_| running);
        EndpointView {
            settings: settings.clone(),
            place: endpoint.map(Place::from),
            network_id: id,
            is_internal,
            dns_names: if has_names {
                crate::network::dns_names(record, settings)
            } else {
                Vec::new()
            },
        }
    }
}
