//! Device nodes of a container: those that every container has, then the specification's.

use std::path::{Path, PathBuf};

use gantry_api::oci::runtime::LinuxDevice;

use crate::error::Error;

/// The type of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    Character,
    Block,
    Fifo,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePlan {
    pub path: PathBuf,
    pub kind: NodeKind,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Plans the nodes; one of the specification replaces the default of the same path.
pub fn plan(list: &[LinuxDevice]) -> Result<Vec<DevicePlan>, Error> {
    let mut devices: Vec<DevicePlan> = DEFAULTS
        .into_iter()
        .map(|(path, major, minor)| DevicePlan {
            path: PathBuf::from(path),
            kind: NodeKind::Character,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .collect();
    for device in list {
        let device = one(device)?;
        // /dev/ptmx leads to the container's own devpts, /dev/console to its terminal.
        if device.path == Path::new("/dev/ptmx") || device.path == Path::new("/dev/console") {
            continue;
        }
        match devices.iter_mut().find(|other| other.path == device.path) {
            Some(other) => *other = device,
            None => devices.push(device),
        }
    }
    Ok(devices)
}

fn one(device: &LinuxDevice) -> Result<DevicePlan, Error> {
    let named = || device.path.display();
    if !device.path.is_absolute() {
        return Err(Error::invalid(format!(
            "device `{}`: not an absolute path",
            named()
        )));
    }
    let kind = match device.kind.as_str() {
        "c" | "u" => NodeKind::Character,
        "b" => NodeKind::Block,
        "p" => NodeKind::Fifo,
        other => {
            return Err(Error::invalid(format!(
                "device `{}`: no type `{other}`",
                named()
            )));
        }
    };
    let number = |number: i64| {
        u32::try_from(number)
            .map_err(|_| Error::invalid(format!("device `{}`: number {number}", named())))
    };
    let (major, minor) = if kind == NodeKind::Fifo {
        (0, 0)
    } else {
        (number(device.major)?, number(device.minor)?)
    };
    Ok(DevicePlan {
        path: device.path.clone(),
        kind,
        major,
        minor,
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_overrides_and_adds() {
        let device = |path: &str, kind: &str, mode| LinuxDevice {
            path: PathBuf::from(path),
            kind: kind.to_owned(),
            major: 1,
            minor: 3,
            file_mode: mode,
            ..LinuxDevice::default()
        };
        let devices = plan(&[
            device("/dev/null", "c", Some(0o20600)),
            device("/dev/x", "b", None),
            device("/dev/ptmx", "c", None),
        ])
        .expect("plan");
        assert_eq!(devices.len(), 7);
        assert_eq!(devices[0].mode, 0o600);
        assert_eq!((devices[6].kind, devices[6].mode), (NodeKind::Block, 0o666));
        plan(&[device("/dev/y", "q", None)]).expect_err("type");
        plan(&[device("dev/y", "c", None)]).expect_err("relative");
    }
}
