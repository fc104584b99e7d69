//! The command line: grammar, commands, tables, templates, progress and exit codes.
//!
//! Its commands, flags, formats, texts and exit codes are Docker's, so that `alias docker=gantry` holds; it is a
//! client of the same API and knows nothing of the engine. [`run`] is the only entry; the roles that are not client
//! commands (`daemon`, `shim`, ...) are dispatched before it. Help, version and usage errors start no async runtime.

pub mod attach;
pub mod cli;
pub mod command;
pub mod completion;
pub mod failure;
pub mod filter;
pub mod format;
pub mod grammar;
pub mod interrupt;
pub mod note;
pub mod order;
pub mod output;
pub mod progress;
pub mod run;
pub mod stamp;
pub mod table;
pub mod template;
pub mod terminal;
pub mod units;

use cli::Cli;
use failure::Outcome;
use grammar::{Found, Matches};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// The version of Docker whose behaviour the commands have; scripts compare it.
pub const DOCKER_VERSION: &str = "28.5.2";
/// Gantry's own version.
pub const GANTRY_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the process around the command line provides.
pub struct Hooks {
    /// Starts a daemon that listens at this socket, and returns once it does.
    pub autostart: fn(&Path) -> std::io::Result<()>,
    /// Runs a command of the registry that is not a client's, by its path and with the global flags; `None` if it is one.
    pub registry: fn(&str, &Matches, &Matches) -> Option<Outcome>,
}

/// Runs one command line; `args` begins with the program's name.
pub fn run(args: &[OsString], hooks: Hooks) -> ExitCode {
    let mut words = args.iter().map(|word| word.to_string_lossy().into_owned());
    let program = words
        .next()
        .as_deref()
        .and_then(|name| name.rsplit('/').next())
        .filter(|name| !name.is_empty())
        .unwrap_or("gantry")
        .to_owned();
    let words: Vec<String> = words.collect();
    if let Some(words) = completion::asked(&words) {
        completion::answer(program, &words);
        return ExitCode::SUCCESS;
    }
    match grammar::find(&program, &words) {
        Found::Failed(usage) => {
            output::error_line(&usage.text);
            ExitCode::from(usage.code)
        }
        Found::Help {
            command,
            words,
            notes,
        } => {
            notes.iter().for_each(|note| output::error_line(note));
            output::out(&help(&command, &words));
            ExitCode::SUCCESS
        }
        Found::Version { .. } => {
            let name = if program == "docker" {
                "Docker".to_owned()
            } else {
                program
            };
            output::line(&format!(
                "{name} version {DOCKER_VERSION}, build gantry-{GANTRY_VERSION}"
            ));
            ExitCode::SUCCESS
        }
        Found::Run {
            command,
            words,
            global,
            matches,
        } => {
            matches.notes.iter().for_each(|note| output::line(note));
            if !command.children.is_empty() {
                let text = help(&command, &words);
                if command.path.is_empty() {
                    output::out(&text);
                } else {
                    output::error_line(text.trim_end_matches('\n'));
                }
                return ExitCode::SUCCESS;
            }
            if let Some(outcome) = (hooks.registry)(command.path, &global, &matches) {
                return finish(outcome);
            }
            let runtime = match tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
            {
                Ok(runtime) => runtime,
                Err(error) => {
                    output::error_line(&format!("start the async runtime: {error}"));
                    return ExitCode::FAILURE;
                }
            };
            let outcome = runtime.block_on(async {
                let cli = Cli::new(program, words, global, hooks)?;
                tokio::select! {
                    biased;
                    outcome = command::dispatch(&cli, command.path, &matches) => outcome,
                    failure = interrupt::interrupted() => Err(failure),
                }
            });
            // Threads may sit in a read of standard input: they end with the process.
            runtime.shutdown_background();
            finish(outcome)
        }
    }
}

fn finish(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                output::error_line(&failure.text);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn help(command: &grammar::Command, words: &str) -> String {
    let directory = gantry_client::config::directory();
    grammar::help::render(
        command,
        words,
        terminal::columns_of_input(),
        &directory.to_string_lossy(),
    )
}
