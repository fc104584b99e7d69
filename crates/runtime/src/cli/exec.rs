//! exec.

use std::path::PathBuf;

use gantry_api::oci::runtime::{LinuxCapabilities, Process, User};
use gantry_sys::epoll;
use std::os::fd::AsFd;

use super::arguments::{Arguments, Flag, switch, value};
use super::lifecycle::{foreground, own_size};
use super::{Failure, Global};
use crate::error::Error;
use crate::exec as library;
use crate::options::Stdio;
use crate::state::{State, Status};

const FLAGS: &[Flag] = &[
    value("console-socket", None),
    value("pidfd-socket", None),
    value("cwd", None),
    value("env", Some('e')),
    switch("tty", Some('t')),
    value("user", Some('u')),
    value("additional-gids", Some('g')),
    value("process", Some('p')),
    switch("detach", Some('d')),
    value("pid-file", None),
    value("process-label", None),
    value("apparmor", None),
    switch("no-new-privs", None),
    value("cap", Some('c')),
    value("preserve-fds", None),
    value("cgroup", None),
    switch("ignore-paused", None),
];

pub(super) fn exec(global: &Global, words: &[String]) -> Result<u8, Failure> {
    let named = Failure::named("exec", 255);
    let arguments = Arguments::parse(FLAGS, words)?;
    arguments.refuse(&["cgroup", "pidfd-socket"])?;
    let Some((id, command)) = arguments.positional.split_first() else {
        return Err(Error::invalid("arguments: \"exec\" requires a minimum of 1 argument").into());
    };
    let state = State::load(&global.root, id).map_err(&named)?;
    match state.status() {
        Status::Stopped => return Err(named(Error::state("cannot exec in a stopped container"))),
        Status::Paused if !arguments.is("ignore-paused") => {
            return Err(named(Error::state(
                "cannot exec in a paused container (use --ignore-paused to override)",
            )));
        }
        Status::Paused | Status::Running | Status::Created => {}
    }
    let process = process(&state, &arguments, command).map_err(&named)?;
    let detach = arguments.is("detach");
    let stdio = match (process.terminal, arguments.get("console-socket")) {
        (true, Some(path)) => Stdio::ConsoleSocket(PathBuf::from(path)),
        (true, None) if detach => {
            return Err(named(Error::invalid(
                "console: cannot allocate tty if runc will detach without setting console socket",
            )));
        }
        (true, None) => Stdio::Terminal { size: own_size() },
        (false, _) => Stdio::Inherit,
    };
    let pidfd = state.pidfd().map_err(&named)?;
    let cgroup = state.cgroup().map_err(&named)?;
    if !detach {
        epoll::block_all_signals()
            .map_err(|error| named(Error::stage("block", "signals", error)))?;
    }
    let execed = library::exec(library::ExecOptions {
        id: &state.id,
        pid: state.pid,
        pidfd: pidfd.as_fd(),
        process,
        stdio,
        cgroup: &cgroup,
        seccomp_filter: None,
        seccomp: state
            .spec
            .as_ref()
            .and_then(|spec| spec.linux.as_ref())
            .and_then(|linux| linux.seccomp.as_ref()),
        no_new_keyring: false,
        preserve_fds: arguments.number("preserve-fds")?.unwrap_or(0),
        pid_file: arguments.get("pid-file").map(PathBuf::from),
    })
    .map_err(&named)?;
    if detach {
        return Ok(0);
    }
    foreground(execed.pid, &execed.pidfd, execed.console.as_ref()).map_err(&named)
}

/// The process of a file, or the container's own with another command.
fn process(state: &State, arguments: &Arguments, command: &[String]) -> Result<Process, Error> {
    if let Some(path) = arguments.get("process") {
        let bytes = std::fs::read(path).map_err(|error| Error::stage("read", path, error))?;
        return serde_json::from_slice(&bytes).map_err(|error| Error::stage("parse", path, error));
    }
    if command.is_empty() {
        return Err(Error::invalid("process: args cannot be empty"));
    }
    let mut process = state
        .spec
        .as_ref()
        .and_then(|spec| spec.process.clone())
        .ok_or_else(|| {
            Error::invalid(
                "process: the container was made without a record of its own, use --process",
            )
        })?;
    process.args = command.to_vec();
    process.terminal = arguments.is("tty");
    process.console_size = None;
    if let Some(cwd) = arguments.get("cwd") {
        process.cwd = cwd.to_owned();
    }
    process.env.extend(arguments.all("env").iter().cloned());
    if arguments.get("no-new-privs").is_some() {
        process.no_new_privileges = arguments.is("no-new-privs");
    }
    if let Some(profile) = arguments.get("apparmor") {
        process.apparmor_profile = profile.to_owned();
    }
    if let Some(label) = arguments.get("process-label") {
        process.selinux_label = label.to_owned();
    }
    let capabilities = arguments.all("cap");
    if !capabilities.is_empty() {
        let sets = process
            .capabilities
            .get_or_insert_with(LinuxCapabilities::default);
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(
                capabilities
                    .iter()
                    .filter(|one| !sets.ambient.contains(one))
                    .cloned(),
            );
        }
    }
    if let Some(user) = arguments.get("user") {
        process.user = parse_user(user)?;
    }
    for gid in arguments.all("additional-gids") {
        process.user.additional_gids.push(number(gid)?);
    }
    Ok(process)
}

/// Takes `UID` and `UID:GID`.
fn parse_user(text: &str) -> Result<User, Error> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    Ok(User {
        uid: number(uid)?,
        gid: number(gid)?,
        ..User::default()
    })
}

fn number(text: &str) -> Result<u32, Error> {
    text.parse()
        .map_err(|_| Error::invalid(format!("user: \"{text}\" is not a number")))
}
