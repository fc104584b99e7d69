//! Containers as list and inspect show them.

use std::collections::BTreeMap;
use std::path::Path;

use gantry_api::container as wire;
use gantry_api::time::Timestamp;
use gantry_api::wire::{KeySet, StringList};
use gantry_engine::container::config::{Config, HostConfig, Resources};
use gantry_engine::container::{Inspect, Listed, MountKind, Record, State, Status};

use super::{endpoint, image_digest, instant, mount, null_if_empty};
use crate::server::version::ApiVersion;

/// Writes one entry of the list; `now` is what ages count from.
pub fn summary(listed: &Listed, now: Timestamp) -> wire::ContainerSummary {
    let record = &listed.record;
    let (size_rw, size_root_fs) = sizes(listed.sizes).unwrap_or_default();
    wire::ContainerSummary {
        id: record.id.clone(),
        names: Some(listed.names.clone()),
        image: if listed.image == record.image_id {
            image_digest(&listed.image)
        } else {
            listed.image.clone()
        },
        image_id: image_digest(&record.image_id),
        command: command(&record.path, &record.args),
        created: instant(record.created_ns).unix_seconds(),
        ports: endpoint::port_summaries(record, &listed.network),
        size_rw,
        size_root_fs,
        labels: Some(record.config.labels.clone()),
        state: record.state.status.as_str().to_owned(),
        status: status_text(&record.state, now),
        host_config: wire::SummaryHostConfig {
            network_mode: record.host.network_mode.clone(),
            annotations: (!record.host.annotations.is_empty())
                .then(|| record.host.annotations.clone()),
        },
        network_settings: Some(wire::SummaryNetworkSettings {
            networks: Some(endpoint::networks(&listed.network)),
        }),
        mounts: mounts(record),
        ..wire::ContainerSummary::default()
    }
}

/// Writes a container in full.
pub fn inspect(found: &Inspect, version: ApiVersion) -> wire::ContainerInspect {
    let record = &found.record;
    let sizes = sizes(found.sizes);
    // Docker makes the files at the first start and names none before.
    let started = record.state.started_at_ns.is_some();
    let path = |path: &Path| {
        if started {
            path.display().to_string()
        } else {
            String::new()
        }
    };
    wire::ContainerInspect {
        id: record.id.clone(),
        created: instant(record.created_ns),
        path: record.path.clone(),
        args: record.args.clone(),
        state: state(&record.state),
        image: image_digest(&record.image_id),
        resolv_conf_path: path(&found.resolv_conf_path),
        hostname_path: path(&found.hostname_path),
        hosts_path: path(&found.hosts_path),
        log_path: path(Path::new(&record.log_path)),
        name: format!("/{}", record.name),
        restart_count: i64::try_from(record.state.restart_count).unwrap_or(i64::MAX),
        driver: "overlay2".to_owned(),
        platform: record.platform_os.clone(),
        exec_ids: null_if_empty(&found.exec_ids),
        host_config: wire::HostConfig {
            links: null_if_empty(&found.links),
            ..host_config(&record.host)
        },
        graph_driver: graph_driver(found),
        size_rw: sizes.map(|(writable, _)| writable),
        size_root_fs: sizes.map(|(_, root)| root),
        mounts: mounts(record),
        config: config(&record.config),
        network_settings: endpoint::network_settings(record, &found.network, version),
        ..wire::ContainerInspect::default()
    }
}

fn sizes(sizes: Option<(u64, u64)>) -> Option<(i64, i64)> {
    let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
    sizes.map(|(writable, root)| (signed(writable), signed(root)))
}

fn state(state: &State) -> wire::State {
    let time = |nanos: Option<i64>| nanos.map_or(Timestamp::ZERO, instant);
    wire::State {
        status: state.status.as_str().to_owned(),
        running: state.status.is_running(),
        paused: state.status == Status::Paused,
        restarting: state.status == Status::Restarting,
        oom_killed: state.oom_killed,
        dead: state.status == Status::Dead,
        pid: state.pid.into(),
        exit_code: state.exit_code.into(),
        error: state.error.clone(),
        started_at: time(state.started_at_ns),
        finished_at: time(state.finished_at_ns),
        health: None,
    }
}

/// Writes the list's column STATUS.
fn status_text(state: &State, now: Timestamp) -> String {
    let since =
        |nanos: Option<i64>| human_duration(now.since(nanos.map_or(now, instant)).as_secs());
    match state.status {
        Status::Paused => format!("Up {} (Paused)", since(state.started_at_ns)),
        Status::Restarting => format!(
            "Restarting ({}) {} ago",
            state.exit_code,
            since(state.finished_at_ns)
        ),
        Status::Running => format!("Up {}", since(state.started_at_ns)),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Created | Status::Exited if state.started_at_ns.is_none() => "Created".to_owned(),
        Status::Created | Status::Exited => match state.finished_at_ns {
            None => String::new(),
            finished => format!("Exited ({}) {} ago", state.exit_code, since(finished)),
        },
    }
}

/// Writes a time span as people say it.
pub fn human_duration(seconds: u64) -> String {
    let minutes = seconds / 60;
    // Hours are rounded, all else is cut.
    let hours = (seconds + 1800) / 3600;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

fn command(path: &str, args: &[String]) -> String {
    let mut text = path.to_owned();
    for arg in args {
        if arg.contains(' ') {
            text.push_str(&format!(" '{arg}'"));
        } else {
            text.push_str(&format!(" {arg}"));
        }
    }
    text
}

fn mounts(record: &Record) -> Vec<wire::MountPoint> {
    // What came by `--tmpfs` is shown in HostConfig alone.
    let shown = |point: &&gantry_engine::container::MountPoint| {
        point.kind != MountKind::Tmpfs || !record.host.tmpfs.contains_key(&point.destination)
    };
    record
        .mounts
        .iter()
        .filter(shown)
        .map(mount::point)
        .collect()
}

fn graph_driver(found: &Inspect) -> wire::DriverData {
    let data = found.layers.as_ref().map(|(lowers, upper, work)| {
        let lowers: Vec<String> = lowers
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        BTreeMap::from([
            ("ID".to_owned(), found.record.id.clone()),
            ("LowerDir".to_owned(), lowers.join(":")),
            ("UpperDir".to_owned(), upper.display().to_string()),
            ("WorkDir".to_owned(), work.display().to_string()),
        ])
    });
    wire::DriverData {
        data,
        name: "overlay2".to_owned(),
    }
}

fn config(config: &Config) -> wire::Config {
    let list = |list: &Option<Vec<String>>| list.clone().map(StringList);
    wire::Config {
        hostname: config.hostname.clone(),
        domainname: config.domainname.clone(),
        user: config.user.clone(),
        attach_stdin: config.attach_stdin,
        attach_stdout: config.attach_stdout,
        attach_stderr: config.attach_stderr,
        exposed_ports: config
            .exposed_ports
            .iter()
            .map(ToString::to_string)
            .collect(),
        tty: config.tty,
        open_stdin: config.open_stdin,
        stdin_once: config.stdin_once,
        env: Some(config.env.clone()),
        cmd: list(&config.cmd),
        healthcheck: config
            .healthcheck
            .clone()
            .and_then(|check| serde_json::from_value(check).ok()),
        args_escaped: config.args_escaped,
        image: config.image.clone(),
        volumes: (!config.volumes.is_empty()).then(|| KeySet(config.volumes.clone())),
        working_dir: config.working_dir.clone(),
        entrypoint: list(&config.entrypoint),
        network_disabled: false,
        mac_address: config.mac_address.clone(),
        on_build: config.on_build.clone(),
        labels: Some(config.labels.clone()),
        stop_signal: config.stop_signal.clone().unwrap_or_default(),
        stop_timeout: config.stop_timeout_s,
        shell: list(&config.shell),
    }
}

/// Writes the host configuration. Which empty lists are `null` and which are `[]` follows what the command line sends.
fn host_config(host: &HostConfig) -> wire::HostConfig {
    let list = |list: &[String]| null_if_empty(list);
    let map = |map: &BTreeMap<String, String>| (!map.is_empty()).then(|| map.clone());
    let strings = |list: &[String]| null_if_empty(list).map(StringList);
    wire::HostConfig {
        binds: list(&host.binds),
        container_id_file: host.container_id_file.clone(),
        log_config: wire::LogConfig {
            kind: host.log_driver.clone(),
            config: Some(host.log_options.clone()),
        },
        network_mode: host.network_mode.clone(),
        port_bindings: Some(
            host.port_bindings
                .iter()
                .map(|(port, bindings)| {
                    let bindings = bindings.iter().map(|binding| wire::PortBinding {
                        host_ip: binding.host_ip.clone(),
                        host_port: binding.host_port.clone(),
                    });
                    (port.to_string(), Some(bindings.collect()))
                })
                .collect(),
        ),
        restart_policy: wire::RestartPolicy {
            name: host.restart_policy.name.as_str().to_owned(),
            maximum_retry_count: host.restart_policy.maximum_retry_count,
        },
        auto_remove: host.auto_remove,
        volume_driver: host.volume_driver.clone(),
        volumes_from: list(&host.volumes_from),
        console_size: host.console_size.map(u32::from),
        annotations: map(&host.annotations),
        cap_add: strings(&host.cap_add),
        cap_drop: strings(&host.cap_drop),
        cgroupns_mode: host.cgroupns_mode.clone(),
        dns: Some(host.dns.clone()),
        dns_options: Some(host.dns_options.clone()),
        dns_search: Some(host.dns_search.clone()),
        extra_hosts: list(&host.extra_hosts),
        group_add: list(&host.group_add),
        ipc_mode: host.ipc_mode.clone(),
        cgroup: String::new(),
        links: None,
        oom_score_adj: host.oom_score_adj,
        pid_mode: host.pid_mode.clone(),
        privileged: host.privileged,
        publish_all_ports: host.publish_all_ports,
        readonly_rootfs: host.readonly_rootfs,
        security_opt: list(&host.security_opt),
        storage_opt: None,
        tmpfs: map(&host.tmpfs),
        uts_mode: host.uts_mode.clone(),
        userns_mode: host.userns_mode.clone(),
        shm_size: host.shm_size_bytes,
        sysctls: map(&host.sysctls),
        runtime: host.runtime.clone(),
        isolation: host.isolation.clone(),
        resources: resources(host),
        mounts: (!host.mounts.is_empty())
            .then(|| host.mounts.iter().map(mount::wire_spec).collect()),
        masked_paths: host.shown_masked_paths(),
        readonly_paths: host.shown_readonly_paths(),
        init: host.init,
    }
}

fn resources(host: &HostConfig) -> wire::Resources {
    let Resources {
        memory_bytes,
        memory_swap_bytes,
        memory_reservation_bytes,
        memory_swappiness,
        oom_kill_disable,
        nano_cpus,
        cpu_shares,
        cpu_period_us,
        cpu_quota_us,
        cpu_realtime_period_us,
        cpu_realtime_runtime_us,
        cpuset_cpus,
        cpuset_mems,
        pids_limit,
        blkio_weight,
        blkio_weight_device,
        blkio_read_bps,
        blkio_write_bps,
        blkio_read_iops,
        blkio_write_iops,
    } = host.resources.clone();
    let throttles = |list: Vec<(String, u64)>| {
        Some(
            list.into_iter()
                .map(|(path, rate)| wire::ThrottleDevice { path, rate })
                .collect(),
        )
    };
    wire::Resources {
        cpu_shares,
        memory: memory_bytes,
        nano_cpus,
        cgroup_parent: host.cgroup_parent.clone(),
        blkio_weight,
        blkio_weight_device: Some(
            blkio_weight_device
                .into_iter()
                .map(|(path, weight)| wire::WeightDevice {
                    path,
                    weight: u16::try_from(weight).unwrap_or(u16::MAX),
                })
                .collect(),
        ),
        blkio_device_read_bps: throttles(blkio_read_bps),
        blkio_device_write_bps: throttles(blkio_write_bps),
        blkio_device_read_iops: throttles(blkio_read_iops),
        blkio_device_write_iops: throttles(blkio_write_iops),
        cpu_period: cpu_period_us,
        cpu_quota: cpu_quota_us,
        cpu_realtime_period: cpu_realtime_period_us,
        cpu_realtime_runtime: cpu_realtime_runtime_us,
        cpuset_cpus,
        cpuset_mems,
        devices: Some(
            host.devices
                .iter()
                .map(|device| wire::DeviceMapping {
                    path_on_host: device.path_on_host.clone(),
                    path_in_container: device.path_in_container.clone(),
                    cgroup_permissions: device.cgroup_permissions.clone(),
                })
                .collect(),
        ),
        device_cgroup_rules: null_if_empty(&host.device_cgroup_rules),
        memory_reservation: memory_reservation_bytes,
        memory_swap: memory_swap_bytes,
        memory_swappiness,
        oom_kill_disable,
        pids_limit,
        ulimits: Some(
            host.ulimits
                .iter()
                .map(|limit| wire::Ulimit {
                    name: limit.name.clone(),
                    hard: limit.hard,
                    soft: limit.soft,
                })
                .collect(),
        ),
        ..wire::Resources::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::version::MAX;
    use gantry_engine::container::{EndpointView, NetworkView};
    use std::sync::Arc;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn ages_are_said_as_docker_says_them() {
        const HOUR: u64 = 3600;
        for (seconds, want) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (HOUR, "About an hour"),
            (HOUR + 1799, "About an hour"),
            (HOUR + 1800, "2 hours"),
            (47 * HOUR, "47 hours"),
            (48 * HOUR, "2 days"),
            (14 * 24 * HOUR, "2 weeks"),
            (60 * 24 * HOUR, "2 months"),
            (730 * 24 * HOUR, "2 years"),
        ] {
            assert_eq!(human_duration(seconds), want, "{seconds}");
        }
    }

    #[test]
    fn the_status_column() {
        let now = instant(100 * SECOND);
        let text = |status, started: Option<i64>, finished: Option<i64>| {
            let state = State {
                status,
                exit_code: 3,
                started_at_ns: started.map(|seconds| seconds * SECOND),
                finished_at_ns: finished.map(|seconds| seconds * SECOND),
                ..State::default()
            };
            status_text(&state, now)
        };
        assert_eq!(text(Status::Created, None, None), "Created");
        assert_eq!(text(Status::Running, Some(98), None), "Up 2 seconds");
        assert_eq!(
            text(Status::Paused, Some(40), None),
            "Up About a minute (Paused)"
        );
        assert_eq!(
            text(Status::Exited, Some(1), Some(100)),
            "Exited (3) Less than a second ago"
        );
        assert_eq!(
            text(Status::Restarting, Some(1), Some(95)),
            "Restarting (3) 5 seconds ago"
        );
        assert_eq!(
            text(Status::Removing, Some(1), Some(95)),
            "Removal In Progress"
        );
    }

    #[test]
    fn a_command_quotes_arguments_with_spaces() {
        assert_eq!(
            command("sh", &["-c".to_owned(), "sleep 1".to_owned()]),
            "sh -c 'sleep 1'"
        );
        assert_eq!(command("true", &[]), "true");
    }

    /// The record of `docker create --name dmn_b busybox true`, and Docker 28.5.2's inspect of it.
    fn created() -> Record {
        Record {
            id: "6078640856afc25b36e71a03f792bad24ed0c30fe54001511d4b974345e4698c".to_owned(),
            name: "dmn_b".to_owned(),
            created_ns: 1_795_470_748_843_065_813,
            image_id: "dff9772482624e384852afbc2d3add6a14b89909f4968a1b36473d1c1584144f".to_owned(),
            path: "true".to_owned(),
            platform_os: "linux".to_owned(),
            config: Config {
                hostname: "6078640856af".to_owned(),
                attach_stdout: true,
                attach_stderr: true,
                env: vec!["PATH=/bin".to_owned()],
                cmd: Some(vec!["true".to_owned()]),
                image: "localhost/bench/busybox:1".to_owned(),
                ..Config::default()
            },
            host: HostConfig {
                network_mode: "bridge".to_owned(),
                log_driver: "json-file".to_owned(),
                ipc_mode: "private".to_owned(),
                cgroupns_mode: "host".to_owned(),
                shm_size_bytes: 64 << 20,
                runtime: "runc".to_owned(),
                resources: Resources {
                    oom_kill_disable: Some(false),
                    ..Resources::default()
                },
                ..HostConfig::default()
            },
            ..Record::default()
        }
    }

    fn view() -> NetworkView {
        NetworkView {
            networks: [("bridge".to_owned(), EndpointView::default())].into(),
            ..NetworkView::default()
        }
    }

    #[test]
    fn inspect_of_a_created_container_is_dockers() {
        let found = Inspect {
            record: Arc::new(created()),
            sizes: Some((0, 1_984_172)),
            network: view(),
            exec_ids: Vec::new(),
            links: Vec::new(),
            hostname_path: "/h".into(),
            hosts_path: "/h".into(),
            resolv_conf_path: "/h".into(),
            layers: None,
        };
        let mut ours = serde_json::to_value(inspect(&found, MAX)).unwrap();
        let mut dockers: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/recorded/inspect-created.json"))
                .unwrap();
        // What differs by machine or by design: where layers lie.
        for value in [&mut ours, &mut dockers] {
            value["GraphDriver"] = serde_json::Value::Null;
            value["Config"]["Env"] = serde_json::Value::Null;
        }
        assert_eq!(
            serde_json::to_string_pretty(&ours).unwrap(),
            serde_json::to_string_pretty(&dockers).unwrap()
        );
    }

    #[test]
    fn the_list_of_a_created_container_is_dockers() {
        let record = created();
        let listed = Listed {
            names: vec![format!("/{}", record.name)],
            image: record.config.image.clone(),
            record: Arc::new(record),
            sizes: Some((0, 1_984_172)),
            network: view(),
        };
        let ours = serde_json::to_value(summary(&listed, instant(0))).unwrap();
        let dockers: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/recorded/list-created.json")).unwrap();
        assert_eq!(
            serde_json::to_string_pretty(&ours).unwrap(),
            serde_json::to_string_pretty(&dockers).unwrap()
        );
    }
}
