//! The OCI runtime: a bundle becomes a container, in the caller's process, with one clone3 and one exec.
//!
//! * [`create`] sets a container up completely and leaves its init before execve; [`Created::start`] lets it go.
//! * [`exec`] adds a process to a running container.
//! * [`State`] is what lies in `STATE_ROOT/ID/state.json`; [`kill`], [`delete()`], [`pause`], [`resume`] and
//!   [`processes`] work on it.
//! * [`cli`] is runc's command line over them.
//!
//! Shape: [`plan`] turns the specification into plain data and touches nothing; [`prepare`] opens what needs the host's
//! view (bind sources, the root, the cgroup); `init` carries the plan out in the child; `channel` brings back errors.
//!
//! Invariants:
//! * the caller of [`create`] and [`exec`] has one thread (checked by `sys::process::clone3`);
//! * a path inside a container is resolved beneath a descriptor of its root, never as a string of the host;
//! * no pid is ever written to a `cgroup.procs` on the way to a start (6 to 10 ms of RCU grace period each);
//! * before the program runs every descriptor of the host is closed, and only then is its path looked up
//!   (CVE-2024-21626).
//!
//! It does not supervise: reaping, logs and restarts are the shim's.

pub mod capabilities;
mod channel;
pub mod cli;
mod create;
mod delete;
mod error;
mod exec;
mod hooks;
mod init;
mod kill;
mod options;
pub mod plan;
mod prepare;
mod process;
mod rootfs;
pub mod seccomp;
mod state;
mod user;

pub use create::{Created, create, start_from_fifo};
pub use delete::{DeleteOptions, delete};
pub use error::{Error, ExecFailure};
pub use exec::{ExecOptions, Execed, exec};
pub use kill::{kill, pause, processes, resume};
pub use options::{CreateOptions, Overlay, Rootfs, StartGate, Stdio};
pub use state::{State, Status, list};
pub use user::check_user;

/// Mounts an overlay as kernels before 6.5 need it, for `Rootfs::Mount`; [`create`] falls back to it by itself.
pub fn mount_overlay_classic(
    overlay: &Overlay,
    directory: &std::path::Path,
) -> Result<std::os::fd::OwnedFd, Error> {
    rootfs::overlay::classic(overlay, directory)
}
