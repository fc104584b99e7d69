//! The engine as a whole.

use std::collections::BTreeMap;

use gantry_api::system::{
    AddressPool, Commit, ComponentVersion, FirewallInfo, Info, PluginsInfo, RuntimeInfo, SwarmInfo,
    Version, VersionPlatform,
};
use gantry_api::time::Timestamp;

use super::registry;
use crate::config::{Registries, Settings};
use crate::server::version::{ApiVersion, ENGINE_VERSION, MAX, MIN};

/// Where clients log in when they name no registry.
const INDEX_SERVER: &str = "https://index.docker.io/v1/";

/// Writes the answer of `GET /version`.
pub fn version(kernel: &str, architecture: &str) -> Version {
    let build_time = build_time();
    let details = BTreeMap::from([
        ("ApiVersion".to_owned(), MAX.to_string()),
        ("Arch".to_owned(), go_architecture(architecture).to_owned()),
        ("BuildTime".to_owned(), build_time.clone()),
        ("Experimental".to_owned(), "false".to_owned()),
        ("KernelVersion".to_owned(), kernel.to_owned()),
        ("MinAPIVersion".to_owned(), MIN.to_string()),
        ("Os".to_owned(), "linux".to_owned()),
    ]);
    Version {
        platform: VersionPlatform {
            name: format!("Gantry {}", env!("CARGO_PKG_VERSION")),
        },
        components: Some(vec![
            ComponentVersion {
                name: "Engine".to_owned(),
                version: ENGINE_VERSION.to_owned(),
                details: Some(details),
            },
            ComponentVersion {
                name: "gantry".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                details: Some(BTreeMap::from([("GitCommit".to_owned(), String::new())])),
            },
        ]),
        // Clients decide by this number what the engine can do: it names the behaviour that is followed.
        version: ENGINE_VERSION.to_owned(),
        api_version: MAX.to_string(),
        min_api_version: MIN.to_string(),
        git_commit: String::new(),
        go_version: String::new(),
        os: "linux".to_owned(),
        arch: go_architecture(architecture).to_owned(),
        kernel_version: kernel.to_owned(),
        experimental: false,
        build_time,
    }
}

/// Returns when this binary was built, in the form that Docker's build writes.
fn build_time() -> String {
    let seconds = env!("GANTRY_BUILD_SECONDS").parse().unwrap_or(0);
    let text = Timestamp::from_unix(seconds, 0).to_rfc3339_fixed();
    format!("{}+00:00", text.trim_end_matches('Z'))
}

/// Names a machine as Go does.
pub fn go_architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" | "armv6l" => "arm",
        "i686" | "i386" => "386",
        other => other,
    }
}

/// Writes the answer of `GET /info`.
pub fn info(
    info: &gantry_engine::system::Info,
    settings: &Settings,
    registries: &Registries,
    version: ApiVersion,
    now: Timestamp,
) -> Info {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let names = |names: &[&str]| {
        Some(
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        )
    };
    let commit = || Commit {
        id: String::new(),
        expected: String::new(),
    };
    let support = &info.cgroups;
    let open_files = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count());
    let profile = match &settings.seccomp {
        crate::config::Seccomp::BuiltIn => "builtin".to_owned(),
        crate::config::Seccomp::Unconfined => "unconfined".to_owned(),
        crate::config::Seccomp::File(path) => path.display().to_string(),
    };
    let mut security = vec![format!("name=seccomp,profile={profile}")];
    if info.cgroup_version == "2" {
        // The default of a container there is a control group namespace of its own.
        security.push("name=cgroupns".to_owned());
    }
    if settings.no_new_privileges {
        security.push("name=no-new-privileges".to_owned());
    }
    if version.is_before(25) {
        // The words of old have no properties.
        for option in &mut security {
            let name = option.split([',', '=']).nth(1).unwrap_or(option);
            *option = name.to_owned();
        }
    }
    let mut warnings = Vec::new();
    if settings
        .hosts
        .iter()
        .any(|host| matches!(host, crate::config::Host::Tcp(_)))
    {
        warnings.push(
            "WARNING: API is accessible over TCP without encryption: access to it is access to root on the host".to_owned(),
        );
    }
    let ipv4_forwarding = is_one("/proc/sys/net/ipv4/ip_forward");
    warnings.extend(missing(info, ipv4_forwarding));
    Info {
        id: info.id.clone(),
        containers: signed(info.containers),
        containers_running: signed(info.running),
        containers_paused: signed(info.paused),
        containers_stopped: signed(info.stopped),
        images: signed(info.images),
        driver: "overlay2".to_owned(),
        driver_status: Some(
            [
                ("Backing Filesystem", info.backing_filesystem.as_str()),
                ("Supports d_type", "true"),
                ("Using metacopy", "false"),
                ("Native Overlay Diff", "true"),
                ("userxattr", "false"),
            ]
            .into_iter()
            .map(|(key, value)| [key.to_owned(), value.to_owned()])
            .collect(),
        ),
        plugins: PluginsInfo {
            volume: names(&["local"]),
            network: names(&["bridge", "host", "ipvlan", "macvlan", "null"]),
            authorization: None,
            log: names(&["json-file", "local", "none"]),
        },
        memory_limit: support.memory_limit,
        swap_limit: support.swap_limit,
        kernel_memory: version.is_before(42) && support.kernel_memory_tcp,
        kernel_memory_tcp: support.kernel_memory_tcp,
        cpu_cfs_period: support.cpu_quota,
        cpu_cfs_quota: support.cpu_quota,
        cpu_shares: support.cpu_shares,
        cpu_set: support.cpuset,
        pids_limit: support.pids_limit,
        ipv4_forwarding,
        bridge_nf_iptables: version.is_before(50).then_some(false),
        bridge_nf_ip6tables: version.is_before(50).then_some(false),
        debug: settings.log.level >= tracing::Level::DEBUG,
        n_fd: signed(open_files as u64),
        oom_kill_disable: support.oom_kill_disable,
        n_goroutines: signed(
            std::fs::read_dir("/proc/self/task").map_or(0, |entries| entries.count()) as u64,
        ),
        system_time: now.to_string(),
        logging_driver: settings.log_driver.clone(),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: info.cgroup_version.to_owned(),
        n_events_listener: signed(info.events_listeners),
        kernel_version: info.kernel.clone(),
        operating_system: info.operating_system.clone(),
        os_version: info.os_version.clone(),
        os_type: "linux".to_owned(),
        architecture: info.architecture.clone(),
        index_server_address: INDEX_SERVER.to_owned(),
        registry_config: Some(registry::info(registries)),
        http_proxy: registry::masked(&registries.proxies.http),
        https_proxy: registry::masked(&registries.proxies.https),
        no_proxy: registries.proxies.no_proxy.clone(),
        ncpu: info.processors.into(),
        mem_total: signed(info.memory_bytes),
        docker_root_dir: info.data_root.clone(),
        name: info.hostname.clone(),
        labels: Some(info.labels.clone()),
        experimental_build: false,
        server_version: ENGINE_VERSION.to_owned(),
        runtimes: Some(
            info.runtimes
                .iter()
                .map(|name| {
                    let (path, args) = settings
                        .runtimes
                        .get(name)
                        .cloned()
                        .unwrap_or((name.clone(), Vec::new()));
                    let args = (!args.is_empty()).then_some(args);
                    (
                        name.clone(),
                        RuntimeInfo {
                            path,
                            runtime_args: args,
                            ..RuntimeInfo::default()
                        },
                    )
                })
                .collect(),
        ),
        default_runtime: info.default_runtime.clone(),
        swarm: SwarmInfo {
            local_node_state: "inactive".to_owned(),
            ..SwarmInfo::default()
        },
        // Containers run on without the daemon, always.
        live_restore_enabled: true,
        init_binary: "docker-init".to_owned(),
        containerd_commit: commit(),
        runc_commit: commit(),
        init_commit: commit(),
        security_options: Some(security),
        firewall_backend: (!version.is_before(49)).then(|| FirewallInfo {
            driver: if settings.network.firewall {
                "nftables".to_owned()
            } else {
                "none".to_owned()
            },
            info: None,
        }),
        default_address_pools: address_pools(&settings.network),
        cdi_spec_dirs: Some(Vec::new()),
        warnings: (!warnings.is_empty()).then_some(warnings),
        ..Info::default()
    }
}

/// The ranges that networks take their subnets from, if they were chosen.
fn address_pools(network: &crate::config::network::Network) -> Option<Vec<AddressPool>> {
    let pools = network.address_pools.iter().map(|pool| AddressPool {
        base: pool.base.to_string(),
        size: pool.size.into(),
    });
    Some(pools.collect()).filter(|all: &Vec<_>| !all.is_empty())
}

/// Docker's warnings about what the machine cannot do, in its order.
fn missing(
    info: &gantry_engine::system::Info,
    ipv4_forwarding: bool,
) -> impl Iterator<Item = String> + use<> {
    let support = &info.cgroups;
    let (v1, v2) = (info.cgroup_version == "1", info.cgroup_version == "2");
    let throttle = |v1_file: &'static str, v2_key: &'static str| {
        let what = if v2 {
            format!("No io.max ({v2_key}) support")
        } else {
            format!("No blkio throttle.{v1_file} support")
        };
        (support.blkio_throttle, what)
    };
    let no = |what: &str| format!("No {what} support");
    [
        (support.memory_limit, no("memory limit")),
        (support.swap_limit, no("swap limit")),
        (
            support.kernel_memory_tcp || !v1,
            no("kernel memory TCP limit"),
        ),
        (support.oom_kill_disable || !v1, no("oom kill disable")),
        (support.cpu_quota, no("cpu cfs quota")),
        (support.cpu_quota, no("cpu cfs period")),
        (support.cpu_shares, no("cpu shares")),
        (support.cpuset, no("cpuset")),
        // Version 1 has had no weight since Linux 5.0, and nobody can do anything about it.
        (support.blkio_weight || !v2, no("io.weight")),
        (support.blkio_weight || !v2, no("io.weight (per device)")),
        throttle("read_bps_device", "rbps"),
        throttle("write_bps_device", "wbps"),
        throttle("read_iops_device", "riops"),
        throttle("write_iops_device", "wiops"),
        (ipv4_forwarding, "IPv4 forwarding is disabled".to_owned()),
    ]
    .into_iter()
    .filter(|(supported, _)| !supported)
    .map(|(_, what)| format!("WARNING: {what}"))
}

fn is_one(path: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_cannot_do_is_said_as_docker_does() {
        let mut info = gantry_engine::system::Info {
            cgroup_version: "2",
            ..Default::default()
        };
        info.cgroups.memory_limit = true;
        info.cgroups.cpu_quota = true;
        info.cgroups.cpu_shares = true;
        info.cgroups.blkio_weight = true;
        let said = |info: &gantry_engine::system::Info| missing(info, false).collect::<Vec<_>>();
        assert_eq!(
            said(&info),
            [
                "WARNING: No swap limit support",
                "WARNING: No cpuset support",
                "WARNING: No io.max (rbps) support",
                "WARNING: No io.max (wbps) support",
                "WARNING: No io.max (riops) support",
                "WARNING: No io.max (wiops) support",
                "WARNING: IPv4 forwarding is disabled",
            ]
        );
        info.cgroup_version = "1";
        let first = &said(&info)[1..3];
        assert_eq!(
            first,
            [
                "WARNING: No kernel memory TCP limit support",
                "WARNING: No oom kill disable support"
            ]
        );
    }

    #[test]
    fn the_version_names_the_range_that_is_served() {
        let version = serde_json::to_value(version("6.18.0", "x86_64")).unwrap();
        assert_eq!(version["ApiVersion"], "1.51");
        assert_eq!(version["MinAPIVersion"], "1.24");
        assert_eq!(version["Arch"], "amd64");
        assert_eq!(version["Components"][0]["Name"], "Engine");
    }
}
