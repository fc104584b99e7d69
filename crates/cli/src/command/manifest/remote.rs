//! What a registry has of a name, and what it is given. The client's own credentials are used.

use super::document::{Descriptor, ImageManifest};
use crate::cli::Cli;
use crate::failure::{Failure, Outcome};
use gantry_api::digest::Digest;
use gantry_api::oci::image::{Index, media_type};
use gantry_api::platform::Platform;
use gantry_api::reference::Reference;
use gantry_client::credentials;
use gantry_distribution::{
    Config, Credentials, Error, FetchedManifest, Insecure, Mounted, Proxies, Registries, Repository,
};
use std::time::Duration;

/// The longest configuration of an image that is read for its platform.
const CONFIG_BYTES_MAX: u64 = 16 << 20;
/// Tries of one request.
const ATTEMPTS_MAX: u32 = 3;
/// How long a registry may stay silent within an answer.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Directories with the certificates of registries.
const CERTS_DIRS: [&str; 2] = ["/etc/gantry/certs.d", "/etc/docker/certs.d"];

/// A client of registries.
pub struct Remote {
    registries: Registries,
}

/// What a name stands for.
pub enum Found {
    Image(Box<ImageManifest>),
    List(Vec<ImageManifest>),
}

impl Remote {
    /// Makes a client that may speak to the registries of `references` without TLS if `insecure`.
    pub fn new(references: &[&Reference], insecure: bool) -> Outcome<Remote> {
        let variable = |names: [&str; 2]| {
            let mut values = names
                .into_iter()
                .filter_map(|name| std::env::var(name).ok());
            values.find(|value| !value.is_empty())
        };
        let hosts = references.iter().filter(|_| insecure);
        let config = Config {
            hub_mirrors: Vec::new(),
            insecure: hosts
                .map(|reference| Insecure::Host(reference.domain().to_owned()))
                .collect(),
            certs_dirs: CERTS_DIRS.map(Into::into).to_vec(),
            proxies: Proxies {
                http: variable(["HTTP_PROXY", "http_proxy"]),
                https: variable(["HTTPS_PROXY", "https_proxy"]),
                no_proxy: variable(["NO_PROXY", "no_proxy"]).unwrap_or_default(),
            },
            attempts_max: ATTEMPTS_MAX,
            stall_timeout: STALL_TIMEOUT,
            user_agent: format!(
                "Docker-Client/{} (linux) gantry/{}",
                crate::DOCKER_VERSION,
                crate::GANTRY_VERSION
            ),
        };
        let registries = Registries::new(config).map_err(failure)?;
        Ok(Remote { registries })
    }

    /// Gives the client itself.
    pub fn registries(&self) -> &Registries {
        &self.registries
    }

    /// Gives the repository of a name, for the user who is logged in there.
    pub fn repository(&self, cli: &Cli, reference: &Reference) -> Repository {
        let credentials = Remote::credentials(cli, reference.domain());
        self.registries.repository(reference, credentials)
    }

    /// Gives who the user is for a registry.
    pub fn credentials(cli: &Cli, domain: &str) -> Credentials {
        let server = credentials::server_key(domain);
        let auth = cli.credentials(server).unwrap_or_default();
        Credentials {
            username: auth.username,
            password: auth.password,
            identity_token: auth.identitytoken,
            registry_token: auth.registrytoken,
        }
    }

    /// Asks what a name stands for.
    pub async fn get(&self, cli: &Cli, reference: &Reference) -> Outcome<Found> {
        let repository = self.repository(cli, reference);
        let fetched = fetch(&repository, reference).await?;
        if !media_type::is_index(&fetched.descriptor.media_type) {
            let manifest = image(&repository, reference, fetched, None).await?;
            return Ok(Found::Image(Box::new(manifest)));
        }
        let index: Index = parse(reference, &fetched.bytes)?;
        let mut manifests = Vec::new();
        for entry in index.manifests {
            // The name keeps its tag beside the digest.
            let one: Reference = format!("{}@{}", without_digest(reference), entry.digest)
                .parse()
                .map_err(|error: gantry_api::reference::ReferenceError| {
                    Failure::new(error.to_string())
                })?;
            let fetched = fetch(&repository, &one).await?;
            manifests.push(image(&repository, &one, fetched, entry.platform).await?);
        }
        Ok(Found::List(manifests))
    }

    /// Gives the target's repository a manifest of another one of the same registry, with its blobs.
    pub async fn copy(
        &self,
        cli: &Cli,
        source: &Reference,
        target: &Reference,
        manifest: &ImageManifest,
    ) -> Outcome<(Reference, Digest)> {
        let (from, to) = (self.repository(cli, source), self.repository(cli, target));
        for blob in manifest.blobs() {
            let mounted = to
                .mount(&blob.digest, source.path())
                .await
                .map_err(failure)?;
            let Mounted::Upload(mut upload) = mounted else {
                continue;
            };
            let mut reader = from.blob(&blob, 0).await.map_err(failure)?;
            while let Some(piece) = reader.next().await.map_err(failure)? {
                upload.send(piece).await.map_err(failure)?;
            }
            upload.commit(&blob.digest).await.map_err(failure)?;
        }
        let descriptor = &manifest.descriptor;
        let digest = to
            .put_manifest(
                descriptor.digest.as_str(),
                &descriptor.media_type,
                manifest.bytes()?.into(),
            )
            .await
            .map_err(failure)?;
        let reference = target.clone().with_digest(descriptor.digest.clone());
        Ok((reference, digest))
    }

    /// Gives a list to its registry.
    pub async fn put(
        &self,
        cli: &Cli,
        target: &Reference,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Outcome<Digest> {
        self.repository(cli, target)
            .put_manifest(&asked(target), media_type, bytes.into())
            .await
            .map_err(failure)
    }
}

/// Returns the name with its tag alone.
fn without_digest(reference: &Reference) -> String {
    match reference.tag() {
        Some(tag) => format!("{}:{tag}", reference.name()),
        None => reference.name(),
    }
}

fn asked(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    }
}

fn failure(error: Error) -> Failure {
    Failure::new(error.to_string())
}

async fn fetch(repository: &Repository, reference: &Reference) -> Outcome<FetchedManifest> {
    match repository.manifest(&asked(reference)).await {
        Ok(fetched) => Ok(fetched),
        Err(Error::NotFound(_)) => Err(Failure::new(format!(
            "no such manifest: {}",
            reference.canonical()
        ))),
        Err(error) => Err(failure(error)),
    }
}

fn parse<T: serde::de::DeserializeOwned>(reference: &Reference, bytes: &[u8]) -> Outcome<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        Failure::new(format!(
            "invalid manifest of {}: {error}",
            reference.canonical()
        ))
    })
}

/// Makes the entry of a manifest; its platform is in its configuration where no list tells it.
async fn image(
    repository: &Repository,
    reference: &Reference,
    fetched: FetchedManifest,
    platform: Option<Platform>,
) -> Outcome<ImageManifest> {
    let descriptor = Descriptor {
        media_type: fetched.descriptor.media_type.clone(),
        digest: fetched.descriptor.digest.clone(),
        size: fetched.descriptor.size,
        platform: None,
    };
    let mut manifest = ImageManifest::new(reference.canonical(), descriptor, &fetched.bytes)?;
    manifest.descriptor.platform = match platform {
        Some(platform) => Some(platform),
        None => configured(repository, reference, &manifest).await?,
    };
    Ok(manifest)
}

async fn configured(
    repository: &Repository,
    reference: &Reference,
    manifest: &ImageManifest,
) -> Outcome<Option<Platform>> {
    let Some(config) = manifest.blobs().into_iter().next() else {
        return Ok(None);
    };
    if !media_type::is_config(&config.media_type) {
        return Ok(None);
    }
    if config.size > CONFIG_BYTES_MAX {
        return Err(Failure::new(format!(
            "the configuration of {} has {} bytes, which is too much",
            reference.canonical(),
            config.size
        )));
    }
    let bytes = repository.whole_blob(&config).await.map_err(failure)?;
    parse(reference, &bytes).map(Some)
}
