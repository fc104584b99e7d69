//! One request as it is meant, before it is known who answers it.

use bytes::Bytes;
use gantry_api::digest::Digest;
use hyper::body::{Body, Frame, SizeHint};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A body goes out in pieces of this size, so that its progress can be seen.
const SLICE: usize = 64 * 1024;

const PATIENCE: Duration = Duration::from_secs(600);

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
    accepts: Accepts,
    /// The blob that is asked for: mirrors that gave wrong bytes of it are passed over.
    pub(crate) blob: Option<Digest>,
    /// For error texts: Docker asks with HEAD first, so that a refusal is one of this method.
    first_by_head: bool,
    /// The body is for one host alone: it holds a password.
    pub(crate) is_secret: bool,
    /// How long the answer may take where that is longer than a stall.
    pub(crate) patience: Duration,
    /// For error texts: where authorization is refused, Docker does not tell of which request.
    pub(crate) is_untold: bool,
}

/// Which statuses other than a success are an answer and no error.
#[derive(Clone, Copy)]
enum Accepts {
    These(&'static [u16]),
    All,
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
            accepts: Accepts::These(&[]),
            blob: None,
            first_by_head: false,
            is_secret: false,
            patience: Duration::ZERO,
            is_untold: false,
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

    /// Asks for this blob.
    pub(crate) fn of_blob(mut self, digest: &Digest) -> Self {
        self.blob = Some(digest.clone());
        self
    }

    /// Takes some statuses other than a success for answers.
    pub(crate) fn accepting(mut self, statuses: &'static [u16]) -> Self {
        self.accepts = Accepts::These(statuses);
        self
    }

    /// Takes all statuses for answers.
    pub(crate) fn accepting_all(mut self) -> Self {
        self.accepts = Accepts::All;
        self
    }

    /// Has errors before an answer told as those of a HEAD.
    pub(crate) fn told_as_head(mut self) -> Self {
        self.first_by_head = true;
        self
    }

    /// Keeps the body at its host: a redirect elsewhere is refused.
    pub(crate) fn secret(mut self) -> Self {
        self.is_secret = true;
        self
    }

    /// Lets the answer take long: the registry may have to read all of a blob again.
    pub(crate) fn patient(mut self) -> Self {
        self.patience = PATIENCE;
        self
    }

    /// Has a refusal of authorization told without the request.
    pub(crate) fn untold(mut self) -> Self {
        self.is_untold = true;
        self
    }

    pub(crate) fn accepts(&self, status: u16) -> bool {
        match self.accepts {
            Accepts::These(statuses) => statuses.contains(&status),
            Accepts::All => true,
        }
    }

    /// Gives the method as Go writes it into its errors: `Get`.
    pub(crate) fn verb(&self) -> String {
        let name = if self.first_by_head {
            "HEAD"
        } else {
            self.method.as_str()
        };
        let (first, rest) = name.split_at(name.len().min(1));
        first.to_owned() + &rest.to_lowercase()
    }
}

/// Tells when a request last moved, and whether all of it is on its way.
#[derive(Clone)]
pub(crate) struct Pulse(Arc<Mutex<Beat>>);

#[derive(Clone, Copy)]
pub(crate) struct Beat {
    pub(crate) last: Instant,
    pub(crate) is_sent: bool,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        let beat = Beat {
            last: Instant::now(),
            is_sent: true,
        };
        Self(Arc::new(Mutex::new(beat)))
    }

    pub(crate) fn beat(&self) -> Beat {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, is_sent: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Beat {
            last: Instant::now(),
            is_sent,
        };
    }
}

/// A body that beats a [`Pulse`] with each piece that the connection takes.
pub(crate) struct Paced {
    rest: Bytes,
    pulse: Pulse,
}

impl Paced {
    pub(crate) fn new(body: Bytes, pulse: Pulse) -> Self {
        pulse.set(body.is_empty());
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
        self.pulse.set(self.rest.is_empty());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
