//! The progress messages of pull, load and import: one line per layer, redrawn on a terminal, plain lines elsewhere.

use crate::failure::{Failure, Outcome};
use crate::{output, terminal, units};
use gantry_client::Response;
use serde_json::Value;
use std::io::Write;

/// Reads the messages and shows nothing; an error among them fails.
pub async fn drain(mut response: Response) -> Outcome {
    while let Some(message) = response.next_json::<Value>().await? {
        fail_on_error(&message)?;
    }
    Ok(())
}

/// Shows the messages on standard output or standard error until their end; an error among them fails.
pub async fn show(mut response: Response, to_error: bool) -> Outcome {
    let terminal = if to_error {
        terminal::error_is_terminal()
    } else {
        terminal::output_is_terminal()
    };
    let mut display = Display {
        to_error,
        terminal,
        width: usize::from(terminal::size().1).max(20),
        layers: Vec::new(),
    };
    while let Some(message) = response.next_json::<Value>().await? {
        fail_on_error(&message)?;
        display.message(&message);
    }
    Ok(())
}

fn fail_on_error(message: &Value) -> Outcome {
    let text = message["errorDetail"]["message"]
        .as_str()
        .or(message["error"].as_str());
    match text {
        Some(text) => Err(Failure::new(text)),
        None => Ok(()),
    }
}

struct Display {
    to_error: bool,
    terminal: bool,
    width: usize,
    /// The ids that have a line, from the top.
    layers: Vec<String>,
}

impl Display {
    fn write(&self, text: &str) {
        if self.to_error {
            // Nowhere is left to report a failure to.
            let _ = std::io::stderr().lock().write_all(text.as_bytes());
        } else {
            output::out(text);
        }
    }

    fn message(&mut self, message: &Value) {
        let id = message["id"].as_str().unwrap_or_default();
        let status = message["status"].as_str().unwrap_or_default();
        if let Some(stream) = message["stream"].as_str() {
            self.write(stream);
            return;
        }
        if status.is_empty() {
            return;
        }
        let detail = &message["progressDetail"];
        let has_progress = detail["current"]
            .as_i64()
            .is_some_and(|current| current > 0);
        if !self.terminal {
            // Bars are for people: a log gets each step once.
            if !has_progress {
                let head = if id.is_empty() {
                    String::new()
                } else {
                    format!("{id}: ")
                };
                self.write(&format!("{head}{status}\n"));
            }
            return;
        }
        if id.is_empty() || message.get("progressDetail").is_none() {
            let head = if id.is_empty() {
                String::new()
            } else {
                format!("{id}: ")
            };
            self.write(&format!("{head}{status}\n"));
            self.layers.clear();
            return;
        }
        let line = format!("{id}: {status} {}", bar(detail, self.width));
        match self.layers.iter().position(|known| known == id) {
            None => {
                self.layers.push(id.to_owned());
                self.write(&format!("\x1b[2K\r{}\n", line.trim_end()));
            }
            Some(at) => {
                let up = self.layers.len() - at;
                self.write(&format!(
                    "\x1b[{up}A\x1b[2K\r{}\r\x1b[{up}B",
                    line.trim_end()
                ));
            }
        }
    }
}

fn bar(detail: &Value, width: usize) -> String {
    let current = detail["current"].as_f64().unwrap_or(0.0);
    let total = detail["total"].as_f64().unwrap_or(0.0);
    if current <= 0.0 && total <= 0.0 {
        return String::new();
    }
    if detail["units"].as_str() == Some("s") {
        return format!("{current} s");
    }
    let shown = units::size(current, 4);
    if total <= 0.0 || current > total {
        return format!("{shown:>8}");
    }
    let numbers = format!("{shown:>8}/{}", units::size(total, 4));
    if width < 70 {
        return numbers;
    }
    let filled = ((current / total * 50.0) as usize).min(50);
    let arrow = if filled < 50 { ">" } else { "" };
    let body = format!("{}{arrow}", "=".repeat(filled));
    format!("[{body:<51}] {numbers}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bars() {
        assert_eq!(bar(&json!({}), 80), "");
        let half = bar(&json!({"current": 500_000, "total": 1_000_000}), 120);
        assert!(half.starts_with("[=========================>"), "{half}");
        assert!(half.ends_with("   500kB/1MB"), "{half}");
        assert_eq!(bar(&json!({"current": 3, "units": "s"}), 80), "3 s");
    }

    #[test]
    fn errors_fail() {
        let message = json!({"errorDetail": {"message": "no space"}, "error": "no space"});
        assert_eq!(fail_on_error(&message), Err(Failure::new("no space")));
        assert_eq!(fail_on_error(&json!({"status": "x"})), Ok(()));
    }
}
