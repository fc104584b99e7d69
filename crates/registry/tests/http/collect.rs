//! Garbage: what goes, what stays, and pushes that go on meanwhile.

use super::client::{Server, manifest, options, sha256};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn kept(root: &std::path::Path) -> usize {
    std::fs::read_dir(root.join("content/sha256"))
        .unwrap()
        .count()
}

fn collect(server: &Server) -> serde_json::Value {
    let answer = server.send("POST", "/v2/_gantry/garbage/collect", &[], b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[test]
fn what_nobody_needs_goes_after_its_grace_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let mut patient = options(root.path());
    patient.policy.grace = Duration::from_secs(3600);
    let digest = {
        let server = Server::start(patient);
        let digest = server.push_image("a/b", "t", b"layer");
        server.push_image("c", "t", b"layer");
        server.push_blob("a/b", b"orphan");
        assert_eq!(collect(&server)["blobs"], 0, "all of it is young");
        digest
    };
    assert_eq!(kept(root.path()), 4);
    let mut hasty = options(root.path());
    hasty.policy.grace = Duration::ZERO;
    let server = Server::start(hasty);
    let dry = server.send("POST", "/v2/_gantry/garbage/collect?dry-run=true", &[], b"");
    assert_eq!(dry.json()["links"], 1);
    assert_eq!(kept(root.path()), 4);
    assert_eq!(collect(&server)["blobs"], 1);
    assert_eq!(kept(root.path()), 3);
    let delete = |name: &str| {
        server
            .send(
                "DELETE",
                &format!("/v2/{name}/manifests/{digest}"),
                &[],
                b"",
            )
            .status
    };
    assert_eq!(delete("a/b"), 202);
    assert_eq!(
        collect(&server)["blobs"],
        0,
        "the other repository has all of it"
    );
    assert!(
        !root.path().join("repositories/a").exists(),
        "an empty repository stays"
    );
    assert_eq!(server.get("/v2/c/manifests/t").status, 200);
    assert_eq!(delete("c"), 202);
    assert_eq!(collect(&server)["blobs"], 3);
    assert_eq!(kept(root.path()), 0);
}

#[test]
fn manifests_without_a_tag_go_unless_something_refers_to_them() {
    let root = tempfile::tempdir().unwrap();
    let mut options = options(root.path());
    options.policy.grace = Duration::ZERO;
    options.policy.untagged = Some(Duration::ZERO);
    let server = Server::start(options);
    let old = server.push_image("a", "t", b"old");
    let child = server.push_image("a", "child", b"child");
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{child}","size":400}}]}}"#,
        super::client::MANIFEST
    );
    let answer = server.put_manifest("a", "index", super::client::INDEX, index.as_bytes());
    assert_eq!(answer.status, 201);
    assert_eq!(
        server
            .send("DELETE", "/v2/a/manifests/child", &[], b"")
            .status,
        202
    );
    server.push_image("a", "t", b"new");
    assert_eq!(collect(&server)["manifests"], 1);
    assert_eq!(server.get(&format!("/v2/a/manifests/{old}")).status, 404);
    assert_eq!(server.get(&format!("/v2/a/manifests/{child}")).status, 200);
    assert_eq!(server.get("/v2/a/manifests/t").status, 200);
}

#[test]
fn a_manifest_that_is_lost_or_broken_stops_no_collection() {
    let root = tempfile::tempdir().unwrap();
    let mut options = options(root.path());
    options.policy.grace = Duration::ZERO;
    let server = Server::start(options);
    let content = |digest: &str| root.path().join("content/sha256").join(&digest[7..]);
    let lost = server.push_image("a", "t", b"lost");
    let broken = server.push_image("b", "t", b"broken");
    let good = server.push_image("c", "t", b"good");
    std::fs::remove_file(content(&lost)).unwrap();
    std::fs::write(content(&broken), "x").unwrap();
    for name in ["a", "c"] {
        server.push_blob(name, b"orphan");
    }
    collect(&server);
    assert!(!content(&sha256(b"orphan")).exists());
    assert!(!content(&sha256(b"lost")).exists(), "no manifest has it");
    // What a broken manifest refers to is not known, so all of its repository stays.
    assert!(content(&sha256(b"broken")).exists());
    assert_eq!(server.get(&format!("/v2/c/manifests/{good}")).status, 200);
    assert!(content(&sha256(b"good")).exists());
}

#[test]
fn uploads_that_rest_expire() {
    let root = tempfile::tempdir().unwrap();
    let mut options = options(root.path());
    options.policy.uploads = Duration::ZERO;
    let server = Server::start(options);
    let answer = server.send("POST", "/v2/a/blobs/uploads/", &[], b"");
    let upload = answer.header("location").unwrap().to_owned();
    assert_eq!(server.send("PATCH", &upload, &[], b"x").status, 202);
    assert_eq!(collect(&server)["uploads"], 1);
    assert_eq!(server.get(&upload).status, 404);
}

/// A short grace and a collector without a rest: content becomes garbage, is collected and comes back, while images that
/// share a part of it are pushed and deleted.
#[test]
fn pushes_during_collections_lose_nothing_that_was_acknowledged() {
    let root = tempfile::tempdir().unwrap();
    let mut options = options(root.path());
    options.policy.grace = Duration::from_secs(1);
    let server = Server::start(options);
    let stop = AtomicBool::new(false);
    let mut pushed: Vec<(String, String, String, Vec<u8>)> = Vec::new();
    let (mut refused, mut removed) = (0, 0);
    std::thread::scope(|scope| {
        let collecting = scope.spawn(|| {
            let mut blobs = 0;
            while !stop.load(Ordering::Relaxed) {
                blobs += collect(&server)["blobs"].as_u64().unwrap();
            }
            blobs
        });
        for round in 0..120_u32 {
            let name = format!("r{}", round % 3);
            // Two of three rounds take a layer again that an earlier round had, and deleted.
            let layer = (round % 40).to_le_bytes().repeat(1000);
            let config = server.push_blob(&name, b"{}");
            let digest = server.push_blob(&name, &layer);
            server.push_blob(&name, &round.to_be_bytes());
            let bytes = manifest(&config, 2, &digest, layer.len());
            let kind = super::client::MANIFEST;
            let answer = server.put_manifest(&name, "t", kind, bytes.as_bytes());
            match answer.status {
                201 => pushed.push((name.clone(), sha256(bytes.as_bytes()), digest, layer)),
                // Slower than the grace: the client would push again.
                400 => refused += 1,
                status => panic!("{status} {answer:?}"),
            }
            if round % 5 == 4 {
                let (name, manifest, ..) = pushed.swap_remove(0);
                let path = format!("/v2/{name}/manifests/{manifest}");
                assert_eq!(server.send("DELETE", &path, &[], b"").status, 202);
                pushed.retain(|(other, digest, ..)| *other != name || *digest != manifest);
            }
        }
        std::thread::sleep(Duration::from_millis(1500));
        stop.store(true, Ordering::Relaxed);
        removed = collecting.join().unwrap();
    });
    collect(&server);
    assert!(
        removed > 20 && pushed.len() > 20,
        "{removed} removed, {} pushed, {refused} refused",
        pushed.len()
    );
    for (name, manifest, layer, content) in pushed {
        assert_eq!(
            server
                .get(&format!("/v2/{name}/manifests/{manifest}"))
                .status,
            200
        );
        assert!(server.get(&format!("/v2/{name}/blobs/{layer}")).body == content);
    }
}
