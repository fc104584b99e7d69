//! The framing of attach, exec and log streams without a terminal: an 8-byte header before each payload.
//!
//! Byte 0 is the stream, bytes 1 to 3 are zero, bytes 4 to 7 the payload's length, big-endian. Nothing is read or
//! written here: the decoder walks over slices that the caller received, and copies nothing.

use serde::{Deserialize, Serialize};

/// The length of a frame's header.
pub const HEADER_BYTES: usize = 8;

/// Names the stream that a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamKind {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    /// An error of the daemon itself; the client stops with its text.
    SystemError = 3,
}

impl StreamKind {
    /// Reads the first byte of a header.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Stdin),
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::SystemError),
            _ => None,
        }
    }
}

/// Encodes the header of a frame.
pub const fn header(kind: StreamKind, payload_bytes: u32) -> [u8; HEADER_BYTES] {
    let length = payload_bytes.to_be_bytes();
    [
        kind as u8, 0, 0, 0, length[0], length[1], length[2], length[3],
    ]
}

/// Says that the first byte of a header names no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unrecognized input header: {0}")]
pub struct UnknownStream(pub u8);

/// Decodes a sequence of frames that arrives in pieces of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    header: [u8; HEADER_BYTES],
    header_filled: usize,
    payload_left: u32,
}

impl Decoder {
    /// Starts before the first header.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of payload from the front of `input`; `None` when `input` is used up.
    ///
    /// A payload that is cut by the end of `input` goes on with the next call, under the same stream.
    pub fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<(StreamKind, &'a [u8])>, UnknownStream> {
        loop {
            if self.header_filled < HEADER_BYTES {
                let take = (HEADER_BYTES - self.header_filled).min(input.len());
                self.header[self.header_filled..self.header_filled + take]
                    .copy_from_slice(&input[..take]);
                self.header_filled += take;
                *input = &input[take..];
                if self.header_filled < HEADER_BYTES {
                    return Ok(None);
                }
                let [_, _, _, _, a, b, c, d] = self.header;
                self.payload_left = u32::from_be_bytes([a, b, c, d]);
            }
            let kind =
                StreamKind::from_byte(self.header[0]).ok_or(UnknownStream(self.header[0]))?;
            if self.payload_left == 0 {
                self.header_filled = 0;
                continue;
            }
            if input.is_empty() {
                return Ok(None);
            }
            let take = usize::try_from(self.payload_left)
                .unwrap_or(usize::MAX)
                .min(input.len());
            let (payload, rest) = input.split_at(take);
            *input = rest;
            self.payload_left -= u32::try_from(take).unwrap_or(self.payload_left);
            if self.payload_left == 0 {
                self.header_filled = 0;
            }
            return Ok(Some((kind, payload)));
        }
    }

    /// Tells whether the input may end here without having cut a frame.
    pub fn at_boundary(&self) -> bool {
        self.header_filled == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> Vec<(StreamKind, Vec<u8>)> {
        let mut decoder = Decoder::new();
        let mut frames: Vec<(StreamKind, Vec<u8>)> = Vec::new();
        for piece in pieces {
            let mut input = *piece;
            while let Some((kind, payload)) = decoder.next(&mut input).unwrap() {
                match frames.last_mut() {
                    Some((last, bytes)) if *last == kind => bytes.extend(payload),
                    _ => frames.push((kind, payload.to_vec())),
                }
            }
            assert!(input.is_empty());
        }
        assert!(decoder.at_boundary());
        frames
    }

    #[test]
    fn frames_survive_any_cut() {
        let mut bytes = Vec::new();
        for (kind, payload) in [
            (StreamKind::Stdout, &b"hello\n"[..]),
            (StreamKind::Stderr, b""),
            (StreamKind::Stderr, b"oops"),
        ] {
            bytes.extend(header(kind, payload.len() as u32));
            bytes.extend(payload);
        }
        let want = vec![
            (StreamKind::Stdout, b"hello\n".to_vec()),
            (StreamKind::Stderr, b"oops".to_vec()),
        ];
        for cut in 0..=bytes.len() {
            assert_eq!(
                decode(&[&bytes[..cut], &bytes[cut..]]),
                want,
                "cut at {cut}"
            );
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(decode(&single), want);
    }

    #[test]
    fn an_unknown_stream_is_an_error() {
        let mut input: &[u8] = &[9, 0, 0, 0, 0, 0, 0, 1, 7];
        assert_eq!(Decoder::new().next(&mut input), Err(UnknownStream(9)));
    }

    #[test]
    fn the_header_is_big_endian() {
        assert_eq!(
            header(StreamKind::Stderr, 0x0102_0304),
            [2, 0, 0, 0, 1, 2, 3, 4]
        );
    }
}
