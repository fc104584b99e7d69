//! Starts, ends, records, waits, and daemons that come and go.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use gantry_shim::protocol::{
    Event, FailureKind, HoldWait, LogConfig, Reply, Request, WaitCondition,
};
use serde_json::json;

use crate::fixture::*;

#[test]
fn an_end_is_recorded_and_told_with_its_code() {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -9 $$; sleep 9", 137),
        ("kill -15 $$; sleep 9", 143),
    ] {
        // Process 1 of a namespace takes no signal from inside, so a child is shot.
        let script = if script.starts_with("kill") {
            format!("sh -c '{}'; exit $?", script.replace("; sleep 9", ""))
        } else {
            script.to_owned()
        };
        let (record, bundle) = Bundle::new(&script).start().wait();
        assert_eq!(record.code, code, "{script}");
        assert_eq!(bundle.record(), Some(record));
    }
}

#[test]
fn a_signal_reaches_init_and_its_number_becomes_the_code() {
    let mut shim =
        Bundle::new("trap 'exit 3' TERM; echo ready; while true; do sleep 0.01; done").start();
    let log = shim.bundle.request.log.path.clone();
    eventually("the trap is set", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("ready"))
    });
    assert!(matches!(
        shim.ask(&Request::Signal { signal: 15 }),
        Reply::Ok
    ));
    assert_eq!(shim.wait().0.code, 3);

    let mut shim = Bundle::new("sleep 1000").start();
    let state = shim.state();
    assert!(
        state.running && state.pid > 0 && state.start_time_ticks > 0 && state.started_at_ns > 0
    );
    assert!(
        matches!(shim.ask(&Request::Release), Reply::Error { .. }),
        "it runs"
    );
    assert!(matches!(
        shim.ask(&Request::Signal { signal: 9 }),
        Reply::Ok
    ));
    let (record, bundle) = shim.wait();
    assert_eq!(record.code, 137);
    // Nothing is left behind.
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
        let path = hierarchy
            .unwrap()
            .path()
            .join(bundle.request.cgroup.trim_start_matches('/'));
        assert!(!path.exists(), "{}", path.display());
    }
    let state = bundle
        .path()
        .join("state")
        .join(&bundle.request.container_id);
    assert!(!state.exists(), "{}", state.display());
}

#[test]
fn a_program_that_cannot_be_started_is_told_apart() {
    for (args, kind, words) in [
        (
            vec!["nosuch"],
            FailureKind::NotFound,
            "exec: \"nosuch\": executable file not found in $PATH",
        ),
        (
            vec!["/nosuch"],
            FailureKind::NotFound,
            "exec: \"/nosuch\": stat /nosuch: no such file or directory",
        ),
        // Older runcs say `permission denied`.
        (
            vec!["/etc"],
            FailureKind::NotExecutable,
            if is_foreign() {
                "exec: \"/etc\": "
            } else {
                "exec: \"/etc\": is a directory"
            },
        ),
    ] {
        let (near, attached) = client(|_| ());
        let (mut shim, reply) = Bundle::with_args(&args).start_with(vec![attached]);
        let Reply::StartFailed(failure) = reply else {
            panic!("{reply:?}")
        };
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(failure.message.contains(words), "{failure:?}");
        // The client is let go and the shim ends by itself.
        assert_eq!(read_all(&mut { near }), b"");
        shim.client = None;
        let bundle = shim.gone();
        assert_eq!(bundle.record(), None);
    }
}

#[test]
fn a_daemon_that_returns_finds_everything_as_it_was() {
    let (mut near, attached) = client(|_| ());
    let mut bundle = Bundle::new("cat; exit 5");
    (bundle.request.open_stdin, bundle.request.stdin_once) = (true, true);
    let mut shim = bundle.start_attached(vec![attached]);
    let pid = shim.state().pid;
    write(&mut near, b"one\n");
    assert_eq!(read_until(&mut near, "one\n"), "one\n");
    shim.disconnect();
    std::thread::sleep(Duration::from_millis(50));
    write(&mut near, b"two\n");
    assert_eq!(read_until(&mut near, "two\n"), "two\n");
    shim.reconnect();
    let state = shim.state();
    assert_eq!(
        (state.pid, state.attached, state.stdin_open),
        (pid, 1, true)
    );
    half_close(&near);
    assert_eq!(shim.exited().code, 5);
    assert_eq!(read_all(&mut near), b"");
    // A second daemon is told again what the first may not have kept.
    shim.reconnect();
    let (record, bundle) = shim.wait();
    assert_eq!(record.code, 5);
    assert_eq!(bundle.log_texts(), ["one\n", "two\n"]);
}

#[test]
fn the_newest_daemon_wins() {
    let mut shim = Bundle::new("sleep 1000").start();
    let mut old = shim.client.take().unwrap();
    shim.reconnect();
    assert!(old.call(&Request::State, vec![]).is_err());
    shim.ask(&Request::Signal { signal: 9 });
    shim.wait();
}

#[test]
fn a_container_ends_without_a_daemon() {
    let mut shim = Bundle::new("sleep 0.2; exit 9").start();
    shim.disconnect();
    let bundle = shim.gone();
    assert_eq!(bundle.record().unwrap().code, 9);
}

fn hold(shim: &mut Shim, condition: WaitCondition) -> UnixStream {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_read_timeout(Some(TIMEOUT)).unwrap();
    let wait = HoldWait {
        condition,
        ..HoldWait::default()
    };
    let (reply, _) = shim
        .client()
        .call(&Request::HoldWait(wait), vec![OwnedFd::from(far)])
        .unwrap();
    assert!(matches!(reply, Reply::Ok));
    near
}

#[test]
fn held_waits_are_finished_only_if_the_daemon_is_gone() {
    const BODY: &[u8] = b"11\r\n{\"StatusCode\":4}\n\r\n0\r\n\r\n";
    let conditions = [
        WaitCondition::NotRunning,
        WaitCondition::NextExit,
        WaitCondition::Removed,
    ];
    // The daemon is gone before the end.
    let mut shim = Bundle::new("sleep 0.2; exit 4").start();
    let mut waits: Vec<_> = conditions
        .into_iter()
        .map(|condition| hold(&mut shim, condition))
        .collect();
    shim.disconnect();
    for wait in &mut waits {
        assert_eq!(read_all(wait), BODY.strip_prefix(b"").unwrap());
    }
    shim.gone();
    // The daemon dies after the event and before it has answered.
    let mut shim = Bundle::new("sleep 0.2; exit 4").start();
    let mut wait = hold(&mut shim, WaitCondition::NextExit);
    assert_eq!(shim.exited().code, 4);
    shim.disconnect();
    assert_eq!(read_all(&mut wait), BODY);
    shim.gone();
    // The daemon has answered.
    let mut shim = Bundle::new("sleep 0.2; exit 4").start();
    let mut wait = hold(&mut shim, WaitCondition::NextExit);
    shim.wait();
    assert_eq!(read_all(&mut wait), b"");
}

#[test]
fn a_killed_shim_leaves_no_record() {
    let mut shim = Bundle::new("sleep 1000").start();
    let pid = shim.state().pid;
    rustix::process::pidfd_send_signal(&shim.spawned.pidfd, rustix::process::Signal::KILL).unwrap();
    shim.spawned.child.wait().unwrap();
    assert_eq!(shim.bundle.record(), None);
    // What the engine does then: kill by cgroup, remove.
    let layout = gantry_sys::cgroup::Layout::detect().unwrap();
    let cgroup = gantry_sys::cgroup::Cgroup::open(&layout, &shim.bundle.request.cgroup).unwrap();
    assert!(cgroup.pids().unwrap().contains(&pid));
    cgroup.kill().unwrap();
    eventually("the cgroup can be removed", || cgroup.remove().is_ok());
}

#[test]
fn running_out_of_memory_is_told_and_counted() {
    let mut bundle = Bundle::new("head -c 200m /dev/zero | tail -c 150m > /dev/null; exit 3");
    bundle.spec["linux"]["resources"] = json!({"memory": {"limit": 20 << 20}});
    bundle.spec["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/dev/zero", "type": "bind", "source": "/dev/zero", "options": ["bind", "rw"]
    }));
    let mut shim = bundle.start();
    let count = shim.event(|event| match event {
        Event::Oom { count } => Some(*count),
        _ => None,
    });
    assert!(count >= 1);
    let (record, bundle) = shim.wait();
    assert!(record.oom_kills >= 1, "{record:?}");
    assert_eq!(bundle.record().unwrap().oom_kills, record.oom_kills);
}

#[test]
fn a_process_that_shares_the_hosts_processes_leaves_none_behind() {
    let mut bundle = Bundle::new("sleep 1000 & echo $!; exit 0");
    bundle.spec["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|one| one["type"] != "pid");
    let (record, bundle) = bundle.start().wait();
    assert_eq!(record.code, 0);
    let pid = bundle.log_texts()[0].trim().to_owned();
    eventually("the process left behind is killed", || {
        !std::path::Path::new("/proc").join(&pid).exists()
    });
}

#[test]
fn init_forwards_signals_reaps_and_passes_the_code_on() {
    if is_foreign() {
        return;
    }
    let mut bundle = Bundle::new(
        "trap 'exit 6' TERM; (sleep 0.1 &) ; echo ready; while true; do sleep 0.01; done",
    );
    bundle.request.init = true;
    let mut shim = bundle.start();
    let log = shim.bundle.request.log.path.clone();
    eventually("the trap is set", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("ready"))
    });
    let pid = shim.state().pid;
    let name = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(
        name.starts_with("/sbin/docker-init\0--\0/bin/sh\0"),
        "{name:?}"
    );
    std::thread::sleep(Duration::from_millis(300));
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    assert_eq!(
        children.split_whitespace().count(),
        1,
        "orphans are reaped: {children}"
    );
    shim.ask(&Request::Signal { signal: 15 });
    assert_eq!(shim.wait().0.code, 6);

    let mut bundle = Bundle::with_args(&["nosuch"]);
    bundle.request.init = true;
    let (record, bundle) = bundle.start().wait();
    assert_eq!(record.code, 127);
    assert!(bundle.log_texts()[0].contains("nosuch"));
}

#[test]
fn a_full_disk_drops_lines_and_never_stops_the_container() {
    let mount = tempfile::tempdir().unwrap();
    rustix::mount::mount(
        "tmpfs",
        mount.path(),
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        c"size=256k",
    )
    .unwrap();
    let mut bundle = Bundle::new("seq 1 100000; echo done >&2; exit 8");
    bundle.request.log = LogConfig::rotated(mount.path().join("log"));
    bundle.request.log.max_size_bytes = None;
    let mut shim = bundle.start();
    let record = shim.exited();
    let dropped = shim.state().log_lines_dropped;
    let texts: Vec<String> = fs::read_to_string(mount.path().join("log"))
        .unwrap()
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["log"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    rustix::mount::unmount(mount.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(record.code, 8);
    assert!(dropped > 0);
    assert_eq!(texts.len() as u64 + dropped, 100_001);
    assert_eq!(texts[0], "1\n");
    shim.ask(&Request::Release);
    shim.gone();
}
