//! Counters, in the text form of Prometheus.

use crate::store::Collected;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The upper bounds of the histogram's buckets, in milliseconds.
const BUCKETS_MS: [u64; 8] = [1, 5, 25, 100, 500, 2_500, 10_000, 60_000];

/// Counts what a registry did since its start.
#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, &'static str, u16), u64>>,
    durations: Mutex<BTreeMap<&'static str, Histogram>>,
    pub bytes_sent: Arc<AtomicU64>,
    pub bytes_received: AtomicU64,
    pub receiving: AtomicU64,
    pub connections: AtomicU64,
    pub cache_hits: AtomicU64,
    pub cache_misses: AtomicU64,
    pub cache_stale: AtomicU64,
    collections: AtomicU64,
    collected_blobs: AtomicU64,
    collected_bytes: AtomicU64,
}

#[derive(Default)]
struct Histogram {
    counts: [u64; BUCKETS_MS.len()],
    count: u64,
    sum: Duration,
}

/// Holds one of something that is counted while it lasts.
pub struct Gauge<'a>(&'a AtomicU64);

impl<'a> Gauge<'a> {
    /// Counts one more until it is dropped.
    pub fn hold(counter: &'a AtomicU64) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts an answered request.
    pub fn answered(&self, route: &'static str, method: &'static str, status: u16, took: Duration) {
        *self
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry((route, method, status))
            .or_default() += 1;
        let mut durations = self
            .durations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let histogram = durations.entry(route).or_default();
        histogram.count += 1;
        histogram.sum += took;
        for (count, bound) in histogram.counts.iter_mut().zip(BUCKETS_MS) {
            if took <= Duration::from_millis(bound) {
                *count += 1;
            }
        }
    }

    /// Counts a collection.
    pub fn collected(&self, collected: &Collected) {
        self.collections.fetch_add(1, Ordering::Relaxed);
        self.collected_blobs
            .fetch_add(collected.blobs, Ordering::Relaxed);
        self.collected_bytes
            .fetch_add(collected.bytes, Ordering::Relaxed);
    }

    /// Writes all of them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        head(&mut text, "requests_total", "counter", "Answered requests.");
        for ((route, method, status), count) in self
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            let _ = writeln!(
                text,
                "gantry_registry_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}} {count}"
            );
        }
        head(
            &mut text,
            "request_duration_seconds",
            "histogram",
            "Time until the answer's head.",
        );
        for (route, histogram) in self
            .durations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            let name = "gantry_registry_request_duration_seconds";
            for (count, bound) in histogram.counts.iter().zip(BUCKETS_MS) {
                let bound = Duration::from_millis(bound).as_secs_f64();
                let _ = writeln!(
                    text,
                    "{name}_bucket{{route=\"{route}\",le=\"{bound}\"}} {count}"
                );
            }
            let _ = writeln!(
                text,
                "{name}_bucket{{route=\"{route}\",le=\"+Inf\"}} {0}\n{name}_sum{{route=\"{route}\"}} {1}\n{name}_count{{route=\"{route}\"}} {0}",
                histogram.count,
                histogram.sum.as_secs_f64()
            );
        }
        for (name, kind, help, value) in [
            (
                "sent_bytes_total",
                "counter",
                "Bytes of answers.",
                read(&self.bytes_sent),
            ),
            (
                "received_bytes_total",
                "counter",
                "Bytes of blobs and manifests received.",
                read(&self.bytes_received),
            ),
            (
                "uploads_in_flight",
                "gauge",
                "Bodies of blobs that are being received.",
                read(&self.receiving),
            ),
            (
                "connections",
                "gauge",
                "Open connections.",
                read(&self.connections),
            ),
            (
                "cache_hits_total",
                "counter",
                "Answers from the cache.",
                read(&self.cache_hits),
            ),
            (
                "cache_misses_total",
                "counter",
                "Answers that an upstream was asked for.",
                read(&self.cache_misses),
            ),
            (
                "cache_stale_total",
                "counter",
                "Answers from the cache while the upstream did not answer.",
                read(&self.cache_stale),
            ),
            (
                "collections_total",
                "counter",
                "Garbage collections.",
                read(&self.collections),
            ),
            (
                "collected_blobs_total",
                "counter",
                "Blobs that were removed as garbage.",
                read(&self.collected_blobs),
            ),
            (
                "collected_bytes_total",
                "counter",
                "Their bytes.",
                read(&self.collected_bytes),
            ),
        ] {
            head(&mut text, name, kind, help);
            let _ = writeln!(text, "gantry_registry_{name} {value}");
        }
        text
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(
        text,
        "# HELP gantry_registry_{name} {help}\n# TYPE gantry_registry_{name} {kind}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_written_once_with_its_kind() {
        let metrics = Metrics::default();
        metrics.answered("blob", "GET", 200, Duration::from_millis(3));
        metrics.answered("blob", "GET", 200, Duration::from_secs(100));
        let gauge = Gauge::hold(&metrics.receiving);
        let text = metrics.text();
        for line in [
            "gantry_registry_requests_total{route=\"blob\",method=\"GET\",status=\"200\"} 2",
            "gantry_registry_request_duration_seconds_bucket{route=\"blob\",le=\"0.005\"} 1",
            "gantry_registry_request_duration_seconds_bucket{route=\"blob\",le=\"+Inf\"} 2",
            "# TYPE gantry_registry_uploads_in_flight gauge",
            "gantry_registry_uploads_in_flight 1",
        ] {
            assert_eq!(
                text.lines().filter(|found| *found == line).count(),
                1,
                "{line}\n{text}"
            );
        }
        drop(gauge);
        assert!(
            metrics
                .text()
                .contains("\ngantry_registry_uploads_in_flight 0\n")
        );
    }
}
