//! Environment and label files: parsing is apart from reading, which the last two functions do.

use crate::grammar::Matches;
use gantry_client::config::Proxy;

/// Gives the value of a variable that a file names without one.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Parses a file of `KEY=VALUE` lines. `lookup` gives the value of a line without `=`; without one, such
/// a line is dropped, as Docker does with a label file.
pub fn parse_file(text: &str, lookup: Option<Lookup<'_>>) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for line in text.lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (line, None),
        };
        if name.is_empty() {
            return Err(format!("no variable name on line '{line}'"));
        }
        if name.contains(char::is_whitespace) {
            return Err(format!("variable '{name}' contains whitespaces"));
        }
        match (value, lookup) {
            (Some(value), _) => out.push(format!("{name}={value}")),
            (None, Some(lookup)) => out.extend(lookup(name).map(|value| format!("{name}={value}"))),
            (None, None) => {}
        }
    }
    Ok(out)
}

/// Reads files and appends the given pairs: what `--env-file` and `--env`, `--label-file` and `--label` give together.
pub fn read(files: &[String], pairs: &[String], of_process: bool) -> Result<Vec<String>, String> {
    let from_process = |name: &str| std::env::var(name).ok();
    let mut out = Vec::new();
    for file in files {
        let bytes =
            std::fs::read(file).map_err(|error| crate::failure::open_error(file, &error))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            format!(
                "invalid env file ({file}): invalid utf8 bytes at line {}",
                line_of(&error)
            )
        })?;
        let lookup: Option<Lookup<'_>> = of_process.then_some(&from_process);
        out.extend(
            parse_file(&text, lookup)
                .map_err(|error| format!("invalid env file ({file}): {error}"))?,
        );
    }
    out.extend(pairs.iter().cloned());
    Ok(out)
}

fn line_of(error: &std::string::FromUtf8Error) -> usize {
    let valid = error.utf8_error().valid_up_to();
    error.as_bytes()[..valid]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

/// Fills in the process's value for names without `=`, and keeps the last of each name in the place of the first.
pub fn settle(variables: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for variable in variables {
        let name = variable.split('=').next().unwrap_or_default().to_owned();
        match out
            .iter()
            .position(|known| known.split('=').next() == Some(name.as_str()))
        {
            Some(at) => out[at] = variable,
            None => out.push(variable),
        }
    }
    out
}

/// Collects the variables of the proxy, of the flags and of the files that these name.
pub fn of_flags(matches: &Matches, proxy: Option<&Proxy>) -> Result<Vec<String>, String> {
    let given: Vec<String> = matches
        .all("env")
        .into_iter()
        .map(|variable| match std::env::var(&variable) {
            Ok(value) if !variable.contains('=') => format!("{variable}={value}"),
            _ => variable,
        })
        .collect();
    let mut variables = Vec::new();
    for (upper, lower, value) in proxy.map(Proxy::variables).unwrap_or_default() {
        variables.push(format!("{upper}={value}"));
        variables.push(format!("{lower}={value}"));
    }
    variables.extend(given);
    read(&matches.all("env-file"), &settle(variables), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_parsed() {
        let lookup = |name: &str| (name == "HOME").then(|| "/h".to_owned());
        let got = parse_file("# c\n\n A=1=2\nHOME\nNONE\nB=\n", Some(&lookup));
        assert_eq!(
            got,
            Ok(vec![
                "A=1=2".to_owned(),
                "HOME=/h".to_owned(),
                "B=".to_owned()
            ])
        );
        assert_eq!(parse_file("A=1\nB\n", None), Ok(vec!["A=1".to_owned()]));
        assert_eq!(
            parse_file("B C=2", None),
            Err("variable 'B C' contains whitespaces".to_owned())
        );
        assert_eq!(
            parse_file("=x", None),
            Err("no variable name on line '=x'".to_owned())
        );
    }

    #[test]
    fn the_last_value_of_a_name_stands() {
        let got = settle(vec!["A=1".to_owned(), "B".to_owned(), "A=2".to_owned()]);
        assert_eq!(got, ["A=2", "B"]);
    }
}
