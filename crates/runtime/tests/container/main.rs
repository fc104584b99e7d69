//! Containers for real: bundles made of a static busybox in a temporary directory, run through the command line of this
//! very executable (`argv[1] = "runtime"`) and through the library. Needs root and `/bin/busybox`.

mod bundle;
mod confinement;
mod execs;
mod hooks;
mod hostile;
mod library;
mod lifecycle;
mod mounts;
mod namespaces;

use std::ffi::OsString;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// A test by its name.
type Test = (&'static str, fn());

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "runtime") {
        return gantry_runtime::cli::run(&arguments[1..], &mut std::io::stdout());
    }
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let tests: Vec<Test> = [
        lifecycle::TESTS,
        confinement::TESTS,
        namespaces::TESTS,
        mounts::TESTS,
        hostile::TESTS,
        hooks::TESTS,
        execs::TESTS,
        library::TESTS,
    ]
    .concat();
    if words.contains(&"--list") {
        for (name, _) in &tests {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let exact = words.contains(&"--exact");
    let filters: Vec<&&str> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| {
        filters.is_empty()
            || filters.iter().any(|filter| {
                if exact {
                    **filter == name
                } else {
                    name.contains(**filter)
                }
            })
    };
    let mut failed = Vec::new();
    let mut count = 0;
    for (name, test) in tests.iter().filter(|(name, _)| wanted(name)) {
        count += 1;
        print!("test {name} ... ");
        let _ = std::io::stdout().flush();
        if catch_unwind(AssertUnwindSafe(test)).is_ok() {
            println!("ok");
        } else {
            println!("FAILED");
            failed.push(*name);
        }
    }
    // The parent of all cgroups made here; where somebody else's are in it, it stays.
    for entry in std::fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
    {
        let _ = std::fs::remove_dir(entry.path().join("gantry-test"));
    }
    println!("\n{} of {count} passed", count - failed.len());
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
