//! Supervises one container: parent of its init and of its execs, holder of its terminal and pipes, writer of its log,
//! keeper of its exit. One process per container, one thread, one epoll loop, no async runtime; it lives on when the
//! daemon does not.
//!
//! | module | what it owns |
//! |---|---|
//! | [`protocol`], `wire` | the frames between engine and shim |
//! | [`mod@spawn`] | starting a shim, from the daemon |
//! | `supervisor` | the loop, ends, records, waits |
//! | `connection`, `requests` | daemons and what they ask |
//! | `streams`, `client`, `detach`, `queue` | bytes between process, log and attached clients |
//! | `container`, `foreign` | the runtime, ours or another |
//! | [`log`] | the log on disk: writer and reader |
//! | [`init`] | process 1 of a container with `--init` |
//!
//! Every queue is bounded: a client 1 MiB (then the process's pipe stalls, log first; at the end what the pipes hold
//! comes on top), stdin one read, a daemon 1 MiB (then its connection is cut), ended execs 512.

mod client;
mod connection;
mod container;
mod detach;
pub mod exit;
mod foreign;
pub mod init;
pub mod log;
pub mod protocol;
mod queue;
mod requests;
pub mod spawn;
mod streams;
mod supervisor;
mod task;
mod wire;

pub use container::start_time_ticks;
pub use gantry_runtime::plan::limits::plan as cgroup_limits;
pub use gantry_runtime::{Error as RuntimeError, capabilities, check_user, seccomp};
pub use spawn::{SpawnOptions, Spawned, spawn};

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};

/// Runs the role: `args` is what follows `shim` on the command line, the container's id (for the process list), or
/// `--compress` and a number (see [`log::compress`]). The control socket is standard input.
pub fn run(args: &[OsString]) -> ExitCode {
    if args
        .first()
        .is_some_and(|argument| argument == "--compress")
    {
        let generation = args
            .get(1)
            .and_then(|argument| argument.to_str())
            .unwrap_or_default();
        return log::compress::run(generation);
    }
    match supervise() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "shim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn supervise() -> std::io::Result<()> {
    gantry_sys::epoll::keep_heap_small();
    let _ = rustix::thread::set_name(c"gantry-shim");
    // A leader of its own session: signals of the daemon's terminal or group do not reach it.
    let _ = rustix::process::setsid();
    rustix::process::chdir("/")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // Whatever else was inherited has no place here; 0 to 2 are the control socket, nothing, and the shim's own log.
    gantry_sys::process::close_range(3, u32::MAX, false)?;
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    drop(null);
    supervisor::Supervisor::new(control)?.run()
}
