//! Signatures under the tag `sha256-HEX.sig`: an image whose layers are payloads of simple signing, each with its
//! signature as an annotation.

use super::policy::{Identity, is_below};
use super::{Asked, Found, SIGNATURES_MAX, from_base64, manifest_if_any, payload};
use crate::Result;
use gantry_api::oci::image::Manifest;
use gantry_api::reference::Reference;
use serde::Deserialize;

const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
const PAYLOAD_TYPE: &str = "cosign container image signature";

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    identity: Named,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Looks for a signature that counts.
pub(super) async fn find(asked: &Asked<'_>, found: &mut Found) -> Result<bool> {
    let digest = asked.digest;
    let tag = format!("{}-{}.sig", digest.algorithm(), digest.hex());
    let Some(manifest) = manifest_if_any(asked.repository, &tag).await? else {
        return Ok(false);
    };
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&manifest.bytes) else {
        found.refuse(format!("`{tag}` is no manifest"));
        return Ok(false);
    };
    for layer in manifest.layers.iter().take(SIGNATURES_MAX) {
        let Some(signature) = layer.annotations.get(ANNOTATION) else {
            continue;
        };
        if layer.media_type != MEDIA_TYPE {
            continue;
        }
        let Some(signature) = from_base64(signature) else {
            found.refuse("a signature is no base64");
            continue;
        };
        let payload = payload(asked.repository, layer).await?;
        if !asked.is_signed(&payload, &signature) {
            found.refuse("a signature is by none of the keys");
            continue;
        }
        // Only now are the payload's words those of somebody who is trusted.
        match complaint(asked, &payload) {
            None => return Ok(true),
            Some(complaint) => found.refuse(complaint),
        }
    }
    Ok(false)
}

/// Says why a payload is not for this image.
fn complaint(asked: &Asked<'_>, payload: &[u8]) -> Option<String> {
    let Ok(Payload { critical }) = serde_json::from_slice(payload) else {
        return Some("a signed payload is not understood".to_owned());
    };
    if critical.kind != PAYLOAD_TYPE {
        return Some(format!("a signed payload is a `{}`", critical.kind));
    }
    if critical.image.digest != asked.digest.as_str() {
        return Some(format!("a signature is for {}", critical.image.digest));
    }
    let is_right = match asked.identity {
        Identity::Any => true,
        identity => critical
            .identity
            .reference
            .parse::<Reference>()
            .is_ok_and(|reference| match identity {
                Identity::Below(prefix) => is_below(&reference.name(), prefix),
                _ => reference.name() == asked.name,
            }),
    };
    (!is_right).then(|| format!("a signature is for `{}`", critical.identity.reference))
}
