//! Published ports and forwarding beside each firewall that is met in the world, with br_netfilter off and on: they work,
//! or the operator is told the exact command, after which they work.

use std::net::Ipv4Addr;

use gantry_network::{BridgeConfig, Ipv6Config, Protocol, Stack};

use crate::world::*;

/// A firewall and what is expected beside it.
struct Firewall {
    name: &'static str,
    /// Puts its rules in, as it does when it starts.
    set_up: fn(),
    /// The operator has to run a command, which the warning names.
    needs_command: bool,
    /// It keeps out what it does not allow, so published ports pass it by and the operator is told.
    denies: bool,
}

/// Reads rules as `nft -f` does.
fn load(rules: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rules.nft");
    std::fs::write(&path, rules).unwrap();
    nft(&["-f", path.to_str().unwrap()]);
}

/// What dockerd leaves in the tables with its bridge and one published port.
fn dockerd() {
    load(
        "table ip filter {
            chain DOCKER-USER { }
            chain DOCKER-CT { oifname \"dockerbr\" ct state related,established counter accept; }
            chain DOCKER { iifname != \"dockerbr\" oifname \"dockerbr\" counter drop; }
            chain DOCKER-BRIDGE { oifname \"dockerbr\" counter jump DOCKER; }
            chain DOCKER-FORWARD {
                counter jump DOCKER-CT
                counter jump DOCKER-BRIDGE
                iifname \"dockerbr\" counter accept
            }
            chain FORWARD {
                type filter hook forward priority filter; policy drop;
                counter jump DOCKER-USER
                counter jump DOCKER-FORWARD
            }
        }
        table ip nat {
            chain DOCKER { iifname != \"dockerbr\" tcp dport 18080 counter dnat to 172.30.0.2:80; }
            chain PREROUTING {
                type nat hook prerouting priority dstnat; policy accept;
                fib daddr type local counter jump DOCKER
            }
            chain POSTROUTING {
                type nat hook postrouting priority srcnat; policy accept;
                ip saddr 172.30.0.0/16 oifname != \"dockerbr\" counter masquerade
            }
        }
        table ip raw {
            chain PREROUTING {
                type filter hook prerouting priority raw; policy accept;
                ip daddr 172.30.0.2 iifname != \"dockerbr\" counter drop
            }
        }",
    );
}

/// ufw as it is after `ufw enable; ufw allow 22`, by way of iptables-nft.
fn ufw() {
    for (family, icmp) in [("ip", "icmp"), ("ip6", "ipv6-icmp")] {
        load(&format!(
            "table {family} filter {{
                chain ufw-user-input {{ tcp dport 22 counter accept; }}
                chain ufw-before-input {{
                    iifname \"lo\" counter accept
                    ct state related,established counter accept
                    meta l4proto {icmp} counter accept
                    counter jump ufw-user-input
                }}
                chain ufw-before-forward {{ ct state related,established counter accept; }}
                chain INPUT {{
                    type filter hook input priority filter; policy drop;
                    counter jump ufw-before-input
                }}
                chain FORWARD {{
                    type filter hook forward priority filter; policy drop;
                    counter jump ufw-before-forward
                }}
                chain OUTPUT {{ type filter hook output priority filter; policy accept; }}
            }}"
        ));
    }
}

/// firewalld with its nftables back end: chains that accept by policy and reject at their end.
fn firewalld() {
    load(
        "table inet firewalld {
            chain filter_INPUT {
                type filter hook input priority filter + 10; policy accept;
                ct state { established, related } accept
                ct status dnat accept
                iifname \"lo\" accept
                meta l4proto { icmp, ipv6-icmp } accept
                tcp dport 22 accept
                reject with icmpx admin-prohibited
            }
            chain filter_FORWARD {
                type filter hook forward priority filter + 10; policy accept;
                ct state { established, related } accept
                ct status dnat accept
                iifname \"lo\" accept
                reject with icmpx admin-prohibited
            }
        }",
    );
}

fn legacy() {
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        run(program, &["-P", "FORWARD", "DROP"]);
    }
}

fn nft_drop() {
    load(
        "table inet mine {
            chain input {
                type filter hook input priority filter; policy drop;
                iifname \"lo\" accept
                ct state established,related accept
                meta l4proto { icmp, ipv6-icmp } accept
                tcp dport 22 accept
            }
            chain forward { type filter hook forward priority filter; policy drop; }
        }",
    );
}

const FIREWALLS: [Firewall; 6] = [
    Firewall {
        name: "none",
        set_up: || (),
        needs_command: false,
        denies: false,
    },
    Firewall {
        name: "dockerd",
        set_up: dockerd,
        needs_command: false,
        denies: false,
    },
    Firewall {
        name: "ufw",
        set_up: ufw,
        needs_command: false,
        denies: true,
    },
    Firewall {
        name: "firewalld",
        set_up: firewalld,
        needs_command: false,
        denies: true,
    },
    Firewall {
        name: "iptables-legacy",
        set_up: legacy,
        needs_command: true,
        denies: false,
    },
    Firewall {
        name: "nft",
        set_up: nft_drop,
        needs_command: false,
        denies: true,
    },
];

#[test]
fn ports_and_forwarding_work_beside_every_firewall() {
    for firewall in FIREWALLS {
        for br_netfilter in ["0", "1"] {
            let firewall = &firewall;
            std::thread::scope(|scope| {
                let run = scope.spawn(move || beside(firewall, br_netfilter));
                assert!(
                    run.join().is_ok(),
                    "beside {} with br_netfilter {br_netfilter}",
                    firewall.name
                );
            });
        }
    }
}

fn beside(firewall: &Firewall, br_netfilter: &str) {
    let host = Host::new();
    br_netfilter_is(br_netfilter);
    (firewall.set_up)();
    let stack = host.open("0123456789ab1");
    let config = BridgeConfig {
        ipv6: Some(Ipv6Config::default()),
        ..user_defined('c')
    };
    let id = stack.create_network(&config.into()).unwrap().id;
    let mappings = [mapping(None, 8080, 80, Protocol::Tcp)];
    let web = start_on(&stack, Some(&id), "web", &mappings);
    let mate = start_on(&stack, Some(&id), "mate", &[]);
    let other = start(&stack, "other", &[]);
    serve_tcp(&web.netns, 80, "web");
    serve_tcp(&mate.netns, 81, "mate");
    serve_tcp(&host.outside, 7000, "world");
    if firewall.needs_command {
        // Cut off, but not in silence: the warning of the last reconciliation has the commands.
        assert_eq!(enter(&host.outside, || ask(HOST, 8080)), None);
        let commands: Vec<String> = stack
            .reconcile()
            .unwrap()
            .warnings
            .iter()
            .filter_map(|text| text.split('`').nth(1).map(str::to_owned))
            .collect();
        assert_eq!(
            commands.len(),
            3,
            "two bridges, of which one has IPv6: {commands:?}"
        );
        for command in commands {
            run("sh", &["-c", &command]);
        }
        assert_eq!(
            stack.reconcile().unwrap().warnings.len(),
            3,
            "the policy is still that"
        );
    }

    let outside4 = enter(&host.outside, || hear(HOST, 8080));
    assert_eq!(outside4.as_deref(), Some("web 10.9.0.2"));
    let outside6 = enter(&host.outside, || hear(HOST6, 8080));
    assert_eq!(outside6.as_deref(), Some("web fd09::2"));
    assert!(hear(HOST, 8080).is_some() && hear(Ipv4Addr::LOCALHOST, 8080).is_some());
    assert_eq!(enter(&host.outside, || ask(web.ipv4(), 80)), None);
    for container in [&web, &mate, &other] {
        let hairpin = enter(&container.netns, || hear(HOST, 8080));
        assert!(
            hairpin.is_some(),
            "{} by the host's address",
            container.endpoint.container_id
        );
        let world = enter(&container.netns, || hear(OUTSIDE, 7000));
        assert_eq!(world.as_deref(), Some("world 10.9.0.1"));
    }
    let world6 = enter(&web.netns, || hear(OUTSIDE6, 7000));
    assert_eq!(world6.as_deref(), Some("world fd09::1"));
    assert!(enter(&web.netns, || hear(mate.ipv4(), 81)).is_some());
    assert!(enter(&web.netns, || hear(mate.ipv6(), 81)).is_some());
    assert_eq!(
        enter(&other.netns, || ask(mate.ipv4(), 81)),
        None,
        "bridges are apart"
    );
    assert_eq!(host.was_told("obey_host_firewall"), firewall.denies);
    no_mark_is_left(stack);
}

fn no_mark_is_left(stack: Stack) {
    stack.teardown().unwrap();
    assert!(!nft(&["list", "ruleset"]).contains("gantry"));
}

/// CVE-2020-8558: what listens on the host's loopback, and what is published there, is not reached by a neighbour on any
/// side; neither with the rules nor once it was seen that they were flushed.
#[test]
fn nobody_beside_the_host_reaches_its_loopback_even_when_rules_are_flushed() {
    let host = Host::new();
    let config = gantry_network::StackConfig {
        watch: true,
        ..host.config("0123456789ab2")
    };
    let stack = Stack::open(config, &[], &[]).unwrap();
    let mappings = [mapping(Some("127.0.0.1"), 8081, 80, Protocol::Tcp)];
    let web = start(&stack, "web", &mappings);
    let attacker = start(&stack, "attacker", &[]);
    serve_tcp(&web.netns, 80, "web");
    let secret = std::net::TcpListener::bind("127.0.0.1:9999").unwrap();
    secret.set_nonblocking(true).unwrap();
    assert_eq!(sysctl("conf/docker0/route_localnet"), "1");
    assert!(ask(Ipv4Addr::LOCALHOST, 8081).is_some());
    for (netns, gateway) in [(&attacker.netns, "172.17.0.1"), (&host.outside, "10.9.0.1")] {
        enter(netns, || {
            std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
            for arguments in [
                format!("route replace 127.0.0.1 via {gateway} dev eth0 table 99"),
                "rule add pref 1 to 127.0.0.1 lookup 99".to_owned(),
                "rule add pref 9 lookup local".to_owned(),
                "rule del pref 0".to_owned(),
            ] {
                ip(&arguments.split(' ').collect::<Vec<_>>());
            }
        });
    }
    let try_all = |when: &str| {
        for (who, netns) in [("container", &attacker.netns), ("neighbour", &host.outside)] {
            for port in [9999, 8081] {
                let answer = enter(netns, || ask(Ipv4Addr::LOCALHOST, port));
                assert_eq!(answer, None, "{who}, port {port}, {when}");
            }
        }
        assert!(
            secret.accept().is_err(),
            "somebody reached the loopback {when}"
        );
    };
    try_all("with the rules");
    // From the moment in which the switch is off nobody gets through: neither while the rules are missing nor when they
    // and the switch are back.
    for _ in 0..3 {
        let flushed = std::time::Instant::now();
        nft(&["flush", "ruleset"]);
        eventually("the switch is off", || {
            sysctl("conf/docker0/route_localnet") == "0"
        });
        println!("off after {:?}", flushed.elapsed());
        try_all("after the rules were flushed");
        eventually("the switch is back", || {
            sysctl("conf/docker0/route_localnet") == "1"
        });
    }
    eventually("the rules are back", || {
        nft(&["list", "ruleset"]).contains("8081")
    });
    eventually("the port answers", || {
        ask(Ipv4Addr::LOCALHOST, 8081).is_some()
    });
}
