//! Names to addresses. The engine is one static binary, in which libc's resolver does not work; so the system's files are
//! read here, and again when they change.

use crate::network::LookupError;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

type Stamp = [Option<SystemTime>; 2];
/// What the files said when they bore the stamp.
type Known = Option<(Stamp, Arc<Current>)>;

/// Resolves names as the system's files tell; clones share the cache.
#[derive(Clone, Default)]
pub(crate) struct Names {
    current: Arc<Mutex<Known>>,
}

struct Current {
    resolver: TokioResolver,
    /// The first name server, for error texts.
    server: IpAddr,
}

impl Names {
    /// Gives the addresses of a name, in the order in which they are to be tried.
    pub(crate) async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        let current = self
            .current()
            .map_err(|text| LookupError::new(name, None, &text))?;
        let answer = current.resolver.lookup_ip(name).await.map_err(|error| {
            let text = if error.is_no_records_found() || error.is_nx_domain() {
                "no such host".to_owned()
            } else if matches!(error, hickory_resolver::net::NetError::Timeout) {
                "i/o timeout".to_owned()
            } else {
                error.to_string()
            };
            LookupError::new(name, Some(current.server), &text)
        })?;
        Ok(answer.iter().collect())
    }

    fn current(&self) -> Result<Arc<Current>, String> {
        let stamp = FILES.map(|path| {
            std::fs::metadata(path)
                .and_then(|metadata| metadata.modified())
                .ok()
        });
        let mut slot = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, current)) = &*slot
            && *known == stamp
        {
            return Ok(Arc::clone(current));
        }
        let current = Arc::new(Current::read()?);
        *slot = Some((stamp, Arc::clone(&current)));
        Ok(current)
    }
}

impl Current {
    fn read() -> Result<Self, String> {
        let (config, mut options) = hickory_resolver::system_conf::read_system_conf()
            .unwrap_or_else(|_| {
                (
                    ResolverConfig::from_name_servers(Vec::new()),
                    Default::default(),
                )
            });
        let (domain, search, mut servers) = config.into_parts();
        if servers.is_empty() {
            // What libc does without a resolv.conf.
            servers.push(NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into()));
        }
        let server = servers[0].ip;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let config = ResolverConfig::from_parts(domain, search, servers);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { resolver, server })
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move {
            let addresses = names.lookup(name.as_str()).await?;
            let addresses = addresses
                .into_iter()
                .map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}
