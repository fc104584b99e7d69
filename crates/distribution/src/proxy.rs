//! Which proxy a request goes through, by Go's rules for `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`. Pure.

use crate::Proxies;
use ipnet::IpNet;
use std::net::IpAddr;

/// Reads the proxies once and answers for each address.
#[derive(Clone, Debug)]
pub(crate) struct ProxyPlan {
    http: Option<String>,
    https: Option<String>,
    all_direct: bool,
    direct: Vec<Direct>,
}

#[derive(Clone, Debug)]
enum Direct {
    Network(IpNet),
    Address(IpAddr, Option<u16>),
    /// `.example.com`: the names below, and with `self_too` the name itself.
    Domain {
        suffix: String,
        self_too: bool,
        port: Option<u16>,
    },
}

impl ProxyPlan {
    pub(crate) fn new(proxies: &Proxies) -> Self {
        let entries = || {
            proxies
                .no_proxy
                .split(',')
                .map(|entry| entry.trim().to_lowercase())
                .filter(|entry| !entry.is_empty())
        };
        let proxy = |text: &Option<String>| {
            text.as_ref()
                .map(|text| text.trim())
                .filter(|text| !text.is_empty())
                .map(with_scheme)
        };
        Self {
            http: proxy(&proxies.http),
            https: proxy(&proxies.https),
            all_direct: entries().any(|entry| entry == "*"),
            direct: entries().filter_map(|entry| direct(&entry)).collect(),
        }
    }

    /// Gives the proxy for `scheme://host:port`, `None` for a direct connection.
    pub(crate) fn choose(&self, scheme: &str, host: &str, port: u16) -> Option<&str> {
        let proxy = match scheme {
            "https" => &self.https,
            _ => &self.http,
        };
        let host = host.trim_matches(['[', ']']).to_lowercase();
        let host = host.trim_end_matches('.');
        proxy
            .as_deref()
            .filter(|_| !self.all_direct && !self.is_direct(host, port))
    }

    fn is_direct(&self, host: &str, port: u16) -> bool {
        let address: Option<IpAddr> = host.parse().ok();
        // Go never asks a proxy for the machine itself.
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        self.direct.iter().any(|direct| match direct {
            Direct::Network(network) => address.is_some_and(|address| network.contains(&address)),
            Direct::Address(entry, only) => {
                address == Some(*entry) && only.is_none_or(|only| only == port)
            }
            Direct::Domain {
                suffix,
                self_too,
                port: only,
            } => {
                only.is_none_or(|only| only == port)
                    && (host.ends_with(suffix) || (*self_too && host == &suffix[1..]))
            }
        })
    }
}

/// A proxy without a scheme is one of HTTP.
fn with_scheme(text: &str) -> String {
    if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    }
}

fn direct(entry: &str) -> Option<Direct> {
    if let Ok(network) = entry.parse() {
        return Some(Direct::Network(network));
    }
    if let Ok(address) = entry.trim_matches(['[', ']']).parse() {
        return Some(Direct::Address(address, None));
    }
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) => (name, Some(port.parse().ok()?)),
        None => (entry, None),
    };
    if name.is_empty() {
        return None;
    }
    if let Ok(address) = name.trim_matches(['[', ']']).parse() {
        return Some(Direct::Address(address, port));
    }
    let name = name.strip_prefix('*').unwrap_or(name);
    let self_too = !name.starts_with('.');
    Some(Direct::Domain {
        suffix: if self_too {
            format!(".{name}")
        } else {
            name.to_owned()
        },
        self_too,
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(no_proxy: &str) -> ProxyPlan {
        ProxyPlan::new(&Proxies {
            http: Some("proxy:3128".to_owned()),
            https: Some("socks5h://proxy:1080".to_owned()),
            no_proxy: no_proxy.to_owned(),
        })
    }

    #[test]
    fn the_scheme_chooses_the_proxy() {
        let plan = plan("");
        assert_eq!(plan.choose("http", "a.b", 80), Some("http://proxy:3128"));
        assert_eq!(
            plan.choose("https", "a.b", 443),
            Some("socks5h://proxy:1080")
        );
        let none = ProxyPlan::new(&Proxies::default());
        assert_eq!(none.choose("https", "a.b", 443), None);
    }

    #[test]
    fn no_proxy_has_the_grammar_of_go() {
        for (no_proxy, host, port, direct) in [
            ("", "localhost", 80, true),
            ("", "127.9.9.9", 80, true),
            ("", "[::1]", 80, true),
            ("*", "a.b", 80, true),
            ("a.b", "a.b", 80, true),
            ("a.b", "x.A.b", 80, true),
            ("a.b", "xa.b", 80, false),
            (".a.b", "a.b", 80, false),
            (".a.b", "x.a.b", 80, true),
            ("*.a.b", "x.a.b", 80, true),
            ("a.b:81", "a.b", 80, false),
            (" a.b:81 , c", "a.b", 81, true),
            ("10.0.0.0/8", "10.1.2.3", 80, true),
            ("10.0.0.0/8", "11.1.2.3", 80, false),
            ("10.1.2.3:80", "10.1.2.3", 80, true),
            ("10.1.2.3:80", "10.1.2.3", 81, false),
            ("fd00::/8", "[fd00::1]", 80, true),
            ("10.1.2.3", "10.1.2.3", 443, true),
        ] {
            let chosen = plan(no_proxy).choose("http", host, port).is_none();
            assert_eq!(chosen, direct, "`{no_proxy}` {host}:{port}");
        }
    }
}
