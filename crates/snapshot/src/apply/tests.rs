use super::*;
use crate::store::Snapshots;
use crate::tar::{NewEntry, Writer};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Unpacks an archive as a layer and checks that it is rebuilt exactly.
struct Layer {
    _root: tempfile::TempDir,
    _snapshots: Snapshots,
    fs: PathBuf,
    applied: Applied,
}

fn layer(archive: &[u8]) -> Result<Layer> {
    let root = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(root.path()).unwrap();
    let ingest = snapshots.ingest().unwrap();
    let (applied, recorded) = ingest.apply(archive)?;
    assert_eq!(recorded.archive_bytes, archive.len() as u64);
    let mut rebuilt = Vec::new();
    ingest.rebuild(&mut rebuilt).unwrap();
    assert!(rebuilt == archive, "the archive is not rebuilt exactly");
    let number = ingest.commit().unwrap();
    Ok(Layer {
        _root: root,
        fs: snapshots.layer_path(number),
        _snapshots: snapshots,
        applied,
    })
}

fn archive(build: impl FnOnce(&mut Writer<Vec<u8>>)) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    build(&mut writer);
    writer.finish().unwrap()
}

fn file<'a>(path: &'a str) -> NewEntry<'a> {
    NewEntry::new(path.as_bytes(), Kind::File, 0o644, 0, (1_000, 0))
}

fn made(path: &str, kind: Kind) -> NewEntry<'_> {
    NewEntry::new(path.as_bytes(), kind, 0o755, 0, (1_000, 0))
}

fn link<'a>(path: &'a str, kind: Kind, target: &'a str) -> NewEntry<'a> {
    NewEntry {
        link: target.as_bytes(),
        ..made(path, kind)
    }
}

fn is_whiteout(path: &Path) -> bool {
    std::fs::symlink_metadata(path)
        .is_ok_and(|stat| stat.file_type().is_char_device() && stat.rdev() == 0)
}

fn opaque(path: &Path) -> bool {
    let open = std::fs::File::open(path).unwrap();
    sys::fgetxattr(open, c"trusted.overlay.opaque")
        .unwrap()
        .as_deref()
        == Some(b"y")
}

#[test]
fn every_kind_with_its_metadata() {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let xattrs = [
        (b"security.capability".to_vec(), capability.to_vec()),
        (b"user.note".to_vec(), vec![0, 10, 255]),
    ];
    let bytes = archive(|tar| {
        tar.entry(&NewEntry {
            mode: 0o2750,
            uid: 7,
            gid: 8,
            mtime: (5, 6),
            ..made("./", Kind::Directory)
        })
        .unwrap();
        tar.entry(&NewEntry {
            mode: 0o1777,
            mtime: (77, 123_456_789),
            ..made("tmp/", Kind::Directory)
        })
        .unwrap();
        tar.file(
            &NewEntry {
                mode: 0o4755,
                uid: 1000,
                gid: 2000,
                xattrs: &xattrs,
                ..file("tmp/suid")
            },
            b"#!",
        )
        .unwrap();
        tar.file(
            &NewEntry {
                mode: 0o666,
                mtime: (-5, 1),
                ..file("tmp/plain")
            },
            b"plain",
        )
        .unwrap();
        tar.entry(&link("tmp/hard", Kind::HardLink, "tmp/plain"))
            .unwrap();
        tar.entry(&NewEntry {
            uid: 3,
            ..link("tmp/soft", Kind::SymbolicLink, "/nowhere")
        })
        .unwrap();
        tar.entry(&NewEntry {
            device: (1, 3),
            mode: 0o666,
            ..made("tmp/null", Kind::CharacterDevice)
        })
        .unwrap();
        tar.entry(&NewEntry {
            device: (259, 300),
            ..made("tmp/disk", Kind::BlockDevice)
        })
        .unwrap();
        tar.entry(&made("tmp/fifo", Kind::Fifo)).unwrap();
        tar.file(
            &NewEntry::new(b"tmp/\xff\xfe", Kind::File, 0o600, 0, (1, 0)),
            b"odd",
        )
        .unwrap();
        tar.file(&file("a/missing/parent"), b"x").unwrap();
    });
    let layer = layer(&bytes).unwrap();
    assert_eq!(layer.applied.root, Some((0o2750, 7, 8)));
    assert_eq!(layer.applied.size_bytes, 2 + 5 + 8 + 3 + 1);
    let stat = |name: &str| std::fs::symlink_metadata(layer.fs.join(name)).unwrap();
    assert_eq!(
        (
            stat("").mode() & 0o7777,
            stat("").uid(),
            stat("").mtime_nsec()
        ),
        (0o2750, 7, 6)
    );
    assert_eq!(
        (
            stat("tmp").mode() & 0o7777,
            stat("tmp").mtime(),
            stat("tmp").mtime_nsec()
        ),
        (0o1777, 77, 123_456_789)
    );
    let suid = stat("tmp/suid");
    assert_eq!(
        (suid.mode() & 0o7777, suid.uid(), suid.gid()),
        (0o4755, 1000, 2000)
    );
    let open = std::fs::File::open(layer.fs.join("tmp/suid")).unwrap();
    assert_eq!(
        sys::fgetxattr(&open, c"security.capability")
            .unwrap()
            .unwrap(),
        capability
    );
    assert_eq!(
        sys::fgetxattr(&open, c"user.note").unwrap().unwrap(),
        [0, 10, 255]
    );
    assert_eq!(
        (stat("tmp/plain").mode() & 0o7777, stat("tmp/plain").mtime()),
        (0o666, -5)
    );
    assert_eq!(stat("tmp/plain").ino(), stat("tmp/hard").ino());
    assert_eq!(
        (stat("tmp/soft").uid(), stat("tmp/soft").mtime()),
        (3, 1_000)
    );
    assert_eq!(
        (stat("tmp/null").rdev(), stat("tmp/disk").rdev()),
        (rustix::fs::makedev(1, 3), rustix::fs::makedev(259, 300))
    );
    assert!(stat("tmp/fifo").file_type().is_fifo());
    assert_eq!(
        (stat("a").mode() & 0o7777, stat("a/missing").uid()),
        (0o755, 0)
    );
    let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"tmp/\xff\xfe");
    assert_eq!(std::fs::read(layer.fs.join(odd)).unwrap(), b"odd");
}

#[test]
fn whiteouts_hide_lower_layers_only() {
    let bytes = archive(|tar| {
        tar.entry(&file(".wh.gone")).unwrap();
        tar.entry(&file("dir/.wh..wh..opq")).unwrap();
        tar.file(&file("kept"), b"k").unwrap();
        tar.entry(&file(".wh.kept")).unwrap();
        tar.entry(&file(".wh.back")).unwrap();
        tar.entry(&made("back", Kind::Directory)).unwrap();
        tar.entry(&made("own", Kind::Directory)).unwrap();
        tar.entry(&file(".wh.own")).unwrap();
        tar.file(&file(".wh..wh.plnk/x"), b"note").unwrap();
        tar.file(&file(".wh..wh.aufs"), b"note").unwrap();
    });
    let layer = layer(&bytes).unwrap();
    assert!(is_whiteout(&layer.fs.join("gone")));
    assert!(opaque(&layer.fs.join("dir")));
    assert!(opaque(&layer.fs.join("back")) && opaque(&layer.fs.join("own")));
    assert_eq!(std::fs::read(layer.fs.join("kept")).unwrap(), b"k");
    assert!(!layer.fs.join(".wh..wh.aufs").exists());
}

#[test]
fn later_entries_replace_earlier_ones_and_the_archive_is_still_rebuilt() {
    let bytes = archive(|tar| {
        tar.file(&file("a"), b"first").unwrap();
        tar.entry(&link("b", Kind::HardLink, "a")).unwrap();
        tar.file(&file("a"), b"second!").unwrap();
        tar.file(&file("d/x/y"), b"deep").unwrap();
        tar.file(&file("d"), b"file now").unwrap();
        tar.entry(&made("d", Kind::Directory)).unwrap();
        tar.file(&file("d/x"), b"again").unwrap();
        tar.entry(&link("d", Kind::SymbolicLink, "e")).unwrap();
        tar.entry(&made("e", Kind::Directory)).unwrap();
        tar.file(&file("d/through"), b"link").unwrap();
        tar.file(&file("a"), b"third").unwrap();
        tar.entry(&link("a", Kind::HardLink, "a")).unwrap();
    });
    let layer = layer(&bytes).unwrap();
    assert_eq!(std::fs::read(layer.fs.join("a")).unwrap(), b"third");
    assert_eq!(std::fs::read(layer.fs.join("b")).unwrap(), b"first");
    assert_eq!(
        std::fs::read_link(layer.fs.join("d")).unwrap(),
        Path::new("e")
    );
    assert_eq!(std::fs::read(layer.fs.join("e/through")).unwrap(), b"link");
}

#[test]
fn nothing_leaves_the_target() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, b"safe").unwrap();
    let out = outside.path().to_str().unwrap();
    let deep_out = format!("../../../../../../../../../..{}", victim.display());
    let through = format!("{out}/evil");
    for (what, build) in [
        (
            "dots",
            archive(|tar| tar.file(&file(&deep_out), b"evil").unwrap()),
        ),
        (
            "absolute",
            archive(|tar| tar.file(&file(victim.to_str().unwrap()), b"evil").unwrap()),
        ),
        (
            "link then file",
            archive(|tar| {
                tar.entry(&link("l", Kind::SymbolicLink, out)).unwrap();
                tar.file(&file("l/victim"), b"evil").unwrap();
            }),
        ),
        (
            "link then file below a missing directory",
            archive(|tar| {
                tar.entry(&link("l", Kind::SymbolicLink, &through)).unwrap();
                tar.file(&file("l/victim"), b"evil").unwrap();
            }),
        ),
        (
            "last component",
            archive(|tar| {
                tar.entry(&link("l", Kind::SymbolicLink, victim.to_str().unwrap()))
                    .unwrap();
                tar.file(&file("l"), b"evil").unwrap();
            }),
        ),
        (
            "hard link",
            archive(|tar| {
                tar.entry(&link("h", Kind::HardLink, victim.to_str().unwrap()))
                    .unwrap()
            }),
        ),
        (
            "hard link by dots",
            archive(|tar| tar.entry(&link("h", Kind::HardLink, &deep_out)).unwrap()),
        ),
        (
            "hard link through a link",
            archive(|tar| {
                tar.entry(&link("l", Kind::SymbolicLink, out)).unwrap();
                tar.entry(&link("h", Kind::HardLink, "l/victim")).unwrap();
                tar.file(&file("h"), b"evil").unwrap();
            }),
        ),
        (
            "whiteout through a link",
            archive(|tar| {
                tar.entry(&link("l", Kind::SymbolicLink, out)).unwrap();
                tar.entry(&file("l/.wh.victim")).unwrap();
                tar.entry(&file("l/.wh..wh..opq")).unwrap();
            }),
        ),
        (
            "whiteout of the parent",
            archive(|tar| tar.entry(&file("a/.wh...")).unwrap()),
        ),
        (
            "whiteout of itself",
            archive(|tar| tar.entry(&file("a/.wh..")).unwrap()),
        ),
        (
            "whiteout of nothing",
            archive(|tar| tar.entry(&file("a/.wh.")).unwrap()),
        ),
        (
            "whiteout with a path",
            archive(|tar| tar.entry(&file(".wh.../../../victim")).unwrap()),
        ),
        (
            "root as a file",
            archive(|tar| tar.file(&file("a/.."), b"evil").unwrap()),
        ),
    ] {
        // Some are refused, some land inside; none may touch the outside.
        let _ = layer(&build);
        assert_eq!(std::fs::read(&victim).unwrap(), b"safe", "{what}");
        assert_eq!(std::fs::metadata(&victim).unwrap().nlink(), 1, "{what}");
        assert_eq!(
            std::fs::read_dir(outside.path()).unwrap().count(),
            1,
            "{what}"
        );
    }
    let refused = |build: &NewEntry| {
        layer(&archive(|tar| tar.entry(build).unwrap()))
            .err()
            .unwrap()
            .to_string()
    };
    for name in ["a/.wh...", "a/.wh..", "a/.wh."] {
        assert_eq!(
            refused(&file(name)),
            format!("invalid whiteout entry {name:?}")
        );
    }
    assert_eq!(
        refused(&file("a/../../b")),
        "invalid entry name \"a/../../b\""
    );
    assert_eq!(
        refused(&link("h", Kind::HardLink, "../etc/passwd")),
        "invalid hardlink target \"../etc/passwd\""
    );
    assert_eq!(
        refused(&link("h", Kind::HardLink, "/no/such")),
        "linkat no/such h: no such file or directory"
    );
}

#[test]
fn attributes_that_steer_overlayfs_are_dropped() {
    let xattrs = [
        (b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec()),
        (b"trusted.overlay.opaque".to_vec(), b"y".to_vec()),
        (b"user.overlay.metacopy".to_vec(), b"".to_vec()),
        (b"user.fine".to_vec(), b"1".to_vec()),
    ];
    let layer = layer(&archive(|tar| {
        tar.entry(&NewEntry {
            xattrs: &xattrs,
            ..made("d", Kind::Directory)
        })
        .unwrap();
        tar.file(
            &NewEntry {
                xattrs: &xattrs,
                ..file("f")
            },
            b"x",
        )
        .unwrap();
    }))
    .unwrap();
    for name in ["d", "f"] {
        let open = std::fs::File::open(layer.fs.join(name)).unwrap();
        assert_eq!(
            sys::flistxattr(open).unwrap(),
            [c"user.fine".to_owned()],
            "{name}"
        );
    }
}

#[test]
fn damaged_archives_are_refused() {
    let good = archive(|tar| tar.file(&file("a"), &[7; 2000]).unwrap());
    for (length, text) in [
        (512 + 100, "unexpected EOF"),
        (100, "unexpected EOF"),
        (512 + 2000, "unexpected EOF"),
    ] {
        let error = layer(&good[..length]).err().unwrap();
        assert_eq!(error.to_string(), text, "{length}");
    }
    let mut broken = good.clone();
    broken[0] = b'b';
    assert_eq!(
        layer(&broken).err().unwrap().to_string(),
        "archive/tar: invalid tar header"
    );
    let mut strange = good.clone();
    strange[156] = b'Z';
    strange[148..156].fill(b' ');
    let sum: u32 = strange[..512].iter().map(|byte| u32::from(*byte)).sum();
    strange[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    assert_eq!(
        layer(&strange).err().unwrap().to_string(),
        "unhandled tar header type 90"
    );
    // Trailing content belongs to the archive's digest, and a missing end mark is forgiven.
    layer(&[good.as_slice(), b"trailing garbage"].concat()).unwrap();
    layer(&good[..512 + 2048]).unwrap();
    layer(&[0; 1024]).unwrap();
    layer(b"").unwrap();
}

/// Builds archives with GNU tar from a real tree with holes.
#[test]
fn gnu_tars_sparse_formats_are_unpacked_and_rebuilt() {
    let source = tempfile::tempdir().unwrap();
    let path = source.path().join("holes");
    let open = std::fs::File::create(&path).unwrap();
    open.set_len(3 << 20).unwrap();
    for index in 0..40_u64 {
        std::os::unix::fs::FileExt::write_all_at(&open, &[index as u8 + 1; 4096], index * 65_536)
            .unwrap();
    }
    drop(open);
    let expected = std::fs::read(&path).unwrap();
    let long = "n".repeat(150);
    std::fs::write(source.path().join(&long), b"long name").unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let output = std::process::Command::new("tar")
            .args(format)
            .args(["--sparse", "-C"])
            .arg(source.path())
            .args(["-c", "."])
            .output()
            .unwrap();
        assert!(output.status.success());
        assert!(output.stdout.len() < 1 << 20, "{format:?} wrote no holes");
        let layer = layer(&output.stdout).unwrap_or_else(|error| panic!("{format:?}: {error}"));
        assert!(
            std::fs::read(layer.fs.join("holes")).unwrap() == expected,
            "{format:?}"
        );
        assert!(
            std::fs::metadata(layer.fs.join("holes")).unwrap().blocks() * 512 < 1 << 20,
            "{format:?}"
        );
        assert_eq!(
            std::fs::read(layer.fs.join(&long)).unwrap(),
            b"long name",
            "{format:?}"
        );
    }
}

#[test]
fn old_archives_with_base_256_numbers_are_read() {
    let mut bytes = archive(|tar| tar.file(&file("a"), b"abc").unwrap());
    let mut field = [0_u8; 12];
    field[0] = 0x80;
    field[11] = 3;
    bytes[124..136].copy_from_slice(&field);
    bytes[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0x00, 0x2d, 0xc6, 0xc0]);
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
    bytes[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let layer = layer(&bytes).unwrap();
    let stat = std::fs::metadata(layer.fs.join("a")).unwrap();
    assert_eq!((stat.size(), stat.uid()), (3, 3_000_000));
}
