//! What can go wrong between the client and a daemon, in Docker's words: these texts reach the user as they stand.

use std::io;

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The daemon answered with an error status.
    #[error("Error response from daemon: {message}")]
    Daemon { status: u16, message: String },
    /// Nobody listens at the endpoint.
    #[error("Cannot connect to the Docker daemon at {endpoint}. Is the docker daemon running?")]
    Refused {
        endpoint: String,
        #[source]
        source: io::Error,
    },
    /// The socket exists but may not be opened.
    #[error(
        "permission denied while trying to connect to the Docker daemon socket at {endpoint}: {}: dial unix {path}: connect: permission denied",
        operation_text(.path)
    )]
    Denied { endpoint: String, path: String },
    /// The endpoint, a context or the configuration cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// The daemon did not hand over the connection.
    #[error("unable to upgrade to {protocol}, received {status}")]
    NotUpgraded { protocol: &'static str, status: u16 },
    /// The connection broke.
    #[error("error during connect: {0}")]
    Transport(String),
    /// An answer was not what the API says.
    #[error("{0}")]
    Decode(String),
    /// A stream of progress messages ended in an error.
    #[error("{0}")]
    Stream(String),
}

fn operation_text(path: &str) -> String {
    format!("Head \"http://{}/_ping\"", crate::request::escape(path))
}

impl Error {
    /// Returns the HTTP status when the daemon answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Daemon { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Says whether the daemon answered 404.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// Says whether no connection to the daemon could be made.
    pub fn is_connection(&self) -> bool {
        matches!(self, Error::Refused { .. } | Error::Denied { .. })
    }
}
