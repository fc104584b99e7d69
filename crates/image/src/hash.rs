//! SHA-256 as [`Digest`].

use gantry_api::digest::Digest;
use sha2::Digest as _;
use std::io::{self, Write};

/// Hashes what is written.
#[derive(Default)]
pub(crate) struct Hasher(sha2::Sha256);

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> Digest {
        let bytes: [u8; 32] = self.0.finalize().into();
        Digest::from_sha256(&bytes)
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hashes by the algorithm that a digest names: SHA-512, else SHA-256, which no digest of another algorithm equals.
pub(crate) enum AnyHasher {
    Sha256(Hasher),
    Sha512(sha2::Sha512),
}

impl AnyHasher {
    pub fn new(algorithm: &str) -> Self {
        match algorithm {
            "sha512" => Self::Sha512(sha2::Sha512::default()),
            _ => Self::Sha256(Hasher::default()),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => hasher.finish(),
            Self::Sha512(hasher) => {
                let hex: String = hasher
                    .finalize()
                    .iter()
                    .map(|b| format!("{b:02x}"))
                    .collect();
                Digest::try_from(format!("sha512:{hex}")).unwrap_or_else(|_| sha256(b""))
            }
        }
    }
}

/// Hashes bytes at once by an algorithm; see [`AnyHasher`].
pub(crate) fn digest_of(algorithm: &str, bytes: &[u8]) -> Digest {
    let mut hasher = AnyHasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

/// Hashes bytes at once.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish()
}

/// Gives the chainIDs of layers, bottom first (OCI image-spec, "Layer ChainID").
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => sha256(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}
