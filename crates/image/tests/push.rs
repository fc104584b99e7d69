//! Pushes, and what is remembered of them.

mod common;

use common::transfers::*;
use common::{Store, image, load, store};
use gantry_image::{Compression, GcPolicy, PullOptions, PushOptions};
use gantry_testkit::registry::{Fault, Registry, Times};
use serde_json::{Value, json};

const MIB: usize = 1 << 20;

/// A store with an image that no registry has.
fn with_image(name: &str) -> (Store, common::Built) {
    let store = store();
    let built = image(&[name], vec![layer(1, 2 * MIB), layer(2, 1000)]);
    load(&store.images, &common::docker_archive(&[&built])).unwrap();
    (store, built)
}

fn manifest(registry: &Registry, repository: &str, reference: &str) -> Value {
    serde_json::from_slice(&registry.manifest(repository, reference).unwrap()).unwrap()
}

/// How many bytes of blobs the registry was sent.
fn uploaded(registry: &Registry) -> usize {
    let requests = registry.requests_of("*", "/blobs/uploads/");
    requests.iter().map(|request| request.body.len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_is_compressed_once_and_the_second_push_asks_for_heads_alone() {
    let registry = Registry::start();
    let name = format!("{}/a:1", registry.host());
    let (store, built) = with_image(&name);
    let transfers = transfers(&store);
    let lines = push(&transfers, &name).await.unwrap();
    assert_eq!(
        lines[0],
        format!("The push refers to repository [{}/a]", registry.host())
    );
    let ids: Vec<String> = built
        .layers
        .iter()
        .map(|layer| common::sha256(layer).short().to_owned())
        .collect();
    assert_eq!(
        lines[1..3],
        [
            format!("{}: Preparing", ids[1]),
            format!("{}: Preparing", ids[0])
        ]
    );
    for id in &ids {
        assert!(lines.contains(&format!("{id}: Pushed")));
    }
    let pushed = manifest(&registry, "a", "1");
    assert_eq!(
        pushed["mediaType"],
        "application/vnd.docker.distribution.manifest.v2+json"
    );
    assert_eq!(
        pushed["layers"][0]["mediaType"],
        "application/vnd.docker.image.rootfs.diff.tar.gzip"
    );
    let image = store.images.get(&name).unwrap();
    let digest = image.digests[0].digest().unwrap().to_string();
    let size = registry.manifest("a", "1").unwrap().len();
    assert_eq!(
        lines[lines.len() - 2..],
        [
            format!("1: digest: {digest} size: {size}"),
            json!({"Tag": "1", "Digest": digest, "Size": size}).to_string()
        ]
    );

    store
        .images
        .tag(&name, &format!("{}/a:2", registry.host()))
        .unwrap();
    // Where the files are gone, not one byte of a layer can be read.
    for layer in &image.layers {
        std::fs::rename(&layer.path, layer.path.with_extension("gone")).unwrap();
    }
    registry.forget_requests();
    let lines = push(&transfers, &format!("{}/a:2", registry.host()))
        .await
        .unwrap();
    for id in &ids {
        assert!(lines.contains(&format!("{id}: Layer already exists")));
    }
    assert_eq!(registry.requests_of("HEAD", "/blobs/").len(), 3);
    assert_eq!(registry.requests_of("POST", "").len(), 0);
    assert_eq!(manifest(&registry, "a", "2"), pushed);
    for layer in &image.layers {
        std::fs::rename(layer.path.with_extension("gone"), &layer.path).unwrap();
    }

    // What went out comes back as it was.
    let other = common::store();
    pull(&common::transfers::transfers(&other), &name)
        .await
        .unwrap();
    assert_eq!(
        other.images.get(&name).unwrap().id.to_digest(),
        built.id().to_string()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbours_layer_is_mounted() {
    let registry = Registry::start();
    let name = format!("{}/a:1", registry.host());
    let (store, _) = with_image(&name);
    let transfers = transfers(&store);
    push(&transfers, &name).await.unwrap();
    let other = format!("{}/b/c:1", registry.host());
    store.images.tag(&name, &other).unwrap();
    registry.forget_requests();
    // The registry has one store of blobs for all; a repository that does not answer for them must ask.
    registry.misbehave("HEAD", "/b/c/blobs/", Times::Always, Fault::status(404, ""));
    let lines = push(&transfers, &other).await.unwrap();
    let mounted = lines
        .iter()
        .filter(|line| line.ends_with(": Mounted from a"));
    assert_eq!(mounted.count(), 2, "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_image_keeps_its_digests_elsewhere_though_no_blob_was_kept() {
    let (source, target) = (Registry::start(), Registry::start());
    let built = image(&[], vec![layer(1, 2 * MIB), layer(2, 300)]);
    let published = publish(&source, "a", "1", &built);
    let store = store();
    let transfers = transfers(&store);
    let name = format!("{}/a:1", source.host());
    pull(&transfers, &name).await.unwrap();
    let other = format!("{}/b:2", target.host());
    store.images.tag(&name, &other).unwrap();
    let lines = push(&transfers, &other).await.unwrap();
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with(&format!("2: digest: {}", published.manifest))),
        "{lines:?}"
    );
    assert_eq!(target.manifest("b", "2"), source.manifest("a", "1"));
    for blob in &published.blobs {
        assert_eq!(target.blob(blob), source.blob(blob));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_source_is_gone_the_manifest_changes_and_that_is_told() {
    let (source, target) = (Registry::start(), Registry::start());
    let built = image(&[], vec![layer(1, 2 * MIB)]);
    let published = publish(&source, "a", "1", &built);
    let store = store();
    let transfers = transfers(&store);
    let name = format!("{}/a:1", source.host());
    pull(&transfers, &name).await.unwrap();
    source.misbehave("*", "/", Times::Always, Fault::status(404, ""));
    let other = format!("{}/b:1", target.host());
    store.images.tag(&name, &other).unwrap();
    let lines = push(&transfers, &other).await.unwrap();
    assert!(
        lines
            .iter()
            .any(|line| line.contains("the manifest changes")),
        "{lines:?}"
    );
    let pushed = manifest(&target, "b", "1");
    assert_ne!(pushed["layers"][0]["digest"], published.blobs[0].as_str());
    let back = common::store();
    pull(&common::transfers::transfers(&back), &other)
        .await
        .unwrap();
    assert_eq!(
        back.images.get(&other).unwrap().id.to_digest(),
        built.id().to_string()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_blobs_and_the_encoder_stand_in_for_the_source() {
    let (source, target) = (Registry::start(), Registry::start());
    let name = format!("{}/a:1", source.host());
    // Made here: the encoder makes the same bytes again.
    let (store, _) = with_image(&name);
    let made = transfers(&store);
    push(&made, &name).await.unwrap();
    let pushed = source.manifest("a", "1").unwrap();
    source.misbehave("*", "/", Times::Always, Fault::status(500, ""));
    let other = format!("{}/b:1", target.host());
    store.images.tag(&name, &other).unwrap();
    push(&made, &other).await.unwrap();
    assert_eq!(target.manifest("b", "1").unwrap(), pushed);
    // Kept by policy.
    source.behave();
    let published = publish(&source, "c", "1", &image(&[], vec![layer(5, 2 * MIB)]));
    let store = common::store();
    let kept = transfers(&store);
    kept.set_policy(GcPolicy {
        keep_blobs_bytes: 100 << 20,
        ..GcPolicy::default()
    });
    let name = format!("{}/c:1", source.host());
    pull(&kept, &name).await.unwrap();
    source.misbehave("*", "/", Times::Always, Fault::status(500, ""));
    let other = format!("{}/d:1", target.host());
    store.images.tag(&name, &other).unwrap();
    push(&kept, &other).await.unwrap();
    assert_eq!(target.manifest("d", "1"), source.manifest("c", "1"));
    // The policy changes, and the bytes go; what is known of them stays.
    let (report, _) = store
        .images
        .collect_by(&GcPolicy::default(), &|_| Vec::new(), false)
        .unwrap();
    assert_eq!(report.items.len(), 1);
    assert_eq!(report.items[0].name, published.blobs[0]);
    assert!(
        store
            .images
            .content()
            .size(&published.blobs[0].parse().unwrap())
            .unwrap()
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn zstd_is_pushed_as_an_oci_manifest() {
    let registry = Registry::start();
    let name = format!("{}/a:1", registry.host());
    let (store, built) = with_image(&name);
    let transfers = transfers(&store);
    let options = PushOptions {
        compression: Compression::Zstd,
        ..push_options(&name)
    };
    push_with(&transfers, options).await.unwrap();
    let pushed = manifest(&registry, "a", "1");
    assert_eq!(pushed["mediaType"], MANIFEST);
    assert_eq!(
        pushed["layers"][0]["mediaType"],
        "application/vnd.oci.image.layer.v1.tar+zstd"
    );
    let back = common::store();
    pull(&common::transfers::transfers(&back), &name)
        .await
        .unwrap();
    assert_eq!(
        back.images.get(&name).unwrap().id.to_digest(),
        built.id().to_string()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_kept_and_pushed_whole() {
    let (source, target) = (Registry::start(), Registry::start());
    let here = publish(&source, "a", "amd", &image(&[], vec![layer(1, 2 * MIB)]));
    let there = publish(&source, "a", "arm", &image(&[], vec![layer(2, 2 * MIB)]));
    let entry = |digest: &str, architecture: &str| {
        json!({"mediaType": MANIFEST, "digest": digest, "size": source.manifest("a", digest).unwrap().len(),
               "platform": {"os": "linux", "architecture": architecture}})
    };
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        entry(&here.manifest, "amd64"), entry(&there.manifest, "arm64"),
    ]});
    let index = source.push_manifest("a", "1", INDEX, index.to_string().as_bytes());
    let store = store();
    let transfers = transfers(&store);
    let name = format!("{}/a:1", source.host());
    let options = PullOptions {
        all_platforms: true,
        ..pull_options(&name)
    };
    pull_with(&transfers, options).await.unwrap();
    let other = format!("{}/b:1", target.host());
    store.images.tag(&name, &other).unwrap();
    let options = PushOptions {
        all_platforms: true,
        ..push_options(&other)
    };
    let lines = push_with(&transfers, options).await.unwrap();
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with(&format!("1: digest: {index}"))),
        "{lines:?}"
    );
    for digest in [&here.manifest, &there.manifest] {
        assert_eq!(target.manifest("b", digest), source.manifest("a", digest));
    }
    assert_eq!(target.blob(&there.blobs[0]).unwrap().len(), there.sizes[0]);
    // With the last name everything goes, the other platform's blobs too.
    for name in [&name, &other] {
        let options = gantry_image::RemoveOptions {
            force: false,
            no_prune: false,
            in_use: &|_| Vec::new(),
        };
        store.images.remove(name, options).unwrap();
    }
    common::assert_empty(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_pushed_is_told_as_docker_does() {
    let registry = Registry::start();
    let name = format!("{}/a:1", registry.host());
    let (store, _) = with_image(&name);
    let transfers = transfers(&store);
    let (tag, repository) = (
        format!("{}/a:9", registry.host()),
        format!("{}/b", registry.host()),
    );
    assert_eq!(
        push(&transfers, &tag).await.unwrap_err(),
        format!("tag does not exist: {tag}")
    );
    assert_eq!(
        push(&transfers, &repository).await.unwrap_err(),
        format!("An image does not exist locally with the tag: {repository}")
    );
    let options = PushOptions {
        platform: Some("linux/arm64".parse().unwrap()),
        ..push_options(&name)
    };
    assert_eq!(
        push_with(&transfers, options).await.unwrap_err(),
        format!(
            "image with reference {name} was found but its platform (linux/amd64) does not match the specified platform \
             (linux/arm64)"
        )
    );
    // A HEAD that is forbidden has no body; the reason is that of the upload.
    registry.misbehave("HEAD", "/blobs/", Times::Always, Fault::status(403, ""));
    registry.misbehave(
        "POST",
        "/blobs/uploads/",
        Times::Always,
        Fault::status(403, r#"{"errors":[{"code":"DENIED","message":"no way"}]}"#),
    );
    assert_eq!(push(&transfers, &name).await.unwrap_err(), "denied: no way");
    registry.behave();
    // A connection that breaks in the middle of an upload costs a part of it.
    registry.misbehave(
        "PATCH",
        "/blobs/uploads/",
        Times::First(1),
        Fault::DieAfter(MIB),
    );
    push(&transfers, &name).await.unwrap();
    assert!(uploaded(&registry) < 8 * MIB);
}

/// Stores a manifest that names an image's configuration beside layers that are not its.
fn publish_claim(registry: &Registry, repository: &str, built: &common::Built) -> (String, String) {
    let config = registry.push_blob(&built.config);
    let foreign = gzip(&layer(99, 3 * MIB));
    let blob = registry.push_blob(&foreign);
    let layers: Vec<Value> = built
        .layers
        .iter()
        .map(|_| json!({"mediaType": LAYER_GZIP, "digest": blob, "size": foreign.len()}))
        .collect();
    let claim = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
        "config": {"mediaType": CONFIG, "digest": config, "size": built.config.len()}});
    let claim = registry.push_manifest(repository, "1", MANIFEST, claim.to_string().as_bytes());
    (claim, blob)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_claims_to_be_of_an_image_is_never_pushed_as_the_image() {
    let (hostile, own) = (Registry::start(), Registry::start());
    let name = format!("{}/a:1", own.host());
    let (store, built) = with_image(&name);
    let transfers = transfers(&store);
    let (claim, blob) = publish_claim(&hostile, "x", &built);
    let foreign = format!("{}/x:1", hostile.host());
    pull(&transfers, &foreign).await.unwrap();
    push(&transfers, &name).await.unwrap();
    assert!(own.manifest("a", &claim).is_none());
    assert!(own.blob(&blob).is_none());
    // Nor where an honest manifest is older than the claim.
    let pushed = own.manifest("a", "1");
    let (claim, _) = publish_claim(&hostile, "y", &built);
    pull(&transfers, &format!("{}/y:1", hostile.host()))
        .await
        .unwrap();
    let other = Registry::start();
    let elsewhere = format!("{}/b:1", other.host());
    store.images.tag(&name, &elsewhere).unwrap();
    push(&transfers, &elsewhere).await.unwrap();
    assert_eq!(other.manifest("b", "1"), pushed);
    assert!(other.manifest("b", &claim).is_none());
    let back = common::store();
    pull(&common::transfers::transfers(&back), &name)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_refuses_an_anonymous_reader_is_named_with_what_helps() {
    let (source, target) = (Registry::start(), Registry::start());
    publish(&source, "a", "1", &image(&[], vec![layer(1, MIB)]));
    let store = store();
    let transfers = transfers(&store);
    let name = format!("{}/a:1", source.host());
    pull(&transfers, &name).await.unwrap();
    source.misbehave("*", "/blobs/", Times::Always, Fault::status(403, ""));
    let other = format!("{}/b:1", target.host());
    store.images.tag(&name, &other).unwrap();
    let lines = push(&transfers, &other).await.unwrap();
    let refused = format!("{}/a refused it", source.host());
    let told = lines.iter().find(|line| line.contains(&refused));
    let told = told.unwrap_or_else(|| panic!("{lines:?}"));
    assert!(told.contains("without credentials") && told.contains("keep blobs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_pulled_by_sha512_is_pushed_where_sha256_is_answered() {
    let (source, target) = (Registry::start(), Registry::start());
    publish(&source, "a", "1", &image(&[], vec![layer(1, MIB)]));
    let bytes = source.manifest("a", "1").unwrap();
    let hash: [u8; 64] = sha2::Digest::finalize(sha2::Digest::chain_update(
        <sha2::Sha512 as sha2::Digest>::new(),
        &bytes,
    ))
    .into();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let digest = format!("sha512:{hex}");
    let answer = Fault::Answer {
        status: 200,
        headers: vec![
            ("Content-Type".to_owned(), MANIFEST.to_owned()),
            ("Docker-Content-Digest".to_owned(), digest.clone()),
        ],
        body: String::from_utf8(bytes.clone()).unwrap(),
    };
    source.misbehave("GET", "/manifests/", Times::Always, answer);
    let store = store();
    let transfers = transfers(&store);
    let name = format!("{}/a@{digest}", source.host());
    pull(&transfers, &name).await.unwrap();
    let other = format!("{}/b:1", target.host());
    store.images.tag(&name, &other).unwrap();
    push(&transfers, &other).await.unwrap();
    assert_eq!(target.manifest("b", "1").unwrap(), bytes);
    let report = store
        .images
        .check(false, std::time::Duration::ZERO)
        .unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
}
