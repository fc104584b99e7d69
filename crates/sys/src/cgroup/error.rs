//! Errors that keep the kind of the system's error and say which file it was about.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An operation on a cgroup's file or directory that failed.
#[derive(Debug)]
pub(super) struct Failure {
    operation: String,
    object: PathBuf,
    source: io::Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} `{}`", self.operation, self.object.display())
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Wraps `source`, whose kind the result keeps.
pub(super) fn failure(
    operation: impl Into<String>,
    object: &Path,
    source: impl Into<io::Error>,
) -> io::Error {
    let source = source.into();
    io::Error::new(
        source.kind(),
        Failure {
            operation: operation.into(),
            object: object.to_owned(),
            source,
        },
    )
}

/// A limit that this machine cannot set, by name.
pub(super) fn unsupported(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, message.into())
}

/// A limit that makes no sense, by name.
pub(super) fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message.into())
}
