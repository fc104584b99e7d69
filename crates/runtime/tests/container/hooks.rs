//! Hooks run in their order, in their places, with the state.

use std::fs;

use serde_json::{Value, json};

use super::Test;
use super::bundle::{Bundle, eventually, text};

pub const TESTS: &[Test] = &[
    (
        "hooks_run_in_their_order_and_places",
        hooks_run_in_their_order_and_places,
    ),
    (
        "a_failing_hook_ends_the_creation",
        a_failing_hook_ends_the_creation,
    ),
    (
        "a_hook_has_no_more_than_its_time",
        a_hook_has_no_more_than_its_time,
    ),
];

fn hook(script: &str) -> Value {
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin", "MARK=m"] }])
}

fn hooks_run_in_their_order_and_places() {
    let mut bundle = Bundle::new("echo program >>/log; sleep 60");
    bundle.spec["root"]["readonly"] = json!(false);
    let log = text(&bundle.rootfs().join("log")).to_owned();
    let own = fs::read_link("/proc/self/ns/mnt")
        .expect("namespace")
        .display()
        .to_string();
    let say = |name: &str| {
        hook(&format!(
            "s=$(cat); echo {name} $MARK $(readlink /proc/self/ns/mnt) \"$s\" >>{log}"
        ))
    };
    bundle.spec["hooks"] = json!({
        "prestart": say("prestart"),
        "createRuntime": say("createRuntime"),
        "createContainer": say("createContainer"),
        "startContainer": hook("s=$(cat); echo startContainer $MARK x \"$s\" >>/log"),
        "poststart": say("poststart"),
        "poststop": say("poststop")
    });
    assert_eq!(bundle.create().code, 0, "{}", bundle.errors());
    let read = || fs::read_to_string(&log).unwrap_or_default();
    let names = |text: &str| {
        text.lines()
            .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&read()),
        ["prestart", "createRuntime", "createContainer"]
    );
    assert_eq!(bundle.runtime(&["start", &bundle.id]).code, 0);
    eventually("all have run", || read().lines().count() == 6);
    assert_eq!(bundle.runtime(&["delete", "-f", &bundle.id]).code, 0);
    let text = read();
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.splitn(4, ' ').collect())
        .collect();
    let find = |name: &str| lines.iter().find(|line| line[0] == name).expect("ran");
    let position = |name: &str| lines.iter().position(|line| line[0] == name).expect("ran");
    assert!(position("startContainer") < position("program"));
    assert_eq!(position("poststop"), 6);
    for (name, status, inside) in [
        ("prestart", "creating", false),
        ("createRuntime", "creating", false),
        ("createContainer", "creating", true),
        ("startContainer", "created", true),
        ("poststart", "running", false),
        ("poststop", "stopped", false),
    ] {
        let line = find(name);
        assert_eq!(line[1], "m");
        if name != "startContainer" {
            assert_eq!(line[2] != own, inside, "{name}");
        }
        let state: Value = serde_json::from_str(line[3]).expect("state");
        assert_eq!(
            (&state["id"], &state["status"]),
            (&json!(bundle.id), &json!(status)),
            "{name}"
        );
        assert_eq!(state["bundle"], json!(bundle.path));
    }
}

fn a_failing_hook_ends_the_creation() {
    for kind in [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
    ] {
        let mut bundle = Bundle::new("echo never");
        bundle.spec["hooks"] = json!({ kind: hook("echo because >&2; exit 3") });
        let ran = bundle.run();
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{kind}");
        let words =
            format!("error running {kind} hook #0: exit status 3, stdout: , stderr: because");
        assert!(ran.stderr.contains(&words), "{}", ran.stderr);
        assert!(bundle.cgroups().is_empty());
    }
    let mut bundle = Bundle::new("echo ran");
    bundle.spec["hooks"] = json!({ "poststart": hook("exit 1") });
    assert_eq!(bundle.output(), "ran\n");
}

fn a_hook_has_no_more_than_its_time() {
    let mut bundle = Bundle::new("true");
    bundle.spec["hooks"] = json!({ "createRuntime": hook("sleep 30") });
    bundle.spec["hooks"]["createRuntime"][0]["timeout"] = json!(1);
    let before = std::time::Instant::now();
    let ran = bundle.run();
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("no end after 1 s"), "{}", ran.stderr);
    assert!(before.elapsed() < std::time::Duration::from_secs(10));
}
