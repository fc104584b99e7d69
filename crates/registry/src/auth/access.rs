//! The access file: who may do what with which repositories. Pure.
//!
//! ```text
//! # who        repositories      rights
//! anonymous    library/*         pull
//! *            public/**         pull
//! alice        team/**           pull,push,delete
//! root         **                pull,push,delete,admin
//! ```
//! `*` as a user is everybody who logged in; in a pattern it stands for any letters of one component, `**` for any
//! letters at all. Rights of all lines that fit add up. `adopt` lets a push take blobs of the engine beside instead of
//! sending them; `admin` is for what concerns the whole registry: collecting, metrics.

use crate::name::Name;

/// Is something that can be done with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Pull,
    Push,
    Delete,
    /// Takes blobs of the engine beside, whosever they are there.
    Adopt,
    Admin,
}

impl Action {
    /// All actions on repositories, as scopes of tokens name them.
    pub const REPOSITORY: [Self; 3] = [Self::Pull, Self::Push, Self::Delete];

    /// Gives the action's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::Adopt => "adopt",
            Self::Admin => "admin",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [
            Self::Pull,
            Self::Push,
            Self::Delete,
            Self::Adopt,
            Self::Admin,
        ]
        .into_iter()
        .find(|action| action.word() == word)
    }
}

/// Is who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who<'a> {
    Anonymous,
    User(&'a str),
}

/// Is the content of an access file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access(Vec<Line>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    who: String,
    pattern: String,
    rights: Vec<Action>,
}

impl Access {
    /// Reads an access file.
    ///
    /// # Errors
    /// Names the line that cannot be read, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let fail = |why: String| format!("line {}: {why}", number + 1);
            let words: Vec<&str> = line.split_whitespace().collect();
            let [who, pattern, rights] = words.as_slice() else {
                return Err(fail("must be `USER REPOSITORIES RIGHTS`".into()));
            };
            let rights = rights
                .split(',')
                .map(|word| {
                    Action::parse(word).ok_or_else(|| fail(format!("`{word}` is no right")))
                })
                .collect::<Result<_, _>>()?;
            lines.push(Line {
                who: (*who).to_owned(),
                pattern: (*pattern).to_owned(),
                rights,
            });
        }
        Ok(Self(lines))
    }

    /// Tells whether somebody may do something with a repository.
    pub fn allows(&self, who: Who<'_>, name: &Name, action: Action) -> bool {
        self.rights(who)
            .any(|line| line.rights.contains(&action) && fits(&line.pattern, name.as_str()))
    }

    /// Tells whether somebody may do what concerns the whole registry.
    pub fn allows_admin(&self, who: Who<'_>) -> bool {
        self.rights(who)
            .any(|line| line.rights.contains(&Action::Admin))
    }

    fn rights<'a>(&'a self, who: Who<'a>) -> impl Iterator<Item = &'a Line> {
        self.0.iter().filter(move |line| match who {
            Who::Anonymous => line.who == "anonymous",
            Who::User(user) => line.who == user || line.who == "*",
        })
    }
}

/// Tells whether a pattern stands for a name.
fn fits(pattern: &str, name: &str) -> bool {
    if let Some(rest) = pattern.strip_prefix("**") {
        return (0..=name.len()).any(|at| fits(rest, &name[at..]));
    }
    if let Some(rest) = pattern.strip_prefix('*') {
        let component = name.find('/').unwrap_or(name.len());
        return (0..=component).any(|at| fits(rest, &name[at..]));
    }
    match (pattern.chars().next(), name.chars().next()) {
        (None, None) => true,
        (Some(one), Some(two)) if one == two => {
            fits(&pattern[one.len_utf8()..], &name[two.len_utf8()..])
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_names() {
        for (pattern, name, want) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("**", "a/b/c", true),
            ("**/c", "a/b/c", true),
            ("*-dev", "x-dev", true),
            ("*-dev", "x/y-dev", false),
            ("a*/b", "abc/b", true),
        ] {
            assert_eq!(fits(pattern, name), want, "{pattern} {name}");
        }
    }

    #[test]
    fn rights_add_up_and_nobody_has_what_is_not_written() {
        let access = Access::parse(
            "# comment\nanonymous public/* pull\n*  public/** pull,push # all\nalice team/** delete\n\nalice team/a pull\nroot ** pull,admin\n",
        )
        .unwrap();
        let name = |text: &str| Name::parse(text).unwrap();
        let may = |who, text: &str, action| access.allows(who, &name(text), action);
        assert!(may(Who::Anonymous, "public/x", Action::Pull));
        assert!(!may(Who::Anonymous, "public/x", Action::Push));
        assert!(!may(Who::Anonymous, "public/x/y", Action::Pull));
        assert!(may(Who::User("bob"), "public/x/y", Action::Push));
        assert!(!may(Who::User("bob"), "team/a", Action::Pull));
        assert!(may(Who::User("alice"), "team/a", Action::Pull));
        assert!(may(Who::User("alice"), "team/a", Action::Delete));
        assert!(!may(Who::User("alice"), "team/a", Action::Push));
        assert!(access.allows_admin(Who::User("root")));
        assert!(!access.allows_admin(Who::User("alice")));
        // A user who is called so is still one who logged in.
        assert!(!access.allows_admin(Who::Anonymous));
    }

    #[test]
    fn lines_that_cannot_be_read_are_named() {
        for (text, want) in [
            ("a b", "line 1: must be `USER REPOSITORIES RIGHTS`"),
            ("\na b pull,eat", "line 2: `eat` is no right"),
        ] {
            assert_eq!(Access::parse(text).unwrap_err(), want);
        }
    }
}
