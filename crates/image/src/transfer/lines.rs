//! Sends the lines of a transfer's progress.

use super::TransferEvent;
use crate::error::{Error, Result};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Is how often the progress of one layer is told.
const INTERVAL: Duration = Duration::from_millis(100);

/// Sends lines to one client; clones share it.
#[derive(Clone)]
pub(crate) struct Lines(mpsc::Sender<Result<TransferEvent>>);

impl Lines {
    pub fn new(sender: mpsc::Sender<Result<TransferEvent>>) -> Self {
        Self(sender)
    }

    /// Sends a line.
    ///
    /// # Errors
    /// Nobody reads them any more.
    pub async fn status(&self, id: &str, text: impl Into<String>) -> Result<()> {
        let (id, text) = (id.to_owned(), text.into());
        self.send(TransferEvent::Status { id, text }).await
    }

    pub async fn aux(&self, value: serde_json::Value) -> Result<()> {
        self.send(TransferEvent::Aux(value)).await
    }

    /// Sends the last item.
    pub async fn fail(&self, error: Error) {
        let _ = self.0.send(Err(error)).await;
    }

    /// Waits until nobody reads any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    async fn send(&self, event: TransferEvent) -> Result<()> {
        self.0.send(Ok(event)).await.map_err(|_| Error::Cancelled)
    }

    /// Begins to tell the progress of something.
    pub fn bar(&self, id: &str, text: &'static str, total: u64) -> Bar {
        Bar {
            lines: self.clone(),
            id: id.to_owned(),
            text,
            total,
            told: None,
        }
    }
}

/// Tells how far something has come, not more often than a person can read.
pub(crate) struct Bar {
    lines: Lines,
    id: String,
    text: &'static str,
    total: u64,
    told: Option<(Instant, u64)>,
}

impl Bar {
    /// Tells how far it has come; the end is always told, everything else now and then. A layer's archive is longer than
    /// the files that its size is the sum of, so what goes beyond the end is the end.
    pub async fn at(&mut self, current: u64) -> Result<()> {
        let current = match self.total {
            0 => current,
            total => current.min(total),
        };
        let is_due = match self.told {
            None => true,
            Some((_, told)) if told == current => false,
            Some((time, _)) => current >= self.total || time.elapsed() >= INTERVAL,
        };
        if !is_due {
            return Ok(());
        }
        self.told = Some((Instant::now(), current));
        let event = TransferEvent::Progress {
            id: self.id.clone(),
            text: self.text,
            current,
            total: self.total,
        };
        self.lines.send(event).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bar_ends_once_and_never_passes_its_end() {
        let (sender, mut told) = mpsc::channel(16);
        let lines = Lines::new(sender);
        let mut bar = lines.bar("a", "Pushing", 10);
        for current in [3, 12, 15, 10] {
            bar.at(current).await.unwrap();
        }
        // Of what has no size only the way is told.
        lines.bar("b", "Pushing", 0).at(7).await.unwrap();
        drop((lines, bar));
        let mut seen = Vec::new();
        while let Some(Ok(TransferEvent::Progress { current, total, .. })) = told.recv().await {
            seen.push((current, total));
        }
        assert_eq!(seen, [(3, 10), (10, 10), (7, 0)]);
    }
}
