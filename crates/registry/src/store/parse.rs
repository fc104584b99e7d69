//! What a manifest says of other content. Pure.

use crate::error::{Code, Error, Result};
use gantry_api::digest::Digest;
use gantry_api::oci::image::{Descriptor, media_type};
use serde_json::{Map, Value, json};

/// Is a manifest, an index, or a manifest of a kind that is not known, as far as a registry reads it.
#[derive(Clone, Debug)]
pub struct Parsed {
    pub media_type: String,
    pub subject: Option<Digest>,
    pub artifact_type: Option<String>,
    pub annotations: Map<String, Value>,
    /// Configuration, layers and other blobs; those that need not be here are marked.
    pub blobs: Vec<Part>,
    /// The manifests of an index.
    pub manifests: Vec<Digest>,
}

/// Is a blob that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub digest: Digest,
    /// Whether the repository must have it: not what may not be distributed, nor what is embedded.
    pub is_needed: bool,
}

impl Parsed {
    /// Reads a manifest that came with a content type.
    ///
    /// # Errors
    /// [`Code::ManifestInvalid`] for what is no JSON object, contradicts its content type, has not its shape, or has a
    /// broken descriptor.
    pub fn read(content_type: Option<&str>, bytes: &[u8]) -> Result<Self> {
        let object: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| invalid(format!("it is no JSON object: {error}")))?;
        let own_type = text(&object, "mediaType")?;
        // Parameters say nothing here.
        let content_type = content_type
            .map(|text| text.split(';').next().unwrap_or_default().trim())
            .filter(|text| !text.is_empty());
        let media_type = match (content_type, own_type) {
            (Some(sent), Some(own)) if sent != own => {
                return Err(invalid(format!(
                    "its media type is `{own}`, and it was sent as `{sent}`"
                )));
            }
            (Some(sent), _) => sent.to_owned(),
            (None, Some(own)) => own.to_owned(),
            (None, None) if object.contains_key("manifests") => media_type::INDEX.to_owned(),
            (None, None) => media_type::MANIFEST.to_owned(),
        };
        if media_type.starts_with("application/vnd.docker.distribution.manifest.v1") {
            return Err(invalid("schema version 1 is not supported"));
        }
        check_shape(&media_type, &object)?;
        let mut blobs = Vec::new();
        for descriptor in descriptors(&object, "config")?
            .into_iter()
            .chain(descriptors(&object, "layers")?)
            .chain(descriptors(&object, "blobs")?)
        {
            blobs.push(part(&descriptor)?);
        }
        let manifests = descriptors(&object, "manifests")?
            .into_iter()
            .map(|descriptor| supported(descriptor.digest))
            .collect::<Result<_>>()?;
        let subject = descriptors(&object, "subject")?
            .into_iter()
            .next()
            .map(|descriptor| supported(descriptor.digest))
            .transpose()?;
        // Of a manifest without one, the configuration's type says what kind of artifact it is.
        let artifact_type = match text(&object, "artifactType")? {
            Some(text) if !text.is_empty() => Some(text.to_owned()),
            _ if media_type::is_index(&media_type) => None,
            _ => object
                .get("config")
                .and_then(|config| config.get("mediaType"))
                .and_then(Value::as_str)
                .map(str::to_owned),
        };
        let annotations = match object.get("annotations") {
            Some(Value::Object(map)) => map.clone(),
            None | Some(Value::Null) => Map::new(),
            Some(_) => return Err(invalid("`annotations` is no object")),
        };
        Ok(Self {
            media_type,
            subject,
            artifact_type,
            annotations,
            blobs,
            manifests,
        })
    }

    /// Gives all content that this keeps alive.
    pub fn references(&self) -> impl Iterator<Item = &Digest> {
        self.blobs
            .iter()
            .map(|part| &part.digest)
            .chain(&self.manifests)
    }

    /// Gives the descriptor by which [`Parsed::subject`]'s referrers list this.
    pub fn descriptor(&self, digest: &Digest, size: usize) -> Value {
        let mut descriptor = json!({
            "mediaType": self.media_type,
            "digest": digest,
            "size": size,
        });
        if let Some(artifact_type) = &self.artifact_type {
            descriptor["artifactType"] = json!(artifact_type);
        }
        if !self.annotations.is_empty() {
            descriptor["annotations"] = Value::Object(self.annotations.clone());
        }
        descriptor
    }
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::new(Code::ManifestInvalid, json!({ "reason": reason.into() }))
}

/// Refuses what has not the members that its media type promises.
///
/// Layers may be missing and `schemaVersion` too, as clients leave them out. Of a kind that is not known the members
/// are its own affair, but it must say something.
fn check_shape(media_type: &str, object: &Map<String, Value>) -> Result<()> {
    let (is_manifest, is_index) = (
        media_type::is_manifest(media_type),
        media_type::is_index(media_type),
    );
    if object.is_empty() && !is_manifest && !is_index {
        return Err(invalid("it is empty"));
    }
    if !is_manifest && !is_index {
        return Ok(());
    }
    if object
        .get("schemaVersion")
        .is_some_and(|version| version.as_u64() != Some(2))
    {
        return Err(invalid("its `schemaVersion` is not 2"));
    }
    if is_manifest {
        if !object.get("config").is_some_and(Value::is_object) {
            return Err(invalid("it has no `config`"));
        }
        // A list that is null is how Go writes one without members.
        if object
            .get("layers")
            .is_some_and(|layers| !layers.is_array() && !layers.is_null())
        {
            return Err(invalid("`layers` is no list"));
        }
        if object.contains_key("manifests") {
            return Err(invalid("a manifest has no `manifests`"));
        }
    } else {
        // Null as well, for the same reason.
        if !object
            .get("manifests")
            .is_some_and(|manifests| manifests.is_array() || manifests.is_null())
        {
            return Err(invalid("it has no `manifests`"));
        }
        if object.contains_key("config") || object.contains_key("layers") {
            return Err(invalid("an index has no `config` and no `layers`"));
        }
    }
    Ok(())
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(format!("`{key}` is no text"))),
    }
}

/// Reads a member that is a descriptor or a list of them.
fn descriptors(object: &Map<String, Value>, key: &str) -> Result<Vec<Descriptor>> {
    let read = |value: &Value| {
        serde_json::from_value(value.clone()).map_err(|error| invalid(format!("`{key}`: {error}")))
    };
    match object.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(read).collect(),
        Some(value) => Ok(vec![read(value)?]),
    }
}

fn supported(digest: Digest) -> Result<Digest> {
    crate::name::digest(digest.as_str())
}

fn part(descriptor: &Descriptor) -> Result<Part> {
    let type_name = &descriptor.media_type;
    let is_foreign = type_name.contains(".nondistributable.")
        || type_name.contains(".foreign.")
        || descriptor
            .extra
            .get("urls")
            .and_then(Value::as_array)
            .is_some_and(|urls| !urls.is_empty());
    let is_embedded = descriptor
        .extra
        .get("data")
        .and_then(Value::as_str)
        .is_some_and(|data| is_content(data, &descriptor.digest));
    Ok(Part {
        digest: supported(descriptor.digest.clone())?,
        is_needed: !is_foreign && !is_embedded,
    })
}

/// Tells whether embedded data is the content that its descriptor names.
fn is_content(data: &str, digest: &Digest) -> bool {
    use base64::Engine as _;
    let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(data) else {
        return false;
    };
    crate::hash::Algorithm::by_name(digest.algorithm())
        .is_some_and(|algorithm| crate::hash::digest_of(algorithm, &bytes) == *digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{Algorithm, digest_of};

    fn descriptor(type_name: &str, content: &[u8]) -> Value {
        json!({"mediaType": type_name, "digest": digest_of(Algorithm::Sha256, content), "size": content.len()})
    }

    fn read(content_type: Option<&str>, value: &Value) -> Result<Parsed> {
        Parsed::read(content_type, &serde_json::to_vec(value).unwrap())
    }

    #[test]
    fn an_image_names_its_blobs_and_its_kind() {
        let mut layer = descriptor(media_type::LAYER_GZIP, b"layer");
        let mut foreign = descriptor(
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            b"foreign",
        );
        foreign["urls"] = json!(["https://example.com/x"]);
        let mut embedded = descriptor("application/x", b"{}");
        embedded["data"] = json!("e30=");
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST,
            "config": descriptor("application/vnd.example", b"config"),
            "layers": [layer, foreign, embedded],
            "annotations": {"a": "b"},
            "subject": descriptor(media_type::MANIFEST, b"subject")});
        let parsed = read(
            Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
            &manifest,
        )
        .unwrap();
        assert_eq!(parsed.media_type, media_type::MANIFEST);
        assert_eq!(
            parsed.artifact_type.as_deref(),
            Some("application/vnd.example")
        );
        assert_eq!(
            parsed.subject,
            Some(digest_of(Algorithm::Sha256, b"subject"))
        );
        let needed: Vec<bool> = parsed.blobs.iter().map(|part| part.is_needed).collect();
        assert_eq!(needed, [true, true, false, false]);
        let shown = parsed.descriptor(&digest_of(Algorithm::Sha512, b"x"), 7);
        assert_eq!(shown["annotations"]["a"], "b");
        assert_eq!(shown["artifactType"], "application/vnd.example");
        // Embedded data that is something else does not stand for the blob.
        layer = descriptor("application/x", b"{}");
        layer["data"] = json!("e31=");
        let manifest = json!({"config": layer});
        assert!(read(None, &manifest).unwrap().blobs[0].is_needed);
    }

    #[test]
    fn an_index_names_manifests_and_other_kinds_are_taken_as_they_are() {
        let index =
            json!({"schemaVersion": 2, "manifests": [descriptor(media_type::MANIFEST, b"m")]});
        let parsed = read(None, &index).unwrap();
        assert_eq!(parsed.media_type, media_type::INDEX);
        assert_eq!(parsed.manifests, [digest_of(Algorithm::Sha256, b"m")]);
        assert_eq!(parsed.artifact_type, None);
        let odd = json!({"schemaVersion": 7, "blobs": [descriptor("x", b"b")]});
        let parsed = read(Some("application/vnd.odd+json"), &odd).unwrap();
        assert_eq!(parsed.media_type, "application/vnd.odd+json");
        assert_eq!(parsed.references().count(), 1);
    }

    #[test]
    fn broken_manifests_are_refused() {
        let config = descriptor("x", b"c");
        for (content_type, value) in [
            (None, json!([])),
            (None, json!({})),
            (Some(media_type::INDEX), json!({"config": config})),
            (
                Some(media_type::INDEX),
                json!({"mediaType": media_type::MANIFEST, "config": config}),
            ),
            (None, json!({"config": {"digest": "sha256:x", "size": 1}})),
            (None, json!({"config": {"digest": config["digest"]}})),
            (None, json!({"config": config, "layers": ["x"]})),
            (None, json!({"config": config, "annotations": 7})),
            // What says nothing is no manifest, under whatever type it comes.
            (Some("application/json"), json!({})),
            (Some(media_type::MANIFEST), json!({"config": null})),
            (
                Some(media_type::MANIFEST),
                json!({"config": [], "layers": []}),
            ),
            (
                Some(media_type::MANIFEST),
                json!({"config": [config, config]}),
            ),
            (
                Some(media_type::MANIFEST),
                json!({"config": config, "layers": config}),
            ),
            (
                Some(media_type::MANIFEST),
                json!({"schemaVersion": 1, "config": config, "layers": []}),
            ),
            (
                Some(media_type::MANIFEST),
                json!({"schemaVersion": "2", "config": config}),
            ),
            (
                Some(media_type::MANIFEST),
                json!({"config": config, "manifests": []}),
            ),
            (Some(media_type::INDEX), json!({"manifests": config})),
            (
                Some(media_type::INDEX),
                json!({"manifests": [], "layers": []}),
            ),
            (
                Some(media_type::INDEX),
                json!({"schemaVersion": 3, "manifests": []}),
            ),
            (None, json!({"config": config, "artifactType": 7})),
            (
                Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
                json!({"schemaVersion": 1}),
            ),
        ] {
            let error = read(content_type, &value).unwrap_err();
            assert_eq!(error.code, Code::ManifestInvalid, "{value}");
        }
        assert!(Parsed::read(None, b"not json").is_err());
    }
}
