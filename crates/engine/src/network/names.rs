//! Names of containers: what netd is told of them. The networks of users have names, the default bridge has none.
//!
//! netd answers from its own files while no daemon lives. A daemon says everything once more at its start, so that a
//! change which the last one did not come to tell is told.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use gantry_api::port::ReserveError;
use gantry_netd::client::Sockets;
use gantry_netd::protocol::{NamedEndpoint, Resolver, ResolverNetwork, Upstreams};
use gantry_network::{Endpoint, Netns, dns};
use gantry_shim::protocol::{Reply, Request};

use super::record::NetworkRecord;
use super::settings::EndpointSettings;
use crate::container::{Container, Record, files};
use crate::{Engine, Error, Result, blocking};

/// Returns what a container is called on a network: its name, its aliases, its short id, its host name.
pub(crate) fn dns_names(record: &Record, settings: &EndpointSettings) -> Vec<String> {
    let short = record.id.get(..12).unwrap_or(&record.id);
    let all = std::iter::once(record.name.as_str())
        .chain(settings.aliases().iter().map(String::as_str))
        .chain([short, record.config.hostname.as_str()]);
    let mut names: Vec<String> = Vec::new();
    for name in all.filter(|name| !name.is_empty()) {
        if !names.iter().any(|other| other == name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn unavailable(error: ReserveError) -> std::io::Error {
    std::io::Error::other(error)
}

impl Engine {
    /// Returns the endpoints of a container that are on networks with names.
    fn named<'a>(&self, record: &'a Record) -> Vec<(&'a Endpoint, Arc<NetworkRecord>)> {
        let endpoints = record.acquired.endpoints.iter();
        endpoints
            .filter_map(|endpoint| {
                let network = self.inner.networks.by_id(&endpoint.network)?;
                network.has_names().then_some((endpoint, network))
            })
            .collect()
    }

    fn named_endpoint(
        &self,
        record: &Record,
        endpoint: &Endpoint,
        network: &NetworkRecord,
    ) -> NamedEndpoint {
        let settings = record.networks.get(&network.name);
        NamedEndpoint {
            network: network.id.clone(),
            endpoint: endpoint.id.clone(),
            names: match settings {
                Some(settings) => dns_names(record, settings),
                None => dns_names(record, &EndpointSettings::default()),
            },
            primary: record.name.clone(),
            addresses: endpoint.addresses().collect(),
        }
    }

    /// Works out whom a container may ask for, and who is asked for the rest; `None` if it does not ask the engine. One
    /// that was on a network with names and is on none any more asks for the rest all the same.
    fn resolver_of(&self, record: &Record) -> Result<Option<Resolver>> {
        if !record.acquired.names {
            return Ok(None);
        }
        let named = self.named(record);
        let networks = named.iter().map(|(_, network)| {
            let settings = record.networks.get(&network.name);
            let links = settings.into_iter().flat_map(EndpointSettings::links);
            ResolverNetwork {
                id: network.id.clone(),
                name: network.name.clone(),
                links: links
                    .map(|(alias, name)| (alias.to_owned(), name.to_owned()))
                    .collect(),
            }
        });
        let dns = files::dns(self, record)?;
        let (path, text) = files::host_resolv_conf();
        let forwards = record
            .acquired
            .endpoints
            .iter()
            .any(|one| one.gateway.is_some() || one.gateway_v6.is_some());
        Ok(Some(Resolver {
            container: record.id.clone(),
            networks: networks.collect(),
            ndots_is_set: files::ndots_is_set(&dns, &text),
            upstreams: if dns.servers.is_empty() {
                Upstreams::Host { path: path.into() }
            } else {
                Upstreams::Container {
                    servers: dns.servers,
                }
            },
            forwards,
        }))
    }

    /// Makes the sockets by which the container of a namespace asks for names, and tells netd of both. What comes back is
    /// for the shim to keep.
    pub(crate) fn prepare_names(
        &self,
        record: &Record,
        netns: &Netns,
        shim: Option<OwnedFd>,
    ) -> Result<Vec<OwnedFd>> {
        let failed = |error| {
            Error::io(
                format_args!("prepare the names of container {}", record.id),
                error,
            )
        };
        let prepared = dns::prepare(netns).map_err(failed)?;
        let kept = [&prepared.udp, &prepared.tcp, &netns.fd]
            .into_iter()
            .map(OwnedFd::try_clone)
            .collect::<std::io::Result<Vec<OwnedFd>>>()
            .map_err(failed)?;
        let sockets = Sockets {
            udp: prepared.udp,
            tcp: prepared.tcp,
            netns: netns.fd.try_clone().map_err(failed)?,
            shim,
        };
        self.tell_names(record, Some(&sockets))?;
        Ok(kept)
    }

    /// Tells netd what a container is called and whom it may ask for. Without `sockets` it keeps those that it has.
    pub(crate) fn tell_names(&self, record: &Record, sockets: Option<&Sockets>) -> Result<()> {
        let Some(resolver) = self.resolver_of(record)? else {
            return Ok(());
        };
        let told = || -> std::io::Result<()> {
            let client = self.inner.netd.client().map_err(unavailable)?;
            for (endpoint, network) in self.named(record) {
                client.put_names(self.named_endpoint(record, endpoint, &network))?;
            }
            client.resolver(&resolver, sockets)
        };
        told().map_err(|error| {
            Error::io(
                format_args!("tell the names of container {}", record.id),
                error,
            )
        })
    }

    /// Tells what a container is called from now on, if it is on a network with names.
    pub(crate) fn tell_new_names(&self, record: &Record) -> Result<()> {
        if record.acquired.names {
            self.tell_names(record, None)?;
        }
        Ok(())
    }

    /// Tells whether an endpoint is on a network with names.
    pub(crate) fn is_named(&self, endpoint: &Endpoint) -> bool {
        let network = self.inner.networks.by_id(&endpoint.network);
        network.is_some_and(|network| network.has_names())
    }

    /// Takes the names of an endpoint away. A network that is gone took them along.
    pub(crate) fn drop_names(&self, endpoint: &Endpoint) -> std::io::Result<()> {
        if !self.is_named(endpoint) || !self.inner.netd.is_needed() {
            return Ok(());
        }
        let client = self.inner.netd.client().map_err(unavailable)?;
        client.drop_names(&endpoint.network, &endpoint.id)
    }

    /// Takes away by what a container asks.
    pub(crate) fn drop_resolver(&self, container: &str) -> std::io::Result<()> {
        if !self.inner.netd.is_needed() {
            return Ok(());
        }
        let client = self.inner.netd.client().map_err(unavailable)?;
        client.drop_resolver(container)
    }

    /// Tells netd all names as the records have them.
    pub(crate) async fn restore_names(&self) {
        let engine = self.clone();
        let lacking = blocking::run(move || engine.restore_names_blocking()).await;
        let lacking = match lacking {
            Ok(Ok(lacking)) => lacking,
            Ok(Err(error)) => {
                tracing::error!(%error, "tell netd the names of the last daemon's containers");
                return;
            }
            Err(_) => return,
        };
        for id in lacking {
            if let Ok(container) = self.container(&id)
                && let Err(error) = self.make_names_whole(&container).await
            {
                tracing::error!(container = id, %error, "the container's names are not answered");
            }
        }
    }

    /// Returns the containers whose sockets netd lacks.
    fn restore_names_blocking(&self) -> std::io::Result<Vec<String>> {
        let running: Vec<Arc<Record>> = self
            .inner
            .containers
            .all()
            .iter()
            .map(|container| container.record())
            .filter(|record| record.state.status.has_process() && record.acquired.names)
            .collect();
        if running.is_empty() && !self.inner.netd.is_needed() {
            return Ok(Vec::new());
        }
        let client = self.inner.netd.client().map_err(unavailable)?;
        for network in self.inner.networks.all() {
            if !network.has_names() {
                continue;
            }
            let names = running.iter().flat_map(|record| {
                let named = self.named(record).into_iter();
                named
                    .filter(|(_, other)| other.id == network.id)
                    .map(|(endpoint, other)| self.named_endpoint(record, endpoint, &other))
                    .collect::<Vec<_>>()
            });
            client.names(&network.id, names.collect())?;
        }
        for record in &running {
            let resolver = self.resolver_of(record).map_err(std::io::Error::other)?;
            if let Some(resolver) = resolver {
                client.resolver(&resolver, None)?;
            }
        }
        client.resolvers()
    }

    /// Gives netd a container's sockets: those that its shim keeps or, where the last daemon did not come to make any,
    /// new ones.
    async fn make_names_whole(&self, container: &Arc<Container>) -> Result<()> {
        if self.hand_names_over(container).await? {
            return Ok(());
        }
        self.add_names(container).await
    }

    /// Gives netd the sockets that the container's shim keeps, and with them the shim's pidfd, by which netd learns of
    /// its end. Returns whether the shim keeps any.
    async fn hand_names_over(&self, container: &Arc<Container>) -> Result<bool> {
        let shim = self.shim(container)?;
        let (Reply::Names, fds) = shim.call(Request::TakeNames, Vec::new()).await? else {
            return Ok(false);
        };
        let (netd, id) = (self.inner.netd.clone(), container.id.clone());
        let given = move || {
            let sockets = Sockets::from_fds(fds)
                .ok_or_else(|| std::io::Error::other("the shim gave other descriptors"))?;
            let client = netd.client().map_err(unavailable)?;
            client.sockets(&id, &sockets)
        };
        blocking::run(given)
            .await?
            .map_err(|error| Error::io("give netd the sockets of names", error))?;
        Ok(true)
    }

    /// Makes the sockets of names for a container that runs without any, and has its shim keep them.
    pub(crate) async fn add_names(&self, container: &Arc<Container>) -> Result<()> {
        // Without it netd would keep the namespace of a container that ends while no daemon lives.
        let process = {
            let link = container.link.lock().expect("no holder panics");
            let process = link.process.as_ref();
            process.and_then(|process| process.try_clone().ok())
        };
        let knows_end = process.is_some();
        let (engine, own) = (self.clone(), container.clone());
        let kept = blocking::run(move || {
            let record = own.record();
            let netns = engine.netns_of_running(&record)?;
            engine.prepare_names(&record, &netns, process)
        })
        .await??;
        match self.shim(container)?.call(Request::KeepNames, kept).await? {
            // A shim that an earlier daemon started has its own pidfd.
            (Reply::Ok, _) if !knows_end => {
                self.hand_names_over(container).await?;
            }
            (Reply::Ok, _) => {}
            // A shim of an earlier version: netd alone has the sockets.
            (reply, _) => {
                tracing::warn!(
                    container = container.id,
                    ?reply,
                    "the shim does not keep the sockets of names"
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_each_name_once() {
        let mut record = Record {
            id: "0123456789abcdef".to_owned(),
            name: "web".to_owned(),
            ..Record::default()
        };
        record.config.hostname = "0123456789ab".to_owned();
        let settings = EndpointSettings {
            aliases: Some(vec!["www".to_owned(), "web".to_owned()]),
            ..EndpointSettings::default()
        };
        assert_eq!(
            dns_names(&record, &settings),
            ["web", "www", "0123456789ab"]
        );
        record.config.hostname = "host".to_owned();
        assert_eq!(
            dns_names(&record, &EndpointSettings::default()),
            ["web", "0123456789ab", "host"]
        );
    }
}
