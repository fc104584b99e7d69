//! What is kept, counted, checked and collected.

mod common;

use common::transfers::*;
use common::{Store, count, image, load, store};
use gantry_image::{GcPolicy, RemoveOptions};
use gantry_testkit::registry::Registry;
use std::time::Duration;

const MIB: usize = 1 << 20;

fn remove(store: &Store, name: &str) {
    let options = RemoveOptions {
        force: true,
        no_prune: false,
        in_use: &|_| Vec::new(),
    };
    store.images.remove(name, options).unwrap();
}

/// What du(1) counts of the directories that belong to images.
fn du(store: &Store) -> u64 {
    let paths = ["snapshots", "content", "index.redb"].map(|name| store.root.path().join(name));
    let output = std::process::Command::new("du")
        .args(["-s", "-c", "-B1"])
        .args(paths)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let total = text.lines().last().unwrap();
    total.split_whitespace().next().unwrap().parse().unwrap()
}

fn assert_counts_as_du(store: &Store) {
    // What waits to be written has no blocks yet on some file systems.
    rustix::fs::sync();
    store.images.snapshots().make_space();
    let (own, du) = (store.images.disk_usage().unwrap().total_bytes(), du(store));
    assert!(
        own.abs_diff(du) * 100 <= du,
        "df counts {own}, du counts {du}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_usage_is_what_du_counts() {
    let (registry, store) = (Registry::start(), store());
    let small: Vec<(String, Vec<u8>)> = (0..500)
        .map(|number| (format!("small-{number}"), vec![b'x'; 100]))
        .collect();
    let files: Vec<(&str, &[u8])> = small
        .iter()
        .map(|(name, content)| (name.as_str(), content.as_slice()))
        .collect();
    let built = image(&["loaded:1"], vec![common::tar(&files), layer(1, 3 * MIB)]);
    load(&store.images, &common::docker_archive(&[&built])).unwrap();
    assert_counts_as_du(&store);
    publish(&registry, "a", "1", &image(&[], vec![layer(2, 5 * MIB)]));
    let name = format!("{}/a:1", registry.host());
    pull(&transfers(&store), &name).await.unwrap();
    std::fs::write(
        store.root.path().join("content/partial/sha256-left"),
        vec![1; MIB],
    )
    .unwrap();
    assert_counts_as_du(&store);
    remove(&store, "loaded:1");
    assert_counts_as_du(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_with_its_manifests_and_what_is_known_of_its_blobs() {
    let (registry, store) = (Registry::start(), store());
    publish(&registry, "a", "1", &image(&[], vec![layer(1, 100)]));
    let name = format!("{}/a:1", registry.host());
    pull(&transfers(&store), &name).await.unwrap();
    assert_eq!(count(&store.root.path().join("content/sha256")), 2);
    remove(&store, &name);
    common::assert_empty(&store);
    let report = store.images.check(false, Duration::ZERO).unwrap();
    assert_eq!((report.images, report.layers, report.blobs), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_finds_damage_and_a_repair_makes_room_for_a_pull() {
    let (registry, store) = (Registry::start(), store());
    let built = image(&[], vec![layer(1, MIB), layer(2, MIB)]);
    let published = publish(&registry, "a", "1", &built);
    let name = format!("{}/a:1", registry.host());
    let transfers = transfers(&store);
    pull(&transfers, &name).await.unwrap();
    let sound = store.images.check(false, Duration::ZERO).unwrap();
    assert_eq!(sound.problems, Vec::<String>::new());
    assert_eq!((sound.images, sound.layers, sound.blobs), (1, 2, 2));
    assert!(sound.bytes > 2 * MIB as u64);

    let layers = store.images.get(&name).unwrap().layers.clone();
    std::fs::write(layers[1].path.join("file-2"), b"other").unwrap();
    let found = store.images.check(false, Duration::ZERO).unwrap();
    assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
    assert!(found.problems[0].contains(layers[1].diff_id.as_str()));
    assert!(found.repaired.is_empty());

    let hour = Duration::from_secs(3600);
    let repaired = store.images.check(true, hour).unwrap();
    assert!(!repaired.repaired.is_empty());
    assert_eq!(repaired.remaining, Vec::<String>::new());
    assert!(store.images.get(&name).is_err());
    assert!(store.images.check(false, hour).unwrap().problems.is_empty());
    registry.forget_requests();
    pull(&transfers, &name).await.unwrap();
    // The sound layer waited for this.
    assert_eq!(sent(&registry, &published.blobs[0]), 0);
    let layers = store.images.get(&name).unwrap().layers.clone();
    assert_eq!(
        std::fs::read(layers[1].path.join("file-2")).unwrap(),
        noise(2, MIB)
    );
}

#[test]
fn a_check_finds_bad_content_and_a_layer_that_containers_use_is_left_to_them() {
    let store = store();
    let built = image(&["x:1"], vec![layer(1, 1000)]);
    load(&store.images, &common::docker_archive(&[&built])).unwrap();
    let image = store.images.get("x:1").unwrap();
    let number = store.images.allocate_snapshot().unwrap();
    store.images.prepare(number, &image.id).unwrap();
    std::fs::write(image.layers[0].path.join("file-1"), b"other").unwrap();
    let report = store.images.check(true, Duration::ZERO).unwrap();
    assert!(report.repaired[0].contains("remove its containers first"));
    // Nothing was done, and the report says so.
    assert_eq!(report.remaining, report.problems);
    assert_eq!(report.remaining.len(), 1);
    assert!(image.layers[0].path.join("file-1").exists());
    assert!(store.images.overlay(number).unwrap().upper.exists());
    store.images.release(number).unwrap();

    let config = store
        .root
        .path()
        .join("content/sha256")
        .join(image.id.as_str());
    std::fs::write(config, b"{}").unwrap();
    let report = store.images.check(true, Duration::ZERO).unwrap();
    assert!(
        report
            .problems
            .iter()
            .any(|text| text.contains("has digest"))
    );
    assert!(store.images.get("x:1").is_err());
    common::assert_empty(&store);
}

#[test]
fn a_directory_without_a_record_is_told_and_set_aside() {
    let store = store();
    std::fs::create_dir_all(store.root.path().join("snapshots/77/fs")).unwrap();
    let report = store.images.check(true, Duration::ZERO).unwrap();
    assert_eq!(report.problems, ["`snapshots/77` has no record"]);
    assert!(
        store
            .root
            .path()
            .join("snapshots/quarantine/77/fs")
            .exists()
    );
}

#[test]
fn a_policy_takes_what_it_says_and_a_dry_run_nothing() {
    let store = store();
    let old = image(&["old:1"], vec![layer(1, MIB)]);
    let unnamed = image(&[], vec![layer(2, MIB)]);
    let used = image(&["used:1"], vec![layer(3, MIB)]);
    load(
        &store.images,
        &common::docker_archive(&[&old, &unnamed, &used]),
    )
    .unwrap();
    let used_id = store.images.get("used:1").unwrap().id.clone();
    let in_use = |id: &gantry_api::id::ImageId| {
        let user = gantry_image::InUse {
            container_id: "c".repeat(64),
            running: false,
        };
        (*id == used_id).then_some(user).into_iter().collect()
    };
    let policy = GcPolicy {
        unused_for: Duration::ZERO,
        ..GcPolicy::default()
    };
    let images = &store.images;
    let (report, removed) = images.collect_by(&policy, &in_use, true).unwrap();
    assert_eq!((report.items.len(), removed.len()), (1, 0));
    assert!(report.reclaimed_bytes >= MIB as u64 && report.dry_run);
    assert!(images.get(unnamed.id().as_str()).is_ok());
    let (report, removed) = images.collect_by(&policy, &in_use, false).unwrap();
    assert_eq!(report.items[0].kind, "image");
    assert!(!removed.is_empty());
    assert!(images.get(unnamed.id().as_str()).is_err());
    assert!(images.get("old:1").is_ok());
    let tagged = GcPolicy {
        tagged: true,
        ..policy
    };
    images.collect_by(&tagged, &in_use, false).unwrap();
    assert!(images.get("old:1").is_err());
    assert!(images.get("used:1").is_ok());
}
