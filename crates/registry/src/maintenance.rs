//! What a registry does by itself: collects garbage and reads changed files again.

use crate::error::Result;
use crate::registry::Registry;
use crate::server::blocking;
use crate::store::{Collected, Policy, Store};
use crate::tls::Tls;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often files are looked at.
const REFRESH: Duration = Duration::from_secs(2);

/// Collects garbage of a registry that is not running.
///
/// # Errors
/// [`crate::Code::Busy`] where it runs; fails where the disk does.
pub fn collect_offline(root: &Path, policy: &Policy) -> Result<Collected> {
    Store::open(root, None)?.collect(policy)
}

/// Collects once; a second caller waits for his turn.
pub(crate) async fn collect(registry: &Arc<Registry>, is_dry_run: bool) -> Result<Collected> {
    let _turn = registry.collecting.lock().await;
    let (store, mut policy) = (Arc::clone(&registry.store), registry.options.policy.clone());
    policy.is_dry_run = is_dry_run;
    let collected = blocking(move || store.collect(&policy)).await?;
    if !is_dry_run {
        registry.metrics.collected(&collected);
        tracing::info!(
            manifests = collected.manifests,
            blobs = collected.blobs,
            bytes = collected.bytes,
            uploads = collected.uploads,
            "collected garbage"
        );
    }
    Ok(collected)
}

/// Goes on until it is dropped.
pub(crate) async fn run(registry: Arc<Registry>, tls: Option<Arc<Tls>>) {
    let in_time = |interval: Option<Duration>| interval.map(|interval| Instant::now() + interval);
    let interval = registry.options.collect_interval;
    let mut next = in_time(interval);
    loop {
        let refresh = Instant::now() + REFRESH;
        let filled = async {
            match &registry.cache {
                Some(cache) => cache.is_filled().await,
                None => std::future::pending().await,
            }
        };
        let is_filled = tokio::select! {
            () = filled => true,
            () = tokio::time::sleep_until(next.map_or(refresh, |next| next.min(refresh))) => false,
        };
        let (shared, tls) = (Arc::clone(&registry), tls.clone());
        blocking(move || {
            shared.auth.refresh();
            if let Some(tls) = tls {
                tls.refresh();
            }
        })
        .await;
        if is_filled || next.is_some_and(|next| next <= Instant::now()) {
            if let Err(error) = collect(&registry, false).await {
                tracing::error!(error = crate::server::causes(&error), "collect garbage");
            }
            next = in_time(interval);
        }
    }
}
