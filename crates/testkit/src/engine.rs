//! An engine to test: Gantry's daemon in namespaces and directories of its own, or the reference engine.
//!
//! A private engine has its own network namespace (the "host" of its containers' ports) joined by a veth pair to a second
//! one, the "outside", from where a client on another machine would come. It touches nothing else: its cgroups have a parent
//! of their own, its files lie in a temporary directory, and dropping it ends every process that it started, by pid. When the
//! test is killed, [`crate::janitor`] does so.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::http::{self, Response};
use crate::janitor::Janitor;
use crate::space::Space;
use crate::wait::eventually_within;

/// The environment variable with the reference engine's socket, a path.
pub const ORACLE_SOCKET: &str = "GANTRY_ORACLE_SOCKET";

/// The images that scenarios use, archives in `target/test-images`.
pub const IMAGES: &[&str] = &["busybox", "app", "web", "debian"];

/// A running engine.
pub struct Engine {
    pub socket: PathBuf,
    /// The address at which `outside` sees the engine's host.
    pub address: IpAddr,
    pub outside: Space,
    private: Option<Private>,
}

struct Private {
    /// Dropped with the rest, after everything was ended.
    _janitor: Janitor,
    space: Space,
    directory: TempDir,
    daemon: Mutex<Option<Child>>,
    cgroup_parent: String,
    arguments: Vec<String>,
}

/// Where the engine keeps its things, for the leak check.
#[derive(Debug, Clone)]
pub struct Places {
    pub data_root: PathBuf,
    pub exec_root: PathBuf,
    pub cgroup_parent: String,
    /// A process in the engine's host namespaces.
    pub host_pid: u32,
}

impl Engine {
    /// The engine that the environment asks for: the reference if its socket is named, else Gantry in private.
    pub fn of_environment() -> Engine {
        match std::env::var_os(ORACLE_SOCKET) {
            Some(socket) => Engine::reference(PathBuf::from(socket)),
            None => Engine::private(&[]),
        }
    }

    /// The reference engine at `socket`, running on this machine.
    pub fn reference(socket: PathBuf) -> Engine {
        let outside = Space::hold();
        let link = format!("tk{}", outside.pid());
        shell(&format!(
            "ip link add {link} type veth peer name eth0 netns {pid}
             ip addr add 10.231.78.1/24 dev {link}; ip link set {link} up",
            pid = outside.pid()
        ));
        outside.script("ip addr add 10.231.78.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.231.78.1");
        let engine = Engine {
            socket,
            address: Ipv4Addr::new(10, 231, 78, 1).into(),
            outside,
            private: None,
        };
        engine.load_images();
        engine
    }

    /// Starts Gantry's daemon with `arguments` beside those that keep it to itself, and loads the test images.
    pub fn private(arguments: &[&str]) -> Engine {
        let engine = Engine::private_empty(arguments);
        engine.start_daemon(&[]);
        engine.load_images();
        engine
    }

    /// As [`Engine::private`], without images and without starting the daemon.
    pub fn private_empty(arguments: &[&str]) -> Engine {
        let (space, outside) = (Space::hold(), Space::hold());
        space.script(&format!(
            "ip link add uplink type veth peer name eth0 netns {pid}
             ip addr add 10.231.77.1/24 dev uplink; ip -6 addr add fd77::1/64 dev uplink nodad
             ip link set uplink up; ip route add default via 10.231.77.2",
            pid = outside.pid()
        ));
        outside.script(
            "ip addr add 10.231.77.2/24 dev eth0; ip -6 addr add fd77::2/64 dev eth0 nodad
             ip link set eth0 up; ip route add default via 10.231.77.1",
        );
        let directory = tempfile::Builder::new()
            .prefix("gantry-test-")
            .tempdir_in("/var/tmp")
            .expect("make a directory");
        let cgroup_parent = format!("gantry-test-{}", space.pid());
        let private = Private {
            _janitor: Janitor::watch(space.pid(), &cgroup_parent, directory.path()),
            cgroup_parent,
            space,
            daemon: Mutex::new(None),
            arguments: arguments
                .iter()
                .map(|&argument| argument.to_owned())
                .collect(),
            directory,
        };
        Engine {
            socket: private.directory.path().join("gantry.sock"),
            address: Ipv4Addr::new(10, 231, 77, 1).into(),
            outside,
            private: Some(private),
        }
    }

    pub fn is_reference(&self) -> bool {
        self.private.is_none()
    }

    fn own(&self) -> &Private {
        self.private
            .as_ref()
            .expect("the reference engine is not ours to start, kill or look into")
    }

    pub fn places(&self) -> Places {
        let private = self.own();
        Places {
            data_root: private.directory.path().join("data"),
            exec_root: private.directory.path().join("run"),
            cgroup_parent: private.cgroup_parent.clone(),
            host_pid: private.space.pid(),
        }
    }

    /// The pid of the daemon that runs now.
    pub fn daemon_pid(&self) -> Option<u32> {
        self.own()
            .daemon
            .lock()
            .expect("no panic while locked")
            .as_ref()
            .map(Child::id)
    }

    /// Starts the daemon, with more environment, without waiting for it.
    pub fn spawn_daemon(&self, environment: &[(&str, &str)]) {
        let private = self.own();
        let root = private.directory.path();
        let words = private.space.enter();
        let log = File::options()
            .create(true)
            .append(true)
            .open(root.join("daemon.log"))
            .expect("open the daemon's log");
        let path = |name: &str| root.join(name).into_os_string();
        let child = Command::new(&words[0])
            .args(&words[1..])
            .arg(binary())
            .arg("daemon")
            .args([
                "--data-root".into(),
                path("data"),
                "--exec-root".into(),
                path("run"),
            ])
            .args(["--pidfile".into(), path("gantry.pid")])
            .arg("-H")
            .arg(format!("unix://{}", self.socket.display()))
            .args(["--cgroup-parent", &private.cgroup_parent])
            .args(&private.arguments)
            .env_remove("DOCKER_HOST")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("duplicate"))
            .stderr(log)
            .spawn()
            .expect("start the daemon");
        *private.daemon.lock().expect("no panic while locked") = Some(child);
    }

    /// Starts the daemon and waits until it answers.
    pub fn start_daemon(&self, environment: &[(&str, &str)]) {
        self.spawn_daemon(environment);
        let ready = self.wait_ready(Duration::from_secs(30));
        assert!(
            ready,
            "the daemon does not answer; its log ends:\n{}",
            self.daemon_log_tail()
        );
    }

    /// Whether the daemon answers within `limit`; false as soon as it has ended.
    pub fn wait_ready(&self, limit: Duration) -> bool {
        let deadline = std::time::Instant::now() + limit;
        while std::time::Instant::now() < deadline {
            if http::unix(&self.socket, "GET", "/_ping", None)
                .is_ok_and(|response| response.status == 200)
            {
                return true;
            }
            if !self.daemon_runs() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Whether the daemon that was started last still runs.
    pub fn daemon_runs(&self) -> bool {
        let mut daemon = self.own().daemon.lock().expect("no panic while locked");
        daemon
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Sends the daemon `signal` and waits until it is gone.
    pub fn end_daemon(&self, signal: Signal) {
        let Some(mut child) = self
            .own()
            .daemon
            .lock()
            .expect("no panic while locked")
            .take()
        else {
            return;
        };
        let pid = Pid::from_child(&child);
        if matches!(child.try_wait(), Ok(None)) {
            let _ = kill_process(pid, signal);
        }
        let gone = std::time::Instant::now() + Duration::from_secs(20);
        while matches!(child.try_wait(), Ok(None)) {
            if std::time::Instant::now() > gone {
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The last lines of the daemon's own log.
    pub fn daemon_log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.own().directory.path().join("daemon.log"))
            .unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The processes in the engine's namespaces: the daemon, its shims, netd, host-network containers; not the holder.
    pub fn processes(&self) -> Vec<u32> {
        let holder = self.own().space.pid();
        let namespace =
            |pid: u32, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
        let (mounts, network) = (namespace(holder, "mnt"), namespace(holder, "net"));
        let is_own = |pid: u32| {
            (mounts.is_some() && namespace(pid, "mnt") == mounts)
                || (network.is_some() && namespace(pid, "net") == network)
        };
        pids().filter(|&pid| pid != holder && is_own(pid)).collect()
    }

    /// The shims and netd by role: processes of the engine with `role` as second argument. netd's keeper, which is a copy
    /// of it, has the role `keeper`.
    pub fn processes_of_role(&self, role: &str) -> Vec<u32> {
        let is_role = |pid: &u32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if name == "gantry-keeper\n" {
                return role == "keeper";
            }
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|&byte| byte == 0).nth(1) == Some(role.as_bytes())
        };
        self.processes().into_iter().filter(is_role).collect()
    }

    /// Runs `work` where the engine's host addresses are.
    pub fn on_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.private {
            Some(private) => private.space.within(work),
            None => work(),
        }
    }

    /// The words that run a command where the engine's host addresses are; none for the reference.
    pub fn host_words(&self) -> Vec<String> {
        self.private
            .as_ref()
            .map(|private| private.space.enter())
            .unwrap_or_default()
    }

    /// The words that run a command among the mounts that the daemon sees.
    pub fn mount_words(&self) -> Vec<String> {
        if self.private.is_some() {
            return self.host_words();
        }
        let daemon = std::os::unix::net::UnixStream::connect(&self.socket)
            .and_then(|stream| Ok(rustix::net::sockopt::socket_peercred(&stream)?.pid))
            .expect("the reference daemon listens");
        let namespace = format!("--mount=/proc/{}/ns/mnt", daemon.as_raw_nonzero());
        vec!["nsenter".to_owned(), namespace, "--".to_owned()]
    }

    /// One request to the API that may find no daemon.
    pub fn try_api(
        &self,
        method: &str,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Option<Response> {
        let bytes = body.map(|body| serde_json::to_vec(body).expect("JSON"));
        http::unix(
            &self.socket,
            method,
            path,
            bytes.as_deref().map(|bytes| ("application/json", bytes)),
        )
        .ok()
    }

    /// One request to the API.
    pub fn api(&self, method: &str, path: &str, body: Option<&serde_json::Value>) -> Response {
        let bytes = body.map(|body| serde_json::to_vec(body).expect("JSON"));
        let body = bytes.as_deref().map(|bytes| ("application/json", bytes));
        http::unix(&self.socket, method, path, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error:#}"))
    }

    fn load_images(&self) {
        for name in IMAGES {
            let present = self
                .api(
                    "GET",
                    &format!("/images/localhost/test/{name}:1/json"),
                    None,
                )
                .status
                == 200;
            if present && *name == "debian" {
                continue;
            }
            let path = images_directory().join(format!("{name}.tar"));
            let archive = std::fs::read(&path).unwrap_or_else(|error| {
                panic!(
                    "`{}`: {error}; make it with `cargo xtask images target/test-images`",
                    path.display()
                )
            });
            let response = http::unix(
                &self.socket,
                "POST",
                "/images/load?quiet=1",
                Some(("application/x-tar", &archive)),
            )
            .unwrap_or_else(|error| panic!("load {name}: {error:#}"));
            let text = response.text();
            assert!(
                response.status == 200 && text.contains("Loaded image"),
                "load {name}: {} {text}",
                response.status
            );
        }
    }

    /// Removes every container of a private engine; the daemon must answer.
    pub fn remove_all_containers(&self) {
        let list = self
            .api("GET", "/containers/json?all=1", None)
            .json()
            .expect("a list");
        for container in list.as_array().expect("a list") {
            let id = container["Id"].as_str().expect("an id");
            self.api("DELETE", &format!("/containers/{id}?force=1&v=1"), None);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(private) = &self.private else { return };
        if self.daemon_runs() && http::unix(&self.socket, "GET", "/_ping", None).is_ok() {
            let removal = std::panic::AssertUnwindSafe(|| self.remove_all_containers());
            let _ = std::panic::catch_unwind(removal);
        }
        self.end_daemon(Signal::TERM);
        let kill = |pid: u32| {
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _ = kill_process(pid, Signal::KILL);
            }
        };
        self.processes().into_iter().for_each(kill);
        for _ in 0..100 {
            let groups = cgroups(&private.cgroup_parent);
            if groups.is_empty() {
                break;
            }
            for group in groups {
                let list = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                list.lines()
                    .filter_map(|line| line.parse().ok())
                    .for_each(kill);
                let _ = std::fs::remove_dir(group);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The control groups beneath `parent` in every hierarchy, deepest first, `parent` itself last.
pub fn cgroups(parent: &str) -> Vec<PathBuf> {
    fn descend(directory: PathBuf, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                descend(entry.path(), found);
            }
        }
        found.push(directory);
    }
    let mut found = Vec::new();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if let [_, point, "cgroup" | "cgroup2", ..] = fields.as_slice() {
            let directory = Path::new(point).join(parent);
            if directory.is_dir() {
                descend(directory, &mut found);
            }
        }
    }
    found
}

/// All process ids of this machine.
pub fn pids() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Gantry's binary: `GANTRY_BINARY`, else the one that was built beside this test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("GANTRY_BINARY") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("the test's own path");
    let path = test
        .ancestors()
        .skip(1)
        .map(|directory| directory.join("gantry"))
        .find(|path| path.is_file())
        .expect("no `gantry` beside this test: run `cargo build --workspace --bins` or set GANTRY_BINARY");
    path.canonicalize().expect("a path")
}

/// Where the image archives are.
pub fn images_directory() -> PathBuf {
    std::env::var_os("GANTRY_TEST_IMAGES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-images"),
        PathBuf::from,
    )
}

/// Runs a shell script on this machine.
fn shell(script: &str) {
    let status = Command::new("sh")
        .args(["-ec", script])
        .status()
        .expect("start sh");
    assert!(status.success(), "`{script}` failed");
}

/// Waits until process `pid` is gone.
pub fn wait_gone(pid: u32) {
    eventually_within(
        Duration::from_secs(20),
        &format!("process {pid} is gone"),
        || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            (status.is_empty() || status.contains(") Z ")).then_some(())
        },
    );
}
