//! What an engine left behind: read from /proc, /sys, netlink (by `ip` and `nft`) and its files, never from the engine.
//!
//! An object without an owner is a leak. The owners are the container records on disk: a record that is running owns a shim,
//! a control group, an interface, an address, its published ports and its runtime state; any record owns its snapshot and its
//! directory. Everything else beneath the engine's roots, its control group parent, its interface aliases and its nftables
//! table is reported. It takes what it sees at one moment; [`settled`] gives teardown a little time first.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::engine::{Places, cgroups, pids};

/// The leaks that remain after teardown and the reaper had thirty seconds.
pub fn settled(places: &Places) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let leaks = find(places);
        if leaks.is_empty() || Instant::now() > deadline {
            return leaks;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The leaks at this moment, one line each: kind, then object.
pub fn find(places: &Places) -> Vec<String> {
    let owners = Owners::read(&places.data_root);
    let mut leaks = Vec::new();
    mounts(places, &owners, &mut leaks);
    directories(places, &owners, &mut leaks);
    snapshots(places, &owners, &mut leaks);
    volumes(&places.data_root, &mut leaks);
    temporary_files(&places.data_root, &mut leaks);
    control_groups(places, &owners, &mut leaks);
    links(places, &owners, &mut leaks);
    rules(places, &owners, &mut leaks);
    processes(places, &owners, &mut leaks);
    leaks.sort();
    leaks
}

/// Who may own something.
#[derive(Default)]
struct Owners {
    all: HashSet<String>,
    running: HashSet<String>,
    snapshots: HashSet<u64>,
    addresses: HashSet<String>,
    ports: HashSet<u16>,
    /// Places where running containers keep something mounted.
    mounts: HashSet<PathBuf>,
}

impl Owners {
    fn read(data_root: &Path) -> Owners {
        let mut owners = Owners::default();
        for path in children(&data_root.join("records/container")) {
            let Some(record) = fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
            else {
                continue;
            };
            let data = &record["data"];
            let Some(id) = data["id"].as_str() else {
                continue;
            };
            owners.all.insert(id.to_owned());
            owners.snapshots.extend(data["snapshot"].as_u64());
            if matches!(data["state"]["status"].as_str(), Some("running" | "paused")) {
                owners.running.insert(id.to_owned());
                // A record of an earlier version has one.
                let single = &data["acquired"]["endpoint"];
                let several = data["acquired"]["endpoints"].as_array();
                for endpoint in several.into_iter().flatten().chain([single]) {
                    let both = [&endpoint["ipv4"], &endpoint["ipv6"]];
                    let known = both.into_iter().filter_map(Value::as_str);
                    owners.addresses.extend(known.map(str::to_owned));
                }
                let volumes = data["acquired"]["volumes"].as_array();
                for volume in volumes.into_iter().flatten().filter_map(Value::as_str) {
                    let place = data_root.join("volumes").join(volume).join("_data");
                    owners.mounts.insert(place);
                }
                if data["acquired"]["shm"] == true {
                    let place = data_root.join("containers").join(id).join("mounts/shm");
                    owners.mounts.insert(place);
                }
                for port in data["acquired"]["ports"].as_array().into_iter().flatten() {
                    owners.ports.extend(
                        port["host_port"]
                            .as_u64()
                            .and_then(|port| u16::try_from(port).ok()),
                    );
                }
            }
        }
        owners
    }
}

fn children(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// The root file systems are mounted in their containers alone. What is visible on the host is the shared memory of a
/// running container and the volumes with a file system of their own that one uses.
fn mounts(places: &Places, owners: &Owners, leaks: &mut Vec<String>) {
    let table =
        fs::read_to_string(format!("/proc/{}/mountinfo", places.host_pid)).unwrap_or_default();
    let roots = [&places.data_root, &places.exec_root].map(|root| format!("{}/", root.display()));
    for line in table.lines() {
        let point = line.split(' ').nth(4).unwrap_or_default();
        if roots.iter().any(|root| point.starts_with(root.as_str()))
            && !owners.mounts.contains(Path::new(point))
        {
            leaks.push(format!("mount {point}"));
        }
    }
}

fn directories(places: &Places, owners: &Owners, leaks: &mut Vec<String>) {
    for path in children(&places.data_root.join("containers")) {
        if !owners.all.contains(&name(&path)) {
            leaks.push(format!("directory {}", path.display()));
        }
    }
    for (below, suffix) in [("shims", ".sock"), ("runtime", ""), ("netns", "")] {
        for path in children(&places.exec_root.join(below)) {
            let file = name(&path);
            let id = file.strip_suffix(suffix).unwrap_or(&file);
            if !owners.running.contains(id) {
                leaks.push(format!("state {}", path.display()));
            }
        }
    }
}

/// A writable snapshot has a work directory; a layer has none and belongs to the image store.
fn snapshots(places: &Places, owners: &Owners, leaks: &mut Vec<String>) {
    let root = places.data_root.join("snapshots");
    for path in children(&root) {
        if let Ok(number) = name(&path).parse::<u64>()
            && path.join("work").exists()
            && !owners.snapshots.contains(&number)
        {
            leaks.push(format!("snapshot {}", path.display()));
        }
    }
    for below in ["trash", "ingest", "quarantine"] {
        leaks.extend(
            children(&root.join(below))
                .iter()
                .map(|path| format!("snapshot {}", path.display())),
        );
    }
}

/// A volume's directory has a record of its own name; what is removed waits in the trash.
fn volumes(data_root: &Path, leaks: &mut Vec<String>) {
    for path in children(&data_root.join("volumes")) {
        let record = data_root.join(format!("records/volume/{}.json", name(&path)));
        if !record.exists() {
            leaks.push(format!("volume {}", path.display()));
        }
    }
}

/// Files on their way to another name, anywhere outside containers' and users' data.
fn temporary_files(data_root: &Path, leaks: &mut Vec<String>) {
    let mut pending = vec![data_root.join("records"), data_root.join("content")];
    for path in children(data_root) {
        let file = name(&path);
        if path.is_file() && (file.starts_with('.') || file.ends_with(".tmp")) {
            leaks.push(format!("temporary file {}", path.display()));
        }
    }
    while let Some(directory) = pending.pop() {
        let in_transit = matches!(name(&directory).as_str(), "ingest" | "quarantine");
        for path in children(&directory) {
            let file = name(&path);
            if path.is_dir() {
                pending.push(path);
            } else if in_transit
                || file.starts_with('.')
                || file.ends_with(".tmp")
                || file.ends_with(".partial")
            {
                leaks.push(format!("temporary file {}", path.display()));
            }
        }
    }
}

fn control_groups(places: &Places, owners: &Owners, leaks: &mut Vec<String>) {
    for group in cgroups(&places.cgroup_parent) {
        let file = name(&group);
        let of_container =
            file.len() == 64 && file.chars().all(|character| character.is_ascii_hexdigit());
        if of_container && !owners.running.contains(&file) {
            leaks.push(format!("cgroup {}", group.display()));
        }
    }
}

/// Output of a command in the engine's host network.
fn in_network(places: &Places, words: &[&str]) -> Option<Value> {
    let output = Command::new("nsenter")
        .arg(format!("--net=/proc/{}/ns/net", places.host_pid))
        .arg("--")
        .args(words)
        .output()
        .ok()?;
    serde_json::from_slice(&output.stdout).ok()
}

/// Interfaces carry `gantry:ENGINE:CONTAINER` as alias; a bridge's alias ends otherwise.
fn links(places: &Places, owners: &Owners, leaks: &mut Vec<String>) {
    let Some(list) = in_network(places, &["ip", "-j", "-d", "link", "show", "type", "veth"]) else {
        leaks.push("unknown: `ip -j link` does not work here".to_owned());
        return;
    };
    for link in list.as_array().into_iter().flatten() {
        let Some(alias) = link["ifalias"]
            .as_str()
            .and_then(|alias| alias.strip_prefix("gantry:"))
        else {
            continue;
        };
        let owner = alias.rsplit(':').next().unwrap_or_default();
        if !owners.running.contains(owner) {
            leaks.push(format!(
                "interface {} of {owner}",
                link["ifname"].as_str().unwrap_or("?")
            ));
        }
    }
}

/// Elements of the engine's maps and sets whose address or port belongs to no running container.
fn rules(places: &Places, owners: &Owners, leaks: &mut Vec<String>) {
    let table = fs::read_to_string(places.data_root.join("engine-id"))
        .ok()
        .map(|id| format!("gantry-{}", id.trim().get(..12).unwrap_or(id.trim())));
    let Some(list) = in_network(places, &["nft", "-j", "list", "ruleset"]) else {
        leaks.push("unknown: `nft -j list ruleset` does not work here".to_owned());
        return;
    };
    for object in list["nftables"].as_array().into_iter().flatten() {
        let set = if object["map"].is_object() {
            &object["map"]
        } else {
            &object["set"]
        };
        if table.is_none()
            || set["table"].as_str() != table.as_deref()
            || !set["name"]
                .as_str()
                .is_some_and(|name| name.contains("publish"))
        {
            continue;
        }
        for element in set["elem"].as_array().into_iter().flatten() {
            let mut words = Vec::new();
            scalars(element, &mut words);
            let owned = words.iter().any(|word| owners.addresses.contains(word))
                && words.iter().any(|word| {
                    word.parse()
                        .is_ok_and(|port: u16| owners.ports.contains(&port))
                });
            if !owned {
                leaks.push(format!(
                    "nftables element {} in {}",
                    words.join(" . "),
                    set["name"].as_str().unwrap_or("?")
                ));
            }
        }
    }
}

fn scalars(value: &Value, words: &mut Vec<String>) {
    match value {
        Value::String(text) => words.push(text.clone()),
        Value::Number(number) => words.push(number.to_string()),
        Value::Array(list) => list.iter().for_each(|value| scalars(value, words)),
        Value::Object(map) => map.values().for_each(|value| scalars(value, words)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Shims without a running container, ports that netd holds for nobody, and network namespaces that netd or the daemon
/// keep while nobody lives in them.
fn processes(places: &Places, owners: &Owners, leaks: &mut Vec<String>) {
    let namespace = |pid: u32, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    let home = namespace(places.host_pid, "mnt");
    let host_network = namespace(places.host_pid, "net");
    let exec_root = places.exec_root.display().to_string();
    for pid in pids().filter(|&pid| home.is_some() && namespace(pid, "mnt") == home) {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<String> = line
            .split(|&byte| byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        let role = words.get(1).map_or("", String::as_str);
        let roots_match = words.iter().any(|word| word.starts_with(&exec_root));
        match role {
            "shim" => {
                let id = words.get(2).cloned().unwrap_or_default();
                let ours = owners.all.contains(&id) || host_network == namespace(pid, "net");
                if ours && !owners.running.contains(&id) {
                    leaks.push(format!("shim {pid} of {id}"));
                }
            }
            "netd" if roots_match => {
                for port in held_ports(pid) {
                    if !owners.ports.contains(&port) {
                        leaks.push(format!("reserved port {port}"));
                    }
                }
                kept_namespaces(pid, role, host_network.as_deref(), leaks);
            }
            "daemon" if roots_match => {
                kept_namespaces(pid, role, host_network.as_deref(), leaks);
                zombies(pid, leaks);
            }
            _ => {}
        }
    }
}

/// Children of the daemon that have ended and that it does not wait for.
fn zombies(daemon: u32, leaks: &mut Vec<String>) {
    for pid in pids() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name is in parentheses and may hold anything.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut fields = rest.split_ascii_whitespace();
        if fields.next() == Some("Z") && fields.next() == Some(daemon.to_string().as_str()) {
            leaks.push(format!("zombie {pid} of the daemon"));
        }
    }
}

fn descriptors(pid: u32) -> Vec<String> {
    let list = children(Path::new(&format!("/proc/{pid}/fd")));
    list.iter()
        .filter_map(|path| Some(fs::read_link(path).ok()?.display().to_string()))
        .collect()
}

fn kept_namespaces(pid: u32, role: &str, host: Option<&Path>, leaks: &mut Vec<String>) {
    for target in descriptors(pid) {
        let is_hosts = || host.is_some_and(|host| host == Path::new(&target));
        // netd asks servers from inside the namespaces of running containers.
        let is_lived_in = || {
            pids().any(|pid| {
                fs::read_link(format!("/proc/{pid}/ns/net"))
                    .is_ok_and(|namespace| namespace == Path::new(&target))
            })
        };
        if target.starts_with("net:[") && !is_hosts() && !is_lived_in() {
            leaks.push(format!("network namespace {target} kept by the {role}"));
        }
    }
}

/// The local ports of a process's internet sockets.
fn held_ports(pid: u32) -> HashSet<u16> {
    let sockets: HashSet<String> = descriptors(pid)
        .iter()
        .filter_map(|target| {
            Some(
                target
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect();
    let mut ports = HashSet::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, state, ..] = fields.as_slice() else {
                continue;
            };
            // Listening, or bound and not connected: what is connected asks or forwards and keeps nobody out.
            let is_listener = *state == "0A" || *state == "07";
            if is_listener
                && fields.get(9).is_some_and(|inode| sockets.contains(*inode))
                && let Some(port) = local
                    .rsplit(':')
                    .next()
                    .and_then(|hex| u16::from_str_radix(hex, 16).ok())
            {
                ports.insert(port);
            }
        }
    }
    ports
}
