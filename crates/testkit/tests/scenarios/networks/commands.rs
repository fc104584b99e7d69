//! `network create`, `ls`, `inspect`, `rm` and `prune`: every flag, filter and form.

use gantry_testkit::session::Session;
use serde_json::{Value, json};

gantry_testkit::scenarios![
    a_plain_network_is_shown_in_full,
    addresses_are_chosen_by_flags,
    a_network_of_both_families,
    a_network_of_ipv6_alone,
    options_and_labels_are_kept,
    the_bridge_has_the_name_and_mtu_asked_for,
    a_configuration_is_taken_from_another_network,
    networks_are_filtered,
    networks_are_written_in_every_form,
    a_network_is_found_by_its_id,
    several_networks_are_removed,
    prune_takes_what_is_not_used,
    networks_have_events,
    a_network_of_a_stopped_container_goes,
    thousands_would_fit,
    what_needs_a_swarm_is_refused,
    lists_count_digits_as_numbers,
];

fn shown(s: &Session, name: &str) -> Value {
    s.d(&format!("network inspect {name}")).ok().json()[0].clone()
}

fn a_plain_network_is_shown_in_full(s: &Session) {
    let id = s.d("network create @n").ok().text();
    let mut network = shown(s, "@n");
    let config = network["IPAM"]["Config"].take();
    let created = network["Created"].take();
    assert!(
        created.as_str().is_some_and(|time| time.ends_with('Z')),
        "{created}"
    );
    let keys: Vec<&String> = config[0].as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["Subnet", "Gateway"], "{config}");
    assert_eq!(
        network,
        json!({
            "Name": s.x("@n"), "Id": id, "Created": null, "Scope": "local", "Driver": "bridge",
            "EnableIPv4": true, "EnableIPv6": false,
            "IPAM": {"Driver": "default", "Options": {}, "Config": null},
            "Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": {"Network": ""},
            "ConfigOnly": false, "Containers": {}, "Options": {}, "Labels": {}
        })
    );
}

fn addresses_are_chosen_by_flags(s: &Session) {
    let net = s.subnet();
    s.d(&format!(
        "network create --subnet {net}.0/24 --ip-range {net}.128/25 --gateway {net}.9 --aux-address a={net}.128 --aux-address b={net}.129 @n"
    ))
    .ok();
    assert_eq!(
        shown(s, "@n")["IPAM"]["Config"],
        json!([{
            "Subnet": format!("{net}.0/24"), "IPRange": format!("{net}.128/25"), "Gateway": format!("{net}.9"),
            "AuxiliaryAddresses": {"a": format!("{net}.128"), "b": format!("{net}.129")}
        }])
    );
    s.d("run --rm --network @n @bb sh -c 'ip route | grep default | cut -d\" \" -f3; ip -4 -o addr show eth0 | tr -s \" \" | cut -d\" \" -f4'")
        .prints(&format!("{net}.9\n{net}.130/24\n"));
}

fn a_network_of_both_families(s: &Session) {
    let (net, six) = (s.subnet(), s.subnet_v6());
    s.d(&format!(
        "network create --ipv6 --subnet {net}.0/24 --subnet {six}::/64 --gateway {six}::9 @n"
    ))
    .ok();
    let mut network = shown(s, "@n");
    assert_eq!(network["EnableIPv6"], true);
    // docker sends them in any order.
    let mut config = network["IPAM"]["Config"].take();
    let configs = config.as_array_mut().expect("a list");
    configs.sort_by_key(|config| config["Subnet"].to_string());
    assert_eq!(
        config,
        json!([
            {"Subnet": format!("{net}.0/24")},
            {"Subnet": format!("{six}::/64"), "Gateway": format!("{six}::9")}
        ])
    );
    s.d("run -d --name @c --network @n @bb sleep 1000").ok();
    s.d("run -d --name @d --network @n @bb sleep 1000").ok();
    let endpoint = s.inspect("@d")["NetworkSettings"]["Networks"][s.x("@n")].clone();
    assert_eq!(endpoint["IPv6Gateway"], format!("{six}::9"));
    assert_eq!(endpoint["GlobalIPv6PrefixLen"], 64);
    let address = endpoint["GlobalIPv6Address"].as_str().expect("an address");
    s.d(&format!("exec @c ping -6 -c 1 -w 5 {address}")).ok();
    s.d("exec @c ping -6 -c 1 -w 5 @d").ok();
    s.d(&format!("exec @c ping -6 -c 1 -w 5 {six}::9")).ok();
    s.d("exec @c ip -6 route")
        .ok()
        .shows(&format!("default via {six}::9 dev eth0"));
    s.d("exec @c cat /etc/hosts").ok().shows("::1\tlocalhost");
}

fn a_network_of_ipv6_alone(s: &Session) {
    let six = s.subnet_v6();
    s.d(&format!(
        "network create --ipv4=false --ipv6 --subnet {six}::/64 @n"
    ))
    .ok();
    let network = shown(s, "@n");
    assert_eq!(
        (&network["EnableIPv4"], &network["EnableIPv6"]),
        (&json!(false), &json!(true))
    );
    s.d("run -d --name @c --network @n @bb sleep 1000").ok();
    s.d("inspect -f '{{range .NetworkSettings.Networks}}[{{.IPAddress}}] {{.GlobalIPv6PrefixLen}}{{end}}' @c")
        .prints("[] 64\n");
    s.d("exec @c ip -4 -o addr show eth0").prints("");
    s.d("run --rm --network @n @bb ping -6 -c 1 -w 5 @c").ok();
}

fn options_and_labels_are_kept(s: &Session) {
    s.d("network create -d bridge --attachable -o com.docker.network.bridge.enable_icc=true --opt nosuch=1 --label a=b --label c --ipam-driver default --ipam-opt x=y --scope local @n")
        .ok();
    let network = shown(s, "@n");
    assert_eq!(
        network["Options"],
        json!({"com.docker.network.bridge.enable_icc": "true", "nosuch": "1"})
    );
    assert_eq!(network["Labels"], json!({"a": "b", "c": ""}));
    assert_eq!(network["IPAM"]["Options"], json!({"x": "y"}));
    assert_eq!(network["Attachable"], true);
    assert_eq!(network["Scope"], "local");
}

fn the_bridge_has_the_name_and_mtu_asked_for(s: &Session) {
    let bridge = format!("tb{:x}", s.port());
    s.d(&format!(
        "network create -o com.docker.network.bridge.name={bridge} -o com.docker.network.driver.mtu=1300 -o com.docker.network.container_iface_prefix=foo @n"
    ))
    .ok();
    s.d("run -d --name @c --network @n @bb sleep 1000").ok();
    s.d("exec @c cat /sys/class/net/foo0/mtu").prints("1300\n");
    let is_there = || {
        let mut words = s.engine.host_words();
        words.extend(["ip", "link", "show", &bridge].map(str::to_owned));
        let mut command = std::process::Command::new(&words[0]);
        let output = command.args(&words[1..]).output();
        output.expect("run ip").status.success()
    };
    assert!(is_there(), "no bridge {bridge}");
    s.d(&format!(
        "network create -o com.docker.network.bridge.name={bridge} @m"
    ))
    .fails_with(1, &bridge);
    s.d("rm -f @c").ok();
    s.d("network rm @n").ok();
    assert!(!is_there(), "{bridge} stays");
}

fn a_configuration_is_taken_from_another_network(s: &Session) {
    let net = s.subnet();
    s.d(&format!(
        "network create --config-only --subnet {net}.0/24 --label of=config @config"
    ))
    .ok();
    let config = shown(s, "@config");
    assert_eq!(
        (&config["ConfigOnly"], &config["Driver"]),
        (&json!(true), &json!("null"))
    );
    s.d("network create --config-from @config @n").ok();
    let network = shown(s, "@n");
    assert_eq!(network["ConfigFrom"]["Network"], s.x("@config"));
    assert_eq!(
        network["IPAM"]["Config"],
        json!([{"Subnet": format!("{net}.0/24")}])
    );
    s.d("run --rm --network @config @bb true").fails_with(
        125,
        "failed to set up container networking: cannot create endpoint on configuration-only network",
    );
    s.d("network rm @config").fails(
        1,
        "Error response from daemon: error while removing network: configuration network \"@config\" is in use\nexit status 1\n",
    );
    s.d("network rm @n").ok();
    s.d("network rm @config").prints("@config\n");
}

fn networks_are_filtered(s: &Session) {
    let first = s.d("network create --label color=red @a").ok().text();
    s.d("network create --label color=blue @b").ok();
    s.d("network create --internal @c").ok();
    s.d("run -d --name @x --network @b @bb sleep 1000").ok();
    let list = |filters: &str| {
        s.d(&format!(
            "network ls --filter name=^@prefix {filters} --format '{{{{.Name}}}}'"
        ))
    };
    list("").prints("@a\n@b\n@c\n");
    list("--filter label=color").prints("@a\n@b\n");
    list("--filter label=color=red").prints("@a\n");
    if !s.engine.is_reference() {
        // As its documentation says. The reference takes all for dangling that a user has made.
        list("--filter dangling=true").prints("@a\n@c\n");
        list("--filter dangling=false").prints("@b\n");
    }
    list("-f driver=bridge -f scope=local -f type=custom").prints("@a\n@b\n@c\n");
    list("-f driver=host").prints("");
    list("-f type=builtin").prints("");
    list(&format!("-f id={}", &first[..20])).prints("@a\n");
    s.d("network ls -f type=builtin --format '{{.Name}}'")
        .prints("bridge\nhost\nnone\n");
}

fn networks_are_written_in_every_form(s: &Session) {
    let id = s
        .d("network create --internal --ipv6 --label a=b @n")
        .ok()
        .text();
    let ls = |flags: &str| s.d(&format!("network ls --filter name=@n {flags}"));
    let short = &id[..12];
    ls("-q").prints(&format!("{short}\n"));
    ls("-q --no-trunc").prints(&format!("{id}\n"));
    ls("--no-trunc --format '{{.ID}}'").prints(&format!("{id}\n"));
    ls("--format '{{.IPv4}} {{.IPv6}} {{.Internal}} {{.Labels}} {{.Label \"a\"}}'")
        .prints("true true true a=b b\n");
    ls("--format 'table {{.Name}}\t{{.IPv6}}'")
        .ok()
        .shows("IPV6\n");
    let row = ls("--format json").ok().json();
    assert_eq!(
        (
            &row["ID"],
            &row["Name"],
            &row["Internal"],
            &row["IPv6"],
            &row["Labels"]
        ),
        (
            &json!(short),
            &json!(s.x("@n")),
            &json!("true"),
            &json!("true"),
            &json!("a=b")
        )
    );
    let created = row["CreatedAt"].as_str().expect("a time").to_owned();
    assert!(created.ends_with(" +0000 UTC"), "{created}");
    s.d("network inspect -v --format '{{.Name}} {{.Internal}} {{len .IPAM.Config}}' @n")
        .prints("@n true 2\n");
    s.d("inspect --type network -f '{{.Name}}' @n")
        .prints("@n\n");
    s.d("inspect -f '{{.Scope}}' @n").prints("local\n");
}

fn a_network_is_found_by_its_id(s: &Session) {
    let id = s.d("network create @n").ok().text();
    for name in [&id, &id[..12], &id[..30]] {
        s.d(&format!("network inspect -f '{{{{.Name}}}}' {name}"))
            .prints("@n\n");
    }
    s.d(&format!(
        "run -d --name @c --network {} @bb sleep 1000",
        &id[..12]
    ))
    .ok();
    let container = s.inspect("@c");
    let networks = container["NetworkSettings"]["Networks"].as_object();
    let names: Vec<&String> = networks.expect("an object").keys().collect();
    assert_eq!(names, [&s.x("@n")]);
    // What was given is replaced by what it stands for.
    assert_eq!(container["HostConfig"]["NetworkMode"], id);
    s.d("rm -f @c").ok();
    s.d(&format!("network rm {}", &id[..12]))
        .prints(&format!("{}\n", &id[..12]));
}

fn several_networks_are_removed(s: &Session) {
    s.d("network create @a").ok();
    s.d("network create @b").ok();
    s.d("network rm @a @none @b")
        .exits(1)
        .shows("@a\n@b\n")
        .warns("Error response from daemon: network @none not found\n");
    s.d("network create @a").ok();
    s.d("network remove --force @none @a").prints("@a\n");
    s.d("network inspect @a").exits(1);
}

fn prune_takes_what_is_not_used(s: &Session) {
    for name in ["@a", "@b", "@c"] {
        s.d(&format!("network create --label l=@p {name}")).ok();
    }
    s.d("network create --label l=@p --label keep @d").ok();
    s.d("create --name @x --network @b @bb").ok();
    s.d("network prune --force --filter label=l=@p --filter until=10h")
        .prints("");
    // A container that was never started has no endpoint.
    s.d("network prune -f --filter label=l=@p --filter label!=keep")
        .ok()
        .such_that("three are gone", |text| {
            let mut lines: Vec<&str> = text
                .lines()
                .skip(1)
                .filter(|line| !line.is_empty())
                .collect();
            lines.sort_unstable();
            lines == [s.x("@a"), s.x("@b"), s.x("@c")]
        });
    s.d_with("network prune --filter label=l=@p", b"n\n").shows(
        "WARNING! This will remove all custom networks not used by at least one container.\n",
    );
    s.d_with("network prune --filter label=l=@p", b"y\n")
        .ok()
        .shows("Deleted Networks:\n@d\n");
}

fn networks_have_events(s: &Session) {
    let begin = super::now();
    let id = s.d("network create @n").ok().text();
    let container = s.d("create --name @c @bb sleep 1000").ok().text();
    s.d("start @c").ok();
    s.d("network connect @n @c").ok();
    s.d("network disconnect @n @c").ok();
    s.d("network rm @n").ok();
    let until = super::now();
    let events = |filters: &str| {
        s.d(&format!("events --since {begin} --until {until} {filters} --format '{{{{.Type}}}} {{{{.Action}}}} {{{{.Actor.Attributes.name}}}} {{{{.Actor.Attributes.type}}}} {{{{.Actor.Attributes.container}}}}'"))
    };
    let all = format!(
        "network create @n bridge <no value>\nnetwork connect @n bridge {container}\nnetwork disconnect @n bridge {container}\nnetwork destroy @n bridge <no value>\n"
    );
    events(&format!("--filter network={id}")).prints(&all);
    events("--filter type=network --filter network=@n").prints(&all);
    events("--filter network=@n --filter event=create")
        .prints("network create @n bridge <no value>\n");
    events("--filter network=@n --filter event=connect")
        .prints(&format!("network connect @n bridge {container}\n"));
}

fn a_network_of_a_stopped_container_goes(s: &Session) {
    s.d("network create @n").ok();
    s.d("run --name @c --network @n @bb true").ok();
    s.d("network rm @n").prints("@n\n");
    s.d("start @c").fails_with(1, "network");
}

fn thousands_would_fit(s: &Session) {
    // More than Docker's default pools hold; here a few beside those that other scenarios have.
    for number in 0..33 {
        let name = format!("@n{number}");
        s.d(&format!("network create {name}")).ok();
    }
    let subnets = s.d("network inspect @n0 @n32 -f '{{range .IPAM.Config}}{{.Subnet}}{{end}}'");
    subnets.ok().such_that("two subnets", |text| {
        let lines: Vec<&str> = text.lines().collect();
        lines.len() == 2 && lines[0] != lines[1]
    });
}

fn what_needs_a_swarm_is_refused(s: &Session) {
    for (flags, words) in [
        (
            "--ingress",
            "Ingress network can only be global scope network",
        ),
        (
            "--scope swarm",
            "cannot create a swarm scoped network when swarm is not active",
        ),
        (
            "--driver overlay",
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
        ),
    ] {
        s.d(&format!("network create {flags} @n"))
            .fails(1, &format!("Error response from daemon: {words}\n"));
    }
}

fn lists_count_digits_as_numbers(s: &Session) {
    let names = ["@n10", "@n2", "@n02", "@nA1", "@n2b10", "@n2b9"];
    let sorted = "@n2\n@n2b9\n@n2b10\n@n02\n@n10\n@nA1\n";
    for kind in ["network", "volume"] {
        for name in names {
            s.d(&format!("{kind} create {name}")).ok();
        }
        s.d(&format!(
            "{kind} ls --filter name=@n --format '{{{{.Name}}}}'"
        ))
        .prints(sorted);
        for name in names {
            s.d(&format!("{kind} rm {name}")).ok();
        }
    }
    for name in names {
        s.d(&format!(
            "context create {name} --docker host=unix:///nosuch"
        ))
        .ok();
    }
    s.d("context ls -q").prints(&format!("default\n{sorted}"));
}
