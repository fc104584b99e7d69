//! The one way from the asynchronous world into the synchronous crates.
//!
//! Mounts, netlink, fsync and unlink never run on a tokio worker. The number of threads is bounded; who comes too many
//! waits in order. What reaches the disk says so by [`assert_may_block`], so that a debug build, in which all tests run,
//! stops at a place that forgot.

use std::cell::Cell;
use std::sync::LazyLock;

use tokio::sync::Semaphore;

use crate::{Error, Result};

/// Threads that may be in the kernel at once. Starts mostly wait there, so more than the number of processors helps.
const THREADS_MAX: usize = 48;

static PERMITS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(THREADS_MAX));

thread_local! {
    /// The work of [`run`] or [`run_long`] is on this thread now.
    static HERE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on a thread that may block and returns its result.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let _permit = PERMITS
        .acquire()
        .await
        .map_err(|_| Error::system("the daemon is going down"))?;
    run_long(work).await
}

/// As [`run`] for work that lasts as long as a client likes (archives, logs): it holds no permit.
pub(crate) async fn run_long<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(move || marked(work))
        .await
        .map_err(|error| Error::system("an engine task died").caused_by(error))
}

fn marked<T>(work: impl FnOnce() -> T) -> T {
    struct Mark;
    impl Drop for Mark {
        fn drop(&mut self) {
            HERE.set(false);
        }
    }
    HERE.set(true);
    let _mark = Mark;
    work()
}

/// Stops a debug build that would wait for the disk on a tokio worker. Threads of the engine's own, outside the
/// runtime, may block.
pub(crate) fn assert_may_block() {
    debug_assert!(
        HERE.get() || tokio::runtime::Handle::try_current().is_err(),
        "a tokio worker would wait for the disk"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_pool_may_block_and_a_worker_may_not() {
        run(assert_may_block).await.unwrap();
        run_long(assert_may_block).await.unwrap();
        let on_worker = tokio::spawn(async { assert_may_block() }).await;
        assert!(on_worker.is_err());
        std::thread::spawn(assert_may_block).join().unwrap();
    }
}
