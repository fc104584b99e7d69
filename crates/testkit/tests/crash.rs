//! Kills the daemon, the shims and netd with operations in flight, starts again, and compares what is with what must be.
//!
//! First every fail point of the engine, before and after its step; then kills at random moments from a seed.
//!
//! - `GANTRY_CRASH_POINT`: only the fail points whose `NAME:SIDE` holds this.
//! - `GANTRY_CRASH_KILLS` (default 12): how many random kills. `GANTRY_CRASH_SEED`: the first seed; it is printed.
//!
//! What must hold after each kill and restart: what was acknowledged is there; what ran runs on, with the same process, unless
//! its own shim was killed, which gives 255; exit codes are the true ones; logs lack no line; each container's events tell
//! one story, each once; a published port answers while no daemon runs; and nothing has leaked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gantry_testkit::engine::{Engine, images_directory};
use gantry_testkit::wait::{eventually, eventually_within};
use gantry_testkit::{http, leak};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

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
        ("fail_points", fail_points as fn(&Engine)),
        ("random_kills", random_kills),
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

/// The names in the engine's own table, read from its source so that none is listed twice.
fn fail_point_names() -> Vec<&'static str> {
    let source = include_str!("../../engine/src/failpoint.rs");
    let table = source
        .split_once("NAMES: &[&str] = &[")
        .and_then(|(_, rest)| rest.split_once("];"))
        .expect("the table of names")
        .0;
    table.split('"').skip(1).step_by(2).collect()
}

fn fail_points(engine: &Engine) {
    let archive = std::fs::read(images_directory().join("web.tar")).expect("an archive");
    let mut problems = Vec::new();
    for name in fail_point_names() {
        for side in ["before", "after"] {
            let point = format!("{name}:{side}");
            if std::env::var("GANTRY_CRASH_POINT").is_ok_and(|wanted| !point.contains(&wanted)) {
                continue;
            }
            let (begin, known) = (Instant::now(), problems.len());
            engine.end_daemon(Signal::TERM);
            engine.start_daemon(&[("GANTRY_FAILPOINT", point.as_str())]);
            every_operation(engine, &archive);
            if !gone_within(engine, Duration::from_secs(5)) {
                problems.push(format!("{point}: never reached"));
            }
            engine.end_daemon(Signal::KILL);
            engine.start_daemon(&[]);
            problems.extend(
                inconsistencies(engine)
                    .into_iter()
                    .map(|problem| format!("{point}: {problem}")),
            );
            engine.remove_all_containers();
            problems.extend(
                leak::settled(&engine.places())
                    .into_iter()
                    .map(|leak| format!("{point}: leak: {leak}")),
            );
            println!("  {point} ({:.1} s)", begin.elapsed().as_secs_f32());
            problems[known..]
                .iter()
                .for_each(|problem| println!("    {problem}"));
        }
    }
    assert!(
        problems.is_empty(),
        "{} problems:\n{}",
        problems.len(),
        problems.join("\n")
    );
}

fn gone_within(engine: &Engine, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while engine.daemon_runs() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Goes through every verb that has a fail point; the daemon dies at one of them, so no answer is expected.
fn every_operation(engine: &Engine, archive: &[u8]) {
    let call = |method: &str, path: &str, body: Option<&Value>| {
        let begin = Instant::now();
        let status = engine
            .try_api(method, path, body)
            .map(|response| response.status);
        if begin.elapsed() > Duration::from_secs(8) {
            println!(
                "  {method} {path} took {:?} and gave {status:?}",
                begin.elapsed()
            );
        }
        status
    };
    let long = json!({"Image": APP, "Entrypoint": ["sleep", "1000"], "Cmd": [], "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "18080"}]}, "Binds": ["points:/data", "memory:/memory"],
            "Mounts": [{"Type": "volume", "Source": "points", "Target": "/part", "VolumeOptions": {"Subpath": "sub"}}],
            "IpcMode": "shareable"}});
    let short = json!({"Image": BUSYBOX, "Cmd": ["sh", "-c", "exit 3"]});
    let _ = http::unix(
        &engine.socket,
        "POST",
        "/images/load?quiet=1",
        Some(("application/x-tar", archive)),
    );
    let memory = json!({"Name": "memory", "DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}});
    call("POST", "/volumes/create", Some(&memory));
    call("POST", "/containers/create?name=long", Some(&long));
    call("POST", "/containers/long/start", None);
    if let Some(created) = engine.try_api(
        "POST",
        "/containers/long/exec",
        Some(&json!({"Cmd": ["true"], "AttachStdout": true})),
    ) && let Some(id) = created
        .json()
        .ok()
        .and_then(|body| body["Id"].as_str().map(str::to_owned))
    {
        call(
            "POST",
            &format!("/exec/{id}/start"),
            Some(&json!({"Detach": false})),
        );
    }
    call("POST", "/containers/create?name=short", Some(&short));
    call("POST", "/containers/short/start", None);
    call("POST", "/containers/short/wait", None);
    call("POST", "/containers/long/stop?t=0", None);
    call("DELETE", "/containers/short?v=1", None);
    call("DELETE", "/containers/long?force=1&v=1", None);
    call("DELETE", "/volumes/points?force=1", None);
    call("DELETE", "/volumes/memory?force=1", None);
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
    let response = engine.api("GET", &format!("/containers/{id}/json"), None);
    if response.status == 404 {
        return None;
    }
    let Ok(state) = response.json() else {
        return Some(format!("{id} cannot be inspected: {}", response.text()));
    };
    let pid = state["State"]["Pid"].as_i64().unwrap_or(0);
    let alive = pid > 0
        && std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "));
    match state["State"]["Status"].as_str() {
        Some("running" | "paused") if !alive => Some(format!("{id} runs without process {pid}")),
        Some("created" | "exited") if pid != 0 => {
            Some(format!("{id} has ended and has process {pid}"))
        }
        Some("created" | "exited" | "running" | "paused" | "restarting") => None,
        other => Some(format!("{id} is {other:?} after a restart")),
    }
}

/// A small generator, so that a seed gives the same kills again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What a container was made for, and what was acknowledged of it.
#[derive(Clone, Debug)]
struct Expected {
    /// The code with which it will end by itself; none for one that goes on.
    code: Option<i64>,
    started: bool,
    /// Its process, once seen.
    pid: Option<i64>,
    /// Someone asked for its stop or removal, or killed its shim.
    disturbed: bool,
    shim_killed: bool,
}

type Model = Mutex<BTreeMap<String, Expected>>;

static NEXT: AtomicU32 = AtomicU32::new(0);

fn number_of(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn random_kills(engine: &Engine) {
    let kills = number_of("GANTRY_CRASH_KILLS", 12);
    let clock = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let seed = number_of("GANTRY_CRASH_SEED", clock.as_secs());
    println!("GANTRY_CRASH_SEED={seed}, {kills} kills");
    if !engine.daemon_runs() {
        engine.start_daemon(&[]);
    }
    engine.remove_all_containers();
    let begin = clock.as_secs();
    let model: Model = Mutex::default();
    let counter = steady(
        engine,
        "counter",
        &json!({"Image": BUSYBOX, "Cmd": ["sh", "-c", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.01; done"]}),
    );
    let port = 18090;
    let web = json!({"Image": "localhost/test/web:1", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": port.to_string()}]}}});
    let server = steady(engine, "server", &web);
    let mut random = Random(seed.max(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    for kill in 0..kills {
        let context = format!("seed {seed}, kill {kill}");
        let target = round(engine, &model, &mut random, &[&counter, &server], port);
        let problems = verify(engine, &model, &[&counter, &server]);
        assert!(
            problems.is_empty(),
            "{context} ({target}):\n{}",
            problems.join("\n")
        );
        assert!(
            answers(engine, port),
            "{context} ({target}): the published port is dead after the restart"
        );
        let leaks = leak::settled(&engine.places());
        assert!(
            leaks.is_empty(),
            "{context} ({target}): leaks:\n{}",
            leaks.join("\n")
        );
    }
    check_log(engine, &counter);
    check_events(engine, begin, &model);
    engine.remove_all_containers();
    let leaks = leak::settled(&engine.places());
    assert!(
        leaks.is_empty(),
        "leaks after everything was removed:\n{}",
        leaks.join("\n")
    );
}

/// A container that must run through all kills: its id.
fn steady(engine: &Engine, name: &str, body: &Value) -> String {
    let created = engine.api(
        "POST",
        &format!("/containers/create?name={name}"),
        Some(body),
    );
    let id = created.json().expect("JSON")["Id"]
        .as_str()
        .unwrap_or_else(|| panic!("{}", created.text()))
        .to_owned();
    assert_eq!(
        engine
            .api("POST", &format!("/containers/{id}/start"), None)
            .status,
        204
    );
    id
}

fn answers(engine: &Engine, port: u16) -> bool {
    let address = SocketAddr::new(engine.address, port);
    (0..200).any(|_| {
        let answered = engine
            .outside
            .within(|| http::get(address, "/group").is_ok_and(|response| response.status == 200));
        if !answered {
            std::thread::sleep(Duration::from_millis(25));
        }
        answered
    })
}

/// Runs operations and kills something while they run; the daemon runs again when it returns.
fn round(
    engine: &Engine,
    model: &Model,
    random: &mut Random,
    protected: &[&str],
    port: u16,
) -> String {
    let stop = AtomicBool::new(false);
    let seeds: Vec<u64> = (0..3).map(|_| random.below(u64::MAX) | 1).collect();
    let pause = Duration::from_millis(20 + random.below(300));
    let choice = random.below(100);
    std::thread::scope(|scope| {
        let workers: Vec<_> = seeds
            .iter()
            .map(|&seed| (seed, &stop))
            .map(|(seed, stop)| scope.spawn(move || work(engine, model, Random(seed), stop)))
            .collect();
        std::thread::sleep(pause);
        let target = match choice {
            0..60 => "daemon".to_owned(),
            60..85 => kill_a_shim(engine, model, random, protected),
            _ => kill_all(&engine.processes_of_role("netd"), "netd"),
        };
        if target == "daemon" {
            engine.end_daemon(Signal::KILL);
        } else {
            std::thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().expect("a worker");
        }
        if target == "daemon" {
            assert!(
                answers(engine, port),
                "the published port is dead while no daemon runs"
            );
            engine.start_daemon(&[]);
        }
        target
    })
}

fn kill_all(pids: &[u32], name: &str) -> String {
    for &pid in pids {
        if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    format!("{name} {pids:?}")
}

fn kill_a_shim(engine: &Engine, model: &Model, random: &mut Random, protected: &[&str]) -> String {
    let shims: Vec<(u32, String)> = engine
        .processes_of_role("shim")
        .into_iter()
        .filter_map(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let id = String::from_utf8_lossy(line.split(|&byte| byte == 0).nth(2)?).into_owned();
            (!protected.contains(&id.as_str())).then_some((pid, id))
        })
        .collect();
    if shims.is_empty() {
        return "no shim".to_owned();
    }
    let (pid, id) = &shims[usize::try_from(random.below(shims.len() as u64)).expect("small")];
    if let Some(expected) = model.lock().expect("no panic while locked").get_mut(id) {
        expected.disturbed = true;
        expected.shim_killed = true;
    }
    kill_all(&[*pid], &format!("shim of {id}"))
}

/// One client: makes, starts, enters, stops and removes containers until told to stop or until nobody answers.
fn work(engine: &Engine, model: &Model, mut random: Random, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let known: Vec<String> = model
            .lock()
            .expect("no panic while locked")
            .keys()
            .cloned()
            .collect();
        let any = (!known.is_empty()).then(|| {
            known[usize::try_from(random.below(known.len() as u64)).expect("small")].clone()
        });
        let alive = match (random.below(10), any) {
            (0..5, _) | (_, None) => create_and_start(engine, model, &mut random),
            (5..7, Some(id)) => exec(engine, &id),
            (7, Some(id)) => {
                disturb(model, &id);
                engine
                    .try_api("POST", &format!("/containers/{id}/stop?t=0"), None)
                    .is_some()
            }
            (8, Some(id)) => {
                disturb(model, &id);
                let removed =
                    engine.try_api("DELETE", &format!("/containers/{id}?force=1&v=1"), None);
                if removed
                    .as_ref()
                    .is_some_and(|response| response.status == 204)
                {
                    model.lock().expect("no panic while locked").remove(&id);
                }
                removed.is_some()
            }
            (_, Some(_)) => {
                let archive =
                    std::fs::read(images_directory().join("web.tar")).expect("an archive");
                http::unix(
                    &engine.socket,
                    "POST",
                    "/images/load?quiet=1",
                    Some(("application/x-tar", &archive)),
                )
                .is_ok()
            }
        };
        if !alive {
            return;
        }
    }
}

fn disturb(model: &Model, id: &str) {
    if let Some(expected) = model.lock().expect("no panic while locked").get_mut(id) {
        expected.disturbed = true;
    }
}

fn create_and_start(engine: &Engine, model: &Model, random: &mut Random) -> bool {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let code = (random.below(2) == 0).then(|| i64::try_from(random.below(100)).expect("small"));
    let script = match code {
        Some(code) => format!("sleep 0.{}; exit {code}", random.below(4)),
        None => "sleep 100000".to_owned(),
    };
    let mut body =
        json!({"Image": APP, "Entrypoint": ["sh", "-c", script], "Cmd": [], "User": "root"});
    if random.below(3) == 0 {
        body["HostConfig"] = json!({"PortBindings": {"8080/tcp": [{"HostPort": ""}]}});
    }
    let Some(created) = engine.try_api(
        "POST",
        &format!("/containers/create?name=c{number}"),
        Some(&body),
    ) else {
        return false;
    };
    let Some(id) = created
        .json()
        .ok()
        .and_then(|body| body["Id"].as_str().map(str::to_owned))
    else {
        return true;
    };
    let expected = Expected {
        code,
        started: false,
        pid: None,
        disturbed: false,
        shim_killed: false,
    };
    model
        .lock()
        .expect("no panic while locked")
        .insert(id.clone(), expected);
    let Some(started) = engine.try_api("POST", &format!("/containers/{id}/start"), None) else {
        return false;
    };
    if started.status == 204
        && let Some(expected) = model.lock().expect("no panic while locked").get_mut(&id)
    {
        expected.started = true;
    }
    true
}

fn exec(engine: &Engine, id: &str) -> bool {
    let body = json!({"Cmd": ["echo", "in"], "AttachStdout": true});
    let Some(created) = engine.try_api("POST", &format!("/containers/{id}/exec"), Some(&body))
    else {
        return false;
    };
    let Some(exec) = created
        .json()
        .ok()
        .and_then(|body| body["Id"].as_str().map(str::to_owned))
    else {
        return true;
    };
    engine
        .try_api(
            "POST",
            &format!("/exec/{exec}/start"),
            Some(&json!({"Detach": false})),
        )
        .is_some()
}

/// Compares every container of the model with what the API says now.
fn verify(engine: &Engine, model: &Model, steady: &[&str]) -> Vec<String> {
    let mut problems = inconsistencies(engine);
    for id in steady {
        let state = engine
            .api("GET", &format!("/containers/{id}/json"), None)
            .json()
            .expect("JSON");
        if state["State"]["Running"] != true {
            problems.push(format!(
                "{id} must run through everything: {}",
                state["State"]
            ));
        }
    }
    let mut model = model.lock().expect("no panic while locked");
    for (id, expected) in model.iter_mut() {
        let response = engine.api("GET", &format!("/containers/{id}/json"), None);
        if response.status == 404 {
            if !expected.disturbed {
                problems.push(format!("{id} was acknowledged and is lost"));
            }
            continue;
        }
        let mut state = response.json().expect("JSON")["State"].clone();
        if expected.shim_killed && expected.started && state["Running"] == true {
            eventually_within(
                Duration::from_secs(10),
                &format!("{id} ends with its shim"),
                || {
                    state = engine
                        .api("GET", &format!("/containers/{id}/json"), None)
                        .json()
                        .expect("JSON")["State"]
                        .clone();
                    (state["Running"] == false).then_some(())
                },
            );
        }
        if expected.disturbed || !expected.started {
            continue;
        }
        match expected.code {
            None if state["Running"] != true => {
                problems.push(format!("{id} was started and does not run: {state}"))
            }
            None => {
                let pid = state["Pid"].as_i64();
                if expected.pid.is_some() && expected.pid != pid {
                    problems.push(format!("{id} has process {pid:?}, had {:?}", expected.pid));
                }
                expected.pid = pid;
            }
            Some(code) => {
                eventually(&format!("{id} ends"), || {
                    state = engine
                        .api("GET", &format!("/containers/{id}/json"), None)
                        .json()
                        .expect("JSON")["State"]
                        .clone();
                    state["Status"] == "exited"
                });
                if state["ExitCode"] != code {
                    problems.push(format!("{id} ended with {code}, the engine says {state}"));
                }
            }
        }
    }
    model.retain(|_, expected| !expected.disturbed || expected.shim_killed);
    problems
}

/// The counter's log has every line from 1 to the last.
fn check_log(engine: &Engine, id: &str) {
    let response = engine.api("GET", &format!("/containers/{id}/logs?stdout=1"), None);
    let mut lines = Vec::new();
    let mut raw = response.body.as_slice();
    while raw.len() >= 8 {
        let size = u32::from_be_bytes([raw[4], raw[5], raw[6], raw[7]]) as usize;
        lines.push(String::from_utf8_lossy(&raw[8..8 + size]).into_owned());
        raw = &raw[8 + size..];
    }
    assert!(lines.len() > 10, "{} lines", lines.len());
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(
            *line,
            format!("line {}\n", index + 1),
            "the log lacks or repeats a line"
        );
    }
}

/// Each container's events tell one story: created once, starts and deaths by turns, destroyed last and once.
fn check_events(engine: &Engine, begin: u64, model: &Model) {
    let until = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs()
        + 1;
    let filters = "%7B%22type%22%3A%5B%22container%22%5D%7D";
    let response = engine.api(
        "GET",
        &format!("/events?since={begin}&until={until}&filters={filters}"),
        None,
    );
    let mut stories: HashMap<String, Vec<String>> = HashMap::new();
    let mut seen = HashSet::new();
    for line in response.text().lines() {
        let event: Value = serde_json::from_str(line).expect("JSON");
        assert!(seen.insert(line.to_owned()), "told twice: {line}");
        let action = event["Action"].as_str().unwrap_or_default().to_owned();
        if matches!(action.as_str(), "create" | "start" | "die" | "destroy") {
            stories
                .entry(event["Actor"]["ID"].as_str().unwrap_or_default().to_owned())
                .or_default()
                .push(action);
        }
    }
    let mut problems = Vec::new();
    for (id, story) in &stories {
        let mut running = false;
        for (index, action) in story.iter().enumerate() {
            let fits = match action.as_str() {
                "create" => index == 0,
                "start" => !std::mem::replace(&mut running, true),
                "die" => std::mem::replace(&mut running, false),
                _ => index + 1 == story.len(),
            };
            if !fits {
                problems.push(format!("{id}: {}", story.join(" ")));
                break;
            }
        }
    }
    for (id, expected) in model.lock().expect("no panic while locked").iter() {
        let told = stories.get(id).map(Vec::as_slice).unwrap_or_default();
        let dies = told.iter().filter(|action| *action == "die").count();
        if expected.started && !expected.disturbed && expected.code.is_some() && dies != 1 {
            problems.push(format!(
                "{id}: ended once, told {dies} times: {}",
                told.join(" ")
            ));
        }
    }
    assert!(problems.is_empty(), "events:\n{}", problems.join("\n"));
}
