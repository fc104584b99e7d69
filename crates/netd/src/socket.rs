//! Host-port sockets: which ones a set of reservations needs, and how each is opened so that nobody else gets the port.
//!
//! A TCP port is kept by a listening socket: unlike one that is only bound it keeps out binders with SO_REUSEADDR, and
//! what reaches it (IPv6, or IPv4 while the firewall rules are missing) is carried to the container, so that nothing is
//! accepted that was not published. A UDP port is kept by a bound socket without SO_REUSEADDR. The any-addresses of
//! both families share one dual-stack socket: ten thousand ports are ten thousand descriptors.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

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
        Ok(socket) => Ok(socket.into_iter().collect()),
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
                sockets.extend(socket);
            }
            Ok(sockets)
        }
    }
}

fn open_one(protocol: Protocol, address: SocketAddr, dual: bool) -> io::Result<Option<OwnedFd>> {
    let transport = match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
        Protocol::Sctp => Transport::Sctp,
    };
    let socket = match net::socket(address.ip(), transport, dual) {
        Err(error)
            if protocol == Protocol::Sctp
                && matches!(
                    error.raw_os_error(),
                    Some(libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT)
                ) =>
        {
            // A kernel without SCTP sockets: nobody on the host can take the port.
            return Ok(None);
        }
        socket => socket?,
    };
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
    Ok(Some(socket))
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
