//! The client against a registry that misbehaves on command.

mod access;
mod debian;
mod lists;
mod network;
mod proxies;
mod read;
mod secure;
mod signatures;
mod write;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gantry_api::digest::Digest;
use gantry_api::oci::image::Descriptor;
use gantry_distribution::{Config, Credentials, Error, Registries, Repository};
use gantry_testkit::registry::Registry;

/// A configuration for tests: few tries, short stalls.
pub fn config() -> Config {
    Config {
        attempts_max: 3,
        stall_timeout: Duration::from_secs(1),
        ..Config::plain("gantry-test")
    }
}

pub fn registries(config: Config) -> Registries {
    Registries::new(config).expect("a client")
}

/// Repository `NAME` at `host` for nobody.
pub fn repository(host: &str, name: &str) -> Repository {
    repository_for(host, name, Credentials::default())
}

pub fn repository_for(host: &str, name: &str, credentials: Credentials) -> Repository {
    at(&registries(config()), host, name, credentials)
}

pub fn at(registries: &Registries, host: &str, name: &str, credentials: Credentials) -> Repository {
    let reference = format!("{host}/{name}").parse().expect("a reference");
    registries.repository(&reference, credentials)
}

pub fn user() -> Credentials {
    Credentials {
        username: "user".to_owned(),
        password: "secret".to_owned(),
        ..Credentials::default()
    }
}

/// Bytes that differ from their neighbours, so that a shifted or repeated piece shows.
pub fn content(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at * 7 + at / 251 * 3 + at / 65_521) as u8)
        .collect()
}

pub fn digest(text: &str) -> Digest {
    text.parse().expect("a digest")
}

/// Stores `bytes` at the registry and describes them.
pub fn blob(registry: &Registry, bytes: &[u8]) -> Descriptor {
    let name = registry.push_blob(bytes);
    Descriptor::new("", digest(&name), bytes.len() as u64)
}

/// Reads a blob from `offset` to its end.
pub async fn read(
    repository: &Repository,
    descriptor: &Descriptor,
    offset: u64,
) -> Result<Vec<u8>, Error> {
    let mut reader = repository.blob(descriptor, offset).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = reader.next().await? {
        bytes.extend(piece);
    }
    Ok(bytes)
}

/// Collects what an observer is told.
pub fn watched(repository: Repository) -> (Repository, Arc<Mutex<Vec<String>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    let repository = repository.observed(Arc::new(move |wait, text| {
        let text = format!("{} {text}", if wait.is_zero() { "now" } else { "later" });
        listener.lock().expect("not poisoned").push(text);
    }));
    (repository, told)
}
