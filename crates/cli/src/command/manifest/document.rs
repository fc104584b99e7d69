//! The JSON of manifests and lists. Docker writes the members in the order of its types, and a digest depends on it.

use crate::failure::{Failure, Outcome};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_api::digest::Digest;
use gantry_api::oci::image::media_type;
use gantry_api::platform::Platform;
use gantry_api::reference::Reference;
use serde::{Deserialize, Serialize};
use serde_json::ser::PrettyFormatter;
use serde_json::{Map, Serializer, Value};

/// One manifest of a list, as the local store keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageManifest {
    #[serde(rename = "Ref")]
    pub reference: String,
    #[serde(rename = "Descriptor")]
    pub descriptor: Descriptor,
    /// The manifest's bytes in base64.
    #[serde(rename = "Raw")]
    pub raw: String,
    #[serde(
        rename = "SchemaV2Manifest",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub schema2: Option<Value>,
    #[serde(
        rename = "OCIManifest",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub oci: Option<Value>,
}

/// Where a manifest is and what runs it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// The members of Docker's and of OCI's types, in order.
const DOCKER_MANIFEST: [&str; 4] = ["schemaVersion", "mediaType", "config", "layers"];
const DOCKER_DESCRIPTOR: [&str; 4] = ["mediaType", "size", "digest", "urls"];
const OCI_MANIFEST: [&str; 7] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "subject",
    "annotations",
];
const OCI_DESCRIPTOR: [&str; 8] = [
    "mediaType",
    "digest",
    "size",
    "urls",
    "annotations",
    "data",
    "platform",
    "artifactType",
];

impl ImageManifest {
    /// Takes a manifest's bytes.
    pub fn new(reference: String, descriptor: Descriptor, bytes: &[u8]) -> Outcome<ImageManifest> {
        let parsed: Value = serde_json::from_slice(bytes)
            .map_err(|error| Failure::new(format!("invalid manifest of {reference}: {error}")))?;
        let is_docker = descriptor.media_type == media_type::DOCKER_MANIFEST;
        let (members, within): (&[&str], &[&str]) = match is_docker {
            true => (&DOCKER_MANIFEST, &DOCKER_DESCRIPTOR),
            false => (&OCI_MANIFEST, &OCI_DESCRIPTOR),
        };
        let mut ordered = in_order(&parsed, members);
        for name in ["config", "subject"] {
            if let Some(member) = ordered.get_mut(name) {
                *member = in_order(member, within);
            }
        }
        if let Some(Value::Array(layers)) = ordered.get_mut("layers") {
            for layer in layers {
                *layer = in_order(layer, within);
            }
        }
        let (schema2, oci) = match is_docker {
            true => (Some(ordered), None),
            false => (None, Some(ordered)),
        };
        Ok(ImageManifest {
            reference,
            descriptor,
            raw: STANDARD.encode(bytes),
            schema2,
            oci,
        })
    }

    /// Returns the manifest's own bytes.
    pub fn bytes(&self) -> Outcome<Vec<u8>> {
        STANDARD.decode(&self.raw).map_err(|error| {
            Failure::new(format!("stored manifest of {}: {error}", self.reference))
        })
    }

    /// Returns the descriptors of the blobs.
    pub fn blobs(&self) -> Vec<gantry_api::oci::image::Descriptor> {
        let Some(manifest) = self.schema2.as_ref().or(self.oci.as_ref()) else {
            return Vec::new();
        };
        let layers = manifest["layers"].as_array().into_iter().flatten();
        std::iter::once(&manifest["config"])
            .chain(layers)
            .filter_map(|blob| serde_json::from_value(blob.clone()).ok())
            .collect()
    }
}

/// Keeps the named members of an object, in this order.
fn in_order(value: &Value, members: &[&str]) -> Value {
    let pairs = members
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), value.get(name)?.clone())));
    Value::Object(pairs.collect::<Map<_, _>>())
}

/// Writes JSON over several lines.
pub fn indented<T: Serialize>(value: &T, indent: &[u8]) -> Outcome<String> {
    let mut out = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(
            &mut out,
            PrettyFormatter::with_indent(indent),
        ))
        .map_err(|error| Failure::new(error.to_string()))?;
    String::from_utf8(out).map_err(|error| Failure::new(error.to_string()))
}

/// Writes what `inspect` shows of one manifest: its own JSON, or all that is known of it.
pub fn shown(manifest: &ImageManifest, verbose: bool) -> Outcome<String> {
    if verbose {
        return indented(manifest, b"\t");
    }
    let own: Value = serde_json::from_slice(&manifest.bytes()?)
        .map_err(|error| Failure::new(error.to_string()))?;
    indented(&own, b"\t")
}

/// Writes a list for its registry; gives its media type and its text.
pub fn list(target: &Reference, manifests: &[ImageManifest]) -> Outcome<(&'static str, String)> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct List<'a> {
        schema_version: u8,
        media_type: &'static str,
        manifests: Vec<Entry<'a>>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Entry<'a> {
        media_type: &'a str,
        size: u64,
        digest: &'a Digest,
        platform: &'a Platform,
    }
    let mut entries = Vec::new();
    for manifest in manifests {
        let source: Reference = manifest.reference.parse().map_err(
            |error: gantry_api::reference::ReferenceError| Failure::new(error.to_string()),
        )?;
        if source.domain() != target.domain() {
            return Err(Failure::new(format!(
                "cannot use source images from a different registry than the target image: {} != {}",
                source.domain(),
                target.domain()
            )));
        }
        let descriptor = &manifest.descriptor;
        let platform = descriptor
            .platform
            .as_ref()
            .filter(|platform| !platform.os.is_empty() && !platform.architecture.is_empty())
            .ok_or_else(|| {
                Failure::new(format!(
                    "manifest {} must have an OS and Architecture to be pushed to a registry",
                    manifest.reference
                ))
            })?;
        entries.push(Entry {
            media_type: &descriptor.media_type,
            size: descriptor.size,
            digest: &descriptor.digest,
            platform,
        });
    }
    // The first manifest decides, as in Docker.
    let media_type = match entries.first() {
        Some(entry) if entry.media_type == media_type::MANIFEST => media_type::INDEX,
        _ => media_type::DOCKER_LIST,
    };
    let list = List {
        schema_version: 2,
        media_type,
        manifests: entries,
    };
    Ok((media_type, indented(&list, b"   ")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","size":3,"mediaType":"c"},"layers":[]}"#;

    fn manifest(reference: &str) -> ImageManifest {
        let descriptor = Descriptor {
            media_type: media_type::DOCKER_MANIFEST.to_owned(),
            digest: "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
                .parse()
                .expect("digest"),
            size: RAW.len() as u64,
            platform: Some(Platform::new("linux", "arm64", "v8")),
        };
        ImageManifest::new(reference.to_owned(), descriptor, RAW.as_bytes()).expect("manifest")
    }

    #[test]
    fn members_are_in_dockers_order_and_raw_stays() {
        let manifest = manifest("r.example/a:1");
        assert_eq!(
            serde_json::to_string(&manifest.schema2).expect("JSON"),
            r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":"c","size":3,"digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},"layers":[]}"#
        );
        assert_eq!(manifest.bytes().expect("bytes"), RAW.as_bytes());
        assert_eq!(manifest.blobs().len(), 1);
    }

    #[test]
    fn a_list_is_of_one_registry_and_has_dockers_form() {
        let target: Reference = "r.example/list:1".parse().expect("reference");
        let (kind, text) = list(&target, &[manifest("r.example/a:1")]).expect("list");
        assert_eq!(kind, media_type::DOCKER_LIST);
        assert!(
            text.starts_with("{\n   \"schemaVersion\": 2,\n   \"mediaType\": ")
                && text.contains(&format!("\"size\": {},\n         \"digest\"", RAW.len())),
            "{text}"
        );
        let other = list(&target, &[manifest("s.example/a:1")]).expect_err("another registry");
        assert_eq!(
            other.text,
            "cannot use source images from a different registry than the target image: s.example != r.example"
        );
    }
}
