//! create, run, start, kill, delete, pause, resume.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_api::oci::runtime::Spec;
use gantry_sys::process::{pidfd_send_signal, set_child_subreaper};
use gantry_sys::{epoll, pty};
use rustix::termios::{self, OptionalActions};

use super::arguments::{Arguments, Flag, switch, value};
use super::{Failure, Global, signal};
use crate::delete::DeleteOptions;
use crate::error::Error;
use crate::options::{CreateOptions, StartGate, Stdio};
use crate::state::State;
use crate::{create as library, delete as remove, kill as signals};

const CREATE: &[Flag] = &[
    value("bundle", Some('b')),
    value("console-socket", None),
    value("pidfd-socket", None),
    value("pid-file", None),
    switch("no-pivot", None),
    switch("no-new-keyring", None),
    value("preserve-fds", None),
    switch("detach", Some('d')),
    switch("keep", None),
    switch("no-subreaper", None),
];

pub(super) fn create(global: &Global, words: &[String]) -> Result<u8, Failure> {
    let named = Failure::named("runc create", 1);
    let arguments = Arguments::parse(CREATE, words)?;
    arguments.refuse(&["pidfd-socket", "detach", "keep", "no-subreaper"])?;
    let mut options = options(global, &arguments, "create").map_err(&named)?;
    options.start = StartGate::Fifo;
    options.stdio = detached_stdio(&arguments, &options.spec).map_err(&named)?;
    made(global, &library::create(options).map_err(&named)?);
    Ok(0)
}

pub(super) fn run(global: &Global, words: &[String]) -> Result<u8, Failure> {
    let named = Failure::named("runc run", 1);
    let arguments = Arguments::parse(CREATE, words)?;
    arguments.refuse(&["pidfd-socket"])?;
    let mut options = options(global, &arguments, "run").map_err(&named)?;
    let (root, id) = (options.state_root.clone(), options.id.clone());
    if arguments.is("detach") {
        options.stdio = detached_stdio(&arguments, &options.spec).map_err(&named)?;
        let created = library::create(options).map_err(&named)?;
        made(global, &created);
        return match created.start() {
            Ok(()) => Ok(0),
            Err(error) => {
                // The first error tells why.
                let _ = remove::delete(DeleteOptions {
                    state_root: &root,
                    id: &id,
                    force: true,
                });
                Err(named(error))
            }
        };
    }
    let terminal = options
        .spec
        .process
        .as_ref()
        .is_some_and(|process| process.terminal);
    options.stdio = match arguments.get("console-socket") {
        Some(path) if terminal => Stdio::ConsoleSocket(PathBuf::from(path)),
        _ if terminal => Stdio::Terminal { size: own_size() },
        _ => Stdio::Inherit,
    };
    // Before the container exists, so that none of its signals is lost. The program starts with none blocked.
    epoll::block_all_signals().map_err(|error| named(Error::stage("block", "signals", error)))?;
    if !arguments.is("no-subreaper") {
        // A container without a PID namespace of its own leaves its orphans to the nearest ancestor that takes them.
        set_child_subreaper()
            .map_err(|error| named(Error::stage("adopt", "orphans of the container", error)))?;
    }
    let created = library::create(options).map_err(&named)?;
    made(global, &created);
    let outcome = created
        .start()
        .and_then(|()| foreground(created.pid, &created.pidfd, created.console.as_ref()));
    if !arguments.is("keep") || outcome.is_err() {
        remove::delete(DeleteOptions {
            state_root: &root,
            id: &id,
            force: true,
        })
        .map_err(&named)?;
    }
    outcome.map_err(&named)
}

/// Tells that a container was made.
fn made(global: &Global, created: &library::Created) {
    global.debug(|| {
        format!(
            "container {} of {}: init {}, cgroup {}",
            created.state.id,
            created.state.bundle.display(),
            created.pid,
            created.state.cgroup
        )
    });
}

/// Hands signals on and the terminal through until the process ends; returns its exit code.
pub(super) fn foreground(
    pid: i32,
    pidfd: &OwnedFd,
    console: Option<&OwnedFd>,
) -> Result<u8, Error> {
    let failed = |error: io::Error| Error::stage("wait for", "the process", error);
    let raw = console.map(|_| Raw::new()).transpose().map_err(failed)?;
    let output = console.map(copies).transpose().map_err(failed)?;
    let code = loop {
        match reap(pid).map_err(failed)? {
            Some(code) => break code,
            None => match epoll::wait_for_signal().map_err(failed)? {
                libc::SIGCHLD => {}
                libc::SIGWINCH => {
                    if let (Some(master), Some((rows, columns))) = (console, own_size()) {
                        pty::set_size(master.as_fd(), rows, columns).map_err(failed)?;
                    }
                }
                // What is meant for this process alone: its own pipes and background jobs.
                libc::SIGPIPE | libc::SIGURG | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => {}
                signal => match pidfd_send_signal(pidfd.as_fd(), signal) {
                    Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                        return Err(failed(error));
                    }
                    _ => {}
                },
            },
        }
    };
    // The last words are still in the terminal; it ends when its last user in the container does.
    if let Some(output) = output {
        let _ = output.join();
    }
    drop(raw);
    Ok(code)
}

/// Reaps the children that have ended, orphans that came to us as the subreaper among them; returns the exit code of `pid`
/// if it is one of them.
fn reap(pid: i32) -> io::Result<Option<u8>> {
    use rustix::process::{WaitOptions, wait};
    loop {
        let (child, status) = match wait(WaitOptions::NOHANG) {
            Ok(Some(ended)) => ended,
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(None),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let code = status
            .exit_status()
            .or_else(|| status.terminating_signal().map(|signal| 128 + signal));
        if child.as_raw_nonzero().get() == pid
            && let Some(code) = code
        {
            return Ok(Some(u8::try_from(code).unwrap_or(255)));
        }
    }
}

/// Copies between our standard streams and the terminal; the thread of the output ends with the terminal.
fn copies(master: &OwnedFd) -> io::Result<std::thread::JoinHandle<()>> {
    let (input, output) = (master.try_clone()?, master.try_clone()?);
    // Ends with the process: there is nothing to wait for in it.
    std::thread::spawn(move || {
        let mut input = std::fs::File::from(input);
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = io::stdin().read(&mut buffer) {
            if input.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
    });
    Ok(std::thread::spawn(move || {
        let mut output = std::fs::File::from(output);
        let mut buffer = [0; 4096];
        // EIO is a terminal's end.
        while let Ok(length @ 1..) = output.read(&mut buffer) {
            let mut stdout = io::stdout();
            if stdout
                .write_all(&buffer[..length])
                .and_then(|()| stdout.flush())
                .is_err()
            {
                break;
            }
        }
    }))
}

/// Our own terminal without its line discipline, until dropped.
struct Raw(Option<termios::Termios>);

impl Raw {
    fn new() -> io::Result<Self> {
        let Ok(before) = termios::tcgetattr(io::stdin()) else {
            return Ok(Self(None));
        };
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// The size of our own terminal.
pub(super) fn own_size() -> Option<(u16, u16)> {
    termios::tcgetwinsize(io::stdin())
        .ok()
        .map(|size| (size.ws_row, size.ws_col))
}

fn options(global: &Global, arguments: &Arguments, command: &str) -> Result<CreateOptions, Error> {
    let id = arguments.id(command)?;
    let bundle = match arguments.get("bundle") {
        Some(bundle) => PathBuf::from(bundle),
        None => PathBuf::from("."),
    };
    let bundle = bundle
        .canonicalize()
        .map_err(|error| Error::stage("open bundle", bundle.display(), error))?;
    let spec = read_spec(&bundle)?;
    Ok(CreateOptions {
        pid_file: arguments.get("pid-file").map(PathBuf::from),
        no_pivot: arguments.is("no-pivot"),
        no_new_keyring: arguments.is("no-new-keyring"),
        preserve_fds: arguments.number("preserve-fds")?.unwrap_or(0),
        keep_spec: true,
        ..CreateOptions::new(id, bundle, spec, &global.root)
    })
}

fn read_spec(bundle: &Path) -> Result<Spec, Error> {
    let path = bundle.join("config.json");
    let bytes =
        std::fs::read(&path).map_err(|error| Error::stage("read", path.display(), error))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::stage("parse", path.display(), error))
}

fn detached_stdio(arguments: &Arguments, spec: &Spec) -> Result<Stdio, Error> {
    let terminal = spec
        .process
        .as_ref()
        .is_some_and(|process| process.terminal);
    match (terminal, arguments.get("console-socket")) {
        (true, Some(path)) => Ok(Stdio::ConsoleSocket(PathBuf::from(path))),
        (false, None) => Ok(Stdio::Inherit),
        (true, None) => Err(Error::invalid(
            "console: cannot allocate tty if runc will detach without setting console socket",
        )),
        (false, Some(_)) => Err(Error::invalid(
            "console: cannot use console socket if runc will not detach or allocate tty",
        )),
    }
}

pub(super) fn start(global: &Global, words: &[String]) -> Result<u8, Failure> {
    let arguments = Arguments::parse(&[], words)?;
    let state = State::load(&global.root, arguments.id("start")?)?;
    library::start_from_fifo(&state).map_err(Failure::named("runc start", 1))?;
    Ok(0)
}

pub(super) fn kill(global: &Global, words: &[String]) -> Result<u8, Failure> {
    let arguments = Arguments::parse(&[switch("all", Some('a'))], words)?;
    let (id, text) = match arguments.positional.as_slice() {
        [id] => (id, "SIGTERM"),
        [id, text] => (id, text.as_str()),
        other => {
            return Err(Error::invalid(format!(
                "arguments: \"kill\" requires 1 or 2 arguments, got {}",
                other.len()
            ))
            .into());
        }
    };
    signals::kill(
        &State::load(&global.root, id)?,
        signal::parse(text)?,
        arguments.is("all"),
    )?;
    Ok(0)
}

pub(super) fn delete(global: &Global, words: &[String]) -> Result<u8, Failure> {
    let arguments = Arguments::parse(&[switch("force", Some('f'))], words)?;
    let id = arguments.id("delete")?;
    remove::delete(DeleteOptions {
        state_root: &global.root,
        id,
        force: arguments.is("force"),
    })?;
    Ok(0)
}

pub(super) fn pause(global: &Global, words: &[String]) -> Result<u8, Failure> {
    let arguments = Arguments::parse(&[], words)?;
    signals::pause(&State::load(&global.root, arguments.id("pause")?)?)?;
    Ok(0)
}

pub(super) fn resume(global: &Global, words: &[String]) -> Result<u8, Failure> {
    let arguments = Arguments::parse(&[], words)?;
    signals::resume(&State::load(&global.root, arguments.id("resume")?)?)?;
    Ok(0)
}
