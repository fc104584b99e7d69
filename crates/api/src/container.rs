//! Wire types of containers: what `POST /containers/create` takes, what list and inspect give, and the small replies.
//!
//! Field order is the order on the wire, because `docker inspect` prints what it receives. Validation is the engine's.

use crate::network::{EndpointSettings, NetworkingConfig};
use crate::time::Timestamp;
use crate::wire::{KeySet, StringList, wire};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Maps `port/protocol` to where it is bound on the host; a `null` list is an exposed, unpublished port.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

wire! {
    /// Is what does not depend on the host: image, command, environment.
    pub struct Config {
        hostname: String,
        domainname: String,
        user: String,
        attach_stdin: bool,
        attach_stdout: bool,
        attach_stderr: bool,
        exposed_ports: KeySet = omitempty,
        tty: bool,
        open_stdin: bool,
        stdin_once: bool,
        env: Option<Vec<String>>,
        cmd: Option<StringList>,
        healthcheck: Option<HealthConfig> = omitempty,
        args_escaped: bool = omitempty,
        image: String,
        volumes: Option<KeySet>,
        working_dir: String,
        entrypoint: Option<StringList>,
        network_disabled: bool = omitempty,
        mac_address: String = omitempty,
        on_build: Option<Vec<String>>,
        labels: Option<BTreeMap<String, String>>,
        stop_signal: String = omitempty,
        /// Seconds; -1 waits for ever.
        stop_timeout: Option<i64> = omitempty,
        shell: Option<StringList> = omitempty,
    }

    /// Says how to tell whether a container is healthy; times are nanoseconds, 0 inherits.
    pub struct HealthConfig {
        test: Option<Vec<String>> = omitempty,
        interval: i64 = omitempty,
        timeout: i64 = omitempty,
        start_period: i64 = omitempty,
        start_interval: i64 = omitempty,
        retries: i64 = omitempty,
    }

    /// Names a log driver and its options.
    pub struct LogConfig {
        #[serde(rename = "Type")]
        kind: String,
        config: Option<BTreeMap<String, String>>,
    }

    /// Says when a container is started again by itself.
    pub struct RestartPolicy {
        name: String,
        maximum_retry_count: i64,
    }

    /// Is one place on the host where a port is bound; an empty port asks for any.
    pub struct PortBinding {
        host_ip: String,
        host_port: String,
    }

    /// Weighs one block device.
    pub struct WeightDevice {
        path: String,
        weight: u16,
    }

    /// Limits one block device.
    pub struct ThrottleDevice {
        path: String,
        rate: u64,
    }

    /// Gives a container one device of the host.
    pub struct DeviceMapping {
        path_on_host: String,
        path_in_container: String,
        cgroup_permissions: String,
    }

    /// Asks a device driver for devices.
    pub struct DeviceRequest {
        driver: String,
        count: i64,
        #[serde(rename = "DeviceIDs")]
        device_ids: Option<Vec<String>>,
        capabilities: Option<Vec<Vec<String>>>,
        options: Option<BTreeMap<String, String>>,
    }

    /// Is one resource limit of setrlimit(2), by name without `RLIMIT_`.
    pub struct Ulimit {
        name: String,
        hard: i64,
        soft: i64,
    }

    /// Is what the cgroups limit, and the devices.
    pub struct Resources {
        cpu_shares: i64,
        memory: i64,
        nano_cpus: i64,
        cgroup_parent: String,
        blkio_weight: u16,
        blkio_weight_device: Option<Vec<WeightDevice>>,
        blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
        blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
        #[serde(rename = "BlkioDeviceReadIOps")]
        blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
        #[serde(rename = "BlkioDeviceWriteIOps")]
        blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
        /// Microseconds.
        cpu_period: i64,
        /// Microseconds.
        cpu_quota: i64,
        cpu_realtime_period: i64,
        cpu_realtime_runtime: i64,
        cpuset_cpus: String,
        cpuset_mems: String,
        devices: Option<Vec<DeviceMapping>>,
        device_cgroup_rules: Option<Vec<String>>,
        device_requests: Option<Vec<DeviceRequest>>,
        kernel_memory: i64 = omitempty,
        #[serde(rename = "KernelMemoryTCP")]
        kernel_memory_tcp: i64 = omitempty,
        memory_reservation: i64,
        memory_swap: i64,
        memory_swappiness: Option<i64>,
        oom_kill_disable: Option<bool>,
        pids_limit: Option<i64>,
        ulimits: Option<Vec<Ulimit>>,
        cpu_count: i64,
        cpu_percent: i64,
        #[serde(rename = "IOMaximumIOps")]
        io_maximum_iops: u64,
        #[serde(rename = "IOMaximumBandwidth")]
        io_maximum_bandwidth: u64,
    }

    /// Is what depends on the host: binds, ports, limits, privileges.
    pub struct HostConfig {
        binds: Option<Vec<String>>,
        #[serde(rename = "ContainerIDFile")]
        container_id_file: String,
        log_config: LogConfig,
        network_mode: String,
        port_bindings: Option<PortMap>,
        restart_policy: RestartPolicy,
        auto_remove: bool,
        volume_driver: String,
        volumes_from: Option<Vec<String>>,
        /// Rows and columns.
        console_size: [u32; 2],
        annotations: Option<BTreeMap<String, String>> = omitempty,
        cap_add: Option<StringList>,
        cap_drop: Option<StringList>,
        cgroupns_mode: String,
        dns: Option<Vec<String>>,
        dns_options: Option<Vec<String>>,
        dns_search: Option<Vec<String>>,
        extra_hosts: Option<Vec<String>>,
        group_add: Option<Vec<String>>,
        ipc_mode: String,
        cgroup: String,
        links: Option<Vec<String>>,
        oom_score_adj: i64,
        pid_mode: String,
        privileged: bool,
        publish_all_ports: bool,
        readonly_rootfs: bool,
        security_opt: Option<Vec<String>>,
        storage_opt: Option<BTreeMap<String, String>> = omitempty,
        tmpfs: Option<BTreeMap<String, String>> = omitempty,
        #[serde(rename = "UTSMode")]
        uts_mode: String,
        userns_mode: String,
        /// Bytes.
        shm_size: i64,
        sysctls: Option<BTreeMap<String, String>> = omitempty,
        runtime: String = omitempty,
        isolation: String,
        @flatten resources: Resources,
        mounts: Option<Vec<MountSpec>> = omitempty,
        masked_paths: Option<Vec<String>>,
        readonly_paths: Option<Vec<String>>,
        init: Option<bool> = omitempty,
    }

    /// Asks for one mount.
    pub struct MountSpec {
        #[serde(rename = "Type")]
        kind: String = omitempty,
        source: String = omitempty,
        target: String = omitempty,
        read_only: bool = omitempty,
        consistency: String = omitempty,
        bind_options: Option<BindOptions> = omitempty,
        volume_options: Option<VolumeOptions> = omitempty,
        image_options: Option<ImageOptions> = omitempty,
        tmpfs_options: Option<TmpfsOptions> = omitempty,
        cluster_options: Option<ClusterOptions> = omitempty,
    }

    /// Belongs to mounts of the type `bind`.
    pub struct BindOptions {
        propagation: String = omitempty,
        non_recursive: bool = omitempty,
        create_mountpoint: bool = omitempty,
        read_only_non_recursive: bool = omitempty,
        read_only_force_recursive: bool = omitempty,
    }

    /// Belongs to mounts of the type `volume`.
    pub struct VolumeOptions {
        no_copy: bool = omitempty,
        labels: Option<BTreeMap<String, String>> = omitempty,
        subpath: String = omitempty,
        driver_config: Option<DriverConfig> = omitempty,
    }

    /// Names a volume driver and its options.
    pub struct DriverConfig {
        name: String = omitempty,
        options: Option<BTreeMap<String, String>> = omitempty,
    }

    /// Belongs to mounts of the type `image`.
    pub struct ImageOptions {
        subpath: String = omitempty,
    }

    /// Belongs to mounts of the type `tmpfs`.
    pub struct TmpfsOptions {
        size_bytes: i64 = omitempty,
        mode: u32 = omitempty,
        options: Option<Vec<Vec<String>>> = omitempty,
    }

    /// Belongs to mounts of the type `cluster`; it has no fields.
    pub struct ClusterOptions {}

    /// Is the body of `POST /containers/create`.
    pub struct ContainerCreateRequest {
        @flatten config: Config,
        host_config: Option<HostConfig>,
        networking_config: Option<NetworkingConfig>,
    }

    /// Answers create.
    pub struct CreateResponse {
        id: String,
        warnings: Vec<String>,
    }

    /// Is one entry of `GET /containers/json`.
    pub struct ContainerSummary {
        id: String,
        names: Option<Vec<String>>,
        image: String,
        #[serde(rename = "ImageID")]
        image_id: String,
        image_manifest_descriptor: Option<serde_json::Value> = omitempty,
        command: String,
        /// Seconds since 1970.
        created: i64,
        ports: Vec<PortSummary>,
        size_rw: i64 = omitempty,
        size_root_fs: i64 = omitempty,
        labels: Option<BTreeMap<String, String>>,
        state: String,
        status: String,
        host_config: SummaryHostConfig,
        network_settings: Option<SummaryNetworkSettings>,
        mounts: Vec<MountPoint>,
    }

    /// Is the part of the host configuration that the list shows.
    pub struct SummaryHostConfig {
        network_mode: String = omitempty,
        annotations: Option<BTreeMap<String, String>> = omitempty,
    }

    /// Is the part of the network settings that the list shows.
    pub struct SummaryNetworkSettings {
        networks: Option<BTreeMap<String, Option<EndpointSettings>>>,
    }

    /// Is one port in the list.
    pub struct PortSummary {
        #[serde(rename = "IP")]
        ip: String = omitempty,
        private_port: u16,
        public_port: u16 = omitempty,
        #[serde(rename = "Type")]
        kind: String,
    }

    /// Is one mount as it stands in a container.
    pub struct MountPoint {
        #[serde(rename = "Type")]
        kind: String = omitempty,
        name: String = omitempty,
        source: String,
        destination: String,
        driver: String = omitempty,
        mode: String,
        #[serde(rename = "RW")]
        rw: bool,
        propagation: String,
    }

    /// Is the state of a container.
    pub struct State {
        /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
        status: String,
        running: bool,
        paused: bool,
        restarting: bool,
        #[serde(rename = "OOMKilled")]
        oom_killed: bool,
        dead: bool,
        pid: i64,
        exit_code: i64,
        error: String,
        started_at: Timestamp,
        finished_at: Timestamp,
        health: Option<Health> = omitempty,
    }

    /// Is what the health checks found.
    pub struct Health {
        /// `starting`, `healthy` or `unhealthy`.
        status: String,
        failing_streak: i64,
        log: Option<Vec<HealthResult>>,
    }

    /// Is one health check's result.
    pub struct HealthResult {
        start: Timestamp,
        end: Timestamp,
        exit_code: i64,
        output: String,
    }

    /// Says where the layers lie.
    pub struct DriverData {
        data: Option<BTreeMap<String, String>>,
        name: String,
    }

    /// Is an address in CIDR form, in two fields.
    pub struct Address {
        addr: String,
        prefix_len: i64,
    }

    /// Is the network state of a container. The fields from `bridge` to `mac_address`, but for the sandbox and the
    /// ports, repeat the default bridge's endpoint for old clients.
    pub struct NetworkSettings {
        bridge: String,
        #[serde(rename = "SandboxID")]
        sandbox_id: String,
        sandbox_key: String,
        ports: PortMap,
        hairpin_mode: bool,
        #[serde(rename = "LinkLocalIPv6Address")]
        link_local_ipv6_address: String,
        #[serde(rename = "LinkLocalIPv6PrefixLen")]
        link_local_ipv6_prefix_len: i64,
        #[serde(rename = "SecondaryIPAddresses")]
        secondary_ip_addresses: Option<Vec<Address>>,
        #[serde(rename = "SecondaryIPv6Addresses")]
        secondary_ipv6_addresses: Option<Vec<Address>>,
        #[serde(rename = "EndpointID")]
        endpoint_id: String,
        gateway: String,
        #[serde(rename = "GlobalIPv6Address")]
        global_ipv6_address: String,
        #[serde(rename = "GlobalIPv6PrefixLen")]
        global_ipv6_prefix_len: i64,
        #[serde(rename = "IPAddress")]
        ip_address: String,
        #[serde(rename = "IPPrefixLen")]
        ip_prefix_len: i64,
        #[serde(rename = "IPv6Gateway")]
        ipv6_gateway: String,
        mac_address: String,
        networks: Option<BTreeMap<String, Option<EndpointSettings>>>,
    }

    /// Answers `GET /containers/{id}/json`.
    pub struct ContainerInspect {
        id: String,
        created: Timestamp,
        path: String,
        args: Vec<String>,
        state: State,
        image: String,
        resolv_conf_path: String,
        hostname_path: String,
        hosts_path: String,
        log_path: String,
        /// Has a leading slash.
        name: String,
        restart_count: i64,
        driver: String,
        platform: String,
        mount_label: String,
        process_label: String,
        app_armor_profile: String,
        #[serde(rename = "ExecIDs")]
        exec_ids: Option<Vec<String>>,
        host_config: HostConfig,
        graph_driver: DriverData,
        size_rw: Option<i64> = omitempty,
        size_root_fs: Option<i64> = omitempty,
        mounts: Vec<MountPoint>,
        config: Config,
        network_settings: NetworkSettings,
        image_manifest_descriptor: Option<serde_json::Value> = omitempty,
    }

    /// Answers top: the columns' titles and the rows.
    pub struct TopResponse {
        processes: Option<Vec<Vec<String>>>,
        titles: Option<Vec<String>>,
    }

    /// Answers wait.
    pub struct WaitResponse {
        error: Option<WaitError> = omitempty,
        status_code: i64,
    }

    /// Says why waiting failed.
    pub struct WaitError {
        message: String = omitempty,
    }

    /// Is the body of update.
    pub struct UpdateRequest {
        @flatten resources: Resources,
        restart_policy: RestartPolicy,
    }

    /// Answers update.
    pub struct UpdateResponse {
        warnings: Option<Vec<String>>,
    }

    /// Answers prune.
    pub struct ContainersPruneReport {
        containers_deleted: Option<Vec<String>>,
        space_reclaimed: u64,
    }

    /// Is one changed path of a container.
    pub struct FilesystemChange {
        /// 0 modified, 1 added, 2 deleted.
        kind: u8,
        path: String,
    }

    /// Answers commit.
    pub struct IdResponse {
        id: String,
    }
}

/// Describes a path for `docker cp`; travels as base64 JSON in `X-Docker-Container-Path-Stat`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PathStat {
    pub name: String,
    pub size: i64,
    /// Go's `os.FileMode`: the permission bits, and the type in the high bits.
    pub mode: u32,
    pub mtime: Timestamp,
    #[serde(rename = "linkTarget")]
    pub link_target: String,
}

/// Is one sample of `GET /containers/{id}/stats`.
pub mod stats {
    use crate::time::Timestamp;
    use serde::{Deserialize, Serialize};
    use std::collections::BTreeMap;

    /// Counts processor time, nanoseconds.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default)]
    pub struct CpuUsage {
        pub total_usage: u64,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub percpu_usage: Vec<u64>,
        pub usage_in_kernelmode: u64,
        pub usage_in_usermode: u64,
    }

    /// Counts how often the quota held the processes back.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default)]
    pub struct ThrottlingData {
        pub periods: u64,
        pub throttled_periods: u64,
        pub throttled_time: u64,
    }

    /// Is the processor part of a sample.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default)]
    pub struct CpuStats {
        pub cpu_usage: CpuUsage,
        #[serde(skip_serializing_if = "crate::wire::is_zero")]
        pub system_cpu_usage: u64,
        #[serde(skip_serializing_if = "crate::wire::is_zero")]
        pub online_cpus: u32,
        pub throttling_data: ThrottlingData,
    }

    /// Is the memory part of a sample, bytes.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default)]
    pub struct MemoryStats {
        #[serde(skip_serializing_if = "crate::wire::is_zero")]
        pub usage: u64,
        #[serde(skip_serializing_if = "crate::wire::is_zero")]
        pub max_usage: u64,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub stats: BTreeMap<String, u64>,
        #[serde(skip_serializing_if = "crate::wire::is_zero")]
        pub failcnt: u64,
        #[serde(skip_serializing_if = "crate::wire::is_zero")]
        pub limit: u64,
    }

    /// Counts one operation on one block device.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default)]
    pub struct BlkioEntry {
        pub major: u64,
        pub minor: u64,
        pub op: String,
        pub value: u64,
    }

    /// Is the block device part of a sample; `null` where the kernel does not count.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default)]
    pub struct BlkioStats {
        pub io_service_bytes_recursive: Option<Vec<BlkioEntry>>,
        pub io_serviced_recursive: Option<Vec<BlkioEntry>>,
        pub io_queue_recursive: Option<Vec<BlkioEntry>>,
        pub io_service_time_recursive: Option<Vec<BlkioEntry>>,
        pub io_wait_time_recursive: Option<Vec<BlkioEntry>>,
        pub io_merged_recursive: Option<Vec<BlkioEntry>>,
        pub io_time_recursive: Option<Vec<BlkioEntry>>,
        pub sectors_recursive: Option<Vec<BlkioEntry>>,
    }

    /// Counts processes.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default)]
    pub struct PidsStats {
        #[serde(skip_serializing_if = "crate::wire::is_zero")]
        pub current: u64,
        #[serde(skip_serializing_if = "crate::wire::is_zero")]
        pub limit: u64,
    }

    /// Counts one interface's traffic.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default)]
    pub struct NetworkStats {
        pub rx_bytes: u64,
        pub rx_packets: u64,
        pub rx_errors: u64,
        pub rx_dropped: u64,
        pub tx_bytes: u64,
        pub tx_packets: u64,
        pub tx_errors: u64,
        pub tx_dropped: u64,
    }

    /// Is always empty on Linux; the API shows it.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    pub struct StorageStats {}

    /// Is one sample.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default)]
    pub struct StatsResponse {
        #[serde(skip_serializing_if = "String::is_empty")]
        pub name: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        pub id: String,
        pub read: Timestamp,
        pub preread: Timestamp,
        pub pids_stats: PidsStats,
        pub blkio_stats: BlkioStats,
        pub num_procs: u32,
        pub storage_stats: StorageStats,
        pub cpu_stats: CpuStats,
        pub precpu_stats: CpuStats,
        pub memory_stats: MemoryStats,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub networks: BTreeMap<String, NetworkStats>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_lines_create_body_is_read_and_written_back_alike() {
        // As `docker create busybox` of 28.2.2 sends it.
        let body = r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":true,"AttachStderr":true,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":["true"],"Image":"busybox","Volumes":{},"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":{},"HostConfig":{"Binds":null,"ContainerIDFile":"","LogConfig":{"Type":"","Config":{}},"NetworkMode":"default","PortBindings":{},"RestartPolicy":{"Name":"no","MaximumRetryCount":0},"AutoRemove":true,"VolumeDriver":"","VolumesFrom":null,"ConsoleSize":[0,0],"CapAdd":null,"CapDrop":null,"CgroupnsMode":"","Dns":[],"DnsOptions":[],"DnsSearch":[],"ExtraHosts":null,"GroupAdd":null,"IpcMode":"","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"","Privileged":false,"PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"","UsernsMode":"","ShmSize":0,"Isolation":"","CpuShares":0,"Memory":0,"NanoCpus":0,"CgroupParent":"","BlkioWeight":0,"BlkioWeightDevice":[],"BlkioDeviceReadBps":[],"BlkioDeviceWriteBps":[],"BlkioDeviceReadIOps":[],"BlkioDeviceWriteIOps":[],"CpuPeriod":0,"CpuQuota":0,"CpuRealtimePeriod":0,"CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":[],"DeviceCgroupRules":null,"DeviceRequests":null,"MemoryReservation":0,"MemorySwap":0,"MemorySwappiness":-1,"OomKillDisable":false,"PidsLimit":0,"Ulimits":[],"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0,"MaskedPaths":null,"ReadonlyPaths":null},"NetworkingConfig":{"EndpointsConfig":{"default":{"IPAMConfig":null,"Links":null,"Aliases":null,"MacAddress":"","DriverOpts":null,"GwPriority":0,"NetworkID":"","EndpointID":"","Gateway":"","IPAddress":"","IPPrefixLen":0,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":null}}}}"#;
        let request: ContainerCreateRequest = serde_json::from_str(body).unwrap();
        assert!(request.host_config.as_ref().unwrap().auto_remove);
        assert_eq!(
            request
                .host_config
                .as_ref()
                .unwrap()
                .resources
                .memory_swappiness,
            Some(-1)
        );
        assert_eq!(serde_json::to_string(&request).unwrap(), body);
    }

    #[test]
    fn wait_leaves_no_error_out() {
        assert_eq!(
            serde_json::to_string(&WaitResponse::default()).unwrap(),
            r#"{"StatusCode":0}"#
        );
    }

    #[test]
    fn times_of_a_new_container_are_gos_zero() {
        let state = serde_json::to_value(State::default()).unwrap();
        assert_eq!(state["StartedAt"], "0001-01-01T00:00:00Z");
        assert!(state.get("Health").is_none());
    }
}
