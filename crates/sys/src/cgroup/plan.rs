//! Turns limits into file writes. Pure: what is written where depends on the layout, the limits and, for an update, on
//! what is set now; nothing is read or written here.
//!
//! The order of the writes matters and is part of the plan: version 1 refuses a memory limit above the memory+swap limit
//! and the reverse, real-time runtimes above their period, and a burst above the quota.

use std::io;

use super::error::{invalid, unsupported};
use super::layout::{Layout, Version};
use super::limits::{DeviceKind, DeviceRule, Limits, ThrottleKind};

/// One value for one file of one controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Names the hierarchy, see [`Layout::hierarchy`].
    pub controller: String,
    pub file: String,
    pub value: String,
    /// Written instead where the kernel does not have `file`.
    pub instead: Option<(String, String)>,
    /// Passed over without a word where the kernel has neither.
    pub optional: bool,
}

impl Write {
    fn new(controller: &str, file: &str, value: impl ToString) -> Self {
        Self {
            controller: controller.to_owned(),
            file: file.to_owned(),
            value: value.to_string(),
            instead: None,
            optional: false,
        }
    }

    fn or(mut self, file: &str, value: impl ToString) -> Self {
        self.instead = Some((file.to_owned(), value.to_string()));
        self
    }

    fn if_present(mut self) -> Self {
        self.optional = true;
        self
    }
}

/// What a cgroup has now, as far as an order or a value depends on it. `None` means unlimited, as in a new cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Current {
    pub memory_bytes: Option<u64>,
    pub memory_swap_bytes: Option<u64>,
    pub cpu_quota_us: Option<u64>,
}

/// What is to be done to set limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub writes: Vec<Write>,
    /// Rules that need a program at the version 2 directory: there are no device files there.
    pub device_program: Option<Vec<DeviceRule>>,
}

/// Plans the writes that set `limits` on a machine of this `layout`.
///
/// # Errors
/// `Unsupported` names a limit that no mounted hierarchy can set, `InvalidInput` one that contradicts another.
pub fn plan(layout: &Layout, limits: &Limits, current: &Current) -> io::Result<Plan> {
    let mut planner = Planner {
        layout,
        limits,
        current,
        plan: Plan::default(),
    };
    planner.cpuset()?;
    planner.memory()?;
    planner.cpu()?;
    planner.pids()?;
    planner.blkio()?;
    planner.hugetlb()?;
    planner.network()?;
    planner.rdma()?;
    planner.unified()?;
    planner.devices()?;
    Ok(planner.plan)
}

/// Converts CPU shares (2 to 262144, usually 1024) to a weight of version 2 (1 to 10000, usually 100).
///
/// A quadratic through the logarithms of the three anchors 2 -> 1, 1024 -> 100, 262144 -> 10000, so that the default
/// stays the default; the older linear conversion made 39 of 1024, which lost against every cgroup left alone.
pub fn weight_of_shares(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    if shares == 2 {
        return 1;
    }
    if shares == 262_144 {
        return 10_000;
    }
    // Precise enough: the largest exponent is 4.
    #[expect(clippy::cast_precision_loss, reason = "shares are below 2^19")]
    let logarithm = (shares as f64).log2();
    let exponent = (logarithm * logarithm + 125.0 * logarithm) / 612.0 - 7.0 / 34.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and 10000"
    )]
    let weight = (10f64.powf(exponent) - 1e-9).ceil() as u64;
    weight.clamp(1, 10_000)
}

/// Converts a blkio weight (10 to 1000) to `io.weight` (1 to 10000), linearly as the OCI specification's runtimes do.
pub fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990
}

/// A limit in version 1 files: -1 is unlimited.
fn v1(bytes: i64) -> String {
    if bytes < 0 {
        "-1".to_owned()
    } else {
        bytes.to_string()
    }
}

/// A limit in version 2 files.
fn v2(bytes: i64) -> String {
    if bytes < 0 {
        "max".to_owned()
    } else {
        bytes.to_string()
    }
}

struct Planner<'a> {
    layout: &'a Layout,
    limits: &'a Limits,
    current: &'a Current,
    plan: Plan,
}

impl Planner<'_> {
    /// The version that serves `controller`; an error names the limit that needs it.
    fn version(&self, controller: &str, limit: &str) -> io::Result<Version> {
        self.layout
            .hierarchy(controller)
            .map(|hierarchy| hierarchy.version)
            .ok_or_else(|| {
                unsupported(format!(
                    "{limit} needs the cgroup controller `{controller}`, which is not mounted"
                ))
            })
    }

    fn only_v1(&self, controller: &str, limit: &str) -> io::Result<()> {
        match self.version(controller, limit)? {
            Version::V1 => Ok(()),
            Version::V2 => Err(unsupported(format!(
                "{limit} does not exist on cgroup version 2"
            ))),
        }
    }

    fn push(&mut self, write: Write) {
        self.plan.writes.push(write);
    }

    fn cpuset(&mut self) -> io::Result<()> {
        for (list, file, limit) in [
            (&self.limits.cpuset_cpus, "cpuset.cpus", "the CPU list"),
            (
                &self.limits.cpuset_mems,
                "cpuset.mems",
                "the memory node list",
            ),
        ] {
            if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
                self.version("cpuset", limit)?;
                self.plan.writes.push(Write::new("cpuset", file, list));
            }
        }
        Ok(())
    }

    fn memory(&mut self) -> io::Result<()> {
        let limits = self.limits;
        let wanted = limits.memory_bytes.is_some()
            || limits.memory_swap_bytes.is_some()
            || limits.memory_reservation_bytes.is_some();
        if wanted {
            match self.version("memory", "a memory limit")? {
                Version::V1 => self.memory_v1()?,
                Version::V2 => self.memory_v2()?,
            }
        }
        if let Some(bytes) = limits.kernel_memory_bytes {
            self.only_v1("memory", "a kernel memory limit")?;
            self.push(Write::new(
                "memory",
                "memory.kmem.limit_in_bytes",
                v1(bytes),
            ));
        }
        if let Some(bytes) = limits.kernel_memory_tcp_bytes {
            self.only_v1("memory", "a kernel TCP memory limit")?;
            self.push(Write::new(
                "memory",
                "memory.kmem.tcp.limit_in_bytes",
                v1(bytes),
            ));
        }
        if let Some(swappiness) = limits.swappiness {
            self.only_v1("memory", "memory swappiness")?;
            if swappiness > 100 {
                return Err(invalid(format!(
                    "memory swappiness {swappiness} is not between 0 and 100"
                )));
            }
            self.push(Write::new("memory", "memory.swappiness", swappiness));
        }
        if let Some(disable) = limits.oom_kill_disable {
            if disable {
                self.only_v1("memory", "disabling the OOM killer")?;
                self.push(Write::new("memory", "memory.oom_control", 1));
            } else if self
                .layout
                .hierarchy("memory")
                .is_some_and(|one| one.version == Version::V1)
            {
                self.push(Write::new("memory", "memory.oom_control", 0));
            }
        }
        Ok(())
    }

    fn memory_v1(&mut self) -> io::Result<()> {
        let limits = self.limits;
        let memory = limits
            .memory_bytes
            .map(|bytes| Write::new("memory", "memory.limit_in_bytes", v1(bytes)));
        let swap_file = "memory.memsw.limit_in_bytes";
        match (limits.memory_bytes, limits.memory_swap_bytes) {
            (Some(bytes), Some(swap)) => {
                if bytes >= 0 && swap >= 0 && swap < bytes {
                    return Err(invalid(
                        "the memory and swap limit is below the memory limit",
                    ));
                }
                let swap_write = Write::new("memory", swap_file, v1(swap));
                // Raised above the present memory+swap limit: that one must move first.
                let swap_first = self.current.memory_swap_bytes.is_some_and(|now| {
                    bytes < 0 || u64::try_from(bytes).is_ok_and(|bytes| bytes > now)
                });
                let (first, second) = if swap_first {
                    (Some(swap_write), memory)
                } else {
                    (memory, Some(swap_write))
                };
                self.plan.writes.extend(first.into_iter().chain(second));
            }
            (Some(bytes), None) => {
                // Unlimited memory under a finite memory+swap limit is refused by the kernel.
                if bytes < 0 {
                    self.push(Write::new("memory", swap_file, "-1").if_present());
                }
                self.plan.writes.extend(memory);
            }
            (None, Some(swap)) => self.push(Write::new("memory", swap_file, v1(swap))),
            (None, None) => {}
        }
        if let Some(bytes) = limits.memory_reservation_bytes {
            self.push(Write::new(
                "memory",
                "memory.soft_limit_in_bytes",
                v1(bytes),
            ));
        }
        Ok(())
    }

    fn memory_v2(&mut self) -> io::Result<()> {
        let limits = self.limits;
        let swap = match limits.memory_swap_bytes {
            None => None,
            Some(total) if total < 0 => Some("max".to_owned()),
            Some(total) => {
                let memory = match limits.memory_bytes {
                    Some(bytes) => u64::try_from(bytes).ok(),
                    None => self.current.memory_bytes,
                };
                let memory = memory.ok_or_else(|| invalid("a swap limit needs a memory limit"))?;
                let swap = total.unsigned_abs().checked_sub(memory).ok_or_else(|| {
                    invalid("the memory and swap limit is below the memory limit")
                })?;
                Some(swap.to_string())
            }
        };
        if let Some(swap) = swap {
            let unlimited = swap == "max";
            let write = Write::new("memory", "memory.swap.max", swap);
            // Without swap accounting there is no such file, and nothing to lift.
            self.push(if unlimited { write.if_present() } else { write });
        } else if limits.memory_bytes.is_some_and(|bytes| bytes < 0) {
            self.push(Write::new("memory", "memory.swap.max", "max").if_present());
        }
        if let Some(bytes) = limits.memory_bytes {
            self.push(Write::new("memory", "memory.max", v2(bytes)));
        }
        if let Some(bytes) = limits.memory_reservation_bytes {
            self.push(Write::new("memory", "memory.low", v2(bytes)));
        }
        Ok(())
    }

    fn cpu(&mut self) -> io::Result<()> {
        let limits = self.limits;
        if let Some(shares) = limits.cpu_shares.filter(|shares| *shares != 0) {
            match self.version("cpu", "CPU shares")? {
                Version::V1 => self.push(Write::new("cpu", "cpu.shares", shares)),
                Version::V2 => self.push(Write::new("cpu", "cpu.weight", weight_of_shares(shares))),
            }
        }
        if let Some(idle) = limits.cpu_idle {
            self.version("cpu", "CPU idle")?;
            self.push(Write::new("cpu", "cpu.idle", idle));
        }
        if limits.cpu_quota_us.is_some() || limits.cpu_period_us.is_some() {
            match self.version("cpu", "a CPU quota")? {
                Version::V1 => {
                    if let Some(period) = limits.cpu_period_us.filter(|period| *period != 0) {
                        self.push(Write::new("cpu", "cpu.cfs_period_us", period));
                    }
                    if let Some(quota) = limits.cpu_quota_us.filter(|quota| *quota != 0) {
                        self.push(Write::new("cpu", "cpu.cfs_quota_us", quota.max(-1)));
                    }
                }
                Version::V2 => {
                    // A single word would keep the present period; a period alone must repeat the present quota.
                    let quota = match limits.cpu_quota_us.filter(|quota| *quota != 0) {
                        Some(quota) => u64::try_from(quota).ok(),
                        None => self.current.cpu_quota_us,
                    };
                    let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
                    let value = match limits.cpu_period_us.filter(|period| *period != 0) {
                        Some(period) => format!("{quota} {period}"),
                        None => quota,
                    };
                    self.push(Write::new("cpu", "cpu.max", value));
                }
            }
        }
        if let Some(burst) = limits.cpu_burst_us {
            match self.version("cpu", "CPU burst")? {
                Version::V1 => self.push(Write::new("cpu", "cpu.cfs_burst_us", burst)),
                Version::V2 => self.push(Write::new("cpu", "cpu.max.burst", burst)),
            }
        }
        if let Some(period) = limits.cpu_realtime_period_us.filter(|period| *period != 0) {
            self.only_v1("cpu", "a real-time CPU period")?;
            self.push(Write::new("cpu", "cpu.rt_period_us", period));
        }
        if let Some(runtime) = limits
            .cpu_realtime_runtime_us
            .filter(|runtime| *runtime != 0)
        {
            self.only_v1("cpu", "a real-time CPU runtime")?;
            self.push(Write::new("cpu", "cpu.rt_runtime_us", runtime));
        }
        Ok(())
    }

    fn pids(&mut self) -> io::Result<()> {
        if let Some(count) = self.limits.pids_max {
            self.version("pids", "a limit of processes")?;
            let value = if count <= 0 {
                "max".to_owned()
            } else {
                count.to_string()
            };
            self.push(Write::new("pids", "pids.max", value));
        }
        Ok(())
    }

    fn blkio(&mut self) -> io::Result<()> {
        let limits = self.limits;
        if let Some(weight) = limits.blkio_weight.filter(|weight| *weight != 0) {
            match self.version("blkio", "a blkio weight")? {
                Version::V1 => self.push(
                    Write::new("blkio", "blkio.weight", weight).or("blkio.bfq.weight", weight),
                ),
                Version::V2 => {
                    self.push(
                        Write::new("blkio", "io.bfq.weight", weight)
                            .or("io.weight", io_weight(weight)),
                    );
                }
            }
        }
        if let Some(weight) = limits.blkio_leaf_weight.filter(|weight| *weight != 0) {
            self.only_v1("blkio", "a blkio leaf weight")?;
            self.push(Write::new("blkio", "blkio.leaf_weight", weight));
        }
        for device in &limits.blkio_weight_devices {
            let (major, minor) = (device.major, device.minor);
            if let Some(weight) = device.weight {
                match self.version("blkio", "a blkio weight of a device")? {
                    Version::V1 => {
                        let value = format!("{major}:{minor} {weight}");
                        self.push(
                            Write::new("blkio", "blkio.weight_device", &value)
                                .or("blkio.bfq.weight_device", &value),
                        );
                    }
                    Version::V2 => self.push(
                        Write::new(
                            "blkio",
                            "io.bfq.weight",
                            format!("{major}:{minor} {weight}"),
                        )
                        .or(
                            "io.weight",
                            format!("{major}:{minor} {}", io_weight(weight)),
                        ),
                    ),
                }
            }
            if let Some(weight) = device.leaf_weight {
                self.only_v1("blkio", "a blkio leaf weight of a device")?;
                self.push(Write::new(
                    "blkio",
                    "blkio.leaf_weight_device",
                    format!("{major}:{minor} {weight}"),
                ));
            }
        }
        for throttle in &limits.blkio_throttles {
            let (file, key) = match throttle.kind {
                ThrottleKind::ReadBytes => ("blkio.throttle.read_bps_device", "rbps"),
                ThrottleKind::WriteBytes => ("blkio.throttle.write_bps_device", "wbps"),
                ThrottleKind::ReadOperations => ("blkio.throttle.read_iops_device", "riops"),
                ThrottleKind::WriteOperations => ("blkio.throttle.write_iops_device", "wiops"),
            };
            let device = format!("{}:{}", throttle.major, throttle.minor);
            match self.version("blkio", "a blkio throttle")? {
                Version::V1 => self.push(Write::new(
                    "blkio",
                    file,
                    format!("{device} {}", throttle.rate),
                )),
                Version::V2 => {
                    let rate = if throttle.rate == 0 {
                        "max".to_owned()
                    } else {
                        throttle.rate.to_string()
                    };
                    self.push(Write::new(
                        "blkio",
                        "io.max",
                        format!("{device} {key}={rate}"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn hugetlb(&mut self) -> io::Result<()> {
        for limit in &self.limits.hugetlb {
            let size = &limit.page_size;
            if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(invalid(format!("`{size}` is not a huge page size")));
            }
            let suffix = match self.version("hugetlb", "a huge page limit")? {
                Version::V1 => "limit_in_bytes",
                Version::V2 => "max",
            };
            self.push(Write::new(
                "hugetlb",
                &format!("hugetlb.{size}.{suffix}"),
                limit.limit_bytes,
            ));
            // Reservations are counted apart since Linux 5.7.
            let write = Write::new(
                "hugetlb",
                &format!("hugetlb.{size}.rsvd.{suffix}"),
                limit.limit_bytes,
            );
            self.push(write.if_present());
        }
        Ok(())
    }

    fn network(&mut self) -> io::Result<()> {
        if let Some(class) = self.limits.network_class_id {
            self.only_v1("net_cls", "a network class")?;
            self.push(Write::new("net_cls", "net_cls.classid", class));
        }
        for (interface, priority) in &self.limits.network_priorities {
            self.only_v1("net_prio", "a network priority")?;
            self.push(Write::new(
                "net_prio",
                "net_prio.ifpriomap",
                format!("{interface} {priority}"),
            ));
        }
        Ok(())
    }

    fn rdma(&mut self) -> io::Result<()> {
        for limit in &self.limits.rdma {
            self.version("rdma", "an RDMA limit")?;
            let mut value = limit.device.clone();
            for (key, count) in [
                ("hca_handle", limit.hca_handles),
                ("hca_object", limit.hca_objects),
            ] {
                if let Some(count) = count {
                    value.push_str(&format!(" {key}={count}"));
                }
            }
            self.push(Write::new("rdma", "rdma.max", value));
        }
        Ok(())
    }

    fn unified(&mut self) -> io::Result<()> {
        for (file, value) in &self.limits.unified {
            let plain = file
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
            let controller = match file.split_once('.') {
                Some((controller, rest)) if plain && !controller.is_empty() && !rest.is_empty() => {
                    controller
                }
                _ => {
                    return Err(invalid(format!(
                        "`{file}` is not a file of cgroup version 2"
                    )));
                }
            };
            let present = self
                .layout
                .unified()
                .is_some_and(|one| controller == "cgroup" || one.has(controller));
            if !present {
                return Err(unsupported(format!(
                    "`{file}` needs the controller `{controller}` on cgroup version 2, which this machine does not have there"
                )));
            }
            self.push(Write::new(
                if controller == "io" {
                    "blkio"
                } else {
                    controller
                },
                file,
                value,
            ));
        }
        Ok(())
    }

    fn devices(&mut self) -> io::Result<()> {
        if self.limits.devices.is_empty() {
            return Ok(());
        }
        match self.version("devices", "device rules")? {
            Version::V1 => {
                for rule in &self.limits.devices {
                    for line in device_lines(rule) {
                        self.push(Write::new(
                            "devices",
                            if rule.allow {
                                "devices.allow"
                            } else {
                                "devices.deny"
                            },
                            line,
                        ));
                    }
                }
            }
            Version::V2 => self.plan.device_program = Some(self.limits.devices.clone()),
        }
        Ok(())
    }
}

/// The lines of one rule in `devices.allow` or `devices.deny`. `a` there ignores numbers and access, so a rule on both
/// kinds that is not total takes two lines.
fn device_lines(rule: &DeviceRule) -> Vec<String> {
    if rule.is_total() {
        return vec!["a".to_owned()];
    }
    let number =
        |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let kinds: &[char] = match rule.kind {
        DeviceKind::Char => &['c'],
        DeviceKind::Block => &['b'],
        DeviceKind::All => &['c', 'b'],
    };
    kinds
        .iter()
        .map(|kind| {
            format!(
                "{kind} {}:{} {}",
                number(rule.major),
                number(rule.minor),
                rule.access
            )
        })
        .collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
