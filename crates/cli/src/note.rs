//! Remarks for people between the lines of a command, in Docker's form: coloured on a terminal, plain elsewhere.

/// Where lines after the first one begin.
const INDENT: &str = "         ";

/// Makes a remark of some lines. What stands in backticks is bold on a terminal.
pub fn info(lines: &[&str], terminal: bool) -> String {
    let head = if terminal {
        "\x1b[1m\x1b[106m\x1b[30mi\x1b[0m\x1b[0m \x1b[96mInfo \u{2192} \x1b[0m\x1b[0m"
    } else {
        " Info -> "
    };
    remark(head, lines, terminal)
}

/// Makes a warning of some lines.
pub fn warning(lines: &[&str]) -> String {
    remark(" Warn -> ", lines, false)
}

fn remark(head: &str, lines: &[&str], terminal: bool) -> String {
    let mut out = String::from("\n");
    for (number, line) in lines.iter().enumerate() {
        out.push_str(if number == 0 { head } else { INDENT });
        out.push_str(&emphasised(line, terminal));
        out.push('\n');
    }
    out
}

fn emphasised(line: &str, terminal: bool) -> String {
    if !terminal {
        return line.replace('`', "");
    }
    let mut out = String::from("\x1b[3m");
    for (number, part) in line.split('`').enumerate() {
        match number % 2 {
            0 => out.push_str(part),
            _ => out.push_str(&format!("\x1b[1m{part}\x1b[0m")),
        }
    }
    out.push_str("\x1b[0m");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_are_dockers() {
        assert_eq!(
            info(&["Using `--x` now.", ""], false),
            "\n Info -> Using --x now.\n         \n"
        );
        assert_eq!(
            info(&["Using `--x` now."], true),
            "\n\x1b[1m\x1b[106m\x1b[30mi\x1b[0m\x1b[0m \x1b[96mInfo \u{2192} \x1b[0m\x1b[0m\x1b[3mUsing \x1b[1m--x\x1b[0m now.\x1b[0m\n"
        );
    }
}
