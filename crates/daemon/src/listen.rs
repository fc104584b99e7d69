//! The sockets that the daemon listens on.
//!
//! A unix socket is made with mode 0660 and the group from /etc/group; a stale one is replaced, a live one is an
//! error. What the service manager passed is used as it is.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};

use crate::config::Host;
use crate::server::stream::Stream;

/// A socket that clients connect to.
#[derive(Debug)]
pub enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// A unix socket's owner group.
#[derive(Clone, Debug)]
pub struct SocketGroup {
    pub name: String,
    /// Whether a missing group is an error.
    pub is_required: bool,
}

impl Listener {
    /// Waits for the next client.
    pub async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Requests and answers are small and alternate: waiting to fill a segment only costs time.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

/// Opens the listeners of all hosts, and Docker's own socket if nobody owns it.
pub async fn open(
    hosts: &[Host],
    docker_socket: Option<&Path>,
    group: &SocketGroup,
    inherited: Vec<(String, OwnedFd)>,
) -> Result<Vec<(String, Listener)>, anyhow::Error> {
    use anyhow::Context as _;
    let mut listeners = Vec::new();
    let mut inherited: Vec<Option<(String, OwnedFd)>> = inherited.into_iter().map(Some).collect();
    for host in hosts {
        match host {
            Host::Unix(path) => {
                let listener = bind_unix(path, group).with_context(|| {
                    format!(
                        "failed to load listeners: can't create unix socket {}",
                        path.display()
                    )
                })?;
                listeners.push((path.display().to_string(), Listener::Unix(listener)));
            }
            Host::Tcp(address) => {
                let listener = TcpListener::bind(address)
                    .await
                    .with_context(|| format!("failed to load listeners: listen tcp {address}"))?;
                tracing::warn!(host = %address, "Binding to an address without TLS: whoever reaches it is root on this machine");
                listeners.push((address.to_string(), Listener::Tcp(listener)));
            }
            Host::Inherited(wanted) => {
                let mut found = false;
                for slot in &mut inherited {
                    if let Some((name, fd)) = slot
                        .take_if(|(name, _)| wanted.as_ref().is_none_or(|wanted| wanted == name))
                    {
                        listeners.push((format!("fd://{name}"), adopt(fd)?));
                        found = true;
                    }
                }
                if !found {
                    anyhow::bail!(
                        "failed to load listeners: no sockets found via socket activation: make sure the service was started by systemd"
                    );
                }
            }
        }
    }
    if let Some(path) = docker_socket {
        match bind_unix(path, group) {
            Ok(listener) => listeners.push((path.display().to_string(), Listener::Unix(listener))),
            Err(error) => tracing::info!(error = %error, "leave {} to its owner", path.display()),
        }
    }
    Ok(listeners)
}

fn adopt(fd: OwnedFd) -> io::Result<Listener> {
    let domain = rustix::net::sockopt::socket_domain(&fd)?;
    if domain == rustix::net::AddressFamily::UNIX {
        let listener = StdUnixListener::from(fd);
        listener.set_nonblocking(true)?;
        Ok(Listener::Unix(UnixListener::from_std(listener)?))
    } else {
        let listener = std::net::TcpListener::from(fd);
        listener.set_nonblocking(true)?;
        Ok(Listener::Tcp(TcpListener::from_std(listener)?))
    }
}

fn bind_unix(path: &Path, group: &SocketGroup) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            if StdUnixStream::connect(path).is_ok() {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "is in use by another process",
                ));
            }
            std::fs::remove_file(path)?;
        }
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "exists and is not a socket",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // Made under another name and renamed when its mode is right: nobody connects to a socket that is open to all,
    // and whoever waits for the path to appear finds it ready.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let _ = std::fs::remove_file(&temporary);
    let listener = StdUnixListener::bind(&temporary)?;
    let finished =
        finish_socket(&temporary, group).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = finished {
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn finish_socket(path: &Path, group: &SocketGroup) -> io::Result<()> {
    match group_id(
        &std::fs::read_to_string("/etc/group").unwrap_or_default(),
        &group.name,
    ) {
        Some(gid) => std::os::unix::fs::chown(path, None, Some(gid))?,
        None if group.is_required => {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("group {} not found", group.name),
            ));
        }
        None => {}
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
}

/// Finds a group's id in the text of /etc/group, by name or number; see group(5). NSS is not asked: the binary is
/// static.
fn group_id(text: &str, wanted: &str) -> Option<u32> {
    let by_name = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == wanted).then(|| fields.nth(1)?.parse().ok())?
    });
    by_name.or_else(|| wanted.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_by_name_and_number() {
        let text = "root:x:0:\ndocker:x:998:alice,bob\n";
        assert_eq!(group_id(text, "docker"), Some(998));
        assert_eq!(group_id(text, "root"), Some(0));
        assert_eq!(group_id(text, "1234"), Some(1234));
        assert_eq!(group_id(text, "nobody"), None);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.sock");
        let group = SocketGroup {
            name: "no-such-group".to_owned(),
            is_required: false,
        };
        let first = bind_unix(&path, &group).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        assert_eq!(
            bind_unix(&path, &group).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(first);
        bind_unix(&path, &group).unwrap();
        let required = SocketGroup {
            is_required: true,
            ..group
        };
        assert!(bind_unix(&directory.path().join("e.sock"), &required).is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
