//! Why a start failed, in Docker's words, and the exit code that it leaves. Pure.

use gantry_shim::protocol::{self, FailureKind};

use crate::Error;

/// Gives an error of a container's networks the form in which a start tells it.
pub(super) fn network_error(error: gantry_network::Error) -> Error {
    let told = crate::network::error(error);
    let text = format!("failed to set up container networking: {told}");
    Error::new(told.kind(), text).caused_by(told)
}

/// Gives a start's failure Docker's words; the exit code is found again by [`exit_code`].
pub(super) fn start_error(failure: &protocol::Failure) -> Error {
    let message = &failure.message;
    // A name that the image does not know is found before a runtime is asked, in Docker's order of things.
    if [
        "unable to find user ",
        "unable to find group ",
        "uids and gids must be",
    ]
    .iter()
    .any(|start| message.starts_with(start))
    {
        return Error::invalid(message.clone()).caused_by(StartExit(126));
    }
    let (words, code) = in_dockers_words(failure);
    let text = format!(
        "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create \
         failed: {words}"
    );
    // Docker answers 400 to what the user can put right and 500 to the rest.
    let error = match code {
        126 | 127 => Error::invalid(text),
        _ => Error::system(text),
    };
    error.caused_by(StartExit(code))
}

/// Gives the text of a process that could not be started Docker's ending, and the exit code that Docker makes of it: it
/// looks for the names of system errors in the text, whatever they are about.
pub(crate) fn in_dockers_words(failure: &protocol::Failure) -> (String, i32) {
    let message = &failure.message;
    let has = |words: &str| message.contains(words);
    match failure.kind {
        FailureKind::NotExecutable if message.ends_with("is a directory") => {
            (format!("{message}: permission denied"), 126)
        }
        _ if has("not a directory") => (
            format!(
                "{message}: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified \
                 host path exists and is the expected type"
            ),
            127,
        ),
        FailureKind::NotFound => (message.clone(), 127),
        FailureKind::NotExecutable => (message.clone(), 126),
        FailureKind::Other if has("permission denied") || has("is a directory") => {
            (message.clone(), 126)
        }
        FailureKind::Other if has("no such file or directory") => (message.clone(), 127),
        FailureKind::Other => (message.clone(), 128),
    }
}

/// The exit code that a failed start leaves in the state.
#[derive(Debug)]
pub(super) struct StartExit(pub i32);

impl std::fmt::Display for StartExit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl std::error::Error for StartExit {}

/// Returns the exit code that an error of a start stands for.
pub(super) fn exit_code(error: &Error) -> Option<i32> {
    std::error::Error::source(error)?
        .downcast_ref::<StartExit>()
        .map(|exit| exit.0)
        .or(Some(128))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_start_has_dockers_ending_and_exit_code() {
        for (kind, message, ending, code) in [
            (
                FailureKind::NotFound,
                "exec: \"x\": executable file not found in $PATH",
                "",
                127,
            ),
            (
                FailureKind::NotExecutable,
                "exec: \"/f\": permission denied",
                "",
                126,
            ),
            (
                FailureKind::NotExecutable,
                "exec: \"/etc\": is a directory",
                ": permission denied",
                126,
            ),
            (
                FailureKind::Other,
                "mkdir /proc/x: no such file or directory",
                "",
                127,
            ),
            (FailureKind::Other, "open /x: permission denied", "", 126),
            (FailureKind::Other, "Cwd must be an absolute path", "", 128),
            (
                FailureKind::Other,
                "mkdir /f: not a directory",
                ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path \
                 exists and is the expected type",
                127,
            ),
        ] {
            let failure = protocol::Failure {
                kind,
                message: message.into(),
                errno: None,
            };
            assert_eq!(
                in_dockers_words(&failure),
                (format!("{message}{ending}"), code)
            );
            assert_eq!(exit_code(&start_error(&failure)), Some(code));
        }
    }
}
