//! The netd role: one small process per engine that outlives the daemon.
//!
//! It holds a socket for each published host port, so that nobody else takes the port, and carries by that socket what
//! the firewall does not: connections to the host's IPv6 addresses, and everything while the ruleset is missing. And it
//! answers containers that ask for names, by sockets inside their network namespaces. It is single-threaded and
//! synchronous, knows of containers only what it is told, and of the firewall only whether its table stands.
//!
//! Beside it sleeps its keeper, a second process on the same descriptors: what netd carries outlives a netd that is killed,
//! and the next one goes on with it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub mod client;
mod guard;
mod keeper;
mod ledger;
mod names;
mod pipe;
pub mod protocol;
mod server;
mod slab;
mod socket;
mod state;
mod tcp;
mod udp;

const USAGE: &str =
    "usage: gantry netd --exec-root DIRECTORY   (standard input is the listening socket)";

/// The role. Standard input is the listening socket, standard output holds the lock file open; both are the starter's
/// (see [`client`]). Ends when a daemon asks for it.
pub fn run(args: &[OsString]) -> ExitCode {
    let [flag, exec_root] = args else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if flag != "--exec-root" {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    match serve(Path::new(exec_root)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry netd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(exec_root: &Path) -> io::Result<()> {
    // Free of the starter's terminal and process group; a process that leads one already stays where it is.
    let _ = rustix::process::setsid();
    rustix::thread::set_name(c"gantry-netd")?;
    raise_descriptor_limit();
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let questions = client::questions_path(exec_root);
    let mut server = server::Server::new(listener, client::state_dir(exec_root), &questions)?;
    server.run()?;
    server.end_keeper()?;
    for path in [client::socket_path(exec_root), questions] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Ten thousand ports need ten thousand descriptors; the soft limit is usually 1024.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Failing leaves the limit as it is, and a reservation beyond it is refused with its reason.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}
