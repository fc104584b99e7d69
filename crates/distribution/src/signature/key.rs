//! Public keys. The arithmetic is `ring`'s; here an algorithm is chosen by the key alone, never by what a signature says.

use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
    RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{DecodePem, Encode};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// A public key and the algorithms in which it signs.
#[derive(Clone)]
pub(super) struct Key {
    algorithms: Vec<&'static dyn VerificationAlgorithm>,
    bytes: Vec<u8>,
}

// The library's algorithms have no `Debug`.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

impl Key {
    /// Reads a key in PEM (`PUBLIC KEY`).
    pub(super) fn from_pem(pem: &str) -> Result<Self, String> {
        let info = SubjectPublicKeyInfoOwned::from_pem(pem.trim().as_bytes())
            .map_err(|error| format!("no public key in PEM: {error}"))?;
        let bytes = info
            .subject_public_key
            .as_bytes()
            .ok_or("the public key is no whole number of bytes")?
            .to_vec();
        let curve = || -> Option<ObjectIdentifier> {
            let parameters = info.algorithm.parameters.as_ref()?;
            let der = parameters.to_der().ok()?;
            x509_cert::der::Decode::from_der(&der).ok()
        };
        let algorithms: Vec<&'static dyn VerificationAlgorithm> = match info.algorithm.oid {
            RSA => vec![&RSA_PKCS1_2048_8192_SHA256],
            ED => vec![&ED25519],
            EC if curve() == Some(P256) => vec![&ECDSA_P256_SHA256_ASN1],
            EC if curve() == Some(P384) => vec![&ECDSA_P384_SHA256_ASN1, &ECDSA_P384_SHA384_ASN1],
            other => {
                return Err(format!(
                    "the kind of key {other} is not supported: ECDSA on P-256 or P-384, RSA and Ed25519 are"
                ));
            }
        };
        Ok(Self { algorithms, bytes })
    }

    /// Tells whether the key made `signature` for `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.algorithms.iter().any(|&algorithm| {
            UnparsedPublicKey::new(algorithm, &self.bytes)
                .verify(message, signature)
                .is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_supported_key_is_refused() {
        assert!(Key::from_pem("nothing").is_err());
        // An X25519 key, which cannot sign.
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VuAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----\n";
        let complaint = Key::from_pem(pem).expect_err("it cannot sign");
        assert!(
            complaint.contains("1.3.101.110 is not supported"),
            "{complaint}"
        );
    }
}
