//! `create` and `start`: the caller's side.
//!
//! ```text
//! plan → directory → cgroup → prepare ─ clone3 ─ id maps ─ hooks ─ ready → state.json → (start) → execve
//!                                 └ child: init ┘
//! ```
//! A failure anywhere takes back what was made: the process, the cgroup, the directory.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use gantry_api::oci::runtime::{self as oci, Hooks};
use gantry_sys::cgroup::{Cgroup, Layout, Version};
use gantry_sys::process::{
    self, CLONE_NEWCGROUP, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWTIME, CLONE_NEWUSER, Child, Clone3,
    clone3, pidfd_send_signal, wait_pidfd,
};
use gantry_sys::{caps, unix};
use rustix::fs::{Mode, OFlags};

use crate::channel::{Channel, Message};
use crate::error::Error;
use crate::init::Init;
use crate::options::{CreateOptions, StartGate, Stdio};
use crate::plan::{self, Plan};
use crate::prepare::{self, Prepared};
use crate::process::Launch;
use crate::seccomp::{self, Filter};
use crate::state::{self, State};
use crate::{hooks, process as launch, user};

/// A container whose init is set up and waits before its program.
#[derive(Debug)]
pub struct Created {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// The master of the terminal, for [`Stdio::Terminal`].
    pub console: Option<OwnedFd>,
    /// The container's root, as a place.
    pub root: OwnedFd,
    pub cgroup: Cgroup,
    /// In clock ticks since boot.
    pub start_time: u64,
    pub state: State,
    channel: Channel,
}

impl Created {
    /// Lets the init execute its program; returns when it runs. Poststart hooks run afterwards, and their failures do not
    /// matter to the container.
    ///
    /// # Errors
    /// [`Error::Exec`] when the program cannot be executed; the init has then ended, with 255, and is the caller's to reap.
    pub fn start(&self) -> Result<(), Error> {
        self.channel
            .send(b'S')
            .map_err(|error| match error.raw_os_error() {
                Some(libc::EPIPE | libc::ECONNRESET) => Error::Ended,
                _ => Error::stage("start", &self.state.id, error),
            })?;
        match self
            .channel
            .receive()
            .map_err(|error| Error::stage("start", &self.state.id, error))?
        {
            Message::End => {
                hooks::run_all(
                    "poststart",
                    &self.state.hooks.poststart,
                    &self.state.public(state::Status::Running),
                );
                Ok(())
            }
            Message::Failed(error) => Err(error),
            _ => Err(Error::state("unexpected answer of the container's init")),
        }
    }
}

/// Creates a container. The caller has one thread and is the parent of the init.
///
/// # Errors
/// Whatever is in the way; nothing of the container is left then.
pub fn create(options: CreateOptions) -> Result<Created, Error> {
    let CreateOptions {
        id,
        bundle,
        spec,
        state_root,
        rootfs,
        stdio,
        netns,
        seccomp_filter,
        init_binary,
        cgroup: cgroup_path,
        pid_file,
        no_pivot,
        preserve_fds,
        no_new_keyring,
        start,
        keep_spec,
    } = options;
    let mut plan = plan::plan(&id, &bundle, &spec)?;
    let wants_terminal = matches!(stdio, Stdio::Terminal { .. } | Stdio::ConsoleSocket(_));
    if plan.process.terminal != wants_terminal {
        return Err(Error::invalid(if wants_terminal {
            "console: the process has no `terminal`"
        } else {
            "process: `terminal` without a console to hand it to"
        }));
    }
    let filter = filter(
        seccomp_filter,
        spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()),
    )?;
    let directory = make_directory(&state_root, &id)?;
    let cgroup_path = cgroup_path
        .or_else(|| Some(plan.cgroups_path.clone()).filter(|path| !path.is_empty()))
        .unwrap_or_else(|| format!("/gantry/{id}"));
    let mut undo = Undo {
        directory: &directory,
        cgroup: None,
        child: None,
    };
    let layout = Layout::detect().map_err(|error| Error::stage("find", "cgroups", error))?;
    let cgroup =
        Cgroup::create(&layout, &cgroup_path, &plan.limits).map_err(|error| {
            match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    Error::state(format!("container's cgroup is not empty: {error}"))
                }
                _ => Error::stage("create cgroup", &cgroup_path, error),
            }
        })?;
    let cgroup = &*undo.cgroup.insert(cgroup);
    let join = cgroup
        .prepare_join()
        .map_err(|error| Error::stage("open cgroup", &cgroup_path, error))?;
    let has_netns = netns.is_some();
    let prepared = prepare::prepare(&plan, rootfs, netns, &directory, cgroup)?;
    if let Some(process) = &spec.process
        && let Some(user) = user::resolve(prepared.root.as_fd(), &process.user)?
    {
        (plan.process.uid, plan.process.gid, plan.process.groups) =
            (user.uid, user.gid, user.groups);
    }
    if plan
        .namespaces
        .join
        .iter()
        .any(|(flag, _)| *flag == CLONE_NEWUSER)
    {
        return Err(Error::unsupported("joining a user namespace by its path"));
    }
    let fifo = match start {
        StartGate::Call => None,
        StartGate::Fifo => Some(
            state::make_fifo(&directory)
                .map_err(|error| Error::stage("make", "exec.fifo", error))?,
        ),
    };
    let hooks = spec.hooks.clone().unwrap_or_default();
    let mut record = State {
        version: 1,
        id: id.clone(),
        pid: 0,
        start_time: 0,
        boot_id: state::boot_id().map_err(|error| Error::stage("read", "boot_id", error))?,
        bundle: bundle.clone(),
        root: plan.root.clone(),
        created: gantry_api::time::Timestamp::from(std::time::SystemTime::now()).to_rfc3339_fixed(),
        cgroup: cgroup_path,
        annotations: spec.annotations.clone(),
        oci_version: spec.oci_version.clone(),
        hooks: Hooks {
            poststart: hooks.poststart.clone(),
            poststop: hooks.poststop.clone(),
            ..Hooks::default()
        },
        spec: None,
        directory: directory.clone(),
    };
    let public = record.public(state::Status::Created);
    let flags = Flags::of(&plan, has_netns, &layout);
    let (channel, child_channel) =
        Channel::pair().map_err(|error| Error::stage("open", "a socket pair", error))?;
    let init = Init {
        plan: &plan,
        prepared: &prepared,
        join: &join,
        channel: &child_channel,
        stdio: &stdio,
        launch: Launch {
            plan: &plan.process,
            filter: filter.as_ref(),
            init_binary: init_binary.as_ref(),
            preserve_fds,
            last_cap: caps::last_cap()
                .map_err(|error| Error::stage("read", "cap_last_cap", error))?,
            in_user_namespace: plan.namespaces.contains(CLONE_NEWUSER),
        },
        no_pivot,
        keyring: !no_new_keyring,
        fifo: fifo.as_ref(),
        hooks: &hooks,
        state: &public,
        unshare: flags.unshare,
    };
    let child = clone_init(&plan, &prepared, &join.unified, flags.clone, &init)?;
    drop(child_channel);
    let child = undo.child.insert(child);
    record.pid = child.pid;
    let console = converse(&channel, child, &plan, &hooks, &record)?;
    let console = match (&stdio, console) {
        (Stdio::ConsoleSocket(path), Some(master)) => {
            send_console(path, &master)
                .map_err(|error| Error::stage("send the terminal to", path.display(), error))?;
            None
        }
        (_, console) => console,
    };
    record.start_time = state::stat(child.pid)
        .map_err(|error| Error::stage("read stat of", child.pid, error))?
        .start_time;
    if keep_spec {
        record.spec = Some(spec);
    }
    record.save()?;
    if let Some(path) = &pid_file {
        write_pid_file(path, child.pid)?;
    }
    let (Some(Child { pid, pidfd }), Some(cgroup)) = undo.done() else {
        return Err(Error::Ended);
    };
    Ok(Created {
        pid,
        pidfd,
        console,
        root: prepared.root,
        cgroup,
        start_time: record.start_time,
        state: record,
        channel,
    })
}

/// Starts a container whose init waits at its fifo, made by another process.
///
/// # Errors
/// [`Error::State`] unless it is `created`; what kept the program from running.
pub fn start_from_fifo(state: &State) -> Result<(), Error> {
    match state.status() {
        state::Status::Created => {}
        state::Status::Stopped => {
            return Err(Error::state("cannot start a container that has stopped"));
        }
        state::Status::Running | state::Status::Paused => {
            return Err(Error::state("cannot start an already running container"));
        }
    }
    let failed = |error: io::Error| Error::stage("start", &state.id, error);
    let pidfd = state.pidfd()?;
    let fifo = open_fifo(&state.fifo(), &pidfd).map_err(failed)?;
    let mut text = String::new();
    fs::File::from(fifo)
        .read_to_string(&mut text)
        .map_err(failed)?;
    fs::remove_file(state.fifo()).map_err(failed)?;
    if !text.is_empty() {
        return Err(Error::state(text));
    }
    hooks::run_all(
        "poststart",
        &state.hooks.poststart,
        &state.public(state::Status::Running),
    );
    Ok(())
}

/// Opens the reading end, whose writer is the init; an init that has ended never comes.
fn open_fifo(path: &Path, pidfd: &OwnedFd) -> io::Result<OwnedFd> {
    use rustix::event::{PollFd, PollFlags};
    // Opening without waiting succeeds at once and lets the init's own opening succeed; then either it writes or closes
    // (the program runs), or it is gone.
    let fifo = rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
    )?;
    loop {
        let mut fds = [
            PollFd::new(&fifo, PollFlags::IN),
            PollFd::new(pidfd, PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !fds[0].revents().is_empty() || !fds[1].revents().is_empty() {
            break;
        }
    }
    rustix::fs::fcntl_setfl(&fifo, OFlags::empty())?;
    Ok(fifo)
}

/// What clone3 makes and what is left to the child.
struct Flags {
    clone: u64,
    unshare: u64,
}

impl Flags {
    fn of(plan: &Plan, has_netns: bool, layout: &Layout) -> Self {
        let mut clone = plan.namespaces.new;
        let mut unshare = 0;
        if has_netns {
            clone &= !CLONE_NEWNET;
        }
        // A cgroup namespace begins at the cgroup its maker is in. CLONE_INTO_CGROUP puts the child there before the
        // namespace is made; version 1 is joined by the child itself, so it makes the namespace after that.
        if clone & CLONE_NEWCGROUP != 0 && layout.version() == Version::V1 {
            clone &= !CLONE_NEWCGROUP;
            unshare |= CLONE_NEWCGROUP;
        }
        // Offsets are set before the first process is in the namespace: the caller makes it for its children.
        if !plan.time_offsets.is_empty() {
            clone &= !CLONE_NEWTIME;
        }
        Self { clone, unshare }
    }
}

/// Clones the init. PID and time namespaces of others, and a time namespace with offsets, hold for the caller's next
/// children; the caller goes back to its own afterwards.
fn clone_init(
    plan: &Plan,
    prepared: &Prepared,
    unified: &Option<OwnedFd>,
    flags: u64,
    init: &Init<'_>,
) -> Result<Child, Error> {
    let failed =
        |operation: &str, object: &str, error: io::Error| Error::stage(operation, object, error);
    let mut back = Vec::new();
    let joins = prepared
        .joins
        .iter()
        .filter(|(flag, _)| flag & (CLONE_NEWPID | CLONE_NEWTIME) != 0);
    for (flag, namespace) in joins {
        back.push((*flag, own_namespace(*flag)?));
        process::setns(namespace.as_fd(), *flag)
            .map_err(|error| failed("join", "a namespace", error))?;
    }
    if !plan.time_offsets.is_empty() {
        back.push((CLONE_NEWTIME, own_namespace(CLONE_NEWTIME)?));
        process::unshare(CLONE_NEWTIME).map_err(|error| failed("make", "time namespace", error))?;
        fs::write("/proc/self/timens_offsets", &plan.time_offsets)
            .map_err(|error| failed("write", "timens_offsets", error))?;
    }
    let child = clone3(
        &Clone3 {
            flags,
            cgroup: unified.as_ref().map(AsFd::as_fd),
        },
        || init.run(),
    );
    for (flag, namespace) in back {
        process::setns(namespace.as_fd(), flag)
            .map_err(|error| failed("return to", "the own namespace", error))?;
    }
    child.map_err(|error| failed("clone", "the container's init", error))
}

fn own_namespace(flag: u64) -> Result<OwnedFd, Error> {
    let path = if flag == CLONE_NEWPID {
        "/proc/self/ns/pid"
    } else {
        "/proc/self/ns/time"
    };
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::stage("open", path, error))
}

/// Answers the child until it is ready; returns the master of its terminal.
fn converse(
    channel: &Channel,
    child: &Child,
    plan: &Plan,
    hooks: &Hooks,
    record: &State,
) -> Result<Option<OwnedFd>, Error> {
    let failed = |error: io::Error| Error::stage("speak to", "the container's init", error);
    let mut console = None;
    loop {
        match channel.receive().map_err(failed)? {
            Message::Maps => {
                prepare::write_maps(child.pid, &plan.uid_mappings, &plan.gid_mappings)
                    .map_err(|error| Error::stage("write", "id maps", error))?;
                channel.send(b'M').map_err(failed)?;
            }
            Message::Hooks => {
                let state = oci::State {
                    status: "creating".to_owned(),
                    ..record.public(state::Status::Created)
                };
                hooks::run("prestart", &hooks.prestart, &state)?;
                hooks::run("createRuntime", &hooks.create_runtime, &state)?;
                channel.send(b'H').map_err(failed)?;
            }
            Message::Console(master) => console = Some(master),
            Message::Ready => break,
            Message::Failed(error) => return Err(error),
            Message::End | Message::Process(..) => return Err(Error::Ended),
        }
    }
    if plan.namespaces.contains(CLONE_NEWUSER) {
        launch::limits(&plan.process, child.pid)?;
    }
    Ok(console)
}

/// Compiles the filter, unless there is one.
pub(crate) fn filter(
    program: Option<Vec<u8>>,
    profile: Option<&oci::LinuxSeccomp>,
) -> Result<Option<Filter>, Error> {
    match (program, profile) {
        (Some(program), _) => Ok(Some(Filter {
            program,
            flags: gantry_sys::seccomp::SPEC_ALLOW,
        })),
        (None, Some(profile)) => seccomp::compile(profile)
            .map(Some)
            .map_err(|error| Error::invalid(format!("seccomp profile: {error}"))),
        (None, None) => Ok(None),
    }
}

fn make_directory(state_root: &Path, id: &str) -> Result<PathBuf, Error> {
    let directory = state_root.join(id);
    let failed = |error: io::Error| Error::stage("create", directory.display(), error);
    let make = || fs::DirBuilder::new().mode(0o711).create(&directory);
    match make() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new()
                .mode(0o700)
                .recursive(true)
                .create(state_root)
                .map_err(failed)?;
            make().map_err(failed)?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Error::Exists { id: id.to_owned() });
        }
        other => other.map_err(failed)?,
    }
    Ok(directory)
}

/// Sends a terminal's master to whoever listens on a unix socket, with its name, as runc does.
pub(crate) fn send_console(path: &Path, master: &OwnedFd) -> io::Result<()> {
    use std::os::unix::net::UnixStream;
    let socket = UnixStream::connect(path)?;
    unix::send_with_fds(socket.as_fd(), b"/dev/ptmx", &[master.as_fd()])?;
    Ok(())
}

/// Writes a pid in one step: a reader sees all of it or nothing.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> Result<(), Error> {
    let failed = |error: io::Error| Error::stage("write", path.display(), error);
    let name = path
        .file_name()
        .ok_or_else(|| Error::invalid(format!("pid file `{}`", path.display())))?;
    // What is there and no file, such as /dev/null or a fifo, is written to and not replaced.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return fs::write(path, pid.to_string()).map_err(failed);
    }
    let temporary = path.with_file_name(format!(".{}", name.to_string_lossy()));
    fs::write(&temporary, pid.to_string()).map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)
}

/// Takes back a half-made container when it is dropped before [`Undo::done`].
struct Undo<'a> {
    directory: &'a Path,
    cgroup: Option<Cgroup>,
    child: Option<Child>,
}

impl Undo<'_> {
    fn done(mut self) -> (Option<Child>, Option<Cgroup>) {
        let made = (self.child.take(), self.cgroup.take());
        std::mem::forget(self);
        made
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        // The first error is told already; what cannot be taken back here is found by its name later.
        if let Some(child) = &self.child {
            let _ = pidfd_send_signal(child.pidfd.as_fd(), libc::SIGKILL);
            let _ = wait_pidfd(child.pidfd.as_fd(), true);
        }
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill();
            let _ = cgroup.remove();
        }
        let _ = fs::remove_dir_all(self.directory);
    }
}
