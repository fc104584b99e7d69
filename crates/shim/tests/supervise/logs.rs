//! The log of real containers.

use std::fs;
use std::path::Path;
use std::time::Instant;

use gantry_shim::log::reader::{Options, Progress, Reader};
use gantry_shim::protocol::{LogConfig, LogDriver};

use crate::fixture::*;

fn raw(driver: LogDriver, path: &Path) -> Vec<u8> {
    let options = Options {
        multiplexed: false,
        ..Options::everything()
    };
    let mut reader = Reader::open(driver, path, options).unwrap();
    let mut out = Vec::new();
    while reader.read(&mut out, usize::MAX).unwrap() == Progress::More {}
    out
}

/// Checks numbered lines `... first` to `last` without a hole, and returns the first.
fn check_numbers(text: &[u8], last: u64) -> u64 {
    let mut first = None;
    let mut expected = 0;
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let digits = line.split(|byte| !byte.is_ascii_digit()).next().unwrap();
        let number: u64 = std::str::from_utf8(digits).unwrap().parse().unwrap();
        if first.is_none() {
            (first, expected) = (Some(number), number);
        }
        assert_eq!(number, expected);
        expected += 1;
    }
    assert_eq!(expected, last + 1);
    first.unwrap()
}

#[test]
fn every_line_is_kept_while_no_daemon_is_there() {
    let pad = "x".repeat(190);
    let lines: u64 = 1_000_000;
    let mut bundle = Bundle::new(&format!(
        "yes {pad} | head -n {lines} | awk '{{print NR \" \" $0}}'"
    ));
    bundle.request.log.max_size_bytes = None;
    let mut shim = bundle.start();
    shim.disconnect();
    let before = Instant::now();
    let bundle = shim.gone();
    let written = before.elapsed();
    assert_eq!(bundle.record().unwrap().code, 0);
    let size = fs::metadata(&bundle.request.log.path).unwrap().len();
    let before = Instant::now();
    let text = raw(LogDriver::JsonFile, &bundle.request.log.path);
    let read = before.elapsed();
    assert_eq!(check_numbers(&text, lines), 1);
    eprintln!("{size} bytes of log written in {written:?}, read in {read:?}");
}

#[test]
fn default_rotation_keeps_an_unbroken_end_within_its_bound() {
    let lines: u64 = 1_000_000;
    let pad = "y".repeat(120);
    let bundle = Bundle::new(&format!(
        "yes {pad} | head -n {lines} | awk '{{print NR \" \" $0}}'"
    ));
    let (_, bundle) = bundle.start().wait();
    let path = &bundle.request.log.path;
    let sizes: Vec<u64> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .collect();
    let max = 20 << 20;
    assert_eq!(sizes.len(), 5);
    assert!(sizes.iter().all(|&size| size <= max + 1000), "{sizes:?}");
    assert!(sizes.iter().sum::<u64>() >= max * 4);
    let text = raw(LogDriver::JsonFile, path);
    assert!(check_numbers(&text, lines) > 1);
}

#[test]
fn rotated_files_are_compressed_by_a_child_and_read_back() {
    let mut bundle = Bundle::new("seq 1 60000");
    bundle.request.log = LogConfig {
        compress: true,
        max_size_bytes: Some(1 << 20),
        max_files: 20,
        ..bundle.request.log
    };
    let (_, bundle) = bundle.start().wait();
    let path = &bundle.request.log.path;
    let names: Vec<String> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().any(|name| name.ends_with(".gz")), "{names:?}");
    assert!(
        names
            .iter()
            .all(|name| !name.ends_with("tmp") && !name.ends_with("new")),
        "{names:?}"
    );
    assert_eq!(check_numbers(&raw(LogDriver::JsonFile, path), 60000), 1);
}

#[test]
fn the_local_driver_keeps_the_same_lines() {
    let mut bundle = Bundle::new("seq 1 50000; printf end");
    bundle.request.log.driver = LogDriver::Local;
    let (_, bundle) = bundle.start().wait();
    let expected: String = (1..=50000)
        .map(|number| format!("{number}\n"))
        .chain(["end".to_owned()])
        .collect();
    assert_eq!(
        raw(LogDriver::Local, &bundle.request.log.path),
        expected.as_bytes()
    );
}

#[test]
fn without_a_driver_there_is_no_file() {
    let mut bundle = Bundle::new("echo nothing");
    bundle.request.log = LogConfig::default();
    let (record, bundle) = bundle.start().wait();
    assert_eq!(record.code, 0);
    assert!(!bundle.path().join("log").exists());
}
