//! The daemon's first steps, before any thread exists.
//!
//! ```text
//! exec by the user ──▶ note the installed path ──▶ exec from a read-only copy ──▶ take the sockets of the service
//!                                                                                 manager ──▶ gantry_daemon::run
//! ```
//! The second start knows itself by an environment variable with its own process id: exec keeps the id, and a child
//! that inherits the variable has another.

use std::ffi::{CString, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::process::ExitCode;

use gantry_sys::process::{self, StringList};

const SEALED: &str = "GANTRY_SEALED";
/// The installed path of the binary, for upgrades alone: the running one has no path.
const EXECUTABLE: &str = "GANTRY_EXECUTABLE";
/// The first descriptor that a service manager passes, see sd_listen_fds(3).
const FIRST_LISTEN_FD: i32 = 3;

/// Runs the daemon role.
pub fn daemon(args: &[OsString]) -> ExitCode {
    let own_id = std::process::id().to_string();
    if std::env::var(SEALED).ok().as_deref() != Some(own_id.as_str()) {
        let error = execute_sealed(args, &own_id);
        eprintln!("gantry daemon: run from a read-only copy of the binary: {error}");
        return ExitCode::FAILURE;
    }
    let _ = process::set_name(c"gantry-daemon");
    raise_descriptor_limit();
    gantry_daemon::run(args, listen_fds())
}

/// Lets the daemon hold as many descriptors as it may: it has one for each running container, and a daemon that cannot
/// open another one could not find its containers again. Containers inherit the limit, as Docker's do. A registry has one
/// for each client.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Raising the soft limit to the hard one needs no privilege.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        );
    }
}

fn execute_sealed(args: &[OsString], own_id: &str) -> std::io::Error {
    let installed = match rustix::fs::readlink("/proc/self/exe", Vec::new()) {
        Ok(path) => path,
        Err(error) => return error.into(),
    };
    let c_string = |bytes: &[u8]| CString::new(bytes.to_vec());
    let arguments: Result<Vec<CString>, _> = [c_string(b"gantry"), c_string(b"daemon")]
        .into_iter()
        .chain(args.iter().map(|arg| c_string(arg.as_bytes())))
        .collect();
    let mut environment: Vec<CString> = process::environment()
        .strings()
        .iter()
        .filter(|entry| {
            [SEALED, EXECUTABLE].iter().all(|name| {
                !entry
                    .to_bytes()
                    .strip_prefix(name.as_bytes())
                    .is_some_and(|rest| rest.starts_with(b"="))
            })
        })
        .cloned()
        .collect();
    // The pool's threads would keep a heap each, and a heap what one large load once needed; see mallopt(3). A heap that
    // is not the first one also grows by a page and a system call at a time.
    environment.extend([
        c"MALLOC_ARENA_MAX=1".to_owned(),
        c"MALLOC_TRIM_THRESHOLD_=131072".to_owned(),
    ]);
    let marks = [
        c_string(format!("{SEALED}={own_id}").as_bytes()),
        c_string(&[EXECUTABLE.as_bytes(), b"=", installed.as_bytes()].concat()),
    ];
    for mark in marks {
        match mark {
            Ok(mark) => environment.push(mark),
            Err(error) => return error.into(),
        }
    }
    match arguments {
        Ok(arguments) => {
            gantry_sys::seal::reexec(&StringList::new(arguments), &StringList::new(environment))
        }
        Err(error) => error.into(),
    }
}

/// Takes the sockets that the service manager passed, with their names; sd_listen_fds_with_names(3).
fn listen_fds() -> Vec<(String, OwnedFd)> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u32>().ok())
    };
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").unwrap_or(0).min(64);
    let names = std::env::var_os("LISTEN_FDNAMES")
        .unwrap_or_default()
        .into_vec();
    let names = String::from_utf8_lossy(&names).into_owned();
    let mut names = names.split(':');
    (0..count)
        .filter_map(|index| {
            let name = names
                .next()
                .filter(|name| !name.is_empty())
                .unwrap_or("unknown")
                .to_owned();
            let fd = process::inherited(FIRST_LISTEN_FD + i32::try_from(index).ok()?).ok()?;
            Some((name, fd))
        })
        .collect()
}
