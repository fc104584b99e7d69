//! Names, answered by netd as a process, with containers and servers in network namespaces. Needs root.

mod fixture;
mod hostile;
mod upstream;

use std::collections::HashSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fixture::{
    A, AAAA, Answer, Container, Host, MX, NOERROR, OPT, PTR, SERVFAIL, endpoint, query, receive,
    resolver, send, servers,
};
use gantry_netd::client;
use gantry_netd::protocol::Resolver;
use gantry_sys::datagrams::Inbox;
use gantry_sys::unix;
use rustix::process::Signal;

#[test]
fn names_are_answered_over_both_transports() {
    let host = Host::new();
    host.client
        .put_names(endpoint(
            "e1",
            &["web", "www", "0123456789ab"],
            &["10.0.0.2", "fd00::2"],
        ))
        .unwrap();
    host.client
        .put_names(endpoint("e2", &["db", "www"], &["10.0.0.3"]))
        .unwrap();
    let container = Container::new(&host, &resolver("c1", servers(&[])));
    for ask in [Container::ask, Container::ask_tcp] {
        ask(&container, "web", A).is(NOERROR, &["10.0.0.2"]);
        ask(&container, "WEB.front", A).is(NOERROR, &["10.0.0.2"]);
        ask(&container, "web", AAAA).is(NOERROR, &["fd00::2"]);
        ask(&container, "db", AAAA).is(NOERROR, &[]);
        ask(&container, "site", A).is(NOERROR, &["10.0.0.2"]);
        ask(&container, "www", A).is(NOERROR, &["10.0.0.2", "10.0.0.3"]);
        ask(&container, "3.0.0.10.in-addr.arpa", PTR).is(NOERROR, &["db.front."]);
        ask(&container, "nobody", A).is(SERVFAIL, &[]);
    }
    host.client.drop_names("n1", "e1").unwrap();
    container.ask("web", A).is(SERVFAIL, &[]);
    container.ask("www", A).is(NOERROR, &["10.0.0.3"]);
    host.client
        .names("n1", vec![endpoint("e3", &["new"], &["10.0.0.4"])])
        .unwrap();
    container.ask("db", A).is(SERVFAIL, &[]);
    container.ask("new", A).is(NOERROR, &["10.0.0.4"]);
    // The same container on another network knows other names.
    let mut moved = resolver("c1", servers(&[]));
    moved.networks[0].id = "n2".to_owned();
    host.client.resolver(&moved, None).unwrap();
    container.ask("new", A).is(SERVFAIL, &[]);
}

/// What Docker 28.5 answered, recorded by the byte.
#[test]
fn answers_are_dockers() {
    let host = Host::new();
    host.client
        .put_names(endpoint("e1", &["dn1"], &["10.233.77.2"]))
        .unwrap();
    let mut resolver = resolver("c1", servers(&[]));
    resolver.networks[0].name = "dnetd".to_owned();
    let container = Container::new(&host, &resolver);
    let reverse = "2.77.233.10.in-addr.arpa";
    let flagged = |flags: [u8; 2]| {
        let mut bytes = query(0x1234, "dn1", A, &[]);
        bytes[2..4].copy_from_slice(&flags);
        bytes
    };
    let asked_and_answered: &[(Vec<u8>, &str)] = &[
        (
            query(0x1234, "DN1", A, &[]),
            "12348180000100010000000003444e31000001000103444e3100000100010000025800040ae94d02",
        ),
        (
            query(0x1234, "dn1.dnetd", A, &[]),
            "12348180000100010000000003646e3105646e657464000001000103646e3105646e65746400000100010000025800040ae94d02",
        ),
        (
            query(0x1234, "dn1", AAAA, &[]),
            "12348180000100000000000003646e3100001c0001",
        ),
        (
            query(0x1234, "dn1", MX, &[]),
            "12348180000100000000000003646e3100000f0001",
        ),
        (
            query(0x1234, reverse, PTR, &[]),
            "12348180000100010000000001320237370332333302313007696e2d61646472046172706100000c0001\
             01320237370332333302313007696e2d61646472046172706100000c000100000258000b03646e3105646e65746400",
        ),
        (
            flagged([0x01, 0x10]),
            "12348190000100010000000003646e31000001000103646e3100000100010000025800040ae94d02",
        ),
        (
            flagged([0, 0]),
            "12348080000100010000000003646e31000001000103646e3100000100010000025800040ae94d02",
        ),
        (
            flagged([0x01, 0x20]),
            "12348180000100010000000003646e31000001000103646e3100000100010000025800040ae94d02",
        ),
        (flagged([0x10, 0]), "123490040000000000000000"),
        (
            query(0x1234, "dn1", A, &[])[..20].to_vec(),
            "123481010000000000000000",
        ),
        (
            vec![0, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            "000781010000000000000000",
        ),
    ];
    for (asked, answered) in asked_and_answered {
        let (socket, mut stream) = (container.udp(), container.tcp());
        let mut buffer = [0; 512];
        socket.send(asked).unwrap();
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(hex(&expanded(&buffer[..length])), *answered);
        send(&mut stream, asked);
        assert_eq!(hex(&expanded(&receive(&mut stream))), *answered);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the name of the first record out, which Docker does not compress.
fn expanded(message: &[u8]) -> Vec<u8> {
    let name_end = message[12..]
        .iter()
        .position(|&byte| byte == 0)
        .map_or(message.len(), |length| 13 + length);
    let mut all = message.to_vec();
    if all.get(name_end + 4) == Some(&0xc0) {
        all.splice(name_end + 4..name_end + 6, message[12..name_end].to_vec());
    }
    all
}

#[test]
fn many_answers_are_shuffled_and_cut_for_datagrams_alone() {
    let host = Host::new();
    let all: Vec<String> = (1..=200).map(|last| format!("10.0.0.{last}")).collect();
    let mut sorted: Vec<&str> = all.iter().map(String::as_str).collect();
    host.client
        .put_names(endpoint("e1", &["many"], &sorted))
        .unwrap();
    host.client
        .put_names(endpoint("e2", &["few"], &["10.1.0.1", "10.1.0.2"]))
        .unwrap();
    sorted.sort_unstable();
    let container = Container::new(&host, &resolver("c1", servers(&[])));
    container.ask_tcp("many", A).is(NOERROR, &sorted);
    let cut = container.ask("many", A);
    assert!(
        cut.is_cut && cut.length <= 512 && cut.data.len() == 30,
        "{cut:?}"
    );
    let socket = container.udp();
    socket.send(&query(7, "many", A, OPT)).unwrap();
    Answer::receive(&socket).is(NOERROR, &sorted);
    let first = (0..100).map(|_| container.ask("few", A).data.remove(0));
    assert_eq!(first.collect::<HashSet<_>>().len(), 2);
}

#[test]
fn several_questions_on_one_connection_are_all_answered() {
    let host = Host::new();
    host.client
        .put_names(endpoint("e1", &["web"], &["10.0.0.2"]))
        .unwrap();
    let container = Container::new(&host, &resolver("c1", servers(&[])));
    let mut stream = container.tcp();
    for id in 0..1000 {
        send(&mut stream, &query(id, "web", A, &[]));
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    for id in 0..1000 {
        assert_eq!(Answer::parse(&receive(&mut stream)).id, id);
    }
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn a_killed_netd_is_back_with_all_names_and_loses_no_question() {
    let host = Host::new();
    host.client
        .put_names(endpoint("e1", &["web"], &["10.0.0.2"]))
        .unwrap();
    let container = Container::new(&host, &resolver("c1", servers(&[])));
    container.ask("web", A).is(NOERROR, &["10.0.0.2"]);
    for round in 0..10 {
        host.kill_netd();
        let (socket, mut stream) = (container.udp(), container.tcp());
        socket.send(&query(round, "web", A, &[])).unwrap();
        send(&mut stream, &query(round, "web", A, &[]));
        let since = Instant::now();
        // The next one is started by the question, and knows who it cannot hear.
        assert_eq!(host.client.resolvers().unwrap(), ["c1"]);
        container.hand_over(&host);
        Answer::receive(&socket).is(NOERROR, &["10.0.0.2"]);
        Answer::parse(&receive(&mut stream)).is(NOERROR, &["10.0.0.2"]);
        assert!(since.elapsed() < Duration::from_secs(1));
        assert!(host.client.resolvers().unwrap().is_empty());
    }
}

/// A thread looks after netd as the engine does, while it is killed again and again under questions without pause.
#[test]
fn what_a_killed_netd_had_taken_is_answered_by_the_next() {
    let host = Host::new();
    let web = endpoint("e1", &["web"], &["10.0.0.2"]);
    host.client.put_names(web).unwrap();
    let container = Container::new(&host, &resolver("c1", servers(&[])));
    let other = Container::new(&host, &resolver("c2", servers(&[])));
    container.ask("web", A).is(NOERROR, &["10.0.0.2"]);
    // Stopped, so that the test takes the question in its place, just as it does itself.
    let netd = rustix::process::Pid::from_raw(host.client.status().unwrap().pid as i32).unwrap();
    rustix::process::kill_process(netd, Signal::STOP).unwrap();
    let asking = container.udp();
    asking.send(&query(9, "web", A, &[])).unwrap();
    let file = client::questions_path(host.exec_root.path());
    let file = File::options().read(true).write(true).open(file).unwrap();
    let mut taken = Inbox::open(&file).unwrap();
    assert_eq!(taken.receive(container.questions(), "c1").unwrap(), 1);
    rustix::process::kill_process(netd, Signal::KILL).unwrap();
    while host
        .client
        .status()
        .is_ok_and(|status| status.pid == netd.as_raw_pid() as u32)
    {
        thread::sleep(Duration::from_millis(5));
    }
    // Somebody else comes first: the question is kept for its own container.
    other.hand_over(&host);
    other.ask("web", A).is(NOERROR, &["10.0.0.2"]);
    container.hand_over(&host);
    let answer = Answer::receive(&asking);
    assert_eq!(answer.id, 9);
    answer.is(NOERROR, &["10.0.0.2"]);
    container.ask("web", A).is(NOERROR, &["10.0.0.2"]);
    asking.set_nonblocking(true).unwrap();
    let again = asking.recv(&mut [0; 512]).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::WouldBlock, "it is answered once");
}

#[test]
fn no_question_fails_or_waits_long_while_netd_is_killed() {
    const KILLS: u32 = 100;
    let host = Host::new();
    host.client
        .put_names(endpoint("e1", &["web"], &["10.0.0.2"]))
        .unwrap();
    let container = Container::new(&host, &resolver("c1", servers(&[])));
    let is_over = AtomicBool::new(false);
    let (host, container) = (&host, &container);
    let longest = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let process = host.client.pidfd().unwrap();
                for id in host.client.resolvers().unwrap() {
                    assert_eq!(id, container.id);
                    container.hand_over(host);
                }
                let pause = Duration::from_millis(200);
                while unix::wait_readable(process.as_fd(), pause).is_err()
                    && !is_over.load(Ordering::Relaxed)
                {}
            }
        });
        let asking = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            let socket = container.udp();
            for id in 0.. {
                let since = Instant::now();
                if id % 10 == 0 {
                    // A connection ends with the process that it is to; whoever asks begins another.
                    while !is_answered_by_tcp(container) {}
                } else {
                    socket.send(&query(id as u16, "web", A, &[])).unwrap();
                    let mut answer = Answer::receive(&socket);
                    // Killed after an answer, netd leaves the question to the next, which answers once more.
                    while answer.id != id as u16 {
                        answer = Answer::receive(&socket);
                    }
                    answer.is(NOERROR, &["10.0.0.2"]);
                }
                longest = longest.max(since.elapsed());
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
            longest
        });
        for _ in 0..KILLS {
            thread::sleep(Duration::from_millis(50));
            host.kill_netd();
        }
        thread::sleep(Duration::from_millis(50));
        is_over.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    println!("the longest wait was {longest:?}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

/// False: the connection has broken.
fn is_answered_by_tcp(container: &Container) -> bool {
    let mut stream = container.tcp();
    send(&mut stream, &query(7, "web", A, &[]));
    let mut head = [0; 2];
    if let Err(error) = stream.read_exact(&mut head) {
        let is_broken = matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
        );
        assert!(is_broken, "{error}");
        return false;
    }
    let mut answer = vec![0; usize::from(u16::from_be_bytes(head))];
    if stream.read_exact(&mut answer).is_err() {
        return false;
    }
    Answer::parse(&answer).is(NOERROR, &["10.0.0.2"]);
    true
}

#[test]
fn with_the_shim_ends_the_asking() {
    let host = Host::new();
    let mut container = Container::new(&host, &resolver("c1", servers(&[])));
    let mut stays = Container::new(&host, &resolver("c2", servers(&[])));
    assert_eq!(host.client.status().unwrap().resolvers, 2);
    container.shim.kill().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while host.client.status().unwrap().resolvers == 2 {
        assert!(Instant::now() < until);
        thread::sleep(Duration::from_millis(5));
    }
    host.kill_netd();
    assert_eq!(host.client.resolvers().unwrap(), ["c2"]);
    // Handed over after the shim's end, the sockets are closed at once.
    stays.shim.kill().unwrap();
    stays.shim.wait().unwrap();
    stays.hand_over(&host);
    while host.client.status().unwrap().resolvers > 0 {
        assert!(Instant::now() < until);
        thread::sleep(Duration::from_millis(5));
    }
    host.client.drop_resolver("c2").unwrap();
}

#[test]
fn a_dropped_resolver_answers_nobody() {
    let host = Host::new();
    let container = Container::new(&host, &resolver("c1", servers(&[])));
    container.ask("nobody", A).is(SERVFAIL, &[]);
    let mut open = container.tcp();
    host.client.drop_resolver("c1").unwrap();
    assert_eq!(open.read(&mut [0]).unwrap(), 0);
    let socket = container.udp();
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    socket.send(&query(1, "web", A, &[])).unwrap();
    assert_eq!(
        socket.recv(&mut [0; 512]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    // The kept sockets are as they were: another resolver may take them.
    host.client
        .resolver(&resolver("c1", servers(&[])), None)
        .unwrap();
    container.hand_over(&host);
    assert_eq!(Answer::receive_after(&socket, Duration::from_secs(5)).id, 1);
}

#[test]
fn what_the_daemon_says_wrongly_is_refused() {
    let host = Host::new();
    for container in ["", "../c", ".c"] {
        let wrong = Resolver {
            container: container.to_owned(),
            ..resolver("", servers(&[]))
        };
        let error = host.client.resolver(&wrong, None).unwrap_err();
        assert!(error.to_string().contains("invalid id"), "{error}");
    }
    let mut stranger = endpoint("e1", &["web"], &["10.0.0.2"]);
    stranger.network = "n2".to_owned();
    assert!(host.client.names("n1", vec![stranger]).is_err());
    let container = Container::new(&host, &resolver("c1", servers(&[])));
    host.client.drop_resolver("c1").unwrap();
    host.client.drop_resolver("c1").unwrap();
    host.client.drop_names("n1", "e9").unwrap();
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        container.hand_over(&host);
    }));
    assert!(refused.is_err(), "sockets of an unknown resolver");
}

/// A floor far below what is wanted, for a build that is not optimised and a machine that has other work.
#[test]
fn thousands_of_names_a_second_are_looked_up() {
    const COUNT: usize = 20_000;
    const WINDOW: usize = 64;
    let host = Host::new();
    for number in 0..200 {
        let names = [format!("web{number}"), format!("{number:012x}")];
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        host.client
            .put_names(endpoint(&format!("e{number}"), &names, &["10.0.0.2"]))
            .unwrap();
    }
    let container = Container::new(&host, &resolver("c1", servers(&[])));
    let socket = container.udp();
    let since = Instant::now();
    let mut buffer = [0; 512];
    for sent in 0..COUNT + WINDOW {
        if sent < COUNT {
            let name = format!("web{}", sent % 200);
            socket.send(&query(sent as u16, &name, A, &[])).unwrap();
        }
        if sent >= WINDOW {
            socket.recv(&mut buffer).unwrap();
        }
    }
    let per_second = COUNT as f64 / since.elapsed().as_secs_f64();
    println!("{per_second:.0} look-ups a second");
    assert!(per_second > 3000.0, "{per_second:.0} a second");
}

impl Answer {
    fn receive_after(socket: &std::net::UdpSocket, patience: Duration) -> Self {
        socket.set_read_timeout(Some(patience)).unwrap();
        Self::receive(socket)
    }
}

/// A connection that must not be there.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}
