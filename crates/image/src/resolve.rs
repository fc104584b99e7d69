//! What a user's name for an image means.

use crate::error::{Error, Result};
use crate::index::Mirror;
use crate::store::no_such_image;
use gantry_api::id::ImageId;
use gantry_api::reference::{AnyReference, Reference, parse_any};

/// Finds the id that a name means: a full id, then a reference, then a unique prefix of an id.
pub(crate) fn resolve(mirror: &Mirror, name: &str) -> Result<ImageId> {
    let reference = match parse_any(name).map_err(|error| Error::invalid(error.to_string()))? {
        AnyReference::Id(digest) => {
            let id = digest
                .hex()
                .parse::<ImageId>()
                .ok()
                .filter(|id| mirror.images.contains_key(id));
            return id.ok_or_else(|| no_such_image(digest.as_str()));
        }
        AnyReference::Named(reference) => reference,
    };
    if let Some((_, id)) = mirror.references.get(&lookup_key(&reference)) {
        return Ok(id.clone());
    }
    let prefix = name.strip_prefix("sha256:").unwrap_or(name);
    if let Some(id) = by_prefix(mirror, prefix) {
        return Ok(id);
    }
    Err(no_such_image(&reference.or_latest().to_string()))
}

/// Gives the key of a reference: a digest counts more than a tag.
pub(crate) fn lookup_key(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => reference.clone().with_digest(digest.clone()).canonical(),
        None => reference.clone().or_latest().canonical(),
    }
}

fn by_prefix(mirror: &Mirror, prefix: &str) -> Option<ImageId> {
    if prefix.is_empty()
        || prefix.len() > 64
        || !prefix
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    {
        return None;
    }
    let first: ImageId = format!("{prefix:0<64}").parse().ok()?;
    let mut found = mirror
        .images
        .range(first..)
        .map(|(id, _)| id)
        .take_while(|id| id.as_str().starts_with(prefix));
    let only = found.next()?;
    // An ambiguous prefix is no name, which Docker reports as such.
    if found.next().is_some() {
        None
    } else {
        Some(only.clone())
    }
}

/// Parses the name that an image is to get.
pub(crate) fn tag_target(target: &str) -> Result<Reference> {
    let reference: Reference =
        target
            .parse()
            .map_err(|error: gantry_api::reference::ReferenceError| {
                Error::invalid(error.to_string())
            })?;
    if reference.digest().is_some() {
        return Err(Error::invalid(
            "refusing to create a tag with a digest reference",
        ));
    }
    if reference.familiar_name() == "sha256" {
        return Err(Error::invalid(
            "refusing to create an ambiguous tag using digest algorithm as name",
        ));
    }
    Ok(reference.or_latest())
}
