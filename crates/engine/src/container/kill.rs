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
        let container = self.container(name)?;
        let number = match text.as_deref().filter(|text| !text.is_empty()) {
            None => signal::KILL,
            Some(text) => signal::parse(text)
                .ok_or_else(|| Error::invalid(format!("Invalid signal: {text}")))?,
        };
        let mut life = container.life.subscribe();
        self.own(
            container.clone(),
            move |engine, container, mut owner| async move {
                let record = container.record();
                let failed = |error: Error| {
                    Error::new(
                        error.kind(),
                        format!("cannot kill container: {}: {error}", container.id),
                    )
                    .caused_by(error)
                };
                match record.state.status {
                    Status::Running | Status::Paused => {}
                    Status::Restarting => {
                        owner.generation += 1;
                        engine.save(&container, &mut owner, |record| {
                            record.state.status = Status::Exited;
                            record.state.manually_stopped = true;
                        })?;
                        engine.announce_exit(&container, &container.record());
                        return Ok(());
                    }
                    _ => return Err(failed(super::not_running(&container.id))),
                }
                let stops = record
                    .config
                    .stop_signal
                    .as_deref()
                    .and_then(signal::parse)
                    .unwrap_or(number)
                    == number;
                if stops {
                    engine.save(&container, &mut owner, |record| {
                        record.state.manually_stopped = true
                    })?;
                }
                engine
                    .signal_process(&container, number)
                    .await
                    .map_err(failed)
            },
        )
        .await?;
        if number == signal::KILL {
            let ended = life.wait_for(|life| !life.running || life.removed);
            if tokio::time::timeout(KILL_WAIT, ended).await.is_err() {
                return Err(Error::system(
                    "tried to kill container, but did not receive an exit event",
                ));
            }
        }
        Ok(())
    }
}
