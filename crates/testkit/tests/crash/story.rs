//! What the events tell of each container, collected over all daemons.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use gantry_testkit::engine::Engine;
use serde_json::Value;

/// One event of a container's life.
#[derive(Clone, Debug)]
pub struct Told {
    pub action: String,
    pub exit_code: Option<i64>,
    pub time_ns: i64,
}

/// All that was told since it was made.
pub struct Stories {
    since: u64,
    seen: HashSet<String>,
    by_container: HashMap<String, Vec<Told>>,
}

fn now() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
}

impl Stories {
    /// Begins with the next second, so that nothing of before is half of a story.
    pub fn begin() -> Stories {
        let since = now().as_secs() + 1;
        while now().as_secs() < since {
            std::thread::sleep(Duration::from_millis(20));
        }
        Stories {
            since,
            seen: HashSet::new(),
            by_container: HashMap::new(),
        }
    }

    /// Adds what was told since the last time. The daemon keeps a thousand events, so it has to come often.
    pub fn collect(&mut self, engine: &Engine) -> Vec<String> {
        // Until a moment from now: a daemon waits for the end of what it is asked for.
        let (since, now) = (self.since, now() + Duration::from_millis(5));
        let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
        let filters = "%7B%22type%22%3A%5B%22container%22%5D%7D";
        let path = format!("/events?since={since}&until={until}&filters={filters}");
        let response = engine.api("GET", &path, None);
        self.since = since.max(now.as_secs() - 1);
        let (mut problems, mut here) = (Vec::new(), HashSet::new());
        for line in response.text().lines() {
            if !here.insert(line) {
                problems.push(format!("told twice: {line}"));
            }
            if !self.seen.insert(line.to_owned()) {
                continue;
            }
            let event: Value = serde_json::from_str(line).expect("JSON");
            let told = Told {
                action: event["Action"].as_str().unwrap_or_default().to_owned(),
                exit_code: event["Actor"]["Attributes"]["exitCode"]
                    .as_str()
                    .and_then(|code| code.parse().ok()),
                time_ns: event["timeNano"].as_i64().expect("a time"),
            };
            if matches!(told.action.as_str(), "create" | "start" | "die" | "destroy") {
                let id = event["Actor"]["ID"].as_str().unwrap_or_default();
                self.by_container
                    .entry(id.to_owned())
                    .or_default()
                    .push(told);
            }
        }
        problems
    }

    /// The exit codes that were told of a container.
    pub fn ends(&self, id: &str) -> Vec<i64> {
        let story = self.by_container.get(id).map(Vec::as_slice);
        story
            .unwrap_or_default()
            .iter()
            .filter(|told| told.action == "die")
            .filter_map(|told| told.exit_code)
            .collect()
    }

    /// How many events were told, and the stories that make no sense: created once and first, starts and deaths by turns,
    /// destroyed once and last, and never back in time.
    pub fn check(&self) -> (usize, Vec<String>) {
        let mut problems = Vec::new();
        for (id, story) in &self.by_container {
            let (mut running, mut before) = (false, 0);
            for (index, told) in story.iter().enumerate() {
                let fits = match told.action.as_str() {
                    "create" => index == 0,
                    "start" => index > 0 && !std::mem::replace(&mut running, true),
                    "die" => std::mem::replace(&mut running, false),
                    _ => index + 1 == story.len(),
                };
                if !fits || told.time_ns < before {
                    let all: Vec<String> = story[index.saturating_sub(4)..]
                        .iter()
                        .take(8)
                        .map(|told| format!("{} {}", told.time_ns, told.action))
                        .collect();
                    problems.push(format!("{id}: … {} …", all.join(", ")));
                    break;
                }
                before = told.time_ns;
            }
        }
        (self.seen.len(), problems)
    }
}
