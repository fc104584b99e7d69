//! How an image came to be.

use crate::error::{Error, Result};
use crate::resolve::resolve;
use crate::store::Images;
use gantry_api::id::ImageId;
use gantry_api::reference::Reference;
use gantry_api::time::Timestamp;

/// Is one step of an image's making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The image after this step, if it is in the store.
    pub id: Option<ImageId>,
    pub created: Option<Timestamp>,
    pub created_by: String,
    pub comment: String,
    pub tags: Vec<Reference>,
    pub size_bytes: u64,
}

impl Images {
    /// Lists the steps of an image, the newest first.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryEntry>> {
        let mirror = self.lock();
        let id = resolve(&mirror, name)?;
        let image = self.image(&mirror, &id)?;
        let mut layers = image.layers.iter();
        let mut entries = Vec::new();
        for step in &image.config().history {
            let size_bytes = if step.empty_layer {
                0
            } else {
                let too_many = || Error::invalid("too many non-empty layers in History section");
                layers.next().ok_or_else(too_many)?.size_bytes
            };
            entries.push(HistoryEntry {
                id: None,
                created: step.created,
                created_by: step.created_by.clone(),
                comment: step.comment.clone(),
                tags: Vec::new(),
                size_bytes,
            });
        }
        entries.reverse();
        let mut current = Some(id);
        for entry in &mut entries {
            let Some(id) = current.take() else { break };
            entry.tags = mirror
                .references_of(&id)
                .into_iter()
                .filter(|reference| reference.tag().is_some())
                .collect();
            current = mirror
                .images
                .get(&id)
                .and_then(|image| image.parent.clone());
            entry.id = Some(id);
        }
        Ok(entries)
    }
}
