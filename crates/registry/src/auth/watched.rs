//! Files that are read again when they change.

use crate::error::{Code, Error, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

/// Is a file that is read again when it changes.
pub struct Watched<T> {
    path: PathBuf,
    state: RwLock<(Arc<T>, Option<SystemTime>)>,
}

impl<T> Watched<T> {
    /// Reads the file.
    ///
    /// # Errors
    /// Names the file that cannot be read, and why.
    pub fn open(path: &Path, parse: fn(&str) -> Result<T, String>) -> Result<Self> {
        let time = Self::time(path);
        let text = std::fs::read_to_string(path)
            .map_err(|error| invalid_file(path, &error.to_string()))?;
        let value = parse(&text).map_err(|why| invalid_file(path, &why))?;
        Ok(Self {
            path: path.to_owned(),
            state: RwLock::new((Arc::new(value), time)),
        })
    }

    fn time(path: &Path) -> Option<SystemTime> {
        std::fs::metadata(path)
            .and_then(|file| file.modified())
            .ok()
    }

    /// Gives what the file says.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Reads the file again if it changed; where it cannot be read, what it said before holds.
    pub fn refresh(&self, parse: fn(&str) -> Result<T, String>) {
        let time = Self::time(&self.path);
        if time == self.state.read().unwrap_or_else(PoisonError::into_inner).1 {
            return;
        }
        let read = std::fs::read_to_string(&self.path).map_err(|error| error.to_string());
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.1 = time;
        match read.and_then(|text| parse(&text)) {
            Ok(value) => {
                state.0 = Arc::new(value);
                tracing::info!(file = %self.path.display(), "read again");
            }
            Err(error) => {
                tracing::error!(file = %self.path.display(), error, "cannot be read; what it said before holds");
            }
        }
    }
}

/// Says that a file is not what it must be.
pub fn invalid_file(path: &Path, why: &str) -> Error {
    Error {
        code: Code::Internal,
        detail: serde_json::Value::Null,
        cause: Some(format!("`{}`: {why}", path.display()).into()),
    }
}
