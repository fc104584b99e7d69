//! `exec`: another process in a running container.
//!
//! ```text
//! caller ─ clone3 ─ helper: close, cgroup, setns(pidfd, all) ─ clone3(CLONE_PARENT) ─ process ─ execve
//!    └───────────────── reaps the helper, is the parent of the process ──────────────────┘
//! ```
//! The helper is not dumpable and shares no memory with the caller: a process of the container that gets hold of it finds
//! nothing of the host in it (CVE-2016-9962).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use gantry_api::oci::runtime::{LinuxSeccomp, Process};
use gantry_sys::caps;
use gantry_sys::cgroup::{Cgroup, Join};
use gantry_sys::process::{
    self, CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWTIME,
    CLONE_NEWUSER, CLONE_NEWUTS, CLONE_PARENT, Clone3, clone3, wait_pidfd,
};
use rustix::fs::{Mode, OFlags};

use crate::channel::{Channel, Message};
use crate::create::{filter, send_console, write_pid_file};
use crate::error::Error;
use crate::options::Stdio;
use crate::plan::process::ProcessPlan;
use crate::process::{Failed, Launch};
use crate::rootfs::devices;
use crate::{plan, process as launch, user};

/// A process to add to a container.
#[derive(Debug)]
pub struct ExecOptions<'a> {
    /// The container's id, after which its session keyring is named.
    pub id: &'a str,
    /// The container's init, by number and by descriptor.
    pub pid: i32,
    pub pidfd: BorrowedFd<'a>,
    pub process: Process,
    pub stdio: Stdio,
    pub cgroup: &'a Cgroup,
    /// A compiled filter that takes the place of `seccomp`.
    pub seccomp_filter: Option<Vec<u8>>,
    pub seccomp: Option<&'a LinuxSeccomp>,
    pub no_new_keyring: bool,
    pub preserve_fds: u32,
    pub pid_file: Option<PathBuf>,
}

/// A process that runs its program; a child of the caller.
#[derive(Debug)]
pub struct Execed {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// The master of the terminal, for [`Stdio::Terminal`].
    pub console: Option<OwnedFd>,
}

/// Runs a program in a container. The caller has one thread and is the parent of the process.
///
/// # Errors
/// [`Error::Exec`] when the program cannot be executed, else whatever was in the way; no process is left then.
pub fn exec(options: ExecOptions<'_>) -> Result<Execed, Error> {
    let mut plan = plan::process::plan(&options.process)?;
    if let Some(user) = user::resolve_in(options.pid, &options.process.user)? {
        (plan.uid, plan.gid, plan.groups) = (user.uid, user.gid, user.groups);
    }
    let wants_terminal = matches!(
        options.stdio,
        Stdio::Terminal { .. } | Stdio::ConsoleSocket(_)
    );
    if plan.terminal != wants_terminal {
        return Err(Error::invalid(
            "process: `terminal` and the console do not agree",
        ));
    }
    let filter = filter(options.seccomp_filter, options.seccomp)?;
    let failed =
        |operation: &str, object: &str, error: io::Error| Error::stage(operation, object, error);
    let join = options
        .cgroup
        .prepare_join()
        .map_err(|error| failed("open", "cgroup", error))?;
    let flags = namespaces(options.pid).map_err(|error| failed("compare", "namespaces", error))?;
    let (channel, child_channel) =
        Channel::pair().map_err(|error| failed("open", "a socket pair", error))?;
    let in_user_namespace = flags & CLONE_NEWUSER != 0;
    let helper = Helper {
        plan: &plan,
        join: &join,
        channel: &child_channel,
        stdio: &options.stdio,
        pidfd: options.pidfd,
        flags,
        keyring: if options.no_new_keyring {
            None
        } else {
            Some(
                CString::new(format!("_ses.{}", options.id))
                    .map_err(|_| Error::invalid("container id"))?,
            )
        },
        launch: Launch {
            plan: &plan,
            filter: filter.as_ref(),
            init_binary: None,
            preserve_fds: options.preserve_fds,
            last_cap: caps::last_cap().map_err(|error| failed("read", "cap_last_cap", error))?,
            in_user_namespace,
        },
    };
    let clone = Clone3 {
        flags: 0,
        cgroup: join.unified.as_ref().map(AsFd::as_fd),
    };
    let child = clone3(&clone, || helper.run())
        .map_err(|error| failed("clone", "the helper of exec", error))?;
    drop(child_channel);
    let mut process = None;
    let mut console = None;
    let mut outcome = Ok(());
    // The line ends when the helper is gone and the process has become its program, or is gone too.
    loop {
        match channel.receive() {
            Ok(Message::Process(pid, pidfd)) => {
                if in_user_namespace && !plan.rlimits.is_empty() {
                    outcome = outcome.and(launch::limits(&plan, pid));
                    // Without the word the process gives up.
                    if outcome.is_ok() && channel.send(b'L').is_err() {
                        outcome = Err(Error::Ended);
                    }
                    if outcome.is_err() {
                        let _ = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
                    }
                }
                process = Some((pid, pidfd));
            }
            Ok(Message::Console(master)) => console = Some(master),
            Ok(Message::Failed(error)) => outcome = outcome.and(Err(error)),
            Ok(Message::End) => break,
            Ok(_) => outcome = outcome.and(Err(Error::Ended)),
            Err(error) => {
                outcome = outcome.and(Err(failed("speak to", "the helper of exec", error)));
                break;
            }
        }
    }
    let reaped = wait_pidfd(child.pidfd.as_fd(), true)
        .map_err(|error| failed("wait for", "the helper of exec", error));
    let outcome = outcome.and(reaped.map(drop));
    let (pid, pidfd) = match (outcome, process) {
        (Ok(()), Some(process)) => process,
        (Ok(()), None) => return Err(Error::Ended),
        (Err(error), None) => return Err(error),
        (Err(error), Some((_, pidfd))) => {
            let _ = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            let _ = wait_pidfd(pidfd.as_fd(), true);
            return Err(error);
        }
    };
    let handed = match (&options.stdio, &console) {
        (Stdio::ConsoleSocket(path), Some(master)) => send_console(path, master)
            .map_err(|error| failed("send the terminal to", &path.display().to_string(), error)),
        _ => Ok(()),
    };
    let written = handed.and_then(|()| {
        options
            .pid_file
            .as_ref()
            .map_or(Ok(()), |path| write_pid_file(path, pid))
    });
    if let Err(error) = written {
        let _ = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        let _ = wait_pidfd(pidfd.as_fd(), true);
        return Err(error);
    }
    if matches!(options.stdio, Stdio::ConsoleSocket(_)) {
        console = None;
    }
    Ok(Execed {
        pid,
        pidfd,
        console,
    })
}

/// The namespaces to enter: all, but the user namespace only if it is another one (setns(2) refuses one's own).
fn namespaces(pid: i32) -> io::Result<u64> {
    let mut flags =
        CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP;
    let identity =
        |path: String| rustix::fs::stat(path.as_str()).map(|stat| (stat.st_dev, stat.st_ino));
    if identity("/proc/self/ns/user".to_owned())? != identity(format!("/proc/{pid}/ns/user"))? {
        flags |= CLONE_NEWUSER;
    }
    match identity("/proc/self/ns/time".to_owned()) {
        Ok(own) if own != identity(format!("/proc/{pid}/ns/time"))? => flags |= CLONE_NEWTIME,
        _ => {}
    }
    Ok(flags)
}

struct Helper<'a> {
    plan: &'a ProcessPlan,
    join: &'a Join,
    channel: &'a Channel,
    stdio: &'a Stdio,
    pidfd: BorrowedFd<'a>,
    flags: u64,
    keyring: Option<CString>,
    launch: Launch<'a>,
}

impl Helper<'_> {
    fn run(&self) -> i32 {
        match self.enter() {
            Ok(()) => 0,
            Err(error) => {
                self.channel.send_error(error);
                1
            }
        }
    }

    fn enter(&self) -> Result<(), Error> {
        let failed = |operation: &str, object: &str, error: io::Error| {
            Error::stage(operation, object, error)
        };
        process::set_dumpable(false).map_err(|error| failed("set", "dumpable", error))?;
        process::reset_signals().map_err(|error| failed("reset", "signals", error))?;
        let mut keep: Vec<RawFd> = vec![self.channel.fd().as_raw_fd(), self.pidfd.as_raw_fd()];
        keep.extend(self.join.tasks.iter().map(AsRawFd::as_raw_fd));
        if let Stdio::Pipes {
            stdin,
            stdout,
            stderr,
        } = self.stdio
        {
            keep.extend([stdin.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()]);
        }
        process::close_except(3 + self.launch.preserve_fds, &keep)
            .map_err(|error| failed("close", "descriptors", error))?;
        // With the host's /proc and privileges: a copy of this process inherits these.
        let proc = rustix::fs::open(
            "/proc",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| failed("open", "/proc", error.into()))?;
        self.launch.inherited(Some(proc.as_fd()))?;
        drop(proc);
        self.join
            .enter()
            .map_err(|error| failed("join", "cgroup", error))?;
        process::setns(self.pidfd, self.flags).map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => Error::state("container not running"),
            _ => failed("join", "the container's namespaces", error),
        })?;
        if self.flags & CLONE_NEWUSER != 0 {
            for result in [process::setresgid(0), process::setresuid(0)] {
                match result {
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                    other => other
                        .map_err(|error| failed("become root of", "the user namespace", error))?,
                }
            }
        }
        let child = clone3(
            &Clone3 {
                flags: CLONE_PARENT,
                cgroup: None,
            },
            || {
                match self.become_process() {
                    Ok(Failed::Told) => {}
                    Ok(Failed::Untold(error)) | Err(error) => self.channel.send_error(error),
                }
                255
            },
        )
        .map_err(|error| failed("clone", "the process", error))?;
        self.channel
            .send_process(child.pid, child.pidfd.as_fd())
            .map_err(|error| failed("hand over", "the process", error))
    }

    /// Returns what came of execve.
    fn become_process(&self) -> Result<Failed, Error> {
        let failed = |operation: &str, object: &str, error: io::Error| {
            Error::stage(operation, object, error)
        };
        process::setsid().map_err(|error| failed("start", "session", error))?;
        if let Some(keyring) = &self.keyring {
            match process::join_session_keyring(keyring) {
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::ENOSYS | libc::EPERM | libc::EACCES)
                    ) => {}
                other => other.map_err(|error| failed("join", "session keyring", error))?,
            }
        }
        let mut terminal = None;
        if let Stdio::Terminal { .. } | Stdio::ConsoleSocket(_) = self.stdio {
            let root = rustix::fs::open(
                "/",
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|error| failed("open", "/", error.into()))?;
            let size = match self.stdio {
                Stdio::Terminal { size: Some(size) } => Some(*size),
                _ => self.plan.console_size,
            };
            let opened = devices::terminal(root.as_fd(), size)?;
            self.channel
                .send_console(opened.master.as_fd())
                .map_err(|error| failed("hand over", "the terminal", error))?;
            terminal = Some(opened.slave);
        }
        if !self.plan.apparmor_profile.is_empty() || !self.plan.selinux_label.is_empty() {
            let proc = own_proc().map_err(|error| failed("open", "/proc", error))?;
            self.launch.labels(Some(proc.as_fd()))?;
        }
        self.launch
            .streams(self.stdio, terminal.as_ref().map(AsFd::as_fd))?;
        self.launch.close(&[self.channel.fd().as_raw_fd()])?;
        std::mem::forget(terminal);
        if !self.launch.in_user_namespace {
            self.launch.limits()?;
        } else if !self.plan.rlimits.is_empty() && !self.channel.wait() {
            return Err(Error::Ended);
        }
        let program = self.launch.identify()?;
        Ok(self.launch.execute(&program))
    }
}

/// The container's `/proc`, if it is one; what is opened beneath it crosses no mount.
fn own_proc() -> io::Result<OwnedFd> {
    const PROC_SUPER_MAGIC: i64 = 0x9fa0;
    let proc = rustix::fs::open(
        Path::new("/proc"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    if rustix::fs::fstatfs(&proc)?.f_type != PROC_SUPER_MAGIC {
        return Err(io::Error::other("not a proc file system"));
    }
    Ok(proc)
}
