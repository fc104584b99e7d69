//! Starts the daemon when the command line finds none at the default socket.
//!
//! One winner by a lock on a file: the others wait for it and find the socket answering. The daemon gets a session of
//! its own, `/` as directory, no descriptor of the caller's but a log file as stderr, and an environment without the
//! caller's settings. The call returns once the socket answers.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use gantry_sys::process::{SELF, Spawn, StringList, spawn, wait_pidfd};

const EXEC_ROOT: &str = "/run/gantry";
/// How long the first start may take; recovery of thousands of containers is included.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(2);
/// Variables of the caller that the daemon needs to reach registries and programs; everything else stays behind.
const KEPT_VARIABLES: &[&str] = &[
    "PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "TZ",
];

/// Makes sure that a daemon answers at `socket`, a path.
///
/// # Errors
/// The caller may not start one (not root), or the daemon ended before it answered; the text has the end of its log.
pub fn ensure(socket: &Path) -> io::Result<()> {
    if UnixStream::connect(socket).is_ok() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "only root can start the daemon",
        ));
    }
    std::fs::create_dir_all(EXEC_ROOT)?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(format!("{EXEC_ROOT}/start.lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    if UnixStream::connect(socket).is_ok() {
        return Ok(());
    }
    start(socket)
}

fn start(socket: &Path) -> io::Result<()> {
    let mut log = OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .mode(0o640)
        .open(format!("{EXEC_ROOT}/daemon.log"))?;
    let log_start = log.metadata()?.len();
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let environment = KEPT_VARIABLES
        .iter()
        .filter_map(|name| {
            use std::os::unix::ffi::OsStrExt as _;
            let value = std::env::var_os(name)?;
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        })
        .collect();
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let child = spawn(&Spawn {
        program: SELF,
        arguments: &StringList::new(vec![c"gantry".to_owned(), c"daemon".to_owned()]),
        environment: &StringList::new(environment),
        fds: &[(null.as_fd(), 0), (null.as_fd(), 1), (log.as_fd(), 2)],
        session: true,
        directory: Some(c"/"),
    });
    rustix::process::umask(umask);
    let child = child?;
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if UnixStream::connect(socket).is_ok() {
            return Ok(());
        }
        if wait_pidfd(child.pidfd.as_fd(), false)?.is_some() {
            return Err(io::Error::other(format!(
                "the daemon did not start: {}",
                last_line(&mut log, log_start)
            )));
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "the daemon does not answer at {}; see {EXEC_ROOT}/daemon.log",
                    socket.display()
                ),
            ));
        }
        std::thread::sleep(POLL);
    }
}

fn last_line(log: &mut File, from: u64) -> String {
    let mut text = String::new();
    let read = log
        .seek(SeekFrom::Start(from))
        .and_then(|_| log.take(64 << 10).read_to_string(&mut text));
    match read {
        Ok(_) => text.lines().last().unwrap_or("it said nothing").to_owned(),
        Err(error) => error.to_string(),
    }
}
