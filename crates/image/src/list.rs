//! Lists images by Docker's filters.

use crate::error::{Error, Result};
use crate::glob;
use crate::index::Mirror;
use crate::resolve::resolve;
use crate::store::{Image, Images};
use gantry_api::digest::Digest;
use gantry_api::id::ImageId;
use gantry_api::reference::Reference;
use gantry_api::time::Timestamp;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

/// Says which images to list. Repeated values are alternatives, except labels, which must all be there.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Lists images that only others were made from, too.
    pub all: bool,
    /// Counts what each image shares with others.
    pub shared_size: bool,
    /// Only images without a name, or only those with one.
    pub dangling: Option<bool>,
    /// Only images made before these.
    pub before: Vec<String>,
    /// Only images made after these.
    pub since: Vec<String>,
    /// Only images made before this time.
    pub until: Option<Timestamp>,
    /// `key` or `key=value`.
    pub labels: Vec<String>,
    /// Patterns of names.
    pub references: Vec<String>,
}

/// Is one image of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    pub image: Arc<Image>,
    /// The names that match the filters.
    pub references: Vec<Reference>,
    pub digests: Vec<Reference>,
    pub shared_size_bytes: Option<u64>,
}

impl Images {
    /// Lists images, the newest first.
    pub fn list(&self, options: &ListOptions) -> Result<Vec<Listed>> {
        let ListOptions {
            all,
            shared_size,
            dangling,
            before,
            since,
            until,
            labels,
            references,
        } = options;
        let mirror = self.lock();
        let made = |name: &String| -> Result<Option<Timestamp>> {
            let id = resolve(&mirror, name)?;
            Ok(mirror.images.get(&id).and_then(|image| image.created))
        };
        let before = before
            .iter()
            .map(made)
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .min();
        let since = since
            .iter()
            .map(made)
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .max();
        let mut has_child: HashMap<&ImageId, ()> = HashMap::new();
        for image in mirror.images.values() {
            if let Some(parent) = &image.parent {
                has_child.insert(parent, ());
            }
        }
        let mut listed = Vec::new();
        for (id, record) in &mirror.images {
            let created = record.created;
            if before.is_some_and(|before| created.is_none_or(|created| created >= before))
                || since.is_some_and(|since| created.is_none_or(|created| created <= since))
                || until.is_some_and(|until| created.is_none_or(|created| created >= until))
                || (*dangling == Some(true) && has_child.contains_key(id))
            {
                continue;
            }
            let image = self.image(&mirror, id)?;
            if !has_labels(&image, labels) {
                continue;
            }
            let shown = |list: &[Reference]| -> Result<Vec<Reference>> {
                let mut shown = Vec::new();
                for reference in list {
                    if references.is_empty() || matches_any(references, reference)? {
                        shown.push(reference.clone());
                    }
                }
                Ok(shown)
            };
            let (tags, digests) = (shown(&image.references)?, shown(&image.digests)?);
            if tags.is_empty() && digests.is_empty() {
                let inner = has_child.contains_key(id) && !all;
                if inner || *dangling == Some(false) || !references.is_empty() {
                    continue;
                }
            } else if *dangling == Some(true) && !tags.is_empty() {
                continue;
            }
            let shared_size_bytes = shared_size.then(|| shared_size_of(&mirror, &image));
            listed.push(Listed {
                references: tags,
                digests,
                shared_size_bytes,
                image,
            });
        }
        listed.sort_by_key(|listed| Reverse(listed.image.created));
        Ok(listed)
    }
}

/// Tells whether an image bears all labels, `key` or `key=value`.
pub(crate) fn has_labels(image: &Image, wanted: &[String]) -> bool {
    wanted.iter().all(|wanted| has_label(image, wanted))
}

pub(crate) fn has_label(image: &Image, wanted: &str) -> bool {
    let labels = image.config().config.labels.as_ref();
    let (key, value) = match wanted.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (wanted, None),
    };
    labels
        .and_then(|labels| labels.get(key))
        .is_some_and(|found| value.is_none_or(|value| found == value))
}

fn matches_any(patterns: &[String], reference: &Reference) -> Result<bool> {
    for pattern in patterns {
        let matches = |name: &str| {
            glob::matches(pattern, name).map_err(|error| Error::invalid(error.to_string()))
        };
        if matches(&reference.to_string())? || matches(&reference.familiar_name())? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Sums the layers that another image has as well, in the same place above the same layers.
fn shared_size_of(mirror: &Mirror, image: &Image) -> u64 {
    let own: Vec<&Digest> = image.layers.iter().map(|layer| &layer.diff_id).collect();
    let common = mirror
        .images
        .values()
        .filter(|other| other.id != image.id)
        .map(|other| {
            other
                .diff_ids
                .iter()
                .zip(&own)
                .take_while(|(theirs, own)| theirs == *own)
                .count()
        });
    let shared = common.max().unwrap_or(0);
    image.layers[..shared]
        .iter()
        .map(|layer| layer.size_bytes)
        .sum()
}
