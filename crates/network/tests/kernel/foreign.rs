//! Other firewalls and other engines.

use gantry_network::Protocol;

use crate::world::*;

#[test]
fn two_engines_and_a_foreign_firewall_live_side_by_side() {
    let host = Host::new();
    nft(&["add", "table", "ip", "filter"]);
    nft(&[
        "add",
        "chain",
        "ip",
        "filter",
        "FORWARD",
        "{ type filter hook forward priority 0; policy drop; }",
    ]);
    nft(&["add", "chain", "ip", "filter", "DOCKER-USER"]);
    nft(&[
        "add",
        "rule",
        "ip",
        "filter",
        "FORWARD",
        "jump",
        "DOCKER-USER",
    ]);
    let one = host.open("1111111111111");
    let two = host.open("2222222222222");
    assert_eq!(one.bridge().unwrap().interface, "docker0");
    assert_eq!(two.bridge().unwrap().interface, "gantry0");
    assert_ne!(one.bridge().unwrap().ipv4, two.bridge().unwrap().ipv4);
    let first = start(&one, "first", &[mapping(None, 8080, 80, Protocol::Tcp)]);
    let second = start(&two, "second", &[mapping(None, 8081, 80, Protocol::Tcp)]);
    serve_tcp(&first.netns, 80, "first");
    serve_tcp(&second.netns, 80, "second");
    let outside = |port| enter(&host.outside, || ask(HOST, port));
    assert_eq!(outside(8080).as_deref(), Some("first 10.9.0.2"));
    assert_eq!(outside(8081).as_deref(), Some("second 10.9.0.2"));
    // Between the engines: by published ports only.
    assert_eq!(
        enter(&first.netns, || ask(HOST, 8081)).map(|text| text.starts_with("second")),
        Some(true)
    );
    assert_eq!(enter(&first.netns, || ask(second.ipv4(), 80)), None);
    // The reserver of this test is shared, so that each engine's reconciliation would see the other's owners.
    let foreign = nft(&["list", "chain", "ip", "filter", "DOCKER-USER"]);
    assert_eq!(foreign.matches("accept").count(), 4, "{foreign}");
    one.teardown().unwrap();
    assert_eq!(
        outside(8081).as_deref(),
        Some("second 10.9.0.2"),
        "the other engine is untouched"
    );
    let foreign = nft(&["list", "chain", "ip", "filter", "DOCKER-USER"]);
    assert_eq!(
        foreign.matches("gantry:222222222222:gantry0").count(),
        2,
        "{foreign}"
    );
    assert_eq!(foreign.matches("accept").count(), 2, "{foreign}");
    two.teardown().unwrap();
    assert_eq!(
        nft(&["list", "chain", "ip", "filter", "DOCKER-USER"])
            .matches("accept")
            .count(),
        0
    );
}
