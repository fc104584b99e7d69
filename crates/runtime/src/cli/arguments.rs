//! Flags as runc takes them: `--name value`, `--name=value`, `-n value`; a switch may be given `=true` or `=false`.
//! Positional arguments end the flags of a command.

use std::collections::BTreeMap;

use crate::error::Error;

/// One flag of a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    pub name: &'static str,
    pub short: Option<char>,
    pub kind: Kind,
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Switch,
    Value,
}

pub(super) const fn switch(name: &'static str, short: Option<char>) -> Flag {
    Flag {
        name,
        short,
        kind: Kind::Switch,
    }
}

pub(super) const fn value(name: &'static str, short: Option<char>) -> Flag {
    Flag {
        name,
        short,
        kind: Kind::Value,
    }
}

/// What was given.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    values: BTreeMap<&'static str, Vec<String>>,
    pub positional: Vec<String>,
}

impl Arguments {
    /// Reads flags up to the first positional argument; everything from there on is positional.
    pub fn parse(flags: &[Flag], arguments: &[String]) -> Result<Self, Error> {
        let mut parsed = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if argument == "--" {
                parsed.positional.extend(rest.cloned());
                break;
            }
            let Some(name) = argument.strip_prefix('-').filter(|name| !name.is_empty()) else {
                parsed.positional.push(argument.clone());
                parsed.positional.extend(rest.cloned());
                break;
            };
            let name = name.strip_prefix('-').unwrap_or(name);
            let (name, given) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            let flag = flags
                .iter()
                .find(|flag| {
                    flag.name == name || flag.short.is_some_and(|short| name.chars().eq([short]))
                })
                .ok_or_else(|| {
                    Error::invalid(format!("flag: flag provided but not defined: -{name}"))
                })?;
            let value = match (flag.kind, given) {
                (Kind::Switch, None) => "true".to_owned(),
                (Kind::Switch, Some(value)) if value == "true" || value == "false" => value,
                (Kind::Switch, Some(value)) => {
                    return Err(Error::invalid(format!(
                        "boolean value \"{value}\" for -{name}"
                    )));
                }
                (Kind::Value, Some(value)) => value,
                (Kind::Value, None) => rest.next().cloned().ok_or_else(|| {
                    Error::invalid(format!("flag: flag needs an argument: -{name}"))
                })?,
            };
            parsed.values.entry(flag.name).or_default().push(value);
        }
        Ok(parsed)
    }

    /// The last value of a flag.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values
            .get(name)
            .and_then(|values| values.last())
            .map(String::as_str)
    }

    /// All values of a flag.
    pub fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// Says whether a switch is on.
    pub fn is(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// The number that a flag has.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        self.get(name)
            .map(|value| {
                value
                    .parse()
                    .map_err(|_| Error::invalid(format!("value \"{value}\" for flag -{name}")))
            })
            .transpose()
    }

    /// Refuses, by name, a flag that is understood and not done.
    pub fn refuse(&self, names: &[&str]) -> Result<(), Error> {
        match names
            .iter()
            .find(|name| self.get(name).is_some_and(|value| value != "false"))
        {
            Some(name) => Err(Error::unsupported(format!("`--{name}`"))),
            None => Ok(()),
        }
    }

    /// The only positional argument, a container's id.
    pub fn id(&self, command: &str) -> Result<&str, Error> {
        match self.positional.as_slice() {
            [id] => Ok(id),
            other => Err(Error::invalid(format!(
                "arguments: \"{command}\" requires exactly 1 argument(s), got {}",
                other.len()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        value("bundle", Some('b')),
        switch("detach", Some('d')),
        value("env", Some('e')),
    ];

    fn parse(words: &str) -> Result<Arguments, Error> {
        Arguments::parse(
            FLAGS,
            &words
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn flags_in_all_their_forms() {
        let arguments = parse("-b /x --detach --env=A=1 -e B id sh -c").expect("parse");
        assert_eq!(arguments.get("bundle"), Some("/x"));
        assert!(arguments.is("detach"));
        assert_eq!(arguments.all("env"), ["A=1", "B"]);
        assert_eq!(arguments.positional, ["id", "sh", "-c"]);
        assert!(!parse("--detach=false id").expect("parse").is("detach"));
        assert_eq!(parse("-- -b").expect("parse").positional, ["-b"]);
        parse("--nosuch").expect_err("unknown");
        parse("-b").expect_err("no value");
        parse("--detach=maybe").expect_err("no boolean");
    }
}
