//! `disconnect`: a container leaves a network.

use std::sync::Arc;

use gantry_api::error::ErrorKind;

use crate::container::{Container, Record};
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
        let network = match self.inner.networks.find(network) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return self.forget_network(found, network.to_owned(), error).await;
            }
            network => network?,
        };
        self.own(found, move |engine, container, owner| async move {
            let (own, at, mut lent) = (engine.clone(), container.clone(), owner.lend());
            let left = blocking::run(move || own.disconnect_blocking(&at, &mut lent, &network));
            let left = left.await?;
            drop(owner);
            left
        })
        .await
    }

    /// Takes a network that was removed out of the wishes of a container that does not run: it could not start again.
    /// Otherwise gives `missing`.
    async fn forget_network(
        &self,
        container: Arc<Container>,
        network: String,
        missing: Error,
    ) -> Result<()> {
        self.own(container, move |engine, container, mut owner| async move {
            let record = container.record();
            let wished = record
                .networks
                .iter()
                .find(|(name, settings)| **name == network || settings.network_id == network);
            let Some((name, _)) = wished.filter(|_| !record.state.status.has_process()) else {
                return Err(missing);
            };
            let name = name.clone();
            let forget = move |record: &mut Record| drop(record.networks.remove(&name));
            engine.save(&container, &mut owner, forget).await.map(drop)
        })
        .await
    }
}
