//! Sockets of host ports that outlive netd: the daemon holds descriptors of them and hands them to the next one.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gantry_api::port::Reservation;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::{Client, unexpected};
use crate::protocol::{PortSocket, Reply, Request};
use crate::socket::{self, HostPort};

/// How many descriptors go with one request: fewer than the kernel's SCM_MAX_FD.
const BATCH: usize = 200;

/// Ports of the host, to be found without comparing all.
#[derive(Debug)]
pub struct HostPorts(HashSet<HostPort>);

impl HostPorts {
    /// Takes those of reservations.
    pub fn of(reservations: &[Reservation]) -> Self {
        Self(reservations.iter().map(socket::host_port).collect())
    }
}

/// A socket that keeps a host port, held beside netd.
#[derive(Debug)]
pub struct KeptPort {
    socket: PortSocket,
    fd: OwnedFd,
}

impl KeptPort {
    /// Who has reserved the port.
    pub fn owner(&self) -> &str {
        &self.socket.owner
    }

    /// Notes that the port is another owner's now, as [`PortReserver::transfer`] has it. Says whether it is one of
    /// `ports`; others were given back and must not be held.
    ///
    /// [`PortReserver::transfer`]: gantry_api::port::PortReserver::transfer
    pub fn transfer(&mut self, owner: &str, ports: &HostPorts) -> bool {
        owner.clone_into(&mut self.socket.owner);
        let Ok((port, addresses)) = socket::kept(self.fd.as_fd()) else {
            return false;
        };
        addresses
            .into_iter()
            .any(|address| ports.0.contains(&(self.socket.protocol, address, port)))
    }
}

impl Client {
    /// Duplicates the sockets that keep the ports of an owner, or of all, out of netd (pidfd_getfd(2), Linux 5.6).
    ///
    /// # Errors
    /// Where the kernel forbids it, and where netd ended meanwhile.
    pub fn ports(&self, owner: Option<&str>) -> io::Result<Vec<KeptPort>> {
        let pidfd = self.pidfd()?;
        let before = self.status()?.pid;
        let request = Request::Ports {
            owner: owner.map(str::to_owned),
        };
        let (pid, sockets) = match self.call(&request)? {
            Reply::Ports { pid, sockets } => (pid, sockets),
            other => return Err(unexpected(&other)),
        };
        let kept = sockets
            .into_iter()
            .map(|socket| {
                let fd = pidfd_getfd(&pidfd, socket.fd, PidfdGetfdFlags::empty())?;
                Ok(KeptPort { socket, fd })
            })
            .collect::<io::Result<Vec<_>>>()?;
        // The numbers are those of the process that the descriptor stands for, unless netd was started anew in between.
        if pid == before && self.status()?.pid == before {
            Ok(kept)
        } else {
            Err(io::ErrorKind::Interrupted.into())
        }
    }

    /// Hands sockets to a netd that was started anew; it takes those that it lacks.
    pub fn adopt_ports(&self, owner: &str, kept: &[KeptPort]) -> io::Result<()> {
        for batch in kept.chunks(BATCH) {
            let request = Request::AdoptPorts {
                owner: owner.to_owned(),
                sockets: batch.iter().map(|port| port.socket.clone()).collect(),
            };
            let fds: Vec<BorrowedFd<'_>> = batch.iter().map(|port| port.fd.as_fd()).collect();
            match self.call_with(&request, &fds)? {
                Reply::Ok => {}
                other => return Err(unexpected(&other)),
            }
        }
        Ok(())
    }
}
