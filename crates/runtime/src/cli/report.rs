//! state, list, ps, spec, features: what only tells.

use std::io::Write;
use std::path::Path;

use gantry_api::oci::runtime::VERSION;
use serde_json::{Value, json};

use super::arguments::{Arguments, switch, value};
use super::{Failure, Global, print};
use crate::error::Error;
use crate::state::{self, State, Status};
use crate::{capabilities, kill};

pub(super) fn version() -> String {
    format!(
        "gantry-runtime version {}\nspec: {VERSION}\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn described(state: &State) -> Value {
    let status = state.status();
    json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "pid": if status == Status::Stopped { 0 } else { state.pid },
        "status": status.as_str(),
        "bundle": state.bundle,
        "rootfs": state.root,
        "created": state.created,
        "annotations": state.annotations,
        "owner": "",
    })
}

fn pretty(value: &Value) -> Result<String, Error> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| Error::invalid(error.to_string()))
}

pub(super) fn state(global: &Global, words: &[String], out: &mut dyn Write) -> Result<u8, Failure> {
    let arguments = Arguments::parse(&[], words)?;
    let state = State::load(&global.root, arguments.id("state")?)?;
    print(out, &pretty(&described(&state))?)?;
    Ok(0)
}

pub(super) fn list(global: &Global, words: &[String], out: &mut dyn Write) -> Result<u8, Failure> {
    let arguments = Arguments::parse(
        &[value("format", Some('f')), switch("quiet", Some('q'))],
        words,
    )?;
    let states = state::list(&global.root)?;
    if arguments.is("quiet") {
        let ids: String = states
            .iter()
            .map(|state| format!("{}\n", state.id))
            .collect();
        print(out, &ids)?;
        return Ok(0);
    }
    match arguments.get("format").unwrap_or("table") {
        "json" => print(
            out,
            &format!(
                "{}\n",
                Value::from(states.iter().map(described).collect::<Vec<_>>())
            ),
        )?,
        "table" => {
            let mut rows =
                vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
            rows.extend(states.iter().map(|state| {
                let status = state.status();
                [
                    state.id.clone(),
                    if status == Status::Stopped {
                        0
                    } else {
                        state.pid
                    }
                    .to_string(),
                    status.as_str().to_owned(),
                    state.bundle.display().to_string(),
                    state.created.clone(),
                    "root".to_owned(),
                ]
            }));
            print(out, &table(&rows))?;
        }
        other => return Err(Error::invalid(format!("format option: `{other}`")).into()),
    }
    Ok(0)
}

/// Columns of at least 12, three blanks between them.
fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let widths: Vec<usize> = (0..COLUMNS)
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count() + 3)
                .max()
                .unwrap_or(0)
                .max(12)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            if column + 1 == COLUMNS {
                text.push_str(cell);
            } else {
                text.push_str(&format!("{cell:<width$}", width = widths[column]));
            }
        }
        text.push('\n');
    }
    text
}

pub(super) fn ps(global: &Global, words: &[String], out: &mut dyn Write) -> Result<u8, Failure> {
    let arguments = Arguments::parse(&[value("format", Some('f'))], words)?;
    let Some((id, options)) = arguments.positional.split_first() else {
        return Err(Error::invalid("arguments: \"ps\" requires a minimum of 1 argument").into());
    };
    let pids = kill::processes(&State::load(&global.root, id)?)?;
    match arguments.get("format").unwrap_or("table") {
        "json" => print(out, &format!("{}\n", Value::from(pids)))?,
        "table" => print(out, &table_of_ps(&pids, options)?)?,
        other => return Err(Error::invalid(format!("format option: `{other}`")).into()),
    }
    Ok(0)
}

/// The host's `ps` knows its own options; of its lines those stay whose PID is the container's.
fn table_of_ps(pids: &[i32], options: &[String]) -> Result<String, Error> {
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() {
        &default[..]
    } else {
        options
    };
    let output = std::process::Command::new("ps")
        .args(options)
        .output()
        .map_err(|error| Error::stage("run", "ps", error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| Error::invalid("ps arguments: couldn't find PID field in ps output"))?;
    let mut filtered = format!("{header}\n");
    for line in lines {
        let pid = line
            .split_whitespace()
            .nth(column)
            .and_then(|field| field.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            filtered.push_str(line);
            filtered.push('\n');
        }
    }
    Ok(filtered)
}

pub(super) fn spec(words: &[String]) -> Result<u8, Failure> {
    let arguments = Arguments::parse(
        &[value("bundle", Some('b')), switch("rootless", None)],
        words,
    )?;
    arguments.refuse(&["rootless"])?;
    let path = Path::new(arguments.get("bundle").unwrap_or(".")).join("config.json");
    let mut file = match std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(
                Error::state(format!("file {} exists. Remove it first", path.display())).into(),
            );
        }
        Err(error) => return Err(Error::stage("create", path.display(), error).into()),
    };
    file.write_all(pretty(&default_spec())?.as_bytes())
        .map_err(|error| Error::stage("write", path.display(), error))?;
    Ok(0)
}

/// A shell in a terminal, in all namespaces but the user's, with three capabilities.
fn default_spec() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let namespaces: Vec<Value> = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
        .iter()
        .map(|kind| json!({ "type": kind }))
        .collect();
    json!({
        "ociVersion": VERSION,
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "gantry",
        "mounts": [
            json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

pub(super) fn features(words: &[String], out: &mut dyn Write) -> Result<u8, Failure> {
    Arguments::parse(&[], words)?;
    let options = vec![
        "async",
        "atime",
        "bind",
        "defaults",
        "dev",
        "diratime",
        "exec",
        "idmap",
        "noatime",
        "nodev",
        "nodiratime",
        "noexec",
        "nostrictatime",
        "nosuid",
        "nosymfollow",
        "private",
        "ratime",
        "rbind",
        "rdev",
        "rdiratime",
        "relatime",
        "rexec",
        "ridmap",
        "rnoatime",
        "rnodev",
        "rnodiratime",
        "rnoexec",
        "rnostrictatime",
        "rnosuid",
        "rnosymfollow",
        "ro",
        "rprivate",
        "rrelatime",
        "rro",
        "rrw",
        "rshared",
        "rslave",
        "rstrictatime",
        "rsuid",
        "rsymfollow",
        "runbindable",
        "rw",
        "shared",
        "slave",
        "strictatime",
        "suid",
        "symfollow",
        "tmpcopyup",
        "unbindable",
    ];
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": options,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities::available(),
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
                    "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
                    "SCMP_CMP_NE"
                ]
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": true } }
        }
    });
    print(out, &pretty(&features)?)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_specification_can_be_planned() {
        let spec = serde_json::from_value(default_spec()).expect("types");
        crate::plan::plan("x", Path::new("/b"), &spec).expect("plan");
    }
}
