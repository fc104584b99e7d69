//! The host's resolv.conf: read when it is first needed and again whenever it has changed.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// How many servers are asked at most (Docker's and the C libraries' figure).
pub const SERVERS_MAX: usize = 3;
const PORT: u16 = 53;

/// Asked where the host names nobody, from the container's namespace, as Docker does.
pub const DEFAULT_SERVERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
    IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4)),
];

/// The servers of files, kept until a file changes.
#[derive(Debug)]
pub struct HostFiles {
    /// Without it (no more watches to be had) files are read for each question.
    inotify: Option<OwnedFd>,
    servers: HashMap<PathBuf, Rc<[SocketAddr]>>,
}

/// Gives the servers' addresses, with the DNS port.
pub fn with_port(addresses: &[IpAddr]) -> Rc<[SocketAddr]> {
    let addresses = addresses.iter().take(SERVERS_MAX);
    addresses
        .map(|&address| SocketAddr::new(address, PORT))
        .collect()
}

/// Reads a server's address, perhaps with an interface: `fe80::1%eth0`.
fn server(text: &str) -> Option<SocketAddr> {
    let Some((address, zone)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, PORT));
    };
    if zone.contains('/') || zone.starts_with('.') {
        return None;
    }
    let scope = zone.parse().ok().or_else(|| {
        let index = fs::read_to_string(format!("/sys/class/net/{zone}/ifindex")).ok()?;
        index.trim().parse().ok()
    })?;
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into())
}

fn servers(text: &str) -> Rc<[SocketAddr]> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next())?
        })
        .filter_map(server)
        .take(SERVERS_MAX)
        .collect()
}

impl HostFiles {
    pub fn new() -> Self {
        Self {
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok(),
            servers: HashMap::new(),
        }
    }

    /// Gives the descriptor that is readable once a file may have changed.
    pub fn events(&self) -> Option<&OwnedFd> {
        self.inotify.as_ref()
    }

    /// Takes all notices; the files are read anew when they are next needed.
    pub fn changed(&mut self) {
        if let Some(inotify) = &self.inotify {
            let mut buffer = [0; 4096];
            while rustix::io::read(inotify, &mut buffer).is_ok_and(|length| length > 0) {}
        }
        self.servers.clear();
    }

    /// Returns the servers that a file names, none where there is no such file.
    pub fn servers(&mut self, path: &Path) -> Rc<[SocketAddr]> {
        if let Some(known) = self.servers.get(path) {
            return known.clone();
        }
        // Watched before it is read, so that no change goes unseen.
        let is_watched = self.watch(path).is_ok();
        let found = servers(&fs::read_to_string(path).unwrap_or_default());
        if is_watched {
            self.servers.insert(path.to_owned(), found.clone());
        }
        found
    }

    /// Watches a file, the one that it links to, and the directories in which either may be replaced.
    fn watch(&self, path: &Path) -> io::Result<()> {
        let Some(inotify) = &self.inotify else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let replaced = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE;
        let written = WatchFlags::CLOSE_WRITE | WatchFlags::MODIFY | WatchFlags::ATTRIB;
        let target = fs::canonicalize(path);
        for file in [Some(path), target.as_deref().ok()].into_iter().flatten() {
            let directory = file.parent().unwrap_or(Path::new("/"));
            inotify::add_watch(inotify, directory, replaced)?;
            match inotify::add_watch(inotify, file, written) {
                Err(rustix::io::Errno::NOENT) => {}
                added => drop(added?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(servers: &[SocketAddr]) -> Vec<String> {
        servers
            .iter()
            .map(|server| server.ip().to_string())
            .collect()
    }

    #[test]
    fn at_most_three_servers_are_taken_and_other_lines_are_not() {
        let text = "# nameserver 9.9.9.9\nsearch lan\nnameserver 10.0.0.1 # first\n nameserver ::1\n\
            nameserver nonsense\nnameserver fe80::1%7\nnameserver 10.0.0.4\n";
        let found = servers(text);
        assert_eq!(addresses(&found), ["10.0.0.1", "::1", "fe80::1"]);
        assert!(matches!(found[2], SocketAddr::V6(address) if address.scope_id() == 7));
    }

    #[test]
    fn a_changed_replaced_or_relinked_file_is_read_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (link, one, two) = (
            directory.path().join("resolv.conf"),
            directory.path().join("one"),
            directory.path().join("two"),
        );
        fs::write(&one, "nameserver 10.0.0.1\n").unwrap();
        fs::write(&two, "nameserver 10.0.0.2\n").unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let mut files = HostFiles::new();
        let check = |files: &mut HostFiles, want: &[&str]| {
            let events = files.events().unwrap();
            gantry_sys::unix::wait_readable(
                std::os::fd::AsFd::as_fd(events),
                std::time::Duration::from_secs(5),
            )
            .unwrap();
            files.changed();
            assert_eq!(addresses(&files.servers(&link)), want);
        };
        assert_eq!(addresses(&files.servers(&link)), ["10.0.0.1"]);
        fs::write(&one, "nameserver 10.0.0.3\n").unwrap();
        check(&mut files, &["10.0.0.3"]);
        fs::remove_file(&link).unwrap();
        check(&mut files, &[]);
        std::os::unix::fs::symlink(&two, &link).unwrap();
        check(&mut files, &["10.0.0.2"]);
    }
}
