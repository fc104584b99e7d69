//! Where a container asks for names: sockets on 127.0.0.11 inside its network namespace, and the rules that lead port 53
//! there to them. Who answers is not decided here.
//!
//! The sockets have ports that the kernel picks, because one on port 53 would take it from a server of the container's
//! own that listens on all addresses. Answers need no rule: the kernel remembers what it has translated for 30 seconds,
//! which is longer than anybody waits.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use gantry_sys::net::{self, Transport};
use gantry_sys::netlink::{Family, Socket};
use gantry_sys::nft::{
    self, Base, BaseChain, Cmp, Expression, Hook, MetaKey, Policy, Transaction, register,
};

use crate::netns::in_thread;
use crate::resolv::INTERNAL_RESOLVER;
use crate::{Netns, loopback_up};

/// The table in the container's namespace; what else is there is the container's.
const TABLE: &str = "gantry-dns";
const CHAIN: &str = "output";
/// Before the chains of the container's own (`dstnat`).
const PRIORITY: i32 = -110;
const PORT: u16 = 53;
/// Connections that wait while nobody answers.
const BACKLOG: i32 = 64;
const IPV4: nft::Family = nft::Family::Ipv4;
const R0: u32 = register(0);

/// Sockets on 127.0.0.11; queries wait in them until somebody answers.
#[derive(Debug)]
pub struct DnsSockets {
    pub udp: OwnedFd,
    /// Listens.
    pub tcp: OwnedFd,
}

/// Opens the sockets and writes the rules; both replace what was there before. Brings `lo` up, without which there is no
/// such address.
pub fn prepare(netns: &Netns) -> io::Result<DnsSockets> {
    loopback_up(netns).map_err(io::Error::other)?;
    in_thread(|| {
        net::setns_net(netns.fd.as_fd())?;
        let (udp, udp_port) = open(Transport::Udp)?;
        let (tcp, tcp_port) = open(Transport::Tcp)?;
        net::listen(tcp.as_fd(), BACKLOG)?;
        rules(udp_port, tcp_port)
            .commit(&Socket::open(Family::Netfilter)?)
            .map_err(io::Error::from)?;
        Ok(DnsSockets { udp, tcp })
    })
}

/// Opens a socket on a free port.
fn open(transport: Transport) -> io::Result<(OwnedFd, u16)> {
    let address = IpAddr::V4(INTERNAL_RESOLVER);
    let socket = net::socket(address, transport, false)?;
    net::bind(socket.as_fd(), SocketAddr::new(address, 0))?;
    let port = rustix::net::getsockname(&socket)
        .and_then(SocketAddr::try_from)?
        .port();
    Ok((socket, port))
}

fn rules(udp_port: u16, tcp_port: u16) -> Transaction {
    let mut transaction = Transaction::new();
    // One that exists is made anew: added first, so that its removal finds one.
    transaction.add_table(IPV4, TABLE);
    transaction.delete_table(IPV4, TABLE);
    transaction.add_table(IPV4, TABLE);
    let base = BaseChain {
        kind: "nat",
        hook: Hook::Output,
        priority: PRIORITY,
        policy: Policy::Accept,
    };
    transaction.add_chain(IPV4, TABLE, CHAIN, Some(&base));
    for (protocol, port, name) in [
        (libc::IPPROTO_UDP, udp_port, "udp"),
        (libc::IPPROTO_TCP, tcp_port, "tcp"),
    ] {
        let expressions = translate(protocol as u8, port);
        let comment = format!("names by {name}");
        transaction.add_rule(IPV4, TABLE, CHAIN, &expressions, &comment);
    }
    transaction
}

/// `ip daddr 127.0.0.11 PROTOCOL dport 53 dnat to 127.0.0.11:PORT`
fn translate(protocol: u8, port: u16) -> Vec<Expression> {
    let equal = |value: Vec<u8>| Expression::Cmp {
        register: R0,
        operator: Cmp::Equal,
        value,
    };
    let load = |base, offset, length| Expression::Payload {
        base,
        offset,
        length,
        to: R0,
    };
    let address = INTERNAL_RESOLVER.octets().to_vec();
    vec![
        load(Base::Network, 16, 4),
        equal(address.clone()),
        Expression::Meta {
            key: MetaKey::L4Proto,
            to: R0,
        },
        equal(vec![protocol]),
        load(Base::Transport, 2, 2),
        equal(PORT.to_be_bytes().to_vec()),
        Expression::Immediate {
            to: R0,
            value: address,
        },
        Expression::Immediate {
            to: register(1),
            value: port.to_be_bytes().to_vec(),
        },
        Expression::DestinationNat {
            family: IPV4,
            address: R0,
            port: register(1),
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::net::{TcpStream, UdpSocket};
    use std::time::Duration;

    use super::*;

    /// A query reaches the socket through the rules and its answer comes from where it was sent to, also after the
    /// sockets were made anew, and while a server of the container's own has port 53 of every address.
    #[test]
    fn port_53_of_the_resolver_leads_to_the_sockets() {
        let netns = Netns::create().expect("needs root");
        drop(prepare(&netns).unwrap());
        let sockets = prepare(&netns).unwrap();
        in_thread(|| {
            net::setns_net(netns.fd.as_fd())?;
            let own = UdpSocket::bind("0.0.0.0:53")?;
            own.set_read_timeout(Some(Duration::from_secs(5)))?;
            let client = UdpSocket::bind("127.0.0.1:0")?;
            client.set_read_timeout(Some(Duration::from_secs(5)))?;
            client.send_to(b"query", "127.0.0.11:53")?;
            let udp = UdpSocket::from(sockets.udp.try_clone()?);
            udp.set_nonblocking(false)?;
            udp.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut buffer = [0; 16];
            let (length, sender) = udp.recv_from(&mut buffer)?;
            assert_eq!(&buffer[..length], b"query");
            udp.send_to(b"answer", sender)?;
            let (length, sender) = client.recv_from(&mut buffer)?;
            assert_eq!(&buffer[..length], b"answer");
            assert_eq!(sender, "127.0.0.11:53".parse().unwrap());
            client.send_to(b"mine", "127.0.0.1:53")?;
            let (length, _) = own.recv_from(&mut buffer)?;
            assert_eq!(&buffer[..length], b"mine");
            let _stream = TcpStream::connect("127.0.0.11:53")?;
            net::accept(sockets.tcp.as_fd()).map(drop)
        })
        .unwrap();
    }
}
