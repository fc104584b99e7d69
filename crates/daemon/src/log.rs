//! The daemon's own log on stderr: one line an event, in dockerd's text form or as JSON.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use gantry_api::time::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogSettings;

static LEVEL: AtomicU8 = AtomicU8::new(2);

fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 0,
        Level::WARN => 1,
        Level::INFO => 2,
        Level::DEBUG => 3,
        _ => 4,
    }
}

/// Starts the log. A second call changes nothing but the level.
pub fn start(settings: LogSettings) {
    set_level(settings.level);
    let format = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .event_format(Lines {
            json: settings.json,
        });
    let filter = tracing_subscriber::filter::dynamic_filter_fn(|metadata, _| {
        number(*metadata.level()) <= LEVEL.load(Ordering::Relaxed)
            && (metadata.target().starts_with("gantry") || *metadata.level() <= Level::INFO)
    });
    use tracing_subscriber::Layer as _;
    let _ = tracing_subscriber::registry()
        .with(format.with_filter(filter))
        .try_init();
}

/// Changes the level of a running log.
pub fn set_level(level: Level) {
    LEVEL.store(number(level), Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

struct Lines {
    json: bool,
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.others.push((field.name(), text));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = value.to_owned();
        } else {
            self.others.push((field.name(), value.to_owned()));
        }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let time = Timestamp::from(SystemTime::now()).to_rfc3339_fixed();
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        writeln!(writer, "{}", line(&time, level, &fields, self.json))
    }
}

fn line(time: &str, level: &str, fields: &Fields, json: bool) -> String {
    if json {
        let mut object = serde_json::Map::new();
        for (name, value) in &fields.others {
            object.insert((*name).to_owned(), value.as_str().into());
        }
        object.insert("level".to_owned(), level.into());
        object.insert("msg".to_owned(), fields.message.as_str().into());
        object.insert("time".to_owned(), time.into());
        return serde_json::Value::Object(object).to_string();
    }
    let mut text = format!(
        "time={} level={level} msg={}",
        quote(time),
        serde_json::Value::from(fields.message.as_str())
    );
    for (name, value) in &fields.others {
        let _ = write!(text, " {name}={}", quote(value));
    }
    text
}

/// Quotes a value unless all its characters are plain.
fn quote(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        value.to_owned()
    } else {
        serde_json::Value::from(value).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_dockerds() {
        let fields = Fields {
            message: "API listen on /run/gantry.sock".to_owned(),
            others: vec![
                ("container", "abc".to_owned()),
                ("error", "no \"x\"".to_owned()),
            ],
        };
        assert_eq!(
            line("2024-01-01T00:00:00.000000000Z", "info", &fields, false),
            r#"time="2024-01-01T00:00:00.000000000Z" level=info msg="API listen on /run/gantry.sock" container=abc error="no \"x\"""#
        );
        assert_eq!(
            line("T", "info", &fields, true),
            r#"{"container":"abc","error":"no \"x\"","level":"info","msg":"API listen on /run/gantry.sock","time":"T"}"#
        );
    }
}
