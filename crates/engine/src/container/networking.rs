//! A container's places on its networks: what a create asks for, what a start takes, and which of them leads outside.
//!
//! The order of a container's interfaces is Docker's: the default bridge, then the network of its mode, then by name.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use gantry_api::error::ErrorKind;
use gantry_network::{
    DefaultRoutes, Endpoint, EndpointRequest, Netns, NetworkConfig, PortMapping, PublishedPort,
};

use super::config::{Config, HostConfig};
use super::record::Record;
use super::start_failure::{StartExit, network_error};
use super::{Container, Owner, ports};
use crate::network::{EndpointSettings, NetworkRecord, faults, joined};
use crate::{Engine, Error, Result};

/// What a container's interface is called where nothing else is asked for.
const PREFIX: &str = "eth";

pub(super) const NOT_WITH_NONE: &str = "container cannot be connected to multiple networks with one of the networks in private (none) mode";
pub(super) const CONFIGURATION: &str = "cannot create endpoint on configuration-only network";
pub(super) const NOT_HOST: &str =
    "cannot connect container to host network - container must be created in host network mode";

/// A network that a start is to be on.
struct Wanted {
    network: Arc<NetworkRecord>,
    settings: EndpointSettings,
}

/// Which endpoints a container's default routes lead to, by their place in the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gateways {
    pub ipv4: Option<usize>,
    pub ipv6: Option<usize>,
}

impl Gateways {
    /// Returns the endpoint that published ports lead to.
    pub(crate) fn for_ports(self) -> Option<usize> {
        self.ipv4.or(self.ipv6)
    }
}

/// Chooses the gateways: the endpoint with a gateway of both families for both, else one for each family. Of several that
/// with the highest priority, then the first by the network's name. So a network of one family is passed over where there
/// is one of both, whatever its priority, as Docker does.
pub(crate) fn gateways<'a>(
    endpoints: &[Endpoint],
    rank: impl Fn(&Endpoint) -> (i64, &'a str),
) -> Gateways {
    let best = |has: &dyn Fn(&Endpoint) -> bool| {
        let having = endpoints.iter().enumerate().filter(|(_, one)| has(one));
        having
            .min_by_key(|(_, one)| {
                let (priority, name) = rank(one);
                (std::cmp::Reverse(priority), name)
            })
            .map(|(index, _)| index)
    };
    let (ipv4, ipv6) = (
        |one: &Endpoint| one.gateway.is_some(),
        |one: &Endpoint| one.gateway_v6.is_some(),
    );
    let both = best(&|one| ipv4(one) && ipv6(one));
    Gateways {
        ipv4: both.or_else(|| best(&ipv4)),
        ipv6: both.or_else(|| best(&ipv6)),
    }
}

/// Returns a name for an interface: the wish, or the first number that is free.
pub(crate) fn interface_name(wish: Option<&str>, prefix: &str, taken: &BTreeSet<String>) -> String {
    match wish {
        Some(name) => name.to_owned(),
        None => (0..)
            .map(|number| format!("{prefix}{number}"))
            .find(|name| !taken.contains(name))
            .unwrap_or_default(),
    }
}

/// Gives the error of a network the form in which a start tells it.
fn refused(error: Error) -> Error {
    Error::new(
        error.kind(),
        format!("failed to set up container networking: {error}"),
    )
    .caused_by(StartExit(128))
}

/// Gives the error of ports that an endpoint cannot have Docker's form.
pub(super) fn not_connected(
    record: &Record,
    endpoint: &Endpoint,
    error: gantry_network::Error,
) -> Error {
    let text = not_connected_text(record, endpoint, &error);
    Error::new(error.kind(), text).caused_by(error)
}

fn not_connected_text(record: &Record, endpoint: &Endpoint, why: &dyn std::fmt::Display) -> String {
    let (name, id) = (&record.name, &endpoint.id);
    format!("driver failed programming external connectivity on endpoint {name} ({id}): {why}")
}

fn forbidden(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Forbidden, text)
}

impl Engine {
    /// Works out the networks of a new container: that of its mode and those that are named, with Docker's checks. One
    /// that is not there is looked for at the start again.
    pub(super) fn networks_of_new(
        &self,
        config: &Config,
        host: &HostConfig,
        asked: BTreeMap<String, Option<EndpointSettings>>,
    ) -> Result<BTreeMap<String, EndpointSettings>> {
        let asked = asked
            .into_iter()
            .map(|(name, settings)| match settings {
                Some(settings) => Ok((name, settings)),
                None => Err(Error::invalid(format!(
                    "invalid config for network {name}: EndpointsConfig is nil"
                ))),
            })
            .collect::<Result<BTreeMap<_, _>>>()?;
        if host.network_mode.starts_with("container:") {
            // There is nothing to be had, and Docker refuses no other wish.
            let mut wishes = asked.iter();
            return match wishes.find(|(_, one)| one.ipv4().is_some() || one.ipv6().is_some()) {
                None => Ok(BTreeMap::new()),
                Some((name, _)) => Err(Error::invalid(format!(
                    "invalid config for network {name}: invalid endpoint settings:\nuser specified IP address is \
                     supported on user defined networks only"
                ))),
            };
        }
        let mut networks = BTreeMap::new();
        let mode = self.network_name(&host.network_mode);
        networks.insert(mode.clone(), EndpointSettings::default());
        for (name, settings) in asked {
            networks.insert(self.network_name(&name), settings);
        }
        if let Some(settings) = networks.get_mut(&mode)
            && settings.mac.is_empty()
        {
            settings.mac.clone_from(&config.mac_address);
        }
        for (name, settings) in &networks {
            let network = self.inner.networks.find(name).ok();
            let faults = faults(settings, network.as_deref());
            if !faults.is_empty() {
                return Err(Error::invalid(format!(
                    "invalid config for network {name}: invalid endpoint settings:\n{}",
                    joined(&faults)
                )));
            }
        }
        Ok(networks)
    }

    /// Returns the name of the network that a user means; one that is not there keeps the user's word.
    pub(crate) fn network_name(&self, word: &str) -> String {
        match word {
            "" | "default" => "bridge".to_owned(),
            _ => match self.inner.networks.find(word) {
                Ok(network) => network.name.clone(),
                Err(_) => word.to_owned(),
            },
        }
    }

    /// Looks up the networks of a container that is about to start, in the order of its interfaces.
    fn wanted_networks(&self, record: &Record) -> Result<Vec<Wanted>> {
        let mode = record.host.network_mode.as_str();
        let mut wanted = Vec::with_capacity(record.networks.len());
        for (name, settings) in &record.networks {
            let network = self.inner.networks.find(name).map_err(refused)?;
            if network.config_only {
                return Err(refused(forbidden(CONFIGURATION)));
            }
            if network.name == "host" && mode != "host" {
                return Err(refused(forbidden(NOT_HOST)));
            }
            wanted.push(Wanted {
                network,
                settings: settings.clone(),
            });
        }
        if wanted.len() > 1 && wanted.iter().any(|one| one.network.driver == "null") {
            return Err(refused(forbidden(NOT_WITH_NONE)));
        }
        let mode = self.network_name(mode);
        wanted.sort_by_key(|one| {
            let name = one.network.name.as_str();
            (name != "bridge", name != mode)
        });
        Ok(wanted)
    }

    /// Takes an endpoint on each network of a container that is about to start. The record's networks come back with
    /// what is known of them now.
    pub(super) fn take_endpoints(
        &self,
        record: &Record,
    ) -> Result<(Vec<Endpoint>, BTreeMap<String, EndpointSettings>)> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut networks = BTreeMap::new();
        for Wanted {
            network,
            mut settings,
        } in self.wanted_networks(record)?
        {
            if network.config.is_some() || network.name == "bridge" {
                match self.take_endpoint(&record.id, &network, &settings, &endpoints) {
                    Ok(endpoint) => endpoints.push(endpoint),
                    Err(error) => {
                        self.let_go(&endpoints);
                        return Err(refused(error));
                    }
                }
            }
            settings.network_id.clone_from(&network.id);
            settings.known = true;
            networks.insert(network.name.clone(), settings);
        }
        Ok((endpoints, networks))
    }

    /// Takes an endpoint on one network for a container that has `others`.
    pub(crate) fn take_endpoint(
        &self,
        container_id: &str,
        network: &NetworkRecord,
        settings: &EndpointSettings,
        others: &[Endpoint],
    ) -> Result<Endpoint> {
        let taken = others
            .iter()
            .map(|other| other.container_interface.clone())
            .collect();
        let prefix = network.config.as_ref().and_then(|config| match config {
            NetworkConfig::Bridge(config) => config.container_interface_prefix.as_deref(),
            NetworkConfig::Macvlan(config) => config.container_interface_prefix.as_deref(),
        });
        let prefix = prefix.filter(|prefix| !prefix.is_empty()).unwrap_or(PREFIX);
        let request = EndpointRequest {
            container_id: container_id.to_owned(),
            network: Some(network.id.clone()),
            mac: crate::network::parse_mac(&settings.mac),
            ipv4: settings.ipv4(),
            ipv6: settings.ipv6(),
            link_local: settings.link_local(),
            sysctls: settings.sysctls()?,
            container_interface: Some(interface_name(settings.interface(), prefix, &taken)),
        };
        let wished = self.wished_addresses(container_id, network);
        let mut spared = Vec::new();
        let taken = loop {
            match self.inner.network.allocate(&request) {
                // What another container has asked for is its own while it rests, for as long as there are others.
                Ok(endpoint)
                    if endpoint
                        .addresses()
                        .any(|address| wished.contains(&address)) =>
                {
                    spared.push(endpoint);
                }
                Err(_) if !spared.is_empty() => break Ok(spared.remove(0)),
                taken => break taken,
            }
        };
        self.let_go(&spared);
        taken.map_err(crate::network::error)
    }

    /// Returns the addresses of a network that other containers have asked for.
    fn wished_addresses(&self, container_id: &str, network: &NetworkRecord) -> HashSet<IpAddr> {
        if !network.is_user_defined() || network.ipam.configs.is_empty() {
            // None can be asked for there.
            return HashSet::new();
        }
        let wishes = &self.inner.containers.wishes;
        wishes.of_others(&network.name, container_id)
    }

    /// Connects a namespace to all networks of its container.
    pub(super) fn connect_all(
        &self,
        endpoints: &[Endpoint],
        gateways: Gateways,
        netns: &Netns,
    ) -> Result<()> {
        if endpoints.is_empty() {
            return gantry_network::loopback_up(netns).map_err(network_error);
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            let routes = DefaultRoutes {
                ipv4: gateways.ipv4 == Some(index),
                ipv6: gateways.ipv6 == Some(index),
            };
            let connected = self.inner.network.connect(endpoint, netns, routes);
            connected.map_err(network_error)?;
        }
        Ok(())
    }

    /// Takes the host's ports that a container is to have, if it has a way to the outside.
    pub(super) fn reserve_ports(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        gateways: Gateways,
    ) -> Result<()> {
        let record = container.record();
        let Some(endpoint) = gateways
            .for_ports()
            .map(|index| &record.acquired.endpoints[index])
        else {
            return Ok(());
        };
        let mappings = ports::plan(&record.config, &record.host)?;
        if mappings.is_empty() {
            return Ok(());
        }
        let ports = self.take_ports(&record, endpoint, &mappings);
        let ports = ports.map_err(|error| {
            let text = format!("failed to set up container networking: {error}");
            Error::new(error.kind(), text).caused_by(error)
        })?;
        self.keep_ports(container, owner, endpoint, &ports)
    }

    /// Takes the host's ports of these mappings for an endpoint.
    pub(super) fn take_ports(
        &self,
        record: &Record,
        endpoint: &Endpoint,
        mappings: &[PortMapping],
    ) -> Result<Vec<PublishedPort>> {
        if ports::listens_twice(mappings) {
            let why = "failed to listen on TCP socket: address already in use";
            return Err(Error::system(not_connected_text(record, endpoint, &why)));
        }
        let taken = self.inner.network.reserve_ports(endpoint, mappings);
        taken.map_err(|error| not_connected(record, endpoint, error))
    }

    /// Puts ports that were taken for an endpoint into the record.
    pub(super) fn keep_ports(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        endpoint: &Endpoint,
        ports: &[PublishedPort],
    ) -> Result<()> {
        let named = |record: &mut Record| {
            record.acquired.ports = ports.to_vec();
            record.acquired.ports_endpoint = Some(endpoint.id.clone());
        };
        if let Err(error) = self.save_blocking(container, owner, named) {
            // They are taken, whatever the disk says: the teardown must know of them.
            self.note_blocking(container, owner, named);
            return Err(error);
        }
        Ok(())
    }

    /// Gives endpoints back that no record names yet.
    pub(crate) fn let_go(&self, endpoints: &[Endpoint]) {
        for endpoint in endpoints {
            if let Err(error) = self.inner.network.release(endpoint, &[]) {
                tracing::error!(endpoint = endpoint.id, %error, "release an endpoint that was not used");
            }
        }
    }

    /// Chooses the gateways of a container.
    pub(crate) fn gateways(&self, record: &Record) -> Gateways {
        let names: BTreeMap<&str, (i64, &str)> = record
            .networks
            .iter()
            .map(|(name, settings)| {
                (
                    settings.network_id.as_str(),
                    (settings.gw_priority, name.as_str()),
                )
            })
            .collect();
        gateways(&record.acquired.endpoints, |endpoint| {
            names
                .get(endpoint.network.as_str())
                .copied()
                .unwrap_or_default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(network: &str, gateway: Option<&str>) -> Endpoint {
        Endpoint {
            network: network.to_owned(),
            gateway: gateway.map(|text| text.parse().unwrap()),
            ..serde_json::from_str(
                r#"{"id":"","container_id":"","network":"","host_interface":"","container_interface":"",
                    "mac":"02:00:00:00:00:01","ipv4":"172.17.0.2","prefix_len":16,"gateway":null,"mtu":1500}"#,
            )
            .unwrap()
        }
    }

    #[test]
    fn the_gateway_has_the_highest_priority_then_the_first_name() {
        let endpoints = [
            endpoint("b", Some("10.0.1.1")),
            endpoint("a", Some("10.0.0.1")),
            endpoint("0-internal", None),
        ];
        let chosen = |priority_of_b: i64| {
            gateways(&endpoints, |endpoint| match endpoint.network.as_str() {
                "a" => (0, "a"),
                "b" => (priority_of_b, "b"),
                _ => (9, "0-internal"),
            })
        };
        assert_eq!(chosen(0).ipv4, Some(1));
        assert_eq!(chosen(1).ipv4, Some(0));
        assert_eq!(chosen(-1).ipv4, Some(1));
        assert_eq!(gateways(&[], |_| (0, "")), Gateways::default());
    }

    #[test]
    fn one_of_both_families_is_the_gateway_of_both() {
        let six = |network: &str, ipv4: Option<&str>| Endpoint {
            gateway_v6: Some("fd00::1".parse().unwrap()),
            ..endpoint(network, ipv4)
        };
        let four = || endpoint("a", Some("10.0.0.1"));
        let chosen = |endpoints: &[Endpoint], priorities: [i64; 3]| {
            let chosen = gateways(endpoints, |one| match one.network.as_str() {
                "a" => (priorities[0], "a"),
                "b" => (priorities[1], "b"),
                _ => (priorities[2], "c"),
            });
            (chosen.ipv4, chosen.ipv6)
        };
        let (b, c) = (|| six("b", Some("10.0.1.1")), || six("c", Some("10.0.2.1")));
        assert_eq!(chosen(&[four(), b()], [0; 3]), (Some(1), Some(1)));
        assert_eq!(chosen(&[four(), b()], [5, -1, 0]), (Some(1), Some(1)));
        assert_eq!(chosen(&[four(), b(), c()], [0; 3]), (Some(1), Some(1)));
        assert_eq!(chosen(&[four(), b(), c()], [2, 0, 1]), (Some(2), Some(2)));
        // Without one of both each family has its own.
        assert_eq!(
            chosen(&[four(), six("b", None)], [0; 3]),
            (Some(0), Some(1))
        );
        assert_eq!(
            chosen(&[six("a", None), b()], [9, 0, 0]),
            (Some(1), Some(1))
        );
    }

    #[test]
    fn an_interface_has_the_first_free_number_or_the_name_that_is_wished_for() {
        let taken: BTreeSet<String> = ["eth0", "eth2"].map(str::to_owned).into();
        assert_eq!(interface_name(None, "eth", &taken), "eth1");
        assert_eq!(interface_name(None, "net", &taken), "net0");
        assert_eq!(interface_name(Some("foo0"), "eth", &taken), "foo0");
    }
}
