//! A full disk: a tmpfs of a few megabytes, mounted in a namespace of this process's own.

mod common;

use common::*;
use gantry_image::{Error, Images, RemoveOptions};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;

#[test]
fn a_full_disk_is_told_leaves_nothing_and_waits_for_the_trash_first() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_owned();
    // A thread of its own, because the mount namespace is one per thread.
    std::thread::spawn(move || {
        #[expect(
            unsafe_code,
            reason = "the safe call was withdrawn, because it can part a process's threads"
        )]
        // SAFETY: a mount namespace alone is unshared, with the file-system state that it needs; descriptors stay shared.
        unsafe {
            rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS).unwrap();
        }
        rustix::mount::mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )
        .unwrap();
        rustix::mount::mount(
            "tmpfs",
            &path,
            "tmpfs",
            MountFlags::empty(),
            Some(c"size=12m,mode=0755"),
        )
        .unwrap();
        let images = Images::open(&path).unwrap();
        let big = |name: &str, byte: u8| {
            image(
                &[name],
                vec![tar(&[("a", b"1")]), tar(&[("big", &vec![byte; 6 << 20])])],
            )
        };
        let (first, second) = (big("first:1", 1), big("second:1", 2));
        load(&images, &docker_archive(&[&first])).unwrap();
        let error = load(&images, &docker_archive(&[&second])).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
        assert!(
            error.to_string().contains("no space left on device"),
            "{error}"
        );
        images.snapshots().make_space();
        assert_eq!(
            (
                count(&path.join("snapshots/ingest")),
                count(&path.join("snapshots/trash"))
            ),
            (0, 0)
        );
        assert_eq!(count(&path.join("content/sha256")), 1);
        assert!(images.get("second:1").is_err() && images.get("first:1").is_ok());
        // With the first removed the second fits, although the first is still being deleted.
        let options = RemoveOptions {
            force: false,
            no_prune: false,
            in_use: &|_| vec![],
        };
        images.remove("first:1", options).unwrap();
        load(&images, &docker_archive(&[&second])).unwrap();
        assert_eq!(
            images.get("second:1").unwrap().id.to_digest(),
            second.id().to_string()
        );
    })
    .join()
    .unwrap();
}
