//! The client's configuration file, `config.json` in `$DOCKER_CONFIG` or `~/.docker`. Read once, only if it is there.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
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
    pub plugins_format: String,
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

/// Changes the file by `change`, which says whether there is anything to write. Commands that change it at once wait
/// for each other, so that none takes back what another wrote.
///
/// # Errors
/// Fails, and leaves the file as it is, where it cannot be parsed, locked or written.
pub fn update(
    directory: &Path,
    change: impl FnOnce(&mut ConfigFile) -> bool,
) -> Result<(), String> {
    let path = resolved(directory);
    let failed = |what: &str, error: std::io::Error| format!("{what} {}: {error}", path.display());
    let parent = path.parent().unwrap_or(directory);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent)
        .map_err(|error| failed("write", error))?;
    // The directory is locked, for the file is replaced. The lock goes with the descriptor.
    let lock = File::open(parent).and_then(|lock| lock.lock().map(|()| lock));
    let _lock = lock.map_err(|error| failed("lock the directory of", error))?;
    let mut config = read(directory)?;
    if change(&mut config) {
        replace(&path, &config).map_err(|error| failed("write", error))?;
    }
    Ok(())
}

/// Returns where the file is: a link stays one, even if nothing is there yet.
fn resolved(directory: &Path) -> PathBuf {
    let path = directory.join("config.json");
    std::fs::canonicalize(&path)
        .or_else(|_| std::fs::read_link(&path).map(|target| directory.join(target)))
        .unwrap_or(path)
}

/// Writes a file in Docker's form: a new one beside it, with the mode and the owner of the old, then a rename. Called
/// under the lock of [`update`].
fn replace(path: &Path, config: &ConfigFile) -> std::io::Result<()> {
    let mut text = Vec::new();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    config.serialize(&mut serde_json::Serializer::with_formatter(&mut text, tabs))?;
    let old = std::fs::metadata(path).ok();
    let fresh = path.with_extension(format!("json.{}", std::process::id()));
    // What a process of the same number left may be open to others.
    let _ = std::fs::remove_file(&fresh);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    let written = (|| {
        file.write_all(&text)?;
        if let Some(old) = old {
            // Only root can keep a foreign owner; others keep what they may.
            let _ = std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()));
            file.set_permissions(Permissions::from_mode(old.mode() & 0o777))?;
        }
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    })();
    written.inspect_err(|_| {
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
        std::fs::set_permissions(&real, Permissions::from_mode(0o664)).expect("mode");
        insert(directory.path(), "r.example");
        assert_eq!(
            std::fs::read_to_string(&real).expect("read"),
            "{\n\t\"auths\": {\n\t\t\"r.example\": {\n\t\t\t\"auth\": \"dTpw\"\n\t\t}\n\t},\n\t\"HttpHeaders\": {\n\t\t\"X\": \"y\"\n\t},\n\t\"mine\": 1\n}"
        );
        assert_eq!(
            std::fs::read_dir(directory.path()).expect("list").count(),
            2
        );
        assert_eq!(
            std::fs::metadata(&real).expect("metadata").mode() & 0o777,
            0o664
        );
    }

    fn insert(directory: &Path, server: &str) {
        let stored = StoredAuth {
            auth: "dTpw".to_owned(),
            ..StoredAuth::default()
        };
        let change = |config: &mut ConfigFile| {
            config.auths.insert(server.to_owned(), stored);
            true
        };
        update(directory, change).expect("update");
    }

    #[test]
    fn a_new_file_is_its_owners_alone_and_so_is_its_directory() {
        let place = tempfile::tempdir().expect("directory");
        let directory = place.path().join("new");
        insert(&directory, "r.example");
        let mode = |path: &Path| std::fs::metadata(path).expect("metadata").mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join("config.json")), 0o600);
        // A link to nothing is written through.
        let other = place.path().join("other");
        std::fs::create_dir(&other).expect("directory");
        std::os::unix::fs::symlink("real.json", other.join("config.json")).expect("link");
        insert(&other, "r.example");
        assert_eq!(mode(&other.join("real.json")), 0o600);
    }

    #[test]
    fn changes_at_once_lose_none() {
        let directory = tempfile::tempdir().expect("directory");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = directory.path();
                scope.spawn(move || {
                    for round in 0..8 {
                        insert(path, &format!("r{number}-{round}.example"));
                    }
                });
            }
        });
        let config = load(directory.path()).expect("load");
        assert_eq!(config.auths.len(), 64);
    }

    #[test]
    fn what_cannot_be_parsed_is_left_as_it_is() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("config.json");
        std::fs::write(&path, "{").expect("write");
        let failure = update(directory.path(), |_| true).expect_err("broken");
        let start = format!("parsing config file ({}): ", path.display());
        assert!(failure.starts_with(&start), "{failure}");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "{");
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
