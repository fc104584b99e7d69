//! Hashing with the algorithms that the store keeps.

use gantry_api::digest::Digest;
use sha2::Digest as _;

/// Is a hash function that content is named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    /// Finds an algorithm by the name that digests begin with.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }
}

/// Hashes bytes that come in pieces, and counts them.
#[derive(Clone)]
pub struct Hasher {
    state: State,
    bytes: u64,
}

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Begins with no bytes.
    pub fn new(algorithm: Algorithm) -> Self {
        let state = match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        };
        Self { state, bytes: 0 }
    }

    /// Gives the algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self.state {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Gives how many bytes were hashed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
        self.bytes += bytes.len() as u64;
    }

    /// Compares what was hashed with a digest of the same algorithm.
    pub fn is(&self, digest: &Digest) -> bool {
        let (name, hex) = match self.state.clone() {
            State::Sha256(state) => ("sha256", hex(&state.finalize())),
            State::Sha512(state) => ("sha512", hex(&state.finalize())),
        };
        digest.algorithm() == name && digest.hex() == hex
    }
}

fn hex(bytes: &[u8]) -> String {
    gantry_api::id::hex(bytes)
}

/// Gives the digest of bytes.
pub fn digest_of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let text = match algorithm {
        Algorithm::Sha256 => format!("sha256:{}", hex(&sha2::Sha256::digest(bytes))),
        Algorithm::Sha512 => format!("sha512:{}", hex(&sha2::Sha512::digest(bytes))),
    };
    text.parse().expect("a hash makes a well-formed digest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_hash_as_the_whole_does() {
        for (algorithm, abc) in [
            (
                Algorithm::Sha256,
                "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                Algorithm::Sha512,
                "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
        ] {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"a");
            hasher.update(b"bc");
            let digest: Digest = abc.parse().unwrap();
            assert!(hasher.is(&digest));
            assert_eq!((hasher.bytes(), hasher.algorithm()), (3, algorithm));
            assert_eq!(digest_of(algorithm, b"abc"), digest);
            hasher.update(b"d");
            assert!(!hasher.is(&digest));
        }
    }
}
