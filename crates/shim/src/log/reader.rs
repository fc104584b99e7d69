//! Reads a container's log back: all files in order, from the tail, between two times, and on from a position.
//!
//! A [`Reader`] opens every file at once and keeps them by descriptor, so a rotation moves nothing under it. It never
//! blocks: at the end it says [`Progress::CaughtUp`], and a follower calls [`Reader::read`] again when the directory or
//! the file has changed (inotify, or a timer). If the writer has removed files that a slow follower had not reached, the
//! output gets one line that says so ([`GAP`]) and [`Reader::gaps`] counts it.
//!
//! Output is one multiplexed frame per line (8 bytes: stream, three zeros, length in big endian) or raw bytes.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;

use super::{LINE_BYTES_MAX, Position, Stream, compress, generation, json, local, rotated, time};
use crate::protocol::LogDriver;

/// The line that stands where lines are missing.
pub const GAP: &str =
    "[gantry: the log was rotated faster than it was read; lines are missing here]\n";
/// How much is read at once.
const BLOCK_BYTES: usize = 256 << 10;
/// A record is never longer (a piece of a line, each byte escaped to six, and its attributes): beyond this a buffer
/// without an end of record is junk and skipped.
const RECORD_BYTES_MAX: usize = LINE_BYTES_MAX * 6 + (1 << 20);
/// Rotated files are looked for until this many in a row are missing.
const MISSING_MAX: u32 = 3;

/// What to read, and how to write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub stdout: bool,
    pub stderr: bool,
    /// Lines before this time (Unix nanoseconds) are left out.
    pub since_ns: Option<i64>,
    /// The first line after this time ends the reading.
    pub until_ns: Option<i64>,
    /// Only the last so many lines of what is there at first, counted over both streams before any other choice.
    pub tail: Option<u64>,
    /// Each line begins with its time and a space.
    pub timestamps: bool,
    /// Each line has its attributes before the text: `k=v,k=v `.
    pub details: bool,
    /// Frames, as opposed to raw bytes.
    pub multiplexed: bool,
}

impl Options {
    /// Returns the options that give everything as frames.
    pub fn everything() -> Self {
        Options {
            stdout: true,
            stderr: true,
            since_ns: None,
            until_ns: None,
            tail: None,
            timestamps: false,
            details: false,
            multiplexed: true,
        }
    }
}

/// What [`Reader::read`] has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The output is full; there is more.
    More,
    /// Everything that is written so far is read.
    CaughtUp,
    /// A line after `until` was met: there is no more to come.
    Done,
}

enum Input {
    Plain(File),
    Gzip(Box<GzDecoder<BufReader<File>>>),
}

/// One file of the log.
struct Source {
    input: Input,
    generation: u64,
    /// Where the next read of a plain file begins.
    read_at: u64,
    /// Where the next record begins.
    offset: u64,
    /// The file was seen to be rotated away: what it holds now is all that it will.
    sealed: bool,
}

/// Reads one container's log.
pub struct Reader {
    driver: LogDriver,
    path: PathBuf,
    options: Options,
    /// The file that is read comes first.
    sources: VecDeque<Source>,
    /// Where reading goes on when there was no file yet.
    last: Position,
    buffer: Vec<u8>,
    start: usize,
    details: (Vec<u8>, Vec<u8>),
    text: Vec<u8>,
    gaps: u64,
    done: bool,
}

impl Reader {
    /// Opens the log at `path` from its oldest line or its tail on. A log that does not exist yet is empty.
    pub fn open(driver: LogDriver, path: &Path, options: Options) -> io::Result<Self> {
        let mut reader = Reader::empty(driver, path, options);
        reader.sources = open_all(path, None)?.0;
        if let Some(tail) = reader.options.tail {
            reader.seek_tail(tail)?;
        } else if let Some(since_ns) = reader.options.since_ns {
            // A file whose last change is older holds nothing that is asked for.
            while reader.sources.len() > 1 && reader.sources[0].changed_ns()? < since_ns {
                reader.sources.pop_front();
            }
        }
        reader.options.tail = None;
        Ok(reader)
    }

    /// Opens the log behind `position`. If its file is gone, a gap is told and reading begins with the oldest.
    pub fn open_at(
        driver: LogDriver,
        path: &Path,
        options: Options,
        position: Position,
    ) -> io::Result<Self> {
        let mut reader = Reader::empty(driver, path, options);
        reader.last = position;
        if position.generation == 0 {
            reader.sources = open_all(path, None)?.0;
            return Ok(reader);
        }
        let (sources, found) = open_all(path, Some(position.generation))?;
        reader.sources = sources;
        if found {
            if let Some(source) = reader.sources.front_mut() {
                source.skip_to(position.offset)?;
            }
        } else {
            reader.gaps = 1;
        }
        Ok(reader)
    }

    fn empty(driver: LogDriver, path: &Path, options: Options) -> Self {
        Reader {
            driver,
            path: path.to_path_buf(),
            options,
            sources: VecDeque::new(),
            last: Position::default(),
            buffer: Vec::new(),
            start: 0,
            details: (Vec::new(), Vec::new()),
            text: Vec::new(),
            gaps: 0,
            done: false,
        }
    }

    /// Returns the place behind the last record that was read: where another reader can go on.
    pub fn position(&self) -> Position {
        self.sources.front().map_or(self.last, |source| Position {
            generation: source.generation,
            offset: source.offset,
        })
    }

    /// Returns how often lines were missing.
    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Appends lines to `out` until it holds `limit` bytes (one line may go beyond) or there are no more.
    pub fn read(&mut self, out: &mut Vec<u8>, limit: usize) -> io::Result<Progress> {
        if self.driver == LogDriver::None {
            return Ok(Progress::CaughtUp);
        }
        if self.gaps > 0
            && self
                .sources
                .front()
                .is_some_and(|source| source.offset == 0)
            && self.start == 0
        {
            // Told once by `open_at`; later gaps are told where they are found.
            if self.buffer.is_empty() && self.last.generation != 0 {
                self.last = Position::default();
                self.push_gap(out);
            }
        }
        loop {
            if self.done {
                return Ok(Progress::Done);
            }
            self.drain(out, limit);
            if self.done {
                continue;
            }
            if out.len() >= limit {
                return Ok(Progress::More);
            }
            if self.fill()? {
                continue;
            }
            // At the end of the file: is it still the one that is written?
            if !self.advance(out)? {
                return Ok(Progress::CaughtUp);
            }
        }
    }

    /// Reads more of the current file; `false` at its end.
    fn fill(&mut self) -> io::Result<bool> {
        let Some(source) = self.sources.front_mut() else {
            return Ok(false);
        };
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let kept = self.buffer.len();
        self.buffer.resize(kept + BLOCK_BYTES, 0);
        let result = source.read(&mut self.buffer[kept..]);
        self.buffer.truncate(kept + *result.as_ref().unwrap_or(&0));
        if self.buffer.is_empty() {
            // A follower that waits holds no buffer.
            self.buffer = Vec::new();
        }
        let count = match result {
            // A file compressed by a program that was killed: what could be read was read.
            Err(error)
                if matches!(source.input, Input::Gzip(_))
                    && error.kind() != io::ErrorKind::Interrupted =>
            {
                0
            }
            other => other?,
        };
        Ok(count > 0)
    }

    /// Goes on to the next file if the current one gets no more lines; `false` if there is nothing to go on to.
    fn advance(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let Some(first) = self.sources.front() else {
            self.sources = open_all(&self.path, None)?.0;
            return Ok(!self.sources.is_empty());
        };
        let (generation_read, sealed) = (first.generation, first.sealed);
        if self.sources.len() == 1 && !sealed {
            let current = match File::open(&self.path) {
                Ok(file) => generation(&file)?,
                // Between the two renames of a rotation, or removed with its container.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            };
            let source = &mut self.sources[0];
            if current == source.generation {
                return source.was_truncated(&mut self.buffer);
            }
            // Lines may have been added between our end of file and the rotation: read once more.
            source.sealed = true;
            return Ok(true);
        }
        if self.sources.len() == 1 {
            let (mut newer, found) = open_all(&self.path, Some(generation_read))?;
            if found {
                newer.pop_front();
            } else {
                self.gaps += 1;
                self.push_gap(out);
            }
            if newer.is_empty() {
                return Ok(false);
            }
            self.sources = newer;
        } else {
            self.sources.pop_front();
        }
        // A torn end of the file that is left is no record.
        self.buffer.clear();
        self.start = 0;
        Ok(true)
    }

    /// Converts whole records of the buffer.
    fn drain(&mut self, out: &mut Vec<u8>, limit: usize) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut used = 0;
        while out.len() < limit && !self.done {
            let rest = &buffer[self.start..];
            let length = match self.driver {
                LogDriver::JsonFile => memchr::memchr(b'\n', rest).map(|at| at + 1),
                _ => local::record_length(rest),
            };
            match length {
                Some(length) => {
                    match self.driver {
                        LogDriver::JsonFile => self.json_record(&rest[..length - 1], out),
                        _ => self.local_record(&rest[..length], out),
                    }
                    self.start += length;
                    used += length;
                }
                None if rest.len() > RECORD_BYTES_MAX => {
                    used += rest.len();
                    self.start = buffer.len();
                    break;
                }
                None => break,
            }
        }
        if let Some(source) = self.sources.front_mut() {
            source.offset += used as u64;
        }
        self.buffer = buffer;
    }

    fn json_record(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(record) = json::parse(line) else {
            return;
        };
        let needs_time = self.options.since_ns.is_some()
            || self.options.until_ns.is_some()
            || self.options.timestamps;
        let unix_ns = if needs_time {
            time::parse(&record.time).unwrap_or(0)
        } else {
            0
        };
        if !self.wanted(record.stream, unix_ns) {
            return;
        }
        if self.options.details && self.details.0 != *record.attrs {
            self.details = (record.attrs.to_vec(), details_text(&record.attrs));
        }
        if !record.escaped {
            self.push_line(out, record.stream, unix_ns, &record.text, record.newline);
            return;
        }
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        json::push_unescaped(&mut text, &record.text);
        self.push_line(out, record.stream, unix_ns, &text, record.newline);
        self.text = text;
    }

    fn local_record(&mut self, record: &[u8], out: &mut Vec<u8>) {
        let Some(record) = local::parse(record) else {
            return;
        };
        if self.wanted(record.stream, record.unix_ns) {
            self.push_line(
                out,
                record.stream,
                record.unix_ns,
                record.text,
                record.newline,
            );
        }
    }

    fn wanted(&mut self, stream: Stream, unix_ns: i64) -> bool {
        if self.options.since_ns.is_some_and(|since| unix_ns < since) {
            return false;
        }
        if self.options.until_ns.is_some_and(|until| unix_ns > until) {
            self.done = true;
            return false;
        }
        match stream {
            Stream::Stdout => self.options.stdout,
            Stream::Stderr => self.options.stderr,
        }
    }

    fn push_line(
        &self,
        out: &mut Vec<u8>,
        stream: Stream,
        unix_ns: i64,
        text: &[u8],
        newline: bool,
    ) {
        let start = out.len();
        if self.options.multiplexed {
            out.extend_from_slice(&[stream.number(), 0, 0, 0, 0, 0, 0, 0]);
        }
        let content = out.len();
        if self.options.timestamps {
            time::push_rfc3339_fixed(out, unix_ns);
            out.push(b' ');
        }
        if self.options.details {
            out.extend_from_slice(&self.details.1);
            out.push(b' ');
        }
        out.extend_from_slice(text);
        if newline {
            out.push(b'\n');
        }
        if self.options.multiplexed {
            let length = ((out.len() - content) as u32).to_be_bytes();
            out[start + 4..start + 8].copy_from_slice(&length);
        }
    }

    fn push_gap(&self, out: &mut Vec<u8>) {
        if self.options.multiplexed {
            out.extend_from_slice(&[Stream::Stderr.number(), 0, 0, 0]);
            out.extend_from_slice(&(GAP.len() as u32).to_be_bytes());
        }
        out.extend_from_slice(GAP.as_bytes());
    }

    /// Leaves only the last `tail` lines before reading begins.
    fn seek_tail(&mut self, tail: u64) -> io::Result<()> {
        let mut wanted = tail;
        for index in (0..self.sources.len()).rev() {
            let (found, offset) = match (&self.sources[index].input, self.driver) {
                (Input::Plain(file), LogDriver::Local) => tail_local(file, wanted)?,
                (Input::Plain(file), _) => tail_json(file, wanted)?,
                (Input::Gzip(_), _) => self.tail_gzip(index, wanted)?,
            };
            wanted -= found;
            if wanted == 0 {
                self.sources.drain(..index);
                return self.sources[0].skip_to(offset);
            }
        }
        Ok(())
    }

    /// Counts the records of a compressed file; it is read again from the start afterwards.
    fn tail_gzip(&mut self, index: usize, wanted: u64) -> io::Result<(u64, u64)> {
        let mut counter = self.sources[index].reopened()?;
        let (mut ends, mut buffer, mut offset) = (VecDeque::new(), Vec::new(), 0u64);
        loop {
            let kept = buffer.len();
            buffer.resize(kept + BLOCK_BYTES, 0);
            let count = counter.read(&mut buffer[kept..]).unwrap_or(0);
            buffer.truncate(kept + count);
            let mut used = 0;
            while let Some(length) = match self.driver {
                LogDriver::JsonFile => memchr::memchr(b'\n', &buffer[used..]).map(|at| at + 1),
                _ => local::record_length(&buffer[used..]),
            } {
                ends.push_back(offset);
                if ends.len() as u64 > wanted {
                    ends.pop_front();
                }
                offset += length as u64;
                used += length;
            }
            buffer.drain(..used);
            if count == 0 {
                break;
            }
        }
        self.sources[index] = self.sources[index].reopened()?;
        Ok((ends.len() as u64, ends.front().copied().unwrap_or(offset)))
    }
}

impl Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.input {
            Input::Plain(file) => {
                let count = file.read_at(buffer, self.read_at)?;
                self.read_at += count as u64;
                Ok(count)
            }
            Input::Gzip(decoder) => decoder.read(buffer),
        }
    }

    fn file(&self) -> &File {
        match &self.input {
            Input::Plain(file) => file,
            Input::Gzip(decoder) => decoder.get_ref().get_ref(),
        }
    }

    fn changed_ns(&self) -> io::Result<i64> {
        let metadata = self.file().metadata()?;
        Ok(metadata
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(metadata.mtime_nsec()))
    }

    /// Sets the place of the next record; `offset` is the start of one.
    fn skip_to(&mut self, offset: u64) -> io::Result<()> {
        self.offset = offset;
        match &mut self.input {
            Input::Plain(_) => self.read_at = offset,
            Input::Gzip(decoder) => {
                io::copy(&mut decoder.by_ref().take(offset), &mut io::sink())?;
            }
        }
        Ok(())
    }

    /// Returns a compressed source at its start.
    fn reopened(&self) -> io::Result<Source> {
        use std::io::Seek;
        let mut file = self.file().try_clone()?;
        file.rewind()?;
        let decoder = GzDecoder::new(BufReader::new(file));
        Ok(Source {
            input: Input::Gzip(Box::new(decoder)),
            generation: self.generation,
            read_at: 0,
            offset: 0,
            sealed: true,
        })
    }

    /// Someone has emptied the file in place: begin at its start. `true` if so.
    fn was_truncated(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let length = self.file().metadata()?.len();
        if length >= self.read_at {
            return Ok(false);
        }
        buffer.clear();
        (self.read_at, self.offset) = (0, 0);
        Ok(length > 0)
    }
}

/// Opens the log's files, the oldest first. With `from`, only that one and the newer ones; the flag says whether it is
/// there (if not, all are returned).
///
/// The newest is opened first: a rotation in between moves a file to a place that is opened later, where it is known
/// again by its identity.
fn open_all(path: &Path, from: Option<u64>) -> io::Result<(VecDeque<Source>, bool)> {
    let mut sources: VecDeque<Source> = VecDeque::new();
    let (mut index, mut missing) = (0, 0);
    while missing < MISSING_MAX {
        match open_one(path, index)? {
            Some(source) => {
                missing = 0;
                if sources
                    .iter()
                    .all(|known| known.generation != source.generation)
                {
                    let found = from == Some(source.generation);
                    sources.push_front(source);
                    if found {
                        return Ok((sources, true));
                    }
                }
            }
            None => missing += 1,
        }
        index += 1;
    }
    Ok((sources, false))
}

fn open_one(path: &Path, index: u32) -> io::Result<Option<Source>> {
    let plain = if index == 0 {
        path.to_path_buf()
    } else {
        rotated(path, index, false)
    };
    match File::open(&plain) {
        Ok(file) => {
            let generation = generation(&file)?;
            return Ok(Some(Source {
                input: Input::Plain(file),
                generation,
                read_at: 0,
                offset: 0,
                sealed: index > 0,
            }));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) if index == 0 => return Ok(None),
        Err(_) => {}
    }
    match File::open(rotated(path, index, true)) {
        Ok(file) => {
            let own = generation(&file)?;
            let decoder = GzDecoder::new(BufReader::new(file));
            let named = decoder
                .header()
                .and_then(|header| header.extra())
                .and_then(compress::generation);
            Ok(Some(Source {
                input: Input::Gzip(Box::new(decoder)),
                generation: named.unwrap_or(own),
                read_at: 0,
                offset: 0,
                sealed: true,
            }))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Err(_) => Ok(None),
    }
}

/// Goes backwards over lines; returns how many of the `wanted` there are, and where the first of them begins. A last
/// line without newline is torn and does not count.
fn tail_json(file: &File, wanted: u64) -> io::Result<(u64, u64)> {
    let length = file.metadata()?.len();
    let mut block = vec![0; 64 << 10];
    let mut end = length;
    let mut newlines = 0;
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        for at in memchr::memrchr_iter(b'\n', part) {
            if newlines == wanted {
                return Ok((wanted, start + at as u64 + 1));
            }
            newlines += 1;
        }
        end = start;
    }
    Ok((newlines, 0))
}

/// Goes backwards over records by the length behind each.
fn tail_local(file: &File, wanted: u64) -> io::Result<(u64, u64)> {
    let mut offset = file.metadata()?.len();
    let mut found = 0;
    while found < wanted && offset >= 8 {
        let mut length = [0; 4];
        file.read_exact_at(&mut length, offset - 4)?;
        let Some(start) = offset.checked_sub(u64::from(u32::from_be_bytes(length)) + 8) else {
            break;
        };
        offset = start;
        found += 1;
    }
    Ok((found, if found < wanted { 0 } else { offset }))
}

/// Returns the attributes as `k=v,k=v`, sorted, each escaped as in a URL's query.
fn details_text(attrs: &[u8]) -> Vec<u8> {
    let attrs: std::collections::BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(attrs).unwrap_or_default();
    let mut out = Vec::new();
    for (key, value) in &attrs {
        if !out.is_empty() {
            out.push(b',');
        }
        push_query(&mut out, key);
        out.push(b'=');
        match value {
            serde_json::Value::String(text) => push_query(&mut out, text),
            other => push_query(&mut out, &other.to_string()),
        }
    }
    out
}

fn push_query(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte),
            b' ' => out.push(b'+'),
            _ => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
