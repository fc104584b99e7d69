//! Bridges and what is on them.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use gantry_network::{
    BridgeConfig, DefaultRoutes, EndpointRequest, Error, Ipv6Config, Netns, NetworkConfig,
    PortReserver, Protocol, Stack, loopback_up,
};
use gantry_sys::netlink::{Batch, Family, Socket, route};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::world::*;

#[test]
fn a_bridge_that_cannot_be_completed_is_not_left_behind() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaad1");
    // The kernel gives no interface a multicast address.
    let config = BridgeConfig {
        ipv6: Some(Ipv6Config {
            subnet: "ff00::/64".parse().ok(),
            ..Ipv6Config::default()
        }),
        ..user_defined('c')
    };
    for _ in 0..2 {
        let refused = stack.create_network(&config.clone().into()).unwrap_err();
        assert!(refused.to_string().contains("br-cccccccccccc"), "{refused}");
        assert!(!links().contains(&"br-cccccccccccc".to_owned()));
    }
    assert!(stack.reconcile().unwrap().is_clean());
    stack.create_network(&user_defined('c').into()).unwrap();
}

/// Runs on a thread that the kernel lets change no network.
fn powerless<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::NET_ADMIN);
            set_capabilities(None, sets).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

#[test]
fn a_network_that_cannot_be_removed_stays_whole() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaad3");
    let info = stack.create_network(&user_defined('c').into()).unwrap();
    let stands = || {
        let rules = nft(&["list", "ruleset"]).contains("forward-to-br-cccccccccccc");
        (links().contains(&info.interface), rules)
    };
    let refused = powerless(|| stack.remove_network(&info.id)).unwrap_err();
    assert!(
        refused.to_string().contains("remove rules from table"),
        "{refused}"
    );
    assert_eq!(stands(), (true, true));
    assert_eq!(stack.network(&info.id).unwrap(), info);
    let web = start_on(&stack, Some(&info.id), "web", &[]);
    stack.release(&web.endpoint, &web.ports).unwrap();
    // Tried again it goes, once.
    stack.remove_network(&info.id).unwrap();
    assert_eq!(stands(), (false, false));
    assert!(matches!(
        stack.network(&info.id),
        Err(Error::NetworkNotFound(_))
    ));
    stack.remove_network(&info.id).unwrap();
    stack.create_network(&user_defined('c').into()).unwrap();
    assert_eq!(stands(), (true, true));
}

#[test]
fn networks_made_at_once_have_subnets_of_their_own() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaad2");
    let subnets: Vec<_> = std::thread::scope(|scope| {
        let makers: Vec<_> = "0123456789"
            .chars()
            .map(|digit| {
                let stack = &stack;
                scope.spawn(move || stack.create_network(&user_defined(digit).into()).unwrap())
            })
            .collect();
        makers
            .into_iter()
            .map(|maker| maker.join().unwrap().ipv4.unwrap().subnet)
            .collect()
    });
    for (position, one) in subnets.iter().enumerate() {
        for other in &subnets[position + 1..] {
            assert!(
                !one.contains(other) && !other.contains(one),
                "{one} {other}"
            );
        }
    }
    assert!(stack.reconcile().unwrap().is_clean());
}

#[test]
fn a_container_has_its_interfaces_and_reaches_the_world() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaaa1");
    let bridge = stack.bridge().unwrap();
    assert_eq!(bridge.interface, "docker0");
    assert_eq!(bridge.mtu, LAN_MTU);
    assert_eq!(bridge.ipv4.unwrap().subnet.to_string(), "172.17.0.0/16");
    assert_eq!(sysctl("ip_forward"), "1");
    let container = start(&stack, "c1", &[]);
    assert_eq!(container.ipv4(), Ipv4Addr::new(172, 17, 0, 2));
    let inside = Socket::from(container.netns.rtnl.try_clone().unwrap());
    let eth0 = route::link_by_name(&inside, "eth0").unwrap().unwrap();
    assert!(eth0.up);
    assert_eq!(eth0.mtu, LAN_MTU);
    assert_eq!(eth0.address, Some(container.endpoint.mac.0));
    assert!(route::link_by_name(&inside, "lo").unwrap().unwrap().up);
    let rtnl = Socket::open(Family::Route).unwrap();
    let veth = route::link_by_name(&rtnl, &container.endpoint.host_interface)
        .unwrap()
        .unwrap();
    assert_eq!(veth.alias.as_deref(), Some("gantry:aaaaaaaaaaaa:c1"));
    // The very first packet arrives, and with the host's address as its source.
    serve_tcp(&host.outside, 7000, "world");
    let before = Instant::now();
    let answer = enter(&container.netns, || ask(OUTSIDE, 7000));
    assert_eq!(answer.as_deref(), Some("world 10.9.0.1"));
    assert!(
        before.elapsed() < Duration::from_millis(500),
        "{:?}",
        before.elapsed()
    );
    // The container has ::1 and no other IPv6 address.
    let ipv6 = enter(&container.netns, || {
        fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap()
    });
    assert_eq!(ipv6.lines().count(), 1, "{ipv6}");
    assert!(ipv6.contains(" lo"), "{ipv6}");
    let none = Netns::create().unwrap();
    loopback_up(&none).unwrap();
    let inside = Socket::from(none.rtnl.try_clone().unwrap());
    assert!(route::link_by_name(&inside, "lo").unwrap().unwrap().up);
}

#[test]
fn release_leaves_nothing_and_the_address_is_harmless_at_once() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaaa7");
    let first = start(&stack, "first", &[mapping(None, 8080, 80, Protocol::Tcp)]);
    let neighbour = start(&stack, "neighbour", &[]);
    serve_tcp(&first.netns, 80, "first");
    let address = first.ipv4();
    assert_eq!(
        enter(&neighbour.netns, || ask(address, 80)).as_deref(),
        Some("first 172.17.0.3")
    );
    // The namespace lives on, as it does while somebody else is joined to it.
    stack.release(&first.endpoint, &first.ports).unwrap();
    let second = start(&stack, "second", &[]);
    assert_eq!(
        second.ipv4(),
        address,
        "the lowest free address is given again"
    );
    assert!(second.endpoint.address_reused);
    assert_ne!(second.endpoint.mac, first.endpoint.mac);
    serve_tcp(&second.netns, 80, "second");
    // Both the neighbour, which remembers the old hardware address, and the host get the new one.
    assert_eq!(
        enter(&neighbour.netns, || ask(address, 80)).as_deref(),
        Some("second 172.17.0.3")
    );
    assert_eq!(ask(address, 80).as_deref(), Some("second 172.17.0.1"));
    eventually("the old interface is deleted", || {
        !links().contains(&first.endpoint.host_interface)
    });
    assert!(links().contains(&second.endpoint.host_interface));
    for container in [&second, &neighbour] {
        stack
            .release(&container.endpoint, &container.ports)
            .unwrap();
    }
    let names = [
        second.endpoint.host_interface.clone(),
        neighbour.endpoint.host_interface.clone(),
    ];
    drop((second, neighbour));
    eventually("the namespaces took their interfaces along", || {
        !links().iter().any(|link| names.contains(link))
    });
    assert!(!nft(&["list", "ruleset"]).contains("elements = { tcp"));
    assert!(host.reserver.owners().unwrap().is_empty());
    stack.teardown().unwrap();
    assert_eq!(nft(&["list", "ruleset"]), "");
    assert!(!links().contains(&"docker0".to_owned()));
    stack.teardown().unwrap();
}

#[test]
fn containers_of_a_network_without_icc_do_not_see_each_other() {
    let host = Host::new();
    let mut config = host.config("aaaaaaaaaaab1");
    config.bridge.as_mut().unwrap().icc = false;
    let stack = Stack::open(config, &[], &[]).unwrap();
    let web = start(&stack, "web", &[mapping(None, 8080, 80, Protocol::Tcp)]);
    let other = start(&stack, "other", &[]);
    serve_tcp(&web.netns, 80, "web");
    assert_eq!(enter(&other.netns, || ask(web.ipv4(), 80)), None);
    // Published ports go through the socket that reserves them: netd's, as everybody does with Docker's proxy.
    assert_eq!(
        enter(&other.netns, || ask(HOST, 8080)).as_deref(),
        Some("web 172.17.0.1")
    );
    assert_eq!(
        enter(&host.outside, || ask(HOST, 8080)).as_deref(),
        Some("web 10.9.0.2")
    );
    assert_eq!(ask(web.ipv4(), 80).as_deref(), Some("web 172.17.0.1"));
}

#[test]
fn user_defined_and_internal_networks_stand_beside_the_default_one() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaab2");
    let config = NetworkConfig::from(BridgeConfig {
        internal: true,
        ..user_defined('c')
    });
    let info = stack.create_network(&config).unwrap();
    assert_eq!(info.ipv4.unwrap().subnet.to_string(), "172.18.0.0/24");
    assert!(matches!(
        stack.create_network(&config),
        Err(Error::Conflict(_))
    ));
    let inside = stack
        .allocate(&EndpointRequest {
            container_id: "inside".to_owned(),
            network: Some(info.id.clone()),
            ..EndpointRequest::default()
        })
        .unwrap();
    assert_eq!(inside.gateway, None);
    let netns = Netns::create().unwrap();
    stack.connect(&inside, &netns, DefaultRoutes::BOTH).unwrap();
    let web = start(&stack, "web", &[]);
    serve_tcp(&web.netns, 80, "web");
    serve_tcp(&netns, 80, "inside");
    // Even with a route of its own making the container does not get out, nor anybody in.
    let socket = Socket::from(netns.rtnl.try_clone().unwrap());
    let eth0 = route::link_by_name(&socket, "eth0").unwrap().unwrap().index;
    let mut batch = Batch::new();
    route::add_default_route(&mut batch, eth0, info.ipv4.unwrap().gateway.unwrap());
    socket.execute(&mut batch).unwrap();
    assert_eq!(enter(&netns, || ask(web.ipv4(), 80)), None);
    assert_eq!(enter(&host.outside, || ask(inside.ipv4.unwrap(), 80)), None);
    assert!(matches!(
        stack.remove_network(&info.id),
        Err(Error::Conflict(_))
    ));
    stack.release(&inside, &[]).unwrap();
    stack.remove_network(&info.id).unwrap();
    stack.remove_network(&info.id).unwrap();
    assert!(!links().contains(&info.interface));
    assert!(!nft(&["list", "ruleset"]).contains("br-cccccccccccc"));
}
