//! Further processes in a container.

use std::time::Duration;

use gantry_shim::protocol::{Attach, Event, ExecRequest, ExecState, FailureKind, Reply, Request};
use serde_json::json;

use crate::fixture::*;

fn request(name: &str, args: &[&str], attach: Option<Attach>) -> ExecRequest {
    ExecRequest {
        exec: name.to_owned(),
        process: json!({"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}),
        stdin: attach.is_some(),
        attach,
        ..ExecRequest::default()
    }
}

fn ended(shim: &mut Shim, name: &str) -> i32 {
    shim.event(|event| match event {
        Event::ExecExited {
            exec, exit_code, ..
        } if exec == name => Some(*exit_code),
        _ => None,
    })
}

#[test]
fn an_exec_has_streams_and_a_code_of_its_own() {
    let mut shim = Bundle::new("sleep 1000").start();
    let (mut near, (attach, fd)) = client(|attach| attach.multiplexed = true);
    let exec = request(
        "one",
        &["/bin/sh", "-c", "cat; echo err >&2; exit 5"],
        Some(attach),
    );
    let (reply, _) = shim
        .client()
        .call(&Request::Exec(Box::new(exec)), vec![fd])
        .unwrap();
    assert!(
        matches!(reply, Reply::ExecStarted { pid } if pid > 0),
        "{reply:?}"
    );
    write(&mut near, b"in");
    half_close(&near);
    let (out, err) = demultiplex(&read_all(&mut near));
    assert_eq!(
        (out.as_slice(), err.as_slice()),
        (&b"in"[..], &b"err\n"[..])
    );
    assert_eq!(ended(&mut shim, "one"), 5);
    // The record survives the daemon.
    shim.disconnect();
    shim.reconnect();
    let Reply::ExecState(state) = shim.ask(&Request::ExecInspect {
        exec: "one".to_owned(),
    }) else {
        panic!()
    };
    assert_eq!((state.running, state.exit_code), (false, Some(5)));
    assert!(matches!(
        shim.ask(&Request::ExecInspect {
            exec: "two".to_owned()
        }),
        Reply::Error { .. }
    ));
    shim.ask(&Request::Signal { signal: 9 });
    let (_, bundle) = shim.wait();
    assert!(bundle.log_texts().is_empty(), "execs are not logged");
}

#[test]
fn an_exec_has_a_terminal_that_is_resized() {
    let mut shim = Bundle::new("sleep 1000").start();
    let (mut near, (attach, fd)) = client(|_| ());
    let mut exec = request("tty", &["/bin/sh", "-c", "read x; stty size"], Some(attach));
    (exec.tty, exec.console_size) = (true, Some([10, 20]));
    let (reply, _) = shim
        .client()
        .call(&Request::Exec(Box::new(exec)), vec![fd])
        .unwrap();
    assert!(matches!(reply, Reply::ExecStarted { .. }), "{reply:?}");
    let resized = shim.ask(&Request::Resize {
        exec: Some("tty".to_owned()),
        rows: 11,
        cols: 22,
    });
    assert!(matches!(resized, Reply::Ok), "{resized:?}");
    write(&mut near, b"\n");
    read_until(&mut near, "11 22\r\n");
    assert_eq!(ended(&mut shim, "tty"), 0);
    shim.ask(&Request::Signal { signal: 9 });
    shim.wait();
}

#[test]
fn an_exec_that_cannot_start_says_why_and_leaves_the_container() {
    let mut shim = Bundle::new("sleep 1000").start();
    for (args, kind, words) in [
        (
            ["nosuch"],
            FailureKind::NotFound,
            "executable file not found in $PATH",
        ),
        (
            ["/etc"],
            FailureKind::NotExecutable,
            if is_foreign() {
                "exec: \"/etc\": "
            } else {
                "is a directory"
            },
        ),
    ] {
        let reply = shim.ask(&Request::Exec(Box::new(request("bad", &args, None))));
        let Reply::ExecFailed(failure) = reply else {
            panic!("{reply:?}")
        };
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(failure.message.contains(words), "{failure:?}");
    }
    assert!(shim.state().running);
    shim.ask(&Request::Signal { signal: 9 });
    shim.wait();
}

#[test]
fn execs_are_signalled_and_die_with_the_container() {
    let mut shim = Bundle::new("sleep 1000").start();
    for name in ["a", "b"] {
        let reply = shim.ask(&Request::Exec(Box::new(request(
            name,
            &["/bin/sleep", "1000"],
            None,
        ))));
        assert!(matches!(reply, Reply::ExecStarted { .. }), "{reply:?}");
    }
    shim.ask(&Request::ExecSignal {
        exec: "a".to_owned(),
        signal: 15,
    });
    assert_eq!(ended(&mut shim, "a"), 143);
    let Reply::Execs(execs) = shim.ask(&Request::ExecList) else {
        panic!()
    };
    let running: Vec<(String, bool)> = execs
        .into_iter()
        .map(|ExecState { exec, running, .. }| (exec, running))
        .collect();
    assert_eq!(running, [("a".to_owned(), false), ("b".to_owned(), true)]);
    shim.ask(&Request::Signal { signal: 9 });
    assert_eq!(ended(&mut shim, "b"), 137);
    assert_eq!(shim.wait().0.code, 137);
}

#[test]
fn a_process_that_an_exec_leaves_behind_does_not_hold_it() {
    let mut shim = Bundle::new("sleep 1000").start();
    let (mut near, (attach, fd)) = client(|_| ());
    let exec = request(
        "bg",
        &["/bin/sh", "-c", "sleep 500 & echo started"],
        Some(attach),
    );
    shim.client()
        .call(&Request::Exec(Box::new(exec)), vec![fd])
        .unwrap();
    let before = std::time::Instant::now();
    assert_eq!(read_all(&mut near), b"started\n");
    assert!(before.elapsed() < Duration::from_secs(10));
    assert_eq!(ended(&mut shim, "bg"), 0);
    shim.ask(&Request::Signal { signal: 9 });
    shim.wait();
}

#[test]
fn many_execs_leave_no_descriptor_and_little_memory() {
    let mut shim = Bundle::new("sleep 1000").start();
    let count = |shim: &Shim| {
        std::fs::read_dir(format!("/proc/{}/fd", shim.spawned.pid))
            .unwrap()
            .count()
    };
    let before = count(&shim);
    for number in 0..60 {
        let name = format!("e{number}");
        let (mut near, (attach, fd)) = client(|_| ());
        let exec = request(&name, &["/bin/echo", &name], Some(attach));
        shim.client()
            .call(&Request::Exec(Box::new(exec)), vec![fd])
            .unwrap();
        assert_eq!(read_all(&mut near), format!("{name}\n").as_bytes());
        assert_eq!(ended(&mut shim, &name), 0);
    }
    assert_eq!(count(&shim), before);
    shim.ask(&Request::Signal { signal: 9 });
    shim.wait();
}
