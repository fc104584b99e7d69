//! What a client of registries is told: mirrors, insecure registries, certificates, proxies, limits.

use std::path::PathBuf;
use std::time::Duration;

/// Configures all registries of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Mirrors of Docker Hub (`registry-mirrors`), asked in order before it.
    pub hub_mirrors: Vec<String>,
    /// Registries that may be spoken to without TLS, or whose certificate is not checked.
    pub insecure: Vec<Insecure>,
    /// Directories `DIR/HOST[:PORT]/` with `ca.crt`, `client.cert`, `client.key` and containerd's `hosts.toml`; the
    /// first that has the host counts.
    pub certs_dirs: Vec<PathBuf>,
    pub proxies: Proxies,
    /// How often a request is tried, the first time included.
    pub attempts_max: u32,
    /// How long a connection may stay silent before it counts as broken.
    pub stall_timeout: Duration,
    pub user_agent: String,
}

impl Config {
    /// Gives a configuration without mirrors, insecure registries, certificates and proxies.
    pub fn plain(user_agent: &str) -> Self {
        Self {
            hub_mirrors: Vec::new(),
            insecure: Vec::new(),
            certs_dirs: Vec::new(),
            proxies: Proxies::default(),
            attempts_max: 5,
            stall_timeout: Duration::from_secs(30),
            user_agent: user_agent.to_owned(),
        }
    }
}

/// Names registries by host or by address range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Insecure {
    /// `host` or `host:port`.
    Host(String),
    /// Addresses, as `10.0.0.0/8`.
    Network(String),
}

/// Proxies by the scheme of what is asked for; `socks5://` and `socks5h://` work too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    pub http: Option<String>,
    pub https: Option<String>,
    /// Comma-separated hosts, domains and networks that are reached directly.
    pub no_proxy: String,
}
