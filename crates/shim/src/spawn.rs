//! Starts a shim, from the daemon.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// What a shim is started with.
#[derive(Debug)]
pub struct SpawnOptions {
    /// The shim's end of the control socketpair.
    pub control: OwnedFd,
    /// Shown in the process list.
    pub container_id: String,
    /// Where messages about the shim's own failures go; absent: nowhere.
    pub log: Option<PathBuf>,
    /// The executable; absent: /proc/self/exe, this program. Tests name another.
    pub program: Option<PathBuf>,
}

/// A shim that runs. The caller waits for it (it is a child), which says nothing about the container.
#[derive(Debug)]
pub struct Spawned {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub child: Child,
}

/// Starts a shim by posix_spawn (its cost does not grow with the caller's memory): clean environment, the control
/// socket as standard input, no other descriptor that is not close-on-exec.
pub fn spawn(options: SpawnOptions) -> io::Result<Spawned> {
    let SpawnOptions {
        control,
        container_id,
        log,
        program,
    } = options;
    // The literal path: after the daemon has sealed its executable no other name leads to it.
    let mut command = Command::new(program.unwrap_or_else(|| PathBuf::from("/proc/self/exe")));
    command
        .arg0("gantry-shim")
        .arg("shim")
        .arg(&container_id)
        .env_clear()
        .stdin(control)
        .stdout(Stdio::null());
    match log {
        Some(path) => command.stderr(
            OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o640)
                .open(path)?,
        ),
        None => command.stderr(Stdio::null()),
    };
    let mut child = command.spawn()?;
    let pid = child.id() as i32;
    let pidfd = rustix::process::Pid::from_raw(pid)
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()));
    match pidfd {
        Ok(pidfd) => Ok(Spawned { pid, pidfd, child }),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error.into())
        }
    }
}

impl Spawned {
    /// Ends a shim that was told nothing yet, and reaps it without making the caller wait.
    pub fn end(mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        let reap = std::thread::Builder::new().name("reap-shim".into());
        // Without a thread it stays a zombie until the daemon ends: the least of the troubles of such a machine.
        let _ = reap.spawn(move || self.child.wait());
    }
}
