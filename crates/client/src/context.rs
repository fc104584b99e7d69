//! Docker contexts: named endpoints in `contexts/meta/SHA256(NAME)/meta.json` of the configuration directory.

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A context's meta.json.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Context {
    pub name: String,
    #[serde(default)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    pub endpoints: BTreeMap<String, ContextEndpoint>,
}

/// One endpoint of a context.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContextEndpoint {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    #[serde(rename = "SkipTLSVerify")]
    pub skip_tls_verify: bool,
}

impl Context {
    /// Returns the address of the Docker endpoint.
    pub fn host(&self) -> &str {
        self.endpoints
            .get("docker")
            .map(|endpoint| endpoint.host.as_str())
            .unwrap_or_default()
    }

    /// Returns the description.
    pub fn description(&self) -> &str {
        self.metadata
            .get("Description")
            .and_then(|value| value.as_str())
            .unwrap_or_default()
    }
}

/// Returns the file of a context. `digest` is the hexadecimal SHA-256 of its name.
pub fn meta_path(directory: &Path, digest: &str) -> PathBuf {
    directory
        .join("contexts/meta")
        .join(digest)
        .join("meta.json")
}

/// Returns the directory of a context's TLS files.
pub fn tls_path(directory: &Path, digest: &str) -> PathBuf {
    directory.join("contexts/tls").join(digest)
}

/// Reads one context.
pub fn load(directory: &Path, name: &str, digest: &str) -> Result<Context, Error> {
    let path = meta_path(directory, digest);
    let text = std::fs::read(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::Invalid(format!(
            "context \"{name}\": context not found: open {}: no such file or directory",
            path.display()
        )),
        _ => Error::Invalid(format!(
            "context \"{name}\": open {}: {error}",
            path.display()
        )),
    })?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::Invalid(format!("context \"{name}\": {error}")))
}

/// Reads all contexts, sorted by name.
pub fn list(directory: &Path) -> Result<Vec<Context>, Error> {
    let entries = match std::fs::read_dir(directory.join("contexts/meta")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::Invalid(format!("read the contexts: {error}"))),
    };
    let mut contexts = Vec::new();
    for entry in entries.flatten() {
        if let Ok(text) = std::fs::read(entry.path().join("meta.json")) {
            let context: Context = serde_json::from_slice(&text).map_err(|error| {
                Error::Invalid(format!("parse {}: {error}", entry.path().display()))
            })?;
            contexts.push(context);
        }
    }
    contexts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(contexts)
}

/// Writes a context.
pub fn save(directory: &Path, digest: &str, context: &Context) -> std::io::Result<()> {
    let path = meta_path(directory, digest);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, serde_json::to_vec(context)?)
}

/// Removes a context.
pub fn remove(directory: &Path, digest: &str) -> std::io::Result<()> {
    match std::fs::remove_dir_all(tls_path(directory, digest)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::remove_dir_all(directory.join("contexts/meta").join(digest))
}
