//! Cuts output into lines and appends them to the log file, one write per batch.
//!
//! Invariants: records are whole (what a short write left torn is cut off again); times never go back; nothing here
//! makes the container wait: what the disk refuses is dropped and counted. Memory is one output buffer and at most
//! 16 KiB of an unfinished line per stream, given back by [`Writer::idle`].

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::json;
use super::local::{self, Piece};
use super::{LINE_BYTES_MAX, Position, Stream, compress, generation, rotated};
use crate::protocol::{LogConfig, LogDriver};

/// Encoded bytes at which a batch is written even though more lines wait.
const BATCH_BYTES: usize = 512 << 10;
/// After a rotation that failed, this much more is written before the next try.
const ROTATE_AGAIN_BYTES: u64 = 1 << 20;

/// What the name of a file under compression ends with, before the shim's process id.
const TEMPORARY: &str = ".gz-tmp-";

/// An unfinished line of one stream.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    /// Pieces of this line that are already written.
    pieces: u32,
    id: u64,
}

#[derive(Debug)]
struct Compression {
    pid: i32,
    /// Which rotated file it is by now; rotations count it up.
    index: u32,
    generation: u64,
    temporary: PathBuf,
}

/// The log of one container.
#[derive(Debug)]
pub struct Writer {
    driver: LogDriver,
    path: PathBuf,
    file: Option<File>,
    generation: u64,
    size: u64,
    rotate_at: Option<u64>,
    max_size: Option<u64>,
    max_files: u32,
    compress: bool,
    compression: Option<Compression>,
    attrs: Vec<u8>,
    lines: [Line; 2],
    out: Vec<u8>,
    tail: Vec<u8>,
    last_ns: i64,
    next_line_id: u64,
    dropped: u64,
}

impl Writer {
    /// Opens the log for appending. A file that cannot be opened is an error: the container must not start without the
    /// log that it was promised.
    pub fn open(config: &LogConfig) -> io::Result<Self> {
        let mut writer = Writer {
            driver: config.driver,
            path: config.path.clone(),
            file: None,
            generation: 0,
            size: 0,
            rotate_at: None,
            max_size: config.max_size_bytes.filter(|&size| size > 0),
            max_files: config.max_files.max(1),
            compress: config.compress && config.max_files > 1,
            compression: None,
            attrs: attrs_json(&config.attrs),
            lines: Default::default(),
            out: Vec::new(),
            tail: Vec::new(),
            last_ns: 0,
            next_line_id: 1,
            dropped: 0,
        };
        if config.driver != LogDriver::None {
            if let Some(directory) = config.path.parent() {
                fs::create_dir_all(directory)?;
            }
            let file = append(&config.path, false)?;
            writer.size = cut_torn_end(&file, config.driver)?;
            writer.generation = generation(&file)?;
            writer.file = Some(file);
            writer.rotate_at = writer.max_size;
            remove_stale(&config.path);
        }
        Ok(writer)
    }

    /// Appends what one read gave. `now_ns` is one reading of the real-time clock for the whole batch.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], now_ns: i64) {
        if self.file.is_none() {
            return;
        }
        self.last_ns = self.last_ns.max(now_ns);
        self.begin(stream);
        let mut rest = bytes;
        let index = stream.index();
        if !self.lines[index].bytes.is_empty() {
            let mut line = std::mem::take(&mut self.lines[index].bytes);
            let room = &rest[..rest.len().min(LINE_BYTES_MAX - line.len())];
            match memchr::memchr(b'\n', room) {
                Some(end) => {
                    line.extend_from_slice(&rest[..end]);
                    rest = &rest[end + 1..];
                    self.record(stream, &line, true);
                    line.clear();
                }
                None => {
                    line.extend_from_slice(room);
                    rest = &rest[room.len()..];
                    if line.len() == LINE_BYTES_MAX {
                        self.record(stream, &line, false);
                        line.clear();
                    }
                }
            }
            self.lines[index].bytes = line;
        }
        while !rest.is_empty() {
            let window = &rest[..rest.len().min(LINE_BYTES_MAX)];
            match memchr::memchr(b'\n', window) {
                Some(end) => {
                    self.record(stream, &rest[..end], true);
                    rest = &rest[end + 1..];
                }
                None if window.len() == LINE_BYTES_MAX => {
                    self.record(stream, window, false);
                    rest = &rest[LINE_BYTES_MAX..];
                }
                None => {
                    self.lines[index].bytes.extend_from_slice(rest);
                    break;
                }
            }
        }
        self.flush();
    }

    /// Writes the unfinished line of a stream that has ended, without a newline.
    pub fn finish(&mut self, stream: Stream, now_ns: i64) {
        let line = std::mem::take(&mut self.lines[stream.index()]);
        if self.file.is_none() || line.bytes.is_empty() {
            return;
        }
        self.last_ns = self.last_ns.max(now_ns);
        self.begin(stream);
        self.lines[stream.index()].pieces = line.pieces;
        self.lines[stream.index()].id = line.id;
        self.record(stream, &line.bytes, false);
        self.lines[stream.index()] = Line::default();
        self.flush();
    }

    /// Returns what was read and is not in the file yet because its line goes on.
    pub fn unfinished(&self, stream: Stream) -> &[u8] {
        &self.lines[stream.index()].bytes
    }

    /// Returns the place behind the last record.
    pub fn position(&self) -> Position {
        Position {
            generation: self.generation,
            offset: self.size,
        }
    }

    /// Returns how many records were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Gives memory back while nothing is written.
    pub fn idle(&mut self) {
        self.out = Vec::new();
        self.tail = Vec::new();
        for line in &mut self.lines {
            line.bytes.shrink_to_fit();
        }
    }

    /// Returns the child that compresses a file, if one runs.
    pub fn compressing(&self) -> Option<i32> {
        self.compression.as_ref().map(|compression| compression.pid)
    }

    /// Takes note that the compressing child has ended, and starts the next one if a file waits.
    pub fn compressed(&mut self, success: bool) {
        let Some(done) = self.compression.take() else {
            return;
        };
        let plain = rotated(&self.path, done.index, false);
        // Another shim, of the container's next run, may have rotated meanwhile.
        let found = File::open(&plain).and_then(|file| generation(&file));
        if success
            && done.index < self.max_files
            && found.is_ok_and(|found| found == done.generation)
        {
            if fs::rename(&done.temporary, rotated(&self.path, done.index, true)).is_ok() {
                let _ = fs::remove_file(plain);
            }
        } else {
            let _ = fs::remove_file(&done.temporary);
        }
        if success {
            self.compress_next();
        }
    }

    /// Notes that nothing more is to come: no further file is compressed.
    pub fn end(&mut self) {
        self.compress = false;
    }

    /// Prepares the end that the batch's records share.
    fn begin(&mut self, stream: Stream) {
        if self.driver == LogDriver::JsonFile {
            json::tail(&mut self.tail, stream, &self.attrs, self.last_ns);
        }
    }

    fn record(&mut self, stream: Stream, text: &[u8], newline: bool) {
        let line = &mut self.lines[stream.index()];
        match self.driver {
            LogDriver::JsonFile => json::push_record(&mut self.out, text, newline, &self.tail),
            LogDriver::Local => {
                if line.pieces == 0 {
                    line.id = self.next_line_id;
                    self.next_line_id += 1;
                }
                let piece = match (newline, line.pieces) {
                    (true, 0) => Piece::Whole,
                    (true, pieces) => Piece::Last {
                        ordinal: pieces + 1,
                    },
                    (false, pieces) => Piece::Partial {
                        ordinal: pieces + 1,
                    },
                };
                local::push_record(&mut self.out, stream, text, piece, line.id, self.last_ns);
            }
            LogDriver::None => {}
        }
        line.pieces = if newline { 0 } else { line.pieces + 1 };
        let full = self
            .rotate_at
            .is_some_and(|limit| self.size + self.out.len() as u64 >= limit);
        if full || self.out.len() >= BATCH_BYTES {
            self.flush();
        }
        if full {
            self.rotate();
        }
    }

    fn flush(&mut self) {
        let Some(file) = self.file.as_mut() else {
            return;
        };
        let mut written = 0;
        while written < self.out.len() {
            match file.write(&self.out[written..]) {
                Ok(count) if count > 0 => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        if written < self.out.len() {
            let (kept, lost) = count_records(&self.out, written, self.driver);
            self.dropped += lost;
            if kept < written {
                // Cut the torn record off; if even this fails the reader skips it.
                let end = file.metadata().map(|metadata| metadata.len()).unwrap_or(0);
                let _ = file.set_len(end.saturating_sub((written - kept) as u64));
            }
            written = kept;
        }
        self.size += written as u64;
        self.out.clear();
    }

    fn rotate(&mut self) {
        if self.try_rotate().is_err() {
            self.rotate_at = self
                .rotate_at
                .map(|limit| limit.max(self.size) + ROTATE_AGAIN_BYTES);
        }
    }

    /// Moves each file one place on and begins a new one. The new one is made first, so that a full disk leaves the
    /// current one in use.
    fn try_rotate(&mut self) -> io::Result<()> {
        let mut fresh_path = self.path.as_os_str().to_owned();
        fresh_path.push(".new");
        let fresh_path = PathBuf::from(fresh_path);
        let fresh = append(&fresh_path, true)?;
        let fresh_generation = generation(&fresh)?;
        let last = self.max_files - 1;
        for compressed in [false, true] {
            if last > 0 {
                let _ = fs::remove_file(rotated(&self.path, last, compressed));
            }
            for index in (1..last).rev() {
                move_if_there(
                    &rotated(&self.path, index, compressed),
                    &rotated(&self.path, index + 1, compressed),
                )?;
            }
        }
        if last > 0 {
            fs::rename(&self.path, rotated(&self.path, 1, false))?;
        }
        fs::rename(&fresh_path, &self.path)?;
        self.file = Some(fresh);
        self.generation = fresh_generation;
        self.size = 0;
        self.rotate_at = self.max_size;
        if let Some(compression) = &mut self.compression {
            compression.index += 1;
        }
        self.compress_next();
        Ok(())
    }

    fn temporary(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!("{TEMPORARY}{}", std::process::id()));
        name.into()
    }

    /// Starts a child for the newest file that is not compressed yet, unless one runs.
    fn compress_next(&mut self) {
        if !self.compress || self.compression.is_some() {
            return;
        }
        let waiting = (1..self.max_files)
            .map(|index| (index, rotated(&self.path, index, false)))
            .find(|(_, path)| path.exists());
        let Some((index, path)) = waiting else { return };
        let temporary = self.temporary();
        let started = (|| {
            let input = File::open(&path)?;
            let generation = generation(&input)?;
            let output = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o640)
                .open(&temporary)?;
            Ok::<_, io::Error>((compress::spawn(input, output, generation)?, generation))
        })();
        match started {
            Ok((pid, generation)) => {
                self.compression = Some(Compression {
                    pid,
                    index,
                    generation,
                    temporary,
                })
            }
            // Without compression the files stay as they are, which is safe.
            Err(_) => {
                let _ = fs::remove_file(&temporary);
            }
        }
    }
}

/// Removes what shims that are gone have left half compressed.
fn remove_stale(path: &Path) {
    let (Some(directory), Some(name)) = (
        path.parent(),
        path.file_name().and_then(|name| name.to_str()),
    ) else {
        return;
    };
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let file_name = entry.file_name();
        let pid = file_name
            .to_str()
            .and_then(|file| file.strip_prefix(name)?.strip_prefix(TEMPORARY));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn append(path: &Path, fresh: bool) -> io::Result<File> {
    // 0640 as Docker's; reading serves the repair of a torn end.
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
        .and_then(|file| {
            if fresh {
                file.set_len(0)?;
            }
            Ok(file)
        })
}

fn move_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Cuts off what a killed shim left of a record, and returns the file's length.
fn cut_torn_end(file: &File, driver: LogDriver) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(0);
    }
    let keep = match driver {
        LogDriver::None => length,
        LogDriver::JsonFile => {
            let mut block = vec![0; 64 << 10];
            let mut end = length;
            loop {
                let start = end.saturating_sub(block.len() as u64);
                let part = &mut block[..(end - start) as usize];
                file.read_exact_at(part, start)?;
                if let Some(at) = memchr::memrchr(b'\n', part) {
                    break start + at as u64 + 1;
                }
                if start == 0 {
                    break 0;
                }
                end = start;
            }
        }
        LogDriver::Local => {
            // Forward by the lengths at the front: one small read per record, at most once per start.
            let mut offset = 0;
            loop {
                let mut head = [0; 4];
                if offset + 8 > length || file.read_exact_at(&mut head, offset).is_err() {
                    break offset;
                }
                let next = offset + u64::from(u32::from_be_bytes(head)) + 8;
                if next > length {
                    break offset;
                }
                offset = next;
            }
        }
    };
    if keep < length {
        file.set_len(keep)?;
    }
    Ok(keep)
}

/// Returns the end of the last record that lies within `written`, and how many records lie behind it.
fn count_records(out: &[u8], written: usize, driver: LogDriver) -> (usize, u64) {
    match driver {
        LogDriver::JsonFile => {
            let kept = memchr::memrchr(b'\n', &out[..written]).map_or(0, |at| at + 1);
            (
                kept,
                memchr::memchr_iter(b'\n', &out[kept..]).count() as u64,
            )
        }
        LogDriver::Local => {
            let (mut kept, mut at, mut lost) = (0, 0, 0);
            while let Some(length) = local::record_length(&out[at..]) {
                at += length;
                if at <= written {
                    kept = at;
                } else {
                    lost += 1;
                }
            }
            (kept, lost)
        }
        LogDriver::None => (written, 0),
    }
}

/// Returns the attributes as Go's JSON, empty if there are none.
fn attrs_json(attrs: &BTreeMap<String, String>) -> Vec<u8> {
    if attrs.is_empty() {
        return Vec::new();
    }
    let text = serde_json::to_string(attrs).unwrap_or_default();
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_709_210_096_000_000_000;

    fn json_writer(path: &Path, max_size: Option<u64>, max_files: u32) -> Writer {
        let config = LogConfig {
            max_size_bytes: max_size,
            max_files,
            ..LogConfig::rotated(path.to_path_buf())
        };
        Writer::open(&config).unwrap()
    }

    fn texts(path: &Path) -> Vec<String> {
        fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["log"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    }

    #[test]
    fn lines_are_cut_alike_however_the_bytes_arrive() {
        let long = "x".repeat(LINE_BYTES_MAX);
        let input = format!(
            "one\n\n{long}\n{}\n{long}{long}yy\nlast",
            &long[..LINE_BYTES_MAX - 1]
        );
        let expected = [
            "one\n",
            "\n",
            &long,
            "\n",
            &format!("{}\n", &long[..LINE_BYTES_MAX - 1]),
            &long,
            &long,
            "yy\n",
            "last",
        ];
        for step in [input.len(), 1, 7, LINE_BYTES_MAX, LINE_BYTES_MAX + 1, 65536] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("log");
            let mut writer = json_writer(&path, None, 1);
            for piece in input.as_bytes().chunks(step) {
                writer.write(Stream::Stdout, piece, NOW);
            }
            assert_eq!(writer.unfinished(Stream::Stdout), b"last");
            writer.finish(Stream::Stdout, NOW);
            assert_eq!(texts(&path), expected, "step {step}");
            assert_eq!(writer.position().offset, fs::metadata(&path).unwrap().len());
        }
    }

    #[test]
    fn times_never_go_back_and_streams_do_not_mix() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = json_writer(&path, None, 1);
        writer.write(Stream::Stdout, b"a", NOW + 5_000_000_000);
        writer.write(Stream::Stderr, b"error\n", NOW);
        writer.write(Stream::Stdout, b"b\n", NOW + 1);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "{\"log\":\"error\\n\",\"stream\":\"stderr\",\"time\":\"2024-02-29T12:35:01Z\"}\n\
             {\"log\":\"ab\\n\",\"stream\":\"stdout\",\"time\":\"2024-02-29T12:35:01Z\"}\n"
        );
    }

    #[test]
    fn rotation_keeps_an_unbroken_suffix() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = json_writer(&path, Some(10_000), 3);
        let input: String = (0..2000).map(|number| format!("line {number}\n")).collect();
        writer.write(Stream::Stdout, input.as_bytes(), NOW);
        let mut all = Vec::new();
        for file in [
            rotated(&path, 2, false),
            rotated(&path, 1, false),
            path.clone(),
        ] {
            all.extend(texts(&file));
        }
        assert!(!rotated(&path, 3, false).exists());
        let first: usize = all[0].trim()["line ".len()..].parse().unwrap();
        let expected: Vec<String> = (first..2000)
            .map(|number| format!("line {number}\n"))
            .collect();
        assert_eq!(all, expected);
        let kept: u64 = [1, 2]
            .iter()
            .map(|&index| fs::metadata(rotated(&path, index, false)).unwrap().len())
            .sum();
        assert!(kept >= 20_000, "{kept}");
    }

    #[test]
    fn one_file_is_replaced_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = json_writer(&path, Some(1000), 1);
        for number in 0..100 {
            writer.write(Stream::Stdout, format!("line {number}\n").as_bytes(), NOW);
        }
        assert!(fs::metadata(&path).unwrap().len() < 1100);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_torn_end_is_cut_off_when_the_log_is_opened_again() {
        for driver in [LogDriver::JsonFile, LogDriver::Local] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("log");
            let config = LogConfig {
                driver,
                ..LogConfig::rotated(path.clone())
            };
            let mut writer = Writer::open(&config).unwrap();
            writer.write(Stream::Stdout, b"one\ntwo\n", NOW);
            let whole = fs::read(&path).unwrap();
            let mut torn = whole.clone();
            torn.extend_from_slice(&whole[..whole.len() / 4]);
            fs::write(&path, &torn).unwrap();
            let writer = Writer::open(&config).unwrap();
            assert_eq!(writer.position().offset, whole.len() as u64);
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn attributes_are_escaped_as_go_does() {
        let attrs = BTreeMap::from([
            ("b".to_owned(), "<1>".to_owned()),
            ("a".to_owned(), "x&y".to_owned()),
        ]);
        assert_eq!(
            attrs_json(&attrs),
            br#"{"a":"x\u0026y","b":"\u003c1\u003e"}"#
        );
        assert!(attrs_json(&BTreeMap::new()).is_empty());
    }
}
