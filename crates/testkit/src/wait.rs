//! Waiting for what will happen soon: no fixed sleeps in scenarios.

use std::time::{Duration, Instant};

/// Calls `probe` until it gives a value; panics with `what` after `limit`.
pub fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "after {limit:?} still not: {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// As [`eventually_within`] with 20 seconds, for a condition.
pub fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    eventually_within(Duration::from_secs(20), what, || probe().then_some(()));
}
