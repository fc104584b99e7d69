//! Network modes, published ports and the files in /etc.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket};
use std::time::Duration;

use gantry_testkit::session::Session;
use gantry_testkit::wait::{eventually, eventually_within};

gantry_testkit::scenarios![
    the_bridge_gives_address_route_and_name,
    a_port_answers_everywhere,
    a_port_answers_from_containers,
    ipv6_loopback_answers,
    a_free_port_is_chosen,
    all_exposed_ports_are_published,
    port_ranges,
    udp_ports,
    one_port_number_for_tcp_and_udp,
    a_port_in_use_is_named,
    a_port_of_the_host_in_use_is_named,
    a_port_is_free_again_after_the_end,
    ports_come_back_with_a_restart,
    the_source_address_is_seen_from_outside,
    the_network_of_another_container,
    hosts_file_and_extra_hosts,
    resolver_file_options,
    mac_address_is_set,
    bridge_is_listed_and_inspected,
    conflicting_network_options,
    a_container_reaches_the_outside,
    unpublished_ports_are_closed_to_the_outside,
    ports_are_shown_by_ps,
    exposed_ports_are_shown,
    a_port_that_is_asked_for_twice,
    a_udp_port_at_all_addresses_and_at_one,
    a_protocol_that_the_kernel_has_not,
];

fn the_bridge_gives_address_route_and_name(s: &Session) {
    s.d("run -d --name @c @bb sleep 1000").ok();
    let endpoint = s.inspect("@c")["NetworkSettings"]["Networks"]["bridge"].clone();
    let text = |key: &str| endpoint[key].as_str().unwrap_or_default().to_owned();
    s.d("exec @c sh -c 'ip -4 -o addr show eth0 | tr -s \" \" | cut -d\" \" -f4'")
        .prints(&format!(
            "{}/{}\n",
            text("IPAddress"),
            endpoint["IPPrefixLen"]
        ));
    s.d("exec @c sh -c 'ip route | grep default | cut -d\" \" -f3'")
        .prints(&format!("{}\n", text("Gateway")));
    s.d("exec @c cat /sys/class/net/eth0/address")
        .prints(&format!("{}\n", text("MacAddress")));
    let id = s.inspect("@c")["Id"].as_str().expect("an id")[..12].to_owned();
    s.d(&format!(
        "exec @c grep -c '^{}\t{id}$' /etc/hosts",
        text("IPAddress")
    ))
    .prints("1\n");
    let gateway = text("Gateway");
    s.d(&format!("exec @c ping -c 1 -w 5 {gateway}")).ok();
}

fn a_port_answers_everywhere(s: &Session) {
    let port = s.port();
    s.d(&format!("run -d --name @c -p {port}:80 @web")).ok();
    assert!(
        s.get(Ipv4Addr::LOCALHOST, port, "/group")
            .starts_with("root:")
    );
    assert!(s.get(s.engine.address, port, "/group").starts_with("root:"));
    assert!(s.get_from_outside(port, "/group").starts_with("root:"));
}

fn a_port_answers_from_containers(s: &Session) {
    let port = s.port();
    s.d(&format!("run -d --name @c -p {port}:80 @web")).ok();
    let gateway = s
        .d("inspect -f '{{.NetworkSettings.Networks.bridge.Gateway}}' @c")
        .ok()
        .text();
    let ask = |address: &str| format!("timeout 5 wget -q -O - http://{address}:{port}/group");
    s.d(&format!("run --rm @bb {}", ask(&gateway)))
        .ok()
        .shows("root:");
    if !s.engine.is_reference() {
        // The reference leaves a container that asks for its own published port without an answer on some machines.
        s.d(&format!("exec @c {}", ask(&gateway)))
            .ok()
            .shows("root:");
    }
    s.d(&format!(
        "run --rm @bb {}",
        ask(&s.engine.address.to_string())
    ))
    .ok()
    .shows("root:");
}

fn ipv6_loopback_answers(s: &Session) {
    let port = s.port();
    s.d(&format!("run -d --name @c -p {port}:80 @web")).ok();
    assert!(
        s.get(Ipv6Addr::LOCALHOST, port, "/group")
            .starts_with("root:")
    );
    let other = s.port();
    s.d(&format!("run -d --name @d -p '[::1]:{other}:80' @web"))
        .ok();
    assert!(
        s.get(Ipv6Addr::LOCALHOST, other, "/group")
            .starts_with("root:")
    );
    s.d("port @d").prints(&format!("80/tcp -> [::1]:{other}\n"));
}

fn a_free_port_is_chosen(s: &Session) {
    s.d("run -d --name @c -p 80 @web").ok();
    let line = s.d("port @c 80").ok().text();
    let port: u16 = line
        .lines()
        .next()
        .and_then(|line| line.rsplit(':').next())
        .and_then(|text| text.parse().ok())
        .expect("a port");
    assert!(port >= 32768, "{line}");
    assert!(
        s.get(Ipv4Addr::LOCALHOST, port, "/group")
            .starts_with("root:")
    );
}

fn all_exposed_ports_are_published(s: &Session) {
    s.d("run -d --name @c -P @web").ok();
    s.d("port @c").such_that("80 and 81", |text| {
        text.contains("80/tcp -> 0.0.0.0:") && text.contains("81/tcp -> 0.0.0.0:")
    });
    let port: u16 = s
        .d("inspect -f '{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}' @c")
        .ok()
        .text()
        .parse()
        .expect("a port");
    assert!(
        s.get(Ipv4Addr::LOCALHOST, port, "/group")
            .starts_with("root:")
    );
}

fn port_ranges(s: &Session) {
    let first = s.ports(3);
    s.d(&format!(
        "run -d --name @c -p {first}-{}:80-82 @web 81",
        first + 2
    ))
    .ok();
    assert!(
        s.get(Ipv4Addr::LOCALHOST, first + 1, "/group")
            .starts_with("root:")
    );
    s.d("port @c 82")
        .ok()
        .shows(&format!("0.0.0.0:{}\n", first + 2));
    s.d("run --rm -p 8000-8001:80-82 @bb true")
        .exits(125)
        .warns("invalid ranges specified for container and host Ports: 80-82 and 8000-8001");
}

fn udp_echo(s: &Session, address: IpAddr, port: u16) -> bool {
    let ask = || {
        let any: IpAddr = if address.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((any, 0)).expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .expect("a timeout");
        let mut buffer = [0; 16];
        socket.send_to(b"ping\n", (address, port)).is_ok()
            && socket
                .recv(&mut buffer)
                .is_ok_and(|count| &buffer[..count] == b"ping\n")
    };
    if address == s.engine.address {
        s.engine.outside.within(ask)
    } else {
        s.engine.on_host(ask)
    }
}

const UDP_ECHO: &str = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind((\"0.0.0.0\", 5000))\nwhile True:\n    d, a = s.recvfrom(99)\n    s.sendto(d, a)\n";

fn udp_ports(s: &Session) {
    let port = s.port();
    s.file("echo.py", UDP_ECHO);
    s.d(&format!(
        "run -d --name @c -v @dir:/m -p {port}:5000/udp @deb python3 /m/echo.py"
    ))
    .ok();
    s.d("port @c").prints(&format!(
        "5000/udp -> 0.0.0.0:{port}\n5000/udp -> [::]:{port}\n"
    ));
    eventually("an answer from outside", || {
        udp_echo(s, s.engine.address, port)
    });
    eventually("an answer on loopback", || {
        udp_echo(s, Ipv4Addr::LOCALHOST.into(), port)
    });
}

fn one_port_number_for_tcp_and_udp(s: &Session) {
    let port = s.port();
    s.d(&format!("run -d --name @c -p {port}:80 @web")).ok();
    s.file("echo.py", UDP_ECHO);
    s.d(&format!(
        "run -d --name @d -v @dir:/m -p {port}:5000/udp @deb python3 /m/echo.py"
    ))
    .ok();
    assert!(
        s.get(Ipv4Addr::LOCALHOST, port, "/group")
            .starts_with("root:")
    );
    eventually("an answer", || udp_echo(s, s.engine.address, port));
}

fn a_port_in_use_is_named(s: &Session) {
    let port = s.port();
    s.d(&format!("run -d --name @c -p {port}:80 @web")).ok();
    s.d(&format!("run -d --name @d -p {port}:80 @web"))
        .exits(125)
        // Docker tries the addresses of both families, now the one and now the other first.
        .warns("Bind for ")
        .warns(&format!(":{port} failed: port is already allocated"));
    s.d("inspect -f '{{.State.Status}}' @d").prints("created\n");
    s.d("rm -f @c").ok();
    s.d("start @d").prints("@d\n");
    assert!(
        s.get(Ipv4Addr::LOCALHOST, port, "/group")
            .starts_with("root:")
    );
}

fn a_port_of_the_host_in_use_is_named(s: &Session) {
    let port = s.port();
    let listener = s.engine.on_host(|| {
        std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a listener")
    });
    s.d(&format!("run -d --name @c -p {port}:80 @web"))
        .exits(125)
        .warns(&format!("failed to bind host port for 0.0.0.0:{port}:"))
        .warns("address already in use");
    drop(listener);
    s.d("start @c").ok();
}

fn a_port_is_free_again_after_the_end(s: &Session) {
    let port = s.port();
    for number in 0..3 {
        s.d(&format!("run --rm --name @c{number} -p {port}:80 @bb true"))
            .ok();
    }
    let bound = s
        .engine
        .on_host(|| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok());
    assert!(bound, "port {port} is still held");
}

fn ports_come_back_with_a_restart(s: &Session) {
    let port = s.port();
    s.d(&format!("run -d --name @c -p {port}:80 @web")).ok();
    s.d("restart -t 0 @c").ok();
    assert!(
        s.get(Ipv4Addr::LOCALHOST, port, "/group")
            .starts_with("root:")
    );
    s.d("stop -t 0 @c").ok();
    s.d("port @c").prints("");
    s.d("start @c").ok();
    assert!(s.get_from_outside(port, "/group").starts_with("root:"));
}

fn the_source_address_is_seen_from_outside(s: &Session) {
    let port = s.port();
    s.d(&format!("run -d --name @c -p {port}:80 @web")).ok();
    s.get_from_outside(port, "/group");
    let outside = if s.engine.is_reference() {
        "10.231.78.2"
    } else {
        "10.231.77.2"
    };
    s.until_logged("@c", &format!("{outside}]:"));
}

fn the_network_of_another_container(s: &Session) {
    s.d("run -d --name @c @web").ok();
    s.d("run --rm --network container:@c @bb wget -q -O - http://127.0.0.1/group")
        .ok()
        .shows("root:");
    let name = s.d("exec @c hostname").ok().stdout;
    s.d("run --rm --network container:@c @bb hostname")
        .prints(&name);
    s.d("run --rm --network container:@none @bb true")
        .exits(125)
        .warns("No such container: @none");
    s.d("run --rm --network container:@c -p 80:80 @bb true")
        .exits(125)
        .warns("conflicting options: port publishing and the container type network mode");
}

fn hosts_file_and_extra_hosts(s: &Session) {
    s.d("run --rm --add-host db:10.1.2.3 --add-host six:fd00::1 --add-host self:host-gateway --hostname me @bb cat /etc/hosts")
        .ok()
        .shows("127.0.0.1\tlocalhost\n")
        .shows("10.1.2.3\tdb\n")
        .shows("fd00::1\tsix\n")
        .shows("\tself\n")
        .shows("\tme\n");
    s.d("run --rm --add-host bad @bb true")
        .exits(125)
        .warns("bad format for add-host: \"bad\"");
}

fn resolver_file_options(s: &Session) {
    s.d("run --rm --dns 9.9.9.9 --dns-search example.test --dns-option ndots:3 @bb grep -v -E '^(#|$)' /etc/resolv.conf")
        .prints("nameserver 9.9.9.9\nsearch example.test\noptions ndots:3\n");
    s.d("run --rm --dns nonsense @bb true").exits(125).warns("invalid argument \"nonsense\" for \"--dns\" flag: IP address is not correctly formatted: nonsense");
}

fn mac_address_is_set(s: &Session) {
    s.d("run --rm --mac-address 02:42:ac:11:00:99 @bb cat /sys/class/net/eth0/address")
        .prints("02:42:ac:11:00:99\n");
    s.d("run --rm --mac-address zz @bb true")
        .exits(125)
        .warns("zz is not a valid mac address");
}

fn bridge_is_listed_and_inspected(s: &Session) {
    s.d("network ls --format '{{.Name}} {{.Driver}} {{.Scope}}'")
        .ok()
        .shows("bridge bridge local\n")
        .shows("host host local\n")
        .shows("none null local\n");
    s.d("network inspect bridge -f '{{.Name}} {{.Driver}} {{.Internal}} {{.IPAM.Driver}} {{len .IPAM.Config}}'").prints("bridge bridge false default 1\n");
    s.d("network inspect nosuch")
        .exits(1)
        .warns("Error response from daemon: network nosuch not found");
}

fn conflicting_network_options(s: &Session) {
    s.d("run --rm --network host --hostname x @bb hostname")
        .prints("x\n");
    s.d("run --rm --network nosuchnetwork @bb true")
        .exits(125)
        .warns("network nosuchnetwork not found");
    s.d("run --rm --ip 172.17.0.99 @bb true").exits(125);
}

fn a_container_reaches_the_outside(s: &Session) {
    let listener = s
        .engine
        .outside
        .within(|| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a listener"));
    let port = listener.local_addr().expect("an address").port();
    let target = if s.engine.is_reference() {
        "10.231.78.2"
    } else {
        "10.231.77.2"
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            listener
                .set_nonblocking(true)
                .expect("a listener that does not wait");
            let (mut stream, peer) =
                eventually_within(Duration::from_secs(15), "the container connects", || {
                    listener.accept().ok()
                });
            stream.set_nonblocking(false).expect("a stream that waits");
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text);
            (text, peer.ip())
        });
        s.d(&format!(
            "run --rm @bb sh -c 'echo hello | nc -w 3 {target} {port}'"
        ))
        .ok();
        let (text, peer) = thread.join().expect("a thread");
        assert_eq!(text, "hello\n");
        assert_eq!(
            peer, s.engine.address,
            "the container's address is masked by the host's"
        );
    });
}

fn unpublished_ports_are_closed_to_the_outside(s: &Session) {
    let port = s.port();
    s.d(&format!("run -d --name @c -p {port}:80 @web")).ok();
    assert!(s.get_from_outside(port, "/group").starts_with("root:"));
    let address: IpAddr = s
        .d("inspect -f '{{.NetworkSettings.Networks.bridge.IPAddress}}' @c")
        .ok()
        .text()
        .parse()
        .expect("an address");
    let reached = s.engine.outside.within(|| {
        TcpStream::connect_timeout(&(address, 80).into(), Duration::from_secs(1)).is_ok()
    });
    assert!(
        !reached,
        "the container's own address answered another machine"
    );
}

fn ports_are_shown_by_ps(s: &Session) {
    let first = s.ports(2);
    s.d(&format!(
        "run -d --name @c -p {first}-{}:80-81 -p 127.0.0.1::5353/udp @web",
        first + 1
    ))
    .ok();
    s.d("ps --filter name=@c --format '{{.Ports}}'")
        .ok()
        .such_that("every address is told", |text| {
            text.starts_with(&format!(
                "0.0.0.0:{first}->80/tcp, [::]:{first}->80/tcp, 0.0.0.0:{}->81/tcp, ",
                first + 1
            )) && text.contains("->5353/udp")
        });
}

fn exposed_ports_are_shown(s: &Session) {
    s.d("run -d --name @c --expose 9000-9001 --expose 53/udp @bb sleep 1000")
        .ok();
    s.d("ps --filter name=@c --format '{{.Ports}}'")
        .prints("53/udp, 9000-9001/tcp\n");
    s.d("inspect -f '{{json .NetworkSettings.Ports}}' @c")
        .prints("{\"53/udp\":null,\"9000/tcp\":null,\"9001/tcp\":null}\n");
}

fn a_port_that_is_asked_for_twice(s: &Session) {
    let (port, other) = (s.port(), s.port());
    let fails = |flags: &str, why: &str| {
        let end = format!("): {why}\n\nRun 'docker run --help' for more information\n");
        let text = s.d(&format!("run --rm {flags} @bb true")).exits(125).stderr;
        assert!(text.ends_with(&end), "{flags}: {text}");
    };
    let listen = "failed to listen on TCP socket: address already in use";
    for flags in [
        format!("-p {port}:80 -p {port}:80"),
        format!("-p 127.0.0.1:{port}:80 -p {port}:80"),
        format!("-p {port}:80 -p {other}:80 -p {port}:80"),
        format!("-p [::1]:{port}:80 -p [::1]:{port}:80"),
    ] {
        fails(&flags, listen);
    }
    // Docker names either family's address, whichever comes first.
    let flags = format!("-p 0.0.0.0:{port}:80 -p 0.0.0.0:{port}:81");
    fails(
        &flags,
        &format!("Bind for 0.0.0.0:{port} failed: port is already allocated"),
    );
    for flags in [
        format!("-p {port}:80 -p {other}:80"),
        format!("-p {port}:80 -p {port}:80/udp"),
        format!("-p {port}:80/udp -p {port}:80/udp"),
        format!("-p 127.0.0.1:{port}:80/udp -p 127.0.0.1:{port}:80/udp"),
        format!("-p 127.0.0.1:{port}:80 -p 127.0.0.2:{port}:80 -p [::1]:{port}:80"),
    ] {
        s.d(&format!("run --rm {flags} @bb true")).ok();
    }
}

fn a_udp_port_at_all_addresses_and_at_one(s: &Session) {
    let port = s.port();
    s.file("echo.py", UDP_ECHO);
    s.d(&format!(
        "run -d --name @twice -p {port}:53/udp -p {port}:53/udp @bb sleep 1000"
    ))
    .ok();
    let ports = "inspect -f '{{json .NetworkSettings.Ports}}'";
    let shown = |addresses: &[&str]| {
        let all = addresses
            .iter()
            .map(|address| format!("{{\"HostIp\":\"{address}\",\"HostPort\":\"{port}\"}}"));
        all.collect::<Vec<_>>().join(",")
    };
    s.d(&format!("{ports} @twice")).prints(&format!(
        "{{\"53/udp\":[{}]}}\n",
        shown(&["0.0.0.0", "::", "0.0.0.0", "::"])
    ));
    s.d("rm -f @twice").ok();
    s.d(&format!(
        "run -d --name @c -v @dir:/m -p {port}:5000/udp -p 127.0.0.1:{port}:5000/udp @deb python3 /m/echo.py"
    ))
    .ok();
    s.d(&format!("{ports} @c")).prints(&format!(
        "{{\"5000/udp\":[{}]}}\n",
        shown(&["0.0.0.0", "::", "127.0.0.1"])
    ));
    for address in [s.engine.address, Ipv4Addr::LOCALHOST.into()] {
        eventually("an answer", || udp_echo(s, address, port));
    }
    // Another port of the container, or another container, has to go elsewhere.
    let allocated = format!("Bind for 127.0.0.1:{port} failed: port is already allocated");
    for flags in [
        format!("-p 127.0.0.1:{port}:5000/udp"),
        format!("-p 127.0.0.1:{port}:53/udp"),
    ] {
        let refused = s.d(&format!("run --rm {flags} @bb true")).exits(125).stderr;
        assert!(refused.contains(&allocated), "{refused}");
    }
    s.d("restart -t 0 @c").ok();
    eventually("an answer", || udp_echo(s, s.engine.address, port));
    s.d("rm -f @c").ok();
    let flags = format!("-p 127.0.0.1:{port}:53/udp -p {port}:54/udp");
    let refused = s.d(&format!("run --rm {flags} @bb true")).exits(125).stderr;
    assert!(refused.contains(&allocated), "{refused}");
    s.d(&format!("run --rm -p {port}:53/udp @bb true")).ok();
}

fn a_protocol_that_the_kernel_has_not(s: &Session) {
    if std::fs::read_to_string("/proc/net/protocols").is_ok_and(|text| text.contains("SCTP")) {
        println!("skipped: the kernel has SCTP");
        return;
    }
    let port = s.port();
    for (flag, address) in [
        (format!("{port}:80/sctp"), format!("0.0.0.0:{port}")),
        (
            format!("127.0.0.1:{port}:80/sctp"),
            format!("127.0.0.1:{port}"),
        ),
    ] {
        let refused = s
            .d(&format!("run --rm -p {flag} @bb true"))
            .exits(125)
            .stderr;
        let end = format!(
            "error starting userland proxy: failed to listen on {address}: protocol not supported\n\nRun 'docker run --help' for more information\n"
        );
        assert!(refused.ends_with(&end), "{refused}");
    }
    s.d(&format!("run --rm -p {port}:80 @bb true")).ok();
}
