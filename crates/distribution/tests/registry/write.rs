//! Uploads to a registry that cuts, dies and forgets.

use bytes::Bytes;
use gantry_distribution::{Error, Mounted};
use gantry_testkit::registry::{Access, Fault, Registry, Times, digest_of};

use crate::{content, digest, repository, repository_for, user};

const MIB: usize = 1 << 20;
const CHUNK: usize = 8 * MIB;

/// Uploads in pieces of odd size.
async fn upload(registry: &Registry, bytes: &[u8]) -> Result<(), Error> {
    let mut upload = repository(&registry.host(), "a/b").upload().await?;
    for piece in bytes.chunks(999_983) {
        upload.send(Bytes::copy_from_slice(piece)).await?;
    }
    upload.commit(&digest(&digest_of(bytes))).await
}

fn is_there(registry: &Registry, bytes: &[u8]) -> bool {
    registry.blob(&digest_of(bytes)).as_deref() == Some(bytes)
}

#[tokio::test]
async fn a_small_blob_goes_in_one_request() {
    let registry = Registry::start();
    let bytes = content(1000);
    upload(&registry, &bytes).await.expect("an upload");
    assert!(is_there(&registry, &bytes));
    assert!(registry.requests_of("PATCH", "").is_empty());
    let put = &registry.requests_of("PUT", "/blobs/uploads/")[0];
    assert_eq!(
        put.query("state").as_deref(),
        Some("s"),
        "the Location's query is kept"
    );
}

#[tokio::test]
async fn an_empty_blob_is_one_too() {
    let registry = Registry::start();
    upload(&registry, b"").await.expect("an upload");
    assert!(is_there(&registry, b""));
}

#[tokio::test]
async fn a_large_blob_goes_in_chunks() {
    let registry = Registry::start();
    let bytes = content(2 * CHUNK + MIB);
    upload(&registry, &bytes).await.expect("an upload");
    assert!(is_there(&registry, &bytes));
    let chunks = registry.requests_of("PATCH", "/blobs/uploads/");
    let ranges: Vec<_> = chunks
        .iter()
        .filter_map(|it| it.header("content-range"))
        .collect();
    assert_eq!(
        ranges,
        ["0-8388607", "8388608-16777215", "16777216-17825791"]
    );
}

#[tokio::test]
async fn a_registry_may_ask_for_larger_chunks() {
    let registry = Registry::start();
    let least = |size: usize| vec![("OCI-Chunk-Min-Length".to_owned(), size.to_string())];
    registry.misbehave("POST", "", Times::Only(1), Fault::Headers(least(10 * MIB)));
    registry.misbehave("POST", "", Times::Only(2), Fault::Headers(least(1 << 30)));
    let bytes = content(11 * MIB);
    upload(&registry, &bytes).await.expect("an upload");
    assert!(is_there(&registry, &bytes));
    let chunks = registry.requests_of("PATCH", "");
    let sizes: Vec<usize> = chunks.iter().map(|chunk| chunk.body.len()).collect();
    assert_eq!(sizes, [10 * MIB, MIB]);
    let error = upload(&registry, &bytes).await.expect_err("absurd");
    assert!(matches!(error, Error::Invalid(_)), "{error}");
}

#[tokio::test]
async fn a_broken_chunk_goes_on_where_the_registry_is() {
    let registry = Registry::start();
    let bytes = content(2 * CHUNK);
    registry.misbehave("PATCH", "", Times::Only(2), Fault::DieAfter(3 * MIB));
    upload(&registry, &bytes).await.expect("an upload");
    assert!(is_there(&registry, &bytes));
    let chunks = registry.requests_of("PATCH", "");
    let last = chunks
        .last()
        .and_then(|chunk| chunk.header("content-range"));
    assert_eq!(last, Some("11534336-16777215"), "the rest, and no more");
}

#[tokio::test]
async fn a_chunk_whose_acknowledgement_was_lost_is_not_sent_again() {
    let registry = Registry::start();
    let bytes = content(2 * CHUNK);
    registry.misbehave("PATCH", "", Times::Only(1), Fault::Mute);
    upload(&registry, &bytes).await.expect("an upload");
    assert!(is_there(&registry, &bytes));
    assert_eq!(registry.requests_of("PATCH", "").len(), 2);
}

#[tokio::test]
async fn a_registry_that_fails_for_a_while_is_asked_again() {
    let registry = Registry::start();
    let bytes = content(CHUNK + 5);
    for method in ["POST", "PATCH", "PUT"] {
        registry.misbehave(method, "", Times::First(1), Fault::status(500, ""));
    }
    upload(&registry, &bytes).await.expect("an upload");
    assert!(is_there(&registry, &bytes));
}

#[tokio::test]
async fn a_whole_blob_that_broke_off_does_not_come_twice() {
    let registry = Registry::start();
    let bytes = content(MIB);
    registry.misbehave("PUT", "", Times::First(1), Fault::DieAfter(MIB / 2));
    upload(&registry, &bytes).await.expect("an upload");
    assert!(is_there(&registry, &bytes));
}

#[tokio::test]
async fn an_upload_that_was_ended_but_not_acknowledged_is_done() {
    for size in [MIB, CHUNK + MIB] {
        let registry = Registry::start();
        let bytes = content(size);
        registry.misbehave("PUT", "", Times::First(1), Fault::Mute);
        upload(&registry, &bytes).await.expect("an upload");
        assert!(is_there(&registry, &bytes));
    }
}

#[tokio::test]
async fn an_upload_that_the_registry_forgot_fails() {
    let registry = Registry::start();
    let gone = r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"expired"}]}"#;
    registry.misbehave("PATCH", "", Times::Only(2), Fault::status(404, gone));
    let error = upload(&registry, &content(3 * CHUNK))
        .await
        .expect_err("gone");
    assert_eq!(error.to_string(), "blob upload unknown: expired");
}

#[tokio::test]
async fn a_wrong_digest_is_refused_by_the_registry() {
    let registry = Registry::start();
    let mut upload = repository(&registry.host(), "a")
        .upload()
        .await
        .expect("open");
    upload.send(Bytes::from_static(b"x")).await.expect("sent");
    let error = upload
        .commit(&digest(&digest_of(b"y")))
        .await
        .expect_err("another digest");
    assert_eq!(
        error.to_string(),
        "digest invalid: provided digest did not match uploaded content"
    );
}

#[tokio::test]
async fn a_cancelled_upload_is_told() {
    let registry = Registry::start();
    let upload = repository(&registry.host(), "a")
        .upload()
        .await
        .expect("open");
    upload.cancel().await;
    assert_eq!(registry.requests_of("DELETE", "/blobs/uploads/").len(), 1);
}

#[tokio::test]
async fn a_blob_is_mounted_or_uploaded() {
    let registry = Registry::start();
    let known = digest(&registry.push_blob(b"known"));
    let repository = repository(&registry.host(), "a");
    let mounted = repository
        .mount(&known, "other/one")
        .await
        .expect("a mount");
    assert!(matches!(mounted, Mounted::Mounted));
    let bytes = b"unknown";
    let unknown = digest(&digest_of(bytes));
    match repository
        .mount(&unknown, "other/one")
        .await
        .expect("a mount")
    {
        Mounted::Mounted => panic!("it is not there"),
        Mounted::Upload(mut upload) => {
            upload.send(Bytes::from_static(bytes)).await.expect("sent");
            upload.commit(&unknown).await.expect("an upload");
        }
    }
    assert!(is_there(&registry, bytes));
    let post = &registry.requests_of("POST", "mount=")[0];
    assert_eq!(post.query("from").as_deref(), Some("other/one"));
}

#[tokio::test]
async fn a_manifest_is_written_and_its_digest_compared() {
    let registry = Registry::start();
    let repository = repository(&registry.host(), "a");
    let bytes = Bytes::from_static(br#"{"schemaVersion":2}"#);
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let written = repository.put_manifest("1", kind, bytes.clone()).await;
    assert_eq!(written.expect("written").as_str(), digest_of(&bytes));
    assert_eq!(registry.manifest("a", "1").as_deref(), Some(&bytes[..]));
    let lie = vec![("Docker-Content-Digest".to_owned(), digest_of(b"lie"))];
    registry.misbehave("PUT", "", Times::Always, Fault::Headers(lie));
    let error = repository
        .put_manifest("1", kind, bytes)
        .await
        .expect_err("a lie");
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
}

#[tokio::test]
async fn manifests_and_blobs_are_deleted() {
    let registry = Registry::start();
    let image = registry.push_image("a", "1", &[b"x"]);
    let repository = repository(&registry.host(), "a");
    let manifest = digest(&image.manifest);
    repository
        .delete_manifest(manifest.as_str())
        .await
        .expect("deleted");
    assert!(registry.manifest("a", "1").is_none());
    repository
        .delete_blob(&digest(&image.layers[0]))
        .await
        .expect("deleted");
    assert!(registry.blob(&image.layers[0]).is_none());
    let error = repository.delete_manifest("1").await.expect_err("gone");
    assert_eq!(error.to_string(), "manifest unknown: manifest unknown");
}

#[tokio::test]
async fn a_chunk_out_of_order_goes_on_where_the_registry_is() {
    let registry = Registry::start();
    let bytes = content(2 * CHUNK);
    registry.misbehave("PATCH", "", Times::Only(2), Fault::status(416, ""));
    upload(&registry, &bytes).await.expect("an upload");
    assert!(is_there(&registry, &bytes));
    // One that never fits is given up.
    registry.behave();
    registry.misbehave("PATCH", "", Times::Always, Fault::status(416, ""));
    let before = registry.requests_of("PATCH", "").len();
    upload(&registry, &bytes)
        .await
        .expect_err("it does not fit");
    assert_eq!(registry.requests_of("PATCH", "").len(), before + 2);
}

#[tokio::test]
async fn an_upload_at_another_host_gets_no_password() {
    let (registry, storage) = (Registry::start(), Registry::start());
    registry.set_access(Access::Basic {
        user: "user".to_owned(),
        password: "secret".to_owned(),
    });
    let elsewhere = format!("{}/v2/s/blobs/uploads/upload-1?key=k", storage.url());
    // The upload is opened there, too, so that it can be gone on with.
    repository(&storage.host(), "s")
        .upload()
        .await
        .expect("open");
    let location = vec![("Location".to_owned(), elsewhere)];
    registry.misbehave("POST", "", Times::Always, Fault::Headers(location));
    let bytes = content(CHUNK + 1);
    let mut upload = repository_for(&registry.host(), "a", user())
        .upload()
        .await
        .expect("open");
    upload.send(Bytes::from(bytes.clone())).await.expect("sent");
    upload
        .commit(&digest(&digest_of(&bytes)))
        .await
        .expect("an upload");
    assert!(is_there(&storage, &bytes));
    assert!(
        storage
            .requests()
            .iter()
            .all(|it| it.header("authorization").is_none())
    );
    assert!(
        registry.requests_of("POST", "")[0]
            .header("authorization")
            .is_some()
    );
}

#[tokio::test]
async fn a_registry_that_stops_reading_is_left_and_asked_again() {
    let registry = Registry::start();
    let bytes = content(2 * CHUNK);
    registry.misbehave("PATCH", "", Times::Only(2), Fault::HangAfter(MIB));
    let start = std::time::Instant::now();
    upload(&registry, &bytes).await.expect("an upload");
    assert!(is_there(&registry, &bytes));
    assert_eq!(registry.requests_of("PATCH", "").len(), 3);
    // Also where the answer itself may take long.
    registry.misbehave("PUT", "", Times::First(1), Fault::HangAfter(1));
    let bytes = content(CHUNK - 1);
    upload(&registry, &bytes).await.expect("an upload");
    assert!(is_there(&registry, &bytes));
    assert!(start.elapsed() < std::time::Duration::from_secs(30));
}

#[tokio::test]
async fn an_upload_that_the_registry_forgot_begins_anew_while_all_bytes_are_at_hand() {
    let gone = Fault::status(
        404,
        r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"expired"}]}"#,
    );
    // The method that breaks, how, and the size: in one request, and in chunks.
    for (method, fault, size) in [
        ("PUT", gone.clone(), MIB),
        ("PUT", Fault::DieAfter(MIB / 2), MIB),
        ("PUT", gone.clone(), 0),
        ("PATCH", gone.clone(), CHUNK + MIB),
        ("PATCH", Fault::DieAfter(MIB), CHUNK + MIB),
    ] {
        let registry = Registry::start();
        registry.misbehave(method, "", Times::First(1), fault.clone());
        registry.misbehave("GET", "/uploads/", Times::First(1), gone.clone());
        let bytes = content(size);
        upload(&registry, &bytes).await.expect("an upload");
        assert!(is_there(&registry, &bytes), "{method} {fault:?} {size}");
        assert_eq!(registry.requests_of("POST", "").len(), 2);
    }
    // One that is forgotten each time is given up.
    let registry = Registry::start();
    registry.misbehave("PUT", "", Times::Always, gone.clone());
    let error = upload(&registry, b"x").await.expect_err("gone");
    assert_eq!(error.to_string(), "blob upload unknown: expired");
    assert!(registry.requests_of("POST", "").len() <= 3);
}
