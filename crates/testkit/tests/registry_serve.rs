//! `gantry registry` as a user meets it: with skopeo, podman and Debian's docker-registry, with TLS and passwords, killed at
//! any moment, on a full disk.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gantry_testkit::engine::{Engine, binary, images_directory};
use gantry_testkit::http;
use gantry_testkit::peer::{DockerRegistry, PASSWORD, USER};
use gantry_testkit::wait::eventually_within;
use sha2::Digest as _;
use tempfile::TempDir;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Namespaces, and a directory whose `root` is the registry's.
struct Place {
    engine: Engine,
    directory: TempDir,
}

/// A running registry. Dropped, it is killed.
struct Registry<'a> {
    place: &'a Place,
    child: Child,
    address: SocketAddr,
}

impl Place {
    fn new() -> Place {
        Place::beside(Engine::private_empty(&[]))
    }

    fn beside(engine: Engine) -> Place {
        let directory = tempfile::Builder::new()
            .prefix("gantry-registry-")
            .tempdir_in("/var/tmp")
            .expect("make a directory");
        // Nobody's own credentials; podman wants the file to be there.
        std::fs::write(directory.path().join("auth.json"), "{}").expect("write");
        Place { engine, directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// A free port of the namespace.
    fn port(&self) -> u16 {
        self.engine.on_host(|| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
            listener.local_addr().expect("an address").port()
        })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut all = self.engine.host_words();
        all.extend(words.iter().map(|&word| word.to_owned()));
        let mut command = Command::new(&all[0]);
        command
            .args(&all[1..])
            .env("DOCKER_CONFIG", self.path("config"))
            .env("REGISTRY_AUTH_FILE", self.path("auth.json"))
            .stdin(Stdio::null());
        command
    }

    fn output(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("start nsenter")
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        let output = self.output(words);
        assert!(
            output.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// Runs a command of `gantry registry`.
    #[track_caller]
    fn gantry(&self, words: &[&str]) -> String {
        let binary = binary().display().to_string();
        let mut all = vec![binary.as_str(), "registry"];
        all.extend_from_slice(words);
        self.ok(&all)
    }

    fn serve(&self, flags: &[&str]) -> Registry<'_> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port()));
        self.serve_at(&address.to_string(), flags)
    }

    fn serve_at(&self, text: &str, flags: &[&str]) -> Registry<'_> {
        let (binary, root) = (binary().display().to_string(), self.path("root"));
        let address = text.parse().expect("an address");
        let mut words = vec![
            "setpriv",
            "--pdeathsig",
            "KILL",
            &binary,
            "registry",
            "serve",
            "--root",
            &root,
            "--addr",
            text,
        ];
        words.extend_from_slice(flags);
        let log = std::fs::File::create(self.path("log")).expect("make the log");
        let child = self
            .command(&words)
            .stderr(log)
            .spawn()
            .expect("start nsenter");
        let registry = Registry {
            place: self,
            child,
            address,
        };
        eventually_within(Duration::from_secs(20), "the registry listens", || {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            log.contains("registry listens on").then_some(())
        });
        registry
    }
}

impl Registry<'_> {
    fn host(&self) -> String {
        self.address.to_string()
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, &[u8])>,
    ) -> anyhow::Result<http::Response> {
        let address = self.address;
        self.place
            .engine
            .on_host(|| http::tcp(address, method, path, body))
    }

    fn kill(mut self) {
        self.child.kill().expect("kill the registry");
        self.child.wait().expect("wait for the registry");
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn busybox() -> String {
    format!(
        "docker-archive:{}",
        images_directory().join("busybox.tar").display()
    )
}

/// The digest of a name at a registry without TLS.
#[track_caller]
fn digest(place: &Place, name: &str) -> String {
    let name = format!("docker://{name}");
    let words = [
        "skopeo",
        "inspect",
        "--tls-verify=false",
        "--format",
        "{{.Digest}}",
        &name,
    ];
    place.ok(&words)
}

#[track_caller]
fn copy(place: &Place, from: &str, to: &str) {
    place.ok(&[
        "skopeo",
        "--insecure-policy",
        "copy",
        "--preserve-digests",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        from,
        to,
    ]);
}

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
    assert_eq!(
        place.gantry(&["ls", &ours]),
        "a/busybox\nc/back\nd/mirrored\nf/mounted\ng/pushed"
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
    let Some(socket) = std::env::var_os(gantry_testkit::engine::ORACLE_SOCKET) else {
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
        // A certificate that nobody vouches for is not taken.
        assert!(
            !place
                .output(&["skopeo", "inspect", &format!("docker://{host}/public/x:v1")])
                .status
                .success()
        );
    }
}

fn sha256(content: &[u8]) -> String {
    let hash = sha2::Sha256::digest(content);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Hashes all content again, and says what is not what it is called.
#[track_caller]
fn faultless(root: &Path) {
    let directory = root.join("content/sha256");
    for entry in std::fs::read_dir(&directory).expect("the content") {
        let path = entry.expect("an entry").path();
        let content = std::fs::read(&path).expect("read content");
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        assert_eq!(sha256(&content), format!("sha256:{name}"));
    }
}

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
        drop(registry);
        faultless(&place.root());
    }
    let log = std::fs::read_to_string(place.path("log")).expect("the log");
    assert!(log.contains("collected garbage"), "no collection ran");
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
    let registry = place.serve(&[]);
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
}
