//! Pulls that are cut off: by the end of the daemon, by the user, by a full disk. What came is not fetched again.
//!
//! Only for Gantry: the reference engine's daemon is not ours to kill, and it throws away what came.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use gantry_testkit::engine::{Engine, ORACLE_SOCKET};
use gantry_testkit::registry::{Fault, Image, Registry, Times};
use gantry_testkit::wait::eventually;
use rustix::process::Signal;

const MIB: usize = 1 << 20;

fn is_reference() -> bool {
    let reference = std::env::var_os(ORACLE_SOCKET).is_some();
    if reference {
        println!("skipped: the reference engine is not ours to break");
    }
    reference
}

/// An archive with one file of bytes that do not compress.
fn layer(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    })
    .take(length)
    .collect();
    let directory = tempfile::tempdir().expect("a directory");
    let name = format!("file-{seed}");
    std::fs::write(directory.path().join(&name), bytes).expect("write a file");
    let output = Command::new("tar")
        .args([
            "-c",
            "--format=ustar",
            "--owner=0",
            "--group=0",
            "--mtime=@0",
            "-C",
        ])
        .arg(directory.path())
        .arg(&name)
        .output()
        .expect("start tar");
    assert!(output.status.success());
    output.stdout
}

/// The request that pulls an image.
fn pull_path(name: &str) -> String {
    let (name, tag) = name.rsplit_once(':').expect("a tag");
    format!("/images/create?fromImage={name}&tag={tag}")
}

/// Asks the daemon to check its own store.
#[track_caller]
fn assert_sound(engine: &Engine) {
    let checked = engine.api("POST", "/system/check", None);
    assert_eq!(checked.status, 200, "{}", checked.text());
    let report = checked.json().expect("JSON");
    let problems = report
        .as_object()
        .and_then(|report| {
            report
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case("problems"))
        })
        .map(|(_, problems)| problems.clone());
    let problems = problems.unwrap_or_else(|| panic!("{}", checked.text()));
    assert!(
        problems.is_null() || problems.as_array().is_some_and(Vec::is_empty),
        "{problems}"
    );
}

fn pull(engine: &Engine, name: &str) -> String {
    engine.api("POST", &pull_path(name), None).text()
}

fn sent(registry: &Registry, digest: &str) -> usize {
    let requests = registry.requests_of("GET", digest);
    requests.iter().map(|request| request.sent).sum()
}

fn partial(engine: &Engine, digest: &str) -> PathBuf {
    let partials = engine.places().data_root.join("content/partial");
    partials.join(digest.replace(':', "-"))
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// A registry in the engine's network with an image of a small layer and one that stalls once at its middle.
fn stalling(engine: &Engine) -> (Registry, Image, String) {
    let registry = engine.on_host(Registry::start);
    let image = registry.push_image("a", "1", &[&layer(1, MIB), &layer(2, 8 * MIB)]);
    registry.misbehave(
        "GET",
        &image.layers[1],
        Times::First(1),
        Fault::StallAfter(5 * MIB),
    );
    let name = format!("{}/a:1", registry.host());
    (registry, image, name)
}

/// Pulls again and sees that only what was missing came.
#[track_caller]
fn goes_on(engine: &Engine, registry: &Registry, image: &Image, name: &str) {
    let came = length(&partial(engine, &image.layers[1]));
    assert!(came > 4 * MIB as u64, "{came} bytes came");
    registry.behave();
    registry.forget_requests();
    let answer = pull(engine, name);
    assert!(
        answer.contains("Status: Downloaded newer image"),
        "{answer}"
    );
    assert_eq!(sent(registry, &image.layers[0]), 0, "{answer}");
    let size = registry.blob(&image.layers[1]).expect("a layer").len();
    assert_eq!(sent(registry, &image.layers[1]), size - came as usize);
    assert!(!partial(engine, &image.layers[1]).exists());
    assert_sound(engine);
}

#[test]
fn a_pull_goes_on_after_the_daemon_was_killed() {
    if is_reference() {
        return;
    }
    let engine = Engine::private_empty(&[]);
    engine.start_daemon(&[]);
    let (registry, image, name) = stalling(&engine);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Its connection ends with the daemon.
            engine.try_api("POST", &pull_path(&name), None)
        });
        eventually("the layer has come to its middle", || {
            length(&partial(&engine, &image.layers[1])) > 4 * MIB as u64
        });
        // The small one has come long before.
        eventually("the small layer is there", || {
            !partial(&engine, &image.layers[0]).exists()
        });
        engine.end_daemon(Signal::KILL);
    });
    engine.start_daemon(&[]);
    assert_sound(&engine);
    goes_on(&engine, &registry, &image, &name);
}

#[test]
fn a_user_who_stops_a_pull_pays_for_the_rest_alone() {
    if is_reference() {
        return;
    }
    let engine = Engine::private_empty(&[]);
    engine.start_daemon(&[]);
    let (registry, image, name) = stalling(&engine);
    let docker = std::env::var("GANTRY_DOCKER").unwrap_or_else(|_| "docker".to_owned());
    let mut client = Command::new(docker)
        .arg("-H")
        .arg(format!("unix://{}", engine.socket.display()))
        .args(["pull", &name])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start docker");
    eventually("the layer has come to its middle", || {
        length(&partial(&engine, &image.layers[1])) > 4 * MIB as u64
    });
    eventually("the small layer is there", || {
        !partial(&engine, &image.layers[0]).exists()
    });
    let pid = rustix::process::Pid::from_child(&client);
    rustix::process::kill_process(pid, Signal::INT).expect("stop docker");
    client.wait().expect("docker ends");
    std::thread::sleep(Duration::from_millis(500));
    goes_on(&engine, &registry, &image, &name);
}

#[test]
fn a_full_disk_fails_the_pull_and_gets_back_what_it_gave() {
    if is_reference() {
        return;
    }
    let engine = Engine::private_empty(&[]);
    let data = engine.places().data_root.display().to_string();
    let on_host = |script: &str| {
        let words = engine.host_words();
        let status = Command::new(&words[0])
            .args(&words[1..])
            .args(["sh", "-ec", script])
            .status()
            .expect("start nsenter");
        assert!(status.success(), "`{script}` failed");
    };
    on_host(&format!(
        "mkdir {data}; mount -t tmpfs -o size=48m data {data}"
    ));
    engine.start_daemon(&[]);
    let registry = engine.on_host(Registry::start);
    // One layer that is here, one that is on its way, and one that does not fit.
    let layers = [layer(1, 4 * MIB), layer(2, 8 * MIB), layer(3, 64 * MIB)];
    let image = registry.push_image("a", "1", &layers.each_ref().map(Vec::as_slice));
    registry.misbehave(
        "GET",
        &image.layers[1],
        Times::First(1),
        Fault::StallAfter(5 * MIB),
    );
    let name = format!("{}/a:1", registry.host());
    let answer = pull(&engine, &name);
    assert!(answer.contains("no space left on device"), "{answer}");
    assert_sound(&engine);
    eventually("the disk is empty again", || {
        let usage = engine.api("GET", "/system/df", None);
        let usage = usage.json().expect("JSON")["LayersSize"].as_u64();
        usage.is_some_and(|bytes| bytes < 3 * MIB as u64)
    });
    on_host(&format!("mount -o remount,size=400m {data}"));
    let answer = pull(&engine, &name);
    assert!(
        answer.contains("Status: Downloaded newer image"),
        "{answer}"
    );
    assert_sound(&engine);
}

#[test]
fn what_a_mirror_gives_wrong_comes_from_the_next_host() {
    if is_reference() {
        return;
    }
    let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let file = directory.path().join("daemon.json");
    let engine = Engine::private_empty(&["--config-file", &file.display().to_string()]);
    let [lying, honest] = [(); 2].map(|()| engine.on_host(Registry::start));
    // One layer that is in flight as a whole, and one with a partial.
    let layers = [layer(1, 1000), layer(2, 8 * MIB)];
    for registry in [&lying, &honest] {
        registry.push_image("library/mirrored", "1", &[&layers[0], &layers[1]]);
    }
    lying.misbehave("GET", "/blobs/", Times::Always, Fault::WrongBytes);
    let config = serde_json::json!({"registry-mirrors": [lying.url(), honest.url()]});
    std::fs::write(&file, config.to_string()).expect("write the configuration");
    engine.start_daemon(&[]);
    for _ in 0..2 {
        let answer = pull(&engine, "mirrored:1");
        assert!(
            answer.contains("Status: Downloaded newer image"),
            "{answer}"
        );
        assert_sound(&engine);
        let removed = engine.api("DELETE", "/images/mirrored:1", None);
        assert_eq!(removed.status, 200, "{}", removed.text());
    }
    // A configuration and two layers, and not again.
    assert_eq!(lying.requests_of("GET", "/blobs/").len(), 3);
}
