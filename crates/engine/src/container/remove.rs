//! `rm`: the record says `removing`, then the snapshot goes into the trash, then the record goes.

use std::sync::Arc;

use gantry_api::error::ErrorKind;

use super::stop::Ending;
use super::{Container, MountKind, Owner, Status, StopOptions};
use crate::failpoint::{around, around_async};
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

/// When the record of a removed container goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// It says `removing` until everything else is gone.
    RecordLast,
    /// The disk has no room for a record that says so. A daemon that dies in between leaves a snapshot without a record,
    /// which the next one sets aside and reports.
    RecordFirst,
}

fn is_full(error: &Error) -> bool {
    std::error::Error::source(error)
        .and_then(|cause| cause.downcast_ref::<std::io::Error>())
        .is_some_and(|error| {
            matches!(
                error.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            )
        })
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
                    if let Err(error) = engine
                        .stop_container(&container, &kill, Ending::Removal)
                        .await
                    {
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
        let mut order = Order::RecordLast;
        if before.state.status != Status::Removing {
            let save = self.save(container, owner, move |record| {
                record.state.status = Status::Removing;
                record.remove_volumes = volumes;
            });
            match around_async("rm.record", save).await {
                Ok(_) => {}
                // What frees space must not need any.
                Err(error) if is_full(&error) => order = Order::RecordFirst,
                Err(error) => return Err(error),
            }
        }
        let removed = match self.tear_down_wholly(container, owner).await {
            Ok(()) => {
                let (engine, record) = (self.clone(), before.clone());
                crate::blocking::run(move || engine.remove_files(&record, volumes, order)).await?
            }
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            let text = error.to_string();
            self.note(container, owner, |record| {
                record.state.status = Status::Dead;
                record.state.error = text;
            })
            .await;
            return Err(error);
        }
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
        // Nothing of it is to be written any more.
        container.saved.send_replace(true);
        // Whoever attached and never saw a start is let go.
        let mut link = container.link.lock().expect("no holder panics");
        link.attaches.clear();
        link.waits.clear();
        Ok(())
    }

    /// Removes what a container has on disk.
    fn remove_files(&self, record: &super::Record, volumes: bool, order: Order) -> Result<()> {
        if order == Order::RecordFirst {
            self.delete_record(&record.id)?;
        }
        around("rm.snapshot", || self.release_snapshot(record))?;
        around("rm.directory", || self.trash_directory(&record.id))?;
        // A full disk may have kept it.
        self.remove_socket(&record.id);
        if volumes {
            self.remove_anonymous_volumes(record);
        }
        // Told first, and once: a daemon that dies in between finds it told and only deletes the record.
        if !self.inner.events.was_ever_told("destroy", &record.id) {
            self.container_event("destroy", record, &[], None);
        }
        around("rm.commit", || self.delete_record(&record.id))
    }

    fn delete_record(&self, id: &str) -> Result<()> {
        self.inner
            .records
            .delete(id)
            .map_err(|error| Error::io(format_args!("delete the record of container {id}"), error))
    }

    fn remove_anonymous_volumes(&self, record: &super::Record) {
        for mount in record
            .mounts
            .iter()
            .filter(|mount| mount.kind == MountKind::Volume && mount.anonymous)
        {
            let Some(volume) = self.inner.volumes.get(&mount.name) else {
                continue;
            };
            match self.destroy_volume(&volume, &record.id) {
                // Another container's as well by now.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => {
                    tracing::error!(volume = mount.name, %error, "remove an anonymous volume")
                }
                Ok(()) => {}
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
