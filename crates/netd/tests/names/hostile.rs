//! A container that means harm: the others do not notice.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::fixture::{
    A, Answer, Container, FORMERR, Host, NOERROR, REFUSED, Server, endpoint, query, resolver, send,
    servers,
};
use crate::is_closed;

struct Both {
    host: Host,
    evil: Container,
    good: Container,
}

impl Both {
    /// Two containers; the server of the first is silent.
    fn new() -> (Self, Server) {
        let host = Host::new();
        host.client
            .put_names(endpoint("e1", &["web"], &["10.0.0.2"]))
            .unwrap();
        let evil = Container::new(&host, &resolver("evil", servers(&["127.0.0.2"])));
        let good = Container::new(&host, &resolver("good", servers(&["127.0.0.2"])));
        let silent = Server::new(evil.netns(), "127.0.0.2", |_, _| Vec::new());
        (Self { host, evil, good }, silent)
    }

    #[track_caller]
    fn good_is_served(&self) {
        let since = Instant::now();
        self.good.ask("web", A).is(NOERROR, &["10.0.0.2"]);
        self.good.ask_tcp("web", A).is(NOERROR, &["10.0.0.2"]);
        let waited = since.elapsed();
        assert!(waited < Duration::from_secs(1), "{waited:?}");
    }
}

#[test]
fn questions_that_nobody_answers_fill_one_containers_share_alone() {
    let (both, _silent) = Both::new();
    let socket = both.evil.udp();
    for number in 0..1024 {
        let name = format!("name{number}.example.com");
        socket.send(&query(number, &name, A, &[])).unwrap();
        if number % 64 == 0 {
            // So that the queue loses none.
            both.host.client.status().unwrap();
        }
    }
    let until = Instant::now() + Duration::from_secs(3);
    while both.host.client.status().unwrap().lookups_pending < 1024 {
        assert!(Instant::now() < until, "the queue has lost some");
        std::thread::sleep(Duration::from_millis(5));
    }
    socket.send(&query(9999, "example.com", A, &[])).unwrap();
    let refused = Answer::receive(&socket);
    assert_eq!((refused.id, refused.rcode), (9999, REFUSED));
    // What is known costs no server.
    both.evil.ask("web", A).is(NOERROR, &["10.0.0.2"]);
    let _server = Server::new(both.good.netns(), "127.0.0.2", |query, _| {
        vec![crate::fixture::reply(query, 0, &["192.0.2.1"])]
    });
    both.good.ask("example.com", A).is(NOERROR, &["192.0.2.1"]);
    both.good_is_served();
}

#[test]
fn connections_are_limited_and_silent_ones_are_closed() {
    let (both, _silent) = Both::new();
    let mut streams: Vec<TcpStream> = (0..100).map(|_| both.evil.tcp()).collect();
    both.good_is_served();
    // Half a length, and an answer where a question should be.
    streams[0].write_all(&[0]).unwrap();
    let mut answer = query(1, "web", A, &[]);
    answer[2] |= 0x80;
    send(&mut streams[1], &answer);
    let since = Instant::now();
    assert!(is_closed(&mut streams[1]));
    assert!(since.elapsed() < Duration::from_secs(2));
    let closed = streams.iter_mut().skip(64).filter_map(|stream| {
        stream.set_nonblocking(true).unwrap();
        is_closed_now(stream).then_some(())
    });
    assert_eq!(closed.count(), 36);
    for stream in &mut streams[2..64] {
        assert!(is_closed(stream));
    }
    assert!(is_closed(&mut streams[0]));
    let waited = since.elapsed().as_secs_f64();
    assert!((6.0..19.0).contains(&waited), "{waited} s");
    both.good_is_served();
}

fn is_closed_now(stream: &mut TcpStream) -> bool {
    matches!(stream.peek(&mut [0]), Ok(0))
        || matches!(stream.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset)
}

/// A client that asks and never reads: its answers are not kept without end.
#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let (both, _silent) = Both::new();
    let all: Vec<String> = (1..=250).map(|last| format!("10.9.0.{last}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    both.host
        .client
        .put_names(endpoint("e2", &["many"], &all))
        .unwrap();
    let mut stream = both.evil.tcp();
    stream
        .set_write_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let question = query(1, "many", A, &[]);
    let mut bytes = (question.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(&question);
    let many = bytes.repeat(100);
    let cut_off = (0..10_000).find_map(|_| stream.write_all(&many).err());
    let cut_off = cut_off.expect("the connection is closed");
    assert!(
        matches!(
            cut_off.kind(),
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
        ),
        "{cut_off}"
    );
    both.good_is_served();
}

#[test]
fn a_huge_question_is_not_kept_for_a_server() {
    let (both, _silent) = Both::new();
    let socket = both.evil.udp();
    // What follows the question counts for nothing but its length.
    let mut huge = query(7, "example.com", A, &[]);
    huge.resize(40_000, 0);
    socket.send(&huge).unwrap();
    let refused = Answer::receive(&socket);
    assert_eq!((refused.id, refused.rcode), (7, REFUSED));
    // As large, but an answer: nothing comes back, or two servers would talk to each other for ever.
    let mut answer = huge.clone();
    answer[..2].copy_from_slice(&[0, 8]);
    answer[2] |= 0x80;
    socket.send(&answer).unwrap();
    huge[..2].copy_from_slice(&[0, 9]);
    socket.send(&huge).unwrap();
    assert_eq!(Answer::receive(&socket).id, 9);
    assert_eq!(both.host.client.status().unwrap().lookups_pending, 0);
    both.good_is_served();
}

#[test]
fn nonsense_is_refused_or_ignored_while_others_are_served() {
    let (both, _silent) = Both::new();
    let socket = both.evil.udp();
    // A compression loop.
    let mut looped = query(5, "a", A, &[]);
    looped[12..15].copy_from_slice(&[0xc0, 12, 0]);
    socket.send(&looped).unwrap();
    assert_eq!(Answer::receive(&socket).rcode, FORMERR);
    let mut state = 1u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as u8
    };
    let flood = std::thread::spawn(move || {
        for round in 0..30_000 {
            let mut bytes = query(round, "web", A, &[]);
            for _ in 0..3 {
                let at = usize::from(random()) % bytes.len();
                bytes[at] = random();
            }
            bytes.truncate(usize::from(random()));
            // Nobody reads the answers.
            let _ = socket.send(&bytes);
        }
    });
    while !flood.is_finished() {
        both.good_is_served();
    }
    flood.join().unwrap();
    both.good_is_served();
}
