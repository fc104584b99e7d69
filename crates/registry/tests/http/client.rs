//! A registry on a port of its own, and a plain HTTP client that hides nothing of what is on the wire.

use gantry_registry::{Limits, Options, Policy, Registry, Tokens};
use serde_json::Value;
use sha2::Digest as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;
use tokio::sync::oneshot;

/// A running registry. Dropped, it ends.
pub struct Server {
    pub address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Options for a root without anything else.
pub fn options(root: &Path) -> Options {
    Options {
        root: root.to_owned(),
        engine_root: None,
        htpasswd: None,
        access: None,
        tokens: Tokens::None,
        is_read_only: false,
        is_sparse: false,
        public_url: None,
        limits: Limits {
            silence: Duration::from_secs(2),
            ..Limits::default()
        },
        upstreams: Vec::new(),
        upstream_certs: None,
        mirror: None,
        tag_ttl: Duration::from_secs(300),
        collect_interval: None,
        policy: Policy {
            grace: Duration::from_secs(3600),
            untagged: None,
            uploads: Duration::from_secs(3600),
            caches: Vec::new(),
            cache_age: None,
            cache_bytes: None,
            is_dry_run: false,
        },
    }
}

impl Server {
    pub fn start(options: Options) -> Self {
        let registry = Registry::open(options).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(gantry_registry::serve(registry, listener, None, async {
                let _ = ended.await;
            }));
        });
        Self {
            address,
            end: Some(end),
            thread: Some(thread),
        }
    }

    /// Sends one request on a connection of its own.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.connect();
        let head = head(method, path, headers, Some(body.len()));
        stream.write_all(head.as_bytes()).unwrap();
        // A registry that refuses early may close before it has all.
        let _ = stream.write_all(body);
        answer(stream, method)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    /// Pushes a blob in one request.
    #[track_caller]
    pub fn push_blob(&self, name: &str, content: &[u8]) -> String {
        let digest = sha256(content);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let answer = self.send("POST", &path, &[], content);
        assert_eq!(answer.status, 201, "{answer:?}");
        digest
    }

    /// Pushes an image of one layer under a tag.
    #[track_caller]
    pub fn push_image(&self, name: &str, tag: &str, layer: &[u8]) -> String {
        let manifest = self.image(name, layer);
        let answer = self.put_manifest(name, tag, MANIFEST, &manifest);
        assert_eq!(answer.status, 201, "{answer:?}");
        sha256(&manifest)
    }

    /// Pushes the blobs of an image of one layer and gives its manifest.
    pub fn image(&self, name: &str, layer: &[u8]) -> Vec<u8> {
        let config = self.push_blob(name, b"{}");
        let layer_digest = self.push_blob(name, layer);
        manifest(&config, 2, &layer_digest, layer.len()).into_bytes()
    }

    pub fn put_manifest(&self, name: &str, reference: &str, kind: &str, bytes: &[u8]) -> Answer {
        let path = format!("/v2/{name}/manifests/{reference}");
        self.send("PUT", &path, &[("Content-Type", kind)], bytes)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn manifest(config: &str, config_size: usize, layer: &str, layer_size: usize) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":{config_size}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":{layer_size}}}]}}"#
    )
}

pub fn sha256(content: &[u8]) -> String {
    format!("sha256:{}", hex(&sha2::Sha256::digest(content)))
}

pub fn sha512(content: &[u8]) -> String {
    format!("sha512:{}", hex(&sha2::Sha512::digest(content)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the head of a request; without a length it is one of chunks.
pub fn head(method: &str, path: &str, headers: &[(&str, &str)], length: Option<usize>) -> String {
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nHost: registry.test\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match length {
        Some(length) => head.push_str(&format!("Content-Length: {length}\r\n\r\n")),
        None => head.push_str("Transfer-Encoding: chunked\r\n\r\n"),
    }
    head
}

/// What a registry answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The status and the first error's code.
    #[track_caller]
    pub fn refusal(&self) -> (u16, String) {
        let json = self.json();
        let code = json["errors"][0]["code"].as_str().unwrap_or_default();
        (self.status, code.to_owned())
    }
}

/// Reads an answer to its end.
#[track_caller]
pub fn answer(stream: TcpStream, method: &str) -> Answer {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("no status in {line:?}"));
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let mut answer = Answer {
        status,
        headers,
        body: Vec::new(),
    };
    let length = answer
        .header("content-length")
        .and_then(|text| text.parse::<usize>().ok());
    if method != "HEAD" {
        match length {
            Some(length) => {
                let mut body = vec![0; length];
                let mut filled = 0;
                while filled < length {
                    match reader.read(&mut body[filled..]) {
                        Ok(0) | Err(_) => break,
                        Ok(count) => filled += count,
                    }
                }
                body.truncate(filled);
                answer.body = body;
            }
            None => {
                reader.read_to_end(&mut answer.body).unwrap();
            }
        }
    }
    answer
}
