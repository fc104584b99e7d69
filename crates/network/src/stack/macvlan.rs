//! Networks that sit directly on an interface of the host: macvlan and ipvlan.
//!
//! A container's interface is made straight in its namespace and nothing of it stands in the host's, so such a network
//! costs the host a parent at most: a VLAN of an interface (`eth0.10`), or an interface that leads nowhere. Both carry
//! the engine's mark and go with the network. The firewall has no part in it.

use std::fs::File;
use std::os::fd::AsFd;

use gantry_sys::netlink::{Batch, route};

use super::subnets::Landscape;
use super::{DUMMY_MTU, Network, Shared, lock, random_mac};
use crate::firewall::short_id;
use crate::{
    Error, IpvlanFlag, IpvlanMode, MacvlanConfig, MacvlanKind, MacvlanMode, Netns, NetworkConfig,
    NetworkInfo,
};

const VLAN_IDS: std::ops::RangeInclusive<u16> = 1..=4094;

/// The name of an interface that is made to see whether it can be.
const PROBE: &str = "probe";

/// Where a network's interfaces are stacked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parent {
    /// It stands already.
    Standing(String),
    /// A VLAN to be made on an interface.
    Vlan { name: String, on: u32, id: u16 },
    /// An interface of its own that leads nowhere.
    Nowhere(String),
}

impl Parent {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Standing(name) | Self::Vlan { name, .. } | Self::Nowhere(name) => name,
        }
    }
}

/// Gives the kernel's numbers of a kind.
pub(super) fn stacked(kind: MacvlanKind) -> route::Stacked {
    match kind {
        MacvlanKind::Macvlan(mode) => route::Stacked::Macvlan {
            mode: match mode {
                MacvlanMode::Private => 1,
                MacvlanMode::Vepa => 2,
                MacvlanMode::Bridge => 4,
                MacvlanMode::Passthru => 8,
            },
        },
        MacvlanKind::Ipvlan(mode, flag) => route::Stacked::Ipvlan {
            mode: match mode {
                IpvlanMode::L2 => 0,
                IpvlanMode::L3 => 1,
                IpvlanMode::L3s => 2,
            },
            flags: match flag {
                IpvlanFlag::Bridge => 0,
                IpvlanFlag::Private => 1,
                IpvlanFlag::Vepa => 2,
            },
        },
    }
}

pub(super) fn word(kind: MacvlanKind) -> &'static str {
    match kind {
        MacvlanKind::Macvlan(_) => "macvlan",
        MacvlanKind::Ipvlan(..) => "ipvlan",
    }
}

/// Says whether containers of a network have their routes by the interface alone, without a gateway.
pub(super) fn is_routed(config: &NetworkConfig) -> bool {
    matches!(
        config,
        NetworkConfig::Macvlan(MacvlanConfig {
            kind: MacvlanKind::Ipvlan(IpvlanMode::L3 | IpvlanMode::L3s, _),
            ..
        })
    )
}

fn far_name(network: &str) -> String {
    format!("dp-{}", short_id(network))
}

/// Gives the name of the other end of a network's own interface that leads nowhere; there is one where the kernel has no
/// dummies.
pub(super) fn far_end(network: &Network) -> Option<String> {
    match &network.config {
        NetworkConfig::Macvlan(config) if config.parent.is_none() => Some(far_name(&config.id)),
        _ => None,
    }
}

/// Decides where a network's interfaces are stacked.
fn choose(links: &[route::Link], config: &MacvlanConfig) -> Result<Parent, Error> {
    let Some(name) = &config.parent else {
        let name = format!("dm-{}", short_id(&config.id));
        return Ok(match links.iter().any(|link| link.name == name) {
            true => Parent::Standing(name),
            false => Parent::Nowhere(name),
        });
    };
    if name == "lo" {
        return Err(Error::Invalid(format!(
            "loopback interface is not a valid {} parent link",
            word(config.kind)
        )));
    }
    if links.iter().any(|link| link.name == *name) {
        return Ok(Parent::Standing(name.clone()));
    }
    let Some((on, id)) = name.split_once('.') else {
        return Err(Error::Invalid(format!(
            "invalid subinterface vlan name {name}, example formatting is eth0.10"
        )));
    };
    let id: u16 = match id.parse::<u64>() {
        Ok(number) => u16::try_from(number)
            .ok()
            .filter(|id| VLAN_IDS.contains(id))
            .ok_or_else(|| {
                Error::Invalid(format!(
                    "vlan id must be between 1-4094, received: {number}"
                ))
            })?,
        Err(_) => {
            return Err(Error::Invalid(format!(
                "unable to parse a valid vlan id from: {id} (ex. eth0.10 for vlan 10)"
            )));
        }
    };
    let Some(link) = links.iter().find(|link| link.name == on) else {
        return Err(Error::Invalid(format!(
            "-o parent interface was not found on the host: {on}"
        )));
    };
    Ok(Parent::Vlan {
        name: name.clone(),
        on: link.index,
        id,
    })
}

impl Shared {
    /// Decides where a network's interfaces are stacked. Networks may share a parent, unless one of them hands it over
    /// whole.
    pub(super) fn choose_parent(
        &self,
        config: &MacvlanConfig,
        landscape: &Landscape,
    ) -> Result<Parent, Error> {
        const WHOLE: MacvlanKind = MacvlanKind::Macvlan(MacvlanMode::Passthru);
        let parent = choose(&landscape.links, config)?;
        let state = lock(&self.state);
        for network in state.networks.values() {
            let NetworkConfig::Macvlan(other) = &network.config else {
                continue;
            };
            if network.info.interface != parent.name() {
                continue;
            }
            let user = format!(
                "macvlan network {} is already using parent interface {}",
                other.id,
                parent.name()
            );
            if config.kind == WHOLE {
                return Err(Error::Conflict(format!("cannot use mode passthru, {user}")));
            }
            if other.kind == WHOLE {
                return Err(Error::Conflict(format!("{user} in mode passthru")));
            }
        }
        Ok(parent)
    }

    /// Makes what `parent` lacks and sees to it that the kernel can stack this kind of interface on it. Gives the
    /// parent's index and MTU.
    pub(super) fn ensure_parent(
        &self,
        config: &MacvlanConfig,
        parent: &Parent,
    ) -> Result<(u32, u32), Error> {
        let name = parent.name();
        let failed = || Error::kernel("set up parent interface", name);
        let mut batch = Batch::new();
        match parent {
            Parent::Standing(_) => {}
            Parent::Vlan { on, id, .. } => route::add_vlan(&mut batch, name, *on, *id),
            Parent::Nowhere(_) => route::add_dummy(&mut batch, name),
        }
        let ours = !batch.is_empty();
        if ours {
            route::set_alias(&mut batch, name, &self.network_alias(&config.id), self.ipv6);
            route::set_up_by_name(&mut batch, name);
        }
        let rtnl = lock(&self.rtnl);
        match (rtnl.execute(&mut batch), parent) {
            (Ok(()), _) => {}
            // Not every kernel has dummies. A veth pair between nobody and nobody leads nowhere either, and unlike a
            // bridge without ports it has a carrier.
            (Err(error), Parent::Nowhere(_)) if error.errno() == libc::EOPNOTSUPP => {
                let here = File::open("/proc/thread-self/ns/net").map_err(failed())?;
                let far = far_name(&config.id);
                let pair = route::VethPair {
                    host_name: name,
                    bridge: 0,
                    mtu: DUMMY_MTU,
                    peer_name: &far,
                    peer_address: random_mac().map_err(failed())?,
                    peer_netns: here.as_fd(),
                };
                let mut batch = Batch::new();
                route::add_veth(&mut batch, &pair);
                for end in [name, far.as_str()] {
                    route::set_alias(&mut batch, end, &self.network_alias(&config.id), self.ipv6);
                    route::set_up_by_name(&mut batch, end);
                }
                rtnl.execute(&mut batch)
                    .map_err(|error| failed()(error.into()))?;
            }
            (Err(error), Parent::Vlan { .. }) if error.errno() == libc::EOPNOTSUPP => {
                return Err(Error::Invalid(format!(
                    "failed to create the {name} vlan link: operation not supported: the kernel has no VLANs (8021q)"
                )));
            }
            (Err(error), _) => return Err(failed()(error.into())),
        }
        let link = route::link_by_name(&rtnl, name)
            .map_err(failed())?
            .ok_or_else(|| failed()(std::io::ErrorKind::NotFound.into()))?;
        drop(rtnl);
        if let Err(error) = self.probe(config.kind, link.index, link.mtu) {
            if ours {
                self.delete_own_link(name)?;
            }
            return Err(error);
        }
        Ok((link.index, link.mtu))
    }

    /// Stacks an interface of this kind in a namespace that is thrown away: not every kernel has them, and not every
    /// interface takes them.
    fn probe(&self, kind: MacvlanKind, parent: u32, mtu: u32) -> Result<(), Error> {
        let netns = Netns::create().map_err(Error::kernel("make", "network namespace"))?;
        let mut batch = Batch::new();
        let address = random_mac().map_err(Error::kernel("read", "random bytes"))?;
        route::add_stacked(
            &mut batch,
            parent,
            stacked(kind),
            PROBE,
            mtu,
            address,
            netns.fd.as_fd(),
        );
        let answer = lock(&self.rtnl).execute(&mut batch);
        match answer {
            Ok(()) => {
                // Now and not with its namespace: a parent that is handed over whole takes no second one.
                let failed = || Error::kernel("delete interface", PROBE);
                let inside = netns.socket().map_err(failed())?;
                let link = route::link_by_name(&inside, PROBE)
                    .map_err(failed())?
                    .ok_or_else(|| failed()(std::io::ErrorKind::NotFound.into()))?;
                let mut batch = Batch::new();
                route::delete_link(&mut batch, link.index);
                inside
                    .execute(&mut batch)
                    .map_err(|error| failed()(error.into()))
            }
            Err(error) if error.errno() == libc::EOPNOTSUPP => Err(Error::Invalid(format!(
                "operation not supported: the kernel has no {0} (CONFIG_{1})",
                word(kind),
                word(kind).to_uppercase()
            ))),
            // The parent is in use, perhaps by a container of this very network; whoever is connected next is told.
            Err(_) => Ok(()),
        }
    }

    /// Makes a container's interface on top of the network's parent.
    pub(super) fn add_stacked(
        &self,
        kind: MacvlanKind,
        info: &NetworkInfo,
        parent: u32,
        endpoint: &crate::Endpoint,
        netns: &Netns,
    ) -> Result<(), Error> {
        let mut batch = Batch::new();
        route::add_stacked(
            &mut batch,
            parent,
            stacked(kind),
            &endpoint.container_interface,
            endpoint.mtu,
            endpoint.mac.0,
            netns.fd.as_fd(),
        );
        let object = || format!("{} on {}", endpoint.container_interface, info.interface);
        lock(&self.rtnl)
            .execute(&mut batch)
            .map_err(|error| Error::kernel("make interface", object())(error.into()))?;
        if kind == MacvlanKind::Macvlan(MacvlanMode::Passthru) {
            // It begins with its parent's hardware address, whatever it is made with.
            let failed = || Error::kernel("set address of interface", object());
            let inside = netns.socket().map_err(failed())?;
            let mut batch = Batch::new();
            route::set_address(&mut batch, &endpoint.container_interface, endpoint.mac.0);
            inside
                .execute(&mut batch)
                .map_err(|error| failed()(error.into()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_stand_or_are_made_or_refused() {
        let links = [route::Link {
            index: 2,
            name: "eth0".to_owned(),
            ..route::Link::default()
        }];
        let check = |parent: Option<&str>| {
            let kind = MacvlanKind::Macvlan(MacvlanMode::Bridge);
            let config =
                MacvlanConfig::new("0123456789abcdef", "m", parent.map(str::to_owned), kind);
            choose(&links, &config).map_err(|error| error.to_string())
        };
        assert_eq!(
            check(None),
            Ok(Parent::Nowhere("dm-0123456789ab".to_owned()))
        );
        assert_eq!(check(Some("eth0")), Ok(Parent::Standing("eth0".to_owned())));
        assert_eq!(
            check(Some("eth0.10")),
            Ok(Parent::Vlan {
                name: "eth0.10".to_owned(),
                on: 2,
                id: 10
            })
        );
        for (parent, text) in [
            (
                "lo",
                "loopback interface is not a valid macvlan parent link",
            ),
            (
                "nope0",
                "invalid subinterface vlan name nope0, example formatting is eth0.10",
            ),
            (
                "nope0.10",
                "-o parent interface was not found on the host: nope0",
            ),
            (
                "eth0.99999",
                "vlan id must be between 1-4094, received: 99999",
            ),
        ] {
            assert_eq!(check(Some(parent)), Err(text.to_owned()));
        }
    }
}
