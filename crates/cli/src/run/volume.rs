//! The `-v` flag: tells binds and named volumes from anonymous volumes.

/// What one `-v` value asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Volume {
    /// `/data`: an anonymous volume, part of the container's configuration.
    Anonymous(String),
    /// `SOURCE:TARGET[:MODE]` with a host path made absolute, or with a volume's name.
    Bind(String),
}

/// Parses a `-v` value.
pub fn parse(spec: &str) -> Result<Volume, String> {
    if spec.is_empty() {
        return Err("invalid empty volume spec".to_owned());
    }
    if spec.len() <= 2 {
        return Ok(Volume::Anonymous(spec.to_owned()));
    }
    let sections = sections(spec);
    let fail = |what: &str| Err(format!("invalid spec: {spec}: {what}"));
    for (index, section) in sections.iter().enumerate() {
        if section.is_empty() {
            return fail("empty section between colons");
        }
        if index == 2 && sections.len() > 3 {
            return fail("too many colons");
        }
    }
    let [source, ..] = sections.as_slice() else {
        return fail("empty section between colons");
    };
    if sections.len() == 1 {
        return Ok(Volume::Anonymous(spec.to_owned()));
    }
    let is_path = source.starts_with(['.', '/', '~']) || is_drive(source);
    if is_path
        && let Some((host, rest)) = spec.split_once(':')
        && host.starts_with('.')
    {
        return Ok(Volume::Bind(format!("{}:{rest}", absolute(host))));
    }
    Ok(Volume::Bind(spec.to_owned()))
}

fn is_drive(source: &str) -> bool {
    let mut chars = source.chars();
    matches!((chars.next(), chars.next()), (Some(c), Some(':')) if c.is_alphabetic())
}

/// Splits at colons; one that follows a single letter belongs to a Windows drive and does not split.
fn sections(spec: &str) -> Vec<String> {
    let mut sections = Vec::new();
    let mut current = String::new();
    for c in spec.chars() {
        let drive =
            c == ':' && current.chars().count() == 1 && current.chars().all(char::is_alphabetic);
        if c == ':' && !drive {
            sections.push(std::mem::take(&mut current));
        } else {
            current.push(c);
        }
    }
    sections.push(current);
    sections
}

/// Makes a path absolute and clean, without looking at the file system beyond the current directory.
pub fn absolute(path: &str) -> String {
    let base = std::env::current_dir().unwrap_or_default();
    clean(&base.join(path).to_string_lossy())
}

/// Cleans a slash-separated path lexically.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: &str, expected: &str) {
        let got = match parse(spec) {
            Ok(Volume::Anonymous(path)) => format!("anonymous {path}"),
            Ok(Volume::Bind(bind)) => format!("bind {bind}"),
            Err(error) => error,
        };
        assert_eq!(got, expected, "{spec}");
    }

    #[test]
    fn volumes() {
        check("/data", "anonymous /data");
        check("/a:/b:ro", "bind /a:/b:ro");
        check("vol:/b", "bind vol:/b");
        // A single letter before the colon is taken for a Windows drive.
        check("v:/d", "anonymous v:/d");
        check("/a", "anonymous /a");
        let here = std::env::current_dir().expect("directory");
        check("./x:/y", &format!("bind {}/x:/y", here.display()));
        check(":/x", "invalid spec: :/x: empty section between colons");
        check("/a:/b:zz:y", "invalid spec: /a:/b:zz:y: too many colons");
    }

    #[test]
    fn paths_are_cleaned() {
        assert_eq!(clean("/a/./b/../c/"), "/a/c");
        assert_eq!(clean("/../x"), "/x");
        assert_eq!(clean("a/.."), ".");
        assert_eq!(clean("../a"), "../a");
    }
}
