//! Instants in the user's time zone. The zone is loaded only when one is printed.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns the nanoseconds since 1970.
pub fn now_nanos() -> i128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_nanos() as i128)
}

/// Returns the time since an instant given in seconds since 1970.
pub fn age(unix_seconds: i64) -> Duration {
    let nanos = (now_nanos() - i128::from(unix_seconds) * 1_000_000_000).max(0);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Formats as Go's `Time.String`: `2006-01-02 15:04:05 +0000 UTC`.
pub fn local(unix_seconds: i64) -> String {
    match Timestamp::from_second(unix_seconds) {
        Ok(instant) => instant
            .to_zoned_datetime(TimeZone::system())
            .strftime("%Y-%m-%d %H:%M:%S %z %Z")
            .to_string(),
        Err(_) => unix_seconds.to_string(),
    }
}

/// Formats as RFC 3339 with nine digits in the local zone, as event lines have it.
pub fn local_nanos(unix_nanos: i64) -> String {
    let Ok(instant) = Timestamp::from_nanosecond(i128::from(unix_nanos)) else {
        return unix_nanos.to_string();
    };
    let zoned = instant.to_zoned_datetime(TimeZone::system());
    let zone = match zoned.offset().seconds() {
        0 => "Z".to_owned(),
        seconds => {
            let sign = if seconds < 0 { '-' } else { '+' };
            let minutes = seconds.abs() / 60;
            format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
        }
    };
    format!(
        "{}.{:09}{zone}",
        zoned.strftime("%Y-%m-%dT%H:%M:%S"),
        unix_nanos.rem_euclid(1_000_000_000)
    )
}

/// Formats as RFC 3339 in seconds in the local zone.
pub fn local_seconds(unix_seconds: i64) -> String {
    let text = local_nanos(unix_seconds.saturating_mul(1_000_000_000));
    text.replacen(".000000000", "", 1)
}

/// Formats an RFC 3339 text from the daemon as Go's `ANSIC` (`Mon Jan _2 15:04:05 2006`), in UTC or the given offset.
pub fn ansi_c(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(instant) => instant
            .to_zoned_datetime(TimeZone::UTC)
            .strftime("%a %b %e %H:%M:%S %Y")
            .to_string(),
        Err(_) => text.to_owned(),
    }
}

/// Turns what a user writes for `--since` or `--until` into the API's form: seconds since 1970, with nanoseconds.
pub fn since(text: &str) -> Result<String, String> {
    use gantry_api::time::{self, Timestamp as Instant};
    if text.is_empty() {
        return Ok(String::new());
    }
    if let Some(ago) = time::parse_duration(text).filter(|_| text != "0") {
        let then = now_nanos() - ago;
        return Ok(then.div_euclid(1_000_000_000).to_string());
    }
    // A number is passed on as it stands, zero too: it is 1970 and no duration.
    if text
        .split('.')
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        && text.matches('.').count() <= 1
    {
        return Ok(text.to_owned());
    }
    let offset = TimeZone::system().to_offset(Timestamp::now()).seconds();
    let now = Instant::from_unix_nanos(now_nanos());
    let instant = time::parse_since(text, now, offset).ok_or_else(|| {
        format!(
            "failed to parse value as time or duration: {}",
            crate::grammar::values::quote(text)
        )
    })?;
    let nanos = instant.unix_nanos();
    Ok(format!(
        "{}.{:09}",
        nanos.div_euclid(1_000_000_000),
        nanos.rem_euclid(1_000_000_000)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_sent_as_seconds() {
        assert_eq!(since("1"), Ok("1".to_owned()));
        assert_eq!(since("1.5"), Ok("1.5".to_owned()));
        assert_eq!(
            since("2026-01-02T03:04:05Z"),
            Ok("1767323045.000000000".to_owned())
        );
        let ten_minutes: i128 = since("10m").expect("since").parse().expect("number");
        assert!((now_nanos() / 1_000_000_000 - ten_minutes - 600).abs() <= 1);
        assert!(since("nonsense").is_err());
    }

    #[test]
    fn dates_are_printed_as_c_does() {
        assert_eq!(
            ansi_c("2025-05-30T12:07:14.000000000+00:00"),
            "Fri May 30 12:07:14 2025"
        );
    }
}
