//! A container's limits: checked as Docker checks them, and turned into the OCI form.

use gantry_api::oci::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
    LinuxWeightDevice,
};
use gantry_sys::cgroup::Support;

use super::config::Resources;
use crate::{Error, Result};

/// The least memory a container can have.
const MEMORY_MIN: i64 = 6 << 20;

/// Checks limits against each other and the machine.
///
/// # Errors
/// Docker's texts.
pub(crate) fn check(resources: &Resources) -> Result<()> {
    let invalid = |text: &str| Err(Error::invalid(text));
    let memory = resources.memory_bytes;
    let swap = resources.memory_swap_bytes;
    if memory != 0 && memory < MEMORY_MIN {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if memory > 0 && swap > 0 && swap < memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if memory == 0 && swap > 0 {
        return invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    if let Some(swappiness) = resources.memory_swappiness
        && !(-1..=100).contains(&swappiness)
    {
        return Err(Error::invalid(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )));
    }
    let reservation = resources.memory_reservation_bytes;
    if reservation > 0 && reservation < MEMORY_MIN {
        return invalid("Minimum memory reservation allowed is 6MB");
    }
    if memory > 0 && reservation > 0 && memory < reservation {
        return invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    if resources.nano_cpus != 0 {
        if resources.cpu_period_us != 0 {
            return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set");
        }
        if resources.cpu_quota_us != 0 {
            return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let most = i64::try_from(processors).unwrap_or(1) * 1_000_000_000;
        if !(0..=most).contains(&resources.nano_cpus) {
            return Err(Error::invalid(format!(
                "range of CPUs is from 0.01 to {processors}.00, as there are only {processors} CPUs available"
            )));
        }
    }
    if resources.cpu_period_us != 0 && !(1000..=1_000_000).contains(&resources.cpu_period_us) {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if resources.cpu_quota_us > 0 && resources.cpu_quota_us < 1000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    for (list, what, file) in [
        (
            &resources.cpuset_cpus,
            "cpus",
            "/sys/devices/system/cpu/online",
        ),
        (
            &resources.cpuset_mems,
            "memory nodes",
            "/sys/devices/system/node/online",
        ),
    ] {
        check_set(list, what, file)?;
    }
    if resources.blkio_weight > 0 && !(10..=1000).contains(&resources.blkio_weight) {
        return invalid("Range of blkio weight is from 10 to 1000");
    }
    Ok(())
}

/// Takes out what the machine's cgroups cannot do and a container can do without, and warns in Docker's words.
pub(crate) fn discard(resources: &mut Resources, support: &Support, warnings: &mut Vec<String>) {
    let mut warn = |text: &str| warnings.push(text.to_owned());
    if resources.memory_bytes > 0 && !support.memory_limit {
        warn(
            "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
        );
        (resources.memory_bytes, resources.memory_swap_bytes) = (0, -1);
    }
    if resources.memory_bytes > 0 && resources.memory_swap_bytes != -1 && !support.swap_limit {
        warn(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
        );
        resources.memory_swap_bytes = -1;
    }
    if resources.memory_swappiness.is_some() && !support.memory_swappiness {
        warn(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
        );
        resources.memory_swappiness = None;
    }
    if resources.memory_reservation_bytes > 0 && !support.memory_reservation {
        warn(
            "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
        );
        resources.memory_reservation_bytes = 0;
    }
    if !support.oom_kill_disable && resources.oom_kill_disable.take() == Some(true) {
        warn("Your kernel does not support OomKillDisable. OomKillDisable discarded.");
    }
    if resources.oom_kill_disable == Some(true) && resources.memory_bytes == 0 {
        warn(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.",
        );
    }
    if !support.pids_limit && resources.pids_limit.take().is_some_and(|limit| limit > 0) {
        warn(
            "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
        );
    }
    if resources.cpu_shares > 0 && !support.cpu_shares {
        warn(
            "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
        );
        resources.cpu_shares = 0;
    }
    if (resources.cpu_period_us, resources.cpu_quota_us) != (0, 0) && !support.cpu_quota {
        warn("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.");
        (resources.cpu_period_us, resources.cpu_quota_us) = (0, 0);
    }
    let has_set = !resources.cpuset_cpus.is_empty() || !resources.cpuset_mems.is_empty();
    if has_set && !support.cpuset {
        warn("Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.");
        resources.cpuset_cpus.clear();
        resources.cpuset_mems.clear();
    }
    if !support.blkio_weight && std::mem::take(&mut resources.blkio_weight) != 0 {
        warn(
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
        );
    }
    let Resources {
        blkio_weight_device,
        blkio_read_bps,
        blkio_write_bps,
        blkio_read_iops,
        blkio_write_iops,
        ..
    } = resources;
    for (supported, list, text) in [
        (
            support.blkio_weight,
            blkio_weight_device,
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
        ),
        (
            support.blkio_throttle,
            blkio_read_bps,
            "Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.",
        ),
        (
            support.blkio_throttle,
            blkio_write_bps,
            "Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded.",
        ),
        (
            support.blkio_throttle,
            blkio_read_iops,
            "Your kernel does not support IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded.",
        ),
        (
            support.blkio_throttle,
            blkio_write_iops,
            "Your kernel does not support IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded.",
        ),
    ] {
        if !supported && !std::mem::take(list).is_empty() {
            warn(text);
        }
    }
}

/// Checks a list such as `0-2,5` against what the machine has online.
fn check_set(list: &str, what: &str, file: &str) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let invalid = || {
        let field = if what == "cpus" {
            "cpuset cpus"
        } else {
            "cpuset mems"
        };
        Error::invalid(format!(
            "Invalid value {list} for {field}: invalid format: {list}"
        ))
    };
    let wanted = parse_set(list).ok_or_else(invalid)?;
    let online = std::fs::read_to_string(file).unwrap_or_default();
    let available = parse_set(online.trim()).unwrap_or_default();
    if available.is_empty() || wanted.iter().all(|number| available.contains(number)) {
        return Ok(());
    }
    let requested = if what == "cpus" {
        "CPUs"
    } else {
        "memory nodes"
    };
    Err(Error::invalid(format!(
        "Requested {requested} are not available - requested {list}, available: {}",
        online.trim()
    )))
}

fn parse_set(list: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (
            first.trim().parse::<u32>().ok()?,
            last.trim().parse::<u32>().ok()?,
        );
        if first > last || last > 8192 {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Turns the limits into the OCI form.
pub(crate) fn oci(resources: &Resources) -> Result<LinuxResources> {
    let some = |value: i64| (value != 0).then_some(value);
    let unsigned = |value: i64| u64::try_from(value).ok().filter(|value| *value != 0);
    let memory = LinuxMemory {
        limit: some(resources.memory_bytes),
        // Docker's default: as much swap as memory.
        swap: some(resources.memory_swap_bytes)
            .or((resources.memory_bytes > 0).then(|| resources.memory_bytes * 2)),
        reservation: some(resources.memory_reservation_bytes),
        swappiness: resources
            .memory_swappiness
            .and_then(|value| u64::try_from(value).ok()),
        disable_oom_killer: resources.oom_kill_disable.filter(|disable| *disable),
        ..LinuxMemory::default()
    };
    let (quota, period) = match resources.nano_cpus {
        0 => (
            some(resources.cpu_quota_us),
            unsigned(resources.cpu_period_us),
        ),
        nano => (Some(nano / 10_000), Some(100_000)),
    };
    let cpu = LinuxCpu {
        shares: unsigned(resources.cpu_shares),
        quota,
        period,
        realtime_period: unsigned(resources.cpu_realtime_period_us),
        realtime_runtime: some(resources.cpu_realtime_runtime_us),
        cpus: resources.cpuset_cpus.clone(),
        mems: resources.cpuset_mems.clone(),
        ..LinuxCpu::default()
    };
    let throttles = |list: &[(String, u64)]| {
        list.iter()
            .map(|(path, rate)| {
                let (major, minor) = device_number(path)?;
                Ok(LinuxThrottleDevice {
                    major,
                    minor,
                    rate: *rate,
                })
            })
            .collect::<Result<Vec<_>>>()
    };
    let block_io = LinuxBlockIo {
        weight: (resources.blkio_weight != 0).then_some(resources.blkio_weight),
        weight_device: resources
            .blkio_weight_device
            .iter()
            .map(|(path, weight)| {
                let (major, minor) = device_number(path)?;
                let weight = u16::try_from(*weight).ok();
                Ok(LinuxWeightDevice {
                    major,
                    minor,
                    weight,
                    ..LinuxWeightDevice::default()
                })
            })
            .collect::<Result<Vec<_>>>()?,
        throttle_read_bps_device: throttles(&resources.blkio_read_bps)?,
        throttle_write_bps_device: throttles(&resources.blkio_write_bps)?,
        throttle_read_iops_device: throttles(&resources.blkio_read_iops)?,
        throttle_write_iops_device: throttles(&resources.blkio_write_iops)?,
        ..LinuxBlockIo::default()
    };
    Ok(LinuxResources {
        memory: (memory != LinuxMemory::default()).then_some(memory),
        cpu: (cpu != LinuxCpu::default()).then_some(cpu),
        pids: resources
            .pids_limit
            .filter(|limit| *limit != 0)
            .map(|limit| LinuxPids { limit }),
        block_io: (block_io != LinuxBlockIo::default()).then_some(block_io),
        ..LinuxResources::default()
    })
}

fn device_number(path: &str) -> Result<(i64, i64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).map_err(|error| {
        let errno = rustix::io::Errno::from_io_error(&error);
        let reason = match errno {
            Some(rustix::io::Errno::NOENT) => "no such file or directory".to_owned(),
            _ => error.to_string(),
        };
        Error::system(format!("stat {path}: {reason}")).caused_by(error)
    })?;
    let number = metadata.rdev();
    Ok((
        rustix::fs::major(number).into(),
        rustix::fs::minor(number).into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        for (resources, text) in [
            (
                Resources {
                    memory_bytes: 1 << 20,
                    ..Resources::default()
                },
                "Minimum memory limit allowed is 6MB",
            ),
            (
                Resources {
                    memory_bytes: 64 << 20,
                    memory_swap_bytes: 32 << 20,
                    ..Resources::default()
                },
                "Minimum memoryswap limit",
            ),
            (
                Resources {
                    memory_swap_bytes: 1,
                    ..Resources::default()
                },
                "You should always set the Memory limit",
            ),
            (
                Resources {
                    nano_cpus: 1,
                    cpu_quota_us: 5000,
                    ..Resources::default()
                },
                "Conflicting options: Nano CPUs and CPU Quota",
            ),
            (
                Resources {
                    nano_cpus: i64::MAX,
                    ..Resources::default()
                },
                "range of CPUs is from 0.01",
            ),
            (
                Resources {
                    cpu_period_us: 5,
                    ..Resources::default()
                },
                "CPU cfs period",
            ),
            (
                Resources {
                    cpuset_cpus: "x".into(),
                    ..Resources::default()
                },
                "Invalid value x for cpuset cpus: invalid format: x",
            ),
            (
                Resources {
                    cpuset_cpus: "0-8000".into(),
                    ..Resources::default()
                },
                "Requested CPUs are not available",
            ),
        ] {
            let error = check(&resources).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
        check(&Resources {
            memory_bytes: 64 << 20,
            memory_swap_bytes: -1,
            cpuset_cpus: "0".into(),
            ..Resources::default()
        })
        .unwrap();
    }

    /// A machine whose cgroups can do everything.
    const EVERYTHING: Support = Support {
        memory_limit: true,
        swap_limit: true,
        memory_reservation: true,
        memory_swappiness: true,
        kernel_memory_tcp: true,
        oom_kill_disable: true,
        cpu_shares: true,
        cpu_quota: true,
        cpu_realtime: true,
        cpuset: true,
        pids_limit: true,
        blkio_weight: true,
        blkio_throttle: true,
        hugetlb: true,
        devices: true,
    };

    fn discarded(given: &Resources, support: &Support) -> (Resources, Vec<String>) {
        let (mut resources, mut warnings) = (given.clone(), Vec::new());
        discard(&mut resources, support, &mut warnings);
        (resources, warnings)
    }

    #[test]
    fn a_limit_that_the_kernel_does_not_know_is_discarded_with_a_warning() {
        let device = || vec![("/dev/sda".into(), 100)];
        let given = Resources {
            memory_bytes: 64 << 20,
            memory_swap_bytes: 128 << 20,
            memory_reservation_bytes: 32 << 20,
            memory_swappiness: Some(50),
            oom_kill_disable: Some(true),
            cpu_shares: 512,
            cpu_quota_us: 50_000,
            cpuset_cpus: "0".into(),
            pids_limit: Some(50),
            blkio_weight: 5,
            blkio_weight_device: device(),
            blkio_read_bps: device(),
            blkio_write_bps: device(),
            blkio_read_iops: device(),
            blkio_write_iops: device(),
            ..Resources::default()
        };
        assert_eq!(discarded(&given, &EVERYTHING), (given.clone(), Vec::new()));
        assert!(check(&given).is_err());
        let nothing = Resources {
            memory_swap_bytes: -1,
            ..Resources::default()
        };
        let (resources, warnings) = discarded(&given, &Support::default());
        assert_eq!((resources, warnings.len()), (nothing, 14));
    }

    #[test]
    fn version_2_discards_what_version_1_alone_knows() {
        let version_2 = Support {
            memory_swappiness: false,
            oom_kill_disable: false,
            ..EVERYTHING
        };
        let given = Resources {
            memory_swappiness: Some(50),
            oom_kill_disable: Some(true),
            ..Resources::default()
        };
        let (resources, warnings) = discarded(&given, &version_2);
        assert_eq!((resources, warnings.len()), (Resources::default(), 2));
        // What Docker's client always sends is not worth a word.
        let given = Resources {
            oom_kill_disable: Some(false),
            ..Resources::default()
        };
        assert_eq!(
            discarded(&given, &version_2),
            (Resources::default(), Vec::new())
        );
    }

    #[test]
    fn memory_is_limited_without_swap_where_swap_is_not_counted() {
        let support = Support {
            swap_limit: false,
            ..EVERYTHING
        };
        let given = Resources {
            memory_bytes: 64 << 20,
            ..Resources::default()
        };
        let (resources, warnings) = discarded(&given, &support);
        assert_eq!((resources.memory_swap_bytes, warnings.len()), (-1, 1));
    }

    #[test]
    fn half_a_processor_is_half_a_period() {
        let oci = oci(&Resources {
            nano_cpus: 500_000_000,
            ..Resources::default()
        })
        .unwrap();
        let cpu = oci.cpu.unwrap();
        assert_eq!((cpu.quota, cpu.period), (Some(50_000), Some(100_000)));
        assert!(oci.memory.is_none() && oci.pids.is_none());
    }
}
