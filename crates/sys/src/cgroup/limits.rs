//! What may be limited: plain data in the OCI runtime specification's units, whatever the version of the hierarchy.
//!
//! `None` means "leave as it is". The conversion to files is `plan`'s.

use std::collections::BTreeMap;

/// Limits of one cgroup. The default limits nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes; -1 is unlimited.
    pub memory_bytes: Option<i64>,
    /// Memory *and* swap in bytes, as the OCI specification and version 1 count; -1 is unlimited.
    pub memory_swap_bytes: Option<i64>,
    /// Soft limit in bytes (`memory.soft_limit_in_bytes`, `memory.low`); -1 is unlimited.
    pub memory_reservation_bytes: Option<i64>,
    /// Kernel memory in bytes; version 1 only, and recent kernels refuse it.
    pub kernel_memory_bytes: Option<i64>,
    /// TCP buffers in bytes; version 1 only.
    pub kernel_memory_tcp_bytes: Option<i64>,
    /// 0 to 100; version 1 only.
    pub swappiness: Option<u64>,
    /// Pauses instead of killing when memory is exhausted; version 1 only.
    pub oom_kill_disable: Option<bool>,
    /// Relative weight, 2 to 262144, 1024 being the usual one.
    pub cpu_shares: Option<u64>,
    /// CPU time per period in microseconds; zero or less is unlimited.
    pub cpu_quota_us: Option<i64>,
    /// Length of the period in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Unused time that may be saved up, in microseconds.
    pub cpu_burst_us: Option<u64>,
    /// Real-time budget per period in microseconds; version 1 only.
    pub cpu_realtime_runtime_us: Option<i64>,
    /// Real-time period in microseconds; version 1 only.
    pub cpu_realtime_period_us: Option<u64>,
    /// 1 makes the cgroup SCHED_IDLE.
    pub cpu_idle: Option<i64>,
    /// CPU list such as `0-2,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory node list.
    pub cpuset_mems: Option<String>,
    /// Number of tasks; zero or less is unlimited.
    pub pids_max: Option<i64>,
    /// Relative I/O weight, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Weight of the cgroup's own tasks against its children; version 1 with CFQ only.
    pub blkio_leaf_weight: Option<u16>,
    /// Weights per device.
    pub blkio_weight_devices: Vec<WeightDevice>,
    /// Ceilings per device.
    pub blkio_throttles: Vec<Throttle>,
    /// Device rules in the order in which they apply; the last that matches decides.
    pub devices: Vec<DeviceRule>,
    /// Huge pages.
    pub hugetlb: Vec<HugepageLimit>,
    /// Class of outgoing packets (`net_cls.classid`); version 1 only.
    pub network_class_id: Option<u32>,
    /// Priority per interface (`net_prio.ifpriomap`); version 1 only.
    pub network_priorities: Vec<(String, u32)>,
    /// RDMA resources per device.
    pub rdma: Vec<RdmaLimit>,
    /// Version 2 files written as they are: `memory.high` -> `max`.
    pub unified: BTreeMap<String, String>,
}

/// The weight of one block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightDevice {
    pub major: u32,
    pub minor: u32,
    pub weight: Option<u16>,
    pub leaf_weight: Option<u16>,
}

/// What a throttle counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThrottleKind {
    ReadBytes,
    WriteBytes,
    ReadOperations,
    WriteOperations,
}

/// A ceiling per second on one block device; zero lifts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Throttle {
    pub kind: ThrottleKind,
    pub major: u32,
    pub minor: u32,
    pub rate: u64,
}

/// A limit on huge pages of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HugepageLimit {
    /// As the kernel spells it: `2MB`, `1GB`.
    pub page_size: String,
    pub limit_bytes: u64,
}

/// A limit on one RDMA device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RdmaLimit {
    pub device: String,
    pub hca_handles: Option<u32>,
    pub hca_objects: Option<u32>,
}

/// Which device nodes a rule speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    All,
    Char,
    Block,
}

/// The accesses a rule speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceAccess {
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

impl DeviceAccess {
    /// Read, write and mknod.
    pub const ALL: Self = Self {
        read: true,
        write: true,
        mknod: true,
    };

    /// Parses letters out of `rwm`; an empty text means all, as in the OCI specification. `None` for other letters.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::ALL);
        }
        let mut access = Self::default();
        for letter in text.chars() {
            match letter {
                'r' => access.read = true,
                'w' => access.write = true,
                'm' => access.mknod = true,
                _ => return None,
            }
        }
        Some(access)
    }
}

impl std::fmt::Display for DeviceAccess {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (set, letter) in [(self.read, "r"), (self.write, "w"), (self.mknod, "m")] {
            if set {
                formatter.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// One rule; `None` as a number is the wildcard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    pub allow: bool,
    pub kind: DeviceKind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: DeviceAccess,
}

impl DeviceRule {
    /// Denies everything; the usual first rule.
    pub const DENY_ALL: Self = Self {
        allow: false,
        kind: DeviceKind::All,
        major: None,
        minor: None,
        access: DeviceAccess::ALL,
    };

    /// Speaks of every access to every device.
    pub fn is_total(&self) -> bool {
        self.kind == DeviceKind::All
            && self.major.is_none()
            && self.minor.is_none()
            && self.access == DeviceAccess::ALL
    }
}
