//! All networks of one engine: the state in memory and the sockets to the kernel.
//!
//! Locks: `state` is held for pure work alone, never over a system call; `rtnl` and `nfnl` serialise the two netlink
//! sockets and are taken one at a time. Whoever needs both state and a socket copies what it needs out of the state
//! first. The socket of a namespace belongs to the caller of `connect`.

mod bridge;
mod endpoint;
mod publish;
mod reap;
mod reconcile;
mod sysctl;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_sys::netlink::{Family, Socket};
use ipnet::Ipv4Net;

use crate::firewall::{self, Bridge, Publication};
use crate::ipam::{self, Pool};
use crate::{
    AddressPool, BridgeConfig, BridgeInfo, Endpoint, Error, PublishedPort, Report, StackConfig,
    ports,
};

/// All networks of one engine. Cheap to share behind an `Arc`; methods may be called from several threads.
pub struct Stack {
    shared: Arc<Shared>,
    watch: Option<watch::Watch>,
}

/// What the stack's own threads see as well.
pub(crate) struct Shared {
    config: StackConfig,
    table: String,
    rtnl: Mutex<Socket>,
    nfnl: Mutex<Socket>,
    /// A socket of the host's namespace for ioctls.
    control: OwnedFd,
    /// Sends announcements; opened when the first one is due.
    packets: Mutex<Option<OwnedFd>>,
    state: Mutex<State>,
    reaper: reap::Reaper,
    /// Whether the host has IPv6.
    ipv6: bool,
    /// The bridges that the reserver was told to guard.
    guarded: Mutex<Option<Vec<String>>>,
    /// The neighbour table was made larger.
    neighbours_raised: AtomicBool,
}

#[derive(Default)]
pub(crate) struct State {
    networks: BTreeMap<String, Network>,
    ports: ports::Table,
    /// Published ports by endpoint.
    published: HashMap<String, Vec<Publication>>,
    /// This engine switched `ip_forward` on and keeps other interfaces apart.
    guard_forwarding: bool,
}

pub(crate) struct Network {
    info: BridgeInfo,
    config: BridgeConfig,
    /// The bridge's interface index.
    index: u32,
    /// The bridge was there before and is somebody else's.
    adopted: bool,
    pool: Pool,
    endpoints: HashMap<String, Endpoint>,
}

/// Takes a lock; what a panicking thread leaves behind is whole, since each change of the state is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stack {
    /// Brings up the default bridge, the user-defined `networks` and the firewall table; takes the endpoints of `live`
    /// containers as allocated and mends what differs. Changes nothing that stands already.
    pub fn open(
        config: StackConfig,
        networks: &[BridgeConfig],
        live: &[(Endpoint, Vec<PublishedPort>)],
    ) -> Result<Self, Error> {
        let open = |family, object| {
            Socket::open(family).map_err(Error::kernel("open netlink socket", object))
        };
        let control = gantry_sys::net::socket(
            [127, 0, 0, 1].into(),
            gantry_sys::net::Transport::Udp,
            false,
        )
        .map_err(Error::kernel("open socket", "control"))?;
        let directory = config.exec_root.join("network");
        fs::create_dir_all(&directory).map_err(Error::kernel(
            "make directory",
            directory.display().to_string(),
        ))?;
        let shared = Arc::new(Shared {
            table: firewall::table_name(&config.engine_id),
            rtnl: Mutex::new(open(Family::Route, "route")?),
            nfnl: Mutex::new(open(Family::Netfilter, "netfilter")?),
            control,
            packets: Mutex::default(),
            state: Mutex::default(),
            reaper: reap::Reaper::default(),
            ipv6: fs::exists("/proc/net/if_inet6").unwrap_or(false),
            guarded: Mutex::default(),
            neighbours_raised: AtomicBool::new(false),
            config,
        });
        lock(&shared.state).guard_forwarding = shared.enable_forwarding()?;
        let reserved: Vec<Ipv4Net> = networks
            .iter()
            .filter_map(|network| network.subnet)
            .collect();
        if let Some(bridge) = &shared.config.bridge {
            shared.add_network(bridge, &reserved)?;
        }
        for network in networks {
            shared.add_network(network, &reserved)?;
        }
        let mut stack = Self {
            shared,
            watch: None,
        };
        let report = stack.reconcile_with(live)?;
        for warning in &report.warnings {
            (stack.shared.config.warn)(warning);
        }
        if stack.shared.config.watch && stack.shared.config.firewall {
            stack.watch = Some(
                watch::Watch::start(&stack.shared).map_err(Error::kernel("watch", "ruleset"))?,
            );
        }
        Ok(stack)
    }

    /// Describes the default bridge.
    pub fn bridge(&self) -> Option<BridgeInfo> {
        let id = &self.shared.config.bridge.as_ref()?.id;
        self.network(id).ok()
    }

    /// Describes a network.
    pub fn network(&self, id: &str) -> Result<BridgeInfo, Error> {
        lock(&self.shared.state)
            .networks
            .get(id)
            .map(|network| network.info.clone())
            .ok_or_else(|| Error::NetworkNotFound(id.to_owned()))
    }

    /// Makes a user-defined bridge network. Keep the answer's subnet and gateway in the record.
    pub fn create_network(&self, config: &BridgeConfig) -> Result<BridgeInfo, Error> {
        let info = self.shared.add_network(config, &[])?;
        self.shared.apply_firewall(&mut Report::default())?;
        Ok(info)
    }

    /// Removes a user-defined network without endpoints; one that is gone is no error.
    pub fn remove_network(&self, id: &str) -> Result<(), Error> {
        let removed = {
            let mut state = lock(&self.shared.state);
            match state.networks.get(id) {
                None => return Ok(()),
                Some(network) if !network.endpoints.is_empty() => {
                    return Err(Error::Conflict(format!(
                        "network {id} has active endpoints"
                    )));
                }
                Some(_) => state.networks.remove(id),
            }
        };
        self.shared.apply_firewall(&mut Report::default())?;
        match removed {
            Some(network) if !network.adopted => self.shared.delete_bridge(&network.info.interface),
            _ => Ok(()),
        }
    }

    /// Prints the firewall table as it should stand, with the reason of each rule.
    pub fn ruleset_text(&self) -> String {
        self.shared.desired().to_string()
    }

    /// Removes table, bridges, interfaces, reservations and marks in other tables: the engine is being uninstalled or
    /// was a test.
    pub fn teardown(&self) -> Result<(), Error> {
        self.shared.teardown()
    }
}

impl Shared {
    fn state_file(&self, name: &str) -> PathBuf {
        self.config.exec_root.join("network").join(name)
    }

    fn pools(&self) -> Vec<AddressPool> {
        if self.config.address_pools.is_empty() {
            ipam::default_pools()
        } else {
            self.config.address_pools.clone()
        }
    }

    /// Gives the prefix of the aliases of this engine's interfaces.
    fn alias_prefix(&self) -> String {
        firewall::foreign::mark(&self.config.engine_id, "")
    }

    fn desired(&self) -> firewall::Ruleset {
        let state = lock(&self.state);
        let bridges: Vec<Bridge> = state
            .networks
            .values()
            .map(|network| Bridge {
                interface: network.info.interface.clone(),
                subnet: network.info.subnet,
                icc: network.info.icc,
                masquerade: network.info.ip_masquerade,
                internal: network.info.internal,
            })
            .collect();
        let publications: Vec<Publication> = state.published.values().flatten().copied().collect();
        firewall::desired(&self.table, &bridges, &publications, state.guard_forwarding)
    }

    fn interfaces(&self) -> Vec<String> {
        let state = lock(&self.state);
        state
            .networks
            .values()
            .map(|network| network.info.interface.clone())
            .collect()
    }
}

/// Gives random bytes (getrandom(2)).
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += rustix::io::retry_on_intr(|| {
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
        })?;
    }
    Ok(bytes)
}

/// Gives a random hardware address: unicast, locally administered.
pub(crate) fn random_mac() -> io::Result<[u8; 6]> {
    let mut address = random::<6>()?;
    address[0] = address[0] & 0xfc | 0x02;
    Ok(address)
}
