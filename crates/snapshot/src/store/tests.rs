use super::*;
use crate::diff::ChangeKind;
use crate::tar::{Kind, NewEntry, Writer};
use std::time::{Duration, Instant};

fn eventually(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "it did not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn layer(snapshots: &Snapshots, names: &[&str]) -> u64 {
    let mut writer = Writer::new(Vec::new());
    for name in names {
        let kind = if name.ends_with('/') {
            Kind::Directory
        } else {
            Kind::File
        };
        let content: &[u8] = if kind == Kind::File { b"old" } else { b"" };
        writer
            .file(
                &NewEntry::new(name.as_bytes(), kind, 0o755, 0, (10, 0)),
                content,
            )
            .unwrap();
    }
    let ingest = snapshots.ingest().unwrap();
    ingest.apply(writer.finish().unwrap().as_slice()).unwrap();
    ingest.commit().unwrap()
}

fn count(root: &Path, below: &str) -> usize {
    std::fs::read_dir(root.join("snapshots").join(below))
        .unwrap()
        .count()
}

#[test]
fn a_snapshot_is_prepared_mounted_as_data_and_removed() {
    let root = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(root.path()).unwrap();
    let (bottom, top) = (layer(&snapshots, &["a"]), layer(&snapshots, &["b"]));
    let number = snapshots.allocate().unwrap();
    snapshots
        .prepare(
            number,
            &[top, bottom],
            Some(RootMetadata {
                mode: 0o1700,
                uid: 5,
                gid: 6,
            }),
        )
        .unwrap();
    let overlay = snapshots.overlay(number).unwrap();
    assert_eq!(
        overlay.lowers,
        [snapshots.layer_path(top), snapshots.layer_path(bottom)]
    );
    let stat = std::fs::metadata(&overlay.upper).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!(
        (stat.mode() & 0o7777, stat.uid(), stat.gid()),
        (0o1700, 5, 6)
    );
    assert!(snapshots.layers_in_use().contains(&top));

    // Another process after this one knows the same, and gives no number twice.
    drop(snapshots);
    let snapshots = Snapshots::open(root.path()).unwrap();
    assert_eq!(snapshots.overlay(number).unwrap(), overlay);
    assert!(snapshots.allocate().unwrap() > number);
    snapshots.remove(number).unwrap();
    snapshots.remove(number).unwrap();
    assert!(matches!(snapshots.overlay(number), Err(Error::NotFound(_))));
    eventually(|| count(root.path(), "trash") == 0);
    assert!(!root.path().join(format!("snapshots/{number}")).exists());
}

#[test]
fn numbers_are_not_given_again_after_everything_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(root.path()).unwrap();
    let number = snapshots.allocate().unwrap();
    snapshots.prepare(number, &[], None).unwrap();
    snapshots.remove(number).unwrap();
    assert!(snapshots.make_space());
    drop(snapshots);
    assert!(Snapshots::open(root.path()).unwrap().allocate().unwrap() > number);
}

#[test]
fn a_crash_leaves_committed_layers_only() {
    let root = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(root.path()).unwrap();
    let recorded = snapshots.ingest().unwrap();
    let lost = snapshots.ingest().unwrap();
    let (kept, unknown) = (layer(&snapshots, &["k"]), layer(&snapshots, &["u"]));
    let numbers = (recorded.number(), lost.number());
    // As by SIGKILL: no destructor runs.
    std::mem::forget((recorded, lost));
    drop(snapshots);
    let snapshots = Snapshots::open(root.path()).unwrap();
    let aside = snapshots
        .recover(&|number| number == kept || number == numbers.0)
        .unwrap();
    assert_eq!(
        aside,
        [root.path().join(format!("snapshots/quarantine/{unknown}"))]
    );
    assert!(snapshots.layer_path(kept).exists() && snapshots.layer_path(numbers.0).exists());
    assert_eq!(count(root.path(), "ingest"), 0);
    assert!(!snapshots.layer_path(numbers.1).exists());
}

#[test]
fn a_snapshot_that_was_only_begun_goes() {
    let root = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(root.path()).unwrap();
    let begun = snapshots.allocate().unwrap();
    // As by SIGKILL between the directory and its first entry.
    std::fs::create_dir(root.path().join(format!("snapshots/{begun}"))).unwrap();
    drop(snapshots);
    let snapshots = Snapshots::open(root.path()).unwrap();
    assert!(snapshots.recover(&|_| false).unwrap().is_empty());
    assert!(!root.path().join(format!("snapshots/{begun}")).exists());
    assert!(snapshots.allocate().unwrap() > begun);
}

#[test]
fn writable_snapshots_without_an_owner_are_set_aside() {
    let root = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(root.path()).unwrap();
    let (kept, lost) = (snapshots.allocate().unwrap(), snapshots.allocate().unwrap());
    for number in [kept, lost] {
        snapshots.prepare(number, &[], None).unwrap();
    }
    std::fs::write(snapshots.layer_path(lost).join("precious"), b"x").unwrap();
    let aside = snapshots
        .quarantine_unowned(&HashSet::from([kept]))
        .unwrap();
    assert_eq!(std::fs::read(aside[0].join("fs/precious")).unwrap(), b"x");
    assert!(snapshots.overlay(kept).is_ok() && snapshots.overlay(lost).is_err());
}

#[test]
fn a_dropped_ingest_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(root.path()).unwrap();
    let ingest = snapshots.ingest().unwrap();
    assert!(ingest.apply([7_u8; 700].as_slice()).is_err());
    drop(ingest);
    snapshots.make_space();
    assert_eq!(
        (count(root.path(), "ingest"), count(root.path(), "trash")),
        (0, 0)
    );
}

#[test]
fn differences_are_told_as_docker_does() {
    let root = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(root.path()).unwrap();
    let bottom = layer(
        &snapshots,
        &[
            "etc/",
            "etc/a",
            "etc/b",
            "usr/",
            "usr/lib/",
            "usr/lib/x",
            "var/",
        ],
    );
    let number = snapshots.allocate().unwrap();
    snapshots.prepare(number, &[bottom], None).unwrap();
    let upper = snapshots.overlay(number).unwrap().upper;
    let whiteout = |path: &str| {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            upper.join(path),
            rustix::fs::FileType::CharacterDevice,
            Mode::empty(),
            0,
        )
        .unwrap();
    };
    // As overlay leaves it: a directory copied up keeps its time until something in it changes.
    std::fs::create_dir(upper.join("etc")).unwrap();
    std::fs::write(upper.join("etc/a"), b"new").unwrap();
    whiteout("etc/b");
    std::fs::create_dir_all(upper.join("new/deep")).unwrap();
    std::fs::write(upper.join("new/deep/f"), b"x").unwrap();
    whiteout("usr");
    let changes = snapshots.diff(number).unwrap();
    let shown: Vec<_> = changes
        .iter()
        .map(|change| (change.kind, change.path.to_str().unwrap()))
        .collect();
    use ChangeKind::{Added, Deleted, Modified};
    assert_eq!(
        shown,
        [
            (Modified, "/etc"),
            (Modified, "/etc/a"),
            (Deleted, "/etc/b"),
            (Added, "/new"),
            (Added, "/new/deep"),
            (Added, "/new/deep/f"),
            (Deleted, "/usr"),
        ]
    );
}

#[test]
fn a_tree_exported_as_a_layer_applies_again() {
    let root = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(root.path()).unwrap();
    let mut writer = Writer::new(Vec::new());
    let names: [(&[u8], Kind); 5] = [
        (b"d/", Kind::Directory),
        (b"d/.wh..wh..opq", Kind::File),
        (b"d/.wh.gone", Kind::File),
        (b"d/f", Kind::File),
        (b"z", Kind::File),
    ];
    for (name, kind) in names {
        writer
            .entry(&NewEntry::new(name, kind, 0o700, 0, (10, 5)))
            .unwrap();
    }
    writer
        .entry(&NewEntry {
            link: b"z",
            ..NewEntry::new(b"zz", Kind::HardLink, 0o700, 0, (10, 5))
        })
        .unwrap();
    let archive = writer.finish().unwrap();
    let mut exports = Vec::new();
    let mut input = archive;
    for _ in 0..2 {
        let ingest = snapshots.ingest().unwrap();
        ingest.apply(input.as_slice()).unwrap();
        let fs = std::fs::File::open(snapshots.layer_path(ingest.commit().unwrap())).unwrap();
        let mut output = Vec::new();
        crate::export::write_tree(&fs, Form::Layer, &mut output).unwrap();
        exports.push(output.clone());
        input = output;
    }
    assert!(exports[0] == exports[1]);
    let text = String::from_utf8_lossy(&exports[0]).into_owned();
    assert!(text.contains("d/.wh.gone") && text.contains("d/.wh..wh..opq"));
}
