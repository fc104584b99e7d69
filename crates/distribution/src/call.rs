//! One request as it is meant, before it is known who answers it.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

/// A body goes out in pieces of this size, so that its progress can be seen.
const SLICE: usize = 64 * 1024;

/// What is asked for, and where.
#[derive(Clone)]
pub(crate) enum Target {
    /// Below the registry's `/v2/`.
    Path(String),
    /// An address that the registry gave.
    Url(Url),
}

/// A request that can be made again as often as needed.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// `repository:a/b:pull` and the like.
    pub(crate) scopes: Vec<String>,
    /// Statuses from 400 on that are an answer and no error.
    pub(crate) accepts: &'static [u16],
    /// How errors name the request.
    pub(crate) named: Named,
}

/// How errors name a request: Docker makes other requests than this client in places, and its texts tell of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    ByMethod,
    /// `Head`, whatever the method.
    AsHead,
    /// Where authorization is refused the request is not told.
    Not,
}

impl Call {
    pub(crate) fn new(method: Method, path: String, scopes: Vec<String>) -> Self {
        Self::to(method, Target::Path(path), scopes)
    }

    pub(crate) fn to(method: Method, target: Target, scopes: Vec<String>) -> Self {
        Self {
            method,
            target,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            scopes,
            accepts: &[],
            named: Named::ByMethod,
        }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    pub(crate) fn body(mut self, media_type: &str, body: Bytes) -> Self {
        if let Ok(value) = HeaderValue::from_str(media_type) {
            self.headers.insert(reqwest::header::CONTENT_TYPE, value);
        }
        self.body = body;
        self
    }

    pub(crate) fn accepting(mut self, statuses: &'static [u16]) -> Self {
        self.accepts = statuses;
        self
    }

    pub(crate) fn named(mut self, named: Named) -> Self {
        self.named = named;
        self
    }

    /// Gives the method as Go writes it into its errors: `Get`.
    pub(crate) fn verb(&self) -> String {
        if self.named == Named::AsHead {
            return "Head".to_owned();
        }
        let name = self.method.as_str();
        let (first, rest) = name.split_at(name.len().min(1));
        first.to_owned() + &rest.to_lowercase()
    }
}

/// Tells when a request last moved.
#[derive(Clone)]
pub(crate) struct Pulse(Arc<Mutex<Instant>>);

impl Pulse {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(crate) fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// A body that beats a [`Pulse`] with each piece that the connection takes.
pub(crate) struct Paced {
    rest: Bytes,
    pulse: Pulse,
}

impl Paced {
    pub(crate) fn new(body: Bytes, pulse: Pulse) -> Self {
        Self { rest: body, pulse }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(SLICE);
        let piece = self.rest.split_to(length);
        self.pulse.beat();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
