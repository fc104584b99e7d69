//! The health check that the flags describe.

use crate::grammar::Matches;
use crate::grammar::values::parse_duration;
use serde_json::{Map, Value, json};

/// Makes the API's `Healthcheck`, null if no flag speaks of one.
pub fn parse(matches: &Matches) -> Result<Value, String> {
    let duration = |flag: &str| matches.get(flag).map_or(Ok(0), parse_duration);
    let command = matches.text("health-cmd");
    let interval = duration("health-interval")?;
    let timeout = duration("health-timeout")?;
    let period = duration("health-start-period")?;
    let start_interval = duration("health-start-interval")?;
    let retries = matches.integer("health-retries").unwrap_or(0);
    let any = !command.is_empty()
        || [interval, timeout, period, start_interval, retries]
            .iter()
            .any(|n| *n != 0);
    if matches.on("no-healthcheck") {
        if any {
            return Err("--no-healthcheck conflicts with --health-* options".to_owned());
        }
        return Ok(json!({"Test": ["NONE"]}));
    }
    if !any {
        return Ok(Value::Null);
    }
    for (flag, value) in [
        ("interval", interval),
        ("timeout", timeout),
        ("retries", retries),
        ("start-period", period),
        ("start-interval", start_interval),
    ] {
        if value < 0 {
            return Err(format!("--health-{flag} cannot be negative"));
        }
    }
    let mut out = Map::new();
    if !command.is_empty() {
        out.insert("Test".to_owned(), json!(["CMD-SHELL", command]));
    }
    for (key, value) in [
        ("Interval", interval),
        ("Timeout", timeout),
        ("StartPeriod", period),
        ("StartInterval", start_interval),
        ("Retries", retries),
    ] {
        if value != 0 {
            out.insert(key.to_owned(), json!(value));
        }
    }
    Ok(Value::Object(out))
}
