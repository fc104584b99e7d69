//! Registries of others: Debian's docker-registry, and a search service of Docker's old index protocol.
//!
//! They listen on the loopback interface of the engine's host, where every engine speaks to them without TLS.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::engine::Engine;
use crate::http;
use crate::session::Session;
use crate::wait::eventually_within;

/// A user of a registry that asks for one.
pub const USER: &str = "alice";
/// That user's password.
pub const PASSWORD: &str = "secret";

/// A running docker-registry; dropping it ends it and removes what it keeps.
pub struct DockerRegistry {
    child: Child,
    port: u16,
    directory: TempDir,
}

impl DockerRegistry {
    /// Starts a registry that serves everybody.
    pub fn open(s: &Session) -> DockerRegistry {
        DockerRegistry::start(s.engine, s.port(), false)
    }

    /// Starts a registry that serves [`USER`] alone.
    pub fn protected(s: &Session) -> DockerRegistry {
        DockerRegistry::start(s.engine, s.port(), true)
    }

    /// Starts a registry at a free port of the engine's host.
    pub fn start(engine: &Engine, port: u16, protected: bool) -> DockerRegistry {
        let registry = DockerRegistry::spawn(engine.host_words(), port, protected);
        registry.wait(|address| engine.on_host(|| http::get(address, "/v2/")));
        registry
    }

    /// Starts a registry where this process is, without an engine.
    pub fn here(protected: bool) -> DockerRegistry {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let registry = DockerRegistry::spawn(Vec::new(), port, protected);
        registry.wait(|address| http::get(address, "/v2/"));
        registry
    }

    /// Starts the process, behind the words that put it into its place.
    fn spawn(mut words: Vec<String>, port: u16, protected: bool) -> DockerRegistry {
        let directory = tempfile::Builder::new()
            .prefix("gantry-registry-")
            .tempdir_in("/var/tmp")
            .expect("make a directory");
        let root = directory.path().display();
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
        );
        if protected {
            config.push_str(&format!(
                "auth: {{htpasswd: {{realm: registry, path: {root}/users}}}}\n"
            ));
            std::fs::write(
                directory.path().join("users"),
                format!("{USER}:{}\n", hashed(PASSWORD)),
            )
            .expect("write the users");
        }
        let file = directory.path().join("config.yml");
        std::fs::write(&file, config).expect("write the configuration");
        words.extend(["docker-registry".to_owned(), "serve".to_owned()]);
        words.push(file.display().to_string());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.path().join("log")).expect("make the log"))
            .spawn()
            .expect("start docker-registry (the package of that name is needed)");
        DockerRegistry {
            child,
            port,
            directory,
        }
    }

    fn wait(&self, ask: impl Fn(SocketAddr) -> anyhow::Result<http::Response>) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        eventually_within(Duration::from_secs(20), "the registry answers", || {
            ask(address)
                .is_ok_and(|answer| matches!(answer.status, 200 | 401))
                .then_some(())
        });
    }

    /// `host:port` as images name it.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What the registry complained about.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes an image with a layer that is nowhere else.
#[track_caller]
pub fn fresh(s: &Session, name: &str) {
    let script = "head -c 300000 /dev/urandom > fresh.bin; tar -cf fresh.tar fresh.bin";
    let made = Command::new("sh")
        .current_dir(s.dir())
        .args(["-ec", script])
        .status()
        .expect("start sh");
    assert!(made.success());
    s.d(&format!("import -c 'CMD [\"/x\"]' fresh.tar {name}"))
        .ok();
}

/// Takes out the digest that a push or a pull tells.
#[track_caller]
pub fn digest(text: &str) -> String {
    let at = text.find("sha256:").expect("a digest");
    text[at..at + "sha256:".len() + 64].to_owned()
}

/// Hashes a password as docker-registry wants it: bcrypt, which perl has from the C library.
fn hashed(password: &str) -> String {
    let output = Command::new("perl")
        .args([
            "-e",
            "print crypt($ARGV[0], q($2b$05$abcdefghijklmnopqrstuu))",
            password,
        ])
        .output()
        .expect("start perl");
    let hash = String::from_utf8(output.stdout).expect("text");
    assert!(hash.starts_with("$2b$"), "no bcrypt here: {hash:?}");
    // The same algorithm under the name that the registry knows.
    hash.replacen("$2b$", "$2y$", 1)
}

/// A search service that always finds the same; its thread ends with the test.
pub struct SearchService {
    port: u16,
}

impl SearchService {
    /// Starts the service; `hits` is the list in the JSON that it answers.
    pub fn start(engine: &Engine, hits: &'static str) -> SearchService {
        let listener = engine
            .on_host(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .expect("listen");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away in between asks again or is gone.
                let _ = answer(stream, hits);
            }
        });
        SearchService { port }
    }

    /// `host:port` as search terms begin with it.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn answer(stream: TcpStream, hits: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream);
    // TLS begins with a byte that no HTTP request begins with: such a client is sent away.
    if reader.fill_buf()?.first() == Some(&0x16) {
        return Ok(());
    }
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.by_ref().take(65536).read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match path {
        path if path.starts_with("/v1/_ping") => ("200 OK", "true".to_owned()),
        path if path.starts_with("/v1/search?") && path.contains("q=broken") => {
            ("500 Internal Server Error", "oops".to_owned())
        }
        path if path.starts_with("/v1/search?") => (
            "200 OK",
            format!(r#"{{"query":"x","num_results":3,"results":{hits}}}"#),
        ),
        _ => ("404 Not Found", String::new()),
    };
    let mut stream = reader.into_inner();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Docker-Registry-Standalone: true\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
