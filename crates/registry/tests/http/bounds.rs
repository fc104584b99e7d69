//! What a cache does about upstreams that misbehave, and how much it lets itself be made to do.

use super::client::{Server, answer, head, options, sha256};
use gantry_registry::{Options, Upstream};
use gantry_testkit::registry::{Fault, Registry, Times};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

fn cache(root: &Path, upstream: &Registry) -> Options {
    let mut options = options(root);
    options.upstreams = vec![Upstream {
        name: "up".into(),
        url: format!("http://{}", upstream.address()),
        username: String::new(),
        password: String::new(),
    }];
    options.policy.caches = vec!["up".into()];
    options.tag_ttl = Duration::ZERO;
    options
}

#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(15);
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_tag_goes_only_when_the_registry_itself_says_so() {
    let root = tempfile::tempdir().unwrap();
    let upstream = Registry::start();
    upstream.push_image("x", "t", &[b"layer"]);
    let server = Server::start(cache(root.path(), &upstream));
    let path = "/v2/up/x/manifests/t";
    let digest = server
        .get(path)
        .header("docker-content-digest")
        .map(str::to_owned);
    assert!(digest.is_some());
    let denied = r#"{"errors":[{"code":"DENIED","message":"no longer"}]}"#;
    for (status, body) in [
        (403, denied),
        (
            401,
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"who?"}]}"#,
        ),
        (404, "<html>a proxy</html>"),
        (404, ""),
    ] {
        upstream.misbehave(
            "*",
            "/v2/x/manifests/t",
            Times::Always,
            Fault::status(status, body),
        );
        let stale = server.get(path);
        assert_eq!(
            stale.header("docker-content-digest"),
            digest.as_deref(),
            "{status} {stale:?}"
        );
        assert!(stale.header("warning").is_some(), "{status}");
        upstream.behave();
    }
    let gone = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    upstream.misbehave(
        "*",
        "/v2/x/manifests/t",
        Times::Always,
        Fault::status(404, gone),
    );
    assert_eq!(server.get(path).refusal(), (404, "MANIFEST_UNKNOWN".into()));
    assert!(!root.path().join("repositories/up/x/_tags/t").exists());
}

#[test]
fn a_fetch_that_nobody_waits_for_ends_and_makes_place() {
    let root = tempfile::tempdir().unwrap();
    let upstream = Registry::start();
    let (one, two) = (vec![1; 300_000], vec![2; 300_000]);
    let path = |content: &[u8]| format!("/v2/x/blobs/{}", sha256(content));
    for content in [&one, &two] {
        upstream.push_blob(content);
    }
    upstream.misbehave(
        "GET",
        &path(&one),
        Times::First(1),
        Fault::StallAfter(100_000),
    );
    let mut options = cache(root.path(), &upstream);
    options.limits.fetches_at_once = 1;
    options.limits.fetch_unwanted = Duration::from_millis(500);
    let server = Server::start(options);
    let get = |content: &[u8]| {
        let mut stream = server.connect();
        let path = path(content).replace("/v2/", "/v2/up/");
        stream
            .write_all(head("GET", &path, &[], Some(0)).as_bytes())
            .unwrap();
        stream
    };
    let mut first = get(&one);
    let mut start = [0; 1000];
    first.read_exact(&mut start).unwrap();
    let second = get(&two);
    std::thread::sleep(Duration::from_millis(1000));
    assert!(
        upstream.requests_of("GET", &path(&two)).is_empty(),
        "two at once"
    );
    drop(first);
    assert!(answer(second, "GET").body == two);
    assert!(
        answer(get(&one), "GET").body == one,
        "and the first one is fetched anew"
    );
}

#[test]
fn no_blob_is_fetched_that_is_larger_than_what_may_be_kept() {
    let upstream = Registry::start();
    let digest = upstream.push_blob(&[7; 1000]);
    for (blob_bytes, cache_bytes) in [(Some(999), None), (None, Some(999))] {
        let root = tempfile::tempdir().unwrap();
        let mut options = cache(root.path(), &upstream);
        options.limits.blob_bytes = blob_bytes;
        options.policy.cache_bytes = cache_bytes;
        let server = Server::start(options);
        let refused = server.get(&format!("/v2/up/x/blobs/{digest}"));
        assert_eq!(refused.refusal(), (413, "SIZE_INVALID".into()));
        assert!(
            upstream
                .requests_of("GET", &format!("/v2/x/blobs/{digest}"))
                .is_empty()
        );
    }
}

#[test]
fn a_cache_that_fills_is_collected_at_once() {
    let root = tempfile::tempdir().unwrap();
    let upstream = Registry::start();
    let mut options = cache(root.path(), &upstream);
    options.policy.cache_bytes = Some(250_000);
    let server = Server::start(options);
    for number in 0..6_u8 {
        let content = vec![number; 100_000];
        upstream.push_blob(&content);
        let path = format!("/v2/up/x/blobs/{}", sha256(&content));
        assert!(server.get(&path).body == content);
    }
    let kept = || {
        std::fs::read_dir(root.path().join("content/sha256"))
            .unwrap()
            .count()
    };
    // One may have come after the last look.
    eventually("nothing goes", || kept() <= 3);
}
