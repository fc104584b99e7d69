//! Another OCI runtime under the same loop, by runc's command line.
//!
//! The shim gives it a bundle of its own, a copy of the engine's config.json in which the root, the network namespace,
//! the cgroup and the terminal are what the start request says. An overlay root is mounted in a mount namespace of the
//! shim, which still gets the host's mounts. Since the shim is a subreaper, the runtime's orphans become its children.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use gantry_sys::{mount, unix};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};

use crate::container::{Executed, Streams, failed};
use crate::protocol::{ExecRequest, Failure, FailureKind, Overlay, Rootfs, StartRequest};
use crate::task::Theirs;

/// How long the runtime may take to send a terminal after it has ended well.
const CONSOLE_TIME: Duration = Duration::from_secs(5);

pub struct Foreign {
    program: PathBuf,
    args: Vec<String>,
    root: PathBuf,
    id: String,
    /// Our copy of the bundle, the pid files and sockets.
    directory: PathBuf,
    execs: u64,
    /// Kept open: the runtime finds it by this process's /proc.
    _netns: Option<OwnedFd>,
}

impl Foreign {
    /// Runs `create`.
    pub fn create(
        program: &Path,
        args: &[String],
        root: &Path,
        request: &StartRequest,
        streams: Streams,
        netns: Option<OwnedFd>,
        joins: Vec<(String, OwnedFd)>,
    ) -> Result<(Foreign, Executed), Failure> {
        let directory = request.state_root.join(&request.container_id);
        let bundle = directory.join("bundle");
        let rootfs = directory.join("rootfs");
        fs::create_dir_all(&bundle)
            .and_then(|()| fs::create_dir_all(&rootfs))
            .map_err(|cause| failed(&format!("create `{}`", bundle.display()), cause))?;
        if let Rootfs::Overlay(overlay) = &request.rootfs {
            mount_overlay(overlay, &rootfs).map_err(|cause| failed("mount the root", cause))?;
        }
        let config = request.bundle.join("config.json");
        let spec: Value = fs::read(&config)
            .and_then(|json| Ok(serde_json::from_slice(&json)?))
            .map_err(|cause| failed(&format!("read `{}`", config.display()), cause))?;
        let mut namespaces: Vec<(String, String)> = joins
            .iter()
            .map(|(kind, fd)| (kind.clone(), descriptor_path(fd)))
            .collect();
        namespaces.extend(
            netns
                .as_ref()
                .map(|fd| ("network".to_owned(), descriptor_path(fd))),
        );
        let spec = adapted(spec, request, &rootfs, &namespaces, &streams);
        fs::write(bundle.join("config.json"), spec.to_string())
            .map_err(|cause| failed("write the runtime's bundle", cause))?;
        let mut foreign = Foreign {
            program: program.to_path_buf(),
            args: args.to_vec(),
            root: root.to_path_buf(),
            id: request.container_id.clone(),
            directory,
            execs: 0,
            _netns: netns,
        };
        let mut command = foreign.command("create");
        command.arg("--bundle").arg(&bundle);
        let executed = foreign.run_with_streams(command, streams, "init")?;
        Ok((foreign, executed))
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("log.json")
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .arg("--root")
            .arg(&self.root)
            .arg("--log")
            .arg(self.log_path())
            .args(["--log-format", "json"])
            .arg(verb)
            // runc looks for newuidmap and such, and reads XDG_RUNTIME_DIR without a root of its own.
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            );
        command
    }

    /// Adds the options about streams and the pid, runs the command, and returns the process that it left.
    fn run_with_streams(
        &mut self,
        mut command: Command,
        streams: Streams,
        name: &str,
    ) -> Result<Executed, Failure> {
        let pid_file = self.directory.join(format!("{name}.pid"));
        command.arg("--pid-file").arg(&pid_file);
        let listener = match streams {
            Streams::Pipes(Theirs {
                stdin,
                stdout,
                stderr,
            }) => {
                command.stdin(stdin).stdout(stdout).stderr(stderr);
                None
            }
            Streams::Terminal(_) => {
                let path = self.directory.join(format!("{name}.sock"));
                let _ = fs::remove_file(&path);
                let listener =
                    UnixListener::bind(&path).map_err(|cause| failed("console socket", cause))?;
                command.arg("--console-socket").arg(&path);
                command
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null());
                Some((listener, path))
            }
        };
        command.arg(&self.id);
        self.run(command)?;
        let console = match listener {
            None => None,
            Some((listener, path)) => {
                let console =
                    receive_console(&listener).map_err(|cause| failed("console socket", cause))?;
                let _ = fs::remove_file(path);
                Some(console)
            }
        };
        let pid = fs::read_to_string(&pid_file)
            .ok()
            .and_then(|text| text.trim().parse::<i32>().ok())
            .ok_or_else(|| failed("runtime", "it wrote no pid"))?;
        let _ = fs::remove_file(&pid_file);
        let pidfd = Pid::from_raw(pid)
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
            .map_err(|cause| failed("open pidfd", cause))?;
        Ok(Executed {
            pid,
            pidfd,
            console,
        })
    }

    /// Runs a command to its end; an error is the last that it logged.
    fn run(&self, mut command: Command) -> Result<(), Failure> {
        let _ = fs::remove_file(self.log_path());
        let status = command
            .status()
            .map_err(|cause| failed(&format!("run `{}`", self.program.display()), cause))?;
        if status.success() {
            return Ok(());
        }
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let message =
            last_message(&log).unwrap_or_else(|| format!("`{}`: {status}", self.program.display()));
        Err(Failure {
            kind: kind_of(&message),
            message,
            errno: None,
        })
    }

    /// Runs `start`.
    pub fn start(&mut self) -> Result<(), Failure> {
        let mut command = self.command("start");
        command
            .arg(&self.id)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.run(command)
    }

    /// Runs `exec --detach`.
    pub fn exec(&mut self, request: &ExecRequest, streams: Streams) -> Result<Executed, Failure> {
        self.execs += 1;
        let name = format!("exec{}", self.execs);
        let mut process = request.process.clone();
        set_terminal(&mut process, &streams);
        let path = self.directory.join(format!("{name}.json"));
        fs::write(&path, process.to_string())
            .map_err(|cause| failed("write the exec's process", cause))?;
        let mut command = self.command("exec");
        command.arg("--detach").arg("--process").arg(&path);
        let result = self.run_with_streams(command, streams, &name);
        let _ = fs::remove_file(path);
        result
    }

    /// Runs `delete --force` and removes what we made.
    pub fn delete(&mut self) {
        let mut command = self.command("delete");
        command
            .arg("--force")
            .arg(&self.id)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let _ = self.run(command);
        let _ = mount::umount_detach(self.directory.join("rootfs"));
        // Not recursive: should the overlay still be mounted, nothing of it may be removed.
        for name in ["bundle/config.json", "log.json"] {
            let _ = fs::remove_file(self.directory.join(name));
        }
        for name in ["bundle", "rootfs", ""] {
            let _ = fs::remove_dir(self.directory.join(name));
        }
    }
}

/// Where the runtime finds a descriptor of this process.
fn descriptor_path(fd: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd())
}

/// Changes the engine's specification to what the start request says.
fn adapted(
    mut spec: Value,
    request: &StartRequest,
    rootfs: &Path,
    joined: &[(String, String)],
    streams: &Streams,
) -> Value {
    let path = spec["root"]["path"].as_str().unwrap_or("rootfs").to_owned();
    let root = match request.rootfs {
        Rootfs::Overlay(_) => rootfs.to_path_buf(),
        Rootfs::Path => request.bundle.join(path),
    };
    spec["root"]["path"] = json!(root);
    if !request.cgroup.is_empty() {
        spec["linux"]["cgroupsPath"] = json!(request.cgroup);
    }
    if !joined.is_empty() {
        let namespaces = spec["linux"]["namespaces"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let mut namespaces: Vec<Value> = namespaces
            .into_iter()
            .filter(|namespace| joined.iter().all(|(kind, _)| namespace["type"] != *kind))
            .collect();
        namespaces.extend(
            joined
                .iter()
                .map(|(kind, path)| json!({"type": kind, "path": path})),
        );
        spec["linux"]["namespaces"] = Value::Array(namespaces);
    }
    set_terminal(&mut spec["process"], streams);
    spec
}

fn set_terminal(process: &mut Value, streams: &Streams) {
    match streams {
        Streams::Pipes(_) => process["terminal"] = json!(false),
        Streams::Terminal(size) => {
            process["terminal"] = json!(true);
            if let Some((rows, columns)) = size {
                process["consoleSize"] = json!({"height": rows, "width": columns});
            }
        }
    }
}

/// Mounts an overlay in a mount namespace of our own.
fn mount_overlay(overlay: &Overlay, target: &Path) -> io::Result<()> {
    gantry_sys::process::unshare(libc::CLONE_NEWNS as u64)?;
    // Mounts that the host makes later still arrive here, ours do not arrive there.
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;
    let context = mount::fsopen("overlay")?;
    let set = |key: &str, path: &Path| {
        let path = path
            .to_str()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        mount::fsconfig_set_string(context.as_fd(), key, path)
    };
    for lower in &overlay.lowers {
        set("lowerdir+", lower)?;
    }
    set("upperdir", &overlay.upper)?;
    set("workdir", &overlay.work)?;
    for (key, value) in [
        ("index", "off"),
        ("redirect_dir", "off"),
        ("metacopy", "off"),
    ] {
        mount::fsconfig_set_string(context.as_fd(), key, value)?;
    }
    for (flag, wanted) in [
        ("userxattr", overlay.userxattr),
        ("volatile", overlay.volatile),
    ] {
        if wanted {
            mount::fsconfig_set_flag(context.as_fd(), flag)?;
        }
    }
    mount::fsconfig_create(context.as_fd())?;
    let mounted = mount::fsmount(context.as_fd(), 0)?;
    mount::move_mount_onto(mounted.as_fd(), target)
}

fn receive_console(listener: &UnixListener) -> io::Result<OwnedFd> {
    unix::wait_readable(listener.as_fd(), CONSOLE_TIME)?;
    let (socket, _) = listener.accept()?;
    unix::wait_readable(socket.as_fd(), CONSOLE_TIME)?;
    let (mut buffer, mut fds) = ([0; 4096], Vec::new());
    unix::recv_with_fds(socket.as_fd(), &mut buffer, &mut fds)?;
    fds.into_iter()
        .next()
        .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
}

/// Returns the last message of a log in JSON lines, without the runtime's own name in front.
fn last_message(log: &str) -> Option<String> {
    let line = log.lines().rev().find(|line| !line.trim().is_empty())?;
    let line: Value = serde_json::from_str(line).ok()?;
    let message = line["msg"].as_str()?;
    let message = [
        "runc create failed: ",
        "runc start failed: ",
        "exec failed: ",
    ]
    .iter()
    .find_map(|prefix| message.strip_prefix(prefix))
    .unwrap_or(message);
    Some(message.to_owned())
}

fn kind_of(message: &str) -> FailureKind {
    let program = message.contains("exec") || message.contains("executable");
    if program && (message.contains("not found") || message.contains("no such file or directory")) {
        FailureKind::NotFound
    } else if program
        && (message.contains("permission denied") || message.contains("is a directory"))
    {
        FailureKind::NotExecutable
    } else {
        FailureKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtimes_words_are_understood() {
        for (log, message, kind) in [
            (
                r#"{"level":"error","msg":"runc create failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH","time":"x"}"#,
                "unable to start container process: exec: \"nosuch\": executable file not found in $PATH",
                FailureKind::NotFound,
            ),
            (
                "{\"msg\":\"warning\"}\n{\"msg\":\"exec: \\\"/etc\\\": is a directory\"}\n",
                "exec: \"/etc\": is a directory",
                FailureKind::NotExecutable,
            ),
            (
                r#"{"msg":"cgroup: no such file or directory"}"#,
                "cgroup: no such file or directory",
                FailureKind::Other,
            ),
        ] {
            assert_eq!(last_message(log).as_deref(), Some(message));
            assert_eq!(kind_of(message), kind);
        }
        assert_eq!(last_message(""), None);
        assert_eq!(last_message("no json"), None);
    }

    #[test]
    fn the_bundle_is_adapted() {
        let spec = json!({
            "root": {"path": "rootfs", "readonly": true},
            "process": {"terminal": true},
            "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}]}
        });
        let request = StartRequest {
            bundle: PathBuf::from("/bundle"),
            cgroup: "/gantry/x".to_owned(),
            ..StartRequest::default()
        };
        let pipe = || rustix::pipe::pipe().unwrap().0;
        let streams = Streams::Pipes(Theirs {
            stdin: pipe(),
            stdout: pipe(),
            stderr: pipe(),
        });
        let adapted = adapted(
            spec,
            &request,
            Path::new("/merged"),
            &[("network".to_owned(), "/proc/1/fd/5".to_owned())],
            &streams,
        );
        assert_eq!(
            adapted,
            json!({
                "root": {"path": "/bundle/rootfs", "readonly": true},
                "process": {"terminal": false},
                "linux": {
                    "namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/1/fd/5"}],
                    "cgroupsPath": "/gantry/x"
                }
            })
        );
    }
}
