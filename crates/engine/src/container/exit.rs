//! What follows the end of a container's process: the record, the event, the teardown, and the restart policy.

use std::sync::Arc;
use std::time::Duration;

use gantry_shim::protocol::{ExitRecord, Request};
use tokio::sync::OwnedMutexGuard;

use super::link::Shim;
use super::restart_policy::{self, Ended};
use super::teardown::{Socket, StillHeld};
use super::{Container, Exit, Owner, Record, Status};
use crate::failpoint::around;
use crate::{Engine, blocking};

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
        if self.finish_run(container, &mut owner, shim, exit).await {
            self.after_exit(container.clone(), owner).await;
        }
    }

    /// Tells the event, releases what the run held and writes the record. The end is a fact: whatever fails on the way,
    /// it is seen from now on. False says that this daemon ends before it could do so; the next one will.
    pub(crate) async fn finish_run(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        shim: Option<&Arc<Shim>>,
        exit: ExitRecord,
    ) -> bool {
        let told = shim.is_some();
        let shim = match shim {
            Some(shim) => Some(shim.clone()),
            None => container
                .link
                .lock()
                .expect("no holder panics")
                .shim
                .clone(),
        };
        let (engine, own, mut lent) = (self.clone(), container.clone(), owner.lend());
        let ended =
            blocking::run(move || engine.finish_run_blocking(&own, &mut lent, &exit, told)).await;
        if let Err(error) = ended {
            tracing::error!(container = container.id, %error, "record the end of a container");
            return false;
        }
        if container.record().acquired.over {
            self.tear_down_later(container, owner);
        }
        self.execs_ended(container);
        let mut link = container.link.lock().expect("no holder panics");
        link.shim = None;
        link.waits.clear();
        drop(link);
        if let Some(shim) = shim {
            release_when_answered(container.clone(), shim);
        }
        true
    }

    fn finish_run_blocking(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        exit: &ExitRecord,
        told_by_shim: bool,
    ) {
        let before = container.record();
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
                self.tell_end(&before, exit.code, exit.at_unix_ns, seconds);
            }
        });
        // What was held goes before the record says so, in one write: a daemon that dies in between finds the same exit
        // again, and gives back again what is gone already.
        let socket = if told_by_shim && self.exit_on_disk(&container.id).as_ref() != Some(exit) {
            Socket::Keep
        } else {
            Socket::Remove
        };
        let left = around("exit.teardown", || self.give_back(container, socket));
        let removes =
            before.host.auto_remove && owner.restarting == 0 && !self.restarts(&before, exit.code);
        around("exit.record", || {
            self.note_blocking(container, owner, |record| {
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
                record.acquired = left;
            });
        });
        if socket == Socket::Keep && *container.saved.borrow() {
            self.remove_socket(&container.id);
        }
    }

    /// Tells that a run is over, which took so many seconds.
    pub(super) fn tell_end(&self, record: &Record, code: i32, at_ns: i64, seconds: i64) {
        self.network_event("disconnect", record, at_ns);
        self.volume_use_events("unmount", record, at_ns);
        let more = [
            ("exitCode", code.to_string()),
            ("execDuration", seconds.to_string()),
        ];
        let more = more.each_ref().map(|(key, value)| (*key, value.as_str()));
        self.container_event("die", record, &more, Some(at_ns));
    }

    fn exit_on_disk(&self, id: &str) -> Option<ExitRecord> {
        let text = std::fs::read(self.exit_path(id)).ok()?;
        serde_json::from_slice(&text).ok()
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
            self.restart_later(&container, &mut owner, ran).await;
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
        restart_policy::restarts(&record.host.restart_policy, &ended)
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
    pub(crate) async fn restart_later(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
        ran: Duration,
    ) {
        let pause = restart_policy::next_pause(owner.last_pause, ran);
        owner.last_pause = Some(pause);
        owner.generation += 1;
        let generation = owner.generation;
        self.note(container, owner, |record| {
            record.state.status = Status::Restarting;
            record.state.restart_count += 1;
        })
        .await;
        // Who waits for this run's end has seen it, though another run follows.
        let exit = Exit {
            code: i64::from(container.record().state.exit_code),
            error: None,
        };
        container.life.send_modify(|life| {
            life.exits += 1;
            life.last_exit = Some(exit);
        });
        self.start_after(container.clone(), pause, generation);
    }

    /// Starts a container by its policy after a pause, unless somebody acts on it meanwhile.
    pub(crate) fn start_after(
        &self,
        container: Arc<Container>,
        mut pause: Duration,
        mut generation: u64,
    ) {
        let engine = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                let mut owner = container.owner.clone().lock_owned().await;
                if owner.generation != generation
                    || container.record().state.status != Status::Restarting
                    // The next daemon goes on with it.
                    || engine.is_going_down()
                {
                    return;
                }
                let Some(next) = engine.start_for_policy(&container, &mut owner).await else {
                    return;
                };
                (pause, generation) = (next, owner.generation);
            }
        });
    }

    /// Starts a container by its policy. A pause is the answer where what the last run held is not free yet: that is no
    /// fault of the container's, so the policy goes on, by [`Engine::start_after`].
    pub(crate) async fn start_for_policy(
        &self,
        container: &Arc<Container>,
        owner: &mut Owner,
    ) -> Option<Duration> {
        let error = self.start_owned(container, owner).await.err()?;
        tracing::error!(container = container.id, %error, "start a container by its restart policy");
        if !StillHeld::caused(&error) {
            self.announce_exit(container, &container.record());
            return None;
        }
        let pause = restart_policy::next_pause(owner.last_pause, Duration::ZERO);
        owner.last_pause = Some(pause);
        self.note(container, owner, |record| {
            record.state.status = Status::Restarting;
        })
        .await;
        Some(pause)
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
        if self.finish_run(container, &mut owner, None, exit).await {
            self.after_exit(container.clone(), owner).await;
        }
    }

    /// Returns the exit that the shim wrote before it went, or kills what is left and makes one up.
    pub(crate) async fn lost_exit(&self, container: &Arc<Container>) -> ExitRecord {
        let record = container.record();
        if let Some(exit) = self.read_exit(&record).await {
            return exit;
        }
        self.kill_leftovers(container).await;
        ExitRecord {
            code: 255,
            at_unix_ns: crate::now_ns(),
            boottime_ns: 0,
            oom_kills: 0,
            error: Some("the container's shim is gone; its processes were killed".into()),
        }
    }

    /// Reads the exit record of the current run; one of an earlier run is not it.
    pub(crate) async fn read_exit(&self, record: &Record) -> Option<ExitRecord> {
        let (engine, id) = (self.clone(), record.id.clone());
        let exit = blocking::run(move || engine.exit_on_disk(&id))
            .await
            .ok()??;
        // A start that was cut off may have left the file of the run before, which is told and recorded.
        let is_later = Some(exit.at_unix_ns) > record.state.finished_at_ns;
        (is_later && exit.at_unix_ns >= record.state.started_at_ns.unwrap_or(0)).then_some(exit)
    }

    /// Notes that the kernel killed a process of the container for its memory limit.
    pub(crate) async fn out_of_memory(&self, container: &Arc<Container>) {
        let mut owner = container.owner.clone().lock_owned().await;
        let record = container.record();
        if record.state.oom_killed {
            return;
        }
        self.container_event("oom", &record, &[], None);
        self.note(container, &mut owner, |record| {
            record.state.oom_killed = true;
        })
        .await;
    }
}

/// Time that the answers to waiting clients may take before the shim is released all the same.
const ANSWERS_MAX: Duration = Duration::from_secs(1);

/// Releases the shim once every waiting client has been answered and the record is on disk: until then it would answer
/// them if the daemon died, and tell the next one of the end.
fn release_when_answered(container: Arc<Container>, shim: Arc<Shim>) {
    tokio::spawn(async move {
        let _ = tokio::time::timeout(ANSWERS_MAX, container.life.closed()).await;
        container.on_disk().await;
        // Its answer is the end of the connection; a shim that is gone is what is wanted.
        let _ = shim.call(Request::Release, Vec::new()).await;
    });
}
