//! Answers recorded from the reference engine, compared byte for byte.
//!
//! A recording is a JSON object in `tests/golden/`, from a line to what it gave. It is written when `GANTRY_RECORD` is set and
//! the engine is the reference; in every other run an unknown line is a failure, so a recording cannot be forgotten.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::engine::Engine;

/// One file of recorded answers.
pub struct Recording {
    path: PathBuf,
    record: bool,
    entries: BTreeMap<String, String>,
}

/// Recordings are read and written as a whole.
static FILES: Mutex<()> = Mutex::new(());

impl Recording {
    pub fn open(name: &str, engine: &Engine) -> Recording {
        let _guard = FILES.lock();
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(format!("{name}.json"));
        let record = std::env::var_os("GANTRY_RECORD").is_some() && engine.is_reference();
        let entries = match std::fs::read(&path) {
            Ok(_) if record => BTreeMap::new(),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .unwrap_or_else(|error| panic!("`{}`: {error}", path.display())),
            Err(_) => BTreeMap::new(),
        };
        Recording {
            path,
            record,
            entries,
        }
    }

    /// Compares `actual` with what the reference gave for `key`; gives the difference as text.
    pub fn compare(&mut self, key: &str, actual: &str) -> Option<String> {
        if self.record {
            self.entries.insert(key.to_owned(), actual.to_owned());
            return None;
        }
        match self.entries.get(key) {
            Some(expected) if expected == actual => None,
            Some(expected) => Some(format!(
                "{key}\n  reference: {expected:?}\n  here:      {actual:?}"
            )),
            None => Some(format!("{key}: never recorded from the reference engine")),
        }
    }

    /// Writes the recording, if this run records.
    pub fn save(&self) {
        let _guard = FILES.lock();
        if self.record {
            let mut text = serde_json::to_string_pretty(&self.entries).expect("JSON");
            text.push('\n');
            std::fs::create_dir_all(self.path.parent().expect("a directory"))
                .expect("make a directory");
            std::fs::write(&self.path, text).expect("write a recording");
        }
    }
}

impl Recording {
    /// As [`Recording::compare`] for a set of lines: names those that are missing and those that are new.
    pub fn compare_lines(&mut self, key: &str, actual: &[String]) -> Vec<String> {
        let text = actual.join("\n");
        if self.compare(key, &text).is_none() {
            return Vec::new();
        }
        let Some(expected) = self.entries.get(key) else {
            return vec![format!("{key}: never recorded")];
        };
        let expected: Vec<&str> = expected.lines().collect();
        let lacks = expected
            .iter()
            .filter(|line| !actual.iter().any(|other| other == *line))
            .map(|line| format!("{key}: lacks {line}"));
        let has = actual
            .iter()
            .filter(|line| !expected.contains(&line.as_str()))
            .map(|line| format!("{key}: has {line}"));
        lacks.chain(has).collect()
    }
}
