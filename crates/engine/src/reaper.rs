//! Deletes moved-aside directories one after another, so that a removal answers at once.
//!
//! What is here is already renamed to a name that begins with `.trash-`; a daemon that dies leaves it to the next one,
//! which finds the name and hands it in again.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};

static QUEUE: LazyLock<Sender<PathBuf>> = LazyLock::new(|| {
    let (sender, receiver) = channel::<PathBuf>();
    std::thread::Builder::new()
        .name("reaper".into())
        .spawn(move || {
            for path in receiver {
                if let Err(error) = unmount(&path).and_then(|()| std::fs::remove_dir_all(&path))
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(path = %path.display(), %error, "delete from the trash");
                }
            }
        })
        .expect("a thread can be started");
    sender
});

/// Takes away what is mounted in the trash: what it shows is somebody else's and is not deleted with it.
fn unmount(path: &Path) -> std::io::Result<()> {
    // The kernel names places without symbolic links.
    let path = path.canonicalize()?;
    for point in gantry_sys::mount::mount_points(&path)?.iter().rev() {
        gantry_sys::mount::umount_detach(point)?;
    }
    Ok(())
}

/// Deletes `path` in the background.
pub(crate) fn delete(path: PathBuf) {
    // The receiver lives as long as the process.
    let _ = QUEUE.send(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_in_the_trash_is_not_deleted() {
        let root = tempfile::tempdir().unwrap();
        let (kept, trash) = (root.path().join("kept"), root.path().join(".trash-1"));
        std::fs::create_dir_all(trash.join("a/b")).unwrap();
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "mine").unwrap();
        rustix::mount::mount_bind(&kept, trash.join("a/b")).unwrap();
        delete(trash.clone());
        for _ in 0..500 {
            if !trash.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(!trash.exists());
        assert_eq!(std::fs::read_to_string(kept.join("file")).unwrap(), "mine");
    }
}
