//! The kernel switches that networks need: forwarding, and loopback routing on bridges with published ports.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use gantry_sys::netlink::{Socket, route};

use super::{Shared, lock};
use crate::firewall::{Options, foreign};
use crate::{Error, Report};

/// A family whose packets are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    V4,
    V6,
}

/// What became of a family's forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forwarding {
    /// It is on, or is not needed.
    Stood,
    /// It was off and was switched on.
    Enabled,
    /// It was on without this engine's doing, and somebody switched it off.
    Withdrawn,
}

/// Which families the machine forwarded without this engine's doing, as this daemon saw it.
#[derive(Debug, Default)]
pub(super) struct ForwardedBefore {
    ipv4: bool,
    ipv6: bool,
}

impl ForwardedBefore {
    fn of(&mut self, protocol: Protocol) -> &mut bool {
        match protocol {
            Protocol::V4 => &mut self.ipv4,
            Protocol::V6 => &mut self.ipv6,
        }
    }
}

impl Options {
    fn guards_mut(&mut self, protocol: Protocol) -> &mut bool {
        match protocol {
            Protocol::V4 => &mut self.guard_ipv4,
            Protocol::V6 => &mut self.guard_ipv6,
        }
    }
}

/// How the report of forwarding that was switched on again begins.
pub(super) const FORWARDING: &str = "forwarding of ";

impl Protocol {
    pub(super) const fn of(ipv6: bool) -> Self {
        if ipv6 { Self::V6 } else { Self::V4 }
    }

    const fn switch(self) -> &'static str {
        match self {
            Self::V4 => "/proc/sys/net/ipv4/ip_forward",
            Self::V6 => "/proc/sys/net/ipv6/conf/all/forwarding",
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::V4 => "net.ipv4.ip_forward",
            Self::V6 => "net.ipv6.conf.all.forwarding",
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// Gives the file that says that this engine switched forwarding on.
    const fn note(self) -> &'static str {
        match self {
            Self::V4 => "ip_forward",
            Self::V6 => "ip6_forward",
        }
    }
}

/// The machine's neighbour table is one for all namespaces, and by default it holds 1024 entries: a container that
/// talks takes two, one of the host's and one of its own.
const NEIGHBOURS: [(&str, u32); 3] = [
    ("/proc/sys/net/ipv4/neigh/default/gc_thresh3", 65_536),
    ("/proc/sys/net/ipv4/neigh/default/gc_thresh2", 32_768),
    ("/proc/sys/net/ipv4/neigh/default/gc_thresh1", 16_384),
];
/// So many containers are served by the kernel's default.
const NEIGHBOURS_DEFAULT_SERVES: usize = 256;

fn localnet_path(interface: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{interface}/route_localnet")
}

fn write(path: &str, value: &str) -> Result<(), Error> {
    fs::write(path, value).map_err(Error::kernel("write", path))
}

/// Writes a switch unless it has the value already.
fn ensure(path: &str, value: &str) -> Result<bool, Error> {
    let standing = fs::read_to_string(path).map_err(Error::kernel("read", path))?;
    if standing.trim() == value {
        return Ok(false);
    }
    write(path, value)?;
    Ok(true)
}

impl Shared {
    /// Says whether the networks need forwarding of a family, and the daemon may switch it on.
    pub(super) fn forwards(&self, protocol: Protocol) -> bool {
        let needed = |network: &super::Network| {
            network.bridge().is_some() && !network.info.internal && network.info.ipv6.is_some()
        };
        self.config.ip_forward
            && (protocol == Protocol::V4 || lock(&self.state).networks.values().any(needed))
    }

    /// Switches forwarding on where it is off and needed, and says what it found.
    ///
    /// First the rules that keep the other interfaces apart, then the note, then the switch: whoever is killed in between
    /// leaves no machine that forwards for strangers, and no note of a switch that is still off. To be called when the
    /// state is whole, since the rules are those of the state.
    pub(super) fn enable_forwarding(&self, protocol: Protocol) -> Result<Forwarding, Error> {
        if !self.forwards(protocol) {
            return Ok(Forwarding::Stood);
        }
        let switch = protocol.switch();
        let standing = fs::read_to_string(switch).map_err(Error::kernel("read", switch))?;
        let note = self.state_file(protocol.note());
        let is_ours = note.exists();
        let before = {
            let state = &mut *lock(&self.state);
            let found = state.forwarded_before.of(protocol);
            if standing.trim() != "0" {
                *found |= !is_ours;
                return Ok(Forwarding::Stood);
            }
            if *found && !is_ours {
                return Ok(Forwarding::Withdrawn);
            }
            let guard = state.options.guards_mut(protocol);
            std::mem::replace(guard, !self.config.ip_forward_no_drop)
        };
        let done = self.turn_on(protocol, &note);
        if done.is_err() && !is_ours {
            // Whoever turns the switch later is not this engine.
            *lock(&self.state).options.guards_mut(protocol) = before;
            if let Err(error) = fs::remove_file(&note)
                && error.kind() != io::ErrorKind::NotFound
            {
                (self.config.warn)(&format!("remove `{}`: {error}", note.display()));
            }
        }
        done.map(|()| Forwarding::Enabled)
    }

    /// Turns the switch, once rules and note stand.
    fn turn_on(&self, protocol: Protocol, note: &Path) -> Result<(), Error> {
        self.apply_firewall(&mut Report::default())?;
        if protocol == Protocol::V6 {
            self.keep_router_advertisements()?;
        }
        fs::write(note, "switched on by this engine\n")
            .map_err(Error::kernel("write", note.display().to_string()))?;
        write(protocol.switch(), "1")
    }

    /// Switches forwarding on again that this engine had switched on and somebody switched off. What the machine did
    /// before the engine came is its administrator's: he is told.
    pub(super) fn mend_forwarding(&self, report: &mut Report) -> Result<(), Error> {
        for protocol in [Protocol::V4, Protocol::V6] {
            let name = protocol.name();
            match self.enable_forwarding(protocol)? {
                Forwarding::Stood => {}
                Forwarding::Enabled => {
                    report.repaired(None, None, format!("{FORWARDING}{name}"));
                }
                Forwarding::Withdrawn => report.warnings.push(format!(
                    "forwarding of {name} was switched off by somebody. It was on before this engine came, so it is left: \
                     until `sysctl -w {}=1` containers reach nothing beyond this machine by {name}, nor are they reached",
                    protocol.key()
                )),
            }
        }
        Ok(())
    }

    /// Says whether this engine switched forwarding on since the boot and has to keep the other interfaces apart.
    pub(super) fn guards_forwarding(&self, protocol: Protocol) -> bool {
        self.state_file(protocol.note()).exists() && !self.config.ip_forward_no_drop
    }

    /// A host that forwards ignores router advertisements and drops the routes that it has from them, its own way to
    /// the world among them, unless `accept_ra` says 2. Said before forwarding is on, and only of interfaces that live
    /// by such a route.
    fn keep_router_advertisements(&self) -> Result<(), Error> {
        let (links, routes) = {
            let rtnl = lock(&self.rtnl);
            let failed = || Error::kernel("list", "routes");
            (
                route::links(&rtnl).map_err(failed())?,
                route::routes(&rtnl).map_err(failed())?,
            )
        };
        for link in links {
            let lives_by_it = routes.iter().any(|route| {
                route.is_default() && route.advertised && route.link == Some(link.index)
            });
            let path = format!("/proc/sys/net/ipv6/conf/{}/accept_ra", link.name);
            if lives_by_it && fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1") {
                write(&path, "2")?;
            }
        }
        Ok(())
    }

    /// Keeps containers from telling the host routes by router advertisements (CVE-2020-13401), and gives a bridge
    /// IPv6 where its network has it.
    pub(super) fn tame_ipv6(&self, interface: &str, enabled: bool) -> Result<(), Error> {
        if !self.ipv6 {
            return match enabled {
                true => Err(Error::Invalid("the kernel has no IPv6".to_owned())),
                false => Ok(()),
            };
        }
        let directory = format!("/proc/sys/net/ipv6/conf/{interface}");
        if !enabled && !Path::new(&directory).exists() {
            // Its MTU is too small for IPv6.
            return Ok(());
        }
        ensure(&format!("{directory}/accept_ra"), "0")?;
        if enabled {
            ensure(&format!("{directory}/disable_ipv6"), "0")?;
        }
        Ok(())
    }

    /// Switches forwarding off again if this engine switched it on and nobody else forwards: without our table the
    /// machine would be a router. Where another firewall has rules for what is forwarded, others rely on the switch by
    /// now, and its rules say what may pass.
    pub(super) fn withdraw_forwarding(&self, nfnl: &Socket) -> Result<(), Error> {
        let legacy =
            fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
        let failed = Error::kernel("look through", "other firewalls");
        if !legacy.is_empty() || foreign::others_forward(nfnl, &self.table).map_err(failed)? {
            return Ok(());
        }
        for protocol in [Protocol::V4, Protocol::V6] {
            let note = self.state_file(protocol.note());
            if note.exists() {
                ensure(protocol.switch(), "0")?;
                fs::remove_file(&note)
                    .map_err(Error::kernel("remove", note.display().to_string()))?;
            }
        }
        Ok(())
    }

    /// Sets `route_localnet` on each bridge that has a port to be reached by 127.0.0.1, and only there.
    ///
    /// Called after the guard against CVE-2020-8558 stands. `changed`: the one network whose need changed, if it is known.
    pub(super) fn apply_loopback_routing(
        &self,
        changed: Option<&str>,
    ) -> Result<Vec<String>, Error> {
        let wanted: Vec<(bool, String, bool)> = {
            let state = lock(&self.state);
            state
                .networks
                .values()
                .filter(|network| network.bridge().is_some())
                .map(|network| {
                    let needed = self.config.firewall && network.loopback_ports > 0;
                    let concerned = changed.is_none_or(|id| network.info.id == id);
                    (concerned, network.info.interface.clone(), needed)
                })
                .collect()
        };
        let mut guarded: Vec<String> = wanted
            .iter()
            .filter(|(_, _, needed)| *needed)
            .map(|(_, interface, _)| interface.clone())
            .collect();
        // The switch of a bridge that is down is left as it is.
        let down = lock(&self.state).down_interfaces();
        guarded.extend(
            down.into_iter()
                .filter_map(|(interface, _, needed)| needed.then_some(interface)),
        );
        {
            // Whoever outlives this daemon must know before the switch is on.
            let mut known = lock(&self.guarded);
            if known.as_ref() != Some(&guarded) && (known.is_some() || !guarded.is_empty()) {
                self.config
                    .reserver
                    .guard(&self.table, &guarded)
                    .map_err(Error::Reserver)?;
                *known = Some(guarded);
            }
        }
        let mut switched = Vec::new();
        let concerned = wanted.into_iter().filter(|(concerned, ..)| *concerned);
        for (_, interface, needed) in concerned {
            let path = localnet_path(&interface);
            match ensure(&path, if needed { "1" } else { "0" }) {
                Ok(true) => switched.push(path),
                // The bridge is gone; a reconciliation makes it again and comes here anew.
                Err(Error::Kernel { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                answer => drop(answer?),
            }
        }
        Ok(switched)
    }

    /// Makes room in the neighbour table once there are many endpoints; never less room than there was.
    pub(super) fn make_room_for_neighbours(&self) {
        let endpoints: usize = {
            let state = lock(&self.state);
            state
                .networks
                .values()
                .map(|network| network.endpoints.len())
                .sum()
        };
        if endpoints <= NEIGHBOURS_DEFAULT_SERVES
            || self.neighbours_raised.swap(true, Ordering::Relaxed)
        {
            return;
        }
        for (path, wanted) in NEIGHBOURS {
            let raised = fs::read_to_string(path).and_then(|standing| {
                let enough = standing
                    .trim()
                    .parse::<u32>()
                    .is_ok_and(|standing| standing >= wanted);
                if enough {
                    Ok(())
                } else {
                    fs::write(path, wanted.to_string())
                }
            });
            match raised {
                // Only the machine's first namespace has these switches.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => (self.config.warn)(&format!("write `{path}`: {error}")),
                Ok(()) => {}
            }
        }
    }

    /// Takes `route_localnet` off all bridges at once: the guard is missing.
    pub(super) fn forbid_loopback_routing(&self) {
        for (interface, _) in self.bridges() {
            // Nothing better can be done about a failure than going on to the next one; the guard comes back anyway.
            let _ = fs::write(localnet_path(&interface), "0");
        }
    }
}
