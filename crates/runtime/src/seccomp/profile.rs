//! Profiles in Docker's JSON form: the OCI form with rules that hold only for some capabilities, architectures and
//! kernels.

use gantry_api::oci::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall};
use serde::{Deserialize, Deserializer};

use super::{Architecture, Error};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Profile {
    #[serde(deserialize_with = "null_is_default")]
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(deserialize_with = "null_is_default")]
    architectures: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    arch_map: Vec<ArchitectureMap>,
    #[serde(deserialize_with = "null_is_default")]
    flags: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    listener_path: String,
    #[serde(deserialize_with = "null_is_default")]
    listener_metadata: String,
    #[serde(deserialize_with = "null_is_default")]
    syscalls: Vec<Call>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ArchitectureMap {
    architecture: String,
    #[serde(deserialize_with = "null_is_default")]
    sub_architectures: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Call {
    #[serde(deserialize_with = "null_is_default")]
    name: String,
    #[serde(deserialize_with = "null_is_default")]
    names: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    action: String,
    errno_ret: Option<u32>,
    #[serde(deserialize_with = "null_is_default")]
    args: Vec<LinuxSeccompArg>,
    #[serde(deserialize_with = "null_is_default")]
    includes: Filter,
    #[serde(deserialize_with = "null_is_default")]
    excludes: Filter,
}

/// When a rule holds, or does not.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    #[serde(deserialize_with = "null_is_default")]
    caps: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    arches: Vec<String>,
    #[serde(deserialize_with = "kernel_version")]
    min_kernel: Option<(u32, u32)>,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `MAJOR.MINOR`.
fn kernel_version<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<(u32, u32)>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty())
    else {
        return Ok(None);
    };
    let version = text
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    match version {
        Some((0, 0)) | None => Err(serde::de::Error::custom(format!(
            "invalid kernel version: \"{text}\""
        ))),
        version => Ok(version),
    }
}

impl Filter {
    /// All that is required is there.
    fn includes(&self, context: &Context<'_>) -> bool {
        (self.arches.is_empty() || self.arches.iter().any(|one| one == context.architecture))
            && self.caps.iter().all(|one| context.has(one))
            && self
                .min_kernel
                .is_none_or(|version| context.kernel >= version)
    }

    /// Something that is shut out is there.
    fn excludes(&self, context: &Context<'_>) -> bool {
        self.arches.iter().any(|one| one == context.architecture)
            || self.caps.iter().any(|one| context.has(one))
            || self
                .min_kernel
                .is_some_and(|version| context.kernel >= version)
    }
}

/// What a container has.
struct Context<'a> {
    /// As Docker's profiles name it.
    architecture: &'static str,
    capabilities: &'a [&'a str],
    kernel: (u32, u32),
}

impl Context<'_> {
    fn has(&self, capability: &str) -> bool {
        has_capability(self.capabilities, capability)
    }
}

/// Compares with and without `CAP_`.
pub(super) fn has_capability(capabilities: &[&str], capability: &str) -> bool {
    let bare = |name: &str| name.strip_prefix("CAP_").unwrap_or(name).to_owned();
    let wanted = bare(capability);
    capabilities.iter().any(|one| bare(one) == wanted)
}

/// Resolves a profile in Docker's JSON form for a container with these (bounding) capabilities on this kernel.
///
/// # Errors
/// `Decode` when the text is not such a profile, `Profile` when it contradicts itself. What its actions and operators
/// are worth is said by [`super::compile`].
pub fn resolve_profile(
    json: &str,
    capabilities: &[&str],
    kernel: (u32, u32),
) -> Result<LinuxSeccomp, Error> {
    let profile: Profile = serde_json::from_str(json).map_err(Error::Decode)?;
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(Error::Profile(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'",
        ));
    }
    let (architecture, native) = match Architecture::NATIVE {
        Architecture::Aarch64 => ("arm64", "SCMP_ARCH_AARCH64"),
        _ => ("amd64", "SCMP_ARCH_X86_64"),
    };
    let mut architectures = profile.architectures;
    if let Some(map) = profile
        .arch_map
        .into_iter()
        .find(|map| map.architecture == native)
    {
        architectures.push(map.architecture);
        architectures.extend(map.sub_architectures);
    }
    let context = Context {
        architecture,
        capabilities,
        kernel,
    };
    let mut syscalls = Vec::with_capacity(profile.syscalls.len());
    for call in profile.syscalls {
        if !call.name.is_empty() && !call.names.is_empty() {
            return Err(Error::Profile(
                "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
            ));
        }
        if call.excludes.excludes(&context) || !call.includes.includes(&context) {
            continue;
        }
        let names = if call.name.is_empty() {
            call.names
        } else {
            vec![call.name]
        };
        syscalls.push(LinuxSyscall {
            names,
            action: call.action,
            errno_ret: call.errno_ret,
            args: call.args,
        });
    }
    Ok(LinuxSeccomp {
        default_action: profile.default_action,
        default_errno_ret: profile.default_errno_ret,
        architectures,
        flags: profile.flags,
        listener_path: profile.listener_path,
        listener_metadata: profile.listener_metadata,
        syscalls,
        ..LinuxSeccomp::default()
    })
}
