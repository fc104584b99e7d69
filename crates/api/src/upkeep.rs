//! Wire types of what Docker has not: the policy by which images are removed, what that removes, the check of the store.

use crate::wire::wire;

wire! {
    /// Answers `GET /images/gc`.
    pub struct ImageGcPolicy {
        enabled: bool,
        tagged: bool,
        unused_for_seconds: u64,
        /// 0 is none.
        high_watermark_percent: u8,
        low_watermark_percent: u8,
        interval_seconds: u64,
        keep_blobs_bytes: u64,
        partials_for_seconds: u64,
    }

    /// Is one thing that went, or would go.
    pub struct ImageGcItem {
        kind: String,
        name: String,
        reason: String,
        bytes: u64,
    }

    /// Answers `POST /images/gc`.
    pub struct ImageGcReport {
        items: Vec<ImageGcItem>,
        reclaimed_bytes: u64,
        dry_run: bool,
    }

    /// Answers `POST /system/check`.
    pub struct CheckReport {
        blobs: u64,
        layers: u64,
        images: u64,
        bytes: u64,
        problems: Vec<String>,
        repaired: Vec<String>,
        remaining: Vec<String>,
    }
}
