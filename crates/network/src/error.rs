//! What can go wrong, told apart by what a caller can do about it. Texts that reach users are Docker's.

use std::io;
use std::net::{IpAddr, SocketAddr};

use gantry_api::error::ErrorKind;
use gantry_api::port::{Protocol, ReserveError};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another container of this engine has the port.
    #[error("Bind for {address}:{port} failed: port is already allocated")]
    PortAllocated {
        address: IpAddr,
        port: u16,
        protocol: Protocol,
    },
    /// A process of the host has the port.
    #[error("failed to bind host port for {host}:{container}/{protocol}: address already in use")]
    PortInUse {
        host: SocketAddr,
        container: SocketAddr,
        protocol: Protocol,
    },
    /// The host has no such address, or the kernel refused the port for another reason.
    #[error("failed to bind host port for {host}:{container}/{protocol}: {reason}")]
    PortRefused {
        host: SocketAddr,
        container: SocketAddr,
        protocol: Protocol,
        reason: String,
    },
    /// The kernel knows no sockets of the protocol.
    #[error("error starting userland proxy: failed to listen on {host}: {reason}")]
    ProtocolUnknown { host: SocketAddr, reason: String },
    /// Every port of the range is taken.
    #[error("all ports are allocated")]
    PortsExhausted,
    /// The asked address belongs to another container.
    #[error("Address already in use")]
    AddressInUse { address: IpAddr },
    /// The network is full.
    #[error("no available {family} addresses on this network's address pools: {name} ({id})")]
    AddressesExhausted {
        family: &'static str,
        name: String,
        id: String,
    },
    /// No subnet is left for another network.
    #[error("all predefined address pools have been fully subnetted")]
    PoolsExhausted,
    /// The bridge has as many ports as the kernel allows.
    #[error(
        "bridge `{interface}` is full: the kernel allows 1023 containers on one bridge network; put further ones on another network"
    )]
    BridgeFull { interface: String },
    #[error("network {0} not found")]
    NetworkNotFound(String),
    /// The request contradicts what exists; the text says how.
    #[error("{0}")]
    Conflict(String),
    /// The request makes no sense; the text says why.
    #[error("{0}")]
    Invalid(String),
    /// The holder of host ports cannot be reached.
    #[error("reserve host ports")]
    Reserver(#[source] ReserveError),
    /// The kernel refused an operation.
    #[error("{operation} `{object}`")]
    Kernel {
        operation: &'static str,
        object: String,
        source: io::Error,
    },
}

impl Error {
    /// Says which answer of the API the error becomes.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NetworkNotFound(_) => ErrorKind::NotFound,
            Self::Invalid(_) => ErrorKind::InvalidParameter,
            Self::AddressInUse { .. } | Self::Conflict(_) => ErrorKind::Forbidden,
            Self::Reserver(_) => ErrorKind::Unavailable,
            _ => ErrorKind::System,
        }
    }

    /// Gives the text with its cause.
    pub(crate) fn whole(&self) -> String {
        match std::error::Error::source(self) {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }

    pub(crate) fn kernel(
        operation: &'static str,
        object: impl Into<String>,
    ) -> impl FnOnce(io::Error) -> Self {
        let object = object.into();
        move |source| Self::Kernel {
            operation,
            object,
            source,
        }
    }
}
