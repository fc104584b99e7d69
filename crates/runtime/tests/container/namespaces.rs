//! Namespaces: new, joined, mapped.

use std::fs;
use std::process::Command;

use serde_json::json;

use super::Test;
use super::bundle::{Bundle, eventually};

pub const TESTS: &[Test] = &[
    ("every_namespace_is_its_own", every_namespace_is_its_own),
    (
        "what_is_not_listed_is_the_callers",
        what_is_not_listed_is_the_callers,
    ),
    (
        "namespaces_are_joined_by_path",
        namespaces_are_joined_by_path,
    ),
    (
        "loopback_is_up_in_a_new_network",
        loopback_is_up_in_a_new_network,
    ),
    ("names_and_parameters_are_set", names_and_parameters_are_set),
    (
        "a_parameter_of_the_host_is_refused",
        a_parameter_of_the_host_is_refused,
    ),
    ("clocks_can_be_offset", clocks_can_be_offset),
    (
        "ids_are_mapped_in_a_user_namespace",
        ids_are_mapped_in_a_user_namespace,
    ),
    (
        "a_user_namespace_can_be_entered",
        a_user_namespace_can_be_entered,
    ),
];

const LIST: &str =
    "for n in pid net ipc uts mnt cgroup user time; do readlink /proc/self/ns/$n; done";

fn own(kind: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{kind}"))
        .expect("namespace")
        .display()
        .to_string()
}

fn every_namespace_is_its_own() {
    let bundle = Bundle::new(&format!(
        "{LIST}; echo $$; cat /proc/self/cgroup; ps | wc -l"
    ));
    let output = bundle.output();
    for kind in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        assert!(output.contains(&format!("{kind}:[")), "{output}");
        assert!(!output.contains(&own(kind)), "{kind}");
    }
    for kind in ["user", "time"] {
        assert!(output.contains(&own(kind)), "{kind}");
    }
    let rest: Vec<&str> = output.lines().skip(8).collect();
    assert_eq!(rest[0], "1");
    let cgroups: Vec<&&str> = rest.iter().filter(|line| line.contains(':')).collect();
    assert!(!cgroups.is_empty());
    assert!(
        cgroups.iter().all(|line| line.ends_with(":/")),
        "{cgroups:?}"
    );
}

fn what_is_not_listed_is_the_callers() {
    let mut bundle = Bundle::new(LIST);
    for kind in ["pid", "network", "ipc", "uts", "cgroup"] {
        bundle.without_namespace(kind);
    }
    bundle
        .spec
        .as_object_mut()
        .expect("spec")
        .remove("hostname");
    let output = bundle.output();
    for kind in ["pid", "net", "ipc", "uts", "cgroup"] {
        assert!(output.contains(&own(kind)), "{kind}");
    }
    bundle.without_namespace("mount");
    assert!(bundle.run().stderr.contains("mount namespace"));
}

fn namespaces_are_joined_by_path() {
    let first = Bundle::new("sleep 60");
    first.start();
    let pid = fs::read_to_string(first.path.join("pid")).expect("pid");
    let mut second = Bundle::new(&format!("{LIST}; echo $$"));
    second
        .spec
        .as_object_mut()
        .expect("spec")
        .remove("hostname");
    for namespace in second.spec["linux"]["namespaces"]
        .as_array_mut()
        .expect("list")
    {
        let kind = namespace["type"].as_str().expect("type").to_owned();
        if let Some(name) = match kind.as_str() {
            "network" => Some("net"),
            "pid" | "ipc" | "uts" => Some(kind.as_str()),
            _ => None,
        } {
            namespace["path"] = json!(format!("/proc/{pid}/ns/{name}"));
        }
    }
    let output = second.output();
    for kind in ["pid", "net", "ipc", "uts"] {
        let theirs = fs::read_link(format!("/proc/{pid}/ns/{kind}"))
            .expect("namespace")
            .display()
            .to_string();
        assert!(output.contains(&theirs), "{kind}: {output}");
    }
    assert_ne!(output.lines().last(), Some("1"));
    assert_eq!(
        own("pid"),
        fs::read_link("/proc/self/ns/pid_for_children")
            .expect("namespace")
            .display()
            .to_string()
    );
    let mut third = Bundle::new("true");
    third.spec["linux"]["namespaces"][0]["path"] = json!("/nosuch");
    let refused = third.run();
    assert!(refused.stderr.contains("/nosuch"), "{refused:?}");
}

fn loopback_is_up_in_a_new_network() {
    assert!(
        Bundle::new("ip addr show lo")
            .output()
            .contains("LOOPBACK,UP")
    );
}

fn names_and_parameters_are_set() {
    let mut bundle = Bundle::new(
        "hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax",
    );
    bundle.spec["hostname"] = json!("a-host");
    bundle.spec["domainname"] = json!("a.domain");
    bundle.spec["linux"]["sysctl"] =
        json!({ "net.ipv4.ip_unprivileged_port_start": "7", "kernel.msgmax": "4444" });
    assert_eq!(bundle.output(), "a-host\na.domain\n7\n4444\n");
}

fn a_parameter_of_the_host_is_refused() {
    let mut bundle = Bundle::new("true");
    bundle.spec["linux"]["sysctl"] = json!({ "kernel.panic": "0" });
    assert!(bundle.run().stderr.contains("kernel.panic"));
    bundle.spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    bundle.without_namespace("network");
    assert!(
        bundle
            .run()
            .stderr
            .contains("not allowed in the hosts namespace")
    );
}

fn clocks_can_be_offset() {
    let mut bundle = Bundle::new("cat /proc/uptime; readlink /proc/self/ns/time");
    bundle.spec["linux"]["namespaces"]
        .as_array_mut()
        .expect("list")
        .push(json!({ "type": "time" }));
    bundle.spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1_000_000_000 } });
    let output = bundle.output();
    assert!(output.starts_with("10000"), "{output}");
    assert!(!output.contains(&own("time")));
}

fn mapped(script: &str) -> Bundle {
    let mut bundle = Bundle::new(script);
    bundle.spec["linux"]["namespaces"]
        .as_array_mut()
        .expect("list")
        .push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    bundle.spec["linux"]["uidMappings"] = map.clone();
    bundle.spec["linux"]["gidMappings"] = map;
    let status = Command::new("chown")
        .args(["-R", "100000:100000"])
        .arg(bundle.rootfs())
        .status()
        .expect("chown");
    assert!(status.success());
    bundle
}

fn ids_are_mapped_in_a_user_namespace() {
    let mut bundle = mapped(
        "cat /proc/self/uid_map; id -u; stat -c %u /etc/passwd; ls -l /dev/null; echo x >/dev/null && echo ok; cat /proc/self/oom_score_adj",
    );
    bundle.spec["process"]["oomScoreAdj"] = json!(100);
    bundle.spec["root"]["readonly"] = json!(false);
    let output = bundle.output();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["0", "100000", "65536"]
    );
    assert_eq!((lines[1], lines[2]), ("0", "0"), "{output}");
    assert!(lines[3].contains("1,   3"), "{output}");
    assert_eq!((lines[4], lines[5]), ("ok", "100"));
    bundle.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    bundle.spec["process"]["args"] = json!(["id", "-u"]);
    assert_eq!(bundle.output(), "1000\n");
    bundle.spec["linux"]
        .as_object_mut()
        .expect("linux")
        .remove("uidMappings");
    assert!(bundle.run().stderr.contains("uidMappings"));
}

fn a_user_namespace_can_be_entered() {
    let mut bundle = mapped("echo ready; sleep 60");
    bundle.spec["process"]["rlimits"] =
        json!([{ "type": "RLIMIT_NOFILE", "soft": 99, "hard": 99 }]);
    bundle.start();
    eventually("it prints", || bundle.printed() == "ready\n");
    let ran = bundle.exec(&[
        &bundle.id,
        "sh",
        "-c",
        "id -u; cat /proc/self/uid_map; ulimit -n",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.starts_with("0\n")
            && ran.stdout.contains("100000")
            && ran.stdout.ends_with("99\n"),
        "{}",
        ran.stdout
    );
}
