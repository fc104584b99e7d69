//! Host-port sockets: which ones a set of reservations needs, and how each is opened so that nobody else gets the port.
//!
//! A TCP port is kept by a listening socket: unlike one that is only bound it keeps out binders with SO_REUSEADDR, and
//! what reaches it (IPv6, or IPv4 while the firewall rules are missing) is carried to the container, so that nothing is
//! accepted that was not published. A UDP port is kept by a bound socket without SO_REUSEADDR. The any-addresses of
//! both families share one dual-stack socket: ten thousand ports are ten thousand descriptors.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gantry_api::port::{Protocol, Reservation};
use gantry_sys::net::{self, Transport};

/// The kernel takes the smaller of this and net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// One socket and the reservations it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub protocol: Protocol,
    pub address: SocketAddr,
    /// The IPv6 socket serves IPv4 as well.
    pub dual: bool,
    pub target: SocketAddr,
    pub reservations: Vec<Reservation>,
}

/// Where to a socket carries what reaches it, by the family of who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Targets {
    ipv4: Option<SocketAddr>,
    ipv6: Option<SocketAddr>,
}

impl Targets {
    /// Takes them from the reservations that the socket stands for, of which the last of a family counts.
    pub fn new<'a>(reservations: impl IntoIterator<Item = &'a Reservation>) -> Self {
        let mut targets = Self {
            ipv4: None,
            ipv6: None,
        };
        for reservation in reservations {
            match reservation.address {
                IpAddr::V4(_) => targets.ipv4 = Some(reservation.target),
                IpAddr::V6(_) => targets.ipv6 = Some(reservation.target),
            }
        }
        targets
    }

    /// Gives one of them.
    pub fn any(self) -> Option<SocketAddr> {
        self.ipv4.or(self.ipv6)
    }

    /// Gives the target of who asks from an address.
    ///
    /// # Errors
    /// `ConnectionRefused` where nothing is published for this family: a dual-stack socket that came from another owner
    /// may stand for one alone.
    pub fn of(self, client: IpAddr) -> io::Result<SocketAddr> {
        let target = match client.to_canonical() {
            IpAddr::V4(_) => self.ipv4,
            IpAddr::V6(_) => self.ipv6,
        };
        target.ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
    }

    /// Gives the target of an accepted connection.
    ///
    /// # Errors
    /// As [`Targets::of`]; and a connection that is gone already.
    pub fn of_connection(self, client: BorrowedFd<'_>) -> io::Result<SocketAddr> {
        let peer = rustix::net::getpeername(client)?.ok_or(io::ErrorKind::NotConnected)?;
        self.of(SocketAddr::try_from(peer)?.ip())
    }
}

/// A port of the host, wherever it leads.
pub type HostPort = (Protocol, IpAddr, u16);

/// Gives the port that a reservation is of.
pub fn host_port(reservation: &Reservation) -> HostPort {
    (reservation.protocol, reservation.address, reservation.port)
}

/// Gives the port that a socket keeps and the host's addresses that it keeps it on: both any-addresses where it serves
/// both families.
pub fn kept(socket: BorrowedFd<'_>) -> io::Result<(u16, Vec<IpAddr>)> {
    let local = SocketAddr::try_from(rustix::net::getsockname(socket)?)?;
    let mut addresses = vec![local.ip()];
    if local.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        && !rustix::net::sockopt::ipv6_v6only(socket)?
    {
        addresses.push(Ipv4Addr::UNSPECIFIED.into());
    }
    Ok((local.port(), addresses))
}

/// Decides which sockets are needed.
pub fn plan(reservations: &[Reservation]) -> Vec<Plan> {
    let mut plans: Vec<Plan> = Vec::with_capacity(reservations.len());
    let any = |address: IpAddr| address.is_unspecified();
    let mut open: std::collections::HashMap<(Protocol, u16, SocketAddr), usize> =
        std::collections::HashMap::new();
    for reservation in reservations {
        let key = (reservation.protocol, reservation.port, reservation.target);
        if any(reservation.address)
            && let Some(&index) = open.get(&key)
            && plans[index].address.is_ipv4() != reservation.address.is_ipv4()
            && !plans[index].dual
        {
            plans[index].address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, reservation.port));
            plans[index].dual = true;
            plans[index].reservations.push(*reservation);
            continue;
        }
        if any(reservation.address) {
            open.insert(key, plans.len());
        }
        plans.push(Plan {
            protocol: reservation.protocol,
            address: SocketAddr::new(reservation.address, reservation.port),
            dual: false,
            target: reservation.target,
            reservations: vec![*reservation],
        });
    }
    plans
}

/// Opens what a plan wants: one socket, or one per family where the shared one is refused. The error names the
/// reservation that the kernel refused.
pub fn open(plan: &Plan) -> Result<Vec<OwnedFd>, (Reservation, io::Error)> {
    let first = plan.reservations[0];
    match open_one(plan.protocol, plan.address, plan.dual) {
        Ok(socket) => Ok(vec![socket]),
        Err(error) if !plan.dual => Err((first, error)),
        // One of the families is in the way, or the host has no IPv6: only trying tells which.
        Err(_) => {
            let mut sockets = Vec::new();
            let mut ordered = plan.reservations.clone();
            ordered.sort_by_key(|reservation| reservation.address.is_ipv6());
            for reservation in ordered {
                let address = SocketAddr::new(reservation.address, reservation.port);
                let socket = open_one(plan.protocol, address, false)
                    .map_err(|error| (reservation, error))?;
                sockets.push(socket);
            }
            Ok(sockets)
        }
    }
}

fn open_one(protocol: Protocol, address: SocketAddr, dual: bool) -> io::Result<OwnedFd> {
    let transport = match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
        Protocol::Sctp => Transport::Sctp,
    };
    let socket = net::socket(address.ip(), transport, dual)?;
    let fd = socket.as_fd();
    if protocol == Protocol::Tcp {
        // Old connections in TIME_WAIT must not keep a restarted container from its port.
        net::set_reuse_address(fd, true)?;
    }
    net::bind(fd, address)?;
    match protocol {
        Protocol::Tcp => net::listen(fd, BACKLOG)?,
        Protocol::Udp => net::set_packet_info(fd, address.is_ipv6())?,
        Protocol::Sctp => {}
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reservation(address: &str, port: u16, target: &str) -> Reservation {
        Reservation {
            protocol: Protocol::Tcp,
            address: address.parse().unwrap(),
            port,
            target: target.parse().unwrap(),
        }
    }

    #[test]
    fn both_any_addresses_share_a_socket() {
        let check = |reservations: &[Reservation]| {
            plan(reservations)
                .iter()
                .map(|plan| format!("{}{}", plan.address, if plan.dual { " dual" } else { "" }))
                .collect::<Vec<_>>()
        };
        let one = "172.17.0.2:80";
        assert_eq!(
            check(&[
                reservation("0.0.0.0", 80, one),
                reservation("::", 80, one),
                reservation("0.0.0.0", 81, one),
                reservation("::", 82, one),
            ]),
            ["[::]:80 dual", "0.0.0.0:81", "[::]:82"]
        );
        assert_eq!(
            check(&[reservation("::", 80, one), reservation("0.0.0.0", 80, one)]),
            ["[::]:80 dual"]
        );
        // Another target, another address: a socket each.
        assert_eq!(
            check(&[
                reservation("0.0.0.0", 80, one),
                reservation("::", 80, "172.17.0.2:81"),
                reservation("127.0.0.1", 83, one),
                reservation("::1", 83, one),
            ]),
            ["0.0.0.0:80", "[::]:80", "127.0.0.1:83", "[::1]:83"]
        );
    }
}
