//! Deletes the interfaces whose namespaces outlive their containers: somebody joined them or keeps them open.
//!
//! Nearly always the namespace is gone before its turn comes, and nothing is left to do.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{Shared, lock};

/// How long a namespace may take to go by itself.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Reaper {
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// When which interface is looked at, in order.
    waiting: VecDeque<(Instant, String)>,
    running: bool,
}

impl Shared {
    /// Notes an interface to be deleted if it is still there after a while.
    pub(super) fn reap_later(&self, name: &str) {
        lock(&self.reaper.queue)
            .waiting
            .push_back((Instant::now() + GRACE, name.to_owned()));
    }

    /// Starts the reaper's thread if something waits and none runs; it ends when nothing waits.
    pub(super) fn start_reaper(self: &Arc<Self>) {
        let mut queue = lock(&self.reaper.queue);
        if queue.running || queue.waiting.is_empty() {
            return;
        }
        let shared = Arc::clone(self);
        let started = thread::Builder::new()
            .name("veth-reaper".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || shared.reap());
        // Without a thread the queue waits for the next release, or the next reconciliation finds the interfaces.
        queue.running = started.is_ok();
    }

    fn reap(&self) {
        loop {
            let (due, name) = {
                let mut queue = lock(&self.reaper.queue);
                let Some(next) = queue.waiting.pop_front() else {
                    queue.running = false;
                    return;
                };
                next
            };
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let in_use = lock(&self.state).networks.values().any(|network| {
                network
                    .endpoints
                    .values()
                    .any(|endpoint| endpoint.host_interface == name)
            });
            if !in_use && let Err(error) = self.delete_veth(&name) {
                (self.config.warn)(&format!("delete interface `{name}`: {error}"));
            }
        }
    }
}
