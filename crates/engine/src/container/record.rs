//! The record of one container: everything that must outlive the daemon.
//!
//! A record names each resource of the machine *before* it is acquired (`Acquired`), so that the one teardown finds
//! it again, whenever the daemon was killed. It is written whole and replaced in one step.

use serde::{Deserialize, Serialize};

use super::config::{Config, HostConfig, MountKind};
use super::state::State;

/// Everything known of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    pub created_ns: i64,
    /// Digest of the image, `sha256:…`.
    pub image_id: String,
    /// What the process is, after the image's and the user's wishes are merged.
    pub path: String,
    pub args: Vec<String>,
    /// Merged with the image's configuration.
    pub config: Config,
    /// As the user gave it, with the daemon's defaults filled in.
    pub host: HostConfig,
    pub platform_os: String,
    pub state: State,
    pub mounts: Vec<MountPoint>,
    /// Where links of old lead.
    pub links: Vec<LegacyLink>,
    /// Number of the writable snapshot; `None` until it is prepared.
    pub snapshot: Option<u64>,
    /// What the current run of the container holds of the machine.
    pub acquired: Acquired,
    /// Path of the log file, empty when the driver keeps none.
    pub log_path: String,
    /// The record exists, the container is not complete: a restart of the daemon removes it.
    pub incomplete: bool,
    /// A removal that is under way takes the anonymous volumes along.
    pub remove_volumes: bool,
}

/// Resources of one run, each written here before it is taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Acquired {
    /// A shim may live and listen on its socket.
    pub shim: bool,
    pub endpoint: Option<gantry_network::Endpoint>,
    pub ports: Vec<gantry_network::PublishedPort>,
    /// Path beneath each hierarchy, such as `/gantry/ID`.
    pub cgroup: Option<String>,
    /// A tmpfs may be mounted in the container's directory, the /dev/shm that others may share.
    pub shm: bool,
    /// Volumes with a file system of their own that this run keeps mounted.
    pub volumes: Vec<String>,
    /// Parts of volumes may be mounted in the container's directory, from where the runtime takes them.
    pub subpaths: bool,
    /// The run is over, and what is here could not be given back yet.
    pub over: bool,
}

impl Acquired {
    /// Tells whether nothing is held: every run begins with a shim.
    pub fn is_nothing(&self) -> bool {
        !self.shim
    }

    /// Names what is held, for a person; `None` if nothing is.
    pub fn describe(&self) -> Option<String> {
        let mut held = Vec::new();
        if let Some(endpoint) = &self.endpoint {
            held.extend(
                endpoint
                    .addresses()
                    .map(|address| format!("the address {address}")),
            );
        }
        held.extend(
            self.ports
                .iter()
                .map(|port| format!("the port {}/{}", port.host_port, port.protocol)),
        );
        held.extend(self.cgroup.iter().map(|path| format!("the cgroup {path}")));
        if self.shm {
            held.push("its /dev/shm".to_owned());
        }
        held.extend(self.volumes.iter().map(|name| format!("the volume {name}")));
        if self.subpaths {
            held.push("parts of its volumes".to_owned());
        }
        if held.is_empty() && self.shim {
            held.push("its runtime state".to_owned());
        }
        (!held.is_empty()).then(|| held.join(", "))
    }
}

/// A link of old to another container (`--link`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LegacyLink {
    /// Id of the container that it leads to.
    pub container: String,
    /// What that was called when the link was made.
    pub name: String,
    pub alias: String,
}

/// One mount of a container as `inspect` shows it and a start makes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountPoint {
    pub kind: MountKind,
    /// The volume's name.
    pub name: String,
    /// Path on the host; empty for tmpfs.
    pub source: String,
    pub destination: String,
    pub driver: String,
    /// As given: `ro`, `z`, …
    pub mode: String,
    pub rw: bool,
    pub propagation: String,
    /// The user chose the propagation, which is kept to the letter then.
    pub propagation_given: bool,
    /// Came with `-v`/`--mount`/`--tmpfs` (true) or from the image or another container.
    pub explicit: bool,
    pub non_recursive: bool,
    pub read_only_non_recursive: bool,
    pub read_only_force_recursive: bool,
    pub no_copy: bool,
    pub subpath: String,
    /// Options of a tmpfs, as in fstab.
    pub tmpfs_options: Vec<String>,
    /// The volume was made for this container alone and goes with `rm -v`.
    pub anonymous: bool,
}
