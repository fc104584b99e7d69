//! `--device` and `--gpus`.

use crate::grammar::values::parse_csv;
use serde_json::{Map, Value, json};

/// Says whether a device is a CDI name: `vendor.example/class=name`.
pub fn is_cdi_name(device: &str) -> bool {
    let Some((kind, name)) = device.split_once('=') else {
        return false;
    };
    let Some((vendor, class)) = kind.split_once('/') else {
        return false;
    };
    let word = |text: &str, more: &[char]| {
        !text.is_empty()
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
    };
    word(vendor, &['.', '-', '_'])
        && word(class, &['-', '_'])
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c))
}

fn is_mode(text: &str) -> bool {
    let mut seen = Vec::new();
    !text.is_empty()
        && text.chars().all(|c| {
            let fresh = !seen.contains(&c);
            seen.push(c);
            fresh && "rwm".contains(c)
        })
}

/// Parses `HOST[:CONTAINER][:MODE]`.
pub fn parse_device(value: &str) -> Result<Value, String> {
    let parts: Vec<&str> = value.split(':').collect();
    if parts.len() > 3 || parts[0].is_empty() {
        return Err(format!("bad format for path: {value}"));
    }
    let (source, target, mode) = match parts.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, mode] if is_mode(mode) => (*source, *source, *mode),
        [source, target] => (*source, *target, "rwm"),
        [source, target, mode] if is_mode(mode) => (*source, *target, *mode),
        [_, _, mode] => return Err(format!("bad mode specified: {mode}")),
        _ => return Err(format!("bad format for path: {value}")),
    };
    if !target.starts_with('/') {
        return Err(format!("{target} is not an absolute path"));
    }
    Ok(json!({"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": mode}))
}

/// Parses one `--gpus` value into a DeviceRequest.
pub fn parse_gpus(value: &str) -> Result<Value, String> {
    let mut count = 0i64;
    let mut driver = String::new();
    let mut ids: Option<Vec<String>> = None;
    let mut capabilities: Option<Vec<String>> = None;
    let mut options = Map::new();
    let mut seen: Vec<String> = Vec::new();
    if value.is_empty() {
        return Err("EOF".to_owned());
    }
    for field in parse_csv(value)? {
        let (key, text) = field
            .split_once('=')
            .map_or((field.as_str(), None), |(key, text)| (key, Some(text)));
        let key = key.to_owned();
        let canonical = if text.is_none() {
            "count".to_owned()
        } else {
            key.clone()
        };
        if seen.contains(&canonical) {
            return Err(format!(
                "gpu request key '{canonical}' can be specified only once"
            ));
        }
        seen.push(canonical);
        let Some(text) = text else {
            count = parse_count(&key)?;
            continue;
        };
        match key.as_str() {
            "driver" => driver = text.to_owned(),
            "count" => count = parse_count(text)?,
            "device" => ids = Some(text.split(',').map(str::to_owned).collect()),
            "capabilities" => {
                capabilities = Some(
                    text.split(',')
                        .map(str::to_owned)
                        .chain(["gpu".to_owned()])
                        .collect(),
                );
            }
            "options" => {
                for option in parse_csv(text)? {
                    let (key, value) = option.split_once('=').unwrap_or((option.as_str(), ""));
                    options.insert(key.to_owned(), json!(value));
                }
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if ids.is_none() && !seen.iter().any(|key| key == "count") {
        count = 1;
    }
    let mut capabilities = capabilities.unwrap_or_else(|| vec!["gpu".to_owned()]);
    capabilities.dedup();
    Ok(json!({
        "Driver": driver, "Count": count, "DeviceIDs": ids, "Capabilities": [capabilities], "Options": options,
    }))
}

fn parse_count(text: &str) -> Result<i64, String> {
    if text == "all" {
        return Ok(-1);
    }
    text.parse().map_err(|_| {
        format!(
            "invalid count ({text}): value must be either \"all\" or an integer: invalid syntax"
        )
    })
}

/// Checks a `--device-cgroup-rule`: `TYPE MAJOR:MINOR MODE`.
pub fn check_cgroup_rule(rule: &str) -> Result<(), String> {
    let wrong = || format!("invalid device cgroup format '{rule}'");
    let parts: Vec<_> = rule.split(' ').collect();
    let [kind, numbers, mode] = parts.as_slice() else {
        return Err(wrong());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    let number =
        |text: &str| text == "*" || (!text.is_empty() && text.chars().all(|c| c.is_ascii_digit()));
    let mode_right = !mode.is_empty() && mode.len() <= 3 && mode.chars().all(|c| "rwm".contains(c));
    if matches!(*kind, "a" | "b" | "c") && number(major) && number(minor) && mode_right {
        Ok(())
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_values() {
        let check = |value: &str, expected: &str| {
            let got = parse_device(value).map_or_else(
                |error| error,
                |d| {
                    format!(
                        "{} {} {}",
                        d["PathOnHost"], d["PathInContainer"], d["CgroupPermissions"]
                    )
                    .replace('"', "")
                },
            );
            assert_eq!(got, expected);
        };
        check("/dev/null", "/dev/null /dev/null rwm");
        check("/dev/null:r", "/dev/null /dev/null r");
        check("/dev/null:/dev/x:rw", "/dev/null /dev/x rw");
        check("/dev/null:/a:q", "bad mode specified: q");
        check("/a:/b:/c:/d", "bad format for path: /a:/b:/c:/d");
        check("foo", "foo is not an absolute path");
        assert!(is_cdi_name("vendor.com/class=name"));
        assert!(!is_cdi_name("/dev/x=y"));
    }

    #[test]
    fn gpu_requests() {
        assert_eq!(parse_gpus("all").expect("gpus")["Count"], -1);
        assert_eq!(
            parse_gpus("device=0").expect("gpus")["DeviceIDs"],
            json!(["0"])
        );
        assert_eq!(
            parse_gpus("x=y"),
            Err("unexpected key 'x' in 'x=y'".to_owned())
        );
    }

    #[test]
    fn cgroup_rules() {
        assert_eq!(check_cgroup_rule("c 1:* rwm"), Ok(()));
        assert_eq!(
            check_cgroup_rule("foo"),
            Err("invalid device cgroup format 'foo'".to_owned())
        );
    }
}
