//! The progress messages of pull, push, load and import.
//!
//! On a terminal each id has a line that is drawn again, found by moving the cursor up and down as Docker's client
//! does; a bar there also tells how fast it is and what is left. Elsewhere each step is one plain line, and bars are
//! left out.

use crate::failure::{Failure, Outcome};
use crate::{output, terminal, units};
use gantry_api::image::{JsonMessage, ProgressDetail};
use gantry_api::progress;
use gantry_client::Response;
use std::io::Write;
use std::time::{Duration, Instant};

/// Speed is told from here on: before, it says nothing.
const MEASURED_MIN: Duration = Duration::from_millis(500);
/// Columns that speed and remaining time take.
const SPEED_COLUMNS: usize = 24;

/// Reads the messages and shows nothing; an error among them fails.
pub async fn drain(mut response: Response) -> Outcome {
    while let Some(message) = response.next_json::<JsonMessage>().await? {
        fail_on_error(&message)?;
    }
    Ok(())
}

/// Shows the messages on standard output or standard error until their end; an error among them fails.
pub async fn show(mut response: Response, to_error: bool) -> Outcome {
    let mut display = Display {
        terminal: if to_error {
            terminal::error_is_terminal()
        } else {
            terminal::output_is_terminal()
        },
        steps: Vec::new(),
    };
    while let Some(message) = response.next_json::<JsonMessage>().await? {
        fail_on_error(&message)?;
        let size = if to_error {
            terminal::error_size()
        } else {
            terminal::size()
        };
        let text = display.message(&message, size, Instant::now());
        if to_error {
            // Nowhere is left to report a failure to.
            let _ = std::io::stderr().lock().write_all(text.as_bytes());
        } else {
            output::out(&text);
        }
    }
    Ok(())
}

fn fail_on_error(message: &JsonMessage) -> Outcome {
    match &message.error_detail {
        Some(detail) => Err(Failure::new(&detail.message)),
        None if !message.error.is_empty() => Err(Failure::new(&message.error)),
        None => Ok(()),
    }
}

/// What the lines show now.
struct Display {
    terminal: bool,
    /// The ids that have a line, from the top.
    steps: Vec<Step>,
}

/// One line that is drawn again.
struct Step {
    id: String,
    status: String,
    /// When this status was first seen to move, and where it stood.
    since: Option<(Instant, i64)>,
}

impl Display {
    /// Returns what a message writes to a terminal of `size` (rows, columns), or to something else.
    fn message(&mut self, message: &JsonMessage, size: (u16, u16), now: Instant) -> String {
        if message.aux.is_some() {
            return String::new();
        }
        if !message.stream.is_empty() {
            return message.stream.clone();
        }
        let head = match message.id.as_str() {
            "" => String::new(),
            id => format!("{id}: "),
        };
        let status = &message.status;
        let Some(detail) = &message.progress_detail else {
            self.steps.clear();
            return format!("{head}{status}\n");
        };
        let (rows, columns) = (usize::from(size.0), usize::from(size.1));
        if !self.terminal {
            let is_bar = !progress::draw(detail, columns).is_empty();
            return match is_bar {
                true => String::new(),
                false => format!("{head}{status}\n"),
            };
        }
        if message.id.is_empty() {
            self.steps.clear();
            let bar = progress::draw(detail, columns);
            return format!("\x1b[2K\r{status} {bar}\r");
        }
        let mut out = String::new();
        let known = self.steps.iter().position(|step| step.id == message.id);
        let at = known.unwrap_or(self.steps.len());
        if known.is_none() {
            self.steps.push(Step {
                id: message.id.clone(),
                status: String::new(),
                since: None,
            });
            out.push('\n');
        }
        let up = self.steps.len() - at;
        let bar = self.steps[at].bar(status, detail, columns, now);
        // A line above the terminal's first one cannot be reached.
        if rows == 0 || up < rows {
            out.push_str(&format!(
                "\x1b[{up}A\x1b[2K\r{head}{status} {bar}\r\x1b[{up}B"
            ));
        }
        out
    }
}

impl Step {
    /// Draws the bar, with speed and remaining time where there is room for them.
    fn bar(
        &mut self,
        status: &str,
        detail: &ProgressDetail,
        columns: usize,
        now: Instant,
    ) -> String {
        if self.status != status {
            status.clone_into(&mut self.status);
            self.since = None;
        }
        let bar = progress::draw(detail, columns);
        if bar.is_empty() || !detail.units.is_empty() {
            return bar;
        }
        let (start, first) = *self.since.get_or_insert((now, detail.current));
        let elapsed = now.duration_since(start);
        let used = self.id.len() + status.len() + bar.chars().count() + ": ".len() + " ".len();
        if elapsed < MEASURED_MIN || used + SPEED_COLUMNS > columns || detail.current <= first {
            return bar;
        }
        let speed = (detail.current - first) as f64 / elapsed.as_secs_f64();
        let rest = match detail.total - detail.current {
            rest if rest > 0 => format!(" {}", remaining(rest as f64 / speed)),
            _ => String::new(),
        };
        format!("{bar}  {}/s{rest}", units::size(speed, 3))
    }
}

/// Writes seconds as `9s`, `1m09s`, `1h09m`.
fn remaining(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: &str) -> JsonMessage {
        serde_json::from_str(json).expect("a message")
    }

    fn display(terminal: bool) -> Display {
        Display {
            terminal,
            steps: Vec::new(),
        }
    }

    const STEPS: [&str; 6] = [
        r#"{"status":"Pulling from c/app","id":"1"}"#,
        r#"{"status":"Pulling fs layer","progressDetail":{},"id":"aa"}"#,
        r#"{"status":"Downloading","progressDetail":{"current":10,"total":100},"progress":"x","id":"aa"}"#,
        r#"{"status":"Pulling fs layer","progressDetail":{},"id":"bb"}"#,
        r#"{"status":"Pull complete","progressDetail":{},"id":"aa"}"#,
        r#"{"status":"Digest: sha256:cc"}"#,
    ];

    #[test]
    fn without_a_terminal_each_step_is_a_line_and_bars_are_none() {
        let mut display = display(false);
        let text: String = STEPS
            .iter()
            .map(|step| display.message(&message(step), (0, 0), Instant::now()))
            .collect();
        assert_eq!(
            text,
            "1: Pulling from c/app\naa: Pulling fs layer\nbb: Pulling fs layer\naa: Pull complete\nDigest: sha256:cc\n"
        );
    }

    #[test]
    fn on_a_terminal_each_id_has_a_line() {
        let mut display = display(true);
        let text: Vec<String> = STEPS
            .iter()
            .map(|step| display.message(&message(step), (24, 120), Instant::now()))
            .collect();
        let bar = format!("[{}>{}]", "=".repeat(5), " ".repeat(45));
        assert_eq!(
            text,
            [
                "1: Pulling from c/app\n".to_owned(),
                "\n\x1b[1A\x1b[2K\raa: Pulling fs layer \r\x1b[1B".to_owned(),
                format!("\x1b[1A\x1b[2K\raa: Downloading {bar}      10B/100B\r\x1b[1B"),
                "\n\x1b[1A\x1b[2K\rbb: Pulling fs layer \r\x1b[1B".to_owned(),
                "\x1b[2A\x1b[2K\raa: Pull complete \r\x1b[2B".to_owned(),
                "Digest: sha256:cc\n".to_owned(),
            ]
        );
    }

    #[test]
    fn a_bar_tells_speed_and_what_is_left() {
        let mut display = display(true);
        let start = Instant::now();
        let at = |current: u64| {
            message(&format!(
                r#"{{"status":"Pushing","progressDetail":{{"current":{current},"total":9000000}},"id":"aa"}}"#
            ))
        };
        let mut shown = |current: u64, seconds: u64, columns: u16| {
            display.message(
                &at(current),
                (24, columns),
                start + Duration::from_secs(seconds),
            )
        };
        assert!(!shown(1_000_000, 0, 200).contains("/s"));
        let text = shown(3_000_000, 2, 200);
        assert!(text.contains("     3MB/9MB  1MB/s 6s\r"), "{text}");
        assert!(!shown(4_000_000, 3, 40).contains("/s"));
    }

    #[test]
    fn lines_above_the_screen_are_left_alone() {
        let mut display = display(true);
        let step = |id: u32| {
            message(&format!(
                r#"{{"status":"Waiting","progressDetail":{{}},"id":"{id}"}}"#
            ))
        };
        for id in 0..5 {
            display.message(&step(id), (4, 80), Instant::now());
        }
        assert_eq!(display.message(&step(0), (4, 80), Instant::now()), "");
        assert!(
            !display
                .message(&step(3), (4, 80), Instant::now())
                .is_empty()
        );
    }

    #[test]
    fn errors_fail() {
        let error = message(r#"{"errorDetail":{"message":"no space"},"error":"no space"}"#);
        assert_eq!(fail_on_error(&error), Err(Failure::new("no space")));
        assert_eq!(fail_on_error(&message(r#"{"status":"x"}"#)), Ok(()));
    }

    #[test]
    fn times_that_are_left() {
        for (seconds, want) in [
            (0.2, "1s"),
            (59.0, "59s"),
            (69.0, "1m09s"),
            (4_140.0, "1h09m"),
        ] {
            assert_eq!(remaining(seconds), want);
        }
    }
}
