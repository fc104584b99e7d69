//! Sees a flushed ruleset at once: `nft flush ruleset` and firewall restarts take other people's tables along.
//!
//! The guard against CVE-2020-8558 went with the table, so loopback routing is taken back first, then the rules are
//! made again from the state in memory.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gantry_sys::netlink::{Family, Socket};
use gantry_sys::nft;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::Shared;
use crate::Report;

/// A restarting firewall deletes and makes its tables in several steps; ours come back after them.
const SETTLE: Duration = Duration::from_millis(50);

pub(super) struct Watch {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let socket = Socket::open(Family::Netfilter)?;
        socket.subscribe(nft::GROUP)?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let (shared, stopped) = (Arc::clone(shared), Arc::clone(&stop));
        let thread = thread::Builder::new()
            .name("ruleset-watch".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || run(&shared, &socket, &stopped))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // An eventfd takes this write at any time; if not, the thread just stays.
        if rustix::io::write(&*self.stop, &1u64.to_ne_bytes()).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, socket: &Socket, stop: &OwnedFd) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut fds = [
            PollFd::new(socket, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if !fds[1].revents().is_empty() => return,
            Ok(_) => {}
        }
        let lost = match socket.receive(&mut buffer) {
            Ok(length) => nft::deleted_tables(&buffer[..length]).contains(&shared.table),
            // The queue overflowed: what was lost may have been the table's end.
            Err(error) => error.raw_os_error() == Some(libc::ENOBUFS),
        };
        if !lost || shared.interfaces().is_empty() {
            continue;
        }
        shared.forbid_loopback_routing();
        thread::sleep(SETTLE);
        if shared.interfaces().is_empty() {
            // It was our own teardown.
            continue;
        }
        let mut report = Report::default();
        let text = match shared.apply_firewall(&mut report) {
            Ok(()) if report.is_clean() => continue,
            Ok(()) => format!(
                "the firewall rules were removed by somebody; restored: {}",
                report.restored.join(", ")
            ),
            Err(error) => format!(
                "the firewall rules were removed by somebody and cannot be restored: {error}"
            ),
        };
        (shared.config.warn)(&text);
    }
}
