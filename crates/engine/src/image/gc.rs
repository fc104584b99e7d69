//! Garbage collection and the check of the store.

use gantry_image::{CheckReport, GcPolicy, GcReport};

use crate::{Engine, Result};

impl Engine {
    /// Gives the policy by which images are removed.
    pub fn image_gc_policy(&self) -> GcPolicy {
        GcPolicy::default()
    }

    /// Sets the policy by which images are removed; it holds from the next run on.
    pub fn set_image_gc_policy(&self, policy: GcPolicy) {
        let _ = policy;
    }

    /// Removes by the policy, now, also where it is not enabled.
    pub async fn collect_images(&self, dry_run: bool) -> Result<GcReport> {
        let _ = dry_run;
        Err(crate::Error::system("not yet"))
    }

    /// Hashes every blob, rebuilds every layer's archive, and compares records and directories.
    pub async fn check_store(&self, repair: bool) -> Result<CheckReport> {
        let _ = repair;
        Err(crate::Error::system("not yet"))
    }
}
