//! Bridges, addresses, published ports and the firewall against the real kernel.
//!
//! Each test moves its own thread into a new network namespace, which plays the host, so the machine's own network is
//! never touched. Needs root.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gantry_network::{
    BridgeConfig, Endpoint, EndpointRequest, Error, Netns, PortMapping, PortRange, PortReserver,
    Protocol, PublishedPort, Reservation, ReserveError, Stack, StackConfig, loopback_up,
};
use gantry_sys::net;
use gantry_sys::netlink::{Batch, Family, Socket, route};

/// Holds ports by plain sockets; netd's own tests are in its crate.
#[derive(Default)]
struct Sockets(Mutex<HashMap<String, Vec<OwnedFd>>>, Mutex<Vec<String>>);

impl PortReserver for Sockets {
    fn reserve(&self, owner: &str, reservations: &[Reservation]) -> Result<(), ReserveError> {
        let mut sockets = Vec::new();
        for reservation in reservations {
            let address = SocketAddr::new(reservation.address, reservation.port);
            let transport = match reservation.protocol {
                Protocol::Udp => net::Transport::Udp,
                _ => net::Transport::Tcp,
            };
            let bound = net::socket(reservation.address, transport, false).and_then(|socket| {
                net::bind(socket.as_fd(), address)?;
                if transport == net::Transport::Tcp {
                    net::listen(socket.as_fd(), 1)?;
                }
                Ok(socket)
            });
            sockets.push(bound.map_err(|error| match error.raw_os_error() {
                Some(libc::EADDRINUSE) => ReserveError::InUse {
                    address: reservation.address,
                    port: reservation.port,
                    protocol: reservation.protocol,
                },
                _ => ReserveError::Refused {
                    address: reservation.address,
                    port: reservation.port,
                    protocol: reservation.protocol,
                    source: error,
                },
            })?);
        }
        self.0
            .lock()
            .unwrap()
            .entry(owner.to_owned())
            .or_default()
            .extend(sockets);
        Ok(())
    }

    fn release(&self, owner: &str) -> Result<(), ReserveError> {
        self.0.lock().unwrap().remove(owner);
        Ok(())
    }

    fn owners(&self) -> Result<Vec<String>, ReserveError> {
        Ok(self.0.lock().unwrap().keys().cloned().collect())
    }

    fn guard(&self, table: &str, interfaces: &[String]) -> Result<(), ReserveError> {
        let mut guards = self.1.lock().unwrap();
        guards.push(format!("{table} {}", interfaces.join(" ")));
        Ok(())
    }
}

/// The namespace that plays the host, and one beyond it that plays the network it is on.
struct Host {
    exec_root: tempfile::TempDir,
    outside: Netns,
    reserver: Arc<Sockets>,
    warnings: Arc<Mutex<Vec<String>>>,
}

const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const LAN_MTU: u32 = 1400;

impl Host {
    fn new() -> Self {
        net::unshare_net().expect("these tests need root");
        // A new namespace may inherit the machine's setting.
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let rtnl = Socket::open(Family::Route).unwrap();
        let mut batch = Batch::new();
        route::set_up(&mut batch, 1);
        route::add_bridge(&mut batch, "lan0", LAN_MTU, [2, 0, 0, 0, 0, 1]);
        rtnl.execute(&mut batch).unwrap();
        let lan = route::link_by_name(&rtnl, "lan0").unwrap().unwrap().index;
        let outside = Netns::create().unwrap();
        let mut batch = Batch::new();
        route::add_address(&mut batch, lan, HOST, 24);
        route::add_veth(
            &mut batch,
            &route::VethPair {
                host_name: "lan1",
                bridge: lan,
                mtu: LAN_MTU,
                peer_name: "eth0",
                peer_address: [2, 0, 0, 0, 0, 2],
                peer_netns: outside.fd.as_fd(),
            },
        );
        route::set_up_by_name(&mut batch, "lan1");
        route::add_default_route(&mut batch, lan, OUTSIDE);
        rtnl.execute(&mut batch).unwrap();
        let inside = Socket::from(outside.rtnl.try_clone().unwrap());
        let eth0 = route::link_by_name(&inside, "eth0").unwrap().unwrap().index;
        let mut batch = Batch::new();
        route::set_up(&mut batch, 1);
        route::add_address(&mut batch, eth0, OUTSIDE, 24);
        route::set_up(&mut batch, eth0);
        // As an attacker on the same wire would: towards the containers by way of the host.
        route::add_default_route(&mut batch, eth0, HOST);
        inside.execute(&mut batch).unwrap();
        let host = Self {
            exec_root: tempfile::tempdir().unwrap(),
            outside,
            reserver: Arc::default(),
            warnings: Arc::default(),
        };
        eventually("the wire works", || {
            enter(&host.outside, || {
                let refused =
                    TcpStream::connect_timeout(&(HOST, 9).into(), Duration::from_millis(50));
                refused.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
            })
        });
        host
    }

    fn config(&self, engine_id: &str) -> StackConfig {
        let warnings = Arc::clone(&self.warnings);
        StackConfig {
            engine_id: engine_id.to_owned(),
            exec_root: self.exec_root.path().join(engine_id),
            bridge: Some(BridgeConfig::default_bridge("b".repeat(64))),
            address_pools: Vec::new(),
            firewall: true,
            ip_forward: true,
            ip_forward_no_drop: false,
            watch: false,
            reserver: Arc::clone(&self.reserver) as Arc<dyn PortReserver>,
            warn: Arc::new(move |text| warnings.lock().unwrap().push(text.to_owned())),
        }
    }

    fn open(&self, engine_id: &str) -> Stack {
        Stack::open(self.config(engine_id), &[], &[]).unwrap()
    }
}

/// A container without processes: its namespace and its place on the network.
struct Container {
    netns: Netns,
    endpoint: Endpoint,
    ports: Vec<PublishedPort>,
}

fn start(stack: &Stack, name: &str, mappings: &[PortMapping]) -> Container {
    let endpoint = stack
        .allocate(&EndpointRequest {
            container_id: name.to_owned(),
            ..EndpointRequest::default()
        })
        .unwrap();
    let netns = Netns::create().unwrap();
    stack.connect(&endpoint, &netns).unwrap();
    let ports = stack.reserve_ports(&endpoint, mappings).unwrap();
    stack.publish(&endpoint, &ports).unwrap();
    Container {
        netns,
        endpoint,
        ports,
    }
}

fn mapping(
    ip: Option<&str>,
    host_port: u16,
    container_port: u16,
    protocol: Protocol,
) -> PortMapping {
    PortMapping {
        ip: ip.map(|ip| ip.parse().unwrap()),
        host_port: (host_port != 0).then(|| PortRange::single(host_port)),
        container_port,
        protocol,
    }
}

/// Runs in a namespace, on a thread of its own.
fn enter<T: Send>(netns: &Netns, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                net::setns_net(netns.fd.as_fd()).unwrap();
                work()
            })
            .join()
            .unwrap()
    })
}

/// Serves TCP in a namespace: answers each connection with `name` and the client's address.
fn serve_tcp(netns: &Netns, port: u16, name: &'static str) {
    let listener = enter(netns, || TcpListener::bind(("0.0.0.0", port)).unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let from = stream.peer_addr().unwrap().ip();
            let _ = write!(stream, "{name} {from}");
        }
    });
}

fn serve_udp(netns: &Netns, port: u16, name: &'static str) {
    let socket = enter(netns, || UdpSocket::bind(("0.0.0.0", port)).unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{name} {}", from.ip()).as_bytes(), from);
        }
    });
}

/// Asks by TCP; `None` where nobody answers.
fn ask(address: impl Into<IpAddr>, port: u16) -> Option<String> {
    let address = SocketAddr::new(address.into(), port);
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(700)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_millis(700)))
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

fn ask_udp(socket: &UdpSocket, address: impl Into<IpAddr>, port: u16) -> Option<String> {
    socket
        .set_read_timeout(Some(Duration::from_millis(700)))
        .unwrap();
    socket
        .send_to(b"hello", SocketAddr::new(address.into(), port))
        .ok()?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

#[track_caller]
fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft")
        .args(arguments)
        .output()
        .expect("the nft program");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn sysctl(path: &str) -> String {
    fs::read_to_string(Path::new("/proc/sys/net/ipv4").join(path))
        .unwrap()
        .trim()
        .to_owned()
}

fn links() -> Vec<String> {
    let rtnl = Socket::open(Family::Route).unwrap();
    route::links(&rtnl)
        .unwrap()
        .into_iter()
        .map(|link| link.name)
        .collect()
}

#[test]
fn a_container_has_its_interfaces_and_reaches_the_world() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaaa1");
    let bridge = stack.bridge().unwrap();
    assert_eq!(bridge.interface, "docker0");
    assert_eq!(bridge.mtu, LAN_MTU);
    assert_eq!(bridge.subnet.to_string(), "172.17.0.0/16");
    assert_eq!(sysctl("ip_forward"), "1");
    let container = start(&stack, "c1", &[]);
    assert_eq!(container.endpoint.ipv4, Ipv4Addr::new(172, 17, 0, 2));
    let inside = Socket::from(container.netns.rtnl.try_clone().unwrap());
    let eth0 = route::link_by_name(&inside, "eth0").unwrap().unwrap();
    assert!(eth0.up);
    assert_eq!(eth0.mtu, LAN_MTU);
    assert_eq!(eth0.address, Some(container.endpoint.mac.0));
    assert!(route::link_by_name(&inside, "lo").unwrap().unwrap().up);
    let rtnl = Socket::open(Family::Route).unwrap();
    let veth = route::link_by_name(&rtnl, &container.endpoint.host_interface)
        .unwrap()
        .unwrap();
    assert_eq!(veth.alias.as_deref(), Some("gantry:aaaaaaaaaaaa:c1"));
    // The very first packet arrives, and with the host's address as its source.
    serve_tcp(&host.outside, 7000, "world");
    let before = Instant::now();
    let answer = enter(&container.netns, || ask(OUTSIDE, 7000));
    assert_eq!(answer.as_deref(), Some("world 10.9.0.1"));
    assert!(
        before.elapsed() < Duration::from_millis(500),
        "{:?}",
        before.elapsed()
    );
    // The container has ::1 and no other IPv6 address.
    let ipv6 = enter(&container.netns, || {
        fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap()
    });
    assert_eq!(ipv6.lines().count(), 1, "{ipv6}");
    assert!(ipv6.contains(" lo"), "{ipv6}");
    let none = Netns::create().unwrap();
    loopback_up(&none).unwrap();
    let inside = Socket::from(none.rtnl.try_clone().unwrap());
    assert!(route::link_by_name(&inside, "lo").unwrap().unwrap().up);
}

#[test]
fn a_published_port_answers_from_everywhere() {
    published_ports_answer("1");
}

#[test]
fn a_published_port_answers_from_everywhere_without_br_netfilter() {
    published_ports_answer("0");
}

fn published_ports_answer(br_netfilter: &str) {
    let host = Host::new();
    match fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", br_netfilter) {
        // Without the module it is off anyway.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        written => written.unwrap(),
    }
    let stack = host.open("aaaaaaaaaaaa2");
    let web = start(
        &stack,
        "web",
        &[
            mapping(None, 8080, 80, Protocol::Tcp),
            mapping(Some("127.0.0.1"), 8081, 80, Protocol::Tcp),
            mapping(None, 8082, 80, Protocol::Udp),
        ],
    );
    assert_eq!(web.ports.len(), 5);
    serve_tcp(&web.netns, 80, "web");
    serve_udp(&web.netns, 80, "web");
    serve_tcp(&web.netns, 81, "hidden");
    let other = start(&stack, "other", &[]);
    serve_tcp(&other.netns, 80, "other");
    let gateway = stack.bridge().unwrap().gateway;

    // From outside: with the client's own address, and nothing but what is published.
    let outside = |address: Ipv4Addr, port| enter(&host.outside, || ask(address, port));
    assert_eq!(outside(HOST, 8080).as_deref(), Some("web 10.9.0.2"));
    assert_eq!(outside(HOST, 8081), None, "published on the loopback alone");
    assert_eq!(outside(web.endpoint.ipv4, 81), None, "not published");
    assert_eq!(
        outside(web.endpoint.ipv4, 80),
        None,
        "by the container's address"
    );
    assert_eq!(outside(other.endpoint.ipv4, 80), None, "no port published");
    let udp =
        |address: Ipv4Addr, port| ask_udp(&UdpSocket::bind("0.0.0.0:0").unwrap(), address, port);
    assert_eq!(
        enter(&host.outside, || udp(HOST, 8082)).as_deref(),
        Some("web 10.9.0.2")
    );

    // From the host: by its addresses and its loopback.
    assert_eq!(ask(HOST, 8080).as_deref(), Some("web 10.9.0.1"));
    assert_eq!(ask(gateway, 8080).as_deref(), Some("web 172.17.0.1"));
    assert_eq!(
        ask(Ipv4Addr::LOCALHOST, 8080).as_deref(),
        Some("web 172.17.0.1")
    );
    assert_eq!(
        ask(Ipv4Addr::LOCALHOST, 8081).as_deref(),
        Some("web 172.17.0.1")
    );
    assert_eq!(
        udp(Ipv4Addr::LOCALHOST, 8082).as_deref(),
        Some("web 172.17.0.1")
    );
    assert_eq!(
        ask(web.endpoint.ipv4, 81).as_deref(),
        Some("hidden 172.17.0.1")
    );

    // From another container and from the container itself.
    assert_eq!(
        enter(&other.netns, || ask(HOST, 8080)).as_deref(),
        Some("web 172.17.0.1")
    );
    assert_eq!(
        enter(&web.netns, || ask(HOST, 8080)).as_deref(),
        Some("web 172.17.0.1")
    );
    assert_eq!(
        enter(&web.netns, || ask(gateway, 8080)).as_deref(),
        Some("web 172.17.0.1")
    );
    assert_eq!(
        enter(&other.netns, || udp(HOST, 8082)).as_deref(),
        Some("web 172.17.0.1")
    );
    assert_eq!(
        enter(&other.netns, || ask(web.endpoint.ipv4, 81)).as_deref(),
        Some("hidden 172.17.0.3")
    );

    // Nobody reaches the host's loopback, although the bridge routes loopback addresses (CVE-2020-8558).
    assert_eq!(sysctl("conf/docker0/route_localnet"), "1");
    let secret = TcpListener::bind("127.0.0.1:9999").unwrap();
    secret.set_nonblocking(true).unwrap();
    let attack = |netns: &Netns| {
        enter(netns, || {
            fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
            let output = Command::new("ip")
                .args([
                    "route",
                    "replace",
                    "127.0.0.1",
                    "via",
                    "172.17.0.1",
                    "dev",
                    "eth0",
                    "table",
                    "99",
                ])
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            for arguments in [
                &[
                    "rule",
                    "add",
                    "pref",
                    "1",
                    "to",
                    "127.0.0.1",
                    "lookup",
                    "99",
                ][..],
                &["rule", "add", "pref", "9", "lookup", "local"],
                &["rule", "del", "pref", "0"],
            ] {
                assert!(
                    Command::new("ip")
                        .args(arguments)
                        .status()
                        .unwrap()
                        .success()
                );
            }
            ask(Ipv4Addr::LOCALHOST, 9999)
        })
    };
    assert_eq!(attack(&other.netns), None);
    assert!(
        secret.accept().is_err(),
        "a container reached the host's loopback"
    );

    assert_eq!(
        *host.reserver.1.lock().unwrap(),
        ["gantry-aaaaaaaaaaaa docker0"]
    );
    stack.release(&web.endpoint, &web.ports).unwrap();
    assert_eq!(outside(HOST, 8080), None);
    assert_eq!(ask(Ipv4Addr::LOCALHOST, 8080), None);
    assert_eq!(
        host.reserver.1.lock().unwrap()[1..],
        ["gantry-aaaaaaaaaaaa "]
    );
    assert_eq!(sysctl("conf/docker0/route_localnet"), "0");
}

#[test]
fn the_kernels_table_is_the_golden_one() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaaa3");
    let _web = start(
        &stack,
        "web",
        &[
            mapping(None, 8080, 80, Protocol::Tcp),
            mapping(Some("127.0.0.1"), 5353, 53, Protocol::Udp),
        ],
    );
    let normal = |text: &str| {
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| line.replace("counter packets 0 bytes 0", "counter"))
            // Newer nft programs know the priority's name in this hook too.
            .map(|line| line.replace("output priority dstnat;", "output priority -100;"))
            .collect::<Vec<_>>()
    };
    let kernel = nft(&["list", "table", "inet", "gantry-aaaaaaaaaaaa"]);
    assert_eq!(normal(&kernel), normal(&stack.ruleset_text()));
}

#[test]
fn ports_in_use_are_told_as_docker_tells_them() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaaa4");
    let web = start(&stack, "web", &[mapping(None, 8080, 80, Protocol::Tcp)]);
    let endpoint = stack
        .allocate(&EndpointRequest {
            container_id: "late".to_owned(),
            ..EndpointRequest::default()
        })
        .unwrap();
    let reserve = |mapping| {
        stack
            .reserve_ports(&endpoint, &[mapping])
            .map_err(|error| error.to_string())
    };
    assert_eq!(
        reserve(mapping(Some("127.0.0.1"), 8080, 80, Protocol::Tcp)).unwrap_err(),
        "Bind for 0.0.0.0:8080 failed: port is already allocated"
    );
    assert_eq!(
        reserve(mapping(Some("::1"), 8080, 80, Protocol::Tcp)).unwrap_err(),
        "Bind for :::8080 failed: port is already allocated"
    );
    let taken = TcpListener::bind("0.0.0.0:8090").unwrap();
    assert_eq!(
        reserve(mapping(None, 8090, 80, Protocol::Tcp)).unwrap_err(),
        "failed to bind host port for 0.0.0.0:8090:172.17.0.3:80/tcp: address already in use"
    );
    // A range goes on to the next one, and runs out.
    let range = PortMapping {
        host_port: Some(PortRange {
            first: 8090,
            last: 8091,
        }),
        ..mapping(None, 0, 80, Protocol::Tcp)
    };
    let found = reserve(range).unwrap();
    assert_eq!(found[0].host_port, 8091);
    assert_eq!(reserve(range).unwrap_err(), "all ports are allocated");
    // What failed holds nothing.
    drop(taken);
    assert!(TcpListener::bind("0.0.0.0:8090").is_ok());
    // Dynamic ports go on and do not come back at once.
    let dynamic = mapping(None, 0, 80, Protocol::Tcp);
    let (one, two) = (reserve(dynamic).unwrap(), reserve(dynamic).unwrap());
    assert_eq!(one[0].host_port + 1, two[0].host_port);
    assert_eq!(
        one[0].host_port, one[1].host_port,
        "one port for both families"
    );
    // Two mappings that contradict each other take nothing.
    let twice = [
        mapping(None, 8100, 80, Protocol::Tcp),
        mapping(None, 8100, 81, Protocol::Tcp),
    ];
    assert!(matches!(
        stack.reserve_ports(&web.endpoint, &twice),
        Err(Error::PortAllocated { port: 8100, .. })
    ));
    assert!(TcpListener::bind("0.0.0.0:8100").is_ok());
}

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
fn release_leaves_nothing_and_the_address_is_harmless_at_once() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaaa7");
    let first = start(&stack, "first", &[mapping(None, 8080, 80, Protocol::Tcp)]);
    let neighbour = start(&stack, "neighbour", &[]);
    serve_tcp(&first.netns, 80, "first");
    let address = first.endpoint.ipv4;
    assert_eq!(
        enter(&neighbour.netns, || ask(address, 80)).as_deref(),
        Some("first 172.17.0.3")
    );
    // The namespace lives on, as it does while somebody else is joined to it.
    stack.release(&first.endpoint, &first.ports).unwrap();
    let second = start(&stack, "second", &[]);
    assert_eq!(
        second.endpoint.ipv4, address,
        "the lowest free address is given again"
    );
    assert!(second.endpoint.address_reused);
    assert_ne!(second.endpoint.mac, first.endpoint.mac);
    serve_tcp(&second.netns, 80, "second");
    // Both the neighbour, which remembers the old hardware address, and the host get the new one.
    assert_eq!(
        enter(&neighbour.netns, || ask(address, 80)).as_deref(),
        Some("second 172.17.0.3")
    );
    assert_eq!(ask(address, 80).as_deref(), Some("second 172.17.0.1"));
    eventually("the old interface is deleted", || {
        !links().contains(&first.endpoint.host_interface)
    });
    assert!(links().contains(&second.endpoint.host_interface));
    for container in [&second, &neighbour] {
        stack
            .release(&container.endpoint, &container.ports)
            .unwrap();
    }
    let names = [
        second.endpoint.host_interface.clone(),
        neighbour.endpoint.host_interface.clone(),
    ];
    drop((second, neighbour));
    eventually("the namespaces took their interfaces along", || {
        !links().iter().any(|link| names.contains(link))
    });
    assert!(!nft(&["list", "ruleset"]).contains("elements = { tcp"));
    assert!(host.reserver.owners().unwrap().is_empty());
    stack.teardown().unwrap();
    assert_eq!(nft(&["list", "ruleset"]), "");
    assert!(!links().contains(&"docker0".to_owned()));
    stack.teardown().unwrap();
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
    assert_eq!(next.ipv4, Ipv4Addr::new(172, 17, 0, 3));
    assert!(matches!(
        stack.reserve_ports(&next, &[mapping(None, 8080, 1, Protocol::Tcp)]),
        Err(Error::PortAllocated { port: 8080, .. })
    ));
}

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
    assert_ne!(one.bridge().unwrap().subnet, two.bridge().unwrap().subnet);
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
    assert_eq!(enter(&first.netns, || ask(second.endpoint.ipv4, 80)), None);
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

#[test]
fn containers_of_a_network_without_icc_do_not_see_each_other() {
    let host = Host::new();
    let mut config = host.config("aaaaaaaaaaab1");
    config.bridge.as_mut().unwrap().icc = false;
    let stack = Stack::open(config, &[], &[]).unwrap();
    let web = start(&stack, "web", &[mapping(None, 8080, 80, Protocol::Tcp)]);
    let other = start(&stack, "other", &[]);
    serve_tcp(&web.netns, 80, "web");
    assert_eq!(enter(&other.netns, || ask(web.endpoint.ipv4, 80)), None);
    // Published ports go through the socket that reserves them: netd's, which here only accepts.
    let connect =
        |port| TcpStream::connect_timeout(&(HOST, port).into(), Duration::from_millis(700)).is_ok();
    assert!(enter(&other.netns, || connect(8080)));
    assert!(!enter(&other.netns, || connect(8081)));
    assert_eq!(
        enter(&host.outside, || ask(HOST, 8080)).as_deref(),
        Some("web 10.9.0.2")
    );
    assert_eq!(
        ask(web.endpoint.ipv4, 80).as_deref(),
        Some("web 172.17.0.1")
    );
}

#[test]
fn user_defined_and_internal_networks_stand_beside_the_default_one() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaab2");
    let mut config = BridgeConfig::default_bridge("c".repeat(64));
    config.interface = "br-cccccccccccc".to_owned();
    config.internal = true;
    let info = stack.create_network(&config).unwrap();
    assert_eq!(info.subnet.to_string(), "172.18.0.0/16");
    assert!(matches!(
        stack.create_network(&config),
        Err(Error::Conflict(_))
    ));
    let inside = stack
        .allocate(&EndpointRequest {
            container_id: "inside".to_owned(),
            network: Some(info.id.clone()),
            ..EndpointRequest::default()
        })
        .unwrap();
    assert_eq!(inside.gateway, None);
    let netns = Netns::create().unwrap();
    stack.connect(&inside, &netns).unwrap();
    let web = start(&stack, "web", &[]);
    serve_tcp(&web.netns, 80, "web");
    serve_tcp(&netns, 80, "inside");
    // Even with a route of its own making the container does not get out, nor anybody in.
    let socket = Socket::from(netns.rtnl.try_clone().unwrap());
    let eth0 = route::link_by_name(&socket, "eth0").unwrap().unwrap().index;
    let mut batch = Batch::new();
    route::add_default_route(&mut batch, eth0, info.gateway);
    socket.execute(&mut batch).unwrap();
    assert_eq!(enter(&netns, || ask(web.endpoint.ipv4, 80)), None);
    assert_eq!(enter(&host.outside, || ask(inside.ipv4, 80)), None);
    assert!(matches!(
        stack.remove_network(&info.id),
        Err(Error::Conflict(_))
    ));
    stack.release(&inside, &[]).unwrap();
    stack.remove_network(&info.id).unwrap();
    stack.remove_network(&info.id).unwrap();
    assert!(!links().contains(&info.interface));
    assert!(!nft(&["list", "ruleset"]).contains("br-cccccccccccc"));
}

#[test]
fn old_udp_flows_follow_a_port_to_its_new_container() {
    let host = Host::new();
    let stack = host.open("aaaaaaaaaaab3");
    let client = enter(&host.outside, || UdpSocket::bind("0.0.0.0:0").unwrap());
    // Before anything is published the flow ends at the host itself.
    assert_eq!(ask_udp(&client, HOST, 8053), None);
    let first = start(&stack, "first", &[mapping(None, 8053, 53, Protocol::Udp)]);
    serve_udp(&first.netns, 53, "first");
    assert_eq!(
        ask_udp(&client, HOST, 8053).as_deref(),
        Some("first 10.9.0.2")
    );
    let _keeps_the_address = start(&stack, "other", &[]);
    stack.release(&first.endpoint, &first.ports).unwrap();
    let _takes_the_address = start(&stack, "third", &[]);
    let second = start(&stack, "second", &[mapping(None, 8053, 53, Protocol::Udp)]);
    serve_udp(&second.netns, 53, "second");
    assert_ne!(first.endpoint.ipv4, second.endpoint.ipv4);
    assert_eq!(
        ask_udp(&client, HOST, 8053).as_deref(),
        Some("second 10.9.0.2")
    );
}

/// Prints what a container's network costs; run with `--ignored --nocapture`.
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
            stack.connect(&endpoint, &netns).unwrap();
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
