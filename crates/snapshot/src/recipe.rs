//! Recipes: what is needed besides a layer's files to rebuild its archive byte for byte.
//!
//! ```text
//! snapshots/N/recipe      zstd stream of segments | moves | offset of moves (u64) | magic
//! snapshots/N/fs/…        the content of segments that name a file
//! snapshots/N/replaced/K  files and trees that a later entry of the same archive replaced
//! ```
//! A segment is either bytes of the archive (headers, padding, the end) or ranges of a file. A *move* says that the
//! files at and below a path, as far as earlier segments name them, are now in `replaced/K`. Integers are LEB128.
//! A recipe gives the uncompressed archive, never a compressed one. What must hold: the snapshot's files are not
//! changed after the archive was applied; a rebuild that does not match the diffID is the caller's to detect.

use crate::error::{Error, Result, show};
use crate::tar::Tee;
use gantry_sys::fs::{openat2_no_symlinks, remove_tree};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const MAGIC: &[u8; 8] = b"GANTRCP1";
const NAME: &str = "recipe";
const REPLACED: &str = "replaced";
const OP_RAW: u8 = 1;
const OP_FILE: u8 = 2;
const RAW_MAX: usize = 256 << 10;
const PATH_MAX: u64 = 1 << 20;

/// Records a recipe while an archive is applied.
pub struct Recorder {
    encoder: zstd::stream::write::Encoder<'static, File>,
    pending: Vec<u8>,
    /// Counts the segments that name a file.
    files: u64,
    moves: Vec<u8>,
    move_count: u64,
    archive_bytes: u64,
}

/// Tells what a recipe stands for.
#[derive(Clone, Copy, Debug)]
pub struct Recorded {
    /// The size of the archive that it rebuilds.
    pub archive_bytes: u64,
    /// The size of the recipe itself.
    pub recipe_bytes: u64,
}

impl Recorder {
    /// Starts the recipe of the snapshot whose directory is given.
    pub fn create(snapshot: impl AsFd) -> Result<Self> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(snapshot, NAME, flags, Mode::from_raw_mode(0o600))
            .map_err(|error| Error::io("create `recipe`", error))?;
        let encoder = zstd::stream::write::Encoder::new(File::from(file), 3)
            .map_err(|error| Error::io("start the compression of `recipe`", error))?;
        Ok(Self {
            encoder,
            pending: Vec::new(),
            files: 0,
            moves: Vec::new(),
            move_count: 0,
            archive_bytes: 0,
        })
    }

    /// Records that ranges `(offset, length)` of the file at `path` follow in the archive.
    pub(crate) fn file(&mut self, path: &[u8], ranges: &[(u64, u64)]) -> Result<()> {
        self.flush()?;
        let mut op = vec![OP_FILE];
        put(&mut op, path.len() as u64);
        op.extend_from_slice(path);
        put(&mut op, ranges.len() as u64);
        for (offset, length) in ranges {
            put(&mut op, *offset);
            put(&mut op, *length);
            self.archive_bytes += length;
        }
        self.files += 1;
        self.write(&op)
    }

    /// Records that what earlier segments name at or below `path` was moved to a new place, whose name is returned.
    pub(crate) fn moved(&mut self, path: &[u8]) -> u64 {
        put(&mut self.moves, path.len() as u64);
        self.moves.extend_from_slice(path);
        put(&mut self.moves, self.files);
        self.move_count += 1;
        self.move_count - 1
    }

    /// Writes the rest.
    pub fn finish(mut self) -> Result<Recorded> {
        self.flush()?;
        let failed = |error| Error::io("write `recipe`", error);
        let mut file = self.encoder.finish().map_err(failed)?;
        let offset = file.stream_position().map_err(failed)?;
        let mut tail = Vec::new();
        put(&mut tail, self.move_count);
        tail.extend_from_slice(&self.moves);
        tail.extend_from_slice(&offset.to_le_bytes());
        tail.extend_from_slice(MAGIC);
        file.write_all(&tail).map_err(failed)?;
        Ok(Recorded {
            archive_bytes: self.archive_bytes,
            recipe_bytes: offset + tail.len() as u64,
        })
    }

    fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut op = vec![OP_RAW];
        put(&mut op, self.pending.len() as u64);
        let pending = std::mem::take(&mut self.pending);
        self.write(&op)?;
        self.write(&pending)?;
        self.pending = pending;
        self.pending.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.encoder
            .write_all(bytes)
            .map_err(|error| Error::io("write `recipe`", error))
    }
}

impl Tee for Recorder {
    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.archive_bytes += bytes.len() as u64;
        for piece in bytes.chunks(RAW_MAX) {
            if self.pending.len() + piece.len() > RAW_MAX {
                self.flush()?;
            }
            self.pending.extend_from_slice(piece);
        }
        Ok(())
    }
}

/// Opens the directory for replaced files of a snapshot, made on first use.
pub(crate) fn replaced_directory(snapshot: BorrowedFd<'_>) -> Result<OwnedFd> {
    match rustix::fs::mkdirat(snapshot, REPLACED, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(Error::io("create `replaced`", error)),
    }
    gantry_sys::fs::open_directory(snapshot, REPLACED)
        .map_err(|error| Error::io("open `replaced`", error))
}

/// Removes a recipe and what it alone needs.
pub fn discard(snapshot: impl AsFd) -> Result<()> {
    for name in [NAME, REPLACED] {
        remove_tree(snapshot.as_fd(), name, &mut || Ok(()))
            .map_err(|error| Error::io(format!("remove `{name}`"), error))?;
    }
    Ok(())
}

/// Writes the archive of the snapshot whose directory is given, as it was when it was applied.
///
/// # Errors
/// Fails where there is no recipe, where a file is missing or has become shorter, or where `output` fails.
pub fn rebuild(snapshot: impl AsFd, output: &mut dyn Write) -> Result<()> {
    let snapshot = snapshot.as_fd();
    let failed = |error: std::io::Error| Error::io("read `recipe`", error);
    let file = rustix::fs::openat(
        snapshot,
        NAME,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| Error::io("open `recipe`", error))?;
    let mut file = File::from(file);
    let (offset, moves) = read_tail(&mut file)?;
    file.rewind().map_err(failed)?;
    let fs = gantry_sys::fs::open_directory(snapshot, "fs")
        .map_err(|error| Error::io("open `fs`", error))?;
    let mut source = Source {
        snapshot,
        fs,
        moves,
        last: None,
        buffer: vec![0; 256 << 10],
    };
    let decoder = zstd::stream::read::Decoder::new(file.take(offset)).map_err(failed)?;
    let mut recipe = BufReader::with_capacity(RAW_MAX, decoder);
    let mut ordinal = 0;
    let write_failed = |error| Error::io("write archive", error);
    loop {
        let mut op = [0];
        if recipe.read(&mut op).map_err(failed)? == 0 {
            return Ok(());
        }
        match op[0] {
            OP_RAW => {
                let mut left = get(&mut recipe)?;
                while left > 0 {
                    let buffer = recipe.fill_buf().map_err(failed)?;
                    if buffer.is_empty() {
                        return Err(corrupt());
                    }
                    let length = buffer
                        .len()
                        .min(usize::try_from(left).unwrap_or(usize::MAX));
                    output.write_all(&buffer[..length]).map_err(write_failed)?;
                    recipe.consume(length);
                    left -= length as u64;
                }
            }
            OP_FILE => {
                let length = get(&mut recipe)?;
                if length > PATH_MAX {
                    return Err(corrupt());
                }
                let mut path = vec![0; length as usize];
                recipe.read_exact(&mut path).map_err(failed)?;
                let file = source.open(&path, ordinal)?;
                ordinal += 1;
                for _ in 0..get(&mut recipe)? {
                    let (offset, length) = (get(&mut recipe)?, get(&mut recipe)?);
                    source.copy(&file, &path, offset, length, output)?;
                }
            }
            _ => return Err(corrupt()),
        }
    }
}

/// Says that files at and below `path` named by segments before `before` are in `replaced/K`.
struct Move {
    path: Vec<u8>,
    before: u64,
}

struct Source<'a> {
    snapshot: BorrowedFd<'a>,
    fs: OwnedFd,
    moves: Vec<Move>,
    /// The directory of the last file: archives list siblings together.
    last: Option<(Vec<u8>, OwnedFd)>,
    buffer: Vec<u8>,
}

impl Source<'_> {
    fn open(&mut self, path: &[u8], ordinal: u64) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY
            | OFlags::NONBLOCK
            | OFlags::NOFOLLOW
            | OFlags::NOATIME
            | OFlags::CLOEXEC;
        let missing =
            |error: std::io::Error| Error::io(format!("open `{}` of the layer", show(path)), error);
        let below = |parent: &[u8]| {
            path.strip_prefix(parent)
                .filter(|rest| rest.is_empty() || rest[0] == b'/')
        };
        let moved = self
            .moves
            .iter()
            .position(|entry| ordinal < entry.before && below(&entry.path).is_some());
        if let Some(number) = moved {
            let rest = below(&self.moves[number].path).unwrap_or_default();
            let place = [format!("{REPLACED}/{number}").as_bytes(), rest].concat();
            return openat2_no_symlinks(self.snapshot, place.as_slice(), flags, Mode::empty())
                .map_err(missing);
        }
        let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => {
                return rustix::fs::openat(&self.fs, path, flags, Mode::empty())
                    .map_err(|e| missing(e.into()));
            }
        };
        if self.last.as_ref().is_none_or(|(last, _)| last != directory) {
            let open = openat2_no_symlinks(
                &self.fs,
                directory,
                OFlags::PATH | OFlags::DIRECTORY,
                Mode::empty(),
            );
            self.last = Some((directory.to_vec(), open.map_err(missing)?));
        }
        let parent = self.last.as_ref().map_or(&self.fs, |(_, open)| open);
        rustix::fs::openat(parent, name, flags, Mode::empty())
            .map_err(|error| missing(error.into()))
    }

    fn copy(
        &mut self,
        file: &OwnedFd,
        path: &[u8],
        offset: u64,
        length: u64,
        output: &mut dyn Write,
    ) -> Result<()> {
        let mut position = offset;
        let end = offset.checked_add(length).ok_or_else(corrupt)?;
        while position < end {
            let want = self
                .buffer
                .len()
                .min(usize::try_from(end - position).unwrap_or(usize::MAX));
            let read = rustix::io::pread(file, &mut self.buffer[..want], position)
                .map_err(|error| Error::io(format!("read `{}` of the layer", show(path)), error))?;
            if read == 0 {
                let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                return Err(Error::io(
                    format!("read `{}` of the layer", show(path)),
                    error,
                ));
            }
            output
                .write_all(&self.buffer[..read])
                .map_err(|error| Error::io("write archive", error))?;
            position += read as u64;
        }
        Ok(())
    }
}

fn read_tail(file: &mut File) -> Result<(u64, Vec<Move>)> {
    let failed = |error: std::io::Error| Error::io("read `recipe`", error);
    let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
    let mut end = [0; 16];
    let tail_at = size.checked_sub(16).ok_or_else(corrupt)?;
    file.seek(SeekFrom::Start(tail_at)).map_err(failed)?;
    file.read_exact(&mut end).map_err(failed)?;
    let (number, magic) = end.split_at(8);
    let offset = u64::from_le_bytes(number.try_into().map_err(|_| corrupt())?);
    if magic != MAGIC || offset > tail_at {
        return Err(corrupt());
    }
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut tail = vec![0; (tail_at - offset) as usize];
    file.read_exact(&mut tail).map_err(failed)?;
    let mut tail = tail.as_slice();
    let mut moves = Vec::new();
    for _ in 0..get(&mut tail)? {
        let length = get(&mut tail)? as usize;
        let path = tail.get(..length).ok_or_else(corrupt)?.to_vec();
        tail = &tail[length..];
        moves.push(Move {
            path,
            before: get(&mut tail)?,
        });
    }
    Ok((offset, moves))
}

fn corrupt() -> Error {
    Error::io(
        "read `recipe`",
        std::io::Error::from(std::io::ErrorKind::InvalidData),
    )
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn get(reader: &mut impl Read) -> Result<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        reader
            .read_exact(&mut byte)
            .map_err(|error| Error::io("read `recipe`", error))?;
        number |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(corrupt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            assert_eq!(get(&mut bytes.as_slice()).unwrap(), number);
        }
    }
}
