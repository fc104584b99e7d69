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

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use gantry_sys::unix;

/// The protocol's version. It grows when the meaning of a verb changes, not when a field or verb is added.
pub const VERSION: u32 = 1;
/// What this shim can do beyond the verbs of version 1.
pub const FEATURES: &[&str] = &["attach-from", "hold-wait", "exec-records", "log-local"];
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
    /// `has_netns`, one connection per entry of `attaches`, one per entry of `waits`.
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

/// A connection that cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("frame of {length} bytes, at most {FRAME_BYTES_MAX} are allowed")]
    TooLong { length: usize },
    #[error("frame is not an envelope")]
    Envelope(#[source] serde_json::Error),
    #[error("encode frame")]
    Encode(#[source] serde_json::Error),
    #[error("frame names {named} descriptors, {arrived} arrived")]
    Descriptors { named: u32, arrived: usize },
    #[error("shim answered with an unexpected frame")]
    Unexpected,
    #[error("shim closed the connection")]
    Closed,
    #[error("shim did not answer in time")]
    TimedOut,
    #[error("socket of the shim")]
    Io(#[from] io::Error),
}

/// Encodes one frame that bears `fds` descriptors.
pub fn encode<T: Serialize>(id: u64, fds: u32, body: &T) -> Result<Vec<u8>, Error> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, &Envelope { id, fds, body }).map_err(Error::Encode)?;
    let length = frame.len() - 4;
    if length > FRAME_BYTES_MAX {
        return Err(Error::TooLong { length });
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// Frames that wait to be sent; call [`Outbox::flush`] whenever the socket is writable.
#[derive(Debug, Default)]
pub struct Outbox {
    frames: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    sent: usize,
    bytes: usize,
}

impl Outbox {
    /// Queues one frame with its descriptors.
    pub fn push<T: Serialize>(
        &mut self,
        id: u64,
        body: &T,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Error> {
        let frame = encode(id, fds.len() as u32, body)?;
        self.bytes += frame.len();
        self.frames.push_back((frame, fds));
        Ok(())
    }

    /// Returns the bytes not yet sent.
    pub fn bytes(&self) -> usize {
        self.bytes - self.sent
    }

    /// Tells whether all is sent.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Sends what the socket takes without blocking; `true` if nothing is left.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        while let Some((frame, fds)) = self.frames.front_mut() {
            match send_frame(socket, &frame[self.sent..], fds) {
                Ok(count) => {
                    // The descriptors went with the first byte; ours may be closed.
                    fds.clear();
                    self.sent += count;
                    if self.sent == frame.len() {
                        self.bytes -= frame.len();
                        self.sent = 0;
                        self.frames.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Sends bytes of a frame, with descriptors on the first; never blocks, never raises SIGPIPE. Returns how many bytes
/// were taken (if any were, the descriptors were too).
pub fn send_frame(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<usize> {
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    unix::send_with_fds(socket, bytes, &borrowed)
}

/// Receives bytes into `buffer` and descriptors into `fds`; never blocks. 0 is the end of the stream.
pub fn recv(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    unix::recv_with_fds(socket, buffer, fds)
}

/// What [`Decoder::next`] found.
#[derive(Debug)]
pub enum Incoming<T> {
    Frame {
        id: u64,
        body: T,
        fds: Vec<OwnedFd>,
    },
    /// An envelope whose verb this side does not know; its descriptors are closed.
    Unknown {
        id: u64,
        verb: String,
    },
    /// An envelope with a known verb whose fields do not fit.
    Invalid {
        id: u64,
        verb: String,
        message: String,
    },
}

/// Cuts the stream into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    fds: VecDeque<OwnedFd>,
}

impl Decoder {
    /// Takes what one [`recv`] gave.
    pub fn push(&mut self, bytes: &[u8], fds: impl IntoIterator<Item = OwnedFd>) {
        self.buffer.extend_from_slice(bytes);
        self.fds.extend(fds);
    }

    /// Returns the next whole frame, `None` if more bytes are needed. An error ends the connection.
    // It is not an Iterator: the item's type is chosen per call.
    #[expect(clippy::should_implement_trait, reason = "generic in the body's type")]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<Incoming<T>>, Error> {
        let waiting = &self.buffer[self.start..];
        let Some(head) = waiting.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*head) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(Error::TooLong { length });
        }
        let Some(json) = waiting.get(4..4 + length) else {
            return Ok(None);
        };
        let parsed = serde_json::from_slice::<Envelope<T>>(json);
        let incoming = match parsed {
            Ok(envelope) => {
                let count = envelope.fds as usize;
                if count > self.fds.len() {
                    return Err(Error::Descriptors {
                        named: envelope.fds,
                        arrived: self.fds.len(),
                    });
                }
                Incoming::Frame {
                    id: envelope.id,
                    body: envelope.body,
                    fds: self.fds.drain(..count).collect(),
                }
            }
            Err(error) => {
                // The slow way, for a peer of another age: find out whose fault it is.
                let envelope: Envelope<serde_json::Value> =
                    serde_json::from_slice(json).map_err(Error::Envelope)?;
                let count = (envelope.fds as usize).min(self.fds.len());
                self.fds.drain(..count);
                let verb = verb_of(&envelope.body);
                let text = error.to_string();
                if text.starts_with("unknown variant") && text.contains(&format!("`{verb}`")) {
                    Incoming::Unknown {
                        id: envelope.id,
                        verb,
                    }
                } else {
                    Incoming::Invalid {
                        id: envelope.id,
                        verb,
                        message: text,
                    }
                }
            }
        };
        self.start += 4 + length;
        if self.start == self.buffer.len() {
            // A large frame's memory is given back: frames are rare.
            self.buffer = Vec::new();
            self.start = 0;
        }
        Ok(Some(incoming))
    }
}

/// Returns the verb's name; of a frame from the shim, that of the reply or event in it.
fn verb_of(body: &serde_json::Value) -> String {
    match body {
        serde_json::Value::String(verb) => verb.clone(),
        serde_json::Value::Object(map) => match map.iter().next() {
            Some((name, inner)) if name == "Reply" || name == "Event" => verb_of(inner),
            Some((name, _)) => name.clone(),
            None => String::new(),
        },
        _ => String::new(),
    }
}

/// A blocking client: one request at a time, events kept aside.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    decoder: Decoder,
    events: VecDeque<Event>,
    last_id: u64,
    timeout: Duration,
}

impl Client {
    /// Wraps a connected socket; each call waits at most `timeout`.
    pub fn new(socket: OwnedFd, timeout: Duration) -> Self {
        Client {
            socket,
            decoder: Decoder::default(),
            events: VecDeque::new(),
            last_id: 0,
            timeout,
        }
    }

    /// Sends a request and returns its reply with the reply's descriptors.
    pub fn call(
        &mut self,
        request: &Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(Reply, Vec<OwnedFd>), Error> {
        let deadline = Instant::now() + self.timeout;
        self.last_id += 1;
        let mut outbox = Outbox::default();
        outbox.push(self.last_id, request, fds)?;
        while !outbox.flush(self.socket.as_fd())? {
            unix::wait_writable(self.socket.as_fd(), remaining(deadline)?)?;
        }
        loop {
            if let Some((id, FromShim::Reply(reply), fds)) = self.receive(deadline)?
                && id == self.last_id
            {
                return Ok((reply, fds));
            }
        }
    }

    /// Waits for the next event.
    pub fn event(&mut self) -> Result<Event, Error> {
        let deadline = Instant::now() + self.timeout;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            self.receive(deadline)?;
        }
    }

    /// Receives one frame; an event is queued and `None` returned.
    fn receive(
        &mut self,
        deadline: Instant,
    ) -> Result<Option<(u64, FromShim, Vec<OwnedFd>)>, Error> {
        loop {
            match self.decoder.next::<FromShim>()? {
                Some(Incoming::Frame {
                    body: FromShim::Event(event),
                    ..
                }) => {
                    self.events.push_back(event);
                    return Ok(None);
                }
                Some(Incoming::Frame { id, body, fds }) => return Ok(Some((id, body, fds))),
                Some(_) => return Err(Error::Unexpected),
                None => {}
            }
            unix::wait_readable(self.socket.as_fd(), remaining(deadline)?)?;
            let mut buffer = [0; 4096];
            let mut fds = Vec::new();
            match recv(self.socket.as_fd(), &mut buffer, &mut fds) {
                Ok(0) => return Err(Error::Closed),
                Ok(count) => self.decoder.push(&buffer[..count], fds),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn remaining(deadline: Instant) -> Result<Duration, Error> {
    deadline
        .checked_duration_since(Instant::now())
        .ok_or(Error::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_all<T: DeserializeOwned + std::fmt::Debug>(bytes: &[u8], step: usize) -> Vec<String> {
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        for piece in bytes.chunks(step) {
            decoder.push(piece, []);
            while let Some(incoming) = decoder.next::<T>().unwrap() {
                found.push(format!("{incoming:?}"));
            }
        }
        found
    }

    fn raw(json: &str) -> Vec<u8> {
        let mut frame = (json.len() as u32).to_le_bytes().to_vec();
        frame.extend_from_slice(json.as_bytes());
        frame
    }

    #[test]
    fn frames_survive_any_cut() {
        let mut stream = encode(1, 0, &Request::Hello { version: 1 }).unwrap();
        stream.extend(encode(2, 0, &Request::CloseStdin).unwrap());
        stream.extend(
            encode(
                3,
                0,
                &Request::Attach(Attach {
                    early: vec![0, 255, 10],
                    stdin: true,
                    ..Attach::default()
                }),
            )
            .unwrap(),
        );
        let whole = decode_all::<Request>(&stream, stream.len());
        assert_eq!(whole.len(), 3);
        assert!(whole[2].contains("early: [0, 255, 10]"), "{}", whole[2]);
        for step in [1, 3, 7] {
            assert_eq!(decode_all::<Request>(&stream, step), whole);
        }
    }

    #[test]
    fn an_unknown_verb_is_told_from_a_wrong_field() {
        for (json, expected) in [
            (
                r#"{"id":7,"body":{"Freeze":{"deep":true}}}"#,
                r#"Unknown { id: 7, verb: "Freeze" }"#,
            ),
            (
                r#"{"id":8,"body":"Thaw"}"#,
                r#"Unknown { id: 8, verb: "Thaw" }"#,
            ),
            (
                r#"{"id":9,"body":{"Signal":{"signal":9,"later":1}},"more":[]}"#,
                "Frame { id: 9, body: Signal",
            ),
            (
                r#"{"id":10,"body":{"Signal":{}}}"#,
                r#"Invalid { id: 10, verb: "Signal""#,
            ),
        ] {
            let found = decode_all::<Request>(&raw(json), 1000);
            assert!(found[0].starts_with(expected), "{json}: {}", found[0]);
        }
    }

    #[test]
    fn an_unknown_event_of_a_newer_shim_is_told_so() {
        let found =
            decode_all::<FromShim>(&raw(r#"{"id":0,"body":{"Event":{"Frozen":{}}}}"#), 1000);
        assert_eq!(found[0], r#"Unknown { id: 0, verb: "Frozen" }"#);
    }

    #[test]
    fn broken_streams_are_errors() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_le_bytes(), []);
        assert!(matches!(
            decoder.next::<Request>(),
            Err(Error::TooLong { .. })
        ));
        let mut decoder = Decoder::default();
        decoder.push(&raw("[]"), []);
        assert!(matches!(decoder.next::<Request>(), Err(Error::Envelope(_))));
        let mut decoder = Decoder::default();
        decoder.push(&raw(r#"{"id":1,"fds":1,"body":"RootFd"}"#), []);
        assert!(matches!(
            decoder.next::<Request>(),
            Err(Error::Descriptors {
                named: 1,
                arrived: 0
            })
        ));
    }

    #[test]
    fn descriptors_reach_the_frame_that_names_them() {
        let (near, far) = unix::socketpair().unwrap();
        let (left, right) = unix::socketpair().unwrap();
        let mut outbox = Outbox::default();
        outbox.push(1, &Request::State, vec![]).unwrap();
        outbox
            .push(2, &Request::HoldWait(HoldWait::default()), vec![left])
            .unwrap();
        outbox
            .push(3, &Request::HoldWait(HoldWait::default()), vec![right])
            .unwrap();
        assert!(outbox.flush(near.as_fd()).unwrap());
        let mut decoder = Decoder::default();
        let mut counts = Vec::new();
        while counts.len() < 3 {
            let (mut buffer, mut fds) = ([0; 64], Vec::new());
            let count = recv(far.as_fd(), &mut buffer, &mut fds).unwrap();
            decoder.push(&buffer[..count], fds);
            while let Some(Incoming::Frame { id, fds, .. }) = decoder.next::<Request>().unwrap() {
                counts.push((id, fds.len()));
            }
        }
        assert_eq!(counts, [(1, 0), (2, 1), (3, 1)]);
    }
}
