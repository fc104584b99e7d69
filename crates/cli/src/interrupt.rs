//! SIGINT and SIGTERM: how a command ends by them.
//!
//! Docker's client catches both and exits with 128 and the signal's number, so gantry does not die of them. Whoever
//! runs a container or asks a question says by [`within`] what they mean meanwhile. As the signals are seen only while
//! the runtime waits, what blocks on standard input does so by [`blocking`].

use crate::failure::{Failure, Outcome};
use crate::output;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// What the signals do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Course {
    /// End the command with 128 and their number.
    End,
    /// End the command with 0: what it started runs on, as after Docker's `exec`.
    Leave,
    /// Answer the question that is asked with no, on a line of its own.
    Decline,
    /// Go to a container, or nowhere: only the third of them ends the command.
    Pass,
}

/// The signals that one in [`Course::Pass`] takes before it ends.
const PATIENCE: u32 = 3;

static COURSE: AtomicU8 = AtomicU8::new(Course::End as u8);

/// Restores the course before, when dropped.
pub struct Within(u8);

impl Drop for Within {
    fn drop(&mut self) {
        COURSE.store(self.0, Ordering::Relaxed);
    }
}

/// Sets what the signals do, as long as the result lives.
pub fn within(course: Course) -> Within {
    Within(COURSE.swap(course as u8, Ordering::Relaxed))
}

/// Waits for a signal that ends the command, and tells how.
pub async fn interrupted() -> Failure {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        // They end the process by themselves then.
        return std::future::pending().await;
    };
    let mut passed = 0;
    loop {
        let number = tokio::select! {
            Some(()) = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            Some(()) = terminate.recv() => SignalKind::terminate().as_raw_value(),
            else => return std::future::pending().await,
        };
        let course = COURSE.load(Ordering::Relaxed);
        if course == Course::End as u8 {
            return Failure::code(u8::try_from(128 + number).unwrap_or(u8::MAX));
        }
        if course == Course::Leave as u8 {
            return Failure::code(0);
        }
        if course == Course::Decline as u8 {
            output::line("");
            return Failure::code(0);
        }
        passed += 1;
        if passed == PATIENCE {
            return Failure::new(format!(
                "\ngot {PATIENCE} SIGTERM/SIGINTs, forcefully exiting"
            ));
        }
    }
}

/// Runs what may wait for standard input on a thread of its own. If a signal ends the command, that thread ends with
/// the process.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Outcome<T> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| Failure::new(error.to_string()))??)
}
