//! How a command fails: the text for stderr and the exit code.

use std::io;

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

/// Returns the text of an error number as C's `strerror` without Rust's `(os error N)`, in lower case as Go has it.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = match text.find(" (os error") {
        Some(at) => &text[..at],
        None => &text,
    };
    let mut chars = text.chars();
    match (error.raw_os_error(), chars.next()) {
        (Some(_), Some(first)) => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

/// Returns Go's text for a file that could not be opened.
pub fn open_error(path: &str, error: &io::Error) -> String {
    format!("open {path}: {}", reason(error))
}
