//! Requests of clients, old and new.

use super::*;

use crate::server::version::MAX;

fn check(body: &str, version: ApiVersion) -> Result<CreateOptions, String> {
    let body = serde_json::from_str(body).unwrap();
    options(body, Some("n"), None, version).map_err(|error| error.message)
}

fn host(host: &str, minor: u8) -> Result<HostConfig, String> {
    let body = format!(r#"{{"Image":"i","HostConfig":{host}}}"#);
    check(&body, ApiVersion::minor(minor)).map(|options| options.host)
}

#[test]
fn fields_are_taken_over() {
    let options = check(
        r#"{"Image":"busybox","Cmd":"true","ExposedPorts":{"80/tcp":{}},"Volumes":{"/v":{}},
            "HostConfig":{"Binds":["/a:/b"],"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]},
            "RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3},"Memory":1048576,"PidsLimit":0,
            "MemorySwappiness":-1,"Ulimits":[{"Name":"nofile","Hard":2,"Soft":1}],
            "Mounts":[{"Type":"tmpfs","Target":"/t"}]},
            "NetworkingConfig":{"EndpointsConfig":{"default":{"IPAMConfig":null}}}}"#,
        MAX,
    )
    .unwrap();
    assert_eq!(options.config.cmd, Some(vec!["true".to_owned()]));
    assert_eq!(options.config.volumes.iter().collect::<Vec<_>>(), ["/v"]);
    assert_eq!(options.host.binds, ["/a:/b"]);
    assert_eq!(options.host.port_bindings.len(), 1);
    assert_eq!(options.host.restart_policy.maximum_retry_count, 3);
    assert_eq!(options.host.resources.memory_bytes, 1 << 20);
    assert_eq!(options.host.resources.pids_limit, None);
    assert_eq!(options.host.resources.memory_swappiness, None);
    assert_eq!(options.host.ulimits[0].soft, 1);
    assert_eq!(options.host.mounts[0].target, "/t");
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (fields, want) in [
        (
            r#"{"DeviceRequests":[{"Count":-1}]}"#,
            "HostConfig.DeviceRequests is not supported by this engine",
        ),
        (
            r#"{"StorageOpt":{"size":"1G"}}"#,
            "HostConfig.StorageOpt is not supported by this engine",
        ),
        (
            r#"{"CpuPercent":5}"#,
            "HostConfig.CpuPercent is not supported by this engine",
        ),
        (
            r#"{"Isolation":"hyperv"}"#,
            "invalid isolation (hyperv): linux only supports 'default'",
        ),
        (
            r#"{"AutoRemove":true,"RestartPolicy":{"Name":"always"}}"#,
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            r#"{"RestartPolicy":{"Name":"never"}}"#,
            "invalid restart policy: unknown policy 'never'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        ),
        (
            r#"{"RestartPolicy":{"Name":"always","MaximumRetryCount":2}}"#,
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
    ] {
        assert_eq!(host(fields, 51).unwrap_err(), want, "{fields}");
    }
    for (body, want) in [
        (
            "{}",
            "config cannot be empty in order to create a container",
        ),
        (
            r#"{"Image":"i","MacAddress":"02:00:00:00:00:01","NetworkingConfig":{"EndpointsConfig":{"default":{"MacAddress":"02:00:00:00:00:02"}}}}"#,
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty",
        ),
        (
            r#"{"Image":"i","Healthcheck":{"Test":["CMD","true"]}}"#,
            "Healthcheck is not supported by this engine",
        ),
    ] {
        assert_eq!(check(body, MAX).unwrap_err(), want, "{body}");
    }
    assert!(check(r#"{"Image":"i","Healthcheck":{"Test":["NONE"]}}"#, MAX).is_ok());
}

#[test]
fn older_clients_get_their_defaults() {
    assert_eq!(host("{}", 39).unwrap().ipc_mode, "shareable");
    assert_eq!(host("{}", 40).unwrap().ipc_mode, "");
    assert_eq!(host("{}", 40).unwrap().cgroupns_mode, "host");
    assert_eq!(host("{}", 41).unwrap().cgroupns_mode, "");
    let bind = r#"{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}]}"#;
    assert!(host(bind, 43).unwrap().mounts[0].bind_read_only_non_recursive);
    assert!(!host(bind, 44).unwrap().mounts[0].bind_read_only_non_recursive);
    assert_eq!(
        host(r#"{"ConsoleSize":[24,80]}"#, 41).unwrap().console_size,
        [0, 0]
    );
    assert_eq!(
        host(r#"{"ConsoleSize":[24,80]}"#, 42).unwrap().console_size,
        [24, 80]
    );
}

#[test]
fn older_clients_create_with_one_network() {
    let two = r#"{"Image":"i","NetworkingConfig":{"EndpointsConfig":{"b":{},"a":null}}}"#;
    assert_eq!(
        check(two, ApiVersion::minor(43)).unwrap_err(),
        "Container cannot be created with multiple network endpoints: a, b"
    );
    assert_eq!(check(two, ApiVersion::minor(44)).unwrap().networks.len(), 2);
}
