//! Over netd's death: a keeper on the same descriptor table holds what clients, containers and ports are connected to, and
//! the next netd takes it over.
//!
//! ```text
//! netd ──clone(CLONE_FILES)──▶ keeper          one table of descriptors; the keeper sleeps
//!  ✗                            │ closes what must end with netd: the daemon's connections, the lock, sockets of names
//!                               │ keeps TCP connections, pipes, ports and the ledger for at most a minute
//! next netd ──pidfd_getfd(2)────┤ copies them, starts a keeper of its own, and writes that one into the mark
//!           ──SIGKILL──────────▶✗ what nobody has copied ends
//! ```
//! The mark is what the lock file holds: which process keeps, when it was started, and under which number it has the
//! ledger. A keeper that is not named there ends at once with its netd. So a netd that is killed while it takes over
//! leaves everything where it was; until the mark is written it changes nothing.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use gantry_sys::net;
use gantry_sys::process::{self, Child, Keep};
use gantry_sys::unix;
use rustix::fs::FileType;
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use crate::ledger::{self, Entry, FAILED};
use crate::pipe::Pipe;
use crate::tcp::Found;

/// How long the next netd is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a killed keeper may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// The mark's length: it is written at once, padded with blanks.
const MARK_BYTES: usize = 128;
/// Where containers ask for names.
const NAMES_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
/// How many descriptors are left free by what is taken over, so that a daemon can connect and a keeper be started.
const FREE: usize = 16;
/// So many descriptors have room in the table from the start. A shared table grows slowly: the kernel waits until no
/// processor uses the one before.
const TABLE_MIN: i32 = 1024;

/// A process by its number, and by the time of its start, since numbers are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    pid: i32,
    /// Clock ticks since the machine's start (proc(5), `starttime`).
    start: u64,
}

impl Identity {
    fn of(pid: i32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name is in parentheses and may hold anything.
        let start = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19)?.parse().ok())
            .ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pid, start })
    }

    /// Opens the process, if it is still the same.
    fn open(self) -> Option<OwnedFd> {
        let pidfd = process::pidfd_open(self.pid).ok()?;
        (Self::of(self.pid).ok()? == self).then_some(pidfd)
    }
}

/// What the lock file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    keeper: Identity,
    /// The ledger's number there.
    ledger: i32,
    /// Whom the keeper has replaced: it is of no use any more, and perhaps not dead yet.
    before: Option<Identity>,
}

impl Mark {
    fn encode(&self) -> [u8; MARK_BYTES] {
        let before = self.before.unwrap_or(Identity { pid: 0, start: 0 });
        let text = format!(
            "{} {} {} {} {}",
            self.keeper.pid, self.keeper.start, self.ledger, before.pid, before.start
        );
        let mut bytes = [b' '; MARK_BYTES];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        bytes[MARK_BYTES - 1] = b'\n';
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(bytes).ok()?.split_ascii_whitespace();
        let mut number = || words.next()?.parse::<u64>().ok();
        let mut identity = |ledger: bool| {
            let pid = i32::try_from(number()?).ok()?;
            let start = number()?;
            let ledger = if ledger { number()? } else { 0 };
            Some((Identity { pid, start }, i32::try_from(ledger).ok()?))
        };
        let (keeper, ledger) = identity(true)?;
        let (before, _) = identity(false)?;
        Some(Self {
            keeper,
            ledger,
            before: (before.pid != 0).then_some(before),
        })
    }
}

/// What is needed to have a keeper.
#[derive(Debug)]
pub struct Keeping {
    /// A pidfd of this process.
    own: OwnedFd,
    /// The lock file, by a description of its own, which holds no lock.
    mark: File,
    /// The host's network namespace, where the kernel tells it.
    netns: Option<u64>,
}

impl Keeping {
    /// Opens the mark in netd's directory.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let own = process::pidfd_open(pid)?;
        let mark = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(directory.join("lock"))?;
        let any = net::socket([0, 0, 0, 0].into(), net::Transport::Udp, false)?;
        // Room in the table; where the limit is lower there is less.
        drop(process::dup_above(own.as_fd(), TABLE_MIN - 1));
        Ok(Self {
            own,
            mark,
            netns: net::netns_cookie(any.as_fd()).ok(),
        })
    }

    fn read_mark(&self) -> Option<Mark> {
        let mut bytes = [0; MARK_BYTES];
        self.mark.read_exact_at(&mut bytes, 0).ok()?;
        Mark::parse(&bytes)
    }

    /// Finds the keeper of a predecessor that was killed.
    pub fn predecessor(&self) -> Option<Predecessor> {
        let mark = self.read_mark()?;
        if let Some(pidfd) = mark.before.and_then(Identity::open) {
            end(&pidfd);
        }
        Some(Predecessor {
            pidfd: mark.keeper.open()?,
            identity: mark.keeper,
            ledger: mark.ledger,
            netns: self.netns,
        })
    }

    /// Starts a keeper and names it in the mark, in the place of the predecessor's.
    pub fn start(&self, ledger: &OwnedFd, before: Option<&Predecessor>) -> io::Result<Child> {
        let number = ledger.as_raw_fd();
        let netns = self.netns;
        let mark = &self.mark;
        let child = process::keep_descriptors(&Keep {
            name: c"gantry-keeper",
            caller: self.own.as_fd(),
            patience: PATIENCE,
            is_wanted: || is_named(mark),
            keeps: |fd: BorrowedFd<'_>| fd.as_raw_fd() == number || is_kept(fd, netns),
        })?;
        let mark = Identity::of(child.pid).map(|keeper| Mark {
            keeper,
            ledger: number,
            before: before.map(|before| before.identity),
        });
        match mark.and_then(|mark| self.mark.write_all_at(&mark.encode(), 0)) {
            Ok(()) => Ok(child),
            Err(error) => {
                end_child(&child);
                Err(error)
            }
        }
    }

    /// Ends the keeper: nothing of this netd is to outlive it.
    pub fn end(&self, keeper: &Child) -> io::Result<()> {
        end_child(keeper);
        self.mark.set_len(0)
    }
}

fn end(pidfd: &OwnedFd) {
    // One that is gone already needs no end.
    let _ = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
    let _ = unix::wait_readable(pidfd.as_fd(), END_TIMEOUT);
}

fn end_child(child: &Child) {
    end(&child.pidfd);
    let _ = process::wait_pidfd(child.pidfd.as_fd(), false);
}

/// Says whether the mark names this process. Runs in the keeper: nothing is allocated.
fn is_named(mark: &File) -> bool {
    let mut bytes = [0; MARK_BYTES];
    let own = rustix::process::getpid().as_raw_nonzero().get();
    rustix::io::pread(mark, &mut bytes, 0).is_ok()
        && Mark::parse(&bytes).is_some_and(|mark| mark.keeper.pid == own)
}

/// Says whether a descriptor is of those that a successor may want. Runs in the keeper: nothing is allocated.
fn is_kept(fd: BorrowedFd<'_>, netns: Option<u64>) -> bool {
    match kind(fd, netns) {
        Some(Kind::Tcp | Kind::Udp) => true,
        Some(Kind::Other) => false,
        None => rustix::fs::fstat(fd)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    /// Not connected: a port, and no way to a container or to a server.
    Udp,
    Other,
}

/// Tells what a socket of the host's is; `None`: it is no socket.
fn kind(fd: BorrowedFd<'_>, netns: Option<u64>) -> Option<Kind> {
    let kind = sockopt::socket_type(fd).ok()?;
    let is_internet = matches!(
        sockopt::socket_domain(fd),
        Ok(AddressFamily::INET | AddressFamily::INET6)
    );
    // Sockets of names are inside the containers' namespaces, and the shims keep those that are to be kept.
    let is_strange = match netns {
        Some(netns) => net::netns_cookie(fd).is_ok_and(|cookie| cookie != netns),
        // Before Linux 5.14 their address tells them, and a port of the host's that has the same is made anew.
        None => rustix::net::getsockname(fd)
            .ok()
            .and_then(|local| SocketAddr::try_from(local).ok())
            .is_some_and(|local| local.ip() == NAMES_ADDRESS),
    };
    Some(match kind {
        _ if !is_internet || is_strange => Kind::Other,
        SocketType::STREAM if sockopt::socket_protocol(fd) == Ok(Some(ipproto::TCP)) => Kind::Tcp,
        SocketType::DGRAM if rustix::net::getpeername(fd).is_err() => Kind::Udp,
        _ => Kind::Other,
    })
}

/// The keeper of a netd that was killed.
#[derive(Debug)]
pub struct Predecessor {
    identity: Identity,
    pidfd: OwnedFd,
    ledger: i32,
    netns: Option<u64>,
}

/// What a killed netd has left.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// Connections that it carried.
    pub pairs: Vec<Found>,
    /// Connections that it had accepted and not come to carry.
    pub clients: Vec<OwnedFd>,
    /// Sockets that keep ports.
    pub ports: Vec<OwnedFd>,
}

impl Predecessor {
    fn copy(&self, number: i32) -> rustix::io::Result<OwnedFd> {
        pidfd_getfd(&self.pidfd, number, PidfdGetfdFlags::empty())
    }

    /// Copies everything that is of use, ports first; the keeper has it still. Connections for which there are not
    /// enough descriptors, and those of a ledger that another version wrote, are reset when the keeper ends.
    ///
    /// # Errors
    /// Where the kernel forbids it (pidfd_getfd(2)), and where the keeper has ended.
    pub fn inherit(&self) -> io::Result<Inheritance> {
        let entries = ledger::read(&File::from(self.copy(self.ledger)?));
        let is_readable = entries.is_ok();
        let entries = entries.unwrap_or_default();
        let mut known: HashSet<i32> = [self.ledger].into();
        for entry in &entries {
            known.extend([entry.client, entry.server]);
            let pipes = entry.pipes.iter().flatten();
            known.extend(pipes.flat_map(|pipe| [pipe.0, pipe.1]));
        }
        let mut found = Inheritance::default();
        let mut clients = Vec::new();
        for number in descriptors(self.identity.pid)? {
            if known.contains(&number) {
                continue;
            }
            // Anything may have been closed meanwhile.
            let Ok(fd) = self.copy(number) else { continue };
            match kind(fd.as_fd(), self.netns) {
                Some(Kind::Udp) => found.ports.push(fd),
                Some(Kind::Tcp) if sockopt::socket_acceptconn(&fd) == Ok(true) => {
                    found.ports.push(fd);
                }
                // Nobody knows what belongs together.
                Some(Kind::Tcp) if !is_readable => reset_at_the_end(&fd),
                // Accepted ones have it from their listener; those that netd makes itself have it not.
                Some(Kind::Tcp) if sockopt::socket_reuseaddr(&fd) == Ok(true) => {
                    clients.push(number);
                }
                _ => {}
            }
        }
        let mut free: Vec<File> = (0..FREE).map_while(|_| spare()).collect();
        for entry in entries {
            found.pairs.extend(self.inherit_pair(entry, &mut free));
        }
        for number in clients {
            match self.copy(number) {
                Ok(fd) => found.clients.push(fd),
                Err(_) => self.give_up(number, &mut free),
            }
        }
        Ok(found)
    }

    /// Has a socket reset that is not taken over, when the keeper ends. Uses one of the free descriptors.
    fn give_up(&self, number: i32, free: &mut Vec<File>) {
        free.pop();
        if let Ok(fd) = self.copy(number) {
            reset_at_the_end(&fd);
        }
        free.extend(spare());
    }

    /// Copies what belongs to an entry; `None`: it was being closed, or there is no descriptor for it.
    fn inherit_pair(&self, mut entry: Entry, free: &mut Vec<File>) -> Option<Found> {
        let numbers = [entry.client, entry.server];
        let sockets = numbers.map(|number| self.copy(number));
        let (client, server) = match sockets {
            [Ok(client), Ok(server)] => (client, server),
            sockets => {
                let was_closed = sockets
                    .iter()
                    .any(|socket| matches!(socket, Err(rustix::io::Errno::BADF)));
                drop(sockets);
                // One side that ends while the other is lost would look like the end of all its bytes.
                if !was_closed || entry.flags & FAILED != 0 {
                    for number in numbers {
                        self.give_up(number, free);
                    }
                }
                return None;
            }
        };
        let pipes = entry.pipes.map(|pipe| {
            let (reader, writer) = pipe?;
            let adopted = self
                .copy(reader)
                .and_then(|reader| Ok((reader, self.copy(writer)?)))
                .map_err(io::Error::from)
                .and_then(|(reader, writer)| Pipe::adopt(reader, writer));
            // Without its bytes the connection cannot go on.
            if adopted.is_err() {
                entry.flags |= FAILED;
            }
            adopted.ok()
        });
        Some(Found {
            client,
            server,
            pipes,
            entry,
        })
    }

    /// Ends the keeper, and with it whatever nobody has copied.
    pub fn end(self) {
        end(&self.pidfd);
    }
}

/// Has a connection reset when the last one that holds it closes it.
fn reset_at_the_end(fd: &OwnedFd) {
    // If it fails, an end of file is sent after all.
    let _ = net::set_abort_on_close(fd.as_fd());
}

/// Takes up a descriptor, to be closed where another one is needed.
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Lists the numbers of a process's descriptors.
fn descriptors(pid: i32) -> io::Result<Vec<i32>> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd"))?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let keeper = Identity {
            pid: i32::MAX,
            start: u64::MAX,
        };
        for before in [None, Some(Identity { pid: 7, start: 9 }), Some(keeper)] {
            let mark = Mark {
                keeper,
                ledger: 12,
                before,
            };
            assert_eq!(Mark::parse(&mark.encode()), Some(mark));
        }
        for bytes in [
            &b""[..],
            b"1 2 3 4",
            b"1 2 x 4 5",
            b"\xff 2 3 4 5",
            &[0; 128],
        ] {
            assert_eq!(Mark::parse(bytes), None);
        }
    }

    #[test]
    fn a_process_with_the_number_of_another_is_not_taken_for_it() {
        let pid = std::process::id().cast_signed();
        let own = Identity::of(pid).unwrap();
        assert!(own.open().is_some());
        let start = own.start + 1;
        assert!(Identity { pid, start }.open().is_none());
    }

    #[test]
    fn what_carries_and_what_keeps_ports_is_kept_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = UdpSocket::bind("[::1]:0").unwrap();
        let flow = UdpSocket::bind("127.0.0.1:0").unwrap();
        flow.connect("127.0.0.1:9").unwrap();
        let (pipe, _writer) = rustix::pipe::pipe().unwrap();
        let (unix, _peer) = unix::socketpair().unwrap();
        let file = File::open("/dev/null").unwrap();
        let netns = net::netns_cookie(port.as_fd()).ok();
        let kept = |fd: BorrowedFd<'_>| is_kept(fd, netns);
        assert!(kept(listener.as_fd()) && kept(client.as_fd()));
        assert!(kept(port.as_fd()) && kept(pipe.as_fd()));
        assert!(!kept(flow.as_fd()) && !kept(unix.as_fd()) && !kept(file.as_fd()));
        // Where the kernel tells namespaces apart, those of another are not.
        if let Some(netns) = netns {
            assert!(!is_kept(listener.as_fd(), Some(netns + 1)));
        }
        // Elsewhere the address does.
        let names = TcpListener::bind("127.0.0.11:0").unwrap();
        assert!(is_kept(listener.as_fd(), None) && !is_kept(names.as_fd(), None));
    }
}
