//! `disconnect`: a container leaves a network.

use crate::{Engine, Error, Result};

impl Engine {
    /// Disconnects a container from a network; `force` also where the container is gone.
    ///
    /// # Errors
    /// Not found; Docker's texts for what is forbidden.
    pub async fn disconnect_network(
        &self,
        network: &str,
        container: &str,
        _force: bool,
    ) -> Result<()> {
        self.inner.networks.find(network)?;
        self.container(container)?;
        Err(Error::system("containers cannot be disconnected yet"))
    }
}
