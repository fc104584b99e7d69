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
    /// The registry had no words of its own for it; Docker then prints the code alone.
    pub is_bare: bool,
}

/// Says why a request to a registry failed. `Display` gives Docker's text.
#[derive(Clone, Debug, thiserror::Error)]
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
    /// The credentials were refused at a login. A refused pull or push is [`Error::Registry`].
    #[error("{0}")]
    Unauthorized(String),
    /// Too many requests; what is known of the limit is in the text.
    #[error("{0}")]
    RateLimited(String),
    /// The content is not what its descriptor says: wrong digest or length.
    #[error("{0}")]
    Corrupt(String),
    /// The user's policy of signatures does not let the image in.
    #[error("{0}")]
    Untrusted(String),
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
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Unauthorized(_) => ErrorKind::Unauthorized,
            Self::Untrusted(_) => ErrorKind::Forbidden,
            Self::Invalid(_) => ErrorKind::InvalidParameter,
            Self::Registry { codes, .. } => codes.first().map_or(ErrorKind::System, kind_of),
            Self::RateLimited(_) => ErrorKind::TooManyRequests,
            Self::Corrupt(_) | Self::Network(_) => ErrorKind::System,
        }
    }
}

/// Gives the kind by which Docker answers a code.
fn kind_of(code: &ErrorCode) -> ErrorKind {
    match code.code.as_str() {
        "UNAUTHORIZED" => ErrorKind::Unauthorized,
        "DENIED" => ErrorKind::Forbidden,
        "UNAVAILABLE" => ErrorKind::Unavailable,
        "UNKNOWN" => ErrorKind::System,
        name if name.ends_with("_UNKNOWN") => ErrorKind::NotFound,
        name if name.ends_with("_INVALID") => ErrorKind::InvalidParameter,
        _ => ErrorKind::System,
    }
}

/// Is the result of a request.
pub type Result<T> = std::result::Result<T, Error>;
