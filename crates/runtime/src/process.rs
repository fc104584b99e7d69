//! The last steps of a process before its program runs, the same for a container's init and for an exec. They happen in
//! the child, with the container's root as `/`.
//!
//! ```text
//! streams → attributes → close descriptors → directory, program → identity → (gate) → filter, capabilities → execve
//! ```
//! Descriptors are closed *before* the working directory and the program are looked up: a path through `/proc/self/fd`
//! finds nothing of the host (CVE-2024-21626). The filter comes as late as it can: without no-new-privileges it needs
//! CAP_SYS_ADMIN and so comes before the capabilities are given up, with it right before execve.

use std::ffi::{CStr, CString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use gantry_sys::caps::{self, Sets};
use gantry_sys::process::{self, StringList};
use gantry_sys::{mount, seccomp};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};

use crate::error::{Error, ExecFailure, SET_RLIMIT};
use crate::options::Stdio;
use crate::plan::process::ProcessPlan;
use crate::rootfs::mounts::is_device;
use crate::seccomp::Filter;

/// Argument 0 of an init in front of the program, as Docker's.
const INIT_NAME: &CStr = c"/sbin/docker-init";

/// Longest `/etc/passwd` that is searched for a home directory.
const PASSWD_BYTES_MAX: u64 = 4 << 20;

/// A process about to become its program.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub plan: &'a ProcessPlan,
    pub filter: Option<&'a Filter>,
    pub init_binary: Option<&'a OwnedFd>,
    pub preserve_fds: u32,
    /// The kernel's last capability, read while `/proc` was the host's.
    pub last_cap: u8,
    /// In a user namespace that is not the caller's.
    pub in_user_namespace: bool,
}

/// What is executed.
#[derive(Debug)]
pub(crate) struct Program {
    path: CString,
    arguments: StringList,
    environment: StringList,
}

/// Why a process did not become its program.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Who starts it is to be told.
    Untold(Error),
    /// The error is on the process's standard error.
    Told,
}

impl Launch<'_> {
    /// Puts the standard streams into their places and gives them to the user, so that `/dev/stdout` can be opened.
    pub fn streams(&self, stdio: &Stdio, terminal: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let failed = |error: io::Error| Error::stage("set up", "standard streams", error);
        if let Some(terminal) = terminal {
            process::set_controlling_terminal(terminal).map_err(failed)?;
            for target in 0..3 {
                process::dup_onto(terminal, target).map_err(failed)?;
            }
        } else if let Stdio::Pipes {
            stdin,
            stdout,
            stderr,
        } = stdio
        {
            // Sources below 3 would be overwritten before their turn.
            let above = |fd: &OwnedFd| process::dup_above(fd.as_fd(), 3);
            let (stdin, stdout, stderr) = (
                above(stdin).map_err(failed)?,
                above(stdout).map_err(failed)?,
                above(stderr).map_err(failed)?,
            );
            for (fd, target) in [(&stdin, 0), (&stdout, 1), (&stderr, 2)] {
                process::dup_onto(fd.as_fd(), target).map_err(failed)?;
            }
        }
        // The streams of somebody else (a user's terminal under `run`) keep their owner if they cannot be given away.
        for fd in [
            rustix::stdio::stdin(),
            rustix::stdio::stdout(),
            rustix::stdio::stderr(),
        ] {
            give_to(fd, self.plan.uid).map_err(failed)?;
        }
        Ok(())
    }

    /// Sets what copies of this process inherit: its place in the queues of the scheduler and of the OOM killer. `proc` is
    /// a `/proc` that can be trusted.
    pub fn inherited(&self, proc: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let plan = self.plan;
        if let Some(adjustment) = plan.oom_score_adj {
            oom_score(proc, adjustment)
                .map_err(|error| Error::stage("set", "oomScoreAdj", error))?;
        }
        if let Some(attributes) = &plan.scheduler {
            process::sched_setattr(attributes)
                .map_err(|error| Error::stage("set", "scheduler", error))?;
        }
        if let Some((class, level)) = plan.io_priority {
            process::ioprio_set(class, level)
                .map_err(|error| Error::stage("set", "ioPriority", error))?;
        }
        Ok(())
    }

    /// Sets the labels that the program gets from security modules.
    pub fn labels(&self, proc: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let plan = self.plan;
        if !plan.apparmor_profile.is_empty() {
            let text = format!("exec {}", plan.apparmor_profile);
            write_beneath(proc, "thread-self/attr/apparmor/exec", &text)
                .or_else(|_| write_beneath(proc, "thread-self/attr/exec", &text))
                .map_err(|error| Error::stage("set", "apparmorProfile", error))?;
        }
        if !plan.selinux_label.is_empty() {
            write_beneath(proc, "thread-self/attr/exec", &plan.selinux_label)
                .map_err(|error| Error::stage("set", "selinuxLabel", error))?;
        }
        Ok(())
    }

    /// Sets the resource limits of the calling process.
    pub fn limits(&self) -> Result<(), Error> {
        limits(self.plan, 0)
    }

    /// Closes every descriptor but the standard streams, those to preserve and `keep`.
    pub fn close(&self, keep: &[RawFd]) -> Result<(), Error> {
        let mut keep = keep.to_vec();
        keep.extend(self.init_binary.map(AsRawFd::as_raw_fd));
        let first = 3 + self.preserve_fds;
        process::close_except(first, &keep)
            .map_err(|error| Error::stage("close", "descriptors", error))?;
        for fd in 3..first {
            // One that is not open cannot be preserved; the specification allows gaps.
            let _ = preserve(fd);
        }
        Ok(())
    }

    /// Becomes the user, keeping capabilities for what is still to be done, and finds directory and program as that user.
    pub fn identify(&self) -> Result<Program, Error> {
        let plan = self.plan;
        let mut environment = StringList::new(plan.environment.clone());
        if !plan.has_home {
            environment.push(home(plan.uid));
        }
        // A directory that root may enter and the user may not, or the other way round on a network file system: either
        // will do.
        let entered = enter(&plan.cwd);
        let failed = |operation: &str, error: io::Error| {
            Error::stage(operation, format!("{}:{}", plan.uid, plan.gid), error)
        };
        caps::drop_bounding(plan.capabilities.bounding, self.last_cap)
            .map_err(|error| failed("limit the capabilities of", error))?;
        caps::set_keep(true).map_err(|error| failed("keep the capabilities of", error))?;
        match process::setgroups(&plan.groups) {
            Err(error)
                if error.raw_os_error() == Some(libc::EPERM)
                    && self.in_user_namespace
                    && plan.groups.is_empty() => {}
            other => other.map_err(|error| failed("set the groups of", error))?,
        }
        process::setresgid(plan.gid).map_err(|error| failed("set the group", error))?;
        process::setresuid(plan.uid).map_err(|error| failed("set the user", error))?;
        caps::set_keep(false).map_err(|error| failed("keep the capabilities of", error))?;
        process::umask(plan.umask);
        if let Err(error) = entered {
            if error.raw_os_error() != Some(libc::EACCES) {
                return Err(Error::Chdir {
                    path: plan.cwd.clone(),
                    source: error,
                });
            }
            enter(&plan.cwd).map_err(|source| Error::Chdir {
                path: plan.cwd.clone(),
                source,
            })?;
        }
        check_directory(&plan.cwd)?;
        if self.init_binary.is_some() {
            let arguments = StringList::new(plan.arguments.clone())
                .prepend(vec![INIT_NAME.to_owned(), c"--".to_owned()]);
            return Ok(Program {
                path: INIT_NAME.to_owned(),
                arguments,
                environment,
            });
        }
        let path = find(&plan.arguments[0], plan.search_path.as_deref())?;
        Ok(Program {
            path,
            arguments: StringList::new(plan.arguments.clone()),
            environment,
        })
    }

    /// Loads the filter, gives up capabilities and executes the program; returns only what went wrong.
    ///
    /// A program that the kernel refuses is the container's own affair, as it is with runc: the container has started,
    /// says so on its standard error and ends with 255. That is [`Failed::Told`].
    pub fn execute(&self, program: &Program) -> Failed {
        if let Err(error) = self.confine() {
            return Failed::Untold(error);
        }
        let error = match self.init_binary {
            Some(binary) => {
                process::fexecve(binary.as_fd(), &program.arguments, &program.environment)
            }
            None => process::execve(&program.path, &program.arguments, &program.environment),
        };
        let error = Error::Exec {
            program: program.path.to_string_lossy().into_owned(),
            failure: ExecFailure::Execve,
            errno: error.raw_os_error().unwrap_or(0),
        };
        // Whoever closed the stream does not want to know.
        let _ = rustix::io::write(rustix::stdio::stderr(), format!("{error}\n").as_bytes());
        Failed::Told
    }

    fn confine(&self) -> Result<(), Error> {
        let plan = self.plan;
        let failed = |object: &str, error: io::Error| Error::stage("set", object, error);
        let load = |filter: &Filter| {
            seccomp::load(&filter.program, filter.flags)
                .map(drop)
                .map_err(|error| failed("seccomp filter", error))
        };
        if let Some(filter) = self.filter.filter(|_| !plan.no_new_privileges) {
            // A change of user took the effective set away and left the permitted one.
            let sets = caps::capget().map_err(|error| failed("capabilities", error))?;
            caps::capset(Sets {
                effective: sets.permitted,
                ..sets
            })
            .map_err(|error| failed("capabilities", error))?;
            load(filter)?;
        }
        let wanted = plan.capabilities;
        caps::capset(Sets {
            effective: wanted.effective,
            permitted: wanted.permitted,
            inheritable: wanted.inheritable,
        })
        .map_err(|error| failed("capabilities", error))?;
        if wanted.ambient != caps::Set::EMPTY {
            caps::set_ambient(wanted.ambient)
                .map_err(|error| failed("ambient capabilities", error))?;
        }
        if plan.no_new_privileges {
            process::set_no_new_privs().map_err(|error| failed("noNewPrivileges", error))?;
            if let Some(filter) = self.filter {
                load(filter)?;
            }
        }
        Ok(())
    }
}

/// Sets resource limits of a process; 0 is the caller.
pub(crate) fn limits(plan: &ProcessPlan, pid: i32) -> Result<(), Error> {
    plan.rlimits.iter().try_for_each(|limit| {
        process::prlimit(pid, limit.resource, limit.soft, limit.hard)
            .map_err(|error| Error::stage(SET_RLIMIT, &limit.name, error))
    })
}

fn preserve(fd: u32) -> io::Result<()> {
    // Duplicating a descriptor onto itself clears its close-on-exec flag.
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    process::inherited(fd).and_then(|owned| {
        let outcome = process::dup_onto(owned.as_fd(), fd);
        std::mem::forget(owned);
        outcome
    })
}

fn give_to(fd: BorrowedFd<'_>, uid: u32) -> io::Result<()> {
    // A standard stream may be closed: then there is nothing to give.
    let Ok(stat) = rustix::fs::fstat(fd) else {
        return Ok(());
    };
    if stat.st_uid == uid || is_device(fd, 1, 3)? {
        return Ok(());
    }
    match rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None::<Gid>) {
        Ok(()) => Ok(()),
        Err(
            rustix::io::Errno::PERM
            | rustix::io::Errno::INVAL
            | rustix::io::Errno::ROFS
            | rustix::io::Errno::ACCESS,
        ) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes to a file of `/proc`, which is reached by descriptor where there is one of our own (CVE-2025-52881).
pub(crate) fn write_beneath(
    proc: Option<BorrowedFd<'_>>,
    path: &str,
    text: &str,
) -> io::Result<()> {
    let own;
    let proc = match proc {
        Some(proc) => proc,
        None => {
            own = mount::new_filesystem("proc", Some("proc"), &[], 0)?;
            own.as_fd()
        }
    };
    // Nothing mounted on the file is written to instead of it.
    let file = rustix::fs::openat2(
        proc,
        path,
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS | ResolveFlags::BENEATH,
    )?;
    rustix::io::write(&file, text.as_bytes())?;
    Ok(())
}

fn oom_score(proc: Option<BorrowedFd<'_>>, adjustment: i32) -> io::Result<()> {
    // What is inherited already needs no privilege: without CAP_SYS_RESOURCE the value cannot be lowered.
    match write_beneath(proc, "self/oom_score_adj", &adjustment.to_string()) {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            let Some(proc) = proc else { return Err(error) };
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(proc, "self/oom_score_adj", flags, Mode::empty())?;
            let mut text = String::new();
            std::fs::File::from(file).read_to_string(&mut text)?;
            if text.trim() == adjustment.to_string() {
                Ok(())
            } else {
                Err(error)
            }
        }
        other => other,
    }
}

fn enter(path: &str) -> io::Result<()> {
    Ok(rustix::process::chdir(path)?)
}

/// A working directory outside the root has a name that does not start with `/` (getcwd(3)).
fn check_directory(path: &str) -> Result<(), Error> {
    let outside = || {
        io::Error::other(
            "current working directory is outside of container mount namespace root -- possible container breakout detected",
        )
    };
    match rustix::process::getcwd(Vec::new()) {
        Ok(name) if name.to_bytes().starts_with(b"/") => Ok(()),
        Ok(_) | Err(rustix::io::Errno::NOENT) => Err(Error::Chdir {
            path: path.to_owned(),
            source: outside(),
        }),
        Err(error) => Err(Error::Chdir {
            path: path.to_owned(),
            source: error.into(),
        }),
    }
}

/// The `HOME` of a user after the container's own `/etc/passwd`, `/` without one.
fn home(uid: u32) -> CString {
    let read = || -> io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open("/etc/passwd", flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        // A FIFO or device of that name could keep us waiting.
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut bytes = Vec::new();
        std::fs::File::from(file)
            .take(PASSWD_BYTES_MAX)
            .read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let home = read()
        .ok()
        .and_then(|passwd| home_of(&passwd, uid))
        .unwrap_or_else(|| "/".to_owned());
    CString::new(format!("HOME={home}")).unwrap_or_else(|_| c"HOME=/".to_owned())
}

/// Finds the home directory of a user in the text of a passwd(5) file.
fn home_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let matches = fields.get(2).and_then(|field| field.parse::<u32>().ok()) == Some(uid);
        matches
            .then(|| {
                fields
                    .get(5)
                    .copied()
                    .filter(|home| !home.is_empty())
                    .map(str::to_owned)
            })
            .flatten()
    })
}

/// Finds a program as execvp(3) does, with the errors that Go's `LookPath` tells.
fn find(name: &CStr, search_path: Option<&str>) -> Result<CString, Error> {
    let program = name.to_string_lossy().into_owned();
    let failed = |failure, errno| Error::Exec {
        program: program.clone(),
        failure,
        errno,
    };
    if name.to_bytes().contains(&b'/') {
        return match executable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err((failure, errno)) => Err(failed(failure, errno)),
        };
    }
    for directory in search_path
        .unwrap_or("")
        .split(':')
        .filter(|_| search_path.is_some_and(|path| !path.is_empty()))
    {
        let directory = if directory.is_empty() { "." } else { directory };
        let Ok(candidate) = CString::new(format!("{directory}/{program}")) else {
            continue;
        };
        if executable(&candidate).is_ok() {
            if !directory.starts_with('/') {
                return Err(failed(ExecFailure::Relative, 0));
            }
            return Ok(candidate);
        }
    }
    Err(failed(ExecFailure::NotInPath, 0))
}

fn executable(path: &CStr) -> Result<(), (ExecFailure, i32)> {
    let stat = rustix::fs::stat(path).map_err(|error| (ExecFailure::Stat, error.raw_os_error()))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err((ExecFailure::Directory, libc::EISDIR));
    }
    match rustix::fs::accessat(
        rustix::fs::CWD,
        path,
        rustix::fs::Access::EXEC_OK,
        AtFlags::EACCESS,
    ) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) if stat.st_mode & 0o111 != 0 => {
            Ok(())
        }
        Err(error) => Err((ExecFailure::Permission, error.raw_os_error())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_go_finds_them() {
        let text = |name: &CStr, path| find(name, path).map_err(|error| error.to_string());
        assert_eq!(
            text(c"sh", Some("/nowhere:/bin")),
            Ok(c"/bin/sh".to_owned())
        );
        assert_eq!(
            text(c"nosuch", Some("/bin")),
            Err(r#"exec: "nosuch": executable file not found in $PATH"#.to_owned())
        );
        assert_eq!(
            text(c"sh", None),
            Err(r#"exec: "sh": executable file not found in $PATH"#.to_owned())
        );
        assert_eq!(
            text(c"sh", Some("")),
            Err(r#"exec: "sh": executable file not found in $PATH"#.to_owned())
        );
        assert_eq!(
            text(c"/bin", Some("/bin")),
            Err(r#"exec: "/bin": is a directory"#.to_owned())
        );
        assert_eq!(
            text(c"/etc/passwd", None),
            Err(r#"exec: "/etc/passwd": permission denied"#.to_owned())
        );
        assert_eq!(
            text(c"/no/x", None),
            Err(r#"exec: "/no/x": stat /no/x: no such file or directory"#.to_owned())
        );
    }

    #[test]
    fn homes_come_from_passwd() {
        let passwd = "root:x:0:0::/root:/bin/sh\n# a comment\nbad\nuser:x:7:7::/home/user:\nempty:x:8:8:::\n";
        assert_eq!(home_of(passwd, 7).as_deref(), Some("/home/user"));
        assert_eq!(home_of(passwd, 8), None);
        assert_eq!(home_of(passwd, 9), None);
    }
}
