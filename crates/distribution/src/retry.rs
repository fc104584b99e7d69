//! When a failed try is worth another, and how long to wait before it. The plan is pure.

use crate::Error;
use std::time::Duration;

const FIRST_WAIT: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// A registry's `Retry-After` is obeyed up to here; a longer one makes the request fail.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Why one try failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) again: Again,
}

/// Whether another try may do better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    Never,
    /// Once, after the plan's first wait: more tries would keep from the user what is the matter.
    Once,
    /// After the plan's wait.
    Later,
    /// After what the registry asked for.
    After(Duration),
}

impl Failure {
    pub(crate) fn last(error: Error) -> Self {
        Self {
            error,
            again: Again::Never,
        }
    }

    pub(crate) fn passing(error: Error) -> Self {
        Self {
            error,
            again: Again::Later,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::last(error)
    }
}

/// Tells whether an answer's status may be another one next time. `asked` is the wait that the registry asked for, and
/// `is_used_up` whether it says that nothing is left of its limit.
pub(crate) fn again(status: u16, asked: Option<Duration>, is_used_up: bool) -> Again {
    match (status, asked) {
        (408 | 429 | 500 | 502 | 503 | 504, Some(wait)) => Again::After(wait),
        (429, None) if is_used_up => Again::Never,
        (429, None) => Again::Once,
        (408 | 500 | 502 | 503 | 504, None) => Again::Later,
        _ => Again::Never,
    }
}

/// Tells whether a wait that a registry asks for is obeyed.
pub(crate) fn is_obeyed(wait: Duration) -> bool {
    wait <= RETRY_AFTER_MAX
}

/// Reads `Retry-After`: seconds. The form with a date is rare enough to be left to the plan's own wait.
pub(crate) fn retry_after(header: &str) -> Option<Duration> {
    header.trim().parse().ok().map(Duration::from_secs)
}

/// Gives the wait before try number `tried + 1`, or `None` when there shall be none. `chance` is from 0 to 255.
pub(crate) fn wait(tried: u32, attempts_max: u32, again: Again, chance: u8) -> Option<Duration> {
    if tried >= attempts_max {
        return None;
    }
    match again {
        Again::Never => None,
        Again::After(asked) => is_obeyed(asked).then_some(asked),
        Again::Once if tried > 1 => None,
        Again::Once | Again::Later => {
            let doublings = tried.saturating_sub(1).min(16);
            let wait = FIRST_WAIT.saturating_mul(1 << doublings).min(WAIT_MAX);
            // Three quarters to five quarters, so that many clients that were cut together do not come back together.
            Some(wait * 3 / 4 + wait / 2 * u32::from(chance) / 255)
        }
    }
}

/// Draws a number for [`wait`].
pub(crate) fn chance() -> u8 {
    use ring::rand::SecureRandom;
    let mut byte = [128];
    // Without random numbers the middle serves as well.
    let _ = ring::rand::SystemRandom::new().fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit() {
        let wait_ms = |tried, chance| {
            wait(tried, 100, Again::Later, chance)
                .expect("another try")
                .as_millis()
        };
        assert_eq!((wait_ms(1, 0), wait_ms(1, 255)), (375, 625));
        assert_eq!((wait_ms(2, 0), wait_ms(2, 255)), (750, 1250));
        assert_eq!((wait_ms(50, 0), wait_ms(50, 255)), (22_500, 37_500));
    }

    #[test]
    fn the_plan_ends() {
        assert_eq!(wait(1, 5, Again::Never, 0), None);
        assert_eq!(wait(5, 5, Again::Later, 0), None);
        let seconds = Duration::from_secs;
        assert_eq!(wait(1, 5, Again::After(seconds(7)), 0), Some(seconds(7)));
        assert_eq!(wait(1, 5, Again::After(seconds(61)), 0), None);
        assert_eq!(retry_after(" 3 "), Some(seconds(3)));
        assert_eq!(retry_after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }
}
