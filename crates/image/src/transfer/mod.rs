//! Pull and push: what is asked, what is told meanwhile, and what all transfers of a process share.

mod flights;
mod inspect;
mod layer;
mod lines;
mod pull;
mod push;
mod push_whole;
mod resolve;
mod upload;
mod whole;

use crate::encode::Compression;
use crate::error::{Error, Result};
use crate::gc::GcPolicy;
use crate::store::Images;
use flights::Flights;
use gantry_api::platform::Platform;
use gantry_api::reference::Reference;
use gantry_distribution::{Config, Credentials, Registries, SignaturePolicy};
use lines::Lines;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// How many layers may be in work at once, downloads and what is being unpacked behind them: each holds some megabytes
/// in its queues. More downloads than this are what the user asked for.
const WORKING_MIN: usize = 5;
/// How many layers may be unpacked behind the downloads.
const UNPACKING_BEHIND: usize = 2;
/// How many lines wait for a slow client.
const LINES_MAX: usize = 64;

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
    /// Headers that the registry is sent besides.
    pub headers: Vec<(String, String)>,
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
    /// Headers that the registry is sent besides.
    pub headers: Vec<(String, String)>,
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

/// Is called once with what a transfer was asked for, when it has succeeded.
pub type Done = Box<dyn FnOnce(&Reference) + Send>;

pub(crate) struct Shared {
    pub images: Images,
    pub flights: Flights,
    setup: RwLock<Option<Setup>>,
    policy: RwLock<GcPolicy>,
}

/// Is what a transfer takes with it when it starts; a new configuration holds for the next one.
#[derive(Clone)]
pub(crate) struct Setup {
    pub registries: Registries,
    pub downloads: Arc<Semaphore>,
    pub working: Arc<Semaphore>,
    pub uploads: Arc<Semaphore>,
    pub signatures: Option<Arc<SignaturePolicy>>,
    /// Whether the policy keeps compressed layers.
    pub keeps_blobs: bool,
}

impl Transfers {
    /// Prepares transfers of a store; [`Transfers::configure`] comes before the first.
    pub fn new(images: Images) -> Self {
        Self(Arc::new(Shared {
            images,
            flights: Flights::default(),
            setup: RwLock::default(),
            policy: RwLock::default(),
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
        let Concurrency { downloads, uploads } = concurrency;
        *setup = Some(Setup {
            registries,
            downloads: Arc::new(Semaphore::new(downloads.max(1))),
            working: Arc::new(Semaphore::new(
                WORKING_MIN.max(downloads.saturating_add(UNPACKING_BEHIND)),
            )),
            uploads: Arc::new(Semaphore::new(uploads.max(1))),
            signatures: signatures.map(Arc::new),
            keeps_blobs: false,
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

    /// Gives the policy by which things go.
    pub fn policy(&self) -> GcPolicy {
        let policy = self.0.policy.read().unwrap_or_else(PoisonError::into_inner);
        policy.clone()
    }

    /// Sets the policy by which things go.
    pub fn set_policy(&self, policy: GcPolicy) {
        *self
            .0
            .policy
            .write()
            .unwrap_or_else(PoisonError::into_inner) = policy;
    }

    pub(crate) fn setup(&self) -> Result<Setup> {
        let setup = self.0.setup.read().unwrap_or_else(PoisonError::into_inner);
        let setup = setup
            .clone()
            .ok_or_else(|| Error::Unsupported("registries are not configured".to_owned()))?;
        Ok(Setup {
            keeps_blobs: self.policy().keep_blobs_bytes > 0,
            ..setup
        })
    }
}

/// Runs a transfer in a task of its own, which ends early where nobody reads its lines any more.
fn spawn(
    lines: Lines,
    run: impl Future<Output = Result<()>> + Send + 'static,
    reference: Reference,
    done: Done,
) {
    tokio::spawn(async move {
        let whole = async {
            run.await?;
            let told = layer::blocking(move || {
                done(&reference);
                Ok(())
            });
            told.await
        };
        tokio::select! {
            result = whole => if let Err(error) = result {
                lines.fail(error).await;
            },
            () = lines.closed() => {}
        }
    });
}

impl Shared {
    /// Gives how long what a broken-off pull brought is kept.
    pub fn partials_for(&self) -> Duration {
        let policy = self.policy.read().unwrap_or_else(PoisonError::into_inner);
        policy.partials_for
    }
}
