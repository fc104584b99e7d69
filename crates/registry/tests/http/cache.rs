//! A cache of another registry, which is a second one of ours.

use super::client::{Answer, Server, options, sha256};
use gantry_registry::{Options, Upstream};
use std::path::Path;
use std::time::Duration;

fn cache(root: &Path, upstream: &Server) -> Options {
    let mut options = options(root);
    options.upstreams = vec![Upstream {
        name: "up".into(),
        url: format!("http://{}", upstream.address),
        username: String::new(),
        password: String::new(),
    }];
    options.policy.caches = vec!["up".into()];
    options
}

/// How often a registry answered requests of a kind.
fn asked(server: &Server, route: &str, method: &str) -> u64 {
    let text = String::from_utf8(server.get("/metrics").body).unwrap();
    let start = format!("gantry_registry_requests_total{{route=\"{route}\",method=\"{method}\",");
    text.lines()
        .filter(|line| line.starts_with(&start))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

fn layer(server: &Server, path: &str, content: &[u8]) -> Answer {
    server.get(&format!("{path}/blobs/{}", sha256(content)))
}

#[test]
fn content_is_fetched_once_by_any_of_its_names_and_given_out_without_the_upstream() {
    let (far, near) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let upstream = Server::start(options(far.path()));
    let digest = upstream.push_image("lib/x", "t", b"layer");
    let mut options = cache(near.path(), &upstream);
    options.mirror = Some("up".into());
    options.tag_ttl = Duration::ZERO;
    let server = Server::start(options);
    let host = upstream.address.to_string();
    for path in [
        "/v2/up/lib/x/manifests/t".to_owned(),
        "/v2/lib/x/manifests/t?ns=up".to_owned(),
        format!("/v2/lib/x/manifests/t?ns={host}"),
        "/v2/lib/x/manifests/t".to_owned(),
    ] {
        let answer = server.get(&path);
        assert_eq!(
            answer.header("docker-content-digest"),
            Some(digest.as_str()),
            "{path} {answer:?}"
        );
    }
    let named = server.get("/v2/lib/x/manifests/t?ns=up");
    assert_eq!(named.header("oci-namespace"), Some("up"));
    assert_eq!(asked(&upstream, "manifest", "GET"), 1);
    assert_eq!(asked(&upstream, "manifest", "HEAD"), 4);
    for _ in 0..3 {
        assert_eq!(layer(&server, "/v2/up/lib/x", b"layer").body, b"layer");
    }
    assert_eq!(asked(&upstream, "blob", "GET"), 1);
    assert_eq!(
        server.get("/v2/up/lib/x/tags/list").json()["tags"],
        serde_json::json!(["t"])
    );
    assert_eq!(server.get("/v2/up/lib/x/manifests/none").status, 404);
    assert_eq!(
        layer(&server, "/v2/up/lib/x", b"none").refusal(),
        (404, "BLOB_UNKNOWN".into())
    );
    // Nobody but the upstream writes to it, and what is not its own is nobody's cache.
    assert_eq!(
        server
            .send("POST", "/v2/up/lib/x/blobs/uploads/", &[], b"")
            .refusal(),
        (405, "UNSUPPORTED".into())
    );
    server.push_image("own", "t", b"own");
    assert_eq!(server.get("/v2/own/manifests/t").status, 200);
    drop(upstream);
    let stale = server.get("/v2/up/lib/x/manifests/t");
    assert_eq!(stale.header("docker-content-digest"), Some(digest.as_str()));
    assert!(
        stale.header("warning").unwrap().starts_with("299 - \""),
        "{stale:?}"
    );
    assert_eq!(layer(&server, "/v2/up/lib/x", b"layer").body, b"layer");
    assert_eq!(
        server.get("/v2/up/lib/x/tags/list").json()["tags"],
        serde_json::json!(["t"])
    );
    assert_eq!(layer(&server, "/v2/up/lib/x", b"none").status, 502);
}

#[test]
fn a_tag_is_compared_after_its_time_and_one_that_is_gone_goes() {
    let (far, near) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let upstream = Server::start(options(far.path()));
    let old = upstream.push_image("x", "t", b"old");
    let server = Server::start(cache(near.path(), &upstream));
    let age = || {
        let tag = near.path().join("repositories/up/x/_tags/t");
        let file = std::fs::File::options().write(true).open(tag).unwrap();
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
        file.set_modified(long_ago).unwrap();
    };
    let digest = || {
        server
            .get("/v2/up/x/manifests/t")
            .header("docker-content-digest")
            .map(str::to_owned)
    };
    assert_eq!(digest(), Some(old.clone()));
    let new = upstream.push_image("x", "t", b"new");
    let before = asked(&upstream, "manifest", "HEAD");
    assert_eq!(digest(), Some(old), "within its time it is not asked for");
    assert_eq!(asked(&upstream, "manifest", "HEAD"), before);
    age();
    assert_eq!(digest(), Some(new));
    assert_eq!(
        upstream
            .send("DELETE", "/v2/x/manifests/t", &[], b"")
            .status,
        202
    );
    age();
    assert_eq!(server.get("/v2/up/x/manifests/t").status, 404);
}

#[test]
fn many_clients_make_one_fetch_and_all_get_all_of_it() {
    let (far, near) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let upstream = Server::start(options(far.path()));
    let content: Vec<u8> = (0..40_000_000_u32)
        .map(|number| (number >> 11) as u8)
        .collect();
    upstream.push_blob("x", &content);
    let server = Server::start(cache(near.path(), &upstream));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(layer(&server, "/v2/up/x", &content).body == content));
        }
        scope.spawn(|| {
            let path = format!("/v2/up/x/blobs/{}", sha256(&content));
            let answer = server.send("GET", &path, &[("Range", "bytes=1000-1999")], b"");
            assert_eq!(answer.status, 206);
            assert!(answer.body == content[1000..2000]);
        });
    });
    assert_eq!(asked(&upstream, "blob", "GET"), 1);
    // Another repository of the upstream that has it costs a question.
    upstream.push_blob("y", &content);
    assert!(layer(&server, "/v2/up/y", &content).body == content);
    assert_eq!(asked(&upstream, "blob", "GET"), 1);
    assert_eq!(
        layer(&server, "/v2/up/z", &content).status,
        404,
        "and one that has it not has it not here"
    );
}

#[test]
fn caches_lose_what_is_old_or_too_much() {
    let (far, near) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let upstream = Server::start(options(far.path()));
    let mut options = cache(near.path(), &upstream);
    options.policy.grace = Duration::ZERO;
    options.policy.cache_bytes = Some(250_000);
    let server = Server::start(options);
    for number in 0..4_u8 {
        upstream.push_blob("x", &vec![number; 100_000]);
        assert_eq!(
            layer(&server, "/v2/up/x", &vec![number; 100_000]).status,
            200
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    server.push_blob("own", &[9; 100_000]);
    let answer = server.send("POST", "/v2/_gantry/garbage/collect", &[], b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    // The two oldest of the cache are gone, some before it was asked for, and so is the blob that no image needs.
    let kept = std::fs::read_dir(near.path().join("content/sha256")).unwrap();
    assert_eq!(kept.count(), 2);
    let before = asked(&upstream, "blob", "GET");
    assert_eq!(layer(&server, "/v2/up/x", &[3; 100_000]).status, 200);
    assert_eq!(asked(&upstream, "blob", "GET"), before);
    assert_eq!(layer(&server, "/v2/up/x", &[0; 100_000]).status, 200);
    assert_eq!(asked(&upstream, "blob", "GET"), before + 1);
}

#[test]
fn what_nobody_asks_a_cache_for_goes_by_age_with_its_tags() {
    let (far, near) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let upstream = Server::start(options(far.path()));
    upstream.push_image("x", "t", b"layer");
    let mut options = cache(near.path(), &upstream);
    options.policy.grace = Duration::ZERO;
    options.policy.cache_age = Some(Duration::ZERO);
    let server = Server::start(options);
    assert_eq!(server.get("/v2/up/x/manifests/t").status, 200);
    assert_eq!(layer(&server, "/v2/up/x", b"layer").status, 200);
    server.push_image("own", "t", b"layer");
    let collected = server
        .send("POST", "/v2/_gantry/garbage/collect", &[], b"")
        .json();
    // The layer is an image's of our own too, and stays.
    assert_eq!(
        (&collected["manifests"], &collected["links"]),
        (&1.into(), &1.into()),
        "{collected}"
    );
    assert!(!near.path().join("repositories/up").exists());
    assert_eq!(layer(&server, "/v2/own", b"layer").body, b"layer");
    assert_eq!(
        server.get("/v2/up/x/manifests/t").status,
        200,
        "and comes back"
    );
}

#[test]
fn a_broken_fetch_goes_on_where_it_was_and_a_wrong_one_begins_anew() {
    let (far, near) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let upstream = Server::start(options(far.path()));
    let content: Vec<u8> = (0..3_000_000_u32)
        .map(|number| (number >> 7) as u8)
        .collect();
    let digest = upstream.push_blob("x", &content);
    let sent = || {
        let text = String::from_utf8(upstream.get("/metrics").body).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("gantry_registry_sent_bytes_total "));
        line.unwrap()
            .rsplit(' ')
            .next()
            .unwrap()
            .parse::<usize>()
            .unwrap()
    };
    let partial = sha256(format!("up/x@{digest}").as_bytes()).replace("sha256:", "cache-");
    let partial = near.path().join("content/partial").join(partial);
    let server = Server::start(cache(near.path(), &upstream));
    // What another life of the registry had, and what only looks so.
    for (left, is_right) in [(&content[..2_900_000], true), (&[7; 2_900_000][..], false)] {
        std::fs::write(&partial, left).unwrap();
        let before = sent();
        let answer = layer(&server, "/v2/up/x", &content);
        assert!(
            sent() - before < 200_000,
            "{} bytes were sent",
            sent() - before
        );
        assert_eq!(answer.body == content, is_right);
        assert!(
            is_right || answer.body.len() < content.len(),
            "the wrong one is never whole"
        );
        assert!(!partial.exists());
        let path = format!("/v2/up/x/blobs/{digest}");
        if is_right {
            std::fs::remove_file(near.path().join("content/sha256").join(&digest[7..])).unwrap();
        } else {
            assert!(
                server.get(&path).body == content,
                "and the next one is right"
            );
        }
    }
}
