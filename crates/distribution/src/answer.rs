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

/// What Docker writes before several codes.
const SEVERAL: &str = "errors:\n";

fn known(code: &str) -> Option<(&'static str, &'static str)> {
    KNOWN.iter().copied().find(|(name, _)| *name == code)
}

/// Makes a code with words of the registry's own.
fn code(name: &str, message: &str) -> ErrorCode {
    let (name, _) = known(name).unwrap_or(KNOWN[0]);
    ErrorCode {
        code: name.to_owned(),
        message: message.to_owned(),
        detail: String::new(),
        is_bare: false,
    }
}

/// Makes a code with its usual words.
fn usual(name: &str) -> ErrorCode {
    let (name, message) = known(name).unwrap_or(KNOWN[0]);
    code(name, message)
}

/// Gives the code that stands for a status where the body names none.
fn name_of(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHORIZED",
        403 => "DENIED",
        429 => "TOOMANYREQUESTS",
        _ => "UNKNOWN",
    }
}

/// Gives a code as Docker prints it: `manifest unknown: no such tag`, or `manifest unknown` alone.
fn code_text(code: &ErrorCode) -> String {
    let name = code.code.to_lowercase().replace('_', " ");
    if code.is_bare {
        name
    } else {
        format!("{name}: {}", code.message)
    }
}

fn codes_text(codes: &[ErrorCode]) -> String {
    match codes {
        [one] => code_text(one),
        many => many.iter().fold(SEVERAL.to_owned(), |text, code| {
            text + &code_text(code) + "\n"
        }),
    }
}

/// Reads `{"errors": [...]}`.
fn errors_of(body: &Value) -> Vec<ErrorCode> {
    let entries = body.get("errors").and_then(Value::as_array);
    entries
        .into_iter()
        .flatten()
        .filter(|entry| entry.is_object())
        .map(|entry| {
            let mut read = usual(entry["code"].as_str().unwrap_or_default());
            let message = entry["message"].as_str().unwrap_or_default();
            let is_usual = message.is_empty() || message == read.message;
            if !is_usual {
                message.clone_into(&mut read.message);
            }
            read.is_bare = is_usual && entry["detail"].is_null();
            if !entry["detail"].is_null() {
                read.detail = entry["detail"].to_string();
            }
            read
        })
        .collect()
}

/// Says in Go's words why a body is no JSON.
fn json_complaint(body: &str, error: &serde_json::Error) -> String {
    let line = body.lines().nth(error.line().saturating_sub(1));
    let byte = line.and_then(|line| line.as_bytes().get(error.column().saturating_sub(1)));
    match byte {
        Some(byte) if !error.is_eof() => {
            let character = char::from(*byte);
            format!("invalid character '{character}' looking for beginning of value")
        }
        _ => "unexpected end of JSON input".to_owned(),
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
    /// Reads a refusal. `reason` is the status line's words, as `500 Internal Server Error`, and `kind` the body's media
    /// type.
    pub(crate) fn read(
        status: u16,
        reason: &str,
        challenges: &[Challenge],
        kind: &str,
        body: &[u8],
    ) -> Self {
        if !(400..500).contains(&status) {
            return Self {
                codes: Vec::new(),
                text: format!("received unexpected HTTP status: {reason}"),
            };
        }
        let mut codes: Vec<ErrorCode> = challenges.iter().find_map(told).into_iter().collect();
        match Self::body(status, kind, body) {
            Ok(more) => codes.extend(more),
            Err(_) if !codes.is_empty() => {}
            Err(_) if status == 401 => codes.push(usual("UNAUTHORIZED")),
            Err(text) => return Self { codes, text },
        }
        Self {
            text: codes_text(&codes),
            codes,
        }
    }

    fn body(status: u16, kind: &str, body: &[u8]) -> Result<Vec<ErrorCode>, String> {
        let text = String::from_utf8_lossy(body);
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !matches!(kind, "application/json" | "application/vnd.api+json") {
            return Ok(vec![code(name_of(status), &text)]);
        }
        let complain = |why: &str| {
            format!(
                "error parsing HTTP {status} response body: {why}: {}",
                quoted(&text)
            )
        };
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| complain(&json_complaint(&text, &error)))?;
        if let Some(details) = value["details"].as_str().filter(|text| !text.is_empty()) {
            return Ok(vec![code(name_of(status), details)]);
        }
        let codes = errors_of(&value);
        if codes.is_empty() {
            return Err(complain("no error details found in HTTP response body"));
        }
        Ok(codes)
    }

    /// Makes the error of a request that is not a pull's: the words as they are.
    pub(crate) fn into_error(self, status: u16) -> Error {
        if self.is("TOOMANYREQUESTS") {
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

/// Reads the error that a challenge tells (RFC 6750, 3.1).
fn told(challenge: &Challenge) -> Option<ErrorCode> {
    let name = match challenge.parameter("error")? {
        "invalid_token" => "UNAUTHORIZED",
        "insufficient_scope" => "DENIED",
        _ => return None,
    };
    Some(match challenge.parameter_or_empty("error_description") {
        "" => usual(name),
        description => code(name, description),
    })
}

/// Turns a registry's refusal of a pull into what Docker tells: which name was denied, or not found.
///
/// `name` is the repository and `reference` the whole reference, both as people see them.
pub(crate) fn as_pull(error: Error, name: &str, reference: &str) -> Error {
    let Error::Registry {
        status,
        codes,
        text,
    } = &error
    else {
        return error;
    };
    let Some(first) = codes.first() else {
        return error;
    };
    let first_text = code_text(first);
    // What a token server said has the request before it, and Docker does not look into it.
    if !text.starts_with(&first_text) && !text.starts_with(SEVERAL) {
        return error;
    }
    Error::NotFound(match first.code.as_str() {
        "DENIED" if !first.is_bare => format!(
            "pull access denied for {name}, repository does not exist or may require 'docker login': {first_text}"
        ),
        "MANIFEST_UNKNOWN" if !first.is_bare => {
            format!("manifest for {reference} not found: {first_text}")
        }
        "NAME_UNKNOWN" if !first.is_bare => format!("repository {name} not found: {first_text}"),
        "MANIFEST_UNKNOWN" | "NAME_UNKNOWN" => first_text,
        _ => {
            return Error::Registry {
                status: *status,
                codes: codes.clone(),
                text: first_text,
            };
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = "application/json; charset=utf-8";

    fn refusal(status: u16, kind: &str, body: &str) -> Refusal {
        let reason = "500 Internal Server Error";
        Refusal::read(status, reason, &[], kind, body.as_bytes())
    }

    /// What a pull tells of a refusal: status and text.
    fn pull(status: u16, kind: &str, body: &str) -> String {
        let error = refusal(status, kind, body).into_error(status);
        let error = as_pull(error, "h/x", "h/x:y");
        format!("{} {error}", error.kind().status())
    }

    // Recorded from Docker 28.5.2, which got these answers to `docker pull h/x:y`.
    #[test]
    fn a_pull_tells_what_docker_tells() {
        let denied = "404 pull access denied for h/x, repository does not exist or may require 'docker login': denied: ";
        for (status, body, expected) in [
            (404, "", "500 error parsing HTTP 404 response body: unexpected end of JSON input: \"\"".to_owned()),
            (404, "<html>nope</html>\n", "500 error parsing HTTP 404 response body: invalid character '<' looking for beginning of value: \"<html>nope</html>\\n\"".to_owned()),
            (400, r#"{"a":x}"#, r#"500 error parsing HTTP 400 response body: invalid character 'x' looking for beginning of value: "{\"a\":x}""#.to_owned()),
            (400, r#"{"errors""#, r#"500 error parsing HTTP 400 response body: unexpected end of JSON input: "{\"errors\"""#.to_owned()),
            (404, "{}", "500 error parsing HTTP 404 response body: no error details found in HTTP response body: \"{}\"".to_owned()),
            (401, "", "401 unauthorized: authentication required".to_owned()),
            (401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"hm"}]}"#, "401 unauthorized: hm".to_owned()),
            (401, r#"{"details":"bla"}"#, "401 unauthorized: bla".to_owned()),
            (403, r#"{"details":"bla"}"#, format!("{denied}bla")),
            (403, r#"{"errors":[{"code":"DENIED","message":"no way"}]}"#, format!("{denied}no way")),
            (403, r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied","detail":[]}]}"#, format!("{denied}requested access to the resource is denied")),
            (403, r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#, "403 denied".to_owned()),
            (404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#, "404 manifest unknown".to_owned()),
            (404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"y"}}]}"#, "404 manifest for h/x:y not found: manifest unknown: manifest unknown".to_owned()),
            (404, r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry","detail":{"name":"x"}}]}"#, "404 repository h/x not found: name unknown: repository name not known to registry".to_owned()),
            (404, r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry","detail":null}]}"#, "404 name unknown".to_owned()),
            (400, r#"{"errors":[{"code":"NAME_INVALID"},{"code":"DENIED"}]}"#, "400 name invalid".to_owned()),
            (400, r#"{"errors":[{"code":"DENIED","message":"x"},{"code":"NAME_INVALID"}]}"#, format!("{denied}x")),
            (400, r#"{"errors":[{"code":"FOO","message":"bar"}]}"#, "500 unknown: bar".to_owned()),
            (429, r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow"}]}"#, "429 toomanyrequests: slow".to_owned()),
            (429, "", "500 error parsing HTTP 429 response body: unexpected end of JSON input: \"\"".to_owned()),
            (500, "", "500 received unexpected HTTP status: 500 Internal Server Error".to_owned()),
        ] {
            assert_eq!(pull(status, JSON, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn without_json_the_status_and_the_body_tell() {
        for (status, body, expected) in [
            (
                404,
                "<html>nope</html>\n",
                "500 unknown: <html>nope</html>\n",
            ),
            (401, "", "401 unauthorized: "),
            (
                403,
                "",
                "404 pull access denied for h/x, repository does not exist or may require 'docker login': denied: ",
            ),
        ] {
            assert_eq!(pull(status, "text/html", body), expected);
        }
        assert_eq!(refusal(429, "", "slow").text, "toomanyrequests: slow");
        let error = refusal(429, JSON, r#"{"details":"slow"}"#).into_error(429);
        assert!(matches!(error, Error::RateLimited(text) if text == "toomanyrequests: slow"));
    }

    #[test]
    fn several_codes_are_listed_where_it_is_no_pull() {
        let body = r#"{"errors":[{"code":"NAME_INVALID"},{"code":"DENIED","message":"no"}]}"#;
        let text = refusal(400, JSON, body).text;
        assert_eq!(text, "errors:\nname invalid\ndenied: no\n");
    }

    #[test]
    fn a_challenge_may_tell_the_error() {
        let header = r#"Bearer realm="r",error="insufficient_scope""#;
        let challenges = crate::challenge::parse(header);
        let body = br#"{"errors":[{"code":"UNAUTHORIZED"}]}"#;
        let refusal = Refusal::read(401, "", &challenges, JSON, body);
        let error = as_pull(refusal.into_error(401), "x", "x:y");
        assert_eq!(
            error.to_string(),
            "pull access denied for x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"
        );
    }
}
