//! gzip members (RFC 1952) by Intel's ISA-L, with the same bytes each time.
//!
//! ISA-L's assembler for level 1 hashes a wrong register at the third byte of a stream that has no history yet: it holds
//! the address of the stream object (`igzip_icf_body_h1_gr_bt.asm`, label `.write_first_byte`, as of 2.31). The entry that
//! this leaves in the table of matches is mostly harmless, yet once in some thousand blocks it stands where a real one is
//! looked for, and another match is found. The output is right either way, but a digest of it is not the same in the
//! next process. Another routine, which ends what is flushed, begins a history without that mistake, and the fast one
//! leaves it everything up to [`FIRST_BYTES`]. So these go first and alone, and are flushed.
#![expect(unsafe_code, reason = "ISA-L is assembler and C")]

use std::io;

use isal_sys::igzip_lib as isal;

/// How many bytes of a block are flushed ahead of the others: what the fast routine leaves to the last one of what is
/// flushed (`MIN_INBUF_PADDING` in ISA-L).
const FIRST_BYTES: usize = 16;
/// The level: some 10 % larger than what Go's compressor makes by default, at twelve times its speed.
const LEVEL: u32 = 1;
/// What a member may be larger than its block: what does not shrink is stored in blocks of up to 64 KiB with a head of
/// five bytes each; the first bytes are a block of their own, and the member has a head and a tail.
const BOUND_BYTES: usize = 4096;

/// Compresses blocks, one after the other.
pub struct Deflater {
    stream: Box<isal::isal_zstream>,
    /// Where ISA-L keeps matches and symbols; the stream points to it during a call.
    level_buffer: Vec<u8>,
}

impl Default for Deflater {
    fn default() -> Self {
        Self::new()
    }
}

impl Deflater {
    /// Takes the memory that compressing needs, some 360 KiB.
    #[must_use]
    pub fn new() -> Self {
        // SAFETY: the struct consists of integers, arrays of them and raw pointers, for all of which zeros are a value.
        let stream = unsafe { Box::<isal::isal_zstream>::new_zeroed().assume_init() };
        Self {
            stream,
            level_buffer: vec![0; isal::ISAL_DEF_LVL1_DEFAULT as usize],
        }
    }

    /// Gives the most bytes that a member of a block of `length` bytes can have.
    #[must_use]
    pub fn bound(length: usize) -> usize {
        length + BOUND_BYTES
    }

    /// Compresses a block to one member at the start of `output`; gives the member's length.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a block of 4 GiB and more, [`io::ErrorKind::WriteZero`] where `output` is too
    /// short, which it is not with [`Deflater::bound`] bytes.
    pub fn gzip_member(&mut self, block: &[u8], output: &mut [u8]) -> io::Result<usize> {
        if u32::try_from(block.len()).is_err() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a block to compress has 4 GiB or more",
            ));
        }
        let room = output.len().min(u32::MAX as usize);
        let output = &mut output[..room];
        let stream = &mut *self.stream;
        // SAFETY: `stream` is a stream object of the library's layout, which this initialises.
        unsafe { isal::isal_deflate_init(stream) };
        stream.level = LEVEL;
        stream.level_buf = self.level_buffer.as_mut_ptr();
        stream.level_buf_size = self.level_buffer.len() as u32;
        stream.gzip_flag = isal::IGZIP_GZIP as u16;
        stream.next_out = output.as_mut_ptr();
        stream.avail_out = output.len() as u32;
        let (first, rest) = block.split_at(block.len().min(FIRST_BYTES));
        if rest.is_empty() {
            stream.end_of_stream = 1;
            pass(stream, first)?;
        } else {
            stream.flush = isal::SYNC_FLUSH as u16;
            pass(stream, first)?;
            stream.flush = isal::NO_FLUSH as u16;
            stream.end_of_stream = 1;
            pass(stream, rest)?;
        }
        let length = stream.total_out as usize;
        if stream.internal_state.state == isal::isal_zstate_state_ZSTATE_END {
            Ok(length)
        } else {
            Err(io::Error::new(
                io::ErrorKind::WriteZero,
                "a compressed block is longer than its buffer",
            ))
        }
    }
}

/// Has bytes compressed to where the stream points.
fn pass(stream: &mut isal::isal_zstream, input: &[u8]) -> io::Result<()> {
    // The library does not write to it.
    stream.next_in = input.as_ptr().cast_mut();
    stream.avail_in = input.len() as u32;
    // SAFETY: the stream was initialised. `next_in` and `avail_in` are of a slice that lives through the call, `next_out`
    // and `avail_out` were set from one and are kept by the library, `level_buf` and its size are those of the deflater's
    // buffer. What the library keeps of the input beyond the call it has copied into the stream.
    let code = unsafe { isal::isal_deflate(stream) };
    if code == isal::COMP_OK as i32 {
        Ok(())
    } else {
        Err(io::Error::other(format!("ISA-L fails with code {code}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn inflate(member: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(member);
        decoder.read_to_end(&mut bytes).unwrap();
        assert!(decoder.into_inner().is_empty());
        bytes
    }

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        });
        words.take(length).collect()
    }

    fn member(deflater: &mut Deflater, block: &[u8]) -> Vec<u8> {
        let mut output = vec![0; Deflater::bound(block.len())];
        let length = deflater.gzip_member(block, &mut output).unwrap();
        output.truncate(length);
        output
    }

    #[test]
    fn the_bytes_do_not_depend_on_where_the_memory_lies() {
        let mut deflaters: Vec<Deflater> = (0..64).map(|_| Deflater::new()).collect();
        for seed in 0..200 {
            // What the block begins with comes again, so that the first entries of the table matter. Short blocks have a
            // small table, in which entries meet more often.
            let head = noise(seed, 40);
            let block = [&head[..], &noise(seed + 1000, 100), &head[..20], &[7; 300]].concat();
            let expected = member(&mut deflaters[0], &block);
            assert_eq!(inflate(&expected), block);
            for deflater in &mut deflaters[1..] {
                assert!(member(deflater, &block) == expected, "{seed}");
            }
        }
    }

    #[test]
    fn every_length_comes_back() {
        let mut deflater = Deflater::new();
        let text: Vec<u8> = (0..200_000_u32)
            .flat_map(|word| (word % 977).to_string().into_bytes())
            .collect();
        let lengths = (0..600).chain([32_767, 65_535, 65_536, 65_537, 131_073, text.len()]);
        for length in lengths {
            for input in [&text[..length], &noise(9, length), &vec![0; length]] {
                let member = member(&mut deflater, input);
                assert!(inflate(&member) == input, "{length}");
                assert!(member.len() <= Deflater::bound(length));
            }
        }
    }

    #[test]
    fn noise_fits_into_the_bound_and_less_room_is_refused() {
        let mut deflater = Deflater::new();
        let input = noise(3, 1 << 20);
        let whole = member(&mut deflater, &input);
        assert!(whole.len() > input.len() && inflate(&whole) == input);
        for room in [0, 1, 30, 1000, whole.len() - 1] {
            let error = deflater
                .gzip_member(&input, &mut vec![0; room])
                .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WriteZero, "{room}");
        }
        assert!(member(&mut deflater, &input) == whole);
    }
}
