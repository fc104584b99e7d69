//! Names that netd does not know: who is asked, and what is done with the answers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gantry_netd::protocol::Upstreams;

use crate::fixture::{
    A, Answer, Container, Host, NOERROR, OPT, REFUSED, SERVFAIL, Server, TXT, endpoint, query,
    reply, resolver, servers,
};

fn good(query: &[u8], _: bool) -> Vec<Vec<u8>> {
    vec![reply(query, 0, &["192.0.2.1"])]
}

#[test]
fn the_hosts_servers_are_asked_from_the_host_and_a_containers_own_from_inside() {
    let host = Host::new();
    // The same address in both namespaces, with different servers.
    let outside = Server::new(host.netns(), "127.0.0.2", |query, _| {
        vec![reply(query, 0, &["192.0.2.100"])]
    });
    let path = host.resolv_conf(&["127.0.0.2"]);
    let by_host = Container::new(&host, &resolver("c1", Upstreams::Host { path }));
    let own = Container::new(&host, &resolver("c2", servers(&["127.0.0.2"])));
    let inside = Server::new(own.netns(), "127.0.0.2", |query, _| {
        vec![reply(query, 0, &["192.0.2.200"])]
    });
    for ask in [Container::ask, Container::ask_tcp] {
        ask(&by_host, "Example.com", A).is(NOERROR, &["192.0.2.100"]);
        ask(&own, "example.com", A).is(NOERROR, &["192.0.2.200"]);
    }
    assert_eq!((outside.times_asked(), inside.times_asked()), (2, 2));
    // A type that nobody here answers is passed on for known names as well, and unknown pointers are.
    host.client
        .put_names(endpoint("e1", &["web"], &["10.0.0.2"]))
        .unwrap();
    own.ask("web", TXT);
    own.ask("9.9.9.9.in-addr.arpa", 12);
    own.ask("web", A).is(NOERROR, &["10.0.0.2"]);
    assert_eq!(inside.times_asked(), 4);
}

#[test]
fn a_changed_file_of_the_host_counts_at_once() {
    let host = Host::new();
    let _one = Server::new(host.netns(), "127.0.0.2", good);
    let _two = Server::new(host.netns(), "127.0.0.3", |query, _| {
        vec![reply(query, 0, &["192.0.2.2"])]
    });
    let path = host.resolv_conf(&["127.0.0.2"]);
    let container = Container::new(&host, &resolver("c1", Upstreams::Host { path }));
    container.ask("example.com", A).is(NOERROR, &["192.0.2.1"]);
    host.resolv_conf(&["127.0.0.3"]);
    container.ask("example.com", A).is(NOERROR, &["192.0.2.2"]);
}

#[test]
fn an_internal_network_asks_no_server_of_the_hosts() {
    let host = Host::new();
    let server = Server::new(host.netns(), "127.0.0.2", good);
    let path = host.resolv_conf(&["127.0.0.2"]);
    let mut internal = resolver("c1", Upstreams::Host { path });
    internal.forwards = false;
    let container = Container::new(&host, &internal);
    container.ask("example.com", A).is(SERVFAIL, &[]);
    assert_eq!(server.times_asked(), 0);
    // A file without servers does not lead out by the host either: the usual ones are asked from inside.
    internal.forwards = true;
    internal.upstreams = Upstreams::Host {
        path: "/nonexistent/resolv.conf".into(),
    };
    host.client.resolver(&internal, None).unwrap();
    container.ask("example.com", A).is(SERVFAIL, &[]);
}

#[test]
fn a_server_that_fails_leaves_its_turn_to_the_next() {
    let host = Host::new();
    // Nobody listens on 127.0.0.2; on 127.0.0.3 somebody will not, on 127.0.0.4 somebody cannot.
    let cases: &[&[&str]] = &[
        &["127.0.0.2", "127.0.0.5"],
        &["127.0.0.3", "127.0.0.4", "127.0.0.5"],
        &["192.0.2.1", "127.0.0.5"],
    ];
    for addresses in cases {
        let container = Container::new(&host, &resolver("c1", servers(addresses)));
        let refuses = |query: &[u8], _| vec![reply(query, REFUSED as u8, &[])];
        let fails = |query: &[u8], _| vec![reply(query, SERVFAIL as u8, &[])];
        let _servers = (
            Server::new(container.netns(), "127.0.0.3", refuses),
            Server::new(container.netns(), "127.0.0.4", fails),
            Server::new(container.netns(), "127.0.0.5", good),
        );
        for ask in [Container::ask, Container::ask_tcp] {
            let since = Instant::now();
            ask(&container, "example.com", A).is(NOERROR, &["192.0.2.1"]);
            assert!(since.elapsed() < Duration::from_secs(2), "{addresses:?}");
        }
        host.client.drop_resolver("c1").unwrap();
    }
    // No such name is an answer.
    let container = Container::new(
        &host,
        &resolver("c2", servers(&["127.0.0.2", "127.0.0.3", "127.0.0.4"])),
    );
    let _server = Server::new(container.netns(), "127.0.0.2", |query, _| {
        vec![reply(query, 3, &[])]
    });
    container.ask("example.com", A).is(3, &[]);
    drop(_server);
    container.ask("example.com", A).is(SERVFAIL, &[]);
}

#[test]
fn a_silent_server_has_four_seconds() {
    let host = Host::new();
    let container = Container::new(&host, &resolver("c1", servers(&["127.0.0.2", "127.0.0.3"])));
    let _silent = Server::new(container.netns(), "127.0.0.2", |_, _| Vec::new());
    let _server = Server::new(container.netns(), "127.0.0.3", good);
    let since = Instant::now();
    let socket = container.udp();
    socket.send(&query(1, "example.com", A, &[])).unwrap();
    // Others do not wait meanwhile.
    host.client
        .put_names(endpoint("e1", &["web"], &["10.0.0.2"]))
        .unwrap();
    container.ask("web", A).is(NOERROR, &["10.0.0.2"]);
    assert!(since.elapsed() < Duration::from_secs(2));
    Answer::receive(&socket).is(NOERROR, &["192.0.2.1"]);
    let waited = since.elapsed().as_secs_f64();
    assert!((3.9..8.0).contains(&waited), "{waited} s");
}

#[test]
fn a_lie_is_not_passed_on() {
    let host = Host::new();
    let container = Container::new(&host, &resolver("c1", servers(&["127.0.0.2"])));
    let _server = Server::new(container.netns(), "127.0.0.2", |query, is_tcp| {
        let lie = reply(query, 0, &["6.6.6.6"]);
        let mut number = lie.clone();
        number[1] ^= 1;
        let mut name = lie.clone();
        name[13] ^= 1;
        let mut kind = lie.clone();
        kind[26] = 28;
        let mut question = lie.clone();
        question[2] &= 0x7f;
        let mut told = if is_tcp {
            Vec::new()
        } else {
            vec![number, name, kind, question, lie[..11].to_vec(), Vec::new()]
        };
        told.extend(good(query, is_tcp));
        told
    });
    container.ask("example.com", A).is(NOERROR, &["192.0.2.1"]);
    container
        .ask_tcp("example.com", A)
        .is(NOERROR, &["192.0.2.1"]);
}

#[test]
fn numbers_and_ports_of_questions_are_not_to_be_foretold() {
    let host = Host::new();
    let container = Container::new(&host, &resolver("c1", servers(&["127.0.0.2"])));
    // The answer tells the number with which the server was asked.
    let _server = Server::new(container.netns(), "127.0.0.2", |query, _| {
        vec![reply(
            query,
            0,
            &[&format!("10.0.{}.{}", query[0], query[1])],
        )]
    });
    let mut numbers: Vec<String> = (0..50)
        .map(|_| container.ask("example.com", A).data.remove(0))
        .collect();
    numbers.sort();
    numbers.dedup();
    assert!(numbers.len() >= 45, "{numbers:?}");
}

#[test]
fn a_large_answer_comes_over_tcp_or_in_a_large_datagram() {
    let host = Host::new();
    let container = Container::new(&host, &resolver("c1", servers(&["127.0.0.2"])));
    let all: Vec<String> = (1..=100).map(|last| format!("192.0.2.{last}")).collect();
    let addresses = all.clone();
    let _server = Server::new(container.netns(), "127.0.0.2", move |query, _| {
        // A server that does not care what its client takes.
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        vec![reply(query, 0, &addresses)]
    });
    let mut all: Vec<&str> = all.iter().map(String::as_str).collect();
    all.sort_unstable();
    let cut = container.ask("example.com", A);
    assert!(cut.is_cut && cut.length <= 512, "{cut:?}");
    container.ask_tcp("example.com", A).is(NOERROR, &all);
    let socket = container.udp();
    socket.send(&query(1, "example.com", A, OPT)).unwrap();
    Answer::receive(&socket).is(NOERROR, &all);
}

#[test]
fn a_truncated_answer_is_passed_on_as_such() {
    let host = Host::new();
    let container = Container::new(&host, &resolver("c1", servers(&["127.0.0.2"])));
    let asked = AtomicUsize::new(0);
    let _server = Server::new(container.netns(), "127.0.0.2", move |query, is_tcp| {
        asked.fetch_add(1, Ordering::Relaxed);
        let mut answer = reply(query, 0, &["192.0.2.1"]);
        if !is_tcp {
            answer[2] |= 2;
        }
        vec![answer]
    });
    assert!(container.ask("example.com", A).is_cut);
    container
        .ask_tcp("example.com", A)
        .is(NOERROR, &["192.0.2.1"]);
}
