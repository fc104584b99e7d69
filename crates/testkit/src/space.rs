//! Network and mount namespaces of a test's own, held by a sleeping process that dies with the test.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Namespaces and the process that holds them.
pub struct Space {
    holder: Child,
}

impl Space {
    /// Makes a network namespace and a mount namespace without propagation; the loopback interface is up.
    ///
    /// Call it from a thread that lives as long as the space: the holder gets SIGKILL when that thread ends.
    pub fn hold() -> Space {
        let script = "ip link set lo up; echo ready; exec sleep 100000000";
        let mut holder = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--net",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-ec",
                script,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start setpriv and unshare (root and util-linux are needed)");
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("a pipe");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("read from the holder");
        assert_eq!(
            line, "ready\n",
            "the namespaces could not be made; is this root?"
        );
        Space { holder }
    }

    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// The words that put a command into these namespaces.
    pub fn enter(&self) -> Vec<String> {
        let pid = self.pid();
        [
            "nsenter".to_owned(),
            format!("--net=/proc/{pid}/ns/net"),
            format!("--mount=/proc/{pid}/ns/mnt"),
            "--".to_owned(),
        ]
        .into()
    }

    /// Runs a shell script in these namespaces.
    pub fn script(&self, script: &str) {
        let words = self.enter();
        let status = Command::new(&words[0])
            .args(&words[1..])
            .args(["sh", "-ec", script])
            .status()
            .expect("start nsenter");
        assert!(status.success(), "`{script}` failed");
    }

    /// Runs `work` on a thread within the network namespace.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within_network_of(self.pid(), work)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Runs `work` on a thread that has joined the network namespace of process `pid`.
pub fn within_network_of<T: Send>(pid: u32, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("open a network namespace");
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            use std::os::fd::AsFd;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("enter a network namespace");
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
