//! The flags of `run` and `create` turned into the body of a create request: the JSON that Docker's client sends, with
//! its zero values and nulls, and its refusals.

use super::network::Companions;
use super::{devices, environment, limits, mount, network, ports, volume};
use crate::grammar::Matches;
use crate::grammar::values::{parse_duration, parse_nano_cpus, parse_swap_bytes, quote};
use gantry_client::config::Proxy;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// Checks a value of a flag of type `list` when it is read.
pub fn check_list(flag: &str, value: &str) -> Result<(), String> {
    match flag {
        "env" => {
            let name = value.split('=').next().unwrap_or_default();
            if name.is_empty() {
                Err(format!("invalid environment variable: {value}"))
            } else {
                Ok(())
            }
        }
        "label" => check_label(value),
        "attach" => {
            let stream = value.to_lowercase();
            let known = matches!(stream.as_str(), "stdin" | "stdout" | "stderr");
            if known {
                Ok(())
            } else {
                Err("valid streams are STDIN, STDOUT and STDERR".to_owned())
            }
        }
        "add-host" => check_host(value),
        "link" => check_link(value),
        "dns" => match value.trim().parse::<IpAddr>() {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("IP address is not correctly formatted: {value}")),
        },
        "dns-search" => check_domain(value),
        "blkio-weight-device" => limits::parse_weight(value).map(drop),
        "device-read-bps" | "device-write-bps" => limits::parse_byte_rate(value).map(drop),
        "device-read-iops" | "device-write-iops" => limits::parse_operation_rate(value).map(drop),
        "device-cgroup-rule" => devices::check_cgroup_rule(value),
        _ => Ok(()),
    }
}

/// Checks a value of a flag of type `map` when it is read.
pub fn check_map(flag: &str, value: &str) -> Result<(), String> {
    if flag != "sysctl" {
        return Ok(());
    }
    let refused = || Err(format!("sysctl '{value}' is not allowed"));
    const NAMED: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let Some((name, _)) = value.split_once('=') else {
        return refused();
    };
    if NAMED.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.") {
        Ok(())
    } else {
        refused()
    }
}

fn check_label(value: &str) -> Result<(), String> {
    let key = value
        .split('=')
        .next()
        .unwrap_or_default()
        .trim_start_matches([' ', '\t']);
    if key.is_empty() {
        return Err(format!("invalid label '{value}': empty name"));
    }
    if key.contains([' ', '\t']) {
        return Err(format!("label '{key}' contains whitespaces"));
    }
    Ok(())
}

fn check_host(value: &str) -> Result<(), String> {
    let (name, address) = split_host(value);
    let (Some(address), false) = (address, name.is_empty()) else {
        return Err(format!("bad format for add-host: {}", quote(value)));
    };
    if address == "host-gateway" || unbracketed(address).parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(format!(
        "invalid IP address in add-host: {}",
        quote(address)
    ))
}

fn split_host(value: &str) -> (&str, Option<&str>) {
    match value.split_once('=').or_else(|| value.split_once(':')) {
        Some((name, address)) => (name, Some(address)),
        None => (value, None),
    }
}

fn unbracketed(address: &str) -> &str {
    address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(address)
}

/// Turns `name=address` and brackets into the form `name:address` that the daemon stores.
fn plain_host(value: &str) -> String {
    match split_host(value) {
        (name, Some(address)) => format!("{name}:{}", unbracketed(address)),
        _ => value.to_owned(),
    }
}

fn check_link(value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("empty string specified for links".to_owned());
    }
    if value.split(':').count() > 2 {
        Err(format!("bad format for links: {value}"))
    } else {
        Ok(())
    }
}

fn check_domain(value: &str) -> Result<(), String> {
    let domain = value.trim().trim_end_matches('.');
    if value.trim() == "." {
        return Ok(());
    }
    let label = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && text.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
    };
    let has_letter = domain.chars().any(|c| c.is_ascii_alphabetic());
    if domain.len() < 255 && has_letter && domain.split('.').all(label) {
        Ok(())
    } else {
        Err(format!("{value} is not a valid domain"))
    }
}

/// A create request and what the run flow needs to know of it.
#[derive(Debug)]
pub struct Request {
    pub body: Value,
    pub image: String,
    pub tty: bool,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub auto_remove: bool,
}

/// Makes the request. Reads the files that the flags name.
pub fn parse(matches: &Matches, proxy: Option<&Proxy>) -> Result<Request, String> {
    let attach = matches.all("attach");
    let attached = |stream: &str| {
        attach
            .iter()
            .any(|value| value.eq_ignore_ascii_case(stream))
    };
    let open_stdin = matches.on("interactive");
    let attach_stdin = attached("stdin") || open_stdin;
    let attach_stdout = attach.is_empty() || attached("stdout");
    let attach_stderr = attach.is_empty() || attached("stderr");
    let mac = matches.text("mac-address").trim().to_owned();
    if !mac.is_empty() && !network::is_mac(&mac) {
        return Err(format!("{mac} is not a valid mac address"));
    }
    let swappiness = matches.integer("memory-swappiness").unwrap_or(-1);
    if swappiness != -1 && !(0..=100).contains(&swappiness) {
        return Err(format!(
            "invalid value: {swappiness}. Valid memory swappiness range is 0-100"
        ));
    }
    let (mut binds, mut volumes) = (Vec::new(), Map::new());
    for value in matches.all("volume") {
        match volume::parse(&value)? {
            volume::Volume::Anonymous(path) => {
                volumes.insert(path, json!({}));
            }
            volume::Volume::Bind(bind) if !binds.contains(&bind) => binds.push(bind),
            volume::Volume::Bind(_) => {}
        }
    }
    let tmpfs: Map<String, Value> = matches
        .all("tmpfs")
        .iter()
        .map(|value| value.split_once(':').unwrap_or((value.as_str(), "")))
        .map(|(path, options)| (path.to_owned(), json!(options)))
        .collect();
    let entrypoint = match matches.get("entrypoint") {
        None => Value::Null,
        Some(program) => json!([program]),
    };
    let mut published = ports::parse_published(&matches.all("publish"))?;
    let exposed = ports::add_exposed(&mut published, &matches.all("expose"))?;
    let mut device_mappings = Vec::new();
    let mut cdi_names = Vec::new();
    for device in matches.all("device") {
        if devices::is_cdi_name(&device) {
            cdi_names.push(device);
        } else {
            device_mappings.push(devices::parse_device(&device)?);
        }
    }
    let environment = environment(matches, proxy)?;
    let labels = environment::read(&matches.all("label-file"), &matches.all("label"), false)?;
    check_modes(matches)?;
    let restart = limits::parse_restart(matches.get("restart").unwrap_or("no"))?;
    let logging = logging(matches)?;
    let mut security = security(&matches.all("security-opt"))?;
    let open_paths = security
        .iter()
        .any(|option| option == "systempaths=unconfined");
    security.retain(|option| option != "systempaths=unconfined");
    let storage = storage(&matches.all("storage-opt"))?;
    let health = health(matches)?;
    let mut device_requests = matches
        .all("gpus")
        .iter()
        .map(|value| devices::parse_gpus(value))
        .collect::<Result<Vec<_>, _>>()?;
    if !cdi_names.is_empty() {
        device_requests.push(
            json!({"Driver": "cdi", "Count": 0, "DeviceIDs": cdi_names, "Capabilities": null, "Options": null}),
        );
    }
    let auto_remove = matches.on("rm");
    let restarts = !matches!(restart["Name"].as_str(), Some("" | "no"));
    if auto_remove && restarts {
        return Err("conflicting options: cannot specify both --restart and --rm".to_owned());
    }
    if matches.on("use-api-socket") {
        return Err(
            "--use-api-socket is not supported; use -v with the daemon's socket".to_owned(),
        );
    }
    if matches.given("kernel-memory") {
        return Err(
            "--kernel-memory is not supported: no kernel with cgroups of today has such a limit"
                .to_owned(),
        );
    }
    let networks = matches
        .values
        .iter()
        .filter(|(flag, _)| *flag == "network" || *flag == "net")
        .map(|(_, value)| network::parse(value))
        .collect::<Result<Vec<_>, _>>()?;
    let mode = networks
        .first()
        .map_or("default", |network| network.target.as_str())
        .to_owned();
    let companions = Companions {
        aliases: both(matches, "network-alias", "net-alias"),
        links: matches.all("link"),
        ipv4: matches.text("ip"),
        ipv6: matches.text("ip6"),
        link_local: matches.all("link-local-ip"),
        mac: mac.clone(),
    };
    let endpoints = network::endpoints(&networks, &companions)?;
    let mut arguments = matches.arguments.iter().cloned();
    let image = arguments.next().unwrap_or_default();
    let command: Vec<String> = arguments.collect();
    let tty = matches.on("tty");

    let mut body = Map::new();
    let mut put = |key: &str, value: Value| {
        body.insert(key.to_owned(), value);
    };
    put("Hostname", json!(matches.text("hostname")));
    put("Domainname", json!(matches.text("domainname")));
    put("User", json!(matches.text("user")));
    put("AttachStdin", json!(attach_stdin));
    put("AttachStdout", json!(attach_stdout));
    put("AttachStderr", json!(attach_stderr));
    if !exposed.is_empty() {
        put(
            "ExposedPorts",
            Value::Object(
                exposed
                    .iter()
                    .map(|port| (port.clone(), json!({})))
                    .collect(),
            ),
        );
    }
    put("Tty", json!(tty));
    put("OpenStdin", json!(open_stdin));
    put("StdinOnce", json!(open_stdin && attach_stdin));
    put("Env", list_or_null(environment));
    put("Cmd", list_or_null(command));
    if !health.is_null() {
        put("Healthcheck", health);
    }
    put("Image", json!(image));
    put("Volumes", Value::Object(volumes));
    put("WorkingDir", json!(matches.text("workdir")));
    put("Entrypoint", entrypoint);
    if !mac.is_empty() {
        put("MacAddress", json!(mac));
    }
    put("OnBuild", Value::Null);
    put("Labels", Value::Object(pairs_to_map(&labels)));
    if let Some(signal) = matches
        .get("stop-signal")
        .filter(|signal| !signal.is_empty())
    {
        put("StopSignal", json!(signal));
    }
    if let Some(timeout) = matches.integer("stop-timeout") {
        put("StopTimeout", json!(timeout));
    }

    let mut host = Map::new();
    let mut put = |key: &str, value: Value| {
        host.insert(key.to_owned(), value);
    };
    put("Binds", list_or_null(binds));
    put("ContainerIDFile", json!(matches.text("cidfile")));
    put("LogConfig", logging);
    put("NetworkMode", json!(mode));
    put("PortBindings", port_bindings(&published));
    put("RestartPolicy", restart);
    put("AutoRemove", json!(auto_remove));
    put("VolumeDriver", json!(matches.text("volume-driver")));
    put("VolumesFrom", list_or_null(matches.all("volumes-from")));
    put("ConsoleSize", json!([0, 0]));
    let annotations = pairs_to_map(&matches.all("annotation"));
    if !annotations.is_empty() {
        put("Annotations", Value::Object(annotations));
    }
    let (add, drop) = capabilities(&matches.all("cap-add"), &matches.all("cap-drop"));
    put("CapAdd", list_or_null(add));
    put("CapDrop", list_or_null(drop));
    put("CgroupnsMode", json!(matches.text("cgroupns")));
    put(
        "Dns",
        json!(
            matches
                .all("dns")
                .iter()
                .map(|value| value.trim().to_owned())
                .collect::<Vec<_>>()
        ),
    );
    put("DnsOptions", json!(both(matches, "dns-option", "dns-opt")));
    put("DnsSearch", json!(matches.all("dns-search")));
    put(
        "ExtraHosts",
        list_or_null(
            matches
                .all("add-host")
                .iter()
                .map(|value| plain_host(value))
                .collect(),
        ),
    );
    put("GroupAdd", list_or_null(matches.all("group-add")));
    put("IpcMode", json!(matches.text("ipc")));
    put("Cgroup", json!(""));
    put("Links", list_or_null(matches.all("link")));
    put(
        "OomScoreAdj",
        json!(matches.integer("oom-score-adj").unwrap_or(0)),
    );
    put("PidMode", json!(matches.text("pid")));
    put("Privileged", json!(matches.on("privileged")));
    put("PublishAllPorts", json!(matches.on("publish-all")));
    put("ReadonlyRootfs", json!(matches.on("read-only")));
    put(
        "SecurityOpt",
        if matches.given("security-opt") {
            json!(security)
        } else {
            Value::Null
        },
    );
    if !storage.is_empty() {
        put("StorageOpt", Value::Object(storage));
    }
    if !tmpfs.is_empty() {
        put("Tmpfs", Value::Object(tmpfs));
    }
    put("UTSMode", json!(matches.text("uts")));
    put("UsernsMode", json!(matches.text("userns")));
    put("ShmSize", json!(matches.bytes("shm-size").unwrap_or(0)));
    let sysctls = pairs_to_map(&matches.all("sysctl"));
    if !sysctls.is_empty() {
        put("Sysctls", Value::Object(sysctls));
    }
    if let Some(runtime) = matches.get("runtime").filter(|runtime| !runtime.is_empty()) {
        put("Runtime", json!(runtime));
    }
    put("Isolation", json!(matches.text("isolation")));
    resources(
        matches,
        swappiness,
        device_mappings,
        device_requests,
        &mut put,
    )?;
    let mounts = matches
        .all("mount")
        .iter()
        .map(|value| mount::parse(value))
        .collect::<Result<Vec<_>, _>>()?;
    if !mounts.is_empty() {
        put("Mounts", json!(mounts));
    }
    let paths = if open_paths { json!([]) } else { Value::Null };
    put("MaskedPaths", paths.clone());
    put("ReadonlyPaths", paths);
    if matches.given("init") {
        put("Init", json!(matches.on("init")));
    }
    body.insert("HostConfig".to_owned(), Value::Object(host));
    body.insert(
        "NetworkingConfig".to_owned(),
        json!({"EndpointsConfig": endpoints}),
    );
    Ok(Request {
        body: Value::Object(body),
        image,
        tty,
        attach_stdin,
        attach_stdout,
        attach_stderr,
        auto_remove,
    })
}

fn resources(
    matches: &Matches,
    swappiness: i64,
    mappings: Vec<Value>,
    requests: Vec<Value>,
    put: &mut dyn FnMut(&str, Value),
) -> Result<(), String> {
    let integer = |flag: &str| json!(matches.integer(flag).unwrap_or(0));
    let rates = |flag: &str, parse: fn(&str) -> Result<Value, String>| {
        matches
            .all(flag)
            .iter()
            .map(|value| parse(value))
            .collect::<Result<Vec<_>, _>>()
            .map(Value::Array)
    };
    put("CpuShares", integer("cpu-shares"));
    put("Memory", json!(matches.bytes("memory").unwrap_or(0)));
    put(
        "NanoCpus",
        json!(matches.get("cpus").map_or(Ok(0), parse_nano_cpus)?),
    );
    put("CgroupParent", json!(matches.text("cgroup-parent")));
    put("BlkioWeight", integer("blkio-weight"));
    put(
        "BlkioWeightDevice",
        rates("blkio-weight-device", limits::parse_weight)?,
    );
    put(
        "BlkioDeviceReadBps",
        rates("device-read-bps", limits::parse_byte_rate)?,
    );
    put(
        "BlkioDeviceWriteBps",
        rates("device-write-bps", limits::parse_byte_rate)?,
    );
    put(
        "BlkioDeviceReadIOps",
        rates("device-read-iops", limits::parse_operation_rate)?,
    );
    put(
        "BlkioDeviceWriteIOps",
        rates("device-write-iops", limits::parse_operation_rate)?,
    );
    put("CpuPeriod", integer("cpu-period"));
    put("CpuQuota", integer("cpu-quota"));
    put("CpuRealtimePeriod", integer("cpu-rt-period"));
    put("CpuRealtimeRuntime", integer("cpu-rt-runtime"));
    put("CpusetCpus", json!(matches.text("cpuset-cpus")));
    put("CpusetMems", json!(matches.text("cpuset-mems")));
    put("Devices", Value::Array(mappings));
    put(
        "DeviceCgroupRules",
        list_or_null(matches.all("device-cgroup-rule")),
    );
    put(
        "DeviceRequests",
        if requests.is_empty() {
            Value::Null
        } else {
            Value::Array(requests)
        },
    );
    put(
        "MemoryReservation",
        json!(matches.bytes("memory-reservation").unwrap_or(0)),
    );
    put(
        "MemorySwap",
        json!(matches.get("memory-swap").map_or(Ok(0), parse_swap_bytes)?),
    );
    put("MemorySwappiness", json!(swappiness));
    put("OomKillDisable", json!(matches.on("oom-kill-disable")));
    put("PidsLimit", integer("pids-limit"));
    put(
        "Ulimits",
        Value::Array(limits::ulimits(&matches.all("ulimit"))?),
    );
    put("CpuCount", integer("cpu-count"));
    put("CpuPercent", integer("cpu-percent"));
    put("IOMaximumIOps", integer("io-maxiops"));
    put(
        "IOMaximumBandwidth",
        json!(matches.bytes("io-maxbandwidth").unwrap_or(0)),
    );
    Ok(())
}

/// Gives capabilities their full names, sorted and once each; what is added is not dropped, and `ALL` stands for every
/// other one.
fn capabilities(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let normal = |list: &[String]| {
        let names = list
            .iter()
            .map(|name| name.trim().to_uppercase())
            .map(|name| match name.as_str() {
                "ALL" => name,
                _ if name.starts_with("CAP_") => name,
                _ => format!("CAP_{name}"),
            });
        let names: std::collections::BTreeSet<String> = names.collect();
        if names.contains("ALL") {
            std::collections::BTreeSet::from(["ALL".to_owned()])
        } else {
            names
        }
    };
    let (add, mut drop) = (normal(add), normal(drop));
    drop.retain(|name| !add.contains(name));
    (add.into_iter().collect(), drop.into_iter().collect())
}

fn list_or_null(list: Vec<String>) -> Value {
    if list.is_empty() {
        Value::Null
    } else {
        json!(list)
    }
}

fn both(matches: &Matches, flag: &str, old: &str) -> Vec<String> {
    matches
        .values
        .iter()
        .filter(|(name, _)| *name == flag || *name == old)
        .map(|(_, value)| value.clone())
        .collect()
}

/// Turns `key=value` texts into a JSON object, sorted by key as Go writes maps.
pub fn pairs_to_map(pairs: &[String]) -> Map<String, Value> {
    let sorted: std::collections::BTreeMap<_, _> = pairs
        .iter()
        .map(|pair| pair.split_once('=').unwrap_or((pair.as_str(), "")))
        .collect();
    sorted
        .into_iter()
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect()
}

fn port_bindings(published: &ports::Ports) -> Value {
    let bindings = published.iter().map(|(port, bindings)| {
        let list: Vec<_> = bindings
            .iter()
            .map(|b| json!({"HostIp": b.ip, "HostPort": b.port}))
            .collect();
        (port.clone(), json!(list))
    });
    Value::Object(bindings.collect())
}

fn environment(matches: &Matches, proxy: Option<&Proxy>) -> Result<Vec<String>, String> {
    let given: Vec<String> = matches
        .all("env")
        .into_iter()
        .map(|variable| match std::env::var(&variable) {
            Ok(value) if !variable.contains('=') => format!("{variable}={value}"),
            _ => variable,
        })
        .collect();
    let mut variables = Vec::new();
    for (upper, lower, value) in proxy.map(Proxy::variables).unwrap_or_default() {
        variables.push(format!("{upper}={value}"));
        variables.push(format!("{lower}={value}"));
    }
    variables.extend(given);
    environment::read(
        &matches.all("env-file"),
        &environment::settle(variables),
        true,
    )
}

fn check_modes(matches: &Matches) -> Result<(), String> {
    let container = |text: &str| {
        text.strip_prefix("container:")
            .is_some_and(|name| !name.is_empty())
    };
    let pid = matches.text("pid");
    if !(matches!(pid.as_str(), "" | "host" | "private") && pid != "private" || container(&pid)) {
        return Err("--pid: invalid PID mode".to_owned());
    }
    if !matches!(matches.text("uts").as_str(), "" | "host") {
        return Err("--uts: invalid UTS mode".to_owned());
    }
    if !matches!(matches.text("userns").as_str(), "" | "host") {
        return Err("--userns: invalid USER mode".to_owned());
    }
    if !matches!(matches.text("cgroupns").as_str(), "" | "host" | "private") {
        return Err("--cgroupns: invalid CGROUP mode".to_owned());
    }
    Ok(())
}

fn logging(matches: &Matches) -> Result<Value, String> {
    let driver = matches.text("log-driver");
    let options = matches.all("log-opt");
    if driver == "none" && !options.is_empty() {
        return Err("invalid logging opts for driver none".to_owned());
    }
    Ok(json!({"Type": driver, "Config": pairs_to_map(&options)}))
}

fn storage(options: &[String]) -> Result<Map<String, Value>, String> {
    if options.iter().any(|option| !option.contains('=')) {
        return Err("invalid storage option".to_owned());
    }
    Ok(pairs_to_map(options))
}

/// Replaces the name of a seccomp profile by its contents and checks the form of the others.
pub fn security(options: &[String]) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    for option in options {
        let mut pair = option.split_once('=');
        if pair.is_none() && option != "no-new-privileges" {
            pair = option.split_once(':');
        }
        let (key, value) = pair.unwrap_or((option.as_str(), ""));
        if value.is_empty() && key != "no-new-privileges" {
            return Err(format!("Invalid --security-opt: {}", quote(option)));
        }
        if key == "seccomp" && !matches!(value, "builtin" | "unconfined") {
            let text = std::fs::read(value).map_err(|error| {
                format!(
                    "opening seccomp profile ({value}) failed: {}",
                    crate::failure::open_error(value, &error)
                )
            })?;
            let profile: Value = serde_json::from_slice(&text).map_err(|error| {
                format!("compacting json for seccomp profile ({value}) failed: {error}")
            })?;
            out.push(format!("seccomp={profile}"));
        } else {
            out.push(option.clone());
        }
    }
    Ok(out)
}

fn health(matches: &Matches) -> Result<Value, String> {
    let duration = |flag: &str| matches.get(flag).map_or(Ok(0), parse_duration);
    let command = matches.text("health-cmd");
    let interval = duration("health-interval")?;
    let timeout = duration("health-timeout")?;
    let period = duration("health-start-period")?;
    let start_interval = duration("health-start-interval")?;
    let retries = matches.integer("health-retries").unwrap_or(0);
    let any = !command.is_empty()
        || [interval, timeout, period, start_interval, retries]
            .iter()
            .any(|n| *n != 0);
    if matches.on("no-healthcheck") {
        if any {
            return Err("--no-healthcheck conflicts with --health-* options".to_owned());
        }
        return Ok(json!({"Test": ["NONE"]}));
    }
    if !any {
        return Ok(Value::Null);
    }
    for (flag, value) in [
        ("interval", interval),
        ("timeout", timeout),
        ("retries", retries),
        ("start-period", period),
        ("start-interval", start_interval),
    ] {
        if value < 0 {
            return Err(format!("--health-{flag} cannot be negative"));
        }
    }
    let mut out = Map::new();
    if !command.is_empty() {
        out.insert("Test".to_owned(), json!(["CMD-SHELL", command]));
    }
    for (key, value) in [
        ("Interval", interval),
        ("Timeout", timeout),
        ("StartPeriod", period),
        ("StartInterval", start_interval),
        ("Retries", retries),
    ] {
        if value != 0 {
            out.insert(key.to_owned(), json!(value));
        }
    }
    Ok(Value::Object(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::{Found, find};

    fn request(line: &str) -> Result<Request, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match find("docker", &words) {
            Found::Run { matches, .. } => parse(&matches, None),
            Found::Failed(usage) => Err(usage.text.lines().next().unwrap_or_default().to_owned()),
            _ => Err("no command".to_owned()),
        }
    }

    fn check_error(line: &str, expected: &str) {
        assert_eq!(
            request(&format!("run {line}")).err().as_deref(),
            Some(expected),
            "{line}"
        );
    }

    #[test]
    fn the_body_has_dockers_zero_values() {
        let body = request("run -d --name x -p 80:80 -v v:/d -e A=1 busybox true")
            .expect("request")
            .body;
        assert_eq!(body["ExposedPorts"], json!({"80/tcp": {}}));
        assert_eq!(body["Volumes"], json!({"v:/d": {}}));
        assert_eq!(body["HostConfig"]["Binds"], Value::Null);
        assert_eq!(body["HostConfig"]["MemorySwappiness"], json!(-1));
        assert_eq!(body["HostConfig"]["Dns"], json!([]));
        assert_eq!(body["HostConfig"]["Links"], Value::Null);
        assert_eq!(
            body["NetworkingConfig"]["EndpointsConfig"]["default"]["GwPriority"],
            json!(0)
        );
        assert_eq!(body["Entrypoint"], Value::Null);
        assert!(body.get("Healthcheck").is_none());
    }

    /// A value for each flag of `create`; the type's where the flag has no form of its own.
    fn sample(flag: &crate::grammar::Flag) -> &'static str {
        match (flag.name, flag.value) {
            (_, "") => "true",
            ("add-host", _) => "a:1.2.3.4",
            ("annotation" | "label" | "env" | "storage-opt" | "log-opt", _) => "a=b",
            ("attach", _) => "stderr",
            ("blkio-weight-device", _) => "/dev/null:100",
            ("cgroupns" | "userns" | "uts" | "pid" | "ipc", _) => "host",
            ("cpus", _) => "1.5",
            ("device", _) => "/dev/null:/dev/x:r",
            ("device-cgroup-rule", _) => "a",
            ("device-read-bps" | "device-write-bps", _) => "/dev/null:1mb",
            ("device-read-iops" | "device-write-iops", _) => "/dev/null:5",
            ("dns" | "ip" | "link-local-ip", _) => "1.2.3.4",
            ("ip6", _) => "fd00::1",
            ("dns-search", _) => "example.test",
            ("env-file" | "label-file", _) => "/dev/null",
            ("gpus", _) => "all",
            ("mac-address", _) => "02:42:ac:11:00:99",
            ("mount", _) => "type=tmpfs,dst=/t",
            ("restart", _) => "always",
            ("security-opt", _) => "no-new-privileges",
            ("sysctl", _) => "net.a=1",
            ("ulimit", _) => "nofile=5:7",
            ("volume", _) => "v:/v:ro",
            ("expose" | "publish", _) => "80",
            ("network" | "net", _) => "n",
            (_, "duration") => "5s",
            (_, "bytes") => "64m",
            (_, "int" | "uint" | "uint16") => "5",
            (_, "list" | "map" | "string") => "x",
            (name, value) => panic!("no value for --{name} {value}"),
        }
    }

    #[test]
    fn create_sends_what_run_sends() {
        let words = ["create", "--help"].map(str::to_owned);
        let Found::Help { command, .. } = find("docker", &words) else {
            panic!("no help of create");
        };
        let flags = &command.flags;
        let plain = request("create image").expect("request").body;
        let mut silent = Vec::new();
        for flag in flags.iter().filter(|flag| flag.name != "help") {
            // An alias of an address is of a network of the user's.
            let network = match flag.name {
                "network-alias" | "net-alias" => "--network n ",
                _ => "",
            };
            let asked = |verb: &str| {
                let line = format!(
                    "{verb} {network}--{}={} image word",
                    flag.name,
                    sample(flag)
                );
                request(&line).map(|request| (request.body, request.auto_remove, request.tty))
            };
            let (created, run) = (asked("create"), asked("run"));
            assert_eq!(created, run, "--{}", flag.name);
            if created.is_ok_and(|(body, ..)| {
                let mut plain = plain.clone();
                plain["Cmd"] = json!(["word"]);
                body == plain
            }) {
                silent.push(flag.name);
            }
        }
        // The other flags change what is sent, and so what the engine does or refuses.
        silent.sort_unstable();
        assert_eq!(
            silent,
            [
                // Of the command itself: the query, a file of the client, the pull before, and what is refused elsewhere.
                "disable-content-trust",
                "env-file",
                "label-file",
                "name",
                "platform",
                "pull",
                "quiet"
            ]
        );
    }

    #[test]
    fn refusals_have_dockers_text() {
        check_error("--pid foo x", "--pid: invalid PID mode");
        check_error(
            "--rm --restart always x",
            "conflicting options: cannot specify both --restart and --rm",
        );
        check_error("--security-opt foo x", "Invalid --security-opt: \"foo\"");
        check_error("--storage-opt x y", "invalid storage option");
        check_error("--mac-address zz x", "zz is not a valid mac address");
        check_error(
            "--memory-swappiness 500 x",
            "invalid value: 500. Valid memory swappiness range is 0-100",
        );
        check_error(
            "--no-healthcheck --health-cmd x y",
            "--no-healthcheck conflicts with --health-* options",
        );
        check_error(
            "--health-interval=-1s y",
            "--health-interval cannot be negative",
        );
        check_error(
            "--add-host foo x",
            "invalid argument \"foo\" for \"--add-host\" flag: bad format for add-host: \"foo\"",
        );
        check_error(
            "--add-host x: x",
            "invalid argument \"x:\" for \"--add-host\" flag: invalid IP address in add-host: \"\"",
        );
        check_error(
            "--add-host :1 x",
            "invalid argument \":1\" for \"--add-host\" flag: bad format for add-host: \":1\"",
        );
        check_error(
            "--add-host a:b x",
            "invalid argument \"a:b\" for \"--add-host\" flag: invalid IP address in add-host: \"b\"",
        );
        check_error(
            "--dns-search foo!! x",
            "invalid argument \"foo!!\" for \"--dns-search\" flag: foo!! is not a valid domain",
        );
        check_error(
            "-a foo x",
            "invalid argument \"foo\" for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR",
        );
        check_error(
            "--sysctl foo=1 x",
            "invalid argument \"foo=1\" for \"--sysctl\" flag: sysctl 'foo=1' is not allowed",
        );
        check_error(
            "--label =x x",
            "invalid argument \"=x\" for \"-l, --label\" flag: invalid label '=x': empty name",
        );
    }

    #[test]
    fn capabilities_get_their_full_names() {
        let words = |list: &[&str]| {
            list.iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        let got = capabilities(
            &words(&["net_admin", "CAP_SYS_ADMIN", "NET_ADMIN"]),
            &words(&["ALL", "x"]),
        );
        assert_eq!(
            got,
            (words(&["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]), words(&["ALL"]))
        );
        assert_eq!(
            capabilities(&words(&["x"]), &words(&["x", "y"])).1,
            words(&["CAP_Y"])
        );
    }

    #[test]
    fn system_paths_are_opened_by_a_security_option() {
        let body =
            request("run --security-opt systempaths=unconfined --security-opt no-new-privileges x")
                .expect("request")
                .body;
        assert_eq!(body["HostConfig"]["MaskedPaths"], json!([]));
        assert_eq!(
            body["HostConfig"]["SecurityOpt"],
            json!(["no-new-privileges"])
        );
    }
}
