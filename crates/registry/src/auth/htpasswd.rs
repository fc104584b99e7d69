//! The htpasswd file: users and their bcrypt hashes.

use std::collections::HashMap;

/// How dear a new hash is: 2^10 rounds, Apache's and Docker's choice for registries.
const COST: u32 = 10;

/// Is the content of an htpasswd file.
#[derive(Clone, Default)]
pub struct Users(HashMap<String, String>);

impl Users {
    /// Reads an htpasswd file.
    ///
    /// # Errors
    /// Names the line that cannot be read, and why: other hashes than bcrypt are broken today.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((user, hash)) = line.split_once(':') else {
                return Err(format!("line {}: must be `USER:HASH`", number + 1));
            };
            if !["$2y$", "$2a$", "$2b$"]
                .iter()
                .any(|prefix| hash.starts_with(prefix))
            {
                return Err(format!(
                    "line {}: the password of `{user}` is not hashed with bcrypt (`gantry registry passwd`, `htpasswd -B`)",
                    number + 1
                ));
            }
            users.insert(user.to_owned(), hash.to_owned());
        }
        Ok(Self(users))
    }

    /// Gives a user's hash.
    pub fn hash(&self, user: &str) -> Option<&str> {
        self.0.get(user).map(String::as_str)
    }

    /// Tells whether there is such a user.
    pub fn contains(&self, user: &str) -> bool {
        self.0.contains_key(user)
    }
}

/// Compares a password with a hash. Slow by design.
pub fn verify(password: &str, hash: &str) -> bool {
    bcrypt::verify(password, hash).unwrap_or(false)
}

/// A hash that no password has, to be compared with where there is no such user: the answer takes as long.
pub const NOBODY: &str = "$2y$10$abcdefghijklmnopqrstuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu";

/// Makes a line of an htpasswd file.
///
/// # Errors
/// A user's name must not be empty or hold a colon; bcrypt takes 72 bytes of a password.
pub fn line(user: &str, password: &str) -> Result<String, String> {
    if user.is_empty() || user.contains([':', '\n', '\r']) {
        return Err(format!("`{user}` cannot be a user's name"));
    }
    let hash = bcrypt::non_truncating_hash_with_result(password, COST)
        .map_err(|error| format!("hash the password: {error}"))?;
    Ok(format!(
        "{user}:{}",
        hash.format_for_version(bcrypt::Version::TwoY)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_made_lets_its_user_in() {
        let made = line("alice", "s3cret:ü").unwrap();
        let users = Users::parse(&format!("# users\n\n{made}\n")).unwrap();
        let hash = users.hash("alice").unwrap();
        assert!(verify("s3cret:ü", hash));
        assert!(!verify("s3cret", hash));
        assert!(!verify("", NOBODY));
        assert!(users.contains("alice") && !users.contains("bob"));
        assert!(line("a:b", "x").is_err());
        assert!(line("a", &"x".repeat(73)).is_err());
    }

    #[test]
    fn weak_hashes_and_broken_lines_are_refused_by_line() {
        for (text, start) in [
            ("alice", "line 1: must be"),
            ("\nalice:$apr1$x$y", "line 2: the password of `alice`"),
            ("alice:{SHA}x", "line 1: the password of `alice`"),
            ("alice:plain", "line 1: the password of `alice`"),
        ] {
            let error = Users::parse(text).err().unwrap();
            assert!(error.starts_with(start), "{error}");
        }
    }
}
