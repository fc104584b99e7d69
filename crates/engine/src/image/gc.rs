//! Garbage collection, by hand and by the clock, and the check of the store.

use std::time::Duration;

use gantry_api::id::ImageId;
use gantry_image::{CheckReport, GcPolicy, GcReport};

use super::error;
use crate::{Engine, Result};

/// How often the clock looks whether a policy has been set, and writes down when images were used.
const TICK: Duration = Duration::from_secs(60);

impl Engine {
    /// Gives the policy by which images are removed.
    pub fn image_gc_policy(&self) -> GcPolicy {
        self.inner.transfers.policy()
    }

    /// Sets the policy by which images are removed; it holds from the next run on.
    pub fn set_image_gc_policy(&self, policy: GcPolicy) {
        self.inner.transfers.set_policy(policy);
    }

    /// Removes by the policy, now, also where it is not enabled.
    pub async fn collect_images(&self, dry_run: bool) -> Result<GcReport> {
        let engine = self.clone();
        crate::blocking::run_long(move || {
            let policy = engine.image_gc_policy();
            let in_use = |id: &ImageId| engine.image_users(id);
            let images = &engine.inner.images;
            let (report, removed) = images
                .collect_by(&policy, &in_use, dry_run)
                .map_err(error)?;
            engine.removed(&removed, "");
            Ok(report)
        })
        .await?
    }

    /// Hashes every blob, rebuilds every layer's archive, and compares records and directories.
    pub async fn check_store(&self, repair: bool) -> Result<CheckReport> {
        let engine = self.clone();
        crate::blocking::run_long(move || {
            let kept_for = engine.image_gc_policy().partials_for;
            let report = engine.inner.images.check(repair, kept_for).map_err(error);
            gantry_sys::epoll::trim_heap();
            report
        })
        .await?
    }

    /// Applies the policy by the clock for as long as the daemon lives.
    pub(crate) fn start_image_gc(&self) {
        let engine = std::sync::Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            let mut last = tokio::time::Instant::now();
            loop {
                tokio::time::sleep(TICK).await;
                let Some(inner) = engine.upgrade() else {
                    return;
                };
                let engine = Engine { inner };
                let images = engine.inner.images.clone();
                let written = crate::blocking::run(move || images.write_uses()).await;
                if let Ok(Err(failure)) = written {
                    tracing::warn!(error = %failure, "the last uses of images are not written");
                }
                let policy = engine.image_gc_policy();
                if !policy.enabled || last.elapsed() < policy.interval {
                    continue;
                }
                last = tokio::time::Instant::now();
                match engine.collect_images(false).await {
                    Ok(report) if report.items.is_empty() => {}
                    Ok(report) => tracing::info!(
                        items = report.items.len(),
                        bytes = report.reclaimed_bytes,
                        "images were collected"
                    ),
                    Err(failure) => {
                        tracing::warn!(error = %failure, "images could not be collected");
                    }
                }
            }
        });
    }
}
