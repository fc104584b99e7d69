//! `container prune`: removes what is not running.

use super::{RemoveOptions, Status};
use crate::{Engine, Filters, Result};

/// What a prune did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub deleted: Vec<String>,
    pub reclaimed_bytes: u64,
}

impl Engine {
    /// Removes stopped containers that pass `label`, `label!` and `until`.
    pub async fn prune_containers(&self, filters: &Filters) -> Result<Pruned> {
        crate::check_filter_keys(filters, &["label", "label!", "until"])?;
        let until_ns = super::until_ns(filters)?;
        let mut pruned = Pruned::default();
        for container in self.inner.containers.all() {
            let record = container.record();
            let idle = matches!(
                record.state.status,
                Status::Created | Status::Exited | Status::Dead
            );
            let wanted = idle
                && until_ns.is_none_or(|until| record.created_ns < until)
                && filters
                    .get("label")
                    .is_none_or(|wanted| crate::labels_match(&record.config.labels, wanted))
                && filters
                    .get("label!")
                    .is_none_or(|wanted| !crate::labels_match(&record.config.labels, wanted));
            if !wanted {
                continue;
            }
            let bytes = self.writable_bytes(&record).await;
            match self.remove(&record.id, RemoveOptions::default()).await {
                Ok(()) => {
                    pruned.deleted.push(record.id.clone());
                    pruned.reclaimed_bytes += bytes;
                }
                Err(error) => tracing::warn!(container = record.id, %error, "prune a container"),
            }
        }
        let more = [("reclaimed".to_owned(), pruned.reclaimed_bytes.to_string())];
        self.inner
            .events
            .emit("container", "prune", "", more.into());
        Ok(pruned)
    }
}
