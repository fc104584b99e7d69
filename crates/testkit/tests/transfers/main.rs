//! Kills the daemon at random moments while images come and go, and looks at every byte afterwards.
//!
//! Four clients pull, push, load, tag and remove, a fifth collects garbage. After each kill and restart: `store-check`, a
//! program that shares no code with the engine, hashes every blob and rebuilds every layer; the engine's own check
//! agrees; what was acknowledged is there, at the engine and at the registry; what was refused or unanswered is whole or
//! not there.
//!
//! - `GANTRY_TRANSFER_KILLS` (default 8): how many kills. `GANTRY_TRANSFER_SEED`: the seed; it is printed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gantry_testkit::engine::{Engine, ORACLE_SOCKET};
use gantry_testkit::http;
use gantry_testkit::peer::DockerRegistry;
use gantry_testkit::random::{Random, number, seed};
use rustix::process::Signal;
use tempfile::TempDir;

const HOST: &str = "127.0.0.1:5000";
const PORT: u16 = 5000;
const IMAGES: usize = 4;

#[test]
fn kills_during_transfers_lose_nothing() {
    if std::env::var_os(ORACLE_SOCKET).is_some() {
        println!("skipped: the reference engine is not ours to kill");
        return;
    }
    let (kills, seed) = (
        number("GANTRY_TRANSFER_KILLS", 8),
        seed("GANTRY_TRANSFER_SEED"),
    );
    println!("GANTRY_TRANSFER_SEED={seed}, {kills} kills");
    let mut random = Random::new(seed);
    let engine = Engine::private_empty(&[]);
    engine.start_daemon(&[]);
    let _registry = DockerRegistry::start(&engine, PORT, false);
    let archives = archives();
    for (image, archive) in archives.iter().enumerate() {
        assert_eq!(load(&engine, archive), Answer::Done);
        assert_eq!(push(&engine, image, "1"), Answer::Done);
    }
    let mut present = [true; IMAGES];
    let done = AtomicU64::new(0);
    let (mut in_flight, mut pushes) = (0, Vec::new());
    for kill in 0..kills {
        let begin = Instant::now();
        let stop = AtomicBool::new(false);
        let seeds: Vec<u64> = (0..=IMAGES).map(|_| random.below(u64::MAX)).collect();
        let delay = Duration::from_micros(random.below(1_500_000));
        let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
            let (engine, stop, done, archives) = (&engine, &stop, &done, &archives);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = engine.try_api("POST", "/images/gc", None);
                    let _ = engine.try_api("POST", "/images/prune", None);
                    std::thread::sleep(Duration::from_millis(7));
                }
            });
            let workers: Vec<_> = (0..IMAGES)
                .map(|image| {
                    let (mut random, here) = (Random::new(seeds[image]), present[image]);
                    scope.spawn(move || {
                        let mut outcome = Outcome::new(here);
                        while !stop.load(Ordering::Relaxed) && outcome.open.is_none() {
                            outcome.step(engine, image, &archives[image], &mut random, kill, done);
                        }
                        outcome
                    })
                })
                .collect();
            std::thread::sleep(delay);
            engine.end_daemon(Signal::KILL);
            stop.store(true, Ordering::Relaxed);
            workers
                .into_iter()
                .map(|worker| worker.join().expect("a worker"))
                .collect()
        });
        in_flight += u64::from(outcomes.iter().any(|outcome| outcome.open.is_some()));
        engine.start_daemon(&[]);
        let mut problems = Vec::new();
        for (image, outcome) in outcomes.into_iter().enumerate() {
            let here = is_here(&engine, image);
            match outcome.open {
                None if here != outcome.present => problems.push(format!(
                    "image {image} was acknowledged as {} and is not so: {:?}",
                    if outcome.present { "there" } else { "removed" },
                    outcome.story
                )),
                _ => {}
            }
            present[image] = here;
            pushes.extend(outcome.pushed);
        }
        problems.extend(store_check(&engine));
        problems.extend(own_check(&engine));
        problems.extend(lacks(&engine, &pushes));
        assert!(
            problems.is_empty(),
            "seed {seed}, kill {kill} after {delay:?}:\n{}\nthe daemon's log ends:\n{}",
            problems.join("\n"),
            engine.daemon_log_tail()
        );
        if kills > 50 {
            println!("  {kill} ({:.1} s)", begin.elapsed().as_secs_f32());
        }
    }
    println!(
        "  {kills} kills, {in_flight} with a transfer in flight; {} transfers acknowledged, {} of them pushes",
        done.load(Ordering::Relaxed),
        pushes.len()
    );
    assert!(
        in_flight * 2 >= kills,
        "only {in_flight} of {kills} kills had a transfer in flight"
    );
    // Nothing is left that would stop any of it.
    for image in 0..IMAGES {
        remove(&engine, image);
        assert_eq!(pull(&engine, image), Answer::Done, "image {image}");
    }
    assert_eq!(store_check(&engine), Vec::<String>::new());
}

/// What one client did with one image until the kill.
struct Outcome {
    /// As acknowledged last.
    present: bool,
    /// The operation that had no answer.
    open: Option<&'static str>,
    story: Vec<&'static str>,
    /// Tags of `crash/N` that were acknowledged by the engine.
    pushed: Vec<(usize, String)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done,
    /// No answer, or one that broke off.
    Open,
}

impl Outcome {
    fn new(present: bool) -> Self {
        Self {
            present,
            open: None,
            story: Vec::new(),
            pushed: Vec::new(),
        }
    }

    fn step(
        &mut self,
        engine: &Engine,
        image: usize,
        archive: &[u8],
        random: &mut Random,
        kill: u64,
        done: &AtomicU64,
    ) {
        let tag = format!("k{kill}-{}", self.story.len());
        let (name, answer) = match (self.present, random.below(3)) {
            (true, 0) => ("remove", remove(engine, image)),
            (true, 1) => ("push", {
                let path = format!(
                    "/images/{HOST}/crash/{image}:1/tag?repo={HOST}/crash/{image}&tag={tag}"
                );
                match engine.try_api("POST", &path, None) {
                    Some(_) => {
                        let answer = push(engine, image, &tag);
                        if answer == Answer::Done {
                            self.pushed.push((image, tag.clone()));
                            let _ = engine.try_api(
                                "DELETE",
                                &format!("/images/{HOST}/crash/{image}:{tag}"),
                                None,
                            );
                        }
                        answer
                    }
                    None => Answer::Open,
                }
            }),
            (true, _) => ("load again", load(engine, archive)),
            (false, 0) => ("load", load(engine, archive)),
            (false, _) => ("pull", pull(engine, image)),
        };
        self.story.push(name);
        match answer {
            Answer::Done => {
                done.fetch_add(1, Ordering::Relaxed);
                self.present = name != "remove";
            }
            Answer::Open => self.open = Some(name),
        }
    }
}

/// Reads a progress stream: done with `mark`, open if it breaks off. An error is a failure of the test: nothing but the kill
/// disturbs the engine.
fn stream(engine: &Engine, path: &str, body: Option<&[u8]>, mark: &str) -> Answer {
    let body = body.map(|bytes| ("application/x-tar", bytes));
    let Ok(response) = http::unix(&engine.socket, "POST", path, body) else {
        return Answer::Open;
    };
    let text = response.text();
    assert!(
        response.status == 200 && !text.contains("\"error\""),
        "{path}: {} {text}",
        response.status
    );
    if text.contains(mark) {
        Answer::Done
    } else {
        Answer::Open
    }
}

fn load(engine: &Engine, archive: &[u8]) -> Answer {
    stream(
        engine,
        "/images/load?quiet=1",
        Some(archive),
        "Loaded image",
    )
}

fn pull(engine: &Engine, image: usize) -> Answer {
    let path = format!("/images/create?fromImage={HOST}/crash/{image}&tag=1");
    stream(engine, &path, None, "\"status\":\"Status: ")
}

fn push(engine: &Engine, image: usize, tag: &str) -> Answer {
    let path = format!("/images/{HOST}/crash/{image}/push?tag={tag}");
    stream(engine, &path, None, "\"aux\"")
}

fn remove(engine: &Engine, image: usize) -> Answer {
    // Tags of pushes that were cut off may still name it.
    let Some(inspected) =
        engine.try_api("GET", &format!("/images/{HOST}/crash/{image}:1/json"), None)
    else {
        return Answer::Open;
    };
    if inspected.status == 404 {
        return Answer::Done;
    }
    let id = inspected.json().expect("JSON")["Id"]
        .as_str()
        .expect("an id")
        .to_owned();
    match engine.try_api("DELETE", &format!("/images/{id}?force=1"), None) {
        Some(response) => {
            assert_eq!(response.status, 200, "{}", response.text());
            Answer::Done
        }
        None => Answer::Open,
    }
}

fn is_here(engine: &Engine, image: usize) -> bool {
    let path = format!("/images/{HOST}/crash/{image}:1/json");
    engine.api("GET", &path, None).status == 200
}

/// What the independent program finds.
fn store_check(engine: &Engine) -> Vec<String> {
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/store-check");
    let output = Command::new(program)
        .arg(engine.places().data_root)
        .arg(&engine.socket)
        .output()
        .expect("start store-check");
    if output.status.success() {
        return Vec::new();
    }
    let texts = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&texts)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// What the engine itself finds.
fn own_check(engine: &Engine) -> Vec<String> {
    let response = engine.api("POST", "/system/check", None);
    let report = response
        .json()
        .unwrap_or_else(|error| panic!("{error:#}: {}", response.text()));
    let problems = report["Problems"].as_array().cloned().unwrap_or_default();
    assert!(report["Blobs"].as_u64().is_some(), "{report}");
    problems
        .iter()
        .map(|problem| format!("system check: {problem}"))
        .collect()
}

/// Makes the archives of the images.
fn archives() -> Vec<Vec<u8>> {
    let directory = TempDir::new().expect("a directory");
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transfers/images.py");
    let made = Command::new(program)
        .arg(directory.path())
        .args([HOST, &IMAGES.to_string()])
        .status()
        .expect("start images.py");
    assert!(made.success());
    (0..IMAGES)
        .map(|image| {
            std::fs::read(directory.path().join(format!("{image}.tar"))).expect("an archive")
        })
        .collect()
}

fn get(engine: &Engine, path: &str) -> Option<String> {
    let address: SocketAddr = HOST.parse().expect("an address");
    let response = engine.on_host(|| http::get(address, path)).ok()?;
    (response.status == 200).then(|| response.text())
}

/// The acknowledged pushes whose tag is not there; the registry takes no tag of what it lacks.
fn lacks(engine: &Engine, pushes: &[(usize, String)]) -> Vec<String> {
    let tags: Vec<String> = (0..IMAGES)
        .map(|image| get(engine, &format!("/v2/crash/{image}/tags/list")).expect("a list of tags"))
        .collect();
    pushes
        .iter()
        .filter(|(image, tag)| !tags[*image].contains(&format!("\"{tag}\"")))
        .map(|(image, tag)| format!("crash/{image}:{tag} was pushed and is not at the registry"))
        .collect()
}
