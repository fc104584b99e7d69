//! Instants in UTC as the API writes them, and the texts of `since` and `until`.
//!
//! Owns RFC 3339 with up to nanoseconds, Go's durations, and `seconds.nanoseconds`. Reads no clock and knows no time
//! zone data: "now" and the local offset come from the caller. Years 1 to 9999.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const NANOS_PER_SECOND: i128 = 1_000_000_000;
const ZERO_UNIX_SECONDS: i64 = -62_135_596_800;

/// Is an instant in UTC with nanoseconds.
///
/// The default is Go's zero time, `0001-01-01T00:00:00Z`, by which the API says "never".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

impl Timestamp {
    /// Go's zero time.
    pub const ZERO: Self = Self {
        seconds: ZERO_UNIX_SECONDS,
        nanos: 0,
    };

    /// Makes an instant of seconds since 1970 and nanoseconds (below one second).
    pub const fn from_unix(seconds: i64, nanos: u32) -> Self {
        Self {
            seconds,
            nanos: if nanos > 999_999_999 {
                999_999_999
            } else {
                nanos
            },
        }
    }

    /// Makes an instant of nanoseconds since 1970.
    pub const fn from_unix_nanos(nanos: i128) -> Self {
        Self {
            seconds: nanos.div_euclid(NANOS_PER_SECOND) as i64,
            nanos: nanos.rem_euclid(NANOS_PER_SECOND) as u32,
        }
    }

    /// Gives the whole seconds since 1970, rounded down.
    pub const fn unix_seconds(self) -> i64 {
        self.seconds
    }

    /// Gives the nanoseconds within the second.
    pub const fn subsec_nanos(self) -> u32 {
        self.nanos
    }

    /// Gives the nanoseconds since 1970.
    pub const fn unix_nanos(self) -> i128 {
        self.seconds as i128 * NANOS_PER_SECOND + self.nanos as i128
    }

    /// Tells whether this is Go's zero time.
    pub const fn is_zero(self) -> bool {
        self.seconds == ZERO_UNIX_SECONDS && self.nanos == 0
    }

    /// Gives the time from `earlier` to this instant, zero if it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        let nanos = (self.unix_nanos() - earlier.unix_nanos()).max(0);
        Duration::new(
            (nanos / NANOS_PER_SECOND) as u64,
            (nanos % NANOS_PER_SECOND) as u32,
        )
    }

    /// Writes RFC 3339 with nine digits after the point, the form of log timestamps.
    pub fn to_rfc3339_fixed(self) -> String {
        let (year, month, day, hour, minute, second) = self.civil();
        format!(
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z",
            self.nanos
        )
    }

    /// Reads RFC 3339, with `Z` or an offset.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let (instant, zone) = parse_civil(text)?;
        zone.map(|offset| Self {
            seconds: instant.seconds - i64::from(offset),
            ..instant
        })
    }

    /// Gives (year, month, day, hour, minute, second).
    pub fn civil(self) -> (i64, u32, u32, u32, u32, u32) {
        let days = self.seconds.div_euclid(86_400);
        let rest = self.seconds.rem_euclid(86_400) as u32;
        let (year, month, day) = civil_from_days(days);
        (year, month, day, rest / 3600, rest / 60 % 60, rest % 60)
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::ZERO
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self::from_unix(after.as_secs() as i64, after.subsec_nanos()),
            Err(before) => Self::from_unix_nanos(-(before.duration().as_nanos() as i128)),
        }
    }
}

/// Writes RFC 3339 as Go's `RFC3339Nano` does: without trailing zeros after the point.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day, hour, minute, second) = self.civil();
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )?;
        if self.nanos != 0 {
            let digits = format!("{:09}", self.nanos);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Says that a text is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time")]
pub struct InvalidTime(pub String);

impl FromStr for Timestamp {
    type Err = InvalidTime;
    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        Self::parse_rfc3339(text).ok_or_else(|| InvalidTime(text.to_owned()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Reads `seconds` or `seconds.nanoseconds` since 1970, the form in which clients send `since` and `until`.
///
/// The digits after the point count as a decimal fraction: `.5` is half a second. Digits beyond nine are dropped.
pub fn parse_unix(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = format!("{:0<9.9}", fraction);
    Some(Timestamp::from_unix(seconds, digits.parse().ok()?))
}

/// Reads a Go duration such as `1h15m30.5s`, `-10m` or `100ms`, in nanoseconds.
pub fn parse_duration(text: &str) -> Option<i128> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => NANOS_PER_SECOND,
            "m" => 60 * NANOS_PER_SECOND,
            "h" => 3600 * NANOS_PER_SECOND,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || whole.len() > 18 {
            return None;
        }
        let whole: i128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        total += whole * scale;
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            let value: i128 = fraction.parse().ok()?;
            total += value * scale / 10_i128.pow(fraction.len() as u32);
        }
        rest = next;
    }
    // Go keeps durations in an i64.
    i64::try_from(total)
        .ok()
        .map(|_| if negative { -total } else { total })
}

/// Reads what a user writes for `since` or `until`: a duration before now, a date or time, or seconds since 1970.
///
/// A date or time without zone is in the zone of `local_offset_seconds`, seconds east of UTC.
pub fn parse_since(text: &str, now: Timestamp, local_offset_seconds: i32) -> Option<Timestamp> {
    if let Some(ago) = parse_duration(text) {
        return Some(Timestamp::from_unix_nanos(now.unix_nanos() - ago));
    }
    if let Some((civil, zone)) = parse_civil(text) {
        let offset = i64::from(zone.unwrap_or(local_offset_seconds));
        return Some(Timestamp {
            seconds: civil.seconds - offset,
            ..civil
        });
    }
    parse_unix(text)
}

/// Reads `YYYY-MM-DD[Thh[:mm[:ss[.fraction]]]][zone]`; the zone's offset is given apart.
fn parse_civil(text: &str) -> Option<(Timestamp, Option<i32>)> {
    let bytes = text.as_bytes();
    let number = |from: usize, digits: usize| -> Option<i64> {
        let part = bytes.get(from..from + digits)?;
        part.iter()
            .all(u8::is_ascii_digit)
            .then(|| part.iter().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
    };
    let is = |at: usize, wanted: u8| bytes.get(at) == Some(&wanted);
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    if !is(4, b'-')
        || !is(7, b'-')
        || !(1..=12).contains(&month)
        || day < 1
        || day > days_in_month(year, month)
    {
        return None;
    }
    let mut at = 10;
    let (mut hour, mut minute, mut second, mut nanos) = (0, 0, 0, 0);
    if is(at, b'T') || is(at, b't') || is(at, b' ') {
        hour = number(at + 1, 2)?;
        at += 3;
        if is(at, b':') {
            minute = number(at + 1, 2)?;
            at += 3;
            if is(at, b':') {
                second = number(at + 1, 2)?;
                at += 3;
                if is(at, b'.') || is(at, b',') {
                    let digits = bytes[at + 1..]
                        .iter()
                        .take_while(|b| b.is_ascii_digit())
                        .count();
                    if digits == 0 {
                        return None;
                    }
                    for position in 0..9 {
                        nanos = nanos * 10
                            + if position < digits {
                                number(at + 1 + position, 1)?
                            } else {
                                0
                            };
                    }
                    at += 1 + digits;
                }
            }
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let zone = match bytes.get(at) {
        None => None,
        Some(b'Z' | b'z') if at + 1 == bytes.len() => Some(0),
        Some(sign @ (b'+' | b'-')) if is(at + 3, b':') && at + 6 == bytes.len() => {
            let (hours, minutes) = (number(at + 1, 2)?, number(at + 4, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = (hours * 3600 + minutes * 60) as i32;
            Some(if *sign == b'-' { -offset } else { offset })
        }
        Some(_) => return None,
    };
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some((
        Timestamp {
            seconds,
            nanos: nanos as u32,
        },
        zone,
    ))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Counts the days from 1970-01-01. The year is taken to begin in March, so that the leap day comes last in it.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = (if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    }) as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_is_written_and_read() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (1_709_210_096, 500_000_000, "2024-02-29T12:34:56.5Z"),
            (1_709_210_096, 1, "2024-02-29T12:34:56.000000001Z"),
            (-1, 0, "1969-12-31T23:59:59Z"),
            (
                253_402_300_799,
                999_999_999,
                "9999-12-31T23:59:59.999999999Z",
            ),
            (ZERO_UNIX_SECONDS, 0, "0001-01-01T00:00:00Z"),
        ] {
            let instant = Timestamp::from_unix(seconds, nanos);
            assert_eq!(instant.to_string(), text);
            assert_eq!(text.parse(), Ok(instant));
        }
        assert!(Timestamp::default().is_zero());
        assert_eq!(
            Timestamp::from_unix(1, 5).to_rfc3339_fixed(),
            "1970-01-01T00:00:01.000000005Z"
        );
        assert_eq!(
            "1970-01-01T02:00:00+02:00".parse(),
            Ok(Timestamp::from_unix(0, 0))
        );
        assert_eq!(
            "1969-12-31T19:30:00-04:30".parse(),
            Ok(Timestamp::from_unix(0, 0))
        );
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "2024-02-30T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00Zx",
            "2024-1-1T00:00:00Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_day_of_eight_centuries_survives_the_round_trip() {
        for days in -146_097..146_097 {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(
                days_from_civil(year, i64::from(month), i64::from(day)),
                days
            );
        }
    }

    #[test]
    fn unix_texts() {
        assert_eq!(parse_unix("10"), Some(Timestamp::from_unix(10, 0)));
        assert_eq!(
            parse_unix("10.000000001"),
            Some(Timestamp::from_unix(10, 1))
        );
        assert_eq!(
            parse_unix("10.5"),
            Some(Timestamp::from_unix(10, 500_000_000))
        );
        assert_eq!(
            parse_unix("10.1234567891"),
            Some(Timestamp::from_unix(10, 123_456_789))
        );
        for wrong in ["", "x", "10.x", "1e3", "."] {
            assert_eq!(parse_unix(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn go_durations() {
        const SECOND: i128 = NANOS_PER_SECOND;
        for (text, want) in [
            ("10m", Some(600 * SECOND)),
            ("1h15m30.918s", Some(4530 * SECOND + 918_000_000)),
            ("-1.5h", Some(-5400 * SECOND)),
            ("100ms", Some(100_000_000)),
            ("1us", Some(1000)),
            (".5s", Some(500_000_000)),
            ("0", Some(0)),
            ("5", None),
            ("", None),
            ("-", None),
            ("s", None),
            ("1d", None),
            ("1.2.3s", None),
            ("99999999999h", None),
        ] {
            assert_eq!(parse_duration(text), want, "{text}");
        }
    }

    #[test]
    fn since_takes_durations_dates_and_seconds() {
        let now = Timestamp::from_unix(1_000_000, 0);
        for (text, want) in [
            ("10m", Some(999_400)),
            ("1970-01-02", Some(86_400 - 3600)),
            ("1970-01-02T00:00", Some(86_400 - 3600)),
            ("1970-01-02T00:00:00Z", Some(86_400)),
            ("1970-01-02Z", Some(86_400)),
            ("42", Some(42)),
            ("yesterday", None),
        ] {
            assert_eq!(
                parse_since(text, now, 3600).map(Timestamp::unix_seconds),
                want,
                "{text}"
            );
        }
    }
}
