//! Dockerfile instructions that change an image's configuration: `import --change`, `commit --change`.
//!
//! Only instructions that run nothing and copy nothing are understood. Variables (`$NAME`, `${NAME}`, `${NAME:-x}`,
//! `${NAME:+x}`) are taken from the configuration's own environment.

use crate::error::{Error, Result};
use gantry_api::oci::image::{Healthcheck, RunConfig};
use serde_json::{Map, Value};

/// Applies instructions in order.
///
/// # Errors
/// Names the instruction that is unknown or malformed.
pub(crate) fn apply(config: &mut RunConfig, changes: &[String]) -> Result<()> {
    for change in changes {
        // A change may hold several lines, as the Dockerfile it is a piece of; a backslash joins them.
        let joined = change.replace("\\\r\n", "").replace("\\\n", "");
        for line in joined
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            instruction(config, line)?;
        }
    }
    Ok(())
}

fn instruction(config: &mut RunConfig, line: &str) -> Result<()> {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (name, rest) = (name.to_ascii_uppercase(), rest.trim());
    let known = [
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "LABEL",
        "ONBUILD",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ];
    if !known.contains(&name.as_str()) {
        return Err(Error::invalid(format!(
            "{name} is not a valid change command"
        )));
    }
    if rest.is_empty() {
        let text = match name.as_str() {
            "CMD" | "ENTRYPOINT" => {
                // Both may be emptied.
                let emptied = Some(Vec::new());
                if name == "CMD" {
                    config.cmd = emptied
                } else {
                    config.entrypoint = emptied
                }
                return Ok(());
            }
            "USER" | "WORKDIR" | "STOPSIGNAL" => format!("{name} requires exactly one argument"),
            _ => format!("{name} requires at least one argument"),
        };
        return Err(Error::invalid(text));
    }
    match name.as_str() {
        "CMD" => config.cmd = Some(command(config, rest)),
        "ENTRYPOINT" => {
            config.entrypoint = Some(command(config, rest));
            config.cmd = None;
        }
        "ENV" => {
            for (key, value) in pairs(&name, rest, config)? {
                set_env(config.env.get_or_insert_default(), &key, &value);
            }
        }
        "LABEL" => {
            let pairs = pairs(&name, rest, config)?;
            config.labels.get_or_insert_default().extend(pairs);
        }
        "EXPOSE" => {
            for word in words(rest, config)? {
                let ports = ports(&word)?;
                let exposed = config.exposed_ports.get_or_insert_default();
                exposed.extend(
                    ports
                        .into_iter()
                        .map(|port| (port, Value::Object(Map::new()))),
                );
            }
        }
        "VOLUME" => {
            let paths = match exec_form(rest) {
                Some(list) => list,
                None => words(rest, config)?,
            };
            for path in paths {
                let path = path.trim();
                if path.is_empty() {
                    return Err(Error::invalid(
                        "VOLUME specified can not be an empty string",
                    ));
                }
                config
                    .volumes
                    .get_or_insert_default()
                    .insert(path.to_owned(), Value::Object(Map::new()));
            }
        }
        "USER" => config.user = single(&name, rest, config)?,
        "WORKDIR" => {
            let path = words(rest, config)?.join(" ");
            config.working_dir = workdir(&config.working_dir, &path);
        }
        "STOPSIGNAL" => {
            let signal = single(&name, rest, config)?;
            if !is_signal(&signal) {
                return Err(Error::invalid(format!("invalid signal: {signal}")));
            }
            config.stop_signal = signal;
        }
        "SHELL" => match exec_form(rest) {
            Some(shell) if !shell.is_empty() => config.shell = Some(shell),
            _ => {
                return Err(Error::invalid(
                    "SHELL requires the arguments to be in JSON form",
                ));
            }
        },
        "ONBUILD" => {
            let trigger = rest
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_ascii_uppercase();
            match trigger.as_str() {
                "ONBUILD" => {
                    return Err(Error::invalid(
                        "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
                    ));
                }
                "MAINTAINER" | "FROM" => {
                    return Err(Error::invalid(format!(
                        "{trigger} isn't allowed as an ONBUILD trigger"
                    )));
                }
                _ => config
                    .on_build
                    .get_or_insert_default()
                    .push(rest.to_owned()),
            }
        }
        _ => config.healthcheck = Some(healthcheck(rest)?),
    }
    Ok(())
}

/// Reads a command: a JSON list as it is, anything else through the shell.
fn command(config: &RunConfig, rest: &str) -> Vec<String> {
    exec_form(rest).unwrap_or_else(|| {
        let shell = config.shell.clone().filter(|shell| !shell.is_empty());
        let mut words = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
        words.push(rest.to_owned());
        words
    })
}

fn exec_form(rest: &str) -> Option<Vec<String>> {
    if rest.starts_with('[') {
        serde_json::from_str(rest).ok()
    } else {
        None
    }
}

fn single(name: &str, rest: &str, config: &RunConfig) -> Result<String> {
    match <[String; 1]>::try_from(words(rest, config)?) {
        Ok([word]) => Ok(word),
        Err(_) => Err(Error::invalid(format!(
            "{name} requires exactly one argument"
        ))),
    }
}

fn set_env(env: &mut Vec<String>, key: &str, value: &str) {
    let new = format!("{key}={value}");
    let same = env
        .iter_mut()
        .find(|old| old.split_once('=').map_or(old.as_str(), |(old, _)| old) == key);
    match same {
        Some(old) => *old = new,
        None => env.push(new),
    }
}

/// Reads `key=value ...`, or the old form `key value` whose value is the rest of the line.
fn pairs(name: &str, rest: &str, config: &RunConfig) -> Result<Vec<(String, String)>> {
    let first = raw_words(rest)?.into_iter().next().unwrap_or_default();
    if !first.contains('=') {
        let (key, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::invalid(format!("{name} must have two arguments")))?;
        return Ok(vec![(
            unquote(key, config)?,
            unquote(value.trim(), config)?,
        )]);
    }
    let mut pairs = Vec::new();
    for word in raw_words(rest)? {
        let syntax =
            format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value");
        let (key, value) = word.split_once('=').ok_or_else(|| Error::invalid(syntax))?;
        let key = unquote(key, config)?;
        if key.is_empty() {
            return Err(Error::invalid(format!("{name} names can not be blank")));
        }
        pairs.push((key, unquote(value, config)?));
    }
    Ok(pairs)
}

fn words(rest: &str, config: &RunConfig) -> Result<Vec<String>> {
    raw_words(rest)?
        .iter()
        .map(|word| unquote(word, config))
        .collect()
}

/// Splits at spaces that are neither quoted nor escaped; quotes and escapes stay.
fn raw_words(text: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None | Some('"'), '\\') => {
                word.push('\\');
                word.extend(characters.next());
            }
            (None, '"' | '\'') => {
                quote = Some(character);
                word.push(character);
            }
            (Some(open), close) if open == close => {
                quote = None;
                word.push(close);
            }
            (None, space) if space.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, other) => word.push(other),
        }
    }
    if quote.is_some() {
        return Err(Error::invalid(format!(
            "unexpected end of statement while looking for matching quote in `{text}`"
        )));
    }
    if !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

/// Takes quotes and escapes away and expands variables outside single quotes.
fn unquote(text: &str, config: &RunConfig) -> Result<String> {
    let mut result = String::new();
    let mut quote = None;
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match (quote, character) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), other) => result.push(other),
            (None, '\'' | '"') => quote = Some(character),
            (_, '\\') => match rest.chars().next() {
                Some(next) => {
                    if quote == Some('"') && !matches!(next, '"' | '$' | '\\') {
                        result.push('\\');
                    }
                    result.push(next);
                    rest = &rest[next.len_utf8()..];
                }
                None => result.push('\\'),
            },
            (_, '$') => rest = variable(rest, config, &mut result)?,
            (_, other) => result.push(other),
        }
    }
    Ok(result)
}

/// Expands what follows a `$`; gives what is left.
fn variable<'a>(rest: &'a str, config: &RunConfig, result: &mut String) -> Result<&'a str> {
    let name_end = |text: &str| {
        text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(text.len())
    };
    let lookup = |name: &str| {
        let list = config.env.iter().flatten();
        list.filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    };
    let Some(inner) = rest.strip_prefix('{') else {
        let end = name_end(rest);
        if end == 0 {
            result.push('$');
        } else {
            result.push_str(&lookup(&rest[..end]).unwrap_or_default());
        }
        return Ok(&rest[end..]);
    };
    let bad = || Error::invalid(format!("syntax error: bad substitution: `${rest}`"));
    let (body, after) = inner.split_once('}').ok_or_else(bad)?;
    let end = name_end(body);
    let value = lookup(&body[..end]).filter(|value| !value.is_empty());
    let word = &body[end..];
    if end == 0 {
        return Err(bad());
    }
    if word.is_empty() {
        result.push_str(&value.unwrap_or_default());
    } else if let Some(default) = word.strip_prefix(":-") {
        result.push_str(value.as_deref().unwrap_or(default));
    } else if let Some(alternative) = word.strip_prefix(":+") {
        result.push_str(if value.is_some() { alternative } else { "" });
    } else {
        return Err(bad());
    }
    Ok(after)
}

/// Reads `port[-port][/protocol]`.
fn ports(text: &str) -> Result<Vec<String>> {
    let bad = || Error::invalid(format!("invalid containerPort: {text}"));
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Error::invalid(format!("invalid proto: {protocol}")));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().map_err(|_| bad());
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(bad());
    }
    Ok((first..=last)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

/// Joins a relative directory to the present one and cleans it.
fn workdir(present: &str, path: &str) -> String {
    let joined = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{present}/{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u32>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        return offset.is_empty()
            || offset
                .strip_prefix('+')
                .is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n <= 15));
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        return offset.is_empty()
            || offset
                .strip_prefix('-')
                .is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n <= 14));
    }
    const NAMES: &str = "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT \
                         STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ";
    NAMES.split_whitespace().any(|known| known == name)
}

fn healthcheck(rest: &str) -> Result<Healthcheck> {
    let mut check = Healthcheck::default();
    let mut rest = rest;
    let mut flagged = false;
    while let Some(flag) = rest.strip_prefix("--") {
        let (word, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        rest = after.trim_start();
        flagged = true;
        let (key, value) = word
            .split_once('=')
            .ok_or_else(|| Error::invalid(format!("Missing a value on flag: {word}")))?;
        let duration = || -> Result<i64> {
            let nanos =
                gantry_api::time::parse_duration(value).and_then(|nanos| i64::try_from(nanos).ok());
            let nanos =
                nanos.ok_or_else(|| Error::invalid(format!("time: invalid duration {value:?}")))?;
            if nanos != 0 && nanos < 1_000_000 {
                return Err(Error::invalid(format!(
                    "Interval {key:?} cannot be less than 1ms"
                )));
            }
            Ok(nanos)
        };
        match key {
            "interval" => check.interval = duration()?,
            "timeout" => check.timeout = duration()?,
            "start-period" => check.start_period = duration()?,
            "start-interval" => check.start_interval = duration()?,
            "retries" => {
                let retries = value.parse::<i64>().ok().filter(|retries| *retries >= 0);
                check.retries = retries.ok_or_else(|| {
                    Error::invalid(format!(
                        "--retries cannot be negative or no number ({value})"
                    ))
                })?;
            }
            _ => return Err(Error::invalid(format!("Unknown flag: {key}"))),
        }
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if flagged => Err(Error::invalid("HEALTHCHECK NONE takes no arguments")),
        "NONE" if command.is_empty() => Ok(Healthcheck {
            test: vec!["NONE".to_owned()],
            ..check
        }),
        "NONE" => Err(Error::invalid("HEALTHCHECK NONE takes no arguments")),
        "CMD" => {
            let command = command.trim();
            if command.is_empty() {
                return Err(Error::invalid("Missing command after HEALTHCHECK CMD"));
            }
            check.test = match exec_form(command) {
                Some(mut words) => {
                    words.insert(0, "CMD".to_owned());
                    words
                }
                None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
            };
            Ok(check)
        }
        other => Err(Error::invalid(format!(
            "Unknown type {other:?} in HEALTHCHECK (try CMD)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<RunConfig> {
        let mut config = RunConfig::default();
        apply(
            &mut config,
            &changes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        )?;
        Ok(config)
    }

    #[test]
    fn every_instruction_has_its_effect() {
        let config = changed(&[
            "CMD [\"sh\", \"-x\"]",
            "env A=1 B=\"two words\" C=three\\ words D='$A'",
            "ENV OLD form with  spaces",
            "ENV A=${A}2 E=${NONE:-default} F=${A:+set}",
            "EXPOSE 80 8000-8001/udp",
            "LABEL a=b \"c d\"='e f'",
            "USER 1000:1000",
            "VOLUME /data [\"x\"]",
            "VOLUME [\"/a b\"]",
            "WORKDIR /srv",
            "WORKDIR app/../web",
            "STOPSIGNAL SIGRTMIN+3",
            "HEALTHCHECK --interval=5s --timeout=1m --retries=2 CMD curl -f localhost",
            "ONBUILD RUN make",
            "SHELL [\"/bin/bash\", \"-c\"]",
        ])
        .unwrap();
        assert_eq!(config.cmd.unwrap(), ["sh", "-x"]);
        let env = config.env.unwrap();
        let expected = [
            "A=12",
            "B=two words",
            "C=three words",
            "D=$A",
            "OLD=form with  spaces",
            "E=default",
            "F=set",
        ];
        assert_eq!(env, expected);
        assert_eq!(
            config
                .exposed_ports
                .unwrap()
                .into_keys()
                .collect::<Vec<_>>(),
            ["80/tcp", "8000/udp", "8001/udp"]
        );
        assert_eq!(config.labels.unwrap()["c d"], "e f");
        assert_eq!(config.user, "1000:1000");
        assert!(config.volumes.unwrap().contains_key("/a b"));
        assert_eq!(config.working_dir, "/srv/web");
        assert_eq!(config.stop_signal, "SIGRTMIN+3");
        let check = config.healthcheck.unwrap();
        assert_eq!(check.test, ["CMD-SHELL", "curl -f localhost"]);
        assert_eq!(
            (check.interval, check.timeout, check.retries),
            (5_000_000_000, 60_000_000_000, 2)
        );
        assert_eq!(config.on_build.unwrap(), ["RUN make"]);
        assert_eq!(config.shell.unwrap(), ["/bin/bash", "-c"]);
        let config = changed(&["CMD x", "ENTRYPOINT exec top -b", "HEALTHCHECK NONE"]).unwrap();
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "exec top -b"]);
        assert_eq!(
            (config.cmd, config.healthcheck.unwrap().test),
            (None, vec!["NONE".to_owned()])
        );
    }

    #[test]
    fn wrong_instructions_are_named() {
        for (change, text) in [
            ("RUN make", "RUN is not a valid change command"),
            ("EXPOSE x", "invalid containerPort: x"),
            ("EXPOSE 1/foo", "invalid proto: foo"),
            ("STOPSIGNAL SIGFOO", "invalid signal: SIGFOO"),
            (
                "SHELL bash",
                "SHELL requires the arguments to be in JSON form",
            ),
            ("ENV A", "ENV must have two arguments"),
            ("ENV", "ENV requires at least one argument"),
            (
                "LABEL a=1 b",
                "Syntax error - can't find = in \"b\". Must be of the form: name=value",
            ),
            ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
            ("HEALTHCHECK --foo=1 CMD x", "Unknown flag: foo"),
            ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
            ("ENV A=${", "syntax error: bad substitution: `${`"),
        ] {
            assert_eq!(
                changed(&[change]).unwrap_err().to_string(),
                text,
                "{change}"
            );
        }
    }
}
