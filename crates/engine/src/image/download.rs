//! Archives from the network, for imports.

use gantry_image::distribution::Download;

use super::error;
use crate::{Engine, Result};

impl Engine {
    /// Begins to fetch a file, through the proxies that registries are reached by.
    ///
    /// # Errors
    /// Nobody answers, or not with the file.
    pub async fn download(&self, address: &str) -> Result<Download> {
        let registries = self.inner.transfers.registries().map_err(error)?;
        let download = registries.download(address).await;
        download.map_err(|failure| error(failure.into()))
    }
}
