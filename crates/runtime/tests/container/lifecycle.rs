//! create, start, kill, delete and what they say.

use std::fs;

use serde_json::{Value, json};

use super::Test;
use super::bundle::{Bundle, eventually, text};

pub const TESTS: &[Test] = &[
    ("exit_codes_come_through", exit_codes_come_through),
    (
        "programs_that_cannot_run_are_told_in_runcs_words",
        programs_that_cannot_run_are_told_in_runcs_words,
    ),
    (
        "a_created_container_waits_for_its_start",
        a_created_container_waits_for_its_start,
    ),
    (
        "what_the_kernel_does_not_execute_is_told_by_the_container",
        what_the_kernel_does_not_execute_is_told_by_the_container,
    ),
    ("delete_leaves_nothing", delete_leaves_nothing),
    (
        "delete_refuses_a_running_container",
        delete_refuses_a_running_container,
    ),
    ("an_id_is_used_once", an_id_is_used_once),
    (
        "pause_stops_and_resume_goes_on",
        pause_stops_and_resume_goes_on,
    ),
    ("list_and_ps_show_what_runs", list_and_ps_show_what_runs),
    ("errors_are_logged_as_json", errors_are_logged_as_json),
    ("debug_tells_the_steps", debug_tells_the_steps),
    (
        "orphans_are_adopted_unless_told",
        orphans_are_adopted_unless_told,
    ),
    ("what_is_not_done_is_refused", what_is_not_done_is_refused),
    (
        "a_failed_create_leaves_nothing",
        a_failed_create_leaves_nothing,
    ),
    ("limits_can_be_changed", limits_can_be_changed),
];

fn exit_codes_come_through() {
    for (script, code) in [("true", 0), ("exit 7", 7), ("kill -9 $$; sleep 9", 137)] {
        let mut bundle = Bundle::new(script);
        if script.starts_with("kill") {
            // The init of a PID namespace does not die of its own signals.
            bundle.without_namespace("pid");
        }
        assert_eq!(bundle.run().code, code, "{script}");
    }
    assert_eq!(Bundle::new("echo out; echo err >&2").run().stdout, "out\n");
}

fn programs_that_cannot_run_are_told_in_runcs_words() {
    let prefix =
        "runc run failed: unable to start container process: error during container init: ";
    for (program, words) in [
        (
            "nosuch",
            r#"exec: "nosuch": executable file not found in $PATH"#,
        ),
        (
            "/nosuch",
            r#"exec: "/nosuch": stat /nosuch: no such file or directory"#,
        ),
        ("/etc", r#"exec: "/etc": is a directory"#),
        ("/etc/passwd", r#"exec: "/etc/passwd": permission denied"#),
    ] {
        let mut bundle = Bundle::new("");
        bundle.spec["process"]["args"] = json!([program]);
        let ran = bundle.run();
        assert_eq!(ran.code, 1);
        assert_eq!(ran.stderr.trim_end(), format!("{prefix}{words}"));
        assert_eq!(bundle.cgroups(), [] as [std::path::PathBuf; 0]);
    }
    let mut bundle = Bundle::new("pwd");
    bundle.spec["process"]["cwd"] = json!("/etc/passwd/x");
    let ran = bundle.run();
    assert!(
        ran.stderr.contains(
            r#"chdir to cwd ("/etc/passwd/x") set in config.json failed: not a directory"#
        ),
        "{}",
        ran.stderr
    );
}

fn a_created_container_waits_for_its_start() {
    let bundle = Bundle::new("echo started; sleep 60");
    assert_eq!(bundle.create().code, 0, "{}", bundle.errors());
    assert_eq!(bundle.status(), "created");
    assert!(
        bundle
            .state_root()
            .join(&bundle.id)
            .join("exec.fifo")
            .exists()
    );
    let pid: i32 = fs::read_to_string(bundle.path.join("pid"))
        .expect("pid file")
        .parse()
        .expect("a number");
    let exe = fs::read_link(format!("/proc/{pid}/exe")).expect("the init runs");
    assert_ne!(
        exe.file_name().and_then(|name| name.to_str()),
        Some("busybox")
    );
    assert_eq!(bundle.printed(), "");
    assert_eq!(bundle.runtime(&["start", &bundle.id]).code, 0);
    eventually("the program prints", || bundle.printed() == "started\n");
    assert_eq!(bundle.status(), "running");
    let again = bundle.runtime(&["start", &bundle.id]);
    assert_eq!(again.code, 1);
    assert!(
        again
            .stderr
            .contains("cannot start an already running container"),
        "{}",
        again.stderr
    );
    assert_eq!(bundle.runtime(&["kill", &bundle.id, "KILL"]).code, 0);
    eventually("it stops", || bundle.status() == "stopped");
    let late = bundle.runtime(&["kill", &bundle.id, "KILL"]);
    assert!(
        late.stderr.contains("container not running"),
        "{}",
        late.stderr
    );
}

fn what_the_kernel_does_not_execute_is_told_by_the_container() {
    let of_garbage = || {
        let mut bundle = Bundle::new("");
        let garbage = bundle.rootfs().join("bin/garbage");
        fs::write(&garbage, "not a program").expect("write");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&garbage, mode).expect("chmod");
        bundle.spec["process"]["args"] = json!(["garbage"]);
        bundle
    };
    let ran = of_garbage().run();
    assert_eq!(ran.code, 255);
    assert_eq!(ran.stderr, "exec /bin/garbage: exec format error\n");
    let bundle = of_garbage();
    assert_eq!(bundle.create().code, 0, "{}", bundle.errors());
    let started = bundle.runtime(&["start", &bundle.id]);
    assert_eq!(started.code, 0, "{}", started.stderr);
    eventually("it stops", || bundle.status() == "stopped");
}

fn delete_leaves_nothing() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let bundle = Bundle::new("sleep 60 & sleep 60");
    bundle.start();
    assert!(!bundle.cgroups().is_empty());
    let pid = fs::read_to_string(bundle.path.join("pid")).expect("pid file");
    assert_eq!(bundle.runtime(&["delete", "--force", &bundle.id]).code, 0);
    assert_eq!(bundle.cgroups(), [] as [std::path::PathBuf; 0]);
    assert!(!bundle.state_root().join(&bundle.id).exists());
    eventually("the init is gone", || {
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    });
    assert_eq!(
        fs::read_to_string("/proc/self/mountinfo").expect("mounts"),
        mounts
    );
    let gone = bundle.runtime(&["state", &bundle.id]);
    assert_eq!(
        (gone.code, gone.stderr.trim_end()),
        (1, "container does not exist")
    );
    assert_eq!(
        bundle.runtime(&["delete", "--force", &bundle.id]).code,
        0,
        "force does not mind"
    );
    assert_eq!(bundle.runtime(&["delete", &bundle.id]).code, 1);
}

fn delete_refuses_a_running_container() {
    let bundle = Bundle::new("sleep 60");
    bundle.start();
    let refused = bundle.runtime(&["delete", &bundle.id]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("that is not stopped: running"),
        "{}",
        refused.stderr
    );
    assert_eq!(bundle.status(), "running");
    assert_eq!(bundle.runtime(&["kill", "--all", &bundle.id, "9"]).code, 0);
    eventually("it stops", || bundle.status() == "stopped");
    assert_eq!(bundle.runtime(&["delete", &bundle.id]).code, 0);
}

fn an_id_is_used_once() {
    let bundle = Bundle::new("sleep 60");
    bundle.start();
    let again = bundle.runtime(&["create", "-b", text(&bundle.path), &bundle.id]);
    assert_eq!(again.code, 1);
    assert!(
        again
            .stderr
            .contains("container with given ID already exists"),
        "{}",
        again.stderr
    );
    assert_eq!(bundle.status(), "running");
    let bad = bundle.runtime(&["create", "-b", text(&bundle.path), "../x"]);
    assert!(bad.stderr.contains("container id format"), "{}", bad.stderr);
}

fn pause_stops_and_resume_goes_on() {
    let bundle = Bundle::new("while true; do echo x; sleep 0.02; done");
    bundle.start();
    eventually("it prints", || !bundle.printed().is_empty());
    assert_eq!(bundle.runtime(&["pause", &bundle.id]).code, 0);
    assert_eq!(bundle.status(), "paused");
    let length = bundle.printed().len();
    std::thread::sleep(std::time::Duration::from_millis(150));
    assert_eq!(bundle.printed().len(), length);
    let exec = bundle.exec(&[&bundle.id, "true"]);
    assert!(
        exec.stderr.contains("cannot exec in a paused container"),
        "{}",
        exec.stderr
    );
    assert_eq!(bundle.runtime(&["resume", &bundle.id]).code, 0);
    eventually("it prints again", || bundle.printed().len() > length);
    assert_eq!(bundle.runtime(&["pause", &bundle.id]).code, 0);
    assert_eq!(
        bundle.runtime(&["delete", "-f", &bundle.id]).code,
        0,
        "a frozen container can be deleted"
    );
    assert!(bundle.cgroups().is_empty());
}

fn list_and_ps_show_what_runs() {
    let bundle = Bundle::new("sleep 60 & sleep 60 & echo ready; sleep 60");
    bundle.start();
    eventually("it prints", || bundle.printed() == "ready\n");
    let ids = bundle.runtime(&["list", "-q"]);
    assert_eq!(ids.stdout.trim_end(), bundle.id);
    let table = bundle.runtime(&["list"]).stdout;
    assert!(
        table.starts_with("ID ") && table.contains("running") && table.contains("OWNER"),
        "{table}"
    );
    let json: Value =
        serde_json::from_str(&bundle.runtime(&["list", "-f", "json"]).stdout).expect("JSON");
    assert_eq!(json[0]["id"], json!(bundle.id));
    eventually("three processes", || {
        let pids = bundle.runtime(&["ps", "-f", "json", &bundle.id]).stdout;
        serde_json::from_str::<Vec<i32>>(&pids).expect("JSON").len() == 3
    });
}

fn errors_are_logged_as_json() {
    let bundle = Bundle::new("true");
    let log = bundle.path.join("log.json");
    let ran = bundle.runtime(&[
        "--log",
        text(&log),
        "--log-format",
        "json",
        "start",
        "nosuch",
    ]);
    assert_eq!(ran.code, 1);
    let line: Value = serde_json::from_str(&fs::read_to_string(&log).expect("log")).expect("JSON");
    assert_eq!(
        (&line["level"], &line["msg"]),
        (&json!("error"), &json!("container does not exist"))
    );
}

fn debug_tells_the_steps() {
    let bundle = Bundle::new("exit 3");
    bundle.write();
    let log = bundle.path.join("log");
    let run = |more: &[&str]| {
        let flags = ["--log", text(&log)];
        let words = ["run", "-b", text(&bundle.path), &bundle.id];
        assert_eq!(bundle.runtime(&[&flags, more, &words].concat()).code, 3);
        fs::read_to_string(&log).unwrap_or_default()
    };
    assert_eq!(run(&[]), "");
    let lines = run(&["--debug"]);
    for step in [
        "level=debug msg=\"runtime [\\\"run\\\"",
        &format!(
            "level=debug msg=\"container {} of {}: init ",
            bundle.id,
            text(&bundle.path)
        ),
        "level=debug msg=\"exit code 3\"",
    ] {
        assert!(lines.contains(step), "no `{step}` in\n{lines}");
    }
    let ran = bundle.runtime(&["--debug", "--log-format", "json", "list", "-q"]);
    assert!(
        ran.stderr.contains("\"level\":\"debug\""),
        "without a log they go to {}",
        ran.stderr
    );
    let ran = bundle.runtime(&["--criu", "/bin/criu", "list"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            0,
            "WARNING: --criu ignored (criu binary from $PATH is used); do not use\n"
        )
    );
}

fn orphans_are_adopted_unless_told() {
    let parents = |flags: &[&str]| {
        // The inner shell is left by its parent and tells who takes it; the outer one's parent is the runtime.
        let mut bundle = Bundle::new(
            "sh -c 'sh -c \"sleep 0.3; grep PPid /proc/\\$\\$/status\" &'; grep PPid /proc/$$/status; sleep 0.8; ps -o stat | grep -c Z",
        );
        bundle.without_namespace("pid");
        bundle.write();
        let words = ["run", "-b", text(&bundle.path)];
        let ran = bundle.runtime(&[&words, flags, &[&bundle.id]].concat());
        let lines: Vec<String> = ran.stdout.lines().take(2).map(str::to_owned).collect();
        assert_eq!(lines.len(), 2, "{} {}", ran.stdout, ran.stderr);
        (lines[0].clone(), lines[1].clone())
    };
    let (runtime, adopter) = parents(&[]);
    assert_eq!(runtime, adopter);
    let (runtime, adopter) = parents(&["--no-subreaper"]);
    assert_ne!(runtime, adopter);
}

fn what_is_not_done_is_refused() {
    let bundle = Bundle::new("true");
    for (arguments, word) in [
        (&["--systemd-cgroup", "list"][..], "--systemd-cgroup"),
        (&["--nosuch"], "nosuch"),
        (&["checkpoint", "x"], "checkpoint"),
        (&["exec", "--cgroup", "/x", "id", "true"], "--cgroup"),
        (&["frobnicate"], "frobnicate"),
    ] {
        let ran = bundle.runtime(arguments);
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains(word), "{}", ran.stderr);
    }
    assert_eq!(bundle.runtime(&["--systemd-cgroup=false", "list"]).code, 0);
    for (object, field, value) in [
        ("process", "execCPUAffinity", json!({ "initial": "0" })),
        ("linux", "intelRdt", json!({ "closID": "x" })),
        ("linux", "netDevices", json!({ "eth9": {} })),
        ("linux", "mountLabel", json!("x")),
        ("linux", "memoryPolicy", json!({ "mode": "MPOL_BIND" })),
    ] {
        let mut bundle = Bundle::new("true");
        bundle.spec[object][field] = value;
        let ran = bundle.run();
        assert_eq!(ran.code, 1, "{field}");
        assert!(ran.stderr.contains(field), "{field}: {}", ran.stderr);
    }
}

fn a_failed_create_leaves_nothing() {
    let mut bundle = Bundle::new("true");
    bundle.mount("/x", "bind", "/nosuch/source", &["bind"]);
    let ran = bundle.create();
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("/nosuch/source"), "{}", ran.stderr);
    assert!(bundle.cgroups().is_empty());
    assert!(!bundle.state_root().join(&bundle.id).exists());
}

fn limits_can_be_changed() {
    let bundle = Bundle::new("sleep 60");
    bundle.start();
    let ran = bundle.runtime(&[
        "update",
        "--pids-limit",
        "33",
        "--memory",
        "64m",
        &bundle.id,
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let found = bundle
        .cgroups()
        .iter()
        .find_map(|path| fs::read_to_string(path.join("pids.max")).ok());
    assert_eq!(found.as_deref(), Some("33\n"));
}
