//! Networks that come and go while a container runs, with something in the way: what the container has made of its own
//! files, its death in the wrong moment, a daemon that is dead. Engines of their own.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use gantry_testkit::engine::{Engine, ORACLE_SOCKET};
use gantry_testkit::leak;
use gantry_testkit::session::{Client, Session};
use gantry_testkit::wait::eventually;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// An engine of its own; none on the reference, whose processes are not ours to look into.
fn engine() -> Option<Engine> {
    if std::env::var_os(ORACLE_SOCKET).is_some() {
        println!("skipped: the reference engine's processes are its own");
        return None;
    }
    Some(Engine::private(&[]))
}

fn process_of(s: &Session, container: &str) -> Pid {
    let pid = s.inspect(container)["State"]["Pid"].as_i64();
    let pid = pid.and_then(|pid| i32::try_from(pid).ok());
    pid.and_then(Pid::from_raw).expect("a process")
}

/// Whether `inspect` has a container on a network.
fn is_on(s: &Session, container: &str, network: &str) -> bool {
    let network = s.x(network);
    s.inspect(container)["NetworkSettings"]["Networks"][network.as_str()] != Value::Null
}

/// The most memory that a process has had, in KiB.
fn memory_peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.expect("a peak").parse().expect("a number")
}

#[test]
fn what_a_container_does_to_its_hosts_file_hinders_no_connect() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine, Client::Docker);
    let s = &session;
    s.d("network create @n").ok();
    s.d("run -d --name @c @bb sleep 1000").ok();
    s.d(r"exec @c sh -c 'printf \\377 >> /etc/hosts'").ok();
    let line = || format!("{}\t", s.address("@c", "@n"));
    s.d("network connect @n @c").prints("");
    let own = line();
    let hosts = s.d("exec @c cat /etc/hosts").stdout;
    // What is no text is shown as the sign for that, and stays.
    assert!(
        hosts.contains(&own) && hosts.contains('\u{fffd}'),
        "{hosts}"
    );
    s.d("network disconnect @n @c").prints("");
    assert!(!s.d("exec @c cat /etc/hosts").stdout.contains(&own));

    let daemon = engine.daemon_pid().expect("a daemon");
    let before = memory_peak_kib(daemon);
    s.d("exec @c truncate -s 700M /etc/hosts").ok();
    s.d("network connect @n @c").prints("");
    assert!(is_on(s, "@c", "@n"));
    s.d("network disconnect @n @c").prints("");
    assert!(!is_on(s, "@c", "@n"));
    let grown = memory_peak_kib(daemon).saturating_sub(before);
    assert!(grown < 100 << 10, "the daemon took {grown} KiB more");
}

#[test]
fn netd_lets_go_of_a_container_that_ends_while_no_daemon_lives() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine, Client::Docker);
    let s = &session;
    s.d("network create @n").ok();
    // The second one is connected by a daemon that has not started its shim.
    for is_adopted in [false, true] {
        s.d("run -d --name @c @bb sleep 1000").ok();
        if is_adopted {
            engine.end_daemon(Signal::KILL);
            engine.start_daemon(&[]);
        }
        s.d("network connect @n @c").ok();
        s.d("exec @c nslookup -type=a @c").ok();
        let process = process_of(s, "@c");
        engine.end_daemon(Signal::KILL);
        let kept = || {
            let leaks = leak::find(&engine.places());
            leaks.iter().any(|leak| leak.contains("network namespace"))
        };
        assert!(!kept(), "it lives there");
        kill_process(process, Signal::KILL).expect("kill");
        eventually("its namespace is let go of", || !kept());
        engine.start_daemon(&[]);
        s.d("rm -f @c").ok();
    }
}

#[test]
fn a_connect_that_fails_leaves_no_trace() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine, Client::Docker);
    let s = &session;
    s.d("network create @n").ok();
    s.d("run -d --name @c @bb sleep 1000").ok();
    // The container is dead, and who is to tell so sleeps: the engine finds out in the middle of the connect.
    let process = process_of(s, "@c");
    let shim = engine.processes_of_role("shim");
    let shim = Pid::from_raw(shim[0].cast_signed()).expect("a process");
    kill_process(shim, Signal::STOP).expect("stop the shim");
    kill_process(process, Signal::KILL).expect("kill");
    let id = s.inspect("@c")["Id"].as_str().expect("an id").to_owned();
    s.d("network connect @n @c").fails(
        1,
        &format!("Error response from daemon: container {id} is not running\n"),
    );
    assert!(!is_on(s, "@c", "@n"));
    kill_process(shim, Signal::CONT).expect("let the shim go on");
    s.until_status("@c", "exited");
    s.d("start @c").ok();
    assert!(!is_on(s, "@c", "@n"));
    // Nothing of it stands in the way of the next one.
    s.d("network connect @n @c").prints("");
    s.d("exec @c nslookup -type=a @c").ok();
    s.d("rm -f @c").ok();
    s.d("network rm @n").ok();
}

/// What `inspect` says of where port 80 of a container is on the host.
fn host_ports(s: &Session, container: &str) -> Vec<String> {
    let bindings = s.inspect(container)["NetworkSettings"]["Ports"]["80/tcp"].take();
    let bindings = bindings.as_array().into_iter().flatten();
    let text = |binding: &Value| binding["HostPort"].as_str().map(str::to_owned);
    bindings.filter_map(text).collect()
}

#[test]
fn ports_follow_the_gateway_through_a_routed_network_and_back() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine, Client::Docker);
    let s = &session;
    s.d("network create @nat").ok();
    s.d("network create -o com.docker.network.bridge.gateway_mode_ipv4=routed @routed")
        .ok();
    let (port, other) = (s.port(), s.port());
    let asks = |port: u16| s.get_from_outside(port, "/group").starts_with("root:");
    s.d(&format!(
        "run -d --name @c --network @nat -p {port}:80 @web"
    ))
    .ok();
    assert!(asks(port));
    for _ in 0..2 {
        s.d("network connect --gw-priority 1 @routed @c").ok();
        assert_eq!(host_ports(s, "@c"), [String::new(), port.to_string()]);
        s.d("network disconnect @routed @c").ok();
        assert_eq!(host_ports(s, "@c"), [port.to_string(), port.to_string()]);
        assert!(asks(port));
    }
    s.d(&format!(
        "run -d --name @d --network @routed -p {other}:80 @web"
    ))
    .ok();
    s.d("network connect --gw-priority 1 @nat @d").ok();
    assert_eq!(host_ports(s, "@d"), [other.to_string(), other.to_string()]);
    assert!(asks(other));
    // A number that the engine chose is kept from one gateway to the next.
    s.d("network create @next").ok();
    s.d("run -d --name @e --network @nat -p 80 @web").ok();
    let chosen = host_ports(s, "@e");
    s.d("network connect --gw-priority 1 @next @e").ok();
    assert_eq!(host_ports(s, "@e"), chosen);
    assert!(asks(chosen[0].parse().expect("a number")));
    s.d("network disconnect @next @e").ok();
    assert_eq!(host_ports(s, "@e"), chosen);
    assert!(asks(chosen[0].parse().expect("a number")));
}

#[test]
fn nobody_gets_a_port_while_it_moves_with_the_gateway() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine, Client::Docker);
    let s = &session;
    let port = s.port();
    s.d("network create @four").ok();
    s.d("network create --ipv6 @both").ok();
    s.d(&format!(
        "run -d --name @c --network @four -p {port}:80 @web"
    ))
    .ok();
    let stop = AtomicBool::new(false);
    let got = thread::scope(|scope| {
        let thief = scope.spawn(|| {
            engine.on_host(|| {
                while !stop.load(Ordering::Relaxed) {
                    for address in ["0.0.0.0", "127.0.0.1", "::"] {
                        let address: IpAddr = address.parse().expect("an address");
                        if TcpListener::bind((address, port)).is_ok() {
                            return Some(address);
                        }
                    }
                }
                None
            })
        });
        for _ in 0..50 {
            s.d("network connect --gw-priority 1 @both @c").ok();
            s.d("network disconnect @both @c").ok();
        }
        s.d("network connect --gw-priority 1 @both @c").ok();
        s.d("network disconnect @four @c").ok();
        stop.store(true, Ordering::Relaxed);
        thief.join().expect("no panic")
    });
    assert_eq!(got, None, "the port was free");
    assert_eq!(host_ports(s, "@c"), [port.to_string(), port.to_string()]);
    assert!(s.get_from_outside(port, "/group").starts_with("root:"));
    // netd, which carries what comes from ::1, knows where the port leads by now.
    let mut page = String::new();
    let asked = engine.on_host(|| {
        let mut stream = TcpStream::connect((Ipv6Addr::LOCALHOST, port))?;
        stream.write_all(b"GET /group HTTP/1.0\r\n\r\n")?;
        stream.read_to_string(&mut page)
    });
    asked.expect("an answer");
    assert!(page.contains("root:"), "{page}");
}

#[test]
fn a_port_that_cannot_move_to_the_gateway_stays_where_it_is() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine, Client::Docker);
    let s = &session;
    let port = s.port();
    let asks = || s.get_from_outside(port, "/group").starts_with("root:");
    s.d("network create -o com.docker.network.bridge.gateway_mode_ipv4=routed @routed")
        .ok();
    s.d("network create @nat").ok();
    s.d(&format!(
        "run -d --name @c --network @routed -p {port}:80 @web"
    ))
    .ok();
    // Somebody else has it where the gateway would need it.
    let taken = engine.on_host(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
    let taken = taken.expect("the port");
    s.d("network connect --gw-priority 1 @nat @c")
        .fails_with(1, "address already in use")
        .hides("failed to set up container networking");
    assert!(!is_on(s, "@c", "@nat"));
    assert_eq!(host_ports(s, "@c"), [String::new(), port.to_string()]);
    drop(taken);
    s.d("network connect --gw-priority 1 @nat @c").ok();
    assert_eq!(host_ports(s, "@c"), [port.to_string(), port.to_string()]);
    assert!(asks());
}

#[test]
fn a_container_does_not_find_who_is_on_a_network_that_it_left() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine, Client::Docker);
    let s = &session;
    let port = s.port();
    s.d("network create -o com.docker.network.bridge.gateway_mode_ipv4=routed @routed")
        .ok();
    s.d("network create @nat").ok();
    s.d("run -d --name @peer --network @routed @bb sleep 1000")
        .ok();
    s.d(&format!(
        "run -d --name @c --network name=@routed,gw-priority=1 --network @nat -p {port}:80 @web"
    ))
    .ok();
    let finds = || s.d("exec @c nslookup -type=a @peer").code == 0;
    assert!(finds());
    // The way that is left needs a port that somebody else has, so that not everything of the disconnect can be done.
    let taken = engine.on_host(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
    let taken = taken.expect("the port");
    s.d("network disconnect @routed @c")
        .fails_with(1, "address already in use");
    assert!(!is_on(s, "@c", "@routed"));
    assert!(!finds(), "names of a network that it left");
    assert!(host_ports(s, "@c").is_empty());
    drop(taken);
}
