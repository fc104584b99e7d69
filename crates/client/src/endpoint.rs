//! Where a daemon listens: parses `unix://`, `tcp://` and `ssh://` addresses. Reads nothing.

use crate::error::Error;
use std::fmt;

/// The address of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Unix {
        path: String,
    },
    Tcp {
        host: String,
        port: u16,
        base_path: String,
    },
    /// A daemon behind `ssh HOST docker system dial-stdio`.
    Ssh {
        url: String,
        user: Option<String>,
        host: String,
        port: Option<u16>,
        socket: Option<String>,
    },
}

impl Endpoint {
    /// Parses an address as `DOCKER_HOST` and `--host` take it.
    pub fn parse(text: &str) -> Result<Endpoint, Error> {
        let text = text.trim();
        let invalid = || Error::Invalid(format!("invalid bind address format: {text}"));
        let (scheme, rest) = match text.split_once("://") {
            Some(parts) => parts,
            None if text.starts_with('/') => ("unix", text),
            None => ("tcp", text),
        };
        match scheme {
            "unix" => {
                let path = if rest.is_empty() {
                    "/var/run/docker.sock"
                } else {
                    rest
                };
                Ok(Endpoint::Unix {
                    path: path.to_owned(),
                })
            }
            "tcp" | "http" => {
                let (authority, base_path) = match rest.find('/') {
                    Some(at) => (&rest[..at], rest[at..].trim_end_matches('/')),
                    None => (rest, ""),
                };
                let (host, port) = split_authority(authority).ok_or_else(invalid)?;
                let host = if host.is_empty() {
                    "localhost".to_owned()
                } else {
                    host
                };
                Ok(Endpoint::Tcp {
                    host,
                    port: port.unwrap_or(2375),
                    base_path: base_path.to_owned(),
                })
            }
            "ssh" => {
                let (authority, path) = match rest.find('/') {
                    Some(at) => (&rest[..at], &rest[at..]),
                    None => (rest, ""),
                };
                let (user, authority) = match authority.rsplit_once('@') {
                    Some((user, host)) => (Some(user.to_owned()), host),
                    None => (None, authority),
                };
                let (host, port) = split_authority(authority).ok_or_else(invalid)?;
                if host.is_empty() {
                    return Err(Error::Invalid(
                        "ssh host connection is not valid: invalid SSH URL: hostname is empty"
                            .to_owned(),
                    ));
                }
                // A host that begins with a dash would be an option of ssh (CVE-2017-1000117's class).
                if host.starts_with('-')
                    || user.as_deref().is_some_and(|user| user.starts_with('-'))
                {
                    return Err(invalid());
                }
                let socket = (path.len() > 1).then(|| path.to_owned());
                Ok(Endpoint::Ssh {
                    url: text.to_owned(),
                    user,
                    host,
                    port,
                    socket,
                })
            }
            "npipe" | "fd" => Err(Error::Invalid(format!("protocol not available: {scheme}"))),
            _ => Err(invalid()),
        }
    }

    /// Returns the `Host` header's value.
    pub fn host_header(&self) -> String {
        match self {
            Endpoint::Unix { .. } | Endpoint::Ssh { .. } => "api.moby.localhost".to_owned(),
            Endpoint::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Endpoint::Tcp { host, port, .. } => format!("{host}:{port}"),
        }
    }

    /// Returns the path before `/v1.NN`, empty for sockets.
    pub fn base_path(&self) -> &str {
        match self {
            Endpoint::Tcp { base_path, .. } => base_path,
            _ => "",
        }
    }
}

fn split_authority(text: &str) -> Option<(String, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port.parse().ok()?),
            None if rest.is_empty() => None,
            None => return None,
        };
        return Some((host.to_owned(), port));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => {
            Some((host.to_owned(), Some(port.parse().ok()?)))
        }
        Some(_) => None,
        None => Some((text.to_owned(), None)),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix { path } => write!(f, "unix://{path}"),
            Endpoint::Tcp { base_path, .. } => write!(f, "tcp://{}{base_path}", self.host_header()),
            Endpoint::Ssh { url, .. } => f.write_str(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let got = match Endpoint::parse(text) {
            Ok(endpoint) => endpoint.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn addresses_are_parsed() {
        check("unix:///run/x.sock", "unix:///run/x.sock");
        check("unix://", "unix:///var/run/docker.sock");
        check("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375");
        check("tcp://h", "tcp://h:2375");
        check("tcp://[::1]:1/x/", "tcp://[::1]:1/x");
        check("127.0.0.1:9", "tcp://127.0.0.1:9");
        check("ssh://me@h:22", "ssh://me@h:22");
        check(
            "ssh://-oProxyCommand=x",
            "invalid bind address format: ssh://-oProxyCommand=x",
        );
        check("foo://x", "invalid bind address format: foo://x");
        check(
            "tcp://h:99999",
            "invalid bind address format: tcp://h:99999",
        );
    }
}
