//! Fetches one layer: download ∥ sha256 ∥ decompress ∥ unpack, and what came is kept for the next try.
//!
//! ```text
//! registry ─Bytes─▶ queue ─▶ thread `layer-feed`: partial file, sha256, pieces ─▶ Unpacker (its threads)
//! ```
//! The task only waits for the network and for the queue; everything that reads or writes the disk is on threads.

use super::flights::Stage;
use super::{Setup, Transfers};
use crate::content::Partial;
use crate::decompress::{MAGIC_BYTES, detect};
use crate::error::{Error, Result};
use crate::hash::AnyHasher;
use crate::load::layer_record;
use crate::pipe::PIECE_BYTES;
use crate::record::BlobRecord;
use crate::store::{Images, Lease, now};
use crate::unpack::{BlobHash, Unpacked, Unpacker};
use bytes::Bytes;
use gantry_api::digest::Digest;
use gantry_api::oci::image::Descriptor;
use gantry_api::time::Timestamp;
use gantry_distribution::{BlobReader, Download, Repository};
use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Is how many pieces of the network wait for the thread; hyper reads at most some hundred kilobytes each.
const QUEUE_MAX: usize = 8;
/// Is how long a flight waits for the end of the one before it, which writes the same partial.
const PARTIAL_WAIT: Duration = Duration::from_secs(30);

/// Is a layer to fetch.
pub(crate) struct Wanted {
    pub repository: Repository,
    /// The repository's whole name.
    pub source: String,
    pub descriptor: Descriptor,
    /// What the image's configuration says it unpacks to.
    pub diff_id: Digest,
    pub setup: Setup,
    /// Goes when nothing of the flight is at work any more, neither its task nor its thread.
    #[expect(dead_code, reason = "its end is the message")]
    pub at_work: AtWork,
}

/// Is held by everything that works for a pull; [`AtWork::channel`] gives what waits until nobody does.
#[derive(Clone)]
pub(crate) struct AtWork(#[expect(dead_code, reason = "its end is the message")] mpsc::Sender<()>);

/// Waits for the end of all that works for a pull.
pub(crate) struct Ended(mpsc::Receiver<()>);

impl AtWork {
    pub fn channel() -> (Self, Ended) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), Ended(receiver))
    }
}

impl Ended {
    pub async fn wait(mut self) {
        let _ = self.0.recv().await;
    }
}

enum Feed {
    Bytes(Bytes),
    End,
}

/// Is why a try failed, and whether one from the first byte on may do better: bytes of an earlier try, or a mirror that is
/// not asked again, may be to blame.
struct Failure {
    error: Error,
    is_mendable: bool,
}

/// Fetches a layer into the store.
pub(crate) async fn fetch(
    transfers: &Transfers,
    wanted: Wanted,
    stage: &watch::Sender<Stage>,
) -> Result<Lease> {
    let shared = &transfers.0;
    let busy = |_| Error::Cancelled;
    // Unpacking may lag behind the network; how many layers are in work bounds the memory.
    let working = match Arc::clone(&wanted.setup.working).try_acquire_owned() {
        Ok(permit) => permit,
        Err(_) => {
            stage.send_replace(Stage::Waiting);
            let working = Arc::clone(&wanted.setup.working).acquire_owned();
            working.await.map_err(busy)?
        }
    };
    let wanted = Arc::new(wanted);
    loop {
        match attempt(&shared.images, &wanted, stage, shared.partials_for()).await {
            Ok(lease) => {
                drop(working);
                return Ok(lease);
            }
            // A loss of power may have left zeros where bytes had been; without them it can succeed.
            Err(Failure {
                is_mendable: true, ..
            }) => {}
            Err(Failure { error, .. }) => return Err(error),
        }
    }
}

async fn attempt(
    images: &Images,
    wanted: &Arc<Wanted>,
    stage: &watch::Sender<Stage>,
    kept_for: Duration,
) -> Result<Lease, Failure> {
    let Descriptor { digest, size, .. } = &wanted.descriptor;
    let plain = |error| Failure {
        error,
        is_mendable: false,
    };
    let downloading = match Arc::clone(&wanted.setup.downloads).try_acquire_owned() {
        Ok(permit) => permit,
        Err(_) => {
            stage.send_replace(Stage::Waiting);
            let downloads = Arc::clone(&wanted.setup.downloads);
            let permit = downloads.acquire_owned().await;
            permit.map_err(|_| plain(Error::Cancelled))?
        }
    };
    let partial = open_partial(images, &wanted.descriptor)
        .await
        .map_err(plain)?;
    let offset = partial.as_ref().map_or(0, Partial::bytes);
    stage.send_replace(Stage::Downloading(offset));
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let (result_sender, result) = oneshot::channel();
    let line = Line {
        images: images.clone(),
        wanted: Arc::clone(wanted),
        partial,
        hasher: AnyHasher::new(digest.algorithm()),
        piece: Vec::with_capacity(PIECE_BYTES),
        output: Output::Undecided,
    };
    let until = now().unix_nanos() + kept_for.as_nanos() as i128;
    std::thread::Builder::new()
        .name("layer-feed".into())
        .spawn(move || {
            let _ =
                result_sender.send(line.run(offset, receiver, Timestamp::from_unix_nanos(until)));
        })
        .map_err(|error| plain(Error::io("start thread `layer-feed`", error)))?;
    let mut reader = None;
    let downloaded = download(wanted, offset, sender, stage, &mut reader).await;
    drop(downloading);
    let fed = result.await.unwrap_or(Err(Error::Cancelled));
    let error = match (downloaded, fed) {
        (Ok(()), Ok(lease)) => return Ok(lease),
        // The thread knows nothing of the network but that it has ended.
        (Err(error), Ok(_) | Err(Error::Cancelled)) => error,
        (_, Err(error)) => error,
    };
    // A full disk is given back what it gave.
    let is_damaged = matches!(
        error,
        Error::Invalid(_)
            | Error::Unsupported(_)
            | Error::NoSpace { .. }
            | Error::Registry(gantry_distribution::Error::Corrupt(_))
    );
    if is_damaged {
        let (images, name) = (images.clone(), partial_name(digest));
        let removed = blocking(move || images.0.content.remove_partial(&name)).await;
        removed.map_err(plain)?;
    }
    let is_full = matches!(error, Error::NoSpace { .. });
    let is_wrong = matches!(
        error,
        Error::Registry(gantry_distribution::Error::Corrupt(_))
    );
    let is_a_mirrors = is_wrong && reader.as_ref().is_some_and(Source::blame);
    let is_resumed = offset > 0 && offset <= *size;
    Err(Failure {
        error,
        is_mendable: is_damaged && !is_full && (is_resumed || is_a_mirrors),
    })
}

/// Reads the network into the queue; the reader is left to the caller, who knows later whether its bytes were right.
async fn download(
    wanted: &Wanted,
    offset: u64,
    sender: mpsc::Sender<Feed>,
    stage: &watch::Sender<Stage>,
    reader: &mut Option<Source>,
) -> Result<()> {
    let mut current = offset;
    if current < wanted.descriptor.size {
        let told = stage.clone();
        let repository =
            wanted
                .repository
                .clone()
                .observed(Arc::new(move |wait: Duration, _: &str| {
                    told.send_replace(Stage::Retrying(Instant::now() + wait));
                }));
        let reader = reader.insert(Source::open(wanted, &repository, offset).await?);
        while let Some(bytes) = reader.next().await? {
            current += bytes.len() as u64;
            if current > wanted.descriptor.size {
                let digest = &wanted.descriptor.digest;
                let text = format!("layer {digest} is longer than its descriptor says");
                return Err(gantry_distribution::Error::Corrupt(text).into());
            }
            if sender.send(Feed::Bytes(bytes)).await.is_err() {
                // The thread has failed and says why.
                return Ok(());
            }
            stage.send_replace(Stage::Downloading(current));
        }
    }
    stage.send_replace(Stage::Downloaded);
    let _ = sender.send(Feed::End).await;
    Ok(())
}

/// Is where a layer's bytes come from.
enum Source {
    Registry(Box<BlobReader>),
    /// One of the addresses that a layer bears which may not be distributed, and what is left to skip of it.
    Elsewhere(Download, u64),
}

impl Source {
    /// Opens the registry's blob; where it lacks one that it may not distribute, the first address that answers.
    async fn open(wanted: &Wanted, repository: &Repository, offset: u64) -> Result<Self> {
        let descriptor = &wanted.descriptor;
        let missing = match repository.blob(descriptor, offset).await {
            Ok(reader) => return Ok(Self::Registry(Box::new(reader))),
            Err(error) if is_missing(&error) => error,
            Err(error) => return Err(error.into()),
        };
        let mut error = missing;
        for address in addresses(descriptor) {
            match wanted.setup.registries.download(address).await {
                Ok(download) => return Ok(Self::Elsewhere(download, offset)),
                Err(failed) => error = failed,
            }
        }
        Err(error.into())
    }

    /// As [`BlobReader::blame`]: whether the next try asks another host.
    fn blame(&self) -> bool {
        matches!(self, Self::Registry(reader) if reader.blame())
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        match self {
            Self::Registry(reader) => Ok(reader.next().await?),
            Self::Elsewhere(download, skip) => loop {
                let Some(mut bytes) = download.next().await? else {
                    return Ok(None);
                };
                let skipped = bytes
                    .len()
                    .min(usize::try_from(*skip).unwrap_or(usize::MAX));
                *skip -= skipped as u64;
                let _ = bytes.split_to(skipped);
                if !bytes.is_empty() {
                    return Ok(Some(bytes));
                }
            },
        }
    }
}

fn is_missing(error: &gantry_distribution::Error) -> bool {
    use gantry_distribution::Error::{NotFound, Registry};
    matches!(error, NotFound(_) | Registry { status: 404, .. })
}

/// Gives the addresses of a layer that its registry may not distribute; others' are not followed.
fn addresses(descriptor: &Descriptor) -> impl Iterator<Item = &str> {
    let kind = &descriptor.media_type;
    let is_foreign = kind.contains(".foreign.") || kind.contains(".nondistributable.");
    let urls = descriptor.extra.get("urls").filter(|_| is_foreign);
    let urls = urls.and_then(serde_json::Value::as_array);
    urls.into_iter()
        .flatten()
        .filter_map(serde_json::Value::as_str)
        .filter(|url| url.starts_with("http://") || url.starts_with("https://"))
}

/// Gives the name of a blob's partial.
pub(crate) fn partial_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.hex())
}

/// Opens the partial of a blob. What fits into one piece has none: it is in flight as a whole.
async fn open_partial(images: &Images, descriptor: &Descriptor) -> Result<Option<Partial>> {
    if descriptor.size <= PIECE_BYTES as u64 {
        return Ok(None);
    }
    let started = Instant::now();
    loop {
        let (images, name) = (images.clone(), partial_name(&descriptor.digest));
        let size = descriptor.size;
        let opened = blocking(move || {
            let mut partial = images.0.content.partial(&name)?;
            if partial.bytes() > size {
                partial.truncate(0)?;
            }
            Ok(partial)
        });
        match opened.await {
            Err(Error::Conflict(_)) if started.elapsed() < PARTIAL_WAIT => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => return other.map(Some),
        }
    }
}

/// Runs what may wait for the disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        let error = std::io::Error::other(error.to_string());
        Err(Error::io("run a transfer", error))
    })
}

/// Is the thread's side.
struct Line {
    images: Images,
    wanted: Arc<Wanted>,
    partial: Option<Partial>,
    hasher: AnyHasher,
    piece: Vec<u8>,
    output: Output,
}

enum Output {
    /// Too few bytes have come to tell the compression.
    Undecided,
    Unpacking(Unpacker),
    /// The archive cannot be unpacked; whether the bytes are the right ones decides what is told.
    Failed(Error),
}

impl Line {
    fn run(
        mut self,
        offset: u64,
        mut input: mpsc::Receiver<Feed>,
        kept_until: Timestamp,
    ) -> Result<Lease> {
        let taken = self.take(offset, &mut input);
        input.close();
        match taken {
            Ok(()) => self.finish(kept_until),
            Err(error) => {
                // What arrived last counts for the next try, too.
                if matches!(error, Error::Cancelled)
                    && let Some(partial) = &mut self.partial
                {
                    let _ = partial.append(&self.piece, &|| false);
                }
                match std::mem::replace(&mut self.output, Output::Undecided) {
                    Output::Unpacking(unpacker) => unpacker.abort(),
                    Output::Undecided | Output::Failed(_) => {}
                }
                Err(error)
            }
        }
    }

    fn take(&mut self, offset: u64, input: &mut mpsc::Receiver<Feed>) -> Result<()> {
        if let Some(partial) = self.partial.as_ref().filter(|_| offset > 0) {
            let mut file = partial.reader()?.take(offset);
            loop {
                let mut piece = Vec::with_capacity(PIECE_BYTES);
                let read = Read::by_ref(&mut file)
                    .take(PIECE_BYTES as u64)
                    .read_to_end(&mut piece);
                read.map_err(|error| Error::io("read a partial layer", error))?;
                if piece.is_empty() {
                    break;
                }
                self.piece = piece;
                self.pass_on()?;
            }
        }
        loop {
            match input.blocking_recv() {
                Some(Feed::Bytes(bytes)) => {
                    let mut bytes = &bytes[..];
                    while !bytes.is_empty() {
                        let length = bytes.len().min(PIECE_BYTES - self.piece.len());
                        self.piece.extend_from_slice(&bytes[..length]);
                        bytes = &bytes[length..];
                        if self.piece.len() == PIECE_BYTES {
                            self.store()?;
                            self.pass_on()?;
                        }
                    }
                }
                Some(Feed::End) => break,
                None => return Err(Error::Cancelled),
            }
        }
        self.store()?;
        self.pass_on()
    }

    /// Adds the piece to the partial.
    fn store(&mut self) -> Result<()> {
        let Self {
            partial,
            piece,
            images,
            ..
        } = self;
        match partial {
            Some(partial) => partial.append(piece, &|| images.0.snapshots.make_space()),
            None => Ok(()),
        }
    }

    /// Hashes the piece and sends it on.
    fn pass_on(&mut self) -> Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        self.hasher.update(&piece);
        if matches!(self.output, Output::Undecided) && !piece.is_empty() {
            // Pieces are full but for the last, so the first has what is needed or is all there is.
            let compression = detect(&piece[..piece.len().min(MAGIC_BYTES)]);
            let snapshots = &self.images.0.snapshots;
            let unpacker = Unpacker::start(snapshots, compression, BlobHash::Elsewhere)?;
            self.output = Output::Unpacking(unpacker);
        }
        if let Output::Unpacking(unpacker) = &mut self.output {
            unpacker.send(&Arc::new(piece));
            if !unpacker.is_wanted() {
                let Output::Unpacking(unpacker) =
                    std::mem::replace(&mut self.output, Output::Undecided)
                else {
                    return Ok(());
                };
                match unpacker.into_error() {
                    Some(error @ Error::Invalid(_)) => self.output = Output::Failed(error),
                    Some(error) => return Err(error),
                    None => return Err(Error::Cancelled),
                }
            }
        }
        Ok(())
    }

    /// Checks everything and gives the layer its place.
    fn finish(self, kept_until: Timestamp) -> Result<Lease> {
        let Self {
            images,
            wanted,
            partial,
            hasher,
            output,
            ..
        } = self;
        let Wanted {
            descriptor,
            diff_id,
            source,
            setup,
            ..
        } = &*wanted;
        let unpacking = match output {
            Output::Unpacking(unpacker) => Ok(unpacker.end()),
            Output::Failed(error) => Err(error),
            Output::Undecided => {
                let snapshots = &images.0.snapshots;
                let none = crate::decompress::Compression::None;
                Ok(Unpacker::start(snapshots, none, BlobHash::Elsewhere)?.end())
            }
        };
        let got = hasher.finish();
        let unpacked = unpacking.and_then(crate::unpack::Unpacking::wait);
        if got != descriptor.digest {
            return Err(Error::Registry(gantry_distribution::Error::Corrupt(
                format!(
                    "filesystem layer verification failed for digest {}",
                    descriptor.digest
                ),
            )));
        }
        let unpacked: Unpacked = unpacked?;
        if unpacked.diff_id != *diff_id {
            return Err(Error::invalid(
                "layers from manifest don't match image configuration",
            ));
        }
        let lease = images.open_lease();
        let (record, ingest) = layer_record(unpacked);
        let keeps = setup.keeps_blobs && partial.is_some();
        let blob = BlobRecord {
            digest: descriptor.digest.clone(),
            diff_id: Some(diff_id.clone()),
            size_bytes: descriptor.size,
            media_type: descriptor.media_type.clone(),
            annotations: descriptor.annotations.clone(),
            sources: BTreeSet::from([source.clone()]),
            verified: true,
            made_by: None,
            kept: keeps,
            last_used: Some(now()),
            extra: serde_json::Map::new(),
        };
        // The record comes first: content that no record knows would be set aside after a crash.
        images.keep_layer(record, ingest, blob, kept_until, &lease)?;
        match partial {
            Some(partial) if keeps => partial.commit(&descriptor.digest)?,
            Some(partial) => partial.discard()?,
            None => {}
        }
        Ok(lease)
    }
}
