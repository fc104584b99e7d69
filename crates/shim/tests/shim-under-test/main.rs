//! The roles `shim` and `init` as a program of their own, for tests.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().cloned().unwrap_or_default();
    if name.to_string_lossy().ends_with("docker-init") {
        return gantry_shim::init::run(&arguments[1..]);
    }
    match arguments.get(1).and_then(|argument| argument.to_str()) {
        Some("shim") => gantry_shim::run(&arguments[2..]),
        Some("init") => gantry_shim::init::run(&arguments[2..]),
        _ => ExitCode::from(2),
    }
}
