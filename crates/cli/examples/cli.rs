//! The command line alone, for tests that need a program: it starts no daemon.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let autostart = |socket: &std::path::Path| {
        Err(std::io::Error::other(format!("nobody listens at {}", socket.display())))
    };
    gantry_cli::run(&args, gantry_cli::Hooks { autostart })
}
