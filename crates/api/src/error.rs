//! Kinds of error as the API tells them apart, and the error body.
//!
//! Every library's error carries a kind; the daemon maps it to a status in one place and the client maps it back.
//! Messages that reach a user are Docker's own texts.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Gives a system error's words as Go prints them, in which Docker's texts have them: in lower case and without the number.
pub fn errno_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    if error.raw_os_error().is_none() {
        return text;
    }
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut characters = text.chars();
    characters
        .next()
        .map(|first| first.to_lowercase().chain(characters).collect())
        .unwrap_or_default()
}

/// Says what a caller can do about an error; each kind is one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The object does not exist (404).
    NotFound,
    /// The request is malformed or asks for something impossible (400).
    InvalidParameter,
    /// The object's state forbids the request (409).
    Conflict,
    /// The object is already in the wanted state (304, without a body).
    NotModified,
    /// The request is understood and refused (403).
    Forbidden,
    /// Credentials are missing or wrong (401).
    Unauthorized,
    /// A service behind the engine answers no more for now (429).
    TooManyRequests,
    /// A service behind the engine is not there (503).
    Unavailable,
    /// The engine lacks the feature (501).
    NotImplemented,
    /// Anything else (500).
    System,
}

impl ErrorKind {
    /// Gives the HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::InvalidParameter => 400,
            Self::Conflict => 409,
            Self::NotModified => 304,
            Self::Forbidden => 403,
            Self::Unauthorized => 401,
            Self::TooManyRequests => 429,
            Self::Unavailable => 503,
            Self::NotImplemented => 501,
            Self::System => 500,
        }
    }

    /// Gives the kind of an HTTP status that reports an error.
    pub const fn from_status(status: u16) -> Self {
        match status {
            404 => Self::NotFound,
            409 => Self::Conflict,
            304 => Self::NotModified,
            403 => Self::Forbidden,
            401 => Self::Unauthorized,
            429 => Self::TooManyRequests,
            503 => Self::Unavailable,
            501 => Self::NotImplemented,
            400..=499 => Self::InvalidParameter,
            _ => Self::System,
        }
    }
}

/// Is an error as the API reports it: a kind and Docker's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub kind: ErrorKind,
    pub message: String,
}

impl ApiError {
    /// Makes an error of a kind and a text.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
    /// Makes a 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }
    /// Makes a 400.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParameter, message)
    }
    /// Makes a 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }
    /// Makes a 501.
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotImplemented, message)
    }
    /// Makes a 500.
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::System, message)
    }
}

/// Is the body of every error response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorResponse {
    pub message: String,
}

impl fmt::Display for ErrorResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_statuses_map_both_ways() {
        for kind in [
            ErrorKind::NotFound,
            ErrorKind::InvalidParameter,
            ErrorKind::Conflict,
            ErrorKind::NotModified,
            ErrorKind::Forbidden,
            ErrorKind::Unauthorized,
            ErrorKind::Unavailable,
            ErrorKind::NotImplemented,
            ErrorKind::System,
        ] {
            assert_eq!(ErrorKind::from_status(kind.status()), kind);
        }
        assert_eq!(ErrorKind::from_status(413), ErrorKind::InvalidParameter);
        assert_eq!(ErrorKind::from_status(504), ErrorKind::System);
    }
}
