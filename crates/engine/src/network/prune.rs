//! `prune`: removes networks that no running container is on.

use super::record::NetworkRecord;
use crate::{Engine, Filters, Result};

impl Engine {
    /// Removes unused networks of users' that pass `label`, `label!` and `until`; returns their names.
    ///
    /// # Errors
    /// A filter that is none (invalid).
    pub async fn prune_networks(&self, filters: &Filters) -> Result<Vec<String>> {
        crate::check_filter_keys(filters, &["label", "label!", "until"])?;
        let until_ns = crate::container::until_ns(filters)?;
        let wanted = |record: &NetworkRecord| {
            record.is_user_defined()
                && !record.config_only
                && until_ns.is_none_or(|until| record.created_ns < until)
                && filters
                    .get("label")
                    .is_none_or(|wanted| crate::labels_match(&record.labels, wanted))
                && filters
                    .get("label!")
                    .is_none_or(|wanted| !crate::labels_match(&record.labels, wanted))
        };
        let mut pruned = Vec::new();
        for record in self.inner.networks.all() {
            if !wanted(&record) || !self.active_endpoints(&record).is_empty() {
                continue;
            }
            match self.remove_network(&record.id).await {
                Ok(()) => pruned.push(record.name.clone()),
                // Somebody uses it by now.
                Err(error) => tracing::warn!(network = record.name, %error, "prune a network"),
            }
        }
        let more = [("reclaimed".to_owned(), "0".to_owned())];
        self.inner.events.emit("network", "prune", "", more.into());
        Ok(pruned)
    }
}
