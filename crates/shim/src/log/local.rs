//! One record of Docker's `local` driver: the length in 4 bytes big endian, a protobuf message, the length again (so
//! that a reader can go backwards).
//!
//! Message: 1 source (string), 2 time_nano (varint), 3 line (bytes, without its newline), 4 partial (bool),
//! 5 partial metadata { 1 last (bool), 2 id (string), 3 ordinal (varint) }.

use super::Stream;

/// How a record stands to the line that it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    Whole,
    /// A piece that is followed by another of the same line.
    Partial {
        ordinal: u32,
    },
    /// The piece that ends a line.
    Last {
        ordinal: u32,
    },
}

/// Appends one record.
pub fn push_record(
    out: &mut Vec<u8>,
    stream: Stream,
    text: &[u8],
    piece: Piece,
    line_id: u64,
    unix_ns: i64,
) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    push_bytes(
        out,
        1,
        match stream {
            Stream::Stdout => b"stdout",
            Stream::Stderr => b"stderr",
        },
    );
    out.push(2 << 3);
    push_varint(out, unix_ns as u64);
    if !text.is_empty() {
        push_bytes(out, 3, text);
    }
    let (last, ordinal) = match piece {
        Piece::Whole => (false, 0),
        Piece::Partial { ordinal } => (false, ordinal),
        Piece::Last { ordinal } => (true, ordinal),
    };
    if piece != Piece::Whole {
        if !last {
            out.extend_from_slice(&[4 << 3, 1]);
        }
        let mut metadata = Vec::with_capacity(32);
        if last {
            metadata.extend_from_slice(&[1 << 3, 1]);
        }
        push_bytes(&mut metadata, 2, format!("{line_id:016x}").as_bytes());
        metadata.push(3 << 3);
        push_varint(&mut metadata, u64::from(ordinal));
        push_bytes(out, 5, &metadata);
    }
    let length = ((out.len() - start - 4) as u32).to_be_bytes();
    out[start..start + 4].copy_from_slice(&length);
    out.extend_from_slice(&length);
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn push_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// What one record says.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub stream: Stream,
    pub unix_ns: i64,
    pub text: &'a [u8],
    /// Whether a newline ended this piece.
    pub newline: bool,
}

/// Returns the length of the whole record at the front, framing included, or `None` if more bytes are needed.
pub fn record_length(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(*bytes.first_chunk::<4>()?) as usize;
    (bytes.len() >= length + 8).then_some(length + 8)
}

/// Parses one whole record with its framing; `None` if it is none.
pub fn parse(record: &[u8]) -> Option<Record<'_>> {
    let mut rest = record.get(4..record.len().checked_sub(4)?)?;
    let mut found = Record {
        stream: Stream::Stdout,
        unix_ns: 0,
        text: &[],
        newline: true,
    };
    while !rest.is_empty() {
        let key = take_varint(&mut rest)?;
        match (key >> 3, key & 7) {
            (1, 2) => {
                if take_bytes(&mut rest)? == b"stderr" {
                    found.stream = Stream::Stderr;
                }
            }
            (2, 0) => found.unix_ns = take_varint(&mut rest)? as i64,
            (3, 2) => found.text = take_bytes(&mut rest)?,
            (4, 0) => found.newline = take_varint(&mut rest)? == 0,
            (5, 2) => {
                let metadata = take_bytes(&mut rest)?;
                found.newline = metadata.starts_with(&[1 << 3, 1]);
            }
            (_, 0) => {
                take_varint(&mut rest)?;
            }
            (_, 2) => {
                take_bytes(&mut rest)?;
            }
            _ => return None,
        }
    }
    Some(found)
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_varint(rest)?).ok()?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_framed_at_both_ends_and_parse_back() {
        for (text, piece, newline) in [
            (&b"hello"[..], Piece::Whole, true),
            (b"", Piece::Whole, true),
            (b"part", Piece::Partial { ordinal: 1 }, false),
            (b"end", Piece::Last { ordinal: 300 }, true),
        ] {
            let mut out = Vec::new();
            push_record(
                &mut out,
                Stream::Stderr,
                text,
                piece,
                7,
                1_709_210_096_120_000_000,
            );
            assert_eq!(out[..4], out[out.len() - 4..]);
            assert_eq!(record_length(&out), Some(out.len()));
            assert_eq!(record_length(&out[..out.len() - 1]), None);
            let expected = Record {
                stream: Stream::Stderr,
                unix_ns: 1_709_210_096_120_000_000,
                text,
                newline,
            };
            assert_eq!(parse(&out), Some(expected));
        }
    }

    #[test]
    fn a_whole_line_has_these_bytes() {
        let mut out = Vec::new();
        push_record(&mut out, Stream::Stdout, b"hi", Piece::Whole, 0, 300);
        assert_eq!(
            out,
            b"\0\0\0\x0f\x0a\x06stdout\x10\xac\x02\x1a\x02hi\0\0\0\x0f"
        );
    }
}
