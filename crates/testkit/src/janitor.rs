//! Cleans up after a test that was killed before it could do so itself.
//!
//! An engine's containers, shims and port keeper outlive their daemon by design, and so they would outlive a test that
//! gets SIGKILL. A small process of another session holds one end of a pipe: when the test is gone without a word, it
//! ends, by pid, what is in the engine's namespaces and control groups, and removes those groups and the directory.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// $1: the process that holds the namespaces, $2: the control groups' parent, $3: the directory.
const SCRIPT: &str = r#"
mounts=$(readlink "/proc/$1/ns/mnt"); network=$(readlink "/proc/$1/ns/net")
# Nobody else's: not this machine's own, and no empty name, which every process without one would match.
for name in "$mounts" "$network"; do [ -n "$name" ] || exit 1; done
[ "$mounts" != "$(readlink /proc/self/ns/mnt)" ] && [ "$network" != "$(readlink /proc/self/ns/net)" ] || exit 1
echo ready
read -r word || true
[ "$word" != done ] || exit 0
for round in $(seq 100); do
  left=
  for process in /proc/[0-9]*; do
    if [ "$(readlink "$process/ns/mnt")" = "$mounts" ] || [ "$(readlink "$process/ns/net")" = "$network" ]; then
      kill -KILL "${process#/proc/}"; left=1
    fi
  done
  for group in $(find /sys/fs/cgroup -mindepth 1 -maxdepth 4 -depth -type d \( -path "*/$2" -o -path "*/$2/*" \)); do
    left=1
    for pid in $(cat "$group/cgroup.procs"); do kill -KILL "$pid"; done
    rmdir "$group"
  done
  [ -n "$left" ] || break
  sleep 0.1
done 2>/dev/null
rm -rf --one-file-system "$3"
"#;

/// The process that waits for this one's end.
pub struct Janitor(Child);

impl Janitor {
    /// Begins to watch over what belongs to the namespaces of `holder`, the control groups beneath `parent` and
    /// `directory`.
    pub fn watch(holder: u32, parent: &str, directory: &Path) -> Janitor {
        let mut child = Command::new("setsid")
            .args(["sh", "-c", SCRIPT, "janitor", &holder.to_string(), parent])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start setsid and sh");
        let mut ready = [0; 6];
        let stdout = child.stdout.as_mut().expect("a pipe");
        std::io::Read::read_exact(stdout, &mut ready).expect("read from the janitor");
        Janitor(child)
    }
}

impl Drop for Janitor {
    /// Everything was cleaned up.
    fn drop(&mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            let _ = pipe.write_all(b"done\n");
        }
        let _ = self.0.wait();
    }
}
