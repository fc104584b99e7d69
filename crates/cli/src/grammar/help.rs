//! Help texts in Docker's layout.

use super::{Child, Command, Flag};

/// Renders a command's help. `words` is how it was called, `columns` the terminal's width, `config` the
/// configuration directory that the defaults of the global flags show.
pub fn render(command: &Command, words: &str, columns: usize, config: &str) -> String {
    let program = words.split(' ').next().unwrap_or_default();
    let mut out = format!("Usage:  {}\n\n", command.usage.replace("{}", words));
    let long = if command.long.is_empty() {
        command.short
    } else {
        &command.long
    };
    out.push_str(&renamed(long, program));
    out.push('\n');
    if !command.aliases.is_empty() {
        out.push_str(&format!(
            "\nAliases:\n  {}\n",
            renamed_words(command.aliases, program)
        ));
    }
    let root = command.path.is_empty();
    let groups = |out: &mut String| {
        for (section, title) in [
            ("Common", "Common Commands:"),
            ("Management", "Management Commands:"),
            ("Swarm", "Swarm Commands:"),
            ("", "Commands:"),
        ] {
            let children: Vec<_> = command
                .children
                .iter()
                .filter(|child| child.section == section)
                .collect();
            if !children.is_empty() {
                out.push_str(&format!("\n{title}\n"));
                children.iter().for_each(|child| push_child(out, child));
            }
        }
    };
    if root {
        groups(&mut out);
    }
    if command.flags.iter().any(|flag| !flag.hidden) {
        out.push_str(if root {
            "\nGlobal Options:\n"
        } else {
            "\nOptions:\n"
        });
        out.push_str(&flags(&command.flags, columns.saturating_sub(1), config));
    }
    if !root {
        groups(&mut out);
    }
    if !command.children.is_empty() {
        out.push_str(&format!(
            "\nRun '{words} COMMAND --help' for more information on a command.\n"
        ));
    }
    if root {
        out.push_str(
            "\nFor more help on how to use Docker, head to https://docs.docker.com/go/guides/\n",
        );
    }
    out
}

fn push_child(out: &mut String, child: &Child) {
    let name = child.name;
    let short = Command::of_path(child.path).map_or("", |command| command.short);
    out.push_str(&format!("  {name:<11} {short}\n"));
}

/// Puts the program's name for `docker` where a text shows a command to type.
fn renamed(text: &str, program: &str) -> String {
    if program == "docker" {
        return text.to_owned();
    }
    text.replace("$ docker ", &format!("$ {program} "))
        .replace("    docker manifest", &format!("    {program} manifest"))
}

fn renamed_words(text: &str, program: &str) -> String {
    text.split(", ")
        .map(|words| words.replacen("docker", program, 1))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Renders the flags, wrapped at `columns`.
pub fn flags(flags: &[Flag], columns: usize, config: &str) -> String {
    let mut lines: Vec<(String, String)> = Vec::new();
    for flag in flags.iter().filter(|flag| !flag.hidden) {
        let mut head = match flag.short {
            '\0' => format!("      --{}", flag.name),
            letter => format!("  -{letter}, --{}", flag.name),
        };
        if !flag.value.is_empty() {
            head.push(' ');
            head.push_str(flag.value);
        }
        lines.push((head, flag.usage.replace("/root/.docker", config)));
    }
    let width = lines.iter().map(|(head, _)| head.len()).max().unwrap_or(0) + 3;
    let mut out = String::new();
    for (head, usage) in lines {
        out.push_str(&format!("{head:<width$}{}\n", wrap(width, columns, &usage)));
    }
    out
}

/// Wraps a text that starts in column `indent` so that it ends before `columns`.
fn wrap(mut indent: usize, columns: usize, text: &str) -> String {
    const NARROWEST: usize = 24;
    const SLOP: usize = 5;
    let mut out = String::new();
    let mut room = columns.saturating_sub(indent);
    if room < NARROWEST {
        // Too narrow beside the flags: below them instead.
        indent = 16;
        room = columns.saturating_sub(indent);
        out.push('\n');
        out.push_str(&" ".repeat(indent));
    }
    let margin = format!("\n{}", " ".repeat(indent));
    if room < NARROWEST {
        return text.replace('\n', &out);
    }
    let room = room - SLOP;
    let mut rest = text;
    let mut first = true;
    while first || !rest.is_empty() {
        let (line, after) = cut(room, SLOP, rest);
        if !first {
            out.push_str(&margin);
        }
        out.push_str(&line.replace('\n', &margin));
        rest = after;
        first = false;
    }
    out
}

/// Cuts off one line of at most `room` bytes, or `slop` more if that finishes the text.
fn cut(room: usize, slop: usize, text: &str) -> (&str, &str) {
    if room + slop > text.len() {
        return (text, "");
    }
    let head = &text[..text.floor_char_boundary(room)];
    match head.rfind([' ', '\t', '\n']) {
        None | Some(0) => (text, ""),
        Some(space) => match head.rfind('\n') {
            Some(newline) if newline > 0 && newline < space => {
                (&text[..newline], &text[newline + 1..])
            }
            _ => (&text[..space], &text[space + 1..]),
        },
    }
}
