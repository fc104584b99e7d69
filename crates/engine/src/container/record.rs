//! The record of one container: everything that must outlive the daemon.
//!
//! A record names each resource of the machine *before* it is acquired (`Acquired`), so that the one teardown finds
//! it again, whenever the daemon was killed. It is written whole and replaced in one step.

use std::collections::BTreeMap;

use gantry_network::{Endpoint, PublishedPort};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::config::{Config, HostConfig, MountKind};
use super::state::State;
use crate::network::EndpointSettings;

/// What a record of this version says that earlier ones did not: 1, its networks.
pub(crate) const FORMAT: u32 = 1;

/// Everything known of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// What can be relied on, see [`FORMAT`].
    pub format: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    pub created_ns: i64,
    /// Digest of the image, `sha256:…`.
    pub image_id: String,
    /// What the process is, after the image's and the user's wishes are merged.
    pub path: String,
    pub args: Vec<String>,
    /// Merged with the image's configuration.
    pub config: Config,
    /// As the user gave it, with the daemon's defaults filled in.
    pub host: HostConfig,
    pub platform_os: String,
    pub state: State,
    pub mounts: Vec<MountPoint>,
    /// The networks that it is on while it runs, by name, with what is wished for there. None for `container:`.
    pub networks: BTreeMap<String, EndpointSettings>,
    /// Where links of old lead.
    pub links: Vec<LegacyLink>,
    /// Number of the writable snapshot; `None` until it is prepared.
    pub snapshot: Option<u64>,
    /// What the current run of the container holds of the machine.
    #[serde(deserialize_with = "of_any_age")]
    pub acquired: Acquired,
    /// Path of the log file, empty when the driver keeps none.
    pub log_path: String,
    /// The record exists, the container is not complete: a restart of the daemon removes it.
    pub incomplete: bool,
    /// A removal that is under way takes the anonymous volumes along.
    pub remove_volumes: bool,
}

/// Resources of one run, each written here before it is taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Acquired {
    /// A shim may live and listen on its socket.
    pub shim: bool,
    /// In the order of their interfaces. Records of old have one alone, or `null`, as `endpoint`.
    pub endpoints: Vec<Endpoint>,
    pub ports: Vec<PublishedPort>,
    /// Id of the endpoint that the ports lead to; `None` for the first.
    pub ports_endpoint: Option<String>,
    /// netd may have what the container asks names by.
    pub names: bool,
    /// Path beneath each hierarchy, such as `/gantry/ID`.
    pub cgroup: Option<String>,
    /// A tmpfs may be mounted in the container's directory, the /dev/shm that others may share.
    pub shm: bool,
    /// Volumes with a file system of their own that this run keeps mounted.
    pub volumes: Vec<String>,
    /// Parts of volumes may be mounted in the container's directory, from where the runtime takes them.
    pub subpaths: bool,
    /// The run is over, and what is here could not be given back yet.
    pub over: bool,
}

impl Acquired {
    /// Tells whether nothing is held: every run begins with a shim.
    pub fn is_nothing(&self) -> bool {
        !self.shim
    }

    /// Returns the id of the endpoint that the ports lead to, or would.
    pub fn holder_of_ports(&self) -> Option<String> {
        let first = || self.endpoints.first().map(|first| first.id.clone());
        self.ports_endpoint.clone().or_else(first)
    }

    /// Returns the ports that lead to the endpoint.
    pub fn ports_of(&self, endpoint: &Endpoint) -> &[PublishedPort] {
        if self.holder_of_ports().as_ref() == Some(&endpoint.id) {
            &self.ports
        } else {
            &[]
        }
    }

    /// Names what is held, for a person; `None` if nothing is.
    pub fn describe(&self) -> Option<String> {
        let mut held = Vec::new();
        let addresses = self.endpoints.iter().flat_map(Endpoint::addresses);
        held.extend(addresses.map(|address| format!("the address {address}")));
        held.extend(
            self.ports
                .iter()
                .map(|port| format!("the port {}/{}", port.host_port, port.protocol)),
        );
        held.extend(self.cgroup.iter().map(|path| format!("the cgroup {path}")));
        if self.shm {
            held.push("its /dev/shm".to_owned());
        }
        held.extend(self.volumes.iter().map(|name| format!("the volume {name}")));
        if self.subpaths {
            held.push("parts of its volumes".to_owned());
        }
        if held.is_empty() && self.shim {
            held.push("its runtime state".to_owned());
        }
        (!held.is_empty()).then(|| held.join(", "))
    }
}

/// Reads what a run holds, also from when it could have one endpoint at most. Where a record has both words, the list holds:
/// whoever wrote it knew more than one who wrote the other.
fn of_any_age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Acquired, D::Error> {
    let mut fields = serde_json::Map::deserialize(deserializer)?;
    if let Some(one) = fields.remove("endpoint") {
        let list = match one {
            Value::Null => Vec::new(),
            one => vec![one],
        };
        fields
            .entry("endpoints")
            .or_insert_with(|| Value::Array(list));
    }
    serde_json::from_value(Value::Object(fields)).map_err(D::Error::custom)
}

impl Record {
    /// Brings a record that an earlier version wrote up to date.
    pub(crate) fn migrate(&mut self) {
        if self.format < 1 && !self.host.network_mode.starts_with("container:") {
            let settings = EndpointSettings {
                mac: self.config.mac_address.clone(),
                ..EndpointSettings::default()
            };
            let name = self.host.network_mode.clone();
            self.networks.entry(name).or_insert(settings);
        }
        self.format = FORMAT;
    }
}

/// A link of old to another container (`--link`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LegacyLink {
    /// Id of the container that it leads to.
    pub container: String,
    /// What that was called when the link was made.
    pub name: String,
    pub alias: String,
}

/// One mount of a container as `inspect` shows it and a start makes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountPoint {
    pub kind: MountKind,
    /// The volume's name.
    pub name: String,
    /// Path on the host; empty for tmpfs.
    pub source: String,
    pub destination: String,
    pub driver: String,
    /// As given: `ro`, `z`, …
    pub mode: String,
    pub rw: bool,
    pub propagation: String,
    /// The user chose the propagation, which is kept to the letter then.
    pub propagation_given: bool,
    /// Came with `-v`/`--mount`/`--tmpfs` (true) or from the image or another container.
    pub explicit: bool,
    pub non_recursive: bool,
    pub read_only_non_recursive: bool,
    pub read_only_force_recursive: bool,
    pub no_copy: bool,
    pub subpath: String,
    /// Options of a tmpfs, as in fstab.
    pub tmpfs_options: Vec<String>,
    /// The volume was made for this container alone and goes with `rm -v`.
    pub anonymous: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Record {
        let mut record: Record = serde_json::from_str(text).unwrap();
        record.migrate();
        record
    }

    #[test]
    fn a_record_of_old_has_one_network_and_one_endpoint_at_most() {
        let endpoint = r#"{"id":"e1","container_id":"c1","network":"n1","host_interface":"veth1",
            "container_interface":"eth0","mac":"02:00:00:00:00:01","ipv4":"172.17.0.2","prefix_len":16,
            "gateway":"172.17.0.1","mtu":1500}"#;
        let running = read(&format!(
            r#"{{"host":{{"network_mode":"bridge"}},"config":{{"mac_address":"02:00:00:00:00:01"}},
                "acquired":{{"shim":true,"endpoint":{endpoint},"ports":[]}}}}"#
        ));
        assert_eq!(running.acquired.endpoints[0].id, "e1");
        assert_eq!(running.networks["bridge"].mac, "02:00:00:00:00:01");
        let idle = read(r#"{"host":{"network_mode":"none"},"acquired":{"endpoint":null}}"#);
        assert!(idle.acquired.endpoints.is_empty() && idle.networks.contains_key("none"));
        assert!(
            read(r#"{"host":{"network_mode":"container:x"}}"#)
                .networks
                .is_empty()
        );
        // Both words in one record are no reason to lose the container: the list holds.
        let both = read(&format!(
            r#"{{"acquired":{{"endpoints":[{endpoint}],"endpoint":null,"shim":true}}}}"#
        ));
        assert_eq!(both.acquired.endpoints, running.acquired.endpoints);
        let both = read(&format!(
            r#"{{"acquired":{{"endpoint":{endpoint},"endpoints":[]}}}}"#
        ));
        assert!(both.acquired.endpoints.is_empty());
        // What is written now is read as it is, also when the user has taken every network away.
        let again = read(&serde_json::to_string(&running).unwrap());
        assert_eq!(again.acquired, running.acquired);
        assert!(
            read(r#"{"format":1,"host":{"network_mode":"bridge"}}"#)
                .networks
                .is_empty()
        );
    }

    #[test]
    fn ports_lead_to_one_endpoint() {
        let endpoint = |id: &str| {
            Endpoint {
            id: id.to_owned(),
            ..serde_json::from_str(
                r#"{"id":"","container_id":"","network":"","host_interface":"","container_interface":"",
                    "mac":"02:00:00:00:00:01","ipv4":"172.17.0.2","prefix_len":16,"gateway":null,"mtu":1500}"#,
            )
            .unwrap()
        }
        };
        let port: PublishedPort = serde_json::from_str(
            r#"{"ip":"0.0.0.0","host_port":80,"container_port":80,"protocol":"tcp"}"#,
        )
        .unwrap();
        let mut acquired = Acquired {
            endpoints: vec![endpoint("a"), endpoint("b")],
            ports: vec![port],
            ..Acquired::default()
        };
        assert_eq!(acquired.ports_of(&endpoint("a")), [port]);
        acquired.ports_endpoint = Some("b".to_owned());
        assert_eq!(acquired.ports_of(&endpoint("a")), []);
        assert_eq!(acquired.ports_of(&endpoint("b")), [port]);
    }
}
