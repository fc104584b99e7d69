//! `stop` and `restart`.

use std::sync::Arc;
use std::time::Duration;

use gantry_shim::protocol::{Reply, Request};

use super::{Container, Status};
use crate::failpoint::around_async;
use crate::{Changed, Engine, Error, Result, signal};

/// Time between the stop signal and SIGKILL when nobody says otherwise.
const TIMEOUT_DEFAULT_S: i64 = 10;
/// Time that a killed container may take to end.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// How to stop.
#[derive(Clone, Debug, Default)]
pub struct StopOptions {
    /// Instead of the container's stop signal.
    pub signal: Option<String>,
    /// Seconds; negative waits for ever, zero kills at once.
    pub timeout_s: Option<i64>,
}

/// What ends a container, and so which event tells it beside `kill` and `die`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A stop or a restart: `stop`.
    Stop,
    /// A removal by force: none.
    Removal,
}

impl Engine {
    /// Stops a container: its stop signal, then SIGKILL.
    ///
    /// # Errors
    /// Not found; an invalid signal; a process that does not end even when killed.
    pub async fn stop(&self, name: &str, options: StopOptions) -> Result<Changed> {
        let container = self.container(name)?;
        let (engine, id) = (self.clone(), name.to_owned());
        let stopping = tokio::spawn(async move {
            engine
                .stop_container(&container, &options, Ending::Stop)
                .await
                .map_err(|error| {
                    Error::new(
                        error.kind(),
                        format!("cannot stop container: {id}: {error}"),
                    )
                    .caused_by(error)
                })
        });
        stopping
            .await
            .map_err(|error| Error::system("an engine task died").caused_by(error))?
    }

    /// Stops a container and starts it again.
    pub async fn restart(&self, name: &str, options: StopOptions) -> Result<()> {
        let container = self.container(name)?;
        let (engine, id) = (self.clone(), name.to_owned());
        let task = tokio::spawn(async move {
            let failed = |error: Error| {
                Error::new(
                    error.kind(),
                    format!("Cannot restart container {id}: {error}"),
                )
                .caused_by(error)
            };
            // A container that would be removed on exit is kept: the restart is one operation.
            container.owner.lock().await.restarting += 1;
            let stopped = engine.stop_for_restart(&container, &options).await;
            let mut owner = match stopped {
                Ok(mut owner) => {
                    owner.restarting -= 1;
                    owner
                }
                Err(error) => {
                    container.owner.lock().await.restarting -= 1;
                    return Err(failed(error));
                }
            };
            owner.generation += 1;
            engine
                .note(&container, &mut owner, |record| {
                    record.state.manually_stopped = false;
                    record.state.restart_count = 0;
                })
                .await;
            if let Err(error) = engine.start_owned(&container, &mut owner).await {
                engine.start_failed(container, owner, &error).await;
                return Err(failed(error));
            }
            engine.container_event("restart", &container.record(), &[], None);
            Ok(())
        });
        task.await
            .map_err(|error| Error::system("an engine task died").caused_by(error))?
    }

    /// Stops a container and returns its lock with nothing running: somebody else may start it in between.
    async fn stop_for_restart(
        &self,
        container: &Arc<Container>,
        options: &StopOptions,
    ) -> Result<tokio::sync::OwnedMutexGuard<super::Owner>> {
        loop {
            self.stop_container(container, options, Ending::Stop)
                .await?;
            let owner = container.owner.clone().lock_owned().await;
            match container.record().state.status {
                Status::Running | Status::Paused => drop(owner),
                Status::Removing | Status::Dead => {
                    return Err(Error::conflict(
                        "container is marked for removal and cannot be started",
                    ));
                }
                _ => return Ok(owner),
            }
        }
    }

    pub(crate) async fn stop_container(
        &self,
        container: &Arc<Container>,
        options: &StopOptions,
        ending: Ending,
    ) -> Result<Changed> {
        let record = container.record();
        let number = stop_signal(
            options.signal.as_deref(),
            record.config.stop_signal.as_deref(),
        )?;
        let timeout_s = options
            .timeout_s
            .or(record.config.stop_timeout_s)
            .unwrap_or(TIMEOUT_DEFAULT_S);
        let mut life = container.life.subscribe();
        let mut owner = container.owner.clone().lock_owned().await;
        let record = container.record();
        match record.state.status {
            Status::Running | Status::Paused => {}
            Status::Restarting => {
                owner.generation += 1;
                self.note(container, &mut owner, |record| {
                    record.state.status = Status::Exited;
                    record.state.manually_stopped = true;
                })
                .await;
                self.announce_exit(container, &container.record());
                if ending == Ending::Stop {
                    self.container_event("stop", &record, &[], None);
                }
                return Ok(Changed::Yes);
            }
            _ => return Ok(Changed::No),
        }
        let before = life.borrow_and_update().exits;
        // A full disk must not keep anybody from stopping what fills it.
        self.note(container, &mut owner, |record| {
            record.state.manually_stopped = true;
        })
        .await;
        let sent = around_async("stop.signal", self.signal_process(container, number)).await;
        drop(owner);
        let ended = |wait: Option<Duration>| {
            let mut life = life.clone();
            async move {
                let ended = async {
                    life.wait_for(|life| life.exits > before || life.removed)
                        .await
                        .is_ok()
                };
                match wait {
                    None => ended.await,
                    Some(wait) => tokio::time::timeout(wait, ended).await.unwrap_or(false),
                }
            }
        };
        let patience = match (&sent, timeout_s) {
            // The signal did not arrive, so waiting for its effect is pointless.
            (Err(_), _) => Some(Duration::from_secs(2)),
            (Ok(()), seconds) if seconds < 0 => None,
            (Ok(()), seconds) => Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))),
        };
        let mut done = ended(patience).await;
        if !done {
            if let Err(error) = self.signal_process(container, signal::KILL).await {
                tracing::warn!(container = container.id, %error, "kill a container that did not stop");
            }
            done = ended(Some(KILL_WAIT)).await;
        }
        if !done {
            // The shim does not serve: its container is killed around it, and its end is noticed by the connection.
            self.kill_leftovers(container).await;
            done = ended(Some(Duration::from_secs(2))).await;
        }
        if !done {
            return Err(Error::system(
                "tried to kill container, but did not receive an exit event",
            ));
        }
        around_async("stop.commit", async {
            if ending == Ending::Stop {
                self.container_event("stop", &record, &[], None);
            }
        })
        .await;
        Ok(Changed::Yes)
    }

    /// Sends a signal to the first process; a paused container is resumed so that it lands.
    pub(crate) async fn signal_process(
        &self,
        container: &Arc<Container>,
        number: i32,
    ) -> Result<()> {
        let record = container.record();
        let more = [("signal", number.to_string())];
        let (reply, _) = self
            .shim(container)?
            .call(Request::Signal { signal: number }, Vec::new())
            .await?;
        if let Reply::Error { message } = reply {
            return Err(Error::system(message));
        }
        self.container_event(
            "kill",
            &record,
            &more.each_ref().map(|(key, value)| (*key, value.as_str())),
            None,
        );
        if record.state.status == Status::Paused
            && let Some(path) = record.acquired.cgroup.clone()
        {
            let layout = self.inner.cgroups.clone();
            crate::blocking::run(move || gantry_sys::cgroup::Cgroup::open(&layout, &path)?.thaw())
                .await?
                .map_err(|error| Error::io("thaw a paused container", error))?;
        }
        Ok(())
    }
}

/// Chooses the signal of a stop.
fn stop_signal(given: Option<&str>, own: Option<&str>) -> Result<i32> {
    match given.or(own).filter(|text| !text.is_empty()) {
        None => Ok(signal::TERM),
        Some(text) => {
            signal::parse(text).ok_or_else(|| Error::invalid(format!("invalid signal: {text}")))
        }
    }
}
