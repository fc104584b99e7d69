//! The rules of each kind of network, as documents, beside what the kernel has.
//!
//! `src/firewall/golden/*.nft` explain the table of one scenario each. Here the scenario is set up for real, and the
//! kernel's table, the code's text and the document have to be one. `GANTRY_UPDATE_GOLDEN=1` writes the documents anew.

use std::env;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use gantry_network::{
    BridgeConfig, GatewayMode, Ipv6Config, PortMapping, Protocol, Stack, StackConfig,
};

use crate::world::*;

/// One scenario: what it is about, the network beside the default one, and what its container publishes.
struct Scenario {
    name: &'static str,
    about: &'static str,
    network: Option<BridgeConfig>,
    mappings: Vec<PortMapping>,
    engine: fn(&mut StackConfig),
}

fn subnet(third: u8) -> Option<ipnet::Ipv4Net> {
    ipnet::Ipv4Net::new(Ipv4Addr::new(192, 0, third, 0), 24).ok()
}

fn scenario(
    name: &'static str,
    about: &'static str,
    change: impl FnOnce(&mut BridgeConfig),
    mappings: Vec<PortMapping>,
) -> Scenario {
    let mut network = BridgeConfig {
        interface: "bridge1".to_owned(),
        subnet: subnet(2),
        ..user_defined('c')
    };
    change(&mut network);
    Scenario {
        name,
        about,
        network: Some(network),
        mappings,
        engine: |_| {},
    }
}

fn ipv6(network: &mut BridgeConfig) {
    network.ipv6 = Some(Ipv6Config {
        subnet: "fd00:db8::/64".parse().ok(),
        ..Ipv6Config::default()
    });
}

fn scenarios() -> Vec<Scenario> {
    let published = || vec![mapping(None, 8080, 80, Protocol::Tcp)];
    vec![
        Scenario {
            name: "default",
            about: "A new engine: the default bridge `docker0`, no container with a published port.",
            network: None,
            mappings: Vec::new(),
            engine: |_| {},
        },
        Scenario {
            name: "default-published",
            about: "A container on the default bridge with `-p 8080:80`. The table differs from that of a new engine by \
                    one element in each family. On [::]:8080 netd answers, since the network has no IPv6.",
            network: None,
            mappings: published(),
            engine: |_| {},
        },
        scenario(
            "user-defined",
            "`network create -o com.docker.network.bridge.name=bridge1 --subnet 192.0.2.0/24`, no published port. What \
             comes from docker0 or from outside ends at `not published`: bridges are apart.",
            |_| {},
            Vec::new(),
        ),
        scenario(
            "user-defined-published",
            "The same with a container with `-p 8080:80`. A container of docker0 reaches it by the host's address, and \
             the host's neighbours do.",
            |_| {},
            published(),
        ),
        scenario(
            "host-bound",
            "`-p 127.0.0.1:8080:80`: an element with an address. `route_localnet` is on for this bridge while the port \
             is published, behind the chain `guard`.",
            |_| {},
            vec![mapping(Some("127.0.0.1"), 8080, 80, Protocol::Tcp)],
        ),
        scenario(
            "internal",
            "`--internal`: no way out and none in, and no address of the host's is lent.",
            |network| network.internal = true,
            published(),
        ),
        scenario(
            "without-icc",
            "`-o com.docker.network.bridge.enable_icc=false`: the bridge's ports are isolated from each other; the \
             container's neighbours reach its published port through netd.",
            |network| network.icc = false,
            published(),
        ),
        scenario(
            "without-masquerade",
            "`-o com.docker.network.bridge.enable_ip_masquerade=false`: what leaves keeps the container's address.",
            |network| network.ip_masquerade = false,
            Vec::new(),
        ),
        scenario(
            "host-address",
            "`-o com.docker.network.host_ipv4=10.9.0.1`: what leaves has this address.",
            |network| network.host_ipv4 = Some(HOST),
            Vec::new(),
        ),
        scenario(
            "ipv6",
            "`--ipv6 --subnet fd00:db8::/64` with `-p 8080:80`: an element in each family.",
            ipv6,
            published(),
        ),
        scenario(
            "routed",
            "`-o com.docker.network.bridge.gateway_mode_ipv4=routed` and the same for IPv6, with `-p 8080:80`: nothing \
             is rewritten; port 80 is let through at the container's own addresses.",
            |network| {
                ipv6(network);
                network.gateway_mode_ipv4 = GatewayMode::Routed;
                network.gateway_mode_ipv6 = GatewayMode::Routed;
            },
            published(),
        ),
        scenario(
            "nat-unprotected",
            "`-o com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected` with `-p 8080:80`: every port is reached at \
             the container's own address.",
            |network| network.gateway_mode_ipv4 = GatewayMode::NatUnprotected,
            published(),
        ),
        scenario(
            "trusted-interface",
            "`-o com.docker.network.bridge.trusted_host_interfaces=lan0` with `-p 8080:80`: behind lan0 the container's \
             own address may be used, for port 80.",
            |network| network.trusted_host_interfaces = vec!["lan0".to_owned()],
            published(),
        ),
        Scenario {
            engine: |engine| engine.allow_direct_routing = true,
            ..scenario(
                "allow-direct-routing",
                "The daemon with `--allow-direct-routing`, and `-p 8080:80`: port 80 is reached at the container's own \
                 address from everywhere.",
                |_| {},
                published(),
            )
        },
        scenario(
            "obey-host-firewall",
            "`-o com.gantry.bridge.obey_host_firewall=true` with `-p 8080:80`: no element in the maps. netd carries the port, and \
             the host's own input rules see its connections.",
            |network| network.obey_host_firewall = true,
            published(),
        ),
    ]
}

fn document(scenario: &Scenario, text: &str) -> String {
    let mut document = String::new();
    let mut line = String::from("#");
    for word in scenario.about.split_whitespace() {
        if line.len() + word.len() > 118 {
            document.push_str(&line);
            document.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    format!("{document}{line}\n{text}")
}

/// Gives the lines that say something, as both sides write them.
fn normal(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.replace("counter packets 0 bytes 0", "counter"))
        // Newer nft programs know the priority's name in this hook too.
        .map(|line| line.replace("output priority dstnat;", "output priority -100;"))
        .map(|line| sorted(&line))
        .collect()
}

/// The elements of a set have no order.
fn sorted(line: &str) -> String {
    let Some(list) = line
        .strip_prefix("elements = { ")
        .and_then(|rest| rest.strip_suffix(" }"))
    else {
        return line.to_owned();
    };
    let mut elements: Vec<&str> = list.split(", ").collect();
    elements.sort_unstable();
    elements.join(", ")
}

/// Element lists are broken into lines by nft.
fn joined(text: &str) -> String {
    let mut joined = String::new();
    for line in text.lines() {
        joined.push_str(line.trim());
        joined.push(if line.trim_end().ends_with(',') {
            ' '
        } else {
            '\n'
        });
    }
    joined
}

#[test]
fn the_kernels_table_is_the_documented_one_in_every_scenario() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/firewall/golden");
    let update = env::var_os("GANTRY_UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for scenario in scenarios() {
        // Each has a host of its own: a thread enters a namespace and stays there.
        let (kernel, text) = std::thread::scope(|scope| {
            let scenario = &scenario;
            let run = scope.spawn(move || {
                let host = Host::new();
                let mut config = host.config("0123456789abcdef");
                (scenario.engine)(&mut config);
                let stack = Stack::open(config, &[], &[]).unwrap();
                let id = scenario.network.as_ref().map(|network| {
                    let network = network.clone().into();
                    stack.create_network(&network).unwrap().id
                });
                let _container = start_on(&stack, id.as_deref(), "web", &scenario.mappings);
                assert!(
                    stack.reconcile().unwrap().is_clean(),
                    "{}: the parts differ from the whole",
                    scenario.name
                );
                let table = ["list", "table", "inet", "gantry-0123456789ab"];
                (nft(&table), stack.ruleset_text())
            });
            run.join().unwrap()
        });
        assert_eq!(
            normal(&joined(&kernel)),
            normal(&text),
            "scenario {}",
            scenario.name
        );
        let path = directory.join(format!("{}.nft", scenario.name));
        let wanted = document(&scenario, &text);
        if update {
            fs::create_dir_all(&directory).unwrap();
            fs::write(&path, &wanted).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != wanted {
            wrong.push(path.display().to_string());
        }
    }
    assert!(
        wrong.is_empty(),
        "these documents are not what the code gives (GANTRY_UPDATE_GOLDEN=1 writes them): {wrong:?}"
    );
}
