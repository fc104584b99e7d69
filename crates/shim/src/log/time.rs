//! Times of log lines: RFC 3339 in UTC, to the nanosecond, without allocation.

/// Writes Go's RFC3339Nano: the fraction without trailing zeros, absent if zero. The result is at most 30 bytes.
pub fn push_rfc3339_nano(out: &mut Vec<u8>, unix_ns: i64) {
    let start = out.len();
    push_rfc3339_fixed(out, unix_ns);
    out.pop();
    while out.len() > start && out.last() == Some(&b'0') {
        out.pop();
    }
    if out.last() == Some(&b'.') {
        out.pop();
    }
    out.push(b'Z');
}

/// Writes RFC 3339 with nine digits of fraction.
pub fn push_rfc3339_fixed(out: &mut Vec<u8>, unix_ns: i64) {
    let seconds = unix_ns.div_euclid(1_000_000_000);
    let nanos = unix_ns.rem_euclid(1_000_000_000) as u32;
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400) as u32;
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    digits(&mut text[0..4], year as u32);
    digits(&mut text[5..7], month);
    digits(&mut text[8..10], day);
    digits(&mut text[11..13], of_day / 3600);
    digits(&mut text[14..16], of_day / 60 % 60);
    digits(&mut text[17..19], of_day % 60);
    digits(&mut text[20..29], nanos);
    out.extend_from_slice(&text);
}

fn digits(out: &mut [u8], mut value: u32) {
    for place in out.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Parses what the two functions above write; `None` for anything else (another zone among it).
pub fn parse(text: &[u8]) -> Option<i64> {
    let number = |bytes: &[u8]| -> Option<i64> {
        bytes.iter().try_fold(0i64, |sum, byte| {
            byte.is_ascii_digit()
                .then(|| sum * 10 + i64::from(byte - b'0'))
        })
    };
    if text.len() < 20
        || text[4] != b'-'
        || text[7] != b'-'
        || text[10] != b'T'
        || text.last() != Some(&b'Z')
    {
        return None;
    }
    let days = days_of(
        number(&text[0..4])?,
        number(&text[5..7])?,
        number(&text[8..10])?,
    );
    let seconds =
        number(&text[11..13])? * 3600 + number(&text[14..16])? * 60 + number(&text[17..19])?;
    let nanos = match &text[19..text.len() - 1] {
        [] => 0,
        [b'.', fraction @ ..] if fraction.len() <= 9 => {
            number(fraction)? * 10i64.pow(9 - fraction.len() as u32)
        }
        _ => return None,
    };
    (days * 86_400 + seconds)
        .checked_mul(1_000_000_000)?
        .checked_add(nanos)
}

/// Returns year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar. Years are counted
/// from March on, so that the leap day is a year's last.
fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * from_march + 2) / 5 + 1) as u32;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Returns the day counted from 1970-01-01.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    let year_of_era = year.rem_euclid(400);
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    year.div_euclid(400) * 146_097 + of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_does_and_parsed_back() {
        for (unix_ns, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_709_210_096_120_000_000, "2024-02-29T12:34:56.12Z"),
            (1_735_689_599_999_999_999, "2024-12-31T23:59:59.999999999Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
        ] {
            let mut out = Vec::new();
            push_rfc3339_nano(&mut out, unix_ns);
            assert_eq!(String::from_utf8(out.clone()).unwrap(), expected);
            assert_eq!(parse(&out), Some(unix_ns));
            let mut fixed = Vec::new();
            push_rfc3339_fixed(&mut fixed, unix_ns);
            assert_eq!(fixed.len(), 30);
            assert_eq!(parse(&fixed), Some(unix_ns));
        }
        for wrong in [
            "",
            "2024-02-29 12:34:56Z",
            "2024-02-29T12:34:56+01:00",
            "2024-02-29T12:34:56.1234567890Z",
        ] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
