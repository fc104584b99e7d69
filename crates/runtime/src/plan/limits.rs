//! `linux.resources` in the terms of `sys::cgroup`.

use gantry_api::oci::runtime::{LinuxDeviceCgroup, LinuxResources, LinuxThrottleDevice};
use gantry_sys::cgroup::{
    DeviceAccess, DeviceKind, DeviceRule, HugepageLimit, Limits, RdmaLimit, Throttle, ThrottleKind,
    WeightDevice,
};

use crate::error::Error;

/// What every container may use, whatever the specification's rules say: its own standard devices, and making nodes
/// (which gives no access to what a node stands for).
const ALWAYS: [(Option<u32>, Option<u32>); 8] = [
    (Some(1), Some(3)),
    (Some(1), Some(5)),
    (Some(1), Some(7)),
    (Some(1), Some(8)),
    (Some(1), Some(9)),
    (Some(5), Some(0)),
    (Some(5), Some(2)),
    (Some(136), None),
];

/// Converts the limits.
///
/// # Errors
/// A device rule that is none.
pub fn plan(resources: Option<&LinuxResources>) -> Result<Limits, Error> {
    let mut limits = Limits::default();
    let Some(resources) = resources else {
        return Ok(limits);
    };
    if let Some(memory) = &resources.memory {
        limits.memory_bytes = memory.limit;
        limits.memory_reservation_bytes = memory.reservation;
        limits.memory_swap_bytes = memory.swap;
        limits.kernel_memory_bytes = memory.kernel;
        limits.kernel_memory_tcp_bytes = memory.kernel_tcp;
        limits.swappiness = memory.swappiness;
        limits.oom_kill_disable = memory.disable_oom_killer;
    }
    if let Some(cpu) = &resources.cpu {
        limits.cpu_shares = cpu.shares.filter(|shares| *shares != 0);
        limits.cpu_quota_us = cpu.quota.filter(|quota| *quota != 0);
        limits.cpu_period_us = cpu.period.filter(|period| *period != 0);
        limits.cpu_burst_us = cpu.burst;
        limits.cpu_realtime_runtime_us = cpu.realtime_runtime.filter(|runtime| *runtime != 0);
        limits.cpu_realtime_period_us = cpu.realtime_period.filter(|period| *period != 0);
        limits.cpuset_cpus = Some(cpu.cpus.clone()).filter(|list| !list.is_empty());
        limits.cpuset_mems = Some(cpu.mems.clone()).filter(|list| !list.is_empty());
        limits.cpu_idle = cpu.idle;
    }
    limits.pids_max = resources
        .pids
        .map(|pids| pids.limit)
        .filter(|limit| *limit != 0);
    if let Some(block) = &resources.block_io {
        limits.blkio_weight = block.weight.filter(|weight| *weight != 0);
        limits.blkio_leaf_weight = block.leaf_weight.filter(|weight| *weight != 0);
        for device in &block.weight_device {
            limits.blkio_weight_devices.push(WeightDevice {
                major: number(device.major)?,
                minor: number(device.minor)?,
                weight: device.weight,
                leaf_weight: device.leaf_weight,
            });
        }
        for (kind, devices) in [
            (ThrottleKind::ReadBytes, &block.throttle_read_bps_device),
            (ThrottleKind::WriteBytes, &block.throttle_write_bps_device),
            (
                ThrottleKind::ReadOperations,
                &block.throttle_read_iops_device,
            ),
            (
                ThrottleKind::WriteOperations,
                &block.throttle_write_iops_device,
            ),
        ] {
            for device in devices {
                limits.blkio_throttles.push(throttle(kind, device)?);
            }
        }
    }
    if !resources.devices.is_empty() {
        limits.devices = resources
            .devices
            .iter()
            .map(rule)
            .collect::<Result<_, _>>()?;
        for kind in [DeviceKind::Char, DeviceKind::Block] {
            let access = DeviceAccess {
                mknod: true,
                ..DeviceAccess::default()
            };
            limits.devices.push(DeviceRule {
                allow: true,
                kind,
                major: None,
                minor: None,
                access,
            });
        }
        limits
            .devices
            .extend(ALWAYS.into_iter().map(|(major, minor)| DeviceRule {
                allow: true,
                kind: DeviceKind::Char,
                major,
                minor,
                access: DeviceAccess::ALL,
            }));
    }
    limits.hugetlb = resources
        .hugepage_limits
        .iter()
        .map(|limit| HugepageLimit {
            page_size: limit.page_size.clone(),
            limit_bytes: limit.limit,
        })
        .collect();
    if let Some(network) = &resources.network {
        limits.network_class_id = network.class_id;
        limits.network_priorities = network
            .priorities
            .iter()
            .map(|priority| (priority.name.clone(), priority.priority))
            .collect();
    }
    limits.rdma = resources
        .rdma
        .iter()
        .map(|(device, limit)| RdmaLimit {
            device: device.clone(),
            hca_handles: limit.hca_handles,
            hca_objects: limit.hca_objects,
        })
        .collect();
    limits.unified = resources.unified.clone();
    Ok(limits)
}

fn number(number: i64) -> Result<u32, Error> {
    u32::try_from(number).map_err(|_| Error::invalid(format!("device number {number}")))
}

fn throttle(kind: ThrottleKind, device: &LinuxThrottleDevice) -> Result<Throttle, Error> {
    Ok(Throttle {
        kind,
        major: number(device.major)?,
        minor: number(device.minor)?,
        rate: device.rate,
    })
}

fn rule(rule: &LinuxDeviceCgroup) -> Result<DeviceRule, Error> {
    let kind = match rule.kind.as_str() {
        "" | "a" => DeviceKind::All,
        "c" | "u" => DeviceKind::Char,
        "b" => DeviceKind::Block,
        other => return Err(Error::invalid(format!("device rule: no type `{other}`"))),
    };
    let access = DeviceAccess::parse(&rule.access)
        .ok_or_else(|| Error::invalid(format!("device rule: no access `{}`", rule.access)))?;
    let wildcard = |number: Option<i64>| {
        number
            .filter(|number| *number >= 0)
            .map(self::number)
            .transpose()
    };
    Ok(DeviceRule {
        allow: rule.allow,
        kind,
        major: wildcard(rule.major)?,
        minor: wildcard(rule.minor)?,
        access,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_devices_come_after_the_rules() {
        let resources: LinuxResources =
            serde_json::from_str(r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":-1,"access":"r"}],"pids":{"limit":7},"cpu":{"quota":0,"shares":2}}"#)
                .expect("json");
        let limits = plan(Some(&resources)).expect("plan");
        assert_eq!(limits.devices[0], DeviceRule::DENY_ALL);
        assert_eq!(
            (limits.devices[1].major, limits.devices[1].minor),
            (Some(10), None)
        );
        assert_eq!(limits.devices.len(), 2 + 2 + 8);
        assert_eq!(
            (limits.pids_max, limits.cpu_quota_us, limits.cpu_shares),
            (Some(7), None, Some(2))
        );
        assert!(plan(None).expect("plan").devices.is_empty());
    }
}
