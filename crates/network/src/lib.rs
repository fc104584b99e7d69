//! Networks of one engine: bridges, macvlan, addresses, published ports and the firewall rules that carry them.
//!
//! [`Stack`] holds them all. A container's way through it is `allocate` (pure: an [`Endpoint`] to put into the record),
//! `connect` (links, addresses and routes in its [`Netns`]), `reserve_ports` and `publish`, and at its end `release`,
//! which may be called at any time and again. Everything is synchronous. Every object made in the kernel carries the
//! engine's id, and nothing without it is touched. Names are netd's.

mod config;
pub mod dns;
mod error;
mod firewall;
mod ipam;
mod netns;
mod ports;
pub mod resolv;
mod stack;
mod types;

pub use config::{
    BridgeConfig, GatewayMode, Ipv6Config, IpvlanFlag, IpvlanMode, MacvlanConfig, MacvlanKind,
    MacvlanMode, NetworkConfig,
};
pub use error::Error;
pub use gantry_api::port::{PortReserver, Protocol, Reservation, ReserveError};
pub use ipam::{default_gateway, is_of_the_subnet};
pub use netns::{Netns, loopback_up};
pub use stack::{BadBridgeName, Stack, check_bridge_name};
pub use types::{
    AddressPool, DefaultRoutes, Endpoint, EndpointRequest, MacAddress, NetnsOf, NetworkInfo,
    OnRepair, PortMapping, PortRange, PublishedPort, Repair, Report, StackConfig, SubnetInfo, Warn,
};
