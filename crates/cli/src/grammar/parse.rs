//! From words to a command, its flags and its arguments.

use super::{Args, Command, Flag, values};

/// A usage error: what to print on stderr and the exit code.
#[derive(Debug, PartialEq, Eq)]
pub struct Usage {
    pub text: String,
    pub code: u8,
}

/// The values that were given, in order.
#[derive(Debug, Default, Clone)]
pub struct Matches {
    pub values: Vec<(&'static str, String)>,
    pub arguments: Vec<String>,
    /// Notes for stderr about deprecated flags.
    pub notes: Vec<String>,
}

impl Matches {
    /// Returns the last value of a flag.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values
            .iter()
            .rev()
            .find(|(flag, _)| *flag == name)
            .map(|(_, value)| value.as_str())
    }

    /// Returns the last value of a flag, or the empty string.
    pub fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    /// Says whether a boolean flag is on.
    pub fn on(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| values::parse_bool(value) == Ok(true))
    }

    /// Says whether a boolean flag that is on by default was not switched off.
    pub fn on_unless_false(&self, name: &str) -> bool {
        self.get(name)
            .is_none_or(|value| values::parse_bool(value) == Ok(true))
    }

    /// Says whether a flag was given.
    pub fn given(&self, name: &str) -> bool {
        self.values.iter().any(|(flag, _)| *flag == name)
    }

    /// Returns all values of a repeatable flag.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.values
            .iter()
            .filter(|(flag, _)| *flag == name)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// Returns all values of a flag of type `strings`, which are split at commas.
    pub fn all_split(&self, name: &str) -> Vec<String> {
        self.all(name)
            .iter()
            .flat_map(|value| values::parse_csv(value).unwrap_or_else(|_| vec![value.clone()]))
            .collect()
    }

    /// Returns an integer flag; its syntax was checked when it was read.
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.get(name)
            .and_then(|value| values::parse_integer(value).ok())
    }

    /// Returns a size in bytes.
    pub fn bytes(&self, name: &str) -> Option<i64> {
        self.get(name)
            .and_then(|value| values::parse_bytes(value).ok())
    }
}

/// What the words ask for.
pub enum Found {
    /// Run this command; `words` is how it was called, such as `docker ps`.
    Run {
        command: Command,
        words: String,
        global: Matches,
        matches: Matches,
    },
    /// Print a help text on stdout and exit with 0.
    Help {
        command: Command,
        words: String,
        notes: Vec<String>,
    },
    /// Print the version line.
    Version { global: Matches },
    /// Fail.
    Failed(Usage),
}

/// Reads a command that the table has: the tests follow every path in it.
fn in_table(path: &str) -> Command {
    Command::of_path(path).expect("every path of the table leads to a block")
}

/// Finds the command that the words (without the program's name) ask for.
pub fn find(program: &str, words: &[String]) -> Found {
    let root = in_table("");
    let mut global = Matches::default();
    let rest = match parse_flags(&root, words, true, &mut global) {
        Ok(parsed) => parsed,
        Err(message) => {
            return Found::Failed(Usage {
                text: format!(
                    "{message}\n\nUsage:  {program} [OPTIONS] COMMAND [ARG...]\n\nRun '{program} --help' for more information"
                ),
                code: 125,
            });
        }
    };
    if rest.help {
        return Found::Help {
            command: root,
            words: program.to_owned(),
            notes: rest.notes,
        };
    }
    if global.on("version") {
        return Found::Version { global };
    }
    if let Some(level) = global.get("log-level")
        && !matches!(
            level,
            "panic" | "fatal" | "error" | "warn" | "warning" | "info" | "debug" | "trace"
        )
    {
        return Found::Failed(Usage {
            text: format!("Unable to parse logging level: {level}"),
            code: 1,
        });
    }
    let mut words = rest.arguments;
    let mut called = program.to_owned();
    let mut command = root;
    // `help a b` is `a b --help`.
    let asked_help = words.first().is_some_and(|word| word == "help");
    if asked_help {
        words.remove(0);
    }
    while let Some(child) = words.first().and_then(|word| command.child(word)) {
        called = format!("{called} {}", child.name);
        command = in_table(child.path);
        words.remove(0);
        if command.children.is_empty() {
            break;
        }
    }
    if asked_help {
        if command.path.is_empty() && !words.is_empty() {
            return Found::Failed(Usage {
                text: format!("unknown help topic: {}", words.join(" ")),
                code: 1,
            });
        }
        return Found::Help {
            command,
            words: called,
            notes: Vec::new(),
        };
    }
    parse_command(command, called, words, global)
}

fn parse_command(command: Command, called: String, words: Vec<String>, global: Matches) -> Found {
    let mut matches = Matches::default();
    let rest = match parse_flags(
        &command,
        &words,
        command.flags_end_at_first_argument(),
        &mut matches,
    ) {
        Ok(parsed) => parsed,
        Err(message) => {
            return Found::Failed(Usage {
                text: format!(
                    "{message}\n\n{}\n\nRun '{called} --help' for more information",
                    usage_line(&command, &called)
                ),
                code: 125,
            });
        }
    };
    if rest.help {
        return Found::Help {
            command,
            words: called,
            notes: rest.notes,
        };
    }
    matches.arguments = rest.arguments;
    matches.notes = rest.notes;
    if !command.children.is_empty() {
        if let Some(word) = matches.arguments.first() {
            let usage = if command.path.is_empty() {
                String::new()
            } else {
                format!("Usage:  {called}{}\n\n", group_usage(command.path))
            };
            return Found::Failed(Usage {
                text: format!(
                    "{}: unknown command: {called} {word}\n\n{usage}Run '{called} --help' for more information",
                    called.split(' ').next().unwrap_or_default()
                ),
                code: 1,
            });
        }
        return Found::Run {
            command,
            words: called,
            global,
            matches,
        };
    }
    if let Some(text) = count_error(&command, &called, matches.arguments.len()) {
        return Found::Failed(Usage { text, code: 1 });
    }
    Found::Run {
        command,
        words: called,
        global,
        matches,
    }
}

/// Returns what Docker's usage line of a group shows after its name when the word after it is unknown; only some
/// groups have anything there.
fn group_usage(path: &str) -> &'static str {
    match path {
        "volume" | "manifest" => " COMMAND",
        "stack" => " [OPTIONS]",
        _ => "",
    }
}

fn usage_line(command: &Command, called: &str) -> String {
    format!("Usage:  {}", command.usage.replace("{}", called))
}

fn count_error(command: &Command, called: &str, count: usize) -> Option<String> {
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    // The three ways to point at the help are Docker's own.
    let (demand, see) = match command.args {
        Args::Any => return None,
        Args::None if count > 0 => ("accepts no arguments".to_owned(), "Run"),
        Args::Exactly(n) if count != n => (format!("requires {n} argument{}", plural(n)), "Run"),
        Args::AtLeast(n) if count < n => (
            format!("requires at least {n} argument{}", plural(n)),
            "See",
        ),
        Args::AtMost(n) if count > n => (
            format!("requires at most {n} argument{}", plural(n)),
            "SRun",
        ),
        Args::Range(low, high) if count < low || count > high => (
            format!(
                "requires at least {low} and at most {high} argument{}",
                plural(high)
            ),
            "Run",
        ),
        _ => return None,
    };
    let program = called.split(' ').next().unwrap_or_default();
    Some(format!(
        "{program}: '{called}' {demand}\n\n{}\n\n{see} '{called} --help' for more information",
        usage_line(command, called)
    ))
}

struct Rest {
    arguments: Vec<String>,
    help: bool,
    notes: Vec<String>,
}

fn parse_flags(
    command: &Command,
    words: &[String],
    end_at_argument: bool,
    matches: &mut Matches,
) -> Result<Rest, String> {
    let mut rest = Rest {
        arguments: Vec::new(),
        help: false,
        notes: Vec::new(),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            rest.arguments.extend(words.cloned());
            break;
        }
        if let Some(body) = word.strip_prefix("--") {
            long_flag(command, body, &mut words, matches, &mut rest)?;
        } else if word.len() > 1 && word.starts_with('-') {
            short_flags(command, &word[1..], &mut words, matches, &mut rest)?;
        } else {
            rest.arguments.push(word.clone());
            if end_at_argument {
                rest.arguments.extend(words.cloned());
                break;
            }
        }
    }
    Ok(rest)
}

fn long_flag(
    command: &Command,
    body: &str,
    words: &mut std::slice::Iter<'_, String>,
    matches: &mut Matches,
    rest: &mut Rest,
) -> Result<(), String> {
    let (name, value) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (body, None),
    };
    if name.is_empty() || name.starts_with('-') {
        return Err(format!("bad flag syntax: --{body}"));
    }
    if name == "help" {
        rest.help = set_help(value, "--help")?;
        return Ok(());
    }
    let flag = command
        .flags
        .iter()
        .find(|flag| flag.name == name)
        .ok_or_else(|| format!("unknown flag: --{name}"))?;
    let value = match value {
        Some(value) => value.to_owned(),
        None if flag.value.is_empty() => "true".to_owned(),
        None => words
            .next()
            .cloned()
            .ok_or_else(|| format!("flag needs an argument: --{name}"))?,
    };
    set(flag, value, matches, rest)
}

fn short_flags(
    command: &Command,
    cluster: &str,
    words: &mut std::slice::Iter<'_, String>,
    matches: &mut Matches,
    rest: &mut Rest,
) -> Result<(), String> {
    let mut remaining = cluster;
    while let Some(letter) = remaining.chars().next() {
        let after = &remaining[letter.len_utf8()..];
        let Some(flag) = command.flags.iter().find(|flag| flag.short == letter) else {
            if letter == 'h' {
                rest.notes
                    .push("Flag shorthand -h has been deprecated, use --help".to_owned());
                rest.help = true;
                remaining = after;
                continue;
            }
            return Err(format!(
                "unknown shorthand flag: '{letter}' in -{remaining}"
            ));
        };
        if after.len() > 1
            && let Some(value) = after.strip_prefix('=')
        {
            return set(flag, value.to_owned(), matches, rest);
        }
        if flag.value.is_empty() {
            set(flag, "true".to_owned(), matches, rest)?;
            remaining = after;
            continue;
        }
        let value = if after.is_empty() {
            words
                .next()
                .cloned()
                .ok_or_else(|| format!("flag needs an argument: '{letter}' in -{remaining}"))?
        } else {
            after.to_owned()
        };
        return set(flag, value, matches, rest);
    }
    Ok(())
}

fn set_help(value: Option<&str>, shown: &str) -> Result<bool, String> {
    match value {
        None => Ok(true),
        Some(value) => values::parse_bool(value)
            .map_err(|error| format!("invalid argument \"{value}\" for \"{shown}\" flag: {error}")),
    }
}

fn set(flag: &Flag, value: String, matches: &mut Matches, rest: &mut Rest) -> Result<(), String> {
    if flag.name == "help" {
        rest.help = set_help(Some(&value), "--help")?;
        return Ok(());
    }
    if let Err(error) = values::check(flag, &value) {
        let shown = match flag.short {
            '\0' => format!("--{}", flag.name),
            letter => format!("-{letter}, --{}", flag.name),
        };
        return Err(format!(
            "invalid argument {} for \"{shown}\" flag: {error}",
            values::quote(&value)
        ));
    }
    if !flag.deprecated.is_empty() {
        rest.notes.push(format!(
            "Flag --{} has been deprecated, {}",
            flag.name, flag.deprecated
        ));
    }
    matches.values.push((flag.name, value));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let got = match find("docker", &words) {
            Found::Run {
                command, matches, ..
            } => {
                let flags: Vec<_> = matches
                    .values
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                format!(
                    "{} [{}] {}",
                    command.path,
                    flags.join(" "),
                    matches.arguments.join(" ")
                )
            }
            Found::Help { words, .. } => format!("help {words}"),
            Found::Version { .. } => "version".to_owned(),
            Found::Failed(usage) => format!(
                "{} {}",
                usage.code,
                usage.text.lines().next().unwrap_or_default()
            ),
        };
        assert_eq!(got, expected, "{line}");
    }

    #[test]
    fn clusters_and_the_commands_own_flags() {
        check(
            "run -itd --rm busybox sh -c ls",
            "container run [interactive=true tty=true detach=true rm=true] busybox sh -c ls",
        );
        check(
            "run -eA=1 -e=B -v/a:/b -p 80 x",
            "container run [env=A=1 env=B volume=/a:/b publish=80] x",
        );
        check("run -t=false x", "container run [tty=false] x");
        check(
            "exec -it c sh -x",
            "container exec [interactive=true tty=true] c sh -x",
        );
        check("rm c -f", "container rm [force=true] c");
        check("rm -- -f", "container rm [] -f");
        check("logs -n 5 c", "container logs [tail=5] c");
        check("-H unix:///x ps -aq", "container ls [all=true quiet=true] ");
        check("container list", "container ls [] ");
        check("image remove a", "image rm [] a");
    }

    #[test]
    fn usage_errors_have_dockers_text_and_code() {
        check("run --foo", "125 unknown flag: --foo");
        check("run -itQ x", "125 unknown shorthand flag: 'Q' in -Q");
        check("run -e", "125 flag needs an argument: 'e' in -e");
        check("run --name", "125 flag needs an argument: --name");
        check(
            "run -t=foo x",
            "125 invalid argument \"foo\" for \"-t, --tty\" flag: strconv.ParseBool: parsing \"foo\": invalid syntax",
        );
        check("run", "1 docker: 'docker run' requires at least 1 argument");
        check(
            "images a b",
            "1 docker: 'docker images' requires at most 1 argument",
        );
        check("foo", "1 docker: unknown command: docker foo");
        check("-l foo ps", "1 Unable to parse logging level: foo");
        check("help foo", "1 unknown help topic: foo");
        check("ps --=x", "125 bad flag syntax: --=x");
    }

    #[test]
    fn an_unknown_word_shows_the_groups_usage() {
        let usage = |group: &str| match find("docker", &[group.to_owned(), "nosuch".to_owned()]) {
            Found::Failed(usage) => usage.text,
            _ => String::new(),
        };
        assert_eq!(
            usage("volume"),
            "docker: unknown command: docker volume nosuch\n\nUsage:  docker volume COMMAND\n\nRun 'docker volume --help' for more information"
        );
        assert_eq!(
            usage("network"),
            "docker: unknown command: docker network nosuch\n\nUsage:  docker network\n\nRun 'docker network --help' for more information"
        );
    }

    #[test]
    fn help_is_found_at_any_level() {
        check("run --help", "help docker run");
        check("help container run", "help docker container run");
        check("image foo --help", "help docker image");
        check("--help", "help docker");
        check("ps -h", "help docker ps");
        check("-v", "version");
    }
}
