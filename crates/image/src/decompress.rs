//! Tells compressed streams by their first bytes and opens them.

use crate::error::{Error, Result};
use std::io::{self, BufRead, BufReader, Read};

/// Is how a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

/// Is how many bytes [`detect`] needs.
pub(crate) const MAGIC_BYTES: usize = 10;

/// Tells the compression by the first bytes.
pub(crate) fn detect(start: &[u8]) -> Compression {
    let skippable =
        start.len() >= 4 && (0x50..=0x5f).contains(&start[0]) && start[1..4] == [0x2a, 0x4d, 0x18];
    match start {
        [0x1f, 0x8b, 8, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        _ if skippable => Compression::Zstd,
        // The digit is the block size; the six bytes behind it open a block (pi) or the end (its root).
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, ..]
        | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, ..] => Compression::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        _ => Compression::None,
    }
}

/// Opens a decompressing reader.
///
/// # Errors
/// bzip2 and xz are refused by name.
pub(crate) fn open<'a>(
    compression: Compression,
    input: impl BufRead + Send + 'a,
) -> Result<Box<dyn Read + Send + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Zstd => Box::new(
            zstd::stream::read::Decoder::with_buffer(input)
                .map_err(|error| Error::io("start the decompression of a zstd stream", error))?,
        ),
        Compression::Bzip2 => return Err(refused("bzip2", "bunzip2")),
        Compression::Xz => return Err(refused("xz", "xz -d")),
    })
}

fn refused(name: &str, tool: &str) -> Error {
    Error::Unsupported(format!(
        "{name} compression is not supported: decompress the archive with `{tool}` first"
    ))
}

/// Reads the first bytes of a stream and gives them with a reader that begins with them again.
pub(crate) fn peek<R: Read>(mut input: R) -> io::Result<(Vec<u8>, impl Read)> {
    let mut start = vec![0; MAGIC_BYTES];
    let mut filled = 0;
    while filled < start.len() {
        match input.read(&mut start[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    start.truncate(filled);
    Ok((start.clone(), io::Cursor::new(start).chain(input)))
}

/// Opens a stream that may be compressed.
pub(crate) fn sniffed<'a>(input: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    let (start, input) = peek(input).map_err(|error| Error::io("read archive", error))?;
    open(
        detect(&start),
        BufReader::with_capacity(crate::pipe::PIECE_BYTES, input),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressions_are_told_by_their_first_bytes() {
        for (start, compression) in [
            (b"\x1f\x8b\x08\0".as_slice(), Compression::Gzip),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
            (b"\x5a\x2a\x4d\x18", Compression::Zstd),
            (b"BZh91AY&SY", Compression::Bzip2),
            (b"BZh9 is a name", Compression::None),
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"", Compression::None),
            (b"blobs/sha256", Compression::None),
        ] {
            assert_eq!(detect(start), compression, "{start:?}");
        }
    }
}
