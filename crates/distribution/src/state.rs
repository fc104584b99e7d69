//! What all requests of one configuration share: connections, tokens, what is known of hosts.

use crate::challenge::Challenge;
use crate::dns::Names;
use crate::proxy::ProxyPlan;
use crate::tls::TlsSettings;
use crate::token::Tokens;
use crate::{Config, Error, Result};
use gantry_api::digest::Digest;
use reqwest::{Client, Proxy, Url};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Connections are given up after this even where stalls are allowed to be longer.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// So long is a mirror that did not answer left alone: to wait for it at each blob would cost more than it can save.
const DOWN: Duration = Duration::from_secs(30);
/// So long is a mirror not asked again for a blob of which it gave wrong bytes; it may be repaired.
const DISTRUST: Duration = Duration::from_secs(60 * 60);
/// So much of that is remembered before all is forgotten.
const DISTRUSTED_MAX: usize = 4096;
const IDLE_CONNECTIONS: usize = 8;

pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) names: Names,
    pub(crate) tokens: Tokens,
    proxies: Arc<ProxyPlan>,
    clients: Mutex<HashMap<TlsSettings, Client>>,
    reached: Mutex<HashMap<Url, Reached>>,
    /// Hosts that answered once: a failure to connect to one of these may pass.
    known: Mutex<HashSet<Url>>,
    /// Mirrors that did not answer, and since when.
    down: Mutex<HashMap<Url, Instant>>,
    /// Mirrors that gave wrong bytes, of what, and when.
    distrusted: Mutex<HashMap<(Url, Digest), Instant>>,
}

/// What a host's first answer told.
#[derive(Clone)]
pub(crate) struct Reached {
    /// The address that worked.
    pub(crate) base: Url,
    pub(crate) challenges: Vec<Challenge>,
}

impl State {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            proxies: Arc::new(ProxyPlan::new(&config.proxies)),
            config,
            names: Names::default(),
            tokens: Tokens::default(),
            clients: Mutex::default(),
            reached: Mutex::default(),
            known: Mutex::default(),
            down: Mutex::default(),
            distrusted: Mutex::default(),
        }
    }

    /// Gives the client for some settings; equal settings share one and its connections.
    pub(crate) fn client(&self, settings: &TlsSettings) -> Result<Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(settings) {
            return Ok(client.clone());
        }
        let proxies = Arc::clone(&self.proxies);
        let client = Client::builder()
            .user_agent(&self.config.user_agent)
            .tls_backend_preconfigured(settings.client_config()?)
            // Redirects are followed by hand: credentials stay with their host. One connection for each transfer: a
            // stalled one holds up no other, and no window of HTTP/2 limits it.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .http1_only()
            .dns_resolver(self.names.clone())
            .no_proxy()
            .proxy(Proxy::custom(move |url| {
                let port = url.port_or_known_default()?;
                let proxy = proxies.choose(url.scheme(), url.host_str()?, port)?;
                Some(proxy.to_owned())
            }))
            .connect_timeout(self.config.stall_timeout.min(CONNECT_TIMEOUT_MAX))
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| Error::Invalid(format!("set up the HTTP client: {error}")))?;
        clients.insert(settings.clone(), client.clone());
        Ok(client)
    }

    /// Gives the proxy for an address.
    pub(crate) fn proxy(&self, url: &Url) -> Option<&str> {
        let port = url.port_or_known_default()?;
        self.proxies.choose(url.scheme(), url.host_str()?, port)
    }

    /// Gives `address:port` of what is called for `url`, as far as it can be known, and whether that is a proxy.
    pub(crate) async fn dialled(&self, url: &Url) -> (String, bool) {
        let proxy = self.proxy(url).and_then(|proxy| Url::parse(proxy).ok());
        let via_proxy = proxy.is_some();
        let target = proxy.as_ref().unwrap_or(url);
        let port = target.port_or_known_default().unwrap_or(1080);
        let host = target.host_str().unwrap_or_default();
        let is_address = host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
        let looked_up = if is_address {
            Vec::new()
        } else {
            self.names.lookup(host).await.unwrap_or_default()
        };
        let text = match looked_up.first() {
            Some(address) => std::net::SocketAddr::new(*address, port).to_string(),
            None => format!("{host}:{port}"),
        };
        (text, via_proxy)
    }

    /// Gives what is known of a host by its first base.
    pub(crate) fn reached(&self, key: &Url) -> Option<Reached> {
        self.reached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    pub(crate) fn set_reached(&self, key: &Url, reached: Reached) {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone());
        self.reached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone(), reached);
    }

    /// Forgets what is known of a host, but not that it was there.
    pub(crate) fn forget(&self, key: &Url) {
        self.reached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }

    /// Tells whether the host ever answered.
    pub(crate) fn is_known(&self, key: &Url) -> bool {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(key)
    }

    /// Tells whether a mirror did not answer a short while ago.
    pub(crate) fn is_down(&self, key: &Url) -> bool {
        self.down
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .is_some_and(|since| since.elapsed() < DOWN)
    }

    pub(crate) fn set_down(&self, key: &Url) {
        self.down
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone(), Instant::now());
    }

    /// Tells whether a mirror gave wrong bytes of this a while ago.
    pub(crate) fn is_distrusted(&self, key: &Url, digest: &Digest) -> bool {
        self.distrusted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&(key.clone(), digest.clone()))
            .is_some_and(|since| since.elapsed() < DISTRUST)
    }

    pub(crate) fn distrust(&self, key: &Url, digest: &Digest) {
        let mut distrusted = self
            .distrusted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if distrusted.len() >= DISTRUSTED_MAX {
            distrusted.clear();
        }
        distrusted.insert((key.clone(), digest.clone()), Instant::now());
    }
}
