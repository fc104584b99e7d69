//! The host, the network around it and containers without processes, all of them network namespaces of the test's own.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gantry_network::{
    BridgeConfig, DefaultRoutes, Endpoint, EndpointRequest, Netns, PortMapping, PortRange,
    PortReserver, Protocol, PublishedPort, Repair, Reservation, ReserveError, Stack, StackConfig,
};
use gantry_sys::net;
use gantry_sys::netlink::{Batch, Family, Socket, route};

/// Holds ports by sockets, and carries to the container what reaches a TCP one, from it to the asker alone: the servers
/// of these tests speak first and last. netd's own tests are in its crate.
#[derive(Default)]
pub struct Sockets(Mutex<HashMap<String, Vec<Held>>>, pub Mutex<Vec<String>>);

/// A port's socket, and the thread that accepts from it.
struct Held(OwnedFd, Option<thread::JoinHandle<()>>);

fn hold(reservation: &Reservation) -> std::io::Result<Held> {
    let mut accepting = None;
    let address = SocketAddr::new(reservation.address, reservation.port);
    let transport = match reservation.protocol {
        Protocol::Udp => net::Transport::Udp,
        _ => net::Transport::Tcp,
    };
    let socket = net::socket(reservation.address, transport, false)?;
    // Connections that were carried before may linger.
    net::set_reuse_address(socket.as_fd(), true)?;
    net::bind(socket.as_fd(), address)?;
    if transport == net::Transport::Tcp {
        net::listen(socket.as_fd(), 16)?;
        let listener = TcpListener::from(socket.try_clone()?);
        listener.set_nonblocking(false)?;
        let target = reservation.target;
        accepting = Some(thread::spawn(move || {
            // Ends when the socket is shut down.
            for mut asker in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || {
                    let wait = Duration::from_millis(950);
                    if let Ok(mut container) = TcpStream::connect_timeout(&target, wait) {
                        let _ = std::io::copy(&mut container, &mut asker);
                    }
                });
            }
        }));
    }
    Ok(Held(socket, accepting))
}

impl PortReserver for Sockets {
    fn reserve(&self, owner: &str, reservations: &[Reservation]) -> Result<(), ReserveError> {
        let mut sockets = Vec::new();
        for reservation in reservations {
            match hold(reservation) {
                Ok(socket) => sockets.push(socket),
                Err(error) => {
                    let in_use = error.raw_os_error() == Some(libc::EADDRINUSE);
                    end(sockets);
                    let Reservation {
                        address,
                        port,
                        protocol,
                        ..
                    } = *reservation;
                    return Err(if in_use {
                        ReserveError::InUse {
                            address,
                            port,
                            protocol,
                        }
                    } else {
                        ReserveError::Refused {
                            address,
                            port,
                            protocol,
                            source: error,
                        }
                    });
                }
            }
        }
        self.0
            .lock()
            .unwrap()
            .entry(owner.to_owned())
            .or_default()
            .extend(sockets);
        Ok(())
    }

    /// Lets go first: that a port is taken all the while is netd's work.
    fn transfer(
        &self,
        from: &str,
        to: &str,
        reservations: &[Reservation],
    ) -> Result<(), ReserveError> {
        self.release(from)?;
        self.reserve(to, reservations)
    }

    fn release(&self, owner: &str) -> Result<(), ReserveError> {
        end(self.0.lock().unwrap().remove(owner).unwrap_or_default());
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

/// Ends the threads that accept, and with them the last descriptors of their sockets.
fn end(sockets: Vec<Held>) {
    for Held(socket, accepting) in sockets {
        // A UDP socket is not connected, which is no matter.
        let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
        if let Some(thread) = accepting {
            thread.join().unwrap();
        }
    }
}

/// The namespace that plays the host, and one beyond it that plays the network it is on.
pub struct Host {
    pub exec_root: tempfile::TempDir,
    pub outside: Netns,
    pub reserver: Arc<Sockets>,
    pub warnings: Arc<Mutex<Vec<String>>>,
    pub repairs: Arc<Mutex<Vec<Repair>>>,
    /// The namespaces of containers that live, by their id.
    pub living: Arc<Mutex<HashMap<String, OwnedFd>>>,
}

pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
pub const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2);
pub const LAN_MTU: u32 = 1400;

impl Host {
    pub fn new() -> Self {
        net::unshare_net().expect("these tests need root");
        // A new namespace may inherit the machine's setting.
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "0").unwrap();
        for which in ["all", "default"] {
            let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
            fs::write(path, "0").unwrap();
        }
        let rtnl = Socket::open(Family::Route).unwrap();
        let mut batch = Batch::new();
        route::set_up(&mut batch, 1);
        route::add_bridge(&mut batch, "lan0", LAN_MTU, [2, 0, 0, 0, 0, 1]);
        rtnl.execute(&mut batch).unwrap();
        let lan = route::link_by_name(&rtnl, "lan0").unwrap().unwrap().index;
        let outside = Netns::create().unwrap();
        let mut batch = Batch::new();
        route::add_address(&mut batch, lan, HOST, 24);
        route::add_address(&mut batch, lan, HOST6, 64);
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
        route::add_default_route(&mut batch, lan, OUTSIDE6);
        rtnl.execute(&mut batch).unwrap();
        enter(&outside, || {
            fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0").unwrap();
        });
        let inside = Socket::from(outside.rtnl.try_clone().unwrap());
        let eth0 = route::link_by_name(&inside, "eth0").unwrap().unwrap().index;
        let mut batch = Batch::new();
        route::set_up(&mut batch, 1);
        route::add_address(&mut batch, eth0, OUTSIDE, 24);
        route::add_address(&mut batch, eth0, OUTSIDE6, 64);
        route::set_up(&mut batch, eth0);
        // As an attacker on the same wire would: towards the containers by way of the host.
        route::add_default_route(&mut batch, eth0, HOST);
        route::add_default_route(&mut batch, eth0, HOST6);
        inside.execute(&mut batch).unwrap();
        let host = Self {
            exec_root: tempfile::tempdir().unwrap(),
            outside,
            reserver: Arc::default(),
            warnings: Arc::default(),
            repairs: Arc::default(),
            living: Arc::default(),
        };
        for address in [IpAddr::from(HOST), IpAddr::from(HOST6)] {
            let address = SocketAddr::new(address, 9);
            eventually("the wire works", || {
                enter(&host.outside, || {
                    let refused = TcpStream::connect_timeout(&address, Duration::from_millis(50));
                    refused
                        .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
                })
            });
        }
        host
    }

    pub fn config(&self, engine_id: &str) -> StackConfig {
        let warnings = Arc::clone(&self.warnings);
        let repairs = Arc::clone(&self.repairs);
        let living = Arc::clone(&self.living);
        StackConfig {
            engine_id: engine_id.to_owned(),
            exec_root: self.exec_root.path().join(engine_id),
            bridge: Some(BridgeConfig::default_bridge("b".repeat(64))),
            address_pools: Vec::new(),
            firewall: true,
            ip_forward: true,
            ip_forward_no_drop: false,
            allow_direct_routing: false,
            obey_host_firewall: false,
            watch: false,
            reserver: Arc::clone(&self.reserver) as Arc<dyn PortReserver>,
            warn: Arc::new(move |text| warnings.lock().unwrap().push(text.to_owned())),
            on_repair: Arc::new(move |repair| repairs.lock().unwrap().push(repair)),
            netns_of: Arc::new(move |id| living.lock().unwrap().get(id)?.try_clone().ok()),
        }
    }

    /// Gives the host another network, 10.N.0.0/24 and fdN::/64, with one neighbour on it.
    pub fn another_lan(&self, number: u8) -> Netns {
        let wire = format!("wire{number}");
        let prefix6 = 0xfd00 + (u16::from(number) / 10 * 16 + u16::from(number) % 10);
        let neighbour = Netns::create().unwrap();
        let rtnl = Socket::open(Family::Route).unwrap();
        let mut batch = Batch::new();
        // The host's end is not on a bridge: bridges are spared by the rule against routing.
        route::add_veth(
            &mut batch,
            &route::VethPair {
                host_name: &wire,
                bridge: 0,
                mtu: LAN_MTU,
                peer_name: "eth0",
                peer_address: [2, 0, 0, 0, 0, 3],
                peer_netns: neighbour.fd.as_fd(),
            },
        );
        route::set_up_by_name(&mut batch, &wire);
        rtnl.execute(&mut batch).unwrap();
        let wire = route::link_by_name(&rtnl, &wire).unwrap().unwrap().index;
        let mut batch = Batch::new();
        route::add_address(&mut batch, wire, Ipv4Addr::new(10, number, 0, 1), 24);
        route::add_address(
            &mut batch,
            wire,
            Ipv6Addr::new(prefix6, 0, 0, 0, 0, 0, 0, 1),
            64,
        );
        rtnl.execute(&mut batch).unwrap();
        enter(&neighbour, || {
            fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0").unwrap();
            for arguments in [
                "link set lo up".to_owned(),
                "link set eth0 up".to_owned(),
                format!("address add 10.{number}.0.2/24 dev eth0"),
                format!("address add fd{number}::2/64 dev eth0 nodad"),
                format!("route add default via 10.{number}.0.1"),
                format!("route add default via fd{number}::1"),
            ] {
                ip(&arguments.split(' ').collect::<Vec<_>>());
            }
        });
        neighbour
    }

    /// Lets the stack find a container's namespace, as the engine does while it lives.
    pub fn lives(&self, container: &Container) {
        self.living.lock().unwrap().insert(
            container.endpoint.container_id.clone(),
            container.netns.fd.try_clone().unwrap(),
        );
    }

    /// Says whether the operator was told a text with these words.
    pub fn was_told(&self, words: &str) -> bool {
        let warnings = self.warnings.lock().unwrap();
        warnings.iter().any(|text| text.contains(words))
    }

    pub fn open(&self, engine_id: &str) -> Stack {
        Stack::open(self.config(engine_id), &[], &[]).unwrap()
    }
}

/// A container without processes: its namespace and its place on the network.
pub struct Container {
    pub netns: Netns,
    pub endpoint: Endpoint,
    pub ports: Vec<PublishedPort>,
}

impl Container {
    pub fn ipv4(&self) -> Ipv4Addr {
        self.endpoint.ipv4.unwrap()
    }

    pub fn ipv6(&self) -> Ipv6Addr {
        self.endpoint.ipv6.unwrap()
    }
}

pub fn start(stack: &Stack, name: &str, mappings: &[PortMapping]) -> Container {
    start_on(stack, None, name, mappings)
}

/// Starts a container on a network given by its id.
pub fn start_on(
    stack: &Stack,
    network: Option<&str>,
    name: &str,
    mappings: &[PortMapping],
) -> Container {
    let endpoint = stack
        .allocate(&EndpointRequest {
            container_id: name.to_owned(),
            network: network.map(str::to_owned),
            ..EndpointRequest::default()
        })
        .unwrap();
    let netns = Netns::create().unwrap();
    stack
        .connect(&endpoint, &netns, DefaultRoutes::BOTH)
        .unwrap();
    let ports = stack.reserve_ports(&endpoint, mappings).unwrap();
    stack.publish(&endpoint, &ports).unwrap();
    Container {
        netns,
        endpoint,
        ports,
    }
}

/// Describes a user-defined bridge; the digit makes id, name and interface.
pub fn user_defined(digit: char) -> BridgeConfig {
    let id: String = std::iter::repeat_n(digit, 64).collect();
    BridgeConfig::new(
        id.clone(),
        format!("net-{digit}"),
        format!("br-{}", &id[..12]),
    )
}

pub fn mapping(
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
pub fn enter<T: Send>(netns: &Netns, work: impl FnOnce() -> T + Send) -> T {
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
pub fn serve_tcp(netns: &Netns, port: u16, name: &'static str) {
    let listener = enter(netns, || TcpListener::bind(("::", port)).unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // An asker that gave up before it was accepted has no address any more.
            if let Ok(from) = stream.peer_addr() {
                let _ = write!(stream, "{name} {}", from.ip().to_canonical());
            }
        }
    });
}

pub fn serve_udp(netns: &Netns, port: u16, name: &'static str) {
    let socket = enter(netns, || UdpSocket::bind(("::", port)).unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(
                format!("{name} {}", from.ip().to_canonical()).as_bytes(),
                from,
            );
        }
    });
}

/// Asks by TCP; `None` where nobody answers.
pub fn ask(address: impl Into<IpAddr>, port: u16) -> Option<String> {
    let address = SocketAddr::new(address.into(), port);
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(950)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_millis(950)))
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

/// As [`ask`], until somebody answers: the kernel sends a first packet that was lost, on a network just made, only after
/// longer than one question waits.
pub fn hear(address: impl Into<IpAddr>, port: u16) -> Option<String> {
    let (address, start) = (address.into(), Instant::now());
    loop {
        let heard = ask(address, port);
        if heard.is_some() || start.elapsed() > Duration::from_secs(10) {
            return heard;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

pub fn ask_udp(socket: &UdpSocket, address: impl Into<IpAddr>, port: u16) -> Option<String> {
    socket
        .set_read_timeout(Some(Duration::from_millis(950)))
        .unwrap();
    socket
        .send_to(b"hello", SocketAddr::new(address.into(), port))
        .ok()?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

#[track_caller]
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn nft(arguments: &[&str]) -> String {
    run("nft", arguments)
}

pub fn ip(arguments: &[&str]) -> String {
    run("ip", arguments)
}

/// Runs a program that has to succeed and gives what it prints.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Lets bridges of this namespace run the rules on their frames, or not.
pub fn br_netfilter_is(value: &str) {
    for program in ["iptables", "ip6tables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{program}");
        match fs::write(path, value) {
            // Without the module it is off anyway.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            written => written.unwrap(),
        }
    }
}

pub fn sysctl(path: &str) -> String {
    fs::read_to_string(Path::new("/proc/sys/net/ipv4").join(path))
        .unwrap()
        .trim()
        .to_owned()
}

pub fn links() -> Vec<String> {
    let rtnl = Socket::open(Family::Route).unwrap();
    route::links(&rtnl)
        .unwrap()
        .into_iter()
        .map(|link| link.name)
        .collect()
}
