//! Mounts of all kinds.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::Test;
use super::bundle::{Bundle, text};

pub const TESTS: &[Test] = &[
    ("the_usual_mounts_are_there", the_usual_mounts_are_there),
    (
        "directories_and_files_are_bound",
        directories_and_files_are_bound,
    ),
    (
        "recursive_and_plain_readonly_differ",
        recursive_and_plain_readonly_differ,
    ),
    ("options_of_a_bind_hold", options_of_a_bind_hold),
    (
        "options_of_a_file_system_hold_or_are_refused",
        options_of_a_file_system_hold_or_are_refused,
    ),
    ("propagation_is_as_asked", propagation_is_as_asked),
    (
        "a_tmpfs_is_filled_from_the_image",
        a_tmpfs_is_filled_from_the_image,
    ),
    (
        "a_directory_onto_a_file_is_explained",
        a_directory_onto_a_file_is_explained,
    ),
    (
        "the_containers_own_cgroups_are_shown",
        the_containers_own_cgroups_are_shown,
    ),
    ("ids_of_a_bind_are_mapped", ids_of_a_bind_are_mapped),
    (
        "the_host_sees_no_mount_of_a_container",
        the_host_sees_no_mount_of_a_container,
    ),
    (
        "the_root_can_be_moved_instead_of_pivoted",
        the_root_can_be_moved_instead_of_pivoted,
    ),
];

fn the_usual_mounts_are_there() {
    let output = Bundle::new(
        "cat /proc/mounts; stat -f -c %T /dev/shm /dev/mqueue; stat -c %a /dev /dev/shm",
    )
    .output();
    for line in [
        "proc /proc proc",
        "tmpfs /dev tmpfs",
        "devpts /dev/pts devpts",
        "shm /dev/shm tmpfs",
        "mqueue /dev/mqueue",
        "sysfs /sys sysfs ro",
    ] {
        assert!(output.contains(line), "{line}: {output}");
    }
    let devpts = output
        .lines()
        .find(|line| line.starts_with("devpts"))
        .expect("devpts");
    assert!(devpts.contains("gid=5,mode=620,ptmxmode=666"), "{devpts}");
    assert!(output.contains("size=65536k"), "{output}");
    assert!(output.ends_with("755\n1777\n"), "{output}");
    // Nothing of the host's is left beneath the new root.
    assert!(
        !output.contains(text(&std::env::temp_dir().join("gantry-test"))),
        "{output}"
    );
}

fn directories_and_files_are_bound() {
    let mut bundle = Bundle::new(
        "cat /new/dir/file /etc/single /var/link/file; echo out >/new/dir/out; (echo x >/etc/single) 2>/dev/null || echo readonly",
    );
    let source = bundle.path.join("source");
    fs::create_dir(&source).expect("mkdir");
    fs::write(source.join("file"), "dir\n").expect("write");
    fs::write(bundle.path.join("single"), "single\n").expect("write");
    fs::create_dir(bundle.rootfs().join("var")).expect("mkdir");
    symlink("/nowhere/yet", bundle.rootfs().join("var/link")).expect("link");
    bundle.mount("/new/dir", "bind", text(&source), &["rbind", "rprivate"]);
    bundle.mount(
        "/etc/single",
        "bind",
        text(&bundle.path.join("single")),
        &["bind", "ro"],
    );
    bundle.mount("/var/link", "bind", text(&source), &["bind"]);
    assert_eq!(bundle.output(), "dir\nsingle\ndir\nreadonly\n");
    assert_eq!(
        fs::read_to_string(source.join("out")).expect("written"),
        "out\n"
    );
}

fn recursive_and_plain_readonly_differ() {
    for (options, expected) in [
        (&["rbind", "ro"][..], "top\nbelow\n"),
        (&["rbind", "rro"], "top\nno below\n"),
        (&["bind", "ro"], "top\nno mount\n"),
    ] {
        // A mount beneath the source, in a namespace of the test's own.
        let mut bundle = Bundle::new(
            "touch /b/x 2>/dev/null || echo top; if test -e /b/sub/mark; then touch /b/sub/x 2>/dev/null && echo below || echo no below; else echo no mount; fi",
        );
        let source = bundle.path.join("source");
        fs::create_dir_all(source.join("sub")).expect("mkdir");
        bundle.mount("/b", "bind", text(&source), options);
        bundle.write();
        let script = format!(
            "mount --make-rprivate / && mount -t tmpfs t {0}/sub && touch {0}/sub/mark && exec /proc/self/fd/9 runtime --root {1} run -b {2} {3} 9<&-",
            text(&source),
            text(&bundle.state_root()),
            text(&bundle.path),
            bundle.id
        );
        let script = script
            .replace(
                "/proc/self/fd/9",
                text(&std::env::current_exe().expect("path")),
            )
            .replace(" 9<&-", "");
        let output = std::process::Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .output()
            .expect("unshare");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            expected,
            "{options:?} {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

fn options_of_a_bind_hold() {
    let mut bundle =
        Bundle::new("grep ' /b ' /proc/mounts; /b/busybox true 2>/dev/null || echo noexec");
    bundle.mount(
        "/b",
        "bind",
        text(&bundle.rootfs().join("bin")),
        &["rbind", "nosuid", "nodev", "noexec", "noatime", "ro"],
    );
    let output = bundle.output();
    assert!(
        output.contains(" ro,nosuid,nodev,noexec,noatime"),
        "{output}"
    );
    assert!(output.ends_with("noexec\n"), "{output}");
}

fn options_of_a_file_system_hold_or_are_refused() {
    for option in ["mand", "sync", "dirsync", "lazytime"] {
        let mut bundle = Bundle::new("grep ' /t ' /proc/self/mountinfo");
        bundle.mount("/t", "tmpfs", "tmpfs", &[option]);
        let output = bundle.output();
        assert!(
            output.contains(&format!(" rw,{option}")),
            "{option}: {output}"
        );
    }
    for option in [
        "async",
        "nomand",
        "noiversion",
        "norelatime",
        "loud",
        "silent",
        "defaults",
    ] {
        for kind in ["tmpfs", "bind"] {
            let mut bundle = Bundle::new("grep -c ' /t ' /proc/self/mountinfo");
            bundle.mount("/t", kind, "/etc", &[option]);
            assert_eq!(bundle.output(), "1\n", "{kind} {option}");
        }
    }
    for (kind, option) in [
        ("tmpfs", "iversion"),
        ("tmpfs", "remount"),
        ("tmpfs", "nosuch"),
        ("bind", "mand"),
        ("bind", "sync"),
        ("bind", "iversion"),
    ] {
        let mut bundle = Bundle::new("true");
        bundle.mount("/t", kind, "/etc", &[option]);
        let ran = bundle.run();
        assert_eq!(ran.code, 1, "{kind} {option}");
        assert!(
            ran.stderr.contains(option),
            "{kind} {option}: {}",
            ran.stderr
        );
    }
}

fn propagation_is_as_asked() {
    let mut bundle = Bundle::new("grep -e ' /p ' -e ' /u ' -e ' /s ' /proc/self/mountinfo");
    let source = bundle.rootfs().join("bin");
    for (place, option) in [("/p", "rprivate"), ("/u", "unbindable"), ("/s", "rshared")] {
        bundle.mount(place, "bind", text(&source), &["rbind", option]);
    }
    let output = bundle.output();
    let line = |place: &str| {
        output
            .lines()
            .find(|line| line.contains(place))
            .expect("mount")
            .to_owned()
    };
    assert!(
        !line(" /p ").contains("shared:") && !line(" /p ").contains("unbindable"),
        "{output}"
    );
    assert!(line(" /u ").contains("unbindable"), "{output}");
    assert!(line(" /s ").contains("shared:"), "{output}");
    bundle.spec["linux"]["rootfsPropagation"] = json!("shared");
    bundle.spec["process"]["args"] = json!(["grep", " / / ", "/proc/self/mountinfo"]);
    bundle.spec["process"]["args"] = json!([
        "sh",
        "-c",
        "while read a b c d e f; do test \"$e\" = / && echo $f; done </proc/self/mountinfo; true"
    ]);
    assert!(bundle.output().contains("shared:"));
}

fn a_tmpfs_is_filled_from_the_image() {
    let mut bundle = Bundle::new(
        "cat /data/sub/file; readlink /data/link; stat -c %a:%u /data/sub /data/sub/file /data; touch /data/new && echo writable; grep ' /data ' /proc/mounts",
    );
    let data = bundle.rootfs().join("data");
    fs::create_dir_all(data.join("sub")).expect("mkdir");
    fs::write(data.join("sub/file"), "content\n").expect("write");
    fs::set_permissions(
        data.join("sub/file"),
        std::os::unix::fs::PermissionsExt::from_mode(0o640),
    )
    .expect("chmod");
    std::os::unix::fs::chown(data.join("sub/file"), Some(7), None).expect("chown");
    fs::set_permissions(
        data.join("sub"),
        std::os::unix::fs::PermissionsExt::from_mode(0o710),
    )
    .expect("chmod");
    symlink("sub/file", data.join("link")).expect("link");
    bundle.mount(
        "/data",
        "tmpfs",
        "tmpfs",
        &["tmpcopyup", "size=1m", "nodev"],
    );
    let output = bundle.output();
    assert!(
        output.starts_with("content\nsub/file\n710:0\n640:7\n755:0\nwritable\n"),
        "{output}"
    );
    assert!(output.contains("size=1024k"), "{output}");
    assert!(!data.join("new").exists());
    bundle.spec["mounts"]
        .as_array_mut()
        .expect("mounts")
        .last_mut()
        .expect("mount")["options"] = json!(["ro", "size=1m"]);
    bundle.spec["process"]["args"] =
        json!(["sh", "-c", "touch /data/x 2>/dev/null || echo readonly"]);
    assert_eq!(bundle.output(), "readonly\n");
}

fn a_directory_onto_a_file_is_explained() {
    let mut bundle = Bundle::new("true");
    bundle.mount(
        "/etc/passwd",
        "bind",
        text(&bundle.rootfs().join("bin")),
        &["bind"],
    );
    let ran = bundle.run();
    assert!(
        ran.stderr.contains("to rootfs at \"/etc/passwd\"")
            && ran
                .stderr
                .contains("not a directory: Are you trying to mount a directory onto a file"),
        "{}",
        ran.stderr
    );
}

/// Whether version 2 of cgroups is alone on this machine.
fn is_version_2() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn the_containers_own_cgroups_are_shown() {
    let mut bundle = Bundle::new(
        "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; (mkdir /sys/fs/cgroup/pids/x || mkdir /sys/fs/cgroup/x) 2>/dev/null || echo readonly; ls /sys/fs/cgroup | tr '\\n' ' '",
    );
    bundle.spec["linux"]["resources"]["pids"] = json!({ "limit": 55 });
    let own = bundle.spec.clone();
    for namespace in [true, false] {
        if !namespace {
            bundle.without_namespace("cgroup");
        }
        let output = bundle.output();
        // The one tree of version 2 is shown from the container's cgroup namespace on: from the host's root here.
        let first = if namespace || !is_version_2() {
            "55\nreadonly\n"
        } else {
            "readonly\n"
        };
        assert!(output.starts_with(first), "{output}");
        assert!(output.contains("memory"), "{output}");
    }
    bundle.spec = own;
    let mounts = bundle.spec["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| mount["type"] != "cgroup");
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["rw"]);
    bundle.spec["process"]["args"] = json!([
        "sh",
        "-c",
        "mkdir /sys/fs/cgroup/pids/x 2>/dev/null || mkdir /sys/fs/cgroup/x && echo writable"
    ]);
    assert_eq!(bundle.output(), "writable\n");
    assert!(
        bundle.cgroups().is_empty(),
        "what the container made is removed too"
    );
}

fn ids_of_a_bind_are_mapped() {
    let mut bundle = Bundle::new("stat -c %u:%g /b/file");
    let source = bundle.path.join("source");
    fs::create_dir(&source).expect("mkdir");
    fs::write(source.join("file"), "").expect("write");
    bundle.mount("/b", "bind", text(&source), &["bind"]);
    let mount = bundle.spec["mounts"]
        .as_array_mut()
        .expect("mounts")
        .last_mut()
        .expect("mount");
    let map = json!([{ "containerID": 0, "hostID": 5000, "size": 10 }]);
    mount["uidMappings"] = map.clone();
    mount["gidMappings"] = map;
    assert_eq!(bundle.output(), "5000:5000\n");
}

fn the_host_sees_no_mount_of_a_container() {
    let bundle = Bundle::new("sleep 60");
    let before = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    bundle.start();
    assert_eq!(
        fs::read_to_string("/proc/self/mountinfo").expect("mounts"),
        before
    );
}

fn the_root_can_be_moved_instead_of_pivoted() {
    let bundle = Bundle::new("ls /; cat /proc/self/status");
    bundle.write();
    let ran = bundle.runtime(&["run", "--no-pivot", "-b", text(&bundle.path), &bundle.id]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.starts_with("bin\ndev\netc\n"), "{}", ran.stdout);
}
