//! When a container that exited is started again. Pure: the caller keeps the clock and the timer.

use std::time::Duration;

use super::config::{RestartPolicy, RestartPolicyName};

/// First pause before a restart.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The pause is doubled up to this.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A run of at least this length starts the pauses anew.
const RUN_RESETS: Duration = Duration::from_secs(10);

/// What is known about a run that has just ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub exit_code: i32,
    /// `stop` or `kill` asked for it.
    pub manually_stopped: bool,
    pub restart_count: u64,
}

/// Tells whether `policy` starts the container again after `ended`.
pub(crate) fn restarts(policy: &RestartPolicy, ended: &Ended) -> bool {
    match policy.name {
        RestartPolicyName::No => false,
        RestartPolicyName::Always | RestartPolicyName::UnlessStopped => !ended.manually_stopped,
        RestartPolicyName::OnFailure => {
            let left = policy.maximum_retry_count <= 0
                || ended.restart_count < u64::try_from(policy.maximum_retry_count).unwrap_or(0);
            ended.exit_code != 0 && !ended.manually_stopped && left
        }
    }
}

/// Tells whether `policy` starts a stopped container when the daemon starts.
pub(crate) fn starts_with_daemon(policy: &RestartPolicy, manually_stopped: bool) -> bool {
    match policy.name {
        RestartPolicyName::No | RestartPolicyName::OnFailure => false,
        RestartPolicyName::Always => true,
        RestartPolicyName::UnlessStopped => !manually_stopped,
    }
}

/// Returns the pause before the next restart, given the one before the last.
pub(crate) fn next_pause(last: Option<Duration>, ran: Duration) -> Duration {
    match last {
        Some(last) if ran < RUN_RESETS => (last * 2).min(BACKOFF_MAX),
        _ => BACKOFF_MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_restarts_as_its_name_says() {
        use RestartPolicyName::*;
        for (name, maximum, code, manual, count, expected) in [
            (No, 0, 1, false, 0, false),
            (Always, 0, 0, false, 99, true),
            (Always, 0, 0, true, 0, false),
            (UnlessStopped, 0, 1, false, 0, true),
            (UnlessStopped, 0, 1, true, 0, false),
            (OnFailure, 0, 0, false, 0, false),
            (OnFailure, 0, 3, false, 500, true),
            (OnFailure, 2, 3, false, 1, true),
            (OnFailure, 2, 3, false, 2, false),
            (OnFailure, 2, 3, true, 0, false),
        ] {
            let policy = RestartPolicy {
                name,
                maximum_retry_count: maximum,
            };
            let ended = Ended {
                exit_code: code,
                manually_stopped: manual,
                restart_count: count,
            };
            assert_eq!(restarts(&policy, &ended), expected, "{policy:?} {ended:?}");
        }
    }

    #[test]
    fn pauses_double_to_a_minute_and_a_long_run_resets_them() {
        let short = Duration::from_secs(1);
        let mut pause = next_pause(None, short);
        let mut seen = vec![pause.as_millis()];
        for _ in 0..10 {
            pause = next_pause(Some(pause), short);
            seen.push(pause.as_millis());
        }
        assert_eq!(
            seen,
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000
            ]
        );
        assert_eq!(
            next_pause(Some(pause), Duration::from_secs(10)),
            BACKOFF_MIN
        );
    }
}
