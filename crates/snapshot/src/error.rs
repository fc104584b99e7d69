//! Errors of this crate: the variants say what a caller can do.

use std::io;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the snapshot store, of reading an archive or of rebuilding one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such snapshot.
    #[error("snapshot {0} does not exist")]
    NotFound(u64),
    /// The archive is malformed or asks for something that is refused; the text names the entry.
    #[error("{0}")]
    Archive(String),
    /// The file system cannot serve: the text gives the reason.
    #[error("{0}")]
    Unsupported(String),
    /// The disk is full, also after everything that waited to be deleted is gone.
    #[error("{operation}: no space left on device")]
    NoSpace {
        operation: String,
        source: io::Error,
    },
    /// Anything else of the machine.
    #[error("{operation}: {}", gantry_api::error::errno_text(source))]
    Io {
        operation: String,
        source: io::Error,
    },
}

impl Error {
    /// Reports a failed operation; a full disk becomes [`Error::NoSpace`].
    pub fn io(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let (operation, source) = (operation.into(), source.into());
        if is_no_space(&source) {
            Self::NoSpace { operation, source }
        } else {
            Self::Io { operation, source }
        }
    }

    pub(crate) fn archive(text: impl Into<String>) -> Self {
        Self::Archive(text.into())
    }
}

/// Tells whether an error means a full disk or an exhausted quota.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Shows a name of an archive or file system as text, with what is not UTF-8 replaced.
pub(crate) fn show(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
