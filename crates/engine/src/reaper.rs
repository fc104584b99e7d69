//! Deletes moved-aside directories one after another, so that a removal answers at once.
//!
//! What is here is already renamed to a name that begins with `.trash-`; a daemon that dies leaves it to the next one,
//! which finds the name and hands it in again.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};

static QUEUE: LazyLock<Sender<PathBuf>> = LazyLock::new(|| {
    let (sender, receiver) = channel::<PathBuf>();
    std::thread::Builder::new()
        .name("reaper".into())
        .spawn(move || {
            for path in receiver {
                if let Err(error) = std::fs::remove_dir_all(&path)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(path = %path.display(), %error, "delete from the trash");
                }
            }
        })
        .expect("a thread can be started");
    sender
});

/// Deletes `path` in the background.
pub(crate) fn delete(path: PathBuf) {
    // The receiver lives as long as the process.
    let _ = QUEUE.send(path);
}
