//! Blobs: sent in every way, cut, resumed, refused; read whole and in parts; mounted; deleted.

use super::client::{Server, answer, head, options, sha256, sha512};
use std::io::Write as _;
use std::net::Shutdown;

fn location(server: &Server, name: &str, query: &str) -> String {
    let answer = server.send(
        "POST",
        &format!("/v2/{name}/blobs/uploads/{query}"),
        &[],
        b"",
    );
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.header("range"), Some("0-0"));
    answer.header("location").unwrap().to_owned()
}

fn partials(root: &std::path::Path) -> usize {
    std::fs::read_dir(root.join("content/partial"))
        .unwrap()
        .count()
        + std::fs::read_dir(root.join("uploads")).unwrap().count()
}

#[test]
fn a_blob_comes_in_one_request_in_two_in_pieces_and_in_chunks() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(options(root.path()));
    let content = b"0123456789abcdef";
    let digest = sha256(content);
    let check = |name: &str| {
        let answer = server.get(&format!("/v2/{name}/blobs/{digest}"));
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (200, content.as_slice())
        );
        assert_eq!(
            answer.header("docker-content-digest"),
            Some(digest.as_str())
        );
    };
    server.push_blob("one", content);
    check("one");

    let upload = location(&server, "two", "");
    let answer = server.send("PUT", &format!("{upload}?digest={digest}"), &[], content);
    assert_eq!(answer.status, 201);
    assert_eq!(
        answer.header("location"),
        Some(format!("/v2/two/blobs/{digest}").as_str())
    );
    check("two");

    let upload = location(&server, "pieces", "");
    for (range, piece) in [("0-4", &content[..5]), ("5-9", &content[5..10])] {
        let answer = server.send("PATCH", &upload, &[("Content-Range", range)], piece);
        assert_eq!(answer.status, 202);
        assert_eq!(
            answer.header("range"),
            Some(format!("0-{}", range.split_once('-').unwrap().1).as_str())
        );
    }
    assert_eq!(server.get(&upload).header("range"), Some("0-9"));
    let last = [("Content-Range", "10-15")];
    let answer = server.send(
        "PUT",
        &format!("{upload}?digest={digest}"),
        &last,
        &content[10..],
    );
    assert_eq!(answer.status, 201);
    check("pieces");

    let upload = location(&server, "chunks", "");
    let mut stream = server.connect();
    stream
        .write_all(head("PATCH", &upload, &[], None).as_bytes())
        .unwrap();
    stream
        .write_all(b"6\r\n012345\r\na\r\n6789abcdef\r\n0\r\n\r\n")
        .unwrap();
    assert_eq!(super::client::answer(stream, "PATCH").status, 202);
    assert_eq!(
        server
            .send("PUT", &format!("{upload}?digest={digest}"), &[], b"")
            .status,
        201
    );
    check("chunks");
    assert_eq!(partials(root.path()), 0);
    // Four repositories, one piece of content.
    let kept = std::fs::read_dir(root.path().join("content/sha256"))
        .unwrap()
        .count();
    assert_eq!(kept, 1);
}

#[test]
fn other_algorithms_serve_also_where_they_are_named_last() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(options(root.path()));
    let digest = sha512(b"long");
    for query in ["", "?digest-algorithm=sha512", "?digest-algorithm=sha256"] {
        let upload = location(&server, "a", query);
        assert_eq!(server.send("PATCH", &upload, &[], b"long").status, 202);
        let answer = server.send("PUT", &format!("{upload}?digest={digest}"), &[], b"");
        assert_eq!(answer.status, 201, "{query}");
    }
    assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).body, b"long");
    for query in ["?digest-algorithm=md5", "?digest=sha384:x", "?digest=x"] {
        let answer = server.send("POST", &format!("/v2/a/blobs/uploads/{query}"), &[], b"");
        assert_eq!(answer.refusal(), (400, "DIGEST_INVALID".into()), "{query}");
    }
}

#[test]
fn pieces_out_of_order_are_refused_and_say_where_to_go_on() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(options(root.path()));
    let upload = location(&server, "a", "");
    let send = |range: &str, piece: &[u8]| {
        server.send("PATCH", &upload, &[("Content-Range", range)], piece)
    };
    assert_eq!(send("5-9", b"56789").status, 416);
    assert_eq!(send("0-4", b"01234").status, 202);
    for range in ["0-4", "3-7", "6-10"] {
        let answer = send(range, b"xxxxx");
        assert_eq!(answer.status, 416, "{range}");
        assert_eq!(answer.header("range"), Some("0-4"));
        assert_eq!(answer.header("location"), Some(upload.as_str()));
    }
    assert_eq!(send("5-9", b"short").status, 202);
    assert_eq!(
        send("10-19", b"short").refusal(),
        (400, "SIZE_INVALID".into())
    );
    assert_eq!(send("x", b"y").status, 416);
    let digest = sha256(b"01234short");
    let put = |range: &str, piece: &[u8]| {
        server.send(
            "PUT",
            &format!("{upload}?digest={digest}"),
            &[("Content-Range", range)],
            piece,
        )
    };
    assert_eq!(put("0-0", b"z").status, 416);
    assert_eq!(
        server
            .send("PUT", &format!("{upload}?digest={digest}"), &[], b"")
            .status,
        201
    );
}

#[test]
fn a_wrong_digest_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(options(root.path()));
    let wrong = sha256(b"something else");
    let answer = server.send(
        "POST",
        &format!("/v2/a/blobs/uploads/?digest={wrong}"),
        &[],
        b"content",
    );
    assert_eq!(answer.refusal(), (400, "DIGEST_INVALID".into()));
    let upload = location(&server, "a", "");
    assert_eq!(server.send("PATCH", &upload, &[], b"content").status, 202);
    let answer = server.send("PUT", &format!("{upload}?digest={wrong}"), &[], b"");
    assert_eq!(answer.refusal(), (400, "DIGEST_INVALID".into()));
    assert_eq!(
        server.get(&upload).refusal(),
        (404, "BLOB_UPLOAD_UNKNOWN".into())
    );
    assert_eq!(partials(root.path()), 0);
    assert_eq!(
        server.get(&format!("/v2/a/blobs/{wrong}")).refusal(),
        (404, "BLOB_UNKNOWN".into())
    );
}

#[test]
fn an_upload_is_its_repositorys_alone_and_can_be_given_up() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(options(root.path()));
    let upload = location(&server, "a", "");
    let other = upload.replace("/v2/a/", "/v2/b/");
    assert_eq!(server.send("PATCH", &other, &[], b"x").status, 404);
    assert_eq!(server.get(&other).status, 404);
    assert_eq!(server.send("DELETE", &other, &[], b"").status, 404);
    assert_eq!(server.send("PATCH", &upload, &[], b"x").status, 202);
    assert_eq!(server.get(&upload).status, 204);
    assert_eq!(server.send("DELETE", &upload, &[], b"").status, 204);
    assert_eq!(server.get(&upload).status, 404);
    assert_eq!(server.send("PATCH", &upload, &[], b"x").status, 404);
    assert_eq!(partials(root.path()), 0);
    let made_up = "/v2/a/blobs/uploads/0f8fad5b-d9cb-469f-a165-70867728950e";
    assert_eq!(
        server.get(made_up).refusal(),
        (404, "BLOB_UPLOAD_UNKNOWN".into())
    );
}

#[test]
fn a_cut_body_keeps_what_came_also_over_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..300_000_u32).map(|number| (number / 7) as u8).collect();
    let digest = sha256(&content);
    let (upload, bytes) = {
        let server = Server::start(options(root.path()));
        let upload = location(&server, "a", "");
        let mut stream = server.connect();
        let head = head(
            "PUT",
            &format!("{upload}?digest={digest}"),
            &[],
            Some(content.len()),
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&content[..200_000]).unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
        drop(stream);
        let mut bytes = 0;
        for _ in 0..200 {
            let answer = server.get(&upload);
            let range = answer.header("range").unwrap().to_owned();
            let end = range.split_once('-').unwrap().1.parse::<usize>().unwrap();
            // The thread that writes may not have seen the end yet.
            let next = server.send(
                "PATCH",
                &upload,
                &[("Content-Range", &format!("{}-{}", end + 1, end + 1))],
                &content[end + 1..end + 2],
            );
            if next.status == 202 {
                bytes = end + 2;
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(bytes > 1, "the upload did not become free");
        (upload, bytes)
    };
    let server = Server::start(options(root.path()));
    assert_eq!(
        server.get(&upload).header("range"),
        Some(format!("0-{}", bytes - 1).as_str())
    );
    let range = format!("{bytes}-{}", content.len() - 1);
    let answer = server.send(
        "PUT",
        &format!("{upload}?digest={digest}"),
        &[("Content-Range", &range)],
        &content[bytes..],
    );
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).body, content);
}

#[test]
fn a_client_that_goes_silent_is_cut_and_one_that_writes_beside_it_is_told_so() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(options(root.path()));
    let upload = location(&server, "a", "");
    let mut stream = server.connect();
    stream
        .write_all(head("PATCH", &upload, &[], Some(100)).as_bytes())
        .unwrap();
    stream.write_all(b"12345").unwrap();
    while server.get(&upload).header("range") != Some("0-4") {}
    // The first one has it until its silence has lasted too long.
    let second = server.send("PATCH", &upload, &[], b"x");
    assert_eq!(second.refusal(), (409, "BLOB_UPLOAD_INVALID".into()));
    assert_eq!(
        answer(stream, "PATCH").refusal(),
        (408, "BLOB_UPLOAD_INVALID".into())
    );
    assert_eq!(server.get(&upload).header("range"), Some("0-4"));
}

#[test]
fn blobs_are_read_in_parts() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(options(root.path()));
    let content: Vec<u8> = (0..3_000_000_u32)
        .map(|number| (number >> 9) as u8)
        .collect();
    let path = format!("/v2/a/blobs/{}", server.push_blob("a", &content));
    assert!(server.get(&path).body == content);
    let part = |range: &str| server.send("GET", &path, &[("Range", range)], b"");
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=1000000-2500000", 1_000_000, 2_500_001),
        ("bytes=2999990-", 2_999_990, 3_000_000),
        ("bytes=-10", 2_999_990, 3_000_000),
    ] {
        let answer = part(range);
        assert_eq!(answer.status, 206, "{range}");
        assert!(answer.body == content[from..to], "{range}");
        let told = format!("bytes {from}-{}/3000000", to - 1);
        assert_eq!(answer.header("content-range"), Some(told.as_str()));
    }
    let answer = part("bytes=3000000-");
    assert_eq!(
        (answer.status, answer.header("content-range")),
        (416, Some("bytes */3000000"))
    );
    assert_eq!(part("bytes=0-1,5-6").status, 200);
    let answer = server.send("HEAD", &path, &[("Range", "bytes=0-0")], b"");
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (200, Some("3000000"))
    );
    let etag = server.get(&path).header("etag").unwrap().to_owned();
    assert_eq!(
        server
            .send("GET", &path, &[("If-None-Match", &etag)], b"")
            .status,
        304
    );
}

#[test]
fn blobs_are_mounted_and_deleted_by_repository() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(options(root.path()));
    let digest = server.push_blob("source", b"content");
    let in_repository = |name: &str| {
        server
            .send("HEAD", &format!("/v2/{name}/blobs/{digest}"), &[], b"")
            .status
    };
    assert_eq!(in_repository("other"), 404);
    let mount = |name: &str, query: &str| {
        server
            .send(
                "POST",
                &format!("/v2/{name}/blobs/uploads/?mount={digest}{query}"),
                &[],
                b"",
            )
            .status
    };
    assert_eq!(mount("target", "&from=nowhere"), 202);
    assert_eq!(mount("target", "&from=source"), 201);
    assert_eq!(mount("anonymous", ""), 201);
    assert_eq!(
        (in_repository("target"), in_repository("anonymous")),
        (200, 200)
    );
    let delete =
        |name: &str| server.send("DELETE", &format!("/v2/{name}/blobs/{digest}"), &[], b"");
    assert_eq!(delete("source").status, 202);
    assert_eq!(delete("source").refusal(), (404, "BLOB_UNKNOWN".into()));
    assert_eq!(
        (in_repository("source"), in_repository("target")),
        (404, 200)
    );
    assert_eq!(mount("b", "&from=../x"), 400);
}

#[test]
fn limits_are_kept() {
    let root = tempfile::tempdir().unwrap();
    let mut options = options(root.path());
    options.limits.blob_bytes = Some(10);
    options.limits.uploads_open = 1;
    let server = Server::start(options);
    server.push_blob("a", b"0123456789");
    let content = b"0123456789x";
    let digest = sha256(content);
    let answer = server.send(
        "POST",
        &format!("/v2/a/blobs/uploads/?digest={digest}"),
        &[],
        content,
    );
    assert_eq!(answer.refusal(), (413, "SIZE_INVALID".into()));
    assert_eq!(partials(root.path()), 0);
    let upload = location(&server, "a", "");
    let answer = server.send("POST", "/v2/a/blobs/uploads/", &[], b"");
    assert_eq!(answer.refusal(), (429, "TOOMANYREQUESTS".into()));
    assert_eq!(server.send("DELETE", &upload, &[], b"").status, 204);
    location(&server, "a", "");
}

#[test]
fn a_mount_of_what_is_not_here_looks_at_no_repository() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(options(root.path()));
    let digest = server.push_blob("a", b"here");
    // Cannot be listed: who walks all repositories fails.
    std::fs::write(root.path().join("repositories/stray"), "").unwrap();
    let mount = |digest: &str| {
        let path = format!("/v2/b/blobs/uploads/?mount={digest}");
        server.send("POST", &path, &[], b"").status
    };
    assert_eq!(mount(&sha256(b"elsewhere")), 202);
    std::fs::remove_file(root.path().join("repositories/stray")).unwrap();
    assert_eq!(mount(&digest), 201);
}

#[test]
fn a_client_that_drips_loses_its_place() {
    let root = tempfile::tempdir().unwrap();
    let mut options = options(root.path());
    options.limits.uploads_at_once = 1;
    let server = Server::start(options);
    let upload = location(&server, "a", "");
    let mut stream = server.connect();
    let head = super::client::head("PATCH", &upload, &[], Some(1_000_000));
    stream.write_all(head.as_bytes()).unwrap();
    let began = std::time::Instant::now();
    let digest = sha256(b"x");
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    let mut was_refused = false;
    // Never silent for as long as it might be.
    loop {
        let _ = stream.write_all(b"x");
        std::thread::sleep(std::time::Duration::from_millis(100));
        match server.send("POST", &path, &[], b"x").status {
            201 if was_refused => break,
            201 => {}
            429 => was_refused = true,
            status => panic!("{status}"),
        }
        assert!(
            began.elapsed() < std::time::Duration::from_secs(15),
            "it drips on"
        );
    }
}

#[test]
fn blobs_of_the_engine_beside_are_linked_for_who_may_push() {
    let (engine, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let content = gantry_image::content::Content::open(engine.path()).unwrap();
    let digest = content.put(b"layer", &|| false).unwrap();
    let mut options = options(root.path());
    options.engine_root = Some(engine.path().to_owned());
    let server = Server::start(options);
    let path = format!("/v2/a/blobs/{digest}");
    assert_eq!(server.get(&path).status, 404, "a read does not adopt");
    assert_eq!(server.send("HEAD", &path, &[], b"").status, 200);
    content.remove(&digest).unwrap();
    assert_eq!(server.get(&path).body, b"layer");
    let digest = content.put(b"mounted", &|| false).unwrap();
    let mount = format!("/v2/b/blobs/uploads/?mount={digest}&from=x");
    assert_eq!(server.send("POST", &mount, &[], b"").status, 201);
    // A push costs a manifest alone.
    let config = content.put(b"{}", &|| false).unwrap();
    let manifest = super::client::manifest(config.as_str(), 2, digest.as_str(), 7);
    let answer = server.put_manifest("c", "latest", super::client::MANIFEST, manifest.as_bytes());
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(
        server.get(&format!("/v2/c/blobs/{digest}")).body,
        b"mounted"
    );
}
