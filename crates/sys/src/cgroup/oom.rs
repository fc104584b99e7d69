//! The kernel's OOM killer: how often it killed in a cgroup, and a descriptor that wakes up when it did.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::EventfdFlags;
use rustix::fs::{OFlags, inotify};

use super::error::{failure, unsupported};
use super::layout::Version;
use super::{Cgroup, Member, file, stats};

impl Cgroup {
    /// Number of processes that the OOM killer ended here; zero without a memory controller or after removal.
    pub fn oom_kills(&self) -> u64 {
        let Some(member) = self.member("memory") else {
            return 0;
        };
        let name = match member.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        member
            .read(name)
            .ok()
            .and_then(|text| stats::keyed(&text, "oom_kill"))
            .unwrap_or(0)
    }

    /// Makes a descriptor that becomes readable when memory ran out, and possibly at other times (removal, other events
    /// of the same file): the waker reads it empty and asks [`Cgroup::oom_kills`]. An eventfd on version 1, an inotify
    /// instance on version 2; close-on-exec and non-blocking.
    ///
    /// # Errors
    /// `Unsupported` without a memory controller.
    pub fn oom_event(&self) -> io::Result<OwnedFd> {
        let member = self
            .member("memory")
            .ok_or_else(|| unsupported("no cgroup memory controller is mounted"))?;
        match member.version {
            Version::V1 => event_control(member),
            Version::V2 => {
                let path = member.path.join("memory.events");
                let descriptor =
                    inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
                inotify::add_watch(&descriptor, &path, inotify::WatchFlags::MODIFY)
                    .map_err(|error| failure("watch", &path, error))?;
                Ok(descriptor)
            }
        }
    }
}

fn event_control(member: &Member) -> io::Result<OwnedFd> {
    use std::os::fd::AsFd;
    let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let name = "memory.oom_control";
    let control = file::open(member.directory.as_fd(), name, OFlags::RDONLY)
        .map_err(|error| failure("open", &member.path.join(name), error))?;
    member.write(
        "cgroup.event_control",
        &format!("{} {}", event.as_raw_fd(), control.as_raw_fd()),
    )?;
    Ok(event)
}
