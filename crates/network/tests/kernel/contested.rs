//! What is not this engine's, or is taken away again and again; and what a repair must not open.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::Duration;

use gantry_network::{BridgeConfig, Ipv6Config, Stack, StackConfig};
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
    let rules = Socket::open(Family::Netfilter).unwrap();
    // Nobody else can write into a table that has an owner, so the rules cannot stand.
    let mut owned = nft::Transaction::new();
    owned.add_owned_table(nft::Family::Inet, "gantry-caaaaaaaaaab", false);
    owned.commit(&rules).unwrap();
    let config = host.config("caaaaaaaaaab1");
    let note = config.exec_root.join("network/ip_forward");
    assert!(Stack::open(config.clone(), &[], &[]).is_err());
    assert!(!note.exists());
    drop(rules);
    // Its administrator makes a router of it.
    turn("ip_forward", "1");
    let (asker, answerer) = (host.another_lan(20), host.another_lan(30));
    serve_tcp(&answerer, 7000, "far");
    let _stack = Stack::open(config, &[], &[]).unwrap();
    let far = Ipv4Addr::new(10, 30, 0, 2);
    assert!(enter(&asker, || ask(far, 7000)).is_some());
    assert!(!note.exists());
}
