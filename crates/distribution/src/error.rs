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
    /// The credentials were refused at a login. A refused pull or push is [`Error::Registry`] with status 401, which
    /// the API answers as Docker does: with 500, so that clients do not ask for a password.
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
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Unauthorized(_) => ErrorKind::Unauthorized,
            Self::Invalid(_) => ErrorKind::InvalidParameter,
            Self::Registry { .. } | Self::RateLimited(_) | Self::Corrupt(_) | Self::Network(_) => {
                ErrorKind::System
            }
        }
    }
}

/// Is the result of a request.
pub type Result<T> = std::result::Result<T, Error>;
