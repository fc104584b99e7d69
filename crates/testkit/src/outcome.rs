//! What a command did: its exit code and its output, and assertions over them.

use std::io::{Read, Seek, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The end of a command.
pub struct Outcome {
    /// The command as a person would write it, for messages.
    pub line: String,
    /// The exit code; 128 plus the signal's number when a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
    expand: Box<dyn Fn(&str) -> String + Send>,
}

/// The beginning and the end of a text, for messages: a log of 200 MB explains nothing.
struct Ends<'a>(&'a str);

impl std::fmt::Debug for Ends<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN_BYTES: usize = 8 << 10;
        let text = self.0;
        if text.len() <= 2 * SHOWN_BYTES {
            return write!(formatter, "{text:?}");
        }
        let begin = text.floor_char_boundary(SHOWN_BYTES);
        let end = text.floor_char_boundary(text.len() - SHOWN_BYTES);
        write!(
            formatter,
            "{:?} … {} bytes … {:?}",
            &text[..begin],
            end - begin,
            &text[end..]
        )
    }
}

impl Outcome {
    /// Sets how assertions replace the `@` names in what is expected.
    pub fn expanding(mut self, expand: impl Fn(&str) -> String + Send + 'static) -> Self {
        self.expand = Box::new(expand);
        self
    }

    #[track_caller]
    fn fail(&self, expected: &str) -> ! {
        panic!(
            "{}\n  expected: {expected}\n  exit code: {}\n  stdout: {:?}\n  stderr: {:?}",
            self.line,
            self.code,
            Ends(&self.stdout),
            Ends(&self.stderr)
        );
    }

    /// Asserts exit code 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        if self.code != 0 {
            self.fail("exit code 0");
        }
        self
    }

    /// Asserts exit code 0 and this very output.
    #[track_caller]
    pub fn prints(self, expected: &str) -> Self {
        let expected = (self.expand)(expected);
        if self.code != 0 || self.stdout != expected {
            self.fail(&format!("exit code 0, stdout {expected:?}"));
        }
        self
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        if self.code != code {
            self.fail(&format!("exit code {code}"));
        }
        self
    }

    /// Asserts the exit code and this very standard error.
    #[track_caller]
    pub fn fails(self, code: i32, stderr: &str) -> Self {
        let stderr = (self.expand)(stderr);
        if self.code != code || self.stderr != stderr {
            self.fail(&format!("exit code {code}, stderr {stderr:?}"));
        }
        self
    }

    /// Asserts the exit code and that standard error holds `part`.
    #[track_caller]
    pub fn fails_with(self, code: i32, part: &str) -> Self {
        let part = (self.expand)(part);
        if self.code != code || !self.stderr.contains(&part) {
            self.fail(&format!("exit code {code}, stderr with {part:?}"));
        }
        self
    }

    /// Asserts that standard output holds `part`.
    #[track_caller]
    pub fn shows(self, part: &str) -> Self {
        let part = (self.expand)(part);
        if !self.stdout.contains(&part) {
            self.fail(&format!("stdout with {part:?}"));
        }
        self
    }

    /// Asserts that standard output does not hold `part`.
    #[track_caller]
    pub fn hides(self, part: &str) -> Self {
        let part = (self.expand)(part);
        if self.stdout.contains(&part) {
            self.fail(&format!("stdout without {part:?}"));
        }
        self
    }

    /// Asserts that standard error holds `part`.
    #[track_caller]
    pub fn warns(self, part: &str) -> Self {
        let part = (self.expand)(part);
        if !self.stderr.contains(&part) {
            self.fail(&format!("stderr with {part:?}"));
        }
        self
    }

    /// Asserts that `holds` is true of standard output.
    #[track_caller]
    pub fn such_that(self, what: &str, holds: impl Fn(&str) -> bool) -> Self {
        if !holds(&self.stdout) {
            self.fail(&format!("stdout such that {what}"));
        }
        self
    }

    /// Standard output without the last line end.
    pub fn text(&self) -> String {
        self.stdout.trim_end_matches('\n').to_owned()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| self.fail(&format!("JSON ({error})")))
    }
}

/// Runs `command` to its end, at most `limit`; standard input is `input`.
///
/// Output goes through unnamed files: a process that outlives the command and holds its output does not hold us.
pub fn run(mut command: Command, line: String, input: &[u8], limit: Duration) -> Outcome {
    let begin = Instant::now();
    let mut files = [
        tempfile::tempfile().expect("make a file"),
        tempfile::tempfile().expect("make a file"),
    ];
    let stdin = if input.is_empty() {
        Stdio::null()
    } else {
        let mut file = tempfile::tempfile().expect("make a file");
        file.write_all(input)
            .and_then(|()| file.rewind())
            .expect("write the input");
        file.into()
    };
    let mut child = command
        .stdin(stdin)
        .stdout(files[0].try_clone().expect("duplicate a file"))
        .stderr(files[1].try_clone().expect("duplicate a file"))
        .spawn()
        .unwrap_or_else(|error| panic!("start `{line}`: {error}"));
    let mut note = "";
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait for a command") {
            break status;
        }
        if begin.elapsed() > limit {
            note = "\n(killed: it took too long)";
            child.kill().expect("kill a command");
        }
        let pause = if begin.elapsed() < Duration::from_millis(500) {
            2
        } else {
            10
        };
        std::thread::sleep(Duration::from_millis(pause));
    };
    let [stdout, stderr] = files.each_mut().map(|file| {
        let mut bytes = Vec::new();
        file.rewind()
            .and_then(|()| file.read_to_end(&mut bytes))
            .expect("read the output");
        String::from_utf8_lossy(&bytes).into_owned()
    });
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    let stderr = stderr + note;
    Outcome {
        line,
        code,
        stdout,
        stderr,
        elapsed: begin.elapsed(),
        expand: Box::new(str::to_owned),
    }
}
