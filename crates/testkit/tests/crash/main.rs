//! Kills the daemon, the shims and netd with operations in flight, starts again, and compares what is with what must be.
//!
//! First every fail point of the engine, before and after its step; then kills at random moments from a seed.
//!
//! - `GANTRY_CRASH_POINT`: only the fail points whose `NAME:SIDE` holds this.
//! - `GANTRY_CRASH_KILLS` (default 12): how many random kills. `GANTRY_CRASH_SEED`: the first seed; it is printed.
//!
//! What must hold after each kill and restart: what was acknowledged is there; what ran runs on, with the same process, unless
//! its own shim was killed, which gives 255 and lets its restart policy act; exit codes are the true ones; logs lack no line;
//! each container's events tell one story, in order, each once; a published port answers while no daemon runs and after netd
//! was killed; restart policies go on; and nothing has leaked. The last is the word of a separate program, `leak-check`, which
//! asks the kernel and the disk and never the engine.

mod points;
mod random;
mod story;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use gantry_testkit::engine::Engine;
use serde_json::Value;

const BUSYBOX: &str = "localhost/test/busybox:1";
const APP: &str = "localhost/test/app:1";

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--list") {
        println!("fail_points: test\nrandom_kills: test");
        return ExitCode::SUCCESS;
    }
    if std::env::var_os(gantry_testkit::engine::ORACLE_SOCKET).is_some() {
        println!("skipped: the reference engine is not ours to kill");
        return ExitCode::SUCCESS;
    }
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wanted = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
    };
    let engine = Engine::private(&[]);
    let mut failed = false;
    for (name, test) in [
        ("fail_points", points::fail_points as fn(&Engine)),
        ("random_kills", random::random_kills),
    ] {
        if !wanted(name) {
            continue;
        }
        let begin = Instant::now();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&engine)));
        println!(
            "{name} ... {} ({:.0} s)",
            if result.is_ok() { "ok" } else { "FAILED" },
            begin.elapsed().as_secs_f32()
        );
        if result.is_err() {
            println!("the daemon's log ends:\n{}", engine.daemon_log_tail());
            failed = true;
        }
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// What `leak-check` finds once the trash is empty: one line each.
fn leaks(engine: &Engine) -> Vec<String> {
    let places = engine.places();
    let output = Command::new(env!("CARGO_BIN_EXE_leak-check"))
        .arg("--data-root")
        .arg(&places.data_root)
        .arg("--exec-root")
        .arg(&places.exec_root)
        .args(["--cgroup-parent", &places.cgroup_parent])
        .args(["--host-pid", &places.host_pid.to_string()])
        .output()
        .expect("start leak-check");
    let mut found: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    if found.is_empty() && !output.status.success() {
        found.push(format!(
            "leak-check failed: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    found
}

/// A container as the API shows it; none if there is none.
fn inspect(engine: &Engine, id: &str) -> Option<Value> {
    let response = engine.api("GET", &format!("/containers/{id}/json"), None);
    (response.status != 404).then(|| {
        response.json().unwrap_or_else(|error| {
            panic!("{id} cannot be inspected: {error:#}: {}", response.text())
        })
    })
}

/// What the API says against what the kernel says. A process may end between the two questions: what is odd is asked again.
fn inconsistencies(engine: &Engine) -> Vec<String> {
    let mut problems = Vec::new();
    let list = engine
        .api("GET", "/containers/json?all=1", None)
        .json()
        .expect("a list");
    for container in list.as_array().expect("a list") {
        let id = container["Id"].as_str().expect("an id");
        let deadline = Instant::now() + Duration::from_secs(3);
        let mut problem = inconsistency(engine, id);
        while problem.is_some() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            problem = inconsistency(engine, id);
        }
        problems.extend(problem);
    }
    problems
}

fn inconsistency(engine: &Engine, id: &str) -> Option<String> {
    let state = &inspect(engine, id)?["State"];
    let pid = state["Pid"].as_i64().unwrap_or(0);
    let alive = pid > 0
        && std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "));
    match state["Status"].as_str() {
        Some("running" | "paused") if !alive => Some(format!("{id} runs without process {pid}")),
        Some("created" | "exited") if pid != 0 => {
            Some(format!("{id} has ended and has process {pid}"))
        }
        Some("created" | "exited" | "running" | "paused" | "restarting") => None,
        other => Some(format!("{id} is {other:?} after a restart")),
    }
}
