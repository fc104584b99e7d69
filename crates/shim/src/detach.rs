//! The detach keys: a sequence of bytes in a terminal client's input that ends the attachment.
//!
//! Bytes that may begin the sequence are held back until it is certain; if they do not, they are forwarded unchanged.

/// Watches one client's input.
#[derive(Debug, Default)]
pub struct Matcher {
    keys: Vec<u8>,
    matched: usize,
}

impl Matcher {
    /// Creates a matcher; without keys nothing ever matches.
    pub fn new(keys: Vec<u8>) -> Self {
        Matcher { keys, matched: 0 }
    }

    /// Appends to `out` what is to be forwarded of `input`; `true` if the sequence is complete (what follows it is
    /// dropped).
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        if self.keys.is_empty() {
            out.extend_from_slice(input);
            return false;
        }
        for &byte in input {
            // Fall back to the longest prefix of the keys that still fits.
            while self.matched > 0 && self.keys.get(self.matched) != Some(&byte) {
                let shorter = (0..self.matched)
                    .rev()
                    .find(|&length| {
                        self.keys[..length] == self.keys[self.matched - length..self.matched]
                    })
                    .unwrap_or(0);
                out.extend_from_slice(&self.keys[..self.matched - shorter]);
                self.matched = shorter;
            }
            if self.keys.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return true;
                }
            } else {
                out.push(byte);
            }
        }
        false
    }

    /// Appends what was held back, because the input has ended.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.keys[..self.matched]);
        self.matched = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_and_what_only_begins_like_them_is_forwarded() {
        const DEFAULT: &[u8] = b"\x10\x11";
        for (keys, input, forwarded, detached) in [
            (DEFAULT, &b"abc"[..], &b"abc"[..], false),
            (DEFAULT, b"ab\x10\x11", b"ab", true),
            (DEFAULT, b"\x10x", b"\x10x", false),
            (DEFAULT, b"\x10\x10\x11z", b"\x10", true),
            (DEFAULT, b"\x10", b"\x10", false),
            (b"aab", b"aaab", b"a", true),
            (b"abac", b"ababac", b"ab", true),
            (b"q", b"xq", b"x", true),
            (b"", b"\x10\x11", b"\x10\x11", false),
        ] {
            for step in [1, input.len()] {
                let mut matcher = Matcher::new(keys.to_vec());
                let mut out = Vec::new();
                let found = input
                    .chunks(step)
                    .any(|piece| matcher.feed(piece, &mut out));
                if !found {
                    matcher.end(&mut out);
                }
                assert_eq!(
                    (out.as_slice(), found),
                    (forwarded, detached),
                    "{keys:?} {input:?} {step}"
                );
            }
        }
    }
}
