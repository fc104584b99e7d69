//! The collection of images and the check of the store.

use gantry_api::upkeep as wire;
use gantry_engine::image::{CheckReport, GcPolicy, GcReport};

/// Writes a policy.
pub fn policy(policy: &GcPolicy) -> wire::ImageGcPolicy {
    let GcPolicy {
        enabled,
        tagged,
        unused_for,
        high_watermark_percent,
        low_watermark_percent,
        interval,
        keep_blobs_bytes,
        partials_for,
    } = policy;
    wire::ImageGcPolicy {
        enabled: *enabled,
        tagged: *tagged,
        unused_for_seconds: unused_for.as_secs(),
        high_watermark_percent: high_watermark_percent.unwrap_or_default(),
        low_watermark_percent: low_watermark_percent.unwrap_or_default(),
        interval_seconds: interval.as_secs(),
        keep_blobs_bytes: *keep_blobs_bytes,
        partials_for_seconds: partials_for.as_secs(),
    }
}

/// Writes what a collection did.
pub fn collected(report: GcReport) -> wire::ImageGcReport {
    let GcReport {
        items,
        reclaimed_bytes,
        dry_run,
    } = report;
    wire::ImageGcReport {
        items: items
            .into_iter()
            .map(|item| wire::ImageGcItem {
                kind: item.kind.to_owned(),
                name: item.name,
                reason: item.reason,
                bytes: item.bytes,
            })
            .collect(),
        reclaimed_bytes,
        dry_run,
    }
}

/// Writes what a check found.
pub fn checked(report: CheckReport) -> wire::CheckReport {
    let CheckReport {
        blobs,
        layers,
        images,
        bytes,
        problems,
        repaired,
        remaining,
    } = report;
    wire::CheckReport {
        blobs,
        layers,
        images,
        bytes,
        problems,
        repaired,
        remaining,
    }
}
