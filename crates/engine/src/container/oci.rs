//! From a container's record to the OCI configuration of its bundle. Pure: everything looked up comes in [`Inputs`].

use std::path::{Path, PathBuf};

use gantry_api::oci::runtime::{
    ConsoleSize, Linux, LinuxCapabilities, LinuxNamespace, LinuxResources, LinuxSeccomp, Mount,
    Process, Rlimit, Root, Spec, User,
};

use super::config::{HostConfig, MountKind, Ulimit};
use super::devices::Device;
use super::record::{MountPoint, Record};
use crate::{Error, Result};

/// What a start has looked up for the configuration.
pub(crate) struct Inputs<'a> {
    pub record: &'a Record,
    /// Mounts with their host paths resolved, parents before children.
    pub mounts: &'a [MountPoint],
    pub hostname: &'a str,
    pub hostname_path: PathBuf,
    pub hosts_path: PathBuf,
    pub resolv_conf_path: PathBuf,
    pub capabilities: Vec<String>,
    pub devices: Vec<Device>,
    pub device_rules: Vec<gantry_api::oci::runtime::LinuxDeviceCgroup>,
    pub resources: LinuxResources,
    pub cgroup: &'a str,
    pub seccomp: Option<LinuxSeccomp>,
    pub security: &'a SecurityOptions,
    pub default_ulimits: &'a [Ulimit],
    pub default_shm_size_bytes: i64,
    /// The directory on the host behind /dev/shm of a shareable or joined IPC namespace.
    pub shared_shm: Option<PathBuf>,
    pub env: Vec<String>,
}

/// The meaning of `--security-opt`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SecurityOptions {
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    pub writable_cgroups: bool,
}

/// The seccomp profile a container asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Seccomp {
    #[default]
    Default,
    BuiltIn,
    Unconfined,
    /// A profile's JSON.
    Profile(String),
}

const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY_PATHS: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

impl HostConfig {
    /// Returns the paths that the container does not see: those given, else the default ones. `None` for a privileged
    /// container, from which nothing is hidden.
    pub fn shown_masked_paths(&self) -> Option<Vec<String>> {
        self.paths(&self.masked_paths, MASKED_PATHS)
    }

    /// Returns the paths that the container cannot write; as [`HostConfig::shown_masked_paths`].
    pub fn shown_readonly_paths(&self) -> Option<Vec<String>> {
        self.paths(&self.readonly_paths, READONLY_PATHS)
    }

    fn paths(&self, given: &Option<Vec<String>>, default: &[&str]) -> Option<Vec<String>> {
        match given {
            None if !self.privileged => {
                Some(default.iter().map(|path| (*path).to_owned()).collect())
            }
            given => given.clone(),
        }
    }
}

/// Parses `--security-opt` values.
///
/// # Errors
/// Docker's texts for malformed options; options of security modules that this kernel lacks are refused by name.
pub(crate) fn security_options(
    options: &[String],
    default_no_new_privileges: bool,
) -> Result<SecurityOptions> {
    let mut parsed = SecurityOptions {
        no_new_privileges: default_no_new_privileges,
        ..SecurityOptions::default()
    };
    for option in options {
        if option == "no-new-privileges" {
            parsed.no_new_privileges = true;
            continue;
        }
        let Some((name, value)) = option.split_once('=').or_else(|| option.split_once(':')) else {
            return Err(Error::invalid(format!(
                "invalid --security-opt 1: \"{option}\""
            )));
        };
        match name {
            "no-new-privileges" => {
                parsed.no_new_privileges = match value {
                    "true" | "1" | "t" | "T" | "TRUE" | "True" => true,
                    "false" | "0" | "f" | "F" | "FALSE" | "False" => false,
                    _ => {
                        return Err(Error::invalid(format!(
                            "invalid --security-opt 2: \"{option}\""
                        )));
                    }
                };
            }
            "seccomp" => {
                parsed.seccomp = match value {
                    "unconfined" => Seccomp::Unconfined,
                    "builtin" => Seccomp::BuiltIn,
                    profile => Seccomp::Profile(profile.to_owned()),
                };
            }
            "apparmor" if value == "unconfined" => {}
            "apparmor" if !Path::new("/sys/kernel/security/apparmor").exists() => {
                return Err(Error::invalid(format!(
                    "AppArmor is not enabled on this machine: cannot use --security-opt {option}"
                )));
            }
            "apparmor" => {
                return Err(Error::invalid(format!(
                    "AppArmor profiles are not supported yet: --security-opt {option}"
                )));
            }
            "label" if value == "disable" => {}
            "label" => {
                return Err(Error::invalid(format!(
                    "SELinux labels are not supported yet: --security-opt {option}"
                )));
            }
            "writable-cgroups" => {
                parsed.writable_cgroups = match value {
                    "true" => true,
                    "false" => false,
                    _ => {
                        return Err(Error::invalid(format!(
                            "invalid --security-opt 2: \"{option}\""
                        )));
                    }
                };
            }
            _ => {
                return Err(Error::invalid(format!(
                    "invalid --security-opt 2: \"{option}\""
                )));
            }
        }
    }
    Ok(parsed)
}

/// Builds the configuration.
pub(crate) fn spec(inputs: Inputs<'_>) -> Spec {
    let record = inputs.record;
    let host = &record.host;
    let private_network = record.host.network_mode != "host";
    let mut linux = Linux {
        cgroups_path: inputs.cgroup.to_owned(),
        resources: Some(inputs.resources.clone()),
        namespaces: namespaces(host),
        devices: inputs.devices.iter().map(Device::node).collect(),
        seccomp: inputs.seccomp.clone(),
        ..Linux::default()
    };
    if let Some(resources) = &mut linux.resources {
        resources.devices = inputs.device_rules.clone();
    }
    if !host.privileged {
        linux.masked_paths = host.shown_masked_paths().unwrap_or_default();
        linux.readonly_paths = host.shown_readonly_paths().unwrap_or_default();
    }
    if private_network {
        linux
            .sysctl
            .insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
        linux
            .sysctl
            .insert("net.ipv4.ping_group_range".into(), "0 2147483647".into());
    }
    linux.sysctl.extend(
        host.sysctls
            .iter()
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    if let Some(propagation) = rootfs_propagation(inputs.mounts) {
        linux.rootfs_propagation = propagation.into();
    }
    Spec {
        oci_version: gantry_api::oci::runtime::VERSION.into(),
        process: Some(process(&inputs)),
        root: Some(Root {
            path: "rootfs".into(),
            readonly: host.readonly_rootfs,
            ..Root::default()
        }),
        hostname: if host.uts_mode == "host" {
            String::new()
        } else {
            inputs.hostname.to_owned()
        },
        domainname: if host.uts_mode == "host" {
            String::new()
        } else {
            record.config.domainname.clone()
        },
        mounts: mounts(&inputs),
        annotations: host.annotations.clone(),
        linux: Some(linux),
        ..Spec::default()
    }
}

fn process(inputs: &Inputs<'_>) -> Process {
    let record = inputs.record;
    let mut args = vec![record.path.clone()];
    args.extend(record.args.iter().cloned());
    let mut user = User::default();
    name_user(&mut user, &record.config.user, &record.host.group_add);
    Process {
        terminal: record.config.tty,
        console_size: (record.config.tty && record.host.console_size != [0, 0]).then(|| {
            ConsoleSize {
                height: record.host.console_size[0].into(),
                width: record.host.console_size[1].into(),
            }
        }),
        user,
        args,
        env: inputs.env.clone(),
        cwd: if record.config.working_dir.is_empty() {
            "/".into()
        } else {
            record.config.working_dir.clone()
        },
        capabilities: Some(capabilities(&inputs.capabilities)),
        rlimits: rlimits(&record.host.ulimits, inputs.default_ulimits),
        no_new_privileges: inputs.security.no_new_privileges,
        oom_score_adj: (record.host.oom_score_adj != 0)
            .then(|| i32::try_from(record.host.oom_score_adj).unwrap_or(0)),
        ..Process::default()
    }
}

/// Refuses kernel parameters of the network in the host's own.
pub(crate) fn check_sysctls(host: &HostConfig) -> Result<()> {
    let of_network = |key: &&String| key.starts_with("net.") || key.starts_with("net/");
    match host.sysctls.keys().find(of_network) {
        Some(key) if host.network_mode == "host" => Err(Error::system(format!(
            "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create \
             failed: sysctl \"{key}\" not allowed in host network namespace"
        ))),
        _ => Ok(()),
    }
}

/// Leaves names of users and groups to the runtime, which alone sees the container's own /etc/passwd.
pub(crate) fn name_user(user: &mut User, name: &str, groups: &[String]) {
    user.unknown.insert("username".into(), name.into());
    if !groups.is_empty() {
        user.unknown
            .insert("groupNames".into(), groups.to_vec().into());
    }
}

pub(crate) fn capabilities(names: &[String]) -> LinuxCapabilities {
    LinuxCapabilities {
        bounding: names.to_vec(),
        effective: names.to_vec(),
        permitted: names.to_vec(),
        ..LinuxCapabilities::default()
    }
}

fn rlimits(own: &[Ulimit], defaults: &[Ulimit]) -> Vec<Rlimit> {
    let mut all: Vec<&Ulimit> = own.iter().collect();
    all.extend(
        defaults
            .iter()
            .filter(|default| !own.iter().any(|limit| limit.name == default.name)),
    );
    // -1 is "unlimited", which is all bits set in rlim_t.
    all.iter()
        .map(|limit| Rlimit {
            kind: format!("RLIMIT_{}", limit.name.to_ascii_uppercase()),
            soft: limit.soft as u64,
            hard: limit.hard as u64,
        })
        .collect()
}

/// The namespaces of the container's own; those that it joins go to the shim as descriptors.
fn namespaces(host: &HostConfig) -> Vec<LinuxNamespace> {
    let mut all = Vec::new();
    let mut add = |kind: &str, own: bool| {
        if own {
            all.push(LinuxNamespace {
                kind: kind.into(),
                ..LinuxNamespace::default()
            });
        }
    };
    add("mount", true);
    add("network", host.network_mode != "host");
    add("uts", host.uts_mode != "host");
    add("pid", host.pid_mode.is_empty());
    add(
        "ipc",
        host.ipc_mode != "host" && !host.ipc_mode.starts_with("container:"),
    );
    add("cgroup", host.cgroupns_mode != "host");
    all
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: source.into(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

/// Tells whether a container has a /dev/shm that others may share: nothing of its own is mounted there instead.
pub(crate) fn has_shareable_shm(record: &Record) -> bool {
    record.host.ipc_mode == "shareable"
        && !record
            .mounts
            .iter()
            .any(|point| point.destination == "/dev/shm")
}

fn mounts(inputs: &Inputs<'_>) -> Vec<Mount> {
    let host = &inputs.record.host;
    let access = if host.privileged { "rw" } else { "ro" };
    let cgroup_access = if host.privileged || inputs.security.writable_cgroups {
        "rw"
    } else {
        "ro"
    };
    let mut all = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
    ];
    // A host network namespace owns /sys of the host: mounting a new sysfs would show the wrong one.
    all.push(mount(
        "/sys",
        "sysfs",
        "sysfs",
        &["nosuid", "noexec", "nodev", access],
    ));
    all.push(mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &[cgroup_access, "nosuid", "noexec", "nodev"],
    ));
    all.push(mount(
        "/dev/mqueue",
        "mqueue",
        "mqueue",
        &["nosuid", "noexec", "nodev"],
    ));
    let has = |path: &str| inputs.mounts.iter().any(|point| point.destination == path);
    all.retain(|mount| !mount.destination.to_str().is_some_and(has));
    if host.ipc_mode != "none" && !has("/dev/shm") {
        let size = if host.shm_size_bytes > 0 {
            host.shm_size_bytes
        } else {
            inputs.default_shm_size_bytes
        };
        all.push(match &inputs.shared_shm {
            Some(directory) => mount(
                "/dev/shm",
                "bind",
                &directory.to_string_lossy(),
                &["rbind", "rprivate"],
            ),
            None => mount(
                "/dev/shm",
                "tmpfs",
                "shm",
                &[
                    "nosuid",
                    "noexec",
                    "nodev",
                    "mode=1777",
                    &format!("size={size}"),
                ],
            ),
        });
    }
    let files = [
        ("/etc/resolv.conf", &inputs.resolv_conf_path),
        ("/etc/hostname", &inputs.hostname_path),
        ("/etc/hosts", &inputs.hosts_path),
    ];
    for (destination, source) in files {
        if !has(destination) && !source.as_os_str().is_empty() {
            let access = if host.readonly_rootfs { "ro" } else { "rw" };
            all.push(mount(
                destination,
                "bind",
                &source.to_string_lossy(),
                &["rbind", "rprivate", access],
            ));
        }
    }
    all.extend(inputs.mounts.iter().map(user_mount));
    all
}

fn user_mount(point: &MountPoint) -> Mount {
    if point.kind == MountKind::Tmpfs {
        let options: Vec<&str> = point.tmpfs_options.iter().map(String::as_str).collect();
        return mount(&point.destination, "tmpfs", "tmpfs", &options);
    }
    let propagation = if point.propagation.is_empty() {
        "rprivate"
    } else {
        &point.propagation
    };
    let bind = if point.non_recursive { "bind" } else { "rbind" };
    let mut options = vec![bind, propagation];
    if !point.rw {
        options.push("ro");
        // Read-only means all of it, as far as the kernel can: a writable submount would be a hole.
        if !point.read_only_non_recursive && !point.non_recursive {
            options.push("rro");
        }
    }
    mount(&point.destination, "bind", &point.source, &options)
}

fn rootfs_propagation(mounts: &[MountPoint]) -> Option<&'static str> {
    let any = |wanted: &[&str]| {
        mounts
            .iter()
            .any(|point| wanted.contains(&point.propagation.as_str()))
    };
    if any(&["shared", "rshared"]) {
        Some("rshared")
    } else if any(&["slave", "rslave"]) {
        Some("rslave")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_the_network_are_not_set_in_the_hosts_own() {
        let check = |mode: &str, key: &str| {
            check_sysctls(&HostConfig {
                network_mode: mode.into(),
                sysctls: [(key.to_owned(), "5".to_owned())].into(),
                ..HostConfig::default()
            })
        };
        check("bridge", "net.core.somaxconn").unwrap();
        check("host", "kernel.shmmax").unwrap();
        let error = check("host", "net.core.somaxconn").unwrap_err().to_string();
        assert!(
            error.ends_with("sysctl \"net.core.somaxconn\" not allowed in host network namespace"),
            "{error}"
        );
    }

    #[test]
    fn security_options_are_understood_or_refused_by_name() {
        let parse = |text: &str| security_options(&[text.to_owned()], false);
        assert!(parse("no-new-privileges").unwrap().no_new_privileges);
        assert!(!parse("no-new-privileges:false").unwrap().no_new_privileges);
        assert_eq!(
            parse("seccomp=unconfined").unwrap().seccomp,
            Seccomp::Unconfined
        );
        assert_eq!(
            parse("seccomp={}").unwrap().seccomp,
            Seccomp::Profile("{}".into())
        );
        for bad in [
            "bogus",
            "label=type:x",
            "foo=bar",
            "no-new-privileges=maybe",
        ] {
            assert!(parse(bad).unwrap_err().to_string().contains(bad), "{bad}");
        }
    }

    #[test]
    fn a_read_only_bind_is_recursive() {
        let point = MountPoint {
            kind: MountKind::Bind,
            source: "/a".into(),
            destination: "/b".into(),
            propagation: "rprivate".into(),
            ..MountPoint::default()
        };
        assert_eq!(
            user_mount(&point).options,
            ["rbind", "rprivate", "ro", "rro"]
        );
    }

    #[test]
    fn user_limits_replace_the_daemons() {
        let limit = |name: &str, soft| Ulimit {
            name: name.into(),
            soft,
            hard: -1,
        };
        let all = rlimits(
            &[limit("nofile", 5)],
            &[limit("nofile", 9), limit("core", 0)],
        );
        let seen: Vec<_> = all
            .iter()
            .map(|limit| (limit.kind.as_str(), limit.soft))
            .collect();
        assert_eq!(seen, [("RLIMIT_NOFILE", 5), ("RLIMIT_CORE", 0)]);
        assert_eq!(all[0].hard, u64::MAX);
    }
}
