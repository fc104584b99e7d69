//! What the daemon can be told about networks, and what it does when somebody takes them apart: engines of their own, seen from
//! the machine and from another one.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use gantry_testkit::engine::{Engine, ORACLE_SOCKET};
use gantry_testkit::space::within_network_of;
use gantry_testkit::wait::eventually_within;
use rustix::process::Signal;
use serde_json::{Value, json};

/// How long somebody who may not come through is given.
const SHORT: Duration = Duration::from_millis(700);
/// How long somebody who may come through is given, on a machine that has other work.
const SOON: Duration = Duration::from_secs(20);
/// What a repair may take.
const REPAIR: Duration = Duration::from_secs(5);

/// An engine that is told `arguments`; none on the reference, which is told by its own.
fn engine(arguments: &[&str]) -> Option<Engine> {
    if std::env::var_os(ORACLE_SOCKET).is_some() {
        println!("skipped: the reference engine has options of its own");
        return None;
    }
    Some(Engine::private(arguments))
}

/// Runs a script where the engine's host addresses are, as root; gives what it printed.
fn on_host(engine: &Engine, script: &str) -> String {
    let words = engine.host_words();
    let output = Command::new(&words[0])
        .args(&words[1..])
        .args(["sh", "-ec", script])
        .output()
        .expect("start nsenter");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{script}`: {text}{errors}");
    text
}

fn created(engine: &Engine, path: &str, body: &Value) -> Value {
    let answer = engine.api("POST", path, Some(body));
    assert_eq!(answer.status, 201, "{path}: {}", answer.text());
    answer.json().expect("an answer")
}

fn inspected(engine: &Engine, path: &str) -> Value {
    let answer = engine.api("GET", path, None);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json().expect("an answer")
}

fn subnet(engine: &Engine, network: &str) -> String {
    let network = inspected(engine, &format!("/networks/{network}"));
    network["IPAM"]["Config"][0]["Subnet"]
        .as_str()
        .expect("a subnet")
        .to_owned()
}

/// Runs a web server on `network`, its port published on `port` of every address; gives what `inspect` says of its endpoint.
fn serve(engine: &Engine, name: &str, network: &str, port: u16) -> Value {
    let body = json!({
        "Image": "localhost/test/busybox:1",
        "Cmd": ["httpd", "-f", "-p", "80", "-h", "/etc"],
        "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {"NetworkMode": network, "PortBindings": {"80/tcp": [{"HostPort": port.to_string()}]}},
    });
    created(engine, &format!("/containers/create?name={name}"), &body);
    let started = engine.api("POST", &format!("/containers/{name}/start"), None);
    assert_eq!(started.status, 204, "{}", started.text());
    let container = inspected(engine, &format!("/containers/{name}/json"));
    let pid = container["State"]["Pid"].as_u64().expect("a process");
    let pid = u32::try_from(pid).expect("a process");
    // Nobody listens yet when it has just begun.
    answers(pid, address("127.0.0.1"), 80);
    container["NetworkSettings"]["Networks"][network].clone()
}

/// Waits until the web server answers to somebody in the network namespace of `pid`, however busy the machine is.
#[track_caller]
fn answers(pid: u32, address: IpAddr, port: u16) {
    eventually_within(SOON, &format!("{address} answers at port {port}"), || {
        is_answered(pid, address, port).then_some(())
    });
}

/// Whether the web server answers at this address to somebody in the network namespace of `pid`.
fn is_answered(pid: u32, address: IpAddr, port: u16) -> bool {
    within_network_of(pid, || {
        let address = SocketAddr::new(address, port);
        let Ok(mut stream) = TcpStream::connect_timeout(&address, SHORT) else {
            return false;
        };
        let mut text = String::new();
        stream.set_read_timeout(Some(SHORT)).expect("a timeout");
        let asked = stream.write_all(b"GET /passwd HTTP/1.0\r\n\r\n");
        asked.is_ok() && stream.read_to_string(&mut text).is_ok() && text.contains("root:")
    })
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn networks_take_their_subnets_out_of_the_pools_that_the_daemon_is_told() {
    let Some(engine) = engine(&[
        "--default-address-pool",
        "base=10.99.0.0/23,size=24",
        "--default-network-opt",
        "bridge=com.docker.network.driver.mtu=1234",
    ]) else {
        return;
    };
    let create = |name: &str| engine.api("POST", "/networks/create", Some(&json!({"Name": name})));
    // The default network is the first to take one.
    assert_eq!(subnet(&engine, "bridge"), "10.99.0.0/24");
    let created = create("one");
    assert_eq!(created.status, 201, "{}", created.text());
    assert_eq!(subnet(&engine, "one"), "10.99.1.0/24");
    let one = inspected(&engine, "/networks/one");
    assert_eq!(one["Options"]["com.docker.network.driver.mtu"], "1234");
    let full = create("two");
    assert!(
        full.text()
            .contains("all predefined address pools have been fully subnetted"),
        "{} {}",
        full.status,
        full.text()
    );
    // After a death of the daemon it is the same network with the same subnet.
    engine.end_daemon(Signal::KILL);
    engine.start_daemon(&[]);
    assert_eq!(inspected(&engine, "/networks/one")["Id"], one["Id"]);
    assert_eq!(subnet(&engine, "one"), "10.99.1.0/24");
    assert_eq!(engine.api("DELETE", "/networks/one", None).status, 204);
    assert_eq!(create("two").status, 201);
    assert_eq!(subnet(&engine, "two"), "10.99.1.0/24");
}

#[test]
fn a_network_whose_subnet_was_taken_meanwhile_is_not_lost() {
    let Some(engine) = engine(&[]) else { return };
    let body = json!({"Name": "mine", "IPAM": {"Config": [{"Subnet": "10.98.0.0/24"}]}});
    created(&engine, "/networks/create", &body);
    let id = inspected(&engine, "/networks/mine")["Id"].clone();
    engine.end_daemon(Signal::TERM);
    // A VPN, say, comes up with the same subnet before the engine does.
    on_host(
        &engine,
        "ip link add vpn type veth peer name far; ip addr add 10.98.0.7/24 dev vpn; ip link set vpn up; ip link set far up",
    );
    engine.start_daemon(&[]);
    assert_eq!(inspected(&engine, "/networks/mine")["Id"], id);
    assert_eq!(subnet(&engine, "mine"), "10.98.0.0/24");
    engine.end_daemon(Signal::TERM);
    on_host(&engine, "ip link del vpn");
    engine.start_daemon(&[]);
    serve(&engine, "web", "mine", 8080);
    answers(engine.outside.pid(), engine.address, 8080);
}

#[test]
fn the_default_network_has_ipv6_when_the_daemon_is_told() {
    let Some(engine) = engine(&["--ipv6", "--fixed-cidr-v6", "fd99:1::/64"]) else {
        return;
    };
    let endpoint = serve(&engine, "web", "bridge", 8080);
    let own = endpoint["GlobalIPv6Address"].as_str().expect("an address");
    assert!(own.starts_with("fd99:1::"), "{endpoint}");
    let (host, outside) = (engine.places().host_pid, engine.outside.pid());
    answers(outside, address("fd77::1"), 8080);
    answers(host, address("::1"), 8080);
    answers(host, address(own), 80);
}

#[test]
fn containers_are_reached_by_their_own_addresses_only_where_the_daemon_allows_it() {
    for (arguments, is_reached) in [(&[][..], false), (&["--allow-direct-routing"], true)] {
        let Some(engine) = engine(arguments) else {
            return;
        };
        let endpoint = serve(&engine, "web", "bridge", 8080);
        let own = address(endpoint["IPAddress"].as_str().expect("an address"));
        let outside = engine.outside.pid();
        // The other machine has a route through this one: its default route.
        if is_reached {
            answers(outside, own, 80);
        } else {
            assert!(!is_answered(outside, own, 80), "{arguments:?}");
        }
        answers(outside, engine.address, 8080);
    }
}

#[test]
fn published_ports_obey_the_machines_firewall_where_it_is_asked_for() {
    let deny = "nft 'add table inet own; add chain inet own input { type filter hook input priority 0; policy drop; };
        add rule inet own input iifname lo accept; add rule inet own input ct state established,related accept;
        add rule inet own input meta l4proto ipv6-icmp accept'";
    let Some(engine) = engine(&["--obey-host-firewall"]) else {
        return;
    };
    on_host(&engine, deny);
    serve(&engine, "web", "bridge", 8080);
    let (host, outside) = (engine.places().host_pid, engine.outside.pid());
    assert!(
        !is_answered(outside, engine.address, 8080),
        "past a firewall that denies"
    );
    assert!(!is_answered(outside, address("fd77::1"), 8080));
    answers(host, address("127.0.0.1"), 8080);
    on_host(
        &engine,
        "nft insert rule inet own input tcp dport 8080 accept",
    );
    answers(outside, engine.address, 8080);
    answers(outside, address("fd77::1"), 8080);
    drop(engine);

    // One network alone; the default goes past, and says so.
    let Some(engine) = self::engine(&[]) else {
        return;
    };
    on_host(&engine, deny);
    let options = json!({"com.gantry.bridge.obey_host_firewall": "true"});
    created(
        &engine,
        "/networks/create",
        &json!({"Name": "obedient", "Options": options}),
    );
    serve(&engine, "shut", "obedient", 8081);
    serve(&engine, "open", "bridge", 8080);
    let outside = engine.outside.pid();
    assert!(!is_answered(outside, engine.address, 8081));
    answers(outside, engine.address, 8080);
    let log = engine.daemon_log_tail();
    assert_eq!(log.matches("obey-host-firewall").count(), 1, "{log}");
}

#[test]
fn hundreds_of_networks_and_thousands_of_ports_come_back_in_one_piece() {
    let Some(engine) = engine(&[]) else { return };
    for number in 0..150 {
        created(
            &engine,
            "/networks/create",
            &json!({"Name": format!("n{number}")}),
        );
    }
    let body = json!({
        "Image": "localhost/test/busybox:1",
        "Cmd": ["sleep", "1000000"],
        "ExposedPorts": (20000..26000).map(|port| (format!("{port}/tcp"), json!({}))).collect::<serde_json::Map<_, _>>(),
        "HostConfig": {
            "NetworkMode": "n149",
            "PortBindings": (20000..26000)
                .map(|port| (format!("{port}/tcp"), json!([{"HostPort": port.to_string()}])))
                .collect::<serde_json::Map<_, _>>(),
        },
    });
    created(&engine, "/containers/create?name=many", &body);
    let started = engine.api("POST", "/containers/many/start", None);
    assert_eq!(started.status, 204, "{}", started.text());
    serve(&engine, "web", "n0", 8080);
    let outside = engine.outside.pid();
    let elements = || {
        let list = on_host(&engine, "nft list ruleset");
        list.matches(" : ").count()
    };
    let before = elements();
    assert!(before >= 6000, "{before}");
    // All at once: by the daemon that runs, and by the one after it.
    on_host(&engine, "nft flush ruleset");
    eventually_within(REPAIR, "the rules are there again", || {
        (elements() == before).then_some(())
    });
    engine.end_daemon(Signal::KILL);
    on_host(&engine, "nft flush ruleset");
    engine.start_daemon(&[]);
    assert_eq!(elements(), before);
    answers(outside, engine.address, 8080);
}

#[test]
fn what_somebody_takes_apart_is_mended_and_told() {
    let Some(engine) = engine(&[]) else { return };
    let body = json!({"Name": "mine", "Options": {"com.docker.network.bridge.name": "br-mine"}});
    created(&engine, "/networks/create", &body);
    serve(&engine, "web", "mine", 8080);
    let outside = engine.outside.pid();
    let now = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.expect("a time").as_secs()
    };
    let since = now();
    let repairs = || {
        let path = format!("/events?since={since}&until={}", now());
        let text = engine.api("GET", &path, None).text();
        text.lines()
            .filter(|line| line.contains("\"repair\""))
            .count()
    };
    answers(outside, engine.address, 8080);
    for (number, damage) in [
        "nft flush ruleset",
        "ip link del br-mine",
        "ip link del $(ip -o link show master br-mine | cut -d: -f2 | cut -d@ -f1)",
    ]
    .iter()
    .enumerate()
    {
        on_host(&engine, damage);
        eventually_within(REPAIR, &format!("mended after `{damage}`"), || {
            is_answered(outside, engine.address, 8080).then_some(())
        });
        eventually_within(
            REPAIR,
            &format!("an event that tells of `{damage}`"),
            || (repairs() > number).then_some(()),
        );
    }
}
