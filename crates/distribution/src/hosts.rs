//! The files that tell how to reach a registry: containerd's `hosts.toml` and Docker's `certs.d`.
//!
//! ```text
//! DIR/HOST[:PORT]/       or DIR/_default/, for registries that have none of their own
//!   *.crt                authorities that are trusted for this registry
//!   NAME.cert NAME.key   client certificates with their keys
//!   hosts.toml           mirrors, asked in the file's order before the server
//! ```

use crate::tls::{ClientIdentity, TlsSettings, read_certificates, read_identity};
use crate::{Error, Result};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// What the files say of one registry.
#[derive(Default)]
pub(crate) struct Hosts {
    /// In the order in which they are to be asked.
    pub(crate) mirrors: Vec<Host>,
    /// The registry itself, where the file speaks of it.
    pub(crate) server: Option<Host>,
    /// What `*.crt`, `*.cert` and `*.key` give for the registry itself.
    pub(crate) tls: TlsSettings,
}

/// One host of a `hosts.toml`.
pub(crate) struct Host {
    pub(crate) url: String,
    pub(crate) pull: bool,
    pub(crate) resolve: bool,
    pub(crate) push: bool,
    pub(crate) tls: TlsSettings,
    pub(crate) headers: HeaderMap,
    pub(crate) override_path: bool,
}

impl Hosts {
    /// Reads what the first of the directories that has it says for the first of the names that one has; none is no error.
    pub(crate) fn read(directories: &[PathBuf], names: &[&str]) -> Result<Self> {
        let found = names
            .iter()
            .flat_map(|name| {
                directories
                    .iter()
                    .map(move |directory| directory.join(name))
            })
            .find(|directory| directory.is_dir());
        let Some(directory) = found else {
            return Ok(Self::default());
        };
        let tls = certificates(&directory)?;
        let path = directory.join("hosts.toml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self {
                    tls,
                    ..Self::default()
                });
            }
            Err(error) => {
                let text = gantry_api::error::errno_text(&error);
                return Err(Error::Invalid(format!("open {}: {text}", path.display())));
            }
        };
        let (server, mirrors) = parse(&text, &directory)
            .map_err(|cause| Error::Invalid(format!("read `{}`: {cause}", path.display())))?;
        Ok(Self {
            mirrors,
            server,
            tls,
        })
    }
}

/// Reads a directory of certificates with Docker's complaints about what lacks its other half.
fn certificates(directory: &Path) -> Result<TlsSettings> {
    let entries = std::fs::read_dir(directory).map_err(|error| {
        let text = gantry_api::error::errno_text(&error);
        Error::Invalid(format!("open {}: {text}", directory.display()))
    })?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    let has = |name: &str| names.iter().any(|other| other == name);
    let mut settings = TlsSettings::default();
    for name in &names {
        let path = directory.join(name);
        if name.ends_with(".crt") {
            settings.roots.extend(read_certificates(&path)?);
        } else if let Some(stem) = name.strip_suffix(".cert") {
            let key = format!("{stem}.key");
            if !has(&key) {
                return Err(Error::Invalid(format!(
                    "missing key {key} for client certificate {name}. CA certificates must use the extension .crt"
                )));
            }
            settings
                .identities
                .push(read_identity(&path, &directory.join(key))?);
        } else if let Some(stem) = name.strip_suffix(".key") {
            let certificate = format!("{stem}.cert");
            if !has(&certificate) {
                return Err(Error::Invalid(format!(
                    "missing client certificate {certificate} for key {name}"
                )));
            }
        }
    }
    Ok(settings)
}

type Parsed<T> = std::result::Result<T, String>;

/// Reads a `hosts.toml`: the server and the hosts before it.
fn parse(text: &str, directory: &Path) -> Parsed<(Option<Host>, Vec<Host>)> {
    let table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| error.to_string())?;
    let server = match table.get("server") {
        None => None,
        Some(Value::String(url)) => Some(host(url, &table, directory)?),
        Some(_) => return Err("`server` is no text".to_owned()),
    };
    let hosts = match table.get("host") {
        None => Vec::new(),
        Some(Value::Table(hosts)) => hosts
            .iter()
            .map(|(url, value)| match value {
                Value::Table(table) => host(url, table, directory),
                _ => Err(format!("`host.\"{url}\"` is no table")),
            })
            .collect::<Parsed<_>>()?,
        Some(_) => return Err("`host` is no table".to_owned()),
    };
    Ok((server, hosts))
}

/// Reads one host's table. Keys that this engine has not are refused, so that no setting is lost in silence.
fn host(url: &str, table: &Table, directory: &Path) -> Parsed<Host> {
    let mut host = Host {
        url: if url.contains("://") {
            url.to_owned()
        } else {
            format!("https://{url}")
        },
        pull: true,
        resolve: true,
        push: true,
        tls: TlsSettings::default(),
        headers: HeaderMap::new(),
        override_path: false,
    };
    for (key, value) in table {
        match key.as_str() {
            "server" | "host" => {}
            "capabilities" => {
                let named = texts(key, value)?;
                let has = |name: &str| named.iter().any(|capability| capability == name);
                if let Some(other) = named
                    .iter()
                    .find(|name| !["pull", "resolve", "push"].contains(&name.as_str()))
                {
                    return Err(format!("unknown capability `{other}` of `{url}`"));
                }
                (host.pull, host.resolve, host.push) = (has("pull"), has("resolve"), has("push"));
            }
            "ca" => {
                for path in texts(key, value)? {
                    let roots = read_certificates(&directory.join(path));
                    host.tls
                        .roots
                        .extend(roots.map_err(|error| error.to_string())?);
                }
            }
            "client" => host.tls.identities = clients(value, directory)?,
            "skip_verify" => host.tls.unverified = flag(key, value)?,
            "override_path" => host.override_path = flag(key, value)?,
            "header" => host.headers = headers(value)?,
            other => return Err(format!("unknown key `{other}` of `{url}`")),
        }
    }
    Ok(host)
}

fn flag(key: &str, value: &Value) -> Parsed<bool> {
    value
        .as_bool()
        .ok_or_else(|| format!("`{key}` is neither true nor false"))
}

/// Reads a text or a list of texts.
fn texts(key: &str, value: &Value) -> Parsed<Vec<String>> {
    let complaint = || format!("`{key}` is neither a text nor a list of texts");
    match value {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(list) => list
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(complaint))
            .collect(),
        _ => Err(complaint()),
    }
}

/// Reads `client`: a file with both halves, a list of such files, or a list of pairs.
fn clients(value: &Value, directory: &Path) -> Parsed<Vec<ClientIdentity>> {
    let pairs: Vec<(String, String)> = match value {
        Value::Array(list) if list.iter().any(Value::is_array) => list
            .iter()
            .map(|pair| match texts("client", pair)?.as_slice() {
                [both] => Ok((both.clone(), both.clone())),
                [certificate, key] => Ok((
                    certificate.clone(),
                    if key.is_empty() { certificate } else { key }.clone(),
                )),
                _ => Err("`client` has a list that is no pair".to_owned()),
            })
            .collect::<Parsed<_>>()?,
        other => texts("client", other)?
            .into_iter()
            .map(|both| (both.clone(), both))
            .collect(),
    };
    pairs
        .into_iter()
        .map(|(certificate, key)| {
            read_identity(&directory.join(certificate), &directory.join(key))
                .map_err(|error| error.to_string())
        })
        .collect()
}

fn headers(value: &Value) -> Parsed<HeaderMap> {
    let table = value.as_table().ok_or("`header` is no table")?;
    let mut headers = HeaderMap::new();
    for (name, value) in table {
        let key: HeaderName = name
            .parse()
            .map_err(|_| format!("`{name}` is no name of a header"))?;
        for text in texts(name, value)? {
            let text = HeaderValue::try_from(text)
                .map_err(|_| format!("the value of header `{name}` is none"))?;
            headers.append(key.clone(), text);
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Parsed<(Option<Host>, Vec<Host>)> {
        parse(text, Path::new("/nonexistent"))
    }

    #[test]
    fn hosts_keep_the_order_of_the_file() {
        let (server, mirrors) = parsed(
            r#"
            server = "https://registry.example"
            skip_verify = true
            [host."https://z.example/v2/deep"]
              capabilities = ["pull"]
              override_path = true
              [host."https://z.example/v2/deep".header]
                x-one = "1"
                x-two = ["2", "3"]
            [host."a.example:5000"]
              capabilities = ["pull", "resolve"]
            "#,
        )
        .expect("a file");
        let server = server.expect("a server");
        assert_eq!(server.url, "https://registry.example");
        assert!(server.tls.unverified && server.push);
        let urls: Vec<&str> = mirrors.iter().map(|host| host.url.as_str()).collect();
        assert_eq!(
            urls,
            ["https://z.example/v2/deep", "https://a.example:5000"]
        );
        let z = &mirrors[0];
        assert!(z.pull && !z.resolve && !z.push && z.override_path);
        assert_eq!(z.headers.get_all("x-two").iter().count(), 2);
        assert!(mirrors[1].resolve && !mirrors[1].override_path);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (text, complaint) in [
            ("server = 1", "`server` is no text"),
            ("host = 1", "`host` is no table"),
            (
                "[host.\"https://a\"]\nfoo = 1",
                "unknown key `foo` of `https://a`",
            ),
            (
                "[host.\"https://a\"]\ncapabilities = [\"fly\"]",
                "unknown capability `fly` of `https://a`",
            ),
            (
                "[host.\"https://a\"]\nskip_verify = \"yes\"",
                "`skip_verify` is neither true nor false",
            ),
            (
                "[host.\"https://a\"]\nca = \"x.pem\"",
                "open /nonexistent/x.pem: no such file or directory",
            ),
        ] {
            assert_eq!(parsed(text).err().as_deref(), Some(complaint), "{text}");
        }
        assert!(parsed("server = ").is_err());
    }

    #[test]
    fn halves_of_client_certificates_are_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let host = directory.path().join("h:5000");
        std::fs::create_dir(&host).expect("a directory");
        let read = || Hosts::read(&[directory.path().to_owned()], &["h:5000"]).map(|_| ());
        std::fs::write(host.join("c.cert"), "").expect("a file");
        assert_eq!(
            read().expect_err("half").to_string(),
            "missing key c.key for client certificate c.cert. CA certificates must use the extension .crt"
        );
        std::fs::rename(host.join("c.cert"), host.join("c.key")).expect("renamed");
        assert_eq!(
            read().expect_err("half").to_string(),
            "missing client certificate c.cert for key c.key"
        );
    }
}
