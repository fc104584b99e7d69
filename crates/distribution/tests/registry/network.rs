//! Hosts that are not there, and mirrors.

use std::net::TcpListener;
use std::path::Path;

use bytes::Bytes;
use gantry_distribution::{Config, Credentials, Error, Mounted, Registries, Repository};
use gantry_testkit::registry::{Access, Fault, Registry, Times};

use crate::{at, blob, config, content, digest, read, registries, repository, user};

/// An address at which nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

/// A client with this `hosts.toml` for `domain`.
fn with_hosts(directory: &Path, domain: &str, text: &str) -> Registries {
    let host = directory.join(domain);
    std::fs::create_dir_all(&host).expect("a directory");
    std::fs::write(host.join("hosts.toml"), text).expect("a file");
    registries(Config {
        certs_dirs: vec![directory.to_owned()],
        ..config()
    })
}

fn of_hub(registries: &Registries) -> Repository {
    at(registries, "docker.io", "library/x", user())
}

#[tokio::test]
async fn who_is_not_there_is_told_in_the_words_of_go() {
    let host = nobody();
    let error = repository(&host, "a")
        .manifest("1")
        .await
        .expect_err("nobody");
    assert_eq!(
        error.to_string(),
        format!("Get \"http://{host}/v2/\": dial tcp {host}: connect: connection refused")
    );
    assert!(matches!(error, Error::Network(_)));
    let error = repository("localhost:1", "a")
        .manifest("1")
        .await
        .expect_err("nobody");
    let text = error.to_string();
    assert!(
        text.starts_with("Get \"http://localhost:1/v2/\": dial tcp ")
            && text.ends_with(":1: connect: connection refused"),
        "{text}"
    );
    let error = repository("absent.invalid", "a")
        .manifest("1")
        .await
        .expect_err("no name");
    let text = error.to_string();
    assert!(
        text.starts_with("Get \"https://absent.invalid/v2/\": dial tcp: lookup absent.invalid"),
        "{text}"
    );
}

#[tokio::test]
async fn tls_is_tried_once_and_what_works_is_remembered() {
    let registry = Registry::start();
    registry.push_image("a", "1", &[b"x"]);
    let registries = registries(config());
    for _ in 0..3 {
        let repository = at(&registries, &registry.host(), "a", Credentials::default());
        repository.manifest("1").await.expect("a manifest");
    }
    let pings = registry
        .requests()
        .iter()
        .filter(|it| it.path == "/v2/")
        .count();
    assert_eq!(pings, 1);
}

#[tokio::test]
async fn a_mirror_serves_and_sees_no_credentials() {
    let (mirror, registry) = (Registry::start(), Registry::start());
    let image = mirror.push_image("library/x", "1", &[b"x"]);
    mirror.set_access(Access::Bearer(Default::default()));
    let directory = tempfile::tempdir().expect("a directory");
    let text = format!(
        "server = \"{}\"\n[host.\"{mirror}\"]\n[host.\"{mirror}\".header]\nx-test = \"1\"",
        registry.url(),
        mirror = mirror.url()
    );
    let registries = with_hosts(directory.path(), "docker.io", &text);
    let manifest = of_hub(&registries).manifest("1").await.expect("a manifest");
    assert_eq!(manifest.descriptor.digest.as_str(), image.manifest);
    assert_eq!(manifest.host, mirror.host());
    assert!(registry.requests().is_empty());
    let requests = mirror.requests();
    assert!(!requests.iter().any(|it| {
        it.header("authorization")
            .is_some_and(|it| it.starts_with("Basic"))
    }));
    let request = &mirror.requests_of("GET", "/manifests/")[0];
    assert_eq!(request.query("ns").as_deref(), Some("docker.io"));
    assert_eq!(request.header("x-test"), Some("1"));
}

#[tokio::test]
async fn a_mirror_that_fails_or_lacks_it_is_passed_over() {
    let registry = Registry::start();
    let image = registry.push_image("library/x", "1", &[b"x"]);
    registry.set_access(Access::Basic {
        user: "user".to_owned(),
        password: "secret".to_owned(),
    });
    let (empty, broken, lying) = (Registry::start(), Registry::start(), Registry::start());
    broken.misbehave("*", "", Times::Always, Fault::status(500, ""));
    lying.push_image("library/x", "1", &[b"x"]);
    lying.misbehave("GET", "/manifests/", Times::Always, Fault::WrongBytes);
    let directory = tempfile::tempdir().expect("a directory");
    let mut text = format!("server = \"{}\"\n", registry.url());
    for mirror in [
        &format!("http://{}", nobody()),
        &empty.url(),
        &broken.url(),
        &lying.url(),
    ] {
        text += &format!("[host.\"{mirror}\"]\n");
    }
    let registries = with_hosts(directory.path(), "docker.io", &text);
    let manifest = of_hub(&registries).manifest("1").await.expect("a manifest");
    assert_eq!(manifest.descriptor.digest.as_str(), image.manifest);
    assert_eq!(manifest.host, registry.host());
    for mirror in [&empty, &broken, &lying] {
        assert_eq!(mirror.requests_of("GET", "/manifests/").len(), 1);
    }
}

#[tokio::test]
async fn a_blob_goes_on_at_the_next_host() {
    let (mirror, registry) = (Registry::start(), Registry::start());
    let bytes = content(1000);
    let descriptor = blob(&mirror, &bytes);
    blob(&registry, &bytes);
    mirror.misbehave("GET", "/blobs/", Times::Only(1), Fault::CutAfter(300));
    mirror.misbehave("GET", "/blobs/", Times::Always, Fault::status(503, ""));
    let directory = tempfile::tempdir().expect("a directory");
    let text = format!(
        "server = \"{}\"\n[host.\"{}\"]\n",
        registry.url(),
        mirror.url()
    );
    let registries = with_hosts(directory.path(), "a.example", &text);
    let repository = at(&registries, "a.example", "x", Credentials::default());
    assert_eq!(
        read(&repository, &descriptor, 0).await.expect("a blob"),
        bytes
    );
    let rest = &registry.requests_of("GET", "/blobs/")[0];
    assert_eq!(rest.header("range"), Some("bytes=300-"));
}

#[tokio::test]
async fn mirrors_are_asked_for_what_they_are_for() {
    let (mirror, registry) = (Registry::start(), Registry::start());
    let image = registry.push_image("x", "1", &[b"x"]);
    mirror.push_image("x", "1", &[b"x"]);
    let directory = tempfile::tempdir().expect("a directory");
    let text = format!(
        "server = \"{}\"\n[host.\"{}\"]\ncapabilities = [\"pull\"]",
        registry.url(),
        mirror.url()
    );
    let registries = with_hosts(directory.path(), "a.example:5000", &text);
    let repository = at(&registries, "a.example:5000", "x", Credentials::default());
    let by_tag = repository.manifest("1").await.expect("a manifest");
    let by_digest = repository
        .manifest(&image.manifest)
        .await
        .expect("a manifest");
    assert_eq!(
        (by_tag.host, by_digest.host),
        (registry.host(), mirror.host())
    );
    repository.upload().await.expect("an upload").cancel().await;
    assert!(mirror.requests_of("POST", "").is_empty());
}

#[tokio::test]
async fn docker_hub_has_mirrors_by_the_daemon_s_option() {
    let mirror = Registry::start();
    mirror.push_image("library/x", "1", &[b"x"]);
    let registries = registries(Config {
        hub_mirrors: vec![format!("http://{}", nobody()), mirror.url()],
        ..config()
    });
    let manifest = of_hub(&registries).manifest("1").await.expect("a manifest");
    assert_eq!(manifest.host, mirror.host());
}

#[tokio::test]
async fn a_new_configuration_counts_from_now_on() {
    let (one, two) = (Registry::start(), Registry::start());
    one.push_image("library/x", "1", &[b"one"]);
    two.push_image("library/x", "1", &[b"two"]);
    let mirrored = |registry: &Registry| Config {
        hub_mirrors: vec![registry.url()],
        ..config()
    };
    let registries = registries(mirrored(&one));
    let old = of_hub(&registries);
    registries.reload(mirrored(&two)).expect("reloaded");
    assert_eq!(
        of_hub(&registries).manifest("1").await.expect("it").host,
        two.host()
    );
    assert_eq!(old.manifest("1").await.expect("it").host, one.host());
}

#[tokio::test]
async fn a_registry_may_have_an_address_of_ipv6() {
    let registry = Registry::start_at("[::1]:0");
    registry.push_image("a", "1", &[b"x"]);
    let repository = repository(&registry.host(), "a");
    let manifest = repository.manifest("1").await.expect("a manifest");
    assert_eq!(manifest.host, registry.host());
    let error = crate::repository("[::1]:1", "a")
        .manifest("1")
        .await
        .expect_err("nobody");
    assert_eq!(
        error.to_string(),
        "Get \"http://[::1]:1/v2/\": dial tcp [::1]:1: connect: connection refused"
    );
}

#[tokio::test]
async fn a_default_file_is_for_registries_without_their_own() {
    let (own, default) = (Registry::start(), Registry::start());
    own.push_image("x", "1", &[b"x"]);
    default.push_image("x", "1", &[b"x"]);
    let directory = tempfile::tempdir().expect("a directory");
    with_hosts(
        directory.path(),
        "_default",
        &format!("[host.\"{}\"]", default.url()),
    );
    let text = format!("[host.\"{}\"]", own.url());
    let registries = with_hosts(directory.path(), "a.example", &text);
    for (domain, registry) in [("a.example", &own), ("b.example", &default)] {
        let repository = at(&registries, domain, "x", Credentials::default());
        let manifest = repository.manifest("1").await.expect("a manifest");
        assert_eq!(manifest.host, registry.host());
    }
    assert_eq!(default.requests_of("GET", "ns=b.example").len(), 1);
}

#[tokio::test]
async fn a_mirror_that_does_not_answer_is_left_alone_for_a_while() {
    let (mirror, registry) = (Registry::start(), Registry::start());
    registry.push_image("x", "1", &[b"x"]);
    mirror.push_image("x", "1", &[b"x"]);
    mirror.misbehave("GET", "/manifests/", Times::Always, Fault::StallAfter(0));
    let directory = tempfile::tempdir().expect("a directory");
    let text = format!(
        "server = \"{}\"\n[host.\"{}\"]",
        registry.url(),
        mirror.url()
    );
    let registries = with_hosts(directory.path(), "a.example", &text);
    for _ in 0..3 {
        let repository = at(&registries, "a.example", "x", Credentials::default());
        repository.manifest("1").await.expect("a manifest");
    }
    // It greeted, and then the manifest stalled.
    let paths: Vec<_> = mirror.requests().iter().map(|it| it.path.clone()).collect();
    assert_eq!(paths.len(), 2, "{paths:?}");
}

#[tokio::test]
async fn headers_of_a_mirror_stay_with_it() {
    let (mirror, storage) = (Registry::start(), Registry::start());
    let descriptor = blob(&mirror, b"x");
    storage.push_blob(b"x");
    let target = format!("{}/v2/s/blobs/{}", storage.url(), descriptor.digest);
    mirror.misbehave("GET", "/blobs/", Times::Always, Fault::redirect(&target));
    let directory = tempfile::tempdir().expect("a directory");
    let text = format!(
        "[host.\"{0}\"]\n[host.\"{0}\".header]\nx-key = \"secret\"",
        mirror.url()
    );
    let registries = with_hosts(directory.path(), "a.example", &text);
    let repository = at(&registries, "a.example", "x", Credentials::default());
    assert_eq!(
        read(&repository, &descriptor, 0).await.expect("a blob"),
        b"x"
    );
    assert_eq!(
        mirror.requests_of("GET", "/blobs/")[0].header("x-key"),
        Some("secret")
    );
    assert_eq!(storage.requests()[0].header("x-key"), None);
}

#[tokio::test]
async fn a_push_stays_with_one_host() {
    let (mirror, registry) = (Registry::start(), Registry::start());
    let only_here = digest(&registry.push_blob(b"x"));
    let directory = tempfile::tempdir().expect("a directory");
    let text = format!(
        "server = \"{}\"\n[host.\"{}\"]\n",
        registry.url(),
        mirror.url()
    );
    let registries = with_hosts(directory.path(), "a.example", &text);
    let repository = at(&registries, "a.example", "x", Credentials::default());
    // A mirror that may be pushed to is the one that is pushed to, so it is the one to have the blob.
    let head = repository.head_blob(&only_here).await.expect("a head");
    assert_eq!(head, None);
    let mounted = repository.mount(&only_here, "y").await.expect("a mount");
    let Mounted::Upload(mut upload) = mounted else {
        panic!("it is not there");
    };
    upload.send(Bytes::from_static(b"x")).await.expect("sent");
    upload.commit(&only_here).await.expect("an upload");
    mirror.misbehave(
        "PUT",
        "/manifests/",
        Times::First(1),
        Fault::status(503, ""),
    );
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = Bytes::from_static(b"{\"schemaVersion\":2}");
    let put = repository.put_manifest("1", kind, manifest).await;
    let put = put.expect("written");
    repository
        .delete_manifest(put.as_str())
        .await
        .expect("deleted");
    repository.delete_blob(&only_here).await.expect("deleted");
    assert!(registry.requests().is_empty(), "{:?}", registry.requests());
    // What concerns the registry as a whole is for no mirror.
    registry.misbehave("POST", "/v2/_x/y", Times::Always, Fault::status(200, "{}"));
    let nobody = Credentials::default();
    let called = registries.extension("a.example", "_x/y", &nobody).await;
    assert_eq!(called.expect("an answer"), "{}");
}

/// A client for `a.example`, with one mirror before it.
fn mirrored(directory: &Path, mirror: &Registry, registry: &Registry) -> Repository {
    let text = format!(
        "server = \"{}\"\n[host.\"{}\"]\n",
        registry.url(),
        mirror.url()
    );
    let registries = with_hosts(directory, "a.example", &text);
    at(&registries, "a.example", "x", Credentials::default())
}

#[tokio::test]
async fn a_mirror_that_gives_wrong_bytes_is_not_asked_for_them_again() {
    let (mirror, registry) = (Registry::start(), Registry::start());
    let bytes = content(1000);
    let descriptor = blob(&mirror, &bytes);
    let other = blob(&mirror, b"other");
    blob(&registry, &bytes);
    mirror.misbehave("GET", "/blobs/", Times::First(2), Fault::WrongBytes);
    let directory = tempfile::tempdir().expect("a directory");
    let repository = mirrored(directory.path(), &mirror, &registry);
    let mut reader = repository.blob(&descriptor, 0).await.expect("a blob");
    while reader.next().await.expect("a piece").is_some() {}
    assert!(reader.blame(), "a mirror gave it");
    let again = read(&repository, &descriptor, 0).await.expect("a blob");
    assert_eq!(again, bytes);
    assert_eq!(mirror.requests_of("GET", "/blobs/").len(), 1);
    // Only for this one.
    assert_eq!(read(&repository, &other, 0).await.expect("it").len(), 5);
    assert_eq!(mirror.requests_of("GET", "/blobs/").len(), 2);
    // The registry itself is nobody to be passed over.
    let reader = repository.blob(&descriptor, 0).await.expect("a blob");
    assert!(!reader.blame());
}

#[tokio::test]
async fn a_blob_that_is_read_whole_comes_from_who_has_it_right() {
    let bytes = content(1000);
    let chunked = |body: &str| Fault::Answer {
        status: 200,
        headers: vec![("Transfer-Encoding".to_owned(), "chunked".to_owned())],
        body: format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
    };
    for fault in [
        Fault::WrongBytes,
        Fault::ContentLength(999),
        Fault::ContentLength(1001),
        chunked(&"y".repeat(1000)),
        chunked(&"y".repeat(1001)),
    ] {
        let (mirror, registry) = (Registry::start(), Registry::start());
        let descriptor = blob(&mirror, &bytes);
        blob(&registry, &bytes);
        mirror.misbehave("GET", "/blobs/", Times::Always, fault.clone());
        let directory = tempfile::tempdir().expect("a directory");
        let repository = mirrored(directory.path(), &mirror, &registry);
        for _ in 0..2 {
            let whole = repository.whole_blob(&descriptor).await;
            assert!(whole.expect("a blob") == bytes, "{fault:?}");
        }
        assert_eq!(mirror.requests_of("GET", "/blobs/").len(), 1, "{fault:?}");
        // Where nobody has it right it is refused.
        registry.misbehave("GET", "/blobs/", Times::Always, Fault::WrongBytes);
        let error = repository
            .whole_blob(&descriptor)
            .await
            .expect_err("wrong everywhere");
        assert!(matches!(error, Error::Corrupt(_)), "{error}");
    }
}
