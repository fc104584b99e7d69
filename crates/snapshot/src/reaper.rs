//! Deletes the trash in the background, slowly, or fast when someone waits for space.
//!
//! Removing a large tree takes seconds; whoever removes a snapshot only renames it here. The thread starts with the
//! store, so what an earlier process left is deleted too, and ends with it, in the middle of a tree if need be.

use crate::error::{Error, Result};
use gantry_sys::fs as sys;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// So many entries are removed before a pause.
const BATCH: u64 = 64;
/// About a third of one disk's time is left to others.
const PAUSE: Duration = Duration::from_millis(1);

pub(crate) struct Reaper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    trash: OwnedFd,
    state: Mutex<State>,
    changed: Condvar,
    hurry: AtomicBool,
    stop: AtomicBool,
    removed: AtomicU64,
    /// What `removed` was when someone was last told that there is space.
    told: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Something was put into the trash since the last pass began.
    pending: bool,
    /// Counts complete passes.
    passes: u64,
    waiting: u32,
}

impl Reaper {
    pub fn start(trash: OwnedFd) -> Result<Self> {
        let shared = Arc::new(Shared {
            trash,
            state: Mutex::new(State {
                pending: true,
                ..State::default()
            }),
            changed: Condvar::new(),
            hurry: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            removed: AtomicU64::new(0),
            told: AtomicU64::new(0),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("trash".into())
            .spawn(move || own.run())
            .map_err(|error| Error::io("start the thread that deletes the trash", error))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    pub fn trash(&self) -> BorrowedFd<'_> {
        self.shared.trash.as_fd()
    }

    pub fn wake(&self) {
        self.shared.lock().pending = true;
        self.shared.changed.notify_all();
    }

    /// Deletes everything at full speed and waits for it; tells whether anything went since the last answer.
    ///
    /// Not "since the call": what was deleted between the caller's failure and the call is space as well.
    pub fn drain(&self) -> bool {
        let before = self.shared.told.load(Ordering::Acquire);
        let mut state = self.shared.lock();
        state.pending = true;
        state.waiting += 1;
        self.shared.hurry.store(true, Ordering::Release);
        self.shared.changed.notify_all();
        // The pass that runs now may have listed the trash before the caller's entries came; the next one sees all.
        let until = state.passes + 2;
        while state.passes < until && !self.shared.stop.load(Ordering::Acquire) {
            state.pending = true;
            self.shared.changed.notify_all();
            state = self
                .shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        if state.waiting == 0 {
            self.shared.hurry.store(false, Ordering::Release);
        }
        let removed = self.shared.removed.load(Ordering::Acquire);
        self.shared.told.fetch_max(removed, Ordering::AcqRel);
        removed > before
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Under the lock, so that the thread cannot miss it between its check and its wait.
        drop(self.shared.lock());
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            let mut state = self.lock();
            while !state.pending && !self.stop.load(Ordering::Acquire) {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            state.pending = false;
            drop(state);
            self.pass();
            self.lock().passes += 1;
            self.changed.notify_all();
        }
    }

    /// Removes each entry; one that resists is left for the next pass.
    fn pass(&self) {
        let Ok(entries) = sys::entries(&self.trash) else {
            return;
        };
        let mut count = 0;
        for entry in entries {
            let mut pause = || {
                count += 1;
                self.removed.fetch_add(1, Ordering::AcqRel);
                if self.stop.load(Ordering::Acquire) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                if count % BATCH == 0 && !self.hurry.load(Ordering::Acquire) {
                    std::thread::sleep(PAUSE);
                }
                Ok(())
            };
            let _ = sys::remove_tree(&self.trash, entry.name.as_c_str(), &mut pause);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
        }
    }
}
