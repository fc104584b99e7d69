//! The container's log on disk: its writer (in the shim) and its reader (in the engine).

use serde::{Deserialize, Serialize};

/// A place between two lines of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The file's identity, which survives rotation and compression; 0: before the oldest line.
    pub generation: u64,
    /// Bytes from the start of the (uncompressed) file.
    pub offset: u64,
}
