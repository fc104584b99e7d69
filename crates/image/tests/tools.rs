//! Other people's tools: skopeo writes and reads our archives, GNU tar unpacks what we unpack.
//!
//! Needs the packages `skopeo` and `tar`.

mod common;

use common::*;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn skopeo_reads_what_is_saved_and_what_it_writes_is_loaded() {
    let store = store();
    let built = image(
        &["tool:1"],
        vec![
            tar(&[("bin/", b""), ("bin/sh", b"#!")]),
            tar(&[("etc/conf", b"x=1")]),
        ],
    );
    load(&store.images, &docker_archive(&[&built])).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let saved = path("saved.tar");
    let mut file = std::fs::File::create(&saved).unwrap();
    store
        .images
        .save(&["tool:1".to_owned()], None, &mut file)
        .unwrap();
    let inspected = run(
        "skopeo",
        &[
            "inspect",
            "--config",
            "--raw",
            &format!("docker-archive:{saved}:tool:1"),
        ],
    );
    assert_eq!(inspected.as_bytes(), built.config);
    run(
        "skopeo",
        &["inspect", "--raw", &format!("oci-archive:{saved}:1")],
    );
    for (kind, name) in [("docker-archive", "docker.tar"), ("oci-archive", "oci.tar")] {
        let target = format!("{kind}:{}:docker.io/library/tool:1", path(name));
        run(
            "skopeo",
            &[
                "copy",
                "--insecure-policy",
                &format!("docker-archive:{saved}:tool:1"),
                &target,
            ],
        );
        let other = common::store();
        let bytes = std::fs::read(path(name)).unwrap();
        let loaded = load(&other.images, &bytes).unwrap();
        assert_eq!(
            loaded[0].reference.as_ref().unwrap().to_string(),
            "tool:1",
            "{kind}"
        );
        let image = other.images.get("tool:1").unwrap();
        // skopeo writes the configuration of an OCI image anew, so only Docker's form keeps the id.
        if kind == "docker-archive" {
            assert_eq!(image.id.as_str(), built.id().hex());
        }
        let diff_ids: Vec<_> = image
            .layers
            .iter()
            .map(|layer| layer.diff_id.clone())
            .collect();
        assert_eq!(
            diff_ids,
            [sha256(&built.layers[0]), sha256(&built.layers[1])],
            "{kind}"
        );
    }
}

/// Lists a tree with everything that an archive keeps; directories' sizes and counts of links differ by file system.
fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let stat = std::fs::symlink_metadata(&path).unwrap();
        let content = if stat.is_symlink() {
            format!("{:?}", std::fs::read_link(&path).unwrap())
        } else if stat.is_file() {
            format!(
                "{} {}",
                stat.nlink(),
                sha256(&std::fs::read(&path).unwrap()).short()
            )
        } else {
            if stat.is_dir() {
                pending.extend(
                    std::fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            }
            String::new()
        };
        lines.push(format!(
            "{:?} {:o} {}:{} {}.{} {:x} {content}",
            path.strip_prefix(root).unwrap(),
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.mtime(),
            stat.mtime_nsec(),
            stat.rdev()
        ));
    }
    lines.sort();
    lines
}

#[test]
fn a_real_tree_is_unpacked_as_gnu_tar_does() {
    let scratch = tempfile::tempdir().unwrap();
    for format in ["gnu", "posix"] {
        let archive = scratch.path().join("tree.tar");
        let archive = archive.to_str().unwrap();
        let format = format!("--format={format}");
        run(
            "tar",
            &[
                &format,
                "--xattrs",
                "--numeric-owner",
                "-C",
                "/",
                "-cf",
                archive,
                "etc",
                "usr/sbin",
                "usr/share/zoneinfo",
            ],
        );
        let target = scratch.path().join(&format);
        std::fs::create_dir(&target).unwrap();
        let target_text = target.to_str().unwrap();
        run(
            "tar",
            &[
                "--numeric-owner",
                "-p",
                "--delay-directory-restore",
                "-C",
                target_text,
                "-xf",
                archive,
            ],
        );
        let store = store();
        let layer = std::fs::read(archive).unwrap();
        load(
            &store.images,
            &docker_archive(&[&image(&["tree:1"], vec![layer])]),
        )
        .unwrap();
        let ours = listing(&store.images.get("tree:1").unwrap().layers[0].path);
        let theirs = listing(&target);
        assert!(ours.len() > 200);
        // Parents that the archive does not name are of the time of unpacking.
        let unnamed = ["\"\" ", "\"usr\" ", "\"usr/share\" "];
        let known = |line: &&String| !unnamed.iter().any(|start| line.starts_with(start));
        for (our, their) in ours.iter().filter(known).zip(theirs.iter().filter(known)) {
            assert_eq!(our, their, "{format}");
        }
        assert_eq!(ours.len(), theirs.len());
    }
}
