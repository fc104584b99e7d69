//! The language between the engine and one shim.
//!
//! A connection is a stream socket: at first the socketpair end that [`crate::spawn`] passes as descriptor 3, later
//! whatever connects to the listener that `Start` handed over. A frame is a `u32` length in little endian, then that
//! many bytes of JSON: an [`Envelope`]. Descriptors ride by SCM_RIGHTS on the frame's first byte; the envelope says how
//! many are its own (`fds`), so that a receiver that got several frames at once gives each its own.
//!
//! Invariants, held for years because the newest daemon speaks to every shim that still runs:
//! * the first request on a connection is `Hello`; both sides name their [`VERSION`] and the shim its features;
//! * a field that is not known is skipped, a field that is missing has its default;
//! * a verb that is not known is answered [`Reply::Unknown`], a frame whose fields do not fit [`Reply::Error`];
//! * a reply bears the id of its request, an event bears id 0; requests are answered in order;
//! * a frame is at most [`FRAME_BYTES_MAX`] long and bears at most [`FDS_MAX`] descriptors.
//!
//! Nothing here blocks: [`Outbox`] and [`Decoder`] serve a nonblocking loop (epoll or tokio's `AsyncFd`), and
//! [`Client`] is a small blocking wrapper for tests and tools.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use crate::wire::{Client, Decoder, Error, Incoming, Outbox, encode, recv, send_frame};

/// The protocol's version. It grows when the meaning of a verb changes, not when a field or verb is added.
pub const VERSION: u32 = 1;
/// What this shim can do beyond the verbs of version 1.
pub const FEATURES: &[&str] = &[
    "attach-from",
    "hold-wait",
    "exec-records",
    "log-local",
    "keep-names",
];
/// The longest frame. A `Start` with a large argument list and 64 KiB of early stdin is far below it.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// The most descriptors on one frame (the kernel's SCM_MAX_FD).
pub const FDS_MAX: usize = 253;

/// Bytes that are written as base64 in JSON.
mod bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD
            .decode(text.as_bytes())
            .map_err(serde::de::Error::custom)
    }
}

/// One frame's JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// The request's number, chosen by the daemon from 1 on; 0 for an event.
    pub id: u64,
    /// How many of the descriptors that arrived belong to this frame.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fds: u32,
    pub body: T,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// What a daemon asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Opens a connection; answered by [`Reply::Hello`]. The daemon that said it last is the one that gets the events
    /// and whose `Release` counts; the connection of an older one is closed.
    Hello { version: u32 },
    /// Creates and starts the container, once in a shim's life; answered by [`Reply::Started`] or
    /// [`Reply::StartFailed`]. Descriptors, in this order: the listener for later daemons, the network namespace if
    /// `has_netns`, one namespace per entry of `joins`, three for names if `keeps_names` (see `KeepNames`), one connection
    /// per entry of `attaches`, one per entry of `waits`.
    Start(Box<StartRequest>),
    /// Hands a client's connection over (one descriptor); answered by [`Reply::Ok`] before the first byte is written.
    Attach(Attach),
    /// Hands a dup of a waiting client's connection over (one descriptor); answered by [`Reply::Ok`].
    HoldWait(HoldWait),
    /// Sends a signal to the container's init by its pidfd; [`Reply::Ok`] or [`Reply::Error`].
    Signal { signal: i32 },
    /// Sends a signal to a running exec's process.
    ExecSignal { exec: String, signal: i32 },
    /// Sets the terminal's size of the container, or of an exec.
    Resize {
        #[serde(default)]
        exec: Option<String>,
        rows: u16,
        cols: u16,
    },
    /// Closes the container's stdin once what is queued for it is written.
    CloseStdin,
    /// Starts one more process in the container; answered by [`Reply::ExecStarted`] or [`Reply::ExecFailed`].
    /// One descriptor if `attach` is given.
    Exec(Box<ExecRequest>),
    /// Answered by [`Reply::ExecState`], also after the exec has ended (the last 512 are kept) and after a restart of
    /// the daemon.
    ExecInspect { exec: String },
    /// Every exec that the shim knows; answered by [`Reply::Execs`].
    ExecList,
    /// Answered by [`Reply::State`].
    State,
    /// Answered by [`Reply::Root`] with two descriptors: an O_PATH one of the container's root, and init's pidfd.
    RootFd,
    /// Writes what the shim has read to the log and answers [`Reply::Log`] with the position behind it: a daemon that
    /// replays the log up to there and then attaches `from` there loses and doubles nothing.
    SyncLog,
    /// Keeps the sockets by which the container's names are answered, instead of those kept before: UDP, TCP and the
    /// network namespace. While they are open, queries wait in them and are not lost with the process that answers.
    KeepNames,
    /// Answered by [`Reply::Names`] with the kept descriptors and a pidfd of the shim, or by an error if none are kept.
    TakeNames,
    /// The daemon has seen the exit and has answered every wait itself: the shim drops the held ones and ends as soon
    /// as the attached clients have all that was read. Before the exit it is an error.
    Release,
}

/// What the shim answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    Hello {
        version: u32,
        #[serde(default)]
        features: Vec<String>,
    },
    /// `start_time_ticks` is field 22 of /proc/PID/stat, `started_at_ns` Unix time.
    Started {
        pid: i32,
        start_time_ticks: u64,
        started_at_ns: i64,
    },
    StartFailed(Failure),
    Ok,
    ExecStarted {
        pid: i32,
    },
    ExecFailed(Failure),
    ExecState(ExecState),
    Execs(Vec<ExecState>),
    State(Box<State>),
    Root,
    Log(crate::log::Position),
    Names,
    /// The request is understood and cannot be done.
    Error {
        message: String,
    },
    /// The verb is not known to this shim.
    Unknown,
}

/// What the shim tells unasked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Event {
    /// The container has ended, its exit record and log are written, its cgroup is gone. Told again to each daemon that
    /// connects before `Release`.
    Exited(ExitRecord),
    ExecExited {
        exec: String,
        pid: i32,
        exit_code: i32,
        at_unix_ns: i64,
    },
    /// The kernel has killed a process of the container for its memory limit; `count` is the total so far.
    Oom { count: u64 },
    /// A client has typed the detach keys; its connection is closed.
    Detached {
        #[serde(default)]
        exec: Option<String>,
    },
    /// An attached connection is closed for any other reason than `Detached`.
    AttachEnded {
        #[serde(default)]
        exec: Option<String>,
    },
}

/// A frame from the shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FromShim {
    Reply(Reply),
    Event(Event),
}

/// How a container ended; also the JSON of its exit record on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The exit status, or 128 + the signal's number.
    pub code: i32,
    pub at_unix_ns: i64,
    pub boottime_ns: i64,
    #[serde(default)]
    pub oom_kills: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The container as the shim sees it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    #[serde(default)]
    pub container_id: String,
    /// 0 before `Start`.
    pub pid: i32,
    #[serde(default)]
    pub start_time_ticks: u64,
    #[serde(default)]
    pub started_at_ns: i64,
    pub running: bool,
    #[serde(default)]
    pub exit: Option<ExitRecord>,
    #[serde(default)]
    pub oom_kills: u64,
    /// Log lines that could not be written (a full disk).
    #[serde(default)]
    pub log_lines_dropped: u64,
    /// Attached connections of the container itself.
    #[serde(default)]
    pub attached: u32,
    #[serde(default)]
    pub execs_running: u32,
    #[serde(default)]
    pub stdin_open: bool,
}

/// One exec as the shim remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecState {
    pub exec: String,
    pub running: bool,
    pub pid: i32,
    #[serde(default)]
    pub exit_code: Option<i32>,
}

/// Why a process could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    /// The runtime's words, as runc would put them after `runc create failed: `.
    pub message: String,
    #[serde(default)]
    pub errno: Option<i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The program does not exist: exit code 127.
    NotFound,
    /// The program may not be executed: exit code 126.
    NotExecutable,
    /// Anything else: exit code 128.
    Other,
}

/// Who makes the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Runtime {
    /// Gantry's runtime, in the shim's own process.
    #[default]
    BuiltIn,
    /// Another OCI runtime with runc's command line. `args` come before the verb, `root` is its state directory.
    Foreign {
        program: PathBuf,
        #[serde(default)]
        args: Vec<String>,
        root: PathBuf,
    },
}

/// An overlay root; the layers are directories, topmost first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    pub lowers: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    #[serde(default)]
    pub userxattr: bool,
    #[serde(default)]
    pub volatile: bool,
}

/// The container's root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// The directory that `root.path` of the bundle's config.json names.
    #[default]
    Path,
    Overlay(Overlay),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StartRequest {
    pub container_id: String,
    /// The directory of config.json.
    pub bundle: PathBuf,
    #[serde(default)]
    pub runtime: Runtime,
    /// The runtime keeps STATE_ROOT/ID/state.json.
    pub state_root: PathBuf,
    #[serde(default)]
    pub rootfs: Rootfs,
    /// A file with a compiled filter that stands for the spec's own.
    #[serde(default)]
    pub seccomp_filter: Option<PathBuf>,
    /// `--init`: this executable runs as PID 1 (role `init`) and starts the process as its child.
    #[serde(default)]
    pub init: bool,
    #[serde(default)]
    pub tty: bool,
    #[serde(default)]
    pub open_stdin: bool,
    #[serde(default)]
    pub stdin_once: bool,
    /// Rows, columns.
    #[serde(default)]
    pub console_size: Option<[u16; 2]>,
    pub log: LogConfig,
    /// Where the exit record is written.
    pub exit_path: PathBuf,
    /// The cgroup's path in every hierarchy, such as `/gantry/ID`.
    #[serde(default)]
    pub cgroup: String,
    #[serde(default)]
    pub has_netns: bool,
    /// Kinds of namespaces of other containers to join, by the OCI specification's names.
    #[serde(default)]
    pub joins: Vec<String>,
    /// Three descriptors of [`Request::KeepNames`] follow the namespaces.
    #[serde(default)]
    pub keeps_names: bool,
    #[serde(default)]
    pub attaches: Vec<Attach>,
    #[serde(default)]
    pub waits: Vec<HoldWait>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogDriver {
    #[default]
    JsonFile,
    Local,
    None,
}

/// How the container waits for its log. Both mean the same for a local file, which never makes it wait: lines that the
/// disk refuses are dropped and counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogMode {
    #[default]
    Blocking,
    NonBlocking {
        buffer_bytes: u64,
    },
}

/// Where and how the container's output is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    pub driver: LogDriver,
    /// The current file; rotated ones are `PATH.1` (the newest), `PATH.2`... or `PATH.N.gz`.
    pub path: PathBuf,
    /// The size at which a file is rotated; absent: never.
    #[serde(default)]
    pub max_size_bytes: Option<u64>,
    /// How many files there are at most, the current one included; at least 1.
    #[serde(default = "one")]
    pub max_files: u32,
    #[serde(default)]
    pub compress: bool,
    /// What `labels`, `env` and `tag` select, written as `attrs` of each line.
    #[serde(default)]
    pub attrs: BTreeMap<String, String>,
    #[serde(default)]
    pub mode: LogMode,
}

fn one() -> u32 {
    1
}

impl Default for LogConfig {
    /// Nothing is logged.
    fn default() -> Self {
        LogConfig {
            driver: LogDriver::None,
            path: PathBuf::new(),
            max_size_bytes: None,
            max_files: 1,
            compress: false,
            attrs: BTreeMap::new(),
            mode: LogMode::Blocking,
        }
    }
}

impl LogConfig {
    /// Returns Gantry's default for json-file: 5 files of 20 MiB.
    pub fn rotated(path: PathBuf) -> Self {
        LogConfig {
            driver: LogDriver::JsonFile,
            path,
            max_size_bytes: Some(20 << 20),
            max_files: 5,
            compress: false,
            attrs: BTreeMap::new(),
            mode: LogMode::Blocking,
        }
    }
}

/// A client's connection that the shim shall serve from now on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Attach {
    /// The exec to attach to; absent: the container.
    #[serde(default)]
    pub exec: Option<String>,
    #[serde(default)]
    pub stdin: bool,
    #[serde(default)]
    pub stdout: bool,
    #[serde(default)]
    pub stderr: bool,
    /// Frames with an 8-byte header, as opposed to raw bytes.
    #[serde(default)]
    pub multiplexed: bool,
    /// The bytes that detach; empty: none. They count with a terminal only, as in Docker: a pipe carries any bytes.
    #[serde(default, with = "bytes")]
    pub detach_keys: Vec<u8>,
    /// What the client has already sent; comes first into stdin.
    #[serde(default, with = "bytes")]
    pub early: Vec<u8>,
    /// Send the log from here before the live output (the daemon has replayed it up to here).
    #[serde(default)]
    pub from: Option<crate::log::Position>,
    #[serde(default)]
    pub version: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitCondition {
    #[default]
    NotRunning,
    NextExit,
    /// Answered at the exit too if no daemon is there to remove the container: the client gets its exit code.
    Removed,
}

/// A dup of an HTTP/1.1 connection whose response head (chunked) is already sent. The shim writes to it only if the
/// container has ended and no daemon has said `Release`: then the body is `{"StatusCode":N}` and the final chunk.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct HoldWait {
    #[serde(default)]
    pub condition: WaitCondition,
    #[serde(default)]
    pub version: u32,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ExecRequest {
    pub exec: String,
    /// The OCI `process` object.
    pub process: serde_json::Value,
    #[serde(default)]
    pub tty: bool,
    /// Keep the write end of stdin open for a client.
    #[serde(default)]
    pub stdin: bool,
    /// Rows, columns.
    #[serde(default)]
    pub console_size: Option<[u16; 2]>,
    /// A file with a compiled filter that stands for the container's.
    #[serde(default)]
    pub seccomp_filter: Option<PathBuf>,
    /// The client to attach; its `exec` field is not looked at.
    #[serde(default)]
    pub attach: Option<Attach>,
}
