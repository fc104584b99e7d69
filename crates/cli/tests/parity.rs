//! Compares, for a list of command lines, the requests that this command line sends with those of the real `docker`
//! client (28.x), by a server that records them, and the exit codes and texts of refused command lines.
//!
//! The real client is looked for in `$DOCKER_CLIENT` and on the path; without it the test fails and says so: `make
//! test` installs it. This program runs itself as the command line when `GANTRY_PARITY_CLIENT` is set.

use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Command lines that reach the daemon. The requests must be equal but for those in [`SPARED`].
const LINES: [&str; 79] = [
    "run -d --name x -p 80:80 -v v:/d -e A=1 busybox true",
    "run --rm busybox true",
    "run busybox sh -c ls",
    "run -i --rm busybox cat",
    "run -d -p 127.0.0.1:8080-8081:80-81/udp -p 90 --expose 91-92 busybox",
    "run -d -v /a:/b:ro -v vol:/c -v /anonymous -v ./here:/there --tmpfs /t:size=1m busybox",
    "run -d --mount type=bind,src=/a,dst=/b,ro,bind-propagation=rslave --mount type=volume,src=v,dst=/v,volume-opt=a=b,volume-nocopy --mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700 busybox",
    "run -d --memory 1g --memory-swap -1 --cpus 1.5 -c 5 --cpuset-cpus 0-1 --pids-limit 9 --memory-swappiness 5 --shm-size 64m --oom-score-adj 3 busybox",
    "run -d --ulimit nofile=5:7 --ulimit core=-1 --sysctl net.a=1 --cap-add NET_ADMIN --cap-drop ALL --security-opt no-new-privileges --security-opt seccomp=unconfined busybox",
    "run -d --device /dev/null:/dev/x:r --device vendor.com/class=name --device-cgroup-rule busybox --help",
    "run -d --device-cgroup-rule=c_1:*_rwm --gpus all busybox",
    "run -d --blkio-weight 300 --blkio-weight-device /dev/sda:100 --device-read-bps /dev/sda:1mb --device-write-iops /dev/sda:5 busybox",
    "run -d --network n --network-alias a --ip 1.2.3.4 --link l:m --mac-address 92:d0:c6:0a:29:33 busybox",
    "run -d --network name=n,alias=a,ip=1.2.3.4,driver-opt=k=v,gw-priority=3 --network m busybox",
    "run -d --network host --pid host --uts host --ipc host --userns host --cgroupns host busybox",
    "run -d --net n --net-alias q --dns-opt x busybox",
    "run -d --dns 1.1.1.1 --dns-search x.y --dns-option ndots:1 --add-host a:1.2.3.4 --add-host b=[::1] -h host --domainname dom busybox",
    "run -d --health-cmd true --health-interval 5s --health-retries 3 --health-timeout 1m --health-start-period 2s --health-start-interval 1s busybox",
    "run -d --no-healthcheck --init --read-only --privileged --restart on-failure:3 --stop-signal INT --stop-timeout 4 --log-driver json-file --log-opt max-size=1m busybox",
    "run -d -l a=b -l c --annotation x=y --label d=e=f --storage-opt size=1g --runtime runc --group-add 5 -u 1:2 -w /w --entrypoint /e busybox arg",
    "run -d --entrypoint= -e A=1 -e B -e A=2 --volumes-from c:ro --volume-driver local --platform linux/amd64 --pull never -P busybox",
    "run -d --security-opt systempaths=unconfined --isolation default --cgroup-parent /p --cpu-period 5 --cpu-quota 6 --cpu-rt-period 7 --cpu-rt-runtime 8 busybox",
    "run -a stdout busybox true",
    "create -it --name x busybox",
    "create busybox",
    "start c1",
    "start -a c1",
    "stop c1",
    "stop -t 3 -s INT c1",
    "restart c1",
    "kill -s HUP c1",
    "rm -fv c1",
    "rm -l c1",
    "pause c1",
    "unpause c1",
    "wait c1",
    "rename c1 c2",
    "port c1",
    "top c1 -ef",
    "diff c1",
    "logs --tail 5 --since 1 --details -t c1",
    "stats --no-stream c1",
    "update -m 1g --cpus 2 --restart always c1",
    "inspect c1",
    "inspect -s --type container c1",
    "exec c1 ls",
    "exec -e A=1 -u 5 -w /w --privileged c1 ls -l",
    "exec -d c1 ls",
    "export -o x.tar c1",
    "commit -m message -a author -c CMD=x -p=false c1 x:y",
    "ps -a --filter status=exited -s",
    "ps -l",
    "ps -n 5 --filter label=a --filter label=b",
    "images -a --filter dangling=true x",
    "pull busybox",
    "pull -a busybox",
    "pull --platform linux/arm64 r.example:5000/a/b:1",
    "pull r.example/a@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "push r.example/a",
    "push -a busybox",
    "push --platform linux/arm64/v8 r.example/a:1",
    "search --limit 5 -f stars=3 -f is-official=true r.example/x",
    "search x",
    "login -u user -p password r.example",
    "login -u user -p password",
    "tag a b:c",
    "rmi -f --no-prune a",
    "save -o y.tar a b",
    "history a",
    "image inspect a",
    "image prune -af --filter until=5m",
    "volume create -d local -o a=b --label c=d v",
    "volume rm -f v",
    "volume prune -af",
    "network create --subnet 10.9.0.0/24 --gateway 10.9.0.1 --ip-range 10.9.0.128/25 --aux-address h=10.9.0.5 --ipv6 --internal -o a=b --label l=m n",
    "network connect --alias a --ip 10.9.0.7 --link x:y n c1",
    "network disconnect -f n c1",
    "network prune -f",
    "events --since 1 --until 2 --filter type=container",
];

/// Command lines that fail; exit code and both outputs must be equal.
const REFUSED: [&str; 28] = [
    "run --foo",
    "run",
    "run -itQ x",
    "run --name",
    "ps x",
    "images a b",
    "tag a",
    "port",
    "foo",
    "container foo",
    "help foo",
    "run -t=foo x",
    "run -m x y",
    "run -p 1:2:3:4:5 y",
    "run -v :/x y",
    "run --mount type=foo y",
    "run --restart :3 y",
    "run --pid x y",
    "run --ulimit nofile=5:3 y",
    "run --network a=b,c=d y",
    "run Foo",
    "run -d -a stdout y",
    "run --security-opt foo y",
    "run --gpus x=y z",
    "run --health-interval=-1s y",
    "ps -f x",
    "ps --format {{foo}}",
    "stop -t x c",
];

/// Requests that Docker's client makes and this one spares, by (command, request).
const SPARED: [(&str, &str); 4] = [
    // The create request fails with the same text.
    ("exec", "GET /containers/c1/json"),
    // The answer's Content-Type tells whether it is framed.
    ("logs", "GET /containers/c1/json"),
    // Nobody waits for a detached container.
    ("run -d", "POST /containers/ID/wait?condition=next-exit"),
    // The daemon refuses what must not go.
    ("network rm", "GET /networks/n"),
];

fn main() -> ExitCode {
    if std::env::var_os("GANTRY_PARITY_CLIENT").is_some() {
        let args: Vec<OsString> = std::env::args_os().collect();
        let autostart = |_: &Path| Err(std::io::Error::other("no daemon in this test"));
        return gantry_cli::run(
            &args,
            gantry_cli::Hooks {
                autostart,
                registry: |_, _, _| None,
            },
        );
    }
    let Some(docker) = docker() else {
        eprintln!(
            "the docker client 28.x is needed for this test: install docker-cli or set DOCKER_CLIENT"
        );
        return ExitCode::FAILURE;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ours = directory.path().join("docker");
    std::os::unix::fs::symlink(std::env::current_exe().expect("the test's path"), &ours)
        .expect("a link");
    let mut failures = 0;
    for line in LINES {
        let mut theirs = record(&docker, line, directory.path());
        let mine = record(&ours, line, directory.path());
        for (command, request) in SPARED {
            if line.starts_with(command) {
                theirs.retain(|(head, _)| head != request);
            }
        }
        if theirs != mine {
            failures += 1;
            eprintln!(
                "requests differ: docker {line}\n  docker: {}\n  gantry: {}",
                shown(&theirs),
                shown(&mine)
            );
        }
    }
    for line in REFUSED {
        let (theirs, mine) = (
            refuse(&docker, line, directory.path()),
            refuse(&ours, line, directory.path()),
        );
        if theirs != mine {
            failures += 1;
            eprintln!("outcomes differ: docker {line}\n  docker: {theirs:?}\n  gantry: {mine:?}");
        }
    }
    println!(
        "parity: {} command lines, {failures} differ",
        LINES.len() + REFUSED.len()
    );
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn docker() -> Option<PathBuf> {
    let named = std::env::var_os("DOCKER_CLIENT").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    named
        .into_iter()
        .chain(std::env::split_paths(&path).map(|directory| directory.join("docker")))
        .find(|program| {
            Command::new(program)
                .arg("--version")
                .output()
                .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("version 28."))
        })
}

type Recorded = Vec<(String, Value)>;

fn shown(recorded: &Recorded) -> String {
    recorded
        .iter()
        .map(|(head, body)| format!("\n    {head} {body}"))
        .collect()
}

fn command(program: &Path, line: &str, host: &str, directory: &Path) -> Command {
    let words: Vec<String> = line
        .split_whitespace()
        .map(|word| word.replace("c_1:*_rwm", "c 1:* rwm"))
        .collect();
    let mut command = Command::new(program);
    command
        .args(words)
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("PATH", "/usr/bin:/bin")
        .env("DOCKER_HOST", host)
        .env("GANTRY_PARITY_CLIENT", "1")
        .current_dir(directory)
        .stdin(Stdio::null());
    command
}

fn refuse(program: &Path, line: &str, directory: &Path) -> (Option<i32>, String, String) {
    let output = command(program, line, "unix:///nonexistent.sock", directory)
        .output()
        .expect("run the client");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Runs a client against a recording server and returns its requests.
fn record(program: &Path, line: &str, directory: &Path) -> Recorded {
    let socket = directory.join("d.sock");
    // The previous recording's socket.
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).expect("bind the socket");
    let recorded: Arc<Mutex<Recorded>> = Arc::default();
    let into = recorded.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let into = into.clone();
            // A client that goes away ends its connection's thread.
            std::thread::spawn(move || drop(serve(stream, &into)));
        }
    });
    let mut child = command(
        program,
        line,
        &format!("unix://{}", socket.display()),
        directory,
    )
    .stdout(Stdio::null())
    .stderr(Stdio::null())
    .spawn()
    .expect("run the client");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while child.try_wait().expect("wait for the client").is_none() {
        if std::time::Instant::now() > deadline {
            child.kill().expect("kill the client");
            eprintln!("timed out: {} {line}", program.display());
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let taken = std::mem::take(&mut *recorded.lock().expect("the record"));
    taken
        .into_iter()
        .filter(|(head, _)| !head.contains("/_ping"))
        .collect()
}

fn serve(stream: UnixStream, recorded: &Mutex<Recorded>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut head = String::new();
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
        let (mut length, mut upgrade) = (0usize, false);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            upgrade |= header.starts_with("upgrade:");
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let mut words = head.split_whitespace();
        let (method, target) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let target = target
            .strip_prefix("/v1.50")
            .unwrap_or(target)
            .replace(ID, "ID");
        let target = target.replace("/containers/ID/logs", "/containers/c1/logs");
        let mut value: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        // Docker's client keeps these in maps: their order is chance.
        for pointer in ["/Env", "/HostConfig/Binds"] {
            if let Some(list) = value.pointer_mut(pointer).and_then(Value::as_array_mut) {
                list.sort_by_key(Value::to_string);
            }
        }
        recorded
            .lock()
            .expect("the record")
            .push((format!("{method} {target}"), value));
        if upgrade {
            writer.write_all(b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")?;
            return Ok(());
        }
        let path = target.split('?').next().unwrap_or_default();
        let (status, kind, body) = answer(method, path);
        let text = if method == "HEAD" {
            String::new()
        } else {
            body.clone()
        };
        write!(
            writer,
            "HTTP/1.1 {status} X\r\nApi-Version: 1.50\r\nOstype: linux\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        )?;
    }
}

fn answer(method: &str, path: &str) -> (u16, &'static str, String) {
    let container = json!({
        "Id": ID, "Name": "/c1", "Created": "2026-01-01T00:00:00Z",
        "State": {"Status": "running", "Running": true, "Pid": 1},
        "Config": {"Tty": false, "Image": "busybox", "OpenStdin": false},
        "HostConfig": {"LogConfig": {"Type": "json-file"}},
        "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}, "Networks": {}},
        "Mounts": [],
    });
    let (status, value) = match (method, path) {
        (_, "/_ping") => return (200, "text/plain", "OK".to_owned()),
        ("POST", "/containers/create") => (201, json!({"Id": ID, "Warnings": []})),
        ("GET", "/containers/json" | "/images/json") => (200, json!([])),
        ("POST", "/commit") => (201, json!({"Id": ID})),
        ("POST", "/networks/create") => (201, json!({"Id": ID})),
        ("POST", "/volumes/create") => (201, json!({"Name": "v"})),
        ("GET", "/events") | ("POST", "/images/create") => {
            return (200, "application/json", String::new());
        }
        ("GET", _) if path.ends_with("/logs") => {
            return (
                200,
                "application/vnd.docker.multiplexed-stream",
                String::new(),
            );
        }
        ("GET", _) if path.ends_with("/top") => {
            (200, json!({"Titles": ["PID"], "Processes": [["1"]]}))
        }
        ("GET", _) if path.ends_with("/changes") || path.ends_with("/history") => (200, json!([])),
        ("GET", _) if path.starts_with("/exec/") => {
            (200, json!({"ID": "e1", "Running": false, "ExitCode": 0}))
        }
        ("GET", _) if path.ends_with("/stats") => (200, json!({"id": ID, "name": "/c1"})),
        ("GET", _) if path.starts_with("/containers/") => (200, container),
        ("GET", _) => (200, json!({"Id": ID, "Name": "n"})),
        ("POST", _) if path.ends_with("/wait") => (200, json!({"StatusCode": 0})),
        ("POST", _) if path.ends_with("/exec") => (201, json!({"Id": "e1"})),
        ("POST", _) if path.ends_with("/prune") => (200, json!({"SpaceReclaimed": 0})),
        ("POST", _) if path.ends_with("/update") => (200, json!({"Warnings": []})),
        ("DELETE", _) if path.starts_with("/images/") => (200, json!([])),
        _ => return (204, "application/json", String::new()),
    };
    (status, "application/json", value.to_string())
}
