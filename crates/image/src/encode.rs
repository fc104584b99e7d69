//! Compresses layers for registries: on all cores, in bounded memory, with the same bytes whatever the number of cores.
//!
//! ```text
//! writer ─block n─▶ worker n mod w ─compressed─▶ collector: in order, sha256, out
//!    ▲                    │
//!    └──────emptied───────┘      what came out returns to its worker as well, when nobody reads it any more
//! ```
//! Buffers go round because the allocator maps and unmaps large ones each time, which costs more than a checksum of them.
//! gzip: each block of 1 MiB is a member (RFC 1952, section 2.2), as estargz has them. zstd: each block of 4 MiB is a frame.
//! Workers are served in turn, so nothing depends on which is faster.
//!
//! gzip is made by ISA-L, which takes the instructions that the processor has, and finds other matches with some of them.
//! So the encoder's name carries a digest of what it makes of a sample: where a store moves to another kind of processor,
//! the encoder is another one.

use crate::error::{Error, Result};
use crate::hash::Hasher;
use bytes::Bytes;
use gantry_api::digest::Digest;
use gantry_api::oci::image::media_type;
use gantry_deflate::Deflater;
use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Is how the layers that are made for a registry are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    None,
    #[default]
    Gzip,
    Zstd,
}

/// More threads than this would wait for the one that reads.
const WORKERS_MAX: usize = 16;
/// Large enough that each way of finding matches shows.
const SAMPLE_BYTES: usize = 256 << 10;
/// How many bytes of blocks the workers of all encoders may hold; beyond it each encoder still has one worker.
const BLOCKS_BYTES_MAX: usize = 96 << 20;
/// How many blocks a worker holds: one that waits, one in work, one that came out.
const BLOCKS_EACH: usize = 3;
const ZSTD_LEVEL: i32 = 3;

impl Compression {
    /// Names the encoder and what its bytes depend on.
    pub(crate) fn encoder(self) -> Cow<'static, str> {
        match self {
            Self::None => Cow::Borrowed("none"),
            Self::Gzip => Cow::Owned(format!(
                "gzip/4 isa-l level 1 members of 1 MiB, {}",
                *MATCHES
            )),
            Self::Zstd => Cow::Borrowed("zstd/1 zstd-1.5 level 3 frames of 4 MiB"),
        }
    }

    /// Gives the media type of a layer.
    pub(crate) fn layer_type(self) -> &'static str {
        match self {
            Self::None => media_type::LAYER,
            Self::Gzip => media_type::DOCKER_LAYER_GZIP,
            Self::Zstd => media_type::LAYER_ZSTD,
        }
    }

    /// Tells whether a layer of this media type is compressed so.
    pub(crate) fn is_of(self, kind: &str) -> bool {
        let is_gzip = kind.ends_with("gzip");
        let is_zstd = kind.ends_with("zstd");
        match self {
            Self::None => !is_gzip && !is_zstd,
            Self::Gzip => is_gzip,
            Self::Zstd => is_zstd,
        }
    }

    fn block_bytes(self) -> usize {
        match self {
            Self::None | Self::Gzip => 1 << 20,
            Self::Zstd => 4 << 20,
        }
    }
}

/// Tells apart processors with which ISA-L gives other bytes, and its versions that do.
static MATCHES: LazyLock<String> = LazyLock::new(|| {
    let mut member = vec![0; Deflater::bound(SAMPLE_BYTES)];
    match Deflater::new().gzip_member(&sample(SAMPLE_BYTES), &mut member) {
        Ok(length) => crate::hash::sha256(&member[..length]).hex()[..16].to_owned(),
        Err(_) => "fails".to_owned(),
    }
});

/// Makes text-like bytes that repeat over long and short distances, with noise between them.
fn sample(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(length + 64);
    while bytes.len() < length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(7);
        let word = (state >> 40) % 5000;
        bytes.extend_from_slice(format!("word{word} ").as_bytes());
        if word.is_multiple_of(64) {
            bytes.extend_from_slice(&state.to_le_bytes());
        }
    }
    bytes.truncate(length);
    bytes
}

/// Makes a buffer long enough. A new one comes from calloc(3), so that only the pages that are written take memory.
fn make_room(output: &mut Vec<u8>, length: usize) {
    if output.len() < length {
        *output = vec![0; length];
    }
}

/// Is a buffer that returns to its worker when it is dropped.
struct Returning {
    bytes: Vec<u8>,
    home: Sender<Vec<u8>>,
}

impl AsRef<[u8]> for Returning {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        // Without a worker at home it goes for good.
        let _ = self.home.send(std::mem::take(&mut self.bytes));
    }
}

/// Is what came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub digest: Digest,
    pub size_bytes: u64,
    /// The digest of what went in.
    pub diff_id: Digest,
}

struct Job {
    block: Vec<u8>,
    is_first: bool,
    is_last: bool,
}

struct Compressed {
    bytes: Bytes,
    is_last: bool,
}

/// Is where the compressed bytes go; an error ends the encoding.
pub(crate) type Output = Box<dyn FnMut(Bytes) -> io::Result<()> + Send>;

/// Compresses what is written.
pub(crate) struct Encoder {
    compression: Compression,
    block: Vec<u8>,
    waiting: Option<Vec<u8>>,
    inputs: Vec<SyncSender<Job>>,
    emptied: Receiver<Vec<u8>>,
    next: usize,
    hasher: Hasher,
    workers: Vec<JoinHandle<io::Result<()>>>,
    collector: JoinHandle<io::Result<(Digest, u64)>>,
    /// Held until all threads have ended.
    share: Option<Share>,
}

/// What the workers of all encoders hold now.
static SHARED: Pool = Pool {
    bytes: Mutex::new(0),
};

/// Counts what workers hold, over all encoders of the process.
struct Pool {
    bytes: Mutex<usize>,
}

/// Is an encoder's part of the pool, given back when it ends.
struct Share {
    pool: &'static Pool,
    bytes: usize,
    workers: usize,
}

impl Pool {
    /// Takes what is free for up to `wanted` workers, and for one in any case, so that no encoder waits for another.
    fn take(&'static self, compression: Compression, wanted: usize) -> Share {
        let each = compression.block_bytes() * BLOCKS_EACH;
        let mut held = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let free = BLOCKS_BYTES_MAX.saturating_sub(*held) / each;
        let workers = wanted.min(free).max(1);
        let bytes = workers * each;
        *held += bytes;
        Share {
            pool: self,
            bytes,
            workers,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let held = self.pool.bytes.lock();
        *held.unwrap_or_else(PoisonError::into_inner) -= self.bytes;
    }
}

impl Encoder {
    /// Starts the threads.
    pub fn start(compression: Compression, output: Output) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let share = SHARED.take(compression, cores.min(WORKERS_MAX));
        let mut encoder = Self::with_workers(compression, share.workers, output)?;
        encoder.share = Some(share);
        Ok(encoder)
    }

    fn with_workers(compression: Compression, count: usize, output: Output) -> Result<Self> {
        let (mut inputs, mut outputs, mut workers) = (Vec::new(), Vec::new(), Vec::new());
        let (empties, emptied) = channel();
        for _ in 0..count.max(1) {
            let (input, jobs) = sync_channel(1);
            let (done, compressed) = sync_channel(1);
            inputs.push(input);
            outputs.push(compressed);
            let empties = empties.clone();
            workers.push(spawn("layer-deflate", move || {
                work(compression, &jobs, &done, &empties)
            })?);
        }
        let collector = spawn("layer-collect", move || collect(&outputs, output))?;
        Ok(Self {
            compression,
            block: Vec::with_capacity(compression.block_bytes()),
            waiting: None,
            inputs,
            emptied,
            next: 0,
            hasher: Hasher::default(),
            workers,
            collector,
            share: None,
        })
    }

    /// Ends the stream and waits for the rest of it.
    pub fn finish(mut self) -> Result<Encoded> {
        let failed = |error| Error::io("compress a layer", error);
        let block = std::mem::take(&mut self.block);
        let ended = self.submit_waiting(false).and_then(|()| {
            self.waiting = Some(block);
            self.submit_waiting(true)
        });
        let Self {
            inputs,
            workers,
            collector,
            hasher,
            share,
            ..
        } = self;
        drop(inputs);
        let collected = join(collector);
        for worker in workers {
            join(worker).map_err(failed)?;
        }
        drop(share);
        // The collector's error is the cause of what the others met.
        let (digest, size_bytes) = collected.map_err(failed)?;
        ended.map_err(failed)?;
        Ok(Encoded {
            digest,
            size_bytes,
            diff_id: hasher.finish(),
        })
    }

    /// Gives the block that waits to a worker; it waits until it is known whether it is the last.
    fn submit_waiting(&mut self, is_last: bool) -> io::Result<()> {
        let Some(block) = self.waiting.take() else {
            return Ok(());
        };
        let job = Job {
            block,
            is_first: self.next == 0,
            is_last,
        };
        let worker = self.next % self.inputs.len();
        self.next += 1;
        self.inputs[worker]
            .send(job)
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

impl Write for Encoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = self.compression.block_bytes();
        let length = bytes.len().min(size - self.block.len());
        self.hasher.update(&bytes[..length]);
        self.block.extend_from_slice(&bytes[..length]);
        if self.block.len() == size {
            self.submit_waiting(false)?;
            let empty = self.emptied.try_recv();
            let empty = empty.unwrap_or_else(|_| Vec::with_capacity(size));
            self.waiting = Some(std::mem::replace(&mut self.block, empty));
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn work(
    compression: Compression,
    jobs: &Receiver<Job>,
    done: &SyncSender<Compressed>,
    empties: &Sender<Vec<u8>>,
) -> io::Result<()> {
    let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    zstd.include_checksum(true)?;
    let mut deflater = Deflater::new();
    let (home, returned) = channel::<Vec<u8>>();
    while let Ok(job) = jobs.recv() {
        let Job {
            mut block,
            is_first,
            is_last,
        } = job;
        // An empty layer needs its one member or frame; an empty rest behind others needs none.
        let bytes = if compression == Compression::None || (block.is_empty() && !is_first) {
            Bytes::from(block)
        } else {
            let mut output = returned.try_recv().unwrap_or_default();
            let length = match compression {
                Compression::Zstd => {
                    make_room(&mut output, zstd::zstd_safe::compress_bound(block.len()));
                    zstd.compress_to_buffer(&block, &mut output[..])?
                }
                Compression::None | Compression::Gzip => {
                    make_room(&mut output, Deflater::bound(block.len()));
                    deflater.gzip_member(&block, &mut output)?
                }
            };
            block.clear();
            let _ = empties.send(block);
            let home = home.clone();
            let bytes = output;
            Bytes::from_owner(Returning { bytes, home }).slice(..length)
        };
        if done.send(Compressed { bytes, is_last }).is_err() {
            break;
        }
    }
    Ok(())
}

fn collect(outputs: &[Receiver<Compressed>], mut output: Output) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::default();
    let mut size = 0;
    for number in 0.. {
        let compressed = outputs[number % outputs.len()].recv();
        // The writer has gone without an end.
        let compressed = compressed.map_err(|_| io::ErrorKind::UnexpectedEof)?;
        hasher.update(&compressed.bytes);
        size += compressed.bytes.len() as u64;
        output(compressed.bytes)?;
        if compressed.is_last {
            break;
        }
    }
    Ok((hasher.finish(), size))
}

fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<JoinHandle<io::Result<T>>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|error| Error::io(format!("start thread `{name}`"), error))
}

fn join<T>(thread: JoinHandle<io::Result<T>>) -> io::Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decompress;
    use std::io::Read;
    use std::sync::Arc;

    fn encode(compression: Compression, workers: usize, input: &[u8]) -> (Vec<u8>, Encoded) {
        let output = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&output);
        let write = Box::new(move |bytes: Bytes| {
            sink.lock().unwrap().extend_from_slice(&bytes);
            Ok(())
        });
        let mut encoder = Encoder::with_workers(compression, workers, write).unwrap();
        encoder.write_all(input).unwrap();
        let encoded = encoder.finish().unwrap();
        let output = std::mem::take(&mut *output.lock().unwrap());
        (output, encoded)
    }

    #[test]
    fn every_length_comes_back_and_the_bytes_do_not_depend_on_the_cores() {
        for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
            let block = compression.block_bytes();
            for length in [0, 1, block - 1, block, block + 1, 3 * block, 5 * block + 17] {
                let input = sample(length);
                let (one, encoded) = encode(compression, 1, &input);
                for workers in [2, 3, 7] {
                    assert_eq!(encode(compression, workers, &input).0, one);
                }
                assert_eq!(encoded.digest, crate::hash::sha256(&one));
                assert_eq!(encoded.diff_id, crate::hash::sha256(&input));
                assert_eq!(encoded.size_bytes, one.len() as u64);
                let mut back = Vec::new();
                let mut reader = decompress::sniffed(one.as_slice()).unwrap();
                reader.read_to_end(&mut back).unwrap();
                assert!(back == input, "{compression:?} {length}");
            }
        }
    }

    #[test]
    fn encoders_share_their_memory_and_none_waits() {
        static POOL: Pool = Pool {
            bytes: Mutex::new(0),
        };
        let shares: Vec<Share> = (0..5).map(|_| POOL.take(Compression::Zstd, 16)).collect();
        let workers: Vec<usize> = shares.iter().map(|share| share.workers).collect();
        assert_eq!(workers, [8, 1, 1, 1, 1]);
        drop(shares);
        assert_eq!(POOL.take(Compression::Gzip, 16).workers, 16);
        assert_eq!(*POOL.bytes.lock().unwrap(), 0);
    }

    #[test]
    fn incompressible_blocks_come_back() {
        let mut state = 9_u64;
        let input: Vec<u8> = (0..3 << 20)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 24) as u8
            })
            .collect();
        let (output, _) = encode(Compression::Gzip, 2, &input);
        let mut back = Vec::new();
        let mut reader = flate2::read::MultiGzDecoder::new(output.as_slice());
        reader.read_to_end(&mut back).unwrap();
        assert!(back == input);
    }

    #[test]
    fn a_failing_output_ends_the_encoding() {
        let write = Box::new(|_: Bytes| Err(io::Error::other("gone")));
        let mut encoder = Encoder::with_workers(Compression::Gzip, 2, write).unwrap();
        let written = encoder.write_all(&sample(32 << 20));
        let finished = encoder.finish();
        assert!(written.is_err());
        assert!(finished.unwrap_err().to_string().contains("gone"));
    }
}
