//! Wire types of the engine as a whole: info, version, disk usage.

use crate::container::ContainerSummary;
use crate::image::ImageSummary;
use crate::volume::Volume;
use crate::wire::wire;
use std::collections::BTreeMap;

wire! {
    /// Names the product.
    pub struct VersionPlatform {
        name: String,
    }

    /// Is one part of the engine.
    pub struct ComponentVersion {
        name: String,
        version: String,
        details: Option<BTreeMap<String, String>> = omitempty,
    }

    /// Answers `GET /version`.
    pub struct Version {
        platform: VersionPlatform,
        components: Option<Vec<ComponentVersion>> = omitempty,
        version: String,
        api_version: String,
        #[serde(rename = "MinAPIVersion")]
        min_api_version: String = omitempty,
        git_commit: String,
        go_version: String,
        os: String,
        arch: String,
        kernel_version: String = omitempty,
        experimental: bool = omitempty,
        build_time: String = omitempty,
    }

    /// Names the plugins by kind.
    pub struct PluginsInfo {
        volume: Option<Vec<String>>,
        network: Option<Vec<String>>,
        authorization: Option<Vec<String>>,
        log: Option<Vec<String>>,
    }

    /// Is one registry's settings.
    pub struct IndexInfo {
        name: String,
        mirrors: Option<Vec<String>>,
        secure: bool,
        official: bool,
    }

    /// Is what the daemon knows of registries.
    pub struct RegistryServiceConfig {
        #[serde(rename = "AllowNondistributableArtifactsCIDRs")]
        allow_nondistributable_artifacts_cidrs: Option<Vec<String>> = omitempty,
        allow_nondistributable_artifacts_hostnames: Option<Vec<String>> = omitempty,
        #[serde(rename = "InsecureRegistryCIDRs")]
        insecure_registry_cidrs: Option<Vec<String>>,
        index_configs: Option<BTreeMap<String, IndexInfo>>,
        mirrors: Option<Vec<String>>,
    }

    /// Is swarm's state; this engine is never part of one.
    pub struct SwarmInfo {
        #[serde(rename = "NodeID")]
        node_id: String,
        node_addr: String,
        local_node_state: String,
        control_available: bool,
        error: String,
        remote_managers: Option<Vec<serde_json::Value>>,
    }

    /// Is an OCI runtime that containers may ask for by name.
    pub struct RuntimeInfo {
        #[serde(rename = "path")]
        path: String = omitempty,
        #[serde(rename = "runtimeArgs")]
        runtime_args: Option<Vec<String>> = omitempty,
        #[serde(rename = "runtimeType")]
        runtime_type: String = omitempty,
        #[serde(rename = "options")]
        options: Option<serde_json::Value> = omitempty,
        #[serde(rename = "status")]
        status: Option<BTreeMap<String, String>> = omitempty,
    }

    /// Is a commit's id, and before 1.49 what was expected.
    pub struct Commit {
        #[serde(rename = "ID")]
        id: String,
        expected: String = omitempty,
    }

    /// Is a range that networks take their subnets from.
    pub struct AddressPool {
        base: String,
        size: i64,
    }

    /// Names the firewall's backend.
    pub struct FirewallInfo {
        driver: String,
        info: Option<Vec<[String; 2]>> = omitempty,
    }

    /// Names containerd's socket and namespaces.
    pub struct ContainerdInfo {
        address: String = omitempty,
        namespaces: ContainerdNamespaces,
    }

    /// Names containerd's namespaces.
    pub struct ContainerdNamespaces {
        containers: String,
        plugins: String,
    }

    /// Answers `GET /info`.
    pub struct Info {
        #[serde(rename = "ID")]
        id: String,
        containers: i64,
        containers_running: i64,
        containers_paused: i64,
        containers_stopped: i64,
        images: i64,
        driver: String,
        driver_status: Option<Vec<[String; 2]>>,
        system_status: Option<Vec<[String; 2]>> = omitempty,
        plugins: PluginsInfo,
        memory_limit: bool,
        swap_limit: bool,
        kernel_memory: bool = omitempty,
        #[serde(rename = "KernelMemoryTCP")]
        kernel_memory_tcp: bool = omitempty,
        cpu_cfs_period: bool,
        cpu_cfs_quota: bool,
        #[serde(rename = "CPUShares")]
        cpu_shares: bool,
        #[serde(rename = "CPUSet")]
        cpu_set: bool,
        pids_limit: bool,
        #[serde(rename = "IPv4Forwarding")]
        ipv4_forwarding: bool,
        bridge_nf_iptables: Option<bool> = omitempty,
        #[serde(rename = "BridgeNfIp6tables")]
        bridge_nf_ip6tables: Option<bool> = omitempty,
        debug: bool,
        #[serde(rename = "NFd")]
        n_fd: i64,
        oom_kill_disable: bool,
        n_goroutines: i64,
        system_time: String,
        logging_driver: String,
        cgroup_driver: String,
        cgroup_version: String = omitempty,
        n_events_listener: i64,
        kernel_version: String,
        operating_system: String,
        #[serde(rename = "OSVersion")]
        os_version: String,
        #[serde(rename = "OSType")]
        os_type: String,
        architecture: String,
        index_server_address: String,
        registry_config: Option<RegistryServiceConfig>,
        #[serde(rename = "NCPU")]
        ncpu: i64,
        mem_total: i64,
        generic_resources: Option<Vec<serde_json::Value>>,
        docker_root_dir: String,
        http_proxy: String,
        https_proxy: String,
        no_proxy: String,
        name: String,
        labels: Option<Vec<String>>,
        experimental_build: bool,
        server_version: String,
        cluster_store: String = omitempty,
        cluster_advertise: String = omitempty,
        runtimes: Option<BTreeMap<String, RuntimeInfo>>,
        default_runtime: String,
        swarm: SwarmInfo,
        live_restore_enabled: bool,
        isolation: String,
        init_binary: String,
        containerd_commit: Commit,
        runc_commit: Commit,
        init_commit: Commit,
        security_options: Option<Vec<String>>,
        product_license: String = omitempty,
        default_address_pools: Option<Vec<AddressPool>> = omitempty,
        firewall_backend: Option<FirewallInfo> = omitempty,
        #[serde(rename = "CDISpecDirs")]
        cdi_spec_dirs: Option<Vec<String>>,
        discovered_devices: Option<Vec<serde_json::Value>> = omitempty,
        containerd: Option<ContainerdInfo> = omitempty,
        warnings: Option<Vec<String>>,
    }

    /// Is one record of the build cache.
    pub struct BuildCacheRecord {
        #[serde(rename = "ID")]
        id: String,
        parent: String = omitempty,
        parents: Option<Vec<String>> = omitempty,
        #[serde(rename = "Type")]
        kind: String,
        description: String,
        in_use: bool,
        shared: bool,
        size: i64,
        created_at: crate::time::Timestamp,
        last_used_at: Option<crate::time::Timestamp>,
        usage_count: i64,
    }

    /// Answers `GET /system/df`; what was not asked for is `null`.
    pub struct DiskUsage {
        layers_size: i64,
        images: Option<Vec<ImageSummary>>,
        containers: Option<Vec<ContainerSummary>>,
        volumes: Option<Vec<Volume>>,
        build_cache: Option<Vec<BuildCacheRecord>>,
        builder_size: Option<i64> = omitempty,
    }

    /// Answers build prune.
    pub struct BuildCachePruneReport {
        caches_deleted: Option<Vec<String>>,
        space_reclaimed: u64,
    }
}
