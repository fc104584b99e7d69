//! The daemon is killed at every named step of its verbs, once before and once after.

use std::time::{Duration, Instant};

use gantry_testkit::engine::{Engine, images_directory};
use gantry_testkit::http;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{APP, BUSYBOX, inconsistencies, inspect, leaks};

/// The verbs whose steps must be named.
const VERBS: &[&str] = &[
    "create",
    "start",
    "exec",
    "stop",
    "rm",
    "load",
    "exit",
    "network",
    "connect",
    "disconnect",
];

/// Networks that the containers are on.
const NETWORKS: &[&str] = &["points-one", "points-two"];

/// The names in the engine's own table, read from its source so that none is listed twice.
fn names() -> Vec<&'static str> {
    let source = include_str!("../../../engine/src/failpoint.rs");
    let table = source
        .split_once("NAMES: &[&str] = &[")
        .and_then(|(_, rest)| rest.split_once("];"))
        .expect("the table of names")
        .0;
    table.split('"').skip(1).step_by(2).collect()
}

pub fn fail_points(engine: &Engine) {
    let names = names();
    for verb in VERBS {
        assert!(
            names
                .iter()
                .any(|name| name.split('.').next() == Some(verb)),
            "no step of {verb} is named"
        );
    }
    let archive = std::fs::read(images_directory().join("web.tar")).expect("an archive");
    let (mut problems, mut kills) = (Vec::new(), 0);
    for name in names {
        for side in ["before", "after"] {
            let point = format!("{name}:{side}");
            if std::env::var("GANTRY_CRASH_POINT").is_ok_and(|wanted| !point.contains(&wanted)) {
                continue;
            }
            let (begin, known) = (Instant::now(), problems.len());
            let mut note = |problem: String| problems.push(format!("{point}: {problem}"));
            engine.end_daemon(Signal::TERM);
            engine.start_daemon(&[("GANTRY_FAILPOINT", point.as_str())]);
            let acknowledged = every_operation(engine, &archive);
            if gone_within(engine, Duration::from_secs(5)) {
                kills += 1;
            } else {
                note("never reached".to_owned());
            }
            engine.end_daemon(Signal::KILL);
            engine.start_daemon(&[]);
            inconsistencies(engine).into_iter().for_each(&mut note);
            acknowledged.lost(engine).into_iter().for_each(&mut note);
            engine.remove_all_containers();
            for network in NETWORKS {
                engine.try_api("DELETE", &format!("/networks/{network}"), None);
            }
            leaks(engine)
                .into_iter()
                .for_each(|leak| note(format!("leak: {leak}")));
            println!("  {point} ({:.1} s)", begin.elapsed().as_secs_f32());
            problems[known..]
                .iter()
                .for_each(|problem| println!("    {problem}"));
        }
    }
    println!("  {kills} kills at fail points");
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

/// What the daemon acknowledged before it died.
#[derive(Default)]
struct Acknowledged {
    /// Containers that were created, and whether their start, their end with this code and their removal were told.
    created: Vec<&'static str>,
    started: Vec<&'static str>,
    ended: Option<i64>,
    stopped: bool,
    /// A removal was asked for, so that nothing is known any more, or told.
    removal_asked: Vec<&'static str>,
    removed: Vec<&'static str>,
    /// Networks that were made and of which no removal was asked.
    networks: Vec<&'static str>,
    /// Whether `named` is on the second network, once it was told so.
    connected: Option<bool>,
}

impl Acknowledged {
    /// What of it is not so any more.
    fn lost(&self, engine: &Engine) -> Vec<String> {
        let mut lost = Vec::new();
        for name in &self.networks {
            let path = format!("/networks/{name}");
            if engine
                .try_api("GET", &path, None)
                .is_none_or(|answer| answer.status != 200)
            {
                lost.push(format!("network {name} was created and is lost"));
            }
        }
        if let (Some(connected), Some(now)) = (self.connected, inspect(engine, "named"))
            && now["NetworkSettings"]["Networks"]
                .get(NETWORKS[1])
                .is_some()
                != connected
        {
            lost.push(format!("named is to be on the second network: {connected}"));
        }
        for name in &self.created {
            let now = inspect(engine, name);
            let asked = self.removal_asked.contains(name);
            match &now {
                None if !asked => lost.push(format!("{name} was created and is lost")),
                Some(_) if self.removed.contains(name) => {
                    lost.push(format!("{name} was removed and is there"));
                }
                _ => {}
            }
            let Some(now) = now else { continue };
            let status = now["State"]["Status"].as_str().unwrap_or_default();
            if self.started.contains(name) && status == "created" {
                lost.push(format!("{name} was started and is {status}"));
            }
            if *name == "short"
                && self
                    .ended
                    .is_some_and(|code| now["State"]["ExitCode"] != code)
            {
                lost.push(format!("{name} ended otherwise: {}", now["State"]));
            }
            if *name == "long" && self.stopped && status != "exited" {
                lost.push(format!("{name} was stopped and is {status}"));
            }
        }
        lost
    }
}

/// Goes through every verb that has a fail point; the daemon dies at one of them, so answers need not come.
fn every_operation(engine: &Engine, archive: &[u8]) -> Acknowledged {
    let call = |method: &str, path: &str, body: Option<&Value>| {
        let begin = Instant::now();
        let response = engine.try_api(method, path, body);
        if begin.elapsed() > Duration::from_secs(8) {
            println!(
                "  {method} {path} took {:?} and gave {:?}",
                begin.elapsed(),
                response.as_ref().map(|response| response.status)
            );
        }
        response
    };
    let told = |method: &str, path: &str, body: Option<&Value>| {
        call(method, path, body).is_some_and(|response| (200..300).contains(&response.status))
    };
    let mut done = Acknowledged::default();
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
    let mut create_and_start = |name: &'static str, body: &Value| {
        let path = format!("/containers/create?name={name}");
        if told("POST", &path, Some(body)) {
            done.created.push(name);
        }
        if told("POST", &format!("/containers/{name}/start"), None) {
            done.started.push(name);
        }
    };
    create_and_start("long", &long);
    let exec = json!({"Cmd": ["true"], "AttachStdout": true});
    if let Some(created) = call("POST", "/containers/long/exec", Some(&exec))
        && let Some(id) = created
            .json()
            .ok()
            .and_then(|body| body["Id"].as_str().map(str::to_owned))
    {
        let path = format!("/exec/{id}/start");
        call("POST", &path, Some(&json!({"Detach": false})));
    }
    create_and_start("short", &short);
    done.ended = call("POST", "/containers/short/wait", None)
        .and_then(|answer| answer.json().ok()?["StatusCode"].as_i64());
    through_networks(&mut done, &told);
    done.stopped = told("POST", "/containers/long/stop?t=0", None);
    for name in ["short", "named", "long"] {
        done.removal_asked.push(name);
        if told("DELETE", &format!("/containers/{name}?force=1&v=1"), None) {
            done.removed.push(name);
        }
    }
    for name in NETWORKS {
        done.networks.retain(|network| network != name);
        told("DELETE", &format!("/networks/{name}"), None);
    }
    call("DELETE", "/volumes/points?force=1", None);
    call("DELETE", "/volumes/memory?force=1", None);
    done
}

/// A container on a network of its own joins another one and leaves it.
fn through_networks(done: &mut Acknowledged, told: &dyn Fn(&str, &str, Option<&Value>) -> bool) {
    for name in NETWORKS {
        if told("POST", "/networks/create", Some(&json!({"Name": name}))) {
            done.networks.push(name);
        }
    }
    let named = json!({"Image": BUSYBOX, "Cmd": ["sleep", "1000"], "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {"NetworkMode": NETWORKS[0], "PortBindings": {"80/tcp": [{"HostPort": "18081"}]}}});
    if told("POST", "/containers/create?name=named", Some(&named)) {
        done.created.push("named");
    }
    if told("POST", "/containers/named/start", None) {
        done.started.push("named");
    }
    // The second one is the gateway: the port moves there and back.
    let connect = json!({"Container": "named", "EndpointConfig": {"GwPriority": 1}});
    let disconnect = json!({"Container": "named"});
    for (verb, body, connected) in [
        ("connect", connect, true),
        ("disconnect", disconnect, false),
    ] {
        let path = format!("/networks/{}/{verb}", NETWORKS[1]);
        // What was asked for and not acknowledged may be either way.
        done.connected = None;
        if told("POST", &path, Some(&body)) {
            done.connected = Some(connected);
        }
    }
}
