//! The flags of `run` and `create` turned into the body of a create request: the JSON that Docker's client sends, with
//! its zero values and nulls, and its refusals.

use super::network::Companions;
use super::{check, devices, environment, health, limits, mount, network, ports, security, volume};
use crate::grammar::Matches;
use gantry_client::config::Proxy;
use serde_json::{Map, Value, json};

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
    let parts = Parts::read(matches, proxy)?;
    let attach = matches.all("attach");
    let attached = |stream: &str| {
        attach
            .iter()
            .any(|value| value.eq_ignore_ascii_case(stream))
    };
    let mut arguments = matches.arguments.iter().cloned();
    let mut request = Request {
        body: Value::Null,
        image: arguments.next().unwrap_or_default(),
        tty: matches.on("tty"),
        attach_stdin: attached("stdin") || matches.on("interactive"),
        attach_stdout: attach.is_empty() || attached("stdout"),
        attach_stderr: attach.is_empty() || attached("stderr"),
        auto_remove: matches.on("rm"),
    };
    let mut body = config(matches, &request, &parts, arguments.collect());
    let host = host_config(matches, &parts)?;
    body.insert("HostConfig".to_owned(), Value::Object(host));
    body.insert(
        "NetworkingConfig".to_owned(),
        json!({"EndpointsConfig": parts.endpoints}),
    );
    request.body = Value::Object(body);
    Ok(request)
}

/// What several flags say together or what may be wrong, read in the order in which Docker refuses it.
struct Parts {
    mac: String,
    swappiness: i64,
    binds: Vec<String>,
    /// The anonymous ones, as Docker's set of paths.
    volumes: Map<String, Value>,
    published: ports::Ports,
    exposed: Vec<String>,
    device_mappings: Vec<Value>,
    device_requests: Vec<Value>,
    environment: Vec<String>,
    labels: Vec<String>,
    restart: Value,
    logging: Value,
    security_options: Vec<String>,
    /// The kernel's paths are neither masked nor read-only.
    open_paths: bool,
    storage: Map<String, Value>,
    health: Value,
    /// The first network, which the container starts on.
    mode: String,
    endpoints: Map<String, Value>,
}

impl Parts {
    fn read(matches: &Matches, proxy: Option<&Proxy>) -> Result<Parts, String> {
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
        let (binds, volumes) = bound(matches)?;
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
        let environment = environment::of_flags(matches, proxy)?;
        let labels = environment::read(&matches.all("label-file"), &matches.all("label"), false)?;
        security::check_modes(matches)?;
        let restart = limits::parse_restart(matches.get("restart").unwrap_or("no"))?;
        let logging = logging(matches)?;
        let mut security_options = security::security(&matches.all("security-opt"))?;
        let open_paths = security_options
            .iter()
            .any(|option| option == "systempaths=unconfined");
        security_options.retain(|option| option != "systempaths=unconfined");
        let storage = storage(&matches.all("storage-opt"))?;
        let health = health::parse(matches)?;
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
        let restarts = !matches!(restart["Name"].as_str(), Some("" | "no"));
        if matches.on("rm") && restarts {
            return Err("conflicting options: cannot specify both --restart and --rm".to_owned());
        }
        refuse_unsupported(matches)?;
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
        Ok(Parts {
            mac,
            swappiness,
            binds,
            volumes,
            published,
            exposed,
            device_mappings,
            device_requests,
            environment,
            labels,
            restart,
            logging,
            security_options,
            open_paths,
            storage,
            health,
            mode,
            endpoints,
        })
    }
}

/// Tells binds and anonymous volumes apart.
fn bound(matches: &Matches) -> Result<(Vec<String>, Map<String, Value>), String> {
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
    Ok((binds, volumes))
}

fn refuse_unsupported(matches: &Matches) -> Result<(), String> {
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
    Ok(())
}

/// Gives what of the body is the container's own.
fn config(
    matches: &Matches,
    request: &Request,
    parts: &Parts,
    command: Vec<String>,
) -> Map<String, Value> {
    let entrypoint = match matches.get("entrypoint") {
        None => Value::Null,
        Some(program) => json!([program]),
    };
    let open_stdin = matches.on("interactive");
    let mut body = Map::new();
    let mut put = |key: &str, value: Value| {
        body.insert(key.to_owned(), value);
    };
    put("Hostname", json!(matches.text("hostname")));
    put("Domainname", json!(matches.text("domainname")));
    put("User", json!(matches.text("user")));
    put("AttachStdin", json!(request.attach_stdin));
    put("AttachStdout", json!(request.attach_stdout));
    put("AttachStderr", json!(request.attach_stderr));
    if !parts.exposed.is_empty() {
        put(
            "ExposedPorts",
            Value::Object(
                parts
                    .exposed
                    .iter()
                    .map(|port| (port.clone(), json!({})))
                    .collect(),
            ),
        );
    }
    put("Tty", json!(request.tty));
    put("OpenStdin", json!(open_stdin));
    put("StdinOnce", json!(open_stdin && request.attach_stdin));
    put("Env", list_or_null(parts.environment.clone()));
    put("Cmd", list_or_null(command));
    if !parts.health.is_null() {
        put("Healthcheck", parts.health.clone());
    }
    put("Image", json!(request.image));
    put("Volumes", Value::Object(parts.volumes.clone()));
    put("WorkingDir", json!(matches.text("workdir")));
    put("Entrypoint", entrypoint);
    if !parts.mac.is_empty() {
        put("MacAddress", json!(parts.mac));
    }
    put("OnBuild", Value::Null);
    put("Labels", Value::Object(pairs_to_map(&parts.labels)));
    if let Some(signal) = matches
        .get("stop-signal")
        .filter(|signal| !signal.is_empty())
    {
        put("StopSignal", json!(signal));
    }
    if let Some(timeout) = matches.integer("stop-timeout") {
        put("StopTimeout", json!(timeout));
    }
    body
}

/// Gives what of the body is the host's side of it.
fn host_config(matches: &Matches, parts: &Parts) -> Result<Map<String, Value>, String> {
    let mut host = Map::new();
    let mut put = |key: &str, value: Value| {
        host.insert(key.to_owned(), value);
    };
    put("Binds", list_or_null(parts.binds.clone()));
    put("ContainerIDFile", json!(matches.text("cidfile")));
    put("LogConfig", parts.logging.clone());
    put("NetworkMode", json!(parts.mode));
    put("PortBindings", ports::bindings(&parts.published));
    put("RestartPolicy", parts.restart.clone());
    put("AutoRemove", json!(matches.on("rm")));
    put("VolumeDriver", json!(matches.text("volume-driver")));
    put("VolumesFrom", list_or_null(matches.all("volumes-from")));
    put("ConsoleSize", json!([0, 0]));
    let annotations = pairs_to_map(&matches.all("annotation"));
    if !annotations.is_empty() {
        put("Annotations", Value::Object(annotations));
    }
    let (add, drop) = security::capabilities(&matches.all("cap-add"), &matches.all("cap-drop"));
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
                .map(|value| check::plain_host(value))
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
            json!(parts.security_options)
        } else {
            Value::Null
        },
    );
    if !parts.storage.is_empty() {
        put("StorageOpt", Value::Object(parts.storage.clone()));
    }
    let tmpfs: Map<String, Value> = matches
        .all("tmpfs")
        .iter()
        .map(|value| value.split_once(':').unwrap_or((value.as_str(), "")))
        .map(|(path, options)| (path.to_owned(), json!(options)))
        .collect();
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
    limits::resources(
        matches,
        parts.swappiness,
        parts.device_mappings.clone(),
        parts.device_requests.clone(),
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
    let paths = if parts.open_paths {
        json!([])
    } else {
        Value::Null
    };
    put("MaskedPaths", paths.clone());
    put("ReadonlyPaths", paths);
    if matches.given("init") {
        put("Init", json!(matches.on("init")));
    }
    Ok(host)
}

pub fn list_or_null(list: Vec<String>) -> Value {
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
