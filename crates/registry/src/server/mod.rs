//! HTTP: connections, and the way of a request from its path to its answer.
//!
//! Every wait has an end: a connection that says nothing, a body that stops, a shutdown with requests under way.

mod blob;
mod body;
mod list;
mod listen;
mod manifest;
mod other;
mod pace;
mod route;
mod upload;

pub use listen::{serve, serve_metrics};

pub(crate) use blob::Source;
pub(crate) use body::{Body, read_piece};

use crate::auth::Caller;
use crate::auth::access::Action;
use crate::error::{Code, Error, Result};
use crate::name::Name;
use crate::registry::Registry;
use crate::store::Adopt;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use route::{Query, Route};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How much of a body that nobody wants is taken, so that its client reads the answer.
const DISCARD_BYTES: u64 = 16 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Is a request without its body.
pub(crate) struct Call {
    pub registry: Arc<Registry>,
    pub method: Method,
    pub headers: HeaderMap,
    pub query: Query,
    pub caller: Caller,
    /// `https://HOST`, as the client called this registry.
    pub base: String,
    /// The upstream that the client meant by `?ns=`.
    pub namespace: Option<String>,
    /// Whether anything of the body was asked for.
    pub is_body_read: AtomicBool,
}

impl Call {
    /// Gives a header as text.
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        header(&self.headers, &name)
    }

    /// Tells whether the client may do something with a repository.
    pub fn may(&self, name: &Name, action: Action) -> bool {
        self.registry.auth.may(&self.caller, name, action)
    }

    /// Says whether the engine's blobs may be taken into a repository for the client.
    pub fn adopt(&self, name: &Name) -> Adopt {
        let registry = &self.registry;
        if !registry.options.is_read_only && registry.auth.may_adopt(&self.caller, name) {
            Adopt::Yes
        } else {
            Adopt::No
        }
    }

    /// Refuses what the client may not do with a repository.
    pub fn demand(&self, name: &Name, actions: &[Action]) -> Result<()> {
        if actions.iter().all(|action| self.may(name, *action)) {
            return Ok(());
        }
        Err(match self.caller {
            Caller::User(_) => Code::Denied.into(),
            _ => Code::Unauthorized.into(),
        })
    }
}

/// Answers one request, and says so in the log.
async fn answer(
    registry: Arc<Registry>,
    request: Request<Incoming>,
    peer: SocketAddr,
    scheme: &'static str,
) -> Response<Body> {
    let began = Instant::now();
    let (head, mut body) = request.into_parts();
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let host = header(&head.headers, &hyper::header::HOST).unwrap_or("localhost");
    let base = match &registry.options.public_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("{scheme}://{host}"),
    };
    let path = head.uri.path().to_owned();
    let mut call = Call {
        registry: Arc::clone(&registry),
        method: head.method,
        headers: head.headers,
        query,
        caller: Caller::Anonymous,
        base,
        namespace: None,
        is_body_read: AtomicBool::new(false),
    };
    let mut kind = "other";
    let mut scope = None;
    let result = match Route::parse(&path) {
        Ok(Some(mut route)) => {
            kind = route.kind();
            dispatch(&mut call, &mut route, &mut body, &mut scope).await
        }
        Ok(None) => Err(Error::new(Code::NameUnknown, serde_json::Value::Null)),
        Err(error) => Err(error),
    };
    let is_silent = result
        .as_ref()
        .is_err_and(|error| error.code == Code::Interrupted);
    let mut response =
        result.unwrap_or_else(|error| refuse(&call, &error, scope.as_deref(), &path));
    // One that waits for `100 Continue` sends nothing unless it is asked to.
    let is_waiting = call.headers.contains_key(hyper::header::EXPECT)
        && !call.is_body_read.load(Ordering::Relaxed);
    if !is_waiting && !is_silent && !hyper::body::Body::is_end_stream(&body) {
        discard(&mut body).await;
    }
    response.headers_mut().insert(
        "docker-distribution-api-version",
        HeaderValue::from_static("registry/2.0"),
    );
    if let Some(namespace) = &call.namespace {
        set(&mut response, "oci-namespace", namespace);
    }
    if call.method == Method::HEAD {
        let length = response.body().length();
        if length > 0 || response.status() == StatusCode::OK {
            set(
                &mut response,
                hyper::header::CONTENT_LENGTH,
                &length.to_string(),
            );
        }
        *response.body_mut() = Body::empty();
    }
    let (status, took) = (response.status().as_u16(), began.elapsed());
    registry
        .metrics
        .answered(kind, method_word(&call.method), status, took);
    tracing::info!(
        target: "gantry_registry::access",
        client = %peer,
        user = call.caller.name(),
        method = %call.method,
        path,
        status,
        bytes = response.body().length(),
        ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "request"
    );
    let sent = Arc::clone(&registry.metrics.bytes_sent);
    response.map(|body| body.counted(sent))
}

/// Finds out who asks, whether he may, and lets the route answer.
async fn dispatch(
    call: &mut Call,
    route: &mut Route,
    body: &mut Incoming,
    scope: &mut Option<String>,
) -> Result<Response<Body>> {
    let registry = Arc::clone(&call.registry);
    match route {
        Route::Health => return other::health(call),
        Route::Token => return other::token(call, body).await,
        _ => {}
    }
    let is_read = matches!(call.method, Method::GET | Method::HEAD);
    let cached = match (&registry.cache, route.name()) {
        (Some(cache), Some(name)) => {
            cache
                .repository(name, call.query.get("ns"), is_read)
                .await?
        }
        _ => None,
    };
    let is_cached = cached.is_some();
    if is_cached {
        call.namespace = call.query.get("ns").map(str::to_owned);
    }
    if let Some(name) = cached {
        route.rename(name);
    }
    let actions: &[Action] = match (&*route, &call.method) {
        (Route::Upload(..) | Route::Uploads(_), _) => &[Action::Pull, Action::Push],
        (_, &Method::GET | &Method::HEAD) => &[Action::Pull],
        (_, &Method::DELETE) => &[Action::Delete],
        _ => &[Action::Pull, Action::Push],
    };
    if let Some(name) = route.name() {
        let words: Vec<&str> = actions.iter().map(|action| action.word()).collect();
        *scope = Some(format!("repository:{name}:{}", words.join(",")));
    } else if matches!(route, Route::Catalog) {
        *scope = Some("registry:catalog:*".to_owned());
    } else if matches!(route, Route::Metrics | Route::Collect) {
        *scope = Some(crate::auth::ADMIN_SCOPE.to_owned());
    }
    let authorization = header(&call.headers, &hyper::header::AUTHORIZATION);
    call.caller = registry.auth.caller(authorization).await?;
    if let Some(name) = route.name() {
        call.demand(name, actions)?;
        if !is_read && (registry.options.is_read_only || is_cached) {
            let why = if is_cached {
                "the repository is a cache of another registry's"
            } else {
                "the registry is read-only"
            };
            return Err(Error::new(Code::Unsupported, why));
        }
    }
    let call = &*call;
    match (&*route, &call.method) {
        (Route::Base, &Method::GET | &Method::HEAD) => other::base(call),
        (Route::Catalog, &Method::GET) => list::catalog(call).await,
        (Route::Tags(name), &Method::GET) => list::tags(call, name, is_cached).await,
        (Route::Referrers(name, digest), &Method::GET) => {
            list::referrers(call, name, digest, is_cached).await
        }
        (Route::Manifest(name, reference), &Method::GET | &Method::HEAD) => {
            manifest::get(call, name, reference, is_cached).await
        }
        (Route::Manifest(name, reference), &Method::PUT) => {
            manifest::put(call, name, reference, body).await
        }
        (Route::Manifest(name, reference), &Method::DELETE) => {
            manifest::delete(call, name, reference).await
        }
        (Route::Blob(name, digest), &Method::GET | &Method::HEAD) => {
            blob::get(call, name, digest, is_cached).await
        }
        (Route::Blob(name, digest), &Method::DELETE) => blob::delete(call, name, digest).await,
        (Route::Uploads(name), &Method::POST) => upload::begin(call, name, body).await,
        (Route::Upload(name, id), &Method::GET) => upload::status(call, name, id).await,
        (Route::Upload(name, id), &Method::PATCH) => upload::patch(call, name, id, body).await,
        (Route::Upload(name, id), &Method::PUT) => upload::put(call, name, id, body).await,
        (Route::Upload(name, id), &Method::DELETE) => upload::cancel(call, name, id).await,
        (Route::Metrics, &Method::GET) => other::metrics(call),
        (Route::Collect, &Method::POST) => other::collect(call).await,
        _ => Err(Code::Unsupported.into()),
    }
}

/// Makes the answer to a failed request.
fn refuse(call: &Call, error: &Error, scope: Option<&str>, path: &str) -> Response<Body> {
    let (_, status) = error.code.wire();
    if status >= 500 {
        tracing::error!(method = %call.method, path, error = causes(error), "request failed");
    } else if error.cause.is_some() {
        tracing::debug!(method = %call.method, path, error = causes(error), "request refused");
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, &error.body());
    match error.code {
        Code::Unauthorized => {
            if let Some(challenge) = call
                .registry
                .auth
                .challenge(&call.base, scope, &call.caller)
            {
                set(&mut response, hyper::header::WWW_AUTHENTICATE, &challenge);
            }
        }
        Code::TooManyRequests | Code::Busy => set(&mut response, hyper::header::RETRY_AFTER, "1"),
        _ => {}
    }
    for (name, value) in upload::headers_of(error) {
        set(&mut response, name, &value);
    }
    response
}

/// Writes an error with all its causes.
pub(crate) fn causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Takes the rest of a small body and forgets it: a client that is still sending would not read the answer.
async fn discard(body: &mut Incoming) {
    let rest = async {
        let mut taken = 0;
        while let Some(Ok(frame)) = body.frame().await {
            taken += frame.data_ref().map_or(0, |data| data.len() as u64);
            if taken > DISCARD_BYTES {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIME, rest).await;
}

/// Runs what may block in the pool for it.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Gives a method's word for the counters: whoever makes up methods makes no new counters.
fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Sets a header; a value that cannot be one is left out.
fn set(response: &mut Response<Body>, name: impl hyper::header::IntoHeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// Makes an answer without a body.
fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Makes an answer of JSON and a line feed.
fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::whole(format!("{value}\n")));
    *response.status_mut() = status;
    set(
        &mut response,
        hyper::header::CONTENT_TYPE,
        "application/json",
    );
    response
}
