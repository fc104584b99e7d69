//! Containers: their records, their owners, and one file per verb.

mod attach;
pub mod config;
mod create;
mod devices;
mod exit;
pub(crate) mod files;
mod filter;
mod inspect;
mod kill;
mod legacy_links;
mod limits;
mod link;
mod list;
mod live;
mod logs;
mod merge;
mod mounts;
mod namespaces;
mod networking;
mod oci;
mod pause;
mod ports;
mod prune;
pub mod record;
mod remove;
mod rename;
pub(crate) mod restart_policy;
mod save;
pub(crate) mod seccomp;
mod sources;
mod start;
mod start_failure;
pub mod state;
mod stats;
mod stop;
mod teardown;
mod top;
mod update;
mod wait;
mod wishes;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, RwLock};

use tokio::sync::{OwnedMutexGuard, watch};

pub use attach::{AttachIo, AttachOptions, Attachment};
pub use config::{Config, HostConfig, MountKind};
pub use create::{CreateOptions, Created};
pub use filter::FILTER_KEYS as LIST_FILTER_KEYS;
pub use inspect::{EndpointView, Inspect, NetworkView, Place};
pub use list::{ListOptions, Listed};
pub use logs::{Logs, LogsOptions};
pub use prune::Pruned;
pub use record::{MountPoint, Record};
pub use remove::RemoveOptions;
pub use start::StartOptions;
pub(crate) use start_failure::in_dockers_words;
pub use state::{State, Status};
pub use stats::StatsSample;
pub use stop::StopOptions;
pub use top::Top;
pub use update::UpdateOptions;
pub use wait::{Exit, Wait, WaitCondition};

pub(crate) use attach::detach_keys;
pub(crate) use filter::until_ns;
pub(crate) use link::{CallError, Link, Shim};
pub(crate) use logs::parse_size;
pub(crate) use merge::overlay as overlay_environment;
pub(crate) use namespaces::open_namespace;
pub(crate) use oci::{capabilities as oci_capabilities, name_user, security_options};
pub(crate) use stats::memory_total;

use wishes::Wishes;

use crate::{Engine, Error, Result};

/// One container in memory.
///
/// `owner` serialises the verbs; who holds it may change the record. Everybody may read the record at any time: it is
/// replaced whole.
pub(crate) struct Container {
    pub id: String,
    /// Held over a transition, never over a wait for the process's end.
    pub owner: Arc<tokio::sync::Mutex<Owner>>,
    record: RwLock<Arc<Record>>,
    /// Tells the waiters; its value is what they look at.
    pub life: watch::Sender<Life>,
    /// Whether the disk has the record as it is here.
    saved: watch::Sender<bool>,
    /// The way to the shim and what waits for one.
    pub link: Mutex<Link>,
}

/// Proof that the caller holds the container's owner lock.
#[derive(Debug, Default)]
pub(crate) struct Owner {
    /// Pause before the last automatic restart.
    pub last_pause: Option<std::time::Duration>,
    /// Bumped by every start and stop: a restart timer that sees another number than it was made with does nothing.
    pub generation: u64,
    /// Restarts by hand that are under way: an end is then not the container's last, whatever `--rm` says.
    pub restarting: u32,
    /// A task tries to give back what a run that is over still holds.
    pub freeing: bool,
}

impl Owner {
    /// A proof for work on another thread, during which the caller keeps the lock and changes nothing of its own.
    pub(crate) fn lend(&self) -> Owner {
        Owner {
            last_pause: self.last_pause,
            generation: self.generation,
            restarting: self.restarting,
            freeing: self.freeing,
        }
    }
}

/// What waiters look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    /// Ends of runs that were not followed by an automatic restart.
    pub exits: u64,
    pub last_exit: Option<Exit>,
    pub running: bool,
    pub removed: bool,
}

impl Container {
    pub(crate) fn new(record: Record) -> Arc<Container> {
        let (life, _) = watch::channel(Life {
            running: record.state.status.is_running(),
            ..Life::default()
        });
        Arc::new(Container {
            id: record.id.clone(),
            owner: Arc::default(),
            record: RwLock::new(Arc::new(record)),
            life,
            saved: watch::channel(true).0,
            link: Mutex::default(),
        })
    }

    /// Returns the record as it is now.
    pub(crate) fn record(&self) -> Arc<Record> {
        self.record.read().expect("no holder panics").clone()
    }
}

/// All containers, by id and by name.
#[derive(Default)]
pub(crate) struct Containers {
    index: RwLock<Index>,
    /// Changed with each record that is here.
    pub(crate) wishes: Wishes,
}

#[derive(Default)]
struct Index {
    by_id: BTreeMap<String, Arc<Container>>,
    /// Also holds names of containers that are being made.
    by_name: HashMap<String, String>,
}

impl Containers {
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.index
            .read()
            .expect("no holder panics")
            .by_id
            .values()
            .cloned()
            .collect()
    }

    /// Returns the container of this id.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Container>> {
        let index = self.index.read().expect("no holder panics");
        index.by_id.get(id).cloned()
    }

    pub(crate) fn insert(&self, container: Arc<Container>) {
        let record = container.record();
        self.wishes
            .replace(&container.id, &BTreeMap::new(), &record.networks);
        let mut index = self.index.write().expect("no holder panics");
        index
            .by_name
            .insert(record.name.clone(), container.id.clone());
        index.by_id.insert(container.id.clone(), container);
    }

    pub(crate) fn forget(&self, container: &Container) {
        let mut index = self.index.write().expect("no holder panics");
        index.by_id.remove(&container.id);
        index.by_name.retain(|_, id| *id != container.id);
        drop(index);
        let record = container.record();
        self.wishes
            .replace(&container.id, &record.networks, &BTreeMap::new());
    }

    /// Takes the name for `id`; the id that holds it already is the error.
    pub(crate) fn reserve_name(&self, name: &str, id: &str) -> Result<(), String> {
        let mut index = self.index.write().expect("no holder panics");
        match index.by_name.get(name) {
            Some(holder) => Err(holder.clone()),
            None => {
                index.by_name.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    pub(crate) fn release_name(&self, name: &str, id: &str) {
        let mut index = self.index.write().expect("no holder panics");
        if index.by_name.get(name).is_some_and(|holder| holder == id) {
            index.by_name.remove(name);
        }
    }

    /// Finds a container by full id, name (with or without the slash) or unique prefix of the id.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Container>> {
        let missing = || Error::not_found(format!("No such container: {name}"));
        if name.is_empty() {
            return Err(missing());
        }
        let index = self.index.read().expect("no holder panics");
        if let Some(container) = index.by_id.get(name) {
            return Ok(container.clone());
        }
        let plain = name.strip_prefix('/').unwrap_or(name);
        if let Some(container) = index.by_name.get(plain).and_then(|id| index.by_id.get(id)) {
            return Ok(container.clone());
        }
        // A link of old is a name too: `container/alias`.
        if let Some((parent, alias)) = plain.split_once('/')
            && let Some(parent) = index.by_name.get(parent).and_then(|id| index.by_id.get(id))
            && let Some(link) = parent
                .record()
                .links
                .iter()
                .find(|link| link.alias == alias)
            && let Some(container) = index.by_id.get(&link.container)
        {
            return Ok(container.clone());
        }
        let mut matching = index
            .by_id
            .range(name.to_owned()..)
            .take_while(|(id, _)| id.starts_with(name));
        match (matching.next(), matching.next()) {
            (Some((_, container)), None) => Ok(container.clone()),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "multiple IDs found with provided prefix: {name}"
            ))),
            (None, _) => Err(missing()),
        }
    }
}

impl Engine {
    pub(crate) fn container(&self, name: &str) -> Result<Arc<Container>> {
        self.inner.containers.find(name)
    }

    /// Runs a verb under the container's owner lock, in a task that nobody cancels.
    pub(crate) async fn own<T, F>(
        &self,
        container: Arc<Container>,
        verb: impl FnOnce(Engine, Arc<Container>, OwnedMutexGuard<Owner>) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let engine = self.clone();
        let task = tokio::spawn(async move {
            let owner = container.owner.clone().lock_owned().await;
            verb(engine, container, owner).await
        });
        task.await
            .map_err(|error| Error::system("an engine task died").caused_by(error))?
    }

    /// Tells an event of a container with Docker's attributes: name, image, labels and `more`.
    pub(crate) fn container_event(
        &self,
        action: &str,
        record: &Record,
        more: &[(&str, &str)],
        at_ns: Option<i64>,
    ) {
        let mut attributes = record.config.labels.clone();
        attributes.insert("image".into(), record.config.image.clone());
        attributes.insert("name".into(), record.name.clone());
        attributes.extend(
            more.iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
        );
        let at_ns = at_ns.unwrap_or_else(crate::now_ns);
        self.inner
            .events
            .emit_at("container", action, &record.id, attributes, at_ns);
    }
}

/// Returns the error of a verb that needs a running container.
pub(crate) fn not_running(id: &str) -> Error {
    Error::conflict(format!("container {id} is not running"))
}

pub(crate) fn check_name(name: &str) -> Result<()> {
    if crate::names::is_valid(name) {
        return Ok(());
    }
    Err(bad_name(name))
}

pub(crate) fn bad_name(name: &str) -> Error {
    Error::invalid(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    ))
}

pub(crate) fn name_in_use(name: &str, holder: &str) -> Error {
    Error::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or \
         rename) that container to be able to reuse that name."
    ))
}

/// Works out the capabilities of a process.
///
/// # Errors
/// A capability that is unknown or that this machine cannot give.
pub(crate) fn effective_capabilities(
    add: &[String],
    drop: &[String],
    privileged: bool,
) -> Result<Vec<String>> {
    use gantry_shim::capabilities;
    // The bounding set of the daemon does not change while it lives.
    static AVAILABLE: std::sync::OnceLock<Vec<&'static str>> = std::sync::OnceLock::new();
    let available = AVAILABLE.get_or_init(capabilities::available);
    capabilities::resolve(add, drop, privileged, available)
        .map_err(|error| Error::invalid(error.to_string()).caused_by(error))
}
