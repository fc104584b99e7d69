//! Brings blobs to a registry, each by the cheapest way:
//!
//! 1. it is there already (one HEAD);
//! 2. another repository of the registry has it (mount);
//! 3. its bytes are kept here;
//! 4. the encoder that made it makes it again;
//! 5. a registry that has it gives it, streamed through;
//! 6. where any form of the layer will do, it is made.
//!
//! What must come out with a certain digest is checked before the registry is told that it is complete.

use super::lines::{Bar, Lines};
use super::push::Push;
use crate::encode::{Compression, Encoder};
use crate::error::{Error, Result};
use crate::hash::AnyHasher;
use crate::pipe::PIECE_BYTES;
use crate::record::BlobRecord;
use crate::store::{Images, Lease, missing_layer};
use crate::transfer::layer::blocking;
use bytes::Bytes;
use gantry_api::digest::Digest;
use gantry_api::oci::image::Descriptor;
use gantry_api::reference::Reference;
use gantry_distribution::{
    BlobReader, BlobUpload, Credentials, Error as RegistryError, Mounted, Repository,
};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// How many repositories are asked for a mount.
const MOUNTS_MAX: usize = 3;
/// How many pieces wait for the network.
const QUEUE_MAX: usize = 4;

/// Is a blob to bring.
#[derive(Clone)]
pub(crate) struct Blob {
    /// The short id that lines of progress bear.
    pub id: String,
    /// The size that progress is measured by.
    pub total: u64,
    pub diff_id: Option<Digest>,
    pub form: Form,
}

/// Says which bytes will do.
#[derive(Clone)]
pub(crate) enum Form {
    Exactly(Box<Descriptor>),
    /// Any form of the layer that is compressed so.
    Any(Compression),
}

/// Is how a blob came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Found,
    Mounted,
    Copied,
    /// It was made of the layer's files.
    Made,
}

/// Is a blob that is there now.
#[derive(Clone)]
pub(crate) struct Sent {
    pub descriptor: Descriptor,
    pub way: Way,
    pub made_by: Option<String>,
}

/// Brings the blobs of one image.
pub(crate) struct Uploads {
    push: Push,
    _lease: Lease,
}

/// Is what came of the try to copy a blob from a registry.
enum Copied {
    Yes,
    /// It is not there, or not as it was, or the registry does not answer.
    No,
    /// The registry wants to know who asks.
    Refused,
}

impl Copied {
    fn not(error: &gantry_distribution::Error) -> Self {
        use gantry_distribution::Error::{Registry, Unauthorized};
        match error {
            Unauthorized(_)
            | Registry {
                status: 401 | 403, ..
            } => Self::Refused,
            _ => Self::No,
        }
    }
}

/// Is a stream of a blob's bytes.
struct Stream {
    pieces: mpsc::Receiver<Bytes>,
    /// How many of the layer's bytes are behind what came out.
    progress: Arc<AtomicU64>,
    end: oneshot::Receiver<Result<(Digest, u64)>>,
}

impl Uploads {
    pub fn new(push: &Push, lease: Lease) -> Self {
        Self {
            push: push.clone(),
            _lease: lease,
        }
    }

    /// Brings blobs, bottom first, and gives what is there now in that order. Docker tells the topmost first.
    pub async fn send(self: &Arc<Self>, blobs: Vec<Blob>) -> Result<Vec<Sent>> {
        let mut told = std::collections::HashSet::new();
        for blob in blobs.iter().rev() {
            if told.insert(blob.id.clone()) {
                self.lines().status(&blob.id, "Preparing").await?;
            }
        }
        let mut running = tokio::task::JoinSet::new();
        let mut first: Vec<usize> = Vec::with_capacity(blobs.len());
        for (number, blob) in blobs.iter().enumerate() {
            // The same layer twice travels once.
            let same = blobs[..number]
                .iter()
                .position(|other| is_same(other, blob));
            first.push(same.unwrap_or(number));
        }
        for (number, blob) in blobs.iter().enumerate().rev() {
            if first[number] == number {
                let (uploads, blob) = (Arc::clone(self), blob.clone());
                running.spawn(async move { (number, uploads.bring(&blob).await) });
            }
        }
        let mut sent: Vec<Option<Sent>> = vec![None; blobs.len()];
        while let Some(done) = running.join_next().await {
            let (number, result) = done.map_err(|_| Error::Cancelled)?;
            sent[number] = Some(result?);
        }
        first
            .into_iter()
            .map(|number| sent[number].clone().ok_or(Error::Cancelled))
            .collect()
    }

    /// Brings a blob whose bytes are at hand, such as a configuration.
    pub async fn small(&self, descriptor: &Descriptor, bytes: Vec<u8>) -> Result<()> {
        let repository = &self.push.repository;
        if has(repository, &descriptor.digest).await? {
            return Ok(());
        }
        let mut upload = repository.upload().await?;
        upload.send(bytes.into()).await?;
        Ok(upload.commit(&descriptor.digest).await?)
    }

    async fn bring(&self, blob: &Blob) -> Result<Sent> {
        let uploads = Arc::clone(&self.push.setup.uploads);
        let _permit = match Arc::clone(&uploads).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.lines().status(&blob.id, "Waiting").await?;
                uploads
                    .acquire_owned()
                    .await
                    .map_err(|_| Error::Cancelled)?
            }
        };
        let sent = match &blob.form {
            Form::Exactly(descriptor) => {
                let known = self.record(&descriptor.digest).await?;
                self.exactly(blob, descriptor, known).await?
            }
            Form::Any(compression) => self.any(blob, *compression).await?,
        };
        self.push.learn(blob, &sent).await?;
        Ok(sent)
    }

    /// Brings certain bytes.
    async fn exactly(
        &self,
        blob: &Blob,
        descriptor: &Descriptor,
        known: Option<BlobRecord>,
    ) -> Result<Sent> {
        let sent = |way| Sent {
            descriptor: descriptor.clone(),
            way,
            made_by: None,
        };
        let mut upload = None;
        if let Some(way) = self
            .there(blob, descriptor, known.as_ref(), &mut upload)
            .await?
        {
            return Ok(sent(way));
        }
        let is_content = {
            let (images, digest) = (self.images().clone(), descriptor.digest.clone());
            blocking(move || images.0.content.size(&digest)).await?
        };
        if is_content.is_some() {
            let stream = self.content(descriptor)?;
            if self.stream(blob, descriptor, stream, &mut upload).await? {
                return Ok(sent(Way::Copied));
            }
        }
        if let Some(compression) = known.as_ref().and_then(made_here)
            && let Some(diff_id) = &blob.diff_id
        {
            let stream = self.encode(diff_id, compression)?;
            if self.stream(blob, descriptor, stream, &mut upload).await? {
                return Ok(sent(Way::Copied));
            }
        }
        let mut refused = String::new();
        for source in known.iter().flat_map(|known| &known.sources) {
            if *source == self.push.target {
                continue;
            }
            match self.copy(blob, descriptor, source, &mut upload).await? {
                Copied::Yes => return Ok(sent(Way::Copied)),
                Copied::No => {}
                Copied::Refused => {
                    refused = format!(
                        " ({source} refused it: it is asked without credentials, for a push has those of its target alone; \
                         let the policy keep blobs and pull again, or let anybody read it there)"
                    );
                }
            }
        }
        if let Some(upload) = upload {
            upload.cancel().await;
        }
        Err(Error::NotFound(format!(
            "layer {} can be had from no registry as it was{refused}",
            descriptor.digest
        )))
    }

    /// Brings a layer in some form: one that the registry has, else a new one.
    async fn any(&self, blob: &Blob, compression: Compression) -> Result<Sent> {
        let Some(diff_id) = &blob.diff_id else {
            return Err(Error::invalid("a layer has no diffID"));
        };
        let mut upload = None;
        if let Some(known) = self.best_form(diff_id, compression).await? {
            let mut descriptor =
                Descriptor::new(&known.media_type, known.digest.clone(), known.size_bytes);
            descriptor.annotations.clone_from(&known.annotations);
            if let Some(way) = self
                .there(blob, &descriptor, Some(&known), &mut upload)
                .await?
            {
                return Ok(Sent {
                    descriptor,
                    way,
                    made_by: None,
                });
            }
        }
        let stream = self.encode(diff_id, compression)?;
        let (digest, size) = self
            .through(blob, None, stream, &mut upload)
            .await?
            .ok_or(Error::Cancelled)?;
        Ok(Sent {
            descriptor: Descriptor::new(compression.layer_type(), digest, size),
            way: Way::Made,
            made_by: Some(compression.encoder().into_owned()),
        })
    }

    /// Chooses the form of a layer that the target most likely has. What nobody has checked is not built upon.
    async fn best_form(
        &self,
        diff_id: &Digest,
        compression: Compression,
    ) -> Result<Option<BlobRecord>> {
        let domain = format!("{}/", self.push.options.reference.domain());
        let (images, diff_id) = (self.images().clone(), diff_id.clone());
        let forms = blocking(move || Ok(images.blobs_of(&diff_id))).await?;
        let best = forms
            .into_iter()
            .filter(|blob| blob.verified && compression.is_of(&blob.media_type))
            .max_by_key(|blob| {
                (
                    blob.sources.contains(&self.push.target),
                    blob.sources.iter().any(|name| name.starts_with(&domain)),
                    blob.made_by.is_some(),
                )
            });
        Ok(best)
    }

    /// Finds out whether the target has a blob or can take it from a neighbour. A mount that fails leaves an upload.
    async fn there(
        &self,
        blob: &Blob,
        descriptor: &Descriptor,
        known: Option<&BlobRecord>,
        upload: &mut Option<BlobUpload>,
    ) -> Result<Option<Way>> {
        let Push {
            repository, target, ..
        } = &self.push;
        let digest = &descriptor.digest;
        if has(repository, digest).await? {
            self.lines()
                .status(&blob.id, "Layer already exists")
                .await?;
            return Ok(Some(Way::Found));
        }
        let domain = self.push.options.reference.domain();
        let sources = known.iter().flat_map(|known| &known.sources);
        let neighbours = sources.filter(|source| *source != target);
        let paths = neighbours.filter_map(|source| source.strip_prefix(domain)?.strip_prefix('/'));
        for path in paths.take(MOUNTS_MAX) {
            match repository.mount(digest, path).await {
                Ok(Mounted::Mounted) => {
                    if let Some(upload) = upload.take() {
                        upload.cancel().await;
                    }
                    let text = format!("Mounted from {path}");
                    self.lines().status(&blob.id, text).await?;
                    return Ok(Some(Way::Mounted));
                }
                Ok(Mounted::Upload(opened)) => {
                    if let Some(old) = upload.replace(opened) {
                        old.cancel().await;
                    }
                }
                // A neighbour that may not be read is no reason to fail.
                Err(_) => {}
            }
        }
        Ok(None)
    }

    /// Streams bytes that must have a certain digest; tells whether they had it.
    async fn stream(
        &self,
        blob: &Blob,
        descriptor: &Descriptor,
        stream: Stream,
        upload: &mut Option<BlobUpload>,
    ) -> Result<bool> {
        let sent = self.through(blob, Some(&descriptor.digest), stream, upload);
        Ok(sent.await?.is_some())
    }

    /// Streams bytes into an upload and ends it under their digest; nothing, where that is not the expected one.
    async fn through(
        &self,
        blob: &Blob,
        expected: Option<&Digest>,
        mut stream: Stream,
        upload: &mut Option<BlobUpload>,
    ) -> Result<Option<(Digest, u64)>> {
        let mut upload = match upload.take() {
            Some(upload) => upload,
            None => self.push.repository.upload().await?,
        };
        let mut bar = self.lines().bar(&blob.id, "Pushing", blob.total);
        while let Some(piece) = stream.pieces.recv().await {
            upload.send(piece).await?;
            bar.at(stream.progress.load(Ordering::Relaxed)).await?;
        }
        let (digest, size) = match stream.end.await.unwrap_or(Err(Error::Cancelled)) {
            Ok(end) => end,
            Err(error) => {
                upload.cancel().await;
                return Err(error);
            }
        };
        if expected.is_some_and(|expected| *expected != digest) {
            upload.cancel().await;
            return Ok(None);
        }
        upload.commit(&digest).await?;
        self.end_bar(&mut bar, blob).await?;
        Ok(Some((digest, size)))
    }

    async fn end_bar(&self, bar: &mut Bar, blob: &Blob) -> Result<()> {
        bar.at(blob.total).await?;
        self.lines().status(&blob.id, "Pushed").await
    }

    /// Streams a blob from a registry that has it; tells what came of it. One that is gone, or whose bytes are
    /// not the right ones, is no failure of the push.
    async fn copy(
        &self,
        blob: &Blob,
        descriptor: &Descriptor,
        source: &str,
        upload: &mut Option<BlobUpload>,
    ) -> Result<Copied> {
        let Some(repository) = self.source(source) else {
            return Ok(Copied::No);
        };
        // A registry that is gone must not hold the push up: what it had can be made anew.
        let asked = repository.clone().impatient();
        match asked.head_blob(&descriptor.digest).await {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(Copied::No),
            Err(error) => return Ok(Copied::not(&error)),
        }
        loop {
            let reader = match repository.blob(descriptor, 0).await {
                Ok(reader) => reader,
                Err(error) => return Ok(Copied::not(&error)),
            };
            let is_mendable = Arc::new(AtomicBool::new(false));
            let stream = copied(reader, blob, descriptor, Arc::clone(&is_mendable));
            if self.stream(blob, descriptor, stream, upload).await? {
                return Ok(Copied::Yes);
            }
            if !is_mendable.load(Ordering::Relaxed) {
                return Ok(Copied::No);
            }
        }
    }

    /// Gives a repository that a blob is known to be in; the user's credentials and headers are for the target's registry
    /// alone.
    fn source(&self, name: &str) -> Option<Repository> {
        let reference: Reference = name.parse().ok()?;
        let options = &self.push.options;
        let registries = &self.push.setup.registries;
        Some(if reference.domain() == options.reference.domain() {
            registries.repository_told(&reference, options.credentials.clone(), &options.headers)
        } else {
            registries.repository(&reference, Credentials::default())
        })
    }

    /// Streams content that is kept here.
    fn content(&self, descriptor: &Descriptor) -> Result<Stream> {
        let (images, digest) = (self.images().clone(), descriptor.digest.clone());
        produce("blob-read", move |progress, mut send| {
            let mut file = images.0.content.read(&digest)?;
            let mut hasher = AnyHasher::new(digest.algorithm());
            let mut size = 0;
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let length = file
                    .read(&mut piece)
                    .map_err(|error| Error::io(format!("read content `{digest}`"), error))?;
                if length == 0 {
                    return Ok((hasher.finish(), size));
                }
                piece.truncate(length);
                hasher.update(&piece);
                size += length as u64;
                progress.store(size, Ordering::Relaxed);
                send(piece.into()).map_err(|_| Error::Cancelled)?;
            }
        })
    }

    /// Rebuilds a layer's archive and compresses it, both streamed.
    fn encode(&self, diff_id: &Digest, compression: Compression) -> Result<Stream> {
        let (images, diff_id) = (self.images().clone(), diff_id.clone());
        produce("layer-read", move |progress, send| {
            let layer = images
                .lock()
                .layers
                .get(&diff_id)
                .map(|layer| layer.snapshot);
            let snapshot = layer.ok_or_else(|| missing_layer(&diff_id))?;
            let snapshot = images.0.snapshots.open_snapshot(snapshot)?;
            let mut encoder = Counted {
                encoder: Encoder::start(compression, send)?,
                progress,
            };
            let rebuilt = gantry_snapshot::recipe::rebuild(snapshot, &mut encoder);
            let encoded = encoder.encoder.finish();
            // Where the output failed, that is the cause; it fails only where the push has ended.
            rebuilt?;
            let encoded = encoded?;
            if encoded.diff_id != diff_id {
                return Err(Error::io(
                    format!(
                        "read layer `{diff_id}`: its files give `{}`",
                        encoded.diff_id
                    ),
                    io::Error::from(io::ErrorKind::InvalidData),
                ));
            }
            Ok((encoded.digest, encoded.size_bytes))
        })
    }

    async fn record(&self, digest: &Digest) -> Result<Option<BlobRecord>> {
        let (images, digest) = (self.images().clone(), digest.clone());
        blocking(move || Ok(images.lock().blobs.get(&digest).cloned())).await
    }

    fn images(&self) -> &Images {
        &self.push.transfers.0.images
    }

    fn lines(&self) -> &Lines {
        &self.push.lines
    }
}

/// Streams what a registry gives. `is_mendable` tells in the end whether the bytes were wrong by a mirror's fault.
fn copied(
    mut reader: BlobReader,
    blob: &Blob,
    descriptor: &Descriptor,
    is_mendable: Arc<AtomicBool>,
) -> Stream {
    let (sender, pieces) = mpsc::channel(QUEUE_MAX);
    let (ended, end) = oneshot::channel();
    let progress = Arc::new(AtomicU64::new(0));
    let done = Arc::clone(&progress);
    let (expected, size, total) = (descriptor.digest.clone(), descriptor.size, blob.total);
    tokio::spawn(async move {
        let mut hasher = AnyHasher::new(expected.algorithm());
        let mut read = 0;
        let result = loop {
            match reader.next().await {
                Ok(Some(piece)) => {
                    hasher.update(&piece);
                    read += piece.len() as u64;
                    done.store(scaled(read, size, total), Ordering::Relaxed);
                    if sender.send(piece).await.is_err() {
                        break Err(Error::Cancelled);
                    }
                }
                Ok(None) => break Ok((hasher.finish(), read)),
                Err(error) => break Err(error.into()),
            }
        };
        if matches!(&result, Ok((got, _)) if *got != expected) {
            is_mendable.store(reader.blame(), Ordering::Relaxed);
        }
        drop(sender);
        let _ = ended.send(result);
    });
    Stream {
        pieces,
        progress,
        end,
    }
}

fn is_same(one: &Blob, other: &Blob) -> bool {
    match (&one.form, &other.form) {
        (Form::Exactly(one), Form::Exactly(other)) => one.digest == other.digest,
        _ => one.diff_id == other.diff_id,
    }
}

/// Tells which of this version's encoders makes a blob.
fn made_here(blob: &BlobRecord) -> Option<Compression> {
    let made_by = blob.made_by.as_deref()?;
    let all = [Compression::Gzip, Compression::Zstd, Compression::None];
    all.into_iter().find(|one| one.encoder() == made_by)
}

fn scaled(done: u64, of: u64, total: u64) -> u64 {
    let scaled = u128::from(done) * u128::from(total) / u128::from(of.max(1));
    u64::try_from(scaled).unwrap_or(total).min(total)
}

/// Counts what goes into an encoder.
struct Counted {
    encoder: Encoder,
    progress: Arc<AtomicU64>,
}

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.encoder.write(bytes)?;
        self.progress.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a producer of bytes on a thread of its own.
fn produce(
    name: &str,
    run: impl FnOnce(Arc<AtomicU64>, crate::encode::Output) -> Result<(Digest, u64)> + Send + 'static,
) -> Result<Stream> {
    let (sender, pieces) = mpsc::channel(QUEUE_MAX);
    let (ended, end) = oneshot::channel();
    let progress = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&progress);
    // The sender goes when the producer's output does: before the end is told, so that nobody waits for more.
    let sender = Arc::new(Mutex::new(Some(sender)));
    let output = Arc::clone(&sender);
    let send = Box::new(move |piece: Bytes| {
        let output = output.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = output
            .as_ref()
            .is_some_and(|output| output.blocking_send(piece).is_ok());
        if sent {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::BrokenPipe))
        }
    });
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let result = run(counter, send);
            sender.lock().unwrap_or_else(PoisonError::into_inner).take();
            let _ = ended.send(result);
        })
        .map_err(|error| Error::io(format!("start thread `{name}`"), error))?;
    Ok(Stream {
        pieces,
        progress,
        end,
    })
}

/// Says whether a repository has a blob. A HEAD that is forbidden has no body that says why; the upload gets one.
async fn has(repository: &Repository, digest: &Digest) -> Result<bool> {
    match repository.head_blob(digest).await {
        Err(RegistryError::Registry { status: 403, .. }) => Ok(false),
        answer => Ok(answer?.is_some()),
    }
}
