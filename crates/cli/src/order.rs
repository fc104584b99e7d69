//! The order in which Docker's client lists names: digits count as numbers, so that `net9` comes before `net10`.

use std::cmp::Ordering;

/// Compares two texts byte by byte, runs of digits by their value and before everything else. Of two runs of one value
/// that with fewer zeros before it comes first.
pub fn natural(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    loop {
        let (Some(&one), Some(&other)) = (left.first(), right.first()) else {
            return left.len().cmp(&right.len());
        };
        let ordering = match (one.is_ascii_digit(), other.is_ascii_digit()) {
            (true, true) => {
                let (number, rest) = number(left);
                let (other_number, other_rest) = self::number(right);
                (left, right) = (rest, other_rest);
                number.cmp(&other_number)
            }
            (false, false) => {
                (left, right) = (&left[1..], &right[1..]);
                one.cmp(&other)
            }
            (one, other) => other.cmp(&one),
        };
        if ordering.is_ne() {
            return ordering;
        }
    }
}

/// What decides the order of a run of digits: how many it has without zeros before it, these, and the zeros.
type Number<'a> = (usize, &'a [u8], usize);

/// Takes the run of digits off the beginning of a text.
fn number(text: &[u8]) -> (Number<'_>, &[u8]) {
    let end = |of: &[u8], is: fn(&u8) -> bool| of.iter().take_while(|byte| is(byte)).count();
    let zeros = end(text, |byte| *byte == b'0');
    let digits = end(&text[zeros..], u8::is_ascii_digit);
    let (digits, rest) = text[zeros..].split_at(digits);
    ((digits.len(), digits, zeros), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_count_as_numbers() {
        let sorted = [
            "",
            "0",
            "00",
            "1",
            "2",
            "02",
            "10",
            "10:5",
            "10a",
            "10a2",
            "10a10",
            "99999999999999999999999999999998",
            "99999999999999999999999999999999",
            "A1",
            "a",
            "a1",
            "a01b",
            "a2",
            "é1",
        ];
        for (at, one) in sorted.iter().enumerate() {
            for (other_at, other) in sorted.iter().enumerate() {
                assert_eq!(natural(one, other), at.cmp(&other_at), "{one} and {other}");
            }
        }
    }

    #[test]
    fn ports_and_addresses_are_in_order() {
        let mut lines = [
            "443/tcp -> 0.0.0.0:443",
            "80/tcp -> 127.0.0.10:80",
            "80/tcp -> 0.0.0.0:8080",
            "80/tcp -> 127.0.0.9:80",
            "80/tcp -> [::]:80",
            "80/tcp -> 0.0.0.0:443",
        ];
        lines.sort_by(|left, right| natural(left, right));
        assert_eq!(
            lines,
            [
                "80/tcp -> 0.0.0.0:443",
                "80/tcp -> 0.0.0.0:8080",
                "80/tcp -> 127.0.0.9:80",
                "80/tcp -> 127.0.0.10:80",
                "80/tcp -> [::]:80",
                "443/tcp -> 0.0.0.0:443",
            ]
        );
    }
}
