//! Events: what happened, told once, in order, with its true time.
//!
//! Each event is appended to `events.jsonl` in the exec root before anyone hears of it, so a daemon that is killed
//! replays the same past as the one before it. The file is a ring of the last [`RING`] events. A subscriber that lags
//! behind by more than the channel holds is cut, as Docker does.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::{Filters, Result};

/// Events kept for `since`.
pub const RING: usize = 1024;
/// Lines in the file before it is written anew.
const FILE_LINES_MAX: usize = 8 * RING;
/// Events a subscriber may lag behind.
const LAG_MAX: usize = 4096;

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// `container`, `image`, `volume`, `network`, `daemon`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `create`, `start`, `die`, `exec_create: true`, …
    pub action: String,
    /// Id or name of what it happened to.
    pub id: String,
    pub attributes: BTreeMap<String, String>,
    pub time_ns: i64,
}

/// The events of one engine.
#[derive(Debug)]
pub struct Events {
    inner: Mutex<Inner>,
    sender: broadcast::Sender<Arc<Event>>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    lines: usize,
    ring: VecDeque<Arc<Event>>,
    last_time_ns: i64,
}

/// What a subscriber wants to hear.
#[derive(Clone, Debug, Default)]
pub struct Subscription {
    /// Replays events from this time on.
    pub since_ns: Option<i64>,
    /// Ends at this time; one in the past means replay only.
    pub until_ns: Option<i64>,
    pub filters: Filters,
}

/// A subscriber's end.
#[derive(Debug)]
pub struct Subscriber {
    replay: VecDeque<Arc<Event>>,
    live: Option<broadcast::Receiver<Arc<Event>>>,
    until_ns: Option<i64>,
    filters: Filters,
}

impl Events {
    /// Opens the ring in `exec_root`.
    pub fn open(exec_root: &Path) -> io::Result<Events> {
        let path = exec_root.join("events.jsonl");
        let mut ring = VecDeque::new();
        match std::fs::read(&path) {
            Ok(text) => {
                // A torn last line is an event that nobody was told of.
                for line in text.split(|byte| *byte == b'\n') {
                    if let Ok(event) = serde_json::from_slice::<Event>(line) {
                        push(&mut ring, Arc::new(event));
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = rewrite(&path, &ring)?;
        let last_time_ns = ring.back().map_or(0, |event| event.time_ns);
        let lines = ring.len();
        let (sender, _) = broadcast::channel(LAG_MAX);
        Ok(Events {
            inner: Mutex::new(Inner {
                path,
                file,
                lines,
                ring,
                last_time_ns,
            }),
            sender,
        })
    }

    /// Tells an event that happens now.
    pub fn emit(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        self.emit_at(kind, action, id, attributes, crate::now_ns());
    }

    /// Tells an event that happened at `time_ns`; used for what the daemon missed.
    pub fn emit_at(
        &self,
        kind: &str,
        action: &str,
        id: &str,
        attributes: BTreeMap<String, String>,
        time_ns: i64,
    ) {
        let event = Event {
            kind: kind.to_owned(),
            action: action.to_owned(),
            id: id.to_owned(),
            attributes,
            time_ns,
        };
        let mut inner = self.inner.lock().expect("no holder panics");
        inner.last_time_ns = inner.last_time_ns.max(time_ns);
        let event = Arc::new(event);
        push(&mut inner.ring, event.clone());
        if let Err(error) = inner.append(&event) {
            tracing::warn!(%error, "append to the event ring");
        }
        // No receiver is no error.
        let _ = self.sender.send(event);
    }

    /// Tells whether the ring holds an event of this kind, action and object at `time_ns`: it was told before.
    pub fn was_told(&self, action: &str, id: &str, time_ns: i64) -> bool {
        let inner = self.inner.lock().expect("no holder panics");
        inner
            .ring
            .iter()
            .any(|event| event.id == id && event.action == action && event.time_ns == time_ns)
    }

    /// Counts the live subscribers.
    pub fn listeners(&self) -> u64 {
        self.sender.receiver_count() as u64
    }

    /// Tells whether the ring holds such an event of this object at any time.
    pub fn was_ever_told(&self, action: &str, id: &str) -> bool {
        let inner = self.inner.lock().expect("no holder panics");
        inner
            .ring
            .iter()
            .any(|event| event.id == id && event.action == action)
    }

    /// Tells whether the last start or end of this container in the ring is a start.
    pub fn last_is_start(&self, id: &str) -> bool {
        let inner = self.inner.lock().expect("no holder panics");
        let mut told = inner.ring.iter().rev().filter(|event| event.id == id);
        told.find(|event| event.action == "start" || event.action == "die")
            .is_some_and(|event| event.action == "start")
    }

    /// Subscribes; replayed and live events join without a gap or a double.
    pub fn subscribe(&self, subscription: Subscription) -> Result<Subscriber> {
        let inner = self.inner.lock().expect("no holder panics");
        let live = self.sender.subscribe();
        // `until` alone replays nothing of the past: only a `since` asks for it.
        let replay = match subscription.since_ns {
            None => VecDeque::new(),
            Some(since) => inner
                .ring
                .iter()
                .filter(|event| event.time_ns >= since)
                .cloned()
                .collect(),
        };
        let past = subscription
            .until_ns
            .is_some_and(|until| until <= crate::now_ns());
        Ok(Subscriber {
            replay,
            live: (!past).then_some(live),
            until_ns: subscription.until_ns,
            filters: subscription.filters,
        })
    }
}

impl Subscriber {
    /// Waits for the next event; `None` when `until` has come or the subscriber lagged too far behind.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        while let Some(event) = self.replay.pop_front() {
            if self.until_ns.is_some_and(|until| event.time_ns > until) {
                continue;
            }
            if matches(&event, &self.filters) {
                return Some(event);
            }
        }
        let live = self.live.as_mut()?;
        loop {
            let event = match self.until_ns {
                None => live.recv().await.ok()?,
                Some(until) => {
                    let left = u64::try_from(until - crate::now_ns()).ok()?;
                    match tokio::time::timeout(std::time::Duration::from_nanos(left), live.recv())
                        .await
                    {
                        Ok(event) => event.ok()?,
                        Err(_) => return None,
                    }
                }
            };
            if matches(&event, &self.filters) {
                return Some(event);
            }
        }
    }
}

impl Inner {
    fn append(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.lines += 1;
        if self.lines > FILE_LINES_MAX {
            self.file = rewrite(&self.path, &self.ring)?;
            self.lines = self.ring.len();
        }
        Ok(())
    }
}

fn push(ring: &mut VecDeque<Arc<Event>>, event: Arc<Event>) {
    if ring.len() == RING {
        ring.pop_front();
    }
    ring.push_back(event);
}

fn rewrite(path: &Path, ring: &VecDeque<Arc<Event>>) -> io::Result<File> {
    let temporary = path.with_extension("tmp");
    let mut text = Vec::new();
    for event in ring {
        serde_json::to_writer(&mut text, &**event)?;
        text.push(b'\n');
    }
    // Events tell command lines: they are the owner's alone.
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(&text)?;
    std::fs::rename(&temporary, path)?;
    OpenOptions::new().append(true).open(path)
}

/// What events are told apart by beside their kind's names. A key that is none of these is no reason to leave one out.
const KINDS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "network",
    "node",
    "plugin",
    "secret",
    "service",
    "volume",
];

/// Tells whether `event` passes `filters`: values of one key are alternatives, labels must all match.
fn matches(event: &Event, filters: &Filters) -> bool {
    let attribute = |key: &str| event.attributes.get(key).map(String::as_str);
    filters.iter().all(|(key, values)| {
        let any = |test: &dyn Fn(&str) -> bool| {
            values.is_empty() || values.iter().any(|value| test(value))
        };
        match key.as_str() {
            "type" => any(&|value| event.kind == value),
            "event" => {
                any(&|value| event.action == value || event.action.split(':').next() == Some(value))
            }
            "scope" => any(&|value| value == "local"),
            "label" => values.iter().all(|value| match value.split_once('=') {
                Some((name, wanted)) => attribute(name) == Some(wanted),
                None => event.attributes.contains_key(value),
            }),
            "image" => any(&|value| {
                let same = |reference: &str| reference == value || strip_tag(reference) == value;
                match event.kind.as_str() {
                    "image" => same(&event.id) || attribute("name").is_some_and(same),
                    _ => attribute("image").is_some_and(same),
                }
            }),
            kind if KINDS.contains(&kind) => {
                event.kind == kind
                    && any(&|value| {
                        event.id == value
                            || event.id.starts_with(value) && value.len() >= 12
                            || attribute("name") == Some(value)
                    })
                    || event.kind != kind
                        && kind == "container"
                        && any(&|value| attribute("container") == Some(value))
            }
            // As Docker, which never asks for it.
            _ => true,
        }
    })
}

fn strip_tag(reference: &str) -> &str {
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => reference,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(pairs: &[(&str, &str)]) -> Filters {
        let mut filters = Filters::new();
        for (key, value) in pairs {
            filters
                .entry((*key).to_owned())
                .or_default()
                .push((*value).to_owned());
        }
        filters
    }

    fn event(action: &str) -> Event {
        Event {
            kind: "container".into(),
            action: action.into(),
            id: "0123456789abcdef".into(),
            attributes: [("name", "web"), ("image", "nginx:1"), ("tier", "front")]
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            time_ns: 5,
        }
    }

    #[test]
    fn filters_are_alternatives_within_a_key_and_conjunctions_between_keys() {
        let die = event("die");
        for (pairs, expected) in [
            (vec![], true),
            (vec![("event", "die"), ("event", "start")], true),
            (vec![("event", "start")], false),
            (vec![("type", "image")], false),
            (vec![("container", "web")], true),
            (vec![("container", "other")], false),
            (vec![("image", "nginx")], true),
            (vec![("label", "tier=front")], true),
            (vec![("label", "tier=back")], false),
            (vec![("label", "tier"), ("event", "die")], true),
        ] {
            assert_eq!(matches(&die, &filters(&pairs)), expected, "{pairs:?}");
        }
        assert!(matches(
            &event("exec_create: true"),
            &filters(&[("event", "exec_create")])
        ));
    }

    #[test]
    fn the_ring_survives_the_daemon_and_a_torn_line() {
        let root = tempfile::tempdir().unwrap();
        let events = Events::open(root.path()).unwrap();
        for n in 0..RING + 5 {
            events.emit_at(
                "container",
                "die",
                &n.to_string(),
                BTreeMap::new(),
                n as i64,
            );
        }
        drop(events);
        let mut file = OpenOptions::new()
            .append(true)
            .open(root.path().join("events.jsonl"))
            .unwrap();
        file.write_all(b"{\"type\":\"cont").unwrap();
        let events = Events::open(root.path()).unwrap();
        assert!(events.was_told("die", "7", 7));
        assert!(!events.was_told("die", "2", 2), "older than the ring");
        events.emit_at("container", "start", "x", BTreeMap::new(), 9000);
        drop(events);
        assert!(
            Events::open(root.path())
                .unwrap()
                .was_told("start", "x", 9000)
        );
    }
}
