//! Who reaches whom: bridges apart from each other, gateway modes, direct routing, from a second host.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use gantry_network::{
    BridgeConfig, DefaultRoutes, EndpointRequest, Error, GatewayMode, Ipv6Config, Netns,
    NetworkConfig, Protocol, Stack, StackConfig,
};

use crate::world::*;

fn published() -> Vec<gantry_network::PortMapping> {
    vec![mapping(None, 8080, 80, Protocol::Tcp)]
}

/// Starts a container that serves a published port (80) and another one (81).
fn web(stack: &Stack, config: BridgeConfig) -> Container {
    let id = stack.create_network(&config.into()).unwrap().id;
    let web = start_on(stack, Some(&id), "web", &published());
    serve_tcp(&web.netns, 80, "web");
    serve_tcp(&web.netns, 81, "hidden");
    web
}

/// What a neighbour of the host's gets: by the host's address, by the container's, and what is not published.
fn from_outside(host: &Host, web: &Container) -> [Option<String>; 3] {
    let address = web.ipv4();
    [(HOST, 8080), (address, 80), (address, 81)]
        .map(|(address, port)| enter(&host.outside, || ask(address, port)))
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn bridges_are_apart_from_each_other() {
    for br_netfilter in ["0", "1"] {
        std::thread::scope(|scope| {
            scope.spawn(|| apart(br_netfilter)).join().unwrap();
        });
    }
}

fn apart(br_netfilter: &str) {
    let host = Host::new();
    br_netfilter_is(br_netfilter);
    let stack = host.open("0123456789ab1");
    let web = web(&stack, user_defined('a'));
    let other = stack.create_network(&user_defined('e').into()).unwrap();
    let other = start_on(&stack, Some(&other.id), "other", &[]);
    let default = start(&stack, "default", &[]);
    for stranger in [&other, &default] {
        let reach = |address, port| enter(&stranger.netns, || ask(address, port));
        assert_eq!(reach(web.ipv4(), 80), None);
        assert_eq!(reach(web.ipv4(), 81), None);
        assert!(
            reach(HOST, 8080).unwrap().starts_with("web "),
            "by the published port"
        );
    }
    assert_eq!(
        from_outside(&host, &web),
        [some("web 10.9.0.2"), None, None]
    );
    // The host itself reaches all of them.
    assert!(ask(web.ipv4(), 81).is_some());
}

#[test]
fn a_routed_network_is_reached_by_its_own_addresses_on_published_ports() {
    let host = Host::new();
    let stack = host.open("0123456789ab2");
    let web = web(
        &stack,
        BridgeConfig {
            gateway_mode_ipv4: GatewayMode::Routed,
            gateway_mode_ipv6: GatewayMode::Routed,
            ipv6: Some(Ipv6Config::default()),
            ..user_defined('a')
        },
    );
    assert_eq!(
        from_outside(&host, &web),
        [None, some("web 10.9.0.2"), None]
    );
    let six = |port| enter(&host.outside, || ask(web.ipv6(), port));
    assert_eq!([six(80), six(81)], [some("web fd09::2"), None]);
    assert!(web.ports.iter().all(|port| port.host_port == 0));
    // What leaves keeps the container's address.
    serve_tcp(&host.outside, 7000, "world");
    let world = enter(&web.netns, || ask(OUTSIDE, 7000));
    assert_eq!(world, some(&format!("world {}", web.ipv4())));
    let address = web.ipv4().to_string();
    stack.release(&web.endpoint, &web.ports).unwrap();
    assert!(!nft(&["list", "ruleset"]).contains(&address));
}

#[test]
fn an_unprotected_network_is_reached_on_every_port() {
    let host = Host::new();
    let stack = host.open("0123456789ab3");
    let web = web(
        &stack,
        BridgeConfig {
            gateway_mode_ipv4: GatewayMode::NatUnprotected,
            ..user_defined('a')
        },
    );
    assert_eq!(
        from_outside(&host, &web),
        ["web", "web", "hidden"].map(|name| some(&format!("{name} 10.9.0.2")))
    );
    serve_tcp(&host.outside, 7000, "world");
    let world = enter(&web.netns, || ask(OUTSIDE, 7000));
    assert_eq!(world.as_deref(), Some("world 10.9.0.1"));
}

#[test]
fn an_unprotected_network_is_apart_from_other_bridges() {
    let host = Host::new();
    let stack = host.open("0123456789abd");
    let web = web(
        &stack,
        BridgeConfig {
            gateway_mode_ipv4: GatewayMode::NatUnprotected,
            icc: false,
            ..user_defined('a')
        },
    );
    let hidden = |from: &Container| enter(&from.netns, || ask(web.ipv4(), 81));
    let stranger = start(&stack, "stranger", &[]);
    assert_eq!(hidden(&stranger), None, "by the other bridge");
    assert_eq!(
        enter(&stranger.netns, || ask(HOST, 8080)).map(|text| text[..3].to_owned()),
        some("web"),
        "what is published is published for all"
    );
    // A neighbour without icc, by way of the host.
    let mate = start_on(&stack, Some(&web.endpoint.network), "mate", &[]);
    let gateway = mate.endpoint.gateway.unwrap().to_string();
    enter(&mate.netns, || {
        ip(&[
            "route",
            "add",
            &web.ipv4().to_string(),
            "via",
            &gateway,
            "onlink",
            "dev",
            "eth0",
        ])
    });
    assert_eq!(hidden(&mate), None, "by the host");
    assert_eq!(
        enter(&host.outside, || ask(web.ipv4(), 81)),
        some("hidden 10.9.0.2")
    );
}

#[test]
fn behind_a_trusted_interface_published_ports_are_reached_directly() {
    let host = Host::new();
    let stack = host.open("0123456789ab4");
    let web = web(
        &stack,
        BridgeConfig {
            trusted_host_interfaces: vec!["lan0".to_owned()],
            ..user_defined('a')
        },
    );
    let both = [some("web 10.9.0.2"), some("web 10.9.0.2"), None];
    assert_eq!(from_outside(&host, &web), both);
    // Another interface is not trusted.
    let neighbour = host.another_lan(10);
    assert_eq!(enter(&neighbour, || ask(web.ipv4(), 80)), None);
    assert_eq!(
        enter(&neighbour, || ask(Ipv4Addr::new(10, 10, 0, 1), 8080)),
        some("web 10.10.0.2")
    );
}

#[test]
fn direct_routing_can_be_allowed() {
    let host = Host::new();
    let config = StackConfig {
        allow_direct_routing: true,
        ..host.config("0123456789ab5")
    };
    let stack = Stack::open(config, &[], &[]).unwrap();
    let web = web(&stack, user_defined('a'));
    let both = [some("web 10.9.0.2"), some("web 10.9.0.2"), None];
    assert_eq!(from_outside(&host, &web), both);
}

#[test]
fn an_internal_network_has_no_way_out_and_none_in() {
    let host = Host::new();
    let stack = host.open("0123456789ab6");
    let config = BridgeConfig {
        internal: true,
        ..user_defined('a')
    };
    let web = web(&stack, config);
    assert_eq!(web.ports, [], "nothing is published of it");
    assert_eq!(web.endpoint.gateway, None);
    assert_eq!(from_outside(&host, &web), [None, None, None]);
    serve_tcp(&host.outside, 7000, "world");
    let mate = start_on(&stack, Some(&web.endpoint.network), "mate", &[]);
    assert!(enter(&mate.netns, || ask(web.ipv4(), 81)).is_some());
    // Also not by a route of its own making.
    let gateway = stack
        .network(&web.endpoint.network)
        .unwrap()
        .ipv4
        .unwrap()
        .gateway;
    let gateway = gateway.unwrap().to_string();
    enter(&web.netns, || {
        ip(&["route", "add", "default", "via", &gateway])
    });
    assert_eq!(enter(&web.netns, || ask(OUTSIDE, 7000)), None);
}

#[test]
fn an_internal_network_reaches_no_other_network_by_netd() {
    let host = Host::new();
    let stack = host.open("0123456789abe");
    let obeying = BridgeConfig {
        obey_host_firewall: true,
        ..user_defined('c')
    };
    let obeying = stack.create_network(&obeying.into()).unwrap().id;
    let plain = start(&stack, "plain", &published());
    serve_tcp(&plain.netns, 80, "plain");
    let mappings = [
        mapping(None, 8081, 80, Protocol::Tcp),
        mapping(Some("10.9.0.1"), 8082, 80, Protocol::Tcp),
    ];
    let obedient = start_on(&stack, Some(&obeying), "obedient", &mappings);
    serve_tcp(&obedient.netns, 80, "obedient");
    let dual = |internal: bool, digit: char| {
        let config = BridgeConfig {
            internal,
            ipv6: Some(Ipv6Config::default()),
            ..user_defined(digit)
        };
        let info = stack.create_network(&config.into()).unwrap();
        let asker = start_on(&stack, Some(&info.id), "asker", &[]);
        (info, asker)
    };
    // What the host itself offers is no other network's.
    let own = std::net::TcpListener::bind(("::", 9000)).unwrap();
    std::thread::spawn(move || {
        for mut stream in own.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut stream, b"host");
        }
    });
    for (internal, digit) in [(false, 'd'), (true, 'a')] {
        let (info, asker) = dual(internal, digit);
        let four: IpAddr = info.ipv4.unwrap().gateway.unwrap().into();
        let six: IpAddr = info.ipv6.unwrap().gateway.unwrap().into();
        let reached = |address: IpAddr, port| enter(&asker.netns, || ask(address, port)).is_some();
        let expected = !internal;
        for (address, port) in [
            (four, 8080),
            (six, 8080),
            (four, 8081),
            (six, 8081),
            (HOST.into(), 8082),
        ] {
            // The host's other addresses are beyond an internal network's routes, so it is given one.
            if internal && address == IpAddr::from(HOST) {
                let gateway = four.to_string();
                enter(&asker.netns, || {
                    ip(&["route", "add", "default", "via", &gateway])
                });
            }
            assert_eq!(
                reached(address, port),
                expected,
                "{address} {port} internal {internal}"
            );
        }
        assert!(reached(four, 9000) && reached(six, 9000), "the host itself");
    }
    // Ports that are free again are the host's.
    stack.release(&obedient.endpoint, &obedient.ports).unwrap();
    stack.release(&plain.endpoint, &plain.ports).unwrap();
    let report = stack.reconcile().unwrap();
    // The released interfaces wait for their namespaces' end; of the rules none is wrong.
    let only_interfaces = report
        .removed
        .iter()
        .all(|what| what.starts_with("interface "));
    assert!(report.restored.is_empty() && only_interfaces, "{report:?}");
    for set in ["carried", "carried-at", "carried6", "carried6-at"] {
        let set = nft(&["list", "set", "inet", "gantry-0123456789ab", set]);
        assert!(!set.contains("elements"), "{set}");
    }
}

#[test]
fn an_isolated_bridge_has_no_address() {
    let host = Host::new();
    let stack = host.open("0123456789ab7");
    let config = BridgeConfig {
        gateway_mode_ipv4: GatewayMode::Isolated,
        internal: true,
        ..user_defined('a')
    };
    let info = stack.create_network(&config.into()).unwrap();
    assert_eq!(info.ipv4.unwrap().gateway, None);
    let addresses = ip(&["-4", "address", "show", "dev", &info.interface]);
    assert_eq!(addresses, "");
    let one = start_on(&stack, Some(&info.id), "one", &[]);
    let two = start_on(&stack, Some(&info.id), "two", &[]);
    // Nobody has the first address, so a container does.
    assert_eq!(one.ipv4().octets()[3], 1);
    serve_tcp(&one.netns, 80, "one");
    assert!(enter(&two.netns, || ask(one.ipv4(), 80)).is_some());
    assert_eq!(ask(one.ipv4(), 80), None, "the host has no part in it");
}

#[test]
fn a_bridge_can_be_left_without_its_address() {
    let host = Host::new();
    let stack = host.open("0123456789ab8");
    let config = BridgeConfig {
        inhibit_ipv4: true,
        ..user_defined('a')
    };
    let info = stack.create_network(&config.into()).unwrap();
    assert!(info.ipv4.unwrap().gateway.is_some());
    assert_eq!(ip(&["-4", "address", "show", "dev", &info.interface]), "");
}

#[test]
fn what_leaves_can_have_a_certain_address() {
    let host = Host::new();
    ip(&["address", "add", "10.9.0.77/24", "dev", "lan0"]);
    ip(&["address", "add", "fd09::77/64", "dev", "lan0", "nodad"]);
    let stack = host.open("0123456789ab9");
    let config = BridgeConfig {
        host_ipv4: Some(Ipv4Addr::new(10, 9, 0, 77)),
        host_ipv6: "fd09::77".parse().ok(),
        ipv6: Some(Ipv6Config::default()),
        ..user_defined('a')
    };
    let web = web(&stack, config);
    serve_tcp(&host.outside, 7000, "world");
    let world = |address: IpAddr| enter(&web.netns, || hear(address, 7000));
    assert_eq!(world(OUTSIDE.into()).as_deref(), Some("world 10.9.0.77"));
    assert_eq!(world(OUTSIDE6.into()).as_deref(), Some("world fd09::77"));
}

#[test]
fn sizes_names_and_kept_addresses_are_as_asked_for() {
    let host = Host::new();
    let stack = host.open("0123456789aba");
    let config = BridgeConfig {
        subnet: "10.77.0.0/24".parse().ok(),
        ip_range: "10.77.0.8/29".parse().ok(),
        aux_addresses: vec!["10.77.0.9".parse().unwrap(), "10.77.0.20".parse().unwrap()],
        mtu: Some(1280),
        ..user_defined('a')
    };
    let info = stack.create_network(&config.into()).unwrap();
    assert_eq!(info.mtu, 1280);
    let request = |name: &str| EndpointRequest {
        container_id: name.to_owned(),
        network: Some(info.id.clone()),
        container_interface: Some("lan7".to_owned()),
        ..EndpointRequest::default()
    };
    let first = stack.allocate(&request("first")).unwrap();
    let second = stack.allocate(&request("second")).unwrap();
    let last = |endpoint: &gantry_network::Endpoint| endpoint.ipv4.unwrap().octets()[3];
    // The first of the range is the gateway's.
    assert_eq!((last(&first), last(&second)), (10, 11));
    let fixed = EndpointRequest {
        ipv4: "10.77.0.20".parse().ok(),
        ..request("third")
    };
    assert_eq!(
        stack.allocate(&fixed).unwrap_err().to_string(),
        "Address already in use"
    );
    let outside = EndpointRequest {
        ipv4: "10.78.0.20".parse().ok(),
        ..request("fourth")
    };
    assert_eq!(
        stack.allocate(&outside).unwrap_err().to_string(),
        "invalid config for network net-a: invalid endpoint settings:\nno configured subnet or ip-range contain the IP \
         address 10.78.0.20"
    );
    let netns = Netns::create().unwrap();
    stack.connect(&first, &netns, DefaultRoutes::BOTH).unwrap();
    let link = enter(&netns, || ip(&["link", "show", "lan7"]));
    assert!(link.contains("mtu 1280"), "{link}");
    assert!(link.contains(&first.mac.to_string()), "{link}");
}

#[test]
fn published_ports_obey_the_hosts_firewall_where_asked_to() {
    let host = Host::new();
    nft(&["add", "table", "inet", "mine"]);
    let base = "{ type filter hook input priority 0; policy drop; }";
    nft(&["add", "chain", "inet", "mine", "input", base]);
    for rule in [
        "iifname lo accept",
        "ct state established,related accept",
        "tcp dport 8081 accept",
    ] {
        let mut arguments = vec!["add", "rule", "inet", "mine", "input"];
        arguments.extend(rule.split(' '));
        nft(&arguments);
    }
    let stack = host.open("0123456789abb");
    let obeying = BridgeConfig {
        obey_host_firewall: true,
        ..user_defined('a')
    };
    let id = stack.create_network(&obeying.into()).unwrap().id;
    let mappings = [
        mapping(None, 8080, 80, Protocol::Tcp),
        mapping(None, 8081, 80, Protocol::Tcp),
    ];
    let obedient = start_on(&stack, Some(&id), "obedient", &mappings);
    serve_tcp(&obedient.netns, 80, "obedient");
    let gateway = obedient.endpoint.gateway.unwrap();
    let carried = format!("obedient {gateway}");
    let outside = |port| enter(&host.outside, || ask(HOST, port));
    assert_eq!(outside(8080), None, "the rules do not allow it");
    assert_eq!(outside(8081).as_ref(), Some(&carried), "the rules allow it");
    for address in [HOST, Ipv4Addr::LOCALHOST] {
        let own = ask(address, 8080);
        assert_eq!(
            own.as_ref(),
            Some(&carried),
            "the host reaches its own ports"
        );
    }
    assert!(!host.was_told("obey"), "nothing is passed by");
    assert_eq!(
        fs::read_to_string("/proc/sys/net/ipv4/conf/br-aaaaaaaaaaaa/route_localnet")
            .unwrap()
            .trim(),
        "0"
    );
    stack.release(&obedient.endpoint, &obedient.ports).unwrap();

    // By default a published port is open, and the operator is told once that his rules do not hold it.
    let plain = start(&stack, "plain", &mappings);
    serve_tcp(&plain.netns, 80, "plain");
    assert_eq!(
        enter(&host.outside, || ask(HOST, 8080)).as_deref(),
        Some("plain 10.9.0.2")
    );
    let _more = start(&stack, "more", &[mapping(None, 8090, 80, Protocol::Tcp)]);
    let told: Vec<String> = host.warnings.lock().unwrap().clone();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("inet mine input"), "{told:?}");
    assert!(
        told[0].contains("com.gantry.bridge.obey_host_firewall=true"),
        "{told:?}"
    );
}

#[test]
fn overlaps_and_exhausted_pools_are_refused_in_dockers_words() {
    let host = Host::new();
    // A VPN has the first of the pools.
    ip(&["route", "add", "172.18.0.0/16", "via", "10.9.0.2"]);
    let stack = host.open("0123456789abc");
    let first = stack.create_network(&user_defined('a').into()).unwrap();
    assert_eq!(first.ipv4.unwrap().subnet.to_string(), "172.19.0.0/24");
    let overlapping = NetworkConfig::from(BridgeConfig {
        subnet: "172.19.0.128/25".parse().ok(),
        ..user_defined('e')
    });
    for answer in [
        stack.check_network(&overlapping).unwrap_err(),
        stack.create_network(&overlapping).map(drop).unwrap_err(),
    ] {
        assert_eq!(
            answer.to_string(),
            "invalid pool request: Pool overlaps with other one on this address space"
        );
    }
    assert!(
        !links().contains(&"br-eeeeeeeeeeee".to_owned()),
        "nothing is left"
    );
    let same_name = BridgeConfig {
        interface: "br-aaaaaaaaaaaa".to_owned(),
        ..user_defined('e')
    };
    assert_eq!(
        stack
            .create_network(&same_name.into())
            .unwrap_err()
            .to_string(),
        format!(
            "cannot create network {} (br-aaaaaaaaaaaa): conflicts with network {} (br-aaaaaaaaaaaa): networks have same \
             bridge name",
            "e".repeat(64),
            "a".repeat(64)
        )
    );
    stack.check_network(&user_defined('e').into()).unwrap();
    assert!(
        !links().contains(&"br-eeeeeeeeeeee".to_owned()),
        "a check makes nothing"
    );
    drop(stack);

    let small = StackConfig {
        bridge: None,
        address_pools: vec![gantry_network::AddressPool {
            base: "10.50.0.0/23".parse().unwrap(),
            size: 24,
        }],
        ..host.config("1123456789abc")
    };
    let stack = Stack::open(small, &[], &[]).unwrap();
    let mut made = Vec::new();
    for digit in ['c', 'd'] {
        let info = stack.create_network(&user_defined(digit).into()).unwrap();
        made.push(info.ipv4.unwrap().subnet.to_string());
    }
    assert_eq!(made, ["10.50.0.0/24", "10.50.1.0/24"]);
    let refused = stack.create_network(&user_defined('f').into()).unwrap_err();
    assert!(matches!(refused, Error::PoolsExhausted));
    assert_eq!(
        refused.to_string(),
        "all predefined address pools have been fully subnetted"
    );
    stack.remove_network(&"c".repeat(64)).unwrap();
    let info = stack.create_network(&user_defined('e').into()).unwrap();
    assert_eq!(info.ipv4.unwrap().subnet.to_string(), "10.50.0.0/24");
}
