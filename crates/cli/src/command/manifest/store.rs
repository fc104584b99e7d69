//! The lists that are being put together: `manifests/LIST/IMAGE` in the configuration directory, one JSON document for
//! each manifest. Docker's client reads and writes the same files.

use super::document::ImageManifest;
use crate::cli::Cli;
use crate::failure::{Failure, Outcome, reason};
use gantry_api::reference::Reference;
use std::io;
use std::path::{Path, PathBuf};

/// The local lists.
pub struct Store {
    root: PathBuf,
}

impl Store {
    pub fn of(cli: &Cli) -> Store {
        Store {
            root: cli.directory.join("manifests"),
        }
    }

    /// Returns the manifests of a list in order, `None` if there is no such list.
    pub fn list(&self, list: &Reference) -> Outcome<Option<Vec<ImageManifest>>> {
        let directory = self.root.join(file_name(list));
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&directory, &error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(|error| failed(&directory, &error))?.path());
        }
        paths.sort();
        let manifests: Outcome<Vec<_>> = paths.iter().map(|path| read(path)).collect();
        Ok(Some(manifests?.into_iter().flatten().collect()))
    }

    /// Returns one manifest of a list.
    pub fn get(&self, list: &Reference, image: &Reference) -> Outcome<Option<ImageManifest>> {
        read(&self.root.join(file_name(list)).join(file_name(image)))
    }

    /// Writes one manifest of a list.
    pub fn save(&self, list: &Reference, image: &Reference, manifest: &ImageManifest) -> Outcome {
        let directory = self.root.join(file_name(list));
        let path = directory.join(file_name(image));
        let text = serde_json::to_vec(manifest).map_err(|error| Failure::new(error.to_string()))?;
        std::fs::create_dir_all(&directory)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|error| failed(&path, &error))
    }

    /// Forgets a list.
    pub fn remove(&self, list: &Reference) -> Outcome {
        let directory = self.root.join(file_name(list));
        std::fs::remove_dir_all(&directory).map_err(|error| failed(&directory, &error))
    }
}

fn read(path: &Path) -> Outcome<Option<ImageManifest>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, &error)),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{}: {}", path.display(), reason(error)))
}

/// Makes a name for a file of a reference, as Docker does.
fn file_name(reference: &Reference) -> String {
    reference.canonical().replace(':', "-").replace('/', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        let reference: Reference = "127.0.0.1:5000/c/app:1".parse().expect("reference");
        assert_eq!(file_name(&reference), "127.0.0.1-5000_c_app-1");
    }
}
