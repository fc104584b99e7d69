//! Runs scenarios: each one with the docker client and with Gantry's, several at a time, one engine for all.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::session::{Client, Session};

/// A scenario and the behaviour that is its name.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub run: fn(&Session),
}

/// Lists functions as scenarios; a function that is forgotten is dead code and does not compile.
#[macro_export]
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        pub const ALL: &[$crate::runner::Scenario] = &[$($crate::runner::Scenario { name: stringify!($name), run: $name }),*];
    };
}

/// What the command line asks for.
struct Selection {
    filters: Vec<String>,
    clients: Vec<Client>,
    threads: usize,
    list: bool,
    repeat: usize,
}

fn selection() -> Selection {
    let mut selection = Selection {
        filters: Vec::new(),
        clients: clients(),
        threads: 3,
        list: false,
        repeat: 1,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--list" => selection.list = true,
            "--client" => {
                let name = arguments.next().unwrap_or_default();
                selection.clients.retain(|client| client.name() == name);
                assert!(!selection.clients.is_empty(), "no client `{name}` here");
            }
            "--test-threads" => {
                selection.threads = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1)
            }
            "--repeat" => {
                selection.repeat = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1)
            }
            // Options of the standard harness that mean nothing here.
            "--nocapture" | "--quiet" | "-q" | "--include-ignored" | "--exact" => {}
            filter => selection.filters.push(filter.to_owned()),
        }
    }
    selection
}

/// The clients of this machine. A docker client older than 28 words its messages differently and is left out, aloud.
fn clients() -> Vec<Client> {
    let mut clients = Vec::new();
    let program = std::env::var("GANTRY_DOCKER").unwrap_or_else(|_| "docker".to_owned());
    let version = Command::new(&program)
        .args(["--version"])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let major = version.ok().and_then(|text| {
        text.strip_prefix("Docker version ")?
            .split('.')
            .next()?
            .parse::<u32>()
            .ok()
    });
    match major {
        Some(28..) => clients.push(Client::Docker),
        Some(old) => println!(
            "skipped: the docker client here is version {old}; these scenarios compare the texts of 28"
        ),
        None => {
            println!("skipped: no docker client here; scenarios run with Gantry's client alone")
        }
    }
    let reference = std::env::var_os(crate::engine::ORACLE_SOCKET).is_some();
    let chosen = std::env::var_os("GANTRY_BINARY").is_some();
    if !reference || chosen {
        clients.push(Client::Gantry);
    }
    assert!(!clients.is_empty(), "no client to run the scenarios with");
    clients
}

thread_local! {
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `groups` of scenarios and gives the exit code of the test program.
pub fn run(groups: &[(&str, &[Scenario])]) -> ExitCode {
    let selection = selection();
    let mut work = VecDeque::new();
    for (group, scenarios) in groups {
        for scenario in *scenarios {
            let name = format!("{group}::{}", scenario.name);
            if selection.filters.is_empty()
                || selection
                    .filters
                    .iter()
                    .any(|filter| name.contains(filter.as_str()))
            {
                for _ in 0..selection.repeat {
                    work.extend(
                        selection
                            .clients
                            .iter()
                            .map(|&client| (name.clone(), *scenario, client)),
                    );
                }
            }
        }
    }
    if selection.list {
        work.iter()
            .for_each(|(name, _, client)| println!("{name} [{}]: test", client.name()));
        return ExitCode::SUCCESS;
    }
    if work.is_empty() {
        println!("no scenario matches");
        return ExitCode::SUCCESS;
    }
    std::panic::set_hook(Box::new(|information| {
        let place = information
            .location()
            .map(|place| format!("{}:{}: ", place.file(), place.line()))
            .unwrap_or_default();
        let payload = information.payload();
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied());
        let text = format!("{place}{}", text.unwrap_or("a panic without words"));
        eprintln!("{text}");
        MESSAGE.with_borrow_mut(|message| *message = Some(text));
    }));
    let begin = Instant::now();
    let engine = Engine::of_environment();
    let total = work.len();
    let (work, failures) = (Mutex::new(work), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..selection.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let Some((name, scenario, client)) =
                        work.lock().expect("no panic while locked").pop_front()
                    else {
                        break;
                    };
                    let start = Instant::now();
                    let result = catch_unwind(AssertUnwindSafe(|| {
                        (scenario.run)(&Session::new(&engine, client))
                    }));
                    let seconds = start.elapsed().as_secs_f32();
                    let verdict = if result.is_ok() { "ok" } else { "FAILED" };
                    println!("{name} [{}] ... {verdict} ({seconds:.1} s)", client.name());
                    if result.is_err() {
                        let message = MESSAGE.take().unwrap_or_default();
                        failures
                            .lock()
                            .expect("no panic while locked")
                            .push((name, client, message));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().expect("no panic while locked");
    failures.sort_by(|left, right| left.0.cmp(&right.0));
    if !failures.is_empty() {
        println!("\nfailures:");
        for (name, client, message) in &failures {
            println!("\n{name} [{}]\n{message}", client.name());
        }
        if !engine.is_reference() {
            println!("\nthe daemon's log ends:\n{}", engine.daemon_log_tail());
        }
    }
    let leaks = after(&engine);
    print!(
        "\n{}",
        summary(&failures, total - failures.len(), begin.elapsed())
    );
    if failures.is_empty() && leaks.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The most characters of one line of the summary.
const SUMMARY_CHARACTERS_MAX: usize = 200;

/// Ends the output: the time, one line for each failure (its name, its client, the first line of its message), the two
/// numbers. Whoever sees the last lines of a long log alone sees what failed.
fn summary(failures: &[(String, Client, String)], passed: usize, time: Duration) -> String {
    let mut text = format!("{:.0} s\n", time.as_secs_f32());
    for (name, client, message) in failures {
        let first = message.lines().next().unwrap_or_default();
        let line = format!("{name} [{}]: {first}", client.name());
        text.extend(line.chars().take(SUMMARY_CHARACTERS_MAX));
        text.push('\n');
    }
    text + &format!("{passed} passed, {} failed\n", failures.len())
}

/// After the last scenario: nothing may be left of them.
fn after(engine: &Engine) -> Vec<String> {
    if engine.is_reference() || !engine.daemon_runs() {
        return Vec::new();
    }
    let removal = catch_unwind(AssertUnwindSafe(|| engine.remove_all_containers()));
    if removal.is_err() {
        return vec!["the engine does not remove its containers".to_owned()];
    }
    let leaks = crate::leak::settled(&engine.places());
    for leak in &leaks {
        println!("leak: {leak}");
    }
    leaks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_each_failure_in_one_line_before_the_numbers() {
        let failures = [
            (
                "a::b".to_owned(),
                Client::Docker,
                "x.rs:1: no\nmore".to_owned(),
            ),
            ("a::c".to_owned(), Client::Gantry, "ä".repeat(300)),
            ("a::d".to_owned(), Client::Gantry, String::new()),
        ];
        let text = summary(&failures, 7, Duration::from_secs(61));
        let cut = format!("a::c [gantry]: {}", "ä".repeat(185));
        assert_eq!(
            text,
            format!(
                "61 s\na::b [docker]: x.rs:1: no\n{cut}\na::d [gantry]: \n7 passed, 3 failed\n"
            )
        );
        assert_eq!(summary(&[], 2, Duration::ZERO), "0 s\n2 passed, 0 failed\n");
    }
}
