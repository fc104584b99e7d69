//! Terminals: attach, detach, resize, and what the keys do.

use std::time::Duration;

use gantry_testkit::session::Session;
use gantry_testkit::wait::eventually;
use rustix::process::Signal;

gantry_testkit::scenarios![
    detach_keys_leave_the_container_running,
    other_detach_keys,
    attach_after_detach_goes_on,
    the_window_size_is_passed_on,
    a_new_window_size_is_passed_on,
    an_exec_gets_its_window_size,
    control_c_interrupts_the_process,
    end_of_file_ends_the_shell,
    a_terminal_needs_a_terminal,
    two_clients_attached_see_the_same,
    detach_from_an_exec,
    start_with_a_terminal,
    signals_end_the_client_with_their_number,
    a_client_with_a_container_takes_two_signals,
    an_interrupted_question_is_no,
    bad_detach_keys_refuse_the_attach,
];

fn detach_keys_leave_the_container_running(s: &Session) {
    let mut terminal = s.terminal("run -it --name @c @bb sh");
    terminal.expect("# ");
    terminal.send(b"echo a$((1+1))b\n");
    terminal.expect("a2b");
    terminal.send(b"\x10\x11");
    assert_eq!(terminal.wait(), 0);
    s.d("inspect -f '{{.State.Running}}' @c").prints("true\n");
}

fn other_detach_keys(s: &Session) {
    let mut terminal = s.terminal("run -it --detach-keys ctrl-a,x --name @c @bb cat");
    terminal.send(b"typed\n");
    terminal.expect("typed");
    terminal.send(b"\x01x");
    assert_eq!(terminal.wait(), 0);
    s.d("inspect -f '{{.State.Running}}' @c").prints("true\n");
}

fn attach_after_detach_goes_on(s: &Session) {
    let mut terminal = s.terminal("run -it --name @c @bb sh");
    terminal.expect("# ");
    terminal.send(b"X=kept\n");
    terminal.expect("# ");
    terminal.send(b"\x10\x11");
    terminal.wait();
    let mut again = s.terminal("attach @c");
    again.send(b"\n");
    again.expect("# ");
    again.send(b"echo $X\n");
    again.expect("kept");
    again.send(b"exit 4\n");
    assert_eq!(again.wait(), 4);
}

fn the_window_size_is_passed_on(s: &Session) {
    let mut terminal = s.terminal("run --rm -it @bb sh -c 'sleep 0.5; stty size'");
    terminal.expect("24 80");
    assert_eq!(terminal.wait(), 0);
}

fn a_new_window_size_is_passed_on(s: &Session) {
    let mut terminal = s.terminal("run --rm -it @bb sh");
    terminal.expect("# ");
    eventually("the new size", || {
        // The client listens for the signal only some time after the prompt: a change before that is lost on it.
        terminal.resize(33, 100);
        terminal.resize(33, 101);
        terminal.send(b"stty size\n");
        std::thread::sleep(std::time::Duration::from_millis(100));
        terminal.screen().contains("33 101")
    });
    terminal.send(b"exit\n");
    assert_eq!(terminal.wait(), 0);
}

fn an_exec_gets_its_window_size(s: &Session) {
    s.d("run -d --name @c @bb sleep 1000").ok();
    let mut terminal = s.terminal("exec -it @c sh -c 'stty size; cat'");
    terminal.expect("24 80");
    terminal.send(b"\x04");
    assert_eq!(terminal.wait(), 0);
}

fn control_c_interrupts_the_process(s: &Session) {
    let mut terminal = s.terminal("run --rm -it --init @bb sleep 1000");
    std::thread::sleep(std::time::Duration::from_millis(1000));
    terminal.send(b"\x03");
    assert_eq!(terminal.wait(), 130);
}

fn end_of_file_ends_the_shell(s: &Session) {
    let mut terminal = s.terminal("run --rm -it @bb sh");
    terminal.expect("# ");
    terminal.send(b"\x04");
    assert_eq!(terminal.wait(), 0);
}

fn a_terminal_needs_a_terminal(s: &Session) {
    s.d("run --rm -it @bb sh")
        .fails(1, "the input device is not a TTY\n");
    s.d("run -d --name @c @bb sleep 1000").ok();
    s.d("exec -it @c sh")
        .fails(1, "the input device is not a TTY\n");
}

fn two_clients_attached_see_the_same(s: &Session) {
    s.d("run -dit --name @c @bb sh").ok();
    let (mut one, mut two) = (s.terminal("attach @c"), s.terminal("attach @c"));
    // A client that has attached sets the size, and the shell draws its prompt anew.
    one.expect("# ");
    two.expect("# ");
    one.send(b"echo from-$((1))\n");
    one.expect("from-1");
    two.expect("from-1");
    two.send(b"echo from-$((2))\n");
    one.expect("from-2");
    two.send(b"exit 3\n");
    assert_eq!((one.wait(), two.wait()), (3, 3));
}

fn detach_from_an_exec(s: &Session) {
    s.d("run -d --name @c @bb sleep 1000").ok();
    let mut terminal = s.terminal("exec -it @c sh -c 'echo ready; exec cat'");
    terminal.expect("ready");
    terminal.send(b"\x10\x11");
    terminal.wait();
    eventually("cat goes on", || {
        s.d("exec @c ps")
            .stdout
            .lines()
            .any(|line| line.ends_with(" cat"))
    });
}

fn start_with_a_terminal(s: &Session) {
    s.d("create -it --name @c @bb sh").ok();
    let mut terminal = s.terminal("start -ai @c");
    terminal.send(b"\n");
    terminal.expect("# ");
    terminal.send(b"exit 8\n");
    assert_eq!(terminal.wait(), 8);
}

/// Ends a command of the client by a signal that it gets once it is at work; gives its own exit code, if it has one.
fn ended_by(s: &Session, line: &str, signals: &[Signal]) -> (Option<i32>, String) {
    let mut client = s.background("client", line);
    std::thread::sleep(Duration::from_millis(700));
    for signal in signals {
        client.signal(*signal);
        std::thread::sleep(Duration::from_millis(100));
    }
    let ended = gantry_testkit::wait::eventually_within(Duration::from_secs(10), line, || {
        client.child.try_wait().expect("wait")
    });
    (ended.code(), client.stderr())
}

fn signals_end_the_client_with_their_number(s: &Session) {
    s.d("run -d --name @c @bb sh -c 'trap \"\" INT TERM; while :; do sleep 0.1; done'")
        .ok();
    for line in ["logs -f @c", "events", "wait @c", "stats", "stop -t 5 @c"] {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            assert_eq!(
                ended_by(s, line, &[signal]),
                (Some(code), String::new()),
                "{line}"
            );
        }
    }
    // What an exec started runs on.
    s.d("run -d --name @d @bb sleep 1000").ok();
    assert_eq!(
        ended_by(s, "exec @d sleep 1000", &[Signal::INT]),
        (Some(0), String::new())
    );
    s.d("top @d").shows("sleep 1000");
}

fn a_client_with_a_container_takes_two_signals(s: &Session) {
    let stubborn = "sh -c 'trap \"\" INT TERM; while :; do sleep 0.1; done'";
    let run = [
        format!("run --rm --name @c @bb {stubborn}"),
        format!("run --rm --sig-proxy=false --name @c @bb {stubborn}"),
    ];
    let forced = (
        Some(1),
        "\ngot 3 SIGTERM/SIGINTs, forcefully exiting\n".to_owned(),
    );
    for line in run {
        let mut client = s.background("client", &line);
        eventually("it runs", || {
            s.d("inspect -f '{{.State.Running}}' @c").stdout == "true\n"
        });
        for signal in [Signal::INT, Signal::TERM] {
            client.signal(signal);
            std::thread::sleep(Duration::from_millis(300));
            assert!(client.child.try_wait().expect("wait").is_none(), "{line}");
        }
        client.signal(Signal::INT);
        let code = client.wait();
        assert_eq!((Some(code), client.stderr()), forced, "{line}");
        s.d("inspect -f '{{.State.Running}}' @c").prints("true\n");
        assert_eq!(
            ended_by(s, "attach --sig-proxy=false @c", &[Signal::INT; 3]),
            forced
        );
        s.d("rm -f @c").ok();
    }
}

fn an_interrupted_question_is_no(s: &Session) {
    for line in [
        "container prune",
        "system prune",
        "login -u someone localhost:1",
    ] {
        let mut terminal = s.terminal(line);
        terminal.expect(if line.starts_with("login") {
            "assword: "
        } else {
            "[y/N] "
        });
        std::thread::sleep(Duration::from_millis(200));
        terminal.send(b"\x03");
        assert_eq!(terminal.wait(), 0, "{line}");
    }
}

fn bad_detach_keys_refuse_the_attach(s: &Session) {
    let refused = "unable to upgrade to tcp, received 400\n";
    s.d("run --rm --name @c --detach-keys nosuch @bb true")
        .fails(1, refused);
    // It was made and never ran.
    s.d("inspect -f '{{.State.Status}}' @c").prints("created\n");
    s.d("start -a --detach-keys nosuch @c").fails(1, refused);
    s.d("start @c").ok();
    s.d("run -d --name @d @bb sleep 1000").ok();
    s.d("attach --detach-keys nosuch @d").fails(1, refused);
}
