//! What the daemon is told of registries, what it does with what came from them, and what only Gantry's client can ask.
//!
//! Only for Gantry: the reference engine's daemon is not ours to configure.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gantry_testkit::engine::{Engine, ORACLE_SOCKET, images_directory};
use gantry_testkit::http;
use gantry_testkit::peer::DockerRegistry;
use gantry_testkit::session::{Client, Session};
use gantry_testkit::wait::{eventually, eventually_within};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The port of registries, which is free in a namespace of one's own.
const PORT: u16 = 5000;
const SOON: Duration = Duration::from_secs(20);

fn is_reference() -> bool {
    let reference = std::env::var_os(ORACLE_SOCKET).is_some();
    if reference {
        println!("skipped: the reference engine is not ours to configure");
    }
    reference
}

fn directory() -> TempDir {
    tempfile::tempdir_in("/var/tmp").expect("make a directory")
}

/// Starts an engine by a configuration file, with one image.
fn configured(file: &Path, config: &Value, environment: &[(&str, &str)]) -> Engine {
    std::fs::write(file, config.to_string()).expect("write the configuration");
    let path = file.display().to_string();
    let engine = Engine::private_empty(&["--config-file", &path]);
    engine.start_daemon(environment);
    load(&engine, "busybox.tar");
    engine
}

fn load(engine: &Engine, image: &str) {
    let archive = std::fs::read(images_directory().join(image)).expect("an archive");
    let body = Some(("application/x-tar", archive.as_slice()));
    let loaded = http::unix(&engine.socket, "POST", "/images/load?quiet=1", body).expect("load");
    assert!(loaded.text().contains("Loaded image"), "{}", loaded.text());
}

fn info(engine: &Engine) -> Value {
    engine.api("GET", "/info", None).json().expect("JSON")
}

fn hang_up(engine: &Engine) {
    let pid = engine.daemon_pid().expect("a daemon").to_string();
    let sent = Command::new("kill").args(["-HUP", &pid]).status();
    assert!(sent.expect("start kill").success());
}

#[test]
fn a_mirror_serves_the_hub_and_is_forgotten_by_a_reload() {
    if is_reference() {
        return;
    }
    let directory = directory();
    let file = directory.path().join("daemon.json");
    let mirror = format!("http://127.0.0.1:{PORT}");
    let engine = configured(
        &file,
        &json!({
            "registry-mirrors": [mirror],
            "insecure-registries": ["r.example:5000", "10.9.0.0/16"],
            "max-concurrent-downloads": 2,
            "max-concurrent-uploads": 1,
            "max-download-attempts": 1,
        }),
        &[],
    );
    let registry = DockerRegistry::start(&engine, PORT, false);
    let s = Session::new(&engine, Client::Docker);
    let copy = format!("{}/library/{}:1", registry.host(), s.x("@i"));
    s.d(&format!("tag @bb {copy}")).ok();
    s.d(&format!("push -q {copy}")).ok();
    s.d(&format!("rmi {copy}")).ok();
    s.d("pull @i:1")
        .shows("1: Pulling from library/@i\n")
        .shows("Status: Downloaded newer image for @i:1\ndocker.io/library/@i:1\n");
    s.d("run --rm @i:1 echo from the mirror")
        .prints("from the mirror\n");
    assert_eq!(
        info(&engine)["RegistryConfig"],
        json!({
            "InsecureRegistryCIDRs": ["10.9.0.0/16", "::1/128", "127.0.0.0/8"],
            "IndexConfigs": {
                "docker.io": {"Name": "docker.io", "Mirrors": [format!("{mirror}/")], "Secure": true, "Official": true},
                "r.example:5000": {"Name": "r.example:5000", "Mirrors": [], "Secure": false, "Official": false},
            },
            "Mirrors": [format!("{mirror}/")],
        })
    );
    // What is wrong in the file leaves everything as it was.
    std::fs::write(&file, json!({"registry-mirrors": ["x"]}).to_string()).expect("write");
    hang_up(&engine);
    eventually_within(SOON, "the daemon complains", || {
        engine
            .daemon_log_tail()
            .contains("invalid mirror: no scheme specified for")
            .then_some(())
    });
    assert_eq!(
        info(&engine)["RegistryConfig"]["Mirrors"],
        json!([format!("{mirror}/")])
    );
    std::fs::write(&file, "{}").expect("write");
    hang_up(&engine);
    eventually_within(SOON, "the mirror is forgotten", || {
        info(&engine)["RegistryConfig"]["Mirrors"]
            .is_null()
            .then_some(())
    });
    assert!(info(&engine)["RegistryConfig"]["IndexConfigs"]["r.example:5000"].is_null());
}

#[test]
fn proxies_are_asked_and_their_passwords_are_not_told() {
    if is_reference() {
        return;
    }
    let directory = directory();
    let file = directory.path().join("daemon.json");
    let engine = configured(
        &file,
        &json!({"proxies": {"http-proxy": "http://user:secret@127.0.0.1:1", "no-proxy": "n.example"}}),
        &[
            ("HTTPS_PROXY", "http://127.0.0.1:2"),
            ("HTTP_PROXY", "http://127.0.0.1:3"),
        ],
    );
    let info = info(&engine);
    assert_eq!(info["HttpProxy"], "http://xxxxx:xxxxx@127.0.0.1:1");
    assert_eq!(info["HttpsProxy"], "http://127.0.0.1:2");
    assert_eq!(info["NoProxy"], "n.example");
    let s = Session::new(&engine, Client::Docker);
    s.d("pull r.example/a:1").exits(1).warns(
        "Error response from daemon: Get \"https://r.example/v2/\": proxyconnect tcp: dial tcp 127.0.0.1:2: connect: connection refused\n",
    );
    s.d("info --format '{{.HTTPProxy}} {{.HTTPSProxy}} {{.NoProxy}}'")
        .prints("http://xxxxx:xxxxx@@127.0.0.1:1 http://127.0.0.1:2 n.example\n");
}

#[test]
fn an_index_is_kept_whole_and_pushed_whole() {
    if is_reference() {
        return;
    }
    let directory = directory();
    let engine = configured(&directory.path().join("daemon.json"), &json!({}), &[]);
    load(&engine, "app.tar");
    let registry = DockerRegistry::start(&engine, PORT, false);
    let other = DockerRegistry::start(&engine, PORT + 1, false);
    let s = Session::new(&engine, Client::Gantry);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    let target = format!("{}/{}", other.host(), s.x("@i"));
    s.d(&format!("tag @bb {name}:amd64")).ok();
    s.d(&format!("tag @app {name}:arm64")).ok();
    s.d(&format!("push -q -a {name}")).ok();
    s.d(&format!(
        "manifest create --insecure {name}:1 {name}:amd64 {name}:arm64"
    ))
    .ok();
    s.d(&format!(
        "manifest annotate --arch arm64 {name}:1 {name}:arm64"
    ))
    .ok();
    let index = s
        .d(&format!("manifest push --insecure {name}:1"))
        .ok()
        .text();
    s.d(&format!("pull --all-platforms {name}:1")).ok();
    s.d(&format!("tag {name}:1 {target}:1")).ok();
    s.d(&format!("push --all-platforms {target}:1"))
        .shows(&format!("1: digest: {index} size: "));
    let kept = s
        .d(&format!("manifest inspect --insecure {target}:1"))
        .ok()
        .json();
    let architectures: Vec<_> = kept["manifests"]
        .as_array()
        .expect("manifests")
        .iter()
        .map(|one| one["platform"]["architecture"].clone())
        .collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
}

#[test]
fn layers_are_pushed_as_zstd_on_request() {
    if is_reference() {
        return;
    }
    let directory = directory();
    let engine = configured(&directory.path().join("daemon.json"), &json!({}), &[]);
    let registry = DockerRegistry::start(&engine, PORT, false);
    let s = Session::new(&engine, Client::Gantry);
    let name = format!("{}/{}", registry.host(), s.x("@i"));
    s.d(&format!("tag @bb {name}:1")).ok();
    s.d(&format!("push --compression brotli {name}:1")).fails(
        1,
        "Error response from daemon: unknown compression \"brotli\"\n",
    );
    s.d(&format!("push -q --compression zstd {name}:1")).ok();
    let manifest = s
        .d(&format!("manifest inspect --insecure {name}:1"))
        .ok()
        .json();
    assert_eq!(
        manifest["layers"][0]["mediaType"],
        "application/vnd.oci.image.layer.v1.tar+zstd"
    );
    s.d(&format!("rmi {name}:1")).ok();
    s.d(&format!("run --rm {name}:1 echo unpacked"))
        .prints("unpacked\n");
}

#[test]
fn images_that_nobody_uses_go_by_the_policy() {
    if is_reference() {
        return;
    }
    let directory = directory();
    let file = directory.path().join("daemon.json");
    let engine = configured(
        &file,
        &json!({"image-gc": {"enabled": false, "tagged": true, "unused-for": "1s", "interval": "1h", "high-watermark": 90}}),
        &[],
    );
    let s = Session::new(&engine, Client::Gantry);
    s.d("image gc --policy").prints(
        "enabled          false\ntagged           true\nunused-for       1s\nhigh-watermark   90 %\nlow-watermark    none\ninterval         1h\nkeep-blobs       none\npartials-for     7d\n",
    );
    load(&engine, "app.tar");
    s.d("run -d --name @c @bb sleep 1000").ok();
    eventually("the image is old enough", || {
        s.d("image gc --dry-run")
            .ok()
            .stdout
            .contains("localhost/test/app:1")
    });
    let dry = s.d("image gc --dry-run").ok();
    assert!(dry.stdout.starts_with("KIND"), "{}", dry.stdout);
    assert!(
        dry.stdout
            .contains("\nTotal space that would be reclaimed: "),
        "{}",
        dry.stdout
    );
    s.d("image inspect @app").ok();
    let done = s.d("image gc").ok().stdout;
    assert!(
        done.contains("localhost/test/app:1") && !done.contains("busybox"),
        "{done}"
    );
    assert!(done.contains("\nTotal reclaimed space: "), "{done}");
    s.d("image inspect @app").exits(1);
    s.d("image inspect @bb").ok();
    s.d("image gc").prints("Total reclaimed space: 0B\n");
    // A reload changes the policy.
    std::fs::write(&file, json!({"image-gc": {"unused-for": "3d"}}).to_string()).expect("write");
    hang_up(&engine);
    eventually("the policy is the new one", || {
        s.d("image gc --policy")
            .ok()
            .stdout
            .contains("unused-for       3d\n")
    });
}

#[test]
fn the_store_is_checked() {
    if is_reference() {
        return;
    }
    let directory = directory();
    let engine = configured(&directory.path().join("daemon.json"), &json!({}), &[]);
    let s = Session::new(&engine, Client::Gantry);
    s.d("system check")
        .ok()
        .shows("Checked 1 images, 1 layers and ")
        .shows(": no problem\n");
    // A file of a layer is changed behind the engine's back.
    let places = engine.places();
    let find = format!(
        "find {}/snapshots -path '*/fs/etc/passwd' | head -n 1",
        places.data_root.display()
    );
    let found = Command::new("sh").args(["-c", &find]).output().expect("sh");
    let path = String::from_utf8(found.stdout).expect("text");
    std::fs::write(path.trim(), "changed\n").expect("change the layer");
    s.d("system check")
        .exits(1)
        .shows("problem: ")
        .shows(": 1 problem\n");
}

#[test]
fn a_policy_of_signatures_is_obeyed() {
    if is_reference() {
        return;
    }
    let directory = directory();
    let file = directory.path().join("daemon.json");
    let policy = directory.path().join("policy.json");
    let rules = json!({
        "default": {"action": "accept"},
        "rules": [{"prefix": format!("127.0.0.1:{PORT}/closed"), "action": "reject"}],
    });
    std::fs::write(&policy, rules.to_string()).expect("write the policy");
    let engine = configured(&file, &json!({"signature-policy": policy}), &[]);
    let registry = DockerRegistry::start(&engine, PORT, false);
    let s = Session::new(&engine, Client::Docker);
    for repository in ["open", "closed"] {
        let name = format!("{}/{repository}/{}:1", registry.host(), s.x("@i"));
        s.d(&format!("tag @bb {name}")).ok();
        s.d(&format!("push -q {name}")).ok();
        s.d(&format!("rmi {name}")).ok();
        let pulled = s.d(&format!("pull {name}"));
        match repository {
            "open" => drop(pulled.ok()),
            _ => drop(pulled.exits(1).warns("policy")),
        }
    }
    // A policy that is not understood lets the daemon go on with the one it has.
    std::fs::write(&policy, "{}").expect("write the policy");
    hang_up(&engine);
    eventually_within(SOON, "the daemon complains", || {
        engine
            .daemon_log_tail()
            .contains("signature policy `")
            .then_some(())
    });
    s.d(&format!("pull {}/closed/@i:1", registry.host()))
        .exits(1)
        .warns("policy");
}
