//! A netd in a network namespace that plays the host, containers that ask it, and servers that it asks.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gantry_netd::client::{Client, Sockets, SpawnOptions};
use gantry_netd::protocol::{NamedEndpoint, Resolver, ResolverNetwork, Upstreams};
use gantry_sys::net;
use gantry_sys::netlink::{Batch, Family, Socket, route};

pub const A: u16 = 1;
pub const PTR: u16 = 12;
pub const MX: u16 = 15;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const NOERROR: u16 = 0;
pub const FORMERR: u16 = 1;
pub const SERVFAIL: u16 = 2;
pub const REFUSED: u16 = 5;

const PATIENCE: Duration = Duration::from_secs(20);

/// The host and its netd.
pub struct Host {
    pub exec_root: tempfile::TempDir,
    pub client: Client,
    netns: OwnedFd,
}

fn own_netns() -> OwnedFd {
    std::fs::File::open("/proc/thread-self/ns/net")
        .unwrap()
        .into()
}

/// Makes the calling thread's network namespace a new one with a loopback interface.
fn new_netns() -> OwnedFd {
    net::unshare_net().expect("these tests need root");
    let mut batch = Batch::new();
    route::set_up(&mut batch, 1);
    let socket = Socket::open(Family::Route).unwrap();
    socket.execute(&mut batch).unwrap();
    own_netns()
}

impl Host {
    pub fn new() -> Self {
        let netns = new_netns();
        let exec_root = tempfile::tempdir().unwrap();
        let client = Client::open(SpawnOptions {
            exec_root: exec_root.path().to_owned(),
            program: env!("CARGO_BIN_EXE_netd-under-test").into(),
            arguments: Vec::new(),
        })
        .unwrap();
        Self {
            exec_root,
            client,
            netns,
        }
    }

    pub fn netns(&self) -> OwnedFd {
        self.netns.try_clone().unwrap()
    }

    /// Writes a file like the host's resolv.conf.
    pub fn resolv_conf(&self, servers: &[&str]) -> PathBuf {
        let path = self.exec_root.path().join("resolv.conf");
        let lines = servers
            .iter()
            .map(|server| format!("nameserver {server}\n"));
        std::fs::write(&path, lines.collect::<String>()).unwrap();
        path
    }

    pub fn kill_netd(&self) {
        let pid = self.client.status().unwrap().pid;
        let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let ended = self.client.shutdown();
        if !thread::panicking() {
            ended.unwrap();
            let left = std::fs::read_dir(self.exec_root.path().join("netd")).unwrap();
            let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left, ["lock"]);
        }
    }
}

/// A container: a namespace with netd's sockets in it and a process that plays its shim, and keeps the sockets.
pub struct Container {
    pub id: String,
    netns: OwnedFd,
    kept: Sockets,
    pub shim: Child,
}

impl Container {
    pub fn new(host: &Host, resolver: &Resolver) -> Self {
        let (netns, udp, tcp) = thread::spawn(|| {
            let netns = new_netns();
            let udp = UdpSocket::bind("127.0.0.11:53").unwrap();
            let tcp = TcpListener::bind("127.0.0.11:53").unwrap();
            (netns, OwnedFd::from(udp), OwnedFd::from(tcp))
        })
        .join()
        .unwrap();
        let shim = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = rustix::process::Pid::from_raw(shim.id() as i32).unwrap();
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        let container = Self {
            id: resolver.container.clone(),
            kept: Sockets {
                udp,
                tcp,
                netns: netns.try_clone().unwrap(),
                shim: Some(pidfd),
            },
            netns,
            shim,
        };
        host.client
            .resolver(resolver, Some(&container.kept))
            .unwrap();
        container
    }

    pub fn netns(&self) -> OwnedFd {
        self.netns.try_clone().unwrap()
    }

    /// The socket that its questions come in by.
    pub fn questions(&self) -> BorrowedFd<'_> {
        self.kept.udp.as_fd()
    }

    /// Gives netd the sockets again, as a daemon does with those of a shim.
    pub fn hand_over(&self, host: &Host) {
        host.client.sockets(&self.id, &self.kept).unwrap();
    }

    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                net::setns_net(self.netns.as_fd()).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    pub fn udp(&self) -> UdpSocket {
        self.enter(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect("127.0.0.11:53").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        })
    }

    pub fn tcp(&self) -> TcpStream {
        self.enter(|| {
            let stream = TcpStream::connect("127.0.0.11:53").unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        })
    }

    /// Asks by a datagram.
    pub fn ask(&self, name: &str, kind: u16) -> Answer {
        let socket = self.udp();
        socket.send(&query(7, name, kind, &[])).unwrap();
        Answer::receive(&socket)
    }

    pub fn ask_tcp(&self, name: &str, kind: u16) -> Answer {
        let mut stream = self.tcp();
        send(&mut stream, &query(7, name, kind, &[]));
        Answer::parse(&receive(&mut stream))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.shim.kill();
        let _ = self.shim.wait();
    }
}

/// An OPT record for datagrams of 4096 bytes.
pub const OPT: &[u8] = &[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0];

pub fn query(id: u16, name: &str, kind: u16, additional: &[u8]) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(!additional.is_empty())]);
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes.extend_from_slice(additional);
    bytes
}

pub fn send(stream: &mut TcpStream, message: &[u8]) {
    let mut bytes = (message.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    stream.write_all(&bytes).unwrap();
}

pub fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    message
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub id: u16,
    pub rcode: u16,
    pub is_cut: bool,
    /// The data of the records: addresses, or names with dots.
    pub data: Vec<String>,
    pub length: usize,
}

impl Answer {
    pub fn receive(socket: &UdpSocket) -> Self {
        let mut buffer = [0; 65_536];
        let length = socket.recv(&mut buffer).unwrap();
        Self::parse(&buffer[..length])
    }

    pub fn parse(bytes: &[u8]) -> Self {
        let field = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        assert_eq!(field(2) >> 15, 1, "an answer");
        let mut data = Vec::new();
        let mut at = 12;
        if field(4) == 1 {
            while bytes[at] != 0 {
                at += 1 + usize::from(bytes[at]);
            }
            at += 5;
        }
        for _ in 0..field(6) {
            assert_eq!(bytes[at], 0xc0, "a pointer to the question");
            let (kind, length) = (field(at + 2), usize::from(field(at + 10)));
            let value = &bytes[at + 12..at + 12 + length];
            data.push(match kind {
                A => IpAddr::from(<[u8; 4]>::try_from(value).unwrap()).to_string(),
                AAAA => IpAddr::from(<[u8; 16]>::try_from(value).unwrap()).to_string(),
                _ => String::from_utf8_lossy(value)
                    .chars()
                    .skip(1)
                    .map(|c| if c < ' ' { '.' } else { c })
                    .collect(),
            });
            at += 12 + length;
        }
        Self {
            id: field(0),
            rcode: field(2) & 15,
            is_cut: field(2) & 0x200 != 0,
            data,
            length: bytes.len(),
        }
    }

    /// Checks code and data; the order of data does not matter.
    #[track_caller]
    pub fn is(mut self, rcode: u16, data: &[&str]) {
        self.data.sort();
        assert_eq!((self.rcode, self.is_cut), (rcode, false), "{self:?}");
        assert_eq!(self.data, data);
    }
}

/// Makes a server's answer to a query of its own words: a code, flags and addresses.
pub fn reply(query: &[u8], rcode: u8, addresses: &[&str]) -> Vec<u8> {
    let mut end = 12;
    while query[end] != 0 {
        end += 1 + usize::from(query[end]);
    }
    let mut bytes = query[..end + 5].to_vec();
    bytes[2] |= 0x80;
    bytes[3] = 0x80 | rcode;
    bytes[6..12].copy_from_slice(&[0, addresses.len() as u8, 0, 0, 0, 0]);
    for address in addresses {
        let IpAddr::V4(address) = address.parse().unwrap() else {
            panic!("an IPv4 address");
        };
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
        bytes.extend(address.octets());
    }
    bytes
}

/// What a server does with a query: the messages that it sends.
type Conduct = dyn Fn(&[u8], bool) -> Vec<Vec<u8>> + Send + Sync;

/// A server that netd asks.
pub struct Server {
    pub asked: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens on port 53 of an address in a namespace.
    pub fn new(
        netns: OwnedFd,
        address: &str,
        conduct: impl Fn(&[u8], bool) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let address = SocketAddr::new(address.parse().unwrap(), 53);
        let (udp, tcp) = thread::spawn(move || {
            net::setns_net(netns.as_fd()).unwrap();
            (
                UdpSocket::bind(address).unwrap(),
                TcpListener::bind(address).unwrap(),
            )
        })
        .join()
        .unwrap();
        let ending = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicUsize::new(0));
        let conduct: Arc<Conduct> = Arc::new(conduct);
        let tick = Some(Duration::from_millis(20));
        udp.set_read_timeout(tick).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let threads = vec![
            thread::spawn({
                let (ending, asked, conduct) = (ending.clone(), asked.clone(), conduct.clone());
                move || {
                    let mut buffer = [0; 4096];
                    while !ending.load(Ordering::Relaxed) {
                        let Ok((length, client)) = udp.recv_from(&mut buffer) else {
                            continue;
                        };
                        asked.fetch_add(1, Ordering::Relaxed);
                        for message in conduct(&buffer[..length], false) {
                            udp.send_to(&message, client).unwrap();
                        }
                    }
                }
            }),
            thread::spawn({
                let (ending, asked) = (ending.clone(), asked.clone());
                move || {
                    while !ending.load(Ordering::Relaxed) {
                        let Ok((mut stream, _)) = tcp.accept() else {
                            thread::sleep(Duration::from_millis(5));
                            continue;
                        };
                        asked.fetch_add(1, Ordering::Relaxed);
                        let query = receive(&mut stream);
                        for message in conduct(&query, true) {
                            send(&mut stream, &message);
                        }
                    }
                }
            }),
        ];
        Self {
            asked,
            ending,
            threads,
        }
    }

    pub fn times_asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking());
        }
    }
}

/// The names of an endpoint on network `n1`.
pub fn endpoint(id: &str, names: &[&str], addresses: &[&str]) -> NamedEndpoint {
    NamedEndpoint {
        network: "n1".to_owned(),
        endpoint: id.to_owned(),
        names: names.iter().map(|&name| name.to_owned()).collect(),
        primary: names[0].to_owned(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

/// A resolver on network `n1`, which is named `front`.
pub fn resolver(container: &str, upstreams: Upstreams) -> Resolver {
    Resolver {
        container: container.to_owned(),
        networks: vec![ResolverNetwork {
            id: "n1".to_owned(),
            name: "front".to_owned(),
            links: vec![("site".to_owned(), "web".to_owned())],
        }],
        upstreams,
        ndots_is_set: false,
        forwards: true,
    }
}

pub fn servers(addresses: &[&str]) -> Upstreams {
    Upstreams::Container {
        servers: addresses.iter().map(|text| text.parse().unwrap()).collect(),
    }
}
