//! Published ports: from everywhere, in conflict, under old connections.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::Command;

use gantry_network::{EndpointRequest, Error, Netns, PortMapping, PortRange, Protocol};

use crate::world::*;

#[test]
fn a_published_port_answers_from_everywhere() {
    published_ports_answer("1");
}

#[test]
fn a_published_port_answers_from_everywhere_without_br_netfilter() {
    published_ports_answer("0");
}

fn published_ports_answer(br_netfilter: &str) {
    let host = Host::new();
    br_netfilter_is(br_netfilter);
    let stack = host.open("aaaaaaaaaaaa2");
    let web = start(
        &stack,
        "web",
        &[
            mapping(None, 8080, 80, Protocol::Tcp),
            mapping(Some("127.0.0.1"), 8081, 80, Protocol::Tcp),
            mapping(None, 8082, 80, Protocol::Udp),
        ],
    );
    assert_eq!(web.ports.len(), 5);
    serve_tcp(&web.netns, 80, "web");
    serve_udp(&web.netns, 80, "web");
    serve_tcp(&web.netns, 81, "hidden");
    let other = start(&stack, "other", &[]);
    serve_tcp(&other.netns, 80, "other");
    let gateway = stack.bridge().unwrap().ipv4.unwrap().gateway.unwrap();

    // From outside: with the client's own address, and nothing but what is published.
    let outside = |address: Ipv4Addr, port| enter(&host.outside, || ask(address, port));
    assert_eq!(outside(HOST, 8080).as_deref(), Some("web 10.9.0.2"));
    assert_eq!(outside(HOST, 8081), None, "published on the loopback alone");
    assert_eq!(outside(web.ipv4(), 81), None, "not published");
    assert_eq!(outside(web.ipv4(), 80), None, "by the container's address");
    assert_eq!(outside(other.ipv4(), 80), None, "no port published");
    let udp =
        |address: Ipv4Addr, port| ask_udp(&UdpSocket::bind("0.0.0.0:0").unwrap(), address, port);
    assert_eq!(
        enter(&host.outside, || udp(HOST, 8082)).as_deref(),
        Some("web 10.9.0.2")
    );

    // From the host: by its addresses and its loopback.
    assert_eq!(ask(HOST, 8080).as_deref(), Some("web 10.9.0.1"));
    assert_eq!(ask(gateway, 8080).as_deref(), Some("web 172.17.0.1"));
    assert_eq!(
        ask(Ipv4Addr::LOCALHOST, 8080).as_deref(),
        Some("web 172.17.0.1")
    );
    assert_eq!(
        ask(Ipv4Addr::LOCALHOST, 8081).as_deref(),
        Some("web 172.17.0.1")
    );
    assert_eq!(
        udp(Ipv4Addr::LOCALHOST, 8082).as_deref(),
        Some("web 172.17.0.1")
    );
    assert_eq!(ask(web.ipv4(), 81).as_deref(), Some("hidden 172.17.0.1"));

    // From another container and from the container itself.
    assert_eq!(
        enter(&other.netns, || ask(HOST, 8080)).as_deref(),
        Some("web 172.17.0.1")
    );
    assert_eq!(
        enter(&web.netns, || ask(HOST, 8080)).as_deref(),
        Some("web 172.17.0.1")
    );
    assert_eq!(
        enter(&web.netns, || ask(gateway, 8080)).as_deref(),
        Some("web 172.17.0.1")
    );
    assert_eq!(
        enter(&other.netns, || udp(HOST, 8082)).as_deref(),
        Some("web 172.17.0.1")
    );
    assert_eq!(
        enter(&other.netns, || ask(web.ipv4(), 81)).as_deref(),
        Some("hidden 172.17.0.3")
    );

    // Nobody reaches the host's loopback, although the bridge routes loopback addresses (CVE-2020-8558).
    assert_eq!(sysctl("conf/docker0/route_localnet"), "1");
    let secret = TcpListener::bind("127.0.0.1:9999").unwrap();
    secret.set_nonblocking(true).unwrap();
    let attack = |netns: &Netns| {
        enter(netns, || {
            fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
            let output = Command::new("ip")
                .args([
                    "route",
                    "replace",
                    "127.0.0.1",
                    "via",
                    "172.17.0.1",
                    "dev",
                    "eth0",
                    "table",
                    "99",
                ])
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            for arguments in [
                &[
                    "rule",
                    "add",
                    "pref",
                    "1",
                    "to",
                    "127.0.0.1",
                    "lookup",
                    "99",
                ][..],
                &["rule", "add", "pref", "9", "lookup", "local"],
                &["rule", "del", "pref", "0"],
            ] {
                assert!(
                    Command::new("ip")
                        .args(arguments)
                        .status()
                        .unwrap()
                        .success()
                );
            }
            ask(Ipv4Addr::LOCALHOST, 9999)
        })
    };
    assert_eq!(attack(&other.netns), None);
    assert!(
        secret.accept().is_err(),
        "a container reached the host's loopback"
    );

    assert_eq!(
        *host.reserver.1.lock().unwrap(),
        ["gantry-aaaaaaaaaaaa docker0"]
    );
    stack.release(&web.endpoint, &web.ports).unwrap();
    assert_eq!(outside(HOST, 8080), None);
    assert_eq!(ask(Ipv4Addr::LOCALHOST, 8080), None);
    assert_eq!(
        host.reserver.1.lock().unwrap()[1..],
        ["gantry-aaaaaaaaaaaa "]
    );
    assert_eq!(sysctl("conf/docker0/route_localnet"), "0");
}

#[test]
fn ports_in_use_are_told_as_docker_tells_them() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaaa4");
    let web = start(&stack, "web", &[mapping(None, 8080, 80, Protocol::Tcp)]);
    let endpoint = stack
        .allocate(&EndpointRequest {
            container_id: "late".to_owned(),
            ..EndpointRequest::default()
        })
        .unwrap();
    let reserve = |mapping| {
        stack
            .reserve_ports(&endpoint, &[mapping])
            .map_err(|error| error.to_string())
    };
    assert_eq!(
        reserve(mapping(Some("127.0.0.1"), 8080, 80, Protocol::Tcp)).unwrap_err(),
        "Bind for 0.0.0.0:8080 failed: port is already allocated"
    );
    assert_eq!(
        reserve(mapping(Some("::1"), 8080, 80, Protocol::Tcp)).unwrap_err(),
        "Bind for :::8080 failed: port is already allocated"
    );
    let taken = TcpListener::bind("0.0.0.0:8090").unwrap();
    assert_eq!(
        reserve(mapping(None, 8090, 80, Protocol::Tcp)).unwrap_err(),
        "failed to bind host port for 0.0.0.0:8090:172.17.0.3:80/tcp: address already in use"
    );
    // A range goes on to the next one, and runs out.
    let range = PortMapping {
        host_port: Some(PortRange {
            first: 8090,
            last: 8091,
        }),
        ..mapping(None, 0, 80, Protocol::Tcp)
    };
    let found = reserve(range).unwrap();
    assert_eq!(found[0].host_port, 8091);
    assert_eq!(reserve(range).unwrap_err(), "all ports are allocated");
    // What failed holds nothing.
    drop(taken);
    assert!(TcpListener::bind("0.0.0.0:8090").is_ok());
    // Dynamic ports go on and do not come back at once.
    let dynamic = mapping(None, 0, 80, Protocol::Tcp);
    let (one, two) = (reserve(dynamic).unwrap(), reserve(dynamic).unwrap());
    assert_eq!(one[0].host_port + 1, two[0].host_port);
    assert_eq!(
        one[0].host_port, one[1].host_port,
        "one port for both families"
    );
    // Two mappings that contradict each other take nothing.
    let twice = [
        mapping(None, 8100, 80, Protocol::Tcp),
        mapping(None, 8100, 81, Protocol::Tcp),
    ];
    assert!(matches!(
        stack.reserve_ports(&web.endpoint, &twice),
        Err(Error::PortAllocated { port: 8100, .. })
    ));
    assert!(TcpListener::bind("0.0.0.0:8100").is_ok());
}

#[test]
fn old_udp_flows_follow_a_port_to_its_new_container() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaab3");
    let client = enter(&host.outside, || UdpSocket::bind("0.0.0.0:0").unwrap());
    // Before anything is published the flow ends at the host itself.
    assert_eq!(ask_udp(&client, HOST, 8053), None);
    let first = start(&stack, "first", &[mapping(None, 8053, 53, Protocol::Udp)]);
    serve_udp(&first.netns, 53, "first");
    assert_eq!(
        ask_udp(&client, HOST, 8053).as_deref(),
        Some("first 10.9.0.2")
    );
    let _keeps_the_address = start(&stack, "other", &[]);
    stack.release(&first.endpoint, &first.ports).unwrap();
    let _takes_the_address = start(&stack, "third", &[]);
    let second = start(&stack, "second", &[mapping(None, 8053, 53, Protocol::Udp)]);
    serve_udp(&second.netns, 53, "second");
    assert_ne!(first.ipv4(), second.ipv4());
    assert_eq!(
        ask_udp(&client, HOST, 8053).as_deref(),
        Some("second 10.9.0.2")
    );
}
