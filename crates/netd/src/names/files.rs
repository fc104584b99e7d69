//! What a restarted netd reads: one file per endpoint's names and one per container's resolver.
//!
//! ```text
//! netd/names/NETWORK.ENDPOINT     the names of an endpoint
//! netd/resolvers/CONTAINER        a resolver, without its sockets
//! ```
//! A directory is made with its first file and goes with its last. Files that cannot be read are left where they are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::{NamedEndpoint, Resolver};
use crate::state;

const NAMES: &str = "names";
const RESOLVERS: &str = "resolvers";

/// The directory of netd's files.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
}

fn valid(id: &str) -> io::Result<&str> {
    if state::is_valid_owner(id) {
        return Ok(id);
    }
    let message = format!("invalid id `{id}`");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

fn write(directory: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // No id begins with a dot.
    let temporary = directory.join(".new");
    fs::write(&temporary, serde_json::to_vec(value)?)?;
    fs::rename(temporary, directory.join(name))
}

fn remove(directory: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(directory.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Fails while there are others.
    let _ = fs::remove_dir(directory);
    Ok(())
}

fn read<T: DeserializeOwned>(directory: &Path) -> Vec<T> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
        .iter()
        .filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok())
        .collect()
}

impl Files {
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    pub fn put_names(&self, endpoint: &NamedEndpoint) -> io::Result<()> {
        let name = format!(
            "{}.{}",
            valid(&endpoint.network)?,
            valid(&endpoint.endpoint)?
        );
        write(&self.directory.join(NAMES), &name, endpoint)
    }

    pub fn drop_names(&self, network: &str, endpoint: &str) -> io::Result<()> {
        let name = format!("{}.{}", valid(network)?, valid(endpoint)?);
        remove(&self.directory.join(NAMES), &name)
    }

    pub fn put_resolver(&self, resolver: &Resolver) -> io::Result<()> {
        let name = valid(&resolver.container)?;
        write(&self.directory.join(RESOLVERS), name, resolver)
    }

    pub fn drop_resolver(&self, container: &str) -> io::Result<()> {
        remove(&self.directory.join(RESOLVERS), valid(container)?)
    }

    pub fn names(&self) -> Vec<NamedEndpoint> {
        read(&self.directory.join(NAMES))
    }

    pub fn resolvers(&self) -> Vec<Resolver> {
        read(&self.directory.join(RESOLVERS))
    }
}
