//! One fetch of a blob for all who ask for it. They read what has come from the disk while the rest is on its way.
//!
//! ```text
//! upstream ──▶ task ──queue──▶ thread: hash, write ──▶ partial ──▶ blob
//!                                 │ says how far it is
//!                                 ▼
//!              clients read the partial up to there; the last byte only when the digest was right
//! ```
//! The fetch goes on when its clients are gone, and after a restart where it stopped.

use crate::error::{Code, Error, Result};
use crate::name::Name;
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
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};

/// How many pieces wait for the disk.
const QUEUE: usize = 8;
/// How much a client is given at once.
const PIECE: u64 = 1 << 20;

/// Is what is fetched, and for which repository.
type Key = (Name, Digest);

/// Knows the fetches under way.
#[derive(Default)]
pub struct Fetches(Arc<Mutex<HashMap<Key, watch::Receiver<Progress>>>>);

/// Is how far a fetch is.
#[derive(Clone, Default)]
struct Progress {
    /// The file and its size, once the upstream said it.
    file: Option<(Arc<File>, u64)>,
    written: u64,
    end: Option<std::result::Result<(), Failure>>,
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
    /// Begins a fetch, or joins the one that is under way.
    pub async fn follow(
        &self,
        store: &Arc<Store>,
        repository: Repository,
        name: &Name,
        digest: &Digest,
    ) -> Result<Coming> {
        let mut progress = {
            let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let key = (name.clone(), digest.clone());
            match under_way.get(&key) {
                Some(progress) => progress.clone(),
                None => {
                    let (tell, progress) = watch::channel(Progress::default());
                    under_way.insert(key.clone(), progress.clone());
                    let (fetches, store) = (Arc::clone(&self.0), Arc::clone(store));
                    tokio::spawn(async move {
                        let tell = Arc::new(tell);
                        let ended = fetch(&store, &repository, &key, &tell).await;
                        // Out of the map first: who comes now finds the blob, or tries anew.
                        fetches
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .remove(&key);
                        if let Err(error) = &ended {
                            tracing::warn!(name = key.0.as_str(), digest = %key.1, error = crate::server::causes(error), "fetch a blob");
                        }
                        tell.send_modify(|progress| {
                            progress.end = Some(ended.map_err(|error| Failure {
                                code: error.code,
                                text: error.to_string(),
                                detail: error.detail,
                            }));
                        });
                    });
                    progress
                }
            }
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
}

/// Fetches a blob, or links it if another repository has brought it.
async fn fetch(
    store: &Arc<Store>,
    repository: &Repository,
    key: &Key,
    tell: &Arc<watch::Sender<Progress>>,
) -> Result<()> {
    // Asked also for content that is here: the upstream says whether this repository has it.
    let size = super::upstream::size_of(repository, &key.1).await?;
    let (shared, (name, digest)) = (Arc::clone(store), key.clone());
    let here = blocking(move || {
        if !shared.link_content(&name, &digest)? {
            return Ok(None);
        }
        shared.open_blob(&name, &digest).map(Some)
    })
    .await?;
    if let Some((file, size)) = here {
        tell.send_modify(|progress| {
            progress.written = size;
            progress.file = Some((Arc::new(file), size));
        });
        return Ok(());
    }
    let (pieces, queue) = mpsc::channel(QUEUE);
    let (begin, begun) = oneshot::channel();
    let writing = {
        let (store, key, tell) = (Arc::clone(store), key.clone(), Arc::clone(tell));
        tokio::task::spawn_blocking(move || write(&store, &key, size, begin, queue, &tell))
    };
    let sent = match begun.await {
        Ok(offset) => forward(repository, &key.1, size, offset, pieces).await,
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
            let sending = self.send(from, from + length, &pieces).await;
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
