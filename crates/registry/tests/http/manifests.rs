//! Manifests and tags: written, read, refused, deleted.

use super::client::{INDEX, MANIFEST, Server, manifest, options, sha256, sha512};

#[test]
fn a_manifest_comes_back_byte_by_byte_under_tag_and_digest() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(options(root.path()));
    let bytes = server.image("a/b", b"layer");
    let digest = sha256(&bytes);
    let answer = server.put_manifest("a/b", "v1", MANIFEST, &bytes);
    assert_eq!(answer.status, 201);
    assert_eq!(
        answer.header("location"),
        Some(format!("/v2/a/b/manifests/{digest}").as_str())
    );
    assert_eq!(
        answer.header("docker-content-digest"),
        Some(digest.as_str())
    );
    for reference in ["v1", &digest] {
        let path = format!("/v2/a/b/manifests/{reference}");
        let answer = server.get(&path);
        assert_eq!(answer.status, 200);
        assert!(answer.body == bytes);
        assert_eq!(answer.header("content-type"), Some(MANIFEST));
        assert_eq!(
            answer.header("docker-content-digest"),
            Some(digest.as_str())
        );
        assert_eq!(
            answer.header("docker-distribution-api-version"),
            Some("registry/2.0")
        );
        let head = server.send("HEAD", &path, &[], b"");
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(
            head.header("content-length"),
            Some(bytes.len().to_string().as_str())
        );
        let etag = answer.header("etag").unwrap().to_owned();
        assert_eq!(
            server
                .send("GET", &path, &[("If-None-Match", &etag)], b"")
                .status,
            304
        );
    }
    assert_eq!(
        server.get("/v2/a/b/manifests/v2").refusal(),
        (404, "MANIFEST_UNKNOWN".into())
    );
    assert_eq!(
        server.get("/v2/a/manifests/v1").refusal(),
        (404, "MANIFEST_UNKNOWN".into())
    );
}

#[test]
fn what_a_manifest_needs_must_be_there() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(options(root.path()));
    let config = server.push_blob("a", b"{}");
    let missing = sha256(b"missing");
    let bytes = manifest(&config, 2, &missing, 7);
    let answer = server.put_manifest("a", "x", MANIFEST, bytes.as_bytes());
    assert_eq!(answer.refusal(), (400, "MANIFEST_BLOB_UNKNOWN".into()));
    assert_eq!(
        answer.json()["errors"][0]["detail"]["digests"][0],
        missing.as_str()
    );
    // What another repository has does not count.
    server.push_blob("b", b"missing");
    assert_eq!(
        server
            .put_manifest("a", "x", MANIFEST, bytes.as_bytes())
            .status,
        400
    );
    assert_eq!(server.get("/v2/a/manifests/x").status, 404);
    // The manifests of an index need not be there.
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{MANIFEST}","digest":"{missing}","size":7}}]}}"#
    );
    assert_eq!(
        server
            .put_manifest("a", "index", INDEX, index.as_bytes())
            .status,
        201
    );
}

#[test]
fn malformed_manifests_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut options = options(root.path());
    options.limits.manifest_bytes = 4096;
    let server = Server::start(options);
    let bytes = server.image("a", b"layer");
    for (reference, kind, body, want) in [
        ("x", MANIFEST, b"{".as_slice(), (400, "MANIFEST_INVALID")),
        ("x", INDEX, &bytes, (400, "MANIFEST_INVALID")),
        (
            "sha256:baddigest",
            MANIFEST,
            &bytes,
            (400, "DIGEST_INVALID"),
        ),
        (&sha256(b"other"), MANIFEST, &bytes, (400, "DIGEST_INVALID")),
        ("-x", MANIFEST, &bytes, (400, "MANIFEST_INVALID")),
        ("x", MANIFEST, &[b' '; 5000], (413, "SIZE_INVALID")),
    ] {
        let answer = server.put_manifest("a", reference, kind, body);
        assert_eq!(
            answer.refusal(),
            (want.0, want.1.to_owned()),
            "{reference} {kind}"
        );
    }
    assert_eq!(
        server.put_manifest("A", "x", MANIFEST, &bytes).refusal(),
        (400, "NAME_INVALID".into())
    );
    assert_eq!(
        server.get("/v2/a/tags/list").json()["tags"],
        serde_json::json!([])
    );
}

#[test]
fn a_digest_is_pushed_with_any_number_of_tags_and_any_algorithm() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(options(root.path()));
    let bytes = server.image("a", b"layer");
    for (digest, tags) in [(sha256(&bytes), "one"), (sha512(&bytes), "two")] {
        let answer = server.put_manifest(
            "a",
            &format!("{digest}?tag={tags}-1&tag={tags}-2"),
            MANIFEST,
            &bytes,
        );
        assert_eq!(answer.status, 201);
        assert_eq!(
            answer.header("oci-tag"),
            Some(format!("{tags}-1, {tags}-2").as_str())
        );
        let tagged = server.get(&format!("/v2/a/manifests/{tags}-2"));
        assert_eq!(
            tagged.header("docker-content-digest"),
            Some(digest.as_str())
        );
    }
    let answer = server.put_manifest(
        "a",
        &format!("{}?tag=../x", sha256(&bytes)),
        MANIFEST,
        &bytes,
    );
    assert_eq!(answer.status, 400);
    let tags = server.get("/v2/a/tags/list").json();
    assert_eq!(tags["tags"].as_array().unwrap().len(), 4);
}

#[test]
fn a_tag_goes_alone_and_a_digest_with_all_its_tags() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(options(root.path()));
    let digest = server.push_image("a", "one", b"layer");
    server.push_image("a", "two", b"layer");
    let other = server.push_image("a", "other", b"another layer");
    let delete =
        |reference: &str| server.send("DELETE", &format!("/v2/a/manifests/{reference}"), &[], b"");
    let has = |reference: &str| server.get(&format!("/v2/a/manifests/{reference}")).status == 200;
    assert_eq!(delete("one").status, 202);
    assert_eq!(delete("one").refusal(), (404, "MANIFEST_UNKNOWN".into()));
    assert!(!has("one") && has("two") && has(&digest));
    assert_eq!(delete(&digest).status, 202);
    assert!(!has("two") && !has(&digest) && has("other") && has(&other));
    assert_eq!(
        server.get("/v2/a/tags/list").json()["tags"],
        serde_json::json!(["other"])
    );
}

#[test]
fn a_read_only_registry_refuses_every_write() {
    let root = tempfile::tempdir().unwrap();
    let bytes = {
        let server = Server::start(options(root.path()));
        server.push_image("a", "x", b"layer");
        server.image("a", b"layer")
    };
    let server = Server::start(gantry_registry::Options {
        is_read_only: true,
        ..options(root.path())
    });
    assert!(server.get("/v2/a/manifests/x").body == bytes);
    for (method, path) in [
        ("PUT", "/v2/a/manifests/y"),
        ("DELETE", "/v2/a/manifests/x"),
        ("POST", "/v2/a/blobs/uploads/"),
        ("DELETE", &format!("/v2/a/blobs/{}", sha256(b"layer"))),
    ] {
        let answer = server.send(method, path, &[("Content-Type", MANIFEST)], &bytes);
        assert_eq!(
            answer.refusal(),
            (405, "UNSUPPORTED".into()),
            "{method} {path}"
        );
    }
    for (method, path) in [
        ("POST", "/v2/"),
        ("PATCH", "/v2/a/manifests/x"),
        ("PUT", "/v2/a/tags/list"),
    ] {
        assert_eq!(
            server.send(method, path, &[], b"").status,
            405,
            "{method} {path}"
        );
    }
}
