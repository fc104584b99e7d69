//! `rm`: the record says `removing`, then the snapshot goes into the trash, then the record goes.

use std::sync::Arc;

use super::{Container, MountKind, Owner, Status, StopOptions};
use crate::failpoint::around;
use crate::{Engine, Error, Result};

/// How to remove.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    /// Kills a running container first.
    pub force: bool,
    /// Removes its anonymous volumes as well.
    pub volumes: bool,
    /// Removes a link of old, named `container/alias`, instead.
    pub link: bool,
}

impl Engine {
    /// Removes a container.
    ///
    /// # Errors
    /// Not found; running and not forced (conflict); being removed already (conflict).
    pub async fn remove(&self, name: &str, options: RemoveOptions) -> Result<()> {
        if options.link {
            return self.remove_link(name).await;
        }
        let container = self.container(name)?;
        let (engine, name) = (self.clone(), name.to_owned());
        let task = tokio::spawn(async move {
            let mut owner = container.owner.clone().lock_owned().await;
            loop {
                let status = container.record().state.status;
                if status == Status::Removing && !container.life.borrow().removed {
                    return Err(Error::conflict(format!(
                        "removal of container {name} is already in progress"
                    )));
                }
                if !status.is_running() {
                    break;
                }
                {
                    if !options.force {
                        let (state, advice) = match status {
                            Status::Paused => (
                                "paused",
                                "unpause and then stop the container before removing or force remove",
                            ),
                            Status::Restarting => (
                                "restarting",
                                "stop the container before removing or force remove",
                            ),
                            _ => (
                                "running",
                                "stop the container before removing or force remove",
                            ),
                        };
                        return Err(Error::conflict(format!(
                            "cannot remove container \"{}\": container is {state}: {advice}",
                            display_name(&name, &container)
                        )));
                    }
                    let kill = StopOptions {
                        signal: Some("KILL".into()),
                        timeout_s: Some(10),
                    };
                    drop(owner);
                    if let Err(error) = engine.stop_container(&container, &kill).await {
                        return Err(Error::new(
                            error.kind(),
                            format!(
                                "cannot remove container \"{}\": could not kill container: {error}",
                                display_name(&name, &container)
                            ),
                        )
                        .caused_by(error));
                    }
                    // Somebody may have started it again meanwhile.
                    owner = container.owner.clone().lock_owned().await;
                }
            }
            if container.life.borrow().removed {
                return Ok(());
            }
            engine
                .remove_owned(&container, &mut owner, options.volumes)
                .await
        });
        task.await
            .map_err(|error| Error::system("an engine task died").caused_by(error))?
    }

    /// Removes a container that has no process. Recovery calls it again for a record that says `removing`.
    pub(crate) async fn remove_owned(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        volumes: bool,
    ) -> Result<()> {
        let before = container.record();
        if before.state.status.has_process() {
            return Err(Error::conflict(format!(
                "container {} is running",
                container.id
            )));
        }
        owner.generation += 1;
        if before.state.status != Status::Removing {
            around("rm.record", || {
                self.save(container, owner, |record| {
                    record.state.status = Status::Removing;
                    record.remove_volumes = volumes;
                })
            })?;
        }
        self.tear_down(container, owner).await?;
        let (engine, record) = (self.clone(), before.clone());
        let released = crate::blocking::run(move || {
            around("rm.snapshot", || engine.release_snapshot(&record))?;
            around("rm.directory", || engine.trash_directory(&record.id))
        })
        .await?;
        if let Err(error) = released {
            self.save(container, owner, |record| {
                record.state.status = Status::Dead;
                record.state.error = error.to_string();
            })?;
            return Err(error);
        }
        if volumes {
            let (engine, record) = (self.clone(), before.clone());
            crate::blocking::run(move || engine.remove_anonymous_volumes(&record)).await?;
        }
        // Told first, and once: a daemon that dies in between finds it told and only deletes the record.
        if !self.inner.events.was_ever_told("destroy", &container.id) {
            self.container_event("destroy", &before, &[], None);
        }
        around("rm.commit", || self.inner.records.delete(&container.id)).map_err(|error| {
            Error::io(
                format_args!("delete the record of container {}", container.id),
                error,
            )
        })?;
        self.inner.containers.forget(container);
        self.execs_ended(container);
        container.life.send_modify(|life| {
            if life.running || life.last_exit.is_none() {
                life.last_exit = Some(super::Exit {
                    code: i64::from(before.state.exit_code),
                    error: None,
                });
            }
            life.running = false;
            life.removed = true;
        });
        // Whoever attached and never saw a start is let go.
        let mut link = container.link.lock().expect("no holder panics");
        link.attaches.clear();
        link.waits.clear();
        Ok(())
    }

    fn remove_anonymous_volumes(&self, record: &super::Record) {
        for mount in record
            .mounts
            .iter()
            .filter(|mount| mount.kind == MountKind::Volume && mount.anonymous)
        {
            let others = self
                .volume_users(&mount.name)
                .into_iter()
                .any(|id| id != record.id);
            if others {
                continue;
            }
            if let Some(volume) = self.inner.volumes.get(&mount.name) {
                match self.inner.volumes.remove(&volume) {
                    Ok(()) => self.volume_event("destroy", &volume, &[]),
                    Err(error) => {
                        tracing::error!(volume = mount.name, %error, "remove an anonymous volume")
                    }
                }
            }
        }
    }
}

fn display_name(given: &str, container: &Container) -> String {
    if container.id.starts_with(given) {
        given.to_owned()
    } else {
        given.strip_prefix('/').unwrap_or(given).to_owned()
    }
}
