//! Freezing, listing and killing the processes of a cgroup and of everything beneath it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::error::{failure, unsupported};
use super::layout::Version;
use super::{Cgroup, Member, file};

/// Longest wait for the freezer: a task in uninterruptible sleep cannot be frozen.
const FREEZE_WAIT: Duration = Duration::from_secs(2);
/// Longest wait for killed processes to leave.
const KILL_WAIT: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Stops every process of the cgroup and waits until they stand.
    ///
    /// # Errors
    /// `TimedOut` when a task does not stop within two seconds (the cgroup is thawed again), `Unsupported` without a
    /// freezer.
    pub fn freeze(&self) -> io::Result<()> {
        let member = self.freezer()?;
        let end = Instant::now() + FREEZE_WAIT;
        let mut pause = Duration::from_micros(50);
        loop {
            match member.version {
                // FREEZING is tried again by the kernel only when written again.
                Version::V1 => member.write("freezer.state", "FROZEN")?,
                Version::V2 => member.write("cgroup.freeze", "1")?,
            }
            if is_frozen(member)? {
                return Ok(());
            }
            if Instant::now() >= end {
                let _ = self.thaw();
                return Err(failure(
                    "freeze cgroup",
                    &member.path,
                    io::Error::from(io::ErrorKind::TimedOut),
                ));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// Lets the processes go on.
    ///
    /// # Errors
    /// `Unsupported` without a freezer.
    pub fn thaw(&self) -> io::Result<()> {
        let member = self.freezer()?;
        match member.version {
            Version::V1 => member.write("freezer.state", "THAWED"),
            Version::V2 => member.write("cgroup.freeze", "0"),
        }
    }

    /// Says whether the cgroup stands frozen.
    ///
    /// # Errors
    /// `Unsupported` without a freezer.
    pub fn is_frozen(&self) -> io::Result<bool> {
        is_frozen(self.freezer()?)
    }

    /// Lists the processes of the cgroup and of those beneath it, in ascending order. Processes outside the caller's pid
    /// namespace have no number here and are left out.
    ///
    /// # Errors
    /// Those of reading; a removed cgroup has no processes.
    pub fn pids(&self) -> io::Result<Vec<i32>> {
        // A foreign runtime may have put the process into version 1 alone, or into version 2 alone.
        let first = ["pids", "freezer", "memory"]
            .iter()
            .find_map(|controller| self.member(controller));
        let mut found = BTreeSet::new();
        for member in first
            .or_else(|| self.members.first())
            .into_iter()
            .chain(self.unified())
        {
            collect(&member.path, &mut found)?;
        }
        Ok(found.into_iter().collect())
    }

    /// Kills every process and waits until none is left. On version 2 the kernel does it at once; on version 1 the cgroup
    /// is frozen so that no process can be born in between.
    ///
    /// # Errors
    /// `TimedOut` when a process does not die within ten seconds.
    pub fn kill(&self) -> io::Result<()> {
        let end = Instant::now() + KILL_WAIT;
        let mut pause = Duration::from_micros(50);
        loop {
            // cgroup.kill exists since Linux 5.14.
            if let Some(unified) = self.unified() {
                let _ = file::write(unified.directory.as_fd(), "cgroup.kill", "1");
            }
            let mut pids = self.pids()?;
            if pids.is_empty() {
                return Ok(());
            }
            let freezer = self
                .freezer()
                .ok()
                .filter(|member| member.version == Version::V1);
            if let Some(freezer) = freezer {
                // Best effort: an unfreezable task shall not protect the others.
                let _ = file::write(freezer.directory.as_fd(), "freezer.state", "FROZEN");
                pids = self.pids()?;
            }
            for pid in pids {
                if let Some(pid) = Pid::from_raw(pid) {
                    match rustix::process::kill_process(pid, Signal::KILL) {
                        Ok(()) | Err(Errno::SRCH) => {}
                        Err(error) => {
                            let _ = self.thaw();
                            return Err(failure(
                                "kill the processes of cgroup",
                                Path::new(&self.path),
                                error,
                            ));
                        }
                    }
                }
            }
            // A frozen task dies only after the thaw; one that was paused on purpose too.
            if self.freezer().is_ok() {
                let _ = self.thaw();
            }
            if Instant::now() >= end {
                let error = io::Error::from(io::ErrorKind::TimedOut);
                return Err(failure(
                    "kill the processes of cgroup",
                    Path::new(&self.path),
                    error,
                ));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn freezer(&self) -> io::Result<&Member> {
        self.member("freezer")
            .ok_or_else(|| unsupported("no cgroup freezer is mounted"))
    }
}

fn is_frozen(member: &Member) -> io::Result<bool> {
    match member.version {
        Version::V1 => Ok(member.read("freezer.state")?.trim() == "FROZEN"),
        Version::V2 => Ok(member
            .read("cgroup.events")?
            .lines()
            .any(|line| line == "frozen 1")),
    }
}

fn collect(path: &Path, found: &mut BTreeSet<i32>) -> io::Result<()> {
    let directory = match file::open_directory(path) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match file::read(directory.as_fd(), "cgroup.procs") {
        // Zero is a process outside the caller's pid namespace.
        Ok(text) => found.extend(
            text.lines()
                .filter_map(|line| line.parse::<i32>().ok())
                .filter(|pid| *pid > 0),
        ),
        // A threaded cgroup keeps its processes at its domain; a removed one has none.
        Err(Errno::OPNOTSUPP | Errno::NODEV | Errno::NOENT) => {}
        Err(error) => return Err(failure("read", &path.join("cgroup.procs"), error)),
    }
    let Ok(entries) = std::fs::read_dir(path) else {
        return Ok(());
    };
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        collect(&entry.path(), found)?;
    }
    Ok(())
}
