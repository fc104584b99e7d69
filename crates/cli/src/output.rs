//! Standard output and standard error. A reader that has gone ends the process quietly, as the pipe signal would.

use std::io::{self, Write};

/// Writes a text to standard output.
pub fn out(text: &str) {
    out_bytes(text.as_bytes());
}

/// Writes a line to standard output.
pub fn line(text: &str) {
    let mut whole = String::with_capacity(text.len() + 1);
    whole.push_str(text);
    whole.push('\n');
    out(&whole);
}

/// Writes bytes to standard output.
pub fn out_bytes(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_all(bytes).and_then(|()| stdout.flush())
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        broken_pipe();
    }
}

/// Writes a line to standard error.
pub fn error_line(text: &str) {
    let mut whole = String::with_capacity(text.len() + 1);
    whole.push_str(text);
    whole.push('\n');
    // Nowhere is left to report a failure to.
    let _ = io::stderr().lock().write_all(whole.as_bytes());
}

/// Ends the process as the pipe signal would have: nobody reads any more.
pub fn broken_pipe() -> ! {
    // 128 + SIGPIPE.
    std::process::exit(141)
}
