//! The daemon's configuration: flags and `daemon.json` with dockerd's names, checked as a whole.

pub mod network;
pub mod options;
mod parse;
pub mod registry;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use parse::Value;
pub use parse::{CommandLine, Values, parse_bool};
pub use registry::Registries;

/// Where the configuration file is looked for when no flag names one; it may be missing.
const FILE_DEFAULT: &str = "/etc/gantry/daemon.json";
const DATA_ROOT_DEFAULT: &str = "/var/lib/gantry";
const EXEC_ROOT_DEFAULT: &str = "/run/gantry";
/// Docker's socket, served as well when nobody owns it and the exec root is the default one.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// Says what is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// A socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Unix(PathBuf),
    Tcp(SocketAddr),
    /// What the service manager passed; a name selects one socket of several.
    Inherited(Option<String>),
}

/// The level and form of the daemon's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    pub level: tracing::Level,
    pub json: bool,
}

/// The seccomp profile of containers that name none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seccomp {
    BuiltIn,
    Unconfined,
    File(PathBuf),
}

/// Everything that the daemon was told, with defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub data_root: PathBuf,
    pub exec_root: PathBuf,
    pub pidfile: PathBuf,
    pub hosts: Vec<Host>,
    /// Also serve Docker's own path if nobody does; only without `-H` and with the default exec root.
    pub docker_socket: Option<PathBuf>,
    pub socket_group: String,
    pub socket_group_is_explicit: bool,
    pub log: LogSettings,
    pub shutdown_timeout_s: u64,
    pub network: network::Network,
    pub log_driver: String,
    pub log_options: BTreeMap<String, String>,
    pub shm_size_bytes: i64,
    /// Name to (soft, hard).
    pub ulimits: BTreeMap<String, (i64, i64)>,
    pub init: bool,
    pub cgroup_parent: Option<String>,
    pub default_runtime: Option<String>,
    /// Name to path and arguments.
    pub runtimes: BTreeMap<String, (String, Vec<String>)>,
    pub seccomp: Seccomp,
    pub no_new_privileges: bool,
    pub labels: Vec<String>,
    pub registries: Registries,
}

/// What the daemon shall do.
#[derive(Debug)]
pub enum Task {
    Help,
    Version,
    Validate,
    Run(Box<Settings>),
}

/// Reads command line and file.
pub fn load(args: &[OsString]) -> Result<Task, Invalid> {
    let flags = match parse::command_line(args)? {
        CommandLine::Help => return Ok(Task::Help),
        CommandLine::Version => return Ok(Task::Version),
        CommandLine::Run(flags) => flags,
    };
    let validate = flags.get("validate") == Some(&Value::Bool(true));
    let settings = settings_with_file(flags)?;
    Ok(if validate {
        Task::Validate
    } else {
        Task::Run(Box::new(settings))
    })
}

fn settings_with_file(flags: Values) -> Result<Settings, Invalid> {
    let (path, explicit) = match flags.get("config-file") {
        Some(Value::Text(path)) => (path.clone(), true),
        _ => (FILE_DEFAULT.to_owned(), false),
    };
    let failed = |why: String| {
        Invalid(format!(
            "unable to configure the daemon with file {path}: {why}"
        ))
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !explicit => String::new(),
        Err(error) => return Err(failed(format!("open {path}: {error}"))),
    };
    let file = parse::file(&text).map_err(|error| failed(error.0))?;
    let values = parse::merge(flags, file).map_err(|error| failed(error.0))?;
    settings(&values)
}

/// Fills in defaults and checks what only the whole shows. Pure.
fn settings(values: &Values) -> Result<Settings, Invalid> {
    let invalid = |text: String| Err(Invalid(text));
    let data_root = PathBuf::from(text(values, "data-root").unwrap_or(DATA_ROOT_DEFAULT));
    let exec_root = PathBuf::from(text(values, "exec-root").unwrap_or(EXEC_ROOT_DEFAULT));
    for (name, path) in [("data-root", &data_root), ("exec-root", &exec_root)] {
        if !path.is_absolute() {
            return invalid(format!(
                "--{name} must be an absolute path: {}",
                path.display()
            ));
        }
    }
    if flag(values, "live-restore") == Some(false) {
        return invalid(
            "--live-restore=false is not supported: containers always run on without the daemon"
                .to_owned(),
        );
    }
    let mut hosts = Vec::new();
    for host in list(values, "host") {
        hosts.push(parse_host(&host, &exec_root)?);
    }
    let mut docker_socket = None;
    if hosts.is_empty() {
        hosts.push(Host::Unix(exec_root.join("gantry.sock")));
        docker_socket = (exec_root == std::path::Path::new(EXEC_ROOT_DEFAULT))
            .then(|| PathBuf::from(DOCKER_SOCKET));
    }
    let level = match (
        flag(values, "debug"),
        text(values, "log-level").unwrap_or("info"),
    ) {
        (Some(true), _) | (_, "debug") => tracing::Level::DEBUG,
        (_, "trace") => tracing::Level::TRACE,
        (_, "info") => tracing::Level::INFO,
        (_, "warn" | "warning") => tracing::Level::WARN,
        (_, "error" | "fatal" | "panic") => tracing::Level::ERROR,
        (_, other) => return invalid(format!("invalid logging level: {other}")),
    };
    let json = match text(values, "log-format").unwrap_or("text") {
        "text" => false,
        "json" => true,
        other => return invalid(format!("invalid log format: {other}")),
    };
    let labels = list(values, "label");
    for label in &labels {
        if label.split_once('=').is_none_or(|(key, _)| key.is_empty()) {
            return invalid(format!("bad attribute format: {label}"));
        }
    }
    let shutdown_timeout_s = match integer(values, "shutdown-timeout").unwrap_or(15) {
        seconds @ 0.. => seconds.unsigned_abs(),
        _ => return invalid("invalid --shutdown-timeout: it may not be negative".to_owned()),
    };
    let shm_size_bytes = integer(values, "default-shm-size").unwrap_or(64 << 20);
    if shm_size_bytes <= 0 {
        return invalid(format!("invalid default shm size: {shm_size_bytes}"));
    }
    let runtimes = match values.get("add-runtime") {
        Some(Value::Runtimes(runtimes)) => runtimes.clone(),
        _ => BTreeMap::new(),
    };
    if let Some(name) = runtimes.keys().find(|name| *name == "gantry") {
        return invalid(format!("runtime name '{name}' is reserved"));
    }
    let default_runtime = text(values, "default-runtime").map(str::to_owned);
    if let Some(name) = default_runtime
        .as_deref()
        .filter(|name| *name != "gantry" && !runtimes.contains_key(*name))
    {
        return invalid(format!("specified default runtime '{name}' does not exist"));
    }
    Ok(Settings {
        pidfile: text(values, "pidfile")
            .map_or_else(|| exec_root.join("gantry.pid"), PathBuf::from),
        data_root,
        exec_root,
        hosts,
        docker_socket,
        socket_group: text(values, "group").unwrap_or("docker").to_owned(),
        socket_group_is_explicit: values.contains_key("group"),
        log: LogSettings { level, json },
        shutdown_timeout_s,
        network: network::settings(values)?,
        log_driver: text(values, "log-driver").unwrap_or("json-file").to_owned(),
        log_options: match values.get("log-opt") {
            Some(Value::Map(options)) => options.clone(),
            _ => BTreeMap::new(),
        },
        shm_size_bytes,
        ulimits: match values.get("default-ulimit") {
            Some(Value::Ulimits(ulimits)) => ulimits.clone(),
            _ => BTreeMap::new(),
        },
        init: flag(values, "init").unwrap_or(false),
        cgroup_parent: text(values, "cgroup-parent")
            .filter(|path| !path.is_empty())
            .map(str::to_owned),
        default_runtime,
        runtimes,
        seccomp: match text(values, "seccomp-profile").unwrap_or("builtin") {
            "" | "builtin" => Seccomp::BuiltIn,
            "unconfined" => Seccomp::Unconfined,
            path => Seccomp::File(path.into()),
        },
        no_new_privileges: flag(values, "no-new-privileges").unwrap_or(false),
        labels,
        registries: registry::settings(values)?,
    })
}

fn text<'a>(values: &'a Values, flag: &str) -> Option<&'a str> {
    match values.get(flag) {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

fn flag(values: &Values, name: &str) -> Option<bool> {
    match values.get(name) {
        Some(Value::Bool(value)) => Some(*value),
        _ => None,
    }
}

fn integer(values: &Values, name: &str) -> Option<i64> {
    match values.get(name) {
        Some(Value::Integer(value)) => Some(*value),
        _ => None,
    }
}

fn list(values: &Values, name: &str) -> Vec<String> {
    match values.get(name) {
        Some(Value::List(list)) => list.clone(),
        _ => Vec::new(),
    }
}

fn parse_host(text: &str, exec_root: &std::path::Path) -> Result<Host, Invalid> {
    let invalid = || Invalid(format!("Invalid bind address format: {text}"));
    match text.split_once("://") {
        Some(("unix", "")) => Ok(Host::Unix(exec_root.join("gantry.sock"))),
        Some(("unix", path)) => Ok(Host::Unix(path.into())),
        Some(("fd", "" | "*")) => Ok(Host::Inherited(None)),
        Some(("fd", name)) => Ok(Host::Inherited(Some(name.to_owned()))),
        Some(("tcp", address)) => parse_tcp(address).ok_or_else(invalid).map(Host::Tcp),
        Some(_) => Err(invalid()),
        None if text.is_empty() => Ok(Host::Unix(exec_root.join("gantry.sock"))),
        None => parse_tcp(text).ok_or_else(invalid).map(Host::Tcp),
    }
}

/// Reads `address:port`; either may be missing. Names are not looked up: the binary has no resolver at that point.
fn parse_tcp(text: &str) -> Option<SocketAddr> {
    const PORT_DEFAULT: u16 = 2375;
    let text = text.trim_end_matches('/');
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address);
    }
    if let Ok(address) = text
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>()
    {
        return Some(SocketAddr::new(address, PORT_DEFAULT));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let port = if port.is_empty() {
        PORT_DEFAULT
    } else {
        port.parse().ok()?
    };
    match host {
        "" | "localhost" => Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        _ => host
            .parse::<Ipv4Addr>()
            .ok()
            .map(|address| SocketAddr::new(address.into(), port)),
    }
}

/// Gives the text of `--help`.
pub fn help() -> String {
    let mut text = String::from(
        "Usage:  gantry daemon [OPTIONS]\n\nThe container engine's daemon.\n\nOptions:\n",
    );
    for spec in options::OPTIONS {
        let short = spec
            .short
            .map_or("    ".to_owned(), |short| format!("-{short}, "));
        let kind = match spec.kind {
            options::Kind::Bool => "",
            options::Kind::Integer => " int",
            options::Kind::List | options::Kind::Addresses => " list",
            options::Kind::Pools => " pool",
            options::Kind::Map | options::Kind::Settings | options::Kind::NetworkOptions => " map",
            options::Kind::Size => " bytes",
            options::Kind::Ulimits => " ulimit",
            options::Kind::Runtimes => " runtime",
            options::Kind::Text => " string",
        };
        let left = format!("  {short}--{}{kind}", spec.flag);
        text.push_str(&format!("{left:<38} {}\n", spec.help));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Result<Settings, String> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        match parse::command_line(&args).map_err(|error| error.0)? {
            CommandLine::Run(values) => settings(&values).map_err(|error| error.0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_the_machines_own() {
        let settings = check("").unwrap();
        assert_eq!(
            settings.hosts,
            [Host::Unix("/run/gantry/gantry.sock".into())]
        );
        assert_eq!(settings.docker_socket, Some("/var/run/docker.sock".into()));
        assert_eq!(settings.pidfile, PathBuf::from("/run/gantry/gantry.pid"));
        assert_eq!(settings.log_driver, "json-file");
        assert_eq!(settings.shm_size_bytes, 64 << 20);
    }

    #[test]
    fn another_exec_root_or_a_host_leaves_dockers_socket_alone() {
        let settings = check("--exec-root /run/other").unwrap();
        assert_eq!(
            settings.hosts,
            [Host::Unix("/run/other/gantry.sock".into())]
        );
        assert_eq!(settings.docker_socket, None);
        assert_eq!(check("-H unix:///a.sock").unwrap().docker_socket, None);
    }

    #[test]
    fn hosts() {
        let host = |text: &str| {
            parse_host(text, std::path::Path::new("/run/gantry")).map_err(|error| error.0)
        };
        assert_eq!(
            host("unix://"),
            Ok(Host::Unix("/run/gantry/gantry.sock".into()))
        );
        assert_eq!(
            host("tcp://:2375"),
            Ok(Host::Tcp("127.0.0.1:2375".parse().unwrap()))
        );
        assert_eq!(
            host("tcp://0.0.0.0"),
            Ok(Host::Tcp("0.0.0.0:2375".parse().unwrap()))
        );
        assert_eq!(host("[::1]:99"), Ok(Host::Tcp("[::1]:99".parse().unwrap())));
        assert_eq!(host("fd://"), Ok(Host::Inherited(None)));
        assert_eq!(
            host("npipe://x"),
            Err("Invalid bind address format: npipe://x".to_owned())
        );
        assert_eq!(
            host("tcp://example.org:1"),
            Err("Invalid bind address format: tcp://example.org:1".to_owned())
        );
    }

    #[test]
    fn what_contradicts_is_refused() {
        for (line, want) in [
            (
                "--iptables=false --icc=false",
                "You specified --iptables=false with --icc=false",
            ),
            (
                "--live-restore=false",
                "--live-restore=false is not supported",
            ),
            (
                "--dns example.org",
                "bad DNS server: example.org is not an ip address",
            ),
            ("--label novalue", "bad attribute format: novalue"),
            ("--log-level loud", "invalid logging level: loud"),
            (
                "--default-runtime crun",
                "specified default runtime 'crun' does not exist",
            ),
            ("--mtu 12", "invalid default MTU value: 12"),
            (
                "--data-root relative",
                "--data-root must be an absolute path",
            ),
        ] {
            let error = check(line).unwrap_err();
            assert!(error.starts_with(want), "{line}: {error}");
        }
    }

    #[test]
    fn settings_that_hold_anyway_change_nothing() {
        for line in [
            "--live-restore",
            "--userland-proxy",
            "--userland-proxy=false",
            "--raw-logs",
            "--raw-logs=false",
        ] {
            assert_eq!(check(line), check(""), "{line}");
        }
    }

    #[test]
    fn the_help_names_every_option() {
        let text = help();
        assert!(
            options::OPTIONS
                .iter()
                .all(|spec| text.contains(&format!("--{}", spec.flag)))
        );
    }
}
