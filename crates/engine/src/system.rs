//! What the engine tells of itself and its machine.

use crate::container::Status;
use crate::{Engine, Result};

/// The engine's state for `info`.
#[derive(Clone, Debug, Default)]
pub struct Info {
    pub id: String,
    pub containers: u64,
    pub running: u64,
    pub paused: u64,
    pub stopped: u64,
    pub images: u64,
    /// File system below the data root.
    pub backing_filesystem: String,
    pub kernel: String,
    pub hostname: String,
    pub architecture: String,
    pub processors: u32,
    pub memory_bytes: u64,
    pub operating_system: String,
    pub os_version: String,
    /// `1` or `2`; a hybrid is told by where the memory controller lives.
    pub cgroup_version: &'static str,
    pub cgroups: gantry_sys::cgroup::Support,
    pub runtimes: Vec<String>,
    pub default_runtime: String,
    pub data_root: String,
    pub labels: Vec<String>,
    pub events_listeners: u64,
}

impl Engine {
    /// Describes the engine and its machine.
    pub async fn info(&self) -> Result<Info> {
        let count = |wanted: &dyn Fn(Status) -> bool| {
            self.inner
                .containers
                .all()
                .iter()
                .filter(|one| wanted(one.record().state.status))
                .count() as u64
        };
        let all = self.inner.containers.all().len() as u64;
        let running = count(&|status| matches!(status, Status::Running | Status::Restarting));
        let paused = count(&|status| status == Status::Paused);
        let names = rustix::system::uname();
        let text = |words: &std::ffi::CStr| words.to_string_lossy().into_owned();
        let data_root = self.inner.config.data_root.clone();
        let ((operating_system, os_version), backing_filesystem, memory) =
            crate::blocking::run(move || {
                let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
                (os_release(), filesystem(&data_root), memory)
            })
            .await?;
        let mut runtimes: Vec<String> = self.inner.config.runtimes.keys().cloned().collect();
        runtimes.push("gantry".into());
        runtimes.sort();
        Ok(Info {
            id: self.inner.id.clone(),
            containers: all,
            running,
            paused,
            stopped: all - running - paused,
            images: self.image_count().await?,
            backing_filesystem,
            kernel: text(names.release()),
            hostname: text(names.nodename()),
            architecture: text(names.machine()),
            processors: std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
            memory_bytes: crate::container::memory_total(&memory),
            operating_system,
            os_version,
            cgroup_version: match self.inner.cgroups.version() {
                gantry_sys::cgroup::Version::V1 => "1",
                gantry_sys::cgroup::Version::V2 => "2",
            },
            cgroups: self.inner.cgroups.support(),
            runtimes,
            default_runtime: match self.inner.config.default_runtime.as_str() {
                "" => "gantry".into(),
                name => name.to_owned(),
            },
            data_root: self.inner.config.data_root.display().to_string(),
            labels: self.inner.config.labels.clone(),
            events_listeners: self.inner.events.listeners(),
        })
    }
}

/// Reads the pretty name and the version of os-release(5).
fn os_release() -> (String, String) {
    let text = std::fs::read_to_string("/etc/os-release")
        .or_else(|_| std::fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
            .unwrap_or_default()
    };
    (value("PRETTY_NAME"), value("VERSION_ID"))
}

/// Names the file system of a path by its magic number, see statfs(2).
fn filesystem(path: &std::path::Path) -> String {
    let Ok(found) = rustix::fs::statfs(path) else {
        return "<unknown>".into();
    };
    match found.f_type {
        0xEF53 => "extfs",
        0x5846_5342 => "xfs",
        0x9123_683E => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlayfs",
        0x2FC1_2FC1 => "zfs",
        _ => "<unknown>",
    }
    .into()
}
