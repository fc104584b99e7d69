//! Wire types of volumes.

use crate::wire::wire;
use std::collections::BTreeMap;

wire! {
    /// Is a volume as list and inspect show it.
    pub struct Volume {
        /// RFC 3339, whole seconds.
        created_at: String = omitempty,
        driver: String,
        labels: Option<BTreeMap<String, String>>,
        mountpoint: String,
        name: String,
        options: Option<BTreeMap<String, String>>,
        scope: String,
        status: Option<BTreeMap<String, serde_json::Value>> = omitempty,
        usage_data: Option<VolumeUsage> = omitempty,
    }

    /// Says what a volume takes; only `system df` fills it in.
    pub struct VolumeUsage {
        /// Containers that use it; -1 is unknown.
        ref_count: i64,
        /// Bytes; -1 is unknown.
        size: i64,
    }

    /// Is the body of `POST /volumes/create`.
    pub struct VolumeCreateRequest {
        cluster_volume_spec: Option<serde_json::Value> = omitempty,
        driver: String = omitempty,
        driver_opts: Option<BTreeMap<String, String>> = omitempty,
        labels: Option<BTreeMap<String, String>> = omitempty,
        name: String = omitempty,
    }

    /// Answers list.
    pub struct VolumeListResponse {
        volumes: Option<Vec<Volume>>,
        warnings: Option<Vec<String>>,
    }

    /// Answers prune.
    pub struct VolumesPruneReport {
        volumes_deleted: Option<Vec<String>>,
        space_reclaimed: u64,
    }
}
