//! All networks of one engine: the state in memory and the sockets to the kernel.
//!
//! Locks: `state` is held for pure work alone, never over a system call; `rtnl` and `nfnl` serialise the two netlink
//! sockets and are taken one at a time. Whoever needs both state and a socket copies what it needs out of the state
//! first. The socket of a namespace belongs to the caller of `connect`. `making` is taken before all of them by whoever
//! makes, removes or mends networks as a whole: between the kernel's object and its entry in the state it has no owner.

mod announce;
mod bridge;
mod down;
mod endpoint;
mod inside;
mod macvlan;
mod network;
mod publish;
mod reap;
mod reconcile;
mod subnets;
mod sysctl;
mod transfer;
mod watch;

pub use bridge::{BadBridgeName, check_bridge_name};

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_sys::netlink::{Family, Socket, route};
use ipnet::IpNet;

use crate::firewall::{self, Bridge, Publication};
use crate::ipam::Pool;
use crate::{
    BridgeConfig, Endpoint, Error, NetworkConfig, NetworkInfo, PublishedPort, StackConfig, ports,
};
use sysctl::Protocol;

/// The MTU of an interface that leads nowhere.
const DUMMY_MTU: u32 = 1500;

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
    making: Mutex<()>,
    state: Mutex<State>,
    reaper: reap::Reaper,
    /// Whether the host has IPv6.
    ipv6: bool,
    /// The bridges that the reserver was told to guard.
    guarded: Mutex<Option<Vec<String>>>,
    /// The neighbour table was made larger.
    neighbours_raised: AtomicBool,
    /// The operator was told that published ports pass by the host's input rules.
    warned_of_bypass: AtomicBool,
}

#[derive(Default)]
pub(crate) struct State {
    networks: BTreeMap<String, Network>,
    /// Networks of the records that could not be brought up, by their id.
    down: BTreeMap<String, NetworkConfig>,
    /// Endpoints of living containers whose networks are not up.
    waiting: Vec<down::Waiting>,
    ports: ports::Table,
    /// Published ports by endpoint.
    published: HashMap<String, Vec<Publication>>,
    options: firewall::Options,
    forwarded_before: sysctl::ForwardedBefore,
    /// The chain of somebody else's that keeps out what is not allowed, if there is one.
    denied_by: Option<String>,
}

pub(crate) struct Network {
    info: NetworkInfo,
    config: NetworkConfig,
    /// The bridge's or the parent's interface index; 0 where somebody else's bridge is gone.
    index: u32,
    /// The interface was there before and is somebody else's.
    adopted: bool,
    pool4: Option<Pool>,
    pool6: Option<Pool>,
    endpoints: HashMap<String, Endpoint>,
    /// The host's interfaces of endpoints that are connected.
    connected: HashSet<String>,
    /// How many published ports are to be reached by the host's loopback.
    loopback_ports: usize,
    /// It is being removed: it has no rules any more and takes no endpoints.
    leaving: bool,
}

impl Network {
    /// Gives the bridge's configuration; `None` for other kinds of network.
    fn bridge(&self) -> Option<&BridgeConfig> {
        match &self.config {
            NetworkConfig::Bridge(config) => Some(config),
            NetworkConfig::Macvlan(_) => None,
        }
    }
}

/// Takes a lock; what a panicking thread leaves behind is whole, since each change of the state is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stack {
    /// Brings up the default bridge, the user-defined `networks` and the firewall table; takes the endpoints of `live`
    /// containers as allocated and connected and mends what differs. Changes nothing that stands already.
    pub fn open(
        config: StackConfig,
        networks: &[NetworkConfig],
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
            making: Mutex::default(),
            state: Mutex::default(),
            reaper: reap::Reaper::default(),
            ipv6: fs::exists("/proc/thread-self/net/if_inet6").unwrap_or(false),
            guarded: Mutex::default(),
            neighbours_raised: AtomicBool::new(false),
            warned_of_bypass: AtomicBool::new(false),
            config,
        });
        {
            let options = firewall::Options {
                guard_ipv4: shared.guards_forwarding(Protocol::V4),
                guard_ipv6: shared.guards_forwarding(Protocol::V6),
                direct_routing: shared.config.allow_direct_routing,
            };
            lock(&shared.state).options = options;
        }
        let mut stack = Self {
            shared,
            watch: None,
        };
        let before = stack.shared.landscape()?;
        let stood: HashSet<u32> = before.links.iter().map(|link| link.index).collect();
        if let Err(error) = stack.bring_up(networks, live, before) {
            stack.shared.take_down_all_but(&stood);
            return Err(error);
        }
        if stack.shared.config.watch {
            stack.watch = Some(
                watch::Watch::start(&stack.shared).map_err(Error::kernel("watch", "networks"))?,
            );
        }
        Ok(stack)
    }

    /// Makes of a machine as it is found what `open` gives.
    fn bring_up(
        &self,
        networks: &[NetworkConfig],
        live: &[(Endpoint, Vec<PublishedPort>)],
        before: subnets::Landscape,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        let reserved: Vec<IpNet> = networks.iter().flat_map(subnets::named).collect();
        let mut lost = Vec::new();
        {
            let _alone = lock(&shared.making);
            // Looked up once; what is made is added.
            let mut seen = Some(before);
            if let Some(bridge) = &shared.config.bridge {
                shared.add_network_alone(&bridge.clone().into(), &reserved, &mut seen)?;
            }
            for network in networks {
                // One network that cannot be brought up must not keep the others down.
                if let Err(error) = shared.add_network_alone(network, &reserved, &mut seen) {
                    lost.push(format!(
                        "bring up network {}: {}",
                        network.name(),
                        error.whole()
                    ));
                    lock(&shared.state)
                        .down
                        .insert(network.id().to_owned(), network.clone());
                }
            }
        }
        let report = self.reconcile_with(live)?;
        // IPv6 is forwarded once a network has it.
        for protocol in [Protocol::V4, Protocol::V6] {
            shared.enable_forwarding(protocol)?;
        }
        for warning in lost.iter().chain(&report.warnings) {
            (shared.config.warn)(warning);
        }
        Ok(())
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

    /// Says whether an interface with this MTU has IPv6.
    fn has_ipv6(&self, mtu: u32) -> bool {
        self.ipv6 && mtu >= route::IPV6_MTU_MIN
    }

    /// Gives the prefix of the aliases of this engine's interfaces.
    fn alias_prefix(&self) -> String {
        firewall::foreign::mark(&self.config.engine_id, "")
    }

    fn desired(&self) -> firewall::Ruleset {
        let state = lock(&self.state);
        let mut bridges: Vec<Bridge> = state
            .networks
            .values()
            .filter(|network| !network.leaving)
            .filter_map(network::rules)
            .collect();
        bridges.extend(state.down_rules());
        let publications: Vec<Publication> = state.published.values().flatten().copied().collect();
        firewall::desired(&self.table, &bridges, &publications, &state.options)
    }

    /// Gives the names of the engine's bridges, each with whether it has IPv6.
    fn bridges(&self) -> Vec<(String, bool)> {
        let state = lock(&self.state);
        state
            .networks
            .values()
            .filter(|network| network.bridge().is_some() && !network.leaving)
            .map(|network| (network.info.interface.clone(), network.info.ipv6.is_some()))
            .chain(
                state
                    .down_interfaces()
                    .into_iter()
                    .map(|(name, ipv6, _)| (name, ipv6)),
            )
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
