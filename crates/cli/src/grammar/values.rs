//! The values of flags: syntax checks with the texts of the parsers that Docker uses for each type.

use super::Flag;

/// Checks a value's syntax when the flag is read.
pub fn check(flag: &Flag, value: &str) -> Result<(), String> {
    match flag.value {
        "" => parse_bool(value).map(drop),
        "int" => parse_integer(value).map(drop),
        "uint" | "uint64" => parse_unsigned(value, u64::MAX).map(drop),
        "uint32" => parse_unsigned(value, u32::MAX.into()).map(drop),
        "uint16" => parse_unsigned(value, u16::MAX.into()).map(drop),
        "float" => value
            .parse::<f64>()
            .map(drop)
            .map_err(|_| go_number("ParseFloat", value, "invalid syntax")),
        "duration" => parse_duration(value).map(drop),
        "bytes" if flag.name == "memory-swap" => parse_swap_bytes(value).map(drop),
        "bytes" => parse_bytes(value).map(drop),
        "decimal" => parse_nano_cpus(value).map(drop),
        "strings" => parse_csv(value).map(drop),
        "filter" => crate::filter::parse(value).map(drop),
        "mount" => crate::run::mount::parse(value).map(drop),
        "network" => crate::run::network::parse(value).map(drop),
        "ulimit" => crate::run::limits::parse_ulimit(value).map(drop),
        "gpu-request" => crate::run::devices::parse_gpus(value).map(drop),
        "map" => crate::run::check::check_map(flag.name, value),
        "list" => crate::run::check::check_list(flag.name, value),
        _ => Ok(()),
    }
}

fn go_number(function: &str, value: &str, what: &str) -> String {
    format!("strconv.{function}: parsing {}: {what}", quote(value))
}

/// Quotes a text as Go's `%q` does.
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                out.push_str(&format!("\\x{:02x}", c as u32))
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Parses a boolean: the eleven spellings that Go takes.
pub fn parse_bool(value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(go_number("ParseBool", value, "invalid syntax")),
    }
}

/// Parses an integer as Go's `ParseInt(s, 0, 64)`: prefixes 0x, 0o, 0b and a leading 0 for octal.
pub fn parse_integer(value: &str) -> Result<i64, String> {
    let (negative, digits) = match value.strip_prefix(['-', '+']) {
        Some(rest) => (value.starts_with('-'), rest),
        None => (false, value),
    };
    let magnitude =
        magnitude(digits).ok_or_else(|| go_number("ParseInt", value, "invalid syntax"))?;
    let magnitude = magnitude.map_err(|()| go_number("ParseInt", value, "value out of range"))?;
    let signed = if negative {
        0i128 - i128::from(magnitude)
    } else {
        i128::from(magnitude)
    };
    i64::try_from(signed).map_err(|_| go_number("ParseInt", value, "value out of range"))
}

/// Parses an unsigned integer as Go's `ParseUint(s, 0, bits)`.
pub fn parse_unsigned(value: &str, max: u64) -> Result<u64, String> {
    let number = magnitude(value).ok_or_else(|| go_number("ParseUint", value, "invalid syntax"))?;
    match number {
        Ok(number) if number <= max => Ok(number),
        _ => Err(go_number("ParseUint", value, "value out of range")),
    }
}

/// Parses an unsigned decimal as Go's `ParseUint(s, 10, bits)`.
pub fn parse_unsigned_decimal(value: &str, max: u64) -> Result<u64, String> {
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
        return Err(go_number("ParseUint", value, "invalid syntax"));
    }
    match value.parse() {
        Ok(number) if number <= max => Ok(number),
        _ => Err(go_number("ParseUint", value, "value out of range")),
    }
}

fn magnitude(digits: &str) -> Option<Result<u64, ()>> {
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    Some(u64::from_str_radix(digits, radix).map_err(|_| ()))
}

/// Parses a size such as `1.5g` with binary multiples.
pub fn parse_bytes(value: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{value}'");
    let digits = value
        .trim_end_matches(|c: char| c.is_ascii_alphabetic())
        .trim_end();
    let suffix = value[digits.len()..].trim_start().to_ascii_lowercase();
    if digits.is_empty() || !digits.ends_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Err(invalid());
    }
    let multiple: u64 = match suffix.as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        "p" | "pb" | "pib" => 1 << 50,
        _ => return Err(format!("invalid suffix: '{suffix}'")),
    };
    let number: f64 = digits.parse().map_err(|_| invalid())?;
    if number < 0.0 {
        return Err(invalid());
    }
    Ok((number * multiple as f64) as i64)
}

/// Parses a memory-swap limit: a size, or -1 for no limit.
pub fn parse_swap_bytes(value: &str) -> Result<i64, String> {
    if value == "-1" {
        Ok(-1)
    } else {
        parse_bytes(value)
    }
}

/// Parses a number of CPUs into billionths of a CPU. Exact decimals and fractions, as big.Rat takes them.
pub fn parse_nano_cpus(value: &str) -> Result<i64, String> {
    let failed = || format!("failed to parse {value} as a rational number");
    let (numerator, denominator) = match value.split_once('/') {
        Some((n, d)) => (
            decimal(n).ok_or_else(failed)?,
            decimal(d).ok_or_else(failed)?,
        ),
        None => (decimal(value).ok_or_else(failed)?, (1, 1)),
    };
    let over = numerator
        .0
        .checked_mul(denominator.1)
        .and_then(|n| n.checked_mul(1_000_000_000))
        .ok_or_else(failed)?;
    let under = numerator
        .1
        .checked_mul(denominator.0)
        .filter(|d| *d != 0)
        .ok_or_else(failed)?;
    if over % under != 0 {
        return Err("value is too precise".to_owned());
    }
    i64::try_from(over / under).map_err(|_| failed())
}

fn decimal(text: &str) -> Option<(i128, i128)> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty())
        || !whole
            .chars()
            .chain(fraction.chars())
            .all(|c| c.is_ascii_digit())
        || whole.len() + fraction.len() > 27
    {
        return None;
    }
    let number: i128 = format!("0{whole}{fraction}").parse().ok()?;
    Some((sign * number, 10i128.pow(fraction.len() as u32)))
}

/// Parses a Go duration such as `1h2m3.5s` into nanoseconds.
pub fn parse_duration(value: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(value));
    let (negative, mut rest) = match value.strip_prefix(['-', '+']) {
        Some(rest) => (value.starts_with('-'), rest),
        None => (false, value),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: f64 = 0.0;
    let mut exact: i128 = 0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        if number.is_empty() || number == "." || number.matches('.').count() > 1 {
            return Err(invalid());
        }
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let scale: i64 = match unit {
            "" => return Err(format!("time: missing unit in duration {}", quote(value))),
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => {
                return Err(format!(
                    "time: unknown unit {} in duration {}",
                    quote(unit),
                    quote(value)
                ));
            }
        };
        match number.parse::<i64>() {
            Ok(number) => exact += i128::from(number) * i128::from(scale),
            Err(_) => total += number.parse::<f64>().map_err(|_| invalid())? * scale as f64,
        }
        rest = next;
    }
    let sum = exact + total.round() as i128;
    i64::try_from(if negative { -sum } else { sum }).map_err(|_| invalid())
}

/// Splits one line of comma-separated values with double quotes, as Go's csv reader does.
pub fn parse_csv(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    if line.is_empty() {
        return Ok(fields);
    }
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut body = quoted;
            loop {
                let Some(end) = body.find('"') else {
                    return Err(format!(
                        "parse error on line 1, column {}: extraneous or missing \" in quoted-field",
                        line.len() + 1
                    ));
                };
                field.push_str(&body[..end]);
                body = &body[end + 1..];
                match body.strip_prefix('"') {
                    Some(after) => {
                        field.push('"');
                        body = after;
                    }
                    None => break,
                }
            }
            fields.push(field);
            match body.strip_prefix(',') {
                Some(after) => rest = after,
                None if body.is_empty() => return Ok(fields),
                None => {
                    return Err(format!(
                        "parse error on line 1, column {}: extraneous or missing \" in quoted-field",
                        line.len() - body.len()
                    ));
                }
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if let Some(quote) = rest[..end].find('"') {
                let column = line.len() - rest.len() + quote + 1;
                return Err(format!(
                    "parse error on line 1, column {column}: bare \" in non-quoted-field"
                ));
            }
            fields.push(rest[..end].to_owned());
            if end == rest.len() {
                return Ok(fields);
            }
            rest = &rest[end + 1..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Debug;

    fn check<T: Debug>(got: Result<T, String>, expected: &str) {
        let got = match got {
            Ok(value) => format!("{value:?}"),
            Err(error) => error,
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn sizes() {
        check(parse_bytes("1"), "1");
        check(parse_bytes("1k"), "1024");
        check(parse_bytes("1.5GB"), "1610612736");
        check(parse_bytes("10 MiB"), "10485760");
        check(parse_bytes("x"), "invalid size: 'x'");
        check(parse_bytes("-1"), "invalid size: '-1'");
        check(parse_bytes(""), "invalid size: ''");
    }

    #[test]
    fn durations() {
        check(parse_duration("1h2m3s"), "3723000000000");
        check(parse_duration("1.5s"), "1500000000");
        check(parse_duration("300ms"), "300000000");
        check(parse_duration("0"), "0");
        check(parse_duration("5"), "time: missing unit in duration \"5\"");
        check(
            parse_duration("5x"),
            "time: unknown unit \"x\" in duration \"5x\"",
        );
        check(parse_duration("x"), "time: invalid duration \"x\"");
    }

    #[test]
    fn cpus_are_exact() {
        check(parse_nano_cpus("1.5"), "1500000000");
        check(parse_nano_cpus(".5"), "500000000");
        check(parse_nano_cpus("1/2"), "500000000");
        check(parse_nano_cpus("0.0000000001"), "value is too precise");
        check(
            parse_nano_cpus("x"),
            "failed to parse x as a rational number",
        );
    }

    #[test]
    fn integers_have_gos_prefixes() {
        check(parse_integer("0x10"), "16");
        check(parse_integer("010"), "8");
        check(parse_integer("-9"), "-9");
        check(
            parse_integer("x"),
            "strconv.ParseInt: parsing \"x\": invalid syntax",
        );
        check(
            parse_integer("9999999999999999999"),
            "strconv.ParseInt: parsing \"9999999999999999999\": value out of range",
        );
        check(
            parse_unsigned("70000", u16::MAX.into()),
            "strconv.ParseUint: parsing \"70000\": value out of range",
        );
    }

    #[test]
    fn csv_lines() {
        check(parse_csv("a,b"), r#"["a", "b"]"#);
        check(parse_csv(r#""a,b",c"#), r#"["a,b", "c"]"#);
        check(parse_csv(r#""a""b""#), r#"["a\"b"]"#);
        check(
            parse_csv(r#"a"b"#),
            "parse error on line 1, column 2: bare \" in non-quoted-field",
        );
    }
}
