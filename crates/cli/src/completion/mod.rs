//! What a shell may put where the cursor stands.
//!
//! `__complete WORD...` answers in the form that docker's own scripts read: a candidate a line, a tab and what it does,
//! and at last `:0` where a file may stand and `:4` where none may. The last word is the one to be completed. Names come
//! from the daemon; one that does not answer at once has none, and none is started for it.

use crate::cli::Cli;
use crate::command::{get, text};
use crate::failure::Outcome;
use crate::grammar::{Command, Flag, Matches};
use crate::{Hooks, filter, output};
use gantry_client::{Query, context};
use serde_json::Value;
use std::time::Duration;

/// The word before those of a line that is to be completed.
const COMPLETE: &str = "__complete";
/// How long the daemon may take: somebody sits before the keyboard.
const PATIENCE: Duration = Duration::from_secs(2);

/// Makes the script for bash of a program with this name.
pub fn script(program: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = program.replace(|c| !is_word(c), "_");
    include_str!("script.bash")
        .replace("@PROGRAM@", program)
        .replace("@NAME@", &name)
}

/// What the candidates are.
#[derive(Debug, PartialEq, Eq)]
enum Candidates {
    /// These lines.
    Lines(Vec<String>),
    /// Objects that the daemon or the configuration knows.
    Objects(Kind),
    /// Whatever the shell knows.
    Files,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Containers,
    Running,
    Stopped,
    Images,
    Networks,
    Volumes,
    Contexts,
}

/// Where the words before the cursor lead.
struct Place {
    command: Command,
    arguments: Vec<String>,
    /// A flag that waits for its value.
    flag: Option<(&'static str, &'static str)>,
    /// No flag may come any more.
    has_ended: bool,
    global: Matches,
}

/// Returns the words that are to be completed, if that is what a command line asks for.
pub fn asked(words: &[String]) -> Option<Vec<String>> {
    let at = words.iter().position(|word| word == COMPLETE)?;
    let (global, rest) = words.split_at(at);
    let before = place(global)?;
    let is_first = before.command.path.is_empty() && before.flag.is_none();
    is_first.then(|| [global, &rest[1..]].concat())
}

/// Prints the candidates for the last of these words.
pub fn answer(program: String, words: &[String]) {
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", words),
    };
    let Some(place) = place(before) else {
        output::line(":0");
        return;
    };
    let (lines, end) = match place.candidates(last) {
        Candidates::Files => (Vec::new(), ":0"),
        Candidates::Lines(lines) => (lines, ":4"),
        Candidates::Objects(kind) => (objects(program, place, kind).unwrap_or_default(), ":4"),
    };
    let wanted = value_of(last);
    let mut out = String::new();
    for line in lines.iter().filter(|line| line.starts_with(wanted)) {
        out.push_str(line);
        out.push('\n');
    }
    output::out(&format!("{out}{end}\n"));
}

/// Returns what is to be completed of a word: of `--flag=value` the value.
fn value_of(word: &str) -> &str {
    match word.split_once('=') {
        Some((flag, value)) if flag.starts_with('-') => value,
        _ => word,
    }
}

fn place(words: &[String]) -> Option<Place> {
    let mut place = Place {
        command: Command::of_path("")?,
        arguments: Vec::new(),
        flag: None,
        has_ended: false,
        global: Matches::default(),
    };
    for word in words {
        let at_root = place.command.path.is_empty();
        if let Some((name, _)) = place.flag.take() {
            if at_root {
                place.global.values.push((name, word.clone()));
            }
        } else if !place.has_ended && word == "--" {
            place.has_ended = true;
        } else if !place.has_ended && word.len() > 1 && word.starts_with('-') {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_str(), None),
            };
            let Some(flag) = place.command.flag(name) else {
                continue;
            };
            match value {
                Some(value) if at_root => place.global.values.push((flag.name, value.to_owned())),
                None if !flag.value.is_empty() => place.flag = Some((flag.name, flag.value)),
                _ => {}
            }
        } else if place.command.children.is_empty() {
            place.arguments.push(word.clone());
            place.has_ended |= place.command.flags_end_at_first_argument();
        } else {
            let path = place.command.child(word)?.path;
            place.command = Command::of_path(path)?;
        }
    }
    Some(place)
}

impl Command {
    /// Finds the flag that a word such as `--name` or `-it` ends with.
    fn flag(&self, word: &str) -> Option<&Flag> {
        match word.strip_prefix("--") {
            Some(name) => self.flags.iter().find(|flag| flag.name == name),
            None => {
                let last = word.chars().last()?;
                self.flags.iter().find(|flag| flag.short == last)
            }
        }
    }
}

impl Place {
    fn candidates(&self, last: &str) -> Candidates {
        if let Some((name, _)) = self.flag {
            return of_flag(name);
        }
        if !self.has_ended && last.starts_with('-') {
            return match last.split_once('=') {
                Some((name, _)) => self
                    .command
                    .flag(name)
                    .map_or(Candidates::Files, |flag| of_flag(flag.name)),
                None => Candidates::Lines(self.flags()),
            };
        }
        if !self.command.children.is_empty() {
            let shown = self.command.children.iter();
            let shown = shown.filter(|child| child.section != "hidden");
            let mut lines: Vec<String> = shown
                .filter_map(|child| {
                    let short = Command::of_path(child.path)?.short;
                    Some(format!("{}\t{short}", child.name))
                })
                .collect();
            lines.sort_unstable();
            return Candidates::Lines(lines);
        }
        of_argument(self.command.path, self.arguments.len())
    }

    fn flags(&self) -> Vec<String> {
        let shown = self.command.flags.iter().filter(|flag| !flag.hidden);
        shown
            .flat_map(|flag| {
                let usage = flag.usage.lines().next().unwrap_or_default();
                let short = (flag.short != '\0').then(|| format!("-{}\t{usage}", flag.short));
                std::iter::once(format!("--{}\t{usage}", flag.name)).chain(short)
            })
            .collect()
    }
}

/// What may be the value of a flag.
fn of_flag(name: &str) -> Candidates {
    let words =
        |words: &[&str]| Candidates::Lines(words.iter().map(|word| (*word).to_owned()).collect());
    match name {
        "network" | "net" => Candidates::Objects(Kind::Networks),
        "volumes-from" | "link" => Candidates::Objects(Kind::Containers),
        "context" => Candidates::Objects(Kind::Contexts),
        "restart" => words(&["no", "always", "on-failure", "unless-stopped"]),
        "pull" => words(&["always", "missing", "never"]),
        "log-level" => words(&["debug", "info", "warn", "error", "fatal"]),
        _ => Candidates::Files,
    }
}

/// What may be an argument of a command, after so many others.
fn of_argument(path: &str, before: usize) -> Candidates {
    let none = || Candidates::Lines(Vec::new());
    let kind = match (path, before) {
        ("container attach" | "container exec", 0) => Kind::Running,
        ("container exec", _) => return Candidates::Files,
        (
            "container kill" | "container pause" | "container stats" | "container stop"
            | "container unpause",
            _,
        )
        | ("container top" | "container port", 0) => Kind::Running,
        ("container start" | "container rm", _) => Kind::Stopped,
        ("container inspect" | "container restart" | "container update" | "container wait", _)
        | ("container diff" | "container export" | "container logs" | "container rename", 0)
        | ("container commit", 0)
        | ("network connect" | "network disconnect", 1) => Kind::Containers,
        (
            "container create" | "container run" | "image history" | "image push" | "image tag",
            0,
        )
        | ("image inspect" | "image rm" | "image save", _) => Kind::Images,
        ("container create" | "container run" | "container cp" | "image import", _) => {
            return Candidates::Files;
        }
        ("network connect" | "network disconnect", 0) | ("network inspect" | "network rm", _) => {
            Kind::Networks
        }
        ("volume inspect" | "volume rm", _) => Kind::Volumes,
        ("context inspect" | "context rm", _)
        | ("context export" | "context update" | "context use", 0) => Kind::Contexts,
        _ => return none(),
    };
    Candidates::Objects(kind)
}

/// Asks for the names of objects that the words before do not name.
fn objects(program: String, place: Place, kind: Kind) -> Outcome<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // No daemon is started for a word.
    let hooks = Hooks {
        autostart: |_| Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)),
        registry: |_, _, _| None,
    };
    let cli = Cli::new(program, String::new(), place.global, hooks)?;
    if kind == Kind::Contexts {
        let known = context::list(&cli.directory)?;
        let mut names: Vec<String> = known.into_iter().map(|context| context.name).collect();
        names.push("default".to_owned());
        return Ok(names);
    }
    let names = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, names(&cli, kind))
            .await
            .unwrap_or_else(|_| Ok(Vec::new()))
    })?;
    let is_new = |name: &String| !place.arguments.contains(name);
    Ok(names.into_iter().filter(is_new).collect())
}

async fn names(cli: &Cli, kind: Kind) -> Outcome<Vec<String>> {
    let states: &[&str] = match kind {
        Kind::Running => &["status=running", "status=paused", "status=restarting"],
        Kind::Stopped => &["status=created", "status=exited", "status=dead"],
        _ => &[],
    };
    let states: Vec<String> = states.iter().map(|state| (*state).to_owned()).collect();
    let filters = filter::collect(&states);
    let query = Query::new()
        .when(
            matches!(kind, Kind::Containers | Kind::Running | Kind::Stopped),
            "all",
            "1",
        )
        .when(!filters.is_empty(), "filters", filters.to_json());
    let path = match kind {
        Kind::Images => "/images/json",
        Kind::Networks => "/networks",
        Kind::Volumes => "/volumes",
        _ => "/containers/json",
    };
    let answer = get(cli.client()?, path, query).await?;
    let list = match kind {
        Kind::Volumes => &answer["Volumes"],
        _ => &answer,
    };
    let names_of = |object: &Value| -> Vec<String> {
        let many = |field: &str| {
            let names = object[field].as_array().into_iter().flatten();
            names.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        match kind {
            Kind::Images => many("RepoTags"),
            Kind::Networks | Kind::Volumes => vec![text(object, "Name").to_owned()],
            _ => {
                // A name with a second slash is a link of another container.
                let names: Vec<String> = many("Names");
                let names = names.iter().filter_map(|name| name.strip_prefix('/'));
                names
                    .filter(|name| !name.contains('/'))
                    .map(str::to_owned)
                    .collect()
            }
        }
    };
    Ok(list
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(names_of)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(line: &str) -> Candidates {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (last, before) = words.split_last().expect("a word");
        place(before).map_or(Candidates::Files, |place| place.candidates(last))
    }

    fn lines(line: &str) -> Vec<String> {
        match candidates(line) {
            Candidates::Lines(lines) => lines,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn commands_and_flags_come_with_what_they_do() {
        let commands = lines("");
        assert!(
            commands.contains(&"network\tManage networks".to_owned()),
            "{commands:?}"
        );
        assert!(!commands.iter().any(|line| line.starts_with("completion")));
        let networks = lines("network ");
        let first = "connect\tConnect a container to a network";
        assert_eq!((networks[0].as_str(), networks.len()), (first, 7));
        let flags = lines("-H x ps --q");
        assert!(
            flags.contains(&"--quiet\tOnly display container IDs".to_owned()),
            "{flags:?}"
        );
        assert!(
            flags.contains(&"-q\tOnly display container IDs".to_owned()),
            "{flags:?}"
        );
    }

    #[test]
    fn completion_is_asked_for_by_the_first_word_that_is_no_flag() {
        let asked = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            asked(&words).map(|words| words.join(" "))
        };
        assert_eq!(asked("__complete ps").as_deref(), Some("ps"));
        assert_eq!(
            asked("-H x -D __complete ps a").as_deref(),
            Some("-H x -D ps a")
        );
        for line in ["run __complete", "-H __complete ps", "ps"] {
            assert_eq!(asked(line), None, "{line}");
        }
    }

    #[test]
    fn every_command_is_led_to() {
        fn walk(words: &str, path: &str) {
            let command = Command::of_path(path).expect("a command");
            for child in &command.children {
                let words = format!("{words}{} ", child.name);
                let there = place(
                    &words
                        .split_whitespace()
                        .map(str::to_owned)
                        .collect::<Vec<_>>(),
                );
                assert_eq!(there.expect(&words).command.path, child.path, "{words}");
                walk(&words, child.path);
            }
        }
        walk("", "");
    }

    #[test]
    fn arguments_and_values_are_of_their_kind() {
        use Kind::*;
        for (line, kind) in [
            ("stop ", Running),
            ("container stop a b", Running),
            ("rm -f ", Stopped),
            ("logs ", Containers),
            ("run ", Images),
            ("run -it --name x --rm ", Images),
            ("run --network ", Networks),
            ("run --network=h", Networks),
            ("network connect ", Networks),
            ("network connect n ", Containers),
            ("volume rm v ", Volumes),
            ("--context ", Contexts),
            ("context use ", Contexts),
            ("rmi ", Images),
        ] {
            assert_eq!(candidates(line), Candidates::Objects(kind), "{line}");
        }
        for line in [
            "run image ",
            "run image -",
            "run -v ",
            "exec c cat ",
            "nosuch ",
            "network nosuch ",
        ] {
            assert_eq!(candidates(line), Candidates::Files, "{line}");
        }
        assert_eq!(
            lines("run --restart "),
            ["no", "always", "on-failure", "unless-stopped"]
        );
        for line in ["logs c ", "ps ", "network connect n c "] {
            assert!(lines(line).is_empty(), "{line}");
        }
    }
}
