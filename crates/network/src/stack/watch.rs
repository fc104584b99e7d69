//! Sees at once what somebody else takes away: `nft flush ruleset` and restarts of firewalls; bridges and interfaces that
//! are deleted, set down, taken off their bridge or lose their addresses; forwarding that is switched off.
//!
//! The guard against CVE-2020-8558 goes with the table, so loopback routing is taken back first, then the rules are made
//! again from the state in memory. Any change of the ruleset by another program leads to a comparison, at most one in a
//! second: a firewall that was just switched on may drop what ours lets pass.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gantry_sys::netlink::route::{self, Loss};
use gantry_sys::netlink::{Family, Socket};
use gantry_sys::nft;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::sysctl::{FORWARDING, Protocol};
use super::{Shared, State, bridge, lock};
use crate::{Repair, Report};

/// A restarting firewall deletes and makes its tables in several steps; ours come back after them.
const SETTLE: Duration = Duration::from_millis(50);
/// Comparisons for changes of others come no closer than this.
const CHANGES_APART: Duration = Duration::from_secs(1);
/// So often in a row the same is mended and told as soon as it is seen. After that somebody means it.
const PATIENCE: u32 = 5;
/// The longest time between two repairs of what is changed again and again.
const APART_MAX: Duration = Duration::from_secs(64);
/// What was left alone for so long has no past.
const FORGET: Duration = Duration::from_secs(300);
/// After a repair that failed it is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a network that is down is left alone between attempts.
const DOWN_AGAIN: Duration = Duration::from_secs(5);

pub(super) struct Watch {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let watcher = Watcher {
            shared: Arc::clone(shared),
            rules: subscribed(Family::Netfilter, &[nft::GROUP])?,
            links: subscribed(Family::Route, &route::LOSS_GROUPS)?,
            stop: Arc::clone(&stop),
            seen: Seen::default(),
            touched: Touched::default(),
            due: (!lock(&shared.state).down.is_empty()).then(|| Instant::now() + DOWN_AGAIN),
            compared: None,
            told: HashSet::new(),
            lost: HashSet::new(),
            mended: Repeats::default(),
            repairs: Repeats::default(),
        };
        let thread = thread::Builder::new()
            .name("network-watch".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || watcher.run())?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

fn subscribed(family: Family, groups: &[u32]) -> io::Result<Socket> {
    let socket = Socket::open(family)?;
    socket.subscribe(groups)?;
    Ok(socket)
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

/// What was seen since the last comparison.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// The engine's table went.
    table: bool,
    /// Another program changed the ruleset.
    rules: bool,
    /// A bridge or a container's interface went, or is not what it was.
    links: bool,
    /// Forwarding was switched off.
    forwarding: bool,
}

/// Whose tables a change of the ruleset touches.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Touched {
    /// That of the reserver, which guards beside the engine's own.
    guard: bool,
    others: bool,
}

struct Watcher {
    shared: Arc<Shared>,
    rules: Socket,
    links: Socket,
    stop: Arc<OwnedFd>,
    seen: Seen,
    /// What the change of the ruleset that is being told is about, until its end is told.
    touched: Touched,
    /// When what was seen is looked into.
    due: Option<Instant>,
    compared: Option<Instant>,
    /// Warnings are given once each.
    told: HashSet<String>,
    /// The interfaces and switches of which something is lost.
    lost: HashSet<String>,
    /// How often each of them was mended.
    mended: Repeats,
    /// How often each repair was made.
    repairs: Repeats,
}

/// How often the same happened of late.
#[derive(Debug, Default)]
struct Repeats(HashMap<String, (u32, Instant)>);

impl Repeats {
    /// Notes that it happened once more, and says how often it did.
    fn count(&mut self, what: &str, now: Instant) -> u32 {
        self.0.retain(|_, (_, last)| now - *last < FORGET);
        let entry = self.0.entry(what.to_owned()).or_insert((0, now));
        *entry = (entry.0 + 1, now);
        entry.0
    }

    /// Says when it may happen again: after a time that doubles.
    fn next(&self, what: &str) -> Option<Instant> {
        let &(times, last) = self.0.get(what)?;
        let doublings = times.saturating_sub(PATIENCE).min(31);
        Some(last + (CHANGES_APART * (1 << doublings)).min(APART_MAX))
    }
}

impl Watcher {
    fn run(mut self) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let now = Instant::now();
            if self.due.is_some_and(|due| due <= now) {
                self.compare();
                continue;
            }
            let wait = self.due.map(|due| timespec(due - now));
            let mut fds = [
                PollFd::new(&self.rules, PollFlags::IN),
                PollFd::new(&self.links, PollFlags::IN),
                PollFd::new(&*self.stop, PollFlags::IN),
            ];
            match poll(&mut fds, wait.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
                Ok(_) => {}
            }
            let [rules, links, stop] = fds.map(|fd| !fd.revents().is_empty());
            if stop {
                return;
            }
            if rules {
                self.receive_rules(&mut buffer);
            }
            if links {
                self.receive_links(&mut buffer);
            }
        }
    }

    fn receive_rules(&mut self, buffer: &mut [u8]) {
        let (table, rules) = match self.rules.receive(buffer) {
            Ok(length) => {
                let datagram = &buffer[..length];
                for table in nft::changed_tables(datagram) {
                    let is_guard = table.strip_suffix("-guard") == Some(&self.shared.table);
                    self.touched.guard |= is_guard;
                    self.touched.others |= !is_guard;
                }
                let changed_by = nft::changed_by(datagram);
                // With its end a change has been told whole.
                let touched = match changed_by {
                    Some(_) => std::mem::take(&mut self.touched),
                    None => self.touched,
                };
                let is_guards = touched.guard && !touched.others;
                (
                    nft::deleted_tables(datagram).contains(&self.shared.table),
                    !is_guards && changed_by.is_some_and(|thread| !is_own(thread)),
                )
            }
            // The queue overflowed: what was lost may have been the table's end.
            Err(error) => {
                let lost = error.raw_os_error() == Some(libc::ENOBUFS);
                (lost, lost)
            }
        };
        if table {
            self.shared.forbid_loopback_routing();
            self.seen.table = true;
            self.look_by(Instant::now() + SETTLE);
        } else if rules {
            self.seen.rules = true;
            self.look_by(self.soon());
        }
    }

    fn receive_links(&mut self, buffer: &mut [u8]) {
        match self.links.receive(buffer) {
            Ok(length) => {
                for loss in route::losses(&buffer[..length]) {
                    let lost = match loss {
                        Loss::Forwarding { ipv6 } => {
                            let protocol = Protocol::of(ipv6);
                            let needed = self.shared.forwards(protocol);
                            self.seen.forwarding |= needed;
                            needed.then(|| format!("{FORWARDING}{}", protocol.name()))
                        }
                        Loss::Link(name) => {
                            let owned = self.shared.owns_link(&name);
                            self.seen.links |= owned;
                            owned.then_some(name)
                        }
                        Loss::Address { link, address } => {
                            let bridge = self.shared.owner_of_address(link, address);
                            self.seen.links |= bridge.is_some();
                            bridge
                        }
                    };
                    let Some(lost) = lost else { continue };
                    let soon = self.soon();
                    let next = self.mended.next(&lost);
                    self.look_by(next.map_or(soon, |next| next.max(soon)));
                    self.lost.insert(lost);
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                self.seen.links = true;
                self.seen.forwarding = true;
                self.look_by(self.soon());
            }
            Err(_) => {}
        }
    }

    /// Gives the moment of the next comparison: when what goes on has settled, and not too close to the last one.
    fn soon(&self) -> Instant {
        let soon = Instant::now() + SETTLE;
        let apart = self.compared.map(|compared| compared + CHANGES_APART);
        apart.map_or(soon, |apart| apart.max(soon))
    }

    /// Leaves for later what was mended again and again and is too early to be mended once more, if that is all that was
    /// seen of interfaces and switches.
    fn postpone(&mut self, seen: &mut Seen, now: Instant) {
        let next: Vec<Instant> = self
            .lost
            .iter()
            .filter_map(|lost| self.mended.next(lost))
            .collect();
        let first = next.iter().min();
        match first {
            Some(&first) if next.len() == self.lost.len() && first > now => {
                self.seen.links = std::mem::take(&mut seen.links);
                self.seen.forwarding = std::mem::take(&mut seen.forwarding);
                self.look_by(first);
            }
            _ => {
                for lost in std::mem::take(&mut self.lost) {
                    self.mended.count(&lost, now);
                }
            }
        }
    }

    fn look_by(&mut self, due: Instant) {
        self.due = Some(self.due.map_or(due, |standing| standing.min(due)));
    }

    /// Mends what is missing and says so.
    fn compare(&mut self) {
        let now = Instant::now();
        self.due = None;
        self.compared = Some(now);
        let mut seen = std::mem::take(&mut self.seen);
        let (none, down) = {
            let state = lock(&self.shared.state);
            (state.networks.is_empty(), state.lacks_networks())
        };
        if none && !down {
            // It was our own teardown.
            return;
        }
        self.postpone(&mut seen, now);
        let mut report = Report::default();
        let mut rules = Report::default();
        // The rules first: nothing else that fails may keep them away.
        let mut failed = Vec::new();
        let guarded = self
            .shared
            .apply_firewall(&mut rules)
            .map_err(|error| failed.push(error));
        if seen.links || down {
            failed.extend(self.shared.mend_interfaces(&mut report).err());
            if guarded.is_ok() {
                // A bridge that was made again lacks its switch.
                failed.extend(self.shared.apply_loopback_routing(None).err());
            }
        }
        if seen.forwarding && guarded.is_ok() {
            failed.extend(self.shared.mend_forwarding(&mut report).err());
        }
        if lock(&self.shared.state).lacks_networks() {
            self.look_by(Instant::now() + DOWN_AGAIN);
        }
        if !failed.is_empty() {
            self.seen.table |= seen.table;
            self.seen.rules |= seen.rules;
            self.seen.links |= seen.links;
            self.seen.forwarding |= seen.forwarding;
            self.look_by(Instant::now() + AGAIN);
        }
        if !rules.is_clean() && (seen.table || seen.rules) {
            let mut done = rules.restored;
            done.extend(
                rules
                    .removed
                    .into_iter()
                    .map(|what| format!("without {what}")),
            );
            report.repairs.push(Repair {
                network: None,
                container: None,
                text: format!("firewall rules: {}", done.join(", ")),
            });
        }
        report.warnings.extend(rules.warnings);
        for repair in report.repairs {
            let Repair {
                network,
                container,
                text,
            } = &repair;
            let times = self
                .repairs
                .count(&format!("{network:?} {container:?} {text}"), now);
            if times > PATIENCE {
                continue;
            }
            let text = text.clone();
            self.shared.tell(repair);
            if times == PATIENCE {
                (self.shared.config.warn)(&format!(
                    "{text}: somebody changes this again and again; from now on it is mended less often, and no more told"
                ));
            }
        }
        let failed = failed.iter().map(|error| {
            format!(
                "what the networks need was removed by somebody and cannot be restored: {}",
                error.whole()
            )
        });
        for warning in failed.chain(report.warnings) {
            if self.told.insert(warning.clone()) {
                (self.shared.config.warn)(&warning);
            }
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().cast_signed(),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// Tells whether a change was this process's. A thread that ended since counts as somebody else's, which costs a
/// comparison.
fn is_own(thread: u32) -> bool {
    Path::new(&format!("/proc/self/task/{thread}")).exists()
}

impl Shared {
    /// Tells the operator of a repair.
    pub(super) fn tell(&self, repair: Repair) {
        let what = match (&repair.network, &repair.container) {
            (None, None) if repair.text.starts_with(FORWARDING) => "forwarding was switched off",
            (None, None) => "the firewall rules were removed",
            (_, None) => "a bridge was removed or changed",
            (_, Some(_)) => "a container's interface was removed or changed",
        };
        (self.config.warn)(&format!("{what} by somebody; restored: {}", repair.text));
        (self.config.on_repair)(repair);
    }

    /// Says whether an interface is a bridge of this engine or belongs to a container that is connected.
    fn owns_link(&self, name: &str) -> bool {
        lock(&self.state).networks.values().any(|network| {
            network.info.interface == name && !network.leaving || network.connected.contains(name)
        })
    }

    /// Gives the bridge of this engine that is to have an address.
    fn owner_of_address(&self, link: u32, address: IpAddr) -> Option<String> {
        let state = lock(&self.state);
        let mut networks = state.networks.values().filter(|network| !network.leaving);
        let found = networks.find(|network| {
            network.index == link
                && network.bridge().is_some_and(|config| {
                    let own = bridge::own_addresses(config, &network.info);
                    own.iter().any(|(one, _)| *one == address)
                })
        });
        found.map(|network| network.info.interface.clone())
    }
}

impl State {
    /// Says whether a network is down, or the bridge of somebody else's that it uses is gone.
    fn lacks_networks(&self) -> bool {
        !self.down.is_empty() || self.networks.values().any(|network| network.index == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_again_and_again_may_happen_less_and_less_often() {
        let start = Instant::now();
        let mut repeats = Repeats::default();
        assert_eq!(repeats.next("br0"), None);
        let wait = |repeats: &Repeats| (repeats.next("br0").unwrap() - start).as_secs();
        let waits: Vec<u64> = (1..=40)
            .map(|times| {
                assert_eq!(repeats.count("br0", start), times);
                wait(&repeats)
            })
            .collect();
        assert_eq!(waits[..12], [1, 1, 1, 1, 1, 2, 4, 8, 16, 32, 64, 64]);
        assert_eq!(waits[39], 64);
        assert_eq!(repeats.next("br1"), None);
        assert_eq!(repeats.count("br0", start + FORGET), 1);
    }
}
