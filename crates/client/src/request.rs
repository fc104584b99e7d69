//! Requests and responses of the API: queries, bodies, JSON and JSON streams.

use crate::error::Error;
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::{HeaderMap, Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// What a query value keeps unescaped; the set of Go's `url.QueryEscape`.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// What a path keeps unescaped; the set of Go's `URL.EscapedPath`.
const PATH: &AsciiSet = &UNRESERVED
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// Escapes a query value.
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// The path of an API route, unescaped, or why there is none: a name that is empty is an error of the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(Result<String, String>);

/// Takes the spaces around an object's name away, as Docker's client does. `kind` is `container` and the like.
///
/// # Errors
/// The text of a name of nothing else.
pub fn trimmed<'a>(kind: &str, name: &'a str) -> Result<&'a str, String> {
    match name.trim() {
        "" => Err(format!("invalid {kind} name or ID: value is empty")),
        name => Ok(name),
    }
}

impl From<String> for Path {
    fn from(text: String) -> Path {
        Path(Ok(text))
    }
}

impl From<&str> for Path {
    fn from(text: &str) -> Path {
        Path(Ok(text.to_owned()))
    }
}

impl Path {
    /// Makes the path of an object: that of its kind, its name, and `rest`. An empty name is the call's error.
    pub fn object(kind: &str, name: &str, rest: &str) -> Path {
        Path(trimmed(kind, name).map(|name| format!("/{kind}s/{name}{rest}")))
    }

    /// Joins the path to what comes before it, cleans and escapes it, as Go's `path.Join` and `URL.String` do: names
    /// keep their slashes, and `..` leaves what is before it.
    ///
    /// # Errors
    /// An empty name.
    pub(crate) fn encode(self, before: &str) -> Result<String, Error> {
        let path = format!("{before}/{}", self.0.map_err(Error::Invalid)?);
        let segments = gantry_api::path::segments(&path);
        Ok(utf8_percent_encode(&format!("/{}", segments.join("/")), PATH).to_string())
    }
}

/// A query string; pairs are sorted by key when sent, as Docker's client sorts them.
#[derive(Debug, Default, Clone)]
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Makes an empty query.
    pub fn new() -> Query {
        Query::default()
    }

    /// Adds a pair.
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Query {
        self.0.push((key, value.into()));
        self
    }

    /// Adds a pair if the condition holds.
    pub fn when(self, condition: bool, key: &'static str, value: impl Into<String>) -> Query {
        if condition {
            self.with(key, value)
        } else {
            self
        }
    }

    /// Returns `?a=1&b=2`, or nothing.
    pub fn encode(&self) -> String {
        let mut pairs: Vec<_> = self.0.iter().collect();
        pairs.sort_by_key(|(key, _)| *key);
        let mut out = String::new();
        for (index, (key, value)) in pairs.into_iter().enumerate() {
            out.push(if index == 0 { '?' } else { '&' });
            out.push_str(key);
            out.push('=');
            // Spaces are `+` in Go's encoding.
            out.push_str(&escape(value).replace("%20", "+"));
        }
        out
    }
}

/// A request's body.
pub enum Body {
    Empty,
    /// JSON with Content-Type application/json.
    Json(Vec<u8>),
    /// Chunks from elsewhere; the sender's end ends the body.
    Stream {
        content_type: &'static str,
        chunks: mpsc::Receiver<Result<Bytes, std::io::Error>>,
    },
}

/// A request to one API route.
pub struct Request {
    pub method: Method,
    /// The path after the version, beginning with `/`.
    pub path: Path,
    pub query: Query,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
}

impl Request {
    /// Makes a request without a body.
    pub fn new(method: Method, path: impl Into<Path>) -> Request {
        Request {
            method,
            path: path.into(),
            query: Query::new(),
            headers: Vec::new(),
            body: Body::Empty,
        }
    }

    /// Makes a GET.
    pub fn get(path: impl Into<Path>) -> Request {
        Request::new(Method::GET, path)
    }

    /// Makes a POST.
    pub fn post(path: impl Into<Path>) -> Request {
        Request::new(Method::POST, path)
    }

    /// Makes a DELETE.
    pub fn delete(path: impl Into<Path>) -> Request {
        Request::new(Method::DELETE, path)
    }

    /// Sets the query.
    pub fn query(mut self, query: Query) -> Request {
        self.query = query;
        self
    }

    /// Sets a JSON body.
    pub fn json<T: serde::Serialize>(mut self, value: &T) -> Result<Request, Error> {
        let mut bytes = serde_json::to_vec(value)
            .map_err(|error| Error::Decode(format!("encode request: {error}")))?;
        bytes.push(b'\n');
        self.body = Body::Json(bytes);
        Ok(self)
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Request {
        self.headers.push((name, value.into()));
        self
    }
}

/// The body type given to hyper.
pub enum Outgoing {
    Whole(Option<Bytes>),
    Chunks(mpsc::Receiver<Result<Bytes, std::io::Error>>),
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match self.get_mut() {
            Outgoing::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Outgoing::Chunks(chunks) => chunks
                .poll_recv(cx)
                .map(|chunk| chunk.map(|chunk| chunk.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Outgoing::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Outgoing::Chunks(_) => SizeHint::default(),
        }
    }
}

/// A successful answer whose body has not been read.
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub(crate) body: Incoming,
    pub(crate) pending: Bytes,
    pub(crate) keep: Option<crate::connection::Keep>,
}

impl Response {
    /// Returns a header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.body.frame().await {
                None => {
                    if let Some(keep) = self.keep.take() {
                        keep.give_back();
                    }
                    return Ok(None);
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => continue,
                    Ok(data) => return Ok(Some(data)),
                    Err(_) => continue,
                },
                Some(Err(error)) => return Err(Error::Transport(error.to_string())),
            }
        }
    }

    /// Reads the whole body.
    pub async fn bytes(mut self) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            out.extend_from_slice(&chunk);
        }
        Ok(out)
    }

    /// Reads the body as one JSON value.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::Decode(format!("decode the daemon's answer: {error}")))
    }

    /// Reads the next value of a stream of JSON values; `None` at its end.
    pub async fn next_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        loop {
            let mut stream = serde_json::Deserializer::from_slice(&self.pending).into_iter::<T>();
            match stream.next() {
                Some(Ok(value)) => {
                    let used = stream.byte_offset();
                    self.pending.advance(used);
                    return Ok(Some(value));
                }
                Some(Err(error)) if !error.is_eof() => {
                    return Err(Error::Decode(format!(
                        "decode the daemon's answer: {error}"
                    )));
                }
                _ => {}
            }
            match self.chunk().await? {
                Some(chunk) if self.pending.is_empty() => self.pending = chunk,
                Some(chunk) => {
                    let mut joined = Vec::with_capacity(self.pending.len() + chunk.len());
                    joined.extend_from_slice(&self.pending);
                    joined.extend_from_slice(&chunk);
                    self.pending = Bytes::from(joined);
                }
                None if self.pending.iter().all(u8::is_ascii_whitespace) => return Ok(None),
                None => return Err(Error::Decode("unexpected EOF".to_owned())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_escaped_as_go_does() {
        for (name, expected) in [
            ("web", "/v1.51/networks/web"),
            ("//web/", "/v1.51/networks/web"),
            (" /a//b c ", "/v1.51/networks/a/b%20c"),
            ("/", "/v1.51/networks"),
            ("..", "/v1.51"),
            ("a/../../x", "/v1.51/x"),
            ("a%20b?#é", "/v1.51/networks/a%2520b%3F%23%C3%A9"),
            (
                "a'b(c)!*:@&=+$,;~_-.",
                "/v1.51/networks/a%27b%28c%29%21%2A:@&=+$,;~_-.",
            ),
            (
                r#""<>[]^`{|}\"#,
                "/v1.51/networks/%22%3C%3E%5B%5D%5E%60%7B%7C%7D%5C",
            ),
        ] {
            let path = Path::object("network", name, "").encode("/v1.51").unwrap();
            assert_eq!(path, expected, "{name}");
        }
        let path = Path::from("/_ping").encode("").unwrap();
        assert_eq!(path, "/_ping");
        for name in ["", " \t"] {
            let refused = Path::object("container", name, "/json")
                .encode("")
                .unwrap_err();
            assert_eq!(
                refused.to_string(),
                "invalid container name or ID: value is empty"
            );
        }
    }

    #[test]
    fn queries_are_sorted_and_escaped_as_go_does() {
        let query = Query::new()
            .with("path", "/f a")
            .with("noOverwriteDirNonDir", "true");
        assert_eq!(query.encode(), "?noOverwriteDirNonDir=true&path=%2Ff+a");
        assert_eq!(Query::new().encode(), "");
        let query = Query::new().with("filters", r#"{"type":{"container":true}}"#);
        assert_eq!(
            query.encode(),
            "?filters=%7B%22type%22%3A%7B%22container%22%3Atrue%7D%7D"
        );
    }
}
