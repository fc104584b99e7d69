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

/// How far back a zstd stream may look, as a power of two: what the decoder holds in memory for each layer in work.
/// `zstd` itself goes to 8 MiB unless told `--ultra` or `--long`.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;
/// What libzstd says of a larger one.
const ZSTD_WINDOW_TOO_LARGE: &str = "Frame requires too much memory for decoding";

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
        Compression::Zstd => {
            let failed = |error| Error::io("start the decompression of a zstd stream", error);
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(failed)?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(failed)?;
            Box::new(Zstd(decoder))
        }
        Compression::Bzip2 => return Err(refused("bzip2", "bunzip2")),
        Compression::Xz => return Err(refused("xz", "xz -d")),
    })
}

/// Names the limit where a stream exceeds it.
struct Zstd<R>(R);

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            if error.to_string() != ZSTD_WINDOW_TOO_LARGE {
                return error;
            }
            let mib = (1_u64 << ZSTD_WINDOW_LOG_MAX) >> 20;
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the zstd stream needs a window of more than {mib} MiB: compress it without `--long` or `--ultra`"),
            )
        })
    }
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
    fn a_zstd_stream_with_a_huge_window_is_refused_by_name() {
        let compress = |window_log| {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(window_log).unwrap();
            std::io::Write::write_all(&mut encoder, &[7; 1000]).unwrap();
            std::io::Write::flush(&mut encoder).unwrap();
            encoder.finish().unwrap()
        };
        let read = |bytes: Vec<u8>| {
            let mut output = Vec::new();
            sniffed(io::Cursor::new(bytes))
                .unwrap()
                .read_to_end(&mut output)
                .map(|_| output)
        };
        assert_eq!(read(compress(25)).unwrap(), [7; 1000]);
        let error = read(compress(26)).unwrap_err().to_string();
        assert!(error.contains("more than 32 MiB"), "{error}");
    }

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
