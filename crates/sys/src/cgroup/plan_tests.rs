//! Tables of limits and the writes they become, for both versions and the hybrid.

use super::super::layout::tests::{hybrid, v2 as v2_layout};
use super::super::limits::{DeviceAccess, HugepageLimit, RdmaLimit, Throttle, WeightDevice};
use super::*;

fn lines(layout: &Layout, limits: &Limits, current: &Current) -> Vec<String> {
    let plan = plan(layout, limits, current).unwrap();
    plan.writes
        .iter()
        .map(|write| {
            let mut line = format!("{}/{} {}", write.controller, write.file, write.value);
            if let Some((file, value)) = &write.instead {
                line.push_str(&format!(" | {file} {value}"));
            }
            if write.optional {
                line.push('?');
            }
            line
        })
        .collect()
}

#[track_caller]
fn check(limits: &Limits, current: &Current, v1_lines: &[&str], v2_lines: &[&str]) {
    assert_eq!(lines(&hybrid(), limits, current), v1_lines, "hybrid");
    assert_eq!(lines(&v2_layout(), limits, current), v2_lines, "version 2");
}

#[test]
fn nothing_limited_writes_nothing() {
    check(&Limits::default(), &Current::default(), &[], &[]);
}

#[test]
fn memory_and_swap_count_differently() {
    let limits = Limits {
        memory_bytes: Some(100 << 20),
        memory_swap_bytes: Some(150 << 20),
        memory_reservation_bytes: Some(50 << 20),
        ..Limits::default()
    };
    check(
        &limits,
        &Current::default(),
        &[
            "memory/memory.limit_in_bytes 104857600",
            "memory/memory.memsw.limit_in_bytes 157286400",
            "memory/memory.soft_limit_in_bytes 52428800",
        ],
        &[
            "memory/memory.swap.max 52428800",
            "memory/memory.max 104857600",
            "memory/memory.low 52428800",
        ],
    );
}

#[test]
fn raising_memory_raises_the_sum_first_and_lowering_last() {
    let current = Current {
        memory_bytes: Some(100),
        memory_swap_bytes: Some(200),
        cpu_quota_us: None,
    };
    let limits = |memory, swap| Limits {
        memory_bytes: Some(memory),
        memory_swap_bytes: Some(swap),
        ..Limits::default()
    };
    let (memory, sum) = (
        "memory/memory.limit_in_bytes",
        "memory/memory.memsw.limit_in_bytes",
    );
    for (new, expected) in [
        ((300, 400), [format!("{sum} 400"), format!("{memory} 300")]),
        ((50, 60), [format!("{memory} 50"), format!("{sum} 60")]),
        ((200, 400), [format!("{memory} 200"), format!("{sum} 400")]),
        ((-1, -1), [format!("{sum} -1"), format!("{memory} -1")]),
    ] {
        assert_eq!(lines(&hybrid(), &limits(new.0, new.1), &current), expected);
    }
}

#[test]
fn unlimited_memory_lifts_swap_too() {
    let limits = Limits {
        memory_bytes: Some(-1),
        ..Limits::default()
    };
    check(
        &limits,
        &Current::default(),
        &[
            "memory/memory.memsw.limit_in_bytes -1?",
            "memory/memory.limit_in_bytes -1",
        ],
        &["memory/memory.swap.max max?", "memory/memory.max max"],
    );
}

#[test]
fn contradictory_memory_limits_are_refused() {
    for (memory, swap) in [
        (Some(200), Some(100)),
        (Some(-1), Some(100)),
        (None, Some(100)),
    ] {
        let limits = Limits {
            memory_bytes: memory,
            memory_swap_bytes: swap,
            ..Limits::default()
        };
        let error = plan(&v2_layout(), &limits, &Current::default()).unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::InvalidInput,
            "{memory:?} {swap:?}"
        );
    }
    let current = Current {
        memory_bytes: Some(60),
        ..Current::default()
    };
    let limits = Limits {
        memory_swap_bytes: Some(100),
        ..Limits::default()
    };
    assert_eq!(
        lines(&v2_layout(), &limits, &current),
        ["memory/memory.swap.max 40"]
    );
}

#[test]
fn cpu_and_pids() {
    let limits = Limits {
        cpu_shares: Some(1024),
        cpu_quota_us: Some(50_000),
        cpu_period_us: Some(100_000),
        cpu_burst_us: Some(1000),
        cpuset_cpus: Some("0-1".to_owned()),
        cpuset_mems: Some("0".to_owned()),
        pids_max: Some(64),
        ..Limits::default()
    };
    check(
        &limits,
        &Current::default(),
        &[
            "cpuset/cpuset.cpus 0-1",
            "cpuset/cpuset.mems 0",
            "cpu/cpu.shares 1024",
            "cpu/cpu.cfs_period_us 100000",
            "cpu/cpu.cfs_quota_us 50000",
            "cpu/cpu.cfs_burst_us 1000",
            "pids/pids.max 64",
        ],
        &[
            "cpuset/cpuset.cpus 0-1",
            "cpuset/cpuset.mems 0",
            "cpu/cpu.weight 100",
            "cpu/cpu.max 50000 100000",
            "cpu/cpu.max.burst 1000",
            "pids/pids.max 64",
        ],
    );
}

#[test]
fn quota_and_period_alone() {
    let current = Current {
        cpu_quota_us: Some(7000),
        ..Current::default()
    };
    let period = Limits {
        cpu_period_us: Some(20_000),
        ..Limits::default()
    };
    check(
        &period,
        &current,
        &["cpu/cpu.cfs_period_us 20000"],
        &["cpu/cpu.max 7000 20000"],
    );
    let quota = Limits {
        cpu_quota_us: Some(30_000),
        ..Limits::default()
    };
    check(
        &quota,
        &current,
        &["cpu/cpu.cfs_quota_us 30000"],
        &["cpu/cpu.max 30000"],
    );
    let lifted = Limits {
        cpu_quota_us: Some(-1),
        pids_max: Some(-1),
        ..Limits::default()
    };
    check(
        &lifted,
        &current,
        &["cpu/cpu.cfs_quota_us -1", "pids/pids.max max"],
        &["cpu/cpu.max max", "pids/pids.max max"],
    );
}

#[test]
fn shares_keep_their_anchors() {
    for (shares, weight) in [
        (0, 1),
        (2, 1),
        (1024, 100),
        (262_144, 10_000),
        (1 << 40, 10_000),
    ] {
        assert_eq!(weight_of_shares(shares), weight, "{shares}");
    }
    let weights: Vec<u64> = (2..5000).map(weight_of_shares).collect();
    assert!(weights.is_sorted());
    assert_eq!((io_weight(10), io_weight(1000)), (1, 10_000));
}

#[test]
fn blkio() {
    let limits = Limits {
        blkio_weight: Some(500),
        blkio_weight_devices: vec![WeightDevice {
            major: 8,
            minor: 0,
            weight: Some(10),
            leaf_weight: None,
        }],
        blkio_throttles: vec![
            Throttle {
                kind: ThrottleKind::ReadBytes,
                major: 8,
                minor: 0,
                rate: 1024,
            },
            Throttle {
                kind: ThrottleKind::WriteOperations,
                major: 8,
                minor: 16,
                rate: 0,
            },
        ],
        ..Limits::default()
    };
    check(
        &limits,
        &Current::default(),
        &[
            "blkio/blkio.weight 500 | blkio.bfq.weight 500",
            "blkio/blkio.weight_device 8:0 10 | blkio.bfq.weight_device 8:0 10",
            "blkio/blkio.throttle.read_bps_device 8:0 1024",
            "blkio/blkio.throttle.write_iops_device 8:16 0",
        ],
        &[
            "blkio/io.bfq.weight 500 | io.weight 4950",
            "blkio/io.bfq.weight 8:0 10 | io.weight 8:0 1",
            "blkio/io.max 8:0 rbps=1024",
            "blkio/io.max 8:16 wiops=max",
        ],
    );
}

#[test]
fn hugetlb_of_the_hybrid_is_version_2() {
    let limits = Limits {
        hugetlb: vec![HugepageLimit {
            page_size: "2MB".to_owned(),
            limit_bytes: 4 << 20,
        }],
        ..Limits::default()
    };
    let expected = [
        "hugetlb/hugetlb.2MB.max 4194304",
        "hugetlb/hugetlb.2MB.rsvd.max 4194304?",
    ];
    check(&limits, &Current::default(), &expected, &expected);
    let limits = Limits {
        hugetlb: vec![HugepageLimit {
            page_size: "../x".to_owned(),
            limit_bytes: 1,
        }],
        ..Limits::default()
    };
    assert_eq!(
        plan(&hybrid(), &limits, &Current::default())
            .unwrap_err()
            .kind(),
        io::ErrorKind::InvalidInput
    );
}

#[test]
fn devices_are_lines_on_version_1_and_a_program_on_version_2() {
    let rules = vec![
        DeviceRule::DENY_ALL,
        DeviceRule {
            allow: true,
            kind: DeviceKind::Char,
            major: Some(1),
            minor: Some(3),
            access: DeviceAccess::ALL,
        },
        DeviceRule {
            allow: true,
            kind: DeviceKind::All,
            major: None,
            minor: None,
            access: DeviceAccess {
                mknod: true,
                ..DeviceAccess::default()
            },
        },
    ];
    let limits = Limits {
        devices: rules.clone(),
        ..Limits::default()
    };
    check(
        &limits,
        &Current::default(),
        &[
            "devices/devices.deny a",
            "devices/devices.allow c 1:3 rwm",
            "devices/devices.allow c *:* m",
            "devices/devices.allow b *:* m",
        ],
        &[],
    );
    assert_eq!(
        plan(&hybrid(), &limits, &Current::default())
            .unwrap()
            .device_program,
        None
    );
    assert_eq!(
        plan(&v2_layout(), &limits, &Current::default())
            .unwrap()
            .device_program,
        Some(rules)
    );
}

#[test]
fn what_version_2_lacks_is_refused_by_name() {
    for (limits, name) in [
        (
            Limits {
                swappiness: Some(10),
                ..Limits::default()
            },
            "memory swappiness",
        ),
        (
            Limits {
                oom_kill_disable: Some(true),
                ..Limits::default()
            },
            "disabling the OOM killer",
        ),
        (
            Limits {
                cpu_realtime_runtime_us: Some(10),
                ..Limits::default()
            },
            "a real-time CPU runtime",
        ),
        (
            Limits {
                kernel_memory_tcp_bytes: Some(10),
                ..Limits::default()
            },
            "a kernel TCP memory limit",
        ),
        (
            Limits {
                network_class_id: Some(10),
                ..Limits::default()
            },
            "a network class",
        ),
        (
            Limits {
                blkio_leaf_weight: Some(10),
                ..Limits::default()
            },
            "a blkio leaf weight",
        ),
    ] {
        let error = plan(&v2_layout(), &limits, &Current::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().starts_with(name), "{error}");
    }
    let harmless = Limits {
        oom_kill_disable: Some(false),
        ..Limits::default()
    };
    assert_eq!(
        lines(&v2_layout(), &harmless, &Current::default()),
        Vec::<String>::new()
    );
}

#[test]
fn unified_files_need_their_controller_on_version_2() {
    let limits = |file: &str| Limits {
        unified: [(file.to_owned(), "max".to_owned())].into_iter().collect(),
        rdma: Vec::<RdmaLimit>::new(),
        ..Limits::default()
    };
    assert_eq!(
        lines(&v2_layout(), &limits("memory.high"), &Current::default()),
        ["memory/memory.high max"]
    );
    assert_eq!(
        lines(&v2_layout(), &limits("io.max"), &Current::default()),
        ["blkio/io.max max"]
    );
    let kind = |layout: &Layout, file: &str| {
        plan(layout, &limits(file), &Current::default())
            .unwrap_err()
            .kind()
    };
    assert_eq!(kind(&hybrid(), "memory.high"), io::ErrorKind::Unsupported);
    assert_eq!(
        kind(&v2_layout(), "../memory.high"),
        io::ErrorKind::InvalidInput
    );
    assert_eq!(kind(&v2_layout(), "memory"), io::ErrorKind::InvalidInput);
}
