//! The sockets of names, which outlive whoever answers.

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use gantry_shim::protocol::{Reply, Request};

use crate::fixture::*;

/// A UDP socket, a listener and a namespace, and the UDP socket's address.
fn sockets() -> (Vec<OwnedFd>, std::net::SocketAddr) {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let netns = File::open("/proc/self/ns/net").unwrap();
    (vec![udp.into(), tcp.into(), netns.into()], address)
}

fn take(shim: &mut Shim) -> (Reply, Vec<OwnedFd>) {
    shim.client().call(&Request::TakeNames, vec![]).unwrap()
}

fn send(to: std::net::SocketAddr, text: &[u8]) {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(text, to).unwrap();
}

/// What waits in the UDP socket of the descriptors that a shim gave.
fn queued(fds: Vec<OwnedFd>) -> Vec<u8> {
    let udp = UdpSocket::from(fds.into_iter().next().unwrap());
    udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = [0; 16];
    let length = udp.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

#[test]
fn questions_wait_in_sockets_that_the_shim_keeps() {
    let (names, address) = sockets();
    let mut bundle = Bundle::new("sleep 1000");
    bundle.names = names;
    let mut shim = bundle.start();
    // Nobody else holds the socket now, and the daemon that comes is another one.
    send(address, b"one");
    shim.disconnect();
    shim.reconnect();
    let (reply, fds) = take(&mut shim);
    assert!(matches!(reply, Reply::Names), "{reply:?}");
    assert_eq!(fds.len(), 4);
    // The last one is the shim itself.
    let mut fds = fds;
    let shim_pidfd = fds.pop().unwrap();
    let now = Duration::ZERO;
    assert!(gantry_sys::unix::wait_readable(shim_pidfd.as_fd(), now).is_err());
    assert_eq!(queued(fds), b"one");
    // Taken again they are still the same.
    send(address, b"two");
    assert_eq!(queued(take(&mut shim).1), b"two");
    shim.ask(&Request::Signal { signal: 9 });
    shim.exited();
    // With the container they are closed: nothing holds its network namespace.
    assert!(UdpSocket::bind(address).is_ok());
    assert!(matches!(take(&mut shim).0, Reply::Error { .. }));
    shim.ask(&Request::Release);
    shim.gone();
    gantry_sys::unix::wait_readable(shim_pidfd.as_fd(), Duration::from_secs(5)).unwrap();
}

#[test]
fn sockets_may_come_later_and_be_replaced() {
    let mut shim = Bundle::new("sleep 1000").start();
    assert!(matches!(take(&mut shim).0, Reply::Error { .. }));
    let (first, first_address) = sockets();
    let (second, second_address) = sockets();
    for fds in [first, second] {
        let (reply, _) = shim.client().call(&Request::KeepNames, fds).unwrap();
        assert!(matches!(reply, Reply::Ok), "{reply:?}");
    }
    assert!(UdpSocket::bind(first_address).is_ok());
    send(second_address, b"late");
    assert_eq!(queued(take(&mut shim).1), b"late");
    let (too_few, _) = sockets();
    let (reply, _) = shim
        .client()
        .call(&Request::KeepNames, too_few.into_iter().take(2).collect())
        .unwrap();
    assert!(matches!(reply, Reply::Error { .. }), "{reply:?}");
    shim.ask(&Request::Signal { signal: 9 });
    shim.wait();
}
