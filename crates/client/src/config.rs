//! The client's configuration file, `config.json` in `$DOCKER_CONFIG` or `~/.docker`. Read once, only if it is there.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The keys of config.json that the commands use; the others survive a rewrite untouched.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigFile {
    /// What `login` stored, by server.
    pub auths: BTreeMap<String, StoredAuth>,
    #[serde(rename = "HttpHeaders", skip_serializing_if = "BTreeMap::is_empty")]
    pub http_headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ps_format: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub images_format: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub networks_format: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub volumes_format: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stats_format: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detach_keys: String,
    /// The helper that keeps all credentials, `docker-credential-NAME`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub creds_store: String,
    /// Helpers for single servers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cred_helpers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prune_filters: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub current_context: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub proxies: BTreeMap<String, Proxy>,
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// Credentials as the file has them. [`crate::credentials`] reads and writes them.
#[derive(Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoredAuth {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// `USER:PASSWORD` in base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub email: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identitytoken: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub registrytoken: String,
}

// Secrets stay out of logs.
impl std::fmt::Debug for StoredAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredAuth").finish_non_exhaustive()
    }
}

/// Proxy settings that new containers get as environment variables.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Proxy {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub http_proxy: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub https_proxy: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub no_proxy: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ftp_proxy: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub all_proxy: String,
}

impl Proxy {
    /// Returns the variables in both spellings, upper case first.
    pub fn variables(&self) -> Vec<(&'static str, &'static str, &str)> {
        [
            ("HTTP_PROXY", "http_proxy", &self.http_proxy),
            ("HTTPS_PROXY", "https_proxy", &self.https_proxy),
            ("NO_PROXY", "no_proxy", &self.no_proxy),
            ("FTP_PROXY", "ftp_proxy", &self.ftp_proxy),
            ("ALL_PROXY", "all_proxy", &self.all_proxy),
        ]
        .into_iter()
        .filter(|(_, _, value)| !value.is_empty())
        .map(|(upper, lower, value)| (upper, lower, value.as_str()))
        .collect()
    }
}

/// Returns the configuration directory: `$DOCKER_CONFIG`, else `$HOME/.docker`.
pub fn directory() -> PathBuf {
    match std::env::var_os("DOCKER_CONFIG") {
        Some(directory) if !directory.is_empty() => PathBuf::from(directory),
        _ => PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()))
            .join(".docker"),
    }
}

/// Reads the file of a configuration directory. A missing file is an empty configuration; one that cannot be parsed,
/// credentials included, is an error with Docker's text.
pub fn load(directory: &Path) -> Result<ConfigFile, String> {
    let config = read(directory)?;
    for stored in config.auths.values() {
        crate::credentials::decode(stored).map_err(|error| unparsed(directory, &error))?;
    }
    Ok(config)
}

fn unparsed(directory: &Path, error: &str) -> String {
    let path = directory.join("config.json");
    format!("parsing config file ({}): {error}", path.display())
}

/// As [`load`], with credentials as they stand: what rewrites the file must lose nothing of it.
pub(crate) fn read(directory: &Path) -> Result<ConfigFile, String> {
    let path = directory.join("config.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(ConfigFile::default());
        }
        Err(error) => return Err(format!("loading config file: {}: {error}", path.display())),
    };
    if text.is_empty() {
        return Ok(ConfigFile::default());
    }
    serde_json::from_slice(&text).map_err(|error| unparsed(directory, &error.to_string()))
}

/// Writes the file in Docker's form: a new one beside it, then a rename. A link stays one, an old file keeps its mode.
pub fn save(directory: &Path, config: &ConfigFile) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    std::fs::create_dir_all(directory)?;
    let path = directory.join("config.json");
    let path = std::fs::canonicalize(&path).unwrap_or(path);
    let mode = std::fs::metadata(&path).map_or(0o600, |old| old.permissions().mode() & 0o777);
    let fresh = path.with_extension(format!("json.{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&fresh)?;
    let mut text = Vec::new();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    config.serialize(&mut serde_json::Serializer::with_formatter(&mut text, tabs))?;
    let written = file.write_all(&text).and_then(|()| file.sync_all());
    written
        .and_then(|()| std::fs::rename(&fresh, path))
        .inspect_err(|_| {
            // Nothing half written stays behind.
            let _ = std::fs::remove_file(&fresh);
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_survive() {
        let text = r#"{"auths":{"x":{}},"detachKeys":"ctrl-x","credsStore":"pass"}"#;
        let config: ConfigFile = serde_json::from_str(text).expect("config");
        assert_eq!(config.detach_keys, "ctrl-x");
        let again = serde_json::to_value(&config).expect("value");
        assert_eq!(again["credsStore"], "pass");
        assert_eq!(again["auths"]["x"], serde_json::json!({}));
        assert!(again.get("psFormat").is_none());
    }

    #[test]
    fn the_file_is_written_as_docker_writes_it() {
        let directory = tempfile::tempdir().expect("directory");
        let real = directory.path().join("real.json");
        std::fs::write(&real, r#"{"HttpHeaders":{"X":"y"},"mine":1}"#).expect("write");
        std::os::unix::fs::symlink(&real, directory.path().join("config.json")).expect("link");
        let mut config = load(directory.path()).expect("load");
        config.auths.insert(
            "r.example".to_owned(),
            StoredAuth {
                auth: "dTpw".to_owned(),
                ..StoredAuth::default()
            },
        );
        save(directory.path(), &config).expect("save");
        assert_eq!(
            std::fs::read_to_string(&real).expect("read"),
            "{\n\t\"auths\": {\n\t\t\"r.example\": {\n\t\t\t\"auth\": \"dTpw\"\n\t\t}\n\t},\n\t\"HttpHeaders\": {\n\t\t\"X\": \"y\"\n\t},\n\t\"mine\": 1\n}"
        );
        assert_eq!(
            std::fs::read_dir(directory.path()).expect("list").count(),
            2
        );
    }

    #[test]
    fn a_broken_entry_is_reported() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("config.json");
        std::fs::write(&path, r#"{"auths":{"x":{"auth":"dXA="}}}"#).expect("write");
        assert_eq!(
            load(directory.path()).err(),
            Some(format!(
                "parsing config file ({}): Invalid auth configuration file",
                path.display()
            ))
        );
    }
}
