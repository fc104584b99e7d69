//! Shell patterns over slash-separated names, as Go's `path.Match` has them.
//!
//! `*` and `?` do not match `/`; `[a-z]`, `[^a-z]` and `\` before a character are understood.

/// Says that a pattern is malformed; the text is Go's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub(crate) struct BadPattern;

/// Tells whether the whole name matches the pattern.
pub(crate) fn matches(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    check(&pattern)?;
    Ok(run(&pattern, &name))
}

fn run(pattern: &[char], name: &[char]) -> bool {
    // The last star, and where its match would go on after taking one more character.
    let (mut at, mut position) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if at < pattern.len() && pattern[at] == '*' {
            star = Some((at + 1, position));
            at += 1;
            continue;
        }
        if position == name.len() && at == pattern.len() {
            return true;
        }
        if position < name.len()
            && at < pattern.len()
            && let Some(next) = one(pattern, at, name[position])
        {
            at = next;
            position += 1;
            continue;
        }
        match star {
            Some((after, from)) if from < name.len() && name[from] != '/' => {
                star = Some((after, from + 1));
                at = after;
                position = from + 1;
            }
            _ => return false,
        }
    }
}

/// Matches one character; gives the pattern's next position.
fn one(pattern: &[char], at: usize, character: char) -> Option<usize> {
    match pattern[at] {
        '?' => (character != '/').then_some(at + 1),
        '[' => {
            let negated = pattern.get(at + 1) == Some(&'^');
            let mut position = at + 1 + usize::from(negated);
            let mut found = false;
            let mut first = true;
            while first || pattern[position] != ']' {
                first = false;
                let (low, next) = class_character(pattern, position)?;
                position = next;
                let mut high = low;
                if pattern[position] == '-' {
                    (high, position) = class_character(pattern, position + 1)?;
                }
                found |= (low..=high).contains(&character);
            }
            (found != negated && character != '/').then_some(position + 1)
        }
        '\\' => (pattern[at + 1] == character).then_some(at + 2),
        literal => (literal == character).then_some(at + 1),
    }
}

fn class_character(pattern: &[char], at: usize) -> Option<(char, usize)> {
    match pattern.get(at)? {
        '\\' => Some((*pattern.get(at + 1)?, at + 2)),
        literal => Some((*literal, at + 1)),
    }
}

/// Refuses patterns whose brackets or escapes are not closed.
fn check(pattern: &[char]) -> Result<(), BadPattern> {
    let mut at = 0;
    while at < pattern.len() {
        match pattern[at] {
            '\\' => {
                pattern.get(at + 1).ok_or(BadPattern)?;
                at += 2;
            }
            '[' => {
                at += 1 + usize::from(pattern.get(at + 1) == Some(&'^'));
                let mut first = true;
                loop {
                    match pattern.get(at).ok_or(BadPattern)? {
                        ']' if !first => break,
                        ']' | '-' => return Err(BadPattern),
                        _ => {}
                    }
                    first = false;
                    at = class_character(pattern, at).ok_or(BadPattern)?.1;
                    if pattern.get(at) == Some(&'-') {
                        if matches!(pattern.get(at + 1), None | Some(']' | '-')) {
                            return Err(BadPattern);
                        }
                        at = class_character(pattern, at + 1).ok_or(BadPattern)?.1;
                    }
                }
                at += 1;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, name, expected) in [
            ("abc", "abc", Ok(true)),
            ("*", "abc", Ok(true)),
            ("*c", "abc", Ok(true)),
            ("a*", "ab/c", Ok(false)),
            ("a*/b", "abc/b", Ok(true)),
            ("a*/b", "a/c/b", Ok(false)),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", Ok(true)),
            ("ab[c]", "abc", Ok(true)),
            ("ab[^e-g]", "abc", Ok(true)),
            ("ab[^b-d]", "abc", Ok(false)),
            ("a\\*b", "a*b", Ok(true)),
            ("a\\*b", "ab", Ok(false)),
            ("a???b", "aααα", Ok(false)),
            ("a?b", "a/b", Ok(false)),
            ("a[^a]b", "a/b", Ok(false)),
            ("busybox:*", "busybox:1.36", Ok(true)),
            ("*:latest", "a/b:latest", Ok(false)),
            ("*/b:latest", "a/b:latest", Ok(true)),
            ("[\\]a]", "]", Ok(true)),
            ("[", "a", Err(BadPattern)),
            ("[a", "ab", Err(BadPattern)),
            ("[]a]", "]", Err(BadPattern)),
            ("[-x]", "x", Err(BadPattern)),
            ("[x-]", "x", Err(BadPattern)),
            ("a\\", "a", Err(BadPattern)),
            ("*x", "xxx", Ok(true)),
            ("", "", Ok(true)),
            ("", "a", Ok(false)),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
