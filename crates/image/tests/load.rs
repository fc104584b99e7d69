//! Loads archives of every form, good and bad.

mod common;

use common::*;
use gantry_api::digest::Digest;
use gantry_api::platform::Platform;
use gantry_image::snapshot::tar::{Kind, NewEntry, Writer};
use gantry_image::{Error, Images, LoadEvent, LoadOptions};
use std::io::Write;

fn saved(images: &Images, names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut bytes = Vec::new();
    images.save(&names, None, &mut bytes).unwrap();
    bytes
}

#[test]
fn what_is_loaded_is_saved_and_loads_again_with_equal_ids() {
    let store = store();
    let shared = tar(&[
        ("bin/", b""),
        ("bin/sh", b"#!shell"),
        ("bin/sh", b"replaced"),
    ]);
    let one = image(
        &["one:1", "example.com/one:2"],
        vec![shared.clone(), tar(&[("etc/.wh.gone", b"")])],
    );
    let two = image(&["two:latest"], vec![shared.clone(), shared]);
    let loaded = load(&store.images, &docker_archive(&[&one, &two])).unwrap();
    let shown: Vec<_> = loaded
        .iter()
        .map(|l| (l.id.to_digest(), l.reference.as_ref().unwrap().to_string()))
        .collect();
    assert_eq!(
        shown,
        [
            (one.id().to_string(), "one:1".to_owned()),
            (one.id().to_string(), "example.com/one:2".to_owned()),
            (two.id().to_string(), "two:latest".to_owned())
        ]
    );
    // Three archives, one of them used three times, are two layers; no blob is kept.
    assert_eq!(
        store.images.get("two").unwrap().layers[0].path,
        store.images.get("one:1").unwrap().layers[0].path
    );
    assert_eq!(count(&store.root.path().join("content/sha256")), 2);
    assert_eq!(store.images.get("one:1").unwrap().raw_config(), one.config);

    let bytes = saved(&store.images, &["one", "example.com/one:2", "two"]);
    assert_eq!(
        bytes,
        saved(&store.images, &["one", "example.com/one:2", "two"]),
        "saving is not reproducible"
    );
    let other = common::store();
    let again = load(&other.images, &bytes).unwrap();
    assert_eq!(again, loaded);
    for (name, built) in [("one:1", &one), ("two", &two)] {
        let image = other.images.get(name).unwrap();
        for (layer, original) in image.layers.iter().zip(&built.layers) {
            let mut archive = Vec::new();
            other
                .images
                .layer_archive(&layer.diff_id, &mut archive)
                .unwrap();
            assert!(archive == *original);
        }
    }
    // Loading what is there changes nothing and reads no layer.
    load(&other.images, &bytes).unwrap();
    assert_eq!(
        saved(&other.images, &["one", "example.com/one:2", "two"]),
        bytes
    );
}

#[test]
fn images_survive_a_restart() {
    let store = store();
    let one = image(&["one:1"], vec![tar(&[("a", b"1")])]);
    load(&store.images, &docker_archive(&[&one])).unwrap();
    let before = store.images.get("one:1").unwrap();
    let Store { root, images } = store;
    drop(images);
    let images = Images::open(root.path()).unwrap();
    assert!(images.set_aside().is_empty());
    let after = images.get(&one.id().hex()[..10]).unwrap();
    assert_eq!(
        (&after.id, &after.references, after.last_tagged),
        (&before.id, &before.references, before.last_tagged)
    );
    assert_eq!(std::fs::read(after.layers[0].path.join("a")).unwrap(), b"1");
}

#[test]
fn a_moved_tag_is_told_and_an_image_without_tags_is_loaded_by_id() {
    let store = store();
    let (old, new) = (
        image(&["app:1"], vec![tar(&[("a", b"1")])]),
        image(&["app:1"], vec![tar(&[("a", b"2")])]),
    );
    load(&store.images, &docker_archive(&[&old])).unwrap();
    let nameless = image(&[], vec![tar(&[("a", b"3")])]);
    let texts: Vec<String> = events(&store.images, &docker_archive(&[&new, &nameless]))
        .iter()
        .filter_map(LoadEvent::text)
        .collect();
    assert_eq!(
        texts,
        [
            format!(
                "The image app:1 already exists, renaming the old one with ID {} to empty string\n",
                old.id()
            ),
            "Loaded image: app:1\n".to_owned(),
            format!("Loaded image ID: {}\n", nameless.id()),
        ]
    );
    assert_eq!(
        store.images.get("app:1").unwrap().id.to_digest(),
        new.id().to_string()
    );
    assert!(
        store
            .images
            .get(old.id().as_str())
            .unwrap()
            .references
            .is_empty()
    );
}

#[test]
fn archives_may_be_compressed_and_come_slowly() {
    let one = image(&["one:1"], vec![tar(&[("a", &[7; 100_000])])]);
    let archive = docker_archive(&[&one]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive).unwrap();
    let zstd = zstd::encode_all(archive.as_slice(), 1).unwrap();
    for bytes in [gzip.finish().unwrap(), zstd, archive] {
        let store = store();
        store
            .images
            .load(Slowly(&bytes), &options(), &mut |_| ())
            .unwrap();
        assert_eq!(
            store.images.get("one:1").unwrap().id.to_digest(),
            one.id().to_string()
        );
    }
    for (start, name) in [
        (b"BZh91AY&SY....".as_slice(), "bzip2"),
        (b"\xfd7zXZ\0......", "xz"),
    ] {
        let store = store();
        let error = load(&store.images, start).unwrap_err();
        assert!(
            matches!(error, Error::Unsupported(_)) && error.to_string().contains(name),
            "{error}"
        );
    }
}

/// Builds an OCI layout with gzip and zstd layers, an index of platforms and an attestation; index.json first.
fn oci_archive(image: &Built, other: &Built) -> Vec<u8> {
    let mut blobs: Vec<Vec<u8>> = Vec::new();
    let mut manifest = |built: &Built, platform: &str| {
        let mut layers = Vec::new();
        for (number, layer) in built.layers.iter().enumerate() {
            let (kind, bytes) = if number % 2 == 0 {
                let mut gzip =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                gzip.write_all(layer).unwrap();
                ("gzip", gzip.finish().unwrap())
            } else {
                ("zstd", zstd::encode_all(layer.as_slice(), 1).unwrap())
            };
            layers.push(serde_json::json!({
                "mediaType": format!("application/vnd.oci.image.layer.v1.tar+{kind}"), "digest": sha256(&bytes),
                "size": bytes.len(),
            }));
            blobs.push(bytes);
        }
        let manifest = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": built.id(),
                        "size": built.config.len() },
        }))
        .unwrap();
        let descriptor = serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": sha256(&manifest),
            "size": manifest.len(), "platform": { "os": "linux", "architecture": platform },
        });
        blobs.push(built.config.clone());
        blobs.push(manifest);
        descriptor
    };
    let inner = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            manifest(other, "s390x"), manifest(image, "amd64"),
            { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": sha256(b"absent"), "size": 6,
              "platform": { "os": "unknown", "architecture": "unknown" } },
        ],
    });
    let inner = serde_json::to_vec(&inner).unwrap();
    let index = serde_json::json!({
        "schemaVersion": 2, "manifests": [
            { "mediaType": "application/vnd.oci.image.index.v1+json", "digest": sha256(&inner), "size": inner.len(),
              "annotations": { "io.containerd.image.name": "docker.io/library/multi:1",
                               "org.opencontainers.image.ref.name": "1" } },
        ],
    });
    blobs.push(inner);
    let mut writer = Writer::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        writer
            .file(
                &NewEntry::new(name.as_bytes(), Kind::File, 0o644, 0, (0, 0)),
                bytes,
            )
            .unwrap();
    };
    add("index.json", &serde_json::to_vec(&index).unwrap());
    add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    for blob in &blobs {
        add(&format!("blobs/sha256/{}", sha256(blob).hex()), blob);
    }
    writer.finish().unwrap()
}

#[test]
fn an_oci_layout_gives_the_image_for_this_machine_or_the_one_asked_for() {
    let own = image(&[], vec![tar(&[("a", b"own")]), tar(&[("b", b"own")])]);
    let mut other = image(&[], vec![tar(&[("a", b"other")])]);
    other.config = String::from_utf8(other.config)
        .unwrap()
        .replace("amd64", "s390x")
        .into_bytes();
    let archive = oci_archive(&own, &other);
    let store = store();
    let loaded = load(&store.images, &archive).unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].reference.as_ref().unwrap().to_string(), "multi:1");
    assert_eq!(loaded[0].id.to_digest(), own.id().to_string());
    let image = store.images.get("multi:1").unwrap();
    assert_eq!(image.layers[1].diff_id, sha256(&own.layers[1]));
    // What the other platform brought is gone.
    store.images.snapshots().make_space();
    assert_eq!(count(&store.root.path().join("snapshots/ingest")), 0);
    let asked = LoadOptions {
        platform: Some("linux/s390x".parse().unwrap()),
        quiet: true,
    };
    let loaded = store
        .images
        .load(archive.as_slice(), &asked, &mut |_| ())
        .unwrap();
    assert_eq!(loaded[0].id.to_digest(), other.id().to_string());
    let asked = LoadOptions {
        platform: Some(Platform::new("linux", "riscv64", "")),
        quiet: true,
    };
    let error = store
        .images
        .load(archive.as_slice(), &asked, &mut |_| ())
        .unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
    // Damage of a blob is told although its archive is well-formed.
    let wrong = image_with(
        &[],
        vec![tar(&[("a", b"wrong")])],
        serde_json::json!({}),
        "2020-01-01T00:00:00Z",
    );
    let archive = oci_archive(&wrong, &other);
    let place = archive
        .windows(2)
        .rposition(|pair| pair == [0x1f, 0x8b])
        .unwrap();
    let mut damaged = archive;
    damaged[place + 40] ^= 1;
    assert!(load(&common::store().images, &damaged).is_err());
}

#[test]
fn layers_may_be_links_in_the_archive() {
    let layer = tar(&[("a", b"1")]);
    let built = image(
        &["linked:1"],
        vec![layer.clone(), layer.clone(), layer.clone()],
    );
    let mut writer = Writer::new(Vec::new());
    let entry = |name: &'static str, kind, link: &'static str| NewEntry {
        link: link.as_bytes(),
        ..NewEntry::new(name.as_bytes(), kind, 0o644, 0, (0, 0))
    };
    writer
        .entry(&entry("b/layer.tar", Kind::SymbolicLink, "../a/layer.tar"))
        .unwrap();
    writer
        .file(&entry("a/layer.tar", Kind::File, ""), &layer)
        .unwrap();
    writer
        .entry(&entry("c/layer.tar", Kind::HardLink, "a/layer.tar"))
        .unwrap();
    writer
        .file(&entry("config.json", Kind::File, ""), &built.config)
        .unwrap();
    let manifest = serde_json::json!([{
        "Config": "config.json", "RepoTags": ["linked:1"],
        "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"],
    }]);
    writer
        .file(
            &entry("manifest.json", Kind::File, ""),
            &serde_json::to_vec(&manifest).unwrap(),
        )
        .unwrap();
    let store = store();
    load(&store.images, &writer.finish().unwrap()).unwrap();
    assert_eq!(store.images.get("linked:1").unwrap().layers.len(), 3);
}

#[test]
fn a_hundred_and_twenty_seven_layers_and_empty_ones() {
    let layers: Vec<Vec<u8>> = (0..126)
        .map(|n| tar(&[(format!("f{n}").as_str(), b"x")]))
        .chain([vec![0; 1024]])
        .collect();
    let built = image(&["high:1"], layers);
    let store = store();
    load(&store.images, &docker_archive(&[&built])).unwrap();
    let number = store.images.allocate_snapshot().unwrap();
    store
        .images
        .prepare(number, &store.images.get("high:1").unwrap().id)
        .unwrap();
    let overlay = store.images.overlay(number).unwrap();
    assert_eq!(overlay.lowers.len(), 127);
    assert!(overlay.lowers[1].join("f125").exists() && overlay.lowers[126].join("f0").exists());
    // An image without any layer exists, too.
    load(
        &store.images,
        &docker_archive(&[&image(&["empty:1"], vec![])]),
    )
    .unwrap();
    assert_eq!(store.images.get("empty:1").unwrap().size_bytes, 0);
}

#[test]
fn bad_archives_are_refused_and_leave_nothing() {
    let good = image(&["good:1"], vec![tar(&[("a", b"1")]), tar(&[("b", b"2")])]);
    let mut swapped = image(&["good:1"], good.layers.clone());
    swapped.layers.swap(0, 1);
    let mut short = image(&["good:1"], good.layers.clone());
    short.layers.pop();
    let mut bad_tag = image(&["good:1"], good.layers.clone());
    bad_tag.tags = vec!["Bad:1".into()];
    let mut windows = image(&["good:1"], vec![]);
    windows.config = String::from_utf8(windows.config)
        .unwrap()
        .replace("linux", "windows")
        .into_bytes();
    let damaged_layer = image(&["good:1"], vec![vec![b'x'; 2000]]);
    let archive = docker_archive(&[&good]);
    let cases: Vec<(Vec<u8>, String)> = vec![
        (
            tar(&[("x", b"y")]),
            "invalid archive: does not contain a manifest.json".into(),
        ),
        (b"not an archive at all".to_vec(), "unexpected EOF".into()),
        (vec![b'x'; 4096], "archive/tar: invalid tar header".into()),
        (
            archive[..archive.len() / 2].to_vec(),
            "unexpected EOF".into(),
        ),
        (
            docker_archive(&[&swapped]),
            format!(
                "invalid diffID for layer 0: expected \"{}\", got \"{}\"",
                sha256(&good.layers[0]),
                sha256(&good.layers[1])
            ),
        ),
        (
            docker_archive(&[&short]),
            "invalid manifest, layers length mismatch: expected 2, got 1".into(),
        ),
        (
            docker_archive(&[&bad_tag]),
            "invalid reference format: repository name (library/Bad) must be lowercase".into(),
        ),
        (
            docker_archive(&[&windows]),
            "cannot load windows image on linux".into(),
        ),
        (
            docker_archive(&[&damaged_layer]),
            "layer `0-0/layer.tar` of the archive is no tar archive".into(),
        ),
    ];
    for (archive, text) in cases {
        let store = store();
        let error = load(&store.images, &archive).unwrap_err();
        assert_eq!(error.to_string(), text);
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        assert_empty(&store);
        assert!(store.images.get("good:1").is_err());
    }
}

#[test]
fn a_client_that_goes_away_leaves_nothing() {
    struct Gone<'a>(&'a [u8]);
    impl std::io::Read for Gone<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0.is_empty() {
                return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
            }
            let length = buffer.len().min(self.0.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }
    let built = image(
        &["a:1"],
        vec![
            tar(&[("a", &vec![3; 900_000])]),
            tar(&[("b", &vec![4; 900_000])]),
        ],
    );
    let archive = docker_archive(&[&built]);
    for length in [100, 5_000, 500_000, 1_000_000, archive.len() - 5_000] {
        let store = store();
        let error = store
            .images
            .load(Gone(&archive[..length]), &options(), &mut |_| ())
            .unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
        assert_empty(&store);
    }
}

#[test]
fn progress_is_told_unless_quiet() {
    let built = image(&["a:1"], vec![tar(&[("a", &vec![3; 900_000])])]);
    let store = store();
    load(&store.images, &docker_archive(&[&built])).unwrap();
    let bytes = saved(&store.images, &["a:1"]);
    let other = common::store();
    let digest: Digest = sha256(&built.layers[0]);
    let last = events(&other.images, &bytes)
        .into_iter()
        .rfind(|event| matches!(event, LoadEvent::Layer { .. }));
    let size = built.layers[0].len() as u64;
    assert_eq!(
        last,
        Some(LoadEvent::Layer {
            id: digest.short().to_owned(),
            current: size,
            total: size
        })
    );
}

#[test]
fn two_loads_of_one_image_at_once_are_one_image() {
    let built = image(
        &["a:1"],
        (0..5)
            .map(|n| tar(&[(format!("f{n}").as_str(), &vec![n; 200_000])]))
            .collect(),
    );
    let archive = docker_archive(&[&built]);
    let store = store();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| load(&store.images, &archive).unwrap());
        }
    });
    store.images.snapshots().make_space();
    assert_eq!(store.images.get("a:1").unwrap().layers.len(), 5);
    let snapshots = store.root.path().join("snapshots");
    let numbered = std::fs::read_dir(&snapshots).unwrap();
    let numbered = numbered
        .filter(|e| {
            e.as_ref()
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse::<u64>()
                .is_ok()
        })
        .count();
    assert_eq!(
        (
            numbered,
            count(&snapshots.join("ingest")),
            count(&snapshots.join("trash"))
        ),
        (5, 0, 0)
    );
}

#[test]
fn what_cannot_get_its_place_waits_for_the_next_open_with_all_its_layers() {
    let store = common::store();
    let built = common::image(
        &["a:1"],
        vec![common::tar(&[("x", b"1")]), common::tar(&[("y", b"2")])],
    );
    // Neither the configuration nor the first layer can be renamed to where they belong.
    let (content, layer) = (
        store.root.path().join("content/sha256"),
        store.root.path().join("snapshots/1"),
    );
    std::fs::remove_dir(&content).unwrap();
    std::fs::write(&layer, b"in the way").unwrap();
    assert!(common::load(&store.images, &common::docker_archive(&[&built])).is_err());
    std::fs::create_dir(&content).unwrap();
    std::fs::remove_file(&layer).unwrap();
    let common::Store { root, images } = store;
    drop(images);
    let images = gantry_image::Images::open(root.path()).unwrap();
    assert_eq!(images.get("a:1").unwrap().layers.len(), 2);
    let report = images.check(false, std::time::Duration::ZERO).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
}
