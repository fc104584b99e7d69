//! Names, removal, lists, history, import, commit, containers' snapshots.

mod common;

use common::*;
use gantry_api::id::ImageId;
use gantry_image::snapshot::ChangeKind;
use gantry_image::{
    CommitOptions, Error, Images, ImportOptions, InUse, ListOptions, PruneOptions, RemoveOptions,
    Removed,
};
use std::collections::HashSet;

fn nobody(_: &ImageId) -> Vec<InUse> {
    Vec::new()
}

fn remove(images: &Images, name: &str, force: bool) -> Result<Vec<String>, String> {
    remove_with(images, name, force, &nobody)
}

fn remove_with(
    images: &Images,
    name: &str,
    force: bool,
    in_use: &dyn Fn(&ImageId) -> Vec<InUse>,
) -> Result<Vec<String>, String> {
    let removed = images.remove(
        name,
        RemoveOptions {
            force,
            no_prune: false,
            in_use,
        },
    );
    let removed = removed.map_err(|error| error.to_string())?;
    Ok(removed
        .iter()
        .map(|removed| match removed {
            Removed::Untagged(reference) => format!("Untagged {reference}"),
            Removed::Deleted(digest) => format!("Deleted {digest}"),
        })
        .collect())
}

#[test]
fn names_are_resolved_as_docker_does() {
    let store = store();
    let one = image(
        &["one:1", "example.com:5000/a/b:2"],
        vec![tar(&[("a", b"1")])],
    );
    load(&store.images, &docker_archive(&[&one])).unwrap();
    store.images.tag("one:1", "one").unwrap();
    let id = one.id();
    for name in [
        "one",
        "one:latest",
        "one:1",
        "docker.io/library/one:1",
        "example.com:5000/a/b:2",
        id.as_str(),
        id.hex(),
        &id.hex()[..4],
        &id.as_str()[..20],
    ] {
        assert_eq!(
            store.images.get(name).unwrap().id.as_str(),
            id.hex(),
            "{name}"
        );
    }
    let digits = "0".repeat(64);
    for (name, text) in [
        ("two", "No such image: two:latest".to_owned()),
        ("one:3", "No such image: one:3".to_owned()),
        (
            "example.com:5000/a/b",
            "No such image: example.com:5000/a/b:latest".to_owned(),
        ),
        (
            "One",
            "invalid reference format: repository name (library/One) must be lowercase".to_owned(),
        ),
        ("", "invalid reference format".to_owned()),
        (digits.as_str(), format!("No such image: sha256:{digits}")),
    ] {
        assert_eq!(store.images.get(name).unwrap_err().to_string(), text);
    }
}

#[test]
fn tags_are_given_and_refused() {
    let store = store();
    let one = image(&["one:1"], vec![tar(&[("a", b"1")])]);
    load(&store.images, &docker_archive(&[&one])).unwrap();
    store
        .images
        .tag(&one.id().hex()[..12], "other/name:x")
        .unwrap();
    let image = store.images.get("other/name:x").unwrap();
    assert_eq!(image.references.len(), 2);
    assert!(!image.last_tagged.is_zero());
    let pinned = format!("a@{}", one.id());
    for (target, text) in [
        (
            "Bad",
            "invalid reference format: repository name (library/Bad) must be lowercase",
        ),
        (
            pinned.as_str(),
            "refusing to create a tag with a digest reference",
        ),
        (
            "sha256:abc",
            "refusing to create an ambiguous tag using digest algorithm as name",
        ),
    ] {
        assert_eq!(
            store.images.tag("one:1", target).unwrap_err().to_string(),
            text
        );
    }
    assert_eq!(
        store.images.tag("none", "x").unwrap_err().to_string(),
        "No such image: none:latest"
    );
}

#[test]
fn removal_untags_first_and_deletes_with_the_last_name() {
    let store = store();
    let layer = tar(&[("a", b"1")]);
    let one = image(&["one:1", "one:2"], vec![layer.clone()]);
    let two = image(&["two:1"], vec![layer.clone(), tar(&[("b", b"2")])]);
    load(&store.images, &docker_archive(&[&one, &two])).unwrap();
    let id = one.id();
    assert_eq!(
        remove(&store.images, id.hex(), false).unwrap_err(),
        format!(
            "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
            id.short()
        )
    );
    assert_eq!(
        remove(&store.images, "one:2", false).unwrap(),
        ["Untagged one:2"]
    );
    // The layer stays with the other image.
    assert_eq!(
        remove(&store.images, "one:1", false).unwrap(),
        ["Untagged one:1".to_owned(), format!("Deleted {id}")]
    );
    assert!(
        store.images.get("two:1").unwrap().layers[0]
            .path
            .join("a")
            .exists()
    );
    let chain = store
        .images
        .get("two:1")
        .unwrap()
        .layers
        .iter()
        .map(|l| l.chain_id.clone())
        .collect::<Vec<_>>();
    assert_eq!(
        remove(&store.images, &two.id().hex()[..8], false).unwrap(),
        [
            "Untagged two:1".to_owned(),
            format!("Deleted {}", two.id()),
            format!("Deleted {}", chain[1]),
            format!("Deleted {}", chain[0]),
        ]
    );
    assert_empty(&store);
    assert_eq!(
        remove(&store.images, "two:1", true).unwrap_err(),
        "No such image: two:1"
    );
}

#[test]
fn what_containers_use_is_kept() {
    let store = store();
    let one = image(&["one:1"], vec![tar(&[("a", b"1")])]);
    load(&store.images, &docker_archive(&[&one])).unwrap();
    let id = store.images.get("one:1").unwrap().id.clone();
    let number = store.images.allocate_snapshot().unwrap();
    store.images.prepare(number, &id).unwrap();
    let container = "c0ffee".repeat(11)[..64].to_owned();
    let user = |running| {
        let container = container.clone();
        move |_: &ImageId| {
            vec![InUse {
                container_id: container.clone(),
                running,
            }]
        }
    };
    assert_eq!(
        remove_with(&store.images, "one:1", false, &user(false)).unwrap_err(),
        format!(
            "conflict: unable to remove repository reference \"one:1\" (must force) - container c0ffeec0ffee is using \
             its referenced image {}",
            id.short()
        )
    );
    assert_eq!(
        remove_with(&store.images, id.as_str(), false, &user(false)).unwrap_err(),
        format!(
            "conflict: unable to delete {} (must be forced) - image is being used by stopped container c0ffeec0ffee",
            id.short()
        )
    );
    assert_eq!(
        remove_with(&store.images, id.as_str(), true, &user(true)).unwrap_err(),
        format!(
            "conflict: unable to delete {} (cannot be forced) - image is being used by running container c0ffeec0ffee",
            id.short()
        )
    );
    // By name and by force a running container's image loses its name and stays.
    assert_eq!(
        remove_with(&store.images, "one:1", true, &user(true)).unwrap(),
        ["Untagged one:1"]
    );
    store.images.tag(id.as_str(), "one:1").unwrap();
    assert_eq!(
        remove_with(&store.images, "one:1", true, &user(false)).unwrap(),
        ["Untagged one:1".to_owned(), format!("Deleted {}", one.id())]
    );
    // The image is gone; its layer lives as long as the container's snapshot.
    let lower = store.images.overlay(number).unwrap().lowers[0].clone();
    assert!(lower.join("a").exists());
    let Store { root, images } = store;
    drop(images);
    let images = Images::open(root.path()).unwrap();
    assert!(lower.join("a").exists() && images.set_aside().is_empty());
    images.release(number).unwrap();
    images.release(number).unwrap();
    assert_empty(&Store { root, images });
}

#[test]
fn parents_go_with_their_last_child() {
    let store = store();
    let base = image(&["base:1"], vec![tar(&[("a", b"1")])]);
    load(&store.images, &docker_archive(&[&base])).unwrap();
    let id = store.images.get("base:1").unwrap().id.clone();
    let number = store.images.allocate_snapshot().unwrap();
    store.images.prepare(number, &id).unwrap();
    let upper = store.images.overlay(number).unwrap().upper;
    std::fs::write(upper.join("new"), b"written").unwrap();
    assert_eq!(
        store.images.diff(number).unwrap()[0].kind,
        ChangeKind::Added
    );
    let child = store
        .images
        .commit_container(
            number,
            &CommitOptions {
                parent: id.clone(),
                run: store.images.get("base:1").unwrap().config().config.clone(),
                author: "someone".into(),
                comment: "why".into(),
                created_by: "sh".into(),
                reference: Some("child:1".parse().unwrap()),
            },
        )
        .unwrap();
    store.images.release(number).unwrap();
    let image = store.images.get("child:1").unwrap();
    assert_eq!(
        (&image.id, image.parent.as_ref(), image.layers.len()),
        (&child, Some(&id), 2)
    );
    assert_eq!(
        std::fs::read(image.layers[1].path.join("new")).unwrap(),
        b"written"
    );
    let history = store.images.history("child:1").unwrap();
    assert_eq!(
        (
            history[0].comment.as_str(),
            history[0].size_bytes,
            &history[0].id
        ),
        ("why", 7, &Some(child.clone()))
    );
    assert_eq!(
        (history[1].created_by.as_str(), &history[1].id),
        ("step 0", &Some(id.clone()))
    );

    let conflict = remove(&store.images, id.as_str(), true).unwrap_err();
    let text = format!(
        "conflict: unable to delete {} (cannot be forced) - image has dependent child images",
        id.short()
    );
    assert_eq!(conflict, text);
    assert_eq!(
        remove(&store.images, "base:1", false).unwrap(),
        ["Untagged base:1"]
    );
    let listed = |all| {
        let options = ListOptions {
            all,
            ..ListOptions::default()
        };
        store
            .images
            .list(&options)
            .unwrap()
            .into_iter()
            .map(|l| l.image.id.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(false), std::slice::from_ref(&child));
    assert_eq!(listed(true), [child.clone(), id.clone()]);
    let removed = remove(&store.images, "child:1", false).unwrap();
    assert_eq!(removed.len(), 5, "{removed:?}");
    assert_empty(&store);
}

#[test]
fn lists_are_filtered_and_sorted() {
    let store = store();
    let make = |name: &str, day: u32, labels: serde_json::Value| {
        let run = serde_json::json!({ "Labels": labels });
        let names: Vec<&str> = if name.is_empty() { vec![] } else { vec![name] };
        image_with(
            &names,
            vec![
                tar(&[("shared", b"12345")]),
                tar(&[(format!("f{day}").as_str(), b"1")]),
            ],
            run,
            &format!("2024-01-0{day}T00:00:00Z"),
        )
    };
    let images = [
        make(
            "app/one:1",
            1,
            serde_json::json!({ "tier": "web", "x": "1" }),
        ),
        make("app/two:2", 3, serde_json::json!({ "tier": "db" })),
        make("", 2, serde_json::json!(null)),
    ];
    load(
        &store.images,
        &docker_archive(&images.iter().collect::<Vec<_>>()),
    )
    .unwrap();
    let ids: Vec<String> = images.iter().map(|image| image.id().to_string()).collect();
    let list = |options: ListOptions| -> Vec<usize> {
        let listed = store.images.list(&options).unwrap();
        listed
            .iter()
            .map(|l| {
                ids.iter()
                    .position(|id| *id == l.image.id.to_digest())
                    .unwrap()
            })
            .collect()
    };
    let none = ListOptions::default;
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(list(none()), [1, 2, 0]);
    assert_eq!(
        list(ListOptions {
            dangling: Some(true),
            ..none()
        }),
        [2]
    );
    assert_eq!(
        list(ListOptions {
            dangling: Some(false),
            ..none()
        }),
        [1, 0]
    );
    assert_eq!(
        list(ListOptions {
            labels: words(&["tier"]),
            ..none()
        }),
        [1, 0]
    );
    assert_eq!(
        list(ListOptions {
            labels: words(&["tier=web", "x"]),
            ..none()
        }),
        [0]
    );
    assert_eq!(
        list(ListOptions {
            references: words(&["app/*:2"]),
            ..none()
        }),
        [1]
    );
    assert_eq!(
        list(ListOptions {
            references: words(&["*"]),
            ..none()
        }),
        [] as [usize; 0]
    );
    assert_eq!(
        list(ListOptions {
            before: words(&["app/two:2"]),
            ..none()
        }),
        [2, 0]
    );
    assert_eq!(
        list(ListOptions {
            since: words(&["app/one:1"]),
            ..none()
        }),
        [1, 2]
    );
    assert_eq!(
        list(ListOptions {
            until: "2024-01-02T00:00:00Z".parse().ok(),
            ..none()
        }),
        [0]
    );
    let shared = store
        .images
        .list(&ListOptions {
            shared_size: true,
            ..none()
        })
        .unwrap();
    assert_eq!(
        (shared[0].shared_size_bytes, shared[0].image.size_bytes),
        (Some(5), 6)
    );
    let bad = ListOptions {
        references: words(&["["]),
        ..none()
    };
    assert_eq!(
        store.images.list(&bad).unwrap_err().to_string(),
        "syntax error in pattern"
    );
}

#[test]
fn prune_removes_what_nobody_uses() {
    let store = store();
    let used = image(&["used:1"], vec![tar(&[("u", b"u")])]);
    let unused = image(&["unused:1", "unused:2"], vec![tar(&[("n", b"four")])]);
    let dangling = image(&[], vec![tar(&[("d", b"dangling")])]);
    load(&store.images, &docker_archive(&[&used, &unused, &dangling])).unwrap();
    let used_id = store.images.get("used:1").unwrap().id.clone();
    let in_use = |id: &ImageId| -> Vec<InUse> {
        if *id == used_id {
            vec![InUse {
                container_id: "c".repeat(64),
                running: false,
            }]
        } else {
            vec![]
        }
    };
    let options = PruneOptions {
        dangling_only: true,
        labels: vec![],
        labels_not: vec![],
        until: None,
        in_use: &in_use,
    };
    let pruned = store.images.prune(&options).unwrap();
    assert_eq!((pruned.removed.len(), pruned.reclaimed_bytes), (2, 8));
    let pruned = store
        .images
        .prune(&PruneOptions {
            dangling_only: false,
            ..options
        })
        .unwrap();
    assert_eq!((pruned.removed.len(), pruned.reclaimed_bytes), (4, 4));
    assert!(store.images.get("used:1").is_ok());
}

#[test]
fn a_root_archive_is_imported_with_changes() {
    let store = store();
    let options = ImportOptions {
        reference: Some("imported".parse().unwrap()),
        message: String::new(),
        changes: vec!["CMD [\"/init\"]".into(), "ENV A=b".into()],
        platform: None,
    };
    let root = tar(&[("./", b""), ("./init", b"#!")]);
    let id = store
        .images
        .import(
            zstd::encode_all(root.as_slice(), 1).unwrap().as_slice(),
            &options,
        )
        .unwrap();
    let image = store.images.get("imported:latest").unwrap();
    assert_eq!(
        (&image.id, image.config().config.cmd.as_deref()),
        (&id, Some(&["/init".to_owned()][..]))
    );
    assert_eq!(image.layers[0].diff_id, sha256(&root));
    assert_eq!(image.config().history[0].comment, "Imported from -");
    let wrong = ImportOptions {
        changes: vec!["RUN x".into()],
        ..options.clone()
    };
    let error = store.images.import(root.as_slice(), &wrong).unwrap_err();
    assert_eq!(error.to_string(), "RUN is not a valid change command");
    assert!(matches!(
        store
            .images
            .import(b"BZh91AY&SY".as_slice(), &options)
            .unwrap_err(),
        Error::Unsupported(_)
    ));
    remove(&store.images, "imported", false).unwrap();
    assert_empty(&store);
}

#[test]
fn snapshots_and_content_without_records_are_set_aside() {
    let store = store();
    let one = image(&["one:1"], vec![tar(&[("a", b"1")])]);
    load(&store.images, &docker_archive(&[&one])).unwrap();
    let id = store.images.get("one:1").unwrap().id.clone();
    let (kept, lost) = (
        store.images.allocate_snapshot().unwrap(),
        store.images.allocate_snapshot().unwrap(),
    );
    for number in [kept, lost] {
        store.images.prepare(number, &id).unwrap();
    }
    assert_eq!(
        store
            .images
            .quarantine_unowned(&HashSet::from([kept]))
            .unwrap()
            .len(),
        1
    );
    let Store { root, images } = store;
    drop(images);
    let stray = root.path().join("content/sha256").join("ab".repeat(32));
    std::fs::write(&stray, b"unknown").unwrap();
    std::fs::write(root.path().join("content/ingest/7"), b"half").unwrap();
    let images = Images::open(root.path()).unwrap();
    assert_eq!(std::fs::read(&images.set_aside()[0]).unwrap(), b"unknown");
    assert!(!stray.exists() && !root.path().join("content/ingest/7").exists());
    assert!(images.overlay(kept).is_ok());
    // A second engine cannot open the same store.
    assert!(Images::open(root.path()).is_err());
}
