//! The child of `create`: from clone3 to execve.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use gantry_api::oci::runtime::{Hooks, State};
use gantry_sys::cgroup::Join;
use gantry_sys::mount;
use gantry_sys::process::{
    self, CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWTIME,
    CLONE_NEWUSER, CLONE_NEWUTS,
};
use rustix::fs::{Mode, OFlags};

use crate::channel::Channel;
use crate::error::Error;
use crate::hooks;
use crate::options::Stdio;
use crate::plan::Plan;
use crate::prepare::Prepared;
use crate::process::{Failed, Launch, Program, write_beneath};
use crate::rootfs::{devices, mounts, pivot, seal};

/// Everything the child needs, made before it.
#[derive(Debug)]
pub(crate) struct Init<'a> {
    pub plan: &'a Plan,
    pub prepared: &'a Prepared,
    pub join: &'a Join,
    pub channel: &'a Channel,
    pub stdio: &'a Stdio,
    pub launch: Launch<'a>,
    pub no_pivot: bool,
    pub keyring: bool,
    /// The fifo as a place, if its reader starts the program.
    pub fifo: Option<&'a OwnedFd>,
    pub hooks: &'a Hooks,
    /// For hooks that run here; the pid is filled in.
    pub state: &'a State,
    /// Namespaces that are made here because clone3 came too early for them.
    pub unshare: u64,
}

/// What a failure is reported to.
enum Report<'a> {
    Channel(&'a Channel),
    Fifo(OwnedFd),
}

impl Init<'_> {
    /// Runs in the child; returns the exit code of a failure.
    pub fn run(&self) -> i32 {
        let error = match self.set_up() {
            Ok((report, failed)) => {
                match (report, failed) {
                    // The end of the line without a word is a start: the process runs, to say what is wrong.
                    (_, Failed::Told) => {}
                    (Report::Channel(channel), Failed::Untold(error)) => channel.send_error(error),
                    (Report::Fifo(fifo), Failed::Untold(error)) => {
                        // Who started us reads until the end: nothing, or what went wrong. A closed reader is no matter.
                        let text = error.runc_text();
                        let _ = rustix::io::write(&fifo, text.as_bytes());
                    }
                }
                return 255;
            }
            Err(error) => error,
        };
        self.channel.send_error(error);
        255
    }

    /// Returns where to report a failure that came after the start, and the failure.
    fn set_up(&self) -> Result<(Report<'_>, Failed), Error> {
        let plan = self.plan;
        self.namespaces()?;
        let root = self.prepared.root.as_fd();
        pivot::detach_from_host(plan.host_propagation)?;
        pivot::attach(root, &plan.root)?;
        let mut mounted = mounts::apply(&plan.mounts, &self.prepared.sources, root)?;
        if mounted.proc.is_none() && self.needs_proc() {
            let proc = mount::new_filesystem("proc", Some("proc"), &[], 0)
                .map_err(|error| Error::stage("mount", "proc", error))?;
            mounted.proc = Some(proc);
        }
        if plan.own_dev {
            devices::apply(&plan.devices, &self.prepared.device_binds, root)?;
        }
        let terminal = match self.stdio {
            Stdio::Terminal { .. } | Stdio::ConsoleSocket(_) => Some(self.terminal(root)?),
            Stdio::Pipes { .. } | Stdio::Inherit => None,
        };
        self.hooks_before_pivot()?;
        pivot::pivot(root, self.no_pivot)?;
        // As runc and Docker do. What cannot be made is told by the change of directory that follows.
        use std::os::unix::fs::DirBuilderExt;
        let _ = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&plan.process.cwd);
        let proc = mounted.proc.as_ref().map(AsFd::as_fd);
        for (path, value) in &plan.sysctls {
            write_beneath(proc, &format!("sys/{path}"), value)
                .map_err(|error| Error::stage("set sysctl", path.replace('/', "."), error))?;
        }
        seal::readonly_mounts(&mounted.late_readonly)?;
        seal::readonly(&plan.readonly_paths, root)?;
        seal::mask(&plan.masked_paths, self.prepared.null.as_ref(), root)?;
        if let Some((propagation, recursive)) = plan.root_propagation {
            let attributes = mount::MountAttributes {
                propagation: Some(propagation),
                ..Default::default()
            };
            mount::mount_setattr(root, recursive, &attributes)
                .map_err(|error| Error::stage("change the propagation of", "the root", error))?;
        }
        if plan.root_readonly {
            seal::readonly_mount(root)
                .map_err(|error| Error::stage("make read-only", "the root", error))?;
        }
        if let Some(persona) = plan.personality {
            process::personality(persona)
                .map_err(|error| Error::stage("set", "personality", error))?;
        }
        self.launch.inherited(proc)?;
        self.launch.labels(proc)?;
        self.launch
            .streams(self.stdio, terminal.as_ref().map(AsFd::as_fd))?;
        drop(terminal);
        // From here on descriptors are closed by number: nothing may close them again as its own.
        std::mem::forget(mounted.late_readonly);
        self.gate(&ManuallyDrop::new(mounted.proc))
    }

    /// Enters and makes what clone3 could not.
    fn namespaces(&self) -> Result<(), Error> {
        let plan = self.plan;
        let failed = |operation: &str, object: &str, error: io::Error| {
            Error::stage(operation, object, error)
        };
        process::reset_signals().map_err(|error| failed("reset", "signals", error))?;
        process::umask(0);
        if plan.namespaces.is_new(CLONE_NEWUSER) {
            self.channel
                .send(b'M')
                .map_err(|error| failed("ask for", "id maps", error))?;
            if !self.channel.wait() {
                return Err(Error::Ended);
            }
            become_root().map_err(|error| failed("become root of", "the user namespace", error))?;
            // The change of user made /proc/self root's, the host's root's.
            process::set_dumpable(true).map_err(|error| failed("set", "dumpable", error))?;
        } else {
            process::set_dumpable(false).map_err(|error| failed("set", "dumpable", error))?;
        }
        self.join
            .enter()
            .map_err(|error| failed("join", "cgroup", error))?;
        for (flag, namespace) in &self.prepared.joins {
            // These two are joined by the parent: they hold for children only.
            if flag & (CLONE_NEWPID | CLONE_NEWTIME | CLONE_NEWUSER) == 0 {
                process::setns(namespace.as_fd(), *flag)
                    .map_err(|error| failed("join", name_of(*flag), error))?;
            }
        }
        if self.unshare != 0 {
            process::unshare(self.unshare).map_err(|error| failed("make", "namespaces", error))?;
        }
        process::setsid().map_err(|error| failed("start", "session", error))?;
        if self.keyring {
            match process::join_session_keyring(&plan.keyring) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
                other => other.map_err(|error| failed("join", "session keyring", error))?,
            }
        }
        let joins_network = self
            .prepared
            .joins
            .iter()
            .any(|(flag, _)| *flag == CLONE_NEWNET);
        if plan.namespaces.is_new(CLONE_NEWNET) && !joins_network {
            process::loopback_up().map_err(|error| failed("bring up", "lo", error))?;
        }
        if !plan.hostname.is_empty() {
            rustix::system::sethostname(plan.hostname.as_bytes())
                .map_err(|error| failed("set", "hostname", error.into()))?;
        }
        if !plan.domainname.is_empty() {
            rustix::system::setdomainname(plan.domainname.as_bytes())
                .map_err(|error| failed("set", "domainname", error.into()))?;
        }
        Ok(())
    }

    fn needs_proc(&self) -> bool {
        let process = &self.plan.process;
        self.fifo.is_some()
            || !self.plan.sysctls.is_empty()
            || process.oom_score_adj.is_some()
            || !process.apparmor_profile.is_empty()
            || !process.selinux_label.is_empty()
    }

    fn terminal(&self, root: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
        let size = match self.stdio {
            Stdio::Terminal { size: Some(size) } => Some(*size),
            _ => self.plan.process.console_size,
        };
        let terminal = devices::terminal(root, size)?;
        devices::console(terminal.slave.as_fd(), root)?;
        self.channel
            .send_console(terminal.master.as_fd())
            .map_err(|error| Error::stage("hand over", "the terminal", error))?;
        Ok(terminal.slave)
    }

    fn hooks_before_pivot(&self) -> Result<(), Error> {
        let hooks = self.hooks;
        if !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty() {
            self.channel
                .send(b'H')
                .map_err(|error| Error::stage("ask for", "hooks", error))?;
            if !self.channel.wait() {
                return Err(Error::Ended);
            }
        }
        hooks::run(
            "createContainer",
            &hooks.create_container,
            &self.own_state("creating"),
        )
    }

    /// The state that a hook of the container's own namespaces reads: its pid is the one of those.
    fn own_state(&self, status: &str) -> State {
        State {
            status: status.to_owned(),
            pid: rustix::process::getpid().as_raw_pid(),
            ..self.state.clone()
        }
    }

    /// Says that all is ready, waits for the start, and becomes the program.
    fn gate(&self, proc: &Option<OwnedFd>) -> Result<(Report<'_>, Failed), Error> {
        let channel = self.channel.fd().as_raw_fd();
        let mut keep = vec![channel];
        let gate = match (self.fifo, proc) {
            // These two stay open until the start. Neither leads a path anywhere: the fifo is no directory, and what
            // the other refers to is the container's own /proc, or no path of the container reaches it.
            (Some(fifo), Some(proc)) => {
                keep.extend([fifo.as_raw_fd(), proc.as_raw_fd()]);
                Some((fifo.as_raw_fd(), proc))
            }
            (Some(_), None) => {
                return Err(Error::stage(
                    "open",
                    "exec.fifo",
                    io::Error::from(io::ErrorKind::NotFound),
                ));
            }
            (None, _) => None,
        };
        self.launch.close(&keep)?;
        // Hooks run as root; without them the user is changed while nobody waits for it, and errors belong to `create`.
        let hooks = &self.hooks.start_container;
        let program = if hooks.is_empty() {
            Some(self.identify()?)
        } else {
            None
        };
        self.channel
            .send(b'R')
            .map_err(|error| Error::stage("say", "ready", error))?;
        let report = match gate {
            None => {
                if !self.channel.wait() {
                    return Err(Error::Ended);
                }
                Report::Channel(self.channel)
            }
            Some((fifo, proc)) => {
                let path = format!("self/fd/{fifo}");
                // Waits until a reader comes.
                let fifo = rustix::io::retry_on_intr(|| {
                    rustix::fs::openat(
                        proc,
                        path.as_str(),
                        OFlags::WRONLY | OFlags::CLOEXEC,
                        Mode::empty(),
                    )
                })
                .map_err(|error| Error::stage("open", "exec.fifo", error))?;
                if let Err(error) = self.launch.close(&[fifo.as_raw_fd()]) {
                    return Ok((Report::Fifo(fifo), Failed::Untold(error)));
                }
                Report::Fifo(fifo)
            }
        };
        let failed = match hooks::run("startContainer", hooks, &self.own_state("created"))
            .and_then(|()| program.map_or_else(|| self.identify(), Ok))
        {
            Ok(program) => self.launch.execute(&program),
            Err(error) => Failed::Untold(error),
        };
        Ok((report, failed))
    }

    fn identify(&self) -> Result<Program, Error> {
        // In a user namespace the caller sets the limits: only it may raise them.
        if !self.launch.in_user_namespace {
            self.launch.limits()?;
        }
        self.launch.identify()
    }
}

/// Becomes user and group 0 of a user namespace, as far as it maps them.
fn become_root() -> io::Result<()> {
    for result in [process::setresgid(0), process::setresuid(0)] {
        match result {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            other => other?,
        }
    }
    Ok(())
}

/// The specification's name of a namespace.
fn name_of(flag: u64) -> &'static str {
    match flag {
        CLONE_NEWNET => "network namespace",
        CLONE_NEWIPC => "ipc namespace",
        CLONE_NEWUTS => "uts namespace",
        CLONE_NEWCGROUP => "cgroup namespace",
        CLONE_NEWPID => "pid namespace",
        CLONE_NEWUSER => "user namespace",
        CLONE_NEWTIME => "time namespace",
        CLONE_NEWNS => "mount namespace",
        _ => "namespace",
    }
}
