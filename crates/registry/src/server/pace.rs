//! How slowly a client may send: what holds a place must bring something.

use crate::error::{Code, Error, Result};
use crate::options::Limits;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::time::Duration;
use tokio::time::Instant;

/// Watches one body. Only the time counts in which the client is waited for, not that in which the disk is.
pub struct Pace {
    /// The longest silence, and over how long the rate is taken.
    window: Duration,
    bytes_min: u64,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Begins with the limits of the registry.
    pub fn new(limits: &Limits) -> Self {
        Self {
            window: limits.silence,
            bytes_min: limits.bytes_per_second_min * limits.silence.as_secs(),
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// Gives the next piece of a body, `None` at its good end.
    ///
    /// # Errors
    /// [`Code::Interrupted`] for a client that is cut, silent or too slow.
    pub async fn next(&mut self, body: &mut Incoming) -> Result<Option<Bytes>> {
        let interrupted = |cause| Error {
            cause: Some(cause),
            ..Code::Interrupted.into()
        };
        loop {
            let began = Instant::now();
            let frame = match tokio::time::timeout(self.window, body.frame()).await {
                Err(_) => return Err(interrupted("the client sent nothing for too long".into())),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(interrupted(error.into())),
                Ok(Some(Ok(frame))) => frame,
            };
            self.waited += began.elapsed();
            let data = frame.into_data().ok();
            self.bytes += data.as_ref().map_or(0, |data| data.len() as u64);
            if self.waited >= self.window {
                if self.bytes < self.bytes_min {
                    return Err(interrupted("the client sent too slowly".into()));
                }
                (self.waited, self.bytes) = (Duration::ZERO, 0);
            }
            if data.is_some() {
                return Ok(data);
            }
        }
    }
}
