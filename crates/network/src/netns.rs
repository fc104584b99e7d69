//! A container's network namespace: made or entered by a thread of its own, so that the caller stays where it is.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use gantry_sys::net;
use gantry_sys::netlink::{Batch, Family, Socket, route};

use crate::Error;

/// The loopback interface is the first of every namespace.
const LOOPBACK_INDEX: u32 = 1;

/// A network namespace and a rtnetlink socket inside it.
#[derive(Debug)]
pub struct Netns {
    pub fd: OwnedFd,
    pub rtnl: OwnedFd,
}

impl Netns {
    /// Makes a new network namespace (unshare(2)). About 0.6 ms.
    ///
    /// Interfaces made in it later have IPv6 switched off, as Docker leaves them on networks without IPv6; `lo` keeps
    /// its `::1`.
    pub fn create() -> io::Result<Self> {
        in_thread(|| {
            net::unshare_net()?;
            match fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1") {
                // The kernel has no IPv6.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                written => written?,
            }
            Ok(Self {
                fd: File::open("/proc/thread-self/ns/net")?.into(),
                rtnl: Socket::open(Family::Route)?.into(),
            })
        })
    }

    /// Opens a socket inside the namespace that `fd` (of /proc/PID/ns/net) stands for.
    pub fn open(fd: OwnedFd) -> io::Result<Self> {
        in_thread(|| {
            net::setns_net(fd.as_fd())?;
            Ok(Self {
                fd,
                rtnl: Socket::open(Family::Route)?.into(),
            })
        })
    }

    /// Opens a socket inside the namespace that a descriptor stands for, which stays the caller's.
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Self::open(fd.try_clone_to_owned()?)
    }

    /// Opens a socket inside the namespace of a process.
    pub fn of_process(pid: i32) -> io::Result<Self> {
        Self::open(File::open(format!("/proc/{pid}/ns/net"))?.into())
    }

    /// Runs in the namespace, on a thread of its own.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        in_thread(|| {
            net::setns_net(self.fd.as_fd())?;
            work()
        })
    }

    /// Gives the socket as one that speaks netlink.
    pub(crate) fn socket(&self) -> io::Result<Socket> {
        Ok(Socket::from(self.rtnl.try_clone()?))
    }
}

/// Runs a piece of work in a thread of its own, which may leave the caller's namespace.
pub(crate) fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("netns".to_owned())
            .stack_size(64 * 1024)
            .spawn_scoped(scope, work)?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Brings `lo` up: all that network mode `none` needs.
pub fn loopback_up(netns: &Netns) -> Result<(), Error> {
    let failed = || Error::kernel("bring up", "lo");
    let socket = netns.socket().map_err(failed())?;
    let mut batch = Batch::new();
    route::set_up(&mut batch, LOOPBACK_INDEX);
    socket
        .execute(&mut batch)
        .map_err(|error| failed()(error.into()))
}

/// Adds what `lo` needs to a batch for a socket inside the namespace.
pub(crate) fn add_loopback_up(batch: &mut Batch) {
    route::set_up(batch, LOOPBACK_INDEX);
}
