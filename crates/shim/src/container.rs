//! The container as the runtime made it: Gantry's runtime in this process, or another one by its command line.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_api::oci::runtime::{LinuxNamespace, LinuxSeccomp, Process, Spec};
use gantry_runtime::{CreateOptions, Created, DeleteOptions, ExecOptions, Stdio};
use gantry_sys::cgroup::Cgroup;
use rustix::fs::{Mode, OFlags};

use crate::foreign::Foreign;
use crate::protocol::{ExecRequest, Failure, FailureKind, Rootfs, Runtime, StartRequest};
use crate::task::Theirs;

/// The process's side of its streams.
#[derive(Debug)]
pub enum Streams {
    Pipes(Theirs),
    /// Rows and columns, if known.
    Terminal(Option<(u16, u16)>),
}

/// A process that was started in a container.
#[derive(Debug)]
pub struct Executed {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub console: Option<OwnedFd>,
}

enum Maker {
    BuiltIn {
        created: Box<Created>,
        state_root: PathBuf,
        id: String,
        bundle: PathBuf,
        seccomp_filter: Option<PathBuf>,
    },
    Foreign {
        foreign: Foreign,
        cgroup: Option<Cgroup>,
    },
}

/// A container that exists.
pub struct Container {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub console: Option<OwnedFd>,
    maker: Maker,
}

pub(crate) fn failed(what: &str, cause: impl std::fmt::Display) -> Failure {
    Failure {
        kind: FailureKind::Other,
        message: format!("{what}: {cause}"),
        errno: None,
    }
}

fn from_runtime(error: &gantry_runtime::Error, message: String) -> Failure {
    let kind = if error.is_not_found() {
        FailureKind::NotFound
    } else if error.is_not_executable() {
        FailureKind::NotExecutable
    } else {
        FailureKind::Other
    };
    Failure {
        kind,
        message,
        errno: Some(error.errno()).filter(|&errno| errno != 0),
    }
}

fn read_filter(path: Option<&Path>) -> Result<Option<Vec<u8>>, Failure> {
    path.map(|path| {
        fs::read(path)
            .map_err(|cause| failed(&format!("read seccomp filter `{}`", path.display()), cause))
    })
    .transpose()
}

/// Creates the container up to the point where its process could be executed.
pub fn create(
    request: &StartRequest,
    streams: Streams,
    netns: Option<OwnedFd>,
    joins: Vec<(String, OwnedFd)>,
) -> Result<Container, Failure> {
    if let Runtime::Foreign {
        program,
        args,
        root,
    } = &request.runtime
    {
        if request.init {
            return Err(failed(
                "init",
                "a foreign runtime is not given Gantry's init: name one in the bundle",
            ));
        }
        let (foreign, executed) =
            Foreign::create(program, args, root, request, streams, netns, joins)?;
        let cgroup = gantry_sys::cgroup::Layout::detect()
            .ok()
            .filter(|_| !request.cgroup.is_empty())
            .and_then(|layout| Cgroup::open(&layout, &request.cgroup).ok());
        let Executed {
            pid,
            pidfd,
            console,
        } = executed;
        return Ok(Container {
            pid,
            pidfd,
            console,
            maker: Maker::Foreign { foreign, cgroup },
        });
    }
    let mut spec = read_spec(&request.bundle)?;
    if !joins.is_empty() {
        let namespaces = &mut spec.linux.get_or_insert_default().namespaces;
        namespaces.extend(joins.iter().map(|(kind, namespace)| LinuxNamespace {
            kind: kind.clone(),
            path: format!("/proc/self/fd/{}", namespace.as_raw_fd()).into(),
        }));
    }
    let mut options = CreateOptions::new(
        request.container_id.clone(),
        request.bundle.clone(),
        spec,
        request.state_root.clone(),
    );
    options
        .spec
        .process
        .iter_mut()
        .for_each(|process| process.terminal = matches!(streams, Streams::Terminal(_)));
    options.stdio = stdio(streams);
    options.rootfs = match &request.rootfs {
        Rootfs::Path => gantry_runtime::Rootfs::Path,
        Rootfs::Overlay(overlay) => gantry_runtime::Rootfs::Overlay(gantry_runtime::Overlay {
            lowers: overlay.lowers.clone(),
            upper: overlay.upper.clone(),
            work: overlay.work.clone(),
            userxattr: overlay.userxattr,
            volatile: overlay.volatile,
        }),
    };
    options.netns = netns;
    options.seccomp_filter = read_filter(request.seccomp_filter.as_deref())?;
    options.cgroup = Some(request.cgroup.clone()).filter(|path| !path.is_empty());
    if request.init {
        let own = rustix::fs::open(
            "/proc/self/exe",
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        );
        options.init_binary = Some(own.map_err(|cause| failed("open own executable", cause))?);
    }
    let mut created =
        gantry_runtime::create(options).map_err(|error| from_runtime(&error, error.runc_text()))?;
    let pidfd = created
        .pidfd
        .try_clone()
        .map_err(|cause| failed("duplicate pidfd", cause))?;
    Ok(Container {
        pid: created.pid,
        pidfd,
        console: created.console.take(),
        maker: Maker::BuiltIn {
            created: Box::new(created),
            state_root: request.state_root.clone(),
            id: request.container_id.clone(),
            bundle: request.bundle.clone(),
            seccomp_filter: request.seccomp_filter.clone(),
        },
    })
}

/// Reads the bundle's own seccomp profile: it is too large to be kept for an exec that may never come.
fn profile(bundle: &Path) -> Result<Option<LinuxSeccomp>, Failure> {
    Ok(read_spec(bundle)?.linux.and_then(|linux| linux.seccomp))
}

fn read_spec(bundle: &Path) -> Result<Spec, Failure> {
    let config = bundle.join("config.json");
    fs::read(&config)
        .and_then(|json| Ok(serde_json::from_slice(&json)?))
        .map_err(|cause| failed(&format!("read `{}`", config.display()), cause))
}

fn stdio(streams: Streams) -> Stdio {
    match streams {
        Streams::Pipes(Theirs {
            stdin,
            stdout,
            stderr,
        }) => Stdio::Pipes {
            stdin,
            stdout,
            stderr,
        },
        Streams::Terminal(size) => Stdio::Terminal { size },
    }
}

impl Container {
    /// Lets the process go; returns once it is executed.
    pub fn start(&mut self) -> Result<(), Failure> {
        match &mut self.maker {
            Maker::BuiltIn { created, .. } => created
                .start()
                .map_err(|error| from_runtime(&error, error.runc_text())),
            Maker::Foreign { foreign, .. } => foreign.start(),
        }
    }

    /// Starts one more process.
    pub fn exec(&mut self, request: &ExecRequest, streams: Streams) -> Result<Executed, Failure> {
        match &mut self.maker {
            Maker::BuiltIn {
                created,
                id,
                bundle,
                seccomp_filter,
                ..
            } => {
                let mut process: Process = serde_json::from_value(request.process.clone())
                    .map_err(|cause| failed("process of the exec", cause))?;
                process.terminal = matches!(streams, Streams::Terminal(_));
                // A process of its own gets the sandbox of the container.
                let path = request
                    .seccomp_filter
                    .as_deref()
                    .or(seccomp_filter.as_deref());
                let profile = if path.is_none() {
                    profile(bundle)?
                } else {
                    None
                };
                let options = ExecOptions {
                    id,
                    pid: created.pid,
                    pidfd: created.pidfd.as_fd(),
                    process,
                    stdio: stdio(streams),
                    cgroup: &created.cgroup,
                    seccomp_filter: read_filter(path)?,
                    seccomp: profile.as_ref(),
                    no_new_keyring: false,
                    preserve_fds: 0,
                    pid_file: None,
                };
                let executed = gantry_runtime::exec(options)
                    .map_err(|error| from_runtime(&error, error.runc_exec_text()))?;
                Ok(Executed {
                    pid: executed.pid,
                    pidfd: executed.pidfd,
                    console: executed.console,
                })
            }
            Maker::Foreign { foreign, .. } => foreign.exec(request, streams),
        }
    }

    fn cgroup(&self) -> Option<&Cgroup> {
        match &self.maker {
            Maker::BuiltIn { created, .. } => Some(&created.cgroup),
            Maker::Foreign { cgroup, .. } => cgroup.as_ref(),
        }
    }

    /// Returns a descriptor that is readable after an OOM; without a memory controller there is none.
    pub fn oom_event(&self) -> Option<OwnedFd> {
        self.cgroup()?.oom_event().ok()
    }

    pub fn oom_kills(&self) -> u64 {
        self.cgroup().map_or(0, Cgroup::oom_kills)
    }

    /// Returns an O_PATH descriptor of the container's root as its processes see it.
    pub fn root(&self) -> io::Result<OwnedFd> {
        match &self.maker {
            Maker::BuiltIn { created, .. } => created.root.try_clone(),
            Maker::Foreign { .. } => Ok(rustix::fs::open(
                format!("/proc/{}/root", self.pid),
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?),
        }
    }

    /// Kills what init has left behind, which is nothing unless it had no process namespace of its own.
    pub fn kill_all(&mut self) {
        if let Some(cgroup) = self.cgroup()
            && cgroup.pids().is_ok_and(|pids| !pids.is_empty())
        {
            let _ = cgroup.kill();
        }
    }

    /// Removes the container: its state, its cgroup, and last its `poststop` hooks. A failure leaves something for the
    /// engine's next start to remove; the exit is told all the same.
    pub fn delete(&mut self) {
        match &mut self.maker {
            Maker::BuiltIn { state_root, id, .. } => {
                let _ = gantry_runtime::delete(DeleteOptions {
                    state_root,
                    id,
                    force: true,
                });
            }
            Maker::Foreign { foreign, cgroup } => {
                foreign.delete();
                if let Some(cgroup) = cgroup {
                    let _ = cgroup.remove();
                }
            }
        }
    }
}

/// Returns field 22 of /proc/PID/stat: when the process started, in clock ticks since boot. 0 if it is gone.
pub fn start_time_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field is in parentheses and may hold anything, spaces and parentheses too.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    fields
        .split_ascii_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0)
}
