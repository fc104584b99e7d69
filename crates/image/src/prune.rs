//! Removes what is not used, and counts what is.

use crate::error::{Error, Result};
use crate::list::{has_label, has_labels};
use crate::remove::{InUseBy, RemoveOptions, Removed};
use crate::store::Images;
use gantry_api::time::Timestamp;
use std::collections::HashSet;

/// Says what to prune.
#[derive(Clone)]
pub struct PruneOptions<'a> {
    /// Only images without a name; else all that no container uses.
    pub dangling_only: bool,
    pub labels: Vec<String>,
    /// Keeps images with any of these labels.
    pub labels_not: Vec<String>,
    /// Keeps images made after this time.
    pub until: Option<Timestamp>,
    pub in_use: InUseBy<'a>,
}

/// Is what a prune removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub removed: Vec<Removed>,
    pub reclaimed_bytes: u64,
}

impl Images {
    /// Removes unused images.
    pub fn prune(&self, options: &PruneOptions<'_>) -> Result<Pruned> {
        let PruneOptions {
            dangling_only,
            labels,
            labels_not,
            until,
            in_use,
        } = options;
        let candidates: Vec<_> = {
            let mirror = self.lock();
            let parents: HashSet<_> = mirror
                .images
                .values()
                .filter_map(|image| image.parent.clone())
                .collect();
            mirror
                .images
                .keys()
                .filter(|id| !parents.contains(id))
                .cloned()
                .collect()
        };
        let before = self.layers_bytes();
        let mut pruned = Pruned::default();
        for id in candidates {
            let Ok(image) = self.get_by_id(&id) else {
                continue;
            };
            let named = if *dangling_only {
                !image.references.is_empty()
            } else {
                false
            };
            if named
                || !has_labels(&image, labels)
                || labels_not.iter().any(|label| has_label(&image, label))
                || until.is_some_and(|until| image.created.is_none_or(|created| created > until))
                || !in_use(&id).is_empty()
            {
                continue;
            }
            let names: Vec<String> = image
                .references
                .iter()
                .chain(&image.digests)
                .map(ToString::to_string)
                .collect();
            let names = if names.is_empty() {
                vec![id.as_str().to_owned()]
            } else {
                names
            };
            for name in names {
                let options = RemoveOptions {
                    force: false,
                    no_prune: false,
                    in_use: *in_use,
                };
                match self.remove(&name, options) {
                    Ok(removed) => pruned.removed.extend(removed),
                    // Taken into use, or removed with an earlier one, meanwhile.
                    Err(Error::Conflict(_) | Error::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if labels.is_empty() && labels_not.is_empty() && until.is_none() {
            // Who prunes wants the space of what broken-off pulls left as well.
            self.drop_left_behind()?;
        }
        pruned.reclaimed_bytes = before.saturating_sub(self.layers_bytes());
        Ok(pruned)
    }

    fn layers_bytes(&self) -> u64 {
        self.lock()
            .layers
            .values()
            .map(|layer| layer.size_bytes)
            .sum()
    }
}
