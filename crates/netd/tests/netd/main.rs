//! netd as a process, in a network namespace that plays the host. Needs root.

mod kept;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use gantry_api::port::{PortReserver, Protocol, Reservation, ReserveError};
use gantry_netd::client::{Client, SpawnOptions, has_state, socket_path, state_dir};
use gantry_netd::protocol::{self, Envelope, Reply};
use gantry_sys::netlink::{Batch, Family, Socket, route};
use gantry_sys::{net, nft};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);

struct Host {
    exec_root: tempfile::TempDir,
    container: OwnedFd,
    client: Client,
}

impl Host {
    fn new() -> Self {
        Self::with_netd(options)
    }

    /// `start` tells how netd is started.
    fn with_netd(start: impl Fn(&std::path::Path) -> SpawnOptions) -> Self {
        net::unshare_net().expect("these tests need root");
        let rtnl = Socket::open(Family::Route).unwrap();
        let (container, inside) = thread::spawn(|| {
            net::unshare_net().unwrap();
            let fd: OwnedFd = fs::File::open("/proc/thread-self/ns/net").unwrap().into();
            (fd, Socket::open(Family::Route).unwrap())
        })
        .join()
        .unwrap();
        let mut batch = Batch::new();
        route::set_up(&mut batch, 1);
        route::add_bridge(&mut batch, "br0", 1500, [2, 0, 0, 0, 0, 1]);
        rtnl.execute(&mut batch).unwrap();
        let bridge = route::link_by_name(&rtnl, "br0").unwrap().unwrap().index;
        let mut batch = Batch::new();
        route::add_address(&mut batch, bridge, GATEWAY, 16);
        let pair = route::VethPair {
            host_name: "veth1",
            bridge,
            mtu: 1500,
            peer_name: "eth0",
            peer_address: [2, 0, 0, 0, 0, 2],
            peer_netns: container.as_fd(),
        };
        route::add_veth(&mut batch, &pair);
        route::set_up_by_name(&mut batch, "veth1");
        rtnl.execute(&mut batch).unwrap();
        let eth0 = route::link_by_name(&inside, "eth0").unwrap().unwrap().index;
        let mut batch = Batch::new();
        route::set_up(&mut batch, 1);
        route::add_address(&mut batch, eth0, CONTAINER, 16);
        route::set_up(&mut batch, eth0);
        inside.execute(&mut batch).unwrap();
        let control = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(net::ethtool_glink(control.as_fd(), "veth1").unwrap());
        let exec_root = tempfile::tempdir().unwrap();
        let client = Client::open(start(exec_root.path())).unwrap();
        Self {
            exec_root,
            container,
            client,
        }
    }

    /// Kills netd and waits for its end. The next request starts another.
    fn kill_netd(&self) {
        let pidfd = self.client.pidfd().unwrap();
        rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap();
        gantry_sys::unix::wait_readable(pidfd.as_fd(), Duration::from_secs(5)).unwrap();
    }

    /// The keepers of this host's netds.
    fn keepers(&self) -> Vec<i32> {
        processes(self.exec_root.path(), "gantry-keeper")
    }

    /// The keeper, once it has its name and one before it is gone.
    fn one_keeper(&self) -> i32 {
        let start = Instant::now();
        loop {
            let keepers = self.keepers();
            if let [keeper] = keepers[..] {
                return keeper;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{keepers:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the keeper of a netd, which may be dead, and waits for its end.
    fn kill_keeper(&self) {
        let pidfd = gantry_sys::process::pidfd_open(self.one_keeper()).unwrap();
        gantry_sys::process::pidfd_send_signal(pidfd.as_fd(), 9).unwrap();
        gantry_sys::unix::wait_readable(pidfd.as_fd(), Duration::from_secs(5)).unwrap();
    }

    fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                net::setns_net(self.container.as_fd()).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.client.shutdown().unwrap();
            assert!(!socket_path(self.exec_root.path()).exists());
        } else {
            let _ = self.client.shutdown();
        }
    }
}

/// The processes of a name (proc(5), `comm`) that serve an exec root.
fn processes(exec_root: &std::path::Path, name: &str) -> Vec<i32> {
    let root = exec_root.to_str().unwrap().as_bytes();
    let mut found: Vec<i32> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let file = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            file("comm").strip_suffix(b"\n") == Some(name.as_bytes())
                && file("cmdline")
                    .split(|&byte| byte == 0)
                    .any(|word| word == root)
        })
        .collect();
    found.sort_unstable();
    found
}

fn options(exec_root: &std::path::Path) -> SpawnOptions {
    SpawnOptions {
        exec_root: exec_root.to_owned(),
        program: env!("CARGO_BIN_EXE_netd-under-test").into(),
        arguments: Vec::new(),
    }
}

fn reservation(protocol: Protocol, address: &str, port: u16, container_port: u16) -> Reservation {
    Reservation {
        protocol,
        address: address.parse().unwrap(),
        port,
        target: SocketAddr::from((CONTAINER, container_port)),
    }
}

fn both(protocol: Protocol, port: u16, container_port: u16) -> [Reservation; 2] {
    ["0.0.0.0", "::"].map(|address| reservation(protocol, address, port, container_port))
}

/// Tries to take a port as a server would that sets SO_REUSEADDR.
fn can_bind(address: &str, port: u16, transport: net::Transport) -> bool {
    let address: IpAddr = address.parse().unwrap();
    let socket = net::socket(address, transport, false).unwrap();
    net::set_reuse_address(socket.as_fd(), true).unwrap();
    net::bind(socket.as_fd(), SocketAddr::new(address, port)).is_ok()
}

#[test]
fn a_reserved_port_is_nobody_elses() {
    let host = Host::new();
    let mut wanted = both(Protocol::Tcp, 8080, 80).to_vec();
    wanted.extend(both(Protocol::Udp, 8080, 80));
    wanted.push(reservation(Protocol::Tcp, "127.0.0.1", 8081, 80));
    host.client.reserve("one", &wanted).unwrap();
    for address in ["0.0.0.0", "127.0.0.1", "172.17.0.1", "::", "::1"] {
        assert!(!can_bind(address, 8080, net::Transport::Tcp), "{address}");
        assert!(!can_bind(address, 8080, net::Transport::Udp), "{address}");
    }
    assert!(!can_bind("127.0.0.1", 8081, net::Transport::Tcp));
    assert!(can_bind("127.0.0.2", 8081, net::Transport::Tcp));
    assert!(can_bind("::1", 8081, net::Transport::Tcp));
    // The same again is no error, for somebody else it is.
    host.client.reserve("one", &wanted).unwrap();
    assert_eq!(
        host.client.status().unwrap().sockets,
        3,
        "both families share a socket"
    );
    assert!(matches!(
        host.client.reserve("two", &both(Protocol::Tcp, 8080, 80)),
        Err(ReserveError::InUse { port: 8080, .. })
    ));
    assert_eq!(host.client.owners().unwrap(), ["one"]);
    host.client.release("one").unwrap();
    host.client.release("one").unwrap();
    assert!(can_bind("0.0.0.0", 8080, net::Transport::Tcp));
    assert!(can_bind("::", 8080, net::Transport::Udp));
    assert!(host.client.owners().unwrap().is_empty());
}

#[test]
fn a_refused_reservation_names_the_address_and_keeps_nothing() {
    let host = Host::new();
    let taken = TcpListener::bind("[::1]:9001").unwrap();
    let mut wanted = both(Protocol::Tcp, 9000, 80).to_vec();
    wanted.extend(both(Protocol::Tcp, 9001, 80));
    match host.client.reserve("one", &wanted) {
        Err(ReserveError::InUse {
            address,
            port: 9001,
            protocol: Protocol::Tcp,
        }) => assert_eq!(address, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
        other => panic!("{other:?}"),
    }
    assert!(can_bind("0.0.0.0", 9000, net::Transport::Tcp));
    assert!(host.client.owners().unwrap().is_empty());
    drop(taken);
    assert!(matches!(
        host.client
            .reserve("one", &[reservation(Protocol::Tcp, "9.9.9.9", 9000, 80)]),
        Err(ReserveError::NoSuchAddress { port: 9000, .. })
    ));
    assert!(host.client.reserve("../evil", &wanted).is_err());
    assert!(!has_state(host.exec_root.path()));
    host.client
        .reserve("one", &both(Protocol::Tcp, 9000, 80))
        .unwrap();
    assert!(has_state(host.exec_root.path()));
    // A killed netd leaves files of its own behind, which nobody needs.
    host.client.release("one").unwrap();
    host.kill_netd();
    assert!(!has_state(host.exec_root.path()));
}

#[test]
fn connections_are_carried_to_the_container() {
    let host = Host::new();
    host.client
        .reserve("web", &both(Protocol::Tcp, 8080, 80))
        .unwrap();
    let listener = host.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
    // The server answers when the client has ended its half: with what it got, byte for byte.
    let server = thread::spawn(move || {
        for stream in listener.incoming().flatten().take(3) {
            thread::spawn(move || {
                let mut stream = stream;
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                stream.write_all(&bytes).unwrap();
            });
        }
    });
    let sent: Vec<u8> = (0..8_000_000u32)
        .map(|number| (number % 251) as u8)
        .collect();
    for address in ["[::1]:8080", "127.0.0.1:8080", "172.17.0.1:8080"] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.write_all(&sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(
            received == sent,
            "{address}: {} bytes came back",
            received.len()
        );
    }
    server.join().unwrap();
    let start = Instant::now();
    while host.client.status().unwrap().forwards > 0 {
        assert!(start.elapsed() < Duration::from_secs(5));
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(host.client.status().unwrap().forwards_total, 3);
}

#[test]
fn an_end_of_file_is_passed_on_whatever_was_read_before_it() {
    let host = Host::new();
    host.client
        .reserve("web", &both(Protocol::Tcp, 8080, 80))
        .unwrap();
    let listener = host.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
    // The size of one read of netd, and so many of them: about the number of reads that one connection has at a time.
    const READ_BYTES: usize = 64 << 10;
    const READS: std::ops::Range<usize> = 8..24;
    let server = thread::spawn(move || {
        for mut stream in listener.incoming().flatten().take(READS.len()) {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            write!(stream, "{}", bytes.len()).unwrap();
        }
    });
    for reads in READS {
        let bytes = vec![1; reads * READ_BYTES];
        let mut stream = TcpStream::connect("[::1]:8080").unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .unwrap_or_else(|error| panic!("after {reads} reads: {error}"));
        assert_eq!(answer, bytes.len().to_string());
    }
    server.join().unwrap();
}

#[test]
fn a_failing_side_resets_the_other() {
    let host = Host::new();
    host.client
        .reserve("web", &both(Protocol::Tcp, 8080, 80))
        .unwrap();
    // Nobody listens in the container.
    let mut stream = TcpStream::connect("[::1]:8080").unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let error = stream.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // The container goes away in the middle.
    let listener = host.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
    let mut stream = TcpStream::connect("[::1]:8080").unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let (mut inside, _) = listener.accept().unwrap();
    stream.write_all(b"x").unwrap();
    inside.read_exact(&mut [0; 1]).unwrap();
    host.client.release("web").unwrap();
    assert_eq!(
        stream.read(&mut [0; 1]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert!(TcpStream::connect("[::1]:8080").is_err());
}

#[test]
fn a_slow_reader_does_not_hold_others_up_nor_fill_memory() {
    let host = Host::new();
    host.client
        .reserve("web", &both(Protocol::Tcp, 8080, 80))
        .unwrap();
    let listener = host.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let block = vec![7; 1 << 20];
                for _ in 0..64 {
                    if stream.write_all(&block).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let mut slow = TcpStream::connect("[::1]:8080").unwrap();
    thread::sleep(Duration::from_millis(300));
    let mut quick = TcpStream::connect("[::1]:8080").unwrap();
    let mut received = Vec::new();
    quick.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), 64 << 20);
    let pid = host.client.status().unwrap().pid;
    let private = private_kib(pid);
    assert!(private < 4096, "{private} KiB");
    received.clear();
    slow.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), 64 << 20);
}

#[test]
fn datagrams_are_carried_and_answered_from_the_address_they_were_sent_to() {
    let host = Host::new();
    host.client
        .reserve("dns", &both(Protocol::Udp, 8053, 53))
        .unwrap();
    let server = host.enter(|| UdpSocket::bind("0.0.0.0:53").unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = server.recv_from(&mut buffer) {
            server.send_to(&buffer[..length], from).unwrap();
        }
    });
    for (from, to) in [
        ("[::1]:0", "[::1]:8053"),
        ("127.0.0.1:0", "127.0.0.1:8053"),
        ("0.0.0.0:0", "127.0.0.9:8053"),
        ("0.0.0.0:0", "172.17.0.1:8053"),
    ] {
        let client = UdpSocket::bind(from).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        // A connected socket takes answers from that address alone.
        client.connect(to).unwrap();
        for text in ["one", "two"] {
            client.send(text.as_bytes()).unwrap();
            let mut buffer = [0; 64];
            let length = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], text.as_bytes(), "{to}");
        }
    }
    assert_eq!(host.client.status().unwrap().forwards, 4);
    host.client.release("dns").unwrap();
    assert_eq!(host.client.status().unwrap().forwards, 0);
}

#[test]
fn nobody_else_reads_what_containers_ask_for() {
    let host = Host::new();
    let path = gantry_netd::client::questions_path(host.exec_root.path());
    let mode = || fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(), 0o600);
    // That of an earlier version.
    host.kill_netd();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    host.client.status().unwrap();
    assert_eq!(mode(), 0o600);
    // What a link leads to is not touched.
    host.kill_netd();
    let other = host.exec_root.path().join("other");
    fs::write(&other, "something").unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&other, &path).unwrap();
    host.client.status().unwrap();
    assert_eq!(fs::read_to_string(&other).unwrap(), "something");
    let other = fs::metadata(&other).unwrap().permissions().mode();
    assert_eq!(other & 0o7777, 0o644);
}

#[test]
fn a_killed_netd_comes_back_with_what_it_held() {
    let host = Host::new();
    host.client
        .reserve("one", &both(Protocol::Tcp, 8080, 80))
        .unwrap();
    host.client
        .reserve("gone", &both(Protocol::Tcp, 8081, 80))
        .unwrap();
    host.client.release("gone").unwrap();
    let first = host.client.status().unwrap().pid;
    // Another daemon finds the same one.
    let other = Client::open(options(host.exec_root.path())).unwrap();
    assert_eq!(other.status().unwrap().pid, first);
    // Many times: a connection that is made while the killed one is taken down is reset as well.
    let mut last = first;
    for _ in 0..30 {
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(last.cast_signed()).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        let status = host.client.status().unwrap();
        assert_ne!(status.pid, last);
        last = status.pid;
    }
    assert_eq!(host.client.owners().unwrap(), ["one"]);
    assert!(!can_bind("::", 8080, net::Transport::Tcp));
    assert!(can_bind("::", 8081, net::Transport::Tcp));
    assert_eq!(other.status().unwrap().pid, last);
}

#[test]
fn a_killed_netd_is_reaped_although_nobody_asks_for_another() {
    let host = Host::new();
    let pid = host.client.status().unwrap().pid;
    host.kill_netd();
    let since = Instant::now();
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        assert!(since.elapsed() < Duration::from_secs(5), "a zombie stays");
        thread::sleep(Duration::from_millis(5));
    }
    assert_ne!(host.client.status().unwrap().pid, pid);
}

#[test]
fn who_connects_while_netd_is_dead_waits_in_sockets_that_are_held_beside_it() {
    let host = Host::new();
    let ports = [both(Protocol::Tcp, 8080, 80), both(Protocol::Udp, 5353, 53)].concat();
    host.client.reserve("web", &ports).unwrap();
    let listener = host.enter(|| TcpListener::bind("0.0.0.0:80").unwrap());
    let datagrams = host.enter(|| UdpSocket::bind("0.0.0.0:53").unwrap());
    let server = thread::spawn(move || {
        for mut stream in listener.incoming().flatten().take(3) {
            stream.write_all(b"here").unwrap();
        }
    });
    let echo = thread::spawn(move || {
        for _ in 0..3 {
            let mut buffer = [0; 16];
            let (length, sender) = datagrams.recv_from(&mut buffer).unwrap();
            datagrams.send_to(&buffer[..length], sender).unwrap();
        }
    });
    for _ in 0..3 {
        let kept = host.client.ports(None).unwrap();
        assert_eq!(kept.len(), 2);
        host.kill_netd();
        host.kill_keeper();
        // Nobody listens, and nobody is refused.
        let mut stream = TcpStream::connect("[::1]:8080").unwrap();
        let asker = UdpSocket::bind("[::1]:0").unwrap();
        asker.send_to(b"question", "[::1]:5353").unwrap();
        let client = &host.client;
        assert_eq!(client.owners().unwrap(), ["web"]);
        assert_eq!(client.ports(None).unwrap().len(), 0);
        client.adopt_ports("web", &kept).unwrap();
        // What is there already is not taken twice, and a stranger gets nothing.
        client.adopt_ports("web", &kept).unwrap();
        client.adopt_ports("stranger", &kept).unwrap();
        assert_eq!(client.status().unwrap().sockets, 2);
        drop(kept);
        for socket in [&stream as &dyn AsFd, &asker] {
            let limit = Some(Duration::from_secs(10));
            let kind = rustix::net::sockopt::Timeout::Recv;
            rustix::net::sockopt::set_socket_timeout(socket.as_fd(), kind, limit).unwrap();
        }
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "here");
        let mut answer = [0; 16];
        let (length, _) = asker.recv_from(&mut answer).unwrap();
        assert_eq!(&answer[..length], b"question");
    }
    server.join().unwrap();
    echo.join().unwrap();
    // Given back is given back, also where the sockets were handed over.
    host.client.release("web").unwrap();
    assert!(can_bind("::", 8080, net::Transport::Tcp));
    assert!(can_bind("::", 5353, net::Transport::Udp));
}

#[test]
fn a_port_passes_to_another_owner_and_nobody_gets_it_in_between() {
    let host = Host::new();
    let other = Ipv4Addr::new(172, 17, 0, 3);
    let to = |mut reservation: Reservation, target: Ipv4Addr| {
        reservation.target.set_ip(target.into());
        reservation
    };
    let all = [both(Protocol::Tcp, 8080, 80), both(Protocol::Udp, 8080, 80)].concat();
    let at = |target: Ipv4Addr| all.iter().map(|&one| to(one, target)).collect::<Vec<_>>();
    let extra = reservation(Protocol::Tcp, "0.0.0.0", 8081, 80);
    host.client.reserve("a", &all).unwrap();
    host.client.reserve("a", &[extra]).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let got = thread::scope(|scope| {
        let thief = scope.spawn(|| {
            let mut tries = 0u32;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for transport in [net::Transport::Tcp, net::Transport::Udp] {
                    for address in ["0.0.0.0", "::", "127.0.0.1"] {
                        if can_bind(address, 8080, transport) {
                            return Some(tries);
                        }
                    }
                }
                tries += 1;
            }
            None
        });
        let mut owners = ["a", "b"];
        for round in 0..300 {
            let target = [other, CONTAINER][round % 2];
            let transferred = host.client.transfer(owners[0], owners[1], &at(target));
            transferred.unwrap();
            // A request that was sent twice is as good as one.
            host.client
                .transfer(owners[0], owners[1], &at(target))
                .unwrap();
            assert_eq!(host.client.owners().unwrap(), [owners[1]]);
            owners.reverse();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        thief.join().unwrap()
    });
    assert_eq!(got, None, "the port was free");
    // What was not passed on is given back.
    assert!(can_bind("0.0.0.0", 8081, net::Transport::Tcp));
    // A killed netd takes the ports for the new owner alone.
    host.client.transfer("a", "b", &all).unwrap();
    let pidfd = host.client.pidfd().unwrap();
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap();
    gantry_sys::unix::wait_readable(pidfd.as_fd(), Duration::from_secs(5)).unwrap();
    assert_eq!(host.client.owners().unwrap(), ["b"]);
    assert!(!can_bind("0.0.0.0", 8080, net::Transport::Tcp));
}

#[test]
fn a_transfer_that_fails_changes_nothing() {
    let host = Host::new();
    let had = both(Protocol::Tcp, 8080, 80);
    host.client.reserve("a", &had).unwrap();
    let stranger = TcpListener::bind("0.0.0.0:8082").unwrap();
    let mut wanted = had.to_vec();
    wanted.push(reservation(Protocol::Tcp, "0.0.0.0", 8081, 80));
    wanted.push(reservation(Protocol::Tcp, "0.0.0.0", 8082, 80));
    let refused = host.client.transfer("a", "b", &wanted);
    assert!(matches!(
        refused,
        Err(ReserveError::InUse { port: 8082, .. })
    ));
    assert_eq!(host.client.owners().unwrap(), ["a"]);
    assert!(!can_bind("::", 8080, net::Transport::Tcp));
    assert!(can_bind("0.0.0.0", 8081, net::Transport::Tcp));
    drop(stranger);
    host.client.transfer("a", "b", &wanted).unwrap();
    assert!(!can_bind("0.0.0.0", 8081, net::Transport::Tcp));
}

#[test]
fn a_socket_of_both_families_carries_each_to_its_own_target() {
    let host = Host::new();
    let ports = both(Protocol::Tcp, 8080, 80);
    host.client.reserve("a", &ports).unwrap();
    let serve = |port: u16, text: &'static str| {
        let listener = host.enter(|| TcpListener::bind(("0.0.0.0", port)).unwrap());
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.write_all(text.as_bytes());
            }
        });
    };
    serve(80, "four");
    serve(81, "six");
    let ask = |address: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    assert_eq!(ask("[::1]:8080").unwrap(), "four");
    let mut apart = ports;
    apart[1].target.set_port(81);
    host.client.transfer("a", "b", &apart).unwrap();
    assert_eq!(ask("127.0.0.1:8080").unwrap(), "four");
    assert_eq!(ask("[::1]:8080").unwrap(), "six");
    // Held beside netd over its death, it is the same socket afterwards.
    let kept = host.client.ports(None).unwrap();
    let pidfd = host.client.pidfd().unwrap();
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap();
    gantry_sys::unix::wait_readable(pidfd.as_fd(), Duration::from_secs(5)).unwrap();
    host.client.adopt_ports("b", &kept).unwrap();
    assert_eq!(ask("127.0.0.1:8080").unwrap(), "four");
    assert_eq!(ask("[::1]:8080").unwrap(), "six");
    // Nothing is accepted of a family that is not published.
    host.client.transfer("b", "c", &apart[1..]).unwrap();
    assert_eq!(ask("[::1]:8080").unwrap(), "six");
    assert!(ask("127.0.0.1:8080").is_err());
}

#[test]
fn what_a_daemon_asked_that_has_gone_meanwhile_is_not_done() {
    let host = Host::new();
    host.client
        .reserve("web", &both(Protocol::Tcp, 8080, 80))
        .unwrap();
    let pid = host.client.status().unwrap().pid.cast_signed();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    for asks in [1, 100] {
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        let mut stream = UnixStream::connect(socket_path(host.exec_root.path())).unwrap();
        for _ in 0..asks {
            let request = protocol::Request::Release {
                owner: "web".to_owned(),
            };
            let envelope = Envelope {
                id: 1,
                fds: 0,
                body: request,
            };
            protocol::write(&mut stream, &envelope).unwrap();
        }
        // It has waited for the answer in vain.
        drop(stream);
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
        assert_eq!(host.client.owners().unwrap(), ["web"]);
        assert_eq!(host.client.owners().unwrap(), ["web"]);
    }
}

#[test]
fn an_unknown_verb_is_answered_and_the_connection_goes_on() {
    let host = Host::new();
    let mut stream = UnixStream::connect(socket_path(host.exec_root.path())).unwrap();
    for (id, request, expected) in [
        (7, r#"{"id":7,"verb":"paint-it-red","colour":3}"#, "unknown"),
        (
            8,
            r#"{"id":8,"verb":"hello","version":99,"more":[]}"#,
            "hello",
        ),
    ] {
        stream
            .write_all(&u32::try_from(request.len()).unwrap().to_le_bytes())
            .unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let reply: Envelope<Reply> = protocol::read(&mut stream).unwrap();
        assert_eq!(reply.id, id);
        match reply.body {
            Reply::Unknown => assert_eq!(expected, "unknown"),
            Reply::Hello { version, features } => {
                assert_eq!(expected, "hello");
                assert_eq!(version, protocol::VERSION);
                assert!(features.contains(&"reserve".to_owned()));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn loopback_routing_goes_with_the_table_that_makes_it_harmless() {
    let host = Host::new();
    let nfnl = Socket::open(Family::Netfilter).unwrap();
    let table = |make: bool, name: &str| {
        let mut transaction = nft::Transaction::new();
        if make {
            transaction.add_table(nft::Family::Inet, name);
        } else {
            transaction.delete_table(nft::Family::Inet, name);
        }
        transaction.commit(&nfnl).unwrap();
    };
    let path = "/proc/sys/net/ipv4/conf/br0/route_localnet";
    let switch = || fs::read_to_string(path).unwrap().trim().to_owned();
    let eventually_off = || {
        let start = Instant::now();
        while switch() != "0" {
            assert!(start.elapsed() < Duration::from_secs(5), "still on");
            thread::sleep(Duration::from_millis(2));
        }
    };
    table(true, "gantry-x");
    table(true, "other");
    host.client.guard("gantry-x", &["br0".to_owned()]).unwrap();
    fs::write(path, "1").unwrap();
    table(false, "other");
    // Answered after the notice of the other table was seen.
    host.client.status().unwrap();
    thread::sleep(Duration::from_millis(20));
    assert_eq!(switch(), "1");
    table(false, "gantry-x");
    eventually_off();
    // The next netd looks as well, even where it all happened before its time.
    fs::write(path, "1").unwrap();
    let pid = host.client.status().unwrap().pid;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    host.client.status().unwrap();
    eventually_off();
    assert!(host.client.guard("x", &["../../evil".to_owned()]).is_err());
}

/// Whether somebody on the bridge reaches what listens on the host's loopback.
fn reaches_loopback(host: &Host, port: u16) -> bool {
    host.enter(|| {
        let stream = TcpStream::connect_timeout(
            &SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), port)),
            Duration::from_millis(200),
        );
        stream.is_ok()
    })
}

#[test]
fn the_loopback_is_guarded_in_the_moment_of_a_flush_as_well() {
    let host = Host::new();
    let secret = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = secret.local_addr().unwrap().port();
    // Who attacks sends loopback addresses out of eth0.
    host.enter(|| {
        let script = format!(
            "sysctl -qw net.ipv4.conf.eth0.route_localnet=1; ip rule add pref 0 to 127.0.0.2 lookup 100; \
             ip rule add pref 1 lookup local; ip rule del pref 0 lookup local; \
             ip route add 127.0.0.2 via {GATEWAY} dev eth0 src {CONTAINER} table 100 onlink"
        );
        let status = std::process::Command::new("sh").args(["-ec", &script]).status();
        assert!(status.unwrap().success());
    });
    let switch = "/proc/sys/net/ipv4/conf/br0/route_localnet";
    let nft = |words: &str| {
        let words = words.split(' ');
        std::process::Command::new("nft")
            .args(words)
            .output()
            .unwrap()
    };
    nft("add table inet gantry-y");
    fs::write(switch, "1").unwrap();
    // Without anybody's rule the attack works, or the rest would prove nothing.
    assert!(reaches_loopback(&host, port));
    host.client.guard("gantry-y", &["br0".to_owned()]).unwrap();
    assert!(!reaches_loopback(&host, port));
    for _ in 0..3 {
        nft("flush ruleset");
        // Whatever netd has done meanwhile: the switch is on in this moment.
        fs::write(switch, "1").unwrap();
        assert!(!reaches_loopback(&host, port));
        nft("add table inet gantry-y");
        let pidfd = host.client.pidfd().unwrap();
        rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap();
        gantry_sys::unix::wait_readable(pidfd.as_fd(), Duration::from_secs(5)).unwrap();
        fs::write(switch, "1").unwrap();
        assert!(!reaches_loopback(&host, port), "while netd is dead");
        host.client.status().unwrap();
    }
    let listed = String::from_utf8(nft("list tables").stdout).unwrap();
    assert!(listed.contains("gantry-y-guard"), "{listed}");
    host.client.shutdown().unwrap();
    let listed = String::from_utf8(nft("list tables").stdout).unwrap();
    assert!(!listed.contains("guard"), "{listed}");
}

/// Gives the memory that a process has for itself.
fn private_kib(pid: u32) -> u64 {
    fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("Private_Dirty:"))
        .filter_map(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .sum()
}

/// Held by who holds ten thousand descriptors: the limit of this process may allow no more.
static MANY: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn ten_thousand_ports_fit() {
    let _alone = MANY.lock();
    let host = Host::new();
    let pid = host.client.status().unwrap().pid;
    let idle = private_kib(pid);
    assert!(idle < 1024, "{idle} KiB when idle");
    let wanted: Vec<Reservation> = (20_000..30_000)
        .flat_map(|port| both(Protocol::Tcp, port, 80))
        .collect();
    let start = Instant::now();
    host.client.reserve("many", &wanted).unwrap();
    let took = start.elapsed();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(descriptors < 20_000, "{descriptors} descriptors");
    println!(
        "10,000 ports: {took:?}, {descriptors} descriptors, {} KiB (idle {idle} KiB)",
        private_kib(pid)
    );
    assert!(!can_bind("::", 29_999, net::Transport::Tcp));
    // A restarted one needs no more of them, whether its keeper has them, the daemon, both, or nobody.
    for (is_held, is_kept) in [(false, false), (true, false), (false, true), (true, true)] {
        let kept = is_held.then(|| host.client.ports(None).unwrap());
        // One that has just begun may not have its keeper yet.
        host.one_keeper();
        host.kill_netd();
        if !is_kept {
            host.kill_keeper();
        }
        if let Some(kept) = &kept {
            host.client.adopt_ports("many", kept).unwrap();
        }
        assert_eq!(host.client.status().unwrap().sockets, 10_000);
    }
    let start = Instant::now();
    host.client.release("many").unwrap();
    println!("released in {:?}", start.elapsed());
}

#[test]
fn ten_thousand_ports_pass_to_another_owner_in_a_moment() {
    let _alone = MANY.lock();
    let host = Host::new();
    let wanted: Vec<Reservation> = (20_000..30_000)
        .flat_map(|port| both(Protocol::Tcp, port, 80))
        .collect();
    host.client.reserve("a", &wanted).unwrap();
    let mut kept = host.client.ports(Some("a")).unwrap();
    let start = Instant::now();
    host.client.transfer("a", "b", &wanted).unwrap();
    // Some come back, the others are given back.
    host.client.transfer("b", "a", &wanted[..10_000]).unwrap();
    let took = start.elapsed();
    assert_eq!(host.client.status().unwrap().sockets, 5000);
    assert_eq!(host.client.owners().unwrap(), ["a"]);
    let start = Instant::now();
    let ports = gantry_netd::client::HostPorts::of(&wanted[..10_000]);
    kept.retain_mut(|port| port.transfer("a", &ports));
    let noted = start.elapsed();
    assert_eq!(kept.len(), 5000);
    println!("two transfers: {took:?}, noted in {noted:?}");
    // Unoptimized as well; by comparing all with all it is half a minute.
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(noted < Duration::from_secs(1), "{noted:?}");
}

/// Where Python is, whatever the search path of a process without an environment.
fn python() -> String {
    let python = std::process::Command::new("python3")
        .args(["-c", "import sys; print(sys.executable, end='')"])
        .output()
        .expect("python3 is installed");
    String::from_utf8(python.stdout).unwrap()
}

/// Plays a netd of an earlier version with the features named, once; after that it is the real one. What it carries is
/// as many connections as the file of its mark has bytes.
const EARLIER: &str = r#"
import json, os, socket, struct, sys
real, mark, features, carried = sys.argv[1:5]
if os.path.exists(mark):
    os.execv(real, [real] + sys.argv[5:])
with open(mark, "w") as file:
    file.write(carried)
replies = {
    "hello": lambda: {"reply": "hello", "version": 1, "features": features.split()},
    "status": lambda: {"reply": "status", "pid": os.getpid(), "owners": 1, "sockets": 1,
                       "forwards": os.path.getsize(mark), "forwards_total": 0, "forwards_refused": 0},
}
listener = socket.socket(fileno=0)
while True:
    daemon = listener.accept()[0].makefile("rwb")
    while head := daemon.read(4):
        request = json.loads(daemon.read(struct.unpack("<I", head)[0]))
        reply = json.dumps({"id": request["id"], **replies[request["verb"]]()}).encode()
        daemon.write(struct.pack("<I", len(reply)) + reply)
        daemon.flush()
"#;

/// How a netd of an earlier version is started, and the file of its mark.
fn earlier(
    exec_root: &std::path::Path,
    features: &str,
    carried: &str,
) -> (SpawnOptions, std::path::PathBuf) {
    let directory = state_dir(exec_root);
    fs::create_dir(&directory).unwrap();
    let record = r#"{"version":1,"owner":"one","reservations":[
        {"protocol":"tcp","address":"0.0.0.0","port":8080,"target":"172.17.0.2:80"}]}"#;
    fs::write(directory.join("one.json"), record).unwrap();
    let (script, mark) = (exec_root.join("earlier.py"), exec_root.join("mark"));
    fs::write(&script, EARLIER).unwrap();
    // By a shell, because Python looks for its library by its own name, which is netd's here.
    let command = format!(
        "exec {} {} {} {} '{features}' '{carried}' \"$@\"",
        python(),
        script.display(),
        env!("CARGO_BIN_EXE_netd-under-test"),
        mark.display()
    );
    let options = SpawnOptions {
        exec_root: exec_root.to_owned(),
        program: "/bin/sh".into(),
        arguments: vec!["-c".to_owned(), command, "sh".to_owned()],
    };
    (options, mark)
}

#[test]
fn a_netd_without_a_keeper_is_replaced_when_it_carries_nothing() {
    net::unshare_net().unwrap();
    let exec_root = tempfile::tempdir().unwrap();
    let (options, mark) = earlier(exec_root.path(), "reserve adopt-ports names transfer", "");
    let client = Client::open(options).unwrap();
    assert!(mark.exists(), "the earlier one has lived");
    assert!(!client.is_outdated());
    assert_eq!(client.owners().unwrap(), ["one"]);
    assert_eq!(processes(exec_root.path(), "gantry-keeper").len(), 1);
    client.shutdown().unwrap();
    // It carries something when it is found.
    let exec_root = tempfile::tempdir().unwrap();
    let features = "reserve adopt-ports names transfer";
    let (options, mark) = earlier(exec_root.path(), features, "x");
    let client = Client::open(options).unwrap();
    let pid = client.status().unwrap().pid;
    assert_eq!(client.status().unwrap().forwards, 1);
    client.replace_outdated().unwrap();
    assert!(client.is_outdated());
    assert_eq!(client.status().unwrap().pid, pid);
    fs::write(&mark, "").unwrap();
    client.replace_outdated().unwrap();
    assert!(!client.is_outdated());
    assert_ne!(client.status().unwrap().pid, pid);
    assert_eq!(processes(exec_root.path(), "gantry-keeper").len(), 1);
    // There is nothing to be replaced any more.
    let pid = client.status().unwrap().pid;
    client.replace_outdated().unwrap();
    assert_eq!(client.status().unwrap().pid, pid);
    client.shutdown().unwrap();
}

#[test]
fn a_netd_of_an_earlier_version_is_replaced_and_its_ports_are_taken_over() {
    net::unshare_net().unwrap();
    let exec_root = tempfile::tempdir().unwrap();
    let (options, mark) = earlier(exec_root.path(), "reserve", "");
    let client = Client::open(options).unwrap();
    assert!(mark.exists(), "the earlier one has lived");
    assert_eq!(client.owners().unwrap(), ["one"]);
    assert!(client.resolvers().unwrap().is_empty());
    assert!(!can_bind("0.0.0.0", 8080, net::Transport::Tcp));
    client.shutdown().unwrap();
}
