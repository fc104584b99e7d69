//! Layers for tests of transfers, and what their tests share.

use gantry_testkit::engine::Engine;
use std::process::Command;

/// An archive with one file of bytes that do not compress.
pub fn layer(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    })
    .take(length)
    .collect();
    let directory = tempfile::tempdir().expect("a directory");
    let name = format!("file-{seed}");
    std::fs::write(directory.path().join(&name), bytes).expect("write a file");
    let output = Command::new("tar")
        .args([
            "-c",
            "--format=ustar",
            "--owner=0",
            "--group=0",
            "--mtime=@0",
            "-C",
        ])
        .arg(directory.path())
        .arg(&name)
        .output()
        .expect("start tar");
    assert!(output.status.success());
    output.stdout
}

/// The request that pulls an image.
pub fn pull_path(name: &str) -> String {
    let (name, tag) = name.rsplit_once(':').expect("a tag");
    format!("/images/create?fromImage={name}&tag={tag}")
}

/// Asks the daemon to check its own store.
#[track_caller]
pub fn assert_sound(engine: &Engine) {
    let checked = engine.api("POST", "/system/check", None);
    assert_eq!(checked.status, 200, "{}", checked.text());
    let report = checked.json().expect("JSON");
    let problems = report
        .as_object()
        .and_then(|report| {
            report
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case("problems"))
        })
        .map(|(_, problems)| problems.clone());
    let problems = problems.unwrap_or_else(|| panic!("{}", checked.text()));
    assert!(
        problems.is_null() || problems.as_array().is_some_and(Vec::is_empty),
        "{problems}"
    );
}
