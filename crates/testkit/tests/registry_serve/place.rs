//! A registry in a network of its own, and the programs that speak to it there.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use gantry_testkit::engine::{Engine, binary, images_directory};
use gantry_testkit::http;
use gantry_testkit::wait::eventually_within;
use sha2::Digest as _;
use tempfile::TempDir;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Namespaces, and a directory whose `root` is the registry's.
pub struct Place {
    pub engine: Engine,
    pub directory: TempDir,
}

/// A running registry. Dropped, it is killed.
pub struct Registry<'a> {
    place: &'a Place,
    pub child: Child,
    address: SocketAddr,
    log: String,
}

impl Place {
    pub fn new() -> Place {
        Place::beside(Engine::private_empty(&[]))
    }

    pub fn beside(engine: Engine) -> Place {
        let directory = tempfile::Builder::new()
            .prefix("gantry-registry-")
            .tempdir_in("/var/tmp")
            .expect("make a directory");
        // Nobody's own credentials; podman wants the file to be there.
        std::fs::write(directory.path().join("auth.json"), "{}").expect("write");
        Place { engine, directory }
    }

    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// A free port of the namespace.
    pub fn port(&self) -> u16 {
        self.engine.on_host(|| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
            listener.local_addr().expect("an address").port()
        })
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut all = self.engine.host_words();
        all.extend(words.iter().map(|&word| word.to_owned()));
        let mut command = Command::new(&all[0]);
        command
            .args(&all[1..])
            .env("DOCKER_CONFIG", self.path("config"))
            .env("REGISTRY_AUTH_FILE", self.path("auth.json"))
            .stdin(Stdio::null());
        command
    }

    pub fn output(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("start nsenter")
    }

    #[track_caller]
    pub fn ok(&self, words: &[&str]) -> String {
        let output = self.output(words);
        assert!(
            output.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// Runs a command of `gantry registry`.
    #[track_caller]
    pub fn gantry(&self, words: &[&str]) -> String {
        let binary = binary().display().to_string();
        let mut all = vec![binary.as_str(), "registry"];
        all.extend_from_slice(words);
        self.ok(&all)
    }

    pub fn serve(&self, flags: &[&str]) -> Registry<'_> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port()));
        self.serve_at(&address.to_string(), flags)
    }

    pub fn serve_at(&self, text: &str, flags: &[&str]) -> Registry<'_> {
        let (binary, root) = (binary().display().to_string(), self.path("root"));
        let address: SocketAddr = text.parse().expect("an address");
        let mut words = vec![
            "setpriv",
            "--pdeathsig",
            "KILL",
            &binary,
            "registry",
            "serve",
            "--root",
            &root,
            "--addr",
            text,
        ];
        words.extend_from_slice(flags);
        let log = self.path(&format!("log-{}", address.port()));
        let stderr = std::fs::File::create(&log).expect("make the log");
        let child = self
            .command(&words)
            .stderr(stderr)
            .spawn()
            .expect("start nsenter");
        let registry = Registry {
            place: self,
            child,
            address,
            log,
        };
        eventually_within(Duration::from_secs(20), "the registry listens", || {
            registry.log().contains("registry listens on").then_some(())
        });
        registry
    }
}

impl Registry<'_> {
    /// What it said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, &[u8])>,
    ) -> anyhow::Result<http::Response> {
        let address = self.address;
        self.place
            .engine
            .on_host(|| http::tcp(address, method, path, body))
    }

    pub fn kill(mut self) {
        self.child.kill().expect("kill the registry");
        self.child.wait().expect("wait for the registry");
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn busybox() -> String {
    format!(
        "docker-archive:{}",
        images_directory().join("busybox.tar").display()
    )
}

/// The digest of a name at a registry without TLS.
#[track_caller]
pub fn digest(place: &Place, name: &str) -> String {
    let name = format!("docker://{name}");
    let words = [
        "skopeo",
        "inspect",
        "--tls-verify=false",
        "--format",
        "{{.Digest}}",
        &name,
    ];
    place.ok(&words)
}

#[track_caller]
pub fn copy(place: &Place, from: &str, to: &str) {
    place.ok(&[
        "skopeo",
        "--insecure-policy",
        "copy",
        "--preserve-digests",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        from,
        to,
    ]);
}

pub fn sha256(content: &[u8]) -> String {
    let hash = sha2::Sha256::digest(content);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Hashes all content again, and says what is not what it is called.
#[track_caller]
pub fn faultless(root: &Path) {
    let directory = root.join("content/sha256");
    for entry in std::fs::read_dir(&directory).expect("the content") {
        let path = entry.expect("an entry").path();
        let content = std::fs::read(&path).expect("read content");
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        assert_eq!(sha256(&content), format!("sha256:{name}"));
    }
}
