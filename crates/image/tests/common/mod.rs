//! Builders of archives and stores of their own for the tests of this crate.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod transfers;

use gantry_api::digest::Digest;
use gantry_image::snapshot::tar::{Kind, NewEntry, Writer};
use gantry_image::{Images, LoadEvent, LoadOptions, Loaded};
use sha2::Digest as _;
use std::path::Path;

pub struct Store {
    pub root: tempfile::TempDir,
    pub images: Images,
}

pub fn store() -> Store {
    let root = tempfile::tempdir().unwrap();
    let images = Images::open(root.path()).unwrap();
    Store { root, images }
}

pub fn sha256(bytes: &[u8]) -> Digest {
    let hash: [u8; 32] = sha2::Sha256::digest(bytes).into();
    Digest::from_sha256(&hash)
}

pub fn options() -> LoadOptions {
    LoadOptions {
        platform: None,
        quiet: true,
    }
}

pub fn load(images: &Images, archive: &[u8]) -> gantry_image::Result<Vec<Loaded>> {
    images.load(archive, &options(), &mut |_| ())
}

pub fn events(images: &Images, archive: &[u8]) -> Vec<LoadEvent> {
    let mut events = Vec::new();
    images
        .load(
            archive,
            &LoadOptions {
                platform: None,
                quiet: false,
            },
            &mut |event| events.push(event),
        )
        .unwrap();
    events
}

pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, content) in files {
        let kind = if name.ends_with('/') {
            Kind::Directory
        } else {
            Kind::File
        };
        writer
            .file(
                &NewEntry::new(name.as_bytes(), kind, 0o755, 0, (1_000_000, 0)),
                content,
            )
            .unwrap();
    }
    writer.finish().unwrap()
}

/// Is an image for tests.
pub struct Built {
    pub layers: Vec<Vec<u8>>,
    pub config: Vec<u8>,
    pub tags: Vec<String>,
}

impl Built {
    pub fn id(&self) -> Digest {
        sha256(&self.config)
    }
}

pub fn image(tags: &[&str], layers: Vec<Vec<u8>>) -> Built {
    image_with(
        tags,
        layers,
        serde_json::json!({ "Cmd": ["sh"] }),
        "2024-01-02T03:04:05.000000006Z",
    )
}

pub fn image_with(
    tags: &[&str],
    layers: Vec<Vec<u8>>,
    run: serde_json::Value,
    created: &str,
) -> Built {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| sha256(layer)).collect();
    let history: Vec<_> = layers
        .iter()
        .enumerate()
        .map(|(number, _)| serde_json::json!({ "created": created, "created_by": format!("step {number}") }))
        .collect();
    let config = serde_json::json!({
        "architecture": "amd64", "config": run, "created": created, "history": history, "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": diff_ids }, "x-unknown": { "kept": true },
    });
    Built {
        layers,
        config: serde_json::to_vec(&config).unwrap(),
        tags: tags.iter().map(ToString::to_string).collect(),
    }
}

/// Writes the format of Docker before 25: a directory per layer.
pub fn docker_archive(images: &[&Built]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    let mut manifest = Vec::new();
    for (number, image) in images.iter().enumerate() {
        let mut names = Vec::new();
        for (level, layer) in image.layers.iter().enumerate() {
            let name = format!("{number}-{level}/layer.tar");
            writer
                .file(
                    &NewEntry::new(name.as_bytes(), Kind::File, 0o644, 0, (0, 0)),
                    layer,
                )
                .unwrap();
            names.push(name);
        }
        let name = format!("{}.json", image.id().hex());
        writer
            .file(
                &NewEntry::new(name.as_bytes(), Kind::File, 0o644, 0, (0, 0)),
                &image.config,
            )
            .unwrap();
        let tags = if image.tags.is_empty() {
            serde_json::Value::Null
        } else {
            image.tags.clone().into()
        };
        manifest.push(serde_json::json!({ "Config": name, "RepoTags": tags, "Layers": names }));
    }
    let manifest = serde_json::to_vec(&manifest).unwrap();
    writer
        .file(
            &NewEntry::new(b"manifest.json", Kind::File, 0o644, 0, (0, 0)),
            &manifest,
        )
        .unwrap();
    writer.finish().unwrap()
}

pub fn count(path: &Path) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

/// Says that a store holds nothing but its empty directories, once the trash is deleted.
pub fn assert_empty(store: &Store) {
    store.images.snapshots().make_space();
    for below in [
        "content/sha256",
        "content/ingest",
        "snapshots/ingest",
        "snapshots/trash",
        "snapshots/quarantine",
    ] {
        assert_eq!(count(&store.root.path().join(below)), 0, "{below}");
    }
    let snapshots = std::fs::read_dir(store.root.path().join("snapshots")).unwrap();
    let numbered = snapshots.filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .parse::<u64>()
            .is_ok()
    });
    assert_eq!(numbered.count(), 0);
}

/// Does no more than to read one byte at a time, as a slow network does.
pub struct Slowly<'a>(pub &'a [u8]);

impl std::io::Read for Slowly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(self.0.len()).min(997);
        buffer[..length].copy_from_slice(&self.0[..length]);
        self.0 = &self.0[length..];
        Ok(length)
    }
}
