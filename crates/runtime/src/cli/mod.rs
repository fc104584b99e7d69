//! The command line of an OCI runtime, runc's: what Podman, containerd and scripts call.
//!
//! It parses, calls the library and prints. Errors go to standard error and, if named, to the log file, in runc's JSON or
//! text form, because callers read them there.

mod arguments;
mod exec;
mod lifecycle;
mod report;
mod signal;
mod update;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use arguments::{Arguments, Flag, switch, value};

use crate::error::Error;

/// Where states are kept unless `--root` says otherwise.
const ROOT: &str = "/run/gantry/runtime";

const GLOBAL: &[Flag] = &[
    value("root", None),
    value("log", None),
    value("log-format", None),
    switch("debug", None),
    switch("systemd-cgroup", None),
    value("rootless", None),
    value("criu", None),
    switch("help", Some('h')),
    switch("version", Some('v')),
];

const COMMANDS: &str =
    "create delete exec features kill list pause ps resume run spec start state update";

/// What the global flags say.
#[derive(Debug)]
struct Global {
    root: PathBuf,
    log: Option<PathBuf>,
    json: bool,
    debug: bool,
}

impl Global {
    /// Tells one step of a command to whoever asked with `--debug`: in the log file, else on standard error.
    fn debug(&self, step: impl FnOnce() -> String) {
        if self.debug {
            self.tell("debug", &step());
        }
    }

    /// Writes one line of the log, in runc's JSON or text form.
    fn tell(&self, level: &str, text: &str) {
        let time =
            gantry_api::time::Timestamp::from(std::time::SystemTime::now()).to_rfc3339_fixed();
        let line = if self.json {
            serde_json::json!({ "level": level, "msg": text, "time": time }).to_string()
        } else {
            format!("time=\"{time}\" level={level} msg={text:?}")
        };
        match &self.log {
            Some(path) => log(path, &line),
            None => complain(&line),
        }
    }
}

/// A failed command: the text, and the exit code.
struct Failure {
    text: String,
    code: u8,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            text: with_causes(&error),
            code: 1,
        }
    }
}

impl Failure {
    fn named(command: &str, code: u8) -> impl Fn(Error) -> Self + '_ {
        move |error| {
            let text = if command == "exec" {
                error.runc_exec_text()
            } else {
                error.runc_text()
            };
            Self {
                text: format!("{command} failed: {text}"),
                code,
            }
        }
    }
}

fn with_causes(error: &Error) -> String {
    match error {
        Error::NotFound { .. } | Error::Exists { .. } => error.runc_text(),
        _ => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(one) = cause {
                text.push_str(&format!(": {one}"));
                cause = one.source();
            }
            text
        }
    }
}

/// Runs a command; `arguments` without the program's name.
pub fn run(arguments: &[OsString], out: &mut dyn Write) -> ExitCode {
    let mut words = Vec::with_capacity(arguments.len());
    for argument in arguments {
        match argument.to_str() {
            Some(word) => words.push(word.to_owned()),
            None => {
                complain(&format!("argument {argument:?} is not UTF-8"));
                return ExitCode::FAILURE;
            }
        }
    }
    let parsed = match Arguments::parse(GLOBAL, &words) {
        Ok(parsed) => parsed,
        Err(error) => {
            complain(&with_causes(&error));
            return ExitCode::FAILURE;
        }
    };
    let global = Global {
        root: parsed
            .get("root")
            .map_or_else(|| PathBuf::from(ROOT), PathBuf::from),
        log: parsed.get("log").map(PathBuf::from),
        json: parsed.get("log-format") == Some("json"),
        debug: parsed.is("debug"),
    };
    global.debug(|| format!("runtime {:?}", parsed.positional));
    let code = match dispatch(&global, &parsed, out) {
        Ok(code) => code,
        Err(failure) => {
            if global.log.is_some() {
                global.tell("error", &failure.text);
            }
            complain(&failure.text);
            failure.code
        }
    };
    global.debug(|| format!("exit code {code}"));
    ExitCode::from(code)
}

fn dispatch(global: &Global, parsed: &Arguments, out: &mut dyn Write) -> Result<u8, Failure> {
    parsed.refuse(&["systemd-cgroup"])?;
    if parsed.get("criu").is_some_and(|path| !path.is_empty()) {
        // runc has looked for criu on the path since its 1.1 and says so; there are no checkpoints here at all.
        complain("WARNING: --criu ignored (criu binary from $PATH is used); do not use");
    }
    if parsed
        .get("log-format")
        .is_some_and(|format| format != "json" && format != "text")
    {
        return Err(Error::invalid("log-format: neither `text` nor `json`").into());
    }
    if let Some(mode) = parsed
        .get("rootless")
        .filter(|mode| *mode != "auto" && *mode != "false")
    {
        return Err(Error::unsupported(format!("`--rootless {mode}`")).into());
    }
    if parsed.is("version") {
        print(out, &report::version())?;
        return Ok(0);
    }
    let Some((command, rest)) = parsed
        .positional
        .split_first()
        .filter(|_| !parsed.is("help"))
    else {
        print(
            out,
            &format!(
                "usage: gantry runtime [--root DIR] [--log FILE] [--log-format text|json] [--debug] COMMAND\ncommands: {COMMANDS}\n"
            ),
        )?;
        return Ok(0);
    };
    match command.as_str() {
        "create" => lifecycle::create(global, rest),
        "run" => lifecycle::run(global, rest),
        "start" => lifecycle::start(global, rest),
        "kill" => lifecycle::kill(global, rest),
        "delete" => lifecycle::delete(global, rest),
        "pause" => lifecycle::pause(global, rest),
        "resume" => lifecycle::resume(global, rest),
        "exec" => exec::exec(global, rest),
        "state" => report::state(global, rest, out),
        "list" => report::list(global, rest, out),
        "ps" => report::ps(global, rest, out),
        "spec" => report::spec(rest),
        "features" => report::features(rest, out),
        "update" => update::update(global, rest),
        "help" => {
            print(out, &format!("commands: {COMMANDS}\n"))?;
            Ok(0)
        }
        "checkpoint" | "restore" | "events" => {
            Err(Error::unsupported(format!("`{command}`")).into())
        }
        other => Err(Error::invalid(format!("command: no `{other}`; there are {COMMANDS}")).into()),
    }
}

fn print(out: &mut dyn Write, text: &str) -> Result<(), Error> {
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::stage("write", "standard output", error))
}

/// Writes a line to standard error; what that refuses, nobody reads.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn log(path: &Path, line: &str) {
    if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path) {
        let _ = writeln!(file, "{line}");
    }
}
