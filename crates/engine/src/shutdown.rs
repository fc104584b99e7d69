//! The end of a daemon.
//!
//! Containers run on under their shims, so as long as one of them holds anything, everything stays as it is. Where none
//! does, the engine takes back what it has in the kernel: its nftables table, its bridges, netd, its empty control
//! group. So a daemon that was stopped for good, with its containers stopped before, leaves files alone, and the next
//! start makes the rest again.

use std::sync::atomic::Ordering::SeqCst;

use crate::{Engine, Error, Result};

/// The cause of a start that is refused because the daemon ends: nothing was tried, and the next daemon can do it.
#[derive(Debug, thiserror::Error)]
#[error("the daemon ends")]
pub(crate) struct GoingDown;

impl GoingDown {
    pub(crate) fn caused(error: &Error) -> bool {
        std::error::Error::source(error).is_some_and(|cause| cause.is::<GoingDown>())
    }
}

/// A start that is under way.
pub(crate) struct Starting<'a>(&'a Engine);

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.inner.starting.fetch_sub(1, SeqCst);
    }
}

impl Engine {
    /// Tells whether the daemon ends.
    pub(crate) fn is_going_down(&self) -> bool {
        self.inner.going_down.load(SeqCst)
    }

    /// Announces a start, unless the daemon ends: each side says its own word before it looks at the other's, so no
    /// start goes on while its network is taken away.
    pub(crate) fn begin_start(&self) -> Result<Starting<'_>> {
        self.inner.starting.fetch_add(1, SeqCst);
        let starting = Starting(self);
        if self.is_going_down() {
            return Err(Error::new(
                gantry_api::error::ErrorKind::Unavailable,
                "the daemon is shutting down",
            )
            .caused_by(GoingDown));
        }
        Ok(starting)
    }

    /// Ends the engine's own work. Containers run on; if none holds anything, neither does the engine.
    pub async fn shutdown(&self) {
        self.inner.going_down.store(true, SeqCst);
        let is_idle = self.inner.starting.load(SeqCst) == 0
            && self.inner.containers.all().iter().all(|container| {
                let record = container.record();
                record.acquired.is_nothing() && !record.state.status.has_process()
            });
        if !is_idle {
            return;
        }
        let engine = self.clone();
        let withdrawn = crate::blocking::run(move || {
            engine.withdraw_network();
            let parent = engine.inner.config.cgroup_parent.trim_matches('/');
            engine.inner.cgroups.remove_empty(&format!("/{parent}"));
        })
        .await;
        if let Err(error) = withdrawn {
            tracing::error!(%error, "take back what the engine holds");
        }
    }
}
