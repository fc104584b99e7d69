//! What the caller of `create` decides.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use gantry_api::oci::runtime::Spec;

/// A container to create.
#[derive(Debug)]
pub struct CreateOptions {
    pub id: String,
    /// Directory of `config.json`; relative paths of the specification start here, hooks are told of it.
    pub bundle: PathBuf,
    pub spec: Spec,
    /// Directory that gets `ID/state.json`.
    pub state_root: PathBuf,
    pub rootfs: Rootfs,
    pub stdio: Stdio,
    /// A network namespace to join instead of a new one or the specification's.
    pub netns: Option<OwnedFd>,
    /// A compiled filter (an array of `sock_filter`) that takes the place of `linux.seccomp`.
    pub seccomp_filter: Option<Vec<u8>>,
    /// A program to run as PID 1 in front of the arguments: `/sbin/docker-init -- ARGS…`.
    pub init_binary: Option<OwnedFd>,
    /// Takes the place of `linux.cgroupsPath`, whose default is `/gantry/ID`.
    pub cgroup: Option<String>,
    /// File that gets the init's pid.
    pub pid_file: Option<PathBuf>,
    /// Moves the root onto `/` where pivot_root cannot work (an initial ramdisk).
    pub no_pivot: bool,
    /// Number of descriptors from 3 on that the program inherits.
    pub preserve_fds: u32,
    /// Leaves the program in the caller's session keyring.
    pub no_new_keyring: bool,
    pub start: StartGate,
    /// Keeps the whole specification in the state file, for an `exec` by another process.
    pub keep_spec: bool,
}

impl CreateOptions {
    /// The plainest options: the specification's root, the caller's standard streams, all else as the specification.
    pub fn new(
        id: impl Into<String>,
        bundle: impl Into<PathBuf>,
        spec: Spec,
        state_root: impl Into<PathBuf>,
    ) -> Self {
        Self {
            id: id.into(),
            bundle: bundle.into(),
            spec,
            state_root: state_root.into(),
            rootfs: Rootfs::Path,
            stdio: Stdio::Inherit,
            netns: None,
            seccomp_filter: None,
            init_binary: None,
            cgroup: None,
            pid_file: None,
            no_pivot: false,
            preserve_fds: 0,
            no_new_keyring: false,
            start: StartGate::Call,
            keep_spec: false,
        }
    }
}

/// Where the root file system comes from.
#[derive(Debug)]
pub enum Rootfs {
    /// `root.path` of the specification.
    Path,
    /// An overlay, mounted in the container's mount namespace alone.
    Overlay(Overlay),
    /// A detached mount (`fsmount(2)`, `open_tree(2)`).
    Mount(OwnedFd),
}

/// Directories of an overlay mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// Topmost first.
    pub lowers: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// Overlay's own attributes are `user.*`, as in a user namespace.
    pub userxattr: bool,
    /// Never syncs: for what is thrown away after a crash.
    pub volatile: bool,
}

/// Standard streams of the program.
#[derive(Debug)]
pub enum Stdio {
    Pipes {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// A pseudo-terminal of the container's own devpts; its master is returned. `(rows, columns)`.
    Terminal { size: Option<(u16, u16)> },
    /// The same, its master sent to the listener on this path, as runc's `--console-socket`.
    ConsoleSocket(PathBuf),
    /// The caller's.
    Inherit,
}

/// What the init waits for before it executes its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartGate {
    /// [`crate::Created::start`] in the same process.
    Call,
    /// A reader of `STATE_ROOT/ID/exec.fifo`, as runc's: the creator may end.
    Fifo,
}
