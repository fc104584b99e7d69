//! Command lines as the scenarios write them: words, quotes and the `@` names of a session.

/// Splits `line` at blanks; single and double quotes group, a backslash takes the next character as it is (not within
/// single quotes).
pub fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (Some('\''), other) => word.get_or_insert_default().push(other),
            (_, '\\') => word.get_or_insert_default().extend(characters.next()),
            (Some(_), other) => word.get_or_insert_default().push(other),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, blank) if blank.is_whitespace() => words.extend(word.take()),
            (None, other) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

/// Replaces each `@name` in `text` by what `resolve` gives; `@@` is a plain `@`.
pub fn expand(text: &str, resolve: impl Fn(&str) -> String) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find('@') {
        result.push_str(&rest[..position]);
        rest = &rest[position + 1..];
        if let Some(after) = rest.strip_prefix('@') {
            result.push('@');
            rest = after;
            continue;
        }
        let length = rest
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(rest.len());
        if length == 0 {
            result.push('@');
        } else {
            result.push_str(&resolve(&rest[..length]));
        }
        rest = &rest[length..];
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_would() {
        let check = |line: &str, expected: &[&str]| assert_eq!(split(line), expected, "{line}");
        check("a  b\tc", &["a", "b", "c"]);
        check("sh -c 'echo \"x\" \\n'", &["sh", "-c", "echo \"x\" \\n"]);
        check(r#"a "b 'c' \" d" e"#, &["a", "b 'c' \" d", "e"]);
        check("'' x", &["", "x"]);
        check("pre'mid dle'post", &["premid dlepost"]);
        check("", &[]);
    }

    #[test]
    fn names_are_replaced_and_doubled_signs_stay() {
        let check = |text: &str, expected: &str| {
            assert_eq!(expand(text, |name| format!("<{name}>")), expected)
        };
        check("run @bb --name=@web1-x", "run <bb> --name=<web1>-x");
        check("a@@sha256:b @", "a@sha256:b @");
        check("none", "none");
    }
}
