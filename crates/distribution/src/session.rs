//! How a request is made: ping, authorization, redirects, one renewal of a token, retries, the next mirror.
//!
//! ```text
//! fetch ─▶ for each endpoint: persist ─▶ up to attempts_max: once ─▶ reach, authorize.rs, wire.rs, judge
//! ```

use crate::answer::BODY_SIZE_MAX;
use crate::authorize::wrapped;
use crate::call::{Call, Target};
use crate::client::Observer;
use crate::endpoint::{self, Endpoint, Purpose};
use crate::retry::{self, Again, Failure};
use crate::state::{Reached, State};
use crate::wire::{broken, challenges, header_text, is_same_host, reason, refused};
use crate::{Credentials, Error, Result};
use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

/// Makes requests at one registry for one user.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) state: Arc<State>,
    pub(crate) domain: String,
    pub(crate) credentials: Credentials,
    /// What the user wants the registry told, besides.
    pub(crate) headers: HeaderMap,
    pub(crate) observer: Option<Observer>,
    /// How often a request is tried, the first time included.
    pub(crate) attempts_max: u32,
    /// Where the registry is, by purpose; found out once, so that a pull does not change its way in the midst.
    hosts: Arc<[OnceCell<Vec<Arc<Endpoint>>>; 3]>,
}

/// What is to be done with an answer's body.
#[derive(Clone, Copy)]
pub(crate) enum Reading<'a> {
    /// It is left to the caller.
    Stream,
    /// All of it, up to a size; the check decides whether it is what was asked for.
    Whole {
        size_max: usize,
        check: &'a (dyn Fn(&Reply) -> Result<()> + Sync),
    },
}

/// An answer and who gave it.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Empty where the body is left to the caller.
    pub(crate) body: Bytes,
    pub(crate) stream: Option<Response>,
    /// The address that answered, after all redirects.
    pub(crate) url: Url,
    pub(crate) host: String,
    /// The mirror that answered, by its first base; none where it was the registry itself.
    pub(crate) mirror: Option<Url>,
}

impl Reply {
    /// Gives a header as text, or an empty one.
    pub(crate) fn header(&self, name: &str) -> &str {
        header_text(&self.headers, name)
    }
}

/// Accepts any body.
pub(crate) const ANY: Reading<'static> = Reading::Whole {
    size_max: BODY_SIZE_MAX,
    check: &|_| Ok(()),
};

impl Session {
    pub(crate) fn new(state: Arc<State>, domain: &str, credentials: Credentials) -> Self {
        Self {
            attempts_max: state.config.attempts_max,
            state,
            domain: domain.to_owned(),
            credentials,
            headers: HeaderMap::new(),
            observer: None,
            hosts: Arc::default(),
        }
    }

    /// Sends these headers with each request to the registry, its mirrors and its token server, but not where they lead.
    pub(crate) fn with_headers(mut self, headers: &[(String, String)]) -> Self {
        // What HTTP cannot carry did not come by it.
        let pairs = headers.iter().filter_map(|(name, value)| {
            Some((
                HeaderName::try_from(name).ok()?,
                HeaderValue::try_from(value).ok()?,
            ))
        });
        self.headers = pairs.collect();
        self
    }

    /// Gives the hosts to ask, in order; the registry itself is the last.
    pub(crate) async fn endpoints(&self, purpose: Purpose) -> Result<&[Arc<Endpoint>]> {
        let slot = match purpose {
            Purpose::Pull => &self.hosts[0],
            Purpose::Resolve => &self.hosts[1],
            Purpose::Push => &self.hosts[2],
        };
        let find = async || endpoint::of(&self.state, &self.domain, purpose).await;
        slot.get_or_try_init(find).await.map(Vec::as_slice)
    }

    /// Gives the registry itself.
    pub(crate) async fn registry(&self) -> Result<&Arc<Endpoint>> {
        let endpoints = self.endpoints(Purpose::Push).await?;
        endpoints.last().ok_or_else(|| {
            Error::Invalid(format!("there is no host for registry `{}`", self.domain))
        })
    }

    /// Makes a change, at the one host that takes this registry's pushes: the first that may be pushed to, as for
    /// containerd. What a push finds, sends and ends is all there.
    pub(crate) async fn change(&self, call: &Call) -> Result<Reply> {
        self.persist(self.target().await?, call, ANY).await
    }

    /// Gives the host that pushes go to.
    pub(crate) async fn target(&self) -> Result<&Arc<Endpoint>> {
        match self.endpoints(Purpose::Push).await?.first() {
            Some(endpoint) => Ok(endpoint),
            None => self.registry().await,
        }
    }

    /// Asks one host after the other for what is to be read; the last one's error is the answer where none serves.
    pub(crate) async fn fetch(
        &self,
        purpose: Purpose,
        call: &Call,
        reading: Reading<'_>,
    ) -> Result<Reply> {
        for mirror in self.endpoints(purpose).await? {
            if mirror.is_registry {
                break;
            }
            let key = &mirror.bases[0];
            let is_distrusted = |digest| self.state.is_distrusted(key, digest);
            if self.state.is_down(key) || call.blob.as_ref().is_some_and(is_distrusted) {
                continue;
            }
            // The next host is a mirror's second try.
            let cause = match self.once(mirror, call, reading).await {
                // That a mirror has it not does not mean that the registry has it not.
                Ok(reply) if reply.status.is_success() => {
                    let mirror = Some(key.clone());
                    return Ok(Reply { mirror, ..reply });
                }
                Ok(reply) => reason(reply.status),
                Err(failure) => {
                    if matches!(failure.error, Error::Network(_)) {
                        self.state.set_down(key);
                    }
                    failure.error.to_string()
                }
            };
            tracing::debug!(mirror = mirror.host, cause, "mirror passed over");
        }
        let registry = self.registry().await?;
        self.persist(registry, call, reading).await
    }

    /// Asks one host, again where that may help.
    pub(crate) async fn persist(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        reading: Reading<'_>,
    ) -> Result<Reply> {
        let mut tried = 0;
        loop {
            let failure = match self.once(endpoint, call, reading).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            tried += 1;
            self.rest(tried, failure).await?;
        }
    }

    /// Waits before another try, or gives the error where there is to be none.
    pub(crate) async fn rest(&self, tried: u32, failure: Failure) -> Result<()> {
        let Some(wait) = retry::wait(tried, self.attempts_max, failure.again, retry::chance())
        else {
            return Err(failure.error);
        };
        self.tell(wait, &failure.error.to_string());
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Tells the observer, if there is one.
    pub(crate) fn tell(&self, wait: Duration, text: &str) {
        if let Some(observer) = &self.observer {
            observer(wait, text);
        }
    }

    /// Makes a request once, the renewal of a token included.
    pub(crate) async fn once(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        reading: Reading<'_>,
    ) -> std::result::Result<Reply, Failure> {
        let mut reached = self.reach(endpoint).await?;
        let mut url = match &call.target {
            Target::Path(path) => reached.base.join(path).map_err(|error| {
                Error::Invalid(format!(
                    "address of `{path}` at `{}`: {error}",
                    endpoint.host
                ))
            })?,
            Target::Url(url) => url.clone(),
        };
        if let (Target::Path(_), Some(namespace)) = (&call.target, &endpoint.namespace) {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        let is_home = is_same_host(&url, &reached.base);
        let mut refused = None;
        loop {
            let authorization = if is_home {
                self.authorization(endpoint, &reached, call, refused.as_deref())
                    .await
                    .map_err(|failure| wrapped(failure, call, &url))?
            } else {
                None
            };
            let followed = self
                .follow(endpoint, &reached, url.clone(), call, authorization.clone())
                .await;
            let (response, at_home) = match followed {
                Ok(followed) => followed,
                Err(failure) => {
                    if failure.again != Again::Never {
                        // It may come back in another form, or at another address.
                        self.state.forget(&endpoint.bases[0]);
                    }
                    return Err(failure);
                }
            };
            let challenges = challenges(response.headers());
            if response.status() == StatusCode::UNAUTHORIZED
                && at_home
                && refused.is_none()
                && !challenges.is_empty()
                && self.credentials.registry_token.is_empty()
            {
                reached.challenges = challenges;
                self.state.set_reached(&endpoint.bases[0], reached.clone());
                refused = Some(
                    authorization
                        .as_deref()
                        .and_then(|value| value.strip_prefix("Bearer "))
                        .unwrap_or_default()
                        .to_owned(),
                );
                // A password that was refused is not tried twice.
                let is_basic = authorization
                    .as_deref()
                    .is_some_and(|value| value.starts_with("Basic "));
                if !is_basic {
                    continue;
                }
            }
            return self.judge(endpoint, call, response, reading).await;
        }
    }

    /// Makes a request once, without a ping and with the authorization that is given.
    pub(crate) async fn direct(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        authorization: Option<String>,
        reading: Reading<'_>,
    ) -> std::result::Result<Reply, Failure> {
        let Target::Url(url) = &call.target else {
            return Err(Failure::last(Error::Invalid(
                "a direct request has no address".to_owned(),
            )));
        };
        let reached = Reached {
            base: url.clone(),
            challenges: Vec::new(),
        };
        let (response, _) = self
            .follow(endpoint, &reached, url.clone(), call, authorization)
            .await?;
        self.judge(endpoint, call, response, reading).await
    }

    /// Finds out how a host is spoken to: by its first answer to `/v2/`, which is remembered.
    pub(crate) async fn reach(&self, endpoint: &Endpoint) -> std::result::Result<Reached, Failure> {
        let key = &endpoint.bases[0];
        if let Some(reached) = self.state.reached(key) {
            return Ok(reached);
        }
        let mut last = None;
        for base in &endpoint.bases {
            let call = Call::to(Method::GET, Target::Url(base.clone()), Vec::new());
            let reached = Reached {
                base: base.clone(),
                challenges: Vec::new(),
            };
            match self
                .follow(endpoint, &reached, base.clone(), &call, None)
                .await
            {
                Ok((response, _)) => {
                    let reached = Reached {
                        challenges: challenges(response.headers()),
                        ..reached
                    };
                    // Read to its end, the connection can be used again.
                    let _ = self.body(response, BODY_SIZE_MAX).await;
                    self.state.set_reached(key, reached.clone());
                    return Ok(reached);
                }
                Err(failure) => last = Some(failure),
            }
        }
        let mut failure = last.unwrap_or_else(|| {
            Failure::last(Error::Invalid(format!(
                "there is no address for `{}`",
                endpoint.host
            )))
        });
        if !self.state.is_known(key) {
            // Nobody was ever there: likely the name is wrong, and the user waits.
            failure.again = Again::Never;
        }
        Err(failure)
    }

    /// Turns a response into a reply, or into the failure that it tells of.
    async fn judge(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        response: Response,
        reading: Reading<'_>,
    ) -> std::result::Result<Reply, Failure> {
        let status = response.status();
        let url = response.url().clone();
        let headers = response.headers().clone();
        // Where a redirect leads nowhere its body is not what was asked for, whatever its headers say.
        let is_answer = status.is_success() || call.accepts(status.as_u16());
        if !is_answer {
            let body = self.body(response, BODY_SIZE_MAX).await.unwrap_or_default();
            return Err(refused(status, &headers, &body));
        }
        let mut reply = Reply {
            status,
            headers,
            body: Bytes::new(),
            stream: None,
            url,
            host: endpoint.host.clone(),
            mirror: None,
        };
        match reading {
            Reading::Stream => reply.stream = Some(response),
            Reading::Whole { size_max, check } => {
                reply.body = self.body(response, size_max).await.map_err(broken)?;
                check(&reply)?;
            }
        }
        Ok(reply)
    }
}
