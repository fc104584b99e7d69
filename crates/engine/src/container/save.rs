//! Changes of a container's record, and their way to the disk.
//!
//! | what changes | way | a disk that is full |
//! |---|---|---|
//! | a promise: a container that is made, a name, a limit | [`Engine::keep`]: on disk and synced first, then seen | the verb fails, nothing has changed |
//! | a wish: what a start is about to take | [`Engine::save`]: on disk first, then seen | the verb fails, nothing has changed |
//! | a fact: an end, a pause, a failed start | [`Engine::note`]: seen at once in any case | the record is written again until the disk takes it |
//!
//! While a fact is not on disk, whoever else knows it must keep it: a shim is not released before
//! [`Container::on_disk`], so the next daemon is told of the same end again.

use std::sync::Arc;
use std::time::Duration;

use super::{Container, Owner, Record};
use crate::store::Durability;
use crate::{Engine, Error, Result, blocking};

/// First pause before a record is written again.
const AGAIN_MIN: Duration = Duration::from_millis(100);
/// The pause is doubled up to this.
const AGAIN_MAX: Duration = Duration::from_secs(5);

impl Container {
    /// Waits until the disk has the record as it is in memory, or the container is removed.
    pub(crate) async fn on_disk(&self) {
        // The sender lives as long as we do.
        let _ = self.saved.subscribe().wait_for(|saved| *saved).await;
    }
}

impl Engine {
    /// Shows a record, and what follows from it.
    fn publish(&self, container: &Container, record: Record) -> Arc<Record> {
        let record = Arc::new(record);
        let mut shown = container.record.write().expect("no holder panics");
        let before = std::mem::replace(&mut *shown, record.clone());
        drop(shown);
        let wishes = &self.inner.containers.wishes;
        wishes.replace(&container.id, &before.networks, &record.networks);
        record
    }

    /// Changes the record and writes it; the change is seen only when it is on disk. A loss of power may undo it: it is for
    /// what passes with the processes.
    pub(crate) async fn save(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        change: impl FnOnce(&mut Record) + Send + 'static,
    ) -> Result<Arc<Record>> {
        let (engine, own, mut lent) = (self.clone(), container.clone(), owner.lend());
        blocking::run(move || engine.save_blocking(&own, &mut lent, change)).await?
    }

    /// As [`Engine::save`] for what the user was promised: it survives a loss of power, unless the container does not
    /// survive its own end.
    pub(crate) async fn keep(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        change: impl FnOnce(&mut Record) + Send + 'static,
    ) -> Result<Arc<Record>> {
        let (engine, own, mut lent) = (self.clone(), container.clone(), owner.lend());
        blocking::run(move || engine.keep_blocking(&own, &mut lent, change)).await?
    }

    /// As [`Engine::keep`], on a thread that may block.
    pub(crate) fn keep_blocking(
        &self,
        container: &Container,
        owner: &mut Owner,
        change: impl FnOnce(&mut Record),
    ) -> Result<Arc<Record>> {
        let durability = if container.record().host.auto_remove {
            Durability::Exchanged
        } else {
            Durability::Synced
        };
        self.change(container, owner, durability, change)
    }

    /// As [`Engine::save`], on a thread that may block.
    pub(crate) fn save_blocking(
        &self,
        container: &Container,
        owner: &mut Owner,
        change: impl FnOnce(&mut Record),
    ) -> Result<Arc<Record>> {
        self.change(container, owner, Durability::Exchanged, change)
    }

    fn change(
        &self,
        container: &Container,
        _owner: &mut Owner,
        durability: Durability,
        change: impl FnOnce(&mut Record),
    ) -> Result<Arc<Record>> {
        if container.life.borrow().removed {
            // Whoever waited for the lock meanwhile must not write the record again.
            return Err(Error::not_found(format!(
                "No such container: {}",
                container.id
            )));
        }
        let mut record = (*container.record()).clone();
        change(&mut record);
        self.write_record(&record, durability)?;
        let record = self.publish(container, record);
        self.is_on_disk(container);
        Ok(record)
    }

    /// Changes the record by what has happened already; the disk gets it as soon as it takes it.
    pub(crate) async fn note(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        change: impl FnOnce(&mut Record) + Send + 'static,
    ) {
        let (engine, own, mut lent) = (self.clone(), container.clone(), owner.lend());
        let noted = blocking::run(move || engine.note_blocking(&own, &mut lent, change)).await;
        if let Err(error) = noted {
            tracing::error!(container = container.id, %error, "note a change of a container");
        }
    }

    /// As [`Engine::note`], on a thread of the pool.
    pub(crate) fn note_blocking(
        &self,
        container: &Arc<Container>,
        _owner: &mut Owner,
        change: impl FnOnce(&mut Record),
    ) {
        if container.life.borrow().removed {
            return;
        }
        let mut record = (*container.record()).clone();
        change(&mut record);
        let written = self.write_record(&record, Durability::Exchanged);
        self.publish(container, record);
        match written {
            Ok(()) => self.is_on_disk(container),
            Err(error) => {
                tracing::error!(%error, "it will be written again");
                if container.saved.send_replace(false) {
                    self.write_again(container.clone());
                }
            }
        }
    }

    /// Writes the record until the disk takes it.
    fn write_again(&self, container: Arc<Container>) {
        let engine = self.clone();
        tokio::spawn(async move {
            let mut pause = AGAIN_MIN;
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(AGAIN_MAX);
                // Under the lock, so that no older state is written over a newer one.
                let _owner = container.owner.clone().lock_owned().await;
                if *container.saved.borrow() || container.life.borrow().removed {
                    return;
                }
                let (own, record) = (engine.clone(), container.record());
                let one = container.clone();
                let write = move || {
                    own.write_record(&record, Durability::Exchanged)
                        .map(|()| own.is_on_disk(&one))
                };
                match blocking::run(write).await {
                    Ok(Ok(())) => {
                        tracing::info!(container = container.id, "the record is on disk now");
                        return;
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "it will be written again"),
                    // The daemon ends; the next one hears of it from the shim.
                    Err(_) => return,
                }
            }
        });
    }

    /// Notes that the disk has the record. A shim that had to keep an end until now need not be found any more.
    fn is_on_disk(&self, container: &Container) {
        let was_there = container.saved.send_replace(true);
        if !was_there && container.record().acquired.is_nothing() {
            self.remove_socket(&container.id);
        }
    }

    fn write_record(&self, record: &Record, durability: Durability) -> Result<()> {
        self.inner
            .records
            .save(&record.id, record, durability)
            .map_err(|error| {
                Error::io(
                    format_args!("write the record of container {}", record.id),
                    error,
                )
            })
    }
}
