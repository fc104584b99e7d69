//! The files of a container's directory, and the paths of everything that is made for one container.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use gantry_network::Endpoint;
use gantry_network::resolv::{self, DnsOptions, Resolver};
use gantry_shim::protocol::{Overlay, Runtime};

use super::legacy_links::Linked;
use super::record::Record;
use crate::{Engine, Error, Result};

/// What a start mounts over /etc of the container.
pub(crate) struct Files {
    pub hostname: String,
    pub hostname_path: PathBuf,
    pub hosts_path: PathBuf,
    pub resolv_conf_path: PathBuf,
}

/// The most that is read of a file that is mounted into a container.
const MOUNTED_BYTES_MAX: usize = 1 << 20;

/// Reads a file that is mounted into a container, who may have made it of any size and put any bytes in.
///
/// # Errors
/// The system's; a file that is too large.
pub(super) fn read_mounted(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = MOUNTED_BYTES_MAX as u64 + 1;
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > MOUNTED_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// Changes a file that is mounted into a container, unless `edit` gives `None` or the same. In place: another file would
/// not be the one that is mounted.
///
/// # Errors
/// As [`read_mounted`].
pub(super) fn edit_mounted(
    path: &Path,
    edit: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> io::Result<()> {
    let old = read_mounted(path)?;
    match edit(&old) {
        Some(new) if new != old => std::fs::write(path, new),
        _ => Ok(()),
    }
}

/// Writes hostname, hosts and resolv.conf; with `--network container:` the other container's are shared.
pub(crate) fn write(engine: &Engine, record: &Record, links: &[Linked]) -> Result<Files> {
    if let Some(id) = record.host.network_mode.strip_prefix("container:") {
        let directory = engine.directory(id);
        let hostname = read_mounted(&directory.join("hostname")).unwrap_or_default();
        let hostname = String::from_utf8(hostname).unwrap_or_default();
        let hostname = hostname.trim().to_owned();
        return Ok(Files {
            hostname,
            hostname_path: directory.join("hostname"),
            hosts_path: directory.join("hosts"),
            resolv_conf_path: directory.join("resolv.conf"),
        });
    }
    let directory = engine.directory(&record.id);
    let hostname = record.config.hostname.clone();
    let write = |name: &str, text: &str| -> Result<PathBuf> {
        let path = directory.join(name);
        std::fs::write(&path, text)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)))
            .map_err(|error| {
                Error::io(
                    format_args!("write {name} of container {}", record.id),
                    error,
                )
            })?;
        Ok(path)
    };
    let host_network = record.host.network_mode == "host";
    let names = if record.acquired.names {
        Names::Internal
    } else {
        Names::None
    };
    let resolv_conf = resolv_conf(engine, record, names)?;
    let extra = extra_hosts(engine, &record.host.extra_hosts)?;
    let hosts = if host_network && extra.is_empty() {
        std::fs::read_to_string("/etc/hosts").unwrap_or_default()
    } else {
        let names = resolv::host_names(&hostname, &record.config.domainname);
        let own = record.acquired.endpoints.iter();
        let own = own
            .flat_map(Endpoint::addresses)
            .map(|address| (address, names.clone()));
        let endpoints: Vec<_> = links.iter().map(Linked::host).chain(own).collect();
        resolv::hosts(&resolv::Hosts {
            ipv6: true,
            extra: &extra,
            endpoints: &endpoints,
        })
    };
    Ok(Files {
        hostname_path: write("hostname", &format!("{hostname}\n"))?,
        hosts_path: write("hosts", &hosts)?,
        resolv_conf_path: write("resolv.conf", &resolv_conf)?,
        hostname,
    })
}

/// Whether the engine answers names in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    None,
    Internal,
}

/// Writes the text of a container's resolv.conf.
pub(crate) fn resolv_conf(engine: &Engine, record: &Record, names: Names) -> Result<String> {
    let resolver = match names {
        _ if record.host.network_mode == "host" => Resolver::Host,
        Names::Internal => Resolver::Internal,
        Names::None => Resolver::Legacy {
            ipv6: record
                .acquired
                .endpoints
                .iter()
                .any(|endpoint| endpoint.ipv6.is_some()),
        },
    };
    let (path, text) = host_resolv_conf();
    let dns = dns(engine, record)?;
    Ok(resolv::resolv_conf(&text, &path, &dns, resolver))
}

/// Tells whether the options of a container's resolv.conf say how many dots make a name whole.
pub(crate) fn ndots_is_set(dns: &DnsOptions, host: &str) -> bool {
    let of_host = resolv::parse(host).options;
    let options = if dns.options.is_empty() {
        &of_host
    } else {
        &dns.options
    };
    options.iter().any(|option| option.starts_with("ndots:"))
}

/// Returns the host's resolv.conf; behind systemd-resolved's stub lie the servers that containers can reach.
pub(crate) fn host_resolv_conf() -> (String, String) {
    let read = |path: &str| std::fs::read_to_string(path).map(|text| (path.to_owned(), text));
    let plain = read("/etc/resolv.conf").unwrap_or_default();
    let servers = resolv::parse(&plain.1).servers;
    if servers == ["127.0.0.53"]
        && let Ok(behind) = read("/run/systemd/resolve/resolv.conf")
    {
        return behind;
    }
    plain
}

pub(crate) fn dns(engine: &Engine, record: &Record) -> Result<DnsOptions> {
    let config = &engine.inner.config;
    let own = |list: &Vec<String>, default: &Vec<String>| {
        if list.is_empty() {
            default.clone()
        } else {
            list.clone()
        }
    };
    let servers = own(&record.host.dns, &config.dns);
    Ok(DnsOptions {
        servers: servers
            .iter()
            .map(|text| {
                text.parse()
                    .map_err(|_| Error::invalid(format!("bad nameserver address {text}")))
            })
            .collect::<Result<_>>()?,
        search: own(&record.host.dns_search, &config.dns_search),
        options: own(&record.host.dns_options, &config.dns_options),
    })
}

/// Reads `--add-host` values; `host-gateway` is the bridge's address.
pub(crate) fn extra_hosts(engine: &Engine, values: &[String]) -> Result<Vec<(String, IpAddr)>> {
    let mut gateways = engine.inner.config.host_gateway_ips.clone();
    if gateways.is_empty()
        && let Some(bridge) = engine.inner.network.bridge()
    {
        let ipv4 = bridge.ipv4.and_then(|ipv4| ipv4.gateway);
        let ipv6 = bridge.ipv6.and_then(|ipv6| ipv6.gateway);
        gateways.extend(ipv4.map(IpAddr::V4));
        gateways.extend(ipv6.map(IpAddr::V6));
    }
    let mut all = Vec::new();
    for value in values {
        all.extend(resolv::extra_host(value, &gateways).map_err(Error::invalid)?);
    }
    Ok(all)
}

impl Engine {
    /// The directory of a container's files.
    pub(crate) fn directory(&self, id: &str) -> PathBuf {
        self.inner.config.data_root.join("containers").join(id)
    }

    /// Where the /dev/shm of a container with a shareable IPC namespace is mounted on the host.
    pub(crate) fn shm_path(&self, id: &str) -> PathBuf {
        self.directory(id).join("mounts").join("shm")
    }

    pub(crate) fn exit_path(&self, id: &str) -> PathBuf {
        self.directory(id).join("exit.json")
    }

    pub(crate) fn shim_socket(&self, id: &str) -> PathBuf {
        self.inner
            .config
            .exec_root
            .join("shims")
            .join(format!("{id}.sock"))
    }

    pub(crate) fn runtime_root(&self) -> PathBuf {
        self.inner.config.exec_root.join("runtime")
    }

    /// Moves a container's directory into the trash, where it is deleted in the background.
    pub(crate) fn trash_directory(&self, id: &str) -> Result<()> {
        crate::blocking::assert_may_block();
        let directory = self.directory(id);
        let parent = self.inner.config.data_root.join("containers");
        let trash = parent.join(format!(".trash-{id}"));
        match std::fs::rename(&directory, &trash) {
            Ok(()) => {
                crate::reaper::delete(trash);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io(
                format_args!("remove `{}`", directory.display()),
                error,
            )),
        }
    }

    /// Returns the container's root as layers.
    pub(crate) fn overlay(&self, record: &Record) -> Result<Overlay> {
        let number = record
            .snapshot
            .ok_or_else(|| Error::system(format!("container {} has no snapshot", record.id)))?;
        let overlay = self
            .inner
            .images
            .overlay(number)
            .map_err(crate::image::error)?;
        Ok(Overlay {
            lowers: overlay.lowers,
            upper: overlay.upper,
            work: overlay.work,
            userxattr: false,
            volatile: false,
        })
    }

    /// Finds the OCI runtime of this name.
    pub(crate) fn runtime_for(&self, name: &str) -> Result<Runtime> {
        if matches!(name, "" | "gantry") {
            return Ok(Runtime::BuiltIn);
        }
        if let Some(runtime) = self.inner.config.runtimes.get(name) {
            return Ok(Runtime::Foreign {
                program: runtime.path.clone(),
                args: runtime.args.clone(),
                root: self.inner.config.exec_root.join("foreign").join(name),
            });
        }
        Err(Error::invalid(format!(
            "unknown or invalid runtime name: {name}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_file_is_edited_unless_it_is_too_large() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        let append = |text: &[u8]| Some([text, b"more"].concat());
        std::fs::write(&path, b"\xff").unwrap();
        edit_mounted(&path, append).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"\xffmore");
        edit_mounted(&path, |_| None).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"\xffmore");
        let length = MOUNTED_BYTES_MAX as u64 + 1;
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length)
            .unwrap();
        let error = edit_mounted(&path, append).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(path.metadata().unwrap().len(), length);
    }
}
