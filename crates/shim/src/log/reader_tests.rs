//! Tables for the log reader, over files that the writer made.

use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::log::writer::Writer;
use crate::protocol::LogConfig;

const NOW: i64 = 1_709_210_096_000_000_000;

struct Log {
    _directory: tempfile::TempDir,
    path: PathBuf,
    driver: LogDriver,
    writer: Writer,
}

fn log(driver: LogDriver, max_size: u64, max_files: u32) -> Log {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let config = LogConfig {
        driver,
        max_size_bytes: Some(max_size),
        max_files,
        attrs: BTreeMap::from([
            ("b c".to_owned(), "1&2".to_owned()),
            ("a".to_owned(), "x".to_owned()),
        ]),
        ..LogConfig::rotated(path.clone())
    };
    let writer = Writer::open(&config).unwrap();
    Log {
        _directory: directory,
        path,
        driver,
        writer,
    }
}

impl Log {
    fn lines(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let stream = if number % 2 == 0 {
                Stream::Stdout
            } else {
                Stream::Stderr
            };
            self.writer.write(
                stream,
                format!("line {number}\n").as_bytes(),
                NOW + number as i64 * 1_000_000_000,
            );
        }
    }

    fn raw(&self, change: impl FnOnce(&mut Options)) -> String {
        let mut options = Options {
            multiplexed: false,
            ..Options::everything()
        };
        change(&mut options);
        let mut reader = Reader::open(self.driver, &self.path, options).unwrap();
        text(&mut reader)
    }
}

fn text(reader: &mut Reader) -> String {
    let mut out = Vec::new();
    // A small limit, so that every boundary is crossed.
    loop {
        let limit = out.len() + 10;
        match reader.read(&mut out, limit).unwrap() {
            Progress::More => {}
            Progress::CaughtUp | Progress::Done => return String::from_utf8(out).unwrap(),
        }
    }
}

fn expected(numbers: impl IntoIterator<Item = u64>) -> String {
    numbers
        .into_iter()
        .map(|number| format!("line {number}\n"))
        .collect()
}

#[test]
fn files_are_read_in_order_and_from_the_tail() {
    for driver in [LogDriver::JsonFile, LogDriver::Local] {
        let mut log = log(driver, 1000, 100);
        assert_eq!(log.raw(|_| {}), "");
        log.lines(0..100);
        assert!(rotated(&log.path, 1, false).exists());
        assert_eq!(log.raw(|_| {}), expected(0..100), "{driver:?}");
        for tail in [0, 1, 2, 10, 50, 99, 100, 1000] {
            let first = 100 - tail.min(100);
            assert_eq!(
                log.raw(|options| options.tail = Some(tail)),
                expected(first..100),
                "{driver:?} {tail}"
            );
        }
    }
}

#[test]
fn times_and_streams_select_lines() {
    let mut log = log(LogDriver::JsonFile, 1000, 100);
    log.lines(0..50);
    let at = |number: i64| Some(NOW + number * 1_000_000_000);
    assert_eq!(
        log.raw(|options| options.since_ns = at(40)),
        expected(40..50)
    );
    assert_eq!(log.raw(|options| options.until_ns = at(4)), expected(0..5));
    assert_eq!(
        log.raw(|options| (options.since_ns, options.until_ns) = (at(10), at(12))),
        expected(10..13)
    );
    assert_eq!(
        log.raw(|options| options.stderr = false),
        expected((0..50).step_by(2))
    );
    // The tail counts lines of both streams, as Docker's does.
    assert_eq!(
        log.raw(|options| (options.stdout, options.tail) = (false, Some(3))),
        expected([47, 49])
    );
}

#[test]
fn lines_bear_time_and_details() {
    let mut log = log(LogDriver::JsonFile, 1 << 20, 2);
    log.lines(0..1);
    assert_eq!(
        log.raw(|options| options.timestamps = true),
        "2024-02-29T12:34:56.000000000Z line 0\n"
    );
    assert_eq!(
        log.raw(|options| options.details = true),
        "a=x,b+c=1%262 line 0\n"
    );
    let mut reader = Reader::open(log.driver, &log.path, Options::everything()).unwrap();
    assert_eq!(text(&mut reader), "\u{1}\0\0\0\0\0\0\u{7}line 0\n");
}

#[test]
fn every_byte_comes_back() {
    for driver in [LogDriver::JsonFile, LogDriver::Local] {
        let mut log = log(driver, 1 << 20, 2);
        let odd = "q\" b\\ t\t e\u{1b} <&> \u{2028} \u{1f600}\r\n\nlast";
        log.writer.write(Stream::Stdout, odd.as_bytes(), NOW);
        log.writer.finish(Stream::Stdout, NOW);
        assert_eq!(log.raw(|_| {}), odd);
    }
}

#[test]
fn a_follower_goes_over_rotations_without_loss() {
    for driver in [LogDriver::JsonFile, LogDriver::Local] {
        let mut log = log(driver, 700, 50);
        let options = Options {
            multiplexed: false,
            ..Options::everything()
        };
        let mut reader = Reader::open(driver, &log.path, options).unwrap();
        let mut all = String::new();
        for round in 0..20 {
            log.lines(round * 7..(round + 1) * 7);
            all.push_str(&text(&mut reader));
        }
        assert_eq!(all, expected(0..140));
        assert_eq!(reader.gaps(), 0);
        assert_eq!(reader.position(), log.writer.position());
    }
}

#[test]
fn a_position_is_found_again_after_rotation() {
    let mut log = log(LogDriver::JsonFile, 700, 50);
    log.lines(0..3);
    let position = log.writer.position();
    log.lines(3..60);
    let options = Options {
        multiplexed: false,
        ..Options::everything()
    };
    let mut reader = Reader::open_at(log.driver, &log.path, options.clone(), position).unwrap();
    assert_eq!(text(&mut reader), expected(3..60));
    let mut reader = Reader::open_at(log.driver, &log.path, options, Position::default()).unwrap();
    assert_eq!(text(&mut reader), expected(0..60));
}

#[test]
fn a_reader_that_lags_sees_a_gap() {
    let mut log = log(LogDriver::JsonFile, 700, 2);
    log.lines(0..3);
    let options = Options {
        multiplexed: false,
        ..Options::everything()
    };
    let mut reader = Reader::open(log.driver, &log.path, options.clone()).unwrap();
    let position = log.writer.position();
    assert_eq!(text(&mut reader), expected(0..3));
    log.lines(3..60);
    let after = text(&mut reader);
    let (before, rest) = after.split_once(GAP).expect("a gap is told");
    assert!(expected(3..60).starts_with(before));
    assert!(expected(3..60).ends_with(rest) && !rest.is_empty());
    assert_eq!(reader.gaps(), 1);
    let mut reader = Reader::open_at(log.driver, &log.path, options, position).unwrap();
    assert!(text(&mut reader).starts_with(GAP));
}

#[test]
fn torn_and_strange_lines_are_passed_over() {
    let mut log = log(LogDriver::JsonFile, 1 << 20, 2);
    log.lines(0..1);
    let mut bytes = fs::read(&log.path).unwrap();
    let whole = bytes.clone();
    bytes.extend_from_slice(
        b"\0\0\0 not json\n{\"time\":\"2024-02-29T12:34:56Z\",\"log\":\"other order\\n\"}\n",
    );
    bytes.extend_from_slice(&whole[..10]);
    fs::write(&log.path, &bytes).unwrap();
    assert_eq!(log.raw(|_| {}), "line 0\nother order\n");
    assert_eq!(log.raw(|options| options.tail = Some(1)), "other order\n");
}

#[test]
fn compressed_files_are_part_of_the_log() {
    use std::io::Write;
    let mut log = log(LogDriver::JsonFile, 700, 50);
    log.lines(0..3);
    let position = log.writer.position();
    log.lines(3..60);
    // What the compressing child does, here in place.
    for index in 1.. {
        let plain = rotated(&log.path, index, false);
        let Ok(content) = fs::read(&plain) else { break };
        let identity = generation(&File::open(&plain).unwrap()).unwrap();
        let mut extra = b"GN\x08\0".to_vec();
        extra.extend_from_slice(&identity.to_le_bytes());
        let file = File::create(rotated(&log.path, index, true)).unwrap();
        let mut encoder = flate2::GzBuilder::new()
            .extra(extra)
            .write(file, flate2::Compression::fast());
        encoder.write_all(&content).unwrap();
        encoder.finish().unwrap();
        fs::remove_file(plain).unwrap();
    }
    assert!(rotated(&log.path, 1, true).exists());
    assert_eq!(log.raw(|_| {}), expected(0..60));
    for tail in [1, 20, 59, 60, 61] {
        assert_eq!(
            log.raw(|options| options.tail = Some(tail)),
            expected(60 - tail.min(60)..60),
            "{tail}"
        );
    }
    let options = Options {
        multiplexed: false,
        ..Options::everything()
    };
    let mut reader = Reader::open_at(log.driver, &log.path, options, position).unwrap();
    assert_eq!(text(&mut reader), expected(3..60));
}

#[test]
fn a_file_emptied_in_place_is_read_from_its_start() {
    let mut log = log(LogDriver::JsonFile, 1 << 20, 2);
    log.lines(0..10);
    let options = Options {
        multiplexed: false,
        ..Options::everything()
    };
    let mut reader = Reader::open(log.driver, &log.path, options).unwrap();
    assert_eq!(text(&mut reader), expected(0..10));
    File::options()
        .write(true)
        .open(&log.path)
        .unwrap()
        .set_len(0)
        .unwrap();
    log.lines(10..12);
    assert_eq!(text(&mut reader), expected(10..12));
}
