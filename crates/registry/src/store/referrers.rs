//! Who refers to a manifest.

use super::{Kind, Store, digest_of_file, list as names, modified, read};
use crate::error::Result;
use crate::name::Name;
use gantry_api::digest::Digest;
use serde_json::Value;

pub(super) fn list(store: &Store, name: &Name, subject: &Digest) -> Result<Vec<Value>> {
    let directory = store.link(name, Kind::Referrers, subject);
    let mut files = names(&directory)?;
    files.sort_unstable();
    let mut descriptors = Vec::new();
    for file in files {
        let Some(digest) = digest_of_file(&file) else {
            continue;
        };
        // Left by a crash between the two.
        if modified(&store.link(name, Kind::Manifests, &digest))?.is_none() {
            continue;
        }
        let text = read(&directory.join(&file))?;
        descriptors.extend(text.and_then(|text| serde_json::from_str::<Value>(&text).ok()));
    }
    Ok(descriptors)
}
