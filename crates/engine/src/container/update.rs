//! `update`: other limits and another restart policy, at once.

use super::config::{Resources, RestartPolicy, RestartPolicyName};
use super::{Status, limits};
use crate::{Engine, Error, Result};

/// What to change; zero values change nothing.
#[derive(Clone, Debug, Default)]
pub struct UpdateOptions {
    pub resources: Resources,
    pub restart_policy: Option<RestartPolicy>,
}

impl Engine {
    /// Changes a container's limits and restart policy; returns warnings.
    pub async fn update(&self, name: &str, options: UpdateOptions) -> Result<Vec<String>> {
        let container = self.container(name)?;
        self.own(container, move |engine, container, mut owner| async move {
            let before = container.record();
            if matches!(before.state.status, Status::Removing | Status::Dead) {
                return Err(Error::conflict(format!(
                    "Cannot update container {}: Container is marked for removal and cannot be \"update\".",
                    container.id
                )));
            }
            let failed = |error: Error| {
                Error::new(error.kind(), format!("Cannot update container {}: {error}", container.id)).caused_by(error)
            };
            if let Some(policy) = &options.restart_policy
                && before.host.auto_remove
                && policy.name != RestartPolicyName::No
            {
                return Err(Error::invalid("Restart policy cannot be updated because AutoRemove is enabled for the container"));
            }
            let mut given = options.resources;
            let mut warnings = Vec::new();
            limits::discard(&mut given, &engine.inner.cgroups.support(), &mut warnings);
            check_given(&given)?;
            let mut resources = before.host.resources.clone();
            check_swap(&resources, &given).map_err(failed)?;
            merge(&mut resources, &given);
            limits::check(&resources)?;
            if before.state.status.has_process() {
                let oci = limits::oci(&resources).map_err(failed)?;
                let path = before.acquired.cgroup.clone().unwrap_or_default();
                let layout = engine.inner.cgroups.clone();
                crate::blocking::run(move || {
                    let limits = gantry_shim::cgroup_limits(Some(&oci)).map_err(std::io::Error::other)?;
                    gantry_sys::cgroup::Cgroup::open(&layout, &path)?.update(&limits)
                })
                .await?
                .map_err(|error| failed(Error::io("update cgroup", error)))?;
            }
            engine
                .keep(&container, &mut owner, |record| {
                    record.host.resources = resources;
                    if let Some(policy) = options.restart_policy {
                        record.host.restart_policy = policy;
                    }
                })
                .await?;
            engine.container_event("update", &container.record(), &[], None);
            Ok(warnings)
        })
        .await
    }
}

/// Checks the new limits without the old ones. A swap limit may come alone, because the memory limit is there already.
fn check_given(new: &Resources) -> Result<()> {
    let mut given = new.clone();
    if given.memory_bytes == 0 {
        given.memory_swap_bytes = 0;
    }
    limits::check(&given)
}

/// Refuses a memory limit above the swap limit of before unless another one comes with it. As for Docker, no swap limit
/// is one of zero here.
fn check_swap(old: &Resources, new: &Resources) -> Result<()> {
    if new.memory_bytes > old.memory_swap_bytes
        && new.memory_swap_bytes == 0
        && new.memory_bytes != 0
    {
        return Err(Error::conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ));
    }
    Ok(())
}

/// Lays the given limits over the old ones.
fn merge(old: &mut Resources, new: &Resources) {
    macro_rules! take {
        ($($field:ident),*) => {$(
            if new.$field != Resources::default().$field {
                old.$field = new.$field.clone();
            }
        )*};
    }
    take!(
        memory_bytes,
        memory_swap_bytes,
        memory_reservation_bytes,
        memory_swappiness,
        oom_kill_disable,
        cpu_shares,
        cpu_realtime_period_us,
        cpu_realtime_runtime_us,
        cpuset_cpus,
        cpuset_mems,
        pids_limit,
        blkio_weight
    );
    if new.nano_cpus != 0 {
        (old.nano_cpus, old.cpu_period_us, old.cpu_quota_us) = (new.nano_cpus, 0, 0);
    }
    if new.cpu_period_us != 0 || new.cpu_quota_us != 0 {
        take!(cpu_period_us, cpu_quota_us);
        old.nano_cpus = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_changes() {
        let mut old = Resources {
            memory_bytes: 5,
            nano_cpus: 7,
            ..Resources::default()
        };
        merge(
            &mut old,
            &Resources {
                cpu_quota_us: 20_000,
                ..Resources::default()
            },
        );
        assert_eq!(
            (old.memory_bytes, old.nano_cpus, old.cpu_quota_us),
            (5, 0, 20_000)
        );
        merge(
            &mut old,
            &Resources {
                memory_bytes: 9,
                nano_cpus: 1,
                ..Resources::default()
            },
        );
        assert_eq!(
            (old.memory_bytes, old.nano_cpus, old.cpu_quota_us),
            (9, 1, 0)
        );
    }
}
