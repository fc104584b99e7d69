//! Compiled seccomp filters, each made once: `EXEC_ROOT/seccomp/KEY.bpf`.
//!
//! The key is a hash of the profile and of the capabilities it depends on, so most containers of a machine share one
//! file. A file is written to a temporary name and renamed: a shim never reads a half one.

use std::collections::{HashMap, hash_map::DefaultHasher};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use gantry_api::oci::runtime::LinuxSeccomp;
use gantry_shim::seccomp;

use super::oci::{Seccomp, SecurityOptions};
use crate::{Engine, Error, Result, SeccompDefault};

/// The filters that this daemon has made.
#[derive(Debug)]
pub(crate) struct Filters {
    directory: PathBuf,
    made: Mutex<HashMap<u64, PathBuf>>,
    kernel: (u32, u32),
}

impl Filters {
    pub(crate) fn open(exec_root: &Path) -> std::io::Result<Filters> {
        let directory = exec_root.join("seccomp");
        std::fs::create_dir_all(&directory)?;
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let mut numbers = release
            .split(['.', '-'])
            .map(|part| part.parse().unwrap_or(0));
        let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Ok(Filters {
            directory,
            made: Mutex::default(),
            kernel,
        })
    }

    fn file(&self, profile: Option<&str>, capabilities: &[String]) -> Result<PathBuf> {
        let mut hasher = DefaultHasher::new();
        (
            profile,
            capabilities,
            self.kernel,
            env!("CARGO_PKG_VERSION"),
        )
            .hash(&mut hasher);
        let key = hasher.finish();
        let mut made = self.made.lock().expect("no holder panics");
        if let Some(path) = made.get(&key) {
            return Ok(path.clone());
        }
        let resolved = self.resolve(profile, capabilities)?;
        let filter = seccomp::compile(&resolved).map_err(|error| {
            Error::invalid(format!("invalid seccomp profile: {error}")).caused_by(error)
        })?;
        let path = self.directory.join(format!("{key:016x}.bpf"));
        let temporary = self.directory.join(format!(".{key:016x}"));
        std::fs::write(&temporary, &filter.program)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|error| Error::io("write a seccomp filter", error))?;
        made.insert(key, path.clone());
        Ok(path)
    }

    fn resolve(&self, profile: Option<&str>, capabilities: &[String]) -> Result<LinuxSeccomp> {
        let names: Vec<&str> = capabilities.iter().map(String::as_str).collect();
        match profile {
            None => Ok(seccomp::default_profile(&names, self.kernel)),
            Some(text) => seccomp::resolve_profile(text, &names, self.kernel).map_err(|error| {
                Error::invalid(format!("Decoding seccomp profile failed: {error}")).caused_by(error)
            }),
        }
    }
}

/// A container's filter: as a file for our own runtime, as a profile for a foreign one.
pub(crate) enum Chosen {
    Unconfined,
    File(PathBuf),
    Profile(LinuxSeccomp),
}

impl Engine {
    /// Chooses the filter of a container with these capabilities.
    pub(crate) fn seccomp_for(
        &self,
        security: &SecurityOptions,
        privileged: bool,
        capabilities: &[String],
        foreign: bool,
    ) -> Result<Chosen> {
        let text;
        let profile = match (&security.seccomp, &self.inner.config.seccomp_profile) {
            (Seccomp::Unconfined, _) => return Ok(Chosen::Unconfined),
            (Seccomp::Default, _) if privileged => return Ok(Chosen::Unconfined),
            (Seccomp::Default, SeccompDefault::Unconfined) => return Ok(Chosen::Unconfined),
            (Seccomp::Profile(text), _) => Some(text.as_str()),
            (Seccomp::Default, SeccompDefault::File(path)) => {
                text = std::fs::read_to_string(path).map_err(|error| {
                    Error::io(
                        format_args!("read the seccomp profile `{}`", path.display()),
                        error,
                    )
                })?;
                Some(text.as_str())
            }
            (Seccomp::BuiltIn, _) | (Seccomp::Default, SeccompDefault::BuiltIn) => None,
        };
        if foreign {
            return Ok(Chosen::Profile(
                self.inner.seccomp.resolve(profile, capabilities)?,
            ));
        }
        Ok(Chosen::File(
            self.inner.seccomp.file(profile, capabilities)?,
        ))
    }
}
