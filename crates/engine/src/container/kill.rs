//! `kill`: one signal, no waiting but for SIGKILL.

use std::time::Duration;

use super::Status;
use crate::{Engine, Error, Result, signal};

/// Time that a killed container may take to end.
const KILL_WAIT: Duration = Duration::from_secs(10);

impl Engine {
    /// Sends a signal to a container's first process; SIGKILL (the default) waits for its end.
    ///
    /// # Errors
    /// Not found; an invalid signal; not running.
    pub async fn kill(&self, name: &str, text: Option<String>) -> Result<()> {
        let failed = |error: Error| {
            let text = format!("cannot kill container: {name}: {error}");
            Error::new(error.kind(), text).caused_by(error)
        };
        let number = match text.as_deref().filter(|text| !text.is_empty()) {
            None => signal::KILL,
            Some(text) => signal::of_kill(text)
                .map_err(Error::invalid)
                .map_err(failed)?,
        };
        let container = self.container(name).map_err(failed)?;
        let mut life = container.life.subscribe();
        self.own(
            container.clone(),
            move |engine, container, mut owner| async move {
                let record = container.record();
                match record.state.status {
                    Status::Running | Status::Paused => {}
                    Status::Restarting => {
                        owner.generation += 1;
                        engine
                            .note(&container, &mut owner, |record| {
                                record.state.status = Status::Exited;
                                record.state.manually_stopped = true;
                            })
                            .await;
                        engine.announce_exit(&container, &container.record());
                        return Ok(());
                    }
                    _ => return Err(super::not_running(&container.id)),
                }
                let stops = number == signal::KILL
                    || record
                        .config
                        .stop_signal
                        .as_deref()
                        .and_then(signal::parse)
                        .unwrap_or(number)
                        == number;
                if stops {
                    engine
                        .note(&container, &mut owner, |record| {
                            record.state.manually_stopped = true;
                        })
                        .await;
                }
                engine.signal_process(&container, number).await
            },
        )
        .await
        .map_err(failed)?;
        if number == signal::KILL {
            let ended = life.wait_for(|life| !life.running || life.removed);
            if tokio::time::timeout(KILL_WAIT, ended).await.is_err() {
                return Err(failed(Error::system(
                    "tried to kill container, but did not receive an exit event",
                )));
            }
        }
        Ok(())
    }
}
