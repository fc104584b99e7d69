//! One file per owner: what it holds, read only at the start, so that a killed netd reserves the same ports again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gantry_api::port::Reservation;
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    owner: String,
    reservations: Vec<Reservation>,
}

/// Says whether an owner's name can be a file's.
pub fn is_valid_owner(owner: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=128).contains(&owner.len()) && !owner.starts_with('.') && owner.bytes().all(allowed)
}

fn path(directory: &Path, owner: &str) -> PathBuf {
    directory.join(format!("{owner}.json"))
}

/// Writes an owner's file under another name first, so that it is there whole or not at all.
pub fn save(directory: &Path, owner: &str, reservations: Vec<Reservation>) -> io::Result<()> {
    let record = Record {
        version: VERSION,
        owner: owner.to_owned(),
        reservations,
    };
    let temporary = directory.join(format!(".{owner}.new"));
    fs::write(&temporary, serde_json::to_vec(&record)?)?;
    fs::rename(temporary, path(directory, owner))
}

/// Removes an owner's file; none is no error.
pub fn remove(directory: &Path, owner: &str) -> io::Result<()> {
    match fs::remove_file(path(directory, owner)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads all files that can be read. A file of a newer version or a broken one is left where it is.
pub fn load(directory: &Path) -> io::Result<Vec<(String, Vec<Reservation>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let Ok(bytes) = fs::read(&path) else { continue };
        if let Ok(record) = serde_json::from_slice::<Record>(&bytes)
            && record.version == VERSION
            && is_valid_owner(&record.owner)
        {
            found.push((record.owner, record.reservations));
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_file_names_are_refused() {
        for owner in ["", ".", "..", "a/b", ".hidden", "ö", &"a".repeat(129)] {
            assert!(!is_valid_owner(owner), "{owner}");
        }
        assert!(is_valid_owner(&"a0".repeat(32)));
    }
}
