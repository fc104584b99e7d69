//! The leak check reports a planted leak of each kind, and nothing where there is none.
//!
//! No engine runs here: the files and kernel objects are made by hand, in namespaces of the test's own. Needs root.

use std::fs;
use std::path::Path;
use std::process::Command;

use gantry_testkit::engine::Places;
use gantry_testkit::leak;
use gantry_testkit::space::Space;
use gantry_testkit::wait::eventually;

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const GHOST: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

struct Planted {
    places: Places,
    space: Space,
    _directory: tempfile::TempDir,
}

/// One running container with everything it may own.
fn healthy() -> Planted {
    let space = Space::hold();
    let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let (data_root, exec_root) = (directory.path().join("data"), directory.path().join("run"));
    for below in [
        "records/container",
        "content/sha256",
        "content/ingest",
        "snapshots/7/work",
        "snapshots/3/fs",
        "snapshots/trash",
    ] {
        fs::create_dir_all(data_root.join(below)).expect("a directory");
    }
    fs::create_dir_all(data_root.join("containers").join(ID)).expect("a directory");
    for below in ["shims", "runtime"] {
        fs::create_dir_all(exec_root.join(below)).expect("a directory");
    }
    fs::write(exec_root.join(format!("shims/{ID}.sock")), "").expect("a file");
    fs::create_dir(exec_root.join("runtime").join(ID)).expect("a directory");
    fs::write(data_root.join("engine-id"), "0123456789abcdef").expect("a file");
    let record = serde_json::json!({"kind": "container", "version": 1, "revision": 1, "data": {
        "id": ID, "snapshot": 7, "state": {"status": "running"},
        "acquired": {"endpoints": [{"ipv4": "172.17.0.2"}], "ports": [{"host_port": 8080}]},
    }});
    fs::write(
        data_root.join(format!("records/container/{ID}.json")),
        record.to_string(),
    )
    .expect("a file");
    space.script(&format!(
        "ip link add veth1 type veth peer name peer1; ip link set veth1 alias gantry:0123456789ab:{ID}
         nft add table inet gantry-0123456789ab
         nft 'add map inet gantry-0123456789ab published {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}'
         nft 'add element inet gantry-0123456789ab published {{ tcp . 8080 : 172.17.0.2 . 80 }}'"
    ));
    let places = Places {
        data_root,
        exec_root,
        cgroup_parent: format!("gantry-leak-{}", space.pid()),
        host_pid: space.pid(),
    };
    Planted {
        places,
        space,
        _directory: directory,
    }
}

#[track_caller]
fn check(planted: &Planted, expected: &str) {
    let leaks = leak::find(&planted.places);
    assert!(
        leaks.len() == 1 && leaks[0].contains(expected),
        "expected one leak with `{expected}`, found {leaks:#?}"
    );
}

#[test]
fn a_healthy_engine_has_no_leak() {
    let planted = healthy();
    assert_eq!(leak::find(&planted.places), Vec::<String>::new());
}

#[test]
fn a_stopped_container_owns_nothing_of_the_kernel() {
    let planted = healthy();
    let path = planted
        .places
        .data_root
        .join(format!("records/container/{ID}.json"));
    let record = fs::read_to_string(&path)
        .expect("a record")
        .replace("running", "exited");
    fs::write(path, record).expect("a record");
    let leaks = leak::find(&planted.places);
    for expected in ["interface veth1", "nftables element", "shims/", "runtime/"] {
        assert!(
            leaks.iter().any(|leak| leak.contains(expected)),
            "`{expected}` is not among {leaks:#?}"
        );
    }
}

#[test]
fn a_mount_is_reported() {
    let planted = healthy();
    let point = planted.places.data_root.join("snapshots/3/fs");
    planted
        .space
        .script(&format!("mount -t tmpfs none {}", point.display()));
    check(&planted, "mount ");
}

#[test]
fn a_volume_is_mounted_for_a_running_container_alone() {
    let planted = healthy();
    let (record, volumes) = (
        planted
            .places
            .data_root
            .join(format!("records/container/{ID}.json")),
        planted.places.data_root.join("volumes"),
    );
    let text = fs::read_to_string(&record).expect("a record");
    let held = text.replace("\"acquired\":{", "\"acquired\":{\"volumes\":[\"used\"],");
    assert_ne!(text, held);
    fs::write(&record, held).expect("a record");
    let records = planted.places.data_root.join("records/volume");
    fs::create_dir_all(&records).expect("a directory");
    for volume in ["used", "unused"] {
        fs::create_dir_all(volumes.join(volume).join("_data")).expect("a directory");
        fs::write(records.join(format!("{volume}.json")), "{}").expect("a record");
    }
    let mount = |volume: &str| {
        let place = volumes.join(volume).join("_data");
        planted
            .space
            .script(&format!("mount -t tmpfs none {}", place.display()));
    };
    mount("used");
    assert_eq!(leak::find(&planted.places), Vec::<String>::new());
    mount("unused");
    check(&planted, "volumes/unused/_data");
}

#[test]
fn a_volume_without_a_record_is_reported() {
    let planted = healthy();
    fs::create_dir_all(planted.places.data_root.join("volumes/stray/_data")).expect("a directory");
    check(&planted, "volumes/stray");
}

#[test]
fn a_network_namespace_file_is_reported() {
    let planted = healthy();
    fs::create_dir_all(planted.places.exec_root.join("netns")).expect("a directory");
    fs::write(planted.places.exec_root.join("netns").join(GHOST), "").expect("a file");
    check(&planted, "netns/bbbb");
}

#[test]
fn an_interface_is_reported() {
    let planted = healthy();
    planted.space.script(&format!("ip link add veth2 type veth peer name peer2; ip link set veth2 alias gantry:0123456789ab:{GHOST}"));
    check(&planted, "interface veth2 of bbbb");
}

#[test]
fn a_firewall_element_is_reported() {
    let planted = healthy();
    planted.space.script(
        "nft 'add element inet gantry-0123456789ab published { tcp . 9090 : 172.17.0.9 . 80 }'",
    );
    check(&planted, "nftables element tcp . 9090 . 172.17.0.9 . 80");
}

#[test]
fn a_control_group_is_reported() {
    let planted = healthy();
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let hierarchy = mounts
        .lines()
        .filter_map(
            |line| match line.split(' ').collect::<Vec<_>>().as_slice() {
                [_, point, "cgroup", options, ..] if options.contains("freezer") => {
                    Some((*point).to_owned())
                }
                [_, point, "cgroup2", ..] => Some((*point).to_owned()),
                _ => None,
            },
        )
        .next()
        .expect("a cgroup hierarchy");
    let parent = Path::new(&hierarchy).join(&planted.places.cgroup_parent);
    fs::create_dir(&parent)
        .and_then(|()| fs::create_dir(parent.join(GHOST)))
        .expect("a control group");
    let leaks = leak::find(&planted.places);
    let _ = fs::remove_dir(parent.join(GHOST)).and_then(|()| fs::remove_dir(&parent));
    assert!(
        leaks.len() == 1 && leaks[0].starts_with("cgroup "),
        "{leaks:#?}"
    );
}

#[test]
fn snapshots_without_owner_and_trash_are_reported() {
    let planted = healthy();
    fs::create_dir_all(planted.places.data_root.join("snapshots/9/work")).expect("a directory");
    check(&planted, "snapshots/9");
    fs::rename(
        planted.places.data_root.join("snapshots/9"),
        planted.places.data_root.join("snapshots/trash/9"),
    )
    .expect("a rename");
    check(&planted, "snapshots/trash/9");
}

#[test]
fn a_container_directory_without_record_is_reported() {
    let planted = healthy();
    fs::create_dir(planted.places.data_root.join("containers").join(GHOST)).expect("a directory");
    check(&planted, "containers/bbbb");
}

#[test]
fn temporary_files_are_reported() {
    for file in [
        "records/container/.x.7",
        "content/ingest/12",
        ".engine-id",
        "content/sha256/x.partial",
    ] {
        let planted = healthy();
        fs::write(planted.places.data_root.join(file), "").expect("a file");
        check(&planted, "temporary file");
    }
}

#[test]
fn a_shim_without_container_is_reported() {
    let planted = healthy();
    // python runs the file `shim`, so the command line reads `gantry shim ID`.
    let directory = planted
        .places
        .exec_root
        .parent()
        .expect("a parent")
        .to_owned();
    fs::write(directory.join("shim"), "import time\ntime.sleep(1000)\n").expect("a script");
    let mut child = Command::new("nsenter")
        .args([
            format!("--net=/proc/{}/ns/net", planted.space.pid()),
            format!("--mount=/proc/{}/ns/mnt", planted.space.pid()),
        ])
        .args([
            "--",
            "sh",
            "-c",
            &format!("cd {} && exec python3 shim {GHOST}", directory.display()),
        ])
        .spawn()
        .expect("start python3");
    eventually("the shim is reported", || {
        leak::find(&planted.places)
            .iter()
            .any(|leak| leak.starts_with("shim ") && leak.ends_with(GHOST))
    });
    child
        .kill()
        .and_then(|()| child.wait())
        .expect("end python3");
    assert_eq!(leak::find(&planted.places), Vec::<String>::new());
}

#[test]
fn a_port_reserved_for_nobody_and_a_kept_namespace_are_reported() {
    let planted = healthy();
    let directory = planted
        .places
        .exec_root
        .parent()
        .expect("a parent")
        .to_owned();
    let script = "import os, socket, subprocess, time\n\
                  ok = socket.socket(); ok.bind(('127.0.0.1', 8080)); ok.listen()\n\
                  bad = socket.socket(); bad.bind(('127.0.0.1', 9191)); bad.listen()\n\
                  child = subprocess.Popen(['unshare', '--net', 'sleep', '1000'])\n\
                  time.sleep(0.5)\n\
                  kept = os.open(f'/proc/{child.pid}/ns/net', os.O_RDONLY)\n\
                  child.kill()\n\
                  time.sleep(1000)\n";
    fs::write(directory.join("netd"), script).expect("a script");
    let mut child = Command::new("nsenter")
        .args([
            format!("--net=/proc/{}/ns/net", planted.space.pid()),
            format!("--mount=/proc/{}/ns/mnt", planted.space.pid()),
        ])
        .args([
            "--",
            "sh",
            "-c",
            &format!(
                "cd {} && exec python3 netd --exec-root {}",
                directory.display(),
                planted.places.exec_root.display()
            ),
        ])
        .spawn()
        .expect("start python3");
    eventually("both are reported", || {
        let leaks = leak::find(&planted.places);
        leaks.len() == 2
            && leaks.iter().any(|leak| leak == "reserved port 9191")
            && leaks
                .iter()
                .any(|leak| leak.starts_with("network namespace net:["))
    });
    child
        .kill()
        .and_then(|()| child.wait())
        .expect("end python3");
}
