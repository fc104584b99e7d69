//! Networks with IPv6, beside IPv4 or alone.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::process::Command;

use gantry_network::{BridgeConfig, Endpoint, Ipv6Config, Netns, Protocol, Stack};

use crate::world::*;

fn dual() -> BridgeConfig {
    BridgeConfig {
        ipv6: Some(Ipv6Config::default()),
        ..user_defined('d')
    }
}

fn setting(path: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{path}"))
        .unwrap()
        .trim()
        .to_owned()
}

#[test]
fn a_dual_stack_network_works_like_an_ipv4_one() {
    dual_stack("0");
}

#[test]
fn a_dual_stack_network_works_with_br_netfilter() {
    dual_stack("1");
}

fn dual_stack(br_netfilter: &str) {
    let host = Host::new();
    br_netfilter_is(br_netfilter);
    let stack = host.open("0123456789ab1");
    let info = stack.create_network(&dual().into()).unwrap();
    let ipv6 = info.ipv6.unwrap();
    assert_eq!(ipv6.subnet.to_string(), "fd01:2345:6789::/64");
    assert_eq!(ipv6.gateway.unwrap().to_string(), "fd01:2345:6789::1");
    assert_eq!(setting("all/forwarding"), "1");
    assert_eq!(setting(&format!("{}/accept_ra", info.interface)), "0");
    assert_eq!(setting("docker0/accept_ra"), "0");
    let mappings = [
        mapping(None, 8080, 80, Protocol::Tcp),
        mapping(Some("::1"), 8081, 80, Protocol::Tcp),
        mapping(None, 8082, 80, Protocol::Udp),
    ];
    let web = start_on(&stack, Some(&info.id), "web", &mappings);
    let other = start_on(&stack, Some(&info.id), "other", &[]);
    let stranger = start(&stack, "stranger", &[]);
    assert_eq!(web.ipv6().to_string(), "fd01:2345:6789::2");
    assert_eq!(web.endpoint.gateway_v6, ipv6.gateway);
    serve_tcp(&web.netns, 80, "web");
    serve_udp(&web.netns, 80, "web");
    serve_tcp(&web.netns, 81, "hidden");
    serve_tcp(&host.outside, 7000, "world");

    // Out, behind the host's address of each family.
    let world = |address: IpAddr| enter(&web.netns, || ask(address, 7000));
    assert_eq!(world(OUTSIDE.into()).as_deref(), Some("world 10.9.0.1"));
    assert_eq!(world(OUTSIDE6.into()).as_deref(), Some("world fd09::1"));

    // In, with the client's own address, and nothing but what is published.
    let outside = |address: Ipv6Addr, port| enter(&host.outside, || ask(address, port));
    assert_eq!(outside(HOST6, 8080).as_deref(), Some("web fd09::2"));
    assert_eq!(outside(web.ipv6(), 80), None, "by the container's address");
    assert_eq!(outside(web.ipv6(), 81), None, "not published");
    assert_eq!(
        outside(HOST6, 8081),
        None,
        "published on the loopback alone"
    );
    let udp = |address: Ipv6Addr, port| ask_udp(&UdpSocket::bind("[::]:0").unwrap(), address, port);
    let answer = enter(&host.outside, || udp(HOST6, 8082));
    assert_eq!(answer.as_deref(), Some("web fd09::2"));

    // From the host, from neighbours and from itself.
    assert_eq!(ask(HOST6, 8080).as_deref(), Some("web fd09::1"));
    assert_eq!(
        ask(web.ipv6(), 81).as_deref(),
        Some("hidden fd01:2345:6789::1")
    );
    // On ::1 netd answers.
    let by_loopback = ask(Ipv6Addr::LOCALHOST, 8081);
    assert_eq!(by_loopback.as_deref(), Some("web fd01:2345:6789::1"));
    let hairpin = |from: &Netns| enter(from, || ask(HOST6, 8080));
    assert_eq!(
        hairpin(&other.netns).as_deref(),
        Some("web fd01:2345:6789::1")
    );
    assert_eq!(
        hairpin(&web.netns).as_deref(),
        Some("web fd01:2345:6789::1")
    );
    assert_eq!(
        enter(&other.netns, || ask(web.ipv6(), 81)).as_deref(),
        Some("hidden fd01:2345:6789::3")
    );
    // The default network has no IPv6.
    assert_eq!(stranger.endpoint.ipv6, None);
    assert_eq!(enter(&stranger.netns, || ask(web.ipv6(), 81)), None);

    stack.release(&web.endpoint, &web.ports).unwrap();
    assert_eq!(outside(HOST6, 8080), None);
    let again = start_on(&stack, Some(&info.id), "again", &[]);
    assert_eq!(again.ipv6(), web.ipv6());
    serve_tcp(&again.netns, 80, "again");
    // A neighbour that remembers the old hardware address is told the new one. The kernel puts a new IPv6 address to use
    // by a work queue, so the very first packet may come too early.
    eventually("the address leads to its new owner", || {
        enter(&other.netns, || ask(again.ipv6(), 80)).as_deref() == Some("again fd01:2345:6789::3")
    });
    assert_eq!(stack.reconcile().unwrap().restored, Vec::<String>::new());
    drop(stack);
    let live: Vec<(Endpoint, _)> = [&other, &again]
        .map(|container| (container.endpoint.clone(), container.ports.clone()))
        .to_vec();
    let stack = Stack::open(host.config("0123456789ab1"), &[dual().into()], &live).unwrap();
    assert_eq!(
        stack.network(&info.id).unwrap(),
        info,
        "a restarted daemon finds it again"
    );
    stack.teardown().unwrap();
    assert_eq!(setting("all/forwarding"), "0");
    assert_eq!(nft(&["list", "ruleset"]), "");
}

#[test]
fn an_old_udp_flow_over_ipv6_follows_its_port() {
    let host = Host::new();
    let stack = host.open("0123456789ab2");
    let info = stack.create_network(&dual().into()).unwrap();
    let client = enter(&host.outside, || UdpSocket::bind("[::]:0").unwrap());
    assert_eq!(ask_udp(&client, HOST6, 8053), None);
    let port = [mapping(None, 8053, 53, Protocol::Udp)];
    let first = start_on(&stack, Some(&info.id), "first", &port);
    serve_udp(&first.netns, 53, "first");
    assert_eq!(
        ask_udp(&client, HOST6, 8053).as_deref(),
        Some("first fd09::2")
    );
    let _keeps_the_address = start_on(&stack, Some(&info.id), "other", &[]);
    stack.release(&first.endpoint, &first.ports).unwrap();
    let _takes_the_address = start_on(&stack, Some(&info.id), "third", &[]);
    let second = start_on(&stack, Some(&info.id), "second", &port);
    serve_udp(&second.netns, 53, "second");
    assert_eq!(
        ask_udp(&client, HOST6, 8053).as_deref(),
        Some("second fd09::2")
    );
}

#[test]
fn a_network_of_ipv6_alone_has_no_ipv4() {
    let host = Host::new();
    let stack = host.open("0123456789ab3");
    let config = BridgeConfig {
        ipv4: false,
        ..dual()
    };
    let info = stack.create_network(&config.into()).unwrap();
    assert_eq!(info.ipv4, None);
    let mappings = [
        mapping(None, 8080, 80, Protocol::Tcp),
        mapping(Some("127.0.0.1"), 8081, 80, Protocol::Tcp),
    ];
    let web = start_on(&stack, Some(&info.id), "web", &mappings);
    assert_eq!((web.endpoint.ipv4, web.endpoint.gateway), (None, None));
    // As Docker does: the IPv4 half of a mapping leads nowhere and is left out.
    let shown: Vec<IpAddr> = web.ports.iter().map(|port| port.ip).collect();
    assert_eq!(shown, [IpAddr::from(Ipv6Addr::UNSPECIFIED)]);
    serve_tcp(&web.netns, 80, "web");
    assert_eq!(
        enter(&host.outside, || ask(HOST6, 8080)).as_deref(),
        Some("web fd09::2")
    );
    assert_eq!(enter(&host.outside, || ask(HOST, 8080)), None);
    let routes = enter(&web.netns, || {
        let output = Command::new("ip").args(["-4", "route"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    });
    assert_eq!(routes, "");
}

#[test]
fn the_hosts_own_routing_by_advertisements_stays() {
    let host = Host::new();
    // The host has its way to the world from a router's advertisement.
    ip(&["-6", "route", "del", "default"]);
    ip(&[
        "-6", "route", "add", "default", "via", "fd09::2", "dev", "lan0", "proto", "ra", "metric",
        "1024",
    ]);
    for interface in ["lan0", "lan1"] {
        fs::write(
            format!("/proc/sys/net/ipv6/conf/{interface}/accept_ra"),
            "1",
        )
        .unwrap();
    }
    let stack = host.open("0123456789ab4");
    assert_eq!(setting("all/forwarding"), "0", "nobody asked for IPv6 yet");
    stack.create_network(&dual().into()).unwrap();
    assert_eq!(setting("all/forwarding"), "1");
    assert_eq!(setting("lan0/accept_ra"), "2");
    assert_eq!(setting("lan1/accept_ra"), "1", "nothing depends on it");
    let route = ip(&["-6", "route", "show", "default"]);
    assert!(route.contains("via fd09::2 dev lan0 proto ra"), "{route}");
    // The machine does not become a router between its other interfaces, in either family.
    let (asker, server) = (host.another_lan(10), host.another_lan(11));
    serve_tcp(&server, 7001, "server");
    let routed = || {
        ["10.11.0.2", "fd11::2"].map(|address| {
            let address: IpAddr = address.parse().unwrap();
            enter(&asker, || ask(address, 7001))
        })
    };
    assert_eq!(routed(), [None, None]);
    // With our guard taken away it would be one, so the path itself is good.
    let table = "gantry-0123456789ab";
    nft(&["flush", "chain", "inet", table, "forward"]);
    let both = ["server 10.10.0.2", "server fd10::2"].map(|text| Some(text.to_owned()));
    eventually("packets are routed without the guard", || routed() == both);
}
