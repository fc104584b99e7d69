//! What a user asked of a container: the engine's own form of Docker's `Config` and `HostConfig`.
//!
//! These types are stored in the container's record, so a field is never renamed without a migration. They hold what
//! this engine acts on; the daemon refuses every other field of the API by name before it comes here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The part of a container's configuration that an image can give defaults for, and its streams.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub hostname: String,
    pub domainname: String,
    pub user: String,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub tty: bool,
    /// Keeps the container's stdin open.
    pub open_stdin: bool,
    /// Closes stdin when the first client that was attached to it ends its side.
    pub stdin_once: bool,
    /// Says of the command that its arguments are escaped for Windows; kept for `inspect`.
    pub args_escaped: bool,
    pub env: Vec<String>,
    pub cmd: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    /// The image as the user wrote it.
    pub image: String,
    pub volumes: BTreeSet<String>,
    pub working_dir: String,
    pub exposed_ports: BTreeSet<PortSpec>,
    pub labels: BTreeMap<String, String>,
    pub stop_signal: Option<String>,
    pub stop_timeout_s: Option<i64>,
    /// The hardware address on the container's network, as the user wrote it; empty for one of the engine's choice.
    pub mac_address: String,
    pub on_build: Option<Vec<String>>,
    pub shell: Option<Vec<String>>,
    /// An image's health check; kept so that `inspect` and `commit` show it.
    pub healthcheck: Option<serde_json::Value>,
}

/// A port and its protocol, written `80/tcp`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PortSpec {
    pub port: u16,
    pub protocol: Protocol,
}

pub use gantry_api::port::Protocol;

impl std::fmt::Display for PortSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol.as_str())
    }
}

impl From<PortSpec> for String {
    fn from(port: PortSpec) -> String {
        port.to_string()
    }
}

impl std::str::FromStr for PortSpec {
    type Err = String;

    /// Parses `80`, `80/tcp`, `53/UDP`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = if protocol.is_empty() {
            Protocol::Tcp
        } else {
            protocol.parse()?
        };
        let port = port
            .parse()
            .map_err(|_| format!("invalid port specification: \"{text}\""))?;
        Ok(PortSpec { port, protocol })
    }
}

impl TryFrom<String> for PortSpec {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The part of a container's configuration that belongs to this machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostConfig {
    /// Volumes in the `-v` form: `source:target[:modes]` or `target`.
    pub binds: Vec<String>,
    /// Volumes in the `--mount` form.
    pub mounts: Vec<MountSpec>,
    /// Target → options of tmpfs mounts (`--tmpfs`).
    pub tmpfs: BTreeMap<String, String>,
    pub volumes_from: Vec<String>,
    /// Links of old, `name[:alias]`; what they lead to is in the record.
    pub links: Vec<String>,
    pub volume_driver: String,
    pub container_id_file: String,
    /// `default`, `bridge`, `host`, `none` or `container:ID`; as the user gave it (`container:` is resolved to an id).
    pub network_mode: String,
    pub port_bindings: BTreeMap<PortSpec, Vec<PortBinding>>,
    pub publish_all_ports: bool,
    pub restart_policy: RestartPolicy,
    pub auto_remove: bool,
    pub log_driver: String,
    pub log_options: BTreeMap<String, String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub privileged: bool,
    pub security_opt: Vec<String>,
    pub readonly_rootfs: bool,
    pub devices: Vec<DeviceMapping>,
    pub device_cgroup_rules: Vec<String>,
    pub group_add: Vec<String>,
    pub ulimits: Vec<Ulimit>,
    pub sysctls: BTreeMap<String, String>,
    pub shm_size_bytes: i64,
    /// `""`, `private`, `shareable`, `none`, `host`, `container:ID`.
    pub ipc_mode: String,
    /// `""`, `host`, `container:ID`.
    pub pid_mode: String,
    /// `""`, `host`.
    pub uts_mode: String,
    /// Empty or `host`, which are one without remapping; kept for `inspect`.
    pub userns_mode: String,
    /// Empty or `default`, which are one; kept for `inspect`.
    pub isolation: String,
    /// `""`, `private`, `host`.
    pub cgroupns_mode: String,
    pub extra_hosts: Vec<String>,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    /// Runs the container under an init of the engine's; `None` leaves it to the daemon's default.
    pub init: Option<bool>,
    pub runtime: String,
    pub cgroup_parent: String,
    pub oom_score_adj: i64,
    pub resources: Resources,
    /// `None` stands for the default list.
    pub masked_paths: Option<Vec<String>>,
    /// `None` stands for the default list.
    pub readonly_paths: Option<Vec<String>>,
    /// Rows and columns of the first client's terminal.
    pub console_size: [u16; 2],
    pub annotations: BTreeMap<String, String>,
}

/// Cgroup limits as Docker's API states them; zero or `None` means no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    pub memory_bytes: i64,
    /// Memory plus swap; -1 for unlimited swap.
    pub memory_swap_bytes: i64,
    pub memory_reservation_bytes: i64,
    pub memory_swappiness: Option<i64>,
    pub oom_kill_disable: Option<bool>,
    pub nano_cpus: i64,
    pub cpu_shares: i64,
    pub cpu_period_us: i64,
    pub cpu_quota_us: i64,
    pub cpu_realtime_period_us: i64,
    pub cpu_realtime_runtime_us: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub pids_limit: Option<i64>,
    pub blkio_weight: u16,
    pub blkio_weight_device: Vec<(String, u64)>,
    pub blkio_read_bps: Vec<(String, u64)>,
    pub blkio_write_bps: Vec<(String, u64)>,
    pub blkio_read_iops: Vec<(String, u64)>,
    pub blkio_write_iops: Vec<(String, u64)>,
}

/// One mount in the `--mount` form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountSpec {
    pub kind: MountKind,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    /// `""`, `default`, `consistent`, `cached`, `delegated`: accepted, they mean nothing on Linux.
    pub consistency: String,
    pub bind_propagation: String,
    pub bind_non_recursive: bool,
    pub bind_create_mountpoint: bool,
    pub bind_read_only_non_recursive: bool,
    pub bind_read_only_force_recursive: bool,
    pub volume_no_copy: bool,
    pub volume_labels: BTreeMap<String, String>,
    pub volume_driver: String,
    pub volume_driver_options: BTreeMap<String, String>,
    pub volume_subpath: String,
    pub tmpfs_size_bytes: i64,
    pub tmpfs_mode: u32,
    pub tmpfs_options: Vec<Vec<String>>,
}

/// What a mount is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    #[default]
    Bind,
    Volume,
    Tmpfs,
}

impl MountKind {
    /// Returns the API's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            MountKind::Bind => "bind",
            MountKind::Volume => "volume",
            MountKind::Tmpfs => "tmpfs",
        }
    }
}

/// A host side of a published port, as the user gave it; empty strings leave the choice to the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortBinding {
    pub host_ip: String,
    /// A port or a range `8000-8010`.
    pub host_port: String,
}

/// When a container is started again by the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartPolicy {
    pub name: RestartPolicyName,
    pub maximum_retry_count: i64,
}

/// The four restart policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicyName {
    #[default]
    No,
    Always,
    UnlessStopped,
    OnFailure,
}

impl RestartPolicyName {
    /// Returns the API's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            RestartPolicyName::No => "no",
            RestartPolicyName::Always => "always",
            RestartPolicyName::UnlessStopped => "unless-stopped",
            RestartPolicyName::OnFailure => "on-failure",
        }
    }
}

/// A host device that the container may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceMapping {
    pub path_on_host: String,
    pub path_in_container: String,
    /// A subset of `rwm`.
    pub cgroup_permissions: String,
}

/// A resource limit of the process, see setrlimit(2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}
