//! The client's configuration file, `config.json` in `$DOCKER_CONFIG` or `~/.docker`. Read once, only if it is there.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The keys of config.json that the commands use; the others survive a rewrite untouched.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigFile {
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prune_filters: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub current_context: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub proxies: BTreeMap<String, Proxy>,
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
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

/// Reads the file of a configuration directory. A missing file is an empty configuration; one that cannot be parsed
/// is an error with Docker's text.
pub fn load(directory: &Path) -> Result<ConfigFile, String> {
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
    serde_json::from_slice(&text)
        .map_err(|error| format!("parsing config file ({}): {error}", path.display()))
}

/// Writes the file: a new one beside it, then a rename, mode 0600.
pub fn save(directory: &Path, config: &ConfigFile) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::create_dir_all(directory)?;
    let path = directory.join("config.json");
    let fresh = directory.join(format!("config.json.{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    let mut text = serde_json::to_vec_pretty(config)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(fresh, path)
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
}
