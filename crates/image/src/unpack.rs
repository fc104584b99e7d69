//! Unpacks one layer while its archive still arrives.
//!
//! ```text
//! caller ─pieces─▶ decompress ∥ sha256 of the blob ─pieces─▶ sha256 of the archive
//!   (the first stage is left out if not compressed)    └───▶ apply beneath snapshots/ingest/N, record the recipe
//!                                                             └─ then: rebuild from what is on disk = diffID?
//! ```
//! No blob is kept, so the rebuild is checked at once, by reading back: about half a second for 500 MB, beside the
//! next layer's arrival. What fails leaves nothing; the error is told when the result is asked for, because a part of
//! an archive that no image needs may be anything.

use crate::decompress::{Compression, open};
use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::pipe::{PIECE_BYTES, Piece, PipeReader, Sender, pipe};
use gantry_api::digest::Digest;
use gantry_snapshot::apply::Applied;
use gantry_snapshot::recipe::Recorded;
use gantry_snapshot::{Ingest, Snapshots};
use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Takes a layer's archive in pieces.
pub(crate) struct Unpacker {
    outputs: Option<Vec<Sender>>,
    threads: Threads,
}

/// Says who hashes the bytes as they arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlobHash {
    Here,
    /// The caller does.
    Elsewhere,
}

struct Threads {
    blob: Option<JoinHandle<Result<Option<Digest>>>>,
    archive: JoinHandle<Result<Digest>>,
    apply: JoinHandle<Result<Applying>>,
}

struct Applying {
    ingest: Ingest,
    applied: Applied,
    recorded: Recorded,
    rebuilt: Digest,
}

/// Is a layer whose pieces have all been sent.
pub(crate) struct Unpacking {
    threads: Threads,
}

/// Is an unpacked and verified layer that has no record yet.
pub(crate) struct Unpacked {
    pub diff_id: Digest,
    /// The digest of what arrived, compressed or not, if it was to be computed.
    pub blob: Option<Digest>,
    pub ingest: Ingest,
    pub applied: Applied,
    pub recorded: Recorded,
}

impl Unpacker {
    /// Starts the threads.
    pub fn start(
        snapshots: &Snapshots,
        compression: Compression,
        blob_hash: BlobHash,
    ) -> Result<Self> {
        let (to_hash, hash_input) = pipe();
        let (to_apply, apply_input) = pipe();
        let ingest = snapshots.ingest()?;
        let archive = spawn("layer-hash", move || hash(hash_input))?;
        let apply = spawn("layer-apply", move || apply(ingest, apply_input))?;
        let (outputs, blob) = if compression == Compression::None {
            (vec![to_hash, to_apply], None)
        } else {
            let (to_blob, blob_input) = pipe();
            let blob = spawn("layer-inflate", move || {
                inflate(compression, blob_hash, blob_input, to_hash, to_apply)
            })?;
            (vec![to_blob], Some(blob))
        };
        Ok(Self {
            outputs: Some(outputs),
            threads: Threads {
                blob,
                archive,
                apply,
            },
        })
    }

    /// Sends a piece. Once something has failed the rest is taken and dropped.
    pub fn send(&mut self, piece: &Piece) {
        if let Some(outputs) = &self.outputs
            && !outputs.iter().all(|output| output.send(piece))
        {
            self.outputs = None;
        }
    }

    /// Tells whether more pieces make a difference; they do not once something has failed.
    pub fn is_wanted(&self) -> bool {
        self.outputs.is_some()
    }

    /// Gives up and waits until nothing works on it any more.
    pub fn abort(self) {
        let _ = self.into_error();
    }

    /// Gives up, waits, and tells what had failed.
    pub fn into_error(mut self) -> Option<Error> {
        // Without an end mark the readers see an error, not a complete archive.
        self.outputs = None;
        let threads = self.threads;
        Unpacking { threads }.wait().err()
    }

    /// Ends the archive; the work goes on.
    pub fn end(self) -> Unpacking {
        for output in self.outputs.into_iter().flatten() {
            output.end();
        }
        Unpacking {
            threads: self.threads,
        }
    }
}

impl Unpacking {
    /// Waits for the result.
    pub fn wait(self) -> Result<Unpacked> {
        let Threads {
            blob,
            archive,
            apply,
        } = self.threads;
        // All are joined before any error is told, so that nothing works on behind the caller's back. The first error
        // in the order of the stream is the cause of the others.
        let (blob, archive, apply) = (blob.map(join), join(archive), join(apply));
        let blob = blob.transpose()?;
        let applied = apply?;
        let diff_id = archive?;
        if applied.rebuilt != diff_id {
            return Err(Error::io(
                format!(
                    "rebuild layer `{diff_id}` from its files: got `{}`",
                    applied.rebuilt
                ),
                io::Error::from(io::ErrorKind::InvalidData),
            ));
        }
        let Applying {
            ingest,
            applied,
            recorded,
            ..
        } = applied;
        let blob = blob.unwrap_or_else(|| Some(diff_id.clone()));
        Ok(Unpacked {
            diff_id,
            blob,
            ingest,
            applied,
            recorded,
        })
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<JoinHandle<Result<T>>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|error| Error::io(format!("start thread `{name}`"), error))
}

fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| {
        Err(Error::io(
            "unpack a layer",
            io::Error::other("a thread panicked"),
        ))
    })
}

fn hash(mut input: PipeReader) -> Result<Digest> {
    let mut hasher = Hasher::default();
    while let Some(piece) = input
        .piece()
        .map_err(|error| Error::io("read layer", error))?
    {
        hasher.update(&piece);
    }
    Ok(hasher.finish())
}

fn apply(ingest: Ingest, mut input: PipeReader) -> Result<Applying> {
    let (applied, recorded) = ingest.apply(&mut input)?;
    let mut hasher = Hasher::default();
    ingest.rebuild(&mut hasher)?;
    Ok(Applying {
        ingest,
        applied,
        recorded,
        rebuilt: hasher.finish(),
    })
}

/// Decompresses, and hashes the blob to its last byte.
fn inflate(
    compression: Compression,
    blob_hash: BlobHash,
    input: PipeReader,
    to_hash: Sender,
    to_apply: Sender,
) -> Result<Option<Digest>> {
    let mut input = Hashed {
        input,
        hasher: (blob_hash == BlobHash::Here).then(Hasher::default),
    };
    let result = {
        let mut reader = open(compression, &mut input)?;
        copy(&mut *reader, |piece| {
            // Both are fed even if one has failed: the other's result may matter to the message.
            let (hashed, applied) = (to_hash.send(piece), to_apply.send(piece));
            hashed && applied
        })
    };
    match result {
        Ok(()) => {
            to_hash.end();
            to_apply.end();
        }
        Err(error) => {
            to_hash.fail(&error);
            to_apply.fail(&error);
            return Err(match error.kind() {
                io::ErrorKind::UnexpectedEof => Error::invalid("unexpected EOF"),
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
                    Error::invalid(format!("decompress layer: {error}"))
                }
                _ => Error::io("decompress layer", error),
            });
        }
    }
    io::copy(&mut input, &mut io::sink()).map_err(|error| Error::io("read layer", error))?;
    Ok(input.hasher.map(Hasher::finish))
}

/// Reads to the end in pieces, as long as they are wanted.
pub(crate) fn copy(input: &mut dyn Read, mut take: impl FnMut(&Piece) -> bool) -> io::Result<()> {
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let mut filled = 0;
        while filled < piece.len() {
            match input.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let last = filled < piece.len();
        piece.truncate(filled);
        if filled > 0 && !take(&Arc::new(piece)) || last {
            return Ok(());
        }
    }
}

struct Hashed {
    input: PipeReader,
    hasher: Option<Hasher>,
}

impl BufRead for Hashed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        if let Some(hasher) = &mut self.hasher
            && let Ok(buffer) = self.input.fill_buf()
        {
            hasher.update(&buffer[..length]);
        }
        self.input.consume(length);
    }
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..length]);
        }
        Ok(length)
    }
}
