//! What follows the end of a container's process: the record, the event, the teardown, and the restart policy.

use std::sync::Arc;
use std::time::Duration;

use gantry_shim::protocol::{ExitRecord, Request};
use tokio::sync::OwnedMutexGuard;

use super::link::Shim;
use super::restart_policy::{self, Ended};
use super::{Container, Exit, Owner, Record, Status};
use crate::failpoint::{around, around_async};
use crate::{Engine, Result};

impl Engine {
    /// Acts on the end of the container's process.
    ///
    /// `shim` is the one that told it; it is released once the record says so, because until then it keeps the exit
    /// for the next daemon.
    pub(crate) async fn exited(
        &self,
        container: &Arc<Container>,
        shim: Option<&Arc<Shim>>,
        exit: ExitRecord,
    ) {
        let mut owner = container.owner.clone().lock_owned().await;
        if !container.record().state.status.has_process() {
            // Recorded already, or a start that failed: the shim has nothing more to keep.
            drop(owner);
            if let Some(shim) = shim {
                release_when_answered(container.clone(), shim.clone());
            }
            return;
        }
        if let Err(error) = self.finish_run(container, &mut owner, shim, &exit).await {
            tracing::error!(container = container.id, %error, "record the end of a container");
        }
        self.after_exit(container.clone(), owner).await;
    }

    /// Tells the event, writes the record and releases what the run held.
    pub(crate) async fn finish_run(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        shim: Option<&Arc<Shim>>,
        exit: &ExitRecord,
    ) -> Result<()> {
        let before = container.record();
        let code = exit.code.to_string();
        let seconds = exit
            .at_unix_ns
            .saturating_sub(before.state.started_at_ns.unwrap_or(exit.at_unix_ns))
            / 1_000_000_000;
        // The event first: if the daemon dies between the two, the next one finds it told and does not repeat it.
        around("exit.event", || {
            if exit.oom_kills > 0 && !before.state.oom_killed {
                self.container_event("oom", &before, &[], Some(exit.at_unix_ns));
            }
            if !self
                .inner
                .events
                .was_told("die", &container.id, exit.at_unix_ns)
            {
                self.network_event("disconnect", &before, exit.at_unix_ns);
                self.volume_use_events("unmount", &before, exit.at_unix_ns);
                let more = [
                    ("exitCode", code.as_str()),
                    ("execDuration", &seconds.to_string()),
                ];
                self.container_event("die", &before, &more, Some(exit.at_unix_ns));
            }
        });
        let shim = match shim {
            Some(shim) => Some(shim.clone()),
            None => container
                .link
                .lock()
                .expect("no holder panics")
                .shim
                .clone(),
        };
        // What was held goes before the record says so, in one write: a daemon that dies in between finds the same exit
        // again, and gives back again what is gone already.
        let free = around_async("exit.teardown", self.give_back(container)).await?;
        let removes =
            before.host.auto_remove && owner.restarting == 0 && !self.restarts(&before, exit.code);
        around("exit.record", || {
            self.save(container, owner, |record| {
                record.state.status = if removes {
                    Status::Removing
                } else {
                    Status::Exited
                };
                record.state.exit_code = exit.code;
                record.state.error = exit.error.clone().unwrap_or_default();
                record.state.finished_at_ns = Some(exit.at_unix_ns);
                record.state.oom_killed |= exit.oom_kills > 0;
                record.state.pid = 0;
                if free {
                    record.acquired = Default::default();
                }
            })
        })?;
        self.execs_ended(container);
        let mut link = container.link.lock().expect("no holder panics");
        link.shim = None;
        link.waits.clear();
        drop(link);
        if let Some(shim) = shim {
            release_when_answered(container.clone(), shim);
        }
        Ok(())
    }

    /// Restarts, removes or leaves a container whose run has ended, and tells the waiters.
    pub(crate) async fn after_exit(
        &self,
        container: Arc<Container>,
        mut owner: OwnedMutexGuard<Owner>,
    ) {
        let record = container.record();
        let ran = Duration::from_nanos(
            u64::try_from(
                record.state.finished_at_ns.unwrap_or(0) - record.state.started_at_ns.unwrap_or(0),
            )
            .unwrap_or(0),
        );
        if self.restarts(&record, record.state.exit_code) {
            self.restart_later(&container, &mut owner, ran);
            return;
        }
        if record.host.auto_remove && owner.restarting == 0 {
            let removal = self.remove_owned(&container, &mut owner, true).await;
            if let Err(error) = removal {
                tracing::error!(container = container.id, %error, "remove a container after its exit");
            }
            self.announce_exit(&container, &record);
            return;
        }
        drop(owner);
        self.announce_exit(&container, &record);
    }

    /// Tells whether the policy starts the container again after an end with this code.
    fn restarts(&self, record: &Record, exit_code: i32) -> bool {
        let ended = Ended {
            exit_code,
            manually_stopped: record.state.manually_stopped,
            restart_count: record.state.restart_count,
        };
        let going_down = self
            .inner
            .going_down
            .load(std::sync::atomic::Ordering::SeqCst);
        !going_down && restart_policy::restarts(&record.host.restart_policy, &ended)
    }

    /// Tells the waiters that the container has come to rest.
    pub(crate) fn announce_exit(&self, container: &Container, record: &Record) {
        let exit = Exit {
            code: i64::from(record.state.exit_code),
            error: Some(record.state.error.clone()).filter(|error| !error.is_empty()),
        };
        container.life.send_modify(|life| {
            life.exits += 1;
            life.running = false;
            life.last_exit = Some(exit);
        });
    }

    /// Sets the state `restarting` and starts the container after the policy's pause.
    pub(crate) fn restart_later(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        ran: Duration,
    ) {
        let pause = restart_policy::next_pause(owner.last_pause, ran);
        owner.last_pause = Some(pause);
        owner.generation += 1;
        let generation = owner.generation;
        let saved = self.save(container, owner, |record| {
            record.state.status = Status::Restarting;
            record.state.restart_count += 1;
        });
        if let Err(error) = saved {
            tracing::error!(container = container.id, %error, "record a restart");
        }
        // Who waits for this run's end has seen it, though another run follows.
        let exit = Exit {
            code: i64::from(container.record().state.exit_code),
            error: None,
        };
        container.life.send_modify(|life| {
            life.exits += 1;
            life.last_exit = Some(exit);
        });
        let (engine, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let mut owner = container.owner.clone().lock_owned().await;
            if owner.generation != generation
                || container.record().state.status != Status::Restarting
            {
                return;
            }
            if let Err(error) = engine.start_owned(&container, &mut owner).await {
                tracing::error!(container = container.id, %error, "restart a container");
                engine.announce_exit(&container, &container.record());
            }
        });
    }

    /// Acts on the death of a shim that left no exit: the container must not run on without a supervisor.
    pub(crate) async fn shim_gone(&self, container: &Arc<Container>, shim: &Arc<Shim>) {
        let mut owner = container.owner.clone().lock_owned().await;
        let current = {
            let link = container.link.lock().expect("no holder panics");
            link.shim.as_ref().is_some_and(|own| Arc::ptr_eq(own, shim))
        };
        if !current || !container.record().state.status.has_process() {
            return;
        }
        let exit = self.lost_exit(container).await;
        if let Err(error) = self.finish_run(container, &mut owner, None, &exit).await {
            tracing::error!(container = container.id, %error, "record the end of a container whose shim died");
        }
        self.after_exit(container.clone(), owner).await;
    }

    /// Returns the exit that the shim wrote before it went, or kills what is left and makes one up.
    pub(crate) async fn lost_exit(&self, container: &Arc<Container>) -> ExitRecord {
        let record = container.record();
        if let Some(exit) = self.read_exit(&record) {
            return exit;
        }
        if let Some(cgroup) = record.acquired.cgroup.clone() {
            let layout = self.inner.cgroups.clone();
            let killed = crate::blocking::run(move || {
                match gantry_sys::cgroup::Cgroup::open(&layout, &cgroup) {
                    Ok(cgroup) => cgroup.kill(),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                    Err(error) => Err(error),
                }
            })
            .await;
            if let Ok(Err(error)) = killed {
                tracing::error!(container = container.id, %error, "kill a container whose shim is gone");
            }
        }
        ExitRecord {
            code: 255,
            at_unix_ns: crate::now_ns(),
            boottime_ns: 0,
            oom_kills: 0,
            error: Some("the container's shim is gone; its processes were killed".into()),
        }
    }

    /// Reads the exit record of the current run; one of an earlier run is not it.
    pub(crate) fn read_exit(&self, record: &Record) -> Option<ExitRecord> {
        let text = std::fs::read(self.exit_path(&record.id)).ok()?;
        let exit: ExitRecord = serde_json::from_slice(&text).ok()?;
        (exit.at_unix_ns >= record.state.started_at_ns.unwrap_or(0)).then_some(exit)
    }

    /// Notes that the kernel killed a process of the container for its memory limit.
    pub(crate) async fn out_of_memory(&self, container: &Arc<Container>) {
        let mut owner = container.owner.clone().lock_owned().await;
        let record = container.record();
        if record.state.oom_killed {
            return;
        }
        self.container_event("oom", &record, &[], None);
        if let Err(error) = self.save(container, &mut owner, |record| {
            record.state.oom_killed = true
        }) {
            tracing::error!(container = container.id, %error, "record an out-of-memory kill");
        }
    }
}

/// Time that the answers to waiting clients may take before the shim is released all the same.
const ANSWERS_MAX: Duration = Duration::from_secs(1);

/// Releases the shim once every waiting client has been answered: until then it would answer them if the daemon died.
fn release_when_answered(container: Arc<Container>, shim: Arc<Shim>) {
    tokio::spawn(async move {
        let _ = tokio::time::timeout(ANSWERS_MAX, container.life.closed()).await;
        // Its answer is the end of the connection; a shim that is gone is what is wanted.
        let _ = shim.call(Request::Release, Vec::new()).await;
    });
}
