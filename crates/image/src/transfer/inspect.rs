//! Asks a registry what a reference stands for, without pulling it.

use super::Transfers;
use crate::error::{Error, Result};
use crate::store::parse_config;
use gantry_api::oci::image::{Descriptor, Index, Manifest, media_type};
use gantry_api::platform::Platform;
use gantry_api::reference::Reference;
use gantry_distribution::{Credentials, Repository};

/// Is the largest configuration that is read into memory.
pub(crate) const CONFIG_BYTES_MAX: u64 = 16 << 20;

impl Transfers {
    /// Gives the descriptor of what a reference stands for, and the platforms that it has.
    pub async fn inspect(
        &self,
        reference: &Reference,
        credentials: Credentials,
    ) -> Result<(Descriptor, Vec<Platform>)> {
        let reference = reference.clone().or_latest();
        let repository = self.registries()?.repository(&reference, credentials);
        let asked = asked(&reference);
        // As Docker does: the words for what is not there are the registry's, without a name.
        let head = repository.head_manifest(&asked).await?;
        let head =
            head.ok_or_else(|| Error::NotFound("manifest unknown: manifest unknown".to_owned()))?;
        let fetched = repository.manifest(head.digest.as_str()).await?;
        let platforms = if media_type::is_index(&fetched.descriptor.media_type) {
            let index: Index = parse("index", &fetched.bytes)?;
            let manifests = index.manifests.into_iter();
            manifests.filter_map(|one| one.platform).collect()
        } else {
            let manifest: Manifest = parse("manifest", &fetched.bytes)?;
            if media_type::is_config(&manifest.config.media_type) {
                let raw = small_blob(&repository, &manifest.config).await?;
                vec![parse_config(&raw)?.platform()]
            } else {
                Vec::new()
            }
        };
        Ok((fetched.descriptor, platforms))
    }
}

/// Gives what a registry is asked for: the digest, where there is one, else the tag.
pub(crate) fn asked(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    }
}

/// Parses the JSON of a registry.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::invalid(format!("invalid {what} of the registry: {error}")))
}

/// Fetches a blob that is kept in memory, and checks its digest.
pub(crate) async fn small_blob(
    repository: &Repository,
    descriptor: &Descriptor,
) -> Result<Vec<u8>> {
    let Descriptor { digest, size, .. } = descriptor;
    if *size > CONFIG_BYTES_MAX {
        return Err(Error::invalid(format!(
            "`{digest}` has {size} bytes, which is too much for an image's configuration"
        )));
    }
    match repository.whole_blob(descriptor).await {
        Err(gantry_distribution::Error::Corrupt(_)) => Err(Error::invalid(format!(
            "image config verification failed for digest {digest}"
        ))),
        other => Ok(other?),
    }
}
