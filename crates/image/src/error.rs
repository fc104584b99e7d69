//! One error for the image store: its variants say what a caller can do; where Docker has the case, the text is
//! Docker's.

use gantry_api::error::ErrorKind;
use std::io;

/// The result of every function of the image store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the image store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such image or content.
    #[error("{0}")]
    NotFound(String),
    /// The image's state forbids it.
    #[error("{0}")]
    Conflict(String),
    /// The request or the archive is malformed.
    #[error("{0}")]
    Invalid(String),
    /// The format, or the machine, is not supported; the text names what is missing.
    #[error("{0}")]
    Unsupported(String),
    /// The disk is full, also after everything that waited to be deleted is gone.
    #[error("{operation}: no space left on device")]
    NoSpace {
        operation: String,
        source: io::Error,
    },
    /// Reading or writing failed.
    #[error("{operation}: {}", gantry_api::error::errno_text(source))]
    Io {
        operation: String,
        source: io::Error,
    },
    /// A registry refused, or gave what it should not.
    #[error(transparent)]
    Registry(#[from] gantry_distribution::Error),
    /// What failed was shared by several transfers; this is one's view of it.
    #[error(transparent)]
    Shared(std::sync::Arc<Error>),
    /// Nobody waits for it any more.
    #[error("context canceled")]
    Cancelled,
    /// The index cannot be read or written.
    #[error("{operation}: {source}")]
    Index {
        operation: &'static str,
        source: Box<redb::Error>,
    },
}

impl Error {
    /// Gives the kind by which the API reports the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Invalid(_) => ErrorKind::InvalidParameter,
            Self::Unsupported(_) => ErrorKind::NotImplemented,
            Self::Registry(error) => error.kind(),
            Self::Shared(error) => error.kind(),
            Self::Cancelled | Self::NoSpace { .. } | Self::Io { .. } | Self::Index { .. } => {
                ErrorKind::System
            }
        }
    }

    pub(crate) fn io(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let (operation, source) = (operation.into(), source.into());
        if gantry_snapshot::is_no_space(&source) {
            Self::NoSpace { operation, source }
        } else {
            Self::Io { operation, source }
        }
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }

    pub(crate) fn index<E: Into<redb::Error>>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |source| match source.into() {
            redb::Error::Io(source) => Self::io(operation, source),
            source => Self::Index {
                operation,
                source: Box::new(source),
            },
        }
    }
}

impl From<gantry_snapshot::Error> for Error {
    fn from(error: gantry_snapshot::Error) -> Self {
        use gantry_snapshot::Error as From;
        match error {
            From::NotFound(_) => Self::NotFound(error.to_string()),
            From::Archive(text) => Self::Invalid(text),
            From::Unsupported(text) => Self::Unsupported(text),
            From::NoSpace { operation, source } => Self::NoSpace { operation, source },
            From::Io { operation, source } => Self::Io { operation, source },
        }
    }
}
