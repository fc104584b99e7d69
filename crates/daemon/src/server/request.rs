//! What a handler gets, and how it reads a JSON body.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_api::error::ApiError;
use gantry_api::filters::Filters;
use gantry_api::fold::{self, Shaped};
use http_body_util::{BodyExt as _, Limited};
use hyper::HeaderMap;
use hyper::body::{Body as _, Incoming};
use hyper::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;

use super::connection::Handle;
use super::query::Query;
use super::version::ApiVersion;
use crate::Daemon;

/// The longest JSON body. A create with 100,000 characters of environment is far below it.
const JSON_BYTES_MAX: usize = 8 << 20;

/// One request on its way to a handler.
pub struct Request {
    pub daemon: Arc<Daemon>,
    pub version: ApiVersion,
    pub query: Query,
    pub headers: HeaderMap,
    pub body: Incoming,
    pub connection: Handle,
}

impl Request {
    /// Reads the parameter `filters` and refuses keys that are not accepted.
    pub fn filters(&self, accepted: &[&str]) -> Result<Filters, ApiError> {
        let filters = Filters::parse(self.query.text("filters"))?;
        filters.validate(accepted)?;
        Ok(filters)
    }

    /// Tells whether the client asks for another protocol on this connection.
    pub fn wants_upgrade(&self) -> bool {
        self.headers.contains_key(hyper::header::UPGRADE)
    }

    /// Tells whether the client wants the connection closed after the answer (RFC 9112, section 9.6).
    pub fn wants_close(&self) -> bool {
        self.headers
            .get_all(hyper::header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case("close"))
    }

    /// Reads the body as JSON; an empty one is `None`.
    pub async fn json<T: DeserializeOwned + Shaped>(&mut self) -> Result<Option<T>, ApiError> {
        self.check_json_type()?;
        let bytes = self.bytes(JSON_BYTES_MAX).await?;
        parse_json(&bytes)
    }

    /// Reads the body as JSON and gives the default for an empty one.
    pub async fn json_or_default<T: DeserializeOwned + Shaped + Default>(
        &mut self,
    ) -> Result<T, ApiError> {
        Ok(self.json().await?.unwrap_or_default())
    }

    /// Reads the whole body up to a limit.
    pub async fn bytes(&mut self, bytes_max: usize) -> Result<Bytes, ApiError> {
        match Limited::new(&mut self.body, bytes_max).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => Err(ApiError::invalid(format!(
                "reading the request's body: {error}"
            ))),
        }
    }

    /// Reads what the client still sends and forgets it: one that is refused while it sends an archive would see a broken
    /// pipe in place of the answer.
    pub async fn discard_body(mut self) {
        discard(&mut self.body).await;
    }

    fn check_json_type(&self) -> Result<(), ApiError> {
        let content_type = self
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("");
        if content_type.is_empty() && self.body.is_end_stream() {
            return Ok(());
        }
        let media_type = content_type.split(';').next().unwrap_or("").trim();
        if media_type.is_empty() {
            return Err(ApiError::invalid(format!(
                "malformed Content-Type header ({content_type}): mime: no media type"
            )));
        }
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::invalid(format!(
                "unsupported Content-Type header ({content_type}): must be 'application/json'"
            )));
        }
        Ok(())
    }
}

/// How long the rest of a body that nobody wants is taken from its client.
pub const DISCARD_MAX: Duration = Duration::from_secs(30);

/// Takes the rest of a body and forgets it, for a while: a client that never ends it gets no more patience.
pub async fn discard(body: &mut Incoming) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(DISCARD_MAX, rest).await;
}

fn parse_json<T: DeserializeOwned + Shaped>(bytes: &[u8]) -> Result<Option<T>, ApiError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::invalid(
            "invalid JSON: got EOF while reading request body",
        ));
    }
    let mut documents = serde_json::Deserializer::from_slice(bytes).into_iter::<Option<T>>();
    let value = match documents.next() {
        Some(Ok(value)) => value,
        Some(Err(error)) if error.is_eof() => {
            return Err(ApiError::invalid("invalid JSON: unexpected EOF"));
        }
        // Go takes the last of several.
        Some(Err(error)) if is_key_twice(&error) => return parse_folded(bytes),
        Some(Err(error)) => return Err(ApiError::invalid(format!("invalid JSON: {error}"))),
        None => None,
    };
    let rest = &bytes[documents.byte_offset()..];
    if !rest.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::invalid("unexpected content after JSON"));
    }
    if T::names().are_respelled_in(bytes) {
        return parse_folded(bytes);
    }
    Ok(value)
}

fn parse_folded<T: DeserializeOwned + Shaped>(bytes: &[u8]) -> Result<Option<T>, ApiError> {
    fold::from_slice(bytes).map_err(|error| ApiError::invalid(format!("invalid JSON: {error}")))
}

/// Tells whether serde met one field for the second time. It has no kind for that; all else that it may say begins
/// otherwise.
fn is_key_twice(error: &serde_json::Error) -> bool {
    error.is_data() && error.to_string().starts_with("duplicate field `")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::exec::ExecStartRequest;

    fn check(text: &str) -> Result<Option<ExecStartRequest>, String> {
        parse_json(text.as_bytes()).map_err(|error| error.message)
    }

    #[test]
    fn bodies_are_one_document() {
        assert_eq!(check(""), Ok(None));
        assert_eq!(check("null"), Ok(None));
        assert!(check("{\"Detach\":true}\n").unwrap().unwrap().detach);
        assert_eq!(check("{}{}").unwrap_err(), "unexpected content after JSON");
        assert_eq!(check("{} x").unwrap_err(), "unexpected content after JSON");
        assert_eq!(
            check("  ").unwrap_err(),
            "invalid JSON: got EOF while reading request body"
        );
        assert_eq!(
            check("{\"Detach\":").unwrap_err(),
            "invalid JSON: unexpected EOF"
        );
        for text in [
            r#"{"Detach":7}"#,
            r#"{"detach":7}"#,
            r#"{"Tty":true "Tty":true}"#,
            // What is replaced has been read all the same.
            r#"{"Tty":"x","Tty":true}"#,
            r#"{"Tty":true,"Tty":"x","Tty":true}"#,
            r#"{"Tty":"x","tty":true}"#,
            r#"{"tty":true,"Tty":"x","tty":true}"#,
        ] {
            let refused = check(text).unwrap_err();
            assert!(refused.starts_with("invalid JSON: "), "{refused}");
        }
    }

    #[test]
    fn keys_may_be_in_another_case_and_there_twice() {
        for text in [
            r#"{"detach":true}"#,
            r#"{"Detach":false,"DETACH":true}"#,
            r#"{"Detach":false,"Detach":true}"#,
            r#"{"Detach":null,"Detach":true}"#,
        ] {
            let read = check(text).unwrap().unwrap();
            assert!(read.detach && !read.tty, "{text}");
        }
    }
}
