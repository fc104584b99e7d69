//! What a container's network costs.

use std::time::Instant;

use gantry_network::{BridgeConfig, DefaultRoutes, EndpointRequest, Netns, Protocol, Stack};
use ipnet::Ipv4Net;

use crate::world::*;

#[test]
#[ignore = "a measurement"]
fn measure_connect() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaab4");
    let mut kept = Vec::new();
    for round in 0..4 {
        let (mut create, mut connect, mut reserve, mut publish, mut release) =
            (vec![], vec![], vec![], vec![], vec![]);
        let timed = |into: &mut Vec<u128>, start: Instant| into.push(start.elapsed().as_micros());
        for number in 0..50u16 {
            let endpoint = stack
                .allocate(&EndpointRequest {
                    container_id: format!("c{round}-{number}"),
                    ..EndpointRequest::default()
                })
                .unwrap();
            let start = Instant::now();
            let netns = Netns::create().unwrap();
            timed(&mut create, start);
            let start = Instant::now();
            stack
                .connect(&endpoint, &netns, DefaultRoutes::BOTH)
                .unwrap();
            timed(&mut connect, start);
            let start = Instant::now();
            let ports = stack
                .reserve_ports(&endpoint, &[mapping(None, 0, 80, Protocol::Tcp)])
                .unwrap();
            timed(&mut reserve, start);
            let start = Instant::now();
            stack.publish(&endpoint, &ports).unwrap();
            timed(&mut publish, start);
            if number % 10 == 0 {
                let start = Instant::now();
                stack.release(&endpoint, &ports).unwrap();
                timed(&mut release, start);
            } else {
                kept.push((endpoint, netns));
            }
        }
        for (name, times) in [
            ("netns", &mut create),
            ("connect", &mut connect),
            ("reserve", &mut reserve),
            ("publish", &mut publish),
            ("release", &mut release),
        ] {
            times.sort_unstable();
            println!(
                "round {round} {name}: min {} median {} us",
                times[0],
                times[times.len() / 2]
            );
        }
    }
}

/// Prints what a start beside many networks costs; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure_start() {
    let host = Host::new();
    let mut configs = Vec::new();
    for total in [50, 100, 200, 400] {
        let stack = Stack::open(host.config("aaaaaaaaaaab6"), &configs, &[]).unwrap();
        for number in configs.len()..total {
            let id = format!("{number:012x}{:052x}", 0);
            let mut config = BridgeConfig::new(id, "n".to_owned(), format!("br-{number}"));
            let [.., high, low] = number.to_be_bytes();
            config.subnet = Ipv4Net::new([10, 50 + high, low, 0].into(), 24).ok();
            stack.create_network(&config.clone().into()).unwrap();
            configs.push(config.into());
        }
        drop(stack);
        let start = Instant::now();
        Stack::open(host.config("aaaaaaaaaaab6"), &configs, &[]).unwrap();
        println!("start beside {total}: {} ms", start.elapsed().as_millis());
    }
}

/// Prints what a network costs, and a port when thousands are published; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure_networks_and_ports() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaab5");
    let container = start(&stack, "live", &[]);
    let print = |what: &str, times: &mut Vec<u128>| {
        times.sort_unstable();
        println!(
            "{what}: min {} median {} us",
            times[0],
            times[times.len() / 2]
        );
    };
    let (mut create, mut connect, mut leave, mut remove) = (vec![], vec![], vec![], vec![]);
    for number in 0..100 {
        // Names carry the first digits.
        let id = format!("{number:012x}{:052x}", 0);
        let config = BridgeConfig::new(id.clone(), "n", format!("br-{number}"));
        let start = Instant::now();
        stack.create_network(&config.into()).unwrap();
        create.push(start.elapsed().as_micros());
        let endpoint = stack
            .allocate(&EndpointRequest {
                container_id: "live".to_owned(),
                network: Some(id.clone()),
                container_interface: Some("eth1".to_owned()),
                ..EndpointRequest::default()
            })
            .unwrap();
        let start = Instant::now();
        stack
            .connect(&endpoint, &container.netns, DefaultRoutes::default())
            .unwrap();
        connect.push(start.elapsed().as_micros());
        let start = Instant::now();
        stack.disconnect(&endpoint, &container.netns).unwrap();
        leave.push(start.elapsed().as_micros());
        stack.release(&endpoint, &[]).unwrap();
        if number % 10 == 0 {
            let start = Instant::now();
            stack.remove_network(&id).unwrap();
            remove.push(start.elapsed().as_micros());
        }
    }
    print("create", &mut create);
    print("connect", &mut connect);
    print("disconnect", &mut leave);
    print("remove", &mut remove);
    // The reserver of these tests holds sockets, so ports are published without reserving them.
    for published in [0u16, 5000] {
        for port in 0..published {
            let many = gantry_network::PublishedPort {
                ip: [0, 0, 0, 0].into(),
                host_port: 10_000 + port,
                container_port: 80,
                protocol: Protocol::Tcp,
            };
            let endpoint = gantry_network::Endpoint {
                id: format!("{port:064x}"),
                ..container.endpoint.clone()
            };
            stack.publish(&endpoint, &[many]).unwrap();
        }
        let (mut publish, mut release) = (vec![], vec![]);
        for _ in 0..50 {
            let one = start(&stack, "one", &[]);
            let ports = stack
                .reserve_ports(&one.endpoint, &[mapping(None, 0, 80, Protocol::Tcp)])
                .unwrap();
            let start = Instant::now();
            stack.publish(&one.endpoint, &ports).unwrap();
            publish.push(start.elapsed().as_micros());
            let start = Instant::now();
            stack.release(&one.endpoint, &ports).unwrap();
            release.push(start.elapsed().as_micros());
        }
        print(&format!("publish beside {published}"), &mut publish);
        print(&format!("release beside {published}"), &mut release);
    }
}
