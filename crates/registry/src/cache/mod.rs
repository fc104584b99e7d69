//! A cache of other registries: what is asked for is fetched once, kept, and given out also while they do not answer.
//!
//! The repositories of an upstream lie below its name: `docker.io/library/busybox`. They are asked for by that path, by
//! `?ns=docker.io` as containerd's mirrors do, or by their plain name where one upstream is the default. Nobody pushes to
//! them. A digest is never asked for again; a tag is given out for a while and then compared by HEAD.

mod fetch;
mod upstream;

pub use fetch::Coming;

use crate::error::{Code, Error, Result};
use crate::name::{Name, Reference};
use crate::options::Options;
use crate::registry::Registry;
use crate::server::{Source, blocking};
use crate::store::{Adopt, PutManifest, Store, StoredManifest};
use fetch::Fetches;
use gantry_api::digest::Digest;
use gantry_api::reference::Reference as ImageReference;
use gantry_distribution::{
    Config, Credentials, Error as UpstreamError, Insecure, Proxies, Registries, Repository,
};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};
use upstream::{Remote, address, invalid, size_of, upstream_error};

const USER_AGENT: &str = concat!("gantry-registry/", env!("CARGO_PKG_VERSION"));
/// How often a request to an upstream is tried: clients wait meanwhile, and have another way for most.
const ATTEMPTS: u32 = 3;
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Knows the upstreams, and what is being fetched from them.
pub struct Cache {
    store: Arc<Store>,
    registries: Registries,
    upstreams: Vec<Remote>,
    mirror: Option<String>,
    tag_ttl: Duration,
    fetches: Fetches,
    /// Manifests that are being asked for: the next client waits and finds them.
    asking: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

/// Says whether a request only asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    Head,
    Body,
}

impl Cache {
    /// Makes the cache; `None` where there are no upstreams.
    ///
    /// # Errors
    /// Names the upstream whose name or address is malformed.
    pub fn new(options: &Options, store: Arc<Store>) -> Result<Option<Self>> {
        if options.upstreams.is_empty() {
            return Ok(None);
        }
        let mut insecure = Vec::new();
        let mut upstreams = Vec::new();
        for upstream in &options.upstreams {
            let (host, is_plain) = address(upstream)?;
            if is_plain {
                insecure.push(Insecure::Host(host.clone()));
            }
            upstreams.push(Remote {
                name: upstream.name.clone(),
                host,
                credentials: Credentials {
                    username: upstream.username.clone(),
                    password: upstream.password.clone(),
                    ..Credentials::default()
                },
            });
        }
        if let Some(mirror) = &options.mirror
            && !upstreams.iter().any(|remote| remote.name == *mirror)
        {
            return Err(invalid(format!("`{mirror}` is no upstream")));
        }
        let variable = |name: &str| {
            std::env::var(name)
                .or_else(|_| std::env::var(name.to_lowercase()))
                .ok()
                .filter(|text| !text.is_empty())
        };
        let registries = Registries::new(Config {
            hub_mirrors: Vec::new(),
            insecure,
            // Not the engine's: its mirrors may well be this registry.
            certs_dirs: options.upstream_certs.iter().cloned().collect(),
            proxies: Proxies {
                http: variable("HTTP_PROXY"),
                https: variable("HTTPS_PROXY"),
                no_proxy: variable("NO_PROXY").unwrap_or_default(),
            },
            attempts_max: ATTEMPTS,
            stall_timeout: STALL_TIMEOUT,
            user_agent: USER_AGENT.to_owned(),
        })
        .map_err(|error| invalid(error.to_string()))?;
        Ok(Some(Self {
            store,
            registries,
            upstreams,
            mirror: options.mirror.clone(),
            tag_ttl: options.tag_ttl,
            fetches: Fetches::new(&options.limits, options.policy.cache_bytes),
            asking: Mutex::default(),
        }))
    }

    /// Finds the repository that a client means; tells whether it is an upstream's. `namespace` is what it said by `?ns=`,
    /// and a write never means the default upstream.
    pub async fn repository(
        &self,
        name: &Name,
        namespace: Option<&str>,
        is_read: bool,
    ) -> Result<Option<Name>> {
        let named = name.as_str().split_once('/').and_then(|(first, path)| {
            let remote = self.upstreams.iter().find(|remote| remote.name == first)?;
            Some((remote, path))
        });
        if let Some((remote, path)) = named {
            return remote.repository(path).map(Some);
        }
        let wanted = namespace.and_then(|namespace| {
            self.upstreams
                .iter()
                .find(|remote| remote.name == namespace || remote.host == namespace)
        });
        if let Some(remote) = wanted {
            return remote.repository(name.as_str()).map(Some);
        }
        let Some(mirror) = self.mirror.as_ref().filter(|_| is_read) else {
            return Ok(None);
        };
        let (store, own) = (Arc::clone(&self.store), name.clone());
        if blocking(move || store.has_repository(&own)).await {
            return Ok(None);
        }
        let remote = self
            .upstreams
            .iter()
            .find(|remote| remote.name == *mirror)
            .ok_or(Code::Internal)?;
        remote.repository(name.as_str()).map(Some)
    }

    fn remote(&self, name: &Name) -> Result<(&Remote, Repository)> {
        let (first, path) = name.as_str().split_once('/').ok_or(Code::NameUnknown)?;
        let remote = self
            .upstreams
            .iter()
            .find(|remote| remote.name == first)
            .ok_or(Code::NameUnknown)?;
        let reference: ImageReference = format!("{}/{path}", remote.host)
            .parse()
            .map_err(|_| Error::new(Code::NameInvalid, json!({ "name": name.as_str() })))?;
        let repository = self
            .registries
            .repository(&reference, remote.credentials.clone());
        Ok((remote, repository))
    }

    /// Gives a manifest, with a warning if it may be stale.
    ///
    /// # Errors
    /// [`Code::ManifestUnknown`]; [`Code::Upstream`] where it is not here and the upstream does not answer.
    pub async fn manifest(
        &self,
        registry: &Registry,
        name: &Name,
        reference: &Reference,
    ) -> Result<(StoredManifest, Option<String>)> {
        let metrics = &registry.metrics;
        if let Some(stored) = self.fresh(name, reference).await? {
            metrics.cache_hits.fetch_add(1, Ordering::Relaxed);
            return Ok((stored, None));
        }
        let turn = self.turn(&format!("{name}@{reference}"));
        let _turn = turn.lock().await;
        // Another client may have brought it meanwhile.
        if let Some(stored) = self.fresh(name, reference).await? {
            metrics.cache_hits.fetch_add(1, Ordering::Relaxed);
            return Ok((stored, None));
        }
        metrics.cache_misses.fetch_add(1, Ordering::Relaxed);
        let known = self.stored(name, reference).await?;
        match self.asked(name, reference, known.as_ref()).await {
            Ok(stored) => Ok((stored, None)),
            Err(error) if error.code == Code::ManifestUnknown => {
                if let (Reference::Tag(_), Some(_)) = (reference, &known) {
                    let (store, name, reference) =
                        (Arc::clone(&self.store), name.clone(), reference.clone());
                    let _ = blocking(move || store.delete_manifest(&name, &reference)).await;
                }
                Err(error)
            }
            Err(error) => match known {
                Some(stored)
                    if matches!(
                        error.code,
                        Code::Upstream | Code::TooManyRequests | Code::Denied
                    ) =>
                {
                    metrics.cache_stale.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(name = name.as_str(), %reference, error = crate::server::causes(&error), "the upstream does not give it");
                    let warning =
                        "the upstream does not give it now, and this may be older than what it has";
                    Ok((stored, Some(warning.to_owned())))
                }
                _ => Err(error),
            },
        }
    }

    /// Gives what need not be asked for.
    async fn fresh(&self, name: &Name, reference: &Reference) -> Result<Option<StoredManifest>> {
        let (store, ttl) = (Arc::clone(&self.store), self.tag_ttl);
        let (name, reference) = (name.clone(), reference.clone());
        blocking(move || {
            if let Reference::Tag(tag) = &reference {
                let is_fresh = store
                    .tag_time(&name, tag)?
                    .and_then(|time| SystemTime::now().duration_since(time).ok())
                    .is_some_and(|age| age < ttl);
                if !is_fresh {
                    return Ok(None);
                }
            }
            let stored = found(store.manifest(&name, &reference))?;
            if let Some(stored) = &stored {
                store.renew_manifest(&name, &stored.digest)?;
            }
            Ok(stored)
        })
        .await
    }

    async fn stored(&self, name: &Name, reference: &Reference) -> Result<Option<StoredManifest>> {
        let (store, name, reference) = (Arc::clone(&self.store), name.clone(), reference.clone());
        blocking(move || found(store.manifest(&name, &reference))).await
    }

    /// Asks the upstream, and keeps what it gives.
    async fn asked(
        &self,
        name: &Name,
        reference: &Reference,
        known: Option<&StoredManifest>,
    ) -> Result<StoredManifest> {
        let (_, repository) = self.remote(name)?;
        let unknown = || {
            let detail = json!({ "name": name.as_str(), "reference": reference.to_string() });
            Error::new(Code::ManifestUnknown, detail)
        };
        let failed = |error| match error {
            // What is known goes only if the registry itself says that it is gone; else any 404 will do.
            UpstreamError::Registry { status: 404, .. } if known.is_none() => unknown(),
            error => upstream_error(error, unknown),
        };
        let text = reference.to_string();
        if let (Reference::Tag(tag), Some(known)) = (reference, known) {
            let descriptor = repository.head_manifest(&text).await.map_err(failed)?;
            // An answer to HEAD does not say why there is nothing: GET does.
            if descriptor.is_some_and(|descriptor| descriptor.digest == known.digest) {
                let (store, name, tag) = (Arc::clone(&self.store), name.clone(), tag.clone());
                let digest = known.digest.clone();
                blocking(move || {
                    store.renew_tag(&name, &tag)?;
                    store.renew_manifest(&name, &digest)
                })
                .await?;
                return Ok(known.clone());
            }
        }
        let fetched = repository.raw_manifest(&text).await.map_err(failed)?;
        let stored = StoredManifest {
            digest: fetched.descriptor.digest.clone(),
            media_type: fetched.descriptor.media_type.clone(),
            bytes: fetched.bytes.to_vec(),
        };
        let put = PutManifest {
            reference: Reference::Digest(stored.digest.clone()),
            content_type: Some(stored.media_type.clone()),
            tags: match reference {
                Reference::Tag(tag) => vec![tag.clone()],
                Reference::Digest(_) => Vec::new(),
            },
            bytes: stored.bytes.clone(),
            is_checked: false,
            adopt: Adopt::No,
        };
        let (store, name) = (Arc::clone(&self.store), name.clone());
        blocking(move || store.put_manifest(&name, &put)).await?;
        Ok(stored)
    }

    /// Gives a blob: from here, or while it comes.
    ///
    /// # Errors
    /// [`Code::BlobUnknown`]; [`Code::Upstream`] where it is not here and the upstream does not answer.
    pub async fn blob(
        &self,
        registry: &Registry,
        name: &Name,
        digest: &Digest,
        want: Want,
    ) -> Result<Source> {
        let metrics = &registry.metrics;
        let (store, own, wanted) = (Arc::clone(&self.store), name.clone(), digest.clone());
        let opened = blocking(move || store.open_blob(&own, &wanted)).await;
        match opened {
            Ok((file, size)) => {
                metrics.cache_hits.fetch_add(1, Ordering::Relaxed);
                return Ok(Source::file(file, size));
            }
            Err(error) if error.code != Code::BlobUnknown => return Err(error),
            Err(_) => {}
        }
        metrics.cache_misses.fetch_add(1, Ordering::Relaxed);
        let (_, repository) = self.remote(name)?;
        if want == Want::Head {
            let size = size_of(&repository, digest).await?;
            return Ok(Source::size(size));
        }
        let coming = self
            .fetches
            .follow(&self.store, repository, name, digest)
            .await?;
        Ok(Source::coming(coming))
    }

    /// Lists an upstream's tags, or those that are here while it does not answer.
    ///
    /// # Errors
    /// [`Code::NameUnknown`]; [`Code::Upstream`] where nothing is here either.
    pub async fn tags(&self, registry: &Registry, name: &Name) -> Result<Vec<String>> {
        let (_, repository) = self.remote(name)?;
        let unknown = || Error::new(Code::NameUnknown, json!({ "name": name.as_str() }));
        match repository.tags().await {
            Ok(mut tags) => {
                tags.sort_unstable();
                Ok(tags)
            }
            Err(error) => {
                let error = upstream_error(error, unknown);
                if error.code == Code::NameUnknown {
                    return Err(error);
                }
                let (store, name) = (Arc::clone(&self.store), name.clone());
                let tags = blocking(move || store.tags(&name))
                    .await
                    .map_err(|_| error)?;
                registry.metrics.cache_stale.fetch_add(1, Ordering::Relaxed);
                Ok(tags)
            }
        }
    }

    /// Lists what refers to a manifest at the upstream, or here while it does not answer.
    ///
    /// # Errors
    /// Fails where the disk does.
    pub async fn referrers(
        &self,
        registry: &Registry,
        name: &Name,
        subject: &Digest,
    ) -> Result<Vec<Value>> {
        let (_, repository) = self.remote(name)?;
        match repository.referrers(subject, None).await {
            Ok(index) => {
                let mut manifests: Vec<Value> =
                    index.manifests.iter().map(|found| json!(found)).collect();
                manifests.sort_by(|one, two| one["digest"].as_str().cmp(&two["digest"].as_str()));
                Ok(manifests)
            }
            Err(_) => {
                registry.metrics.cache_stale.fetch_add(1, Ordering::Relaxed);
                let (store, name, subject) =
                    (Arc::clone(&self.store), name.clone(), subject.clone());
                blocking(move || store.referrers(&name, &subject)).await
            }
        }
    }

    /// Waits until enough was fetched that the cache may have grown over its limit.
    pub async fn is_filled(&self) {
        self.fetches.filled.notified().await;
    }

    /// Gives the turn of those who ask for one thing.
    fn turn(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = asking.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        asking.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        asking.insert(key.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

/// Makes an unknown manifest into nothing.
fn found(stored: Result<StoredManifest>) -> Result<Option<StoredManifest>> {
    match stored {
        Ok(stored) => Ok(Some(stored)),
        Err(error) if error.code == Code::ManifestUnknown => Ok(None),
        Err(error) => Err(error),
    }
}
