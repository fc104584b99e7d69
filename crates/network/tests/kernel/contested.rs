//! What is not this engine's, or is taken away again and again; and what a repair must not open.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gantry_network::{
    BridgeConfig, EndpointRequest, Ipv6Config, PortReserver, Protocol, Reservation, ReserveError,
    Stack, StackConfig,
};
use gantry_sys::netlink::{Family, Socket};
use gantry_sys::nft;

use crate::world::*;

/// The switches of IPv4 and IPv6, as `sysctl` names them.
const SWITCHES: [&str; 2] = ["ip_forward", "../ipv6/conf/all/forwarding"];

fn turn(switch: &str, value: &str) {
    fs::write(format!("/proc/sys/net/ipv4/{switch}"), value).unwrap();
}

fn watching(host: &Host, engine_id: &str) -> StackConfig {
    StackConfig {
        watch: true,
        ..host.config(engine_id)
    }
}

fn dual() -> BridgeConfig {
    BridgeConfig {
        ipv6: Some(Ipv6Config::default()),
        ..user_defined('c')
    }
}

#[test]
fn a_router_of_its_own_accord_stays_one_when_its_switch_is_turned() {
    let host = Host::new();
    for switch in SWITCHES {
        turn(switch, "1");
    }
    let (asker, answerer) = (host.another_lan(20), host.another_lan(30));
    serve_tcp(&answerer, 7000, "far");
    let far4 = IpAddr::from(Ipv4Addr::new(10, 30, 0, 2));
    let far6 = IpAddr::from(Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 2));
    let reaches = |far: IpAddr| enter(&asker, || ask(far, 7000)).is_some();
    let routes = || {
        for far in [far4, far6] {
            assert!(reaches(far), "{far}");
        }
    };
    eventually("the wires work", || reaches(far4) && reaches(far6));
    let config = watching(&host, "caaaaaaaaaaa1");
    let state = config.exec_root.join("network");
    let stack = Stack::open(config, &[], &[]).unwrap();
    stack.create_network(&dual().into()).unwrap();
    routes();
    for switch in SWITCHES {
        turn(switch, "0");
    }
    eventually("he is told", || {
        ["IPv4", "IPv6"].iter().all(|family| {
            host.was_told(&format!(
                "forwarding of {family} was switched off by somebody. It was on before"
            ))
        })
    });
    for switch in SWITCHES {
        assert_eq!(sysctl(switch), "0", "it is his");
        turn(switch, "1");
    }
    // Long enough for another comparison.
    nft(&["add", "table", "inet", "other"]);
    thread::sleep(Duration::from_millis(1500));
    routes();
    for note in ["ip_forward", "ip6_forward"] {
        assert!(!state.join(note).exists(), "{note}");
    }
    assert_eq!(*host.repairs.lock().unwrap(), []);
    stack.teardown().unwrap();
    for switch in SWITCHES {
        assert_eq!(sysctl(switch), "1");
    }
}

#[test]
fn a_switch_that_was_not_reached_is_not_called_the_engines() {
    let host = Host::new();
    // What is written last of all cannot be written.
    let switch = "/proc/sys/net/ipv4/ip_forward";
    gantry_sys::net::unshare_mounts().unwrap();
    run("mount", &["--make-rprivate", "/"]);
    run("mount", &["--bind", switch, switch]);
    run("mount", &["-o", "remount,bind,ro", switch]);
    let config = host.config("caaaaaaaaaab1");
    let note = config.exec_root.join("network/ip_forward");
    let refused = Stack::open(config.clone(), &[], &[]).err().unwrap();
    assert!(refused.to_string().contains("ip_forward"), "{refused}");
    assert!(!note.exists());
    run("umount", &[switch]);
    // Its administrator makes a router of it.
    turn("ip_forward", "1");
    let (asker, answerer) = (host.another_lan(20), host.another_lan(30));
    serve_tcp(&answerer, 7000, "far");
    let _stack = Stack::open(config, &[], &[]).unwrap();
    let far = Ipv4Addr::new(10, 30, 0, 2);
    assert!(enter(&asker, || ask(far, 7000)).is_some());
    assert!(!note.exists());
}

#[test]
fn a_network_stays_down_until_its_rules_stand() {
    let host = Host::new();
    let engine_id = "caaaaaaaaaac1";
    let stack = host.open(engine_id);
    let config = BridgeConfig {
        subnet: "10.83.0.0/24".parse().ok(),
        ..user_defined('c')
    };
    let info = stack.create_network(&config.clone().into()).unwrap();
    let mappings = [mapping(None, 8080, 80, Protocol::Tcp)];
    let web = start_on(&stack, Some(&info.id), "web", &mappings);
    serve_tcp(&web.netns, 80, "web");
    drop(stack);
    // The bridge is lost, and its name is in the way.
    ip(&["link", "del", &info.interface]);
    ip(&["link", "add", &info.interface, "type", "veth"]);
    let live = [(web.endpoint.clone(), web.ports.clone())];
    let stack = Stack::open(host.config(engine_id), &[config.into()], &live).unwrap();
    assert!(host.was_told("bring up network net-c"));
    // Now the name is free, and the table has an owner who lets nobody write.
    ip(&["link", "del", &info.interface]);
    nft(&["flush", "ruleset"]);
    let rules = Socket::open(Family::Netfilter).unwrap();
    let mut owned = nft::Transaction::new();
    owned.add_owned_table(nft::Family::Inet, "gantry-caaaaaaaaaac", false);
    owned.commit(&rules).unwrap();
    let request = EndpointRequest {
        container_id: "next".to_owned(),
        network: Some(info.id.clone()),
        ..EndpointRequest::default()
    };
    for _ in 0..2 {
        let refused = stack.allocate(&request).unwrap_err();
        assert!(refused.to_string().contains("firewall"), "{refused}");
        assert!(stack.network(&info.id).is_err(), "it is down");
    }
    assert!(links().contains(&web.endpoint.host_interface));
    assert_eq!(host.reserver.owners().unwrap(), [web.endpoint.id.as_str()]);
    assert_eq!(*host.repairs.lock().unwrap(), []);
    drop(rules);
    let next = start_on(&stack, Some(&info.id), "next", &[]);
    assert_ne!(next.endpoint.ipv4, web.endpoint.ipv4);
    assert_eq!(
        enter(&host.outside, || ask(HOST, 8080)).as_deref(),
        Some("web 10.9.0.2")
    );
    assert!(enter(&next.netns, || ask(web.ipv4(), 80)).is_some());
    // What the start had to mend for the others is told.
    let told = host.repairs.lock().unwrap().clone();
    let of_web: Vec<_> = told
        .iter()
        .filter(|repair| repair.container.as_deref() == Some("web"))
        .map(|repair| repair.text.as_str())
        .collect();
    let port = format!("interface {} on its bridge", web.endpoint.host_interface);
    assert_eq!(of_web, [port]);
    assert!(stack.reconcile().unwrap().is_clean());
}

#[test]
fn what_is_changed_again_and_again_is_mended_less_and_less_often() {
    let host = Host::new();
    let stack = Stack::open(watching(&host, "caaaaaaaaaad1"), &[], &[]).unwrap();
    let info = stack.create_network(&user_defined('c').into()).unwrap();
    let is_up = || ip(&["-o", "link", "show", "dev", &info.interface]).contains(",UP");
    let start = Instant::now();
    let mut times = 0;
    while start.elapsed() < Duration::from_secs(7) {
        if is_up() {
            times += 1;
            ip(&["link", "set", &info.interface, "down"]);
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert!((4..=8).contains(&times), "{times}");
    let told = host.repairs.lock().unwrap().len();
    assert!((4..=5).contains(&told), "{told}");
    assert!(host.was_told("again and again"));
    // It is mended all the same.
    eventually("it is up", is_up);
}

#[test]
fn a_bridge_of_somebody_elses_is_left_to_him() {
    let host = Host::new();
    let make = || {
        ip(&["link", "add", "theirs0", "type", "bridge"]);
        ip(&["link", "set", "theirs0", "up"]);
    };
    make();
    let stack = Stack::open(watching(&host, "caaaaaaaaaae1"), &[], &[]).unwrap();
    let config = BridgeConfig {
        interface: "theirs0".to_owned(),
        subnet: "10.84.0.0/24".parse().ok(),
        ..user_defined('c')
    };
    let info = stack.create_network(&config.into()).unwrap();
    let mappings = [mapping(None, 8080, 80, Protocol::Tcp)];
    let web = start_on(&stack, Some(&info.id), "web", &mappings);
    serve_tcp(&web.netns, 80, "web");
    let answers = || enter(&host.outside, || ask(HOST, 8080)).is_some();
    assert!(answers());
    let addresses = || ip(&["-4", "-o", "address", "show", "dev", "theirs0"]);
    let times_told = |words: &str| {
        let warnings = host.warnings.lock().unwrap();
        warnings.iter().filter(|text| text.contains(words)).count()
    };
    for (damage, words) in [
        (
            &["address", "del", "10.84.0.1/24", "dev", "theirs0"] as &[&str],
            "lacks address 10.84.0.1 of bridge theirs0",
        ),
        (
            &["link", "set", "theirs0", "down"],
            "lacks bridge theirs0, which was down",
        ),
    ] {
        ip(damage);
        eventually(words, || times_told(words) == 1);
    }
    thread::sleep(Duration::from_millis(1200));
    assert_eq!(addresses(), "");
    ip(&["link", "set", "theirs0", "up"]);
    ip(&["address", "add", "10.84.0.1/24", "dev", "theirs0"]);
    eventually("it works as it did", answers);
    // Gone it stays gone; made anew it is taken over as the first was.
    ip(&["link", "del", "theirs0"]);
    let words = "lacks bridge theirs0; ";
    eventually(words, || times_told(words) == 1);
    thread::sleep(Duration::from_millis(1200));
    assert!(!links().iter().any(|name| name == "theirs0"));
    let late = stack
        .allocate(&EndpointRequest {
            container_id: "late".to_owned(),
            network: Some(info.id.clone()),
            ..EndpointRequest::default()
        })
        .unwrap();
    let netns = gantry_network::Netns::create().unwrap();
    assert!(
        stack
            .connect(&late, &netns, gantry_network::DefaultRoutes::BOTH)
            .is_err(),
        "there is nothing to connect it to"
    );
    assert_eq!(*host.repairs.lock().unwrap(), []);
    make();
    let start = Instant::now();
    while !answers() {
        assert!(start.elapsed() < Duration::from_secs(10));
        thread::sleep(Duration::from_millis(100));
    }
    assert!(addresses().contains("10.84.0.1/24"));
}

#[test]
fn an_address_whose_prefix_was_changed_is_mended_and_told() {
    let host = Host::new();
    let stack = Stack::open(watching(&host, "caaaaaaaaaaf1"), &[], &[]).unwrap();
    let info = stack.create_network(&dual().into()).unwrap();
    let addresses = || {
        let text = ip(&["-o", "address", "show", "dev", &info.interface]);
        let words = text
            .lines()
            .filter_map(|line| line.split_whitespace().nth(3).map(str::to_owned));
        let mut all: Vec<String> = words.collect();
        all.sort();
        all
    };
    let before = addresses();
    let of = |prefix: &str| {
        let found = before.iter().find(|text| text.contains(prefix));
        found.unwrap().split_once('/').unwrap().0.to_owned()
    };
    let four = of(".");
    let six = info.ipv6.unwrap().gateway.unwrap().to_string();
    for address in [four, six] {
        host.repairs.lock().unwrap().clear();
        let whole = before
            .iter()
            .find(|text| text.starts_with(&format!("{address}/")))
            .unwrap();
        let other = format!("{address}/{}", if address.contains(':') { 80 } else { 28 });
        ip(&["address", "del", whole, "dev", &info.interface]);
        ip(&["address", "replace", &other, "dev", &info.interface]);
        eventually("it is as it was", || addresses() == before);
        let words = format!("address {address} of bridge {}", info.interface);
        eventually("it is told", || {
            let repairs = host.repairs.lock().unwrap();
            repairs.iter().any(|repair| repair.text == words)
        });
    }
    assert!(stack.reconcile().unwrap().is_clean());
}

/// Gives nothing back once it is told so.
struct Stubborn(Arc<Sockets>, AtomicBool);

impl PortReserver for Stubborn {
    fn reserve(&self, owner: &str, reservations: &[Reservation]) -> Result<(), ReserveError> {
        self.0.reserve(owner, reservations)
    }

    fn transfer(
        &self,
        from: &str,
        to: &str,
        reservations: &[Reservation],
    ) -> Result<(), ReserveError> {
        if self.1.load(Ordering::Relaxed) {
            let Reservation {
                address,
                port,
                protocol,
                ..
            } = reservations[0];
            return Err(ReserveError::InUse {
                address,
                port,
                protocol,
            });
        }
        self.0.transfer(from, to, reservations)
    }

    fn release(&self, owner: &str) -> Result<(), ReserveError> {
        self.0.release(owner)
    }

    fn owners(&self) -> Result<Vec<String>, ReserveError> {
        self.0.owners()
    }

    fn guard(&self, table: &str, interfaces: &[String]) -> Result<(), ReserveError> {
        self.0.guard(table, interfaces)
    }
}

#[test]
fn ports_that_cannot_be_given_back_are_nobodys() {
    let host = Host::new();
    let reserver = Arc::new(Stubborn(Arc::clone(&host.reserver), AtomicBool::new(false)));
    let config = StackConfig {
        reserver: Arc::clone(&reserver) as Arc<dyn PortReserver>,
        ..host.config("caaaaaaaaaba1")
    };
    let stack = Stack::open(config, &[], &[]).unwrap();
    let mappings = [mapping(None, 8080, 80, Protocol::Tcp)];
    let from = start(&stack, "web", &mappings);
    let to = start(&stack, "web", &[]);
    let ports = stack
        .transfer_ports(&from.endpoint, &from.ports, &to.endpoint, &mappings)
        .unwrap()
        .unwrap();
    assert!(stack.holds_ports(&to.endpoint, &ports));
    reserver.1.store(true, Ordering::Relaxed);
    let refused = stack.return_ports(&to.endpoint, &ports, &from.endpoint, &from.ports);
    assert!(refused.is_err());
    for one in [&from, &to] {
        assert!(!stack.holds_ports(&one.endpoint, &ports));
    }
    assert_eq!(host.reserver.owners().unwrap(), Vec::<String>::new());
    stack.unpublish(&to.endpoint, &ports).unwrap();
    stack.unpublish(&from.endpoint, &from.ports).unwrap();
    let next = start(&stack, "next", &mappings);
    assert!(stack.holds_ports(&next.endpoint, &next.ports));
    assert!(stack.reconcile().unwrap().is_clean());
}
