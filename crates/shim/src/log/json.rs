//! One line of Docker's json-file format: `{"log":"text\n","stream":"stdout","attrs":{...},"time":"RFC3339Nano"}`.
//!
//! Writing escapes as Go does for HTML-safe JSON: quote and backslash by a backslash, `\n`, `\r`, other control bytes
//! and `<`, `>`, `&` as `\u00xx`, U+2028 and U+2029 as `\u2028` and `\u2029`, each byte that is no UTF-8 as `\ufffd`.
//! Reading takes that order of fields on a fast path and any other JSON object on a slow one.

use std::borrow::Cow;

use super::Stream;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends one record. `tail` is what follows the text from its closing quote on; see [`tail`].
pub fn push_record(out: &mut Vec<u8>, text: &[u8], newline: bool, tail: &[u8]) {
    out.extend_from_slice(b"{\"log\":\"");
    push_escaped(out, text);
    if newline {
        out.extend_from_slice(b"\\n");
    }
    out.extend_from_slice(tail);
}

/// Builds a record's end: it is the same for all lines of one stream in one batch.
pub fn tail(out: &mut Vec<u8>, stream: Stream, attrs: &[u8], unix_ns: i64) {
    out.clear();
    out.extend_from_slice(match stream {
        Stream::Stdout => b"\",\"stream\":\"stdout\"".as_slice(),
        Stream::Stderr => b"\",\"stream\":\"stderr\"",
    });
    if !attrs.is_empty() {
        out.extend_from_slice(b",\"attrs\":");
        out.extend_from_slice(attrs);
    }
    out.extend_from_slice(b",\"time\":\"");
    super::time::push_rfc3339_nano(out, unix_ns);
    out.extend_from_slice(b"\"}\n");
}

/// Tells whether a byte is copied as it is. Bytes from 0x80 on need a look at what follows.
fn plain(byte: u8) -> bool {
    (0x20..0x80).contains(&byte)
        & (byte != b'"')
        & (byte != b'\\')
        & (byte != b'<')
        & (byte != b'>')
        & (byte != b'&')
}

/// Returns how many bytes at the front are copied as they are. Whole blocks are tested without branches, which the
/// compiler turns into vector instructions.
fn plain_prefix(text: &[u8]) -> usize {
    let mut length = 0;
    for block in text.chunks_exact(32) {
        if !block.iter().fold(true, |all, &byte| all & plain(byte)) {
            break;
        }
        length += 32;
    }
    length
        + text[length..]
            .iter()
            .take_while(|&&byte| plain(byte))
            .count()
}

fn push_escaped(out: &mut Vec<u8>, mut text: &[u8]) {
    loop {
        let length = plain_prefix(text);
        out.extend_from_slice(&text[..length]);
        text = &text[length..];
        let Some(&byte) = text.first() else { return };
        if byte >= 0x80 {
            text = &text[push_non_ascii(out, text)..];
            continue;
        }
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            _ => out.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]),
        }
        text = &text[1..];
    }
}

/// Appends a run of non-ASCII bytes and returns its length.
fn push_non_ascii(out: &mut Vec<u8>, text: &[u8]) -> usize {
    let run = text.iter().take_while(|&&byte| byte >= 0x80).count();
    let mut start = out.len();
    for chunk in text[..run].utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        // Go replaces byte by byte, not sequence by sequence.
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    // U+2028 and U+2029 are E2 80 A8 and E2 80 A9; they are rare enough to be patched afterwards.
    while let Some(found) = memchr::memmem::find(&out[start..], b"\xe2\x80") {
        let at = start + found;
        match out.get(at + 2) {
            Some(0xa8) => {
                out.splice(at..at + 3, *b"\\u2028");
            }
            Some(0xa9) => {
                out.splice(at..at + 3, *b"\\u2029");
            }
            _ => {}
        }
        start = at + 3;
    }
    run
}

/// A record whose text is still escaped, or, from the slow path, already plain.
#[derive(Debug, PartialEq)]
pub struct Record<'a> {
    pub text: Cow<'a, [u8]>,
    pub escaped: bool,
    /// The text ends with the two characters of an escaped newline, which `text` does not hold.
    pub newline: bool,
    pub stream: Stream,
    pub time: Cow<'a, [u8]>,
    /// The `attrs` object as it stands there.
    pub attrs: Cow<'a, [u8]>,
}

/// Parses one line without its newline; `None` if it is not a record.
pub fn parse(line: &[u8]) -> Option<Record<'_>> {
    parse_fast(line).or_else(|| parse_slow(line))
}

fn parse_fast(line: &[u8]) -> Option<Record<'_>> {
    let rest = line.strip_prefix(b"{\"log\":\"")?;
    let mut escaped = false;
    let mut newline = false;
    let mut at = 0;
    let (text, rest) = loop {
        let hit = at + memchr::memchr2(b'"', b'\\', &rest[at..])?;
        if rest[hit] == b'"' {
            break (&rest[..hit], &rest[hit..]);
        }
        if rest[hit..].starts_with(b"\\n\"") {
            newline = true;
            break (&rest[..hit], &rest[hit + 2..]);
        }
        escaped = true;
        at = hit + 2;
        if at > rest.len() {
            return None;
        }
    };
    let rest = rest.strip_prefix(b"\",\"stream\":\"std")?;
    let (stream, rest) = match rest {
        [b'o', b'u', b't', b'"', b',', rest @ ..] => (Stream::Stdout, rest),
        [b'e', b'r', b'r', b'"', b',', rest @ ..] => (Stream::Stderr, rest),
        _ => return None,
    };
    let (attrs, rest) = match rest.strip_prefix(b"\"attrs\":") {
        None => (&[][..], rest),
        Some(rest) => {
            let end = object_end(rest)?;
            (&rest[..end], rest[end..].strip_prefix(b",")?)
        }
    };
    let time = rest.strip_prefix(b"\"time\":\"")?.strip_suffix(b"\"}")?;
    if time.len() > 40 || time.contains(&b'"') {
        return None;
    }
    Some(Record {
        text: text.into(),
        escaped,
        newline,
        stream,
        time: time.into(),
        attrs: attrs.into(),
    })
}

/// Returns the length of the JSON object at the front.
fn object_end(text: &[u8]) -> Option<usize> {
    let (mut depth, mut quoted, mut at) = (0usize, false, 0);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ if depth == 0 => return None,
            _ => {}
        }
        at += 1;
    }
    None
}

fn parse_slow(line: &[u8]) -> Option<Record<'static>> {
    #[derive(serde::Deserialize)]
    struct Line {
        #[serde(default)]
        log: String,
        #[serde(default)]
        stream: String,
        #[serde(default)]
        time: String,
        #[serde(default)]
        attrs: Option<serde_json::Map<String, serde_json::Value>>,
    }
    let line: Line = serde_json::from_slice(line).ok()?;
    Some(Record {
        text: line.log.into_bytes().into(),
        escaped: false,
        newline: false,
        stream: if line.stream == "stderr" {
            Stream::Stderr
        } else {
            Stream::Stdout
        },
        time: line.time.into_bytes().into(),
        attrs: line
            .attrs
            .and_then(|attrs| serde_json::to_vec(&attrs).ok())
            .unwrap_or_default()
            .into(),
    })
}

/// Appends a JSON string's content as the bytes that it means; a wrong escape is copied as it stands.
pub fn push_unescaped(out: &mut Vec<u8>, mut text: &[u8]) {
    while let Some(at) = memchr::memchr(b'\\', text) {
        out.extend_from_slice(&text[..at]);
        text = &text[at..];
        let used = match text.get(1) {
            Some(b'n') => push(out, b'\n'),
            Some(b'r') => push(out, b'\r'),
            Some(b't') => push(out, b'\t'),
            Some(b'b') => push(out, 8),
            Some(b'f') => push(out, 12),
            Some(&byte @ (b'"' | b'\\' | b'/')) => push(out, byte),
            Some(b'u') => match unicode(text) {
                Some((character, used)) => {
                    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    used
                }
                None => {
                    out.extend_from_slice("\u{fffd}".as_bytes());
                    text.len().min(6)
                }
            },
            _ => {
                out.push(b'\\');
                1
            }
        };
        text = &text[used..];
    }
    out.extend_from_slice(text);
}

fn push(out: &mut Vec<u8>, byte: u8) -> usize {
    out.push(byte);
    2
}

/// Reads `\uXXXX`, or a pair of surrogates; returns the character and how many bytes it took.
fn unicode(text: &[u8]) -> Option<(char, usize)> {
    let unit = |at: usize| -> Option<u32> {
        let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let first = unit(0)?;
    if (0xd800..0xdc00).contains(&first) {
        let second = unit(6).filter(|second| (0xdc00..0xe000).contains(second))?;
        return Some((
            char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))?,
            12,
        ));
    }
    Some((char::from_u32(first)?, 6))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &[u8], newline: bool, attrs: &[u8]) -> String {
        let (mut out, mut end) = (Vec::new(), Vec::new());
        tail(&mut end, Stream::Stdout, attrs, 1_709_210_096_120_000_000);
        push_record(&mut out, text, newline, &end);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_escaped_as_docker_does() {
        for (text, expected) in [
            (&b"plain"[..], "plain"),
            (b"", ""),
            (b"a\"b\\c", r#"a\"b\\c"#),
            (b"tab\there\x1b[0m\r", r"tab\u0009here\u001b[0m\r"),
            (
                b"<a href=x>&amp;\x7f",
                "\\u003ca href=x\\u003e\\u0026amp;\x7f",
            ),
            ("gr\u{fc}n \u{1f600}".as_bytes(), "gr\u{fc}n \u{1f600}"),
            (b"bad \xff\xfe \xc3", r"bad \ufffd\ufffd \ufffd"),
            (b"cut \xe2\x82 x", r"cut \ufffd\ufffd x"),
            (
                "a\u{2028}b\u{2029}\u{2028}c\u{2026}".as_bytes(),
                "a\\u2028b\\u2029\\u2028c\u{2026}",
            ),
            (b"nul\0", r"nul\u0000"),
            (
                b"0123456789012345678901234567890\"0123456789",
                r#"0123456789012345678901234567890\"0123456789"#,
            ),
        ] {
            let mut out = Vec::new();
            push_escaped(&mut out, text);
            assert_eq!(String::from_utf8(out.clone()).unwrap(), expected);
            let mut back = Vec::new();
            push_unescaped(&mut back, &out);
            assert_eq!(String::from_utf8_lossy(&back).chars().count(), {
                // Each byte that is no UTF-8 came back as one replacement character.
                let valid: usize = text
                    .utf8_chunks()
                    .map(|c| c.valid().chars().count() + c.invalid().len())
                    .sum();
                valid
            });
        }
    }

    #[test]
    fn a_record_has_dockers_fields_in_dockers_order() {
        assert_eq!(
            record(b"hello", true, b""),
            "{\"log\":\"hello\\n\",\"stream\":\"stdout\",\"time\":\"2024-02-29T12:34:56.12Z\"}\n"
        );
        assert_eq!(
            record(b"part", false, br#"{"a":"1"}"#),
            "{\"log\":\"part\",\"stream\":\"stdout\",\"attrs\":{\"a\":\"1\"},\"time\":\"2024-02-29T12:34:56.12Z\"}\n"
        );
    }

    #[test]
    fn records_are_parsed_fast_and_slowly_alike() {
        for line in [
            record(b"hello", true, b""),
            record(b"q\"\\n\" x", true, br#"{"a":"}\"","b":{}}"#),
            record(b"", false, b""),
        ] {
            let line = line.trim_end().as_bytes();
            let fast = parse_fast(line).unwrap();
            let slow = parse_slow(line).unwrap();
            let mut text = Vec::new();
            push_unescaped(&mut text, &fast.text);
            if fast.newline {
                text.push(b'\n');
            }
            assert_eq!(text, slow.text.as_ref());
            assert_eq!(
                (fast.stream, &fast.time, &fast.attrs),
                (slow.stream, &slow.time, &slow.attrs)
            );
        }
        assert!(parse(br#"{"stream":"stderr","time":"t","log":"x\n"}"#).is_some());
        for torn in [
            &b""[..],
            b"{\"log\":\"x",
            b"{\"log\":\"x\\",
            b"{\"log\":\"x\\n\",\"stream\":\"stdout\"",
            b"\0\0\0",
        ] {
            assert_eq!(parse(torn), None);
        }
    }

    #[test]
    fn surrogates_and_wrong_escapes() {
        for (text, expected) in [
            (r"\ud83d\ude00", "\u{1f600}"),
            (r"\ud83d", "\u{fffd}"),
            (r"\u00zz!", "\u{fffd}!"),
            (r"\x\", r"\x\"),
            (r"\t\b\f\/", "\t\u{8}\u{c}/"),
        ] {
            let mut out = Vec::new();
            push_unescaped(&mut out, text.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
