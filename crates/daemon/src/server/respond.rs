//! Responses: JSON as Go's encoder ends it, error bodies, the headers that all bear.

use bytes::Bytes;
use gantry_api::error::{ApiError, ErrorKind, ErrorResponse};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, SERVER};
use hyper::{Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::body::Body;
use super::version::{ENGINE_VERSION, MAX, Unserved};

/// What a handler gives.
pub type Reply = Result<Response<Body>, Failure>;

/// An error on its way to the client, with its causes for the daemon's own log.
#[derive(Debug)]
pub struct Failure {
    pub error: ApiError,
    pub causes: String,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self {
            error,
            causes: String::new(),
        }
    }
}

impl From<gantry_engine::Error> for Failure {
    fn from(error: gantry_engine::Error) -> Self {
        let mut causes = String::new();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            causes.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self {
            error: ApiError::new(error.kind(), error.to_string()),
            causes,
        }
    }
}

/// Answers with JSON and a line feed.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    let mut bytes = serde_json::to_vec(value)
        .map_err(|error| Failure::from(ApiError::system(error.to_string())))?;
    bytes.push(b'\n');
    Ok(with_type(status, "application/json", Body::whole(bytes)))
}

/// Answers 200 with JSON.
pub fn ok<T: Serialize>(value: &T) -> Reply {
    json(StatusCode::OK, value)
}

/// Answers a status without a body.
pub fn status(status: StatusCode) -> Reply {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    Ok(response)
}

/// Answers 204.
pub fn no_content() -> Reply {
    status(StatusCode::NO_CONTENT)
}

/// Sends a client that wrote a path in another way to the path as it is served.
pub fn moved(path: &str, query: Option<&str>) -> Response<Body> {
    // All but what may stand in a path as it is (RFC 3986, section 3.3).
    const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'/')
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~')
        .remove(b'!')
        .remove(b'$')
        .remove(b'&')
        .remove(b'\'')
        .remove(b'(')
        .remove(b')')
        .remove(b'*')
        .remove(b'+')
        .remove(b',')
        .remove(b';')
        .remove(b'=')
        .remove(b':')
        .remove(b'@');
    let mut location = utf8_percent_encode(path, ESCAPED).to_string();
    if let Some(query) = query {
        location.push('?');
        location.push_str(query);
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response
        .headers_mut()
        .insert(LOCATION, header_value(&location));
    response
}

/// Answers 200 with a stream of one content type.
pub fn stream(content_type: &'static str, body: Body) -> Reply {
    Ok(with_type(StatusCode::OK, content_type, body))
}

fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Answers an error.
pub fn error(error: &ApiError) -> Response<Body> {
    let status =
        StatusCode::from_u16(error.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if error.kind == ErrorKind::NotModified {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        return response;
    }
    let mut bytes = serde_json::to_vec(&ErrorResponse {
        message: error.message.clone(),
    })
    .unwrap_or_default();
    bytes.push(b'\n');
    with_type(status, "application/json", Body::whole(bytes))
}

/// Answers a version that is not served. Clients that are too old for JSON errors get plain text.
pub fn refused_version(unserved: &Unserved) -> Response<Body> {
    match unserved {
        Unserved::TooOld(_) => with_type(
            StatusCode::BAD_REQUEST,
            "text/plain; charset=utf-8",
            Body::whole(format!("{unserved}\n")),
        ),
        Unserved::TooNew(_) => error(&ApiError::invalid(unserved.to_string())),
    }
}

/// Adds the headers that every response bears.
pub fn add_common_headers(response: &mut Response<Body>) {
    for (name, value) in common_headers() {
        response.headers_mut().insert(name, value);
    }
}

fn common_headers() -> [(HeaderName, HeaderValue); 4] {
    let server = format!("Docker/{ENGINE_VERSION} (linux)");
    [
        (
            HeaderName::from_static("api-version"),
            header_value(&MAX.to_string()),
        ),
        (
            HeaderName::from_static("docker-experimental"),
            HeaderValue::from_static("false"),
        ),
        (
            HeaderName::from_static("ostype"),
            HeaderValue::from_static("linux"),
        ),
        (SERVER, header_value(&server)),
    ]
}

fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Writes the common headers as they stand in a raw response, each with its line end.
pub fn common_header_lines() -> String {
    format!(
        "Api-Version: {MAX}\r\nDocker-Experimental: false\r\nOstype: linux\r\nServer: Docker/{ENGINE_VERSION} (linux)\r\n"
    )
}

/// Separates the objects of a progress stream.
pub const LINE_END: &str = "\r\n";

/// Encodes one value as a line of a stream of JSON objects, with the characters escaped that Go's encoder escapes.
pub fn json_line<T: Serialize>(value: &T, line_end: &str) -> Bytes {
    let text = serde_json::to_string(value).unwrap_or_default();
    let mut out = String::with_capacity(text.len() + line_end.len());
    for c in text.chars() {
        match c {
            // They stand in texts alone: JSON's own signs are others.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push_str(line_end);
    out.into()
}
