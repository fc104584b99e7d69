//! Answers the daemon's requests.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use gantry_sys::epoll::EventFlags;
use gantry_sys::{process, pty};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use crate::container::{self, Streams};
use crate::exit;
use crate::log::writer::Writer;
use crate::protocol::{
    Attach, ExecRequest, ExecState, Failure, FailureKind, HoldWait, Reply, Request, StartRequest,
    State,
};
use crate::streams::NewTask;
use crate::supervisor::{Kind, Phase, Supervisor};
use crate::task::{self, CONTAINER, Ours};

/// Clients that may be attached at once.
const CLIENTS_MAX: usize = 1024;
/// Waits that may be held at once.
const WAITS_MAX: usize = 1024;
/// The descriptors of names: UDP, TCP, network namespace.
const NAMES_FDS: usize = 3;
/// Execs that may run at once.
const EXECS_RUNNING_MAX: usize = 4096;

fn error(message: impl Into<String>) -> (Reply, Vec<OwnedFd>) {
    (
        Reply::Error {
            message: message.into(),
        },
        Vec::new(),
    )
}

fn result(outcome: Result<(), String>) -> (Reply, Vec<OwnedFd>) {
    match outcome {
        Ok(()) => (Reply::Ok, Vec::new()),
        Err(message) => error(message),
    }
}

fn other(message: String) -> Failure {
    Failure {
        kind: FailureKind::Other,
        message,
        errno: None,
    }
}

impl Supervisor {
    /// Carries out one request and returns the reply with its descriptors.
    pub fn request(&mut self, request: Request, fds: Vec<OwnedFd>) -> (Reply, Vec<OwnedFd>) {
        match request {
            // Answered where the connection is known.
            Request::Hello { .. } => (Reply::Ok, Vec::new()),
            Request::Start(request) => (self.start(*request, fds), Vec::new()),
            Request::Attach(attach) => result(self.attach(attach, fds)),
            Request::HoldWait(wait) => result(self.hold_wait(wait, fds)),
            Request::Signal { signal } => result(self.signal(CONTAINER, signal)),
            Request::ExecSignal { exec, signal } => {
                let found = self.exec_task(&exec);
                result(found.and_then(|id| self.signal(id, signal)))
            }
            Request::Resize { exec, rows, cols } => result(self.resize(exec, rows, cols)),
            Request::CloseStdin => {
                self.close_stdin(CONTAINER);
                (Reply::Ok, Vec::new())
            }
            Request::Exec(request) => (self.exec(*request, fds), Vec::new()),
            Request::ExecInspect { exec } => match self.execs().find(|state| state.exec == exec) {
                Some(state) => (Reply::ExecState(state), Vec::new()),
                None => error(format!("no exec `{exec}`")),
            },
            Request::ExecList => (Reply::Execs(self.execs().collect()), Vec::new()),
            Request::State => (Reply::State(Box::new(self.state())), Vec::new()),
            Request::RootFd => self.root_fd(),
            Request::SyncLog => (Reply::Log(self.log.position()), Vec::new()),
            Request::KeepNames => result(self.keep_names(fds)),
            Request::TakeNames => self.take_names(),
            Request::Release => match &self.phase {
                Phase::Ended(_) => {
                    self.released = true;
                    // The daemon has answered those that it left here itself.
                    self.waits.clear();
                    self.answer_waits();
                    (Reply::Ok, Vec::new())
                }
                _ => error("the container has not ended"),
            },
        }
    }

    fn start(&mut self, request: StartRequest, fds: Vec<OwnedFd>) -> Reply {
        if self.phase != Phase::Waiting {
            return Reply::Error {
                message: "the container was started before".to_owned(),
            };
        }
        match self.try_start(request, fds) {
            Ok(reply) => reply,
            Err(failure) => {
                self.end_before_start();
                Reply::StartFailed(failure)
            }
        }
    }

    /// Undoes what a failed start has begun; the shim ends once the daemon has the answer.
    fn end_before_start(&mut self) {
        // First, so that the process's end is no container's end and leaves no record.
        self.tasks.clear();
        if let Some(mut container) = self.container.take() {
            container.kill_all();
            self.reap();
            container.delete();
        }
        // Their requests were answered by the failure.
        self.clients.clear();
        self.waits.clear();
        self.orphans.clear();
        self.phase = Phase::Ended(None);
        self.released = true;
    }

    fn try_start(&mut self, request: StartRequest, fds: Vec<OwnedFd>) -> Result<Reply, Failure> {
        let attached = request.attaches.len() + request.waits.len();
        let namespaces = usize::from(request.has_netns) + request.joins.len();
        let names = if request.keeps_names { NAMES_FDS } else { 0 };
        let expected = 1 + namespaces + names + attached;
        if fds.len() != expected {
            return Err(other(format!(
                "start needs {expected} descriptors, {} came",
                fds.len()
            )));
        }
        let mut fds = fds.into_iter();
        let listener = fds.next();
        let netns = if request.has_netns { fds.next() } else { None };
        let joins = request.joins.iter().cloned().zip(fds.by_ref()).collect();
        self.names = fds.by_ref().take(names).collect();
        if let Some(listener) = listener {
            rustix::io::ioctl_fionbio(&listener, true)
                .map_err(|cause| other(format!("listener: {cause}")))?;
            self.epoll
                .add(listener.as_fd(), Kind::Listener.token(0), EventFlags::IN)
                .map_err(|cause| other(format!("listener: {cause}")))?;
            self.listener = Some(listener);
        }
        self.container_id.clone_from(&request.container_id);
        self.exit_path.clone_from(&request.exit_path);
        self.log_config = request.log.clone();
        self.log = Writer::open(&request.log).map_err(|cause| {
            other(format!(
                "open log `{}`: {cause}",
                request.log.path.display()
            ))
        })?;
        let (ours, streams) = streams(request.tty, request.open_stdin, request.console_size)?;
        let container = container::create(&request, streams, netns, joins)?;
        let ours = match &container.console {
            Some(master) => task::terminal(master, request.open_stdin)
                .map_err(|cause| other(format!("terminal: {cause}")))?,
            None => ours,
        };
        let (pid, pidfd) = (container.pid, duplicate(&container.pidfd)?);
        let console = container.console.as_ref().map(duplicate).transpose()?;
        self.container = Some(container);
        self.add_task(NewTask {
            id: CONTAINER,
            exec: None,
            pid,
            pidfd,
            tty: request.tty,
            stdin_once: request.stdin_once,
            console,
            ours,
        })
        .map_err(|cause| other(format!("watch the container: {cause}")))?;
        self.watch_oom();
        // Before the process runs, so that no client misses its first byte.
        for attach in request.attaches {
            let Some(fd) = fds.next() else { break };
            self.add_client(CONTAINER, attach, fd).map_err(other)?;
        }
        for wait in request.waits {
            let Some(fd) = fds.next() else { break };
            self.waits.push((fd, wait));
        }
        if let Some(container) = &mut self.container {
            container.start()?;
        }
        self.started_at_ns = exit::realtime_ns();
        self.start_time_ticks = container::start_time_ticks(pid);
        self.phase = Phase::Running;
        Ok(Reply::Started {
            pid,
            start_time_ticks: self.start_time_ticks,
            started_at_ns: self.started_at_ns,
        })
    }

    fn attach(&mut self, attach: Attach, fds: Vec<OwnedFd>) -> Result<(), String> {
        let id = match &attach.exec {
            Some(exec) => self.exec_task(exec)?,
            None if self.phase == Phase::Running => CONTAINER,
            None => return Err("the container does not run".to_owned()),
        };
        if self.clients.len() >= CLIENTS_MAX {
            return Err(format!("{CLIENTS_MAX} clients are attached"));
        }
        let fd = fds.into_iter().next().ok_or("attach needs a descriptor")?;
        self.add_client(id, attach, fd)
    }

    fn hold_wait(&mut self, wait: HoldWait, fds: Vec<OwnedFd>) -> Result<(), String> {
        if matches!(self.phase, Phase::Ended(_)) {
            return Err("the container has ended".to_owned());
        }
        // Waits of clients that are gone make room.
        if self.waits.len() >= WAITS_MAX {
            self.waits.retain(|(fd, _)| !peer_is_gone(fd));
        }
        if self.waits.len() + self.orphans.len() >= WAITS_MAX {
            return Err(format!("{WAITS_MAX} waits are held"));
        }
        let fd = fds.into_iter().next().ok_or("wait needs a descriptor")?;
        self.waits.push((fd, wait));
        Ok(())
    }

    fn exec_task(&self, exec: &str) -> Result<u64, String> {
        let mut running = self.tasks.iter().filter(|task| task.exit_code.is_none());
        let found = running.find(|task| task.exec.as_deref() == Some(exec));
        found
            .map(|task| task.id)
            .ok_or_else(|| format!("exec `{exec}` does not run"))
    }

    fn signal(&mut self, id: u64, signal: i32) -> Result<(), String> {
        let task = self.task(id).filter(|task| task.exit_code.is_none());
        let task = task.ok_or("the process does not run")?;
        process::pidfd_send_signal(task.pidfd.as_fd(), signal)
            .map_err(|cause| format!("send signal {signal}: {cause}"))
    }

    fn resize(&mut self, exec: Option<String>, rows: u16, cols: u16) -> Result<(), String> {
        let id = match exec {
            Some(exec) => self.exec_task(&exec)?,
            None => CONTAINER,
        };
        let task = self.task(id).ok_or("the process does not run")?;
        // Docker takes a size for a process without a terminal too; it means nothing there.
        let Some(console) = task.console.as_ref() else {
            return Ok(());
        };
        pty::set_size(console.as_fd(), rows, cols).map_err(|cause| format!("resize: {cause}"))
    }

    fn exec(&mut self, request: ExecRequest, fds: Vec<OwnedFd>) -> Reply {
        match self.try_exec(request, fds) {
            Ok(pid) => Reply::ExecStarted { pid },
            Err(failure) => Reply::ExecFailed(failure),
        }
    }

    fn try_exec(&mut self, request: ExecRequest, fds: Vec<OwnedFd>) -> Result<i32, Failure> {
        if self.phase != Phase::Running {
            return Err(other("the container does not run".to_owned()));
        }
        if self.execs().any(|state| state.exec == request.exec) {
            return Err(other(format!("exec `{}` was started before", request.exec)));
        }
        if self.tasks.len() > EXECS_RUNNING_MAX {
            return Err(other(format!("{EXECS_RUNNING_MAX} execs run")));
        }
        let fd = fds.into_iter().next();
        if request.attach.is_some() && fd.is_none() {
            return Err(other("an attached exec needs a descriptor".to_owned()));
        }
        let (ours, streams) = streams(request.tty, request.stdin, request.console_size)?;
        let container = self
            .container
            .as_mut()
            .ok_or_else(|| other("the container does not run".to_owned()))?;
        let executed = container.exec(&request, streams)?;
        let ours = match &executed.console {
            Some(master) => task::terminal(master, request.stdin)
                .map_err(|cause| other(format!("terminal: {cause}")))?,
            None => ours,
        };
        let id = self.id();
        self.add_task(NewTask {
            id,
            exec: Some(request.exec),
            pid: executed.pid,
            pidfd: executed.pidfd,
            tty: request.tty,
            stdin_once: true,
            console: executed.console,
            ours,
        })
        .map_err(|cause| other(format!("watch the process: {cause}")))?;
        if let (Some(attach), Some(fd)) = (request.attach, fd) {
            self.add_client(id, attach, fd).map_err(other)?;
        }
        Ok(executed.pid)
    }

    fn execs(&self) -> impl Iterator<Item = ExecState> + '_ {
        let running = self
            .tasks
            .iter()
            .filter(|task| !task.finished)
            .filter_map(|task| {
                Some(ExecState {
                    exec: task.exec.clone()?,
                    running: true,
                    pid: task.pid,
                    exit_code: None,
                })
            });
        self.ended_execs.iter().cloned().chain(running)
    }

    fn state(&self) -> State {
        let task = self.tasks.iter().find(|task| task.id == CONTAINER);
        let exit = match &self.phase {
            Phase::Draining(record) | Phase::Ended(Some(record)) => Some(record.clone()),
            _ => None,
        };
        State {
            container_id: self.container_id.clone(),
            pid: task.map_or(0, |task| task.pid),
            start_time_ticks: self.start_time_ticks,
            started_at_ns: self.started_at_ns,
            running: self.phase == Phase::Running,
            oom_kills: self.oom_kills,
            log_lines_dropped: self.log.dropped(),
            attached: self
                .clients
                .iter()
                .filter(|client| client.task == CONTAINER)
                .count() as u32,
            execs_running: self
                .tasks
                .iter()
                .filter(|task| task.id != CONTAINER && !task.finished)
                .count() as u32,
            stdin_open: task
                .is_some_and(|task| task.stdin.as_ref().is_some_and(|input| !input.closing)),
            exit,
        }
    }

    fn keep_names(&mut self, fds: Vec<OwnedFd>) -> Result<(), String> {
        if fds.len() != NAMES_FDS {
            return Err(format!(
                "names need {NAMES_FDS} descriptors, {} came",
                fds.len()
            ));
        }
        if matches!(self.phase, Phase::Draining(_) | Phase::Ended(_)) {
            return Err("the container has ended".to_owned());
        }
        self.names = fds;
        Ok(())
    }

    fn take_names(&self) -> (Reply, Vec<OwnedFd>) {
        if self.names.is_empty() {
            return error("no sockets of names are kept");
        }
        let own = pidfd_open(getpid(), PidfdFlags::empty()).map_err(io::Error::from);
        let kept = self.names.iter().map(OwnedFd::try_clone);
        match kept.chain([own]).collect() {
            Ok(fds) => (Reply::Names, fds),
            Err(cause) => error(format!("duplicate the sockets of names: {cause}")),
        }
    }

    fn root_fd(&mut self) -> (Reply, Vec<OwnedFd>) {
        if self.phase != Phase::Running {
            return error("the container does not run");
        }
        let Some(container) = &self.container else {
            return error("the container does not run");
        };
        match (container.root(), container.pidfd.try_clone()) {
            (Ok(root), Ok(pidfd)) => (Reply::Root, vec![root, pidfd]),
            (Err(cause), _) | (_, Err(cause)) => error(format!("root of the container: {cause}")),
        }
    }
}

fn streams(
    tty: bool,
    open_stdin: bool,
    size: Option<[u16; 2]>,
) -> Result<(Ours, Streams), Failure> {
    if tty {
        let size = size
            .map(|[rows, columns]| (rows, columns))
            .filter(|&(rows, columns)| rows > 0 || columns > 0);
        return Ok((Ours::default(), Streams::Terminal(size)));
    }
    let (ours, theirs) =
        task::pipes(open_stdin).map_err(|cause| other(format!("make pipes: {cause}")))?;
    Ok((ours, Streams::Pipes(theirs)))
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd, Failure> {
    fd.try_clone()
        .map_err(|cause| other(format!("duplicate descriptor: {cause}")))
}

fn peer_is_gone(fd: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}
