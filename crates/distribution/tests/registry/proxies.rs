//! Requests through proxies: HTTP, CONNECT, SOCKS.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use gantry_distribution::{Config, Credentials, Insecure, Proxies, Repository};
use gantry_testkit::registry::{Fault, Registry, Times};

use crate::secure::{authority, server};
use crate::{at, blob, config, read, registries, user};

/// No name of the real world: only a proxy can reach it.
const HOST: &str = "registry.invalid:5000";

fn through(proxies: Proxies) -> Repository {
    let registries = registries(Config {
        insecure: vec![Insecure::Host(HOST.to_owned())],
        proxies,
        ..config()
    });
    at(&registries, HOST, "x", Credentials::default())
}

/// A proxy that leads every connection to `target`, whatever it was asked for, and tells what that was.
struct Tunnel {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    fn start(target: SocketAddr, greet: fn(&mut TcpStream) -> std::io::Result<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&asked);
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let told = Arc::clone(&told);
                std::thread::spawn(move || {
                    let Ok(asked) = greet(&mut client) else {
                        return;
                    };
                    told.lock().expect("not poisoned").push(asked);
                    let server = TcpStream::connect(target).expect("the target");
                    pump(client, server);
                });
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

fn pump(client: TcpStream, server: TcpStream) {
    let (mut from, mut to) = (
        client.try_clone().expect("a handle"),
        server.try_clone().expect("a handle"),
    );
    let back = std::thread::spawn(move || {
        let (mut from, mut to) = (server, client);
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    let _ = back.join();
}

fn connect(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let head = String::from_utf8_lossy(&head).into_owned();
    Ok(head.lines().next().unwrap_or_default().to_owned())
}

/// SOCKS 5 (RFC 1928) without authentication, for names.
fn socks(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    stream.read_exact(&mut vec![0; head[1].into()])?;
    stream.write_all(&[5, 0])?;
    let mut request = [0; 5];
    stream.read_exact(&mut request)?;
    assert_eq!(request[3], 3, "a name, which the proxy resolves");
    let mut name = vec![0; usize::from(request[4]) + 2];
    stream.read_exact(&mut name)?;
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
    let port = u16::from_be_bytes([name[name.len() - 2], name[name.len() - 1]]);
    name.truncate(name.len() - 2);
    Ok(format!("{}:{port}", String::from_utf8_lossy(&name)))
}

fn stocked() -> Registry {
    let registry = Registry::start();
    registry.push_image("x", "1", &[b"x"]);
    registry
}

#[tokio::test]
async fn plain_requests_go_through_an_http_proxy() {
    // The registry stands in for the proxy: it gets whole addresses.
    let registry = stocked();
    let repository = through(Proxies {
        http: Some(registry.host()),
        ..Proxies::default()
    });
    repository.manifest("1").await.expect("a manifest");
    let request = &registry.requests_of("GET", "/manifests/")[0];
    assert_eq!(request.path, format!("http://{HOST}/v2/x/manifests/1"));
}

#[tokio::test]
async fn tls_goes_through_a_tunnel_of_an_http_proxy() {
    let authority = authority("authority");
    let registry = Registry::start_tls(server(&authority, &["registry.invalid"], None));
    registry.push_image("x", "1", &[b"x"]);
    let directory = tempfile::tempdir().expect("a directory");
    let host = directory.path().join("a.example");
    std::fs::create_dir(&host).expect("a directory");
    std::fs::write(host.join("ca.crt"), authority.pem()).expect("a file");
    let hosts = format!("server = \"https://{HOST}\"");
    std::fs::write(host.join("hosts.toml"), hosts).expect("a file");
    let tunnel = Tunnel::start(registry.address(), connect);
    let registries = registries(Config {
        certs_dirs: vec![directory.path().to_owned()],
        proxies: Proxies {
            https: Some(format!("http://{}", tunnel.address)),
            ..Proxies::default()
        },
        ..config()
    });
    let repository = at(&registries, "a.example", "x", Credentials::default());
    repository.manifest("1").await.expect("a manifest");
    assert_eq!(tunnel.asked()[0], format!("CONNECT {HOST} HTTP/1.1"));
}

#[tokio::test]
async fn a_proxy_gets_its_own_password() {
    let registry = stocked();
    let repository = through(Proxies {
        http: Some(format!("http://who:secret@{}", registry.host())),
        ..Proxies::default()
    });
    repository.manifest("1").await.expect("a manifest");
    let request = &registry.requests_of("GET", "/manifests/")[0];
    assert_eq!(
        request.header("proxy-authorization"),
        Some("Basic d2hvOnNlY3JldA==")
    );
}

#[tokio::test]
async fn requests_go_through_a_socks_proxy() {
    let registry = stocked();
    let tunnel = Tunnel::start(registry.address(), socks);
    let repository = through(Proxies {
        http: Some(format!("socks5h://{}", tunnel.address)),
        https: Some(format!("socks5h://{}", tunnel.address)),
        no_proxy: "other.invalid".to_owned(),
    });
    repository.manifest("1").await.expect("a manifest");
    assert_eq!(tunnel.asked()[0], HOST);
}

#[tokio::test]
async fn what_no_proxy_names_is_reached_directly() {
    let registry = stocked();
    let repository = through(Proxies {
        http: Some(registry.host()),
        https: None,
        no_proxy: ".invalid".to_owned(),
    });
    repository
        .manifest("1")
        .await
        .expect_err("there is no such name");
    assert!(registry.requests().is_empty());
}

#[tokio::test]
async fn this_machine_is_never_asked_for_by_a_proxy() {
    let registry = stocked();
    let proxy = Some("http://proxy.invalid:3128".to_owned());
    let registries = registries(Config {
        proxies: Proxies {
            http: proxy.clone(),
            https: proxy,
            no_proxy: String::new(),
        },
        ..config()
    });
    let repository = at(&registries, &registry.host(), "x", Credentials::default());
    repository.manifest("1").await.expect("a manifest");
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_told() {
    let repository = through(Proxies {
        http: Some("127.0.0.1:1".to_owned()),
        https: Some("127.0.0.1:1".to_owned()),
        no_proxy: String::new(),
    });
    let error = repository.manifest("1").await.expect_err("no proxy");
    assert_eq!(
        error.to_string(),
        format!(
            "Get \"http://{HOST}/v2/\": proxyconnect tcp: dial tcp 127.0.0.1:1: connect: connection refused"
        )
    );
}

/// A client that calls [`HOST`] and `also` insecure.
fn lenient(also: &[&str], proxies: Proxies) -> Repository {
    let names = also.iter().copied().chain([HOST]);
    let registries = registries(Config {
        insecure: names.map(|name| Insecure::Host(name.to_owned())).collect(),
        proxies,
        ..config()
    });
    at(&registries, HOST, "x", user())
}

#[tokio::test]
async fn an_insecure_registry_makes_no_other_host_insecure() {
    // All names lead to this one server, whose certificate nobody knows.
    let registry = Registry::start_tls(server(&authority("any"), &["x.invalid"], None));
    let descriptor = blob(&registry, b"x");
    let tunnel = Tunnel::start(registry.address(), connect);
    let proxies = || Proxies {
        https: Some(format!("http://{}", tunnel.address)),
        ..Proxies::default()
    };
    let lead_to = |host: &str| {
        registry.behave();
        let target = format!("https://{host}/v2/s/blobs/{}", descriptor.digest);
        registry.misbehave(
            "GET",
            "/v2/x/blobs/",
            Times::Always,
            Fault::redirect(&target),
        );
    };
    lead_to("storage.invalid");
    let error = read(&lenient(&[], proxies()), &descriptor, 0)
        .await
        .expect_err("nobody knows it");
    assert!(
        error
            .to_string()
            .contains("tls: failed to verify certificate"),
        "{error}"
    );
    let named = lenient(&["storage.invalid"], proxies());
    assert_eq!(read(&named, &descriptor, 0).await.expect("a blob"), b"x");
    // Another port of the same host is no other host.
    lead_to("registry.invalid:5001");
    let same = lenient(&[], proxies());
    assert_eq!(read(&same, &descriptor, 0).await.expect("a blob"), b"x");
}

#[tokio::test]
async fn a_password_goes_to_no_other_host_without_tls() {
    let registry = stocked();
    let proxies = || Proxies {
        http: Some(registry.host()),
        ..Proxies::default()
    };
    let challenge = Fault::Answer {
        status: 401,
        headers: vec![(
            "WWW-Authenticate".to_owned(),
            "Bearer realm=\"http://auth.invalid/token\"".to_owned(),
        )],
        body: String::new(),
    };
    registry.misbehave("GET", "/v2/", Times::Always, challenge);
    let error = lenient(&[], proxies())
        .manifest("1")
        .await
        .expect_err("no TLS");
    assert!(
        error
            .to_string()
            .ends_with("would get the password without TLS"),
        "{error}"
    );
    assert!(registry.requests_of("*", "auth.invalid").is_empty());
    let _ = lenient(&["auth.invalid"], proxies()).manifest("1").await;
    let asked = registry.requests_of("GET", "http://auth.invalid/token");
    assert!(asked[0].header("authorization").is_some());
}
