//! Volumes: directories that outlive containers, `volumes/NAME/_data`.
//!
//! The driver is `local`. A volume may have a file system of its own ([`device`]), which is mounted on the directory while
//! somebody uses it ([`mounted`]). A volume's record is synced before it is acknowledged.

mod copy_up;
mod device;
mod mounted;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::reservation::Kind;
use crate::store::{Durability, Store};
use crate::{Engine, Error, Filters, Result, names};

/// Label of volumes that were made for one container.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// One volume.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    pub name: String,
    pub driver: String,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    pub created_ns: i64,
    /// Filled in when listed.
    #[serde(skip)]
    pub mountpoint: PathBuf,
}

impl Volume {
    /// Tells whether the volume was made for one container alone.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS_LABEL)
    }

    /// Tells whether its content is a file system of its own, which is mounted while the volume is used.
    pub(crate) fn has_device(&self) -> bool {
        ["type", "device"].iter().any(|key| {
            self.options
                .get(*key)
                .is_some_and(|value| !value.is_empty())
        })
    }
}

impl Volume {
    /// Makes the directory of a plain volume where it is missing: a daemon may have died between the record and it. One
    /// that is there keeps its mode.
    fn make_missing_directory(&self) -> std::io::Result<()> {
        if self.has_device() || self.mountpoint.exists() {
            return Ok(());
        }
        make_directory(&self.mountpoint)
    }
}

/// What `volume create` takes.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// Empty for a random name.
    pub name: String,
    pub driver: String,
    pub driver_options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// The volumes of one engine.
#[derive(Debug)]
pub(crate) struct Volumes {
    root: PathBuf,
    store: Store,
    /// Held by who makes or removes a volume, over the disk's work.
    changing: Mutex<()>,
    /// Held for a look alone, also by tokio workers.
    by_name: Mutex<HashMap<String, Arc<Volume>>>,
    users: mounted::Users,
}

impl Volumes {
    /// Reads the records and makes the directory.
    pub(crate) fn open(data_root: &Path) -> std::io::Result<Volumes> {
        let root = data_root.join("volumes");
        std::fs::create_dir_all(&root)?;
        let store = Store::open(data_root, "volume")?;
        let (records, set_aside) = store.load_all::<Volume>()?;
        for record in set_aside {
            tracing::error!(path = %record.path.display(), reason = record.reason, "volume record set aside");
        }
        let removed = cut_off_removals(&root)?;
        let mut by_name = HashMap::new();
        for mut volume in records {
            volume.mountpoint = root.join(&volume.name).join("_data");
            if removed.contains(&volume.name) && !root.join(&volume.name).exists() {
                store.delete(&volume.name)?;
                continue;
            }
            if let Err(error) = volume.make_missing_directory() {
                tracing::error!(volume = volume.name, %error, "make a volume's directory again");
            }
            by_name.insert(volume.name.clone(), Arc::new(volume));
        }
        Ok(Volumes {
            root,
            store,
            changing: Mutex::default(),
            by_name: Mutex::new(by_name),
            users: mounted::Users::default(),
        })
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Volume>> {
        self.by_name
            .lock()
            .expect("no holder panics")
            .get(name)
            .cloned()
    }

    fn all(&self) -> Vec<Arc<Volume>> {
        let mut all: Vec<_> = self
            .by_name
            .lock()
            .expect("no holder panics")
            .values()
            .cloned()
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Makes the volume, or returns the one that is there under this name. The flag tells whether it is new.
    pub(crate) fn create(&self, options: CreateOptions) -> Result<(Arc<Volume>, bool)> {
        let name = if options.name.is_empty() {
            crate::random_id()
        } else {
            options.name
        };
        if name.len() < 2 {
            return Err(Error::invalid(format!(
                "create {name}: volume name is too short, names should be at least two alphanumeric characters"
            )));
        }
        if !names::is_valid(&name) {
            return Err(Error::invalid(format!(
                "create {name}: \"{name}\" includes invalid characters for a local volume name, only \
                 \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
            )));
        }
        if !matches!(options.driver.as_str(), "" | "local" | "default") {
            return Err(Error::not_found(format!(
                "create {name}: error looking up volume plugin {0}: plugin \"{0}\" not found",
                options.driver
            )));
        }
        let _changing = self.changing.lock().expect("no holder panics");
        let failed = |error| Error::io(format_args!("create {name}"), error);
        if let Some(volume) = self.get(&name) {
            volume.make_missing_directory().map_err(failed)?;
            return Ok((volume, false));
        }
        device::check(&options.driver_options).map_err(|error| {
            Error::new(error.kind(), format!("create {name}: {error}")).caused_by(error)
        })?;
        let volume = Volume {
            mountpoint: self.root.join(&name).join("_data"),
            name: name.clone(),
            driver: "local".into(),
            labels: options.labels,
            options: options.driver_options,
            created_ns: crate::now_ns(),
        };
        // The record first: a directory without one would be a stranger to the next daemon.
        self.store
            .save(&name, &volume, Durability::Synced)
            .map_err(failed)?;
        if let Err(error) = make_directory(&volume.mountpoint) {
            let _ = self.store.delete(&name);
            return Err(failed(error));
        }
        let volume = Arc::new(volume);
        self.by_name
            .lock()
            .expect("no holder panics")
            .insert(name, volume.clone());
        Ok((volume, true))
    }

    /// Removes the volume's record and moves its data into the trash, unless `users` names any.
    ///
    /// They are asked for under the lock of changes, which a create takes after it has said that it uses the volume:
    /// so no container is made with a volume that goes.
    fn remove(&self, volume: &Volume, users: impl FnOnce() -> Vec<String>) -> Result<()> {
        let failed = |error| Error::io(format_args!("remove {}", volume.name), error);
        let changing = self.changing.lock().expect("no holder panics");
        let users = users();
        if !users.is_empty() {
            return Err(Error::conflict(format!(
                "remove {}: volume is in use - [{}]",
                volume.name,
                users.join(", ")
            )));
        }
        // Before its directory has another name, under which nobody would look for a mount.
        self.unmount_unused(volume).map_err(failed)?;
        let directory = self.root.join(&volume.name);
        // Its name in the trash says that the record is to go as well, should the daemon end before it does.
        let trash = self.root.join(trash_name(&volume.name));
        match std::fs::rename(&directory, &trash) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
        if let Err(error) = self.store.delete(&volume.name) {
            let _ = std::fs::rename(&trash, &directory);
            return Err(failed(error));
        }
        self.by_name
            .lock()
            .expect("no holder panics")
            .remove(&volume.name);
        drop(changing);
        crate::reaper::delete(trash);
        Ok(())
    }

    /// Deletes what an interrupted removal left in the trash and unmounts what nobody uses.
    pub(crate) fn sweep(&self) -> std::io::Result<()> {
        for volume in self.all() {
            self.unmount_unused(&volume)?;
        }
        for entry in std::fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(TRASH.as_bytes())
            {
                crate::reaper::delete(entry.path());
            }
        }
        Ok(())
    }
}

const TRASH: &str = ".trash-";
/// Digits that keep apart what lies in the trash under one name.
const TRASH_DIGITS: usize = 16;
/// Longest name of a volume that fits behind them into a file's name.
const TRASHED_NAME_MAX: usize = 255 - TRASH.len() - TRASH_DIGITS - 1;

/// Makes up the name of a removed volume's directory. A volume's name that does not fit is left out.
fn trash_name(volume: &str) -> String {
    let digits = &crate::random_id()[..TRASH_DIGITS];
    if volume.len() > TRASHED_NAME_MAX {
        return format!("{TRASH}{digits}");
    }
    format!("{TRASH}{digits}-{volume}")
}

/// Returns the names of the volumes whose directories lie in the trash.
fn cut_off_removals(root: &Path) -> std::io::Result<HashSet<String>> {
    let mut names = HashSet::new();
    for entry in std::fs::read_dir(root)? {
        let name = entry?.file_name();
        let volume = name
            .to_str()
            .and_then(|name| name.strip_prefix(TRASH))
            .and_then(|name| name.split_once('-'));
        names.extend(volume.map(|(_, name)| name.to_owned()));
    }
    Ok(names)
}

fn make_directory(mountpoint: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let parent = mountpoint.parent().unwrap_or(mountpoint);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o701)
        .create(parent)?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(mountpoint)?;
    // The umask must not narrow what the container's users see.
    std::fs::set_permissions(mountpoint, std::fs::Permissions::from_mode(0o755))
}

/// Reads the filter `all` of a prune, which Docker checks and words in its own way.
fn flag_all(filters: &Filters) -> Result<bool> {
    let values = filters.get("all").map_or(&[][..], Vec::as_slice);
    let invalid = |text: String| Error::invalid(format!("invalid filter 'all{text}"));
    match values {
        [] => Ok(false),
        [one] => crate::flag(one).ok_or_else(|| {
            invalid(format!(
                "': strconv.ParseBool: parsing {one:?}: invalid syntax"
            ))
        }),
        several => Err(invalid(format!(
            "=[{}]': only one value is expected",
            several.join(" ")
        ))),
    }
}

impl Engine {
    /// Makes a volume; one that exists under the name is returned as it is.
    pub async fn volume_create(&self, options: CreateOptions) -> Result<Arc<Volume>> {
        let engine = self.clone();
        crate::blocking::run(move || {
            let mut options = options;
            if options.name.is_empty() {
                options.labels.insert(ANONYMOUS_LABEL.into(), String::new());
            }
            let (volume, new) = engine.inner.volumes.create(options)?;
            if new {
                engine.volume_event("create", &volume, &[]);
            }
            Ok(volume)
        })
        .await?
    }

    /// Lists volumes by name.
    pub async fn volumes(&self, filters: &Filters) -> Result<Vec<Arc<Volume>>> {
        crate::check_filter_keys(filters, &["dangling", "driver", "label", "name"])?;
        let dangling = crate::filter_flag(filters, "dangling")?;
        let mut all = self.inner.volumes.all();
        all.retain(|volume| {
            filters.iter().all(|(key, values)| match key.as_str() {
                "driver" => values.contains(&volume.driver),
                "name" => values
                    .iter()
                    .any(|value| crate::pattern_matches(&volume.name, value)),
                "label" => crate::labels_match(&volume.labels, values),
                _ => true,
            }) && dangling
                .is_none_or(|dangling| self.volume_users(&volume.name).is_empty() == dangling)
        });
        Ok(all)
    }

    /// Lists all volumes with the bytes that they take.
    pub async fn volume_sizes(&self) -> Result<Vec<(Arc<Volume>, u64)>> {
        let engine = self.clone();
        crate::blocking::run_long(move || {
            let all = engine.inner.volumes.all().into_iter();
            // Whose content is elsewhere takes no bytes of the engine's, and looking there could take for ever.
            all.filter(|volume| volume.options.is_empty())
                .map(|volume| {
                    let bytes = crate::tree_bytes(&volume.mountpoint);
                    (volume, bytes)
                })
                .collect()
        })
        .await
    }

    /// Returns the volume of this name.
    pub async fn volume(&self, name: &str) -> Result<Arc<Volume>> {
        self.inner
            .volumes
            .get(name)
            .ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))
    }

    /// Removes a volume that no container uses; `force` makes a missing one no error.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        let Some(volume) = self.inner.volumes.get(name) else {
            return if force {
                Ok(())
            } else {
                Err(Error::not_found(format!("get {name}: no such volume")))
            };
        };
        let engine = self.clone();
        crate::blocking::run(move || engine.destroy_volume(&volume, "")).await?
    }

    /// Removes unused volumes: anonymous ones, or all with the filter `all=true`.
    pub async fn volume_prune(&self, filters: &Filters) -> Result<(Vec<String>, u64)> {
        crate::check_filter_keys(filters, &["all", "label", "label!"])?;
        let all = flag_all(filters)?;
        let engine = self.clone();
        let filters = filters.clone();
        crate::blocking::run_long(move || {
            let mut deleted = Vec::new();
            let mut reclaimed = 0;
            for volume in engine.inner.volumes.all() {
                let labels = |key: &str| filters.get(key);
                let wanted = (all || volume.is_anonymous())
                    && labels("label")
                        .is_none_or(|values| crate::labels_match(&volume.labels, values))
                    && labels("label!")
                        .is_none_or(|values| !crate::labels_match(&volume.labels, values));
                if !wanted || !engine.volume_users(&volume.name).is_empty() {
                    continue;
                }
                let bytes = crate::tree_bytes(&volume.mountpoint);
                if engine.destroy_volume(&volume, "").is_ok() {
                    reclaimed += bytes;
                    deleted.push(volume.name.clone());
                }
            }
            engine.inner.events.emit(
                "volume",
                "prune",
                "",
                [("reclaimed".to_owned(), reclaimed.to_string())].into(),
            );
            (deleted, reclaimed)
        })
        .await
    }

    /// Removes a volume that no container but `except` uses, and tells so.
    pub(crate) fn destroy_volume(&self, volume: &Volume, except: &str) -> Result<()> {
        self.inner.volumes.remove(volume, || {
            let mut users = self.volume_users(&volume.name);
            users.retain(|id| id != except);
            users
        })?;
        self.volume_event("destroy", volume, &[]);
        Ok(())
    }

    /// Returns the ids of the containers that use the volume, those in the making as well.
    pub(crate) fn volume_users(&self, name: &str) -> Vec<String> {
        let mut users = self.inner.reservations.holders(Kind::Volume, name);
        for container in self.inner.containers.all() {
            let record = container.record();
            if record.mounts.iter().any(|mount| {
                mount.kind == crate::container::MountKind::Volume && mount.name == name
            }) && !users.contains(&record.id)
            {
                users.push(record.id.clone());
            }
        }
        users
    }

    /// Tells that a container's run begins or ends to use its volumes.
    pub(crate) fn volume_use_events(
        &self,
        action: &str,
        record: &crate::container::Record,
        at_ns: i64,
    ) {
        for mount in &record.mounts {
            if mount.kind != crate::container::MountKind::Volume {
                continue;
            }
            let mut attributes = BTreeMap::from([
                ("container".to_owned(), record.id.clone()),
                ("driver".to_owned(), mount.driver.clone()),
            ]);
            if action == "mount" {
                attributes.insert("destination".to_owned(), mount.destination.clone());
                attributes.insert("propagation".to_owned(), mount.propagation.clone());
                attributes.insert("read/write".to_owned(), mount.rw.to_string());
            }
            self.inner
                .events
                .emit_at("volume", action, &mount.name, attributes, at_ns);
        }
    }

    pub(crate) fn volume_event(&self, action: &str, volume: &Volume, more: &[(&str, &str)]) {
        let mut attributes: BTreeMap<String, String> =
            [("driver".to_owned(), volume.driver.clone())].into();
        attributes.extend(
            more.iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
        );
        self.inner
            .events
            .emit("volume", action, &volume.name, attributes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(volumes: &Volumes, name: &str) -> Arc<Volume> {
        let options = CreateOptions {
            name: name.into(),
            ..CreateOptions::default()
        };
        volumes.create(options).unwrap().0
    }

    #[test]
    fn a_volume_whose_making_was_cut_off_gets_its_directory() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        let path = create(&volumes, "cut").mountpoint.clone();
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        create(&volumes, "cut");
        assert!(path.is_dir(), "made again when it is asked for");
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        assert!(path.is_dir(), "made again by the next daemon");
        assert!(volumes.get("cut").is_some());
    }

    #[test]
    fn a_volume_keeps_the_mode_that_its_user_gave_it() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        let path = create(&volumes, "mode").mountpoint.clone();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        create(&volumes, "mode");
        Volumes::open(root.path()).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
    }

    #[test]
    fn a_removal_that_was_cut_off_is_finished() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        for name in ["gone-half", "stays"] {
            create(&volumes, name);
        }
        let directory = root.path().join("volumes/gone-half");
        std::fs::rename(
            &directory,
            root.path().join("volumes").join(trash_name("gone-half")),
        )
        .unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        assert!(volumes.get("gone-half").is_none());
        assert!(volumes.get("stays").is_some());
        assert!(!directory.exists());
        // What lies in the trash says nothing of a volume that was made under the name since.
        create(&volumes, "gone-half");
        let volumes = Volumes::open(root.path()).unwrap();
        assert!(volumes.get("gone-half").is_some());
    }

    #[test]
    fn any_name_of_a_volume_fits_into_the_trash() {
        for length in [2, TRASHED_NAME_MAX, TRASHED_NAME_MAX + 1, 255] {
            assert!(trash_name(&"v".repeat(length)).len() <= 255, "{length}");
        }
    }
}
