//! `wait`: the daemon answers; a dup of the client's connection lies with the shim, which answers if the daemon dies.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use gantry_shim::protocol::{self, HoldWait, Request};
use tokio::sync::watch;

use super::{Container, Life};
use crate::{Engine, Result};

/// What a client waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// Any time that it does not run, which may be now.
    #[default]
    NotRunning,
    /// The next end of a run.
    NextExit,
    Removed,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub code: i64,
    pub error: Option<String>,
}

/// A wait that has begun: nothing that happens from now on is missed.
pub struct Wait {
    engine: Engine,
    container: Arc<Container>,
    condition: WaitCondition,
    life: watch::Receiver<Life>,
    before: u64,
    /// Number of the connection that waits for a shim with us.
    held: std::sync::atomic::AtomicU64,
}

impl Engine {
    /// Begins to wait for a container.
    pub async fn wait(&self, name: &str, condition: WaitCondition) -> Result<Wait> {
        let container = self.container(name)?;
        let mut life = container.life.subscribe();
        let before = life.borrow_and_update().exits;
        Ok(Wait {
            engine: self.clone(),
            container,
            condition,
            life,
            before,
            held: std::sync::atomic::AtomicU64::new(0),
        })
    }
}

impl Drop for Wait {
    /// The client is answered or gone: its connection need not wait for a start any longer.
    fn drop(&mut self) {
        let number = *self.held.get_mut();
        if number != 0
            && let Ok(mut link) = self.container.link.lock()
        {
            link.waits.retain(|(own, _, _)| *own != number);
        }
    }
}

impl Wait {
    /// Leaves a dup of the client's connection, whose chunked response has begun, with the shim.
    pub async fn hold(&self, connection: OwnedFd) {
        if self.condition == WaitCondition::NotRunning && !self.life.borrow().running {
            // The answer is on its way already.
            return;
        }
        let hold = HoldWait {
            condition: match self.condition {
                WaitCondition::NotRunning => protocol::WaitCondition::NotRunning,
                WaitCondition::NextExit => protocol::WaitCondition::NextExit,
                WaitCondition::Removed => protocol::WaitCondition::Removed,
            },
            version: protocol::VERSION,
        };
        let shim = {
            let mut link = self.container.link.lock().expect("no holder panics");
            match link.shim.clone() {
                Some(shim) => shim,
                None => {
                    // No process yet: the connection goes along with the start.
                    if self.life.borrow().exits == self.before {
                        let number = link.next_wait();
                        link.waits.push((number, hold, connection));
                        self.held
                            .store(number, std::sync::atomic::Ordering::Relaxed);
                    }
                    return;
                }
            }
        };
        if let Err(error) = shim.call(Request::HoldWait(hold), vec![connection]).await {
            tracing::debug!(container = self.container.id, %error, "leave a waiting client with the shim");
        }
    }

    /// Waits for the end.
    pub async fn finished(mut self) -> Exit {
        let exit = |life: &Life, container: &Container| {
            life.last_exit.clone().unwrap_or_else(|| Exit {
                code: i64::from(container.record().state.exit_code),
                error: None,
            })
        };
        let (condition, before) = (self.condition, self.before);
        let life = self
            .life
            .wait_for(|life| match condition {
                WaitCondition::NotRunning => !life.running || life.exits > before,
                WaitCondition::NextExit => life.exits > before || life.removed,
                WaitCondition::Removed => life.removed,
            })
            .await;
        let found = match life {
            Ok(life) => exit(&life, &self.container),
            Err(_) => Exit {
                code: 0,
                error: None,
            },
        };
        let _ = &self.engine;
        found
    }
}
