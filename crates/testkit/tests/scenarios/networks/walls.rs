//! What a network keeps apart: other networks, the outside, containers of one network.

use std::net::TcpStream;
use std::time::Duration;

use gantry_testkit::session::Session;
use serde_json::json;

use super::{endpoint, fetches, parse_address};

gantry_testkit::scenarios![
    bridges_do_not_reach_each_other,
    an_internal_network_has_no_way_out,
    an_internal_network_shows_no_ports,
    containers_without_icc_do_not_talk,
    a_published_port_is_reached_from_another_network,
    a_routed_network_is_reached_directly,
    ports_of_a_routed_network_are_shown_without_a_number,
    an_isolated_network_has_no_address_on_the_host,
    ports_are_bound_where_the_network_says,
];

fn bridges_do_not_reach_each_other(s: &Session) {
    s.d("network create @a").ok();
    s.d("network create @b").ok();
    s.d("run -d --name @one --network @a @web").ok();
    s.d("run -d --name @two --network @b @bb sleep 1000").ok();
    s.d("run -d --name @three --network @a @bb sleep 1000").ok();
    let address = s.address("@one", "@a");
    assert!(fetches(s, "@three", &address));
    assert!(!fetches(s, "@two", &address));
    s.d(&format!("exec @two ping -c 1 -w 2 {address}")).exits(1);
}

fn an_internal_network_has_no_way_out(s: &Session) {
    s.d("network create --internal @n").ok();
    let port = s.port();
    s.d(&format!(
        "run -d --name @one --network @n -p {port}:80 @web"
    ))
    .ok();
    s.d("run -d --name @two --network @n @bb sleep 1000").ok();
    assert!(fetches(s, "@two", "@one"));
    s.d("exec @two ip route").ok().hides("default");
    s.d(&format!("exec @two ping -c 1 -w 2 {}", s.engine.address))
        .exits(1);
    let reached = s.engine.outside.within(|| {
        TcpStream::connect_timeout(&(s.engine.address, port).into(), Duration::from_secs(1)).is_ok()
    });
    assert!(!reached, "a port of an internal network answered");
    s.d("port @one").prints("");
}

fn containers_without_icc_do_not_talk(s: &Session) {
    s.d("network create -o com.docker.network.bridge.enable_icc=false @n")
        .ok();
    let port = s.port();
    s.d(&format!(
        "run -d --name @one --network @n -p {port}:80 @web"
    ))
    .ok();
    s.d("run -d --name @two --network @n @bb sleep 1000").ok();
    assert!(!fetches(s, "@two", "@one"));
    assert!(s.get_from_outside(port, "/group").starts_with("root:"));
}

fn a_published_port_is_reached_from_another_network(s: &Session) {
    s.d("network create @a").ok();
    s.d("network create @b").ok();
    let port = s.port();
    s.d(&format!(
        "run -d --name @one --network @a -p {port}:80 @web"
    ))
    .ok();
    s.d("run -d --name @two --network @b @bb sleep 1000").ok();
    assert!(fetches(s, "@two", &format!("{}:{port}", s.engine.address)));
}

fn a_routed_network_is_reached_directly(s: &Session) {
    let net = s.subnet();
    s.d(&format!(
        "network create --subnet {net}.0/24 -o com.docker.network.bridge.gateway_mode_ipv4=routed @n"
    ))
    .ok();
    s.d("run -d --name @one --network @n -p 80 @web 80").ok();
    s.d("run -d --name @two --network @n @web 80").ok();
    let reached = |name: &str| {
        let address = parse_address(&endpoint(s, name, "@n")["IPAddress"]);
        s.engine.outside.within(|| {
            TcpStream::connect_timeout(&(address, 80).into(), Duration::from_secs(2)).is_ok()
        })
    };
    gantry_testkit::wait::eventually("the published port answers", || reached("@one"));
    assert!(!reached("@two"), "a port that is not published answered");
}

fn ports_of_a_routed_network_are_shown_without_a_number(s: &Session) {
    let routed =
        |family: u8| format!("-o com.docker.network.bridge.gateway_mode_ipv{family}=routed");
    s.d(&format!("network create {} @four", routed(4))).ok();
    s.d(&format!(
        "network create --ipv6 {} {} @both",
        routed(4),
        routed(6)
    ))
    .ok();
    s.d(&format!("network create {} @six", routed(6))).ok();
    let port = s.port();
    let check = |network: &str, four: &str, six: &str| {
        s.d(&format!(
            "run -d --name @c --network {network} -p {port}:80 @bb sleep 1000"
        ))
        .ok();
        s.d("port @c")
            .prints(&format!("80/tcp -> 0.0.0.0:{four}\n80/tcp -> [::]:{six}\n"));
        let ports = s.inspect("@c")["NetworkSettings"]["Ports"].clone();
        let binding = |ip: &str, port: &str| json!({"HostIp": ip, "HostPort": port});
        assert_eq!(
            ports,
            json!({"80/tcp": [binding("0.0.0.0", four), binding("::", six)]})
        );
        let shown = |text: &str| {
            if text.is_empty() {
                "0".to_owned()
            } else {
                text.to_owned()
            }
        };
        s.d("ps --filter name=@c --format {{.Ports}}")
            .prints(&format!(
                "0.0.0.0:{}->80/tcp, [::]:{}->80/tcp\n",
                shown(four),
                shown(six)
            ));
        s.d("rm -f @c").ok();
    };
    let number = port.to_string();
    check("@four", "", &number);
    check("@both", "", "");
    check("@six", &number, "");
    // An address is as good as none, and one of the other family is bound.
    s.d(&format!(
        "run -d --name @c --network @both -p 127.0.0.1:{port}:80 @bb sleep 1000"
    ))
    .ok();
    s.d("port @c").prints("80/tcp -> 0.0.0.0:\n");
    s.d(&format!(
        "run -d --name @d --network @four -p [::1]:{port}:80 @bb sleep 1000"
    ))
    .ok();
    s.d("port @d").prints(&format!("80/tcp -> [::1]:{port}\n"));
}

fn an_isolated_network_has_no_address_on_the_host(s: &Session) {
    let net = s.subnet();
    s.d(&format!("network create --internal --subnet {net}.0/24 -o com.docker.network.bridge.gateway_mode_ipv4=isolated @n"))
        .ok();
    s.d("run -d --name @one --network @n @web").ok();
    s.d("run -d --name @two --network @n @bb sleep 1000").ok();
    assert!(fetches(s, "@two", "@one"));
    let address = parse_address(&endpoint(s, "@one", "@n")["IPAddress"]);
    let reached = s.engine.on_host(|| {
        // A host that sends all connections to a proxy gets some answer.
        gantry_testkit::http::get((address, 80).into(), "/group")
            .is_ok_and(|answer| answer.text().starts_with("root:"))
    });
    assert!(!reached, "the host reaches an isolated network");
    s.d("network create -o com.docker.network.bridge.gateway_mode_ipv4=isolated @m")
        .exits(1)
        .warns("gateway mode 'isolated' can only be used for an internal network");
}

fn ports_are_bound_where_the_network_says(s: &Session) {
    s.d("network create -o com.docker.network.bridge.host_binding_ipv4=127.0.0.1 @n")
        .ok();
    let port = s.port();
    s.d(&format!("run -d --name @c --network @n -p {port}:80 @web"))
        .ok();
    s.d("port @c")
        .prints(&format!("80/tcp -> 127.0.0.1:{port}\n"));
}

fn an_internal_network_shows_no_ports(s: &Session) {
    let port = s.port();
    s.d("network create --internal @n").ok();
    s.d(&format!(
        "run -d --name @c --network @n -p {port}:80 --expose 81 @bb sleep 1000"
    ))
    .ok();
    let (list, inspect) = (
        "ps --filter name=@c --format '{{.Ports}}'",
        "inspect -f '{{json .NetworkSettings.Ports}}' @c",
    );
    s.d(list).prints("\n");
    s.d("port @c").prints("");
    s.d(inspect).prints("{}\n");
    // Another network has a way in.
    s.d("network create @m").ok();
    s.d("network connect @m @c").ok();
    s.d(list).prints(&format!(
        "81/tcp, 0.0.0.0:{port}->80/tcp, [::]:{port}->80/tcp\n"
    ));
}
