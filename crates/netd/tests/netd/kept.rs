//! Connections over netd's death: they go on, whatever they are about to do.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gantry_sys::process::{Spawn, StringList, spawn};
use gantry_sys::shared::SharedWords;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A host that carries to port 80 of the container, with who listens there.
fn carrying() -> (Host, TcpListener) {
    let host = Host::new();
    host.client
        .reserve("web", &both(Protocol::Tcp, 8080, 80))
        .unwrap();
    let listener = host.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
    (host, listener)
}

/// Sets how many descriptors a process may have (0: this one), and leaves it what it may set itself.
fn limit_descriptors(pid: i32, limit: u64) {
    const NOFILE: u32 = 7;
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let maximum = own.maximum.unwrap_or(u64::MAX);
    gantry_sys::process::prlimit(pid, NOFILE, limit, maximum).unwrap();
}

fn connect() -> TcpStream {
    let stream = TcpStream::connect("[::1]:8080").unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The bytes of a stream, each told by its place.
fn fill(block: &mut [u8], offset: usize) {
    for (place, byte) in (offset..).zip(block) {
        *byte = (place % 251) as u8;
    }
}

/// Writes the stream until `over`, and then its end; gives its length.
fn write_until(mut stream: &TcpStream, over: &AtomicBool) -> usize {
    let mut block = vec![0; 30_011];
    let mut offset = 0;
    while !over.load(Ordering::Relaxed) {
        fill(&mut block, offset);
        stream.write_all(&block).unwrap();
        offset += block.len();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    offset
}

/// Reads the stream to its end and checks each byte; gives its length.
fn read_to_end(mut stream: &TcpStream) -> usize {
    let mut block = vec![0; 65_536];
    let mut expected = block.clone();
    let mut offset = 0;
    loop {
        let length = stream
            .read(&mut block)
            .unwrap_or_else(|error| panic!("after {offset} bytes: {error}"));
        if length == 0 {
            return offset;
        }
        fill(&mut expected[..length], offset);
        assert!(
            block[..length] == expected[..length],
            "after {offset} bytes"
        );
        offset += length;
    }
}

#[test]
fn a_transfer_in_both_directions_goes_on_byte_for_byte() {
    let (host, listener) = carrying();
    let client = connect();
    let server = accept(&listener);
    let over = AtomicBool::new(false);
    let total = thread::scope(|scope| {
        let writers = [&client, &server].map(|end| scope.spawn(|| write_until(end, &over)));
        let readers = [&server, &client].map(|end| scope.spawn(|| read_to_end(end)));
        for round in 0..50 {
            thread::sleep(Duration::from_millis(round % 7 * 3));
            host.kill_netd();
            assert_eq!(host.client.status().unwrap().forwards, 1);
        }
        over.store(true, Ordering::Relaxed);
        let written = writers.map(|writer| writer.join().unwrap());
        let read = readers.map(|reader| reader.join().unwrap());
        assert_eq!(read, written);
        written
    });
    assert!(
        total.iter().all(|&bytes| bytes > 8 << 20),
        "{total:?} bytes"
    );
    println!("{total:?} bytes");
}

#[test]
fn a_netd_that_is_killed_while_it_takes_over_leaves_everything_to_the_next() {
    let (host, listener) = carrying();
    let client = connect();
    let server = accept(&listener);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers = [&client, &server].map(|end| scope.spawn(|| write_until(end, &over)));
        let readers = [&server, &client].map(|end| scope.spawn(|| read_to_end(end)));
        // Whoever comes is killed, sooner or later after its start.
        for round in 0..60u64 {
            let asking = scope.spawn(|| Client::open(options(host.exec_root.path())));
            let until = Instant::now() + PATIENCE;
            let pid = loop {
                if let Some(&pid) = processes(host.exec_root.path(), "gantry-netd").first() {
                    break pid;
                }
                assert!(Instant::now() < until, "nobody starts netd");
            };
            thread::sleep(Duration::from_micros(round * 200));
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            let _ = asking.join().unwrap();
        }
        let other = Client::open(options(host.exec_root.path())).unwrap();
        assert_eq!(other.status().unwrap().forwards, 1);
        over.store(true, Ordering::Relaxed);
        let written = writers.map(|writer| writer.join().unwrap());
        assert_eq!(readers.map(|reader| reader.join().unwrap()), written);
    });
    // Nobody holds the connections, or the port, beside the last one and its keeper.
    let start = Instant::now();
    while host.keepers().len() > 1 {
        assert!(start.elapsed() < PATIENCE, "{:?}", host.keepers());
    }
    host.client.release("web").unwrap();
    assert!(can_bind("::", 8080, net::Transport::Tcp));
    // One that this host's client has started, and waits for.
    host.kill_netd();
    host.client.status().unwrap();
}

#[test]
fn what_a_slow_reader_has_not_taken_is_kept() {
    let (host, listener) = carrying();
    let client = connect();
    let server = accept(&listener);
    let full = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(&server, &full));
        // All buffers on the way are full.
        thread::sleep(Duration::from_millis(300));
        for _ in 0..5 {
            host.kill_netd();
            assert_eq!(host.client.status().unwrap().forwards, 1);
        }
        full.store(true, Ordering::Relaxed);
        assert_eq!(read_to_end(&client), writer.join().unwrap());
    });
    // The other half is open.
    let mut client = client;
    client.write_all(b"thanks").unwrap();
    host.kill_netd();
    host.client.status().unwrap();
    let mut server = server;
    let mut word = [0; 6];
    server.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"thanks");
}

#[test]
fn a_half_closed_connection_is_answered_after_netds_death() {
    let (host, listener) = carrying();
    // The end comes from the client, or from the container; netd sees it, or finds it when it starts.
    for (is_server_first, is_seen) in [(false, true), (false, false), (true, true), (true, false)] {
        let (mut first, mut second) = (connect(), accept(&listener));
        if is_server_first {
            std::mem::swap(&mut first, &mut second);
        }
        if !is_seen {
            host.kill_netd();
        }
        first.write_all(b"question").unwrap();
        first.shutdown(Shutdown::Write).unwrap();
        if is_seen {
            thread::sleep(Duration::from_millis(50));
            host.kill_netd();
        }
        host.client.status().unwrap();
        let mut text = String::new();
        second.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        host.kill_netd();
        second.write_all(b"answer").unwrap();
        drop(second);
        host.client.status().unwrap();
        text.clear();
        first.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
    }
    let start = Instant::now();
    while host.client.status().unwrap().forwards > 0 {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_reset_while_netd_is_dead_is_passed_on() {
    let (host, listener) = carrying();
    for is_server_first in [false, true] {
        let (mut first, mut second) = (connect(), accept(&listener));
        if is_server_first {
            std::mem::swap(&mut first, &mut second);
        }
        first.write_all(b"x").unwrap();
        second.read_exact(&mut [0; 1]).unwrap();
        host.kill_netd();
        rustix::net::sockopt::set_socket_linger(&first, Some(Duration::ZERO)).unwrap();
        drop(first);
        host.client.status().unwrap();
        let error = second.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_connection_that_is_being_made_is_made_by_the_next_netd() {
    let (host, listener) = carrying();
    let nft = |words: &str| {
        host.enter(|| {
            let status = std::process::Command::new("nft").args([words]).status();
            assert!(status.unwrap().success());
        });
    };
    nft(
        "add table ip deaf; add chain ip deaf in { type filter hook input priority 0; }; \
         add rule ip deaf in tcp dport 80 drop",
    );
    let mut client = connect();
    client.write_all(b"hello").unwrap();
    let start = Instant::now();
    while host.client.status().unwrap().forwards < 1 {
        assert!(start.elapsed() < PATIENCE);
    }
    host.kill_netd();
    assert_eq!(host.client.status().unwrap().forwards, 1);
    nft("delete table ip deaf");
    let mut server = accept(&listener);
    let mut word = [0; 5];
    server.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"hello");
    // And one that fails meanwhile fails.
    drop(listener);
    nft(
        "add table ip deaf; add chain ip deaf in { type filter hook input priority 0; }; \
         add rule ip deaf in tcp dport 80 drop",
    );
    let mut client = connect();
    let start = Instant::now();
    while host.client.status().unwrap().forwards < 2 {
        assert!(start.elapsed() < PATIENCE);
    }
    host.kill_netd();
    nft("delete table ip deaf");
    // Its second try is after a second, while nobody carries.
    thread::sleep(Duration::from_millis(1500));
    host.client.status().unwrap();
    let error = client.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn who_connects_while_netd_is_dead_waits_with_the_keeper() {
    let host = Host::new();
    let ports = [both(Protocol::Tcp, 8080, 80), both(Protocol::Udp, 5353, 53)].concat();
    host.client.reserve("web", &ports).unwrap();
    let listener = host.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
    let datagrams = host.enter(|| UdpSocket::bind("0.0.0.0:53").unwrap());
    host.kill_netd();
    assert!(!can_bind("::", 8080, net::Transport::Tcp));
    assert!(!can_bind("::", 5353, net::Transport::Udp));
    let streams: Vec<TcpStream> = (0..20).map(|_| connect()).collect();
    let asker = UdpSocket::bind("[::1]:0").unwrap();
    asker.send_to(b"question", "[::1]:5353").unwrap();
    assert_eq!(host.client.status().unwrap().sockets, 2);
    for mut stream in streams {
        accept(&listener).write_all(b"here").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "here");
    }
    let mut buffer = [0; 16];
    let length = datagrams.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"question");
    host.client.release("web").unwrap();
    assert!(can_bind("::", 8080, net::Transport::Tcp));
    assert!(can_bind("::", 5353, net::Transport::Udp));
}

#[test]
fn a_killed_keeper_is_replaced_and_nothing_is_lost() {
    let (host, listener) = carrying();
    let mut client = connect();
    let mut server = accept(&listener);
    for round in 0..3u8 {
        let before = host.keepers();
        host.kill_keeper();
        let start = Instant::now();
        while host.keepers() == before || host.keepers().is_empty() {
            assert!(start.elapsed() < PATIENCE, "no new keeper");
        }
        client.write_all(&[round]).unwrap();
        let mut byte = [0; 1];
        server.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [round]);
        // The new one keeps as well.
        host.kill_netd();
        assert_eq!(host.client.status().unwrap().forwards, 1);
    }
}

#[test]
fn with_netd_and_keeper_killed_connections_end_and_netd_starts() {
    let (host, listener) = carrying();
    for is_keeper_first in [false, true] {
        let mut client = connect();
        let mut server = accept(&listener);
        if is_keeper_first {
            // Stopped, so that it starts no other one.
            let pid = host.client.status().unwrap().pid.cast_signed();
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            let pidfd = host.client.pidfd().unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
            host.kill_keeper();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            gantry_sys::unix::wait_readable(pidfd.as_fd(), PATIENCE).unwrap();
        } else {
            host.kill_netd();
            host.kill_keeper();
        }
        for end in [&mut client, &mut server] {
            let ended = end.read(&mut [0; 1]);
            let is_timeout = ended
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
            assert!(!is_timeout && !matches!(ended, Ok(1..)), "{ended:?}");
        }
        assert_eq!(host.client.status().unwrap().forwards, 0);
        let mut client = connect();
        accept(&listener).write_all(b"x").unwrap();
        client.read_exact(&mut [0; 1]).unwrap();
    }
}

#[test]
fn nothing_is_left_of_a_netd_that_ends_in_order() {
    let (host, listener) = carrying();
    let mut client = connect();
    let _server = accept(&listener);
    host.kill_netd();
    host.client.status().unwrap();
    host.one_keeper();
    host.client.shutdown().unwrap();
    assert_eq!(host.keepers(), [0i32; 0]);
    assert!(can_bind("::", 8080, net::Transport::Tcp));
    assert_eq!(
        client.read(&mut [0; 1]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    let lock = fs::read(state_dir(host.exec_root.path()).join("lock")).unwrap();
    assert!(lock.is_empty(), "{lock:?}");
}

#[test]
fn a_thousand_connections_and_fifty_kills_cost_no_descriptor() {
    let (host, listener) = carrying();
    let server = thread::spawn(move || {
        for mut stream in listener.incoming().flatten().take(1020) {
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        }
    });
    let count = || {
        let start = Instant::now();
        let status = loop {
            let status = host.client.status().unwrap();
            if status.forwards == 0 {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "{status:?}");
            thread::sleep(Duration::from_millis(5));
        };
        let descriptors = fs::read_dir(format!("/proc/{}/fd", status.pid)).unwrap();
        descriptors.count()
    };
    let ask = |number: u32| {
        let mut stream = connect();
        stream.write_all(&number.to_le_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, number.to_le_bytes());
    };
    // Every netd but the first has a predecessor.
    host.kill_netd();
    host.client.status().unwrap();
    (0..20).for_each(ask);
    let before = count();
    for number in 0..1000 {
        if number % 20 == 10 {
            host.kill_netd();
            // Not waited for: who asks meanwhile waits with the keeper.
            thread::scope(|scope| {
                scope.spawn(|| host.client.status().unwrap());
                ask(number);
            });
        } else {
            ask(number);
        }
    }
    host.kill_netd();
    let after = count();
    // Idle pipes may be more or fewer.
    assert!(
        after <= before,
        "{before} descriptors before, {after} after"
    );
    server.join().unwrap();
    host.one_keeper();
}

#[test]
fn hundreds_of_kills_fail_no_connection() {
    const KILLS: u64 = 300;
    let (host, listener) = carrying();
    let over = AtomicBool::new(false);
    let made = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let mut stream = accept(&listener);
                    let mut bytes = [0; 8];
                    // The last ones are no requests.
                    if stream.read_exact(&mut bytes).is_ok() {
                        stream.write_all(&bytes).unwrap();
                    }
                }
            });
        }
        let askers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let number = made.fetch_add(1, Ordering::Relaxed).to_le_bytes();
                        let mut stream = connect();
                        stream.write_all(&number).unwrap();
                        let mut answer = Vec::new();
                        stream.read_to_end(&mut answer).unwrap();
                        assert_eq!(answer, number);
                        // A reset after the farewell: no port is kept busy.
                        let linger = Some(Duration::ZERO);
                        rustix::net::sockopt::set_socket_linger(&stream, linger).unwrap();
                    }
                })
            })
            .collect();
        for round in 0..KILLS {
            // Sooner and later in the life of one, by steps that come back to no moment soon.
            thread::sleep(Duration::from_micros(round * 7919 % 15_000));
            host.kill_netd();
            host.client.status().unwrap();
        }
        over.store(true, Ordering::Relaxed);
        let failed = askers.into_iter().map(|asker| asker.join());
        let failed = failed.filter(Result::is_err).count();
        // Whoever waits for a request goes on.
        (0..4).for_each(|_| drop(connect()));
        assert_eq!(failed, 0, "of {} connections", made.load(Ordering::Relaxed));
    });
    println!(
        "{} connections, {KILLS} kills",
        made.load(Ordering::Relaxed)
    );
}

#[test]
fn thousands_are_taken_over_in_a_moment() {
    const COUNT: usize = 2000;
    let (host, listener) = carrying();
    limit_descriptors(0, 20_000);
    let ends: Vec<(TcpStream, TcpStream)> =
        (0..COUNT).map(|_| (connect(), accept(&listener))).collect();
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        host.kill_netd();
        let start = Instant::now();
        assert_eq!(host.client.status().unwrap().forwards, COUNT);
        slowest = slowest.max(start.elapsed());
    }
    println!("{COUNT} were taken over in {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    for (mut client, mut server) in ends {
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0; 1]).unwrap();
    }
}

#[test]
fn netds_death_is_seen_as_fast_as_without_a_keeper() {
    let (host, _listener) = carrying();
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            let pidfd = host.client.pidfd().unwrap();
            let mut stream = UnixStream::connect(socket_path(host.exec_root.path())).unwrap();
            host.client.status().unwrap();
            let start = Instant::now();
            rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap();
            // A daemon waits by either.
            assert!(!matches!(stream.read(&mut [0; 1]), Ok(1..)));
            gantry_sys::unix::wait_readable(pidfd.as_fd(), PATIENCE).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("{times:?}");
    assert!(times[10] < Duration::from_millis(250), "{times:?}");
}

#[test]
fn without_a_descriptor_for_a_pipe_bytes_are_copied_and_none_is_left_out() {
    let (host, listener) = carrying();
    let pid = host.client.status().unwrap().pid.cast_signed();
    let taken: Vec<u32> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    // The two sockets of one connection, and nothing else.
    let last = (0..)
        .filter(|number| !taken.contains(number))
        .nth(1)
        .unwrap();
    limit_descriptors(pid, u64::from(last) + 1);
    let client = connect();
    let server = accept(&listener);
    // netd tries to accept the next one, and closes a spare for it for a moment.
    let has_no_pipe = || {
        let count = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        let start = Instant::now();
        while count() != taken.len() + 2 {
            assert!(start.elapsed() < PATIENCE, "{} of {taken:?}", count());
        }
    };
    has_no_pipe();
    // Longer than all buffers on the way.
    let bytes: Vec<u8> = (0..16_000_000u32)
        .map(|number| (number % 251) as u8)
        .collect();
    thread::scope(|scope| {
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (bytes, mut from, mut to) = (&bytes, from, to);
            scope.spawn(move || from.write_all(bytes).unwrap());
            scope.spawn(move || {
                let mut received = vec![0; bytes.len()];
                to.read_exact(&mut received).unwrap();
                assert!(received == *bytes);
            });
        }
    });
    has_no_pipe();
    // What netd has in its memory when it is killed is missing: both sides are told so.
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut server = &server;
            while !over.load(Ordering::Relaxed) {
                server.write_all(&bytes)?;
            }
            Ok::<(), std::io::Error>(())
        });
        thread::sleep(Duration::from_millis(300));
        host.kill_netd();
        assert_eq!(host.client.status().unwrap().forwards, 0);
        let mut rest = Vec::new();
        let read = (&client).read_to_end(&mut rest);
        assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
        over.store(true, Ordering::Relaxed);
        assert!(writer.join().unwrap().is_err());
    });
}

#[test]
fn urgent_data_does_not_stop_a_stream() {
    let (_host, listener) = carrying();
    let mut client = connect();
    let mut server = accept(&listener);
    client.write_all(b"before").unwrap();
    let urgent = rustix::net::send(&client, b"!", rustix::net::SendFlags::OOB);
    assert_eq!(urgent, Ok(1));
    client.write_all(b"after").unwrap();
    let mut text = [0; 11];
    server.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"beforeafter");
    // And splice(2) goes on.
    client.write_all(b"more").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut more = String::new();
    server.read_to_string(&mut more).unwrap();
    assert_eq!(more, "more");
}

#[test]
fn urgent_data_is_not_taken_for_the_end_that_follows_it() {
    let (host, listener) = carrying();
    for (before, after) in [("before", "after"), ("", "after"), ("before", "")] {
        // All of it is there, and the end, when the next netd comes.
        host.kill_netd();
        let mut client = connect();
        client.write_all(before.as_bytes()).unwrap();
        let urgent = rustix::net::send(&client, b"!", rustix::net::SendFlags::OOB);
        assert_eq!(urgent, Ok(1));
        client.write_all(after.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        host.client.status().unwrap();
        let mut server = accept(&listener);
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("{before}{after}"));
        server.write_all(b"answer").unwrap();
        drop(server);
        text.clear();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
    }
}

/// A process that has descriptors and does nothing, as the keeper of a netd that was killed in a certain moment. The mark
/// names it.
struct Left {
    child: gantry_sys::process::Child,
}

/// The numbers that descriptors have there.
const LISTENER: i32 = 20;
const CLIENT: i32 = 21;
const SERVER: i32 = 22;
const LEDGER: i32 = 23;
const READER: i32 = 24;
const WRITER: i32 = 25;

impl Left {
    /// `slot` is what the ledger says of the one connection, of `version`.
    fn new(host: &Host, version: u64, slot: &[u64], fds: &[(&dyn AsFd, i32)]) -> Self {
        let words = SharedWords::new(c"ledger", 16).unwrap();
        let head = [u64::from_le_bytes(*b"gtyledgr"), version, 8, 1];
        for (index, word) in head.iter().enumerate() {
            words.store(index, *word);
        }
        for (index, word) in slot.iter().enumerate() {
            words.store(8 + index, *word);
        }
        let mut fds: Vec<_> = fds
            .iter()
            .map(|(fd, number)| (fd.as_fd(), *number))
            .collect();
        fds.push((words.fd().as_fd(), LEDGER));
        let child = spawn(&Spawn {
            program: c"/bin/sleep",
            arguments: &StringList::new(vec![c"sleep".to_owned(), c"600".to_owned()]),
            environment: &StringList::new(Vec::new()),
            fds: &fds,
            session: false,
            directory: None,
        })
        .unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.pid)).unwrap();
        let start = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .nth(19)
            .unwrap();
        let mark = format!("{:<127}\n", format!("{} {start} {LEDGER} 0 0", child.pid));
        fs::write(state_dir(host.exec_root.path()).join("lock"), mark).unwrap();
        Self { child }
    }

    fn is_ended(&self) -> bool {
        gantry_sys::process::wait_pidfd(self.child.pidfd.as_fd(), false)
            .unwrap()
            .is_some()
    }
}

/// The word of two descriptors.
fn word(first: i32, second: i32) -> u64 {
    u64::from(first.cast_unsigned() + 1) | u64::from(second.cast_unsigned() + 1) << 32
}

/// What a ledger says of the client, the server, these pipes and these flags.
fn slot(pipes: [u64; 2], flags: u64) -> [u64; 7] {
    let address = u128::from_be_bytes(CONTAINER.to_ipv6_mapped().octets());
    let sockets = word(CLIENT, SERVER);
    let [to_client, to_server] = pipes;
    let (high, low) = ((address >> 64) as u64, address as u64);
    [sockets, to_client, to_server, high, low, 80, flags]
}

/// A killed netd's port, with a connection accepted from it.
fn accepted(host: &Host) -> (OwnedFd, TcpStream, OwnedFd) {
    host.client.shutdown().unwrap();
    let directory = state_dir(host.exec_root.path());
    let record = r#"{"version":1,"owner":"web","reservations":[
        {"protocol":"tcp","address":"0.0.0.0","port":8080,"target":"172.17.0.2:80"},
        {"protocol":"tcp","address":"::","port":8080,"target":"172.17.0.2:80"}]}"#;
    fs::write(directory.join("web.json"), record).unwrap();
    let port = net::socket("::".parse().unwrap(), net::Transport::Tcp, true).unwrap();
    net::set_reuse_address(port.as_fd(), true).unwrap();
    net::bind(port.as_fd(), "[::]:8080".parse().unwrap()).unwrap();
    net::listen(port.as_fd(), 16).unwrap();
    let client = connect();
    let taken = loop {
        match net::accept(port.as_fd()) {
            Ok(taken) => break taken,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    };
    (port, client, taken)
}

/// Starts the next netd, and tells how many ports it has.
fn sockets(host: &Host) -> usize {
    host.client.status().unwrap().sockets
}

#[test]
fn a_connection_that_was_accepted_a_moment_before_is_carried() {
    let host = Host::new();
    let inside = host.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
    let (port, mut client, taken) = accepted(&host);
    let left = Left::new(&host, 1, &[], &[(&port, LISTENER), (&taken, CLIENT)]);
    drop((port, taken));
    client.write_all(b"hello").unwrap();
    assert_eq!(sockets(&host), 1);
    let mut server = accept(&inside);
    let mut word = [0; 5];
    server.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"hello");
    drop(server);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    assert!(left.is_ended());
}

#[test]
fn a_connection_that_was_written_down_and_not_begun_is_begun() {
    let host = Host::new();
    let inside = host.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
    let (port, mut client, taken) = accepted(&host);
    let server = net::socket(CONTAINER.into(), net::Transport::Tcp, false).unwrap();
    let fds: [(&dyn AsFd, i32); 3] = [(&port, LISTENER), (&taken, CLIENT), (&server, SERVER)];
    let left = Left::new(&host, 1, &slot([0, 0], 0), &fds);
    drop((port, taken, server));
    assert_eq!(host.client.status().unwrap().forwards, 1);
    accept(&inside).write_all(b"here").unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "here");
    assert!(left.is_ended());
}

#[test]
fn bytes_that_were_in_the_memory_of_a_killed_netd_are_not_left_out() {
    let host = Host::new();
    let inside = host.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
    // It failed, or it was copying.
    for flags in [1, 2] {
        let (port, mut client, taken) = accepted(&host);
        let (server, mut end) = connected(&inside);
        let fds: [(&dyn AsFd, i32); 3] = [(&port, LISTENER), (&taken, CLIENT), (&server, SERVER)];
        let _left = Left::new(&host, 1, &slot([0, 0], flags), &fds);
        drop((port, taken, server));
        assert_eq!(sockets(&host), 1);
        for end in [&mut client, &mut end] {
            let error = end.read(&mut [0; 1]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }
}

/// A socket that a killed netd had connected to the container, and the other end of it.
fn connected(inside: &TcpListener) -> (OwnedFd, TcpStream) {
    let server = net::socket(CONTAINER.into(), net::Transport::Tcp, false).unwrap();
    net::connect(server.as_fd(), SocketAddr::from((CONTAINER, 80))).unwrap();
    let end = accept(inside);
    let start = Instant::now();
    while net::tcp_state(server.as_fd()).unwrap() != net::TcpState::Connected {
        assert!(start.elapsed() < PATIENCE);
    }
    (server, end)
}

fn until_closed(socket: &OwnedFd) {
    let start = Instant::now();
    while net::tcp_state(socket.as_fd()).unwrap() != net::TcpState::Closed {
        assert!(start.elapsed() < PATIENCE);
    }
}

#[test]
fn a_reset_whose_error_a_killed_netd_had_taken_is_passed_on() {
    let host = Host::new();
    let inside = host.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
    let (port, mut client, taken) = accepted(&host);
    let (server, end) = connected(&inside);
    rustix::net::sockopt::set_socket_linger(&end, Some(Duration::ZERO)).unwrap();
    drop(end);
    until_closed(&server);
    assert!(net::take_error(server.as_fd()).unwrap().is_some());
    let fds: [(&dyn AsFd, i32); 3] = [(&port, LISTENER), (&taken, CLIENT), (&server, SERVER)];
    let _left = Left::new(&host, 1, &slot([0, 0], 0), &fds);
    drop((port, taken, server));
    assert_eq!(sockets(&host), 1);
    let error = client.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn what_is_in_a_pipe_comes_before_the_end_of_a_side_that_is_closed() {
    let host = Host::new();
    let inside = host.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
    let (port, mut client, taken) = accepted(&host);
    let (server, mut end) = connected(&inside);
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::write(&writer, b"first ").unwrap();
    end.write_all(b"second").unwrap();
    end.shutdown(Shutdown::Write).unwrap();
    rustix::net::shutdown(&server, rustix::net::Shutdown::Write).unwrap();
    assert_eq!(end.read(&mut [0; 1]).unwrap(), 0);
    until_closed(&server);
    let fds: [(&dyn AsFd, i32); 5] = [
        (&port, LISTENER),
        (&taken, CLIENT),
        (&server, SERVER),
        (&reader, READER),
        (&writer, WRITER),
    ];
    const SERVER_IS_SHUT: u64 = 8;
    let slot = slot([word(READER, WRITER), 0], SERVER_IS_SHUT);
    let _left = Left::new(&host, 1, &slot, &fds);
    drop((port, taken, server, reader, writer));
    assert_eq!(sockets(&host), 1);
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "first second");
}

#[test]
fn a_ledger_of_another_version_is_not_taken_up() {
    let host = Host::new();
    let inside = host.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
    let (port, mut client, taken) = accepted(&host);
    let (server, mut end) = connected(&inside);
    let fds: [(&dyn AsFd, i32); 3] = [(&port, LISTENER), (&taken, CLIENT), (&server, SERVER)];
    let left = Left::new(&host, 2, &[], &fds);
    drop((port, taken, server));
    let mut waiting = connect();
    assert_eq!(sockets(&host), 1);
    // What belongs together is not known: nobody takes it for the end of all bytes.
    for end in [&mut client, &mut end] {
        let error = end.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    // Who waits in the queue is not lost with the port.
    accept(&inside).write_all(b"here").unwrap();
    let mut text = String::new();
    waiting.read_to_string(&mut text).unwrap();
    assert_eq!(text, "here");
    assert!(left.is_ended());
}

#[test]
fn a_connection_at_which_one_netd_after_the_other_has_died_is_reset() {
    const TRIES: usize = 7;
    let host = Host::new();
    let inside = host.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
    for (tries, is_carried) in [(3, true), (4, false)] {
        let (port, mut client, taken) = accepted(&host);
        let (server, mut end) = connected(&inside);
        let fds: [(&dyn AsFd, i32); 3] = [(&port, LISTENER), (&taken, CLIENT), (&server, SERVER)];
        let mut words = [0; 8];
        words[..TRIES].copy_from_slice(&slot([0, 0], 0));
        words[TRIES] = tries;
        let _left = Left::new(&host, 1, &words, &fds);
        drop((port, taken, server));
        assert_eq!(sockets(&host), 1);
        if is_carried {
            // Once something was done for it, it is as good as any.
            for _ in 0..6 {
                end.write_all(b"x").unwrap();
                client.read_exact(&mut [0; 1]).unwrap();
                host.kill_netd();
                host.client.status().unwrap();
            }
            continue;
        }
        for end in [&mut client, &mut end] {
            let error = end.read(&mut [0; 1]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }
}

#[test]
fn a_connection_that_kills_netd_does_not_kill_every_next_one() {
    const SPLICE_KILLS: &str = "275:kill";
    let scripts = tempfile::tempdir().unwrap();
    let script = scripts.path().join("without.py");
    fs::write(&script, WITHOUT).unwrap();
    let host = Host::with_netd(|exec_root| without(&script, SPLICE_KILLS, exec_root));
    host.client
        .reserve("web", &both(Protocol::Tcp, 8080, 80))
        .unwrap();
    let listener = host.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
    let mut client = connect();
    let mut server = accept(&listener);
    client.write_all(b"x").unwrap();
    let over = AtomicBool::new(false);
    let netds = thread::scope(|scope| {
        // A daemon starts one after the other.
        let asking = scope.spawn(|| {
            let mut netds = std::collections::HashSet::new();
            while !over.load(Ordering::Relaxed) {
                netds.extend(host.client.status().map(|status| status.pid));
                thread::sleep(Duration::from_millis(5));
            }
            netds
        });
        let reads = [&mut client, &mut server]
            .map(|end| end.read(&mut [0; 1]).map_err(|error| error.kind()));
        // And the last one stays.
        thread::sleep(Duration::from_millis(200));
        over.store(true, Ordering::Relaxed);
        assert_eq!(reads, [Err(ErrorKind::ConnectionReset); 2]);
        asking.join().unwrap()
    });
    println!("{} netds were asked", netds.len());
    let status = host.client.status().unwrap();
    assert_eq!((status.forwards, status.sockets), (0, 1));
    let pid = status.pid;
    thread::sleep(Duration::from_millis(300));
    assert_eq!(host.client.status().unwrap().pid, pid);
}

#[test]
fn what_somebody_else_has_open_as_well_ends_all_the_same() {
    let (host, listener) = carrying();
    // As a predecessor's keeper that does not end: all of netd's sockets.
    let copies = || {
        let pid = host.client.status().unwrap().pid;
        let pidfd = host.client.pidfd().unwrap();
        let numbers = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let numbers = numbers.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let copies = numbers.filter_map(|number| {
            let flags = rustix::process::PidfdGetfdFlags::empty();
            let fd = rustix::process::pidfd_getfd(&pidfd, number.parse().unwrap(), flags).ok()?;
            let is_tcp = rustix::net::sockopt::socket_protocol(&fd)
                == Ok(Some(rustix::net::ipproto::TCP))
                && rustix::net::sockopt::socket_acceptconn(&fd) == Ok(false);
            is_tcp.then_some(fd)
        });
        let copies: Vec<OwnedFd> = copies.collect();
        assert_eq!(copies.len(), 2);
        copies
    };
    let used = || {
        let pid = host.client.status().unwrap().pid;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let words: Vec<&str> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        words[11].parse::<u64>().unwrap() + words[12].parse::<u64>().unwrap()
    };
    // In order.
    let (mut client, mut server) = (connect(), accept(&listener));
    client.write_all(b"x").unwrap();
    server.read_exact(&mut [0; 1]).unwrap();
    let held = copies();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    let start = Instant::now();
    while host.client.status().unwrap().forwards > 0 {
        assert!(start.elapsed() < PATIENCE);
    }
    let before = used();
    thread::sleep(Duration::from_millis(500));
    // Of fifty ticks.
    assert!(used() - before < 20, "netd does not rest");
    drop(held);
    // By a reset, which is passed on.
    let (client, mut server) = (connect(), accept(&listener));
    (&client).write_all(b"x").unwrap();
    server.read_exact(&mut [0; 1]).unwrap();
    let _held = copies();
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    let error = server.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn with_few_descriptors_ports_are_taken_over_and_no_connection_ends_as_if_it_were_whole() {
    const COUNT: usize = 40;
    let scratch = tempfile::tempdir().unwrap();
    let few = scratch.path().join("few");
    let host = Host::with_netd(|exec_root| SpawnOptions {
        exec_root: exec_root.to_owned(),
        program: "/bin/sh".into(),
        arguments: vec![
            "-c".to_owned(),
            format!(
                "test -e {} && ulimit -n 64; exec {} \"$@\"",
                few.display(),
                env!("CARGO_BIN_EXE_netd-under-test"),
            ),
            "sh".to_owned(),
        ],
    });
    host.client
        .reserve("web", &both(Protocol::Tcp, 8080, 80))
        .unwrap();
    let listener = host.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
    let ends: Vec<(TcpStream, TcpStream)> =
        (0..COUNT).map(|_| (connect(), accept(&listener))).collect();
    fs::write(&few, "").unwrap();
    host.kill_netd();
    let status = host.client.status().unwrap();
    assert_eq!(status.sockets, 1);
    let mut carried = 0;
    for (mut client, mut server) in ends {
        let moment = Some(Duration::from_millis(100));
        server.set_read_timeout(moment).unwrap();
        match server.read(&mut [0; 1]).map_err(|error| error.kind()) {
            Err(ErrorKind::WouldBlock) => {
                carried += 1;
                server.set_read_timeout(Some(PATIENCE)).unwrap();
                client.write_all(b"x").unwrap();
                server.read_exact(&mut [0; 1]).unwrap();
            }
            lost => {
                assert_eq!(lost, Err(ErrorKind::ConnectionReset));
                let lost = client.read(&mut [0; 1]).map_err(|error| error.kind());
                assert_eq!(lost, Err(ErrorKind::ConnectionReset));
            }
        }
    }
    println!("{carried} of {COUNT} are carried on");
    assert!((1..COUNT).contains(&carried));
    assert_eq!(carried, status.forwards);
}

#[test]
fn a_mark_that_names_nobody_is_no_hindrance() {
    let host = Host::new();
    for mark in ["", "x", "1 1 1 1 1\n", "999999999 1 1 999999998 1"] {
        host.client.shutdown().unwrap();
        let path = state_dir(host.exec_root.path()).join("lock");
        fs::write(&path, format!("{mark:<128}")).unwrap();
        host.client.status().unwrap();
        host.one_keeper();
        assert!(File::open(&path).is_ok());
    }
}

/// Executes a program that may not make one system call, the first argument, as before it was there or by a policy; with
/// `:kill` behind it the call kills it.
const WITHOUT: &str = r#"
import ctypes, os, struct, sys
(number, _, kills), real = sys.argv[1].partition(":"), sys.argv[2]
number, action = int(number), 0x80000000 if kills else 0x00050001
# Loads the number; equal: EPERM, or the end; else: allowed.
code = b"".join(struct.pack("HBBI", *line) for line in [
    (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, action), (0x06, 0, 0, 0x7fff0000)])
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(code := ctypes.create_string_buffer(code))))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()
os.execv(real, [real] + sys.argv[3:])
"#;

/// How a netd is started that lacks a call.
fn without(script: &std::path::Path, call: &str, exec_root: &std::path::Path) -> SpawnOptions {
    SpawnOptions {
        exec_root: exec_root.to_owned(),
        program: "/bin/sh".into(),
        arguments: vec![
            "-c".to_owned(),
            format!(
                "exec {} {} {call} {} \"$@\"",
                python(),
                script.display(),
                env!("CARGO_BIN_EXE_netd-under-test"),
            ),
            "sh".to_owned(),
        ],
    }
}

#[test]
fn where_the_calls_are_forbidden_connections_end_and_the_rest_goes_on() {
    const CLONE3: i32 = 435;
    const PIDFD_GETFD: i32 = 438;
    let scripts = tempfile::tempdir().unwrap();
    let script = scripts.path().join("without.py");
    fs::write(&script, WITHOUT).unwrap();
    for (call, keepers) in [(CLONE3, 0), (PIDFD_GETFD, 1)] {
        let host = Host::with_netd(|exec_root| without(&script, &call.to_string(), exec_root));
        host.client
            .reserve("web", &both(Protocol::Tcp, 8080, 80))
            .unwrap();
        let listener = host.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
        for _ in 0..3 {
            let mut client = connect();
            let mut server = accept(&listener);
            client.write_all(b"x").unwrap();
            server.read_exact(&mut [0; 1]).unwrap();
            let start = Instant::now();
            while host.keepers().len() != keepers {
                assert!(start.elapsed() < PATIENCE, "{:?}", host.keepers());
                thread::sleep(Duration::from_millis(5));
            }
            host.kill_netd();
            assert_eq!(host.client.status().unwrap().sockets, 1);
            for end in [&mut client, &mut server] {
                let ended = end.read(&mut [0; 1]);
                let is_end = match &ended {
                    Ok(length) => *length == 0,
                    Err(error) => error.kind() == ErrorKind::ConnectionReset,
                };
                assert!(is_end, "{ended:?}");
            }
        }
    }
}
