//! Networks of a container that changes while it runs or rests: what `connect` and `disconnect` do to it.
//!
//! The record is written before an interface comes and after it has gone. So a daemon that dies in the middle leaves a
//! container that is on the network by its record, and the next one mends what lacks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use gantry_network::resolv;
use gantry_network::{Endpoint, Netns, PublishedPort};

use super::networking::{CONFIGURATION, NOT_HOST, NOT_WITH_NONE, not_connected};
use super::{Container, Owner, Record, Status, files, open_namespace, ports};
use crate::failpoint::around;
use crate::network::{EndpointSettings, NetworkRecord, faults, joined, parse_mac};
use crate::{Engine, Error, Result};

const SHARES_NAMESPACE: &str = "container sharing network namespace with another container or host cannot be connected to any other network";

/// Refuses a connect that Docker refuses.
fn check_connect(
    record: &Record,
    network: &NetworkRecord,
    settings: &EndpointSettings,
    others: &BTreeMap<&str, Arc<NetworkRecord>>,
) -> Result<()> {
    let mode = record.host.network_mode.as_str();
    refuse_removed(record)?;
    if network.name == "host" && mode != "host" {
        return Err(Error::invalid(NOT_HOST));
    }
    if mode == "host" || mode.starts_with("container:") {
        return Err(Error::invalid(SHARES_NAMESPACE));
    }
    if !settings.mac.is_empty() && parse_mac(&settings.mac).is_none() {
        return Err(Error::invalid(format!(
            "invalid MAC address {}",
            settings.mac
        )));
    }
    let faults = faults(settings, Some(network));
    if !faults.is_empty() {
        return Err(Error::invalid(format!(
            "invalid endpoint settings:\n{}",
            joined(&faults)
        )));
    }
    if network.config_only {
        return Err(Error::new(
            gantry_api::error::ErrorKind::Forbidden,
            CONFIGURATION,
        ));
    }
    let none = |network: &NetworkRecord| network.driver == "null";
    let mut others = others.values().filter(|other| other.id != network.id);
    if others.any(|other| none(other) || none(network)) {
        return Err(Error::invalid(NOT_WITH_NONE));
    }
    Ok(())
}

fn refuse_removed(record: &Record) -> Result<()> {
    if matches!(record.state.status, Status::Removing | Status::Dead) {
        return Err(Error::system(format!(
            "Container {} is marked for removal and cannot be connected or disconnected to the network",
            record.id
        )));
    }
    Ok(())
}

impl Engine {
    /// Opens the network namespace of a container that runs.
    pub(crate) fn netns_of_running(&self, record: &Record) -> Result<Netns> {
        let netns = self.netns_if_running(record)?;
        netns.ok_or_else(|| super::not_running(&record.id))
    }

    /// As [`Engine::netns_of_running`]; `None` once the process has ended, which its record may not say yet.
    fn netns_if_running(&self, record: &Record) -> Result<Option<Netns>> {
        let failed = |error| {
            Error::io(
                format_args!("enter the network namespace of container {}", record.id),
                error,
            )
        };
        let namespace = open_namespace(&record.state, "net").map_err(failed)?;
        namespace.map(Netns::open).transpose().map_err(failed)
    }

    /// Connects a container whose owner lock is held. Returns whether it lacks the sockets of names from now on.
    pub(crate) fn connect_blocking(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        network: &NetworkRecord,
        mut settings: EndpointSettings,
    ) -> Result<bool> {
        let record = container.record();
        let others = record
            .networks
            .keys()
            .filter_map(|name| Some((name.as_str(), self.inner.networks.find(name).ok()?)))
            .collect();
        check_connect(&record, network, &settings, &others)?;
        settings.known = true;
        let name = network.name.clone();
        if !record.state.status.has_process() {
            self.keep_blocking(container, owner, |record| {
                record.networks.insert(name, settings);
            })?;
            return Ok(false);
        }
        if record.networks.contains_key(&name) {
            return Err(Error::new(
                gantry_api::error::ErrorKind::Forbidden,
                format!(
                    "endpoint with name {} already exists in network {name}",
                    record.name
                ),
            ));
        }
        settings.network_id.clone_from(&network.id);
        if network.config.is_none() && network.name != "bridge" {
            // `none`: nothing but the word.
            self.keep_blocking(container, owner, |record| {
                record.networks.insert(name, settings);
            })?;
            self.tell_network(
                "connect",
                network,
                &[("container", &record.id)],
                crate::now_ns(),
            );
            return Ok(false);
        }
        let had_names = record.acquired.names;
        let has_names = had_names || network.has_names();
        let endpoint =
            self.take_endpoint(&record.id, network, &settings, &record.acquired.endpoints)?;
        let wanted = endpoint.clone();
        let kept = around("connect.record", || {
            self.keep_blocking(container, owner, |record| {
                record.networks.insert(name, settings);
                record.acquired.endpoints.push(wanted);
                record.acquired.names = has_names;
            })
        });
        if let Err(error) = kept {
            self.let_go(std::slice::from_ref(&endpoint));
            return Err(error);
        }
        match self.connect_live(container, owner, &endpoint, had_names) {
            Ok(()) => {}
            Err(error) => {
                if let Err(error) = self.leave(container, owner, network, &endpoint) {
                    tracing::error!(container = container.id, %error, "take back a connect that failed");
                }
                if !had_names {
                    // Nobody made sockets: the next connect must.
                    self.note_blocking(container, owner, |record| record.acquired.names = false);
                }
                return Err(error);
            }
        }
        self.tell_network(
            "connect",
            network,
            &[("container", &record.id)],
            crate::now_ns(),
        );
        Ok(!had_names && has_names)
    }

    /// Gives a running container the interface that its record has, and what follows from it.
    fn connect_live(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        endpoint: &Endpoint,
        had_names: bool,
    ) -> Result<()> {
        let netns = self.netns_of_running(&container.record())?;
        around("connect.network", || {
            self.inner
                .network
                .connect(endpoint, &netns, gantry_network::DefaultRoutes::default())
        })
        .map_err(crate::network::error)?;
        self.settle_ways(container, owner, &netns)?;
        let record = container.record();
        if had_names {
            around("connect.names", || self.tell_names(&record, None))?;
        } else if record.acquired.names {
            self.rewrite_resolv_conf(&record);
        }
        let names = resolv::host_names(&record.config.hostname, &record.config.domainname);
        self.edit_hosts(&record, |text| with_lines(text, endpoint, &names));
        self.refresh_links_to(&record);
        Ok(())
    }

    /// Disconnects a container whose owner lock is held.
    pub(crate) fn disconnect_blocking(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        network: &NetworkRecord,
    ) -> Result<()> {
        let record = container.record();
        refuse_removed(&record)?;
        if network.name == "host" && record.host.network_mode == "host" {
            return Err(Error::invalid(
                "cannot disconnect container from host network - container was created in host network mode",
            ));
        }
        let running = record.state.status.has_process();
        if !record.networks.contains_key(&network.name) {
            // Two places, two texts: Docker's.
            let the = if running { "" } else { "the " };
            return Err(Error::system(format!(
                "container {} is not connected to {the}network {}",
                record.id, network.name
            )));
        }
        let endpoint = record
            .acquired
            .endpoints
            .iter()
            .find(|endpoint| endpoint.network == network.id);
        match endpoint.filter(|_| running) {
            Some(endpoint) => self.leave(container, owner, network, endpoint)?,
            None => {
                self.keep_blocking(container, owner, |record| {
                    record.networks.remove(&network.name);
                })?;
            }
        }
        if running {
            self.tell_network(
                "disconnect",
                network,
                &[("container", &record.id)],
                crate::now_ns(),
            );
        }
        Ok(())
    }

    /// Takes an endpoint from a running container, or from one that has just died. What cannot be given back stays in the
    /// record and keeps the container on the network.
    fn leave(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        network: &NetworkRecord,
        endpoint: &Endpoint,
    ) -> Result<()> {
        // With the process its interfaces have gone.
        let netns = self.netns_if_running(&container.record())?;
        self.drop_names(endpoint)
            .map_err(|error| Error::io("take names away", error))?;
        let left = match &netns {
            Some(netns) => around("disconnect.network", || {
                self.inner.network.disconnect(endpoint, netns)
            }),
            None => Ok(()),
        };
        if let Err(error) = left {
            // It stays, and is to be found there.
            if let Err(error) = self.tell_names(&container.record(), None) {
                tracing::error!(container = container.id, %error, "tell the names again");
            }
            return Err(crate::network::error(error));
        }
        if netns.is_some() {
            self.let_ports_go_on(container, owner, endpoint);
        }
        let ports = container.record().acquired.ports_of(endpoint).to_vec();
        self.inner
            .network
            .release(endpoint, &ports)
            .map_err(crate::network::error)?;
        let without = |record: &mut Record| {
            record.networks.remove(&network.name);
            let whose = record.acquired.holder_of_ports();
            record
                .acquired
                .endpoints
                .retain(|one| one.id != endpoint.id);
            // Also where it is this one: the next in the list has not got them yet.
            record.acquired.ports_endpoint = whose;
        };
        let kept = around("disconnect.record", || {
            self.keep_blocking(container, owner, without)
        });
        if kept.is_err() {
            // It is gone, whatever the disk says.
            self.note_blocking(container, owner, without);
        }
        let ways = match &netns {
            Some(netns) => self.settle_ways(container, owner, netns),
            None => Ok(()),
        };
        // It has left: what it may ask for does not hang on the ways of the other networks.
        let record = container.record();
        // Its resolver file stays as it is: the rest of the world is asked by it.
        let told = self.tell_names(&record, None);
        let names = resolv::host_names(&record.config.hostname, &record.config.domainname);
        self.edit_hosts(&record, |text| without_lines(text, endpoint, &names));
        if let (Err(_), Err(error)) = (&ways, &told) {
            tracing::error!(container = record.id, %error, "a container still finds names of a network that it left");
        }
        kept.map(drop).and(ways).and(told)
    }

    /// Lets default routes and published ports follow the gateway.
    fn settle_ways(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        netns: &Netns,
    ) -> Result<()> {
        let record = container.record();
        let gateways = self.gateways(&record);
        let endpoint = |index: Option<usize>| index.map(|index| &record.acquired.endpoints[index]);
        let routes = self
            .inner
            .network
            .set_default_routes(netns, endpoint(gateways.ipv4), endpoint(gateways.ipv6))
            .map_err(crate::network::error);
        let ports = self.settle_ports(container, owner, endpoint(gateways.for_ports()));
        routes.and(ports)
    }

    /// Hands the published ports of an endpoint that leaves to the one that is the gateway without it. Where that fails,
    /// they are given back with the endpoint, and the next attempt tells why.
    fn let_ports_go_on(&self, container: &Arc<Container>, owner: &mut Owner, leaving: &Endpoint) {
        let record = container.record();
        if record.acquired.ports_of(leaving).is_empty() {
            return;
        }
        let mut rest = Record::clone(&record);
        rest.acquired.endpoints.retain(|one| one.id != leaving.id);
        if let Some(next) = self.gateways(&rest).for_ports() {
            let next = &rest.acquired.endpoints[next];
            if let Err(error) = self.move_ports(container, owner, leaving, next) {
                tracing::debug!(container = record.id, %error, "move ports to the next gateway");
            }
        }
    }

    /// Leads the published ports to `target` and nowhere else. The record says all the while where they are or come to.
    fn settle_ports(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        target: Option<&Endpoint>,
    ) -> Result<()> {
        let record = container.record();
        let held = &record.acquired.ports;
        let whose = record.acquired.holder_of_ports();
        let target_id = target.map(|target| target.id.clone());
        if !held.is_empty() && whose == target_id {
            return Ok(());
        }
        let mut endpoints = record.acquired.endpoints.iter();
        let holder = endpoints.find(|one| !held.is_empty() && whose.as_ref() == Some(&one.id));
        if let (Some(holder), Some(target)) = (holder, target)
            && self.move_ports(container, owner, holder, target)?
        {
            return Ok(());
        }
        if !held.is_empty() {
            self.note_blocking(container, owner, |record| {
                record.acquired.ports_endpoint.clone_from(&target_id);
                if target.is_none() {
                    record.acquired.ports.clear();
                }
            });
        }
        if let Some(holder) = holder
            && let Err(error) = self.inner.network.unpublish(holder, held)
        {
            self.note_blocking(container, owner, |record| {
                record.acquired.ports.clone_from(held);
                record.acquired.ports_endpoint = whose;
            });
            return Err(crate::network::error(error));
        }
        let Some(target) = target else { return Ok(()) };
        let moved = self.publish_wishes(container, owner, target, held);
        if moved.is_err()
            && let Some(holder) = holder
            && let Err(error) = self.publish_wishes(container, owner, holder, held)
        {
            tracing::error!(container = record.id, %error, "publish ports where they were");
        }
        moved
    }

    /// Takes rules from ports that neither of a container's endpoints has any more.
    fn lead_nowhere<const N: usize>(
        &self,
        container: &Container,
        endpoints: [(&Endpoint, &Vec<PublishedPort>); N],
    ) {
        for (endpoint, ports) in endpoints {
            if let Err(error) = self.inner.network.unpublish(endpoint, ports) {
                let error = crate::network::error(error);
                tracing::error!(container = container.record().id, %error, "withdraw lost ports");
            }
        }
    }

    /// Moves the published ports from one endpoint to another without letting the host's ports go. All or none; says whether
    /// that can be done at all.
    fn move_ports(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        holder: &Endpoint,
        target: &Endpoint,
    ) -> Result<bool> {
        let record = container.record();
        let held = &record.acquired.ports;
        let wishes = ports::plan(&record.config, &record.host)?;
        let kept = ports::keeping(&wishes, held);
        // Whoever finds the record when this ends in the middle looks for them where they come to.
        self.note_blocking(container, owner, |record| {
            record.acquired.ports_endpoint = Some(target.id.clone());
        });
        let network = &self.inner.network;
        let mut moved = network.transfer_ports(holder, held, target, &kept);
        if moved.is_err() && kept != wishes {
            moved = network.transfer_ports(holder, held, target, &wishes);
        }
        let back = |record: &mut Record| {
            if network.holds_ports(holder, held) {
                record.acquired.ports.clone_from(held);
                record.acquired.ports_endpoint = Some(holder.id.clone());
            } else {
                record.acquired.ports.clear();
                record.acquired.ports_endpoint = None;
            }
        };
        let ports = match moved {
            Ok(Some(ports)) => ports,
            Ok(None) => {
                self.note_blocking(container, owner, back);
                return Ok(false);
            }
            Err(error) => {
                if !network.holds_ports(holder, held) {
                    self.lead_nowhere(container, [(holder, held)]);
                }
                self.note_blocking(container, owner, back);
                return Err(not_connected(&record, target, error));
            }
        };
        let published = around("connect.ports", || {
            self.keep_ports(container, owner, target, &ports)?;
            let published = network.publish_instead(holder, target, &ports);
            published.map_err(crate::network::error)
        });
        let Err(error) = published else {
            return Ok(true);
        };
        let returned = network
            .return_ports(target, &ports, holder, held)
            .and_then(|()| network.publish_instead(target, holder, held));
        if let Err(error) = returned {
            let error = crate::network::error(error);
            tracing::error!(container = record.id, %error, "lead ports where they were");
        }
        if !network.holds_ports(holder, held) {
            self.lead_nowhere(container, [(target, &ports), (holder, held)]);
        }
        self.note_blocking(container, owner, back);
        Err(error)
    }

    /// Publishes at an endpoint what the container's ports are to be, by the numbers of `held` where the wish leaves them
    /// open and they can be had. All or none, and the record says which.
    fn publish_wishes(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        endpoint: &Endpoint,
        held: &[PublishedPort],
    ) -> Result<()> {
        let record = container.record();
        let wishes = ports::plan(&record.config, &record.host)?;
        if wishes.is_empty() {
            return Ok(());
        }
        let kept = ports::keeping(&wishes, held);
        let mut taken = self.take_ports(&record, endpoint, &kept);
        if taken.is_err() && kept != wishes {
            taken = self.take_ports(&record, endpoint, &wishes);
        }
        let published = taken.and_then(|ports| {
            self.keep_ports(container, owner, endpoint, &ports)?;
            let published = self.inner.network.publish(endpoint, &ports);
            published.map_err(crate::network::error)
        });
        if published.is_err() {
            let ports = &container.record().acquired.ports;
            if let Err(error) = self.inner.network.unpublish(endpoint, ports) {
                tracing::error!(container = record.id, %error, "take back ports that lead nowhere");
            }
            self.note_blocking(container, owner, |record| record.acquired.ports.clear());
        }
        published
    }

    /// Lets the container ask the engine for names, unless somebody has edited its file.
    fn rewrite_resolv_conf(&self, record: &Record) {
        let path = self.directory(&record.id).join("resolv.conf");
        let rewritten = || -> Result<()> {
            let before = files::resolv_conf(self, record, files::Names::None)?;
            let text = files::resolv_conf(self, record, files::Names::Internal)?;
            let edit = |standing: &[u8]| {
                let is_ours = standing == before.as_bytes();
                is_ours.then(|| text.into_bytes())
            };
            files::edit_mounted(&path, edit)
                .map_err(|error| Error::io(format_args!("write `{}`", path.display()), error))
        };
        if let Err(error) = rewritten() {
            tracing::warn!(container = record.id, %error, "let a container ask for names");
        }
    }

    /// Edits the hosts file. What the container itself has made of it must not keep it on a network or off one: that it
    /// cannot be edited is told and no more.
    fn edit_hosts(&self, record: &Record, edit: impl FnOnce(&[u8]) -> Vec<u8>) {
        let path = self.directory(&record.id).join("hosts");
        let edited = files::edit_mounted(&path, |text| Some(edit(text)));
        if let Err(error) = edited {
            tracing::warn!(container = record.id, path = %path.display(), %error, "edit a hosts file");
        }
    }
}

fn line(address: IpAddr, names: &[String]) -> String {
    format!("{address}\t{}", names.join(" "))
}

/// Adds the lines of an endpoint at the end of a hosts file.
fn with_lines(text: &[u8], endpoint: &Endpoint, names: &[String]) -> Vec<u8> {
    let mut new = text.to_owned();
    if !new.is_empty() && !new.ends_with(b"\n") {
        new.push(b'\n');
    }
    for address in endpoint.addresses() {
        new.extend(line(address, names).bytes());
        new.push(b'\n');
    }
    new
}

/// Takes the lines of an endpoint out of a hosts file; everything else stays.
fn without_lines(text: &[u8], endpoint: &Endpoint, names: &[String]) -> Vec<u8> {
    let gone: Vec<String> = endpoint
        .addresses()
        .map(|address| line(address, names))
        .collect();
    let stays = |one: &&[u8]| {
        let one = one.strip_suffix(b"\n").unwrap_or(one);
        !gone.iter().any(|gone| gone.as_bytes() == one)
    };
    text.split_inclusive(|&byte| byte == b'\n')
        .filter(stays)
        .flatten()
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_has_a_line_per_address_of_an_endpoint() {
        let endpoint: Endpoint = serde_json::from_str(
            r#"{"id":"","container_id":"","network":"","host_interface":"","container_interface":"",
                "mac":"02:00:00:00:00:01","ipv4":"10.1.0.2","prefix_len":24,"gateway":null,
                "ipv6":"fd00::2","prefix_len_v6":64,"mtu":1500}"#,
        )
        .unwrap();
        let names = ["me.example".to_owned(), "me".to_owned()];
        // Whatever else is in the file stays, also what is no text.
        let text = b"127.0.0.1\tlocalhost\n10.1.0.2\tsomebody else\n\xff";
        let new = with_lines(text, &endpoint, &names);
        assert_eq!(
            new,
            b"127.0.0.1\tlocalhost\n10.1.0.2\tsomebody else\n\xff\n10.1.0.2\tme.example me\nfd00::2\tme.example me\n"
        );
        assert_eq!(
            without_lines(&new, &endpoint, &names),
            [&text[..], b"\n"].concat()
        );
    }
}
