//! One fetch for all who want the same: layers by their blob's digest, small blobs by theirs.
//!
//! A flight is a task. Who wants its layer watches its [`Stage`]; when the last watcher has gone, the flight gives up and
//! what came stays as a partial. A failure is everybody's; the next one who asks starts anew.

use super::Transfers;
use super::layer::{self, Wanted};
use crate::error::{Error, Result};
use crate::store::Lease;
use gantry_api::digest::Digest;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use tokio::sync::{OnceCell, watch};

/// Is how far a layer has come.
#[derive(Clone)]
pub(crate) enum Stage {
    Started,
    /// Others are fetched first.
    Waiting,
    Downloading(u64),
    /// The connection failed; the next try comes then.
    Retrying(Instant),
    /// All bytes are here and are being unpacked.
    Downloaded,
    /// The layer is in the store, kept by the lease.
    Done(Arc<Lease>),
    Failed(Arc<Error>),
}

type Small = OnceCell<Arc<Vec<u8>>>;

/// Knows what is being fetched now.
#[derive(Default)]
pub(crate) struct Flights {
    layers: Mutex<HashMap<Digest, watch::Sender<Stage>>>,
    small: Mutex<HashMap<Digest, Weak<Small>>>,
}

impl Flights {
    /// Joins the fetch of a layer, or starts it; tells whether it was started.
    pub fn layer(&self, transfers: &Transfers, wanted: Wanted) -> (watch::Receiver<Stage>, bool) {
        let digest = wanted.descriptor.digest.clone();
        self.join(transfers, digest, |transfers, stage| async move {
            layer::fetch(&transfers, wanted, &stage).await
        })
    }

    fn join<F>(
        &self,
        transfers: &Transfers,
        digest: Digest,
        fetch: impl FnOnce(Transfers, watch::Sender<Stage>) -> F,
    ) -> (watch::Receiver<Stage>, bool)
    where
        F: Future<Output = Result<Lease>> + Send + 'static,
    {
        let mut layers = self.layers();
        if let Some(sender) = layers.get(&digest) {
            return (sender.subscribe(), false);
        }
        let (sender, receiver) = watch::channel(Stage::Started);
        layers.insert(digest.clone(), sender.clone());
        let listed = Listed {
            transfers: transfers.clone(),
            digest,
            sender: sender.clone(),
        };
        let fetch = fetch(transfers.clone(), sender.clone());
        tokio::spawn(async move {
            let end = tokio::select! {
                fetched = fetch => Some(match fetched {
                    Ok(lease) => Stage::Done(Arc::new(lease)),
                    Err(error) => Stage::Failed(Arc::new(error)),
                }),
                () = listed.abandoned() => None,
            };
            // In this order nobody joins a flight that has landed.
            drop(listed);
            if let Some(end) = end {
                sender.send_replace(end);
            }
        });
        (receiver, true)
    }

    /// Fetches a small blob, or waits for who does so already.
    pub async fn small(
        &self,
        digest: &Digest,
        fetch: impl Future<Output = Result<Vec<u8>>>,
    ) -> Result<Arc<Vec<u8>>> {
        let cell = {
            let mut small = self.small.lock().unwrap_or_else(PoisonError::into_inner);
            small.retain(|_, cell| cell.strong_count() > 0);
            match small.get(digest).and_then(Weak::upgrade) {
                Some(cell) => cell,
                None => {
                    let cell = Arc::new(Small::new());
                    small.insert(digest.clone(), Arc::downgrade(&cell));
                    cell
                }
            }
        };
        let bytes = cell
            .get_or_try_init(|| async { Ok::<_, Error>(Arc::new(fetch.await?)) })
            .await?;
        Ok(Arc::clone(bytes))
    }

    fn layers(&self) -> MutexGuard<'_, HashMap<Digest, watch::Sender<Stage>>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Is a flight's place on the list. Dropped, by a panic as well, it is free for the next flight.
struct Listed {
    transfers: Transfers,
    digest: Digest,
    sender: watch::Sender<Stage>,
}

impl Listed {
    /// Waits until nobody watches, and takes the flight off the list.
    async fn abandoned(&self) {
        loop {
            self.sender.closed().await;
            let mut layers = self.transfers.0.flights.layers();
            if self.sender.receiver_count() == 0 {
                layers.remove(&self.digest);
                return;
            }
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut layers = self.transfers.0.flights.layers();
        let listed = layers.get(&self.digest);
        // Once abandoned, the place may be another flight's.
        if listed.is_some_and(|listed| listed.same_channel(&self.sender)) {
            layers.remove(&self.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Images;

    #[tokio::test]
    async fn a_flight_that_panics_makes_room_for_the_next() {
        let root = tempfile::tempdir().unwrap();
        let transfers = Transfers::new(Images::open(root.path()).unwrap());
        let flights = &transfers.0.flights;
        let digest = crate::hash::sha256(b"layer");
        let (mut stage, is_own) = flights.join(&transfers, digest.clone(), |_, _| async {
            panic!("broken")
        });
        assert!(is_own);
        // Who watches is told, and does not wait for ever.
        let told = tokio::time::timeout(std::time::Duration::from_secs(10), stage.changed());
        assert!(told.await.unwrap().is_err());
        let (mut stage, is_own) = flights.join(&transfers, digest, |transfers, _| async move {
            Ok(transfers.0.images.open_lease())
        });
        assert!(is_own);
        stage.changed().await.unwrap();
        assert!(matches!(*stage.borrow(), Stage::Done(_)));
    }
}
