//! The kernel compared with the records: what lacks is made, what nobody owns is removed, the rest is left alone.
//!
//! Only objects with this engine's mark are touched: the table by its name, interfaces by their alias, rules in other
//! tables by their comment, reservations by the endpoint's id.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use gantry_sys::netlink::{Batch, route};
use gantry_sys::nft::{self, Family, Transaction};

use super::{Shared, Stack, State, bridge, inside, lock, macvlan, publish};
use crate::firewall::{Publication, Way, diff, foreign};
use crate::{Endpoint, Error, Netns, PublishedPort, Report};

/// A container's port of a bridge, as it should be.
struct Port {
    bridge: u32,
    /// Its interface stands, or did: one that is being made is not mended.
    connected: bool,
    isolated: bool,
    published: bool,
    network: String,
    container: String,
}

impl Stack {
    /// Compares the kernel with what is allocated now and mends the difference; removes what has this engine's mark and
    /// no owner. May be called while endpoints come and go.
    pub fn reconcile(&self) -> Result<Report, Error> {
        // No list of the caller's: what was released since it was made would come back.
        self.reconcile_with(&[])
    }

    /// As [`Stack::reconcile`], after the endpoints of `live` are taken over.
    pub(super) fn reconcile_with(
        &self,
        live: &[(Endpoint, Vec<PublishedPort>)],
    ) -> Result<Report, Error> {
        let shared = &self.shared;
        let mut report = Report::default();
        shared.adopt(&mut lock(&shared.state), live, &mut report);
        let mended = shared.mend_interfaces(&mut report);
        let reserved = shared.reconcile_reservations(live, &mut report);
        // Whatever failed before, the rules stand.
        shared.apply_firewall(&mut report)?;
        mended.and(reserved)?;
        for (endpoint, ports) in live {
            if !ports.is_empty() {
                shared.allow_hairpin(&endpoint.host_interface)?;
            }
        }
        Ok(report)
    }
}

impl Shared {
    /// Takes over the endpoints and ports of containers that run since before the daemon started.
    pub(super) fn adopt(
        &self,
        state: &mut State,
        live: &[(Endpoint, Vec<PublishedPort>)],
        report: &mut Report,
    ) {
        for (endpoint, ports) in live {
            let Some(network) = state.networks.get_mut(&endpoint.network) else {
                self.wait_for_network(state, endpoint, ports);
                report.warnings.push(format!(
                    "container {} is on network {}, which is not up",
                    endpoint.container_id, endpoint.network
                ));
                continue;
            };
            if !network.endpoints.contains_key(&endpoint.id) {
                for address in network.adopt_addresses(endpoint) {
                    report.warnings.push(format!(
                        "address {address} of container {} is taken or outside of network {}",
                        endpoint.container_id,
                        network.config.name()
                    ));
                }
                network
                    .endpoints
                    .insert(endpoint.id.clone(), endpoint.clone());
                network.connected.insert(endpoint.host_interface.clone());
            }
            if ports.is_empty() {
                continue;
            }
            state.take_ports(endpoint, ports);
            let publications = self.publications(state, endpoint, ports);
            state.set_published(endpoint, publications);
        }
    }

    /// Makes again what somebody deleted, and deletes what nobody owns.
    pub(super) fn mend_interfaces(&self, report: &mut Report) -> Result<(), Error> {
        self.retry_down(report);
        let _alone = lock(&self.making);
        // One that fails must not keep the others from being mended.
        let bridges = self.restore_bridges(report);
        let swept = self.sweep_interfaces(report);
        let restored = self.restore_interfaces(report);
        bridges.and(swept).and(restored)
    }

    /// Makes again the bridges that somebody deleted, as many as it can. Gives the first error; the others are warnings.
    fn restore_bridges(&self, report: &mut Report) -> Result<(), Error> {
        let (links, addresses) = {
            let rtnl = lock(&self.rtnl);
            (
                route::links(&rtnl).map_err(Error::kernel("list", "interfaces"))?,
                route::addresses(&rtnl).map_err(Error::kernel("list", "addresses"))?,
            )
        };
        let bridges: Vec<_> = {
            let state = lock(&self.state);
            state
                .networks
                .values()
                .filter_map(|network| {
                    let config = network.bridge()?.clone();
                    Some((config, network.info.clone(), network.adopted, network.index))
                })
                .collect()
        };
        let mut answer = Ok(());
        for (config, info, adopted, known) in bridges {
            let link = links.iter().find(|link| link.name == info.interface);
            let missing = link.is_none();
            let text = match link {
                None => Some(format!("bridge {}", info.interface)),
                Some(link) => bridge::damage(link, &config, &info, &addresses),
            };
            // What was not made here is mended by whoever made it. One that he made anew is taken over as the first was.
            if adopted && link.is_none_or(|link| link.index == known) {
                if let Some(text) = text {
                    report.warnings.push(format!(
                        "network {} lacks {text}; the bridge is not this engine's, so that is left to whoever made it",
                        config.name
                    ));
                }
                if missing && let Some(network) = lock(&self.state).networks.get_mut(&config.id) {
                    network.index = 0;
                }
                continue;
            }
            let index = match self.ensure_bridge(&config, &info, missing, adopted, &addresses) {
                Ok(index) => index,
                Err(error) if answer.is_ok() => {
                    answer = Err(error);
                    continue;
                }
                Err(error) => {
                    report.warnings.push(error.whole());
                    continue;
                }
            };
            if let Some(text) = text {
                report.repaired(Some(&config.id), None, text);
            }
            if let Some(network) = lock(&self.state).networks.get_mut(&config.id) {
                network.index = index;
            }
        }
        answer
    }

    /// Makes again the interfaces of living containers that somebody deleted.
    fn restore_interfaces(&self, report: &mut Report) -> Result<(), Error> {
        let links = route::links(&lock(&self.rtnl)).map_err(Error::kernel("list", "interfaces"))?;
        let standing: HashSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
        let gone: Vec<Endpoint> = {
            let state = lock(&self.state);
            let bridges = state
                .networks
                .values()
                .filter(|network| network.bridge().is_some());
            bridges
                .flat_map(|network| {
                    let connected = network.endpoints.values().filter(|endpoint| {
                        network.connected.contains(&endpoint.host_interface)
                            && !standing.contains(endpoint.host_interface.as_str())
                    });
                    connected.cloned()
                })
                .collect()
        };
        for endpoint in gone {
            // A container that ends takes its interface along, and nobody is to make it again.
            let Some(fd) = (self.config.netns_of)(&endpoint.container_id) else {
                continue;
            };
            let text = format!("interface {} of a container", endpoint.container_interface);
            match self.restore_interface(&endpoint, fd) {
                Ok(()) => {
                    report.repaired(Some(&endpoint.network), Some(&endpoint.container_id), text)
                }
                Err(error) => report.warnings.push(format!(
                    "restore {text} {}: {}",
                    endpoint.container_id,
                    error.whole()
                )),
            }
        }
        Ok(())
    }

    fn restore_interface(&self, endpoint: &Endpoint, fd: OwnedFd) -> Result<(), Error> {
        let failed = || Error::kernel("enter", "network namespace");
        let netns = Netns::open(fd).map_err(failed())?;
        // Its default routes went with the interface; where others have them by now, they stay there.
        let routes = inside::missing_routes(&netns).map_err(failed())?;
        self.attach(endpoint, &netns, routes)?;
        if lock(&self.state).published.contains_key(&endpoint.id) {
            self.allow_hairpin(&endpoint.host_interface)?;
        }
        Ok(())
    }

    /// Deletes this engine's interfaces that no endpoint and no network owns; puts lost ports back onto their bridge.
    fn sweep_interfaces(&self, report: &mut Report) -> Result<(), Error> {
        let prefix = self.alias_prefix();
        let links = route::links(&lock(&self.rtnl)).map_err(Error::kernel("list", "interfaces"))?;
        let (owned, ports, kept) = {
            let state = lock(&self.state);
            let mut ports = HashMap::new();
            let waiting = state.waiting.iter();
            let mut owned: HashSet<String> = waiting
                .map(|waiting| waiting.endpoint.host_interface.clone())
                .collect();
            let kept: HashSet<String> =
                state.down.keys().map(|id| self.network_alias(id)).collect();
            for network in state.networks.values() {
                owned.insert(network.info.interface.clone());
                owned.extend(macvlan::far_end(network));
                for endpoint in network.endpoints.values() {
                    owned.insert(endpoint.host_interface.clone());
                    let port = Port {
                        bridge: network.index,
                        connected: network.connected.contains(&endpoint.host_interface),
                        isolated: !network.info.icc,
                        published: state.published.contains_key(&endpoint.id),
                        network: endpoint.network.clone(),
                        container: endpoint.container_id.clone(),
                    };
                    ports.insert(endpoint.host_interface.clone(), port);
                }
            }
            (owned, ports, kept)
        };
        let mut batch = Batch::new();
        let mut published = Vec::new();
        for link in &links {
            let Some(port) = ports.get(&link.name) else {
                continue;
            };
            if port.connected && !link.up {
                route::set_up(&mut batch, link.index);
                report.repaired(
                    Some(&port.network),
                    Some(&port.container),
                    format!("interface {}, which was down", link.name),
                );
            }
            if link.master == Some(port.bridge) || port.bridge == 0 {
                continue;
            }
            route::set_master(&mut batch, link.index, port.bridge);
            if port.isolated {
                route::isolate_port(&mut batch, link.index, true);
            }
            if port.published {
                published.push(link.name.clone());
            }
            report.repaired(
                Some(&port.network),
                Some(&port.container),
                format!("interface {} on its bridge", link.name),
            );
        }
        for link in &links {
            let marked = link
                .alias
                .as_deref()
                .is_some_and(|alias| alias.starts_with(&prefix) && !kept.contains(alias));
            if marked && !owned.contains(&link.name) {
                route::delete_link(&mut batch, link.index);
                report.removed.push(format!("interface {}", link.name));
            }
        }
        let answer = lock(&self.rtnl).execute(&mut batch);
        match answer {
            // A namespace that died meanwhile took its interface along.
            Err(error) if error.errno() == libc::ENODEV => {}
            answer => answer
                .map_err(|error| Error::kernel("mend or delete", "interfaces")(error.into()))?,
        }
        for name in published {
            self.allow_hairpin(&name)?;
        }
        Ok(())
    }

    fn reconcile_reservations(
        &self,
        live: &[(Endpoint, Vec<PublishedPort>)],
        report: &mut Report,
    ) -> Result<(), Error> {
        let reserver = &self.config.reserver;
        let owners = reserver.owners().map_err(Error::Reserver)?;
        let known: HashSet<String> = {
            let state = lock(&self.state);
            state
                .networks
                .values()
                .flat_map(|network| network.endpoints.keys())
                .chain(state.waiting.iter().map(|waiting| &waiting.endpoint.id))
                .cloned()
                .collect()
        };
        for owner in owners.iter().filter(|owner| !known.contains(*owner)) {
            reserver.release(owner).map_err(Error::Reserver)?;
            report.removed.push(format!("host ports of {owner}"));
        }
        // Ports that were about to pass to another endpoint: a reserver that died then may have given them to either.
        let mut is_moved = false;
        for (endpoint, _) in live.iter().filter(|(_, ports)| ports.is_empty()) {
            if owners.contains(&endpoint.id) {
                reserver.release(&endpoint.id).map_err(Error::Reserver)?;
                report
                    .removed
                    .push(format!("host ports of {}", endpoint.id));
                is_moved = true;
            }
        }
        for (endpoint, ports) in live.iter().filter(|(_, ports)| !ports.is_empty()) {
            if owners.contains(&endpoint.id) && !is_moved {
                continue;
            }
            let reservations = publish::reservations(endpoint, ports);
            if reservations.is_empty() {
                continue;
            }
            match reserver.reserve(&endpoint.id, &reservations) {
                Ok(()) => report
                    .restored
                    .push(format!("host ports of {}", endpoint.container_id)),
                // The container runs and its rules lead there; somebody else's socket cannot stop it.
                Err(error) => report
                    .warnings
                    .push(format!("host ports of {}: {error}", endpoint.container_id)),
            }
        }
        Ok(())
    }

    /// Makes the firewall table what it should be, then what depends on it.
    pub(super) fn apply_firewall(&self, report: &mut Report) -> Result<(), Error> {
        if !self.config.firewall {
            return Ok(());
        }
        let failed = || Error::kernel("set up firewall table", self.table.as_str());
        // The desired state is read under the socket's lock, so that of two callers the later one wins.
        let nfnl = lock(&self.nfnl);
        for _ in 0..10 {
            let desired = self.desired();
            let standing = diff::read(&nfnl, &self.table).map_err(failed())?;
            let mut changes = Report::default();
            match diff::plan(&desired, &standing, &mut changes).commit(&nfnl) {
                // Somebody flushed or changed the table between reading and writing.
                Err(error)
                    if matches!(error.errno(), libc::ENOENT | libc::EEXIST | libc::EBUSY) =>
                {
                    continue;
                }
                Err(error) => return Err(failed()(error.into())),
                Ok(()) => {}
            }
            report.restored.extend(changes.restored);
            report.removed.extend(changes.removed);
            break;
        }
        drop(nfnl);
        self.apply_foreign(report)?;
        let switched = self.apply_loopback_routing(None)?;
        report.restored.extend(switched);
        Ok(())
    }

    /// Sees to it that other firewalls let pass what ours lets pass, and notes what they keep out.
    pub(super) fn apply_foreign(&self, report: &mut Report) -> Result<(), Error> {
        let failed = || Error::kernel("look through", "other firewalls");
        let bridges = self.bridges();
        let nfnl = lock(&self.nfnl);
        let chains = nft::chains(&nfnl).map_err(failed())?;
        let mark = &self.config.engine_id;
        let outcome =
            foreign::reconcile(&nfnl, &chains, &self.table, mark, &bridges).map_err(failed())?;
        drop(nfnl);
        report.restored.extend(outcome.changes);
        report.warnings.extend(outcome.refused);
        let legacy = foreign::legacy_policies();
        report
            .warnings
            .extend(foreign::legacy_warnings(&legacy, &bridges));
        lock(&self.state).denied_by = foreign::denying(&chains, &legacy, &self.table);
        Ok(())
    }

    /// Tells once that published ports are reached although the host's own rules keep out what they do not allow.
    pub(super) fn warn_of_bypass(&self, publications: &[Publication]) {
        let reached_from_outside = publications.iter().any(|publication| {
            publication.way == Way::Rewritten && !publication.port.ip.is_loopback()
        });
        if !reached_from_outside || self.warned_of_bypass.load(Ordering::Relaxed) {
            return;
        }
        let denied_by = lock(&self.state).denied_by.clone();
        if let Some(chain) = denied_by
            && !self.warned_of_bypass.swap(true, Ordering::Relaxed)
        {
            (self.config.warn)(&foreign::bypass_warning(&chain));
        }
    }

    pub(super) fn teardown(&self) -> Result<(), Error> {
        let failed = || Error::kernel("remove firewall table", self.table.as_str());
        self.forbid_loopback_routing();
        // First of all the state: whoever sees the table go must find that it is not wanted any more.
        let endpoints: Vec<String> = {
            let mut state = lock(&self.state);
            state.published.clear();
            state.down.clear();
            let waiting = std::mem::take(&mut state.waiting);
            let networks = std::mem::take(&mut state.networks);
            networks
                .into_values()
                .flat_map(|network| network.endpoints.into_keys())
                .chain(waiting.into_iter().map(|waiting| waiting.endpoint.id))
                .collect()
        };
        {
            let nfnl = lock(&self.nfnl);
            let looking = || Error::kernel("look through", "other firewalls");
            let chains = nft::chains(&nfnl).map_err(looking())?;
            foreign::reconcile(&nfnl, &chains, &self.table, &self.config.engine_id, &[])
                .map_err(looking())?;
            // Before the table goes, whose rules keep the machine from being a router.
            self.withdraw_forwarding(&nfnl)?;
            if nft::tables(&nfnl)
                .map_err(failed())?
                .contains(&(Family::Inet, self.table.clone()))
            {
                let mut transaction = Transaction::new();
                transaction.delete_table(Family::Inet, &self.table);
                transaction
                    .commit(&nfnl)
                    .map_err(|error| failed()(error.into()))?;
            }
        }
        for endpoint in endpoints {
            self.config
                .reserver
                .release(&endpoint)
                .map_err(Error::Reserver)?;
        }
        // With no network left every interface of this engine is without an owner.
        let _alone = lock(&self.making);
        self.sweep_interfaces(&mut Report::default())
    }
}
