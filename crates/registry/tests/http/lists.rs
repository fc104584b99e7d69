//! Lists: tags, repositories, referrers; in pages, filtered, empty.

use super::client::{INDEX, MANIFEST, Server, options, sha256};
use serde_json::json;

#[test]
fn methods_that_clients_make_up_are_counted_as_one() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(options(root.path()));
    for number in 0..20 {
        server.send(&format!("MADEUP{number}"), "/v2/", &[], b"");
    }
    let text = String::from_utf8(server.get("/metrics").body).unwrap();
    assert!(!text.contains("MADEUP"), "{text}");
    let line = "requests_total{route=\"base\",method=\"other\",status=\"405\"} 20\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn tags_come_in_pages_that_link_to_the_next() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(options(root.path()));
    assert_eq!(
        server.get("/v2/a/tags/list").refusal(),
        (404, "NAME_UNKNOWN".into())
    );
    for tag in ["c", "a", "B", "b", "A"] {
        server.push_image("a", tag, b"layer");
    }
    let answer = server.get("/v2/a/tags/list");
    assert_eq!(
        answer.json(),
        json!({"name": "a", "tags": ["A", "B", "a", "b", "c"]})
    );
    assert_eq!(answer.header("link"), None);
    let mut path = "/v2/a/tags/list?n=2".to_owned();
    let mut pages = Vec::new();
    loop {
        let answer = server.get(&path);
        pages.push(answer.json()["tags"].clone());
        let Some(link) = answer.header("link") else {
            break;
        };
        assert!(link.ends_with("; rel=\"next\""), "{link}");
        path = link[1..link.find('>').unwrap()].to_owned();
    }
    assert_eq!(pages, [json!(["A", "B"]), json!(["a", "b"]), json!(["c"])]);
    assert_eq!(
        server.get("/v2/a/tags/list?last=a").json()["tags"],
        json!(["b", "c"])
    );
    let none = server.get("/v2/a/tags/list?n=0");
    // Nothing to go on from.
    assert_eq!(
        (none.json()["tags"].clone(), none.header("link")),
        (json!([]), None)
    );
    for n in ["-1", "x", "1.5"] {
        assert_eq!(
            server.get(&format!("/v2/a/tags/list?n={n}")).refusal(),
            (400, "PAGINATION_NUMBER_INVALID".into())
        );
    }
}

#[test]
fn repositories_nest_and_come_in_pages() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(options(root.path()));
    for name in ["b", "a/x", "a", "a/x/y", "c"] {
        server.push_image(name, "t", b"layer");
    }
    server.push_blob("empty", b"a blob and no manifest");
    let answer = server.get("/v2/_catalog");
    assert_eq!(
        answer.json()["repositories"],
        json!(["a", "a/x", "a/x/y", "b", "c"])
    );
    let answer = server.get("/v2/_catalog?n=2");
    assert_eq!(answer.json()["repositories"], json!(["a", "a/x"]));
    let link = answer.header("link").unwrap();
    let next = server.get(&link[1..link.find('>').unwrap()]);
    assert_eq!(next.json()["repositories"], json!(["a/x/y", "b"]));
}

#[test]
fn referrers_are_those_that_are_there_filtered_and_listed_before_their_subject_came() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(options(root.path()));
    let config = server.push_blob("a", b"{}");
    let subject_bytes = server.image("a", b"layer");
    let subject = sha256(&subject_bytes);
    let referrer = |kind: &str| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","artifactType":"{kind}","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{config}","size":2}},"layers":[],"subject":{{"mediaType":"{MANIFEST}","digest":"{subject}","size":{}}},"annotations":{{"kind":"{kind}"}}}}"#,
            subject_bytes.len()
        )
    };
    let list = |query: &str| server.get(&format!("/v2/a/referrers/{subject}{query}"));
    let empty = list("");
    assert_eq!(empty.status, 200);
    assert_eq!(empty.header("content-type"), Some(INDEX));
    assert_eq!(empty.json()["manifests"], json!([]));
    for kind in ["application/x.sbom", "application/x.signature"] {
        let bytes = referrer(kind);
        let answer =
            server.put_manifest("a", &sha256(bytes.as_bytes()), MANIFEST, bytes.as_bytes());
        assert_eq!(answer.status, 201);
        assert_eq!(answer.header("oci-subject"), Some(subject.as_str()));
    }
    assert_eq!(
        server
            .put_manifest("a", "t", MANIFEST, &subject_bytes)
            .status,
        201
    );
    assert_eq!(list("").json()["manifests"].as_array().unwrap().len(), 2);
    let filtered = list("?artifactType=application/x.sbom");
    assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
    let bytes = referrer("application/x.sbom");
    assert_eq!(
        filtered.json()["manifests"],
        json!([{"mediaType": MANIFEST, "digest": sha256(bytes.as_bytes()), "size": bytes.len(),
            "artifactType": "application/x.sbom", "annotations": {"kind": "application/x.sbom"}}])
    );
    let path = format!("/v2/a/manifests/{}", sha256(bytes.as_bytes()));
    assert_eq!(server.send("DELETE", &path, &[], b"").status, 202);
    assert_eq!(
        list("?artifactType=application/x.sbom").json()["manifests"],
        json!([])
    );
    // What a crash left between a referrer's entry and its manifest.
    let entry = format!("sha256-{}", "0".repeat(64));
    let directory = format!("repositories/a/_referrers/{}", subject.replace(':', "-"));
    std::fs::write(root.path().join(directory).join(entry), "{}").unwrap();
    assert_eq!(list("").json()["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(
        server.get("/v2/a/referrers/x").refusal(),
        (400, "DIGEST_INVALID".into())
    );
}

#[test]
fn paths_that_are_nothing_and_names_that_lead_out_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(options(root.path()));
    std::fs::write(root.path().join("secret"), "x").unwrap();
    assert_eq!(server.get("/v2/").json(), json!({}));
    assert_eq!(server.get("/healthz").status, 200);
    assert!(
        String::from_utf8(server.get("/metrics").body)
            .unwrap()
            .contains("gantry_registry_requests_total")
    );
    for path in ["/", "/v1/", "/v2/x", "/v2/a/nothing/x"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    for path in [
        "/v2/../../secret/manifests/x",
        "/v2/%2e%2e/%2e%2e/tags/list",
        "/v2/a/manifests/..%2f..%2fsecret",
        "/v2/a/blobs/sha256:..%2f..%2fsecret",
        "/v2/_tags/tags/list",
    ] {
        let status = server.get(path).status;
        assert!(status == 400 || status == 404, "{path} {status}");
    }
}
