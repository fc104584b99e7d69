//! The choice of a role from the command line. Pure.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// What this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    CommandLine,
    Daemon,
    Shim,
    Netd,
    Runtime,
    Init,
}

/// Chooses the role and gives the arguments that are its own.
pub fn choose(args: &[OsString]) -> (Role, &[OsString]) {
    let name = args
        .first()
        .map(|arg| Path::new(arg).file_name().unwrap_or(arg))
        .and_then(OsStr::to_str);
    let tail = args.get(1..).unwrap_or_default();
    match name {
        Some("docker" | "docker-compose") => return (Role::CommandLine, tail),
        Some("runc") => return (Role::Runtime, tail),
        Some("docker-init" | "tini") => return (Role::Init, tail),
        _ => {}
    }
    let role = match tail.first().and_then(|arg| arg.to_str()) {
        Some("daemon") => Role::Daemon,
        Some("shim") => Role::Shim,
        Some("netd") => Role::Netd,
        Some("runtime") => Role::Runtime,
        Some("init") => Role::Init,
        _ => return (Role::CommandLine, tail),
    };
    (role, &tail[1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_comes_before_the_argument() {
        for (line, want, rest) in [
            ("gantry", Role::CommandLine, 0),
            ("gantry ps -a", Role::CommandLine, 2),
            ("gantry daemon -D", Role::Daemon, 1),
            ("/usr/bin/gantry shim abc", Role::Shim, 1),
            ("gantry-shim shim abc", Role::Shim, 1),
            ("gantry netd", Role::Netd, 0),
            ("gantry runtime run x", Role::Runtime, 2),
            ("gantry init -- sh", Role::Init, 2),
            ("/usr/bin/docker daemon", Role::CommandLine, 1),
            ("docker-compose up", Role::CommandLine, 1),
            ("/usr/sbin/runc create x", Role::Runtime, 2),
            ("/sbin/docker-init -- sh", Role::Init, 2),
        ] {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let (role, tail) = choose(&args);
            assert_eq!((role, tail.len()), (want, rest), "{line}");
        }
        assert_eq!(choose(&[]).0, Role::CommandLine);
    }
}
