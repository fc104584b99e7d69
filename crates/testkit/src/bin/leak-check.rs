//! Reports what an engine left behind, one line each, and fails if there is anything.
//!
//! `leak-check --data-root DIRECTORY --exec-root DIRECTORY [--cgroup-parent NAME] [--host-pid PID]`
//!
//! It asks the kernel and reads the disk; it never asks the engine. `--host-pid` names a process in the engine's host
//! namespaces, by default this one.

use std::path::PathBuf;
use std::process::ExitCode;

use gantry_testkit::engine::Places;
use gantry_testkit::leak;

fn main() -> ExitCode {
    let mut places = Places {
        data_root: PathBuf::from("/var/lib/gantry"),
        exec_root: PathBuf::from("/run/gantry"),
        cgroup_parent: "gantry".to_owned(),
        host_pid: std::process::id(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let Some(value) = arguments.next() else {
            return usage();
        };
        match flag.as_str() {
            "--data-root" => places.data_root = value.into(),
            "--exec-root" => places.exec_root = value.into(),
            "--cgroup-parent" => places.cgroup_parent = value,
            "--host-pid" => match value.parse() {
                Ok(pid) => places.host_pid = pid,
                Err(_) => return usage(),
            },
            _ => return usage(),
        }
    }
    if !places.data_root.is_dir() {
        eprintln!(
            "leak-check: no data root at `{}`",
            places.data_root.display()
        );
        return ExitCode::from(2);
    }
    let leaks = leak::settled(&places);
    leaks.iter().for_each(|leak| println!("{leak}"));
    if leaks.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: leak-check --data-root DIRECTORY --exec-root DIRECTORY [--cgroup-parent NAME] [--host-pid PID]"
    );
    ExitCode::from(2)
}
