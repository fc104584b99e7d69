//! What a container may not do: capabilities, filter, paths, limits.

use std::fs;

use serde_json::json;

use super::Test;
use super::bundle::Bundle;

pub const TESTS: &[Test] = &[
    (
        "capabilities_are_those_of_the_specification",
        capabilities_are_those_of_the_specification,
    ),
    (
        "another_user_has_none_in_effect",
        another_user_has_none_in_effect,
    ),
    (
        "ambient_capabilities_survive_a_change_of_user",
        ambient_capabilities_survive_a_change_of_user,
    ),
    (
        "the_filter_is_loaded_with_and_without_new_privileges",
        the_filter_is_loaded_with_and_without_new_privileges,
    ),
    (
        "masked_and_readonly_paths_hold",
        masked_and_readonly_paths_hold,
    ),
    ("the_root_can_be_readonly", the_root_can_be_readonly),
    ("the_cgroup_limits", the_cgroup_limits),
    (
        "only_allowed_devices_can_be_used",
        only_allowed_devices_can_be_used,
    ),
    ("rlimits_and_umask_are_set", rlimits_and_umask_are_set),
    (
        "a_hard_limit_that_cannot_be_raised_is_named",
        a_hard_limit_that_cannot_be_raised_is_named,
    ),
    (
        "no_descriptor_of_the_host_is_left",
        no_descriptor_of_the_host_is_left,
    ),
    ("home_comes_from_passwd", home_comes_from_passwd),
    ("scheduling_is_set", scheduling_is_set),
];

fn field(status: &str, name: &str) -> String {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_default()
        .trim_start_matches(':')
        .trim()
        .to_owned()
}

fn capabilities_are_those_of_the_specification() {
    let mut bundle = Bundle::new("cat /proc/self/status");
    let two = json!(["CAP_CHOWN", "CAP_KILL"]);
    bundle.spec["process"]["capabilities"] = json!({ "bounding": two, "effective": two, "permitted": two, "inheritable": ["CAP_CHOWN"] });
    let status = bundle.output();
    let two = format!("{:016x}", 1 | 1 << 5);
    for (set, value) in [
        ("CapBnd", &two),
        ("CapPrm", &two),
        ("CapEff", &two),
        ("CapInh", &format!("{:016x}", 1)),
    ] {
        assert_eq!(&field(&status, set), value, "{set}");
    }
    assert_eq!(field(&status, "NoNewPrivs"), "1");
    bundle.spec["process"]
        .as_object_mut()
        .expect("process")
        .remove("capabilities");
    assert_eq!(field(&bundle.output(), "CapBnd"), "0000000000000000");
    bundle.spec["process"]["capabilities"] = json!({ "bounding": ["CAP_NONSENSE"] });
    assert!(bundle.run().stderr.contains("CAP_NONSENSE"));
}

fn another_user_has_none_in_effect() {
    let mut bundle = Bundle::new("cat /proc/self/status; id; pwd; touch /dev/stdout && echo ok");
    bundle.spec["process"]["user"] =
        json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 63 });
    let status = bundle.output();
    assert_eq!(field(&status, "CapEff"), "0000000000000000");
    assert_eq!(field(&status, "Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(field(&status, "Gid"), "1001\t1001\t1001\t1001");
    assert_eq!(field(&status, "Groups").trim(), "5 6");
    assert_eq!(field(&status, "Umask"), "0077");
    assert!(status.ends_with("ok\n"), "{status}");
}

fn ambient_capabilities_survive_a_change_of_user() {
    let mut bundle = Bundle::new("cat /proc/self/status");
    let one = json!(["CAP_NET_BIND_SERVICE"]);
    bundle.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    bundle.spec["process"]["capabilities"] = json!({ "bounding": one, "effective": one, "permitted": one, "inheritable": one, "ambient": one });
    let status = bundle.output();
    assert_eq!(field(&status, "CapAmb"), "0000000000000400");
    assert_eq!(field(&status, "CapEff"), "0000000000000400");
}

fn the_filter_is_loaded_with_and_without_new_privileges() {
    for no_new_privileges in [true, false] {
        for user in [0, 1000] {
            let mut bundle = Bundle::new("cat /proc/self/status; mkdir /tmp/x || echo refused");
            bundle.spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
            bundle.spec["process"]["user"] = json!({ "uid": user, "gid": user });
            bundle.spec["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }]
            });
            bundle.spec["root"]["readonly"] = json!(false);
            fs::set_permissions(
                bundle.rootfs().join("tmp"),
                std::os::unix::fs::PermissionsExt::from_mode(0o1777),
            )
            .expect("chmod");
            let status = bundle.output();
            assert_eq!(field(&status, "Seccomp"), "2");
            assert_eq!(
                field(&status, "NoNewPrivs"),
                if no_new_privileges { "1" } else { "0" }
            );
            assert!(status.ends_with("refused\n"), "{status}");
        }
    }
}

fn masked_and_readonly_paths_hold() {
    let mut bundle = Bundle::new(
        "cat /proc/keys /proc/timer_list /secret/file | wc -c; ls -A /sys/firmware /secretdir | tr -d '\\n'; \
         (echo 1 >/proc/sys/kernel/domainname) 2>/dev/null || echo readonly; \
         (echo h >/proc/sysrq-trigger) 2>/dev/null || echo readonly; (echo x >/secretdir/y) 2>/dev/null || echo readonly; \
         touch /ro/x 2>/dev/null || echo readonly",
    );
    for directory in ["secret", "secretdir", "ro"] {
        fs::create_dir(bundle.rootfs().join(directory)).expect("mkdir");
    }
    fs::write(bundle.rootfs().join("secret/file"), "secret").expect("write");
    fs::write(bundle.rootfs().join("secretdir/file"), "secret").expect("write");
    bundle.spec["root"]["readonly"] = json!(false);
    let linux = &mut bundle.spec["linux"];
    linux["maskedPaths"].as_array_mut().expect("list").extend([
        json!("/secret/file"),
        json!("/secretdir"),
        json!("/nosuch"),
    ]);
    linux["readonlyPaths"]
        .as_array_mut()
        .expect("list")
        .extend([json!("/ro"), json!("/nosuch/either")]);
    assert_eq!(
        bundle.output(),
        "0\n/secretdir:/sys/firmware:readonly\nreadonly\nreadonly\nreadonly\n"
    );
}

fn the_root_can_be_readonly() {
    let mut bundle =
        Bundle::new("touch /x 2>/dev/null || echo readonly; touch /dev/shm/x && echo writable");
    assert_eq!(bundle.output(), "readonly\nwritable\n");
    bundle.spec["root"]["readonly"] = json!(false);
    assert_eq!(bundle.output(), "writable\n");
    assert!(bundle.rootfs().join("x").exists());
}

fn the_cgroup_limits() {
    let mut bundle = Bundle::new(
        "cat /proc/self/cgroup; for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait; echo end",
    );
    bundle.spec["linux"]["resources"]["pids"] = json!({ "limit": 4 });
    bundle.spec["linux"]["resources"]["memory"] = json!({ "limit": 33_554_432 });
    let ran = bundle.run();
    assert!(
        ran.stderr.contains("can't fork"),
        "{} {}",
        ran.stdout,
        ran.stderr
    );
    for line in ran.stdout.lines().filter(|line| line.contains(':')) {
        assert!(line.ends_with(":/"), "{line}");
    }
    // Memory: a shell variable that grows beyond the limit ends the container.
    let mut bundle = Bundle::new("x=0123456789abcdef; while true; do x=$x$x; done");
    bundle.spec["linux"]["resources"]["memory"] =
        json!({ "limit": 16_777_216, "swap": 16_777_216 });
    assert_eq!(bundle.run().code, 137);
}

fn only_allowed_devices_can_be_used() {
    let mut bundle = Bundle::new(
        "echo x >/dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c; \
         mknod /tmp/kmsg c 1 11 && (cat /tmp/kmsg >/dev/null) 2>&1; ls /dev | tr '\\n' ' '; readlink /dev/ptmx; readlink /dev/fd",
    );
    bundle.mount("/tmp", "tmpfs", "tmpfs", &[]);
    let all = json!(["CAP_MKNOD", "CAP_DAC_OVERRIDE"]);
    bundle.spec["process"]["capabilities"] =
        json!({ "bounding": all, "effective": all, "permitted": all });
    let output = bundle.run().stdout;
    assert!(output.starts_with("4\n4\n"), "{output}");
    assert!(output.contains("Operation not permitted"), "{output}");
    assert!(
        output.contains(
            "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
        ),
        "{output}"
    );
    assert!(output.ends_with("pts/ptmx\n/proc/self/fd\n"), "{output}");
}

fn rlimits_and_umask_are_set() {
    let mut bundle = Bundle::new("ulimit -n; ulimit -c; umask");
    bundle.spec["process"]["rlimits"] = json!([
        { "type": "RLIMIT_NOFILE", "soft": 77, "hard": 88 },
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }
    ]);
    assert_eq!(bundle.output(), "77\n0\n0022\n");
}

fn a_hard_limit_that_cannot_be_raised_is_named() {
    // Above the kernel's own ceiling (fs.nr_open), so that the test holds with every set of privileges.
    let mut bundle = Bundle::new("true");
    bundle.spec["process"]["rlimits"] =
        json!([{ "type": "RLIMIT_NOFILE", "soft": 2_000_000_000u64, "hard": 2_000_000_000u64 }]);
    let ran = bundle.run();
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("error setting rlimits for ready process: error setting rlimit type 7: operation not permitted"), "{}", ran.stderr);
}

fn no_descriptor_of_the_host_is_left() {
    let bundle = Bundle::new("ls /proc/self/fd | tr '\\n' ' '");
    // 3 is the directory that `ls` reads.
    assert_eq!(bundle.output(), "0 1 2 3 ");
}

fn home_comes_from_passwd() {
    let mut bundle = Bundle::new("echo $HOME");
    for (user, env, home) in [
        (0, "X=1", "/root"),
        (1000, "X=1", "/home/user"),
        (7, "X=1", "/"),
        (0, "HOME=/h", "/h"),
    ] {
        bundle.spec["process"]["user"] = json!({ "uid": user, "gid": 0 });
        bundle.spec["process"]["env"] = json!(["PATH=/bin", env]);
        assert_eq!(bundle.output().trim_end(), home);
    }
}

fn scheduling_is_set() {
    let mut bundle = Bundle::new("cat /proc/self/stat; cat /proc/self/oom_score_adj");
    bundle.spec["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 5 });
    bundle.spec["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 });
    bundle.spec["process"]["oomScoreAdj"] = json!(321);
    let output = bundle.output();
    let (stat, adjustment) = output.trim_end().split_once('\n').expect("two lines");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("stat").1.split(' ').collect();
    assert_eq!((fields[16], fields[38]), ("5", "3"), "{stat}");
    assert_eq!(adjustment, "321");
}
