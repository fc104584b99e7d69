//! Signals by name and number, as `--stop-signal` and `kill -s` spell them.

const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", 34),
    ("RTMAX", 64),
];

/// SIGKILL.
pub(crate) const KILL: i32 = 9;
/// SIGTERM.
pub(crate) const TERM: i32 = 15;

/// Reads the signal of a `kill`.
///
/// # Errors
/// Docker's texts: no signal at all, or a number that Linux does not have.
pub(crate) fn of_kill(text: &str) -> Result<i32, String> {
    match text.parse::<i64>() {
        Ok(number) if number != 0 => i32::try_from(number)
            .ok()
            .filter(|number| (1..=64).contains(number))
            .ok_or_else(|| format!("the linux daemon does not support signal {number}")),
        _ => parse(text).ok_or_else(|| format!("invalid signal: {text}")),
    }
}

/// Parses `9`, `KILL`, `sigkill`, `RTMIN+3`; `None` when it is no signal of Linux.
pub(crate) fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let number = if let Some(offset) = name.strip_prefix("RTMIN+") {
        34 + offset
            .parse::<i32>()
            .ok()
            .filter(|offset| (0..=30).contains(offset))?
    } else {
        64 - name
            .strip_prefix("RTMAX-")?
            .parse::<i32>()
            .ok()
            .filter(|offset| (0..=30).contains(offset))?
    };
    Some(number)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_kill_tells_what_is_wrong_with_its_signal() {
        for (text, expected) in [
            ("USR1", Ok(10)),
            ("64", Ok(64)),
            ("0", Err("invalid signal: 0")),
            ("NOSUCH", Err("invalid signal: NOSUCH")),
            ("99", Err("the linux daemon does not support signal 99")),
            ("-5", Err("the linux daemon does not support signal -5")),
        ] {
            assert_eq!(
                super::of_kill(text),
                expected.map_err(str::to_owned),
                "{text}"
            );
        }
    }

    #[test]
    fn names_numbers_and_real_time_signals_are_known() {
        for (text, expected) in [
            ("9", Some(9)),
            ("KILL", Some(9)),
            ("sigterm", Some(15)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("0", None),
            ("65", None),
            ("NOPE", None),
            ("", None),
            ("RTMIN+99", None),
        ] {
            assert_eq!(super::parse(text), expected, "{text}");
        }
    }
}
