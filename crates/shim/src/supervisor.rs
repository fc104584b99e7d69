//! The loop: who is waited for, and what follows from an end.
//!
//! ```text
//!            Start              init ended, record written        pipes at their end, or 2 s later
//!  Waiting ─────────▶ Running ─────────────────────────────▶ Draining ─────────▶ Ended ──▶ process ends
//!     │ StartFailed                                                                 ▲  once released, or no daemon is
//!     └─────────────────────────────────────────────────────────────────────────────┘  there, and each client has its
//!                                                                                      output
//! ```
//! One thread; nothing here waits except [`Epoll::wait`] and, bounded, the runtime. Ids of tasks, clients and connections
//! are never used twice, so an event that was fetched before its object went away finds nothing.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gantry_sys::epoll::{Epoll, EventFlags};
use gantry_sys::{epoll, unix};
use rustix::process::{Pid, WaitOptions, WaitStatus};

use crate::client::{Client, Ending};
use crate::connection::Connection;
use crate::container::Container;
use crate::exit;
use crate::log::Stream;
use crate::log::writer::Writer;
use crate::protocol::{Event, ExecState, ExitRecord, FromShim, HoldWait, LogConfig};
use crate::task::{CONTAINER, Task};

/// How long output is awaited after a process has ended while someone else holds the pipe (Docker's figure).
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// How long after the last activity memory is given back.
const IDLE_TIME: Duration = Duration::from_millis(200);
/// The kernel tells of an OOM before it has killed; the count is read again after this time.
const OOM_TIME: Duration = Duration::from_millis(50);
/// A full disk refused the exit record: the next try.
const RECORD_TIME: Duration = Duration::from_secs(1);
/// How many ended execs are remembered.
const EXECS_MAX: usize = 512;
/// How many ended execs may have processes that they left behind and that still hold their pipes.
const HELD_MAX: usize = 256;
/// The flag of waitpid for children that send no SIGCHLD (__WALL).
const WALL: u32 = 0x4000_0000;

/// What an epoll token's upper byte says; the rest is an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Signals,
    Listener,
    Oom,
    Connection,
    Stdout,
    Stderr,
    Stdin,
    Client,
    Process,
}

const KINDS: [Kind; 9] = [
    Kind::Signals,
    Kind::Listener,
    Kind::Oom,
    Kind::Connection,
    Kind::Stdout,
    Kind::Stderr,
    Kind::Stdin,
    Kind::Client,
    Kind::Process,
];

impl Kind {
    pub fn token(self, id: u64) -> u64 {
        (self as u64) << 56 | id
    }

    fn of(token: u64) -> Option<(Kind, u64)> {
        Some((*KINDS.get((token >> 56) as usize)?, token & ((1 << 56) - 1)))
    }
}

/// Where the container is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    Waiting,
    Running,
    Draining(ExitRecord),
    /// `None`: the container was never started.
    Ended(Option<ExitRecord>),
}

pub struct Supervisor {
    pub epoll: Epoll,
    signals: OwnedFd,
    pub listener: Option<OwnedFd>,
    /// Where the container asks for names, kept for whoever answers.
    pub names: Vec<OwnedFd>,
    pub connections: Vec<Connection>,
    pub phase: Phase,
    pub container_id: String,
    pub container: Option<Container>,
    pub started_at_ns: i64,
    pub start_time_ticks: u64,
    pub exit_path: PathBuf,
    /// The record is on disk.
    recorded: bool,
    record_again: Option<Instant>,
    pub released: bool,
    pub tasks: Vec<Task>,
    pub ended_execs: VecDeque<ExecState>,
    pub clients: Vec<Client>,
    pub waits: Vec<(OwnedFd, HoldWait)>,
    /// Waits that an earlier daemon left here: no later one knows of them, so they are answered at the end.
    pub orphans: Vec<OwnedFd>,
    pub log: Writer,
    pub log_config: LogConfig,
    oom: Option<OwnedFd>,
    pub oom_kills: u64,
    oom_again: Option<Instant>,
    next_id: u64,
    /// Where reads go; empty while idle.
    pub buffer: Vec<u8>,
    /// Something happened since memory was given back.
    busy: bool,
}

impl Supervisor {
    /// Prepares the loop with the daemon's first connection.
    pub fn new(control: OwnedFd) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        // Only SIGCHLD means anything; the others must not end a shim before its container.
        let signals = epoll::signalfd(&[libc::SIGCHLD, libc::SIGHUP, libc::SIGINT, libc::SIGTERM])?;
        epoll.add(signals.as_fd(), Kind::Signals.token(0), EventFlags::IN)?;
        let log_config = LogConfig::default();
        let mut supervisor = Supervisor {
            epoll,
            signals,
            listener: None,
            names: Vec::new(),
            connections: Vec::new(),
            phase: Phase::Waiting,
            container_id: String::new(),
            container: None,
            started_at_ns: 0,
            start_time_ticks: 0,
            exit_path: PathBuf::new(),
            recorded: false,
            record_again: None,
            released: false,
            tasks: Vec::new(),
            ended_execs: VecDeque::new(),
            clients: Vec::new(),
            waits: Vec::new(),
            orphans: Vec::new(),
            log: Writer::open(&log_config)?,
            log_config,
            oom: None,
            oom_kills: 0,
            oom_again: None,
            next_id: 1,
            buffer: Vec::new(),
            busy: true,
        };
        supervisor.add_connection(control)?;
        Ok(supervisor)
    }

    /// Returns an id that was never used.
    pub fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Runs until nothing is left to do.
    pub fn run(&mut self) -> io::Result<()> {
        let mut found = Vec::with_capacity(32);
        while !self.is_over() {
            found.clear();
            let count = self
                .epoll
                .wait(self.timeout(), |token, flags| found.push((token, flags)))?;
            if count > 0 {
                self.busy = true;
            } else if self.busy && self.timers().is_none_or(|at| at > Instant::now()) {
                self.rest();
            }
            for &(token, flags) in &found {
                if let Some((kind, id)) = Kind::of(token) {
                    self.dispatch(kind, id, flags);
                }
            }
            self.run_timers();
            self.settle();
        }
        Ok(())
    }

    fn dispatch(&mut self, kind: Kind, id: u64, flags: EventFlags) {
        match kind {
            Kind::Signals => {
                epoll::drain_signals(&self.signals);
                self.reap();
            }
            Kind::Process => self.reap(),
            Kind::Listener => self.accept(),
            Kind::Oom => self.oom_event(),
            Kind::Connection => self.connection_event(id, flags),
            Kind::Stdout => self.pump(id, Stream::Stdout, false),
            Kind::Stderr => self.pump(id, Stream::Stderr, false),
            Kind::Stdin => self.stdin_event(id),
            Kind::Client => self.client_event(id, flags),
        }
    }

    /// Gives back what only activity needs.
    fn rest(&mut self) {
        self.busy = false;
        self.buffer = Vec::new();
        self.log.idle();
        for connection in &mut self.connections {
            connection.rest();
        }
        epoll::trim_heap();
    }

    fn timers(&self) -> Option<Instant> {
        let drains = self.tasks.iter().filter_map(|task| task.drain_until);
        drains.chain(self.oom_again).chain(self.record_again).min()
    }

    fn timeout(&self) -> Option<Duration> {
        let timer = self
            .timers()
            .map(|at| at.saturating_duration_since(Instant::now()));
        let idle = self.busy.then_some(IDLE_TIME);
        timer.into_iter().chain(idle).min()
    }

    fn run_timers(&mut self) {
        let now = Instant::now();
        if self.oom_again.is_some_and(|at| at <= now) {
            self.oom_again = None;
            self.count_oom_kills();
        }
        if self.record_again.is_some_and(|at| at <= now) {
            self.record_again = None;
            self.write_record();
        }
        let late: Vec<u64> = self
            .tasks
            .iter()
            .filter(|task| task.drain_until.is_some_and(|at| at <= now))
            .map(|task| task.id)
            .collect();
        for id in late {
            self.finish_task(id);
        }
    }

    /// Brings everything to rest that one round may have moved: lagging readers, endings, waits.
    fn settle(&mut self) {
        self.update_outputs();
        self.update_clients();
        self.flush_connections();
        if matches!(self.phase, Phase::Ended(_)) && !self.daemon_is_there() && !self.released {
            self.answer_waits();
        }
    }

    /// Tells whether a daemon is connected that has said hello.
    fn daemon_is_there(&self) -> bool {
        self.connections.iter().any(|connection| connection.greeted)
    }

    /// Tells whether the shim has done its duty.
    fn is_over(&self) -> bool {
        match &self.phase {
            // Nobody can ever start the container.
            Phase::Waiting => self.connections.is_empty(),
            Phase::Running | Phase::Draining(_) => false,
            Phase::Ended(record) => {
                let told = self.released || !self.daemon_is_there();
                let kept = record.is_none() || self.recorded || self.released;
                told && kept
                    && self.clients.is_empty()
                    && self.connections.iter().all(Connection::is_flushed)
                    && self.log.compressing().is_none()
            }
        }
    }

    /// Tells every daemon that is connected.
    pub fn emit(&mut self, event: Event) {
        let message = FromShim::Event(event);
        for connection in self
            .connections
            .iter_mut()
            .filter(|connection| connection.greeted)
        {
            connection.push(0, &message, Vec::new());
        }
    }

    /// Takes in every child that has ended.
    pub fn reap(&mut self) {
        let options = WaitOptions::NOHANG | WaitOptions::from_bits_retain(WALL);
        while let Ok(Some((pid, status))) = rustix::process::wait(options) {
            self.child_ended(pid, status);
        }
    }

    fn child_ended(&mut self, pid: Pid, status: WaitStatus) {
        let code = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => code,
            (None, Some(signal)) => 128 + signal,
            // Stopped or continued.
            (None, None) => return,
        };
        let pid = pid.as_raw_nonzero().get();
        if self.log.compressing() == Some(pid) {
            self.log.compressed(code == 0);
            return;
        }
        let found = self
            .tasks
            .iter_mut()
            .find(|task| task.pid == pid && task.exit_code.is_none());
        // Anything else is an orphan that came to us as the subreaper.
        let Some(task) = found else { return };
        task.exit_code = Some(code);
        task.exited_at_ns = exit::realtime_ns();
        let _ = self.epoll.delete(task.pidfd.as_fd());
        let id = task.id;
        if id == CONTAINER {
            self.container_ended(code);
        } else {
            self.drain_task(id);
        }
    }

    /// The container's init has ended: record first, everything else later.
    fn container_ended(&mut self, code: i32) {
        let boottime_ns = exit::boottime_ns();
        let at_unix_ns = self
            .tasks
            .iter()
            .find(|task| task.id == CONTAINER)
            .map_or(0, |task| task.exited_at_ns);
        let oom_kills = self.read_oom_kills();
        let record = ExitRecord {
            code,
            at_unix_ns,
            boottime_ns,
            oom_kills,
            error: None,
        };
        // The network namespace ends with the container and not with who still reads its output.
        self.names.clear();
        self.phase = Phase::Draining(record);
        self.write_record();
        // A container that shares the host's process namespace leaves others behind.
        if let Some(container) = &mut self.container {
            container.kill_all();
        }
        self.count_oom_kills();
        self.reap();
        self.drain_task(CONTAINER);
    }

    fn write_record(&mut self) {
        let (Phase::Draining(record) | Phase::Ended(Some(record))) = &self.phase else {
            return;
        };
        match exit::write(&self.exit_path, record) {
            Ok(()) => self.recorded = true,
            // The shim itself is the record until the disk takes it or a daemon has it.
            Err(_) => self.record_again = Some(Instant::now() + RECORD_TIME),
        }
    }

    /// Reads what a process that has ended left in its pipes; waits a little for others that hold them.
    fn drain_task(&mut self, id: u64) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.pump(id, stream, true);
        }
        let Some(task) = self.tasks.iter_mut().find(|task| task.id == id) else {
            return;
        };
        if task.outputs_open() {
            task.drain_until = Some(Instant::now() + DRAIN_TIME);
        } else {
            self.finish_task(id);
        }
    }

    /// Ends a task whose process has ended and whose output is read.
    pub fn finish_task(&mut self, id: u64) {
        let Some(task) = self.tasks.iter_mut().find(|task| task.id == id) else {
            return;
        };
        let Some(code) = task.exit_code else { return };
        if task.finished {
            return;
        }
        task.finished = true;
        task.drain_until = None;
        if let Some(input) = task.stdin.take()
            && input.registered
        {
            let _ = self.epoll.delete(input.fd.as_fd());
        }
        task.console = None;
        for client in self.clients.iter_mut().filter(|client| client.task == id) {
            client.ending.get_or_insert(Ending::Finished);
        }
        if let Some(exec) = task.exec.clone() {
            let (pid, at_unix_ns) = (task.pid, task.exited_at_ns);
            if self.ended_execs.len() == EXECS_MAX {
                self.ended_execs.pop_front();
            }
            self.ended_execs.push_back(ExecState {
                exec: exec.clone(),
                running: false,
                pid,
                exit_code: Some(code),
            });
            self.emit(Event::ExecExited {
                exec,
                pid,
                exit_code: code,
                at_unix_ns,
            });
            self.drop_finished_tasks();
        } else {
            self.end_container();
        }
    }

    /// Forgets execs that have ended and whose pipes are closed. One whose pipe is held by a process that it left behind
    /// is read on, and what comes thrown away: closing it would kill that process by SIGPIPE.
    pub fn drop_finished_tasks(&mut self) {
        self.tasks
            .retain(|task| task.id == CONTAINER || !task.finished || task.outputs_open());
        let held = self
            .tasks
            .iter()
            .filter(|task| task.id != CONTAINER && task.finished)
            .count();
        if held > HELD_MAX
            && let Some(oldest) = self
                .tasks
                .iter()
                .position(|task| task.id != CONTAINER && task.finished)
        {
            self.tasks.remove(oldest);
        }
    }

    fn end_container(&mut self) {
        let now = exit::realtime_ns();
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.log.finish(stream, now);
            self.close_output(CONTAINER, stream);
        }
        self.log.end();
        // Execs that have not been reaped yet cannot live on.
        self.reap();
        if let Some(oom) = self.oom.take() {
            let _ = self.epoll.delete(oom.as_fd());
        }
        self.oom_again = None;
        if let Some(mut container) = self.container.take() {
            container.delete();
        }
        let Phase::Draining(record) = &self.phase else {
            return;
        };
        let record = record.clone();
        self.phase = Phase::Ended(Some(record.clone()));
        self.emit(Event::Exited(record));
    }

    /// Finishes the body of every wait that was left to us.
    pub fn answer_waits(&mut self) {
        let Phase::Ended(record) = &self.phase else {
            return;
        };
        let Some(record) = record else {
            self.waits.clear();
            self.orphans.clear();
            return;
        };
        let body = format!("{{\"StatusCode\":{}}}\n", record.code);
        let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let waits = self.waits.drain(..).map(|(fd, _)| fd);
        for fd in self.orphans.drain(..).chain(waits) {
            // A few bytes on an idle connection: they fit, or the client is gone.
            let _ = unix::send(fd.as_fd(), chunked.as_bytes());
            let _ = rustix::net::shutdown(&fd, rustix::net::Shutdown::Write);
        }
    }

    /// Begins to watch the cgroup's OOM events.
    pub fn watch_oom(&mut self) {
        let Some(fd) = self.container.as_ref().and_then(Container::oom_event) else {
            return;
        };
        if self
            .epoll
            .add(fd.as_fd(), Kind::Oom.token(0), EventFlags::IN)
            .is_ok()
        {
            self.oom = Some(fd);
        }
    }

    fn oom_event(&mut self) {
        let Some(fd) = &self.oom else { return };
        let mut bytes = [0; 1024];
        if rustix::io::read(fd, &mut bytes).is_ok_and(|count| count == 0) {
            let _ = self.epoll.delete(fd.as_fd());
        }
        self.count_oom_kills();
        self.oom_again = Some(Instant::now() + OOM_TIME);
    }

    fn read_oom_kills(&self) -> u64 {
        self.container
            .as_ref()
            .map_or(0, Container::oom_kills)
            .max(self.oom_kills)
    }

    fn count_oom_kills(&mut self) {
        let count = self.read_oom_kills();
        if count > self.oom_kills {
            self.oom_kills = count;
            if let Phase::Draining(record) = &mut self.phase
                && record.oom_kills != count
            {
                record.oom_kills = count;
                self.write_record();
            }
            self.emit(Event::Oom { count });
        }
    }

    /// Adds, changes or removes a registration so that it waits for `wanted`; `None` removes it.
    pub fn watch(
        epoll: &Epoll,
        fd: BorrowedFd<'_>,
        token: u64,
        registered: &mut Option<EventFlags>,
        wanted: Option<EventFlags>,
    ) {
        if *registered == wanted {
            return;
        }
        let result = match (*registered, wanted) {
            (None, Some(flags)) => epoll.add(fd, token, flags),
            (Some(_), Some(flags)) => epoll.modify(fd, token, flags),
            (Some(_), None) => epoll.delete(fd),
            (None, None) => Ok(()),
        };
        if result.is_ok() {
            *registered = wanted;
        }
    }
}
