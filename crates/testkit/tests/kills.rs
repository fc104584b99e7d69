//! Kills the daemon at random moments of pulls, pushes, loads, removals and collections, and has a script that knows
//! nothing of the engine look at what is left.
//!
//! `GANTRY_CRASH_KILLS` (default 12): how many. `GANTRY_CRASH_SEED`: the first seed; it is printed.

mod layers;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_testkit::engine::{Engine, ORACLE_SOCKET, images_directory};
use gantry_testkit::http;
use gantry_testkit::registry::Registry;
use layers::{assert_sound, layer, pull_path};
use rustix::process::Signal;

const MIB: usize = 1 << 20;
const WORKERS: usize = 3;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What was acknowledged of a worker's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Present,
    Absent,
    /// The daemon died over the last operation.
    Open,
}

struct Worker {
    /// The name that it pulls and removes.
    name: String,
    /// The repository that it pushes to.
    target: String,
    image: Known,
    pushed: BTreeSet<String>,
    operations: u32,
    random: Random,
}

impl Worker {
    fn one(&mut self, engine: &Engine) {
        self.operations += 1;
        match self.random.below(8) {
            0..=2 => self.pull(engine),
            3 => self.push(engine),
            4 | 5 => self.remove(engine),
            6 => {
                let archive = std::fs::read(images_directory().join("busybox.tar"));
                let archive = archive.expect("an archive");
                let body = Some(("application/x-tar", archive.as_slice()));
                let _ = http::unix(&engine.socket, "POST", "/images/load?quiet=1", body);
            }
            _ => {
                let _ = engine.try_api("POST", "/images/gc", None);
                let _ = engine.try_api("POST", "/images/prune", None);
            }
        }
    }

    fn pull(&mut self, engine: &Engine) {
        let before = std::mem::replace(&mut self.image, Known::Open);
        let answer = engine.try_api("POST", &pull_path(&self.name), None);
        let Some(answer) = answer else { return };
        if answer.text().contains("Status: ") {
            self.image = Known::Present;
        } else if !answer.text().contains("error") && before == Known::Present {
            self.image = Known::Open;
        }
    }

    fn push(&mut self, engine: &Engine) {
        if self.image != Known::Present {
            return;
        }
        let tag = format!("t{}", self.operations);
        let path = format!("/images/{}/tag?repo={}&tag={tag}", self.name, self.target);
        match engine.try_api("POST", &path, None) {
            Some(answer) if answer.status == 201 => {}
            _ => return,
        }
        let path = format!("/images/{}/push?tag={tag}", self.target);
        let answer = engine.try_api("POST", &path, None);
        if answer.is_some_and(|answer| answer.text().contains("digest: sha256:")) {
            self.pushed.insert(tag.clone());
        }
        let path = format!("/images/{}:{tag}", self.target);
        let _ = engine.try_api("DELETE", &path, None);
    }

    fn remove(&mut self, engine: &Engine) {
        self.image = Known::Open;
        let path = format!("/images/{}?force=1", self.name);
        if let Some(answer) = engine.try_api("DELETE", &path, None)
            && matches!(answer.status, 200 | 404)
        {
            self.image = Known::Absent;
        }
    }
}

#[test]
fn what_was_acknowledged_is_there_and_whole_after_every_kill() {
    if std::env::var_os(ORACLE_SOCKET).is_some() {
        println!("skipped: the reference engine is not ours to kill");
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let kills: u64 = number("GANTRY_CRASH_KILLS").unwrap_or(12);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = number("GANTRY_CRASH_SEED")
        .unwrap_or_else(|| u64::try_from(clock.expect("a clock").as_millis()).expect("small"));
    println!("seed {seed}");
    let engine = Engine::private_empty(&[]);
    let registry = engine.on_host(Registry::start);
    let base = layer(1, MIB);
    let mut workers: Vec<Worker> = (0..WORKERS)
        .map(|number| {
            let own = layer(number as u64 + 10, 3 * MIB);
            registry.push_image(&format!("w{number}"), "1", &[&base, &own]);
            Worker {
                name: format!("{}/w{number}:1", registry.host()),
                target: format!("{}/p{number}", registry.host()),
                image: Known::Absent,
                pushed: BTreeSet::new(),
                operations: 0,
                random: Random(seed.wrapping_mul(31).wrapping_add(number as u64) | 1),
            }
        })
        .collect();
    let mut random = Random(seed | 1);
    engine.start_daemon(&[]);
    for kill in 0..kills {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for worker in &mut workers {
                let (engine, stop) = (&engine, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Acquire) {
                        worker.one(engine);
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(random.below(700)));
            stop.store(true, Ordering::Release);
            engine.end_daemon(Signal::KILL);
        });
        engine.start_daemon(&[]);
        assert_whole(&engine, &format!("seed {seed}, kill {kill}"));
        for (number, worker) in workers.iter_mut().enumerate() {
            let path = format!("/images/{}/json", worker.name);
            let found = engine.api("GET", &path, None).status;
            let expected = match worker.image {
                Known::Present => 200,
                Known::Absent => 404,
                Known::Open => found,
            };
            assert_eq!(found, expected, "seed {seed}, kill {kill}, {}", worker.name);
            worker.image = if found == 200 {
                Known::Present
            } else {
                Known::Absent
            };
            for tag in &worker.pushed {
                let manifest = registry.manifest(&format!("p{number}"), tag);
                assert!(manifest.is_some(), "seed {seed}, kill {kill}, {tag}");
            }
        }
    }
    let operations: u32 = workers.iter().map(|worker| worker.operations).sum();
    println!("{kills} kills over {operations} operations");
}

/// Has the script and the engine itself look at the store.
fn assert_whole(engine: &Engine, when: &str) {
    assert_sound(engine);
    let list = engine.api("GET", "/images/json?all=1", None);
    let list = list.json().expect("a list");
    let names: Vec<String> = list
        .as_array()
        .expect("a list")
        .iter()
        .map(|image| format!("names={}", image["Id"].as_str().expect("an id")))
        .collect();
    let saved = tempfile::NamedTempFile::new().expect("a file");
    if !names.is_empty() {
        let path = format!("/images/get?{}", names.join("&"));
        let archive = engine.api("GET", &path, None);
        assert_eq!(archive.status, 200, "{when}: {}", archive.text());
        std::fs::write(saved.path(), &archive.body).expect("write the save");
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/store.py");
    let checked = Command::new("python3")
        .arg(script)
        .arg(engine.places().data_root)
        .arg(saved.path())
        .output()
        .expect("start python3");
    let faults = String::from_utf8_lossy(&checked.stdout);
    let errors = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{when}: {faults}{errors}");
}
