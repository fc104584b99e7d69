//! The one way to give back what a run of a container held. Idempotent: exits, failed starts, removals and recovery
//! call it.
//!
//! What cannot be given back now (a control group with a process that does not die, an address or a port that netd does
//! not answer for) stays in the record as `acquired`, marked as left by a run that is over. It is tried again in the
//! background with growing pauses, by the next start, by a removal and by the next daemon; a start and a removal fail as
//! long as something is left, so nothing is forgotten.

use std::sync::Arc;
use std::time::Duration;

use super::record::Acquired;
use super::{Container, Owner, Status};
use crate::{Engine, Error, Result, blocking};

/// First pause before something is given back again.
const AGAIN_MIN: Duration = Duration::from_millis(250);
/// The pause is doubled up to this.
const AGAIN_MAX: Duration = Duration::from_secs(60);
/// Pauses between the attempts of a verb that needs everything free, before it fails.
const WHOLLY: &[Duration] = &[
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(750),
];

/// The cause of a verb that fails because something of the last run is left: it may succeed later.
#[derive(Debug, thiserror::Error)]
#[error("something of the last run is held")]
pub(crate) struct StillHeld;

impl StillHeld {
    pub(crate) fn caused(error: &Error) -> bool {
        std::error::Error::source(error).is_some_and(|cause| cause.is::<StillHeld>())
    }
}

/// What becomes of the socket by which the next daemon finds a shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Socket {
    Remove,
    /// The shim alone knows how its run ended: it can be asked until the record says it.
    Keep,
}

impl Engine {
    /// Releases what the record names and writes what is left of it. Something that is left is tried again later.
    pub(crate) async fn tear_down(&self, container: &Arc<Container>, owner: &mut Owner) {
        let before = container.record();
        if before.acquired.is_nothing() {
            return;
        }
        let (engine, own, mut lent) = (self.clone(), container.clone(), owner.lend());
        let left = blocking::run(move || {
            // An end that is not on disk is known to the shim alone; its socket goes with the record's write.
            let socket = if *own.saved.borrow() {
                Socket::Remove
            } else {
                Socket::Keep
            };
            let left = engine.give_back(&own, socket);
            if left != own.record().acquired {
                let keep = left.clone();
                engine.note_blocking(&own, &mut lent, |record| record.acquired = keep);
            }
            left
        })
        .await;
        match left {
            Ok(left) if left.is_nothing() => {}
            Ok(_) => self.tear_down_later(container, owner),
            Err(error) => {
                tracing::error!(container = container.id, %error, "give back what a container held");
            }
        }
    }

    /// As [`Engine::tear_down`], a few times.
    ///
    /// # Errors
    /// Something is left all the same.
    pub(crate) async fn tear_down_wholly(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
    ) -> Result<()> {
        for pause in WHOLLY {
            if container.record().acquired.is_nothing() {
                return Ok(());
            }
            tokio::time::sleep(*pause).await;
            self.tear_down(container, owner).await;
        }
        match container.record().acquired.describe() {
            None => Ok(()),
            Some(left) => Err(Error::system(format!(
                "container {} still holds {left} of its last run, which cannot be freed at the moment",
                container.id
            ))
            .caused_by(StillHeld)),
        }
    }

    /// Tries to give back what is left, until all of it is free or somebody else did it.
    pub(crate) fn tear_down_later(&self, container: &Arc<Container>, owner: &mut Owner) {
        if std::mem::replace(&mut owner.freeing, true) {
            return;
        }
        let (engine, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            let mut pause = AGAIN_MIN;
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(AGAIN_MAX);
                let mut owner = container.owner.clone().lock_owned().await;
                let record = container.record();
                if record.acquired.over && !container.life.borrow().removed {
                    engine.tear_down(&container, &mut owner).await;
                }
                let record = container.record();
                if record.acquired.over && !container.life.borrow().removed {
                    continue;
                }
                owner.freeing = false;
                // A removal by `--rm` that failed for it goes on, whether it came to its first step or not. A restart by
                // hand keeps the container.
                if matches!(
                    record.state.status,
                    Status::Dead | Status::Exited | Status::Created
                ) && record.host.auto_remove
                    && owner.restarting == 0
                    && !container.life.borrow().removed
                    && let Err(error) = engine.remove_owned(&container, &mut owner, true).await
                {
                    tracing::error!(container = container.id, %error, "finish a removal");
                }
                return;
            }
        });
    }

    /// Releases, in reverse order of their acquisition, the resources that the record names, and returns those that are
    /// not free. The caller's next change of the record keeps them.
    pub(crate) fn give_back(&self, container: &Container, socket: Socket) -> Acquired {
        blocking::assert_may_block();
        let mut left = container.record().acquired.clone();
        if left.is_nothing() {
            return left;
        }
        let id = &container.id;
        let done = |what: &str, result: std::io::Result<()>| match result {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(container = id, %error, "{what}");
                false
            }
        };
        self.give_back_endpoints(id, &mut left, done);
        if let Some(path) = &left.cgroup
            && done("remove a cgroup", remove_cgroup(self, path))
        {
            left.cgroup = None;
        }
        if left.subpaths
            && done(
                "unmount a part of a volume",
                self.unmount_subpaths(&container.record()),
            )
        {
            left.subpaths = false;
        }
        left.volumes
            .retain(|volume| !done("unmount a volume", self.inner.volumes.release(volume, id)));
        if left.shm && done("unmount /dev/shm", unmount_if_there(&self.shm_path(id))) {
            left.shm = false;
        }
        let state = self.runtime_root().join(id);
        let files = [
            socket == Socket::Keep || self.remove_socket(id),
            done("remove a runtime state", remove_tree_if_there(&state)),
        ];
        if files == [true, true]
            && left.endpoints.is_empty()
            && !left.names
            && left.cgroup.is_none()
            && left.volumes.is_empty()
            && !left.subpaths
            && !left.shm
        {
            return Acquired::default();
        }
        left.over = true;
        left
    }

    /// Releases the endpoints and their ports; those that are not free stay.
    fn give_back_endpoints(
        &self,
        id: &str,
        left: &mut Acquired,
        done: impl Fn(&str, std::io::Result<()>) -> bool,
    ) {
        // The ports' endpoint is named, so that what stays still says whose they are.
        left.ports_endpoint = left.holder_of_ports().filter(|_| !left.ports.is_empty());
        if left.names && done("take away by what names are asked", self.drop_resolver(id)) {
            left.names = false;
        }
        for endpoint in std::mem::take(&mut left.endpoints) {
            let has_ports = left.ports_endpoint.as_ref() == Some(&endpoint.id);
            let ports = if has_ports { &left.ports[..] } else { &[] };
            let released = self.drop_names(&endpoint).and_then(|()| {
                let released = self.inner.network.release(&endpoint, ports);
                released.map_err(std::io::Error::other)
            });
            if !done("release a network endpoint", released) {
                left.endpoints.push(endpoint);
            } else if has_ports {
                left.ports.clear();
                left.ports_endpoint = None;
            }
        }
    }

    /// Removes the socket of a shim that nobody needs to find any more; says whether it is gone.
    pub(crate) fn remove_socket(&self, id: &str) -> bool {
        match remove_if_there(&self.shim_socket(id)) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(container = id, %error, "remove a shim's socket");
                false
            }
        }
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
