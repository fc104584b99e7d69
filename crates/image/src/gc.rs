//! Garbage: what a policy finds, and its removal.

use std::time::Duration;

/// Says what is removed by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcPolicy {
    pub enabled: bool,
    /// Whether images with a name go, too; else only those without one, idle partials and kept blobs.
    pub tagged: bool,
    /// How long something must not have been used.
    pub unused_for: Duration,
    /// From this use of the file system on, what was not used for longest goes first, whatever its age.
    pub high_watermark_percent: Option<u8>,
    /// Where that ends.
    pub low_watermark_percent: Option<u8>,
    /// How often the policy is applied.
    pub interval: Duration,
    /// How many bytes of compressed layers are kept for pushes elsewhere.
    pub keep_blobs_bytes: u64,
    /// How long an interrupted download is kept.
    pub partials_for: Duration,
}

impl Default for GcPolicy {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self {
            enabled: false,
            tagged: false,
            unused_for: Duration::from_secs(14 * DAY),
            high_watermark_percent: None,
            low_watermark_percent: None,
            interval: Duration::from_secs(60 * 60),
            keep_blobs_bytes: 0,
            partials_for: Duration::from_secs(7 * DAY),
        }
    }
}

/// Is one thing that went, or would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcItem {
    /// `image`, `layer`, `blob` or `partial`.
    pub kind: &'static str,
    pub name: String,
    pub reason: String,
    pub bytes: u64,
}

/// Is what a collection did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    pub items: Vec<GcItem>,
    pub reclaimed_bytes: u64,
    pub dry_run: bool,
}
