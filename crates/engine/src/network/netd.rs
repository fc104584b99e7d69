//! netd, the process that holds host ports and answers names: started when it is first needed, and again after its death.

use std::path::Path;
use std::sync::Arc;

use gantry_api::port::{PortReserver, Reservation, ReserveError};

use crate::{Engine, Result};

/// netd, as the network's holder of host ports. It is started when the first port is wanted.
pub(crate) struct Netd {
    options: gantry_netd::client::SpawnOptions,
    client: std::sync::Mutex<Option<Arc<gantry_netd::client::Client>>>,
    /// It was ended for good. Held while it is looked after, so that nobody starts it again in between.
    ended: std::sync::Mutex<bool>,
}

impl Netd {
    pub(crate) fn open(exec_root: &Path) -> std::io::Result<Netd> {
        let options = gantry_netd::client::SpawnOptions::this_binary(exec_root);
        Ok(Netd {
            options,
            client: std::sync::Mutex::new(None),
            ended: std::sync::Mutex::new(false),
        })
    }

    /// Looks whether netd lives, if it was ever needed: a dead one is started again and takes its ports back.
    fn look(&self) {
        let ended = self.ended.lock().expect("no holder panics");
        if *ended {
            return;
        }
        let client = self.client.lock().expect("no holder panics").clone();
        if let Some(client) = client
            && let Err(error) = client.status()
        {
            tracing::error!(%error, "netd does not answer");
        }
    }

    /// Tells whether netd may live or own anything: without a state it need not be started to say so.
    fn is_needed(&self) -> bool {
        let state = gantry_netd::client::state_dir(&self.options.exec_root);
        let any = std::fs::read_dir(state)
            .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name() != "lock"));
        any || self.client.lock().expect("no holder panics").is_some()
    }

    /// Ends netd for good.
    pub(super) fn end(&self) -> std::io::Result<()> {
        let mut ended = self.ended.lock().expect("no holder panics");
        *ended = true;
        if !self.is_needed() {
            return Ok(());
        }
        self.client().map_err(std::io::Error::other)?.shutdown()
    }

    fn client(&self) -> Result<Arc<gantry_netd::client::Client>, ReserveError> {
        let mut slot = self.client.lock().expect("no holder panics");
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        let client = gantry_netd::client::Client::open(self.options.clone())
            .map_err(ReserveError::Unavailable)?;
        Ok(slot.insert(Arc::new(client)).clone())
    }
}

impl PortReserver for Netd {
    fn reserve(&self, owner: &str, reservations: &[Reservation]) -> Result<(), ReserveError> {
        self.client()?.reserve(owner, reservations)
    }

    fn release(&self, owner: &str) -> Result<(), ReserveError> {
        self.client()?.release(owner)
    }

    fn owners(&self) -> Result<Vec<String>, ReserveError> {
        if !self.is_needed() {
            return Ok(Vec::new());
        }
        self.client()?.owners()
    }

    fn guard(&self, table: &str, interfaces: &[String]) -> Result<(), ReserveError> {
        self.client()?.guard(table, interfaces)
    }
}

/// How often netd is looked after. Until then ports are carried by the firewall, names and reservations wait.
const LOOK: std::time::Duration = std::time::Duration::from_millis(500);

impl Engine {
    /// Looks after netd for as long as the engine lives.
    pub(crate) fn watch_netd(&self) {
        let netd = Arc::downgrade(&self.inner.netd);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(netd) = netd.upgrade() else { return };
                if crate::blocking::run(move || netd.look()).await.is_err() {
                    return;
                }
            }
        });
    }
}
