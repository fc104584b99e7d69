//! Create and update requests to the engine's options.
//!
//! Every field of the wire is looked at: it is taken over, or it must have its zero value, or it is refused by name.
//! Differences between API versions are applied here, so that the engine knows none.

use std::collections::BTreeMap;
use std::str::FromStr;

use gantry_api::container as wire;
use gantry_api::error::ApiError;
use gantry_api::network::NetworkingConfig;
use gantry_api::platform::Platform;
use gantry_engine::container::config::{
    Config, DeviceMapping, HostConfig, PortBinding, PortSpec, Resources, RestartPolicy,
    RestartPolicyName, Ulimit,
};
use gantry_engine::container::{CreateOptions, UpdateOptions};

use super::{endpoint, mount};
use crate::server::version::ApiVersion;

/// Reads the body of `POST /containers/create`.
pub fn options(
    body: wire::ContainerCreateRequest,
    name: Option<&str>,
    platform: Option<&str>,
    version: ApiVersion,
) -> Result<CreateOptions, ApiError> {
    let wire::ContainerCreateRequest {
        config: user,
        host_config,
        networking_config,
    } = body;
    if user == wire::Config::default() {
        return Err(ApiError::invalid(
            "config cannot be empty in order to create a container",
        ));
    }
    let mut host = host_config.unwrap_or_default();
    adapt(&mut host, version);
    let networks = endpoints(networking_config, version)?;
    let mode = match host.network_mode.as_str() {
        "" => "default",
        mode => mode,
    };
    let is_default = |name: &str| matches!(name, "default" | "bridge");
    let of_mode = networks
        .iter()
        .find(|(name, _)| *name == mode || is_default(name) && is_default(mode));
    let endpoint_mac = of_mode.map_or(String::new(), |(_, wished)| {
        wished.as_ref().map_or(String::new(), |one| one.mac.clone())
    });
    let platform = platform
        .map(|text| Platform::from_str(text).map_err(|error| ApiError::invalid(error.to_string())))
        .transpose()?;
    Ok(CreateOptions {
        name: name.map(str::to_owned),
        config: Config {
            mac_address: merge_mac(&user.mac_address, endpoint_mac)?,
            ..config(user)?
        },
        host: host_config_options(host)?,
        networks,
        platform,
    })
}

/// Reads the body of `POST /containers/{id}/update`.
pub fn update_options(body: wire::UpdateRequest) -> Result<UpdateOptions, ApiError> {
    let wire::UpdateRequest {
        resources: limits,
        restart_policy,
    } = body;
    let parts = resources(limits)?;
    let limits = &parts.resources;
    for (field, given) in [
        ("BlkioWeightDevice", !limits.blkio_weight_device.is_empty()),
        ("BlkioDeviceReadBps", !limits.blkio_read_bps.is_empty()),
        ("BlkioDeviceWriteBps", !limits.blkio_write_bps.is_empty()),
        ("BlkioDeviceReadIOps", !limits.blkio_read_iops.is_empty()),
        ("BlkioDeviceWriteIOps", !limits.blkio_write_iops.is_empty()),
        ("Devices", !parts.devices.is_empty()),
        ("DeviceCgroupRules", !parts.device_cgroup_rules.is_empty()),
        ("Ulimits", !parts.ulimits.is_empty()),
        ("CgroupParent", !parts.cgroup_parent.is_empty()),
    ] {
        if given {
            return Err(ApiError::invalid(format!("{field} cannot be updated")));
        }
    }
    let restart_policy = if restart_policy.name.is_empty() {
        None
    } else {
        Some(self::restart_policy(&restart_policy)?)
    };
    Ok(UpdateOptions {
        resources: parts.resources,
        restart_policy,
    })
}

/// Applies what older clients expect.
fn adapt(host: &mut wire::HostConfig, version: ApiVersion) {
    if version.is_before(40) {
        if host.ipc_mode.is_empty() {
            host.ipc_mode = "shareable".to_owned();
        }
        host.resources.pids_limit = None;
    }
    if version.is_before(41) && host.cgroupns_mode.is_empty() {
        // Older clients expect the default of cgroup v1, the host's namespace.
        host.cgroupns_mode = "host".to_owned();
    }
    if version.is_before(42) {
        host.console_size = [0, 0];
        host.annotations = None;
        for mount in host.mounts.iter_mut().flatten() {
            if let Some(bind) = &mut mount.bind_options {
                bind.create_mountpoint = false;
            }
        }
    }
    if version.is_before(44) {
        for mount in host
            .mounts
            .iter_mut()
            .flatten()
            .filter(|mount| mount.kind == "bind" && mount.read_only)
        {
            // Read-only binds were not recursive.
            mount
                .bind_options
                .get_or_insert_default()
                .read_only_non_recursive = true;
        }
    }
    if host.resources.pids_limit.is_some_and(|limit| limit <= 0) {
        host.resources.pids_limit = None;
    }
    if host.resources.memory_swappiness == Some(-1) {
        host.resources.memory_swappiness = None;
    }
}

fn refused(field: &str) -> ApiError {
    ApiError::not_implemented(format!("{field} is not supported by this engine"))
}

fn config(user: wire::Config) -> Result<Config, ApiError> {
    let wire::Config {
        hostname,
        domainname,
        user,
        attach_stdin,
        attach_stdout,
        attach_stderr,
        exposed_ports,
        tty,
        open_stdin,
        stdin_once,
        env,
        cmd,
        healthcheck,
        args_escaped,
        image,
        volumes,
        working_dir,
        entrypoint,
        network_disabled,
        mac_address,
        on_build,
        labels,
        stop_signal,
        stop_timeout,
        shell,
    } = user;
    if network_disabled {
        return Err(refused("NetworkDisabled"));
    }
    let disabled =
        |check: &wire::HealthConfig| check.test.as_deref().is_some_and(|test| test == ["NONE"]);
    if healthcheck
        .as_ref()
        .is_some_and(|check| *check != wire::HealthConfig::default() && !disabled(check))
    {
        return Err(refused("Healthcheck"));
    }
    Ok(Config {
        hostname,
        domainname,
        user,
        attach_stdin,
        attach_stdout,
        attach_stderr,
        tty,
        mac_address,
        open_stdin,
        stdin_once,
        args_escaped,
        env: env.unwrap_or_default(),
        cmd: cmd.map(|list| list.0),
        entrypoint: entrypoint.map(|list| list.0),
        image,
        volumes: volumes.unwrap_or_default().0,
        working_dir,
        exposed_ports: exposed_ports
            .0
            .iter()
            .map(|text| port(text))
            .collect::<Result<_, _>>()?,
        labels: labels.unwrap_or_default(),
        stop_signal: Some(stop_signal).filter(|text| !text.is_empty()),
        stop_timeout_s: stop_timeout,
        on_build,
        shell: shell.map(|list| list.0),
        healthcheck: healthcheck.and_then(|check| serde_json::to_value(check).ok()),
    })
}

fn port(text: &str) -> Result<PortSpec, ApiError> {
    PortSpec::from_str(text).map_err(ApiError::invalid)
}

fn host_config_options(host: wire::HostConfig) -> Result<HostConfig, ApiError> {
    let wire::HostConfig {
        binds,
        container_id_file,
        log_config,
        network_mode,
        port_bindings,
        restart_policy: policy,
        auto_remove,
        volume_driver,
        volumes_from,
        console_size,
        annotations,
        cap_add,
        cap_drop,
        cgroupns_mode,
        dns,
        dns_options,
        dns_search,
        extra_hosts,
        group_add,
        ipc_mode,
        cgroup,
        links,
        oom_score_adj,
        pid_mode,
        privileged,
        publish_all_ports,
        readonly_rootfs,
        security_opt,
        storage_opt,
        tmpfs,
        uts_mode,
        userns_mode,
        shm_size,
        sysctls,
        runtime,
        isolation,
        resources: limits,
        mounts,
        masked_paths,
        readonly_paths,
        init,
    } = host;
    for (field, given) in [
        ("HostConfig.Cgroup", !cgroup.is_empty()),
        (
            "HostConfig.StorageOpt",
            storage_opt.is_some_and(|map| !map.is_empty()),
        ),
        // Without remapping the host's user namespace is what a container has.
        (
            "HostConfig.UsernsMode",
            !matches!(userns_mode.as_str(), "" | "host"),
        ),
    ] {
        if given {
            return Err(refused(field));
        }
    }
    if !matches!(isolation.as_str(), "" | "default") {
        return Err(ApiError::invalid(format!(
            "invalid isolation ({isolation}): linux only supports 'default'"
        )));
    }
    if shm_size < 0 {
        return Err(ApiError::invalid("SHM size can not be less than 0"));
    }
    let restart_policy = restart_policy(&policy)?;
    if auto_remove && restart_policy.name != RestartPolicyName::No {
        return Err(ApiError::invalid(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    let parts = resources(limits)?;
    Ok(HostConfig {
        binds: binds.unwrap_or_default(),
        mounts: mounts
            .unwrap_or_default()
            .into_iter()
            .map(mount::spec)
            .collect::<Result<_, _>>()?,
        tmpfs: tmpfs.unwrap_or_default(),
        volumes_from: volumes_from.unwrap_or_default(),
        links: links.unwrap_or_default(),
        volume_driver,
        container_id_file,
        network_mode,
        port_bindings: bindings(port_bindings.unwrap_or_default())?,
        publish_all_ports,
        restart_policy,
        auto_remove,
        log_driver: log_config.kind,
        log_options: log_config.config.unwrap_or_default(),
        cap_add: cap_add.unwrap_or_default().0,
        cap_drop: cap_drop.unwrap_or_default().0,
        privileged,
        security_opt: security_opt.unwrap_or_default(),
        readonly_rootfs,
        devices: parts.devices,
        device_cgroup_rules: parts.device_cgroup_rules,
        group_add: group_add.unwrap_or_default(),
        ulimits: parts.ulimits,
        sysctls: sysctls.unwrap_or_default(),
        shm_size_bytes: shm_size,
        ipc_mode,
        pid_mode,
        uts_mode,
        userns_mode,
        isolation,
        cgroupns_mode,
        extra_hosts: extra_hosts.unwrap_or_default(),
        dns: dns.unwrap_or_default(),
        dns_search: dns_search.unwrap_or_default(),
        dns_options: dns_options.unwrap_or_default(),
        init,
        runtime,
        cgroup_parent: parts.cgroup_parent,
        oom_score_adj,
        resources: parts.resources,
        masked_paths,
        readonly_paths,
        console_size: super::console_size(console_size).unwrap_or([0, 0]),
        annotations: annotations.unwrap_or_default(),
    })
}

fn bindings(map: wire::PortMap) -> Result<BTreeMap<PortSpec, Vec<PortBinding>>, ApiError> {
    map.into_iter()
        .map(|(text, bindings)| {
            let bindings = bindings.unwrap_or_default().into_iter();
            let bindings = bindings
                .map(|wire::PortBinding { host_ip, host_port }| PortBinding { host_ip, host_port });
            Ok((port(&text)?, bindings.collect()))
        })
        .collect()
}

fn restart_policy(policy: &wire::RestartPolicy) -> Result<RestartPolicy, ApiError> {
    let name = match policy.name.as_str() {
        "" | "no" => RestartPolicyName::No,
        "always" => RestartPolicyName::Always,
        "unless-stopped" => RestartPolicyName::UnlessStopped,
        "on-failure" => RestartPolicyName::OnFailure,
        other => {
            return Err(ApiError::invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    };
    if policy.maximum_retry_count != 0 && name != RestartPolicyName::OnFailure {
        let mut text =
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
                .to_owned();
        if policy.maximum_retry_count < 0 {
            text.push_str(" and cannot be negative");
        }
        return Err(ApiError::invalid(text));
    }
    if policy.maximum_retry_count < 0 {
        return Err(ApiError::invalid(
            "invalid restart policy: maximum retry count cannot be negative",
        ));
    }
    Ok(RestartPolicy {
        name,
        maximum_retry_count: policy.maximum_retry_count,
    })
}

/// The wire's resources, taken apart as the engine keeps them.
struct ResourceParts {
    resources: Resources,
    devices: Vec<DeviceMapping>,
    device_cgroup_rules: Vec<String>,
    ulimits: Vec<Ulimit>,
    cgroup_parent: String,
}

fn resources(limits: wire::Resources) -> Result<ResourceParts, ApiError> {
    let wire::Resources {
        cpu_shares,
        memory,
        nano_cpus,
        cgroup_parent,
        blkio_weight,
        blkio_weight_device,
        blkio_device_read_bps,
        blkio_device_write_bps,
        blkio_device_read_iops,
        blkio_device_write_iops,
        cpu_period,
        cpu_quota,
        cpu_realtime_period,
        cpu_realtime_runtime,
        cpuset_cpus,
        cpuset_mems,
        devices,
        device_cgroup_rules,
        device_requests,
        kernel_memory,
        kernel_memory_tcp,
        memory_reservation,
        memory_swap,
        memory_swappiness,
        oom_kill_disable,
        pids_limit,
        ulimits,
        cpu_count,
        cpu_percent,
        io_maximum_iops,
        io_maximum_bandwidth,
    } = limits;
    for (field, given) in [
        (
            "HostConfig.DeviceRequests",
            device_requests.is_some_and(|list| !list.is_empty()),
        ),
        ("HostConfig.KernelMemory", kernel_memory != 0),
        ("HostConfig.KernelMemoryTCP", kernel_memory_tcp != 0),
        ("HostConfig.CpuCount", cpu_count != 0),
        ("HostConfig.CpuPercent", cpu_percent != 0),
        ("HostConfig.IOMaximumIOps", io_maximum_iops != 0),
        ("HostConfig.IOMaximumBandwidth", io_maximum_bandwidth != 0),
    ] {
        if given {
            return Err(refused(field));
        }
    }
    let throttles = |list: Option<Vec<wire::ThrottleDevice>>| {
        list.unwrap_or_default()
            .into_iter()
            .map(|wire::ThrottleDevice { path, rate }| (path, rate))
            .collect()
    };
    Ok(ResourceParts {
        resources: Resources {
            memory_bytes: memory,
            memory_swap_bytes: memory_swap,
            memory_reservation_bytes: memory_reservation,
            memory_swappiness,
            oom_kill_disable,
            nano_cpus,
            cpu_shares,
            cpu_period_us: cpu_period,
            cpu_quota_us: cpu_quota,
            cpu_realtime_period_us: cpu_realtime_period,
            cpu_realtime_runtime_us: cpu_realtime_runtime,
            cpuset_cpus,
            cpuset_mems,
            pids_limit,
            blkio_weight,
            blkio_weight_device: blkio_weight_device
                .unwrap_or_default()
                .into_iter()
                .map(|wire::WeightDevice { path, weight }| (path, u64::from(weight)))
                .collect(),
            blkio_read_bps: throttles(blkio_device_read_bps),
            blkio_write_bps: throttles(blkio_device_write_bps),
            blkio_read_iops: throttles(blkio_device_read_iops),
            blkio_write_iops: throttles(blkio_device_write_iops),
        },
        devices: devices
            .unwrap_or_default()
            .into_iter()
            .map(
                |wire::DeviceMapping {
                     path_on_host,
                     path_in_container,
                     cgroup_permissions,
                 }| DeviceMapping {
                    path_on_host,
                    path_in_container,
                    cgroup_permissions,
                },
            )
            .collect(),
        device_cgroup_rules: device_cgroup_rules.unwrap_or_default(),
        ulimits: ulimits
            .unwrap_or_default()
            .into_iter()
            .map(|wire::Ulimit { name, hard, soft }| Ulimit { name, soft, hard })
            .collect(),
        cgroup_parent,
    })
}

/// Joins the two places for a hardware address: the container's own, of old, and that of its network.
fn merge_mac(of_container: &str, of_endpoint: String) -> Result<String, ApiError> {
    if !of_container.is_empty() && !of_endpoint.is_empty() && of_container != of_endpoint {
        return Err(ApiError::invalid(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty",
        ));
    }
    Ok(if of_endpoint.is_empty() {
        of_container.to_owned()
    } else {
        of_endpoint
    })
}

/// Reads what is wished for on each network. Older clients may name one.
fn endpoints(
    networking: Option<NetworkingConfig>,
    version: ApiVersion,
) -> Result<BTreeMap<String, Option<endpoint::Settings>>, ApiError> {
    let endpoints = networking.and_then(|networking| networking.endpoints_config);
    let endpoints = endpoints.unwrap_or_default();
    if version.is_before(44) && endpoints.len() > 1 {
        let names: Vec<&str> = endpoints.keys().map(String::as_str).collect();
        return Err(ApiError::invalid(format!(
            "Container cannot be created with multiple network endpoints: {}",
            names.join(", ")
        )));
    }
    Ok(endpoints
        .into_iter()
        .map(|(name, wished)| {
            (
                name,
                wished.map(|wished| endpoint::settings(wished, version)),
            )
        })
        .collect())
}

#[cfg(test)]
mod tests;
