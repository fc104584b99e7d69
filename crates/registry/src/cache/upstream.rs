//! What is known of an upstream: its address, the names of its repositories, and what its errors are to our clients.

use crate::error::{Code, Error, Result};
use crate::name::Name;
use crate::options::Upstream;
use gantry_api::digest::Digest;
use gantry_distribution::{Credentials, Error as UpstreamError, ErrorCode, Repository};
use serde_json::{Value, json};

/// Docker Hub's registry, by which it is reached, and the name that references have for it.
const HUB_HOSTS: [&str; 3] = ["registry-1.docker.io", "index.docker.io", "docker.io"];
const HUB: &str = "docker.io";
/// What stands in for a namespace at Docker Hub.
const HUB_OFFICIAL: &str = "library";

/// Is one upstream.
pub struct Remote {
    /// What its repositories lie below here.
    pub name: String,
    /// `HOST[:PORT]` as references name it.
    pub host: String,
    pub credentials: Credentials,
}

impl Remote {
    /// Gives the repository that a path of this upstream is kept in.
    pub fn repository(&self, path: &str) -> Result<Name> {
        let is_hub = self.host == HUB || self.name == HUB;
        if is_hub && !path.contains('/') {
            return Name::parse(&format!("{}/{HUB_OFFICIAL}/{path}", self.name));
        }
        Name::parse(&format!("{}/{path}", self.name))
    }
}

/// Reads an upstream's address: the host as references name it, and whether it is reached without TLS.
pub fn address(upstream: &Upstream) -> Result<(String, bool)> {
    let malformed = |why: &str| invalid(format!("upstream `{}`: {why}", upstream.name));
    if !crate::name::is_component(&upstream.name) {
        return Err(malformed(
            "the name must be one component of a repository's name",
        ));
    }
    let (host, is_plain) = match upstream.url.split_once("://") {
        Some(("https", host)) => (host, false),
        Some(("http", host)) => (host, true),
        _ => {
            return Err(malformed(
                "the address must be `https://HOST` or `http://HOST`",
            ));
        }
    };
    let host = host.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '@', '?', '#']) {
        return Err(malformed("the address must have a host and no path"));
    }
    if HUB_HOSTS.contains(&host) {
        return Ok((HUB.to_owned(), is_plain));
    }
    // A plain word would be read as the first part of a path at Docker Hub.
    if host.contains(['.', ':']) || host == "localhost" {
        return Ok((host.to_owned(), is_plain));
    }
    let port = if is_plain { 80 } else { 443 };
    Ok((format!("{host}:{port}"), is_plain))
}

/// Says that a setting is not what it must be.
pub fn invalid(why: String) -> Error {
    Error {
        code: Code::Internal,
        detail: Value::Null,
        cause: Some(why.into()),
    }
}

/// Asks an upstream for a blob's size.
pub async fn size_of(repository: &Repository, digest: &Digest) -> Result<u64> {
    let unknown = || Error::new(Code::BlobUnknown, json!({ "digest": digest }));
    repository
        .head_blob(digest)
        .await
        .map_err(|error| upstream_error(error, unknown))?
        .ok_or_else(unknown)
}

/// Says what an upstream's error is to our clients.
pub fn upstream_error(error: UpstreamError, unknown: impl Fn() -> Error) -> Error {
    let text = error.to_string();
    let code = match &error {
        UpstreamError::NotFound(_) => return unknown(),
        // A proxy's page says 404 as well, and nothing of what the registry has.
        UpstreamError::Registry {
            status: 404, codes, ..
        } if codes.first().is_some_and(is_unknown) => return unknown(),
        UpstreamError::Unauthorized(_) => Code::Denied,
        UpstreamError::Registry {
            status: 401 | 403, ..
        } => Code::Denied,
        UpstreamError::RateLimited(_) => Code::TooManyRequests,
        _ => Code::Upstream,
    };
    Error {
        code,
        detail: json!({ "upstream": text }),
        cause: Some(Box::new(error)),
    }
}

/// Tells whether a registry said that something is not there; a bare code is made up from the status.
fn is_unknown(code: &ErrorCode) -> bool {
    matches!(
        code.code.as_str(),
        "MANIFEST_UNKNOWN" | "NAME_UNKNOWN" | "BLOB_UNKNOWN"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(name: &str, url: &str) -> Upstream {
        Upstream {
            name: name.into(),
            url: url.into(),
            username: String::new(),
            password: String::new(),
        }
    }

    #[test]
    fn addresses_become_hosts_of_references() {
        for (url, host, is_plain) in [
            ("https://registry-1.docker.io", "docker.io", false),
            ("https://quay.io/", "quay.io", false),
            ("http://localhost:5000", "localhost:5000", true),
            ("http://registry", "registry:80", true),
            ("https://registry", "registry:443", false),
        ] {
            assert_eq!(
                address(&upstream("x", url)).unwrap(),
                (host.to_owned(), is_plain)
            );
        }
        for url in [
            "",
            "quay.io",
            "ftp://x.y",
            "https://",
            "https://x.y/z",
            "https://u@x.y",
        ] {
            assert!(address(&upstream("x", url)).is_err(), "{url}");
        }
        assert!(address(&upstream("a/b", "https://x.y")).is_err());
    }

    #[test]
    fn official_images_lie_in_the_library() {
        let hub = Remote {
            name: "docker.io".into(),
            host: HUB.into(),
            credentials: Credentials::default(),
        };
        let name = |path: &str| hub.repository(path).unwrap().to_string();
        assert_eq!(name("busybox"), "docker.io/library/busybox");
        assert_eq!(name("a/b"), "docker.io/a/b");
    }
}
