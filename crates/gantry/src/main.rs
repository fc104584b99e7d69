//! The one executable. Chooses the role and leaves the rest to its crate.
//!
//! | called as | role |
//! |---|---|
//! | `docker`, `docker-compose` | the command line |
//! | `runc` | the OCI runtime |
//! | `docker-init`, `tini` | process 1 of a container |
//! | anything else, first argument `daemon`, `shim`, `netd`, `runtime`, `init` | that role |
//! | anything else | the command line, `registry serve` too |
//!
//! A role that forks (shim, runtime, netd) is entered before any thread or runtime exists. The daemon first executes
//! itself anew from a copy that nobody can write to, see [`boot`].

mod autostart;
mod boot;
mod registry;
mod role;

use std::ffi::OsString;
use std::process::ExitCode;

use role::Role;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let (role, rest) = role::choose(&args);
    match role {
        Role::Shim => gantry_shim::run(rest),
        Role::Init => gantry_shim::init::run(rest),
        Role::Runtime => gantry_runtime::cli::run(rest, &mut std::io::stdout()),
        Role::Netd => gantry_netd::run(rest),
        Role::Daemon => boot::daemon(rest),
        Role::CommandLine => gantry_cli::run(
            &args,
            gantry_cli::Hooks {
                autostart: autostart::ensure,
                registry: registry::run,
            },
        ),
    }
}
