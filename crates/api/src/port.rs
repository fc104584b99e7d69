//! Host ports: what the engine's network part asks of whoever holds the sockets, and the answers.
//!
//! The network crate decides which host ports a container gets, netd holds the sockets that reserve them. They are
//! strangers to each other, so the words they share are here.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Names a transport protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Gives the word used in `80/tcp`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Gives the protocol number (IANA, /etc/protocols).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(format!("invalid proto: {text}")),
        }
    }
}

/// Asks for one host port: a socket that keeps others away from it and carries to `target` what the firewall does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reservation {
    pub protocol: Protocol,
    /// The host's address; unspecified means every address of that family.
    pub address: IpAddr,
    pub port: u16,
    /// The container's address and port.
    pub target: SocketAddr,
}

/// Why a reservation was refused.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// Somebody else has the port.
    #[error("address already in use")]
    InUse {
        address: IpAddr,
        port: u16,
        protocol: Protocol,
    },
    /// The host has no such address.
    #[error("cannot assign requested address")]
    NoSuchAddress {
        address: IpAddr,
        port: u16,
        protocol: Protocol,
    },
    /// The kernel refused for another reason, for example too many open files.
    #[error("reserve `{address}` port {port}/{protocol}")]
    Refused {
        address: IpAddr,
        port: u16,
        protocol: Protocol,
        source: io::Error,
    },
    /// The holder of the sockets cannot be reached.
    #[error("speak to the holder of host ports")]
    Unavailable(#[source] io::Error),
}

/// Holds host ports for owners. Implemented by netd's client.
pub trait PortReserver: Send + Sync {
    /// Reserves all of `reservations` for `owner` or none. What the same owner holds already is left as it is.
    fn reserve(&self, owner: &str, reservations: &[Reservation]) -> Result<(), ReserveError>;
    /// Gives `to` all of `reservations` or none, and takes back what `from` holds. A port that `from` has is never free in
    /// between. An error leaves both as they were.
    fn transfer(
        &self,
        from: &str,
        to: &str,
        reservations: &[Reservation],
    ) -> Result<(), ReserveError>;
    /// Gives back everything that `owner` holds; nothing held is no error.
    fn release(&self, owner: &str) -> Result<(), ReserveError>;
    /// Lists the owners that hold something.
    fn owners(&self) -> Result<Vec<String>, ReserveError>;
    /// Has `route_localnet` taken off `interfaces` as soon as the nftables table `table` is gone, because the rule that
    /// makes it harmless went along (CVE-2020-8558). Replaces what was asked before; holds after the daemon's death.
    fn guard(&self, table: &str, interfaces: &[String]) -> Result<(), ReserveError>;
}
