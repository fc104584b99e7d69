//! Whether a container is found and reached while the daemon and netd are killed again and again.
//!
//! Look-ups from inside a container and connections on every way to a published port go on at a steady rate. None may fail and
//! none may take longer than a second, whoever is dead at the moment. What netd carries itself, as connections to ::1, outlives
//! it: a long transfer there goes on byte for byte in both directions.
//!
//! - `GANTRY_REACH_KILLS` (default 4): how many times the daemon and how many times netd is killed.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gantry_testkit::engine::{Engine, ORACLE_SOCKET};
use gantry_testkit::space::within_network_of;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

const PORT: u16 = 7000;
/// Where what was sent comes back.
const ECHO_PORT: u16 = 7001;
/// What is sent at once there, and how often.
const BLOCK: usize = 100_000;
const BLOCK_PAUSE: Duration = Duration::from_millis(10);
/// What may pass until an answer is there.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How long a lost one is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Look-ups a second, and new connections a second on each way.
const LOOK_UPS: u32 = 1000;
const CONNECTIONS: u32 = 200;
/// Of each kind this many are under way at once, so that one that waits does not keep the others from being made.
const WORKERS: u32 = 4;

/// What a kind of request met.
#[derive(Default)]
struct Tally {
    made: AtomicUsize,
    slowest: Mutex<Duration>,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    fn note(&self, begin: Instant, result: Result<(), String>) {
        self.made.fetch_add(1, Ordering::Relaxed);
        let took = begin.elapsed();
        {
            let mut slowest = self.slowest.lock().unwrap();
            *slowest = took.max(*slowest);
        }
        let failure = match result {
            Err(error) => error,
            Ok(()) if took > WAIT_MAX => "too slow".to_owned(),
            Ok(()) => return,
        };
        let mut failures = self.failures.lock().unwrap();
        failures.push(format!("{failure} after {} ms", took.as_millis()));
    }
}

/// Runs `request` at `rate` a second on some threads in the network namespace of `pid`, until `over`.
fn steadily<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    pid: u32,
    rate: u32,
    over: &'scope AtomicBool,
    tally: &'scope Tally,
    request: impl Fn() -> Result<(), String> + Send + Sync + Clone + 'scope,
) {
    let pause = Duration::from_secs(1) * WORKERS / rate;
    for worker in 0..WORKERS {
        let request = request.clone();
        scope.spawn(move || {
            within_network_of(pid, || {
                let mut due = Instant::now() + pause * worker / WORKERS;
                while !over.load(Ordering::Relaxed) {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let begin = Instant::now();
                    tally.note(begin, request());
                    // What was late is not made up for by a burst.
                    due = (due + pause).max(Instant::now());
                }
            });
        });
    }
}

/// Connects, and reads what the container's server says.
fn connect(address: SocketAddr) -> Result<(), String> {
    let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
    let mut stream =
        TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| failed("connect", error))?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .map_err(|error| failed("set a timeout", error))?;
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .map_err(|error| failed("read", error))?;
    // A reset in the place of a farewell: no port is kept busy for a minute.
    let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
    if text == "here" {
        Ok(())
    } else {
        Err(format!("read `{text}`"))
    }
}

/// Asks for the address of `name` and expects `address`.
fn look_up(name: &str, address: IpAddr, number: u16) -> Result<(), String> {
    let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(|error| failed("bind", error))?;
    socket
        .set_read_timeout(Some(PATIENCE))
        .map_err(|error| failed("set a timeout", error))?;
    let mut query = number.to_be_bytes().to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    query.push(u8::try_from(name.len()).expect("a short name"));
    query.extend(name.as_bytes());
    query.extend([0, 0, 1, 0, 1]);
    socket
        .send_to(&query, "127.0.0.11:53")
        .map_err(|error| failed("ask", error))?;
    let mut answer = [0; 512];
    let length = socket
        .recv(&mut answer)
        .map_err(|error| failed("wait for an answer", error))?;
    let answer = &answer[..length];
    let IpAddr::V4(address) = address else {
        return Err("the container has no IPv4 address".to_owned());
    };
    // One answer to our number, without an error, that ends in the address.
    let is_right = answer[..2] == query[..2]
        && answer[3] & 0x0f == 0
        && answer[6..8] == [0, 1]
        && answer.windows(4).any(|four| four == address.octets());
    if is_right {
        Ok(())
    } else {
        Err(format!("answer {answer:02x?}"))
    }
}

struct Container {
    id: String,
    pid: u32,
    address: IpAddr,
}

fn start(engine: &Engine, name: &str, ports: serde_json::Value) -> Container {
    let body = json!({
        "Image": "localhost/test/busybox:1",
        "Cmd": ["sleep", "1000000"],
        "ExposedPorts": {format!("{PORT}/tcp"): {}, format!("{ECHO_PORT}/tcp"): {}},
        "HostConfig": {"NetworkMode": "reach", "PortBindings": ports},
    });
    let created = engine.api(
        "POST",
        &format!("/containers/create?name={name}"),
        Some(&body),
    );
    assert_eq!(created.status, 201, "{}", created.text());
    let id = created.json().unwrap()["Id"].as_str().unwrap().to_owned();
    let started = engine.api("POST", &format!("/containers/{id}/start"), None);
    assert_eq!(started.status, 204, "{}", started.text());
    let inspected = engine.api("GET", &format!("/containers/{id}/json"), None);
    let inspected = inspected.json().unwrap();
    let network = &inspected["NetworkSettings"]["Networks"]["reach"];
    Container {
        pid: u32::try_from(inspected["State"]["Pid"].as_u64().unwrap()).unwrap(),
        address: network["IPAddress"].as_str().unwrap().parse().unwrap(),
        id,
    }
}

/// Answers in the container's place: threads in its network namespace.
fn serve(pid: u32, port: u16, answer: fn(TcpStream)) {
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        within_network_of(pid, || {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
                .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
                .expect("listen in the container");
            ready.send(()).expect("somebody waits");
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                answer(stream);
            }
        });
    });
    is_ready.recv().expect("the server starts");
}

/// Sends bytes that are told by their place, until `over`, and reads them back; gives their number.
fn transfer(address: SocketAddr, over: &AtomicBool) -> Result<usize, String> {
    let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
    let stream = TcpStream::connect(address).map_err(|error| failed("connect", error))?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
        .map_err(|error| failed("set a timeout", error))?;
    let bytes_from = |offset: usize, length: usize| {
        let bytes = (offset..offset + length).map(|place| (place % 251) as u8);
        bytes.collect::<Vec<u8>>()
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<usize, String> {
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                (&stream)
                    .write_all(&bytes_from(sent, BLOCK))
                    .map_err(|error| failed("send", error))?;
                sent += BLOCK;
                std::thread::sleep(BLOCK_PAUSE);
            }
            stream
                .shutdown(Shutdown::Write)
                .map_err(|error| failed("end", error))?;
            Ok(sent)
        });
        let mut buffer = vec![0; 64 << 10];
        let mut received = 0;
        let read = loop {
            match (&stream).read(&mut buffer) {
                Ok(0) => break Ok(received),
                Ok(length) if buffer[..length] == bytes_from(received, length) => {
                    received += length;
                }
                Ok(_) => break Err(format!("other bytes after {received}")),
                Err(error) => break Err(failed("read", error)),
            }
        };
        let sent = writer.join().expect("the writer does not panic")?;
        let received = read?;
        if received == sent {
            Ok(sent)
        } else {
            Err(format!("{received} bytes of {sent} came back"))
        }
    })
}

/// Kills netd and waits for its successor.
fn kill_netd(engine: &Engine) {
    let before = engine.processes_of_role("netd");
    assert!(!before.is_empty(), "no netd runs");
    for pid in &before {
        let pid = Pid::from_raw(pid.cast_signed()).expect("a pid");
        let _ = kill_process(pid, Signal::KILL);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let now = engine.processes_of_role("netd");
        if now.iter().any(|pid| !before.contains(pid)) {
            return;
        }
        assert!(Instant::now() < deadline, "nobody starts netd again");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn names_and_ports_answer_while_daemon_and_netd_are_killed() {
    if std::env::var_os(ORACLE_SOCKET).is_some() {
        println!("skipped: the reference engine is not ours to kill");
        return;
    }
    let kills =
        std::env::var("GANTRY_REACH_KILLS").map_or(4, |text| text.parse().expect("a number"));
    let engine = Engine::private(&[]);
    let created = engine.api("POST", "/networks/create", Some(&json!({"Name": "reach"})));
    assert_eq!(created.status, 201, "{}", created.text());
    let bindings = json!({
        format!("{PORT}/tcp"): [{"HostPort": PORT.to_string()}],
        format!("{ECHO_PORT}/tcp"): [{"HostPort": ECHO_PORT.to_string()}],
    });
    let server = start(&engine, "server", bindings);
    let asker = start(&engine, "asker", json!({}));
    // A name resolves when `start` has returned.
    let first = within_network_of(asker.pid, || look_up("server", server.address, 1));
    assert_eq!(first, Ok(()));
    serve(server.pid, PORT, |mut stream| {
        let _ = stream.write_all(b"here");
    });
    serve(server.pid, ECHO_PORT, |stream| {
        std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
    });

    let host = engine.places().host_pid;
    let outside = engine.outside.pid();
    let at = |address: &str| SocketAddr::new(address.parse().unwrap(), PORT);
    let own = SocketAddr::new(engine.address, PORT);
    let ways: [(&str, u32, SocketAddr); 6] = [
        ("127.0.0.1", host, at("127.0.0.1")),
        ("::1", host, at("::1")),
        ("the host's address", host, own),
        ("hairpin, its own", server.pid, own),
        ("hairpin, another container", asker.pid, own),
        ("another host", outside, own),
    ];
    let tallies: Vec<Tally> = ways.iter().map(|_| Tally::default()).collect();
    let names = Tally::default();
    let transferred: Mutex<Result<usize, String>> = Mutex::new(Ok(0));
    let over = AtomicBool::new(false);
    let number = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let rate = CONNECTIONS;
        for ((_, pid, address), tally) in ways.iter().zip(&tallies) {
            let address = *address;
            steadily(scope, *pid, rate, &over, tally, move || connect(address));
        }
        let address = server.address;
        let ask = {
            let number = Arc::clone(&number);
            move || {
                let number = number.fetch_add(1, Ordering::Relaxed) as u16;
                look_up("server", address, number)
            }
        };
        steadily(scope, asker.pid, LOOK_UPS, &over, &names, ask);
        scope.spawn(|| {
            within_network_of(host, || {
                let address = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), ECHO_PORT);
                *transferred.lock().unwrap() = transfer(address, &over);
            });
        });
        // Whatever goes wrong here, the threads must hear of the end.
        let killing = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..kills {
                std::thread::sleep(Duration::from_millis(300));
                engine.end_daemon(Signal::KILL);
                std::thread::sleep(Duration::from_millis(200));
                engine.start_daemon(&[]);
                std::thread::sleep(Duration::from_millis(300));
                kill_netd(&engine);
            }
            std::thread::sleep(WAIT_MAX);
        }));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = killing {
            std::panic::resume_unwind(panic);
        }
    });
    let mut bad = Vec::new();
    match transferred.into_inner().unwrap() {
        Ok(bytes) => println!("transfer by ::1: {} MB each way", bytes / 1_000_000),
        Err(error) => bad.push(format!("transfer by ::1: {error}")),
    }
    let named = ways.iter().map(|(name, ..)| *name).zip(&tallies);
    for (name, tally) in named.chain([("look-ups", &names)]) {
        let failures = tally.failures.lock().unwrap();
        println!(
            "{name}: {} made, the slowest took {} ms, {} failed",
            tally.made.load(Ordering::Relaxed),
            tally.slowest.lock().unwrap().as_millis(),
            failures.len()
        );
        bad.extend(
            failures
                .iter()
                .take(5)
                .map(|failure| format!("{name}: {failure}")),
        );
    }
    for container in [server, asker] {
        engine.api(
            "DELETE",
            &format!("/containers/{}?force=1", container.id),
            None,
        );
    }
    engine.api("DELETE", "/networks/reach", None);
    assert!(
        bad.is_empty(),
        "{bad:#?}\nthe daemon's log ends:\n{}",
        engine.daemon_log_tail()
    );
}
