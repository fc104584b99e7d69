//! What somebody took away comes back.

use std::net::Ipv4Addr;

use gantry_network::{EndpointRequest, Error, PortReserver, Protocol, Stack, StackConfig};

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
