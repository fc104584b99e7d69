//! One fetch of a blob for all who ask for it. They read what has come from the disk while the rest is on its way.
//!
//! ```text
//! upstream ──▶ task ──queue──▶ thread: hash, write ──▶ partial ──▶ blob
//!                                 │ says how far it is
//!                                 ▼
//!              clients read the partial up to there; the last byte only when the digest was right
//! ```
//! The fetch goes on for a while when its clients are gone, and after a restart where it stopped. So many run at once; the
//! others wait for their turn.

use crate::error::{Code, Error, Result};
use crate::name::Name;
use crate::options::Limits;
use crate::server::{Body, blocking};
use crate::store::{Store, Upload};
use bytes::Bytes;
use gantry_api::digest::Digest;
use gantry_api::oci::image::Descriptor;
use gantry_distribution::Repository;
use serde_json::json;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

/// How many pieces wait for the disk.
const QUEUE: usize = 8;
/// How much a client is given at once.
const PIECE: u64 = 1 << 20;

/// Is what is fetched, and for which repository.
type Key = (Name, Digest);

/// What part of the cache's size may be fetched before it is looked at.
const FILL_SHARE: u64 = 10;

type UnderWay = Arc<Mutex<HashMap<Key, Arc<watch::Sender<Progress>>>>>;

/// Knows the fetches under way.
pub struct Fetches {
    under_way: UnderWay,
    bounds: Arc<Bounds>,
    /// Told when much was fetched.
    pub filled: Arc<Notify>,
}

/// Is what no fetch may go beyond.
struct Bounds {
    places: Semaphore,
    blob_bytes: Option<u64>,
    cache_bytes: Option<u64>,
    unwanted: Duration,
    /// What was fetched since the cache was last looked at.
    fetched: AtomicU64,
    filled: Arc<Notify>,
}

impl Bounds {
    /// Refuses a blob that is too large, and has room made for the others.
    fn admit(&self, size: u64) -> Result<()> {
        let limit = self.blob_bytes.into_iter().chain(self.cache_bytes).min();
        if limit.is_some_and(|limit| size > limit) {
            return Err(Error::new(Code::TooLarge, json!({ "limit": limit })));
        }
        if let Some(cache_bytes) = self.cache_bytes {
            let fetched = self.fetched.fetch_add(size, Ordering::Relaxed) + size;
            if fetched >= cache_bytes / FILL_SHARE {
                self.fetched.store(0, Ordering::Relaxed);
                self.filled.notify_one();
            }
        }
        Ok(())
    }
}

/// Is how far a fetch is.
#[derive(Clone, Default)]
struct Progress {
    /// The file and its size, once the upstream said it.
    file: Option<(Arc<File>, u64)>,
    written: u64,
    end: Option<std::result::Result<(), Failure>>,
    /// Nobody wants it any more, and it is about to end.
    is_given_up: bool,
}

/// Is an error that many clients are told.
#[derive(Clone)]
struct Failure {
    code: Code,
    detail: serde_json::Value,
    text: String,
}

/// Is a blob that is on its way.
pub struct Coming {
    progress: watch::Receiver<Progress>,
    file: Arc<File>,
    pub size: u64,
}

impl Fetches {
    /// Knows none yet.
    pub fn new(limits: &Limits, cache_bytes: Option<u64>) -> Self {
        let filled = Arc::new(Notify::new());
        Self {
            under_way: UnderWay::default(),
            bounds: Arc::new(Bounds {
                places: Semaphore::new(limits.fetches_at_once),
                blob_bytes: limits.blob_bytes,
                cache_bytes,
                unwanted: limits.fetch_unwanted,
                fetched: AtomicU64::new(0),
                filled: Arc::clone(&filled),
            }),
            filled,
        }
    }

    /// Begins a fetch, or joins the one that is under way.
    pub async fn follow(
        &self,
        store: &Arc<Store>,
        repository: Repository,
        name: &Name,
        digest: &Digest,
    ) -> Result<Coming> {
        let mut progress = loop {
            let mut progress = self.join(store, &repository, name, digest);
            if !progress.borrow().is_given_up {
                break progress;
            }
            // It is out of the map when it has ended, and the next one begins.
            let _ = progress.wait_for(|progress| progress.end.is_some()).await;
        };
        let state = progress
            .wait_for(|progress| progress.file.is_some() || progress.end.is_some())
            .await
            .map_err(|_| Error::from(Code::Internal))?
            .clone();
        match (state.file, state.end) {
            (Some((file, size)), _) => Ok(Coming {
                progress,
                file,
                size,
            }),
            (None, Some(Err(failure))) => Err(Error::new(failure.code, failure.detail)),
            (None, _) => Err(Code::Internal.into()),
        }
    }

    fn join(
        &self,
        store: &Arc<Store>,
        repository: &Repository,
        name: &Name,
        digest: &Digest,
    ) -> watch::Receiver<Progress> {
        let mut under_way = lock(&self.under_way);
        let key = (name.clone(), digest.clone());
        if let Some(tell) = under_way.get(&key) {
            return tell.subscribe();
        }
        let (tell, progress) = watch::channel(Progress::default());
        let fetch = Fetch {
            store: Arc::clone(store),
            repository: repository.clone(),
            key: key.clone(),
            tell: Arc::new(tell),
            bounds: Arc::clone(&self.bounds),
            under_way: Arc::clone(&self.under_way),
        };
        under_way.insert(key, Arc::clone(&fetch.tell));
        tokio::spawn(fetch.run());
        progress
    }
}

fn lock(under_way: &UnderWay) -> MutexGuard<'_, HashMap<Key, Arc<watch::Sender<Progress>>>> {
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Is one fetch.
struct Fetch {
    store: Arc<Store>,
    repository: Repository,
    key: Key,
    tell: Arc<watch::Sender<Progress>>,
    bounds: Arc<Bounds>,
    under_way: UnderWay,
}

impl Fetch {
    async fn run(self) {
        let ended = self.fetch().await;
        // Out of the map first: who comes now finds the blob, or tries anew.
        lock(&self.under_way).remove(&self.key);
        if let Err(error) = &ended {
            tracing::warn!(name = self.key.0.as_str(), digest = %self.key.1, error = crate::server::causes(error), "fetch a blob");
        }
        self.tell.send_modify(|progress| {
            progress.end = Some(ended.map_err(|error| Failure {
                code: error.code,
                text: error.to_string(),
                detail: error.detail,
            }));
        });
    }

    /// Does something unless nobody has wanted the blob for too long.
    async fn while_wanted<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            () = self.given_up() => Err(Error::new(Code::Interrupted, "nobody waits for it any more")),
        }
    }

    async fn given_up(&self) {
        loop {
            self.tell.closed().await;
            tokio::time::sleep(self.bounds.unwanted).await;
            // Nobody joins while the map is locked.
            let _under_way = lock(&self.under_way);
            if self.tell.is_closed() {
                self.tell
                    .send_modify(|progress| progress.is_given_up = true);
                return;
            }
        }
    }

    /// Fetches a blob, or links it if another repository has brought it.
    async fn fetch(&self) -> Result<()> {
        let (name, digest) = &self.key;
        let _place = self
            .while_wanted(async {
                let place = self.bounds.places.acquire().await;
                place.map_err(|_| Code::Internal.into())
            })
            .await?;
        // Asked also for content that is here: the upstream says whether this repository has it.
        let size = self
            .while_wanted(super::upstream::size_of(&self.repository, digest))
            .await?;
        let (shared, name, digest) = (Arc::clone(&self.store), name.clone(), digest.clone());
        let here = blocking(move || {
            if !shared.link_content(&name, &digest)? {
                return Ok(None);
            }
            shared.open_blob(&name, &digest).map(Some)
        })
        .await?;
        if let Some((file, size)) = here {
            self.tell.send_modify(|progress| {
                progress.written = size;
                progress.file = Some((Arc::new(file), size));
            });
            return Ok(());
        }
        self.bounds.admit(size)?;
        let (pieces, queue) = mpsc::channel(QUEUE);
        let (begin, begun) = oneshot::channel();
        let writing = {
            let (store, key) = (Arc::clone(&self.store), self.key.clone());
            let tell = Arc::clone(&self.tell);
            tokio::task::spawn_blocking(move || write(&store, &key, size, begin, queue, &tell))
        };
        let sent = match begun.await {
            Ok(offset) => {
                let sending = forward(&self.repository, &self.key.1, size, offset, pieces);
                self.while_wanted(sending).await
            }
            // The writer failed before it began, and says why.
            Err(_) => Ok(()),
        };
        let written = writing.await.unwrap_or_else(|error| {
            Err(Error {
                cause: Some(Box::new(error)),
                ..Code::Internal.into()
            })
        });
        match (sent, written) {
            (Err(sent), Err(written)) if written.code == Code::Interrupted => Err(sent),
            (_, written) => written,
        }
    }
}

/// Sends what the upstream gives to the thread that writes. Dropping the queue without having sent all is a cut.
async fn forward(
    repository: &Repository,
    digest: &Digest,
    size: u64,
    offset: u64,
    pieces: mpsc::Sender<Bytes>,
) -> Result<()> {
    let unknown = || Error::new(Code::BlobUnknown, json!({ "digest": digest }));
    let failed = |error| super::upstream::upstream_error(error, unknown);
    let descriptor = Descriptor::new("application/octet-stream", digest.clone(), size);
    let mut reader = repository.blob(&descriptor, offset).await.map_err(failed)?;
    while let Some(piece) = reader.next().await.map_err(failed)? {
        if pieces.send(piece).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn write(
    store: &Store,
    (name, digest): &Key,
    size: u64,
    begin: oneshot::Sender<u64>,
    mut queue: mpsc::Receiver<Bytes>,
    tell: &watch::Sender<Progress>,
) -> Result<()> {
    let mut upload: Upload<'_> = store.open_fetch(name, digest)?;
    if upload.bytes() > size {
        // Of an earlier blob that lied about its length.
        upload.discard()?;
        upload = store.open_fetch(name, digest)?;
    }
    let file = Arc::new(upload.reader()?);
    tell.send_modify(|progress| {
        progress.written = upload.bytes();
        progress.file = Some((file, size));
    });
    let _ = begin.send(upload.bytes());
    while let Some(piece) = queue.blocking_recv() {
        if upload.bytes() + piece.len() as u64 > size {
            upload.discard()?;
            return Err(Error::new(
                Code::Upstream,
                "the upstream sent more than it said",
            ));
        }
        upload.append(&piece)?;
        tell.send_modify(|progress| progress.written = upload.bytes());
    }
    if upload.bytes() < size {
        return Err(Code::Interrupted.into());
    }
    upload.commit(digest)
}

impl Coming {
    /// Makes a body of a part of it.
    pub fn body(self, from: u64, length: u64) -> Body {
        let (pieces, queue) = mpsc::channel(2);
        tokio::spawn(async move {
            let sending = tokio::select! {
                sending = self.send(from, from + length, &pieces) => sending,
                // The client is gone, though nothing came that could have been sent to it.
                () = pieces.closed() => return,
            };
            if let Err(error) = sending {
                let _ = pieces.send(Err(error)).await;
            }
        });
        Body::channel(queue, length)
    }

    async fn send(
        mut self,
        mut at: u64,
        to: u64,
        pieces: &mpsc::Sender<io::Result<Bytes>>,
    ) -> io::Result<()> {
        while at < to {
            let size = self.size;
            // The last byte waits for the digest: nobody takes a wrong blob for a right one.
            let readable = move |progress: &Progress| match &progress.end {
                Some(Ok(())) => size,
                _ => progress.written.min(size.saturating_sub(1)),
            };
            let state = self
                .progress
                .wait_for(|progress| readable(progress) > at || progress.end.is_some())
                .await
                .map_err(io::Error::other)?
                .clone();
            if let Some(Err(failure)) = &state.end
                && readable(&state) <= at
            {
                return Err(io::Error::other(failure.text.clone()));
            }
            let length = readable(&state).min(to).saturating_sub(at).min(PIECE);
            let file = Arc::clone(&self.file);
            let piece = blocking(move || crate::server::read_piece(&file, at, length)).await?;
            at += piece.len() as u64;
            if pieces.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}
