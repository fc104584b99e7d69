//! Networks that come and go while the container runs.

use std::net::IpAddr;

use gantry_network::{
    BridgeConfig, DefaultRoutes, Endpoint, EndpointRequest, Ipv6Config, Netns, Protocol, Stack,
};

use crate::world::*;

const NO_ROUTES: DefaultRoutes = DefaultRoutes {
    ipv4: false,
    ipv6: false,
};

/// Allocates a further place for a container.
fn allocate(stack: &Stack, network: &str, name: &str, interface: &str) -> Endpoint {
    stack
        .allocate(&EndpointRequest {
            container_id: name.to_owned(),
            network: Some(network.to_owned()),
            container_interface: Some(interface.to_owned()),
            ..EndpointRequest::default()
        })
        .unwrap()
}

fn default_routes(netns: &Netns) -> Vec<String> {
    enter(netns, || {
        let mut routes = ip(&["-4", "route", "show", "default"]);
        routes.push_str(&ip(&["-6", "route", "show", "default"]));
        routes
            .lines()
            .map(|line| line.split(" metric").next().unwrap().trim().to_owned())
            .collect()
    })
}

#[test]
fn a_running_container_joins_and_leaves_networks() {
    let host = Host::new();
    let stack = host.open("0123456789ab1");
    let dual = BridgeConfig {
        ipv6: Some(Ipv6Config::default()),
        subnet: "10.81.0.0/24".parse().ok(),
        ..user_defined('a')
    };
    let dual = stack.create_network(&dual.into()).unwrap().id;
    let second = BridgeConfig {
        subnet: "10.82.0.0/24".parse().ok(),
        ..user_defined('c')
    };
    let second = stack.create_network(&second.into()).unwrap().id;
    let mate = start_on(&stack, Some(&dual), "mate", &[]);
    serve_tcp(&mate.netns, 80, "mate");
    let container = start(
        &stack,
        "container",
        &[mapping(None, 8080, 80, Protocol::Tcp)],
    );
    serve_tcp(&container.netns, 80, "container");
    assert_eq!(
        default_routes(&container.netns),
        ["default via 172.17.0.1 dev eth0"]
    );
    assert_eq!(enter(&container.netns, || ask(mate.ipv4(), 80)), None);

    let eth1 = allocate(&stack, &dual, "container", "eth1");
    stack.connect(&eth1, &container.netns, NO_ROUTES).unwrap();
    let reach = |address: IpAddr| enter(&container.netns, || ask(address, 80));
    assert_eq!(reach(mate.ipv4().into()).as_deref(), Some("mate 10.81.0.3"));
    assert!(
        reach(mate.ipv6().into()).is_some(),
        "the first packet arrives over IPv6 too"
    );
    assert_eq!(
        default_routes(&container.netns),
        ["default via 172.17.0.1 dev eth0"]
    );
    let eth2 = allocate(&stack, &second, "container", "eth2");
    stack.connect(&eth2, &container.netns, NO_ROUTES).unwrap();

    // The default routes move to where they are told to, and again is no change.
    for _ in 0..2 {
        stack
            .set_default_routes(&container.netns, Some(&eth2), Some(&eth1))
            .unwrap();
        let gateway = eth1.gateway_v6.unwrap();
        assert_eq!(
            default_routes(&container.netns),
            [
                "default via 10.82.0.1 dev eth2".to_owned(),
                format!("default via {gateway} dev eth1")
            ]
        );
    }
    serve_tcp(&host.outside, 7000, "world");
    assert!(enter(&container.netns, || ask(OUTSIDE, 7000)).is_some());
    assert!(enter(&container.netns, || ask(OUTSIDE6, 7000)).is_some());

    // A network is left; the others work on.
    stack.disconnect(&eth2, &container.netns).unwrap();
    stack.disconnect(&eth2, &container.netns).unwrap();
    stack.release(&eth2, &[]).unwrap();
    assert!(!links().contains(&eth2.host_interface));
    assert_eq!(
        default_routes(&container.netns).len(),
        1,
        "its route went along"
    );
    stack
        .set_default_routes(&container.netns, Some(&container.endpoint), None)
        .unwrap();
    assert_eq!(
        default_routes(&container.netns),
        ["default via 172.17.0.1 dev eth0"]
    );
    assert_eq!(reach(mate.ipv4().into()).as_deref(), Some("mate 10.81.0.3"));
    assert_eq!(
        enter(&host.outside, || ask(HOST, 8080)).as_deref(),
        Some("container 10.9.0.2")
    );
    // Its address is free for the next one.
    assert_eq!(allocate(&stack, &second, "next", "eth0").ipv4, eth2.ipv4);
    stack
        .set_default_routes(&container.netns, None, None)
        .unwrap();
    assert_eq!(default_routes(&container.netns), Vec::<String>::new());
}

#[test]
fn default_routes_of_a_containers_own_stay() {
    let host = Host::new();
    let stack = host.open("0123456789ab3");
    let second = BridgeConfig {
        subnet: "10.82.0.0/24".parse().ok(),
        ..user_defined('c')
    };
    let second = stack.create_network(&second.into()).unwrap().id;
    let container = start(&stack, "container", &[]);
    enter(&container.netns, || {
        ip(&["link", "add", "wg0", "type", "veth", "peer", "name", "wg1"]);
        ip(&["link", "set", "wg1", "up"]);
        ip(&["link", "set", "wg0", "up"]);
        ip(&["route", "replace", "default", "dev", "wg0"]);
    });
    let own = ["default dev wg0 scope link"];
    assert_eq!(default_routes(&container.netns), own);
    let eth1 = allocate(&stack, &second, "container", "eth1");
    stack.connect(&eth1, &container.netns, NO_ROUTES).unwrap();
    for gateway in [Some(&container.endpoint), Some(&eth1), None] {
        stack
            .set_default_routes(&container.netns, gateway, None)
            .unwrap();
        assert_eq!(default_routes(&container.netns), own);
    }
    // Beside one of its own with another metric ours moves, also if its interface was renamed.
    enter(&container.netns, || {
        ip(&["route", "del", "default"]);
        ip(&["route", "add", "default", "dev", "wg0", "metric", "100"]);
        ip(&["route", "add", "default", "via", "172.17.0.1"]);
        ip(&["link", "set", "eth0", "name", "lan"]);
    });
    stack
        .set_default_routes(&container.netns, Some(&eth1), None)
        .unwrap();
    assert_eq!(
        default_routes(&container.netns),
        ["default via 10.82.0.1 dev eth1", own[0]]
    );
}

#[test]
fn settings_and_further_addresses_of_an_interface_are_as_asked_for() {
    let host = Host::new();
    let stack = host.open("0123456789ab2");
    let request = EndpointRequest {
        container_id: "container".to_owned(),
        link_local: vec!["169.254.7.7".parse().unwrap(), "fe80::77".parse().unwrap()],
        sysctls: vec![
            (
                "net.ipv4.conf.IFNAME.log_martians".to_owned(),
                "1".to_owned(),
            ),
            ("net.ipv6.conf.IFNAME.accept_ra".to_owned(), "0".to_owned()),
        ],
        ..EndpointRequest::default()
    };
    let endpoint = stack.allocate(&request).unwrap();
    let netns = Netns::create().unwrap();
    stack
        .connect(&endpoint, &netns, DefaultRoutes::BOTH)
        .unwrap();
    let read = |path: &str| {
        enter(&netns, || {
            std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap()
        })
    };
    assert_eq!(read("ipv4/conf/eth0/log_martians"), "1\n");
    assert_eq!(read("ipv6/conf/eth0/accept_ra"), "0\n");
    let addresses = enter(&netns, || ip(&["address", "show", "eth0"]));
    assert!(addresses.contains("inet 169.254.7.7/16"), "{addresses}");
    assert!(addresses.contains("inet6 fe80::77/64"), "{addresses}");
    for name in [
        "net.ipv4.ip_forward",
        "kernel.IFNAME",
        "net.ipv4.conf.IFNAME..x",
    ] {
        let refused = stack.allocate(&EndpointRequest {
            sysctls: vec![(name.to_owned(), "1".to_owned())],
            ..request.clone()
        });
        assert_eq!(
            refused.unwrap_err().to_string(),
            format!("invalid endpoint sysctl: {name}")
        );
    }
    // One the kernel does not know fails the connect and leaves nothing.
    let unknown = stack
        .allocate(&EndpointRequest {
            sysctls: vec![("net.ipv4.conf.IFNAME.nonsense".to_owned(), "1".to_owned())],
            ..request.clone()
        })
        .unwrap();
    let netns = Netns::create().unwrap();
    assert!(
        stack
            .connect(&unknown, &netns, DefaultRoutes::BOTH)
            .is_err()
    );
    assert!(!links().contains(&unknown.host_interface));
}
