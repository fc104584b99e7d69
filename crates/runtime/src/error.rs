//! What can go wrong, by what a caller can do about it, and runc's words for it.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// The operation of a [`Error::Stage`] about a resource limit, whose name is the object.
pub(crate) const SET_RLIMIT: &str = "set rlimit";

/// Why a program cannot be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecFailure {
    /// No directory of `$PATH` has it.
    NotInPath,
    /// It is found only by way of a relative entry of `$PATH`.
    Relative,
    /// The path does not lead anywhere.
    Stat,
    /// It is a directory.
    Directory,
    /// The user may not execute it.
    Permission,
    /// The system refused it at last: wrong format, missing interpreter.
    Execve,
}

/// An error of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("container `{id}` does not exist")]
    NotFound { id: String },
    #[error("container `{id}` exists already")]
    Exists { id: String },
    /// The container's state does not allow the operation.
    #[error("{message}")]
    State { message: String },
    /// The specification or an argument contradicts itself.
    #[error("invalid {message}")]
    Invalid { message: String },
    /// Something that this runtime or machine does not do, by name.
    #[error("{what} is not supported")]
    Unsupported { what: String },
    /// The program cannot be executed; `errno` is 0 if the system was not asked.
    #[error("{}", exec_text(.program, *.failure, *.errno))]
    Exec {
        program: String,
        failure: ExecFailure,
        errno: i32,
    },
    #[error("chdir to cwd (\"{path}\") set in config.json failed")]
    Chdir { path: String, source: io::Error },
    #[error("mount `{mount_source}` onto `{destination}`")]
    Mount {
        mount_source: String,
        destination: String,
        source: io::Error,
    },
    #[error("{kind} hook #{index} `{path}`: {message}")]
    Hook {
        kind: String,
        index: usize,
        path: String,
        message: String,
    },
    /// The init ended without a word, e.g. killed for lack of memory.
    #[error("the container's init ended during its set-up")]
    Ended,
    #[error("{operation} `{object}`")]
    Stage {
        operation: String,
        object: String,
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn stage(
        operation: &str,
        object: impl fmt::Display,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Stage {
            operation: operation.to_owned(),
            object: object.to_string(),
            source: source.into(),
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid {
            message: message.into(),
        }
    }

    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into() }
    }

    pub(crate) fn state(message: impl Into<String>) -> Self {
        Self::State {
            message: message.into(),
        }
    }

    /// The number of the system's error at the bottom; 0 if there is none.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Exec { errno, .. } => *errno,
            Self::Chdir { source, .. }
            | Self::Mount { source, .. }
            | Self::Stage { source, .. } => gantry_sys::mount::errno_of(source),
            _ => 0,
        }
    }

    /// Says whether the program was not there, Docker's exit code 127.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Exec { failure, errno, .. } => {
                matches!(failure, ExecFailure::NotInPath) || *errno == libc::ENOENT
            }
            _ => false,
        }
    }

    /// Says whether the program was there and could not be executed, Docker's exit code 126.
    pub fn is_not_executable(&self) -> bool {
        matches!(self, Self::Exec { .. }) && !self.is_not_found()
    }

    /// What runc says after `runc create failed: `.
    pub fn runc_text(&self) -> String {
        let inside = "unable to start container process: error during container init: ";
        match self {
            Self::NotFound { .. } => "container does not exist".to_owned(),
            Self::Exists { .. } => "container with given ID already exists".to_owned(),
            Self::State { message } => message.clone(),
            Self::Invalid { .. } | Self::Unsupported { .. } => self.to_string(),
            Self::Hook { .. } => format!("unable to start container process: {}", hook_text(self)),
            Self::Ended => "unable to start container process: container init was OOM-killed (memory limit too low?)".to_owned(),
            Self::Exec { .. } | Self::Chdir { .. } | Self::Mount { .. } | Self::Stage { .. } => {
                format!("{inside}{}", self.inner_text())
            }
        }
    }

    /// What runc says after `exec failed: ` of an exec.
    pub fn runc_exec_text(&self) -> String {
        match self {
            Self::Exec { .. } | Self::Chdir { .. } | Self::Mount { .. } | Self::Stage { .. } => {
                format!("unable to start container process: {}", self.inner_text())
            }
            _ => self.runc_text(),
        }
    }

    fn inner_text(&self) -> String {
        match self {
            Self::Chdir { source, .. } => format!("{self}: {}", go_text(source)),
            Self::Mount {
                mount_source,
                destination,
                source,
            } => {
                let hint = if gantry_sys::mount::errno_of(source) == libc::ENOTDIR {
                    ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type"
                } else {
                    ""
                };
                format!(
                    "error mounting \"{mount_source}\" to rootfs at \"{destination}\": mount src={mount_source}, dst={destination}: {}{hint}",
                    go_text(source)
                )
            }
            Self::Stage {
                operation,
                object,
                source,
            } if operation == SET_RLIMIT => format!(
                "error setting rlimits for ready process: error setting rlimit type {}: {}",
                crate::plan::process::resource_number(object).unwrap_or(0),
                go_text(source)
            ),
            Self::Stage { source, .. } => format!("{self}: {}", go_text(source)),
            _ => self.to_string(),
        }
    }
}

fn hook_text(error: &Error) -> String {
    match error {
        Error::Hook {
            kind,
            index,
            message,
            ..
        } => format!("error running {kind} hook #{index}: {message}"),
        other => other.to_string(),
    }
}

/// A system error as Go prints it: lower-case, without Rust's `(os error N)`.
fn go_text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => errno_text(errno),
        None => error.to_string(),
    }
}

/// The message of an error number, in lower case.
pub(crate) fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut characters = text.chars();
    match characters.next() {
        Some(first) if !text.starts_with("RFS") => first.to_lowercase().chain(characters).collect(),
        _ => text.to_owned(),
    }
}

fn exec_text(program: &str, failure: ExecFailure, errno: i32) -> String {
    match failure {
        ExecFailure::NotInPath => format!("exec: {program:?}: executable file not found in $PATH"),
        ExecFailure::Relative => {
            format!("exec: {program:?}: cannot run executable found relative to current directory")
        }
        ExecFailure::Stat => format!("exec: {program:?}: stat {program}: {}", errno_text(errno)),
        ExecFailure::Directory => format!("exec: {program:?}: is a directory"),
        ExecFailure::Permission => format!("exec: {program:?}: permission denied"),
        ExecFailure::Execve => format!("exec {program}: {}", errno_text(errno)),
    }
}

/// An [`Error`] on its way out of a child.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Wire {
    State(String),
    Invalid(String),
    Unsupported(String),
    Exec {
        program: String,
        failure: ExecFailure,
        errno: i32,
    },
    Chdir {
        path: String,
        source: WireSource,
    },
    Mount {
        mount_source: String,
        destination: String,
        source: WireSource,
    },
    Hook {
        kind: String,
        index: usize,
        path: String,
        message: String,
    },
    Ended,
    Stage {
        operation: String,
        object: String,
        source: WireSource,
    },
}

/// A system error: its number, and its words where it has some of its own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireSource {
    errno: i32,
    text: String,
}

impl From<io::Error> for WireSource {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self {
                errno,
                text: String::new(),
            },
            None => Self {
                errno: gantry_sys::mount::errno_of(&error),
                text: error.to_string(),
            },
        }
    }
}

impl From<WireSource> for io::Error {
    fn from(source: WireSource) -> Self {
        let error = Self::from_raw_os_error(source.errno);
        if source.text.is_empty() {
            error
        } else if source.errno == 0 {
            Self::other(source.text)
        } else {
            Self::new(error.kind(), source.text)
        }
    }
}

impl From<Error> for Wire {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound { .. } | Error::Exists { .. } => Self::State(error.to_string()),
            Error::State { message } => Self::State(message),
            Error::Invalid { message } => Self::Invalid(message),
            Error::Unsupported { what } => Self::Unsupported(what),
            Error::Exec {
                program,
                failure,
                errno,
            } => Self::Exec {
                program,
                failure,
                errno,
            },
            Error::Chdir { path, source } => Self::Chdir {
                path,
                source: source.into(),
            },
            Error::Mount {
                mount_source,
                destination,
                source,
            } => Self::Mount {
                mount_source,
                destination,
                source: source.into(),
            },
            Error::Hook {
                kind,
                index,
                path,
                message,
            } => Self::Hook {
                kind,
                index,
                path,
                message,
            },
            Error::Ended => Self::Ended,
            Error::Stage {
                operation,
                object,
                source,
            } => Self::Stage {
                operation,
                object,
                source: source.into(),
            },
        }
    }
}

impl From<Wire> for Error {
    fn from(wire: Wire) -> Self {
        match wire {
            Wire::State(message) => Self::State { message },
            Wire::Invalid(message) => Self::Invalid { message },
            Wire::Unsupported(what) => Self::Unsupported { what },
            Wire::Exec {
                program,
                failure,
                errno,
            } => Self::Exec {
                program,
                failure,
                errno,
            },
            Wire::Chdir { path, source } => Self::Chdir {
                path,
                source: source.into(),
            },
            Wire::Mount {
                mount_source,
                destination,
                source,
            } => Self::Mount {
                mount_source,
                destination,
                source: source.into(),
            },
            Wire::Hook {
                kind,
                index,
                path,
                message,
            } => Self::Hook {
                kind,
                index,
                path,
                message,
            },
            Wire::Ended => Self::Ended,
            Wire::Stage {
                operation,
                object,
                source,
            } => Self::Stage {
                operation,
                object,
                source: source.into(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_errors_have_runcs_words() {
        let text = |program: &str, failure, errno| {
            Error::Exec {
                program: program.to_owned(),
                failure,
                errno,
            }
            .to_string()
        };
        assert_eq!(
            text("nosuch", ExecFailure::NotInPath, 0),
            r#"exec: "nosuch": executable file not found in $PATH"#
        );
        assert_eq!(
            text("/x", ExecFailure::Permission, libc::EACCES),
            r#"exec: "/x": permission denied"#
        );
        assert_eq!(
            text("/no", ExecFailure::Stat, libc::ENOENT),
            r#"exec: "/no": stat /no: no such file or directory"#
        );
        assert_eq!(
            text("/dir", ExecFailure::Directory, libc::EISDIR),
            r#"exec: "/dir": is a directory"#
        );
        assert_eq!(
            text("/x", ExecFailure::Execve, libc::ENOEXEC),
            "exec /x: exec format error"
        );
    }

    #[test]
    fn an_error_survives_the_channel() {
        let error = Error::Mount {
            mount_source: "/a".to_owned(),
            destination: "/b".to_owned(),
            source: io::Error::from_raw_os_error(libc::ENOTDIR),
        };
        let words = error.runc_text();
        let wire = serde_json::to_vec(&Wire::from(error)).expect("write");
        let back: Error = serde_json::from_slice::<Wire>(&wire).expect("read").into();
        assert_eq!(back.runc_text(), words);
        assert_eq!(back.errno(), libc::ENOTDIR);
    }
}
