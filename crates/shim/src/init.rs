//! The role `init`: process 1 of a container that was started with `--init`.
//!
//! Called as `docker-init [-s] [-v...] -- program arguments`. It starts the program in a process group of its own (in
//! the foreground if there is a terminal), forwards every signal to it, reaps whatever becomes an orphan, and ends with
//! the program's status, 128 + n for a signal. After the start it allocates nothing.

use std::ffi::{CString, OsString};
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use gantry_sys::{epoll, pty};
use rustix::process::{Pid, Signal, WaitOptions};

/// Runs as process 1. `args` are the arguments behind the program's name.
pub fn run(args: &[OsString]) -> ExitCode {
    // Executed by a descriptor, the process would be called after the engine's file.
    let _ = rustix::thread::set_name(c"docker-init");
    let command: Vec<CString> = match args.iter().position(|argument| argument == "--") {
        Some(at) => &args[at + 1..],
        None => args,
    }
    .iter()
    .filter_map(|argument| CString::new(argument.clone().into_vec()).ok())
    .collect();
    let Some(program) = command.first() else {
        let _ = writeln!(
            std::io::stderr(),
            "docker-init: no program to run; usage: docker-init -- PROGRAM [ARGUMENTS]"
        );
        return ExitCode::from(1);
    };
    if let Err(error) = epoll::block_all_signals() {
        let _ = writeln!(std::io::stderr(), "docker-init: block signals: {error}");
        return ExitCode::from(1);
    }
    let child = match pty::spawn_foreground(&command) {
        Ok(child) => child,
        Err(error) => {
            let _ = writeln!(
                std::io::stderr(),
                "docker-init: exec `{}`: {error}",
                program.to_string_lossy()
            );
            return ExitCode::from(match error.raw_os_error() {
                Some(libc::ENOENT) => 127,
                _ => 126,
            });
        }
    };
    let Some(child) = Pid::from_raw(child) else {
        return ExitCode::from(1);
    };
    loop {
        // Children first: one may have ended before the first signal is waited for.
        if let Some(code) = reap(child) {
            return ExitCode::from(code);
        }
        let Ok(number) = epoll::wait_for_signal() else {
            return ExitCode::from(1);
        };
        // SIGTTIN and SIGTTOU are about this process's own access to the terminal.
        if matches!(number, libc::SIGCHLD | libc::SIGTTIN | libc::SIGTTOU) {
            continue;
        }
        if let Some(signal) = Signal::from_named_raw(number) {
            let _ = rustix::process::kill_process(child, signal);
        } else {
            let _ = pty::kill_realtime(child.as_raw_nonzero().get(), number);
        }
    }
}

/// Reaps every process that has ended; returns the exit code once the program is among them.
fn reap(child: Pid) -> Option<u8> {
    let mut code = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == child {
            code = Some(match (status.exit_status(), status.terminating_signal()) {
                (Some(status), _) => status as u8,
                (None, Some(signal)) => 128u8.wrapping_add(signal as u8),
                (None, None) => continue,
            });
        }
    }
    code
}
