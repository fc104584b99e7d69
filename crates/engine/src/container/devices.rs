//! Devices of a container: the nodes that are made in its /dev and the rules of its cgroup.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use gantry_api::oci::runtime::{LinuxDevice, LinuxDeviceCgroup};

use super::config::{DeviceMapping, HostConfig};
use crate::{Error, Result};

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub path: PathBuf,
    /// `c` or `b`.
    pub kind: &'static str,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Device {
    /// Returns the OCI form of the node.
    pub(crate) fn node(&self) -> LinuxDevice {
        LinuxDevice {
            path: self.path.clone(),
            kind: self.kind.into(),
            major: self.major.into(),
            minor: self.minor.into(),
            file_mode: Some(self.mode),
            uid: Some(self.uid),
            gid: Some(self.gid),
        }
    }
}

fn rule(
    allow: bool,
    kind: &str,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    LinuxDeviceCgroup {
        allow,
        kind: kind.into(),
        major,
        minor,
        access: access.into(),
    }
}

/// Returns the nodes beyond the runtime's own and the cgroup's rules.
pub(crate) fn plan(host: &HostConfig) -> Result<(Vec<Device>, Vec<LinuxDeviceCgroup>)> {
    if host.privileged {
        let mut devices = Vec::new();
        walk(Path::new("/dev"), Path::new("/dev"), &mut devices);
        return Ok((devices, vec![rule(true, "a", None, None, "rwm")]));
    }
    // The runtime adds what every container may use: null, zero, full, random, urandom, tty, terminals.
    let mut rules = vec![rule(false, "a", None, None, "rwm")];
    let mut devices = Vec::new();
    for mapping in &host.devices {
        for device in mapped(mapping)? {
            let access = if mapping.cgroup_permissions.is_empty() {
                "rwm"
            } else {
                &mapping.cgroup_permissions
            };
            rules.push(rule(
                true,
                device.kind,
                Some(device.major.into()),
                Some(device.minor.into()),
                access,
            ));
            devices.push(device);
        }
    }
    for text in &host.device_cgroup_rules {
        rules.push(parse_rule(text)?);
    }
    Ok((devices, rules))
}

/// Finds what one `--device` names: a node, or all nodes of a directory.
fn mapped(mapping: &DeviceMapping) -> Result<Vec<Device>> {
    let given = Path::new(&mapping.path_on_host);
    let target = if mapping.path_in_container.is_empty() {
        given
    } else {
        Path::new(&mapping.path_in_container)
    };
    let resolved = std::fs::canonicalize(given).unwrap_or_else(|_| given.to_owned());
    let failed = |what: String| {
        Error::system(format!(
            "error gathering device information while adding custom device \"{}\": {what}",
            given.display()
        ))
    };
    let metadata = std::fs::metadata(&resolved).map_err(|error| {
        failed(if error.kind() == std::io::ErrorKind::NotFound {
            "no such file or directory".into()
        } else {
            error.to_string()
        })
    })?;
    if metadata.is_dir() {
        let mut devices = Vec::new();
        walk(&resolved, target, &mut devices);
        return Ok(devices);
    }
    match device(&metadata, target) {
        Some(device) => Ok(vec![device]),
        None => Err(failed("not a device node".into())),
    }
}

fn walk(from: &Path, to: &Path, devices: &mut Vec<Device>) {
    let Ok(entries) = std::fs::read_dir(from) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        // Made by the runtime for each container, or belonging to the host's own terminals and shared memory.
        if from == Path::new("/dev")
            && [
                "pts",
                "shm",
                "fd",
                "mqueue",
                ".lxc",
                ".lxd-mounts",
                ".udev",
                "console",
            ]
            .iter()
            .any(|own| name == *own)
        {
            continue;
        }
        let Ok(metadata) = std::fs::symlink_metadata(entry.path()) else {
            continue;
        };
        let path = to.join(&name);
        if metadata.is_dir() {
            walk(&entry.path(), &path, devices);
        } else if let Some(device) = device(&metadata, &path) {
            devices.push(device);
        }
    }
}

fn device(metadata: &std::fs::Metadata, path: &Path) -> Option<Device> {
    let kind = if metadata.file_type().is_char_device() {
        "c"
    } else if metadata.file_type().is_block_device() {
        "b"
    } else {
        return None;
    };
    let number = metadata.rdev();
    Some(Device {
        path: path.to_owned(),
        kind,
        major: rustix::fs::major(number),
        minor: rustix::fs::minor(number),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

/// Parses one `--device-cgroup-rule`: `c 1:3 rwm`, `b *:* m`, `a *:* rwm`.
fn parse_rule(text: &str) -> Result<LinuxDeviceCgroup> {
    let invalid = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let mut words = text.split_whitespace();
    let (Some(kind @ ("a" | "b" | "c")), Some(numbers), Some(access), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(invalid());
    };
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits => digits.parse::<i64>().map(Some).map_err(|_| invalid()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    if access.is_empty() || !access.chars().all(|letter| "rwm".contains(letter)) {
        return Err(invalid());
    }
    Ok(rule(true, kind, number(major)?, number(minor)?, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_parsed_or_refused() {
        assert_eq!(
            parse_rule("c 1:3 rw").unwrap(),
            rule(true, "c", Some(1), Some(3), "rw")
        );
        assert_eq!(
            parse_rule("b *:* m").unwrap(),
            rule(true, "b", None, None, "m")
        );
        for bad in ["", "c 1:3", "x 1:3 r", "c 13 r", "c 1:3 q", "c 1:3 r extra"] {
            assert!(parse_rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_device_is_found_on_the_host() {
        let mapping = DeviceMapping {
            path_on_host: "/dev/null".into(),
            path_in_container: "/dev/zip".into(),
            cgroup_permissions: "r".into(),
        };
        let (devices, rules) = plan(&HostConfig {
            devices: vec![mapping],
            ..HostConfig::default()
        })
        .unwrap();
        assert_eq!(
            (
                devices[0].path.as_path(),
                devices[0].major,
                devices[0].minor
            ),
            (Path::new("/dev/zip"), 1, 3)
        );
        assert_eq!(rules.last().unwrap().access, "r");
        let missing = DeviceMapping {
            path_on_host: "/dev/nowhere".into(),
            ..DeviceMapping::default()
        };
        let error = plan(&HostConfig {
            devices: vec![missing],
            ..HostConfig::default()
        })
        .unwrap_err();
        assert!(error.to_string().contains("/dev/nowhere"));
    }
}
