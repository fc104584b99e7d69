//! One scenario with one client: its names, its directory, its commands; what it made is removed when it ends.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::engine::{Engine, binary};
use crate::http;
use crate::outcome::{self, Outcome};
use crate::pty::Terminal;
use crate::wait::eventually_within;
use crate::words::{expand, split};

/// How long one command of a client may take: reading 200 MB back takes a busy machine a minute.
const COMMAND_MAX: Duration = Duration::from_secs(180);

/// The client program that a scenario speaks through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {
    /// The real docker CLI.
    Docker,
    /// Gantry's.
    Gantry,
}

impl Client {
    pub fn name(self) -> &'static str {
        match self {
            Client::Docker => "docker",
            Client::Gantry => "gantry",
        }
    }
}

/// A scenario's view of the engine.
///
/// In command lines and expectations `@bb`, `@deb`, `@app` and `@web` stand for the test images, `@dir` for the scenario's
/// directory, and any other `@name` for an object name of this scenario alone.
pub struct Session<'a> {
    pub engine: &'a Engine,
    pub client: Client,
    prefix: String,
    directory: TempDir,
}

/// The words `-H ADDRESS` that come before every command line.
const HOST_WORDS: usize = 2;

static NEXT: AtomicU32 = AtomicU32::new(0);
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);
static NEXT_SUBNET: AtomicU8 = AtomicU8::new(0);

impl<'a> Session<'a> {
    pub fn new(engine: &'a Engine, client: Client) -> Session<'a> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("t{:x}x{number:x}", std::process::id());
        let directory = tempfile::Builder::new()
            .prefix("gantry-scenario-")
            .tempdir_in("/var/tmp")
            .expect("make a directory");
        if client == Client::Gantry {
            let bin = directory.path().join(".bin");
            std::fs::create_dir(&bin)
                .and_then(|()| std::os::unix::fs::symlink(binary(), bin.join("docker")))
                .expect("link the client");
        }
        Session {
            engine,
            client,
            prefix,
            directory,
        }
    }

    /// The scenario's directory.
    pub fn dir(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Writes a file into the scenario's directory.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        let mut file = std::fs::File::create(&path).expect("create a file");
        file.write_all(content.as_bytes()).expect("write a file");
        path
    }

    /// Replaces the `@` names in `text`.
    pub fn x(&self, text: &str) -> String {
        resolver(
            self.prefix.clone(),
            self.directory.path().display().to_string(),
        )(text)
    }

    fn words(&self, line: &str) -> Vec<String> {
        let mut words: Vec<String> = split(line).iter().map(|word| self.x(word)).collect();
        let verb = words
            .iter()
            .take(2)
            .position(|word| word == "run" || word == "create");
        let kind = words.first().map(String::as_str);
        match verb {
            Some(0) => words.insert(1, format!("--label=gantry.test={}", self.prefix)),
            Some(1) if matches!(kind, Some("container" | "volume")) => {
                words.insert(2, format!("--label=gantry.test={}", self.prefix));
            }
            _ => {}
        }
        words
    }

    fn client_words(&self) -> Vec<String> {
        let program = match self.client {
            Client::Docker => {
                std::env::var("GANTRY_DOCKER").unwrap_or_else(|_| "docker".to_owned())
            }
            // Called as `docker`, it names itself so in its texts.
            Client::Gantry => self
                .directory
                .path()
                .join(".bin/docker")
                .display()
                .to_string(),
        };
        vec![
            program,
            "-H".to_owned(),
            format!("unix://{}", self.engine.socket.display()),
        ]
    }

    fn command(&self, line: &str) -> Command {
        let mut client = Vec::new();
        if line.starts_with("manifest ") {
            // There the client itself speaks to the registry, which is on the engine's host.
            client.extend(self.engine.host_words());
        }
        client.extend(self.client_words());
        let mut command = Command::new(&client[0]);
        command
            .args(&client[1..])
            .args(self.words(line))
            .current_dir(self.directory.path())
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT")
            .env("DOCKER_CONFIG", self.directory.path().join(".docker"));
        command
    }

    fn finish(&self, outcome: Outcome) -> Outcome {
        outcome.expanding(resolver(
            self.prefix.clone(),
            self.directory.path().display().to_string(),
        ))
    }

    /// Runs one command of the client: `d("run --rm @bb true")`.
    #[track_caller]
    pub fn d(&self, line: &str) -> Outcome {
        self.d_with(line, b"")
    }

    /// As [`Session::d`] with standard input.
    #[track_caller]
    pub fn d_with(&self, line: &str, input: &[u8]) -> Outcome {
        let shown = format!("{} {}", self.client.name(), self.x(line));
        self.finish(outcome::run(self.command(line), shown, input, COMMAND_MAX))
    }

    /// As [`Session::d`] with more environment for the client.
    #[track_caller]
    pub fn d_env(&self, line: &str, environment: &[(&str, &str)]) -> Outcome {
        let shown = format!("{} {}", self.client.name(), self.x(line));
        let mut command = self.command(line);
        command.envs(environment.iter().copied());
        self.finish(outcome::run(command, shown, b"", COMMAND_MAX))
    }

    /// As [`Session::d`], with the client left to choose the daemon by itself.
    #[track_caller]
    pub fn d_without_host(&self, line: &str) -> Outcome {
        let with_host = self.command(line);
        let mut command = Command::new(with_host.get_program());
        command
            .args(with_host.get_args().skip(HOST_WORDS))
            .current_dir(self.directory.path());
        for (name, value) in with_host.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let shown = format!("{} {}", self.client.name(), self.x(line));
        self.finish(outcome::run(command, shown, b"", Duration::from_secs(60)))
    }

    /// Runs a shell script in which `docker` is the client.
    #[track_caller]
    pub fn script(&self, script: &str) -> Outcome {
        let client = self.client_words();
        let bin = self.directory.path().join(".bin");
        let link = bin.join("docker");
        if !link.exists() {
            std::fs::create_dir_all(&bin)
                .and_then(|()| std::os::unix::fs::symlink(which(&client[0]), &link))
                .expect("link the client");
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command
            .args(["-c", &self.x(script)])
            .current_dir(self.directory.path())
            .env_remove("DOCKER_CONTEXT")
            .env("PATH", format!("{}:{path}", bin.display()))
            .env(
                "DOCKER_HOST",
                format!("unix://{}", self.engine.socket.display()),
            )
            .env("DOCKER_CONFIG", self.directory.path().join(".docker"));
        let shown = format!("{} in {script}", self.client.name());
        self.finish(outcome::run(command, shown, b"", COMMAND_MAX))
    }

    /// Starts one command of the client and leaves it running; its output goes to `name.out` and `name.err`.
    pub fn background(&self, name: &str, line: &str) -> Background {
        let (out, err) = (
            self.directory.path().join(format!("{name}.out")),
            self.directory.path().join(format!("{name}.err")),
        );
        let mut command = self.command(line);
        command.stdin(std::process::Stdio::piped());
        command.stdout(std::fs::File::create(&out).expect("create a file"));
        command.stderr(std::fs::File::create(&err).expect("create a file"));
        let child = command.spawn().expect("start the client");
        Background {
            child,
            out,
            err,
            line: self.x(line),
        }
    }

    /// Runs one command of the client in a terminal of 24 by 80.
    pub fn terminal(&self, line: &str) -> Terminal {
        let mut words = self.client_words();
        words.extend(self.words(line));
        words.insert(
            0,
            format!(
                "DOCKER_CONFIG={}",
                self.directory.path().join(".docker").display()
            ),
        );
        words.insert(0, "env".to_owned());
        Terminal::start(&words, 24, 80)
    }

    /// A host port that nothing uses now, for this scenario alone.
    pub fn port(&self) -> u16 {
        self.ports(1)
    }

    /// The first of `count` neighbouring host ports that nothing uses now.
    pub fn ports(&self, count: u16) -> u16 {
        let base = 20_000 + (u16::try_from(std::process::id() % 50).expect("small") * 200);
        loop {
            let port = base + NEXT_PORT.fetch_add(count, Ordering::Relaxed) % 2000;
            let free = |port: u16| {
                std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
                    && std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
            };
            if self.engine.on_host(|| (port..port + count).all(free)) {
                return port;
            }
        }
    }

    /// The first three numbers of a /24 that no other scenario of this run takes: `10.180.7`.
    pub fn subnet(&self) -> String {
        let second = 150 + std::process::id() % 80;
        format!(
            "10.{second}.{}",
            NEXT_SUBNET.fetch_add(1, Ordering::Relaxed)
        )
    }

    /// The same for IPv6: the first part of a /64, `fd00:b4:7`.
    pub fn subnet_v6(&self) -> String {
        let second = 150 + std::process::id() % 80;
        let third = NEXT_SUBNET.fetch_add(1, Ordering::Relaxed);
        format!("fd00:{second:x}:{third:x}")
    }

    /// Asks a web server at `address` on the engine's host until it answers; gives the body.
    #[track_caller]
    pub fn get(&self, address: impl Into<IpAddr>, port: u16, path: &str) -> String {
        let address = SocketAddr::new(address.into(), port);
        self.engine.on_host(|| patient_get(address, path))
    }

    /// Asks a web server at a published port from another machine.
    #[track_caller]
    pub fn get_from_outside(&self, port: u16, path: &str) -> String {
        let address = SocketAddr::new(self.engine.address, port);
        self.engine.outside.within(|| patient_get(address, path))
    }

    /// The full inspect answer of a container, from the API.
    #[track_caller]
    pub fn inspect(&self, name: &str) -> Value {
        let name = self.x(name);
        let response = self
            .engine
            .api("GET", &format!("/containers/{name}/json"), None);
        assert_eq!(response.status, 200, "inspect {name}: {}", response.text());
        response.json().expect("JSON")
    }

    /// The IPv4 address that a container has on a network.
    #[track_caller]
    pub fn address(&self, container: &str, network: &str) -> String {
        let networks = self.inspect(container)["NetworkSettings"]["Networks"].take();
        let address = &networks[self.x(network)]["IPAddress"];
        address
            .as_str()
            .unwrap_or_else(|| panic!("{container} on {network}: {networks}"))
            .to_owned()
    }

    /// Waits until the container is in `status`.
    #[track_caller]
    pub fn until_status(&self, name: &str, status: &str) {
        eventually_within(
            Duration::from_secs(20),
            &format!("{name} is {status}"),
            || (self.inspect(name)["State"]["Status"] == status).then_some(()),
        );
    }

    /// Waits until the container's log holds `text`.
    #[track_caller]
    pub fn until_logged(&self, name: &str, text: &str) {
        let text = self.x(text);
        eventually_within(
            Duration::from_secs(20),
            &format!("the log of {name} has {text:?}"),
            || {
                let logs = self.d(&format!("logs {name}"));
                (logs.stdout.contains(&text) || logs.stderr.contains(&text)).then_some(())
            },
        );
    }

    /// Removes the networks of this scenario, those that others were made from last.
    fn remove_networks(&self) {
        let list = self.engine.api("GET", "/networks", None).json();
        let list = list.expect("networks");
        let mut own: Vec<&Value> = list
            .as_array()
            .into_iter()
            .flatten()
            .filter(|network| {
                let name = network["Name"].as_str().unwrap_or_default();
                name.starts_with(&self.prefix)
            })
            .collect();
        own.sort_by_key(|network| network["ConfigOnly"].as_bool());
        for network in own {
            let id = network["Id"].as_str().unwrap_or_default();
            self.engine.api("DELETE", &format!("/networks/{id}"), None);
        }
    }

    fn remove_everything(&self) {
        let filters = format!("{{%22label%22:[%22gantry.test={}%22]}}", self.prefix);
        let list = self.engine.api(
            "GET",
            &format!("/containers/json?all=1&filters={filters}"),
            None,
        );
        for container in list
            .json()
            .expect("a list")
            .as_array()
            .into_iter()
            .flatten()
        {
            let id = container["Id"].as_str().unwrap_or_default();
            self.engine
                .api("DELETE", &format!("/containers/{id}?force=1&v=1"), None);
        }
        self.remove_networks();
        let volumes = self
            .engine
            .api("GET", "/volumes", None)
            .json()
            .expect("volumes");
        for volume in volumes["Volumes"].as_array().into_iter().flatten() {
            let name = volume["Name"].as_str().unwrap_or_default();
            if name.starts_with(&self.prefix)
                || volume["Labels"]["gantry.test"] == self.prefix.as_str()
            {
                self.engine
                    .api("DELETE", &format!("/volumes/{name}?force=1"), None);
            }
        }
        let images = self
            .engine
            .api("GET", "/images/json", None)
            .json()
            .expect("images");
        for tag in images
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|image| image["RepoTags"].as_array())
            .flatten()
        {
            let tag = tag.as_str().unwrap_or_default();
            if tag.contains(&self.prefix) {
                self.engine
                    .api("DELETE", &format!("/images/{tag}?force=1"), None);
            }
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // A scenario that failed because the engine is gone must still report its own failure.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.remove_everything()));
    }
}

/// Finds a program as a shell does.
fn which(program: &str) -> PathBuf {
    if program.contains('/') {
        return PathBuf::from(program);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("`{program}` is not on the path"))
}

fn resolver(prefix: String, directory: String) -> impl Fn(&str) -> String + Send {
    move |text| {
        expand(text, |name| match name {
            "bb" => "localhost/test/busybox:1".to_owned(),
            "deb" => "localhost/test/debian:1".to_owned(),
            "app" => "localhost/test/app:1".to_owned(),
            "web" => "localhost/test/web:1".to_owned(),
            "dir" => directory.clone(),
            "prefix" => prefix.clone(),
            other => format!("{prefix}-{other}"),
        })
    }
}

fn patient_get(address: SocketAddr, path: &str) -> String {
    let mut last = String::new();
    for _ in 0..500 {
        match http::get(address, path) {
            Ok(response) => return response.text(),
            Err(error) => last = format!("{error:#}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("http://{address}{path} never answered: {last}");
}

/// A client command that runs beside the scenario.
pub struct Background {
    pub child: std::process::Child,
    out: PathBuf,
    err: PathBuf,
    line: String,
}

impl Background {
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// Waits until standard output holds `text`.
    #[track_caller]
    pub fn until_shows(&self, text: &str) {
        eventually_within(
            Duration::from_secs(20),
            &format!("`{}` shows {text:?}", self.line),
            || self.stdout().contains(text).then_some(()),
        );
    }

    /// Waits for the end and gives the exit code.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        let what = format!("`{}` ends", self.line);
        let status = eventually_within(Duration::from_secs(40), &what, || {
            self.child.try_wait().expect("wait")
        });
        use std::os::unix::process::ExitStatusExt;
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }

    /// Sends a signal to the client.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .expect("signal the client");
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
