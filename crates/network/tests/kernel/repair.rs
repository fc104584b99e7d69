//! What somebody took away comes back.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use gantry_network::{
    BridgeConfig, EndpointRequest, Error, Ipv6Config, PortReserver, Protocol, Repair, Stack,
    StackConfig,
};
use gantry_sys::netlink::{Family, Socket};
use gantry_sys::nft;

use crate::world::*;

#[test]
fn a_flushed_ruleset_comes_back() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaaa5");
    let web = start(&stack, "web", &[mapping(None, 8080, 80, Protocol::Tcp)]);
    serve_tcp(&web.netns, 80, "web");
    assert!(stack.reconcile().unwrap().is_clean());
    nft(&["flush", "ruleset"]);
    let report = stack.reconcile().unwrap();
    assert_eq!(report.restored, ["table gantry-aaaaaaaaaaaa"]);
    assert_eq!(
        enter(&host.outside, || ask(HOST, 8080)).as_deref(),
        Some("web 10.9.0.2")
    );
    // One rule and one element are mended without touching the rest.
    nft(&[
        "flush",
        "chain",
        "inet",
        "gantry-aaaaaaaaaaaa",
        "forward-to-docker0",
    ]);
    nft(&[
        "delete",
        "element",
        "inet",
        "gantry-aaaaaaaaaaaa",
        "published",
        "{ tcp . 8080 }",
    ]);
    nft(&[
        "add",
        "element",
        "inet",
        "gantry-aaaaaaaaaaaa",
        "published",
        "{ tcp . 9 : 1.2.3.4 . 9 }",
    ]);
    let report = stack.reconcile().unwrap();
    assert_eq!(
        report.restored,
        ["chain forward-to-docker0", "1 elements of published"]
    );
    assert_eq!(report.removed, ["1 elements of published"]);
    assert!(stack.reconcile().unwrap().is_clean());
    // Publishing and releasing work on a flushed ruleset, too.
    nft(&["flush", "ruleset"]);
    let late = start(&stack, "late", &[mapping(None, 8081, 80, Protocol::Tcp)]);
    serve_tcp(&late.netns, 80, "late");
    assert_eq!(
        enter(&host.outside, || ask(HOST, 8081)).as_deref(),
        Some("late 10.9.0.2")
    );
    assert_eq!(
        enter(&host.outside, || ask(HOST, 8080)).as_deref(),
        Some("web 10.9.0.2")
    );
    nft(&["flush", "ruleset"]);
    stack.release(&late.endpoint, &late.ports).unwrap();
    stack.release(&late.endpoint, &late.ports).unwrap();
    // What was released does not come back with the rules.
    stack.reconcile().unwrap();
    let elements = nft(&["list", "map", "inet", "gantry-aaaaaaaaaaaa", "published"]);
    assert!(
        elements.contains("8080") && !elements.contains("8081"),
        "{elements}"
    );
    assert!(!nft(&["list", "ruleset"]).contains("8081"));
}

#[test]
fn a_watched_ruleset_comes_back_by_itself() {
    let host = Host::new();
    let config = StackConfig {
        watch: true,
        ..host.config("aaaaaaaaaaaa6")
    };
    let stack = Stack::open(config, &[], &[]).unwrap();
    let _web = start(&stack, "web", &[mapping(None, 8080, 80, Protocol::Tcp)]);
    nft(&["flush", "ruleset"]);
    eventually("the rules are back", || {
        nft(&["list", "ruleset"]).contains("tcp . 8080")
    });
    eventually("loopback routing is back", || {
        sysctl("conf/docker0/route_localnet") == "1"
    });
    eventually("the operator is told", || {
        host.warnings
            .lock()
            .unwrap()
            .iter()
            .any(|text| text.contains("removed by somebody"))
    });
}

#[test]
fn a_restarted_daemon_finds_everything_as_it_was() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaaa8");
    let web = start(&stack, "web", &[mapping(None, 8080, 80, Protocol::Tcp)]);
    serve_tcp(&web.netns, 80, "web");
    let lost = start(&stack, "lost", &[mapping(None, 8081, 80, Protocol::Tcp)]);
    let before = nft(&["-a", "list", "ruleset"]);
    drop(stack);
    let live = [(web.endpoint.clone(), web.ports.clone())];
    let stack = Stack::open(host.config("aaaaaaaaaaaa8"), &[], &live).unwrap();
    let after = nft(&["-a", "list", "ruleset"]);
    let handles = |text: &str| {
        text.lines()
            .filter(|line| line.contains("handle"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(handles(&before), handles(&after), "no rule was made anew");
    assert!(!after.contains("8081"));
    assert!(
        !links().contains(&lost.endpoint.host_interface),
        "nobody owns it"
    );
    assert_eq!(host.reserver.owners().unwrap(), [web.endpoint.id.as_str()]);
    assert_eq!(
        enter(&host.outside, || ask(HOST, 8080)).as_deref(),
        Some("web 10.9.0.2")
    );
    let next = stack
        .allocate(&EndpointRequest {
            container_id: "next".to_owned(),
            ..EndpointRequest::default()
        })
        .unwrap();
    assert_eq!(next.ipv4, Some(Ipv4Addr::new(172, 17, 0, 3)));
    assert!(matches!(
        stack.reserve_ports(&next, &[mapping(None, 8080, 1, Protocol::Tcp)]),
        Err(Error::PortAllocated { port: 8080, .. })
    ));
}

#[test]
fn a_restarted_daemon_mends_what_lacks_among_many_networks() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaac8");
    let mut configs = Vec::new();
    for digit in "012345678".chars() {
        let config = BridgeConfig {
            ipv6: (digit > '5').then(Ipv6Config::default),
            ..user_defined(digit)
        };
        let info = stack.create_network(&config.clone().into()).unwrap();
        // As the records have them.
        configs.push(BridgeConfig {
            subnet: info.ipv4.map(|ipv4| ipv4.subnet),
            ipv6: info.ipv6.map(|ipv6| Ipv6Config {
                subnet: Some(ipv6.subnet),
                ..Ipv6Config::default()
            }),
            ..config
        });
    }
    drop(stack);
    let bridges = || {
        let text = ip(&["-o", "address", "show"]);
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| line.contains("br-") && !line.contains("scope link"))
            .map(|line| line.split_once(": ").unwrap().1.to_owned())
            .map(|line| line.split(" valid_lft").next().unwrap().to_owned())
            .map(|line| line.replace(" tentative", ""))
            .collect();
        lines.sort();
        lines
    };
    let before = bridges();
    assert_eq!(before.len(), 12, "{before:?}");
    // Two are gone, others lack an address; one network is new, without a subnet of its own.
    for digit in ["1", "7"] {
        ip(&["link", "del", &format!("br-{}", digit.repeat(12))]);
    }
    for digit in ["3", "8"] {
        ip(&[
            "address",
            "flush",
            "dev",
            &format!("br-{}", digit.repeat(12)),
        ]);
    }
    configs.push(user_defined('9'));
    let networks: Vec<_> = configs.into_iter().map(Into::into).collect();
    let stack = Stack::open(host.config("aaaaaaaaaaac8"), &networks, &[]).unwrap();
    assert_eq!(*host.warnings.lock().unwrap(), Vec::<String>::new());
    let mut after = bridges();
    after.retain(|line| !line.starts_with("br-999999999999"));
    let words = |lines: &[String]| -> Vec<Vec<String>> {
        let words = lines.iter().map(|line| {
            let words = line.split_whitespace().take(4);
            words.map(str::to_owned).collect()
        });
        words.collect()
    };
    assert_eq!(words(&after), words(&before));
    assert!(stack.reconcile().unwrap().is_clean());
}

/// Opens a stack that watches.
fn watching(host: &Host, engine_id: &str) -> Stack {
    let config = StackConfig {
        watch: true,
        ..host.config(engine_id)
    };
    Stack::open(config, &[], &[]).unwrap()
}

/// Waits for a repair with these words, which must come within two seconds.
fn repaired(host: &Host, words: &str, since: Instant) -> Repair {
    let mut found = None;
    eventually(words, || {
        let repairs = host.repairs.lock().unwrap();
        found = repairs
            .iter()
            .find(|repair| repair.text.contains(words))
            .cloned();
        found.is_some()
    });
    assert!(
        since.elapsed() < Duration::from_secs(2),
        "{:?}",
        since.elapsed()
    );
    found.unwrap()
}

#[test]
fn a_deleted_bridge_comes_back_with_its_containers() {
    let host = Host::new();
    let stack = watching(&host, "aaaaaaaaaaac1");
    let config = BridgeConfig {
        ipv6: Some(Ipv6Config::default()),
        ..user_defined('c')
    };
    let info = stack.create_network(&config.into()).unwrap();
    let mapping = [mapping(None, 8080, 80, Protocol::Tcp)];
    let web = start_on(&stack, Some(&info.id), "web", &mapping);
    let mate = start_on(&stack, Some(&info.id), "mate", &[]);
    serve_tcp(&web.netns, 80, "web");
    let start = Instant::now();
    ip(&["link", "del", &info.interface]);
    let repair = repaired(&host, "bridge br-cccccccccccc", start);
    assert_eq!(
        (repair.network.as_deref(), repair.container),
        (Some(&*info.id), None)
    );
    eventually("the containers are back", || {
        enter(&host.outside, || ask(HOST, 8080)).as_deref() == Some("web 10.9.0.2")
    });
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        enter(&host.outside, || ask(HOST6, 8080)).as_deref(),
        Some("web fd09::2")
    );
    assert!(
        ask(Ipv4Addr::LOCALHOST, 8080).is_some(),
        "by the loopback as well"
    );
    assert!(enter(&mate.netns, || ask(web.ipv4(), 80)).is_some());
    assert!(host.was_told("a bridge was removed or changed by somebody"));
    assert!(stack.reconcile().unwrap().is_clean());
}

#[test]
fn a_repair_that_fails_keeps_no_other_from_being_made() {
    let host = Host::new();
    let stack = watching(&host, "aaaaaaaaaaac5");
    let first = BridgeConfig {
        ipv6: Some(Ipv6Config::default()),
        ..user_defined('a')
    };
    let first = stack.create_network(&first.into()).unwrap();
    let second = stack.create_network(&user_defined('c').into()).unwrap();
    let mapping = [mapping(None, 8080, 80, Protocol::Tcp)];
    let web = start_on(&stack, Some(&second.id), "web", &mapping);
    serve_tcp(&web.netns, 80, "web");
    // With this MTU there is no IPv6, which the network is to have.
    ip(&["link", "set", &first.interface, "mtu", "1000"]);
    ip(&["address", "flush", "dev", &first.interface]);
    ip(&["link", "del", &second.interface]);
    nft(&["flush", "ruleset"]);
    eventually("the second network is back", || {
        enter(&host.outside, || ask(HOST, 8080)).as_deref() == Some("web 10.9.0.2")
    });
    eventually("the operator is told", || {
        host.was_told("cannot be restored")
    });
    eventually("by the loopback as well", || {
        ask(Ipv4Addr::LOCALHOST, 8080).is_some()
    });
    let addresses = || ip(&["-4", "address", "show", "dev", &first.interface]);
    assert_eq!(addresses(), "");
    // It is tried again without anything else happening.
    ip(&["link", "set", &first.interface, "mtu", "1500"]);
    let start = Instant::now();
    eventually("the first network is back", || !addresses().is_empty());
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    assert!(stack.reconcile().unwrap().is_clean());
}

#[test]
fn a_network_that_does_not_come_up_costs_its_containers_nothing() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaac6");
    let config = BridgeConfig {
        subnet: "10.81.0.0/24".parse().ok(),
        ..user_defined('c')
    };
    let info = stack.create_network(&config.clone().into()).unwrap();
    let mappings = [mapping(None, 8080, 80, Protocol::Tcp)];
    let web = start_on(&stack, Some(&info.id), "web", &mappings);
    let mate = start_on(&stack, Some(&info.id), "mate", &[]);
    serve_tcp(&web.netns, 80, "web");
    drop(stack);
    // The bridge is lost, and its name is in the way.
    ip(&["link", "del", &info.interface]);
    ip(&[
        "link",
        "add",
        &info.interface,
        "type",
        "veth",
        "peer",
        "name",
        "other",
    ]);
    let live = [
        (web.endpoint.clone(), web.ports.clone()),
        (mate.endpoint.clone(), Vec::new()),
    ];
    let engine = StackConfig {
        watch: true,
        ..host.config("aaaaaaaaaaac6")
    };
    let stack = Stack::open(engine, &[config.clone().into()], &live).unwrap();
    assert!(host.was_told("bring up network net-c"));
    for _ in 0..2 {
        for container in [&web, &mate] {
            assert!(links().contains(&container.endpoint.host_interface));
        }
        assert_eq!(host.reserver.owners().unwrap(), [web.endpoint.id.as_str()]);
        stack.reconcile().unwrap();
    }
    let next = start(&stack, "next", &[]);
    assert!(matches!(
        stack.reserve_ports(&next.endpoint, &mappings),
        Err(Error::PortAllocated { port: 8080, .. })
    ));
    let overlapping = BridgeConfig {
        subnet: "10.81.0.0/25".parse().ok(),
        ..user_defined('d')
    };
    assert!(stack.create_network(&overlapping.into()).is_err());
    assert!(stack.remove_network(&info.id).is_err(), "it is in use");
    // What was in the way goes; the rest happens by itself.
    ip(&["link", "del", &info.interface]);
    eventually("the network is back", || {
        enter(&host.outside, || ask(HOST, 8080)).as_deref() == Some("web 10.9.0.2")
    });
    eventually("by the loopback as well", || {
        ask(Ipv4Addr::LOCALHOST, 8080).is_some()
    });
    assert!(enter(&mate.netns, || ask(web.ipv4(), 80)).is_some());
    assert!(stack.reconcile().unwrap().is_clean());
    let address = EndpointRequest {
        container_id: "late".to_owned(),
        network: Some(info.id.clone()),
        ipv4: mate.endpoint.ipv4,
        ..EndpointRequest::default()
    };
    assert!(matches!(
        stack.allocate(&address),
        Err(Error::AddressInUse { .. })
    ));
    for container in [&web, &mate] {
        stack
            .release(&container.endpoint, &container.ports)
            .unwrap();
    }
    stack.remove_network(&info.id).unwrap();
    assert!(!links().contains(&info.interface));
}

#[test]
fn a_container_that_starts_lets_its_network_be_tried_again() {
    let host = Host::new();
    let engine_id = "aaaaaaaaaaab8";
    let config = BridgeConfig {
        subnet: "10.78.0.0/24".parse().ok(),
        ..user_defined('c')
    };
    // Somebody has the name, and gives it up later.
    ip(&["link", "add", &config.interface, "type", "veth"]);
    let networks = [config.clone().into()];
    let stack = Stack::open(host.config(engine_id), &networks, &[]).unwrap();
    assert!(host.was_told("bring up network"));
    let request = EndpointRequest {
        container_id: "web".to_owned(),
        network: Some(config.id.clone()),
        container_interface: Some("eth0".to_owned()),
        ..EndpointRequest::default()
    };
    let refused = stack.allocate(&request).unwrap_err();
    assert!(refused.to_string().contains("is not a bridge"), "{refused}");
    ip(&["link", "del", &config.interface]);
    let web = start_on(
        &stack,
        Some(&config.id),
        "web",
        &[mapping(None, 8080, 80, Protocol::Tcp)],
    );
    serve_tcp(&web.netns, 80, "web");
    assert_eq!(
        enter(&host.outside, || ask(HOST, 8080)).as_deref(),
        Some("web 10.9.0.2")
    );
    assert!(stack.reconcile().unwrap().is_clean());
}

#[test]
fn a_network_that_is_down_can_be_left_and_removed() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaac7");
    let config = BridgeConfig {
        subnet: "10.81.0.0/24".parse().ok(),
        ..user_defined('c')
    };
    let info = stack.create_network(&config.clone().into()).unwrap();
    let mappings = [mapping(None, 8080, 80, Protocol::Tcp)];
    let web = start_on(&stack, Some(&info.id), "web", &mappings);
    drop(stack);
    // The default network wants the subnet now.
    let mut engine = host.config("aaaaaaaaaaac7");
    if let Some(bridge) = &mut engine.bridge {
        bridge.subnet = "10.81.0.0/16".parse().ok();
    }
    let live = [(web.endpoint.clone(), web.ports.clone())];
    let stack = Stack::open(engine, &[config.into()], &live).unwrap();
    assert!(host.was_told("bring up network net-c"));
    assert!(links().contains(&info.interface) && links().contains(&web.endpoint.host_interface));
    let rules = nft(&["list", "ruleset"]);
    assert!(
        rules.contains("forward-to-br-cccccccccccc") && rules.contains("tcp . 8080"),
        "its rules stay: {rules}"
    );
    stack.disconnect(&web.endpoint, &web.netns).unwrap();
    stack.release(&web.endpoint, &web.ports).unwrap();
    assert!(!links().contains(&web.endpoint.host_interface));
    assert_eq!(host.reserver.owners().unwrap(), Vec::<String>::new());
    let next = start(&stack, "next", &mappings);
    assert_eq!(next.ports.len(), web.ports.len(), "its port is free again");
    stack.remove_network(&info.id).unwrap();
    assert!(!links().contains(&info.interface));
    assert!(!nft(&["list", "ruleset"]).contains("br-cccccccccccc"));
    assert!(stack.reconcile().unwrap().is_clean());
}

#[test]
fn a_living_containers_deleted_interface_is_made_again() {
    let host = Host::new();
    let stack = watching(&host, "aaaaaaaaaaac2");
    let web = start(&stack, "web", &[mapping(None, 8080, 80, Protocol::Tcp)]);
    let dead = start(&stack, "dead", &[]);
    host.lives(&web);
    serve_tcp(&web.netns, 80, "web");
    let start = Instant::now();
    ip(&["link", "del", &dead.endpoint.host_interface]);
    ip(&["link", "del", &web.endpoint.host_interface]);
    let repair = repaired(&host, "interface eth0", start);
    assert_eq!(repair.container.as_deref(), Some("web"));
    assert_eq!(
        enter(&host.outside, || ask(HOST, 8080)).as_deref(),
        Some("web 10.9.0.2")
    );
    serve_tcp(&host.outside, 7000, "world");
    assert!(
        enter(&web.netns, || ask(OUTSIDE, 7000)).is_some(),
        "the way out is back"
    );
    let link = enter(&web.netns, || ip(&["link", "show", "eth0"]));
    assert!(link.contains(&web.endpoint.mac.to_string()), "{link}");
    assert!(
        !links().contains(&dead.endpoint.host_interface),
        "of a container that does not live nothing is made"
    );
    // A release is nobody's damage.
    host.repairs.lock().unwrap().clear();
    stack.release(&web.endpoint, &web.ports).unwrap();
    ip(&["link", "del", &web.endpoint.host_interface]);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(*host.repairs.lock().unwrap(), []);
}

#[test]
fn rules_that_somebody_changed_come_back() {
    let host = Host::new();
    let stack = watching(&host, "aaaaaaaaaaac3");
    let web = start(&stack, "web", &[mapping(None, 8080, 80, Protocol::Tcp)]);
    serve_tcp(&web.netns, 80, "web");
    let start = Instant::now();
    let table = "gantry-aaaaaaaaaaac";
    nft(&["flush", "map", "inet", table, "published"]);
    let repair = repaired(&host, "1 elements of published", start);
    assert_eq!((repair.network, repair.container), (None, None));
    assert!(enter(&host.outside, || ask(HOST, 8080)).is_some());
    // Our own changes are no news.
    host.repairs.lock().unwrap().clear();
    for number in 0..5 {
        let more = start_on(
            &stack,
            None,
            &format!("more{number}"),
            &[mapping(None, 0, 80, Protocol::Tcp)],
        );
        stack.release(&more.endpoint, &more.ports).unwrap();
    }
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(*host.repairs.lock().unwrap(), []);
}

#[test]
fn a_bridge_that_is_set_down_or_loses_its_addresses_is_mended() {
    let host = Host::new();
    let stack = watching(&host, "aaaaaaaaaaad1");
    let config = BridgeConfig {
        ipv6: Some(Ipv6Config::default()),
        ..user_defined('c')
    };
    let info = stack.create_network(&config.into()).unwrap();
    let mapping = [mapping(None, 8080, 80, Protocol::Tcp)];
    let web = start_on(&stack, Some(&info.id), "web", &mapping);
    serve_tcp(&web.netns, 80, "web");
    let bridge = info.interface.as_str();
    let addresses = || {
        let text = ip(&["-o", "address", "show", "dev", bridge]);
        let mut found: Vec<String> = text
            .lines()
            .filter_map(|line| line.split_whitespace().nth(3).map(str::to_owned))
            .collect();
        found.sort();
        found
    };
    let before = addresses();
    assert!(before.len() >= 3, "{before:?}");
    let damages: [(&[&str], &str); 4] = [
        (&["link", "set", bridge, "down"], "which was down"),
        (&["address", "flush", "dev", bridge], "address "),
        (&["-4", "address", "flush", "dev", bridge], "address "),
        (&["-6", "address", "flush", "dev", bridge], "address "),
    ];
    for (damage, words) in damages {
        host.repairs.lock().unwrap().clear();
        let start = Instant::now();
        ip(damage);
        let repair = repaired(&host, words, start);
        assert!(repair.text.contains(bridge), "{}", repair.text);
        assert_eq!(
            (repair.network.as_deref(), repair.container),
            (Some(&*info.id), None)
        );
        eventually("the addresses are back", || addresses() == before);
        eventually("the port answers", || {
            enter(&host.outside, || ask(HOST, 8080)).is_some()
                && enter(&host.outside, || ask(HOST6, 8080)).is_some()
        });
    }
    assert!(stack.reconcile().unwrap().is_clean());
    // A removal is nobody's damage.
    stack.release(&web.endpoint, &web.ports).unwrap();
    host.repairs.lock().unwrap().clear();
    stack.remove_network(&info.id).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(*host.repairs.lock().unwrap(), []);
}

#[test]
fn a_containers_port_that_is_set_down_or_taken_off_its_bridge_is_mended() {
    let host = Host::new();
    let stack = watching(&host, "aaaaaaaaaaad2");
    let web = start(&stack, "web", &[mapping(None, 8080, 80, Protocol::Tcp)]);
    host.lives(&web);
    serve_tcp(&web.netns, 80, "web");
    let veth = web.endpoint.host_interface.as_str();
    for (damage, words) in [("down", "which was down"), ("nomaster", "on its bridge")] {
        let start = Instant::now();
        ip(&["link", "set", veth, damage]);
        let repair = repaired(&host, words, start);
        assert_eq!(repair.container.as_deref(), Some("web"));
        eventually("the port answers", || {
            enter(&host.outside, || ask(HOST, 8080)).is_some()
        });
    }
    assert!(stack.reconcile().unwrap().is_clean());
    // Containers that come and go are nobody's damage.
    host.repairs.lock().unwrap().clear();
    for number in 0..5 {
        let more = start_on(&stack, None, &format!("more{number}"), &[]);
        stack.release(&more.endpoint, &more.ports).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(*host.repairs.lock().unwrap(), []);
}

#[test]
fn forwarding_that_is_switched_off_is_switched_on_again() {
    const SWITCHES: [(&str, &str); 2] = [
        ("ip_forward", "forwarding of IPv4"),
        ("../ipv6/conf/all/forwarding", "forwarding of IPv6"),
    ];
    let host = Host::new();
    let mut stack = watching(&host, "aaaaaaaaaaad3");
    let dual = BridgeConfig {
        ipv6: Some(Ipv6Config::default()),
        ..user_defined('c')
    };
    stack.create_network(&dual.clone().into()).unwrap();
    for (switch, words) in SWITCHES {
        assert_eq!(sysctl(switch), "1");
        let start = Instant::now();
        fs::write(format!("/proc/sys/net/ipv4/{switch}"), "0").unwrap();
        let repair = repaired(&host, words, start);
        assert_eq!((repair.network, repair.container), (None, None));
        assert_eq!(sysctl(switch), "1");
    }
    assert!(host.was_told("forwarding was switched off by somebody"));
    stack.teardown().unwrap();
    // Who wants it to be off says so to the daemon.
    drop(stack);
    let config = StackConfig {
        watch: true,
        ip_forward: false,
        ..host.config("aaaaaaaaaaad4")
    };
    stack = Stack::open(config, &[], &[]).unwrap();
    stack.create_network(&dual.into()).unwrap();
    host.repairs.lock().unwrap().clear();
    for (switch, _) in SWITCHES {
        fs::write(format!("/proc/sys/net/ipv4/{switch}"), "1").unwrap();
        fs::write(format!("/proc/sys/net/ipv4/{switch}"), "0").unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(*host.repairs.lock().unwrap(), []);
    for (switch, _) in SWITCHES {
        assert_eq!(sysctl(switch), "0");
    }
}

#[test]
fn where_the_guard_cannot_stand_nothing_is_forwarded_and_nothing_is_left() {
    let host = Host::new();
    let rules = Socket::open(Family::Netfilter).unwrap();
    // Nobody else can write into a table that has an owner.
    let own = |table: &str| {
        let mut owned = nft::Transaction::new();
        owned.add_owned_table(nft::Family::Inet, table, false);
        owned.commit(&rules).unwrap();
    };
    own("gantry-aaaaaaaaaaae");
    for switch in ["ip_forward", "../ipv6/conf/all/forwarding"] {
        assert_eq!(sysctl(switch), "0");
    }
    let before = links();
    let network = BridgeConfig {
        subnet: "10.78.0.0/24".parse().ok(),
        ..user_defined('c')
    };
    let networks = [network.into()];
    assert!(Stack::open(host.config("aaaaaaaaaaae1"), &networks, &[]).is_err());
    assert_eq!(sysctl("ip_forward"), "0");
    // Nor is anything left of what was made on the way.
    assert_eq!(links(), before);
    // The same of IPv6, which comes with the first network that has it.
    let stack = host.open("aaaaaaaaaaaf1");
    assert_eq!(sysctl("ip_forward"), "1");
    nft(&["flush", "ruleset"]);
    own("gantry-aaaaaaaaaaaf");
    let dual = BridgeConfig {
        ipv6: Some(Ipv6Config::default()),
        ..user_defined('c')
    };
    assert!(stack.create_network(&dual.into()).is_err());
    assert_eq!(sysctl("../ipv6/conf/all/forwarding"), "0");
}

#[test]
fn what_netd_does_to_its_own_table_leads_to_no_comparison() {
    let host = Host::new();
    let stack = watching(&host, "aaaaaaaaaaad5");
    let table = "gantry-aaaaaaaaaaad";
    let _web = start(&stack, "web", &[mapping(None, 8080, 80, Protocol::Tcp)]);
    // The last comparison is some time ago, so the next one would come at once.
    std::thread::sleep(Duration::from_millis(1300));
    // A change by this process counts as the engine's own and shows whether anything is compared.
    let mut gone = nft::Transaction::new();
    gone.flush_chain(nft::Family::Inet, table, "forward-to-docker0");
    gone.commit(&Socket::open(Family::Netfilter).unwrap())
        .unwrap();
    let guard = format!("{table}-guard");
    nft(&["add", "table", "inet", &guard]);
    nft(&["add", "chain", "inet", &guard, "guard"]);
    nft(&["add", "rule", "inet", &guard, "guard", "drop"]);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(*host.repairs.lock().unwrap(), []);
    // Another table's change is looked into, also by a transaction of both.
    let start = Instant::now();
    let both = format!("delete table inet {guard}; add table inet other");
    nft(&[&both]);
    repaired(&host, "chain forward-to-docker0", start);
}

#[test]
fn a_firewall_that_is_switched_on_later_lets_containers_pass() {
    let host = Host::new();
    let stack = watching(&host, "aaaaaaaaaaac4");
    let web = start(&stack, "web", &[mapping(None, 8080, 80, Protocol::Tcp)]);
    serve_tcp(&web.netns, 80, "web");
    let base = "{ type filter hook forward priority 0; policy drop; }";
    // Switched on, and reloaded: made anew with other rules.
    for _ in 0..2 {
        let start = Instant::now();
        nft(&["add", "table", "ip", "filter"]);
        nft(&["add", "chain", "ip", "filter", "FORWARD", base]);
        eventually("our mark is in the new chain", || {
            nft(&["list", "chain", "ip", "filter", "FORWARD"])
                .contains("gantry:aaaaaaaaaaac:docker0")
        });
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        assert!(enter(&host.outside, || ask(HOST, 8080)).is_some());
        nft(&["delete", "table", "ip", "filter"]);
    }
    // The loopback guard holds over a flush, also for whoever asks in between.
    nft(&["flush", "ruleset"]);
    eventually("all is back", || {
        nft(&["list", "ruleset"]).contains("tcp . 8080")
    });
}
