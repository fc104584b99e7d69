//! Links of old (`--link name:alias`) on the default bridge: names in /etc/hosts and variables in the environment.
//!
//! A container's record says which others it is linked to; what they are called and where they are is looked up anew at
//! each start and exec. While it runs, its hosts file follows a linked container that comes back with another address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use gantry_api::port::Protocol;

use super::config::{Config, HostConfig, PortSpec};
use super::files;
use super::record::{LegacyLink, Record};
use crate::{Engine, Error, Result};

/// A linked container as it is now.
#[derive(Clone, Debug)]
pub(crate) struct Linked {
    pub alias: String,
    /// `/container/alias`, after the name of the container that links.
    path: String,
    id: String,
    name: String,
    address: Ipv4Addr,
    ports: Vec<PortSpec>,
    env: Vec<String>,
}

/// Splits `name[:alias]`, also in the form `/name:/container/alias` in which links are shown.
fn parse(text: &str) -> Result<(&str, &str)> {
    if text.is_empty() {
        return Err(Error::invalid("empty string specified for links"));
    }
    let (name, alias) = text.split_once(':').unwrap_or((text, text));
    if alias.contains(':') && alias != text {
        return Err(Error::invalid(format!("bad format for links: {text}")));
    }
    Ok(match name.strip_prefix('/') {
        Some(name) if alias != text => (name, alias.rsplit('/').next().unwrap_or(alias)),
        _ => (name, alias),
    })
}

impl Linked {
    /// Returns what stands beside the address in the hosts file.
    fn names(&self) -> Vec<String> {
        let mut names = vec![self.alias.clone(), self.id[..12].to_owned()];
        if self.alias != self.name {
            names.push(self.name.clone());
        }
        names
    }

    pub(crate) fn host(&self) -> (IpAddr, Vec<String>) {
        (self.address.into(), self.names())
    }

    /// Returns the variables that tell of it: its ports, by number with TCP first, its name, its own environment.
    pub(crate) fn variables(&self) -> Vec<String> {
        let alias = self.alias.to_uppercase().replace('-', "_");
        let mut ports = self.ports.clone();
        ports.sort_by_key(|port| (port.protocol != Protocol::Tcp, port.port));
        let url = |port: &PortSpec| {
            format!(
                "{}://{}:{}",
                port.protocol.as_str(),
                self.address,
                port.port
            )
        };
        let prefix = |port: &PortSpec| {
            let protocol = port.protocol.as_str().to_uppercase();
            format!("{alias}_PORT_{}_{protocol}", port.port)
        };
        let mut all = Vec::new();
        if let Some(first) = ports.first() {
            all.push(format!("{alias}_PORT={}", url(first)));
        }
        // A run of consecutive ports is told once more, as a range, when it is over.
        let mut run = ports.first().map(|first| (first, first));
        for (index, port) in ports.iter().enumerate() {
            let prefix_of_port = prefix(port);
            all.push(format!("{prefix_of_port}={}", url(port)));
            all.push(format!("{prefix_of_port}_ADDR={}", self.address));
            all.push(format!("{prefix_of_port}_PORT={}", port.port));
            all.push(format!("{prefix_of_port}_PROTO={}", port.protocol.as_str()));
            let Some((start, end)) = &mut run else { break };
            if u32::from(port.port) == u32::from(end.port) + 1 && port.protocol == start.protocol {
                *end = port;
                if index + 1 < ports.len() {
                    continue;
                }
            }
            if start != end {
                let prefix = prefix(start);
                all.push(format!("{prefix}_START={}", url(start)));
                all.push(format!("{prefix}_PORT_START={}", start.port));
                all.push(format!("{prefix}_END={}", url(end)));
                all.push(format!("{prefix}_PORT_END={}", end.port));
            }
            run = Some((port, port));
        }
        all.push(format!("{alias}_NAME={}", self.path));
        let own = self.env.iter().filter_map(|entry| entry.split_once('='));
        all.extend(
            own.filter(|(name, _)| !matches!(*name, "HOME" | "PATH"))
                .map(|(name, value)| format!("{alias}_ENV_{name}={value}")),
        );
        all
    }
}

/// Replaces the address of the line with these names; `None` if it stands there already, or no such line does.
fn with_address(hosts: &str, names: &[String], address: IpAddr) -> Option<String> {
    let names = names.join(" ");
    let line = format!("{address}\t{names}");
    let mut changed = false;
    let lines: Vec<&str> = hosts
        .lines()
        .map(|old| match old.split_once('\t') {
            Some((_, rest)) if rest == names && old != line => {
                changed = true;
                line.as_str()
            }
            _ => old,
        })
        .collect();
    changed.then(|| lines.join("\n") + "\n")
}

impl Engine {
    /// Finds the containers that a new one is to be linked to.
    ///
    /// # Errors
    /// Docker's texts: a container that is not there, networks that cannot have links (invalid).
    pub(crate) fn resolve_links(&self, host: &HostConfig) -> Result<Vec<LegacyLink>> {
        let conflict = |what: &str| {
            Error::invalid(format!(
                "conflicting options: {what} can't be used with links. This would result in undefined behavior"
            ))
        };
        if !host.links.is_empty() {
            if host.network_mode == "host" {
                return Err(conflict("host type networking"));
            }
            if host.network_mode.starts_with("container:") {
                return Err(conflict("container type network"));
            }
        }
        if host.network_mode != "bridge" {
            // There they are names on that network.
            return Ok(Vec::new());
        }
        let mut all: Vec<LegacyLink> = Vec::new();
        for text in &host.links {
            let (name, alias) = parse(text)?;
            let find = |name: &str| {
                self.container(name)
                    .map(|container| container.record())
                    .map_err(|error| {
                        let text = if name.is_empty() {
                            "invalid name or ID supplied: \"\"".to_owned()
                        } else {
                            error.to_string()
                        };
                        Error::invalid(format!("could not get container for {name}: {text}"))
                    })
            };
            let mut other = find(name)?;
            while let Some(id) = other.host.network_mode.strip_prefix("container:") {
                other = find(id)?;
            }
            if other.host.network_mode == "host" {
                return Err(conflict("host type networking"));
            }
            // Of two with one alias the first stays.
            if !all.iter().any(|link| link.alias == alias) {
                all.push(LegacyLink {
                    container: other.id.clone(),
                    name: other.name.clone(),
                    alias: alias.to_owned(),
                });
            }
        }
        Ok(all)
    }

    /// Looks up the containers that `record` is linked to.
    ///
    /// # Errors
    /// Docker's texts: one that does not run or is not on the bridge.
    pub(crate) fn linked(&self, record: &Record) -> Result<Vec<Linked>> {
        if !record.networks.contains_key("bridge") {
            return Ok(Vec::new());
        }
        let one = |link: &LegacyLink| {
            let path = format!("/{}/{}", record.name, link.alias);
            let other = self.container(&link.container).map(|other| other.record());
            let running = other
                .as_ref()
                .is_ok_and(|other| other.state.status.has_process());
            let Some(other) = other.ok().filter(|_| running) else {
                return Err(Error::system(format!(
                    "Cannot link to a non running container: /{} AS {path}",
                    self.name_now(link)
                )));
            };
            let Some(address) = self.on_bridge(&other) else {
                return Err(Error::system(format!(
                    "container {} not attached to default bridge network",
                    other.id
                )));
            };
            let Config {
                exposed_ports, env, ..
            } = &other.config;
            Ok(Linked {
                alias: link.alias.clone(),
                path,
                id: other.id.clone(),
                name: other.name.clone(),
                address,
                ports: exposed_ports.iter().cloned().collect(),
                env: env.clone(),
            })
        };
        record.links.iter().map(one).collect()
    }

    fn name_now(&self, link: &LegacyLink) -> String {
        match self.container(&link.container) {
            Ok(other) => other.record().name.clone(),
            // It is gone: what it was called.
            Err(_) => link.name.clone(),
        }
    }

    /// Returns the environment that the engine gives a process of the container: defaults, links, the configuration's.
    pub(crate) fn environment(
        &self,
        record: &Record,
        hostname: &str,
        tty: bool,
    ) -> Result<Vec<String>> {
        let links: Vec<String> = self
            .linked(record)?
            .iter()
            .flat_map(Linked::variables)
            .collect();
        Ok(super::merge::environment(
            &record.config.env,
            hostname,
            tty,
            &links,
        ))
    }

    /// Returns the container's links as they are shown: `/name:/container/alias`.
    pub(crate) fn shown_links(&self, record: &Record) -> Vec<String> {
        let shown =
            |link: &LegacyLink| format!("/{}:/{}/{}", self.name_now(link), record.name, link.alias);
        record.links.iter().map(shown).collect()
    }

    /// Returns the names that links give: id of the container they lead to, `/container/alias`.
    pub(crate) fn names_by_links(&self) -> BTreeMap<String, Vec<String>> {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for parent in self.inner.containers.all() {
            let parent = parent.record();
            for link in &parent.links {
                let name = format!("/{}/{}", parent.name, link.alias);
                names.entry(link.container.clone()).or_default().push(name);
            }
        }
        names
    }

    /// Returns the records of the containers that link to the container.
    fn linking(&self, id: &str) -> Vec<std::sync::Arc<Record>> {
        let records = self
            .inner
            .containers
            .all()
            .into_iter()
            .map(|one| one.record());
        records
            .filter(|record| record.links.iter().any(|link| link.container == id))
            .collect()
    }

    /// Returns the container's address on the default bridge.
    fn on_bridge(&self, record: &Record) -> Option<Ipv4Addr> {
        let id = self.inner.networks.find("bridge").ok()?.id.clone();
        let mut endpoints = record.acquired.endpoints.iter();
        endpoints.find(|endpoint| endpoint.network == id)?.ipv4
    }

    /// Writes the address of a container that has started into the hosts files of running ones that are linked to it.
    pub(crate) fn refresh_links_to(&self, record: &Record) {
        if self.on_bridge(record).is_none() {
            return;
        }
        for parent in self.linking(&record.id) {
            if !parent.state.status.has_process() || !parent.networks.contains_key("bridge") {
                continue;
            }
            for link in parent
                .links
                .iter()
                .filter(|link| link.container == record.id)
            {
                if let Err(error) = self.refresh_link(&parent, record, link) {
                    tracing::error!(container = parent.id, %error, "update the address of a linked container");
                }
            }
        }
    }

    fn refresh_link(
        &self,
        parent: &Record,
        child: &Record,
        link: &LegacyLink,
    ) -> std::io::Result<()> {
        let Some(address) = self.on_bridge(child) else {
            return Ok(());
        };
        let path = self.directory(&parent.id).join("hosts");
        let linked = Linked {
            alias: link.alias.clone(),
            path: String::new(),
            id: child.id.clone(),
            name: child.name.clone(),
            address,
            ports: Vec::new(),
            env: Vec::new(),
        };
        let (address, names) = linked.host();
        files::edit_mounted(&path, |text| {
            // One that is no text is the container's own: no line of the engine's is looked for there.
            let text = std::str::from_utf8(text).ok()?;
            with_address(text, &names, address).map(String::into_bytes)
        })
    }

    /// Takes a link away by its path `container/alias`; the container that it led to stays.
    ///
    /// # Errors
    /// Not found; a container's own name is no link (conflict).
    pub(crate) async fn remove_link(&self, path: &str) -> Result<()> {
        let missing = || Error::not_found(format!("No such container: {path}"));
        let Some((parent, alias)) = path.trim_start_matches('/').split_once('/') else {
            self.container(path)?;
            // A conflict by its words, an error of the system by its status: Docker's.
            return Err(Error::system(
                "Conflict, cannot remove the default link name of the container",
            ));
        };
        let container = self.container(parent).map_err(|_| missing())?;
        let alias = alias.to_owned();
        if !container
            .record()
            .links
            .iter()
            .any(|link| link.alias == alias)
        {
            return Err(missing());
        }
        self.own(container, move |engine, container, mut owner| async move {
            engine
                .save(&container, &mut owner, move |record| {
                    record.links.retain(|link| link.alias != alias);
                })
                .await?;
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linked(alias: &str, ports: &[&str]) -> Linked {
        Linked {
            alias: alias.into(),
            path: format!("/web/{alias}"),
            id: "0123456789abcdef".into(),
            name: "db".into(),
            address: Ipv4Addr::new(172, 17, 0, 2),
            ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
            env: vec!["PATH=/bin".into(), "A=b=c".into(), "BARE".into()],
        }
    }

    #[test]
    fn links_have_a_name_and_perhaps_an_alias() {
        for (text, want) in [
            ("db", ("db", "db")),
            ("db:data", ("db", "data")),
            ("/db:/web/data", ("db", "data")),
        ] {
            assert_eq!(parse(text).unwrap(), want);
        }
        for bad in ["", "a:b:c"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn variables_are_dockers() {
        // As Docker 28.5 gives them for --expose 80-81 --expose 90/udp --expose 100.
        let all = linked("my-db", &["90/udp", "100", "81", "80"]).variables();
        let names: Vec<&str> = all
            .iter()
            .map(|entry| entry.split_once('=').unwrap().0)
            .filter(|name| !name.ends_with("_ADDR") && !name.ends_with("_PROTO"))
            .collect();
        assert_eq!(
            names,
            [
                "MY_DB_PORT",
                "MY_DB_PORT_80_TCP",
                "MY_DB_PORT_80_TCP_PORT",
                "MY_DB_PORT_81_TCP",
                "MY_DB_PORT_81_TCP_PORT",
                "MY_DB_PORT_100_TCP",
                "MY_DB_PORT_100_TCP_PORT",
                "MY_DB_PORT_80_TCP_START",
                "MY_DB_PORT_80_TCP_PORT_START",
                "MY_DB_PORT_80_TCP_END",
                "MY_DB_PORT_80_TCP_PORT_END",
                "MY_DB_PORT_90_UDP",
                "MY_DB_PORT_90_UDP_PORT",
                "MY_DB_NAME",
                "MY_DB_ENV_A",
            ]
        );
        assert_eq!(all[0], "MY_DB_PORT=tcp://172.17.0.2:80");
        assert_eq!(all.last().unwrap(), "MY_DB_ENV_A=b=c");
        assert_eq!(linked("db", &[]).variables()[0], "DB_NAME=/web/db");
    }

    #[test]
    fn a_new_address_replaces_the_old_one_alone() {
        let names = linked("data", &[]).names();
        let hosts = "127.0.0.1\tlocalhost\n172.17.0.9\tdata 0123456789ab db\n172.17.0.3\tme\n";
        let address = IpAddr::from([172, 17, 0, 2]);
        let new = with_address(hosts, &names, address).unwrap();
        assert_eq!(
            new,
            "127.0.0.1\tlocalhost\n172.17.0.2\tdata 0123456789ab db\n172.17.0.3\tme\n"
        );
        assert_eq!(with_address(&new, &names, address), None);
        assert_eq!(linked("db", &[]).names(), ["db", "0123456789ab"]);
    }
}
