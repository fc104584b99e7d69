//! `disconnect`: a container leaves a network.

use gantry_api::error::ErrorKind;

use crate::{Engine, Error, Result, blocking};

impl Engine {
    /// Disconnects a container from a network. With `force` a container that is not there is an endpoint that is not
    /// there: nothing of this engine outlives its container.
    ///
    /// # Errors
    /// Not found; Docker's texts for what is forbidden.
    pub async fn disconnect_network(
        &self,
        network: &str,
        container: &str,
        force: bool,
    ) -> Result<()> {
        let found = match self.container_of_user(container) {
            Err(error) if force && error.kind() == ErrorKind::NotFound => {
                self.inner.networks.find(network)?;
                return Err(Error::not_found(format!("endpoint {container} not found")));
            }
            found => found?,
        };
        let network = self.inner.networks.find(network)?;
        self.own(found, move |engine, container, owner| async move {
            let (own, at, mut lent) = (engine.clone(), container.clone(), owner.lend());
            let left = blocking::run(move || own.disconnect_blocking(&at, &mut lent, &network));
            let left = left.await?;
            drop(owner);
            left
        })
        .await
    }
}
