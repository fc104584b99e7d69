//! The policy's file.
//!
//! ```json
//! {
//!   "default": {"action": "accept"},
//!   "rules": [
//!     {"prefix": "registry.example", "action": "reject"},
//!     {"prefix": "registry.example/team", "action": "require", "keys": ["team.pub"]},
//!     {"prefix": "mirror.example/team", "action": "require", "keys": ["team.pub"], "identity": "registry.example/team"}
//!   ]
//! }
//! ```

use super::key::Key;
use crate::{Error, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Says which images must be signed by whom; made from a file.
#[derive(Clone, Debug)]
pub struct SignaturePolicy {
    path: PathBuf,
    default: Demand,
    /// The longest prefix first.
    rules: Vec<(String, Demand)>,
}

/// What is asked of an image.
#[derive(Clone, Debug)]
pub(super) enum Demand {
    Accept,
    Reject,
    Require { keys: Vec<Key>, identity: Identity },
}

/// Which name a signature has to bear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// The repository's own.
    Own,
    /// Any: copies under other names are accepted.
    Any,
    /// One that begins with this: the images were signed there and copied here.
    Below(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Entry,
    #[serde(default)]
    rules: Vec<Rule>,
}

// `flatten` and `deny_unknown_fields` do not go together, so the members stand here once more.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    prefix: String,
    action: Action,
    #[serde(default)]
    keys: Vec<String>,
    identity: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    action: Action,
    #[serde(default)]
    keys: Vec<String>,
    identity: Option<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Action {
    Accept,
    Reject,
    Require,
}

impl SignaturePolicy {
    /// Reads a policy and the keys that it names, whose paths are relative to it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a file that is not understood to the last word: a policy with a slip of the pen must not
    /// accept what was meant to be refused.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(path).map_err(|cause| {
            Error::Invalid(format!("signature policy `{}`: {cause}", path.display()))
        })
    }

    fn parse(path: &Path) -> std::result::Result<Self, String> {
        let text =
            std::fs::read_to_string(path).map_err(|error| gantry_api::error::errno_text(&error))?;
        let file: File = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut rules: Vec<(String, Demand)> = Vec::new();
        for Rule {
            prefix,
            action,
            keys,
            identity,
        } in file.rules
        {
            let prefix = full_prefix(&prefix)?;
            if rules.iter().any(|(other, _)| *other == prefix) {
                return Err(format!("there are two rules for `{prefix}`"));
            }
            let entry = Entry {
                action,
                keys,
                identity,
            };
            let demand =
                demand(entry, directory).map_err(|cause| format!("`{prefix}`: {cause}"))?;
            rules.push((prefix, demand));
        }
        rules.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Ok(Self {
            path: path.to_owned(),
            default: demand(file.default, directory)
                .map_err(|cause| format!("`default`: {cause}"))?,
            rules,
        })
    }

    /// Gives the file that it was read from.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives what is asked of a repository by its full name, and how to call the rule.
    pub(super) fn demand(&self, name: &str) -> (String, &Demand) {
        self.rules
            .iter()
            .find(|(prefix, _)| is_below(name, prefix))
            .map_or_else(
                || ("the default".to_owned(), &self.default),
                |(prefix, demand)| (format!("`{prefix}`"), demand),
            )
    }
}

fn demand(entry: Entry, directory: &Path) -> std::result::Result<Demand, String> {
    let Entry {
        action,
        keys,
        identity,
    } = entry;
    if action != Action::Require {
        if !keys.is_empty() || identity.is_some() {
            return Err("`keys` and `identity` are for the action `require`".to_owned());
        }
        return Ok(match action {
            Action::Reject => Demand::Reject,
            _ => Demand::Accept,
        });
    }
    if keys.is_empty() {
        return Err("the action `require` needs `keys`".to_owned());
    }
    Ok(Demand::Require {
        keys: keys
            .iter()
            .map(|key| read_key(key, directory))
            .collect::<std::result::Result<_, _>>()?,
        identity: match identity.as_deref() {
            None | Some("repository") => Identity::Own,
            Some("any") => Identity::Any,
            Some(prefix) => Identity::Below(full_prefix(prefix)?),
        },
    })
}

/// Reads a key that is written into the policy, or lies in a file.
fn read_key(key: &str, directory: &Path) -> std::result::Result<Key, String> {
    if key.contains("-----BEGIN") {
        return Key::from_pem(key);
    }
    let path = directory.join(key);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        let text = gantry_api::error::errno_text(&error);
        format!("open {}: {text}", path.display())
    })?;
    Key::from_pem(&text).map_err(|cause| format!("key `{}`: {cause}", path.display()))
}

/// Checks that a prefix begins with a registry's host: `nginx` would match nothing, and nobody would notice.
fn full_prefix(prefix: &str) -> std::result::Result<String, String> {
    let prefix = prefix.trim_end_matches('/');
    let host = prefix.split('/').next().unwrap_or_default();
    if !(host.contains('.') || host.contains(':') || host == "localhost") {
        return Err(format!(
            "`{prefix}` does not begin with a registry's host, as `docker.io/library/nginx` does"
        ));
    }
    Ok(prefix.to_owned())
}

/// Tells whether a name is `prefix` or continues it after a slash.
pub(super) fn is_below(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> std::result::Result<SignaturePolicy, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("policy.json");
        std::fs::write(&path, text).expect("a file");
        SignaturePolicy::parse(&path)
    }

    #[test]
    fn the_longest_prefix_counts() {
        let policy = load(
            r#"{"default": {"action": "reject"}, "rules": [
                {"prefix": "a.example", "action": "accept"},
                {"prefix": "a.example/team/", "action": "reject"},
                {"prefix": "a.example/team/open", "action": "accept"}
            ]}"#,
        )
        .expect("a policy");
        for (name, scope, accepted) in [
            ("b.example/x", "the default", false),
            ("a.example/x", "`a.example`", true),
            ("a.example/teams", "`a.example`", true),
            ("a.example/team", "`a.example/team`", false),
            ("a.example/team/x", "`a.example/team`", false),
            ("a.example/team/open/x", "`a.example/team/open`", true),
            ("a.example:5000/x", "the default", false),
        ] {
            let (found, demand) = policy.demand(name);
            assert_eq!(found, scope, "{name}");
            assert_eq!(matches!(demand, Demand::Accept), accepted, "{name}");
        }
    }

    #[test]
    fn a_slip_of_the_pen_is_no_policy() {
        for (text, complaint) in [
            ("", "EOF while parsing"),
            ("{}", "missing field `default`"),
            (
                r#"{"default": {"action": "maybe"}}"#,
                "unknown variant `maybe`",
            ),
            (
                r#"{"default": {"action": "accept"}, "rule": []}"#,
                "unknown field `rule`",
            ),
            (
                r#"{"default": {"action": "require"}}"#,
                "`default`: the action `require` needs `keys`",
            ),
            (
                r#"{"default": {"action": "accept", "keys": ["x"]}}"#,
                "`default`: `keys` and `identity` are for the action `require`",
            ),
            (
                r#"{"default": {"action": "accept"}, "rules": [{"prefix": "nginx", "action": "reject"}]}"#,
                "`nginx` does not begin with a registry's host",
            ),
            (
                r#"{"default": {"action": "accept"}, "rules": [{"prefix": "a.b", "action": "reject"}, {"prefix": "a.b/", "action": "accept"}]}"#,
                "there are two rules for `a.b`",
            ),
            (
                r#"{"default": {"action": "require", "keys": ["absent.pub"]}}"#,
                "no such file or directory",
            ),
        ] {
            let error = load(text).expect_err(text);
            assert!(error.contains(complaint), "{error}");
        }
    }
}
