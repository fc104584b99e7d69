//! Names of signals.

use crate::error::Error;

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Takes a number, or a name with or without `SIG`; `RTMIN+N` and `RTMAX-N` too.
pub(super) fn parse(text: &str) -> Result<i32, Error> {
    let unknown = || Error::invalid(format!("signal: unknown signal \"{text}\""));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) {
            Ok(number)
        } else {
            Err(unknown())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| {
        if rest.is_empty() {
            Some(0)
        } else {
            rest.strip_prefix(sign)
                .and_then(|number| number.parse::<i32>().ok())
        }
    };
    // The C library keeps 32 and 33 for itself: its first real-time signal is 34.
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        offset(rest, '+').map(|offset| 34 + offset)
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        offset(rest, '-').map(|offset| 64 - offset)
    } else {
        let alias = match name {
            "IOT" => "ABRT",
            "CLD" => "CHLD",
            "POLL" => "IO",
            other => other,
        };
        NAMES
            .iter()
            .position(|one| *one == alias)
            .map(|index| index as i32 + 1)
    };
    number
        .filter(|number| (1..=64).contains(number))
        .ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGSYS", 31),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(parse(text).expect(text), number);
        }
        for text in ["0", "65", "NOSUCH", "RTMIN-1", "-9", ""] {
            parse(text).expect_err(text);
        }
    }
}
