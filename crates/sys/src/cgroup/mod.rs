//! Control groups: version 1, version 2 and hybrids of both, decided per controller.
//!
//! A [`Cgroup`] is one path in *all* mounted hierarchies at once, named ones and the version 2 tree of a hybrid
//! included: limits go where their controller lives, and whatever can kill or count is found by any of them. It holds
//! one O_PATH descriptor per hierarchy and opens each file beneath it.
//!
//! Limits become writes in [`plan`], which touches nothing; this module carries them out. Processes join by themselves
//! ([`Join`]): writing another's pid to `cgroup.procs` waits for an RCU grace period, 6 to 10 ms each.
//!
//! It does not remove parents (they are shared), talk to systemd, or decide what a limit should be.

mod device_program;
mod error;
mod file;
mod kill;
pub mod layout;
pub mod limits;
mod oom;
pub mod plan;
pub mod stats;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::io::Errno;

use error::{failure, invalid, unsupported};
pub use layout::{Hierarchy, Layout, Support, Version};
pub use limits::{
    DeviceAccess, DeviceKind, DeviceRule, HugepageLimit, Limits, RdmaLimit, Throttle, ThrottleKind,
    WeightDevice,
};
use plan::{Current, Plan, Write};
pub use stats::Stats;

/// The directory of a cgroup in one hierarchy.
#[derive(Debug)]
struct Member {
    version: Version,
    controllers: Vec<String>,
    path: PathBuf,
    directory: OwnedFd,
}

impl Member {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|one| one == controller)
    }

    fn open(hierarchy: &Hierarchy, path: PathBuf) -> io::Result<Self> {
        let directory = file::open_directory(&path)?;
        Ok(Self {
            version: hierarchy.version,
            controllers: hierarchy.controllers.clone(),
            path,
            directory,
        })
    }

    fn read(&self, name: &str) -> io::Result<String> {
        file::read(self.directory.as_fd(), name)
            .map_err(|error| failure("read", &self.path.join(name), error))
    }

    fn write(&self, name: &str, value: &str) -> io::Result<()> {
        file::write(self.directory.as_fd(), name, value)
            .map_err(|error| self.refused(name, value, error))
    }

    /// The error for a file that is not there.
    fn lacks(&self, write: &Write) -> io::Error {
        let path = self.path.join(&write.file);
        let (file, value) = (path.display(), &write.value);
        let (controller, _) = write.file.split_once('.').unwrap_or((&write.file, ""));
        let is_handed_down = self.version == Version::V1
            || controller == "cgroup"
            || self.read("cgroup.controllers").is_ok_and(|names| {
                names
                    .split_ascii_whitespace()
                    .any(|name| name == controller)
            });
        unsupported(if is_handed_down {
            format!("this kernel has no `{file}`, which is to be set to `{value}`")
        } else {
            format!(
                "`{file}` cannot be set to `{value}`: the controller `{controller}` is not handed down to this cgroup, as by a parent with processes of its own"
            )
        })
    }

    fn refused(&self, name: &str, value: &str, error: Errno) -> io::Error {
        failure(format!("write `{value}` to"), &self.path.join(name), error)
    }
}

/// One cgroup in every hierarchy of the machine.
#[derive(Debug)]
pub struct Cgroup {
    layout: Layout,
    path: String,
    members: Vec<Member>,
}

/// Opened ways into a cgroup for a process that is about to be made. The descriptors are close-on-exec.
#[derive(Debug)]
pub struct Join {
    /// `tasks` of each version 1 hierarchy.
    pub tasks: Vec<OwnedFd>,
    /// The version 2 directory, for CLONE_INTO_CGROUP.
    pub unified: Option<OwnedFd>,
}

impl Join {
    /// Moves the calling thread into the version 1 hierarchies. Async-signal-safe: no allocation, one write each. The
    /// caller has a single thread, else the others stay behind; the version 2 tree is entered by CLONE_INTO_CGROUP.
    ///
    /// # Errors
    /// Those of write(2): `EAGAIN` from `pids`, `ENOSPC` from a `cpuset` without CPUs, `ENODEV` of a removed cgroup.
    pub fn enter(&self) -> io::Result<()> {
        for tasks in &self.tasks {
            rustix::io::write(tasks, b"0")?;
        }
        Ok(())
    }
}

impl Cgroup {
    /// Makes the cgroup in every hierarchy, parents included, and sets `limits`. A path that starts with `/` counts from
    /// the root of each hierarchy, another one from the caller's own cgroup there.
    ///
    /// An empty leftover of the same path is replaced. On an error nothing of the leaf is left behind.
    ///
    /// # Errors
    /// `AlreadyExists` when a cgroup of this path has processes or children, `Unsupported` and `InvalidInput` as
    /// [`plan::plan`], else the system's error with the file's path.
    pub fn create(layout: &Layout, path: &str, limits: &Limits) -> io::Result<Self> {
        let plan = plan::plan(layout, limits, &Current::default())?;
        check_path(path)?;
        let mut cgroup = Self {
            layout: layout.clone(),
            path: path.to_owned(),
            members: Vec::new(),
        };
        let made = cgroup.make(limits).and_then(|()| cgroup.execute(&plan));
        match made {
            Ok(()) => Ok(cgroup),
            Err(error) => {
                // The first error tells more than one of the clean-up.
                let _ = cgroup.remove();
                Err(error)
            }
        }
    }

    /// Opens a cgroup that exists in at least one hierarchy.
    ///
    /// # Errors
    /// `NotFound` when no hierarchy has it.
    pub fn open(layout: &Layout, path: &str) -> io::Result<Self> {
        check_path(path)?;
        let mut members = Vec::with_capacity(layout.hierarchies.len());
        for hierarchy in &layout.hierarchies {
            match Member::open(hierarchy, directory_of(hierarchy, path)) {
                Ok(member) => members.push(member),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if members.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no cgroup `{path}`"),
            ));
        }
        Ok(Self {
            layout: layout.clone(),
            path: path.to_owned(),
            members,
        })
    }

    /// The path as given to `create` or `open`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The layout the cgroup was opened with.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The directories in the file system with the controllers of each, e.g. for an OCI state or a cgroup mount.
    pub fn directories(&self) -> impl Iterator<Item = (&Path, &[String])> {
        self.members
            .iter()
            .map(|member| (member.path.as_path(), member.controllers.as_slice()))
    }

    /// The directory of the hierarchy that carries `controller`.
    pub fn directory(&self, controller: &str) -> Option<BorrowedFd<'_>> {
        self.member(controller)
            .map(|member| member.directory.as_fd())
    }

    /// Opens what a new process needs to join.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn prepare_join(&self) -> io::Result<Join> {
        let mut join = Join {
            tasks: Vec::with_capacity(self.members.len()),
            unified: None,
        };
        for member in &self.members {
            match member.version {
                Version::V1 => join.tasks.push(
                    file::open(
                        member.directory.as_fd(),
                        "tasks",
                        rustix::fs::OFlags::WRONLY,
                    )
                    .map_err(|error| failure("open", &member.path.join("tasks"), error))?,
                ),
                Version::V2 => join.unified = Some(member.directory.try_clone()?),
            }
        }
        Ok(join)
    }

    /// Moves a whole process in by its pid, for processes that somebody else made. Slow: each hierarchy may wait for an
    /// RCU grace period.
    ///
    /// # Errors
    /// `ESRCH` when there is no such process.
    pub fn attach(&self, pid: i32) -> io::Result<()> {
        self.members
            .iter()
            .try_for_each(|member| member.write("cgroup.procs", &pid.to_string()))
    }

    /// Changes the limits that are set in `limits` and leaves the others.
    ///
    /// # Errors
    /// As [`Cgroup::create`]; `ResourceBusy` when memory in use cannot be pressed below the new limit. Writes before the
    /// refused one hold.
    pub fn update(&self, limits: &Limits) -> io::Result<()> {
        let plan = plan::plan(&self.layout, limits, &self.current())?;
        self.execute(&plan)
    }

    /// Removes the cgroup and whatever was made beneath it in every hierarchy. Idempotent; a process that is still on its
    /// way out is waited for briefly. Parents stay.
    ///
    /// # Errors
    /// `ResourceBusy` when processes remain.
    pub fn remove(&self) -> io::Result<()> {
        let mut first = Ok(());
        for hierarchy in &self.layout.hierarchies {
            let removed = remove_directory(&directory_of(hierarchy, &self.path));
            if first.is_ok() {
                first = removed;
            }
        }
        first
    }

    /// Reads the counters of Docker's `/stats`.
    ///
    /// # Errors
    /// `NotFound` when the cgroup has been removed. Controllers that the machine lacks count zero.
    pub fn stats(&self) -> io::Result<Stats> {
        stats::read(self)
    }

    fn member(&self, controller: &str) -> Option<&Member> {
        self.members
            .iter()
            .find(|one| one.version == Version::V1 && one.has(controller))
            .or_else(|| {
                self.unified().filter(|unified| match controller {
                    "blkio" => unified.has("io"),
                    "cpuacct" => unified.has("cpu"),
                    "freezer" | "devices" | "cgroup" => true,
                    name => unified.has(name),
                })
            })
    }

    fn unified(&self) -> Option<&Member> {
        self.members.iter().find(|one| one.version == Version::V2)
    }

    fn make(&mut self, limits: &Limits) -> io::Result<()> {
        for index in 0..self.layout.hierarchies.len() {
            let hierarchy = &self.layout.hierarchies[index];
            let path = directory_of(hierarchy, &self.path);
            make_leaf(hierarchy, &path)?;
            let member = Member::open(hierarchy, path)?;
            if member.version == Version::V1 && member.has("cpuset") {
                inherit_cpuset(
                    hierarchy,
                    &member.path,
                    limits.cpuset_cpus.is_none(),
                    limits.cpuset_mems.is_none(),
                )?;
            }
            self.members.push(member);
        }
        Ok(())
    }

    /// Carries out a plan. A value refused as invalid is tried once more after the others: a period may only fit the
    /// quota that follows it, or the reverse, depending on what was set before.
    fn execute(&self, plan: &Plan) -> io::Result<()> {
        let mut again = Vec::new();
        let mut opened: Option<(&str, &str, OwnedFd)> = None;
        for write in &plan.writes {
            let member = self.member_for(write)?;
            // Device rules are many lines to one file.
            let kept = opened.take().filter(|(controller, name, _)| {
                *controller == write.controller && *name == write.file
            });
            let descriptor = match kept {
                Some((_, _, descriptor)) => Ok(descriptor),
                None => file::open(
                    member.directory.as_fd(),
                    &write.file,
                    rustix::fs::OFlags::WRONLY,
                ),
            };
            let result = match descriptor {
                Ok(descriptor) => {
                    let result = file::write_to(descriptor.as_fd(), &write.value);
                    opened = Some((&write.controller, &write.file, descriptor));
                    result
                }
                Err(Errno::NOENT) => match &write.instead {
                    Some((name, value)) => file::write(member.directory.as_fd(), name, value),
                    None if write.optional => Ok(()),
                    None => Err(Errno::NOENT),
                },
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => {}
                Err(Errno::INVAL) => again.push(write),
                Err(Errno::NOENT) => return Err(member.lacks(write)),
                Err(error) => return Err(member.refused(&write.file, &write.value, error)),
            }
        }
        for write in again {
            self.member_for(write)?.write(&write.file, &write.value)?;
        }
        if let Some(rules) = &plan.device_program {
            let member = self
                .unified()
                .ok_or_else(|| unsupported("device rules need cgroup version 2 here"))?;
            let directory = file::open_directory_for_reading(&member.path)?;
            device_program::attach(directory.as_fd(), rules)
                .map_err(|error| failure("attach a device program to", &member.path, error))?;
        }
        Ok(())
    }

    fn member_for(&self, write: &Write) -> io::Result<&Member> {
        // Files of a `unified` map belong to version 2 although the plan names the controller as version 1 does.
        self.member(&write.controller).ok_or_else(|| {
            unsupported(format!(
                "cgroup `{}` is not in the hierarchy of `{}`",
                self.path, write.controller
            ))
        })
    }

    fn current(&self) -> Current {
        let number = |controller: &str, version: Version, name: &str| {
            let member = self
                .member(controller)
                .filter(|member| member.version == version)?;
            let text = member.read(name).ok()?;
            // Version 1 says "unlimited" as the largest page-aligned number; "max" does not parse.
            text.split_ascii_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
                .filter(|bytes| *bytes < 1 << 62)
        };
        Current {
            memory_bytes: number("memory", Version::V1, "memory.limit_in_bytes")
                .or_else(|| number("memory", Version::V2, "memory.max")),
            memory_swap_bytes: number("memory", Version::V1, "memory.memsw.limit_in_bytes"),
            cpu_quota_us: number("cpu", Version::V2, "cpu.max"),
        }
    }
}

/// Refuses paths that would leave the hierarchy or name its root: the root cannot be removed, but it could be killed.
fn check_path(path: &str) -> io::Result<()> {
    let mut names = path.split('/').filter(|name| !name.is_empty()).peekable();
    if names.peek().is_none()
        || path.contains('\0')
        || names.any(|name| name == "." || name == "..")
    {
        return Err(invalid(format!("`{path}` is not a cgroup path")));
    }
    Ok(())
}

impl Layout {
    /// Removes a cgroup that several share, such as the parent of an engine's, from every hierarchy where nobody is in
    /// it and nothing beneath it.
    pub fn remove_empty(&self, path: &str) {
        if check_path(path).is_err() {
            return;
        }
        for hierarchy in &self.hierarchies {
            // Busy or gone, both are fine.
            let _ = rustix::fs::rmdir(directory_of(hierarchy, path));
        }
    }
}

fn directory_of(hierarchy: &Hierarchy, path: &str) -> PathBuf {
    let base = hierarchy.mount_point.as_path();
    if path.starts_with('/') {
        base.join(path.trim_start_matches('/'))
    } else {
        base.join(hierarchy.own_path.trim_start_matches('/'))
            .join(path)
    }
}

fn make_leaf(hierarchy: &Hierarchy, path: &Path) -> io::Result<()> {
    let failed = |error: Errno| failure("make cgroup", path, error);
    // Parents are shared and may be removed by somebody else in between, or an empty leaf be left from a crash.
    for _ in 0..4 {
        if hierarchy.version == Version::V2 {
            match delegate(hierarchy, path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
            Ok(()) => return Ok(()),
            Err(Errno::NOENT) => make_parents(hierarchy, path)?,
            Err(Errno::EXIST) => match rustix::fs::rmdir(path) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::BUSY) => return Err(failed(Errno::EXIST)),
                Err(error) => return Err(failed(error)),
            },
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(Errno::BUSY))
}

fn make_parents(hierarchy: &Hierarchy, path: &Path) -> io::Result<()> {
    let mut missing: Vec<&Path> = Vec::new();
    for parent in path.ancestors().skip(1) {
        if parent == hierarchy.mount_point || parent.exists() {
            break;
        }
        missing.push(parent);
    }
    for parent in missing.into_iter().rev() {
        match rustix::fs::mkdir(parent, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failure("make cgroup", parent, error)),
        }
    }
    Ok(())
}

/// Hands the tree's controllers down to the parent of `path`. A controller that the kernel will not hand down is passed
/// over here: the limit that needs it names the missing file.
fn delegate(hierarchy: &Hierarchy, path: &Path) -> io::Result<()> {
    if hierarchy.controllers.is_empty() {
        return Ok(());
    }
    let mut ancestors: Vec<&Path> = path
        .ancestors()
        .skip(1)
        .take_while(|one| one.starts_with(&hierarchy.mount_point))
        .collect();
    ancestors.reverse();
    for ancestor in ancestors {
        let directory = file::open_directory(ancestor)?;
        let enabled = file::read(directory.as_fd(), "cgroup.subtree_control")
            .map_err(|error| failure("read", &ancestor.join("cgroup.subtree_control"), error))?;
        let missing: Vec<String> = hierarchy
            .controllers
            .iter()
            .filter(|controller| {
                !enabled
                    .split_ascii_whitespace()
                    .any(|one| one == controller.as_str())
            })
            .map(|controller| format!("+{controller}"))
            .collect();
        if missing.is_empty() {
            continue;
        }
        if file::write(
            directory.as_fd(),
            "cgroup.subtree_control",
            &missing.join(" "),
        )
        .is_err()
        {
            for controller in &missing {
                let _ = file::write(directory.as_fd(), "cgroup.subtree_control", controller);
            }
        }
    }
    Ok(())
}

/// Copies the parent's CPUs and memory nodes: version 1 makes a cpuset empty, and nobody can join an empty one.
fn inherit_cpuset(hierarchy: &Hierarchy, path: &Path, cpus: bool, mems: bool) -> io::Result<()> {
    let Some(parent) = path
        .parent()
        .filter(|parent| parent.starts_with(&hierarchy.mount_point))
    else {
        return Ok(());
    };
    let (own, above) = (file::open_directory(path)?, file::open_directory(parent)?);
    for (wanted, name) in [(cpus, "cpuset.cpus"), (mems, "cpuset.mems")] {
        if !wanted {
            continue;
        }
        let read = || {
            file::read(above.as_fd(), name)
                .map_err(|error| failure("read", &parent.join(name), error))
        };
        let mut list = read()?;
        if list.trim().is_empty() {
            // A parent made on demand is as empty.
            inherit_cpuset(
                hierarchy,
                parent,
                name == "cpuset.cpus",
                name == "cpuset.mems",
            )?;
            list = read()?;
        }
        file::write(own.as_fd(), name, list.trim()).map_err(|error| {
            failure(
                format!("write `{}` to", list.trim()),
                &path.join(name),
                error,
            )
        })?;
    }
    // A limit on one list alone must still find a parent that is not empty.
    if !(cpus && mems) && rustix::fs::access(parent, rustix::fs::Access::EXISTS).is_ok() {
        for (inherited, name) in [(cpus, "cpuset.cpus"), (mems, "cpuset.mems")] {
            let empty = !inherited
                && file::read(above.as_fd(), name).is_ok_and(|list| list.trim().is_empty());
            if empty {
                inherit_cpuset(
                    hierarchy,
                    parent,
                    name == "cpuset.cpus",
                    name == "cpuset.mems",
                )?;
            }
        }
    }
    Ok(())
}

/// Waits before the next try of a busy removal, 0.16 s in all.
const REMOVAL_PAUSES_US: [u64; 10] = [
    100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 40_000, 80_000,
];

fn remove_directory(path: &Path) -> io::Result<()> {
    let mut pauses = REMOVAL_PAUSES_US.iter();
    loop {
        match rustix::fs::rmdir(path) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // Children or processes: the kernel does not say which.
            Err(Errno::BUSY) => {}
            Err(error) => return Err(failure("remove cgroup", path, error)),
        }
        let mut had_children = false;
        if let Ok(entries) = std::fs::read_dir(path) {
            for entry in entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            {
                had_children = true;
                remove_directory(&entry.path())?;
            }
        }
        if !had_children {
            let Some(pause) = pauses.next() else {
                return Err(failure("remove cgroup", path, Errno::BUSY));
            };
            std::thread::sleep(Duration::from_micros(*pause));
        }
    }
}

#[cfg(test)]
mod tests;
