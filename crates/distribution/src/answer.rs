//! What a registry says when it refuses: error bodies into codes and Docker's texts. Pure.

use crate::challenge::Challenge;
use crate::{Error, ErrorCode};
use serde_json::Value;

/// How much of an error body is read.
pub(crate) const BODY_SIZE_MAX: usize = 1 << 20;

/// The codes that Docker knows and what it says where the registry gives no message of its own. Others are `unknown`.
const KNOWN: [(&str, &str); 20] = [
    ("UNKNOWN", "unknown error"),
    ("UNSUPPORTED", "The operation is unsupported."),
    ("UNAUTHORIZED", "authentication required"),
    ("DENIED", "requested access to the resource is denied"),
    ("UNAVAILABLE", "service unavailable"),
    ("TOOMANYREQUESTS", "too many requests"),
    (
        "DIGEST_INVALID",
        "provided digest did not match uploaded content",
    ),
    (
        "SIZE_INVALID",
        "provided length did not match content length",
    ),
    ("RANGE_INVALID", "invalid content range"),
    ("NAME_INVALID", "invalid repository name"),
    ("TAG_INVALID", "manifest tag did not match URI"),
    ("NAME_UNKNOWN", "repository name not known to registry"),
    ("MANIFEST_UNKNOWN", "manifest unknown"),
    ("MANIFEST_INVALID", "manifest invalid"),
    (
        "MANIFEST_UNVERIFIED",
        "manifest failed signature verification",
    ),
    ("MANIFEST_BLOB_UNKNOWN", "blob unknown to registry"),
    ("BLOB_UNKNOWN", "blob unknown to registry"),
    ("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"),
    ("BLOB_UPLOAD_INVALID", "blob upload invalid"),
    (
        "PAGINATION_NUMBER_INVALID",
        "invalid number of results requested",
    ),
];

fn known(code: &str) -> Option<(&'static str, &'static str)> {
    KNOWN.iter().copied().find(|(name, _)| *name == code)
}

fn code(name: &str, message: &str, detail: String) -> ErrorCode {
    let (name, default) = known(name).unwrap_or(KNOWN[0]);
    ErrorCode {
        code: name.to_owned(),
        message: if message.is_empty() { default } else { message }.to_owned(),
        detail,
    }
}

/// Gives a code as Docker prints it: `manifest unknown: manifest unknown`.
pub(crate) fn code_text(code: &ErrorCode) -> String {
    format!(
        "{}: {}",
        code.code.to_lowercase().replace('_', " "),
        code.message
    )
}

fn codes_text(codes: &[ErrorCode]) -> String {
    match codes {
        [one] => code_text(one),
        many => many.iter().fold("errors:\n".to_owned(), |text, code| {
            text + &code_text(code) + "\n"
        }),
    }
}

/// Reads `{"errors": [...]}`; entries may be texts instead of objects.
fn errors_of(body: &Value) -> Vec<ErrorCode> {
    let entries = body.get("errors").and_then(Value::as_array);
    entries
        .into_iter()
        .flatten()
        .map(|entry| match entry {
            Value::String(name) => code(name, "", String::new()),
            other => code(
                other["code"].as_str().unwrap_or_default(),
                other["message"].as_str().unwrap_or_default(),
                match &other["detail"] {
                    Value::Null => String::new(),
                    detail => detail.to_string(),
                },
            ),
        })
        .collect()
}

/// Says in Go's words why a body is no JSON.
fn json_complaint(body: &str) -> String {
    match body.trim_start().chars().next() {
        None => "unexpected end of JSON input".to_owned(),
        Some(first @ ('{' | '[' | '"' | '-' | '0'..='9')) if !first.is_ascii_digit() => {
            "unexpected end of JSON input".to_owned()
        }
        Some(first) => format!("invalid character '{first}' looking for beginning of value"),
    }
}

/// Quotes as Go's `%q` does.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_control() => {
                quoted.push_str(&format!("\\x{:02x}", u32::from(control)));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// What an answer with an error status says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) codes: Vec<ErrorCode>,
    pub(crate) text: String,
}

impl Refusal {
    /// Reads a refusal. `reason` is the status line's words, as `500 Internal Server Error`.
    pub(crate) fn read(status: u16, reason: &str, challenges: &[Challenge], body: &[u8]) -> Self {
        if !(400..500).contains(&status) {
            return Self {
                codes: Vec::new(),
                text: format!("received unexpected HTTP status: {reason}"),
            };
        }
        let mut codes: Vec<ErrorCode> = challenges
            .iter()
            .filter_map(|challenge| {
                let name = match challenge.parameter("error")? {
                    "invalid_token" => "UNAUTHORIZED",
                    "insufficient_scope" => "DENIED",
                    _ => return None,
                };
                let message = challenge.parameter("error_description");
                Some(code(name, message.unwrap_or_default(), String::new()))
            })
            .take(1)
            .collect();
        match Self::body(status, body) {
            Ok(more) => codes.extend(more),
            Err(_) if !codes.is_empty() => {}
            Err(_) if status == 401 => codes.push(code("UNAUTHORIZED", "", String::new())),
            Err(text) => return Self { codes, text },
        }
        Self {
            text: codes_text(&codes),
            codes,
        }
    }

    fn body(status: u16, body: &[u8]) -> Result<Vec<ErrorCode>, String> {
        let text = String::from_utf8_lossy(body);
        let complain = |why: &str| {
            format!(
                "error parsing HTTP {status} response body: {why}: {}",
                quoted(&text)
            )
        };
        let value: Value =
            serde_json::from_slice(body).map_err(|_| complain(&json_complaint(&text)))?;
        if let Some(details) = value["details"].as_str().filter(|text| !text.is_empty()) {
            let name = match status {
                401 => "UNAUTHORIZED",
                429 => "TOOMANYREQUESTS",
                _ => "UNKNOWN",
            };
            return Ok(vec![code(name, details, String::new())]);
        }
        let codes = errors_of(&value);
        if codes.is_empty() {
            return Err(complain("no error details found in HTTP response body"));
        }
        Ok(codes)
    }

    /// Makes the error of a request that is not a pull's: the words as they are.
    pub(crate) fn into_error(self, status: u16) -> Error {
        let limited = status == 429 || self.is("TOOMANYREQUESTS");
        if limited {
            return Error::RateLimited(self.text);
        }
        Error::Registry {
            status,
            codes: self.codes,
            text: self.text,
        }
    }

    fn is(&self, name: &str) -> bool {
        self.codes.first().is_some_and(|code| code.code == name)
    }
}

/// Turns a registry's refusal of a pull into what Docker tells: which name was denied, or not found.
///
/// `name` is the repository and `reference` the whole reference, both as people see them.
pub(crate) fn as_pull(error: Error, name: &str, reference: &str) -> Error {
    let Error::Registry { codes, .. } = &error else {
        return error;
    };
    let Some(first) = codes.first() else {
        return error;
    };
    let text = code_text(first);
    Error::NotFound(match first.code.as_str() {
        "DENIED" => format!(
            "pull access denied for {name}, repository does not exist or may require 'docker login': {text}"
        ),
        "MANIFEST_UNKNOWN" => format!("manifest for {reference} not found: {text}"),
        "NAME_UNKNOWN" => format!("repository {name} not found: {text}"),
        _ => return error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(status: u16, body: &str) -> String {
        Refusal::read(status, "500 Internal Server Error", &[], body.as_bytes()).text
    }

    #[test]
    fn texts_are_those_of_docker() {
        for (status, body, expected) in [
            (
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"y"}}]}"#,
                "manifest unknown: manifest unknown",
            ),
            (
                403,
                r#"{"errors":[{"code":"DENIED"}]}"#,
                "denied: requested access to the resource is denied",
            ),
            (
                400,
                r#"{"errors":[{"code":"HOMEMADE","message":"well"}]}"#,
                "unknown: well",
            ),
            (
                429,
                r#"{"details":"too fast"}"#,
                "toomanyrequests: too fast",
            ),
            (401, "", "unauthorized: authentication required"),
            (
                404,
                "",
                r#"error parsing HTTP 404 response body: unexpected end of JSON input: """#,
            ),
            (
                404,
                "<html>\n",
                r#"error parsing HTTP 404 response body: invalid character '<' looking for beginning of value: "<html>\n""#,
            ),
            (
                404,
                "{}",
                r#"error parsing HTTP 404 response body: no error details found in HTTP response body: "{}""#,
            ),
            (
                500,
                "oops",
                "received unexpected HTTP status: 500 Internal Server Error",
            ),
            (
                400,
                r#"{"errors":[{"code":"NAME_INVALID"},{"code":"DENIED","message":"no"}]}"#,
                "errors:\nname invalid: invalid repository name\ndenied: no\n",
            ),
        ] {
            assert_eq!(text(status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_pull_names_what_was_not_found() {
        let refused = |name: &str, status: u16| {
            let body = format!(r#"{{"errors":[{{"code":"{name}"}}]}}"#);
            let refusal = Refusal::read(status, "", &[], body.as_bytes());
            as_pull(refusal.into_error(status), "h/x", "h/x:y").to_string()
        };
        assert_eq!(
            refused("DENIED", 403),
            "pull access denied for h/x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"
        );
        assert_eq!(
            refused("MANIFEST_UNKNOWN", 404),
            "manifest for h/x:y not found: manifest unknown: manifest unknown"
        );
        assert_eq!(
            refused("NAME_UNKNOWN", 404),
            "repository h/x not found: name unknown: repository name not known to registry"
        );
        assert_eq!(
            refused("UNAUTHORIZED", 401),
            "unauthorized: authentication required"
        );
    }
}
