//! `connect`: one more network for a container.

use super::settings::EndpointSettings;
use crate::{Engine, Error, Result, blocking};

impl Engine {
    /// Connects a container to a network, while it runs as well.
    ///
    /// # Errors
    /// Not found; Docker's texts for what is forbidden or makes no sense.
    pub async fn connect_network(
        &self,
        network: &str,
        container: &str,
        settings: EndpointSettings,
    ) -> Result<()> {
        let container = self.container_of_user(container)?;
        let network = self.inner.networks.find(network)?;
        self.own(container, move |engine, container, owner| async move {
            let (own, at, mut lent) = (engine.clone(), container.clone(), owner.lend());
            let on = network.clone();
            let lacks_names =
                blocking::run(move || own.connect_blocking(&at, &mut lent, &on, settings)).await??;
            if !lacks_names {
                return Ok(());
            }
            let Err(error) = engine.add_names(&container).await else {
                return Ok(());
            };
            let (own, at, mut lent) = (engine.clone(), container.clone(), owner.lend());
            let left = blocking::run(move || own.disconnect_blocking(&at, &mut lent, &network));
            if let Ok(Err(error)) = left.await {
                tracing::error!(container = container.id, %error, "take back a connect that failed");
            }
            // The lock is held until here.
            drop(owner);
            Err(error)
        })
        .await
    }

    /// Finds a container that a user names for a network.
    pub(super) fn container_of_user(
        &self,
        name: &str,
    ) -> Result<std::sync::Arc<crate::container::Container>> {
        if name.is_empty() {
            return Err(Error::invalid("invalid name or ID supplied: \"\""));
        }
        self.container(name)
    }
}
