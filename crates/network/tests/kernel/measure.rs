//! What a container's network costs.

use std::time::Instant;

use gantry_network::{DefaultRoutes, EndpointRequest, Netns, Protocol};

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
