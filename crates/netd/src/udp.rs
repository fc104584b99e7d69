//! Carried UDP: a connected socket per client, given up after a while without datagrams.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use gantry_sys::net::{self, Transport};

use crate::slab::Key;
use crate::socket::Targets;

/// As long as Docker's proxy and the kernel's tracking of UDP streams keep one, about.
pub const IDLE: Duration = Duration::from_secs(90);
/// How many clients one port serves at a time; further ones are refused and counted.
pub const CLIENTS_MAX: usize = 4096;

/// Who sent a datagram and to which of the host's addresses.
pub type Client = (SocketAddr, Option<IpAddr>);

/// A UDP host port.
#[derive(Debug)]
pub struct Port {
    pub fd: OwnedFd,
    pub targets: Targets,
    pub clients: HashMap<Client, Key>,
}

/// A client's way to the container.
#[derive(Debug)]
pub struct Flow {
    pub port: Key,
    pub client: Client,
    fd: OwnedFd,
    pub last: Instant,
}

impl Flow {
    /// Opens the socket towards the container.
    pub fn start(port: Key, client: Client, target: SocketAddr) -> io::Result<Self> {
        let fd = net::socket(target.ip(), Transport::Udp, false)?;
        net::connect(fd.as_fd(), target)?;
        Ok(Self {
            port,
            client,
            fd,
            last: Instant::now(),
        })
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Passes a client's datagram on. One that is refused is lost, as datagrams are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.last = Instant::now();
        let _ = rustix::net::send(
            &self.fd,
            bytes,
            rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT,
        );
    }

    /// Takes one answer of the container's; `None` where there is none.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            match rustix::net::recv(&self.fd, &mut *buffer, rustix::net::RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    self.last = Instant::now();
                    return Some(length);
                }
                // The container does not listen: the error is taken and the flow waits for its end.
                Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }
}

impl Port {
    /// Sends an answer to the client from the address it had asked.
    pub fn answer(&self, client: Client, bytes: &[u8]) {
        // A full queue loses the datagram, as queues do.
        let _ = net::send_datagram(self.fd.as_fd(), bytes, client.0, client.1);
    }
}
