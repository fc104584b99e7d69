//! How a command fails: the text for stderr and the exit code.

use std::io;

pub use gantry_api::error::errno_text as reason;

/// A failed command. An empty text prints nothing: the exit code is the container's.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    pub text: String,
    pub code: u8,
}

/// A command's result.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// Fails with code 1.
    pub fn new(text: impl Into<String>) -> Failure {
        Failure {
            text: text.into(),
            code: 1,
        }
    }

    /// Fails silently with a code.
    pub fn code(code: u8) -> Failure {
        Failure {
            text: String::new(),
            code,
        }
    }
}

impl From<gantry_client::Error> for Failure {
    fn from(error: gantry_client::Error) -> Failure {
        Failure::new(error.to_string())
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::new(text)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::new(reason(&error))
    }
}

/// Returns Go's text for a file that could not be opened.
pub fn open_error(path: &str, error: &io::Error) -> String {
    format!("open {path}: {}", reason(error))
}
