//! A bundle in a temporary directory, and the runtime's command line on it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A bundle; everything of it goes when it is dropped.
pub struct Bundle {
    pub path: PathBuf,
    pub id: String,
    pub spec: Value,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Bundle {
    /// A root with busybox and the specification that `runtime spec` writes, made to run `script`.
    pub fn new(script: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!(
            "gantry-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(&id);
        for directory in [
            "bin",
            "etc",
            "tmp",
            "proc",
            "sys",
            "dev",
            "home/user",
            "root",
            "state",
        ] {
            fs::create_dir_all(path.join("rootfs").join(directory)).expect("make the root");
        }
        fs::remove_dir(path.join("rootfs/state")).expect("clean");
        fs::copy("/bin/busybox", path.join("rootfs/bin/busybox"))
            .expect("busybox-static is installed");
        for name in "sh true false cat ls echo id env pwd sleep mount stat readlink hostname touch mkdir kill grep ps tty head ulimit umask test od wc nproc seq dd rm ip tr mknod".split(' ') {
            symlink("busybox", path.join("rootfs/bin").join(name)).expect("link");
        }
        fs::write(
            path.join("rootfs/etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
        )
        .expect("passwd");
        let mut bundle = Self {
            path,
            id,
            spec: Value::Null,
        };
        let made = bundle.runtime(&["spec", "-b", bundle.path.to_str().expect("UTF-8")]);
        assert_eq!(made.code, 0, "{}", made.stderr);
        let text = fs::read(bundle.path.join("config.json")).expect("config.json");
        bundle.spec = serde_json::from_slice(&text).expect("JSON");
        bundle.spec["process"]["terminal"] = json!(false);
        bundle.spec["process"]["args"] = json!(["sh", "-c", script]);
        bundle.spec["process"]["env"] = json!(["PATH=/bin"]);
        bundle.spec["linux"]["cgroupsPath"] = json!(format!("/gantry-test/{}", bundle.id));
        bundle
    }

    pub fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    pub fn state_root(&self) -> PathBuf {
        self.path.join("state")
    }

    pub fn write(&self) {
        fs::write(self.path.join("config.json"), self.spec.to_string()).expect("write config.json");
    }

    /// Runs the runtime with the state root of this bundle.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("runtime")
            .arg("--root")
            .arg(self.state_root())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    pub fn runtime(&self, arguments: &[&str]) -> Ran {
        self.command(arguments)
            .output()
            .expect("run the runtime")
            .into()
    }

    /// `run`: create, start, wait, delete.
    pub fn run(&self) -> Ran {
        self.write();
        let ran = self.runtime(&["run", "-b", self.path.to_str().expect("UTF-8"), &self.id]);
        assert!(
            !self.state_root().join(&self.id).exists(),
            "run leaves no state"
        );
        ran
    }

    /// `run`, which succeeds; its output.
    pub fn output(&self) -> String {
        let ran = self.run();
        assert_eq!(ran.code, 0, "stdout: {} stderr: {}", ran.stdout, ran.stderr);
        ran.stdout
    }

    /// `create` with standard streams to files, because the container outlives the command.
    pub fn create(&self) -> Ran {
        self.write();
        let out = fs::File::create(self.path.join("out")).expect("out");
        let errors = fs::File::create(self.path.join("err")).expect("err");
        let pid_file = self.path.join("pid");
        let status = self
            .command(&[
                "create",
                "-b",
                self.path.to_str().expect("UTF-8"),
                "--pid-file",
            ])
            .arg(&pid_file)
            .arg(&self.id)
            .stdout(out)
            .stderr(errors)
            .status()
            .expect("run the runtime");
        Ran {
            code: status.code().unwrap_or(-1),
            stdout: String::new(),
            stderr: self.errors(),
        }
    }

    /// `create` and `start`, which succeed.
    pub fn start(&self) {
        let created = self.create();
        assert_eq!(created.code, 0, "{}", created.stderr);
        let started = self.runtime(&["start", &self.id]);
        assert_eq!(started.code, 0, "{}", started.stderr);
    }

    /// What the container wrote so far.
    pub fn printed(&self) -> String {
        fs::read_to_string(self.path.join("out")).unwrap_or_default()
    }

    pub fn errors(&self) -> String {
        fs::read_to_string(self.path.join("err")).unwrap_or_default()
    }

    pub fn status(&self) -> String {
        let state = self.runtime(&["state", &self.id]);
        assert_eq!(state.code, 0, "{}", state.stderr);
        let state: Value = serde_json::from_str(&state.stdout).expect("JSON");
        state["status"].as_str().expect("status").to_owned()
    }

    pub fn exec(&self, arguments: &[&str]) -> Ran {
        let mut all = vec!["exec"];
        all.extend(arguments);
        self.runtime(&all)
    }

    /// Adds a mount.
    pub fn mount(&mut self, destination: &str, kind: &str, source: &str, options: &[&str]) {
        let mount = json!({ "destination": destination, "type": kind, "source": source, "options": options });
        self.spec["mounts"]
            .as_array_mut()
            .expect("mounts")
            .push(mount);
    }

    /// Takes a namespace away.
    pub fn without_namespace(&mut self, kind: &str) {
        self.spec["linux"]["namespaces"]
            .as_array_mut()
            .expect("namespaces")
            .retain(|one| one["type"] != kind);
    }

    /// Directories of the container's cgroup that are there.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
        roots.extend(
            fs::read_dir("/sys/fs/cgroup")
                .expect("cgroups")
                .flatten()
                .map(|entry| entry.path()),
        );
        for root in roots {
            let path = root.join("gantry-test").join(&self.id);
            if path.exists() {
                found.push(path);
            }
        }
        found
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.runtime(&["delete", "-f", &self.id]);
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Waits until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A place beneath a bundle's directory as text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
