//! Kills at random moments, while clients create, start, enter, stop and remove containers and load images.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gantry_testkit::engine::{Engine, images_directory};
use gantry_testkit::http::{self, Response};
use gantry_testkit::random::{Random, number};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::story::Stories;
use crate::{APP, BUSYBOX, inconsistencies, inspect, leaks};

/// The host's port of the web server that must answer through everything.
const PORT: u16 = 18090;
/// Containers that a round leaves to the next.
const KEPT_MAX: usize = 20;
/// Lines that every container writes before anything else.
const LINES: usize = 20;
/// How long what follows from a kill may take.
const SOON: Duration = Duration::from_secs(15);

/// What a container was made for, and what was acknowledged of it.
#[derive(Clone, Debug, Default)]
struct Expected {
    /// Order of creation.
    number: u32,
    /// The code with which it will end by itself; none for one that goes on.
    code: Option<i64>,
    /// `on-failure`: it starts again when its shim is killed.
    policy: bool,
    started: bool,
    /// Its process, once seen.
    pid: Option<i64>,
    /// Someone asked for its stop or removal.
    touched: bool,
    shim_killed: bool,
}

#[derive(Default)]
struct Clients {
    model: Mutex<BTreeMap<String, Expected>>,
    /// Requests that change something and have no answer yet.
    in_flight: AtomicU32,
    next: AtomicU32,
    stop: AtomicBool,
}

/// What was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Daemon,
    Shim,
    Netd,
}

#[derive(Default)]
struct Count {
    daemons: u64,
    shims: u64,
    netds: u64,
    in_flight: u64,
}

pub fn random_kills(engine: &Engine) {
    let kills = number("GANTRY_CRASH_KILLS", 12);
    let seed = gantry_testkit::random::seed("GANTRY_CRASH_SEED");
    println!("GANTRY_CRASH_SEED={seed}, {kills} kills");
    if !engine.daemon_runs() {
        engine.start_daemon(&[]);
    }
    engine.remove_all_containers();
    let mut stories = Stories::begin();
    let clients = Clients::default();
    let steady = Steady::start(engine);
    let mut random = Random::new(seed);
    let mut count = Count::default();
    for kill in 0..kills {
        let begin = Instant::now();
        let target = round(engine, &clients, &mut random, &steady, &mut count);
        let mut problems = steady.verify(engine, target);
        problems.extend(inconsistencies(engine));
        problems.extend(stories.collect(engine));
        problems.extend(clients.verify(engine, &mut stories));
        problems.extend(
            leaks(engine)
                .into_iter()
                .map(|leak| format!("leak: {leak}")),
        );
        assert!(
            problems.is_empty(),
            "seed {seed}, kill {kill} ({target:?}):\n{}",
            problems.join("\n")
        );
        if kills > 50 {
            println!(
                "  {kill} {target:?} ({:.1} s)",
                begin.elapsed().as_secs_f32()
            );
        }
    }
    check_log(engine, &steady.counter);
    engine.remove_all_containers();
    let mut problems = stories.collect(engine);
    let (events, nonsense) = stories.check();
    problems.extend(nonsense);
    problems.extend(
        leaks(engine)
            .into_iter()
            .map(|leak| format!("leak: {leak}")),
    );
    println!(
        "  {} daemons, {} shims and {} netds killed, {} of {kills} with a request in flight; {events} events, {} containers",
        count.daemons,
        count.shims,
        count.netds,
        count.in_flight,
        clients.next.load(Ordering::Relaxed)
    );
    assert!(problems.is_empty(), "at the end:\n{}", problems.join("\n"));
    assert_eq!(count.daemons + count.shims + count.netds, kills);
    assert!(
        count.in_flight * 2 >= kills,
        "only {} of {kills} kills had a request in flight",
        count.in_flight
    );
    if kills >= 50 {
        // A long run has to come to everything.
        assert!(count.daemons > 0 && count.shims > 0 && count.netds > 0);
    }
}

/// Containers that run through all kills.
struct Steady {
    /// Writes numbered lines, and the last number when it is stopped.
    counter: String,
    /// Answers at [`PORT`].
    server: String,
    /// Ends and is started again by its policy, for ever.
    looper: String,
}

impl Steady {
    fn start(engine: &Engine) -> Steady {
        let script = "trap 'echo last $i; exit' TERM; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.01; done";
        let counter = json!({"Image": BUSYBOX, "Cmd": ["sh", "-c", script]});
        let server = json!({"Image": "localhost/test/web:1",
            "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": PORT.to_string()}]}}});
        let looper = json!({"Image": BUSYBOX, "Cmd": ["sh", "-c", "sleep 0.2; exit 1"],
            "HostConfig": {"RestartPolicy": {"Name": "always"}}});
        Steady {
            counter: run(engine, "counter", &counter),
            server: run(engine, "server", &server),
            looper: run(engine, "looper", &looper),
        }
    }

    fn all(&self) -> [&str; 3] {
        [&self.counter, &self.server, &self.looper]
    }

    fn verify(&self, engine: &Engine, target: Target) -> Vec<String> {
        let mut problems = Vec::new();
        for id in [&self.counter, &self.server] {
            let now = inspect(engine, id).unwrap_or_default();
            if now["State"]["Running"] != true {
                problems.push(format!(
                    "{id} must run through everything: {}",
                    now["State"]
                ));
            }
        }
        if !answers(engine) {
            problems.push("the published port is dead after the kill".to_owned());
        }
        if target == Target::Netd {
            // The loopback of IPv6 is netd's alone, so it lives again.
            let address = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), PORT);
            let get = || http::get(address, "/group").is_ok_and(|answer| answer.status == 200);
            if !soon(|| engine.on_host(get)) {
                problems.push("netd's port is dead after it was killed".to_owned());
            }
        }
        if target == Target::Daemon {
            // The new daemon's first pause is short.
            let starts = |engine: &Engine| {
                inspect(engine, &self.looper).unwrap_or_default()["RestartCount"].clone()
            };
            let before = starts(engine);
            if !soon(|| starts(engine) != before) {
                problems.push(format!(
                    "the restart policy does not go on after {before} restarts"
                ));
            }
        }
        problems
    }
}

/// Waits for `probe`; says whether it came true.
fn soon(mut probe: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + SOON;
    while !probe() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    true
}

fn run(engine: &Engine, name: &str, body: &Value) -> String {
    let path = format!("/containers/create?name={name}");
    let created = engine.api("POST", &path, Some(body));
    let id = created.json().expect("JSON")["Id"]
        .as_str()
        .unwrap_or_else(|| panic!("{}", created.text()))
        .to_owned();
    let started = engine.api("POST", &format!("/containers/{id}/start"), None);
    assert_eq!(started.status, 204, "{}", started.text());
    id
}

fn answers(engine: &Engine) -> bool {
    let address = SocketAddr::new(engine.address, PORT);
    let get = || http::get(address, "/group").is_ok_and(|answer| answer.status == 200);
    soon(|| engine.outside.within(get))
}

/// Runs operations and kills something while they run; the daemon runs again when it returns.
fn round(
    engine: &Engine,
    clients: &Clients,
    random: &mut Random,
    steady: &Steady,
    count: &mut Count,
) -> Target {
    clients.stop.store(false, Ordering::Relaxed);
    let seeds: Vec<u64> = (0..3).map(|_| random.below(u64::MAX) | 1).collect();
    let pause = Duration::from_millis(20 + random.below(300));
    let choice = random.below(100);
    std::thread::scope(|scope| {
        let workers: Vec<_> = seeds
            .into_iter()
            .map(|seed| scope.spawn(move || clients.work(engine, Random::new(seed))))
            .collect();
        std::thread::sleep(pause);
        let killed = match choice {
            0..60 => None,
            60..85 => clients.kill_a_shim(engine, random, steady),
            _ => kill_netd(engine, clients),
        };
        // Where there is no shim or no netd to kill, it is the daemon's turn.
        let (target, in_flight) = killed.unwrap_or_else(|| {
            let in_flight = clients.in_flight.load(Ordering::SeqCst);
            engine.end_daemon(Signal::KILL);
            (Target::Daemon, in_flight)
        });
        match target {
            Target::Daemon => count.daemons += 1,
            Target::Shim => count.shims += 1,
            Target::Netd => count.netds += 1,
        }
        count.in_flight += u64::from(in_flight > 0);
        if target != Target::Daemon {
            std::thread::sleep(Duration::from_millis(100));
        }
        clients.stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().expect("a worker");
        }
        if target == Target::Daemon {
            assert!(
                answers(engine),
                "the published port is dead while no daemon runs"
            );
            engine.start_daemon(&[]);
        }
        target
    })
}

fn kill_process_now(pid: u32) -> bool {
    Pid::from_raw(pid.cast_signed()).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}

fn kill_netd(engine: &Engine, clients: &Clients) -> Option<(Target, u32)> {
    let pid = *engine.processes_of_role("netd").first()?;
    let in_flight = clients.in_flight.load(Ordering::SeqCst);
    kill_process_now(pid).then_some((Target::Netd, in_flight))
}

impl Clients {
    fn with(&self, id: &str, change: impl FnOnce(&mut Expected)) {
        if let Some(expected) = self
            .model
            .lock()
            .expect("no panic while locked")
            .get_mut(id)
        {
            change(expected);
        }
    }

    /// One request that changes something; none if nobody answers.
    fn call(
        &self,
        engine: &Engine,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Option<Response> {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let response = engine.try_api(method, path, body);
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        response
    }

    /// One client: works until told to stop or until nobody answers.
    fn work(&self, engine: &Engine, mut random: Random) {
        while !self.stop.load(Ordering::Relaxed) {
            let known: Vec<String> = self
                .model
                .lock()
                .expect("no panic while locked")
                .keys()
                .cloned()
                .collect();
            let any = random.choose(&known).cloned();
            let alive = match (random.below(10), any) {
                (0..5, _) | (_, None) => self.create_and_start(engine, &mut random),
                (5..7, Some(id)) => self.exec(engine, &id),
                (7, Some(id)) => {
                    self.with(&id, |expected| expected.touched = true);
                    let path = format!("/containers/{id}/stop?t=0");
                    self.call(engine, "POST", &path, None).is_some()
                }
                (8, Some(id)) => self.remove(engine, &id),
                (_, Some(_)) => {
                    let path = images_directory().join("web.tar");
                    let archive = std::fs::read(path).expect("an archive");
                    let body = Some(("application/x-tar", archive.as_slice()));
                    self.in_flight.fetch_add(1, Ordering::SeqCst);
                    let loaded = http::unix(&engine.socket, "POST", "/images/load?quiet=1", body);
                    self.in_flight.fetch_sub(1, Ordering::SeqCst);
                    loaded.is_ok()
                }
            };
            if !alive {
                return;
            }
        }
    }

    fn create_and_start(&self, engine: &Engine, random: &mut Random) -> bool {
        let mut expected = Expected {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            ..Expected::default()
        };
        let lines = format!("i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; done");
        let script = if random.below(2) == 0 {
            let code = i64::try_from(random.below(100)).expect("small");
            expected.code = Some(code);
            format!("{lines}; sleep 0.{}; exit {code}", random.below(4))
        } else {
            expected.policy = random.below(2) == 0;
            format!("{lines}; exec sleep 100000")
        };
        let mut host = json!({});
        if random.below(3) == 0 {
            host["PortBindings"] = json!({"8080/tcp": [{"HostPort": ""}]});
        }
        if random.below(3) == 0 {
            host["Binds"] = json!([format!("data{}:/data", random.below(3)), "/other"]);
        }
        if expected.policy {
            host["RestartPolicy"] = json!({"Name": "on-failure"});
        }
        let body = json!({"Image": APP, "Entrypoint": ["sh", "-c", script], "Cmd": [], "User": "root", "HostConfig": host});
        let path = format!("/containers/create?name=c{}", expected.number);
        let Some(created) = self.call(engine, "POST", &path, Some(&body)) else {
            return false;
        };
        let Some(id) = created
            .json()
            .ok()
            .and_then(|body| body["Id"].as_str().map(str::to_owned))
        else {
            return true;
        };
        self.model
            .lock()
            .expect("no panic while locked")
            .insert(id.clone(), expected);
        let path = format!("/containers/{id}/start");
        let Some(started) = self.call(engine, "POST", &path, None) else {
            return false;
        };
        if started.status == 204 {
            self.with(&id, |expected| expected.started = true);
        }
        true
    }

    fn exec(&self, engine: &Engine, id: &str) -> bool {
        let body = json!({"Cmd": ["echo", "in"], "AttachStdout": true});
        let path = format!("/containers/{id}/exec");
        let Some(created) = self.call(engine, "POST", &path, Some(&body)) else {
            return false;
        };
        let Some(exec) = created
            .json()
            .ok()
            .and_then(|body| body["Id"].as_str().map(str::to_owned))
        else {
            return true;
        };
        let path = format!("/exec/{exec}/start");
        self.call(engine, "POST", &path, Some(&json!({"Detach": false})))
            .is_some()
    }

    fn remove(&self, engine: &Engine, id: &str) -> bool {
        self.with(id, |expected| expected.touched = true);
        let path = format!("/containers/{id}?force=1&v=1");
        let removed = self.call(engine, "DELETE", &path, None);
        if removed.as_ref().is_some_and(|answer| answer.status == 204) {
            self.model.lock().expect("no panic while locked").remove(id);
        }
        removed.is_some()
    }

    fn kill_a_shim(
        &self,
        engine: &Engine,
        random: &mut Random,
        steady: &Steady,
    ) -> Option<(Target, u32)> {
        let shims: Vec<(u32, String)> = engine
            .processes_of_role("shim")
            .into_iter()
            .filter_map(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                let id = line.split(|&byte| byte == 0).nth(2)?;
                let id = String::from_utf8_lossy(id).into_owned();
                (!steady.all().contains(&id.as_str())).then_some((pid, id))
            })
            .collect();
        let (pid, id) = random.choose(&shims)?;
        self.with(id, |expected| expected.shim_killed = true);
        let in_flight = self.in_flight.load(Ordering::SeqCst);
        kill_process_now(*pid).then_some((Target::Shim, in_flight))
    }

    /// Compares every container of the model with what the API says now, and forgets those that nothing more is known of.
    fn verify(&self, engine: &Engine, stories: &mut Stories) -> Vec<String> {
        let mut problems = Vec::new();
        let mut model = self.model.lock().expect("no panic while locked");
        for (id, expected) in model.iter_mut() {
            problems.extend(expected.verify(engine, id, stories));
        }
        let mut oldest: Vec<(u32, String)> = model
            .iter()
            .map(|(id, expected)| (expected.number, id.clone()))
            .collect();
        oldest.sort_unstable();
        oldest.truncate(oldest.len().saturating_sub(KEPT_MAX));
        let disturbed = model
            .iter()
            .filter(|(_, expected)| expected.touched || expected.shim_killed);
        let mut forgotten: Vec<String> = disturbed.map(|(id, _)| id.clone()).collect();
        forgotten.extend(oldest.into_iter().map(|(_, id)| id));
        for id in forgotten {
            if model.remove(&id).is_some() {
                let path = format!("/containers/{id}?force=1&v=1");
                let status = engine.api("DELETE", &path, None).status;
                if !matches!(status, 204 | 404) {
                    problems.push(format!("the removal of {id} gave {status}"));
                }
            }
        }
        problems
    }
}

impl Expected {
    fn verify(&mut self, engine: &Engine, id: &str, stories: &mut Stories) -> Vec<String> {
        if self.touched {
            return Vec::new();
        }
        let Some(now) = inspect(engine, id) else {
            return vec![format!("{id} was acknowledged and is lost")];
        };
        if !self.started {
            return Vec::new();
        }
        let look = || inspect(engine, id).unwrap_or_default();
        let mut problems = Vec::new();
        match (self.code, self.shim_killed) {
            (None, false) => {
                let pid = now["State"]["Pid"].as_i64();
                if now["State"]["Running"] != true {
                    problems.push(format!(
                        "{id} was started and does not run: {}",
                        now["State"]
                    ));
                } else if self.pid.is_some() && self.pid != pid {
                    problems.push(format!("{id} has process {pid:?}, had {:?}", self.pid));
                }
                self.pid = pid;
            }
            (None, true) => {
                let is_right = |now: &Value| {
                    if self.policy {
                        now["State"]["Running"] == true && now["RestartCount"] == 1
                    } else {
                        now["State"]["Status"] == "exited" && now["State"]["ExitCode"] == 255
                    }
                };
                if !soon(|| is_right(&look())) {
                    let now = look();
                    problems.push(format!(
                        "{id} lost its shim, policy {}: {} restarts, {}",
                        self.policy, now["RestartCount"], now["State"]
                    ));
                }
                problems.extend(stories.collect(engine));
                if stories.ends(id) != [255] {
                    problems.push(format!("{id}: told ends {:?}, not 255", stories.ends(id)));
                }
            }
            (Some(code), killed) => {
                if !soon(|| look()["State"]["Status"] == "exited") {
                    problems.push(format!("{id} does not end: {}", look()["State"]));
                }
                let ended = look()["State"]["ExitCode"].as_i64();
                // A shim that is killed late has written the true code already.
                if ended != Some(code) && !(killed && ended == Some(255)) {
                    problems.push(format!("{id} ended with {code}, the engine says {ended:?}"));
                }
                problems.extend(stories.collect(engine));
                if stories.ends(id) != Vec::from_iter(ended) {
                    let told = stories.ends(id);
                    problems.push(format!("{id} ended with {ended:?}, told {told:?}"));
                }
                let lines = log(engine, id).len();
                if !killed && lines != LINES {
                    problems.push(format!("{id} wrote {LINES} lines, its log has {lines}"));
                }
            }
        }
        problems
    }
}

/// The lines of a container's standard output.
fn log(engine: &Engine, id: &str) -> Vec<String> {
    let response = engine.api("GET", &format!("/containers/{id}/logs?stdout=1"), None);
    let mut lines = Vec::new();
    let mut raw = response.body.as_slice();
    while raw.len() >= 8 {
        let size = u32::from_be_bytes([raw[4], raw[5], raw[6], raw[7]]) as usize;
        lines.push(String::from_utf8_lossy(&raw[8..8 + size]).into_owned());
        raw = &raw[8 + size..];
    }
    lines
}

/// The counter's log has every line from 1 to the last, which it names itself.
fn check_log(engine: &Engine, id: &str) {
    let stopped = engine.api("POST", &format!("/containers/{id}/stop"), None);
    assert_eq!(stopped.status, 204, "{}", stopped.text());
    let mut lines = log(engine, id);
    let last = lines.pop().expect("a line");
    assert_eq!(last, format!("last {}\n", lines.len()));
    for (index, line) in lines.iter().enumerate() {
        let expected = format!("line {}\n", index + 1);
        assert_eq!(*line, expected, "the log lacks or repeats a line");
    }
    println!("  {} lines of the log, none is missing", lines.len());
}
