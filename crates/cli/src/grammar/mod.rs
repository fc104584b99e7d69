//! The command grammar: a table of commands and flags, a parser with the behaviours of pflag and cobra that Docker's
//! users rely on, and the help texts.
//!
//! It is not clap: Docker's usage layout, its error texts, `--flag=false`, clusters such as `-itd`, flags that end at
//! the image name and per-value error messages each need an adapter there, and the table here costs nothing at process
//! start (docs/design/0007-command-grammar.md). Nothing here prints or reads.

pub mod help;
pub mod parse;
mod text;
pub mod values;

use std::borrow::Cow;

pub use parse::{Found, Matches, Usage, find};

/// A flag of a command.
pub struct Flag {
    /// The one-letter form, `\0` if there is none.
    pub short: char,
    pub name: &'static str,
    /// The name of the value's type as the help shows it; empty for a boolean.
    pub value: &'static str,
    /// The help text, with its default.
    pub usage: Cow<'static, str>,
    pub hidden: bool,
    /// What to use instead, if the flag is deprecated.
    pub deprecated: &'static str,
}

/// How many arguments a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Args {
    Any,
    None,
    Exactly(usize),
    AtLeast(usize),
    AtMost(usize),
    Range(usize, usize),
}

/// A command.
pub struct Command {
    /// Its canonical words, such as `container run`; what dispatch goes by.
    pub path: &'static str,
    /// The usage line; `{}` stands for the words it was called by.
    pub usage: String,
    pub short: &'static str,
    /// The long description if it differs from the short one.
    pub long: String,
    /// The line under `Aliases:`.
    pub aliases: &'static str,
    pub args: Args,
    /// By name.
    pub flags: Vec<Flag>,
    pub children: Vec<Child>,
}

/// A command's place under its parent.
pub struct Child {
    pub name: &'static str,
    /// Names that are not shown.
    pub aliases: Vec<&'static str>,
    /// The section of the parent's help: empty for `Commands`, `hidden` for none.
    pub section: &'static str,
    /// The path of the command that it is.
    pub path: &'static str,
}

impl Command {
    /// Says whether flags end at the first argument: what follows belongs to the container's command.
    pub fn flags_end_at_first_argument(&self) -> bool {
        matches!(
            self.path,
            "container run"
                | "container create"
                | "container exec"
                | "container top"
                | "service create"
                | "plugin set"
        )
    }

    /// Finds a child by name or alias.
    pub fn child(&self, name: &str) -> Option<&Child> {
        self.children
            .iter()
            .find(|child| child.name == name || child.aliases.contains(&name))
    }
}
