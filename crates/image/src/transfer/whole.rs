//! Keeps an index whole: the manifests of all its platforms, and as content every blob that is no layer here.

use super::inspect::{parse, small_blob};
use super::layer::{blocking, partial_name};
use super::lines::Lines;
use super::resolve::{self, Resolved};
use super::{Setup, Transfers};
use crate::content::Partial;
use crate::error::{Error, Result};
use crate::hash::AnyHasher;
use crate::pipe::PIECE_BYTES;
use crate::record::{BlobRecord, ManifestRecord};
use crate::store::{Lease, now};
use gantry_api::digest::Digest;
use gantry_api::oci::image::{Descriptor, Index, Manifest, media_type};
use gantry_distribution::Repository;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Is how many manifests one index may bring; real ones have some dozens.
const MANIFESTS_MAX: usize = 1024;
/// Is how many bytes all of them may have; they are in memory until the commit.
const MANIFESTS_BYTES_MAX: u64 = 64 << 20;
/// Is how often a blob is asked for that another pull writes.
const PARTIAL_POLL: Duration = Duration::from_millis(100);

pub(crate) struct Whole<'a> {
    pub transfers: &'a Transfers,
    pub setup: &'a Setup,
    pub repository: &'a Repository,
    pub lines: &'a Lines,
    pub source: &'a str,
}

/// Is what was kept; the lease holds the blobs until an image's manifests do.
pub(crate) struct Kept {
    pub manifests: Vec<(ManifestRecord, Vec<u8>)>,
    pub lease: Lease,
}

impl Whole<'_> {
    /// Brings everything beneath what was resolved.
    pub async fn keep(&self, resolved: &Resolved) -> Result<Kept> {
        let images = &self.transfers.0.images;
        let lease = images.open_lease();
        let mut manifests: Vec<(ManifestRecord, Vec<u8>)> = Vec::new();
        let mut blobs: Vec<Descriptor> = Vec::new();
        let own: HashSet<&Digest> = resolved
            .path
            .iter()
            .map(|(record, _)| &record.digest)
            .collect();
        let top = resolved.top.clone();
        let mut open = vec![top.descriptor.digest.clone()];
        let mut seen: HashSet<Digest> = open.iter().cloned().collect();
        let mut bytes: u64 = 0;
        while let Some(digest) = open.pop() {
            let fetched = if digest == top.descriptor.digest {
                top.clone()
            } else {
                resolve::by_digest(self.repository, images, &digest).await?
            };
            bytes += fetched.bytes.len() as u64;
            if bytes > MANIFESTS_BYTES_MAX {
                return Err(Error::invalid(format!(
                    "the manifests of the index have more than {MANIFESTS_BYTES_MAX} bytes"
                )));
            }
            let mut record = resolve::record(&fetched, self.source);
            if media_type::is_index(&record.media_type) {
                let index: Index = parse("index", &fetched.bytes)?;
                for below in &index.manifests {
                    record.manifests.push(below.digest.clone());
                    if seen.insert(below.digest.clone()) {
                        open.push(below.digest.clone());
                    }
                    if seen.len() > MANIFESTS_MAX {
                        return Err(Error::invalid(format!(
                            "the index lists more than {MANIFESTS_MAX} manifests"
                        )));
                    }
                }
            } else {
                let manifest: Manifest = parse("manifest", &fetched.bytes)?;
                record.subject = resolve::subject(&manifest);
                let parts = std::iter::once(&manifest.config).chain(&manifest.layers);
                record.blobs = parts.clone().map(|part| part.digest.clone()).collect();
                if !own.contains(&record.digest) {
                    blobs.extend(parts.cloned());
                }
            }
            manifests.push((record, fetched.bytes.to_vec()));
        }
        let mut fetched = HashSet::new();
        let mut running = tokio::task::JoinSet::new();
        let lease = Arc::new(lease);
        for blob in blobs {
            if fetched.insert(blob.digest.clone()) {
                let one = Fetch {
                    transfers: self.transfers.clone(),
                    setup: self.setup.clone(),
                    repository: self.repository.clone(),
                    lines: self.lines.clone(),
                    source: self.source.to_owned(),
                    lease: Arc::clone(&lease),
                };
                running.spawn(one.keep(blob));
            }
        }
        while let Some(done) = running.join_next().await {
            done.unwrap_or(Err(Error::Cancelled))?;
        }
        let lease = Arc::into_inner(lease).ok_or(Error::Cancelled)?;
        Ok(Kept { manifests, lease })
    }
}

struct Fetch {
    transfers: Transfers,
    setup: Setup,
    repository: Repository,
    lines: Lines,
    source: String,
    lease: Arc<Lease>,
}

impl Fetch {
    /// Keeps one blob as content.
    async fn keep(self, descriptor: Descriptor) -> Result<()> {
        let id = descriptor.digest.short();
        let downloads = Arc::clone(&self.setup.downloads);
        let _permit = downloads
            .acquire_owned()
            .await
            .map_err(|_| Error::Cancelled)?;
        if self.record(&descriptor).await? {
            return self.lines.status(id, "Already exists").await;
        }
        self.lines.status(id, "Pulling fs layer").await?;
        if descriptor.size <= PIECE_BYTES as u64 {
            let bytes = small_blob(&self.repository, &descriptor).await?;
            let (images, digest) = (self.transfers.0.images.clone(), descriptor.digest.clone());
            blocking(move || {
                let make_space = || images.0.snapshots.make_space();
                images.0.content.put_as(&digest, &bytes, &make_space)
            })
            .await?;
        } else {
            // A mirror that gave wrong bytes is not asked again.
            while !self.download(&descriptor).await? {}
        }
        self.lines.status(id, "Download complete").await
    }

    /// Writes the blob's record, so that its content is known before it is there; tells whether it is there already,
    /// as content or as a layer.
    async fn record(&self, descriptor: &Descriptor) -> Result<bool> {
        let images = self.transfers.0.images.clone();
        let lease = Arc::clone(&self.lease);
        let record = BlobRecord {
            digest: descriptor.digest.clone(),
            diff_id: None,
            size_bytes: descriptor.size,
            media_type: descriptor.media_type.clone(),
            annotations: descriptor.annotations.clone(),
            sources: BTreeSet::from([self.source.clone()]),
            verified: false,
            made_by: None,
            kept: true,
            last_used: Some(now()),
            extra: serde_json::Map::new(),
        };
        blocking(move || {
            let digest = record.digest.clone();
            {
                let mut mirror = images.lock();
                lease.add(&mut mirror, &digest);
                // What a manifest merely claims to unpack to a layer of this machine is fetched all the same.
                let blob = mirror.blobs.get(&digest).filter(|blob| blob.verified);
                let diff_id = blob.and_then(|blob| blob.diff_id.as_ref());
                if diff_id.is_some_and(|diff_id| mirror.layers.contains_key(diff_id)) {
                    return Ok(true);
                }
            }
            images.learn(vec![record], Vec::new())?;
            Ok(images.0.content.size(&digest)?.is_some())
        })
        .await
    }

    /// Opens the partial of a blob; nothing, where another pull has brought the blob meanwhile.
    async fn open(&self, digest: &Digest) -> Result<Option<Partial>> {
        loop {
            let (images, digest) = (self.transfers.0.images.clone(), digest.clone());
            let opened = blocking(move || {
                let partial = images.0.content.partial(&partial_name(&digest))?;
                if images.0.content.size(&digest)?.is_none() {
                    return Ok(Some(partial));
                }
                partial.discard()?;
                Ok(None)
            });
            match opened.await {
                // Another pull, or one that is being cancelled, writes it; it ends, for it does not outwait a registry.
                Err(Error::Conflict(_)) => tokio::time::sleep(PARTIAL_POLL).await,
                other => return other,
            }
        }
    }

    /// Fetches a blob into the store; tells of wrong bytes that another host may have right.
    async fn download(&self, descriptor: &Descriptor) -> Result<bool> {
        let Descriptor { digest, size, .. } = descriptor;
        let images = self.transfers.0.images.clone();
        let Some(partial) = self.open(digest).await? else {
            return Ok(true);
        };
        let (mut partial, mut hasher) = {
            let algorithm = digest.algorithm().to_owned();
            blocking(move || {
                let mut hasher = AnyHasher::new(&algorithm);
                let mut file = partial.reader()?;
                let mut buffer = vec![0; PIECE_BYTES];
                loop {
                    let read = std::io::Read::read(&mut file, &mut buffer);
                    match read.map_err(|error| Error::io("read a partial blob", error))? {
                        0 => break,
                        length => hasher.update(&buffer[..length]),
                    }
                }
                Ok((partial, hasher))
            })
            .await?
        };
        if partial.bytes() > *size {
            partial.truncate(0)?;
            hasher = AnyHasher::new(digest.algorithm());
        }
        let mut bar = self.lines.bar(digest.short(), "Downloading", *size);
        let mut reader = self.repository.blob(descriptor, partial.bytes()).await?;
        loop {
            let piece = reader.next().await?;
            let is_last = piece.is_none();
            if let Some(piece) = piece {
                let images = images.clone();
                (partial, hasher) = blocking(move || {
                    partial.append(&piece, &|| images.0.snapshots.make_space())?;
                    hasher.update(&piece);
                    Ok((partial, hasher))
                })
                .await?;
            }
            bar.at(partial.bytes()).await?;
            if is_last {
                break;
            }
        }
        let got = hasher.finish();
        let is_mendable = got != *digest && reader.blame();
        let digest = digest.clone();
        blocking(move || {
            if got == digest {
                partial.commit(&digest)?;
                Ok(true)
            } else if is_mendable {
                partial.discard()?;
                Ok(false)
            } else {
                partial.discard()?;
                Err(Error::Registry(gantry_distribution::Error::Corrupt(
                    format!("filesystem layer verification failed for digest {digest}"),
                )))
            }
        })
        .await
    }
}
