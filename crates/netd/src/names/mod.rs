//! Names: who bears them, who may ask, and the questions that are on their way. The loop that moves them is
//! [`crate::server`]'s.
//!
//! ```text
//!  127.0.0.11:53 in a container ──rules there──▶ its sockets ──▶ message ──▶ asker ──▶ zone        known: answered
//!                                                                             │
//!                                                                             └──▶ upstream ──▶ servers of the host
//!                                                                                               or of the container
//! ```

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use gantry_sys::net;

use crate::slab::Key;

pub mod asker;
pub mod connection;
pub mod files;
pub mod host_file;
pub mod message;
pub mod random;
pub mod upstream;
pub mod zone;

use asker::Asker;
use upstream::Place;

/// A container's sockets.
#[derive(Debug)]
pub struct Open {
    pub udp: Key,
    pub tcp: Key,
    pub netns: Rc<OwnedFd>,
    pub shim: Option<Key>,
}

/// A container that asks.
#[derive(Debug)]
pub struct Resolver {
    pub asker: Asker,
    /// `None` after a restart, until somebody hands them over.
    pub open: Option<Open>,
    pub connections: usize,
    pub pending: usize,
}

/// Everything about names.
#[derive(Debug)]
pub struct Names {
    pub zones: zone::Zones,
    pub resolvers: HashMap<Rc<str>, Resolver>,
    pub files: files::Files,
    pub host_files: host_file::HostFiles,
    pub random: random::Random,
    /// The answer that is being written.
    pub answer: Vec<u8>,
    pub found: Vec<IpAddr>,
    /// Questions and connections with the time at which they are looked at; in order, for each kind waits equally long.
    pub upstream_deadlines: VecDeque<(Instant, Key)>,
    pub connection_deadlines: VecDeque<(Instant, Key)>,
    pub pending: usize,
    pub lookups: u64,
    pub refused: u64,
    pub host_netns: File,
}

impl Names {
    /// Reads what an earlier netd has left in `directory`.
    pub fn load(directory: &Path) -> io::Result<Self> {
        let files = files::Files::new(directory);
        let mut zones = zone::Zones::default();
        for endpoint in files.names() {
            zones.put(endpoint);
        }
        let resolvers = files.resolvers().into_iter().map(|resolver| {
            let asker = Asker::from(&resolver);
            (resolver.container.into(), Resolver::new(asker))
        });
        Ok(Self {
            zones,
            resolvers: resolvers.collect(),
            files,
            host_files: host_file::HostFiles::new(),
            random: random::Random::default(),
            answer: Vec::new(),
            found: Vec::new(),
            upstream_deadlines: VecDeque::new(),
            connection_deadlines: VecDeque::new(),
            pending: 0,
            lookups: 0,
            refused: 0,
            host_netns: File::open("/proc/self/ns/net")?,
        })
    }

    /// Runs a piece of work where sockets are to be made.
    pub fn at<T>(host_netns: &File, place: &Place, work: impl FnOnce() -> Option<T>) -> Option<T> {
        let Place::Container(netns) = place else {
            return work();
        };
        net::setns_net(netns.as_fd()).ok()?;
        let done = work();
        if net::setns_net(host_netns.as_fd()).is_err() {
            // In a container's namespace this process must do nothing more; the daemon starts another.
            std::process::abort();
        }
        done
    }

    /// Tells when the next deadline is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let upstream = self.upstream_deadlines.front();
        let connection = self.connection_deadlines.front();
        upstream
            .into_iter()
            .chain(connection)
            .map(|(due, _)| *due)
            .min()
    }
}

impl Resolver {
    pub fn new(asker: Asker) -> Self {
        Self {
            asker,
            open: None,
            connections: 0,
            pending: 0,
        }
    }
}
