//! The kernel switches that networks need: forwarding, and loopback routing on bridges with published ports.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use gantry_sys::netlink::Socket;

use super::{Shared, lock};
use crate::Error;
use crate::firewall::{self, foreign};

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// The machine's neighbour table is one for all namespaces, and by default it holds 1024 entries: a container that
/// talks takes two, one of the host's and one of its own.
const NEIGHBOURS: [(&str, u32); 3] = [
    ("/proc/sys/net/ipv4/neigh/default/gc_thresh3", 65_536),
    ("/proc/sys/net/ipv4/neigh/default/gc_thresh2", 32_768),
    ("/proc/sys/net/ipv4/neigh/default/gc_thresh1", 16_384),
];
/// So many containers are served by the kernel's default.
const NEIGHBOURS_DEFAULT_SERVES: usize = 256;

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

    /// Switches `ip_forward` off again if this engine switched it on and nobody else forwards: without our table the
    /// machine would be a router. Where another firewall has rules for what is forwarded, others rely on the switch by
    /// now, and its rules say what may pass.
    pub(super) fn withdraw_forwarding(&self, nfnl: &Socket) -> Result<(), Error> {
        let note = self.state_file("ip_forward");
        let legacy = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
        let failed = Error::kernel("look through", "other firewalls");
        if !note.exists()
            || !legacy.is_empty()
            || foreign::others_forward(nfnl, &self.table).map_err(failed)?
        {
            return Ok(());
        }
        ensure(IP_FORWARD, "0")?;
        fs::remove_file(&note).map_err(Error::kernel("remove", note.display().to_string()))
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
        let guarded: Vec<String> = wanted
            .iter()
            .filter(|(_, needed)| *needed)
            .map(|(interface, _)| interface.clone())
            .collect();
        {
            // Whoever outlives this daemon must know before the switch is on.
            let mut known = lock(&self.guarded);
            if known.as_ref() != Some(&guarded) && (known.is_some() || !guarded.is_empty()) {
                self.config
                    .reserver
                    .guard(&self.table, &guarded)
                    .map_err(Error::Reserver)?;
                *known = Some(guarded);
            }
        }
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

    /// Makes room in the neighbour table once there are many endpoints; never less room than there was.
    pub(super) fn make_room_for_neighbours(&self) {
        let endpoints: usize = {
            let state = lock(&self.state);
            state
                .networks
                .values()
                .map(|network| network.endpoints.len())
                .sum()
        };
        if endpoints <= NEIGHBOURS_DEFAULT_SERVES
            || self.neighbours_raised.swap(true, Ordering::Relaxed)
        {
            return;
        }
        for (path, wanted) in NEIGHBOURS {
            let raised = fs::read_to_string(path).and_then(|standing| {
                let enough = standing
                    .trim()
                    .parse::<u32>()
                    .is_ok_and(|standing| standing >= wanted);
                if enough {
                    Ok(())
                } else {
                    fs::write(path, wanted.to_string())
                }
            });
            match raised {
                // Only the machine's first namespace has these switches.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => (self.config.warn)(&format!("write `{path}`: {error}")),
                Ok(()) => {}
            }
        }
    }

    /// Takes `route_localnet` off all bridges at once: the guard is missing.
    pub(super) fn forbid_loopback_routing(&self) {
        for interface in self.interfaces() {
            // Nothing better can be done about a failure than going on to the next one; the guard comes back anyway.
            let _ = fs::write(localnet_path(&interface), "0");
        }
    }
}
