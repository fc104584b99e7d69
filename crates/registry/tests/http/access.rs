//! Who may what: htpasswd, tokens of the built-in service, the access file.

use super::client::{Answer, MANIFEST, Server, options};
use base64::Engine as _;
use gantry_registry::auth::htpasswd;
use gantry_registry::{Options, Tokens};
use std::path::Path;

const ACCESS: &str =
    "anonymous public/* pull\n* team/** pull,push\nroot ** pull,push,delete,admin\n";

fn basic(user: &str, password: &str) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {text}")
}

fn with_users(root: &Path) -> Options {
    let users: Vec<String> = ["alice", "root"]
        .iter()
        .map(|user| htpasswd::line(user, "secret").unwrap())
        .collect();
    let (file, access) = (root.join("htpasswd"), root.join("access"));
    std::fs::write(&file, users.join("\n")).unwrap();
    std::fs::write(&access, ACCESS).unwrap();
    Options {
        htpasswd: Some(file),
        access: Some(access),
        ..options(&root.join("registry"))
    }
}

fn with(server: &Server, authorization: &str, method: &str, path: &str, body: &[u8]) -> Answer {
    let headers = [("Authorization", authorization), ("Content-Type", MANIFEST)];
    server.send(method, path, &headers, body)
}

#[test]
fn users_come_by_password_and_have_the_rights_of_their_lines() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(with_users(root.path()));
    let challenge = server.get("/v2/");
    assert_eq!(challenge.refusal(), (401, "UNAUTHORIZED".into()));
    assert_eq!(
        challenge.header("www-authenticate"),
        Some("Basic realm=\"gantry registry\"")
    );
    let (alice, admin) = (basic("alice", "secret"), basic("root", "secret"));
    assert_eq!(with(&server, &alice, "GET", "/v2/", b"").status, 200);
    for wrong in [
        basic("alice", "wrong"),
        basic("bob", "secret"),
        "Basic !".into(),
        "Bearer x".into(),
    ] {
        assert_eq!(
            with(&server, &wrong, "GET", "/v2/", b"").status,
            401,
            "{wrong}"
        );
    }
    // Alice writes to the team's, not to what is public, and deletes nothing.
    let index = br#"{"schemaVersion":2,"manifests":[]}"#;
    let kind = "application/vnd.oci.image.index.v1+json";
    let put = |who: &str, name: &str| {
        let headers = [("Authorization", who), ("Content-Type", kind)];
        server
            .send("PUT", &format!("/v2/{name}/manifests/t"), &headers, index)
            .status
    };
    assert_eq!(
        (put(&alice, "team/a/b"), put(&alice, "public/a")),
        (201, 403)
    );
    assert_eq!((put(&admin, "public/a"), put(&admin, "other")), (201, 201));
    assert_eq!(
        with(&server, &alice, "DELETE", "/v2/team/a/b/manifests/t", b"").refusal(),
        (403, "DENIED".into())
    );
    assert_eq!(
        server.get("/v2/public/a/manifests/t").status,
        200,
        "anonymous may pull"
    );
    let nobody = with(
        &server,
        &basic("", ""),
        "GET",
        "/v2/public/a/manifests/t",
        b"",
    );
    assert_eq!(nobody.status, 200, "a client's answer without credentials");
    let refused = server.get("/v2/team/a/b/manifests/t");
    assert_eq!(refused.status, 401);
    assert!(refused.header("www-authenticate").is_some());
    assert_eq!(
        server
            .send("DELETE", "/v2/public/a/manifests/t", &[], b"")
            .status,
        401
    );
    let seen = with(&server, &alice, "GET", "/v2/_catalog", b"").json();
    assert_eq!(seen["repositories"], serde_json::json!(["team/a/b"]));
    assert_eq!(with(&server, &alice, "GET", "/metrics", b"").status, 403);
    assert_eq!(with(&server, &admin, "GET", "/metrics", b"").status, 200);
    assert_eq!(
        with(&server, &admin, "POST", "/v2/_gantry/garbage/collect", b"").status,
        200
    );
    assert_eq!(
        server
            .send("POST", "/v2/_gantry/garbage/collect", &[], b"")
            .status,
        401
    );
}

#[test]
fn a_mount_needs_the_right_to_read_its_source() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(with_users(root.path()));
    let admin = basic("root", "secret");
    let digest = super::client::sha256(b"private");
    let path = format!("/v2/private/blobs/uploads/?digest={digest}");
    assert_eq!(with(&server, &admin, "POST", &path, b"private").status, 201);
    for from in ["&from=private", ""] {
        let path = format!("/v2/team/x/blobs/uploads/?mount={digest}{from}");
        let answer = with(&server, &basic("alice", "secret"), "POST", &path, b"");
        assert_eq!(answer.status, 202, "{from}");
        assert_eq!(
            with(&server, &admin, "POST", &path, b"").status,
            201,
            "{from}"
        );
        let blob = format!("/v2/team/x/blobs/{digest}");
        assert_eq!(with(&server, &admin, "DELETE", &blob, b"").status, 202);
    }
}

#[test]
fn the_engines_blobs_are_for_who_has_the_right_to_them() {
    let (engine, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let content = gantry_image::content::Content::open(engine.path()).unwrap();
    let digest = content.put(b"not alice's", &|| false).unwrap();
    let mut options = with_users(root.path());
    options.engine_root = Some(engine.path().to_owned());
    std::fs::write(
        root.path().join("access"),
        "alice team/** pull,push\nroot root/** pull,push,adopt\n",
    )
    .unwrap();
    let server = Server::start(options);
    let tries = |user: &str, name: &str, from: &str| {
        let who = basic(user, "secret");
        let head = with(
            &server,
            &who,
            "HEAD",
            &format!("/v2/{name}/blobs/{digest}"),
            b"",
        );
        let path = format!("/v2/{name}/blobs/uploads/?mount={digest}{from}");
        let mounted = with(&server, &who, "POST", &path, b"");
        let manifest = super::client::manifest(digest.as_str(), 11, digest.as_str(), 11);
        let path = format!("/v2/{name}/manifests/t");
        let put = with(&server, &who, "PUT", &path, manifest.as_bytes());
        [head.status, mounted.status, put.status]
    };
    assert_eq!(tries("alice", "team/a", ""), [404, 202, 400]);
    assert_eq!(tries("alice", "team/a", "&from=team/b"), [404, 202, 400]);
    // Not from elsewhere after a refused source, whatever else he may.
    let path = format!("/v2/root/a/blobs/uploads/?mount={digest}&from=private");
    let root_user = basic("root", "secret");
    assert_eq!(with(&server, &root_user, "POST", &path, b"").status, 202);
    assert_eq!(tries("root", "root/b", ""), [200, 201, 201]);
}

#[test]
fn a_crowd_of_guesses_is_told_to_wait_and_keeps_nobody_out_who_was_in() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(with_users(root.path()));
    let alice = basic("alice", "secret");
    assert_eq!(with(&server, &alice, "GET", "/v2/", b"").status, 200);
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let guesses: Vec<_> = (0..100)
            .map(|number| {
                let (server, guess) = (&server, basic("alice", &number.to_string()));
                scope.spawn(move || with(server, &guess, "GET", "/v2/", b"").status)
            })
            .collect();
        assert_eq!(with(&server, &alice, "GET", "/v2/", b"").status, 200);
        guesses
            .into_iter()
            .map(|guess| guess.join().unwrap())
            .collect()
    });
    let count = |status| answers.iter().filter(|answer| **answer == status).count();
    assert!(count(429) > 0 && count(401) >= 34, "{answers:?}");
    assert_eq!(count(429) + count(401), answers.len(), "{answers:?}");
}

#[test]
fn changed_files_are_read_again_and_broken_ones_are_not_taken() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(with_users(root.path()));
    let bob = basic("bob", "new");
    let mut users = std::fs::read_to_string(root.path().join("htpasswd")).unwrap();
    users.push_str(&format!("\n{}", htpasswd::line("bob", "new").unwrap()));
    std::fs::write(root.path().join("htpasswd"), users).unwrap();
    let wait = |want: u16| {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while with(&server, &bob, "GET", "/v2/", b"").status != want {
            assert!(std::time::Instant::now() < until, "no {want}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    };
    wait(200);
    std::fs::write(root.path().join("htpasswd"), "broken").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(with(&server, &bob, "GET", "/v2/", b"").status, 200);
    std::fs::write(
        root.path().join("htpasswd"),
        htpasswd::line("root", "x").unwrap(),
    )
    .unwrap();
    // Also for a password that was right a moment ago.
    wait(401);
}

#[test]
fn tokens_are_fetched_cut_to_the_rights_and_refreshed() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(Options {
        tokens: Tokens::BuiltIn {
            service: "test-registry".into(),
        },
        ..with_users(root.path())
    });
    let alice = basic("alice", "secret");
    let challenge = server.send("POST", "/v2/team/a/blobs/uploads/", &[], b"");
    assert_eq!(
        challenge.header("www-authenticate"),
        Some(
            "Bearer realm=\"http://registry.test/token\",service=\"test-registry\",scope=\"repository:team/a:pull,push\""
        )
    );
    assert_eq!(
        with(&server, &alice, "GET", "/v2/", b"").status,
        401,
        "a password is no token"
    );
    let scope = "scope=repository:team/a:pull,push,delete&scope=repository:secret:pull";
    let answer = with(
        &server,
        &alice,
        "GET",
        &format!("/token?service=test-registry&{scope}&offline_token=true"),
        b"",
    )
    .json();
    let token = format!("Bearer {}", answer["token"].as_str().unwrap());
    assert_eq!(answer["token"], answer["access_token"]);
    assert_eq!(with(&server, &token, "GET", "/v2/", b"").status, 200);
    assert_eq!(
        with(&server, &token, "POST", "/v2/team/a/blobs/uploads/", b"").status,
        202
    );
    let more = with(&server, &token, "DELETE", "/v2/team/a/manifests/t", b"");
    assert_eq!(more.status, 401, "the right to delete was not given");
    assert!(
        more.header("www-authenticate")
            .unwrap()
            .ends_with("error=\"insufficient_scope\"")
    );
    assert_eq!(
        with(&server, &token, "GET", "/v2/team/b/tags/list", b"").status,
        401,
        "another repository"
    );
    assert_eq!(
        with(&server, &token, "GET", "/v2/secret/tags/list", b"").status,
        401,
        "never allowed"
    );

    let refresh = answer["refresh_token"].as_str().unwrap();
    let form = |body: &str| {
        server.send(
            "POST",
            "/token",
            &[("Content-Type", "application/x-www-form-urlencoded")],
            body.as_bytes(),
        )
    };
    let answer = form(&format!(
        "grant_type=refresh_token&refresh_token={refresh}&scope=repository:team/a:pull"
    ));
    assert_eq!(answer.status, 200);
    let token = format!("Bearer {}", answer.json()["access_token"].as_str().unwrap());
    assert_eq!(
        with(&server, &token, "GET", "/v2/team/a/tags/list", b"").status,
        404
    );
    assert_eq!(
        with(&server, &token, "POST", "/v2/team/a/blobs/uploads/", b"").status,
        401,
        "pull alone"
    );
    let answer = form(
        "grant_type=password&username=alice&password=secret&access_type=offline&scope=repository:team/a:pull%20repository:team/b:push",
    );
    assert!(answer.json()["refresh_token"].is_string());
    for (body, status) in [
        ("grant_type=password&username=alice&password=wrong", 401),
        ("grant_type=refresh_token&refresh_token=x", 401),
        ("grant_type=other", 405),
    ] {
        assert_eq!(form(body).status, status, "{body}");
    }
    assert_eq!(
        with(&server, &basic("alice", "wrong"), "GET", "/token", b"").status,
        401
    );
    let anonymous = server
        .get("/token?scope=repository:public/a:pull,push")
        .json();
    let token = format!("Bearer {}", anonymous["token"].as_str().unwrap());
    assert_eq!(
        with(&server, &token, "GET", "/v2/public/a/tags/list", b"").status,
        404
    );
    assert_eq!(
        with(&server, &token, "POST", "/v2/public/a/blobs/uploads/", b"").status,
        401
    );
}

#[test]
fn tokens_of_an_outside_service_are_taken_by_its_key() {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    let root = tempfile::tempdir().unwrap();
    let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
    // SubjectPublicKeyInfo of Ed25519 (RFC 8410).
    let mut spki = vec![
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
    ];
    spki.extend_from_slice(pair.public_key().as_ref());
    let pem = base64::engine::general_purpose::STANDARD.encode(spki);
    let key = root.path().join("key.pem");
    std::fs::write(
        &key,
        format!("-----BEGIN PUBLIC KEY-----\n{pem}\n-----END PUBLIC KEY-----\n"),
    )
    .unwrap();
    let server = Server::start(Options {
        tokens: Tokens::Outside {
            realm: "https://auth.test/token".into(),
            service: "reg".into(),
            issuer: "auth.test".into(),
            key,
        },
        ..options(&root.path().join("registry"))
    });
    let challenge = server.get("/v2/team/a/tags/list");
    assert_eq!(
        challenge.header("www-authenticate"),
        Some(
            "Bearer realm=\"https://auth.test/token\",service=\"reg\",scope=\"repository:team/a:pull\""
        )
    );
    let token = |issuer: &str, service: &str, access: &str| {
        let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        let claims = format!(
            r#"{{"iss":"{issuer}","aud":"{service}","sub":"bob","exp":{},"access":[{access}]}}"#,
            now.as_secs() + 60
        );
        let message = format!("{}.{}", encode(r#"{"alg":"EdDSA"}"#), encode(&claims));
        let signature = pair.sign(message.as_bytes());
        let signature = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(signature.as_ref());
        format!("Bearer {message}.{signature}")
    };
    let access = r#"{"type":"repository","name":"team/a","actions":["pull","push"]}"#;
    let good = token("auth.test", "reg", access);
    let upload = "/v2/team/a/blobs/uploads/";
    assert_eq!(with(&server, &good, "POST", upload, b"").status, 202);
    let elsewhere = upload.replace("team/a", "team/b");
    assert_eq!(with(&server, &good, "POST", &elsewhere, b"").status, 401);
    for bad in [
        token("other.test", "reg", access),
        token("auth.test", "other", access),
    ] {
        assert_eq!(with(&server, &bad, "POST", upload, b"").status, 401);
    }
    // Whoever may list the repositories is not whoever may do everything.
    let may = |kind: &str, name: &str, action: &str| {
        let grant = format!(r#"{{"type":"{kind}","name":"{name}","actions":["{action}"]}}"#);
        let token = token("auth.test", "reg", &grant);
        ["/v2/_catalog", "/metrics"].map(|path| with(&server, &token, "GET", path, b"").status)
    };
    assert_eq!(may("registry", "catalog", "*"), [200, 401]);
    assert_eq!(may("repository", "gantry", "admin"), [401, 401]);
    assert_eq!(may("registry", "gantry", "admin"), [401, 200]);
    assert!(
        server
            .get("/metrics")
            .header("www-authenticate")
            .unwrap()
            .ends_with("scope=\"registry:gantry:admin\"")
    );
    // It signs none itself.
    assert_eq!(server.get("/token").status, 405);
}

#[test]
fn a_proxy_before_the_registry_is_named_in_challenges() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(Options {
        tokens: Tokens::BuiltIn {
            service: "reg".into(),
        },
        public_url: Some("https://registry.example/".into()),
        ..with_users(root.path())
    });
    assert_eq!(
        server.get("/v2/").header("www-authenticate"),
        Some("Bearer realm=\"https://registry.example/token\",service=\"reg\"")
    );
}
