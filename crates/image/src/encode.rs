//! Compresses layers for registries.

/// Is how the layers that are made for a registry are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    None,
    #[default]
    Gzip,
    Zstd,
}
