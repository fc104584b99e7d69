//! Names of containers while what answers them is killed: the daemon, netd, and both.
//!
//! Only for Gantry: the reference engine answers names in its daemon, and that is not ours to kill.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gantry_testkit::engine::{Engine, ORACLE_SOCKET, wait_gone};
use gantry_testkit::leak;
use gantry_testkit::session::{Client, Session};
use gantry_testkit::wait::eventually;
use rustix::process::{Pid, Signal, kill_process};

/// Asks 127.0.0.11 for a name without pause, and fails at an answer that is wrong or later than allowed.
const ASK: &str = r#"
import socket, struct, sys, time
name, address, seconds, patience = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asker.connect(("127.0.0.11", 53))
asker.settimeout(patience)
question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0\0\1\0\1"
end, number, longest = time.monotonic() + seconds, 0, 0
while number == 0 or time.monotonic() < end:
    number = number % 65535 + 1
    since = time.monotonic()
    asker.send(struct.pack(">6H", number, 0x100, 1, 0, 0, 0) + question)
    answer = asker.recv(512)
    while answer[:2] != struct.pack(">H", number):
        answer = asker.recv(512)
    longest = max(longest, time.monotonic() - since)
    assert answer[3] & 15 == 0 and answer[-4:] == socket.inet_aton(address), answer
    time.sleep(0.001)
print(f"the longest wait was {longest:.3f} s")
"#;

/// Two containers on a network: one that is asked for and one that asks.
struct Pair {
    address: String,
    asker: u64,
}

impl Pair {
    fn new(session: &Session<'_>) -> Self {
        session.d("network create @net").ok();
        for name in ["@target", "@asker"] {
            session
                .d(&format!(
                    "run -d --name {name} --network @net @bb sleep 600"
                ))
                .ok();
        }
        let web = session.inspect("@target");
        let network = session.x("@net");
        let address = &web["NetworkSettings"]["Networks"][network.as_str()]["IPAddress"];
        Self {
            address: address.as_str().expect("an address").to_owned(),
            asker: session.inspect("@asker")["State"]["Pid"]
                .as_u64()
                .expect("a process"),
        }
    }

    /// Begins to ask for the first container from the second one's network.
    fn ask(&self, session: &Session<'_>, seconds: f64, patience: f64) -> Child {
        self.asking(session, seconds, patience)
            .spawn()
            .expect("start nsenter")
    }

    /// Asks in vain: what the asker says of that is nobody's alarm.
    fn ask_in_vain(&self, session: &Session<'_>, patience: f64) {
        let mut asker = self.asking(session, 0.0, patience);
        let asked = asker.stderr(Stdio::null()).status().expect("start nsenter");
        assert!(!asked.success());
    }

    fn asking(&self, session: &Session<'_>, seconds: f64, patience: f64) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.asker))
            .args(["--", "python3", "-c", ASK])
            .args([session.x("@target"), self.address.clone()])
            .args([seconds.to_string(), patience.to_string()])
            .stdout(Stdio::inherit());
        command
    }
}

#[track_caller]
fn succeeds(mut child: Child) {
    assert!(child.wait().expect("wait").success());
}

fn kill_netd(engine: &Engine) {
    let until = Instant::now() + Duration::from_secs(5);
    let pid = loop {
        if let Some(&pid) = engine.processes_of_role("netd").first() {
            break pid;
        }
        assert!(Instant::now() < until, "netd does not come back");
        std::thread::sleep(Duration::from_millis(2));
    };
    let process = Pid::from_raw(pid as i32).expect("a number");
    // It may have been killed in the very moment before.
    let _ = kill_process(process, Signal::KILL);
    wait_gone(pid);
}

#[test]
fn names_are_answered_whoever_is_killed() {
    if std::env::var_os(ORACLE_SOCKET).is_some() {
        println!("skipped: the reference engine is not ours to kill");
        return;
    }
    let engine = Engine::private(&[]);
    let session = Session::new(&engine, Client::Docker);
    let pair = Pair::new(&session);
    succeeds(pair.ask(&session, 0.0, 1.0));

    let asking = pair.ask(&session, 5.0, 1.0);
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(200));
        kill_netd(&engine);
    }
    engine.end_daemon(Signal::KILL);
    std::thread::sleep(Duration::from_millis(500));
    engine.start_daemon(&[]);
    succeeds(asking);

    // With both dead the question waits for the next daemon.
    engine.end_daemon(Signal::KILL);
    kill_netd(&engine);
    let waiting = pair.ask(&session, 0.0, 60.0);
    std::thread::sleep(Duration::from_millis(300));
    engine.start_daemon(&[]);
    succeeds(waiting);
    succeeds(pair.ask(&session, 0.0, 1.0));

    // What ends takes its name along.
    session.d("rm -f @target").ok();
    pair.ask_in_vain(&session, 10.0);
    eventually("nothing is left of it", || {
        leak::find(&engine.places()).is_empty()
    });
}
