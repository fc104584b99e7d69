//! Bundles made of busybox, a shim per container, and clients that are socketpairs.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gantry_shim::protocol::{
    Attach, Client, Event, ExitRecord, LogConfig, Reply, Request, Runtime, StartRequest, State,
    VERSION,
};
use gantry_shim::{SpawnOptions, Spawned};
use serde_json::json;

/// Long enough for an emulated machine.
pub const TIMEOUT: Duration = Duration::from_secs(240);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A container that can be started.
pub struct Bundle {
    pub directory: tempfile::TempDir,
    pub request: StartRequest,
    pub spec: serde_json::Value,
    /// What the shim is to keep for names.
    pub names: Vec<OwnedFd>,
}

impl Bundle {
    /// Makes a bundle whose process is `sh -c SCRIPT`.
    pub fn new(script: &str) -> Self {
        Self::with_args(&["/bin/sh", "-c", script])
    }

    pub fn with_args(args: &[&str]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("gantry-shim-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let root = directory.path().join("rootfs");
        for name in ["bin", "proc", "dev", "tmp", "etc", "sys", "root"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
        for name in [
            "sh", "cat", "echo", "sleep", "seq", "head", "yes", "kill", "stty", "dd", "tail", "wc",
            "true", "awk",
        ] {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("shimtest{}x{number}", std::process::id());
        let all = json!([
            "CAP_KILL",
            "CAP_CHOWN",
            "CAP_SETUID",
            "CAP_SETGID",
            "CAP_DAC_OVERRIDE"
        ]);
        let spec = json!({
            "ociVersion": "1.2.0",
            "hostname": "test",
            "root": {"path": root, "readonly": false},
            "process": {
                "args": args, "cwd": "/", "env": ["PATH=/bin", "TERM=xterm"], "user": {"uid": 0, "gid": 0},
                "capabilities": {"bounding": all, "effective": all, "permitted": all},
                "noNewPrivileges": true
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]}
            ],
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}],
                "resources": {}
            }
        });
        let path = directory.path();
        let request = StartRequest {
            container_id: id.clone(),
            bundle: path.to_path_buf(),
            runtime: runtime(path),
            state_root: path.join("state"),
            log: LogConfig::rotated(path.join("log/json.log")),
            exit_path: path.join("exit.json"),
            cgroup: format!("/gantry-shim-test/{id}"),
            ..StartRequest::default()
        };
        Bundle {
            directory,
            request,
            spec,
            names: Vec::new(),
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Starts a shim and asks it to start the container.
    pub fn start_with(mut self, attaches: Vec<(Attach, OwnedFd)>) -> (Shim, Reply) {
        self.spec["process"]["terminal"] = json!(self.request.tty);
        fs::create_dir_all(self.path().join("state")).unwrap();
        fs::write(self.path().join("config.json"), self.spec.to_string()).unwrap();
        let socket = self.path().join("shim.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let spawned = gantry_shim::spawn(SpawnOptions {
            control: far.into(),
            container_id: self.request.container_id.clone(),
            log: Some(self.path().join("shim.log")),
            program: Some(PathBuf::from(env!("CARGO_BIN_EXE_shim-under-test"))),
        })
        .unwrap();
        let mut client = Client::new(near.into(), TIMEOUT);
        let (reply, _) = client
            .call(&Request::Hello { version: VERSION }, vec![])
            .unwrap();
        assert!(
            matches!(
                reply,
                Reply::Hello {
                    version: VERSION,
                    ..
                }
            ),
            "{reply:?}"
        );
        let mut fds: Vec<OwnedFd> = vec![listener.into()];
        self.request.keeps_names = !self.names.is_empty();
        fds.append(&mut self.names);
        for (attach, fd) in attaches {
            self.request.attaches.push(attach);
            fds.push(fd);
        }
        let (reply, _) = client
            .call(&Request::Start(Box::new(self.request.clone())), fds)
            .unwrap();
        (
            Shim {
                client: Some(client),
                spawned,
                socket,
                bundle: self,
            },
            reply,
        )
    }

    /// Starts the container, which must succeed.
    pub fn start(self) -> Shim {
        self.start_attached(vec![])
    }

    pub fn start_attached(self, attaches: Vec<(Attach, OwnedFd)>) -> Shim {
        let (shim, reply) = self.start_with(attaches);
        assert!(
            matches!(reply, Reply::Started { .. }),
            "{reply:?} {}",
            shim.messages()
        );
        shim
    }
}

/// The runtime under test: GANTRY_TEST_RUNTIME names a foreign one.
fn runtime(directory: &Path) -> Runtime {
    match std::env::var("GANTRY_TEST_RUNTIME") {
        Ok(program) => Runtime::Foreign {
            program: program.into(),
            args: vec![],
            root: directory.join("runc"),
        },
        Err(_) => Runtime::BuiltIn,
    }
}

pub fn is_foreign() -> bool {
    std::env::var_os("GANTRY_TEST_RUNTIME").is_some()
}

/// A shim that runs.
pub struct Shim {
    pub client: Option<Client>,
    pub spawned: Spawned,
    pub socket: PathBuf,
    pub bundle: Bundle,
}

impl Shim {
    pub fn messages(&self) -> String {
        fs::read_to_string(self.bundle.path().join("shim.log")).unwrap_or_default()
    }

    pub fn client(&mut self) -> &mut Client {
        self.client.as_mut().unwrap()
    }

    pub fn ask(&mut self, request: &Request) -> Reply {
        self.client().call(request, vec![]).unwrap().0
    }

    pub fn state(&mut self) -> State {
        match self.ask(&Request::State) {
            Reply::State(state) => *state,
            other => panic!("{other:?}"),
        }
    }

    /// Goes away as a daemon that is killed does.
    pub fn disconnect(&mut self) {
        self.client = None;
    }

    /// Comes back as a daemon that was restarted does.
    pub fn reconnect(&mut self) {
        let socket = UnixStream::connect(&self.socket).unwrap();
        let mut client = Client::new(socket.into(), TIMEOUT);
        let (reply, _) = client
            .call(&Request::Hello { version: VERSION }, vec![])
            .unwrap();
        assert!(matches!(reply, Reply::Hello { .. }));
        self.client = Some(client);
    }

    /// Waits for an event of a kind; others on the way are passed over.
    pub fn event<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        loop {
            let event = self.client().event().unwrap();
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    }

    pub fn exited(&mut self) -> ExitRecord {
        self.event(|event| match event {
            Event::Exited(record) => Some(record.clone()),
            _ => None,
        })
    }

    /// Waits for the exit, acknowledges it, and waits for the shim's end.
    pub fn wait(mut self) -> (ExitRecord, Bundle) {
        let record = self.exited();
        assert!(matches!(self.ask(&Request::Release), Reply::Ok));
        (record, self.gone())
    }

    /// Waits for the shim's end.
    pub fn gone(mut self) -> Bundle {
        let end = Instant::now() + TIMEOUT;
        while self.spawned.child.try_wait().unwrap().is_none() {
            assert!(
                Instant::now() < end,
                "the shim does not end: {}",
                self.messages()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.messages(), "");
        self.bundle
    }
}

impl Bundle {
    pub fn record(&self) -> Option<ExitRecord> {
        gantry_shim::exit::read(&self.request.exit_path).unwrap()
    }

    pub fn log_texts(&self) -> Vec<String> {
        fs::read_to_string(&self.request.log.path)
            .unwrap()
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["log"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    }
}

/// An attach connection: our end, and the attach with the shim's end.
pub fn client(change: impl FnOnce(&mut Attach)) -> (UnixStream, (Attach, OwnedFd)) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_read_timeout(Some(TIMEOUT)).unwrap();
    near.set_write_timeout(Some(TIMEOUT)).unwrap();
    let mut attach = Attach {
        stdin: true,
        stdout: true,
        stderr: true,
        ..Attach::default()
    };
    change(&mut attach);
    (near, (attach, far.into()))
}

/// Reads until `wanted` has come.
pub fn read_until(socket: &mut UnixStream, wanted: &str) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&all).contains(wanted) {
        let count = socket.read(&mut buffer).unwrap();
        assert!(
            count > 0,
            "ended after {:?}, wanted {wanted:?}",
            String::from_utf8_lossy(&all)
        );
        all.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

pub fn read_all(socket: &mut UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    socket.read_to_end(&mut all).unwrap();
    all
}

pub fn write(socket: &mut UnixStream, bytes: &[u8]) {
    socket.write_all(bytes).unwrap();
}

pub fn half_close(socket: &UnixStream) {
    socket.shutdown(std::net::Shutdown::Write).unwrap();
}

/// Tries until it is true.
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !check() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Takes multiplexed frames apart: standard output, standard error.
pub fn demultiplex(mut bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut streams = [Vec::new(), Vec::new()];
    while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
        assert!(
            matches!(header[0], 1 | 2) && header[1..4] == [0; 3],
            "{header:?}"
        );
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        streams[usize::from(header[0]) - 1].extend_from_slice(&rest[..length]);
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty());
    let [stdout, stderr] = streams;
    (stdout, stderr)
}
