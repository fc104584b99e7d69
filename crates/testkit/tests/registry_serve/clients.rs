//! Other clients and other registries, engines, users.

use std::process::{Command, Output, Stdio};

use gantry_testkit::engine::{Engine, ORACLE_SOCKET, binary};
use gantry_testkit::peer::{DockerRegistry, PASSWORD, USER};

use crate::place::{MANIFEST, Place, busybox, copy, digest, faultless, sha256};

#[test]
fn images_go_between_registries_by_skopeo_podman_and_mirror_and_stay_the_same() {
    let place = Place::new();
    let registry = place.serve(&[]);
    let other = DockerRegistry::start(&place.engine, place.port(), false);
    let (ours, theirs) = (registry.host(), other.host());
    // The archive has no compressed form, so this copy alone makes a manifest.
    place.ok(&[
        "skopeo",
        "--insecure-policy",
        "copy",
        "--dest-tls-verify=false",
        &busybox(),
        &format!("docker://{ours}/a/busybox:v1"),
    ]);
    let first = digest(&place, &format!("{ours}/a/busybox:v1"));
    for (from, to) in [
        (
            format!("{ours}/a/busybox:v1"),
            format!("{theirs}/b/busybox:v1"),
        ),
        (
            format!("{theirs}/b/busybox:v1"),
            format!("{ours}/c/back:v1"),
        ),
    ] {
        copy(
            &place,
            &format!("docker://{from}"),
            &format!("docker://{to}"),
        );
        assert_eq!(digest(&place, &to), first, "{to}");
    }
    place.gantry(&[
        "mirror",
        &format!("{theirs}/b/busybox:v1"),
        &format!("{ours}/d/mirrored"),
    ]);
    place.gantry(&[
        "mirror",
        &format!("{ours}/d/mirrored:v1"),
        &format!("{theirs}/e/mirrored:x"),
    ]);
    let moved = place.gantry(&[
        "mirror",
        "--all-tags",
        &format!("{ours}/a/busybox"),
        &format!("{ours}/f/mounted"),
    ]);
    assert!(moved.ends_with("Copied 0 bytes of blobs"), "{moved}");
    for name in [
        format!("{ours}/d/mirrored:v1"),
        format!("{theirs}/e/mirrored:x"),
        format!("{ours}/f/mounted:v1"),
    ] {
        assert_eq!(digest(&place, &name), first, "{name}");
    }
    let storage = [
        "--root",
        &place.path("podman"),
        "--runroot",
        &place.path("podman-run"),
        "--storage-driver",
        "vfs",
    ]
    .map(str::to_owned);
    let podman = |words: &[&str]| {
        let mut all = vec!["podman"];
        all.extend(storage.iter().map(String::as_str));
        all.extend_from_slice(words);
        place.ok(&all)
    };
    podman(&[
        "pull",
        "-q",
        "--tls-verify=false",
        &format!("{ours}/a/busybox:v1"),
    ]);
    let id = podman(&["images", "-q", "--no-trunc"]);
    podman(&[
        "push",
        "-q",
        "--tls-verify=false",
        &format!("{ours}/a/busybox:v1"),
        &format!("{ours}/g/pushed:v1"),
    ]);
    podman(&["rmi", "-f", &id]);
    podman(&[
        "pull",
        "-q",
        "--tls-verify=false",
        &format!("{ours}/g/pushed:v1"),
    ]);
    assert_eq!(podman(&["images", "-q", "--no-trunc"]), id);
    // What refers to an image goes with it when that is wished.
    let referrer = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","artifactType":"x/signature","config":{{"mediaType":"x/empty","digest":"{}","size":2,"data":"e30="}},"layers":[],"subject":{{"mediaType":"{MANIFEST}","digest":"{first}","size":427}}}}"#,
        sha256(b"{}")
    );
    let send = |method: &str, path: &str, body: &str| {
        let body = (!body.is_empty()).then_some((MANIFEST, body.as_bytes()));
        registry.send(method, path, body).expect("an answer")
    };
    let octets = ("application/octet-stream", b"{}".as_slice());
    let path = format!("/v2/a/busybox/blobs/uploads/?digest={}", sha256(b"{}"));
    let sent = registry.send("POST", &path, Some(octets));
    assert_eq!(sent.expect("an answer").status, 201);
    let path = format!("/v2/a/busybox/manifests/{}", sha256(referrer.as_bytes()));
    assert_eq!(send("PUT", &path, &referrer).status, 201);
    let from = format!("{ours}/a/busybox:v1");
    let to = format!("{ours}/h/signed:v1");
    let referrers = || send("GET", &format!("/v2/h/signed/referrers/{first}"), "").text();
    place.gantry(&["mirror", &from, &to]);
    assert!(!referrers().contains("x/signature"));
    place.gantry(&["mirror", "--referrers", &from, &to]);
    assert!(referrers().contains("x/signature"), "{}", referrers());
    assert_eq!(
        place.gantry(&["ls", &ours]),
        "a/busybox\nc/back\nd/mirrored\nf/mounted\ng/pushed\nh/signed"
    );
    assert_eq!(place.gantry(&["tags", &format!("{ours}/a/busybox")]), "v1");
    let shown = place.gantry(&["inspect", &format!("{ours}/a/busybox:v1")]);
    assert!(shown.contains(&first), "{shown}");
    place.gantry(&[
        "delete",
        &format!("{ours}/a/busybox:v1"),
        &format!("{ours}/c/back@{first}"),
    ]);
    assert_eq!(place.gantry(&["tags", &format!("{ours}/a/busybox")]), "");
    assert_eq!(
        place.gantry(&["collect", &ours]),
        "Removed 0 manifests, 0 blobs (0 bytes), 0 uploads"
    );
    registry.kill();
    let root = place.path("root");
    let removed = place.gantry(&[
        "collect",
        "--root",
        &root,
        "--grace",
        "0s",
        "--untagged-after",
        "1ns",
    ]);
    assert!(removed.starts_with("Removed 1 manifests, "), "{removed}");
}

/// Docker's client pushes, removes, pulls and runs an image at one engine; gives what the registry says of it.
#[track_caller]
fn round_trip(docker: impl Fn(&[&str]) -> Output, place: &Place, host: &str) -> String {
    let name = format!("{host}/from/docker:v1");
    let ok = |words: &[&str]| {
        let output = docker(words);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {error}");
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    };
    ok(&["tag", "localhost/test/busybox:1", &name]);
    let pushed = ok(&["push", &name]);
    let pushed = pushed.lines().last().unwrap_or_default().to_owned();
    ok(&["rmi", &name]);
    ok(&["pull", &name]);
    assert_eq!(ok(&["run", "--rm", &name, "echo", "hello"]), "hello");
    ok(&["rmi", &name]);
    let digest = digest(place, &name);
    assert!(
        pushed.starts_with(&format!("v1: digest: {digest} ")),
        "{pushed}"
    );
    digest
}

#[test]
fn dockers_client_pushes_and_pulls_at_gantry_and_at_docker() {
    let place = Place::beside(Engine::private(&[]));
    let data = place.engine.places().data_root.display().to_string();
    let registry = place.serve(&["--engine-root", &data]);
    let client = std::env::var("GANTRY_DOCKER").unwrap_or_else(|_| "docker".to_owned());
    let socket = format!("unix://{}", place.engine.socket.display());
    let docker = |words: &[&str]| {
        let mut command = Command::new(&client);
        command.args(["-H", &socket]).args(words);
        command.output().expect("the docker client")
    };
    round_trip(docker, &place, &registry.host());
    // The image's configuration, which the engine keeps as it is, was linked and not sent.
    let linked = std::fs::read_dir(place.root().join("content/sha256")).expect("the content");
    let links = linked.map(|entry| {
        let metadata = entry.expect("an entry").metadata().expect("metadata");
        std::os::unix::fs::MetadataExt::nlink(&metadata)
    });
    assert_eq!(links.max(), Some(2));
    drop(registry);
    let Some(socket) = std::env::var_os(ORACLE_SOCKET) else {
        println!("skipped: the same at the reference engine, which is not here");
        return;
    };
    // The reference engine is on this machine's own network.
    let place = Place::beside(Engine::reference(socket.clone().into()));
    let registry = place.serve(&[]);
    let socket = format!("unix://{}", socket.display());
    let docker = |words: &[&str]| {
        let mut command = Command::new(&client);
        command.args(["-H", &socket]).args(words);
        command.output().expect("the docker client")
    };
    round_trip(docker, &place, &registry.host());
}

#[test]
fn a_daemon_pulls_through_a_cache_of_docker_hub() {
    // The port is free in a network of its own.
    const MIRROR: &str = "127.0.0.1:5055";
    let engine = Engine::private_empty(&["--registry-mirror", "http://127.0.0.1:5055"]);
    let place = Place::beside(engine);
    let upstream = DockerRegistry::start(&place.engine, place.port(), false);
    place.ok(&[
        "skopeo",
        "--insecure-policy",
        "copy",
        "--dest-tls-verify=false",
        &busybox(),
        &format!("docker://{}/library/busybox:cached", upstream.host()),
    ]);
    let hub = format!("docker.io=http://{}", upstream.host());
    let _registry = place.serve_at(MIRROR, &["--upstream", &hub, "--mirror", "docker.io"]);
    place.engine.start_daemon(&[]);
    let client = std::env::var("GANTRY_DOCKER").unwrap_or_else(|_| "docker".to_owned());
    let docker = |words: &[&str]| {
        let mut command = Command::new(&client);
        command.arg("-H");
        command.arg(format!("unix://{}", place.engine.socket.display()));
        let output = command.args(words).output().expect("the docker client");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {error}");
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    };
    docker(&["pull", "busybox:cached"]);
    docker(&["rmi", "busybox:cached"]);
    let kept = place.gantry(&["ls", MIRROR]);
    assert_eq!(kept, "docker.io/library/busybox");
    drop(upstream);
    // From the cache alone.
    docker(&["pull", "busybox:cached"]);
    let said = docker(&["run", "--rm", "busybox:cached", "echo", "hello"]);
    assert_eq!(said, "hello");
}

#[test]
fn two_clients_push_one_image_at_once() {
    let place = Place::new();
    let registry = place.serve(&[]);
    let host = registry.host();
    std::thread::scope(|scope| {
        for name in ["same", "same", "one", "two"] {
            let (place, host) = (&place, &host);
            scope.spawn(move || {
                place.ok(&[
                    "skopeo",
                    "--insecure-policy",
                    "copy",
                    "--dest-tls-verify=false",
                    &busybox(),
                    &format!("docker://{host}/{name}:v1"),
                ])
            });
        }
    });
    let digests = ["same", "one", "two"].map(|name| digest(&place, &format!("{host}/{name}:v1")));
    assert!(
        digests.iter().all(|digest| *digest == digests[0]),
        "{digests:?}"
    );
    faultless(&place.root());
}

#[test]
fn users_come_with_passwords_and_tokens_over_tls() {
    let place = Place::new();
    let certified =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let certificates = place.directory.path().join("certs");
    std::fs::create_dir(&certificates).expect("make a directory");
    let (certificate, key) = (place.path("certs/ca.crt"), place.path("key.pem"));
    std::fs::write(&certificate, certified.cert.pem()).expect("write");
    std::fs::write(&key, certified.signing_key.serialize_pem()).expect("write");
    // `passwd` reads the password from its stdin.
    let mut passwd = place.command(&[&binary().display().to_string(), "registry", "passwd", USER]);
    let mut child = passwd
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start gantry");
    std::io::Write::write_all(
        &mut child.stdin.take().expect("a pipe"),
        PASSWORD.as_bytes(),
    )
    .expect("write");
    let line = child.wait_with_output().expect("the line").stdout;
    std::fs::write(place.path("users"), line).expect("write");
    std::fs::write(
        place.path("access"),
        format!("anonymous public/** pull\n{USER} ** pull,push\n"),
    )
    .expect("write");
    let (users, access, directory) = (
        place.path("users"),
        place.path("access"),
        certificates.display().to_string(),
    );
    for scheme in [&[][..], &["--token"][..]] {
        let mut flags = vec![
            "--tls-cert",
            &certificate,
            "--tls-key",
            &key,
            "--htpasswd",
            &users,
            "--access",
            &access,
        ];
        flags.extend_from_slice(scheme);
        let registry = place.serve(&flags);
        let host = registry.host();
        let push = |name: &str, credentials: &str| {
            place.output(&[
                "skopeo",
                "--insecure-policy",
                "copy",
                "--dest-cert-dir",
                &directory,
                "--dest-creds",
                credentials,
                &busybox(),
                &format!("docker://{host}/{name}:v1"),
            ])
        };
        let good = push("public/x", &format!("{USER}:{PASSWORD}"));
        assert!(
            good.status.success(),
            "{scheme:?} {}",
            String::from_utf8_lossy(&good.stderr)
        );
        assert!(
            push("private/x", &format!("{USER}:{PASSWORD}"))
                .status
                .success()
        );
        assert!(!push("public/x", &format!("{USER}:wrong")).status.success());
        let pull = |name: &str| {
            let name = format!("docker://{host}/{name}:v1");
            place.output(&[
                "skopeo",
                "inspect",
                "--no-creds",
                "--cert-dir",
                &directory,
                &name,
            ])
        };
        let anonymous = pull("public/x");
        assert!(
            anonymous.status.success(),
            "{}",
            String::from_utf8_lossy(&anonymous.stderr)
        );
        let refused = pull("private/x");
        assert!(!refused.status.success());
        // A cache logs in at its upstream, whose certificate it was told of.
        let (accounts, certs) = (place.path("accounts"), place.path("upstream-certs"));
        std::fs::write(&accounts, format!("up:{USER}:{PASSWORD}\n")).expect("write");
        std::fs::create_dir_all(format!("{certs}/{host}")).expect("make a directory");
        std::fs::copy(&certificate, format!("{certs}/{host}/ca.crt")).expect("copy");
        let cache = place.serve(&[
            "--root",
            &place.path(&format!("cache{}", scheme.len())),
            "--upstream",
            &format!("up=https://{host}"),
            "--upstream-certs",
            &certs,
            "--upstream-passwords",
            &accounts,
        ]);
        copy(
            &place,
            &format!("docker://{}/up/private/x:v1", cache.host()),
            &format!("dir:{}", place.path(&format!("copy{}", scheme.len()))),
        );
        // A certificate that nobody vouches for is not taken.
        assert!(
            !place
                .output(&["skopeo", "inspect", &format!("docker://{host}/public/x:v1")])
                .status
                .success()
        );
    }
}
