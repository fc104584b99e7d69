//! Names to addresses. The engine is one static binary, in which libc's resolver does not work; so the system's files are
//! read here, and again when they change.

use crate::network::LookupError;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// By which a change of a file is seen: when it was written, its place and its size.
type Stamp = Option<(SystemTime, u64, u64)>;
/// What the files said when they bore the stamps.
type Known = Option<([Stamp; 2], Arc<Current>)>;

/// Resolves names as the system's files tell; clones share the cache.
#[derive(Clone)]
pub(crate) struct Names {
    /// Name servers, and names that are known without them.
    files: [PathBuf; 2],
    current: Arc<Mutex<Known>>,
}

impl Default for Names {
    fn default() -> Self {
        Self::of(["/etc/resolv.conf".into(), "/etc/hosts".into()])
    }
}

struct Current {
    resolver: TokioResolver,
    /// The first name server, for error texts.
    server: IpAddr,
}

impl Names {
    fn of(files: [PathBuf; 2]) -> Self {
        Self {
            files,
            current: Arc::default(),
        }
    }

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
        let stamp = [stamp(&self.files[0]), stamp(&self.files[1])];
        let mut slot = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, current)) = &*slot
            && *known == stamp
        {
            return Ok(Arc::clone(current));
        }
        let current = Arc::new(Current::read(&self.files)?);
        *slot = Some((stamp, Arc::clone(&current)));
        Ok(current)
    }
}

impl Current {
    fn read([servers, names]: &[PathBuf; 2]) -> Result<Self, String> {
        let (config, mut options) = std::fs::read(servers)
            .ok()
            .and_then(|text| parse_resolv_conf(text).ok())
            .unwrap_or_else(|| {
                (
                    ResolverConfig::from_name_servers(Vec::new()),
                    ResolverOpts::default(),
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
        let mut resolver = builder.build().map_err(|error| error.to_string())?;
        let mut hosts = Hosts::default();
        if let Ok(file) = std::fs::File::open(names) {
            // What cannot be read of it is as if it were not there, as for libc.
            let _ = hosts.read_hosts_conf(file);
        }
        resolver.set_hosts(Arc::new(hosts));
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

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    let written = metadata.modified().ok()?;
    Some((written, metadata.ino(), metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_files_are_read_again_when_they_change() {
        let directory = tempfile::tempdir().expect("a directory");
        let (servers, hosts) = (directory.path().join("r"), directory.path().join("h"));
        let names = Names::of([servers.clone(), hosts.clone()]);
        let addresses = async || {
            names
                .lookup("a.example")
                .await
                .map_err(|error| error.to_string())
        };
        std::fs::write(
            &servers,
            "nameserver 127.0.0.255\noptions timeout:1 attempts:1",
        )
        .expect("a file");
        std::fs::write(&hosts, "10.1.2.3 a.example b.example").expect("a file");
        assert_eq!(addresses().await, Ok(vec![[10, 1, 2, 3].into()]));
        std::fs::write(&hosts, "10.1.2.4  a.example # moved").expect("a file");
        assert_eq!(addresses().await, Ok(vec![[10, 1, 2, 4].into()]));
        std::fs::remove_file(&hosts).expect("gone");
        let error = addresses().await.expect_err("nobody knows it");
        assert!(
            error.starts_with("lookup a.example on 127.0.0.255:53: "),
            "{error}"
        );
        std::fs::write(
            &servers,
            "nameserver 127.0.1.255\noptions timeout:1 attempts:1",
        )
        .expect("a file");
        let error = addresses().await.expect_err("nobody knows it");
        assert!(
            error.starts_with("lookup a.example on 127.0.1.255:53: "),
            "{error}"
        );
    }
}
