//! Manifests and indexes: by tag or digest, checked; and what refers to them.

use crate::answer;
use crate::call::Call;
use crate::client::{FetchedManifest, Repository};
use crate::endpoint::Purpose;
use crate::session::{ANY, Reading, Reply};
use crate::{Error, RateLimit, Result};
use bytes::Bytes;
use gantry_api::digest::Digest;
use gantry_api::oci::image::{Descriptor, Index, media_type};
use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderValue};
use serde::Deserialize;
use sha2::{Digest as _, Sha256, Sha512};

/// A manifest that is larger is refused, as registries refuse it.
const SIZE_MAX: usize = 4 << 20;
const ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
const SCHEMA_1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];
const DIGEST_HEADER: &str = "docker-content-digest";

impl Repository {
    /// Asks for what a tag or digest stands for, without its bytes (HEAD, or GET where HEAD does not serve).
    pub async fn head_manifest(&self, tag_or_digest: &str) -> Result<Option<Descriptor>> {
        let purpose = purpose_of(tag_or_digest);
        let call = self
            .manifest_call(Method::HEAD, tag_or_digest)
            .accepting(&[404, 405]);
        let reply = self.session.fetch(purpose, &call, ANY).await?;
        if reply.status.as_u16() == 404 {
            return Ok(None);
        }
        if let Some(descriptor) = described(&reply)
            && reply.status.is_success()
        {
            return Ok(Some(descriptor));
        }
        match self.manifest(tag_or_digest).await {
            Ok(manifest) => Ok(Some(manifest.descriptor)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches a manifest or an index by tag or digest.
    pub async fn manifest(&self, tag_or_digest: &str) -> Result<FetchedManifest> {
        self.raw_manifest(tag_or_digest).await.map_err(|error| {
            answer::as_pull(error, &self.familiar_name, &self.shown(tag_or_digest))
        })
    }

    /// Fetches a manifest; errors are the registry's own, with status and codes, and not Docker's words for a pull.
    pub async fn raw_manifest(&self, tag_or_digest: &str) -> Result<FetchedManifest> {
        let asked: Option<Digest> = tag_or_digest.parse().ok();
        let check = |reply: &Reply| self.check(reply, tag_or_digest, asked.as_ref());
        let reading = Reading::Whole {
            size_max: SIZE_MAX,
            check: &check,
        };
        let purpose = purpose_of(tag_or_digest);
        let mut call = self.manifest_call(Method::GET, tag_or_digest);
        if purpose == Purpose::Resolve {
            call = call.told_as_head();
        }
        let reply = self.session.fetch(purpose, &call, reading).await?;
        let told: Option<Digest> = reply.header(DIGEST_HEADER).parse().ok();
        let digest = asked
            .or(told)
            .unwrap_or_else(|| Digest::from_sha256(&Sha256::digest(&reply.body).into()));
        let size = reply.body.len() as u64;
        Ok(FetchedManifest {
            descriptor: Descriptor::new(&media_type_of(&reply), digest, size),
            rate_limit: RateLimit::read(&reply.headers),
            bytes: reply.body,
            host: reply.host,
        })
    }

    /// Writes a manifest under a tag or its digest; gives the digest that the registry computed.
    pub async fn put_manifest(
        &self,
        tag_or_digest: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest> {
        let computed = Digest::from_sha256(&Sha256::digest(&bytes).into());
        let path = format!("{}/manifests/{tag_or_digest}", self.path);
        let call = Call::new(Method::PUT, path, self.scopes(Purpose::Push)).body(media_type, bytes);
        let reply = self.session.change(&call).await?;
        let told = reply.header(DIGEST_HEADER);
        if told.is_empty() {
            return Ok(computed);
        }
        let told: Digest = told
            .parse()
            .map_err(|error| Error::Corrupt(format!("digest of the pushed manifest: {error}")))?;
        if told.algorithm() == "sha256" && told != computed {
            return Err(Error::Corrupt(format!(
                "the registry took the manifest {} for {told}, it is {computed}",
                self.shown(tag_or_digest)
            )));
        }
        Ok(told)
    }

    /// Lists what refers to a manifest; falls back to the tag `sha256-HEX` at old registries.
    pub async fn referrers(&self, digest: &Digest, artifact_type: Option<&str>) -> Result<Index> {
        let mut path = format!("{}/referrers/{digest}", self.path);
        if let Some(kind) = artifact_type {
            let mut query = reqwest::Url::parse("query:")
                .map_err(|error| Error::Invalid(format!("encode a query: {error}")))?;
            query.query_pairs_mut().append_pair("artifactType", kind);
            path = format!("{path}?{}", query.query().unwrap_or_default());
        }
        let call = Call::new(Method::GET, path, self.scopes(Purpose::Pull))
            .header(ACCEPT, HeaderValue::from_static(media_type::INDEX))
            .accepting(&[400, 404, 405]);
        let mut index: Option<Index> = None;
        let pages = crate::list::pages(&self.session, Purpose::Resolve, call);
        for page in pages.await? {
            if !page.status.is_success() {
                break;
            }
            let read: Index = serde_json::from_slice(&page.body).map_err(|error| {
                Error::Corrupt(format!("read the referrers of {digest}: {error}"))
            })?;
            match &mut index {
                None => index = Some(read),
                Some(index) => index.manifests.extend(read.manifests),
            }
        }
        let mut index = match index {
            Some(index) => index,
            None => self.fallback_referrers(digest).await?,
        };
        // A registry may leave the filter to us.
        if let Some(kind) = artifact_type {
            index.manifests.retain(|manifest| {
                manifest
                    .extra
                    .get("artifactType")
                    .is_some_and(|it| it == kind)
            });
        }
        Ok(index)
    }

    async fn fallback_referrers(&self, digest: &Digest) -> Result<Index> {
        let tag = format!("{}-{}", digest.algorithm(), digest.hex());
        let bytes = match self.manifest(&tag).await {
            Ok(manifest) if media_type::is_index(&manifest.descriptor.media_type) => manifest.bytes,
            Ok(_) | Err(Error::NotFound(_)) => Bytes::from_static(
                br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#,
            ),
            Err(error) => return Err(error),
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::Corrupt(format!("read the referrers of {digest}: {error}")))
    }

    /// Deletes a manifest, or a tag where the registry can.
    pub async fn delete_manifest(&self, tag_or_digest: &str) -> Result<()> {
        self.delete(format!("{}/manifests/{tag_or_digest}", self.path))
            .await
    }

    /// Deletes a blob.
    pub async fn delete_blob(&self, digest: &Digest) -> Result<()> {
        self.delete(format!("{}/blobs/{digest}", self.path)).await
    }

    async fn delete(&self, path: String) -> Result<()> {
        let scopes = vec![
            format!("repository:{}:pull,push", self.path),
            format!("repository:{}:delete", self.path),
        ];
        let call = Call::new(Method::DELETE, path, scopes);
        self.session.change(&call).await?;
        Ok(())
    }

    fn manifest_call(&self, method: Method, tag_or_digest: &str) -> Call {
        let path = format!("{}/manifests/{tag_or_digest}", self.path);
        [
            media_type::MANIFEST,
            media_type::INDEX,
            media_type::DOCKER_MANIFEST,
            media_type::DOCKER_LIST,
            ARTIFACT,
            "*/*;q=0.1",
        ]
        .into_iter()
        .fold(
            Call::new(method, path, self.scopes(Purpose::Pull)),
            |call, kind| call.header(ACCEPT, HeaderValue::from_static(kind)),
        )
    }

    /// Checks that a manifest is what was asked for and what the registry calls it.
    fn check(&self, reply: &Reply, shown: &str, asked: Option<&Digest>) -> Result<()> {
        let shown = || self.shown(shown);
        // Its digest is that of its bytes without the signatures, so it is not compared first.
        let kind = media_type_of(reply);
        if SCHEMA_1.contains(&kind.as_str()) {
            return Err(Error::Invalid(format!(
                "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. Suggest the author of {} to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2. More information at https://docs.docker.com/go/deprecated-image-specs/",
                shown()
            )));
        }
        let told = reply.header(DIGEST_HEADER);
        let told: Option<Digest> = match told {
            "" => None,
            text => Some(text.parse().map_err(|error| {
                Error::Corrupt(format!("digest of the manifest {}: {error}", shown()))
            })?),
        };
        for expected in [asked, told.as_ref()].into_iter().flatten() {
            let computed = digest_as(expected, &reply.body).ok_or_else(|| {
                Error::Invalid(format!(
                    "digest of the manifest {}: unsupported digest algorithm",
                    shown()
                ))
            })?;
            if &computed != expected {
                return Err(Error::Corrupt(format!(
                    "manifest verification failed for digest {expected}"
                )));
            }
        }
        Ok(())
    }
}

fn purpose_of(tag_or_digest: &str) -> Purpose {
    if tag_or_digest.contains(':') {
        Purpose::Pull
    } else {
        Purpose::Resolve
    }
}

/// Hashes as `like` is hashed; `None` for an algorithm that is not known.
pub(crate) fn digest_as(like: &Digest, bytes: &[u8]) -> Option<Digest> {
    match like.algorithm() {
        "sha256" => Some(Digest::from_sha256(&Sha256::digest(bytes).into())),
        "sha512" => {
            let hash = Sha512::digest(bytes);
            let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("sha512:{hex}").parse().ok()
        }
        _ => None,
    }
}

/// Reads a HEAD's answer, if it tells all that a descriptor needs.
fn described(reply: &Reply) -> Option<Descriptor> {
    let digest = reply.header(DIGEST_HEADER).parse().ok()?;
    let size = reply.header("content-length").parse().ok()?;
    let kind = content_type(reply);
    (!kind.is_empty()).then(|| Descriptor::new(kind, digest, size))
}

fn content_type(reply: &Reply) -> &str {
    let kind = reply.header("content-type");
    kind.split(';').next().unwrap_or_default().trim()
}

/// Gives a manifest's media type: what its bytes say counts before what the registry says.
fn media_type_of(reply: &Reply) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        #[serde(default)]
        schema_version: u32,
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        config: Option<serde::de::IgnoredAny>,
    }
    let told = content_type(reply);
    let Ok(head) = serde_json::from_slice::<Head>(&reply.body) else {
        return told.to_owned();
    };
    match head {
        Head {
            media_type: Some(kind),
            ..
        } if !kind.is_empty() => kind,
        Head {
            schema_version: 1, ..
        } => SCHEMA_1[0].to_owned(),
        _ if media_type::is_index(told) || media_type::is_manifest(told) => told.to_owned(),
        Head {
            manifests: Some(_), ..
        } => media_type::INDEX.to_owned(),
        Head {
            config: Some(_), ..
        } => media_type::MANIFEST.to_owned(),
        _ => told.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_computed_by_their_algorithm() {
        let empty = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";
        let digest: Digest = empty.parse().expect("a digest");
        assert_eq!(digest_as(&digest, b"").as_ref(), Some(&digest));
        assert_ne!(digest_as(&digest, b"x").as_ref(), Some(&digest));
    }
}
