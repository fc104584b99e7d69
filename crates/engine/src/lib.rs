//! The domain: containers, volumes, images and networks as one engine, with no HTTP and no printing.
//!
//! One file per verb. Each verb takes one options struct and gives one result or stream. What is legal in which state
//! is a pure function (`container::state`), every resource of the machine is written into a record before it is
//! acquired, and one idempotent teardown releases it, which recovery at start calls too.
//!
//! **Order of owners.** A container's verbs run one after another under its owner lock ([`container::Container`]), in
//! tasks of their own, so that a client that goes away cancels nothing. A holder of an owner lock never waits for
//! another container's lock. Locks of lower kinds (image → volume → network) are taken inside their crates, for the
//! length of one call, and none of them calls back into a container. What a container in the making uses is held by
//! reservations (`reservation`, which has their order).
//!
//! **Queues.** Events: a subscriber lags at most 4096 events, then it is cut. Log streams: 16 chunks, then the reader
//! waits. Blocking work: 48 threads, then verbs wait in order. A shim's answer: 10 s, then it is unresponsive.

mod blocking;
pub mod container;
mod error;
pub mod event;
pub mod exec;
pub mod failpoint;
pub mod image;
mod names;
pub mod network;
mod reaper;
mod recover;
mod reservation;
mod shutdown;
mod signal;
mod store;
pub mod system;
pub mod volume;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::{Error, Result};
pub use gantry_network::{AddressPool, BridgeConfig, Ipv6Config};
/// Gives the heap's free memory back to the kernel: a process that did much and now waits keeps little.
pub use gantry_sys::epoll::trim_heap;

use container::config::Ulimit;

/// Filters of a list: values of one key are alternatives (of `label`: conjunctions), keys are conjunctions.
pub type Filters = BTreeMap<String, Vec<String>>;

/// What the daemon decides for its engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    pub data_root: PathBuf,
    pub exec_root: PathBuf,
    /// The default bridge; its `id` is filled in by the engine. `None` for `--bridge none`.
    pub bridge: Option<gantry_network::BridgeConfig>,
    /// Whether firewall rules are made (`--iptables`).
    pub firewall: bool,
    /// Whether `net.ipv4.ip_forward` is switched on where it is off (`--ip-forward`).
    pub ip_forward: bool,
    /// Whether switching it on leaves other interfaces' traffic alone (`--ip-forward-no-drop`).
    pub ip_forward_no_drop: bool,
    pub default_log_driver: String,
    pub default_log_options: BTreeMap<String, String>,
    pub default_shm_size_bytes: i64,
    pub default_ulimits: Vec<Ulimit>,
    pub default_init: bool,
    /// Parent of the containers' cgroups in every hierarchy.
    pub cgroup_parent: String,
    /// `gantry` for the built-in one.
    pub default_runtime: String,
    pub runtimes: BTreeMap<String, RuntimePath>,
    pub seccomp_profile: SeccompDefault,
    pub no_new_privileges: bool,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    /// Address that ports are published at when the user names none (`--ip`).
    pub host_binding_ip: Option<IpAddr>,
    /// What `host-gateway` stands for; empty for the default bridge's addresses (`--host-gateway-ip`).
    pub host_gateway_ips: Vec<IpAddr>,
    /// Where networks without a subnet take theirs (`--default-address-pool`); empty for Docker's.
    pub address_pools: Vec<AddressPool>,
    /// Options of new networks that give none of their own, by driver (`--default-network-opt`).
    pub default_network_options: BTreeMap<String, BTreeMap<String, String>>,
    /// Whether published ports pass the host's own input rules (`--obey-host-firewall`).
    pub obey_host_firewall: bool,
    /// Whether containers' own addresses are reached from beyond the host on published ports (`--allow-direct-routing`).
    pub allow_direct_routing: bool,
    pub labels: Vec<String>,
}

/// An OCI runtime on the host with runc's command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimePath {
    pub path: PathBuf,
    pub args: Vec<String>,
}

/// The seccomp profile of containers that ask for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeccompDefault {
    BuiltIn,
    Unconfined,
    File(PathBuf),
}

/// Whether a verb found something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    Yes,
    /// The object was in the wanted state (304).
    No,
}

/// The engine. Clones share one.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub config: EngineConfig,
    /// Random, made with the data root: every kernel object of this engine bears it.
    pub id: String,
    pub records: store::Store,
    pub containers: container::Containers,
    pub execs: exec::Execs,
    pub volumes: volume::Volumes,
    pub reservations: reservation::Reservations,
    pub images: gantry_image::Images,
    pub transfers: gantry_image::Transfers,
    pub network: Arc<gantry_network::Stack>,
    pub networks: network::Networks,
    pub network_records: store::Store,
    pub events: event::Events,
    pub cgroups: gantry_sys::cgroup::Layout,
    pub seccomp: container::seccomp::Filters,
    pub going_down: std::sync::atomic::AtomicBool,
    /// Starts that are under way.
    pub starting: std::sync::atomic::AtomicUsize,
    pub netd: Arc<network::Netd>,
    _lock: std::fs::File,
}

impl Engine {
    /// Returns the engine's random id.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Returns the configuration it was opened with.
    pub fn config(&self) -> &EngineConfig {
        &self.inner.config
    }

    /// Subscribes to events.
    pub fn events(&self, subscription: event::Subscription) -> Result<event::Subscriber> {
        self.inner.events.subscribe(subscription)
    }
}

/// Returns the wall clock in nanoseconds since the epoch.
pub(crate) fn now_ns() -> i64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// Returns 32 random bytes as 64 hexadecimal digits. The first twelve are never all decimal, since the short form
/// serves as a host name.
pub(crate) fn random_id() -> String {
    loop {
        let text: String = random_bytes::<32>()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if text.as_bytes()[..12].iter().any(u8::is_ascii_alphabetic) {
            return text;
        }
    }
}

pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
                .expect("getrandom(2) without flags works since Linux 3.17");
    }
    bytes
}

/// Refuses filter keys that are not `known`.
pub(crate) fn check_filter_keys(filters: &Filters, known: &[&str]) -> Result<()> {
    match filters.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(Error::invalid(format!("invalid filter '{key}'"))),
        None => Ok(()),
    }
}

/// Reads true or false as Go does.
pub(crate) fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "true" | "t" | "T" | "TRUE" | "True" => Some(true),
        "0" | "false" | "f" | "F" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads a filter that is true or false; `None` when it is not given.
pub(crate) fn filter_flag(filters: &Filters, key: &str) -> Result<Option<bool>> {
    let Some(values) = filters.get(key).filter(|values| !values.is_empty()) else {
        return Ok(None);
    };
    let flags: Option<Vec<bool>> = values.iter().map(|value| flag(value)).collect();
    match flags.as_deref() {
        Some([first, rest @ ..]) if rest.iter().all(|other| other == first) => Ok(Some(*first)),
        _ => Err(Error::invalid(format!(
            "invalid filter '{key}=[{}]'",
            values.join(" ")
        ))),
    }
}

/// Tells whether `text` is `wanted`, or has a part that the regular expression `wanted` describes; one that is no
/// expression describes nothing.
pub(crate) fn pattern_matches(text: &str, wanted: &str) -> bool {
    text == wanted || regex_lite::Regex::new(wanted).is_ok_and(|pattern| pattern.is_match(text))
}

/// Tells whether `labels` has every `name` or `name=value` of `wanted`.
pub(crate) fn labels_match(labels: &BTreeMap<String, String>, wanted: &[String]) -> bool {
    wanted.iter().all(|wanted| match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|own| own == value),
        None => labels.contains_key(wanted),
    })
}

/// Sums up the blocks of a directory tree in bytes, each inode once; unreadable parts count nothing.
pub(crate) fn tree_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fn walk(path: &Path, seen: &mut std::collections::HashSet<u64>) -> u64 {
        let Ok(metadata) = std::fs::symlink_metadata(path) else {
            return 0;
        };
        if metadata.nlink() > 1 && !metadata.is_dir() && !seen.insert(metadata.ino()) {
            return 0;
        }
        let mut bytes = metadata.len();
        if metadata.is_dir() {
            bytes = 0;
            if let Ok(entries) = std::fs::read_dir(path) {
                bytes = entries
                    .flatten()
                    .map(|entry| walk(&entry.path(), seen))
                    .sum();
            }
        }
        bytes
    }
    walk(path, &mut std::collections::HashSet::new())
}
