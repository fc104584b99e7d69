//! Where a registry is reached: itself and its mirrors, in the order in which they are asked.

use crate::hosts::{Host, Hosts};
use crate::state::State;
use crate::tls::TlsSettings;
use crate::{Error, Insecure, Result};
use ipnet::IpNet;
use reqwest::Url;
use reqwest::header::HeaderMap;
use std::net::IpAddr;
use std::sync::Arc;

const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";

/// What a host is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To read by digest: blobs and manifests.
    Pull,
    /// To learn what a tag stands for, and lists.
    Resolve,
    /// To change something.
    Push,
}

/// One host that speaks for a registry.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// `host[:port]`, for people.
    pub(crate) host: String,
    /// Addresses that end with `/v2/`; where there are two, the second is without TLS and for insecure registries.
    pub(crate) bases: Vec<Url>,
    /// What a mirror is told with `?ns=`: the registry that it stands for.
    pub(crate) namespace: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) tls: TlsSettings,
    /// The registry itself: it alone sees the user's credentials.
    pub(crate) is_registry: bool,
    /// TLS may be missing or broken.
    pub(crate) is_insecure: bool,
}

impl Endpoint {
    /// Tells whether TLS may be missing or broken at an address to which this host sends us. An insecure registry makes
    /// no other host insecure: that has to be so by itself.
    pub(crate) async fn is_lenient(&self, state: &State, url: &Url) -> bool {
        let is_own = self.bases.iter().any(|base| base.host() == url.host());
        self.is_insecure && (is_own || is_insecure(state, &authority(url)).await)
    }
}

/// Gives the hosts of `domain` for a purpose: mirrors, and the registry as the last.
pub(crate) async fn of(
    state: &State,
    domain: &str,
    purpose: Purpose,
) -> Result<Vec<Arc<Endpoint>>> {
    let names: &[&str] = match domain {
        HUB => &[HUB, HUB_HOST, "_default"],
        _ => &[domain, "_default"],
    };
    let Hosts {
        mirrors,
        server,
        tls,
    } = Hosts::read(&state.config.certs_dirs, names)?;
    let mut endpoints = Vec::new();
    for host in &mirrors {
        let serves = match purpose {
            Purpose::Pull => host.pull,
            Purpose::Resolve => host.resolve,
            Purpose::Push => host.push,
        };
        if serves {
            endpoints.push(listed(host, domain, false)?);
        }
    }
    if domain == HUB && purpose != Purpose::Push {
        for mirror in &state.config.hub_mirrors {
            endpoints.push(hub_mirror(state, mirror).await?);
        }
    }
    let mut registry = match server {
        Some(server) => listed(&server, domain, true)?,
        None => itself(state, domain).await?,
    };
    registry.tls.roots.extend(tls.roots);
    if registry.tls.identities.is_empty() {
        registry.tls.identities = tls.identities;
    }
    endpoints.push(registry);
    Ok(endpoints.into_iter().map(Arc::new).collect())
}

/// The registry itself, without a word of it in a file.
async fn itself(state: &State, domain: &str) -> Result<Endpoint> {
    let host = if domain == HUB { HUB_HOST } else { domain };
    // Docker Hub is what it is; nobody has to look up its name for that, least of all where only mirrors are reached.
    let is_insecure = domain != HUB && is_insecure(state, domain).await;
    let schemes: &[&str] = if is_insecure {
        &["https", "http"]
    } else {
        &["https"]
    };
    let bases = schemes
        .iter()
        .map(|scheme| address(&format!("{scheme}://{host}/v2/")))
        .collect::<Result<_>>()?;
    Ok(Endpoint {
        host: host.to_owned(),
        bases,
        namespace: None,
        headers: HeaderMap::new(),
        tls: TlsSettings {
            unverified: is_insecure,
            ..TlsSettings::default()
        },
        is_registry: true,
        is_insecure,
    })
}

/// A host of a `hosts.toml`: as secure as the file says, wherever it is.
fn listed(host: &Host, domain: &str, is_registry: bool) -> Result<Endpoint> {
    let url = address(&host.url)?;
    let name = authority(&url);
    Ok(Endpoint {
        namespace: (name != domain && !is_registry).then(|| domain.to_owned()),
        is_insecure: host.tls.unverified || url.scheme() == "http",
        bases: vec![base(url, host.override_path)],
        host: name,
        headers: host.headers.clone(),
        tls: host.tls.clone(),
        is_registry,
    })
}

/// A mirror of Docker Hub by the daemon's own option.
async fn hub_mirror(state: &State, mirror: &str) -> Result<Endpoint> {
    let url = address(mirror)?;
    let host = authority(&url);
    let is_insecure = is_insecure(state, &host).await;
    let mut tls = Hosts::read(&state.config.certs_dirs, &[&host])?.tls;
    tls.unverified = is_insecure;
    let is_insecure = is_insecure || url.scheme() == "http";
    Ok(Endpoint {
        bases: vec![base(url, false)],
        host,
        namespace: Some(HUB.to_owned()),
        headers: HeaderMap::new(),
        tls,
        is_registry: false,
        is_insecure,
    })
}

fn address(text: &str) -> Result<Url> {
    let url = Url::parse(text)
        .map_err(|error| Error::Invalid(format!("address of a registry `{text}`: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(Error::Invalid(format!(
            "address of a registry `{text}`: neither http:// nor https://"
        )));
    }
    Ok(url)
}

/// Adds `/v2/` to an address unless it has it, or its path is to be taken as it is.
fn base(mut url: Url, override_path: bool) -> Url {
    let path = url.path().trim_end_matches('/').to_owned();
    let path = if override_path || path.ends_with("/v2") {
        path + "/"
    } else {
        path + "/v2/"
    };
    url.set_path(&path);
    url
}

/// Gives `host[:port]`, without a port that the scheme implies.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Tells whether a registry may be spoken to without TLS: it is named so, or its address is in a range that is, or it is
/// this machine.
async fn is_insecure(state: &State, authority: &str) -> bool {
    let (host, _) = split(authority);
    let mut networks: Vec<IpNet> = ["127.0.0.0/8", "::1/128"]
        .iter()
        .filter_map(|network| network.parse().ok())
        .collect();
    for insecure in &state.config.insecure {
        match insecure {
            Insecure::Host(name) if name == authority => return true,
            Insecure::Host(_) => {}
            Insecure::Network(network) => networks.extend(network.parse::<IpNet>()),
        }
    }
    if host == "localhost" {
        return true;
    }
    let addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        // A name that a proxy resolves may have no address here, and to find that out may take long.
        Err(_) if is_proxied(state, authority) => Vec::new(),
        Err(_) => state.names.lookup(host).await.unwrap_or_default(),
    };
    addresses
        .iter()
        .any(|address| networks.iter().any(|network| network.contains(address)))
}

fn is_proxied(state: &State, authority: &str) -> bool {
    address(&format!("https://{authority}/")).is_ok_and(|url| state.proxy(&url).is_some())
}

/// Splits `host[:port]`; brackets of IPv6 are dropped.
fn split(authority: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        return (host, rest.strip_prefix(':'));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_end_with_the_version_of_the_protocol() {
        for (text, override_path, expected) in [
            ("https://a", false, "https://a/v2/"),
            ("https://a/", false, "https://a/v2/"),
            ("http://a:5000/v2", false, "http://a:5000/v2/"),
            ("https://a/deep", false, "https://a/deep/v2/"),
            ("https://a/v2/deep", true, "https://a/v2/deep/"),
        ] {
            let url = base(address(text).expect("an address"), override_path);
            assert_eq!(url.as_str(), expected);
        }
        assert!(address("ftp://a").is_err() && address("a").is_err());
    }

    #[test]
    fn authorities_are_split() {
        assert_eq!(split("a:1"), ("a", Some("1")));
        assert_eq!(split("[::1]:5000"), ("::1", Some("5000")));
        assert_eq!(split("a"), ("a", None));
    }

    #[tokio::test]
    async fn this_machine_and_what_is_named_is_insecure() {
        let state = State::new(crate::Config {
            insecure: vec![
                Insecure::Host("a.example:5000".to_owned()),
                Insecure::Network("10.0.0.0/8".to_owned()),
            ],
            ..crate::Config::plain("test")
        });
        for (authority, expected) in [
            ("127.0.0.2:5000", true),
            ("[::1]:5000", true),
            ("localhost", true),
            ("10.9.8.7", true),
            ("11.9.8.7:80", false),
            ("a.example:5000", true),
        ] {
            assert_eq!(
                is_insecure(&state, authority).await,
                expected,
                "{authority}"
            );
        }
    }
}
