//! Who signed an image: cosign's signatures by keys, checked by a policy of the user.
//!
//! ```text
//! policy.rs  the file: what is asked of which repositories
//! key.rs     public keys, and whether one made a signature (by `ring`)
//! simple.rs  signatures under the tag `sha256-HEX.sig`: simple signing
//! bundle.rs  signatures among the referrers: DSSE envelopes in bundles
//! ```
//! Without a policy nothing here is called. Keys alone are trusted: neither certificates nor transparency logs are
//! looked at. Sources: cosign's `SIGNATURE_SPEC` and bundle specification, DSSE 1.0, in-toto statements 1.0.

mod bundle;
mod key;
mod policy;
mod simple;

pub use policy::SignaturePolicy;

use crate::client::Repository;
use crate::{Error, FetchedManifest, Result};
use gantry_api::digest::Digest;
use gantry_api::oci::image::Descriptor;
use gantry_api::reference::Reference;
use key::Key;
use policy::{Demand, Identity};

/// A payload or bundle that is larger is none.
const PAYLOAD_SIZE_MAX: u64 = 1 << 20;
/// So many signatures of one image are looked at.
const SIGNATURES_MAX: usize = 64;

impl SignaturePolicy {
    /// Checks that an image may be used: nothing is asked of its repository, or one of the keys signed it.
    ///
    /// `digest` is that of the manifest or index that the reference stands for. The repository is asked for signatures
    /// only where the policy requires one.
    ///
    /// # Errors
    /// [`Error::Untrusted`] where the policy is not met; others where the registry could not be asked.
    pub async fn check(
        &self,
        repository: &Repository,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<()> {
        let name = reference.name();
        let image = format!("{}@{digest}", reference.familiar_name());
        let (scope, demand) = self.demand(&name);
        let (keys, identity) = match demand {
            Demand::Accept => return Ok(()),
            Demand::Reject => {
                return Err(Error::Untrusted(format!(
                    "signature policy `{}`: images of {scope} are rejected, `{image}` is one",
                    self.path().display()
                )));
            }
            Demand::Require { keys, identity } => (keys, identity),
        };
        let asked = Asked {
            repository,
            name: &name,
            digest,
            keys,
            identity,
        };
        let mut found = Found::default();
        if simple::find(&asked, &mut found).await? || bundle::find(&asked, &mut found).await? {
            return Ok(());
        }
        Err(Error::Untrusted(format!(
            "signature policy `{}`: {scope} requires a signature by one of {} keys, `{image}` has {}",
            self.path().display(),
            keys.len(),
            found.text()
        )))
    }
}

/// What a signature is looked for.
struct Asked<'a> {
    repository: &'a Repository,
    /// The repository's full name.
    name: &'a str,
    digest: &'a Digest,
    keys: &'a [Key],
    identity: &'a Identity,
}

impl Asked<'_> {
    /// Tells whether one of the keys made a signature.
    fn is_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.keys.iter().any(|key| key.verifies(message, signature))
    }
}

/// Why the signatures that were found did not do.
#[derive(Default)]
struct Found {
    reasons: Vec<String>,
}

impl Found {
    fn refuse(&mut self, reason: impl Into<String>) {
        let reason = reason.into();
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    fn text(&self) -> String {
        if self.reasons.is_empty() {
            "none at all".to_owned()
        } else {
            format!("none that counts: {}", self.reasons.join(", "))
        }
    }
}

/// Fetches a manifest that may not be there.
async fn manifest_if_any(
    repository: &Repository,
    reference: &str,
) -> Result<Option<FetchedManifest>> {
    match repository.raw_manifest(reference).await {
        Ok(manifest) => Ok(Some(manifest)),
        Err(Error::Registry { status: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Fetches a small blob whose bytes are right.
async fn payload(repository: &Repository, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let corrupt = |how: &str| Error::Corrupt(format!("signature {}: {how}", descriptor.digest));
    if descriptor.size > PAYLOAD_SIZE_MAX {
        return Err(corrupt("it is too large"));
    }
    match repository.whole_blob(descriptor).await {
        Err(Error::Corrupt(_)) => Err(corrupt("the registry gave other bytes")),
        other => other,
    }
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(text.trim())
        .ok()
}
