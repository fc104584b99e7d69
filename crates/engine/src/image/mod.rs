//! Images: the image crate's synchronous verbs behind the blocking pool, with their events.

mod download;
mod gc;
mod transfer;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use gantry_api::id::ImageId;
use gantry_api::oci::image::RunConfig;
use gantry_api::platform::Platform;
use gantry_image::{InUse, ListOptions, PruneOptions};
use tokio::sync::mpsc;

pub use gantry_image::distribution::{self, Credentials, Login, SearchResult, SignaturePolicy};
pub use gantry_image::{
    CheckReport, Compression, Concurrency, DiskUsage, GcItem, GcPolicy, GcReport, HistoryEntry,
    Image, ImportOptions, Listed, LoadEvent, LoadOptions, Loaded, PullOptions, PushOptions,
    Removed, TransferEvent,
};

use crate::container::{Config, Record};
use crate::failpoint::around;
use crate::reservation::{Held, Kind};
use crate::{Engine, Error, Filters, Result};

/// Progress frames that wait for a slow client.
const FRAMES_MAX: usize = 64;

/// An image that a container is made of.
pub(crate) struct Base {
    pub id: String,
    pub config: Config,
}

/// How to remove an image.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    pub force: bool,
    pub no_prune: bool,
}

/// What a prune of images did.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    pub removed: Vec<Removed>,
    pub reclaimed_bytes: u64,
}

/// Gives an error of the image crate the engine's form; the text is Docker's already.
pub(crate) fn error(error: gantry_image::Error) -> Error {
    Error::new(error.kind(), error.to_string()).caused_by(error)
}

impl Engine {
    /// Finds the image of a create.
    pub(crate) fn image_for(&self, reference: &str, platform: Option<&Platform>) -> Result<Base> {
        let image = self.inner.images.get(reference).map_err(error)?;
        if let Some(wanted) = platform {
            let own = image.config().platform();
            if !wanted.matches(&own) {
                return Err(Error::not_found(format!(
                    "image with reference {reference} was found but its platform ({own}) does not match the specified \
                     platform ({wanted})"
                )));
            }
        }
        Ok(Base {
            id: image.id.to_string(),
            config: config_of(&image.config().config),
        })
    }

    /// Holds the image of a container in the making: it cannot be removed any more.
    ///
    /// # Errors
    /// It was removed before.
    pub(crate) fn hold_image(&self, held: &mut Held, base: &Base) -> Result<()> {
        held.hold(Kind::Image, &base.id);
        self.inner.images.get(&base.id).map_err(error)?;
        Ok(())
    }

    /// Takes a writable snapshot's number; it goes into the record before [`Engine::prepare_snapshot`].
    pub(crate) fn allocate_snapshot(&self) -> Result<u64> {
        self.inner.images.allocate_snapshot().map_err(error)
    }

    pub(crate) fn prepare_snapshot(&self, number: u64, record: &Record) -> Result<()> {
        let id: ImageId = record
            .image_id
            .parse()
            .map_err(|_| Error::system(format!("container {} has no valid image id", record.id)))?;
        self.inner.images.prepare(number, &id).map_err(error)
    }

    pub(crate) fn release_snapshot(&self, record: &Record) -> Result<()> {
        match record.snapshot {
            Some(number) => self.inner.images.release(number).map_err(error),
            None => Ok(()),
        }
    }

    pub(crate) async fn image_count(&self) -> Result<u64> {
        Ok(self.images(&Filters::new(), true, false).await?.len() as u64)
    }

    /// Loads an archive; the receiver gives its progress and ends with the last frame.
    pub async fn load(
        &self,
        archive: Box<dyn Read + Send>,
        options: LoadOptions,
    ) -> mpsc::Receiver<Result<LoadEvent>> {
        let (sender, receiver) = mpsc::channel(FRAMES_MAX);
        let engine = self.clone();
        let started = std::thread::Builder::new()
            .name("image-load".into())
            .spawn(move || {
                let loaded = around("load.start", || {
                    engine.inner.images.load(archive, &options, &mut |event| {
                        // A client that went away does not stop the load; it stops the archive, which does.
                        let _ = sender.blocking_send(Ok(event));
                    })
                });
                let result = around("load.commit", || loaded);
                // What the load's buffers took goes back to the machine now, not when the heap happens to shrink.
                gantry_sys::epoll::trim_heap();
                match result {
                    Ok(all) => all.iter().for_each(|loaded| engine.loaded(loaded)),
                    Err(failure) => {
                        let _ = sender.blocking_send(Err(error(failure)));
                    }
                }
            });
        if let Err(failure) = started {
            let (sender, receiver) = mpsc::channel(1);
            let _ = sender.try_send(Err(Error::io("start a load", failure)));
            return receiver;
        }
        receiver
    }

    fn loaded(&self, loaded: &Loaded) {
        let id = loaded.id.to_string();
        let name = loaded
            .reference
            .as_ref()
            .map_or_else(|| id.clone(), |reference| reference.to_string());
        self.image_event("load", &id, &name);
    }

    /// Makes an image of a root file system's archive.
    pub async fn import(
        &self,
        archive: Box<dyn Read + Send>,
        options: ImportOptions,
    ) -> Result<String> {
        let engine = self.clone();
        crate::blocking::run_long(move || {
            let id = engine
                .inner
                .images
                .import(archive, &options)
                .map_err(error)?
                .to_string();
            engine.image_event("import", &id, &id);
            Ok(id)
        })
        .await?
    }

    /// Writes images as one archive.
    pub async fn save_images(
        &self,
        names: Vec<String>,
        platform: Option<Platform>,
        mut writer: Box<dyn Write + Send>,
    ) -> Result<()> {
        let engine = self.clone();
        crate::blocking::run_long(move || {
            engine
                .inner
                .images
                .save(&names, platform.as_ref(), &mut *writer)
                .map_err(error)?;
            for name in &names {
                if let Ok(image) = engine.inner.images.get(name) {
                    engine.image_event("save", image.id.as_ref(), name);
                }
            }
            Ok(())
        })
        .await?
    }

    /// Returns the image of this name, id or unique prefix of an id.
    pub async fn image(&self, name: &str) -> Result<Arc<Image>> {
        let (engine, name) = (self.clone(), name.to_owned());
        crate::blocking::run(move || engine.inner.images.get(&name).map_err(error)).await?
    }

    /// Lists images, the newest first.
    pub async fn images(
        &self,
        filters: &Filters,
        all: bool,
        shared_size: bool,
    ) -> Result<Vec<Listed>> {
        crate::check_filter_keys(
            filters,
            &["before", "since", "dangling", "label", "reference", "until"],
        )?;
        let values = |key: &str| filters.get(key).cloned().unwrap_or_default();
        let options = ListOptions {
            all,
            shared_size,
            dangling: crate::filter_flag(filters, "dangling")?,
            before: values("before"),
            since: values("since"),
            until: until(filters)?,
            labels: values("label"),
            references: values("reference"),
        };
        let engine = self.clone();
        crate::blocking::run(move || engine.inner.images.list(&options).map_err(error)).await?
    }

    /// Counts the containers of each image.
    pub fn containers_of_images(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for container in self.inner.containers.all() {
            *counts
                .entry(container.record().image_id.clone())
                .or_default() += 1;
        }
        counts
    }

    /// Gives an image one more name.
    pub async fn tag(&self, source: &str, target: &str) -> Result<()> {
        let (engine, source, target) = (self.clone(), source.to_owned(), target.to_owned());
        crate::blocking::run(move || {
            let id = engine.inner.images.tag(&source, &target).map_err(error)?;
            engine.image_event("tag", id.as_ref(), &target);
            Ok(())
        })
        .await?
    }

    /// Removes a name of an image, or the image.
    pub async fn remove_image(&self, name: &str, options: RemoveOptions) -> Result<Vec<Removed>> {
        let (engine, name) = (self.clone(), name.to_owned());
        crate::blocking::run(move || {
            let id = engine
                .inner
                .images
                .get(&name)
                .map_err(error)?
                .id
                .to_string();
            let in_use = |id: &ImageId| engine.image_users(id);
            let options = gantry_image::RemoveOptions {
                force: options.force,
                no_prune: options.no_prune,
                in_use: &in_use,
            };
            let removed = engine.inner.images.remove(&name, options).map_err(error)?;
            engine.removed(&removed, &id);
            Ok(removed)
        })
        .await?
    }

    /// Removes unused images.
    pub async fn prune_images(&self, filters: &Filters) -> Result<Pruned> {
        crate::check_filter_keys(filters, &["dangling", "label", "label!", "until"])?;
        let values = |key: &str| filters.get(key).cloned().unwrap_or_default();
        let dangling_only = dangling_only(filters)?;
        let (labels, labels_not, until) = (values("label"), values("label!"), until(filters)?);
        let engine = self.clone();
        crate::blocking::run(move || {
            let in_use = |id: &ImageId| engine.image_users(id);
            let options = PruneOptions {
                dangling_only,
                labels,
                labels_not,
                until,
                in_use: &in_use,
            };
            let pruned = engine.inner.images.prune(&options).map_err(error)?;
            engine.removed(&pruned.removed, "");
            let more = [("reclaimed".to_owned(), pruned.reclaimed_bytes.to_string())];
            engine.inner.events.emit("image", "prune", "", more.into());
            Ok(Pruned {
                removed: pruned.removed,
                reclaimed_bytes: pruned.reclaimed_bytes,
            })
        })
        .await?
    }

    /// Tells how an image was made, the newest step first.
    pub async fn history(&self, name: &str) -> Result<Vec<HistoryEntry>> {
        let (engine, name) = (self.clone(), name.to_owned());
        crate::blocking::run(move || engine.inner.images.history(&name).map_err(error)).await?
    }

    /// Returns the bytes of all layers.
    pub async fn image_disk_usage(&self) -> Result<gantry_image::DiskUsage> {
        let engine = self.clone();
        crate::blocking::run(move || engine.inner.images.disk_usage().map_err(error)).await?
    }

    /// Returns the containers of an image, those in the making as well. Asked under the lock of the images, so that no
    /// removal overlooks a container that [`Engine::hold_image`] has held it for.
    fn image_users(&self, id: &ImageId) -> Vec<InUse> {
        let id = id.to_string();
        let mut users: Vec<InUse> = Vec::new();
        for container in self.inner.containers.all() {
            let record = container.record();
            if record.image_id == id {
                users.push(InUse {
                    container_id: record.id.clone(),
                    running: record.state.status.is_running(),
                });
            }
        }
        for container_id in self.inner.reservations.holders(Kind::Image, &id) {
            if users.iter().all(|user| user.container_id != container_id) {
                // What is being made cannot be told from what runs: it is not taken away by force either.
                users.push(InUse {
                    container_id,
                    running: true,
                });
            }
        }
        users
    }

    fn removed(&self, removed: &[Removed], id: &str) {
        for one in removed {
            match one {
                // Docker names the image and not the reference that is gone.
                Removed::Untagged(_) => self.image_event("untag", id, id),
                // Layers have no events of their own.
                Removed::Deleted(digest) if id.is_empty() || digest.to_string() == id => {
                    let digest = digest.to_string();
                    self.image_event("delete", &digest, &digest);
                }
                Removed::Deleted(_) => {}
            }
        }
    }

    fn image_event(&self, action: &str, id: &str, name: &str) {
        self.inner.events.emit(
            "image",
            action,
            id,
            [("name".to_owned(), name.to_owned())].into(),
        );
    }
}

/// Tells whether a prune takes the images without a name alone. Of several values one that says no decides, then one
/// that says yes, as for Docker.
fn dangling_only(filters: &Filters) -> Result<bool> {
    let Some(values) = filters.get("dangling").filter(|values| !values.is_empty()) else {
        return Ok(true);
    };
    let has = |texts: [&str; 2]| values.iter().any(|value| texts.contains(&value.as_str()));
    match (has(["false", "0"]), has(["true", "1"])) {
        (true, _) => Ok(false),
        (false, true) => Ok(true),
        (false, false) => Err(Error::invalid(format!(
            "invalid filter 'dangling=[{}]'",
            values.join(" ")
        ))),
    }
}

fn until(filters: &Filters) -> Result<Option<gantry_api::time::Timestamp>> {
    let ns = crate::container::until_ns(filters)?;
    Ok(ns.map(|ns| gantry_api::time::Timestamp::from_unix_nanos(ns.into())))
}

/// Turns an image's run configuration into the engine's form.
pub(crate) fn config_of(image: &RunConfig) -> Config {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Config {
        user: image.user.clone(),
        env: image.env.clone().unwrap_or_default(),
        cmd: image.cmd.clone(),
        entrypoint: image.entrypoint.clone(),
        volumes: image
            .volumes
            .iter()
            .flatten()
            .map(|(path, _)| path.clone())
            .collect(),
        working_dir: image.working_dir.clone(),
        // A port that cannot be read is the image's fault; it publishes nothing.
        exposed_ports: image
            .exposed_ports
            .iter()
            .flatten()
            .filter_map(|(port, _)| port.parse().ok())
            .collect(),
        labels: image.labels.clone().unwrap_or_default(),
        stop_signal: text(&image.stop_signal),
        stop_timeout_s: image.stop_timeout,
        on_build: image.on_build.clone(),
        shell: image.shell.clone(),
        healthcheck: image
            .healthcheck
            .as_ref()
            .and_then(|check| serde_json::to_value(check).ok()),
        ..Config::default()
    }
}
