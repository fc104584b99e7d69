//! What the daemon says about names.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Client, unexpected};
use crate::protocol::{NamedEndpoint, Reply, Request, Resolver};

/// Where a container asks: what netd listens on, and where it asks others for the container.
#[derive(Debug)]
pub struct Sockets {
    pub udp: OwnedFd,
    pub tcp: OwnedFd,
    pub netns: OwnedFd,
    /// A pidfd of the container's shim: with its end the sockets are closed, also while no daemon lives.
    pub shim: Option<OwnedFd>,
}

impl Sockets {
    /// Takes descriptors in the order in which they are sent: UDP, TCP, namespace and perhaps the shim.
    pub fn from_fds(fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        let sockets = Self {
            udp: fds.next()?,
            tcp: fds.next()?,
            netns: fds.next()?,
            shim: fds.next(),
        };
        fds.next().is_none().then_some(sockets)
    }

    fn borrow(&self) -> Vec<BorrowedFd<'_>> {
        [&self.udp, &self.tcp, &self.netns]
            .into_iter()
            .chain(&self.shim)
            .map(AsFd::as_fd)
            .collect()
    }
}

impl Client {
    fn expect_ok(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        match self.call_with(request, fds)? {
            Reply::Ok => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Replaces all names of a network.
    pub fn names(&self, network: &str, endpoints: Vec<NamedEndpoint>) -> io::Result<()> {
        let network = network.to_owned();
        self.expect_ok(&Request::Names { network, endpoints }, &[])
    }

    /// Sets the names of one endpoint.
    pub fn put_names(&self, endpoint: NamedEndpoint) -> io::Result<()> {
        self.expect_ok(&Request::PutNames { endpoint }, &[])
    }

    /// Takes the names of one endpoint away; none is no error.
    pub fn drop_names(&self, network: &str, endpoint: &str) -> io::Result<()> {
        let request = Request::DropNames {
            network: network.to_owned(),
            endpoint: endpoint.to_owned(),
        };
        self.expect_ok(&request, &[])
    }

    /// Sets or replaces a container's resolver; without `sockets` those of before stay.
    pub fn resolver(&self, resolver: &Resolver, sockets: Option<&Sockets>) -> io::Result<()> {
        let fds = sockets.map(Sockets::borrow).unwrap_or_default();
        self.expect_ok(&Request::Resolver(resolver.clone()), &fds)
    }

    /// Hands over the sockets of a container whose resolver netd knows from its files.
    pub fn sockets(&self, container: &str, sockets: &Sockets) -> io::Result<()> {
        let container = container.to_owned();
        self.expect_ok(&Request::Sockets { container }, &sockets.borrow())
    }

    /// Takes a container's resolver away and closes its sockets; none is no error.
    pub fn drop_resolver(&self, container: &str) -> io::Result<()> {
        let container = container.to_owned();
        self.expect_ok(&Request::DropResolver { container }, &[])
    }

    /// Names the containers whose sockets netd lacks because it was started anew.
    pub fn resolvers(&self) -> io::Result<Vec<String>> {
        match self.call(&Request::Resolvers)? {
            Reply::Resolvers { containers } => Ok(containers),
            other => Err(unexpected(&other)),
        }
    }
}
