//! The sandbox: capabilities, seccomp, masked paths, devices, namespaces, control groups.

use gantry_testkit::session::Session;

gantry_testkit::scenarios![
    fourteen_capabilities_by_default,
    capabilities_are_added_and_dropped,
    an_unprivileged_user_has_no_effective_capabilities,
    the_seccomp_filter_is_on,
    seccomp_can_be_switched_off_or_replaced,
    no_new_privileges,
    kernel_paths_are_masked_and_read_only,
    privileged_lifts_the_sandbox,
    the_default_devices,
    a_device_is_handed_in,
    other_devices_are_denied,
    own_process_ids,
    process_ids_of_the_host_and_of_another_container,
    ipc_is_private_or_shared,
    the_hostname_is_the_containers_own,
    the_control_group_looks_like_the_root,
    the_control_group_has_the_parent_that_is_asked_for,
    control_group_limits_are_visible,
    block_devices_are_throttled,
    what_version_2_cannot_limit_is_discarded_aloud,
    no_foreign_mounts_are_seen,
    no_descriptors_leak_into_the_container,
    mounting_is_refused,
    the_default_mounts,
    oom_score_is_adjusted,
    systempaths_can_be_unconfined,
];

fn effective(s: &Session, options: &str) -> u64 {
    let text = s
        .d(&format!(
            "run --rm {options} @bb grep CapEff /proc/self/status"
        ))
        .ok()
        .text();
    u64::from_str_radix(text.split_whitespace().last().unwrap_or_default(), 16).expect("hex")
}

fn fourteen_capabilities_by_default(s: &Session) {
    let status = s.d("run --rm @bb grep ^Cap /proc/self/status").ok().text();
    assert_eq!(
        status,
        "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000"
    );
}

fn capabilities_are_added_and_dropped(s: &Session) {
    let base = 0xa804_25fb_u64;
    assert_eq!(effective(s, "--cap-add NET_ADMIN"), base | 1 << 12);
    assert_eq!(
        effective(s, "--cap-add CAP_SYS_PTRACE --cap-drop chown"),
        (base | 1 << 19) & !1
    );
    assert_eq!(effective(s, "--cap-drop ALL"), 0);
    assert_eq!(effective(s, "--cap-drop ALL --cap-add KILL"), 1 << 5);
    s.d("run --rm --cap-add NOSUCH @bb true")
        .exits(125)
        .warns("invalid CapAdd: unknown capability: \"CAP_NOSUCH\"");
}

fn an_unprivileged_user_has_no_effective_capabilities(s: &Session) {
    assert_eq!(effective(s, "-u 1000"), 0);
    s.d("run --rm -u 1000 @bb grep CapBnd /proc/self/status")
        .prints("CapBnd:\t00000000a80425fb\n");
}

fn the_seccomp_filter_is_on(s: &Session) {
    s.d("run --rm @bb grep -E '^Seccomp:' /proc/self/status")
        .prints("Seccomp:\t2\n");
    // keyctl, mount and clone into a user namespace are not for everyone.
    s.d("run --rm @bb unshare -U true")
        .exits(1)
        .warns("Operation not permitted");
    let call = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); print(libc.syscall(250, 0, -3, 0), ctypes.get_errno())";
    s.d(&format!("run --rm @deb python3 -c '{call}'"))
        .prints("-1 1\n");
}

fn seccomp_can_be_switched_off_or_replaced(s: &Session) {
    s.d("run --rm --security-opt seccomp=unconfined @bb grep -E '^Seccomp:' /proc/self/status")
        .prints("Seccomp:\t0\n");
    s.file(
        "profile.json",
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}"#,
    );
    s.d("run --rm --security-opt seccomp=@dir/profile.json @bb mkdir /x")
        .exits(1)
        .warns("No space left on device");
    s.d("run --rm --security-opt seccomp=@dir/none.json @bb true")
        .exits(125)
        .warns("opening seccomp profile");
    s.file("broken.json", "{");
    s.d("run --rm --security-opt seccomp=@dir/broken.json @bb true")
        .exits(125);
}

fn no_new_privileges(s: &Session) {
    s.d("run --rm @bb grep NoNewPrivs /proc/self/status")
        .prints("NoNewPrivs:\t0\n");
    s.d("run --rm --security-opt no-new-privileges @bb grep NoNewPrivs /proc/self/status")
        .prints("NoNewPrivs:\t1\n");
    s.d("run --rm --security-opt nosuch=1 @bb true")
        .exits(125)
        .warns("invalid --security-opt 2: \"nosuch=1\"");
}

fn kernel_paths_are_masked_and_read_only(s: &Session) {
    s.d("run --rm @bb sh -c 'for f in kcore keys timer_list interrupts; do [ -e /proc/$f ] && cat /proc/$f; done; ls /sys/firmware'").ok().prints("");
    s.d("run --rm @bb sh -c 'echo 1 > /proc/sys/vm/drop_caches'")
        .exits(1)
        .warns("Read-only file system");
    s.d("run --rm @bb sh -c 'echo x > /proc/irq/default_smp_affinity'")
        .exits(1)
        .warns("Read-only file system");
    s.d("run --rm @bb mkdir /sys/x").exits(1);
    s.d("create --name @c @bb").ok();
    s.d("inspect -f '{{json .HostConfig.ReadonlyPaths}}' @c")
        .prints(
            "[\"/proc/bus\",\"/proc/fs\",\"/proc/irq\",\"/proc/sys\",\"/proc/sysrq-trigger\"]\n",
        );
    s.d("inspect -f '{{len .HostConfig.MaskedPaths}}' @c")
        .such_that("a dozen or more", |text| {
            text.trim().parse::<u32>().is_ok_and(|count| count >= 12)
        });
}

fn privileged_lifts_the_sandbox(s: &Session) {
    let host = std::fs::read_to_string("/proc/self/status").expect("status");
    let bounding = host
        .lines()
        .find(|line| line.starts_with("CapEff"))
        .and_then(|line| line.split_whitespace().last())
        .expect("CapEff")
        .to_owned();
    s.d("run --rm --privileged @bb grep -E '^(CapEff|Seccomp):' /proc/self/status")
        .prints(&format!("CapEff:\t{bounding}\nSeccomp:\t0\n"));
    s.d("run --rm --privileged @bb sh -c 'mkdir /m; mount -t tmpfs none /m && grep -c \" /m \" /proc/mounts'").prints("1\n");
    s.d("run --rm --privileged @bb sh -c 'ls /dev/kmsg /dev/loop-control 2>/dev/null; grep -c \" /sys sysfs rw\" /proc/mounts'").ok().shows("1\n");
    s.d("inspect -f x @none").exits(1);
}

fn the_default_devices(s: &Session) {
    // core is there where the kernel has /proc/kcore.
    s.d("run --rm @bb sh -c 'ls /dev | grep -v core'").prints("fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n");
    s.d("run --rm @bb sh -c 'head -c 3 /dev/zero | wc -c; readlink /dev/ptmx; readlink /dev/fd; stat -c %a /dev/null'").prints("3\npts/ptmx\n/proc/self/fd\n666\n");
}

fn a_device_is_handed_in(s: &Session) {
    s.d("run --rm --device /dev/kmsg:/dev/mine:r @bb stat -c '%t:%T' /dev/mine")
        .prints("1:b\n");
    s.d("run --rm --device /dev/nosuch @bb true").exits(127).warns("error gathering device information while adding custom device \"/dev/nosuch\": no such file or directory");
    s.d("run --rm --device-cgroup-rule 'c 1:11 r' @bb sh -c 'mknod /k c 1 11 && timeout 1 head -c 1 /k >/dev/null; echo read'").ok().shows("read");
}

fn other_devices_are_denied(s: &Session) {
    s.d("run --rm @bb sh -c 'mknod /k c 1 11; head -c 1 /k'")
        .exits(1)
        .warns("Operation not permitted");
}

fn own_process_ids(s: &Session) {
    s.d("run --rm @bb sh -c 'echo $$; ls -d /proc/[0-9]* | wc -l'")
        .ok()
        .such_that("it is the first of few", |text| text.starts_with("1\n"));
}

fn process_ids_of_the_host_and_of_another_container(s: &Session) {
    s.d("run -d --name @c @bb sleep 4321").ok();
    s.d("run --rm --pid container:@c @bb ps")
        .ok()
        .shows("sleep 4321");
    let pid = s.inspect("@c")["State"]["Pid"].as_i64().expect("a pid");
    s.d(&format!("run --rm --pid host @bb cat /proc/{pid}/cmdline"))
        .ok()
        .shows("4321");
    s.d("run --rm --pid container:@none @bb true")
        .exits(125)
        .warns("No such container: @none");
}

fn ipc_is_private_or_shared(s: &Session) {
    s.d("run -d --name @c --ipc shareable @bb sleep 1000").ok();
    s.d("exec @c touch /dev/shm/shared").ok();
    s.d("run --rm --ipc container:@c @bb ls /dev/shm")
        .prints("shared\n");
    s.d("run --rm @bb ls /dev/shm").prints("");
    s.d("run -d --name @d @bb sleep 1000").ok();
    s.d("run --rm --ipc container:@d @bb true")
        .exits(125)
        .warns("non-shareable IPC");
    s.d("run --rm --ipc none @bb sh -c 'grep -c \" /dev/shm \" /proc/mounts'")
        .exits(1)
        .shows("0");
}

fn the_hostname_is_the_containers_own(s: &Session) {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    s.d("run --rm --uts host @bb hostname").prints(&host);
    // Its files have the name that it would have otherwise.
    s.d("run --name @named --uts host @bb cat /etc/hostname")
        .ok();
    let id = s.inspect("@named")["Id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    s.d("logs @named").prints(&format!("{}\n", &id[..12]));
    s.d("run --rm @bb hostname other").exits(1);
    s.d("run --rm --uts host --hostname x @bb true")
        .exits(125)
        .warns("conflicting options: hostname and the UTS mode");
}

/// Whether the engine's machine has version 2 of control groups alone.
fn is_version_2(s: &Session) -> bool {
    s.d("info -f '{{.CgroupVersion}}'").ok().text().trim() == "2"
}

fn the_control_group_looks_like_the_root(s: &Session) {
    let is_root = |text: &str| text.lines().all(|line| line.ends_with(":/"));
    let has_path = |text: &str| text.lines().any(|line| !line.ends_with(":/"));
    s.d("run --rm --cgroupns private @bb cat /proc/self/cgroup")
        .ok()
        .such_that("each path is the root", is_root);
    s.d("run --rm --cgroupns host @bb cat /proc/self/cgroup")
        .ok()
        .such_that("the real path", has_path);
    let default = s.d("run --rm @bb cat /proc/self/cgroup").ok();
    let security = s.d("info -f '{{.SecurityOptions}}'").ok().text();
    if is_version_2(s) {
        default.such_that("private on version 2", is_root);
        s.d("run --rm --privileged @bb sh -c 'cat /proc/self/cgroup; mkdir /sys/fs/cgroup/x'")
            .prints("0::/\n");
    } else if s.engine.is_reference() {
        default.such_that("the host's on version 1", has_path);
    } else {
        default.such_that("always private here", is_root);
    }
    assert_eq!(
        security.contains("name=cgroupns"),
        is_version_2(s),
        "{security}"
    );
}

fn the_control_group_has_the_parent_that_is_asked_for(s: &Session) {
    let parent = s.x("@parent");
    for asked in ["@parent", "/@parent", "/@parent/inner"] {
        s.d(&format!(
            "run --rm --cgroupns host --cgroup-parent {asked} @bb cat /proc/self/cgroup"
        ))
        .ok()
        .such_that("beneath its parent", |text| {
            let path = format!(":/{}/", s.x(asked).trim_start_matches('/'));
            text.lines().any(|line| line.contains(&path))
        });
    }
    // The parent is shared and stays, as Docker's does.
    for directory in gantry_testkit::engine::cgroups(&parent) {
        std::fs::remove_dir(&directory).expect("nothing is left in the parent");
    }
}

fn control_group_limits_are_visible(s: &Session) {
    let version_2 = is_version_2(s);
    for (options, v1, v2) in [
        (
            "--memory 33m",
            ("memory/memory.limit_in_bytes", "34603008"),
            ("memory.max", "34603008"),
        ),
        (
            "--memory 32m --memory-swap 48m",
            ("memory/memory.memsw.limit_in_bytes", "50331648"),
            ("memory.swap.max", "16777216"),
        ),
        (
            "--memory 32m",
            ("memory/memory.memsw.limit_in_bytes", "67108864"),
            ("memory.swap.max", "33554432"),
        ),
        (
            "--memory 32m --memory-reservation 16m",
            ("memory/memory.soft_limit_in_bytes", "16777216"),
            ("memory.low", "16777216"),
        ),
        (
            "--pids-limit 77",
            ("pids/pids.max", "77"),
            ("pids.max", "77"),
        ),
        (
            "--cpuset-cpus 0",
            ("cpuset/cpuset.cpus", "0"),
            ("cpuset.cpus.effective", "0"),
        ),
        (
            "--cpuset-mems 0",
            ("cpuset/cpuset.mems", "0"),
            ("cpuset.mems", "0"),
        ),
        (
            "--cpu-shares 512",
            ("cpu/cpu.shares", "512"),
            ("cpu.weight", "59"),
        ),
        (
            "--cpu-shares 1024",
            ("cpu/cpu.shares", "1024"),
            ("cpu.weight", "100"),
        ),
        (
            "--cpu-period 50000 --cpu-quota 25000",
            ("cpu/cpu.cfs_period_us", "50000"),
            ("cpu.max", "25000 50000"),
        ),
        (
            "--cpus 0.25",
            ("cpu/cpu.cfs_quota_us", "25000"),
            ("cpu.max", "25000 100000"),
        ),
    ] {
        let (file, expected) = if version_2 { v2 } else { v1 };
        s.d(&format!("run --rm {options} @bb cat /sys/fs/cgroup/{file}"))
            .prints(&format!("{expected}\n"));
    }
    let outside = if version_2 {
        "mkdir /sys/fs/cgroup/x"
    } else {
        "touch /sys/fs/cgroup/memory/x"
    };
    s.d(&format!("run --rm @bb {outside}"))
        .exits(1)
        .warns("Read-only file system");
}

fn block_devices_are_throttled(s: &Session) {
    let device = "/dev/vda";
    if !std::path::Path::new(device).exists() {
        println!("skipped: no {device} to throttle here");
        return;
    }
    let options = format!("--device-read-bps {device}:1mb --device-write-iops {device}:500");
    let weight = s.d("run --rm --blkio-weight 5 @bb true");
    let expected = if is_version_2(s) {
        weight.fails(125, "docker: Error response from daemon: Range of blkio weight is from 10 to 1000\n\nRun 'docker run --help' for more information\n");
        s.d("run --rm --blkio-weight 300 @bb sh -c 'cat /sys/fs/cgroup/io.bfq.weight 2>/dev/null || cat /sys/fs/cgroup/io.weight'")
            .ok()
            .such_that("the weight", |text| {
                text == "default 2930\n" || text == "default 300\n"
            });
        "rbps=1048576 wbps=max riops=max wiops=500\n"
    } else {
        weight.ok().warns("WARNING: Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.\n");
        " 1048576\n"
    };
    s.d(&format!(
        "run --rm {options} @bb sh -c 'cat /sys/fs/cgroup/io.max 2>/dev/null || cat /sys/fs/cgroup/blkio/blkio.throttle.read_bps_device'"
    ))
    .ok()
    .such_that("the throttle", |text| text.ends_with(expected));
}

fn what_version_2_cannot_limit_is_discarded_aloud(s: &Session) {
    let swappiness =
        "create --name @c --memory 32m --memory-swappiness 50 --oom-kill-disable @bb true";
    let created = s.d(swappiness).ok();
    let kept =
        s.d("inspect -f '{{.HostConfig.MemorySwappiness}} {{.HostConfig.OomKillDisable}}' @c");
    if is_version_2(s) {
        created
            .warns("WARNING: Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.")
            .warns("WARNING: Your kernel does not support OomKillDisable. OomKillDisable discarded.");
        kept.prints("<nil> <nil>\n");
    } else {
        kept.ok()
            .such_that("both are kept", |text| text.ends_with(" true\n"));
    }
    s.d("start -a @c").ok();
    let warnings = s.d("info -f '{{json .Warnings}}'").ok().text();
    assert!(!warnings.contains("memory"), "{warnings}");
}

fn no_foreign_mounts_are_seen(s: &Session) {
    s.d("run --rm @bb cat /proc/mounts").ok().such_that(
        "the first is an overlay and none is the engine's",
        |text| {
            text.lines()
                .next()
                .is_some_and(|line| line.starts_with("overlay / overlay "))
                && text.lines().all(|line| !line.contains("nsfs"))
        },
    );
}

fn no_descriptors_leak_into_the_container(s: &Session) {
    s.d("run --rm @bb sh -c 'ls /proc/1/fd; true'")
        .prints("0\n1\n2\n");
    s.d("run -d --name @c @bb sleep 1000").ok();
    s.d("exec @c sh -c 'ls /proc/1/fd; ls /proc/$$/fd; true'")
        .ok()
        .such_that("only the standard ones", |text| {
            text.lines().all(|line| matches!(line, "0" | "1" | "2"))
        });
}

fn mounting_is_refused(s: &Session) {
    s.d("run --rm @bb mount -t tmpfs none /tmp")
        .exits(1)
        .warns("ermission");
}

fn the_default_mounts(s: &Session) {
    let text = s
        .d("run --rm @bb cut -d' ' -f2,3,4 /proc/mounts")
        .ok()
        .text();
    for start in [
        "/proc proc rw,nosuid,nodev,noexec,relatime",
        "/dev tmpfs rw,nosuid,",
        "/dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666",
        "/sys sysfs ro,nosuid,nodev,noexec,relatime",
        "/dev/mqueue mqueue rw,nosuid,nodev,noexec,relatime",
        "/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k",
        "/proc/sys proc ro,nosuid,nodev,noexec,relatime",
        "/proc/bus proc ro,nosuid,nodev,noexec,relatime",
        "/etc/resolv.conf ",
        "/etc/hostname ",
        "/etc/hosts ",
    ] {
        assert!(
            text.lines().any(|line| line.starts_with(start)),
            "no mount starts `{start}` among\n{text}"
        );
    }
}

fn oom_score_is_adjusted(s: &Session) {
    s.d("run --rm --oom-score-adj 321 @bb cat /proc/self/oom_score_adj")
        .prints("321\n");
    s.d("run --rm --oom-score-adj 1001 @bb true")
        .exits(125)
        .warns("Invalid value 1001, range for oom score adj is [-1000, 1000]");
}

fn systempaths_can_be_unconfined(s: &Session) {
    s.d("run --rm --security-opt systempaths=unconfined @bb sh -c 'grep -c \" /proc/sys \" /proc/mounts'").exits(1).shows("0\n");
}
