//! The kernel compared with the records: what lacks is made, what nobody owns is removed, the rest is left alone.
//!
//! Only objects with this engine's mark are touched: the table by its name, interfaces by their alias, rules in other
//! tables by their comment, reservations by the endpoint's id.

use std::collections::HashSet;
use std::fs;

use gantry_api::port::Reservation;
use gantry_sys::netlink::{Batch, route};
use gantry_sys::nft::{self, Family, Transaction};

use super::{Shared, Stack, lock, publish};
use crate::firewall::{diff, foreign};
use crate::{Endpoint, Error, PublishedPort, Report};

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
        shared.adopt(live, &mut report);
        shared.restore_bridges(&mut report)?;
        shared.sweep_interfaces(&mut report)?;
        shared.reconcile_reservations(live, &mut report)?;
        shared.apply_firewall(&mut report)?;
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
    fn adopt(&self, live: &[(Endpoint, Vec<PublishedPort>)], report: &mut Report) {
        let mut state = lock(&self.state);
        for (endpoint, ports) in live {
            let Some(network) = state.networks.get_mut(&endpoint.network) else {
                report.warnings.push(format!(
                    "container {} is on network {}, which does not exist",
                    endpoint.container_id, endpoint.network
                ));
                continue;
            };
            if !network.endpoints.contains_key(&endpoint.id) {
                if network.pool.take_this(endpoint.ipv4).is_err() {
                    report.warnings.push(format!(
                        "address {} of container {} is taken or outside {}",
                        endpoint.ipv4, endpoint.container_id, network.info.subnet
                    ));
                }
                network
                    .endpoints
                    .insert(endpoint.id.clone(), endpoint.clone());
            }
            if ports.is_empty() {
                continue;
            }
            for port in ports {
                state
                    .ports
                    .take(&endpoint.id, port.protocol, port.host_port, &[port.ip]);
            }
            state
                .published
                .insert(endpoint.id.clone(), publish::publications(endpoint, ports));
        }
    }

    fn restore_bridges(&self, report: &mut Report) -> Result<(), Error> {
        let links = route::links(&lock(&self.rtnl)).map_err(Error::kernel("list", "interfaces"))?;
        let bridges: Vec<_> = {
            let state = lock(&self.state);
            let of = |network: &super::Network| {
                (
                    network.info.clone(),
                    network.config.id.clone(),
                    network.adopted,
                )
            };
            state.networks.values().map(of).collect()
        };
        for (info, id, adopted) in bridges {
            let missing = !links.iter().any(|link| link.name == info.interface);
            if missing {
                report.restored.push(format!("bridge {}", info.interface));
            }
            let index = self.ensure_bridge(&info, missing, adopted && !missing)?;
            if let Some(network) = lock(&self.state).networks.get_mut(&id) {
                network.index = index;
            }
        }
        Ok(())
    }

    /// Deletes this engine's interfaces that no endpoint and no network owns; puts lost ports back onto their bridge.
    fn sweep_interfaces(&self, report: &mut Report) -> Result<(), Error> {
        let prefix = self.alias_prefix();
        let links = route::links(&lock(&self.rtnl)).map_err(Error::kernel("list", "interfaces"))?;
        let (owned, masters) = {
            let state = lock(&self.state);
            let mut owned = HashSet::new();
            let mut masters = Vec::new();
            for network in state.networks.values() {
                owned.insert(network.info.interface.clone());
                for endpoint in network.endpoints.values() {
                    owned.insert(endpoint.host_interface.clone());
                    masters.push((endpoint.host_interface.clone(), network.index));
                }
            }
            (owned, masters)
        };
        let mut batch = Batch::new();
        for (name, master) in masters {
            if let Some(link) = links.iter().find(|link| link.name == name)
                && link.master != Some(master)
            {
                route::set_master(&mut batch, link.index, master);
                report
                    .restored
                    .push(format!("interface {name} on its bridge"));
            }
        }
        for link in &links {
            let marked = link
                .alias
                .as_deref()
                .is_some_and(|alias| alias.starts_with(&prefix));
            if marked && !owned.contains(&link.name) {
                route::delete_link(&mut batch, link.index);
                report.removed.push(format!("interface {}", link.name));
            }
        }
        match lock(&self.rtnl).execute(&mut batch) {
            // A namespace that died meanwhile took its interface along.
            Err(error) if error.errno() == libc::ENODEV => Ok(()),
            answer => answer
                .map_err(|error| Error::kernel("delete", "interfaces without owner")(error.into())),
        }
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
                .flat_map(|network| network.endpoints.keys().cloned())
                .collect()
        };
        for owner in owners.iter().filter(|owner| !known.contains(*owner)) {
            reserver.release(owner).map_err(Error::Reserver)?;
            report.removed.push(format!("host ports of {owner}"));
        }
        for (endpoint, ports) in live.iter().filter(|(_, ports)| !ports.is_empty()) {
            if owners.contains(&endpoint.id) {
                continue;
            }
            let reservations: Vec<Reservation> = ports
                .iter()
                .map(|port| Reservation {
                    protocol: port.protocol,
                    address: port.ip,
                    port: port.host_port,
                    target: (endpoint.ipv4, port.container_port).into(),
                })
                .collect();
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
        let interfaces = self.interfaces();
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
        let changes = foreign::reconcile(&nfnl, &self.table, &self.config.engine_id, &interfaces)
            .map_err(Error::kernel("look through", "other firewalls"))?;
        report.restored.extend(changes);
        let chains = nft::chains(&nfnl).map_err(failed())?;
        drop(nfnl);
        let legacy = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
        report
            .warnings
            .extend(foreign::warnings(&chains, &legacy, &interfaces));
        let switched = self.apply_loopback_routing()?;
        report.restored.extend(switched);
        Ok(())
    }

    pub(super) fn teardown(&self) -> Result<(), Error> {
        let failed = || Error::kernel("remove firewall table", self.table.as_str());
        self.forbid_loopback_routing();
        // First of all the state: whoever sees the table go must find that it is not wanted any more.
        let endpoints: Vec<String> = {
            let mut state = lock(&self.state);
            state.published.clear();
            let networks = std::mem::take(&mut state.networks);
            networks
                .into_values()
                .flat_map(|network| network.endpoints.into_keys())
                .collect()
        };
        {
            let nfnl = lock(&self.nfnl);
            foreign::reconcile(&nfnl, &self.table, &self.config.engine_id, &[])
                .map_err(Error::kernel("look through", "other firewalls"))?;
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
        self.sweep_interfaces(&mut Report::default())
    }
}
