//! Checks the whole store against its digests.

/// Is what a check of the store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    pub blobs: u64,
    pub layers: u64,
    pub images: u64,
    /// How many bytes were hashed.
    pub bytes: u64,
    /// What is wrong; empty if the store is sound.
    pub problems: Vec<String>,
    /// What was done about it.
    pub repaired: Vec<String>,
}
