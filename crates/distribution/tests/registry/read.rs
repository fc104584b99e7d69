//! Manifests and blobs from a registry that cuts, stalls, lies and refuses.

use std::time::{Duration, Instant};

use gantry_api::error::ErrorKind;
use gantry_api::oci::image::Descriptor;
use gantry_distribution::Error;
use gantry_testkit::registry::{Fault, Registry, Times, digest_of};

use crate::{at, blob, config, content, digest, read, registries, repository, watched};

const SIZE: usize = 300_000;

#[tokio::test]
async fn an_image_is_read_by_tag_and_by_digest() {
    let registry = Registry::start();
    let image = registry.push_image("a/b", "1", &[b"one", b"two"]);
    let repository = repository(&registry.host(), "a/b");
    let head = repository.head_manifest("1").await.expect("a head");
    assert_eq!(head.expect("it is there").digest.as_str(), image.manifest);
    assert_eq!(repository.head_manifest("2").await.expect("a head"), None);
    for reference in ["1", &image.manifest] {
        let manifest = repository.manifest(reference).await.expect("a manifest");
        assert_eq!(manifest.descriptor.digest.as_str(), image.manifest);
        assert_eq!(manifest.descriptor.size, manifest.bytes.len() as u64);
        assert_eq!(
            manifest.descriptor.media_type,
            "application/vnd.oci.image.manifest.v1+json"
        );
        assert_eq!(manifest.host, registry.host());
    }
    let layer = Descriptor::new("", digest(&image.layers[1]), 3);
    assert_eq!(read(&repository, &layer, 0).await.expect("a layer"), b"two");
    assert_eq!(read(&repository, &layer, 1).await.expect("a layer"), b"wo");
    assert_eq!(read(&repository, &layer, 3).await.expect("a layer"), b"");
    let size = repository.head_blob(&layer.digest).await.expect("a head");
    assert_eq!(size, Some(3));
    let absent = digest(&digest_of(b"absent"));
    assert_eq!(repository.head_blob(&absent).await.expect("a head"), None);
}

#[tokio::test]
async fn a_blob_that_is_cut_goes_on_at_the_byte_reached() {
    let registry = Registry::start();
    let bytes = content(SIZE);
    let descriptor = blob(&registry, &bytes);
    registry.misbehave("GET", "/blobs/", Times::First(2), Fault::CutAfter(100_000));
    let (repository, told) = watched(repository(&registry.host(), "a"));
    assert!(read(&repository, &descriptor, 0).await.expect("a blob") == bytes);
    let requests = registry.requests_of("GET", "/blobs/");
    let ranges: Vec<_> = requests.iter().map(|it| it.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-"), Some("bytes=200000-")]);
    let sent: usize = requests.iter().map(|request| request.sent).sum();
    assert_eq!(sent, SIZE, "not one byte twice");
    let told = told.lock().expect("not poisoned");
    assert_eq!(told.len(), 2);
    assert!(
        told[0].contains("broke off at byte 100000 of 300000"),
        "{told:?}"
    );
}

#[tokio::test]
async fn progress_renews_the_number_of_tries() {
    let registry = Registry::start();
    let bytes = content(60);
    let descriptor = blob(&registry, &bytes);
    // More cuts than tries, each after some bytes.
    registry.misbehave("GET", "/blobs/", Times::First(5), Fault::CutAfter(10));
    let repository = repository(&registry.host(), "a");
    assert_eq!(
        read(&repository, &descriptor, 0).await.expect("a blob"),
        bytes
    );
}

#[tokio::test]
async fn a_blob_that_never_comes_is_given_up() {
    let registry = Registry::start();
    let descriptor = blob(&registry, &content(60));
    registry.misbehave("GET", "/blobs/", Times::Always, Fault::CutAfter(0));
    let error = read(&repository(&registry.host(), "a"), &descriptor, 0)
        .await
        .expect_err("nothing came");
    assert!(matches!(error, Error::Network(_)), "{error}");
    assert_eq!(registry.requests_of("GET", "/blobs/").len(), 3);
}

#[tokio::test]
async fn a_stall_is_cut_and_the_blob_goes_on() {
    let registry = Registry::start();
    let bytes = content(SIZE);
    let descriptor = blob(&registry, &bytes);
    registry.misbehave(
        "GET",
        "/blobs/",
        Times::First(1),
        Fault::StallAfter(150_000),
    );
    let start = Instant::now();
    let repository = repository(&registry.host(), "a");
    assert!(read(&repository, &descriptor, 0).await.expect("a blob") == bytes);
    assert!(start.elapsed() < Duration::from_secs(10));
    let requests = registry.requests_of("GET", "/blobs/");
    assert_eq!(requests[1].header("range"), Some("bytes=150000-"));
}

#[tokio::test]
async fn a_slow_registry_is_no_stalled_one() {
    let registry = Registry::start();
    let bytes = content(3000);
    let descriptor = blob(&registry, &bytes);
    registry.misbehave("GET", "/blobs/", Times::Always, Fault::Slow(1500));
    let repository = repository(&registry.host(), "a");
    assert_eq!(
        read(&repository, &descriptor, 0).await.expect("a blob"),
        bytes
    );
    assert_eq!(registry.requests_of("GET", "/blobs/").len(), 1);
}

#[tokio::test]
async fn without_ranges_the_bytes_are_skipped() {
    let registry = Registry::start();
    let bytes = content(SIZE);
    let descriptor = blob(&registry, &bytes);
    registry.misbehave("GET", "/blobs/", Times::Only(1), Fault::CutAfter(100_000));
    registry.misbehave("GET", "/blobs/", Times::Always, Fault::NoRange);
    let repository = repository(&registry.host(), "a");
    assert!(read(&repository, &descriptor, 0).await.expect("a blob") == bytes);
    assert!(
        read(&repository, &descriptor, 70_000)
            .await
            .expect("a blob")
            == bytes[70_000..]
    );
}

#[tokio::test]
async fn a_range_that_was_not_asked_for_is_refused() {
    let registry = Registry::start();
    let descriptor = blob(&registry, &content(1000));
    for range in ["bytes 0-999/1000", "bytes 500-999/2000", "garbage"] {
        registry.behave();
        registry.misbehave(
            "GET",
            "/blobs/",
            Times::Always,
            Fault::ContentRange(range.to_owned()),
        );
        let error = read(&repository(&registry.host(), "a"), &descriptor, 500)
            .await
            .expect_err("another range");
        assert!(matches!(error, Error::Corrupt(_)), "{range}: {error}");
    }
}

#[tokio::test]
async fn a_wrong_length_is_refused() {
    let registry = Registry::start();
    let bytes = content(1000);
    let mut descriptor = blob(&registry, &bytes);
    let corrupt = async |descriptor: &Descriptor, fault: Option<Fault>| {
        registry.behave();
        if let Some(fault) = fault {
            registry.misbehave("GET", "/blobs/", Times::Always, fault);
        }
        match read(&repository(&registry.host(), "a"), descriptor, 0).await {
            Err(Error::Corrupt(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    corrupt(&descriptor, Some(Fault::ContentLength(999))).await;
    corrupt(&descriptor, Some(Fault::ContentLength(1001))).await;
    descriptor.size = 999;
    corrupt(&descriptor, None).await;
    corrupt(&descriptor, Some(Fault::EndAfter(1000))).await;
    descriptor.size = 1001;
    corrupt(&descriptor, None).await;
    // A stream without a length that ends early is asked for the rest, which is not there.
    corrupt(&descriptor, Some(Fault::EndAfter(1000))).await;
}

#[tokio::test]
async fn an_early_end_without_a_length_is_continued() {
    let registry = Registry::start();
    let bytes = content(1000);
    let descriptor = blob(&registry, &bytes);
    registry.misbehave("GET", "/blobs/", Times::First(1), Fault::EndAfter(400));
    let repository = repository(&registry.host(), "a");
    assert_eq!(
        read(&repository, &descriptor, 0).await.expect("a blob"),
        bytes
    );
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    for status in [408, 429, 500, 502, 503, 504] {
        let registry = Registry::start();
        registry.push_image("a", "1", &[b"x"]);
        registry.misbehave(
            "GET",
            "/manifests/",
            Times::First(1),
            Fault::status(status, ""),
        );
        let (repository, told) = watched(repository(&registry.host(), "a"));
        repository.manifest("1").await.expect("a manifest");
        assert_eq!(registry.requests_of("GET", "/manifests/").len(), 2);
        assert_eq!(told.lock().expect("not poisoned").len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_cut_manifest_is_asked_for_again() {
    let registry = Registry::start();
    registry.push_image("a", "1", &[b"x"]);
    registry.misbehave("GET", "/manifests/", Times::Only(1), Fault::CutAfter(5));
    registry.misbehave("GET", "/manifests/", Times::Only(2), Fault::StallAfter(5));
    let repository = repository(&registry.host(), "a");
    repository.manifest("1").await.expect("a manifest");
    assert_eq!(registry.requests_of("GET", "/manifests/").len(), 3);
}

#[tokio::test]
async fn tries_end_and_the_last_error_is_told_in_docker_s_words() {
    let registry = Registry::start();
    registry.push_image("a", "1", &[b"x"]);
    registry.misbehave(
        "GET",
        "/manifests/",
        Times::Always,
        Fault::status(503, "busy"),
    );
    let repository = repository(&registry.host(), "a");
    let error = repository.manifest("1").await.expect_err("refused");
    assert_eq!(
        error.to_string(),
        "received unexpected HTTP status: 503 Service Unavailable"
    );
    assert_eq!(registry.requests_of("GET", "/manifests/").len(), 3);
}

#[tokio::test]
async fn retry_after_is_obeyed_and_not_for_ever() {
    let registry = Registry::start();
    registry.push_image("a", "1", &[b"x"]);
    let busy = |seconds: &str| too_many(&[("Retry-After", seconds)]);
    registry.misbehave("GET", "/manifests/", Times::First(1), busy("2"));
    let repository = repository(&registry.host(), "a");
    let start = Instant::now();
    repository.manifest("1").await.expect("a manifest");
    assert!(start.elapsed() >= Duration::from_secs(2));
    registry.behave();
    registry.misbehave("GET", "/manifests/", Times::Always, busy("3600"));
    let start = Instant::now();
    let error = repository.manifest("1").await.expect_err("refused");
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(matches!(error, Error::RateLimited(_)));
}

#[tokio::test]
async fn a_manifest_that_is_another_one_is_refused() {
    let registry = Registry::start();
    let image = registry.push_image("a", "1", &[b"x"]);
    let other = digest_of(b"other");
    let repository = repository(&registry.host(), "a");
    registry.misbehave("GET", "/manifests/", Times::Always, Fault::WrongBytes);
    for reference in ["1", &image.manifest] {
        let error = repository
            .manifest(reference)
            .await
            .expect_err("wrong bytes");
        assert!(matches!(error, Error::Corrupt(_)), "{error}");
    }
    registry.behave();
    let header = vec![("Docker-Content-Digest".to_owned(), other)];
    registry.misbehave("GET", "/manifests/", Times::Always, Fault::Headers(header));
    let error = repository.manifest("1").await.expect_err("another digest");
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
    // Without the header there is nothing to compare a tag's bytes with.
    registry.behave();
    let header = vec![("Docker-Content-Digest".to_owned(), String::new())];
    registry.misbehave("*", "/manifests/", Times::Always, Fault::Headers(header));
    let manifest = repository.manifest("1").await.expect("a manifest");
    assert_eq!(manifest.descriptor.digest.as_str(), image.manifest);
    // A HEAD without the header falls back to GET.
    let head = repository.head_manifest("1").await.expect("a head");
    assert_eq!(head.expect("there").digest.as_str(), image.manifest);
}

#[tokio::test]
async fn large_and_ancient_manifests_are_refused() {
    let registry = Registry::start();
    registry.push_manifest("a", "large", "application/json", &vec![b' '; (4 << 20) + 1]);
    let old = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    registry.push_manifest("a", "old", old, br#"{"schemaVersion":1,"name":"a"}"#);
    let repository = repository(&registry.host(), "a");
    let error = repository.manifest("large").await.expect_err("too large");
    assert!(
        error
            .to_string()
            .ends_with("the answer is larger than 4194304 bytes"),
        "{error}"
    );
    // Its digest leaves out its signatures.
    let header = vec![("Docker-Content-Digest".to_owned(), digest_of(b"unsigned"))];
    registry.misbehave("GET", "/old", Times::Always, Fault::Headers(header));
    let error = repository.manifest("old").await.expect_err("too old");
    assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    assert_eq!(
        error.to_string(),
        format!(
            "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. Suggest the author of {}/a:old to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2. More information at https://docs.docker.com/go/deprecated-image-specs/",
            registry.host()
        )
    );
}

#[tokio::test]
async fn refusals_have_docker_s_words_and_kinds() {
    let registry = Registry::start();
    let host = registry.host();
    let repository = repository(&host, "a/b");
    let error = repository.manifest("1").await.expect_err("not there");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        error.to_string(),
        format!("manifest for {host}/a/b:1 not found: manifest unknown: manifest unknown")
    );
    registry.misbehave(
        "GET",
        "/manifests/",
        Times::Always,
        Fault::status(403, r#"{"errors":[{"code":"DENIED","message":"no way"}]}"#),
    );
    let error = repository.manifest("1").await.expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        error.to_string(),
        format!(
            "pull access denied for {host}/a/b, repository does not exist or may require 'docker login': denied: no way"
        )
    );
    assert_eq!(
        registry.requests_of("GET", "/manifests/").len(),
        2,
        "not tried again"
    );
}

#[tokio::test]
async fn limits_and_warnings_are_told() {
    let registry = Registry::start();
    registry.push_image("a", "1", &[b"x"]);
    let headers = [
        ("ratelimit-limit", "100;w=21600"),
        ("ratelimit-remaining", "76;w=21600"),
        ("Warning", "299 - \"this image is old\""),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    registry.misbehave(
        "GET",
        "/manifests/",
        Times::Always,
        Fault::Headers(headers.into()),
    );
    let (repository, told) = watched(repository(&registry.host(), "a"));
    let manifest = repository.manifest("1").await.expect("a manifest");
    let limit = manifest.rate_limit.expect("a limit");
    assert_eq!(
        (limit.limit, limit.remaining, limit.window_seconds),
        (100, 76, 21600)
    );
    assert_eq!(
        *told.lock().expect("not poisoned"),
        ["now this image is old"]
    );
}

#[tokio::test]
async fn a_registry_that_comes_back_is_found_again() {
    let registry = Registry::start();
    registry.push_image("a", "1", &[b"x"]);
    let registries = registries(config());
    let repository = at(&registries, &registry.host(), "a", Default::default());
    repository.manifest("1").await.expect("a manifest");
    // It was there once, so silence is taken for a pause.
    registry.misbehave("GET", "/manifests/", Times::First(1), Fault::Mute);
    repository.manifest("1").await.expect("a manifest");
    assert_eq!(registry.requests_of("GET", "/manifests/").len(), 3);
}

#[tokio::test]
async fn what_is_no_success_is_no_answer() {
    let registry = Registry::start();
    let image = registry.push_image("a", "1", &[b"x"]);
    let descriptor = blob(&registry, b"x");
    let repository = repository(&registry.host(), "a");
    // Without a Location none of these leads anywhere.
    for status in [300, 301, 302, 303, 304, 305, 306, 307, 308] {
        registry.behave();
        let hostile = Fault::Answer {
            status,
            headers: vec![
                (
                    "Content-Type".to_owned(),
                    "application/vnd.oci.image.manifest.v1+json".to_owned(),
                ),
                ("Docker-Content-Digest".to_owned(), image.manifest.clone()),
            ],
            body: if status == 304 { "" } else { "y" }.to_owned(),
        };
        registry.misbehave("*", "/v2/a/", Times::Always, hostile);
        let refused = |error: Error| {
            let text = error.to_string();
            let expected = format!("received unexpected HTTP status: {status}");
            assert!(text.starts_with(&expected), "{status}: {text}");
        };
        for reference in ["1", &image.manifest] {
            refused(repository.manifest(reference).await.expect_err("hostile"));
        }
        refused(repository.head_manifest("1").await.expect_err("hostile"));
        refused(
            read(&repository, &descriptor, 0)
                .await
                .expect_err("hostile"),
        );
        let put = repository.put_manifest("2", "application/json", "{}".into());
        refused(put.await.expect_err("hostile"));
        refused(repository.upload().await.map(drop).expect_err("hostile"));
    }
}

#[tokio::test]
async fn a_length_beyond_all_measure_is_refused() {
    let registry = Registry::start();
    let descriptor = blob(&registry, &content(1000));
    registry.misbehave(
        "GET",
        "/blobs/",
        Times::Always,
        Fault::ContentLength(usize::MAX - 10),
    );
    let error = read(&repository(&registry.host(), "a"), &descriptor, 500)
        .await
        .expect_err("absurd");
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
}

#[tokio::test]
async fn an_answer_that_drips_is_left() {
    let registry = Registry::start();
    registry.push_image("a", "1", &[b"x"]);
    let repository = repository(&registry.host(), "a").impatient();
    registry.misbehave("GET", "/manifests/", Times::Always, Fault::Slow(10));
    let start = Instant::now();
    let error = repository.manifest("1").await.expect_err("it drips");
    assert_eq!(error.to_string(), "the answer took longer than 4 s");
    assert!(start.elapsed() < Duration::from_secs(8));
}

/// An answer of 429 with headers.
fn too_many(headers: &[(&str, &str)]) -> Fault {
    let mut all = vec![("Content-Type".to_owned(), "application/json".to_owned())];
    let headers = headers.iter();
    all.extend(headers.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Fault::Answer {
        status: 429,
        headers: all,
        body: r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#.to_owned(),
    }
}

#[tokio::test]
async fn too_many_requests_are_told_soon() {
    let registry = Registry::start();
    registry.push_image("a", "1", &[b"x"]);
    let repository = at(
        &registries(gantry_distribution::Config {
            attempts_max: 10,
            ..config()
        }),
        &registry.host(),
        "a",
        Default::default(),
    );
    for (headers, tries, expected) in [
        // Once more, as it may have been a matter of a second.
        (&[][..], 2, "toomanyrequests: slow down"),
        // What is used up for hours does not come back in a second.
        (
            &[
                ("ratelimit-limit", "100;w=21600"),
                ("ratelimit-remaining", "0;w=21600"),
            ],
            1,
            "toomanyrequests: slow down (0 of 100 pulls left in 6 hours)",
        ),
        (
            &[("Retry-After", "3600")],
            1,
            "toomanyrequests: slow down (to be asked again in 1 hour)",
        ),
    ] {
        registry.behave();
        registry.forget_requests();
        registry.misbehave("GET", "/manifests/", Times::Always, too_many(headers));
        let error = repository.manifest("1").await.expect_err("too many");
        assert!(matches!(error, Error::RateLimited(_)), "{error:?}");
        assert_eq!(error.to_string(), expected);
        assert_eq!(registry.requests_of("GET", "/manifests/").len(), tries);
    }
}
