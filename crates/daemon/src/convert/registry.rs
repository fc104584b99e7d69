//! Registries: from the configuration to the engine's, and what `info` tells of them.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_api::system::{IndexInfo, RegistryServiceConfig};
use gantry_engine::image::Concurrency;
use gantry_engine::image::distribution::{Config, Insecure, Proxies};

use crate::config::Registries;
use crate::server::version::ENGINE_VERSION;

/// Directories with the certificates of registries, the engine's own first.
const CERTS_DIRS: [&str; 2] = ["/etc/gantry/certs.d", "/etc/docker/certs.d"];
/// How long a registry may stay silent within an answer.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Writes what the engine is told.
pub fn config(registries: &Registries) -> (Config, Concurrency) {
    let hosts = registries.insecure_hosts.iter().cloned();
    let networks = registries.insecure_networks.iter().cloned();
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let config = Config {
        hub_mirrors: registries.mirrors.clone(),
        insecure: hosts
            .map(Insecure::Host)
            .chain(networks.map(Insecure::Network))
            .collect(),
        certs_dirs: CERTS_DIRS.map(Into::into).to_vec(),
        proxies: Proxies {
            http: given(&registries.proxies.http),
            https: given(&registries.proxies.https),
            no_proxy: registries.proxies.no_proxy.clone(),
        },
        attempts_max: registries.attempts_max,
        stall_timeout: STALL_TIMEOUT,
        user_agent: format!(
            "docker/{ENGINE_VERSION} gantry/{} os/linux arch/{}",
            env!("CARGO_PKG_VERSION"),
            super::system::go_architecture(std::env::consts::ARCH)
        ),
    };
    let concurrency = Concurrency {
        downloads: registries.downloads_max,
        uploads: registries.uploads_max,
    };
    (config, concurrency)
}

/// Writes what `info` tells.
pub fn info(registries: &Registries) -> RegistryServiceConfig {
    let hub = IndexInfo {
        name: "docker.io".to_owned(),
        mirrors: Some(registries.mirrors.clone()),
        secure: true,
        official: true,
    };
    let insecure = registries.insecure_hosts.iter().map(|host| IndexInfo {
        name: host.clone(),
        mirrors: Some(Vec::new()),
        secure: false,
        official: false,
    });
    let indexes: BTreeMap<_, _> = std::iter::once(hub)
        .chain(insecure)
        .map(|index| (index.name.clone(), index))
        .collect();
    RegistryServiceConfig {
        insecure_registry_cidrs: Some(registries.insecure_networks.clone()),
        index_configs: Some(indexes),
        mirrors: super::null_if_empty(&registries.mirrors),
        ..RegistryServiceConfig::default()
    }
}

/// Puts signs in the place of user and password of a proxy's address.
pub fn masked(address: &str) -> String {
    match address.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            match authority.rsplit_once('@') {
                Some((user, _)) => format!("{scheme}://xxxxx:xxxxx{}", &rest[user.len()..]),
                None => address.to_owned(),
            }
        }
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_proxies_are_not_told() {
        assert_eq!(masked("http://p:1"), "http://p:1");
        assert_eq!(masked("http://u:s@p:1/x"), "http://xxxxx:xxxxx@p:1/x");
        assert_eq!(masked("p:1"), "p:1");
        assert_eq!(masked(""), "");
    }

    #[test]
    fn insecure_hosts_are_indexes() {
        let mut registries = crate::config::registry::settings(&BTreeMap::new()).unwrap();
        registries.insecure_hosts.push("r.example:1".to_owned());
        let info = serde_json::to_value(info(&registries)).unwrap();
        assert_eq!(
            info["IndexConfigs"]["r.example:1"],
            serde_json::json!({"Name": "r.example:1", "Mirrors": [], "Secure": false, "Official": false})
        );
        assert!(info["Mirrors"].is_null());
    }
}
