//! The kernel switches that networks need: forwarding, and loopback routing on bridges with published ports.

use std::fs;
use std::io;
use std::path::Path;

use super::{Shared, lock};
use crate::Error;
use crate::firewall;

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

fn localnet_path(interface: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{interface}/route_localnet")
}

fn write(path: &str, value: &str) -> Result<(), Error> {
    fs::write(path, value).map_err(Error::kernel("write", path))
}

/// Writes a switch unless it has the value already.
fn ensure(path: &str, value: &str) -> Result<bool, Error> {
    let standing = fs::read_to_string(path).map_err(Error::kernel("read", path))?;
    if standing.trim() == value {
        return Ok(false);
    }
    write(path, value)?;
    Ok(true)
}

impl Shared {
    /// Switches `ip_forward` on where it is off and wanted. Says whether this engine did so since the boot, now or
    /// earlier, and therefore has to keep the other interfaces apart.
    pub(super) fn enable_forwarding(&self) -> Result<bool, Error> {
        if !self.config.ip_forward {
            return Ok(false);
        }
        let note = self.state_file("ip_forward");
        if ensure(IP_FORWARD, "1")? {
            fs::write(&note, "switched on by this engine\n")
                .map_err(Error::kernel("write", note.display().to_string()))?;
        }
        Ok(Path::new(&note).exists() && !self.config.ip_forward_no_drop)
    }

    /// Sets `route_localnet` on each bridge that has a port to be reached by 127.0.0.1, and only there.
    ///
    /// Called after the guard against CVE-2020-8558 stands.
    pub(super) fn apply_loopback_routing(&self) -> Result<Vec<String>, Error> {
        let wanted: Vec<(String, bool)> = {
            let state = lock(&self.state);
            state
                .networks
                .values()
                .map(|network| {
                    let needed = self.config.firewall
                        && network.endpoints.keys().any(|id| {
                            state.published.get(id).is_some_and(|publications| {
                                publications
                                    .iter()
                                    .any(|publication| firewall::needs_loopback(&publication.port))
                            })
                        });
                    (network.info.interface.clone(), needed)
                })
                .collect()
        };
        let mut changed = Vec::new();
        for (interface, needed) in wanted {
            let path = localnet_path(&interface);
            match ensure(&path, if needed { "1" } else { "0" }) {
                Ok(true) => changed.push(path),
                // The bridge is gone; a reconciliation makes it again and comes here anew.
                Err(Error::Kernel { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                answer => drop(answer?),
            }
        }
        Ok(changed)
    }

    /// Takes `route_localnet` off all bridges at once: the guard is missing.
    pub(super) fn forbid_loopback_routing(&self) {
        for interface in self.interfaces() {
            // Nothing better can be done about a failure than going on to the next one; the guard comes back anyway.
            let _ = fs::write(localnet_path(&interface), "0");
        }
    }
}
