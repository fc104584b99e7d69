//! The 512-byte header block: fields, numbers, checksum.

use crate::error::{Error, Result};

/// Is the size of a header and the unit to which content is padded.
pub const BLOCK: usize = 512;

/// Is one raw header block.
pub(super) struct Header<'a>(pub &'a [u8; BLOCK]);

/// Tells whether a block is a tar header by its checksum, so that other content is not taken for an archive.
pub fn is_header(block: &[u8]) -> bool {
    <&[u8; BLOCK]>::try_from(block).is_ok_and(|block| Header(block).checksum_holds())
}

impl Header<'_> {
    pub fn checksum_holds(&self) -> bool {
        let Some(stored) = octal(&self.0[148..156]) else {
            return false;
        };
        // Old Sun tars summed signed bytes; readers accept both.
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (index, byte) in self.0.iter().enumerate() {
            let byte = if (148..156).contains(&index) {
                b' '
            } else {
                *byte
            };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        let stored = stored.cast_signed();
        stored == unsigned || stored == signed
    }

    pub fn type_flag(&self) -> u8 {
        self.0[156]
    }

    pub fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix: &[u8] = match self.magic() {
            // star keeps times behind a shorter prefix and marks that by `tar\0` at the end.
            b"ustar\0" if &self.0[508..512] == b"tar\0" => text(&self.0[345..476]),
            b"ustar\0" => text(&self.0[345..500]),
            _ => b"",
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }

    pub fn magic(&self) -> &[u8] {
        &self.0[257..263]
    }

    pub fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub fn mode(&self) -> Result<u32> {
        Ok((self.number(100..108)? & 0o7777) as u32)
    }

    pub fn uid(&self) -> Result<i64> {
        self.number(108..116)
    }

    pub fn gid(&self) -> Result<i64> {
        self.number(116..124)
    }

    pub fn size(&self) -> Result<u64> {
        u64::try_from(self.number(124..136)?).map_err(|_| invalid())
    }

    pub fn mtime(&self) -> Result<i64> {
        self.number(136..148)
    }

    pub fn device(&self) -> Result<(u32, u32)> {
        if !self.magic().starts_with(b"ustar") {
            return Ok((0, 0));
        }
        let number = |range| {
            self.number(range)
                .and_then(|n| u32::try_from(n).map_err(|_| invalid()))
        };
        Ok((number(329..337)?, number(337..345)?))
    }

    pub fn number(&self, range: std::ops::Range<usize>) -> Result<i64> {
        number(&self.0[range]).ok_or_else(invalid)
    }
}

pub(super) fn invalid() -> Error {
    Error::archive("archive/tar: invalid tar header")
}

fn text(field: &[u8]) -> &[u8] {
    &field[..field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len())]
}

/// Reads a number field: octal digits, or GNU's base-256 in two's complement where the first bit is set.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 == 0 {
        return octal(field).and_then(|number| i64::try_from(number).ok());
    }
    let negative = field[0] & 0x40 != 0;
    let mut value: i64 = if negative { -1 } else { 0 };
    for (index, byte) in field.iter().enumerate() {
        let byte = match (index, negative) {
            (0, false) => byte & 0x7f,
            _ => *byte,
        };
        // What is shifted out must be mere sign.
        if value >> 55 != if negative { -1 } else { 0 } {
            return None;
        }
        value = (value << 8) | i64::from(byte);
    }
    Some(value)
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits: &[u8] = field.trim_ascii_start();
    let end = digits
        .iter()
        .position(|byte| matches!(byte, 0 | b' '))
        .unwrap_or(digits.len());
    let mut value = 0_u64;
    for digit in &digits[..end] {
        if !matches!(digit, b'0'..=b'7') {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(u64::from(digit - b'0'))?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, value) in [
            (b"0000644\0".as_slice(), Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"0000649\0", None),
            (b"77777777777\0", Some(0o77777777777)),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\x00", Some(256)),
            (
                b"\x80\0\0\0\x40\0\0\0\0\0\0\x00",
                Some(0x4000_0000_0000_0000),
            ),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\x00", None),
            (
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe",
                Some(-2),
            ),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }
}
