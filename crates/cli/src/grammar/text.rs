//! Reads `commands.txt`, the table of all commands: a block for each, found when it is asked for. `registry.txt` has those
//! that docker has not.
//!
//! ```text
//! # docker container run                     the command's path
//! usage: {} [OPTIONS] IMAGE                   the usage, mostly one line; `{}` stands for the words it was called by
//! short: …                                    what it does, in its parent's list
//! long: …                                     the same in its own help, a line each, if it says more
//! aliases: docker run                         the line under `Aliases:`
//! args: 1..2                                  how many arguments; also `2`, `1..`, `..1`; any number without the line
//! child: ls, list = container ls [Common]     a word after it, words that mean the same, the path, the help's section
//! flags of: container create                  takes these as well; a flag of the same name here goes before
//!   -d, --detach            …                 a flag, its value's type, its text (`\n` new line, `\s` last space)
//!       --net network       (hidden) …        works, and no help shows it
//!       --time int          (deprecated: use --timeout instead) …
//! ```
//! They are constants, so that a process that asks for no command (every shim is one) has nothing of it in its memory.
//! A table that breaks these rules is found by the tests, which read every block.

use std::borrow::Cow;

use super::{Args, Child, Command, Flag};

const TEXTS: [&str; 2] = [include_str!("commands.txt"), include_str!("registry.txt")];

/// The program's name in the paths of the table.
const PROGRAM: &str = "docker";

impl Command {
    /// Reads the command with this path, such as `container run`; the empty path is the program itself.
    pub fn of_path(path: &str) -> Option<Command> {
        let (path, block) = block(path)?;
        let mut command = Command {
            path,
            usage: String::new(),
            short: "",
            long: String::new(),
            aliases: "",
            args: Args::Any,
            flags: Vec::new(),
            children: Vec::new(),
        };
        let (mut usage, mut long) = (Vec::new(), Vec::new());
        for line in block.lines() {
            if line.starts_with(' ') {
                command.flags.push(flag(line)?);
                continue;
            }
            let (key, value) = line.split_once(':')?;
            let value = value.strip_prefix(' ').unwrap_or(value);
            match key {
                "usage" => usage.push(value),
                "short" => command.short = value,
                "long" => long.push(value),
                "aliases" => command.aliases = value,
                "args" => command.args = args(value)?,
                "child" => command.children.push(child(value)?),
                "flags of" => command.flags.extend(Command::of_path(value)?.flags),
                _ => return None,
            }
        }
        command.usage = usage.join("\n");
        command.long = long.join("\n");
        // Of two flags of one name the later one is the command's own.
        command.flags.reverse();
        command.flags.sort_by_key(|flag| flag.name);
        command.flags.dedup_by_key(|flag| flag.name);
        Some(command)
    }
}

/// Returns the path as it stands in the table, and the lines below it.
fn block(path: &str) -> Option<(&'static str, &'static str)> {
    TEXTS.into_iter().find_map(|text| block_of(text, path))
}

fn block_of(text: &'static str, path: &str) -> Option<(&'static str, &'static str)> {
    let head = format!("\n# {}", [PROGRAM, path].join(" ").trim_end());
    let mut from = 0;
    loop {
        let begin = from + text[from..].find(&head)?;
        let line_end = begin + head.len();
        if text[line_end..].starts_with('\n') {
            let path = text[begin + "\n# ".len() + PROGRAM.len()..line_end].trim_start();
            let lines = &text[line_end + 1..];
            return Some((path, lines.split("\n\n").next()?.trim_end_matches('\n')));
        }
        from = line_end;
    }
}

fn args(text: &str) -> Option<Args> {
    Some(match text.split_once("..") {
        None => match text.parse().ok()? {
            0 => Args::None,
            count => Args::Exactly(count),
        },
        Some((low, "")) => Args::AtLeast(low.parse().ok()?),
        Some(("", high)) => Args::AtMost(high.parse().ok()?),
        Some((low, high)) => Args::Range(low.parse().ok()?, high.parse().ok()?),
    })
}

fn child(text: &'static str) -> Option<Child> {
    let (names, place) = text.split_once(" = ")?;
    let (path, section) = match place.split_once(" [") {
        Some((path, section)) => (path, section.strip_suffix(']')?),
        None => (place, ""),
    };
    let mut names = names.split(", ");
    Some(Child {
        name: names.next()?,
        aliases: names.collect(),
        section,
        path,
    })
}

fn flag(line: &'static str) -> Option<Flag> {
    let line = line.trim_start();
    let (short, line) = match line.strip_prefix("--") {
        Some(rest) => ('\0', rest),
        None => {
            let (short, rest) = line.strip_prefix('-')?.split_once(", --")?;
            (short.parse().ok()?, rest)
        }
    };
    // Two spaces part a flag from its text; some have none.
    let (head, text) = line.split_once("  ").unwrap_or((line, ""));
    let (name, value) = head.split_once(' ').unwrap_or((head, ""));
    let mut flag = Flag {
        short,
        name,
        value,
        usage: Cow::Borrowed(""),
        hidden: false,
        deprecated: "",
    };
    let mut text = text.trim_start();
    if let Some(rest) = text.strip_prefix("(hidden) ") {
        (flag.hidden, text) = (true, rest);
    } else if let Some(rest) = text.strip_prefix("(deprecated: ") {
        (flag.deprecated, text) = rest.split_once(") ")?;
        flag.hidden = true;
    }
    flag.usage = if text.contains('\\') {
        text.replace("\\n", "\n").replace("\\s", " ").into()
    } else {
        text.into()
    };
    Some(flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads every block that the table has.
    fn all() -> Vec<Command> {
        TEXTS
            .into_iter()
            .flat_map(str::lines)
            .filter_map(|line| line.strip_prefix("# docker"))
            .map(|path| {
                let path = path.trim_start();
                Command::of_path(path).unwrap_or_else(|| panic!("block `{path}` cannot be read"))
            })
            .collect()
    }

    #[test]
    fn every_block_is_whole_and_reached_from_its_parent() {
        let all = all();
        let mut reached = vec![""];
        for command in &all {
            assert!(
                !command.usage.is_empty() && !command.short.is_empty(),
                "{}",
                command.path
            );
            for child in &command.children {
                assert!(
                    all.iter().any(|command| command.path == child.path),
                    "`{}` leads to `{}`, which is not there",
                    command.path,
                    child.path
                );
                reached.push(child.path);
            }
        }
        for command in &all {
            assert!(
                reached.contains(&command.path),
                "nothing leads to `{}`",
                command.path
            );
            let same = all.iter().filter(|other| other.path == command.path);
            assert_eq!(same.count(), 1, "`{}` stands twice", command.path);
        }
    }

    #[test]
    fn every_flag_has_a_type_that_is_checked_and_stands_once() {
        for command in all() {
            let mut shorts = Vec::new();
            for flag in &command.flags {
                assert!(
                    !flag.name.is_empty() && !flag.name.contains(['=', ':', '(']),
                    "{}",
                    flag.name
                );
                assert!(!flag.value.contains(':'), "{} {}", flag.name, flag.value);
                assert!(
                    flag.short == '\0' || !shorts.contains(&flag.short),
                    "{} -{}",
                    command.path,
                    flag.short
                );
                shorts.push(flag.short);
            }
        }
    }

    #[test]
    fn flags_of_another_command_give_way_to_its_own() {
        let run = Command::of_path("container run").unwrap();
        let create = Command::of_path("container create").unwrap();
        let usage = |command: &Command, name: &str| {
            let flag = command.flags.iter().find(|flag| flag.name == name);
            flag.map(|flag| flag.usage.clone().into_owned())
        };
        assert_eq!(usage(&run, "volume"), usage(&create, "volume"));
        assert_ne!(usage(&run, "pull"), usage(&create, "pull"));
        assert_eq!(
            run.flags.iter().filter(|flag| flag.name == "pull").count(),
            1
        );
        assert!(usage(&create, "detach").is_none());
    }

    #[test]
    fn a_flag_reads_as_it_is_shown() {
        let flag = flag("  -t, --time int   (deprecated: use --timeout instead) Seconds\\nto wait")
            .unwrap();
        assert_eq!((flag.short, flag.name, flag.value), ('t', "time", "int"));
        assert_eq!(
            (flag.deprecated, flag.hidden),
            ("use --timeout instead", true)
        );
        assert_eq!(flag.usage, "Seconds\nto wait");
        let bare = super::flag("      --rm").unwrap();
        assert_eq!(
            (bare.short, bare.name, bare.value, &*bare.usage),
            ('\0', "rm", "", "")
        );
    }
}
