//! Signatures among the referrers: bundles with a DSSE envelope around an in-toto statement.
//!
//! The statement names digests and, as cosign makes it, no repository: a name that it has must be right, one that it has
//! not is not asked for.

use super::policy::{Identity, is_below};
use super::{Asked, Found, SIGNATURES_MAX, from_base64, manifest_if_any, payload};
use crate::Result;
use gantry_api::oci::image::Manifest;
use gantry_api::reference::Reference;
use serde::Deserialize;
use std::collections::BTreeMap;

const ARTIFACT_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENTS: [&str; 2] = [
    "https://in-toto.io/Statement/v1",
    "https://in-toto.io/Statement/v0.1",
];
/// What `cosign sign` says of an image. Attestations say other things and are no signatures.
const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    predicate_type: String,
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    name: String,
    digest: BTreeMap<String, String>,
}

/// Looks for a signature that counts.
pub(super) async fn find(asked: &Asked<'_>, found: &mut Found) -> Result<bool> {
    let referrers = asked
        .repository
        .referrers(asked.digest, Some(ARTIFACT_TYPE))
        .await?;
    for referrer in referrers.manifests.iter().take(SIGNATURES_MAX) {
        let Some(manifest) = manifest_if_any(asked.repository, referrer.digest.as_str()).await?
        else {
            continue;
        };
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&manifest.bytes) else {
            found.refuse(format!("`{}` is no manifest", referrer.digest));
            continue;
        };
        let layers = manifest.layers.iter().take(SIGNATURES_MAX);
        for layer in layers.filter(|layer| layer.media_type == ARTIFACT_TYPE) {
            let bundle = payload(asked.repository, layer).await?;
            match complaint(asked, &bundle) {
                None => return Ok(true),
                Some(complaint) => found.refuse(complaint),
            }
        }
    }
    Ok(false)
}

/// Says why a bundle is no signature of this image.
fn complaint(asked: &Asked<'_>, bundle: &[u8]) -> Option<String> {
    let envelope = serde_json::from_slice::<Bundle>(bundle)
        .ok()
        .and_then(|bundle| bundle.dsse_envelope);
    let Some(envelope) = envelope else {
        return Some("a bundle is not understood".to_owned());
    };
    if envelope.payload_type != PAYLOAD_TYPE {
        return Some(format!("a bundle holds a `{}`", envelope.payload_type));
    }
    let Some(payload) = from_base64(&envelope.payload) else {
        return Some("a bundle's payload is no base64".to_owned());
    };
    let message = pre_authentication(&envelope.payload_type, &payload);
    let is_signed = envelope
        .signatures
        .iter()
        .take(SIGNATURES_MAX)
        .filter_map(|signature| from_base64(&signature.sig))
        .any(|signature| asked.is_signed(&message, &signature));
    if !is_signed {
        return Some("a bundle is signed by none of the keys".to_owned());
    }
    let Ok(statement) = serde_json::from_slice::<Statement>(&payload) else {
        return Some("a signed statement is not understood".to_owned());
    };
    if !STATEMENTS.contains(&statement.kind.as_str()) || statement.predicate_type != PREDICATE {
        return Some(format!(
            "a signed statement is a `{}`",
            statement.predicate_type
        ));
    }
    let is_for_it = statement.subject.iter().any(|subject| {
        let digest = subject.digest.get(asked.digest.algorithm());
        digest.is_some_and(|hex| hex == asked.digest.hex()) && is_named_right(asked, &subject.name)
    });
    (!is_for_it).then(|| "a signed statement is for another image".to_owned())
}

fn is_named_right(asked: &Asked<'_>, name: &str) -> bool {
    let right = |name: &str| match asked.identity {
        Identity::Own => name == asked.name,
        Identity::Any => true,
        Identity::Below(prefix) => is_below(name, prefix),
    };
    name.is_empty()
        || *asked.identity == Identity::Any
        || name
            .parse::<Reference>()
            .is_ok_and(|reference| right(&reference.name()))
}

/// What is signed of an envelope: DSSE's encoding of type and payload.
fn pre_authentication(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    message.extend(payload);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        assert_eq!(
            pre_authentication("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }
}
