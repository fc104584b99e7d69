//! Pull and push: what is asked, what is told meanwhile, and what all transfers of a process share.

mod inspect;

use crate::encode::Compression;
use crate::error::{Error, Result};
use crate::store::Images;
use gantry_api::platform::Platform;
use gantry_api::reference::Reference;
use gantry_distribution::{Config, Credentials, Registries};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::mpsc;

/// Is the policy of signatures.
#[derive(Clone, Debug)]
pub enum SignaturePolicy {}

/// Says what to pull.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// A name alone means all its tags.
    pub reference: Reference,
    /// Of an index, this platform; else the best for this machine.
    pub platform: Option<Platform>,
    /// Keeps the index and the blobs of all its platforms as well.
    pub all_platforms: bool,
    pub credentials: Credentials,
}

/// Says what to push.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// A name alone means all its tags.
    pub reference: Reference,
    /// Refuses an image of another platform.
    pub platform: Option<Platform>,
    /// Pushes the index that was kept, with all its platforms.
    pub all_platforms: bool,
    /// Of layers that no registry has yet.
    pub compression: Compression,
    pub credentials: Credentials,
}

/// Is one line of Docker's progress stream.
#[derive(Clone, Debug, PartialEq)]
pub enum TransferEvent {
    /// The id is a tag or a short digest, or empty.
    Status { id: String, text: String },
    Progress {
        id: String,
        /// `Downloading`, `Extracting` or `Pushing`.
        text: &'static str,
        current: u64,
        total: u64,
    },
    /// What scripts read, for example the digest of a push.
    Aux(serde_json::Value),
}

/// Says how many blobs travel at once, over all transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    pub downloads: usize,
    pub uploads: usize,
}

/// Gives the lines of a transfer; dropped, it cancels what no other transfer shares.
pub type Events = mpsc::Receiver<Result<TransferEvent>>;

/// Carries out the transfers of one store; clones share it.
#[derive(Clone)]
pub struct Transfers(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub images: Images,
    setup: RwLock<Option<Setup>>,
}

/// Is what a transfer takes with it when it starts; a new configuration holds for the next one.
#[derive(Clone)]
pub(crate) struct Setup {
    pub registries: Registries,
    pub concurrency: Concurrency,
    pub signatures: Option<SignaturePolicy>,
}

impl Transfers {
    /// Prepares transfers of a store; [`Transfers::configure`] comes before the first.
    pub fn new(images: Images) -> Self {
        Self(Arc::new(Shared {
            images,
            setup: RwLock::default(),
        }))
    }

    /// Sets the configuration of registries and the limits.
    ///
    /// # Errors
    /// Fails where the configuration contradicts itself; the old one stays then.
    pub fn configure(
        &self,
        config: Config,
        concurrency: Concurrency,
        signatures: Option<SignaturePolicy>,
    ) -> Result<()> {
        let mut setup = self.0.setup.write().unwrap_or_else(PoisonError::into_inner);
        let registries = match setup.take() {
            Some(old) => {
                let reloaded = old.registries.reload(config);
                let registries = old.registries.clone();
                *setup = Some(old);
                reloaded?;
                registries
            }
            None => Registries::new(config)?,
        };
        *setup = Some(Setup {
            registries,
            concurrency,
            signatures,
        });
        Ok(())
    }

    /// Gives the client of registries.
    ///
    /// # Errors
    /// Nobody has configured it.
    pub fn registries(&self) -> Result<Registries> {
        Ok(self.setup()?.registries)
    }

    pub(crate) fn setup(&self) -> Result<Setup> {
        let setup = self.0.setup.read().unwrap_or_else(PoisonError::into_inner);
        setup
            .clone()
            .ok_or_else(|| Error::Unsupported("registries are not configured".to_owned()))
    }
}
