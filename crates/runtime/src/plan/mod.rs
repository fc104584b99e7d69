//! The specification as plain data: what the child has to do, decided and checked before anything is done.
//!
//! Nothing here opens a file or asks the kernel. What the runtime cannot do is refused here, by name.

pub mod devices;
pub mod limits;
pub mod mounts;
pub mod namespaces;
pub mod process;
pub mod sysctl;

use std::ffi::CString;
use std::path::{Path, PathBuf};

use gantry_api::oci::runtime::{Linux, LinuxIdMapping, Spec};
use gantry_sys::cgroup::Limits;
use gantry_sys::mount::Propagation;

use crate::error::Error;
use devices::DevicePlan;
use mounts::MountPlan;
use namespaces::Namespaces;
use process::ProcessPlan;

/// A whole container.
#[derive(Debug)]
pub struct Plan {
    pub namespaces: Namespaces,
    pub uid_mappings: Vec<LinuxIdMapping>,
    pub gid_mappings: Vec<LinuxIdMapping>,
    /// Lines for `/proc/PID/timens_offsets`.
    pub time_offsets: String,
    /// Absolute.
    pub root: PathBuf,
    pub root_readonly: bool,
    /// What the mounts of the host become in the new namespace, recursively: slave or private.
    pub host_propagation: Propagation,
    /// What the root becomes at the end.
    pub root_propagation: Option<(Propagation, bool)>,
    pub mounts: Vec<MountPlan>,
    /// False if `/dev` is the host's own: then nothing is made in it.
    pub own_dev: bool,
    pub devices: Vec<DevicePlan>,
    pub masked_paths: Vec<PathBuf>,
    pub readonly_paths: Vec<PathBuf>,
    /// Paths beneath `/proc/sys` and values.
    pub sysctls: Vec<(String, String)>,
    pub hostname: String,
    pub domainname: String,
    pub process: ProcessPlan,
    pub personality: Option<u64>,
    pub keyring: CString,
    pub limits: Limits,
    /// As the specification has it; may be empty.
    pub cgroups_path: String,
}

/// Plans a container.
///
/// # Errors
/// [`Error::Invalid`] and [`Error::Unsupported`], with the field's name.
pub fn plan(id: &str, bundle: &Path, spec: &Spec) -> Result<Plan, Error> {
    check_id(id)?;
    if !spec.oci_version.starts_with("1.") {
        return Err(Error::invalid(format!(
            "ociVersion `{}`: this runtime knows 1.x",
            spec.oci_version
        )));
    }
    let default_linux = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&default_linux);
    refuse(linux)?;
    let namespaces = namespaces::plan(&linux.namespaces)?;
    let root = spec
        .root
        .as_ref()
        .ok_or_else(|| Error::invalid("specification without `root`"))?;
    let process = spec
        .process
        .as_ref()
        .ok_or_else(|| Error::invalid("specification without `process`"))?;
    if !spec.hostname.is_empty() && !namespaces.contains(gantry_sys::process::CLONE_NEWUTS) {
        return Err(Error::invalid(
            "hostname: unable to set hostname without a private UTS namespace",
        ));
    }
    if !spec.domainname.is_empty() && !namespaces.contains(gantry_sys::process::CLONE_NEWUTS) {
        return Err(Error::invalid(
            "domainname: unable to set domainname without a private UTS namespace",
        ));
    }
    let user = namespaces.is_new(gantry_sys::process::CLONE_NEWUSER);
    if user && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty()) {
        return Err(Error::invalid(
            "user namespace without `uidMappings` and `gidMappings`",
        ));
    }
    let (host_propagation, root_propagation) = root_propagation(&linux.rootfs_propagation)?;
    let mounts = spec
        .mounts
        .iter()
        .map(|mount| mounts::plan(mount, host_propagation))
        .collect::<Result<Vec<_>, _>>()?;
    // A devtmpfs is the host's too, wherever it is mounted.
    let own_dev = !mounts.iter().any(|mount| {
        let hosts = mount.is_bind() || matches!(&mount.kind, mounts::Kind::New { filesystem, .. } if filesystem == "devtmpfs");
        hosts && mount.destination == Path::new("/dev")
    });
    let devices = if own_dev {
        devices::plan(&linux.devices)?
    } else {
        Vec::new()
    };
    Ok(Plan {
        sysctls: sysctl::plan(&linux.sysctl, &namespaces)?,
        time_offsets: time_offsets(linux, &namespaces)?,
        namespaces,
        uid_mappings: linux.uid_mappings.clone(),
        gid_mappings: linux.gid_mappings.clone(),
        root: bundle.join(&root.path),
        root_readonly: root.readonly,
        host_propagation,
        root_propagation,
        mounts,
        own_dev,
        devices,
        masked_paths: linux.masked_paths.iter().map(PathBuf::from).collect(),
        readonly_paths: linux.readonly_paths.iter().map(PathBuf::from).collect(),
        hostname: spec.hostname.clone(),
        domainname: spec.domainname.clone(),
        process: process::plan(process)?,
        personality: process::personality(linux)?,
        keyring: CString::new(format!("_ses.{id}")).map_err(|_| Error::invalid("container id"))?,
        limits: limits::plan(linux.resources.as_ref())?,
        cgroups_path: linux.cgroups_path.clone(),
    })
}

/// Checks a container's id, which becomes a directory's name.
pub fn check_id(id: &str) -> Result<(), Error> {
    let fits = !id.is_empty()
        && id != "."
        && id != ".."
        && id.len() <= 1024
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte));
    if fits {
        Ok(())
    } else {
        Err(Error::invalid(format!("container id format: `{id}`")))
    }
}

fn refuse(linux: &Linux) -> Result<(), Error> {
    if linux.intel_rdt.is_some() {
        return Err(Error::unsupported("`linux.intelRdt`"));
    }
    if !linux.net_devices.is_empty() {
        return Err(Error::unsupported("`linux.netDevices`"));
    }
    if !linux.mount_label.is_empty() {
        return Err(Error::unsupported("`linux.mountLabel` (SELinux)"));
    }
    if linux
        .unknown
        .get("memoryPolicy")
        .is_some_and(|value| !value.is_null())
    {
        return Err(Error::unsupported("`linux.memoryPolicy`"));
    }
    if let Some(seccomp) = &linux.seccomp
        && !seccomp.listener_path.is_empty()
    {
        return Err(Error::unsupported("`linux.seccomp.listenerPath`"));
    }
    Ok(())
}

/// What the host's mounts become, and what the root becomes at the end.
type RootPropagation = (Propagation, Option<(Propagation, bool)>);

fn root_propagation(name: &str) -> Result<RootPropagation, Error> {
    if name.is_empty() {
        return Ok((Propagation::Slave, None));
    }
    let (propagation, recursive) = mounts::propagation(name)
        .ok_or_else(|| Error::invalid(format!("rootfsPropagation `{name}`")))?;
    let host = if propagation == Propagation::Private {
        Propagation::Private
    } else {
        Propagation::Slave
    };
    Ok((host, Some((propagation, recursive))))
}

fn time_offsets(linux: &Linux, namespaces: &Namespaces) -> Result<String, Error> {
    let mut lines = String::new();
    for (clock, offset) in &linux.time_offsets {
        if clock != "monotonic" && clock != "boottime" {
            return Err(Error::invalid(format!("timeOffsets: no clock `{clock}`")));
        }
        if !namespaces.is_new(gantry_sys::process::CLONE_NEWTIME) {
            return Err(Error::invalid("timeOffsets without a new time namespace"));
        }
        lines.push_str(&format!("{clock} {} {}\n", offset.secs, offset.nanosecs));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_file_names() {
        for good in ["a", "a-b_c.d+e", "0123456789abcdef"] {
            check_id(good).expect(good);
        }
        for bad in ["", ".", "..", "a/b", "a b", "é"] {
            check_id(bad).expect_err(bad);
        }
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        let refused = |json: &str| {
            let spec: Spec = serde_json::from_str(json).expect("json");
            plan("x", Path::new("/b"), &spec)
                .expect_err(json)
                .to_string()
        };
        let with = |linux: &str| {
            format!(
                r#"{{"ociVersion":"1.0.2","root":{{"path":"r"}},"process":{{"args":["a"],"cwd":"/"}},"linux":{{"namespaces":[{{"type":"mount"}}],{linux}}}}}"#
            )
        };
        assert!(refused(&with(r#""intelRdt":{}"#)).contains("intelRdt"));
        assert!(refused(&with(r#""rootfsPropagation":"sideways""#)).contains("sideways"));
        assert!(
            refused(&with(r#""timeOffsets":{"monotonic":{"secs":1}}"#)).contains("time namespace")
        );
        assert!(
            refused(&with(r#""sysctl":{"net.ipv4.ip_forward":"1"}"#))
                .contains("net.ipv4.ip_forward")
        );
        assert!(refused(r#"{"ociVersion":"2.0"}"#).contains("ociVersion"));
    }
}
