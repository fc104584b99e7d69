//! `connect`: one more network for a container.

use super::settings::EndpointSettings;
use crate::{Engine, Error, Result};

impl Engine {
    /// Connects a container to a network, while it runs as well.
    ///
    /// # Errors
    /// Not found; Docker's texts for what is forbidden or makes no sense.
    pub async fn connect_network(
        &self,
        network: &str,
        container: &str,
        _settings: EndpointSettings,
    ) -> Result<()> {
        self.container(container)?;
        self.inner.networks.find(network)?;
        Err(Error::system("containers cannot be connected yet"))
    }
}
