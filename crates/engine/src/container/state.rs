//! What a container is doing, and which verb is legal when.
//!
//! ```text
//!             create            start                 exit, no restart
//!   (nothing) ──────▶ Created ────────▶ Running ─────────────────────────▶ Exited
//!                        │               │ ▲  │ exit, policy says again      │ │
//!                        │         pause ▼ │  ▼                              │ │ start
//!                        │            Paused Restarting ──back-off──▶ Running◀┘
//!                        │ remove                                            │ remove
//!                        └────────────────▶ Removing ◀───────────────────────┘
//! ```
//! `Removing` ends with the record's deletion. `Dead` is a container whose removal failed and can be tried again.

use serde::{Deserialize, Serialize};

/// The status word of Docker's API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

impl Status {
    /// Returns the API's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Removing => "removing",
            Status::Exited => "exited",
            Status::Dead => "dead",
        }
    }

    /// Tells whether a first process exists now.
    pub fn has_process(self) -> bool {
        matches!(self, Status::Running | Status::Paused)
    }

    /// Tells what Docker calls running: with a process, or between two of them.
    pub fn is_running(self) -> bool {
        matches!(self, Status::Running | Status::Paused | Status::Restarting)
    }
}

/// The state of a container as its record keeps it. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub status: Status,
    /// Zero while there is no process.
    pub pid: i32,
    /// Start time of `pid` in clock ticks since boot, field 22 of proc(5) stat: tells a pid from its later reuse.
    pub pid_start_ticks: u64,
    pub exit_code: i32,
    /// The last error of a start, as the API shows it.
    pub error: String,
    pub oom_killed: bool,
    pub started_at_ns: Option<i64>,
    pub finished_at_ns: Option<i64>,
    pub restart_count: u64,
    /// Set by `stop` and `kill`: the policy `unless-stopped` then leaves the container alone.
    pub manually_stopped: bool,
}
