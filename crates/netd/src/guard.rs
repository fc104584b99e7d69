//! Watches over the firewall table while the daemon may be dead: `route_localnet` on a bridge is harmless only as long
//! as the table's rule drops loopback addresses that come from elsewhere (CVE-2020-8558). When the table is gone the
//! switch goes, too; netd's own sockets then answer on the loopback. The daemon makes the rules again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gantry_sys::netlink::{Family, Socket};
use gantry_sys::nft;
use serde::{Deserialize, Serialize};

/// What is watched; kept in a file for the next netd.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    pub table: String,
    pub interfaces: Vec<String>,
}

fn path(directory: &Path) -> PathBuf {
    // Not `.json`, which is an owner's.
    directory.join("guard")
}

impl Guard {
    /// Reads the file; without a readable one there is nothing to watch.
    pub fn load(directory: &Path) -> Self {
        fs::read(path(directory))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Writes the file, whole or not at all.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        let temporary = directory.join(".guard.new");
        fs::write(&temporary, serde_json::to_vec(self)?)?;
        fs::rename(temporary, path(directory))
    }

    /// Says whether all names can be those of interfaces, since they become parts of paths.
    pub fn is_valid(&self) -> bool {
        let valid = |name: &String| {
            (1..=15).contains(&name.len())
                && !name.contains(['/', '\0'])
                && name != "."
                && name != ".."
        };
        self.interfaces.iter().all(valid)
    }

    /// Takes the switch off unless the table stands.
    pub fn enforce(&self, socket: &Socket) {
        if self.interfaces.is_empty() {
            return;
        }
        let stands = nft::tables(socket)
            .is_ok_and(|tables| tables.iter().any(|(_, name)| *name == self.table));
        if stands {
            return;
        }
        for interface in &self.interfaces {
            // A bridge that is gone needs nothing.
            let _ = fs::write(
                format!("/proc/sys/net/ipv4/conf/{interface}/route_localnet"),
                "0",
            );
        }
    }
}

/// Opens the socket that hears of changes, and the one to ask by.
pub fn open() -> io::Result<(Socket, Socket)> {
    let events = Socket::open(Family::Netfilter)?;
    events.subscribe(nft::GROUP)?;
    Ok((events, Socket::open(Family::Netfilter)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let check = |name: &str| {
            Guard {
                table: "t".to_owned(),
                interfaces: vec![name.to_owned()],
            }
            .is_valid()
        };
        assert!(check("docker0"));
        for name in ["", "..", "a/b", "a-name-too-long-for-it"] {
            assert!(!check(name), "{name}");
        }
    }
}
