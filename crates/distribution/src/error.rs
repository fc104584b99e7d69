//! What goes wrong with a registry.

use gantry_api::error::ErrorKind;

/// Is an error code of the distribution specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorCode {
    /// For example `MANIFEST_UNKNOWN`.
    pub code: String,
    pub message: String,
    /// The `detail` member as JSON text; empty if there is none.
    pub detail: String,
}

/// Says why a request to a registry failed. `Display` gives Docker's text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry answered with an error; what it said is kept.
    #[error("{text}")]
    Registry {
        status: u16,
        codes: Vec<ErrorCode>,
        text: String,
    },
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// The credentials were refused, or none were given where they are needed.
    #[error("{0}")]
    Unauthorized(String),
    /// Too many requests; what is known of the limit is in the text.
    #[error("{0}")]
    RateLimited(String),
    /// The content is not what its descriptor says: wrong digest or length.
    #[error("{0}")]
    Corrupt(String),
    /// No answer: name, connection, TLS, timeout.
    #[error("{0}")]
    Network(String),
    /// The caller's input or configuration.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// Gives the kind that the API answers with.
    pub fn kind(&self) -> ErrorKind {
        unimplemented!()
    }
}

/// Is the result of a request.
pub type Result<T> = std::result::Result<T, Error>;
