//! The daemon's side: speaks to netd, starts it where none listens, and starts it again after its death.
//!
//! The daemon binds the socket itself and hands it to the child as standard input, so that the first request waits in
//! the socket's queue and nobody polls. One netd per exec root is ensured by a lock that netd holds while it lives.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gantry_api::port::{PortReserver, Reservation, ReserveError};
use gantry_sys::unix;
use rustix::fs::{FlockOperation, flock};

use crate::protocol::{self, Envelope, KEEPER, NAMES, PORTS, Reply, Request, Status, TRANSFER};

mod names;
mod ports;

pub use names::Sockets;
pub use ports::{HostPorts, KeptPort};

/// How long an answer may take before netd counts as unresponsive.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection that broke is made anew for one request, and the pause before each. By time and not by number:
/// on a busy machine a killed netd can take a while until its socket refuses.
const RECONNECT_MAX: Duration = Duration::from_secs(5);
const RECONNECT_PAUSE: Duration = Duration::from_millis(5);

/// How long another's netd, one that is being started or that ends, is waited for, and the pause before each look.
const LISTENS_MAX: Duration = Duration::from_secs(5);
const LISTENS_PAUSE: Duration = Duration::from_millis(5);

/// Where netd's files lie beneath the exec root.
pub fn socket_path(exec_root: &Path) -> PathBuf {
    exec_root.join("netd.sock")
}

/// Where questions that are being answered survive a kill.
pub fn questions_path(exec_root: &Path) -> PathBuf {
    exec_root.join("netd.questions")
}

/// The directory of the lock and of one file per owner.
pub fn state_dir(exec_root: &Path) -> PathBuf {
    exec_root.join("netd")
}

/// Says whether netd owns anything or has to know anything: files beside the lock.
pub fn has_state(exec_root: &Path) -> bool {
    fs::read_dir(state_dir(exec_root))
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name() != "lock"))
}

/// How netd is started.
#[derive(Debug, Clone)]
pub struct SpawnOptions {
    pub exec_root: PathBuf,
    /// The program; `/proc/self/exe` for the running binary.
    pub program: PathBuf,
    /// Its arguments before `--exec-root`; `["netd"]` for the running binary.
    pub arguments: Vec<String>,
}

impl SpawnOptions {
    /// Starts the running binary's own `netd` role.
    pub fn this_binary(exec_root: impl Into<PathBuf>) -> Self {
        Self {
            exec_root: exec_root.into(),
            program: PathBuf::from("/proc/self/exe"),
            arguments: vec!["netd".to_owned()],
        }
    }
}

/// A connection to netd that mends itself. Shared by threads; requests go one after the other.
#[derive(Debug)]
pub struct Client {
    options: SpawnOptions,
    state: Mutex<State>,
    /// The netd that was found lives on although it is of an earlier version.
    is_outdated: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    stream: Option<UnixStream>,
    /// Waits for the end of the netd that this process started, on a thread of its own: whoever is busy elsewhere, it is
    /// reaped in the moment in which it ends.
    child: Option<JoinHandle<io::Result<()>>>,
    last_id: u64,
}

impl Client {
    /// Connects to the netd of the exec root, starting it if none lives.
    pub fn open(options: SpawnOptions) -> io::Result<Self> {
        let client = Self {
            options,
            state: Mutex::default(),
            is_outdated: AtomicBool::new(false),
        };
        let features = client.features()?;
        let has = |known: &str| features.iter().any(|feature| feature == known);
        // Of an earlier version may be one that lives already. Its successor reads its files and takes the same ports.
        if !(has(NAMES) && has(PORTS)) {
            client.kill()?;
            client.features()?;
        } else if !(has(TRANSFER) && has(KEEPER)) {
            client.is_outdated.store(true, Ordering::Relaxed);
            client.replace_outdated()?;
        }
        Ok(client)
    }

    /// Says whether the netd that was found is of an earlier version and lives on, because it carries connections that
    /// would end with it.
    pub fn is_outdated(&self) -> bool {
        self.is_outdated.load(Ordering::Relaxed)
    }

    /// Replaces a netd of an earlier version if it carries nothing at the moment. Otherwise it is to be tried again.
    pub fn replace_outdated(&self) -> io::Result<()> {
        if !self.is_outdated() || self.status()?.forwards > 0 {
            return Ok(());
        }
        // The next one is of this program's version, also where another cause ends this one.
        self.kill()?;
        self.is_outdated.store(false, Ordering::Relaxed);
        self.features().map(drop)
    }

    fn features(&self) -> io::Result<Vec<String>> {
        match self.call(&Request::Hello {
            version: protocol::VERSION,
        })? {
            Reply::Hello { features, .. } => Ok(features),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends netd without a word, so that its files stay.
    fn kill(&self) -> io::Result<()> {
        let pidfd = self.pidfd()?;
        self.lock().stream = None;
        match rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL) {
            Err(rustix::io::Errno::SRCH) => {}
            sent => sent?,
        }
        unix::wait_readable(pidfd.as_fd(), ANSWER_TIMEOUT)
    }

    /// Returns a descriptor of netd's process, which is readable once the process has ended. Starts it if none lives.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        loop {
            let pid = self.status()?.pid;
            let named = i32::try_from(pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw)
                .ok_or(rustix::io::Errno::SRCH)?;
            match rustix::process::pidfd_open(named, rustix::process::PidfdFlags::empty()) {
                // The number may have passed to another process before it was opened.
                Ok(pidfd) if self.status()?.pid == pid => return Ok(pidfd),
                Ok(_) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Asks for the counters.
    pub fn status(&self) -> io::Result<Status> {
        match self.call(&Request::Status)? {
            Reply::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends netd and waits for its end if it is this process's child.
    pub fn shutdown(&self) -> io::Result<()> {
        let answer = self.call(&Request::Shutdown)?;
        let mut state = self.lock();
        state.stream = None;
        if let Some(child) = state.child.take() {
            reaped(child)?;
        }
        match answer {
            Reply::Ok => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves at worst a stream in the middle of a frame; the next failure drops it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends one request; a connection that broke is made anew, because netd may have been killed meanwhile.
    ///
    /// While a killed netd is taken down, its socket still accepts, and the new connection is reset in its turn: hence
    /// more than one repetition. Every request may be executed twice.
    fn call(&self, request: &Request) -> io::Result<Reply> {
        self.call_with(request, &[])
    }

    /// As [`Client::call`], with descriptors.
    fn call_with(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<Reply> {
        let mut state = self.lock();
        let since = Instant::now();
        loop {
            let answer = self.try_call(&mut state, request, fds);
            let Err(error) = &answer else { return answer };
            state.stream = None;
            if since.elapsed() > RECONNECT_MAX || !is_broken_connection(error) {
                return answer;
            }
            std::thread::sleep(RECONNECT_PAUSE);
        }
    }

    fn try_call(
        &self,
        state: &mut State,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<Reply> {
        if state.stream.is_none() {
            let stream = self.connect(state)?;
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
            state.stream = Some(stream);
        }
        state.last_id += 1;
        let id = state.last_id;
        let Some(stream) = state.stream.as_mut() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let frame = protocol::encode(&Envelope {
            id,
            fds: fds.len() as u32,
            body: request,
        })?;
        send(stream, &frame, fds)?;
        let reply: Envelope<Reply> = protocol::read(stream)?;
        if reply.id != id {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "netd answered another request",
            ));
        }
        Ok(reply.body)
    }

    fn connect(&self, state: &mut State) -> io::Result<UnixStream> {
        let path = socket_path(&self.options.exec_root);
        let since = Instant::now();
        while since.elapsed() < LISTENS_MAX {
            match UnixStream::connect(&path) {
                Ok(stream) => return Ok(stream),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                    ) => {}
                Err(error) => return Err(error),
            }
            if let Some(child) = state.child.take() {
                // Its socket refuses, so it is dead or about to be.
                reaped(child)?;
            }
            if let Some(child) = spawn(&self.options)? {
                state.child = Some(child);
                continue;
            }
            // Another process is starting it or it is ending.
            std::thread::sleep(LISTENS_PAUSE);
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "netd does not listen",
        ))
    }
}

/// Sends a frame and, with its first byte, descriptors.
fn send(stream: &mut UnixStream, frame: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.is_empty() {
        return stream.write_all(frame);
    }
    let sent = loop {
        match unix::send_with_fds(stream.as_fd(), frame, fds) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                unix::wait_writable(stream.as_fd(), ANSWER_TIMEOUT)?;
            }
            sent => break sent?,
        }
    };
    stream.write_all(&frame[sent..])
}

/// Tells whether the other side is gone, as opposed to slow or in disagreement.
fn is_broken_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof
    )
}

fn unexpected(reply: &Reply) -> io::Error {
    match reply {
        Reply::Error { message } => io::Error::other(message.clone()),
        Reply::Refused { errno, .. } => io::Error::from_raw_os_error(*errno),
        other => io::Error::new(
            io::ErrorKind::InvalidData,
            format!("netd answered `{other:?}`"),
        ),
    }
}

/// Reads the answer to a wish for ports.
fn granted(reply: Reply) -> Result<(), ReserveError> {
    match reply {
        Reply::Ok => Ok(()),
        Reply::Refused {
            protocol,
            address,
            port,
            errno,
        } => Err(match errno {
            libc::EADDRINUSE => ReserveError::InUse {
                address,
                port,
                protocol,
            },
            libc::EADDRNOTAVAIL => ReserveError::NoSuchAddress {
                address,
                port,
                protocol,
            },
            errno => ReserveError::Refused {
                address,
                port,
                protocol,
                source: io::Error::from_raw_os_error(errno),
            },
        }),
        other => Err(ReserveError::Unavailable(unexpected(&other))),
    }
}

/// Starts netd; `None` means that one lives already or is being started.
fn spawn(options: &SpawnOptions) -> io::Result<Option<JoinHandle<io::Result<()>>>> {
    let directory = state_dir(&options.exec_root);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(directory.join("lock"))?;
    if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        return if error == rustix::io::Errno::WOULDBLOCK {
            Ok(None)
        } else {
            Err(error.into())
        };
    }
    let path = socket_path(&options.exec_root);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    // Before there is anything to wait for: without a thread for that nothing is started.
    let (reap, reaper) = reaper()?;
    // The child inherits the open file description and with it the lock: it holds as long as the child lives.
    let child = Command::new(&options.program)
        .arg0("gantry-netd")
        .args(&options.arguments)
        .arg("--exec-root")
        .arg(&options.exec_root)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::from(lock))
        .stderr(Stdio::null())
        .spawn()?;
    // The thread waits for nothing else.
    let _ = reap.send(child);
    Ok(Some(reaper))
}

/// Starts the thread that waits for a child which is handed to it. Without one it ends.
fn reaper() -> io::Result<(Sender<Child>, JoinHandle<io::Result<()>>)> {
    let (sender, receiver) = channel::<Child>();
    let thread = std::thread::Builder::new()
        .name("netd-reap".to_owned())
        .stack_size(64 * 1024)
        .spawn(move || match receiver.recv() {
            Ok(mut child) => child.wait().map(drop),
            Err(_) => Ok(()),
        })?;
    Ok((sender, thread))
}

/// Waits until the child is reaped.
fn reaped(reaper: JoinHandle<io::Result<()>>) -> io::Result<()> {
    reaper
        .join()
        .map_err(|_| io::Error::other("wait for netd's end"))?
}

impl PortReserver for Client {
    fn reserve(&self, owner: &str, reservations: &[Reservation]) -> Result<(), ReserveError> {
        let request = Request::Reserve {
            owner: owner.to_owned(),
            reservations: reservations.to_vec(),
        };
        self.call(&request)
            .map_err(ReserveError::Unavailable)
            .and_then(granted)
    }

    fn transfer(
        &self,
        from: &str,
        to: &str,
        reservations: &[Reservation],
    ) -> Result<(), ReserveError> {
        let request = Request::Transfer {
            from: from.to_owned(),
            to: to.to_owned(),
            reservations: reservations.to_vec(),
        };
        self.call(&request)
            .map_err(ReserveError::Unavailable)
            .and_then(granted)
    }

    fn release(&self, owner: &str) -> Result<(), ReserveError> {
        let request = Request::Release {
            owner: owner.to_owned(),
        };
        match self.call(&request).map_err(ReserveError::Unavailable)? {
            Reply::Ok => Ok(()),
            other => Err(ReserveError::Unavailable(unexpected(&other))),
        }
    }

    fn owners(&self) -> Result<Vec<String>, ReserveError> {
        match self
            .call(&Request::Owners)
            .map_err(ReserveError::Unavailable)?
        {
            Reply::Owners { owners } => Ok(owners),
            other => Err(ReserveError::Unavailable(unexpected(&other))),
        }
    }

    fn guard(&self, table: &str, interfaces: &[String]) -> Result<(), ReserveError> {
        let request = Request::Guard {
            table: table.to_owned(),
            interfaces: interfaces.to_vec(),
        };
        match self.call(&request).map_err(ReserveError::Unavailable)? {
            Reply::Ok => Ok(()),
            other => Err(ReserveError::Unavailable(unexpected(&other))),
        }
    }
}
