//! How a request is made: ping, authorization, redirects, one renewal of a token, retries, the next mirror.
//!
//! ```text
//! fetch ─▶ for each endpoint: persist ─▶ up to attempts_max: once ─▶ reach, authorize, follow, judge
//! ```

use crate::answer::{BODY_SIZE_MAX, Refusal};
use crate::call::{Call, Paced, Pulse, Target};
use crate::challenge::{self, Challenge};
use crate::client::Observer;
use crate::endpoint::{self, Endpoint, Purpose};
use crate::network;
use crate::retry::{self, Again, Failure};
use crate::state::{Reached, State};
use crate::token::{self, Ask, Granted, Offline, TokenKey};
use crate::{Credentials, Error, Result};
use bytes::{Bytes, BytesMut};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

const REDIRECTS_MAX: usize = 10;

/// Makes requests at one registry for one user.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) state: Arc<State>,
    pub(crate) domain: String,
    pub(crate) credentials: Credentials,
    pub(crate) observer: Option<Observer>,
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
}

impl Reply {
    /// Gives a header as text, or an empty one.
    pub(crate) fn header(&self, name: &str) -> &str {
        header_text(&self.headers, name)
    }
}

/// Gives a header as text, or an empty one.
pub(crate) fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Accepts any body.
pub(crate) const ANY: Reading<'static> = Reading::Whole {
    size_max: BODY_SIZE_MAX,
    check: &|_| Ok(()),
};

impl Session {
    pub(crate) fn new(state: Arc<State>, domain: &str, credentials: Credentials) -> Self {
        Self {
            state,
            domain: domain.to_owned(),
            credentials,
            observer: None,
            hosts: Arc::default(),
        }
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

    /// Asks one host after the other; the last one's error is the answer where none serves.
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
            if self.state.is_down(&mirror.bases[0]) {
                continue;
            }
            // The next host is a mirror's second try.
            let cause = match self.once(mirror, call, reading).await {
                // That a mirror has it not does not mean that the registry has it not.
                Ok(reply) if reply.status.is_success() => return Ok(reply),
                Ok(reply) => reason(reply.status),
                Err(failure) => {
                    if matches!(failure.error, Error::Network(_)) {
                        self.state.set_down(&mirror.bases[0]);
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
        let attempts_max = self.state.config.attempts_max;
        let Some(wait) = retry::wait(tried, attempts_max, failure.again, retry::chance()) else {
            return Err(failure.error);
        };
        self.tell(wait, &failure.error.to_string());
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn tell(&self, wait: Duration, text: &str) {
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

    /// Gives the value of `Authorization`. `refused` is the token that was just not taken.
    async fn authorization(
        &self,
        endpoint: &Endpoint,
        reached: &Reached,
        call: &Call,
        refused: Option<&str>,
    ) -> std::result::Result<Option<String>, Failure> {
        let nobody = Credentials::default();
        let credentials = if endpoint.is_registry {
            &self.credentials
        } else {
            &nobody
        };
        if !credentials.registry_token.is_empty() {
            return Ok(Some(format!("Bearer {}", credentials.registry_token)));
        }
        let of = |scheme: &str| {
            reached
                .challenges
                .iter()
                .find(|challenge| challenge.scheme == scheme)
        };
        if let Some(challenge) = of("bearer") {
            let key = token_key(challenge, &call.scopes, credentials);
            let fetch = async {
                self.grant(endpoint, &key, Offline::No)
                    .await
                    .map_err(|failure| failure.error)
            };
            let token = self.state.tokens.get(&key, refused, fetch).await;
            return match token {
                Ok(token) => Ok(Some(format!("Bearer {token}"))),
                Err(error) => Err(match &error {
                    Error::Network(_) => Failure::passing(error),
                    Error::Registry { status, .. } if retry::is_passing(*status) => {
                        Failure::passing(error)
                    }
                    Error::RateLimited(_) => Failure::passing(error),
                    _ => Failure::last(error),
                }),
            };
        }
        if of("basic").is_some() {
            if credentials.username.is_empty() && credentials.password.is_empty() {
                return Err(Failure::last(Error::Registry {
                    status: 401,
                    codes: Vec::new(),
                    text: "no basic auth credentials".to_owned(),
                }));
            }
            return Ok(Some(token::basic(
                &credentials.username,
                &credentials.password,
            )));
        }
        Ok(None)
    }

    /// Asks a token server.
    pub(crate) async fn grant(
        &self,
        endpoint: &Endpoint,
        key: &TokenKey,
        offline: Offline,
    ) -> std::result::Result<Granted, Failure> {
        let realm = Url::parse(&key.realm).map_err(|error| {
            Error::Invalid(format!(
                "address of the token server `{}` of `{}`: {error}",
                key.realm, endpoint.host
            ))
        })?;
        let has_secret = key.credentials != Credentials::default();
        if has_secret && realm.scheme() != "https" && !endpoint.is_insecure {
            return Err(Failure::last(Error::Invalid(format!(
                "token server `{}` of `{}` would get the password without TLS",
                key.realm, endpoint.host
            ))));
        }
        let (status, granted) = self
            .ask(endpoint, &realm, key, token::ask(key, offline, false))
            .await?;
        // A server that knows only the form with the password says so by one of these.
        if matches!(status, 404 | 405) && has_secret {
            let (_, granted) = self
                .ask(endpoint, &realm, key, token::ask(key, offline, true))
                .await?;
            return Ok(granted?);
        }
        Ok(granted?)
    }

    async fn ask(
        &self,
        endpoint: &Endpoint,
        realm: &Url,
        key: &TokenKey,
        ask: Ask,
    ) -> std::result::Result<(u16, Result<Granted>), Failure> {
        let reached = Reached {
            base: realm.clone(),
            challenges: Vec::new(),
        };
        let mut url = realm.clone();
        let (call, authorization) = match ask {
            Ask::Get {
                query,
                authorization,
            } => {
                url.query_pairs_mut().extend_pairs(query);
                if url.query() == Some("") {
                    url.set_query(None);
                }
                let call = Call::to(Method::GET, Target::Url(url.clone()), Vec::new());
                (call, authorization)
            }
            Ask::Post { form } => {
                let mut body = Url::parse("form:").map_err(|error| {
                    Error::Invalid(format!("encode a form for `{}`: {error}", key.realm))
                })?;
                body.query_pairs_mut().extend_pairs(form);
                let body = Bytes::from(body.query().unwrap_or_default().to_owned());
                let call = Call::to(Method::POST, Target::Url(url.clone()), Vec::new())
                    .body("application/x-www-form-urlencoded", body);
                (call, None)
            }
        };
        let (response, _) = self
            .follow(endpoint, &reached, url.clone(), &call, authorization)
            .await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.body(response, BODY_SIZE_MAX).await.map_err(broken)?;
        let granted = if status.as_u16() < 400 {
            token::read_answer(&body)
        } else {
            Err(refusal(status, &headers, &body).into_error(status.as_u16()))
        };
        Ok((status.as_u16(), granted))
    }

    /// Sends a request and goes where redirects lead. Credentials, client certificates and a mirror's own headers go to
    /// the host of `reached` alone. Tells besides whether that host gave the answer.
    async fn follow(
        &self,
        endpoint: &Endpoint,
        reached: &Reached,
        mut url: Url,
        call: &Call,
        authorization: Option<String>,
    ) -> std::result::Result<(Response, bool), Failure> {
        let mut method = call.method.clone();
        for _ in 0..=REDIRECTS_MAX {
            let at_home = is_same_host(&url, &reached.base);
            let is_endpoint = endpoint.bases.iter().any(|base| is_same_host(&url, base));
            let settings = if is_endpoint {
                endpoint.tls.clone()
            } else {
                endpoint.tls.for_stranger()
            };
            let client = self.state.client(&settings)?;
            let mut request = client.request(method.clone(), url.clone());
            if is_endpoint {
                request = request.headers(endpoint.headers.clone());
            }
            request = request.headers(call.headers.clone());
            if let (true, Some(authorization)) = (at_home, &authorization) {
                let mut value = HeaderValue::from_str(authorization).map_err(|_| {
                    Error::Invalid(format!(
                        "the credentials for `{}` cannot be sent",
                        endpoint.host
                    ))
                })?;
                value.set_sensitive(true);
                request = request.header(header::AUTHORIZATION, value);
            }
            let pulse = Pulse::new();
            if method != Method::GET && method != Method::HEAD {
                let body = Paced::new(call.body.clone(), pulse.clone());
                request = request.body(reqwest::Body::wrap(body));
            }
            let response = self.send(request, call, &url, &pulse).await?;
            let Some(next) = redirect(&response, &method, &url) else {
                for warning in response.headers().get_all(header::WARNING) {
                    if let Some(text) = warning.to_str().ok().and_then(warning_text) {
                        self.tell(Duration::ZERO, text);
                    }
                }
                return Ok((response, at_home));
            };
            let next = next.map_err(|text| {
                Failure::last(Error::Network(format!("{} \"{url}\": {text}", call.verb())))
            })?;
            if url.scheme() == "https" && next.scheme() != "https" && !endpoint.is_insecure {
                return Err(Failure::last(Error::Network(format!(
                    "{} \"{url}\": redirect to `{next}` refused: it would leave TLS",
                    call.verb()
                ))));
            }
            if response.status() == StatusCode::SEE_OTHER && method != Method::HEAD {
                method = Method::GET;
            }
            url = next;
        }
        Err(Failure::last(Error::Network(format!(
            "{} \"{url}\": stopped after {REDIRECTS_MAX} redirects",
            call.verb()
        ))))
    }

    /// Sends, and gives up when nothing moves any more.
    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        call: &Call,
        url: &Url,
        pulse: &Pulse,
    ) -> std::result::Result<Response, Failure> {
        let stall = self.state.config.stall_timeout.max(call.patience);
        let mut sending = std::pin::pin!(request.send());
        let sent = loop {
            let deadline = tokio::time::Instant::from_std(pulse.last() + stall);
            tokio::select! {
                sent = &mut sending => break sent,
                () = tokio::time::sleep_until(deadline) => {
                    if pulse.last().elapsed() >= stall {
                        let text = format!(
                            "{} \"{url}\": net/http: timeout awaiting response headers",
                            call.verb()
                        );
                        return Err(Failure::passing(Error::Network(text)));
                    }
                }
            }
        };
        match sent {
            Ok(response) => Ok(response),
            Err(error) => {
                let (dialled, via_proxy) = self.state.dialled(url).await;
                let cause = network::cause(&error, &dialled, via_proxy);
                let text = format!("{} \"{url}\": {}", call.verb(), cause.text);
                let error = Error::Network(text);
                Err(if cause.is_final {
                    Failure::last(error)
                } else {
                    Failure::passing(error)
                })
            }
        }
    }

    /// Reads a body up to a size, and gives up when nothing comes any more.
    async fn body(
        &self,
        mut response: Response,
        size_max: usize,
    ) -> std::result::Result<Bytes, String> {
        let mut body = BytesMut::new();
        while let Some(piece) = next_piece(&mut response, self.state.config.stall_timeout).await? {
            if body.len() + piece.len() > size_max {
                return Err(format!("the answer is larger than {size_max} bytes"));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
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
        let is_answer = status.as_u16() < 400 || call.accepts(status.as_u16());
        if !is_answer {
            let body = self.body(response, BODY_SIZE_MAX).await.unwrap_or_default();
            let refusal = refusal(status, &headers, &body);
            let again = match retry::retry_after(header_text(&headers, "retry-after")) {
                _ if !retry::is_passing(status.as_u16()) => Again::Never,
                Some(wait) => Again::After(wait),
                None => Again::Later,
            };
            return Err(Failure {
                error: refusal.into_error(status.as_u16()),
                again,
            });
        }
        let mut reply = Reply {
            status,
            headers,
            body: Bytes::new(),
            stream: None,
            url,
            host: endpoint.host.clone(),
        };
        match reading {
            Reading::Stream => reply.stream = Some(response),
            Reading::Whole { size_max, check } => {
                reply.body = self.body(response, size_max).await.map_err(broken)?;
                if status.is_success() {
                    check(&reply)?;
                }
            }
        }
        Ok(reply)
    }
}

/// Gives the next piece of a body; the error is a cause in Go's words.
pub(crate) async fn next_piece(
    response: &mut Response,
    stall: Duration,
) -> std::result::Result<Option<Bytes>, String> {
    match tokio::time::timeout(stall, response.chunk()).await {
        Err(_) => Err(format!("no data for {} s", stall.as_secs_f32())),
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(error)) => {
            let host = endpoint::authority(response.url());
            Err(network::cause(&error, &host, false).text)
        }
    }
}

/// A body that breaks off is told without its request, as Docker does.
fn broken(cause: String) -> Failure {
    Failure::passing(Error::Network(cause))
}

fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
    Refusal::read(
        status.as_u16(),
        &reason(status),
        &challenges(headers),
        header_text(headers, "content-type"),
        body,
    )
}

/// Says which request failed for lack of authorization, as Go does.
fn wrapped(failure: Failure, call: &Call, url: &Url) -> Failure {
    if call.is_untold {
        return failure;
    }
    let wrap = |text: &str| format!("{} \"{url}\": {text}", call.verb());
    let error = match failure.error {
        Error::Registry {
            status,
            codes,
            text,
        } => Error::Registry {
            status,
            codes,
            text: wrap(&text),
        },
        Error::RateLimited(text) => Error::RateLimited(wrap(&text)),
        Error::Network(text) => Error::Network(wrap(&text)),
        other => other,
    };
    Failure { error, ..failure }
}

pub(crate) fn token_key(
    challenge: &Challenge,
    scopes: &[String],
    credentials: &Credentials,
) -> TokenKey {
    TokenKey {
        realm: challenge.parameter_or_empty("realm").to_owned(),
        service: challenge.parameter_or_empty("service").to_owned(),
        scopes: scopes.to_vec(),
        credentials: credentials.clone(),
    }
}

fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(challenge::parse)
        .collect()
}

/// Gives a status as its line has it: `404 Not Found`.
pub(crate) fn reason(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(words) => format!("{} {words}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

fn is_same_host(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// Tells where a response leads to, if it does.
fn redirect(
    response: &Response,
    method: &Method,
    url: &Url,
) -> Option<std::result::Result<Url, String>> {
    let reads = *method == Method::GET || *method == Method::HEAD;
    let leads = match response.status().as_u16() {
        301..=303 => reads,
        307 | 308 => true,
        _ => false,
    };
    if !leads {
        return None;
    }
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    Some(location_of(url, location))
}

/// Resolves a `Location` against the address that gave it.
pub(crate) fn location_of(url: &Url, location: &str) -> std::result::Result<Url, String> {
    let next = url
        .join(location)
        .map_err(|error| format!("failed to parse Location header \"{location}\": {error}"))?;
    if matches!(next.scheme(), "http" | "https") {
        Ok(next)
    } else {
        Err(format!("unsupported protocol scheme \"{}\"", next.scheme()))
    }
}

/// Reads `299 - "text"`.
fn warning_text(header: &str) -> Option<&str> {
    let text = header.strip_prefix("299 - ")?.trim();
    text.strip_prefix('"')?.strip_suffix('"')
}
