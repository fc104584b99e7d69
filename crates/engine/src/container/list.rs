//! `ps`: which containers, and what is told of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::inspect::NetworkView;
use super::record::Record;
use crate::{Engine, Filters, Result};

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Also those that do not run.
    pub all: bool,
    /// The newest ones only, whether they run or not.
    pub limit: Option<usize>,
    /// Measures the writable layer and the root.
    pub size: bool,
    pub filters: Filters,
}

/// One container of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    pub record: Arc<Record>,
    /// The image's name as the container was made with it; the image's id once the name means another image or none.
    pub image: String,
    /// Its own name and those by links of old, each with a slash in front.
    pub names: Vec<String>,
    /// Bytes of the writable layer, and of the whole root.
    pub sizes: Option<(u64, u64)>,
    pub network: NetworkView,
}

/// Returns a container's names in the order of their spelling.
fn names(record: &Record, by_links: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut names = by_links.get(&record.id).cloned().unwrap_or_default();
    names.push(format!("/{}", record.name));
    names.sort();
    names
}

impl Engine {
    /// Lists containers, the newest first.
    pub async fn list(&self, options: ListOptions) -> Result<Vec<Listed>> {
        let filter = self.container_filter(&options.filters)?;
        let mut records: Vec<Arc<Record>> = self
            .inner
            .containers
            .all()
            .iter()
            .map(|one| one.record())
            .collect();
        records.sort_by(|a, b| {
            b.created_ns
                .cmp(&a.created_ns)
                .then_with(|| b.id.cmp(&a.id))
        });
        let all = options.all
            || options.limit.is_some()
            || options.filters.contains_key("status")
            || options.filters.contains_key("exited");
        records.retain(|record| {
            (all || record.state.status.is_running())
                && filter.matches(record)
                && (!filter.wants_ports() || filter.ports_match(record, &self.network_view(record)))
        });
        if let Some(limit) = options.limit {
            records.truncate(limit);
        }
        let by_links = self.names_by_links();
        let mut images = BTreeMap::new();
        let mut listed = Vec::with_capacity(records.len());
        for record in records {
            let sizes = if options.size {
                Some(self.sizes(&record).await?)
            } else {
                None
            };
            let network = self.network_view(&record);
            let named = images
                .entry(record.config.image.clone())
                .or_insert_with(|| {
                    self.inner
                        .images
                        .get(&record.config.image)
                        .ok()
                        .map(|image| image.id.to_string())
                });
            let image = match named {
                Some(id) if *id == record.image_id => record.config.image.clone(),
                _ => record.image_id.clone(),
            };
            listed.push(Listed {
                image,
                names: names(&record, &by_links),
                record,
                sizes,
                network,
            });
        }
        Ok(listed)
    }

    /// Measures the bytes of the writable layer and of the whole root.
    pub(crate) async fn sizes(&self, record: &Arc<Record>) -> Result<(u64, u64)> {
        let writable = self.writable_bytes(record).await;
        let image_bytes = match self.image(&record.image_id).await {
            Ok(image) => image.size_bytes,
            // Removed by force under a stopped container.
            Err(_) => 0,
        };
        Ok((writable, writable + image_bytes))
    }

    /// Measures the bytes of the writable layer.
    pub(crate) async fn writable_bytes(&self, record: &Arc<Record>) -> u64 {
        let Some(number) = record.snapshot else {
            return 0;
        };
        let images = self.inner.images.clone();
        let measured =
            crate::blocking::run(move || images.usage(number).map(|usage| usage.apparent_bytes))
                .await;
        measured.ok().and_then(std::result::Result::ok).unwrap_or(0)
    }
}
