//! What a registry tells of its limits: how much is left of them, and when to ask again. Pure.

use crate::wire::header_text;
use reqwest::header::HeaderMap;
use std::fmt;
use std::time::Duration;

/// Is what Docker Hub tells of its limit (`ratelimit-limit`, `ratelimit-remaining`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub limit: u64,
    pub remaining: u64,
    /// Seconds of the window; 0 where it is not told.
    pub window_seconds: u64,
}

impl RateLimit {
    /// Reads `100;w=21600` and `76;w=21600`.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        let limit = header_text(headers, "ratelimit-limit");
        let remaining = header_text(headers, "ratelimit-remaining");
        let number = |text: &str| text.split(';').next()?.trim().parse().ok();
        let window = limit
            .split(';')
            .find_map(|part| part.trim().strip_prefix("w="))
            .and_then(|seconds| seconds.parse().ok());
        Some(Self {
            limit: number(limit)?,
            remaining: number(remaining)?,
            window_seconds: window.unwrap_or(0),
        })
    }
}

/// `76 of 100 pulls left in 6 hours`.
impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} pulls left", self.remaining, self.limit)?;
        match self.window_seconds {
            0 => Ok(()),
            seconds => write!(f, " in {}", time_text(seconds)),
        }
    }
}

/// Says what is known of a limit, behind the words by which a request was refused for it. `asked` is a wait that is too
/// long to be obeyed.
pub(crate) fn told(limit: Option<RateLimit>, asked: Option<Duration>) -> String {
    let limit = limit.map(|limit| limit.to_string());
    let asked = asked.map(|wait| format!("to be asked again in {}", time_text(wait.as_secs())));
    let parts: Vec<String> = limit.into_iter().chain(asked).collect();
    if parts.is_empty() {
        return String::new();
    }
    format!(" ({})", parts.join(", "))
}

fn time_text(seconds: u64) -> String {
    let (count, unit) = match seconds {
        _ if seconds != 0 && seconds.is_multiple_of(3600) => (seconds / 3600, "hour"),
        _ if seconds != 0 && seconds.is_multiple_of(60) => (seconds / 60, "minute"),
        _ => (seconds, "second"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    fn read(limit: &'static str, remaining: &'static str) -> Option<RateLimit> {
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit-limit", HeaderValue::from_static(limit));
        headers.insert("ratelimit-remaining", HeaderValue::from_static(remaining));
        RateLimit::read(&headers)
    }

    #[test]
    fn limits_are_read_and_told() {
        let shown = |limit, remaining| read(limit, remaining).map(|limit| limit.to_string());
        for (limit, remaining, expected) in [
            (
                "100;w=21600",
                "76;w=21600",
                Some("76 of 100 pulls left in 6 hours"),
            ),
            ("5;w=60", "0", Some("0 of 5 pulls left in 1 minute")),
            ("5;w=61", "1", Some("1 of 5 pulls left in 61 seconds")),
            ("5", "1", Some("1 of 5 pulls left")),
            ("", "", None),
            ("10", "x", None),
            ("99999999999999999999", "1", None),
        ] {
            assert_eq!(shown(limit, remaining).as_deref(), expected, "{limit}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        assert_eq!(told(None, None), "");
        assert_eq!(
            told(read("5", "0"), Some(Duration::from_secs(90))),
            " (0 of 5 pulls left, to be asked again in 90 seconds)"
        );
    }
}
