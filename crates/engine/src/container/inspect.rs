//! `inspect`: everything known of one container.

use std::path::PathBuf;
use std::sync::Arc;

use gantry_network::{Endpoint, NetworkInfo, PublishedPort};

use super::record::Record;
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

/// A container's place on its network.
#[derive(Clone, Debug, Default)]
pub struct NetworkView {
    /// `bridge`, `host`, `none`, a name that no network has, or empty for another container's.
    pub network: String,
    /// The network's id; empty when the container is on none.
    pub network_id: String,
    /// `None` while the container does not run, and on networks without addresses.
    pub endpoint: Option<Endpoint>,
    /// The hardware address that the user chose, until the run has one.
    pub wanted_mac: String,
    pub bridge: Option<NetworkInfo>,
    pub ports: Vec<PublishedPort>,
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
        let mode = record.host.network_mode.as_str();
        if mode.starts_with("container:") {
            return NetworkView::default();
        }
        let running = record.state.status.has_process();
        NetworkView {
            network: mode.to_owned(),
            network_id: self.network_id(mode),
            wanted_mac: match mode {
                "bridge" => record.config.mac_address.clone(),
                _ => String::new(),
            },
            endpoint: record.acquired.endpoint.clone().filter(|_| running),
            bridge: (mode == "bridge")
                .then(|| self.inner.network.bridge())
                .flatten(),
            ports: if running {
                record.acquired.ports.clone()
            } else {
                Vec::new()
            },
        }
    }
}
