//! What the crate offers: all registries, one repository, and the plain data that they give.

use crate::endpoint::Purpose;
use crate::session::Session;
use crate::state::State;
use crate::{Config, Credentials, Error, Insecure, Login, RateLimit, Result};
use bytes::Bytes;
use gantry_api::oci::image::Descriptor;
use gantry_api::reference::Reference;
use ipnet::IpNet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Is told what happens while a request goes on: the wait before the next try and the cause of the last one's failure,
/// or, with a wait of zero, a warning of the registry.
pub type Observer = Arc<dyn Fn(Duration, &str) + Send + Sync>;

/// Knows all registries of a process; clones share it.
#[derive(Clone)]
pub struct Registries {
    state: Arc<RwLock<Arc<State>>>,
}

/// Is one repository at one registry for one user.
#[derive(Clone)]
pub struct Repository {
    pub(crate) session: Session,
    /// The name as people see it.
    pub(crate) familiar_name: String,
    pub(crate) path: String,
}

/// Is a manifest, or an index, as the registry gave it; the digest is checked.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    pub bytes: Bytes,
    pub rate_limit: Option<RateLimit>,
    /// The host that answered: the registry itself or a mirror.
    pub host: String,
}

/// Is one repository that a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchResult {
    pub name: String,
    pub description: String,
    pub star_count: i64,
    pub is_official: bool,
    pub is_automated: bool,
}

impl Registries {
    /// Makes the client; reads no file and opens no connection yet.
    pub fn new(config: Config) -> Result<Self> {
        Ok(Self {
            state: Arc::new(RwLock::new(Arc::new(checked(config)?))),
        })
    }

    /// Takes a new configuration; running requests keep the old one.
    pub fn reload(&self, config: Config) -> Result<()> {
        let state = Arc::new(checked(config)?);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }

    /// Gives a repository. The reference's tag and digest do not matter.
    pub fn repository(&self, reference: &Reference, credentials: Credentials) -> Repository {
        Repository {
            session: self.session(reference.domain(), credentials),
            familiar_name: reference.familiar_name(),
            path: reference.path().to_owned(),
        }
    }

    /// As [`Registries::repository`]; these headers go with each request to the registry, its mirrors and its token
    /// server.
    pub fn repository_told(
        &self,
        reference: &Reference,
        credentials: Credentials,
        headers: &[(String, String)],
    ) -> Repository {
        let mut repository = self.repository(reference, credentials);
        repository.session = repository.session.with_headers(headers);
        repository
    }

    /// Checks credentials at a registry (`host[:port]`; empty or Docker's index address is Docker Hub).
    pub async fn login(&self, server: &str, credentials: &Credentials) -> Result<Login> {
        crate::login::login(&self.session(crate::login::domain(server), credentials.clone())).await
    }

    /// Searches by the old index protocol (`/v1/search`). `term` may begin with a host. The headers go with each request.
    pub async fn search(
        &self,
        term: &str,
        limit: u32,
        credentials: &Credentials,
        headers: &[(String, String)],
    ) -> Result<Vec<SearchResult>> {
        let (host, term) = crate::search::split(term)?;
        let session = self.session(host, credentials.clone());
        crate::search::search(&session.with_headers(headers), term, limit).await
    }

    /// Lists the repositories of a registry (`/v2/_catalog`), all pages.
    pub async fn catalog(&self, host: &str, credentials: &Credentials) -> Result<Vec<String>> {
        crate::list::catalog(&self.session(host, credentials.clone())).await
    }

    /// Calls an extension of a registry (`POST /v2/_NAME/COMPONENT/MODULE`) and gives its answer.
    pub async fn extension(
        &self,
        host: &str,
        path: &str,
        credentials: &Credentials,
    ) -> Result<bytes::Bytes> {
        crate::list::extension(&self.session(host, credentials.clone()), path).await
    }

    pub(crate) fn session(&self, domain: &str, credentials: Credentials) -> Session {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Session::new(Arc::clone(&state), domain, credentials)
    }
}

/// Refuses a configuration that cannot work.
fn checked(config: Config) -> Result<State> {
    for insecure in &config.insecure {
        if let Insecure::Network(network) = insecure
            && network.parse::<IpNet>().is_err()
        {
            return Err(Error::Invalid(format!(
                "insecure registries `{network}`: not a range of addresses"
            )));
        }
    }
    for proxy in [&config.proxies.http, &config.proxies.https]
        .into_iter()
        .flatten()
        .filter(|proxy| !proxy.trim().is_empty())
    {
        let known = ["http", "https", "socks5", "socks5h"];
        let scheme = proxy.split_once("://").map_or("http", |(scheme, _)| scheme);
        if !known.contains(&scheme) {
            return Err(Error::Invalid(format!(
                "proxy `{proxy}`: unknown scheme, one of {} is needed",
                known.join(", ")
            )));
        }
    }
    if config.attempts_max == 0 {
        return Err(Error::Invalid(
            "0 attempts: at least one is needed".to_owned(),
        ));
    }
    Ok(State::new(config))
}

impl Repository {
    /// Has retries told: the wait before the next try, and the cause.
    #[must_use]
    pub fn observed(mut self, observer: Observer) -> Self {
        self.session.observer = Some(observer);
        self
    }

    /// Has each request tried once: whoever asks has another way, and waiting would not be worth it.
    #[must_use]
    pub fn impatient(mut self) -> Self {
        self.session.attempts_max = 1;
        self
    }

    /// Gives the scope of a token for this repository.
    pub(crate) fn scopes(&self, purpose: Purpose) -> Vec<String> {
        let actions = match purpose {
            Purpose::Pull | Purpose::Resolve => "pull",
            Purpose::Push => "pull,push",
        };
        vec![format!("repository:{}:{actions}", self.path)]
    }

    /// Gives the reference as people see it, for error texts.
    pub(crate) fn shown(&self, tag_or_digest: &str) -> String {
        let separator = if tag_or_digest.contains(':') {
            '@'
        } else {
            ':'
        };
        format!("{}{separator}{tag_or_digest}", self.familiar_name)
    }
}
