//! `create`: a network from the user's wishes.

use std::collections::BTreeMap;

use super::record::Ipam;
use crate::{Engine, Error, Result};

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct NetworkCreate {
    pub name: String,
    /// Empty for `bridge`.
    pub driver: String,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub config_only: bool,
    /// Name of the network whose configuration is taken; empty for none.
    pub config_from: String,
    /// Empty for `local`.
    pub scope: String,
    /// `None` leaves it to the daemon's defaults.
    pub enable_ipv4: Option<bool>,
    pub enable_ipv6: Option<bool>,
    pub ipam: Ipam,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// A network that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedNetwork {
    pub id: String,
    pub warning: String,
}

impl Engine {
    /// Creates a network.
    ///
    /// # Errors
    /// Docker's texts: a name in use (conflict), wishes that make no sense (invalid), addresses that are taken and what
    /// needs a swarm (forbidden).
    pub async fn create_network(&self, create: NetworkCreate) -> Result<CreatedNetwork> {
        let _held = self.inner.networks.hold_name(&create.name)?;
        Err(Error::system("networks cannot be created yet"))
    }
}
