//! Watches over the firewall table while the daemon may be dead: `route_localnet` on a bridge is harmless only as long
//! as a rule drops loopback addresses that come from elsewhere (CVE-2020-8558). When the table is gone the switch goes,
//! too; netd's own sockets then answer on the loopback. The daemon makes the rules again.
//!
//! Between a flush and that moment the same rule stands in a table of netd's own, which a flush of the ruleset by others
//! passes by, because netd's socket owns it. It outlives a killed netd until the next one takes it over.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gantry_sys::netlink::{Family, Socket};
use gantry_sys::nft::{
    self, Base, BaseChain, Cmp, Expression, Hook, MetaKey, Policy, Transaction, Verdict, register,
};
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

const CHAIN: &str = "guard";
/// `raw`: before connection tracking and all translation.
const PRIORITY: i32 = -300;
const INET: nft::Family = nft::Family::Inet;

/// Gives the name of netd's own table beside the engine's.
fn own_table(table: &str) -> String {
    format!("{table}-guard")
}

/// Makes netd's own table, or takes over that of its predecessor. The socket owns it from now on.
///
/// # Errors
/// A kernel before 5.12 has no owned tables.
pub fn raise(socket: &Socket, table: &str) -> io::Result<()> {
    let name = own_table(table);
    // One that outlives its owner needs Linux 6.9.
    add(socket, &name, true).or_else(|_| add(socket, &name, false))?;
    let mut rules = Transaction::new();
    let base = BaseChain {
        kind: "filter",
        hook: Hook::Prerouting,
        priority: PRIORITY,
        policy: Policy::Accept,
    };
    rules.add_chain(INET, &name, CHAIN, Some(&base));
    rules.flush_chain(INET, &name, CHAIN);
    for (offset, comment) in [(16, "loopback destination"), (12, "loopback source")] {
        rules.add_rule(INET, &name, CHAIN, &drop_loopback(offset), comment);
    }
    Ok(rules.commit(socket)?)
}

fn add(socket: &Socket, name: &str, persists: bool) -> io::Result<()> {
    let mut table = Transaction::new();
    table.add_owned_table(INET, name, persists);
    Ok(table.commit(socket)?)
}

/// Takes netd's own table away; none is no error.
pub fn lower(socket: &Socket, table: &str) -> io::Result<()> {
    let mut gone = Transaction::new();
    gone.delete_table(INET, &own_table(table));
    match gone.commit(socket) {
        Err(error) if error.errno() == libc::ENOENT => Ok(()),
        done => Ok(done?),
    }
}

/// `iifname != "lo" ip daddr 127.0.0.0/8 drop`, or the same of the source; the offset is that of the address.
fn drop_loopback(offset: u32) -> Vec<Expression> {
    const R0: u32 = register(0);
    const NFPROTO_IPV4: u8 = 2;
    let compare = |operator, value: &[u8]| Expression::Cmp {
        register: R0,
        operator,
        value: value.to_vec(),
    };
    let meta = |key| Expression::Meta { key, to: R0 };
    let mut lo = [0; 16];
    lo[..2].copy_from_slice(b"lo");
    vec![
        meta(MetaKey::IifName),
        compare(Cmp::NotEqual, &lo),
        meta(MetaKey::NfProto),
        compare(Cmp::Equal, &[NFPROTO_IPV4]),
        Expression::Payload {
            base: Base::Network,
            offset,
            length: 1,
            to: R0,
        },
        compare(Cmp::Equal, &[127]),
        Expression::Verdict(Verdict::Drop),
    ]
}

/// Opens the socket that hears of changes, and the one to ask by.
pub fn open() -> io::Result<(Socket, Socket)> {
    let events = Socket::open(Family::Netfilter)?;
    events.subscribe(&[nft::GROUP])?;
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
