//! Kills at any moment, a full disk.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gantry_testkit::http;

use crate::place::{MANIFEST, Place, Registry, faultless, sha256};

/// Pushes images of one layer until the registry is gone; gives what was acknowledged.
fn push_on(
    registry: &Registry<'_>,
    seed: &AtomicU64,
    stop: &AtomicBool,
    acknowledged: &Mutex<Vec<(String, Vec<u8>)>>,
) {
    while !stop.load(Ordering::Relaxed) {
        let number = seed.fetch_add(1, Ordering::Relaxed);
        let layer: Vec<u8> = (0..40_000_u64)
            .flat_map(|word| (word * number).to_le_bytes())
            .collect();
        let pushed = (|| {
            let begun = registry.send("POST", "/v2/k/blobs/uploads/", None)?;
            let upload = begun.header("location").unwrap_or_default().to_owned();
            let (one, two) = layer.split_at(layer.len() / 2);
            let octets = "application/octet-stream";
            registry.send("PATCH", &upload, Some((octets, one)))?;
            registry.send("PATCH", &upload, Some((octets, two)))?;
            let digest = sha256(&layer);
            let path = format!("{upload}?digest={digest}");
            registry.send("PUT", &path, Some((octets, b"")))?;
            let config = sha256(b"{}");
            registry.send(
                "POST",
                &format!("/v2/k/blobs/uploads/?digest={config}"),
                Some((octets, b"{}")),
            )?;
            let manifest = format!(
                r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"x/y","digest":"{config}","size":2}},"layers":[{{"mediaType":"x/z","digest":"{digest}","size":{}}}]}}"#,
                layer.len()
            );
            let path = format!("/v2/k/manifests/t{number}");
            let put = registry.send("PUT", &path, Some((MANIFEST, manifest.as_bytes())))?;
            // Not where the collector was quicker than the push: its grace is short here.
            if put.status == 201 {
                acknowledged.lock().expect("no panic").extend([
                    (format!("manifests/t{number}"), manifest.into_bytes()),
                    (format!("blobs/{digest}"), layer.clone()),
                ]);
            }
            anyhow::Ok(())
        })();
        if pushed.is_err() {
            return;
        }
    }
}

#[test]
fn what_was_acknowledged_is_there_after_kills_at_any_moment() {
    let place = Place::new();
    let (seed, acknowledged) = (AtomicU64::new(1), Mutex::new(Vec::new()));
    let mut has_collected = false;
    for round in 0..15_u64 {
        let registry = place.serve(&["--collect-interval", "20ms", "--collect-grace", "200ms"]);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| push_on(&registry, &seed, &stop, &acknowledged));
            }
            // Spread over the steps of a push, which takes some tens of milliseconds.
            std::thread::sleep(Duration::from_millis(150 + round * 37 % 200));
            rustix::process::kill_process(
                rustix::process::Pid::from_child(&registry.child),
                rustix::process::Signal::KILL,
            )
            .expect("kill the registry");
            stop.store(true, Ordering::Relaxed);
        });
        has_collected |= registry.log().contains("collected garbage");
        drop(registry);
        faultless(&place.root());
    }
    assert!(has_collected, "no collection ran");
    let registry = place.serve(&[]);
    let acknowledged = acknowledged.into_inner().expect("no panic");
    assert!(
        acknowledged.len() > 30,
        "only {} were acknowledged",
        acknowledged.len()
    );
    for (path, bytes) in &acknowledged {
        let answer = registry
            .send("GET", &format!("/v2/k/{path}"), None)
            .expect("an answer");
        assert_eq!(answer.status, 200, "{path} was acknowledged and is gone");
        assert!(answer.body == *bytes, "{path} is another");
    }
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let place = Place::new();
    std::fs::create_dir(place.root()).expect("make a directory");
    place.ok(&[
        "mount",
        "-t",
        "tmpfs",
        "-o",
        "size=4m",
        "none",
        &place.path("root"),
    ]);
    let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, place.port()));
    // No link leads to another file system, so an engine there is refused at once.
    let (root, engine) = (place.path("root"), place.path("engine"));
    std::fs::create_dir_all(format!("{engine}/content")).expect("make a directory");
    let binary = gantry_testkit::engine::binary().display().to_string();
    let words = [
        "registry",
        "serve",
        "--addr",
        "127.0.0.1:0",
        "--root",
        &root,
        "--engine-root",
        &engine,
    ];
    let refused = place.output(&[&[binary.as_str()], &words[..]].concat());
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.ends_with("are on different file systems\n"), "{said}");
    let registry = place.serve(&["--metrics-addr", &metrics.to_string()]);
    let octets = "application/octet-stream";
    let blob = |byte: u8, size: usize| vec![byte; size];
    let push = |content: &[u8]| {
        let path = format!("/v2/a/blobs/uploads/?digest={}", sha256(content));
        registry
            .send("POST", &path, Some((octets, content)))
            .expect("an answer")
    };
    assert_eq!(push(&blob(1, 2_000_000)).status, 201);
    let refused = push(&blob(2, 3_000_000));
    assert_eq!(refused.status, 507, "{}", refused.text());
    assert!(
        refused.text().contains("no space left"),
        "{}",
        refused.text()
    );
    // What did not fit is gone, so that something smaller fits; an upload goes on when there is room.
    let begun = registry
        .send("POST", "/v2/a/blobs/uploads/", None)
        .expect("an answer");
    let upload = begun.header("location").expect("a location").to_owned();
    let patch = registry
        .send("PATCH", &upload, Some((octets, &blob(3, 1_500_000))))
        .expect("an answer");
    assert_eq!(patch.status, 202, "{}", patch.text());
    let patch = registry
        .send("PATCH", &upload, Some((octets, &blob(3, 1_500_000))))
        .expect("an answer");
    assert_eq!(patch.status, 507, "{}", patch.text());
    let first = format!("/v2/a/blobs/{}", sha256(&blob(1, 2_000_000)));
    assert!(registry.send("GET", &first, None).expect("an answer").body == blob(1, 2_000_000));
    assert_eq!(
        registry
            .send("DELETE", &upload, None)
            .expect("an answer")
            .status,
        204
    );
    assert_eq!(push(&blob(4, 1_500_000)).status, 201);
    // The counters have an address of their own, where nothing else is.
    let get = |path: &str| {
        place
            .engine
            .on_host(|| http::get(metrics, path))
            .expect("an answer")
    };
    let refused = "route=\"upload\",method=\"POST\",status=\"507\"} 1";
    assert!(
        get("/metrics").text().contains(refused),
        "{}",
        get("/metrics").text()
    );
    assert_eq!((get("/healthz").status, get("/v2/").status), (200, 404));
}
