//! Clients of the unmodified docker command line, and their containers, while the daemon is killed and comes back.
//!
//! Only for Gantry: the reference engine's daemon is not ours to kill, and its clients do not survive it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use gantry_testkit::engine::{Engine, ORACLE_SOCKET};
use gantry_testkit::session::{Client, Session};
use rustix::process::Signal;

fn engine() -> Option<Engine> {
    if std::env::var_os(ORACLE_SOCKET).is_some() {
        println!("skipped: the reference engine is not ours to kill");
        return None;
    }
    Some(Engine::private(&[]))
}

/// Kills the daemon, lets the world go on for a moment without it, and starts it again.
fn kill_and_restart(engine: &Engine) {
    engine.end_daemon(Signal::KILL);
    std::thread::sleep(Duration::from_millis(300));
    engine.start_daemon(&[]);
}

#[test]
fn terminals_live_through_a_killed_daemon() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine, Client::Docker);
    let mut shell = session.terminal("run -it --name @shell @bb sh");
    shell.expect("/ #");
    let mut exec = session.terminal("exec -it @shell sh");
    exec.expect("/ #");
    session
        .d("run -dit --name @held @bb sh -c 'read line; echo got $line; exit 5'")
        .ok();
    let mut attached = session.terminal("attach @held");
    shell.send(b"echo before-$((1+1))\r");
    shell.expect("before-2");
    exec.send(b"echo exec-$((2+2))\r");
    exec.expect("exec-4");

    engine.end_daemon(Signal::KILL);
    // Without any daemon the terminals work on.
    shell.send(b"echo without-$((3+3))\r");
    shell.expect("without-6");
    exec.send(b"echo alone-$((4+4))\r");
    exec.expect("alone-8");
    engine.start_daemon(&[]);

    exec.send(b"exit 7\r");
    assert_eq!(exec.wait(), 7, "{}", exec.screen());
    attached.send(b"hello\r");
    attached.expect("got hello");
    assert_eq!(attached.wait(), 5, "{}", attached.screen());
    shell.send(b"exit 6\r");
    assert_eq!(shell.wait(), 6, "{}", shell.screen());
    for terminal in [&shell, &exec, &attached] {
        let screen = terminal.screen();
        for foreign in ["rror", "daemon", "HTTP", "EOF"] {
            assert!(
                !screen.contains(foreign),
                "a foreign word in the terminal: {screen:?}"
            );
        }
    }
    assert_eq!(session.inspect("@shell")["State"]["ExitCode"], 6);
}

#[test]
fn an_exit_while_no_daemon_lives_reaches_the_client_with_its_code() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine, Client::Docker);
    let mut client = session.background(
        "run",
        "run --name @c @bb sh -c 'echo one; sleep 3; echo two; exit 9'",
    );
    client.until_shows("one");
    // Output goes its own way and may overtake the answer of the start, which a client needs.
    gantry_testkit::wait::eventually("the start is answered", || {
        session.inspect("@c")["State"]["Running"] == true
    });
    engine.end_daemon(Signal::KILL);
    assert_eq!(client.wait(), 9, "{}", client.stderr());
    assert_eq!(client.stdout(), "one\ntwo\n");
    engine.start_daemon(&[]);
    assert_eq!(session.inspect("@c")["State"]["ExitCode"], 9);
    assert_eq!(session.d("logs @c").ok().stdout, "one\ntwo\n");
}

#[test]
fn two_hundred_megabytes_of_numbered_lines_lose_none_while_the_daemon_is_away() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine, Client::Docker);
    // 200 bytes a line, a million of them.
    let script = "while [ ! -e /go ]; do usleep 10000; done; awk \"BEGIN { for (i = 1; i <= 1000000; i++) printf \\\"%0199d\\\\n\\\", i }\"";
    session
        .d(&format!(
            "run -d --name @all --log-opt max-size=1g @bb sh -c '{script}'"
        ))
        .ok();
    session
        .d(&format!("run -d --name @tail @bb sh -c '{script}'"))
        .ok();
    for name in ["@all", "@tail"] {
        session.d(&format!("exec {name} touch /go")).ok();
    }
    engine.end_daemon(Signal::KILL);
    std::thread::sleep(Duration::from_secs(3));
    engine.start_daemon(&[]);
    for name in ["@all", "@tail"] {
        assert_eq!(session.d(&format!("wait {name}")).ok().stdout.trim(), "0");
    }
    assert_eq!(numbers(&session, "@all"), (1, 1_000_000));
    let (first, last) = numbers(&session, "@tail");
    // 20 MiB x 5 by default: at least four full files are there, and the suffix has no hole.
    let kept = last - first + 1;
    let json_line = 200
        + r#"{"log":"\n","stream":"stdout","time":"2026-11-23T22:37:13.123456789Z"}"#.len() as u64
        + 1;
    assert_eq!(last, 1_000_000);
    assert!(
        kept * json_line >= (20 << 20) * 4,
        "only {kept} lines were kept"
    );
}

/// Reads a log of ascending numbers; panics at a hole, returns the first and the last.
fn numbers(session: &Session<'_>, name: &str) -> (u64, u64) {
    let text = session.d(&format!("logs {name}")).ok().stdout;
    let mut range = None;
    for line in text.lines() {
        let number: u64 = line
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("not a number: {line:?}"));
        range = Some(match range {
            None => (number, number),
            Some((first, last)) => {
                assert_eq!(number, last + 1, "a hole after {last}");
                (first, number)
            }
        });
    }
    range.expect("lines")
}

#[test]
fn standard_input_right_behind_the_request_is_not_lost() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine, Client::Docker);
    session.d("create -i --name @cat @bb sh -c 'wc -c'").ok();
    let name = session.x("@cat");
    let payload = vec![b'x'; 64 << 10];
    let mut bytes = format!(
        "POST /v1.43/containers/{name}/attach?stdin=1&stdout=1&stream=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\n\
         Upgrade: tcp\r\n\r\n"
    )
    .into_bytes();
    bytes.extend(&payload);
    let mut stream = UnixStream::connect(&engine.socket).expect("connect");
    stream
        .write_all(&bytes)
        .expect("one write of request and input");
    stream
        .shutdown(std::net::Shutdown::Write)
        .expect("end of input");
    session.d("start @cat").ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("read");
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("65536"), "{text:?}");
}

#[test]
fn a_published_port_and_its_container_do_not_notice() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine, Client::Docker);
    let port = session.port();
    session
        .d(&format!(
            "run -d --name @www -p {port}:80 @bb httpd -f -p 80 -h /etc"
        ))
        .ok();
    let pid = session.inspect("@www")["State"]["Pid"].clone();
    engine.end_daemon(Signal::KILL);
    assert!(session.get([127, 0, 0, 1], port, "/group").contains("root"));
    engine.start_daemon(&[]);
    assert!(session.get([127, 0, 0, 1], port, "/group").contains("root"));
    assert_eq!(session.inspect("@www")["State"]["Pid"], pid);
    kill_and_restart(&engine);
    assert_eq!(session.inspect("@www")["State"]["Pid"], pid);
}

/// The places beneath the data root where something is mounted, in the daemon's mount namespace.
fn mounted(engine: &Engine) -> Vec<String> {
    let places = engine.places();
    let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", places.host_pid))
        .expect("a table of mounts");
    let root = format!("{}/", places.data_root.display());
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4)?.strip_prefix(&root))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_mounted_volume_is_counted_by_the_next_daemon() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine, Client::Docker);
    session
        .d("volume create -o type=tmpfs -o device=tmpfs @v")
        .ok();
    let place = session.x("volumes/@v/_data");
    for name in ["@a", "@b", "@c"] {
        session
            .d(&format!("run -d --name {name} -v @v:/v @bb sleep 1000"))
            .ok();
    }
    session.d("exec @a sh -c 'echo kept > /v/f'").ok();
    assert_eq!(mounted(&engine), std::slice::from_ref(&place));

    kill_and_restart(&engine);
    session.d("exec @b cat /v/f").prints("kept\n");
    session.d("rm -f @a").ok();
    assert_eq!(
        mounted(&engine),
        std::slice::from_ref(&place),
        "two use it still"
    );
    session.d("volume rm @v").exits(1);

    // One ends while no daemon lives; the next one knows that it used the volume.
    let pid = session.inspect("@b")["State"]["Pid"]
        .as_i64()
        .expect("a pid");
    engine.end_daemon(Signal::KILL);
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, Signal::KILL).expect("kill");
    engine.start_daemon(&[]);
    session.until_status("@b", "exited");
    assert_eq!(
        mounted(&engine),
        std::slice::from_ref(&place),
        "one uses it still"
    );
    session.d("start @b").ok();
    session.d("exec @b cat /v/f").prints("kept\n");
    session.d("rm -f @b @c").ok();
    assert_eq!(mounted(&engine), Vec::<String>::new());
    session.d("volume rm @v").ok();
}

#[test]
fn a_volume_that_nobody_uses_is_unmounted_by_the_next_daemon() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine, Client::Docker);
    session.file("mine", "mine\n");
    session
        .d("volume create -o type=none -o o=bind -o device=@dir @v")
        .ok();
    session.d("run -d --name @c -v @v:/v @bb sleep 1000").ok();
    let pid = session.inspect("@c")["State"]["Pid"]
        .as_i64()
        .expect("a pid");
    engine.end_daemon(Signal::KILL);
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, Signal::KILL).expect("kill");
    assert_eq!(mounted(&engine), [session.x("volumes/@v/_data")]);
    engine.start_daemon(&[]);
    session.until_status("@c", "exited");
    assert_eq!(mounted(&engine), Vec::<String>::new());
    session.d("rm @c").ok();
    // What a killed daemon left mounted without any record of a user.
    let place = engine
        .places()
        .data_root
        .join(session.x("volumes/@v/_data"));
    engine.end_daemon(Signal::KILL);
    let mut words = engine.mount_words();
    words.extend([
        "mount".to_owned(),
        "--bind".into(),
        session.x("@dir"),
        place.display().to_string(),
    ]);
    assert!(
        std::process::Command::new(&words[0])
            .args(&words[1..])
            .status()
            .expect("mount")
            .success()
    );
    engine.start_daemon(&[]);
    assert_eq!(mounted(&engine), Vec::<String>::new());
    session.d("volume rm @v").ok();
    assert!(session.dir().join("mine").exists());
}

#[test]
fn a_daemon_starts_at_the_very_moment_in_which_another_is_killed() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine, Client::Docker);
    for name in ["@a", "@b", "@c"] {
        session
            .d(&format!("run -d --name {name} @bb sleep 1000"))
            .ok();
    }
    for round in 0..10 {
        let pid = engine.daemon_pid().expect("a daemon");
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process");
        // Nobody waits for its end, and some of its threads are within system calls.
        let _run = session.background("run", &format!("run -d --name @r{round} @bb true"));
        std::thread::sleep(Duration::from_millis(20 * round));
        rustix::process::kill_process(pid, Signal::KILL).expect("kill the daemon");
        engine.start_daemon(&[]);
    }
    session
        .d("inspect -f '{{.State.Running}}' @a @b @c")
        .prints("true\ntrue\ntrue\n");
}

#[test]
fn two_daemons_do_not_share_a_data_root() {
    let Some(engine) = engine() else { return };
    let places = engine.places();
    let lock = std::fs::File::open(places.data_root.join("lock")).expect("the lock");
    let second = |pidfile: &str| {
        let begin = std::time::Instant::now();
        let words = engine.host_words();
        let refused = std::process::Command::new(&words[0])
            .args(&words[1..])
            .arg(gantry_testkit::engine::binary())
            .args(["daemon", "--data-root"])
            .arg(&places.data_root)
            .arg("--exec-root")
            .arg(places.exec_root.with_file_name("second"))
            .arg("--pidfile")
            .arg(places.exec_root.with_file_name(pidfile))
            .arg("-H")
            .arg(format!("unix://{}.second", engine.socket.display()))
            .output()
            .expect("run a second daemon");
        assert!(!refused.status.success());
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "{:?}",
            begin.elapsed()
        );
        String::from_utf8_lossy(&refused.stderr).into_owned()
    };
    let text = second("second.pid");
    let wanted = format!(
        "another daemon uses the data root {}",
        places.data_root.display()
    );
    assert!(text.contains(&wanted), "{text}");
    assert!(
        text.contains("waiting for the end of another daemon"),
        "{text}"
    );
    let text = second("gantry.pid");
    assert!(text.contains("is still running"), "{text}");

    // One that is locked for a moment more is waited for, without a word to the one who starts it.
    engine.end_daemon(Signal::KILL);
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("lock");
    let release = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        drop(lock);
    });
    engine.start_daemon(&[]);
    release.join().expect("no panic");
}
