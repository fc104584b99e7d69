//! Named steps at which a test can kill the daemon.
//!
//! `GANTRY_FAILPOINT=NAME:before` or `NAME:after` in the daemon's environment makes it die by SIGKILL when it comes to
//! that side of the step, and only the first time. Without the variable a step costs one relaxed load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Every step that can be named.
pub const NAMES: &[&str] = &[
    "create.record",
    "create.snapshot",
    "create.copy-up",
    "create.commit",
    "start.record",
    "start.netns",
    "start.files",
    "start.spawn",
    "start.network",
    "start.names",
    "start.ports",
    "start.shm",
    "start.sources",
    "start.shim",
    "start.commit",
    "exit.record",
    "exit.event",
    "exit.teardown",
    "exec.start",
    "exec.commit",
    "stop.signal",
    "stop.commit",
    "rm.record",
    "rm.snapshot",
    "rm.directory",
    "rm.commit",
    "load.start",
    "load.commit",
    "network.create",
    "network.record",
    "network.remove",
    "network.forget",
    "connect.record",
    "connect.network",
    "connect.names",
    "connect.ports",
    "disconnect.network",
    "disconnect.record",
];

static ARMED: OnceLock<Option<(String, bool)>> = OnceLock::new();
static FIRED: AtomicBool = AtomicBool::new(false);

fn armed() -> Option<&'static (String, bool)> {
    ARMED
        .get_or_init(|| {
            let value = std::env::var("GANTRY_FAILPOINT").ok()?;
            let (name, side) = value.rsplit_once(':')?;
            if !NAMES.contains(&name) {
                tracing::error!(name, "GANTRY_FAILPOINT names no step");
                return None;
            }
            Some((name.to_owned(), side == "after"))
        })
        .as_ref()
}

fn fire(name: &str, after: bool) {
    if let Some((armed, side)) = armed()
        && armed == name
        && *side == after
        && !FIRED.swap(true, Ordering::Relaxed)
    {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Runs `step` between the two sides of the fail point `name`.
pub(crate) fn around<T>(name: &'static str, step: impl FnOnce() -> T) -> T {
    debug_assert!(NAMES.contains(&name), "fail point `{name}` is not listed");
    fire(name, false);
    let result = step();
    fire(name, true);
    result
}

/// As [`around`] for an asynchronous step.
pub(crate) async fn around_async<T>(name: &'static str, step: impl Future<Output = T>) -> T {
    debug_assert!(NAMES.contains(&name), "fail point `{name}` is not listed");
    fire(name, false);
    let result = step.await;
    fire(name, true);
    result
}
