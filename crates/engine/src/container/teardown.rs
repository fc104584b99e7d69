//! The one way to give back what a run of a container held. Idempotent: exits, failed starts and recovery call it.

use std::sync::Arc;

use super::{Container, Owner};
use crate::{Engine, Result};

impl Engine {
    /// Releases what the record names and writes the record without it.
    pub(crate) async fn tear_down(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
    ) -> Result<()> {
        let held = container.record().acquired.shim;
        if self.give_back(container).await? && held {
            self.save(container, owner, |record| {
                record.acquired = Default::default()
            })?;
        }
        Ok(())
    }

    /// Releases, in reverse order of their acquisition, the resources that the record names. Tells whether all are
    /// free: then the caller's next change of the record forgets them.
    pub(crate) async fn give_back(&self, container: &Arc<Container>) -> Result<bool> {
        let record = container.record();
        let acquired = record.acquired.clone();
        if !acquired.shim {
            return Ok(true);
        }
        let engine = self.clone();
        let id = container.id.clone();
        crate::blocking::run(move || {
            let mut complete = true;
            let mut note = |what: &str, result: std::io::Result<()>| {
                if let Err(error) = result {
                    tracing::error!(container = id, %error, "{what}");
                    complete = false;
                }
            };
            if let Some(endpoint) = &acquired.endpoint {
                note(
                    "release a network endpoint",
                    engine
                        .inner
                        .network
                        .release(endpoint, &acquired.ports)
                        .map_err(std::io::Error::other),
                );
            }
            if let Some(path) = &acquired.cgroup {
                note("remove a cgroup", remove_cgroup(&engine, path));
            }
            if acquired.subpaths {
                note(
                    "unmount a part of a volume",
                    engine.unmount_subpaths(&record),
                );
            }
            for volume in &acquired.volumes {
                note(
                    "unmount a volume",
                    engine.inner.volumes.release(volume, &id),
                );
            }
            if acquired.shm {
                note("unmount /dev/shm", unmount_if_there(&engine.shm_path(&id)));
            }
            let socket = engine.shim_socket(&id);
            note("remove a shim's socket", remove_if_there(&socket));
            note(
                "remove a runtime state",
                remove_tree_if_there(&engine.runtime_root().join(&id)),
            );
            complete
        })
        .await
    }
}

fn remove_cgroup(engine: &Engine, path: &str) -> std::io::Result<()> {
    match gantry_sys::cgroup::Cgroup::open(&engine.inner.cgroups, path) {
        Ok(cgroup) => cgroup.remove(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// EINVAL says that nothing is mounted there: the daemon ended before it was, or the machine was started anew.
pub(super) fn unmount_if_there(path: &std::path::Path) -> std::io::Result<()> {
    match gantry_sys::mount::umount_detach(path) {
        Err(error)
            if error.kind() != std::io::ErrorKind::NotFound
                && error.kind() != std::io::ErrorKind::InvalidInput =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

fn remove_if_there(path: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_tree_if_there(path: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
