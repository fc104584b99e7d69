//! Several networks for one container, connected before its start and while it runs.

use gantry_testkit::session::Session;
use serde_json::{Value, json};

use super::{endpoint, fetches, parse_address};

gantry_testkit::scenarios![
    a_running_container_is_connected_and_disconnected,
    a_stopped_container_is_connected_for_its_next_start,
    several_networks_from_the_start,
    the_long_form_has_all_of_an_endpoint,
    flags_of_connect_are_taken,
    fixed_addresses_survive_a_restart,
    a_container_has_fixed_addresses_of_both_families,
    an_address_in_use_is_told,
    the_gateway_is_chosen_by_priority_and_name,
    a_network_of_both_families_is_the_gateway_of_both,
    the_gateway_has_the_first_address_of_the_range,
    link_local_addresses_are_added,
    sysctls_of_an_interface,
    a_port_follows_the_gateway,
    disconnect_by_force_and_from_the_default_bridge,
    a_removed_network_is_taken_out_of_a_stopped_container,
    a_name_is_taken_once_in_a_network,
    another_container_shares_all_networks,
    modes_that_take_no_other_network,
    a_renamed_container_stays_on_its_networks,
];

/// The names of a container's interfaces beside the loopback.
fn interfaces(s: &Session, container: &str) -> Vec<String> {
    let listed = s.d(&format!("exec {container} ls /sys/class/net")).ok();
    let names = listed.stdout.lines().filter(|name| *name != "lo");
    names.map(str::to_owned).collect()
}

fn a_running_container_is_connected_and_disconnected(s: &Session) {
    s.d("network create @n").ok();
    s.d("run -d --name @srv --network @n @web").ok();
    s.d("run -d --name @c @bb sleep 1000").ok();
    assert!(!fetches(s, "@c", "@srv"));
    for _ in 0..2 {
        s.d("network connect @n @c").prints("");
        assert_eq!(interfaces(s, "@c"), ["eth0", "eth1"]);
        assert!(fetches(s, "@c", "@srv"), "no answer by name");
        let own = parse_address(&endpoint(s, "@c", "@n")["IPAddress"]);
        s.d("exec @c ip -4 -o addr show eth1")
            .ok()
            .shows(&format!("inet {own}/"));
        s.d("network inspect -f '{{range .Containers}}{{.Name}},{{end}}' @n")
            .such_that("both are there", |text| {
                text.contains(&s.x("@srv,")) && text.contains(&s.x("@c,"))
            });
        s.d("network disconnect @n @c").prints("");
        assert_eq!(interfaces(s, "@c"), ["eth0"]);
        assert_eq!(endpoint(s, "@c", "@n"), Value::Null);
        s.d("network inspect -f '{{range .Containers}}{{.Name}},{{end}}' @n")
            .prints("@srv,\n");
    }
    assert!(!fetches(s, "@c", "@srv"));
}

fn a_stopped_container_is_connected_for_its_next_start(s: &Session) {
    let net = s.subnet();
    s.d(&format!("network create --subnet {net}.0/24 @n")).ok();
    s.d("create --name @c @bb sleep 1000").ok();
    s.d(&format!(
        "network connect --ip {net}.50 --alias other @n @c"
    ))
    .ok();
    let before = endpoint(s, "@c", "@n");
    assert_eq!(
        before["IPAMConfig"],
        json!({"IPv4Address": format!("{net}.50")})
    );
    assert_eq!(
        (&before["IPAddress"], &before["EndpointID"]),
        (&json!(""), &json!(""))
    );
    s.d("start @c").ok();
    assert_eq!(endpoint(s, "@c", "@n")["IPAddress"], format!("{net}.50"));
    assert_eq!(interfaces(s, "@c"), ["eth0", "eth1"]);
    s.d("stop -t 0 @c").ok();
    s.d("network disconnect @n @c").ok();
    s.d("start @c").ok();
    assert_eq!(interfaces(s, "@c"), ["eth0"]);
}

fn several_networks_from_the_start(s: &Session) {
    for name in ["@a", "@b", "@c"] {
        s.d(&format!("network create {name}")).ok();
    }
    s.d("run -d --name @one --network @b --network @a @web")
        .ok();
    s.d("run -d --name @two --network @a @bb sleep 1000").ok();
    s.d("run -d --name @three --network @b @bb sleep 1000").ok();
    s.d("run -d --name @four --network @c @bb sleep 1000").ok();
    s.d("inspect -f '{{.HostConfig.NetworkMode}} {{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}' @one")
        .prints("@b @a @b \n");
    assert!(fetches(s, "@two", "@one") && fetches(s, "@three", "@one"));
    assert!(!fetches(s, "@four", "@one"));
    s.d("restart -t 0 @one").ok();
    assert!(fetches(s, "@two", "@one") && fetches(s, "@three", "@one"));
}

fn the_long_form_has_all_of_an_endpoint(s: &Session) {
    let net = s.subnet();
    s.d(&format!("network create --subnet {net}.0/24 @n")).ok();
    s.d("network create @m").ok();
    s.d(&format!("run -d --name @c --network name=@n,alias=first,alias=second,ip={net}.77,mac-address=02:00:00:00:00:77,driver-opt=com.docker.network.endpoint.ifname=foo0,gw-priority=7 --network @m @bb sleep 1000"))
        .ok();
    let shown = endpoint(s, "@c", "@n");
    assert_eq!(shown["Aliases"], json!(["first", "second"]));
    assert_eq!(
        shown["IPAMConfig"],
        json!({"IPv4Address": format!("{net}.77")})
    );
    assert_eq!(shown["IPAddress"], format!("{net}.77"));
    assert_eq!(shown["MacAddress"], "02:00:00:00:00:77");
    assert_eq!(shown["GwPriority"], 7);
    assert_eq!(
        shown["DriverOpts"],
        json!({"com.docker.network.endpoint.ifname": "foo0"})
    );
    let id = s.inspect("@c")["Id"].as_str().expect("an id")[..12].to_owned();
    assert_eq!(shown["DNSNames"], json!([s.x("@c"), "first", "second", id]));
    s.d("exec @c cat /sys/class/net/foo0/address")
        .prints("02:00:00:00:00:77\n");
    s.d("exec @c ip route")
        .ok()
        .shows(&format!("default via {net}.1 dev foo0"));
    // With one network, its flags alone.
    s.d(&format!("run -d --name @d --network @n --network-alias third --ip {net}.78 --mac-address 02:00:00:00:00:78 @bb sleep 1000"))
        .ok();
    let shown = endpoint(s, "@d", "@n");
    assert_eq!(
        (&shown["Aliases"], &shown["IPAddress"], &shown["MacAddress"]),
        (
            &json!(["third"]),
            &json!(format!("{net}.78")),
            &json!("02:00:00:00:00:78")
        )
    );
}

fn flags_of_connect_are_taken(s: &Session) {
    let (net, six) = (s.subnet(), s.subnet_v6());
    s.d(&format!(
        "network create --ipv6 --subnet {net}.0/24 --subnet {six}::/64 @n"
    ))
    .ok();
    s.d("network create @m").ok();
    s.d("run -d --name @other --network @n @web").ok();
    s.d("run -d --name @c --network @m @bb sleep 1000").ok();
    s.d(&format!("network connect --alias one --alias two --ip {net}.60 --ip6 {six}::60 --link @other:linked --link-local-ip 169.254.9.9 --driver-opt com.docker.network.endpoint.ifname=bar0 --gw-priority 5 @n @c"))
        .prints("");
    let shown = endpoint(s, "@c", "@n");
    assert_eq!(
        shown["IPAMConfig"],
        json!({"IPv4Address": format!("{net}.60"), "IPv6Address": format!("{six}::60"), "LinkLocalIPs": ["169.254.9.9"]})
    );
    assert_eq!(shown["Aliases"], json!(["one", "two"]));
    assert_eq!(shown["Links"], json!([s.x("@other:linked")]));
    assert_eq!(shown["GwPriority"], 5);
    assert_eq!(shown["GlobalIPv6Address"], format!("{six}::60"));
    assert!(fetches(s, "@c", "linked"));
    s.d("exec @c ip addr show bar0")
        .ok()
        .shows("inet 169.254.9.9/16")
        .shows(&format!("inet {net}.60/24"))
        .shows(&format!("inet6 {six}::60/64"));
    s.d("exec @c ip route")
        .ok()
        .shows(&format!("default via {net}.1 dev bar0"));
    s.d("exec @other ping -c 1 -w 5 two").ok();
    s.d("network disconnect --force @n @c").ok();
    s.d("exec @c ip route")
        .ok()
        .shows("default via ")
        .hides("bar0");
}

fn fixed_addresses_survive_a_restart(s: &Session) {
    let net = s.subnet();
    s.d(&format!("network create --subnet {net}.0/24 @n")).ok();
    s.d(&format!(
        "run -d --name @c --network @n --ip {net}.2 @bb sleep 1000"
    ))
    .ok();
    s.d("run -d --name @d --network @n @bb sleep 1000").ok();
    assert_ne!(endpoint(s, "@d", "@n")["IPAddress"], format!("{net}.2"));
    s.d("restart -t 0 @d @c").ok();
    assert_eq!(endpoint(s, "@c", "@n")["IPAddress"], format!("{net}.2"));
}

fn a_container_has_fixed_addresses_of_both_families(s: &Session) {
    let (net, six) = (s.subnet(), s.subnet_v6());
    s.d(&format!(
        "network create --ipv6 --subnet {net}.0/24 --subnet {six}::/64 @n"
    ))
    .ok();
    s.d(&format!(
        "run --rm --network @n --ip {net}.44 --ip6 {six}::44 @bb ip addr show eth0"
    ))
    .ok()
    .shows(&format!("inet {net}.44/24 "))
    .shows(&format!("inet6 {six}::44/64 "));
}

fn an_address_in_use_is_told(s: &Session) {
    let net = s.subnet();
    s.d(&format!("network create --subnet {net}.0/24 @n")).ok();
    s.d(&format!(
        "run -d --name @c --network @n --ip {net}.9 @bb sleep 1000"
    ))
    .ok();
    s.d(&format!("run -d --name @d --network @n --ip {net}.9 @bb true"))
        .fails(
            125,
            "docker: Error response from daemon: failed to set up container networking: Address already in use\n\nRun 'docker run --help' for more information\n",
        );
    s.d(&format!("run --rm --network @n --ip {net}.1 @bb true"))
        .fails_with(125, "Address already in use");
    s.d("rm -f @c").ok();
    s.d("start @d").ok();
}

fn the_gateway_is_chosen_by_priority_and_name(s: &Session) {
    let (a, b) = (s.subnet(), s.subnet());
    s.d(&format!("network create --subnet {a}.0/24 @a")).ok();
    s.d(&format!("network create --subnet {b}.0/24 @b")).ok();
    let default = "ip route | grep default | cut -d\" \" -f3";
    s.d(&format!(
        "run --rm --network @b --network @a @bb sh -c '{default}'"
    ))
    .prints(&format!("{a}.1\n"));
    s.d(&format!(
        "run --rm --network name=@b,gw-priority=1 --network @a @bb sh -c '{default}'"
    ))
    .prints(&format!("{b}.1\n"));
    s.d(&format!(
        "run --rm --network @b --network name=@a,gw-priority=-1 @bb sh -c '{default}'"
    ))
    .prints(&format!("{b}.1\n"));
    s.d("network create --internal @inner").ok();
    s.d("run -d --name @c --network @inner @bb sleep 1000").ok();
    s.d(&format!("exec @c sh -c '{default}'")).prints("");
    s.d("network connect @b @c").ok();
    s.d(&format!("exec @c sh -c '{default}'"))
        .prints(&format!("{b}.1\n"));
    s.d("network connect --gw-priority 9 @a @c").ok();
    s.d(&format!("exec @c sh -c '{default}'"))
        .prints(&format!("{a}.1\n"));
    s.d("network disconnect @a @c").ok();
    s.d(&format!("exec @c sh -c '{default}'"))
        .prints(&format!("{b}.1\n"));
}

fn a_network_of_both_families_is_the_gateway_of_both(s: &Session) {
    let (a, b, c) = (s.subnet(), s.subnet(), s.subnet());
    let (b6, c6, only6) = (s.subnet_v6(), s.subnet_v6(), s.subnet_v6());
    s.d(&format!("network create --subnet {a}.0/24 @a")).ok();
    for (name, four, six) in [("@b", &b, &b6), ("@c", &c, &c6)] {
        s.d(&format!(
            "network create --ipv6 --subnet {four}.0/24 --subnet {six}::/64 {name}"
        ))
        .ok();
    }
    s.d("network create --ipv6 --internal @inner").ok();
    s.d(&format!(
        "network create --ipv6 --ipv4=false --subnet {only6}::/64 @six"
    ))
    .ok();
    let show = "(ip route; ip -6 route) | grep default | cut -d\" \" -f3";
    let check = |networks: &str, four: &str, six: &str| {
        s.d(&format!("run --rm {networks} @bb sh -c '{show}'"))
            .prints(&format!("{four}.1\n{six}::1\n"));
    };
    check("--network @a --network @b", &b, &b6);
    check("--network name=@a,gw-priority=1 --network @b", &b, &b6);
    check("--network @a --network name=@b,gw-priority=-1", &b, &b6);
    check("--network @a --network @b --network @c", &b, &b6);
    check(
        "--network name=@a,gw-priority=2 --network @b --network name=@c,gw-priority=1",
        &c,
        &c6,
    );
    check("--network name=@inner,gw-priority=5 --network @b", &b, &b6);
    check("--network name=@six,gw-priority=1 --network @b", &b, &b6);
    check("--network @six --network @a", &a, &only6);
    // A published port goes by it.
    let port = s.port();
    s.d(&format!(
        "run -d --name @d --network name=@a,gw-priority=1 --network @b -p {port}:80 @web"
    ))
    .ok();
    let asks = || s.get_from_outside(port, "/group").starts_with("root:");
    gantry_testkit::wait::eventually("the port answers", asks);
    s.d("network disconnect @a @d").ok();
    assert!(asks());
    s.d("network connect @a @d").ok();
    s.d("network disconnect @b @d").ok();
    assert!(asks());
}

fn the_gateway_has_the_first_address_of_the_range(s: &Session) {
    let net = s.subnet();
    let show = "ip -o -4 addr show eth0 | grep -o \"inet [^ ]*\"; ip route | grep default | cut -d\" \" -f3";
    for (options, address, gateway) in [
        (
            format!("--subnet {net}.0/24 --ip-range {net}.16/28"),
            "17/24",
            "16",
        ),
        (
            format!("--subnet {net}.0/24 --ip-range {net}.0/28"),
            "2/24",
            "1",
        ),
        (
            format!("--subnet {net}.0/24 --ip-range {net}.16/28 --gateway {net}.1"),
            "16/24",
            "1",
        ),
        (
            format!("--subnet {net}.0/24 --gateway {net}.254"),
            "1/24",
            "254",
        ),
        (format!("--subnet {net}.0/30"), "2/30", "1"),
        (format!("--subnet {net}.0/31"), "1/31", "0"),
    ] {
        s.d(&format!("network create {options} @n")).ok();
        s.d(&format!("run --rm --network @n @bb sh -c '{show}'"))
            .prints(&format!("inet {net}.{address}\n{net}.{gateway}\n"));
        s.d("network rm @n").ok();
    }
}

fn link_local_addresses_are_added(s: &Session) {
    s.d("network create @n").ok();
    s.d("run --rm --network @n --link-local-ip 169.254.7.7 @bb ip -4 -o addr show eth0")
        .ok()
        .shows("inet 169.254.7.7/16");
}

fn sysctls_of_an_interface(s: &Session) {
    s.d("network create @n").ok();
    let option = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1";
    s.d(&format!("run --rm --network name=@n,driver-opt={option} @bb cat /proc/sys/net/ipv4/conf/eth0/log_martians"))
        .prints("1\n");
    s.d("run -d --name @c @bb sleep 1000").ok();
    s.d(&format!("network connect --driver-opt {option} @n @c"))
        .ok();
    s.d("exec @c cat /proc/sys/net/ipv4/conf/eth1/log_martians")
        .prints("1\n");
}

fn a_port_follows_the_gateway(s: &Session) {
    s.d("network create @a").ok();
    s.d("network create @b").ok();
    let port = s.port();
    s.d(&format!("run -d --name @c --network @b -p {port}:80 @web"))
        .ok();
    let asks = || s.get_from_outside(port, "/group").starts_with("root:");
    assert!(asks());
    s.d("network connect --gw-priority 1 @a @c").ok();
    assert!(asks());
    s.d("network disconnect @b @c").ok();
    assert!(asks());
    s.d("port @c").prints(&format!(
        "80/tcp -> 0.0.0.0:{port}\n80/tcp -> [::]:{port}\n"
    ));
}

fn disconnect_by_force_and_from_the_default_bridge(s: &Session) {
    s.d("run -d --name @c @bb sleep 1000").ok();
    s.d("network disconnect -f bridge @c").prints("");
    assert!(interfaces(s, "@c").is_empty());
    let networks = s.inspect("@c")["NetworkSettings"]["Networks"].clone();
    assert_eq!(networks, json!({}));
    s.d("network connect bridge @c").ok();
    assert_eq!(interfaces(s, "@c").len(), 1);
    s.d("exec @c ip route").ok().shows("default via ");
}

fn a_removed_network_is_taken_out_of_a_stopped_container(s: &Session) {
    s.d("network create @a").ok();
    s.d("network create @b").ok();
    s.d("create --name @c --network @a @bb sleep 1000").ok();
    s.d("network connect @b @c").ok();
    s.d("network rm @b").ok();
    s.d("network disconnect @b @c").prints("");
    s.d("start @c").ok();
    assert_eq!(interfaces(s, "@c").len(), 1);
}

fn a_name_is_taken_once_in_a_network(s: &Session) {
    s.d("network create @n").ok();
    s.d("run -d --name @c --network @n @bb sleep 1000").ok();
    s.d("network connect @n @c").fails(
        1,
        "Error response from daemon: endpoint with name @c already exists in network @n\n",
    );
}

fn another_container_shares_all_networks(s: &Session) {
    s.d("network create @a").ok();
    s.d("network create @b").ok();
    s.d("run -d --name @srv --network @b @web").ok();
    s.d("run -d --name @c --network @a --network @b @bb sleep 1000")
        .ok();
    s.d("run --rm --network container:@c @bb sh -c 'ls /sys/class/net; cat /etc/resolv.conf | grep nameserver; wget -q -O - http://@srv/group | head -n 1'")
        .prints("eth0\neth1\nlo\nnameserver 127.0.0.11\nroot:x:0:\n");
    s.d("run -d --name @d --network container:@c @bb sleep 1000")
        .ok();
    s.d("network connect @a @d").fails(
        1,
        "Error response from daemon: container sharing network namespace with another container or host cannot be connected to any other network\n",
    );
}

fn modes_that_take_no_other_network(s: &Session) {
    s.d("network create @n").ok();
    s.d("run -d --name @host --network host @bb sleep 1000")
        .ok();
    s.d("run -d --name @none --network none @bb sleep 1000")
        .ok();
    for (line, words) in [
        (
            "network connect @n @host",
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ),
        (
            "network connect @n @none",
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ),
        (
            "network disconnect host @host",
            "cannot disconnect container from host network - container was created in host network mode",
        ),
    ] {
        s.d(line)
            .fails(1, &format!("Error response from daemon: {words}\n"));
    }
    s.d("network disconnect none @none").prints("");
    s.d("network connect @n @none").prints("");
    assert_eq!(interfaces(s, "@none"), ["eth0"]);
}

fn a_renamed_container_stays_on_its_networks(s: &Session) {
    s.d("network create @n").ok();
    s.d("run -d --name @old --network @n @web").ok();
    s.d("run -d --name @c --network @n @bb sleep 1000").ok();
    assert!(fetches(s, "@c", "@old"));
    s.d("rename @old @new").ok();
    assert!(fetches(s, "@c", "@new"));
    assert!(!fetches(s, "@c", "@old"));
    s.d("network inspect -f '{{range .Containers}}{{.Name}},{{end}}' @n")
        .ok()
        .shows(&s.x("@new,"));
}
