//! Pulls an image: what the reference stands for, its configuration, the layers that are not here, one transaction.

use super::flights::Stage;
use super::inspect::asked;
use super::layer::{AtWork, Ended, Wanted, blocking, partial_name};
use super::lines::Lines;
use super::resolve::{self, Resolved};
use super::whole::Kept;
use super::{Done, Events, LINES_MAX, PullOptions, Setup, Transfers};
use crate::error::{Error, Result};
use crate::load::image_record;
use crate::record::BlobRecord;
use crate::store::{Images, Lease, Staged, now, parse_config};
use gantry_api::digest::Digest;
use gantry_api::id::ImageId;
use gantry_api::oci::image::{ImageConfig, Manifest};
use gantry_api::reference::Reference;
use gantry_distribution::{FetchedManifest, Repository};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Is the work on one tag.
struct Pull {
    transfers: Transfers,
    setup: Setup,
    repository: Repository,
    options: PullOptions,
    lines: Lines,
}

/// Is a layer that a pull waits for.
struct Fetching {
    id: String,
    size: u64,
    diff_id: Digest,
    stage: watch::Receiver<Stage>,
    /// Where another pull began to fetch it: how to begin anew if that one fails, which may be for lack of its rights.
    again: Option<Wanted>,
}

impl Transfers {
    /// Pulls an image, or all tags of a repository. Dropping what it gives cancels what no other pull shares.
    ///
    /// # Errors
    /// What is known before the first line is an error of the call; all else is the last item.
    pub async fn pull(&self, options: PullOptions, done: Done) -> Result<Events> {
        let setup = self.setup()?;
        let repository = setup.registries.repository_told(
            &options.reference,
            options.credentials.clone(),
            &options.headers,
        );
        let (sender, receiver) = mpsc::channel(LINES_MAX);
        let pull = Pull {
            transfers: self.clone(),
            setup,
            repository,
            options,
            lines: Lines::new(sender),
        };
        let references = pull.references().await?;
        let Some((first, rest)) = references.split_first() else {
            return Err(Error::NotFound(format!(
                "no tags in the repository {}",
                pull.options.reference.familiar_name()
            )));
        };
        let (first, rest) = (first.clone(), rest.to_vec());
        let top = pull.top(&first).await?;
        let (lines, reference) = (pull.lines.clone(), pull.options.reference.clone());
        super::spawn(
            lines,
            async move { pull.run(first, rest, top).await },
            reference,
            done,
        );
        Ok(receiver)
    }
}

impl Pull {
    /// Gives what is to be pulled: one reference, or one for each tag.
    async fn references(&self) -> Result<Vec<Reference>> {
        let reference = &self.options.reference;
        if !reference.is_name_only() {
            return Ok(vec![reference.clone()]);
        }
        let tags = self.repository.tags().await?;
        let references = tags.iter().map(|tag| reference.clone().with_tag(tag));
        references
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| Error::invalid(error.to_string()))
    }

    /// Fetches what a reference stands for; what has not changed since it was pulled is asked for by its head alone,
    /// which costs no byte and counts towards no limit.
    async fn top(&self, reference: &Reference) -> Result<FetchedManifest> {
        let images = self.transfers.0.images.clone();
        let known = match reference.digest() {
            Some(digest) => Some(digest.clone()),
            None if self.is_named(reference).await? => {
                let head = self.repository.head_manifest(&asked(reference)).await;
                head.ok().flatten().map(|descriptor| descriptor.digest)
            }
            None => None,
        };
        if let Some(digest) = known
            && let Some(here) = resolve::local(&images, &digest, Some(&reference.name())).await
        {
            return Ok(here);
        }
        Ok(self.repository.manifest(&asked(reference)).await?)
    }

    async fn is_named(&self, reference: &Reference) -> Result<bool> {
        let (images, name) = (self.transfers.0.images.clone(), reference.canonical());
        blocking(move || Ok(images.lock().references.contains_key(&name))).await
    }

    async fn run(
        &self,
        first: Reference,
        rest: Vec<Reference>,
        top: FetchedManifest,
    ) -> Result<()> {
        let mut is_newer = self.one(&first, top.clone()).await?;
        for reference in rest {
            let top = self.top(&reference).await?;
            is_newer |= self.one(&reference, top).await?;
        }
        let shown = self.options.reference.to_string();
        let status = if is_newer {
            format!("Status: Downloaded newer image for {shown}")
        } else {
            format!("Status: Image is up to date for {shown}")
        };
        self.lines.status("", status).await?;
        self.warn_of_platform(&first).await?;
        resolve::tell_limit(&self.lines, &top).await
    }

    /// Pulls one reference; tells whether it stands for something else than before.
    async fn one(&self, reference: &Reference, top: FetchedManifest) -> Result<bool> {
        let shown = match (reference.digest(), reference.tag()) {
            (None, Some(tag)) => tag.to_owned(),
            _ => reference.to_string(),
        };
        let digest = top.descriptor.digest.clone();
        self.lines
            .status(&shown, format!("Pulling from {}", reference.path()))
            .await?;
        self.check_signature(reference, &digest).await?;
        let source = reference.name();
        let platform = self.options.platform.as_ref();
        let images = &self.transfers.0.images;
        let resolved = resolve::choose(&self.repository, images, &source, top, platform).await?;
        resolve::check_is_image(&resolved.manifest)?;
        let raw = self.config(&resolved.manifest).await?;
        let config = parse_config(&raw)?;
        check_config(&config, &resolved.manifest)?;
        let kept = if self.options.all_platforms {
            let whole = super::whole::Whole {
                transfers: &self.transfers,
                setup: &self.setup,
                repository: &self.repository,
                lines: &self.lines,
                source: &source,
            };
            Some(whole.keep(&resolved).await?)
        } else {
            None
        };
        let layers = self
            .layers(&source, &resolved.manifest, &config, &raw)
            .await?;
        self.lines.status("", format!("Digest: {digest}")).await?;
        self.commit(reference, resolved, (raw, config), layers, kept)
            .await
    }

    async fn check_signature(&self, reference: &Reference, digest: &Digest) -> Result<()> {
        match self.setup.signatures.as_deref() {
            Some(policy) => Ok(policy.check(&self.repository, reference, digest).await?),
            None => Ok(()),
        }
    }

    /// Gives the configuration, from the store where it is there.
    async fn config(&self, manifest: &Manifest) -> Result<Vec<u8>> {
        let digest = &manifest.config.digest;
        let (images, wanted) = (self.transfers.0.images.clone(), digest.clone());
        let stored = blocking(move || images.0.content.get(&wanted)).await;
        if let Ok(raw) = stored {
            return Ok(raw);
        }
        let fetched = resolve::config(&self.repository, manifest);
        let raw = self.transfers.0.flights.small(digest, fetched).await?;
        Ok(raw.to_vec())
    }

    /// Brings the layers that are not here; the leases keep all of them until the commit.
    async fn layers(
        &self,
        source: &str,
        manifest: &Manifest,
        config: &ImageConfig,
        raw: &[u8],
    ) -> Result<Layers> {
        let images = &self.transfers.0.images;
        let (lease, is_known, is_here) = {
            let images = images.clone();
            let id = crate::hash::sha256(raw).hex().parse::<ImageId>();
            let diff_ids = config.rootfs.diff_ids.clone();
            blocking(move || {
                let lease = images.open_lease();
                // Docker tells nothing of layers where the image itself is here.
                let is_known = id.is_ok_and(|id| images.lock().images.contains_key(&id));
                let is_here = diff_ids.iter().map(|diff_id| images.lease(diff_id, &lease));
                let is_here: Vec<bool> = is_here.collect();
                Ok((lease, is_known, is_here))
            })
            .await?
        };
        let (at_work, ended) = AtWork::channel();
        let mut layers = Layers::new(lease);
        let mut fetching: Vec<Fetching> = Vec::new();
        let mut seen = HashSet::new();
        let mut missing = Vec::new();
        let parts = manifest.layers.iter().zip(&config.rootfs.diff_ids);
        for ((descriptor, diff_id), is_here) in parts.zip(is_here) {
            let id = descriptor.digest.short();
            if is_here {
                if !is_known {
                    self.lines.status(id, "Already exists").await?;
                }
                continue;
            }
            self.lines.status(id, "Pulling fs layer").await?;
            if seen.insert(diff_id) {
                missing.push((descriptor, diff_id));
            }
        }
        for (descriptor, diff_id) in missing {
            layers
                .wanted
                .push((descriptor.digest.clone(), diff_id.clone()));
            let wanted = || Wanted {
                repository: self.repository.clone(),
                source: source.to_owned(),
                descriptor: descriptor.clone(),
                diff_id: diff_id.clone(),
                setup: self.setup.clone(),
                at_work: at_work.clone(),
            };
            let flights = &self.transfers.0.flights;
            let (stage, is_own) = flights.layer(&self.transfers, wanted());
            fetching.push(Fetching {
                id: descriptor.digest.short().to_owned(),
                size: descriptor.size,
                diff_id: diff_id.clone(),
                stage,
                again: (!is_own).then(wanted),
            });
        }
        drop(at_work);
        let result = self.wait_for(fetching, &mut layers).await;
        if let Err(error) = result {
            layers.given_up(images, ended, &error);
            return Err(error);
        }
        Ok(layers)
    }

    /// Follows all layers at once; their ends are told from the bottom upwards, as Docker extracts them.
    async fn wait_for(&self, fetching: Vec<Fetching>, layers: &mut Layers) -> Result<()> {
        let mut following = tokio::task::JoinSet::new();
        let (ended, mut ends) = mpsc::unbounded_channel();
        let count = fetching.len();
        for (number, one) in fetching.into_iter().enumerate() {
            let (lines, ended) = (self.lines.clone(), ended.clone());
            let transfers = self.transfers.clone();
            following.spawn(async move {
                let Fetching {
                    id,
                    size,
                    diff_id,
                    stage,
                    again,
                } = one;
                let mut result = follow(&lines, &id, size, stage).await;
                if let (Err(Error::Shared(_)), Some(wanted)) = (&result, again) {
                    let (stage, _) = transfers.0.flights.layer(&transfers, wanted);
                    result = follow(&lines, &id, size, stage).await;
                }
                let _ = ended.send((number, id, size, diff_id, result));
            });
        }
        drop(ended);
        let mut done: Vec<Option<(String, u64)>> = vec![None; count];
        let mut told = 0;
        while let Some((number, id, size, diff_id, result)) = ends.recv().await {
            layers.held.push(result?);
            layers.fetched.push(diff_id);
            done[number] = Some((id, size));
            while let Some((id, size)) = done.get(told).cloned().flatten() {
                self.lines.bar(&id, "Extracting", size).at(size).await?;
                self.lines.status(&id, "Pull complete").await?;
                told += 1;
            }
        }
        Ok(())
    }

    /// Writes everything in one transaction.
    async fn commit(
        &self,
        reference: &Reference,
        resolved: Resolved,
        (raw, config): (Vec<u8>, ImageConfig),
        layers: Layers,
        kept: Option<Kept>,
    ) -> Result<bool> {
        let record = image_record(&raw, &config, None)?;
        let id = record.id.clone();
        let source = reference.name();
        let digest = resolved.top.descriptor.digest.clone();
        let (mut manifests, kept) = match kept {
            Some(Kept { manifests, lease }) => (manifests, Some(lease)),
            None => (Vec::new(), None),
        };
        let parts = resolved.manifest.layers.iter().zip(&config.rootfs.diff_ids);
        let blobs = parts.map(|(descriptor, diff_id)| BlobRecord {
            digest: descriptor.digest.clone(),
            diff_id: Some(diff_id.clone()),
            size_bytes: descriptor.size,
            media_type: descriptor.media_type.clone(),
            annotations: descriptor.annotations.clone(),
            sources: BTreeSet::from([source.clone()]),
            verified: false,
            made_by: None,
            kept: false,
            last_used: Some(now()),
            extra: serde_json::Map::new(),
        });
        let blobs: Vec<BlobRecord> = blobs.collect();
        for (mut record, bytes) in resolved.path {
            record.image = Some(id.clone());
            // One that was kept whole names more beneath it than the way to this machine's image.
            match manifests
                .iter_mut()
                .find(|(other, _)| other.digest == record.digest)
            {
                Some((whole, _)) => *whole = whole.clone().with(Some(&record)),
                None => manifests.push((record, bytes)),
            }
        }
        let by_digest = reference.clone().name_only().with_digest(digest);
        let mut references = vec![(by_digest.clone(), id.clone())];
        let named = match reference.digest() {
            Some(_) => by_digest,
            None => {
                references.push((reference.clone(), id.clone()));
                reference.clone()
            }
        };
        let images = self.transfers.0.images.clone();
        blocking(move || {
            let before = images.lock().references.get(&named.canonical()).cloned();
            images.commit(Staged {
                images: vec![(record, raw)],
                references,
                manifests,
                blobs,
                tagging: false,
                ..Staged::default()
            })?;
            drop((layers, kept));
            Ok(before.is_none_or(|(_, old)| old != id))
        })
        .await
    }

    /// Says so where a platform was wanted and the reference has another one alone.
    async fn warn_of_platform(&self, reference: &Reference) -> Result<()> {
        let Some(wanted) = &self.options.platform else {
            return Ok(());
        };
        let images = self.transfers.0.images.clone();
        let name = reference.to_string();
        let image = blocking(move || images.get(&name)).await?;
        let own = image.config().platform();
        if wanted.matches(&own) {
            return Ok(());
        }
        let text = format!(
            "WARNING: image with reference {reference} was found but its platform ({own}) does not match the specified \
             platform ({wanted})"
        );
        self.lines.status("", text).await
    }
}

/// Keeps what a pull has until its commit.
struct Layers {
    _lease: Lease,
    held: Vec<Arc<Lease>>,
    fetched: Vec<Digest>,
    /// The blobs that were not here, and what they unpack to.
    wanted: Vec<(Digest, Digest)>,
}

impl Layers {
    fn new(lease: Lease) -> Self {
        Self {
            _lease: lease,
            held: Vec::new(),
            fetched: Vec::new(),
            wanted: Vec::new(),
        }
    }

    /// Leaves what came for the next try; a full disk gets back what it gave.
    fn given_up(self, images: &Images, ended: Ended, error: &Error) {
        let mut error = error;
        while let Error::Shared(inner) = error {
            error = inner;
        }
        let images = images.clone();
        if !matches!(error, Error::NoSpace { .. }) {
            tokio::task::spawn_blocking(move || {
                if !self.fetched.is_empty() {
                    images.sync_later(self.fetched.clone());
                }
            });
            return;
        }
        tokio::spawn(async move {
            // One layer filled the disk while others were on their way; what they had so far is there when they have ended.
            ended.wait().await;
            tokio::task::spawn_blocking(move || {
                let Self { wanted, .. } = self;
                for (blob, _) in &wanted {
                    // What cannot go now, or is another pull's, goes with its time.
                    let _ = images.0.content.remove_partial(&partial_name(blob));
                }
                let diff_ids: Vec<Digest> =
                    wanted.into_iter().map(|(_, diff_id)| diff_id).collect();
                let _ = images.let_go(&diff_ids);
            });
        });
    }
}

/// Tells a layer's stages in Docker's words until it is in the store.
async fn follow(
    lines: &Lines,
    id: &str,
    size: u64,
    mut stage: watch::Receiver<Stage>,
) -> Result<Arc<Lease>> {
    let mut bar = lines.bar(id, "Downloading", size);
    let mut is_downloaded = false;
    let mut is_waiting = false;
    loop {
        let now = stage.borrow_and_update().clone();
        match now {
            Stage::Started => {}
            Stage::Waiting if is_waiting => {}
            Stage::Waiting => {
                is_waiting = true;
                lines.status(id, "Waiting").await?;
            }
            Stage::Downloading(current) => bar.at(current).await?,
            Stage::Retrying(until) => {
                count_down(lines, id, until, &mut stage).await?;
                continue;
            }
            Stage::Downloaded | Stage::Done(_) if !is_downloaded => {
                is_downloaded = true;
                bar.at(size).await?;
                lines.status(id, "Verifying Checksum").await?;
                lines.status(id, "Download complete").await?;
            }
            Stage::Downloaded | Stage::Done(_) => {}
            Stage::Failed(_) => {}
        }
        match &*stage.borrow() {
            Stage::Done(lease) if is_downloaded => return Ok(Arc::clone(lease)),
            Stage::Failed(error) => return Err(Error::Shared(Arc::clone(error))),
            _ => {}
        }
        if stage.changed().await.is_err() {
            let end = stage.borrow().clone();
            return match end {
                Stage::Done(lease) => Ok(lease),
                Stage::Failed(error) => Err(Error::Shared(error)),
                _ => Err(Error::Cancelled),
            };
        }
    }
}

/// Tells each second that is left until the next try.
async fn count_down(
    lines: &Lines,
    id: &str,
    until: Instant,
    stage: &mut watch::Receiver<Stage>,
) -> Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let seconds = left.as_secs_f64().ceil() as u64;
        if seconds > 0 {
            let plural = if seconds == 1 { "" } else { "s" };
            let text = format!("Retrying in {seconds} second{plural}");
            lines.status(id, text).await?;
        }
        tokio::select! {
            changed = stage.changed() => {
                return changed.map_err(|_| Error::Cancelled);
            }
            () = tokio::time::sleep(Duration::from_secs(1).min(left)), if seconds > 0 => {}
        }
    }
}

/// Checks a configuration against its manifest and this machine.
fn check_config(config: &ImageConfig, manifest: &Manifest) -> Result<()> {
    if !config.os.is_empty() && config.os != "linux" {
        return Err(Error::invalid(format!(
            "image operating system {:?} cannot be used on this platform: operating system is not supported",
            config.os
        )));
    }
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        return Err(Error::invalid(
            "layers from manifest don't match image configuration",
        ));
    }
    Ok(())
}
