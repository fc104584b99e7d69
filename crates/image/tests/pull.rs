//! Pulls from a registry that misbehaves.

mod common;

use common::transfers::*;
use common::{Store, count, image, load, store};
use gantry_image::{Images, PullOptions, TransferEvent};
use gantry_testkit::registry::{Access, Fault, Registry, Times, TokenServer, digest_of};
use serde_json::json;
use std::time::Duration;

const MIB: usize = 1 << 20;

fn content_of(store: &Store, reference: &str, seed: u64) -> Vec<u8> {
    let image = store.images.get(reference).unwrap();
    let layer = image
        .layers
        .iter()
        .find(|layer| layer.path.join(format!("file-{seed}")).exists());
    std::fs::read(layer.unwrap().path.join(format!("file-{seed}"))).unwrap()
}

fn partials(store: &Store) -> usize {
    count(&store.root.path().join("content/partial"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_tells_dockers_words_and_the_next_asks_for_no_blob() {
    let (registry, store) = (Registry::start(), store());
    let built = image(&[], vec![layer(1, MIB), layer(2, 1000)]);
    let published = publish(&registry, "a/b", "1", &built);
    let transfers = transfers(&store);
    let name = format!("{}/a/b:1", registry.host());
    let lines = pull(&transfers, &name).await.unwrap();
    let (one, two) = (short(&published.blobs[0]), short(&published.blobs[1]));
    assert_eq!(lines[0], "1: Pulling from a/b");
    assert_eq!(
        lines[1..3],
        [
            format!("{one}: Pulling fs layer"),
            format!("{two}: Pulling fs layer")
        ]
    );
    for id in [one, two] {
        let own: Vec<&str> = lines
            .iter()
            .filter_map(|line| line.strip_prefix(&format!("{id}: ")))
            .collect();
        assert_eq!(
            own,
            [
                "Pulling fs layer",
                "Verifying Checksum",
                "Download complete",
                "Pull complete"
            ]
        );
    }
    let place = |line: String| lines.iter().position(|other| *other == line).unwrap();
    assert!(place(format!("{one}: Pull complete")) < place(format!("{two}: Pull complete")));
    assert_eq!(
        lines[lines.len() - 2..],
        [
            format!("Digest: {}", published.manifest),
            format!("Status: Downloaded newer image for {name}")
        ]
    );
    let pulled = store.images.get(&name).unwrap();
    assert_eq!(pulled.id.to_digest(), built.id().to_string());
    assert_eq!(
        pulled.digests[0].to_string(),
        format!("{}/a/b@{}", registry.host(), published.manifest)
    );
    assert!(pulled.last_tagged.is_zero());
    assert_eq!(content_of(&store, &name, 1), noise(1, MIB));
    assert_eq!(partials(&store), 0);

    registry.forget_requests();
    assert_eq!(
        pull(&transfers, &name).await.unwrap(),
        [
            "1: Pulling from a/b".to_owned(),
            format!("Digest: {}", published.manifest),
            format!("Status: Image is up to date for {name}")
        ]
    );
    assert!(registry.requests_of("GET", "/blobs/").is_empty());
    assert!(registry.requests_of("GET", "/manifests/").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_here_is_not_fetched_whatever_its_compression() {
    let (registry, store) = (Registry::start(), store());
    let base = image(&["base:1"], vec![layer(1, MIB)]);
    load(&store.images, &common::docker_archive(&[&base])).unwrap();
    let built = image(&[], vec![layer(1, MIB), layer(2, 1000)]);
    let published = publish(&registry, "a", "1", &built);
    let lines = pull(&transfers(&store), &format!("{}/a:1", registry.host()))
        .await
        .unwrap();
    let already = format!("{}: Already exists", short(&published.blobs[0]));
    assert!(lines.contains(&already), "{lines:?}");
    assert_eq!(sent(&registry, &published.blobs[0]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_costs_what_was_in_flight() {
    let (registry, store) = (Registry::start(), store());
    let published = publish(&registry, "a", "1", &image(&[], vec![layer(1, 4 * MIB)]));
    let blob = &published.blobs[0];
    registry.misbehave("GET", blob, Times::First(1), Fault::CutAfter(3 * MIB));
    let name = format!("{}/a:1", registry.host());
    pull(&transfers(&store), &name).await.unwrap();
    assert_eq!(content_of(&store, &name, 1), noise(1, 4 * MIB));
    let ranges = registry.requests_of("GET", blob);
    assert_eq!(ranges.len(), 2);
    assert!(ranges[1].header("range").is_some());
    assert!(sent(&registry, blob) < published.sizes[0] + MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_is_kept_over_a_cancel_and_a_restart() {
    let (registry, mut store) = (Registry::start(), store());
    let built = image(&[], vec![layer(1, MIB), layer(2, 4 * MIB)]);
    let published = publish(&registry, "a", "1", &built);
    let (first, second) = (&published.blobs[0], &published.blobs[1]);
    registry.misbehave("GET", second, Times::First(1), Fault::StallAfter(3 * MIB));
    let name = format!("{}/a:1", registry.host());
    let mut events = transfers(&store)
        .pull(pull_options(&name), Box::new(|_| ()))
        .await
        .unwrap();
    let complete = format!("{}: Pull complete", short(first));
    while let Some(event) = events.recv().await {
        if let TransferEvent::Status { id, text } = event.unwrap()
            && format!("{id}: {text}") == complete
        {
            break;
        }
    }
    // The other stalls by now.
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(events);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if !store.images.content().idle_partials().unwrap().is_empty() {
            break;
        }
    }
    let came = store.images.content().idle_partials().unwrap()[0].1;
    assert!(came > 2 * MIB as u64, "{came}");
    // A daemon that is killed leaves no more than this.
    drop(std::mem::replace(
        &mut store.images,
        Images::open(tempfile::tempdir().unwrap().path()).unwrap(),
    ));
    store.images = reopen(&store).await;
    registry.forget_requests();
    let lines = pull(&transfers(&store), &name).await.unwrap();
    assert!(
        lines.contains(&format!("{}: Already exists", short(first))),
        "{lines:?}"
    );
    let requests = registry.requests_of("GET", second);
    assert_eq!(
        requests[0].header("range"),
        Some(format!("bytes={came}-").as_str())
    );
    assert_eq!(sent(&registry, second), published.sizes[1] - came as usize);
    assert_eq!(content_of(&store, &name, 2), noise(2, 4 * MIB));
    assert_eq!(partials(&store), 0);
}

/// Opens a store again; the threads of the last one may hold it for a moment.
async fn reopen(store: &Store) -> Images {
    for _ in 0..200 {
        match Images::open(store.root.path()) {
            Ok(images) => return images,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    Images::open(store.root.path()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_that_went_bad_is_thrown_away_and_fetched_again() {
    let (registry, store) = (Registry::start(), store());
    let published = publish(&registry, "a", "1", &image(&[], vec![layer(1, 2 * MIB)]));
    let blob = &published.blobs[0];
    let name = blob.replace(':', "-");
    // As a loss of power leaves a file that was not synced.
    let partial = store.root.path().join("content/partial").join(name);
    std::fs::write(partial, vec![0; MIB]).unwrap();
    let name = format!("{}/a:1", registry.host());
    pull(&transfers(&store), &name).await.unwrap();
    assert_eq!(content_of(&store, &name, 1), noise(1, 2 * MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_and_wrong_lengths_are_refused_and_nothing_stays() {
    for fault in [Fault::WrongBytes, Fault::ContentLength(2 * MIB)] {
        let (registry, store) = (Registry::start(), store());
        let published = publish(&registry, "a", "1", &image(&[], vec![layer(1, MIB)]));
        let blob = &published.blobs[0];
        registry.misbehave("GET", blob, Times::Always, fault.clone());
        let name = format!("{}/a:1", registry.host());
        let error = pull(&transfers(&store), &name).await.unwrap_err();
        if matches!(fault, Fault::WrongBytes) {
            assert_eq!(
                error,
                format!("filesystem layer verification failed for digest {blob}")
            );
            assert_eq!(partials(&store), 0);
        }
        assert!(store.images.get(&name).is_err());
        // The next pull is not misled by what came.
        registry.behave();
        pull(&transfers(&store), &name).await.unwrap();
        assert_eq!(content_of(&store, &name, 1), noise(1, MIB), "{fault:?}");
        store.images.remove(&name, common_remove()).unwrap();
        common::assert_empty(&store);
    }
}

fn common_remove() -> gantry_image::RemoveOptions<'static> {
    gantry_image::RemoveOptions {
        force: false,
        no_prune: false,
        in_use: &|_| Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_came_before_a_failure_are_not_fetched_again() {
    let (registry, store) = (Registry::start(), store());
    let built = image(&[], vec![layer(1, MIB), layer(2, MIB)]);
    let published = publish(&registry, "a", "1", &built);
    let (good, bad) = (&published.blobs[0], &published.blobs[1]);
    let name = format!("{}/a:1", registry.host());
    let transfers = transfers(&store);
    // The good one comes before the bad one ends.
    registry.misbehave("GET", bad, Times::Always, Fault::Slow(700_000));
    let mut events = transfers
        .pull(pull_options(&name), Box::new(|_| ()))
        .await
        .unwrap();
    let complete = format!("{}: Pull complete", short(good));
    while let Some(event) = events.recv().await {
        if let TransferEvent::Status { id, text } = event.unwrap()
            && format!("{id}: {text}") == complete
        {
            break;
        }
    }
    drop(events);
    registry.behave();
    registry.forget_requests();
    pull(&transfers, &name).await.unwrap();
    assert_eq!(sent(&registry, good), 0);
    assert!(sent(&registry, bad) <= published.sizes[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_fetch_once_and_the_end_of_one_is_not_the_others() {
    let (registry, store) = (Registry::start(), store());
    let published = publish(&registry, "a", "1", &image(&[], vec![layer(1, 2 * MIB)]));
    let built = image(&[], vec![layer(1, 2 * MIB), layer(7, 10)]);
    publish(&registry, "b", "1", &built);
    let blob = &published.blobs[0];
    registry.misbehave("GET", blob, Times::Always, Fault::Slow(2 * MIB));
    let transfers = transfers(&store);
    let (one, other) = (
        format!("{}/a:1", registry.host()),
        format!("{}/b:1", registry.host()),
    );
    let mut events = transfers
        .pull(pull_options(&one), Box::new(|_| ()))
        .await
        .unwrap();
    let third = transfers.clone();
    let name = other.clone();
    let following = tokio::spawn(async move { pull(&third, &name).await });
    // The first is broken off in the middle, when the second has joined.
    while let Some(event) = events.recv().await {
        if let TransferEvent::Progress { current, .. } = event.unwrap()
            && current > MIB as u64
        {
            break;
        }
    }
    drop(events);
    let lines = following.await.unwrap().unwrap();
    assert!(lines.iter().any(|line| line.ends_with("Pull complete")));
    assert_eq!(registry.requests_of("GET", blob).len(), 1);
    assert_eq!(sent(&registry, blob), published.sizes[0]);
    assert!(store.images.get(&one).is_err());
    assert_eq!(content_of(&store, &other, 1), noise(1, 2 * MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_registry_is_asked_again_and_that_is_told() {
    let (registry, store) = (Registry::start(), store());
    let published = publish(&registry, "a", "1", &image(&[], vec![layer(1, MIB)]));
    registry.misbehave(
        "GET",
        &published.blobs[0],
        Times::First(1),
        Fault::status(503, "busy"),
    );
    let name = format!("{}/a:1", registry.host());
    let lines = pull(&transfers(&store), &name).await.unwrap();
    assert!(
        lines.iter().any(|line| line.contains(": Retrying in ")),
        "{lines:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn platforms_are_chosen_and_missing_ones_are_named() {
    let (registry, store) = (Registry::start(), store());
    let published = publish(&registry, "a", "amd", &image(&[], vec![layer(1, 100)]));
    let manifest = registry.manifest("a", &published.manifest).unwrap();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": published.manifest, "size": manifest.len(),
         "platform": {"os": "linux", "architecture": "amd64"}},
    ]});
    let index = registry.push_manifest("a", "1", INDEX, index.to_string().as_bytes());
    let name = format!("{}/a:1", registry.host());
    let transfers = transfers(&store);
    let lines = pull(&transfers, &name).await.unwrap();
    assert!(lines.contains(&format!("Digest: {index}")));
    let image = store.images.get(&name).unwrap();
    assert!(image.digests[0].to_string().ends_with(&index));
    let by_digest = format!("{}/a@{index}", registry.host());
    let lines = pull(&transfers, &by_digest).await.unwrap();
    assert_eq!(lines[0], format!("{by_digest}: Pulling from a"));
    assert!(lines[2].starts_with("Status: Image is up to date"));
    let options = PullOptions {
        platform: Some("linux/arm64".parse().unwrap()),
        ..pull_options(&name)
    };
    assert_eq!(
        pull_with(&transfers, options).await.unwrap_err(),
        "no matching manifest for linux/arm64 in the manifest list entries"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tags_come_in_the_registrys_order() {
    let (registry, store) = (Registry::start(), store());
    publish(&registry, "a", "1", &image(&[], vec![layer(1, 100)]));
    publish(&registry, "a", "2", &image(&[], vec![layer(2, 100)]));
    let name = format!("{}/a", registry.host());
    let lines = pull(&transfers(&store), &name).await.unwrap();
    let pulling: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("Pulling from"))
        .collect();
    assert_eq!(pulling, ["1: Pulling from a", "2: Pulling from a"]);
    assert_eq!(
        *lines.last().unwrap(),
        format!("Status: Downloaded newer image for {name}")
    );
    let error = pull(&transfers(&store), &format!("{name}:3")).await;
    assert_eq!(
        error.unwrap_err(),
        format!("manifest for {name}:3 not found: manifest unknown: manifest unknown")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_layers_are_read_zstd_and_plain_and_called_what_they_are_not() {
    let (registry, store) = (Registry::start(), store());
    let layers = [layer(1, 3000), layer(2, 400_000), layer(3, 500)];
    let built = image(&[], layers.to_vec());
    let mut chunked = zstd::bulk::compress(&layers[0], 3).unwrap();
    // A skippable frame as zstd:chunked has at its end.
    chunked.extend_from_slice(&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4]);
    let blobs = [chunked, layers[1].clone(), gzip(&layers[2])];
    let parts: Vec<_> = blobs
        .iter()
        .map(|blob| {
            json!({"mediaType": LAYER_GZIP, "size": blob.len(), "digest": registry.push_blob(blob)})
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": parts,
        "config": {"mediaType": CONFIG, "digest": registry.push_blob(&built.config), "size": built.config.len()},
    });
    registry.push_manifest("a", "1", MANIFEST, manifest.to_string().as_bytes());
    let name = format!("{}/a:1", registry.host());
    pull(&transfers(&store), &name).await.unwrap();
    assert_eq!(
        store.images.get(&name).unwrap().id.to_digest(),
        built.id().to_string()
    );
    for (seed, length) in [(1, 3000), (2, 400_000), (3, 500)] {
        assert_eq!(content_of(&store, &name, seed), noise(seed, length));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_its_configuration_does_not_mean_is_refused() {
    let (registry, store) = (Registry::start(), store());
    let mut built = image(&[], vec![layer(1, 1000)]);
    built.layers = vec![layer(2, 1000)];
    publish(&registry, "a", "1", &built);
    let name = format!("{}/a:1", registry.host());
    assert_eq!(
        pull(&transfers(&store), &name).await.unwrap_err(),
        "layers from manifest don't match image configuration"
    );
    let chart = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
        "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": digest_of(b"{}"), "size": 2},
    });
    registry.push_manifest("a", "chart", MANIFEST, chart.to_string().as_bytes());
    assert_eq!(
        pull(&transfers(&store), &format!("{}/a:chart", registry.host()))
            .await
            .unwrap_err(),
        r#"encountered remote "application/vnd.cncf.helm.config.v1+json"(unknown) when fetching"#
    );
    common::assert_empty(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_layer_comes_from_its_address_where_the_registry_lacks_it() {
    let (registry, elsewhere, store) = (Registry::start(), Registry::start(), store());
    let built = image(&[], vec![layer(1, MIB)]);
    let blob = gzip(&built.layers[0]);
    let digest = elsewhere.push_blob(&blob);
    let part = |kind: &str| {
        json!({"mediaType": kind, "size": blob.len(), "digest": digest,
               "urls": [format!("{}/v2/x/blobs/{digest}", elsewhere.url())]})
    };
    let config = json!({
        "mediaType": CONFIG, "digest": registry.push_blob(&built.config), "size": built.config.len(),
    });
    for (tag, kind) in [
        (
            "1",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        ),
        ("2", LAYER_GZIP),
    ] {
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [part(kind)], "config": config});
        registry.push_manifest("a", tag, MANIFEST, manifest.to_string().as_bytes());
    }
    let transfers = transfers(&store);
    // An address of any other layer is not followed.
    let other = format!("{}/a:2", registry.host());
    assert!(pull(&transfers, &other).await.is_err());
    assert!(elsewhere.requests().is_empty());
    let name = format!("{}/a:1", registry.host());
    pull(&transfers, &name).await.unwrap();
    assert_eq!(content_of(&store, &name, 1), noise(1, MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_in_the_middle_is_renewed_and_the_layer_goes_on() {
    let (registry, store) = (Registry::start(), store());
    let published = publish(&registry, "a", "1", &image(&[], vec![layer(1, 4 * MIB)]));
    let blob = &published.blobs[0];
    registry.set_access(Access::Bearer(TokenServer::default()));
    registry.misbehave("GET", blob, Times::First(1), Fault::StallAfter(3 * MIB));
    let name = format!("{}/a:1", registry.host());
    let events = transfers(&store)
        .pull(pull_options(&name), Box::new(|_| ()))
        .await
        .unwrap();
    let partial = store
        .root
        .path()
        .join("content/partial")
        .join(blob.replace(':', "-"));
    // While nothing comes any more, and before the client asks for the rest.
    while std::fs::metadata(&partial).map_or(0, |metadata| metadata.len()) < 2 * MIB as u64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    registry.expire_tokens();
    lines(events).await.unwrap();
    assert_eq!(content_of(&store, &name, 1), noise(1, 4 * MIB));
    let requests = registry.requests_of("GET", blob);
    let statuses: Vec<u16> = requests.iter().map(|request| request.status).collect();
    assert!(statuses.contains(&401), "{statuses:?}");
    let last = requests.last().unwrap();
    assert!(last.status == 206 && last.header("range").is_some());
    assert!(sent(&registry, blob) < published.sizes[0] + MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_layers_come_at_once_as_was_asked_for() {
    let (registry, store) = (Registry::start(), store());
    let layers = (0..8).map(|seed| layer(seed, 40_000)).collect();
    publish(&registry, "a", "1", &image(&[], layers));
    registry.misbehave("GET", "/blobs/", Times::Always, Fault::Slow(80_000));
    let name = format!("{}/a:1", registry.host());
    let lines = pull(&transfers_with(&store, 8), &name).await.unwrap();
    let waiting = lines.iter().filter(|line| line.ends_with(": Waiting"));
    assert_eq!(waiting.count(), 0, "{lines:?}");
}

/// An index of this machine's platform and another one's.
fn publish_index(registry: &Registry) -> Published {
    let here = publish(registry, "a", "here", &image(&[], vec![layer(1, MIB)]));
    let there = publish(registry, "a", "there", &image(&[], vec![layer(2, 2 * MIB)]));
    let entry = |digest: &str, architecture: &str| {
        json!({"mediaType": MANIFEST, "digest": digest, "size": 1,
               "platform": {"os": "linux", "architecture": architecture}})
    };
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        entry(&here.manifest, "amd64"), entry(&there.manifest, "arm64"),
    ]});
    registry.push_manifest("a", "1", INDEX, index.to_string().as_bytes());
    there
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_of_one_whole_index_share_its_blobs_and_a_check_beside_them_finds_nothing() {
    let (registry, store) = (Registry::start(), store());
    let there = publish_index(&registry);
    registry.misbehave("GET", &there.blobs[0], Times::Always, Fault::Slow(2 * MIB));
    let transfers = transfers(&store);
    let options = || PullOptions {
        all_platforms: true,
        ..pull_options(&format!("{}/a:1", registry.host()))
    };
    let images = store.images.clone();
    let checked = tokio::task::spawn_blocking(move || {
        let mut problems = Vec::new();
        for _ in 0..8 {
            std::thread::sleep(Duration::from_millis(100));
            problems.extend(images.check(true, Duration::ZERO).unwrap().problems);
        }
        problems
    });
    let (one, other) = tokio::join!(
        pull_with(&transfers, options()),
        pull_with(&transfers, options())
    );
    one.unwrap();
    other.unwrap();
    assert_eq!(checked.await.unwrap(), Vec::<String>::new());
    assert_eq!(sent(&registry, &there.blobs[0]), there.sizes[0]);
    let digest = there.blobs[0].parse().unwrap();
    assert_eq!(
        store.images.content().size(&digest).unwrap(),
        Some(there.sizes[0] as u64)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_too_many_manifests_is_refused_before_they_are_fetched() {
    let (registry, store) = (Registry::start(), store());
    let here = publish(&registry, "a", "here", &image(&[], vec![layer(1, 1000)]));
    let mut manifests = vec![
        json!({"mediaType": MANIFEST, "digest": here.manifest, "size": 1,
               "platform": {"os": "linux", "architecture": "amd64"}}),
    ];
    for number in 0..1100 {
        let other = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [], "annotations": {"n": number.to_string()},
            "config": {"mediaType": CONFIG, "digest": here.blobs[0], "size": 1}});
        let digest = registry.push_manifest("a", "x", MANIFEST, other.to_string().as_bytes());
        manifests.push(json!({"mediaType": MANIFEST, "digest": digest, "size": 1,
            "platform": {"os": "linux", "architecture": "s390x"}}));
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    registry.push_manifest("a", "1", INDEX, index.to_string().as_bytes());
    let options = PullOptions {
        all_platforms: true,
        ..pull_options(&format!("{}/a:1", registry.host()))
    };
    let error = pull_with(&transfers(&store), options).await.unwrap_err();
    assert_eq!(error, "the index lists more than 1024 manifests");
    assert!(registry.requests_of("GET", "/manifests/").len() <= 2);
}
