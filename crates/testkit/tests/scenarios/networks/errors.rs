//! Wrong requests about networks: exit code and every byte of both streams, as the reference gives them.

use gantry_testkit::session::Session;

use crate::errors::check;

gantry_testkit::scenarios![
    wrong_words_about_networks,
    names_of_networks_may_be_odd,
    a_network_in_use_names_all_its_containers,
    a_name_that_is_empty_is_refused_by_the_client,
    addresses_that_cannot_be_given,
    removals_are_told_in_their_order,
];

fn wrong_words_about_networks(s: &Session) {
    // The addresses are in the recorded words, so the clients take turns. They lie outside of what scenarios take.
    let _turn = super::turn();
    s.d("network create --subnet 10.139.7.0/24 @n").ok();
    s.d("network create @m").ok();
    s.d("run -d --name @c --network @n @bb sleep 1000").ok();
    s.d("create --name @created --network @n @bb").ok();
    check(
        s,
        "networks",
        &[
            "network",
            "network nosuch",
            "network create",
            "network create @a @b",
            "network create ''",
            "network create ' '",
            "network create @n",
            "network create bridge",
            "network create host",
            "network create none",
            "network create default",
            "network create -d nosuch @x",
            "network create -d host @x",
            "network create -d null @x",
            "network create -d overlay @x",
            "network create --ingress @x",
            "network create --scope swarm @x",
            "network create --subnet x @x",
            "network create --subnet 10.139.7.1 @x",
            "network create --subnet 10.139.7.0/33 @x",
            "network create --subnet 10.139.7.0/25 @x",
            "network create --subnet 10.139.6.0/23 @x",
            "network create --subnet 10.139.8.1/24 @x",
            "network create --subnet 10.139.8.0/24 --subnet 10.139.8.0/25 @x",
            "network create --subnet 10.139.8.0/24 --subnet 10.139.9.0/24 @x",
            "network create --subnet 10.139.8.0/32 @x",
            "network create --subnet 10.139.8.0/24 --gateway x @x",
            "network create --subnet 10.139.8.0/24 --gateway 10.139.9.1 @x",
            "network create --gateway 10.139.9.1 @x",
            "network create --ip-range 10.139.8.0/24 @x",
            "network create --subnet 10.139.8.0/24 --ip-range 10.139.9.0/25 @x",
            "network create --subnet 10.139.8.0/24 --ip-range 10.139.8.0/23 @x",
            "network create --subnet 10.139.8.0/24 --aux-address a=10.139.9.1 @x",
            "network create --subnet 10.139.8.0/24 --aux-address x @x",
            "network create --subnet 10.139.8.0/24 --gateway 10.139.8.1 --gateway 10.139.8.2 @x",
            "network create --subnet 10.139.8.0/24 --gateway 10.139.8.1 --aux-address a=10.139.8.1 @x",
            "network create --subnet 10.139.8.0/24 --gateway 10.139.8.0 @x",
            "network create --subnet 10.139.8.0/24 --gateway 10.139.8.255 @x",
            "network create --subnet 10.139.8.0/24 --aux-address a=10.139.8.1 @x",
            "network create --subnet 10.139.8.0/24 --aux-address a=10.139.8.255 @x",
            "network create --subnet 10.139.8.0/24 --ip-range 10.139.8.16/28 --aux-address a=10.139.8.16 @x",
            "network create --subnet 10.139.8.0/24 --ip-range 10.139.8.0/32 @x",
            "network create --ipv6 --subnet fd00:8b::/128 @x",
            "network create --ipv6 --subnet fd00:8b::/64 --gateway fd00:8b:: @x",
            "network create --ipv6 --subnet fd00:8b::/64 --aux-address a=fd00:8b::1 @x",
            "network create --ipv6 --subnet fe80::/16 @x",
            "network create --ipv6 --subnet ff02::/64 @x",
            "network create --ipv6 --subnet ::/0 @x",
            "network create --ipv6 --subnet ::/64 @x",
            "network create -o com.docker.network.bridge.name=a:b @x",
            "network create -o com.docker.network.bridge.name=lo @x",
            "network create -o com.docker.network.driver.mtu=67 @x",
            "network create -o com.docker.network.driver.mtu=65536 @x",
            "network create --ipv6 --subnet fd00:8b::/64 --subnet fd00:8b::/65 @x",
            "network create --subnet fd00:8b::/129 @x",
            "network create --ipv4=false @x",
            "network create --ipv6=maybe @x",
            "network create --config-from @none @x",
            "network create --config-from @n @x",
            "network create --config-only --internal=false -d bridge @x",
            "network create --config-from @n --subnet 10.139.8.0/24 @x",
            "network create --config-from @n --config-only @x",
            "network create --ipam-driver nosuch @x",
            "network create --ipam-driver null @x",
            "network create -o com.docker.network.bridge.enable_icc=maybe @x",
            "network create -o com.docker.network.bridge.enable_ip_masquerade=maybe @x",
            "network create -o com.docker.network.bridge.inhibit_ipv4=maybe @x",
            "network create -o com.docker.network.bridge.host_binding_ipv4=x @x",
            "network create -o com.docker.network.bridge.gateway_mode_ipv4=nosuch @x",
            "network create -o com.docker.network.bridge.gateway_mode_ipv6=nosuch @x",
            "network create -o com.docker.network.bridge.gateway_mode_ipv4=isolated @x",
            "network create -o com.docker.network.driver.mtu=x @x",
            "network create -o com.docker.network.driver.mtu=-1 @x",
            "network create -o com.docker.network.bridge.name=averyverylonginterfacename @x",
            "network create -o com.docker.network.bridge.name=../x @x",
            "network create -o com.docker.network.host_ipv4=x @x",
            "network create -o parent=nosuch0 -d macvlan @x",
            "network create -o parent=lo -o macvlan_mode=nosuch -d macvlan @x",
            "network create -o ipvlan_mode=nosuch -d ipvlan @x",
            "network create --nosuch @x",
            "network create --label @x",
            "network ls x",
            "network ls --filter x",
            "network ls --filter nosuch=1",
            "network ls --filter dangling=maybe",
            "network ls --filter type=nosuch",
            "network ls --format '{{.Nosuch}}'",
            "network ls --format '{{.Name'",
            "network inspect",
            "network inspect @none",
            "network inspect @n @none --format '{{.Name}}'",
            "network inspect -f '{{.Nosuch}}' @n",
            "network inspect -f '{{.Name' @n",
            "network rm",
            "network rm bridge",
            "network rm host none",
            "network rm @none",
            "network rm -f @none",
            "network rm -f host",
            "network prune x",
            "network prune -f --filter nosuch=1",
            "network prune -f --filter until=x",
            "network prune -f --filter dangling=true",
            "network connect",
            "network connect @n",
            "network connect @none @c",
            "network connect @n @none",
            "network connect @n @c",
            "network connect host @c",
            "network connect none @c",
            "network connect --ip x @m @c",
            "network connect --ip 10.139.9.9 @m @c",
            "network connect --ip 10.139.7.9 bridge @c",
            "network connect --ip6 fd00::9 @m @c",
            "network connect --ip6 x @m @c",
            "network connect --alias x bridge @c",
            "network connect --link-local-ip x @m @c",
            "network connect --link nosuch:a:b @m @c",
            "network connect --driver-opt x @m @c",
            "network connect --driver-opt com.docker.network.endpoint.sysctls=x @m @c",
            "network connect --driver-opt com.docker.network.endpoint.sysctls=net.ipv4.conf.eth0.log_martians=1 @m @c",
            "network connect --gw-priority x @m @c",
            "network connect --ip 10.139.7.1 @n @created",
            "network connect --ip 10.139.8.1 @n @created",
            "network disconnect",
            "network disconnect @none @c",
            "network disconnect @n @none",
            "network disconnect @m @c",
            "network disconnect -f @m @c",
            "network disconnect bridge @c",
            "run --rm --network @none @bb true",
            "run --rm --network @n --network @none @bb true",
            "run --rm --network @n --network @n @bb true",
            "run --rm --network @n --network bridge @bb true",
            "run --rm --network @n --ip x @bb true",
            "run --rm --network @n --ip 10.139.9.9 @bb true",
            "run --rm --network @n --ip 10.139.7.1 @bb true",
            "run --rm --network @n --ip 10.139.7.0 @bb true",
            "run --rm --network @n --ip 10.139.7.255 @bb true",
            "run --rm --network @n --ip6 fd00::9 @bb true",
            "run --rm --network @m --ip 172.30.0.9 @bb true",
            "run --rm --network @n --mac-address x @bb true",
            "run --rm --network @n --link-local-ip x @bb true",
            "run --rm --network @n --link a:b:c @bb true",
            "run --rm --ip 10.139.7.9 @bb true",
            "run --rm --network-alias x @bb true",
            "run --rm --network host --network-alias x @bb true",
            "run --rm --network host --ip 10.139.7.9 @bb true",
            "run --rm --network none --ip 10.139.7.9 @bb true",
            "run --rm --network host --mac-address 02:00:00:00:00:01 @bb true",
            "run --rm --network container:@c --ip 10.139.7.9 @bb true",
            "run --rm --network container:@c --network @n @bb true",
            "run --rm --network container:@c --mac-address 02:00:00:00:00:01 @bb true",
            "run --rm --network container:@c --dns 9.9.9.9 @bb true",
            "run --rm --network container:@c --add-host a:1.2.3.4 @bb true",
            "run --rm --network container:@c --hostname x @bb true",
            "run --rm --network container:@c --link @c:x @bb true",
            "run --rm --network container:@c --expose 80 @bb true",
            "run --rm --network host --link @c:x @bb true",
            "run --rm --network name= @bb true",
            "run --rm --network name=@n,nosuch=1 @bb true",
            "run --rm --network name=@n,driver-opt=x @bb true",
            "run --rm --network name=@n,gw-priority=x @bb true",
            "run --rm --network alias=x @bb true",
            "run --rm --network name=@n,ip=10.139.7.7 --ip 10.139.7.8 @bb true",
            "run --rm --network name=@n,alias=x --network-alias y @bb true",
            "run --rm --network name=@n,mac-address=x @bb true",
            "run --rm --network name=@n,driver-opt=com.docker.network.endpoint.ifname=../x @bb true",
            "run --rm --network name=@n,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.ip_forward=1 @bb true",
        ],
    );
    s.d("rm -f @c @created").ok();
    s.d("network rm @n @m").ok();
}

fn names_of_networks_may_be_odd(s: &Session) {
    for name in [
        "@n/a", "@n..", "@n x", "@n%20x", "@nü", "@n?x", "@n#x", "@n/../x",
    ] {
        let id = s.d(&format!("network create '{name}'")).ok().text();
        s.d(&format!("network inspect -f '{{{{.Name}}}}' {id}"))
            .prints(&format!("{name}\n"));
        if name.contains("/..") {
            // The path is cleaned: this means the network `x`.
            s.d(&format!("network inspect '{name}'"))
                .fails_with(1, "Error response from daemon: network x not found\n");
            s.d(&format!("network rm '{name}'")).fails(
                1,
                "Error response from daemon: network x not found\nexit status 1\n",
            );
            s.d(&format!("network rm {id}")).ok();
            continue;
        }
        s.d(&format!("network inspect -f '{{{{.Id}}}}' '{name}'"))
            .prints(&format!("{id}\n"));
        s.d(&format!("create --name @c --network '{name}' @bb"))
            .ok();
        s.d(&format!("network disconnect '{name}' @c")).ok();
        s.d(&format!("network connect '{name}' @c")).ok();
        s.d("rm @c").ok();
        s.d(&format!("network rm '{name}'"))
            .prints(&format!("{name}\n"));
    }
    // Slashes around a name are not part of the path.
    s.d("network create /@n").ok();
    s.d("network rm /@n").fails(
        1,
        "Error response from daemon: network @n not found\nexit status 1\n",
    );
    let id = s.d("network ls -q --filter name=/@n").ok().text();
    s.d(&format!("network rm {id}")).ok();
    for name in ["..", "a/../.."] {
        s.d(&format!("network inspect {name}"))
            .fails(1, "Error response from daemon: page not found\n");
        s.d(&format!("network rm {name}")).fails(
            1,
            "Error response from daemon: page not found\nexit status 1\n",
        );
    }
    s.d("network inspect /").fails(
        1,
        "json: cannot unmarshal array into Go value of type network.Inspect\n",
    );
}

fn a_name_that_is_empty_is_refused_by_the_client(s: &Session) {
    s.d("network create @n").ok();
    for name in ["", " "] {
        for kind in ["network", "volume", "container"] {
            s.d(&format!("{kind} inspect '{name}'"))
                .fails(1, &format!("invalid {kind} name or ID: value is empty\n"));
        }
        s.d(&format!("inspect '{name}'"))
            .fails(1, "invalid container name or ID: value is empty\n");
        s.d(&format!("volume rm '{name}'"))
            .fails(1, "invalid volume name or ID: value is empty\n");
        s.d(&format!("network rm '{name}'")).fails(
            1,
            "invalid network name or ID: value is empty\nexit status 1\n",
        );
        s.d(&format!("network rm -f '{name}'")).fails(
            1,
            "invalid network name or ID: value is empty\nexit status 1\n",
        );
        for verb in [
            "stop", "kill", "logs", "restart", "pause", "top", "port", "wait", "attach",
        ] {
            s.d(&format!("{verb} '{name}'"))
                .fails(1, "invalid container name or ID: value is empty\n");
        }
        s.d(&format!("start '{name}'")).fails(
            1,
            &format!("invalid container name or ID: value is empty\nError: failed to start containers: {name}\n"),
        );
        s.d(&format!("exec '{name}' true"))
            .fails(1, "invalid container name or ID: value is empty\n");
        for verb in ["connect", "disconnect"] {
            s.d(&format!("network {verb} '{name}' '{name}'"))
                .fails(1, "invalid network name or ID: value is empty\n");
            s.d(&format!("network {verb} @n '{name}'"))
                .fails(1, "invalid container name or ID: value is empty\n");
        }
    }
    s.d("image inspect ''").fails(1, "Error: No such image: \n");
    for verb in ["rmi", "history"] {
        s.d(&format!("{verb} ''"))
            .fails(1, "Error response from daemon: page not found\n");
    }
    // Spaces around a name are not part of it.
    s.d("create --name @c @bb").ok();
    s.d("inspect -f '{{.Name}}' ' @c '").prints("/@c\n");
    s.d("network rm ' @n '").prints(" @n \n");
}

fn a_network_in_use_names_all_its_containers(s: &Session) {
    s.d("network create @n").ok();
    for name in ["@a", "@b", "@c"] {
        s.d(&format!("run -d --name {name} --network @n @bb sleep 1000"))
            .ok();
    }
    let refused = s.d("network rm @n").exits(1).stderr;
    let (begin, end) = (
        s.x("Error response from daemon: error while removing network: network @n has active endpoints ("),
        ")\nexit status 1\n",
    );
    let named = refused
        .strip_prefix(&begin)
        .and_then(|rest| rest.strip_suffix(end))
        .unwrap_or_else(|| panic!("{refused}"));
    // Docker's are in no order.
    let mut named: Vec<&str> = named.split(", ").collect();
    named.sort_unstable();
    let wanted = ["@a", "@b", "@c"].map(|name| {
        let networks = &s.inspect(name)["NetworkSettings"]["Networks"];
        let endpoint = networks[s.x("@n")]["EndpointID"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        format!("name:{:?} id:{:?}", s.x(name), &endpoint[..12])
    });
    assert_eq!(named, wanted);
    s.d("rm -f @a @b @c").ok();
    s.d("network rm @n").ok();
}

fn addresses_that_cannot_be_given(s: &Session) {
    let subnet = s.subnet();
    s.d(&format!("network create --subnet {subnet}.0/24 @n"))
        .ok();
    s.d("create --name @c @bb").ok();
    let outside =
        |ip: &str| format!("no configured subnet or ip-range contain the IP address {ip}");
    let unconfigured = "user specified IP address is supported only when connecting to networks with user configured subnets";
    for (flags, faults) in [
        ("--ip 1.2.3.4", outside("1.2.3.4")),
        (
            "--ip foo",
            format!("* invalid IPv4 address: foo\n* {}", outside("foo")),
        ),
        (
            "--ip 01.2.3.4",
            format!(
                "* invalid IPv4 address: 01.2.3.4\n* {}",
                outside("01.2.3.4")
            ),
        ),
        (
            "--ip 0.0.0.0",
            format!("* invalid IPv4 address: 0.0.0.0\n* {}", outside("0.0.0.0")),
        ),
        (
            "--ip fd00::1",
            format!("* invalid IPv4 address: fd00::1\n* {}", outside("fd00::1")),
        ),
        ("--ip6 fd00::1", unconfigured.to_owned()),
        (
            "--ip6 ::",
            format!("* invalid IPv6 address: ::\n* {unconfigured}"),
        ),
        (
            "--ip6 1.2.3.4",
            format!("* invalid IPv6 address: 1.2.3.4\n* {unconfigured}"),
        ),
        (
            "--ip6 ::ffff:1.2.3.4",
            format!("* invalid IPv6 address: ::ffff:1.2.3.4\n* {unconfigured}"),
        ),
        (
            "--link-local-ip foo",
            "invalid link-local IP address: foo".to_owned(),
        ),
        (
            "--link-local-ip 0.0.0.0",
            "invalid link-local IP address: 0.0.0.0".to_owned(),
        ),
        (
            "--ip 1.2.3.4 --link-local-ip foo",
            format!(
                "* invalid link-local IP address: foo\n* {}",
                outside("1.2.3.4")
            ),
        ),
        (
            "--ip fd00::1 --ip6 1.2.3.4",
            format!(
                "* invalid IPv4 address: fd00::1\n* invalid IPv6 address: 1.2.3.4\n* {}\n* {unconfigured}",
                outside("fd00::1")
            ),
        ),
    ] {
        s.d(&format!("network connect {flags} @n @c")).fails(
            1,
            &format!("Error response from daemon: invalid endpoint settings:\n{faults}\n"),
        );
        s.d(&format!("run --rm --network @n {flags} @bb true")).fails(
            125,
            &format!("docker: Error response from daemon: invalid config for network @n: invalid endpoint settings:\n{faults}\n\nRun 'docker run --help' for more information\n"),
        );
    }
}

fn removals_are_told_in_their_order(s: &Session) {
    s.d("network create @n").ok();
    s.d("network create @m").ok();
    s.script("docker network rm @x @n @y @m 2>&1; echo $?")
        .prints(
            "Error response from daemon: network @x not found\n@n\n\
         Error response from daemon: network @y not found\n@m\nexit status 1\n1\n",
        );
    s.script("docker network rm -f @x @n; echo $?")
        .prints("0\n");
}
