//! Hooks: programs that read the container's state from standard input.

use std::ffi::{CString, OsStr};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use gantry_api::oci::runtime::{Hook, State};
use gantry_sys::process::{self, Exit, Spawn, StringList};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;

use crate::error::Error;

/// Runs hooks in their order; the first that fails ends it.
pub(crate) fn run(kind: &str, hooks: &[Hook], state: &State) -> Result<(), Error> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = serde_json::to_vec(state).map_err(|error| Error::invalid(error.to_string()))?;
    for (index, hook) in hooks.iter().enumerate() {
        one(hook, &state).map_err(|message| Error::Hook {
            kind: kind.to_owned(),
            index,
            path: hook.path.display().to_string(),
            message,
        })?;
    }
    Ok(())
}

/// Runs hooks of which none may hold up the others: after the start and after the end.
pub(crate) fn run_all(kind: &str, hooks: &[Hook], state: &State) -> Vec<Error> {
    let Ok(state) = serde_json::to_vec(state) else {
        return Vec::new();
    };
    hooks
        .iter()
        .enumerate()
        .filter_map(|(index, hook)| {
            one(hook, &state).err().map(|message| Error::Hook {
                kind: kind.to_owned(),
                index,
                path: hook.path.display().to_string(),
                message,
            })
        })
        .collect()
}

fn one(hook: &Hook, state: &[u8]) -> Result<(), String> {
    if !hook.path.is_absolute() {
        return Err("the path is not absolute".to_owned());
    }
    let text = |error: std::io::Error| error.to_string();
    let string = |bytes: &OsStr| CString::new(bytes.as_bytes()).map_err(|error| error.to_string());
    let strings = |list: &[String]| -> Result<StringList, String> {
        Ok(StringList::new(
            list.iter()
                .map(|one| string(OsStr::new(one)))
                .collect::<Result<_, _>>()?,
        ))
    };
    let program = string(hook.path.as_os_str())?;
    let arguments = if hook.args.is_empty() {
        StringList::new(vec![program.clone()])
    } else {
        strings(&hook.args)?
    };
    // Files in memory on all three: nothing blocks, however much the hook writes and however little it reads.
    let mut stdin = memory()?;
    stdin
        .write_all(state)
        .and_then(|()| stdin.seek(SeekFrom::Start(0)))
        .map_err(text)?;
    let (mut stdout, mut stderr) = (memory()?, memory()?);
    let child = process::spawn(&Spawn {
        program: &program,
        arguments: &arguments,
        environment: &strings(&hook.env)?,
        fds: &[(stdin.as_fd(), 0), (stdout.as_fd(), 1), (stderr.as_fd(), 2)],
        session: false,
        directory: None,
    })
    .map_err(text)?;
    if !ended_in_time(&child.pidfd, hook.timeout) {
        process::pidfd_send_signal(child.pidfd.as_fd(), libc::SIGKILL).map_err(text)?;
        process::wait_pidfd(child.pidfd.as_fd(), true).map_err(text)?;
        return Err(format!(
            "no end after {} s",
            hook.timeout.unwrap_or_default()
        ));
    }
    match process::wait_pidfd(child.pidfd.as_fd(), true).map_err(text)? {
        Some(Exit::Code(0)) => Ok(()),
        exit => {
            let how = match exit {
                Some(Exit::Signal(signal)) => format!("signal: {signal}"),
                Some(Exit::Code(code)) => format!("exit status {code}"),
                None => "unknown end".to_owned(),
            };
            Err(format!(
                "{how}, stdout: {}, stderr: {}",
                tail(&mut stdout),
                tail(&mut stderr)
            ))
        }
    }
}

fn memory() -> Result<std::fs::File, String> {
    rustix::fs::memfd_create("hook", MemfdFlags::CLOEXEC)
        .map(std::fs::File::from)
        .map_err(|error| error.to_string())
}

fn tail(file: &mut std::fs::File) -> String {
    let mut bytes = Vec::new();
    let read = file
        .seek(SeekFrom::Start(0))
        .and_then(|_| file.take(4096).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).trim_end().to_owned(),
        Err(error) => error.to_string(),
    }
}

fn ended_in_time(pidfd: &OwnedFd, timeout: Option<i64>) -> bool {
    let Some(seconds) = timeout.filter(|seconds| *seconds > 0) else {
        return true;
    };
    let deadline =
        std::time::Instant::now() + std::time::Duration::from_secs(seconds.unsigned_abs());
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) => return false,
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => return true,
        }
    }
}
