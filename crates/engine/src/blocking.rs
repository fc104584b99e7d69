//! The one way from the asynchronous world into the synchronous crates.
//!
//! Mounts, netlink, fsync and unlink never run on a tokio worker. The number of threads is bounded; who comes too many
//! waits in order.

use std::sync::LazyLock;

use tokio::sync::Semaphore;

use crate::{Error, Result};

/// Threads that may be in the kernel at once. Starts mostly wait there, so more than the number of processors helps.
const THREADS_MAX: usize = 48;

static PERMITS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(THREADS_MAX));

/// Runs `work` on a thread that may block and returns its result.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let _permit = PERMITS
        .acquire()
        .await
        .map_err(|_| Error::system("the daemon is going down"))?;
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::system("an engine task died").caused_by(error))
}

/// As [`run`] for work that lasts as long as a client likes (archives, logs): it holds no permit.
pub(crate) async fn run_long<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::system("an engine task died").caused_by(error))
}
