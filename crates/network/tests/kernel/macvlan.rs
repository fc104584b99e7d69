//! Containers directly on an interface of the host.

use gantry_network::{
    DefaultRoutes, Endpoint, EndpointRequest, Error, Ipv6Config, IpvlanFlag, IpvlanMode,
    MacvlanConfig, MacvlanKind, MacvlanMode, NetworkConfig, Stack,
};

use crate::world::*;

fn on(parent: Option<&str>, digit: char, mode: MacvlanMode) -> MacvlanConfig {
    let id: String = std::iter::repeat_n(digit, 64).collect();
    let name = format!("mac-{digit}");
    let kind = MacvlanKind::Macvlan(mode);
    MacvlanConfig::new(id, name, parent.map(str::to_owned), kind)
}

fn lan(digit: char, mode: MacvlanMode) -> NetworkConfig {
    MacvlanConfig {
        subnet: "10.9.0.0/24".parse().ok(),
        gateway: Some(OUTSIDE),
        ip_range: "10.9.0.128/25".parse().ok(),
        ipv6: Some(Ipv6Config {
            subnet: "fd09::/64".parse().ok(),
            gateway: Some(OUTSIDE6),
            ip_range: "fd09::8:0/112".parse().ok(),
        }),
        ..on(Some("lan0"), digit, mode)
    }
    .into()
}

#[test]
fn containers_are_neighbours_of_the_hosts_neighbours() {
    let host = Host::new();
    let stack = host.open("0123456789ab1");
    let config = lan('a', MacvlanMode::Bridge);
    let info = stack.create_network(&config).unwrap();
    assert_eq!((info.interface.as_str(), info.mtu), ("lan0", LAN_MTU));
    let one = start_on(&stack, Some(&info.id), "one", &[]);
    let two = start_on(&stack, Some(&info.id), "two", &[]);
    serve_tcp(&one.netns, 80, "one");
    serve_tcp(&host.outside, 7000, "world");
    // By their own addresses, in both directions and both families; the host is not asked.
    let own = one.ipv4().to_string();
    assert_eq!(own, "10.9.0.128");
    assert_eq!(
        enter(&one.netns, || ask(OUTSIDE, 7000)),
        Some(format!("world {own}"))
    );
    assert_eq!(
        enter(&one.netns, || ask(OUTSIDE6, 7000)),
        Some(format!("world {}", one.ipv6()))
    );
    assert_eq!(
        enter(&host.outside, || ask(one.ipv4(), 80)).as_deref(),
        Some("one 10.9.0.2")
    );
    assert_eq!(
        enter(&two.netns, || ask(one.ipv4(), 80)),
        Some(format!("one {}", two.ipv4()))
    );
    assert_eq!(
        ask(one.ipv4(), 80),
        None,
        "the host and its macvlan interfaces do not meet"
    );
    let link = enter(&one.netns, || ip(&["-d", "link", "show", "eth0"]));
    assert!(link.contains("macvlan mode bridge"), "{link}");
    // Networks may share a parent, but not one that is handed over whole.
    let second = |digit, mode| {
        let config = MacvlanConfig {
            subnet: "10.19.0.0/24".parse().ok(),
            ..on(Some("lan0"), digit, mode)
        };
        stack.create_network(&config.into())
    };
    let refused = second('c', MacvlanMode::Passthru).unwrap_err().to_string();
    let user = format!(
        "macvlan network {} is already using parent interface lan0",
        info.id
    );
    assert_eq!(refused, format!("cannot use mode passthru, {user}"));
    let shared = second('c', MacvlanMode::Bridge).unwrap();
    stack.remove_network(&shared.id).unwrap();
    // Left while it runs, and its place is free.
    stack.disconnect(&two.endpoint, &two.netns).unwrap();
    stack.release(&two.endpoint, &[]).unwrap();
    let links_inside = enter(&two.netns, || ip(&["-br", "link"]));
    assert!(!links_inside.contains("eth0"), "{links_inside}");
    assert_eq!(
        start_on(&stack, Some(&info.id), "three", &[]).ipv4(),
        two.ipv4()
    );

    // A restarted daemon takes the living one over, and the parent is left alone in the end.
    drop(stack);
    let live: Vec<(Endpoint, _)> = vec![(one.endpoint.clone(), Vec::new())];
    let stack = Stack::open(host.config("0123456789ab1"), &[config], &live).unwrap();
    assert_eq!(*host.warnings.lock().unwrap(), Vec::<String>::new());
    stack.release(&one.endpoint, &[]).unwrap();
    stack.remove_network(&info.id).unwrap();
    assert!(links().contains(&"lan0".to_owned()));
}

#[test]
fn private_containers_do_not_see_each_other() {
    let host = Host::new();
    let stack = host.open("0123456789ab2");
    for (digit, mode) in [('a', MacvlanMode::Private), ('c', MacvlanMode::Vepa)] {
        let info = stack.create_network(&lan(digit, mode)).unwrap();
        let one = start_on(&stack, Some(&info.id), "one", &[]);
        let two = start_on(&stack, Some(&info.id), "two", &[]);
        serve_tcp(&one.netns, 80, "one");
        assert_eq!(enter(&two.netns, || ask(one.ipv4(), 80)), None, "{mode:?}");
        assert!(
            enter(&host.outside, || ask(one.ipv4(), 80)).is_some(),
            "{mode:?}"
        );
        for container in [one, two] {
            stack
                .disconnect(&container.endpoint, &container.netns)
                .unwrap();
            stack.release(&container.endpoint, &[]).unwrap();
        }
        stack.remove_network(&info.id).unwrap();
    }
}

#[test]
fn passthru_hands_the_interface_to_one_container() {
    let host = Host::new();
    let stack = host.open("0123456789ab3");
    // Its one user gets the interface's packets whole.
    let neighbour = host.another_lan(10);
    ip(&["address", "flush", "dev", "wire10"]);
    let config = MacvlanConfig {
        subnet: "10.10.0.0/24".parse().ok(),
        ..on(Some("wire10"), 'a', MacvlanMode::Passthru)
    };
    let info = stack.create_network(&config.into()).unwrap();
    let one = start_on(&stack, Some(&info.id), "one", &[]);
    serve_tcp(&neighbour, 7000, "neighbour");
    // The neighbour's own address is 10.10.0.2, which the network does not know of.
    assert_eq!(one.ipv4().to_string(), "10.10.0.2");
    enter(&neighbour, || {
        ip(&["address", "del", "10.10.0.2/24", "dev", "eth0"]);
        ip(&["address", "add", "10.10.0.9/24", "dev", "eth0"]);
    });
    let nine = std::net::Ipv4Addr::new(10, 10, 0, 9);
    eventually("the container speaks through the interface", || {
        enter(&one.netns, || ask(nine, 7000)).as_deref() == Some("neighbour 10.10.0.2")
    });
    let link = enter(&one.netns, || ip(&["link", "show", "eth0"]));
    assert!(link.contains(&one.endpoint.mac.to_string()), "{link}");
    let sharing = on(Some("wire10"), 'c', MacvlanMode::Bridge);
    assert_eq!(
        stack
            .create_network(&sharing.into())
            .unwrap_err()
            .to_string(),
        format!(
            "macvlan network {} is already using parent interface wire10 in mode passthru",
            info.id
        )
    );
    let second = stack
        .allocate(&EndpointRequest {
            container_id: "two".to_owned(),
            network: Some(info.id.clone()),
            ..EndpointRequest::default()
        })
        .unwrap();
    let netns = gantry_network::Netns::create().unwrap();
    let refused = stack
        .connect(&second, &netns, DefaultRoutes::BOTH)
        .unwrap_err();
    assert!(matches!(refused, Error::Kernel { .. }), "{refused}");
}

#[test]
fn a_network_without_parent_leads_nowhere() {
    let host = Host::new();
    let stack = host.open("0123456789ab4");
    let config = MacvlanConfig {
        internal: true,
        ..on(None, 'a', MacvlanMode::Bridge)
    };
    let info = stack.create_network(&config.into()).unwrap();
    assert_eq!(info.interface, "dm-aaaaaaaaaaaa");
    assert!(links().contains(&info.interface));
    let one = start_on(&stack, Some(&info.id), "one", &[]);
    let two = start_on(&stack, Some(&info.id), "two", &[]);
    serve_tcp(&one.netns, 80, "one");
    assert!(enter(&two.netns, || ask(one.ipv4(), 80)).is_some());
    assert_eq!(one.endpoint.gateway, None);
    assert_eq!(enter(&one.netns, || ip(&["route", "show", "default"])), "");
    assert!(enter(&host.outside, || ask(one.ipv4(), 80)).is_none());
    for container in [&one, &two] {
        stack.release(&container.endpoint, &[]).unwrap();
    }
    stack.remove_network(&info.id).unwrap();
    assert!(
        !links().contains(&info.interface),
        "it goes with the network"
    );
}

/// Says whether the kernel makes interfaces of a kind.
fn kernel_has(kind: &str, arguments: &[&str]) -> bool {
    let mut command = std::process::Command::new("ip");
    command.args(["link", "add", "link", "lan0", "name", "try0", "type", kind]);
    let made = command.args(arguments).output().unwrap().status.success();
    if made {
        ip(&["link", "del", "try0"]);
    }
    made
}

#[test]
fn a_vlan_is_made_and_removed_or_refused_by_name() {
    let host = Host::new();
    let stack = host.open("0123456789ab5");
    let config = NetworkConfig::from(on(Some("lan0.10"), 'a', MacvlanMode::Bridge));
    let answer = stack.create_network(&config);
    if kernel_has("vlan", &["id", "9"]) {
        let info = answer.unwrap();
        assert!(ip(&["-d", "link", "show", "lan0.10"]).contains("vlan protocol 802.1Q id 10"));
        stack.remove_network(&info.id).unwrap();
    } else {
        println!("this kernel has no VLANs: only the refusal is seen");
        assert_eq!(
            answer.unwrap_err().to_string(),
            "failed to create the lan0.10 vlan link: operation not supported: the kernel has no VLANs (8021q)"
        );
    }
    assert!(!links().contains(&"lan0.10".to_owned()));
}

#[test]
fn ipvlan_works_or_is_refused_by_name() {
    let host = Host::new();
    let stack = host.open("0123456789ab6");
    let config = NetworkConfig::from(MacvlanConfig {
        kind: MacvlanKind::Ipvlan(IpvlanMode::L2, IpvlanFlag::Bridge),
        subnet: "10.9.0.0/24".parse().ok(),
        ip_range: "10.9.0.128/25".parse().ok(),
        gateway: Some(OUTSIDE),
        ..on(Some("lan0"), 'a', MacvlanMode::Bridge)
    });
    let answer = stack.create_network(&config);
    if kernel_has("ipvlan", &["mode", "l2"]) {
        let info = answer.unwrap();
        let one = start_on(&stack, Some(&info.id), "one", &[]);
        serve_tcp(&one.netns, 80, "one");
        assert!(enter(&host.outside, || ask(one.ipv4(), 80)).is_some());
    } else {
        println!("this kernel has no ipvlan: only the refusal is seen");
        assert_eq!(
            answer.unwrap_err().to_string(),
            "operation not supported: the kernel has no ipvlan (CONFIG_IPVLAN)"
        );
        assert!(matches!(
            stack.network(&"a".repeat(64)),
            Err(Error::NetworkNotFound(_))
        ));
    }
}
