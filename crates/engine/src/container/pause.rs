//! `pause` and `unpause`: the freezer of the container's cgroup.

use super::Status;
use crate::{Engine, Error, Result};

impl Engine {
    /// Freezes all processes of a container.
    pub async fn pause(&self, name: &str) -> Result<()> {
        self.freeze(name, true).await
    }

    /// Thaws a paused container.
    pub async fn unpause(&self, name: &str) -> Result<()> {
        self.freeze(name, false).await
    }

    async fn freeze(&self, name: &str, freeze: bool) -> Result<()> {
        let container = self.container(name)?;
        self.own(container, move |engine, container, mut owner| async move {
            let record = container.record();
            let id = &container.id;
            match (record.state.status, freeze) {
                (Status::Running, true) | (Status::Paused, false) => {}
                (Status::Paused, true) => {
                    return Err(Error::conflict(format!("Container {id} is already paused")));
                }
                (Status::Restarting, true) => {
                    return Err(Error::conflict(format!(
                        "Container {id} is restarting, wait until the container is running"
                    )));
                }
                (_, false) => return Err(Error::system(format!("Container {id} is not paused"))),
                _ => return Err(super::not_running(id)),
            }
            let path = record.acquired.cgroup.clone().unwrap_or_default();
            let layout = engine.inner.cgroups.clone();
            crate::blocking::run(move || {
                let cgroup = gantry_sys::cgroup::Cgroup::open(&layout, &path)?;
                if freeze {
                    cgroup.freeze()
                } else {
                    cgroup.thaw()
                }
            })
            .await?
            .map_err(|error| {
                let verb = if freeze { "pause" } else { "unpause" };
                Error::io(
                    format_args!("cannot {verb} container {}", container.id),
                    error,
                )
            })?;
            let status = if freeze {
                Status::Paused
            } else {
                Status::Running
            };
            engine
                .note(&container, &mut owner, move |record| {
                    record.state.status = status;
                })
                .await;
            engine.container_event(
                if freeze { "pause" } else { "unpause" },
                &container.record(),
                &[],
                None,
            );
            Ok(())
        })
        .await
    }
}
