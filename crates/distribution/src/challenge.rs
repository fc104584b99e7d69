//! `WWW-Authenticate` headers (RFC 9110, 11.6.1). Pure.

/// One challenge: a scheme in lower case and its parameters in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Gives a parameter by its name in lower case.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Gives the parameter, or an empty text.
    pub(crate) fn parameter_or_empty(&self, name: &str) -> &str {
        self.parameter(name).unwrap_or_default()
    }
}

/// Reads all challenges of one header; what does not parse ends the list.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        let after = after.trim_start();
        // A word before `=` is a parameter of the challenge so far, unless nothing but padding of a token68 follows.
        if let (Some(value), Some(challenge)) = (after.strip_prefix('='), challenges.last_mut()) {
            let (value, after) = value_of(value.trim_start());
            challenge
                .parameters
                .push((word.to_ascii_lowercase(), value));
            rest = after;
        } else {
            challenges.push(Challenge {
                scheme: word.to_ascii_lowercase(),
                parameters: Vec::new(),
            });
            rest = after;
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    challenges
}

fn token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Reads a token or a quoted text.
fn value_of(text: &str) -> (String, &str) {
    let Some(inner) = text.strip_prefix('"') else {
        // Some registries leave quotes out around addresses, so everything up to a comma counts.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = inner.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &inner[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(header: &str) -> String {
        parse(header)
            .iter()
            .map(|challenge| format!("{} {:?}", challenge.scheme, challenge.parameters))
            .collect::<Vec<_>>()
            .join(" | ")
    }

    #[test]
    fn challenges_are_read() {
        for (header, expected) in [
            ("", ""),
            ("Basic", "basic []"),
            (
                r#"Basic realm="a, b\"c""#,
                r#"basic [("realm", "a, b\"c")]"#,
            ),
            (
                r#"Bearer realm="https://auth/token",service="s",scope="repository:a/b:pull,push",error="invalid_token""#,
                r#"bearer [("realm", "https://auth/token"), ("service", "s"), ("scope", "repository:a/b:pull,push"), ("error", "invalid_token")]"#,
            ),
            (
                "Bearer realm=https://auth/token?a=b, service = s",
                r#"bearer [("realm", "https://auth/token?a=b"), ("service", "s")]"#,
            ),
            (
                r#"Bearer Realm="r", Basic realm="x""#,
                r#"bearer [("realm", "r")] | basic [("realm", "x")]"#,
            ),
            (r#"Bearer realm="open"#, r#"bearer [("realm", "open")]"#),
            ("==", ""),
        ] {
            assert_eq!(shown(header), expected, "{header}");
        }
    }
}
