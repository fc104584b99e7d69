//! Attached clients: streams, input, detaching, terminals.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use gantry_shim::protocol::{Attach, Event, Reply, Request};
use std::os::fd::OwnedFd;

use crate::fixture::*;

fn attach(shim: &mut Shim, (attach, fd): (Attach, OwnedFd)) {
    let (reply, _) = shim
        .client()
        .call(&Request::Attach(attach), vec![fd])
        .unwrap();
    assert!(matches!(reply, Reply::Ok), "{reply:?}");
}

fn with_stdin(script: &str, once: bool) -> Bundle {
    let mut bundle = Bundle::new(script);
    (bundle.request.open_stdin, bundle.request.stdin_once) = (true, once);
    bundle
}

/// Tells whether a socket is at its end after what came.
fn is_closed(socket: &mut UnixStream) -> bool {
    socket.read(&mut [0; 64]).unwrap() == 0
}

#[test]
fn streams_are_framed_or_raw_and_complete() {
    let script = "echo out; echo err >&2; seq 1 20000; echo last >&2";
    let expected_out = format!(
        "out\n{}",
        (1..=20000)
            .map(|number| format!("{number}\n"))
            .collect::<String>()
    );
    let (mut framed, first) = client(|attach| attach.multiplexed = true);
    let (mut only_err, second) = client(|attach| attach.stdout = false);
    let (record, _) = Bundle::new(script)
        .start_attached(vec![first, second])
        .wait();
    assert_eq!(record.code, 0);
    let (out, err) = demultiplex(&read_all(&mut framed));
    assert_eq!(String::from_utf8(out).unwrap(), expected_out);
    assert_eq!(err, b"err\nlast\n");
    assert_eq!(read_all(&mut only_err), b"err\nlast\n");
}

#[test]
fn early_input_comes_first_and_all_of_it() {
    let early: Vec<u8> = (0..64 << 10)
        .map(|number: u32| (number % 251) as u8)
        .collect();
    let (mut near, mut attached) = client(|_| ());
    attached.0.early = early.clone();
    write(&mut near, b"later");
    half_close(&near);
    let shim = with_stdin("cat", true).start_attached(vec![attached]);
    let mut all = read_all(&mut near);
    assert_eq!(all.split_off(early.len()), b"later");
    assert_eq!(all, early);
    assert_eq!(shim.wait().0.code, 0);
}

#[test]
fn a_large_input_goes_through_a_slow_process() {
    let input: Vec<u8> = (0..3 << 20)
        .map(|number: u32| (number % 253) as u8)
        .collect();
    let (near, attached) = client(|_| ());
    let shim = with_stdin("sleep 0.3; cat", true).start_attached(vec![attached]);
    let mut reader = near.try_clone().unwrap();
    let sent = input.clone();
    let writer = std::thread::spawn(move || {
        let mut near = near;
        write(&mut near, &sent);
        half_close(&near);
    });
    let all = read_all(&mut reader);
    writer.join().unwrap();
    assert!(all == input, "{} of {} bytes", all.len(), input.len());
    shim.wait();
}

#[test]
fn stdin_once_ends_with_the_first_clients_input() {
    let (mut near, attached) = client(|_| ());
    let shim =
        with_stdin("cat; echo end; sleep 0.1; echo later", true).start_attached(vec![attached]);
    write(&mut near, b"x");
    half_close(&near);
    // Output goes on after the half close.
    assert_eq!(
        String::from_utf8(read_all(&mut near)).unwrap(),
        "xend\nlater\n"
    );
    assert_eq!(shim.wait().0.code, 0);
}

#[test]
fn stdin_without_once_stays_open_over_every_client() {
    let mut shim = with_stdin(
        "while read line; do echo got $line; [ $line = stop ] && exit 4; done; echo eof",
        false,
    )
    .start();
    for word in ["one", "two"] {
        let (mut near, attached) = client(|_| ());
        attach(&mut shim, attached);
        write(&mut near, format!("{word}\n").as_bytes());
        assert_eq!(read_until(&mut near, "\n"), format!("got {word}\n"));
        half_close(&near);
        // As Docker's: the attachment ends, stdin does not.
        assert!(is_closed(&mut near));
        shim.event(|event| matches!(event, Event::AttachEnded { exec: None }).then_some(()));
    }
    // A client that vanishes and a daemon that restarts are no end of input either.
    let (near, attached) = client(|_| ());
    attach(&mut shim, attached);
    drop(near);
    shim.disconnect();
    shim.reconnect();
    assert!(shim.state().stdin_open);
    let (mut near, attached) = client(|_| ());
    attach(&mut shim, attached);
    write(&mut near, b"stop\n");
    assert_eq!(
        String::from_utf8(read_all(&mut near)).unwrap(),
        "got stop\n"
    );
    assert_eq!(shim.wait().0.code, 4);
}

#[test]
fn input_that_a_vanished_client_sent_still_arrives() {
    let (mut near, attached) = client(|_| ());
    let shim = with_stdin("sleep 0.2; cat", true).start_attached(vec![attached]);
    write(&mut near, &vec![b'y'; 100_000]);
    drop(near);
    let (_, bundle) = shim.wait();
    assert_eq!(
        bundle.log_texts().iter().map(String::len).sum::<usize>(),
        100_000
    );
}

#[test]
fn closing_stdin_is_a_request_of_its_own() {
    let mut shim = with_stdin("cat; exit 2", false).start();
    shim.ask(&Request::CloseStdin);
    assert_eq!(shim.wait().0.code, 2);
}

#[test]
fn a_client_without_input_sees_output_after_its_half_close() {
    let (mut near, attached) = client(|attach| attach.stdin = false);
    let shim = with_stdin("sleep 0.2; echo still here", true).start_attached(vec![attached]);
    write(&mut near, b"thrown away");
    half_close(&near);
    assert_eq!(read_all(&mut near), b"still here\n");
    shim.wait();
}

#[test]
fn a_lagging_client_stalls_the_container_and_loses_nothing() {
    let (mut near, attached) = client(|_| ());
    let mut bundle = Bundle::new("seq 1 1000000; exit 1");
    bundle.request.log.max_size_bytes = None;
    let mut shim = bundle.start_attached(vec![attached]);
    std::thread::sleep(Duration::from_millis(700));
    assert!(
        shim.state().running,
        "more than the pipe and the client's allowance wait"
    );
    let expected: String = (1..=1_000_000)
        .map(|number| format!("{number}\n"))
        .collect();
    let all = read_all(&mut near);
    assert!(
        all == expected.as_bytes(),
        "{} bytes of {}",
        all.len(),
        expected.len()
    );
    assert_eq!(shim.wait().0.code, 1);
}

#[test]
fn a_client_that_never_reads_does_not_hide_the_end() {
    let (mut near, attached) = client(|_| ());
    let mut shim = Bundle::new("seq 1 100000; exit 1").start_attached(vec![attached]);
    assert_eq!(shim.exited().code, 1);
    shim.ask(&Request::Release);
    // The shim stays for the client alone.
    std::thread::sleep(Duration::from_millis(100));
    assert!(shim.spawned.child.try_wait().unwrap().is_none());
    assert!(read_all(&mut near).ends_with(b"\n100000\n"));
    shim.gone();
}

#[test]
fn a_terminal_echoes_resizes_and_hangs_up() {
    let (mut near, attached) = client(|attach| attach.detach_keys = b"\x10\x11".to_vec());
    let mut bundle = with_stdin(
        "stty size; read line; stty size; echo [$line]; exit 3",
        true,
    );
    (bundle.request.tty, bundle.request.console_size) = (true, Some([33, 77]));
    let mut shim = bundle.start_attached(vec![attached]);
    read_until(&mut near, "33 77\r\n");
    assert!(matches!(
        shim.ask(&Request::Resize {
            exec: None,
            rows: 20,
            cols: 40
        }),
        Reply::Ok
    ));
    // A control-p that is followed by something else is input.
    write(&mut near, b"a\x10");
    write(&mut near, b"b\n");
    let output = read_until(&mut near, "[");
    assert!(output.contains("20 40\r\n"), "{output:?}");
    let rest = String::from_utf8(read_all(&mut near)).unwrap();
    assert!(
        format!("{output}{rest}").contains("[a\x10b]\r\n"),
        "{output:?} {rest:?}"
    );
    assert_eq!(shim.wait().0.code, 3);
}

#[test]
fn detach_keys_end_the_attachment_of_a_terminal_only() {
    let mut bundle = with_stdin("read line; echo [$line]; read line", false);
    bundle.request.tty = true;
    let (mut near, attached) = client(|attach| attach.detach_keys = b"\x10\x11".to_vec());
    let mut shim = bundle.start_attached(vec![attached]);
    write(&mut near, b"hello\n\x10\x11never seen\n");
    let output = String::from_utf8(read_all(&mut near)).unwrap();
    assert!(!output.contains("never"), "{output:?}");
    shim.event(|event| matches!(event, Event::Detached { exec: None }).then_some(()));
    let (mut near, attached) = client(|_| ());
    attach(&mut shim, attached);
    write(&mut near, b"\n");
    shim.wait();

    // A pipe carries any bytes, as with Docker.
    let (mut near, attached) = client(|attach| attach.detach_keys = b"\x10\x11".to_vec());
    let shim = with_stdin("cat", true).start_attached(vec![attached]);
    write(&mut near, b"a\x10\x11b");
    half_close(&near);
    assert_eq!(read_all(&mut near), b"a\x10\x11b");
    shim.wait();
}

#[test]
fn an_attach_from_a_log_position_loses_and_doubles_nothing() {
    let mut shim =
        Bundle::new("for i in $(seq 1 300); do echo line $i; sleep 0.002; done; printf tail")
            .start();
    std::thread::sleep(Duration::from_millis(150));
    let Reply::Log(position) = shim.ask(&Request::SyncLog) else {
        panic!()
    };
    let log = shim.bundle.request.log.clone();
    std::thread::sleep(Duration::from_millis(100));
    let (mut near, attached) =
        client(|attach| (attach.from, attach.stdin) = (Some(position), false));
    attach(&mut shim, attached);
    let live = String::from_utf8(read_all(&mut near)).unwrap();
    let mut before = std::fs::read(&log.path).unwrap();
    before.truncate(position.offset as usize);
    let replayed: String = String::from_utf8(before)
        .unwrap()
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["log"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let expected: String = (1..=300)
        .map(|number| format!("line {number}\n"))
        .chain(["tail".to_owned()])
        .collect();
    assert!(!replayed.is_empty() && !live.is_empty());
    assert_eq!(format!("{replayed}{live}"), expected);
    shim.wait();
}
